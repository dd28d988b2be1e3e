"""Rules that hold for every feature: live equals research, exact copies, no drift, counters, ring overflow, float32."""

from __future__ import annotations

import copy
import math
import pickle
import resource

import numpy as np
import pytest
from feature_names import EVERY
from support import sample_data

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FeaturePlan
from tengri_fast.market.columns import BarColumns, DepthColumns, QuoteColumns, TradeColumns, merge_order

SPECS = [*EVERY, "mid_return(lag='250ms')", "order_flow_imbalance(window='2s', levels=3)", "spread(tick=0.1)",
         "ema_difference(fast='1s', slow='5s')", "last_move_direction(half_life='1s')",
         "realized_volatility(window=50)", "signed_trade_flow(window=20)"]  # fmt: skip


def sample(rows: int = 12_000):
    read = pytest.importorskip("pyarrow.parquet", reason="reading the sample needs pyarrow").read_table
    name = "binance_usdm_btcusdt_20240719"
    q = read(sample_data(f"{name}.quotes.parquet")).slice(0, rows)
    t = read(sample_data(f"{name}.trades.parquet"))
    q = {c: q[c].to_numpy() for c in q.column_names}
    t = {c: t[c].to_numpy() for c in t.column_names}
    t = {c: v[t["ts_ns"] <= q["ts_ns"][-1]] for c, v in t.items()}
    quotes = QuoteColumns(q["ts_ns"], q["ts_ns"], q["bid_price_0"], q["ask_price_0"], q["bid_size_0"], q["ask_size_0"])
    trades = TradeColumns(t["ts_ns"], t["ts_ns"], t["price"], t["size"], t["aggressor"])
    steps = np.arange(3) * 0.1
    depth = DepthColumns(
        q["ts_ns"][::7], q["ts_ns"][::7], q["bid_price_0"][::7, None] - steps, q["ask_price_0"][::7, None] + steps,
        q["bid_size_0"][::7, None] * [1, 2, 3], q["ask_size_0"][::7, None] * [1, 3, 2],
    )  # fmt: skip
    return quotes, trades, depth


def hostile(seed: int = 11, n: int = 3_000):
    rng = np.random.default_rng(seed)
    bad = np.array([math.nan, math.inf, -math.inf, 0.0, -1.0, 1e12, 1e-12, 1e300])

    def spoil(values):
        values = values.copy()
        at = rng.random(values.shape) < 0.02
        values[at] = rng.choice(bad, at.sum())
        return values

    ts = np.cumsum(rng.integers(-(10**6), 10**8, n)).astype(np.int64) + 10**12
    bid = 65_000 + 0.01 * rng.integers(-3, 4, n)
    ask = bid + 0.01 * rng.integers(-1, 3, n)
    quotes = QuoteColumns(ts, np.sort(ts), spoil(bid), spoil(ask), spoil(rng.random(n)), spoil(rng.random(n)))
    trades = TradeColumns(ts + 5, np.sort(ts), spoil(bid), spoil(rng.random(n)), rng.integers(-1, 2, n))
    steps = 0.01 * np.arange(4)
    depth = DepthColumns(ts, np.sort(ts), spoil(bid[:, None] - steps), spoil(ask[:, None] + steps),
                         spoil(rng.random((n, 4))), spoil(rng.random((n, 4))))  # fmt: skip
    bars = BarColumns(ts, np.sort(ts), spoil(bid), spoil(ask), spoil(bid), spoil(bid), spoil(rng.random(n)))
    return quotes, trades, depth, bars


def live(plan: FeaturePlan, quotes, trades, depth, bars, clock: str):
    """Event by event through the public state, in merge order."""
    state, rows = plan.state(), []
    streams = [trades, quotes, depth, bars]
    order = merge_order(*(np.empty(0, np.uint64) if s is None else s.ts_init for s in streams))
    for source, i in zip(order.source.tolist(), order.row.tolist(), strict=True):
        s = streams[source]
        if source == 0:
            ok = state.update_trade(s.price[i], s.size[i], s.aggressor[i], s.ts_event[i])
        elif source == 1:
            ok = state.update_quote(s.bid_price[i], s.ask_price[i], s.bid_size[i], s.ask_size[i], s.ts_event[i])
        elif source == 2:
            ok = state.update_depth(s.bid_price[i], s.bid_size[i], s.ask_price[i], s.ask_size[i], s.ts_event[i])
        else:
            ok = state.update_bar(s.open[i], s.high[i], s.low[i], s.close[i], s.volume[i], s.ts_event[i])
        if ok and source == ("trade", "quote", "depth", "bar").index(clock):
            rows.append((s.ts_event[i], state.row(), state.ready, state.mid, i))
    return state, rows


