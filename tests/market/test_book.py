"""Our order book against a plain one of Python dictionaries, and everything that NautilusTrader does not rule."""

from __future__ import annotations

import csv
import gzip
import math
import pickle
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import shared_data

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.market import DeltaColumns, OrderBookL2

ADD, UPDATE, DELETE, CLEAR = 1, 2, 3, 4
LAST, SNAPSHOT = 128, 32


class PlainBook:
    """Orders in a dictionary; levels are counted anew whenever somebody asks."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.orders: dict[Any, tuple[int, float, float]] = {}

    def apply(self, action: int, side: int, price: float, size: float, order_id: int = 0) -> None:
        if action == CLEAR:
            self.orders.clear()
            return
        by_id = self.mode == "order" and order_id != 0
        key = (side, "id", order_id) if by_id else (side, "price", price)
        if action == DELETE or size == 0:
            self.orders.pop(key, None)
        else:
            self.orders[key] = (side, price, size)

    def levels(self, side: int) -> list[tuple[float, float, float]]:
        found: dict[float, list[float]] = {}
        for on, price, size in self.orders.values():
            if on == side:
                found.setdefault(price, []).append(size)
        return [(p, math.fsum(found[p]), float(len(found[p]))) for p in sorted(found, reverse=side > 0)]

    def cumulative(self, side: int, depth: int) -> float:
        best = {level[0] for level in self.levels(side)[:depth]}
        return math.fsum(size for on, price, size in self.orders.values() if on == side and price in best)


def equal(book: OrderBookL2, plain: PlainBook) -> None:
    for side, found in ((1, book.bids()), (-1, book.asks())):
        assert list(map(tuple, found.tolist())) == plain.levels(side)
        assert book.level_count(side) == book.exact_levels(side) == len(found)
        assert book.cumulative_size(side, 3) == plain.cumulative(side, 3)
    assert book.is_sound()


def columns(rows: list[tuple[Any, ...]]) -> DeltaColumns:
    """Rows of action, side, price, size, order id, flags, sequence, time."""
    action, side, price, size, order_id, flags, sequence, ts = zip(*rows, strict=True) if rows else ((),) * 8
    return DeltaColumns(np.array(action, np.uint8), np.array(side, np.int8), np.array(price, float),
                        np.array(size, float), np.array(order_id, np.uint64), np.array(flags, np.uint8),
                        np.array(sequence, np.uint64), np.array(ts, np.uint64), np.array(ts, np.uint64))  # fmt: skip


CHANGE = st.tuples(
    st.sampled_from([ADD] * 6 + [UPDATE] * 6 + [DELETE] * 4 + [CLEAR]),
    st.sampled_from([1, -1]),
    st.integers(-6, 6).map(lambda ticks: 0.05 * ticks),
    st.sampled_from([0.1, 0.2, 0.7, 1e-8, 12_345.678, 3.3]),
    st.integers(0, 12),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["price", "order"]), st.lists(CHANGE, max_size=120), st.data())
def test_a_dictionary_agrees_after_every_change(mode: Any, changes: list[Any], data: st.DataObject) -> None:
    book, plain = OrderBookL2(mode, levels=16, orders=64), PlainBook(mode)
    for action, side, price, size, order_id in changes:
        if action == UPDATE and data.draw(st.integers(0, 9)) == 0:
            size = 0.0
        assert book.apply(action, side, price, size, order_id)
        plain.apply(action, side, price + 0.0, size, order_id)
        equal(book, plain)
    assert book.counters.applied == len(changes)
    assert book.counters.invalid == 0


@pytest.mark.parametrize("mode", ["price", "order"])
def test_columns_and_single_changes_and_continuing_from_bytes_are_the_same(mode: Any) -> None:
    rng = np.random.default_rng(5)
    n = 3_000
    rows = list(zip(rng.choice([1, 2, 3], n, p=[0.4, 0.4, 0.2]).tolist(), rng.choice([1, -1], n).tolist(),
                    (0.5 * rng.integers(-20, 20, n)).tolist(), rng.uniform(0, 5, n).tolist(),
                    rng.integers(0, 400, n).tolist(), rng.choice([0, LAST], n).tolist(), [0] * n, range(n),
                    strict=True))  # fmt: skip
    single, whole, pieces = (OrderBookL2(mode, levels=64, orders=512) for _ in range(3))
    for row in rows:
        single.apply(*row)
    assert whole.apply_columns(columns(rows)) == n
    depth = []
    for first in range(0, n, 701):
        again = OrderBookL2(mode, levels=64, orders=512)
        again.from_bytes(pieces.to_bytes())
        pieces = again.copy()
        depth.append(pieces.depth_columns(columns(rows[first : first + 701]), levels=4))
    assert single.to_bytes() == whole.to_bytes() == pieces.to_bytes()
    assert sum(map(len, depth)) == sum(row[5] == LAST for row in rows) == whole.counters.events

    plain, at = PlainBook(mode), 0
    prices = np.concatenate([part.bid_price for part in depth])
    sizes = np.concatenate([part.ask_size for part in depth])
    times = np.concatenate([part.ts_event for part in depth])
    for action, side, price, size, order_id, flags, _, ts in rows:
        plain.apply(action, side, price, size, order_id)
        if flags == LAST:
            bids = [level[0] for level in plain.levels(1)[:4]]
            asks = [level[1] for level in plain.levels(-1)[:4]]
            assert prices[at].tolist() == bids + [0.0] * (4 - len(bids))
            assert sizes[at].tolist() == asks + [0.0] * (4 - len(asks))
            assert times[at] == ts
            at += 1
    whole.reset()
    assert whole.to_bytes() == OrderBookL2(mode, levels=64, orders=512).to_bytes()


def test_only_changes_of_the_noted_levels() -> None:
    rows = [(ADD, 1, 10.0 - i, 1.0, 0, LAST, 0, i) for i in range(5)] + [(UPDATE, 1, 9.0, 2.0, 0, LAST, 0, 9)]
    book = OrderBookL2()
    assert len(book.depth_columns(columns(rows), levels=2)) == 6
    book.reset()
    found = book.depth_columns(columns(rows), levels=2, every="change")
    assert found.ts_event.tolist() == [0, 1, 9]
    assert found.bid_size.tolist() == [[1, 0], [1, 1], [1, 2]]
    assert not found.ask_price.any()
    assert len(book.depth_columns(columns([]))) == 0


def test_no_rows_inside_an_event_or_from_a_stale_book() -> None:
    rows = [
        (CLEAR, 0, 0, 0, 0, SNAPSHOT, 1, 0), (ADD, 1, 10.0, 1.0, 0, SNAPSHOT, 1, 0),
        (ADD, -1, 11.0, 1.0, 0, SNAPSHOT | LAST, 1, 0),
        (UPDATE, 1, 10.0, 2.0, 0, 0, 2, 1), (UPDATE, 1, 9.0, 2.0, 0, LAST, 2, 1),
        (UPDATE, 1, 10.0, 3.0, 0, LAST, 4, 2),  # one is missing
        (UPDATE, 1, 10.0, 4.0, 0, LAST, 5, 3),
        (CLEAR, 0, 0, 0, 0, SNAPSHOT, 9, 4), (ADD, 1, 8.0, 1.0, 0, SNAPSHOT | LAST, 9, 4),
        (UPDATE, 1, 8.0, 2.0, 0, LAST, 10, 5),
    ]  # fmt: skip
    book = OrderBookL2(contiguous=True)
    found = book.depth_columns(columns(rows), levels=1)
    assert found.ts_event.tolist() == [0, 1, 4, 5]
    assert found.bid_size.ravel().tolist() == [1, 2, 1, 2]
    assert book.counters.gaps == 1
    assert book.whole
    assert not book.stale
    book.reset()
    book.apply_columns(columns(rows[:4]))
    assert not book.whole
    assert not book.stale
    book.apply_columns(columns(rows[4:6]))
    assert book.whole
    assert book.stale
    assert book.best_bid == (10.0, 3.0, 1)
    # Without the promise a number may skip, and only going back is a gap.
    free = OrderBookL2()
    assert len(free.depth_columns(columns(rows))) == 6
    assert free.counters.gaps == 0
    assert free.apply(UPDATE, 1, 8.0, 3.0, sequence=3, ts_event=6)
    assert free.stale
    assert free.counters.out_of_order == 1
    assert free.apply(CLEAR, 0, 0, 0)
    assert not free.stale


@pytest.mark.parametrize("mode", ["price", "order", "top"])
@pytest.mark.parametrize(
    "change",
    [(0, 1, 1.0, 1.0), (5, 1, 1.0, 1.0), (ADD, 2, 1.0, 1.0), (ADD, 0, 1.0, 1.0), (ADD, 1, math.nan, 1.0),
     (ADD, 1, math.inf, 1.0), (UPDATE, 1, 1.0, math.nan), (UPDATE, 1, 1.0, -1.0), (ADD, 1, 1.0, math.inf),
     (ADD, 1, 1.0, 0.0), (ADD, 1, -2e18, 1.0)],
)  # fmt: skip
def test_invalid_changes_are_refused_and_counted(mode: Any, change: tuple[Any, ...]) -> None:
    book = OrderBookL2(mode, levels=4, orders=4)
    book.apply(ADD, 1, 5.0, 1.0, 3, flags=LAST)
    book.apply(UPDATE, 1, 5.0, 2.0, 3, flags=0)
    before = book.bids()
    assert not book.apply(*change, order_id=3)
    np.testing.assert_array_equal(book.bids(), before)
    assert book.counters.invalid == 1
    assert book.counters.applied == 2
    assert book.whole  # flag 128 of a refused change still ends the event
    assert book.is_sound()


def test_time_that_runs_backward() -> None:
    for keep in (False, True):
        book = OrderBookL2(keep_backward=keep)
        book.apply(ADD, 1, 10.0, 1.0, ts_event=100)
        assert book.apply(ADD, 1, 11.0, 1.0, ts_event=99) is keep
        assert book.counters.backward == 1
        assert book.level_count(1) == 1 + keep
        assert book.apply(ADD, 1, 12.0, 1.0, flags=SNAPSHOT, ts_event=5)
        assert book.apply(CLEAR, 0, 0, 0, ts_event=7)
        assert book.apply(ADD, 1, 1.0, 1.0, ts_event=8)


def test_a_crossed_book_says_so_and_keeps_everything() -> None:
    book = OrderBookL2()
    book.apply(ADD, 1, 10.0, 1.0)
    book.apply(ADD, -1, 10.0, 1.0)
    assert not book.crossed  # locked
    book.apply(ADD, -1, 9.0, 1.0, flags=0)
    assert not book.crossed  # in the middle of an event
    book.apply(ADD, 1, 8.0, 1.0)
    assert book.crossed
    assert book.counters.crossed == 1
    assert book.level_count(1) == book.level_count(-1) == 2
    book.apply(DELETE, -1, 9.0, 0.0)
    assert not book.crossed


def test_a_full_book_pushes_out_the_worst_level() -> None:
    book = OrderBookL2(levels=3)
    for price in (10.0, 8.0, 9.0, 7.0):
        book.apply(ADD, 1, price, 1.0)
    assert book.bids()[:, 0].tolist() == [10, 9, 8]
    assert book.truncated
    assert book.exact_levels(1) == 3
    book.apply(ADD, 1, 11.0, 1.0)
    assert book.bids()[:, 0].tolist() == [11, 10, 9]
    assert book.counters.overflow == 2
    book.apply(DELETE, 1, 11.0, 0.0)
    book.apply(ADD, 1, 7.5, 1.0)  # 8.0 is missing above it
    assert book.level_count(1) == 3
    assert book.exact_levels(1) == 2
    assert book.exact_levels(-1) == 0
    book.apply(CLEAR, 0, 0.0, 0.0)
    assert not book.truncated

    book = OrderBookL2("order", orders=3)
    for i, (side, price) in enumerate([(1, 10.0), (1, 9.0), (-1, 12.0)]):
        book.apply(ADD, side, price, 1.0, i + 1)
    book.apply(ADD, -1, 11.0, 1.0, 9)  # the bids have more levels
    assert book.bids()[:, 0].tolist() == [10]
    assert book.asks()[:, 0].tolist() == [11, 12]
    assert book.orders == 3
    book.apply(ADD, -1, 13.0, 1.0, 10)  # no better than what is there
    assert book.asks()[:, 0].tolist() == [11, 12]
    assert book.counters.overflow == 2
    assert book.is_sound()


def test_what_a_book_refuses_to_be() -> None:
    for wrong in ({"mode": "L2"}, {"levels": 0}, {"levels": 65_537}, {"levels": 1.5}, {"orders": 0}, {"orders": True}):
        with pytest.raises(ConfigurationError, match=f"`{next(iter(wrong))}` must be"):
            OrderBookL2(**wrong)  # type: ignore[arg-type]
    book = OrderBookL2(levels=4)
    for call in (
        lambda: book.level_count(0), lambda: book.depth_columns(columns([]), levels=11),
        lambda: book.depth_columns(columns([]), every="tick"), lambda: book.apply_columns([1]),
        lambda: book.apply(300, 1, 1.0, 1.0),
    ):  # fmt: skip
        with pytest.raises(DataConversionError):
            call()
    with pytest.raises(TypeError, match="to_bytes"):
        pickle.dumps(book)
    assert book.best_bid is None
    assert book.level(1, 3.0) is None
    assert book.bids().shape == (0, 3)


def test_damaged_bytes_change_nothing() -> None:
    book = OrderBookL2("order", levels=8, orders=16)
    for i in range(12):
        book.apply(ADD, 1 - 2 * (i % 2), 0.5 * i, 1.0 + i, i + 1)
    good = book.to_bytes()
    target = OrderBookL2("order", levels=8, orders=16)
    empty = target.to_bytes()
    for at in range(0, len(good), 97):
        with pytest.raises(DataConversionError):
            target.from_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
    for data, match in ((good[:-1], "bytes"), (OrderBookL2("order", levels=8, orders=15).to_bytes(), "orders"),
                        (OrderBookL2("order", levels=8, orders=16, contiguous=True).to_bytes(), "rules"),
                        (b"", "bytes")):  # fmt: skip
        with pytest.raises(DataConversionError, match=match):
            target.from_bytes(data)
    assert target.to_bytes() == empty
    target.from_bytes(good)
    assert target.to_bytes() == good
    assert target.best_bid == (5.0, 11.0, 1)


def test_bitstamp_orders_against_the_dictionary() -> None:
    """The first 40,000 messages of a real order-level feed with eight decimals: sums are exact to the last bit."""
    path = shared_data("tick", "l3_bitstamp", "bitstamp_btcusd_20260502_orders.csv.gz")
    action = {"created": ADD, "changed": UPDATE, "deleted": DELETE}
    side = {"bid": 1, "ask": -1}
    with gzip.open(path, "rt", newline="") as file:
        rows = [
            (action[r["action"]], side[r["direction"]], float(r["price"]), float(r["volume"]), int(r["id"]), LAST, 0, 0)
            for r in islice(csv.DictReader(file), 40_000)
        ]
    rows = [row for row in rows if row[0] != ADD or row[3] > 0]
    book, plain = OrderBookL2("order"), PlainBook("order")
    for i, row in enumerate(rows):
        assert book.apply(*row)
        plain.apply(*row[:5])
        if i % 4_000 == 0:
            equal(book, plain)
    equal(book, plain)
    assert book.orders == len(plain.orders) > 1_000
    again = OrderBookL2("order")
    again.apply_columns(columns(rows))
    assert again.to_bytes() == book.to_bytes()
