"""What a test answers, and the checks that all of them share.

*Sign.* VaR and ES are positive for a loss, ``pnl`` is negative for one. An exception is a loss larger than the VaR;
one that equals it is none. ``level`` is the confidence (0.99), so an exception has probability 1 - level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError

__all__ = ["SIGNIFICANCE", "TestResult", "exceptions"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SIGNIFICANCE = 0.05
"""A p-value below this reads "rejected" in the verdicts."""

#: Statistics closer than this (absolute, and relative to the value) are ties.
TIE = 1e-9


@dataclass(frozen=True)
class TestResult:
    """Answer of one test.

    Parameters
    ----------
    name : str
        Name of the test.
    statistic : float
        Value of the statistic; NaN when the sample does not define it.
    p_value : float or None
        From the asymptotic distribution; None where there is none.
    exact_p_value : float or None
        From the distribution at this sample size: enumerated where the text says so, else by seeded simulation. Ties
        with the observed statistic count as at least as extreme, so it errs on the side of not rejecting.
    verdict : str
        One sentence.
    details : mapping
        Further numbers, by name.
    """

    __test__: ClassVar[bool] = False  # pytest would take the name for a class of tests

    name: str
    statistic: float
    p_value: float | None
    exact_p_value: float | None
    verdict: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def p(self) -> float | None:
        """The p-value to judge by: the exact one where there is one."""
        return self.p_value if self.exact_p_value is None else self.exact_p_value

    def rejected(self, significance: float = SIGNIFICANCE) -> bool:
        """Whether the model is rejected; never when there is no p-value."""
        return self.p is not None and self.p < significance

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it, NaN as None."""
        return {
            "name": self.name,
            "statistic": self.statistic if math.isfinite(self.statistic) else None,
            "p_value": self.p_value,
            "exact_p_value": self.exact_p_value,
            "rejected": self.rejected(),
            "verdict": self.verdict,
            "details": dict(self.details),
        }


def exceptions(pnl: npt.ArrayLike, var: npt.ArrayLike) -> Flags:
    """Days on which the loss was larger than the VaR.

    Parameters
    ----------
    pnl : array_like, shape (T,)
        Results, negative for a loss.
    var : array_like, shape (T,) or a number
        Forecasts made before each day, positive for a loss.

    Returns
    -------
    ndarray of bool, shape (T,)

    Raises
    ------
    DataConversionError
        When a shape is wrong or a value is not finite.
    """
    result = series("pnl", pnl)
    return np.asarray(-result > series("var", np.broadcast_to(np.asarray(var), result.shape)))


def series(name: str, values: npt.ArrayLike, length: int | None = None) -> Floats:
    """`values` as finite float64 [T]; errors name the field."""
    given = np.asarray(values)
    if given.dtype.kind not in "fiu":
        raise DataConversionError(f"`{name}` must be numbers, had dtype {given.dtype}")
    found = given.astype(np.float64)
    if found.ndim != 1 or found.size == 0:
        raise DataConversionError(f"`{name}` must be one-dimensional and not empty, had shape {found.shape}")
    if length is not None and found.size != length:
        raise DataConversionError(f"`{name}` must have {length} entries, had {found.size}")
    if not np.isfinite(found).all():
        at = int(np.argmin(np.isfinite(found)))
        raise DataConversionError(f"`{name}` must be finite, was {found[at]} at {at}")
    return found


def flags(hits: npt.ArrayLike) -> Flags:
    """Exceptions as booleans [T]; numbers must be 0 or 1."""
    given = np.asarray(hits)
    if given.ndim != 1 or given.size == 0:
        raise DataConversionError(f"`hits` must be one-dimensional and not empty, had shape {given.shape}")
    if given.dtype.kind != "b":
        if given.dtype.kind not in "fiu" or not np.isin(given, (0, 1)).all():
            raise DataConversionError("`hits` must be booleans, or 0 and 1, held something else")
        given = given != 0
    return given


def tail_probability(level: float) -> float:
    """1 - level, after a check; 0.99 gives 0.01 to the last bit that decimals allow."""
    if isinstance(level, bool) or not isinstance(level, int | float | np.floating) or not 0.5 < level < 1.0:
        raise DataConversionError(f"`level` must be between 0.5 and 1, was {level!r}")
    return float(round(1.0 - level, 12))


def simulations_of(value: int) -> int:
    """Number of simulated samples after a check; 0 means no simulation."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0 or 0 < value < 19:
        raise DataConversionError(f"`simulations` must be 0 or an integer >= 19, was {value!r}")
    return int(value)


def at_least(statistic: npt.ArrayLike, observed: float) -> Flags:
    """Where `statistic` is as large as `observed`; ties count."""
    return np.asarray(np.asarray(statistic) >= observed - TIE * (1.0 + abs(observed)))


def percent(share: float) -> str:
    """A confidence or a rate as text: "99 %"."""
    return f"{100.0 * share:.6g} %"


def p_text(p: float | None) -> str:
    """A p-value as text."""
    if p is None:
        return "no p-value"
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"
