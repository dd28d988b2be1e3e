"""Risk: the pre-trade gate and the portfolio it looks at, measures of risk, stress, optimisation and sizing.

>>> from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, RiskGate, RiskLimits
>>> portfolio = PortfolioState([InstrumentFacts("BTCUSDT-PERP.BINANCE", settlement_currency="USDT")])
>>> gate = RiskGate(RiskLimits(max_order_notional=100_000.0), portfolio)
>>> gate.warmup()
>>> portfolio.on_price("BTCUSDT-PERP.BINANCE", 67_099.9, 67_100.1, ts=1)
>>> gate.check(OrderView("O-1", "S-1", "", "BTCUSDT-PERP.BINANCE", quantity=50.0, ts=1)).text()
'TENGRI_RISK:MAX_ORDER_NOTIONAL value=3355000 limit=100000'

The order path is C (``csrc/risk``): it needs neither numba nor SciPy, and importing this imports neither. The analyses
are in modules of their own: :mod:`~tengri_fast.risk.estimators`, :mod:`~tengri_fast.risk.attribution`,
:mod:`~tengri_fast.risk.stress`, :mod:`~tengri_fast.risk.backtest`, :mod:`~tengri_fast.risk.optimise`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tengri_fast.risk.audit_log import AuditLog
from tengri_fast.risk.gate import RiskGate
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.limits import RiskLimits, ScopedLimit
from tengri_fast.risk.manager import NeuralRiskInterface, NeuralRiskManager, OrderAssessment, RiskAssessment
from tengri_fast.risk.measures import expected_shortfall, value_at_risk
from tengri_fast.risk.portfolio import PortfolioState, PositionView, Quote
from tengri_fast.risk.rules import CheckContext, ModelHealth, Rule
from tengri_fast.risk.scenarios import ScenarioSet, scenario_builder
from tengri_fast.risk.types import InstrumentFacts, OrderView, Utilisation, VarSettings, Verdict, Violation
from tengri_fast.risk.windows import TradingWindow

if TYPE_CHECKING:
    from types import ModuleType

    kernels: ModuleType

__all__ = [
    "AuditLog",
    "CheckContext",
    "Holdings",
    "InstrumentFacts",
    "ModelHealth",
    "NeuralRiskInterface",
    "NeuralRiskManager",
    "OrderAssessment",
    "OrderView",
    "PortfolioState",
    "PositionView",
    "Quote",
    "RiskAssessment",
    "RiskGate",
    "RiskLimits",
    "Rule",
    "ScenarioSet",
    "ScopedLimit",
    "TradingWindow",
    "Utilisation",
    "VarSettings",
    "Verdict",
    "Violation",
    "expected_shortfall",
    "kernels",
    "scenario_builder",
    "value_at_risk",
]


def __getattr__(name: str) -> ModuleType:
    # The kernels import numba, which costs a few hundred milliseconds and tens of megabytes: only when asked for.
    if name == "kernels":
        import importlib

        return importlib.import_module("tengri_fast.risk.kernels")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
