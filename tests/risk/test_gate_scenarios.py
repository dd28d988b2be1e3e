"""Methods of the order path against the estimators that fit them from scratch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk import InstrumentFacts, PortfolioState, ScenarioSet, VarSettings
from tengri_fast.risk.conditional import age_weights
from tengri_fast.risk.estimators import risk_estimate
from tengri_fast.risk.functionals import ScenarioRisk
from tengri_fast.risk.gate_scenarios import GATE_METHODS, gate_scenarios, gate_stress
from tengri_fast.risk.volatility import EwmaVolatility

DAY = 86_400_000_000_000
NAMES = ("AAA.X", "BBB.X")
FACTS = [InstrumentFacts(name, asset_class="equity") for name in NAMES]


def history(count: int = 600, seed: int = 5, **provenance: str) -> ScenarioSet:
    rng = np.random.default_rng(seed)
    sigma = 0.01 * np.exp(0.5 * np.sin(np.arange(count) / 40.0))
    return ScenarioSet(NAMES, sigma * rng.standard_t(6, (2, count)) * np.array([[1.0], [0.7]]), DAY, provenance)


def measured(scenarios: ScenarioSet, method: str, **options: object) -> tuple[float, float]:
    made = gate_scenarios(scenarios, method, **options)  # type: ignore[arg-type]
    asked = VarSettings(method=method, tail=made.tail, scenarios=made.scenarios.count)  # type: ignore[arg-type]
    portfolio = PortfolioState(FACTS, None, asked)
    portfolio.set_scenarios(made.scenarios, made.weights)
    for name in NAMES:
        portfolio.on_price(name, 100.0, 100.0, 1)
    portfolio.set_position("AAA.X", 30.0)
    portfolio.set_position("BBB.X", -20.0)
    return portfolio.value_at_risk(), portfolio.expected_shortfall()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("historical", {}),
        ("age_weighted", {"decay": 0.995}),
        ("filtered", {"decay": 0.94}),
    ],
)
def test_the_gate_has_the_number_of_the_estimator(method: str, options: dict[str, float]) -> None:
    from tengri_fast.risk import Holdings

    scenarios = history()
    holdings = Holdings(NAMES, [30.0, -20.0], [100.0, 100.0])  # type: ignore[arg-type]
    estimate = risk_estimate(holdings, scenarios.returns.astype(float), method=method, confidence=None, **options)
    var, es = measured(scenarios, method, **options)
    # Filtered returns are rounded to float32 once more.
    assert (var, es) == pytest.approx((estimate.var, estimate.es), rel=1e-6)


def test_normal_is_the_formula_on_the_sample_covariance_with_the_mean() -> None:
    from tengri_fast.risk import Holdings

    scenarios = history()
    weights = 100.0 * np.array([30.0, -20.0])
    returns = scenarios.returns.astype(float)
    sigma = np.sqrt(weights @ np.cov(returns) @ weights)
    mean = weights @ returns.mean(axis=1)
    found = measured(scenarios, "normal")
    # The 99 % quantile of the normal distribution, and its density there over 1 %.
    assert found == pytest.approx((2.3263478740408408 * sigma - mean, 2.665214220345808 * sigma - mean), rel=1e-9)
    holdings = Holdings(NAMES, [30.0, -20.0], [100.0, 100.0])  # type: ignore[arg-type]
    again = risk_estimate(holdings, returns, method="normal", mean="sample", confidence=None)
    assert found == pytest.approx((again.var, again.es), rel=1e-9)
    assert abs(mean) > 1e-3 * sigma  # else it would not show


@given(seed=st.integers(0, 10_000), count=st.integers(20, 90), steps=st.sampled_from([0, 4, 64]))
@settings(deadline=None, max_examples=60)
def test_weights_are_read_as_the_estimators_read_them(seed: int, count: int, steps: int) -> None:
    """Ties, very uneven weights and equal ones included."""
    rng = np.random.default_rng(seed)
    returns = np.clip(0.2 * rng.standard_normal((2, count)), -0.9, 2.0)
    if steps:
        returns = np.round(returns * steps) / steps
    returns = returns.astype(np.float32)
    concentration = (0.05, 1.0, 1e6)[seed % 3]
    weights = rng.dirichlet(np.full(count, concentration)) + 1e-9
    weights /= weights.sum()
    for level in (0.9, 0.95):
        portfolio = PortfolioState(FACTS, None, VarSettings(level=level, scenarios=count))
        portfolio.set_scenarios(ScenarioSet(NAMES, returns, DAY), weights)
        for name, quantity in zip(NAMES, (3.0, -2.0), strict=True):
            portfolio.on_price(name, 1.0, 1.0, 1)
            portfolio.set_position(name, quantity)
        expected = ScenarioRisk(returns.astype(float), level, weights).risk(np.array([3.0, -2.0]))
        assert portfolio.value_at_risk() == pytest.approx(expected[0], rel=1e-12, abs=1e-15)
        assert portfolio.expected_shortfall() == pytest.approx(expected[1], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("weighted", [False, True])
def test_cornish_fisher_does_not_hide_a_rare_large_loss(weighted: bool) -> None:
    """Two days in a hundred cost 30 %: the expansion alone says 1.5 %, because its quantiles do not increase there."""
    rng = np.random.default_rng(1)
    returns = 0.001 * rng.standard_normal((2, 1000))
    returns[0, ::50] = -0.3
    weights = age_weights(1000, 0.9995) if weighted else None

    def tail_of(tail: str) -> tuple[float, float]:
        portfolio = PortfolioState(FACTS, None, VarSettings(tail=tail))  # type: ignore[arg-type]
        portfolio.set_scenarios(ScenarioSet(NAMES, returns, DAY), weights)
        portfolio.on_price("AAA.X", 1.0, 1.0, 1)
        portfolio.set_position("AAA.X", 100.0)
        return portfolio.value_at_risk(), portfolio.expected_shortfall()

    assert tail_of("cornish_fisher") == tail_of("empirical")
    assert tail_of("cornish_fisher")[0] == pytest.approx(30.0)
    assert tail_of("normal")[0] < 15.0


def test_cornish_fisher_and_monte_carlo_are_near_the_historical_number() -> None:
    pytest.importorskip("scipy")
    scenarios = history(2_000)
    plain = measured(scenarios, "historical")
    for method in ("cornish_fisher", "monte_carlo"):
        found = measured(scenarios, method, count=None if method == "cornish_fisher" else 4_000, seed=1)
        assert found == pytest.approx(plain, rel=0.3)
        assert found[1] > found[0]


def test_filtering_brings_a_calm_history_to_a_wild_present() -> None:
    rng = np.random.default_rng(1)
    returns = 0.01 * rng.standard_normal((2, 500))
    returns[:, -40:] *= 4.0
    found = gate_scenarios(ScenarioSet(NAMES, returns, DAY), "filtered").scenarios.returns
    assert found[0, :400].std() > 2.5 * returns[0, :400].std()


def test_a_scenario_is_not_scaled_by_what_happened_inside_it() -> None:
    rng = np.random.default_rng(2)
    quiet = 0.001 * rng.standard_normal((2, 300))
    loud = quiet.copy()
    loud[:, 200] = 0.2
    step = {"step_ns": str(DAY // 10)}  # each scenario overlaps the nine before it
    a = gate_scenarios(ScenarioSet(NAMES, quiet, DAY, step), "filtered").scenarios.returns
    b = gate_scenarios(ScenarioSet(NAMES, loud, DAY, step), "filtered").scenarios.returns
    ratio = (b / a)[0]
    # Until scenario 209 none had ended that saw the jump, so all are scaled alike; from 210 on they are damped.
    assert np.allclose(ratio[150:200], ratio[150], rtol=0.02)
    assert np.allclose(ratio[201:210], ratio[199], rtol=0.02)
    assert ratio[211] < 0.1 * ratio[209]


def test_an_instrument_that_was_flat_at_first_is_filtered_too() -> None:
    returns = 0.01 * np.random.default_rng(0).standard_normal((2, 300))
    returns[1, :80] = 0.0
    found = gate_scenarios(ScenarioSet(NAMES, returns, DAY), "filtered").scenarios.returns
    assert (found[1, :80] == 0.0).all()
    assert not np.allclose(found[1, 100:], returns[1, 100:], rtol=0.05)


def test_an_instrument_that_never_moved_keeps_its_returns() -> None:
    returns = np.vstack([0.01 * np.random.default_rng(0).standard_normal(100), np.zeros(100)])
    found = gate_scenarios(ScenarioSet(NAMES, returns, DAY), "filtered").scenarios.returns
    assert (found[1] == 0.0).all()
    assert np.isfinite(found).all()


def test_equal_arguments_give_equal_bits() -> None:
    pytest.importorskip("scipy")
    for method in GATE_METHODS:
        a, b = (gate_scenarios(history(200), method, seed=3, count=150) for _ in range(2))
        assert a.scenarios.returns.tobytes() == b.scenarios.returns.tobytes()
        assert a.scenarios.count == 150
        assert (a.weights is None) == (method != "age_weighted")


def test_bad_settings() -> None:
    with pytest.raises(ConfigurationError, match="`method` must be one of historical"):
        gate_scenarios(history(), "guess")
    with pytest.raises(ConfigurationError, match="`decay` must be between 0 and 1, was 1"):
        gate_scenarios(history(), "filtered", decay=1.0)
    with pytest.raises(ConfigurationError, match="`scenarios` must be >= 30"):
        gate_scenarios(history(20), "filtered")
    with pytest.raises(ConfigurationError, match="must be > -1"):
        gate_scenarios(ScenarioSet(NAMES, np.full((2, 50), -1.0), DAY), "filtered")
    with pytest.raises(ConfigurationError, match="`count` must be >= 1"):
        gate_scenarios(history(), count=0)


def test_stress_has_the_library_and_the_model() -> None:
    names, table = gate_stress(FACTS, scenarios=history(), volatility=EwmaVolatility, columns=4)
    assert table.shape == (2, len(names))
    assert table.dtype == np.float32
    assert sum(name.startswith("model") for name in names) == 4
    assert (table >= -1.0).all()
    assert table.min() < -0.2
    again = gate_stress(FACTS, scenarios=history(), volatility=EwmaVolatility, columns=4)
    assert again[1].tobytes() == table.tobytes()


@pytest.mark.parametrize("spelling", [str.upper, str.lower])
def test_every_asset_class_of_nautilus_falls_and_rises(spelling: Callable[[str], str]) -> None:
    enums = pytest.importorskip("nautilus_trader.model.enums")
    classes = [enums.asset_class_to_str(member) for member in enums.AssetClass]
    assert {"FX", "EQUITY", "COMMODITY", "DEBT", "INDEX", "CRYPTOCURRENCY", "ALTERNATIVE"} <= set(classes)
    # No name that says more than the class: a future on a currency, a cross without the dollar.
    facts = [InstrumentFacts(f"{name}Z6.X", asset_class=spelling(name)) for name in classes]
    facts.append(InstrumentFacts("EUR/GBP.X", asset_class=spelling("FX"), settlement_currency="GBP"))
    _, table = gate_stress(facts)
    assert (table.min(axis=1) <= -0.09).all()
    assert (table.max(axis=1) >= 0.09).all()


def test_an_instrument_that_no_scenario_moves_is_refused() -> None:
    odd = InstrumentFacts("ODD.X", asset_class="")
    with pytest.raises(ConfigurationError, match=r"none moves ODD\.X"):
        gate_stress([*FACTS, odd])
    with pytest.raises(ConfigurationError, match="must hold a scenario that moves every instrument"):
        gate_stress(FACTS, library=False)
