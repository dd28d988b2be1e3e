"""A small market, and two ways to run a strategy on it: by hand and in a backtest."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common.component import TestClock
from nautilus_trader.config import LoggingConfig, RiskEngineConfig
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import (
    Bar,
    BarType,
    BookOrder,
    OrderBookDelta,
    OrderBookDeltas,
    OrderBookDepth10,
    QuoteTick,
    TradeTick,
)
from nautilus_trader.model.enums import (
    AccountType,
    AggressorSide,
    BookAction,
    BookType,
    OmsType,
    OrderSide,
)
from nautilus_trader.model.identifiers import TradeId, TraderId, Venue
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.persistence.config import DataCatalogConfig
from nautilus_trader.portfolio.portfolio import Portfolio
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.test_kit.stubs.component import TestComponentStubs
from nautilus_trader.test_kit.stubs.identifiers import TestIdStubs
from nautilus_trader.trading.strategy import Strategy

INSTRUMENT = TestInstrumentProvider.btcusdt_perp_binance()
OTHER_INSTRUMENT = TestInstrumentProvider.ethusdt_perp_binance()
VENUE = Venue("BINANCE")
BAR_TYPE = BarType.from_str(f"{INSTRUMENT.id}-1-MINUTE-LAST-EXTERNAL")
START = 1_721_347_200_000_000_000  # 2024-07-19 00:00 UTC
DEPTH_FEATURES = ("spread()", "imbalance()", "depth_imbalance(levels=3)")


# ---- a market --------------------------------------------------------------------------------------------------------


def quote(
    bid: float,
    ask: float,
    ts: int,
    bid_size: float = 1.0,
    ask_size: float = 1.0,
    instrument: Any = INSTRUMENT,
) -> QuoteTick:
    return QuoteTick(
        instrument.id,
        Price(bid, instrument.price_precision),
        Price(ask, instrument.price_precision),
        Quantity(bid_size, instrument.size_precision),
        Quantity(ask_size, instrument.size_precision),
        ts,
        ts,
    )


def trade(price: float, size: float, ts: int, buyer: bool = True, instrument: Any = INSTRUMENT) -> TradeTick:
    return TradeTick(
        instrument.id,
        Price(price, instrument.price_precision),
        Quantity(size, instrument.size_precision),
        AggressorSide.BUYER if buyer else AggressorSide.SELLER,
        TradeId(str(ts)),
        ts,
        ts,
    )


def bar(price: float, ts: int, bar_type: BarType = BAR_TYPE) -> Bar:
    p = INSTRUMENT.price_precision
    return Bar(
        bar_type, Price(price, p), Price(price + 5, p), Price(price - 5, p), Price(price + 1, p), Quantity(9, 3), ts, ts
    )


def depth(price: float, ts: int, sizes: Sequence[float] = (1.0, 2.0, 3.0)) -> OrderBookDepth10:
    def side(which: OrderSide, step: float) -> list[BookOrder]:
        found = [
            BookOrder(which, Price(price + step * (i + 1), 1), Quantity(size, 3), 0) for i, size in enumerate(sizes)
        ]
        return found + [BookOrder(OrderSide.NO_ORDER_SIDE, Price(0, 1), Quantity(0, 3), 0)] * (10 - len(found))

    counts = [1] * len(sizes) + [0] * (10 - len(sizes))
    return OrderBookDepth10(
        INSTRUMENT.id, side(OrderSide.BUY, -0.1), side(OrderSide.SELL, 0.1), counts, counts, 0, 0, ts, ts
    )


def deltas(price: float, ts: int, sizes: Sequence[float] = (1.0, 2.0, 3.0)) -> OrderBookDeltas:
    """A snapshot with the same levels as :func:`depth`."""
    rows = [OrderBookDelta.clear(INSTRUMENT.id, 0, ts, ts)]
    for which, step in ((OrderSide.BUY, -0.1), (OrderSide.SELL, 0.1)):
        for i, size in enumerate(sizes):
            order = BookOrder(which, Price(price + step * (i + 1), 1), Quantity(size, 3), 0)
            rows.append(OrderBookDelta(INSTRUMENT.id, BookAction.ADD, order, 0, 0, ts, ts))
    return OrderBookDeltas(INSTRUMENT.id, rows)


def market(count: int, seed: int = 3, start: int = START, instrument: Any = INSTRUMENT) -> list[QuoteTick | TradeTick]:
    """A random walk of quotes, 100 ms apart, with a trade before every third one."""
    rng = np.random.default_rng(seed)
    mid = 50_000.0 + 0.1 * np.cumsum(rng.integers(-3, 4, count))
    sizes = 0.001 * rng.integers(1, 5_000, (count, 2))
    out: list[QuoteTick | TradeTick] = []
    for i in range(count):
        ts = start + i * 100_000_000
        if i % 3 == 2:
            out.append(trade(mid[i], sizes[i, 0], ts, bool(rng.integers(2)), instrument))
        out.append(quote(mid[i] - 0.1, mid[i] + 0.1, ts, sizes[i, 0], sizes[i, 1], instrument))
    return out


# ---- by hand: a registered strategy without an engine around it ------------------------------------------------------


def register(strategy: Strategy, book: OrderBook | None = None, instruments: Iterable[Any] = (INSTRUMENT,)) -> Strategy:
    """Register a strategy with stubs, so that a test can call its handlers one by one."""
    clock, bus, cache = TestClock(), TestComponentStubs.msgbus(), TestComponentStubs.cache()
    for instrument in instruments:
        cache.add_instrument(instrument)
    if book is not None:
        cache.add_order_book(book)
    bus.register("DataEngine.execute", lambda command: None)
    bus.register("ExecEngine.execute", lambda command: None)
    bus.register("RiskEngine.execute", lambda command: None)
    strategy.register(TestIdStubs.trader_id(), Portfolio(msgbus=bus, cache=cache, clock=clock), bus, cache, clock)
    return strategy


# ---- in a backtest ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def quiet_pandas() -> Iterator[None]:
    """Silence pandas 4's announcement, and nothing else."""
    with warnings.catch_warnings():
        category = getattr(pd.errors, "Pandas4Warning", None)
        if category is not None:
            warnings.simplefilter("ignore", category)
        yield


def backtest(
    data: list[Any],
    *strategies: Strategy,
    instruments: Iterable[Any] = (INSTRUMENT,),
    oms: OmsType = OmsType.NETTING,
    book_type: BookType = BookType.L1_MBP,
    latency: Any = None,
    catalog: Any = None,
) -> BacktestEngine:
    """An engine with one venue, ready to run; the caller runs and disposes of it."""
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id=TraderId("TEST-001"),
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(max_order_submit_rate="1000000/00:00:01"),
            catalogs=[DataCatalogConfig(path=str(catalog))] if catalog is not None else [],
        )
    )
    engine.add_venue(
        VENUE, oms, AccountType.MARGIN, [Money(1_000_000, USDT)], book_type=book_type, latency_model=latency
    )
    for instrument in instruments:
        engine.add_instrument(instrument)
    engine.add_data(data)
    for strategy in strategies:
        engine.add_strategy(strategy)
    return engine


def run(engine: BacktestEngine) -> None:
    with quiet_pandas():
        engine.run()
