"""Every feature against a plain twin that recomputes it from the whole history, on hostile event streams."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tengri_fast.features import FEATURES, FeaturePlan, FeatureSpec, parse_spec

LOW, HIGH = 1e-18, 1e18
SECOND = 10**9


def log_bps(now: float, before: float) -> float:
    return 1e4 * (math.log1p((now - before) / before) if abs(now / before - 1) < 0.1 else math.log(now / before))


class Twin:
    """Keeps every accepted event and the rules for accepting them."""

    def __init__(self) -> None:
        self.clock = self.first = None
        self.book: list[tuple] = []  # (clock, bid, ask, bid_size, ask_size)
        self.depth: list[tuple] = []  # (clock, bids [(price, size)], asks)
        self.trades: list[tuple] = []  # (clock, ts, size, aggressor)
        self.book_time = self.trade_time = self.bar_time = -1
        self.has_top = False
        self.counts = dict.fromkeys(("accepted", "crossed", "backward", "invalid"), 0)

    @staticmethod
    def price(x: float) -> bool:
        return LOW <= x <= HIGH

    def size(self, x: float) -> bool:
        return x == 0 or self.price(x)

    def count(self, name: str) -> bool:
        self.counts[name] += 1
        return name == "accepted"

    def advance(self, ts: int) -> None:
        self.clock = ts if self.clock is None else max(self.clock, ts)
        self.first = ts if self.first is None else self.first

    def quote(self, bid, ask, bid_size, ask_size, ts) -> bool:
        if not (self.price(bid) and self.price(ask) and self.size(bid_size) and self.size(ask_size)):
            return self.count("invalid")
        if ts < self.book_time:
            return self.count("backward")
        if bid > ask:
            return self.count("crossed")
        self.advance(ts)
        self.book_time, self.has_top = ts, True
        self.book.append((self.clock, bid, ask, bid_size, ask_size))
        return self.count("accepted")

    def deep(self, bids, asks, ts) -> bool:
        for side, sign in ((bids, -1), (asks, 1)):
            present = [level for level in side if level != (0.0, 0.0)]
            prices = [p for p, _ in present]
            if not present or side[: len(present)] != present:
                return self.count("invalid")
            if not all(self.price(p) and self.size(s) for p, s in present):
                return self.count("invalid")
            if any((b - a) * sign <= 0 for a, b in pairwise(prices)):
                return self.count("invalid")
        if ts < self.book_time:
            return self.count("backward")
        if bids[0][0] > asks[0][0]:
            return self.count("crossed")
        self.advance(ts)
        self.book_time, self.has_top = ts, True
        self.book.append((self.clock, bids[0][0], asks[0][0], bids[0][1], asks[0][1]))
        self.depth.append((self.clock, bids, asks))
        return self.count("accepted")

    def trade(self, price, size, aggressor, ts) -> bool:
        if not (self.price(price) and self.price(size) and aggressor in (-1, 0, 1)):
            return self.count("invalid")
        if ts < self.trade_time:
            return self.count("backward")
        self.advance(ts)
        self.trade_time = ts
        self.trades.append((self.clock, ts, size, aggressor))
        return self.count("accepted")

    def bar(self, opened, high, low, close, volume, ts) -> bool:
        if not all(self.price(x) for x in (opened, high, low, close)) or not self.size(volume) or high < low:
            return self.count("invalid")
        if ts < self.bar_time:
            return self.count("backward")
        self.advance(ts)
        self.bar_time = ts
        if not self.has_top:
            self.book.append((self.clock, close, close, 0.0, 0.0))
        return self.count("accepted")

    # --- values: (ready, value) ---

    def mids(self) -> list[tuple[int, float]]:
        return [(row[0], 0.5 * (row[1] + row[2])) for row in self.book]

    def window(self, rows: list, window: float) -> list:
        """The rows inside a window of nanoseconds, or the last so many of them."""
        if window < 0:
            return rows[-int(-window) :]
        return [row for row in rows if self.clock - row[0] < window]

    def elapsed(self, span: float) -> bool:
        return self.clock is not None and self.clock - self.first >= span

    def value(self, spec: FeatureSpec) -> tuple[bool, float]:
        return getattr(self, spec.name)(**spec.params)

    def mid_return(self, lag, capacity):
        mids = self.mids()
        if lag < 0:
            n = int(-lag)
            return (True, log_bps(mids[-1][1], mids[-1 - n][1])) if len(mids) > n else (False, 0)
        old = [mid for when, mid in mids if self.clock - when >= lag]
        return (True, log_bps(mids[-1][1], old[-1])) if old else (False, 0)

    def spread(self, tick):
        if not self.book:
            return False, 0
        _, bid, ask, *_ = self.book[-1]
        return True, (ask - bid) / tick if tick else 1e4 * (ask - bid) / (0.5 * (bid + ask))

    def microprice_deviation(self):
        if not self.book:
            return False, 0
        _, bid, ask, bs, sa = self.book[-1]
        mid = 0.5 * (bid + ask)
        # The weighted mid as it is written, in units of the spread so that no digits are lost at a price of 65,000.
        return True, 1e4 * (ask - bid) * (bs / (bs + sa) - 0.5) / mid if bs + sa > 0 else 0.0

    def imbalance(self):
        if not self.book:
            return False, 0
        bs, sa = self.book[-1][3:]
        return True, (bs - sa) / (bs + sa) if bs + sa > 0 else 0.0

    def depth_imbalance(self, levels, decay):
        if not self.depth:
            return False, 0
        _, bids, asks = self.depth[-1]
        weight = [math.exp(-decay * i) for i in range(int(levels))]
        b = math.fsum(w * s for w, (_, s) in zip(weight, bids, strict=False))
        a = math.fsum(w * s for w, (_, s) in zip(weight, asks, strict=False))
        return True, (b - a) / (b + a) if b + a > 0 else 0.0

    @staticmethod
    def flow(old, new):
        """Cont-Kukanov-Stoikov eq. 3 for one level: (bid, ask, bid_size, ask_size) before and after."""
        e = new[2] * (new[0] >= old[0]) - old[2] * (new[0] <= old[0])
        return e - new[3] * (new[1] <= old[1]) + old[3] * (new[1] >= old[1])

    def order_flow_imbalance(self, window, levels, normalise, capacity):
        levels = int(levels)
        if levels == 1:
            books = [(row[0], [row[1:]]) for row in self.book]
        else:
            books = []
            for when, bids, asks in self.depth:
                b = [*bids, *[(0.0, 0.0)] * 10]
                a = [*asks, *[(0.0, 0.0)] * 10]
                books.append((when, [(b[i][0], a[i][0] or math.inf, b[i][1], a[i][1]) for i in range(levels)]))
        rows = []
        for (_, old), (when, new) in pairwise(books):
            rows.append((when, math.fsum(map(self.flow, old, new)) / levels,
                         math.fsum(0.5 * (n[2] + n[3]) for n in new) / levels))  # fmt: skip
        ready = len(rows) >= -window if window < 0 else len(rows) >= 1 and self.elapsed(window)
        if not ready:
            return False, 0
        rows = self.window(rows, window)
        total, depth = math.fsum(r[1] for r in rows), math.fsum(r[2] for r in rows)
        if not normalise:
            return True, total
        return True, total / (depth / len(rows)) if depth > 0 else 0.0

    def signed_trade_flow(self, window, capacity):
        ready = len(self.trades) >= -window if window < 0 else self.elapsed(window)
        rows = self.window(self.trades, window) if ready else []
        volume = math.fsum(r[2] for r in rows)
        return ready, math.fsum(r[2] * r[3] for r in rows) / volume if volume else 0.0

    def realized_volatility(self, window, capacity):
        mids = self.mids()
        returns = [(b[0], log_bps(b[1], a[1])) for a, b in pairwise(mids)]
        ready = len(returns) >= -window if window < 0 else bool(mids) and self.elapsed(window)
        return ready, math.sqrt(math.fsum(r * r for _, r in self.window(returns, window))) if ready else 0.0

    def ema_difference(self, fast, slow):
        mids = self.mids()
        if not mids:
            return False, 0
        if fast < 0:
            ready, both = len(mids) >= -slow, []
            for n in (-fast, -slow):
                ema = mids[0][1]
                for _, mid in mids[1:]:
                    ema = ema * (1 - 2 / (n + 1)) + mid * 2 / (n + 1)
                both.append(ema)
        else:
            ready, both = self.clock - mids[0][0] >= slow, []
            for half in (fast, slow):
                ages = [(self.clock - when) / half for when, _ in mids]
                parts = [mids[0][1] * 2 ** -ages[0]]
                for i, (_, mid) in enumerate(mids):
                    until = ages[i + 1] if i + 1 < len(mids) else 0.0
                    parts.append(mid * (2**-until - 2 ** -ages[i]))
                both.append(math.fsum(parts))
        return ready, log_bps(*both)

    def rsi(self, period):
        mids = [mid for _, mid in self.mids()]
        changes = np.diff(mids)
        n = int(period)
        if len(changes) < n:
            return False, 0
        up, down = np.maximum(changes, 0), np.maximum(-changes, 0)
        gain, loss = up[:n].mean(), down[:n].mean()
        for u, d in zip(up[n:], down[n:], strict=True):
            gain, loss = (gain * (n - 1) + u) / n, (loss * (n - 1) + d) / n
        return True, 100 * gain / (gain + loss) if gain + loss > 0 else 50.0

    def time_since_trade(self):
        return (True, math.log1p((self.clock - self.trades[-1][1]) / SECOND)) if self.trades else (False, 0)

    def moves(self):
        mids = self.mids()
        return [(b[0], math.copysign(1, b[1] - a[1])) for a, b in pairwise(mids) if a[1] != b[1]]

    def last_move_direction(self, half_life):
        moves = self.moves()
        if not moves:
            return False, 0
        when, sign = moves[-1]
        return True, sign * 2 ** (-(self.clock - when) / half_life) if half_life else sign

    def mid_move_age(self):
        moves = self.moves()
        return (True, math.log1p((self.clock - moves[-1][0]) / SECOND)) if moves else (False, 0)

    def trade_intensity(self, half_life):
        rate = math.log(2) / half_life * SECOND
        ages = [(self.clock - row[0]) / half_life for row in self.trades]
        return self.elapsed(half_life), rate * math.fsum(2**-age for age in ages)


SPECS = [
    "mid_return(lag=3)",
    "mid_return(lag='2s')",
    "spread",
    "spread(tick=0.01)",
    "microprice_deviation",
    "imbalance",
    "depth_imbalance(levels=3)",
    "depth_imbalance(levels=10, decay=0.7)",
    "order_flow_imbalance(window='2s')",
    "order_flow_imbalance(window=3, normalise=0)",
    "order_flow_imbalance(window='3s', levels=4)",
    "order_flow_imbalance(window=2, levels=2, normalise=0)",
    "signed_trade_flow(window='2s')",
    "signed_trade_flow(window=3)",
    "realized_volatility(window='3s')",
    "realized_volatility(window=4)",
    "ema_difference(fast=2, slow=5)",
    "ema_difference(fast='1s', slow='3s')",
    "rsi(3)",
    "time_since_trade",
    "last_move_direction",
    "last_move_direction(half_life='500ms')",
    "mid_move_age",
    "trade_intensity(half_life='700ms')",
]


def test_every_feature_here_is_of_the_table_and_has_a_twin() -> None:
    names = {parse_spec(text).name for text in SPECS}
    assert names <= set(FEATURES)
    assert all(hasattr(Twin, name) for name in names)


ODD = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e12, 1e-12, 5e-324, 1e300, 1e18, 1e-18])
PRICE = st.one_of(
    st.integers(-6, 6).map(lambda k: 65_000 + 0.01 * k),
    st.integers(-6, 6).map(lambda k: 65_000 + 0.01 * k),
    st.floats(1e-3, 1e6),
    ODD,
)
SIZE = st.one_of(st.floats(0.001, 50), st.integers(0, 5).map(float), ODD)
STEP = st.one_of(st.integers(0, 10**9), st.just(0), st.integers(-3 * 10**9, 3 * 10**9), st.just(10 * 10**9))


@st.composite
def ladder(draw, sign: int):
    count = draw(st.integers(1, 5))
    base = 65_000 - (sign < 0) * 0.01 + 0.01 * draw(st.integers(-3, 3))
    levels = [(base + sign * 0.01 * i, draw(SIZE)) for i in range(count)]
    if draw(st.booleans()):
        levels += [(0.0, 0.0)]
    if draw(st.integers(0, 9)) == 0:
        levels = levels[::-1]
    return levels[:10]


EVENT = st.one_of(
    st.tuples(st.just("quote"), PRICE, PRICE, SIZE, SIZE),
    st.tuples(st.just("quote"), st.just(64_999.99), st.integers(0, 4).map(lambda k: 65_000 + 0.01 * k), SIZE, SIZE),
    st.tuples(st.just("trade"), PRICE, SIZE, st.sampled_from([-1, 0, 1, 2])),
    st.tuples(st.just("depth"), ladder(-1), ladder(1)),
    st.tuples(st.just("bar"), PRICE, PRICE, PRICE, PRICE, SIZE),
)


def pad(levels: list, count: int) -> list:
    return levels + [(0.0, 0.0)] * (count - len(levels))


def feed(state, twin: Twin, event: tuple, ts: int) -> tuple[bool, bool]:
    kind, *rest = event
    if kind == "quote":
        return state.update_quote(*rest, ts), twin.quote(*rest, ts)
    if kind == "trade":
        return state.update_trade(*rest, ts), twin.trade(*rest, ts)
    if kind == "bar":
        return state.update_bar(*rest, ts), twin.bar(*rest, ts)
    count = max(map(len, rest))
    bids, asks = (pad(side, count) for side in rest)
    columns = [[level[k] for level in side] for side in (bids, asks) for k in (0, 1)]
    return state.update_depth(*columns, ts), twin.deep(bids, asks, ts)


def compare(plan: FeaturePlan, state, twin: Twin, where: object) -> None:
    row, ready = state.row(), state.ready_columns
    assert np.isfinite(row).all(), where
    for i, spec in enumerate(plan.specs):
        wanted_ready, wanted = twin.value(spec)
        assert ready[i] == wanted_ready, (str(spec), where)
        if not wanted_ready:
            assert row[i] == 0.0
            continue
        assert math.isclose(row[i], wanted, rel_tol=1e-9, abs_tol=1e-9), (str(spec), row[i], wanted, where)
    assert state.ready == all(ready)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.tuples(EVENT, STEP), min_size=1, max_size=40))
def test_hostile_streams(events) -> None:
    plan = FeaturePlan(SPECS)
    state, twin, ts = plan.state(), Twin(), 10**12
    for k, (event, step) in enumerate(events):
        ts = max(0, ts + step)
        ours, theirs = feed(state, twin, event, ts)
        assert ours == theirs, (k, event)
        if twin.clock is not None:
            compare(plan, state, twin, (k, event, ts))
    seen = state.counters._asdict()
    assert seen.pop("overflow") == 0
    assert seen == twin.counts


def random_events(seed: int, count: int):
    rng = np.random.default_rng(seed)
    ts, mid = 10**12, 65_000.0
    for _ in range(count):
        ts += int(rng.exponential(3e8)) * int(rng.random() < 0.9)
        mid += 0.01 * rng.integers(-2, 3) * (rng.random() < 0.5)
        half = 0.005 * rng.integers(1, 4)
        sizes = rng.integers(1, 400, 20) / 8
        kind = rng.random()
        if kind < 0.5:
            yield ("quote", mid - half, mid + half, sizes[0], sizes[1]), ts
        elif kind < 0.75:
            yield ("trade", mid, sizes[0], int(rng.integers(-1, 2))), ts
        else:
            count = int(rng.integers(1, 10))
            yield ("depth", [(mid - half - 0.01 * i, sizes[i]) for i in range(count)],
                   [(mid + half + 0.01 * i, sizes[10 + i]) for i in range(count)]), ts  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_realistic_stream(seed: int) -> None:
    plan = FeaturePlan(SPECS)
    state, twin = plan.state(), Twin()
    seen = set()
    for k, (event, ts) in enumerate(random_events(seed, 300)):
        ours, theirs = feed(state, twin, event, ts)
        assert ours
        assert theirs
        compare(plan, state, twin, (seed, k, event))
        seen.add(tuple(state.row()))
    assert state.ready
    assert len(seen) > 250, "the inputs must vary"


def test_bars_alone_make_the_close_the_mid() -> None:
    plan = FeaturePlan(SPECS)
    state, twin = plan.state(), Twin()
    rng = np.random.default_rng(5)
    for k in range(60):
        low, high = sorted(rng.uniform(90, 110, 2))
        close = rng.uniform(low, high)
        ours, _ = feed(state, twin, ("bar", close, high, low, close, 3.0), 10**12 + k * SECOND // 3)
        assert ours
        assert state.mid == close
        assert state.spread == 0.0
        compare(plan, state, twin, k)
    feed(state, twin, ("quote", 99.0, 101.0, 1.0, 1.0), 10**12 + 60 * SECOND)
    feed(state, twin, ("bar", 50.0, 50.0, 50.0, 50.0, 3.0), 10**12 + 61 * SECOND)
    assert state.mid == 100.0  # the book is the book once there is one
    compare(plan, state, twin, "after a quote")
