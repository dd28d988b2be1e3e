"""Proof that features do not look ahead: nothing may move when the future is cut off, or poisoned.

Causality is a property of code *and* data path, so it is tested from outside: whatever turns events into rows is called
as a black box. At several cut times the rows up to the cut must be the same bits

* when nothing after the cut exists (*cut off*), and
* when everything after the cut is something else (*poisoned*: prices of another scale, sizes and signs redrawn).

The second finds what the first cannot: a feature that needs a future event to exist in order to use it wrongly. One
more run on the whole data finds what depends on more than its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.plan import FeaturePlan
from tengri_fast.market.columns import BarColumns, DepthColumns, ExternalColumns, QuoteColumns, TradeColumns

__all__ = ["EventStreams", "LookaheadReport", "Moved", "Rows", "check_lookahead", "check_plan"]


@dataclass(frozen=True)
class EventStreams:
    """All events that features of one instrument are made of; see `FeaturePlan.compute`."""

    quotes: QuoteColumns | None = None
    trades: TradeColumns | None = None
    depth: DepthColumns | None = None
    bars: BarColumns | None = None
    legs: Mapping[str, QuoteColumns] = field(default_factory=dict)
    external: Mapping[str, ExternalColumns] = field(default_factory=dict)

    def changed(self, change: Callable[[Any], Any]) -> EventStreams:
        """Every stream that is there put through a function."""
        single = {
            name: None if getattr(self, name) is None else change(getattr(self, name))
            for name in ("quotes", "trades", "depth", "bars")
        }
        legs = {name: change(stream) for name, stream in self.legs.items()}
        external = {name: change(stream) for name, stream in self.external.items()}
        return EventStreams(**single, legs=legs, external=external)

    def times(self) -> npt.NDArray[np.uint64]:
        """`ts_init` of every event of every stream, sorted."""
        found: list[npt.NDArray[np.uint64]] = []

        def note(stream: Any) -> Any:
            found.append(stream.ts_init)
            return stream

        self.changed(note)
        return np.sort(np.concatenate(found)) if found else np.empty(0, np.uint64)


class Rows(NamedTuple):
    """What is to be checked: values [n, F], the time [n] at which each row is known, and the columns' names."""

    ts: npt.NDArray[np.uint64]
    values: npt.NDArray[np.float64]
    names: tuple[str, ...]


class Moved(NamedTuple):
    """A column that changed although only its future did."""

    column: str
    test: str
    cut_ns: int
    row: int
    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"{self.column}: row {self.row} was {self.before!r} and became {self.after!r} when what came after "
            f"{self.cut_ns} was {self.test}"
        )


@dataclass(frozen=True)
class LookaheadReport:
    """Result of a check.

    Attributes
    ----------
    passed : bool
    rows, columns : int
    cuts : tuple of int
        Times of the cuts, UTC nanoseconds.
    compared : int
        Values that were compared bit for bit.
    moved : tuple of Moved
        The first place per column and test where something moved.
    """

    passed: bool
    rows: int
    columns: int
    cuts: tuple[int, ...]
    compared: int
    moved: tuple[Moved, ...]

    def __str__(self) -> str:
        head = f"{self.columns} columns, {self.rows:,} rows, {len(self.cuts)} cuts, {self.compared:,} values compared"
        if self.passed:
            return f"no look-ahead found: {head}"
        return "\n".join([f"LOOK-AHEAD: {head}", *(f"  {moved}" for moved in self.moved)])


def _poison(stream: Any, cut: int, rng: np.random.Generator) -> Any:
    """The stream with everything after the cut replaced by valid, quite different events at the same times."""
    after = stream.ts_init > cut
    count = int(after.sum())
    if count == 0:
        return stream
    scale = float(np.exp(rng.normal(0.0, 0.5)) + 0.25)
    wild = np.exp(rng.normal(0.0, 0.05, count)) * scale
    made: dict[str, Any] = {}
    for entry in fields(stream):
        values = getattr(stream, entry.name)
        if entry.name in {"ts_event", "ts_init"}:
            continue
        changed = values.copy()
        if entry.name == "values":
            changed[after] = values[after] * rng.uniform(-2.0, 2.0, (count, 1))
        elif entry.name == "aggressor":
            changed[after] = rng.integers(-1, 2, count)
        elif "size" in entry.name or entry.name == "volume":
            changed[after] = values[after] * (rng.uniform(0.1, 10.0, count) if values.ndim == 1
                                              else rng.uniform(0.1, 10.0, (count, 1)))  # fmt: skip
        elif values.dtype.kind == "f":
            changed[after] = values[after] * (wild if values.ndim == 1 else wild[:, None])
        made[entry.name] = changed
    return replace(stream, **made)


