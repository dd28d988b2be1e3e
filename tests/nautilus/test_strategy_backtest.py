"""From signal to order in Nautilus' backtest engine: decisions, orders in flight, stops, errors, determinism, state."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")

from model_on_disk import write_model
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.model.enums import BookType, OmsType, OrderSide, OrderStatus
from nautilus_trader.model.events import OrderDenied, OrderFilled, OrderInitialized
from nautilus_trader.model.identifiers import PositionId, TradeId
from nautilus_trader.model.position import Position
from nautilus_trader.test_kit.stubs.events import TestEventStubs
from nautilus_trader.trading.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy
from neural_scene import (
    INSTRUMENT,
    OTHER_INSTRUMENT,
    START,
    backtest,
    deltas,
    depth,
    market,
    quote,
    register,
    run,
)

from tengri_fast.errors import ConfigurationError, ModelLoadingError
from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.runtime.model_spec import load_bundle

COLUMNS = ("ts_event", "mid", "spread", "p_down", "p_flat", "p_up", "value", "confidence", "sequence", "rung", "slot")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random model with strong opinions, so that it trades both ways."""
    return load_bundle(write_model(tmp_path_factory.mktemp("model"), gain=8.0))


def config(**changes: Any) -> TengriNeuralConfig:
    values: dict[str, Any] = {
        "model": "unused",
        "instrument_id": INSTRUMENT.id,
        "trade_size": "0.010",
        "threshold_bps": 2.0,
        "exit_bps": 1.0,
        "fee_bps": 0.0,
        "record_signals": True,
        **changes,
    }
    return TengriNeuralConfig(**values)


def orders_of(engine: Any) -> list[tuple[int, str, str, bool]]:
    rows = [(o.init_event.ts_init, o.side.name, str(o.quantity), o.is_reduce_only) for o in engine.cache.orders()]
    return sorted(rows)


class Watcher(TengriNeuralStrategy):
    """Keeps every event and the most orders that were open at once."""

    def __init__(self, config: Any, bundle: Any = None) -> None:
        super().__init__(config, bundle)
        self.events: list[Any] = []
        self.open: set[Any] = set()
        self.most_open = 0
        self.most_held = 0.0

    def on_event(self, event: Any) -> None:
        self.events.append(event)
        if isinstance(event, OrderInitialized):
            self.open.add(event.client_order_id)
        elif hasattr(event, "client_order_id"):
            if self.cache.order(event.client_order_id).is_closed:
                self.open.discard(event.client_order_id)
        elif hasattr(event, "signed_qty"):
            self.most_held = max(self.most_held, abs(event.signed_qty))
        self.most_open = max(self.most_open, len(self.open))


# ---- decisions -------------------------------------------------------------------------------------------------------


def expected_actions(signals: dict[str, Any], settings: Any, fills: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """SEMANTICS written out again: (time, side) of each decision, given the times at which positions really changed.

    `fills` holds (signal index from which the new side is known, side).
    """
    out = []
    side, entered, left, pending = 0, 0, None, dict(fills)
    for i in range(len(signals["ts_event"])):
        ts, value = int(signals["ts_event"][i]), signals["value"][i]
        if i in pending:
            new = pending[i]
            if new == 0:
                left = ts
            else:
                entered = ts
            side = new
        if side:
            old_enough = settings["max_holding"] and ts >= entered + settings["max_holding"]
            if old_enough or -value * side > settings["exit_bps"]:
                out.append((ts, 0))
                pending[i + 1] = 0
            continue
        cost = settings["fee_bps"] + 0.5e4 * signals["spread"][i] / signals["mid"][i] + settings["threshold_bps"]
        if left is not None and ts < left + settings["cooldown"]:
            continue
        if signals["confidence"][i] >= settings["min_confidence"] and abs(value) > cost:
            out.append((ts, 1 if value > 0 else -1))
            pending[i + 1] = 1 if value > 0 else -1
    return out


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_holding": 2_000_000_000},
        {"cooldown": 3_000_000_000},
        {"min_confidence": 0.7},
        {"fee_bps": 3.0, "threshold_bps": 5.0, "exit_bps": 4.0, "max_holding": 700_000_000},
    ],
)
def test_decisions_follow_the_rule(bundle: Any, settings: dict[str, Any]) -> None:
    rule = {"fee_bps": 0.0, "threshold_bps": 2.0, "exit_bps": 1.0, "min_confidence": 0.0, "max_holding": 0}
    rule |= {"cooldown": 0} | settings

    class Intents(TengriNeuralStrategy):
        def submit_intent(self, instrument_id: Any, side: int) -> None:
            if self.is_running:  # on_stop closes what is left
                sent.append((self.engine.signal.ts_event, side))
            TengriNeuralStrategy.submit_intent(self, instrument_id, side)

    sent: list[tuple[int, int]] = []
    strategy = Intents(config(**settings), bundle)
    engine = backtest(list(market(600)), strategy)
    run(engine)
    expected = expected_actions(strategy.signals(), rule, [])
    assert sent == expected
    assert len(sent) >= 6
    assert {side for _, side in sent} == {-1, 0, 1}
    engine.dispose()


