"""One set of feature rows: a strategy on Nautilus ticks and research on the file they came from, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from support import sample_data, shared_data

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")

from neural_scene import register

from tengri_fast.market import DepthColumns, read_depth, read_quotes, read_trades
from tengri_fast.market.contracts import contract
from tengri_fast.models import model_path
from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.nautilus.loaders import MarketData, instrument_from_contract
from tengri_fast.runtime.model_spec import load_bundle


class Keeper(TengriNeuralStrategy):
    """Keeps the raw feature row and the probabilities of every signal."""

    def __init__(self, config, bundle):
        super().__init__(config, bundle)
        self.rows, self.answers, self.times = [], [], []

    def on_signal(self, signal):
        self.rows.append(self.engine.feature_row(signal.slot))
        self.answers.append(signal.probabilities)
        self.times.append(signal.ts_event)


def live(name, row, quotes=None, trades=None, depth=None):
    instrument = instrument_from_contract(contract(row))
    bundle = load_bundle(model_path(name))
    strategy = Keeper(TengriNeuralConfig(model="unused", instrument_id=instrument.id), bundle)
    register(strategy, instruments=(instrument,))
    strategy.start()
    handlers = {
        "QuoteTick": strategy.handle_quote_tick,
        "TradeTick": strategy.handle_trade_tick,
        "OrderBookDepth10": strategy.handle_order_book_depth,
    }
    for event in MarketData(instrument, quotes, trades, depth).objects():
        handlers[type(event).__name__](event)
    return bundle, strategy


def compare(bundle, strategy, quotes=None, trades=None, depth=None):
    research = bundle.plan.compute(quotes, trades, depth, clock=bundle.spec.inputs.clock)
    rows = np.array(strategy.rows)
    assert len(rows) > 5_000
    np.testing.assert_array_equal(np.array(strategy.times, np.uint64), research.ts[research.ready])
    np.testing.assert_array_equal(rows, research.values[research.ready])
    assert rows.std(axis=0).min() > 0
    z = bundle.model.run_window(bundle.plan.normalise(research.values[research.ready])).astype(np.float64)
    z = np.exp((z - z.max(axis=1, keepdims=True)) / bundle.spec.calibration.temperature)
    np.testing.assert_allclose(np.array(strategy.answers), z / z.sum(axis=1, keepdims=True), atol=1e-12)


def test_quotes_and_trades():
    stem = "binance_usdm_btcusdt_20240718"
    data = {"quotes": read_quotes(sample_data(f"{stem}.quotes.parquet")),
            "trades": read_trades(sample_data(f"{stem}.trades.parquet"))}  # fmt: skip
    compare(*live("lstm_btcusdt", "binance_usdm_btcusdt", **data), **data)


def test_depth():
    path = shared_data("tick", "shfe_rb", "shfe_rb2510_20250609.depth5.parquet")
    whole = read_depth(path)
    fields = ("ts_event", "ts_init", "bid_price", "ask_price", "bid_size", "ask_size")
    depth = DepthColumns(**{name: getattr(whole, name)[:9_000] for name in fields})
    compare(*live("lstm_rb2510", "shfe_rb2510", depth=depth), depth=depth)
