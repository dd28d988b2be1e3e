"""Binance: the public daily CSV files, the historical order book (T_DEPTH), and captures of the websocket.

Columns of the CSV files as published by Binance (data.binance.vision and its README; for T_DEPTH the page "Binance
Futures Order Book Historical Data"). Files with and without a header line are told apart by their first field. Times
are in milliseconds, from 2025 on in microseconds for spot; which one is told from their size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import BarColumns, DeltaColumns, MarketColumns, QuoteColumns, TradeColumns
from tengri_fast.market.fixed_point import through_fixed_point
from tengri_fast.market.read_options import ReadOptions
from tengri_fast.market.tables import Array, first_lines, head, open_bytes, read_csv, require_file, time_column

__all__ = ["read_agg_trades", "read_book_ticker", "read_capture", "read_klines", "read_t_depth", "read_trades"]

ADD, UPDATE, DELETE, CLEAR = 1, 2, 3, 4
FLAG_LAST, FLAG_SNAPSHOT = 128, 32
NS_PER_MS = 1_000_000

BOOK_TICKER = ("update_id", "best_bid_price", "best_bid_qty", "best_ask_price", "best_ask_qty", "transaction_time",
               "event_time")  # fmt: skip
AGG_TRADES = ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time",
              "is_buyer_maker", "is_best_match")  # fmt: skip
TRADES = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match")
KLINES = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
          "taker_buy_volume", "taker_buy_quote_volume", "ignore")  # fmt: skip
T_DEPTH = ("symbol", "timestamp", "first_update_id", "last_update_id", "side", "update_type", "price", "qty", "pu")


def _table(path: Path, names: tuple[str, ...], types: Mapping[str, str], options: ReadOptions) -> dict[str, Array]:
    """Columns by our names, with or without a header line; a header may spell them in its own way."""
    rows = first_lines(head(require_file(path)))
    if not rows:
        raise DataConversionError(f"`path` must hold rows of CSV, {path.name} has none")
    width = len(rows[0])
    needed = max(names.index(name) for name in types) + 1
    if not needed <= width <= len(names):
        raise DataConversionError(f"`path` must have {needed} to {len(names)} columns ({', '.join(names)}), "
                                  f"{path.name} has {width}")  # fmt: skip
    header = any(field and field[0].isalpha() and field.lower() not in ("true", "false", "a", "b", "snap", "set")
                 for field in rows[0][1:])  # fmt: skip
    return read_csv(path, types, names=names[:width], header=header, progress=options.progress)


def _decimal(values: Array) -> npt.NDArray[np.float64]:
    return through_fixed_point(values)


def _aggressor(buyer_is_maker: Array) -> npt.NDArray[np.int32]:
    return np.where(buyer_is_maker.astype(bool), -1, 1).astype(np.int32)


def read_book_ticker(path: Path, options: ReadOptions) -> MarketColumns:
    """Best bid and ask; event time is the matching engine's, init time that of the message."""
    types = {name: "float" for name in BOOK_TICKER[1:5]} | {"transaction_time": "int", "event_time": "int"}
    found = _table(path, BOOK_TICKER, types, options)
    event = time_column("transaction_time", found["transaction_time"], "auto")
    init = time_column("event_time", found["event_time"], "auto")
    bid, bid_size, ask, ask_size = (_decimal(found[name]) for name in BOOK_TICKER[1:5])
    return MarketColumns(quotes=QuoteColumns(event, init, bid, ask, bid_size, ask_size), source=path.name)


def _read_trades(path: Path, names: tuple[str, ...], time: str, size: str, options: ReadOptions) -> MarketColumns:
    types = {"price": "float", size: "float", time: "int", "is_buyer_maker": "bool"}
    found = _table(path, names, types, options)
    event = time_column(time, found[time], "auto")
    trades = TradeColumns(event, event.copy(), _decimal(found["price"]), _decimal(found[size]),
                          _aggressor(found["is_buyer_maker"]))  # fmt: skip
    return MarketColumns(trades=trades, source=path.name)


def read_agg_trades(path: Path, options: ReadOptions) -> MarketColumns:
    """Trades of one taker order at one price as one row."""
    return _read_trades(path, AGG_TRADES, "transact_time", "quantity", options)


def read_trades(path: Path, options: ReadOptions) -> MarketColumns:
    """Single trades."""
    return _read_trades(path, TRADES, "time", "qty", options)


