"""Ways to read the tail, stress scenarios, snapshots and names of a portfolio."""

from __future__ import annotations

import json
import math
import statistics

import msgspec
import numpy as np
import pytest
from scipy import stats

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, ScenarioSet, VarSettings, value_at_risk

S, HORIZON = 250, 60
FACTS = [
    InstrumentFacts("A", size_increment=0.5),
    InstrumentFacts("B", "inverse", 100.0, settlement_currency="BTC"),
    InstrumentFacts("C", "binary"),
]


def returns(seed=0, skew=False):
    rng = np.random.default_rng(seed)
    moves = rng.standard_t(4, (len(FACTS), S)) * 0.02
    return np.clip(np.expm1(3.0 * moves) / 3.0 if skew else moves, -0.9, None)


def make(tail="empirical", level=0.95, weights=None, table=None):
    settings = VarSettings(level=level, horizon=HORIZON, tail=tail)
    portfolio = PortfolioState(FACTS, None, settings)
    portfolio.set_scenarios(
        ScenarioSet([f.instrument_id for f in FACTS], returns() if table is None else table, HORIZON), weights
    )
    portfolio.on_rate("BTC", 20_000.0)
    for name, price in (("A", 100.0), ("B", 20_000.0), ("C", 0.4)):
        portfolio.on_price(name, price, price, 1)
        portfolio.set_position(name, 5.0, strategy_id="S")
    return portfolio


def order(quantity=3.0, side=1, instrument="A", **more):
    return OrderView("new", "S", "", instrument, side=side, quantity=quantity, **more)


# -- tails -----------------------------------------------------------------------------------------------------------


def test_equal_weights_are_the_unweighted_definition():
    for level in (0.9, 0.95, 0.99, 0.963):
        plain, weighted = make(level=level), make(level=level, weights=np.full(S, 3.0))
        for case in ("filled", "worst"):
            assert weighted.value_at_risk(case) == plain.value_at_risk(case)
            assert weighted.expected_shortfall(case) == pytest.approx(plain.expected_shortfall(case), rel=1e-12)


