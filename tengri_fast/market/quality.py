"""Detectors of defects: each takes columns and gives the rows that have the defect. Description and repair share them.

Prices and times are compared as they are; nothing is rounded unless the rule says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.market.columns import DepthColumns

__all__ = [
    "Rows",
    "backward_rows",
    "column_names",
    "duplicate_rows",
    "infer_tick",
    "off_tick",
    "price_scale",
    "spike_distance",
    "stale_runs",
    "touch",
    "unsorted_levels",
]

Rows = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float64]
Time = npt.NDArray[np.uint64]

MAD_TO_SIGMA = 1.4826
SPIKE_WINDOW = 11  # rows of the running median: bursts of up to five bad rows stand out
MAX_DECIMALS = 12
GRID_SHARE = 0.99  # of the values must lie on the grid for it to be the tick
GRID_TOLERANCE = 1e-6  # of a tick: what is left of decimals in binary
TICK_SAMPLE = 200_000

_PRICES = {
    "quotes": ("bid_price", "ask_price"),
    "trades": ("price",),
    "depth": ("bid_price", "ask_price"),
    "bars": ("open", "high", "low", "close"),
    "deltas": ("price",),
}
_SIZES = {
    "quotes": ("bid_size", "ask_size"),
    "trades": ("size",),
    "depth": ("bid_size", "ask_size"),
    "bars": ("volume",),
    "deltas": ("size",),
}


def column_names(stream: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the price and of the size columns of a stream."""
    return _PRICES[stream], _SIZES[stream]


def any_level(flags: npt.NDArray[np.bool_]) -> Rows:
    """Rows with a flag on any level."""
    return flags.any(axis=1) if flags.ndim == 2 else flags


def backward_rows(times: Time) -> Rows:
    """Rows earlier than one before them (than the latest so far, not only than the row before)."""
    rows = np.zeros(len(times), bool)
    if len(times):
        rows[1:] = times[1:] < np.maximum.accumulate(times)[:-1]
    return rows


