"""Reverse stress: the smallest shock that costs a given amount.

Small is measured in the Mahalanobis norm of a covariance S, |x|_S = sqrt(x' S^-1 x): under a normal distribution the
smallest shock is the most probable of all that breach, the "design point" of structural reliability (Hasofer and Lind
1974). With L the loss of the portfolio and B what prices can do::

    min x' S^-1 x   such that   L(x) >= limit,  x in B

*Linear book.* L = -w'x with exposures w, and no bound in the way: in closed form (Studer 1997)::

    x = -limit S w / (w' S w),      |x|_S = limit / sqrt(w' S w)

*Anything else.* Sequential quadratic programming on x = F z with S = F F' (after Rackwitz and Fiessler 1978, with the
line search of Zhang and Der Kiureghian 1995): the loss is linearised, the nearest z of the linear problem with the
bounds is a least-distance programme, and the step is shortened until it pays. The problem need not be convex (short
options lose on both sides), so it is started from several points: along the linear answer, along each instrument, along
the directions of the strongest curvature, and from the worst corner of B. Every answer is pulled onto the limit and
revalued; the nearest wins. It is a local optimum of several, the global one for a linear or convex book.

*None.* Losses add up over instruments, so that the largest loss within bounds is the sum of largest losses, known
exactly. When that is below the limit, no shock within bounds breaches, and this is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.stress.correlation import checked_covariance
from tengri_fast.risk.stress.least_distance import least_distance
from tengri_fast.risk.stress.moves import filled, has_greeks, scale_of

__all__ = ["ReverseStress", "reverse_stress", "reverse_stress_along"]

Floats = npt.NDArray[np.float64]

# Parts into which a ray is cut when its first crossing is looked for, between the points where a payoff has a kink.
_RAY_PARTS = 512
_ROUNDS = 200
# Starting points from which the way down is gone, the nearest of all that were tried.
_DESCENTS = 8


@dataclass(frozen=True, eq=False)
class ReverseStress:
    """The answer.

    Parameters
    ----------
    found : bool
        Whether a shock within bounds breaches.
    shock : ndarray, shape (N,)
        Relative moves; NaN when none was found.
    distance : float
        Mahalanobis norm of the shock; along a direction: how many times the direction. Infinite when none was found.
    loss : float
        Loss at the shock by revaluation, at least ``limit`` when found; otherwise the largest loss that was found.
    limit : float
        What was asked for.
    method : {"closed form", "iterative", "ray"}
    reason : str
        Plain words when none was found.
    moves : mapping of str to float
        The shock by instrument, those that move.
    """

    found: bool
    shock: Floats
    distance: float
    loss: float
    limit: float
    method: Literal["closed form", "iterative", "ray"]
    reason: str = ""
    moves: Mapping[str, float] = field(default_factory=dict)


def _bounds(holdings: Holdings, bounds: tuple[npt.ArrayLike, npt.ArrayLike] | None) -> tuple[Floats, Floats]:
    count = len(holdings)
    low = np.where(holdings.codes == 1, -0.99, -1.0)
    high = np.full(count, math.inf)
    binary = holdings.codes == 2
    with np.errstate(divide="ignore"):
        high[binary] = 1.0 / holdings.prices[binary] - 1.0
    high[binary & (holdings.prices <= 0.0)] = 0.0
    if bounds is None:
        return low, high
    given = [np.broadcast_to(np.asarray(bound, dtype=np.float64), (count,)) for bound in bounds]
    for name, values, rule, bad in (
        ("low", given[0], "<= 0", ~(given[0] <= 0.0)),
        ("high", given[1], ">= 0", ~(given[1] >= 0.0)),
    ):
        if bad.any():
            i = int(np.argmax(bad))
            raise DataConversionError(
                f"`bounds` ({name}) must be {rule}, so that no shock is within them, was {values[i]} for "
                f"{holdings.instrument_ids[i]}"
            )
    return np.maximum(low, given[0]), np.minimum(high, given[1])


def _limit(limit: float) -> float:
    if isinstance(limit, bool) or not (math.isfinite(limit) and limit > 0.0):
        raise DataConversionError(f"`limit` must be finite and > 0, was {limit}")
    return float(limit)


class _Book:
    """Loss, gradient and curvature of a portfolio in relative moves."""

    def __init__(self, holdings: Holdings) -> None:
        self.holdings = holdings
        self.greeks = has_greeks(holdings)
        self.inverse = (holdings.codes == 1) & ~self.greeks
        self.binary = (holdings.codes == 2) & ~self.greeks
        # A binary at a price of 0 has no exposure; the reciprocal that is not used would warn.
        with np.errstate(divide="ignore"):
            self.slope = holdings.exposures()
        self.plain = np.where(self.inverse, 0.0, self.slope)
        gamma = np.where(self.greeks, np.nan_to_num(filled(holdings.gammas)), 0.0)
        self.curvature = scale_of(holdings) * gamma * holdings.prices**2
        self.linear = not (self.curvature.any() or (self.inverse & (holdings.quantities != 0.0)).any())

    def revalued(self, x: Floats) -> float:
        """Loss by revaluation of the portfolio: what answers are checked by."""
        return -float(self.holdings.pnl(x)[0])

    def loss(self, x: Floats) -> float:
        """The same within bounds, without the checks; where binaries are linear."""
        return float(self.losses(x[:, None])[0])

    def losses(self, table: Floats) -> Floats:
        """Of several moves, shape (N, S)."""
        total = -(self.plain @ table)
        if self.inverse.any():
            r = table[self.inverse]
            total -= self.slope[self.inverse] @ (r / (1.0 + r))
        if self.curvature.any():
            total -= 0.5 * (self.curvature @ (table * table))
        result: Floats = total
        return result

    def gradient(self, x: Floats) -> Floats:
        """dL/dx; a binary counts as linear up to its bounds, which are constraints here."""
        slope = self.slope + self.curvature * x
        # As multiplication by a reciprocal square, for the inverse payoff 1/P - 1/(P (1 + x)).
        result: Floats = -np.where(self.inverse, self.slope / (1.0 + np.where(self.inverse, x, 0.0)) ** 2, slope)
        return result

    def largest(self, low: Floats, high: Floats) -> tuple[Floats, float]:
        """Corner (or vertex) with the largest loss, per instrument; infinite bounds count as a move of 1e6."""
        ends = [low, np.minimum(high, 1e6)]
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = np.where(self.curvature != 0.0, -self.slope / self.curvature, 0.0)
        ends.append(np.clip(vertex, low, np.minimum(high, 1e6)))
        results = np.stack([self.holdings.quantities * self.holdings.unit_pnl(end) for end in ends])
        best = np.argmin(results, axis=0)
        corner = np.choose(best, ends)
        return corner, -float(results.min(axis=0).sum())


def reverse_stress_along(
    holdings: Holdings,
    limit: float,
    direction: npt.ArrayLike,
    *,
    bounds: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    largest: float = 1e3,
) -> ReverseStress:
    """How far along a direction the loss first reaches a limit.

    Parameters
    ----------
    holdings : Holdings
    limit : float
        Loss in base currency, finite and > 0.
    direction : array_like, shape (N,)
        Relative moves that one unit means, such as the betas of a factor times its standard deviation.
    bounds : tuple of two array_like, optional
        Lowest and highest relative move per instrument; prices never fall below zero, and binaries stay within 0 and 1.
        An instrument that reaches a bound stays there while the others go on.
    largest : float
        Longest multiple of the direction that is looked at, > 0.

    Returns
    -------
    ReverseStress
        ``distance`` is the multiple. The first crossing is found by a search over 512 parts between any two kinks and
        bisection; a breach and recovery within one part would be missed.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    limit = _limit(limit)
    step = np.asarray(direction, dtype=np.float64)
    if step.shape != (len(holdings),) or not np.isfinite(step).all():
        raise DataConversionError(f"`direction` must be finite with shape ({len(holdings)},), had shape {step.shape}")
    if not (math.isfinite(largest) and largest > 0.0):
        raise DataConversionError(f"`largest` must be finite and > 0, was {largest}")
    low, high = _bounds(holdings, bounds)
    book = _Book(holdings)
    multiple, most = _along(book, step, low, high, limit, largest)
    if multiple is None:
        reason = f"the largest loss along the direction, up to {largest:g} times it and within bounds, is {most:.6g}"
        return _none(holdings, limit, most, "ray", reason)
    shock = np.clip(multiple * step, low, high)
    return _answer(holdings, shock, multiple, book.revalued(shock), limit, "ray")


