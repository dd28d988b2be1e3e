"""What a plain twin of a feature is computed from: every accepted event, samples, windows and exact sums."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

LOW, HIGH = 1e-18, 1e18
SECOND = 10**9
SUM_ERROR = 1e-30


def log_bps(now: float, before: float) -> float:
    if now == before:
        return 0.0
    return 1e4 * (math.log1p((now - before) / before) if abs(now / before - 1) < 0.1 else math.log(now / before))


class Row(NamedTuple):
    number: int  # of its kind, from 1
    time: int
    values: tuple


class Sample(NamedTuple):
    open: float
    high: float
    low: float
    close: float
    volume: float
    notional: float
    bought: float
    sold: float


class Sums:
    """Exact sums of the columns of the rows of a window, and how wrong a sum in two doubles may be."""

    def __init__(self, rows: list[Row], all_rows: list[Row], width: int) -> None:
        self.n = len(rows)
        self.value = [math.fsum(r.values[i] for r in rows) for i in range(width)]
        self.error = [SUM_ERROR * max((abs(r.values[i]) for r in all_rows), default=0.0) for i in range(width)]


def ratio(a: float, a_error: float, b: float, b_error: float) -> tuple[float, float]:
    """a / b and its error; 0 over nothing, and no statement (infinite error) where almost all of b has left."""
    if b <= 1e6 * b_error:
        return (a / b, math.inf) if b else (0.0, 0.0)
    return a / b, (a_error + abs(a / b) * b_error) / (b - b_error)


class History:
    """Keeps every accepted event and the rules for accepting them, and makes the samples of a clock."""

    def __init__(self, clocks: tuple[str, ...] = ()) -> None:
        self.clock = self.first = None
        self.book: list[Row] = []  # bid, ask, bid_size, ask_size
        self.depth: list[Row] = []  # bids [(price, size)], asks
        self.trades: list[Row] = []  # price, size, aggressor, mid before or None, whether a quote or depth was seen
        self.samples: dict[str, list[Row]] = {clock: [] for clock in ("event", *clocks)}
        self.making: dict[str, dict] = {clock: self.empty() for clock in self.samples}
        self.book_time = self.trade_time = self.bar_time = -1
        self.has_top = False
        self.asked = self.answer = None

    # --- events ---

    @staticmethod
    def empty() -> dict:
        return {"prices": [], "traded": [], "end": 0}

    @staticmethod
    def price(x: float) -> bool:
        return LOW <= x <= HIGH

    def size(self, x: float) -> bool:
        return x == 0 or self.price(x)

    def advance(self, ts: int) -> None:
        self.clock = ts if self.clock is None else max(self.clock, ts)
        self.first = ts if self.first is None else self.first
        for clock, bar in self.making.items():
            if clock.endswith("s") and not clock.endswith("ticks") and bar["prices"] and self.clock >= bar["end"]:
                self.close(clock)

    def close(self, clock: str) -> None:
        bar, rows = self.making[clock], self.samples[clock]
        prices, traded = bar["prices"], bar["traded"]
        rows.append(Row(len(rows) + 1, self.clock, Sample(
            prices[0], max(prices), min(prices), prices[-1], math.fsum(t[1] for t in traded),
            math.fsum(t[0] * t[1] for t in traded), math.fsum(t[1] for t in traded if t[2] > 0),
            math.fsum(t[1] for t in traded if t[2] < 0))))  # fmt: skip
        self.making[clock] = self.empty()

    def took_book(self, bid, ask, bid_size, ask_size, bar=None) -> None:
        self.book.append(Row(len(self.book) + 1, self.clock, (bid, ask, bid_size, ask_size)))
        for clock, making in self.making.items():
            if clock == "event":
                if bar is None:
                    making["prices"] = [0.5 * (bid + ask)]
                    self.close(clock)
                else:
                    opened, high, low, close, volume = bar
                    rows = self.samples[clock]
                    money = volume * ((high + low + close) / 3)
                    rows.append(Row(len(rows) + 1, self.clock, Sample(opened, high, low, close, volume, money, 0, 0)))
                    self.making[clock] = self.empty()
                continue
            if not making["prices"] and not clock.endswith("ticks"):
                span = int(clock[:-1]) * SECOND
                making["end"] = (self.clock // span + 1) * span
            making["prices"].append(0.5 * (bid + ask))
            if clock.endswith("ticks") and len(making["prices"]) == int(clock.split()[0]):
                self.close(clock)

    def quote(self, bid, ask, bid_size, ask_size, ts) -> bool:
        if not (self.price(bid) and self.price(ask) and self.size(bid_size) and self.size(ask_size)):
            return False
        if ts < self.book_time or bid > ask:
            return False
        self.advance(ts)
        self.book_time, self.has_top = ts, True
        self.took_book(bid, ask, bid_size, ask_size)
        return True

    def deep(self, bids, asks, ts) -> bool:
        for side, sign in ((bids, -1), (asks, 1)):
            present = [level for level in side if level != (0.0, 0.0)]
            prices = [p for p, _ in present]
            if not present or side[: len(present)] != present:
                return False
            if not all(self.price(p) and self.size(s) for p, s in present):
                return False
            if any((b - a) * sign <= 0 for a, b in pairwise(prices)):
                return False
        if ts < self.book_time or bids[0][0] > asks[0][0]:
            return False
        self.advance(ts)
        self.book_time, self.has_top = ts, True
        self.depth.append(Row(len(self.depth) + 1, self.clock,
                              ([x for x in bids if x[0] > 0], [x for x in asks if x[0] > 0])))  # fmt: skip
        self.took_book(*(bids[0][0], asks[0][0], bids[0][1], asks[0][1]))
        return True

    def trade(self, price, size, aggressor, ts) -> bool:
        if not (self.price(price) and self.price(size) and aggressor in (-1, 0, 1)) or ts < self.trade_time:
            return False
        self.advance(ts)
        self.trade_time = ts
        mid = self.mid() if self.book else None
        self.trades.append(Row(len(self.trades) + 1, self.clock, (price, size, aggressor, mid, self.has_top)))
        for making in self.making.values():
            making["traded"].append((price, size, aggressor))
        return True

    def bar(self, opened, high, low, close, volume, ts) -> bool:
        if not all(self.price(x) for x in (opened, high, low, close)) or not self.size(volume) or high < low:
            return False
        if ts < self.bar_time:
            return False
        self.advance(ts)
        self.bar_time = ts
        if not self.has_top:
            self.took_book(close, close, 0.0, 0.0, (opened, high, low, close, volume))
        return True

    # --- what the values are made of ---

    def mid(self) -> float:
        bid, ask, *_ = self.book[-1].values
        return 0.5 * (bid + ask)

    def elapsed(self, span: float) -> bool:
        return self.clock is not None and self.clock - self.first >= span

    def ready(self, window: float, events: list, more: int) -> bool:
        if window < 0:
            return len(events) >= -window + more
        return len(events) >= 1 + more and self.elapsed(window)

    def within(self, rows: list[Row], window: float, last: int) -> list[Row]:
        """Rows of the last so many events (`last` is the number of the latest), or of the last nanoseconds."""
        if window < 0:
            return [r for r in rows if last - r.number < -window]
        return [r for r in rows if self.clock - r.time < window]

    def side_of(self, k: int, infer: float) -> float:
        price, _, aggressor, mid, has_top = self.trades[k].values
        if aggressor or not infer:
            return float(aggressor)
        if has_top and price != mid:
            return 1.0 if price > mid else -1.0
        for before in reversed(self.trades[:k]):
            if before.values[0] != price:
                return 1.0 if price > before.values[0] else -1.0
        return 0.0