def read_klines(path: Path, options: ReadOptions) -> MarketColumns:
    """Bars; known one unit after the close time that the file writes."""
    types = {"open_time": "int", **dict.fromkeys(KLINES[1:6], "float"), "close_time": "int"}
    found = _table(path, KLINES, types, options)
    opened = time_column("open_time", found["open_time"], "auto")
    # The last unit that belongs to the bar, so one more.
    known = time_column("close_time", found["close_time"] + 1, "auto")
    if len(known) and not (known > opened).all():
        row = int(np.flatnonzero(known <= opened)[0])
        raise DataConversionError(f"`close_time` must be after `open_time`, row {row} was {found['close_time'][row]}")
    bars = BarColumns(known, known.copy(), *(_decimal(found[name]) for name in KLINES[1:6]))
    return MarketColumns(bars=bars, source=path.name, notes=("A bar is known at its close time.",))


def read_t_depth(path: Path, options: ReadOptions) -> MarketColumns:
    """Level-2 changes; the snapshots of a file ``..._depth_snap...`` beside ``..._depth_update...`` are merged in."""
    parts, notes = [path], []
    if "_depth_update" in path.name:
        pattern = path.name.partition("_depth_update")[0] + "_depth_snap*"
        parts = [*sorted(path.parent.glob(pattern))[:1], path]
        if len(parts) == 2:
            notes.append(f"Snapshots are from {parts[0].name}.")
    kinds = {"symbol": "text", "timestamp": "int", "last_update_id": "int", "side": "text", "update_type": "text",
             "price": "float", "qty": "float"}  # fmt: skip
    tables = []
    for part in parts:
        rows = first_lines(head(part))
        has_pu = bool(rows) and len(rows[0]) == len(T_DEPTH)
        table = _table(part, T_DEPTH, kinds | ({"pu": "int"} if has_pu else {}), options)
        tables.append(table if has_pu else table | {"pu": np.full(len(table["price"]), -1)})
    found = {name: np.concatenate([table[name] for table in tables]) for name in (*kinds, "pu")}
    symbols = np.unique(found["symbol"].astype(str))
    if options.instrument_id is not None or len(symbols) > 1:
        rows = found["symbol"].astype(str) == options.instrument_id
        if not rows.any():
            raise DataConversionError(f"`instrument_id` must be one of {', '.join(symbols.tolist())}, was "
                                      f"{options.instrument_id!r}")  # fmt: skip
        found = {name: values[rows] for name, values in found.items()}
    side = _codes("side", found["side"], {"b": 1, "a": -1}, path).astype(np.int8)
    snapshot = _codes("update_type", found["update_type"], {"snap": 1, "set": 0}, path).astype(bool)
    ids, previous = found["last_update_id"], found["pu"]
    # Snapshots first at equal ids: a change with the id of the snapshot is in it already.
    order = np.lexsort((np.arange(len(ids)), ~snapshot, ids))
    if snapshot.any():
        late = order[int(np.argmax(snapshot[order])) :]
        if len(late) < len(order):
            notes.append(f"{len(order) - len(late)} change(s) came before any snapshot and were left out.")
        order = late
    else:
        notes.append("There is no snapshot: the book starts empty.")
    ids, previous, snapshot, side = ids[order], previous[order], snapshot[order], side[order]
    event = np.ones(len(ids), bool)
    event[1:] = (ids[1:] != ids[:-1]) | (snapshot[1:] != snapshot[:-1])
    starts = np.flatnonzero(event)
    broken = np.zeros(len(starts), bool)
    # The first update after a snapshot may reach back behind it; the others follow each other.
    after, before, last = starts[1:], previous[starts[1:]], ids[starts[:-1]]
    broken[1:] = ~snapshot[after] & (before >= 0) & np.where(snapshot[starts[:-1]], before > last, before != last)
    if broken.any():
        notes.append(f"{int(broken.sum())} gap(s): an update names another predecessor than the one before it.")
    number = np.cumsum(1 + broken.astype(np.int64)).astype(np.uint64)
    times = time_column("timestamp", found["timestamp"], "auto")[order]
    # An update that is older than its snapshot is known as a book only with it.
    made = _deltas(event, snapshot, side, _decimal(found["price"][order]), _decimal(found["qty"][order]),
                   number[np.cumsum(event) - 1], times, np.maximum.accumulate(times))  # fmt: skip
    return MarketColumns(deltas=made, source=path.name, notes=tuple(notes))


def _codes(name: str, text: Array, meaning: Mapping[str, int], path: Path) -> npt.NDArray[np.int64]:
    values, inverse = np.unique(text.astype(str), return_inverse=True)
    for value in values.tolist():
        if value not in meaning:
            row = int(np.flatnonzero(text.astype(str) == value)[0])
            raise DataConversionError(f"`{name}` must be one of {', '.join(meaning)}, {path.name} row {row} was "
                                      f"{value!r}")  # fmt: skip
    return np.array([meaning[value] for value in values.tolist()], np.int64)[inverse.reshape(-1)]


