"""What an optimisation answers: weights, what they risk, what bound them, and what happened when there were none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import NeuralIntegrationError

__all__ = ["Binding", "Infeasibility", "InfeasibleError", "OptimisationResult", "SolverFacts"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Binding:
    """A constraint that the weights touch.

    Attributes
    ----------
    name : str
        Such as "upper BTCUSDT" or "turnover".
    shadow_price : float
        By how much the objective gets better per unit that the bound is relaxed (of an equality: raised), in the
        objective's unit. NaN where the method has none.
    """

    name: str
    shadow_price: float


@dataclass(frozen=True)
class Infeasibility:
    """Why no weights satisfy the constraints.

    Attributes
    ----------
    conflict : tuple of str
        Constraints that contradict each other, and any of which could be dropped to resolve it (an irreducible
        infeasible set). Bounds of many single instruments may be named together.
    relaxations : tuple of (str, float)
        The smallest changes, in sum, that make the constraints compatible: bound and by how much.
    """

    conflict: tuple[str, ...]
    relaxations: tuple[tuple[str, float], ...]

    def text(self) -> str:
        """One sentence."""
        less = ", ".join(f"{name} by {amount:.6g}" for name, amount in self.relaxations[:5])
        more = f" and {len(self.relaxations) - 5} more" if len(self.relaxations) > 5 else ""
        blamed = list(self.conflict)
        for family in ("upper ", "lower ", "max_change "):
            members = [name for name in blamed if name.startswith(family)]
            if len(members) > 4:
                blamed = [name for name in blamed if name not in members]
                blamed.append(f"{family}of {len(members)} instruments")
        return f"{' and '.join(blamed)} cannot hold together; the smallest relaxation is {less}{more}"


class InfeasibleError(NeuralIntegrationError):
    """No weights satisfy the constraints; ``infeasibility`` names those to blame (None when the solver failed)."""

    def __init__(self, text: str, infeasibility: Infeasibility | None = None) -> None:
        super().__init__(text)
        self.infeasibility = infeasibility


@dataclass(frozen=True)
class SolverFacts:
    """How the answer was found.

    Attributes
    ----------
    name : str
        Solver and version, or the name of our own method.
    status : str
        As the solver says.
    iterations : int
        Of the solver.
    primal_residual, dual_residual : float
        Of its last iterate; NaN for our own methods.
    seconds : float
        Wall time. The only field that differs between equal runs.
    """

    name: str
    status: str = "optimal"
    iterations: int = 0
    primal_residual: float = math.nan
    dual_residual: float = math.nan
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class OptimisationResult:
    """Weights and everything a report says about them.

    Attributes
    ----------
    method : str
        Such as "minimum variance".
    status : str
        "optimal", "inaccurate" (the solver stopped short of its tolerance), or "fallback: keep" and the like.
    names : tuple of str
        Instruments.
    weights : ndarray, shape (N,)
        Signed exposures as fractions of equity.
    current : ndarray, shape (N,)
        Present weights.
    objective : float
        What was optimised, in the method's own unit: variance, utility, Sharpe ratio, CVaR, ...
    expected_return, volatility : float
        Of the weights, per period of the inputs; NaN without the input.
    value_at_risk, expected_shortfall : float
        On the scenarios given, as fractions of equity, positive for a loss; NaN without scenarios.
    risk_contributions : ndarray, shape (N,)
        Of each instrument to the volatility; they add up to it. NaN without a covariance.
    cost : float
        Of the trades under the cost model, as a fraction of equity; 0 without one.
    binding : tuple of Binding
        The constraints that the weights touch, the dearest first.
    infeasibility : Infeasibility or None
        Set on fallbacks.
    notes : tuple of str
        Repairs and approximations.
    solver : SolverFacts
        How the answer was found.
    quantities : ndarray, shape (N,), or None
        Units of the instruments, in whole lots when lots were given.
    """

    method: str
    status: str
    names: tuple[str, ...]
    weights: Floats
    current: Floats
    objective: float
    expected_return: float
    volatility: float
    risk_contributions: Floats
    solver: SolverFacts
    value_at_risk: float = math.nan
    expected_shortfall: float = math.nan
    cost: float = 0.0
    binding: tuple[Binding, ...] = ()
    infeasibility: Infeasibility | None = None
    notes: tuple[str, ...] = field(default=())
    quantities: Floats | None = None

    @property
    def turnover(self) -> float:
        """Sum of absolute changes from the present weights."""
        return float(np.abs(self.weights - self.current).sum())

    @property
    def gross(self) -> float:
        """Sum of absolute weights."""
        return float(np.abs(self.weights).sum())

    @property
    def net(self) -> float:
        """Sum of the weights."""
        return float(self.weights.sum())

    @property
    def by_name(self) -> dict[str, float]:
        """Weight of each instrument."""
        return dict(zip(self.names, self.weights.tolist(), strict=True))


def risk_of(weights: Floats, covariance: Floats | None) -> tuple[float, Floats]:
    """Volatility, and its additive split over instruments (Euler): w_i (Sw)_i / volatility."""
    if covariance is None:
        return math.nan, np.full(len(weights), math.nan)
    marginal = covariance @ weights
    variance = float(weights @ marginal)
    volatility = math.sqrt(max(variance, 0.0))
    if volatility == 0.0:
        return 0.0, np.zeros(len(weights))
    return volatility, weights * marginal / volatility


def named(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Names of instruments, "0", "1", ... when none are given."""
    return tuple(map(str, range(count))) if names is None else tuple(names)
