"""Black-Litterman, whole lots, rebalancing, and the way from holdings to quantities."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("clarabel", reason="the extra `risk` is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from optimise_data import data

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.measures import expected_shortfall
from tengri_fast.risk.optimise import (
    METHODS,
    Constraints,
    Costs,
    Group,
    SignalView,
    Views,
    black_litterman,
    implied_returns,
    mean_variance,
    optimise_portfolio,
    round_to_lots,
    suggest_rebalancing,
    unit_exposures,
    views_from_signals,
    weight_scenarios,
    weights_of,
)

RETURNS, COVARIANCE, MEANS = data()
NAMES = tuple("ABCDEF")
SECOND, DAY = 1e9, 86_400e9
OPEN = Constraints(lower=-math.inf, upper=math.inf, budget=None)


def holdings(**changes: Any) -> Holdings:
    values: dict[str, Any] = {
        "instrument_ids": NAMES,
        "quantities": [10.0, 0.0, -5.0, 100.0, 0.0, 3.0],
        "prices": [100.0, 20.0, 400.0, 10.0, 50_000.0, 1_000.0],
        "multipliers": [1.0, 10.0, 1.0, 1.0, 100.0, 1.0],
        "rates": [1.0, 1.0, 1.25, 1.0, 30_000.0, 1.0],
        "payoffs": ["linear"] * 4 + ["inverse", "linear"],
        "asset_classes": ["a", "a", "b", "b", "c", "c"],
        "spreads": [2e-4] * 6,
        "volumes": [1e5, 1e4, 1e5, 1e6, 1e3, 1e4],
        "equity": 100_000.0,
    }
    return Holdings(**(values | changes))


# ---- Black-Litterman -------------------------------------------------------------------------------------------------


def test_the_posterior_is_that_of_the_precision_form() -> None:
    """[(tau S)^-1 + P' O^-1 P]^-1 [(tau S)^-1 pi + P' O^-1 Q], the formula as it was published."""
    rng = np.random.default_rng(3)
    p = rng.standard_normal((2, 6))
    views = Views(p, np.array([1e-3, -2e-3]), np.diag([3e-6, 1e-5]))
    market = rng.dirichlet(np.ones(6))
    tau = 0.1
    found = black_litterman(COVARIANCE, views, market_weights=market, risk_aversion=3.0, tau=tau)
    prior = 3.0 * COVARIANCE @ market
    np.testing.assert_allclose(found.prior, prior, rtol=1e-12)
    precision = np.linalg.inv(tau * COVARIANCE) + p.T @ np.linalg.inv(views.omega) @ p
    posterior = np.linalg.solve(
        precision, np.linalg.solve(tau * COVARIANCE, prior) + p.T @ (views.q / np.diag(views.omega))
    )
    np.testing.assert_allclose(found.expected, posterior, rtol=1e-9)
    np.testing.assert_allclose(found.covariance, COVARIANCE + np.linalg.inv(precision), rtol=1e-9)
    # Without a view the market's own weights come back.
    empty = Views(np.zeros((0, 6)), np.zeros(0), np.zeros((0, 0)))
    plain = black_litterman(COVARIANCE, empty, market_weights=market, risk_aversion=3.0, tau=tau)
    back = mean_variance(plain.expected, plain.covariance / (1 + tau), OPEN, risk_aversion=3.0)
    np.testing.assert_allclose(back.weights, market, atol=1e-6)


def test_seven_countries_of_he_and_litterman() -> None:
    """He and Litterman 1999, "The intuition behind Black-Litterman model portfolios", tables 1 to 4."""
    volatility = np.array([16.0, 20.3, 24.8, 27.1, 21.0, 20.0, 18.7]) / 100.0
    rows = "1 .488 .478 .515 .439 .512 .491/1 .664 .655 .310 .608 .779/1 .861 .355 .783 .668/1 .354 .777 .653/" \
        "1 .405 .306/1 .652/1"  # fmt: skip
    correlation = np.eye(7)
    for i, row in enumerate(rows.split("/")):
        correlation[i, i:] = correlation[i:, i] = [float(x) for x in row.split()]
    covariance = np.outer(volatility, volatility) * correlation
    market = np.array([1.6, 2.2, 5.2, 5.5, 11.6, 12.4, 61.5]) / 100.0
    # Germany will do 5 % better than the rest of Europe, by size; as uncertain as the prior is about it.
    view = np.array([[0.0, 0.0, -0.295, 1.0, 0.0, -0.705, 0.0]])
    views = Views(view, np.array([0.05]), 0.05 * view @ covariance @ view.T)
    found = black_litterman(covariance, views, market_weights=market, risk_aversion=2.5, tau=0.05)
    np.testing.assert_allclose(100 * found.prior, [3.9, 6.9, 8.4, 9.0, 4.3, 6.8, 7.6], atol=0.06)
    np.testing.assert_allclose(100 * found.expected, [4.3, 7.6, 9.3, 11.0, 4.5, 7.0, 8.1], atol=0.06)
    weights = np.linalg.solve(2.5 * found.covariance, found.expected)
    np.testing.assert_allclose(100 * weights, [1.5, 2.1, -4.0, 35.4, 11.0, -9.5, 58.6], atol=0.06)


@pytest.mark.parametrize("confidence", [0.05, 0.25, 0.5, 0.9])
def test_a_single_view_moves_by_its_confidence(confidence: float) -> None:
    """Idzorek: a confidence of c tilts the expected return by c of the way to the view."""
    probability = 1 / 3 + confidence * 2 / 3
    views = views_from_signals({"C": SignalView(12.0, probability, DAY)}, COVARIANCE, NAMES, horizon_ns=DAY)
    for prior in (np.zeros(6), implied_returns(COVARIANCE, np.full(6, 1 / 6))):
        found = black_litterman(COVARIANCE, views, prior=prior)
        assert found.expected[2] - prior[2] == pytest.approx(confidence * (12e-4 - prior[2]), rel=1e-9)
        # The others follow by their covariance with it.
        tilt = (found.expected - prior) / (found.expected[2] - prior[2])
        np.testing.assert_allclose(tilt, COVARIANCE[2] / COVARIANCE[2, 2], rtol=1e-9)


def test_signals_become_views() -> None:
    signals = {
        "A": SignalView(10.0, 0.9, 10 * SECOND),  # counts once in a day
        "B": SignalView(-30.0, 0.6, 2 * DAY),  # half of it falls into the day
        "C": SignalView(50.0, 1 / 3, DAY),  # says nothing
        "D": SignalView(math.nan, 0.9, DAY),
        "E": SignalView(5.0, 1.0, DAY),
    }
    views = views_from_signals(signals, COVARIANCE, NAMES, horizon_ns=DAY, tau=0.05)
    assert views.p.tolist() == np.eye(6)[[0, 1, 4]].tolist()
    np.testing.assert_allclose(views.q, [10e-4, -15e-4, 5e-4], rtol=1e-12)
    c = np.array([(0.9 - 1 / 3) * 1.5, (0.6 - 1 / 3) * 1.5, 0.99])
    np.testing.assert_allclose(np.diag(views.omega), 0.05 * np.diag(COVARIANCE)[[0, 1, 4]] * (1 - c) / c, rtol=1e-12)
    nothing = views_from_signals({}, COVARIANCE, NAMES, horizon_ns=DAY)
    assert nothing.p.shape == (0, 6)
    assert black_litterman(COVARIANCE, nothing).expected.tolist() == [0.0] * 6
    for bad, words in (
        ({"Q": SignalView(1.0, 0.9, DAY)}, "'Q'"),
        ({"A": SignalView(1.0, 1.9, DAY)}, "confidence"),
        ({"A": SignalView(1.0, 0.9, 0.0)}, "horizon"),
    ):
        with pytest.raises(DataConversionError, match=words):
            views_from_signals(bad, COVARIANCE, NAMES, horizon_ns=DAY)
    with pytest.raises(ConfigurationError, match="`tau`"):
        black_litterman(COVARIANCE, nothing, tau=0.0)
    with pytest.raises(ConfigurationError, match="must not both"):
        black_litterman(COVARIANCE, nothing, prior=MEANS, market_weights=MEANS)
    with pytest.raises(DataConversionError, match="`views`"):
        black_litterman(COVARIANCE, Views(np.eye(3), np.zeros(3), np.eye(3)))


# ---- lots ------------------------------------------------------------------------------------------------------------


def every_rounding(
    target: np.ndarray, per_lot: np.ndarray, rules: Constraints, names: tuple[str, ...], covariance: np.ndarray,
    reach: int,
) -> float:  # fmt: skip
    """Least squared tracking error over all lots within `reach` of the target that keep the constraints."""
    best = math.inf
    base = np.floor(target / per_lot)
    for offsets in itertools.product(range(1 - reach, reach + 1), repeat=len(target)):
        w = (base + np.array(offsets)) * per_lot
        if rules.violations(w, names, tolerance=1e-9, budget_below=math.inf):
            continue
        best = min(best, float((w - target) @ covariance @ (w - target)))
    return best


@given(seed=st.integers(0, 10**6), count=st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_lots_against_enumeration(seed: int, count: int) -> None:
    """Never worse than the best rounding up or down; greedy within a little of the best over a wider range."""
    rng = np.random.default_rng(seed)
    names = NAMES[:count]
    target = rng.dirichlet(np.ones(count))
    units = rng.uniform(0.02, 0.15, count)
    covariance = COVARIANCE[:count, :count]
    rules = Constraints(upper=0.8, groups=(Group("g", names[:2], upper=0.9),))
    found = round_to_lots(target, units, np.ones(count), rules, names, covariance=covariance)
    assert found.broken == ()
    np.testing.assert_array_equal(found.quantities, np.round(found.quantities))
    np.testing.assert_allclose(found.weights, found.quantities * units, rtol=1e-12)
    near = every_rounding(target, units, rules, names, covariance, 1)
    assert found.tracking_error**2 <= near * (1 + 1e-9) + 1e-18
    assert found.tracking_error == pytest.approx(
        math.sqrt((found.weights - target) @ covariance @ (found.weights - target)), rel=1e-9, abs=1e-15
    )


def test_greedy_lots_of_many_instruments() -> None:
    """Thirty instruments, too many to enumerate: constraints kept, and nearer than rounding down or to the nearest."""
    rng = np.random.default_rng(5)
    n = 30
    names = tuple(f"i{k}" for k in range(n))
    loads = rng.standard_normal((n, 2))
    covariance = loads @ loads.T * 1e-4 + np.diag(rng.uniform(1, 3, n)) * 1e-4
    target = rng.dirichlet(np.ones(n))
    units = rng.uniform(0.002, 0.02, n)
    rules = Constraints(groups=(Group("g", names[:10], upper=float(target[:10].sum())),))
    found = round_to_lots(target, units, np.ones(n), rules, names, covariance=covariance)
    assert not found.exact
    assert found.broken == ()

    def error(w: np.ndarray) -> float:
        return float(math.sqrt((w - target) @ covariance @ (w - target)))

    down = np.floor(target / units) * units
    assert found.tracking_error < 0.5 * error(down)
    assert found.tracking_error < error(np.round(target / units) * units)
    for i, step in itertools.product(range(n), (-1, 1)):
        other = found.weights + step * units[i] * np.eye(n)[i]
        if not rules.violations(other, names, tolerance=1e-9, budget_below=math.inf):
            assert error(other) >= found.tracking_error


def test_lots_that_cannot_keep_a_constraint_say_so() -> None:
    rules = Constraints(lower=0.3, upper=0.35, budget=None)
    found = round_to_lots([0.32, 0.32], [0.2, 0.1], [1.0, 1.0], rules, ("A", "B"))
    assert found.weights.tolist() == [0.4, 0.30000000000000004]
    assert found.broken == ("upper A",)
    whole = round_to_lots([0.3, 0.4], [0.1, 0.1], [1.0, 1.0], Constraints(budget=None), ("A", "B"))
    assert whole.quantities.tolist() == [3.0, 4.0]
    assert whole.tracking_error == pytest.approx(0.0, abs=1e-15)
    with pytest.raises(DataConversionError, match="`lots`"):
        round_to_lots([0.3], [0.1], [0.0], OPEN, ("A",))


# ---- holdings --------------------------------------------------------------------------------------------------------


def test_weights_and_scenarios_of_holdings() -> None:
    held = holdings()
    expected = [1_000 / 1e5, 0.0, -2_500 / 1e5, 1_000 / 1e5, 0.0, 3_000 / 1e5]
    np.testing.assert_allclose(weights_of(held), expected, rtol=1e-12)
    assert unit_exposures(held)[4] == pytest.approx(100 / 50_000 * 30_000)
    table = weight_scenarios(held, RETURNS.T)
    np.testing.assert_allclose(table[:4], RETURNS.T[:4], rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(table[4], RETURNS[:, 4] / (1 + RETURNS[:, 4]), rtol=1e-12)
    with pytest.raises(DataConversionError, match="equity"):
        weights_of(holdings(equity=math.nan))
    with pytest.raises(DataConversionError, match="exposure per unit"):
        unit_exposures(holdings(deltas=[0.0] * 6, gammas=[0.0] * 6))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_quantities(method: str) -> None:
    held = holdings()
    views = views_from_signals({"B": SignalView(20.0, 0.8, DAY)}, COVARIANCE, NAMES, horizon_ns=DAY)
    common: dict[str, Any] = {
        "returns": RETURNS.T, "expected": MEANS, "views": views, "constraints": Constraints(upper=0.5), "level": 0.95,
    }  # fmt: skip
    free = optimise_portfolio(held, method, **common)
    np.testing.assert_allclose(free.quantities * unit_exposures(held) / 1e5, free.weights, rtol=1e-12)
    pnl = free.quantities @ held.unit_pnl(RETURNS.T) / 1e5
    assert free.expected_shortfall == pytest.approx(expected_shortfall(pnl, 0.95), rel=1e-9)
    lots = np.array([1.0, 1.0, 1.0, 10.0, 1.0, 1.0])
    whole = optimise_portfolio(held, method, lots=lots, **common)
    assert whole.quantities is not None
    np.testing.assert_array_equal(whole.quantities % lots, 0.0)
    assert Constraints(upper=0.5).violations(whole.weights, NAMES, budget_below=math.inf) == []
    assert np.abs(whole.weights - free.weights).max() < 0.02
    assert "rounded to lots" in whole.notes[-1]
    assert whole.risk_contributions.sum() == pytest.approx(whole.volatility, rel=1e-10)


def test_an_unknown_method_or_a_missing_input_is_named() -> None:
    held = holdings()
    for options, words in (
        ({"method": "best"}, "`method`"),
        ({}, "`covariance` or `returns`"),
        ({"method": "max_sharpe", "covariance": COVARIANCE}, "`expected`"),
        ({"method": "min_cvar", "covariance": COVARIANCE}, "`returns`"),
        ({"method": "black_litterman", "covariance": COVARIANCE}, "`views`"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            optimise_portfolio(held, **options)  # type: ignore[arg-type]


def test_groups_of_holdings() -> None:
    groups = Group.of(holdings(), "asset_classes", {"a": (0.0, 0.3), "c": (0.1, 1.0)})
    assert [(g.name, g.members) for g in groups] == [("a", ("A", "B")), ("c", ("E", "F"))]
    found = optimise_portfolio(holdings(), covariance=COVARIANCE, constraints=Constraints(groups=groups))
    assert found.weights[:2].sum() <= 0.3 + 1e-9
    with pytest.raises(ConfigurationError, match="`bounds`"):
        Group.of(holdings(), "asset_classes", {"z": (0.0, 1.0)})
    with pytest.raises(ConfigurationError, match="`by`"):
        Group.of(holdings(), "prices", {})


# ---- costs and rebalancing -------------------------------------------------------------------------------------------


def test_costs_of_holdings_are_those_of_the_square_root_law() -> None:
    held = holdings()
    sigma = np.full(6, 0.02)
    costs = Costs.of(held, fee_bps=1.0, daily_volatility=sigma, impact=0.8)
    quantity = np.array([50.0, 5.0, 10.0, 1000.0, 20.0, 4.0])
    money = quantity * unit_exposures(held)
    exact = money * (1e-4 + 1e-4 + 0.8 * sigma * np.sqrt(quantity / held.volumes))
    np.testing.assert_allclose(costs.of_changes(money / 1e5) * 1e5, exact, rtol=1e-12)
    for options, words in (
        ({"spreads": None}, "spreads"),
        ({"volumes": None}, "volumes"),
    ):
        with pytest.raises(DataConversionError, match=words):
            Costs.of(holdings(**options), daily_volatility=sigma, impact=1.0)
    with pytest.raises(DataConversionError, match="daily_volatility"):
        Costs.of(held, impact=1.0)


LOTS = np.array([1.0, 1.0, 1.0, 10.0, 1.0, 1.0])
TARGET = np.array([0.20, 0.10, 0.15, 0.20, 0.15, 0.20])


def test_without_costs_the_target_is_reached_in_lots() -> None:
    held = holdings()
    found = suggest_rebalancing(held, TARGET, lots=LOTS)
    after = {t.instrument_id: t.quantity for t in found.trades}
    assert set(after) == set(NAMES)
    units = unit_exposures(held) / 1e5
    assert (np.abs(found.weights - TARGET) <= 0.5 * np.abs(units) * LOTS + 1e-12).all()
    assert all(t.quantity % LOTS[NAMES.index(t.instrument_id)] == 0.0 for t in found.trades)
    assert found.turnover == pytest.approx(np.abs(found.weights - weights_of(held)).sum(), rel=1e-12)
    assert found.cost == 0.0
    assert found.broken == ()
    again = suggest_rebalancing(holdings(quantities=held.quantities + [after[n] for n in NAMES]), TARGET, lots=LOTS)
    assert again.trades == ()


def test_the_band_and_costs_leave_trades_out() -> None:
    held = holdings(quantities=[190.0, 48.0, 30.0, 1990.0, 240.0, 21.0])
    gaps = np.abs(weights_of(held) - TARGET)
    found = suggest_rebalancing(held, TARGET, lots=LOTS, band=0.008)
    assert {t.instrument_id for t in found.trades} == {n for n, g in zip(NAMES, gaps, strict=True) if g > 0.008}
    assert {s.reason for s in found.skipped} == {"within the no-trade band"}
    costs = Costs(linear=1e-5)
    weighed = [
        suggest_rebalancing(held, TARGET, costs=costs, lots=LOTS, covariance=COVARIANCE, risk_aversion=a)
        for a in (1e-3, 200.0, 1e6)
    ]
    assert weighed[0].trades == ()
    assert all("not above cost" in s.reason for s in weighed[0].skipped)
    assert len(weighed[0].trades) < len(weighed[1].trades) <= len(weighed[2].trades)
    for found in weighed:
        for trade in found.trades:
            assert trade.benefit > trade.cost
        assert found.cost == pytest.approx(sum(t.cost for t in found.trades), rel=1e-12, abs=1e-12)


def test_the_chosen_trades_are_worth_their_cost_together() -> None:
    """Utility after minus before is what the trades add up to, and beats its cost; one more or less is not better."""
    held = holdings()
    costs = Costs(linear=1e-4, impact=5e-4)
    aversion = 30.0
    found = suggest_rebalancing(
        held, TARGET, costs=costs, lots=LOTS, covariance=COVARIANCE, expected=MEANS, risk_aversion=aversion
    )
    start = weights_of(held)

    def utility(w: np.ndarray) -> float:
        return float(MEANS @ w - 0.5 * aversion * w @ COVARIANCE @ w)

    gained = 1e5 * (utility(found.weights) - utility(start))
    assert gained == pytest.approx(sum(t.benefit for t in found.trades), rel=1e-9)
    assert gained > found.cost > 0.0
    assert 0 < len(found.trades) < 6
    for skipped in found.skipped:
        i = NAMES.index(skipped.instrument_id)
        more = found.weights.copy()
        more[i] += skipped.quantity * unit_exposures(held)[i] / 1e5
        price = costs.of_changes(np.where(np.arange(6) == i, more - found.weights, 0.0)).sum()
        assert utility(more) - utility(found.weights) <= price


def test_a_broken_constraint_is_repaired_whatever_it_costs() -> None:
    held = holdings(quantities=[600.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    rules = Constraints(upper=0.4, budget=None)
    target = np.array([0.35, 0.0, 0.0, 0.1, 0.0, 0.0])
    found = suggest_rebalancing(
        held, target, rules, Costs(linear=0.5), lots=LOTS, covariance=COVARIANCE, risk_aversion=1e-3
    )
    assert [(t.instrument_id, t.reason) for t in found.trades] == [("A", "upper A")]
    assert found.trades[0].quantity == -250.0
    assert found.broken == ()
    assert found.trades[0].cost > found.trades[0].benefit


def test_hostile_rebalancing() -> None:
    held = holdings()
    for options, error, words in (
        ({"target": TARGET[:3]}, DataConversionError, "`target`"),
        ({"target": [math.nan] * 6}, DataConversionError, "`target`"),
        ({"band": -1.0}, ConfigurationError, "`band`"),
        ({"risk_aversion": 0.0}, ConfigurationError, "`risk_aversion`"),
        ({"expected": MEANS}, ConfigurationError, "`covariance`"),
        ({"lots": 0.0}, DataConversionError, "`lots`"),
    ):
        with pytest.raises(error, match=words):
            suggest_rebalancing(held, **({"target": TARGET, "lots": 1.0} | options))  # type: ignore[arg-type]
