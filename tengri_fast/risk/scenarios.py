"""Return scenarios: joint relative price moves of all instruments over one horizon, from history.

A scenario is one column of a float32 matrix [N][S]: the simple return P(t + horizon) / P(t) - 1 of every instrument
over the same stretch of time, so that the joint behaviour is the one that happened. Rows are contiguous, because the
gate adds one instrument at a time.

*Overlap.* Windows start at every sampling step, so neighbours share most of their path. That uses all data of a short
history, but S overlapping windows carry about S * step / horizon independent observations: the tail of 1,000 one-minute
scenarios from 1-second steps rests on some 17 minutes. Nothing is scaled by the square root of time.

*Files.* ``.npz`` with plain arrays, read with ``allow_pickle=False``, written to a temporary file and renamed.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk._files import written_whole

__all__ = ["ScenarioSet", "scenario_builder"]

_SECOND = 1_000_000_000
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class ScenarioSet:
    """Joint returns of instruments over one horizon.

    Parameters
    ----------
    instrument_ids : sequence of str
        N distinct names.
    returns : array_like, shape (N, S)
        Simple returns, finite and >= -1; kept as read-only contiguous float32. The last column is the most recent.
    horizon_ns : int
        Length of every scenario, ns.
    provenance : mapping of str to str
        Where the returns come from, for the report.

    Raises
    ------
    DataConversionError
        When a field breaks its rule; the message names the first offending instrument and scenario.
    """

    instrument_ids: tuple[str, ...]
    returns: npt.NDArray[np.float32]
    horizon_ns: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = tuple(self.instrument_ids)
        if not names or not all(isinstance(name, str) and name for name in names):
            raise DataConversionError(f"`instrument_ids` must be names that are not empty, was {names!r}")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataConversionError(f"`instrument_ids` must be distinct, {twice!r} is there twice")
        raw = np.asarray(self.returns)
        if raw.dtype.kind not in "fiu":
            raise DataConversionError(f"`returns` must be numbers, had dtype {raw.dtype}")
        if raw.ndim != 2 or raw.shape[0] != len(names) or raw.shape[1] < 1:
            raise DataConversionError(
                f"`returns` must have shape ({len(names)}, S), S >= 1, one row per instrument; had shape {raw.shape}"
            )
        with np.errstate(over="ignore"):
            returns = np.array(raw, dtype=np.float32, order="C")
        bad = ~np.isfinite(returns) | (returns < -1.0)
        if bad.any():
            i, s = (int(x) for x in np.argwhere(bad)[0])
            raise DataConversionError(
                f"`returns` must be finite and >= -1, was {raw[i, s]} for {names[i]} in scenario {s} "
                f"({int(bad.sum())} such values)"
            )
        if isinstance(self.horizon_ns, bool) or int(self.horizon_ns) != self.horizon_ns or self.horizon_ns < 1:
            raise DataConversionError(f"`horizon_ns` must be an integer >= 1, was {self.horizon_ns!r}")
        returns.setflags(write=False)
        object.__setattr__(self, "instrument_ids", names)
        object.__setattr__(self, "returns", returns)
        object.__setattr__(self, "horizon_ns", int(self.horizon_ns))
        object.__setattr__(self, "provenance", {str(key): str(value) for key, value in self.provenance.items()})

    @property
    def count(self) -> int:
        """Number of scenarios S."""
        return int(self.returns.shape[1])

    def row(self, instrument_id: str) -> int | None:
        """Row of an instrument, None when it has no scenarios."""
        try:
            return self.instrument_ids.index(instrument_id)
        except ValueError:
            return None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> ScenarioSet:
        """Read a set written by :meth:`to_file`.

        Raises
        ------
        ConfigurationError
            When there is no such file.
        DataConversionError
            When the file is truncated, holds Python objects, misses an array, or its content breaks a rule.
        """
        source = Path(path)
        if not source.is_file():
            raise ConfigurationError(f"`scenarios` must name a file, was {str(source)!r}, which does not exist")
        try:
            with np.load(source, allow_pickle=False) as archive:
                missing = {"format", "instrument_ids", "returns", "horizon_ns", "provenance"} - set(archive.files)
                if missing:
                    raise DataConversionError(f"{source.name} must hold the arrays {sorted(missing)}, they are missing")
                version = int(archive["format"])
                if version != _FORMAT:
                    raise DataConversionError(f"{source.name} must have format {_FORMAT}, had {version}")
                names = [str(name) for name in archive["instrument_ids"]]
                provenance = json.loads(str(archive["provenance"]))
                if not isinstance(provenance, dict):
                    raise DataConversionError(f"{source.name}: `provenance` must be a table, was {provenance!r}")
                horizon = int(archive["horizon_ns"])
                return cls(tuple(names), archive["returns"], horizon, provenance)
        except DataConversionError as error:
            raise DataConversionError(f"{source.name}: {error}") from error
        except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise DataConversionError(
                f"{source.name} is not a scenario file (.npz of plain arrays): {type(error).__name__}: {error}"
            ) from error

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write the set: all of it or, when anything fails, nothing."""
        with written_whole(path) as stream:
            np.savez(
                stream,
                format=np.int64(_FORMAT),
                instrument_ids=np.array(self.instrument_ids, dtype=np.str_),
                returns=self.returns,
                horizon_ns=np.int64(self.horizon_ns),
                provenance=np.array(json.dumps(dict(self.provenance), sort_keys=True), dtype=np.str_),
            )

    @classmethod
    def from_prices(
        cls,
        instrument_ids: Sequence[str],
        prices: npt.ArrayLike,
        *,
        step_ns: int,
        horizon_ns: int,
        max_scenarios: int | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> ScenarioSet:
        """Overlapping returns of evenly sampled prices without gaps.

        Parameters
        ----------
        instrument_ids : sequence of str
            N names.
        prices : array_like, shape (T, N) or (T,) for one instrument
            Prices, finite and > 0, one row per sampling time, oldest first.
        step_ns, horizon_ns : int
            Sampling step and length of a scenario; the horizon is a multiple of the step.
        max_scenarios : int, optional
            Keep the most recent ones only.
        provenance : mapping, optional
            Extra facts for the report.

        Raises
        ------
        DataConversionError
            When shape, values or times break a rule.
        """
        table = np.asarray(prices)
        if table.dtype.kind not in "fiu":
            raise DataConversionError(f"`prices` must be numbers, had dtype {table.dtype}")
        table = table.astype(np.float64)
        if table.ndim == 1:
            table = table[:, None]
        if table.ndim != 2 or table.shape[1] != len(instrument_ids):
            raise DataConversionError(
                f"`prices` must have shape (T, {len(instrument_ids)}): one column per instrument; had {table.shape}"
            )
        bad = ~(np.isfinite(table) & (table > 0.0))
        if bad.any():
            t, i = (int(x) for x in np.argwhere(bad)[0])
            raise DataConversionError(
                f"`prices` must be finite and > 0, was {table[t, i]} for {instrument_ids[i]} in row {t}"
            )
        steps = _steps(step_ns, horizon_ns)
        if table.shape[0] <= steps:
            raise DataConversionError(
                f"`prices` must have more than {steps} rows for a horizon of {steps} steps, had {table.shape[0]}"
            )
        returns = (table[steps:] / table[:-steps] - 1.0).T
        if max_scenarios is not None:
            returns = returns[:, -_at_least_one("max_scenarios", max_scenarios) :]
        facts = {"step_ns": str(step_ns), "overlapping": "yes" if steps > 1 else "no", **(provenance or {})}
        return cls(tuple(instrument_ids), returns, horizon_ns, facts)


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise DataConversionError(f"`{name}` must be >= 1, was {value}")
    return value


def _steps(step_ns: int, horizon_ns: int) -> int:
    _at_least_one("step_ns", step_ns)
    _at_least_one("horizon_ns", horizon_ns)
    if horizon_ns % step_ns:
        raise DataConversionError(f"`horizon_ns` must be a multiple of `step_ns` ({step_ns}), was {horizon_ns}")
    return horizon_ns // step_ns


def _series(name: str, source: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Times and mids of one instrument, cleaned: invalid or crossed quotes and backward times are left out."""
    if hasattr(source, "ts_event"):
        bid = np.asarray(source.bid_price, dtype=np.float64)
        ask = np.asarray(source.ask_price, dtype=np.float64)
        ts = np.asarray(source.ts_event)
        usable = np.isfinite(bid) & np.isfinite(ask) & (bid > 0.0) & (ask >= bid)
        mid = 0.5 * (bid + ask)
    else:
        ts, mid = np.asarray(source[0]), np.asarray(source[1], dtype=np.float64)
        usable = np.isfinite(mid) & (mid > 0.0)
    if ts.ndim != 1 or mid.shape != ts.shape or ts.dtype.kind not in "iu":
        raise DataConversionError(
            f"{name}: times must be integers and as many as mids, had {ts.dtype} {ts.shape} and {mid.shape}"
        )
    ts = ts.astype(np.int64)
    ts, mid = ts[usable], mid[usable]
    if ts.size == 0:
        raise DataConversionError(f"{name}: must have at least one valid quote, had none")
    forward = ts >= np.maximum.accumulate(ts)
    return ts[forward], mid[forward]


def scenario_builder(
    series: Mapping[str, Any],
    *,
    horizon_ns: int,
    step_ns: int = _SECOND,
    max_gap_ns: int = 5 * _SECOND,
    max_scenarios: int | None = None,
    provenance: Mapping[str, str] | None = None,
) -> ScenarioSet:
    """Scenarios from ticks: sample the last known mid on a regular grid, then take overlapping returns.

    Several recording windows may simply be concatenated: a scenario is kept only when it lies, for every instrument,
    between quotes of which no two neighbours are further apart than ``max_gap_ns``.

    Parameters
    ----------
    series : mapping of str to (ts, mid) or to quote columns
        Per instrument two arrays, times in ns [n] and mid prices [n], or an object with ``ts_event``, ``bid_price``
        and ``ask_price``. Quotes that are not finite, not positive or crossed, and times that go back, are left out.
    horizon_ns, step_ns : int
        Length of a scenario and sampling step; the horizon is a multiple of the step.
    max_gap_ns : int
        A longer silence of an instrument is a gap; at least one step.
    max_scenarios : int, optional
        Keep the most recent ones only.
    provenance : mapping, optional
        Extra facts for the report.

    Raises
    ------
    DataConversionError
        When the data are malformed or too short for a single scenario.
    """
    if not series:
        raise DataConversionError("`series` must name at least one instrument, was empty")
    steps = _steps(step_ns, horizon_ns)
    if max_gap_ns < step_ns:
        raise DataConversionError(f"`max_gap_ns` must be >= `step_ns` ({step_ns}), was {max_gap_ns}")
    cleaned = {name: _series(name, source) for name, source in series.items()}
    first = next(iter(cleaned.values()))[0]
    # Grid times only where the first instrument quotes: windows that lie years apart must not span a grid of years.
    cuts = np.flatnonzero(np.diff(first) > max_gap_ns) + 1
    starts, ends = first[np.concatenate(([0], cuts))], first[np.concatenate((cuts - 1, [first.size - 1]))]
    blocks: list[npt.NDArray[np.float32]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        grid = np.arange(-(-start // step_ns) * step_ns, end + 1, step_ns, dtype=np.int64)
        if grid.size <= steps:
            continue
        valid = np.ones(grid.size, dtype=np.bool_)
        prices = np.empty((len(cleaned), grid.size))
        for i, (ts, mid) in enumerate(cleaned.values()):
            last = np.searchsorted(ts, grid, side="right") - 1
            known = np.maximum(last, 0)
            following = ts[np.minimum(known + 1, ts.size - 1)]
            inside = (known + 1 < ts.size) & (following - ts[known] <= max_gap_ns)
            valid &= (last >= 0) & (inside | (ts[known] == grid))
            prices[i] = mid[known]
        seen = np.concatenate(([0], np.cumsum(valid)))
        whole = seen[steps + 1 :] - seen[: -steps - 1] == steps + 1
        blocks.append((prices[:, steps:][:, whole] / prices[:, :-steps][:, whole] - 1.0).astype(np.float32))
    returns = np.concatenate(blocks, axis=1) if blocks else np.empty((len(cleaned), 0), dtype=np.float32)
    if returns.shape[1] == 0:
        raise DataConversionError(
            f"`series` must hold at least one stretch of {horizon_ns / 1e9:g} s in which no instrument is silent for "
            f"more than {max_gap_ns / 1e9:g} s, had none"
        )
    if max_scenarios is not None:
        returns = returns[:, -_at_least_one("max_scenarios", max_scenarios) :]
    facts = {
        "step_ns": str(step_ns),
        "overlapping": "yes" if steps > 1 else "no",
        "max_gap_ns": str(max_gap_ns),
        "first_ns": str(int(first[0])),
        "last_ns": str(int(first[-1])),
        "windows": str(len(blocks)),
        **(provenance or {}),
    }
    return ScenarioSet(tuple(cleaned), returns, horizon_ns, facts)
