"""Trading windows: hours of a venue or an instrument, turned into boundaries in UTC.

A window opens at ``from`` and closes at ``to``, wall clock of its time zone, on each of its days; one whose ``to`` is
not after its ``from`` closes on the next day. Boundaries are computed from the time zone database (:mod:`zoneinfo`), so
the day on which clocks change is as long as it is. A wall clock time that does not exist on such a day is taken as the
moment of the change; of one that comes twice, an opening takes the second and a closing the first: doubt closes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from tengri_fast.errors import ConfigurationError

__all__ = ["Boundaries", "TradingWindow", "boundaries", "clock_ns"]

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000_000
#: Times are unsigned 64-bit ns, which end in the year 2554; the last one is never known.
_LAST = 2**64 - 1


def clock_ns(field: str, text: str) -> int:
    """Nanoseconds after midnight of a time such as "09:30" or "09:30:15".

    Raises
    ------
    ConfigurationError
        When the text is not such a time.
    """
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ConfigurationError(f'`{field}` must be a time like "09:30", was {text!r}')
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * _SECOND


class TradingWindow(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"opens": "from", "closes": "to"}
):
    """Hours in which orders that add risk may be sent.

    Parameters
    ----------
    venue, instrument : str
        What the hours are of: exactly one is given. Hours of an instrument replace those of its venue.
    days : tuple of str
        Days on which the window opens, "mon" to "sun".
    opens, closes : str
        Wall clock, "HH:MM" or "HH:MM:SS" (in a table: ``from`` and ``to``). Equal ones mean 24 hours.
    time_zone : str
        IANA name, such as "America/New_York".

    Raises
    ------
    ConfigurationError
        When a field breaks its rule.
    """

    venue: str = ""
    instrument: str = ""
    days: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri")
    opens: str = "00:00"
    closes: str = "00:00"
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        if bool(self.venue) == bool(self.instrument):
            raise ConfigurationError("`window` must name either a `venue` or an `instrument`")
        if not self.days:
            raise ConfigurationError("`window.days` must name at least one day, was empty")
        for day in self.days:
            if day not in _DAYS:
                raise ConfigurationError(f"`window.days` must be of {', '.join(_DAYS)}, was {day!r}")
        clock_ns("window.from", self.opens)
        clock_ns("window.to", self.closes)
        _zone(self.time_zone)


class Boundaries(NamedTuple):
    """UTC ns at which trading opens and closes in turn, the first being an opening, and where they are known."""

    times: tuple[int, ...]
    known_from: int
    known_to: int


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(f"`window.time_zone` must be a name of the IANA database, was {name!r}") from error


def _ns(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * _SECOND + since.microseconds * 1000


def _moment(day: datetime, clock: int, zone: ZoneInfo, opening: bool) -> int:
    """UTC ns of a wall clock time on a day."""
    wall = (day + timedelta(seconds=clock // _SECOND)).replace(tzinfo=zone)
    first, second = (_ns(wall.replace(fold=fold).astimezone(UTC)) for fold in (0, 1))
    if first <= second:  # once, or twice: an opening waits for the second
        return second if opening else first
    # The clocks jump over it. Both readings are off by the jump, one before and one behind it.
    low, high = second, first
    before = wall.replace(fold=0).utcoffset()
    while high - low > _SECOND:
        middle = (low + high) // (2 * _SECOND) * _SECOND
        at = (_EPOCH + timedelta(seconds=middle // _SECOND)).astimezone(zone)
        low, high = (middle, high) if at.utcoffset() == before else (low, middle)
    return high


def boundaries(windows: Iterable[TradingWindow], around: int, days: int = 14) -> Boundaries:
    """Openings and closings around a time, those of windows that overlap merged.

    Parameters
    ----------
    windows : iterable of TradingWindow
        The hours of one instrument or venue.
    around : int
        UTC ns.
    days : int
        How far ahead they are to be known; two days back they are as well.

    Returns
    -------
    Boundaries
        Known for at least the two days before and ``days`` after ``around``.
    """
    middle = _EPOCH + timedelta(seconds=around // _SECOND)
    spans: list[tuple[int, int]] = []
    for window in windows:
        zone = _zone(window.time_zone)
        opens, closes = clock_ns("window.from", window.opens), clock_ns("window.to", window.closes)
        for offset in range(-5, days + 4):
            if (around // (86_400 * _SECOND)) + offset < 0:
                continue  # before 1970 there are no times
            day = (middle + timedelta(days=offset)).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
            if _DAYS[day.weekday()] not in window.days:
                continue
            start = _moment(day, opens, zone, opening=True)
            last = day if closes > opens else day + timedelta(days=1)
            end = _moment(last, closes, zone, opening=closes == opens)  # 24 hours leave no gap to the next day
            if end > start and start < _LAST:
                spans.append((max(start, 0), min(end, _LAST)))
    known_from = max(around - 2 * 86_400 * _SECOND, 0)
    known_to = min(around + days * 86_400 * _SECOND, _LAST)
    return Boundaries(_merged(sorted(spans)), known_from, known_to)


def _merged(spans: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    times: list[int] = []
    for start, end in spans:
        if times and start <= times[-1]:
            times[-1] = max(times[-1], end)
        else:
            times += (start, end)
    return tuple(times)
