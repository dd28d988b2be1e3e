"""VaR and ES as functions of the quantities, with their gradients: one class per shape of the distribution.

Every class answers ``risk(q)`` and ``gradient(q)`` for a vector of N quantities; the loss is positive. All are
homogeneous of degree one in q where the results are linear in q, so that by Euler's theorem the quantities times the
gradient add up to the risk (Tasche 1999, "Risk contributions and performance measurement"). That is what
:mod:`tengri_fast.risk.attribution` hands out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.extreme import (
    GparetoFit,
    fit_excesses,
    likelihood_score,
    tail_estimates,
    tail_estimates_gradient,
)
from tengri_fast.risk.measures import expected_shortfall, tail_rank, value_at_risk

__all__ = [
    "CornishFisherRisk",
    "EllipticalRisk",
    "QuadraticRisk",
    "RiskFunctional",
    "ScenarioRisk",
    "TailRisk",
    "cornish_fisher_valid",
    "tail_weights",
]

Floats = npt.NDArray[np.float64]


class RiskFunctional(Protocol):
    """What estimates and attributions need of a method."""

    def risk(self, quantities: Floats) -> tuple[float, float]:
        """VaR and ES of a portfolio, base currency."""
        ...

    def gradient(self, quantities: Floats) -> tuple[Floats, Floats]:
        """Derivatives of VaR and ES in each quantity, base currency per unit."""
        ...


# -- scenarios --------------------------------------------------------------------------------------------------------


def tail_weights(pnl: Floats, level: float, weights: Floats | None = None) -> tuple[npt.NDArray[np.int64], Floats]:
    """Scenarios of the tail, worst first, with their weights in the expected shortfall; the last one is the VaR's.

    With ``weights`` (>= 0, sum 1) the value at risk is the smallest loss x with weight(losses <= x) >= level, which for
    equal weights is the definition of :mod:`tengri_fast.risk.measures`; the boundary scenario is split in the same way.
    """
    order = np.argsort(pnl, kind="stable")
    if weights is None:
        rank, mass = tail_rank(pnl.size, level)
        shares = np.full(rank, 1.0 / mass)
        shares[-1] = (mass - (rank - 1)) / mass
        return order[:rank], shares
    tail = 1.0 - level
    reached = np.cumsum(weights[order])
    # The scenario is the VaR's as long as the weight beyond it stays within the tail, rounding allowed for.
    rank = int(np.searchsorted(reached, tail + 1e-9, side="right")) + 1
    rank = min(rank, pnl.size)
    shares = weights[order[:rank]] / tail
    shares[-1] = max(1.0 - float(shares[:-1].sum()), 0.0)
    return order[:rank], shares


def _equal_weights(pnl: Floats, level: float) -> tuple[float, float]:
    """VaR and ES by the definitions of ``measures``, bit by bit, but sorting the tail only: for many scenarios."""
    if pnl.size < 2048:
        return value_at_risk(pnl, level), expected_shortfall(pnl, level)
    if not np.isfinite(pnl).all():
        raise DataConversionError("results must be finite, held NaN or infinity")
    rank, mass = tail_rank(pnl.size, level)
    losses = np.sort(-np.partition(pnl, rank - 1)[:rank])[::-1]
    var = float(losses[-1])
    return var, float((losses[:-1].sum() + (mass - (rank - 1)) * losses[-1]) / mass)


class ScenarioRisk:
    """Risk read off weighted scenarios.

    Parameters
    ----------
    unit : ndarray, shape (N, S), or callable returning it
        Result of one unit of each instrument per scenario.
    level : float
        Confidence.
    weights : ndarray, shape (S,), optional
        Weight of each scenario, sum 1; equal by default.
    scale : float
        Factor on all results (square root of time).
    pnl : ndarray, shape (S,), optional
        Result for the quantities ``base``, when it is known already.
    base : ndarray, shape (N,), optional
        Those quantities.
    bandwidth : float
        For the gradient of VaR: 0 takes the VaR's own scenario; b > 0 averages over neighbouring ranks with an
        Epanechnikov kernel that reaches b ranks to both sides, and scales the result so that it still adds up
        (Epperlein and Smillie 2006, "Cracking VaR with kernels", Risk 19).
    """

    def __init__(
        self,
        unit: Floats | Callable[[], Floats],
        level: float,
        weights: Floats | None = None,
        scale: float = 1.0,
        pnl: Floats | None = None,
        base: Floats | None = None,
        bandwidth: float = 0.0,
    ) -> None:
        self._unit = unit
        self.level = level
        self.weights = weights
        self.scale = scale
        self._pnl = pnl
        self._base = base
        self.bandwidth = bandwidth

    @property
    def unit(self) -> Floats:
        """Results of one unit [N, S]; drawn or computed when first asked for."""
        if callable(self._unit):
            self._unit = self._unit()
        return self._unit

    def pnl(self, quantities: Floats) -> Floats:
        """Results of the portfolio, shape (S,), without ``scale``."""
        if self._pnl is not None and self._base is not None and np.array_equal(quantities, self._base):
            return self._pnl
        result: Floats = quantities @ self.unit
        return result

    def risk(self, quantities: Floats) -> tuple[float, float]:
        """VaR and ES."""
        pnl = self.pnl(quantities)
        if self.weights is None:
            var, es = _equal_weights(pnl, self.level)
            return self.scale * var, self.scale * es
        scenarios, shares = tail_weights(pnl, self.level, self.weights)
        return -self.scale * float(pnl[scenarios[-1]]), -self.scale * float(shares @ pnl[scenarios])

    def gradient(self, quantities: Floats) -> tuple[Floats, Floats]:
        """Results per unit in the VaR's scenario (or around it), and their mean over the tail."""
        pnl = quantities @ self.unit
        scenarios, shares = tail_weights(pnl, self.level, self.weights)
        es = -self.scale * (self.unit[:, scenarios] @ shares)
        if self.bandwidth <= 0.0:
            return -self.scale * self.unit[:, scenarios[-1]], es
        order = np.argsort(pnl, kind="stable")
        rank = scenarios.size - 1
        near = np.arange(max(rank - int(self.bandwidth), 0), min(rank + int(self.bandwidth) + 1, pnl.size))
        kernel = np.maximum(1.0 - ((near - rank) / (self.bandwidth + 1.0)) ** 2, 0.0)
        if self.weights is not None:
            kernel = kernel * self.weights[order[near]]
        kernel /= kernel.sum()
        smooth = -self.scale * (self.unit[:, order[near]] @ kernel)
        total, var = float(quantities @ smooth), -self.scale * float(pnl[scenarios[-1]])
        if total * var <= 0.0:
            raise DataConversionError(
                f"`bandwidth` must be small enough that the mean of the neighbouring results keeps the sign of the VaR "
                f"({var}), was {self.bandwidth:g}: they average {total}"
            )
        return smooth * (var / total), es


