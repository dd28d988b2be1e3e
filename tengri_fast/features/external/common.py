"""What the external sources share: counters, times of publication, files, and the checks of stored states."""

from __future__ import annotations

import csv
import datetime
import difflib
import gzip
import io
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError, FeatureExtractionError, MissingExtraError
from tengri_fast.market.columns import ExternalColumns

__all__ = ["DAY_NS", "HOUR_NS", "RESOLUTIONS", "SourceCounters", "SourceInfo", "Values", "available_from", "gaps"]

Values = tuple[float, float, float, float]
StrPath = str | os.PathLike[str]
Array = npt.NDArray[Any]

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
LAST_NS = 2**63  # the year 2262: a later stamp is a defect, and would make every following message run backward

#: How finely a publisher stamps, in ns; 0 means that the stamp is the moment itself.
RESOLUTIONS: Mapping[str, int] = {"exact": 0, "second": SECOND_NS, "minute": MINUTE_NS, "hour": HOUR_NS, "day": DAY_NS}

_DATE = re.compile(r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}\s*")


class SourceInfo(NamedTuple):
    """A row of the table of sources.

    Attributes
    ----------
    name : str
        As in the user's configuration.
    description : str
    values, units : tuple of 4 str
        Meaning and unit of the four numbers of an observation; "" where the number is always NaN.
    max_age_ns : int
        Age in ns after which an observation is stale unless the user says otherwise.
    """

    name: str
    description: str
    values: tuple[str, str, str, str]
    units: tuple[str, str, str, str]
    max_age_ns: int


class SourceCounters(msgspec.Struct):
    """What became of the messages. Every message is in exactly one count, except `reordered` and `truncated`.

    Attributes
    ----------
    accepted : int
    invalid : int
        Not a number, out of range, no words, or no usable time.
    backward : int
        Older than one already accepted (live, or in an earlier chunk).
    duplicate : int
        The same message delivered again.
    crossed : int
        Bid above ask.
    filtered : int
        Dropped by a limit that the user set (spread, relevance, novelty).
    settled : int
        After the market's settlement.
    missing : int
        A release without a value yet.
    warming : int
        A release whose transform needs more history.
    reordered : int
        Rows of a history that stood behind a later one and were sorted into place; counted in addition.
    truncated : int
        Headlines of which only the beginning was read; counted in addition.
    """

    accepted: int = 0
    invalid: int = 0
    backward: int = 0
    duplicate: int = 0
    crossed: int = 0
    filtered: int = 0
    settled: int = 0
    missing: int = 0
    warming: int = 0
    reordered: int = 0
    truncated: int = 0

    @property
    def seen(self) -> int:
        """Messages given so far."""
        return (self.accepted + self.invalid + self.backward + self.duplicate + self.crossed + self.filtered
                + self.settled + self.missing + self.warming)  # fmt: skip

    def as_dict(self) -> dict[str, int]:
        """Counts by name."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


class NotPickled:
    """States travel as checked bytes, never as pickles."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} does not pickle; use to_bytes() and from_bytes()")


def usable_time(ts: Any) -> bool:
    """Whether `ts` is a whole number of ns from 1970 to 2262."""
    return isinstance(ts, (int, np.integer)) and 0 <= int(ts) < LAST_NS


def number(value: Any) -> float:
    """`value` as a float; NaN for anything that is no number."""
    if isinstance(value, (float, int, np.floating, np.integer)):
        try:
            return float(value)
        except OverflowError:
            return math.nan
    return math.nan


