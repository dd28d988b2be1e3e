"""Value at risk and expected shortfall of a vector of scenario results: the definitions, in NumPy.

Let L = -P&L be the S losses in ascending order, L_(1) <= ... <= L_(S), a = ceil(level * S).

*Value at risk* is the generalised inverse of the empirical distribution, VaR = inf{x : F(x) >= level} = L_(a). No
interpolation: it is always one of the losses, and it equals ``numpy.quantile(L, level, method="inverted_cdf")``. With
1,000 scenarios and a level of 0.99 it is the 990th smallest loss, which is the 11th largest. Because it is an order
statistic, "VaR > limit" holds exactly when at least ``rank = S - a + 1`` losses exceed the limit; the gate decides by
that count and needs the number itself only to explain a denial.

*Expected shortfall* is the mean of the worst (1 - level) of the distribution, ES = 1/(1-level) * integral of the
quantile function from level to 1, with the boundary scenario split (Acerbi and Tasche 2002, "On the coherence of
expected shortfall", J. Banking & Finance 26, eq. 3.12; Rockafellar and Uryasev 2002)::

    ES = (sum of the rank - 1 largest losses + (T - (rank - 1)) * VaR) / T,    T = (1 - level) * S

With 1,000 scenarios and 0.99 it is the mean of the ten largest losses. Unlike VaR it is subadditive.

Both are positive when money is lost, negative when even the tail gains. The numba twins are in
:mod:`tengri_fast.risk.kernels`; these functions are their oracle.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError

__all__ = ["expected_shortfall", "tail_rank", "value_at_risk"]


def tail_rank(scenarios: int, level: float) -> tuple[int, float]:
    """Rank of the VaR loss counted from the worst, and the number T of scenarios in the tail.

    Parameters
    ----------
    scenarios : int
        Number of scenarios, >= 1.
    level : float
        Confidence in (0, 1).

    Returns
    -------
    tuple of (int, float)
        ``rank`` (1 = the worst loss) and ``T = (1 - level) * scenarios``.
    """
    exact = level * scenarios
    nearest = round(exact)
    # 0.07 * 100 is 7.000000000000001 in binary: products that mean an integer are taken as one.
    if abs(exact - nearest) < 1e-9 * scenarios:
        exact = float(nearest)
    below = max(math.ceil(exact), 1)
    return scenarios - below + 1, scenarios - exact


def _losses(pnl: npt.ArrayLike, level: float) -> npt.NDArray[np.float64]:
    values = np.asarray(pnl, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise DataConversionError(f"`pnl` must be one-dimensional and not empty, had shape {values.shape}")
    if not np.isfinite(values).all():
        raise DataConversionError("`pnl` must be finite, held NaN or infinity")
    if not 0.0 < level < 1.0:
        raise DataConversionError(f"`level` must be between 0 and 1, was {level}")
    return np.sort(-values)[::-1]


def value_at_risk(pnl: npt.ArrayLike, level: float = 0.99) -> float:
    """Value at risk of scenario results, a positive number for a loss.

    Parameters
    ----------
    pnl : array_like, shape (S,)
        Result per scenario, any currency.
    level : float
        Confidence in (0, 1).

    Returns
    -------
    float
        The loss of rank S - ceil(level * S) + 1, counted from the worst.

    Raises
    ------
    DataConversionError
        When ``pnl`` is empty, not one-dimensional or not finite.
    """
    losses = _losses(pnl, level)
    return float(losses[tail_rank(losses.size, level)[0] - 1])


def expected_shortfall(pnl: npt.ArrayLike, level: float = 0.99) -> float:
    """Mean loss in the worst ``1 - level`` of the scenarios; arguments and errors as :func:`value_at_risk`."""
    losses = _losses(pnl, level)
    rank, tail = tail_rank(losses.size, level)
    return float((losses[: rank - 1].sum() + (tail - (rank - 1)) * losses[rank - 1]) / tail)
