"""The clock of whoever recorded the data against the clock of the exchange.

A file that has both clocks tells their difference in every row: `local - exchange` is the offset between the clocks
plus the time the message took. The median over all rows is a robust estimate of the offset (half of the rows may be
late by any amount), wrong by the typical delay of the feed, which one-way times cannot separate. Feed latency can
therefore not be had from an aligned file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import MarketColumns

__all__ = ["ClockOffset", "clock_offset", "shift_clock"]

# Standard deviations of a normal distribution per median absolute deviation.
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class ClockOffset:
    """Local clock minus exchange clock, in nanoseconds.

    Attributes
    ----------
    rows : int
        Rows that have both times.
    median_ns, sigma_ns : int
        The estimate, and the robust spread of single rows (1.4826 median absolute deviations).
    low_ns, high_ns : int
        5th and 95th percentile of single rows.
    drift_ns : int
        Median of the last tenth of the rows (in order of time) minus that of the first.
    by_stream : dict of str to int
        Median per stream.
    """

    rows: int
    median_ns: int
    sigma_ns: int
    low_ns: int
    high_ns: int
    drift_ns: int
    by_stream: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self)) | {"by_stream": dict(self.by_stream)}


def _differences(columns: MarketColumns) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], dict[str, int]]:
    parts, times, by_stream = [], [], {}
    for name, exchange in columns.exchange_times.items():
        local = columns.streams()[name].ts_init
        there = exchange > 0
        difference = local[there].astype(np.int64) - exchange[there].astype(np.int64)
        if len(difference):
            parts.append(difference)
            times.append(local[there])
            by_stream[name] = int(np.median(difference))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64), {}
    return np.concatenate(parts), np.concatenate(times), by_stream


def clock_offset(columns: MarketColumns) -> ClockOffset:
    """Estimate the offset of the local clock from the rows that carry both times.

    Parameters
    ----------
    columns : MarketColumns
        With `exchange_times`.

    Raises
    ------
    DataConversionError
        If no row has both times.
    """
    differences, times, by_stream = _differences(columns)
    if not len(differences):
        raise DataConversionError(f"`clock_offset` must be given as a duration for {columns.source or 'this data'}: "
                                  "no row has an exchange time beside its local time")  # fmt: skip
    median = int(np.median(differences))
    low, high = np.percentile(differences, [5, 95])
    tenth = max(len(differences) // 10, 1)
    order = np.argsort(times, kind="stable")
    return ClockOffset(
        rows=len(differences),
        median_ns=median,
        sigma_ns=int(MAD_TO_SIGMA * np.median(np.abs(differences - median))),
        low_ns=int(low),
        high_ns=int(high),
        drift_ns=int(np.median(differences[order[-tenth:]]) - np.median(differences[order[:tenth]])),
        by_stream=by_stream,
    )


def shift_clock(columns: MarketColumns, offset_ns: int) -> MarketColumns:
    """Set the local clock: subtract `offset_ns` from event and init times of every stream.

    Exchange times stay. A time that would fall before 1970 or behind the range is an error.
    """
    moved: dict[str, Any] = {}
    for name, value in columns.streams().items():
        changed = {}
        for field in ("ts_event", "ts_init"):
            times = getattr(value, field)
            if len(times):
                least, most = int(times.min()) - offset_ns, int(times.max()) - offset_ns
                if least < 0 or most >= 2**64:
                    raise DataConversionError(f"`clock_offset` must leave times from 1970 on, {field} of {name} would "
                                              f"be {least if least < 0 else most}")  # fmt: skip
            # Unsigned arithmetic wraps around, which is what subtracting a negative number is.
            changed[field] = times - np.uint64(offset_ns % 2**64)
        moved[name] = replace(value, **changed)
    return replace(columns, **moved)