# -- elliptical -------------------------------------------------------------------------------------------------------


class EllipticalRisk:
    """Linear results of elliptically distributed returns: VaR = -h mean + sqrt(h) k sigma.

    Parameters
    ----------
    exposures : ndarray, shape (N,)
        Result of one unit per unit of return.
    mean : ndarray, shape (N,)
        Mean return per step.
    covariance : ndarray, shape (N, N)
        Covariance of returns per step, positive semidefinite.
    var_factor, es_factor : float
        Quantile and tail mean of the standardised loss.
    steps : float
        Horizon h: the mean grows with h, the deviation with its root.
    """

    def __init__(
        self, exposures: Floats, mean: Floats, covariance: Floats, var_factor: float, es_factor: float, steps: float
    ) -> None:
        self.exposures = exposures
        self.mean = mean
        self.covariance = covariance
        self.factors = (var_factor, es_factor)
        self.steps = steps

    def moments(self, quantities: Floats) -> tuple[float, float]:
        """Mean and standard deviation of the result over the horizon."""
        exposed = quantities * self.exposures
        variance = max(float(exposed @ self.covariance @ exposed), 0.0)
        return self.steps * float(exposed @ self.mean), math.sqrt(self.steps * variance)

    def risk(self, quantities: Floats) -> tuple[float, float]:
        """VaR and ES."""
        mean, sigma = self.moments(quantities)
        return -mean + self.factors[0] * sigma, -mean + self.factors[1] * sigma

    def gradient(self, quantities: Floats) -> tuple[Floats, Floats]:
        """Derivatives; a portfolio without variance has none in sigma, zero stands for it."""
        _, sigma = self.moments(quantities)
        towards = self.steps * (self.covariance @ (quantities * self.exposures))
        slope = towards / sigma if sigma > 0.0 else np.zeros_like(towards)
        drift = -self.steps * self.mean
        var, es = (self.exposures * (drift + factor * slope) for factor in self.factors)
        return var, es


