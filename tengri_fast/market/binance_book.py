"""Binance's order book streams as changes of a book: a REST snapshot, and the diffs that follow it.

The rule is Binance's own ("How to manage a local order book correctly"): diffs that end before the snapshot are left
out; the first one used must span the snapshot's ``lastUpdateId``; on futures each further one names the last update of
the one before it (``pu``), on spot each begins at most one behind it. Where the rule is broken something is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import DeltaColumns
from tengri_fast.market.fixed_point import through_fixed_point

__all__ = ["binance_book_deltas"]

ADD, UPDATE, DELETE, CLEAR = 1, 2, 3, 4
FLAG_LAST, FLAG_SNAPSHOT = 128, 32
NS_PER_MS = 1_000_000


def binance_book_deltas(
    snapshot: Mapping[str, Any], diffs: Iterable[Mapping[str, Any]], ts_init: npt.ArrayLike | None = None
) -> DeltaColumns:
    """A snapshot and the diffs around it as changes for ``OrderBookL2(contiguous=True)``.

    Parameters
    ----------
    snapshot : mapping
        The REST answer: ``lastUpdateId``, ``bids`` and ``asks`` as pairs of price and size; ``T`` or ``E`` in
        milliseconds where given (futures), else the time of the first diff used.
    diffs : iterable of mapping
        ``depthUpdate`` messages in the order in which they came, those from before the snapshot included: ``U``,
        ``u``, ``b``, ``a``, ``E``, and on futures ``pu`` and ``T``.
    ts_init : array_like of uint64, optional
        When each diff was received, UTC nanoseconds; its event time by default. The snapshot takes that of the first
        diff used.

    Returns
    -------
    DeltaColumns
        A clear, the levels of the snapshot, then those of the diffs; size 0 is a delete. Prices and sizes are those
        that NautilusTrader hands out (`through_fixed_point`), event times the exchange's, in nanoseconds. ``sequence``
        is not Binance's number but counts events from 1, and skips one where the rule above shows a gap: so a book with
        ``contiguous=True`` is stale from there on. A diff that changes nothing has no rows and no number; the chain
        still runs through it.

    Raises
    ------
    DataConversionError
        If a message lacks a field, holds no numbers, or `ts_init` has not one time per diff.
    """
    messages = list(diffs)
    received = None if ts_init is None else np.asarray(ts_init, dtype=np.uint64)
    if received is not None and received.shape != (len(messages),):
        raise DataConversionError(f"`ts_init` must have {len(messages)} times, had shape {received.shape}")
    try:
        start = int(snapshot["lastUpdateId"])
        # On spot a diff that ends with the snapshot is in it; on futures the first one used may.
        used = [i for i, m in enumerate(messages) if int(m["u"]) >= start + ("pu" not in m)]
        first = messages[used[0]] if used else {}
        stamp = int(snapshot.get("T") or snapshot.get("E") or first.get("T") or first.get("E") or 0) * NS_PER_MS
        local = int(received[used[0]]) if received is not None and used else stamp
        events = [(True, 1, stamp, local, snapshot["bids"], snapshot["asks"])]
        sequence, last = 1, -1
        for i in used:
            m = messages[i]
            opens, ends = int(m["U"]), int(m["u"])
            if last < 0:
                follows = opens <= start + ("pu" not in m)
            else:
                follows = int(m["pu"]) == last if "pu" in m else opens <= last + 1
            last = ends
            sequence += not follows
            if m["b"] or m["a"]:
                sequence += 1
                stamp = int(m.get("T") or m["E"]) * NS_PER_MS
                events.append((False, sequence, stamp, stamp if received is None else int(received[i]), m["b"], m["a"]))
        return _columns(events)
    except (KeyError, TypeError, ValueError) as error:
        raise DataConversionError(f"`snapshot` and `diffs` must be Binance depth messages: {error!r}") from None


def _columns(events: list[tuple[bool, int, int, int, Any, Any]]) -> DeltaColumns:
    bids = np.array([len(event[4]) for event in events])
    asks = np.array([len(event[5]) for event in events])
    pairs = [level for event in events for side in event[4:] for level in side]
    levels = through_fixed_point(np.array(pairs, dtype=np.float64).reshape(len(pairs), 2))
    counts = bids + asks
    counts[0] += 1  # the clear
    price, size = (np.insert(levels[:, i], 0, 0.0) for i in range(2))
    snapshot = np.repeat([event[0] for event in events], counts)
    sequence, ts_event, ts_init = (
        np.repeat(np.array([event[i] for event in events], np.uint64), counts) for i in (1, 2, 3)
    )
    action = np.where(snapshot, ADD, np.where(size == 0.0, DELETE, UPDATE)).astype(np.uint8)
    action[0] = CLEAR
    side = np.repeat(np.tile([1, -1], len(events)), np.stack([bids, asks], axis=1).ravel())
    flags = np.where(snapshot, FLAG_SNAPSHOT, 0).astype(np.uint8)
    flags[np.cumsum(counts) - 1] |= FLAG_LAST
    return DeltaColumns(
        action=action,
        side=np.insert(side, 0, 0).astype(np.int8),
        price=price,
        size=size,
        order_id=np.zeros(len(action), np.uint64),
        flags=flags,
        sequence=sequence,
        ts_event=ts_event,
        ts_init=ts_init,
    )
