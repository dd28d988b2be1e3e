"""Stress: what a portfolio would lose in events that were, that might be, and that would be just enough.

>>> from tengri_fast.risk.holdings import Holdings
>>> from tengri_fast.risk.stress import StressLibrary, stress_test
>>> book = Holdings(("AAPL.XNAS", "SPY.ARCA"), [100.0, -20.0], [200.0, 500.0], asset_classes=("equity", "equity"))
>>> library = StressLibrary.built_in().select(["2008-09/10 credit crisis (1d)"])
>>> stress_test(book, library).worst.dates
'2008-10-14 .. 2008-10-15'

Scenarios are in TOML (:mod:`.toml_file`), those that ship were drawn by :mod:`.replays`; :mod:`.engine` values them,
:mod:`.reverse` looks for the smallest shock that breaches a limit, :mod:`.neural` draws from a volatility model.
"""

from __future__ import annotations

from tengri_fast.risk.stress.correlation import nearest_correlation, nearest_covariance, worst_move
from tengri_fast.risk.stress.engine import StressResult, StressRow, stress_test
from tengri_fast.risk.stress.library import StressLibrary, StressMatrix
from tengri_fast.risk.stress.neural import (
    VolatilityState,
    neural_matrix,
    neural_scenarios,
    upper_multiples,
    worst_scenarios,
)
from tengri_fast.risk.stress.parts import StopOrder, liquidation_cost
from tengri_fast.risk.stress.reverse import ReverseStress, reverse_stress, reverse_stress_along
from tengri_fast.risk.stress.scenario import (
    KINDS,
    Correlation,
    Event,
    Gap,
    Jump,
    Liquidity,
    StressScenario,
)

__all__ = [
    "KINDS",
    "Correlation",
    "Event",
    "Gap",
    "Jump",
    "Liquidity",
    "ReverseStress",
    "StopOrder",
    "StressLibrary",
    "StressMatrix",
    "StressResult",
    "StressRow",
    "StressScenario",
    "VolatilityState",
    "liquidation_cost",
    "nearest_correlation",
    "nearest_covariance",
    "neural_matrix",
    "neural_scenarios",
    "reverse_stress",
    "reverse_stress_along",
    "stress_test",
    "upper_multiples",
    "worst_move",
    "worst_scenarios",
]