def number_of_text(value: Any) -> float:
    """As `number`, also for the text of a CSV cell."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return math.nan
    return number(value)


def available_from(stamp_ns: int, resolution: str = "minute", *, midnight_is_date: bool = False) -> int:
    """The moment from which something with a coarse time stamp counts as published.

    Parameters
    ----------
    stamp_ns : int
        The publisher's stamp in UTC ns.
    resolution : {"exact", "second", "minute", "hour", "day"}
        How finely the publisher stamps. A headline stamped 13:58 may have appeared at any moment of that minute, so it
        exists from 13:59:00 on; a date alone means midnight UTC at the end of that day.
    midnight_is_date : bool
        Take a stamp of exactly midnight for a date without a time.

    Returns
    -------
    int
        UTC ns, later than every moment the stamp can stand for ("exact": the stamp itself).

    Raises
    ------
    FeatureExtractionError
        If the resolution is unknown.
    """
    unit = RESOLUTIONS.get(resolution)
    if unit is None:
        raise FeatureExtractionError(f"`resolution` must be one of {', '.join(RESOLUTIONS)}, was {resolution!r}")
    if midnight_is_date and unit < DAY_NS and stamp_ns % DAY_NS == 0:
        unit = DAY_NS
    return stamp_ns if unit == 0 else (stamp_ns // unit + 1) * unit


def stamp_of(value: Any) -> tuple[int, bool]:
    """(UTC ns, whether it is a date without a time) of a cell of a time column; (-1, False) if it is neither.

    Whole numbers are ns. Text is ISO 8601; without an offset it is UTC.
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return (int(value), False) if usable_time(value) else (-1, False)
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit() and len(text) > 8:
            return (int(text), False) if len(text) < 20 and usable_time(int(text)) else (-1, False)
        try:
            moment = datetime.datetime.fromisoformat(text)
        except ValueError:
            return (-1, False)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        try:
            span = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        except OverflowError:
            return (-1, False)
        stamp = (span.days * 86_400 + span.seconds) * SECOND_NS + span.microseconds * 1000
        return (stamp, _DATE.fullmatch(text) is not None) if usable_time(stamp) else (-1, False)
    return (-1, False)


def time_order(times: Array, counters: SourceCounters) -> Array | None:
    """Stable order by time, or None if the times never run back; counts the rows that had to move."""
    if len(times) < 2:
        return None
    late = int(np.count_nonzero(times[1:] < np.maximum.accumulate(times)[:-1]))
    if late == 0:
        return None
    counters.reordered += late
    return np.argsort(times, kind="stable")


def columns_from(rows: Sequence[tuple[int, Values]], delay_ns: int) -> ExternalColumns:
    """Observations from (time of publication, values) in order of time."""
    times = np.array([ts for ts, _ in rows], np.uint64)
    values = np.array([values for _, values in rows], np.float64).reshape(len(rows), 4)
    return ExternalColumns(times, times + checked_delay(delay_ns), values)


def checked_delay(delay_ns: int) -> np.uint64:
    """`delay_ns` if it is a time that may be added to a publication time."""
    if not isinstance(delay_ns, (int, np.integer)) or not 0 <= int(delay_ns) < LAST_NS:
        raise FeatureExtractionError(f"`delay_ns` must be a whole number >= 0, was {delay_ns!r}")
    return np.uint64(delay_ns)


def gaps(columns: ExternalColumns, longest_ns: int) -> list[tuple[int, int]]:
    """Stretches without an observation.

    Parameters
    ----------
    columns : ExternalColumns
        In order of time.
    longest_ns : int
        Longest wait that is still ordinary, in ns.

    Returns
    -------
    list of (int, int)
        Time of the last observation before each gap and of the first one after it, UTC ns.
    """
    times = columns.ts_event
    if len(times) < 2:
        return []
    at = np.flatnonzero(np.diff(times.astype(np.int64)) > longest_ns)
    return [(int(times[i]), int(times[i + 1])) for i in at]


S = TypeVar("S", bound=msgspec.Struct)
_MAX_STATE_BYTES = 64 * 2**20


def decode_state(data: bytes, kind: str, version: int, struct: type[S]) -> S:
    """A stored state, checked; FeatureExtractionError says what is wrong with it."""
    if not isinstance(data, bytes) or len(data) > _MAX_STATE_BYTES:
        raise FeatureExtractionError(f"`data` must be at most {_MAX_STATE_BYTES} bytes of a {kind} state, "
                                     f"was {type(data).__name__}")  # fmt: skip
    try:
        found = msgspec.msgpack.decode(data, type=struct)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FeatureExtractionError(f"`data` must be a state of {kind}: {error}") from None
    for name, wanted in (("kind", kind), ("version", version)):
        if getattr(found, name) != wanted:
            raise FeatureExtractionError(f"`{name}` of the state must be {wanted!r}, was {getattr(found, name)!r}")
    return found


def sound_counters(counters: SourceCounters) -> bool:
    """Whether no count is negative."""
    return min(counters.as_dict().values()) >= 0


