"""The dynamic quantile test: can exceptions be foreseen from what was known?

Engle and Manganelli (2004), "CAViaR: conditional autoregressive value at risk by regression quantiles", J. of Business
& Economic Statistics 22, section 6. With Hit_t = 1{exception} - p and X_t = (1, Hit_{t-1} .. Hit_{t-k}, VaR_t, ...),

    DQ = Hit' X (X'X)^-1 X' Hit / (p (1 - p))   ~ chi2(rank X)

A regressor that is a combination of others (a constant VaR, lags of a sample without exceptions) adds nothing and takes
no degree of freedom.

The exact p-value draws exceptions from Bernoulli(p) and keeps the VaR path and any further regressors as they are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.backtest._simulate import bernoulli_hits, monte_carlo_p
from tengri_fast.risk.backtest._special import Floats, chi2_sf
from tengri_fast.risk.backtest.result import (
    SIGNIFICANCE,
    Flags,
    TestResult,
    flags,
    p_text,
    series,
    simulations_of,
    tail_probability,
)

__all__ = ["dynamic_quantile"]


def _statistic(hit: npt.NDArray[np.floating], fixed: Floats, lags: int, p: float) -> tuple[float, int]:
    """DQ and the rank of the regressors; `fixed` [T - lags, K] holds the columns that do not depend on the hits."""
    columns = [hit[lags - lag : hit.size - lag] for lag in range(1, lags + 1)]
    x = np.column_stack([fixed, *columns])
    # Columns of equal length, so that the tolerance of the rank means the same for a VaR of 0.02 and one of 20,000.
    length = np.sqrt((x * x).sum(axis=0))
    x = x / np.where(length > 0.0, length, 1.0)
    y = hit[lags:]
    vectors, values, _ = np.linalg.svd(x.T @ x, hermitian=True)
    keep = values > values[0] * 1e-10
    projected = vectors[:, keep].T @ (x.T @ y)
    return float((projected * projected / values[keep]).sum() / (p * (1.0 - p))), int(keep.sum())


def dynamic_quantile(
    hits: npt.ArrayLike,
    var: npt.ArrayLike,
    level: float,
    *,
    lags: int = 4,
    extra: npt.ArrayLike | None = None,
    simulations: int = 999,
    seed: int = 1,
) -> TestResult:
    """Engle and Manganelli's test with a constant, lagged exceptions and the VaR itself.

    Parameters
    ----------
    hits : array_like of bool, shape (T,)
        Exceptions, in time order.
    var : array_like, shape (T,)
        The forecasts.
    level : float
        Confidence of the VaR, between 0.5 and 1.
    lags : int
        Lagged exceptions among the regressors, >= 0.
    extra : array_like, shape (T, K), optional
        Further regressors, known before the day of their row (such as yesterday's squared return).
    simulations, seed : int
        Of the exact p-value; 0 simulations for none.

    Returns
    -------
    TestResult
        Asymptotically chi-square with as many degrees of freedom as the regressors have rank.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule, or T <= 2 (lags + 2).
    """
    found, p, count = flags(hits), tail_probability(level), simulations_of(simulations)
    days = found.size
    forecasts = series("var", var, days)
    if isinstance(lags, bool) or not isinstance(lags, int | np.integer) or lags < 0:
        raise DataConversionError(f"`lags` must be an integer >= 0, was {lags!r}")
    if days <= 2 * (lags + 2):
        raise DataConversionError(f"`hits` must have more than {2 * (lags + 2)} entries for {lags} lags, had {days}")
    fixed = [np.ones(days - lags), forecasts[lags:]]
    if extra is not None:
        table = np.asarray(extra, dtype=np.float64)
        table = table[:, None] if table.ndim == 1 else table
        if table.ndim != 2 or len(table) != days or not np.isfinite(table).all():
            raise DataConversionError(f"`extra` must be finite with shape ({days}, K), had shape {table.shape}")
        fixed += list(table[lags:].T)
    known = np.column_stack(fixed)
    statistic, rank = _statistic(found - p, known, lags, p)

    def every(block: Flags) -> Floats:
        return np.array([_statistic(row - p, known, lags, p)[0] for row in block])

    asymptotic = chi2_sf(statistic, rank)
    exact = monte_carlo_p(statistic, bernoulli_hits(days, p, count, seed), every)
    judged = asymptotic if exact is None else exact
    word = "cannot be foreseen" if judged >= SIGNIFICANCE else "could have been foreseen, or have the wrong number"
    return TestResult(
        "Dynamic quantile", statistic, asymptotic, exact,
        f"From the last {lags} days and the VaR, exceptions {word} ({p_text(judged)}).",
        {"degrees_of_freedom": rank, "lags": lags},
    )  # fmt: skip
