"""GARCH(1,1) and GJR by Gaussian quasi-maximum likelihood, without SciPy.

The model (Bollerslev 1986; Glosten, Jagannathan and Runkle 1993)::

    r[t] = mean + e[t],   Var(e[t] | past) = h[t]
    h[t] = omega + (alpha + gamma [e[t-1] < 0]) e[t-1]^2 + beta h[t-1]

Quasi-maximum likelihood is consistent when e / sqrt(h) is not Gaussian, as long as h is right (Bollerslev and
Wooldridge 1992). The search is BFGS on a parametrisation that cannot leave the region omega > 0, alpha >= 0, alpha +
gamma >= 0, beta >= 0, persistence < 1: shares (alpha / 2, (alpha + gamma) / 2, beta, rest) that add up to one, and the
long-run variance omega / rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError

__all__ = ["Garch", "filter_variance", "fit_degrees_of_freedom", "fit_garch", "warmup"]

Floats = npt.NDArray[np.float64]

# Starting points (alpha + gamma / 2, beta, gamma / alpha): persistent, reactive, almost integrated.
_STARTS = ((0.05, 0.92, 1.0), (0.12, 0.80, 1.0), (0.03, 0.965, 0.5))
_MAXIMUM_STEPS = 400
_BACKCAST_DAYS, _BACKCAST_DECAY = 75, 0.94


@dataclass(frozen=True)
class Garch:
    """Parameters of a GARCH(1,1) or, with ``gamma``, a GJR model.

    Parameters
    ----------
    omega, alpha, beta, gamma : float
        As in the module's equation; the variance is per period, of returns as fractions.
    mean : float
        Conditional mean of the returns.
    start : float
        Variance that stands for e^2 and h before the first return; NaN: computed from the returns that are filtered.
    log_likelihood : float
        Gaussian, of the fit; NaN when not fitted.
    observations : int
        Returns that the fit saw; 0 when not fitted.

    Raises
    ------
    ConfigurationError
        When a parameter is not finite, ``omega`` <= 0, or a coefficient of the recursion is negative.
    """

    omega: float
    alpha: float
    beta: float
    gamma: float = 0.0
    mean: float = 0.0
    start: float = math.nan
    log_likelihood: float = math.nan
    observations: int = 0

    def __post_init__(self) -> None:
        for name in ("omega", "alpha", "beta", "gamma", "mean"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigurationError(f"`{name}` must be finite, was {getattr(self, name)!r}")
        if self.omega <= 0.0:
            raise ConfigurationError(f"`omega` must be > 0, was {self.omega!r}")
        for name, value in (("alpha", self.alpha), ("beta", self.beta), ("alpha + gamma", self.alpha + self.gamma)):
            if value < 0.0:
                raise ConfigurationError(f"`{name}` must be >= 0, was {value!r}")
        if not (math.isnan(self.start) or 0.0 < self.start < math.inf):
            raise ConfigurationError(f"`start` must be finite and > 0, or NaN, was {self.start!r}")

    @property
    def persistence(self) -> float:
        """alpha + gamma / 2 + beta: what is left of a shock after one period, for symmetric innovations."""
        return self.alpha + 0.5 * self.gamma + self.beta

    @property
    def long_run_variance(self) -> float:
        """omega / (1 - persistence), or infinity when the persistence reaches one."""
        rest = 1.0 - self.persistence
        return self.omega / rest if rest > 0.0 else math.inf

    def forecast(self, next_variance: float, horizon: int) -> Floats:
        """Expected variance of each of the next periods.

        Parameters
        ----------
        next_variance : float
            Variance of the next period, the last entry of :func:`filter_variance`.
        horizon : int
            Number of periods, >= 1.

        Returns
        -------
        ndarray, shape (horizon,)
            The variance of the sum over the horizon is the sum.
        """
        if horizon < 1:
            raise ConfigurationError(f"`horizon` must be >= 1, was {horizon}")
        path = np.empty(horizon)
        h = float(next_variance)
        for k in range(horizon):
            path[k] = h
            h = self.omega + self.persistence * h
        return path


def _series(name: str, given: npt.ArrayLike, minimum: int) -> Floats:
    values = np.ascontiguousarray(given, dtype=np.float64)
    if values.ndim != 1:
        raise DataConversionError(f"`{name}` must have one dimension, had shape {values.shape}")
    if len(values) < minimum:
        raise DataConversionError(f"`{name}` must have at least {minimum} entries, had {len(values)}")
    good = np.isfinite(values)
    if not good.all():
        at = int(np.argmin(good))
        raise DataConversionError(f"`{name}` must be finite, was {values[at]} at {at}")
    return values


def _backcast(errors: Floats) -> float:
    """Exponentially weighted mean square of the first errors, oldest most: the variance before the data."""
    days = min(_BACKCAST_DAYS, len(errors))
    weights = _BACKCAST_DECAY ** np.arange(days)
    return float(weights @ errors[:days] ** 2 / weights.sum())


def filter_variance(returns: npt.ArrayLike, params: Garch) -> Floats:
    """Conditional variances of a return series under given parameters.

    Parameters
    ----------
    returns : array_like, shape (T,)
        Finite, oldest first; T = 0 gives the variance before any data and needs ``params.start``.
    params : Garch

    Returns
    -------
    ndarray, shape (T + 1,)
        Entry t is Var(r[t] | r[0..t-1]); the last is the forecast for the period after the data.

    Raises
    ------
    DataConversionError
        When a return is not finite.
    """
    from tengri_fast.risk import garch_kernels

    values = _series("returns", returns, 0)
    start = params.start
    if math.isnan(start):
        if len(values) == 0:
            raise DataConversionError("`returns` must have at least 1 entry without a start variance, had 0")
        start = _backcast(values - params.mean)
    out = np.empty(len(values) + 1)
    garch_kernels.variances(values, params.mean, params.omega, params.alpha, params.gamma, params.beta, start, out)
    return out


def _bfgs(function: Callable[[Floats], tuple[float, Floats]], start: Floats) -> tuple[Floats, float]:
    """Minimum near ``start`` by BFGS with a backtracking line search (Nocedal and Wright 2006, algorithm 6.1).

    Steps are at most 2 long, since a coordinate is a logarithm: a flat direction may not run away in one step.
    """
    x = start.copy()
    value, slope = function(x)
    inverse = np.eye(len(x))
    for step in range(_MAXIMUM_STEPS):
        if np.abs(slope).max() < 1e-9:
            break
        direction = -inverse @ slope
        if direction @ slope >= 0.0:
            inverse = np.eye(len(x))
            direction = -slope
        direction *= min(1.0, 2.0 / float(np.sqrt(direction @ direction)))
        length, descent = 1.0, float(direction @ slope)
        while True:
            candidate = x + length * direction
            new_value, new_slope = function(candidate)
            if new_value <= value + 1e-4 * length * descent:
                break
            length *= 0.5
            if length < 1e-12:
                return x, value
        move, change = candidate - x, new_slope - slope
        gain = value - new_value
        x, value, slope = candidate, new_value, new_slope
        curvature = float(move @ change)
        if curvature > 1e-14:
            if step == 0:
                inverse *= curvature / float(change @ change)
            left = np.eye(len(x)) - np.outer(move, change) / curvature
            inverse = left @ inverse @ left.T + np.outer(move, move) / curvature
        if gain < 1e-14 * (1.0 + abs(value)) and np.abs(slope).max() < 1e-7:
            break
    return x, value


def fit_garch(
    returns: npt.ArrayLike,
    *,
    leverage: bool = False,
    mean: Literal["constant", "zero"] = "constant",
    minimum: int = 100,
) -> Garch:
    """Fit a GARCH(1,1), or with ``leverage`` a GJR model, by Gaussian quasi-maximum likelihood.

    Parameters
    ----------
    returns : array_like, shape (T,)
        Finite, oldest first, not constant.
    leverage : bool
        Estimate gamma as well.
    mean : "constant" or "zero"
        Estimated with the rest, or 0.
    minimum : int
        Fewest returns that are accepted.

    Returns
    -------
    Garch
        Best of the searches from three fixed starting points, so the same data give the same parameters.

    Raises
    ------
    DataConversionError
        When the returns are too few, not finite, or have no variance.
    ConfigurationError
        When ``mean`` is neither.
    """
    from tengri_fast.risk import garch_kernels

    if mean not in ("constant", "zero"):
        raise ConfigurationError(f"`mean` must be constant or zero, was {mean!r}")
    values = _series("returns", returns, max(minimum, 10))
    centre = float(values.mean()) if mean == "constant" else 0.0
    unit = float(np.sqrt(np.mean((values - centre) ** 2)))
    # A rounding error of a constant series is not a variance.
    if not unit > 1e-12 * float(np.abs(values).max(initial=0.0)) or unit < 1e-150:
        raise DataConversionError(f"`returns` must vary, all {len(values)} are {values[0]}")
    scaled = values / unit
    start = _backcast(scaled - centre / unit)
    if start == 0.0:
        start = 1.0  # a flat beginning says nothing about the variance: the sample's own stands for it
    free_mean = mean == "constant"
    shares = 4 if leverage else 3
    raw = np.empty(5)

    def unpack(x: Floats) -> tuple[float, float, float, float, float, Floats]:
        exponent = np.append(x[2:], 0.0)
        share = np.exp(exponent - exponent.max())
        share /= share.sum()
        long_run = math.exp(min(max(x[1], -60.0), 60.0))
        if leverage:
            alpha, gamma, beta = 2.0 * share[0], 2.0 * (share[1] - share[0]), share[2]
        else:
            alpha, gamma, beta = share[0], 0.0, share[1]
        return x[0] if free_mean else 0.0, long_run * share[-1], alpha, gamma, beta, share

    def objective(x: Floats) -> tuple[float, Floats]:
        mu, omega, alpha, gamma, beta, share = unpack(x)
        value = garch_kernels.likelihood(scaled, mu, omega, alpha, gamma, beta, start, raw)
        if not math.isfinite(value):
            return math.inf, np.zeros(len(x))
        slope = np.empty(len(x))
        slope[0] = raw[0] if free_mean else 0.0
        slope[1] = raw[1] * omega
        # With respect to the shares, then through the softmax.
        by_share = np.empty(shares)
        if leverage:
            by_share[:3] = 2.0 * (raw[2] - raw[3]), 2.0 * raw[3], raw[4]
        else:
            by_share[:2] = raw[2], raw[4]
        by_share[-1] = raw[1] * omega / share[-1]
        slope[2:] = (share * (by_share - share @ by_share))[:-1]
        return -value, -slope

    best, best_value = None, math.inf
    for reaction, beta, tilt in _STARTS:
        rest = 1.0 - reaction - beta
        if leverage:
            # alpha + gamma / 2 = reaction and gamma = tilt * alpha
            alpha = reaction / (1.0 + 0.5 * tilt)
            first = [0.5 * alpha, 0.5 * alpha * (1.0 + tilt), beta]
        else:
            first = [reaction, beta]
        begin = np.concatenate([[centre / unit if free_mean else 0.0, 0.0], np.log(np.array(first) / rest)])
        found, value = _bfgs(objective, begin)
        if value < best_value - 1e-12:
            best, best_value = found, value
    if best is None:
        raise DataConversionError(f"`returns` must give a finite likelihood, did not (largest {np.abs(values).max()})")
    mu, omega, alpha, gamma, beta, _ = unpack(best)
    return Garch(
        omega=float(omega) * unit**2,
        alpha=float(alpha),
        beta=float(beta),
        gamma=float(gamma),
        mean=float(mu) * unit,
        start=start * unit**2,
        log_likelihood=-best_value * len(values) - len(values) * math.log(unit),
        observations=len(values),
    )


def fit_degrees_of_freedom(standardised: npt.ArrayLike) -> float:
    """Degrees of freedom of a Student t with unit variance, by maximum likelihood.

    Parameters
    ----------
    standardised : array_like, shape (T,)
        Returns divided by their conditional sigma.

    Returns
    -------
    float
        Within (2.1, 200), found to about 0.1 % by golden section over 1 / nu; infinity when the Gaussian is at least as
        likely as any of them.

    Raises
    ------
    DataConversionError
        When there are fewer than 10 values or one is not finite.
    """
    squares = _series("standardised", standardised, 10) ** 2

    def loss(inverse: float) -> float:
        nu = 1.0 / inverse
        constant = math.lgamma(0.5 * (nu + 1.0)) - math.lgamma(0.5 * nu) - 0.5 * math.log(math.pi * (nu - 2.0))
        return float(0.5 * (nu + 1.0) * np.log1p(squares / (nu - 2.0)).mean() - constant)

    low, high = 1.0 / 200.0, 1.0 / 2.1
    golden = 0.5 * (math.sqrt(5.0) - 1.0)
    a, b = high - golden * (high - low), low + golden * (high - low)
    fa, fb = loss(a), loss(b)
    while high - low > 1e-5:
        if fa < fb:
            high, b, fb = b, a, fa
            a = high - golden * (high - low)
            fa = loss(a)
        else:
            low, a, fa = a, b, fb
            b = low + golden * (high - low)
            fb = loss(b)
    inverse = 0.5 * (low + high)
    gaussian = 0.5 * float(math.log(2.0 * math.pi) + squares.mean())
    return 1.0 / inverse if loss(inverse) < gaussian else math.inf


def warmup() -> None:
    """Compile the kernels or load them from numba's cache."""
    from tengri_fast.risk import garch_kernels

    garch_kernels.warmup()
