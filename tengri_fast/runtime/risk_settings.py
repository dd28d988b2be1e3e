"""From ``[risk]`` of a configuration to the structures of the risk room."""

from __future__ import annotations

from typing import Any

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.limits import RiskLimits, ScopedLimit
from tengri_fast.risk.types import VarSettings
from tengri_fast.risk.windows import TradingWindow
from tengri_fast.runtime.schema_risk import RiskSection

__all__ = ["buckets_of", "limits_of", "stressed", "var_of"]

# Keys that are the same in the section and in the limits, once their text is read.
_SAME = (
    "price_collar_bps", "collar_reference", "collar_window", "stale_quote", "max_spread_bps", "max_order_rate",
    "max_message_rate", "rate_reserve", "duplicate_window", "max_repeated_executions", "repeat_window", "max_rejects",
    "max_working_orders", "self_trade", "max_concentration", "max_leverage", "max_margin_use", "max_portfolio_var",
    "max_portfolio_es", "max_daily_loss", "max_drawdown", "day_boundary", "allow", "deny", "max_rung",
    "max_out_of_distribution", "min_confidence", "max_signal_age", "warn_at",
)  # fmt: skip
_SIZES = ("max_order_notional", "max_order_quantity", "max_position")
_AMOUNTS = ("max_working_notional", "max_gross_exposure", "max_net_exposure")
#: With ``neural_stress_testing`` and no limit of its own, a stress loss may be so many times the value at risk.
STRESS_MULTIPLE = 3.0


def _amount(text: str | None) -> float | str | None:
    """A number, or the text of a share or a rate as it is."""
    return text if text is None or text.endswith("%") or "/" in text else float(text)


def stressed(risk: RiskSection) -> float | None:
    """The limit of a stress loss as a fraction of equity, None when there is none."""
    if risk.max_stress_loss is None and risk.neural_stress_testing and risk.max_portfolio_var is not None:
        return STRESS_MULTIPLE * risk.max_portfolio_var
    return risk.max_stress_loss


def limits_of(risk: RiskSection) -> RiskLimits:
    """The limits of the gate.

    Raises
    ------
    ConfigurationError
        When they break a rule, or none is set.
    """
    values: dict[str, Any] = {name: getattr(risk, name) for name in _SAME}
    for name in _SIZES:
        value = getattr(risk, name)
        values[name] = None if value is None else float(value)
    for name in _AMOUNTS:
        values[name] = _amount(getattr(risk, name))
    values["max_stress_loss"] = stressed(risk)
    values["scoped"] = tuple(
        ScopedLimit(
            scope=each.scope,
            measure=each.measure,  # type: ignore[arg-type]
            limit=_amount(each.limit),
            soft=_amount(each.soft),
        )
        for each in risk.scoped
    )
    values["window"] = tuple(
        TradingWindow(
            venue=each.venue or "",
            instrument=each.instrument or "",
            days=each.days,
            opens=each.opens,
            closes=each.closes,
            time_zone=each.time_zone,
        )
        for each in risk.window
    )
    return RiskLimits(**values)


def var_of(risk: RiskSection, base_currency: str) -> VarSettings | None:
    """How value at risk is measured; None when no limit asks for scenarios."""
    if risk.limits and not limits_of(risk).needs_scenarios and stressed(risk) is None:
        return None
    var = risk.var
    return VarSettings(
        level=var.level,
        horizon=var.horizon,
        method=var.method,
        scenarios=var.scenarios,
        decay=var.decay,
        seed=var.seed,
        base_currency=var.base_currency or base_currency,
    )


def buckets_of(risk: RiskSection) -> dict[str, str]:
    """Bucket by instrument.

    Raises
    ------
    ConfigurationError
        When an instrument is in two.
    """
    found: dict[str, str] = {}
    for each in risk.bucket:
        for name in each.instruments:
            if name in found:
                raise ConfigurationError(f"`risk.bucket` must name each instrument once, {name} is in two")
            found[name] = each.name
    return found
