"""The fast path takes nothing away: the same calls as Nautilus makes, whatever the subclass has, and the same state."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")

from model_on_disk import FEATURES, write_model
from nautilus_trader.indicators import ExponentialMovingAverage
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.enums import BookType, PriceType
from nautilus_trader.trading.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy
from neural_scene import (
    BAR_TYPE,
    DEPTH_FEATURES,
    INSTRUMENT,
    OTHER_INSTRUMENT,
    START,
    bar,
    deltas,
    depth,
    market,
    quote,
    register,
    trade,
)

from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.runtime.engine import TengriNeuralEngine
from tengri_fast.runtime.model_spec import load_bundle

HANDLERS = (
    "on_quote_tick",
    "on_trade_tick",
    "on_bar",
    "on_order_book_depth",
    "on_order_book_deltas",
    "on_historical_data",
)
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A quote-clock model that reads quotes, trades and depth."""
    features = (*FEATURES, "depth_imbalance(levels=3)")
    return load_bundle(write_model(tmp_path_factory.mktemp("model"), features=features))


@pytest.fixture(scope="module")
def depth_bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_bundle(write_model(tmp_path_factory.mktemp("depth"), features=DEPTH_FEATURES, clock="depth"))


def events(historical_part: bool = True) -> list[tuple[str, Any, bool]]:
    """(kind, event, historical) in time order: history first, then live, all five kinds and a foreign instrument."""
    out: list[tuple[str, Any, bool]] = []
    rng = np.random.default_rng(11)
    for i in range(40):
        ts = START + i * SECOND
        historical = historical_part and i < 15
        price = 50_000.0 + 0.1 * int(rng.integers(-20, 20))
        out.append(("depth", depth(price, ts, tuple(rng.integers(1, 9, 3).astype(float))), historical))
        out.append(("trade", trade(price, 0.5 + i % 3, ts, i % 2 == 0), historical))
        out.append(("quote", quote(price - 0.1, price + 0.1, ts, 1.0 + i % 4, 1.0 + i % 5), historical))
        out.append(("deltas", deltas(price, ts), historical))
        out.append(("bar", bar(price, ts), historical))
        foreign = quote(price / 20, price / 20 + 1, ts, instrument=OTHER_INSTRUMENT)
        out.append(("quote", foreign, historical))
    return out


FEED: dict[str, tuple[str, str]] = {
    "quote": ("handle_quote_tick", "handle_historical_quote_tick"),
    "trade": ("handle_trade_tick", "handle_historical_trade_tick"),
    "bar": ("handle_bar", "handle_historical_bar"),
    "depth": ("handle_order_book_depth", "handle_historical_order_book_depth"),
    "deltas": ("handle_order_book_deltas", "handle_historical_order_book_deltas"),
}


def feed(strategy: Strategy, stream: list[tuple[str, Any, bool]]) -> None:
    for kind, event, historical in stream:
        getattr(strategy, FEED[kind][historical])(event)


def recorder(name: str) -> Callable[[Any, Any], None]:
    def handler(self: Any, event: Any) -> None:
        self.calls.append((name, id(event)))

    return handler


def subclass(base: type, names: tuple[str, ...], **more: Any) -> type:
    return type("Made", (base,), {**{name: recorder(name) for name in names}, **more})


def quiet_start(self: Any) -> None:
    """Subscribe to nothing: these tests call the handlers themselves."""


def neural(bundle: Any, kind: type = TengriNeuralStrategy, **config: Any) -> Any:
    strategy = kind(
        TengriNeuralConfig(model="unused", instrument_id=INSTRUMENT.id, record_signals=True, **config), bundle
    )
    return strategy


class Averages:
    """Indicators on each kind of data that Nautilus feeds to indicators."""

    def __init__(self, strategy: Any) -> None:
        self.quotes = ExponentialMovingAverage(5, PriceType.MID)
        self.trades = ExponentialMovingAverage(5)
        self.bars = ExponentialMovingAverage(5)
        strategy.register_indicator_for_quote_ticks(INSTRUMENT.id, self.quotes)
        strategy.register_indicator_for_trade_ticks(INSTRUMENT.id, self.trades)
        strategy.register_indicator_for_bars(BAR_TYPE, self.bars)

    def state(self) -> list[tuple[float, int]]:
        return [(i.value, i.count) for i in (self.quotes, self.trades, self.bars)]


