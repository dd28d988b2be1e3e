"""Readers of tables that hold one stream under plain column names: our own Parquet files, and what is close to them."""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import (
    BarColumns,
    DeltaColumns,
    MarketColumns,
    QuoteColumns,
    TradeColumns,
)
from tengri_fast.market.files import Table, Times, bars_of, depth_of, load, quotes_of, times_of, trades_of
from tengri_fast.market.fixed_point import through_fixed_point
from tengri_fast.market.read_options import ReadOptions, date_in_name, local_times, midnight_ns
from tengri_fast.market.tables import Array, is_csv_name, read_csv, read_parquet, time_column

__all__ = ["read_bars", "read_deltas", "read_depth", "read_fxcm", "read_minutes", "read_quotes", "read_trades"]

OPEN_NS = (9 * 60 + 30) * 60_000_000_000  # 09:30
NS_PER_DAY = 86_400_000_000_000
# Dates that NumPy does not read itself. Month before day: that is how the files we know write it.
_PATTERNS = ("%Y%m%d %H:%M", "%Y%m%d %H:%M:%S", "%Y%m%d", "%m/%d/%Y")
_GROUPS = ("slug", "symbol", "instrument", "instrument_id")
# Letters for the side of a trade: each set has a letter that tells it from the others.
_LETTERS: tuple[tuple[str, Mapping[str, int], str], ...] = (
    ("O", {"O": 1, "B": -1, "N": 0}, "O = the offer was lifted (buyer), B = the bid was hit (seller)"),
    ("S", {"B": 1, "S": -1, "N": 0}, "B = buyer, S = seller"),
    ("A", {"B": 1, "A": -1, "N": 0}, "B = buyer, A = seller (the side of the aggressor)"),
)


def _exchange(name: str, times: Times) -> dict[str, npt.NDArray[np.uint64]]:
    return {} if times.exchange is None else {name: times.exchange}


def _text(table: Table, name: str) -> Array:
    if is_csv_name(table.path):
        return read_csv(table.path, {name: "text"})[name]
    return read_parquet(table.path, [name])[name]


def _selection(table: Table, options: ReadOptions) -> tuple[npt.NDArray[np.bool_] | None, tuple[str, ...]]:
    """Rows of the instrument that was asked for, where the file names one per row."""
    group = next((name for name in _GROUPS if name in table.present), None)
    if group is None:
        if options.instrument_id is not None:
            raise DataConversionError(f"`instrument_id` must be left out: {table.path.name} names no instruments")
        return None, ()
    values = _text(table, group).astype(str)
    names = np.unique(values)
    if options.instrument_id is None:
        if len(names) <= 1:
            return None, ()
        some = ", ".join(names[:3].tolist())
        raise DataConversionError(f"`instrument_id` must be given: {table.path.name} holds {len(names)} in `{group}` "
                                  f"({some}, ...)")  # fmt: skip
    chosen = values == options.instrument_id
    if not chosen.any():
        close = difflib.get_close_matches(options.instrument_id, names.tolist(), n=1)
        raise DataConversionError(f"`instrument_id` must be one of the {len(names)} in `{group}` of {table.path.name}, "
                                  f"was {options.instrument_id!r}"
                                  + (f"; did you mean {close[0]!r}?" if close else ""))  # fmt: skip
    return chosen, (f"{int(chosen.sum())} of {len(values)} rows are of {options.instrument_id}.",)


def read_quotes(path: Path, options: ReadOptions) -> MarketColumns:
    """Quotes under the names of `read_quotes` (also bid, ask); sizes may be absent."""
    table = Table.open(path)
    chosen, notes = _selection(table, options)
    quotes, times = quotes_of(table, options.columns, options.missing_size, options.progress)
    if not options.columns and not {"bid_size_0", "bid_size"} & set(table.present):
        notes += (f"The file has no sizes: {options.missing_size:g} throughout.",)
    exchange = _exchange("quotes", times)
    if chosen is not None:
        quotes = _rows_of_quotes(quotes, chosen)
        exchange = {name: value[chosen] for name, value in exchange.items()}
    return MarketColumns(quotes=quotes, source=path.name, notes=notes, exchange_times=exchange)


