"""Distribution functions that the tests need, in plain Python: SciPy is an extra, and these few are short.

Accuracy is that of ``math.lgamma`` and ``math.erfc``: about 1e-12 relative for chi-square and Student's t (checked
against SciPy), about 1e-10 for a binomial with ten thousand trials.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["binomial_pmf", "chi2_sf", "log_factorials", "normal_sf", "student_sf", "xlogy"]

Floats = npt.NDArray[np.float64]


def normal_sf(x: float) -> float:
    """P(Z > x) of a standard normal Z."""
    return 0.5 * math.erfc(x / math.sqrt(2.0))


def chi2_sf(x: float, df: int) -> float:
    """P(X > x) of a chi-square with `df` >= 1 degrees of freedom, by the finite sums for whole and half orders."""
    if x <= 0.0:
        return 1.0
    if math.isinf(x):
        return 0.0
    half, log_half = 0.5 * x, math.log(0.5 * x)
    if df % 2:
        terms = [math.erfc(math.sqrt(half))]
        terms += [math.exp(-half + (k - 0.5) * log_half - math.lgamma(k + 0.5)) for k in range(1, (df + 1) // 2)]
    else:
        terms = [math.exp(-half + k * log_half - math.lgamma(k + 1.0)) for k in range(df // 2)]
    return min(math.fsum(terms), 1.0)


def student_sf(t: float, df: float) -> float:
    """P(T > t) of Student's t, by the continued fraction of the incomplete beta function (modified Lentz)."""
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    tail = 0.5 * _incomplete_beta(0.5 * df, 0.5, df / (df + t * t))
    return tail if t >= 0 else 1.0 - tail


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    if x > (a + 1.0) / (a + b + 2.0):
        # The fraction converges fast on the other side only.
        return 1.0 - front * _beta_fraction(b, a, 1.0 - x) / b
    return front * _beta_fraction(a, b, x) / a


def _beta_fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + numerator / c
            c = c if abs(c) > tiny else tiny
            step = c * d
            value *= step
        if abs(step - 1.0) < 1e-15:
            break
    return value


def log_factorials(n: int) -> Floats:
    """ln k! for k = 0 .. n, shape (n + 1,)."""
    return np.array([math.lgamma(k + 1.0) for k in range(n + 1)])


def binomial_pmf(n: int, p: float) -> Floats:
    """P(X = x) of a binomial for x = 0 .. n, shape (n + 1,); 0 < p < 1."""
    logs = log_factorials(n)
    x = np.arange(n + 1)
    with np.errstate(under="ignore"):
        result: Floats = np.exp(logs[n] - logs - logs[::-1] + x * math.log(p) + (n - x) * math.log1p(-p))
    return result


def xlogy(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """x ln y, and 0 where x is 0 whatever y is: the likelihood of something that never happened."""
    left, right = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    result = np.zeros(left.shape)
    with np.errstate(divide="ignore"):
        np.log(right, out=result, where=left != 0.0)
    result *= left
    return result
