"""From weights to whole lots: the quantities of least tracking error that keep the constraints.

Exactly by enumeration of rounding up or down where instruments are few, else greedily: every position is rounded
towards zero, then one lot after the other is added or removed where it brings the portfolio nearest to the weights, as
long as no constraint is broken that was not. Constraints that rounding itself breaks are repaired first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.optimise.constraints import Constraints
from tengri_fast.risk.optimise.inputs import vector

__all__ = ["LotRounding", "round_to_lots"]

Floats = npt.NDArray[np.float64]
Measure = Callable[[Floats], float]
Moves = Callable[[int], list[tuple[int, float]]]

#: Instruments up to which every combination of rounding is tried.
ENUMERATED = 10
#: Moves whose constraints are looked at in one step.
TRIED = 400


@dataclass(frozen=True, eq=False)
class LotRounding:
    """Whole lots near weights.

    Attributes
    ----------
    quantities : ndarray, shape (N,)
        Units, multiples of the lots.
    weights : ndarray, shape (N,)
        What they are as weights.
    tracking_error : float
        sqrt((w - target)'S(w - target)); the Euclidean distance without a covariance.
    exact : bool
        Whether every combination was tried.
    broken : tuple of str
        Constraints that no rounding found keeps.
    """

    quantities: Floats
    weights: Floats
    tracking_error: float
    exact: bool
    broken: tuple[str, ...]


def round_to_lots(
    target: npt.ArrayLike, unit_weights: npt.ArrayLike, lots: npt.ArrayLike, constraints: Constraints,
    names: Sequence[str], *, covariance: npt.ArrayLike | None = None, current: npt.ArrayLike | None = None,
) -> LotRounding:  # fmt: skip
    """Round weights to whole lots.

    Parameters
    ----------
    target : array_like, shape (N,)
        Weights.
    unit_weights : array_like, shape (N,)
        Weight of one unit of each instrument, != 0: its exposure / equity.
    lots : array_like, shape (N,)
        Smallest quantity of each instrument, > 0.
    constraints : Constraints
        To be kept. The budget becomes an upper bound; cash is left where lots do not add up.
    names : sequence of str
        Instruments.
    covariance : array_like, shape (N, N), optional
        By which distance is measured.
    current : array_like, shape (N,), optional
        Present weights, for turnover.

    Raises
    ------
    DataConversionError
        When an input breaks its rule.
    """
    count = len(names)
    wanted = vector("target", target, count)
    units = vector("unit_weights", unit_weights, count)
    steps = np.broadcast_to(np.asarray(lots, dtype=np.float64), (count,))
    if not (np.isfinite(steps) & (steps > 0.0)).all() or (units == 0.0).any():
        raise DataConversionError("`lots` must be finite and > 0, and `unit_weights` must not be 0")
    per_lot = units * steps
    now = np.zeros(count) if current is None else vector("current", current, count)
    matrix = np.eye(count) if covariance is None else np.asarray(covariance, dtype=np.float64)
    ideal = wanted / per_lot
    near = np.round(ideal)
    whole = np.abs(ideal - near) < 1e-9 * np.maximum(1.0, np.abs(ideal))
    ideal = np.where(whole, near, ideal)
    low, high = np.floor(ideal), np.ceil(ideal)

    def distance(n: Floats) -> float:
        gap = n * per_lot - wanted
        return float(gap @ matrix @ gap)

    def excess(n: Floats) -> float:
        found = constraints.violations(n * per_lot, names, now, tolerance=1e-9, budget_below=np.inf)
        return sum(abs(v.value - v.bound) for v in found)

    def key(n: Floats) -> tuple[float, float]:
        return excess(n), distance(n)

    open_ = np.flatnonzero(low != high)
    exact = open_.size <= ENUMERATED
    if exact:
        tried = []
        for choice in itertools.product((False, True), repeat=open_.size):
            n = low.copy()
            n[open_] = np.where(np.array(choice, dtype=bool), high[open_], low[open_])
            tried.append(n)
        lots_held = min(tried, key=key)
        exact = excess(lots_held) == 0.0
    if not exact:
        # Two descents: from below, which seldom breaks a constraint, and from the nearest lots.
        ends = [_descend(start, per_lot, wanted, matrix, excess) for start in (np.trunc(ideal), near)]
        lots_held = min(ends if open_.size > ENUMERATED else [lots_held, *ends], key=key)
    made = lots_held * per_lot
    broken = constraints.violations(made, names, now, tolerance=1e-9, budget_below=np.inf)
    return LotRounding(
        quantities=lots_held * steps,
        weights=made,
        tracking_error=float(np.sqrt(max(distance(lots_held), 0.0))),
        exact=exact,
        broken=tuple(v.name for v in broken),
    )


def _descend(start: Floats, per_lot: Floats, wanted: Floats, matrix: Floats, excess: Measure) -> Floats:
    """Moves of one lot, or of one lot against another, until none lowers (excess, distance)."""
    n = start.copy()
    count = len(n)
    curvature = np.outer(per_lot, per_lot) * matrix
    own = np.diag(curvature)
    broken = excess(n)
    for _ in range(20 * count + 100):
        slope = per_lot * (matrix @ (n * per_lot - wanted))
        # Change of the squared distance by a lot more or less, and by a lot of i more against a lot of j less.
        single = np.concatenate([own + 2.0 * slope, own - 2.0 * slope])
        found = _best(n, single, broken, excess, lambda k: [(k % count, 1.0 if k < count else -1.0)])
        if found is None:
            pair = (own[:, None] + own[None, :] - 2.0 * curvature) + 2.0 * (slope[:, None] - slope[None, :])
            np.fill_diagonal(pair, np.inf)
            found = _best(n, pair.ravel(), broken, excess, lambda k: [(k // count, 1.0), (k % count, -1.0)])
        if found is None:
            return n
        broken = found
    return n


def _best(n: Floats, changes: Floats, broken: float, excess: Measure, moves: Moves) -> float | None:
    """Make the best move in place and return the excess after it; None when no move helps.

    While constraints hold, moves are tried in the order of their gain and the first that keeps them is made. While
    they do not, the move that lowers the excess most is made.
    """
    order = np.argsort(changes, kind="stable")
    if broken == 0.0:
        order = order[changes[order] < -1e-15]
    best, best_excess = None, broken
    for k in order[:TRIED]:
        move = moves(int(k))
        for i, step in move:
            n[i] += step
        after = excess(n)
        for i, step in move:
            n[i] -= step
        if broken == 0.0 and after == 0.0:
            best, best_excess = move, after
            break
        if after < best_excess:
            best, best_excess = move, after
    if best is None:
        return None
    for i, step in best:
        n[i] += step
    return best_excess
