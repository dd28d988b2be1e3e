"""The gate inside a real NautilusTrader engine: every way an order can take, and every state the gate can be in."""

from __future__ import annotations

import math
import threading
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

import numpy as np
from gate_scene import INSTRUMENT, START, STEP, VENUE, Script, make_engine, quotes, run
from nautilus_trader.config import ExecAlgorithmConfig, ImportableActorConfig
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.examples.algorithms.twap import TWAPExecAlgorithm
from nautilus_trader.execution.algorithm import ExecAlgorithm
from nautilus_trader.model.data import QuoteTick, TradeTick
from nautilus_trader.model.enums import (
    AggressorSide,
    ContingencyType,
    OmsType,
    OrderSide,
    TimeInForce,
    TrailingOffsetType,
    TriggerType,
)
from nautilus_trader.model.identifiers import ClientOrderId, ExecAlgorithmId, InstrumentId, TradeId
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.model.orders import LimitOrder, MarketOrder
from nautilus_trader.test_kit.providers import TestInstrumentProvider

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus.gate import NeuralRiskGate, RiskGateConfig
from tengri_fast.risk import RiskLimits, ScenarioSet, VarSettings

BUY, SELL = OrderSide.BUY, OrderSide.SELL
NAME = INSTRUMENT.id.value


def make_gate(**limits: Any) -> NeuralRiskGate:
    more = {key: limits.pop(key) for key in list(limits) if key in RiskGateConfig.__struct_fields__}
    limits = limits or {"max_order_notional": 100_000.0}
    return NeuralRiskGate(RiskGateConfig(limits=RiskLimits(**limits), kill_poll_ms=0, **more))


def play(script: Script, gate: NeuralRiskGate, *others: Any, **engine: Any) -> Any:
    made = make_engine(gate, script, *others, **engine)
    run(made)
    return made


# -- plain orders -----------------------------------------------------------------------------------------------------


def test_denial_is_nautilus_own_with_rule_value_and_limit() -> None:
    gate = make_gate(max_order_notional=100_000.0)
    script = Script({5: lambda s, t: s.market(BUY, 4), 6: lambda s, t: s.market(BUY, 1)})
    play(script, gate)
    (denied,) = script.events("OrderDenied")
    assert denied.reason.startswith("TENGRI_RISK:MAX_ORDER_NOTIONAL value=2000")
    assert "limit=100000" in denied.reason
    assert sorted(script.statuses().values()) == ["DENIED", "FILLED"]
    assert gate.denied == {"MAX_ORDER_NOTIONAL": 1}
    assert (gate.submitted, gate.forwarded, gate.errors) == (2, 1, 0)


def test_without_the_gate_the_same_order_fills() -> None:
    script = Script({5: lambda s, t: s.market(BUY, 4)})
    run(make_engine(script))
    assert list(script.statuses().values()) == ["FILLED"]


def test_all_violations_are_told() -> None:
    gate = make_gate(max_order_notional=100_000.0, max_position=1.0, price_collar_bps=50.0)
    script = Script({5: lambda s, t: s.limit(BUY, 4, 55_000)})
    play(script, gate)
    reason = script.events("OrderDenied")[0].reason
    for rule in ("MAX_ORDER_NOTIONAL", "MAX_POSITION value=4 limit=1", "PRICE_COLLAR"):
        assert rule in reason
    assert gate.denied == {"MAX_ORDER_NOTIONAL": 1, "MAX_POSITION": 1, "PRICE_COLLAR": 1}


def test_a_reason_is_bounded() -> None:
    gate = make_gate(max_order_notional=1.0)
    script = Script({5: lambda s, t: s.market(BUY, 1)})
    engine = make_engine(gate, script)
    gate_kill = ("x", "y" * 5_000)
    script.actions[4] = lambda s, t: gate.kill(*gate_kill)
    run(engine)
    assert len(script.events("OrderDenied")[0].reason) <= 480


def test_position_counts_fills_and_working_orders() -> None:
    gate = make_gate(max_position=2.0)
    script = Script(
        {
            3: lambda s, t: s.market(BUY, 1),
            6: lambda s, t: s.limit(BUY, 1, 49_000),
            9: lambda s, t: s.market(BUY, 0.5),  # 1 held + 1 working + 0.5
            12: lambda s, t: s.cancel_all_orders(s.instrument.id),
            15: lambda s, t: s.market(BUY, 0.5),
        }
    )
    play(script, gate)
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=2.5 limit=2"]
    assert len(script.events("OrderFilled")) == 2
    assert gate.state.position(NAME) == 1.5
    assert gate.state.working_orders() == []


def test_reducing_orders_and_cancels_pass_whatever_the_limits() -> None:
    gate = make_gate(max_order_notional=60_000.0)

    def tighten(s: Script, t: Any) -> None:
        gate.kill("test", "no more risk")

    script = Script(
        {
            3: lambda s, t: s.market(BUY, 1),
            4: lambda s, t: s.market(BUY, 1),
            5: lambda s, t: s.keep.update(rest=s.limit(BUY, 0.1, 49_000)),
            6: tighten,
            8: lambda s, t: s.cancel_order(s.keep["rest"]) if not s.keep["rest"].is_closed else None,
            9: lambda s, t: s.market(SELL, 1.5, reduce_only=True),
            10: lambda s, t: s.market(SELL, 1),  # more than is left: not reducing
            11: lambda s, t: s.market(SELL, 0.5),  # exactly what is left, not even flagged
        }
    )
    engine = play(script, gate)
    assert engine.portfolio.is_flat(INSTRUMENT.id)
    (denied,) = script.events("OrderDenied")
    assert "TENGRI_RISK:KILLED" in denied.reason
    assert "no more risk" in denied.reason
    assert len(script.events("OrderCanceled")) == 1


def test_unknown_price_is_refused() -> None:
    other = Script({3: lambda s, t: s.market(BUY, 1)})
    gate = make_gate(max_order_notional=1e9, prices=("trades",))
    play(other, gate)
    assert "MISSING_REFERENCE_PRICE" in other.events("OrderDenied")[0].reason


def test_crossed_and_one_sided_quotes_are_refused() -> None:
    ticks = quotes(20)
    crossed = quotes(1, price=50_010.0, spread=-5.0)[0]
    data = [*ticks[:10]]
    data.append(type(crossed)(crossed.instrument_id, crossed.bid_price, crossed.ask_price, crossed.bid_size,
                              crossed.ask_size, START + 10 * STEP, START + 10 * STEP))  # fmt: skip
    data += ticks[11:]
    gate = make_gate(max_order_notional=1e9)
    script = Script({10: lambda s, t: s.limit(BUY, 1, 40_000), 12: lambda s, t: s.limit(BUY, 1, 40_000)})
    play(script, gate, data=data)
    (denied,) = script.events("OrderDenied")
    assert "crossed" in denied.reason
    assert gate.forwarded == 1


