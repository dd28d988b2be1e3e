"""What the risk gate costs: per command over a bare endpoint, per quote, and in the submit path of NautilusTrader.

Groups
------
gate-command
    One ``SubmitOrder`` sent to ``ExecEngine.execute`` with nothing behind it: a bare Python handler, then the gate with
    three plain limits (allowed, and denied), with ten, and with value at risk and expected shortfall besides, over
    1,000 scenarios of 500 instruments that are all held. The portfolio is that of a running system: positions, eight
    working orders, a quote that moved since the last check.
gate-quote
    One quote through the gate's handler: of an instrument that is held, and of one that is not.
gate-path
    One order from ``Strategy.submit_order`` to the simulated exchange and back, without and with the gate: limit orders
    that are accepted, market orders that fill.

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
from nautilus_trader.model.instruments import CryptoPerpetual

from tengri_fast.nautilus.gate import NeuralRiskGate, RiskGateConfig
from tengri_fast.risk import RiskLimits, ScenarioSet, VarSettings

COMMANDS = 1_200  # of each run, after WARM that are not counted
WARM = 200
RUNS = 4
PATH_RUNS = 10
QUOTES = 20_000
HELD = 500
SCENARIOS = 1_000
KINDS = ("bare", "plain", "denied", "ten", "var")
PATHS = ("limit", "market")
NAME = INSTRUMENT.id.value
PLAIN = {"max_order_notional": 1e6, "max_position": 1e6, "price_collar_bps": 500.0}
TEN = PLAIN | {
    "max_order_quantity": 1e6, "stale_quote": "1h", "max_spread_bps": 100.0, "max_order_rate": "100000/1s",
    "max_gross_exposure": 1e12, "max_net_exposure": 1e12, "max_leverage": 1e6,
}  # fmt: skip
TAIL = {"max_portfolio_var": 1e6, "max_portfolio_es": 1e6}
_COMMANDS: dict[str, np.ndarray] = {}
_QUOTES: dict[str, np.ndarray] = {}
_PATHS: dict[tuple[str, bool], np.ndarray] = {}


def _others(count: int) -> list[CryptoPerpetual]:
    """More instruments like the first."""
    made = []
    for i in range(count):
        values = CryptoPerpetual.to_dict(INSTRUMENT)
        made.append(CryptoPerpetual.from_dict(values | {"id": f"COIN{i}-PERP.BINANCE", "raw_symbol": f"COIN{i}"}))
    return made


def _gate(kind: str) -> NeuralRiskGate | None:
    if kind == "bare":
        return None
    limits: dict[str, Any] = dict(TEN if kind in ("ten", "var") else PLAIN)
    var = None
    if kind == "denied":
        limits["max_order_notional"] = 1.0
    if kind == "var":
        limits |= TAIL
        var = VarSettings(base_currency="USDT")
    gate = NeuralRiskGate(RiskGateConfig(limits=RiskLimits(**limits), var=var, kill_poll_ms=0))
    if var is not None:
        names = (NAME, *(other.id.value for other in _others(HELD - 1)))
        returns = np.random.default_rng(1).normal(0.0, 0.01, (HELD, SCENARIOS))
        gate.load_scenarios(ScenarioSet(names, returns, var.horizon_ns))
    return gate


def _hold_all(gate: NeuralRiskGate, tick: QuoteTick) -> None:
    """Price and hold every other instrument."""
    for i, other in enumerate(_others(HELD - 1)):
        gate.handle_quote_tick(
            QuoteTick(other.id, tick.bid_price, tick.ask_price, tick.bid_size, tick.ask_size,
                      tick.ts_event, tick.ts_init)
        )  # fmt: skip
        gate.state.set_position(other.id.value, 0.1 if i % 2 else -0.1, position_id=f"P-{i}", strategy_id="OTHER")


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
        if kind == "var":
            assert gate is not None
            _hold_all(gate, tick)
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
    if kind == "var":
        for other in _others(HELD - 1):
            engine.add_instrument(other)
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


def _alternate(
    measure: Callable[[Any], np.ndarray], kinds: tuple[Any, ...], count: int = RUNS
) -> dict[Any, np.ndarray]:
    """All times by kind, from runs that alternate."""
    runs = [{kind: measure(kind) for kind in (*kinds[i:], *kinds[:i])} for i in (n % len(kinds) for n in range(count))]
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
        scenarios=SCENARIOS if kind == "var" else 0,
        instruments=HELD if kind == "var" else 1,
    )


def _time_quotes(kind: str, benchmark: Any = None) -> np.ndarray:
    """Nanoseconds per quote through the handler, in blocks of 100 so that the clock does not count."""
    gate = _gate("plain")
    out = np.empty(QUOTES // 100)

    def measure(script: Script, tick: QuoteTick) -> None:
        assert gate is not None
        handle = gate.handle_quote_tick
        ticks = [tick for tick, _ in zip(_moving(tick), range(100), strict=False)]
        if benchmark is not None:
            benchmark.pedantic(handle, args=(ticks[0],), rounds=1_000, warmup_rounds=100)
            return
        for n in range(len(out)):
            start = time.perf_counter_ns()
            for each in ticks:
                handle(each)
            out[n] = (time.perf_counter_ns() - start) / 100

    first = {3: lambda s, t: s.market(OrderSide.BUY, 1)} if kind == "held" else {}
    engine = make_engine(gate, Script(first | {10: measure}), data=quotes(20))
    run(engine)
    engine.dispose()
    return out


@pytest.mark.benchmark(group="gate-quote")
@pytest.mark.parametrize("kind", ["flat", "held"])
def test_quote(benchmark: Any, kind: str) -> None:
    if not _QUOTES:
        _QUOTES.update(_alternate(_time_quotes, ("flat", "held")))
    _time_quotes(kind, benchmark)
    record(benchmark, _QUOTES[kind])


def _time_path(row: tuple[str, bool], benchmark: Any = None) -> np.ndarray:
    """Nanoseconds per order from the strategy to the exchange and back.

    Limit orders: eight are sent, then all are canceled. Market orders: one buys, the next sells, beside a position that
    stays, because to open and close one costs the engine many times an order. With `benchmark`, that times eight more.
    """
    kind, with_gate = row
    out = []
    gate = [_gate("plain")] if with_gate else []

    def orders(script: Script) -> list[Any]:
        if kind == "market":
            sides = (OrderSide.BUY, OrderSide.SELL) * 4
            return [script.order_factory.market(INSTRUMENT.id, side, script.qty(0.1)) for side in sides]
        return [
            script.order_factory.limit(INSTRUMENT.id, OrderSide.BUY, script.qty(0.1), INSTRUMENT.make_price(49_000 + i))
            for i in range(8)
        ]

    def measure(script: Script, tick: Any) -> None:
        for order in orders(script):
            start = time.perf_counter_ns()
            script.submit_order(order)
            out.append(time.perf_counter_ns() - start)
        if kind == "limit":
            script.cancel_all_orders(INSTRUMENT.id)

    def let_benchmark(script: Script, tick: Any) -> None:
        batch = iter(orders(script))
        benchmark.pedantic(script.submit_order, setup=lambda: ((next(batch),), {}), rounds=8)
        script.cancel_all_orders(INSTRUMENT.id)

    count = 160 if kind == "limit" else 50
    script = Script({3: lambda s, t: s.market(OrderSide.BUY, 5)} | dict.fromkeys(range(5, 3 * count, 3), measure))
    if benchmark is not None:
        script.actions[3 * count] = let_benchmark
    engine = make_engine(*gate, script, data=quotes(3 * count + 10))
    run(engine)
    engine.dispose()
    return np.array(out[len(out) // 6 :])


@pytest.mark.benchmark(group="gate-path")
@pytest.mark.parametrize("with_gate", [False, True], ids=["without", "with"])
@pytest.mark.parametrize("kind", PATHS)
def test_submit_path(benchmark: Any, kind: str, with_gate: bool) -> None:
    if not _PATHS:
        _PATHS.update(_alternate(_time_path, tuple((k, w) for k in PATHS for w in (False, True)), PATH_RUNS))
    _time_path((kind, with_gate), benchmark)
    times, without = _PATHS[kind, with_gate], _PATHS[kind, False]
    record(
        benchmark,
        times,
        baseline_ns=float(np.median(without)),
        against={"without gate": float(without.min())} if with_gate else None,
        p10_ns=float(np.percentile(times, 10)),
        p10_over_without=round(float(np.percentile(times, 10) / np.percentile(without, 10)), 4),
    )
