"""Value at risk and expected shortfall of a portfolio by every method, at any level and horizon, with an interval.

>>> from tengri_fast.risk.estimators import risk_estimate
>>> estimate = risk_estimate(holdings, returns, method="filtered", level=0.99, volatility="garch")
>>> estimate.var, estimate.es, estimate.interval.var

A method is a function that makes a :class:`RiskModel`: the distribution of the portfolio's result, as a function of its
quantities. The model estimates, and :func:`tengri_fast.risk.attribution.attribute` splits it.

=================== ===============================================================================================
method              what it is
=================== ===============================================================================================
historical          full revaluation of every past return, equal weights
age_weighted        weights fall with age (Boudoukh, Richardson and Whitelaw 1998, "The best of both worlds")
filtered            returns scaled to the present volatility (Hull and White 1998; Barone-Adesi et al. 1999)
normal, student_t   linear exposures and a covariance: sample, EWMA, Ledoit-Wolf, factors
cornish_fisher      four moments of the revalued history, within the domain of Maillard 2012
peaks_over_threshold generalised Pareto tail (McNeil, Frey and Embrechts 2015, section 5.2)
delta_gamma         quadratic form of normal returns for instruments with Greeks or curved payoffs
monte_carlo         Gaussian or Student-t copula, full revaluation
=================== ===============================================================================================

*Horizon.* A step is the spacing of the returns. Longer horizons use overlapping windows, compounded; ``rule`` = "sqrt"
chooses the square root of time instead, and the estimate says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk._scipy import scipy_module
from tengri_fast.risk.conditional import age_weights, conditional_variances
from tengri_fast.risk.covariance import Covariance, covariance_matrix
from tengri_fast.risk.extreme import tail_estimates_gradient
from tengri_fast.risk.fitted import (
    Resampling,
    RiskData,
    RiskEstimate,
    RiskModel,
    around,
    bootstrap,
    moment_interval,
    scenario_interval,
)
from tengri_fast.risk.functionals import CornishFisherRisk, EllipticalRisk, QuadraticRisk, ScenarioRisk, TailRisk
from tengri_fast.risk.greeks import quadratic_terms
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.intervals import RiskInterval, order_statistic_ranks
from tengri_fast.risk.measures import tail_rank

__all__ = [
    "METHODS",
    "RiskEstimate",
    "RiskInterval",
    "RiskModel",
    "age_weighted",
    "cornish_fisher",
    "delta_gamma",
    "filtered",
    "historical",
    "monte_carlo",
    "normal",
    "peaks_over_threshold",
    "risk_estimate",
    "risk_model",
    "student_t",
]

Floats = npt.NDArray[np.float64]
_TAIL_NOTE = "the tail holds less than one scenario: VaR and ES are the worst loss"


# -- simulation from history ------------------------------------------------------------------------------------------


def historical(
    subject: Holdings | npt.ArrayLike,
    returns: npt.ArrayLike | None = None,
    *,
    level: float = 0.99,
    horizon: int = 1,
    rule: str = "overlapping",
    bandwidth: float = 0.0,
) -> RiskModel:
    """Historical simulation with equal weights; the definitions of :mod:`tengri_fast.risk.measures`.

    Parameters
    ----------
    subject : Holdings, or array_like of shape (S,)
        A portfolio, or its results, oldest first.
    returns : array_like, shape (N, S), optional
        Simple returns of the instruments, oldest first; with holdings only.
    level : float
        Confidence in (0, 1).
    horizon : int
        Steps of the data, >= 1.
    rule : str
        "overlapping" windows, or "sqrt" of time.
    bandwidth : float
        Ranks over which the attribution of VaR is smoothed (:class:`ScenarioRisk`); 0: none.

    Raises
    ------
    ConfigurationError, DataConversionError
        When an argument breaks its rule.
    """
    data = RiskData(subject, returns, level, horizon, rule)
    unit = data.unit(data.windows())
    details = data.facts(unit.shape[1])
    details["tail_scenarios"] = tail_rank(unit.shape[1], level)[1]
    if details["tail_scenarios"] < 1.0:
        details["note"] = _TAIL_NOTE
    functional = ScenarioRisk(unit, level, None, math.sqrt(data.steps), bandwidth=bandwidth)
    return data.model("historical", functional, details, scenario_interval(None, data.window, ""))


def age_weighted(
    subject: Holdings | npt.ArrayLike,
    returns: npt.ArrayLike | None = None,
    *,
    level: float = 0.99,
    horizon: int = 1,
    rule: str = "overlapping",
    decay: float = 0.98,
    bandwidth: float = 0.0,
) -> RiskModel:
    """Historical simulation with weights that fall by ``decay`` per step of age.

    Boudoukh, Richardson and Whitelaw 1998, "The best of both worlds", Risk 11: weight (1 - decay) decay^age / (1 -
    decay^S). Parameters and errors as :func:`historical`; ``decay`` in (0, 1).
    """
    if not 0.0 < decay < 1.0:
        raise ConfigurationError(f"`decay` must be between 0 and 1, was {decay}")
    data = RiskData(subject, returns, level, horizon, rule)
    unit = data.unit(data.windows())
    weights = age_weights(unit.shape[1], decay)
    details = data.facts(unit.shape[1])
    details["decay"] = decay
    details["effective_scenarios"] = float(1.0 / (weights @ weights))
    details["tail_scenarios"] = (1.0 - level) * details["effective_scenarios"]
    if details["tail_scenarios"] < 1.0:
        details["note"] = "the tail holds less than one effective scenario: VaR and ES rest on single losses"
    functional = ScenarioRisk(unit, level, weights, math.sqrt(data.steps), bandwidth=bandwidth)
    note = "; weights stay with their age"
    return data.model("age_weighted", functional, details, scenario_interval(weights, data.window, note))


def filtered(
    subject: Holdings | npt.ArrayLike,
    returns: npt.ArrayLike | None = None,
    *,
    level: float = 0.99,
    horizon: int = 1,
    rule: str = "overlapping",
    volatility: str | npt.ArrayLike = "ewma",
    decay: float = 0.94,
    bandwidth: float = 0.0,
) -> RiskModel:
    """Historical simulation with every return scaled by the volatility now over the volatility then.

    Hull and White 1998, "Incorporating volatility updating into the historical simulation method", J. Risk 1;
    Barone-Adesi, Giannopoulos and Vosper 1999 with GARCH. Log returns of instruments are scaled, so that a scaled
    return stays above -1; results given without holdings are scaled themselves. Over a horizon the forecast volatility
    is held.

    Parameters and errors as :func:`historical`, and:

    Parameters
    ----------
    volatility : str or array_like, shape (N, S + 1) or (S + 1,)
        "ewma", "garch", "gjr", or conditional variances: known before each return, the forecast last.
    decay : float
        Of "ewma".
    """
    data = RiskData(subject, returns, level, horizon, rule)
    if data.holdings is not None and (data.table <= -1.0).any():
        raise DataConversionError("`returns` must be > -1 to be scaled by volatility, held -1")
    series = data.table if data.holdings is None else np.log1p(data.table)
    if isinstance(volatility, str):
        variances = conditional_variances(series, volatility, decay=decay)
    else:
        variances = np.atleast_2d(np.asarray(volatility, dtype=np.float64))
        if variances.shape != (series.shape[0], series.shape[1] + 1):
            raise DataConversionError(
                f"`volatility` must have shape {(series.shape[0], series.shape[1] + 1)}, variances with the forecast "
                f"last; had {variances.shape}"
            )
    if not (np.isfinite(variances) & (variances > 0.0)).all():
        i = int(np.argwhere(~(np.isfinite(variances) & (variances > 0.0)))[0, 0])
        raise DataConversionError(f"conditional variances must be finite and > 0, those of {data.names[i]} are not")
    ratio = np.sqrt(variances[:, -1:] / variances[:, :-1])
    scaled = series * ratio if data.holdings is None else np.expm1(series * ratio)
    unit = data.unit(data.windows(scaled))
    details = data.facts(unit.shape[1])
    details["volatility"] = volatility if isinstance(volatility, str) else "given"
    details["forecast_volatility"] = np.sqrt(variances[:, -1]).tolist()
    details["tail_scenarios"] = tail_rank(unit.shape[1], level)[1]
    if details["tail_scenarios"] < 1.0:
        details["note"] = _TAIL_NOTE
    functional = ScenarioRisk(unit, level, None, math.sqrt(data.steps), bandwidth=bandwidth)
    return data.model("filtered", functional, details, scenario_interval(None, data.window, "; given the volatilities"))


# -- parametric -------------------------------------------------------------------------------------------------------


def _elliptical(
    data: RiskData, covariance: str, mean: str, factors: tuple[float, float], method: str, options: dict[str, Any],
    details: dict[str, Any],
) -> RiskModel:  # fmt: skip
    if mean not in ("zero", "sample"):
        raise ConfigurationError(f"`mean` must be zero or sample, was {mean!r}")
    windows = data.windows()
    fitted: Covariance = covariance_matrix(windows, covariance, **options)
    drift = windows.mean(axis=1) if mean == "sample" else np.zeros(windows.shape[0])
    functional = EllipticalRisk(data.exposures(), drift, fitted.matrix, *factors, data.steps)
    details = {**data.facts(windows.shape[1]), "covariance": covariance, "mean": mean, **fitted.details, **details}
    if data.holdings is not None and ((data.holdings.codes != 0).any() or np.isfinite(data.holdings.deltas).any()):
        details["note"] = "payoffs are taken to first order"
    linear = (data.quantities * functional.exposures) @ windows
    observations = max(fitted.observations / data.window, 2.0)

    def interval(model: RiskModel, how: Resampling) -> RiskInterval:
        var, es = model.risk()
        _, sigma = functional.moments(model.quantities)
        centred = linear - linear.mean()
        second = float((centred**2).mean())
        kurtosis = float((centred**4).mean()) / second**2 if second > 0.0 else 3.0
        shift = data.steps if mean == "sample" else 0.0
        errors = [sigma * math.sqrt((shift + 0.25 * k * k * max(kurtosis - 1.0, 0.0)) / observations) for k in factors]
        width = NormalDist().inv_cdf(0.5 + 0.5 * how.confidence)
        bounds = around((var, es), (errors[0], errors[1]), width)
        text = f"asymptotic, sample kurtosis {kurtosis:.3g}, {observations:.4g} effective observations"
        if method == "student_t":
            text += ", given the degrees of freedom"
        return RiskInterval(bounds[0], bounds[1], how.confidence, text)

    return data.model(method, functional, details, interval)


def normal(
    subject: Holdings | npt.ArrayLike,
    returns: npt.ArrayLike | None = None,
    *,
    level: float = 0.99,
    horizon: int = 1,
    rule: str = "overlapping",
    covariance: str = "sample",
    mean: str = "zero",
    **options: Any,
) -> RiskModel:
    """Normal VaR and ES of linear exposures (McNeil, Frey and Embrechts 2015, examples 2.11 and 2.14).

    Parameters and errors as :func:`historical`, and:

    Parameters
    ----------
    covariance : str
        "sample", "ewma", "ledoit_wolf", "ledoit_wolf_correlation" or "factor".
    mean : str
        "zero", usual for short horizons, or "sample".
    **options
        Of the covariance: ``decay``, ``factors``, ``zero_mean``.
    """
    data = RiskData(subject, returns, level, horizon, rule)
    z = NormalDist().inv_cdf(level)
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return _elliptical(data, covariance, mean, (z, density / (1.0 - level)), "normal", options, {})


def student_t(
    subject: Holdings | npt.ArrayLike,
    returns: npt.ArrayLike | None = None,
    *,
    level: float = 0.99,
    horizon: int = 1,
    rule: str = "overlapping",
    covariance: str = "sample",
    mean: str = "zero",
    degrees: float | None = None,
    **options: Any,
) -> RiskModel:
    """Student-t VaR and ES of linear exposures, with the covariance as given (its scale matrix is (nu - 2) / nu of it).

    McNeil, Frey and Embrechts 2015, example 2.15. Parameters and errors as :func:`normal`, and:

    Parameters
    ----------
    degrees : float, optional
        Degrees of freedom nu, > 2; by default fitted to the portfolio's linear results with their variance held, and
        then held itself. Fitted together with a free scale, they would be too many for this variance.
    """
    data = RiskData(subject, returns, level, horizon, rule)
    stats = scipy_module("stats", "Student-t quantiles")
    details: dict[str, Any] = {}
    if degrees is None:
        from tengri_fast.risk.garch import fit_degrees_of_freedom

        windows = data.windows()
        linear = (data.quantities * data.exposures()) @ windows
        if linear.size < 10 or linear.std() <= 1e-12 * np.abs(linear).max(initial=0.0):
            raise DataConversionError(
                "`degrees` must be given when the portfolio's results are constant or fewer than ten: they cannot be "
                "fitted"
            )
        centred = linear - linear.mean() if mean == "sample" else linear
        degrees = min(fit_degrees_of_freedom(centred / math.sqrt(float(centred @ centred) / centred.size)), 200.0)
        details["degrees_fitted"] = True
    if not 2.0 < degrees < math.inf:
        raise ConfigurationError(f"`degrees` must be finite and > 2, was {degrees}")
    details["degrees"] = degrees
    t = float(stats.t.ppf(level, degrees))
    unit = math.sqrt((degrees - 2.0) / degrees)
    es = float(stats.t.pdf(t, degrees)) / (1.0 - level) * (degrees + t * t) / (degrees - 1.0)
    return _elliptical(data, covariance, mean, (unit * t, unit * es), "student_t", options, details)


def cornish_fisher(
    subject: Holdings | npt.ArrayLike,
    returns: npt.ArrayLike | None = None,
    *,
    level: float = 0.99,
    horizon: int = 1,
    rule: str = "overlapping",
    mean: str = "sample",
    matched: bool = False,
    outside: str = "refuse",
) -> RiskModel:
    """Cornish-Fisher VaR and ES from four moments of the revalued history (:class:`CornishFisherRisk`).

    Parameters and errors as :func:`historical`, and:

    Parameters
    ----------
    mean : str
        "sample" or "zero".
    matched : bool
        True: solve for parameters whose expansion has the sample's skewness and kurtosis (Maillard 2012).
    outside : str
        "refuse" raises DataConversionError when the moments lie outside the domain where the expansion is a quantile
        function; "report" computes and says so in ``details["valid"]``.
    """
    if mean not in ("zero", "sample"):
        raise ConfigurationError(f"`mean` must be zero or sample, was {mean!r}")
    data = RiskData(subject, returns, level, horizon, rule)
    unit = data.unit(data.windows())
    if unit.shape[1] < 4:
        raise DataConversionError(f"four moments must have at least 4 observations, had {unit.shape[1]}")
    functional = CornishFisherRisk(unit, level, data.steps, mean == "zero", matched)
    valid = functional.check(data.quantities, outside)
    _, _, skew, kurtosis = functional.moments(data.quantities)
    details = data.facts(unit.shape[1])
    details.update(
        skewness=skew, excess_kurtosis=kurtosis, valid=valid, parameters=functional.expansion.parameters(skew, kurtosis)
    )
    return data.model("cornish_fisher", functional, details, moment_interval(data.window))


def delta_gamma(
    holdings: Holdings,
    returns: npt.ArrayLike,
    *,
    level: float = 0.99,
    horizon: int = 1,
    rule: str = "overlapping",
    covariance: str = "sample",
    matched: bool = False,
    outside: str = "refuse",
    **options: Any,
) -> RiskModel:
    """Delta-gamma VaR and ES of normal returns (:class:`QuadraticRisk`), for Greeks and inverse payoffs.

    For full revaluation of the same normal returns use :func:`monte_carlo`. Parameters and errors as :func:`normal` and
    :func:`cornish_fisher`; the mean return is zero.
    """
    if not isinstance(holdings, Holdings):
        raise DataConversionError("`delta_gamma` must have holdings and returns, had results alone")
    data = RiskData(holdings, returns, level, horizon, rule)
    first, second = quadratic_terms(holdings)
    windows = data.windows()
    fitted = covariance_matrix(windows, covariance, **options)
    functional = QuadraticRisk(first, second, data.steps * fitted.matrix, level, matched)
    valid = functional.check(data.quantities, outside)
    mean, sigma, skew, kurtosis = functional.moments(data.quantities)
    details = data.facts(windows.shape[1])
    details.update(
        covariance=covariance, mean=mean, deviation=sigma, skewness=skew, excess_kurtosis=kurtosis, valid=valid,
        **fitted.details,
    )  # fmt: skip
    if (holdings.codes == 2).any():
        details["note"] = "binary payoffs are taken to first order, without their clip at 0 and 1"

    def interval(model: RiskModel, how: Resampling) -> RiskInterval:
        def compute(index: npt.NDArray[np.int64]) -> tuple[float, float]:
            again = covariance_matrix(windows[:, index], covariance, **options)
            return QuadraticRisk(first, second, data.steps * again.matrix, level, matched).risk(model.quantities)

        var, es, block = bootstrap(windows.shape[1], data.window, how, compute)
        text = f"block bootstrap of the covariance, blocks of {block}, {how.resamples} resamples, seed {how.seed}"
        return RiskInterval(var, es, how.confidence, text)

    return data.model("delta_gamma", functional, details, interval)


# -- tail and Monte Carlo ---------------------------------------------------------------------------------------------


def peaks_over_threshold(
    subject: Holdings | npt.ArrayLike,
    returns: npt.ArrayLike | None = None,
    *,
    level: float = 0.99,
    horizon: int = 1,
    rule: str = "overlapping",
    tail_share: float = 0.1,
) -> RiskModel:
    """Extreme-value tail of the revalued history (:mod:`tengri_fast.risk.extreme`).

    Parameters and errors as :func:`historical`, and:

    Parameters
    ----------
    tail_share : float
        Share of the losses beyond the threshold, in (0, 0.5]; the threshold is the largest loss not among them. At
        least ten must exceed it, and the level must lie in the tail.
    """
    if not 0.0 < tail_share <= 0.5:
        raise ConfigurationError(f"`tail_share` must be within (0, 0.5], was {tail_share}")
    data = RiskData(subject, returns, level, horizon, rule)
    unit = data.unit(data.windows())
    count = unit.shape[1]
    exceeding = math.floor(tail_share * count + 1e-9)
    if exceeding < 10:
        raise DataConversionError(
            f"`tail_share` must leave at least 10 losses beyond the threshold, {tail_share:g} of {count} leaves "
            f"{exceeding}"
        )
    functional = TailRisk(unit, level, exceeding, math.sqrt(data.steps))
    fitted, beyond, _, threshold = functional.fit(data.quantities)
    details = data.facts(count)
    details.update(
        threshold=threshold,
        threshold_rule=f"largest loss outside the worst {exceeding} of {count}",
        exceeding=int(beyond.size),
        xi=fitted.xi,
        beta=fitted.beta,
    )
    if fitted.xi >= 1.0:
        details["note"] = "xi >= 1: the tail has no mean, expected shortfall is infinite"
    if not fitted.regular:
        details["note"] = "xi stopped at -1/2, where the likelihood ceases to be regular"

    def interval(model: RiskModel, how: Resampling) -> RiskInterval:
        var, es = model.risk()
        share = beyond.size / count
        information = np.zeros((3, 3))
        information[1:, 1:] = fitted.covariance
        slopes = np.array(
            tail_estimates_gradient(threshold, fitted.xi, fitted.beta, count, int(beyond.size), model.level)
        )
        # The share beyond the threshold is binomial; it enters through log(tail / share).
        stretch = math.exp(-fitted.xi * math.log((1.0 - model.level) / share)) * fitted.beta
        by_share = np.array([stretch / share, stretch / share / (1.0 - fitted.xi) if fitted.xi < 1.0 else math.nan])
        spread = np.einsum("ij,jk,ik->i", slopes, information, slopes)
        errors = functional.scale * np.sqrt(spread + by_share**2 * share * (1.0 - share) / count)
        width = NormalDist().inv_cdf(0.5 + 0.5 * how.confidence)
        bounds = around((var, es), (float(errors[0]), float(errors[1])), width)
        text = "asymptotic (delta method) from the information of the tail, at the threshold"
        if data.window > 1:
            text += "; too narrow, because overlapping windows are not independent"
        return RiskInterval(bounds[0], bounds[1], how.confidence, text)

    return data.model("peaks_over_threshold", functional, details, interval)


def monte_carlo(
    holdings: Holdings,
    returns: npt.ArrayLike,
    *,
    level: float = 0.99,
    horizon: int = 1,
    rule: str = "overlapping",
    copula: str = "student_t",
    margins: str = "empirical",
    degrees: float | None = None,
    correlation: npt.ArrayLike | None = None,
    paths: int = 100_000,
    seed: int = 0,
    sampling: str = "plain",
    threads: int | None = None,
    bandwidth: float = 0.0,
) -> RiskModel:
    """Monte Carlo VaR and ES, full revaluation (:mod:`tengri_fast.risk.monte_carlo`).

    The interval covers the error of sampling ``paths``, not that of the fitted distribution. Parameters and errors as
    :func:`historical`, :func:`~tengri_fast.risk.monte_carlo.fit_paths` and
    :func:`~tengri_fast.risk.monte_carlo.simulate_pnl`.
    """
    from tengri_fast.risk.monte_carlo import draw_scenarios, fit_paths, simulate_pnl

    if not isinstance(holdings, Holdings):
        raise DataConversionError("`monte_carlo` must have holdings and returns, had results alone")
    data = RiskData(holdings, returns, level, horizon, rule)
    windows = data.windows()
    drawn = fit_paths(windows, copula=copula, margins=margins, degrees=degrees, correlation=correlation)
    pnl = simulate_pnl(drawn, holdings, paths=paths, seed=seed, sampling=sampling, threads=threads)

    def unit() -> Floats:
        scenarios = draw_scenarios(
            drawn, holdings.instrument_ids, horizon_ns=1, paths=paths, seed=seed, sampling=sampling, threads=threads
        )
        return holdings.unit_pnl(scenarios.returns)

    functional = ScenarioRisk(unit, level, None, math.sqrt(data.steps), pnl, data.quantities, bandwidth)
    details = data.facts(paths)
    details.update(
        copula=copula, margins=margins, degrees=drawn.degrees, sampling=sampling, seed=seed,
        tail_scenarios=tail_rank(paths, level)[1],
    )  # fmt: skip

    def interval(model: RiskModel, how: Resampling) -> RiskInterval:
        var, es = model.risk()
        if sampling == "plain":
            low, high = order_statistic_ranks(paths, level, how.confidence)
            losses = np.sort(-pnl)
            bounds = np.concatenate(([-math.inf], losses, [math.inf])) * functional.scale
            rank, tail = tail_rank(paths, level)
            worst = losses[losses.size - rank + 1 :] * functional.scale
            inside = float(worst.var()) if worst.size else math.nan
            # Manistre and Hancock 2005, "Variance of the CTE estimator", N. American Actuarial J. 9.
            error = math.sqrt((inside + level * (es - var) ** 2) / max(tail, 1e-300))
            width = NormalDist().inv_cdf(0.5 + 0.5 * how.confidence)
            return RiskInterval(
                (float(bounds[low]), float(bounds[high])),
                (es - width * error, es + width * error),
                how.confidence,
                "sampling error only. VaR: exact order statistics; ES: asymptotic",
            )
        batches = 8
        if sampling == "antithetic":
            # Blocks of 256 paths are independent of each other.
            cut = -(-paths // (256 * batches)) * 256
            parts = [part for part in (pnl[i * cut : (i + 1) * cut] for i in range(batches)) if part.size == cut]
        else:
            parts = [
                simulate_pnl(
                    drawn, holdings, paths=paths, sampling=sampling, threads=threads,
                    seed=int(np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)[0]),
                )
                for i in range(batches)
            ]  # fmt: skip
        nothing = (math.nan, math.nan)
        if len(parts) < 4 or tail_rank(parts[0].size, level)[1] < 1.0:
            return RiskInterval(nothing, nothing, how.confidence, "none: too few paths for separate batches")
        each = np.array([ScenarioRisk(p[None, :], level, None, functional.scale).risk(np.ones(1)) for p in parts])
        errors = each.std(axis=0, ddof=1)
        if sampling == "antithetic":
            errors = errors / math.sqrt(len(parts))
        width = float(scipy_module("stats", "an interval").t.ppf(0.5 + 0.5 * how.confidence, len(parts) - 1))
        ranges = around((var, es), (float(errors[0]), float(errors[1])), width)
        what = "batches of the paths" if sampling == "antithetic" else "further scramblings of as many points"
        return RiskInterval(ranges[0], ranges[1], how.confidence, f"sampling error only, from {len(parts)} {what}")

    return data.model("monte_carlo", functional, details, interval)


#: Methods by the name that a configuration uses.
METHODS: dict[str, Callable[..., RiskModel]] = {
    "historical": historical,
    "age_weighted": age_weighted,
    "filtered": filtered,
    "normal": normal,
    "student_t": student_t,
    "cornish_fisher": cornish_fisher,
    "peaks_over_threshold": peaks_over_threshold,
    "delta_gamma": delta_gamma,
    "monte_carlo": monte_carlo,
}


def risk_model(
    subject: Holdings | npt.ArrayLike,
    returns: npt.ArrayLike | None = None,
    *,
    method: str = "historical",
    **options: Any,
) -> RiskModel:
    """Fit a method by its name; ``options`` are those of its function.

    Raises
    ------
    ConfigurationError
        When the method or an option is unknown or breaks its rule.
    DataConversionError
        When the data break theirs.
    """
    if method not in METHODS:
        raise ConfigurationError(f"`method` must be one of {', '.join(METHODS)}, was {method!r}")
    try:
        return METHODS[method](subject, returns, **options)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise ConfigurationError(f"`{method}`: {error}") from error
        raise


def risk_estimate(
    subject: Holdings | npt.ArrayLike,
    returns: npt.ArrayLike | None = None,
    *,
    method: str = "historical",
    level: float = 0.99,
    horizon: int = 1,
    confidence: float | None = 0.95,
    bootstrap_seed: int = 0,
    resamples: int = 500,
    block: int | None = None,
    **options: Any,
) -> RiskEstimate:
    """VaR and ES by any method.

    Parameters
    ----------
    subject : Holdings, or array_like of shape (S,)
        A portfolio, or its results, oldest first, base currency.
    returns : array_like, shape (N, S), optional
        Simple returns of the instruments, oldest first; with holdings only.
    method : str
        Key of :data:`METHODS`.
    level : float
        Confidence in (0, 1).
    horizon : int
        Steps of the data, >= 1.
    confidence : float or None
        Of the interval; None leaves it out.
    bootstrap_seed, resamples, block
        Of the bootstrap, where the interval needs one.
    **options
        Of the method's function.

    Raises
    ------
    ConfigurationError, DataConversionError, MissingExtraError
        As :func:`risk_model`.
    """
    model = risk_model(subject, returns, method=method, level=level, horizon=horizon, **options)
    return model.estimate(confidence, seed=bootstrap_seed, resamples=resamples, block=block)