@pytest.mark.parametrize("data", ["sample", "hostile"])
@pytest.mark.parametrize("clock", ["quote", "trade", "depth", "bar"])
def test_live_and_research_are_the_same_bits(data: str, clock: str) -> None:
    quotes, trades, depth, bars = (*sample(3_000), None) if data == "sample" else hostile(n=1_000)
    if clock == "bar" and bars is None:
        pytest.skip("the sample has no bars")
    plan = FeaturePlan(SPECS)
    state, rows = live(plan, quotes, trades, depth, bars, clock)
    out = plan.compute(quotes, trades, depth, clock, bars=bars)
    assert len(rows) == len(out.ts) > 100
    assert np.array([r[1] for r in rows]).tobytes() == out.values.tobytes()
    assert [r[0] for r in rows] == out.ts.tolist()
    assert [r[2] for r in rows] == out.ready.tolist()
    assert [r[3] for r in rows] == out.mid.tolist()
    assert [r[4] for r in rows] == out.origin.tolist()
    assert state.counters == out.counters
    assert np.isfinite(out.values).all()
    if data == "hostile":
        assert min(out.counters[:4]) > 0, out.counters


@pytest.mark.parametrize("size", [1, 7, 100])
def test_chunks_are_the_same_bits(size: int) -> None:
    quotes = sample(2_000)[0]
    plan = FeaturePlan(SPECS)
    whole = plan.compute(quotes)
    state = plan.state()
    parts = [plan.compute(quotes[at : at + size], state=state) for at in range(0, len(quotes), size)]
    assert np.concatenate([p.values for p in parts]).tobytes() == whole.values.tobytes()
    assert parts[-1].counters == whole.counters


def test_copy_bytes_and_reset_mid_stream_are_exact() -> None:
    quotes, trades, depth = sample(3_000)
    plan = FeaturePlan(SPECS)
    state = plan.state()
    cut = slice(0, 1_500), slice(1_500, 3_000)
    first = plan.compute(quotes[cut[0]], trades[:100], depth[:80], state=state)
    twin = state.copy()
    loaded = plan.state()
    data = state.to_bytes()
    loaded.from_bytes(data)
    rests = [plan.compute(quotes[cut[1]], trades[100:], depth[80:], state=s) for s in (state, twin, loaded)]
    assert rests[0].values.tobytes() == rests[1].values.tobytes() == rests[2].values.tobytes()
    assert rests[0].counters == rests[1].counters == rests[2].counters
    assert state.to_bytes() == twin.to_bytes() == loaded.to_bytes() != data
    state.reset()
    assert state.counters == (0, 0, 0, 0, 0)
    again = plan.compute(quotes[cut[0]], trades[:100], depth[:80], state=state)
    assert again.values.tobytes() == first.values.tobytes()


