"""The tick path inside NautilusTrader: reading a tick, tick to signal, and a whole backtest with and without us.

Rows of reading and of whole backtests alternate over several rounds; their ratios are those of the minima.

Reading: handlers are called as the message bus calls them, a Python call of a bound method with the tick, driven by
``deque(map(...))`` so that no interpreter loop is in the figure. The rival is a Python ``on_quote_tick`` that reads the
four fields with ``as_double()``. Our row reads the same, finds the instrument's slot and updates one cheap feature
(the handler cannot be run without a model; this one is on the trade clock, so quotes never step it).
"""

from __future__ import annotations

import functools
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="this is the tick path inside it")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _measure import interleaved, record
from model_on_disk import write_model
from nautilus_trader.trading.config import StrategyConfig
from nautilus_trader.trading.strategy import Strategy
from neural_scene import INSTRUMENT, backtest, market, quiet_pandas, register

from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.runtime.engine import clock_overhead_ns
from tengri_fast.runtime.model_spec import load_bundle

# What a tick model reads, in the spirit of the demo: ten columns over quotes and trades.
DEMO_FEATURES = (
    "mid_return(lag=5)",
    "spread()",
    "microprice_deviation()",
    "imbalance()",
    "order_flow_imbalance(window='1s')",
    "signed_trade_flow(window='1s')",
    "realized_volatility(window='10s')",
    "ema_difference(fast=12, slow=26)",
    "rsi(14)",
    "time_since_trade()",
)
TICKS = 20_000
NONE, EMPTY, RIVAL = "no strategy", "python, empty", "python, four fields as_double"
READS = (RIVAL, EMPTY, "ours", "floor: empty function")
BACKTESTS = (NONE, EMPTY, RIVAL, "ours, LSTM 2x64")
READ_ROUNDS, BACKTEST_ROUNDS = 40, 10
_READS: dict[str, np.ndarray] = {}
_BACKTESTS: dict[str, np.ndarray] = {}


class PythonReads(Strategy):
    """What one writes without us."""

    def on_start(self) -> None:
        self.subscribe_quote_ticks(INSTRUMENT.id)
        self.subscribe_trade_ticks(INSTRUMENT.id)

    def on_trade_tick(self, tick: Any) -> None:
        pass

    def on_quote_tick(self, tick: Any) -> None:
        self.last = (
            tick.bid_price.as_double(),
            tick.ask_price.as_double(),
            tick.bid_size.as_double(),
            tick.ask_size.as_double(),
        )


class PythonEmpty(Strategy):
    """What Nautilus' own route costs before any work is done."""

    def on_start(self) -> None:
        self.subscribe_quote_ticks(INSTRUMENT.id)
        self.subscribe_trade_ticks(INSTRUMENT.id)

    def on_trade_tick(self, tick: Any) -> None:
        pass

    def on_quote_tick(self, tick: Any) -> None:
        pass


@pytest.fixture(scope="module")
def quotes() -> list[Any]:
    return [e for e in market(TICKS) if hasattr(e, "bid_price")]


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_bundle(write_model(tmp_path_factory.mktemp("light"), features=("spread()",), clock="trade"))


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_bundle(write_model(tmp_path_factory.mktemp("lstm"), features=DEMO_FEATURES, hidden=64, layers=2))


def neural(bundle: Any, **config: Any) -> TengriNeuralStrategy:
    return TengriNeuralStrategy(TengriNeuralConfig(model="unused", instrument_id=INSTRUMENT.id, **config), bundle)


def no_handler(tick: Any) -> None:
    """The floor: a Python call that does nothing."""


@pytest.fixture(scope="module")
def drives(quotes: list[Any], light: Any) -> dict[str, Callable[[], None]]:
    """Every quote through the handler of each row."""

    def drive(handler: Any) -> None:
        deque(map(handler, quotes), maxlen=0)

    handlers: dict[str, Any] = {"floor: empty function": no_handler}
    for way, strategy in ((RIVAL, PythonReads(StrategyConfig())), (EMPTY, PythonEmpty(StrategyConfig())),
                          ("ours", neural(light))):  # fmt: skip
        register(strategy).start()
        handlers[way] = strategy.handle_quote_tick
    return {way: functools.partial(drive, handler) for way, handler in handlers.items()}


