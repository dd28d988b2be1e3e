"""A configuration becomes a NautilusTrader backtest, and the backtest becomes a record that a report is drawn from.

Nothing in a run reads the wall clock except the measurement of latency, which decides nothing: the same configuration,
data, model and instruction set give the same signals, fills and equity, bit for bit.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import LatencyModel, MakerTakerFeeModel
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import ActorConfig
from nautilus_trader.config import DataEngineConfig, LoggingConfig, RiskEngineConfig
from nautilus_trader.model.enums import AccountType, BookType, OmsType
from nautilus_trader.model.events import OrderFilled
from nautilus_trader.model.identifiers import TraderId
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Currency, Money
from nautilus_trader.trading.strategy import Strategy

from tengri_fast.errors import ConfigurationError
from tengri_fast.market.contracts import InstrumentContract, contract
from tengri_fast.nautilus.backtest_config import (
    ContractFees,
    backtest_section,
    first_mid,
    gate_config,
    load_market_data,
    model_of,
    scenarios_of,
    strategy_config,
)
from tengri_fast.nautilus.backtest_record import file_hashes, make_record
from tengri_fast.nautilus.drill import ControlDrill, ControlDrillConfig, DrillSlicer
from tengri_fast.nautilus.gate import NeuralRiskGate
from tengri_fast.nautilus.loaders import MarketData, instrument_from_contract
from tengri_fast.report import RunRecord
from tengri_fast.risk import ScenarioSet
from tengri_fast.runtime.model_spec import ModelBundle

if TYPE_CHECKING:
    from tengri_fast.runtime.config import TengriConfig
    from tengri_fast.runtime.control import RunControl

__all__ = ["Assembly", "assemble", "load_market_data", "run_backtest"]

Progress = Callable[[int, int, Mapping[str, Any]], None]

CHUNK = 20_000
_SECOND = 1_000_000_000
_DRILL_ID = "ControlDrill"
_MANY_PER_SECOND = "1000000/00:00:01"  # Nautilus' own throttle would deny orders that our gate has to judge


@contextlib.contextmanager
def _quiet_pandas() -> Iterator[None]:
    """NautilusTrader 1.231 still calls what pandas 4 will rename; every other warning stays visible."""
    category = getattr(pd.errors, "Pandas4Warning", None)
    with warnings.catch_warnings():
        if category is not None:
            warnings.simplefilter("ignore", category)
        yield


class _Closer(Actor):
    """Stops a strategy shortly before the data end, so that its last orders still meet a market."""

    def __init__(self, strategy: Strategy, at_ns: int) -> None:
        super().__init__(ActorConfig(component_id="TENGRI-CLOSER"))
        self._strategy = strategy
        self._at_ns = at_ns

    def on_start(self) -> None:
        """Set the clock."""
        self.clock.set_time_alert_ns("TENGRI-CLOSE", self._at_ns, self._close)

    def _close(self, _event: Any) -> None:
        if self._strategy.is_running:
            self._strategy.stop()


@dataclass
class Assembly:
    """A backtest that is ready to run.

    Attributes
    ----------
    engine : BacktestEngine
        With venue, instrument and components; data are added chunk by chunk.
    data : MarketData
        What it will see.
    instrument, row
        The instrument, and the row of the contract table it was made from.
    strategy : Strategy or None
        The neural strategy, or what the caller put in its place.
    gate : NeuralRiskGate or None
        The gate; None when the caller asked for a run without one.
    drill : ControlDrill or None
        The control drill, when the configuration asks for it.
    bundle : ModelBundle or None
        The model of the neural strategy.
    currency : Currency
        Of the account.
    start_balance : float
        Of the account.
    close_ns : int
        When the strategy is stopped.
    scenarios : ScenarioSet or None
        Of the value-at-risk limit.
    """

    engine: BacktestEngine
    data: MarketData
    instrument: Instrument
    row: InstrumentContract
    strategy: Any
    gate: NeuralRiskGate | None
    drill: ControlDrill | None
    bundle: ModelBundle | None
    currency: Currency
    start_balance: float
    close_ns: int
    scenarios: ScenarioSet | None = None
    run_seconds: float = field(default=0.0)

    @property
    def venue(self) -> Any:
        """Venue of the instrument."""
        return self.instrument.id.venue

    def equity(self) -> float:
        """Account equity as NautilusTrader has it now, in account currency."""
        found = self.engine.portfolio.equity(self.venue).get(self.currency)
        return self.start_balance if found is None else float(found.as_double())

    def run(self, progress: Progress | None = None, chunk: int = CHUNK, control: RunControl | None = None) -> None:
        """Run to the end, in chunks of `chunk` events."""
        total, done = len(self.data), 0
        began = time.perf_counter()
        if control is not None and self.gate is not None:
            control.attach(self.gate)
        try:
            with _quiet_pandas():
                for objects in self.data.chunks(chunk):
                    self.engine.add_data(objects, validate=False)
                    self.engine.run(streaming=True)
                    self.engine.clear_data()
                    done += len(objects)
                    if progress is not None:
                        progress(done, total, self._live())
                self.engine.end()
        finally:
            if control is not None and self.gate is not None:
                control.detach()
            self.run_seconds = time.perf_counter() - began

    def _live(self) -> dict[str, Any]:
        cache = self.engine.cache
        gate = self.gate
        return {
            "pnl": self.equity() - self.start_balance,
            "currency": self.currency.code,
            "trades": cache.positions_closed_count() + len(cache.position_snapshots()),
            "orders": cache.orders_total_count(),
            "denied": 0 if gate is None else len(gate.records),
            "killed": gate is not None and gate.killed,
        }

    def fills(self) -> list[OrderFilled]:
        """All fills in the order of time (and of execution at equal times)."""
        found = [
            event for order in self.engine.cache.orders() for event in order.events if isinstance(event, OrderFilled)
        ]
        return sorted(found, key=lambda event: (event.ts_event, int(event.trade_id.value.rsplit("-", 1)[-1])))

    def dispose(self) -> None:
        """Free the engine."""
        self.engine.dispose()


def assemble(
    config: TengriConfig,
    *,
    strategy: Strategy | str = "neural",
    gate: bool = True,
    data: MarketData | None = None,
    instrument: Instrument | None = None,
) -> Assembly:
    """Build the backtest of a configuration.

    Parameters
    ----------
    config : TengriConfig
        With ``[backtest]``.
    strategy : Strategy or "neural" or "none"
        What trades: the neural strategy of the configuration, nothing, or another strategy for comparison.
    gate : bool, default True
        Whether the risk gate is there; only benchmarks leave it out.
    data : MarketData, optional
        Already loaded data.
    instrument : Instrument, optional
        The instrument of `data`.

    Raises
    ------
    ConfigurationError, DataConversionError, ModelLoadingError
        Before anything runs; the message names the key, its rule and its value.
    """
    section = backtest_section(config)
    try:
        row = contract(section.contract)
    except ConfigurationError as error:
        raise config.error("backtest.contract", str(error).removeprefix("`contract` ")) from None
    if instrument is None:
        instrument = instrument_from_contract(row, config.strategy.instrument_id)
    # The model first: what it lacks is known at once, while data take time to read.
    # Strategies compare by identifier and refuse texts, so the type is asked first.
    kind = strategy if isinstance(strategy, str) else "other"
    model_path, bundle = model_of(config) if kind == "neural" else (None, None)
    if data is None:
        data, _ = load_market_data(config, instrument)
    currency = Currency.from_str(section.starting_balance.currency or row.currency)
    if currency.code != row.currency:
        raise config.error(
            "backtest.starting_balance",
            f"must be in the currency of the contract {section.contract} ({row.currency}), was {currency.code}",
        )
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id=TraderId("TENGRI-001"),
            logging=LoggingConfig(bypass_logging=True),
            data_engine=DataEngineConfig(emit_quotes_from_book_depths=data.depth is not None and data.quotes is None),
            risk_engine=RiskEngineConfig(
                max_order_submit_rate=_MANY_PER_SECOND, max_order_modify_rate=_MANY_PER_SECOND
            ),
            run_analysis=False,
        )
    )
    latency = section.order_latency
    engine.add_venue(
        venue=instrument.id.venue,
        oms_type=OmsType.NETTING,
        account_type=AccountType[section.account_type],
        base_currency=currency,
        starting_balances=[Money(section.starting_balance.amount, currency)],
        default_leverage=Decimal(1),
        book_type=BookType.L2_MBP if data.depth is not None else BookType.L1_MBP,
        fee_model=ContractFees(row) if row.fee_per_contract else MakerTakerFeeModel(),
        latency_model=LatencyModel(base_latency_nanos=latency) if latency else None,
    )
    engine.add_instrument(instrument)
    made = Assembly(
        engine=engine,
        data=data,
        instrument=instrument,
        row=row,
        strategy=None,
        gate=None,
        drill=None,
        bundle=bundle,
        currency=currency,
        start_balance=float(section.starting_balance.amount),
        close_ns=_close_time(data, latency),
    )
    if gate:
        prices = ("depth",) if data.quotes is None and data.depth is not None else ("quotes",)
        settings = gate_config(config, instrument, prices, currency.code)
        made.gate = NeuralRiskGate(settings)
        if settings.var is not None:
            made.scenarios = scenarios_of(config, instrument, settings.var)
            if made.scenarios is not None:
                made.gate.load_scenarios(made.scenarios)
        engine.add_actor(made.gate)
    if kind == "neural":
        # Here and not at the top, so that a run without it does not load the engine.
        from tengri_fast.nautilus.strategy import TengriNeuralStrategy

        assert model_path is not None
        settings_of = strategy_config(config, row, model_path, first_mid(data))
        made.strategy = TengriNeuralStrategy(settings_of, bundle=bundle)
    elif isinstance(strategy, Strategy):
        made.strategy = strategy
    elif kind != "none":
        raise ConfigurationError(f"`strategy` must be 'neural', 'none' or a Strategy, was {strategy!r}")
    if made.strategy is not None:
        engine.add_actor(_Closer(made.strategy, made.close_ns))
        engine.add_strategy(made.strategy)
    if section.control_drill and made.gate is not None:
        limits = made.gate.config.limits
        assert not isinstance(limits.max_position, dict)  # gate_config() made it a number
        made.drill = ControlDrill(
            ControlDrillConfig(
                strategy_id=_DRILL_ID,
                order_id_tag="DRILL",
                instrument_id=instrument.id,
                max_order_notional=limits.max_order_notional,
                max_position=limits.max_position,
                price_collar_bps=limits.price_collar_bps,
                try_var=limits.max_portfolio_var is not None,
            )
        )
        engine.add_strategy(made.drill)
        engine.add_exec_algorithm(DrillSlicer())
    return made


def _close_time(data: MarketData, latency: int) -> int:
    """When to stop the strategy: early enough for its last orders to be filled, at most a tenth of the data early."""
    return data.end_ns - min(max(2 * _SECOND, 4 * latency), (data.end_ns - data.start_ns) // 10)


def run_backtest(
    config: TengriConfig,
    out_dir: str | Path | None = None,
    progress: Progress | None = None,
    control: RunControl | None = None,
    *,
    chunk: int = CHUNK,
) -> RunRecord:
    """Run the backtest of a configuration.

    Parameters
    ----------
    config : TengriConfig
        As loaded by :func:`tengri_fast.runtime.config.load_config`.
    out_dir : path, optional
        Where the record is saved (``record.json``) as soon as the run is over; :func:`tengri_fast.report.write_report`
        draws the report into the same folder.
    progress : callable, optional
        Called with events done, events in all, and the running numbers (`pnl`, `currency`, `trades`, `orders`,
        `denied`, `killed`).
    control : RunControl, optional
        Reaches the gate from outside while the run lasts.
    chunk : int, default 20,000
        Events held as objects at a time; the results do not depend on it.

    Returns
    -------
    RunRecord
        Everything a report says about the run.

    Raises
    ------
    ConfigurationError, DataConversionError, ModelLoadingError
        Before the run.
    NeuralIntegrationError
        When an order of the control drill came through that must be denied, or when the fills do not add up to the
        account.

    Notes
    -----
    A run that was killed goes on to the data end with reducing orders only; its record says in the notes who stopped
    it and why, and a drill that was cut short by that is no failure.
    """
    assembly = assemble(config)
    try:
        assembly.run(progress, chunk, control)
        record = make_record(config, assembly, file_hashes(config))
    finally:
        assembly.dispose()
    if out_dir is not None:
        folder = Path(out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        record.to_json(folder / "record.json")
    return record
