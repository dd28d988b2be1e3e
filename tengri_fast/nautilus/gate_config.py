"""Configuration of the risk gate, in Nautilus' own way: a frozen msgspec structure that also comes from a file."""

from __future__ import annotations

from typing import Literal

from nautilus_trader.common.config import ActorConfig
from nautilus_trader.model.data import BarType
from nautilus_trader.model.identifiers import InstrumentId

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk import RiskLimits, VarSettings

__all__ = ["RiskGateConfig"]

_PRICES = ("quotes", "trades", "depth")


class RiskGateConfig(ActorConfig, kw_only=True, frozen=True):
    """Configuration of :class:`~tengri_fast.nautilus.gate.NeuralRiskGate`.

    Parameters
    ----------
    limits : RiskLimits
        What is allowed.
    var : VarSettings, optional
        How value at risk is measured; needed by ``limits.max_portfolio_var``.
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
        Which data the reference price is taken from. Trades are used only while there is no quote.
    bar_types : tuple of BarType, optional
        Bars whose close serves as the price while there is neither quote nor trade.
    cancel_on_kill : bool, default True
        On :meth:`NeuralRiskGate.kill`, cancel every working order that is not reduce-only.
    kill_poll_ms : int, default 100
        How often the node's thread looks whether another thread has killed trading, in milliseconds; 0 means only
        when an event or a command comes by. A kill stops new orders at once in any case; this concerns the
        cancellation of the working ones.
    """

    limits: RiskLimits
    var: VarSettings | None = None
    scenarios: str | None = None
    base_currency: str | None = None
    instrument_ids: tuple[InstrumentId, ...] | None = None
    prices: tuple[Literal["quotes", "trades", "depth"], ...] = ("quotes",)
    bar_types: tuple[BarType, ...] = ()
    cancel_on_kill: bool = True
    kill_poll_ms: int = 100

    def __post_init__(self) -> None:
        """Check every rule that the types cannot say."""
        unknown = [name for name in self.prices if name not in _PRICES]
        if unknown or not (self.prices or self.bar_types):
            raise ConfigurationError(f"`prices` must name some of {', '.join(_PRICES)}, was {list(self.prices)}")
        if self.kill_poll_ms < 0:
            raise ConfigurationError(f"`kill_poll_ms` must be >= 0, was {self.kill_poll_ms}")
        if self.limits.max_portfolio_var is not None and self.var is None:
            raise ConfigurationError("`var` must be given when `limits.max_portfolio_var` is set, was None")
