"""Decimals as NautilusTrader's fixed point gives them back.

NautilusTrader keeps a price as an integer count of 1e-16 and ``as_double()`` divides: ``double(raw) / 1e16``. That is
not always the double nearest to the decimal (it may be one unit in the last place off), so a feature computed from a
file would differ in its last bit from the same feature computed live. Files are therefore read through this function:
what comes out is what ``as_double()`` of the same decimal gives.

Source of the rule: the arithmetic of ``Price`` and ``Quantity`` in NautilusTrader 1.231 (precision up to 16 decimals),
tested against it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_DECIMALS", "through_fixed_point"]

MAX_DECIMALS = 16
_SCALE = 1e16
_EXACT = 2.0**53


def through_fixed_point(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The doubles that NautilusTrader hands out for decimals.

    Parameters
    ----------
    values : array_like of float, any shape
        Each the double nearest to a decimal with at most 16 decimals and a mantissa below 2**53.

    Returns
    -------
    ndarray of float64, same shape, contiguous
        Values that are no such decimal (also NaN and infinity) come back unchanged.

    Notes
    -----
    A double ``x`` stands for the decimal ``m / 10**p`` exactly when ``m / 10**p == x`` in double arithmetic, because
    division is correctly rounded; ``m * 10**(16 - p)`` is then the raw integer, rounded once to double as
    NautilusTrader rounds it.
    """
    given = np.asarray(values, dtype=np.float64)
    out = np.array(given, dtype=np.float64, order="C")
    flat = out.reshape(-1)
    open_rows = np.flatnonzero(np.isfinite(flat))
    for decimals in range(MAX_DECIMALS + 1):
        if not len(open_rows):
            break
        power = 10.0**decimals
        x = flat[open_rows]
        with np.errstate(over="ignore"):
            mantissa = np.rint(x * power)
            found = (mantissa / power == x) & (np.abs(mantissa) < _EXACT)
        hit = open_rows[found]
        flat[hit] = mantissa[found] * 10.0 ** (MAX_DECIMALS - decimals) / _SCALE
        open_rows = open_rows[~found]
    return out