def _deltas(
    event: npt.NDArray[np.bool_], snapshot: npt.NDArray[np.bool_], side: npt.NDArray[np.int8],
    price: npt.NDArray[np.float64], size: npt.NDArray[np.float64], sequence: npt.NDArray[np.uint64],
    ts_event: npt.NDArray[np.uint64], ts_init: npt.NDArray[np.uint64],
) -> DeltaColumns:  # fmt: skip
    """Levels to changes: a clear before each snapshot, size 0 is a delete, the last change of an event is marked.

    `event` marks the first row of each event; rows of one event stand together. `sequence` numbers the events and skips
    a number where the chain of updates is broken, as `OrderBookL2(contiguous=True)` wants it.
    """
    action = np.where(snapshot, ADD, np.where(size == 0, DELETE, UPDATE)).astype(np.uint8)
    flags = np.where(snapshot, FLAG_SNAPSHOT, 0).astype(np.uint8)
    last = np.roll(event, -1)
    if len(last):
        last[-1] = True
    flags[last] |= FLAG_LAST
    clears = np.flatnonzero(event & snapshot)

    def put(values: Array, cleared: Any) -> Array:
        return np.insert(values, clears, cleared)

    return DeltaColumns(
        put(action, CLEAR), put(side, 0), put(price, 0.0), put(size, 0.0),
        np.zeros(len(event) + len(clears), np.uint64), put(flags, FLAG_SNAPSHOT),
        put(sequence, sequence[clears]), put(ts_event, ts_event[clears]), put(ts_init, ts_init[clears]),
    )  # fmt: skip


class _Message(msgspec.Struct):
    """The fields that we use of any message; `b` and `a` are prices in one kind and levels in the other."""

    e: str = ""
    E: int = 0
    T: int = 0
    s: str = ""
    U: int = 0
    u: int = 0
    pu: int = 0
    b: float | list[tuple[float, float]] | None = None
    a: float | list[tuple[float, float]] | None = None
    B: float = 0.0
    A: float = 0.0
    p: float = 0.0
    q: float = 0.0
    m: bool = False
    lastUpdateId: int = 0
    bids: list[tuple[float, float]] | None = None
    asks: list[tuple[float, float]] | None = None


