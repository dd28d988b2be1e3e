"""Stages against plain recomputations of the whole window by NumPy, pandas and SciPy, on hostile values too.

Any series can be led through a stage: an external source gives the number, a book event is the beat.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import STAGES, FeaturePlan
from tengri_fast.market.columns import QuoteColumns

NAN = math.nan
# What a double can tell: 65,000 +- 0.01, twelve orders of magnitude up and down, flat and nearly flat.
VALUE = st.one_of(
    st.integers(-4, 4).map(lambda k: 65_000 + 0.01 * k),
    st.integers(-3, 3).map(float),
    st.floats(-1e3, 1e3),
    st.sampled_from([0.0, -0.0, 1e12, -1e12, 1e-12, -1e-12, 5e-324, 1e18, -1e18]),
)
SERIES = st.lists(VALUE, min_size=1, max_size=60)


def run(stage: str, values: list[float] | np.ndarray, mid: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and readiness, one per pushed value."""
    state = FeaturePlan([f"external_value('x') | {stage}"]).state()
    out, ready = [], []
    for k, x in enumerate(values):
        assert state.update_external("x", [float(x), NAN, NAN, NAN], 1000 + k)
        assert state.update_quote(mid, mid, 1.0, 1.0, 1000 + k)
        out.append(state.row()[0])
        ready.append(state.ready)
    assert np.isfinite(out).all()
    return np.array(out), np.array(ready)


def zscore(window: np.ndarray) -> float:
    shifted = [x - window[-1] for x in window]  # exact enough at any level
    mean = math.fsum(shifted) / len(window)
    variance = math.fsum((x - mean) ** 2 for x in shifted) / len(window)
    return -mean / math.sqrt(variance) if variance > 1e-300 else 0.0


def robust(window: np.ndarray) -> float:
    low, middle, high = np.quantile(window, [0.25, 0.5, 0.75])
    scale = (high - low) / (stats.norm.ppf(0.75) - stats.norm.ppf(0.25))
    return (window[-1] - middle) / scale if high - low > 1e-300 else 0.0


def rank(window: np.ndarray) -> float:
    return (2 * stats.rankdata(window)[-1] - 1) / len(window) - 1


def minmax(window: np.ndarray) -> float:
    low, high = window.min(), window.max()
    return 2 * (window[-1] - low) / (high - low) - 1 if high - low > 1e-300 else 0.0


ROLLING = {"zscore": zscore, "robust": robust, "rank": rank, "minmax": minmax}


@pytest.mark.parametrize("name", ROLLING)
@pytest.mark.parametrize("window", [2, 3, 7, 8])
@settings(max_examples=40, deadline=None)
@given(values=SERIES)
def test_rolling_stages_equal_the_whole_window(name: str, window: int, values: list[float]) -> None:
    out, ready = run(f"{name}({window})", values)
    assert list(ready) == [k + 1 >= window for k in range(len(values))]
    for k in range(len(values)):
        seen = np.array(values[max(0, k + 1 - window) : k + 1])
        wanted = ROLLING[name](seen) if ready[k] else 0.0
        assert math.isclose(out[k], wanted, rel_tol=1e-9, abs_tol=1e-9), (k, seen, out[k], wanted)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_long_windows_do_not_drift(scale: float) -> None:
    """Ten thousand values in a window of 500, an outlier of 1e6 spreads among them."""
    rng = np.random.default_rng(4)
    values = scale * (65_000 + 0.01 * rng.integers(-50, 51, 10_000))
    values[3_000] = min(1e18, 1e6 * values[3_000])
    for name, twin in ROLLING.items():
        out, _ = run(f"{name}(500)", values, mid=1.0)
        for k in [499, 3_000, 3_499, 3_500, 3_501, 6_000, 9_999]:
            wanted = twin(values[k - 499 : k + 1])
            assert math.isclose(out[k], wanted, rel_tol=1e-9, abs_tol=1e-9), (name, k)


