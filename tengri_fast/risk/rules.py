"""The rules of the gate: small objects in a list, each of which looks at one order and finds nothing or one violation.

There are three kinds, and the kind decides what happens to an order that only takes risk off and to a rule that fails:

========= ================================= ====================== ===============================
kind      asks                              reducing order         rule raises an exception
========= ================================= ====================== ===============================
sanity    is this an order at all?          applies                denied
integrity is it what the sender meant?      applies                denied
risk      can the portfolio bear it?        does not stop it       denied; a reducing order passes,
                                                                   with an alert
========= ================================= ====================== ===============================

When a sanity rule objects, the later kinds are not asked: there is nothing they could compute with. Otherwise every
rule is asked and all violations are returned.

*Reference price.* The mid of the current two-sided quote. An order that adds risk needs one that is valid and not
stale; so does a reducing order with a price, when there is a collar. A reducing market order does not: when the feed
has died, closing must still be possible.

*Collar.* |price - reference| / reference in basis points, on both sides. For an order that waits for a trigger which
the market has not reached, the reference is the trigger price: that is where the market will be when it acts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from tengri_fast.risk.portfolio import PortfolioState, Quote
from tengri_fast.risk.types import InstrumentFacts, OrderView, RiskLimits, Violation

__all__ = [
    "CheckContext",
    "Kind",
    "MaxOrderNotional",
    "MaxPortfolioVar",
    "MaxPosition",
    "PriceCollar",
    "Rule",
    "Switch",
    "default_rules",
]

Kind = Literal["sanity", "integrity", "risk"]

# Order types, and whether they need a price and a trigger price.
_NEEDS = {
    "MARKET": (False, False),
    "MARKET_TO_LIMIT": (False, False),
    "LIMIT": (True, False),
    "STOP_MARKET": (False, True),
    "STOP_LIMIT": (True, True),
    "MARKET_IF_TOUCHED": (False, True),
    "LIMIT_IF_TOUCHED": (True, True),
    "TRAILING_STOP_MARKET": (False, False),
    "TRAILING_STOP_LIMIT": (False, False),
}
_INF = math.inf
_MOST = sys.float_info.max


class CheckContext(msgspec.Struct, eq=False):
    """One order under examination.

    Parameters
    ----------
    order : OrderView
        The order.
    portfolio : PortfolioState
        The portfolio it would join.
    facts : InstrumentFacts or None
        None when the instrument is unknown; only sanity rules see that.
    quote : Quote or None
        Reference quote; None when there never was one.
    leaves : float
        Quantity that is still open, units.
    reducing : bool
        Whether the order only takes risk off.
    """

    order: OrderView
    portfolio: PortfolioState
    facts: InstrumentFacts | None
    quote: Quote | None
    leaves: float
    reducing: bool


class Rule(Protocol):
    """What the gate needs of a rule."""

    @property
    def code(self) -> str:
        """Stable upper-case name of the violation it usually finds."""
        ...

    @property
    def kind(self) -> Kind:
        """Decides how reducing orders and exceptions are treated."""
        ...

    def check(self, context: CheckContext) -> Violation | None:
        """Find a violation, or nothing."""
        ...


class KnownInstrument:
    """The instrument must be one of those configured."""

    code = "UNKNOWN_INSTRUMENT"
    kind: Kind = "sanity"

    def check(self, context: CheckContext) -> Violation | None:
        """Object to an instrument without facts."""
        if context.facts is None:
            return Violation(self.code, detail=str(context.order.instrument_id)[:80])
        return None


class ValidSide:
    """A side is +1 or -1."""

    code = "INVALID_SIDE"
    kind: Kind = "sanity"

    def check(self, context: CheckContext) -> Violation | None:
        """Object to any other side."""
        side = context.order.side
        return None if side in (1, -1) else Violation(self.code, float(side))


class ValidQuantity:
    """A quantity is finite and positive."""

    code = "INVALID_QUANTITY"
    kind: Kind = "sanity"

    def check(self, context: CheckContext) -> Violation | None:
        """Object to NaN, infinity, zero and negative quantities."""
        quantity = context.order.quantity
        if 0.0 < quantity < _INF:
            return None
        if not math.isfinite(quantity):
            return Violation("NON_FINITE_QUANTITY", detail=f"quantity {quantity}")
        return Violation("NON_POSITIVE_QUANTITY", quantity, 0.0)


class ValidPrice:
    """Prices are finite and positive, and there when the order type needs them."""

    code = "INVALID_PRICE"
    kind: Kind = "sanity"

    def check(self, context: CheckContext) -> Violation | None:
        """Object to infinite, zero, negative and missing prices, binaries above 1, and order types nobody knows."""
        order, facts = context.order, context.facts
        needs = _NEEDS.get(order.order_type)
        if needs is None:
            return Violation("UNKNOWN_ORDER_TYPE", detail=str(order.order_type)[:80])
        top = 1.0 if facts is not None and facts.payoff == "binary" else _MOST
        price, trigger = order.price, order.trigger_price
        if not (0.0 < price <= top or (price != price and not needs[0])):
            return self._bad("price", price, order.order_type)
        if not (0.0 < trigger <= top or (trigger != trigger and not needs[1])):
            return self._bad("trigger_price", trigger, order.order_type)
        return None

    @staticmethod
    def _bad(name: str, price: float, order_type: str) -> Violation:
        if math.isnan(price):
            return Violation("NON_FINITE_PRICE", detail=f"{order_type} needs a {name}")
        if math.isinf(price):
            return Violation("NON_FINITE_PRICE", detail=f"{name} {price}")
        if price <= 0.0:
            return Violation("NON_POSITIVE_PRICE", price, 0.0, name)
        return Violation("PRICE_OUT_OF_RANGE", price, 1.0, f"{name} of a binary")


def _off_grid(value: float, increment: float) -> bool:
    if increment <= 0.0 or value != value:  # no grid, or NaN: no price
        return False
    steps = value / increment
    if steps.is_integer():
        return False
    # A decimal price has no exact binary value, so "on the grid" means within rounding of it.
    return abs(steps - round(steps)) > 1e-9 * abs(steps) + 1e-9


class OnTick:
    """Prices are whole multiples of the price increment."""

    code = "PRICE_TICK"
    kind: Kind = "integrity"

    def check(self, context: CheckContext) -> Violation | None:
        """Object to a price or trigger price between two ticks."""
        order, facts = context.order, context.facts
        if facts is None:
            return None
        tick = facts.price_increment
        if _off_grid(order.price, tick):
            return Violation(self.code, order.price, tick, "price is between two ticks")
        if _off_grid(order.trigger_price, tick):
            return Violation(self.code, order.trigger_price, tick, "trigger_price is between two ticks")
        return None


class OnLot:
    """Quantities are whole lots, within the size limits of the venue."""

    code = "QUANTITY_LOT"
    kind: Kind = "integrity"

    def check(self, context: CheckContext) -> Violation | None:
        """Object to broken lots and to orders that are too small or too large.

        A reducing order may be smaller than the minimum: the rest of a position must stay closable.
        """
        facts, quantity = context.facts, context.order.quantity
        if facts is None:
            return None
        if _off_grid(quantity, facts.size_increment):
            return Violation(self.code, quantity, facts.size_increment)
        if facts.max_quantity and quantity > facts.max_quantity:
            return Violation("MAX_QUANTITY", quantity, facts.max_quantity)
        if quantity < facts.min_quantity and not context.reducing:
            return Violation("MIN_QUANTITY", quantity, facts.min_quantity)
        return None


class ReferencePrice:
    """An order that adds risk, or is to be collared, needs a valid and fresh two-sided quote."""

    code = "MISSING_REFERENCE_PRICE"
    kind: Kind = "integrity"

    def __init__(self, stale_ns: int | None, collared: bool) -> None:
        self._stale_ns = stale_ns
        self._collared = collared

    def check(self, context: CheckContext) -> Violation | None:
        """Object to a quote that is missing, unusable, too old, or from the future by as much."""
        if context.reducing and (math.isnan(context.order.price) or not self._collared):
            return None
        quote = context.quote
        if quote is None:
            return Violation(self.code, detail="no quote yet")
        if not quote.valid:
            return Violation(self.code, detail="the last quote was crossed, one-sided or not a number")
        if self._stale_ns is not None:
            age = abs(context.order.ts - quote.ts)
            if age > self._stale_ns:
                return Violation("STALE_REFERENCE_PRICE", float(age), float(self._stale_ns), "ns")
        return None


class PriceCollar:
    """A price must lie within a distance of the reference price."""

    code = "PRICE_COLLAR"
    kind: Kind = "integrity"

    def __init__(self, limit_bps: float) -> None:
        self._limit = limit_bps

    def check(self, context: CheckContext) -> Violation | None:
        """Object to a price further away than the collar."""
        order, quote = context.order, context.quote
        price, trigger = order.price, order.trigger_price
        if price != price or quote is None or not quote.valid:
            return None  # market orders have no price (NaN); a missing quote is the business of ReferencePrice
        reference = quote.mid
        if trigger == trigger:  # not NaN
            # A stop waits for the market to move its own way, an if-touched order for it to come back.
            waits = order.side * (trigger - quote.mid)
            if "TOUCHED" in order.order_type:
                waits = -waits
            if waits > 0.0:
                reference = trigger
        distance = abs(price - reference) / reference * 1e4
        # A price exactly on the collar is inside; the slack is rounding, far below a tick.
        return Violation(self.code, distance, self._limit, "bps") if distance > self._limit * (1.0 + 1e-9) else None


class Switch:
    """A yes-or-no condition of the gate, such as the kill switch."""

    kind: Kind = "risk"

    def __init__(self, code: str, reason: Callable[[], str]) -> None:
        self.code = code
        self._reason = reason

    def check(self, context: CheckContext) -> Violation | None:
        """Object while there is a reason."""
        reason = self._reason()
        return Violation(self.code, detail=reason) if reason else None


class ConsistentPortfolio:
    """What the portfolio holds must be known."""

    code = "PORTFOLIO_FAULT"
    kind: Kind = "risk"

    def check(self, context: CheckContext) -> Violation | None:
        """Object after an event that could not be booked."""
        faults = context.portfolio.faults
        return Violation(self.code, float(len(faults)), 0.0, faults[0]) if faults else None


class MaxOrderNotional:
    """The value of one order is limited."""

    code = "MAX_ORDER_NOTIONAL"
    kind: Kind = "risk"

    def __init__(self, limit: float) -> None:
        self._limit = limit

    def check(self, context: CheckContext) -> Violation | None:
        """Object to an order worth more than the limit, or of unknown worth."""
        order, portfolio = context.order, context.portfolio
        value = portfolio.order_notional(order, order.quantity)
        if value != value:  # NaN: a price or a rate is missing
            facts = context.facts
            currency = facts.settlement_currency if facts is not None else ""
            if math.isnan(portfolio.rate(currency)):
                return Violation("MISSING_RATE", detail=f"{currency} in {portfolio.base_currency}")
            return Violation("MISSING_REFERENCE_PRICE", detail="the order cannot be valued")
        return Violation(self.code, value, self._limit) if value > self._limit * (1.0 + 1e-12) else None


class MaxPosition:
    """The net position of an instrument is limited, every working order of that side taken as filled.

    Closing is never held back, so the limit also holds for the long and for the short positions of an instrument by
    themselves: two that offset each other would otherwise exceed it as soon as one is closed.
    """

    code = "MAX_POSITION"
    kind: Kind = "risk"

    def __init__(self, limits: RiskLimits) -> None:
        self._limits = limits
        # One limit for every instrument is known before any order comes.
        self._for_all = None if isinstance(limits.max_position, dict) else limits.max_position

    def check(self, context: CheckContext) -> Violation | None:
        """Object to an order that could take the position beyond the limit in its own direction."""
        order = context.order
        limit = self._for_all
        if limit is None:
            limit = self._limits.position_limit(order.instrument_id)
        if limit is None:
            return None
        reached = context.portfolio.what_if_position(order, context.leaves)
        if not reached > limit:
            return None
        # Sums of decimal quantities are off by rounding; less than a millionth of a lot is not an excess.
        lot = context.facts.size_increment if context.facts is not None else 0.0
        return Violation(self.code, reached, limit) if reached > limit + max(1e-6 * lot, 1e-12 * limit) else None


class MaxPortfolioVar:
    """Value at risk after the order, in the worst case of working orders, is limited to a fraction of equity."""

    code = "MAX_PORTFOLIO_VAR"
    kind: Kind = "risk"

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction

    def check(self, context: CheckContext) -> Violation | None:
        """Object when the limit is passed, or when value at risk or equity are not known."""
        portfolio, order = context.portfolio, context.order
        if not portfolio.scenarios_ready:
            return Violation("MISSING_SCENARIOS", detail="no scenarios are loaded")
        equity = portfolio.equity
        if not equity > 0.0:
            return Violation("MISSING_EQUITY", detail=f"equity must be known and > 0, was {equity}")
        blocked = portfolio.var_blocked(order)
        if blocked is not None:
            return Violation(blocked[0], detail=blocked[1])
        if not portfolio.var_exceeds(order, context.leaves, self._fraction * equity):
            return None
        cases = portfolio.what_if(order, context.leaves)
        name, (value, _) = max(cases.items(), key=lambda item: item[1][0])
        return Violation(self.code, value / equity, self._fraction, f"of equity {equity:.10g}, case: {name}")


def default_rules(limits: RiskLimits) -> list[Rule]:
    """Rules for a set of limits, cheapest first; the gate adds its switches."""
    rules: list[Rule] = [
        KnownInstrument(),
        ValidSide(),
        ValidQuantity(),
        ValidPrice(),
        OnTick(),
        OnLot(),
        ReferencePrice(limits.stale_quote_ns, limits.price_collar_bps is not None),
    ]
    if limits.price_collar_bps is not None:
        rules.append(PriceCollar(limits.price_collar_bps))
    rules.append(ConsistentPortfolio())
    if limits.max_order_notional is not None:
        rules.append(MaxOrderNotional(limits.max_order_notional))
    if limits.max_position is not None:
        rules.append(MaxPosition(limits))
    if limits.max_portfolio_var is not None:
        rules.append(MaxPortfolioVar(limits.max_portfolio_var))
    return rules
