"""Conditional volatility, one return at a time: the protocol, the classical models, and what is done with a forecast.

:class:`NeuralRiskModel` is what the engine asks of a volatility model; the recurrent network that ships
(:mod:`tengri_fast.risk.neural_volatility`), EWMA, HAR and GARCH all answer to it and can be exchanged. A forecast
scales a covariance (:func:`scale_covariance`), rescales history to today's volatility (:func:`filtered_scenarios`),
and with a correlation makes a :class:`VolatilityState` from which scenarios are drawn.

Every model takes the return of a period as a fraction and answers with the standard deviation of the next ``horizon``
periods together. A zero return is information, a missing one is not: do not call :meth:`~NeuralRiskModel.update` for
it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.forecast_losses import mse, mse_losses, qlike, qlike_losses
from tengri_fast.risk.garch import Garch

__all__ = [
    "SMALLEST_SIGMA",
    "EwmaVolatility",
    "GarchVolatility",
    "HarVolatility",
    "NeuralRiskModel",
    "VolatilityState",
    "filtered_scenarios",
    "fit_har",
    "mse",
    "mse_losses",
    "qlike",
    "qlike_losses",
    "range_variance",
    "scale_covariance",
    "volatility_state",
]

Floats = npt.NDArray[np.float64]

#: No forecast is below this sigma per period, so that a flat price divides nothing by zero.
SMALLEST_SIGMA = 1e-8
_SMALLEST_VARIANCE = SMALLEST_SIGMA**2
_MAGIC = b"TVOL"
_VERSION = 1


@runtime_checkable
class NeuralRiskModel(Protocol):
    """A forecaster of the volatility of one instrument.

    ``name`` stands in reports, ``horizon`` counts the periods that one forecast covers, ``ready`` says whether enough
    returns were seen. The same updates give the same bits, and a restored state continues with the same bits.
    """

    name: str
    horizon: int

    @property
    def ready(self) -> bool:
        """Whether :meth:`forecast` gives a number."""
        ...

    def update(self, return_: float, realised: float = math.nan) -> None:
        """Take in the period that has just ended.

        ``return_`` is its return, a fraction, finite. ``realised`` is a measurement of its variance from inside the
        period, >= 0, where there is one (:func:`range_variance`, or a sum of squared intraday returns); NaN: none.
        A value that breaks its rule raises DataConversionError and changes nothing.
        """
        ...

    def forecast(self) -> float:
        """Sigma of the sum of the next ``horizon`` returns; NaN until ``ready``, at least :data:`SMALLEST_SIGMA`."""
        ...

    def reset(self) -> None:
        """Forget every return."""
        ...

    def to_bytes(self) -> bytes:
        """The exact state; parameters are not part of it."""
        ...

    def from_bytes(self, data: bytes) -> None:
        """Restore a state of a model with the same name and parameters, or raise DataConversionError."""
        ...


def check_observation(return_: float, realised: float) -> None:
    """The rule of :meth:`NeuralRiskModel.update`.

    Raises
    ------
    DataConversionError
        When the return is not finite, or the measured variance is negative or infinite.
    """
    if not math.isfinite(return_):
        raise DataConversionError(f"`return_` must be finite, was {return_!r}")
    if realised < 0.0 or realised == math.inf:
        raise DataConversionError(f"`realised` must be finite and >= 0, or NaN for none, was {realised!r}")


def pack_state(name: str, values: Sequence[float]) -> bytes:
    """A named vector of doubles as bytes, little-endian."""
    title = name.encode()
    return struct.pack(f"<4sHHI{len(title)}s{len(values)}d", _MAGIC, _VERSION, len(title), len(values), title, *values)


def unpack_state(name: str, count: int, data: bytes) -> tuple[float, ...]:
    """What :func:`pack_state` wrote, or DataConversionError when it is of another model, damaged, or not finite."""
    title = name.encode()
    form = f"<4sHHI{len(title)}s{count}d"
    if len(data) != struct.calcsize(form):
        raise DataConversionError(f"`data` must have {struct.calcsize(form)} bytes for {name!r}, had {len(data)}")
    magic, version, _, stored, found, *values = struct.unpack(form, data)
    if (magic, version, stored, found) != (_MAGIC, _VERSION, count, title):
        raise DataConversionError(f"`data` must be a state of {name!r}, was of {found!r}")
    if not all(map(math.isfinite, values)):
        raise DataConversionError(f"`data` must hold finite numbers, was {values}")
    return tuple(values)


def _positive_horizon(horizon: int) -> int:
    if isinstance(horizon, bool) or int(horizon) != horizon or horizon < 1:
        raise ConfigurationError(f"`horizon` must be an integer >= 1, was {horizon!r}")
    return int(horizon)


class EwmaVolatility:
    """Exponentially weighted mean square, h <- decay h + (1 - decay) r^2 (RiskMetrics 1996, equation 5.3).

    The first 1 / (1 - decay) returns are averaged with equal weights, so the start needs no guess.

    Parameters
    ----------
    decay : float
        Within 0 and 1; 0.94 is RiskMetrics' for daily returns.
    horizon : int
        Variances of the periods ahead are equal, so sigma grows with the square root.
    warmup : int
        Returns before the model is ready.
    """

    def __init__(self, decay: float = 0.94, horizon: int = 1, warmup: int = 22) -> None:
        if not 0.0 < decay < 1.0:
            raise ConfigurationError(f"`decay` must be within 0 and 1, was {decay!r}")
        if warmup < 1:
            raise ConfigurationError(f"`warmup` must be >= 1, was {warmup}")
        self.name = f"ewma({decay:g})"
        self.horizon = _positive_horizon(horizon)
        self._decay = decay
        self._warmup = warmup
        self.reset()

    @property
    def ready(self) -> bool:
        """Whether ``warmup`` returns were seen."""
        return self._seen >= self._warmup

    def update(self, return_: float, realised: float = math.nan) -> None:
        """Take in a return; ``realised`` is not used."""
        check_observation(return_, realised)
        self._seen += 1
        weight = max(1.0 - self._decay, 1.0 / self._seen)
        self._variance += weight * (return_ * return_ - self._variance)

    def forecast(self) -> float:
        """Sigma over the horizon; NaN until ready."""
        if not self.ready:
            return math.nan
        return math.sqrt(max(self._variance, _SMALLEST_VARIANCE) * self.horizon)

    def reset(self) -> None:
        """Forget every return."""
        self._seen = 0
        self._variance = 0.0

    def to_bytes(self) -> bytes:
        """The exact state."""
        return pack_state(self.name, (float(self._seen), self._variance))

    def from_bytes(self, data: bytes) -> None:
        """Restore a state of the same decay."""
        seen, variance = unpack_state(self.name, 2, data)
        self._seen, self._variance = int(seen), variance


class GarchVolatility:
    """A fitted GARCH(1,1) or GJR model, one return at a time, with the bits of its filter.

    Parameters
    ----------
    params : Garch
        With ``start``; without, the long-run variance stands before the first return.
    horizon : int
        The variances of the periods ahead revert to the long-run level and are added.
    """

    def __init__(self, params: Garch, horizon: int = 1) -> None:
        self.params = params
        self.name = "gjr" if params.gamma != 0.0 else "garch"
        self.horizon = _positive_horizon(horizon)
        start = params.long_run_variance if math.isnan(params.start) else params.start
        if not math.isfinite(start):
            raise ConfigurationError("`params.start` must be given when the persistence reaches 1, was NaN")
        self._variance = 0.0
        self._first = params.omega + (params.alpha + 0.5 * params.gamma + params.beta) * start
        self.reset()

    @property
    def ready(self) -> bool:
        """Always: the fit has seen data."""
        return True

    def update(self, return_: float, realised: float = math.nan) -> None:
        """Take in a return; ``realised`` is not used."""
        check_observation(return_, realised)
        p = self.params
        error = return_ - p.mean
        slope = p.alpha + p.gamma if error < 0.0 else p.alpha
        self._variance = p.omega + slope * error * error + p.beta * self._variance

    def forecast(self) -> float:
        """Sigma over the horizon."""
        variance = self._variance
        if self.horizon > 1:
            variance = float(self.params.forecast(variance, self.horizon).sum())
        return math.sqrt(max(variance, _SMALLEST_VARIANCE * self.horizon))

    def reset(self) -> None:
        """Go back to the variance before the first return."""
        self._variance = self._first

    def to_bytes(self) -> bytes:
        """The exact state."""
        return pack_state(self.name, (self._variance,))

    def from_bytes(self, data: bytes) -> None:
        """Restore a state."""
        (self._variance,) = unpack_state(self.name, 1, data)


class HarVolatility:
    """Heterogeneous autoregression: next variance from means over 1, 5 and 22 periods (Corsi 2009, equation 8).

    Parameters
    ----------
    coefficients : sequence of 4 floats
        Intercept, 1, 5 and 22 periods, from :func:`fit_har` with the same ``horizon``.
    low, high : float
        Range of the forecast variance per period; a linear regression may leave it (the insanity filter of Swanson and
        White 1997). From :func:`fit_har` too.
    horizon : int
        Periods that one forecast covers.

    Notes
    -----
    The measurement of a period is ``realised`` where it is given and the squared return otherwise. A fit on one and
    updates with the other do not belong together.
    """

    def __init__(self, coefficients: Sequence[float], low: float, high: float, horizon: int = 1) -> None:
        if len(coefficients) != 4 or not all(math.isfinite(c) for c in coefficients):
            raise ConfigurationError(f"`coefficients` must be 4 finite numbers, was {tuple(coefficients)}")
        if not 0.0 <= low < high < math.inf:
            raise ConfigurationError(f"`low` must be >= 0 and below `high`, was {low!r} and {high!r}")
        self.name = "har"
        self.horizon = _positive_horizon(horizon)
        self.coefficients = tuple(float(c) for c in coefficients)
        self.low, self.high = float(low), float(high)
        self.reset()

    @property
    def ready(self) -> bool:
        """Whether 22 periods were seen."""
        return self._seen >= 22

    def update(self, return_: float, realised: float = math.nan) -> None:
        """Take in a return and, where there is one, the measured variance of its period."""
        check_observation(return_, realised)
        self._ring[self._seen % 22] = return_ * return_ if math.isnan(realised) else realised
        self._seen += 1

    def forecast(self) -> float:
        """Sigma over the horizon; NaN until ready."""
        if not self.ready:
            return math.nan
        last = self._seen
        ring = self._ring
        # Summed from the newest: a running sum would keep the rounding error of every large value that passed.
        total = week = 0.0
        for k in range(1, 23):
            total += ring[(last - k) % 22]
            if k == 5:
                week = total
        c = self.coefficients
        variance = c[0] + c[1] * ring[(last - 1) % 22] + c[2] * (week / 5.0) + c[3] * (total / 22.0)
        variance = min(max(variance, self.low, _SMALLEST_VARIANCE), self.high)
        return math.sqrt(variance * self.horizon)

    def reset(self) -> None:
        """Forget every period."""
        self._seen = 0
        self._ring = [0.0] * 22

    def to_bytes(self) -> bytes:
        """The exact state."""
        return pack_state(self.name, (float(self._seen), *self._ring))

    def from_bytes(self, data: bytes) -> None:
        """Restore a state."""
        seen, *ring = unpack_state(self.name, 23, data)
        self._seen, self._ring = int(seen), list(ring)


def fit_har(measured: npt.ArrayLike, horizon: int = 1) -> HarVolatility:
    """Fit the heterogeneous autoregression by least squares.

    Parameters
    ----------
    measured : array_like, shape (T,)
        Variance of each period: realised, from the range, or squared returns; finite, >= 0, T >= 60 + ``horizon``.
    horizon : int
        The regression is on the mean of the next ``horizon`` measurements.

    Returns
    -------
    HarVolatility
        Before its first update; bounded by half the smallest and twice the largest regressand seen.

    Raises
    ------
    DataConversionError
        When there are too few values, one breaks its rule, or all are the same.
    """
    values = np.asarray(measured, dtype=np.float64)
    steps = _positive_horizon(horizon)
    if values.ndim != 1 or len(values) < 60 + steps:
        raise DataConversionError(f"`measured` must have at least {60 + steps} entries, had shape {values.shape}")
    good = np.isfinite(values) & (values >= 0.0)
    if not good.all():
        at = int(np.argmin(good))
        raise DataConversionError(f"`measured` must be finite and >= 0, was {values[at]} at {at}")
    if values.max() == values.min():
        raise DataConversionError(f"`measured` must vary, all {len(values)} are {values[0]}")
    windows = np.lib.stride_tricks.sliding_window_view(values, 22)[: len(values) - 21 - steps]
    ahead = np.lib.stride_tricks.sliding_window_view(values[22:], steps).mean(axis=1)
    unit = float(values.mean())
    design = np.column_stack(
        [np.ones(len(windows)), windows[:, 21], windows[:, 17:].mean(axis=1), windows.mean(axis=1)]
    )
    design[:, 1:] /= unit
    solution = np.linalg.lstsq(design, ahead / unit, rcond=None)[0]
    solution[0] *= unit
    low = 0.5 * float(ahead.min())
    if steps == 1 and low == 0.0:
        # Squared returns can be 0; a forecast of 0 is insane all the same.
        low = 0.01 * unit
    return HarVolatility(solution.tolist(), low, 2.0 * float(ahead.max()), steps)


def range_variance(
    open_: npt.ArrayLike, high: npt.ArrayLike, low: npt.ArrayLike, close: npt.ArrayLike, previous_close: npt.ArrayLike
) -> Floats:
    """Variance of a period from its bar: squared gap at the open plus Garman and Klass (1980, equation 20).

    (log O - log C')^2 + (log H - log L)^2 / 2 - (2 log 2 - 1) (log C - log O)^2: unbiased for a driftless diffusion,
    with about a seventh of the squared return's variance inside the session.

    Parameters
    ----------
    open_, high, low, close, previous_close : array_like, shape (T,)
        Prices, finite and > 0, with low <= open, close <= high.

    Returns
    -------
    ndarray, shape (T,)
        >= 0.

    Raises
    ------
    DataConversionError
        When a bar breaks a rule.
    """
    bars = np.stack(
        np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (open_, high, low, close, previous_close)))
    )
    good = (np.isfinite(bars) & (bars > 0.0)).all(axis=0)
    o, h, lo, c, before = bars
    good &= (lo <= np.minimum(o, c)) & (np.maximum(o, c) <= h)
    if not np.all(good):
        at = int(np.argmin(good.ravel()))
        values = ", ".join(f"{x:g}" for x in bars.reshape(5, -1)[:, at])
        raise DataConversionError(
            f"a bar must have finite prices > 0 and low <= open, close <= high, bar {at} was {values} "
            "(open, high, low, close, previous close)"
        )
    inside = 0.5 * np.log(h / lo) ** 2 - (2.0 * math.log(2.0) - 1.0) * np.log(c / o) ** 2
    result: Floats = np.log(o / before) ** 2 + np.maximum(inside, 0.0)
    return result


def _sigmas(name: str, values: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    sigmas = np.asarray(values, dtype=np.float64)
    if sigmas.shape != shape:
        raise DataConversionError(f"`{name}` must have shape {shape}, had {sigmas.shape}")
    good = np.isfinite(sigmas) & (sigmas > 0.0)
    if not good.all():
        at = tuple(int(k) for k in np.argwhere(~good)[0])
        raise DataConversionError(f"`{name}` must be finite and > 0, was {sigmas[at]} at {at}")
    return sigmas


def scale_covariance(
    covariance: npt.ArrayLike, sigmas_now: npt.ArrayLike, sigmas_sample: npt.ArrayLike | None = None
) -> Floats:
    """A covariance with its correlations kept and its volatilities replaced: D C D with D = now / sample.

    Parameters
    ----------
    covariance : array_like, shape (N, N)
        Symmetric, finite.
    sigmas_now : array_like, shape (N,)
        Conditional sigmas of the same period, > 0.
    sigmas_sample : array_like, shape (N,), optional
        Sigmas that the covariance was estimated under; by default the roots of its diagonal.

    Returns
    -------
    ndarray, shape (N, N)
        Exactly symmetric; positive semi-definite when ``covariance`` is.

    Raises
    ------
    DataConversionError
        When a shape or a value breaks its rule.
    """
    matrix = np.asarray(covariance, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataConversionError(f"`covariance` must have shape (N, N), had {matrix.shape}")
    if not np.isfinite(matrix).all():
        at = tuple(int(k) for k in np.argwhere(~np.isfinite(matrix))[0])
        raise DataConversionError(f"`covariance` must be finite, was {matrix[at]} at {at}")
    if not np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12 * float(np.abs(matrix).max(initial=0.0))):
        raise DataConversionError("`covariance` must be symmetric, was not")
    n = len(matrix)
    if sigmas_sample is None:
        if not (np.diag(matrix) > 0.0).all():
            at_row = int(np.argmin(np.diag(matrix)))
            raise DataConversionError(
                f"`covariance` must have a diagonal > 0, was {matrix[at_row, at_row]} at {at_row}"
            )
        sigmas_sample = np.sqrt(np.diag(matrix))
    factor = _sigmas("sigmas_now", sigmas_now, (n,)) / _sigmas("sigmas_sample", sigmas_sample, (n,))
    scaled = matrix * np.outer(factor, factor)
    result: Floats = 0.5 * (scaled + scaled.T)
    return result


def filtered_scenarios(returns: npt.ArrayLike, sigma_path: npt.ArrayLike, sigma_now: npt.ArrayLike) -> Floats:
    """Historical returns at today's volatility, r[s] sigma_now / sigma_path[s] (Hull and White 1998, equation 3).

    Parameters
    ----------
    returns : array_like, shape (N, S)
        Simple returns of the scenarios, finite.
    sigma_path : array_like, shape (N, S)
        Forecast that was made *before* each scenario happened, > 0. A sigma that has seen its own return makes large
        losses look small.
    sigma_now : array_like, shape (N,)
        Forecast for the next period, > 0.

    Returns
    -------
    ndarray, shape (N, S)
        Never below -1: a price cannot fall below zero, however far it is rescaled.

    Raises
    ------
    DataConversionError
        When a shape or a value breaks its rule.
    """
    r = np.asarray(returns, dtype=np.float64)
    if r.ndim != 2:
        raise DataConversionError(f"`returns` must have shape (N, S), had {r.shape}")
    if not np.isfinite(r).all():
        i, s = (int(x) for x in np.argwhere(~np.isfinite(r))[0])
        raise DataConversionError(f"`returns` must be finite, was {r[i, s]} at ({i}, {s})")
    path = _sigmas("sigma_path", sigma_path, r.shape)
    now = _sigmas("sigma_now", sigma_now, (r.shape[0],))
    result: Floats = np.maximum(r * (now[:, None] / path), -1.0)
    return result


@dataclass(frozen=True, eq=False)
class VolatilityState:
    """What volatility models say now about several instruments together: scenarios of neural stress are drawn from it.

    Parameters
    ----------
    instrument_ids : sequence of str, length N
        Distinct names.
    sigmas : array_like, shape (N,)
        Conditional sigma of each instrument's return over ``horizon_ns``, finite, > 0.
    correlation : array_like, shape (N, N)
        Symmetric, ones on the diagonal, positive semi-definite.
    degrees_of_freedom : float
        Of the joint Student t, > 2; infinity: Gaussian.
    horizon_ns : int
        What one forecast covers.
    ts : int
        UTC nanoseconds of the last return that the models saw.
    model : str
        Name of the model, for the report.

    Raises
    ------
    DataConversionError
        When a field breaks its rule.
    """

    instrument_ids: tuple[str, ...]
    sigmas: Floats
    correlation: Floats
    degrees_of_freedom: float = math.inf
    horizon_ns: int = 86_400_000_000_000
    ts: int = 0
    model: str = ""

    def __post_init__(self) -> None:
        names = tuple(self.instrument_ids)
        if not names or len(set(names)) != len(names):
            raise DataConversionError(f"`instrument_ids` must be distinct and not empty, was {names!r}")
        n = len(names)
        sigmas = _sigmas("sigmas", self.sigmas, (n,)).copy()
        matrix = np.array(self.correlation, dtype=np.float64)
        if matrix.shape != (n, n):
            raise DataConversionError(f"`correlation` must have shape ({n}, {n}), had {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise DataConversionError("`correlation` must be finite, was not")
        if np.abs(matrix - matrix.T).max() > 1e-8 or np.abs(np.diag(matrix) - 1.0).max() > 1e-8:
            raise DataConversionError("`correlation` must be symmetric with ones on its diagonal, was not")
        matrix = 0.5 * (matrix + matrix.T)
        np.fill_diagonal(matrix, 1.0)
        lowest = float(np.linalg.eigvalsh(matrix)[0])
        if lowest < -1e-8 * n:
            raise DataConversionError(
                f"`correlation` must be positive semi-definite, had an eigenvalue of {lowest:.3g}"
            )
        if not self.degrees_of_freedom > 2.0:
            raise DataConversionError(f"`degrees_of_freedom` must be > 2, was {self.degrees_of_freedom!r}")
        if self.horizon_ns < 1:
            raise DataConversionError(f"`horizon_ns` must be >= 1, was {self.horizon_ns}")
        for array in (sigmas, matrix):
            array.setflags(write=False)
        object.__setattr__(self, "instrument_ids", names)
        object.__setattr__(self, "sigmas", sigmas)
        object.__setattr__(self, "correlation", matrix)

    def covariance(self) -> Floats:
        """Covariance of the returns over the horizon, shape (N, N)."""
        result: Floats = self.correlation * np.outer(self.sigmas, self.sigmas)
        return result

    def scaled(self, factor: float) -> VolatilityState:
        """The same with every sigma times ``factor``: a stress of the level of volatility."""
        return replace(self, sigmas=self.sigmas * factor)

    def draw(self, count: int, seed: int, *, antithetic: bool = False) -> Floats:
        """Joint returns over the horizon, shape (N, count).

        A multivariate Student t with the covariance of this state: Gaussian vectors over the root of a common
        chi-square, scaled to unit variance, so that extremes come together. Symmetric around zero, bounded below by
        -1.

        Parameters
        ----------
        count : int
            Number of scenarios, >= 1; even when ``antithetic``.
        seed : int
            The same seed gives the same bits.
        antithetic : bool
            Each vector comes with its negative.

        Raises
        ------
        ConfigurationError
            When ``count`` breaks its rule.
        """
        if count < 1 or (antithetic and count % 2):
            raise ConfigurationError(f"`count` must be >= 1, and even when antithetic, was {count}")
        rng = np.random.Generator(np.random.PCG64(seed))
        half = count // 2 if antithetic else count
        n = len(self.instrument_ids)
        # The symmetric root exists for a singular correlation as well, where Cholesky's factor does not.
        values, vectors = np.linalg.eigh(self.correlation)
        root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
        drawn = root @ rng.standard_normal((half, n)).T
        if math.isfinite(self.degrees_of_freedom):
            nu = self.degrees_of_freedom
            drawn *= np.sqrt((nu - 2.0) / rng.chisquare(nu, half))
        if antithetic:
            drawn = np.concatenate([drawn, -drawn], axis=1)
        result: Floats = np.maximum(drawn * self.sigmas[:, None], -1.0)
        return result


def volatility_state(
    models: Mapping[str, NeuralRiskModel],
    correlation: npt.ArrayLike,
    *,
    degrees_of_freedom: float = math.inf,
    period_ns: int = 86_400_000_000_000,
    ts: int = 0,
) -> VolatilityState:
    """Collect the forecasts of one model per instrument.

    Parameters
    ----------
    models : mapping of str to NeuralRiskModel, N entries
        All ready, with one horizon.
    correlation : array_like, shape (N, N)
        In the order of ``models``.
    degrees_of_freedom : float
        Of the joint Student t (:func:`~tengri_fast.risk.garch.fit_degrees_of_freedom` on standardised returns).
    period_ns : int
        Length of one period.
    ts : int
        UTC nanoseconds of the last return.

    Raises
    ------
    DataConversionError
        When a model is not ready, horizons differ, or the correlation breaks its rule.
    """
    if not models:
        raise DataConversionError("`models` must not be empty")
    for name, model in models.items():
        if not model.ready:
            raise DataConversionError(f"`models` must be ready, {model.name} of {name} has seen too few returns")
    horizons = {model.horizon for model in models.values()}
    if len(horizons) > 1:
        raise DataConversionError(f"`models` must have one horizon, had {sorted(horizons)}")
    sigmas = np.array([model.forecast() for model in models.values()])
    said = ", ".join(dict.fromkeys(model.name for model in models.values()))
    matrix = np.asarray(correlation, dtype=np.float64)
    return VolatilityState(tuple(models), sigmas, matrix, degrees_of_freedom, period_ns * horizons.pop(), ts, said)
