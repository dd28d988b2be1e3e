"""What a configuration means in NautilusTrader's words: data, model, fees, and the settings of gate and strategy.

Every function here reads the configuration and builds one part; :mod:`tengri_fast.nautilus.backtest` puts the parts
together. What does not fit is refused with the key that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
from nautilus_trader.backtest.models import FeeModel
from nautilus_trader.model.enums import LiquiditySide
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Money

from tengri_fast.errors import ConfigurationError
from tengri_fast.features.names import configured_features
from tengri_fast.market import QuoteColumns, read_depth, read_quotes, read_trades
from tengri_fast.market.contracts import InstrumentContract
from tengri_fast.nautilus.config import TengriNeuralConfig
from tengri_fast.nautilus.gate_config import RiskGateConfig
from tengri_fast.nautilus.gate_inputs import AuditSettings, RollingSettings, StressSettings
from tengri_fast.nautilus.loaders import MarketData
from tengri_fast.risk import ScenarioSet, VarSettings, scenario_builder
from tengri_fast.risk.sizing_settings import SizingSettings
from tengri_fast.runtime.model_spec import ALIASES, ModelBundle, load_bundle
from tengri_fast.runtime.risk_settings import buckets_of, limits_of, stressed, var_of

if TYPE_CHECKING:
    from tengri_fast.runtime.config import TengriConfig

__all__ = [
    "ContractFees",
    "backtest_section",
    "best_prices",
    "data_file",
    "first_mid",
    "gate_config",
    "load_market_data",
    "mid_prices",
    "model_of",
    "scenarios_of",
    "sizing_of",
    "strategy_config",
]

_SCENARIO_STEP_NS = 1_000_000_000
_QUOTE_FIELDS = ("bid_price", "ask_price", "bid_size", "ask_size")


class ContractFees(FeeModel):
    """Fees of a row of the contract table: a rate on turnover and an amount per contract."""

    def __init__(self, row: InstrumentContract) -> None:
        self._row = row

    def get_commission(self, order: Any, fill_qty: Any, fill_px: Any, instrument: Instrument) -> Money:
        """Fee of one fill in the quote currency."""
        maker = order.liquidity_side == LiquiditySide.MAKER
        fee = self._row.fee(fill_qty.as_double(), fill_px.as_double(), maker=maker)
        return Money(fee, instrument.quote_currency)


def data_file(config: TengriConfig, path: str, key: str) -> Path:
    """Where a data file named under `key` lies, or a ConfigurationError that says where it was looked for."""
    try:
        return config.resolve(path, key)
    except ConfigurationError as error:
        if "must name an existing file" not in str(error):
            raise
        # Larger data sets do not ship: say where the file would be looked for, and under which name it is known.
        expected = error.args[0].rpartition("looked for ")[2].split(", ")[0]
        raise config.error(
            key,
            f"names a data file that is not here: {Path(expected).name} is expected at {expected} (its name in "
            f"MANIFEST.md of the data set; the folder of the data set may be given in TENGRI_SHARED_DATA)",
        ) from None


def _join(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    names = [item.name for item in fields(parts[0])]
    return type(parts[0])(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def load_market_data(config: TengriConfig, instrument: Instrument) -> tuple[MarketData, dict[str, Path]]:
    """Read the files of ``[backtest]``.

    Parameters
    ----------
    config : TengriConfig
        With a ``[backtest]`` section.
    instrument : Instrument
        The instrument they belong to.

    Returns
    -------
    tuple of (MarketData, dict)
        The data, and the path of each file by its name.

    Raises
    ------
    ConfigurationError
        When a file is not where it is expected; the message says where that is.
    DataConversionError
        When a file does not hold what it should.
    """
    section = backtest_section(config)
    paths: dict[str, Path] = {}
    columns: dict[str, Any] = {}
    readers: dict[str, Callable[[Path], Any]] = {"quotes": read_quotes, "trades": read_trades, "depth": read_depth}
    for kind in readers:
        parts = []
        for i, text in enumerate(getattr(section, kind)):
            path = data_file(config, text, f"backtest.{kind}[{i}]")
            paths[path.name] = path
            parts.append(readers[kind](path))
        columns[kind] = _join(parts) if parts else None
    return MarketData(instrument, **columns), paths


def backtest_section(config: TengriConfig) -> Any:
    """``[backtest]``, or a ConfigurationError when there is none."""
    if config.backtest is None:
        raise config.error("backtest", "must be given for a backtest, was missing")
    return config.backtest


def model_of(config: TengriConfig) -> tuple[Path, ModelBundle]:
    """Path and content of the one model of ``[neural]``.

    Raises
    ------
    ConfigurationError
        When it is not what the configuration says of it.
    ModelLoadingError
        When it cannot be loaded.
    """
    models = config.neural.models
    if len(models) != 1:
        raise config.error("neural.models", f"must hold one model, this version runs no ensembles, held {len(models)}")
    path = config.resolve(models[0].config, "neural.models[0].config")
    bundle = load_bundle(path)
    wanted, found = (ALIASES.get(name, name) for name in (models[0].type, bundle.spec.type))
    if wanted != found:
        raise config.error("neural.models[0].type", f"must be what {models[0].config} declares ({found}), was {wanted}")
    listed = config.neural.features.external_data
    allowed = {source for read in configured_features(external_data=listed) for source in read.sources}
    for source in bundle.plan.sources:
        if source not in allowed:
            raise config.error(
                "neural.features.external_data",
                f"must list the source {source!r}, which the model {bundle.spec.id!r} reads, was {list(listed)}",
            )
    frequency = config.neural.inference.inference_frequency
    if frequency is not None and not (frequency.unit == "tick" and frequency.every == 1):
        raise config.error(
            "neural.inference.inference_frequency",
            f'must agree with the clock of the model ("tick": one step per {bundle.spec.inputs.clock}), '
            f"was {frequency}",
        )
    return path, bundle


def scenarios_of(config: TengriConfig, instrument: Instrument, settings: VarSettings) -> ScenarioSet | None:
    """The return scenarios of ``[risk.scenarios]``: a saved set, or made from a file of quotes; None: collected."""
    source = config.risk.scenarios
    if source.source != "file" or source.path is None:
        return None
    path = data_file(config, source.path, "risk.scenarios.path")
    if path.suffix == ".npz":
        return ScenarioSet.from_file(path)
    return scenario_builder(
        {instrument.id.value: read_quotes(path)},
        horizon_ns=settings.horizon_ns,
        step_ns=_SCENARIO_STEP_NS,
    )


def gate_config(
    config: TengriConfig, instrument: Instrument, prices: tuple[str, ...], base: str, *, kill_poll_ms: int = 0
) -> RiskGateConfig:
    """The gate's configuration from ``[risk]``."""
    risk = config.risk
    limits = limits_of(risk)
    rolling, stress, audit = None, None, None
    if limits.collar_reference == "last" and limits.price_collar_bps is not None:
        prices = (*prices, "trades")
    if risk.scenarios.source == "rolling" and limits.needs_scenarios:
        keep = risk.scenarios.keep
        # Scenarios are renewed at the gate's timer, which a simulation otherwise does without.
        kill_poll_ms = kill_poll_ms or max(risk.scenarios.refresh // 1_000_000, 1)
        rolling = RollingSettings(
            step_ns=risk.scenarios.step,
            refresh_ns=risk.scenarios.refresh,
            max_gap_ns=max(5 * risk.scenarios.step, 5_000_000_000),
            keep=None if keep is None else str(config.place(keep, "risk.scenarios.keep")),
        )
    if stressed(risk) is not None:
        stress = StressSettings(
            library=risk.stress.library,
            files=tuple(str(config.resolve(path, "risk.stress.files")) for path in risk.stress.files),
            volatility=risk.stress.volatility,
        )
    if risk.audit.path is not None:
        audit = AuditSettings(path=str(config.place(risk.audit.path, "risk.audit.path")), sync=risk.audit.sync)
    return RiskGateConfig(
        limits=limits,
        var=var_of(risk, base),
        base_currency=base,
        instrument_ids=(instrument.id,),
        prices=prices,  # type: ignore[arg-type]
        buckets=buckets_of(risk),
        stress=stress,
        rolling=rolling,
        audit=audit,
        state=None if risk.state is None else str(config.place(risk.state, "risk.state")),
        kill_poll_ms=kill_poll_ms,
    )


def sizing_of(config: TengriConfig) -> SizingSettings | None:
    """How entries are sized: ``[risk.sizing]`` with ``dynamic_position_sizing``, else None for the fixed size."""
    risk = config.risk
    if not risk.dynamic_position_sizing:
        return None
    values = msgspec.structs.asdict(risk.sizing)
    if risk.max_portfolio_var is not None:
        # Without a gate of its own the strategy keeps to the limit that the gate would enforce.
        values |= {"var_limit": risk.max_portfolio_var, "var_level": risk.var.level, "var_horizon": risk.var.horizon}
    try:
        return SizingSettings(**values)
    except ConfigurationError as error:
        raise config.error("risk.sizing", str(error)) from None


def strategy_config(config: TengriConfig, row: InstrumentContract, model: Path, first_mid: float) -> TengriNeuralConfig:
    """The strategy's configuration from ``[strategy]``, ``[policy]`` and ``[neural]``."""
    policy = config.policy
    # The file gives the fee of one fill, the strategy wants that of a round trip.
    fee_bps = policy.fee_bps
    if fee_bps is None:
        fee_bps = row.taker_bps + 1e4 * row.fee_per_contract / (row.multiplier * first_mid)
    return TengriNeuralConfig(
        strategy_id=config.strategy.strategy_id,
        order_id_tag=config.strategy.order_id_tag,
        instrument_id=config.strategy.instrument_id,
        trade_size=config.strategy.trade_size,
        sizing=sizing_of(config),
        model=str(model),
        threshold_bps=policy.threshold_bps,
        exit_bps=policy.exit_bps,
        fee_bps=2.0 * fee_bps,
        min_confidence=policy.min_confidence,
        max_holding=policy.max_holding,
        cooldown=policy.cooldown,
        warm_up=config.neural.inference.model_warm_up_period,
        record_signals=True,
        stamp_latency=True,
    )


def best_prices(data: MarketData) -> QuoteColumns:
    """Best prices and sizes: the quotes, or the first level of the book; a ConfigurationError without either."""
    if data.quotes is not None:
        return data.quotes
    depth = data.depth
    if depth is None:
        raise ConfigurationError("`backtest` must have quotes or depth, had trades only")
    first = [np.ascontiguousarray(getattr(depth, name)[:, 0]) for name in _QUOTE_FIELDS]
    return QuoteColumns(depth.ts_event, depth.ts_init, *first)


def mid_prices(tops: QuoteColumns) -> npt.NDArray[np.float64]:
    """Mid of each best bid and ask, float64 [n]; NaN where one is missing or they are crossed."""
    usable = (tops.bid_price > 0) & (tops.ask_price >= tops.bid_price)
    return np.where(usable, tops.bid_price + 0.5 * (tops.ask_price - tops.bid_price), np.nan)


def first_mid(data: MarketData) -> float:
    """The first mid there is, or a ConfigurationError."""
    mids = mid_prices(best_prices(data))
    good = mids[np.isfinite(mids)]
    if not good.size:
        raise ConfigurationError("`backtest` data must hold at least one valid two-sided quote, held none")
    return float(good[0])
