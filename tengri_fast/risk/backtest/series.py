"""Daily prices or returns out of a CSV (also ``.gz``) or Parquet table."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import math
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError, MissingExtraError
from tengri_fast.risk.backtest._special import Floats

__all__ = ["Table", "price_returns", "read_table"]

_DAY = 86_400_000_000_000
_TIME_COLUMNS = ("ts_ns", "ts", "ts_event", "timestamp", "datetime", "date", "time", "day")
_FORMATS = (
    (re.compile(r"\d{8}"), "%Y%m%d"),
    (re.compile(r"\d{8} \d{2}:\d{2}"), "%Y%m%d %H:%M"),
    (re.compile(r"\d{1,2}/\d{1,2}/\d{4}"), "%m/%d/%Y"),
)


@dataclass(frozen=True, eq=False)
class Table:
    """Times and the numeric columns of a table.

    Attributes
    ----------
    name : str
        File name.
    times : ndarray of uint64, shape (T,)
        UTC nanoseconds, rising.
    columns : dict of str to ndarray, shape (T,)
        Columns in which every entry is a number or empty; an empty one is NaN.
    """

    name: str
    times: npt.NDArray[np.uint64]
    columns: dict[str, Floats]

    def column(self, name: str) -> Floats:
        """One column by name, in any case.

        Raises
        ------
        ConfigurationError
            When there is no such column; the message lists those that there are.
        """
        for key, values in self.columns.items():
            if key.lower() == name.lower():
                return values
        known = ", ".join(self.columns)
        raise ConfigurationError(f"`column` must be a numeric column of {self.name} ({known}), was {name!r}")


def _moment(text: Any, name: str, row: int) -> int:
    """UTC ns of a date in ISO, US (month/day/year) or compact form, or of an integer of ns."""
    if isinstance(text, datetime):
        moment = text if text.tzinfo else text.replace(tzinfo=UTC)
    else:
        written = str(text).strip()
        if re.fullmatch(r"\d{15,20}", written):
            return int(written)
        layout = next((form for pattern, form in _FORMATS if pattern.fullmatch(written)), None)
        try:
            moment = datetime.strptime(written, layout) if layout else datetime.fromisoformat(written)
        except ValueError:
            raise DataConversionError(
                f"{name}, row {row}: the time must be a date (2024-05-31, 5/31/2024, 20240531), a date and time, or "
                f"integer nanoseconds, was {written!r}"
            ) from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


def _numbers(cells: Sequence[Any]) -> Floats | None:
    """The column as numbers, empty cells as NaN; None when it is not a column of numbers."""
    # Python's float() would take 1_000, which no table means.
    if any(isinstance(cell, str) and "_" in cell for cell in cells):
        return None
    try:
        return np.array([math.nan if cell is None or cell == "" else float(cell) for cell in cells])
    except (TypeError, ValueError):
        return None


def _csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise DataConversionError(f"{path.name} cannot be read as CSV: {error}") from error
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise DataConversionError(f"{path.name} must have a line of names and at least one row, had {len(rows)} lines")
    header = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise DataConversionError(f"{path.name}, row {number}: must have {len(header)} cells, had {len(row)}")
    return header, rows[1:]


def _parquet(path: Path) -> tuple[list[str], list[list[Any]]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "data", "Reading Parquet") from error
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise DataConversionError(f"{path.name} cannot be read as Parquet: {error}") from error
    columns = [column.to_pylist() for column in table.columns]
    return list(table.column_names), [list(row) for row in zip(*columns, strict=True)]


def read_table(path: str | os.PathLike[str], time_column: str | None = None) -> Table:
    """Read a table whose rows are days.

    Parameters
    ----------
    path : path-like
        ``.csv``, ``.csv.gz`` or ``.parquet``.
    time_column : str, optional
        By default the first column that is called ts_ns, ts, ts_event, timestamp, datetime, date, time or day, in any
        case. Dates without a time are midnight UTC.

    Returns
    -------
    Table

    Raises
    ------
    ConfigurationError
        When there is no such file or column.
    DataConversionError
        When the file cannot be read, a time cannot be understood, or times do not rise; the message names the row.
    MissingExtraError
        For Parquet without pyarrow.
    """
    source = Path(path)
    if not source.is_file():
        raise ConfigurationError(f"`data` must name a file, was {str(source)!r}, which does not exist")
    if not source.name.lower().endswith((".csv", ".csv.gz", ".parquet")):
        raise ConfigurationError(f"`data` must end in .csv, .csv.gz or .parquet, was {source.name!r}")
    header, rows = _parquet(source) if source.suffix == ".parquet" else _csv(source)
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataConversionError(f"{source.name}: names of columns must be distinct, {twice!r} is there twice")
    lower = [name.lower() for name in header]
    wanted = (time_column.lower(),) if time_column else _TIME_COLUMNS
    at = next((lower.index(name) for name in wanted if name in lower), None)
    if at is None:
        raise ConfigurationError(
            f"`time_column` must be a column of {source.name} ({', '.join(header)}), was {time_column or 'not found'!r}"
        )
    moments = [_moment(row[at], source.name, number) for number, row in enumerate(rows, 1)]
    for number in range(1, len(moments)):
        if moments[number] <= moments[number - 1]:
            raise DataConversionError(
                f"{source.name}, row {number + 1}: times must rise, {rows[number][at]!r} follows "
                f"{rows[number - 1][at]!r}"
            )
    if moments and moments[0] < 0:
        raise DataConversionError(f"{source.name}: times must not be before 1970, was {rows[0][at]!r}")
    columns: dict[str, Floats] = {}
    for index, name in enumerate(header):
        numbers = None if index == at else _numbers([row[index] for row in rows])
        if numbers is not None:
            columns[name] = numbers
    return Table(source.name, np.array(moments, dtype=np.uint64), columns)


def price_returns(
    times: npt.NDArray[np.uint64], prices: npt.ArrayLike, *, max_gap_days: float = 10.0, name: str = "prices"
) -> tuple[npt.NDArray[np.uint64], Floats, list[str]]:
    """Simple returns from one row to the next, without those across long gaps.

    Parameters
    ----------
    times : ndarray of uint64, shape (T,)
        UTC ns, rising.
    prices : array_like, shape (T,)
        Finite and > 0.
    max_gap_days : float
        A return over a longer time is no one-day return and is left out; the notes say how many.
    name : str
        For messages.

    Returns
    -------
    (times [n], returns [n], notes)

    Raises
    ------
    DataConversionError
        When a price breaks its rule; the message names the row.
    """
    table = np.asarray(prices, dtype=np.float64)
    if table.shape != times.shape or table.size < 2:
        raise DataConversionError(f"{name}: must have at least 2 rows and as many times, had {table.shape}")
    good = np.isfinite(table) & (table > 0.0)
    if not good.all():
        row = int(np.argmin(good))
        raise DataConversionError(f"{name}, row {row + 1}: must be finite and > 0, was {table[row]}")
    if not max_gap_days > 0.0:
        raise DataConversionError(f"`max_gap_days` must be > 0, was {max_gap_days}")
    returns = table[1:] / table[:-1] - 1.0
    near = np.diff(times).astype(np.float64) <= max_gap_days * _DAY
    notes = []
    if not near.all():
        notes.append(
            f"Returns over more than {max_gap_days:g} days are left out, they are no one-day returns: "
            f"{int((~near).sum())}."
        )
    return times[1:][near], returns[near], notes