def _truncate(stream: Any, cut: int) -> Any:
    keep = stream.ts_init <= cut
    return type(stream)(**{entry.name: getattr(stream, entry.name)[keep] for entry in fields(stream)})


def _bits(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(values, dtype=np.float64).view(np.uint64)


def _compare(whole: Rows, other: Rows, cut: int, test: str) -> tuple[int, list[Moved]]:
    known = int(np.searchsorted(whole.ts, cut, side="right"))
    moved: list[Moved] = []
    if len(other.ts) < known or not np.array_equal(other.ts[:known], whole.ts[:known]):
        first = next((i for i in range(min(known, len(other.ts))) if other.ts[i] != whole.ts[i]), len(other.ts))
        return 0, [Moved("(times of rows)", test, cut, first, float(known), float(len(other.ts)))]
    different = _bits(whole.values[:known]) != _bits(other.values[:known])
    for column in np.flatnonzero(different.any(axis=0)):
        row = int(np.argmax(different[:, column]))
        before, after = float(whole.values[row, column]), float(other.values[row, column])
        moved.append(Moved(whole.names[column], test, cut, row, before, after))
    return int(different.size), moved


def check_lookahead(
    compute: Callable[[EventStreams], Rows],
    streams: EventStreams,
    *,
    cuts: int = 6,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> LookaheadReport:
    """Check whatever turns events into rows.

    Parameters
    ----------
    compute : callable
        From streams to rows; called 2 + 2 * `cuts` times. Rows are in order of time.
    streams : EventStreams
    cuts : int
        How many cut times, spread evenly over the events and shifted by the seed.
    seed : int
        Of the cut times and of the poison.
    progress : callable, optional
        Told what is being done, in words.

    Returns
    -------
    LookaheadReport

    Raises
    ------
    FeatureExtractionError
        If `cuts` is not positive, or there are too few events to cut.
    """
    if cuts < 1:
        raise FeatureExtractionError(f"`cuts` must be >= 1, was {cuts}")
    times = streams.times()
    if len(times) < 2 * cuts + 2:
        raise FeatureExtractionError(
            f"`streams` must hold at least {2 * cuts + 2} events for {cuts} cuts, held {len(times)}"
        )
    rng = np.random.default_rng(seed)
    say = progress or (lambda text: None)
    say("the whole history")
    whole = compute(streams)
    if len(whole.ts) == 0:
        raise FeatureExtractionError("`compute` must make at least one row of `streams`, made none")
    found: dict[tuple[str, str], Moved] = {}
    compared = 0

    def note(result: tuple[int, list[Moved]]) -> None:
        nonlocal compared
        compared += result[0]
        for moved in result[1]:
            found.setdefault((moved.column, moved.test), moved)

    say("the same again")
    note(_compare(whole, compute(streams), int(whole.ts[-1]), "the same"))
    places = (np.arange(cuts) + rng.uniform(0.2, 0.8)) / cuts * (len(times) - 1)
    chosen = tuple(int(times[int(place)]) for place in places)
    for number, cut in enumerate(chosen, 1):
        say(f"cut {number} of {cuts}: without a future")
        note(_compare(whole, compute(streams.changed(partial(_truncate, cut=cut))), cut, "cut off"))
        say(f"cut {number} of {cuts}: with a poisoned future")
        other = streams.changed(partial(_poison, cut=cut, rng=rng))
        note(_compare(whole, compute(other), cut, "poisoned"))
    return LookaheadReport(not found, len(whole.ts), len(whole.names), chosen, compared, tuple(found.values()))


def check_plan(
    plan: FeaturePlan,
    streams: EventStreams,
    clock: str = "quote",
    *,
    cuts: int = 6,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> LookaheadReport:
    """`check_lookahead` for a plan, raw values and readiness of every column."""

    def compute(given: EventStreams) -> Rows:
        rows = plan.compute(given.quotes, given.trades, given.depth, clock, bars=given.bars, legs=given.legs,
                            external=given.external)  # fmt: skip
        # A row is known when its event is: by ts_init, which is what the cuts go by.
        stream = {"quote": given.quotes, "trade": given.trades, "depth": given.depth, "bar": given.bars}[clock]
        assert stream is not None
        known = stream.ts_init[rows.origin]
        ready = np.arange(len(known))[:, None] >= rows.ready_from[None, :]
        names = (*plan.names, *(f"ready({name})" for name in plan.names))
        return Rows(known, np.hstack([rows.values, ready.astype(np.float64)]), names)

    return check_lookahead(compute, streams, cuts=cuts, seed=seed, progress=progress)