@pytest.fixture(scope="module")
def expected_state(bundle: Any) -> bytes:
    """The engine's state after the stream, fed event by event without any strategy."""
    engine = TengriNeuralEngine(bundle, 1)
    slot = engine.add_instrument(str(INSTRUMENT.id))
    for kind, event, historical in events():
        if event.__class__.__name__ != "OrderBookDeltas" and kind != "bar" and event.instrument_id != INSTRUMENT.id:
            continue
        if kind == "quote":
            engine.process_quote(
                slot,
                event.bid_price.as_double(),
                event.ask_price.as_double(),
                event.bid_size.as_double(),
                event.ask_size.as_double(),
                event.ts_event,
                not historical,
            )
        elif kind == "trade":
            engine.process_trade(
                slot,
                event.price.as_double(),
                event.size.as_double(),
                1 if event.aggressor_side.name == "BUYER" else -1,
                event.ts_event,
                not historical,
            )
        elif kind == "depth":
            engine.process_depth(slot, *levels(event), event.ts_event, not historical)
    assert engine.counters(slot)["signals"] > 10
    return engine.to_bytes()


def levels(event: Any) -> list[np.ndarray]:
    return [
        np.array([get(order) for order in side[:3]])
        for side in (event.bids, event.asks)
        for get in (lambda o: o.price.as_double(), lambda o: o.size.as_double())
    ]


@pytest.mark.parametrize("indicators", ["none", "before", "later"])
@pytest.mark.parametrize("count", range(len(HANDLERS) + 1))
def test_every_combination_calls_what_nautilus_calls(
    bundle: Any, expected_state: bytes, count: int, indicators: str
) -> None:
    stream = events()
    for names in itertools.combinations(HANDLERS, count):
        plain = subclass(Strategy, names, on_start=quiet_start)(StrategyConfig())
        ours = neural(bundle, subclass(TengriNeuralStrategy, names, on_start=quiet_start))
        found = []
        for strategy in (plain, ours):
            strategy.calls = []
            register(strategy)
            averages = Averages(strategy) if indicators == "before" else None
            strategy.start()
            feed(strategy, stream[:101])
            if indicators == "later":
                averages = Averages(strategy)
            feed(strategy, stream[101:])
            found.append((strategy.calls, averages.state() if averages else None))
        assert found[1] == found[0], names
        assert ours.ordinary_handlers == tuple(n for n in HANDLERS if n in names)
        assert ours.engine.to_bytes() == expected_state, names
        assert len(ours.signals()["ts_event"]) > 10


def test_calls_do_happen() -> None:
    """The comparison above compares something."""
    plain: Any = subclass(Strategy, HANDLERS, on_start=quiet_start)(StrategyConfig())
    plain.calls = []
    register(plain).start()
    feed(plain, events())
    assert {name for name, _ in plain.calls} == set(HANDLERS)


def test_signals_come_only_from_live_ticks_of_our_instrument(bundle: Any) -> None:
    seen: list[tuple[int, str]] = []

    class Listener(TengriNeuralStrategy):
        def on_start(self) -> None:
            """Subscribe to nothing."""

        def on_signal(self, signal: Any) -> None:
            seen.append((signal.ts_event, signal.instrument_id))

    strategy = neural(bundle, Listener)
    register(strategy).start()
    feed(strategy, events())
    live = [e.ts_event for k, e, historical in events() if k == "quote" and not historical]
    assert seen == [(ts, str(INSTRUMENT.id)) for ts in dict.fromkeys(live)]


def test_states_other_than_running(bundle: Any) -> None:
    """Dropped before the start and after the stop; history counts while starting, live ticks do not."""

    class Early(TengriNeuralStrategy):
        def on_start(self) -> None:
            self.handle_historical_quote_tick(quote(50_000.0, 50_000.2, START))
            self.handle_quote_tick(quote(50_000.0, 50_000.2, START + 1))
            self.counted = self.engine.counters(0)["accepted"]

        def on_stop(self) -> None:
            self.handle_quote_tick(quote(50_000.0, 50_000.2, START + 5))

    strategy = neural(bundle, Early)
    register(strategy)
    strategy.handle_quote_tick(quote(50_000.0, 50_000.2, START))
    strategy.handle_historical_quote_tick(quote(50_000.0, 50_000.2, START))
    assert strategy.engine.counters(0)["accepted"] == 0
    strategy.start()
    assert strategy.counted == 1
    strategy.handle_quote_tick(quote(50_000.0, 50_000.2, START + 2))
    assert strategy.engine.counters(0)["accepted"] == 2
    strategy.stop()
    strategy.handle_quote_tick(quote(50_000.0, 50_000.2, START + 6))
    strategy.handle_historical_quote_tick(quote(50_000.0, 50_000.2, START + 7))
    assert strategy.engine.counters(0)["accepted"] == 2


