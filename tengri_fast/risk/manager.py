"""One object for whoever asks about risk: how it stands, whether an order may go, and what would be better.

The gate answers on the order path; this is for the questions around it. Everything is computed when asked, from the
portfolio that the gate itself reads, so that what is reported is what is enforced.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.gate_scenarios import overlap
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.measures import expected_shortfall, value_at_risk
from tengri_fast.risk.types import OrderView, Utilisation, Verdict

if TYPE_CHECKING:
    from tengri_fast.risk.fitted import RiskEstimate
    from tengri_fast.risk.gate import RiskGate
    from tengri_fast.risk.optimise import OptimisationResult, Rebalancing
    from tengri_fast.risk.portfolio import PortfolioState
    from tengri_fast.risk.scenarios import ScenarioSet
    from tengri_fast.risk.stress import StressLibrary, StressResult, StressScenario

__all__ = ["NeuralRiskInterface", "NeuralRiskManager", "OrderAssessment", "RiskAssessment"]

Floats = npt.NDArray[np.float64]
#: Methods of the gate whose scenarios are no past returns in their order.
_MADE = ("filtered", "monte_carlo")
_TAIL_LIMITS = {"MAX_PORTFOLIO_VAR": value_at_risk, "MAX_PORTFOLIO_ES": expected_shortfall}


class NeuralRiskInterface(Protocol):
    """What the rest of the system needs of a risk manager."""

    def calculate_var(self, method: str = "historical", **options: Any) -> RiskEstimate:
        """Value at risk and expected shortfall of the portfolio."""

    def stress_test(
        self, library: StressLibrary | Iterable[StressScenario] | None = None, **options: Any
    ) -> StressResult:
        """The portfolio in every scenario of a library."""

    def optimize_portfolio(self, method: str = "min_variance", **options: Any) -> OptimisationResult:
        """Weights that are optimal by a method."""


@dataclass(frozen=True)
class RiskAssessment:
    """How the portfolio stands.

    Attributes
    ----------
    metrics : mapping of str to float
        ``equity``, ``gross_exposure``, ``net_exposure``, ``leverage``, ``value_at_risk``, ``expected_shortfall``,
        ``stress_loss``, ``positions``, ``working_orders``; money in base currency, a loss is positive, NaN where
        something is not known (``notes`` say why). Value at risk and expected shortfall are those of the worst case of
        working orders, as the gate takes them.
    limits : tuple of Utilisation
        Every limit with what is used of it.
    breaches : tuple of Utilisation
        Limits that are passed. Orders that add to them are denied; nothing is closed by itself.
    warnings : tuple of Utilisation
        Limits used beyond the lowest share at which the gate warns.
    recommendations : tuple of str
        What would bring the portfolio back, most urgent first.
    notes : tuple of str
        What is not known, and what stops trading.
    """

    metrics: Mapping[str, float]
    limits: tuple[Utilisation, ...]
    breaches: tuple[Utilisation, ...]
    warnings: tuple[Utilisation, ...]
    recommendations: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def acceptable(self) -> bool:
        """Whether no limit is passed and nothing is unknown or stopped."""
        return not self.breaches and not self.notes


@dataclass(frozen=True)
class OrderAssessment:
    """What an order would do.

    Attributes
    ----------
    verdict : Verdict
        The gate's answer.
    before, after : mapping of str to (float, float)
        Value at risk and expected shortfall by case of working orders, without and with the order; empty where no
        scenarios are loaded or something cannot be valued.
    """

    verdict: Verdict
    before: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    after: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def allowed(self) -> bool:
        """Whether the gate would let the order pass."""
        return self.verdict.allowed

    @property
    def change(self) -> float:
        """By how much the worst value at risk would rise; NaN when it is not known."""
        if not self.before or not self.after:
            return math.nan
        return max(var for var, _ in self.after.values()) - max(var for var, _ in self.before.values())


class NeuralRiskManager:
    """Assess, validate, measure, stress and optimise the portfolio behind a gate.

    Parameters
    ----------
    gate : RiskGate
        Limits and portfolio.
    library : StressLibrary, optional
        Of :meth:`stress_test`; what ships by default.

    Examples
    --------
    >>> from tengri_fast.risk import InstrumentFacts, NeuralRiskManager, OrderView, PortfolioState, RiskGate, RiskLimits
    >>> portfolio = PortfolioState([InstrumentFacts("BTC.X")])
    >>> gate = RiskGate(RiskLimits(max_position=5.0), portfolio)
    >>> gate.warmup()
    >>> portfolio.on_price("BTC.X", 99.0, 101.0, ts=1)
    >>> manager = NeuralRiskManager(gate)
    >>> manager.validate_order(OrderView("O-1", "S", "", "BTC.X", quantity=6.0, ts=1)).verdict.text()
    'TENGRI_RISK:MAX_POSITION value=6 limit=5'
    """

    def __init__(self, gate: RiskGate, *, library: StressLibrary | None = None) -> None:
        self.gate = gate
        self._library = library

    @property
    def portfolio(self) -> PortfolioState:
        """The portfolio that the gate reads."""
        return self.gate.portfolio

    # -- how it stands -----------------------------------------------------------------------------------------------

    def evaluate_risk(self) -> RiskAssessment:
        """Metrics, limits and recommendations; never raises for something that is not known, but says so."""
        portfolio, gate = self.portfolio, self.gate
        notes = [f"an event could not be booked: {fault}" for fault in portfolio.faults]
        notes += [f"trading is stopped by {name}: {reason}" for name, reason in gate.kills.items()]
        if not gate.armed:
            notes.append("the gate is not armed: only reducing orders pass")
        metrics = dict.fromkeys(
            (
                "equity",
                "gross_exposure",
                "net_exposure",
                "leverage",
                "value_at_risk",
                "expected_shortfall",
                "stress_loss",
            ),
            math.nan,
        )
        metrics["equity"] = portfolio.equity
        metrics["positions"] = float(len(portfolio.positions()))
        metrics["working_orders"] = float(len(portfolio.working_orders()))
        holdings: Holdings | None = None
        try:
            holdings = portfolio.holdings()
        except DataConversionError as error:
            notes.append(str(error))
        if holdings is not None:
            exposures = holdings.exposures()
            metrics["gross_exposure"] = float(np.abs(exposures).sum())
            metrics["net_exposure"] = float(exposures.sum())
            if portfolio.equity > 0.0:
                metrics["leverage"] = metrics["gross_exposure"] / portfolio.equity
        if portfolio.scenarios_ready:
            try:
                tails = self._tails()
                metrics["value_at_risk"] = max(var for var, _ in tails.values())
                metrics["expected_shortfall"] = max(es for _, es in tails.values())
            except DataConversionError as error:
                notes.append(str(error))
        limits = tuple(gate.utilisation())
        stress = [row.value for row in limits if row.code == "MAX_STRESS_LOSS"]
        if stress and portfolio.equity > 0.0:
            metrics["stress_loss"] = stress[0] * portfolio.equity
        warn = min(gate.limits.warn_at, default=math.inf)
        breaches = tuple(row for row in limits if row.share > 1.0 + 1e-12)
        warnings = tuple(row for row in limits if warn <= row.share <= 1.0 + 1e-12)
        unknown = [row for row in limits if math.isnan(row.value)]
        notes += [f"{row.code} of {row.scope} is not known" for row in unknown]
        said = self._recommendations(breaches, holdings)
        return RiskAssessment(metrics, limits, breaches, warnings, tuple(said), tuple(notes))

    def _tails(self) -> dict[str, tuple[float, float]]:
        portfolio = self.portfolio
        cases: Sequence[Any] = ("filled", "buys", "sells", "worst") if portfolio.working_orders() else ("filled",)
        return {case: (portfolio.value_at_risk(case), portfolio.expected_shortfall(case)) for case in cases}

    def _recommendations(self, breaches: tuple[Utilisation, ...], holdings: Holdings | None) -> list[str]:
        said: list[str] = []
        for row in sorted(breaches, key=lambda row: -row.share):
            tail = _TAIL_LIMITS.get(row.code)
            if tail is not None and holdings is not None and len(holdings) and self._plain_tail():
                text = self._cut(row, holdings)
                if text:
                    said.append(text)
                    continue
            said.append(
                f"{row.code} of {row.scope} is at {row.share:.0%} of its limit ({row.value:.6g} of {row.limit:.6g}): "
                "only orders that reduce positions pass until it is below"
            )
        return said

    def _plain_tail(self) -> bool:
        """Whether the gate reads an order statistic of equal weights."""
        settings = self.portfolio.var_settings
        return settings is not None and settings.tail == "empirical" and settings.method != "age_weighted"

    def _cut(self, row: Utilisation, holdings: Holdings) -> str:
        """The smallest cut of one position that brings the tail of what is filled below its limit."""
        tail, level = _TAIL_LIMITS[row.code], self._level()
        unit = holdings.unit_pnl(self._returns(holdings))
        total = holdings.quantities @ unit
        limit = row.limit * self.portfolio.equity
        best: tuple[float, int, float] | None = None
        for i, quantity in enumerate(holdings.quantities.tolist()):
            if not tail(total - quantity * unit[i], level) <= limit:
                continue
            low, high = 0.0, 1.0
            # Risk need not fall along the way, but at `high` it is below the limit, and bisection keeps that.
            for _ in range(40):
                middle = 0.5 * (low + high)
                if tail(total - middle * quantity * unit[i], level) <= limit:
                    high = middle
                else:
                    low = middle
            cost = high * abs(float(holdings.exposures()[i]))
            if best is None or cost < best[0]:
                best = (cost, i, high * quantity)
        if best is None:
            return ""
        _, i, amount = best
        side = "sell" if amount > 0.0 else "buy"
        name = "value at risk" if row.code == "MAX_PORTFOLIO_VAR" else "expected shortfall"
        return (
            f"{side} {abs(amount):.6g} {holdings.instrument_ids[i]}: brings {name} of what is filled from "
            f"{tail(total, level):.6g} to the limit of {limit:.6g} {holdings.base_currency}"
        )

    # -- orders ------------------------------------------------------------------------------------------------------

    def validate_order(self, order: OrderView) -> OrderAssessment:
        """Simulate an order: the gate's answer and what it would change, without counting or keeping anything.

        Parameters
        ----------
        order : OrderView
            The order.
        """
        verdict = self.gate.preview(order)
        portfolio = self.portfolio
        if not portfolio.scenarios_ready or portfolio.facts(order.instrument_id) is None:
            return OrderAssessment(verdict)
        try:
            return OrderAssessment(verdict, self._tails(), portfolio.what_if(order))
        except (ConfigurationError, DataConversionError):
            # It cannot be valued; the verdict names what is missing.
            return OrderAssessment(verdict)

    # -- analyses ----------------------------------------------------------------------------------------------------

    def _level(self) -> float:
        settings = self.portfolio.var_settings
        return 0.99 if settings is None else settings.level

    def _scenarios(self) -> ScenarioSet:
        scenarios = self.portfolio.scenarios
        if scenarios is None:
            raise ConfigurationError("`scenarios` must be loaded before risk is measured, there are none")
        return scenarios

    def _returns(self, holdings: Holdings) -> Floats:
        """Scenario returns of what is held, shape (N, S)."""
        scenarios = self._scenarios()
        rows = [scenarios.row(name) for name in holdings.instrument_ids]
        missing = [name for name, row in zip(holdings.instrument_ids, rows, strict=True) if row is None]
        if missing:
            raise DataConversionError(f"`scenarios` must hold every position, {', '.join(missing[:5])} have none")
        settings = self.portfolio.var_settings
        count = scenarios.count if settings is None else min(settings.scenarios, scenarios.count)
        table: Floats = scenarios.returns[[row for row in rows if row is not None], -count:].astype(np.float64)
        return table

    def calculate_var(self, method: str = "historical", **options: Any) -> RiskEstimate:
        """Value at risk and expected shortfall of what is filled, with a confidence interval.

        The gate's scenarios are the data. Where its own method has already made them ("filtered", "monte_carlo"), that
        method's number is "historical" here. The mean return counts in "normal", as it does in the gate, unless
        ``mean`` says otherwise; the two then agree for linear payoffs.

        Parameters
        ----------
        method : str
            Any of :data:`tengri_fast.risk.estimators.METHODS`.
        **options
            Those of :func:`tengri_fast.risk.estimators.risk_estimate`; ``level`` is that of the gate by default.

        Raises
        ------
        ConfigurationError, DataConversionError, MissingExtraError
            When there are no scenarios, a position cannot be valued, the method cannot be used on the data, or it
            reads the order in time of scenarios that have none or were filtered before.
        """
        from tengri_fast.risk.estimators import risk_estimate

        holdings = self.portfolio.holdings()
        options.setdefault("level", self._level())
        if method == "normal":
            options.setdefault("mean", "sample")
        made = self._scenarios().provenance.get("method", "")
        ordered = method in ("age_weighted", "filtered") or options.get("covariance") == "ewma"
        if made in _MADE and ordered:
            raise ConfigurationError(
                f"`method` must not weigh scenarios by age when the gate has made them by {made!r}, was {method!r}; "
                '"historical" reads them as they are'
            )
        if options.get("horizon", 1) != 1 and (made in _MADE or overlap(self._scenarios()) > 1):
            raise ConfigurationError(
                f"`horizon` must be 1 where scenarios overlap or were made by a method, was {options['horizon']}"
            )
        return risk_estimate(holdings, self._returns(holdings), method=method, **options)

    def stress_test(
        self, library: StressLibrary | Iterable[StressScenario] | None = None, **options: Any
    ) -> StressResult:
        """What is filled in every scenario of a library, the built-in one unless another is given.

        Raises
        ------
        ConfigurationError, DataConversionError
            As :func:`tengri_fast.risk.stress.stress_test`.
        """
        from tengri_fast.risk.stress import StressLibrary, stress_test
        from tengri_fast.risk.stress.parts import daily_volatilities

        if library is None:
            if self._library is None:
                self._library = StressLibrary.built_in()
            library = self._library
        holdings = self.portfolio.holdings()
        scenarios = self.portfolio.scenarios
        if scenarios is not None:
            options.setdefault("returns", self._returns(holdings))
            options.setdefault("volatilities", daily_volatilities(options["returns"], scenarios.horizon_ns))
        return stress_test(holdings, library, **options)

    def optimize_portfolio(self, method: str = "min_variance", **options: Any) -> OptimisationResult:
        """Optimal weights of the instruments that are held.

        Parameters
        ----------
        method : str
            Any of :func:`tengri_fast.risk.optimise.optimise_portfolio`.
        **options
            As there; the scenario returns of the gate serve as ``returns``, and their covariance as ``covariance``,
            unless given.

        Raises
        ------
        ConfigurationError, DataConversionError, MissingExtraError
            As there.
        """
        from tengri_fast.risk.optimise import optimise_portfolio

        holdings = options.pop("holdings", None) or self.portfolio.holdings()
        if not len(holdings):
            raise DataConversionError("`holdings` must hold at least one position to optimise, has none")
        if "returns" not in options and self.portfolio.scenarios is not None:
            options["returns"] = self._returns(holdings)
        if "covariance" not in options and options.get("returns") is not None:
            from tengri_fast.risk.covariance import ledoit_wolf_constant_variance

            options["covariance"] = ledoit_wolf_constant_variance(options["returns"]).matrix
        if not math.isfinite(holdings.equity) and math.isfinite(self.portfolio.equity):
            holdings = dataclasses.replace(holdings, equity=self.portfolio.equity)
        return optimise_portfolio(holdings, method, **options)

    def suggest_rebalancing(self, target: npt.ArrayLike, **options: Any) -> Rebalancing:
        """Trades from what is filled towards target weights; options as
        :func:`tengri_fast.risk.optimise.suggest_rebalancing`.
        """
        from tengri_fast.risk.optimise import suggest_rebalancing

        holdings = self.portfolio.holdings()
        if not math.isfinite(holdings.equity) and math.isfinite(self.portfolio.equity):
            holdings = dataclasses.replace(holdings, equity=self.portfolio.equity)
        return suggest_rebalancing(holdings, target, **options)
