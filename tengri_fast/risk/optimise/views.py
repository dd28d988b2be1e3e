"""Black-Litterman: expected returns from what the market holds and what the signals say.

Black and Litterman (1992), "Global portfolio optimization", Financial Analysts Journal 48. The prior N(pi, tau S) is
combined with views P m = Q + error, error ~ N(0, Omega)::

    m = pi + tau S P' (P tau S P' + Omega)^-1 (Q - P pi)
    covariance of returns = S + tau S - tau S P' (P tau S P' + Omega)^-1 P tau S

A confidence c in a view is turned into its variance as omega = (p tau S p') (1 - c) / c, which makes a single view move
the expected return by the share c of the way from the prior to the view: the closed form (Walters 2014, "The
Black-Litterman model in detail", sec. on Idzorek) of the method of Idzorek (2005), "A step-by-step guide to the
Black-Litterman model".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.optimise.inputs import checked_covariance, vector

__all__ = ["Posterior", "SignalView", "Views", "black_litterman", "implied_returns", "views_from_signals"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Views:
    """K statements about returns of N instruments: P m = Q with errors of variances `omega`.

    Parameters
    ----------
    p : array_like, shape (K, N)
        Each row a portfolio.
    q : array_like, shape (K,)
        Its expected return per period of the covariance.
    omega : array_like, shape (K, K)
        Covariance of the errors.
    """

    p: Floats
    q: Floats
    omega: Floats


@dataclass(frozen=True)
class SignalView:
    """What a neural signal says about an instrument.

    Parameters
    ----------
    value_bps : float
        Expected return over the horizon, basis points.
    confidence : float
        Calibrated probability of the likeliest outcome, 0 to 1.
    horizon_ns : float
        Over which time.
    """

    value_bps: float
    confidence: float
    horizon_ns: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """Expected returns, shape (N,), and covariance of returns, shape (N, N), after the views."""

    expected: Floats
    covariance: Floats
    prior: Floats


def implied_returns(covariance: npt.ArrayLike, weights: npt.ArrayLike, risk_aversion: float = 2.5) -> Floats:
    """Expected returns under which `weights` are optimal: risk_aversion S w (reverse optimisation)."""
    if not (math.isfinite(risk_aversion) and risk_aversion > 0.0):
        raise ConfigurationError(f"`risk_aversion` must be finite and > 0, was {risk_aversion}")
    matrix, _ = checked_covariance(covariance)
    found: Floats = risk_aversion * (matrix @ vector("weights", weights, len(matrix)))
    return found


def views_from_signals(
    signals: Mapping[str, SignalView], covariance: npt.ArrayLike, names: Sequence[str], *, horizon_ns: float,
    tau: float = 0.05, chance: float = 1.0 / 3.0, most: float = 0.99,
) -> Views:  # fmt: skip
    """Views from neural signals, one per instrument that has one.

    The confidence in a view is 0 at the probability that mere chance gives and rises linearly to 1::

        c = (probability - chance) / (1 - chance)

    A signal of no confidence, or without a finite value, makes no view. The value is brought to the horizon of the
    covariance: a shorter signal counts once (nothing is said of the time after it), a longer one in proportion.

    Parameters
    ----------
    signals : mapping of str to SignalView
        By instrument.
    covariance : array_like, shape (N, N)
        Of returns over `horizon_ns`.
    names : sequence of str
        Instruments in the covariance's order.
    horizon_ns : float
        Period of the covariance.
    tau : float, default 0.05
        Uncertainty of the prior, as in :func:`black_litterman`.
    chance : float, default 1/3
        Probability of the likeliest of three outcomes that says nothing.
    most : float, default 0.99
        Largest confidence; certainty would fix the expected return.

    Raises
    ------
    ConfigurationError, DataConversionError
        When a value breaks its rule, or a signal names no instrument of the covariance.
    """
    for name, value in (("tau", tau), ("horizon_ns", horizon_ns)):
        if not (math.isfinite(value) and value > 0.0):
            raise ConfigurationError(f"`{name}` must be finite and > 0, was {value}")
    if not 0.0 <= chance < 1.0 or not 0.0 < most < 1.0:
        raise ConfigurationError(f"`chance` and `most` must be within 0 and 1, were {chance} and {most}")
    matrix, _ = checked_covariance(covariance, names)
    index = {name: i for i, name in enumerate(names)}
    rows, values, variances = [], [], []
    for name, signal in signals.items():
        if name not in index:
            raise DataConversionError(f"`signals` must name instruments of the covariance, was {name!r}")
        if not (signal.horizon_ns > 0.0 and 0.0 <= signal.confidence <= 1.0):
            raise DataConversionError(
                f"`signals` must have a horizon > 0 and a confidence within 0 and 1, was {signal} for {name}"
            )
        confidence = min((signal.confidence - chance) / (1.0 - chance), most)
        if not (confidence > 0.0 and math.isfinite(signal.value_bps)):
            continue
        i = index[name]
        row = np.zeros(len(names))
        row[i] = 1.0
        rows.append(row)
        values.append(1e-4 * signal.value_bps * min(1.0, horizon_ns / signal.horizon_ns))
        variances.append(tau * matrix[i, i] * (1.0 - confidence) / confidence)
    return Views(np.array(rows).reshape(len(rows), len(names)), np.array(values), np.diag(variances))


def black_litterman(
    covariance: npt.ArrayLike, views: Views, *, prior: npt.ArrayLike | None = None,
    market_weights: npt.ArrayLike | None = None, risk_aversion: float = 2.5, tau: float = 0.05,
) -> Posterior:  # fmt: skip
    """Expected returns and covariance after views.

    Parameters
    ----------
    covariance : array_like, shape (N, N)
        Of returns per period.
    views : Views
        Zero or more.
    prior : array_like, shape (N,), optional
        Expected returns before the views; else those that `market_weights` imply; else zero, which is what an efficient
        market offers over the horizon of a signal.
    market_weights : array_like, shape (N,), optional
        What the market holds.
    risk_aversion, tau : float
        Of the market, and uncertainty of the prior.

    Raises
    ------
    ConfigurationError, DataConversionError
        When an input breaks its rule.
    """
    if not (math.isfinite(tau) and tau > 0.0):
        raise ConfigurationError(f"`tau` must be finite and > 0, was {tau}")
    if prior is not None and market_weights is not None:
        raise ConfigurationError("`prior` and `market_weights` must not both be given")
    matrix, _ = checked_covariance(covariance)
    count = len(matrix)
    if prior is not None:
        before = vector("prior", prior, count)
    elif market_weights is not None:
        before = implied_returns(matrix, market_weights, risk_aversion)
    else:
        before = np.zeros(count)
    p = np.asarray(views.p, dtype=np.float64)
    k = len(views.q)
    if p.shape != (k, count) or np.shape(views.omega) != (k, k):
        raise DataConversionError(
            f"`views` must have p ({k}, {count}) and omega ({k}, {k}), had {p.shape} and {np.shape(views.omega)}"
        )
    if k == 0:
        return Posterior(before, matrix * (1.0 + tau), before)
    if not (np.isfinite(p).all() and np.isfinite(views.q).all() and np.isfinite(views.omega).all()):
        raise DataConversionError("`views` must be finite, held NaN or infinity")
    uncertain = tau * matrix
    across = uncertain @ p.T
    gain = np.linalg.solve(p @ across + views.omega, across.T).T
    expected = before + gain @ (views.q - p @ before)
    left = uncertain - gain @ across.T
    return Posterior(expected, matrix + 0.5 * (left + left.T), before)
