"""Methods of the order path against the estimators that fit them from scratch."""

from __future__ import annotations

import numpy as np
import pytest

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk import InstrumentFacts, PortfolioState, ScenarioSet, VarSettings
from tengri_fast.risk.estimators import risk_estimate
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
    settings = VarSettings(method=method, tail=made.tail, scenarios=made.scenarios.count)  # type: ignore[arg-type]
    portfolio = PortfolioState(FACTS, None, settings)
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
    # The recursion of variances may start elsewhere; returns are float32.
    tolerance = {"filtered": 1e-2}.get(method, 1e-6)
    assert var == pytest.approx(estimate.var, rel=tolerance)
    assert es == pytest.approx(estimate.es, rel=tolerance)


def test_normal_is_the_formula_on_the_sample_covariance() -> None:
    scenarios = history()
    weights = 100.0 * np.array([30.0, -20.0])
    returns = scenarios.returns.astype(float)
    sigma = np.sqrt(weights @ np.cov(returns, bias=True) @ weights)
    mean = weights @ returns.mean(axis=1)
    # The 99 % quantile of the normal distribution, and its density there over 1 %.
    assert measured(scenarios, "normal") == pytest.approx(
        (2.3263478740408408 * sigma - mean, 2.665214220345808 * sigma - mean), rel=2e-3
    )


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


def test_an_instrument_that_no_scenario_moves_is_refused() -> None:
    odd = InstrumentFacts("ODD.X", asset_class="")
    with pytest.raises(ConfigurationError, match=r"none moves ODD\.X"):
        gate_stress([*FACTS, odd])
    with pytest.raises(ConfigurationError, match="must hold a scenario that moves every instrument"):
        gate_stress(FACTS, library=False)
