"""Extreme-value tail: a generalised Pareto distribution fitted to the losses beyond a threshold (POT).

McNeil, Frey and Embrechts 2015, "Quantitative Risk Management", section 5.2. With n losses of which n_u exceed u, and
excesses that follow G(y) = 1 - (1 + xi y / beta)^(-1 / xi)::

    VaR = u + beta / xi ((n / n_u (1 - level))^-xi - 1)                       eq. 5.18
    ES  = (VaR + beta - xi u) / (1 - xi),  infinite from xi = 1 on             eq. 5.19

The likelihood is maximised over xi / beta alone, which leaves one dimension (Grimshaw 1993, "Computing maximum
likelihood estimates for the generalized Pareto distribution", Technometrics 35), and finished by Newton steps on both.
Below xi = -1/2 the likelihood is not regular; the fit stops there and says so. NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError

__all__ = ["GparetoFit", "fit_excesses", "likelihood_score", "tail_estimates", "tail_estimates_gradient"]

Floats = npt.NDArray[np.float64]
_LEAST = 10
_NEAR_ZERO = 1e-5


@dataclass(frozen=True, eq=False)
class GparetoFit:
    """A generalised Pareto distribution fitted to excesses.

    Attributes
    ----------
    xi, beta : float
        Shape and scale.
    log_likelihood : float
        At the optimum.
    count : int
        Number of excesses.
    covariance : ndarray, shape (2, 2)
        Asymptotic covariance of (xi, beta), from the expected information; NaN at xi <= -1/2.
    regular : bool
        False when the fit stopped at xi = -1/2.
    """

    xi: float
    beta: float
    log_likelihood: float
    count: int
    covariance: Floats = field(repr=False)
    regular: bool = True


def likelihood_score(y: Floats, xi: float, beta: float) -> tuple[Floats, Floats]:
    """Gradient and Hessian of the log-likelihood in (xi, beta)."""
    base = beta + xi * y
    w = y / base
    count = float(y.size)
    if abs(xi) < _NEAR_ZERO:
        z = y / beta
        by_xi = float((0.5 * z * z - z + xi * (z * z - 2.0 / 3.0 * z**3)).sum())
        by_xi_xi = float((z * z - 2.0 / 3.0 * z**3).sum())
    else:
        logs = np.log1p(xi * y / beta)
        by_xi = float((logs / xi**2 - (1.0 + 1.0 / xi) * w).sum())
        by_xi_xi = float((-2.0 * logs / xi**3 + 2.0 * w / xi**2 + (1.0 + 1.0 / xi) * w * w).sum())
    by_beta = (float(((1.0 + xi) * w).sum()) - count) / beta
    by_beta_beta = count / beta**2 - (1.0 + xi) * float((w / beta**2 + y / (beta * base * base)).sum())
    by_xi_beta = float((w - (1.0 + xi) * w * w).sum()) / beta
    return np.array([by_xi, by_beta]), np.array([[by_xi_xi, by_xi_beta], [by_xi_beta, by_beta_beta]])


def _likelihood(y: Floats, xi: float, beta: float) -> float:
    if beta <= 0.0 or 1.0 + xi * float(y.max()) / beta <= 0.0:
        return -math.inf
    if abs(xi) < 1e-9:
        return -y.size * math.log(beta) - float(y.sum()) / beta
    return -y.size * math.log(beta) - (1.0 + 1.0 / xi) * float(np.log1p(xi * y / beta).sum())


def _profile(y: Floats, tau: float) -> tuple[float, float, float]:
    """Log-likelihood, xi and beta on the profile tau = xi / beta."""
    if abs(tau * float(y.max())) < 1e-8:
        beta = float(y.mean())
        return _likelihood(y, 0.0, beta), 0.0, beta
    xi = float(np.log1p(tau * y).mean())
    if xi < -0.5:
        xi = -0.5
    beta = xi / tau
    return _likelihood(y, xi, beta), xi, beta


def fit_excesses(excesses: npt.ArrayLike) -> GparetoFit:
    """Fit a generalised Pareto distribution by maximum likelihood.

    Parameters
    ----------
    excesses : array_like, shape (n,)
        Losses minus the threshold, finite and > 0, at least 10.

    Raises
    ------
    DataConversionError
        When an excess breaks its rule, or all are equal.
    """
    raw = np.asarray(excesses, dtype=np.float64)
    if raw.ndim != 1 or raw.size < _LEAST:
        raise DataConversionError(f"`excesses` must be one-dimensional with at least {_LEAST} values, had {raw.shape}")
    if not (np.isfinite(raw) & (raw > 0.0)).all():
        raise DataConversionError("`excesses` must be finite and > 0")
    scale = float(raw.mean())
    y = raw / scale
    largest = float(y.max())
    if largest - float(y.min()) <= 1e-12 * largest:
        raise DataConversionError("`excesses` must vary, they are equal")
    positive = np.geomspace(1e-6, 1e4, 120)
    negative = -(1.0 - np.geomspace(1e-9, 1.0 - 1e-7, 120)) / largest
    grid = np.concatenate((np.sort(negative), [0.0], positive))
    heights = np.array([_profile(y, tau)[0] for tau in grid])
    best = int(np.argmax(heights))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, grid.size - 1)])
    ratio = 0.5 * (math.sqrt(5.0) - 1.0)
    for _ in range(80):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if _profile(y, left)[0] < _profile(y, right)[0]:
            low = left
        else:
            high = right
    height, xi, beta = _profile(y, 0.5 * (low + high))
    regular = xi > -0.5 + 1e-6
    if regular:
        for _ in range(20):
            gradient, hessian = likelihood_score(y, xi, beta)
            if not np.isfinite(hessian).all() or abs(np.linalg.det(hessian)) < 1e-300:
                break
            step = np.linalg.solve(hessian, gradient)
            moved = _likelihood(y, xi - float(step[0]), beta - float(step[1]))
            if not moved >= height - 1e-9 * abs(height):
                break
            xi, beta, height = xi - float(step[0]), beta - float(step[1]), moved
            if float(np.abs(step).max()) < 1e-15:
                break
    if xi > -0.5:
        info = (1.0 + xi) / y.size * np.array([[1.0 + xi, -beta * scale], [-beta * scale, 2.0 * (beta * scale) ** 2]])
    else:
        info = np.full((2, 2), math.nan)
    return GparetoFit(xi, beta * scale, height - y.size * math.log(scale), y.size, info, regular)


def _stretch(xi: float, log_ratio: float) -> tuple[float, float]:
    """(c^-xi - 1) / xi for c = exp(``log_ratio``), and its derivative in xi."""
    if abs(xi * log_ratio) < 1e-6:
        value = -log_ratio + 0.5 * xi * log_ratio**2
        return value, 0.5 * log_ratio**2 - xi * log_ratio**3 / 3.0
    value = math.expm1(-xi * log_ratio) / xi
    return value, (-log_ratio * math.exp(-xi * log_ratio) - value) / xi


def tail_estimates(
    threshold: float, xi: float, beta: float, count: int, exceeding: int, level: float
) -> tuple[float, float]:
    """VaR and ES of a fitted tail, eqs. 5.18 and 5.19; ES is infinite when ``xi`` >= 1.

    Parameters
    ----------
    threshold : float
        u, in units of the losses.
    xi, beta : float
        Shape and scale of the excesses.
    count, exceeding : int
        Number of losses, and of those beyond the threshold.
    level : float
        Confidence, at least 1 - exceeding / count.

    Raises
    ------
    ConfigurationError
        When the level lies below the threshold, where this tail says nothing.
    """
    share = exceeding / count
    if not 1.0 - share <= level < 1.0:
        raise ConfigurationError(
            f"`level` must be within [{1.0 - share:.6g}, 1): {exceeding} of {count} losses exceed the threshold; "
            f"was {level}"
        )
    stretch, _ = _stretch(xi, math.log((1.0 - level) / share))
    var = threshold + beta * stretch
    return var, (var + beta - xi * threshold) / (1.0 - xi) if xi < 1.0 else math.inf


def tail_estimates_gradient(
    threshold: float, xi: float, beta: float, count: int, exceeding: int, level: float
) -> tuple[Floats, Floats]:
    """Derivatives of VaR and ES in (threshold, xi, beta); those of an infinite ES are NaN."""
    log_ratio = math.log((1.0 - level) * count / exceeding)
    stretch, slope = _stretch(xi, log_ratio)
    var = np.array([1.0, beta * slope, stretch])
    if xi >= 1.0:
        return var, np.full(3, math.nan)
    top = threshold + beta * stretch + beta - xi * threshold
    es = (var + np.array([-xi, -threshold, 1.0])) / (1.0 - xi)
    es[1] += top / (1.0 - xi) ** 2
    return var, es
