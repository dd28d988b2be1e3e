"""Tests of expected shortfall: are losses beyond the VaR as large as promised?

*Acerbi and Szekely* (2014, "Backtesting expected shortfall", Risk), with losses L, hits I, p = 1 - level::

    Z1 = 1 - sum(I L / ES) / N        N exceptions; given that the VaR is right, is the ES?      (their eq. 5)
    Z2 = 1 - sum(I L / ES) / (T p)    number and size together                                   (their eq. 6)

Both are 0 in expectation for a right model and negative when risk is understated. Their distribution depends on the
model's tail, so p-values are simulated: with VaR and ES of each day kept, exceptions come with probability p and losses
beyond the VaR from a tail of the model's own VaR and ES:

``normal``
    The normal distribution with that VaR and ES, day by day: exactly the model's when the model is normal (sample, EWMA
    and GARCH with normal innovations).
``student``
    Student's t with ``shape`` degrees of freedom, moved and scaled to that VaR and ES: the model's when it is of this
    kind.
``pareto``
    VaR plus a generalised Pareto variable of shape ``shape`` and mean ES - VaR: the model's when its tail is an
    extreme-value one.
``exponential``
    VaR plus an exponential of mean ES - VaR. Two numbers do not determine a tail; this one is the least committal
    (maximum entropy) of those they allow, and serves models without a named distribution.

The p-value is one-sided (risk understated), counts the observed sample among the simulated ones (Dufour 2006), and ties
are extreme.

*Costanzino and Curran* (2015, "Backtesting general spectral risk measures with application to expected shortfall", J.
of Risk Model Validation 9): with u the model's probability of a loss larger than the one that came, severity
X = sum over exceptions of (1 - u/p), of mean T p / 2 and variance T p (4 - 3 p) / 12 under the null; normal for
large T.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.backtest._special import Floats, normal_sf, student_sf
from tengri_fast.risk.backtest.result import (
    SIGNIFICANCE,
    TIE,
    TestResult,
    p_text,
    series,
    simulations_of,
    tail_probability,
)
from tengri_fast.risk.backtest.scores import check_shortfall

__all__ = ["TAILS", "Tail", "acerbi_szekely", "costanzino_curran"]

Tail = Literal["normal", "student", "pareto", "exponential"]
TAILS: tuple[Tail, ...] = ("normal", "student", "pareto", "exponential")

#: ln of shares of the tail at which its quantiles are tabulated; draws interpolate in ln share, where every tail that
#: is offered here is smooth (the exponential is a straight line), and stop at the last one.
_LOG_SHARES = np.linspace(math.log(1e-12), 0.0, 512)


def _student_quantile(tail: float, df: float) -> float:
    """The q with P(T > q) = tail, 0 < tail < 0.5, by bisection."""
    low, high = 0.0, 1.0
    while student_sf(high, df) > tail:
        high *= 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if student_sf(middle, df) > tail else (low, middle)
    return 0.5 * (low + high)


def _student_tail(p: float, df: float) -> tuple[float, float]:
    """Quantile and tail mean beyond it of Student's t, not standardised; McNeil, Frey and Embrechts 2015, eq. 2.28."""
    q = _student_quantile(p, df)
    density = math.exp(
        math.lgamma(0.5 * (df + 1.0)) - math.lgamma(0.5 * df) - 0.5 * math.log(df * math.pi)
        - 0.5 * (df + 1.0) * math.log1p(q * q / df)
    )  # fmt: skip
    return q, (df + q * q) / (df - 1.0) * density / p


@lru_cache(maxsize=4096)
def student_factors(level: float, df: float) -> tuple[float, float]:
    """VaR and ES of Student's t scaled to unit variance; ``df`` > 2, infinite for the normal distribution."""
    p = tail_probability(level)
    if math.isinf(df):
        z = -NormalDist().inv_cdf(p)
        return z, NormalDist().pdf(z) / p
    q, es = _student_tail(p, df)
    unit = math.sqrt((df - 2.0) / df)
    return q * unit, es * unit


def _standard_tail(tail: Tail, p: float, shape: float) -> tuple[float, float, Floats]:
    """VaR, ES and quantiles beyond the VaR of the standard distribution, at the shares of `_LOG_SHARES`."""
    shares = (p * np.exp(_LOG_SHARES)).tolist()
    if tail == "exponential" or (tail == "pareto" and abs(shape) < 1e-9):
        return 0.0, 1.0, -_LOG_SHARES
    if tail == "pareto":
        return 0.0, 1.0, (1.0 - shape) * np.expm1(-shape * _LOG_SHARES) / shape
    if tail == "normal":
        law = NormalDist()
        q = -law.inv_cdf(p)
        return q, law.pdf(q) / p, np.array([-law.inv_cdf(share) for share in shares])
    q, es = _student_tail(p, shape)
    return q, es, np.array([_student_quantile(share, shape) for share in shares])


def check_tail(tail: str, shape: float | None) -> None:
    """Refuse a tail that is not known, or a shape that it cannot have."""
    if tail not in TAILS:
        raise DataConversionError(f"`tail` must be one of {', '.join(TAILS)}, was {tail!r}")
    if tail in ("normal", "exponential"):
        if shape is not None:
            raise DataConversionError(f"`shape` must be None for the {tail} tail, was {shape!r}")
        return
    rule = "finite and > 1" if tail == "student" else "finite and < 1"
    if shape is None or not math.isfinite(shape) or not (shape > 1.0 if tail == "student" else shape < 1.0):
        raise DataConversionError(f"`shape` must be {rule} for the {tail} tail, was {shape!r}")


