"""How much the past still counts: weights by age, and conditional variances that filter history to the present."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError

__all__ = ["age_weights", "conditional_variances", "ewma_variances"]

Floats = npt.NDArray[np.float64]


def age_weights(count: int, decay: float) -> Floats:
    """Weights (1 - decay) decay^age / (1 - decay^count), the oldest first, shape (count,); they sum to 1."""
    weights: Floats = decay ** np.arange(count - 1, -1, -1.0)
    weights /= weights.sum()
    return weights


def ewma_variances(returns: npt.ArrayLike, decay: float = 0.94) -> Floats:
    """Exponentially weighted variances around zero (RiskMetrics 1996, eq. 5.3).

    Parameters
    ----------
    returns : array_like, shape (N, S)
        Finite returns, oldest first, S >= 1.
    decay : float
        In (0, 1).

    Returns
    -------
    ndarray, shape (N, S + 1)
        Known before each return; the last column is the forecast. What stands before the first return is the mean of
        the first 75 squares with weights 0.94^k, as for GARCH, or of all squares where those are zero.
    """
    squares = np.square(np.asarray(returns, dtype=np.float64))
    first = squares[:, :75]
    weights = 0.94 ** np.arange(first.shape[1])
    path = np.empty((len(squares), squares.shape[1] + 1))
    start = first @ (weights / weights.sum())
    path[:, 0] = np.where(start > 0.0, start, squares.mean(axis=1))
    for t in range(squares.shape[1]):
        path[:, t + 1] = decay * path[:, t] + (1.0 - decay) * squares[:, t]
    return path


def conditional_variances(returns: npt.ArrayLike, model: str = "ewma", *, decay: float = 0.94) -> Floats:
    """Conditional variance of every return, and the forecast for the next one.

    Parameters
    ----------
    returns : array_like, shape (N, S)
        Finite returns, oldest first; at least two, for GARCH as many as :func:`tengri_fast.risk.garch.fit_garch` asks.
    model : str
        "ewma", "garch" or "gjr"; the last two are fitted with mean zero.
    decay : float
        Of "ewma", in (0, 1).

    Returns
    -------
    ndarray, shape (N, S + 1)
        Known before each return; the last column is the forecast.

    Raises
    ------
    ConfigurationError
        When ``model`` or ``decay`` breaks its rule.
    DataConversionError
        When returns break theirs.
    """
    table = np.asarray(returns, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise DataConversionError(f"`returns` must have shape (N, S) with S >= 2, had {table.shape}")
    if not np.isfinite(table).all():
        raise DataConversionError("`returns` must be finite, held NaN or infinity")
    if model == "ewma":
        if not 0.0 < decay < 1.0:
            raise ConfigurationError(f"`decay` must be between 0 and 1, was {decay}")
        return ewma_variances(table, decay)
    if model in ("garch", "gjr"):
        from tengri_fast.risk.garch import filter_variance, fit_garch

        return np.stack([filter_variance(row, fit_garch(row, leverage=model == "gjr", mean="zero")) for row in table])
    raise ConfigurationError(f"`volatility` must be ewma, garch, gjr or an array, was {model!r}")