@pytest.mark.parametrize("decay", [0.999, 0.98, 0.9])
def test_age_weights_cut_the_cumulative_weight_at_the_level(decay):
    weights = decay ** np.arange(S)[::-1]
    portfolio = make(weights=weights)
    losses = -portfolio.full_revaluation()
    share = weights / weights.sum()
    # VaR = inf{x : P(L <= x) >= level}; ES is the integral of the quantile function above the level, over 1 - level.
    order_of = np.argsort(losses)
    cumulative = np.cumsum(share[order_of])
    assert portfolio.value_at_risk() == pytest.approx(losses[order_of][np.searchsorted(cumulative, 0.95)], rel=1e-9)
    edges = np.concatenate([[0.0], cumulative])
    widths = np.maximum(edges[1:] - np.maximum(edges[:-1], 0.95), 0.0)
    assert portfolio.expected_shortfall() == pytest.approx(float(widths @ losses[order_of]) / 0.05, rel=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_normal_tail_is_that_of_the_sample_covariance(weighted):
    weights = 0.98 ** np.arange(S)[::-1] if weighted else None
    portfolio = make("normal", 0.99, weights)
    portfolio.set_position("B", 0.0, strategy_id="S")
    portfolio.set_position("C", 0.0, strategy_id="S")
    r = np.float32(returns())[:1].astype(np.float64)
    covariance = np.cov(r, aweights=weights)
    mean = np.average(r[0], weights=weights)
    sigma, mu = 500.0 * math.sqrt(covariance), 500.0 * mean
    assert portfolio.value_at_risk() == pytest.approx(-stats.norm.ppf(0.01, mu, sigma), rel=1e-9)
    density = stats.norm.pdf(stats.norm.ppf(0.01))
    assert portfolio.expected_shortfall() == pytest.approx(-mu + sigma * density / 0.01, rel=1e-9)


def test_cornish_fisher_by_the_moments_of_the_results():
    portfolio = make("cornish_fisher", 0.975, table=returns(skew=True))
    pnl = portfolio.full_revaluation()
    z = statistics.NormalDist().inv_cdf(0.025)
    skew, excess = stats.skew(pnl), stats.kurtosis(pnl)
    expanded = z + (z**2 - 1) * skew / 6 + (z**3 - 3 * z) * excess / 24 - (2 * z**3 - 5 * z) * skew**2 / 36
    expected = -(pnl.mean() + pnl.std(ddof=1) * expanded)
    assert portfolio.value_at_risk() == pytest.approx(expected, rel=1e-9)
    # Expected shortfall is the mean of the expanded quantile over the tail.
    u = (np.arange(200_000) + 0.5) / 200_000 * 0.025
    q = stats.norm.ppf(u)
    whole = q + (q**2 - 1) * skew / 6 + (q**3 - 3 * q) * excess / 24 - (2 * q**3 - 5 * q) * skew**2 / 36
    expected = -(pnl.mean() + pnl.std(ddof=1) * whole.mean())
    assert portfolio.expected_shortfall() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("tail", ["normal", "cornish_fisher"])
def test_parametric_what_if_is_that_of_the_portfolio_after_the_fill(tail):
    portfolio = make(tail)
    before = portfolio.what_if(order(4.0))["filled + this order"]
    portfolio.on_fill("A", 4.0, 100.0, "", "", "S")
    assert before[0] == pytest.approx(portfolio.value_at_risk(), rel=1e-9)
    assert before[1] == pytest.approx(portfolio.expected_shortfall(), rel=1e-9)


def test_a_refused_setting_changes_nothing():
    portfolio = make()
    before, pnl = portfolio.scenarios, portfolio.scenario_pnl()
    table = returns(1)
    good = ScenarioSet([f.instrument_id for f in FACTS], table, HORIZON)
    for weights in (np.zeros(S), np.full(S, np.nan), np.ones(S - 1), [[1.0] * S]):
        with pytest.raises(ConfigurationError, match="`weights` must be"):
            portfolio.set_scenarios(good, weights)
    table[1, 7] = -1.0
    with pytest.raises(ConfigurationError, match="inverse instrument B"):
        portfolio.set_scenarios(ScenarioSet(good.instrument_ids, table, HORIZON))
    lone = PortfolioState(FACTS[:1], good, VarSettings(level=0.95, horizon=HORIZON))
    lone.set_scenarios(ScenarioSet(good.instrument_ids, table, HORIZON))  # B is not traded there
    with pytest.raises(ConfigurationError, match="inverse instrument B"):
        lone.add_instrument(FACTS[1])
    assert lone.instrument_ids() == ("A",)
    assert portfolio.scenarios is before
    np.testing.assert_array_equal(portfolio.scenario_pnl(), pnl)


# -- stress ----------------------------------------------------------------------------------------------------------

SHOCKS = np.array([[-0.5, 0.3, 0.0], [-0.4, 0.2, 0.0], [-1.0, 4.0, 0.0]])


def test_stress_losses_are_revalued_and_named():
    portfolio = make()
    with pytest.raises(ConfigurationError, match="`stress` must be set"):
        portfolio.stress_loss()
    portfolio.set_stress(["crash", "boom", "calm"], ["A", "B", "C"], SHOCKS)
    shocks = np.float32(SHOCKS).astype(np.float64)
    expected = (
        500.0 * shocks[0]
        + 5.0 * 100.0 * 20_000.0 * (1 / 20_000.0 - 1 / (20_000.0 * (1.0 + shocks[1])))
        + 5.0 * (np.clip(0.4 * (1.0 + shocks[2]), 0.0, 1.0) - 0.4)
    )
    np.testing.assert_allclose(portfolio.stress_pnl(), expected, rtol=1e-12, atol=1e-9)
    assert portfolio.stress_loss() == (pytest.approx(-expected[0], rel=1e-12), "crash")
    assert portfolio.stress_scenarios == ("crash", "boom", "calm")
    # Sold far below zero, the loss is in the other scenario; as a working order it counts as well.
    loss, name = portfolio.stress_loss(order(40.0, -1))
    assert name == "boom"
    assert loss == pytest.approx(-(expected[1] - 40.0 * 100.0 * shocks[0, 1]), rel=1e-12)
    portfolio.on_working(order(40.0, -1))
    assert portfolio.stress_loss() == (pytest.approx(loss, rel=1e-12), "boom")
    assert portfolio.stress_loss(order(40.0, -1))[0] == pytest.approx(loss, rel=1e-12)  # in its own place
    portfolio.on_order_closed("new")
    portfolio.set_stress([], [], np.empty((0, 0)))
    with pytest.raises(ConfigurationError, match="`stress` must be set"):
        portfolio.stress_pnl()


def test_an_instrument_that_no_stress_scenario_names_is_not_taken_as_calm():
    portfolio = make()
    portfolio.set_stress(["crash"], ["A", "B"], SHOCKS[:2, :1])
    with pytest.raises(DataConversionError, match="C cannot be stressed: MISSING_SCENARIOS"):
        portfolio.stress_loss()
    portfolio.set_position("C", 0.0, strategy_id="S")
    assert portfolio.stress_loss()[1] == "crash"
    with pytest.raises(DataConversionError, match="C cannot be stressed"):
        portfolio.stress_loss(order(1.0, instrument="C"))
    assert portfolio.blocked() == {}  # value at risk knows it


def test_bad_stress_scenarios_are_named_and_change_nothing():
    portfolio = make()
    portfolio.set_stress(["crash", "boom", "calm"], ["A", "B", "C"], SHOCKS)
    before = portfolio.stress_loss()
    for bad, text in ((math.nan, "finite"), (-1.5, ">= -1"), (math.inf, "finite")):
        shocks = SHOCKS.copy()
        shocks[0, 1] = bad
        with pytest.raises(DataConversionError, match=f"{text}.*for A in 'boom'"):
            portfolio.set_stress(["crash", "boom", "calm"], ["A", "B", "C"], shocks)
    shocks = SHOCKS.copy()
    shocks[1, 2] = -1.0
    with pytest.raises(DataConversionError, match=r"> -1, was -1\.0 for B in 'calm'"):
        portfolio.set_stress(["crash", "boom", "calm"], ["A", "B", "C"], shocks)
    with pytest.raises(DataConversionError, match="shape"):
        portfolio.set_stress(["crash"], ["A", "B", "C"], SHOCKS)
    with pytest.raises(DataConversionError, match="distinct"):
        portfolio.set_stress(["crash"], ["A", "A"], SHOCKS[:2, :1])
    assert portfolio.stress_loss() == before


def test_stress_works_without_value_at_risk():
    portfolio = PortfolioState([InstrumentFacts("A")])
    portfolio.set_stress(["crash"], ["A"], [[-0.2]])
    portfolio.on_price("A", 50.0, 50.0, 1)
    portfolio.on_fill("A", 3.0, 50.0)
    assert portfolio.stress_loss() == (pytest.approx(30.0, rel=1e-6), "crash")
    portfolio.add_instrument(InstrumentFacts("B"))
    assert portfolio.stress_loss()[1] == "crash"


# -- plain data ------------------------------------------------------------------------------------------------------


def busy():
    portfolio = make()
    portfolio.on_equity(1e5)
    portfolio.on_last("A", 101.0)
    portfolio.on_price("B", math.nan, 1.0, 9)
    portfolio.on_working(order(9.0, -1, order_type="LIMIT", price=105.0, reduce_only=True, exclusive_group="g"))
    portfolio.on_fill("A", -2.0, 105.0, "", "", "S", "new", "t")
    return portfolio


def test_a_snapshot_brings_everything_back():
    first = busy()
    data = json.loads(json.dumps(first.snapshot()))  # plain data
    again = PortfolioState.from_snapshot(data, first.scenarios, first.var_settings)
    assert again.snapshot() == first.snapshot() == json.loads(msgspec.json.encode(data))
    assert repr(again.positions()) == repr(first.positions())  # NaN prices are not equal
    assert repr(again.working_orders()) == repr(first.working_orders())
    assert again.filled_quantity("new") == 2.0
    assert again.last_price("A") == 101.0
    assert not again.quote("B").valid
    assert again.quote("B") == first.quote("B")
    for case in ("filled", "buys", "sells", "worst"):
        np.testing.assert_allclose(again.scenario_pnl(case), first.scenario_pnl(case), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("base_currency",), "EUR"),
        (("positions", 0, 0), "NOBODY"),
        (("positions", 0, 4), None),
        (("orders", 0, "side"), 0),
        (("orders", 0, "filled"), 99.0),
        (("orders", 0, "quantity"), "many"),
        (("quotes",), []),
        (("more",), 1),
    ],
)
def test_a_damaged_snapshot_is_refused_and_changes_nothing(path, value):
    portfolio = busy()
    before = portfolio.snapshot()
    data = json.loads(json.dumps(before))
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(DataConversionError):
        portfolio.restore(data)
    assert portfolio.snapshot() == before


