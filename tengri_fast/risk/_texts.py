"""Words for what the check found: made for denials only, never on the way of an order that passes."""

from __future__ import annotations

import math

__all__ = ["CASES", "DETAILS", "SWITCHES", "detail_text"]

#: The portfolios of which the worst is taken, by number.
CASES = ("filled", "filled + this order", "filled + working buys", "filled + working sells", "worse side of each")
#: As the enum of csrc/include/tengri/risk_limits.h.
DETAILS = (
    "none", "price", "trigger", "needs_price", "needs_trigger", "no_quote", "bad_quote", "no_trade", "no_value", "ns",
    "bps", "of_equity", "stress", "scope", "instrument", "no_memory", "equity", "messages", "no_calendar", "forbidden",
    "uptick",
)  # fmt: skip
#: Switches that the gate turns on by itself.
SWITCHES = {"daily_loss": "daily-loss", "drawdown": "drawdown"}

_PLAIN = {
    "no_quote": "no quote yet",
    "bad_quote": "the last quote was crossed, one-sided or not a number",
    "no_trade": "no trade yet",
    "no_value": "the order cannot be valued",
    "no_memory": "more orders within the window than are remembered",
    "no_calendar": "trading hours are not known for this time",
    "forbidden": "short sales are forbidden",
    "uptick": "a short sale must be priced above the bid",
    "ns": "ns",
    "bps": "bps",
}


def detail_text(
    code: str,
    detail: int,
    value: float,
    order_type: str,
    price: float,
    trigger: float,
    quantity: float,
    scope: str,
    equity: float,
    what: int,
    name: str,
    rate: tuple[int, int],
) -> str:
    """Plain words for one violation.

    Parameters
    ----------
    code : str
        Of the rule.
    detail : int
        Index into :data:`DETAILS`.
    value : float
        What was found.
    order_type : str
        Of the order.
    price, trigger, quantity : float
        Of the order.
    scope : str
        Of the row.
    equity : float
        Of the account.
    what : int
        Case or stress scenario, by number.
    name : str
        Instrument, or missing rate.
    rate : (int, int)
        Window in ns and reserve of a rate.
    """
    word = DETAILS[detail]
    if word in _PLAIN:
        return _PLAIN[word]
    if word in ("price", "trigger"):
        field, number = ("price", price) if word == "price" else ("trigger_price", trigger)
        if code == "PRICE_TICK":
            return f"{field} is between two ticks"
        if code == "NON_FINITE_PRICE":
            return f"{field} {number}"
        return f"{field} of a binary" if code == "PRICE_OUT_OF_RANGE" else field
    if word in ("needs_price", "needs_trigger"):
        return f"{order_type} needs a {'price' if word == 'needs_price' else 'trigger_price'}"
    if word == "of_equity":
        return f"of equity {equity:.10g}, case: {CASES[what]}"
    if word == "stress":
        return f"of equity {equity:.10g}, stress scenario {name}"
    if word == "equity":
        return f"equity must be known and > 0, was {value}"
    if word == "scope":
        return scope
    if word == "instrument":
        return name
    if word == "messages":
        kept = f", {rate[1]} kept for orders that take risk off" if rate[1] else ""
        return f"{scope}: in {rate[0] / 1e9:g} s{kept}"
    if code == "NON_FINITE_QUANTITY":
        return f"quantity {quantity}"
    if code == "MISSING_SCENARIOS":
        return "no scenarios are loaded"
    if code == "MISSING_STRESS_SCENARIOS":
        return "no stress scenarios are loaded"
    if code == "MODEL_SIGNAL_AGE":
        return "ns"
    if code == "SELF_TRADE":
        return f"{'market order' if math.isnan(price) else 'price'} meets an own resting order"
    return ""
