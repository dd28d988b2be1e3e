"""What is allowed: the limits as a person writes them, and the rows of the table that the check asks.

Every limit is optional; one that is None is not checked. Money is a number in base currency, or a text such as "150%":
that share of equity. A rate is a text such as "100/1s" (at most 100 in any second) or ``(100, "1s")``.

*Warnings.* A limit tells once when the value after an order passes one of the shares ``warn_at`` upward, and again
only after the value has fallen a tenth below that share. A soft limit does the same at its own value. Neither stops an
order. Limits on one order (its quantity, its value) only warn where they are soft: nothing is used up.
"""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk._units import duration_ns, positive
from tengri_fast.risk.windows import TradingWindow, clock_ns

__all__ = ["MEASURES", "LimitRow", "RiskLimits", "ScopedLimit", "money", "rate", "table"]

Measure = Literal[
    "order_quantity", "order_notional", "position", "working_orders", "working_notional", "gross_exposure",
    "net_exposure", "concentration", "leverage", "margin_use", "order_rate", "message_rate", "portfolio_var",
    "portfolio_es", "stress_loss", "daily_loss", "drawdown",
]  # fmt: skip

_NAN = float("nan")
_RATE = re.compile(r"\s*(\d+)\s*/\s*(\S.*)")
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
#: Largest number of orders or messages that one rate may allow: their times are all kept.
_RATE_MAX = 1_000_000


class _Kind(NamedTuple):
    code: str
    unit: Literal["number", "money", "share", "count", "rate"]
    scoped: bool


#: Code and unit of each measure, and whether it can be limited for a part of the portfolio; in the order of the table.
MEASURES: dict[str, _Kind] = {
    "order_rate": _Kind("MAX_ORDER_RATE", "rate", True),
    "message_rate": _Kind("MAX_MESSAGE_RATE", "rate", True),
    "order_quantity": _Kind("MAX_ORDER_QUANTITY", "number", True),
    "order_notional": _Kind("MAX_ORDER_NOTIONAL", "money", True),
    "position": _Kind("MAX_POSITION", "number", True),
    "working_orders": _Kind("MAX_WORKING_ORDERS", "count", True),
    "working_notional": _Kind("MAX_WORKING_NOTIONAL", "money", True),
    "gross_exposure": _Kind("MAX_GROSS_EXPOSURE", "money", True),
    "net_exposure": _Kind("MAX_NET_EXPOSURE", "money", True),
    "concentration": _Kind("MAX_CONCENTRATION", "share", True),
    "leverage": _Kind("MAX_LEVERAGE", "share", True),
    "margin_use": _Kind("MAX_MARGIN_USE", "share", True),
    "portfolio_var": _Kind("MAX_PORTFOLIO_VAR", "share", False),
    "portfolio_es": _Kind("MAX_PORTFOLIO_ES", "share", False),
    "stress_loss": _Kind("MAX_STRESS_LOSS", "share", False),
    "daily_loss": _Kind("MAX_DAILY_LOSS", "share", False),
    "drawdown": _Kind("MAX_DRAWDOWN", "share", False),
}
_SCOPES = ("venue", "instrument", "strategy", "bucket")


def money(field: str, value: float | str) -> tuple[float, bool]:
    """Amount and whether it is a fraction of equity: 1000.0 is money, "150%" is 1.5 of equity.

    Raises
    ------
    ConfigurationError
        When it is neither, or not positive and finite.
    """
    if isinstance(value, str):
        match = _SHARE.fullmatch(value)
        if match is None:
            raise ConfigurationError(f'`{field}` must be an amount or a text like "150%", was {value!r}')
        share = float(match[1]) / 100.0
        if not share > 0.0:
            raise ConfigurationError(f"`{field}` must be > 0, was {value!r}")
        return share, True
    positive(field, value)
    return float(value), False