def test_rolling_stages_equal_pandas() -> None:
    values = np.random.default_rng(6).normal(size=600).cumsum()
    frame = pd.Series(values)
    rolling = frame.rolling(50)
    wanted = (frame - rolling.mean()) / rolling.std(ddof=0)
    np.testing.assert_allclose(run("zscore(50)", values)[0][49:], wanted[49:], rtol=1e-9)
    np.testing.assert_allclose(run("rank(50)", values)[0][49:], (2 * rolling.rank()[49:] - 1) / 50 - 1, atol=1e-12)
    iqr = (rolling.quantile(0.75) - rolling.quantile(0.25)) / 1.3489795003921634
    np.testing.assert_allclose(run("robust(50)", values)[0][49:], ((frame - rolling.median()) / iqr)[49:], rtol=1e-9)


@pytest.mark.parametrize("half_life", [0.5, 1.0, 7.3, 50.0])
def test_ewm_zscore_equals_pandas(half_life: float) -> None:
    values = np.random.default_rng(7).normal(size=400).cumsum() + 65_000
    frame = pd.Series(values - 65_000)
    weighted = frame.ewm(halflife=half_life)
    wanted = ((frame - weighted.mean()) / weighted.std(bias=True)).to_numpy()
    out, ready = run(f"ewm_zscore({half_life})", values)
    assert list(np.flatnonzero(ready)[:1]) == [math.ceil(half_life) - 1]
    np.testing.assert_allclose(out[ready][1:], wanted[ready][1:], rtol=1e-8, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(values=SERIES)
def test_ewm_zscore_of_hostile_values(values: list[float]) -> None:
    out, ready = run("ewm_zscore(3)", values)
    for k in range(len(values)):
        weights = [2.0 ** -((k - i) / 3) for i in range(k + 1)]
        shifted = [x - values[k] for x in values[: k + 1]]
        mean = math.fsum(w * x for w, x in zip(weights, shifted, strict=True)) / math.fsum(weights)
        spread = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, shifted, strict=True)) / math.fsum(weights)
        wanted = -mean / math.sqrt(spread) if spread > 1e-300 and ready[k] else 0.0
        # What has faded to nothing is what an outlier leaves: 1e12 at 1e-16 of it is 1e-4.
        past = max(abs(x) for x in values[: k + 1]) * 1e-14
        if math.sqrt(spread) > 1e3 * past or spread == 0.0:
            assert math.isclose(out[k], wanted, rel_tol=1e-6, abs_tol=1e-6), (k, values, out[k], wanted)