class _Envelope(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw()


class _Capture:
    """Rows of the streams while lines are read."""

    def __init__(self, name: str, instrument: str | None) -> None:
        self.name, self.instrument, self.other = name, instrument, 0
        self.quotes: list[tuple[int, int, float, float, float, float]] = []
        self.trades: list[tuple[int, int, float, float, int]] = []
        # Per event: time, exchange time, number, whether a snapshot, levels of each side.
        self.events: list[tuple[int, int, int, bool, Any, Any]] = []
        self.held: list[tuple[int, _Message]] = []
        self.snapshot_id = self.last_id = -1
        self.fresh = False  # no update has come since the snapshot
        self.number = self.early = self.gaps = 0
        self.symbols: set[str] = set()

    def add(self, line: int, local: int, message: _Message) -> None:
        if message.lastUpdateId and message.bids is not None and message.asks is not None:
            self._snapshot(local, message)
            return
        if message.s:
            if self.instrument is not None and message.s != self.instrument:
                return
            self.symbols.add(message.s)
            if len(self.symbols) > 1:
                raise DataConversionError(f"`instrument_id` must be given: {self.name} holds "
                                          f"{' and '.join(sorted(self.symbols))}")  # fmt: skip
        stamp = message.T or message.E
        if message.e == "depthUpdate":
            self._update(line, local, message)
        elif message.e == "trade" or message.e == "aggTrade":
            # Trades of the insurance fund and of settlement have no price.
            if message.p > 0:
                self.trades.append((local, stamp, message.p, message.q, -1 if message.m else 1))
            else:
                self.other += 1
        elif message.e == "bookTicker" or (not message.e and isinstance(message.b, float)):
            if not isinstance(message.b, float) or not isinstance(message.a, float):
                raise DataConversionError(f"`b` and `a` of a bookTicker must be prices, {self.name} line {line}")
            self.quotes.append((local, stamp, message.b, message.a, message.B, message.A))
        else:
            self.other += 1

    def _snapshot(self, local: int, message: _Message) -> None:
        self.snapshot_id, self.fresh = message.lastUpdateId, True
        self.number += 1
        self.events.append((local, message.T or message.E, self.number, True, message.bids, message.asks))
        # What came while the snapshot was on its way and is not in it: known as a book only now.
        held, self.held = self.held, []
        for _, update in held:
            self._apply(local, update)

    def _update(self, line: int, local: int, message: _Message) -> None:
        if isinstance(message.b, float) or isinstance(message.a, float):
            raise DataConversionError(f"`b` and `a` of a depthUpdate must be levels, {self.name} line {line}")
        if self.snapshot_id < 0:
            self.held.append((local, message))
        else:
            self._apply(local, message)

    def _apply(self, local: int, message: _Message) -> None:
        """Number an update, with a number left out where it does not follow the one before it (rules of the feed)."""
        if message.u <= self.snapshot_id:
            self.early += 1
            return
        if self.fresh:
            follows = message.pu <= self.snapshot_id if message.pu else self.snapshot_id + 1 >= message.U
        else:
            follows = message.pu == self.last_id if message.pu else self.last_id + 1 == message.U
        if not follows:
            self.gaps += 1
            self.number += 1
        self.last_id, self.fresh = message.u, False
        if message.b or message.a:  # an update that changes no level says nothing about the book
            self.number += 1
            stamp = message.T or message.E
            self.events.append((local, stamp, self.number, False, message.b or [], message.a or []))

    def columns(self) -> MarketColumns:
        streams: dict[str, Any] = {}
        exchange: dict[str, npt.NDArray[np.uint64]] = {}
        if self.quotes:
            local, stamp, bid, ask, bid_size, ask_size = zip(*self.quotes, strict=True)
            ts = np.array(local, np.uint64)
            streams["quotes"] = QuoteColumns(ts, ts.copy(), *(_decimal(np.array(v)) for v in (bid, ask, bid_size,
                                                                                              ask_size)))  # fmt: skip
            exchange["quotes"] = np.array(stamp, np.uint64) * np.uint64(NS_PER_MS)
        if self.trades:
            local, stamp, price, size, side = zip(*self.trades, strict=True)
            ts = np.array(local, np.uint64)
            streams["trades"] = TradeColumns(ts, ts.copy(), _decimal(np.array(price)), _decimal(np.array(size)),
                                             np.array(side, np.int32))  # fmt: skip
            exchange["trades"] = np.array(stamp, np.uint64) * np.uint64(NS_PER_MS)
        if self.events:
            streams["deltas"], exchange["deltas"] = self._book()
        notes = []
        if self.early:
            notes.append(f"{self.early} book update(s) are in the snapshot already and were left out.")
        if self.held:
            notes.append(f"{len(self.held)} book update(s) came before any snapshot and were left out.")
        if self.gaps:
            notes.append(f"{self.gaps} gap(s): a book update does not follow the one before it.")
        if self.other:
            notes.append(f"{self.other} line(s) of other kinds were left out.")
        return MarketColumns(source=self.name, notes=tuple(notes), exchange_times=exchange, **streams)

    def _book(self) -> tuple[DeltaColumns, npt.NDArray[np.uint64]]:
        events = self.events
        counts = np.array([len(bids) + len(asks) for *_, bids, asks in events], np.int64)
        pairs = np.array([level for *_, bids, asks in events for side in (bids, asks) for level in side]).reshape(-1, 2)
        sides = np.repeat(np.tile(np.array([1, -1], np.int8), len(events)),
                          [len(side) for *_, bids, asks in events for side in (bids, asks)])  # fmt: skip
        first = np.zeros(int(counts.sum()), bool)
        first[np.concatenate([[0], np.cumsum(counts)[:-1]])[counts > 0]] = True
        local, stamp, number, snapshot = (
            np.repeat(np.array([event[i] for event in events], kind), counts)
            for i, kind in enumerate((np.uint64, np.uint64, np.uint64, bool))
        )
        made = _deltas(first, snapshot, sides, _decimal(pairs[:, 0]), _decimal(pairs[:, 1]), number, local, local)
        clears = np.flatnonzero(first & snapshot)
        return made, np.insert(stamp, clears, stamp[clears]) * np.uint64(NS_PER_MS)


def read_capture(path: Path, options: ReadOptions) -> MarketColumns:
    """Lines of local nanoseconds and a JSON message: quotes, trades and changes of the book."""
    envelope = msgspec.json.Decoder(_Envelope)
    decoder = msgspec.json.Decoder(_Message, strict=False)
    capture = _Capture(path.name, options.instrument_id)
    number = 0
    with open_bytes(require_file(path), options.progress) as file:
        for number, line in enumerate(file, 1):
            stamp, _, text = line.partition(b" ")
            if not text.strip():
                if not line.strip():
                    continue
                raise DataConversionError(f"`path` must hold a time and JSON per line, {path.name} line {number} was "
                                          f"{line[:40]!r}")  # fmt: skip
            try:
                # The streams come in an envelope, the snapshot of the REST interface without one.
                inner = envelope.decode(text).data
                capture.add(number, int(stamp), decoder.decode(bytes(inner) or text))
            except (msgspec.DecodeError, ValueError) as error:
                raise DataConversionError(f"`path` must hold a time and JSON per line, {path.name} line {number}: "
                                          f"{error}") from None  # fmt: skip
    if number == 0:
        raise DataConversionError(f"`path` must hold lines, {path.name} is empty")
    return capture.columns()
