"""The whole way from holdings to weights and whole lots, by the name of a method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.measures import expected_shortfall, value_at_risk
from tengri_fast.risk.optimise.constraints import Constraints
from tengri_fast.risk.optimise.hierarchy import hierarchical_risk_parity
from tengri_fast.risk.optimise.inputs import Costs, checked_equity, unit_exposures, weight_scenarios, weights_of
from tengri_fast.risk.optimise.lots import round_to_lots
from tengri_fast.risk.optimise.methods import maximum_sharpe, mean_variance, minimum_cvar, minimum_variance
from tengri_fast.risk.optimise.parity import risk_parity
from tengri_fast.risk.optimise.program import SolverSettings
from tengri_fast.risk.optimise.result import OptimisationResult, risk_of
from tengri_fast.risk.optimise.views import Views, black_litterman

__all__ = ["METHODS", "optimise_portfolio"]

METHODS = (
    "min_variance",
    "mean_variance",
    "max_sharpe",
    "risk_parity",
    "hierarchical_risk_parity",
    "min_cvar",
    "black_litterman",
)


def optimise_portfolio(
    holdings: Holdings, method: str = "min_variance", *, covariance: npt.ArrayLike | None = None,
    returns: npt.ArrayLike | None = None, expected: npt.ArrayLike | None = None, views: Views | None = None,
    constraints: Constraints | None = None, costs: Costs | None = None, risk_aversion: float = 1.0,
    risk_free: float = 0.0, level: float = 0.95, lots: npt.ArrayLike | None = None,
    settings: SolverSettings | None = None,
) -> OptimisationResult:  # fmt: skip
    """Optimal weights of the instruments of a portfolio, and the quantities that they are.

    Parameters
    ----------
    holdings : Holdings
        With prices and equity; the present weights are theirs, payoffs are revalued.
    method : str
        One of :data:`METHODS`. "black_litterman" is mean-variance on the returns after `views`.
    covariance : array_like, shape (N, N), optional
        Of returns of weights; that of the scenarios when it is not given.
    returns : array_like, shape (N, S), optional
        Scenarios of relative price moves; needed by "min_cvar", and for VaR and ES of the result.
    expected : array_like, shape (N,), optional
        Expected returns, needed by "mean_variance" and "max_sharpe"; the prior of "black_litterman".
    views : Views, optional
        For "black_litterman".
    constraints, costs, risk_aversion, risk_free, level, settings
        As in the methods.
    lots : array_like, shape (N,) or scalar, optional
        Smallest quantity of each instrument; without it quantities are not rounded.

    Returns
    -------
    OptimisationResult
        With `quantities`; with lots, weights are those of the whole lots and the note tells what rounding changed.

    Raises
    ------
    ConfigurationError
        When the method is unknown or lacks an input.
    DataConversionError, InfeasibleError, MissingExtraError
        As the methods.
    """
    if method not in METHODS:
        raise ConfigurationError(f"`method` must be one of {', '.join(METHODS)}, was {method!r}")
    names = holdings.instrument_ids
    current = weights_of(holdings)
    table = None if returns is None else weight_scenarios(holdings, returns)
    matrix = covariance if covariance is not None else None if table is None else np.atleast_2d(np.cov(table))
    if matrix is None and method != "min_cvar":
        raise ConfigurationError("`covariance` or `returns` must be given, were None")
    if method in ("mean_variance", "max_sharpe") and expected is None:
        raise ConfigurationError(f"`expected` must be given for {method}, was None")
    common = {"names": names, "current": current, "settings": settings}
    if method == "min_variance":
        found = minimum_variance(matrix, constraints, **common)  # type: ignore[arg-type]
    elif method == "mean_variance":
        found = mean_variance(expected, matrix, constraints, risk_aversion=risk_aversion, costs=costs, **common)  # type: ignore[arg-type]
    elif method == "max_sharpe":
        found = maximum_sharpe(expected, matrix, constraints, risk_free=risk_free, **common)  # type: ignore[arg-type]
    elif method == "risk_parity":
        found = risk_parity(matrix, constraints, **common)  # type: ignore[arg-type]
    elif method == "hierarchical_risk_parity":
        found = hierarchical_risk_parity(matrix, constraints, **common)  # type: ignore[arg-type]
    elif method == "min_cvar":
        if table is None:
            raise ConfigurationError("`returns` must be given for min_cvar, was None")
        found = minimum_cvar(table, constraints, level=level, expected=expected, covariance=matrix, **common)  # type: ignore[arg-type]
    else:
        if views is None:
            raise ConfigurationError("`views` must be given for black_litterman, was None")
        after = black_litterman(matrix, views, prior=expected)  # type: ignore[arg-type]
        found = mean_variance(
            after.expected,
            after.covariance,
            constraints,
            risk_aversion=risk_aversion,
            costs=costs,
            **common,  # type: ignore[arg-type]
        )
        found = replace(found, method="Black-Litterman")
    means = after.expected if method == "black_litterman" else expected
    return _with_quantities(holdings, found, constraints, costs, matrix, table, level, lots, means)


def _with_quantities(
    holdings: Holdings, found: OptimisationResult, constraints: Constraints | None, costs: Costs | None,
    matrix: npt.ArrayLike | None, table: npt.ArrayLike | None, level: float, lots: npt.ArrayLike | None,
    means: npt.ArrayLike | None,
) -> OptimisationResult:  # fmt: skip
    units = unit_exposures(holdings) / checked_equity(holdings)
    covariance = None if matrix is None else np.asarray(matrix, dtype=np.float64)
    scenarios = None if table is None else np.asarray(table, dtype=np.float64)
    weights, quantities, notes = found.weights, found.weights / units, found.notes
    if lots is not None:
        rules = Constraints() if constraints is None else constraints
        made = round_to_lots(weights, units, lots, rules, found.names, covariance=covariance, current=found.current)
        how = "every rounding tried" if made.exact else "greedy"
        text = f"rounded to lots ({how}): tracking error {made.tracking_error:.3g}"
        if made.broken and not found.status.startswith("fallback"):
            text += f"; no rounding found keeps {', '.join(made.broken)}"
        weights, quantities, notes = made.weights, made.quantities, (*notes, text)
    volatility, contributions = risk_of(weights, covariance)
    pnl = None if scenarios is None else weights @ scenarios
    change = weights - found.current
    return replace(
        found,
        weights=weights,
        quantities=quantities,
        volatility=volatility,
        risk_contributions=contributions,
        expected_return=found.expected_return if means is None else float(np.asarray(means) @ weights),
        value_at_risk=found.value_at_risk if pnl is None else value_at_risk(pnl, level),
        expected_shortfall=found.expected_shortfall if pnl is None else expected_shortfall(pnl, level),
        cost=found.cost if costs is None else float(costs.of_changes(change).sum()),
        notes=notes,
    )
