"""Recursions of the conditional variance in numba: the filter, and the likelihood with its gradient.

Imported by :mod:`tengri_fast.risk.garch` inside its functions, never at import of the package.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["SIGNATURES", "variances", "warmup"]

_LOG_2PI = math.log(2.0 * math.pi)


@njit(cache=True)
def variances(
    returns: npt.NDArray[np.float64],
    mean: float,
    omega: float,
    alpha: float,
    gamma: float,
    beta: float,
    start: float,
    out: npt.NDArray[np.float64],
) -> None:
    """Write h[t] = omega + (alpha + gamma [e[t-1] < 0]) e[t-1]^2 + beta h[t-1] to ``out`` [T + 1].

    ``start`` stands for e^2 and h before the first return, where half of gamma counts.
    """
    h = omega + (alpha + 0.5 * gamma + beta) * start
    out[0] = h
    for t in range(returns.shape[0]):
        e = returns[t] - mean
        h = omega + (alpha + gamma if e < 0.0 else alpha) * e * e + beta * h
        out[t + 1] = h


@njit(cache=True)
def likelihood(
    returns: npt.NDArray[np.float64],
    mean: float,
    omega: float,
    alpha: float,
    gamma: float,
    beta: float,
    start: float,
    gradient: npt.NDArray[np.float64],
) -> float:
    """Mean Gaussian log-likelihood; ``gradient`` [5] is with respect to mean, omega, alpha, gamma, beta.

    The derivatives of h follow its own recursion (Fiorentini, Calzolari and Panattoni 1996).
    """
    n = returns.shape[0]
    h = omega + (alpha + 0.5 * gamma + beta) * start
    d_mean, d_omega, d_alpha, d_gamma, d_beta = 0.0, 1.0, start, 0.5 * start, start
    total = 0.0
    for k in range(5):
        gradient[k] = 0.0
    for t in range(n):
        e = returns[t] - mean
        if not h > 0.0:
            return -math.inf
        ratio = e * e / h
        total -= 0.5 * (_LOG_2PI + math.log(h) + ratio)
        weight = 0.5 * (ratio - 1.0) / h
        gradient[0] += weight * d_mean + e / h
        gradient[1] += weight * d_omega
        gradient[2] += weight * d_alpha
        gradient[3] += weight * d_gamma
        gradient[4] += weight * d_beta
        below = 1.0 if e < 0.0 else 0.0
        slope = alpha + gamma * below
        d_mean = -2.0 * slope * e + beta * d_mean
        d_omega = 1.0 + beta * d_omega
        d_alpha = e * e + beta * d_alpha
        d_gamma = below * e * e + beta * d_gamma
        d_beta = h + beta * d_beta
        h = omega + slope * e * e + beta * h
    for k in range(5):
        gradient[k] /= n
    mean_of_all: float = total / n
    return mean_of_all


_VECTOR = "f8[::1]"

#: Every kernel with the one signature it is used with.
SIGNATURES: tuple[tuple[Any, str], ...] = (
    (variances, f"void({_VECTOR}, f8, f8, f8, f8, f8, f8, {_VECTOR})"),
    (likelihood, f"f8({_VECTOR}, f8, f8, f8, f8, f8, f8, {_VECTOR})"),
)


def warmup() -> None:
    """Compile every kernel, or load it from numba's cache; a second call does nothing."""
    for function, signature in SIGNATURES:
        function.compile(signature)
