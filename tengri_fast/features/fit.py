"""Normalisation that is fitted once on ready rows, frozen, and travels with a model.

What comes out goes into a plan (`FeaturePlan.with_normalisation`) and into the `[normalisation]` of a model.toml. Fit
it on the rows that a model is trained on and on no later ones: a mean over the whole history is a look ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.plan import FeatureRows, Normalisation

__all__ = ["METHODS", "Fitted", "fit_normalisation"]

Method = Literal["zscore", "robust", "minmax"]
METHODS: Final = ("zscore", "robust", "minmax")

# Quartiles of a normal distribution are this many standard deviations apart.
_QUARTILES: Final = 1.3489795003921634
# A spread below this share of the level is rounding.
_FLAT: Final = 1e-12

Float = npt.NDArray[np.float64]


class Fitted(NamedTuple):
    """What a fit found.

    Attributes
    ----------
    normalisation : Normalisation
        Mean, scale and clip per column.
    method : str
    rows : int
        Rows that were ready and were used.
    left_out : int
        Rows that were not.
    constant : tuple of int
        Columns that did not vary: their scale is 1.
    """

    normalisation: Normalisation
    method: str
    rows: int
    left_out: int
    constant: tuple[int, ...]

    def to_toml(self) -> str:
        """The section `[normalisation]` of a model.toml; every number reads back to the same bits."""
        mean, scale, clip = self.normalisation
        bounds = {float(value) for value in clip}
        if len(bounds) != 1:
            raise FeatureExtractionError(f"`clip` must be one number in a model.toml, was {sorted(bounds)}")
        lists = [f"{name} = [{', '.join(repr(float(v)) for v in values)}]"
                 for name, values in (("mean", mean), ("scale", scale))]  # fmt: skip
        return "\n".join(["[normalisation]", *lists, f"clip = {bounds.pop()!r}", ""])


def _ready_rows(rows: FeatureRows | Sequence[FeatureRows]) -> tuple[list[Float], int]:
    parts, left_out = [], 0
    for part in [rows] if hasattr(rows, "values") else list(rows):
        values, ready = np.asarray(part.values, np.float64), np.asarray(part.ready, np.bool_)  # type: ignore[union-attr]
        if values.ndim != 2 or ready.shape != values.shape[:1]:
            raise FeatureExtractionError(f"`rows` must have values [n, F] and ready [n], had shapes {values.shape} and "
                                         f"{ready.shape}")  # fmt: skip
        parts.append(values[ready])
        left_out += int(np.count_nonzero(~ready))
    if not parts or len({part.shape[1] for part in parts}) != 1:
        raise FeatureExtractionError(
            f"`rows` must be of one plan, had widths {sorted({part.shape[1] for part in parts})}"
        )
    return parts, left_out


def _centre_and_scale(column: Float, method: str) -> tuple[float, float]:
    if method == "zscore":
        # Two passes around a first estimate: no square of a price level is ever summed.
        centre = float(column[0]) + float(np.mean(column - column[0]))
        rest = column - centre
        return centre, math.sqrt(float(np.mean(rest * rest)))
    if method == "robust":
        low, middle, high = (float(value) for value in np.quantile(column, [0.25, 0.5, 0.75]))
        return middle, (high - low) / _QUARTILES
    low, high = float(column.min()), float(column.max())
    return low + 0.5 * (high - low), 0.5 * (high - low)


def fit_normalisation(
    rows: FeatureRows | Sequence[FeatureRows], method: Method = "zscore", clip: float = 0.0
) -> Fitted:
    """Mean and scale of every column over ready rows.

    Parameters
    ----------
    rows : FeatureRows or sequence of FeatureRows
        Raw rows, of one session or several; anything with `values` [n, F] and `ready` [n] does.
    method : {"zscore", "robust", "minmax"}
        Mean and standard deviation (of the population); median and interquartile range over 1.349; middle and half
        width of the range, which maps onto -1 to 1.
    clip : float
        Bound of the normalised value; 0 means none.

    Returns
    -------
    Fitted
        A column whose scale is below 1e-12 of its level is constant: its scale is 1, so it becomes about 0.

    Raises
    ------
    FeatureExtractionError
        If no row is ready, a value is not finite, or an argument breaks its rule.
    """
    if method not in METHODS:
        raise FeatureExtractionError(f"`method` must be one of {', '.join(METHODS)}, was {method!r}")
    if not math.isfinite(clip) or clip < 0:
        raise FeatureExtractionError(f"`clip` must be finite and >= 0, was {clip}")
    parts, left_out = _ready_rows(rows)
    count = sum(len(part) for part in parts)
    if not count:
        raise FeatureExtractionError(f"`rows` must hold rows that are ready, none of {left_out} was")
    width = parts[0].shape[1]
    mean, scale, constant = np.zeros(width), np.ones(width), []
    for number in range(width):
        column = np.concatenate([part[:, number] for part in parts])
        if not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise FeatureExtractionError(f"`rows` must be finite, column {number} was {column[row]} in ready row {row}")
        centre, spread = _centre_and_scale(column, method)
        mean[number] = centre
        if spread > _FLAT * abs(centre) and spread > 1e-300 and math.isfinite(spread):
            scale[number] = spread
        else:
            constant.append(number)
    normalisation = Normalisation(mean, scale, np.full(width, float(clip)))
    return Fitted(normalisation, method, count, left_out, tuple(constant))
