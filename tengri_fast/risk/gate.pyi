from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypedDict

from tengri_fast.risk.limit_table import LimitTable
from tengri_fast.risk.limits import RiskLimits
from tengri_fast.risk.portfolio import PortfolioState
from tengri_fast.risk.rules import ModelHealth, Rule
from tengri_fast.risk.types import OrderView, Utilisation, Verdict

__all__ = ["RiskGate"]

ASK_MODIFY: int
ASK_CALMER: int
ASK_EXIT_ONLY: int
ASK_COVERED: int
ASK_DRY: int

class Counters(TypedDict):
    checked: int
    allowed: int
    denied: dict[str, int]
    alerts: int

class Diagnostics(TypedDict):
    checks: int
    warnings: int
    clock_backwards: int
    resums: int

class RiskGate(LimitTable):
    extra_rules: tuple[Rule, ...]
    plain: bool

    def __init__(
        self,
        limits: RiskLimits,
        portfolio: PortfolioState,
        *,
        extra_rules: Sequence[Rule] = (),
        on_alert: Callable[[str], None] | None = None,
        on_warning: Callable[[Utilisation], None] | None = None,
    ) -> None: ...
    def warmup(self) -> None: ...
    @property
    def armed(self) -> bool: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def diagnostics(self) -> Diagnostics: ...
    def reset(self) -> None: ...
    def register_health(self, strategy_id: str, source: ModelHealth | None) -> None: ...
    def check(self, order: OrderView, *, calmer: bool = False, dry: bool = False) -> Verdict: ...
    def preview(self, order: OrderView) -> Verdict: ...
    def check_list(self, orders: Sequence[OrderView], *, calmer: AbstractSet[str] = frozenset()) -> Verdict: ...
    def check_modify(
        self,
        order: OrderView,
        new_quantity: float | None = None,
        new_price: float | None = None,
        new_trigger: float | None = None,
        *,
        calmer: bool = False,
    ) -> Verdict: ...
