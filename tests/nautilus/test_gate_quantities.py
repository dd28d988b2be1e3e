"""Orders for an amount of money, and orders that only reduce."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

from gate_play import BUY, NAME, SELL, make_gate, net, play
from gate_scene import STEP, Script, quotes
from nautilus_trader.model.enums import (
    OrderSide,
)
from nautilus_trader.test_kit.providers import TestInstrumentProvider

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
