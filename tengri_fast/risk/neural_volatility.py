"""The recurrent volatility forecaster: plain features of returns in, logarithm of the next variance out.

The network corrects an exponentially weighted variance a, it does not replace it: log h = log a + y, where y is its
answer. Everything it sees is a ratio to a, so the level of volatility, and with it the instrument and its unit, drop
out, and a network that answers 0 is the EWMA model. Features and anchor are computed here in double, the network runs
in whatever session it is given; :func:`tengri_fast.runtime.volatility.load_volatility` gives it the C engine's.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError, InferenceFailed
from tengri_fast.risk.volatility import SMALLEST_SIGMA, check_observation, pack_state, unpack_state

__all__ = ["FEATURES", "WARMUP", "NeuralVolatility", "StreamingSession", "VolatilityFeatures", "forecast_variances"]

#: What the network sees of each period, in this order; v is a running mean square over about that many periods.
FEATURES = (
    "log(r^2 / a)",
    "log(v5 / a)",
    "log(v66 / a)",
    "log(v250 / a)",
    "r / sqrt(a)",
    "log(m / a)",
    "log(m5 / a)",
    "log(m22 / a)",
    "has m",
)
#: Returns before a forecast is given.
WARMUP = 66

ANCHOR_DECAY = 0.94
_FLOOR = SMALLEST_SIGMA**2
# Share of the anchor that is added before a logarithm, and the largest logarithm: a zero or a wild return is finite.
_SHARE, _HIGHEST = 0.01, 4.0
_LARGEST_ANSWER = 4.0
_STATE = 10


class StreamingSession(Protocol):
    """What a network session must offer; :class:`tengri_fast.inference.Session` does."""

    @property
    def input(self) -> npt.NDArray[np.float32]:
        """The row that the next step reads."""
        ...

    def finish(self) -> npt.NDArray[np.float32]:
        """The answer to the row in ``input``."""
        ...

    def prepare(self) -> None:
        """Everything that does not need the next row."""
        ...

    def reset(self) -> None:
        """Zero state."""
        ...

    def to_bytes(self) -> bytes:
        """The exact state."""
        ...

    def from_bytes(self, data: bytes) -> None:
        """Restore it."""
        ...


class VolatilityFeatures:
    """The inputs of the network, one period at a time; training and live running share this code.

    Each running mean takes the plain mean at first and weights of 1 / length later, so that it needs no starting guess.
    """

    __slots__ = ("_a", "_long", "_m5", "_m22", "_measured", "_quarter", "_seen", "_week")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget every period."""
        self._seen = 0
        self._measured = 0
        self._a = self._week = self._quarter = self._long = self._m5 = self._m22 = 0.0

    @property
    def seen(self) -> int:
        """Periods taken in."""
        return self._seen

    @property
    def anchor(self) -> float:
        """The exponentially weighted variance after the last period."""
        return max(self._a, _FLOOR)

    def update(self, return_: float, realised: float, row: npt.NDArray[np.float32]) -> None:
        """Take in a checked period and write its features to ``row`` [9]."""
        self._seen += 1
        seen = self._seen
        square = return_ * return_
        self._a += max(1.0 - ANCHOR_DECAY, 1.0 / seen) * (square - self._a)
        self._week += max(1.0 / 5.0, 1.0 / seen) * (square - self._week)
        self._quarter += max(1.0 / 66.0, 1.0 / seen) * (square - self._quarter)
        self._long += max(1.0 / 250.0, 1.0 / seen) * (square - self._long)
        anchor = max(self._a, _FLOOR)
        row[0] = _ratio(square, anchor)
        row[1] = _ratio(self._week, anchor)
        row[2] = _ratio(self._quarter, anchor)
        row[3] = _ratio(self._long, anchor)
        row[4] = return_ / math.sqrt(anchor)
        if math.isnan(realised):
            row[5] = row[6] = row[7] = row[8] = 0.0
            return
        self._measured += 1
        self._m5 += max(1.0 / 5.0, 1.0 / self._measured) * (realised - self._m5)
        self._m22 += max(1.0 / 22.0, 1.0 / self._measured) * (realised - self._m22)
        row[5] = _ratio(realised, anchor)
        row[6] = _ratio(self._m5, anchor)
        row[7] = _ratio(self._m22, anchor)
        row[8] = 1.0

    def state(self) -> tuple[float, ...]:
        """Everything that decides the next row, as numbers."""
        return (float(self._seen), float(self._measured), self._a, self._week, self._quarter, self._long, self._m5,
                self._m22)  # fmt: skip

    def restore(self, state: tuple[float, ...]) -> None:
        """The reverse of :meth:`state`."""
        seen, measured, self._a, self._week, self._quarter, self._long, self._m5, self._m22 = state
        self._seen, self._measured = int(seen), int(measured)

    def rows(
        self, returns: npt.ArrayLike, realised: npt.ArrayLike | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Take in a series at once.

        Parameters
        ----------
        returns : array_like, shape (T,)
        realised : array_like, shape (T,), optional
            NaN where there is none.

        Returns
        -------
        rows : ndarray of float32, shape (T, 9)
        anchors : ndarray, shape (T,)
            After each period.

        Raises
        ------
        DataConversionError
            When a value breaks the rule of :meth:`~tengri_fast.risk.volatility.NeuralRiskModel.update`.
        """
        values = np.asarray(returns, dtype=np.float64)
        measured = np.full(len(values), np.nan) if realised is None else np.asarray(realised, dtype=np.float64)
        if values.ndim != 1 or measured.shape != values.shape:
            raise DataConversionError(
                f"`returns` and `realised` must have one shape (T,), had {values.shape} and {measured.shape}"
            )
        table = np.empty((len(values), len(FEATURES)), dtype=np.float32)
        anchors = np.empty(len(values))
        for t, (r, m) in enumerate(zip(values.tolist(), measured.tolist(), strict=True)):
            check_observation(r, m)
            self.update(r, m, table[t])
            anchors[t] = self.anchor
        return table, anchors


def _ratio(value: float, anchor: float) -> float:
    return min(math.log(value / anchor + _SHARE), _HIGHEST)


class NeuralVolatility:
    """A volatility network on the stream of one instrument.

    Parameters
    ----------
    session : StreamingSession
        State of the network for this instrument; owned from here on.
    name : str
        Stands in reports.

    Notes
    -----
    One period ahead. The answer is clipped to a factor of e^4 around the anchor. A network answer that is not finite
    raises InferenceFailed at :meth:`update`, and there is no forecast until :meth:`reset`: never a stale one.
    """

    horizon = 1

    def __init__(self, session: StreamingSession, name: str) -> None:
        if session.input.shape != (len(FEATURES),):
            raise ConfigurationError(f"`session` must take {len(FEATURES)} inputs, takes {session.input.shape}")
        self.name = name
        self._session = session
        self._row = session.input
        self._features = VolatilityFeatures()
        self._sigma = math.nan
        self._healthy = True

    @property
    def ready(self) -> bool:
        """Whether :data:`WARMUP` periods were seen and every answer was finite."""
        return self._healthy and self._features.seen >= WARMUP

    def update(self, return_: float, realised: float = math.nan) -> None:
        """Take in a period: features, then one step of the network."""
        check_observation(return_, realised)
        features = self._features
        features.update(return_, realised, self._row)
        answer = float(self._session.finish()[0])
        self._session.prepare()
        if not math.isfinite(answer):
            self._healthy = False
            self._sigma = math.nan
            raise InferenceFailed(f"answer of {self.name} must be finite, was {answer}")
        correction = min(max(answer, -_LARGEST_ANSWER), _LARGEST_ANSWER)
        self._sigma = max(math.sqrt(features.anchor * math.exp(correction)), SMALLEST_SIGMA)

    def forecast(self) -> float:
        """Sigma of the next period; NaN until ready."""
        return self._sigma if self.ready else math.nan

    def reset(self) -> None:
        """Forget every period."""
        self._features.reset()
        self._session.reset()
        self._sigma = math.nan
        self._healthy = True

    def to_bytes(self) -> bytes:
        """The exact state, of the features and of the network."""
        if not self._healthy:
            raise InferenceFailed(f"state of {self.name} must be finite to be kept, was not: reset() it")
        sigma = 0.0 if math.isnan(self._sigma) else self._sigma
        own = pack_state(self.name, (*self._features.state(), sigma, float(len(self._session.to_bytes()))))
        return struct.pack("<I", len(own)) + own + self._session.to_bytes()

    def from_bytes(self, data: bytes) -> None:
        """Restore a state of the same network."""
        if len(data) < 4:
            raise DataConversionError(f"`data` must have at least 4 bytes, had {len(data)}")
        (length,) = struct.unpack_from("<I", data)
        *state, sigma, rest = unpack_state(self.name, _STATE, data[4 : 4 + length])
        inner = data[4 + length :]
        if len(inner) != int(rest):
            raise DataConversionError(
                f"`data` must end with {int(rest)} bytes of network state, ended with {len(inner)}"
            )
        self._session.from_bytes(inner)
        self._features.restore(tuple(state))
        self._sigma = sigma if sigma > 0.0 else math.nan
        self._healthy = True


def forecast_variances(
    network: Any, returns: npt.ArrayLike, realised: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Variances that the stream would have forecast, over a whole series.

    Parameters
    ----------
    network : object with ``run_window(rows [T, 9]) -> [T, 1]``
        :class:`tengri_fast.inference.Model`, for one.
    returns, realised : array_like, shape (T,)
        As in :meth:`VolatilityFeatures.rows`.

    Returns
    -------
    ndarray, shape (T,)
        Entry t is the variance of period t + 1 given periods 0..t; not NaN before the warm-up, so the caller cuts.
    """
    rows, anchors = VolatilityFeatures().rows(returns, realised)
    answers = np.asarray(network.run_window(rows), dtype=np.float64)[:, 0]
    if not np.isfinite(answers).all():
        raise InferenceFailed(f"answers must be finite, are not at {int(np.argmin(np.isfinite(answers)))}")
    # NumPy's exponential may differ from the stream's in the last bit.
    clipped = np.clip(answers, -_LARGEST_ANSWER, _LARGEST_ANSWER).tolist()
    scaled = anchors * np.array([math.exp(value) for value in clipped])
    result: npt.NDArray[np.float64] = np.maximum(scaled, _FLOOR)
    return result
