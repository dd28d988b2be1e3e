"""Configurations that several tests load."""

from __future__ import annotations

# The file that the specification prints; it must load unchanged.
USER_FILE = """\
[strategy]
strategy_id = "TengriNeural001"
order_id_tag = "TN"
instrument_id = "BTCUSDT.BINANCE"

[neural]
models = [
    { type = "LSTM", config = "models/lstm_price_prediction.toml" },
    { type = "Transformer", config = "models/transformer_sentiment.toml" },
    { type = "CNN", config = "models/cnn_pattern_recognition.toml" }
]
[neural.features]
technical_indicators = ["RSI", "MACD", "BollingerBands"]
market_microstructure = ["OrderBookImbalance", "VolumeProfile"]
external_data = ["PolymarketOdds", "NewsNLP", "MacroEconomic"]
[neural.inference]
batch_size = 32
inference_frequency = "1s"
model_warm_up_period = "1h"

[risk]
max_portfolio_var = 0.05
neural_stress_testing = true
dynamic_position_sizing = true

[execution]
market_impact_modeling = true
optimal_execution_algorithm = "neural_twap"
slippage_prediction = true

[data_sources]
binance = { spot = true, futures = true }
polymarket = { enabled = true, markets = ["crypto", "politics"] }
databento = { enabled = true, feeds = ["GLBX.MDP3", "XNAS.ITCH"] }
tardis = { enabled = true, historical_depth = "30d" }
"""

# Every section and nearly every key, with awkward spellings.
FULL_FILE = """\
# A backtest.
[strategy]
strategy_id = "TengriNeural"   # a comment = with "signs" [in] it
order_id_tag = 'D1'
instrument_id = "BTCUSDT-PERP.BINANCE"
trade_size = 0.010

[neural]
[[neural.models]]
type = "LSTM"
config = "models/lstm_btcusdt/model.toml"
[[neural.models]]
type = "MLP"
config = "other.toml"

[neural.inference]
inference_frequency = "5 ticks"
model_warm_up_period = "10s"

[neural.ensemble]
weights = [0.5, 0.5]
horizon = "1.5s"

[policy]
threshold_bps = -0.25
exit_bps = 1
fee_bps = 5
min_confidence = 0.4
max_holding = "90s"
cooldown = "250ms"

[risk]
max_order_notional = "50_000"
max_position = 1
price_collar_bps = 50
max_portfolio_var = 5e-2
stale_quote = "5s"
var = { level = 0.975, horizon = "60s", method = "historical", scenarios = 500, base_currency = "USDT" }
scenarios.source = "file"
scenarios.path = "scenarios.npz"

[backtest]
contract = "binance_btcusdt_perp"
quotes = [
    # the first day
    "q1.parquet",
    "q2.parquet",
]
trades = ["t1.parquet", "t2.parquet"]
depth = []
starting_balance = "250_000.50 USDT"
account_type = "margin"
order_latency = "2ms"
control_drill = true

[report]
title = "A title with \\"quotes\\" and ü"
notes = \"\"\"
Two
lines.\"\"\"

[control]
socket = "run.sock"
kill_file = "STOP"
"""

MINIMAL_FILE = """\
strategy.instrument_id = "A.B"
neural.models = [{ type = "LSTM", config = "m.toml" }]
"""
