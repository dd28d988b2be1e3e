"""Features of several instruments against a twin that recomputes each number from all samples, on hostile streams."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cross_twin import CrossTwin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FEATURES, FeaturePlan, parse_spec
from tengri_fast.market.columns import QuoteColumns

SECOND = 10**9
SPECS = [
    "leg_return('A')",
    "leg_return('B', lag=3, max_age='2s')",
    "relative_return('A', lag=2)",
    "basket_return(['A', 'B'], lag=2)",
    "basket_deviation(['A', 'B'], lag=1, max_age='3s')",
    "correlation('A', window=5)",
    "correlation('B', window=4, max_age='2s')",
    "beta('A', window=5)",
    "basket_correlation(['A', 'B'], window=4)",
    "basket_beta(['B', 'A'], window=5)",
    "lead_lag('A', lag=1, window=4)",
    "lead_lag('A', lag=3, window=5, max_age='3s')",
    "lead_lag_asymmetry('A', lag=2, window=4)",
    "pair_spread('A', window=6)",
    "pair_spread('A', window=5, hedge=1)",
    "pair_spread('B', window=4, hedge=0.3, max_age='3s')",
    "pair_spread_zscore('A', window=6)",
    "pair_spread_zscore('A', window=7, hedge=1)",
    "hedge_ratio('A', window=6)",
    "premium('A')",
    "premium('B', max_age='1s')",
    "leg_age('A')",
    "pca_exposure(['A', 'B'], half_life=3)",
    "pca_exposure(['A', 'B'], factor=3, half_life=3)",
    "pca_explained(['A', 'B'], half_life=3)",
    "pca_explained(['A'], factor=2, half_life=4)",
    "pca_return(['A', 'B'], half_life=3)",
    "pca_residual(['A', 'B'], half_life=3)",
    "pca_residual(['A', 'B'], factors=2, half_life=3, max_age='3s')",
]
CROSS = {
    name for name, info in FEATURES.items() if any(p.type in {"instrument", "instruments"} for p in info.parameters)
}


def test_every_feature_of_legs_has_a_twin_and_a_spec_here() -> None:
    assert {parse_spec(text).name for text in SPECS} == CROSS
    assert all(hasattr(CrossTwin, name) for name in CROSS)


ODD = st.sampled_from([math.nan, math.inf, 0.0, -1.0, 1e12, 1e-12, 5e-324, 1e300, 1e18, 1e-18])
TICK = st.integers(-6, 6).map(lambda k: 65_000 + 0.01 * k)
PRICE = st.one_of(TICK, TICK, st.floats(1e-3, 1e6), ODD)
STEP = st.one_of(st.integers(0, 10**9), st.just(0), st.integers(-3 * 10**9, 3 * 10**9), st.just(10 * 10**9))
EVENT = st.one_of(
    st.tuples(st.just("own"), PRICE, st.integers(0, 3)),
    st.tuples(st.just("own"), PRICE, st.integers(0, 3)),
    st.tuples(st.just("A"), PRICE, st.integers(0, 3)),
    st.tuples(st.just("B"), PRICE, st.integers(-1, 1)),
)


def feed(state, twin: CrossTwin, who: str, bid: float, ask: float, ts: int) -> None:
    if who == "own":
        assert state.update_quote(bid, ask, 1.0, 1.0, ts) == twin.quote(bid, ask, ts)
    else:
        assert state.update_leg(who, bid, ask, ts) == twin.leg(who, bid, ask, ts)


def compare(plan: FeaturePlan, state, twin: CrossTwin, where: object) -> tuple[int, int]:
    """How many numbers were compared, and how many of them to nine digits or nearly."""
    row, ready = state.row(), state.ready_columns
    tight = 0
    assert np.isfinite(row).all(), where
    for i, spec in enumerate(plan.specs):
        wanted = twin.value(spec)
        assert ready[i] == wanted.ready, (str(spec), where)
        if not wanted.ready:
            assert row[i] == 0.0
            continue
        close = math.isclose(row[i], wanted.value, rel_tol=1e-9, abs_tol=1e-9 + wanted.slack)
        assert close, (str(spec), row[i], wanted, where)
        tight += wanted.slack <= 1e-6 * max(1e-3, abs(wanted.value))
    return int(ready.sum()), tight


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.tuples(EVENT, STEP), min_size=1, max_size=50))
def test_hostile_streams(events) -> None:
    """Prices that are no prices, crossed quotes, times that run back, legs that are silent or never come."""
    plan = FeaturePlan(SPECS)
    state, twin, ts = plan.state(), CrossTwin(), 10**12
    for k, ((who, price, width), step) in enumerate(events):
        ts = max(0, ts + step)
        feed(state, twin, who, price, price + 0.005 * width, ts)
        if twin.started and k % 3 == 0:
            compare(plan, state, twin, (k, who, price))
    if twin.started:
        compare(plan, state, twin, "end")


def walk(seed: int, count: int, legs: tuple[str, ...] = ("A", "B"), level: float = 65_000.0):
    """Own quotes and those of legs that share most of their moves, in time order."""
    rng = np.random.default_rng(seed)
    price = dict.fromkeys(("own", *legs), level)
    ts = 10**12
    for _ in range(count):
        ts += int(rng.exponential(2e8)) * int(rng.random() < 0.9)
        common = rng.normal()
        for name in price:
            price[name] *= math.exp(1e-5 * (common + 0.5 * rng.normal()))
        who = str(rng.choice(list(price)))
        half = level * 1e-7 * int(rng.integers(1, 4))
        yield who, price[who] - half, price[who] + half, ts


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("level", [1e-12, 65_000.0, 1e12])
def test_realistic_streams(seed: int, level: float) -> None:
    plan = FeaturePlan(SPECS)
    state, twin = plan.state(), CrossTwin()
    seen, counts = set(), np.zeros(2)
    for k, event in enumerate(walk(seed, 300, level=level)):
        feed(state, twin, *event)
        seen.add(tuple(state.row()))
        if k % 9 == 0 or k > 290:
            counts += compare(plan, state, twin, (seed, k))
    assert counts[1] > 0.97 * counts[0] > 500, counts
    assert state.ready
    assert len(seen) > 200, "the inputs must vary"


def test_on_bars_a_leg_is_seen_as_it_was_at_the_end_of_the_bar() -> None:
    """A bar closes before the event that ends it counts, whoever's event that is."""
    plan = FeaturePlan([f"{text} @ 1s" for text in SPECS if not text.startswith(("premium", "leg_age"))])
    state, twin = plan.state(), CrossTwin(bar=SECOND)
    for k, event in enumerate(walk(5, 500)):
        feed(state, twin, *event)
        if k % 7 == 0 or k > 490:
            compare(plan, state, twin, k)
    assert len(twin.samples) > 60
    assert state.ready


