"""What the tests of the gate play: a gate with limits, orders that belong together, and a market that comes down."""

from __future__ import annotations

from typing import Any

from gate_scene import INSTRUMENT, START, STEP, Script, make_engine, quotes, run
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.model.enums import ContingencyType, OrderSide
from nautilus_trader.model.identifiers import ClientOrderId
from nautilus_trader.model.orders import LimitOrder, MarketOrder

from tengri_fast.nautilus.gate import NeuralRiskGate, RiskGateConfig
from tengri_fast.risk import RiskLimits

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