def _bits(array: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    if array.dtype == np.float64:
        return array.view(np.uint64)
    return array.astype(np.int64).view(np.uint64) if array.dtype.kind == "i" else array.astype(np.uint64)


def duplicate_rows(value: Any) -> Rows:
    """Rows that repeat an earlier row in every column, times included (NaN equals NaN); the first is not marked."""
    flat: list[npt.NDArray[np.uint64]] = []
    for array in vars(value).values():
        if array.ndim == 1:
            flat.append(_bits(array))
        else:
            flat.extend(_bits(np.ascontiguousarray(array[:, level])) for level in range(array.shape[1]))
    rows = len(value)
    # A mixed hash per row finds candidates; they are then compared in full.
    mixed = np.zeros(rows, np.uint64)
    for column in flat:
        mixed ^= column + np.uint64(0x9E3779B97F4A7C15) + (mixed << np.uint64(6)) + (mixed >> np.uint64(2))
        mixed *= np.uint64(0xFF51AFD7ED558CCD)
        mixed ^= mixed >> np.uint64(33)
    order = np.argsort(mixed, kind="stable")
    pairs = np.flatnonzero(mixed[order][1:] == mixed[order][:-1])
    found = np.zeros(rows, bool)
    if not len(pairs):
        return found
    earlier, later = order[pairs], order[pairs + 1]
    equal = np.ones(len(pairs), bool)
    for column in flat:
        equal &= column[earlier] == column[later]
    if equal.all():
        found[later] = True
        return found
    # Different rows with one hash: neighbours do not tell, so the candidates are sorted in full.
    candidates = np.unique(np.concatenate([earlier, later]))
    _, first = np.unique(np.column_stack([column[candidates] for column in flat]), axis=0, return_index=True)
    repeated = np.ones(len(candidates), bool)
    repeated[first] = False
    found[candidates[repeated]] = True
    return found


def touch(value: Any) -> tuple[Float, Float, Float, Float]:
    """Best bid, best ask and their sizes of quotes or depth; a level that is not there is NaN."""
    if isinstance(value, DepthColumns):
        bid, ask = value.bid_price[:, 0], value.ask_price[:, 0]
        return (
            np.where(bid == 0, np.nan, bid), np.where(ask == 0, np.nan, ask), value.bid_size[:, 0], value.ask_size[:, 0]
        )  # fmt: skip
    return value.bid_price, value.ask_price, value.bid_size, value.ask_size


def reference_price(stream: str, value: Any) -> Float:
    """The price whose jumps are judged: mid, trade price, close."""
    if stream in ("quotes", "depth"):
        bid, ask, _, _ = touch(value)
        return (bid + ask) / 2
    return np.asarray(value.close if stream == "bars" else value.price)


def price_scale(prices: Float, tick: float) -> float:
    """Robust standard deviation of price changes: 1.4826 median |change| of those that are not 0, at least a tick."""
    changes = np.abs(np.diff(prices[np.isfinite(prices)]))
    changes = changes[changes > 0]
    return max(MAD_TO_SIGMA * float(np.median(changes)) if len(changes) else 0.0, tick)


def running_median(prices: Float) -> Float:
    """Median of the 11 rows around each row (fewer at the ends); rows without a number do not count."""
    half = SPIKE_WINDOW // 2
    if not len(prices):
        return prices.copy()
    padded = np.concatenate([np.full(half, np.nan), prices, np.full(half, np.nan)])
    out = np.empty(len(prices))
    step = 1 << 17
    for start in range(0, len(prices), step):
        stop = min(start + step, len(prices))
        block = np.lib.stride_tricks.sliding_window_view(padded[start : stop + 2 * half], SPIKE_WINDOW)
        whole = np.isfinite(block).all(axis=1)
        part = np.full(stop - start, np.nan)
        part[whole] = np.partition(block[whole], half, axis=1)[:, half]
        # NaN sorts to the end, so the middle of what is there is found by the count of it.
        rest = np.sort(np.where(np.isfinite(block[~whole]), block[~whole], np.nan), axis=1)
        there = np.isfinite(rest).sum(axis=1)
        lower, upper = (np.take_along_axis(rest, np.maximum(at, 0)[:, None], axis=1)[:, 0]
                        for at in ((there - 1) // 2, np.minimum(there // 2, SPIKE_WINDOW - 1)))  # fmt: skip
        part[~whole] = lower / 2 + upper / 2
        out[start:stop] = part
    return out


def spike_distance(prices: Float, tick: float) -> tuple[Float, Float, float]:
    """Distance of each price to the running median in robust standard deviations, the median, and the deviation."""
    middle, sigma = running_median(prices), price_scale(prices, tick)
    if sigma <= 0:
        return np.zeros(len(prices)), middle, 0.0
    with np.errstate(invalid="ignore"):
        distance = np.abs(prices - middle) / sigma
    return np.where(np.isfinite(distance), distance, 0.0), middle, sigma


def infer_tick(*prices: Float) -> float:
    """The largest step of 1, 2 or 5 times a power of ten, or 25 times one, on which 99 % of the prices lie.

    Prices that are NaN, infinite or not positive do not count. 0 when there are no prices or no such step down to
    1e-12. Up to 200,000 prices, evenly spread, are looked at.
    """
    flat = np.concatenate([np.ravel(part) for part in prices]) if prices else np.zeros(0)
    flat = flat[np.isfinite(flat) & (flat > 0)]
    if len(flat) > TICK_SAMPLE:
        flat = flat[:: len(flat) // TICK_SAMPLE + 1]
    if not len(flat):
        return 0.0
    for decimals in range(-3, MAX_DECIMALS + 1):
        scaled = flat * 10.0**decimals
        whole = np.rint(scaled)
        # Binary rounding grows with the number itself; on a grid finer than that nothing can be told.
        tolerance = GRID_TOLERANCE + np.abs(scaled) * 4e-16
        if float(tolerance.max()) > 0.1:
            return 0.0
        if np.mean((np.abs(scaled - whole) <= tolerance) & (whole >= 1)) >= GRID_SHARE:
            multiple = next((m for m in (25, 5, 2) if np.mean(whole % m == 0) >= GRID_SHARE), 1)
            # One division, so that the tick is the double nearest to its decimals.
            return float(multiple / 10.0**decimals) if decimals >= 0 else float(multiple * 10.0**-decimals)
    return 0.0


def off_tick(prices: Float, tick: float) -> npt.NDArray[np.bool_]:
    """Prices more than a millionth of a tick (and the rounding of a double) beside the grid; 0 and NaN are not."""
    if tick <= 0:
        return np.zeros(prices.shape, bool)
    with np.errstate(invalid="ignore", over="ignore"):
        steps = prices / tick
        away = np.abs(steps - np.rint(steps)) > GRID_TOLERANCE + np.abs(steps) * 4e-16
    return np.asarray(away & np.isfinite(prices))


def stale_runs(value: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Starts and lengths of runs of rows that repeat prices and sizes (of the best level), times aside."""
    columns = touch(value) if hasattr(value, "bid_price") else (value.open, value.high, value.low, value.close)
    rows = len(value)
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    changed = np.ones(rows, bool)
    changed[1:] = False
    for column in columns:
        bits = np.ascontiguousarray(column).view(np.uint64)
        changed[1:] |= bits[1:] != bits[:-1]
    starts = np.flatnonzero(changed)
    return starts, np.diff(starts, append=rows)


def unsorted_levels(value: DepthColumns) -> tuple[Rows, Rows]:
    """Rows whose levels are not strictly ordered from the best outward, and rows with a hole between levels."""
    wrong, hole = np.zeros(len(value), bool), np.zeros(len(value), bool)
    for prices, sign in ((value.bid_price, -1.0), (value.ask_price, 1.0)):
        near, far = prices[:, :-1], prices[:, 1:]
        both = (near != 0) & (far != 0)
        with np.errstate(invalid="ignore"):
            wrong |= (both & ((far - near) * sign <= 0)).any(axis=1)
        hole |= ((near == 0) & (far != 0)).any(axis=1)
    return wrong, hole