def test_orders_are_market_in_trade_size_and_exits_reduce_only(bundle: Any) -> None:
    strategy = TengriNeuralStrategy(config(), bundle)
    engine = backtest(list(market(400)), strategy)
    run(engine)
    orders = engine.cache.orders()
    assert len(orders) >= 6
    for order in orders:
        assert order.order_type.name == "MARKET"
        assert order.quantity.as_decimal() == Decimal("0.010")
        assert order.status == OrderStatus.FILLED
        assert order.is_reduce_only != ("TENGRI_ENTRY" in (order.tags or []))
    assert not engine.cache.positions_open()
    engine.dispose()


def test_without_a_trade_size_signals_are_made_and_nothing_is_sent(bundle: Any) -> None:
    strategy = TengriNeuralStrategy(config(trade_size=None), bundle)
    engine = backtest(list(market(300)), strategy)
    run(engine)
    assert len(strategy.signals()["value"]) > 250
    assert np.abs(strategy.signals()["value"]).max() > 2.0
    assert engine.cache.orders() == []
    with pytest.raises(ConfigurationError, match="`trade_size` must be set"):
        strategy.submit_intent(INSTRUMENT.id, 1)
    engine.dispose()


def test_one_order_and_one_position_at_a_time_with_slow_orders(bundle: Any) -> None:
    strategy = Watcher(config(), bundle)
    engine = backtest(list(market(600)), strategy, latency=LatencyModel(base_latency_nanos=750_000_000))
    run(engine)
    assert strategy.most_open == 1
    assert strategy.most_held == 0.010
    assert sum(isinstance(e, OrderFilled) for e in strategy.events) >= 6
    engine.dispose()


def test_a_denied_order_frees_the_instrument_after_a_growing_wait(bundle: Any) -> None:
    """2,000 exceeds the instrument's largest quantity: Nautilus' own risk engine denies each entry."""
    strategy = Watcher(config(trade_size="2000.000"), bundle)
    engine = backtest(list(market(3000)), strategy)
    run(engine)
    denied = [e.ts_event for e in strategy.events if isinstance(e, OrderDenied)]
    assert len(denied) > 3
    waits = np.diff(denied) / 1e9
    assert (waits >= np.minimum(2.0 ** np.arange(len(waits)), 64.0)).all()
    assert not strategy.order_in_flight(INSTRUMENT.id)
    assert strategy.position_side(INSTRUMENT.id) == 0
    engine.dispose()


@pytest.mark.parametrize("ending", ["rejected", "canceled", "expired", "filled"])
def test_whatever_ends_an_order_frees_the_instrument(bundle: Any, ending: str) -> None:
    class Sends(TengriNeuralStrategy):
        def on_start(self) -> None:
            """Subscribe to nothing."""

    strategy: Any = Sends(config(), bundle)
    register(strategy).start()
    strategy.submit_intent(INSTRUMENT.id, 1)
    assert strategy.order_in_flight(INSTRUMENT.id)
    (order,) = strategy.cache.orders()
    for event in (TestEventStubs.order_submitted(order), TestEventStubs.order_accepted(order)):
        order.apply(event)
        strategy.handle_event(event)
        assert strategy.order_in_flight(INSTRUMENT.id)
    if ending == "filled":
        for fill, (quantity, still) in enumerate((("0.004", True), ("0.006", False))):
            event = TestEventStubs.order_filled(
                order,
                INSTRUMENT,
                position_id=PositionId("P-1"),
                last_qty=INSTRUMENT.make_qty(Decimal(quantity)),
                last_px=INSTRUMENT.make_price(50_000),
                trade_id=TradeId(str(fill)),
            )
            order.apply(event)
            strategy.handle_event(event)
            assert strategy.order_in_flight(INSTRUMENT.id) is still
    else:
        event = getattr(TestEventStubs, f"order_{ending}")(order)
        order.apply(event)
        strategy.handle_event(event)
    assert not strategy.order_in_flight(INSTRUMENT.id)


