"""A small market for the gate's tests: one instrument, a scripted strategy, and a record of what came back."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel
from nautilus_trader.config import LoggingConfig, RiskEngineConfig, StrategyConfig
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, BookType, OmsType
from nautilus_trader.model.identifiers import TraderId, Venue
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Currency, Money
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

INSTRUMENT: CryptoPerpetual = TestInstrumentProvider.btcusdt_perp_binance()
VENUE = Venue("BINANCE")
START = 1_721_347_200_000_000_000
STEP = 1_000_000_000


@contextlib.contextmanager
def quiet_pandas() -> Iterator[None]:
    """Silence pandas 4's announcement, and nothing else."""
    with warnings.catch_warnings():
        category = getattr(pd.errors, "Pandas4Warning", None)
        if category is not None:
            warnings.simplefilter("ignore", category)
        yield


def quotes(
    count: int = 60,
    price: float = 50_000.0,
    spread: float = 0.1,
    drift: float = 0.0,
    instrument: Any = INSTRUMENT,
) -> list[QuoteTick]:
    """One quote a second; the bid starts at `price` and moves by `drift` each time."""
    return [
        QuoteTick(
            instrument.id,
            instrument.make_price(price + drift * i),
            instrument.make_price(price + drift * i + spread),
            instrument.make_qty(1_000),
            instrument.make_qty(1_000),
            START + i * STEP,
            START + i * STEP,
        )
        for i in range(count)
    ]


class Script(Strategy):
    """Runs ``actions[n](self, tick)`` at the n-th quote, ``on_end(self)`` while stopping, and keeps every event."""

    def __init__(
        self,
        actions: dict[int, Callable[[Script, QuoteTick], Any]],
        on_end: Callable[[Script], Any] | None = None,
        tag: str = "001",
        oms: str | None = None,
        instrument: Any = INSTRUMENT,
    ) -> None:
        super().__init__(StrategyConfig(strategy_id=f"Script-{tag}", order_id_tag=tag, oms_type=oms))
        self.actions = actions
        self.on_end = on_end
        self.instrument = instrument
        self.quote_count = 0
        self.seen: list[Any] = []
        self.keep: dict[str, Any] = {}

    def on_start(self) -> None:
        self.quote_count = 0
        self.seen = []
        self.keep = {}
        self.subscribe_quote_ticks(self.instrument.id)

    def on_quote_tick(self, tick: QuoteTick) -> None:
        action = self.actions.get(self.quote_count)
        self.quote_count += 1
        if action is not None:
            action(self, tick)

    def on_stop(self) -> None:
        if self.on_end is not None:
            self.on_end(self)

    def on_order_event(self, event: Any) -> None:
        self.seen.append(event)

    # -- what tests ask ---------------------------------------------------------------------------------------------

    def events(self, kind: str) -> list[Any]:
        return [event for event in self.seen if type(event).__name__ == kind]

    def statuses(self) -> dict[str, str]:
        return {order.client_order_id.value: order.status_string() for order in self.cache.orders(strategy_id=self.id)}

    # -- what scripts do --------------------------------------------------------------------------------------------

    def qty(self, amount: float) -> Any:
        return self.instrument.make_qty(amount)

    def market(self, side: Any, amount: float, **more: Any) -> Any:
        position_id = more.pop("position_id", None)
        order = self.order_factory.market(self.instrument.id, side, self.qty(amount), **more)
        self.submit_order(order, position_id=position_id)
        return order

    def limit(self, side: Any, amount: float, price: float, **more: Any) -> Any:
        order = self.order_factory.limit(
            self.instrument.id, side, self.qty(amount), self.instrument.make_price(price), **more
        )
        self.submit_order(order)
        return order


def make_engine(
    *components: Any,
    data: list[Any] | None = None,
    oms: OmsType = OmsType.NETTING,
    balance: float = 1_000_000,
    latency_ns: int = 0,
    bypass: bool = False,
    instrument: Any = INSTRUMENT,
    start: int = START,
    currency: str = "USDT",
) -> BacktestEngine:
    """A backtest engine with one venue; `components` are actors, strategies and execution algorithms."""
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id=TraderId("TESTER-001"),
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(
                bypass=bypass, max_order_submit_rate="100000/00:00:01", max_order_modify_rate="100000/00:00:01"
            ),
            run_analysis=False,
        )
    )
    engine.add_venue(
        venue=instrument.id.venue,
        oms_type=oms,
        account_type=AccountType.MARGIN,
        base_currency=None,
        starting_balances=[Money(balance, Currency.from_str(currency))],
        book_type=BookType.L1_MBP,
        latency_model=LatencyModel(base_latency_nanos=latency_ns) if latency_ns else None,
    )
    engine.add_instrument(instrument)
    engine.add_data(data if data is not None else quotes(instrument=instrument))
    for component in components:
        kind = {base.__name__ for base in type(component).__mro__}
        if "ExecAlgorithm" in kind:
            engine.add_exec_algorithm(component)
        elif "Strategy" in kind:
            engine.add_strategy(component)
        else:
            engine.add_actor(component)
    return engine


def run(engine: BacktestEngine) -> None:
    with quiet_pandas():
        engine.run()
