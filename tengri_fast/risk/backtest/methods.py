"""Ways to forecast VaR and ES of the next day from the days before, made fast over many days.

Each walks over a series of returns and answers for every day with what a window of the days before says; the result of
a day never enters its own forecast. The estimators themselves, one window at a time and for whole portfolios, are in
:mod:`tengri_fast.risk.estimators`; tests hold the two to the same numbers on the same window. Here all windows are
taken at once where that is possible, and models that are fitted by a search are fitted every so many days and filtered
in between.

The position is one unit of money, long: the result of a day is its return.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.backtest._special import Floats
from tengri_fast.risk.backtest.result import TIE
from tengri_fast.risk.backtest.shortfall import Tail, student_factors
from tengri_fast.risk.conditional import age_weights, ewma_variances
from tengri_fast.risk.measures import tail_rank

__all__ = ["METHODS", "Method", "Walk", "monte_carlo_method"]

EWMA_DECAY = 0.94
"""RiskMetrics 1996, for daily data."""

AGE_DECAY = 0.98
"""Boudoukh, Richardson and Whitelaw 1998, one of the two they use."""

TAIL_SHARE = 0.1
"""Share of the window beyond the threshold of the extreme-value tail (McNeil and Frey 2000 take 10 %)."""

_ROWS = 1024  # windows at a time: 4 MB for a window of 500


class Walk(NamedTuple):
    """Forecasts of n days, oldest first, with the shape of each day's tail where the method has one (degrees of freedom
    of Student's t, xi of a Pareto tail) and notes for the reader."""

    var: Floats
    es: Floats
    shape: Floats | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A way to forecast.

    Attributes
    ----------
    label : str
        For tables.
    walk : callable
        (returns [T], window, level, refit) to a :class:`Walk` of T - window days: the first answers for returns[window]
        with the days before.
    tail : str
        Under which p-values of ES are simulated (:mod:`tengri_fast.risk.backtest.shortfall`).
    refit : int
        Days from one fit to the next; 1 where every day stands on its own.
    minimum : int
        Fewest days of a window.
    """

    label: str
    walk: Callable[[Floats, int, float, int], Walk]
    tail: Tail = "exponential"
    refit: int = 1
    minimum: int = 50


def _windows(returns: Floats, window: int) -> Iterator[tuple[slice, Floats]]:
    """Blocks of windows [rows, window] and the days they answer for; the window before the end answers for no day."""
    every = sliding_window_view(returns, window)[:-1]
    for start in range(0, len(every), _ROWS):
        rows = slice(start, min(start + _ROWS, len(every)))
        yield rows, every[rows]


def _empty(returns: Floats, window: int) -> tuple[Floats, Floats]:
    return np.empty(returns.size - window), np.empty(returns.size - window)


def tails(table: Floats, level: float) -> tuple[Floats, Floats]:
    """VaR and ES of every row of results, by the definitions of :mod:`tengri_fast.risk.measures`."""
    rank, mass = tail_rank(table.shape[1], level)
    worst = np.sort(np.partition(table, rank - 1, axis=1)[:, :rank], axis=1)
    edge = worst[:, -1]
    return -edge, -(worst[:, :-1].sum(axis=1) + (mass - (rank - 1)) * edge) / mass


def _historical(returns: Floats, window: int, level: float, refit: int) -> Walk:
    var, es = _empty(returns, window)
    for rows, table in _windows(returns, window):
        var[rows], es[rows] = tails(table, level)
    return Walk(var, es)


def _age_weighted(returns: Floats, window: int, level: float, refit: int) -> Walk:
    """Boudoukh, Richardson and Whitelaw (1998), "The best of both worlds", Risk 11: weights fall with age."""
    weights = age_weights(window, AGE_DECAY)
    tail = 1.0 - level
    var, es = _empty(returns, window)
    for rows, table in _windows(returns, window):
        order = np.argsort(table, axis=1, kind="stable")
        results, shares = np.take_along_axis(table, order, axis=1), weights[order] / tail
        # The scenario is the VaR's as long as the weight beyond it stays within the tail, rounding allowed for.
        reached = np.cumsum(shares, axis=1)
        rank = np.minimum((reached <= 1.0 + TIE / tail).sum(axis=1), window - 1)
        edge = np.take_along_axis(results, rank[:, None], axis=1)[:, 0]
        beyond = np.arange(window) < rank[:, None]
        mass = (shares * beyond).sum(axis=1)
        var[rows] = -edge
        es[rows] = -((shares * results * beyond).sum(axis=1) + np.maximum(1.0 - mass, 0.0) * edge)
    return Walk(var, es)


def _filtered(returns: Floats, window: int, level: float, refit: int) -> Walk:
    """Hull and White (1998), J. of Risk 1: history divided by its volatility then, times the volatility now."""
    var, es = _empty(returns, window)
    for rows, table in _windows(returns, window):
        path = np.sqrt(ewma_variances(table, EWMA_DECAY))
        sigma = np.maximum(path[:, :-1], 1e-12)
        var[rows], es[rows] = tails(table / sigma * path[:, -1:], level)
    return Walk(var, es)


def normal_factors(level: float) -> tuple[float, float]:
    """Quantile and tail mean of a standard normal loss."""
    z = NormalDist().inv_cdf(level)
    return z, NormalDist().pdf(z) / (1.0 - level)


def _normal(returns: Floats, window: int, level: float, refit: int) -> Walk:
    z, tail = normal_factors(level)
    var, es = _empty(returns, window)
    for rows, table in _windows(returns, window):
        mean, sigma = table.mean(axis=1), table.std(axis=1, ddof=1)
        var[rows], es[rows] = z * sigma - mean, tail * sigma - mean
    return Walk(var, es)


def _ewma(returns: Floats, window: int, level: float, refit: int) -> Walk:
    """RiskMetrics: zero mean, weights that fall with age and sum to one within the window, by the recursion.

    With S(t) = sum over the window of decay^age r^2, S(t + 1) = decay S(t) + r(t)^2 - decay^window r(t - window)^2.
    """
    z, tail = normal_factors(level)
    squares = returns * returns
    leaving = EWMA_DECAY**window
    total = float(EWMA_DECAY ** np.arange(window - 1, -1, -1.0) @ squares[:window])
    sums = np.empty(returns.size - window)
    for day in range(sums.size):
        sums[day] = total
        total = EWMA_DECAY * total + squares[window + day] - leaving * squares[day]
    sigma = np.sqrt(np.maximum(sums, 0.0) * (1.0 - EWMA_DECAY) / (1.0 - leaving))
    return Walk(z * sigma, tail * sigma)


def _cornish_fisher(returns: Floats, window: int, level: float, refit: int) -> Walk:
    """Zangari 1996; ES in closed form (Maillard 2012). Moments of the window as they are, population style.

    Outside the domain where quantiles increase the numbers are those of the formula, and a note counts the days; ES is
    kept from falling below VaR.
    """
    p = 1.0 - level
    z = NormalDist().inv_cdf(p)
    density = NormalDist().pdf(z)
    at = np.array([1.0, z, z * z, z**3])
    below = np.array([1.0, -density / p, 1.0 - z * density / p, -(z * z + 2.0) * density / p])
    var, es = _empty(returns, window)
    outside = 0
    for rows, table in _windows(returns, window):
        mean = table.mean(axis=1)
        centred = table - mean[:, None]
        m2, m3, m4 = ((centred**k).mean(axis=1) for k in (2, 3, 4))
        safe = np.maximum(m2, 1e-300)
        s, k = m3 / safe**1.5, m4 / safe**2 - 3.0
        c = np.stack((-s / 6.0, 1.0 - k / 8.0 + 5.0 * s * s / 36.0, s / 6.0, k / 24.0 - s * s / 18.0))
        outside += int(((c[1] <= 0.0) | (c[3] < 0.0) | (c[2] ** 2 > 3.0 * c[1] * c[3])).sum())
        sigma = np.sqrt(m2)
        var[rows] = -mean - sigma * (at @ c)
        es[rows] = np.maximum(-mean - sigma * (below @ c), var[rows])
    notes: tuple[str, ...] = ()
    if outside:
        notes = (f"Cornish-Fisher was outside its domain (Maillard 2012) on {outside:,} of {var.size:,} days.",)
    return Walk(var, es, None, notes)


def _stretches(days: int, refit: int) -> Iterator[tuple[int, int]]:
    for start in range(0, days, refit):
        yield start, min(start + refit, days)


def _student(returns: Floats, window: int, level: float, refit: int) -> Walk:
    """Sample mean and deviation; degrees of freedom by maximum likelihood given these two, from time to time.

    Given these two: a free scale would come with fewer degrees of freedom, and its tail at the sample's variance would
    be thinner at the quantiles that matter than the normal one.
    """
    from tengri_fast.risk.garch import fit_degrees_of_freedom

    var, es = _empty(returns, window)
    degrees = np.empty(var.size)
    every = sliding_window_view(returns, window)
    for start, end in _stretches(var.size, refit):
        fitted = every[start]
        degrees[start:end] = fit_degrees_of_freedom((fitted - fitted.mean()) / fitted.std(ddof=1))
        quantile, tail = student_factors(level, float(degrees[start]))
        mean, sigma = every[start:end].mean(axis=1), every[start:end].std(axis=1, ddof=1)
        var[start:end], es[start:end] = quantile * sigma - mean, tail * sigma - mean
    return Walk(var, es, degrees)


class _Filtered(NamedTuple):
    """A stretch between two fits: days, mean and sigmas of its forecasts, standardised returns up to its end."""

    start: int
    end: int
    mean: float
    sigma: Floats
    standardised: Floats


def _garch_stretches(returns: Floats, window: int, refit: int) -> Iterator[_Filtered]:
    """Gaussian QML GARCH(1,1) on a window, then filtered day by day with its parameters until the next fit."""
    from tengri_fast.risk.garch import filter_variance, fit_garch

    for start, end in _stretches(returns.size - window, refit):
        fitted = fit_garch(returns[start : start + window])
        known = returns[start : end - 1 + window]
        sigma = np.sqrt(filter_variance(known, fitted))
        yield _Filtered(start, end, fitted.mean, sigma[window:], (known - fitted.mean) / sigma[:-1])


def _garch(returns: Floats, window: int, level: float, refit: int) -> Walk:
    var, es = _empty(returns, window)
    z, tail = normal_factors(level)
    for part in _garch_stretches(returns, window, refit):
        var[part.start : part.end] = z * part.sigma - part.mean
        es[part.start : part.end] = tail * part.sigma - part.mean
    return Walk(var, es)


def _garch_student(returns: Floats, window: int, level: float, refit: int) -> Walk:
    """GARCH by Gaussian QML, Student innovations of unit variance fitted to its standardised returns."""
    from tengri_fast.risk.garch import fit_degrees_of_freedom

    var, es = _empty(returns, window)
    df = np.empty(var.size)
    for part in _garch_stretches(returns, window, refit):
        days = slice(part.start, part.end)
        df[days] = fit_degrees_of_freedom(part.standardised[:window])
        quantile, tail = student_factors(level, float(df[part.start]))
        var[days], es[days] = quantile * part.sigma - part.mean, tail * part.sigma - part.mean
    return Walk(var, es, df)


def _garch_filtered(returns: Floats, window: int, level: float, refit: int) -> Walk:
    """Filtered historical simulation with GARCH volatility (Barone-Adesi, Giannopoulos and Vosper 1999)."""
    var, es = _empty(returns, window)
    for part in _garch_stretches(returns, window, refit):
        days = slice(part.start, part.end)
        v, e = tails(sliding_window_view(part.standardised, window), level)
        var[days], es[days] = v * part.sigma - part.mean, e * part.sigma - part.mean
    return Walk(var, es)


def extreme_tail(results: Floats, level: float) -> tuple[float, float, float]:
    """VaR, ES and xi of an extreme-value tail on the worst tenth of the results."""
    from tengri_fast.risk.extreme import fit_excesses, tail_estimates

    losses = np.sort(-results)[::-1]
    exceeding = math.floor(TAIL_SHARE * losses.size + 1e-9)
    threshold = float(losses[exceeding])
    excesses = losses[:exceeding] - threshold
    excesses = excesses[excesses > 0.0]
    fitted = fit_excesses(excesses)
    var, es = tail_estimates(threshold, fitted.xi, fitted.beta, losses.size, excesses.size, level)
    return var, es, fitted.xi


def _extreme(returns: Floats, window: int, level: float, refit: int) -> Walk:
    var, es = _empty(returns, window)
    xi = np.empty(var.size)
    for start, end in _stretches(var.size, refit):
        var[start:end], es[start:end], xi[start:end] = extreme_tail(returns[start : start + window], level)
    return Walk(var, es, xi)


def _garch_extreme(returns: Floats, window: int, level: float, refit: int) -> Walk:
    """McNeil and Frey (2000), J. of Empirical Finance 7: an extreme-value tail on what GARCH leaves."""
    var, es = _empty(returns, window)
    xi = np.empty(var.size)
    for part in _garch_stretches(returns, window, refit):
        days = slice(part.start, part.end)
        v, e, xi[days] = extreme_tail(part.standardised[:window], level)
        var[days], es[days] = v * part.sigma - part.mean, e * part.sigma - part.mean
    return Walk(var, es, xi)


def monte_carlo_method(panel: Floats, *, paths: int = 10_000, refit: int = 10, seed: int = 0) -> Method:
    """Monte Carlo for an equally weighted portfolio: Student-t copula and empirical margins of its parts.

    Parameters
    ----------
    panel : ndarray, shape (N, T)
        Returns of the parts over the days that will be walked.
    paths : int
        Joint draws per fit; antithetic, so that few suffice.
    refit : int
        Days from one fit to the next.
    seed : int
        Of the draws; the same for every day.

    Returns
    -------
    Method
        For :func:`~tengri_fast.risk.backtest.rolling.rolling_var_backtest`, to be walked over ``panel.mean(axis=0)``.
    """
    from tengri_fast.risk.holdings import Holdings

    parts = panel.shape[0]
    holdings = Holdings(tuple(map(str, range(parts))), np.full(parts, 1.0 / parts), np.ones(parts))

    def walk(returns: Floats, window: int, level: float, refit: int) -> Walk:
        from tengri_fast.risk.measures import expected_shortfall, value_at_risk
        from tengri_fast.risk.monte_carlo import fit_paths, simulate_pnl

        if returns.shape != panel.shape[1:] or not np.allclose(returns, panel.mean(axis=0)):
            raise DataConversionError("`returns` must be the mean of the panel that this method was made for")
        var, es = _empty(returns, window)
        for start, end in _stretches(var.size, refit):
            fitted = fit_paths(np.ascontiguousarray(panel[:, start : start + window]))
            pnl = simulate_pnl(fitted, holdings, paths=paths, seed=seed, sampling="antithetic", threads=1)
            var[start:end], es[start:end] = value_at_risk(pnl, level), expected_shortfall(pnl, level)
        return Walk(var, es)

    return Method("Monte Carlo, t copula", walk, refit=refit, minimum=100)


#: Every method by name.
METHODS: Mapping[str, Method] = {
    "historical": Method("Historical", _historical),
    "age_weighted": Method("Age-weighted historical", _age_weighted),
    "filtered": Method("Filtered historical, EWMA", _filtered),
    "filtered_garch": Method("Filtered historical, GARCH", _garch_filtered, refit=21, minimum=250),
    "normal": Method("Normal, sample", _normal, "normal"),
    "ewma": Method("Normal, EWMA", _ewma, "normal"),
    "garch": Method("Normal, GARCH", _garch, "normal", refit=21, minimum=250),
    "student_t": Method("Student t, sample", _student, "student", refit=5),
    "garch_student_t": Method("Student t, GARCH", _garch_student, "student", refit=21, minimum=250),
    "cornish_fisher": Method("Cornish-Fisher", _cornish_fisher),
    "peaks_over_threshold": Method("Extreme-value tail", _extreme, "pareto", refit=5, minimum=250),
    "garch_peaks": Method("Extreme-value tail, GARCH", _garch_extreme, "pareto", refit=21, minimum=250),
}


def typical_shape(tail: Tail, shape: Floats | None) -> tuple[Tail, float | None]:
    """The tail to simulate under, with the median of its shapes; Student's without an end to its degrees is normal.

    Shapes move from fit to fit while VaR and ES of every day are kept as they were: only how losses scatter beyond the
    VaR is that of a typical day.
    """
    if shape is None or tail not in ("student", "pareto"):
        return tail, None
    middle = float(np.median(shape))
    if tail == "student" and not middle < 200.0:
        return "normal", None
    return tail, middle
