"""Which variance forecast is better: losses that rank rightly on a noisy proxy, and the set of models that may be best.

QLIKE and the squared error rank forecasts by their expectation in the same order whether the true variance or an
unbiased proxy of it is used, such as a squared return (Patton 2011, proposition 1); absolute errors or errors of sigma
do not. QLIKE is the less noisy one, because it depends on the ratio only: one large move does not decide it. Two
models are compared by :func:`tengri_fast.risk.backtest.diebold_mariano` on their losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError

__all__ = [
    "ModelConfidenceSet",
    "model_confidence_set",
    "mse",
    "mse_losses",
    "qlike",
    "qlike_losses",
]

Floats = npt.NDArray[np.float64]


def _pair(realised: npt.ArrayLike, forecast: npt.ArrayLike) -> tuple[Floats, Floats]:
    seen = np.asarray(realised, dtype=np.float64)
    said = np.asarray(forecast, dtype=np.float64)
    if seen.shape != said.shape:
        raise DataConversionError(f"`forecast` must have the shape of `realised`, {seen.shape}, had {said.shape}")
    if seen.size == 0:
        raise DataConversionError("`realised` must not be empty")
    if not (np.isfinite(seen) & (seen >= 0.0)).all():
        at = int(np.argmin((np.isfinite(seen) & (seen >= 0.0)).ravel()))
        raise DataConversionError(f"`realised` must be finite and >= 0, was {seen.ravel()[at]} at {at}")
    if not (np.isfinite(said) & (said > 0.0)).all():
        at = int(np.argmin((np.isfinite(said) & (said > 0.0)).ravel()))
        raise DataConversionError(f"`forecast` must be finite and > 0, was {said.ravel()[at]} at {at}")
    return seen, said


def qlike_losses(realised: npt.ArrayLike, forecast: npt.ArrayLike) -> Floats:
    """``realised / forecast + log(forecast)``: the QLIKE loss of each forecast.

    Parameters
    ----------
    realised : array_like
        Unbiased proxy of the variance, >= 0. A squared return may be 0, which this form allows and the form
        ``ratio - log(ratio) - 1`` does not; they differ by a term that holds no forecast.
    forecast : array_like, same shape
        Forecast variances, > 0.

    Returns
    -------
    ndarray, same shape
        Smaller is better. A change of unit shifts every loss by one constant.

    Raises
    ------
    DataConversionError
        When shapes differ or a value breaks its rule, NaN included.

    References
    ----------
    Patton 2011, "Volatility forecast comparison using imperfect volatility proxies", equation 5.
    """
    seen, said = _pair(realised, forecast)
    losses: Floats = seen / said + np.log(said)
    return losses


def qlike(realised: npt.ArrayLike, forecast: npt.ArrayLike) -> float:
    """Mean of :func:`qlike_losses`."""
    return float(qlike_losses(realised, forecast).mean())


def mse_losses(realised: npt.ArrayLike, forecast: npt.ArrayLike) -> Floats:
    """``(realised - forecast)^2`` of variances; arguments and errors as :func:`qlike_losses`."""
    seen, said = _pair(realised, forecast)
    losses: Floats = (seen - said) ** 2
    return losses


def mse(realised: npt.ArrayLike, forecast: npt.ArrayLike) -> float:
    """Mean of :func:`mse_losses`."""
    return float(mse_losses(realised, forecast).mean())


@dataclass(frozen=True)
class ModelConfidenceSet:
    """Models that cannot be told from the best one.

    ``p_values`` by name, in the order in which models leave, worst first; ``included`` those with p >= ``size``.
    """

    p_values: Mapping[str, float]
    included: tuple[str, ...]
    size: float


def model_confidence_set(
    losses: Mapping[str, npt.ArrayLike],
    *,
    size: float = 0.10,
    replications: int = 1000,
    block: int = 22,
    seed: int = 0,
) -> ModelConfidenceSet:
    """Model confidence set with the maximum statistic (Hansen, Lunde and Nason 2011, section 3.1.2).

    Parameters
    ----------
    losses : mapping of str to array_like, shape (T,)
        At least two models, losses of the same periods.
    size : float
        Of the test: the set holds the best model with probability of at least 1 - size as T grows.
    replications, block : int
        Of the stationary bootstrap (Politis and Romano 1994), with mean block length ``block`` periods.
    seed : int
        Same seed, same set.

    Returns
    -------
    ModelConfidenceSet

    Raises
    ------
    DataConversionError
        When there are fewer than two models, lengths differ, or a loss is not finite.
    ConfigurationError
        When a setting is out of range.
    """
    names = list(losses)
    if len(names) < 2:
        raise DataConversionError(f"`losses` must have at least 2 models, had {len(names)}")
    columns = [np.asarray(losses[name], dtype=np.float64) for name in names]
    for name, column in zip(names, columns, strict=True):
        if column.ndim != 1 or column.shape != columns[0].shape or len(column) < 10:
            raise DataConversionError(
                f"`losses` must have one length of at least 10, {name!r} had shape {column.shape}, "
                f"{names[0]!r} {columns[0].shape}"
            )
        if not np.isfinite(column).all():
            raise DataConversionError(f"`losses` must be finite, {name!r} is not")
    for label, value, least in (("replications", replications, 10), ("block", block, 1)):
        if value < least:
            raise ConfigurationError(f"`{label}` must be >= {least}, was {value}")
    if not 0.0 < size < 1.0:
        raise ConfigurationError(f"`size` must be within 0 and 1, was {size}")
    table = np.stack(columns, axis=1)
    n = len(table)
    rng = np.random.default_rng(seed)
    means = np.empty((replications, len(names)))
    for b in range(replications):
        begins = rng.random(n) < 1.0 / block
        begins[0] = True
        starts = rng.integers(0, n, n)
        # Each row continues its block: the start of the block plus the distance to it, around the end.
        last = np.maximum.accumulate(np.where(begins, np.arange(n), 0))
        rows = (starts[last] + np.arange(n) - last) % n
        means[b] = np.bincount(rows, minlength=n) @ table / n
    centre = table.mean(axis=0)
    alive = list(range(len(names)))
    p_values: dict[str, float] = {}
    running = 0.0
    while len(alive) > 1:
        gap = centre[alive] - centre[alive].mean()
        drawn = means[:, alive] - means[:, alive].mean(axis=1, keepdims=True) - gap
        deviation = np.sqrt((drawn**2).mean(axis=0))
        if not (deviation > 0.0).all():
            # Identical losses cannot be told apart.
            break
        worst = int(np.argmax(gap / deviation))
        highest = (drawn / deviation).max(axis=1)
        running = max(running, float((highest >= (gap / deviation)[worst]).mean()))
        p_values[names[alive[worst]]] = running
        del alive[worst]
    for k in alive:
        p_values[names[k]] = 1.0
    included = tuple(name for name in names if p_values[name] >= size)
    return ModelConfidenceSet(p_values, included, size)
