"""Everything that a risk report says about a portfolio, as plain numbers; drawing it is somebody else's work.

A method that cannot be used on these data (too few losses for an extreme-value tail, moments outside the domain of
Cornish-Fisher, SciPy not installed) is a row with its reason, so that one method does not cost the report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError, MissingExtraError
from tengri_fast.risk.attribution import Attribution, attribute
from tengri_fast.risk.estimators import RiskEstimate, risk_model
from tengri_fast.risk.fitted import RiskModel
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.recorded import LimitUse
from tengri_fast.risk.scenarios import ScenarioSet

if TYPE_CHECKING:
    from tengri_fast.risk.stress import StressLibrary, StressResult

__all__ = ["DEFAULT_METHODS", "MethodResult", "RiskReport", "portfolio_returns", "risk_report"]

Floats = npt.NDArray[np.float64]

#: Label: method and options of :mod:`tengri_fast.risk.estimators`.
DEFAULT_METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Historical": ("historical", {}),
    "Age-weighted historical": ("age_weighted", {}),
    "Filtered historical, EWMA": ("filtered", {}),
    "Normal, sample covariance": ("normal", {}),
    "Normal, EWMA covariance": ("normal", {"covariance": "ewma"}),
    "Normal, Ledoit-Wolf covariance": ("normal", {"covariance": "ledoit_wolf"}),
    "Student t": ("student_t", {}),
    "Cornish-Fisher, matched moments": ("cornish_fisher", {"matched": True}),
    "Extreme-value tail": ("peaks_over_threshold", {}),
    "Monte Carlo, t copula": ("monte_carlo", {"paths": 20_000}),
}

_CURVED: Mapping[str, tuple[str, Mapping[str, Any]]] = {"Delta-gamma": ("delta_gamma", {})}
_SIMULATIONS = ("historical", "age_weighted", "filtered")
_LEVELS = (0.99, 0.975)


@dataclass(frozen=True)
class MethodResult:
    """VaR and ES by one method, or why there are none."""

    label: str
    method: str
    level: float
    estimate: RiskEstimate | None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; what is not finite is None."""
        found = self.estimate
        interval = None if found is None else found.interval
        return {
            "label": self.label,
            "method": self.method,
            "level": self.level,
            "var": None if found is None else _finite(found.var),
            "es": None if found is None else _finite(found.es),
            "var_interval": None if interval is None else [_finite(x) for x in interval.var],
            "es_interval": None if interval is None else [_finite(x) for x in interval.es],
            "confidence": None if interval is None else interval.confidence,
            "interval_method": "" if interval is None else interval.method,
            "note": "" if found is None else str(found.details.get("note", "")),
            "problem": self.problem,
        }