def timed(function: Callable[[], None]) -> float:
    start = time.perf_counter_ns()
    function()
    return time.perf_counter_ns() - start


@pytest.mark.benchmark(group="nautilus: one quote through a handler")
@pytest.mark.parametrize("way", READS)
def test_read(benchmark: Any, quotes: list[Any], drives: dict[str, Callable[[], None]], way: str) -> None:
    if not _READS:
        for drive in drives.values():
            drive()
        _READS.update(interleaved({w: functools.partial(timed, drives[w]) for w in READS}, READ_ROUNDS))
    benchmark.pedantic(drives[way], rounds=5)
    count = len(quotes)
    record(
        benchmark,
        _READS[way],
        calls=count,
        baseline_ns=float(np.median(_READS[RIVAL])) / count,
        against={w: float(_READS[w].min()) / count for w in (RIVAL, EMPTY) if w != way and not way.startswith("floor")},
        way=way,
        rounds=READ_ROUNDS,
        unit="ns per tick, percentiles over rounds",
    )


@pytest.mark.benchmark(group="nautilus: tick to signal, 10 features + LSTM 2x64 fp32")
@pytest.mark.parametrize("pace", ["back to back", "spaced 50 us", "after idle 2 ms", "floor: two clock reads"])
def test_tick_to_signal(benchmark: Any, lstm: Any, pace: str) -> None:
    stream = market(TICKS)
    if pace.startswith("floor"):
        benchmark.pedantic(clock_overhead_ns, rounds=3, iterations=1)
        record(benchmark, [clock_overhead_ns() for _ in range(25)], pace=pace)
        return
    strategy: Any = neural(lstm, record_signals=True, stamp_latency=True)
    register(strategy).start()
    on_quote, on_trade = strategy.handle_quote_tick, strategy.handle_trade_tick
    if pace == "after idle 2 ms":
        stream = stream[:2_600]

    def drive() -> None:
        for event in stream:
            (on_quote if hasattr(event, "bid_price") else on_trade)(event)
            if pace == "spaced 50 us":
                until = time.perf_counter_ns() + 50_000
                while time.perf_counter_ns() < until:
                    pass
            elif pace == "after idle 2 ms":
                time.sleep(0.002)

    benchmark.pedantic(drive, rounds=1, iterations=1)
    latency = strategy.signals()["latency_ns"][200:]
    assert len(latency) > 1_000
    record(benchmark, latency, pace=pace, features=len(DEMO_FEATURES), model="LSTM 2x64", dtype="fp32")


@pytest.mark.benchmark(group="nautilus: whole backtest, 20,000 quotes and 6,666 trades, per event")
@pytest.mark.parametrize("who", BACKTESTS)
def test_backtest(benchmark: Any, lstm: Any, who: str) -> None:
    data = market(TICKS)
    strategies: dict[str, Callable[[], list[Any]]] = {
        NONE: list,
        EMPTY: lambda: [PythonEmpty(StrategyConfig())],
        RIVAL: lambda: [PythonReads(StrategyConfig())],
        "ours, LSTM 2x64": lambda: [neural(lstm)],
    }

    def engine(name: str) -> Any:
        return backtest(list(data), *strategies[name]())

    def drive(made: Any) -> None:
        with quiet_pandas():
            made.run()

    def measure(name: str) -> float:
        made = engine(name)
        took = timed(lambda: drive(made))
        made.dispose()
        return took

    if not _BACKTESTS:
        measure("ours, LSTM 2x64")
        _BACKTESTS.update(interleaved({w: functools.partial(measure, w) for w in BACKTESTS}, BACKTEST_ROUNDS))
    benchmark.pedantic(drive, setup=lambda: ((engine(who),), {}), teardown=lambda made: made.dispose(), rounds=3)
    record(
        benchmark,
        _BACKTESTS[who],
        calls=len(data),
        baseline_ns=float(np.median(_BACKTESTS[NONE])) / len(data),
        against={w: float(_BACKTESTS[w].min()) / len(data) for w in (NONE, RIVAL) if w != who},
        who=who,
        rounds=BACKTEST_ROUNDS,
        unit="ns per event, percentiles over rounds",
    )