def _rows_of_quotes(quotes: QuoteColumns, rows: npt.NDArray[np.bool_]) -> QuoteColumns:
    return QuoteColumns(quotes.ts_event[rows], quotes.ts_init[rows], quotes.bid_price[rows], quotes.ask_price[rows],
                        quotes.bid_size[rows], quotes.ask_size[rows])  # fmt: skip


def read_trades(path: Path, options: ReadOptions) -> MarketColumns:
    """Trades; the side in `aggressor` or `side` as numbers, words, or letters that are not ambiguous."""
    table = Table.open(path)
    columns = dict(options.columns)
    if "aggressor" not in columns and "aggressor" not in table.present and "side" in table.present:
        columns["aggressor"] = "side"
    notes: tuple[str, ...] = ()
    aggressors: Mapping[str, int] = options.aggressors
    side = columns.get("aggressor", "aggressor")
    if side not in table.present:
        notes += ("The file does not say who was the aggressor: 0 throughout.",)
    elif not aggressors:
        aggressors, notes = _letters(table, side)
    trades, times = trades_of(table, columns, dict(aggressors.items()), options.progress)
    return MarketColumns(trades=trades, source=path.name, notes=notes, exchange_times=_exchange("trades", times))


def _letters(table: Table, side: str) -> tuple[Mapping[str, int], tuple[str, ...]]:
    raw = _text(table, side)
    if raw.dtype.kind in "if":
        return {}, ()
    values = {str(value).strip() for value in np.unique(raw.astype(str)).tolist()}
    letters = {value for value in values if len(value) == 1 and value.isalpha()}
    if not letters:
        return {}, ()
    for mark, meaning, words in _LETTERS:
        if mark in letters and letters <= set(meaning):
            return meaning, (f"Sides in `{side}`: {words}.",)
    raise DataConversionError(f"`aggressors` must be given: {table.path.name} writes {', '.join(sorted(letters))} in "
                              f"`{side}`, which does not say who was the aggressor")  # fmt: skip


def read_depth(path: Path, options: ReadOptions) -> MarketColumns:
    """Book snapshots, and the trades between them where the file has `last` and `trade_volume`."""
    table = Table.open(path)
    depth, times = depth_of(table, options.columns, options.levels, options.progress)
    trades: TradeColumns | None = None
    notes: tuple[str, ...] = ()
    exchange = _exchange("depth", times)
    if {"last", "trade_volume"} <= set(table.present):
        trades, notes, rows = _interval_trades(table, times)
        if times.exchange is not None:
            exchange["trades"] = times.exchange[rows]
    return MarketColumns(trades=trades, depth=depth, source=path.name, notes=notes, exchange_times=exchange)


def _interval_trades(table: Table, times: Times) -> tuple[TradeColumns, tuple[str, ...], npt.NDArray[np.bool_]]:
    names = ["last", "trade_volume", *(n for n in ("buy_volume_est", "sell_volume_est") if n in table.present)]
    found = load(table, {name: name for name in names}, None)
    rows = found["trade_volume"] > 0
    sides = np.zeros(len(rows), np.int32)
    if len(found) == 4:
        sides = np.sign(found["buy_volume_est"] - found["sell_volume_est"]).astype(np.int32)
    notes = ("One trade per snapshot interval with volume: the last price, the volume of the interval, and the side "
             "that the file estimates the larger part of it had.",)  # fmt: skip
    price, size = (through_fixed_point(found[name][rows]) for name in ("last", "trade_volume"))
    return TradeColumns(times.event[rows], times.init[rows], price, size, sides[rows]), notes, rows


def read_deltas(path: Path, options: ReadOptions) -> MarketColumns:
    """Changes of a book as we write them: action, side, price, size, order_id, flags, sequence."""
    table = Table.open(path)
    names = ("action", "side", "price", "size", "order_id", "flags", "sequence")
    fields = {"ts_event": "ts_ns", "ts_init": "ts_init_ns", "exchange_ns": "exch_ns", **{name: name for name in names}}
    found = load(table, fields, options.columns, optional=frozenset({"ts_init", "exchange_ns"}),
                 progress=options.progress)  # fmt: skip
    times = times_of(found)
    if is_csv_name(path):
        for name in ("action", "side", "order_id", "flags", "sequence"):
            found[name] = found[name].astype(np.int64)
    if not table.as_read:
        for name in ("price", "size"):
            found[name] = through_fixed_point(found[name])
    deltas = DeltaColumns(**{name: found[name] for name in names}, ts_event=times.event, ts_init=times.init)
    return MarketColumns(deltas=deltas, source=path.name, exchange_times=_exchange("deltas", times))


