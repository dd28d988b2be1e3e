"""The risk manager asks the same portfolio as the gate, and changes nothing by asking."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, RiskGate, RiskLimits, ScenarioSet, VarSettings
from tengri_fast.risk.gate_scenarios import gate_scenarios
from tengri_fast.risk.manager import NeuralRiskManager
from tengri_fast.risk.measures import expected_shortfall, value_at_risk

DAY = 86_400_000_000_000
NAMES = ("AAA.X", "BBB.X", "CCC.X")


@pytest.fixture
def manager() -> NeuralRiskManager:
    rng = np.random.default_rng(3)
    returns = 0.01 * rng.standard_t(5, (3, 500)) * np.array([[1.0], [2.0], [0.5]])
    scenarios = ScenarioSet(NAMES, np.clip(returns, -0.5, None), DAY)
    facts = [InstrumentFacts(name, size_increment=1.0, asset_class="equity") for name in NAMES]
    portfolio = PortfolioState(facts, scenarios, VarSettings(horizon=DAY, scenarios=500))
    limits = RiskLimits(max_portfolio_var=0.05, max_portfolio_es=0.08, max_gross_exposure=500_000.0, max_position=5_000)
    gate = RiskGate(limits, portfolio)
    gate.warmup()
    for name in NAMES:
        portfolio.on_price(name, 99.5, 100.5, 1)
    gate.on_equity(100_000.0, 1)
    portfolio.set_position("AAA.X", 400.0)
    portfolio.set_position("BBB.X", -200.0)
    return NeuralRiskManager(gate)


def order(quantity: float, name: str = "BBB.X", side: int = -1) -> OrderView:
    return OrderView("O-1", "S", "", name, side=side, quantity=quantity, ts=1)


def test_an_assessment_has_the_numbers_of_the_scenarios(manager: NeuralRiskManager) -> None:
    found = manager.evaluate_risk()
    returns = manager.portfolio.scenarios.returns.astype(np.float64)  # type: ignore[union-attr]
    pnl = 100.0 * (400.0 * returns[0] - 200.0 * returns[1])
    assert found.metrics["value_at_risk"] == pytest.approx(value_at_risk(pnl, 0.99), rel=1e-12)
    assert found.metrics["expected_shortfall"] == pytest.approx(expected_shortfall(pnl, 0.99), rel=1e-12)
    assert found.metrics["gross_exposure"] == 60_000.0
    assert found.metrics["net_exposure"] == 20_000.0
    assert found.metrics["leverage"] == pytest.approx(0.6)
    assert found.acceptable
    assert {row.code for row in found.limits} >= {"MAX_PORTFOLIO_VAR", "MAX_PORTFOLIO_ES", "MAX_GROSS_EXPOSURE"}


def test_a_breach_is_told_with_a_trade_that_ends_it(manager: NeuralRiskManager) -> None:
    manager.portfolio.set_position("BBB.X", -1_500.0)
    found = manager.evaluate_risk()
    assert "MAX_PORTFOLIO_VAR" in {row.code for row in found.breaches}
    assert not found.acceptable
    text = next(text for text in found.recommendations if "value at risk" in text)
    verb, amount, name = text.split()[:3]
    assert (verb, name.rstrip(":")) == ("buy", "BBB.X")
    manager.portfolio.set_position("BBB.X", -1_500.0 + float(amount) * 1.0001)
    assert manager.portfolio.value_at_risk() <= 5_000.0
    manager.portfolio.set_position("BBB.X", -1_500.0 + float(amount) * 0.99)
    assert manager.portfolio.value_at_risk() > 5_000.0


def test_validating_an_order_changes_nothing(manager: NeuralRiskManager) -> None:
    before = (
        manager.gate.counters["checked"],
        manager.portfolio.value_at_risk(),
        len(manager.portfolio.working_orders()),
    )
    small, large = manager.validate_order(order(10.0)), manager.validate_order(order(4_000.0))
    assert small.allowed
    assert not large.allowed
    assert "MAX_PORTFOLIO_VAR" in large.verdict.text()
    assert large.change > small.change
    manager.portfolio.set_position("BBB.X", -210.0)
    assert small.after["filled + this order"][0] == pytest.approx(manager.portfolio.value_at_risk(), rel=1e-9)
    manager.portfolio.set_position("BBB.X", -200.0)
    after = manager.gate.counters["checked"], manager.portfolio.value_at_risk(), len(manager.portfolio.working_orders())
    assert after == pytest.approx(before)


def test_what_cannot_be_valued_is_said_and_not_raised(manager: NeuralRiskManager) -> None:
    manager.portfolio.add_instrument(InstrumentFacts("NEW.X"))
    manager.portfolio.set_position("NEW.X", 1.0)
    found = manager.evaluate_risk()
    assert math.isnan(found.metrics["value_at_risk"])
    assert any("NEW.X cannot be valued" in note for note in found.notes)
    assert not found.acceptable
    assert math.isnan(manager.validate_order(order(1.0)).change)
    assert not manager.validate_order(order(1.0, "NOT.KNOWN")).allowed
    with pytest.raises(DataConversionError, match=r"NEW\.X"):
        manager.calculate_var()


def test_a_stopped_gate_is_told(manager: NeuralRiskManager) -> None:
    manager.gate.kill("desk", "news")
    assert any("stopped by desk: news" in note for note in manager.evaluate_risk().notes)


def test_methods_agree_with_the_gate_where_they_are_the_same(manager: NeuralRiskManager) -> None:
    estimate = manager.calculate_var()
    assert estimate.var == pytest.approx(manager.portfolio.value_at_risk(), rel=1e-12)
    assert estimate.es == pytest.approx(manager.portfolio.expected_shortfall(), rel=1e-12)
    assert estimate.interval is not None
    normal = manager.calculate_var("normal")
    assert 0.5 < normal.var / estimate.var < 1.5
    assert manager.calculate_var(level=0.95).var < estimate.var


def test_stress(manager: NeuralRiskManager) -> None:
    result = manager.stress_test()
    worst = result.worst
    assert worst is not None
    assert worst.pnl < 0.0
    assert result.equity == pytest.approx(100_000.0)


def test_optimisation_and_rebalancing(manager: NeuralRiskManager) -> None:
    pytest.importorskip("clarabel")
    found = manager.optimize_portfolio("min_variance")
    returns = manager.portfolio.scenarios.returns[:2].astype(np.float64)  # type: ignore[union-attr]
    risk = np.asarray(found.weights) @ np.cov(returns) @ np.asarray(found.weights)
    equal = np.array([0.5, 0.5]) * np.sum(found.weights)
    assert risk <= equal @ np.cov(returns) @ equal
    plan = manager.suggest_rebalancing(found.weights)
    assert plan.trades


def test_without_scenarios_measures_say_what_is_missing() -> None:
    portfolio = PortfolioState([InstrumentFacts("AAA.X")])
    gate = RiskGate(RiskLimits(max_position=10.0), portfolio)
    gate.warmup()
    manager = NeuralRiskManager(gate)
    portfolio.on_price("AAA.X", 1.0, 1.0, 1)
    portfolio.set_position("AAA.X", 1.0)
    with pytest.raises(ConfigurationError, match="must be loaded"):
        manager.calculate_var()
    portfolio.set_position("AAA.X", 0.0)
    with pytest.raises(DataConversionError, match="at least one position"):
        manager.optimize_portfolio()
    assert math.isnan(manager.evaluate_risk().metrics["value_at_risk"])


def test_scenarios_that_a_method_has_made_are_read_as_they_are(manager: NeuralRiskManager) -> None:
    past = manager.portfolio.scenarios
    assert past is not None
    made = gate_scenarios(past, "filtered")
    manager.portfolio.set_scenarios(made.scenarios, made.weights)
    held = manager.portfolio.value_at_risk()
    assert manager.calculate_var("historical", confidence=None).var == pytest.approx(held, rel=1e-12)
    for options in ({"method": "filtered"}, {"method": "age_weighted"}, {"method": "normal", "covariance": "ewma"}):
        with pytest.raises(ConfigurationError, match="must not weigh scenarios by age"):
            manager.calculate_var(**options)
    with pytest.raises(ConfigurationError, match="`horizon` must be 1"):
        manager.calculate_var("historical", horizon=5)


def test_the_normal_number_is_that_of_the_gate(manager: NeuralRiskManager) -> None:
    pnl = manager.portfolio.scenario_pnl()
    found = manager.calculate_var("normal", confidence=None)
    assert found.var == pytest.approx(2.3263478740408408 * pnl.std(ddof=1) - pnl.mean(), rel=1e-6)
    assert manager.calculate_var("normal", mean="zero", confidence=None).var != found.var


def test_no_trade_is_named_where_the_gate_reads_another_tail(manager: NeuralRiskManager) -> None:
    """The cut is found on the order statistic; under another tail it would not end the breach."""
    manager.portfolio.set_position("BBB.X", -1_500.0)
    assert any("brings value at risk" in text for text in manager.evaluate_risk().recommendations)
    settings = VarSettings(horizon=DAY, scenarios=500, method="normal", tail="normal")
    facts = [manager.portfolio.facts(name) for name in NAMES]
    portfolio = PortfolioState(facts, manager.portfolio.scenarios, settings)  # type: ignore[arg-type]
    gate = RiskGate(RiskLimits(max_portfolio_var=0.05), portfolio)
    gate.warmup()
    for name in NAMES:
        portfolio.on_price(name, 99.5, 100.5, 1)
    gate.on_equity(100_000.0, 1)
    portfolio.set_position("BBB.X", -1_500.0)
    said = NeuralRiskManager(gate).evaluate_risk().recommendations
    assert len(said) == 1
    assert "only orders that reduce positions pass" in said[0]
