"""Do exceptions come in clusters? Christoffersen's tests, with exact p-values from the counting of runs.

Christoffersen (1998), "Evaluating interval forecasts", International Economic Review 39: against a first-order Markov
chain with n_ij days in state j after a day in state i (1 = exception),

    LR_ind = -2 ln[ (1-q)^(n00+n10) q^(n01+n11) / ((1-q01)^n00 q01^n01 (1-q11)^n10 q11^n11) ]  ~ chi2(1)

with q01 = n01/(n00+n01), q11 = n11/(n10+n11), q = (n01+n11)/(T-1); 0 ln 0 is 0, so a sample without two exceptions in a
row, or without exceptions, is ordinary. Conditional coverage is LR_POF + LR_ind ~ chi2(2).

*Exact p-values.* A sequence with x ones in r runs and T - x zeros in k runs, |r - k| <= 1, can be written in
C(x-1, r-1) C(T-x-1, k-1) ways (twice that for r = k), and (x, r, k) and the first state fix the four counts. So the
distribution of the statistic is a sum over runs: no simulation, no recursion, any T.

Under independence all sequences with the same x are equally likely whatever the true rate of exceptions is. The exact
p-value of independence therefore takes x as given: it does not punish a wrong rate, which is another test's business.
Conditional coverage is about both, and sums over x under Bernoulli(1 - level).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tengri_fast.risk.backtest._special import Floats, binomial_pmf, chi2_sf, log_factorials, xlogy
from tengri_fast.risk.backtest.coverage import pof_ratio
from tengri_fast.risk.backtest.result import SIGNIFICANCE, TestResult, at_least, flags, p_text, tail_probability

__all__ = ["christoffersen_independence", "conditional_coverage", "transitions"]

# Counts of exceptions that are less likely than this all together are not enumerated; their mass counts as extreme.
_NEGLECTED = 1e-13


def transitions(hits: npt.ArrayLike) -> tuple[int, int, int, int]:
    """Counts n00, n01, n10, n11 of neighbouring days; n01 is a quiet day followed by an exception."""
    found = flags(hits)
    before, after = found[:-1], found[1:]
    return (
        int((~before & ~after).sum()),
        int((~before & after).sum()),
        int((before & ~after).sum()),
        int((before & after).sum()),
    )


def independence_ratio(n00: npt.ArrayLike, n01: npt.ArrayLike, n10: npt.ArrayLike, n11: npt.ArrayLike) -> Floats:
    """Christoffersen's likelihood ratio of independence, >= 0; shapes broadcast."""
    a, b, c, d = (np.asarray(n, dtype=np.float64) for n in (n00, n01, n10, n11))
    quiet, hit, days = a + b, c + d, a + b + c + d
    some_quiet, some_hit, some = np.maximum(quiet, 1.0), np.maximum(hit, 1.0), np.maximum(days, 1.0)
    chain = xlogy(a, a / some_quiet) + xlogy(b, b / some_quiet) + xlogy(c, c / some_hit) + xlogy(d, d / some_hit)
    single = xlogy(a + c, (a + c) / some) + xlogy(b + d, (b + d) / some)
    return np.maximum(2.0 * (chain - single), 0.0)


def _runs(days: int, x: int, logs: Floats) -> tuple[Floats, Floats]:
    """Every value of the ratio for x exceptions in `days` days, and its probability given x."""
    zeros = days - x
    if x == 0 or zeros == 0:
        return np.zeros(1), np.ones(1)
    total = logs[days] - logs[x] - logs[zeros]
    ratios, chances = [], []
    # Runs of zeros minus runs of ones, and steps 0 -> 1 minus runs of ones, 1 -> 0 minus runs of ones:
    # 0..0, 1..1, 0..1 and 1..0 sequences in turn.
    for more, up, down in ((1, 0, 0), (-1, -1, -1), (0, 0, -1), (0, -1, 0)):
        r = np.arange(1, x + 1)
        k = r + more
        fits = (k >= 1) & (k <= zeros)
        r, k = r[fits], k[fits]
        if not r.size:
            continue
        ways = logs[x - 1] - logs[r - 1] - logs[x - r] + logs[zeros - 1] - logs[k - 1] - logs[zeros - k]
        ratios.append(independence_ratio(zeros - k, r + up, r + down, x - r))
        with np.errstate(under="ignore"):
            chances.append(np.exp(ways - total))
    return np.concatenate(ratios), np.concatenate(chances)


def christoffersen_independence(hits: npt.ArrayLike) -> TestResult:
    """Christoffersen's test of independence against a first-order Markov chain.

    Parameters
    ----------
    hits : array_like of bool, shape (T,)
        Exceptions, in time order.

    Returns
    -------
    TestResult
        The exact p-value is over all orders of as many exceptions (see the module).

    Raises
    ------
    DataConversionError
        When ``hits`` breaks its rule.
    """
    found = flags(hits)
    counts = transitions(found)
    statistic = float(independence_ratio(*counts))
    ratios, chances = _runs(found.size, int(found.sum()), log_factorials(found.size))
    exact = min(float(chances[at_least(ratios, statistic)].sum()), 1.0)
    n00, n01, n10, n11 = counts
    said = f"{n11:,} of {n10 + n11:,} exceptions were followed by another the next day"
    word = "no sign of clusters"
    if exact < SIGNIFICANCE:
        together = n11 * (n00 + n01) > n01 * (n10 + n11)
        word = "exceptions cluster" if together else "exceptions avoid each other"
    return TestResult(
        "Christoffersen independence", statistic, chi2_sf(statistic, 1), exact, f"{said}: {word} ({p_text(exact)}).",
        {"n00": n00, "n01": n01, "n10": n10, "n11": n11},
    )  # fmt: skip


def conditional_coverage(hits: npt.ArrayLike, level: float) -> TestResult:
    """Christoffersen's conditional coverage: the right number of exceptions, and independent.

    Parameters
    ----------
    hits : array_like of bool, shape (T,)
        Exceptions, in time order.
    level : float
        Confidence of the VaR, between 0.5 and 1.

    Returns
    -------
    TestResult
        The exact p-value is enumerated under independent Bernoulli(1 - level).

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    found, p = flags(hits), tail_probability(level)
    days, x = found.size, int(found.sum())
    coverage, chain = float(pof_ratio(x, days, p)), float(independence_ratio(*transitions(found)))
    statistic = coverage + chain
    logs, chance = log_factorials(days), binomial_pmf(days, p)
    order = np.argsort(chance)
    neglected = order[: int(np.searchsorted(np.cumsum(chance[order]), _NEGLECTED))]
    likely = np.ones(days + 1, dtype=np.bool_)
    likely[neglected] = False
    pof = pof_ratio(np.arange(days + 1), days, p)
    parts = [float(chance[neglected].sum())]
    for count in np.flatnonzero(likely).tolist():
        ratios, chances = _runs(days, count, logs)
        parts.append(float(chance[count]) * float(chances[at_least(ratios + pof[count], statistic)].sum()))
    exact = min(math.fsum(parts), 1.0)
    word = "number and order fit" if exact >= SIGNIFICANCE else "number or order does not fit"
    return TestResult(
        "Conditional coverage", statistic, chi2_sf(statistic, 2), exact,
        f"Coverage {coverage:.3f} and independence {chain:.3f} together: {word} ({p_text(exact)}).",
        {"coverage": coverage, "independence": chain},
    )  # fmt: skip
