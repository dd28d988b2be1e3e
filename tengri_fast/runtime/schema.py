"""The sections of a configuration file as frozen, typed structures.

This is the one table of keys: types, ranges and defaults are read from the annotations by ``config.py``, which checks
a file against them. A constraint stands in `msgspec.Meta`; its ``extra`` names what the type alone cannot say:

``kind``
    How a text becomes the value: "duration" (nanoseconds), "size" (an exact decimal > 0), "money" (amount, currency).
``pattern``, ``rule``
    What a text must match, and how that is said to the user.
``upper``
    The text is compared in capital letters.
``pending``
    The key is accepted, but this version does not act on it; `TengriConfig.pending` tells the user so.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta, Struct

from tengri_fast.runtime.durations import Frequency
from tengri_fast.runtime.schema_risk import RiskSection
from tengri_fast.runtime.schema_types import (
    Duration,
    InstrumentName,
    Name,
    PositiveDuration,
    Size,
    Tag,
    Text,
)

__all__ = [
    "BacktestSection",
    "BinanceSource",
    "CatalogSource",
    "ControlSection",
    "DataSourcesSection",
    "DatabentoSource",
    "EnsembleSection",
    "ExecutionSection",
    "FeaturesSection",
    "InferenceSection",
    "ModelEntry",
    "Money",
    "NeuralSection",
    "NodeSection",
    "PolicySection",
    "PolymarketSource",
    "ReportSection",
    "RiskSection",
    "StrategySection",
    "TardisSource",
]

NOT_YET_FEATURES = Meta(extra={"pending": "models bring their own features; only `tengri features` uses the list"})
NOT_YET_ENSEMBLE = Meta(extra={"pending": "one model runs; models are not combined"})
NOT_YET_BATCH = Meta(extra={"pending": "instruments are computed one at a time"})
NOT_YET_EXECUTION = Meta(extra={"pending": "orders go out as plain market orders; the term is zero"})
Feed = Annotated[
    str,
    Meta(extra={"pattern": r"[A-Z0-9]{2,12}\.[A-Z0-9]{2,16}", "rule": 'must be a dataset code, such as "GLBX.MDP3"'}),
]
TraderName = Annotated[
    str,
    Meta(
        extra={"pattern": r"[A-Za-z0-9_]{1,32}-[A-Za-z0-9_]{1,16}", "rule": 'must be NAME-NUMBER, as in "TENGRI-001"'}
    ),
]


class Money(Struct, frozen=True):
    """An amount and its currency; without a currency, that of the contract is meant."""

    amount: Decimal
    currency: str | None = None

    def __str__(self) -> str:
        amount = f"{self.amount:f}"
        return f"{amount} {self.currency}" if self.currency else amount


class StrategySection(Struct, frozen=True, kw_only=True):
    """``[strategy]``: who trades, and what.

    Attributes
    ----------
    strategy_id, order_id_tag : str
        Names that NautilusTrader gives the strategy and its orders.
    instrument_id : str
        Symbol and venue, such as "BTCUSDT-PERP.BINANCE".
    trade_size : Decimal or None
        Quantity of an entry, in the instrument's own units.
    """

    strategy_id: Name = "TengriNeural"
    order_id_tag: Tag = "001"
    instrument_id: InstrumentName
    trade_size: Size | None = None


class ModelEntry(Struct, frozen=True, kw_only=True):
    """One entry of ``neural.models``: the family of a model and the path of its description."""

    type: Literal["LSTM", "GRU", "CNN", "TCN", "Conv1d", "Transformer", "MLP", "DeepLOB", "Custom"]
    config: Text


class FeaturesSection(Struct, frozen=True, kw_only=True):
    """``[neural.features]``: what the feature store computes and which sources are allowed."""

    technical_indicators: Annotated[tuple[Text, ...], NOT_YET_FEATURES] = ()
    market_microstructure: Annotated[tuple[Text, ...], NOT_YET_FEATURES] = ()
    external_data: tuple[Text, ...] = ()


class InferenceSection(Struct, frozen=True, kw_only=True):
    """``[neural.inference]``: when models run.

    Attributes
    ----------
    batch_size : int
        Upper bound of instruments computed together; it never delays one.
    inference_frequency : Frequency or None
        Must agree with the model's own clock; None takes that clock.
    model_warm_up_period : int
        Event time in nanoseconds from the first tick in which no signal is made.
    """

    batch_size: Annotated[int, Meta(ge=1, le=65536), NOT_YET_BATCH] = 1
    inference_frequency: Frequency | None = None
    model_warm_up_period: Duration = 0


class EnsembleSection(Struct, frozen=True, kw_only=True):
    """``[neural.ensemble]``: how models of unequal horizons are combined.

    Attributes
    ----------
    weights : tuple of float
        One weight per model, in the order of ``neural.models``; empty means equal weights.
    horizon : int or None
        Horizon of the combined signal in nanoseconds; None takes that of the first model.
    """

    weights: Annotated[tuple[Annotated[float, Meta(ge=0, le=1)], ...], NOT_YET_ENSEMBLE] = ()
    horizon: Annotated[PositiveDuration | None, NOT_YET_ENSEMBLE] = None


class NeuralSection(Struct, frozen=True, kw_only=True):
    """``[neural]``: models, their features, and when they run."""

    models: Annotated[tuple[ModelEntry, ...], Meta(min_length=1, max_length=64)]
    features: FeaturesSection = FeaturesSection()
    inference: InferenceSection = InferenceSection()
    ensemble: EnsembleSection | None = None


class PolicySection(Struct, frozen=True, kw_only=True):
    """``[policy]``: from signal to order.

    Attributes
    ----------
    threshold_bps : float
        What the expected move must exceed beyond fees and half the spread. A negative value trades below cost, which
        shows machinery and never makes money.
    exit_bps : float
        A position is left when the signal against it exceeds this.
    fee_bps : float or None
        Fee of one fill; None takes the taker fee of the contract.
    min_confidence : float
        Calibrated maximum probability below which nothing is opened.
    max_holding, cooldown : int
        Longest time in a position (0: no limit) and pause after leaving one, in nanoseconds of event time.
    """

    threshold_bps: Annotated[float, Meta(ge=-10_000, le=10_000)] = 0.5
    exit_bps: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    fee_bps: Annotated[float, Meta(ge=0, le=10_000)] | None = None
    min_confidence: Annotated[float, Meta(ge=0, le=1)] = 0.0
    max_holding: Duration = 0
    cooldown: Duration = 0


class ExecutionSection(Struct, frozen=True, kw_only=True):
    """``[execution]``: how orders are worked."""

    market_impact_modeling: Annotated[bool, NOT_YET_EXECUTION] = False
    optimal_execution_algorithm: Annotated[
        Literal["twap", "vwap", "pov", "almgren_chriss", "iceberg", "sniper", "neural_twap"] | None, NOT_YET_EXECUTION
    ] = None
    slippage_prediction: Annotated[bool, NOT_YET_EXECUTION] = False


class BinanceSource(Struct, frozen=True, kw_only=True):
    """``data_sources.binance``: public market data of one or several of its markets.

    Attributes
    ----------
    spot, futures : bool
        Which markets.
    futures_accounts : tuple of {"usdm", "coinm"}
        Which futures: margined in USDT and its like, or in the coin.
    environment : str
        "live", "testnet" or "demo".
    instruments : tuple of str
        Instruments to load beside that of the strategy. With several markets, those of the markets that the strategy
        does not trade have the venues BINANCE_SPOT, BINANCE_USDM and BINANCE_COINM.
    historical_depth : int
        How much history to ask for at the start, in nanoseconds.
    """

    enabled: bool = True
    spot: bool = False
    futures: bool = False
    futures_accounts: Annotated[tuple[Literal["usdm", "coinm"], ...], Meta(min_length=1, max_length=2)] = ("usdm",)
    environment: Literal["live", "testnet", "demo"] = "live"
    instruments: tuple[InstrumentName, ...] = ()
    historical_depth: Duration = 0


class PolymarketSource(Struct, frozen=True, kw_only=True):
    """``data_sources.polymarket``.

    Attributes
    ----------
    markets : tuple of str
        Tags of markets: a number is passed on; a name is only shown, since it has to be looked up at the venue.
    instruments : tuple of str
        "CONDITION-TOKEN.POLYMARKET" of each outcome to load.
    """

    enabled: bool = True
    markets: tuple[Text, ...] = ()
    instruments: tuple[InstrumentName, ...] = ()


class DatabentoSource(Struct, frozen=True, kw_only=True):
    """``data_sources.databento``.

    Attributes
    ----------
    feeds : tuple of str
        Dataset codes, such as "GLBX.MDP3".
    instruments : tuple of str
        Instruments to load beside that of the strategy; each of a venue that one of the feeds covers.
    historical_depth : int
        How much history to ask for at the start, in nanoseconds.
    """

    enabled: bool = True
    feeds: tuple[Feed, ...] = ()
    instruments: tuple[InstrumentName, ...] = ()
    historical_depth: Duration = 0


class TardisSource(Struct, frozen=True, kw_only=True):
    """``data_sources.tardis``: a local Tardis Machine.

    Attributes
    ----------
    instruments : tuple of str
        Instruments to load beside that of the strategy.
    historical_depth : int
        How much history to ask for at the start, in nanoseconds. The Tardis client of NautilusTrader answers no such
        request; the catalog does, into which `tengri data import` writes Tardis' files.
    """

    enabled: bool = True
    instruments: tuple[InstrumentName, ...] = ()
    historical_depth: Duration = 0


class CatalogSource(Struct, frozen=True, kw_only=True):
    """``data_sources.catalog``: a ParquetDataCatalog on disk, which answers requests for history."""

    enabled: bool = True
    path: Text
    historical_depth: Duration = 0


class DataSourcesSection(Struct, frozen=True, kw_only=True):
    """``[data_sources]``: live and historical data vendors. Their keys come from the environment only."""

    binance: BinanceSource | None = None
    polymarket: PolymarketSource | None = None
    databento: DatabentoSource | None = None
    tardis: TardisSource | None = None
    catalog: CatalogSource | None = None

    @property
    def enabled(self) -> tuple[str, ...]:
        """Names of the sources that are switched on."""
        found = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return tuple(name for name, source in found if source is not None and source.enabled)

    @property
    def historical_depth(self) -> int:
        """The longest history that a source that is switched on asks for, in nanoseconds."""
        return max((getattr(getattr(self, name), "historical_depth", 0) for name in self.enabled), default=0)


class NodeSection(Struct, frozen=True, kw_only=True):
    """``[node]``: the live node. Orders are executed by NautilusTrader's sandbox, against live prices.

    Attributes
    ----------
    trader_id : str
        Name and number, such as "TENGRI-001".
    starting_balance : Money
        Of the sandbox account, with its currency.
    account_type : str
        "MARGIN" or "CASH".
    history_timeout : int
        How long the strategy waits for history before it begins without, in nanoseconds.
    """

    trader_id: TraderName = "TENGRI-001"
    starting_balance: Annotated[Money, Meta(extra={"kind": "money"})] = Money(Decimal(100_000), "USDT")
    account_type: Annotated[Literal["MARGIN", "CASH"], Meta(extra={"upper": True})] = "MARGIN"
    history_timeout: PositiveDuration = 60_000_000_000


class BacktestSection(Struct, frozen=True, kw_only=True):
    """``[backtest]``: data, account and venue of a simulation.

    Attributes
    ----------
    contract : str
        Row of the contract table (tick, multiplier, currency, fees).
    quotes, trades, depth : tuple of str
        Paths of Parquet or CSV files, in the order of time.
    starting_balance : Money
        Such as "100000 USDT"; a bare number means the contract's currency.
    account_type : str
        "MARGIN" or "CASH".
    order_latency : int
        Simulated delay from the strategy to the venue, in nanoseconds.
    control_drill : bool
        Send a few orders that must be denied, so that the report shows each limit at work.
    """

    contract: Text
    quotes: tuple[Text, ...] = ()
    trades: tuple[Text, ...] = ()
    depth: tuple[Text, ...] = ()
    starting_balance: Annotated[Money, Meta(extra={"kind": "money"})] = Money(Decimal(100_000))
    account_type: Annotated[Literal["MARGIN", "CASH"], Meta(extra={"upper": True})] = "MARGIN"
    order_latency: Duration = 0
    control_drill: bool = False


class ReportSection(Struct, frozen=True, kw_only=True):
    """``[report]``: words that the report shows."""

    title: Text | None = None
    notes: Text | None = None


class ControlSection(Struct, frozen=True, kw_only=True):
    """``[control]``: how a running process is asked for its status and stopped.

    Attributes
    ----------
    socket : str or None
        Path of a Unix socket, or "auto" for the place where `tengri status` and `tengri kill` look by themselves.
    kill_file : str or None
        Path of a file whose existence stops all trading.
    """

    socket: Text | None = None
    kill_file: Text | None = None