def test_prices_beyond_reason_are_no_quote() -> None:
    """Nautilus' "undefined" is the largest number that fits; it must not become a price."""
    gate = make_gate(max_position=100.0)
    undefined = Price.from_raw((1 << 127) - 1, 0)
    assert undefined.as_double() > 1e18

    def feed(bid: Price, ask: Price) -> Any:
        size = Quantity.from_int(1)

        def send(s: Script, t: Any) -> None:
            gate.handle_quote_tick(QuoteTick(INSTRUMENT.id, bid, ask, size, size, t.ts_event, t.ts_init))
            s.market(BUY, 1)

        return send

    one = Price.from_int(1)
    script = Script({4: feed(undefined, undefined), 6: feed(one, undefined), 8: lambda s, t: s.market(BUY, 1)})
    play(script, gate)
    reasons = [e.reason for e in script.events("OrderDenied")]
    assert len(reasons) == 2
    assert all("MISSING_REFERENCE_PRICE" in reason for reason in reasons)
    assert gate.state.position(NAME) == 1.0


def test_a_last_price_beyond_reason_is_none() -> None:
    gate = make_gate(max_position=100.0, prices=("trades",))
    undefined = Price.from_raw((1 << 127) - 1, 0)

    def send(s: Script, t: Any) -> None:
        size = Quantity.from_int(1)
        for price in (undefined, Price.from_int(50_000)):
            gate.handle_trade_tick(
                TradeTick(INSTRUMENT.id, price, size, AggressorSide.BUYER, TradeId("1"), t.ts_event, t.ts_init)
            )
            s.market(BUY, 1)

    script = Script({4: send})
    play(script, gate)
    assert sorted(script.statuses().values()) == ["DENIED", "FILLED"]


# -- lists, modifications, emulation, algorithms ----------------------------------------------------------------------


def bracket(s: Script, amount: float, **more: Any) -> None:
    orders = s.order_factory.bracket(
        s.instrument.id,
        BUY,
        s.qty(amount),
        tp_price=s.instrument.make_price(51_000),
        sl_trigger_price=s.instrument.make_price(49_000),
        **more,
    )
    s.submit_order_list(orders)


def test_a_bracket_is_denied_whole() -> None:
    gate = make_gate(max_order_notional=100_000.0)
    script = Script({5: lambda s, t: bracket(s, 4), 6: lambda s, t: bracket(s, 1)})
    engine = play(script, gate)
    denied = script.events("OrderDenied")
    assert len(denied) == 3
    assert all("MAX_ORDER_NOTIONAL" in event.reason for event in denied)
    assert gate.denied == {"MAX_ORDER_NOTIONAL": 3}
    statuses = [order.status_string() for order in engine.cache.orders()]
    assert statuses.count("DENIED") == 3
    assert statuses.count("FILLED") == 1
    assert "INITIALIZED" not in statuses


def linked(s: Script, kind: ContingencyType, side: OrderSide, names: list[str], price: float | None = None) -> None:
    """Orders of one unit each that name one another."""
    for name in names:
        head = (s.trader_id, s.id, s.instrument.id, ClientOrderId(name), side, s.qty(1))
        more = {
            "contingency_type": kind,
            "linked_order_ids": [ClientOrderId(other) for other in names if other != name],
        }
        if price is None:
            order: Any = MarketOrder(*head, UUID4(), s.clock.timestamp_ns(), **more)
        else:
            limit = s.instrument.make_price(price)
            order = LimitOrder(*head, limit, UUID4(), s.clock.timestamp_ns(), **more)
        s.submit_order(order)


def test_orders_that_shrink_each_other_share_nothing() -> None:
    # The simulator fills both of two OUO orders that can trade at the same moment.
    gate = make_gate(max_position=1.0)
    script = Script({3: lambda s, t: linked(s, ContingencyType.OUO, BUY, list("ABC"))})
    engine = play(script, gate)
    assert gate.denied == {"MAX_POSITION": 2}
    assert net(engine) == 1.0


def test_orders_that_shrink_each_other_do_not_turn_a_position_after_a_kill() -> None:
    gate = make_gate(max_position=1.0)
    script = Script(
        {
            3: lambda s, t: s.market(BUY, 1),
            5: lambda s, t: gate.kill("operator", "drill"),
            7: lambda s, t: linked(s, ContingencyType.OUO, SELL, [f"K{i}" for i in range(6)]),
        }
    )
    engine = play(script, gate)
    assert gate.denied == {"KILLED": 5}
    assert net(engine) == 0.0


@pytest.mark.parametrize(("mark", "denied"), [("|", 2), ("\x1f", 3)])
def test_names_cannot_forge_a_group(mark: str, denied: int) -> None:
    gate = make_gate(max_position=1.0)

    def send(s: Script, t: Any) -> None:
        linked(s, ContingencyType.OCO, BUY, [f"A{mark}B", "C"], 49_900)
        linked(s, ContingencyType.OCO, BUY, ["A", f"B{mark}C"], 49_900)

    play(Script({3: send}), gate)
    assert gate.denied == {"MAX_POSITION": denied}


def test_orders_that_cancel_each_other_share_a_group() -> None:
    gate = make_gate(max_order_notional=100_000.0)
    script = Script(
        {
            4: lambda s, t: linked(s, ContingencyType.OCO, BUY, ["B", "A"], 49_000),
            5: lambda s, t: bracket(s, 1),  # its exits are OUO
            6: lambda s, t: s.limit(BUY, 1, 49_500),
        }
    )
    play(script, gate)
    views = {view.client_order_id: view.exclusive_group for view in gate.state.working_orders()}
    assert len(views) == 5
    assert (views.pop("A"), views.pop("B")) == ("A\x1fB", "A\x1fB")
    assert set(views.values()) == {""}


def test_a_list_of_plain_orders_is_denied_whole() -> None:
    gate = make_gate(max_order_notional=100_000.0)

    def send(s: Script, t: Any) -> None:
        legs = [
            s.order_factory.limit(s.instrument.id, BUY, s.qty(size), s.instrument.make_price(49_000))
            for size in (0.5, 5.0, 0.5)
        ]
        s.submit_order_list(s.order_factory.create_list(legs))

    script = Script({5: send})
    play(script, gate)
    assert list(script.statuses().values()) == ["DENIED"] * 3


