"""The point nearest to the origin that satisfies linear inequalities (Lawson and Hanson 1974, chapter 23).

Least-distance programming, min |z| such that G z >= h, is one non-negative least-squares problem: with E = [G'; h'] and
f = (0, ..., 0, 1), solve min |E u - f| over u >= 0 and take the residual r = E u - f; z = -r[:n] / r[n]. A residual of
zero means that nothing satisfies the inequalities. Both algorithms end after finitely many steps and use no random
number, so that equal input gives equal bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["least_distance", "non_negative_least_squares"]

Floats = npt.NDArray[np.float64]


def non_negative_least_squares(matrix: Floats, target: Floats) -> Floats:
    """min |A x - b| over x >= 0 (Lawson and Hanson 1974, algorithm NNLS 23.10).

    Parameters
    ----------
    matrix : ndarray, shape (m, n)
    target : ndarray, shape (m,)

    Returns
    -------
    ndarray, shape (n,)
    """
    count = matrix.shape[1]
    x = np.zeros(count)
    passive = np.zeros(count, dtype=np.bool_)
    scale = np.abs(matrix).max(initial=0.0) * max(np.abs(target).max(initial=0.0), 1e-300)
    tolerance = 1e-13 * max(scale, 1e-300) * max(matrix.shape)
    for _ in range(3 * count + 30):
        gradient = matrix.T @ (target - matrix @ x)
        open_ = ~passive & (gradient > tolerance)
        if not open_.any():
            break
        passive[int(np.argmax(np.where(open_, gradient, -np.inf)))] = True
        while passive.any():
            trial = np.zeros(count)
            trial[passive] = np.linalg.lstsq(matrix[:, passive], target, rcond=None)[0]
            negative = passive & (trial <= 0.0)
            if not negative.any():
                x = trial
                break
            step = float(np.min(x[negative] / np.maximum(x[negative] - trial[negative], 1e-300)))
            x = x + step * (trial - x)
            # What reaches zero leaves; at least one does, so that the loop ends.
            leaving = negative & (x <= 1e-15 * max(float(np.abs(x).max()), 1e-300))
            if not leaving.any():
                leaving = negative & (x == x[negative].min())
            passive &= ~leaving
            x[~passive] = 0.0
    return x


def least_distance(rows: Floats, bounds: Floats) -> Floats | None:
    """The smallest z with ``rows @ z >= bounds``, None when there is none.

    Parameters
    ----------
    rows : ndarray, shape (m, n)
    bounds : ndarray, shape (m,)

    Returns
    -------
    ndarray, shape (n,), or None
    """
    # Rows of very different lengths (money, and shares of a price) would spoil the tolerance.
    length = np.maximum(np.linalg.norm(rows, axis=1), 1e-300)
    rows, bounds = rows / length[:, None], bounds / length
    size = float(np.abs(bounds).max(initial=0.0))
    if size == 0.0 or (bounds <= 0.0).all():
        return np.zeros(rows.shape[1])
    # The solution scales with the bounds: solve for bounds of size one.
    matrix = np.vstack([rows.T, (bounds / size)[None, :]])
    target = np.zeros(matrix.shape[0])
    target[-1] = 1.0
    weights = non_negative_least_squares(matrix, target)
    residual = matrix @ weights - target
    if np.linalg.norm(residual) <= 1e-9 or residual[-1] >= -1e-14:
        return None
    result: Floats = -residual[:-1] / residual[-1] * size
    return result
