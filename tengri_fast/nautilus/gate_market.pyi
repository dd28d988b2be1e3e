from collections.abc import Callable
from typing import Any

from nautilus_trader.common.actor import Actor

from tengri_fast.risk import PortfolioState, RiskGate

class GateMarket(Actor):
    alert: Callable[[str], None] | None
    @property
    def gate(self) -> RiskGate: ...
    @property
    def state(self) -> PortfolioState: ...
    def __init__(self, config: Any) -> None: ...
