"""Binance's snapshot and diffs become the right book, and a broken chain is seen."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
from support import shared_data

from tengri_fast.errors import DataConversionError
from tengri_fast.market import OrderBookL2, binance_book_deltas, read_depth


def test_the_raw_feed_gives_the_rows_of_the_depth_file() -> None:
    diffs: list[dict[str, Any]] = []
    received: list[int] = []
    snapshot: dict[str, Any] = {}
    with gzip.open(shared_data("tick", "binance", "raw", "btcusdt_usdm_20240718.gz"), "rt") as file:
        for line in file:
            stamp, _, text = line.partition(" ")
            message = json.loads(text)
            message = message.get("data", message)
            if "lastUpdateId" in message:
                snapshot = message
            elif message["e"] == "depthUpdate":
                diffs.append(message)
                received.append(int(stamp))
    deltas = binance_book_deltas(snapshot, diffs, received)
    book = OrderBookL2(contiguous=True)
    found = book.depth_columns(deltas)
    wanted = read_depth(shared_data("tick", "binance", "binance_usdm_btcusdt_20240718.depth10.parquet"))
    # The file begins after the snapshot and the diff that spans it, which had come before.
    assert len(found) == len(wanted) + 2 == 3_322
    for name in ("bid_price", "bid_size", "ask_price", "ask_size"):
        np.testing.assert_array_equal(getattr(found, name)[2:], getattr(wanted, name))
    np.testing.assert_array_equal(found.ts_init[2:], wanted.ts_init)
    counters = book.counters
    assert (counters.gaps, counters.invalid, counters.out_of_order, counters.backward) == (0, 0, 0, 0)

    broken = binance_book_deltas(snapshot, diffs[:1_000] + diffs[1_001:], received[:1_000] + received[1_001:])
    book.reset()
    lost = book.depth_columns(broken)
    assert book.stale
    assert book.counters.gaps == 1
    assert len(lost) == 996
    np.testing.assert_array_equal(lost.bid_size, found.bid_size[:996])
    late = OrderBookL2(contiguous=True)
    assert len(late.depth_columns(binance_book_deltas(snapshot, diffs[10:], received[10:]))) == 1
    assert late.stale


def spot(first: int, last: int, *bids: tuple[str, str]) -> dict[str, Any]:
    return {"e": "depthUpdate", "E": last, "U": first, "u": last, "b": list(bids), "a": []}


def test_spot_chains_by_first_and_last() -> None:
    snapshot = {"lastUpdateId": 100, "bids": [["10.0", "1"]], "asks": [["11.0", "2"]]}
    diffs = [spot(90, 100, ("9.0", "9")), spot(101, 105, ("10.0", "3")), spot(106, 106), spot(107, 110, ("10.0", "0"))]
    deltas = binance_book_deltas(snapshot, diffs)
    assert deltas.action.tolist() == [4, 1, 1, 2, 3]
    assert deltas.sequence.tolist() == [1, 1, 1, 2, 3]
    assert deltas.flags.tolist() == [32, 32, 160, 128, 128]
    assert deltas.side.tolist() == [0, 1, -1, 1, 1]
    assert deltas.ts_event.tolist() == [105_000_000] * 4 + [110_000_000]
    book = OrderBookL2(contiguous=True)
    book.apply_columns(deltas)
    assert not book.stale
    assert book.best_bid is None
    assert book.best_ask == (11.0, 2.0, 1)
    for missing in ([diffs[0], diffs[2], diffs[3]], [diffs[1], diffs[3]]):
        book.reset()
        book.apply_columns(binance_book_deltas(snapshot, missing))
        assert book.stale
        assert book.counters.gaps == 1
    assert len(binance_book_deltas(snapshot, [])) == 3


@pytest.mark.parametrize(
    ("snapshot", "diffs"),
    [({}, []), ({"lastUpdateId": 1, "bids": [["x", "1"]], "asks": []}, []),
     ({"lastUpdateId": 1, "bids": [], "asks": []}, [{"u": 5}]), ({"lastUpdateId": 1, "bids": [["1"]], "asks": []}, [])],
)  # fmt: skip
def test_messages_of_another_kind_are_refused(snapshot: Any, diffs: Any) -> None:
    with pytest.raises(DataConversionError, match="Binance depth messages"):
        binance_book_deltas(snapshot, diffs)


def test_one_time_per_diff() -> None:
    with pytest.raises(DataConversionError, match="`ts_init` must have 0 times"):
        binance_book_deltas({"lastUpdateId": 1, "bids": [], "asks": []}, [], [1])