@settings(max_examples=60, deadline=None)
@given(values=SERIES)
def test_stages_without_a_window(values: list[float]) -> None:
    x = np.array(values)
    for stage, wanted in [
        ("clip(2.5)", np.clip(x, -2.5, 2.5)),
        ("clip(0)", 0 * x),
        ("log", np.sign(x) * np.log1p(np.abs(x))),
        ("sqrt", np.sign(x) * np.sqrt(np.abs(x))),
        ("tanh(2)", np.tanh(x / 2)),
        ("to_mid", 1e4 * (x - 50.0) / 50.0),
    ]:
        out, ready = run(stage, values, mid=50.0)
        assert ready.all()
        np.testing.assert_allclose(out, wanted, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("lag", [1, 3])
@settings(max_examples=40, deadline=None)
@given(values=SERIES)
def test_difference_and_lag(lag: int, values: list[float]) -> None:
    moved, ready = run(f"difference({lag})", values)
    held, also = run(f"lag({lag})", values)
    assert list(ready) == list(also) == [k >= lag for k in range(len(values))]
    for k in range(lag, len(values)):
        assert moved[k] == values[k] - values[k - lag]
        assert held[k] == values[k - lag]
    assert not moved[:lag].any()
    assert not held[:lag].any()


@pytest.mark.parametrize("name", [*ROLLING, "ewm_zscore", "difference"])
@pytest.mark.parametrize("value", [0.0, 65_000.01, -1e-12, 1e12])
def test_flat_series_give_zero(name: str, value: float) -> None:
    out, ready = run(f"{name}(5)", [value] * 40)
    assert ready[-1]
    assert not out.any()


def test_a_flat_window_after_another_level_gives_zero() -> None:
    values = [1e12] * 9 + [3.3] * 30
    for name in ROLLING:
        out, _ = run(f"{name}(7)", values)
        assert not out[-20:].any(), name


def test_zscore_is_bounded_by_what_a_window_can_hold() -> None:
    values = [0.0] * 99 + [1e18]
    out, _ = run("zscore(100)", values)
    assert out[-1] == pytest.approx(math.sqrt(99))


def chain(stage_text: str) -> FeaturePlan:
    return FeaturePlan([f"mid_return(lag=1) | {stage_text}"])


def test_stages_follow_one_another_and_wait_for_the_one_before() -> None:
    plan = chain("zscore(5) | lag(2) | clip(1)")
    assert plan.lookback.events == 2 + 4 + 2
    rng = np.random.default_rng(3)
    mids = 100 + rng.integers(-3, 4, 60)
    state = plan.state()
    rows, ready = [], []
    for k, mid in enumerate(mids):
        state.update_quote(float(mid), float(mid), 1.0, 1.0, 10 + k)
        rows.append(state.row()[0])
        ready.append(state.ready)
    assert int(np.flatnonzero(ready)[0]) == 7
    moves = 1e4 * np.log(mids[1:] / mids[:-1])
    scores = [zscore(moves[k - 4 : k + 1]) for k in range(4, len(moves))]
    np.testing.assert_allclose(rows[7:], np.clip(scores[:-2], -1, 1), atol=1e-9)


ALL_STAGES = [
    "clip(2)", "zscore(7)", "ewm_zscore(4)", "robust(7)", "rank(8)", "minmax(7)", "log", "sqrt", "tanh",
    "difference(3)", "lag(4)", "to_mid",
]  # fmt: skip


def test_every_stage_of_the_table_is_tested_here() -> None:
    assert {text.split("(")[0] for text in ALL_STAGES} == set(STAGES)


def quotes_of(count: int, seed: int) -> QuoteColumns:
    rng = np.random.default_rng(seed)
    ts = np.arange(count, dtype=np.uint64) * 1000 + 1000
    mid = 65_000 + 0.01 * rng.integers(-3, 4, count).cumsum()
    half = 0.005 * rng.integers(1, 5, count)
    size = rng.integers(1, 9, (2, count)).astype(np.float64)
    return QuoteColumns(ts, ts, mid - half, mid + half, size[0], size[1])


def test_live_equals_research_in_chunks_and_over_saved_states() -> None:
    plan = FeaturePlan([f"imbalance | {text}" for text in ALL_STAGES])
    quotes = quotes_of(230, 5)
    whole = plan.compute(quotes).values
    for size in (1, 7, 100):
        state = plan.state()
        parts = [plan.compute(quotes[k : k + size], state=state).values for k in range(0, len(quotes), size)]
        assert np.array_equal(np.concatenate(parts), whole)
    state, after = plan.state(), plan.state()
    plan.compute(quotes[:101], state=state)
    after.from_bytes(state.to_bytes())
    assert np.array_equal(plan.compute(quotes[101:], state=after).values, whole[101:])
    after.reset()
    assert np.array_equal(plan.compute(quotes, state=after).values, whole)


def test_damaged_states_are_refused_or_stay_finite() -> None:
    plan = FeaturePlan([f"imbalance | {text}" for text in ALL_STAGES])
    quotes = quotes_of(90, 8)
    state = plan.state()
    plan.compute(quotes[:40], state=state)
    good = state.to_bytes()
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(1500):
        torn = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            torn[int(rng.integers(len(torn)))] ^= 1 << int(rng.integers(8))
        other = plan.state()
        try:
            other.from_bytes(bytes(torn))
        except FeatureExtractionError:
            refused += 1
            continue
        assert np.isfinite(plan.compute(quotes[40:], state=other).values).all()
    assert refused > 300


def test_rules_of_stage_parameters() -> None:
    for text, words in [
        ("zscore(1)", "`window` of zscore must be a whole number from 2"),
        ("ewm_zscore(0.1)", "`half_life` of ewm_zscore must be"),
        ("lag(0)", "`pushes` of lag must be a whole number from 1"),
        ("tanh(0)", "`scale` of tanh must be a number from"),
        ("zscore(window=2, size=3)", "`size` is not a parameter of zscore"),
    ]:
        with pytest.raises(FeatureExtractionError, match="^" + words.replace("(", r"\(")):
            chain(text)