def test_holdings_are_the_positions_as_arrays():
    portfolio = busy()
    portfolio.on_price("A", 99.0, 101.0, 10)
    held = portfolio.holdings()
    assert held.instrument_ids == ("A", "B", "C")
    assert held.quantities.tolist() == [3.0, 5.0, 5.0]
    assert held.prices.tolist() == [100.0, 20_000.0, 0.4]
    assert held.spreads[0] == pytest.approx(0.02)
    assert math.isnan(held.spreads[1])  # the last quote was unusable
    assert held.equity == 1e5
    np.testing.assert_allclose(held.pnl(portfolio.scenarios.returns), portfolio.scenario_pnl(), rtol=1e-9, atol=1e-9)
    sold = portfolio.holdings("sells")
    assert sold.instrument_ids == ("B", "C")  # the reduce-only order takes A to zero
    portfolio.on_rate("BTC", math.nan)
    with pytest.raises(DataConversionError, match="B cannot be valued: MISSING_RATE"):
        portfolio.holdings()
    assert len(PortfolioState(FACTS, base_currency="USD").holdings()) == 0


# -- names -----------------------------------------------------------------------------------------------------------


def test_names_that_nothing_refers_to_are_used_again():
    portfolio = PortfolioState([InstrumentFacts("A")])
    portfolio.on_fill("A", 5.0, 1.0, "kept", "X", "S")
    portfolio.on_working(OrderView("w", "S", "X", "A", "kept", -1, 2.0, exclusive_group="stays"))
    for n in range(30_000):
        portfolio.on_fill("A", 1.0, 1.0, f"P{n}", "X", "S")
        portfolio.on_fill("A", -1.0, 1.0, f"P{n}", "X", "S")
    assert portfolio.names_in_use() < 3 * 4096
    assert [position[1:4] for position in portfolio.positions()] == [("X", "kept", "S")]
    assert portfolio.working_order("w").exclusive_group == "stays"
    assert portfolio.is_reducing(OrderView("n", "S", "X", "A", "kept", -1, 3.0))
    assert not portfolio.is_reducing(OrderView("n", "S", "X", "A", "kept", -1, 3.5))


def test_many_orders_reuse_their_places():
    portfolio = PortfolioState([InstrumentFacts("A")])
    for n in range(5_000):
        portfolio.on_working(OrderView(f"o{n}", "S", "X", "A", quantity=1.0))
        portfolio.on_order_closed(f"o{n}")
    assert portfolio.counters["grown"] == 0
    assert portfolio.reach("A") == (0.0, 0.0)


def test_margin_rates_follow_the_venue():
    portfolio = PortfolioState([InstrumentFacts("A", margin_rate=0.1)])
    portfolio.on_margin_rate("A", 0.2)
    for name, rate in (("NOBODY", 0.1), ("A", math.nan), ("A", -0.1)):
        with pytest.raises(DataConversionError, match=r"`instrument_id` must be known|`rate` must be finite"):
            portfolio.on_margin_rate(name, rate)


def test_value_at_risk_of_one_instrument_is_the_quantile():
    portfolio = make()
    for name in "BC":
        portfolio.set_position(name, 0.0, strategy_id="S")
    moves = np.float32(returns())[0].astype(np.float64)
    assert portfolio.value_at_risk() == pytest.approx(value_at_risk(500.0 * moves, 0.95), rel=1e-12)
