"""A whole backtest: without a strategy, with the neural one, and with plain Python strategies that only read.

Every row replays the same sample of Binance quotes and trades; the rows alternate over several rounds. The figure is
nanoseconds per event of ``run()``: making the tick objects is in it, reading the files and numba's start-up are not.
The overhead of the neural strategy is the ratio of its fastest run to the fastest without any (``min_over`` "none");
the fair rival is the Python strategy that subscribes to the same data and reads four fields of each quote.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the backtests are those of NautilusTrader")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _measure import REPOSITORY, interleaved, record
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.trading.strategy import Strategy

from tengri_fast.nautilus.backtest import assemble
from tengri_fast.runtime.config import TengriConfig, load_config

ROUNDS = 15
NONE, RIVAL = "none", "python reads four fields"
KINDS = (NONE, "python empty", RIVAL, "neural", "neural+gate")
_TIMES: dict[str, np.ndarray] = {}


class Empty(Strategy):
    """Subscribes to quotes and trades and does nothing."""

    def __init__(self) -> None:
        super().__init__(StrategyConfig(strategy_id="Empty-001"))
        self.instrument_id = InstrumentId.from_str("BTCUSDT-PERP.BINANCE")

    def on_start(self) -> None:
        self.subscribe_quote_ticks(self.instrument_id)
        self.subscribe_trade_ticks(self.instrument_id)

    def on_quote_tick(self, tick: Any) -> None:
        return None

    def on_trade_tick(self, tick: Any) -> None:
        return None


class Reads(Empty):
    """Reads four fields the way a Python strategy does, and computes nothing."""

    def on_quote_tick(self, tick: Any) -> None:
        tick.bid_price.as_double()
        tick.ask_price.as_double()
        tick.bid_size.as_double()
        tick.ask_size.as_double()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TengriConfig:
    model = REPOSITORY / "models" / "lstm_btcusdt" / "model.toml"
    if not model.exists():
        from model_on_disk import write_model

        model = write_model(tmp_path_factory.mktemp("model"), hidden=64, layers=2)
    return load_config(
        REPOSITORY / "examples" / "demo_btcusdt.toml",
        # The cost of the machinery, not of orders: the threshold lets none through.
        [f'neural.models[0].config="{Path(model)}"', "policy.threshold_bps=1000", "backtest.control_drill=false"],
    )


@pytest.fixture(scope="module")
def data(config: TengriConfig) -> Any:
    """The sample, read once; every import and numba's compiled functions are loaded on the way."""
    first = assemble(config, strategy="none", gate=False)
    data = first.data
    first.dispose()
    _one(config, "neural+gate", data)
    return data


def _assembly(config: TengriConfig, kind: str, data: Any) -> Any:
    python = {"python empty": Empty, RIVAL: Reads}
    strategy: Any = python[kind]() if kind in python else kind.partition("+")[0]
    return assemble(config, strategy=strategy, gate=kind.endswith("+gate"), data=data)


def _one(config: TengriConfig, kind: str, data: Any) -> float:
    """Nanoseconds per event of one run."""
    made = _assembly(config, kind, data)
    start = time.perf_counter_ns()
    made.run()
    took = time.perf_counter_ns() - start
    made.dispose()
    return took / len(data)


@pytest.mark.benchmark(group="backtest: the demo's sample, per event")
@pytest.mark.parametrize("kind", KINDS)
def test_whole_backtest(benchmark: Any, config: TengriConfig, data: Any, kind: str) -> None:
    if not _TIMES:
        _TIMES.update(interleaved({k: functools.partial(_one, config, k, data) for k in KINDS}, ROUNDS))
    benchmark.pedantic(
        lambda made: made.run(),
        setup=lambda: ((_assembly(config, kind, data),), {}),
        teardown=lambda made: made.dispose(),
        rounds=3,
    )
    record(
        benchmark,
        _TIMES[kind],
        baseline_ns=float(np.median(_TIMES[NONE])),
        against={k: float(_TIMES[k].min()) for k in (NONE, RIVAL) if k != kind},
        unit="ns per event, percentiles over rounds",
        events=len(data),
        rounds=ROUNDS,
    )