def test_order_within_a_tick(bundle: Any) -> None:
    """Signal first, then indicators and the ordinary handler, then on_signal; all see the same tick."""
    trace: list[tuple[str, int, int]] = []

    class Ordered(TengriNeuralStrategy):
        def on_start(self) -> None:
            self.average = ExponentialMovingAverage(3, PriceType.MID)
            self.register_indicator_for_quote_ticks(INSTRUMENT.id, self.average)

        def on_quote_tick(self, tick: Any) -> None:
            trace.append(("tick", self.engine.signal.ts_event, self.average.count))

        def on_signal(self, signal: Any) -> None:
            trace.append(("signal", signal.ts_event, self.average.count))

    strategy = neural(bundle, Ordered)
    register(strategy).start()
    feed(strategy, [e for e in events(False) if getattr(e[1], "instrument_id", None) == INSTRUMENT.id])
    last_tick, last_signal = trace[-2:]
    assert (last_tick[0], last_signal[0]) == ("tick", "signal")
    assert last_tick[1:] == last_signal[1:]
    assert last_signal[1] == START + 39 * SECOND
    assert last_signal[2] == 40


def test_history_asked_for_inside_a_handler_does_not_change_the_signal(bundle: Any) -> None:
    values: list[tuple[float, float]] = []

    class Asks(TengriNeuralStrategy):
        def on_start(self) -> None:
            """Subscribe to nothing."""

        def on_quote_tick(self, tick: Any) -> None:
            before = self.engine.signal.value
            self.handle_historical_quote_tick(quote(10.0, 90_000.0, tick.ts_event))
            values.append((before, self.engine.signal.value))

        def on_signal(self, signal: Any) -> None:
            values.append((values[-1][0], signal.value))

    strategy = neural(bundle, Asks)
    register(strategy).start()
    feed(strategy, [e for e in events(False) if getattr(e[1], "instrument_id", None) == INSTRUMENT.id])
    at_signal = values[-1]
    during = values[-2]
    assert during[0] != during[1], "the nested tick steps the engine"
    assert at_signal[0] == at_signal[1]


def test_a_handler_that_stops_the_strategy_silences_the_signal(bundle: Any) -> None:
    class Stops(TengriNeuralStrategy):
        signals_seen = 0

        def on_start(self) -> None:
            """Subscribe to nothing."""

        def on_stop(self) -> None:
            """Nothing was subscribed to."""

        def on_quote_tick(self, tick: Any) -> None:
            if tick.ts_event >= START + 30 * SECOND:
                self.stop()

        def on_signal(self, signal: Any) -> None:
            type(self).signals_seen = signal.ts_event

    strategy = neural(bundle, Stops)
    register(strategy).start()
    feed(strategy, events(False))
    assert Stops.signals_seen == START + 29 * SECOND


@pytest.mark.parametrize("how", ["object", "class", "mixin"])
def test_overrides_are_found_wherever_they_are(bundle: Any, how: str) -> None:
    calls: list[Any] = []

    def handler(*arguments: Any) -> None:
        calls.append(arguments[-1])

    if how == "mixin":
        mixin = type("Mixin", (), {"on_quote_tick": handler})
        kind = type("Mixed", (mixin, TengriNeuralStrategy), {"on_start": quiet_start})
    else:
        kind = subclass(TengriNeuralStrategy, (), on_start=quiet_start)
    strategy = neural(bundle, kind)
    if how == "object":
        strategy.on_quote_tick = handler
    elif how == "class":
        kind.on_quote_tick = handler  # type: ignore[attr-defined]
    register(strategy).start()  # looks again
    tick = quote(50_000.0, 50_000.2, START)
    strategy.handle_quote_tick(tick)
    assert calls == [tick]


def test_none_is_refused_as_nautilus_refuses_it(bundle: Any) -> None:
    plain = register(subclass(Strategy, (), on_start=quiet_start)(StrategyConfig()))
    ours = register(neural(bundle))
    for name, _ in FEED.values():
        refusals = []
        for strategy in (plain, ours):
            with pytest.raises(TypeError) as caught:
                getattr(strategy, name)(None)
            refusals.append(str(caught.value))
        assert refusals[0] == refusals[1]


def test_only_the_configured_bar_type_feeds_the_model(tmp_path: Any) -> None:
    from nautilus_trader.model.data import BarType

    bundle = load_bundle(write_model(tmp_path, features=("spread()", "imbalance()"), clock="bar"))
    strategy = neural(bundle, subclass(TengriNeuralStrategy, (), on_start=quiet_start), bar_types=(BAR_TYPE,))
    register(strategy).start()
    strategy.handle_quote_tick(quote(50_000.0, 50_000.2, START))
    other = BarType.from_str(f"{INSTRUMENT.id}-5-MINUTE-LAST-EXTERNAL")
    strategy.handle_bar(bar(50_000.0, START + 1, other))
    assert len(strategy.signals()["ts_event"]) == 0
    strategy.handle_bar(bar(50_000.0, START + 2))
    assert strategy.signals()["ts_event"].tolist() == [START + 2]