def test_a_flat_leg_and_a_leg_that_never_comes() -> None:
    plan = FeaturePlan(SPECS)
    flat, silent = plan.state(), plan.state()
    for k, (who, bid, ask, ts) in enumerate(walk(3, 300)):
        if who == "own":
            flat.update_quote(bid, ask, 1, 1, ts)
            silent.update_quote(bid, ask, 1, 1, ts)
        else:
            flat.update_leg(who, 7.0, 7.5, ts)
            if who == "A":
                silent.update_leg(who, bid, ask, ts)
        assert np.isfinite(flat.row()).all(), k
    row = dict(zip(SPECS, flat.row(), strict=True))
    assert flat.ready
    assert row["correlation('A', window=5)"] == row["beta('A', window=5)"] == row["hedge_ratio('A', window=6)"] == 0.0
    assert row["pca_exposure(['A', 'B'], half_life=3)"] == pytest.approx(1.0)
    assert row["pca_explained(['A', 'B'], half_life=3)"] == pytest.approx(1.0)
    assert not silent.ready
    ready = dict(zip(SPECS, silent.ready_columns, strict=True))
    assert all(on == ("'B'" not in text) for text, on in ready.items())


def test_a_stale_leg_is_skipped_and_the_next_return_spans_the_gap() -> None:
    state = FeaturePlan(["leg_return('A', max_age='1s')", "relative_return('A', max_age='1s')"]).state()
    own, leg = 100.0, 50.0
    for k in range(3):
        state.update_leg("A", leg + k, leg + k, k * SECOND)
        state.update_quote(own + k, own + k, 1, 1, k * SECOND)
    held = state.row()
    for k in range(4, 9):  # the leg is two seconds old and older
        state.update_quote(own + k, own + k, 1, 1, k * SECOND)
        assert np.array_equal(state.row(), held)
    state.update_leg("A", 60.0, 60.0, 9 * SECOND)
    state.update_quote(120.0, 120.0, 1, 1, 9 * SECOND)
    wanted = 1e4 * math.log(60 / 52)
    assert state.row() == pytest.approx([wanted, 1e4 * math.log(120 / 102) - wanted])