def test_events_reach_the_users_handlers_as_often_as_ever(bundle: Any) -> None:
    """The same orders sent by a plain strategy give the same events to the same handlers."""
    names = ("on_order_event", "on_order_filled", "on_order_submitted", "on_position_opened", "on_position_closed",
             "on_position_event", "on_event")  # fmt: skip

    def recorder(name: str) -> Any:
        return lambda self, event: self.calls.append((name, type(event).__name__))

    body = {name: recorder(name) for name in names}
    ours: Any = type("Ours", (TengriNeuralStrategy,), body)(config(), bundle)
    ours.calls = []
    engine = backtest(list(market(300)), ours)
    run(engine)
    plan = {}
    for ts, side, quantity, reduce_only in orders_of(engine)[:-1]:
        plan[ts] = (OrderSide[side], quantity, reduce_only)
    stop_order = orders_of(engine)[-1]
    engine.dispose()

    def on_start(self: Any) -> None:
        self.subscribe_quote_ticks(INSTRUMENT.id)

    def on_quote_tick(self: Any, tick: Any) -> None:
        todo = plan if tick.ts_event != stop_order[0] else {**plan, stop_order[0]: (
            OrderSide[stop_order[1]], stop_order[2], stop_order[3])}  # fmt: skip
        if tick.ts_event in todo:
            side, quantity, reduce_only = todo[tick.ts_event]
            self.submit_order(
                self.order_factory.market(
                    INSTRUMENT.id, side, INSTRUMENT.make_qty(Decimal(quantity)), reduce_only=reduce_only
                )
            )

    plain: Any = type("Plain", (Strategy,), {**body, "on_start": on_start, "on_quote_tick": on_quote_tick})(
        StrategyConfig()
    )
    plain.calls = []
    engine = backtest(list(market(300)), plain)
    run(engine)
    counted = min(len(ours.calls), len(plain.calls))
    assert counted > 40
    assert ours.calls[:counted] == plain.calls[:counted]
    engine.dispose()


def test_positions_in_hedging_accounts_add_up(bundle: Any) -> None:
    strategy = Watcher(config(), bundle)
    engine = backtest(list(market(400)), strategy, oms=OmsType.HEDGING)
    run(engine)
    assert strategy.most_held == 0.010
    assert len(engine.cache.positions()) >= 3
    assert not engine.cache.positions_open()
    engine.dispose()


def test_stop_leaves_the_position_when_told_so(bundle: Any) -> None:
    class Once(TengriNeuralStrategy):
        def on_signal(self, signal: Any) -> None:
            if signal.sequence == 1:
                self.submit_intent(INSTRUMENT.id, -1)

    for close, left in ((True, 0), (False, 1)):
        strategy = Once(config(close_on_stop=close), bundle)
        engine = backtest(list(market(100)), strategy)
        run(engine)
        assert len(engine.cache.positions_open()) == left
        assert strategy.position_side(INSTRUMENT.id) == -left
        engine.dispose()


def test_an_entry_that_fills_after_the_stop_is_closed(bundle: Any) -> None:
    class StopsInFlight(TengriNeuralStrategy):
        def on_signal(self, signal: Any) -> None:
            if signal.sequence == 1:
                self.submit_intent(INSTRUMENT.id, 1)
                self.stop()

    for close, left in ((True, 0), (False, 1)):
        strategy = StopsInFlight(config(close_on_stop=close), bundle)
        engine = backtest(list(market(100)), strategy, latency=LatencyModel(base_latency_nanos=750_000_000))
        run(engine)
        assert len(engine.cache.positions_open()) == left
        assert len(engine.cache.orders()) == 2 - left
        assert strategy.position_side(INSTRUMENT.id) == left
        engine.dispose()


