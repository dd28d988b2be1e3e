"""Are there as many exceptions as the level promises? Kupiec's tests, the binomial test, the Basel traffic light.

With T days, x exceptions and p = 1 - level the exceptions of a right model are independent Bernoulli(p).

*Proportion of failures* (Kupiec 1995, "Techniques for verifying the accuracy of risk measurement models", J. of
Derivatives 3(2), eq. 5)::

    LR_POF = -2 ln[ (1-p)^(T-x) p^x / ((1-x/T)^(T-x) (x/T)^x) ]   ~ chi2(1)

*Time until first failure* (same paper): with v the number of the first day with an exception, the same ratio with
T = v and x = 1. When there is none in T days, all that is known is v > T: the likelihood of that is (1-p)^T, its
supremum 1, and LR_TUFF = -2 T ln(1-p).

0 ln 0 is 0 throughout, so x = 0 and x = T are ordinary samples. Exact p-values enumerate x = 0 .. T (POF, binomial) or
v = 1 .. T and "none" (TUFF) under Bernoulli(p).

*Traffic light* (Basel Committee 1996, "Supervisory framework for the use of backtesting"; MAR99 of the Basel
framework): zones by the probability of at most x exceptions, green below 95 %, yellow from 95 % and red from 99.99 %.
The additions to the capital multiplier are defined for 250 days at 99 % only, and given for those only.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.backtest._special import Floats, binomial_pmf, chi2_sf, normal_sf, xlogy
from tengri_fast.risk.backtest.result import (
    SIGNIFICANCE,
    TestResult,
    at_least,
    flags,
    p_text,
    percent,
    tail_probability,
)

__all__ = [
    "MAR99_MULTIPLIERS",
    "PLUS_FACTORS_1996",
    "binomial_test",
    "kupiec_pof",
    "kupiec_tuff",
    "rolling_zones",
    "traffic_light",
]

#: Additions to the multiplier of 3, by exceptions in 250 days at 99 % (1996); 10 and more as 10.
PLUS_FACTORS_1996 = (0.0, 0.0, 0.0, 0.0, 0.0, 0.40, 0.50, 0.65, 0.75, 0.85, 1.00)

#: Multipliers of the expected-shortfall charge by exceptions in 250 days at 99 % (MAR99); 10 and more as 10.
MAR99_MULTIPLIERS = (1.50, 1.50, 1.50, 1.50, 1.50, 1.70, 1.76, 1.83, 1.88, 1.92, 2.00)

YELLOW, RED = 0.95, 0.9999
Zone = Literal["green", "yellow", "red"]


def pof_ratio(x: npt.ArrayLike, days: int, p: float) -> Floats:
    """Kupiec's likelihood ratio for x exceptions in `days` days, shape of `x`, >= 0."""
    hit = np.asarray(x, dtype=np.float64)
    miss = days - hit
    null = xlogy(miss, 1.0 - p) + xlogy(hit, p)
    best = xlogy(miss, miss / days) + xlogy(hit, hit / days)
    return np.maximum(2.0 * (best - null), 0.0)


def _said(x: int, days: int, p: float) -> str:
    noun = "exception" if x == 1 else "exceptions"
    return f"{x:,} {noun} in {days:,} days, {days * p:.1f} expected at {percent(1.0 - p)}"


def kupiec_pof(hits: npt.ArrayLike, level: float) -> TestResult:
    """Kupiec's proportion of failures; the exact p-value enumerates the binomial.

    Parameters
    ----------
    hits : array_like of bool, shape (T,)
        Exceptions, in time order.
    level : float
        Confidence of the VaR, between 0.5 and 1.

    Returns
    -------
    TestResult
        Two-sided: too few exceptions reject as well.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    found, p = flags(hits), tail_probability(level)
    days, x = found.size, int(found.sum())
    every = pof_ratio(np.arange(days + 1), days, p)
    statistic = float(every[x])
    exact = min(float(binomial_pmf(days, p)[at_least(every, statistic)].sum()), 1.0)
    word = "the number fits"
    if exact < SIGNIFICANCE:
        word = "too many: risk is understated" if x > days * p else "too few: risk is overstated"
    return TestResult(
        "Kupiec POF", statistic, chi2_sf(statistic, 1), exact, f"{_said(x, days, p)}: {word} ({p_text(exact)}).",
        {"days": days, "exceptions": x, "expected": days * p, "rate": x / days},
    )  # fmt: skip


def kupiec_tuff(hits: npt.ArrayLike, level: float) -> TestResult:
    """Kupiec's time until the first failure; the exact p-value enumerates the day; arguments as :func:`kupiec_pof`."""
    found, p = flags(hits), tail_probability(level)
    days = found.size
    first = int(np.argmax(found)) + 1 if found.any() else 0
    days_to = np.arange(1, days + 1)
    # pof_ratio of one exception in v days, v an array.
    miss = days_to - 1.0
    every = -2.0 * (xlogy(miss, 1.0 - p) + math.log(p) - xlogy(miss, miss / days_to) + np.log(days_to))
    every = np.append(np.maximum(every, 0.0), -2.0 * days * math.log1p(-p))
    chance = np.append(p * np.exp(miss * math.log1p(-p)), math.exp(days * math.log1p(-p)))
    statistic = float(every[first - 1])  # first = 0, no exception: the last entry
    exact = min(float(chance[at_least(every, statistic)].sum()), 1.0)
    said = f"The first exception came on day {first:,}" if first else f"No exception in {days:,} days"
    word = "fits" if exact >= SIGNIFICANCE else ("is early" if first and first < 1.0 / p else "is late")
    return TestResult(
        "Kupiec TUFF", statistic, chi2_sf(statistic, 1), exact,
        f"{said}, {1.0 / p:.0f} expected: that {word} ({p_text(exact)}).",
        {"first_exception": first or None, "expected": 1.0 / p, "days": days},
    )  # fmt: skip