# -- Cornish-Fisher ---------------------------------------------------------------------------------------------------


def _coefficients(skew: float, kurtosis: float) -> Floats:
    """Of w(z) = z + (z^2 - 1) S / 6 + (z^3 - 3 z) K / 24 - (2 z^3 - 5 z) S^2 / 36, by power of z."""
    return np.array(
        [
            -skew / 6.0,
            1.0 - kurtosis / 8.0 + 5.0 * skew * skew / 36.0,
            skew / 6.0,
            kurtosis / 24.0 - skew * skew / 18.0,
        ]
    )


def _coefficient_slopes(skew: float) -> Floats:
    """Derivatives of the coefficients in S and K, shape (2, 4)."""
    return np.array([[-1.0 / 6.0, 5.0 * skew / 18.0, 1.0 / 6.0, -skew / 9.0], [0.0, -0.125, 0.0, 1.0 / 24.0]])


def cornish_fisher_valid(skew: float, kurtosis: float) -> bool:
    """Whether the expansion is a quantile function: increasing in z everywhere.

    Maillard 2012, "A user's guide to the Cornish Fisher expansion", section 3: the derivative is a quadratic without
    real roots, S^2 / 9 - 4 (K / 8 - S^2 / 6) (1 - K / 8 + 5 S^2 / 36) <= 0.

    Parameters
    ----------
    skew, kurtosis : float
        Parameters S and K of the expansion; K is the excess over 3.
    """
    _, linear, square, cube = _coefficients(skew, kurtosis)
    return bool(linear >= 0.0 and cube >= 0.0 and square * square <= 3.0 * linear * cube)


_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(8)
_NODE_WEIGHTS = _NODE_WEIGHTS / _NODE_WEIGHTS.sum()
_POWERS = _NODES[:, None] ** np.arange(4)


def _actual(skew: float, kurtosis: float) -> tuple[Floats, Floats]:
    """Variance, skewness and excess kurtosis of w(Z), Z normal, and their Jacobian in the parameters, shape (3, 2).

    Moments of a cubic up to the fourth power are polynomials of degree 12: eight Gauss-Hermite nodes are exact.
    """
    w = _POWERS @ _coefficients(skew, kurtosis)
    slopes = _POWERS @ _coefficient_slopes(skew).T
    m2, m3, m4 = (float(_NODE_WEIGHTS @ w**k) for k in (2, 3, 4))
    d2, d3, d4 = (k * ((_NODE_WEIGHTS * w ** (k - 1)) @ slopes) for k in (2, 3, 4))
    values = np.array([m2, m3 / m2**1.5, m4 / m2**2 - 3.0])
    jacobian = np.stack((d2, d3 / m2**1.5 - 1.5 * m3 / m2**2.5 * d2, d4 / m2**2 - 2.0 * m4 / m2**3 * d2))
    return values, jacobian


def _match(skew: float, kurtosis: float) -> tuple[float, float]:
    """Parameters whose expansion has the given actual skewness and excess kurtosis; NaN when there are none."""
    point = np.zeros(2)
    for share in (1.0,) if abs(skew) < 0.5 and abs(kurtosis) < 2.0 else np.linspace(0.05, 1.0, 20):
        goal = share * np.array([skew, kurtosis])
        for _ in range(50):
            values, jacobian = _actual(float(point[0]), float(point[1]))
            miss = values[1:] - goal
            if float(np.abs(miss).max()) < 1e-14:
                break
            if abs(np.linalg.det(jacobian[1:])) < 1e-12:
                return math.nan, math.nan
            step = np.linalg.solve(jacobian[1:], miss)
            point = point - step
            if not np.isfinite(point).all() or float(np.abs(point).max()) > 100.0:
                return math.nan, math.nan
        else:
            if float(np.abs(miss).max()) > 1e-9:
                return math.nan, math.nan
    return float(point[0]), float(point[1])