def acerbi_szekely(
    pnl: npt.ArrayLike,
    var: npt.ArrayLike,
    es: npt.ArrayLike,
    level: float,
    *,
    tail: Tail = "exponential",
    shape: float | None = None,
    simulations: int = 999,
    seed: int = 1,
) -> tuple[TestResult, TestResult]:
    """Z1 (conditional) and Z2 (unconditional) with simulated p-values.

    Parameters
    ----------
    pnl, var, es : array_like, shape (T,)
        Results (negative for a loss) and forecasts (positive for a loss), in one unit; es > 0 and es >= var.
    level : float
        Confidence of both, between 0.5 and 1.
    tail : {"exponential", "normal", "student", "pareto"}
        The tail that the p-values are simulated under, see the module.
    shape : float
        Degrees of freedom of "student", > 1, or shape of "pareto", < 1.
    simulations, seed : int
        0 simulations for no p-values.

    Returns
    -------
    (TestResult, TestResult)
        Z1 is NaN without p-values when there is no exception.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    p, count = tail_probability(level), simulations_of(simulations)
    loss = -series("pnl", pnl)
    v, e = series("var", var, loss.size), series("es", es, loss.size)
    check_shortfall(v, e)
    check_tail(tail, shape)
    hits = loss > v
    x, days = int(hits.sum()), loss.size
    total = float((loss[hits] / e[hits]).sum())
    z2 = 1.0 - total / (days * p)
    z1 = 1.0 - total / x if x else math.nan
    p1, p2 = _simulated(v, e, p, tail, math.nan if shape is None else shape, z1, z2, count, seed)
    details: dict[str, Any] = {"tail": tail, "exceptions": x, "days": days}
    if tail in ("student", "pareto"):
        details["shape"] = shape
    if x:
        ratio = total / x
        word = "as promised" if p1 is None or p1 >= SIGNIFICANCE else "larger than promised: the ES is too small"
        said = f"Losses beyond the VaR were {ratio:.3f} times the ES on average, {word} ({p_text(p1)})."
    else:
        said = "No exception: nothing to measure the ES against."
    word = "not understated" if p2 is None or p2 >= SIGNIFICANCE else "understated"
    return (
        TestResult("Acerbi-Szekely Z1", z1, None, p1, said, details),
        TestResult(
            "Acerbi-Szekely Z2", z2, None, p2,
            f"Number and size of losses beyond the VaR make {total / (days * p):.3f} of what the ES promises: risk is "
            f"{word} ({p_text(p2)}).", details,
        ),
    )  # fmt: skip


def _simulated(
    v: Floats, e: Floats, p: float, tail: Tail, shape: float, z1: float, z2: float, count: int, seed: int
) -> tuple[float | None, float | None]:
    if not count:
        return None, None
    q, mean, quantiles = _standard_tail(tail, p, shape)
    # Loss / ES of a draw: location and scale follow from VaR and ES of the day; none where the two are the same.
    scale = (e - v) / (mean - q)
    ratio_location, ratio_scale = (v - scale * q) / e, scale / e
    rng = np.random.default_rng(seed)
    days = v.size
    extreme1 = extreme2 = with_hit = 0
    rows = max(2_000_000 // days, 1)
    for start in range(0, count, rows):
        n = min(rows, count - start)
        sample, day = np.nonzero(rng.random((n, days)) < p)
        draw = np.interp(-rng.standard_exponential(sample.size), _LOG_SHARES, quantiles)
        ratio = ratio_location[day] + ratio_scale[day] * draw
        total = np.bincount(sample, weights=ratio, minlength=n)
        x = np.bincount(sample, minlength=n)
        extreme2 += int((1.0 - total / (days * p) <= z2 + TIE * (1.0 + abs(z2))).sum())
        hit = x > 0
        with_hit += int(hit.sum())
        if not math.isnan(z1):
            extreme1 += int((1.0 - total[hit] / x[hit] <= z1 + TIE * (1.0 + abs(z1))).sum())
    p1 = None if math.isnan(z1) else (extreme1 + 1.0) / (with_hit + 1.0)
    return p1, (extreme2 + 1.0) / (count + 1.0)


def costanzino_curran(probabilities: npt.ArrayLike, level: float) -> TestResult:
    """Costanzino and Curran's severity test of expected shortfall.

    Parameters
    ----------
    probabilities : array_like, shape (T,)
        What the model gave, before each day, for a loss larger than the one that came; within 0 and 1, uniform when the
        model is right.
    level : float
        Confidence of the shortfall, between 0.5 and 1.

    Returns
    -------
    TestResult
        The statistic is the standardised severity, positive when risk is understated; the p-value is one-sided and
        asymptotic. ``details["zone"]`` is the traffic light of its distribution function, cut as Basel's.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    p = tail_probability(level)
    u = series("probabilities", probabilities)
    if (u < 0.0).any() or (u > 1.0).any():
        at = int(np.argmax((u < 0.0) | (u > 1.0)))
        raise DataConversionError(f"`probabilities` must be within 0 and 1, was {u[at]} at {at}")
    severity = float(np.maximum(1.0 - u / p, 0.0).sum())
    days = u.size
    statistic = (severity - 0.5 * days * p) / math.sqrt(days * p * (4.0 - 3.0 * p) / 12.0)
    tail = normal_sf(statistic)
    zone = "green" if tail > 0.05 else ("yellow" if tail > 0.0001 else "red")
    return TestResult(
        "Costanzino-Curran", statistic, tail, None,
        f"{zone.capitalize()}: severity {severity:.2f}, {0.5 * days * p:.2f} expected ({p_text(tail)}).",
        {"severity": severity, "expected": 0.5 * days * p, "zone": zone},
    )  # fmt: skip
