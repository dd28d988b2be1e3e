"""Activation ranges of a network, and the scale that suits each.

The float network runs over the calibration rows; everything that will meet an int8 matrix goes into a histogram of
magnitudes, whose size does not depend on the number of rows. From it a clip threshold T is chosen; the scale is T / 127
(int16: T / 32767):

* ``absmax``: the largest magnitude. Nothing is clipped; one outlier takes the resolution of all other values.
* ``percentile``: the magnitude that a given share of the values do not exceed.
* ``mse``: the threshold with the least expected squared error, rounding (scale^2 / 12 for each value inside, x^2 for
  one that becomes zero) against clipping ((|x| - T)^2 for each value outside), over a grid of thresholds. A single
  huge outlier wins here too; ``percentile`` is the method that ignores it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, InferenceFailed
from tengri_fast.inference.evaluate import evaluate
from tengri_fast.inference.network import SCALES, Network

__all__ = ["METHODS", "MIN_ROWS", "Histogram", "calibrate", "rows_sha256", "sequences"]

METHODS = ("absmax", "percentile", "mse")
MIN_ROWS = 64
"""Fewer calibration rows say nothing about a range."""
FINE, LOWEST, OCTAVES = 128, -63, 192
"""Bins per octave, exponent of the smallest and number of octaves: 2^-64 to 2^128."""
GRID = 320
"""Thresholds tried by ``mse``: 32 per octave, ten octaves down from the largest magnitude."""
LARGEST = {"int8": 127, "int8a16": 32_767}
SMALLEST_SCALE = 1e-30
"""Keeps 1 / scale finite in float32."""

FloatArray = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


def sequences(
    network: Network, rows: npt.ArrayLike | Sequence[npt.ArrayLike], *, what: str = "rows", least: int = MIN_ROWS
) -> list[FloatArray]:
    """Rows as a list of stretches, each of which starts from zero state.

    Parameters
    ----------
    network : Network
        Says how wide a row is, and, where it has absolute positions, how long a stretch may be.
    rows : array_like of shape [T, input_size], or a sequence of such
        One stretch, or several (days, sessions).
    what : str
        Name in error texts.
    least : int
        Smallest number of rows in all.

    Raises
    ------
    ConfigurationError
        If there are too few rows, one is not finite (the text names the first), the width is wrong, or all rows are
        equal.
    """
    several = isinstance(rows, list | tuple) and len(rows) > 0 and np.ndim(rows[0]) == 2
    parts = [np.ascontiguousarray(part, dtype=np.float32) for part in (rows if several else [rows])]  # type: ignore[union-attr]
    total = 0
    for number, part in enumerate(parts):
        label = f"`{what}`" if not several else f"`{what}[{number}]`"
        if part.ndim != 2 or part.shape[1] != network.input_size:
            raise ConfigurationError(f"{label} must have shape [T, {network.input_size}], had {list(part.shape)}")
        broken = np.argwhere(~np.isfinite(part))
        if len(broken):
            row, column = (int(v) for v in broken[0])
            raise ConfigurationError(f"{label} must be finite, was {part[row, column]} in row {row}, column {column}")
        total += len(part)
    if total < least:
        raise ConfigurationError(f"`{what}` must hold at least {least} rows, held {total}")
    parts = [part for part in parts if len(part)]
    if all((part == parts[0][0]).all() for part in parts):
        raise ConfigurationError(f"`{what}` must vary, was the same row {total} times")
    limit = network.max_steps
    if limit:
        parts = [part[at : at + limit] for part in parts for at in range(0, len(part), limit)]
    return parts


def rows_sha256(parts: Sequence[FloatArray]) -> str:
    """Hash of the rows and of where stretches begin."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.shape};".encode())
        digest.update(np.ascontiguousarray(part, dtype="<f4").tobytes())
    return digest.hexdigest()


