"""Modifications in front of the gate: what is under way counts until the venue has answered."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

from gate_play import BUY, NAME, SELL, falling, make_gate, net, play, resize, resting
from gate_scene import START, STEP, Script, quotes
from nautilus_trader.model.enums import (
    TrailingOffsetType,
)

from tengri_fast.nautilus.gate import NeuralRiskGate, RiskGateConfig
from tengri_fast.risk import RiskLimits


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