def _along(
    book: _Book, step: Floats, low: Floats, high: Floats, limit: float, largest: float
) -> tuple[float | None, float]:
    """Smallest multiple at which the loss reaches the limit, and the largest loss that was seen."""
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(step > 0.0, high / step, np.where(step < 0.0, low / step, math.inf))
    kinks = np.unique(reach[(reach > 0.0) & (reach < largest)])
    # After the last bound nothing moves.
    end = largest if np.isinf(reach[step != 0.0]).any() else min(largest, float(kinks[-1]) if kinks.size else largest)
    marks = np.concatenate(([0.0], kinks[kinks < end], [end]))
    most = 0.0
    for a, b in zip(marks[:-1].tolist(), marks[1:].tolist(), strict=True):
        # Denser near the start of the ray, where moves of a size that occurs lie.
        grid = a + (b - a) * np.concatenate((np.geomspace(1e-6, 1.0, _RAY_PARTS // 2), np.linspace(0, 1, _RAY_PARTS)))
        grid = np.unique(np.append(grid, b))
        losses = book.losses(np.clip(step[:, None] * grid, low[:, None], high[:, None]))
        most = max(most, float(losses.max()))
        above = np.flatnonzero(losses >= limit)
        if above.size == 0:
            continue
        k = int(above[0])
        inside, outside = (float(grid[k - 1]) if k else a), float(grid[k])
        for _ in range(_ROUNDS):
            middle = 0.5 * (inside + outside)
            if middle in (inside, outside):
                break
            if book.loss(np.clip(middle * step, low, high)) >= limit:
                outside = middle
            else:
                inside = middle
        return outside, most
    return None, most


def _answer(
    holdings: Holdings,
    shock: Floats,
    distance: float,
    loss: float,
    limit: float,
    method: Literal["closed form", "iterative", "ray"],
) -> ReverseStress:
    moved = {holdings.instrument_ids[i]: float(shock[i]) for i in np.flatnonzero(shock)}
    return ReverseStress(True, shock, distance, loss, limit, method, moves=moved)


def _none(
    holdings: Holdings, limit: float, loss: float, method: Literal["closed form", "iterative", "ray"], reason: str
) -> ReverseStress:
    return ReverseStress(False, np.full(len(holdings), math.nan), math.inf, loss, limit, method, reason)


def reverse_stress(
    holdings: Holdings,
    limit: float,
    covariance: npt.ArrayLike,
    *,
    bounds: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    starts: int = 64,
) -> ReverseStress:
    """The shock of smallest Mahalanobis norm that loses at least a limit.

    Parameters
    ----------
    holdings : Holdings
    limit : float
        Loss in base currency, finite and > 0.
    covariance : array_like, shape (N, N)
        Of relative moves, positive semidefinite. A singular one allows only moves that it can make.
    bounds : tuple of two array_like, optional
        Lowest (<= 0) and highest (>= 0) relative move per instrument, numbers or shape (N,). By default a price may
        fall to zero (an inverse contract: by 99 %), rise without bound, and a binary stay within 0 and 1.
    starts : int
        At most so many directions to look for starting points in, for books that are not linear, >= 1.

    Returns
    -------
    ReverseStress

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    limit = _limit(limit)
    if starts < 1:
        raise DataConversionError(f"`starts` must be >= 1, was {starts}")
    matrix = checked_covariance(covariance, len(holdings))
    low, high = _bounds(holdings, bounds)
    book = _Book(holdings)
    _, most = book.largest(low, high)
    if most < limit:
        reason = f"no shock within bounds breaches: the largest loss is {most:.6g}"
        return _none(holdings, limit, most, "iterative", reason)
    direction = matrix @ book.slope
    variance = float(book.slope @ direction)
    if book.linear and variance > 0.0:
        shock = -limit / variance * direction
        if (shock >= low).all() and (shock <= high).all():
            # Rounding may leave the loss a bit short of the limit; the answer is one that breaches.
            shock, loss = _onto(book, shock, low, high, limit)
            return _answer(holdings, shock, limit / math.sqrt(variance), loss, limit, "closed form")
    return _iterate(book, matrix, low, high, limit, starts)


def _onto(book: _Book, shock: Floats, low: Floats, high: Floats, limit: float) -> tuple[Floats, float]:
    """A shock that breaches by revaluation: what rounding took is added where it costs money."""
    loss = book.revalued(shock)
    for k in range(60):
        if loss >= limit:
            break
        gradient = book.gradient(shock)
        free = ((gradient > 0.0) & (shock < high)) | ((gradient < 0.0) & (shock > low))
        gradient = np.where(free, gradient, 0.0)
        length = float(gradient @ gradient)
        if length <= 0.0:
            break
        missing = max(limit - loss, limit * 2.0 ** (k - 53))
        shock = np.clip(shock + missing / length * gradient, low, high)
        loss = book.revalued(shock)
    return shock, loss


def _iterate(book: _Book, matrix: Floats, low: Floats, high: Floats, limit: float, starts: int) -> ReverseStress:
    values, vectors = np.linalg.eigh(matrix)
    keep = values > 1e-12 * max(float(values[-1]), 0.0)
    factor = vectors[:, keep] * np.sqrt(values[keep])
    inverse = vectors[:, keep] / np.sqrt(values[keep])
    best: tuple[float, Floats, float] | None = None
    most = 0.0
    rays: list[tuple[float, Floats]] = []
    for start in _starts(book, matrix, factor, low, high, starts):
        multiple, seen = _along(book, start, low, high, limit, 1e6)
        most = max(most, seen)
        if multiple is not None:
            first = np.clip(multiple * start, low, high)
            rays.append((float(np.linalg.norm(inverse.T @ first)), first))
    # The nearest crossings lead somewhere; a far one descends to what a nearer one has found.
    rays.sort(key=lambda ray: ray[0])
    for _, first in rays[:_DESCENTS]:
        for x in (first, _descend(book, factor, inverse, first, low, high, limit)):
            inside = factor @ (inverse.T @ x)
            # A ray that ran into a bound leaves the moves that a singular covariance can make.
            if np.abs(inside - x).max() > 1e-7 * max(1.0, float(np.abs(x).max())):
                continue
            x, loss = _onto(book, x, low, high, limit)
            distance = float(np.linalg.norm(inverse.T @ x))
            if loss >= limit * (1.0 - 1e-12) and (best is None or distance < best[0]):
                best = (distance, x, loss)
    if best is None:
        reason = f"no shock within bounds that the covariance can make was found; the largest loss seen is {most:.6g}"
        return _none(book.holdings, limit, most, "iterative", reason)
    return _answer(book.holdings, best[1], best[0], best[2], limit, "iterative")


def _starts(book: _Book, matrix: Floats, factor: Floats, low: Floats, high: Floats, most: int) -> list[Floats]:
    """Directions to set out in, the promising ones first."""
    found = [-matrix @ book.slope]
    corner, _ = book.largest(low, high)
    found.append(corner)
    if book.linear:
        # Within bounds the problem is convex: any start leads to the one optimum.
        return [step for step in found if np.abs(step).max(initial=0.0) > 0.0][:most]
    if book.curvature.any():
        # Loss = -w'x - x'Cx/2: in z the directions of the most negative curvature of the P&L lose most.
        values, vectors = np.linalg.eigh((factor.T * book.curvature) @ factor)
        for k in np.flatnonzero(values < 0.0)[: most // 4].tolist():
            found += [factor @ vectors[:, k], -(factor @ vectors[:, k])]
    # One instrument at a time, with what its move implies for the others; those that can lose most first.
    sizes = np.abs(book.slope) + np.abs(book.curvature)
    for i in np.argsort(-sizes * np.sqrt(np.diag(matrix)), kind="stable").tolist():
        if sizes[i] > 0.0 and matrix[i, i] > 0.0:
            alone = np.zeros(low.size)
            alone[i] = math.sqrt(matrix[i, i])
            found += [matrix[i] / alone[i], -matrix[i] / alone[i], alone, -alone]
    # Fixed directions that look random: a breach between two recoveries may be seen from nowhere else.
    spread = np.random.Generator(np.random.PCG64(0)).standard_normal((factor.shape[1], most))
    found += list((factor @ spread).T)
    return [step for step in found if np.abs(step).max(initial=0.0) > 0.0][:most]


def _descend(
    book: _Book, factor: Floats, inverse: Floats, start: Floats, low: Floats, high: Floats, limit: float
) -> Floats:
    """Sequential least-distance programmes from a point on the limit; a point that breaches, no farther away."""
    z = inverse.T @ start
    x = start
    bounded = np.zeros(low.size, dtype=np.bool_)
    penalty = 0.0
    for _ in range(_ROUNDS):
        gradient = factor.T @ book.gradient(x)
        length = float(gradient @ gradient)
        if length <= 0.0:
            break
        target = limit - book.loss(x) + float(gradient @ z)
        goal = _nearest(gradient, target, factor, low, high, bounded)
        if goal is None:
            break
        step = goal - z
        # The multiplier of the linearised problem bounds the penalty (Zhang and Der Kiureghian 1995, eq. 12).
        penalty = max(penalty, 2.0 * float(np.linalg.norm(z)) / math.sqrt(length), 1e-12)
        before = _merit(book, factor, z, limit, penalty, low, high)
        share = 1.0
        while share > 1e-8:
            trial = z + share * step
            if _merit(book, factor, trial, limit, penalty, low, high) < before:
                break
            share *= 0.5
        else:
            break
        z = z + share * step
        x = np.clip(factor @ z, low, high)
        if np.linalg.norm(share * step) <= 1e-11 * max(1.0, float(np.linalg.norm(z))):
            break
    pulled, loss = _pull(book, x, low, high, limit)
    nearer = np.linalg.norm(inverse.T @ pulled) < np.linalg.norm(inverse.T @ start)
    return pulled if loss >= limit and nearer else start


def _merit(book: _Book, factor: Floats, z: Floats, limit: float, penalty: float, low: Floats, high: Floats) -> float:
    x = factor @ z
    outside = float(np.maximum(low - x, 0.0).sum() + np.maximum(x - high, 0.0).sum())
    short = max(limit - book.loss(np.clip(x, low, high)), 0.0)
    return 0.5 * float(z @ z) + penalty * short + 1e3 * outside


def _pull(book: _Book, x: Floats, low: Floats, high: Floats, limit: float) -> tuple[Floats, float]:
    """The point on the ray through ``x``, near it, where the loss reaches the limit."""
    loss = book.loss(x)
    if loss >= limit:
        inside, outside = 0.0, 1.0
    elif loss >= limit * (1.0 - 1e-9):
        return _onto(book, x, low, high, limit)
    else:
        inside, outside = 1.0, 2.0
        if book.loss(np.clip(outside * x, low, high)) < limit:
            return x, loss
    for _ in range(80):
        middle = 0.5 * (inside + outside)
        if middle in (inside, outside):
            break
        if book.loss(np.clip(middle * x, low, high)) >= limit:
            outside = middle
        else:
            inside = middle
    pulled = np.clip(outside * x, low, high)
    return pulled, book.loss(pulled)


def _nearest(
    gradient: Floats,
    target: float,
    factor: Floats,
    low: Floats,
    high: Floats,
    bounded: npt.NDArray[np.bool_],
) -> Floats | None:
    """Nearest z of the linearised problem; bounds join as they are broken and stay for the next rounds."""
    lower, upper = np.isfinite(low), np.isfinite(high)
    for _ in range(low.size + 1):
        below, above = np.flatnonzero(bounded & lower), np.flatnonzero(bounded & upper)
        rows = np.vstack([gradient[None, :], factor[below], -factor[above]])
        z = least_distance(rows, np.concatenate(([target], low[below], -high[above])))
        if z is None:
            return None
        x = factor @ z
        broken = ((x < low - 1e-9) | (x > high + 1e-9)) & ~bounded
        if not broken.any():
            return z
        bounded |= broken
    return None
