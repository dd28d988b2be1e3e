"""What a model is asked to foretell.

``next_move`` with a horizon: the sign of the first change of the mid after a row, if it comes within the horizon, else
flat. It reads the future by design; nothing else in the package does, and labels never travel with features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tengri_fast.errors import DataConversionError

__all__ = ["DOWN", "FLAT", "UP", "class_returns", "forward_returns_bps", "next_move_within"]

DOWN, FLAT, UP = 0, 1, 2
UNKNOWN = -1


def _series(ts: ArrayLike, mid: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    times = np.asarray(ts).astype(np.int64)
    prices = np.asarray(mid, dtype=np.float64)
    if times.ndim != 1 or times.shape != prices.shape:
        raise DataConversionError(f"`ts` and `mid` must be one-dimensional and of one length, were {times.shape} and "
                                  f"{prices.shape}")  # fmt: skip
    if np.any(np.diff(times) < 0):
        raise DataConversionError(f"`ts` must not go backwards, does at row {int(np.argmax(np.diff(times) < 0)) + 1}")
    if not np.all(np.isfinite(prices) & (prices > 0)):
        bad = int(np.argmin(np.isfinite(prices) & (prices > 0)))
        raise DataConversionError(f"`mid` must be finite and positive, was {prices[bad]} at row {bad}")
    return times, prices


def next_move_within(ts: ArrayLike, mid: ArrayLike, horizon_ns: int) -> NDArray[np.int8]:
    """Class of the first mid change after each row: 0 down, 1 flat (none within the horizon), 2 up.

    Parameters
    ----------
    ts : array of int64, shape [n]
        UTC nanoseconds, not decreasing.
    mid : array of float64, shape [n]
    horizon_ns : int
        How far ahead a change still counts.

    Returns
    -------
    array of int8, shape [n]
        -1 where the data end before the horizon and before any change: unknown, to be left out.
    """
    times, prices = _series(ts, mid)
    n = len(prices)
    labels = np.full(n, UNKNOWN, dtype=np.int8)
    if n == 0:
        return labels
    # (bid + ask) / 2 may round differently for two books with the same exact mid: that is no move.
    changes = np.flatnonzero(np.abs(np.diff(prices)) > 4 * np.spacing(prices[1:])) + 1
    position = np.searchsorted(changes, np.arange(n), side="right")
    has = position < len(changes)
    first = changes[position[has]]
    rows = np.flatnonzero(has)
    in_time = times[first] - times[rows] <= horizon_ns
    up = prices[first] > prices[first - 1]
    labels[rows] = np.where(in_time, np.where(up, UP, DOWN), FLAT)
    settled = ~has & (times[-1] - times >= horizon_ns)
    labels[settled] = FLAT
    return labels


def forward_returns_bps(ts: ArrayLike, mid: ArrayLike, horizon_ns: int) -> NDArray[np.float64]:
    """Mid return from each row to the last mid known at ``ts + horizon``, in basis points; NaN where the data end.

    Returns
    -------
    array of float64, shape [n]
    """
    times, prices = _series(ts, mid)
    at = np.searchsorted(times, times + horizon_ns, side="right") - 1
    returns: NDArray[np.float64] = 1e4 * (prices[at] / prices - 1.0)
    if len(times):
        returns[times + horizon_ns > times[-1]] = np.nan
    return returns


def class_returns(labels: NDArray[np.int8], returns_bps: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean forward return of each class in basis points, over rows where both are known; 0 for an empty class."""
    means = []
    for label in (DOWN, FLAT, UP):
        chosen = returns_bps[(labels == label) & np.isfinite(returns_bps)]
        means.append(float(chosen.mean()) if len(chosen) else 0.0)
    return means[0], means[1], means[2]
