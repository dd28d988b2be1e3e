"""The gate inside a real NautilusTrader engine: plain orders, lists, emulation and algorithms."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

from gate_play import BUY, NAME, SELL, bracket, linked, make_gate, net, play
from gate_scene import INSTRUMENT, START, STEP, Script, make_engine, quotes, run
from nautilus_trader.config import ExecAlgorithmConfig
from nautilus_trader.examples.algorithms.twap import TWAPExecAlgorithm
from nautilus_trader.execution.algorithm import ExecAlgorithm
from nautilus_trader.model.data import QuoteTick, TradeTick
from nautilus_trader.model.enums import (
    AggressorSide,
    ContingencyType,
    TriggerType,
)
from nautilus_trader.model.identifiers import ExecAlgorithmId, TradeId
from nautilus_trader.model.objects import Price, Quantity

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