def test_a_refused_exit_is_not_repeated_without_end(bundle: Any) -> None:
    class Sends(TengriNeuralStrategy):
        def on_start(self) -> None:
            """Subscribe to nothing."""

        def on_stop(self) -> None:
            """Leave settling to the events."""

    strategy: Any = Sends(config(), bundle)
    register(strategy).start()
    strategy.submit_intent(INSTRUMENT.id, 1)
    (entry,) = strategy.cache.orders()
    for event in (TestEventStubs.order_submitted(entry), TestEventStubs.order_accepted(entry)):
        entry.apply(event)
    fill = TestEventStubs.order_filled(entry, INSTRUMENT, position_id=PositionId("P-1"), trade_id=TradeId("1"))
    entry.apply(fill)
    position = Position(INSTRUMENT, fill)
    strategy.cache.add_position(position, OmsType.HEDGING)
    strategy.stop()
    strategy.handle_event(fill)
    strategy.handle_event(TestEventStubs.position_opened(position))
    assert len(strategy.cache.orders()) == 2
    (leave,) = [order for order in strategy.cache.orders() if order.is_reduce_only]
    rejected = TestEventStubs.order_rejected(leave)
    leave.apply(TestEventStubs.order_submitted(leave))
    leave.apply(rejected)
    strategy.handle_event(rejected)
    assert len(strategy.cache.orders()) == 2
    assert strategy.position_side(INSTRUMENT.id) == 1


def test_equal_hedges_are_flat(bundle: Any) -> None:
    strategy: Any = register(TengriNeuralStrategy(config(), bundle))
    strategy.start()
    for number, (side, quantity) in enumerate(((OrderSide.BUY, "0.100"), (OrderSide.BUY, "0.200"),
                                               (OrderSide.SELL, "0.300"))):  # fmt: skip
        order = strategy.order_factory.market(INSTRUMENT.id, side, INSTRUMENT.make_qty(Decimal(quantity)))
        fill = TestEventStubs.order_filled(
            order, INSTRUMENT, position_id=PositionId(f"P-{number}"), trade_id=TradeId(str(number))
        )
        strategy.handle_event(TestEventStubs.position_opened(Position(INSTRUMENT, fill)))
        assert strategy.position_side(INSTRUMENT.id) == (0 if number == 2 else 1)


def test_a_position_that_exists_at_the_start_is_known(bundle: Any) -> None:
    seen: list[int] = []

    class Keeps(TengriNeuralStrategy):
        def on_signal(self, signal: Any) -> None:
            seen.append(self.position_side(INSTRUMENT.id))
            if signal.sequence == 1:
                self.submit_intent(INSTRUMENT.id, 1)
            if signal.sequence == 50:
                self.stop()

    strategy = Keeps(config(close_on_stop=False), bundle)
    engine = backtest(list(market(100)), strategy)
    run(engine)
    assert seen[0] == 0
    assert seen[-1] == 1
    strategy.resume()
    assert strategy.position_side(INSTRUMENT.id) == 1
    engine.dispose()


def test_two_instruments_are_independent(bundle: Any) -> None:
    first, second = market(200, seed=1), market(200, seed=2, instrument=OTHER_INSTRUMENT)
    both = TengriNeuralStrategy(config(instrument_ids=(OTHER_INSTRUMENT.id,), trade_size=None), bundle)
    alone = TengriNeuralStrategy(config(instrument_id=OTHER_INSTRUMENT.id, trade_size=None, order_id_tag="2"), bundle)
    engine = backtest(
        sorted([*first, *second], key=lambda e: e.ts_init), both, alone, instruments=(INSTRUMENT, OTHER_INSTRUMENT)
    )
    run(engine)
    found, expected = both.signals(), alone.signals()
    chosen = found["slot"] == 1
    assert chosen.sum() > 150
    assert (~chosen).sum() > 150
    for name in ("ts_event", "value", "p_up", "mid"):
        np.testing.assert_array_equal(found[name][chosen], expected[name])
    engine.dispose()


