"""The order book: nanoseconds per change, ours against NautilusTrader's book and a plain one of Python containers.

Two real streams: a day of CME E-mini orders (market by order, Databento) and Binance's snapshot with its diffs (market
by price). Ours is fed from columns, as research does it; the row *one by one* is the same book from Python. Nautilus'
objects are made beforehand, so its row is ``apply_delta`` alone. The plain book keeps prices in a sorted list with a
dictionary of sizes beside it. All rows of a stream alternate; ratios are those of the minima. The larger data set is
needed.
"""

from __future__ import annotations

import gzip
import json
import os
import timeit
from bisect import bisect_left, insort
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the rival is the book of NautilusTrader")

from _measure import interleaved, record
from nautilus_trader.adapters.databento.loaders import DatabentoDataLoader
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.data import BookOrder, OrderBookDelta, OrderBookDeltas
from nautilus_trader.model.enums import BookAction, BookType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import Price, Quantity

from tengri_fast.market import DeltaColumns, OrderBookL2, binance_book_deltas, reader
from tengri_fast.nautilus._probe import install_layouts

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TENGRI_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "tick"
IID = InstrumentId.from_str("ESH4.GLBX")
WAYS = ("nautilus", "python dict and list", "ours, one by one", "ours", "ours, with depth")
ROUNDS = 12
TIMES: dict[str, dict[str, np.ndarray]] = {}


class PlainBook:
    """Sizes by price and a sorted list of prices per side; orders by id where they have one."""

    def __init__(self) -> None:
        self.sizes: tuple[dict[float, float], ...] = ({}, {}, {})
        self.prices: tuple[list[float], ...] = ([], [], [])
        self.orders: dict[int, tuple[int, float, float]] = {}

    def change(self, side: int, price: float, size: float) -> None:
        sizes, prices = self.sizes[side], self.prices[side]
        if size <= 0:
            if sizes.pop(price, None) is not None:
                del prices[bisect_left(prices, price)]
        else:
            if price not in sizes:
                insort(prices, price)
            sizes[price] = size

    def apply(self, action: int, side: int, price: float, size: float, order_id: int) -> None:
        if action == 4:
            self.__init__()  # type: ignore[misc]
        elif order_id == 0:
            self.change(side, price, 0.0 if action == 3 else size)
        else:
            was = self.orders.pop(order_id, None)
            if was is not None:
                self.change(was[0], was[1], self.sizes[was[0]].get(was[1], 0.0) - was[2])
            if action != 3:
                self.orders[order_id] = (side, price, size)
                self.change(side, price, self.sizes[side].get(price, 0.0) + size)


def es_orders() -> tuple[list[OrderBookDelta], DeltaColumns]:
    path = DATA / "databento" / "esh4-glbx-mdp3-20231225.mbo.dbn.zst"
    if not path.exists():
        pytest.skip("the Databento file may not be redistributed (set TENGRI_SHARED_DATA)")
    loaded = DatabentoDataLoader().from_dbn_file(path, instrument_id=IID, price_precision=2, as_legacy_cython=True)
    deltas = [delta for delta in loaded if isinstance(delta, OrderBookDelta)]
    install_layouts()
    return deltas, reader.read_deltas(OrderBookDeltas(IID, deltas))


def binance_diffs() -> tuple[list[OrderBookDelta], DeltaColumns]:
    path = DATA / "binance" / "raw" / "btcusdt_usdm_20240718.gz"
    if not path.exists():
        pytest.skip("the raw Binance feed is not here (set TENGRI_SHARED_DATA)")
    with gzip.open(path, "rt") as file:
        messages = [json.loads(line.partition(" ")[2]) for line in file]
    snapshot = next(m for m in messages if "lastUpdateId" in m)
    diffs = [m["data"] for m in messages if m.get("data", {}).get("e") == "depthUpdate"]
    columns = binance_book_deltas(snapshot, diffs)
    deltas = [OrderBookDelta.clear(IID, 0, 0, 0)]
    rows = zip(columns.action[1:].tolist(), columns.side[1:].tolist(), columns.price[1:].tolist(),
               columns.size[1:].tolist(), strict=True)  # fmt: skip
    for action, side, price, size in rows:
        order = BookOrder(OrderSide.BUY if side > 0 else OrderSide.SELL, Price(price, 2), Quantity(size, 3), 0)
        deltas.append(OrderBookDelta(IID, BookAction(action), order, 0, 0, 0, 0))
    return deltas, columns


STREAMS: dict[str, tuple[Callable[[], tuple[list[OrderBookDelta], DeltaColumns]], Any, BookType]] = {
    "ES by order": (es_orders, "order", BookType.L3_MBO),
    "Binance by price": (binance_diffs, "price", BookType.L2_MBP),
}


@pytest.fixture(scope="module", params=STREAMS)
def stream(request: Any) -> tuple[str, dict[str, Callable[[], Any]], int]:
    load, mode, kind = STREAMS[request.param]
    deltas, columns = load()
    fields = [columns.action, columns.side, columns.price, columns.size, columns.order_id]
    rows = list(zip(*(field.tolist() for field in fields), strict=True))
    book = OrderBookL2(mode)

    def nautilus() -> OrderBook:
        theirs = OrderBook(IID, kind)
        apply = theirs.apply_delta
        for delta in deltas:
            apply(delta)
        return theirs

    def plain() -> PlainBook:
        made = PlainBook()
        apply = made.apply
        for row in rows:
            apply(*row)
        return made

    def one_by_one() -> None:
        book.reset()
        apply = book.apply
        for row in rows:
            apply(*row)

    def ours() -> None:
        book.reset()
        book.apply_columns(columns)

    def with_depth() -> None:
        book.reset()
        book.depth_columns(columns)

    ways = dict(zip(WAYS, (nautilus, plain, one_by_one, ours, with_depth), strict=True))
    ours()
    theirs, simple = nautilus(), plain()
    assert book.bids()[:, 0].tolist() == [level.price.as_double() for level in theirs.bids()] == simple.prices[1][::-1]
    assert book.asks()[:, 0].tolist() == simple.prices[-1]
    if request.param not in TIMES:
        timers = {way: timeit.Timer(function) for way, function in ways.items()}
        TIMES[request.param] = interleaved({k: lambda t=t: 1e9 * t.timeit(1) for k, t in timers.items()}, ROUNDS)
    return request.param, ways, len(rows)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.benchmark(group="book: one change, ns (ES by order; Binance by price)")
def test_apply(benchmark: Any, stream: tuple[str, dict[str, Callable[[], Any]], int], way: str) -> None:
    name, ways, changes = stream
    times = TIMES[name]
    benchmark.pedantic(ways[way], rounds=3)
    record(
        benchmark,
        times[way],
        calls=changes,
        baseline_ns=float(np.median(times["nautilus"])) / changes,
        against={rival: float(times[rival].min()) / changes for rival in WAYS[:2] if rival != way},
        stream=name,
        changes=changes,
        rounds=ROUNDS,
    )