def read_fxcm(path: Path, options: ReadOptions) -> MarketColumns:
    """Bid and ask by milliseconds since midnight; the day comes from the file's name."""
    table = Table.open(path)
    fields = {"ms": "ms_since_midnight", "bid": "bid", "ask": "ask"}
    found = load(table, fields, None, progress=options.progress)
    start = midnight_ns(date_in_name(path, options), options.timezone or "Etc/GMT+5")
    offsets = time_column("ms_since_midnight", found["ms"], "ms")
    if len(offsets) and int(offsets.max()) >= NS_PER_DAY:
        raise DataConversionError(f"`ms_since_midnight` must be below 86400000, was {int(offsets.max()) // 1_000_000}")
    times = offsets + np.uint64(start)
    size = np.full(len(times), options.missing_size)
    bid, ask = through_fixed_point(found["bid"]), through_fixed_point(found["ask"])
    quotes = QuoteColumns(times, times.copy(), bid, ask, size, size.copy())
    notes = (
        f"The file has no sizes: {options.missing_size:g} throughout.",
        f"Midnight is that of {options.timezone or 'UTC-5 all year'}.",
    )
    return MarketColumns(quotes=quotes, source=path.name, notes=notes)


def _stamps(name: str, raw: Array, zone: str | None) -> tuple[npt.NDArray[np.uint64], tuple[str, ...]]:
    """Times from whole numbers, datetime64 (UTC), or text in one of the usual spellings; and what was assumed."""
    if raw.dtype.kind == "M":
        return time_column(name, raw), ()
    if raw.dtype.kind in "iu" and len(raw) and not (raw.min() >= 19_000_101 and raw.max() <= 21_001_231):
        return time_column(name, raw, "auto"), ()
    text = np.char.strip(raw.astype(str))
    if not len(text):
        return np.zeros(0, np.uint64), ()
    first = str(text[0])
    if first.isdigit() and len(first) > 8:
        try:
            return time_column(name, text.astype(np.int64), "auto"), ()
        except ValueError as error:
            raise DataConversionError(f"`{name}` must hold whole numbers in every row: {error}") from None
    pattern = next((pattern for pattern in _PATTERNS if _fits(first, pattern)), None)
    if pattern is not None:
        stamps = _parsed(name, text, pattern)
    else:
        try:
            stamps = text.astype("datetime64[ns]")
        except ValueError as error:
            raise DataConversionError(f"`{name}` must hold dates or times, was {first!r} in row 0: {error}") from None
    if np.isnat(stamps).any():
        row = int(np.flatnonzero(np.isnat(stamps))[0])
        raise DataConversionError(f"`{name}` must hold a date or time in every row, row {row} was {text[row]!r}")
    if stamps.min() < np.datetime64(0, "ns"):
        row = int(np.argmin(stamps))
        raise DataConversionError(f"`{name}` must be from 1970 on, row {row} was {text[row]!r}")
    said = () if zone else (f"Times of `{name}` name no zone and are read as UTC.",)
    return local_times(stamps, zone or "UTC"), said


def _fits(text: str, pattern: str) -> bool:
    try:
        dt.datetime.strptime(text, pattern)
    except ValueError:
        return False
    return True


def _parsed(name: str, text: Array, pattern: str) -> npt.NDArray[np.datetime64]:
    values, inverse = np.unique(text, return_inverse=True)
    parsed = np.empty(len(values), "datetime64[ns]")
    for i, value in enumerate(values.tolist()):
        try:
            parsed[i] = np.datetime64(dt.datetime.strptime(value.strip(), pattern), "ns")
        except ValueError:
            raise DataConversionError(f"`{name}` must look like {pattern} in every row, one was {value!r}") from None
    return parsed[inverse.reshape(-1)]