def test_a_leg_exactly_as_old_as_max_age_still_counts() -> None:
    state = FeaturePlan(["leg_return('A', max_age='1s')", "premium('A', max_age='1s')"]).state()
    for k in range(2):
        state.update_leg("A", 5.0 + k, 5.0 + k, 10 * k * SECOND)
        state.update_quote(8.0, 8.0, 1, 1, (10 * k + 1) * SECOND)
    assert state.row() == pytest.approx([1e4 * math.log(6 / 5), 1e4 * (8 / 6 - 1)])
    state.update_leg("A", 7.0, 7.0, 20 * SECOND)
    state.update_quote(8.0, 8.0, 1, 1, 21 * SECOND + 1)
    assert state.row() == pytest.approx([1e4 * math.log(6 / 5), 0.0])


@pytest.mark.parametrize("size", [1e-2, 1e-4])
def test_the_residual_of_a_nearly_perfect_pair(size: float) -> None:
    """What is left is a millionth of a millionth and more of the variance: it is told from rounding."""
    rng = np.random.default_rng(2)
    leg = 100 * np.exp(1e-3 * rng.normal(size=80).cumsum())
    own = 7 * (leg / 100) ** 1.5 * np.exp(1e-3 * size * rng.normal(size=80))
    state = FeaturePlan(["pair_spread_zscore('A', window=40)", "pair_spread('A', window=40)"]).state()
    for k in range(80):
        state.update_leg("A", leg[k], leg[k], 2 * k)
        state.update_quote(own[k], own[k], 1, 1, 2 * k + 1)
    x, y = np.log(leg[-40:]), np.log(own[-40:])
    rest = (y - y.mean()) - np.polyfit(x - x.mean(), y - y.mean(), 1)[0] * (x - x.mean())
    assert state.row()[0] == pytest.approx(rest[-1] / rest.std(), rel=1e-4)
    assert state.row()[1] == pytest.approx(1e4 * rest[-1], rel=1e-4)


def test_a_small_component_is_told_from_rounding() -> None:
    """Two prices that differ by 1e-4 of their moves: the second component has 1e-9 of the variance."""
    rng = np.random.default_rng(2)
    moves = 1e-3 * rng.normal(size=(60, 1)) * [1.0, 1.0] + 1e-7 * rng.normal(size=(60, 2))
    prices = 50 * np.exp(moves.cumsum(axis=0))
    state = FeaturePlan([f"pca_{what}(['A'], factor=2, half_life=20)" for what in ("explained", "exposure")]).state()
    for k, (own, leg) in enumerate(prices):
        state.update_leg("A", leg, leg, 2 * k)
        state.update_quote(own, own, 1, 1, 2 * k + 1)
    assert 1e-10 < state.row()[0] < 1e-7
    assert state.row()[1] == pytest.approx(math.sqrt(0.5), rel=1e-3)


def test_a_leg_counts_from_the_next_own_event_on() -> None:
    state = FeaturePlan(["leg_return('A')"]).state()
    state.update_leg("A", 1.0, 1.0, 1)
    state.update_quote(5.0, 5.0, 1, 1, 2)
    state.update_quote(5.0, 5.0, 1, 1, 3)
    state.update_leg("A", 2.0, 2.0, 4)
    assert state.row()[0] == 0.0
    state.update_quote(5.0, 5.0, 1, 1, 5)
    assert state.row()[0] == pytest.approx(1e4 * math.log(2.0))