def rate(field: str, value: str | tuple[int, int | str]) -> tuple[int, int]:
    """Number and window in ns of a rate: "100/1s" or (100, "1s").

    Raises
    ------
    ConfigurationError
        When it is neither, or the number is not between 1 and a million.
    """
    if isinstance(value, str):
        match = _RATE.fullmatch(value)
        if match is None:
            raise ConfigurationError(f'`{field}` must be a number and a time like "100/1s", was {value!r}')
        number, window = int(match[1]), duration_ns(field, match[2])
    else:
        if len(value) != 2 or isinstance(value[0], bool) or not isinstance(value[0], int):
            raise ConfigurationError(f"`{field}` must be a number and a time, was {value!r}")
        number, window = value[0], duration_ns(field, value[1])
    if not 1 <= number <= _RATE_MAX:
        raise ConfigurationError(f"`{field}` must allow 1 to {_RATE_MAX}, was {number}")
    return number, window


class ScopedLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit of a part of the portfolio.

    Parameters
    ----------
    scope : str
        "venue:NAME", "instrument:ID", "strategy:ID", "bucket:NAME" or "portfolio".
    measure : str
        What is limited, a key of :data:`MEASURES`. Those of the account and of the scenarios only exist for the
        portfolio. In the scope of a strategy, positions and exposures are what that strategy holds and has working, and
        nothing that others hold offsets them; positions, and concentration, are of each instrument in the scope.
    limit : float or str, optional
        In the unit of the measure; a rate as "100/1s", money also as "150%". None: nothing is denied.
    soft : float or str, optional
        Likewise; a value above it warns.

    Raises
    ------
    ConfigurationError
        When a field breaks its rule, or neither limit is given.
    """

    scope: str
    measure: Measure
    limit: float | str | None = None
    soft: float | str | None = None

    def __post_init__(self) -> None:
        kind = MEASURES.get(self.measure)
        if kind is None:
            raise ConfigurationError(f"`scoped.measure` must be one of {', '.join(MEASURES)}, was {self.measure!r}")
        where, _, name = self.scope.partition(":")
        if self.scope != "portfolio" and not (where in _SCOPES and name):
            raise ConfigurationError(
                f"`scoped.scope` must be portfolio, or {', '.join(f'{each}:NAME' for each in _SCOPES)}, "
                f"was {self.scope!r}"
            )
        if self.scope != "portfolio" and not kind.scoped:
            raise ConfigurationError(f"`scoped.scope` must be portfolio for {self.measure}, was {self.scope!r}")
        if self.limit is None and self.soft is None:
            raise ConfigurationError(f"`scoped` must give a `limit` or a `soft` one for {self.measure} of {self.scope}")
        if kind.unit == "rate" and (self.limit is None or self.soft is not None):
            raise ConfigurationError("`scoped.limit` must be given for a rate, and no `soft` one")
        units = {_value(self.measure, value)[1] for value in (self.limit, self.soft) if value is not None}
        if len(units) > 1:
            raise ConfigurationError("`scoped.soft` must be an amount, or a share of equity, as `scoped.limit` is")


class LimitRow(NamedTuple):
    """One row of the table; ``limit`` NaN only warns, ``soft`` NaN does not; ``name`` is empty for the portfolio."""

    code: str
    scope: str
    name: str
    limit: float
    soft: float
    of_equity: bool
    window: int
    reserve: int


def _value(measure: str, value: float | str) -> tuple[float, bool]:
    unit = MEASURES[measure].unit
    if unit == "rate":
        if not isinstance(value, str):
            raise ConfigurationError(f'`scoped.limit` must be a text like "100/1s" for {measure}, was {value!r}')
        return float(rate("scoped.limit", value)[0]), False
    if unit == "money":
        return money("scoped.limit", value)
    if isinstance(value, str):
        raise ConfigurationError(f"`scoped.limit` must be a number for {measure}, was {value!r}")
    positive("scoped.limit", value)
    return float(value), False


class RiskLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is allowed. A limit that is None is not checked; at least one must be set.

    Parameters
    ----------
    max_order_notional : float, optional
        Largest value of one order, base currency.
    max_order_quantity : float or dict, optional
        Largest quantity of one order, in units, for every instrument or per instrument as in ``max_position``.
    max_position : float or dict, optional
        Largest absolute net position per instrument, in units, with every working order of that side filled; also the
        largest sum of its long, and of its short positions, where strategies or hedging hold several. A dict
        gives one limit per instrument; its key "*" holds for those not named, which otherwise may not be traded.
    price_collar_bps : float, optional
        Largest distance of an order's price from the reference price, basis points.
    collar_reference : {"mid", "last"}
        The mid of the current quote, or the last traded price.
    collar_window : int or str, optional
        The same distance from the lowest and the highest mid of so long a time, which is kept in 16 parts (it reaches
        back at most a sixteenth further); needs ``price_collar_bps``.
    stale_quote : int or str, optional
        Largest age of the reference quote, ns or a text like "5s".
    max_spread_bps : float, optional
        Widest spread, basis points of the mid, in which an order that adds risk may be sent.
    max_order_rate, max_message_rate : str or (int, int or str), optional
        Most orders, and most orders and modifications and cancels, in any window of so long. Cancels count, but are
        never refused.
    rate_reserve : int, optional
        How many of each rate only reducing orders may use: a tenth, at least one, by default.
    duplicate_window : int or str, optional
        How long an order of the same strategy, instrument, side, type, quantity and prices is taken for a duplicate.
    max_repeated_executions : int, optional
        Most executions of one strategy in one instrument on one side, without one on the other, in ``repeat_window``;
        one more stops the strategy until a person turns its switch off.
    repeat_window : int or str
        See there.
    max_rejects : int, optional
        So many refusals by the venue in a row stop a strategy.
    max_working_orders : int, optional
        Most working orders.
    max_working_notional : float or str, optional
        Largest value of all working orders, money.
    self_trade : {"allow", "deny"}
        Whether an order may meet a resting one of our own: a market order always would, one with a price when they
        cross. Orders that wait for a trigger are not looked at.
    max_gross_exposure : float or str, optional
        Largest sum over instruments of the value of the worse end of what each can reach, money.
    max_net_exposure : float or str, optional
        Largest signed sum in the direction of the order, all orders of that side filled, money.
    max_concentration : float, optional
        Largest exposure of the order's instrument, as a fraction of equity.
    max_leverage : float, optional
        Largest gross exposure as a multiple of equity.
    max_margin_use : float, optional
        Largest sum of exposure times margin rate, as a fraction of equity; no rate means 1.
    max_portfolio_var, max_portfolio_es, max_stress_loss : float, optional
        Largest value at risk, expected shortfall and loss in a stress scenario after the order, as a fraction of
        equity.
    max_daily_loss, max_drawdown : float, optional
        Largest loss since the begin of the trading day as a fraction of equity then, and since the highest equity as a
        fraction of that; passing it turns the switch "daily-loss" or "drawdown" on.
    day_boundary : str
        When the trading day begins, "HH:MM" UTC.
    window : tuple of TradingWindow
        Hours of venues and instruments; what has none is always open.
    allow, deny : tuple of str
        Instruments that may be traded (empty: all), and that may not.
    max_rung : int, optional
        Highest rung of the ladder of fallbacks on which the model of a strategy may run.
    max_out_of_distribution, min_confidence : float, optional
        Bounds on what the model says of itself.
    max_signal_age : int or str, optional
        Largest age of the model's last word.
    scoped : tuple of ScopedLimit
        Limits of parts of the portfolio.
    warn_at : tuple of float
        Shares of a limit that are told, rising, at most 8.

    Raises
    ------
    ConfigurationError
        When a limit is not positive and finite, or none is set.
    """

    max_order_notional: float | None = None
    max_order_quantity: float | dict[str, float] | None = None
    max_position: float | dict[str, float] | None = None
    price_collar_bps: float | None = None
    collar_reference: Literal["mid", "last"] = "mid"
    collar_window: int | str | None = None
    stale_quote: int | str | None = None
    max_spread_bps: float | None = None
    max_order_rate: str | tuple[int, int | str] | None = None
    max_message_rate: str | tuple[int, int | str] | None = None
    rate_reserve: int | None = None
    duplicate_window: int | str | None = None
    max_repeated_executions: int | None = None
    repeat_window: int | str = "1m"
    max_rejects: int | None = None
    max_working_orders: int | None = None
    max_working_notional: float | str | None = None
    self_trade: Literal["allow", "deny"] = "allow"
    max_gross_exposure: float | str | None = None
    max_net_exposure: float | str | None = None
    max_concentration: float | None = None
    max_leverage: float | None = None
    max_margin_use: float | None = None
    max_portfolio_var: float | None = None
    max_portfolio_es: float | None = None
    max_stress_loss: float | None = None
    max_daily_loss: float | None = None
    max_drawdown: float | None = None
    day_boundary: str = "00:00"
    window: tuple[TradingWindow, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    max_rung: int | None = None
    max_out_of_distribution: float | None = None
    min_confidence: float | None = None
    max_signal_age: int | str | None = None
    scoped: tuple[ScopedLimit, ...] = ()
    warn_at: tuple[float, ...] = (0.5, 0.8, 0.95)

    def __post_init__(self) -> None:
        for field in _NUMBERS:
            value = getattr(self, field)
            if value is not None:
                positive(field, value)
        for field in _COUNTS:
            value = getattr(self, field)
            if value is not None and not 1 <= value <= _RATE_MAX:
                raise ConfigurationError(f"`{field}` must be 1 to {_RATE_MAX}, was {value}")
        if self.max_rung is not None and self.max_rung < 0:
            raise ConfigurationError(f"`max_rung` must be >= 0, was {self.max_rung}")
        for field in _MONEY:
            value = getattr(self, field)
            if value is not None:
                money(field, value)
        for field in _DURATIONS:
            value = getattr(self, field)
            if value is not None:
                duration_ns(field, value)
        for field in ("max_position", "max_order_quantity"):
            self._check_each(field)
        self._check_words()
        self._check_rates()
        if self.collar_window is not None and self.price_collar_bps is None:
            raise ConfigurationError("`price_collar_bps` must be set when `collar_window` is, was missing")
        shares = (0.0, *self.warn_at)
        if len(self.warn_at) > 8 or not all(a < b < math.inf for a, b in pairwise(shares)):
            raise ConfigurationError(f"`warn_at` must be at most 8 rising shares > 0, was {self.warn_at}")
        if all(getattr(self, field) is None for field in _LIMITS) and not any(
            each.limit is not None for each in self.scoped
        ):
            names = ", ".join(f"`{field}`" for field in _LIMITS)
            raise ConfigurationError(
                f"`risk` must set at least one of {names}, or one of `scoped`: a gate without a limit protects nothing"
            )

    def _check_each(self, field: str) -> None:
        value = getattr(self, field)
        if isinstance(value, dict):
            if not value:
                raise ConfigurationError(f"`{field}` must name at least one instrument, was {{}}")
            for name, number in value.items():
                if not (math.isfinite(number) and number >= 0.0):
                    raise ConfigurationError(f"`{field}.{name}` must be finite and >= 0, was {number}")
        elif value is not None:
            positive(field, value)

    def _check_words(self) -> None:
        if self.collar_reference not in ("mid", "last"):
            raise ConfigurationError(f"`collar_reference` must be mid or last, was {self.collar_reference!r}")
        if self.self_trade not in ("allow", "deny"):
            raise ConfigurationError(f"`self_trade` must be allow or deny, was {self.self_trade!r}")
        clock_ns("day_boundary", self.day_boundary)
        seen: set[tuple[str, str]] = set()
        for each in self.scoped:
            if (each.scope, each.measure) in seen:
                raise ConfigurationError(f"`scoped` must name {each.measure} of {each.scope} once, it is there twice")
            seen.add((each.scope, each.measure))
            if each.scope == "portfolio" and getattr(self, f"max_{each.measure}") is not None:
                raise ConfigurationError(
                    f"`scoped` must not repeat `max_{each.measure}`: {each.measure} of the portfolio is there twice"
                )

    def _check_rates(self) -> None:
        values = [(field, getattr(self, field)) for field in ("max_order_rate", "max_message_rate")]
        values += [("scoped.limit", each.limit) for each in self.scoped if MEASURES[each.measure].unit == "rate"]
        for field, value in values:
            if value is not None:
                number, _ = rate(field, value)
                if not 0 <= self._reserve(number) < number:
                    raise ConfigurationError(
                        f"`rate_reserve` must be >= 0 and < {number}, the number of `{field}`, "
                        f"was {self._reserve(number)}"
                    )

    def _reserve(self, number: int) -> int:
        return max(number // 10, 1) if self.rate_reserve is None else self.rate_reserve

    @property
    def stale_quote_ns(self) -> int | None:
        """Largest age of the reference quote in ns, None when age is not checked."""
        return None if self.stale_quote is None else duration_ns("stale_quote", self.stale_quote)

    @property
    def needs_scenarios(self) -> bool:
        """Whether some limit is read off return scenarios."""
        measures = {"portfolio_var", "portfolio_es"}
        return (
            self.max_portfolio_var is not None
            or self.max_portfolio_es is not None
            or any(each.measure in measures for each in self.scoped)
        )

    @property
    def needs_health(self) -> bool:
        """Whether some limit is on what the model says of itself."""
        limits = (self.max_rung, self.max_out_of_distribution, self.min_confidence, self.max_signal_age)
        return any(limit is not None for limit in limits)

    def position_limit(self, instrument_id: str) -> float | None:
        """Position limit of one instrument in units; None when positions are not limited."""
        return _each(self.max_position, instrument_id)

    def quantity_limit(self, instrument_id: str) -> float | None:
        """Limit of one order in this instrument in units; None when quantities are not limited."""
        return _each(self.max_order_quantity, instrument_id)


_MONEY = ("max_working_notional", "max_gross_exposure", "max_net_exposure")
_COUNTS = ("max_working_orders", "max_repeated_executions", "max_rejects")
_DURATIONS = ("stale_quote", "collar_window", "duplicate_window", "repeat_window", "max_signal_age")
_NUMBERS = (
    "max_order_notional", "price_collar_bps", "max_spread_bps", "max_concentration", "max_leverage", "max_margin_use",
    "max_portfolio_var", "max_portfolio_es", "max_stress_loss", "max_daily_loss", "max_drawdown",
    "max_out_of_distribution", "min_confidence",
)  # fmt: skip
#: One of these must be set.
_LIMITS = (
    "max_order_notional", "max_order_quantity", "max_position", "price_collar_bps", "max_order_rate",
    "max_message_rate", "max_working_orders", *_MONEY, "max_concentration", "max_leverage", "max_margin_use",
    "max_portfolio_var", "max_portfolio_es", "max_stress_loss", "max_daily_loss", "max_drawdown",
)  # fmt: skip


def _each(limit: float | dict[str, float] | None, instrument_id: str) -> float | None:
    if isinstance(limit, dict):
        # An instrument nobody gave a limit gets none: forgetting one must not mean "unlimited".
        return limit.get(instrument_id, limit.get("*", 0.0))
    return limit


def table(limits: RiskLimits) -> list[LimitRow]:
    """The rows of the table: limits of the portfolio and of its parts, by measure in the order of :data:`MEASURES`.

    ``max_position`` and ``max_order_quantity`` are of each instrument ("each"), with a limit of NaN that
    :meth:`RiskLimits.position_limit` and :meth:`RiskLimits.quantity_limit` stand for.
    """
    rows: list[LimitRow] = []
    for measure, kind in MEASURES.items():
        value = getattr(limits, f"max_{measure}")
        if value is not None:
            if measure in ("position", "order_quantity"):
                rows.append(LimitRow(kind.code, "each", "", _NAN, _NAN, False, 0, 0))
            elif kind.unit == "rate":
                number, window = rate(f"max_{measure}", value)
                rows.append(LimitRow(kind.code, "portfolio", "", number, _NAN, False, window, limits._reserve(number)))
            else:
                amount, of_equity = money(f"max_{measure}", value)
                rows.append(LimitRow(kind.code, "portfolio", "", amount, _NAN, of_equity, 0, 0))
        for each in limits.scoped:
            if each.measure == measure:
                rows.append(_scoped_row(limits, each, kind))
    return rows


def _scoped_row(limits: RiskLimits, each: ScopedLimit, kind: _Kind) -> LimitRow:
    where, _, name = each.scope.partition(":")
    if kind.unit == "rate":
        number, window = rate("scoped.limit", str(each.limit))
        return LimitRow(kind.code, where, name, number, _NAN, False, window, limits._reserve(number))
    limit, of_equity = (_NAN, False) if each.limit is None else _value(each.measure, each.limit)
    soft, soft_of_equity = (_NAN, of_equity) if each.soft is None else _value(each.measure, each.soft)
    return LimitRow(kind.code, where, name, limit, soft, of_equity or soft_of_equity, 0, 0)
