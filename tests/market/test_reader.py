"""The zero-copy reader against Nautilus' own attributes, bit for bit, and what happens when it cannot be used."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from support import REPOSITORY

from tengri_fast.errors import DataConversionError
from tengri_fast.market import (
    InstrumentSlots,
    TickReader,
    bars_from_objects,
    depth_from_objects,
    quotes_from_objects,
    reader,
    trades_from_objects,
)

pytest.importorskip("nautilus_trader", reason="the layouts are those of NautilusTrader objects")

from nautilus_trader.model.data import (
    Bar,
    BarType,
    BookOrder,
    OrderBookDelta,
    OrderBookDeltas,
    OrderBookDepth10,
    QuoteTick,
    TradeTick,
)
from nautilus_trader.model.enums import AggressorSide, BookAction, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, TradeId
from nautilus_trader.model.objects import Price, Quantity

from tengri_fast.nautilus import _probe

IID = InstrumentId.from_str("BTCUSDT-PERP.BINANCE")
KINDS = ("quote", "trade", "bar", "depth", "deltas")


@pytest.fixture(autouse=True)
def _layouts():
    _probe.install_layouts()
    yield
    _probe.install_layouts()


def price(rng: random.Random, precision: int, negative: bool = True) -> Price:
    size = 10 ** rng.uniform(-precision, 12)
    value = int(rng.uniform(-size if negative else 0, size) * 10**precision)
    return Price.from_raw(value * 10 ** (16 - precision), precision)


def quantity(rng: random.Random, precision: int) -> Quantity:
    value = int(rng.uniform(0, 10 ** rng.uniform(-precision, 12)) * 10**precision)
    return Quantity.from_raw(value * 10 ** (16 - precision), precision)


def quotes(count: int, seed: int = 1) -> list[QuoteTick]:
    rng, out = random.Random(seed), []
    for _ in range(count):
        p, s = rng.randint(0, 16), rng.randint(0, 16)
        out.append(QuoteTick(IID, price(rng, p), price(rng, p), quantity(rng, s), quantity(rng, s),
                             rng.getrandbits(63), rng.getrandbits(63)))  # fmt: skip
    return out


def trades(count: int, seed: int = 2) -> list[TradeTick]:
    rng, sides = random.Random(seed), (AggressorSide.BUYER, AggressorSide.SELLER, AggressorSide.NO_AGGRESSOR)
    return [TradeTick(IID, price(rng, rng.randint(0, 16)), Quantity.from_str(f"{rng.uniform(0.01, 9):.2f}"),
                      rng.choice(sides), TradeId(f"T{i}"), i, i + 1) for i in range(count)]  # fmt: skip


def bars(count: int, seed: int = 3) -> list[Bar]:
    rng, out = random.Random(seed), []
    kinds = [BarType.from_str(f"{IID}-1-MINUTE-LAST-EXTERNAL"),
             BarType.from_str(f"{IID}-5-MINUTE-LAST-INTERNAL@1-MINUTE-EXTERNAL")]  # fmt: skip
    for i in range(count):
        low, first, last, high = sorted((price(rng, 7) for _ in range(4)), key=lambda p: p.as_double())
        out.append(Bar(rng.choice(kinds), first, high, low, last, quantity(rng, 3), i, i + 1))
    return out


def depths(count: int, seed: int = 4, levels: int = 10) -> list[OrderBookDepth10]:
    rng, out = random.Random(seed), []
    null = BookOrder(OrderSide.NO_ORDER_SIDE, Price(0, 0), Quantity(0, 0), 0)
    for i in range(count):
        sides = []
        for side in (OrderSide.BUY, OrderSide.SELL):
            orders = [BookOrder(side, price(rng, 5, False), quantity(rng, 5), k) for k in range(levels)]
            sides.append(orders + [null] * (10 - levels))
        out.append(OrderBookDepth10(IID, *sides, [1] * 10, [1] * 10, 0, i, i, i + 1))
    return out


def deltas(count: int, seed: int = 5) -> OrderBookDeltas:
    rng = random.Random(seed)
    rows = [OrderBookDelta.clear(IID, 1, 2, 3)]
    for i in range(count):
        size = Quantity.from_str(f"{rng.uniform(1, 9e6):.4f}")
        order = BookOrder(rng.choice((OrderSide.BUY, OrderSide.SELL)), price(rng, 4), size, rng.getrandbits(60))
        rows.append(OrderBookDelta(IID, rng.choice((BookAction.ADD, BookAction.UPDATE, BookAction.DELETE)), order,
                                   rng.getrandbits(8), i, i + 5, i + 6))  # fmt: skip
    return OrderBookDeltas(IID, rows)


def same(a, b) -> None:
    for field in (f.name for f in fields(a)):
        left, right = getattr(a, field), getattr(b, field)
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes(), field


def test_every_kind_is_read_in_place_here() -> None:
    layout = reader.layout
    assert set(layout) == set(KINDS)
    for kind in KINDS:
        assert layout[kind]["zero_copy"], layout[kind]
        assert layout[kind]["offsets"]
    assert reader.zero_copy


def test_quotes_are_the_bits_of_as_double() -> None:
    """30,000 quotes hold 120,000 random numbers: every precision, negative prices, twelve magnitudes."""
    ticks = quotes(30_000)
    found = quotes_from_objects(ticks)
    for field in ("bid_price", "ask_price", "bid_size", "ask_size"):
        wanted = np.array([getattr(tick, field).as_double() for tick in ticks])
        assert len(set(wanted.tolist())) > 25_000
        assert getattr(found, field).tobytes() == wanted.tobytes(), field
    assert (found.bid_price < 0).sum() > 5_000
    assert found.ts_event.tolist() == [tick.ts_event for tick in ticks]
    assert found.ts_init.tolist() == [tick.ts_init for tick in ticks]


def test_trades_bars_and_depth_are_the_bits_of_as_double() -> None:
    ticks = trades(3_000)
    found = trades_from_objects(ticks)
    assert found.price.tolist() == [t.price.as_double() for t in ticks]
    assert found.size.tolist() == [t.size.as_double() for t in ticks]
    signs = {AggressorSide.BUYER: 1, AggressorSide.SELLER: -1, AggressorSide.NO_AGGRESSOR: 0}
    assert found.aggressor.tolist() == [signs[t.aggressor_side] for t in ticks]
    assert set(found.aggressor.tolist()) == {-1, 0, 1}
    rows = bars(1_000)
    found = bars_from_objects(rows)
    for field in ("open", "high", "low", "close", "volume"):
        assert getattr(found, field).tolist() == [getattr(b, field).as_double() for b in rows]
    for levels in (10, 3):
        books = depths(200, levels=levels)
        found = depth_from_objects(books)
        assert found.levels == levels
        for side, orders in (("bid", [b.bids for b in books]), ("ask", [b.asks for b in books])):
            prices = [[o.price.as_double() for o in row[:levels]] for row in orders]
            sizes = [[o.size.as_double() for o in row[:levels]] for row in orders]
            assert getattr(found, f"{side}_price").tolist() == prices
            assert getattr(found, f"{side}_size").tolist() == sizes
        assert found.ts_init.tolist() == [b.ts_init for b in books]


CASES = [
    (quotes_from_objects, lambda: quotes(500)),
    (trades_from_objects, lambda: trades(500)),
    (bars_from_objects, lambda: bars(200)),
    (depth_from_objects, lambda: depths(60, levels=4)),
    (reader.read_deltas, lambda: deltas(100)),
]


@pytest.mark.parametrize(("function", "build"), CASES)
def test_the_fallback_gives_the_same_bits(function, build) -> None:
    objects = build()
    one = objects[0] if isinstance(objects, list) else objects
    assert reader.in_place(one)
    fast = function(objects)
    reader.zero_copy = False
    assert not reader.zero_copy
    assert not reader.in_place(one)
    slow = function(objects)
    reader.zero_copy = True
    assert reader.zero_copy
    same(fast, slow)
    same(fast, function(objects))


def test_deltas_against_their_attributes() -> None:
    value = deltas(300)
    found = reader.read_deltas(value)
    rows = value.deltas
    assert found.action.tolist() == [int(row.action) for row in rows]
    assert found.sequence.tolist() == [row.sequence for row in rows]
    assert found.flags.tolist() == [row.flags for row in rows]
    assert found.price[1:].tolist() == [row.order.price.as_double() for row in rows[1:]]
    assert found.order_id[1:].tolist() == [row.order.order_id for row in rows[1:]]
    assert found.side.tolist()[1:] == [1 if row.order.side == OrderSide.BUY else -1 for row in rows[1:]]
    assert (found.side[0], found.price[0], found.size[0]) == (0, 0.0, 0.0)


@pytest.mark.parametrize("kind", ["quote", "trade", "bar", "depth"])
def test_a_failed_probe_means_attributes_not_a_crash(kind: str) -> None:
    builders = {"quote": _probe._quotes, "trade": _probe._trades, "bar": _probe._bars, "depth": _probe._depths}
    build = {"quote": quotes, "trade": trades, "bar": bars, "depth": depths}[kind]
    value = build(1)[0]
    truth = reader.event(kind, value)
    objects, expected = builders[kind]()
    number = {"quote": "bid_size", "trade": "price", "bar": "volume", "depth": "ask_price"}[kind]
    wrong = [{**row, number: [0.25] * 10 if kind == "depth" else row[number] + 1} for row in expected]
    for sentinels, values, reason in (
        (objects, wrong, f"`{number}"),
        (objects, [{**row, "ts_event": row["ts_event"] + 1} for row in expected], "`ts_event"),
        (objects, [{**row, "instrument_id": "X.Y"} for row in expected], "`symbol`"),
        (objects, [{k: v for k, v in row.items() if k != "ts_init"} for row in expected], "KeyError"),
        (objects[:1], expected[:1], "two or more sentinels"),
        (objects, expected[:2], "two or more sentinels"),
        ([objects[0]] * 3, [expected[0]] * 3, "must differ between sentinels"),
        ([*objects[:2], object()], expected, "of exactly this type"),
    ):
        assert not reader.install(kind, type(objects[0]), sentinels, values)
        note = reader.layout[kind]
        assert not note["zero_copy"]
        assert reason in note["reason"], (reason, note)
        assert reader.event(kind, value) == truth, "attributes give the same"
    assert reader.install(kind, type(objects[0]), objects, expected)
    assert reader.event(kind, value) == truth
    with pytest.raises(DataConversionError, match="`kind` must be one of quote, trade, bar, depth, was 'tick'"):
        reader.install("tick", QuoteTick, objects, expected)


def test_deltas_refuse_what_they_do_not_know() -> None:
    sentinel, expected = _probe._deltas()
    library, names = _probe.nautilus_data.__file__, ("orderbook_deltas_vec_deltas", "orderbook_deltas_vec_drop")
    types = (OrderBookDeltas, OrderBookDelta)
    value = deltas(20)
    truth = reader.read_deltas(value)
    for arguments, reason in (
        (("/nowhere/x.so", *names, *types, sentinel, expected), "is not loaded"),
        ((library, "no_such_function", names[1], *types, sentinel, expected), "is not exported"),
        ((library, *names, OrderBookDepth10, OrderBookDelta, sentinel, expected), "object sizes"),
        ((library, *names, *types, sentinel, [{**row, "price": 0.5 + i} for i, row in enumerate(expected)]), "`price`"),
        ((library, *names, *types, sentinel, expected[:2]), "must have 2 changes, had 3"),
    ):
        assert not reader.install_deltas(*arguments)
        assert reason in reader.layout["deltas"]["reason"]
        assert not reader.in_place(value)
        same(truth, reader.read_deltas(value))
    assert reader.install_deltas(library, *names, *types, sentinel, expected)


def test_other_types_go_through_attributes() -> None:
    class Own(QuoteTick):
        pass

    tick = quotes(1)[0]
    own = Own(IID, tick.bid_price, tick.ask_price, tick.bid_size, tick.ask_size, tick.ts_event, tick.ts_init)
    assert reader.quote(own) == reader.quote(tick)
    assert reader.in_place(tick)
    assert not reader.in_place(own)
    number = SimpleNamespace(as_double=lambda: 1.5)
    duck = SimpleNamespace(bid_price=number, ask_price=number, bid_size=number, ask_size=number, ts_event=1, ts_init=2,
                           instrument_id="A.B")  # fmt: skip
    assert reader.quote(duck) == (1.5, 1.5, 1.5, 1.5)
    mixed = quotes_from_objects([tick, duck, own])
    assert mixed.bid_price.tolist() == [tick.bid_price.as_double(), 1.5, tick.bid_price.as_double()]
    trade = SimpleNamespace(price=number, size=number, aggressor_side="BUYER", ts_event=1, ts_init=2,
                            instrument_id="A.B")  # fmt: skip
    assert reader.trade(trade) == (1.5, 1.5, 1)


@pytest.mark.parametrize("wrong", [None, 3, "tick", object(), QuoteTick, b"x" * 192])
def test_wrong_objects_raise_our_error(wrong: object) -> None:
    view = reader.quote_view()
    for call in (reader.quote, reader.trade, reader.bar, reader.depth, view.read, reader.read_deltas,
                 lambda x: quotes_from_objects([x]), lambda x: trades_from_objects([x]),
                 lambda x: bars_from_objects([x]), lambda x: depth_from_objects([x])):  # fmt: skip
        with pytest.raises(DataConversionError, match="must have the attributes of a"):
            call(wrong)
    duck = SimpleNamespace(**{f: SimpleNamespace(as_double=lambda: 1.0) for f in ("price", "size")}, ts_event=-1,
                           ts_init=0, aggressor_side=1, instrument_id="A.B")  # fmt: skip
    with pytest.raises(DataConversionError, match="attributes of a trade"):
        reader.trade(duck)


def test_a_list_that_shrinks_while_it_is_read_is_an_error() -> None:
    items: list[object] = []

    class Shrinking:
        @property
        def bid_price(self):
            items.clear()
            raise AttributeError("gone")

    items.extend([Shrinking(), *quotes(50)])
    with pytest.raises(DataConversionError, match="must"):
        quotes_from_objects(items)


def test_views_are_reused_memory() -> None:
    ticks, view = quotes(5), reader.quote_view()
    values = np.asarray(view)
    assert view.slot is None
    for tick in ticks:
        view.read(tick)
        wanted = [f.as_double() for f in (tick.bid_price, tick.ask_price, tick.bid_size, tick.ask_size)]
        assert values.tolist() == wanted == [view.bid_price, view.ask_price, view.bid_size, view.ask_size]
        assert (view.ts_event, view.ts_init) == (tick.ts_event, tick.ts_init)
    assert not values.flags.writeable
    trade, trade_view = trades(1)[0], reader.trade_view()
    trade_view.read(trade)
    assert np.asarray(trade_view).tolist() == [trade_view.price, trade_view.size] == [trade.price.as_double(),
                                                                                    trade.size.as_double()]  # fmt: skip
    assert (trade_view.ts_event, trade_view.ts_init) == (trade.ts_event, trade.ts_init)
    for value in (reader, view, trade_view, reader.slots):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(value)


def test_slots_of_one_instrument_with_different_pointers() -> None:
    slots = InstrumentSlots()
    assert slots.register(IID) == slots.register("BTCUSDT-PERP.BINANCE") == 0
    assert slots.register("BRK.B.NYSE") == 1
    texts = [bytes(bytearray(b"BTCUSDT-PERP")) for _ in range(50)]
    venue = bytes(bytearray(b"BINANCE"))
    assert len({id(text) for text in texts}) == 50
    assert [slots.lookup_bytes(text, venue) for text in texts] == [0] * 50
    misses = slots.misses
    assert misses >= 50
    assert [slots.lookup_bytes(text, venue) for text in texts[-1:] * 5] == [0] * 5
    assert slots.misses == misses, "a pair seen before is not compared again"
    assert slots.lookup_bytes(b"BRK.B", b"NYSE") == 1
    assert slots.lookup_bytes(b"BRK", b"B.NYSE") is None
    late = b"ETHUSDT-PERP"
    assert slots.lookup_bytes(late, venue) is None
    assert slots.register("ETHUSDT-PERP.BINANCE") == 2
    assert slots.lookup_bytes(late, venue) == 2, "an unknown instrument is looked up again once it is registered"
    for i in range(300):
        slots.register(f"S{i}.V")
    assert [slots.slot(f"S{i}.V") for i in range(300)] == list(range(3, 303))
    assert slots.lookup_bytes(b"S299", b"V") == 302
    assert len(slots) == slots.count == 303
    assert slots.name(1) == "BRK.B.NYSE"
    assert IID in slots
    assert slots.get("NO.ONE") is None
    with pytest.raises(DataConversionError, match=r"did you mean 'ETHUSDT-PERP.BINANCE'"):
        slots.slot("ETHUSD-PERP.BINANCE")
    for bad in ("", "NOVENUE", ".V", "S.", "A\0B.V"):
        with pytest.raises(DataConversionError, match="`instrument_id` must look like"):
            slots.register(bad)
    for bad_slot in (-1, 303):
        with pytest.raises(DataConversionError, match="`slot` must be from 0 to 302"):
            slots.name(bad_slot)


def test_a_reader_finds_the_slot_in_place_and_by_attributes() -> None:
    source = TickReader()
    tick, bar, depth, trade = quotes(1)[0], bars(1)[0], depths(1)[0], trades(1)[0]
    events = (("quote", tick), ("bar", bar), ("depth", depth), ("trade", trade))
    assert {source.event(kind, value)["slot"] for kind, value in events} == {2**32 - 1}
    source.slots.register("OTHER.X")
    wanted = source.slots.register(IID)
    fast = [source.event(kind, value) for kind, value in events]
    assert {event["slot"] for event in fast} == {wanted}
    reader.zero_copy = False
    assert [source.event(kind, value) for kind, value in events] == fast
    with pytest.raises(DataConversionError, match="`kind` must be quote"):
        source.event("tick", tick)


def test_the_environment_switch_forces_attributes() -> None:
    code = (
        "from tengri_fast.nautilus import _probe; from tengri_fast.market import reader;"
        "print(_probe.install_layouts(), reader.zero_copy, {n['reason'] for n in reader.layout.values()})"
    )
    environment = {**os.environ, "TENGRI_ZERO_COPY": "0", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False,
                          cwd=REPOSITORY, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "True" not in done.stdout
    assert "switched off by TENGRI_ZERO_COPY=0" in done.stdout


def test_the_core_does_not_import_nautilus() -> None:
    code = ("import sys, tengri_fast.market, tengri_fast.features;"
            "print([m for m in sys.modules if m.startswith(('nautilus_trader', 'pyarrow', 'numba'))])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
                          cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})  # fmt: skip
    assert done.stdout.strip() == "[]"
