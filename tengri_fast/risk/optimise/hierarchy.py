"""Hierarchical risk parity: weights from a tree of correlations, without inverting a matrix."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, MissingExtraError
from tengri_fast.risk.optimise.constraints import Constraints
from tengri_fast.risk.optimise.problem import prepare
from tengri_fast.risk.optimise.program import SolverSettings
from tengri_fast.risk.optimise.result import OptimisationResult, SolverFacts

__all__ = ["hierarchical_risk_parity", "quasi_diagonal_order"]

Floats = npt.NDArray[np.float64]
LINKAGES = ("single", "complete", "average", "ward")


def quasi_diagonal_order(
    covariance: npt.ArrayLike, *, linkage: str = "single", distance: str = "columns"
) -> npt.NDArray[np.int64]:
    """Order of instruments in which similar ones stand together.

    Parameters
    ----------
    covariance : array_like, shape (N, N)
        Of returns.
    linkage : {"single", "complete", "average", "ward"}
        How clusters are joined.
    distance : {"columns", "direct"}
        "columns": Euclidean distance between columns of d = sqrt((1 - correlation) / 2), as Lopez de Prado (2016);
        "direct": d itself, as other libraries have it.

    Raises
    ------
    ConfigurationError
        When a name is unknown.
    MissingExtraError
        When SciPy is not installed.
    """
    if linkage not in LINKAGES:
        raise ConfigurationError(f"`linkage` must be one of {', '.join(LINKAGES)}, was {linkage!r}")
    if distance not in ("columns", "direct"):
        raise ConfigurationError(f"`distance` must be 'columns' or 'direct', was {distance!r}")
    try:
        from scipy.cluster import hierarchy
        from scipy.spatial.distance import pdist, squareform
    except ImportError as error:
        raise MissingExtraError("scipy", "risk", "hierarchical risk parity") from error
    matrix = np.asarray(covariance, dtype=np.float64)
    if len(matrix) == 1:
        return np.zeros(1, np.int64)
    scale = np.sqrt(np.diag(matrix))
    correlation = np.clip(matrix / np.outer(scale, scale), -1.0, 1.0)
    apart = np.sqrt(0.5 * (1.0 - correlation))
    np.fill_diagonal(apart, 0.0)
    condensed = pdist(apart) if distance == "columns" else squareform(apart, checks=False)
    return np.asarray(hierarchy.leaves_list(hierarchy.linkage(condensed, linkage)), dtype=np.int64)


def hierarchical_risk_parity(
    covariance: npt.ArrayLike, constraints: Constraints | None = None, *, linkage: str = "single",
    distance: str = "columns", names: Sequence[str] | None = None, current: npt.ArrayLike | None = None,
    settings: SolverSettings | None = None,
) -> OptimisationResult:  # fmt: skip
    """Weights by recursive bisection of the quasi-diagonal order (Lopez de Prado 2016, "Building diversified portfolios
    that outperform out of sample", J. Portfolio Management 42).

    Each half of a cluster gets a share in inverse proportion to the variance of its inverse-variance portfolio. The
    weights are long and sum to the budget. Other constraints that they break are met by the weights nearest to them,
    in the sense of least tracking error; a note says so.

    Parameters
    ----------
    covariance, constraints, names, current, settings
        As in :func:`minimum_variance`.
    linkage, distance : str
        As in :func:`quasi_diagonal_order`.

    Returns
    -------
    OptimisationResult
        Its objective is the volatility.

    Raises
    ------
    ConfigurationError, DataConversionError, InfeasibleError, MissingExtraError
        As :func:`minimum_variance`.
    """
    began = time.perf_counter()
    problem = prepare(
        "hierarchical risk parity", constraints, settings, covariance=covariance, names=names, current=current
    )
    assert problem.covariance is not None
    matrix = problem.covariance
    order = quasi_diagonal_order(matrix, linkage=linkage, distance=distance)
    weights = _bisect(matrix, order)
    budget = problem.constraints.budget
    weights *= 1.0 if budget is None else budget
    if not problem.constraints.violations(weights, problem.names, problem.current, tolerance=1e-9):
        facts = SolverFacts("recursive bisection", seconds=time.perf_counter() - began)
        return problem.result(weights, float(np.sqrt(weights @ matrix @ weights)), facts)
    program, variables = problem.program()
    program.quadratic(variables, 2.0 * matrix)
    program.linear(variables, -2.0 * (matrix @ weights))
    problem.notes += ("constraints bind: the weights are the nearest to hierarchical risk parity by tracking error",)
    found = problem.answer(program, variables, lambda w: float(np.sqrt(w @ matrix @ w)))
    return found


def _bisect(matrix: Floats, order: npt.NDArray[np.int64]) -> Floats:
    weights = np.ones(len(matrix))
    stack = [order]
    while stack:
        cluster = stack.pop()
        if len(cluster) < 2:
            continue
        left, right = cluster[: len(cluster) // 2], cluster[len(cluster) // 2 :]
        a, b = _cluster_variance(matrix, left), _cluster_variance(matrix, right)
        share = 1.0 - a / (a + b)
        weights[left] *= share
        weights[right] *= 1.0 - share
        stack += [right, left]
    return weights


def _cluster_variance(matrix: Floats, members: npt.NDArray[np.int64]) -> float:
    part = matrix[np.ix_(members, members)]
    inverse = 1.0 / np.diag(part)
    inverse /= inverse.sum()
    return float(inverse @ part @ inverse)
