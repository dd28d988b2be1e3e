"""First and second order of a portfolio in the relative price moves r of its instruments.

For one position of quantity q the result is written as ``a r + b r^2``, exactly for linear payoffs and for instruments
that carry Greeks, to second order for inverse ones (r / (1 + r) = r - r^2 + ...) and to first order for binary ones,
whose clip at 0 and 1 has no expansion. The cross terms are zero: an instrument moves by its own price only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tengri_fast.risk.holdings import Holdings

__all__ = ["position_terms", "quadratic_terms"]

Floats = npt.NDArray[np.float64]


def _arrays(holdings: Holdings) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """Multiplier x rate, delta and gamma with 0 for "none", and which instruments carry Greeks."""
    ones, none = np.ones(len(holdings)), np.full(len(holdings), np.nan)
    # Holdings fills these in; the types cannot say so.
    multipliers = ones if holdings.multipliers is None else holdings.multipliers
    rates = ones if holdings.rates is None else holdings.rates
    deltas = none if holdings.deltas is None else holdings.deltas
    gammas = none if holdings.gammas is None else holdings.gammas
    return multipliers * rates, np.nan_to_num(deltas), np.nan_to_num(gammas), np.isfinite(deltas) | np.isfinite(gammas)


def quadratic_terms(holdings: Holdings) -> tuple[Floats, Floats]:
    """First and second order of one unit of each instrument.

    Parameters
    ----------
    holdings : Holdings
        N instruments; quantities are not used.

    Returns
    -------
    tuple of ndarray, shapes (N,) and (N,)
        ``a`` and ``b`` in base currency, so that a unit's result is close to ``a r + b r^2``.
    """
    scale, delta, gamma, has_greeks = _arrays(holdings)
    price = holdings.prices
    inverse = holdings.codes == 1
    first = np.where(has_greeks, delta * price, np.where(inverse, 1.0 / np.where(price > 0.0, price, 1.0), price))
    second = np.where(has_greeks, 0.5 * gamma * price * price, np.where(inverse, -first, 0.0))
    return scale * first, scale * second


def position_terms(holdings: Holdings) -> tuple[npt.NDArray[np.int64], Floats]:
    """Codes and factors with which :func:`tengri_fast.risk.kernels.revalue` values whole positions.

    Parameters
    ----------
    holdings : Holdings
        N positions.

    Returns
    -------
    tuple of ndarray
        Codes (N,): 0 linear, 1 inverse, 2 binary, 3 quadratic; factors (N, 3): first order, second order (used by code
        3 only), both times the quantity, and the price.
    """
    scale, delta, gamma, has_greeks = _arrays(holdings)
    price = holdings.prices
    codes = np.where(has_greeks, 3, holdings.codes).astype(np.int64)
    safe = np.where(price > 0.0, price, 1.0)
    per_unit = np.select([codes == 3, codes == 1, codes == 2], [delta * price, 1.0 / safe, np.ones_like(price)], price)
    second = np.where(codes == 3, 0.5 * gamma * price * price, 0.0)
    quantity = holdings.quantities * scale
    return codes, np.ascontiguousarray(np.column_stack((quantity * per_unit, quantity * second, price)))
