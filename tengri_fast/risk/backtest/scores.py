"""Scores that compare models: the lower, the better, and only a true model cannot be beaten in expectation.

*Quantile (pinball) loss* of a VaR v for a loss L at confidence c: (c - 1{L < v}) (L - v). Consistent for the quantile
(Koenker and Bassett 1978).

*Fissler-Ziegel joint score* of VaR and ES, the 0-homogeneous member of the family (Fissler and Ziegel 2016, Annals of
Statistics 44; Patton, Ziegel and Chen 2019, J. of Econometrics 211, eq. 6), written for losses::

    S = 1{L >= v} (L - v) / ((1 - c) e) + v / e + ln e - 1

Only differences of it mean something, and it exists for e > 0 only.

*Diebold-Mariano* (1995, J. of Business & Economic Statistics 13): the mean difference of two models' scores over its
long-run standard error (Bartlett weights, Newey and West 1987), with the small-sample factor and Student's t of Harvey,
Leybourne and Newbold (1997).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.backtest._special import Floats, student_sf
from tengri_fast.risk.backtest.result import SIGNIFICANCE, TestResult, p_text, series, tail_probability

__all__ = ["diebold_mariano", "fissler_ziegel", "quantile_loss"]


def quantile_loss(pnl: npt.ArrayLike, var: npt.ArrayLike, level: float) -> Floats:
    """Pinball loss per day.

    Parameters
    ----------
    pnl, var : array_like, shape (T,)
        Results, and forecasts positive for a loss, in one unit.
    level : float
        Confidence of the VaR, between 0.5 and 1.

    Returns
    -------
    ndarray, shape (T,)
        >= 0, in the unit of `pnl`.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    p = tail_probability(level)
    loss = -series("pnl", pnl)
    v = series("var", var, loss.size)
    result: Floats = np.where(loss < v, -p, 1.0 - p) * (loss - v)
    return result


def fissler_ziegel(pnl: npt.ArrayLike, var: npt.ArrayLike, es: npt.ArrayLike, level: float) -> Floats:
    """Joint score of VaR and ES per day, see the module; ``es`` must be > 0 and >= ``var``.

    Other arguments, the result and the errors as :func:`quantile_loss`.
    """
    p = tail_probability(level)
    loss = -series("pnl", pnl)
    v, e = series("var", var, loss.size), series("es", es, loss.size)
    check_shortfall(v, e)
    result: Floats = np.maximum(loss - v, 0.0) / (p * e) + v / e + np.log(e) - 1.0
    return result


def check_shortfall(var: Floats, es: Floats) -> None:
    """Refuse an expected shortfall that is not positive or is smaller than the VaR it belongs to."""
    bad = ~((es > 0.0) & (es >= var * (1.0 - 1e-9)))
    if bad.any():
        at = int(np.argmax(bad))
        raise DataConversionError(f"`es` must be > 0 and >= `var` ({var[at]:.6g}), was {es[at]:.6g} at {at}")


def diebold_mariano(first: npt.ArrayLike, second: npt.ArrayLike, *, lags: int | None = None) -> TestResult:
    """Whether two models differ in their mean score.

    Parameters
    ----------
    first, second : array_like, shape (T,)
        Scores per day of two models on the same days, lower is better.
    lags : int, optional
        Of the long-run variance; by default floor(4 (T / 100)^(2/9)).

    Returns
    -------
    TestResult
        Negative when the first is better; two-sided p-value from Student's t with T - 1 degrees of freedom.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule, or T < 10.
    """
    a = series("first", first)
    b = series("second", second, a.size)
    days = a.size
    if days < 10:
        raise DataConversionError(f"`first` must have at least 10 entries, had {days}")
    if lags is None:
        lags = int(4.0 * (days / 100.0) ** (2.0 / 9.0))
    if isinstance(lags, bool) or not 0 <= lags < days // 2:
        raise DataConversionError(f"`lags` must be between 0 and {days // 2 - 1}, was {lags!r}")
    difference = a - b
    mean = float(difference.mean())
    centred = difference - mean
    variance = float(centred @ centred) / days
    for lag in range(1, lags + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * float(centred[lag:] @ centred[:-lag]) / days
    details = {"mean_difference": mean, "lags": lags, "days": days}
    # A few roundings of the scores themselves: the models are one and the same.
    scale = float(np.abs(a).max() + np.abs(b).max())
    if variance <= (1e-15 * scale) ** 2:
        same = abs(mean) <= 1e-14 * scale
        return TestResult(
            "Diebold-Mariano", 0.0 if same else math.copysign(math.inf, mean), 1.0 if same else 0.0, None,
            "The scores are the same." if same else "The scores differ by a constant.", details,
        )  # fmt: skip
    factor = math.sqrt((days - 1.0) / days)  # one-day forecasts: h = 1 in Harvey, Leybourne and Newbold
    statistic = factor * mean / math.sqrt(variance / days)
    p = min(2.0 * student_sf(abs(statistic), days - 1.0), 1.0)
    word = (
        "no difference shown" if p >= SIGNIFICANCE else ("the first is better" if mean < 0 else "the second is better")
    )
    return TestResult("Diebold-Mariano", statistic, p, None, f"Mean scores: {word} ({p_text(p)}).", details)
