"""Position sizing against formulas written out again, a numeric Kelly, and a NumPy EWMA; laws; hostile numbers."""

from __future__ import annotations

import copy
import math
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.measures import value_at_risk
from tengri_fast.risk.sizing import (
    Cap,
    DrawdownScale,
    EwmaVariance,
    FractionalKelly,
    PositionSizer,
    SizingPart,
    VarBudget,
    VolatilityTarget,
    default_parts,
)
from tengri_fast.risk.sizing_settings import PART_NAMES, SizingSettings, unit_value_at_risk

SECOND, DAY = 10**9, 86_400 * 10**9
NAN, INF = math.nan, math.inf


def signal(value: float = 3.0, p: tuple[float, float, float] = (0.2, 0.1, 0.7), horizon: int = 10, unit: str = "ns"):
    return SimpleNamespace(
        value=value, probabilities=p, horizon=horizon * SECOND if unit == "ns" else horizon, horizon_unit=unit
    )


def feed(sizer: PositionSizer, count: int = 400, move: float = 1e-4, seed: int = 1, step: int = SECOND) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mids = 100.0 * np.cumprod(1.0 + move * rng.standard_normal(count))
    for i, mid in enumerate(mids):
        sizer.on_mid(mid, 10**18 + i * step)
    return mids


def ready(parts: Any = None, move: float = 1e-4, **facts: Any) -> PositionSizer:
    sizer = PositionSizer(parts, **facts)
    feed(sizer, move=move)
    return sizer


# ---- volatility ------------------------------------------------------------------------------------------------------


def test_the_variance_is_that_of_a_decayed_sum() -> None:
    ewma = EwmaVariance(half_life="5m", step="2s", gap="30s", least=10)
    rng = np.random.default_rng(4)
    ts = 10**18 + np.cumsum(rng.integers(1, 4 * SECOND, 500))
    ts[300:] += 3600 * SECOND  # a break, whose move must not count
    mids = 50.0 * np.exp(np.cumsum(1e-4 * rng.standard_normal(500)))
    mids[300:] *= 1.5
    for mid, at in zip(mids, ts, strict=True):
        ewma.update(mid, int(at))
    squares = elapsed = 0.0
    samples, anchor, start = 0, mids[0], ts[0]
    keep = 0.5 ** (2 / 300)
    for mid, at in zip(mids[1:], ts[1:], strict=True):
        length = int(at - start)
        if length < 2 * SECOND:
            continue
        if length <= 30 * SECOND:
            squares = keep * squares + (mid / anchor - 1) ** 2
            elapsed = keep * elapsed + length
            samples += 1
        anchor, start = mid, at
    assert ewma.samples == samples > 100
    assert ewma.variance_rate == squares / elapsed
    assert ewma.over("1d") == pytest.approx(math.sqrt(squares / elapsed * DAY), rel=1e-14)


def test_the_variance_finds_that_of_a_random_walk() -> None:
    sizer = ready(move=2e-4)
    assert sizer.volatility.over("1s") == pytest.approx(2e-4, rel=0.15)
    assert sizer.volatility.over(100 * SECOND) == pytest.approx(10 * sizer.volatility.over("1s"), rel=1e-12)


@pytest.mark.parametrize("mid", [NAN, INF, 0.0, -1.0])
def test_a_mid_that_is_no_price_changes_nothing(mid: float) -> None:
    sizer = ready()
    before = sizer.to_bytes()
    sizer.on_mid(mid, 2 * 10**18)
    assert sizer.to_bytes() == before


def test_time_that_goes_back_is_ignored() -> None:
    sizer = ready()
    before = sizer.volatility.variance_rate
    sizer.on_mid(500.0, 5)
    sizer.on_mid(500.0, 6 * SECOND)
    assert sizer.volatility.variance_rate == before


# ---- each part by its formula ----------------------------------------------------------------------------------------


def test_volatility_target() -> None:
    sizer = ready([VolatilityTarget(0.02, "1h")], multiplier=5.0)
    size = sizer.size(signal(), 100.0, 1e6, rate=1.25)
    sigma = math.sqrt(sizer.volatility.variance_rate * 3600 * SECOND)
    assert size == pytest.approx(0.02 * 1e6 / (5.0 * 1.25 * 100.0 * sigma), rel=1e-12)
    assert sizer.explain().bound_by == "volatility_target"


