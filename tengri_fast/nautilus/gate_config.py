"""Configuration of the risk gate, in Nautilus' own way: a frozen msgspec structure that also comes from a file."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from nautilus_trader.common.config import ActorConfig
from nautilus_trader.model.data import BarType
from nautilus_trader.model.identifiers import InstrumentId

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus.gate_inputs import AuditSettings, RollingSettings, StressSettings
from tengri_fast.risk import RiskLimits, VarSettings
from tengri_fast.risk.audit import SYNCS

__all__ = ["RiskGateConfig", "check_needs"]

_PRICES = ("quotes", "trades", "depth")


class RiskGateConfig(ActorConfig, kw_only=True, frozen=True):
    """Configuration of :class:`~tengri_fast.nautilus.gate.NeuralRiskGate`.

    Parameters
    ----------
    limits : RiskLimits
        What is allowed.
    var : VarSettings, optional
        How value at risk is measured; needed by the limits on value at risk, expected shortfall and stress loss.
    scenarios : str, optional
        Path of the scenario file for value at risk. Without it the gate has no scenarios until
        :meth:`NeuralRiskGate.load_scenarios` is called, and until then only reducing orders pass.
    base_currency : str, optional
        Currency of the limits in money when there is no `var` (which has its own); None means the settlement currency
        of the first instrument.
    instrument_ids : tuple of InstrumentId, optional
        Instruments whose prices are followed from the start; None means all that the cache holds. Any other
        instrument is added when its first order comes.
    prices : tuple of {"quotes", "trades", "depth"}, default ("quotes",)
        Which data the reference price is taken from. Trades are used only while there is no quote, and for the last
        price that a limit may ask for.
    bar_types : tuple of BarType, optional
        Bars whose close serves as the price while there is neither quote nor trade.
    buckets : dict of str to str, optional
        Correlation bucket by instrument id, a scope for limits; "*" stands for those not named.
    short_rules : dict of str to {"allowed", "forbidden", "uptick"}, optional
        Whether a position below zero may be opened, by instrument id; "*" stands for those not named, which are
        otherwise allowed.
    ask_status : bool, default True
        Ask the data clients for the status of each instrument. Switch it off where a client does not offer it and only
        logs an error; statuses that others ask for are heard in any case.
    stress : StressSettings, optional
        Which scenarios ``limits.max_stress_loss`` is measured in; None: those given to
        :meth:`NeuralRiskGate.load_stress`.
    rolling : RollingSettings, optional
        Collect return scenarios while running, instead of `scenarios`.
    audit : AuditSettings, optional
        Log every decision before it is carried out.
    state : str, optional
        Path of the file that keeps switches, the day's and the peak equity between runs.
    cancel_on_kill : bool, default True
        On :meth:`NeuralRiskGate.kill`, cancel every working order that is not reduce-only.
    kill_poll_ms : int, default 100
        How often the node's thread looks whether another thread has killed trading, and at the losses of the day, in
        milliseconds; 0 means only when an event or a command comes by. A kill stops new orders at once in any case;
        this concerns the cancellation of the working ones.
    """

    limits: RiskLimits
    var: VarSettings | None = None
    scenarios: str | None = None
    base_currency: str | None = None
    instrument_ids: tuple[InstrumentId, ...] | None = None
    prices: tuple[Literal["quotes", "trades", "depth"], ...] = ("quotes",)
    bar_types: tuple[BarType, ...] = ()
    buckets: dict[str, str] = msgspec.field(default_factory=dict)
    short_rules: dict[str, Literal["allowed", "forbidden", "uptick"]] = msgspec.field(default_factory=dict)
    ask_status: bool = True
    stress: StressSettings | None = None
    rolling: RollingSettings | None = None
    audit: AuditSettings | None = None
    state: str | None = None
    cancel_on_kill: bool = True
    kill_poll_ms: int = 100

    def __post_init__(self) -> None:
        """Check every rule that the types cannot say."""
        unknown = [name for name in self.prices if name not in _PRICES]
        if unknown or not (self.prices or self.bar_types):
            raise ConfigurationError(f"`prices` must name some of {', '.join(_PRICES)}, was {list(self.prices)}")
        if self.kill_poll_ms < 0:
            raise ConfigurationError(f"`kill_poll_ms` must be >= 0, was {self.kill_poll_ms}")
        if self.rolling is not None and (self.var is None or self.scenarios is not None or not self.kill_poll_ms):
            raise ConfigurationError(
                "`rolling` needs `var`, no `scenarios` file, and `kill_poll_ms` > 0, at which scenarios are renewed"
            )
        if self.audit is not None and self.audit.sync not in SYNCS:
            raise ConfigurationError(f"`audit.sync` must be one of {', '.join(SYNCS)}, was {self.audit.sync!r}")
        check_needs(self.limits, self)


def check_needs(limits: RiskLimits, config: Any) -> None:
    """Check that a gate of this configuration can feed these limits.

    Raises
    ------
    ConfigurationError
        When something that a limit reads is not configured.
    """
    for field in ("max_portfolio_var", "max_portfolio_es", "max_stress_loss"):
        if getattr(limits, field) is not None and config.var is None:
            raise ConfigurationError(f"`var` must be given when `limits.{field}` is set, was None")
    if limits.collar_reference == "last" and limits.price_collar_bps is not None and "trades" not in config.prices:
        raise ConfigurationError(
            f'`prices` must name trades when `limits.collar_reference` is "last", was {list(config.prices)}'
        )
