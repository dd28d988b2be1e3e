"""Optimisers against closed forms, other libraries' numbers, certificates of optimality, and prices by differences."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("clarabel", reason="the extra `risk` is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from optimise_data import data, random_market, random_rules, rows_of
from optimise_pinned import RISKFOLIO, SKFOLIO
from scipy.optimize import linprog

from tengri_fast.errors import ConfigurationError, DataConversionError, MissingExtraError
from tengri_fast.risk.measures import expected_shortfall, value_at_risk
from tengri_fast.risk.optimise import (
    Constraints,
    Costs,
    Group,
    InfeasibleError,
    SolverSettings,
    checked_covariance,
    custom_objective,
    hierarchical_risk_parity,
    maximum_sharpe,
    mean_variance,
    minimum_cvar,
    minimum_variance,
    quasi_diagonal_order,
    risk_parity,
)

RETURNS, COVARIANCE, MEANS = data()
FREE = Constraints(lower=-math.inf, upper=math.inf)
NAMES = tuple("ABCDEF")


# ---- closed forms ----------------------------------------------------------------------------------------------------


def test_unconstrained_minimum_variance_and_tangency() -> None:
    inverse = np.linalg.inv(COVARIANCE)
    ones = inverse @ np.ones(6)
    found = minimum_variance(COVARIANCE, FREE)
    np.testing.assert_allclose(found.weights, ones / ones.sum(), atol=1e-8)
    assert found.objective == pytest.approx(1.0 / ones.sum(), rel=1e-9)
    excess = MEANS - 1e-4
    tangent = inverse @ excess
    found = maximum_sharpe(MEANS, COVARIANCE, FREE, risk_free=1e-4)
    np.testing.assert_allclose(found.weights, tangent / tangent.sum(), atol=1e-6)
    assert found.objective == pytest.approx(math.sqrt(excess @ tangent), rel=1e-8)


def test_unconstrained_mean_variance_with_quadratic_costs() -> None:
    now = np.array([0.1, 0.3, 0.0, -0.2, 0.0, 0.4])
    bare = Constraints(lower=-math.inf, upper=math.inf, budget=None)
    found = mean_variance(MEANS, COVARIANCE, bare, risk_aversion=3.0)
    np.testing.assert_allclose(found.weights, np.linalg.solve(3.0 * COVARIANCE, MEANS), rtol=1e-6)
    # Quadratic cost c: gradient mu - a S w - 2 c (w - w0) = 0.
    found = mean_variance(MEANS, COVARIANCE, bare, risk_aversion=3.0, costs=Costs(quadratic=2e-4), current=now)
    exact = np.linalg.solve(3.0 * COVARIANCE + 4e-4 * np.eye(6), MEANS + 4e-4 * now)
    np.testing.assert_allclose(found.weights, exact, rtol=1e-6)


def test_impact_of_power_three_halves_in_one_dimension() -> None:
    """mu w - a s^2 w^2 / 2 - k w^1.5: the optimum is a root of mu - a s^2 w - 1.5 k sqrt(w)."""
    mu, variance, k, aversion = 1e-3, 4e-4, 5e-4, 2.0
    root = (-1.5 * k + math.sqrt(2.25 * k * k + 4.0 * aversion * variance * mu)) / (2.0 * aversion * variance)
    bare = Constraints(lower=-9.0, upper=9.0, budget=None)
    found = mean_variance([mu], [[variance]], bare, risk_aversion=aversion, costs=Costs(impact=k))
    # An objective to 1e-9 gives weights to its square root.
    best = mu * root**2 - 0.5 * aversion * variance * root**4 - k * root**3
    assert found.objective == pytest.approx(best, rel=1e-8)
    assert found.weights[0] == pytest.approx(root**2, rel=5e-5)
    assert found.cost == pytest.approx(k * root**3, rel=1e-4)


def test_linear_costs_leave_a_band_alone() -> None:
    """The price moves only when the gain at the margin exceeds the cost of trading."""
    bare = Constraints(lower=-9.0, upper=9.0, budget=None)
    variance, aversion, fee, now = 4e-4, 2.0, 3e-4, 0.5
    for mu in np.linspace(-1e-3, 2e-3, 13):
        found = mean_variance(
            [mu], [[variance]], bare, risk_aversion=aversion, costs=Costs(linear=fee), current=[now]
        ).weights[0]
        slope = mu - aversion * variance * now
        expected = now if abs(slope) <= fee else now + (slope - math.copysign(fee, slope)) / (aversion * variance)
        assert found == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.9])
def test_risk_parity_of_two_is_inverse_volatility(correlation: float) -> None:
    a, b = 0.1, 0.25
    matrix = np.array([[a * a, correlation * a * b], [correlation * a * b, b * b]])
    found = risk_parity(matrix)
    np.testing.assert_allclose(found.weights, [b / (a + b), a / (a + b)], rtol=1e-12)
    np.testing.assert_allclose(found.risk_contributions, found.volatility / 2, rtol=1e-12)


def test_minimum_cvar_of_two_by_a_fine_grid() -> None:
    table = RETURNS[:, :2].T
    found = minimum_cvar(table, level=0.95)
    grid = np.linspace(0, 1, 20_001)
    best = min(expected_shortfall(w * table[0] + (1 - w) * table[1], 0.95) for w in grid[::50])
    assert found.objective <= best + 1e-12
    near = min(
        expected_shortfall(w * table[0] + (1 - w) * table[1], 0.95) for w in found.weights[0] + 1e-4 * np.arange(-5, 6)
    )
    assert found.objective <= near + 1e-10


# ---- other libraries -------------------------------------------------------------------------------------------------

GROUPS = (Group("b", ("C", "D"), lower=0.3), Group("c", ("E", "F"), upper=0.35))


def our_answers() -> dict[str, Any]:
    return {
        "minimum variance": lambda: minimum_variance(COVARIANCE),
        "minimum variance, box and groups": lambda: minimum_variance(
            COVARIANCE, Constraints(lower=0.02, upper=0.4, groups=GROUPS), names=NAMES
        ),
        "minimum variance, long and short": lambda: minimum_variance(COVARIANCE, Constraints(lower=-0.3, upper=0.8)),
        "maximum Sharpe": lambda: maximum_sharpe(MEANS, COVARIANCE),
        "maximum Sharpe, box": lambda: maximum_sharpe(MEANS, COVARIANCE, Constraints(lower=0.05, upper=0.3)),
        # skfolio's utility has no half.
        "mean-variance, costs": lambda: mean_variance(
            MEANS, COVARIANCE, risk_aversion=8.0, costs=Costs(linear=2e-4), current=np.full(6, 1 / 6)
        ),
        "minimum CVaR": lambda: minimum_cvar(RETURNS.T, level=0.95),
        "risk parity": lambda: risk_parity(COVARIANCE),
        "risk parity, budgets": lambda: risk_parity(COVARIANCE, budgets=[0.3, 0.1, 0.1, 0.2, 0.1, 0.2]),
        "hierarchical risk parity, direct distance": lambda: hierarchical_risk_parity(COVARIANCE, distance="direct"),
    }


@pytest.mark.parametrize("library", ["skfolio", "riskfolio"])
def test_the_weights_of_other_libraries(library: str) -> None:
    """Their solvers stop at looser tolerances than ours: weights agree to 1e-4 and our objective is not worse."""
    pinned = SKFOLIO if library == "skfolio" else RISKFOLIO
    assert len(pinned) >= 5
    for name, weights in pinned.items():
        found = our_answers()[name]()
        np.testing.assert_allclose(found.weights, weights, atol=1e-4, err_msg=f"{library}, {name}")
        assert found.status == "optimal"


@pytest.mark.parametrize("library", ["skfolio", "riskfolio"])
def test_the_pinned_numbers_are_those_of_the_installed_library(library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is compared by pinned numbers where it is not installed")
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parent.parent / "oracles" / "make_optimise.py"
    spec = importlib.util.spec_from_file_location("make_optimise", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    live = made.skfolio_answers(RETURNS) if library == "skfolio" else made.riskfolio_answers(RETURNS)
    for name, weights in (SKFOLIO if library == "skfolio" else RISKFOLIO).items():
        np.testing.assert_allclose(live[name], weights, atol=1e-4, err_msg=name)


# ---- certificates of optimality --------------------------------------------------------------------------------------


def gap(
    gradient: np.ndarray, change_gradient: np.ndarray, w: np.ndarray, rows: dict[str, Any], now: np.ndarray
) -> float:
    """How far a convex objective can at most be from its least value: the Frank-Wolfe gap, by HiGHS."""
    cost = np.concatenate([gradient, np.zeros(len(w)), change_gradient])
    best = linprog(cost, **rows)
    assert best.status == 0, best.message
    return float(gradient @ w + change_gradient @ np.abs(w - now)) - best.fun


def smallest(rules: Constraints) -> list[float]:
    """Lower bounds of sums of weights; one above zero keeps all weights from being zero."""
    found = [group.lower for group in rules.groups]
    return found + ([rules.net[0]] if rules.net else []) + ([1 - rules.cash[1]] if rules.cash else [])


@given(seed=st.integers(0, 10**6), count=st.integers(3, 7))
@settings(max_examples=40, deadline=None)
def test_nothing_feasible_is_better(seed: int, count: int) -> None:
    """Each answer keeps its constraints, and a linear program certifies that none better exists."""
    rng = np.random.default_rng(seed)
    covariance, means = random_market(seed, count)
    names = tuple(f"i{k}" for k in range(count))
    now = rng.dirichlet(np.ones(count))
    rules = random_rules(rng, names, now)
    rows = rows_of(rules, names, now)
    feasible = linprog(np.zeros(3 * count), **rows).status == 0
    common: dict[str, Any] = {"names": names, "current": now}
    if not feasible:
        with pytest.raises(InfeasibleError):
            minimum_variance(covariance, rules, **common)
        return
    none = np.zeros(count)

    found = minimum_variance(covariance, rules, **common)
    assert rules.violations(found.weights, names, now, tolerance=1e-7) == []
    assert gap(2 * covariance @ found.weights, none, found.weights, rows, now) < 1e-6 * found.objective + 1e-11

    costs = Costs(linear=rng.uniform(0, 3e-4, count), quadratic=2e-4, impact=rng.uniform(0, 1e-3, count))
    found = mean_variance(means, covariance, rules, risk_aversion=4.0, costs=costs, **common)
    w, moved = found.weights, np.abs(found.weights - now)
    assert rules.violations(w, names, now, tolerance=1e-7) == []
    gradient = 4.0 * covariance @ w - means
    per_change = costs.linear + 2 * costs.quadratic * moved + 1.5 * costs.impact * np.sqrt(moved)
    assert gap(gradient, per_change, w, rows, now) < 2e-7  # a first-order bound; utilities are near 1e-3
    assert found.objective == pytest.approx(
        means @ w - 2.0 * w @ covariance @ w - costs.of_changes(w - now).sum(), rel=1e-12, abs=1e-15
    )

    best_return = -linprog(np.concatenate([-means, none, none]), **rows).fun
    if best_return < 1e-5:
        return
    if rules.budget is None and not any(bound > 0 for bound in smallest(rules)):
        # The ratio may be best at weights of no size at all.
        with contextlib.suppress(InfeasibleError):
            maximum_sharpe(means, covariance, rules, **common)
        return
    found = maximum_sharpe(means, covariance, rules, **common)
    w = found.weights
    assert rules.violations(w, names, now, tolerance=1e-6) == []
    # At the best ratio s, m'w - s vol(w) is greatest, and zero.
    gradient = found.objective * (covariance @ w) / found.volatility - means
    assert gap(gradient, none, w, rows, now) < 1e-5 * abs(found.expected_return) + 1e-9


@given(seed=st.integers(0, 10**6))
@settings(max_examples=12, deadline=None)
def test_minimum_cvar_is_that_of_the_linear_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, s, level = 4, 60, 0.9
    table = rng.standard_t(3, (n, s)) * 0.01 + rng.normal(0, 0.002, (n, 1))
    target = float(np.median(table.mean(axis=1)))
    found = minimum_cvar(table, Constraints(upper=0.7), level=level, min_return=target)
    tail = (1 - level) * s
    cost = np.concatenate([np.zeros(n), [1.0], np.full(s, 1 / tail)])
    upper = np.vstack([
        np.hstack([-table.T, -np.ones((s, 1)), -np.eye(s)]),
        np.concatenate([-table.mean(axis=1), np.zeros(s + 1)])[None],
    ])  # fmt: skip
    equal = np.concatenate([np.ones(n), np.zeros(s + 1)])[None]
    bounds = [(0, 0.7)] * n + [(None, None)] + [(0, None)] * s
    best = linprog(cost, upper, np.append(np.zeros(s), -target), equal, [1.0], bounds)
    assert found.objective == pytest.approx(best.fun, abs=1e-9)
    assert found.objective == found.expected_shortfall == expected_shortfall(found.weights @ table, level)
    assert found.value_at_risk == value_at_risk(found.weights @ table, level)
    assert found.expected_return >= target - 1e-9


def test_constraints_in_cvxpy_give_the_same() -> None:
    """The objective in cvxpy, and the constraints written for it a second time."""
    cvxpy = pytest.importorskip("cvxpy", reason="cvxpy is not installed")
    rng = np.random.default_rng(12)
    checked = 0
    for seed in range(12):
        covariance, _ = random_market(seed, 5)
        names = tuple("VWXYZ")
        now = rng.dirichlet(np.ones(5))
        rules = random_rules(rng, names, now)
        common: dict[str, Any] = {"names": names, "current": now}
        try:
            ours = minimum_variance(covariance, rules, **common)
        except InfeasibleError:
            continue
        theirs = custom_objective(lambda w, s=covariance: cvxpy.quad_form(w, 1e4 * s), covariance, rules, **common)
        np.testing.assert_allclose(theirs.weights, ours.weights, atol=2e-6)
        priced = {b.name: b.shadow_price * 1e-4 for b in theirs.binding if abs(b.shadow_price) > 1e-3}
        for name, price in priced.items():
            mine = {b.name: b.shadow_price for b in ours.binding}
            if name.startswith("max_change"):
                continue  # two rows of ours, one of theirs
            assert mine[name] == pytest.approx(price, rel=1e-3, abs=1e-9), name
        checked += 1
    assert checked > 6


def test_an_objective_that_is_not_convex_is_refused() -> None:
    cvxpy = pytest.importorskip("cvxpy", reason="cvxpy is not installed")
    with pytest.raises(ConfigurationError, match="must be convex"):
        custom_objective(lambda w: -cvxpy.sum_squares(w), COVARIANCE)
    found = custom_objective(cvxpy.sum_squares, COVARIANCE, extra=lambda w: [w[0] >= 0.5])
    np.testing.assert_allclose(found.weights, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1], atol=1e-6)
    assert found.binding[0].name in ("budget", "extra 0")


# ---- shadow prices ---------------------------------------------------------------------------------------------------


def test_shadow_prices_are_slopes() -> None:
    """Each price against the change of the objective when the bound is moved."""
    now = np.full(6, 1 / 6)
    h = 1e-4

    def variance(**changes: Any) -> Any:
        base: dict[str, Any] = {
            "lower": 0.02,
            "upper": 0.3,
            "groups": (Group("g", ("A", "F"), upper=0.4),),
            "turnover": 0.5,
        }
        return minimum_variance(COVARIANCE, Constraints(**(base | changes)), names=NAMES, current=now)

    prices = {b.name: b.shadow_price for b in variance().binding}
    assert {"budget", "group g upper"} <= set(prices)
    moved = {
        "budget": ({"budget": 1 + h}, {"budget": 1 - h}),
        "group g upper": tuple({"groups": (Group("g", ("A", "F"), upper=0.4 + step),)} for step in (h, -h)),
        "turnover": ({"turnover": 0.5 + h}, {"turnover": 0.5 - h}),
    }  # fmt: skip
    for name, (more, less) in moved.items():
        slope = -(variance(**more).objective - variance(**less).objective) / (2 * h)
        assert prices.get(name, 0.0) == pytest.approx(slope, rel=1e-3, abs=1e-9), name
    for price in (p for n, p in prices.items() if n != "budget"):
        assert price >= 0.0

    def ratio(upper: float) -> Any:
        return maximum_sharpe(MEANS, COVARIANCE, Constraints(upper={"A": upper, "B": 0.4}), names=NAMES)

    prices = {b.name: b.shadow_price for b in ratio(0.5).binding}
    slope = (ratio(0.5 + h).objective - ratio(0.5 - h).objective) / (2 * h)
    assert slope > 0
    assert prices["upper A"] == pytest.approx(slope, rel=1e-3)


# ---- risk parity and the tree ----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), count=st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_risk_parity_meets_its_budgets(seed: int, count: int) -> None:
    covariance, _ = random_market(seed, count)
    rng = np.random.default_rng(seed)
    budgets = rng.uniform(0.1, 3.0, count)
    found = risk_parity(covariance, budgets=budgets)
    assert found.weights.sum() == pytest.approx(1.0, rel=1e-12)
    assert (found.weights > 0).all()
    np.testing.assert_allclose(found.risk_contributions / found.volatility, budgets / budgets.sum(), atol=1e-10)
    signs = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    signs[0] = -1.0
    box = Constraints(lower=np.minimum(9 * signs, 0.0), upper=np.maximum(9 * signs, 0.0), budget=None, gross=2.0)
    mixed = risk_parity(covariance, box, budgets=budgets)
    assert (np.sign(mixed.weights) == signs).all()
    assert mixed.gross == pytest.approx(2.0, rel=1e-12)
    np.testing.assert_allclose(mixed.risk_contributions / mixed.volatility, budgets / budgets.sum(), atol=1e-10)


def test_risk_parity_under_constraints() -> None:
    """The bound holds, what is not bound keeps equal contributions, and Newton and the cone agree where none binds."""
    free = risk_parity(COVARIANCE)
    capped = risk_parity(COVARIANCE, Constraints(upper=0.18), names=NAMES)
    assert capped.weights.max() <= 0.18 + 1e-9
    assert capped.weights.sum() == pytest.approx(1.0, abs=1e-8)
    inside = capped.weights < 0.18 - 1e-6
    assert 2 <= inside.sum() < 6
    shares = capped.risk_contributions[inside]
    # The budget row takes the same price from each: y (Sy) - b is proportional to w there.
    rest = shares / capped.volatility
    assert rest.std() < 0.01
    assert "constraints bind" in capped.notes[-1]
    loose = risk_parity(COVARIANCE, Constraints(upper=float(free.weights.max()) - 1e-7))
    np.testing.assert_allclose(loose.weights, free.weights, atol=1e-5)
    with pytest.raises(ConfigurationError, match="one side of 0"):
        risk_parity(COVARIANCE, Constraints(lower=-1.0))
    with pytest.raises(ConfigurationError, match="`budget` must be None"):
        risk_parity(COVARIANCE, Constraints(lower=-1.0, upper=0.0))


def lopez_de_prado(covariance: np.ndarray) -> list[float]:
    """The algorithm of the paper step by step, with lists and loops: clusters joined by the nearest pair."""
    n = len(covariance)
    d = np.array([[math.sqrt(max(0.0, 0.5 * (1 - covariance[i, j] / math.sqrt(covariance[i, i] * covariance[j, j]))))
                   for j in range(n)] for i in range(n)])  # fmt: skip
    far = np.array([[math.dist(d[:, i], d[:, j]) for j in range(n)] for i in range(n)])
    clusters: dict[int, list[int]] = {i: [i] for i in range(n)}
    number = n
    while len(clusters) > 1:
        keys = sorted(clusters)
        _, a, b = min(
            (min(far[i, j] for i in clusters[a] for j in clusters[b]), a, b)
            for k, a in enumerate(keys)
            for b in keys[k + 1 :]
        )
        clusters[number] = clusters.pop(a) + clusters.pop(b)
        number += 1
    (order,) = clusters.values()
    weights = [1.0] * n
    todo = [order]
    while todo:
        todo = [half for c in todo if len(c) > 1 for half in (c[: len(c) // 2], c[len(c) // 2 :])]
        for left, right in zip(todo[::2], todo[1::2], strict=True):
            risks = []
            for side in (left, right):
                part = covariance[np.ix_(side, side)]
                ivp = 1 / np.diag(part)
                ivp /= ivp.sum()
                risks.append(float(ivp @ part @ ivp))
            alpha = 1 - risks[0] / (risks[0] + risks[1])
            for i in left:
                weights[i] *= alpha
            for i in right:
                weights[i] *= 1 - alpha
    return weights


def test_hierarchical_risk_parity_is_the_papers() -> None:
    for seed in range(8):
        covariance, _ = random_market(seed, 9)
        np.testing.assert_allclose(hierarchical_risk_parity(covariance).weights, lopez_de_prado(covariance), rtol=1e-12)
    capped = hierarchical_risk_parity(COVARIANCE, Constraints(upper=0.2), names=NAMES)
    assert capped.weights.max() <= 0.2 + 1e-9
    assert any("nearest" in note for note in capped.notes)
    order = quasi_diagonal_order(COVARIANCE, linkage="ward")
    assert sorted(order.tolist()) == list(range(6))
    with pytest.raises(ConfigurationError, match="`linkage`"):
        hierarchical_risk_parity(COVARIANCE, linkage="best")
    assert hierarchical_risk_parity([[0.04]]).weights.tolist() == [1.0]


# ---- covariances -----------------------------------------------------------------------------------------------------


def test_a_covariance_is_repaired_or_refused() -> None:
    nearly = np.array([[1.0, 0.9, 0.7], [0.9, 1.0, 0.3], [0.7, 0.3, 1.0]])
    low = np.linalg.eigvalsh(nearly)[0]
    assert low < 0
    mild = nearly * 0.999 + 0.001 * np.eye(3) if low / 2.3 < -1e-3 else nearly
    scale = np.diag([0.01, 0.5, 0.02])
    if np.linalg.eigvalsh(mild)[0] < -1e-3 * np.linalg.eigvalsh(mild)[-1]:
        shift = -np.linalg.eigvalsh(mild)[0] - 5e-4
        mild = (mild + shift * np.eye(3)) / (1 + shift)
    repaired, notes = checked_covariance(scale @ mild @ scale)
    assert np.linalg.eigvalsh(repaired)[0] >= -1e-15
    np.testing.assert_allclose(np.diag(repaired), np.diag(scale @ scale), rtol=1e-12)
    assert "repaired" in notes[0]
    assert any("repaired" in note for note in minimum_variance(scale @ mild @ scale).notes)
    bad = np.array([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]])
    with pytest.raises(DataConversionError, match="positive semidefinite"):
        minimum_variance(bad)
    assert checked_covariance(COVARIANCE)[1] == ()
    singular = np.outer([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert minimum_variance(singular).status == "optimal"


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.zeros((0, 0)), "square and not empty"),
        (np.ones((2, 3)), "square"),
        ([[1.0, math.nan], [math.nan, 1.0]], "`covariance` must be finite, was nan at 0, 1"),
        ([[1.0, 0.2], [0.3, 1.0]], "symmetric, was 0.2 and 0.3"),
        ([[1.0, 0.0], [0.0, 0.0]], "variances > 0, was 0.0 at 1"),
        ([[1.0, 0.0], [0.0, -1.0]], "variances > 0"),
    ],
)
def test_a_hostile_covariance(matrix: Any, words: str) -> None:
    with pytest.raises(DataConversionError, match=words):
        minimum_variance(matrix)


def test_other_hostile_inputs() -> None:
    for make, error, words in (
        (lambda: mean_variance([math.nan] * 6, COVARIANCE), DataConversionError, "`expected` must be finite"),
        (lambda: mean_variance(MEANS[:5], COVARIANCE), DataConversionError, r"shape \(6,\)"),
        (lambda: mean_variance(MEANS, COVARIANCE, risk_aversion=0.0), ConfigurationError, "`risk_aversion`"),
        (lambda: minimum_cvar(np.full((2, 5), np.inf)), DataConversionError, "`returns` must be finite"),
        (lambda: minimum_cvar(np.zeros((2, 5)), level=1.0), DataConversionError, "`level`"),
        (lambda: risk_parity(COVARIANCE, budgets=[0.0] * 6), DataConversionError, "`budgets`"),
        (lambda: minimum_variance(COVARIANCE, names=["A"] * 6), DataConversionError, "distinct"),
        (lambda: minimum_variance(COVARIANCE, names=["A"]), DataConversionError, "1 rows"),
        (lambda: minimum_variance(COVARIANCE, current=[0.0]), DataConversionError, "`current`"),
        (lambda: minimum_variance(COVARIANCE, Constraints(lower=0.5, upper=0.1)), ConfigurationError, "`lower`"),
        (lambda: minimum_variance(COVARIANCE, Constraints(upper={"Q": 1.0})), ConfigurationError, "'Q'"),
        (lambda: minimum_variance(COVARIANCE, Constraints(upper=[1.0])), ConfigurationError, "6 entries"),
        (lambda: Constraints(net=(1.0, 0.0)), ConfigurationError, "`net`"),
        (lambda: Constraints(turnover=-1.0), ConfigurationError, "`turnover`"),
        (lambda: Constraints(budget=math.inf), ConfigurationError, "`budget`"),
        (lambda: Group("g", ()), ConfigurationError, "`groups`"),
        (lambda: Group("g", ("A",), lower=0.1, gross=True), ConfigurationError, "gross"),
        (lambda: Costs(linear=-1.0), ConfigurationError, "`linear`"),
        (lambda: SolverSettings(time_limit=0.0), ConfigurationError, "`time_limit`"),
    ):
        with pytest.raises(error, match=words):
            make()  # type: ignore[no-untyped-call]


def test_the_same_input_gives_the_same_bits() -> None:
    for name, make in our_answers().items():
        assert make().weights.tobytes() == make().weights.tobytes(), name


def test_the_import_is_light_and_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys, tengri_fast.risk.optimise\n"
        "print([n for n in ('scipy', 'cvxpy', 'clarabel', 'numba', 'pandas') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
    for package, make in (
        ("clarabel", lambda: minimum_variance(COVARIANCE)),
        ("scipy", lambda: hierarchical_risk_parity(COVARIANCE)),
        ("cvxpy", lambda: custom_objective(lambda w: w, COVARIANCE)),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            patch.setitem(sys.modules, f"{package}.cluster", None)
            with pytest.raises(MissingExtraError, match=r"tengri_fast\[risk\]"):
                make()  # type: ignore[no-untyped-call]