def test_inverse_exposure() -> None:
    sizer = ready([VolatilityTarget()], multiplier=10.0, inverse=True)
    sigma = sizer.volatility.over("1d")
    assert sizer.size(signal(), 50_000.0, 2.0) == pytest.approx(0.01 * 2.0 / (10.0 / 50_000.0 * sigma), rel=1e-12)


def best_bet(p: float, q: float, gain: float, loss: float) -> float:
    """Share of equity that maximises expected log growth, by golden section on the concave objective."""

    def growth(f: float) -> float:
        return p * math.log1p(f * gain) + q * math.log1p(-f * loss)

    low, high = 0.0, (1.0 - 1e-12) / loss
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(200):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if growth(a) < growth(b):
            low = a
        else:
            high = b
    return (low + high) / 2


@given(
    p=st.floats(0.2, 0.8), rest=st.floats(0.1, 1.0), loss=st.floats(5.0, 400.0), ratio=st.floats(0.6, 3.0),
    side=st.sampled_from([-1, 1]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_kelly_maximises_growth(p: float, rest: float, loss: float, ratio: float, side: int) -> None:
    q = (1.0 - p) * rest
    gain = ratio * loss
    edge = p * gain - q * loss
    sizer = ready([FractionalKelly(1.0, stop_bps=loss)])
    asked = signal(side * edge, (q, 1 - p - q, p) if side > 0 else (p, 1 - p - q, q))
    size = sizer.size(asked, 100.0, 1e4, side=side)
    if edge <= 0:
        assert size == 0.0
        assert sizer.explain().reason == "kelly allows nothing"
    else:
        share = size * 100.0 / 1e4
        assert share == pytest.approx(best_bet(p, q, gain / 1e4, loss / 1e4), rel=1e-4, abs=1e-3)


def test_kelly_of_even_odds_and_its_fraction() -> None:
    """p - q over the size of the move, the textbook's f = 2 p - 1 at odds of one to one."""
    whole, quarter = ready([FractionalKelly(1.0, stop_bps=50.0)]), ready([FractionalKelly(stop_bps=50.0)])
    asked = signal(0.2 * 50.0, (0.4, 0.0, 0.6))
    assert whole.size(asked, 100.0, 1e4) * 100.0 / 1e4 == pytest.approx(0.2 / 0.005, rel=1e-12)
    assert quarter.size(asked, 100.0, 1e4) == pytest.approx(whole.size(asked, 100.0, 1e4) / 4, rel=1e-12)


def test_kelly_measures_the_loss_by_volatility_over_the_horizon() -> None:
    sizer = ready([FractionalKelly(1.0, loss_multiple=2.0)])
    loss = 2.0 * sizer.volatility.over("10s")
    edge, p, q = 3e-4, 0.7, 0.2
    expected = edge / ((p + q) * ((edge + q * loss) / p) * loss) * 1e4 / 100.0
    assert sizer.size(signal(), 100.0, 1e4) == pytest.approx(expected, rel=1e-12)
    # One mid a second was fed: ten events are ten seconds.
    assert sizer.size(signal(unit="events"), 100.0, 1e4) == pytest.approx(expected, rel=1e-12)


def test_costs_come_off_the_edge() -> None:
    sizer = ready([FractionalKelly()])
    free = sizer.size(signal(), 100.0, 1e4)
    assert sizer.size(signal(), 100.0, 1e4, cost_bps=1.0) == pytest.approx(free * 2 / 3, rel=1e-12)
    assert sizer.size(signal(), 100.0, 1e4, cost_bps=3.0) == 0.0


def test_var_budget_of_scenarios() -> None:
    returns = np.random.default_rng(8).standard_t(3, 1000) * 0.02 - 0.001
    sizer = ready([VarBudget(share=0.5)])
    sizer.set_unit_var(*unit_value_at_risk(returns, 0.99))
    for side in (1, -1):
        size = sizer.size(signal(3.0 * side), 100.0, 1e6, budget=8_000.0)
        assert size == pytest.approx(0.5 * 8_000.0 / (100.0 * value_at_risk(side * returns, 0.99)), rel=1e-12)
        assert value_at_risk(side * size * 100.0 * returns, 0.99) == pytest.approx(4_000.0, rel=1e-9)
    assert sizer.size(signal(), 100.0, 1e6, budget=0.0) == 0.0
    assert sizer.size(signal(), 100.0, 1e6, budget=-5.0) == 0.0
    assert sizer.size(signal(), 100.0, 1e6, budget=NAN) == 0.0
    assert "not known" in sizer.explain().reason


def test_var_budget_without_scenarios_is_normal() -> None:
    sizer = ready([VarBudget(limit=0.04, level=0.975, horizon="4h")])
    sigma = sizer.volatility.over("4h")
    assert sizer.size(signal(), 100.0, 1e6) == pytest.approx(
        0.04 * 1e6 / (100.0 * 1.959963984540054 * sigma), rel=1e-12
    )


@pytest.mark.parametrize("payoff", ["linear", "inverse", "binary"])
def test_unit_value_at_risk_is_that_of_the_payoff(payoff: Any) -> None:
    moves = np.clip(np.random.default_rng(3).normal(0, 0.3, 500), -0.9, 3.0)
    price = 0.4
    unit = {
        "linear": price * moves,
        "inverse": 1 / price - 1 / (price * (1 + moves)),
        "binary": np.clip(price * (1 + moves), 0, 1) - price,
    }[payoff]
    exposure = 1 / price if payoff == "inverse" else price
    long, short = unit_value_at_risk(moves, 0.95, payoff=payoff, price=price)
    assert long == pytest.approx(value_at_risk(unit, 0.95) / exposure, rel=1e-12)
    assert short == pytest.approx(value_at_risk(-unit, 0.95) / exposure, rel=1e-12)


@pytest.mark.parametrize(
    ("depth", "linear", "step"),
    [(0.0, 1.0, 1.0), (0.1, 1.0, 1.0), (0.2, 0.5, 0.3), (0.25, 0.25, 0.3), (0.3, 0.0, 0.0), (0.9, 0.0, 0.0)],
)
def test_drawdown_scales(depth: float, linear: float, step: float) -> None:
    for shape, factor in (("linear", linear), ("step", step)):
        part = DrawdownScale(0.1, 0.3, shape, middle=0.3)  # type: ignore[arg-type]
        sizer = ready([Cap(quantity=10.0), part])
        sizer.on_equity(1_000.0)
        assert sizer.size(signal(), 100.0, 1_000.0 * (1 - depth)) == pytest.approx(10.0 * factor, abs=1e-9)
        if factor == 0.0:
            assert sizer.explain().reason == "drawdown allows nothing"
        assert sizer.peak == 1_000.0


def test_caps() -> None:
    for cap, expected in (
        (Cap(quantity=7.0), 7.0),
        (Cap(notional=500.0), 2.5),
        (Cap(leverage=0.5), 2.5),
        (Cap(quantity=2.0, notional=500.0, leverage=0.5), 2.0),
        (Cap(quantity=9.0, notional=300.0, leverage=0.5), 1.5),
    ):
        assert ready([cap], multiplier=2.0).size(signal(), 100.0, 1_000.0) == pytest.approx(expected, rel=1e-12)


# ---- the whole -------------------------------------------------------------------------------------------------------


def test_the_default_is_the_least_of_three() -> None:
    assert [part.name for part in default_parts()] == ["volatility_target", "kelly", "var_budget"]
    assert FractionalKelly().fraction == 0.25
    sizer = ready()
    size = sizer.size(signal(), 100.0, 1e5)
    said = sizer.explain()
    assert size == min(said.bounds.values())
    assert said.bounds[said.bound_by] == size
    assert said.reason == ""
    assert said.text().startswith(f"size {size:.6g} bound by {said.bound_by} (")


@given(
    value=st.floats(-50, 50), up=st.floats(0, 1), share=st.floats(0, 1), price=st.floats(1e-3, 1e5),
    equity=st.floats(1.0, 1e9), worse=st.floats(1.0, 5.0), depth=st.floats(0, 0.9), cost=st.floats(0, 5),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_more_risk_is_never_more_size(
    value: float, up: float, share: float, price: float, equity: float, worse: float, depth: float, cost: float
) -> None:
    """Higher volatility, deeper drawdown, higher costs, less budget: each alone never gives a larger size."""
    parts = [VolatilityTarget(), FractionalKelly(stop_bps=40.0), VarBudget(), DrawdownScale(), Cap(leverage=3.0)]
    asked = signal(value, ((1 - up) * share, (1 - up) * (1 - share), up))
    calm, wild = PositionSizer(parts, lot=1e-4), PositionSizer(parts, lot=1e-4)
    feed(calm, 60), feed(wild, 60, move=1e-4 * worse)
    base = calm.size(asked, price, equity, cost_bps=cost)
    assert base >= 0.0
    assert math.isfinite(base)
    assert base == pytest.approx(round(base / 1e-4) * 1e-4, rel=1e-9)
    if base > 0.0:
        assert base <= min(calm.explain().bounds.values()) * (1 + 1e-9)
    else:
        assert calm.explain().reason
    assert wild.size(asked, price, equity, cost_bps=cost) <= base
    assert calm.size(asked, price, equity, cost_bps=cost + 1.0) <= base
    assert calm.size(asked, price, equity, cost_bps=cost, budget=0.01 * equity) <= base
    assert calm.size(asked, price, equity * (1 - depth), cost_bps=cost) <= base


def test_lots_and_the_smallest_order() -> None:
    sizer = ready([Cap(quantity=0.3)], lot=0.1)
    assert sizer.size(signal(), 100.0, 1e4) == pytest.approx(0.3, rel=1e-12)  # 0.3 / 0.1 is 2.9999999999999996
    sizer = ready([Cap(quantity=0.39)], lot=0.1)
    assert sizer.size(signal(), 100.0, 1e4) == pytest.approx(0.3, rel=1e-12)
    sizer = ready([Cap(quantity=0.39)], lot=0.1, min_size=0.4)
    assert sizer.size(signal(), 100.0, 1e4) == 0.0
    assert "smallest order" in sizer.explain().reason


def test_hysteresis_keeps_what_is_held_within_the_hard_parts() -> None:
    soft = ready([VolatilityTarget()], hysteresis=0.1)
    free = soft.size(signal(), 100.0, 1e5)
    assert soft.size(signal(), 100.0, 1e5, held=free * 0.95) == free * 0.95
    assert soft.explain().bound_by == "hysteresis"
    assert soft.size(signal(), 100.0, 1e5, held=free * 1.05) == free * 1.05
    assert soft.size(signal(), 100.0, 1e5, held=free * 0.8) == free
    assert soft.size(signal(), 100.0, 1e5, held=free) == free
    assert soft.explain().bound_by == "volatility_target"
    hard = ready([VolatilityTarget(), Cap(quantity=free)], hysteresis=0.1)
    assert hard.size(signal(), 100.0, 1e5, held=free * 1.05) == free
    assert hard.size(signal(), 100.0, 1e5, held=free * 0.95) == free * 0.95


HOSTILE = [NAN, INF, -INF, 0.0, -1.0]


@pytest.mark.parametrize("bad", HOSTILE)
@pytest.mark.parametrize("what", ["price", "equity", "rate"])
def test_an_unusable_question_gets_zero(what: str, bad: float) -> None:
    sizer = ready([Cap(quantity=5.0)])
    numbers = {"price": 100.0, "equity": 1e4, "rate": 1.0, what: bad}
    assert sizer.size(signal(), numbers["price"], numbers["equity"], rate=numbers["rate"]) == 0.0
    assert "no usable number" in sizer.explain().reason
    assert sizer.size(signal(), 100.0, 1e4) == 5.0


@pytest.mark.parametrize("asked", [
    signal(NAN), signal(INF), signal(0.0), signal(3.0, (NAN, 0.1, 0.7)), signal(3.0, (0.2, 0.1, NAN)),
    signal(3.0, (0.9, 0.0, 0.9)), signal(3.0, (-0.2, 0.1, 0.7)), signal(3.0, (1.0, 0.0, 0.0)), signal(horizon=0),
])  # fmt: skip
def test_a_hostile_signal_gets_zero(asked: Any) -> None:
    sizer = ready()
    assert sizer.size(asked, 100.0, 1e5) == 0.0
    assert sizer.explain().reason
    assert sizer.size(signal(), 100.0, 1e5) > 0.0


def test_zero_until_the_volatility_is_known() -> None:
    sizer = PositionSizer()
    feed(sizer, 30)
    assert sizer.size(signal(), 100.0, 1e5) == 0.0
    assert sizer.explain().reason == "volatility_target could not answer: the volatility has 29 samples of 30"
    flat = PositionSizer([VolatilityTarget()])
    feed(flat, 100, move=0.0)
    assert flat.size(signal(), 100.0, 1e5) == 0.0
    assert "not moved" in flat.explain().reason


def test_many_at_once_are_as_one_by_one() -> None:
    rng = np.random.default_rng(2)
    n = 200
    values, equities = rng.normal(0, 5, n), 1e5 * np.cumprod(1 + 0.02 * rng.standard_normal(n))
    up = rng.uniform(0, 0.6, n)
    down = rng.uniform(0, 0.4, n)
    prices = rng.uniform(90, 110, n)
    parts = [VolatilityTarget(), FractionalKelly(), DrawdownScale()]
    one, many = ready(parts, lot=0.5), ready(parts, lot=0.5)
    found = many.size_many(values, down, up, prices, equities, horizon_ns=10 * SECOND, cost_bps=0.5)
    expected = [
        np.sign(v) * one.size(signal(v, (d, 1 - d - u, u)), p, e, cost_bps=0.5)
        for v, d, u, p, e in zip(values, down, up, prices, equities, strict=True)
    ]
    assert found.tolist() == expected
    assert 20 < np.count_nonzero(found) < n
    with pytest.raises(DataConversionError, match="200 entries"):
        many.size_many(values, down, up, prices[:5], equities, horizon_ns=1.0)


def test_state_goes_on_with_the_same_bits() -> None:
    first = ready()
    first.on_equity(5e5)
    again = PositionSizer()
    again.from_bytes(first.to_bytes())
    for sizer in (first, again):
        feed(sizer, 100, seed=9)
    assert first.size(signal(), 100.0, 4e5) == again.size(signal(), 100.0, 4e5) > 0
    assert first.to_bytes() == again.to_bytes()
    saved = first.to_bytes()
    other = PositionSizer(volatility=EwmaVariance("20m"))
    before = other.to_bytes()
    for bad in (b"", saved[:-1], saved[:40] + b"\x01" + saved[41:]):
        with pytest.raises(DataConversionError, match="damaged"):
            other.from_bytes(bad)
    with pytest.raises(DataConversionError, match="must decay"):
        other.from_bytes(saved)
    assert other.to_bytes() == before
    first.reset()
    assert first.size(signal(), 100.0, 4e5) == 0.0


def test_wrong_settings_name_field_rule_and_value() -> None:
    for make, words in (
        (lambda: VolatilityTarget(0.0), "`target` must be a finite number > 0, was 0"),
        (lambda: VolatilityTarget(horizon="soon"), "`horizon`"),
        (lambda: FractionalKelly(1.5), "`fraction` must be a finite number > 0 and <= 1, was 1.5"),
        (lambda: FractionalKelly(stop_bps=NAN), "`stop_bps`"),
        (lambda: VarBudget(level=0.4), "`level` must be between 0.5 and 1, was 0.4"),
        (lambda: DrawdownScale(0.2, 0.1), "`stop` must be > `start`"),
        (lambda: DrawdownScale(shape="cubic"), "`shape`"),  # type: ignore[arg-type]
        (lambda: Cap(), "`Cap` must have"),
        (lambda: Cap(quantity=-1.0), "`quantity`"),
        (lambda: EwmaVariance(step="2h"), "`gap` must be >= `step`"),
        (lambda: EwmaVariance(least=0), "`least`"),
        (lambda: PositionSizer([]), "`parts` must be 1 to 16"),
        (lambda: PositionSizer([DrawdownScale()]), "held only scales"),
        (lambda: PositionSizer([Cap(quantity=1.0), Cap(notional=1.0)]), "distinct names"),
        (lambda: PositionSizer(lot=-1.0), "`lot`"),
        (lambda: SizingSettings(parts=("luck",)), "`parts` must be distinct names"),  # type: ignore[arg-type]
        (lambda: SizingSettings(kelly_fraction=2.0), "`fraction`"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert words in str(caught.value)


def test_settings_make_their_parts() -> None:
    made = SizingSettings(parts=PART_NAMES, max_leverage=2.0).sizer(lot=0.1, cap=Cap(quantity=3.0, name="trade_size"))
    assert [part.name for part in made.parts] == [*PART_NAMES, "trade_size"]
    assert [part.name for part in SizingSettings().sizer().parts] == [part.name for part in default_parts()]


def test_objects_refuse_pickling() -> None:
    for thing in (PositionSizer(), Cap(quantity=1.0), EwmaVariance()):
        for take in (pickle.dumps, copy.copy):
            with pytest.raises(TypeError, match="cannot be pickled"):
                take(thing)
    with pytest.raises(TypeError, match="base class"):
        SizingPart()
