"""Portfolio optimisation (extra `risk`): weights, whole lots, and the trades that lead there.

>>> import numpy as np
>>> from tengri_fast.risk.optimise import Constraints, minimum_variance
>>> covariance = np.array([[0.04, 0.01], [0.01, 0.01]])
>>> found = minimum_variance(covariance, Constraints(upper=0.9), names=["A", "B"])
>>> found.weights.round(6).tolist(), [binding.name for binding in found.binding]
([0.1, 0.9], ['budget', 'upper B'])

Convex programs are written down with named rows and solved by Clarabel; SciPy and Clarabel are imported when they are
needed. An infeasible problem names the constraints that contradict each other.
"""

from tengri_fast.risk.optimise.constraints import Constraints, Group, Violation
from tengri_fast.risk.optimise.custom import custom_objective
from tengri_fast.risk.optimise.hierarchy import hierarchical_risk_parity, quasi_diagonal_order
from tengri_fast.risk.optimise.inputs import Costs, checked_covariance, unit_exposures, weight_scenarios, weights_of
from tengri_fast.risk.optimise.lots import LotRounding, round_to_lots
from tengri_fast.risk.optimise.methods import maximum_sharpe, mean_variance, minimum_cvar, minimum_variance
from tengri_fast.risk.optimise.parity import risk_parity
from tengri_fast.risk.optimise.portfolio import METHODS, optimise_portfolio
from tengri_fast.risk.optimise.program import SolverSettings
from tengri_fast.risk.optimise.rebalance import Rebalancing, SkippedTrade, Trade, suggest_rebalancing
from tengri_fast.risk.optimise.result import Binding, Infeasibility, InfeasibleError, OptimisationResult, SolverFacts
from tengri_fast.risk.optimise.views import (
    Posterior,
    SignalView,
    Views,
    black_litterman,
    implied_returns,
    views_from_signals,
)

__all__ = [
    "METHODS",
    "Binding",
    "Constraints",
    "Costs",
    "Group",
    "Infeasibility",
    "InfeasibleError",
    "LotRounding",
    "OptimisationResult",
    "Posterior",
    "Rebalancing",
    "SignalView",
    "SkippedTrade",
    "SolverFacts",
    "SolverSettings",
    "Trade",
    "Views",
    "Violation",
    "black_litterman",
    "checked_covariance",
    "custom_objective",
    "hierarchical_risk_parity",
    "implied_returns",
    "maximum_sharpe",
    "mean_variance",
    "minimum_cvar",
    "minimum_variance",
    "optimise_portfolio",
    "quasi_diagonal_order",
    "risk_parity",
    "round_to_lots",
    "suggest_rebalancing",
    "unit_exposures",
    "views_from_signals",
    "weight_scenarios",
    "weights_of",
]
