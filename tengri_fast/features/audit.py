"""What a plan promises beside causality: the same bits in chunks of any size, and from a copied or saved state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from tengri_fast.features.lookahead import EventStreams, LookaheadReport, Rows, check_lookahead
from tengri_fast.features.plan import FeaturePlan, FeatureRows, FeatureState
from tengri_fast.features.sources_config import FeatureConfig
from tengri_fast.features.user_files import derived_observations
from tengri_fast.market.columns import merge_order

__all__ = ["CHUNKS", "Difference", "check_causality", "check_chunks", "check_state", "split_events"]

#: Events per chunk.
CHUNKS: Final = (1, 7, 100)
_OWN: Final = ("trades", "quotes", "depth", "bars")


class Difference(NamedTuple):
    """A place where something that must not matter did.

    Attributes
    ----------
    test : str
    column : str
    row : int
    expected, found : float
    """

    test: str
    column: str
    row: int
    expected: float
    found: float

    def __str__(self) -> str:
        return f"{self.column}: row {self.row} was {self.expected!r} and became {self.found!r} {self.test}"


def _flat(plan: FeaturePlan, streams: EventStreams) -> list[tuple[str, str, Any]]:
    """Every stream in the order in which events at equal times are seen."""
    own = [("own", name, getattr(streams, name)) for name in _OWN]
    legs = [("legs", name, streams.legs.get(name)) for name in plan.legs]
    external = [("external", name, streams.external.get(name)) for name in plan.sources]
    return [entry for entry in (*own, *legs, *external) if entry[2] is not None]


def split_events(plan: FeaturePlan, streams: EventStreams, size: int, most: int | None = None) -> list[EventStreams]:
    """The streams cut into chunks of so many events, in the order in which they are seen.

    Parameters
    ----------
    plan : FeaturePlan
    streams : EventStreams
        Each in order of `ts_init`.
    size : int
        Events per chunk.
    most : int, optional
        How many events to take in all.
    """
    flat = _flat(plan, streams)
    order = merge_order(*(stream.ts_init for _, _, stream in flat))
    total = len(order.source) if most is None else min(most, len(order.source))
    chunks = []
    for start in range(0, total, size):
        source = order.source[start : min(start + size, total)]
        row = order.row[start : min(start + size, total)]
        made: dict[str, dict[str, Any]] = {"own": {}, "legs": {}, "external": {}}
        for number, (kind, name, stream) in enumerate(flat):
            rows = row[source == number]
            made[kind][name] = stream[int(rows[0]) : int(rows[-1]) + 1] if len(rows) else stream[:0]
        chunks.append(EventStreams(**made["own"], legs=made["legs"], external=made["external"]))
    return chunks


def _fed(plan: FeaturePlan, chunk: EventStreams, clock: str, state: FeatureState) -> FeatureRows:
    return plan.compute(chunk.quotes, chunk.trades, chunk.depth, clock, bars=chunk.bars, legs=chunk.legs,
                        external=chunk.external, state=state)  # fmt: skip


def _matrix(parts: Sequence[FeatureRows]) -> np.ndarray[Any, Any]:
    """Every number that a row has, raw bits: features, mid, time, readiness."""
    return np.vstack([
        np.column_stack([part.values, part.mid, part.ts.view(np.float64), part.ready.astype(np.float64)])
        for part in parts
    ])  # fmt: skip


def _differences(plan: FeaturePlan, test: str, expected: Any, found: Any) -> list[Difference]:
    names = (*plan.names, "(mid)", "(time)", "(ready)")
    if expected.shape != found.shape:
        return [Difference(test, "(rows)", 0, float(len(expected)), float(len(found)))]
    other = np.ascontiguousarray(expected).view(np.uint64) != np.ascontiguousarray(found).view(np.uint64)
    out = []
    for column in np.flatnonzero(other.any(axis=0)):
        row = int(np.argmax(other[:, column]))
        out.append(Difference(test, names[column], row, float(expected[row, column]), float(found[row, column])))
    return out


def check_chunks(
    plan: FeaturePlan, streams: EventStreams, clock: str = "quote", *, events: int = 2000,
    sizes: Sequence[int] = CHUNKS,
) -> list[Difference]:  # fmt: skip
    """Feed a stretch of events in chunks of several sizes and all at once: every bit must be the same.

    Parameters
    ----------
    plan : FeaturePlan
    streams : EventStreams
    clock : str
    events : int
        Length of the stretch.
    sizes : sequence of int

    Returns
    -------
    list of Difference
        Empty when all is well.
    """
    whole = split_events(plan, streams, events, events)
    expected = _matrix([_fed(plan, whole[0], clock, plan.state())])
    out: list[Difference] = []
    for size in sizes:
        state = plan.state()
        parts = [_fed(plan, chunk, clock, state) for chunk in split_events(plan, streams, size, events)]
        out += _differences(plan, f"in chunks of {size}", expected, _matrix(parts))
    return out


def check_state(
    plan: FeaturePlan, streams: EventStreams, clock: str = "quote", *, events: int = 2000
) -> list[Difference]:
    """Copy a state in mid-stream, and save and load it: both must go on with the same bits as the state itself.

    Returns
    -------
    list of Difference
        Empty when all is well.
    """
    chunks = split_events(plan, streams, max(events // 2, 1), events)
    state = plan.state()
    _fed(plan, chunks[0], clock, state)
    copied, loaded = state.copy(), plan.state()
    loaded.from_bytes(state.to_bytes())
    out: list[Difference] = []
    for chunk in chunks[1:]:
        expected = _matrix([_fed(plan, chunk, clock, state)])
        for test, other in (("after a copy", copied), ("after bytes", loaded)):
            out += _differences(plan, test, expected, _matrix([_fed(plan, chunk, clock, other)]))
    if not out and not (state.to_bytes() == copied.to_bytes() == loaded.to_bytes()):
        out.append(Difference("at the end", "(state)", 0, 0.0, 1.0))
    return out


def check_causality(
    plan: FeaturePlan, config: FeatureConfig, streams: EventStreams, *, cuts: int = 6, seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> LookaheadReport:  # fmt: skip
    """`check_plan`, with the observations of user files made anew from every cut and poisoned history.

    Parameters
    ----------
    plan : FeaturePlan
    config : FeatureConfig
        Its clock and its derived sources count.
    streams : EventStreams
        Without those derived observations.
    cuts, seed, progress
        As for `check_lookahead`.
    """

    def compute(given: EventStreams) -> Rows:
        made, _ = derived_observations(config.derived, given)
        rows = plan.compute(given.quotes, given.trades, given.depth, config.clock, bars=given.bars, legs=given.legs,
                            external={**given.external, **made})  # fmt: skip
        stream = {"quote": given.quotes, "trade": given.trades, "depth": given.depth, "bar": given.bars}[config.clock]
        assert stream is not None
        known = stream.ts_init[rows.origin]
        ready = np.arange(len(known))[:, None] >= rows.ready_from[None, :]
        names = (*plan.names, *(f"ready({name})" for name in plan.names))
        return Rows(known, np.hstack([rows.values, ready.astype(np.float64)]), names)

    return check_lookahead(compute, streams, cuts=cuts, seed=seed, progress=progress)
