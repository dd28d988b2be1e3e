"""Correlation break: the worst move of k standard deviations under correlations that somebody fears.

With exposures w and a stressed covariance S, all moves x with a Mahalanobis length of at most k, x' S^-1 x <= k^2, lose
at most k sqrt(w' S w), and the one that loses this is (Studer 1997, "Maximum loss for measurement of market risk", ETH
Zurich, theorem 3.15, for a linear book)::

    x = -k S w / sqrt(w' S w)

With all correlations at one, S is the product of the standard deviations, and all prices move k of their own together.

A matrix written by hand is rarely positive semidefinite. It is replaced by the nearest one that is, in Frobenius norm
and with ones on the diagonal (Higham 2002, "Computing the nearest correlation matrix - a problem from finance", IMA J.
Numerical Analysis 22, algorithm 3.3: alternating projections with Dykstra's correction).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.stress.moves import Universe
from tengri_fast.risk.stress.scenario import Correlation

__all__ = ["checked_covariance", "nearest_correlation", "nearest_covariance", "stressed_covariance", "worst_move"]

Floats = npt.NDArray[np.float64]


def _symmetric(name: str, matrix: npt.ArrayLike) -> Floats:
    table = np.array(matrix, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.shape[0] < 1:
        raise DataConversionError(f"`{name}` must be square, had shape {table.shape}")
    if not np.isfinite(table).all():
        i, j = (int(x) for x in np.argwhere(~np.isfinite(table))[0])
        raise DataConversionError(f"`{name}` must be finite, was {table[i, j]} in row {i}, column {j}")
    if np.abs(table - table.T).max() > 1e-8 * max(np.abs(table).max(), 1e-300):
        raise DataConversionError(f"`{name}` must be symmetric")
    result: Floats = 0.5 * (table + table.T)
    return result


def checked_covariance(matrix: npt.ArrayLike, count: int | None = None) -> Floats:
    """A symmetric positive semidefinite copy, or a plain error.

    Parameters
    ----------
    matrix : array_like, shape (N, N)
    count : int, optional
        N that is expected.

    Raises
    ------
    DataConversionError
        When it is not square, finite, symmetric or positive semidefinite (to 1e-8 of its largest eigenvalue).
    """
    table = _symmetric("covariance", matrix)
    if count is not None and table.shape[0] != count:
        raise DataConversionError(f"`covariance` must have shape ({count}, {count}), had {table.shape}")
    values = np.linalg.eigvalsh(table)
    if values[0] < -1e-8 * max(float(values[-1]), 0.0) or values[-1] < 0.0:
        raise DataConversionError(
            f"`covariance` must be positive semidefinite, had the eigenvalue {values[0]:.6g}; see nearest_covariance"
        )
    return table


def _project(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    result: Floats = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return 0.5 * (result + result.T)


def nearest_correlation(matrix: npt.ArrayLike, *, tolerance: float = 1e-9, iterations: int = 10_000) -> Floats:
    """The nearest correlation matrix in Frobenius norm (Higham 2002, algorithm 3.3).

    Parameters
    ----------
    matrix : array_like, shape (N, N)
        Symmetric and finite; the diagonal need not be one.
    tolerance : float
        Stops when a round changes the matrix by less, relative to its norm.
    iterations : int
        At most so many rounds.

    Returns
    -------
    ndarray, shape (N, N)
        Ones on the diagonal, eigenvalues not below zero but for rounding. What already is one is returned as it is.

    Raises
    ------
    DataConversionError
        When the matrix breaks a rule, or the rounds do not suffice.
    """
    table = _symmetric("matrix", matrix)
    if (
        np.array_equal(np.diag(table), np.ones(table.shape[0]))
        and np.linalg.eigvalsh(table)[0] >= -1e-12 * table.shape[0]
    ):
        return table
    correction = np.zeros_like(table)
    point = table
    for _ in range(iterations):
        before = point
        shifted = point - correction
        projected = _project(shifted)
        correction = projected - shifted
        point = projected.copy()
        np.fill_diagonal(point, 1.0)
        if np.linalg.norm(point - before) <= tolerance * np.linalg.norm(point):
            break
    else:
        raise DataConversionError(f"`matrix` must come near a correlation matrix within {iterations} rounds, did not")
    # The diagonal was set last, so that an eigenvalue may be a little below zero: project once more and rescale.
    point = _project(point)
    scale = np.sqrt(np.diag(point))
    point = point / np.outer(scale, scale)
    np.fill_diagonal(point, 1.0)
    result: Floats = np.clip(0.5 * (point + point.T), -1.0, 1.0)
    return result


def _split(covariance: Floats) -> tuple[Floats, Floats]:
    """Standard deviations and correlations; what never moves is correlated with nothing."""
    sigma = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    safe = np.where(sigma > 0.0, sigma, 1.0)
    correlation = covariance / np.outer(safe, safe)
    np.fill_diagonal(correlation, 1.0)
    return sigma, np.clip(correlation, -1.0, 1.0)


def nearest_covariance(matrix: npt.ArrayLike) -> Floats:
    """A positive semidefinite matrix with the same variances and the nearest correlations.

    Raises
    ------
    DataConversionError
        When the matrix is not square, finite and symmetric, or a variance is negative.
    """
    table = _symmetric("covariance", matrix)
    if (np.diag(table) < 0.0).any():
        i = int(np.argmax(np.diag(table) < 0.0))
        raise DataConversionError(f"`covariance` must have variances >= 0, was {table[i, i]} in row {i}")
    sigma, correlation = _split(table)
    result: Floats = nearest_correlation(correlation) * np.outer(sigma, sigma)
    return result


def stressed_covariance(correlation: Correlation, covariance: Floats, universe: Universe) -> tuple[Floats, bool]:
    """Covariance with the variances of ``covariance`` and the correlations of a scenario.

    Parameters
    ----------
    correlation : Correlation
    covariance : ndarray, shape (N, N)
        As :func:`checked_covariance` returns it.
    universe : Universe
        Of the same N instruments.

    Returns
    -------
    tuple of (ndarray, shape (N, N), bool)
        The covariance, and whether the correlations had to be repaired.
    """
    sigma, now = _split(covariance)
    sigma = sigma * correlation.volatility_multiple
    if correlation.level is not None:
        wanted = np.full_like(now, correlation.level)
    else:
        assert correlation.matrix is not None  # one of the two, by Correlation
        rows = np.full(len(universe.instrument_ids), -1)
        for i in range(rows.size):
            matching = [a for a, key in enumerate(correlation.instrument_ids) if universe.names(i, (key,))]
            exact = [a for a in matching if correlation.instrument_ids[a] == universe.instrument_ids[i]]
            rows[i] = (exact or matching or [-1])[0]
        both = (rows[:, None] >= 0) & (rows[None, :] >= 0) & (rows[:, None] != rows[None, :])
        wanted = np.where(both, correlation.matrix[np.ix_(rows, rows)], now)
    np.fill_diagonal(wanted, 1.0)
    repaired = nearest_correlation(wanted)
    return repaired * np.outer(sigma, sigma), bool(np.abs(repaired - wanted).max() > 1e-9)


def worst_move(exposures: Floats, covariance: Floats, sigmas: float) -> Floats:
    """The move of Mahalanobis length ``sigmas`` that a linear book loses most in, shape (N,); zero for a flat book."""
    direction = covariance @ exposures
    variance = float(exposures @ direction)
    if variance <= 0.0:
        return np.zeros_like(exposures)
    result: Floats = -sigmas * direction / np.sqrt(variance)
    return result
