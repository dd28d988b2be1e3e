"""Days between exceptions: are they memoryless, as those of a right model are?

*Weibull durations* (Christoffersen and Pelletier 2004, "Backtesting value-at-risk: a duration-based approach", J. of
Financial Econometrics 2, section 3). With d the days from one exception to the next, hazard a^b b d^(b-1), survival
exp(-(a d)^b) and density f = hazard x survival; the stretches before the first and after the last exception are
censored and enter with their survival. LR = 2 [ln L(b) - ln L(b=1)] ~ chi2(1); b < 1 means clusters. For given b the
best a is (n / sum d^b)^(1/b), n uncensored durations, so one parameter is left, whose score falls strictly: bisection
finds it, within 0.001 and 100.

*Time between failures* (Haas 2001, "New methods in backtesting"): the sum of Kupiec's TUFF ratio over all durations,
the first one counted from the start, ~ chi2(x); the mixed test adds the POF ratio and a degree of freedom. Both are
far from their asymptotic distribution at usual sizes (one TUFF ratio is no chi-square at all): the simulated p-value is
the one to read. Because degrees of freedom differ from sample to sample, samples are compared by their asymptotic
p-values.

Exact p-values are Monte Carlo tests (Dufour 2006): seeded, valid at any number of simulations. The Weibull test, which
is about order and not about number, shuffles the observed exceptions; Haas' tests draw Bernoulli(1 - level).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tengri_fast.risk.backtest._simulate import bernoulli_hits, monte_carlo_p, shuffled_hits
from tengri_fast.risk.backtest._special import Floats, chi2_sf, xlogy
from tengri_fast.risk.backtest.coverage import pof_ratio
from tengri_fast.risk.backtest.result import (
    SIGNIFICANCE,
    Flags,
    TestResult,
    flags,
    p_text,
    simulations_of,
    tail_probability,
)

__all__ = ["haas_durations", "weibull_durations"]

_LOW, _HIGH = math.log(1e-3), math.log(100.0)


def _durations(hits: Flags) -> tuple[Floats, Floats]:
    """Durations [n, m] of samples with the same number x of exceptions, and 1 where one is complete, 0 censored.

    m = x + 1: before the first exception, between neighbours, after the last; those of length 0 are padding (NaN). A
    sample that begins with an exception begins at a duration's start, so its first stretch has no length.
    """
    days = hits.shape[1]
    x = int(hits[0].sum())
    at = np.nonzero(hits)[1].reshape(len(hits), x).astype(np.float64)
    length = np.empty((len(hits), x + 1))
    complete = np.ones((len(hits), x + 1))
    length[:, 1:x] = np.diff(at, axis=1)
    length[:, 0] = np.where(at[:, 0] == 0, np.nan, at[:, 0] + 1.0)
    length[:, x] = np.where(at[:, -1] == days - 1, np.nan, days - 1.0 - at[:, -1])
    complete[:, 0] = complete[:, x] = 0.0
    return length, complete


def _weibull(hits: Flags) -> tuple[Floats, Floats]:
    """Likelihood ratio and shape b of samples with the same number of exceptions, >= 2."""
    length, complete = _durations(hits)
    there = np.isfinite(length)
    logs = np.log(np.where(there, length, 1.0))
    longest = logs.max(axis=1, keepdims=True)
    logs = np.where(there, logs, -np.inf)
    scaled = logs - longest  # <= 0, so powers do not overflow
    finite = np.where(there, scaled, 0.0)
    complete = complete * there
    n = complete.sum(axis=1)
    known = (complete * finite).sum(axis=1)

    def sums(log_b: Floats) -> tuple[Floats, Floats]:
        with np.errstate(under="ignore"):
            powers = np.exp(np.exp(log_b)[:, None] * scaled)
        return powers.sum(axis=1), (powers * finite).sum(axis=1)

    low, high = np.full(len(hits), _LOW), np.full(len(hits), _HIGH)
    for _ in range(40):
        middle = 0.5 * (low + high)
        total, slope = sums(middle)
        rising = n / np.exp(middle) - n * slope / total + known > 0.0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    best = 0.5 * (low + high)

    def likelihood(log_b: Floats) -> Floats:
        b = np.exp(log_b)
        # n ln n, n and the scale of the durations are the same for every b: the likelihoods' difference is free of them
        result: Floats = -n * np.log(sums(log_b)[0]) + n * log_b + (b - 1.0) * known
        return result

    ratio = 2.0 * (likelihood(best) - likelihood(np.zeros(len(hits))))
    return np.maximum(ratio, 0.0), np.exp(best)


def weibull_durations(hits: npt.ArrayLike, *, simulations: int = 999, seed: int = 1) -> TestResult:
    """Christoffersen and Pelletier's test: Weibull durations against exponential ones.

    Parameters
    ----------
    hits : array_like of bool, shape (T,)
        Exceptions, in time order.
    simulations : int
        Samples for the exact p-value, 0 for none, else >= 19.
    seed : int
        Of the simulation.

    Returns
    -------
    TestResult
        NaN and no p-values with fewer than three exceptions: nothing can be said about two durations' shape.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    found, count = flags(hits), simulations_of(simulations)
    x = int(found.sum())
    if x < 3:
        return TestResult(
            "Weibull durations", math.nan, None, None,
            f"{x} exceptions are too few to judge the time between them.", {"durations": max(x - 1, 0)},
        )  # fmt: skip
    ratio, shape = _weibull(found[None, :])
    statistic, b = float(ratio[0]), float(shape[0])
    exact = monte_carlo_p(statistic, shuffled_hits(found.size, x, count, seed), lambda block: _weibull(block)[0])
    asymptotic = chi2_sf(statistic, 1)
    p = asymptotic if exact is None else exact
    word = "no sign of memory"
    if p < SIGNIFICANCE:
        word = "exceptions cluster" if b < 1.0 else "exceptions are too regular"
    return TestResult(
        "Weibull durations", statistic, asymptotic, exact, f"Shape of the durations {b:.3f}, 1 is memoryless: {word} "
        f"({p_text(p)}).", {"shape": b, "durations": x - 1},
    )  # fmt: skip


