"""Phase of the cycle from one series: is it above its long mean, and is it rising?"""

from __future__ import annotations

import math
from collections import deque
from typing import Self

import msgspec
import numpy as np

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.external.common import (
    LAST_NS,
    NotPickled,
    SourceCounters,
    Values,
    decode_state,
    number,
    sound_counters,
    usable_time,
)
from tengri_fast.market.columns import ExternalColumns

__all__ = ["PHASES", "Regime", "regimes"]

_VERSION = 1

#: Code of each phase: the sign says whether the level is above its mean, the size whether it moves that way.
PHASES = {2.0: "expansion", 1.0: "slowdown", -1.0: "recovery", -2.0: "contraction"}


class _State(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    kind: str
    version: int
    lookback: int
    minimum: int
    last_ts: int
    recent: tuple[float, ...]
    mean: tuple[int, float]
    counters: SourceCounters


class Regime(NotPickled):
    """Phase of a series as observations ``[code, change, level less mean, NaN]``.

    Parameters
    ----------
    lookback : int
        Observations over which the change is taken (3: three months of a monthly series).
    minimum : int
        Observations before the first phase, more than `lookback`.

    Notes
    -----
    With m the mean of all values so far and d the change over `lookback` observations: above m and d >= 0 is expansion
    (2), above and falling slowdown (1), at or below m and d > 0 recovery (-1), else contraction (-2). Only values up
    to the observation enter. For a series in which more is worse (unemployment), turn the sign of the values first.
    """

    name = "Regime"

    __slots__ = ("_last_ts", "_mean", "_recent", "counters", "lookback", "minimum")

    def __init__(self, *, lookback: int = 3, minimum: int = 24) -> None:
        if not isinstance(lookback, int) or not 1 <= lookback <= 10_000:
            raise FeatureExtractionError(f"`lookback` must be from 1 to 10000, was {lookback!r}")
        if not isinstance(minimum, int) or minimum <= lookback:
            raise FeatureExtractionError(f"`minimum` must be above `lookback` ({lookback}), was {minimum!r}")
        self.lookback = lookback
        self.minimum = minimum
        self.reset()

    def reset(self) -> None:
        """Forget everything but the parameters."""
        self._last_ts = 0
        self._recent: deque[float] = deque(maxlen=self.lookback)
        self._mean = (0, 0.0)
        self.counters = SourceCounters()

    def push(self, ts_event: int, value: float) -> Values | None:
        """Take one value.

        None before `minimum` of them (`warming`), or if it is not finite, beyond 1e100, or older
        than the last.
        """
        count = self.counters
        value = number(value)
        if not usable_time(ts_event) or not abs(value) <= 1e100:
            count.invalid += 1
            return None
        if ts_event < self._last_ts:
            count.backward += 1
            return None
        self._last_ts = int(ts_event)
        seen, mean = self._mean
        mean += (value - mean) / (seen + 1)
        self._mean = (seen + 1, mean)
        before = self._recent[0] if len(self._recent) == self.lookback else math.nan
        self._recent.append(value)
        if seen + 1 < self.minimum:
            count.warming += 1
            return None
        change = value - before
        above = 2.0 if change >= 0.0 else 1.0
        below = -1.0 if change > 0.0 else -2.0
        count.accepted += 1
        return above if value > mean else below, change, value - mean, math.nan

    def copy(self) -> Self:
        """An independent classifier in the same state."""
        return type(self).from_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Parameters and state, for `from_bytes`."""
        return msgspec.msgpack.encode(_State(self.name, _VERSION, self.lookback, self.minimum, self._last_ts,
                                             tuple(self._recent), self._mean, self.counters))  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """A classifier that continues with the same bits; FeatureExtractionError if `data` is no such state."""
        state = decode_state(data, cls.name, _VERSION, _State)
        made = cls(lookback=state.lookback, minimum=state.minimum)
        if (
            not 0 <= state.last_ts < LAST_NS
            or len(state.recent) > state.lookback
            or not all(math.isfinite(value) for value in (*state.recent, state.mean[1]))
            or state.mean[0] < len(state.recent)
            or not sound_counters(state.counters)
        ):
            raise FeatureExtractionError("`data` must be a sound state of Regime, had numbers out of range")
        made._last_ts, made._mean, made.counters = state.last_ts, state.mean, state.counters
        made._recent.extend(state.recent)
        return made


def regimes(columns: ExternalColumns, *, lookback: int = 3, minimum: int = 24) -> ExternalColumns:
    """Phases of a series of observations, from their first value.

    Parameters
    ----------
    columns : ExternalColumns
        In order of time, such as of `MacroEconomic`.
    lookback, minimum : int
        As for `Regime`.

    Returns
    -------
    ExternalColumns
        Values ``[code, change, level less mean, NaN]`` at the times of the observations they come from, without the
        first ``minimum - 1``.
    """
    phase = Regime(lookback=lookback, minimum=minimum)
    found = [
        phase.push(int(ts), float(value)) for ts, value in zip(columns.ts_event, columns.values[:, 0], strict=True)
    ]
    rows = [i for i, values in enumerate(found) if values is not None]
    values = np.array([v for v in found if v is not None], np.float64).reshape(len(rows), 4)
    return ExternalColumns(columns.ts_event[rows], columns.ts_init[rows], values)