class _Expansion:
    """VaR and ES from mean, deviation, skewness and excess kurtosis of a result, with derivatives in these four."""

    def __init__(self, level: float, matched: bool) -> None:
        self.matched = matched
        tail = 1.0 - level
        z = NormalDist().inv_cdf(tail)
        density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
        # Powers of z at the quantile, and their mean below it.
        self.at = np.array([1.0, z, z * z, z**3])
        self.below = np.array([1.0, -density / tail, 1.0 - z * density / tail, -(z * z + 2.0) * density / tail])

    def parameters(self, skew: float, kurtosis: float) -> tuple[float, float]:
        return _match(skew, kurtosis) if self.matched else (skew, kurtosis)

    def risk(self, mean: float, sigma: float, skew: float, kurtosis: float) -> tuple[float, float]:
        s, k = self.parameters(skew, kurtosis)
        if self.matched and math.isfinite(s):
            sigma = sigma / math.sqrt(float(_actual(s, k)[0][0]))
        coefficients = _coefficients(s, k)
        return -mean - sigma * float(self.at @ coefficients), -mean - sigma * float(self.below @ coefficients)

    def gradient(self, sigma: float, skew: float, kurtosis: float) -> tuple[Floats, Floats]:
        """Derivatives of VaR and ES in (mean, sigma, skewness, excess kurtosis)."""
        s, k = self.parameters(skew, kurtosis)
        coefficients, slopes = _coefficients(s, k), _coefficient_slopes(s)
        out = []
        for powers in (self.at, self.below):
            value, by_parameter = float(powers @ coefficients), slopes @ powers
            size = 1.0
            if self.matched:
                values, jacobian = _actual(s, k)
                size = 1.0 / math.sqrt(float(values[0]))
                by_size = by_parameter * size - 0.5 * value * size**3 * jacobian[0]
                by_parameter = np.linalg.solve(jacobian[1:].T, by_size)
            out.append(np.concatenate(([-1.0, -value * size], -sigma * by_parameter)))
        return out[0], out[1]


def _demand_valid(expansion: _Expansion, skew: float, kurtosis: float, outside: str) -> bool:
    if outside not in ("refuse", "report"):
        raise ConfigurationError(f"`outside` must be refuse or report, was {outside!r}")
    s, k = expansion.parameters(skew, kurtosis)
    valid = math.isfinite(s) and cornish_fisher_valid(s, k)
    if not valid and (outside == "refuse" or not math.isfinite(s)):
        hint = '; `outside` = "report" computes it all the same' if math.isfinite(s) else ""
        hint = hint if expansion.matched else "; `matched` = True covers more" + hint
        raise DataConversionError(
            "skewness and excess kurtosis must lie in the Cornish-Fisher domain (Maillard 2012), where quantiles "
            f"increase; they are {skew:.4g} and {kurtosis:.4g}{hint}"
        )
    return valid


class CornishFisherRisk:
    """Risk from the first four moments of scenario results.

    Zangari 1996 for VaR; ES is the mean of the expansion beyond its quantile, in closed form (Maillard 2012, section 6;
    Boudt, Peterson and Croux 2008 for the gradient). Over h independent steps mean and variance grow with h, skewness
    falls with its root and excess kurtosis with h.

    Parameters
    ----------
    unit : ndarray, shape (N, S)
        Result of one unit of each instrument per observation.
    level : float
        Confidence.
    steps : float
        Horizon h.
    zero_mean : bool
        Leave the mean out of the result.
    matched : bool
        False: sample skewness and kurtosis are the parameters, as usually done. True: parameters are solved so that the
        expansion *has* these moments (Maillard 2012, section 4), which also widens the domain.
    """

    def __init__(self, unit: Floats, level: float, steps: float, zero_mean: bool, matched: bool) -> None:
        self.unit = unit
        self.steps = steps
        self.zero_mean = zero_mean
        self.expansion = _Expansion(level, matched)

    def moments(self, quantities: Floats) -> tuple[float, float, float, float]:
        """Mean, deviation, skewness and excess kurtosis over the horizon."""
        pnl = quantities @ self.unit
        mean = float(pnl.mean())
        centred = pnl - mean
        m2, m3, m4 = (float((centred**k).mean()) for k in (2, 3, 4))
        drift = 0.0 if self.zero_mean else self.steps * mean
        if m2 <= (1e-12 * float(np.abs(pnl).max(initial=0.0))) ** 2:
            return drift, 0.0, 0.0, 0.0
        return (
            drift,
            math.sqrt(self.steps * m2),
            m3 / m2**1.5 / math.sqrt(self.steps),
            (m4 / m2**2 - 3.0) / self.steps,
        )

    def check(self, quantities: Floats, outside: str) -> bool:
        """Whether the moments lie in the domain; with ``outside`` = "refuse" an error when they do not."""
        return _demand_valid(self.expansion, *self.moments(quantities)[2:], outside)

    def risk(self, quantities: Floats) -> tuple[float, float]:
        """VaR and ES."""
        return self.expansion.risk(*self.moments(quantities))

    def gradient(self, quantities: Floats) -> tuple[Floats, Floats]:
        """Derivatives by the chain rule through the moments."""
        _, sigma, skew, kurtosis = self.moments(quantities)
        pnl = quantities @ self.unit
        centred = pnl - pnl.mean()
        each = self.unit - self.unit.mean(axis=1, keepdims=True)
        count, h = pnl.size, self.steps
        by_mean = np.zeros(each.shape[0]) if self.zero_mean else h * self.unit.mean(axis=1)
        if sigma == 0.0:
            return -by_mean, -by_mean
        m2, m3, m4 = (float((centred**k).mean()) for k in (2, 3, 4))
        d2, d3, d4 = (k * (each @ centred ** (k - 1)) / count for k in (2, 3, 4))
        # d m3: the mean of centred^2 does not vanish but each row is centred, so no further term appears.
        by_sigma = math.sqrt(h) * 0.5 * d2 / math.sqrt(m2)
        by_skew = (d3 / m2**1.5 - 1.5 * m3 / m2**2.5 * d2) / math.sqrt(h)
        by_kurtosis = (d4 / m2**2 - 2.0 * m4 / m2**3 * d2) / h
        table = np.stack((by_mean, by_sigma, by_skew, by_kurtosis))
        var, es = self.expansion.gradient(sigma, skew, kurtosis)
        return var @ table, es @ table