@dataclass(frozen=True, eq=False)
class RiskReport:
    """A portfolio's risk.

    Attributes
    ----------
    holdings : Holdings
    methods : tuple of MethodResult
        Empty without returns.
    attributions : mapping of str to Attribution
        "es" and "var" of the first method, at the first level.
    correlation : ndarray, shape (N, N), or None
        Of the returns; NaN for an instrument that never moved.
    stress : StressResult or None
    limits : tuple of LimitUse
    facts : mapping
        Level, horizon, number of scenarios and where they come from.
    notes : tuple of str
        What a reader must know.
    """

    holdings: Holdings
    methods: tuple[MethodResult, ...] = ()
    attributions: Mapping[str, Attribution] = field(default_factory=dict)
    correlation: Floats | None = None
    stress: StressResult | None = None
    limits: tuple[LimitUse, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Every number, as JSON can hold it; what is not finite is None."""
        held = self.holdings
        exposures = held.exposures()
        positions = []
        for i, name in enumerate(held.instrument_ids):
            row: dict[str, Any] = {
                "instrument_id": name,
                "quantity": float(held.quantities[i]),
                "price": float(held.prices[i]),
                "payoff": held.payoffs[i],
                "asset_class": held.asset_classes[i],
                "venue": held.venues[i],
                "currency": held.currencies[i],
                "exposure": float(exposures[i]),
            }
            for measure, split in self.attributions.items():
                for part in ("marginal", "component", "incremental", "share"):
                    row[f"{part}_{measure}"] = _finite(getattr(split, part)[i])
            positions.append(row)
        return {
            "base_currency": held.base_currency,
            "equity": _finite(held.equity),
            "gross": float(np.abs(exposures).sum()),
            "net": float(exposures.sum()),
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "methods": [row.to_dict() for row in self.methods],
            "positions": positions,
            "groups": self.groups(),
            "attribution_notes": {key: list(split.notes) for key, split in self.attributions.items()},
            "correlation": None
            if self.correlation is None
            else [[_finite(x) for x in row] for row in self.correlation.tolist()],
            "stress": [] if self.stress is None else self.stress.rows(),
            "limits": [
                {
                    "rule": use.rule,
                    "scope": use.scope,
                    "value": use.value,
                    "limit": use.limit,
                    "unit": use.unit,
                    "hard": use.hard,
                    "share": None if use.share is None else _finite(use.share),
                    "over": use.share is not None and use.share > 1.0,
                }
                for use in self.limits
            ],
        }

    def groups(self) -> dict[str, dict[str, float]]:
        """Component ES by asset class, venue and currency, where any is known."""
        split = self.attributions.get("es")
        if split is None:
            return {}
        held = self.holdings
        named = {"asset class": held.asset_classes, "venue": held.venues, "currency": held.currencies}
        return {name: split.by([text or "not known" for text in texts]) for name, texts in named.items() if any(texts)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def portfolio_returns(holdings: Holdings, scenarios: ScenarioSet) -> Floats:
    """Rows of a scenario set in the order of the holdings, shape (N, S).

    Raises
    ------
    DataConversionError
        When an instrument that is held has no scenarios; all of them are named.
    """
    rows = [scenarios.row(name) for name in holdings.instrument_ids]
    missing = [
        name
        for name, row, quantity in zip(holdings.instrument_ids, rows, holdings.quantities.tolist(), strict=True)
        if row is None and quantity != 0.0
    ]
    if missing:
        raise DataConversionError(
            f"`scenarios` must hold every instrument of the portfolio, has none for {', '.join(missing)}"
        )
    table = np.zeros((len(rows), scenarios.count))
    for i, row in enumerate(rows):
        if row is not None:
            table[i] = scenarios.returns[row]
    return table


def _correlation(returns: Floats) -> Floats:
    centred = returns - returns.mean(axis=1, keepdims=True)
    size = np.sqrt((centred * centred).sum(axis=1))
    # A rounding error of a constant row is no movement.
    moves = size > 1e-12 * np.abs(returns).max(axis=1, initial=0.0) * math.sqrt(returns.shape[1])
    unit = centred / np.where(moves, size, 1.0)[:, None]
    result = np.clip(unit @ unit.T, -1.0, 1.0)
    result[~moves, :] = np.nan
    result[:, ~moves] = np.nan
    return np.asarray(result)


def risk_report(
    holdings: Holdings,
    scenarios: ScenarioSet | None = None,
    *,
    levels: Sequence[float] = _LEVELS,
    methods: Mapping[str, tuple[str, Mapping[str, Any]]] | None = None,
    confidence: float = 0.95,
    stress: StressLibrary | None = None,
    limits: Sequence[LimitUse] = (),
    seed: int = 0,
) -> RiskReport:
    """Measure a portfolio by every method and split its risk.

    Parameters
    ----------
    holdings : Holdings
        The portfolio; positions of quantity zero are left out.
    scenarios : ScenarioSet, optional
        Joint returns over one horizon, oldest first. Without them there is no VaR, attribution or correlation.
    levels : sequence of float
        Confidences; attribution is at the first.
    methods : mapping, optional
        Label: (method, options) of :mod:`tengri_fast.risk.estimators`; :data:`DEFAULT_METHODS` by default, with
        delta-gamma when a payoff is curved. Attribution is by the first that could be computed.
    confidence : float
        Of the intervals.
    stress : StressLibrary, optional
        Scenarios to value; the built-in library by default.
    limits : sequence of LimitUse
        Passed on.
    seed : int
        Of bootstraps and Monte Carlo.

    Returns
    -------
    RiskReport

    Raises
    ------
    ConfigurationError, DataConversionError
        When an argument breaks its rule, or an instrument has no scenarios.
    """
    from tengri_fast.risk.stress import StressLibrary, stress_test
    from tengri_fast.risk.stress.parts import daily_volatilities

    held = _held(holdings)
    if not levels:
        raise ConfigurationError("`levels` must name at least one, was empty")
    for level in levels:
        if not 0.5 < level < 1.0:
            raise ConfigurationError(f"`level` must be between 0.5 and 1, was {level}")
    notes: list[str] = []
    left_out = len(holdings) - len(held)
    if left_out:
        notes.append(f"{left_out} positions of quantity zero are left out.")
    facts = {"Base currency": held.base_currency, "Positions": f"{len(held):,}"}
    rows: list[MethodResult] = []
    splits: dict[str, Attribution] = {}
    correlation = returns = None
    if not len(held):
        notes.append("The portfolio is empty: there is nothing at risk.")
    elif scenarios is None:
        notes.append("Without scenarios of returns there is no VaR, attribution or correlation.")
    else:
        returns = portfolio_returns(held, scenarios)
        correlation = _correlation(returns)
        facts["Scenarios"] = f"{scenarios.count:,}"
        facts["Horizon"] = _duration(scenarios.horizon_ns)
        facts |= {f"Scenarios, {key}": value for key, value in scenarios.provenance.items()}
        chosen = dict(DEFAULT_METHODS if methods is None else methods)
        if methods is None and (
            (held.codes == 1).any() or np.isfinite(held.gammas).any() or np.isfinite(held.deltas).any()
        ):
            chosen |= _CURVED
        for level in levels:
            for label, (method, options) in chosen.items():
                rows.append(_measured(held, returns, label, method, options, level, confidence, seed, splits))
        thin = scenarios.count * (1.0 - max(levels))
        if thin < 5.0:
            notes.append(f"The tail at {100 * max(levels):g} % holds {thin:.1f} scenarios: estimates are rough.")
    library = StressLibrary.built_in() if stress is None else stress
    volatilities = (
        None if returns is None or scenarios is None or scenarios.count < 2
        else daily_volatilities(returns, scenarios.horizon_ns)
    )  # fmt: skip
    stressed = stress_test(held, library, returns=returns, volatilities=volatilities) if len(held) else None
    if stressed is not None and stressed.failed:
        notes.append(f"{len(stressed.failed)} stress scenarios could not be valued; their rows say why.")
    if not limits:
        notes.append("No use of limits was recorded with this portfolio.")
    return RiskReport(held, tuple(rows), splits, correlation, stressed, tuple(limits), facts, tuple(notes))


def _held(holdings: Holdings) -> Holdings:
    keep = np.flatnonzero(holdings.quantities != 0.0)
    if keep.size == len(holdings):
        return holdings
    arrays = ("quantities", "prices", "multipliers", "rates", "spreads", "depths", "volumes", "deltas", "gammas")
    texts = ("instrument_ids", "payoffs", "asset_classes", "venues", "currencies")
    fields: dict[str, Any] = {name: getattr(holdings, name)[keep] for name in arrays}
    fields |= {name: tuple(getattr(holdings, name)[i] for i in keep) for name in texts}
    return Holdings(**fields, base_currency=holdings.base_currency, equity=holdings.equity)


def _measured(
    held: Holdings,
    returns: Floats,
    label: str,
    method: str,
    options: Mapping[str, Any],
    level: float,
    confidence: float,
    seed: int,
    splits: dict[str, Attribution],
) -> MethodResult:
    """One row; the first that succeeds also fills `splits`."""
    given = {**options, **({"seed": seed} if method == "monte_carlo" else {})}
    try:
        model = risk_model(held, returns, method=method, level=level, **given)
        estimate = model.estimate(confidence, seed=seed)
        if not splits:
            splits["es"] = attribute(model, "es")
            splits["var"] = _split_var(held, returns, model, given)
    except (ConfigurationError, DataConversionError, MissingExtraError) as error:
        return MethodResult(label, method, level, None, str(error))
    return MethodResult(label, method, level, estimate)


def _split_var(held: Holdings, returns: Floats, model: RiskModel, options: Mapping[str, Any]) -> Attribution:
    """VaR of a simulation is the result of one scenario, and so are its parts: averaged over half the tail's ranks to
    both sides where that is possible."""
    ranks = max(round(0.5 * (1.0 - model.level) * returns.shape[1]), 2)
    if model.method in _SIMULATIONS and "bandwidth" not in options:
        try:
            smooth = risk_model(
                held, returns, method=model.method, level=model.level, bandwidth=float(ranks), **options
            )
            return attribute(smooth, "var")
        except DataConversionError:
            # Neighbours of the other sign: the single scenario is what there is.
            return attribute(model, "var")
    return attribute(model, "var")


def _duration(ns: int) -> str:
    for size, unit in ((86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (60_000_000_000, "min"), (10**9, "s")):
        if ns % size == 0:
            return f"{ns // size} {unit}"
    return f"{ns} ns"
