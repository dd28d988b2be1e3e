"""``[risk]`` and its tables: the limits that the gate enforces, and how risk is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from tengri_fast.runtime.schema_types import (
    Amount,
    Currency,
    InstrumentName,
    LimitText,
    PositiveDuration,
    Rate,
    Size,
    Text,
)

__all__ = [
    "AuditSection",
    "BucketEntry",
    "RiskSection",
    "ScenariosSection",
    "ScopedEntry",
    "SizingSection",
    "StressSection",
    "VarSection",
    "WindowEntry",
]

Share = Annotated[float, Meta(gt=0, le=1)]
Multiple = Annotated[float, Meta(gt=0, le=1000)]
BasisPoints = Annotated[float, Meta(gt=0, le=10_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Clock = Annotated[
    str,
    Meta(
        extra={"pattern": r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?", "rule": 'must be a time such as "09:30"'},
    ),
]


class VarSection(Struct, frozen=True, kw_only=True):
    """``[risk.var]``: how value at risk is measured.

    Attributes
    ----------
    level : float
        Confidence level, 0.99 for 99 %.
    horizon : int
        Nanoseconds.
    method : str
        "historical": revaluation under past returns, each of the same weight; "age_weighted": the older, the less;
        "filtered": past returns brought to the volatility of now; "normal" and "cornish_fisher": from the first two or
        four moments of the revalued results; "monte_carlo": revaluation under returns drawn from a Student t copula
        fitted to the past ones.
    scenarios : int
        How many scenarios are used.
    decay : float
        Weight or variance that one scenario further back keeps ("age_weighted", "filtered").
    seed : int
        Of "monte_carlo".
    base_currency : str or None
        Currency of the limit; None takes that of the account.
    """

    level: Annotated[float, Meta(gt=0.5, lt=1)] = 0.99
    horizon: PositiveDuration = 86_400_000_000_000
    method: Literal["historical", "age_weighted", "filtered", "normal", "cornish_fisher", "monte_carlo"] = "historical"
    scenarios: Annotated[int, Meta(ge=2, le=1_000_000)] = 1000
    decay: Annotated[float, Meta(gt=0, lt=1)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**53)] = 0
    base_currency: Currency | None = None


class ScenariosSection(Struct, frozen=True, kw_only=True):
    """``[risk.scenarios]``: where the returns come from: a file, or the returns seen while running.

    Attributes
    ----------
    source : str
        "file" or "rolling".
    path : str or None
        File of scenarios, for "file".
    keep : str or None
        File that "rolling" keeps its prices in between runs.
    step, refresh : int
        Of "rolling": time between two prices, and between two renewals of the scenarios, ns.
    """

    source: Literal["file", "rolling"] = "rolling"
    path: Text | None = None
    keep: Text | None = None
    step: PositiveDuration = 1_000_000_000
    refresh: PositiveDuration = 10_000_000_000


class StressSection(Struct, frozen=True, kw_only=True):
    """``[risk.stress]``: which scenarios the gate revalues for ``max_stress_loss``.

    Attributes
    ----------
    library : bool
        The built-in scenarios.
    files : tuple of str
        Scenarios of the user, TOML.
    volatility : bool
        Scenarios drawn from the state of a volatility model.
    """

    library: bool = True
    files: tuple[Text, ...] = ()
    volatility: bool = True


class AuditSection(Struct, frozen=True, kw_only=True):
    """``[risk.audit]``: the log of every decision of the gate.

    Attributes
    ----------
    path : str or None
        File; None writes none.
    sync : str
        When it is forced to the disk: "order" (before each order goes on), "100ms", or "none".
    """

    path: Text | None = None
    sync: Literal["order", "100ms", "none"] = "100ms"


class ScopedEntry(Struct, frozen=True, kw_only=True):
    """An entry of ``[[risk.scoped]]``: a limit of a part of the portfolio.

    Attributes
    ----------
    scope : str
        "venue:NAME", "instrument:ID", "strategy:ID", "bucket:NAME" or "portfolio".
    measure : str
        A limit's name without "max_", such as "gross_exposure".
    limit, soft : str or None
        Above the one orders are denied, above the other a warning is given.
    """

    scope: Text
    measure: Text
    limit: LimitText | None = None
    soft: LimitText | None = None


class WindowEntry(Struct, frozen=True, kw_only=True):
    """An entry of ``[[risk.window]]``: hours in which orders that add risk may be sent.

    Attributes
    ----------
    venue, instrument : str or None
        What the hours are of; exactly one is given.
    days : tuple of str
        On which the window opens.
    opens, closes : str
        Wall clock; equal ones mean 24 hours.
    time_zone : str
        IANA name.
    """

    venue: Text | None = None
    instrument: InstrumentName | None = None
    days: Annotated[tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], Meta(min_length=1)] = (
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
    )
    opens: Clock = "00:00"
    closes: Clock = "00:00"
    time_zone: Text = "UTC"


class BucketEntry(Struct, frozen=True, kw_only=True):
    """An entry of ``[[risk.bucket]]``: instruments that move together, a scope for limits."""

    name: Text
    instruments: Annotated[tuple[InstrumentName, ...], Meta(min_length=1)]


class SizingSection(Struct, frozen=True, kw_only=True):
    """``[risk.sizing]``: how entries are sized when ``dynamic_position_sizing`` is on. The smallest bound holds.

    Attributes
    ----------
    parts : tuple of str
        The bounds, and "drawdown", which scales them.
    target_volatility, volatility_horizon
        Standard deviation of a position's result as a fraction of equity, and over which time.
    volatility_half_life, volatility_step, volatility_gap, volatility_samples
        Volatility of mids: exponential weights, least and greatest length of a sample, and how many are needed.
    kelly_fraction, kelly_stop_bps, kelly_loss_multiple
        Share of the Kelly size; the loss of a losing trade is the stop, or this many standard deviations over the
        signal's horizon.
    var_limit, var_share
        Budget of value at risk as a fraction of equity where ``risk.max_portfolio_var`` is not set, and the share of
        what remains of it that one entry may take.
    drawdown_start, drawdown_stop, drawdown_shape, drawdown_middle
        Drawdowns from peak equity between which sizes fall to nothing: in a line, or by a step of this factor.
    max_leverage : float
        Largest exposure of a position as a multiple of equity.
    hysteresis : float
        An entry keeps the size of the last one while they differ by at most this share.
    """

    parts: Annotated[
        tuple[Literal["volatility_target", "kelly", "var_budget", "drawdown", "leverage"], ...],
        Meta(min_length=1, max_length=5),
    ] = ("volatility_target", "kelly", "var_budget")
    target_volatility: Annotated[float, Meta(gt=0, le=10)] = 0.01
    volatility_horizon: PositiveDuration = 86_400_000_000_000
    volatility_half_life: PositiveDuration = 600_000_000_000
    volatility_step: PositiveDuration = 1_000_000_000
    volatility_gap: PositiveDuration = 3_600_000_000_000
    volatility_samples: Annotated[int, Meta(ge=1, le=1_000_000)] = 30
    kelly_fraction: Annotated[float, Meta(gt=0, le=1)] = 0.25
    kelly_stop_bps: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    kelly_loss_multiple: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    var_limit: Annotated[float, Meta(gt=0, le=1)] = 0.05
    var_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    drawdown_start: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    drawdown_stop: Annotated[float, Meta(gt=0, le=1)] = 0.20
    drawdown_shape: Literal["linear", "step"] = "linear"
    drawdown_middle: Annotated[float, Meta(ge=0, le=1)] = 0.5
    max_leverage: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    hysteresis: Annotated[float, Meta(ge=0, le=1)] = 0.0


class RiskSection(Struct, frozen=True, kw_only=True):
    """``[risk]``: the limits that the pre-trade gate enforces. A limit that is not given is not checked.

    Money is in the base currency; where it says *amount*, a share of equity such as "150%" will do as well. What every
    limit measures is told in :class:`tengri_fast.risk.RiskLimits`, whose names these are.

    Attributes
    ----------
    neural_stress_testing : bool
        Stress scenarios in the gate, with ``max_stress_loss``, which then is three times ``max_portfolio_var`` unless
        given.
    dynamic_position_sizing : bool
        Size of entries from ``[risk.sizing]`` instead of the fixed trade_size, which then is the largest entry when it
        is given.
    state : str or None
        File that keeps kills, the day's and the peak equity between runs.
    """

    max_order_notional: Size | None = None
    max_order_quantity: Size | None = None
    max_position: Size | None = None
    price_collar_bps: BasisPoints | None = None
    collar_reference: Literal["mid", "last"] = "mid"
    collar_window: PositiveDuration | None = None
    stale_quote: PositiveDuration | None = None
    max_spread_bps: BasisPoints | None = None
    max_order_rate: Rate | None = None
    max_message_rate: Rate | None = None
    rate_reserve: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    duplicate_window: PositiveDuration | None = None
    max_repeated_executions: Count | None = None
    repeat_window: PositiveDuration = 60_000_000_000
    max_rejects: Count | None = None
    max_working_orders: Count | None = None
    max_working_notional: Amount | None = None
    self_trade: Literal["allow", "deny"] = "allow"
    max_gross_exposure: Amount | None = None
    max_net_exposure: Amount | None = None
    max_concentration: Multiple | None = None
    max_leverage: Multiple | None = None
    max_margin_use: Multiple | None = None
    max_portfolio_var: Share | None = None
    max_portfolio_es: Share | None = None
    max_stress_loss: Annotated[float, Meta(gt=0, le=10)] | None = None
    max_daily_loss: Share | None = None
    max_drawdown: Share | None = None
    day_boundary: Clock = "00:00"
    allow: tuple[InstrumentName, ...] = ()
    deny: tuple[InstrumentName, ...] = ()
    max_rung: Annotated[int, Meta(ge=0, le=100)] | None = None
    max_out_of_distribution: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    min_confidence: Share | None = None
    max_signal_age: PositiveDuration | None = None
    warn_at: Annotated[tuple[Share, ...], Meta(max_length=8)] = (0.5, 0.8, 0.95)
    neural_stress_testing: bool = False
    dynamic_position_sizing: bool = False
    state: Text | None = None
    scoped: tuple[ScopedEntry, ...] = ()
    window: tuple[WindowEntry, ...] = ()
    bucket: tuple[BucketEntry, ...] = ()
    var: VarSection = VarSection()
    scenarios: ScenariosSection = ScenariosSection()
    stress: StressSection = StressSection()
    audit: AuditSection = AuditSection()
    sizing: SizingSection = SizingSection()

    @property
    def limits(self) -> tuple[str, ...]:
        """Names of the limits that are set."""
        names = [name for name in LIMITS if getattr(self, name) is not None]
        if self.neural_stress_testing and self.max_stress_loss is None and self.max_portfolio_var is not None:
            names.append("max_stress_loss")
        return (*names, *(f"{each.measure} of {each.scope}" for each in self.scoped if each.limit is not None))


#: Of these at least one must be set where orders can be sent.
LIMITS = (
    "max_order_notional",
    "max_order_quantity",
    "max_position",
    "price_collar_bps",
    "max_order_rate",
    "max_message_rate",
    "max_working_orders",
    "max_working_notional",
    "max_gross_exposure",
    "max_net_exposure",
    "max_concentration",
    "max_leverage",
    "max_margin_use",
    "max_portfolio_var",
    "max_portfolio_es",
    "max_stress_loss",
    "max_daily_loss",
    "max_drawdown",
)
