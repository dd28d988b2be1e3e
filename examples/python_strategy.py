"""Enter when the model is sure, leave when it changes its mind: python examples/python_strategy.py [MODEL.toml]"""

from pathlib import Path
from sys import argv

from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.objects import Money
from nautilus_trader.test_kit.providers import TestInstrumentProvider

from tengri_fast.market import read_quotes, read_trades
from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.nautilus.loaders import MarketData

ROOT = Path(__file__).resolve().parent.parent
DAY = f"{ROOT}/data/binance_usdm_btcusdt/binance_usdm_btcusdt_20240719"
BTC = TestInstrumentProvider.btcusdt_perp_binance()


class SureOfIt(TengriNeuralStrategy):  # noqa: D101
    def on_signal(self, signal):
        """The whole decision is ours: this replaces the default policy."""
        held = self.position_side(BTC.id)
        enter, leave = held == 0 and signal.confidence > 0.6, held * signal.direction < 0
        if (enter or leave) and not self.order_in_flight(BTC.id):
            self.submit_intent(BTC.id, signal.direction if enter else 0)


if __name__ == "__main__":
    model = argv[1] if len(argv) > 1 else f"{ROOT}/models/lstm_btcusdt/model.toml"
    engine = BacktestEngine()
    engine.add_venue(BTC.id.venue, OmsType.NETTING, AccountType.MARGIN, [Money.from_str("10000 USDT")])
    engine.add_instrument(BTC)
    quotes, trades = read_quotes(f"{DAY}.quotes.parquet"), read_trades(f"{DAY}.trades.parquet")
    engine.add_data(MarketData(BTC, quotes, trades).objects())
    engine.add_strategy(SureOfIt(TengriNeuralConfig(model=model, instrument_id=BTC.id, trade_size="0.010")))
    engine.run()
    print(engine.trader.generate_positions_report()[["entry", "quantity", "realized_pnl"]].to_string())