def test_one_machine_serves_all_columns_of_one_leg() -> None:
    plan = FeaturePlan([
        "correlation('A', window=50)", "beta('A', window=50)", "basket_beta(['A'], window=50)", "leg_return('A')",
        "relative_return('A')", "pair_spread('A')", "pair_spread_zscore('A')", "hedge_ratio('A')",
        "lead_lag('A')", "lead_lag_asymmetry('A')", "pca_exposure(['A'])", "pca_residual(['A'])",
    ])  # fmt: skip
    text = plan.explain()
    for machine in ("moments of returns", "prices of legs", "levels of a pair", "lead and lag", "principal components"):
        assert text.count(f"{machine}(") == 1, text


def columns(events: list[tuple], who: str) -> QuoteColumns:
    rows = [e for e in events if e[0] == who]
    ts = np.array([e[3] for e in rows], dtype=np.uint64)
    bid, ask = (np.array([e[k] for e in rows]) for k in (1, 2))
    return QuoteColumns(ts, ts, bid, ask, np.ones(len(rows)), np.ones(len(rows)))


def test_live_equals_research_in_chunks_and_over_saved_states() -> None:
    plan = FeaturePlan([*SPECS, *(f"{text} @ 1s" for text in SPECS)])
    events = list(walk(9, 900))
    own, a, b = (columns(events, who) for who in ("own", "A", "B"))
    whole = plan.compute(own, legs={"A": a, "B": b})
    assert whole.ready[-1]
    for size in (1, 7, 100):
        state, parts = plan.state(), []
        last = np.uint64(0)
        for k in range(0, len(own), size):
            chunk = own[k : k + size]
            until = chunk.ts_init[-1] if k + size < len(own) else np.iinfo(np.uint64).max
            now = [
                leg[int(np.searchsorted(leg.ts_init, last)) : int(np.searchsorted(leg.ts_init, until))]
                for leg in (a, b)
            ]
            parts.append(plan.compute(chunk, legs={"A": now[0], "B": now[1]}, state=state).values)
            last = until
        assert np.array_equal(np.concatenate(parts), whole.values), size
    live, saved, rows = plan.state(), plan.state(), []
    for k, (who, bid, ask, ts) in enumerate(events):
        if who == "own":
            live.update_quote(bid, ask, 1, 1, ts)
            rows.append(live.row())
        else:
            live.update_leg(who, bid, ask, ts)
        if k % 100 == 50:
            saved.from_bytes(live.to_bytes())
            live = saved.copy()
    order = np.argsort([e[3] for e in events], kind="stable")
    if len({e[3] for e in events}) == len(events):
        assert np.array_equal(np.array(rows), whole.values), order[:3]
    live.reset()
    again = plan.compute(own, legs={"A": a, "B": b}, state=live)
    assert np.array_equal(again.values, whole.values)


def test_damaged_states_are_refused_or_stay_finite() -> None:
    plan = FeaturePlan(SPECS)
    state = plan.state()
    events = list(walk(4, 160))
    for who, bid, ask, ts in events[:80]:
        if who == "own":
            state.update_quote(bid, ask, 1, 1, ts)
        else:
            state.update_leg(who, bid, ask, ts)
    good = state.to_bytes()
    rng = np.random.default_rng(12)
    refused = 0
    for _ in range(600):
        torn = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            torn[int(rng.integers(len(torn)))] ^= 1 << int(rng.integers(8))
        other = plan.state()
        try:
            other.from_bytes(bytes(torn))
        except FeatureExtractionError:
            refused += 1
            continue
        for who, bid, ask, ts in events[80:]:
            if who == "own":
                other.update_quote(bid, ask, 1, 1, ts)
                assert np.isfinite(other.row()).all()
            else:
                other.update_leg(who, bid, ask, ts)
    assert refused > 100


def test_rules_of_the_parameters() -> None:
    for text, words in [
        ("leg_return", "`other` of leg_return must be the name of another instrument, was not given"),
        ("pca_exposure(['A'], factor=3)", "`pca_exposure` must keep its rule"),
        ("pca_residual(['A', 'B'], factors=3)", "`pca_residual` must keep its rule"),
        ("pca_exposure(['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H'])", "`pca_exposure` must keep its rule"),
        ("correlation('A', window=1)", "`window` of correlation must be a whole number from 2"),
        ("basket_return([])", "`others` of basket_return must be 1 to 32 names"),
    ]:
        with pytest.raises(FeatureExtractionError, match="^" + words):
            parse_spec(text)