# -- quadratic form ---------------------------------------------------------------------------------------------------


class QuadraticRisk:
    """Delta-gamma: results a r + b r^2 per unit with r normal, by the cumulants of the quadratic form.

    With D = diag(2 b q), d = a q and A = D Sigma (Glasserman 2003, section 9.1.2; Mina and Ulmer 1999)::

        k1 = tr(A) / 2                     k3 = tr(A^3) + 3 d' Sigma A d
        k2 = tr(A^2) / 2 + d' Sigma d      k4 = 3 tr(A^4) + 12 d' Sigma A^2 d

    VaR and ES follow by Cornish-Fisher. Not homogeneous in an underlying's move, but linear in the quantities.

    Parameters
    ----------
    first, second : ndarray, shape (N,)
        a and b per unit (:func:`tengri_fast.risk.greeks.quadratic_terms`).
    covariance : ndarray, shape (N, N)
        Of the returns over the whole horizon.
    level : float
        Confidence.
    matched : bool
        As in :class:`CornishFisherRisk`.
    """

    def __init__(self, first: Floats, second: Floats, covariance: Floats, level: float, matched: bool) -> None:
        self.first = first
        self.second = second
        self.covariance = covariance
        self.expansion = _Expansion(level, matched)

    def cumulants(self, quantities: Floats) -> Floats:
        """First four cumulants of the result, shape (4,)."""
        d, sigma = quantities * self.first, self.covariance
        a = (2.0 * quantities * self.second)[:, None] * sigma
        square = a @ a
        along = sigma @ d
        return np.array(
            [
                0.5 * np.trace(a),
                0.5 * np.trace(square) + d @ along,
                np.trace(square @ a) + 3.0 * along @ (2.0 * quantities * self.second * along),
                3.0 * np.trace(square @ square) + 12.0 * along @ (a @ (2.0 * quantities * self.second * along)),
            ]
        )

    def moments(self, quantities: Floats) -> tuple[float, float, float, float]:
        """Mean, deviation, skewness and excess kurtosis."""
        k1, k2, k3, k4 = (float(x) for x in self.cumulants(quantities))
        if k2 <= 0.0:
            return k1, 0.0, 0.0, 0.0
        return k1, math.sqrt(k2), k3 / k2**1.5, k4 / k2**2

    def check(self, quantities: Floats, outside: str) -> bool:
        """As :meth:`CornishFisherRisk.check`."""
        return _demand_valid(self.expansion, *self.moments(quantities)[2:], outside)

    def risk(self, quantities: Floats) -> tuple[float, float]:
        """VaR and ES."""
        return self.expansion.risk(*self.moments(quantities))

    def gradient(self, quantities: Floats) -> tuple[Floats, Floats]:
        """Derivatives by the chain rule through the cumulants."""
        sigma = self.covariance
        curve = 2.0 * quantities * self.second
        turn = 2.0 * self.second  # derivative of the curvature, instrument by instrument
        d = quantities * self.first
        along = sigma @ d
        once = sigma @ (curve * along)
        twice = sigma @ (curve * once)
        # Diagonals of Sigma (D Sigma)^n, n = 1, 2, 3.
        one = sigma @ (curve[:, None] * sigma)
        two = one @ (curve[:, None] * sigma)
        three = two @ (curve[:, None] * sigma)
        by_k1 = 0.5 * turn * np.diag(sigma)
        by_k2 = turn * np.diag(one) + 2.0 * self.first * along
        by_k3 = 3.0 * turn * np.diag(two) + 6.0 * self.first * once + 3.0 * turn * along * along
        by_k4 = 12.0 * turn * np.diag(three) + 24.0 * self.first * twice + 24.0 * turn * along * once
        _, k2, k3, k4 = (float(x) for x in self.cumulants(quantities))
        if k2 <= 0.0:
            return -by_k1, -by_k1
        root = math.sqrt(k2)
        table = np.stack(
            (
                by_k1,
                0.5 * by_k2 / root,
                by_k3 / k2**1.5 - 1.5 * k3 / k2**2.5 * by_k2,
                by_k4 / k2**2 - 2.0 * k4 / k2**3 * by_k2,
            )
        )
        var, es = self.expansion.gradient(root, k3 / k2**1.5, k4 / k2**2)
        return var @ table, es @ table


