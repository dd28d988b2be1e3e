"""What the risk gate costs: per command over a bare endpoint, and in the whole submit path of NautilusTrader.

Groups
------
gate-command
    One ``SubmitOrder`` sent to ``ExecEngine.execute`` with nothing behind it: a bare Python handler, then the gate with
    plain limits (allowed and denied), then with value at risk over 1,000 scenarios. The portfolio is that of a running
    system: a position, working orders, a quote that moved since the last check.
gate-path
    One accepted limit order from ``Strategy.submit_order`` to the simulated exchange, without and with the gate.

The rows of a group alternate over several runs. pytest-benchmark's own figures are of the same call in one more run.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the gate stands in its submit path")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _measure import record
from gate_scene import INSTRUMENT, Script, make_engine, quotes, run
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.execution.messages import SubmitOrder
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import OrderSide

from tengri_fast.nautilus.gate import NeuralRiskGate, RiskGateConfig
from tengri_fast.risk import RiskLimits, ScenarioSet, VarSettings

COMMANDS = 1_200  # of each run, after WARM that are not counted
WARM = 200
RUNS = 4
KINDS = ("bare", "plain", "denied", "var")
NAME = INSTRUMENT.id.value
PLAIN = {"max_order_notional": 1e6, "max_position": 1e6, "price_collar_bps": 500.0}
_COMMANDS: dict[str, np.ndarray] = {}
_PATHS: dict[bool, np.ndarray] = {}


def _gate(kind: str) -> NeuralRiskGate | None:
    if kind == "bare":
        return None
    limits: dict[str, Any] = dict(PLAIN)
    var = None
    if kind == "denied":
        limits["max_order_notional"] = 1.0
    if kind == "var":
        limits["max_portfolio_var"] = 0.5
        var = VarSettings(base_currency="USDT")
    gate = NeuralRiskGate(RiskGateConfig(limits=RiskLimits(**limits), var=var, kill_poll_ms=0))
    if var is not None:
        returns = np.random.default_rng(1).normal(0.0, 0.01, (1, 1_000))
        gate.load_scenarios(ScenarioSet((NAME,), returns, var.horizon_ns))
    return gate


def _commands(script: Script, count: int) -> list[SubmitOrder]:
    made = []
    for i in range(count):
        order = script.order_factory.limit(
            INSTRUMENT.id, OrderSide.BUY, script.qty(0.1), INSTRUMENT.make_price(49_000 + i % 100)
        )
        made.append(SubmitOrder(script.trader_id, script.id, order, UUID4(), script.clock.timestamp_ns()))
    return made


def _moving(tick: QuoteTick) -> Iterator[QuoteTick]:
    """Quotes at the time of `tick` whose mid moves by one price increment, up and down."""
    step = INSTRUMENT.price_increment.as_double()
    bid, ask = tick.bid_price.as_double(), tick.ask_price.as_double()
    return itertools.cycle([
        QuoteTick(tick.instrument_id, INSTRUMENT.make_price(bid + up), INSTRUMENT.make_price(ask + up),
                  tick.bid_size, tick.ask_size, tick.ts_event, tick.ts_init)
        for up in (step, 0.0)
    ])  # fmt: skip


def _time_commands(kind: str, benchmark: Any = None) -> np.ndarray:
    """Nanoseconds per command at the endpoint, with nothing behind it; with `benchmark`, that does the timing."""
    gate = _gate(kind)
    out = np.empty(COMMANDS, np.int64)

    def measure(script: Script, tick: Any) -> None:
        bus = script.msgbus
        commands = iter(_commands(script, WARM + COMMANDS))
        moving = _moving(tick)
        sent: list[str] = []

        def prepare() -> tuple[tuple[str, SubmitOrder], dict[str, Any]]:
            if gate is not None:
                if len(sent) >= 8:
                    gate.state.on_order_closed(sent[-8])  # so that eight orders are working
                if kind != "denied":
                    gate.handle_quote_tick(next(moving))  # the check has news to take in
            command = next(commands)
            sent.append(command.order.client_order_id.value)
            return ("ExecEngine.execute", command), {}

        if benchmark is not None:
            benchmark.pedantic(bus.send, setup=prepare, warmup_rounds=WARM, rounds=COMMANDS)
            return
        for n in range(-WARM, COMMANDS):
            (endpoint, command), _ = prepare()
            start = time.perf_counter_ns()
            bus.send(endpoint, command)
            took = time.perf_counter_ns() - start
            if n >= 0:
                out[n] = took

    script = Script({3: lambda s, t: s.market(OrderSide.BUY, 1), 10: measure})
    engine = make_engine(*([gate] if gate is not None else []), script, data=quotes(20))
    if gate is None:
        # The bare row: what sending a command costs when nobody looks at it.
        def swallow(command: Any) -> None:
            return None

        def bare(s: Script, tick: Any) -> None:
            bus = s.msgbus
            bus.deregister("ExecEngine.execute", engine.kernel.exec_engine.execute)
            bus.register("ExecEngine.execute", swallow)
            measure(s, tick)

        script.actions[10] = bare
    else:
        _swallow_behind(gate, engine, script, measure)
    run(engine)
    engine.dispose()
    return out


def _swallow_behind(gate: NeuralRiskGate, engine: Any, script: Script, measure: Callable[[Script, Any], None]) -> None:
    """Let the gate forward into nothing: its endpoint is taken before the start, so that it stands behind the gate."""
    real = engine.kernel.exec_engine.execute
    bus = engine.kernel.msgbus
    swallow = {"on": False}

    def behind(command: Any) -> None:
        if not swallow["on"]:
            real(command)

    bus.deregister("ExecEngine.execute", real)
    bus.register("ExecEngine.execute", behind)

    def timed(s: Script, tick: Any) -> None:
        swallow["on"] = True
        measure(s, tick)
        swallow["on"] = False

    script.actions[10] = timed


def _alternate(measure: Callable[[Any], np.ndarray], kinds: tuple[Any, ...]) -> dict[Any, np.ndarray]:
    """All times by kind, from runs that alternate."""
    runs = [{kind: measure(kind) for kind in (*kinds[i:], *kinds[:i])} for i in (n % len(kinds) for n in range(RUNS))]
    return {kind: np.concatenate([found[kind] for found in runs]) for kind in kinds}


@pytest.mark.benchmark(group="gate-command")
@pytest.mark.parametrize("kind", KINDS)
def test_command(benchmark: Any, kind: str) -> None:
    if not _COMMANDS:
        _COMMANDS.update(_alternate(_time_commands, KINDS))
    _time_commands(kind, benchmark)
    bare = float(np.median(_COMMANDS["bare"]))
    record(
        benchmark,
        _COMMANDS[kind],
        baseline_ns=bare,
        over_bare_ns=round(float(np.median(_COMMANDS[kind])) - bare, 1),
        scenarios=1_000 if kind == "var" else 0,
    )


def _time_path(with_gate: bool, benchmark: Any = None) -> np.ndarray:
    """Nanoseconds per accepted limit order, submit to exchange; eight are sent, then all are canceled.

    With `benchmark`, that times one batch of eight.
    """
    out = []
    gate = [_gate("plain")] if with_gate else []

    def orders(script: Script) -> list[Any]:
        return [
            script.order_factory.limit(INSTRUMENT.id, OrderSide.BUY, script.qty(0.1), INSTRUMENT.make_price(49_000 + i))
            for i in range(8)
        ]

    def measure(script: Script, tick: Any) -> None:
        for order in orders(script):
            start = time.perf_counter_ns()
            script.submit_order(order)
            out.append(time.perf_counter_ns() - start)
        script.cancel_all_orders(INSTRUMENT.id)

    def let_benchmark(script: Script, tick: Any) -> None:
        batch = iter(orders(script))
        benchmark.pedantic(script.submit_order, setup=lambda: ((next(batch),), {}), rounds=8)
        script.cancel_all_orders(INSTRUMENT.id)

    script = Script(dict.fromkeys(range(5, 500, 3), measure))
    if benchmark is not None:
        script.actions[500] = let_benchmark
    engine = make_engine(*gate, script, data=quotes(510))
    run(engine)
    engine.dispose()
    return np.array(out[200:])


@pytest.mark.benchmark(group="gate-path")
@pytest.mark.parametrize("with_gate", [False, True], ids=["without", "with"])
def test_submit_path(benchmark: Any, with_gate: bool) -> None:
    if not _PATHS:
        _PATHS.update(_alternate(_time_path, (False, True)))
    _time_path(with_gate, benchmark)
    times, without = _PATHS[with_gate], _PATHS[False]
    record(
        benchmark,
        times,
        baseline_ns=float(np.median(without)),
        against={"without gate": float(without.min())} if with_gate else None,
        p10_ns=float(np.percentile(times, 10)),
    )