def test_saved_state_is_refused_when_it_does_not_fit() -> None:
    plan = FeaturePlan(["rsi", "imbalance"])
    state = plan.state()
    state.update_quote(1, 2, 3, 4, 5)
    data, before = state.to_bytes(), state.to_bytes()
    for at in (0, 5, 20, 60, len(data) // 2, len(data) - 1):
        spoilt = bytearray(data)
        spoilt[at] ^= 1
        with pytest.raises(FeatureExtractionError, match="`data` must"):
            state.from_bytes(bytes(spoilt))
    for size in (0, 10, len(data) - 1):
        with pytest.raises(FeatureExtractionError, match=f"must have {len(data)} bytes, had {size}"):
            state.from_bytes(data[:size])
    with pytest.raises(FeatureExtractionError, match="must be a state of this plan and normalisation"):
        plan.with_normalisation(1.0, 2.0).state().from_bytes(data)
    other = FeaturePlan(["rsi(15)", "imbalance"])
    with pytest.raises(FeatureExtractionError, match="must belong to plan"):
        other.state().from_bytes(data)
    assert state.to_bytes() == before


def test_pickling_raises() -> None:
    plan = FeaturePlan("rsi")
    for value in (plan, plan.state()):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(value)
        with pytest.raises(TypeError, match="cannot be pickled"):
            copy.copy(value)


def test_rolling_sums_do_not_drift_over_a_million_events() -> None:
    n = 1_000_000
    rng = np.random.default_rng(3)
    ts = np.cumsum(rng.integers(0, 2_000_000, n)) + 10**12
    bid = 65_000 + 0.01 * np.cumsum(rng.integers(-1, 2, n))
    # Sizes over 12 decades: an accumulator that only adds and subtracts loses the small ones for good.
    sizes = 10.0 ** rng.uniform(-6, 6, (2, n))
    quotes = QuoteColumns(ts, ts, bid, bid + 0.01, *sizes)
    plan = FeaturePlan(["order_flow_imbalance(window='1s', normalise=0)", "realized_volatility(window='1s')",
                        "order_flow_imbalance(window=500)"])  # fmt: skip
    out = plan.compute(quotes)
    assert out.counters.overflow == 0
    ask = bid + 0.01
    flow = np.r_[0.0, (bid[1:] >= bid[:-1]) * sizes[0, 1:] - (bid[1:] <= bid[:-1]) * sizes[0, :-1]
                 - (ask[1:] <= ask[:-1]) * sizes[1, 1:] + (ask[1:] >= ask[:-1]) * sizes[1, :-1]]  # fmt: skip
    mid = 0.5 * (bid + ask)
    squares = np.r_[0.0, (1e4 * np.log1p(np.diff(mid) / mid[:-1])) ** 2]
    for at in (5_000, 99_999, 500_000, 777_777, n - 1):
        inside = slice(np.searchsorted(ts, ts[at] - 10**9, side="right"), at + 1)
        wanted = math.fsum(flow[inside])
        assert math.isclose(out.values[at, 0], wanted, rel_tol=1e-12, abs_tol=1e-12 * np.abs(flow[inside]).max())
        assert math.isclose(out.values[at, 1], math.sqrt(math.fsum(squares[inside])), rel_tol=1e-12)
        last = slice(at - 499, at + 1)
        wanted = math.fsum(flow[last]) / (math.fsum(0.5 * (sizes[0, last] + sizes[1, last])) / 500)
        assert math.isclose(out.values[at, 2], wanted, rel_tol=1e-11, abs_tol=1e-11)


def test_a_huge_size_leaves_no_trace_once_it_has_left_the_window() -> None:
    state = FeaturePlan(["order_flow_imbalance(window=4, normalise=0)"]).state()
    for ts, size in enumerate((1e-6, 1e15, 1e-6, 1e-6, 1e-6, 1e-6, 1e-6, 3e-6, 1e-6, 2e-6)):
        state.update_quote(100.0, 101.0, size, 1.0, ts)
    assert math.isclose(state.row()[0], 1e-6, rel_tol=1e-12)  # 2e-6 now minus 1e-6 four events ago


def test_a_full_ring_keeps_the_latest_entries_and_counts() -> None:
    plan = FeaturePlan(["signed_trade_flow(window='1m', capacity=16)", "mid_return(lag='1m', capacity=16)"])
    state = plan.state()
    sides = np.random.default_rng(0).integers(-1, 2, 100)
    for i, side in enumerate(sides.tolist()):
        state.update_trade(100.0, 1.0 + i % 3, side, i)
        state.update_quote(100.0 + i, 101.0 + i, 1, 1, i)
    assert state.counters.overflow == 2 * (100 - 16)
    state.update_quote(200.0, 201.0, 1, 1, 59_999_999_999)  # everything is still inside the minute
    sizes = 1.0 + np.arange(100) % 3
    assert state.row()[0] == 0.0  # the minute has not passed
    state.update_quote(200.0, 201.0, 1, 1, 60_000_000_000)
    ready = state.ready_columns
    assert ready.all()
    last = slice(84, 100)
    assert math.isclose(state.row()[0], float((sides * sizes)[last].sum() / sizes[last].sum()), rel_tol=1e-12)


def test_float32_is_the_last_step_and_saturates() -> None:
    plan = FeaturePlan(["imbalance", "spread", "order_flow_imbalance(window=1, normalise=0)"],
                       ((0.5, 0.0, 0.0), (0.25, 2.0, 1e-30), (1.5, 0.0, 0.0)))  # fmt: skip
    state = plan.state()
    state.update_quote(99.0, 101.0, 3.0, 1.0, 1)
    out = np.full(3, np.nan, np.float32)
    assert state.emit(out)
    assert out.tolist() == [np.float32((0.5 - 0.5) / 0.25), np.float32(200.0 / 2.0), 0.0]
    state.update_quote(99.0, 101.0, 1e15, 0.0, 2)
    assert not state.emit(out), "1e15 / 1e-30 is beyond float32"
    assert out.tolist() == [1.5, 100.0, float(np.finfo(np.float32).max)]
    assert plan.normalise(state.row()[None, :]).tolist() == [out.tolist()]
    with pytest.raises(FeatureExtractionError, match="`out` must have 3 entries, had 2"):
        state.emit(np.zeros(2, np.float32))


def test_normalise_is_the_arithmetic_of_emit() -> None:
    quotes, trades, depth = sample(2_000)
    raw = FeaturePlan(SPECS).compute(quotes, trades, depth)
    mean, scale = raw.values.mean(0), raw.values.std(0) + 1e-3
    plan = FeaturePlan(SPECS, (mean, scale, 4.0))
    rows = plan.normalise(raw.values)
    assert rows.dtype == np.float32
    assert np.abs(rows).max() <= 4.0
    assert np.array_equal(rows, np.clip((raw.values - mean) / scale, -4, 4).astype(np.float32))
    state = plan.state()
    final = plan.compute(quotes, trades, depth, state=state)
    assert final.values.tobytes() == raw.values.tobytes(), "values are raw whatever the normalisation"
    out = np.empty(plan.width, np.float32)
    state.emit(out)
    assert out.tobytes() == plan.normalise(state.row()[None])[0].tobytes()


def test_rsi_and_ema_agree_with_talib() -> None:
    talib = pytest.importorskip("talib", reason="TA-Lib is the second oracle")
    rng = np.random.default_rng(8)
    mid = 65_000 + 0.05 * np.cumsum(rng.integers(-3, 4, 4_000))
    ts = np.arange(len(mid)) + 1
    one = np.ones(len(mid))
    plan = FeaturePlan(["rsi(14)", "ema_difference(fast=12, slow=26)"])
    out = plan.compute(QuoteColumns(ts, ts, mid - 0.05, mid + 0.05, one, one))
    wanted = talib.RSI(0.5 * ((mid - 0.05) + (mid + 0.05)), 14)
    assert np.allclose(out.values[14:, 0], wanted[14:], rtol=0, atol=1e-9)
    fast, slow = talib.EMA(mid, 12), talib.EMA(mid, 26)
    # TA-Lib starts from a simple mean, ours from the first mid: the difference fades by (1 - 2/27) a step.
    assert np.allclose(out.values[1_000:, 1], 1e4 * np.log(fast / slow)[1_000:], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "numbers",
    [
        (math.nan, 1, 1, 1), (1, math.inf, 1, 1), (0, 1, 1, 1), (-1, 1, 1, 1), (1, 1, math.nan, 1), (1, 1, 1, -1),
        (1, 1, 1, math.inf), (1e300, 1e300, 1, 1), (5e-324, 1, 1, 1), (1, 2, 1e19, 1),
    ],
)  # fmt: skip
def test_invalid_quotes_change_nothing_but_a_counter(numbers) -> None:
    state = FeaturePlan(SPECS).state()
    state.update_quote(10, 11, 1, 1, 100)
    state.update_trade(10, 1, 1, 101)
    before, counters = state.row(), state.counters
    assert not state.update_quote(*numbers, 200)
    assert state.row().tobytes() == before.tobytes()
    assert state.counters == counters._replace(invalid=1)


def test_crossed_locked_backward_and_late_events() -> None:
    state = FeaturePlan(["imbalance", "time_since_trade"]).state()
    assert state.update_quote(10, 11, 1, 1, 100)
    assert not state.update_quote(12, 11, 9, 1, 110)  # crossed: held
    assert state.mid == 10.5
    assert state.update_quote(11, 11, 1, 3, 110)  # locked: a book like any other
    assert state.spread == 0
    assert not state.update_quote(10, 11, 1, 1, 109)  # backward
    assert state.update_quote(10, 11, 1, 1, 110)  # the same time again
    assert state.update_trade(10, 1, 1, 50)  # late, but the first of its own stream
    assert not state.update_trade(10, 1, 1, 49)
    assert state.counters == (4, 1, 2, 0, 0)


def test_the_hot_path_allocates_nothing() -> None:
    """Peak memory stands still and no page is asked for over 300,000 events after the first."""
    state = FeaturePlan(SPECS).state()
    out = np.empty(len(SPECS), np.float32)

    def run(first: int, count: int) -> None:
        for i in range(first, first + count):
            state.update_quote(100.0 + i % 7, 108.0, 1.0, 2.0, i * 1_000_000)
            state.update_trade(101.0, 1.0, 1, i * 1_000_000)
            state.emit(out)

    run(0, 20_000)
    before = resource.getrusage(resource.RUSAGE_SELF)
    run(20_000, 100_000)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss <= 256
