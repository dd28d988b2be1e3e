"""Repair of data, each change chosen by name and counted.

Repairs run in the order of `REPAIRS`, whatever the order in which they are chosen. With none chosen nothing changes;
`require_usable` then says whether the data would break later use.

Whether a price is an outlier shows in what comes after it: those two repairs look five rows ahead, and take the width
of the band and an inferred tick from the whole file. A history repaired so is cleaner than a live feed would have been.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.market.columns import DeltaColumns, DepthColumns, MarketColumns
from tengri_fast.market.describe import RULES, DescribeOptions, bad_bars, find_defects, tick_of
from tengri_fast.market.fixed_point import through_fixed_point
from tengri_fast.market.quality import (
    GRID_TOLERANCE,
    Rows,
    any_level,
    backward_rows,
    column_names,
    duplicate_rows,
    off_tick,
    reference_price,
    spike_distance,
    touch,
    unsorted_levels,
)
from tengri_fast.market.statistics import outside_quotes

__all__ = ["REPAIRS", "RepairEntry", "RepairLog", "RepairOptions", "merge_columns", "repair", "require_usable"]

# In the order in which they run.
REPAIRS: dict[str, str] = {
    "drop-nan": "drop rows with a price or size that is NaN or infinite",
    "drop-nonpositive": "drop rows with a price of 0 or below, or a size below 0",
    "drop-bad-bars": "drop bars whose open or close is outside low to high",
    "close-holes": "move book levels inward over levels that are missing",
    "drop-unsorted": "drop snapshots whose levels are not ordered from the best outward",
    "drop-backward": "drop rows earlier than one before them",
    "sort": "put rows in order of ts_init; equal times keep their order",
    "dedupe": "drop rows that repeat an earlier row in every column",
    "drop-crossed": "drop quotes and snapshots with the bid above the ask",
    "drop-locked": "drop quotes and snapshots with the bid equal to the ask",
    "snap-to-tick": "put prices within a thousandth of a tick of the grid on it (decimals spoilt by arithmetic)",
    "drop-off-tick": "drop rows with a price that is no multiple of the tick",
    "clip-outliers": "move prices of quotes and trades to the edge of the band around the median of 11 neighbours",
    "drop-outliers": "drop rows whose price is outside the band around the median of 11 neighbours",
    "drop-outside": "drop trades above the ask or below the bid before them",
}
_EXCLUSIVE = (("sort", "drop-backward"), ("clip-outliers", "drop-outliers"))
# A thousandth of a tick: far above what arithmetic leaves of decimals, far below a price between two ticks.
SNAP_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RepairOptions:
    """What to repair.

    Attributes
    ----------
    repairs : tuple of str
        Names in `REPAIRS`.
    limits : DescribeOptions
        Tick, width of the band for outliers (in robust standard deviations).
    """

    repairs: tuple[str, ...] = ()
    limits: DescribeOptions = field(default_factory=DescribeOptions)

    def __post_init__(self) -> None:
        for name in self.repairs:
            if name not in REPAIRS:
                close = difflib.get_close_matches(str(name), REPAIRS, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(REPAIRS)}"
                raise ConfigurationError(f"`repair` must be one of the repairs, was {name!r}{hint}")
        for one, other in _EXCLUSIVE:
            if one in self.repairs and other in self.repairs:
                raise ConfigurationError(f"`repair` must not hold both {one} and {other}")


@dataclass(frozen=True)
class RepairEntry:
    """What one repair did to one stream.

    Attributes
    ----------
    repair, stream : str
    dropped, changed : int
        Rows taken out; rows whose values or place changed.
    first_row : int
        The first row concerned, counted before this repair.
    """

    repair: str
    stream: str
    dropped: int
    changed: int
    first_row: int


@dataclass(frozen=True)
class RepairLog:
    """What was done.

    Attributes
    ----------
    entries : tuple of RepairEntry
        In the order in which repairs ran; those that found nothing are not listed.
    rows_in, rows_out : dict of str to int
        By stream.
    ticks : dict of str to float
        Tick by stream that was used.
    """

    entries: tuple[RepairEntry, ...]
    rows_in: dict[str, int]
    rows_out: dict[str, int]
    ticks: dict[str, float]

    def to_list(self) -> list[dict[str, Any]]:
        """Entries as plain values."""
        return [dict(vars(entry)) for entry in self.entries]


class _Work:
    """The streams while they are repaired, and the log."""

    def __init__(self, columns: MarketColumns, limits: DescribeOptions) -> None:
        self.streams: dict[str, Any] = dict(columns.streams())
        self.exchange = dict(columns.exchange_times)
        self.ticks = tick_of(columns, limits)
        self.limits = limits
        self.entries: list[RepairEntry] = []

    def drop(self, repair: str, stream: str, rows: Rows) -> None:
        count = int(rows.sum())
        if count:
            self.entries.append(RepairEntry(repair, stream, count, 0, int(np.argmax(rows))))
            self.take(stream, np.flatnonzero(~rows))

    def take(self, stream: str, rows: npt.NDArray[np.int64]) -> None:
        value = self.streams[stream]
        self.streams[stream] = replace(value, **{name: array[rows] for name, array in vars(value).items()})
        if stream in self.exchange:
            self.exchange[stream] = self.exchange[stream][rows]

    def change(self, repair: str, stream: str, rows: Rows, values: dict[str, npt.NDArray[Any]]) -> None:
        count = int(rows.sum())
        if count:
            self.entries.append(RepairEntry(repair, stream, 0, count, int(np.argmax(rows))))
            self.streams[stream] = replace(self.streams[stream], **values)


def _not_finite(work: _Work, name: str, value: Any) -> Rows:
    rows = np.zeros(len(value), bool)
    for columns in column_names(name):
        for column in columns:
            rows |= any_level(~np.isfinite(getattr(value, column)))
    return rows


def _not_positive(work: _Work, name: str, value: Any) -> Rows:
    rows = np.zeros(len(value), bool)
    prices, sizes = column_names(name)
    for column in prices:
        array = getattr(value, column)
        wrong = array < 0
        if name == "depth":
            wrong |= (array == 0) & (getattr(value, column.replace("price", "size")) != 0)
        elif isinstance(value, DeltaColumns):
            wrong |= (array == 0) & (value.action != 4)
        else:
            wrong |= array == 0
        rows |= any_level(wrong)
    for column in sizes:
        rows |= any_level(getattr(value, column) < 0)
    return rows


def _crossed(work: _Work, name: str, value: Any) -> Rows:
    bid, ask, _, _ = touch(value)
    with np.errstate(invalid="ignore"):
        return np.asarray(bid > ask)


def _locked(work: _Work, name: str, value: Any) -> Rows:
    bid, ask, _, _ = touch(value)
    return np.asarray(bid == ask)


def _off_tick(work: _Work, name: str, value: Any) -> Rows:
    rows = np.zeros(len(value), bool)
    for column in column_names(name)[0]:
        rows |= any_level(off_tick(getattr(value, column), work.ticks[name]))
    return rows


def _outlier(work: _Work, name: str, value: Any) -> Rows:
    distance, _, _ = spike_distance(reference_price(name, value), work.ticks[name])
    return np.asarray(distance > work.limits.outlier_sigmas)


def _outside(work: _Work, name: str, value: Any) -> Rows:
    book = work.streams.get("quotes", work.streams.get("depth"))
    if book is None:
        raise DataConversionError("`repair` drop-outside needs quotes or depth beside the trades, there are none")
    return outside_quotes(value, book)[0]


_DROPS: dict[str, tuple[tuple[str, ...], Callable[[_Work, str, Any], Rows]]] = {
    "drop-nan": (MarketColumns.STREAMS, _not_finite),
    "drop-nonpositive": (MarketColumns.STREAMS, _not_positive),
    "drop-bad-bars": (("bars",), lambda work, name, value: bad_bars(value)),
    "drop-unsorted": (("depth",), lambda work, name, value: unsorted_levels(value)[0]),
    "drop-backward": (MarketColumns.STREAMS, lambda work, name, value: backward_rows(value.ts_init)),
    "dedupe": (("quotes", "trades", "depth", "bars"), lambda work, name, value: duplicate_rows(value)),
    "drop-crossed": (("quotes", "depth"), _crossed),
    "drop-locked": (("quotes", "depth"), _locked),
    "drop-off-tick": (MarketColumns.STREAMS, _off_tick),
    "drop-outliers": (("quotes", "trades", "depth", "bars"), _outlier),
    "drop-outside": (("trades",), _outside),
}


def _sort(work: _Work, name: str, value: Any) -> None:
    order = np.argsort(value.ts_init, kind="stable")
    moved = order != np.arange(len(order))
    if moved.any():
        work.entries.append(RepairEntry("sort", name, 0, int(moved.sum()), int(np.argmax(moved))))
        work.take(name, order)


def _close_holes(work: _Work, name: str, value: Any) -> None:
    if not isinstance(value, DepthColumns):
        return
    changed = np.zeros(len(value), bool)
    made: dict[str, npt.NDArray[Any]] = {}
    for side in ("bid", "ask"):
        price, size = getattr(value, f"{side}_price"), getattr(value, f"{side}_size")
        # A stable sort by "absent" keeps the order of the levels that are there.
        order = np.argsort(price == 0, axis=1, kind="stable")
        changed |= (order != np.arange(price.shape[1])).any(axis=1)
        made[f"{side}_price"] = np.take_along_axis(price, order, axis=1)
        made[f"{side}_size"] = np.take_along_axis(size, order, axis=1)
    work.change("close-holes", name, changed, made)


def _snap(work: _Work, name: str, value: Any) -> None:
    tick = work.ticks[name]
    if tick <= 0:
        return
    changed = np.zeros(len(value), bool)
    made: dict[str, npt.NDArray[Any]] = {}
    # Whole ticks over whole ticks per unit, where that is exact: 12491 / 10000 is the decimal, 12491 * 0.0001 is not.
    inverse = np.rint(1 / tick)
    exact = inverse >= 1 and abs(inverse * tick - 1) < GRID_TOLERANCE
    for column in column_names(name)[0]:
        array = getattr(value, column)
        with np.errstate(invalid="ignore"):
            steps = array / tick
            whole = np.rint(steps)
            # Nothing is put on 0: a price far below the tick is no decimal spoilt by arithmetic.
            near = np.isfinite(array) & (whole != 0) & (np.abs(steps - whole) <= SNAP_TOLERANCE)
        snapped = np.where(near, through_fixed_point(whole / inverse if exact else whole * tick), array)
        different = near & (snapped != array)
        made[column] = np.where(different, snapped, array)
        changed |= any_level(different)
    work.change("snap-to-tick", name, changed, made)


def _clip(work: _Work, name: str, value: Any) -> None:
    if name not in ("quotes", "trades"):
        return
    changed = np.zeros(len(value), bool)
    made: dict[str, npt.NDArray[Any]] = {}
    tick = work.ticks[name]
    for column in column_names(name)[0]:
        array = getattr(value, column)
        distance, middle, sigma = spike_distance(array, tick)
        rows = distance > work.limits.outlier_sigmas
        width = work.limits.outlier_sigmas * sigma
        edge = middle + np.sign(array - middle) * width
        if tick > 0:
            # Inward to the grid, so that a clipped price can be traded.
            steps = np.where(array > middle, np.floor(edge / tick), np.ceil(edge / tick))
            inverse = np.rint(1 / tick)
            exact = inverse >= 1 and abs(inverse * tick - 1) < GRID_TOLERANCE
            edge = through_fixed_point(steps / inverse if exact else steps * tick)
        # A band that reaches down to 0, or too wide for a double, has no edge to go to: then it is the median.
        edge = np.where(np.isfinite(edge) & (edge > 0), edge, middle)
        made[column] = np.where(rows, edge, array)
        changed |= rows
    work.change("clip-outliers", name, changed, made)


_CHANGES: dict[str, Callable[[_Work, str, Any], None]] = {
    "sort": _sort, "close-holes": _close_holes, "snap-to-tick": _snap, "clip-outliers": _clip,
}  # fmt: skip


@np.errstate(invalid="ignore", over="ignore", divide="ignore")
def repair(
    columns: MarketColumns, options: RepairOptions | Iterable[str] = (), progress: Callable[[str], None] | None = None
) -> tuple[MarketColumns, RepairLog]:
    """Repair data.

    Parameters
    ----------
    columns : MarketColumns
        Left as it is.
    options : RepairOptions or names of repairs
        With none, the result is `columns` itself.
    progress : callable, optional
        Called with the name of each repair before it runs.

    Returns
    -------
    columns : MarketColumns
    log : RepairLog

    Raises
    ------
    ConfigurationError
        If a repair has no such name, or two exclude each other.
    """
    chosen = options if isinstance(options, RepairOptions) else RepairOptions(tuple(options))
    rows_in = {name: len(value) for name, value in columns.streams().items()}
    if not chosen.repairs:
        return columns, RepairLog((), rows_in, dict(rows_in), {})
    work = _Work(columns, chosen.limits)
    for name in REPAIRS:
        if name not in chosen.repairs:
            continue
        if progress is not None:
            progress(name)
        for stream in list(work.streams):
            value = work.streams[stream]
            if name in _CHANGES:
                _CHANGES[name](work, stream, value)
            elif stream in _DROPS[name][0]:
                work.drop(name, stream, _DROPS[name][1](work, stream, value))
    made = replace(columns, exchange_times=work.exchange, **work.streams)
    rows_out = {name: len(value) for name, value in work.streams.items()}
    return made, RepairLog(tuple(work.entries), rows_in, rows_out, work.ticks)


def require_usable(columns: MarketColumns) -> None:
    """Refuse data that would break later use.

    Raises
    ------
    DataConversionError
        For the first fatal defect: stream, column, rule, row, value, how many rows, and the repair that removes it.
        Also if no row is left.
    """
    for name, value in columns.streams().items():
        for defect in find_defects(name, value, 0.0, fatal_only=True):
            more = f" ({defect.count:,} such rows)" if defect.count > 1 else ""
            rule, remedy, _ = RULES[defect.rule]
            raise DataConversionError(
                f"`{defect.column}` of {name} breaks the rule {defect.rule} ({rule}): row {defect.row} was "
                f"{defect.value}{more}; the repair {remedy} removes this"
            )
    if not len(columns):
        raise DataConversionError(
            f"`columns` must hold at least one row, none of {columns.source or 'the data'} is left"
        )


def merge_columns(parts: Iterable[MarketColumns]) -> MarketColumns:
    """Several sources of one instrument as one: streams that several have are joined in the order given.

    Depth of different numbers of levels is cut to the least. Exchange times are kept where every part of a stream has
    them.
    """
    given = list(parts)
    if len(given) == 1:
        return given[0]
    values: list[tuple[MarketColumns, Any]]
    streams: dict[str, Any] = {}
    exchange: dict[str, npt.NDArray[np.uint64]] = {}
    for name in MarketColumns.STREAMS:
        values = [(part, part.streams()[name]) for part in given if name in part.streams()]
        if not values:
            continue
        if name == "depth":
            levels = min(value.levels for _, value in values)
            values = [(part, _cut(value, levels)) for part, value in values]
        first = values[0][1]
        if len(values) == 1:
            streams[name] = first
        else:
            streams[name] = type(first)(
                **{field: np.concatenate([getattr(value, field) for _, value in values]) for field in vars(first)}
            )
        if all(name in part.exchange_times for part, _ in values):
            exchange[name] = np.concatenate([part.exchange_times[name] for part, _ in values])
    source = " + ".join(dict.fromkeys(part.source for part in given))
    notes = tuple(dict.fromkeys(note for part in given for note in part.notes))
    return MarketColumns(source=source, notes=notes, exchange_times=exchange, **streams)


def _cut(value: Any, levels: int) -> Any:
    if value.levels == levels:
        return value
    names = ("bid_price", "ask_price", "bid_size", "ask_size")
    return replace(value, **{name: np.ascontiguousarray(getattr(value, name)[:, :levels]) for name in names})
