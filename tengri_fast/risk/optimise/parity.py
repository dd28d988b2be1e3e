"""Risk parity: every instrument carries its share of the portfolio's volatility."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.optimise.constraints import Constraints
from tengri_fast.risk.optimise.inputs import vector
from tengri_fast.risk.optimise.problem import Problem, prepare
from tengri_fast.risk.optimise.program import Program, SolverSettings
from tengri_fast.risk.optimise.result import InfeasibleError, OptimisationResult, SolverFacts, risk_of

__all__ = ["risk_parity"]

Floats = npt.NDArray[np.float64]
_NEWTON_STEPS = 200


def risk_parity(
    covariance: npt.ArrayLike, constraints: Constraints | None = None, *, budgets: npt.ArrayLike | None = None,
    names: Sequence[str] | None = None, current: npt.ArrayLike | None = None, settings: SolverSettings | None = None,
) -> OptimisationResult:  # fmt: skip
    """Weights whose risk contributions w_i (Sw)_i are in given proportions.

    The convex form of Spinu (2013), "An algorithm for computing risk parity weights": minimise
    1/2 y'Sy - sum_i b_i log(s_i y_i), whose gradient is zero where y_i (Sy)_i = b_i, and scale y. The sign s_i of each
    weight is that of its box: a lower bound >= 0 is long, an upper bound <= 0 is short. Solved by Newton's method with
    Nesterov's damping. When other constraints bind, the same objective is minimised under them (homogenised, as for the
    Sharpe ratio); contributions are then as near to their budgets as that objective goes, and a note says so.

    Parameters
    ----------
    covariance, constraints, names, current, settings
        As in :func:`minimum_variance`. With short positions `budget` must be None, and weights are scaled to a gross
        exposure of `gross` (1 when it is None).
    budgets : array_like, shape (N,), optional
        Share of risk of each instrument, > 0, scaled to a sum of one; equal by default.

    Returns
    -------
    OptimisationResult
        Its objective is the largest distance of a share of risk from its budget.

    Raises
    ------
    ConfigurationError, DataConversionError, InfeasibleError, MissingExtraError
        As :func:`minimum_variance`. Clarabel is needed only when constraints bind.
    """
    began = time.perf_counter()
    problem = prepare("risk parity", constraints, settings, covariance=covariance, names=names, current=current)
    assert problem.covariance is not None
    shares = np.full(problem.count, 1.0 / problem.count)
    if budgets is not None:
        shares = vector("budgets", budgets, problem.count)
        if not (shares > 0.0).all():
            raise DataConversionError(f"`budgets` must be > 0, was {shares.min()}")
        shares = shares / shares.sum()
    signs = _signs(problem)
    total = _exposure(problem, signs)
    y, steps = _newton(problem.covariance, shares, signs)
    weights = y * (total / float(np.abs(y).sum()))
    if not problem.constraints.violations(weights, problem.names, problem.current, tolerance=1e-9):
        facts = SolverFacts("damped Newton", iterations=steps, seconds=time.perf_counter() - began)
        return problem.result(weights, _distance(weights, problem.covariance, shares), facts)
    return _constrained(problem, shares, signs, total)


def _signs(problem: Problem) -> Floats:
    lower, upper = problem.constraints.check(problem.names)
    both = (lower < 0.0) & (upper > 0.0)
    if both.any():
        i = int(np.argmax(both))
        raise ConfigurationError(
            f"`lower` and `upper` must lie on one side of 0 for risk parity, were {lower[i]:g} and {upper[i]:g} for "
            f"{problem.names[i]}"
        )
    return np.where(upper <= 0.0, -1.0, 1.0)


def _exposure(problem: Problem, signs: Floats) -> float:
    """Sum of absolute weights that the solution is scaled to."""
    rules = problem.constraints
    if (signs < 0.0).any():
        if rules.budget is not None:
            raise ConfigurationError(f"`budget` must be None for risk parity with short positions, was {rules.budget}")
        return 1.0 if rules.gross is None else rules.gross
    if rules.budget is not None:
        if not rules.budget > 0.0:
            raise ConfigurationError(f"`budget` must be > 0 for risk parity, was {rules.budget}")
        return rules.budget
    return 1.0 if rules.gross is None else rules.gross


def _newton(covariance: Floats, shares: Floats, signs: Floats) -> tuple[Floats, int]:
    """y with s y > 0 and y (Sy) = shares, to the last digits; in units of each instrument's volatility."""
    scale = signs / np.sqrt(np.diag(covariance))
    matrix = covariance * np.outer(scale, scale)
    y = np.full(len(shares), math.sqrt(1.0 / max(float(matrix.sum()), 1e-12)))

    def value(at: Floats) -> float:
        return float(0.5 * at @ matrix @ at - shares @ np.log(at))

    steps, here = 0, value(y)
    while steps < _NEWTON_STEPS:
        steps += 1
        gradient = matrix @ y - shares / y
        hessian = matrix + np.diag(shares / (y * y))
        move = np.linalg.solve(hessian, gradient)
        gain = max(float(gradient @ move), 0.0)
        decrement = math.sqrt(gain / float(shares.min()))
        # The full step where it lowers the objective as it should, else the damped one, which is certain to.
        full = y - move
        if decrement >= 0.25 and not ((full > 0.0).all() and value(full) <= here - 0.25 * gain):
            full = y - move / (1.0 + decrement)
        y, here = full, value(full)
        if decrement < 1e-7:  # the step just taken squares it
            break
    if not (np.isfinite(y).all() and (y > 0.0).all() and np.abs(y * (matrix @ y) - shares).max() < 1e-8):
        raise InfeasibleError("risk parity has no answer: Newton's method did not converge on this covariance")
    return y * scale, steps


def _distance(weights: Floats, covariance: Floats, shares: Floats) -> float:
    volatility, contributions = risk_of(weights, covariance)
    return float(np.abs(contributions / volatility - shares).max()) if volatility > 0.0 else math.nan


def _constrained(problem: Problem, shares: Floats, signs: Floats, total: float) -> OptimisationResult:
    assert problem.covariance is not None
    program = Program()
    weights = program.variables(problem.count)
    scale = program.variables(1)
    program.scale = int(scale[0])
    problem.constraints.add_to(program, weights, problem.names, problem.current)
    if problem.constraints.budget is None:
        program.row("", weights, signs, total, equal=True)
    program.row("", scale, -1.0, 0.0, homogeneous=False)
    logs = program.variables(problem.count)
    program.log_cone(logs, weights, signs)
    size = float(np.diag(problem.covariance).mean())
    program.quadratic(weights, problem.covariance / size)
    program.linear(logs, -shares)
    solution = program.solve(problem.settings)
    factor = float(solution.x[scale[0]]) if solution.good else 0.0
    if not factor > 1e-12:
        return problem.fall_back(solution)
    found = problem.clean(solution.x[weights] / factor)
    binding = problem.binding(solution, factor, math.nan)
    note = "constraints bind: risk contributions are as near to their budgets as the constraints let them be"
    distance = _distance(found, problem.covariance, shares)
    return problem.result(found, distance, problem.facts(solution), binding, solution.status, notes=[note])
