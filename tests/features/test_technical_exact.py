"""Technical indicators against their definitions in exact decimals: hostile streams, on bars and on the event clock."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import REPOSITORY
from technical_parity import KINDS, START, bars_of, columns, hostile
from technical_twin import NAMES, Samples, exact
from technical_twin import error as worst_error

from tengri_fast.features import FEATURES, FeaturePlan, parse_spec
from tengri_fast.market.columns import QuoteColumns, TradeColumns

# Short windows, so that short streams turn them over many times; cci and its deviation on both of their paths.
SHORT = [
    "dema(3)", "tema(3)", "kama(3)", "dema(1)", "tema(1)", "sma(4)", "ema(4)", "wma(5)", "momentum(3)",
    "rate_of_change(3)", "macd(2,5,3,relative=0)", "macd(2,5,3)", "macd_signal(2,5,3)", "macd_histogram(2,5,3)",
    "macd_histogram(2,5,3,relative=0)", "bollinger_middle(4)", "bollinger_upper(4)", "bollinger_lower(4)",
    "bollinger_percent(4,1.5)", "bollinger_bandwidth(4)", "true_range", "true_range(0)", "atr(3)", "natr(3)",
    "keltner_middle(4)", "keltner_upper(4,2,3)", "keltner_lower(4,2,3)", "keltner_position(4,2,3)", "highest(4)",
    "lowest(4)", "donchian_upper(4)", "donchian_lower(4)", "donchian_middle(4)", "donchian_width(4)",
    "donchian_position(4)", "williams_r(3)", "stochastic_k(3,2,2)", "stochastic_d(3,2,2)", "cci(4)",
    "mean_absolute_deviation(4)", "mean_absolute_deviation(4,0)", "adx(3)", "plus_di(3)", "minus_di(3)",
    "aroon_up(4)", "aroon_down(4)", "aroon_oscillator(4)", "obv", "obv_ratio(4)", "mfi(3)", "vwap('5m')",
    "vwap_deviation('5m')", "vwap(session='0s')", "rolling_vwap(4)", "rolling_vwap_deviation(4)",
    "rolling_vwap('4m')", "sma(1)", "ema(1)", "wma(1)", "atr(1)", "highest(1)", "stochastic_k(1,1,1)",
    "momentum(1)", "mfi(1)",
]  # fmt: skip
LONG = [
    "dema(20)", "tema(20)", "kama(10)", "sma(50)", "ema(50)", "wma(50)", "macd(relative=0)",
    "macd_histogram(relative=0)", "bollinger_percent(50)", "bollinger_bandwidth(50)", "atr", "keltner_position",
    "donchian_position(50)", "stochastic_d(50)", "cci(20)", "cci(64)", "cci(65)", "cci(90)",
    "mean_absolute_deviation(100)", "adx", "plus_di", "minus_di", "aroon_oscillator(50)", "obv_ratio(50)",
    "mfi(50)", "rolling_vwap_deviation(50)",
]  # fmt: skip

# What crosses zero is compared with its own scale there: percent, parts of a window, units of 0.015 deviations.
FLOOR = {
    "rate_of_change": 1e-4, "bollinger_percent": 1e-2, "keltner_position": 1e-3, "cci": 1e-1, "obv_ratio": 1e-3,
    "vwap_deviation": 1e-1, "rolling_vwap_deviation": 1e-1,
}  # fmt: skip
BANDS = {"keltner_lower", "bollinger_lower"}
MOVES = {"momentum", "macd", "macd_signal", "macd_histogram", "dema", "tema"}


def floor_of(name: str, params: dict[str, float], s: Samples) -> float:
    """Differences of prices, and averages that overshoot, are measured by a thousandth of the largest move.

    Bands may lie at zero or below it, where a thousandth of the price measures them.
    """
    if name in BANDS:
        return float(s.close.min()) * 1e-3
    if name not in MOVES:
        return FLOOR.get(name, 0.0)
    largest = float(np.max(np.abs(np.diff(s.close)), initial=0.0))
    return largest * (1e4 / float(s.close.min()) if params.get("relative") else 1.0) * 1e-3


def check(texts: list[str], values: np.ndarray, s: Samples, limit: float = 1e-9) -> None:
    for i, text in enumerate(texts):
        spec = parse_spec(text)
        want = exact(spec.name, spec.params, s)
        got = values[:, i]
        assert np.isfinite(got).all(), text
        assert all(x == 0.0 for x, w in zip(got, want, strict=True) if w is None), text
        off = worst_error(got, want, floor_of(spec.name, spec.params, s))
        assert off <= limit, (text, off)


def test_every_indicator_has_a_twin_and_a_spec_here() -> None:
    table = (REPOSITORY / "csrc" / "features" / "technical.def").read_text(encoding="utf-8")
    rows = re.findall(r"^TF_FEATURE\(\w+, (\w+),", table, re.MULTILINE)
    assert len(rows) == len(set(rows)) > 40
    assert set(rows) == set(NAMES) == {parse_spec(text).name for text in SHORT}
    assert set(NAMES) <= set(FEATURES)


LEVEL = st.sampled_from([1e-12, 1e-4, 1.0, 65_000.0, 1e12])
MOVE = st.sampled_from([0.0, 0.0, 0.0, 1e-9, -1e-9, 1e-7, -1e-7, 1e-3, -1e-3, 1.0, -0.5, 999.0, -0.999])


@settings(max_examples=30, deadline=None)
@given(LEVEL, st.lists(st.tuples(MOVE, st.sampled_from([0.0, 0.0, 1e-7, 0.01]), st.sampled_from([0.0, 1.0, 3.3, 1e6]))),
       st.integers(1, 9))  # fmt: skip
def test_hostile_bars(level, rows, cut) -> None:
    """Flat stretches, gaps of three orders of magnitude, ticks of 1e-9, bars of one price and bars without volume."""
    if not rows:
        rows = [(0.0, 0.0, 0.0)]
    moves, wicks, volumes = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    close = np.clip(level * np.cumprod(1 + moves), 1e-17, 1e17)
    s = bars_of(close, wicks, volumes)
    plan = FeaturePlan([f"{text} @ bars" for text in SHORT])
    rows_at_once = plan.compute(bars=columns(s), clock="bar")
    check(SHORT, rows_at_once.values, s)
    state = plan.state()
    pieces = [
        plan.compute(bars=columns(s)[at : at + cut], clock="bar", state=state) for at in range(0, len(s.time), cut)
    ]
    assert np.concatenate([piece.values for piece in pieces]).tobytes() == rows_at_once.values.tobytes()


def test_event_clock() -> None:
    """Mids with what was traded between them: a book that stands still, trades before the first quote, none at all."""
    rng = np.random.default_rng(11)
    count = 300
    mid = np.round(65_000 + 0.01 * np.cumsum(rng.choice([-1, 0, 0, 1], count)), 2)
    time = np.uint64(START) + np.cumsum(rng.integers(1, 20 * 10**9, count)).astype(np.uint64) * np.uint64(2)
    trades = 400
    when = np.sort(rng.integers(int(time[0]) - 10**9, int(time[-1]), trades)).astype(np.uint64) | np.uint64(1)
    when = when[(when < time[100]) | (when > time[200])]
    price = np.round(65_000 + 0.01 * rng.integers(-50, 50, len(when)), 2)
    size = np.round(rng.exponential(1.0, len(when)) + 0.001, 3)
    volume, notional = np.zeros(count), np.zeros(count)
    for t, p, q in zip(when, price, size, strict=True):
        at = int(np.searchsorted(time, t))
        if at < count:
            volume[at] += q
            notional[at] += p * q
    plan = FeaturePlan(SHORT)
    rows = plan.compute(
        QuoteColumns(time, time, mid, mid, np.ones(count), np.ones(count)),
        TradeColumns(when, when, price, size, rng.choice([-1, 0, 1], len(when)).astype(np.int32)),
    )
    # The first event may be a trade: a window of time counts from there.
    s = Samples(mid, mid, mid, mid, volume, notional, time)
    first = min(int(time[0]), int(when[0]))
    by_time = SHORT.index("rolling_vwap('4m')")
    ready = np.array([int(t) - first >= 240 * 10**9 for t in time])
    assert np.array_equal(rows.values[:, by_time] != 0.0, ready)
    check([t for t in SHORT if t != SHORT[by_time]], np.delete(rows.values, by_time, axis=1), s)


DRIFT = [
    "sma(20)", "wma(20)", "bollinger_percent(20)", "bollinger_bandwidth(20)", "bollinger_bandwidth(500)", "cci(20)",
    "cci(100)", "macd(relative=0)", "ema(20)", "stochastic_d", "donchian_position(500)", "atr", "adx",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_series(kind: str) -> None:
    close = hostile(kind, 900)
    rng = np.random.default_rng(6)
    s = bars_of(close, rng.choice([0.0, 1e-7], 900), np.round(rng.exponential(5, 900), 3))
    rows = FeaturePlan([f"{text} @ bars" for text in LONG]).compute(bars=columns(s), clock="bar")
    check(LONG, rows.values, s, 1e-10)


@pytest.mark.parametrize("kind", ["65,000 +- 0.01", "walk", "outliers"])
def test_nothing_drifts_over_a_million_samples(kind: str) -> None:
    """After 1,000,000 samples the rows are those of the last windows alone, to the last bits."""
    count, tail = 1_000_000, 1_200
    close = hostile(kind, count)
    time = np.uint64(START) + np.arange(count, dtype=np.uint64) * np.uint64(10**6)
    size = np.ones(count)
    rows = FeaturePlan(DRIFT).compute(QuoteColumns(time, time, close, close, size, size)).values[-100:]
    s = Samples.of_mids(close[-tail:], time[-tail:])
    for i, text in enumerate(DRIFT):
        spec = parse_spec(text)
        want = exact(spec.name, spec.params, s)[-100:]
        # The start of a recursion is forgotten by (1 - 1/14)^1100 = 4e-36 at the slowest.
        assert worst_error(rows[:, i], want, floor_of(spec.name, spec.params, s)) <= 1e-11, text


def test_state_travels_in_the_middle_of_a_window() -> None:
    close = hostile("gaps", 400)
    s = bars_of(close, np.zeros(400), np.ones(400))
    plan = FeaturePlan([f"{text} @ bars" for text in LONG])
    whole = plan.compute(bars=columns(s), clock="bar").values
    for cut in (1, 49, 50, 51, 333):
        before = plan.state()
        plan.compute(bars=columns(s)[:cut], clock="bar", state=before)
        after = plan.state()
        after.from_bytes(before.to_bytes())
        rest = plan.compute(bars=columns(s)[cut:], clock="bar", state=after).values
        assert rest.tobytes() == whole[cut:].tobytes()
        before.reset()
        again = plan.compute(bars=columns(s), clock="bar", state=before).values
        assert again.tobytes() == whole.tobytes()