def _nearest(name: str, present: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(present), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def read_table(path: StrPath, fields: Mapping[str, str], columns: Mapping[str, str] | None = None,
               optional: frozenset[str] = frozenset(), keep: tuple[str, Iterable[str]] | None = None
               ) -> dict[str, list[Any] | Array]:  # fmt: skip
    """Columns of a Parquet, .csv or .csv.gz file by our field names.

    Parameters
    ----------
    path : path
    fields : mapping
        Our field to the default column of the file.
    columns : mapping, optional
        Our field to the file's column where that differs.
    optional : set of str
        Fields that may be missing.
    keep : (str, iterable of str), optional
        Field and its values: rows with another value are left out.

    Returns
    -------
    dict
        Field to a list of str (CSV) or an array (Parquet; times as int64 ns, -1 where missing).
    """
    file = Path(path)
    if not file.is_file():
        raise DataConversionError(f"`path` must be a file, was {file}")
    for key in columns or {}:
        if key not in fields:
            raise DataConversionError(f"`columns` must name fields among {', '.join(fields)}, named {key!r}"
                                      f"{_nearest(key, fields)}")  # fmt: skip
    suffixes = [suffix.lower() for suffix in file.suffixes]
    text = suffixes[-1:] == [".csv"] or suffixes[-2:] == [".csv", ".gz"]
    load = _csv_columns if text else _parquet_columns

    def choose(present: Sequence[str]) -> dict[str, str]:
        wanted = {}
        for field, default in fields.items():
            name = (columns or {}).get(field, default)
            if name in present:
                wanted[field] = name
            elif field not in optional or field in (columns or {}):
                raise DataConversionError(f"`{name}` must be a column of {file.name}, which has {', '.join(present)}"
                                          f"{_nearest(name, present)}")  # fmt: skip
        return wanted

    kept = None if keep is None else (keep[0], frozenset(keep[1]))
    return load(file, choose, kept)


Chooser = Callable[[Sequence[str]], dict[str, str]]


def open_text(file: Path) -> io.TextIOBase:
    """A text file, unpacked if its name ends in .gz; bytes that are not UTF-8 become replacement characters."""
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", errors="replace", newline="")
    return file.open(encoding="utf-8", errors="replace", newline="")


def csv_rows(file: Path) -> list[list[str]]:
    """All rows of a CSV file, the header first, cells stripped."""
    try:
        with open_text(file) as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if row]
    except (OSError, EOFError, csv.Error) as error:
        raise DataConversionError(f"`path` must be a readable CSV file, was {file.name}: {error}") from None
    if not rows:
        raise DataConversionError(f"`path` must have a header line, {file.name} is empty")
    rows[0][0] = rows[0][0].removeprefix("\ufeff")
    return rows


def _csv_columns(file: Path, choose: Chooser, keep: tuple[str, frozenset[str]] | None) -> dict[str, list[Any] | Array]:
    header, *rows = csv_rows(file)
    wanted = choose(header)
    short = next((i for i, row in enumerate(rows, 2) if len(row) != len(header)), None)
    if short is not None:
        raise DataConversionError(f"line {short} of {file.name} must have {len(header)} cells, "
                                  f"had {len(rows[short - 2])}")  # fmt: skip
    if keep is not None and keep[0] in wanted:
        at = header.index(wanted[keep[0]])
        rows = [row for row in rows if row[at] in keep[1]]
    return {field: [row[header.index(name)] for row in rows] for field, name in wanted.items()}


def _parquet_columns(file: Path, choose: Chooser, keep: tuple[str, frozenset[str]] | None
                     ) -> dict[str, list[Any] | Array]:  # fmt: skip
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "reading Parquet files") from None
    try:
        wanted = choose(pyarrow.parquet.read_schema(file).names)
        rows = None if keep is None or keep[0] not in wanted else [(wanted[keep[0]], "in", sorted(keep[1]))]
        table = pyarrow.parquet.read_table(file, columns=sorted(set(wanted.values())), filters=rows)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataConversionError(f"`path` must be a readable Parquet file, was {file.name}: {error}") from None
    try:
        return {field: _arrow_column(table.column(name).combine_chunks()) for field, name in wanted.items()}
    except pyarrow.ArrowException as error:
        raise DataConversionError(f"`path` must hold times within 1677 to 2262, {file.name}: {error}") from None


def _arrow_column(column: Any) -> list[Any] | Array:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_timestamp(kind):
        nanoseconds = column.cast(pyarrow.timestamp("ns", kind.tz)).cast(pyarrow.int64()).fill_null(-1)
        times: Array = nanoseconds.to_numpy(zero_copy_only=False)
        return times
    if pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind):
        numbers: Array = column.to_numpy(zero_copy_only=False)
        return numbers
    cells: list[Any] = (column.cast(pyarrow.string()) if pyarrow.types.is_date(kind) else column).to_pylist()
    return cells
