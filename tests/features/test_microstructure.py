"""Microstructure features against plain twins that recompute them from the whole history, on hostile event streams."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_history import SECOND
from microstructure_twin import Twin, twin_of
from support import REPOSITORY

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FEATURES, FeaturePlan, parse_spec
from tengri_fast.market.columns import QuoteColumns, TradeColumns

SPECS = [
    "mid",
    "microprice",
    "queue_imbalance",
    "queue_imbalance(level=3)",
    "depth(levels=3)",
    "depth(levels=10, side=-1, log=0)",
    "depth(levels=2, side=1)",
    "depth_within(bps=0.01, side=1)",
    "depth_within(bps=5, log=0)",
    "imbalance_within(bps=0.02)",
    "book_pressure(scale=0.01)",
    "book_slope(levels=4)",
    "book_slope(levels=10, side=1, log=0)",
    "book_slope(levels=4, side=-1)",
    "book_slope_imbalance(levels=4)",
    "depth_price_deviation(levels=3)",
    "quote_age",
    "quote_age(sizes=0)",
    "quote_intensity(half_life='700ms')",
    "order_flow_ratio(window='2s')",
    "order_flow_ratio(window=3)",
    "queue_flow(window=4)",
    "queue_flow(window='3s', side=-1)",
    "spread_zscore(window=5)",
    "spread_zscore(window='2s')",
    "spread_rank(window=6)",
    "spread_rank(window='3s')",
    "spread_regime(window=6, low=0.3, high=0.6)",
    "trade_sign",
    "trade_sign(infer=0)",
    "last_trade_deviation",
    "trade_imbalance(window=4)",
    "trade_imbalance(window='3s', infer=0)",
    "buy_ratio(window=4)",
    "buy_ratio(window='3s', infer=0)",
    "signed_volume(half_life='2s')",
    "signed_volume(half_life='1s', infer=0, normalise=0)",
    "buy_intensity(half_life='700ms')",
    "sell_intensity(half_life='2s', infer=0)",
    "intensity_imbalance(half_life='1s')",
    "trade_duration(period=3)",
    "trade_clustering(period=4)",
    "effective_spread(window=3)",
    "effective_spread(window='2s')",
    "realized_spread(horizon='1s', window=5)",
    "realized_spread(horizon='300ms', window='3s', infer=0)",
    "roll_spread(window=4)",
    "roll_spread(window='4s')",
    "point_of_control(window='5s', tick=0.01, bins=16)",
    "point_of_control(window=5)",
    "value_area_high(window='5s', tick=0.01, bins=16)",
    "value_area_low(window='5s', tick=0.01, bins=16)",
    "value_area_low(window=7, tick=0.02, bins=9)",
    "in_value_area(window='5s', tick=0.01, bins=16)",
    "profile_share(window='5s', tick=0.01, bins=16)",
    "realized_variance(window=4)",
    "realized_variance(window='2s')",
    "realized_variance(window=3) @ 1s",
    "bipower_variation(window=5)",
    "bipower_variation(window='3s') @ 2 ticks",
    "jump_share(window=5)",
    "jump_share(window=4) @ 1s",
    "jump_test(window=8)",
    "jump_test(window='5s') @ 2 ticks",
    "realized_semivariance(window=5)",
    "realized_semivariance(window=5, side=1)",
    "semivariance_imbalance(window='4s')",
    "realized_skewness(window=6)",
    "return_autocorrelation(window=6)",
    "return_autocorrelation(window='5s') @ 1s",
    "variance_ratio(window=8, q=3)",
    "variance_ratio(window='6s', q=2) @ 2 ticks",
    "kyle_lambda(window=6)",
    "kyle_lambda(window='5s', intercept=1)",
    "kyle_lambda(window=5, intercept=1) @ 1s",
    "impact_correlation(window=6)",
    "impact_correlation(window='8s') @ 1s",
    "amihud(window=5)",
    "amihud(window='5s') @ 2 ticks",
    "corwin_schultz(window=3) @ 1s",
    "corwin_schultz(window='6s') @ 3 ticks",
    "vpin(bucket=20, buckets=4)",
    "vpin(bucket=1.1, buckets=7, infer=0)",
    "bulk_vpin(bucket=20, buckets=3, period=4)",
    "bulk_vpin(bucket=15, buckets=2, period=5) @ 1s",
]
CLOCKS = ("1s", "2 ticks", "3 ticks")
OURS = {parse_spec(text).name for text in SPECS}

ODD = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e12, 1e-12, 5e-324, 1e300])
PRICE = st.one_of(
    st.integers(-6, 6).map(lambda k: 65_000 + 0.01 * k),
    st.integers(-6, 6).map(lambda k: 65_000 + 0.01 * k),
    st.integers(-6, 6).map(lambda k: 65_000 + 0.01 * k),
    st.floats(1e-3, 1e6),
    ODD,
)
SIZE = st.one_of(st.floats(0.001, 50), st.integers(0, 5).map(float), st.integers(0, 5).map(float), ODD)
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
    st.tuples(st.just("trade"), PRICE, SIZE, st.sampled_from([-1, 0, 1])),
    st.tuples(st.just("depth"), ladder(-1), ladder(1)),
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


def compare(plan: FeaturePlan, state, twin: Twin, where: object) -> tuple[int, int]:
    """Every column against its twin; says how many said nothing because sums had lost their digits, of how many."""
    row, ready = state.row(), state.ready_columns
    assert np.isfinite(row).all(), where
    silent = said = 0
    for i, spec in enumerate(plan.specs):
        wanted_ready, wanted, error = twin.value(spec)
        assert ready[i] == wanted_ready, (str(spec), where)
        if not wanted_ready:
            assert row[i] == 0.0, (str(spec), where)
            continue
        said += 1
        silent += error == math.inf
        ours = float(row[i])
        assert abs(ours - wanted) <= 1e-9 * max(1.0, abs(wanted)) + error, (str(spec), ours, wanted, error, where)
    return silent, said


def test_every_row_has_a_twin_and_a_spec_here() -> None:
    table = (REPOSITORY / "csrc" / "features" / "microstructure.def").read_text()
    rows = set(re.findall(r"^TF_FEATURE\([A-Z_]+, ([a-z_]+),", table, re.MULTILINE))
    assert rows == OURS
    assert len(rows) > 40
    assert all(hasattr(Twin, twin_of(name)) and name in FEATURES for name in rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.tuples(EVENT, STEP), min_size=1, max_size=40))
def test_hostile_streams(events) -> None:
    plan = FeaturePlan(SPECS)
    state, twin, ts = plan.state(), Twin(CLOCKS), 10**12
    for k, (event, step) in enumerate(events):
        ts = max(0, ts + step)
        ours, theirs = feed(state, twin, event, ts)
        assert ours == theirs, (k, event)
        if twin.clock is not None:
            compare(plan, state, twin, (k, event, ts))


def stream(seed: int, count: int, tick: float = 0.01, start: float = 65_000.0):
    """A walk with trades on both sides, some without a known aggressor, quotes that repeat, and gaps."""
    rng = np.random.default_rng(seed)
    ts, steps = 10**12, 0
    for _ in range(count):
        ts += int(rng.exponential(3e8)) * int(rng.random() < 0.9) + 8 * SECOND * int(rng.random() < 0.01)
        steps += int(rng.integers(-2, 3)) * int(rng.random() < 0.5)
        half = int(rng.integers(0, 4))
        sizes = rng.integers(1, 400, 20) / 8
        kind = rng.random()
        bid, ask = start + tick * (steps - half), start + tick * (steps + half)
        if kind < 0.35:
            yield ("quote", bid, ask, sizes[0], sizes[1] * (rng.random() < 0.9)), ts
        elif kind < 0.75:
            price = start + tick * (steps + int(rng.integers(-2, 3)))
            yield ("trade", price, sizes[0], int(rng.integers(-1, 2))), ts
        else:
            levels = int(rng.integers(1, 10))
            yield ("depth", [(bid - tick * i, sizes[i]) for i in range(levels)],
                   [(ask + tick * i, sizes[10 + i]) for i in range(levels)]), ts  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "tick", "start"), [(1, 0.01, 65_000.0), (2, 1e-16, 1e-12), (3, 2e8, 1e12), (4, 1, 300)]
)
def test_realistic_stream(seed: int, tick: float, start: float) -> None:
    """At four scales; bins of a hundredth become those of the scale, or the default where they would be too narrow."""
    width = {"0.01": tick, "0.02": 2 * tick} if tick > 1e-12 else {"0.01": 0.0, "0.02": 0.0}
    specs = list(dict.fromkeys(re.sub(r"tick=([0-9.]+)", lambda m: f"tick={width[m[1]]:g}", text) for text in SPECS))
    plan = FeaturePlan(specs)
    state, twin = plan.state(), Twin(CLOCKS)
    seen: list[set] = [set() for _ in specs]
    silent = said = 0
    for k, (event, ts) in enumerate(stream(seed, 250, tick, start)):
        ours, theirs = feed(state, twin, event, ts)
        assert ours == theirs
        if k % 9 == 0 or k < 20 or k > 240:
            found = compare(plan, state, twin, (seed, k, event))
            silent, said = silent + found[0], said + found[1]
        for values, value in zip(seen, state.row(), strict=True):
            values.add(float(value))
    assert state.ready
    assert silent < 0.01 * said, "the twin must have something to say"
    few = {"trade_sign": 2, "in_value_area": 2, "spread_regime": 3, "trade_imbalance": 4}
    for spec, values in zip(plan.specs, seen, strict=True):
        assert len(values) >= few.get(spec.name, 6), f"{spec} must vary"


def test_bars_alone_make_the_book() -> None:
    plan = FeaturePlan([text for text in SPECS if "@" not in text])
    state, twin = plan.state(), Twin()
    rng = np.random.default_rng(5)
    for k in range(40):
        low, high = sorted(rng.uniform(90, 110, 2))
        opened, close = rng.uniform(low, high, 2)
        feed(state, twin, ("bar", opened, high, low, close, 3.0 * (k % 4)), 10**12 + k * SECOND // 3)
        if k % 5 == 2:
            feed(state, twin, ("trade", close, 2.0, 0), 10**12 + k * SECOND // 3)
        compare(plan, state, twin, k)
    feed(state, twin, ("quote", 99.0, 101.0, 1.0, 1.0), 10**12 + 60 * SECOND)
    compare(plan, state, twin, "after a quote")


# --- values that can be read off by hand ---


def last(spec: str, events: list, *, clock: str = "", ready: bool = True) -> float:
    plan = FeaturePlan([spec + clock])
    state = plan.state()
    for k, event in enumerate(events):
        kind, *rest = event
        assert getattr(state, f"update_{kind}")(*rest, 10**12 + k * SECOND)
    assert state.ready == ready
    return float(state.row()[0])


def test_a_jump_is_seen_and_its_share_is_exact() -> None:
    """One return of 1 % among alternating ones of 1 bps: RV is known, and almost all of it is the jump."""
    mids = [100.0]
    for k in range(60):
        mids.append(mids[-1] * math.exp((100.0 if k == 30 else (-1) ** k) / 1e4))
    quotes = [("quote", m, m, 1.0, 1.0) for m in mids]
    rv = 59 * 1.0 + 100.0**2
    assert last("realized_variance(60)", quotes) == pytest.approx(rv, rel=1e-9)
    bv = math.pi / 2 * (57 * 1.0 + 2 * 100.0)
    assert last("jump_share(60)", quotes) == pytest.approx(1 - bv / rv, rel=1e-9)
    assert last("jump_test(60)", quotes) > 5
    assert last("jump_test(29)", quotes[:31]) < 0, "pi/2 > 1: without a jump equal moves give more BV than RV"


def test_roll_recovers_the_spread_of_a_bounce() -> None:
    """Trades at random sides of a spread of 10 bps around a constant value."""
    sides = np.random.default_rng(3).choice([-1.0, 1.0], 4_000)
    trades = [("trade", 100 * math.exp(5e-4 * s), 1.0, 0) for s in sides]
    assert last("roll_spread(3000)", trades) == pytest.approx(10, rel=0.05)
    assert last("roll_spread(3)", [("trade", 100.0 + k, 1.0, 0) for k in range(6)]) == pytest.approx(0, abs=1)


def test_lambda_recovers_an_impact() -> None:
    events, log_price, rng = [], math.log(100), np.random.default_rng(4)
    flows = []
    for _ in range(400):
        size, side = float(rng.integers(1, 9)), int(rng.choice([-1, 1]))
        log_price += 0.3e-4 * side * size
        mid = math.exp(log_price)
        events += [("trade", mid, size, side), ("quote", mid, mid, 1.0, 1.0)]
        flows.append(side * size)
    assert last("kyle_lambda(300)", events) == pytest.approx(0.3, rel=1e-9)
    assert last("kyle_lambda(300, intercept=1)", events) == pytest.approx(0.3, rel=1e-9)
    assert last("impact_correlation(300)", events) == pytest.approx(1, rel=1e-9)


def test_vpin_by_hand() -> None:
    """Buckets of 10: |7 - 3|, |0 - 10|, |5 - 5| with the unknown half split."""
    trades = [("trade", 1.0, 7.0, 1), ("trade", 1.0, 8.0, -1), ("trade", 1.0, 5.0, -1)]
    trades += [("trade", 1.0, 10.0, 0), ("trade", 1.0, 9.0, 1)]
    assert last("vpin(10, buckets=3, infer=0)", trades) == pytest.approx((4 + 10 + 0) / 30)
    assert last("vpin(10, buckets=4, infer=0)", trades, ready=False) == 0.0
    assert last("vpin(10, buckets=50)", [("trade", 1.0, 1e15, -1)]) == 1.0
    tenths = [("trade", 1.0, 0.1, 1 if k % 10 < 8 else -1) for k in range(50)]
    assert last("vpin(1, buckets=5)", tenths) == pytest.approx(0.6, rel=1e-6)


def test_value_area_by_hand() -> None:
    """Volumes 1 5 3 2 1 at 98 .. 102: control 99; 3 and 2 join before 1 on the left makes 10 of 12."""
    trades = [("trade", p, v, 1) for p, v in [(98.0, 1.0), (99.0, 5.0), (100.0, 3.0), (101.0, 2.0), (102.0, 1.0)]]
    events = [("quote", 99.0, 101.0, 1.0, 1.0), *trades]
    at = {"tick": 1, "bins": 16}
    text = ", ".join(f"{k}={v}" for k, v in at.items())
    assert last(f"point_of_control(5, {text})", events) == pytest.approx(-100)
    assert last(f"value_area_high(5, {text})", events) == pytest.approx(100)
    assert last(f"value_area_low(5, {text})", events) == pytest.approx(-100)
    assert last(f"in_value_area(5, {text})", events) == 1.0
    assert last(f"profile_share(5, {text})", events) == pytest.approx(3 / 12)
    away = [*events, ("quote", 102.0, 104.0, 1.0, 1.0)]
    assert last(f"in_value_area(5, {text})", away) == 0.0


def test_histogram_moves_with_the_price_and_counts_what_leaves() -> None:
    plan = FeaturePlan(["point_of_control(100, tick=1, bins=8)", "profile_share(100, tick=1, bins=8)"])
    state = plan.state()
    for k in range(4):
        state.update_trade(100.0 + k, 5.0, 1, 10**12 + k)
    assert state.counters.overflow == 0
    state.update_trade(104.0, 5.0, 1, 10**12 + 4)  # the histogram was 96 .. 103 and is 100 .. 107 now
    assert state.counters.overflow == 0
    state.update_trade(110.0, 5.0, 1, 10**12 + 5)  # 106 .. 113: five trades have left
    assert state.counters.overflow == 5
    state.update_trade(103.0, 1.0, 1, 10**12 + 6)  # 99 .. 106: what left does not come back
    assert state.counters.overflow == 6
    state.update_quote(103.0, 103.0, 1.0, 1.0, 10**12 + 7)
    for k in range(93):
        state.update_trade(103.0, 1.0, 1, 10**12 + 10 + k)
    row = state.row()
    assert row[0] == 0.0
    assert row[1] == 1.0
    for k in range(100):  # and the old entries leave the ring without being taken out twice
        state.update_trade(103.0, 1.0, 1, 10**12 + 200 + k)
        assert state.row()[1] == 1.0


def test_full_rings_are_counted() -> None:
    specs = [s.replace("window='2s'", "window='1h', capacity=16") for s in SPECS if "'2s'" in s and "half" not in s]
    specs += ["trade_imbalance('1h', capacity=16)", "roll_spread('1h', capacity=16)", "jump_test('1h', capacity=16)"]
    specs += ["point_of_control('1h', tick=0.01, capacity=16)", "spread_rank('1h', capacity=16)"]
    specs += ["realized_spread('1h', capacity=16)", "realized_spread('10ms', window='1h', capacity=16)"]
    specs = [s for s in specs if "zscore" not in s]
    assert len(specs) > 7
    for spec in specs:
        state = FeaturePlan([spec]).state()
        for event, ts in stream(9, 120):
            feed(state, Twin(), event, ts)
        assert state.counters.overflow > 10, spec
        assert np.isfinite(state.row()).all()


def test_nothing_drifts_over_a_long_run() -> None:
    """Sums that lost and gained 20,000 entries against those of a state that saw only what is still in the windows."""
    names = ["order_flow_ratio(50)", "queue_flow(50, side=-1)", "trade_imbalance(40)", "buy_ratio(40)",
             "effective_spread(40)", "roll_spread(40)", "realized_variance(60)", "bipower_variation(60)",
             "semivariance_imbalance(60)", "jump_test(60)", "realized_skewness(60)", "return_autocorrelation(60)",
             "variance_ratio(60)", "kyle_lambda(60)", "kyle_lambda(60, intercept=1)", "impact_correlation(60)",
             "amihud(60)", "spread_rank(80)", "point_of_control(40, tick=0.1)", "value_area_low(40, tick=0.1)",
             "profile_share(40, tick=0.1)"]  # fmt: skip
    rng, n = np.random.default_rng(8), 20_000
    ts = 10**12 + np.cumsum(rng.integers(1, 10**7, n)).astype(np.uint64)
    mid = 65_000 + 0.1 * np.cumsum(rng.integers(-1, 2, n))
    sizes = np.exp(rng.normal(0, 3, (3, n)))  # over ten orders of magnitude
    half = 0.05 * rng.integers(0, 4, n)
    quotes = QuoteColumns(ts, ts, mid - half, mid + half, sizes[0], sizes[1])
    trades = TradeColumns(ts, ts, mid + half * rng.choice([-1, 1], n), sizes[2], rng.choice([-1, 1], n).astype(np.int8))
    plan = FeaturePlan(names)
    whole = plan.compute(quotes, trades)
    # The histogram's place depends on all trades before: a walk of 40 of them stays inside of either.
    short = plan.compute(quotes[-400:], trades[-400:])
    assert short.ready[-1]
    np.testing.assert_allclose(whole.values[-300:], short.values[-300:], rtol=1e-11, atol=1e-9)
    assert len(np.unique(whole.values[-300:], axis=0)) == 300


def test_columns_of_one_window_share_their_machine() -> None:
    one = FeaturePlan(["realized_variance(50)"]).nbytes
    names = ["bipower_variation", "jump_share", "semivariance_imbalance", "realized_semivariance"]
    shared = FeaturePlan(["realized_variance(50)", *(f"{name}(50)" for name in names)]).nbytes
    assert shared < 2 * one
    profile = FeaturePlan(["point_of_control"]).nbytes
    assert FeaturePlan(["point_of_control", "value_area_high", "value_area_low", "in_value_area",
                        "profile_share"]).nbytes < 1.02 * profile  # fmt: skip
    more = FeaturePlan(["realized_variance(50)", "realized_variance(50, capacity=99)"]).nbytes
    assert more < 2 * one, "a count of events has no use for a capacity"


@pytest.mark.parametrize("text", [
    "queue_imbalance(0)", "queue_imbalance(11)", "depth(side=2)", "depth(levels=0)", "depth_within(0)",
    "book_pressure(0)", "queue_flow(side=0)", "realized_semivariance(side=0)", "spread_regime(low=0.8, high=0.2)",
    "variance_ratio(q=1)", "variance_ratio(q=65)", "vpin(0)", "vpin(buckets=0)", "point_of_control(bins=7)",
    "point_of_control(tick=-1)", "trade_sign(infer=2)", "trade_duration(0)", "buy_intensity(half_life='0s')",
])  # fmt: skip
def test_parameters_outside_their_rule_are_refused(text: str) -> None:
    with pytest.raises(FeatureExtractionError, match=r"must"):
        FeaturePlan([text])