def test_an_instrument_that_the_cache_does_not_know_is_an_error_at_the_start(bundle: Any) -> None:
    strategy = register(TengriNeuralStrategy(config(), bundle), instruments=())
    with pytest.raises(ConfigurationError, match=r"`instrument_id` must be in the cache .* was BTCUSDT-PERP.BINANCE"):
        strategy.start()


@pytest.mark.parametrize("size", ["0.0001", "0.0105"])
def test_a_trade_size_that_does_not_fit_the_instrument(bundle: Any, size: str) -> None:
    strategy = register(TengriNeuralStrategy(config(trade_size=size), bundle))
    with pytest.raises(ConfigurationError, match=f"`trade_size` must .* was {size}"):
        strategy.start()


def test_intents_are_checked(bundle: Any) -> None:
    strategy: Any = register(TengriNeuralStrategy(config(), bundle))
    strategy.start()
    with pytest.raises(ConfigurationError, match="`side` must be -1, 0 or"):
        strategy.submit_intent(INSTRUMENT.id, 2)
    with pytest.raises(ConfigurationError, match=r"`instrument_id` must be one of .* was ETHUSDT"):
        strategy.position_side(OTHER_INSTRUMENT.id)


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_an_exception_in_on_signal_leaves_the_run_as_any_handlers_does(bundle: Any) -> None:
    class Breaks(TengriNeuralStrategy):
        def on_signal(self, signal: Any) -> None:
            raise ZeroDivisionError("user's own mistake")

    engine = backtest(list(market(100)), Breaks(config(), bundle))
    with pytest.raises(ZeroDivisionError, match="user's own mistake"):
        run(engine)
    engine.dispose()


def test_pickling_and_copying_are_refused(bundle: Any) -> None:
    strategy = TengriNeuralStrategy(config(), bundle)
    for act in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="pickle"):
            act(strategy)


# ---- determinism and state -------------------------------------------------------------------------------------------


def same_bits(a: dict[str, Any], b: dict[str, Any]) -> None:
    for name in COLUMNS:
        assert a[name].tobytes() == b[name].tobytes(), name


def test_two_runs_and_a_rerun_after_reset_give_the_same_bits(bundle: Any) -> None:
    found = []
    for _ in range(2):
        strategy = TengriNeuralStrategy(config(), bundle)
        engine = backtest(list(market(300)), strategy)
        run(engine)
        found.append((strategy.signals(), orders_of(engine)))
        if len(found) == 2:
            engine.reset()
            assert len(strategy.signals()["value"]) == 0
            run(engine)
            found.append((strategy.signals(), orders_of(engine)))
        engine.dispose()
    assert len(found[0][1]) >= 4
    for signals, orders in found[1:]:
        same_bits(signals, found[0][0])
        assert orders == found[0][1]


def test_stamping_changes_nothing_but_the_stamps(bundle: Any) -> None:
    found = []
    for stamp in (False, True):
        strategy = TengriNeuralStrategy(config(stamp_latency=stamp), bundle)
        engine = backtest(list(market(200)), strategy)
        run(engine)
        found.append((strategy.signals(), orders_of(engine)))
        assert strategy.engine.latency.total == (len(strategy.signals()["value"]) if stamp else 0)
        engine.dispose()
    same_bits(found[1][0], found[0][0])
    assert found[1][1] == found[0][1]
    assert not found[0][0]["latency_ns"].any()
    assert (found[1][0]["latency_ns"] > 0).all()


def test_recording_grows(bundle: Any) -> None:
    strategy: Any = register(TengriNeuralStrategy(config(trade_size=None), bundle))
    strategy.start()
    tick = quote(50_000.0, 50_000.2, START)
    from neural_scene import trade

    strategy.handle_trade_tick(trade(50_000.0, 1.0, START))
    for i in range(70_000):
        if i < 8:
            tick = quote(50_000.0 + i, 50_000.2 + i, START + i * 10**9)
        strategy.handle_quote_tick(tick)
    signals = strategy.signals()
    assert 69_990 < len(signals["value"]) <= 70_000
    assert (np.diff(signals["sequence"].astype(np.int64)) == 1).all()


