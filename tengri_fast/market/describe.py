"""What a data set is made of, and what is wrong with it.

Each defect has a rule, a count, and the first row and value. Whether one is *fatal* (later use would break or lie: a
number that is not one, a price that is not positive, time that runs backward, levels out of order) is stated with it;
the others are facts of markets (crossed and locked quotes, gaps, repeated times) for which features have rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.market.alignment import ClockOffset, clock_offset
from tengri_fast.market.columns import DeltaColumns, DepthColumns, MarketColumns, TradeColumns
from tengri_fast.market.quality import (
    Float,
    any_level,
    backward_rows,
    column_names,
    duplicate_rows,
    infer_tick,
    off_tick,
    reference_price,
    spike_distance,
    stale_runs,
    touch,
    unsorted_levels,
)
from tengri_fast.market.statistics import (
    imbalance_statistics,
    outside_quotes,
    quantiles,
    quote_before,
    spread_statistics,
    trade_statistics,
)

__all__ = ["RULES", "DataReport", "Defect", "DescribeOptions", "StreamReport", "describe", "find_defects"]

# Rule: what it means, the repair that removes it, whether it is fatal.
RULES: dict[str, tuple[str, str, bool]] = {
    "nan": ("a price or size is NaN", "drop-nan", True),
    "infinite": ("a price or size is infinite", "drop-nan", True),
    "negative_price": ("a price is below 0", "drop-nonpositive", True),
    "zero_price": ("a price is 0", "drop-nonpositive", True),
    "negative_size": ("a size is below 0", "drop-nonpositive", True),
    "zero_size": ("a size is 0", "", False),
    "backward_time": ("earlier than a row before it", "sort or drop-backward", True),
    "backward_event": ("event time before that of an earlier row: features drop the row", "", False),
    "duplicate_time": ("the time of the row before it", "", False),
    "duplicate_row": ("every column as in an earlier row", "dedupe", False),
    "crossed": ("bid above ask", "drop-crossed", False),
    "locked": ("bid equal to ask", "drop-locked", False),
    "off_tick": ("a price that is no multiple of the tick", "snap-to-tick or drop-off-tick", False),
    "outlier": ("a price far from the median of its 11 neighbours", "clip-outliers or drop-outliers", False),
    "unsorted_levels": ("levels not ordered from the best outward", "drop-unsorted", True),
    "hole": ("a level is missing between others", "close-holes", True),
    "bar_range": ("open or close outside low to high, or low above high", "drop-bad-bars", True),
    "outside_quotes": ("a trade above the ask or below the bid before it", "drop-outside", False),
}


@dataclass(frozen=True)
class DescribeOptions:
    """What counts as a defect.

    Attributes
    ----------
    tick : float, optional
        Price step; inferred otherwise.
    gap_ns : int, optional
        Shortest pause that is a gap; by default the larger of 5 s and 100 median steps (bars: 1.5 intervals).
    outlier_sigmas : float
        Distance to the running median in robust standard deviations of price changes from which a price is an outlier.
    stale_rows : int
        Rows without any change of price and size from which a run is stale.
    """

    tick: float | None = None
    gap_ns: int | None = None
    outlier_sigmas: float = 20.0
    stale_rows: int = 1000

    def __post_init__(self) -> None:
        if self.tick is not None and not (np.isfinite(self.tick) and self.tick > 0):
            raise DataConversionError(f"`tick` must be finite and > 0, was {self.tick}")
        if self.gap_ns is not None and self.gap_ns < 1:
            raise DataConversionError(f"`gap` must be >= 1 ns, was {self.gap_ns}")
        if not self.outlier_sigmas > 0:
            raise DataConversionError(f"`outlier_sigmas` must be > 0, was {self.outlier_sigmas}")
        if self.stale_rows < 2:
            raise DataConversionError(f"`stale_rows` must be >= 2, was {self.stale_rows}")


@dataclass(frozen=True)
class Defect:
    """Rows of one stream that break one rule.

    Attributes
    ----------
    rule : str
        A key of `RULES`.
    column : str
        Where it shows.
    count : int
        Rows.
    row : int
        The first of them.
    value : float or int
        What stood there; NaN and infinity become None in JSON.
    fatal : bool
    """

    rule: str
    column: str
    count: int
    row: int
    value: float | int
    fatal: bool

    def __str__(self) -> str:
        rows = "1 row" if self.count == 1 else f"{self.count:,} rows"
        return f"{self.rule}: {RULES[self.rule][0]} ({rows}; `{self.column}` in row {self.row} was {self.value})"


@dataclass(frozen=True)
class StreamReport:
    """One stream.

    Attributes
    ----------
    name : str
    rows : int
    first_ns, last_ns : int
        Least and largest `ts_init`.
    rate : float or None
        Rows per second of the span.
    tick : float
        Given or inferred; 0 when there is none.
    tick_given : bool
    ranges : dict
        Column to (least, largest) of its finite values.
    defects : tuple of Defect
    gaps : dict
        threshold_ns, count, total_ns, longest (list of [start_ns, length_ns], at most five).
    stale : dict
        threshold_rows, runs, longest_rows, longest_start.
    statistics : dict
        What fits the stream: spread, imbalance, trades, depth, bars, deltas.
    """

    name: str
    rows: int
    first_ns: int
    last_ns: int
    rate: float | None
    tick: float
    tick_given: bool
    ranges: dict[str, tuple[float, float]]
    defects: tuple[Defect, ...]
    gaps: dict[str, Any]
    stale: dict[str, Any]
    statistics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataReport:
    """What `describe` found.

    Attributes
    ----------
    source : str
    notes : tuple of str
    streams : tuple of StreamReport
    clock : ClockOffset or None
        None without exchange times.
    between : dict
        Facts across streams: trades against quotes, depth against quotes.
    """

    source: str
    notes: tuple[str, ...]
    streams: tuple[StreamReport, ...]
    clock: ClockOffset | None
    between: dict[str, Any]

    def stream(self, name: str) -> StreamReport:
        """A stream by name."""
        for report in self.streams:
            if report.name == name:
                return report
        raise KeyError(name)

    def defects(self) -> list[tuple[str, Defect]]:
        """All defects as (stream, defect)."""
        return [(report.name, defect) for report in self.streams for defect in report.defects]

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON can hold: numbers that are not finite become None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _first(rule: str, column: str, rows: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> Defect | None:
    """A defect from the rows that have it; `values` may have levels."""
    flat = any_level(rows)
    count = int(flat.sum())
    if not count:
        return None
    row = int(np.argmax(flat))
    value = values[row]
    if values.ndim == 2:
        value = value[int(np.argmax(rows[row]))] if rows.ndim == 2 else value[0]
    return Defect(rule, column, count, row, value.item(), RULES[rule][2])


def _number_defects(name: str, value: Any) -> list[Defect | None]:
    prices, sizes = column_names(name)
    found: list[Defect | None] = []
    clears = value.action == 4 if isinstance(value, DeltaColumns) else None
    for columns, is_price in ((prices, True), (sizes, False)):
        for column in columns:
            array: npt.NDArray[Any] = getattr(value, column)
            found.append(_first("nan", column, np.isnan(array), array))
            found.append(_first("infinite", column, np.isinf(array), array))
            found.append(_first("negative_price" if is_price else "negative_size", column, array < 0, array))
            zero = array == 0
            if name == "depth":
                # 0 marks a level that is not there; a level with a price needs a size, and the best must be there.
                other = getattr(value, column.replace("price", "size") if is_price else column.replace("size", "price"))
                zero = zero & (other != 0)
            if clears is not None:
                zero = zero & ~clears & ((value.action != 3) if not is_price else True)
            if is_price or name != "bars":
                found.append(_first("zero_price" if is_price else "zero_size", column, zero, array))
    return found


# Numbers that are none, or too large to add, are what is looked for: arithmetic on them is no news.
@np.errstate(invalid="ignore", over="ignore", divide="ignore")
def find_defects(
    name: str, value: Any, tick: float, options: DescribeOptions | None = None, *, fatal_only: bool = False
) -> tuple[Defect, ...]:
    """The defects of one stream, those of numbers first.

    Parameters
    ----------
    name : str
        "quotes", "trades", "depth", "bars" or "deltas".
    value : columns
    tick : float
        0: prices are not compared with a grid.
    options : DescribeOptions, optional
    fatal_only : bool
        Look for those only that are fatal.
    """
    found = [*_number_defects(name, value), *_order_defects(name, value)]
    if not fatal_only:
        found += _market_defects(name, value, tick, options or DescribeOptions())
    return tuple(defect for defect in found if defect is not None and (defect.fatal or not fatal_only))


def _order_defects(name: str, value: Any) -> list[Defect | None]:
    times = value.ts_init
    found = [_first("backward_time", "ts_init", backward_rows(times), times)]
    if isinstance(value, DepthColumns):
        wrong, hole = unsorted_levels(value)
        found.append(_first("unsorted_levels", "bid_price", wrong, value.bid_price))
        found.append(_first("hole", "bid_price", hole, value.bid_price))
    if name == "bars":
        found.append(_first("bar_range", "high", bad_bars(value), value.high))
    return found


def _market_defects(name: str, value: Any, tick: float, options: DescribeOptions) -> list[Defect | None]:
    found: list[Defect | None] = []
    times = value.ts_init
    same = np.zeros(len(value), bool)
    same[1:] = times[1:] == times[:-1]
    found.append(_first("duplicate_time", "ts_init", same, times))
    # A row that came late altogether is told as backward_time.
    late = backward_rows(value.ts_event) & ~backward_rows(times)
    found.append(_first("backward_event", "ts_event", late, value.ts_event))
    found.append(_first("duplicate_row", "ts_init", duplicate_rows(value), times))
    prices, _ = column_names(name)
    for column in prices:
        array = getattr(value, column)
        found.append(_first("off_tick", column, off_tick(array, tick), array))
    if name in ("quotes", "depth"):
        bid, ask, _, _ = touch(value)
        with np.errstate(invalid="ignore"):
            found.append(_first("crossed", "bid_price", bid > ask, bid))
            found.append(_first("locked", "bid_price", bid == ask, bid))
    if name != "deltas":
        reference = reference_price(name, value)
        distance, _, _ = spike_distance(reference, tick)
        label = {"quotes": "mid", "depth": "mid", "trades": "price", "bars": "close"}[name]
        found.append(_first("outlier", label, distance > options.outlier_sigmas, reference))
    return found


def bad_bars(value: Any) -> npt.NDArray[np.bool_]:
    """Bars whose open or close is outside low to high, or whose low is above the high."""
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (value.low > value.high)
            | (value.open > value.high) | (value.open < value.low)
            | (value.close > value.high) | (value.close < value.low)
        )  # fmt: skip


def _gaps(name: str, times: npt.NDArray[np.uint64], options: DescribeOptions) -> dict[str, Any]:
    ordered = np.sort(times)
    steps = np.diff(ordered).astype(np.int64)
    positive = steps[steps > 0]
    threshold = options.gap_ns
    if threshold is None:
        typical = float(np.median(positive)) if len(positive) else 0.0
        threshold = int(1.5 * typical) if name == "bars" else max(5_000_000_000, int(100 * typical))
    long = np.flatnonzero(steps >= max(threshold, 1))
    worst = long[np.argsort(-steps[long], kind="stable")][:5]
    return {
        "threshold_ns": threshold,
        "count": len(long),
        "total_ns": int(steps[long].sum()),
        "longest": [[int(ordered[at]), int(steps[at])] for at in worst],
    }


def _stale(value: Any, options: DescribeOptions) -> dict[str, Any]:
    if isinstance(value, TradeColumns | DeltaColumns):
        return {}
    starts, lengths = stale_runs(value)
    at = int(np.argmax(lengths)) if len(lengths) else 0
    return {
        "threshold_rows": options.stale_rows,
        "runs": int((lengths >= options.stale_rows).sum()),
        "longest_rows": int(lengths[at]) if len(lengths) else 0,
        "longest_start": int(starts[at]) if len(starts) else 0,
    }


def _statistics(name: str, value: Any, tick: float) -> dict[str, Any]:
    if name == "quotes":
        return {"spread": spread_statistics(value, tick), "imbalance": imbalance_statistics(value)}
    if name == "depth":
        there = (value.bid_price != 0).sum(axis=1) + (value.ask_price != 0).sum(axis=1)
        full = float(100 * np.mean(there == 2 * value.levels)) if len(value) else None
        return {
            "spread": spread_statistics(value, tick),
            "imbalance": imbalance_statistics(value),
            "depth": {"levels": value.levels, "full_rows": full},
        }
    if name == "trades":
        return {"trades": trade_statistics(value)}
    if name == "bars":
        steps = np.diff(value.ts_init.astype(np.int64))
        steps, counts = np.unique(steps[steps > 0], return_counts=True)
        volume = value.volume[np.isfinite(value.volume)]
        return {
            "bars": {
                "interval_ns": int(steps[np.argmax(counts)]) if len(steps) else None,
                "volume": float(volume.sum()),
                "range_bps": quantiles(_range_bps(value)),
            }
        }
    words = {1: "add", 2: "update", 3: "delete", 4: "clear"}
    last = int((value.flags & 128 != 0).sum())
    sequence = value.sequence
    return {
        "deltas": {
            **{word: int((value.action == code).sum()) for code, word in words.items()},
            "events": last,
            "orders": len(np.unique(value.order_id[value.order_id > 0])),
            "sequence_backward": int(backward_rows(sequence[sequence > 0]).sum()),
        }
    }


def _range_bps(value: Any) -> Float:
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (value.high - value.low) / value.close * 1e4
    return np.asarray(found[np.isfinite(found)])


def _ranges(name: str, value: Any) -> dict[str, tuple[float, float]]:
    prices, sizes = column_names(name)
    found = {}
    for column in (*prices, *sizes):
        array = getattr(value, column)
        finite = array[np.isfinite(array)]
        if name == "depth":
            finite = finite[finite != 0]
        if len(finite):
            found[column] = (float(finite.min()), float(finite.max()))
    return found


def tick_of(columns: MarketColumns, options: DescribeOptions) -> dict[str, float]:
    """Tick by stream: the given one, or inferred. Trades take that of the quotes: off-book prices are finer."""
    if options.tick is not None:
        return dict.fromkeys(columns.streams(), options.tick)
    found = {
        name: infer_tick(*(getattr(value, column) for column in column_names(name)[0]))
        for name, value in columns.streams().items()
    }
    book = found.get("quotes") or found.get("depth")
    if book and "trades" in found:
        found["trades"] = book
    return found


@np.errstate(invalid="ignore", over="ignore", divide="ignore")
def describe(
    columns: MarketColumns,
    options: DescribeOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> DataReport:
    """Look at data and say what is in it and what is wrong with it.

    Parameters
    ----------
    columns : MarketColumns
    options : DescribeOptions, optional
    progress : callable, optional
        Called with the name of each stream before it is looked at.

    Returns
    -------
    DataReport
        Nothing is changed, whatever is found.
    """
    options = options or DescribeOptions()
    ticks = tick_of(columns, options)
    reports = []
    between = _between(columns)
    value: Any
    for name, value in columns.streams().items():
        if progress is not None:
            progress(name)
        times = value.ts_init
        first, last = (int(times.min()), int(times.max())) if len(times) else (0, 0)
        defects = find_defects(name, value, ticks[name], options)
        if name == "trades" and "outside_rows" in between:
            rows = between.pop("outside_rows")
            defect = _first("outside_quotes", "price", rows, value.price)
            defects += (defect,) if defect else ()
        reports.append(
            StreamReport(
                name=name,
                rows=len(value),
                first_ns=first,
                last_ns=last,
                rate=len(value) / ((last - first) / 1e9) if last > first else None,
                tick=ticks[name],
                tick_given=options.tick is not None,
                ranges=_ranges(name, value),
                defects=defects,
                gaps=_gaps(name, times, options),
                stale=_stale(value, options),
                statistics=_statistics(name, value, ticks[name]),
            )
        )
    between.pop("outside_rows", None)
    has_clock = any((times > 0).any() for times in columns.exchange_times.values())
    clock = clock_offset(columns) if has_clock else None
    return DataReport(columns.source, columns.notes, tuple(reports), clock, between)


def _between(columns: MarketColumns) -> dict[str, Any]:
    found: dict[str, Any] = {}
    book = columns.quotes if columns.quotes is not None else columns.depth
    if columns.trades is not None and book is not None and len(book) and len(columns.trades):
        rows, facts = outside_quotes(columns.trades, book)
        found["trades_and_" + ("quotes" if columns.quotes is not None else "depth")] = facts
        found["outside_rows"] = rows
    if columns.depth is not None and columns.quotes is not None and len(columns.quotes):
        found["depth_and_quotes"] = _tops(columns)
    return found


def _tops(columns: MarketColumns) -> dict[str, Any]:
    """How often the best level of the depth is the last quote at or before it."""
    assert columns.depth is not None
    assert columns.quotes is not None
    at = quote_before(columns.quotes.ts_init, columns.depth.ts_init)
    compared = at >= 0
    facts: dict[str, Any] = {"compared": int(compared.sum())}
    same = compared.copy()
    for name in ("bid_price", "ask_price"):
        same &= getattr(columns.depth, name)[:, 0] == getattr(columns.quotes, name)[at]
    facts["top_differs"] = float(100 * (compared & ~same).sum() / compared.sum()) if compared.any() else None
    return facts
