"""Positions, equity and value at risk as the gate sees them, against the cache of a real engine."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

import numpy as np
from gate_play import BUY, NAME, SELL, bracket, make_gate, net, play
from gate_scene import INSTRUMENT, START, STEP, VENUE, Script, make_engine, quotes, run
from nautilus_trader.model.enums import (
    OmsType,
    TimeInForce,
)

from tengri_fast.risk import ScenarioSet, VarSettings

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