@pytest.mark.parametrize("entry_emulated", [True, False])
def test_a_bracket_with_emulated_legs_leaves_no_orphans(entry_emulated: bool) -> None:
    gate = make_gate(max_order_notional=100_000.0)
    more: dict[str, Any] = {"entry_order_type": 2, "entry_price": INSTRUMENT.make_price(50_500)}  # 2: LIMIT
    if entry_emulated:
        more["emulation_trigger"] = TriggerType.BID_ASK
    else:
        more["emulation_trigger"] = TriggerType.BID_ASK
        more["entry_order_type"] = 1  # MARKET orders are not emulated, only the exits are
        del more["entry_price"]
    script = Script({5: lambda s, t: bracket(s, 4, **more)})
    engine = play(script, gate)
    statuses = [order.status_string() for order in engine.cache.orders()]
    assert len(statuses) == 3
    assert "DENIED" in statuses
    assert set(statuses) <= {"DENIED", "CANCELED"}, statuses


def test_modification_is_checked() -> None:
    gate = make_gate(max_order_notional=100_000.0, price_collar_bps=300.0)

    def modify(quantity: float | None, price: float | None) -> Any:
        def send(s: Script, t: Any) -> None:
            s.modify_order(
                s.keep["order"],
                quantity=None if quantity is None else s.qty(quantity),
                price=None if price is None else s.instrument.make_price(price),
            )

        return send

    script = Script(
        {
            3: lambda s, t: s.keep.update(order=s.limit(BUY, 1, 49_000)),
            5: modify(3.0, None),
            7: modify(None, 40_000.0),
            9: modify(1.5, 49_100.0),
            11: modify(0.5, None),
        }
    )
    play(script, gate)
    rejected = script.events("OrderModifyRejected")
    assert [("MAX_ORDER_NOTIONAL" in e.reason, "PRICE_COLLAR" in e.reason) for e in rejected] == [
        (True, False),
        (False, True),
    ]
    assert "value=150000.15 limit=100000" in rejected[0].reason
    assert len(script.events("OrderUpdated")) == 2
    order = script.cache.order(script.keep["order"].client_order_id)
    assert order.quantity == Decimal("0.5")
    assert order.price == Decimal("49100.0")
    assert gate.state.working_orders()[0].quantity == 0.5
    assert gate.state.working_orders()[0].price == 49_100.0
    assert gate.modified == 4


def test_a_larger_quantity_counts_while_the_venue_has_not_answered() -> None:
    gate = make_gate(max_position=3.0)
    script = Script(
        {
            3: lambda s, t: s.keep.update(order=s.limit(BUY, 1, 49_000)),
            10: lambda s, t: (s.modify_order(s.keep["order"], quantity=s.qty(2.5)), s.market(BUY, 1)),
        }
    )
    play(script, gate, latency_ns=2 * STEP)
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=3.5 limit=3"]


def test_a_rejected_modification_gives_the_room_back() -> None:
    gate = make_gate(max_position=3.0)

    def fill_then_modify(s: Script, t: Any) -> None:
        s.modify_order(s.keep["order"], quantity=s.qty(2.5), price=s.instrument.make_price(48_000))

    script = Script(
        {
            3: lambda s, t: s.keep.update(order=s.limit(BUY, 1, 50_000)),
            # The market comes to 49,999 at quote 10; the modification is on its way then and arrives too late.
            9: fill_then_modify,
            20: lambda s, t: s.market(BUY, 2),
        }
    )
    data = quotes(10) + [tick for tick in quotes(60, price=49_999.0) if tick.ts_init >= START + 10 * STEP]
    play(script, gate, data=data, latency_ns=2 * STEP)
    assert script.events("OrderDenied") == []
    assert gate.state.position(NAME) == 3.0


def net(engine: Any) -> float:
    return float(sum(p.signed_qty for p in engine.cache.positions_open()))


def resting(s: Script, t: Any) -> None:
    s.keep["order"] = s.limit(BUY, 1, 49_900)


def resize(*sizes: float) -> Any:
    def send(s: Script, t: Any) -> None:
        for size in sizes:
            s.modify_order(s.keep["order"], quantity=s.qty(size))

    return send


def falling(at: int = 20) -> list[Any]:
    """The market comes down to the resting order."""
    return quotes(at) + [tick for tick in quotes(60, price=49_800.0) if tick.ts_init >= START + at * STEP]


def test_a_modification_that_the_gate_refuses_does_not_free_one_under_way() -> None:
    gate = make_gate(max_position=3.0)
    script = Script({3: resting, 10: lambda s, t: (resize(3, 100)(s, t), s.market(BUY, 2))})
    engine = play(script, gate, latency_ns=2 * STEP, data=falling())
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=5 limit=3"]
    assert len(script.events("OrderModifyRejected")) == 1
    assert net(engine) == gate.state.position(NAME) == 3.0


