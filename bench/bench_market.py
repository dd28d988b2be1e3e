"""Reading market data: one quote and many, ours against the attributes of NautilusTrader objects.

One quote from Python: the rival reads four ``as_double()``, the floor is an empty bound C method. Ours has three faces:
the *bound view*, ``read = reader.quote_view().read``, then ``read(tick)`` (the four values land in memory that a NumPy
array was bound to beforehand); the *tuple*, ``reader.quote(tick)``, four new floats; and *bulk*,
``quotes_from_objects`` over a list of 1,000. The claim of ten times is made for the bound view. All are timed in blocks
of 1,000 quotes, so the clock is not in the figure while the Python call is; blocks of all rows alternate and ratios are
those of the minima.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the ticks that are read are those of NautilusTrader")

from _measure import interleaved, record
from nautilus_trader.model.data import BookOrder, OrderBookDelta, OrderBookDeltas, QuoteTick
from nautilus_trader.model.enums import BookAction, OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import Price, Quantity

from tengri_fast.market import quotes_from_objects, reader
from tengri_fast.nautilus._probe import install_layouts

IID = InstrumentId.from_str("BTCUSDT-PERP.BINANCE")
TICKS = 100_000
BLOCK = 1_000
ROUNDS = 500
BULK: dict[str, np.ndarray] = {}
DELTAS: dict[str, np.ndarray] = {}


@pytest.fixture(scope="module")
def ticks() -> list[QuoteTick]:
    install_layouts()
    reader.slots.register(IID)
    rng = np.random.default_rng(1)
    moves = np.cumsum(rng.integers(-1, 2, TICKS))
    sizes = rng.uniform(0.001, 20, (2, TICKS))
    return [
        QuoteTick(IID, Price.from_str(f"{64_000 + 0.1 * m:.1f}"), Price.from_str(f"{64_000.1 + 0.1 * m:.1f}"),
                  Quantity.from_str(f"{a:.3f}"), Quantity.from_str(f"{b:.3f}"), i, i)
        for i, (m, a, b) in enumerate(zip(moves.tolist(), *sizes.tolist(), strict=True))
    ]  # fmt: skip


FOUR = "(t.bid_price.as_double(), t.ask_price.as_double(), t.bid_size.as_double(), t.ask_size.as_double())"
RIVAL = "python, four as_double()"
STATEMENTS = {
    RIVAL: FOUR,
    "bound view, read(tick)": "read(t)",
    "tuple, quote(tick)": "quote(t)",
    "bulk, lists of 1,000": "columns(block)",
    "floor, empty C call": "count(t)",
}


@pytest.fixture(scope="module")
def one_quote(ticks: list[QuoteTick]) -> tuple[dict[str, Callable[[], float]], dict[str, np.ndarray]]:
    """How to time a block of each row, and the times of blocks that alternated: nanoseconds per 1,000 quotes."""
    view = reader.quote_view()
    values = np.frombuffer(view, np.float64, 4)
    view.read(ticks[0])
    expected = eval_four(ticks[0])
    assert tuple(values) == expected == reader.quote(ticks[0])
    names = {
        "t": ticks[0], "read": view.read, "quote": reader.quote, "count": [].count,
        "columns": quotes_from_objects, "block": ticks[:BLOCK],
    }  # fmt: skip
    measures = {way: block_timer(statement, names, way) for way, statement in STATEMENTS.items()}
    for measure in measures.values():
        measure()
    return measures, interleaved(measures, ROUNDS)


def eval_four(t: QuoteTick) -> tuple[float, float, float, float]:
    return t.bid_price.as_double(), t.ask_price.as_double(), t.bid_size.as_double(), t.ask_size.as_double()


def block_timer(statement: str, names: dict[str, Any], way: str) -> Callable[[], float]:
    timer = timeit.Timer(statement, globals=names)
    number = 1 if way.startswith("bulk") else BLOCK
    return lambda: 1e9 * timer.timeit(number)


@pytest.mark.parametrize("way", STATEMENTS)
@pytest.mark.benchmark(group="market: four fields of one quote, from Python")
def test_one_quote(benchmark: Any, one_quote: Any, way: str) -> None:
    measures, times = one_quote
    benchmark.pedantic(measures[way], rounds=20)
    record(
        benchmark,
        times[way],
        calls=BLOCK,
        baseline_ns=float(np.median(times[RIVAL])) / BLOCK,
        against={RIVAL: float(times[RIVAL].min()) / BLOCK} if way != RIVAL else None,
        statement=STATEMENTS[way],
        calls_per_block=BLOCK,
        rounds=ROUNDS,
    )


def by_attributes(ticks: list[QuoteTick]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([
        (t.bid_price.as_double(), t.ask_price.as_double(), t.bid_size.as_double(), t.ask_size.as_double())
        for t in ticks
    ])  # fmt: skip
    times = np.array([(t.ts_event, t.ts_init) for t in ticks], dtype=np.uint64)
    return values, times


def timed(function: Callable[..., object], *arguments: object) -> Callable[[], float]:
    """The function, so that it answers with the nanoseconds that it took."""
    timer = timeit.Timer(lambda: function(*arguments))
    return lambda: 1e9 * timer.timeit(1)


@pytest.mark.parametrize("way", ["attributes to NumPy", "quotes_from_objects"])
@pytest.mark.benchmark(group="market: list of 100,000 quotes to columns, per quote")
def test_bulk(benchmark: Any, ticks: list[QuoteTick], way: str) -> None:
    functions = {"attributes to NumPy": by_attributes, "quotes_from_objects": quotes_from_objects}
    if not BULK:
        BULK.update(interleaved({k: timed(f, ticks) for k, f in functions.items()}, 8))
    rival = BULK["attributes to NumPy"]
    benchmark.pedantic(functions[way], args=(ticks,), rounds=3)
    record(
        benchmark,
        BULK[way],
        calls=TICKS,
        baseline_ns=float(np.median(rival)) / TICKS,
        against={"attributes to NumPy": float(rival.min()) / TICKS} if way == "quotes_from_objects" else None,
        quotes=TICKS,
    )


@pytest.mark.parametrize("way", ["attributes", "read_deltas"])
@pytest.mark.benchmark(group="market: 20 order book deltas to columns, per list")
def test_deltas(benchmark: Any, ticks: list[QuoteTick], way: str) -> None:
    rows = [
        OrderBookDelta(IID, BookAction.UPDATE,
                       BookOrder(OrderSide.BUY, Price.from_str(f"{64_000 - 0.1 * i:.1f}"), Quantity.from_str("1.5"), i),
                       0, i, i, i)
        for i in range(20)
    ]  # fmt: skip
    value = OrderBookDeltas(IID, rows)

    def attributes() -> tuple[np.ndarray, ...]:
        deltas = value.deltas
        return (np.array([d.order.price.as_double() for d in deltas]),
                np.array([d.order.size.as_double() for d in deltas]),
                np.array([(d.action, d.order.side, d.order.order_id, d.flags, d.sequence, d.ts_event, d.ts_init)
                          for d in deltas], dtype=np.uint64))  # fmt: skip

    def ours() -> object:
        return reader.read_deltas(value)

    functions: dict[str, Callable[[], object]] = {"attributes": attributes, "read_deltas": ours}
    if not DELTAS:
        DELTAS.update(interleaved({k: timed(f) for k, f in functions.items()}, 3_000))
    rival = DELTAS["attributes"]
    benchmark.pedantic(functions[way], rounds=500, warmup_rounds=10)
    record(
        benchmark,
        DELTAS[way],
        baseline_ns=float(np.median(rival)),
        against={"attributes": float(rival.min())} if way == "read_deltas" else None,
        deltas=20,
    )
