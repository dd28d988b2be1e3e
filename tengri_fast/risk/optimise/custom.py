"""An objective of one's own, written in cvxpy, under the same constraints as everywhere else."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, MissingExtraError
from tengri_fast.risk.optimise.constraints import Constraints
from tengri_fast.risk.optimise.problem import prepare
from tengri_fast.risk.optimise.program import SolverSettings
from tengri_fast.risk.optimise.result import Binding, OptimisationResult, SolverFacts

__all__ = ["custom_objective"]

Floats = npt.NDArray[np.float64]


def custom_objective(
    objective: Callable[[Any], Any], covariance: npt.ArrayLike, constraints: Constraints | None = None, *,
    extra: Callable[[Any], Sequence[Any]] | None = None, names: Sequence[str] | None = None,
    current: npt.ArrayLike | None = None, settings: SolverSettings | None = None,
) -> OptimisationResult:  # fmt: skip
    """Weights that minimise a convex expression.

    Parameters
    ----------
    objective : callable
        Takes the weights as a ``cvxpy.Variable`` of length N and returns the convex expression to be minimised.
    covariance, constraints, names, current, settings
        As in :func:`minimum_variance`; the covariance serves the reported risk and the fallback.
    extra : callable, optional
        Takes the weights and returns further cvxpy constraints. They are reported as "extra 0", "extra 1", ...

    Returns
    -------
    OptimisationResult
        Its objective is the value of the expression.

    Raises
    ------
    ConfigurationError
        When the problem is not convex by cvxpy's rules, or another rule is broken.
    DataConversionError, InfeasibleError
        As :func:`minimum_variance`; constraints of `extra` are not among those that can be blamed.
    MissingExtraError
        When cvxpy or Clarabel is not installed.
    """
    try:
        cvxpy: Any = importlib.import_module("cvxpy")
    except ImportError as error:
        raise MissingExtraError("cvxpy-base", "risk", "an objective of one's own") from error
    problem = prepare("custom objective", constraints, settings, covariance=covariance, names=names, current=current)
    began = time.perf_counter()
    weights = cvxpy.Variable(problem.count)
    labelled = _rows(cvxpy, weights, problem.constraints, problem.names, problem.current)
    if extra is not None:
        labelled += [(f"extra {i}", row) for i, row in enumerate(extra(weights))]
    asked: Any = cvxpy.Problem(cvxpy.Minimize(objective(weights)), [row for _, row in labelled])
    if not asked.is_dcp():
        raise ConfigurationError("`objective` and `extra` must be convex by the rules of cvxpy (DCP), were not")
    options = problem.settings
    try:
        asked.solve(
            solver=cvxpy.CLARABEL, max_threads=1, max_iter=options.max_iterations, time_limit=options.time_limit,
            tol_feas=options.tolerance, tol_gap_abs=options.tolerance, tol_gap_rel=options.tolerance,
        )  # fmt: skip
    except cvxpy.SolverError as error:
        return problem.fall_back(None, reason=f"the solver stopped: {error}")
    if asked.status not in ("optimal", "optimal_inaccurate"):
        return problem.fall_back(None, reason=None if asked.status.startswith("infeasible") else asked.status)
    found = problem.clean(np.asarray(weights.value, dtype=np.float64))
    binding = []
    for name, row in labelled:
        price = float(np.abs(np.asarray(row.dual_value)).max()) if row.dual_value is not None else math.nan
        if price > 1e-7 or name == "budget":
            binding.append(Binding(name, price if name != "budget" else float(row.dual_value)))
    binding.sort(key=lambda entry: (-abs(entry.shadow_price), entry.name))
    facts = SolverFacts(
        f"cvxpy {cvxpy.__version__}, clarabel",
        asked.status,
        int(asked.solver_stats.num_iters or 0),
        seconds=time.perf_counter() - began,
    )
    status = "optimal" if asked.status == "optimal" else "inaccurate"
    return problem.result(found, float(asked.value), facts, tuple(binding), status)


def _rows(cvxpy: Any, weights: Any, rules: Constraints, names: Sequence[str], current: Floats) -> list[tuple[str, Any]]:
    """The constraints in cvxpy, with their names; written from the meaning of the fields, not from the rows."""
    rows: list[tuple[str, Any]] = []
    lower, upper, change = rules.bound("lower", names), rules.bound("upper", names), rules.bound("max_change", names)
    for i, name in enumerate(names):
        if math.isfinite(upper[i]):
            rows.append((f"upper {name}", weights[i] <= upper[i]))
        if math.isfinite(lower[i]):
            rows.append((f"lower {name}", weights[i] >= lower[i]))
        if math.isfinite(change[i]):
            rows.append((f"max_change {name}", cvxpy.abs(weights[i] - current[i]) <= change[i]))
    total = cvxpy.sum(weights)
    if rules.budget is not None:
        rows.append(("budget", total == rules.budget))
    for label, pair, value in (("net", rules.net, total), ("cash", rules.cash, 1.0 - total)):
        if pair is not None and math.isfinite(pair[0]):
            rows.append((f"{label} lower", value >= pair[0]))
        if pair is not None and math.isfinite(pair[1]):
            rows.append((f"{label} upper", value <= pair[1]))
    if rules.gross is not None:
        rows.append(("gross", cvxpy.norm1(weights) <= rules.gross))
    for group in rules.groups:
        part = weights[[names.index(member) for member in group.members]]
        if math.isfinite(group.upper):
            rows.append(
                (f"group {group.name} upper", (cvxpy.norm1(part) if group.gross else cvxpy.sum(part)) <= group.upper)
            )
        if math.isfinite(group.lower):
            rows.append((f"group {group.name} lower", cvxpy.sum(part) >= group.lower))
    if rules.turnover is not None:
        rows.append(("turnover", cvxpy.norm1(weights - current) <= rules.turnover))
    return rows