def binomial_test(hits: npt.ArrayLike, level: float) -> TestResult:
    """Normal approximation of the binomial, and the exact two-sided binomial test (sum of outcomes no likelier).

    Arguments as :func:`kupiec_pof`; the statistic is z = (x - T p) / sqrt(T p (1 - p)).
    """
    found, p = flags(hits), tail_probability(level)
    days, x = found.size, int(found.sum())
    z = (x - days * p) / math.sqrt(days * p * (1.0 - p))
    chance = binomial_pmf(days, p)
    exact = min(float(chance[chance <= chance[x] * (1.0 + 1e-7)].sum()), 1.0)
    word = "fits" if exact >= SIGNIFICANCE else "does not fit"
    return TestResult(
        "Binomial", z, min(2.0 * normal_sf(abs(z)), 1.0), exact,
        f"{_said(x, days, p)}: that {word} ({p_text(exact)}).",
        {"days": days, "exceptions": x},
    )  # fmt: skip


def _zone(probability: float) -> Zone:
    return "green" if probability < YELLOW else ("yellow" if probability < RED else "red")


def traffic_light(hits: npt.ArrayLike, level: float) -> TestResult:
    """Basel traffic light for any number of days and any level.

    Parameters
    ----------
    hits, level
        As :func:`kupiec_pof`.

    Returns
    -------
    TestResult
        The statistic is P(X <= x); ``p_value`` is None and the exact p-value P(X >= x), the chance that a right model
        does no better. ``details`` holds ``zone`` and, for 250 days at 99 %, ``plus_factor`` (1996) and ``multiplier``
        (MAR99), else None.
    """
    found, p = flags(hits), tail_probability(level)
    days, x = found.size, int(found.sum())
    chance = binomial_pmf(days, p)
    probability = min(float(chance[: x + 1].sum()), 1.0)
    zone = _zone(probability)
    regulatory = days == 250 and abs(p - 0.01) < 1e-9
    factor = PLUS_FACTORS_1996[min(x, 10)] if regulatory else None
    multiplier = MAR99_MULTIPLIERS[min(x, 10)] if regulatory else None
    charge = f"; plus factor {factor:.2f} (1996), multiplier {multiplier:.2f} (MAR99)" if regulatory else ""
    return TestResult(
        "Basel traffic light", probability, None, min(float(chance[x:].sum()), 1.0),
        f"{zone.capitalize()}: {_said(x, days, p)}, a right model has at most that many with probability "
        f"{probability:.5f}{charge}.",
        {"zone": zone, "probability": probability, "exceptions": x, "days": days, "plus_factor": factor,
         "multiplier": multiplier},
    )  # fmt: skip


def rolling_zones(hits: npt.ArrayLike, level: float, window: int = 250) -> npt.NDArray[np.int8]:
    """Zone of every stretch of `window` days that ends on a day.

    Parameters
    ----------
    hits, level
        As :func:`kupiec_pof`.
    window : int
        Days, >= 1; 250 is the regulation's.

    Returns
    -------
    ndarray of int8, shape (T,)
        0 green, 1 yellow, 2 red, -1 before there are `window` days.
    """
    found, p = flags(hits), tail_probability(level)
    if isinstance(window, bool) or int(window) != window or window < 1:
        raise DataConversionError(f"`window` must be an integer >= 1, was {window!r}")
    zones = np.full(found.size, -1, dtype=np.int8)
    if found.size < window:
        return zones
    probability = np.cumsum(binomial_pmf(window, p))
    by_count = (probability >= YELLOW).astype(np.int8) + (probability >= RED)
    total = np.concatenate(([0], np.cumsum(found)))
    zones[window - 1 :] = by_count[total[window:] - total[:-window]]
    return zones
