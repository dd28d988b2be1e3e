"""Checks of what the methods take: covariance, expected returns, scenarios, present weights, costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.holdings import Holdings

__all__ = ["Costs", "checked_covariance", "unit_exposures", "weight_scenarios", "weights_of"]

Floats = npt.NDArray[np.float64]

#: A covariance whose lowest eigenvalue is further below zero than this share of the highest is refused.
WORST_EIGENVALUE = 1e-3


def vector(name: str, values: npt.ArrayLike, count: int) -> Floats:
    """A finite float64 vector, or a DataConversionError."""
    made = np.array(values, dtype=np.float64)
    if made.shape != (count,):
        raise DataConversionError(f"`{name}` must have shape ({count},), had {made.shape}")
    if not np.isfinite(made).all():
        raise DataConversionError(f"`{name}` must be finite, was {made[~np.isfinite(made)][0]} at {_first(made)}")
    return made


def _first(values: Floats) -> int:
    return int(np.argmax(~np.isfinite(values)))


def checked_covariance(covariance: npt.ArrayLike, names: Sequence[str] | None = None) -> tuple[Floats, tuple[str, ...]]:
    """A symmetric positive semidefinite copy, and a note when it had to be repaired.

    A matrix with eigenvalues slightly below zero (rounding, estimates over pairs of unequal samples) is repaired:
    they are set to zero and the variances put back. One that is far from a covariance is refused.

    Parameters
    ----------
    covariance : array_like, shape (N, N)
        Finite, symmetric to 1e-8 of its size, variances > 0.
    names : sequence of str, optional
        For messages.

    Raises
    ------
    DataConversionError
        When a rule is broken; the message names the instrument.
    """
    matrix = np.array(covariance, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise DataConversionError(f"`covariance` must be square and not empty, had shape {matrix.shape}")
    if names is not None and len(names) != matrix.shape[0]:
        raise DataConversionError(f"`covariance` must have {len(names)} rows, had {matrix.shape[0]}")
    if not np.isfinite(matrix).all():
        i, j = (int(k) for k in np.argwhere(~np.isfinite(matrix))[0])
        raise DataConversionError(f"`covariance` must be finite, was {matrix[i, j]} at {_pair(names, i, j)}")
    size = float(np.abs(matrix).max())
    lopsided = np.abs(matrix - matrix.T)
    if lopsided.max() > 1e-8 * size:
        i, j = (int(k) for k in np.unravel_index(int(np.argmax(lopsided)), matrix.shape))
        raise DataConversionError(
            f"`covariance` must be symmetric, was {matrix[i, j]} and {matrix[j, i]} at {_pair(names, i, j)}"
        )
    matrix = 0.5 * (matrix + matrix.T)
    variances = np.diag(matrix).copy()
    if not (variances > 0.0).all():
        i = int(np.argmin(variances))
        raise DataConversionError(f"`covariance` must have variances > 0, was {variances[i]} at {_pair(names, i, i)}")
    # Judged on correlations, so that one instrument of great variance does not hide the others.
    scale = np.sqrt(variances)
    correlation = matrix / np.outer(scale, scale)
    try:
        # Cheaper than eigenvalues by far, and true of nearly every matrix that comes here.
        np.linalg.cholesky(correlation + 1e-10 * np.eye(len(scale)))
        return matrix, ()
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(correlation)
    lowest = float(values[0] / values[-1])
    if lowest < -WORST_EIGENVALUE:
        raise DataConversionError(
            f"`covariance` must be positive semidefinite, its correlations had the eigenvalue {values[0]:.3g} "
            f"beside {values[-1]:.3g}"
        )
    repaired = (vectors * np.maximum(values, 0.0)) @ vectors.T
    back = scale / np.sqrt(np.diag(repaired))
    repaired = 0.5 * (repaired + repaired.T) * np.outer(back, back)
    note = f"covariance repaired: lowest eigenvalue of the correlations was {values[0]:.3g}, set to 0"
    return repaired, (note,)


def _pair(names: Sequence[str] | None, i: int, j: int) -> str:
    left, right = (str(i), str(j)) if names is None else (names[i], names[j])
    return left if i == j else f"{left}, {right}"


def checked_scenarios(returns: npt.ArrayLike, names: Sequence[str] | None = None) -> Floats:
    """Finite scenarios, shape (N, S), S >= 2, or a DataConversionError."""
    table = np.array(returns, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise DataConversionError(f"`returns` must have shape (N, S) with S >= 2, had {table.shape}")
    if names is not None and len(names) != table.shape[0]:
        raise DataConversionError(f"`returns` must have {len(names)} rows, had {table.shape[0]}")
    if not np.isfinite(table).all():
        i, s = (int(k) for k in np.argwhere(~np.isfinite(table))[0])
        raise DataConversionError(f"`returns` must be finite, was {table[i, s]} at {_pair(names, i, i)}, scenario {s}")
    return table


# ---- from holdings to weights ----------------------------------------------------------------------------------------


def unit_exposures(holdings: Holdings) -> Floats:
    """Exposure of one unit of each instrument in base currency, shape (N,).

    Raises
    ------
    DataConversionError
        When one has none (a delta of zero, a price of zero), so that no quantity gives a weight.
    """
    from dataclasses import replace

    found = replace(holdings, quantities=np.ones(len(holdings))).exposures()
    bad = ~(np.isfinite(found) & (found != 0.0))
    if bad.any():
        i = int(np.argmax(bad))
        raise DataConversionError(
            f"`holdings` must have exposure per unit, was {found[i]} for {holdings.instrument_ids[i]}"
        )
    return found


def checked_equity(holdings: Holdings) -> float:
    """Equity of the holdings, finite and > 0, or a DataConversionError."""
    if not (math.isfinite(holdings.equity) and holdings.equity > 0.0):
        raise DataConversionError(f"`holdings` must have equity > 0, was {holdings.equity}")
    return float(holdings.equity)


def weights_of(holdings: Holdings) -> Floats:
    """Present weights: signed exposure / equity, shape (N,)."""
    return holdings.exposures() / checked_equity(holdings)


def weight_scenarios(holdings: Holdings, returns: npt.ArrayLike) -> Floats:
    """Result per unit of weight in each scenario, shape (N, S): the revalued result of one unit over its exposure.

    For a linear instrument these are the returns themselves; an inverse or binary one, or an option, is revalued.
    """
    found: Floats = holdings.unit_pnl(returns) / unit_exposures(holdings)[:, None]
    return found


# ---- costs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Costs:
    """Cost of changing weights by d, as a fraction of equity, summed over instruments.

    ::

        linear |d| + quadratic d^2 + impact |d|^(3/2)

    Parameters
    ----------
    linear : array_like, shape (N,) or scalar
        Fees and half spread, as a fraction of what is traded.
    quadratic : array_like or scalar
        Linear impact (Kyle).
    impact : array_like or scalar
        Square-root impact: the price moves by Y sigma sqrt(Q / V), so that the cost grows with the power 3/2
        (Almgren et al. 2005; Toth et al. 2011, eq. 1).

    Raises
    ------
    ConfigurationError
        When a coefficient is negative or not finite.
    """

    linear: Any = 0.0
    quadratic: Any = 0.0
    impact: Any = 0.0

    def __post_init__(self) -> None:
        for name in ("linear", "quadratic", "impact"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.ndim > 1 or not np.isfinite(values).all() or (values < 0.0).any():
                raise ConfigurationError(f"`{name}` must be finite and >= 0, was {getattr(self, name)!r}")
            object.__setattr__(self, name, values)

    @classmethod
    def of(
        cls, holdings: Holdings, *, fee_bps: float = 0.0, daily_volatility: npt.ArrayLike | None = None,
        impact: float = 0.0,
    ) -> Costs:  # fmt: skip
        """From the holdings' spreads and volumes.

        Parameters
        ----------
        holdings : Holdings
            With spreads; with volumes when `impact` is set.
        fee_bps : float
            Fee of one trade, basis points.
        daily_volatility : array_like, shape (N,), optional
            Of each price, per day, when `impact` is set.
        impact : float
            The constant Y of the square-root law, about 1; 0 leaves impact out.

        Raises
        ------
        DataConversionError
            When a spread, volume or volatility that is needed is not known.
        """
        if holdings.spreads is None or not np.isfinite(holdings.spreads).all():
            raise DataConversionError("`holdings.spreads` must be known for costs, held NaN")
        linear = 0.5 * holdings.spreads + 1e-4 * fee_bps
        if impact == 0.0:
            return cls(linear=linear)
        volumes = holdings.volumes
        if volumes is None or not (np.isfinite(volumes) & (volumes > 0.0)).all():
            raise DataConversionError("`holdings.volumes` must be known and > 0 for impact")
        if daily_volatility is None:
            raise DataConversionError("`daily_volatility` must be given for impact, was None")
        sigma = vector("daily_volatility", daily_volatility, len(holdings))
        # Q / V is the traded exposure over the exposure traded per day.
        turned_over = np.abs(unit_exposures(holdings)) * volumes
        return cls(linear=linear, impact=impact * sigma * np.sqrt(checked_equity(holdings) / turned_over))

    def arrays(self, count: int) -> tuple[Floats, Floats, Floats]:
        """The three coefficients, each of shape (N,)."""
        made = []
        for name in ("linear", "quadratic", "impact"):
            values = getattr(self, name)
            if values.ndim and values.shape != (count,):
                raise ConfigurationError(f"`{name}` must have {count} entries, had shape {values.shape}")
            made.append(np.broadcast_to(values, (count,)).astype(np.float64))
        return made[0], made[1], made[2]

    def of_changes(self, changes: npt.ArrayLike) -> Floats:
        """Cost of each change, shape (N,), fractions of equity."""
        d = np.abs(np.asarray(changes, dtype=np.float64))
        linear, quadratic, impact = self.arrays(len(d))
        found: Floats = linear * d + quadratic * d * d + impact * d**1.5
        return found