@dataclass
class Histogram:
    """Magnitudes of everything that was added, 128 bins to an octave, so that no outlier blurs the rest."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(OCTAVES * FINE + 1, np.int64))
    absmax: float = 0.0
    total: int = 0
    squares: float = 0.0

    def add(self, values: npt.ArrayLike) -> None:
        """Count the magnitudes of finite values.

        Raises
        ------
        InferenceFailed
            If one is not finite: the float network itself overflows on these rows.
        """
        size = np.abs(np.asarray(values, np.float64)).ravel()
        if not size.size:
            return
        largest = float(size.max())
        if not math.isfinite(largest):
            raise InferenceFailed("an activation must be finite on the calibration rows, was not")
        self.total += size.size
        self.absmax = max(self.absmax, largest)
        self.squares += float(size @ size)
        mantissa, exponent = np.frexp(size)
        bins = (exponent.astype(np.int64) - LOWEST) * FINE + ((mantissa - 0.5) * (2 * FINE)).astype(np.int64) + 1
        bins = np.where(mantissa == 0.0, 0, np.clip(bins, 0, len(self.counts) - 1))
        self.counts += np.bincount(bins, minlength=len(self.counts))

    def _edge(self, index: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Lower edge of a bin; bin 0 holds zero and everything too small for the others."""
        at = np.asarray(index) - 1
        return np.where(at < 0, 0.0, np.ldexp(0.5 + (at % FINE) / (2 * FINE), at // FINE + LOWEST))

    def quantile(self, share: float) -> float:
        """Magnitude that a share of the values do not exceed, to the width of a bin."""
        index = int(np.searchsorted(np.cumsum(self.counts), math.ceil(self.total * share)))
        return min(float(self._edge(index + 1)), self.absmax)

    def threshold(self, method: str, largest: int, percentile: float = 99.99) -> float:
        """Where to clip; 0 if nothing but zeros was seen."""
        if method not in METHODS:
            raise ConfigurationError(f"`method` must be one of {', '.join(METHODS)}, was {method!r}")
        if not 50.0 <= percentile <= 100.0:
            raise ConfigurationError(f"`percentile` must lie in [50, 100], was {percentile}")
        if method == "absmax" or self.absmax == 0.0:
            return self.absmax
        if method == "percentile":
            # Half of the values may be zero: a threshold of 0 would be no threshold.
            return self.quantile(percentile / 100.0) or self.absmax
        used = np.flatnonzero(self.counts)
        counts = self.counts[used].astype(np.float64)
        middles = np.minimum((self._edge(used) + self._edge(used + 1)) / 2.0, self.absmax)
        best, threshold = math.inf, self.absmax
        for candidate in self.absmax * 2.0 ** (-np.arange(GRID) / 32.0):
            step = candidate / largest
            # A value below half a step becomes zero, which costs its own square and not the average of rounding.
            loss = np.where(middles < step / 2.0, middles**2, step**2 / 12.0)
            loss = np.where(middles > candidate, (middles - candidate) ** 2, loss)
            error = float(counts @ loss)
            if error < best:
                best, threshold = error, float(candidate)
        return threshold

    def scale(self, method: str, number_format: str, percentile: float = 99.99) -> float:
        """The activation scale for a format, as a float32 number; 1 / 127 (or 1 / 32767) where only zeros were seen."""
        largest = LARGEST[number_format]
        threshold = self.threshold(method, largest, percentile) or 1.0
        return float(np.float32(max(threshold / largest, SMALLEST_SCALE)))

    def clipped(self, threshold: float) -> float:
        """Share of the values beyond a threshold, to the width of a bin."""
        if not self.total or threshold >= self.absmax:
            return 0.0
        used = np.flatnonzero(self.counts)
        return float(self.counts[used[self._edge(used) > threshold]].sum()) / self.total

    @property
    def rms(self) -> float:
        """Root mean square of what was seen."""
        return math.sqrt(self.squares / self.total) if self.total else 0.0


def calibrate(
    network: Network, parts: Sequence[FloatArray], progress: Progress | None = None
) -> dict[tuple[int, str], Histogram]:
    """Run the network over the rows and collect what meets its matrices.

    Parameters
    ----------
    network : Network
        The float network.
    parts : sequence of numpy.ndarray
        From :func:`sequences`.
    progress : callable, optional
        Told rows done and rows in all.

    Returns
    -------
    dict of (int, str) to Histogram
        By node and by key of :data:`tengri_fast.inference.network.SCALES`.

    Raises
    ------
    InferenceFailed
        If an activation overflows; the text names the layer.
    """
    found: dict[tuple[int, str], Histogram] = {}

    def observe(index: int, key: str, values: npt.NDArray[np.float64]) -> None:
        layer = network.nodes[index].layer
        if key not in SCALES.get(layer.kind, ()):
            return
        try:
            found.setdefault((index, key), Histogram()).add(values)
        except InferenceFailed as error:
            raise InferenceFailed(f"layer `{layer.name}`, `{key}`: {error}") from error

    done, total = 0, sum(len(part) for part in parts)
    for part in parts:
        evaluate(network, part, observe)
        done += len(part)
        if progress is not None:
            progress(done, total)
    return found
