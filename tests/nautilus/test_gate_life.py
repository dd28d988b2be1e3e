"""The gate through starts, resets, kills and failures."""

from __future__ import annotations

import threading
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

from gate_play import BUY, NAME, SELL, bracket, linked, make_gate, play, resize, resting
from gate_scene import INSTRUMENT, START, STEP, Script, make_engine, quotes, run
from nautilus_trader.config import ImportableActorConfig
from nautilus_trader.model.enums import (
    ContingencyType,
    TriggerType,
)
from nautilus_trader.model.identifiers import InstrumentId

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus import gate_orders
from tengri_fast.nautilus.gate import NeuralRiskGate, RiskGateConfig
from tengri_fast.nautilus.gate_pending import PendingModifications
from tengri_fast.risk import RiskLimits

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


def send_pair(s: Script, t: Any = None) -> None:
    """Two orders that cancel each other: reading such an order asks for the text that they share."""
    linked(s, ContingencyType.OCO, BUY, ["A", "B"], 49_000)


def test_an_exception_inside_denies_and_alerts(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = make_gate(max_order_notional=1e9)
    alerts: list[str] = []
    gate.alert = alerts.append
    script = Script(
        {
            3: lambda s, t: monkeypatch.setattr(gate_orders, "exclusive_group", explode),
            5: send_pair,
            7: lambda s, t: bracket(s, 1),
            9: lambda s, t: (monkeypatch.undo(), s.market(BUY, 1)),
        }
    )
    play(script, gate)
    assert list(script.statuses().values()).count("DENIED") == 5
    assert list(script.statuses().values()).count("FILLED") == 1
    assert all("TENGRI_RISK:INTERNAL_ERROR (RuntimeError: boom)" in e.reason for e in script.events("OrderDenied"))
    assert gate.errors == 3
    assert len([text for text in alerts if "boom" in text]) == 3


def test_a_failing_alert_does_not_let_an_order_through(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = make_gate(max_order_notional=1e9)
    gate.alert = explode
    monkeypatch.setattr(gate_orders, "exclusive_group", explode)
    script = Script({5: send_pair})
    play(script, gate)
    assert list(script.statuses().values()) == ["DENIED"] * 2


def test_an_exception_in_a_modification_rejects_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = make_gate(max_order_notional=1e9)
    script = Script(
        {
            3: send_pair,
            5: lambda s, t: monkeypatch.setattr(gate_orders, "exclusive_group", explode),
            6: lambda s, t: s.modify_order(s.cache.orders_open()[0], quantity=s.qty(2)),
        }
    )
    play(script, gate)
    (event,) = script.events("OrderModifyRejected")
    assert "INTERNAL_ERROR" in event.reason
    assert list(script.statuses().values()) == ["ACCEPTED"] * 2


def test_an_event_that_cannot_be_followed_is_made_good_before_the_next_check(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = make_gate(max_position=3.0)
    script = Script(
        {
            2: resting,
            3: resize(0.5),
            4: lambda s, t: monkeypatch.setattr(PendingModifications, "closed", explode),
            5: lambda s, t: s.market(BUY, 2),
            6: lambda s, t: monkeypatch.undo(),
            7: lambda s, t: s.market(BUY, 1),
            8: lambda s, t: s.market(SELL, 1),
        }
    )
    play(script, gate)
    assert gate.errors == 1
    assert [e.reason for e in script.events("OrderDenied")] == ["TENGRI_RISK:MAX_POSITION value=3.5 limit=3"]
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