def test_a_model_that_reads_bars_needs_a_bar_type(tmp_path: Any) -> None:
    bundle = load_bundle(write_model(tmp_path, features=("spread()",), clock="bar"))
    with pytest.raises(Exception, match=r"`bar_types` must name the bars of BTCUSDT-PERP.BINANCE"):
        neural(bundle)


@pytest.mark.parametrize("managed", [True, False])
def test_deltas_give_the_same_signals_as_depth(depth_bundle: Any, managed: bool) -> None:
    rng = np.random.default_rng(5)
    rows = [
        (50_000.0 + 0.1 * int(rng.integers(-9, 9)), START + i * SECOND, tuple(rng.integers(1, 9, 3).astype(float)))
        for i in range(30)
    ]
    kind = subclass(TengriNeuralStrategy, (), on_start=quiet_start)
    from_depth = neural(depth_bundle, kind)
    register(from_depth).start()
    from_deltas = neural(depth_bundle, kind, book="deltas")
    book = OrderBook(INSTRUMENT.id, BookType.L2_MBP)
    register(from_deltas, book if managed else None).start()
    for row in rows:
        from_depth.handle_order_book_depth(depth(*row))
        from_depth.handle_order_book_deltas(deltas(*row))  # not its source: must not count twice
        if managed:
            book.apply_deltas(deltas(*row))  # as the data engine does before a strategy sees them
        from_deltas.handle_order_book_deltas(deltas(*row))
        from_deltas.handle_order_book_depth(depth(*row))
    for name, values in from_depth.signals().items():
        np.testing.assert_array_equal(from_deltas.signals()[name], values)
    assert len(from_depth.signals()["ts_event"]) >= 29
    assert from_deltas.engine.to_bytes() == from_depth.engine.to_bytes()


def test_historical_deltas_use_a_private_book(depth_bundle: Any) -> None:
    book = OrderBook(INSTRUMENT.id, BookType.L2_MBP)
    strategy = neural(depth_bundle, subclass(TengriNeuralStrategy, (), on_start=quiet_start), book="deltas")
    register(strategy, book).start()
    strategy.handle_historical_order_book_deltas(deltas(50_000.0, START))
    assert strategy.engine.counters(0)["accepted"] == 1, "the managed book is empty and would not do"
    assert len(strategy.signals()["ts_event"]) == 0


def test_a_depth_model_ignores_quotes(depth_bundle: Any) -> None:
    """Both would move the book features twice for one change of the market."""
    strategy = neural(depth_bundle, subclass(TengriNeuralStrategy, (), on_start=quiet_start))
    register(strategy).start()
    strategy.handle_quote_tick(quote(50_000.0, 50_000.2, START))
    assert strategy.engine.counters(0)["accepted"] == 0


@pytest.mark.parametrize(
    "hostile",
    [
        quote(50_001.0, 50_000.0, START + 100),  # crossed
        quote(0.0, 50_000.0, START + 100),
        quote(-5.0, 50_000.0, START + 100),
        quote(50_000.0, 50_000.2, START - SECOND),  # back in time
        trade(-1.0, 1.0, START + 100),
    ],
    ids=["crossed", "zero", "negative", "backward", "negative trade"],
)
def test_hostile_ticks_are_held_and_counted(bundle: Any, hostile: Any) -> None:
    found = []
    for with_hostile in (False, True):
        strategy = neural(bundle, subclass(TengriNeuralStrategy, (), on_start=quiet_start))
        register(strategy).start()
        strategy.handle_order_book_depth(depth(50_000.0, START))
        for event in market(50, start=START + 1):
            feed(strategy, [("trade" if hasattr(event, "aggressor_side") else "quote", event, False)])
            if with_hostile:
                feed(strategy, [("trade" if hasattr(hostile, "aggressor_side") else "quote", hostile, False)])
        found.append(strategy)
    clean, dirty = found
    counters = dirty.engine.counters(0)
    assert counters["crossed"] + counters["backward"] + counters["invalid"] == len(market(50))
    for name in ("ts_event", "value", "p_up", "mid"):
        np.testing.assert_array_equal(dirty.signals()[name], clean.signals()[name])
    assert len(clean.signals()["value"]) > 30


def test_the_market_fixture_moves() -> None:
    mids = [e.bid_price.as_double() for e in market(50) if hasattr(e, "bid_price")]
    assert len(set(mids)) > 10
