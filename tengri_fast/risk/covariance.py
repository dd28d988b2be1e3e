"""Covariance matrices of returns: sample, exponentially weighted, Ledoit-Wolf, and a statistical factor model.

Every estimator takes returns [N][S], oldest first, and gives a :class:`Covariance`: a symmetric positive semidefinite
matrix with the facts of its making. NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.conditional import age_weights

__all__ = [
    "COVARIANCES",
    "Covariance",
    "covariance_matrix",
    "ewma_covariance",
    "factor_covariance",
    "ledoit_wolf_constant_correlation",
    "ledoit_wolf_constant_variance",
    "sample_covariance",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Covariance:
    """A covariance matrix and how it was made.

    Attributes
    ----------
    matrix : ndarray, shape (N, N)
        Covariance of one-step returns, symmetric, read-only.
    mean : ndarray, shape (N,)
        The mean that was subtracted (zero where the method assumes zero).
    observations : float
        Effective number of observations behind each entry, 1 / sum of squared weights.
    method : str
        Key of :data:`COVARIANCES`.
    details : mapping
        Shrinkage intensity, number of factors, decay and the like.
    """

    matrix: Floats
    mean: Floats
    observations: float
    method: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        matrix = np.array(0.5 * (self.matrix + self.matrix.T))
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)


def _table(returns: npt.ArrayLike, least: int = 2) -> Floats:
    table = np.asarray(returns, dtype=np.float64)
    if table.ndim == 1:
        table = table[None, :]
    if table.ndim != 2 or table.shape[0] < 1:
        raise DataConversionError(f"`returns` must have shape (N, S), had {table.shape}")
    if table.shape[1] < least:
        raise DataConversionError(f"`returns` must hold at least {least} observations, had {table.shape[1]}")
    if not np.isfinite(table).all():
        i, s = (int(x) for x in np.argwhere(~np.isfinite(table))[0])
        raise DataConversionError(f"`returns` must be finite, was {table[i, s]} in row {i}, column {s}")
    return table


def _centred(table: Floats, zero_mean: bool) -> tuple[Floats, Floats]:
    mean = np.zeros(table.shape[0]) if zero_mean else table.mean(axis=1)
    return table - mean[:, None], mean


def sample_covariance(returns: npt.ArrayLike, *, zero_mean: bool = False) -> Covariance:
    """Sample covariance, divided by S - 1 (by S when the mean is taken as zero).

    Parameters
    ----------
    returns : array_like, shape (N, S)
        Finite returns, oldest first.
    zero_mean : bool
        Do not subtract the mean: over short horizons it is noise.

    Raises
    ------
    DataConversionError
        When a return is not finite or there are fewer than two observations.
    """
    table = _table(returns)
    centred, mean = _centred(table, zero_mean)
    count = table.shape[1]
    return Covariance(centred @ centred.T / (count if zero_mean else count - 1), mean, float(count), "sample")


def ewma_covariance(returns: npt.ArrayLike, *, decay: float = 0.94) -> Covariance:
    """Exponentially weighted covariance around zero, as in RiskMetrics.

    J.P. Morgan 1996, "RiskMetrics Technical Document", 4th edition, eq. 5.10 with 0.94 for daily data. The weights
    decay^k, newest first, are scaled to sum to one, which removes the influence of a starting value.

    Parameters
    ----------
    returns : array_like, shape (N, S)
        Finite returns, oldest first.
    decay : float
        In (0, 1).

    Raises
    ------
    ConfigurationError
        When ``decay`` breaks its rule.
    DataConversionError
        As :func:`sample_covariance`.
    """
    if not 0.0 < decay < 1.0:
        raise ConfigurationError(f"`decay` must be between 0 and 1, was {decay}")
    table = _table(returns)
    weights = age_weights(table.shape[1], decay)
    mean = np.zeros(table.shape[0])
    return Covariance(
        (table * weights) @ table.T, mean, float(1.0 / (weights @ weights)), "ewma", {"decay": float(decay)}
    )


def ledoit_wolf_constant_variance(returns: npt.ArrayLike, *, zero_mean: bool = False) -> Covariance:
    """Shrinkage towards the identity times the mean variance.

    Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivariate
    Analysis 88, eqs. 9 to 14, with S as the divisor throughout. Equal to scikit-learn's ``ledoit_wolf``.

    Parameters and errors are those of :func:`sample_covariance`; ``details["shrinkage"]`` is the weight of the target.
    """
    table = _table(returns)
    centred, mean = _centred(table, zero_mean)
    names, count = table.shape
    sample = centred @ centred.T / count
    level = float(np.trace(sample)) / names
    # Norms as in the paper, divided by N: distance to the target, and dispersion of the single observations.
    spread = float(((sample - level * np.eye(names)) ** 2).sum()) / names
    norms = (centred * centred).sum(axis=0)
    noise = (float((norms * norms).sum()) / count - float((sample * sample).sum())) / (names * count)
    shrinkage = min(max(noise, 0.0), spread) / spread if spread > 0.0 else 0.0
    matrix = shrinkage * level * np.eye(names) + (1.0 - shrinkage) * sample
    return Covariance(
        matrix, mean, float(count), "ledoit_wolf", {"shrinkage": shrinkage, "target": "constant variance"}
    )


def ledoit_wolf_constant_correlation(returns: npt.ArrayLike, *, zero_mean: bool = False) -> Covariance:
    """Shrinkage towards the sample variances with one common correlation, the mean of all.

    Ledoit and Wolf 2003, "Honey, I shrunk the sample covariance matrix" (J. Portfolio Management 30, 2004), appendices
    A and B, with S as the divisor throughout.

    Parameters and errors are those of :func:`sample_covariance`, and every row must vary;
    ``details["shrinkage"]`` is the weight of the target and ``details["correlation"]`` the common correlation.
    """
    table = _table(returns)
    centred, mean = _centred(table, zero_mean)
    names, count = table.shape
    sample = centred @ centred.T / count
    variance = np.diag(sample).copy()
    if names == 1:
        return Covariance(sample, mean, float(count), "ledoit_wolf_correlation", {"shrinkage": 0.0, "correlation": 1.0})
    if not (variance > 0.0).all():
        raise DataConversionError(f"`returns` must vary in every row, row {int(np.argmin(variance))} is constant")
    deviation = np.sqrt(variance)
    correlation = float((sample / np.outer(deviation, deviation)).sum() - names) / (names * (names - 1))
    target = correlation * np.outer(deviation, deviation)
    np.fill_diagonal(target, variance)
    squares = centred * centred
    pi_matrix = squares @ squares.T / count - sample * sample
    cubes = (squares * centred) @ centred.T / count
    theta = cubes - variance[:, None] * sample  # asymptotic covariance of s_ii with s_ij, appendix B
    np.fill_diagonal(theta, 0.0)
    rho = float(np.trace(pi_matrix)) + correlation * float((np.outer(1.0 / deviation, deviation) * theta).sum())
    gamma = float(((sample - target) ** 2).sum())
    kappa = (float(pi_matrix.sum()) - rho) / gamma if gamma > 0.0 else 0.0
    shrinkage = min(max(kappa / count, 0.0), 1.0)
    return Covariance(
        shrinkage * target + (1.0 - shrinkage) * sample,
        mean,
        float(count),
        "ledoit_wolf_correlation",
        {"shrinkage": shrinkage, "target": "constant correlation", "correlation": correlation},
    )


def factor_covariance(returns: npt.ArrayLike, *, factors: int | None = None, zero_mean: bool = False) -> Covariance:
    """Statistical factors: the leading principal components of the correlations, and specific variances.

    Sigma = D (B B' + diag(1 - diag(B B'))) D with D the sample deviations and B the leading eigenvectors times the
    roots of their eigenvalues: variances are those of the sample, correlations come from the factors alone (Connor and
    Korajczyk 1988; McNeil, Frey and Embrechts 2015, section 6.4.5).

    Parameters
    ----------
    returns : array_like, shape (N, S)
        Finite returns, oldest first.
    factors : int, optional
        Between 1 and N; by default the eigenvalues above the edge (1 + sqrt(N / S))^2 that noise reaches (Marchenko
        and Pastur 1967), at least one.
    zero_mean : bool
        Do not subtract the mean.

    Raises
    ------
    ConfigurationError
        When ``factors`` breaks its rule.
    DataConversionError
        As :func:`sample_covariance`.
    """
    sample = sample_covariance(returns, zero_mean=zero_mean)
    names, count = sample.matrix.shape[0], sample.observations
    if factors is not None and not 1 <= factors <= names:
        raise ConfigurationError(f"`factors` must be between 1 and the number of instruments {names}, was {factors}")
    deviation = np.sqrt(np.diag(sample.matrix))
    # A constant row has no correlation; its variance of zero removes whatever stands here.
    safe = np.where(deviation > 0.0, deviation, 1.0)
    correlation = sample.matrix / np.outer(safe, safe)
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    edge = (1.0 + math.sqrt(names / count)) ** 2
    kept = factors if factors is not None else max(1, int((values > edge).sum()))
    values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
    loadings = vectors * np.sqrt(np.maximum(values, 0.0))
    common = loadings @ loadings.T
    np.fill_diagonal(common, 1.0)
    return Covariance(
        common * np.outer(deviation, deviation),
        sample.mean,
        count,
        "factor",
        {"factors": kept, "explained": float(np.maximum(values, 0.0).sum() / names)},
    )


#: Estimators by the name that a configuration uses.
COVARIANCES: dict[str, Callable[..., Covariance]] = {
    "sample": sample_covariance,
    "ewma": ewma_covariance,
    "ledoit_wolf": ledoit_wolf_constant_variance,
    "ledoit_wolf_correlation": ledoit_wolf_constant_correlation,
    "factor": factor_covariance,
}


def covariance_matrix(returns: npt.ArrayLike, method: str = "sample", **options: Any) -> Covariance:
    """Covariance by the name of its method; ``options`` go to the estimator.

    Raises
    ------
    ConfigurationError
        When the method or an option is unknown.
    DataConversionError
        As the estimator.
    """
    if method not in COVARIANCES:
        raise ConfigurationError(f"`covariance` must be one of {', '.join(COVARIANCES)}, was {method!r}")
    try:
        return COVARIANCES[method](returns, **options)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise ConfigurationError(f"`covariance` {method!r}: {error}") from error
        raise