def known_at(opened: npt.NDArray[np.uint64], stamp: str | None) -> tuple[npt.NDArray[np.uint64], tuple[str, ...]]:
    """When bars were known: their stamps, or one interval (the most frequent step) after them."""
    if stamp == "close" or not len(opened):
        return opened, ("Bars are stamped as the file has them.",) if len(opened) else ()
    steps = np.diff(opened.astype(np.int64))
    steps = steps[steps > 0]
    if not len(steps):
        raise DataConversionError('`bar_stamp` must be "close" for fewer than two times: no interval can be told')
    values, counts = np.unique(steps, return_counts=True)
    interval = int(values[np.argmax(counts)])
    seconds = f"{interval / 1e9:g} s"
    return opened + np.uint64(interval), (f"Bars carry the time at which they opened and are known {seconds} later.",)


_BAR_TIMES = "timestamp|datetime|date|time|open_time"


def read_bars(path: Path, options: ReadOptions) -> MarketColumns:
    """Bars under any case of open, high, low, close, volume, and a column of dates or times."""
    table = Table.open(path)
    by_lower = {name.strip().lower(): name for name in reversed(table.present)}
    if table.as_read or ("ts_ns" in table.present and "ts_event" not in options.columns):
        bars, times = bars_of(table, options.columns, options.progress)
        if not table.as_read:
            known, notes = known_at(bars.ts_event, options.bar_stamp)
            return MarketColumns(bars=replace(bars, ts_event=known, ts_init=known.copy()), source=path.name,
                                 notes=notes)  # fmt: skip
        return MarketColumns(bars=bars, source=path.name, exchange_times=_exchange("bars", times))
    fields = {"ts_event": _BAR_TIMES, **{name: name for name in ("open", "high", "low", "close", "volume")}}
    fields = {name: "|".join(by_lower.get(spelling, spelling) for spelling in spellings.split("|"))
              for name, spellings in fields.items()}  # fmt: skip
    optional = frozenset({"volume"} | ({"open", "high", "low"} if "close" in options.columns else set()))
    wanted = dict(options.columns)
    stamps = wanted.get("ts_event") or next((n for n in fields["ts_event"].split("|") if n in table.present), "")
    if is_csv_name(path):
        found = {"ts_event": _text(table, stamps)} if stamps in table.present else {}
        if not found:
            raise DataConversionError(f"`timestamp` must be a column of {path.name}, which has "
                                      f"{', '.join(table.present)}")  # fmt: skip
        wanted.pop("ts_event", None)
        del fields["ts_event"]
    else:
        found = {}
    found |= load(table, fields, wanted, optional=optional, progress=options.progress)
    opened, said = _stamps(stamps, found["ts_event"], options.timezone)
    known, notes = known_at(opened, options.bar_stamp)
    notes += said
    if "open" not in found:
        found |= {name: found["close"] for name in ("open", "high", "low")}
        notes += ("The file has closes only: open, high and low are the close.",)
    if "volume" not in found:
        found["volume"] = np.zeros(len(known))
        notes += ("The file has no volumes: 0 throughout.",)
    prices = (through_fixed_point(found[name]) for name in ("open", "high", "low", "close", "volume"))
    return MarketColumns(bars=BarColumns(known, known.copy(), *prices), source=path.name, notes=notes)


def read_minutes(path: Path, options: ReadOptions) -> MarketColumns:
    """Minute bars by day and number of the minute after 09:30 in New York."""
    table = Table.open(path)
    names = {"minute": "b", "day": "day", "open": "open", "high": "hi", "low": "lo", "close": "close", "volume": "vol"}
    found = load(table, names, None, progress=options.progress)
    zone = options.timezone or "America/New_York"
    days, inverse = np.unique(found["day"].astype(str), return_inverse=True)
    midnights, _ = _stamps("day", days, "UTC")
    starts = (midnights + np.uint64(OPEN_NS)).astype("datetime64[ns]")
    opened = local_times(starts, zone)[inverse.reshape(-1)]
    known = opened + (found["minute"].astype(np.uint64) + np.uint64(1)) * np.uint64(60_000_000_000)
    prices = (through_fixed_point(found[name]) for name in ("open", "high", "low", "close", "volume"))
    notes = (
        "Open, high, low and close are of the mid price; a bar is known at the end of its minute.",
        "Minutes without quotes have no row.",
    )
    return MarketColumns(bars=BarColumns(known, known.copy(), *prices), source=path.name, notes=notes)
