"""Problems without a solution: the constraints to blame, and what is done instead."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("clarabel", reason="the extra `risk` is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from optimise_data import data, random_market, random_rules, rows_of
from scipy.optimize import linprog

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.optimise import (
    Constraints,
    Group,
    InfeasibleError,
    SolverSettings,
    maximum_sharpe,
    minimum_variance,
)

_, COVARIANCE, MEANS = data()
NAMES = tuple("ABCDEF")


@pytest.mark.parametrize(
    ("rules", "conflict", "total"),
    [
        (Constraints(groups=(Group("g", ("A", "B"), lower=0.7), Group("h", ("C", "D"), lower=0.6))),
         {"budget", "group g lower", "group h lower", "lower E", "lower F"}, 0.3),
        (Constraints(turnover=0.2), {"budget", "turnover"}, 0.8),
        (Constraints(gross=0.5), {"budget", "gross"}, 0.5),
        (Constraints(net=(0.0, 0.9)), {"budget", "net upper"}, 0.1),
        (Constraints(cash=(0.2, 1.0)), {"budget", "cash lower"}, 0.2),
        (Constraints(lower={"A": 0.4}, max_change=0.3, upper=1.0, budget=None), {"lower A", "max_change A"}, 0.1),
        (Constraints(upper=0.15), {"budget", *(f"upper {n}" for n in NAMES)}, 0.1),
    ],
)  # fmt: skip
def test_the_constraints_to_blame_are_named(rules: Constraints, conflict: set[str], total: float) -> None:
    with pytest.raises(InfeasibleError) as caught:
        minimum_variance(COVARIANCE, rules, names=NAMES)
    blame = caught.value.infeasibility
    assert blame is not None
    assert set(blame.conflict) == conflict
    assert sum(amount for _, amount in blame.relaxations) == pytest.approx(total, abs=1e-5)
    assert set(dict(blame.relaxations)) <= conflict
    assert "cannot hold together" in str(caught.value)


def only(rules: Constraints, kept: set[str], names: tuple[str, ...]) -> Constraints:
    """The constraints of some names."""
    lower, upper = rules.bound("lower", names), rules.bound("upper", names)
    change = rules.bound("max_change", names)
    groups = []
    for group in rules.groups:
        low = group.lower if f"group {group.name} lower" in kept else -math.inf
        high = group.upper if f"group {group.name} upper" in kept else math.inf
        groups.append(Group(group.name, group.members, low, high, group.gross))

    def pair(name: str, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is None:
            return None
        return (value[0] if f"{name} lower" in kept else -99.0, value[1] if f"{name} upper" in kept else 99.0)

    return Constraints(
        lower=[x if f"lower {n}" in kept else -99.0 for n, x in zip(names, lower, strict=True)],
        upper=[x if f"upper {n}" in kept else 99.0 for n, x in zip(names, upper, strict=True)],
        budget=rules.budget if "budget" in kept else None,
        net=pair("net", rules.net),
        cash=pair("cash", rules.cash),
        gross=rules.gross if "gross" in kept else None,
        groups=tuple(groups),
        turnover=rules.turnover if "turnover" in kept else None,
        max_change=[x if f"max_change {n}" in kept else 999.0 for n, x in zip(names, change, strict=True)],
    )


@given(seed=st.integers(0, 10**6), count=st.integers(3, 6))
@settings(max_examples=25, deadline=None)
def test_the_conflict_is_infeasible_and_irreducible(seed: int, count: int) -> None:
    """By HiGHS: the named constraints alone contradict each other, and without any one of them they do not."""
    rng = np.random.default_rng(seed)
    covariance, _ = random_market(seed, count)
    names = tuple(f"i{k}" for k in range(count))
    now = rng.dirichlet(np.ones(count)) * rng.uniform(0, 1.2)
    rules = random_rules(rng, names, now)
    rules = dataclasses.replace(
        rules,
        budget=float(rng.uniform(0.8, 2.0)),
        turnover=float(rng.uniform(0.1, 0.8)),
        lower=float(rng.uniform(-0.2, 0.2)),
    )

    def feasible(kept: set[str]) -> bool:
        return bool(linprog(np.zeros(3 * count), **rows_of(only(rules, kept, names), names, now)).status == 0)

    try:
        minimum_variance(covariance, rules, names=names, current=now)
    except InfeasibleError as error:
        blame = error.infeasibility
        assert blame is not None
        conflict = set(blame.conflict)
        assert conflict
        assert not feasible(conflict)
        for name in conflict:
            assert feasible(conflict - {name}), name


def test_fallbacks() -> None:
    now = np.array([0.5, 0.5, 0, 0, 0, 0.0])
    rules = Constraints(upper=0.15)

    def fall(how: str) -> Any:
        return minimum_variance(COVARIANCE, rules, names=NAMES, current=now, settings=SolverSettings(how))

    assert fall("keep").weights.tolist() == now.tolist()
    assert fall("equal").weights.tolist() == [1 / 6] * 6
    least = fall("min_variance")
    broken = rules.violations(least.weights, NAMES, now, tolerance=1e-5)
    assert sum(abs(v.value - v.bound) for v in broken) == pytest.approx(0.1, abs=1e-4)
    for how in ("keep", "equal", "min_variance"):
        found = fall(how)
        assert found.status == f"fallback: {how}"
        assert found.infeasibility is not None
        assert "cannot hold together" in found.notes[0]
        assert found.volatility == pytest.approx(math.sqrt(found.weights @ COVARIANCE @ found.weights), rel=1e-12)
    with pytest.raises(ConfigurationError, match="`on_infeasible`"):
        SolverSettings("hope")


def test_maximum_sharpe_without_a_gain_blames_the_returns() -> None:
    """All expected returns below zero, as in a crash: no ratio, a named reason, a fallback."""
    with pytest.raises(InfeasibleError) as caught:
        maximum_sharpe(-np.abs(MEANS), COVARIANCE, names=NAMES)
    assert "excess return" in caught.value.infeasibility.conflict  # type: ignore[union-attr]
    settings_ = SolverSettings("min_variance")
    found = maximum_sharpe(-np.abs(MEANS), COVARIANCE, names=NAMES, settings=settings_)
    assert found.status == "fallback: min_variance"
    np.testing.assert_allclose(found.weights.sum(), 1.0, atol=1e-5)
    zero = maximum_sharpe(np.zeros(6), COVARIANCE, settings=SolverSettings("equal"))
    assert zero.weights.tolist() == [1 / 6] * 6
    with pytest.raises(InfeasibleError, match="other than 0"):
        maximum_sharpe(np.zeros(6), COVARIANCE)


def test_a_solver_that_runs_out_falls_back() -> None:
    with pytest.raises(InfeasibleError, match="iteration limit"):
        minimum_variance(COVARIANCE, settings=SolverSettings(max_iterations=1))
    found = minimum_variance(COVARIANCE, settings=SolverSettings("equal", max_iterations=1))
    assert found.status == "fallback: equal"
    assert found.infeasibility is None