def _tuff_sums(hits: Flags, p: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Sum of TUFF ratios over the durations of each sample, and the number of exceptions."""
    rows, at = np.nonzero(hits)
    count = hits.sum(axis=1)
    starts = np.empty(len(at))
    if len(at):
        starts[1:] = np.where(rows[1:] == rows[:-1], at[:-1], -1)
        starts[0] = -1
    v = at - starts
    ratio = -2.0 * (xlogy(v - 1.0, 1.0 - p) + math.log(p) - xlogy(v - 1.0, (v - 1.0) / np.maximum(v, 1.0)) + np.log(v))
    total = np.bincount(rows, weights=np.maximum(ratio, 0.0), minlength=len(hits))
    # Without an exception only the censored first duration is there.
    total = np.where(count == 0, -2.0 * hits.shape[1] * math.log1p(-p), total)
    return total, count


def haas_durations(
    hits: npt.ArrayLike, level: float, *, mixed: bool = True, simulations: int = 999, seed: int = 1
) -> TestResult:
    """Haas' time between failures, alone or mixed with Kupiec's POF.

    Parameters
    ----------
    hits : array_like of bool, shape (T,)
        Exceptions, in time order.
    level : float
        Confidence of the VaR, between 0.5 and 1.
    mixed : bool
        Whether the POF ratio is added.
    simulations, seed : int
        As :func:`weibull_durations`.

    Returns
    -------
    TestResult
        Without an exception the statistic is that of the censored first duration (and POF), with one degree of freedom
        each.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    found, p, samples = flags(hits), tail_probability(level), simulations_of(simulations)
    days = found.size

    def values(block: Flags) -> tuple[Floats, npt.NDArray[np.int64]]:
        total, count = _tuff_sums(block, p)
        freedom = np.maximum(count, 1)
        return (total + pof_ratio(count, days, p), freedom + 1) if mixed else (total, freedom)

    def surprise(block: Flags) -> Floats:
        total, freedom = values(block)
        return np.array([-chi2_sf(float(s), int(k)) for s, k in zip(total, freedom, strict=True)])

    total, freedom = values(found[None, :])
    statistic = float(total[0])
    asymptotic = chi2_sf(statistic, int(freedom[0]))
    exact = monte_carlo_p(-asymptotic, bernoulli_hits(days, p, samples, seed), surprise)
    name = "Haas mixed durations" if mixed else "Haas durations"
    judged = asymptotic if exact is None else exact
    word = "fits" if judged >= SIGNIFICANCE else "does not fit"
    what = "Number and spacing" if mixed else "The spacing"
    return TestResult(
        name, statistic, asymptotic, exact, f"{what} of {int(found.sum()):,} exceptions {word} ({p_text(judged)}).",
        {"degrees_of_freedom": int(freedom[0])},
    )  # fmt: skip
