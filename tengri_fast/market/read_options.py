"""What a caller may say about a file that the file does not say itself, and small things that readers share."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.market.tables import Progress

__all__ = ["ReadOptions", "date_in_name", "local_times", "midnight_ns"]

BAR_STAMPS = ("open", "close")
_DATE = re.compile(r"(?<![0-9])((?:19|20)[0-9]{2})[-_]?([01][0-9])[-_]?([0-3][0-9])(?![0-9])")


@dataclass(frozen=True)
class ReadOptions:
    """Options of :func:`tengri_fast.market.read_market`. A format says which of them it knows; others are an error.

    Attributes
    ----------
    instrument_id : str, optional
        Which instrument to take from a file that holds several.
    date : date, optional
        Day of a file whose times count from midnight; by default it is read from the file's name.
    timezone : str, optional
        IANA name of the zone of local times.
    columns : mapping of str to str
        Our field to the file's column.
    aggressors : mapping of str to int
        What a file of trades writes for the side, to +1 (buyer), -1 (seller) or 0.
    levels : int, optional
        How many book levels to take.
    bar_stamp : str, optional
        "open": a bar carries the time at which it opened, so it is known one interval later (the default where
        the format does not say); "close": the time at which it was known.
    missing_size : float
        Size of quotes in a file that has none.
    progress : callable, optional
        Called with the bytes (or row groups) read and their number.
    """

    instrument_id: str | None = None
    date: dt.date | None = None
    timezone: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    aggressors: Mapping[str, int] = field(default_factory=dict)
    levels: int | None = None
    bar_stamp: str | None = None
    missing_size: float = 0.0
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.bar_stamp is not None and self.bar_stamp not in BAR_STAMPS:
            raise DataConversionError(f"`bar_stamp` must be one of {', '.join(BAR_STAMPS)}, was {self.bar_stamp!r}")
        if not (np.isfinite(self.missing_size) and self.missing_size >= 0):
            raise DataConversionError(f"`missing_size` must be finite and >= 0, was {self.missing_size}")
        if self.timezone is not None:
            zone_of(self.timezone)

    def given(self) -> dict[str, object]:
        """The options that differ from their defaults, as plain values (no `progress`)."""
        plain = {
            "instrument_id": self.instrument_id,
            "date": self.date.isoformat() if self.date else None,
            "timezone": self.timezone,
            "columns": dict(self.columns) or None,
            "aggressors": dict(self.aggressors) or None,
            "levels": self.levels,
            "bar_stamp": self.bar_stamp,
            "missing_size": self.missing_size or None,
        }
        return {name: value for name, value in plain.items() if value is not None}


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """A time zone by its IANA name."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise DataConversionError(f"`timezone` must be an IANA name such as America/New_York, was {name!r}") from None


def date_in_name(path: Path, options: ReadOptions) -> dt.date:
    """The day that the options or the file's name say."""
    if options.date is not None:
        return options.date
    for year, month, day in _DATE.findall(path.name):
        try:
            return dt.date(int(year), int(month), int(day))
        except ValueError:
            continue
    raise DataConversionError(f"`date` must be given for {path.name}: its times count from midnight and its name "
                              "holds no date")  # fmt: skip


def midnight_ns(date: dt.date, timezone: str) -> int:
    """UTC nanoseconds of the start of a day in a zone.

    Times that count from midnight are taken as hours of a clock on the wall that does not change during the session:
    a change of daylight saving time falls outside the hours of the markets that write such files.
    """
    noon = dt.datetime.combine(date, dt.time(12), zone_of(timezone))
    return (int(noon.timestamp()) - 12 * 3600) * 1_000_000_000


def local_times(stamps: npt.NDArray[np.datetime64], timezone: str) -> npt.NDArray[np.uint64]:
    """Times of a wall clock to UTC nanoseconds.

    Times that occur twice (when clocks go back) are the first of the two, times that do not occur are one hour later.
    """
    local = stamps.astype("datetime64[ns]")
    if not len(local):
        return np.zeros(0, np.uint64)
    if timezone in ("UTC", "Etc/UTC"):
        return local.astype(np.int64).astype(np.uint64)
    # The offset changes on whole hours: one look-up per hour that occurs.
    hours, inverse = np.unique(local.astype("datetime64[h]"), return_inverse=True)
    zone = zone_of(timezone)
    offsets = []
    for hour in hours:
        offset = hour.astype("datetime64[s]").item().replace(tzinfo=zone).utcoffset()
        offsets.append(int(offset.total_seconds()))
    shift = np.array(offsets, np.int64)[inverse.reshape(-1)] * 1_000_000_000
    return (local.astype(np.int64) - shift).astype(np.uint64)