# -- extreme-value tail -----------------------------------------------------------------------------------------------


class TailRisk:
    """Risk from a generalised Pareto tail, refitted for every portfolio (:mod:`tengri_fast.risk.extreme`).

    Parameters
    ----------
    unit : ndarray, shape (N, S)
        Result of one unit of each instrument per observation.
    level : float
        Confidence.
    exceeding : int
        Number k of losses in the tail; the threshold is the (k + 1)-th largest loss.
    scale : float
        Factor on the results (square root of time).
    """

    def __init__(self, unit: Floats, level: float, exceeding: int, scale: float) -> None:
        self.unit = unit
        self.level = level
        self.exceeding = exceeding
        self.scale = scale

    def fit(self, quantities: Floats) -> tuple[GparetoFit, npt.NDArray[np.int64], int, float]:
        """The fitted tail, the scenarios beyond the threshold, the threshold's own scenario and its loss."""
        losses = -(quantities @ self.unit)
        order = np.argsort(-losses, kind="stable")
        at = int(order[self.exceeding])
        beyond = order[: self.exceeding]
        # Ties with the threshold do not exceed it.
        beyond = beyond[losses[beyond] > losses[at]]
        if beyond.size < 10:
            raise DataConversionError(
                f"`pnl` must have at least 10 losses beyond the threshold {losses[at] + 0.0:g}, had {beyond.size} of "
                f"{losses.size}; a larger `tail_share` takes more"
            )
        return fit_excesses(losses[beyond] - losses[at]), beyond, at, float(losses[at])

    def risk(self, quantities: Floats) -> tuple[float, float]:
        """VaR and ES."""
        fitted, beyond, _, threshold = self.fit(quantities)
        var, es = tail_estimates(threshold, fitted.xi, fitted.beta, self.unit.shape[1], beyond.size, self.level)
        return self.scale * var, self.scale * es

    def gradient(self, quantities: Floats) -> tuple[Floats, Floats]:
        """Derivatives by the implicit function theorem: how the optimum moves when the excesses do."""
        fitted, beyond, at, threshold = self.fit(quantities)
        if not fitted.regular:
            raise DataConversionError(
                "the extreme-value tail must have a regular maximum to be attributed; xi stopped at -1/2"
            )
        xi, beta = fitted.xi, fitted.beta
        losses = -(quantities @ self.unit)
        y = losses[beyond] - threshold
        moves = -(self.unit[:, beyond] - self.unit[:, [at]])
        base = beta + xi * y
        mixed = np.stack(((y - beta) / base**2, (1.0 + xi) / base**2))
        _, hessian = likelihood_score(y, xi, beta)
        parameters = -np.linalg.solve(hessian, mixed @ moves.T)
        table = np.vstack((-self.unit[:, at], parameters))
        var, es = tail_estimates_gradient(threshold, xi, beta, losses.size, beyond.size, self.level)
        return self.scale * (var @ table), self.scale * (es @ table)
