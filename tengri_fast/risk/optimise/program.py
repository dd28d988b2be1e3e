"""A convex program with named rows, solved by Clarabel: every method of this package is written down in it.

::

    minimise    1/2 x'Px + q'x
    subject to  a row of each kind:  a'x = b,  a'x <= b,  (a1'x, a2'x, a3'x) + b in a cone

Rows have names, so that a solution can say which of them bound and at what price, and an infeasible program which of
them contradict each other. Rows may be homogeneous in a scale variable k (b becomes b k), which turns a ratio such as
Sharpe's into a convex program (Charnes and Cooper 1962).

The program is built here and not by a modelling layer: it costs microseconds instead of milliseconds, and the same
input gives the same matrices, so that Clarabel, on one thread, gives the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, MissingExtraError

__all__ = ["Program", "Solution", "SolverSettings"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Name of rows that define an auxiliary variable; they are never relaxed nor reported.
STRUCTURAL = ""

FALLBACKS = ("raise", "keep", "equal", "min_variance")


@dataclass(frozen=True)
class SolverSettings:
    """How a program is solved, and what happens when it cannot be.

    Parameters
    ----------
    on_infeasible : {"raise", "keep", "equal", "min_variance"}
        When no weights satisfy the constraints (or the solver fails): raise, keep the present weights, spread the
        budget equally, or take the least variance under constraints that are relaxed by as little as possible.
    time_limit : float
        Seconds after which the solver gives up.
    max_iterations : int
        Of the interior-point method.
    tolerance : float
        Feasibility and relative gap.

    Raises
    ------
    ConfigurationError
        When a value breaks its rule.
    """

    on_infeasible: str = "raise"
    time_limit: float = 30.0
    max_iterations: int = 200
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        if self.on_infeasible not in FALLBACKS:
            raise ConfigurationError(
                f"`on_infeasible` must be one of {', '.join(FALLBACKS)}, was {self.on_infeasible!r}"
            )
        if not self.time_limit > 0.0:
            raise ConfigurationError(f"`time_limit` must be > 0 seconds, was {self.time_limit}")
        if self.max_iterations < 1:
            raise ConfigurationError(f"`max_iterations` must be >= 1, was {self.max_iterations}")
        if not 0.0 < self.tolerance <= 1e-3:
            raise ConfigurationError(f"`tolerance` must be > 0 and <= 0.001, was {self.tolerance}")


@dataclass(frozen=True)
class Solution:
    """What the solver found.

    Attributes
    ----------
    x : ndarray
        Variables.
    duals : ndarray, shape (rows,)
        By how much the objective falls per unit that each linear row's bound rises; of the rows in `names`.
    slacks : ndarray, shape (rows,)
        b - a'x of the same rows.
    names : tuple of str
        Of the linear rows, equalities first.
    equalities : int
        How many of them are equalities.
    status : str
        "optimal", "inaccurate", "infeasible", "unbounded", "time limit", "iteration limit" or "failed".
    objective : float
        Value of the objective.
    iterations : int
        Of the interior-point method.
    primal_residual, dual_residual : float
        As the solver measures them.
    seconds : float
        Wall time of building and solving.
    """

    x: Floats
    duals: Floats
    slacks: Floats
    names: tuple[str, ...]
    equalities: int
    status: str
    objective: float
    iterations: int
    primal_residual: float
    dual_residual: float
    seconds: float

    @property
    def good(self) -> bool:
        """Whether `x` may be used."""
        return self.status in ("optimal", "inaccurate")


@dataclass
class _Block:
    names: list[str]
    rows: Ints
    columns: Ints
    values: Floats
    bounds: Floats
    homogeneous: bool = True


@dataclass
class Program:
    """See the module. Rows are appended in blocks; nothing is checked twice."""

    size: int = 0
    scale: int | None = None
    _equal: list[_Block] = field(default_factory=list)
    _at_most: list[_Block] = field(default_factory=list)
    _cones: list[tuple[str, float, _Block]] = field(default_factory=list)
    _quadratic: list[tuple[Ints, Floats]] = field(default_factory=list)
    _linear: list[tuple[Ints, Floats]] = field(default_factory=list)

    def variables(self, count: int) -> Ints:
        """Indices of new free variables."""
        found = np.arange(self.size, self.size + count)
        self.size += count
        return found

    def quadratic(self, columns: Ints, matrix: Floats) -> None:
        """Add 1/2 x'Mx over some variables; M symmetric, or a vector that stands for its diagonal."""
        self._quadratic.append((columns, matrix))

    def linear(self, columns: Ints, values: npt.ArrayLike) -> None:
        """Add q'x over some variables."""
        self._linear.append((columns, np.broadcast_to(np.asarray(values, dtype=np.float64), columns.shape)))

    def row(
        self, name: str, columns: Ints, values: npt.ArrayLike, bound: float, *, equal: bool = False,
        homogeneous: bool = True,
    ) -> None:  # fmt: skip
        """Append one row a'x <= bound, or = bound."""
        values = np.broadcast_to(np.asarray(values, dtype=np.float64), columns.shape)
        block = _Block([name], np.zeros(len(columns), np.int64), columns, values, np.array([bound]), homogeneous)
        (self._equal if equal else self._at_most).append(block)

    def rows(
        self, names: Sequence[str] | str, terms: Sequence[tuple[Ints, npt.ArrayLike]], bounds: npt.ArrayLike, *,
        equal: bool = False,
    ) -> None:  # fmt: skip
        """Append one row per entry of the terms' columns: sum of value x variable, term by term, <= bound.

        Infinite bounds give no row.
        """
        count = len(terms[0][0])
        limits = np.broadcast_to(np.asarray(bounds, dtype=np.float64), (count,))
        kept = np.flatnonzero(np.isfinite(limits))
        if not kept.size:
            return
        labels = [names] * kept.size if isinstance(names, str) else [names[int(i)] for i in kept]
        places = np.arange(kept.size)
        columns = np.concatenate([np.asarray(term)[kept] for term, _ in terms])
        values = np.concatenate(
            [np.broadcast_to(np.asarray(value, dtype=np.float64), (count,))[kept] for _, value in terms]
        )
        block = _Block(labels, np.tile(places, len(terms)), columns, values, limits[kept].copy())
        (self._equal if equal else self._at_most).append(block)

    def table(
        self, name: str, columns: Ints, matrix: Floats, bounds: npt.ArrayLike, *, homogeneous: bool = True
    ) -> None:
        """Append dense rows: matrix x <= bounds, all of one name."""
        count = matrix.shape[0]
        rows = np.repeat(np.arange(count), len(columns))
        limits = np.broadcast_to(np.asarray(bounds, dtype=np.float64), (count,)).copy()
        self._at_most.append(_Block([name] * count, rows, np.tile(columns, count), matrix.ravel(), limits, homogeneous))

    def power_cone(self, top: Ints, below: Ints) -> None:
        """For each pair: t >= |v|^(3/2), as t^(2/3) 1^(1/3) >= |v|."""
        for t, v in zip(top, below, strict=True):
            block = _Block(
                [], np.array([0, 2]), np.array([t, v]), np.array([-1.0, -1.0]), np.array([0.0, 1.0, 0.0]), False
            )
            self._cones.append(("power", 2.0 / 3.0, block))

    def log_cone(self, low: Ints, high: Ints, signs: Floats) -> None:
        """For each pair: t <= log(sign x y)."""
        for t, y, sign in zip(low, high, signs, strict=True):
            block = _Block(
                [], np.array([0, 2]), np.array([t, y]), np.array([-1.0, -sign]), np.array([0.0, 1.0, 0.0]), False
            )
            self._cones.append(("exponential", 0.0, block))

    @property
    def names(self) -> list[str]:
        """Names of the linear rows, equalities first."""
        return [name for block in (*self._equal, *self._at_most) for name in block.names]

    def _assemble(self, sparse: Any) -> tuple[Any, Floats]:
        rows, columns, values, bounds = [], [], [], []
        at = 0
        for block in (*self._equal, *self._at_most, *(cone for _, _, cone in self._cones)):
            count = len(block.bounds)
            rows.append(block.rows + at)
            columns.append(block.columns)
            values.append(block.values)
            if self.scale is not None and block.homogeneous:
                rows.append(np.arange(at, at + count))
                columns.append(np.full(count, self.scale))
                values.append(-block.bounds)
                bounds.append(np.zeros(count))
            else:
                bounds.append(block.bounds)
            at += count
        matrix = sparse.csc_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(at, self.size)
        )
        matrix.sum_duplicates()
        return matrix, np.concatenate(bounds)

    def solve(self, settings: SolverSettings) -> Solution:
        """Solve it.

        Raises
        ------
        MissingExtraError
            When Clarabel or SciPy is not installed.
        """
        clarabel, sparse = _solver()
        began = time.perf_counter()
        if not (self._equal or self._at_most or self._cones):
            self.row(STRUCTURAL, np.arange(1), 0.0, 1.0)  # the solver wants a row
        matrix, bounds = self._assemble(sparse)
        parts = []
        for indices, block in self._quadratic:
            if block.ndim == 1:
                parts.append(sparse.coo_matrix((block, (indices, indices)), shape=(self.size, self.size)))
            else:
                upper = np.triu_indices(len(indices))
                parts.append(
                    sparse.coo_matrix(
                        (block[upper], (indices[upper[0]], indices[upper[1]])), shape=(self.size, self.size)
                    )
                )
        quadratic = sparse.csc_matrix((self.size, self.size))
        for part in parts:
            quadratic = quadratic + part.tocsc()
        linear = np.zeros(self.size)
        for columns, values in self._linear:
            np.add.at(linear, columns, values)
        # The objective is brought to the size of one: covariances of days are near 1e-4, and tolerances absolute too.
        size = max(float(np.abs(quadratic.data).max(initial=0.0)), float(np.abs(linear).max(initial=0.0))) or 1.0
        equalities = sum(len(block.bounds) for block in self._equal)
        inequalities = sum(len(block.bounds) for block in self._at_most)
        cones: list[Any] = []
        if equalities:
            cones.append(clarabel.ZeroConeT(equalities))
        if inequalities:
            cones.append(clarabel.NonnegativeConeT(inequalities))
        for kind, exponent, _ in self._cones:
            cones.append(clarabel.PowerConeT(exponent) if kind == "power" else clarabel.ExponentialConeT())
        options = clarabel.DefaultSettings()
        options.verbose = False
        options.max_threads = 1
        options.direct_solve_method = "qdldl"
        options.max_iter = settings.max_iterations
        options.time_limit = settings.time_limit
        options.tol_feas = options.tol_gap_rel = options.tol_gap_abs = settings.tolerance
        found = clarabel.DefaultSolver(quadratic / size, linear / size, matrix, bounds, cones, options).solve()
        linear_rows = equalities + inequalities
        x = np.asarray(found.x, dtype=np.float64)
        return Solution(
            x=x,
            duals=size * np.asarray(found.z, dtype=np.float64)[:linear_rows],
            slacks=np.asarray(found.s, dtype=np.float64)[:linear_rows],
            names=tuple(self.names),
            equalities=equalities,
            status=_STATUS.get(str(found.status), "failed"),
            objective=size * float(found.obj_val),
            iterations=int(found.iterations),
            primal_residual=float(found.r_prim),
            dual_residual=float(found.r_dual),
            seconds=time.perf_counter() - began,
        )


_STATUS = {
    "Solved": "optimal",
    "AlmostSolved": "inaccurate",
    "PrimalInfeasible": "infeasible",
    "AlmostPrimalInfeasible": "infeasible",
    "DualInfeasible": "unbounded",
    "AlmostDualInfeasible": "unbounded",
    "MaxTime": "time limit",
    "MaxIterations": "iteration limit",
}


def _solver() -> tuple[Any, Any]:
    purpose = "portfolio optimisation"
    try:
        import clarabel
    except ImportError as error:
        raise MissingExtraError("clarabel", "risk", purpose) from error
    try:
        from scipy import sparse
    except ImportError as error:
        raise MissingExtraError("scipy", "risk", purpose) from error
    return clarabel, sparse


def solver_version() -> str:
    """Name and version of the solver."""
    clarabel, _ = _solver()
    return f"clarabel {clarabel.__version__}"
