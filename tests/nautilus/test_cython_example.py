"""The example package builds outside the tree, and its compiled strategy trades like the same strategy in Python."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")
pytest.importorskip("Cython")

from model_on_disk import write_model
from neural_scene import INSTRUMENT, backtest, market, register, run
from support import REPOSITORY

from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.runtime.engine import NeuralSignal
from tengri_fast.runtime.model_spec import load_bundle

pytestmark = pytest.mark.slow  # a compilation

EXAMPLE = REPOSITORY / "examples" / "cython_strategy"

# Compiled with the example, in the copy only: a cdef class with ordinary handlers of its own.
COUNTING = """

from nautilus_trader.model.data cimport QuoteTick, TradeTick


cdef class Counting(TengriNeuralStrategy):
    cdef readonly int quotes
    cdef readonly int trades
    cdef readonly int historical

    cpdef void on_start(self):
        pass

    cpdef void on_quote_tick(self, QuoteTick tick):
        self.quotes += 1

    cpdef void on_trade_tick(self, TradeTick tick):
        self.trades += 1

    cpdef void on_historical_data(self, data):
        self.historical += 1
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The example, built by its own setup.py in a copy, and imported from there."""
    folder = tmp_path_factory.mktemp("cython") / "cython_strategy"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("build", "*.so", "*.c", "__pycache__"))
    with (folder / "confident_strategy" / "strategy.pyx").open("a", encoding="utf-8") as source:
        source.write(COUNTING)
    # `python -c` and not `python setup.py`: the latter puts only the copy on the path, and tengri_fast may be in place.
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, runpy; sys.path.insert(0, {str(REPOSITORY)!r}); "
            "sys.argv = ['setup.py', '-q', 'build_ext', '--inplace']; runpy.run_path('setup.py', run_name='__main__')",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (module,) = (folder / "confident_strategy").glob("strategy.*.so")
    spec = importlib.util.spec_from_file_location("confident_strategy.strategy", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class ConfidentInPython(TengriNeuralStrategy):
    decisions = 0

    def on_signal(self, signal: Any) -> None:
        instrument_id = self.config.instrument_id
        held, wanted = self.position_side(instrument_id), signal.direction
        if signal.rung != 0 or self.order_in_flight(instrument_id):
            return
        if held == 0 and wanted != 0 and signal.confidence >= self.config.min_confidence:
            self.decisions += 1
            self.submit_intent(instrument_id, wanted)
        elif held * wanted < 0:
            self.decisions += 1
            self.submit_intent(instrument_id, 0)


def trades_of(kind: Any, bundle: Any) -> tuple[Any, list[tuple[int, str, str]], bytes]:
    config = TengriNeuralConfig(
        model="unused", instrument_id=INSTRUMENT.id, trade_size="0.010", min_confidence=0.7, record_signals=True
    )
    strategy = kind(config, bundle)
    engine = backtest(list(market(400)), strategy)
    run(engine)
    orders = sorted((o.init_event.ts_init, o.side.name, str(o.quantity)) for o in engine.cache.orders())
    values = strategy.signals()["value"].tobytes()
    engine.dispose()
    return strategy, orders, values


def test_it_trades_like_the_same_strategy_in_python(package: Any, tmp_path: Path) -> None:
    bundle = load_bundle(write_model(tmp_path, gain=8.0))
    compiled, orders, values = trades_of(package.ConfidentStrategy, bundle)
    python, expected_orders, expected_values = trades_of(ConfidentInPython, bundle)
    assert len(orders) >= 6
    assert orders == expected_orders
    assert values == expected_values
    assert compiled.decisions == python.decisions > 0


def test_it_is_a_compiled_class_on_the_bare_path(package: Any, tmp_path: Path) -> None:
    bundle = load_bundle(write_model(tmp_path))
    strategy = package.ConfidentStrategy(TengriNeuralConfig(model="unused", instrument_id=INSTRUMENT.id), bundle)
    assert isinstance(strategy, TengriNeuralStrategy)
    assert not hasattr(strategy, "__dict__"), "a cdef class has no instance dictionary"
    assert strategy.ordinary_handlers == ()
    assert np.isclose(strategy.config.min_confidence, 0.0)


def test_handlers_of_a_compiled_subclass_are_found_and_called(package: Any, tmp_path: Path) -> None:
    bundle = load_bundle(write_model(tmp_path))
    made = []
    for kind in (package.Counting, TengriNeuralStrategy):
        strategy = kind(TengriNeuralConfig(model="unused", instrument_id=INSTRUMENT.id, record_signals=True), bundle)
        register(strategy).start()
        for number, event in enumerate(market(60)):
            name = "quote" if hasattr(event, "bid_price") else "trade"
            history = "historical_" if number < 20 else ""
            getattr(strategy, f"handle_{history}{name}_tick")(event)
        made.append(strategy)
    counting, bare = made
    assert counting.ordinary_handlers == ("on_quote_tick", "on_trade_tick", "on_historical_data")
    assert counting.historical == 20
    assert counting.quotes + counting.trades == len(market(60)) - 20
    assert counting.trades == 15
    assert counting.engine.to_bytes() == bare.engine.to_bytes()
    assert len(bare.signals()["value"]) == counting.quotes


def test_signals_of_other_types_are_not_ours(package: Any, tmp_path: Path) -> None:
    bundle = load_bundle(write_model(tmp_path))
    strategy = package.ConfidentStrategy(TengriNeuralConfig(model="unused", instrument_id=INSTRUMENT.id), bundle)
    strategy.on_signal(object())
    assert strategy.decisions == 0
    with pytest.raises(TypeError, match="made by the engine"):
        NeuralSignal()