def by_hand(strategy: Any, stream: list[Any]) -> None:
    for event in stream:
        (strategy.handle_quote_tick if hasattr(event, "bid_price") else strategy.handle_trade_tick)(event)


def test_saved_state_continues_bit_for_bit(bundle: Any) -> None:
    stream = market(300)
    whole, first, second = (register(TengriNeuralStrategy(config(trade_size=None), bundle)) for _ in range(3))
    whole.start()
    by_hand(whole, stream)
    first.start()
    by_hand(first, stream[:151])
    state = first.save()
    assert list(state) == ["tengri_state_v1"]
    second.load(state)
    second.start()
    by_hand(second, stream[151:])
    complete, head, tail = (s.signals() for s in (whole, first, second))
    same_bits({n: np.concatenate([head[n], tail[n]]) for n in COLUMNS}, complete)
    assert second.engine.to_bytes() == whole.engine.to_bytes()


def test_holding_times_survive_a_save(bundle: Any) -> None:
    strategy: Any = register(TengriNeuralStrategy(config(max_holding="1h"), bundle))
    strategy.start()
    by_hand(strategy, market(50))
    before = strategy.on_save()
    other: Any = register(TengriNeuralStrategy(config(max_holding="1h"), bundle))
    other.on_load(before)
    other.start()
    assert other.on_save() == before


def test_damaged_state_is_refused_and_changes_nothing(bundle: Any, tmp_path: Any) -> None:
    strategy: Any = register(TengriNeuralStrategy(config(), bundle))
    strategy.start()
    by_hand(strategy, market(50))
    good = strategy.on_save()["tengri_state_v1"]
    before = strategy.engine.to_bytes()
    for bad in (b"", good[:10], good[:-1], good[:9] + b"\xff" + good[10:], b"X" + good[1:], good + b"\0"):
        with pytest.raises(ModelLoadingError):
            strategy.on_load({"tengri_state_v1": bad})
        assert strategy.engine.to_bytes() == before
    other = load_bundle(write_model(tmp_path, gain=8.0, seed=8))
    with pytest.raises(ModelLoadingError, match="another model"):
        TengriNeuralStrategy(config(), other).on_load({"tengri_state_v1": good})
    strategy.on_load({"unrelated": b"1"})
    assert strategy.engine.to_bytes() == before


def test_warm_up_delays_the_first_signal(bundle: Any) -> None:
    strategy = TengriNeuralStrategy(config(warm_up="10s", trade_size=None), bundle)
    engine = backtest(list(market(300)), strategy)
    run(engine)
    assert strategy.signals()["ts_event"][0] >= START + 10_000_000_000
    engine.dispose()


def test_a_depth_model_runs_in_the_engine(tmp_path: Any) -> None:
    model = load_bundle(
        write_model(tmp_path, features=("spread()", "depth_imbalance(levels=3)"), clock="depth", gain=8.0)
    )
    rng = np.random.default_rng(2)
    data = [depth(50_000.0 + i % 7, START + i * 10**8, tuple(rng.integers(1, 9, 3).astype(float))) for i in range(100)]
    strategy = TengriNeuralStrategy(config(trade_size=None), model)
    engine = backtest(data, strategy)
    run(engine)
    assert len(strategy.signals()["value"]) >= 98
    engine.dispose()


def test_deltas_give_the_engine_the_same_signals_as_depth(tmp_path: Any) -> None:
    model = load_bundle(
        write_model(tmp_path, features=("spread()", "depth_imbalance(levels=3)"), clock="depth", gain=8.0)
    )
    found = []
    for make, book in ((depth, "depth10"), (deltas, "deltas")):
        rng = np.random.default_rng(2)
        data = [
            make(50_000.0 + i % 7, START + i * 10**8, tuple(rng.integers(1, 9, 3).astype(float))) for i in range(99)
        ]
        strategy = TengriNeuralStrategy(config(trade_size=None, book=book), model)
        engine = backtest(data, strategy, book_type=BookType.L2_MBP)
        run(engine)
        found.append(strategy.signals())
        engine.dispose()
    assert len(found[0]["value"]) >= 97
    same_bits(found[1], found[0])
