"""Odds of prediction markets: quotes of a binary option as probabilities.

A binary option pays 1 if its outcome happens and 0 if not, so its price is a probability: bid and ask bound what the
market believes, their middle is the implied probability and their distance says how much it is worth.

One object is one market. Markets of a category are never averaged: the outcomes of one event compete, their prices add
up to more than one (the difference is the fee for impatience), and a mean over dates or strikes has no meaning. Take
the markets that matter, one stream each (see `select_markets`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError, FeatureExtractionError
from tengri_fast.features.external.common import (
    HOUR_NS,
    LAST_NS,
    NotPickled,
    SourceCounters,
    SourceInfo,
    StrPath,
    Values,
    checked_delay,
    decode_state,
    number,
    read_table,
    sound_counters,
    time_order,
    usable_time,
)
from tengri_fast.market.columns import ExternalColumns
from tengri_fast.market.fixed_point import through_fixed_point

__all__ = ["PolymarketOdds", "Settlement"]

_VERSION = 1
_ONE_SIDED = ("drop", "fill")


class Settlement(NamedTuple):
    """Time (UTC ns) at which an outcome became known, and the outcome: 1 yes, 0 no, 0.5 split."""

    ts_event: int
    outcome: float


class _State(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    kind: str
    version: int
    market: str
    one_sided: str
    max_spread: float
    last_ts: int
    last: tuple[float, float] | None
    settled: bool
    counters: SourceCounters


class PolymarketOdds(NotPickled):
    """Quotes of one binary market as observations ``[bid, ask, NaN, NaN]``, probabilities from 0 to 1.

    Parameters
    ----------
    market : str
        Slug of the market; needed where a file holds several.
    one_sided : {"drop", "fill"}
        What a quote with one side missing (NaN) is: "drop" counts it as invalid and the last whole quote ages; "fill"
        puts the bound of the payoff in place of the missing side (bid 0, ask 1). With both sides missing it is always
        invalid.
    max_spread : float
        Wider quotes are dropped (counter `filtered`); 1 keeps all.

    Notes
    -----
    Rules in this order: after the settlement (`settled`), time unusable or a number out of 0..1 (`invalid`), older
    than the last accepted quote (`backward`), bid above ask (`crossed`), wider than `max_spread` (`filtered`), time and
    both prices as in the last accepted quote (`duplicate`). Equal prices at a later time are news: the quote still
    stands. State is constant in size.
    """

    name = "PolymarketOdds"
    info = SourceInfo(
        "PolymarketOdds",
        "Implied probability of a prediction market from the quotes of a binary option",
        ("bid", "ask", "", ""),
        ("probability 0..1", "probability 0..1", "", ""),
        2 * HOUR_NS,
    )

    __slots__ = ("_last", "_last_ts", "_settled", "counters", "market", "max_spread", "one_sided")

    def __init__(self, market: str = "", *, one_sided: str = "drop", max_spread: float = 1.0) -> None:
        if not isinstance(market, str) or len(market) > 500:
            raise FeatureExtractionError(f"`market` must be text of at most 500 characters, was {market!r:.60}")
        if one_sided not in _ONE_SIDED:
            raise FeatureExtractionError(f"`one_sided` must be one of {', '.join(_ONE_SIDED)}, was {one_sided!r}")
        if not 0.0 <= number(max_spread) <= 1.0:
            raise FeatureExtractionError(f"`max_spread` must be from 0 to 1, was {max_spread!r}")
        self.market = market
        self.one_sided = one_sided
        self.max_spread = float(max_spread)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the parameters."""
        self._last_ts = 0
        self._last: tuple[float, float] | None = None
        self._settled = False
        self.counters = SourceCounters()

    def push(self, ts_event: int, bid: float, ask: float) -> Values | None:
        """Take one quote.

        Parameters
        ----------
        ts_event : int
            Time of the quote, UTC ns.
        bid, ask : float
            Prices as probabilities.

        Returns
        -------
        tuple of 4 float, or None
            The values of the observation, None if a rule dropped the quote.
        """
        count = self.counters
        if self._settled:
            count.settled += 1
            return None
        bid, ask = number(bid), number(ask)
        if self.one_sided == "fill" and (bid != bid) != (ask != ask):
            bid, ask = (0.0, ask) if bid != bid else (bid, 1.0)
        if not usable_time(ts_event) or not (0.0 <= bid <= 1.0 and 0.0 <= ask <= 1.0):
            count.invalid += 1
            return None
        if ts_event < self._last_ts:
            count.backward += 1
            return None
        if bid > ask:
            count.crossed += 1
            return None
        if ask - bid > self.max_spread:
            count.filtered += 1
            return None
        bid, ask = bid + 0.0, ask + 0.0  # -0 becomes 0
        if ts_event == self._last_ts and self._last == (bid, ask):
            count.duplicate += 1
            return None
        self._last_ts, self._last = int(ts_event), (bid, ask)
        count.accepted += 1
        return bid, ask, math.nan, math.nan

    def settle(self, ts_event: int, outcome: float) -> Values | None:
        """The outcome becomes known: the last observation of this market.

        Parameters
        ----------
        ts_event : int
            Time at which it was known to the world, UTC ns.
        outcome : {0, 0.5, 1}

        Returns
        -------
        tuple of 4 float, or None
            ``(outcome, outcome, NaN, NaN)``; None if it is invalid, older than the last quote, or not the first.
        """
        count = self.counters
        if self._settled:
            count.settled += 1
            return None
        outcome = number(outcome)
        if not usable_time(ts_event) or outcome not in (0.0, 0.5, 1.0):
            count.invalid += 1
            return None
        if ts_event < self._last_ts:
            count.backward += 1
            return None
        outcome += 0.0
        self._last_ts, self._last, self._settled = int(ts_event), (outcome, outcome), True
        count.accepted += 1
        return outcome, outcome, math.nan, math.nan

    def observations(self, ts_event: npt.ArrayLike, bid: npt.ArrayLike, ask: npt.ArrayLike, *,
                     settlement: Settlement | None = None, delay_ns: int = 0) -> ExternalColumns:  # fmt: skip
        """Observations of a history, which continues where the state stands.

        Parameters
        ----------
        ts_event : array_like of int [n]
            UTC ns; rows that run backward are first sorted into place (stable).
        bid, ask : array_like of float [n]
        settlement : Settlement, optional
            When the outcome became known. Quotes up to that time are kept, then comes the outcome, then nothing.
        delay_ns : int
            From publication to receipt: ``ts_init = ts_event + delay_ns``.

        Returns
        -------
        ExternalColumns
            What `push` (and `settle`) would have returned, row by row.

        Raises
        ------
        DataConversionError
            If the arrays do not fit.
        """
        delay = checked_delay(delay_ns)
        stamps = np.asarray(ts_event)
        bids, asks = _prices("bid", bid), _prices("ask", ask)
        if stamps.ndim != 1 or (stamps.size and stamps.dtype.kind not in "iu"):
            raise DataConversionError(f"`ts_event` must be one column of whole nanoseconds, had type {stamps.dtype} "
                                      f"and shape {stamps.shape}")  # fmt: skip
        if not len(stamps) == len(bids) == len(asks):
            raise DataConversionError(
                f"`bid` and `ask` must have {len(stamps)} rows as `ts_event`, had {len(bids)} and {len(asks)}"
            )
        usable = (stamps >= 0) & (stamps < LAST_NS)
        self.counters.invalid += 0 if self._settled else int(np.count_nonzero(~usable))
        self.counters.settled += int(np.count_nonzero(~usable)) if self._settled else 0
        times = stamps[usable].astype(np.int64)
        bids, asks = bids[usable], asks[usable]
        order = time_order(times, self.counters)
        if order is not None:
            times, bids, asks = times[order], bids[order], asks[order]
        cut = len(times) if settlement is None else int(np.searchsorted(times, settlement.ts_event, side="right"))
        kept, pairs = self._quotes(times[:cut], bids[:cut], asks[:cut])
        if settlement is not None:
            last = self.settle(*settlement)
            if last is not None:
                kept = np.append(kept, settlement.ts_event)
                pairs = np.append(pairs, [last[:2]], axis=0)
            more, other = self._quotes(times[cut:], bids[cut:], asks[cut:])
            kept, pairs = np.append(kept, more), np.append(pairs, other, axis=0)
        stamps_out = kept.astype(np.uint64)
        return ExternalColumns(stamps_out, stamps_out + delay, pairs)

    def _quotes(self, times: npt.NDArray[np.int64], bids: npt.NDArray[np.float64], asks: npt.NDArray[np.float64]
                ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:  # fmt: skip
        """`push` for sorted rows, in arrays."""
        count = self.counters
        if self._settled or not len(times):
            count.settled += len(times)
            return np.empty(0, np.int64), np.empty((0, 2))
        if self.one_sided == "fill":
            no_bid, no_ask = np.isnan(bids), np.isnan(asks)
            bids, asks = np.where(no_bid & ~no_ask, 0.0, bids), np.where(no_ask & ~no_bid, 1.0, asks)
        keep = (bids >= 0.0) & (bids <= 1.0) & (asks >= 0.0) & (asks <= 1.0)
        count.invalid += int(np.count_nonzero(~keep))
        for name, broken in (
            ("backward", times < self._last_ts),
            ("crossed", bids > asks),
            ("filtered", np.where(keep, asks, 0.0) - np.where(keep, bids, 0.0) > self.max_spread),
        ):
            setattr(count, name, getattr(count, name) + int(np.count_nonzero(keep & broken)))
            keep &= ~broken
        times, bids, asks = times[keep], bids[keep] + 0.0, asks[keep] + 0.0
        if not len(times):
            return times, np.empty((0, 2))
        again = np.empty(len(times), bool)
        again[0] = times[0] == self._last_ts and self._last == (float(bids[0]), float(asks[0]))
        again[1:] = (times[1:] == times[:-1]) & (bids[1:] == bids[:-1]) & (asks[1:] == asks[:-1])
        count.duplicate += int(np.count_nonzero(again))
        count.accepted += int(np.count_nonzero(~again))
        self._last_ts, self._last = int(times[-1]), (float(bids[-1]), float(asks[-1]))
        return times[~again], np.column_stack([bids, asks])[~again]

    def from_file(self, path: StrPath, *, columns: Mapping[str, str] | None = None,
                  settlement: Settlement | None = None, delay_ns: int = 0) -> ExternalColumns:  # fmt: skip
        """Observations of this market in a Parquet, .csv or .csv.gz file of quotes.

        Parameters
        ----------
        path : path
        columns : mapping, optional
            Our field to the file's column where that differs: ts_event ("ts_ns"), market ("slug"), bid, ask. No other
            column is read, so an outcome in the file cannot leak.
        settlement, delay_ns
            As for `observations`.

        Raises
        ------
        DataConversionError
            If the file or a column is missing, or holds several markets and `market` names none of them.
        """
        fields = {"ts_event": "ts_ns", "market": "slug", "bid": "bid", "ask": "ask"}
        keep = ("market", [self.market]) if self.market else None
        found = read_table(path, fields, columns, optional=frozenset({"market"}), keep=keep)
        slugs = set(found.get("market", []))
        if self.market and "market" in found and not slugs:
            raise DataConversionError(f"`market` must be in {path}, was {self.market!r}")
        if not self.market and len(slugs) > 1:
            raise DataConversionError(f"`market` must be given: the file holds {len(slugs)}, such as {min(slugs)!r}")
        bid, ask = (through_fixed_point(_prices(name, found[name])) for name in ("bid", "ask"))
        return self.observations(_times(found["ts_event"]), bid, ask, settlement=settlement, delay_ns=delay_ns)

    def copy(self) -> Self:
        """An independent source in the same state."""
        return type(self).from_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Parameters and state, for `from_bytes`."""
        return msgspec.msgpack.encode(_State(self.name, _VERSION, self.market, self.one_sided, self.max_spread,
                                             self._last_ts, self._last, self._settled, self.counters))  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """A source that continues with the same bits.

        Raises
        ------
        FeatureExtractionError
            If `data` is not such a state.
        """
        state = decode_state(data, cls.name, _VERSION, _State)
        last = state.last
        if not (0 <= state.last_ts < LAST_NS and sound_counters(state.counters)) or (
            last is not None and not 0.0 <= last[0] <= last[1] <= 1.0
        ):
            raise FeatureExtractionError("`data` must be a sound state of PolymarketOdds, had numbers out of range")
        source = cls(state.market, one_sided=state.one_sided, max_spread=state.max_spread)
        source._last_ts, source._last, source._settled = state.last_ts, last, state.settled
        source.counters = state.counters
        return source


def _prices(name: str, values: Any) -> npt.NDArray[np.float64]:
    if isinstance(values, list) and values and isinstance(values[0], str):
        values = [float(cell) if cell else math.nan for cell in _checked_cells(name, values)]
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "fiu":
        raise DataConversionError(f"`{name}` must hold numbers, had type {array.dtype}")
    if array.ndim != 1:
        raise DataConversionError(f"`{name}` must have 1 dimension, had {array.ndim}")
    return array.astype(np.float64)


def _checked_cells(name: str, cells: list[str]) -> list[str]:
    for cell in cells:
        try:
            float(cell or "nan")
        except ValueError:
            raise DataConversionError(f"`{name}` must hold numbers, had {cell!r:.60}") from None
    return cells


def _times(values: Any) -> npt.NDArray[np.int64]:
    if isinstance(values, list):
        try:
            return np.array([int(cell) for cell in values], np.int64)
        except (ValueError, OverflowError):
            raise DataConversionError("`ts_event` must hold whole nanoseconds in every row") from None
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise DataConversionError(f"`ts_event` must hold whole nanoseconds without gaps, had type {array.dtype}")
    return array
