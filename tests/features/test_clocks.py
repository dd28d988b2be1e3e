"""Bars built inside: against a plain twin, on every kind of clock, and what `@` means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FeaturePlan, UserFeature, parse_clock, parse_spec, parse_specs, register_feature
from tengri_fast.market.columns import BarColumns, QuoteColumns, TradeColumns, merge_order

SECOND = 10**9
FIELDS = ("open", "high", "low", "close", "volume")


@register_feature
class Echo(UserFeature):
    """A field of the sample that the clock gave last."""

    name, unit, state, lookback = "test_echo", "as it is", 6, 1
    parameters = {"field": 0}  # noqa: RUF012

    @staticmethod
    def update(state, view, param):
        for i in range(5):
            state[i] = view[i]
        state[5] = view[13]

    @staticmethod
    def value(state, param):
        return state[int(param[0])]


class Twin:
    """Bars by the rules as they are stated, from a list of everything that happened."""

    def __init__(self, clock: str) -> None:
        self.clock = parse_clock(clock)
        self.prices: list[float] = []
        self.volume = self.notional = 0.0
        self.signs = 0.0
        self.expected, self.drift = self.clock.size, 0.0
        self.last_price, self.last_sign = 0.0, 0.0
        self.end = 0
        self.closed: list[tuple[float, ...]] = []

    def close(self) -> None:
        p = self.prices
        self.closed.append((p[0], max(p), min(p), p[-1], self.volume))
        self.prices, self.volume, self.notional = [], 0.0, 0.0

    def time(self, now: int) -> None:
        if self.clock.kind == "time" and self.prices and now >= self.end:
            self.close()

    def price(self, now: int, value: float) -> None:
        if not self.prices:
            self.end = (now // int(self.clock.size) + 1) * int(self.clock.size) if self.clock.kind == "time" else 0
        self.prices.append(value)

    def quote(self, now: int, mid: float) -> None:
        self.time(now)
        if self.clock.trades or self.clock.kind not in {"time", "ticks"}:
            return
        self.price(now, mid)
        if self.clock.kind == "ticks" and len(self.prices) >= self.clock.size:
            self.close()

    def trade(self, now: int, price: float, size: float, side: int) -> None:
        self.time(now)
        self.volume += size
        self.notional += size * price
        if not self.clock.trades:
            return
        self.price(now, price)
        full = {
            "time": False,
            "ticks": len(self.prices) >= self.clock.size,
            "volume": self.volume >= self.clock.size,
            "notional": self.notional >= self.clock.size,
            "imbalance": self.clock.kind == "imbalance" and self.imbalance(price, side),
        }[self.clock.kind]
        if full:
            self.close()

    def imbalance(self, price: float, side: int) -> bool:
        if self.last_price and price != self.last_price:
            self.last_sign = math.copysign(1.0, price - self.last_price)
        self.last_price = price
        sign = side or self.last_sign
        size = self.clock.size
        self.signs += sign
        self.drift += 2 / (size + 1) * (sign - self.drift)
        if abs(self.signs) < self.expected * max(0.1, abs(self.drift)):
            return False
        self.expected += 2 / 21 * (len(self.prices) - self.expected)
        self.expected = min(4 * size, max(size / 4, self.expected))
        self.signs = 0.0
        return True


CLOCKS = ("2s", "3s trades", "4 ticks", "3 trades", "5 volume", "3e5 notional", "4 imbalance", "1ms")
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(-20, 20),
        st.floats(0.01, 9.0),
        st.sampled_from([-1, 0, 1]),
        st.one_of(st.integers(0, SECOND), st.just(0), st.just(9 * SECOND)),
    ),
    min_size=1,
    max_size=80,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EVENTS)
def test_bars_equal_the_twin(events) -> None:
    plan = FeaturePlan([f"test_echo({k}) @ {', '.join(CLOCKS)}" for k in range(5)])
    state, twins, ts = plan.state(), [Twin(clock) for clock in CLOCKS], 10**15
    for is_trade, cents, size, side, step in events:
        ts += step
        price = 65_000 + 0.01 * cents
        if is_trade:
            assert state.update_trade(price, size, side, ts)
        else:
            assert state.update_quote(price - 0.5, price + 0.5, 1.0, 1.0, ts)
        for twin in twins:
            if is_trade:
                twin.trade(ts, price, size, side)
            else:
                twin.quote(ts, 0.5 * ((price - 0.5) + (price + 0.5)))
        row, ready = state.row().reshape(5, len(CLOCKS)), state.ready_columns.reshape(5, len(CLOCKS))
        for c, twin in enumerate(twins):
            assert ready[:, c].all() == bool(twin.closed), CLOCKS[c]
            if twin.closed:
                np.testing.assert_allclose(row[:, c], twin.closed[-1], rtol=1e-12, err_msg=CLOCKS[c])


def ticks(count: int, seed: int = 5) -> tuple[QuoteColumns, TradeColumns]:
    rng = np.random.default_rng(seed)
    ts = np.cumsum(rng.integers(0, 2 * 10**8, count)).astype(np.uint64) + np.uint64(10**15)
    mid = 65_000 + 0.1 * np.cumsum(rng.integers(-2, 3, count))
    quotes = QuoteColumns(ts, ts, mid - 0.05, mid + 0.05, rng.uniform(0.1, 5, count), rng.uniform(0.1, 5, count))
    at = np.sort(rng.integers(10**15, int(ts[-1]), count // 3)).astype(np.uint64)
    price = 65_000 + 0.1 * rng.integers(-9, 9, len(at))
    return quotes, TradeColumns(at, at, price, rng.uniform(0.1, 3, len(at)), rng.integers(-1, 2, len(at)))


def test_a_feature_of_prices_on_bars_is_that_feature_of_the_bars() -> None:
    """`rsi(5) @ 2s` equals rsi(5) of bars given from outside, when those bars are what the engine builds."""
    quotes, trades = ticks(3_000)
    inside = FeaturePlan(["rsi(5) @ 2s", "mid_return(3) @ 2s", "ema_difference(3, 6) @ 2s",
                          *(f"test_echo({k}) @ 2s" for k in range(6))])  # fmt: skip
    rows = inside.compute(quotes, trades)
    change = np.flatnonzero(np.diff(rows.values[:, -1]) != 0) + 1
    change = change[rows.values[change, -1] > 0]
    bars = rows.values[change, 3:8]
    outside = FeaturePlan(["rsi(5) @ bars", "mid_return(3) @ bars", "ema_difference(3, 6) @ bars"])
    ts = rows.ts[change]
    fed = outside.compute(bars=BarColumns(ts, ts, *bars.T), clock="bar")
    assert len(change) > 100
    assert np.array_equal(fed.values, rows.values[change, :3])


def test_a_feature_of_ticks_on_bars_is_sampled_at_the_close_and_held() -> None:
    quotes, trades = ticks(2_000, 7)
    plan = FeaturePlan(["imbalance @ 7 ticks", "imbalance", "signed_trade_flow(window=5) @ 7 ticks"])
    rows = plan.compute(quotes, trades)
    closes = np.arange(6, len(quotes), 7)
    held = np.repeat(rows.values[closes, 1], 7)
    count = min(len(held), len(rows.values) - 6)
    assert np.array_equal(rows.values[6 : 6 + count, 0], held[:count])
    assert (np.diff(rows.values[:, 2]) != 0).sum() <= len(closes)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_give_the_same_bits(chunk: int) -> None:
    quotes, trades = ticks(900, 11)
    names = ("rsi(3)", "test_echo(4)", "order_flow_imbalance(3)")
    plan = FeaturePlan([*(f"{name} @ {', '.join(CLOCKS)}" for name in names), "rsi(3) | clip(60)"])
    whole = plan.compute(quotes, trades)
    state, order = plan.state(), merge_order(trades.ts_init, quotes.ts_init)
    rows = []
    for begin in range(0, len(order.row), chunk):
        part = slice(begin, begin + chunk)
        t, q = order.row[part][order.source[part] == 0], order.row[part][order.source[part] == 1]
        some_trades = trades[t[0] : t[-1] + 1] if len(t) else None
        some_quotes = quotes[q[0] : q[-1] + 1] if len(q) else quotes[:0]
        rows.append(plan.compute(some_quotes, some_trades, state=state).values)
        state = state.copy()
    assert np.array_equal(np.vstack(rows), whole.values)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("1m", "1m"), ("60s", "1m"), ("1m trades", "1m trades"), ("500 ticks", "500 ticks"), ("500 trades", "500 trades"),
     ("10 volume", "10 volume"), ("1e6 dollars", "1000000 notional"), ("100 imbalance", "100 imbalance"),
     ("0.00001 volume", "1e-05 volume"), ("1e-12 notional", "1e-12 notional"),
     ("bars", "bars"), ("event", "event"), ("tick", "event"), ("1_000 ticks", "1000 ticks")],
)  # fmt: skip
def test_clock_text(text: str, shown: str) -> None:
    clock = parse_clock(text)
    assert str(clock) == shown
    assert parse_clock(shown) == clock
    spec = parse_spec(f"rsi(5) @ {text}")
    assert parse_spec(spec.canonical) == spec
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1ns",
        "8d",
        "0 ticks",
        "1.5 ticks",
        "1 imbalance",
        "-1 volume",
        "ticks 5",
        "1m quotes",
        "1e30 volume",
        "1M",
        "1 M trades",
        "1e-13 volume",
        "1e999 volume",
        "nan volume",
        "0 volume",
        "1 e5 volume",
    ],
)
def test_wrong_clocks_are_refused(text: str) -> None:
    with pytest.raises(FeatureExtractionError, match="`clock` must be"):
        parse_clock(text)


def test_bars_from_outside_make_longer_bars_of_the_intervals_that_they_end_in() -> None:
    """A bar bears the time of its end: five that end at 12:01 ... 12:05 are the bar from 12:00 to 12:05."""
    rng = np.random.default_rng(2)
    minute = 60 * SECOND
    start = 1_700_000_100 * SECOND  # a multiple of five minutes
    assert start % (5 * minute) == 0
    ts = (start + minute * np.arange(1, 61)).astype(np.uint64)
    ts = np.delete(ts, [7, 20, 21, 22, 23, 24, 29])  # a hole, a whole interval, and the last of one
    close = 100 + np.cumsum(rng.normal(0, 0.1, len(ts)))
    open_ = np.r_[100.0, close[:-1]]
    high, low = np.maximum(open_, close) + 0.05, np.minimum(open_, close) - 0.05
    volume = rng.uniform(1, 9, len(ts))
    bars = BarColumns(ts, ts, open_, high, low, close, volume)
    rows = FeaturePlan([f"test_echo({k}) @ 5m" for k in range(6)]).compute(bars=bars, clock="bar")
    group = -(-(ts - np.uint64(start)).astype(np.int64) // (5 * minute))  # the interval (begin, end] of each
    for i in range(len(ts)):
        # Known now: every interval whose end has come, with the bar that ends with it.
        done = [g for g in np.unique(group[: i + 1]) if start + g * 5 * minute <= ts[i]]
        if not done:
            assert not rows.values[i].any()
            continue
        part = np.flatnonzero(group == done[-1])
        wanted = [open_[part[0]], high[part].max(), low[part].min(), close[part[-1]], volume[part].sum(), len(done)]
        np.testing.assert_allclose(rows.values[i], wanted, rtol=1e-13)


def test_bars_beside_quotes_leave_the_clocks_of_ticks_alone() -> None:
    quotes, trades = ticks(600)
    at = quotes.ts_init[5::9]
    some = np.full(len(at), 5.0)
    bars = BarColumns(at, at, some, some + 1, some - 1, some, some)
    plan = FeaturePlan(["test_echo(3) @ 2s", "test_echo(4) @ 2s", "test_echo(3) @ 4 ticks", "rsi(3)"])
    assert np.array_equal(plan.compute(quotes, trades).values, plan.compute(quotes, trades, bars=bars).values)
    both = FeaturePlan(["test_echo(3) @ bars", "rsi(3)"]).compute(quotes, trades, bars=bars, clock="bar")
    assert (both.values[:, 0] == 5.0).all()


@pytest.mark.parametrize("start", [0, 10**18, 2**63 - 5 * 10**11, 2**64 - 10**12])
def test_the_time_it_starts_at_changes_nothing(start: int) -> None:
    """From 1970 to the end of uint64: the same ticks give the same numbers."""
    start = -(-start // SECOND) * SECOND  # as the clock is aligned
    rng = np.random.default_rng(9)
    step = np.cumsum(rng.integers(0, 10**9, 500)).astype(np.uint64)
    mid = 100 + 0.01 * np.cumsum(rng.integers(-3, 4, 500))
    plan = FeaturePlan(["rsi(3) @ 1s", "test_echo(3) @ 1s trades", "mid_return(lag='3s')", "realized_volatility('5s')",
                        "ema_difference('1s', '9s')", "mid_move_age", "trade_intensity('2s') @ 1s",
                        "rsi(3) @ 1s | zscore(9)"])  # fmt: skip
    found = []
    for begin in (10**15, start):
        ts = np.uint64(begin) + step
        one = np.ones(500)
        trades = TradeColumns(ts[::3], ts[::3], mid[::3], one[::3], np.ones(len(ts[::3]), np.int32))
        rows = plan.compute(QuoteColumns(ts, ts, mid - 0.01, mid + 0.01, one, one), trades)
        assert rows.ready[-1]
        found.append(rows.values.tobytes())
    assert found[0] == found[1]


def test_the_end_of_time() -> None:
    state = FeaturePlan(["test_echo(3) @ 7d", "test_echo(5) @ 1s", "test_echo(5) @ 3s trades"]).state()
    for back in (5, 4, 3, 2, 1, 1):
        assert state.update_quote(9.0, 11.0, 1, 1, 2**64 - back)
        assert state.update_trade(10.0, 1, 1, 2**64 - back)
    assert not state.update_quote(9.0, 11.0, 1, 1, 0)
    assert state.row().tolist() == [10.0, 1.0, 1.0]  # what is under way ends with time itself, once


@pytest.mark.parametrize("at", [1, 50, 333, 334, 335, 336, 499])
def test_copies_and_bytes_in_the_middle_of_bars(at: int) -> None:
    quotes, trades = ticks(500, 21)
    names = ("rsi(3)", "test_echo(4)", "order_flow_imbalance(3)", "signed_trade_flow('2s')")
    plan = FeaturePlan([*(f"{name} @ {', '.join(CLOCKS)}" for name in names), "rsi(3) @ 4 ticks | zscore(3)"])
    cut = int(np.searchsorted(trades.ts_init, quotes.ts_init[at]))
    state, loaded = plan.state(), plan.state()
    plan.compute(quotes[:at], trades[:cut], state=state)
    copied = state.copy()
    loaded.update_quote(1, 2, 3, 4, 5)  # what it held before must not matter
    loaded.from_bytes(state.to_bytes())
    rest = [plan.compute(quotes[at:], trades[cut:], state=s).values.tobytes() for s in (state, copied, loaded)]
    assert rest[0] == rest[1] == rest[2]
    assert state.to_bytes() == copied.to_bytes() == loaded.to_bytes()
    state.reset()
    assert state.to_bytes() == plan.state().to_bytes()


def test_one_text_with_several_clocks() -> None:
    specs = parse_specs("rsi(14) @ 1s, 1m, 500 ticks | clip(60)")
    assert [str(spec.clock) for spec in specs] == ["1s", "1m", "500 ticks"]
    plan = FeaturePlan(["rsi(14) @ 1s, 1m, 500 ticks"])
    assert plan.width == 3
    assert "Wilder's averages(14) @ 500 ticks" in plan.explain()
    with pytest.raises(FeatureExtractionError, match="must name one clock"):
        parse_spec("rsi @ 1s, 1m")
    with pytest.raises(FeatureExtractionError, match="one `@`"):
        parse_spec("rsi @ 1s @ 2s")


def test_what_is_shared() -> None:
    plan = FeaturePlan(["rsi(14)", "rsi(14) | clip(60)", "rsi(14) @ 1m", "order_flow_imbalance(5)",
                        "order_flow_imbalance(5) @ 1m", "order_flow_imbalance(5, normalise=0) @ 5m"])  # fmt: skip
    text = plan.explain()
    assert "6 features, 3 machines" in text  # RSI per clock; one order flow for all clocks
    assert "3 column(s)" in text
