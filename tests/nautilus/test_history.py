"""Warm-up from history: past ticks feed the model as live ones would, and no signal is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")

from model_on_disk import FEATURES, write_model
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.objects import Money
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from nautilus_trader.persistence.config import DataCatalogConfig
from neural_scene import INSTRUMENT, VENUE, market, run

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus.config import TengriNeuralConfig
from tengri_fast.nautilus.strategy import TengriNeuralStrategy
from tengri_fast.runtime.model_spec import load_bundle

SPLIT = 400


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    assert any("trade" in feature for feature in FEATURES)  # so that two requests have to be joined
    return load_bundle(write_model(tmp_path_factory.mktemp("model"), gain=8.0))


def engine_of(catalog: Path | None) -> BacktestEngine:
    engine = BacktestEngine(
        BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True),
            catalogs=[DataCatalogConfig(path=str(catalog))] if catalog is not None else [],
        )
    )
    engine.add_venue(VENUE, OmsType.NETTING, AccountType.MARGIN, [Money(1_000_000, USDT)])
    engine.add_instrument(INSTRUMENT)
    return engine


def signals_of(bundle: Any, data: list[Any], catalog: Path | None = None, **settings: Any) -> dict[str, Any]:
    strategy = TengriNeuralStrategy(
        TengriNeuralConfig(model="unused", instrument_id=INSTRUMENT.id, record_signals=True, **settings), bundle=bundle
    )
    engine = engine_of(catalog)
    engine.add_data(data)
    engine.add_strategy(strategy)
    run(engine)
    found = strategy.signals()
    engine.dispose()
    return found


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    folder = tmp_path / "catalog"
    made = ParquetDataCatalog(str(folder))
    made.write_data([INSTRUMENT])
    made.write_data(market(800)[:SPLIT])
    return folder


def test_history_then_live_is_one_run_bit_for_bit(bundle: Any, catalog: Path) -> None:
    data = market(800)
    whole = signals_of(bundle, data)
    warmed = signals_of(bundle, data[SPLIT:], catalog, history="1d")
    cold = signals_of(bundle, data[SPLIT:])
    begin = data[SPLIT].ts_event
    later = whole["ts_event"] >= begin
    assert 100 < later.sum() < len(later)
    assert len(warmed["ts_event"]) == later.sum()  # and so none before: history makes no signal
    for name in ("ts_event", "mid", "p_down", "p_flat", "p_up", "value"):
        assert warmed[name].tobytes() == whole[name][later].tobytes(), name
    # The history is what made them equal: without it the first signals differ or are missing.
    assert len(cold["value"]) < len(warmed["value"]) or not np.array_equal(cold["value"], warmed["value"])


class Listener(TengriNeuralStrategy):
    def on_historical_data(self, data: Any) -> None:
        self.heard.append(data.ts_init)


def test_a_short_history_is_only_that_long_and_in_order(bundle: Any, catalog: Path) -> None:
    data = market(800)
    begin = data[SPLIT].ts_init
    strategy = Listener(TengriNeuralConfig(model="unused", instrument_id=INSTRUMENT.id, history="5s"), bundle=bundle)
    strategy.heard = []
    engine = engine_of(catalog)
    engine.add_data(data[SPLIT:])
    engine.add_strategy(strategy)
    run(engine)
    engine.dispose()
    assert strategy.heard == [tick.ts_init for tick in data[:SPLIT] if tick.ts_init >= begin - 5 * 10**9]
    assert len(strategy.heard) > 50


def test_no_catalog_and_no_client_means_live_data_only(bundle: Any) -> None:
    data = market(300)
    without = signals_of(bundle, data)
    asked = signals_of(bundle, data, history="30d", history_timeout="1s")
    assert asked["value"].tobytes() == without["value"].tobytes()


@pytest.mark.parametrize("field", ["history", "history_timeout"])
def test_durations_are_checked(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{field}` must be a duration"):
        TengriNeuralConfig(model="m", instrument_id=INSTRUMENT.id, **{field: "soon"})


def test_no_answer_in_time_goes_on_without() -> None:
    """The request object alone, on a strategy whose requests nobody answers."""
    from nautilus_trader.common.component import TestClock

    from tengri_fast.nautilus.history import HistoryRequest

    class Asker:
        def __init__(self) -> None:
            self.clock = TestClock()
            self.asked: list[str] = []
            self.callback: Any = None
            self.log = self

        def warning(self, text: str) -> None:
            self.asked.append(text)

        def __getattr__(self, name: str) -> Any:
            def method(*_args: Any, **keywords: Any) -> str:
                self.asked.append(name)
                self.callback = keywords.get("callback", self.callback)
                return name

            return method

    asker, begun = Asker(), []
    request = HistoryRequest(asker, 10**9, 5 * 10**9, None, lambda: begun.append(1))
    request.ask((INSTRUMENT.id,), ("trades", "quotes"), ())
    assert asker.asked == ["request_trade_ticks", "request_quote_ticks", "request_join"]
    assert request.waiting
    assert not begun
    for event in asker.clock.advance_time(4 * 10**9):
        event.handle()
    assert not begun
    for event in asker.clock.advance_time(6 * 10**9):
        event.handle()
    assert begun == [1]
    assert "No history within 5 s" in asker.asked[-1]
    asker.callback("late")  # an answer after that begins nothing twice
    assert begun == [1]
