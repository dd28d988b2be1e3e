"""Conditional variances of several instruments at once: what filters history to the present volatility."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError

__all__ = ["conditional_variances"]

Floats = npt.NDArray[np.float64]


def _ewma(returns: Floats, decay: float) -> Floats:
    """Exponentially weighted variances around zero (RiskMetrics 1996, eq. 5.3), shape (S + 1,).

    What comes before the data is the weighted mean of the first 75 squares, as for GARCH.
    """
    squares = returns * returns
    first = squares[:75]
    weights = 0.94 ** np.arange(first.size)
    out = np.empty(squares.size + 1)
    out[0] = weights @ first / weights.sum()
    for t, square in enumerate(squares.tolist()):
        out[t + 1] = decay * out[t] + (1.0 - decay) * square
    return out


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
        return np.stack([_ewma(row, decay) for row in table])
    if model in ("garch", "gjr"):
        from tengri_fast.risk.garch import filter_variance, fit_garch

        return np.stack([filter_variance(row, fit_garch(row, leverage=model == "gjr", mean="zero")) for row in table])
    raise ConfigurationError(f"`volatility` must be ewma, garch, gjr or an array, was {model!r}")
