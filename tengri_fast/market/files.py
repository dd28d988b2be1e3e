"""Parquet and CSV files of quotes, trades, depth and bars to columns.

Default column names: ``ts_ns`` (used for event and init time), ``bid_price_0``, ``ask_price_0``, ``bid_size_0``,
``ask_size_0`` and so on by level, for trades ``price``, ``size``, ``aggressor``, for bars ``open``, ``high``, ``low``,
``close``, ``volume``. A column ``ts_init_ns``, where there is one, is the init time.

Prices and sizes come out as NautilusTrader gives the same decimals back (see ``fixed_point``), so that research on a
file and a strategy on its ticks see the same bits. Files that we wrote hold such doubles already and say so in their
metadata; they come back bit for bit.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import DEPTH_LEVELS, BarColumns, DepthColumns, QuoteColumns, TradeColumns
from tengri_fast.market.fixed_point import through_fixed_point
from tengri_fast.market.tables import (
    Array,
    Progress,
    StrPath,
    is_csv_name,
    number_column,
    open_bytes,
    parquet_schema,
    read_parquet,
    require_file,
    time_column,
)

__all__ = ["AS_READ", "Table", "aggressor_signs", "read_bars", "read_depth", "read_quotes", "read_trades"]

_SIDES = {"BUY": 1, "BUYER": 1, "SELL": -1, "SELLER": -1, "NO_AGGRESSOR": 0, "": 0, "1": 1, "+1": 1, "-1": -1, "0": 0}
_LEVEL = re.compile(r"bid_price_([0-9]+)")
_TIMES = {"ts_event": "ts_ns", "ts_init": "ts_init_ns", "exchange_ns": "exch_ns", "exchange_ms": "exch_ms"}
_OPTIONAL_TIMES = frozenset(_TIMES) - {"ts_event"}

# Metadata key of a Parquet file whose numbers are the doubles to use, not decimals to convert.
AS_READ = b"tengri_fast.values"


class Table(NamedTuple):
    """A file that was looked at: its columns, and whether its numbers are ready."""

    path: Path
    present: list[str]
    as_read: bool

    @classmethod
    def open(cls, path: StrPath) -> Table:
        """Look at a file: ``.csv``, ``.csv.gz`` or ``.csv.zip`` is CSV with a header line, anything else Parquet."""
        file = require_file(path)
        if is_csv_name(file):
            with open_bytes(file) as data:
                text = io.TextIOWrapper(data, encoding="utf-8-sig", newline="")
                try:
                    return cls(file, [name.strip() for name in next(csv.reader(text), [])], False)
                except (UnicodeDecodeError, csv.Error) as error:
                    raise DataConversionError(
                        f"`path` must be CSV with a header line, was {file.name}: {error}"
                    ) from None
        schema = parquet_schema(file)
        return cls(file, list(schema.names), AS_READ in (schema.metadata or {}))


def _from_csv(table: Table, names: list[str], text: set[str], progress: Progress | None) -> dict[str, Array]:
    path, present = table.path, table.present
    types = np.dtype([(n, object if n in text else np.int64 if n.startswith(("ts_", "exch_")) else np.float64)
                      for n in names])  # fmt: skip
    converters: Any = {present.index(name): str.strip for name in text} or None
    with open_bytes(path, progress) as file:
        lines: Any = io.TextIOWrapper(file, encoding="utf-8-sig")
        try:
            rows: Array = np.loadtxt(
                lines,
                dtype=types,
                delimiter=",",
                skiprows=1,
                comments=None,
                converters=converters,
                usecols=[present.index(name) for name in names],
                ndmin=1,
            )
        except ValueError as error:
            raise DataConversionError(
                f"`path` must hold numbers under {', '.join(names)}, {path.name}: {error}"
            ) from None
    return {name: np.ascontiguousarray(rows[name]) for name in names}


def load(
    table: Table,
    fields: Mapping[str, str],
    columns: Mapping[str, str] | None,
    *,
    text: frozenset[str] = frozenset(),
    optional: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> dict[str, Array]:
    """Arrays by our field name.

    `fields` has the default column of each (names to try in turn, separated by "|"), `columns` what the caller says
    instead.
    """
    path, present = table.path, table.present
    for key in columns or {}:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            raise DataConversionError(f"`columns` must name fields among {', '.join(fields)}, named {key!r}"
                                      + (f"; did you mean {close[0]!r}?" if close else ""))  # fmt: skip
    wanted: dict[str, str] = {}
    for field, default in fields.items():
        tried = [columns[field]] if columns and field in columns else default.split("|")
        name = next((name for name in tried if name in present), None)
        if name is not None:
            wanted[field] = name
        elif field not in optional or field in (columns or {}):
            close = difflib.get_close_matches(tried[0], present, n=1)
            raise DataConversionError(f"`{tried[0]}` must be a column of {path.name}, which has {', '.join(present)}"
                                      + (f"; did you mean {close[0]!r}?" if close else ""))  # fmt: skip
    names = list(dict.fromkeys(wanted.values()))
    if is_csv_name(path):
        arrays = _from_csv(table, names, {wanted[field] for field in text if field in wanted}, progress)
    else:
        arrays = read_parquet(path, names, progress)
    return {field: arrays[name] for field, name in wanted.items()}


class Times(NamedTuple):
    """Event, init and (where the file has them) exchange times."""

    event: npt.NDArray[np.uint64]
    init: npt.NDArray[np.uint64]
    exchange: npt.NDArray[np.uint64] | None


def times_of(found: Mapping[str, Array]) -> Times:
    """The times among loaded columns."""
    event = time_column("ts_event", found["ts_event"])
    init = time_column("ts_init", found["ts_init"]) if "ts_init" in found else event.copy()
    exchange = None
    for field, unit in (("exchange_ns", "ns"), ("exchange_ms", "ms")):
        if exchange is None and field in found:
            exchange = time_column(field, found[field], unit)
    return Times(event, init, exchange)


def _values(table: Table, name: str, array: Array) -> npt.NDArray[np.float64]:
    numbers = number_column(name, array)
    return numbers if table.as_read else through_fixed_point(numbers)


def quotes_of(table: Table, columns: Mapping[str, str] | None = None, missing_size: float | None = None,
              progress: Progress | None = None) -> tuple[QuoteColumns, Times]:  # fmt: skip
    """Quotes and their times; sizes that the file does not have are `missing_size`, an error when that is None."""
    fields = {**_TIMES, "bid_price": "bid_price_0|bid_price|bid", "ask_price": "ask_price_0|ask_price|ask",
              "bid_size": "bid_size_0|bid_size", "ask_size": "ask_size_0|ask_size"}  # fmt: skip
    optional = _OPTIONAL_TIMES | (frozenset() if missing_size is None else {"bid_size", "ask_size"})
    found = load(table, fields, columns, optional=optional, progress=progress)
    times = times_of(found)
    for side in ("bid_size", "ask_size"):
        if side not in found:
            found[side] = np.full(len(times.event), missing_size)
    names = ("bid_price", "ask_price", "bid_size", "ask_size")
    return QuoteColumns(times.event, times.init, *(_values(table, name, found[name]) for name in names)), times


def read_quotes(path: StrPath, columns: Mapping[str, str] | None = None) -> QuoteColumns:
    """Quotes of a Parquet or CSV file.

    Parameters
    ----------
    path : path
        ``.csv`` (also ``.csv.gz`` and ``.csv.zip``) is read as CSV with a header line, anything else as Parquet (needs
        the extra ``data``).
    columns : mapping, optional
        Our field to the file's column, for what differs from the defaults: ts_event ("ts_ns"), ts_init ("ts_init_ns",
        or as ts_event), bid_price ("bid_price_0"), ask_price, bid_size, ask_size.

    Returns
    -------
    QuoteColumns
        In the order of the file. Missing numbers are NaN.

    Raises
    ------
    DataConversionError
        If the file or a column is missing (the nearest is named) or holds something else.
    MissingExtraError
        If pyarrow is needed and not installed.
    """
    return quotes_of(Table.open(path), columns)[0]


def aggressor_signs(raw: Array, aggressors: Mapping[object, int] | None = None) -> npt.NDArray[np.int32]:
    """+1, -1 or 0 for what a file writes (see `read_trades`)."""
    known = {**_SIDES, **{str(key): value for key, value in (aggressors or {}).items()}}
    values, inverse = np.unique(raw.astype(str), return_inverse=True)
    signs = []
    for value in values:
        text = str(value)
        text = text[:-2] if text.endswith(".0") else text
        sign = known.get(text, known.get(text.upper()))
        if sign not in (-1, 0, 1):
            raise DataConversionError(f"`aggressor` must be +1, -1, 0 or a value in `aggressors`, was {text!r}")
        signs.append(sign)
    return np.array(signs, np.int32)[inverse.reshape(-1)] if signs else np.zeros(0, np.int32)


def trades_of(table: Table, columns: Mapping[str, str] | None = None, aggressors: Mapping[object, int] | None = None,
              progress: Progress | None = None) -> tuple[TradeColumns, Times]:  # fmt: skip
    """Trades and their times."""
    fields = {**_TIMES, "price": "price", "size": "size", "aggressor": "aggressor"}
    found = load(table, fields, columns, text=frozenset({"aggressor"}), progress=progress,
                 optional=_OPTIONAL_TIMES | {"aggressor"})  # fmt: skip
    times = times_of(found)
    price, size = _values(table, "price", found["price"]), _values(table, "size", found["size"])
    sides = np.zeros(len(price), np.int32)
    if "aggressor" in found:
        sides = aggressor_signs(found["aggressor"], aggressors)
    return TradeColumns(times.event, times.init, price, size, sides), times


def read_trades(
    path: StrPath, columns: Mapping[str, str] | None = None, aggressors: Mapping[object, int] | None = None
) -> TradeColumns:
    """Trades of a Parquet or CSV file.

    Parameters
    ----------
    path : path
    columns : mapping, optional
        As for `read_quotes`: ts_event, ts_init, price, size, aggressor. A file without the default column "aggressor"
        gives 0 (unknown) throughout.
    aggressors : mapping, optional
        What the file writes to +1 (buyer), -1 (seller) or 0. Numbers +1, -1, 0 and the words BUY, BUYER, SELL, SELLER,
        NO_AGGRESSOR need none. Single letters always do: "B" is the buyer in one feed and the bid that was hit in
        another.

    Returns
    -------
    TradeColumns
    """
    return trades_of(Table.open(path), columns, aggressors)[0]


def depth_of(table: Table, columns: Mapping[str, str] | None = None, levels: int | None = None,
             progress: Progress | None = None) -> tuple[DepthColumns, Times]:  # fmt: skip
    """Book snapshots and their times."""
    if levels is None:
        numbers = {int(match[1]) for name in (*table.present, *(columns or {})) if (match := _LEVEL.fullmatch(name))}
        levels = 0
        while levels in numbers and levels < DEPTH_LEVELS:
            levels += 1
        levels = max(levels, 1)
    if not 1 <= levels <= DEPTH_LEVELS:
        raise DataConversionError(f"`levels` must be from 1 to {DEPTH_LEVELS}, was {levels}")
    names = ("bid_price", "ask_price", "bid_size", "ask_size")
    fields = {f"{name}_{level}": f"{name}_{level}" for level in range(levels) for name in names}
    found = load(table, {**_TIMES, **fields}, columns, optional=_OPTIONAL_TIMES, progress=progress)
    grids = {
        name: np.column_stack([_values(table, f"{name}_{level}", found[f"{name}_{level}"]) for level in range(levels)])
        for name in names
    }
    if not table.as_read:
        for side in ("bid", "ask"):
            absent = np.isnan(grids[f"{side}_price"])
            grids[f"{side}_price"][absent] = 0.0
            grids[f"{side}_size"][absent] = 0.0
    times = times_of(found)
    return DepthColumns(times.event, times.init, *(grids[name] for name in names)), times


def read_depth(path: StrPath, columns: Mapping[str, str] | None = None, levels: int | None = None) -> DepthColumns:
    """Book snapshots of a Parquet or CSV file.

    Parameters
    ----------
    path : path
    columns : mapping, optional
        As for `read_quotes`; fields are bid_price_0, ask_price_0, bid_size_0, ask_size_0, bid_price_1, ...
    levels : int, optional
        How many levels to take, 1 to 10; all that the file has (at most 10) otherwise.

    Returns
    -------
    DepthColumns
        A level that is missing (NaN in price) is 0 in price and size.
    """
    return depth_of(Table.open(path), columns, levels)[0]


def bars_of(table: Table, columns: Mapping[str, str] | None = None,
            progress: Progress | None = None) -> tuple[BarColumns, Times]:  # fmt: skip
    """Bars and their times."""
    names = ("open", "high", "low", "close", "volume")
    found = load(table, {**_TIMES, **{name: name for name in names}}, columns, optional=_OPTIONAL_TIMES,
                 progress=progress)  # fmt: skip
    times = times_of(found)
    return BarColumns(times.event, times.init, *(_values(table, name, found[name]) for name in names)), times


def read_bars(path: StrPath, columns: Mapping[str, str] | None = None) -> BarColumns:
    """Bars of a Parquet or CSV file with times in nanoseconds.

    Files that write dates, and files whose times are those of the opening, go through
    :func:`tengri_fast.market.read_market`, which turns them into the time at which the bar was known.

    Parameters
    ----------
    path : path
    columns : mapping, optional
        As for `read_quotes`: ts_event, ts_init, open, high, low, close, volume.

    Returns
    -------
    BarColumns
    """
    return bars_of(Table.open(path), columns)[0]