@pytest.mark.parametrize("latency", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("at", [12, 13])
def test_two_modifications_under_way_both_count(latency: float, at: int) -> None:
    gate = make_gate(max_position=5.0)
    script = Script({3: resting, 10: resize(2), 11: resize(4), at: lambda s, t: s.market(BUY, 2.5)})
    play(script, gate, latency_ns=int(latency * STEP))
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=6.5 limit=5"]
    assert [float(order.quantity) for order in script.cache.orders_open()] == [4.0]


def test_answered_modifications_give_their_room_back() -> None:
    gate = make_gate(max_position=5.0)
    script = Script(
        {
            3: resting,
            10: resize(4, 2),
            11: lambda s, t: s.market(BUY, 2),  # 4 may still come
            20: lambda s, t: s.market(BUY, 2),
            21: lambda s, t: s.keep.update(left=gate.state.working_orders()[0].quantity),
        }
    )
    engine = play(script, gate, latency_ns=2 * STEP)
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=6 limit=5"]
    assert net(engine) == 2.0
    assert script.keep["left"] == 2.0


def test_a_rejection_by_the_venue_gives_back_one_modification() -> None:
    gate = make_gate(max_position=5.0)

    def post(s: Script, t: Any) -> None:
        s.keep["order"] = s.limit(BUY, 1, 49_900, post_only=True)

    def modify(s: Script, t: Any) -> None:
        s.modify_order(s.keep["order"], quantity=s.qty(4), price=s.instrument.make_price(50_010))  # would take
        s.modify_order(s.keep["order"], quantity=s.qty(2))

    script = Script(
        {
            3: post,
            10: modify,
            11: lambda s, t: s.market(BUY, 2),
            20: lambda s, t: s.market(BUY, 3),
        }
    )
    engine = play(script, gate, latency_ns=2 * STEP)
    assert len(script.events("OrderModifyRejected")) == 1
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=6 limit=5"]
    assert net(engine) == 3.0


def test_a_rejection_by_the_risk_engine_frees_nothing() -> None:
    gate = make_gate(max_position=3.0)

    def act(s: Script, t: Any) -> None:
        resize(3)(s, t)
        resize(2_000)(s, t)  # above the instrument's maximum: Nautilus refuses it before it reaches the gate
        s.market(BUY, 2)

    script = Script({3: resting, 10: act})
    engine = play(script, gate, latency_ns=2 * STEP, data=falling())
    assert "maximum trade size" in script.events("OrderModifyRejected")[0].reason
    assert gate.modified == 1
    assert len(script.events("OrderDenied")) == 1
    assert net(engine) == 3.0


def test_a_rejection_by_an_inner_gate_concerns_that_modification_only() -> None:
    outer = make_gate(max_position=3.0)
    inner = NeuralRiskGate(RiskGateConfig(limits=RiskLimits(max_position=2.5), component_id="IN", kill_poll_ms=0))
    script = Script({3: resting, 10: resize(2), 11: resize(3), 12: resize(100), 13: lambda s, t: s.market(BUY, 1.5)})
    # The actor that starts last stands in front.
    engine = play(script, inner, outer, latency_ns=5 * STEP, data=falling(30))
    assert [gate.modified for gate in (outer, inner)] == [3, 2]
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=3.5 limit=3"]
    assert net(engine) == 2.0


def test_an_update_that_nobody_asked_for_frees_nothing() -> None:
    """A trailing stop is updated by every quote while the modification of its quantity is under way."""
    gate = make_gate(max_position=5.0)

    def trail(s: Script, t: Any) -> None:
        order = s.order_factory.trailing_stop_market(
            s.instrument.id,
            BUY,
            s.qty(1),
            trigger_price=s.instrument.make_price(50_050),
            trailing_offset=Decimal(50),
            trailing_offset_type=TrailingOffsetType.PRICE,
        )
        s.keep["order"] = order
        s.submit_order(order)

    script = Script({3: trail, 12: resize(4), 15: lambda s, t: s.market(BUY, 2)})
    play(script, gate, latency_ns=int(3.5 * STEP), data=quotes(40, drift=-1.0))
    updates = [event for event in script.events("OrderUpdated") if event.ts_event <= START + 15 * STEP]
    assert len(updates) > 3
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=6 limit=5"]


def test_a_price_under_way_counts_for_the_next_modification() -> None:
    gate = make_gate(max_order_notional=100_000.0)

    def act(s: Script, t: Any) -> None:
        s.modify_order(s.keep["order"], price=s.instrument.make_price(53_000))
        s.modify_order(s.keep["order"], quantity=s.qty(1.9))  # 95,000 at the mid, 100,700 at the price under way

    def stop(s: Script, t: Any) -> None:
        s.keep["order"] = s.order_factory.stop_limit(
            s.instrument.id, BUY, s.qty(1), s.instrument.make_price(52_000), s.instrument.make_price(51_000)
        )
        s.submit_order(s.keep["order"])

    script = Script({3: stop, 10: act})
    play(script, gate, latency_ns=2 * STEP)
    assert [e.reason for e in script.events("OrderModifyRejected")] == [
        "TENGRI_RISK:MAX_ORDER_NOTIONAL value=100700 limit=100000"
    ]


# -- quantities in money ----------------------------------------------------------------------------------------------


def spend(amount: float, price: float | None = None) -> Any:
    def send(s: Script, t: Any) -> None:
        if price is None:
            s.market(BUY, amount, quote_quantity=True)
        else:
            s.keep["order"] = s.limit(BUY, amount, price, quote_quantity=True)

    return send


def test_an_amount_of_money_is_converted_as_nautilus_does() -> None:
    gate = make_gate(max_order_notional=100_000.0)
    script = Script({3: spend(40_000), 5: spend(120_000)})
    engine = play(script, gate)
    assert sorted(script.statuses().values()) == ["DENIED", "FILLED"]
    assert script.events("OrderDenied")[0].reason.startswith("TENGRI_RISK:MAX_ORDER_NOTIONAL value=120000")
    assert net(engine) == gate.state.position(NAME) == 0.8
    assert gate.errors == 0


def test_working_money_counts_in_units() -> None:
    gate = make_gate(max_position=2.0)
    script = Script(
        {
            3: spend(49_000, 49_000),
            6: lambda s, t: s.keep.update(before=[o.quantity for o in gate.state.working_orders()]),
            7: lambda s, t: s.market(BUY, 1.1),
            8: lambda s, t: s.market(BUY, 1),
        }
    )
    play(script, gate, latency_ns=2 * STEP)
    assert script.keep["before"] == [1.0]
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=2.1 limit=2"]


def test_a_buy_above_the_market_may_get_more_for_its_money() -> None:
    gate = make_gate(max_position=1.0)
    script = Script({3: spend(60_000, 60_000)})
    play(script, gate)
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=1.2 limit=1"]


def test_money_without_a_price_is_refused() -> None:
    gate = make_gate(max_position=1.0, prices=("trades",))
    script = Script({3: spend(40_000)})
    play(script, gate)
    assert "NON_FINITE_QUANTITY" in script.events("OrderDenied")[0].reason


def test_contracts_of_an_inverse_instrument_are_money_already() -> None:
    inverse = TestInstrumentProvider.xbtusd_bitmex()
    gate = make_gate(max_position=1_000.0, base_currency="BTC")
    script = Script(
        {
            3: lambda s, t: s.market(BUY, 900, quote_quantity=True),
            5: lambda s, t: s.market(BUY, 200, quote_quantity=True),
        },
        instrument=inverse,
    )
    engine = play(script, gate, instrument=inverse, data=quotes(20, spread=0.5, instrument=inverse), currency="BTC")
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=1100 limit=1000"]
    assert net(engine) == gate.state.position(inverse.id.value) == 900.0


# -- reduce-only ------------------------------------------------------------------------------------------------------


def reduce(side: OrderSide, amount: float) -> Any:
    return lambda s, t: s.market(side, amount, reduce_only=True)


def test_a_reduce_only_order_larger_than_its_position_closes_it() -> None:
    gate = make_gate(max_order_notional=60_000.0)
    script = Script(
        {
            3: lambda s, t: s.market(BUY, 1),
            5: lambda s, t: gate.kill("test", "no more risk"),
            6: lambda s, t: s.market(SELL, 5),
            7: reduce(SELL, 5),
            9: reduce(SELL, 5),  # nothing is left: the venue's business
        }
    )
    engine = play(script, gate)
    (denied,) = script.events("OrderDenied")
    assert "KILLED" in denied.reason
    assert net(engine) == gate.state.position(NAME) == 0.0
    assert gate.state.working_orders() == []
    assert len(script.events("OrderRejected")) == 1
    assert "REDUCE_ONLY" in script.events("OrderRejected")[0].reason
    assert gate.errors == 0


def test_a_reduce_only_order_is_still_asked_about_its_integrity() -> None:
    gate = make_gate(max_order_notional=60_000.0, price_collar_bps=100.0)
    script = Script(
        {
            3: lambda s, t: s.market(BUY, 1),
            5: lambda s, t: s.limit(SELL, 5, 60_000, reduce_only=True),
            6: lambda s, t: s.limit(SELL, 5, 50_100, reduce_only=True),
        }
    )
    play(script, gate)
    (denied,) = script.events("OrderDenied")
    assert denied.reason.startswith("TENGRI_RISK:PRICE_COLLAR")
    assert sorted(script.statuses().values()) == ["ACCEPTED", "DENIED", "FILLED"]
    assert gate.denied == {"PRICE_COLLAR": 1}


def test_reduce_only_orders_beside_one_that_is_not_cut_are_examined() -> None:
    gate = make_gate(max_position=1.0, max_order_notional=60_000.0)
    script = Script(
        {
            3: lambda s, t: s.market(BUY, 1),
            4: lambda s, t: s.limit(SELL, 1, 50_100),
            5: lambda s, t: s.limit(SELL, 5, 50_200, reduce_only=True),  # cut to 1: it may come first, then -1
            6: lambda s, t: gate.kill("test", "no more risk"),
            7: lambda s, t: s.limit(SELL, 5, 50_200, reduce_only=True),
        }
    )
    play(script, gate)
    (denied,) = script.events("OrderDenied")
    assert denied.reason == "TENGRI_RISK:KILLED (test: no more risk)"


def test_exits_of_a_held_position_pass_as_a_list() -> None:
    gate = make_gate(max_order_notional=60_000.0, price_collar_bps=500.0)

    def exits(s: Script, amount: float, price: float) -> None:
        legs = [
            s.order_factory.limit(s.instrument.id, SELL, s.qty(amount), s.instrument.make_price(leg), reduce_only=True)
            for leg in (50_500, price)
        ]
        s.submit_order_list(s.order_factory.create_list(legs))

    script = Script(
        {
            3: lambda s, t: s.market(BUY, 1),
            5: lambda s, t: exits(s, 2, 51_000),
            7: lambda s, t: exits(s, 2, 60_000),  # one outside of the collar: neither passes
        }
    )
    play(script, gate)
    assert sorted(script.statuses().values()) == ["ACCEPTED"] * 2 + ["DENIED"] * 2 + ["FILLED"]
    assert all("PRICE_COLLAR" in e.reason for e in script.events("OrderDenied"))


def test_a_reduce_only_order_may_be_made_larger() -> None:
    gate = make_gate(max_order_notional=60_000.0, price_collar_bps=500.0)

    def rest(s: Script, t: Any) -> None:
        s.keep["order"] = s.limit(SELL, 1, 50_500, reduce_only=True)

    script = Script(
        {
            3: lambda s, t: s.market(BUY, 1),
            5: rest,
            6: resize(5),
            7: lambda s, t: s.modify_order(s.keep["order"], price=s.instrument.make_price(60_000)),
        }
    )
    play(script, gate)
    (rejected,) = script.events("OrderModifyRejected")
    assert rejected.reason.startswith("TENGRI_RISK:PRICE_COLLAR")
    (known,) = gate.state.working_orders()
    assert (known.quantity, known.price) == (5.0, 50_500.0)


def test_emulated_orders_meet_the_gate_at_their_release() -> None:
    gate = make_gate(max_order_notional=100_000.0)
    script = Script(
        {
            3: lambda s, t: s.limit(BUY, 4, 50_100, emulation_trigger=TriggerType.BID_ASK),
            6: lambda s, t: s.limit(BUY, 1, 50_100, emulation_trigger=TriggerType.BID_ASK),
        }
    )
    play(script, gate)
    names = [type(e).__name__ for e in script.seen]
    assert "OrderReleased" in names
    (denied,) = script.events("OrderDenied")
    assert "MAX_ORDER_NOTIONAL" in denied.reason
    assert sorted(script.statuses().values()) == ["DENIED", "FILLED"]


class Halves(ExecAlgorithm):
    """Sends half as a child and then the rest as the primary."""

    def __init__(self) -> None:
        super().__init__(ExecAlgorithmConfig(exec_algorithm_id=ExecAlgorithmId("HALVES")))

    def on_order(self, order: Any) -> None:
        child = self.spawn_market(order, INSTRUMENT.make_qty(order.quantity.as_decimal() / 2))
        self.submit_order(child)
        self.submit_order(order)


def test_algorithm_children_are_checked() -> None:
    gate = make_gate(max_order_notional=100_000.0)
    script = Script(
        {
            3: lambda s, t: s.market(BUY, 10, exec_algorithm_id=ExecAlgorithmId("HALVES")),
            6: lambda s, t: s.market(BUY, 2, exec_algorithm_id=ExecAlgorithmId("HALVES")),
        }
    )
    play(script, gate, Halves())
    assert sorted(script.statuses().values()) == ["DENIED", "DENIED", "FILLED", "FILLED"]
    assert gate.submitted == 4


def test_twap_children_are_checked() -> None:
    gate = make_gate(max_order_notional=100_000.0)

    def send(amount: float) -> Any:
        return lambda s, t: s.market(
            BUY,
            amount,
            exec_algorithm_id=ExecAlgorithmId("TWAP"),
            exec_algorithm_params={"horizon_secs": 4.0, "interval_secs": 2.0},
        )

    script = Script({3: send(2.0), 20: send(12.0)})
    play(script, gate, TWAPExecAlgorithm())
    assert len(script.events("OrderFilled")) == 2
    assert script.events("OrderDenied")
    assert all("MAX_ORDER_NOTIONAL" in event.reason for event in script.events("OrderDenied"))
    assert gate.state.position(NAME) == 2.0


# -- life -------------------------------------------------------------------------------------------------------------


def test_the_gate_stands_while_strategies_stop() -> None:
    gate = make_gate(max_order_notional=100_000.0)
    script = Script({}, on_end=lambda s: (s.market(BUY, 4), s.market(BUY, 1)))
    play(script, gate)
    assert gate.is_stopped
    assert gate.installed
    assert sorted(script.statuses().values()) == ["DENIED", "FILLED"]
    # The fill of a stopping strategy is followed as well.
    assert gate.state.position(NAME) == 1.0


def test_reset_and_rerun() -> None:
    gate = make_gate(max_order_notional=100_000.0)
    script = Script({5: lambda s, t: s.market(BUY, 4), 6: lambda s, t: s.market(BUY, 1)})
    engine = make_engine(gate, script)
    for _ in range(3):
        run(engine)
        assert sorted(script.statuses().values()) == ["DENIED", "FILLED"]
        assert gate.denied == {"MAX_ORDER_NOTIONAL": 1}
        assert (gate.submitted, gate.forwarded) == (2, 1)
        assert gate.state.position(NAME) == 1.0
        assert gate.installed
        engine.reset()
    engine.dispose()
    assert not gate.installed


def test_a_removed_gate_gives_the_endpoint_back() -> None:
    first = make_gate(max_order_notional=1.0)
    script = Script({5: lambda s, t: s.market(BUY, 1)})
    engine = make_engine(first, script)
    run(engine)
    assert list(script.statuses().values()) == ["DENIED"]
    engine.reset()
    engine.clear_actors()
    run(engine)
    assert list(script.statuses().values()) == ["FILLED"]
    engine.reset()
    second = NeuralRiskGate(RiskGateConfig(limits=RiskLimits(max_order_notional=2.0), component_id="SECOND"))
    engine.add_actor(second)
    run(engine)
    assert list(script.statuses().values()) == ["DENIED"]
    assert "limit=2" in script.events("OrderDenied")[0].reason


def test_two_gates_both_hold() -> None:
    wide = make_gate(max_order_notional=1e9)
    tight = NeuralRiskGate(RiskGateConfig(limits=RiskLimits(max_position=2.0), component_id="TIGHT", kill_poll_ms=0))
    script = Script({5: lambda s, t: s.market(BUY, 3), 6: lambda s, t: s.market(BUY, 1)})
    engine = make_engine(wide, tight, script)
    run(engine)
    assert sorted(script.statuses().values()) == ["DENIED", "FILLED"]
    assert wide.state.position(NAME) == tight.state.position(NAME) == 1.0
    # What the inner gate refuses does not stay in the outer one.
    assert wide.state.working_orders() == []
    assert tight.state.working_orders() == []


def test_an_importable_config_makes_the_same_gate() -> None:
    gate = make_gate(max_order_notional=100_000.0, instrument_ids=(INSTRUMENT.id,))
    importable = gate.to_importable_config()
    assert isinstance(importable, ImportableActorConfig)
    parsed = RiskGateConfig.parse(RiskGateConfig.json(gate.config))
    assert parsed.limits == gate.config.limits
    assert parsed.instrument_ids == (INSTRUMENT.id,)


def test_instruments_that_do_not_exist_stop_the_start() -> None:
    gate = make_gate(instrument_ids=(InstrumentId.from_str("NOPE.BINANCE"),))
    with pytest.raises(ConfigurationError, match=r"`instrument_ids` must be in the cache, was NOPE\.BINANCE"):
        run(make_engine(gate, Script({})))


# -- kill -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancel", [True, False])
def test_kill_from_another_thread(cancel: bool) -> None:
    gate = make_gate(max_order_notional=1e9, cancel_on_kill=cancel)

    def kill(s: Script, t: Any) -> None:
        worker = threading.Thread(target=gate.kill, args=("operator", "drill"))
        worker.start()
        worker.join()

    script = Script(
        {
            3: lambda s, t: s.market(BUY, 1),
            4: lambda s, t: s.limit(BUY, 1, 49_000),
            5: lambda s, t: s.limit(SELL, 1, 51_000, reduce_only=True),
            6: lambda s, t: s.limit(BUY, 1, 49_000, emulation_trigger=TriggerType.BID_ASK),
            8: kill,
            10: lambda s, t: s.market(BUY, 1),
            30: lambda s, t: gate.rearm("operator", "drill is over"),
            31: lambda s, t: s.market(BUY, 1),
        }
    )
    play(script, gate)
    statuses = list(script.statuses().values())
    assert statuses.count("CANCELED") == (2 if cancel else 0)
    assert statuses.count("FILLED") == 2
    assert statuses.count("DENIED") == 1
    # The protective order stays in any case.
    assert [o.is_reduce_only for o in script.cache.orders_open()] == ([True] if cancel else [False, True])
    assert not gate.killed


def test_allowing_trading_again_does_not_save_old_orders() -> None:
    gate = make_gate(max_order_notional=1e9)

    def blink(s: Script, t: Any) -> None:
        gate.kill("operator", "mistake")
        gate.rearm("operator", "was a mistake")

    script = Script({3: lambda s, t: s.limit(BUY, 1, 49_000), 6: blink, 8: lambda s, t: s.market(BUY, 1)})
    play(script, gate)
    assert sorted(script.statuses().values()) == ["CANCELED", "FILLED"]


def test_a_kill_cancels_an_order_under_modification_once() -> None:
    gate = make_gate(max_order_notional=1e9)
    script = Script(
        {
            3: lambda s, t: s.keep.update(order=s.limit(BUY, 1, 49_000)),
            10: lambda s, t: s.modify_order(s.keep["order"], quantity=s.qty(2)),
            11: lambda s, t: gate.kill("operator", "drill"),
        }
    )
    engine = play(script, gate, latency_ns=3 * STEP)
    assert list(script.statuses().values()) == ["CANCELED"]
    assert engine.kernel.exec_engine.command_count == 3  # submit, modify, cancel


def test_a_kill_before_the_start_holds() -> None:
    gate = make_gate(max_order_notional=1e9)
    gate.kill("file", "kill file is there")
    assert gate.killed
    script = Script({5: lambda s, t: s.market(BUY, 1)})
    engine = play(script, gate)
    assert "kill file is there" in script.events("OrderDenied")[0].reason
    engine.reset()
    run(engine)
    assert list(script.statuses().values()) == ["DENIED"]
    with pytest.raises(ConfigurationError, match="`reason` must say why"):
        gate.rearm("file", " ")
    with pytest.raises(ConfigurationError, match="`name` must be a kill switch that is on"):
        gate.rearm("other", "why")
    assert gate.killed


def test_the_timer_carries_out_a_kill_when_the_market_is_silent() -> None:
    gate = NeuralRiskGate(RiskGateConfig(limits=RiskLimits(max_order_notional=1e9), kill_poll_ms=100))
    script = Script({3: lambda s, t: s.limit(BUY, 1, 49_000)})
    # One quote, then nothing for half a minute but the clock.
    data = quotes(5) + [tick for tick in quotes(40) if tick.ts_init == START + 39 * STEP]
    engine = make_engine(gate, script, data=data)
    seen = []

    def kill(event: Any) -> None:
        gate.kill("clock", "test")

    original = script.on_start

    def on_start() -> None:
        original()
        script.clock.set_time_alert_ns("kill", START + 10 * STEP, kill)

    script.on_start = on_start  # type: ignore[method-assign]
    seen = script.seen
    run(engine)
    canceled = [event for event in seen if type(event).__name__ == "OrderCanceled"] or script.events("OrderCanceled")
    assert len(canceled) == 1
    assert canceled[0].ts_event <= START + 11 * STEP


# -- failures ---------------------------------------------------------------------------------------------------------


def explode(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("boom")


@pytest.mark.parametrize("how", ["equity", "price"])
def test_an_exception_inside_denies_and_alerts(how: str) -> None:
    gate = make_gate(max_order_notional=1e9)
    alerts: list[str] = []
    gate.alert = alerts.append

    def break_it(s: Script, t: Any) -> None:
        setattr(gate.state, "on_equity" if how == "equity" else "on_price", explode)

    script = Script(
        {
            3: break_it,
            5: lambda s, t: s.market(BUY, 1),
            7: lambda s, t: bracket(s, 1),
            9: lambda s, t: (delattr(gate.state, "on_equity" if how == "equity" else "on_price"), s.market(BUY, 1)),
        }
    )
    play(script, gate)
    assert [order for order in script.statuses().values()].count("DENIED") == 4
    assert [order for order in script.statuses().values()].count("FILLED") == 1
    assert all("TENGRI_RISK:INTERNAL_ERROR (RuntimeError: boom)" in e.reason for e in script.events("OrderDenied"))
    assert gate.errors == 2
    assert len([text for text in alerts if "boom" in text]) == 2


def test_a_failing_alert_does_not_let_an_order_through() -> None:
    gate = make_gate(max_order_notional=1e9)
    gate.alert = explode
    script = Script({3: lambda s, t: setattr(gate.state, "on_equity", explode), 5: lambda s, t: s.market(BUY, 1)})
    play(script, gate)
    assert list(script.statuses().values()) == ["DENIED"]


def test_an_exception_in_a_modification_rejects_it() -> None:
    gate = make_gate(max_order_notional=1e9)
    script = Script(
        {
            3: lambda s, t: s.keep.update(order=s.limit(BUY, 1, 49_000)),
            5: lambda s, t: setattr(gate.state, "on_equity", explode),
            6: lambda s, t: s.modify_order(s.keep["order"], quantity=s.qty(2)),
        }
    )
    play(script, gate)
    (event,) = script.events("OrderModifyRejected")
    assert "INTERNAL_ERROR" in event.reason
    assert list(script.statuses().values()) == ["ACCEPTED"]


def test_an_event_that_cannot_be_followed_is_made_good_before_the_next_check() -> None:
    gate = make_gate(max_position=2.0)
    script = Script(
        {
            3: lambda s, t: setattr(gate.state, "on_fill", explode),
            4: lambda s, t: s.market(BUY, 2),
            6: lambda s, t: delattr(gate.state, "on_fill"),
            7: lambda s, t: s.market(BUY, 1),
            8: lambda s, t: s.market(SELL, 1),
        }
    )
    play(script, gate)
    assert gate.errors == 1
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=3 limit=2"]
    assert gate.state.position(NAME) == 1.0


def test_commands_before_arming_are_refused() -> None:
    class Early(Script):
        pass

    gate = make_gate(max_order_notional=1e9)
    script = Early({5: lambda s, t: s.market(BUY, 1)})
    engine = make_engine(gate, script)
    # Without a start, the endpoint is the engine's own; after it, the gate's.
    assert not gate.installed
    assert not gate.armed
    run(engine)
    assert gate.armed


# -- value at risk and equity -----------------------------------------------------------------------------------------


def scenarios() -> ScenarioSet:
    rng = np.random.default_rng(7)
    return ScenarioSet((NAME,), rng.normal(0.0, 0.01, (1, 500)), 86_400_000_000_000)


def test_var_limit_is_a_fraction_of_equity() -> None:
    settings = VarSettings(base_currency="USDT")
    gate = make_gate(max_portfolio_var=0.01, var=settings)
    gate.load_scenarios(scenarios())
    script = Script({3: lambda s, t: s.market(BUY, 0.3), 6: lambda s, t: s.market(BUY, 3)})
    play(script, gate, balance=100_000)
    (denied,) = script.events("OrderDenied")
    assert denied.reason.startswith("TENGRI_RISK:MAX_PORTFOLIO_VAR value=")
    assert "limit=0.01" in denied.reason
    value = float(denied.reason.split("value=")[1].split()[0])
    losses = -3.3 * 50_000.05 * scenarios().returns[0].astype(float)
    expected = np.quantile(losses, 0.99, method="inverted_cdf")
    assert value == pytest.approx(expected / gate.equity(), rel=1e-6)


def test_without_scenarios_only_reducing_orders_pass() -> None:
    gate = make_gate(max_portfolio_var=0.01, var=VarSettings(base_currency="USDT"))
    script = Script({3: lambda s, t: s.market(BUY, 0.3)})
    play(script, gate)
    assert list(script.statuses().values()) == ["DENIED"]


def test_equity_is_that_of_nautilus() -> None:
    gate = make_gate(max_order_notional=1e9)
    seen: list[tuple[float, float]] = []

    def compare(s: Script, t: Any) -> None:
        (money,) = s.portfolio.equity(VENUE).values()
        seen.append((gate.equity(), money.as_double()))

    script = Script(
        {
            2: compare,
            3: lambda s, t: s.market(BUY, 2),
            10: compare,
            11: lambda s, t: s.market(SELL, 5),
            20: compare,
            21: lambda s, t: s.market(BUY, 3),
            30: compare,
        }
    )
    play(script, gate, data=quotes(40, drift=1.5))
    assert len({round(value, 4) for _, value in seen}) == 4
    for ours, theirs in seen:
        assert ours == pytest.approx(theirs, abs=1e-6)


# -- hedging ----------------------------------------------------------------------------------------------------------


def test_hedging_positions_are_told_apart() -> None:
    gate = make_gate(max_position=3.0)

    def close_long(s: Script, t: Any) -> None:
        (position,) = [p for p in s.cache.positions_open() if p.signed_qty > 0]
        s.market(SELL, 2, position_id=position.id)

    script = Script(
        {
            3: lambda s, t: s.market(BUY, 2),
            5: lambda s, t: s.market(SELL, 1),  # a second position: opens, does not close
            7: lambda s, t: gate.kill("test", "only reducing"),
            9: lambda s, t: s.market(SELL, 2),  # without a position id it would open a third one
            11: close_long,
        }
    )
    engine = play(script, gate, oms=OmsType.HEDGING)
    (denied,) = script.events("OrderDenied")
    assert "KILLED" in denied.reason
    assert [p.signed_qty for p in engine.cache.positions_open()] == [-1.0]
    assert gate.state.position(NAME) == -1.0
    assert len(gate.state.positions()) == 1


def test_exits_of_a_hedged_entry_belong_to_its_position() -> None:
    gate = make_gate(max_position=5.0)
    data = quotes(20) + [tick for tick in quotes(40, price=51_500.0) if tick.ts_init >= START + 20 * STEP]
    seen = []

    def look(s: Script, t: Any) -> None:
        (position,) = s.cache.positions_open()
        seen.extend(view.position_id == position.id.value for view in gate.state.working_orders())

    script = Script({3: lambda s, t: bracket(s, 5), 6: look, 8: lambda s, t: s.market(SELL, 10)})
    engine = play(script, gate, oms=OmsType.HEDGING, data=data)
    assert seen == [True, True]
    # Beside the target, which closes 5, a sale of 10 would leave -10.
    assert gate.denied == {"MAX_POSITION": 1}
    assert net(engine) == 0.0
    assert gate.state.working_orders() == []


@pytest.mark.parametrize("oms", [OmsType.NETTING, OmsType.HEDGING])
def test_positions_that_offset_each_other_do_not_make_room(oms: OmsType) -> None:
    gate = make_gate(max_position=6.0)
    nets = []

    def close(s: Script, t: Any) -> None:
        for position in s.cache.positions_open(strategy_id=s.id):
            s.market(SELL if position.signed_qty > 0 else BUY, abs(position.signed_qty), position_id=position.id)

    def look(s: Script, t: Any) -> None:
        nets.append(sum(position.signed_qty for position in s.cache.positions_open()))

    first: dict[int, Any] = {3: lambda s, t: s.market(BUY, 6), 7: close, 9: lambda s, t: s.market(BUY, 18), 15: close}
    second: dict[int, Any] = {5: lambda s, t: s.market(SELL, 12), 6: lambda s, t: s.market(SELL, 6), 11: close}
    first |= {at: look for at in (4, 8, 10, 12, 14, 16)}
    play(Script(first, tag="A"), gate, Script(second, tag="B"), oms=oms)
    assert nets == [6.0, -6.0, -6.0, 0.0, 0.0, 0.0]
    assert gate.denied == {"MAX_POSITION": 2}


def test_a_flip_leaves_the_right_position() -> None:
    for oms in (OmsType.NETTING, OmsType.HEDGING):
        gate = make_gate(max_position=10.0)
        script = Script(
            {
                3: lambda s, t: s.market(BUY, 2),
                6: lambda s, t: s.market(SELL, 5, position_id=s.cache.positions_open()[0].id),
            }
        )
        engine = play(script, gate, oms=oms)
        assert sum(p.signed_qty for p in engine.cache.positions_open()) == -3.0
        assert gate.state.position(NAME) == -3.0
        assert [p.quantity for p in gate.state.positions()] == [-3.0]


def test_a_gate_that_starts_late_knows_positions_and_orders() -> None:
    script = Script(
        {
            3: lambda s, t: s.market(BUY, 2),
            4: lambda s, t: s.limit(BUY, 1, 49_000),
            20: lambda s, t: s.market(BUY, 1),
            21: lambda s, t: s.market(SELL, 2),
        }
    )
    gate = make_gate(max_position=3.5)
    engine = make_engine(script)
    # A controller adds actors to a running system in the same way.
    original = script.on_quote_tick

    def late(tick: Any) -> None:
        if script.quote_count == 10:
            gate.register_base(
                portfolio=engine.portfolio, msgbus=engine.kernel.msgbus, cache=engine.cache, clock=script.clock
            )
            gate.start()
            assert gate.state.position(NAME) == 2.0
            assert [o.quantity for o in gate.state.working_orders()] == [1.0]
        original(tick)

    script.on_quote_tick = late  # type: ignore[method-assign]
    run(engine)
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=4 limit=3.5"]
    assert gate.state.position(NAME) == 0.0


# -- random walks through the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("oms", [OmsType.NETTING, OmsType.HEDGING])
def test_state_equals_the_cache_after_random_orders(seed: int, oms: OmsType) -> None:
    """After any mix of orders, modifications and cancels the gate's portfolio is what the cache holds."""
    rng = np.random.default_rng(seed)
    gate = make_gate(max_position=6.0, max_order_notional=250_000.0, price_collar_bps=500.0)
    checked = []
    hedging = oms == OmsType.HEDGING

    def act(s: Script, t: Any) -> None:
        choice = rng.integers(0, 7)
        side = BUY if rng.random() < 0.5 else SELL
        amount = float(rng.integers(1, 40)) / 10
        mid = 0.5 * (float(t.bid_price) + float(t.ask_price))
        if choice <= 1:
            s.market(side, amount)
        elif choice == 2:
            s.limit(side, amount, mid + float(rng.normal(0, 20)), time_in_force=TimeInForce.GTC)
        elif choice == 3 and (working := s.cache.orders_open()):
            order = working[int(rng.integers(len(working)))]
            for size in (amount, float(rng.integers(1, 80)) / 10)[: int(rng.integers(1, 3))]:
                s.modify_order(order, quantity=s.qty(size))
        elif choice == 4 and (working := s.cache.orders_open()):
            s.cancel_order(working[int(rng.integers(len(working)))])
        elif choice == 5 and (held := s.cache.positions_open()):
            position = held[int(rng.integers(len(held)))]
            s.market(SELL if position.signed_qty > 0 else BUY, float(position.quantity), position_id=position.id)
        elif choice == 6 and (held := s.cache.positions_open()):
            position = held[int(rng.integers(len(held)))]
            closing = SELL if position.signed_qty > 0 else BUY
            # With a position id, Nautilus' own risk engine refuses what is larger than the position.
            size = min(amount, float(position.quantity)) if hedging else 3 * amount
            s.market(closing, size, position_id=position.id if hedging else None, reduce_only=True)
        truth = sum(p.signed_qty for p in s.cache.positions_open())
        assert gate.state.position(NAME) == pytest.approx(truth, abs=1e-9)
        # Closing one side of a hedge always passes, so only netting keeps the net within the limit.
        assert hedging or abs(truth) <= 6.0 + 1e-9
        open_orders = {o.client_order_id.value: float(o.leaves_qty) for o in s.cache.orders_open()}
        known = {
            o.client_order_id: o.quantity - gate.state.filled_quantity(o.client_order_id)
            for o in gate.state.working_orders()
        }
        for name, leaves in open_orders.items():
            assert known[name] >= leaves - 1e-9
        checked.append(truth)

    data = [
        type(q)(q.instrument_id, INSTRUMENT.make_price(50_000 + walk), INSTRUMENT.make_price(50_000.1 + walk),
                q.bid_size, q.ask_size, q.ts_event, q.ts_init)
        for q, walk in zip(quotes(150), np.cumsum(rng.normal(0, 8, 150)).round(1), strict=True)
    ]  # fmt: skip
    script = Script(dict.fromkeys(range(2, 148), act))
    play(script, gate, data=data, oms=oms, latency_ns=int(rng.integers(0, 2)) * STEP, balance=10_000_000)
    assert len(set(checked)) > 5
    assert gate.errors == 0
    truth = sum(p.signed_qty for p in script.cache.positions_open())
    assert gate.state.position(NAME) == pytest.approx(truth, abs=1e-9)
    assert math.isfinite(gate.equity())
    assert gate.submitted == len(script.cache.orders())
