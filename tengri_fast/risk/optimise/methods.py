"""Minimum variance, mean-variance with costs, maximum Sharpe ratio, and minimum CVaR."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.measures import expected_shortfall, tail_rank
from tengri_fast.risk.optimise.constraints import Constraints, add_changes
from tengri_fast.risk.optimise.inputs import Costs
from tengri_fast.risk.optimise.problem import prepare
from tengri_fast.risk.optimise.program import Program, SolverSettings
from tengri_fast.risk.optimise.result import Infeasibility, OptimisationResult

__all__ = ["maximum_sharpe", "mean_variance", "minimum_cvar", "minimum_variance"]

Floats = npt.NDArray[np.float64]


def minimum_variance(
    covariance: npt.ArrayLike, constraints: Constraints | None = None, *, names: Sequence[str] | None = None,
    current: npt.ArrayLike | None = None, settings: SolverSettings | None = None,
) -> OptimisationResult:  # fmt: skip
    """Weights of least variance w'Sw.

    Parameters
    ----------
    covariance : array_like, shape (N, N)
        Of returns per period.
    constraints : Constraints, optional
        Long only and fully invested by default.
    names : sequence of str, optional
        Of the instruments.
    current : array_like, shape (N,), optional
        Present weights, zero by default.
    settings : SolverSettings, optional
        Of the solver, and the fallback.

    Returns
    -------
    OptimisationResult
        Its objective is the variance.

    Raises
    ------
    ConfigurationError, DataConversionError
        When an input breaks its rule.
    InfeasibleError
        When no weights satisfy the constraints and the settings say so.
    MissingExtraError
        When Clarabel or SciPy is not installed.
    """
    problem = prepare("minimum variance", constraints, settings, covariance=covariance, names=names, current=current)
    assert problem.covariance is not None
    matrix = problem.covariance
    program, weights = problem.program()
    program.quadratic(weights, 2.0 * matrix)
    return problem.answer(program, weights, lambda w: float(w @ matrix @ w))


def mean_variance(
    expected: npt.ArrayLike, covariance: npt.ArrayLike, constraints: Constraints | None = None, *,
    risk_aversion: float = 1.0, costs: Costs | None = None, names: Sequence[str] | None = None,
    current: npt.ArrayLike | None = None, settings: SolverSettings | None = None,
) -> OptimisationResult:  # fmt: skip
    """Weights of greatest utility: m'w - (risk_aversion / 2) w'Sw - cost of getting there.

    Parameters
    ----------
    expected : array_like, shape (N,)
        Expected returns per period.
    covariance, constraints, names, current, settings
        As in :func:`minimum_variance`.
    risk_aversion : float
        > 0.
    costs : Costs, optional
        Of changing the weights; square-root impact becomes a power cone.

    Returns
    -------
    OptimisationResult
        Its objective is the utility.

    Raises
    ------
    ConfigurationError, DataConversionError, InfeasibleError, MissingExtraError
        As :func:`minimum_variance`.
    """
    if not (math.isfinite(risk_aversion) and risk_aversion > 0.0):
        raise ConfigurationError(f"`risk_aversion` must be finite and > 0, was {risk_aversion}")
    problem = prepare(
        "mean-variance", constraints, settings, covariance=covariance, expected=expected, costs=costs, names=names,
        current=current,
    )  # fmt: skip
    assert problem.covariance is not None
    assert problem.expected is not None
    matrix, returns = problem.covariance, problem.expected
    program = Program()
    weights = program.variables(problem.count)
    changes = None
    if costs is not None:
        linear, quadratic, impact = costs.arrays(problem.count)
        if linear.any() or impact.any():
            changes = add_changes(program, weights, problem.current)
            program.linear(changes, linear)
        if quadratic.any():
            program.quadratic(weights, 2.0 * quadratic)
            program.linear(weights, -2.0 * quadratic * problem.current)
        dear = np.flatnonzero(impact)
        if dear.size:
            assert changes is not None
            powers = program.variables(dear.size)
            program.power_cone(powers, changes[dear])
            program.linear(powers, impact[dear])
    problem.constraints.add_to(program, weights, problem.names, problem.current, changes)
    program.quadratic(weights, risk_aversion * matrix)
    program.linear(weights, -returns)

    def utility(w: Floats) -> float:
        spent = 0.0 if costs is None else float(costs.of_changes(w - problem.current).sum())
        return float(returns @ w - 0.5 * risk_aversion * (w @ matrix @ w)) - spent

    return problem.answer(program, weights, utility)


def maximum_sharpe(
    expected: npt.ArrayLike, covariance: npt.ArrayLike, constraints: Constraints | None = None, *,
    risk_free: float = 0.0, names: Sequence[str] | None = None, current: npt.ArrayLike | None = None,
    settings: SolverSettings | None = None,
) -> OptimisationResult:  # fmt: skip
    """Weights of greatest ratio of expected excess return to volatility, (m - r)'w / sqrt(w'Sw).

    The ratio does not change when all weights are scaled, so y = k w with (m - r)'y = 1 turns it into the convex
    program of least y'Sy, whose constraints are those of w times k (Charnes and Cooper 1962; Cornuejols and Tutuncu
    2006, sec. 8.2).

    Parameters
    ----------
    expected, covariance, constraints, names, current, settings
        As in :func:`mean_variance`.
    risk_free : float
        Return of cash per period.

    Returns
    -------
    OptimisationResult
        Its objective is the ratio. A fallback when no weights that satisfy the constraints have an expected excess
        return above zero (the constraint "excess return" is blamed).

    Raises
    ------
    ConfigurationError, DataConversionError, InfeasibleError, MissingExtraError
        As :func:`minimum_variance`.
    """
    problem = prepare(
        "maximum Sharpe", constraints, settings, covariance=covariance, expected=expected, names=names, current=current
    )
    assert problem.covariance is not None
    assert problem.expected is not None
    matrix = problem.covariance
    excess = problem.expected - risk_free
    program = Program()
    weights = program.variables(problem.count)
    scale = program.variables(1)
    program.scale = int(scale[0])
    problem.constraints.add_to(program, weights, problem.names, problem.current)
    program.row("", scale, -1.0, 0.0, homogeneous=False)
    # The excess return is set to the size of the best one, so that y and k stay near one.
    size = float(np.abs(excess).max())
    if size > 0.0:
        program.row("", weights, excess / size, 1.0, equal=True, homogeneous=False)
        program.quadratic(weights, 2.0 * matrix)
        solution = program.solve(problem.settings)
        factor = float(solution.x[scale[0]]) if solution.good else 0.0
        if factor > 1e-9:
            found = problem.clean(solution.x[weights] / factor)
            variance = float(found @ matrix @ found)
            ratio = float(excess @ found) / math.sqrt(variance)
            # The least y'Sy is (size / ratio)^2, and a bound of w that rises by d is one of y that rises by k d.
            price = 0.5 * ratio**3 * factor / size**2
            binding = problem.binding(solution, factor, price)
            return problem.result(found, ratio, problem.facts(solution), binding, solution.status)
        if solution.good:
            reason = "the constraints leave the size of the weights open: set a budget or a bound"
            return problem.fall_back(solution, reason=reason)
    else:
        solution = None

    def earn(made: Program, variables: npt.NDArray[np.int64]) -> None:
        # In shares of the best one's, so that the tolerances of the diagnosis fit returns of any period.
        made.row("excess return", variables, -excess / max(size, 1e-300), -1e-4)

    if size == 0.0:
        blame = Infeasibility(("excess return",), (("excess return", 0.0),))
        return problem.fall_back(
            None, reason="no instrument has an expected excess return other than 0", infeasibility=blame
        )
    return problem.fall_back(solution, earn)


def minimum_cvar(
    returns: npt.ArrayLike, constraints: Constraints | None = None, *, level: float = 0.95,
    expected: npt.ArrayLike | None = None, min_return: float | None = None, covariance: npt.ArrayLike | None = None,
    names: Sequence[str] | None = None, current: npt.ArrayLike | None = None, settings: SolverSettings | None = None,
) -> OptimisationResult:  # fmt: skip
    """Weights of least conditional value at risk (expected shortfall) over scenarios.

    The linear program of Rockafellar and Uryasev (2000), "Optimization of conditional value-at-risk", eq. 17: minimise
    a + sum(u) / T over weights, a and u >= max(loss - a, 0), with T = (1 - level) S as in
    :mod:`tengri_fast.risk.measures`.

    Parameters
    ----------
    returns : array_like, shape (N, S)
        Result per unit of weight and scenario: returns, or :func:`weight_scenarios` for payoffs that are not linear.
    constraints, names, current, settings
        As in :func:`minimum_variance`.
    level : float
        Confidence in (0, 1).
    expected : array_like, shape (N,), optional
        Expected returns; the mean of the scenarios by default.
    min_return : float, optional
        Least expected return of the weights.
    covariance : array_like, shape (N, N), optional
        For the reported volatility only.

    Returns
    -------
    OptimisationResult
        Its objective is the CVaR, a fraction of equity, positive for a loss.

    Raises
    ------
    ConfigurationError, DataConversionError, InfeasibleError, MissingExtraError
        As :func:`minimum_variance`.
    """
    problem = prepare(
        "minimum CVaR", constraints, settings, covariance=covariance, expected=expected, scenarios=returns, level=level,
        names=names, current=current,
    )  # fmt: skip
    table = problem.scenarios
    assert table is not None
    if problem.expected is None:
        problem.expected = table.mean(axis=1)
    means = problem.expected
    count = table.shape[1]
    tail = tail_rank(count, level)[1]
    program, weights = problem.program()
    threshold = program.variables(1)
    beyond = program.variables(count)
    # u_s >= loss_s - a  <=>  -w'r_s - a - u_s <= 0
    program.table("", np.concatenate([weights, threshold]), np.column_stack([-table.T, -np.ones(count)]), 0.0)
    _subtract_diagonal(program, beyond)
    program.rows("", [(beyond, -1.0)], np.zeros(count))
    program.linear(threshold, 1.0)
    program.linear(beyond, 1.0 / tail)

    def earn(made: Program, variables: npt.NDArray[np.int64]) -> None:
        if min_return is not None:
            made.row("min_return", variables, -means, -min_return)

    earn(program, weights)
    return problem.answer(program, weights, lambda w: expected_shortfall(w @ table, level), extra=earn)


def _subtract_diagonal(program: Program, variables: npt.NDArray[np.int64]) -> None:
    """Subtract one variable from each row of the block that was appended last."""
    block = program._at_most[-1]
    block.rows = np.concatenate([block.rows, np.arange(len(variables))])
    block.columns = np.concatenate([block.columns, variables])
    block.values = np.concatenate([block.values, np.full(len(variables), -1.0)])
