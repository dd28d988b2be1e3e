"""What the benches of features share: the sample as columns, bars made of it, and the plans that are timed."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from tengri_fast.features import FEATURES
from tengri_fast.market import (
    BarColumns,
    DepthColumns,
    ExternalColumns,
    QuoteColumns,
    TradeColumns,
    read_quotes,
    read_trades,
)

__all__ = ["BARS", "FORTY", "TWELVE", "bars", "depth", "external", "quotes", "trades", "written"]

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "binance_usdm_btcusdt" / "binance_usdm_btcusdt_20240719"

TWELVE = ("mid_return(lag=10)", "spread", "microprice_deviation", "imbalance", "order_flow_imbalance(window='1s')",
          "signed_trade_flow(window='1s')", "realized_volatility(window='10s')", "ema_difference(fast=12, slow=26)",
          "rsi(14)", "time_since_trade", "last_move_direction", "trade_intensity")  # fmt: skip

# Forty columns of the kind a model of ticks is fed with: book, flow, trades, volatility, indicators.
FORTY = (
    "mid_return(1)", "mid_return(10)", "mid_return(100)", "mid_return('1s')", "spread(tick=0.1)", "spread_zscore",
    "microprice_deviation", "imbalance", "queue_flow", "order_flow_imbalance('1s')", "order_flow_imbalance(50)",
    "signed_trade_flow('1s')", "signed_trade_flow(50)", "trade_imbalance", "buy_intensity", "sell_intensity",
    "intensity_imbalance", "last_trade_deviation", "time_since_trade", "trade_intensity", "last_move_direction",
    "mid_move_age", "quote_age", "realized_volatility('10s')", "realized_volatility(100)", "ema_difference(12, 26)",
    "ema_difference('1s', '10s')", "rsi(14)", "macd", "macd_signal", "macd_histogram", "bollinger_percent(20)",
    "bollinger_bandwidth(20)", "rate_of_change(10)", "donchian_position(20)", "roll_spread", "kyle_lambda",
    "vpin(5, 50)", "rsi(14) @ 1s", "natr(14) @ 1s",
)  # fmt: skip

# What NautilusTrader, TA-Lib and talipp have too, on bars of open, high, low and close.
BARS = ("sma(20)", "ema(12)", "wma(20)", "rsi(14)", "macd(12, 26)", "bollinger_middle(20)", "bollinger_upper(20)",
        "bollinger_lower(20)", "rate_of_change(10)", "atr(14)", "stochastic_k", "stochastic_d", "cci(20)",
        "donchian_upper(20)", "donchian_lower(20)", "keltner_upper(20)", "keltner_lower(20)")  # fmt: skip


def written(name: str) -> str:
    """A feature of the table as text, with names where it needs some."""
    outside = {"instrument": "'OTHER'", "instruments": "'OTHER'", "source": "'SOURCE'"}
    given = [f"{p.name}={outside[p.type]}" for p in FEATURES[name].parameters if p.outside]
    return f"{name}({', '.join(given)})" if given else name


@functools.cache
def quotes() -> QuoteColumns:
    """Five minutes of quotes."""
    return read_quotes(f"{SAMPLE}.quotes.parquet")


@functools.cache
def trades() -> TradeColumns:
    """Their trades."""
    return read_trades(f"{SAMPLE}.trades.parquet")


@functools.cache
def depth() -> DepthColumns:
    """Books behind every eighth quote; the sample has no depth, so levels behind the best are made up."""
    steps, every, q = 0.1 * np.arange(5), slice(None, None, 8), quotes()
    return DepthColumns(q.ts_event[every], q.ts_init[every], q.bid_price[every, None] - steps,
                        q.ask_price[every, None] + steps, q.bid_size[every, None] + steps,
                        q.ask_size[every, None] + steps)  # fmt: skip


@functools.cache
def external() -> ExternalColumns:
    """A hundred observations over the span."""
    ts = quotes().ts_init[:: len(quotes()) // 100]
    return ExternalColumns(ts, ts, np.tile([0.4, 0.6, 0.5, 0.1], (len(ts), 1)))


@functools.cache
def bars(count: int = 10_000) -> BarColumns:
    """A random walk of bars with a volume; in the sample's quiet seconds an indicator of a rival divides by zero."""
    rng = np.random.default_rng(7)
    close = 65_000.0 + np.cumsum(rng.normal(0.0, 5.0, count))
    opened = close + rng.normal(0.0, 3.0, count)
    high = np.maximum(opened, close) + rng.uniform(0.1, 4.0, count)
    low = np.minimum(opened, close) - rng.uniform(0.1, 4.0, count)
    ts = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(60_000_000_000)
    return BarColumns(ts, ts, opened, high, low, close, rng.uniform(1.0, 9.0, count))
