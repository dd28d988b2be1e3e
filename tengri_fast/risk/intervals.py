"""Confidence intervals of risk estimates: exact order statistics, and the block bootstrap.

*Order statistics.* With S independent losses the number B of those at or below the true quantile is binomial (S,
level), whatever their distribution, so ranks l < u with P(l <= B <= u - 1) >= confidence give an exact interval
[L_(l), L_(u)] (David and Nagaraja 2003, "Order Statistics", section 7.1). Where the sample is too small for a rank the
bound is infinite.

*Block bootstrap.* Circular blocks (Politis and Romano 1992) keep dependence up to the block's length, which overlapping
returns and clustered volatility have; the percentile interval is reported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError

__all__ = ["RiskInterval", "block_indices", "order_statistic_ranks", "percentile_interval"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RiskInterval:
    """Confidence interval of an estimate, base currency.

    Attributes
    ----------
    var, es : tuple of (float, float)
        Lower and upper bound; infinite where the data cannot bound it, NaN where the method has no interval.
    confidence : float
        Probability that the interval covers, nominal.
    method : str
        How it was made and what it holds fixed.
    """

    var: tuple[float, float]
    es: tuple[float, float]
    confidence: float
    method: str


def check_confidence(confidence: float) -> float:
    """The value, or an error when it is not between 0 and 1."""
    if not 0.0 < confidence < 1.0:
        raise ConfigurationError(f"`confidence` must be between 0 and 1, was {confidence}")
    return confidence


def order_statistic_ranks(count: int, level: float, confidence: float) -> tuple[int, int]:
    """Ranks l and u, in ascending order and counted from 1, whose losses bound the quantile.

    Parameters
    ----------
    count : int
        Number of independent losses, >= 1.
    level, confidence : float
        Of the quantile and of the interval, in (0, 1).

    Returns
    -------
    tuple of (int, int)
        0 and count + 1 stand for minus and plus infinity: no rank is far enough out.
    """
    check_confidence(confidence)
    k = np.arange(count + 1)
    lower = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, count + 1)))))
    log_mass = lower[-1] - lower[k] - lower[count - k] + k * math.log(level) + (count - k) * math.log1p(-level)
    cumulative = np.minimum(np.cumsum(np.exp(log_mass)), 1.0)
    half = 0.5 * (1.0 - confidence)
    # l: the largest with P(B <= l - 1) <= half.  u: the smallest with P(B <= u - 1) >= 1 - half.
    low = int(np.searchsorted(cumulative, half, side="right"))
    high = int(np.searchsorted(cumulative, 1.0 - half, side="left")) + 1
    return low, high


def block_indices(count: int, block: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Circular block bootstrap: ``resamples`` index arrays of shape (count,), one at a time.

    Raises
    ------
    ConfigurationError
        When ``block`` is not within 1 and ``count``, or ``resamples`` < 20.
    """
    if not 1 <= block <= count:
        raise ConfigurationError(f"`block` must be between 1 and the {count} observations, was {block}")
    if resamples < 20:
        raise ConfigurationError(f"`resamples` must be >= 20, was {resamples}")
    rng = np.random.default_rng(seed)
    blocks = -(-count // block)
    within = np.arange(block)
    for _ in range(resamples):
        starts = rng.integers(0, count, blocks)
        yield ((starts[:, None] + within) % count).ravel()[:count]


def percentile_interval(values: npt.ArrayLike, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap ``values``; infinite values are kept as they are."""
    half = 0.5 * (1.0 - check_confidence(confidence))
    low, high = np.quantile(np.asarray(values, dtype=np.float64), [half, 1.0 - half], method="nearest")
    return float(low), float(high)
