"""Economic releases as observations: what came, what was expected, and how far expectations usually miss.

Everything that goes with a release is known before it: the forecast from earlier values only, the spread of surprises
from earlier surprises only. One object is one series.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError, FeatureExtractionError
from tengri_fast.features.external.common import (
    DAY_NS,
    LAST_NS,
    NotPickled,
    SourceCounters,
    SourceInfo,
    StrPath,
    Values,
    available_from,
    checked_delay,
    columns_from,
    decode_state,
    number,
    number_of_text,
    read_table,
    sound_counters,
    stamp_of,
    time_order,
    usable_time,
)
from tengri_fast.market.columns import ExternalColumns

__all__ = ["FORECASTS", "TRANSFORMS", "MacroEconomic", "transformed"]

_VERSION = 1
_LARGEST = 1e100  # so that no sum of squares overflows

#: Where the forecast of a release comes from.
FORECASTS: Mapping[str, str] = {
    "given": "the message's own (a survey); NaN without one",
    "random_walk": "the value before",
    "ar1": "a first-order autoregression fitted to the values before",
}

#: The transform codes of FRED-MD (McCracken and Ng, "FRED-MD: A Monthly Database for Macroeconomic Research", 2016).
TRANSFORMS: Mapping[int, str] = {
    1: "x",
    2: "x - x[-1]",
    3: "second difference of x",
    4: "log x",
    5: "log x - log x[-1]",
    6: "second difference of log x",
    7: "growth x / x[-1] - 1, less the growth before",
}


def transformed(code: int, x: float, before: float, before_that: float) -> float:
    """A level by a transform code of FRED-MD, from itself and the two levels before it.

    Parameters
    ----------
    code : int
        1 to 7, see `TRANSFORMS`.
    x, before, before_that : float
        NaN where there is none.

    Returns
    -------
    float
        NaN if a level that the code needs is missing, or not positive before a logarithm, or zero under a ratio.
    """
    if code == 1:
        return x
    if code == 2:
        return x - before
    if code == 3:
        return (x - before) - (before - before_that)
    if code == 7:  # the levels may be negative, as non-borrowed reserves were in 2008
        if before == 0.0 or before_that == 0.0:
            return math.nan
        return (x / before - 1.0) - (before / before_that - 1.0)
    if not x > 0.0:
        return math.nan
    if code == 4:
        return math.log(x)
    if not before > 0.0:
        return math.nan
    if code == 5:
        return math.log(x) - math.log(before)
    if not before_that > 0.0:
        return math.nan
    return (math.log(x) - math.log(before)) - (math.log(before) - math.log(before_that))


class _State(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    kind: str
    version: int
    series: str
    forecast: str
    transform: int
    minimum: int
    last_ts: int
    last_message: tuple[float, float, float]
    levels: tuple[float, float]
    last: float
    pairs: tuple[int, float, float, float, float]
    surprises: tuple[int, float, float]
    counters: SourceCounters


class MacroEconomic(NotPickled):
    """Releases of one series as observations ``[actual, forecast, previous, spread of past surprises]``.

    Parameters
    ----------
    series : str
        Name of the series; needed where a file holds several.
    forecast : {"given", "random_walk", "ar1"}
        See `FORECASTS`. The last two ignore a forecast in the message, so that surprises of two kinds are never mixed.
    transform : int
        Code 1 to 7 of `TRANSFORMS`; actual, forecast and previous are then of the transformed value. Other codes than 1
        need a forecast that is not "given", because a survey's would be in other units.
    minimum : int
        Pairs of successive values that "ar1" needs before its first forecast, at least 3.

    Notes
    -----
    "ar1" is least squares of each value on the one before, over all values so far, by running means and co-moments
    (Welford 1962), so a release costs the same however long the history; the slope is kept within -1 and 1. The spread
    is the sample standard deviation of ``actual - forecast`` of the earlier releases, NaN before two of them; the
    surprise of the release itself is not in it. `previous` is the message's, or else the last value.

    Rules in this order: time unusable, a value beyond 1e100 or no number (`invalid`), older than the last release
    (`backward`), the same message again (`duplicate`), no value yet (NaN: `missing`; it also breaks the chain of
    successive values), transform not ready, or beyond
    1e100 (`warming`). A revision is a message like any other: with the last vintage
    of a file the values are what is known today, not what was known then.
    """

    name = "MacroEconomic"
    info = SourceInfo(
        "MacroEconomic",
        "Economic releases with forecast and spread of past surprises",
        ("actual", "forecast", "previous", "standard deviation of past surprises"),
        ("of the series", "of the series", "of the series", "of the series"),
        45 * DAY_NS,
    )

    __slots__ = ("_last", "_last_message", "_last_ts", "_levels", "_pairs", "_surprises", "counters", "forecast",
                 "minimum", "series", "transform")  # fmt: skip

    def __init__(self, series: str = "", *, forecast: str = "given", transform: int = 1, minimum: int = 24) -> None:
        if not isinstance(series, str) or len(series) > 500:
            raise FeatureExtractionError(f"`series` must be text of at most 500 characters, was {series!r:.60}")
        if forecast not in FORECASTS:
            raise FeatureExtractionError(f"`forecast` must be one of {', '.join(FORECASTS)}, was {forecast!r}")
        if transform not in TRANSFORMS:
            raise FeatureExtractionError(f"`transform` must be a code from 1 to 7, was {transform!r}")
        if transform != 1 and forecast == "given":
            raise FeatureExtractionError(
                f"`forecast` must be random_walk or ar1 with `transform` {transform}, was 'given'"
            )
        if not isinstance(minimum, int) or not 3 <= minimum <= 1_000_000:
            raise FeatureExtractionError(f"`minimum` must be from 3 to 1000000, was {minimum!r}")
        self.series = series
        self.forecast = forecast
        self.transform = int(transform)
        self.minimum = minimum
        self.reset()

    def reset(self) -> None:
        """Forget everything but the parameters."""
        self._last_ts = 0
        self._last_message = (math.nan, math.nan, math.nan)
        self._levels = (math.nan, math.nan)
        self._last = math.nan
        self._pairs = (0, 0.0, 0.0, 0.0, 0.0)  # count, mean of x and of y, co-moments xx and xy
        self._surprises = (0, 0.0, 0.0)  # count, mean, sum of squares about it
        self.counters = SourceCounters()

    def push(
        self, ts_event: int, actual: float, forecast: float = math.nan, previous: float = math.nan
    ) -> Values | None:
        """Take one release.

        Parameters
        ----------
        ts_event : int
            Time of publication, UTC ns: never the period the value is about.
        actual : float
            The value (before `transform`); NaN if it is not known yet.
        forecast, previous : float
            NaN where there is none.

        Returns
        -------
        tuple of 4 float, or None
            The values of the observation, None if a rule dropped the release.
        """
        count = self.counters
        message = (number(actual), number(forecast), number(previous))
        if not usable_time(ts_event) or any(abs(value) > _LARGEST for value in message) or not _is_number(actual):
            count.invalid += 1
            return None
        if ts_event < self._last_ts:
            count.backward += 1
            return None
        if ts_event == self._last_ts and all(a == b or (a != a and b != b) for a, b in
                                             zip(message, self._last_message, strict=True)):  # fmt: skip
            count.duplicate += 1
            return None
        self._last_ts, self._last_message = int(ts_event), message
        before, before_that = self._levels
        self._levels = (message[0], before)
        value = transformed(self.transform, message[0], before, before_that) + 0.0
        if not abs(value) <= _LARGEST:
            self._last = math.nan
            if message[0] != message[0]:
                count.missing += 1
            else:
                count.warming += 1
            return None
        expected = message[1] if self.forecast == "given" else self._expected()
        last = message[2] if message[2] == message[2] and self.transform == 1 else self._last
        spread = self._spread()
        self._learn(value, expected)
        count.accepted += 1
        return value, expected, last, spread

    def _expected(self) -> float:
        if self.forecast == "random_walk":
            return self._last
        pairs, mean_x, mean_y, xx, xy = self._pairs
        if pairs < self.minimum:
            return math.nan
        slope = min(max(xy / xx, -1.0), 1.0) if xx > 0.0 else 0.0
        expected = mean_y + slope * (self._last - mean_x)
        return expected if math.isfinite(expected) else math.nan

    def _spread(self) -> float:
        surprises, _, squares = self._surprises
        return math.sqrt(squares / (surprises - 1)) if surprises >= 2 else math.nan

    def _learn(self, value: float, expected: float) -> None:
        if self._last == self._last:
            pairs, mean_x, mean_y, xx, xy = self._pairs
            pairs += 1
            dx, dy = self._last - mean_x, value - mean_y
            mean_x += dx / pairs
            mean_y += dy / pairs
            self._pairs = (pairs, mean_x, mean_y, xx + dx * (self._last - mean_x), xy + dx * (value - mean_y))
        self._last = value
        surprise = value - expected
        if math.isfinite(surprise):
            surprises, mean, squares = self._surprises
            surprises += 1
            step = surprise - mean
            mean += step / surprises
            self._surprises = (surprises, mean, squares + step * (surprise - mean))

    def observations(self, ts_event: npt.ArrayLike, actual: npt.ArrayLike, forecast: npt.ArrayLike | None = None,
                     previous: npt.ArrayLike | None = None, *, delay_ns: int = 0) -> ExternalColumns:  # fmt: skip
        """Observations of a history, which continues where the state stands.

        Parameters
        ----------
        ts_event : array_like of int [n]
            Times of publication, UTC ns; rows that run backward are first sorted into place (stable).
        actual : array_like of float [n]
        forecast, previous : array_like of float [n], optional
        delay_ns : int
            From publication to receipt: ``ts_init = ts_event + delay_ns``.

        Returns
        -------
        ExternalColumns
            What `push` would have returned, row by row.
        """
        checked_delay(delay_ns)
        times = np.asarray(ts_event)
        if times.ndim != 1 or (times.size and times.dtype.kind not in "iu"):
            raise DataConversionError(f"`ts_event` must be one column of whole nanoseconds, had type {times.dtype} and "
                                      f"shape {times.shape}")  # fmt: skip
        columns = []
        for field, given in (("actual", actual), ("forecast", forecast), ("previous", previous)):
            array = np.full(len(times), np.nan) if given is None else np.asarray(given)
            if array.shape != times.shape or (array.size and array.dtype.kind not in "fiu"):
                raise DataConversionError(f"`{field}` must be {len(times)} numbers, had shape {array.shape} and type "
                                          f"{array.dtype}")  # fmt: skip
            columns.append(array.astype(np.float64).tolist())
        order = time_order(times, self.counters)
        rows = []
        for i in range(len(times)) if order is None else order.tolist():
            values = self.push(int(times[i]), columns[0][i], columns[1][i], columns[2][i])
            if values is not None:
                rows.append((int(times[i]), values))
        return columns_from(rows, delay_ns)

    def from_file(
        self, path: StrPath, *, columns: Mapping[str, str] | None = None, delay_ns: int = 0
    ) -> ExternalColumns:
        """Observations of this series in a release calendar (Parquet, .csv or .csv.gz).

        Parameters
        ----------
        path : path
        columns : mapping, optional
            Our field to the file's column where that differs: release_time, name, actual, forecast, previous. The name
            is needed where the file holds several series, forecast and previous may be missing.
        delay_ns : int

        Returns
        -------
        ExternalColumns
            Times are whole UTC ns or ISO 8601 text (UTC without an offset); a date alone counts from the end of that
            day. An empty actual is a release to come (`missing`), a row without a usable time or with text for a
            number is `invalid`.

        Raises
        ------
        DataConversionError
            If the file or a column is missing, or holds several series and `series` names none of them.
        """
        fields = {"time": "release_time", "name": "name", "actual": "actual", "forecast": "forecast",
                  "previous": "previous"}  # fmt: skip
        keep = ("name", [self.series]) if self.series else None
        found = read_table(path, fields, columns, optional=frozenset({"name", "forecast", "previous"}), keep=keep)
        names = set(found.get("name", []))
        if self.series and "name" in found and not names:
            raise DataConversionError(f"`series` must be in {path}, was {self.series!r}")
        if not self.series and len(names) > 1:
            raise DataConversionError(f"`series` must be given: the file holds {len(names)}, such as {min(names)!r}")
        rows = len(found["time"])
        empty: list[Any] = [math.nan] * rows
        times, cells = [], []
        for time, *numbers in zip(found["time"], found["actual"], found.get("forecast", empty),
                                  found.get("previous", empty), strict=True):  # fmt: skip
            stamp, is_date = stamp_of(time)
            values = [math.nan if cell is None or cell == "" else number_of_text(cell) for cell in numbers]
            if stamp < 0 or any(isinstance(cell, str) and cell and value != value and cell.lower() != "nan"
                                for cell, value in zip(numbers, values, strict=True)):  # fmt: skip
                self.counters.invalid += 1
                continue
            times.append(available_from(stamp, "day") if is_date else stamp)
            cells.append(values)
        grid = np.array(cells, np.float64).reshape(len(cells), 3)
        return self.observations(np.array(times, np.int64), grid[:, 0], grid[:, 1], grid[:, 2], delay_ns=delay_ns)

    def copy(self) -> Self:
        """An independent source in the same state."""
        return type(self).from_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Parameters and state, for `from_bytes`."""
        return msgspec.msgpack.encode(_State(
            self.name, _VERSION, self.series, self.forecast, self.transform, self.minimum, self._last_ts,
            self._last_message, self._levels, self._last, self._pairs, self._surprises, self.counters))  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """A source that continues with the same bits.

        Raises
        ------
        FeatureExtractionError
            If `data` is not such a state.
        """
        state = decode_state(data, cls.name, _VERSION, _State)
        sums = (*state.pairs, *state.surprises)
        if (
            not 0 <= state.last_ts < LAST_NS
            or not all(math.isfinite(value) for value in sums)
            or min(state.pairs[0], state.pairs[3], state.surprises[0], state.surprises[2]) < 0
            or any(math.isinf(value) for value in (*state.last_message, *state.levels, state.last))
            or not sound_counters(state.counters)
        ):
            raise FeatureExtractionError("`data` must be a sound state of MacroEconomic, had numbers out of range")
        source = cls(state.series, forecast=state.forecast, transform=state.transform, minimum=state.minimum)
        source._last_ts, source._last_message = state.last_ts, state.last_message
        source._levels, source._last = state.levels, state.last
        source._pairs, source._surprises = state.pairs, state.surprises
        source.counters = state.counters
        return source


def _is_number(value: Any) -> bool:
    return isinstance(value, (float, int, np.floating, np.integer))
