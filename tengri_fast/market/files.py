"""Parquet and CSV files of quotes, trades and depth to columns.

Default column names: ``ts_ns`` (used for event and init time), ``bid_price_0``, ``ask_price_0``, ``bid_size_0``,
``ask_size_0`` and so on by level, and for trades ``price``, ``size``, ``aggressor``.

Prices and sizes come out as NautilusTrader gives the same decimals back (see ``fixed_point``), so that research on a
file and a strategy on its ticks see the same bits.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError, MissingExtraError
from tengri_fast.market.columns import DEPTH_LEVELS, DepthColumns, QuoteColumns, TradeColumns
from tengri_fast.market.fixed_point import through_fixed_point

__all__ = ["read_depth", "read_quotes", "read_trades"]

StrPath = str | os.PathLike[str]
Array = npt.NDArray[Any]

_SIDES = {"BUY": 1, "BUYER": 1, "SELL": -1, "SELLER": -1, "NO_AGGRESSOR": 0, "": 0, "1": 1, "+1": 1, "-1": -1, "0": 0}
_LEVEL = re.compile(r"bid_price_([0-9]+)")


def _columns_of(path: Path) -> list[str]:
    if path.suffix.lower() == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [name.strip() for name in next(csv.reader(file), [])]
    parquet = _pyarrow_parquet()
    try:
        return list(parquet.read_schema(path).names)
    except (OSError, ValueError) as error:
        raise DataConversionError(f"`path` must be a Parquet or .csv file, was {path.name}: {error}") from None


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "reading Parquet files") from None
    return pyarrow.parquet


def _from_parquet(path: Path, names: list[str]) -> dict[str, Array]:
    try:
        table = _pyarrow_parquet().read_table(path, columns=names)
    except (OSError, ValueError) as error:
        raise DataConversionError(f"`path` must be a readable Parquet file, was {path.name}: {error}") from None
    return {name: table.column(name).to_numpy() for name in names}


def _from_csv(path: Path, names: list[str], text: set[str], present: list[str]) -> dict[str, Array]:
    types: Any = [(n, object if n in text else np.int64 if n.startswith("ts_") else np.float64) for n in names]
    converters: Any = {present.index(name): str.strip for name in text} or None
    try:
        with path.open(encoding="utf-8") as file:
            rows = np.loadtxt(file, dtype=types, delimiter=",", skiprows=1, comments=None, converters=converters,
                              usecols=[present.index(name) for name in names], ndmin=1)  # fmt: skip
    except (ValueError, OSError) as error:
        raise DataConversionError(f"`path` must hold numbers under {', '.join(names)}, {path.name}: {error}") from None
    return {name: np.ascontiguousarray(rows[name]) for name in names}


def _load(path: StrPath, fields: dict[str, str], columns: Mapping[str, str] | None, text: frozenset[str] = frozenset(),
          optional: frozenset[str] = frozenset(), present: list[str] | None = None) -> dict[str, Array]:  # fmt: skip
    """Arrays by our field name. `fields` has the default column of each, `columns` what the caller says instead."""
    file = Path(path)
    if not file.is_file():
        raise DataConversionError(f"`path` must be a file, was {file}")
    for key in columns or {}:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            raise DataConversionError(f"`columns` must name fields among {', '.join(fields)}, named {key!r}"
                                      + (f"; did you mean {close[0]!r}?" if close else ""))  # fmt: skip
    present = _columns_of(file) if present is None else present
    wanted: dict[str, str] = {}
    for field, default in fields.items():
        name = (columns or {}).get(field, default)
        if name in present:
            wanted[field] = name
        elif field not in optional or field in (columns or {}):
            close = difflib.get_close_matches(name, present, n=1)
            raise DataConversionError(f"`{name}` must be a column of {file.name}, which has {', '.join(present)}"
                                      + (f"; did you mean {close[0]!r}?" if close else ""))  # fmt: skip
    names = list(dict.fromkeys(wanted.values()))
    if file.suffix.lower() == ".csv":
        arrays = _from_csv(file, names, {wanted[field] for field in text if field in wanted}, present)
    else:
        arrays = _from_parquet(file, names)
    return {field: arrays[name] for field, name in wanted.items()}


def _time(name: str, array: Array) -> npt.NDArray[np.uint64]:
    if array.dtype.kind == "M":
        array = array.astype("datetime64[ns]").astype(np.int64)
    if array.dtype.kind not in "iu":
        raise DataConversionError(f"`{name}` must hold whole nanoseconds without gaps, had type {array.dtype}")
    if len(array) and array.dtype.kind == "i" and int(array.min()) < 0:
        raise DataConversionError(f"`{name}` must be >= 0, was {array.min()}")
    return array.astype(np.uint64)


def _numbers(name: str, array: Array) -> npt.NDArray[np.float64]:
    if array.dtype.kind not in "fiu":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise DataConversionError(f"`{name}` must hold numbers, had type {array.dtype}") from None
    return through_fixed_point(array)


def _times(found: dict[str, Array]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    event = _time("ts_event", found["ts_event"])
    return event, _time("ts_init", found["ts_init"]) if "ts_init" in found else event.copy()


def read_quotes(path: StrPath, columns: Mapping[str, str] | None = None) -> QuoteColumns:
    """Quotes of a Parquet or CSV file.

    Parameters
    ----------
    path : path
        ``.csv`` is read as CSV with a header line, anything else as Parquet (needs the extra ``data``).
    columns : mapping, optional
        Our field to the file's column, for what differs from the defaults: ts_event and ts_init ("ts_ns"), bid_price
        ("bid_price_0"), ask_price, bid_size, ask_size.

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
    names = ("bid_price", "ask_price", "bid_size", "ask_size")
    found = _load(path, {"ts_event": "ts_ns", "ts_init": "ts_ns", **{name: f"{name}_0" for name in names}}, columns)
    return QuoteColumns(*_times(found), *(_numbers(name, found[name]) for name in names))


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
    fields = {"ts_event": "ts_ns", "ts_init": "ts_ns", "price": "price", "size": "size", "aggressor": "aggressor"}
    found = _load(path, fields, columns, text=frozenset({"aggressor"}), optional=frozenset({"aggressor"}))
    price, size = _numbers("price", found["price"]), _numbers("size", found["size"])
    sides = np.zeros(len(price), np.int32)
    if "aggressor" in found:
        raw = found["aggressor"]
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
        if signs:
            sides = np.array(signs, np.int32)[inverse.reshape(-1)]
    return TradeColumns(*_times(found), price, size, sides)


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
    file = Path(path)
    if not file.is_file():
        raise DataConversionError(f"`path` must be a file, was {file}")
    present = _columns_of(file)
    if levels is None:
        numbers = {int(match[1]) for name in (*present, *(columns or {})) if (match := _LEVEL.fullmatch(name))}
        levels = 0
        while levels in numbers and levels < DEPTH_LEVELS:
            levels += 1
        levels = max(levels, 1)
    if not 1 <= levels <= DEPTH_LEVELS:
        raise DataConversionError(f"`levels` must be from 1 to {DEPTH_LEVELS}, was {levels}")
    names = ("bid_price", "ask_price", "bid_size", "ask_size")
    fields = {f"{name}_{level}": f"{name}_{level}" for level in range(levels) for name in names}
    found = _load(file, {"ts_event": "ts_ns", "ts_init": "ts_ns", **fields}, columns, present=present)
    grids = {name: np.column_stack([_numbers(name, found[f"{name}_{level}"]) for level in range(levels)])
             for name in names}  # fmt: skip
    for side in ("bid", "ask"):
        absent = np.isnan(grids[f"{side}_price"])
        grids[f"{side}_price"][absent] = 0.0
        grids[f"{side}_size"][absent] = 0.0
    return DepthColumns(*_times(found), *(grids[name] for name in names))
