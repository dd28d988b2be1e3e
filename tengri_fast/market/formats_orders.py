"""Order-level data: LOBSTER's pair of message and order book files, and Bitstamp's order log.

LOBSTER's columns and event types as in its documentation (lobsterdata.com, "Output"): message = time in seconds after
midnight, type, order id, size, price in 1e-4 dollars, direction of the resting order; order book = ask price, ask
size, bid price, bid size for level 1, 2, ...; a price of 9999999999 (ask) or -9999999999 (bid) is a level that is not
there.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import (
    DEPTH_LEVELS,
    DeltaColumns,
    DepthColumns,
    MarketColumns,
    QuoteColumns,
    TradeColumns,
)
from tengri_fast.market.files import Table, aggressor_signs, load
from tengri_fast.market.fixed_point import through_fixed_point
from tengri_fast.market.read_options import ReadOptions, date_in_name, midnight_ns
from tengri_fast.market.tables import first_lines, head, read_csv, require_file, time_column

__all__ = ["read_bitstamp_orders", "read_bitstamp_trades", "read_lobster", "read_lobster_events"]

DUMMY = 9_999_999_999
PRICE_UNIT = 10_000
VISIBLE, HIDDEN, CROSS, HALT = 4, 5, 6, 7
EVENTS = frozenset(range(1, 8))
_PART = re.compile(r"(.*)_(message|orderbook)_([0-9]+)\.csv(\.gz|\.zip)?$", re.IGNORECASE)
_ACTIONS = {"created": 1, "changed": 2, "deleted": 3}
FLAG_LAST = 128


def lobster_pair(path: Path) -> tuple[Path, Path, int]:
    """The message file, the order book file and the number of levels, given either of the two."""
    match = _PART.fullmatch(path.name)
    if match is None:
        raise DataConversionError(f"`path` must be named ..._message_LEVELS.csv or ..._orderbook_LEVELS.csv, "
                                  f"was {path.name}")  # fmt: skip
    stem, kind, levels = match[1], match[2].lower(), match[3]
    files = {}
    for part in ("message", "orderbook"):
        if part == kind:
            files[part] = path
            continue
        found = [path.with_name(f"{stem}_{part}_{levels}.csv{ending}") for ending in ("", ".gz", ".zip")]
        files[part] = next((name for name in found if name.is_file()), found[0])
    return require_file(files["message"]), require_file(files["orderbook"]), int(levels)


def read_lobster(path: Path, options: ReadOptions) -> MarketColumns:
    """Quotes and depth after every message, and the executions as trades."""
    message_path, book_path, file_levels = lobster_pair(path)
    levels = min(file_levels, DEPTH_LEVELS) if options.levels is None else options.levels
    if not 1 <= levels <= min(file_levels, DEPTH_LEVELS):
        raise DataConversionError(f"`levels` must be from 1 to {min(file_levels, DEPTH_LEVELS)}, was {levels}")
    kinds = {"time": "float", "event": "int", "order": "int", "size": "float", "price": "int", "direction": "int"}
    names = list(kinds)
    width = len((first_lines(head(message_path)) or [[]])[0])
    if width not in (6, 7):
        raise DataConversionError(f"`path` must have 6 columns ({', '.join(names)}), {message_path.name} has {width}")
    message = read_csv(message_path, kinds, names=[*names, "note"][:width], header=False, progress=options.progress)
    columns = [f"{side}_{what}_{level}" for level in range(file_levels) for side in ("ask", "bid")
               for what in ("price", "size")]  # fmt: skip
    kinds = {name: "int" if "price" in name else "float" for name in columns if int(name.rpartition("_")[2]) < levels}
    width = len((first_lines(head(book_path)) or [[]])[0])
    if width != len(columns):
        raise DataConversionError(f"`path` must have {len(columns)} columns for {file_levels} levels, "
                                  f"{book_path.name} has {width}")  # fmt: skip
    book = read_csv(book_path, kinds, names=columns, header=False, progress=options.progress)
    rows = len(message["time"])
    if len(book["ask_price_0"]) != rows:
        raise DataConversionError(f"`path` must have as many rows as its message file ({rows}), {book_path.name} has "
                                  f"{len(book['ask_price_0'])}")  # fmt: skip
    seconds = message["time"]
    wrong = ~((seconds >= 0) & (seconds < 86_400))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataConversionError(f"`time` must be from 0 to 86400 s after midnight, {message_path.name} row {row} "
                                  f"was {seconds[row]}")  # fmt: skip
    start = midnight_ns(date_in_name(message_path, options), options.timezone or "America/New_York")
    times = np.rint(seconds * 1e9).astype(np.uint64) + np.uint64(start)
    grids = {}
    for side in ("bid", "ask"):
        price = np.column_stack([book[f"{side}_price_{level}"] for level in range(levels)])
        size = np.column_stack([book[f"{side}_size_{level}"] for level in range(levels)])
        absent = np.abs(price) == DUMMY
        price = through_fixed_point(price / PRICE_UNIT)
        price[absent], size[absent] = 0.0, 0.0
        grids[f"{side}_price"], grids[f"{side}_size"] = price, through_fixed_point(size)
    prices = through_fixed_point(message["price"] / PRICE_UNIT)
    return _streams(message_path, times, message["event"], prices, message["size"], message["direction"],
                    grids)  # fmt: skip


def _streams(
    path: Path, times: npt.NDArray[np.uint64], event: npt.NDArray[np.int64], price: npt.NDArray[np.float64],
    size: npt.NDArray[np.float64], direction: npt.NDArray[np.int64], grids: dict[str, npt.NDArray[np.float64]],
) -> MarketColumns:  # fmt: skip
    for name, values, allowed in (("event", event, EVENTS), ("direction", direction, frozenset({-1, 0, 1}))):
        wrong = ~np.isin(values, list(allowed))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataConversionError(f"`{name}` must be one of {', '.join(map(str, sorted(allowed)))}, {path.name} "
                                      f"row {row} was {values[row]}")  # fmt: skip
    traded = (event == VISIBLE) | (event == HIDDEN) | (event == CROSS)
    # The direction is that of the resting order; a cross of the auction has no aggressor.
    side = np.where(event == CROSS, 0, -direction)[traded].astype(np.int32)
    trades = TradeColumns(times[traded], times[traded], price[traded], through_fixed_point(size[traded]), side)
    top = {name: grid[:, 0].copy() for name, grid in grids.items()}
    for name in ("bid", "ask"):
        top[f"{name}_price"][top[f"{name}_price"] == 0] = np.nan
    quotes = QuoteColumns(times, times.copy(), top["bid_price"], top["ask_price"], top["bid_size"], top["ask_size"])
    depth = None
    if grids["bid_price"].shape[1] > 1:
        depth = DepthColumns(times, times.copy(), grids["bid_price"], grids["ask_price"], grids["bid_size"],
                             grids["ask_size"])  # fmt: skip
    notes = ["Order ids, submissions and cancellations are not kept; the book after each of them is."]
    halts = int((event == HALT).sum())
    if halts:
        notes.append(f"{halts} trading halt message(s).")
    return MarketColumns(quotes=quotes, trades=trades, depth=depth, source=path.name, notes=tuple(notes))


def read_lobster_events(path: Path, options: ReadOptions) -> MarketColumns:
    """LOBSTER messages and best quotes in one table, with prices in dollars and times in nanoseconds."""
    names = (
        "event",
        "event_size",
        "event_price",
        "direction",
        "bid_price_0",
        "ask_price_0",
        "bid_size_0",
        "ask_size_0",
    )
    found = load(Table.open(path), {"ts_event": "ts_ns", **{name: name for name in names}}, None,
                 progress=options.progress)  # fmt: skip
    times = time_column("ts_event", found["ts_event"])
    grids = {name: through_fixed_point(found[f"{name}_0"])[:, None]
             for name in ("bid_price", "ask_price", "bid_size", "ask_size")}  # fmt: skip
    event, direction = (found[name].astype(np.int64) for name in ("event", "direction"))
    prices = through_fixed_point(found["event_price"])
    return _streams(path, times, event, prices, found["event_size"].astype(np.float64), direction, grids)


def read_bitstamp_orders(path: Path, options: ReadOptions) -> MarketColumns:
    """Orders created, changed and deleted, as changes of a book by order."""
    kinds = {"id": "int", "timestamp": "int", "exchange_timestamp": "int", "price": "float", "volume": "float",
             "action": "text", "direction": "text"}  # fmt: skip
    found = read_csv(require_file(path), kinds, progress=options.progress)
    codes = {}
    for name, meaning in (("action", _ACTIONS), ("direction", {"bid": 1, "ask": -1})):
        values, inverse = np.unique(found[name].astype(str), return_inverse=True)
        for value in values.tolist():
            if value not in meaning:
                row = int(np.flatnonzero(found[name].astype(str) == value)[0])
                raise DataConversionError(f"`{name}` must be one of {', '.join(meaning)}, {path.name} row {row} was "
                                          f"{value!r}")  # fmt: skip
        codes[name] = np.array([meaning[value] for value in values.tolist()], np.int8)[inverse.reshape(-1)]
    times = time_column("timestamp", found["timestamp"], "ms")
    rows = len(times)
    deltas = DeltaColumns(
        codes["action"].astype(np.uint8), codes["direction"], through_fixed_point(found["price"]),
        through_fixed_point(found["volume"]), found["id"].astype(np.uint64), np.full(rows, FLAG_LAST, np.uint8),
        np.zeros(rows, np.uint64), times, times.copy(),
    )  # fmt: skip
    exchange = time_column("exchange_timestamp", found["exchange_timestamp"], "ms")
    return MarketColumns(deltas=deltas, source=path.name, exchange_times={"deltas": exchange})


def read_bitstamp_trades(path: Path, options: ReadOptions) -> MarketColumns:
    """Trades that belong to an order log."""
    kinds = {"timestamp": "int", "exchange_timestamp": "int", "price": "float", "amount": "float", "side": "text"}
    found = read_csv(require_file(path), kinds, progress=options.progress)
    times = time_column("timestamp", found["timestamp"], "ms")
    sides = aggressor_signs(found["side"])
    trades = TradeColumns(times, times.copy(), through_fixed_point(found["price"]),
                          through_fixed_point(found["amount"]), sides)  # fmt: skip
    exchange = time_column("exchange_timestamp", found["exchange_timestamp"], "ms")
    return MarketColumns(trades=trades, source=path.name, exchange_times={"trades": exchange})
