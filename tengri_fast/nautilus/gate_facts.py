"""What the rules are told about Nautilus' instruments and orders, and what they say back.

Nothing here is on the path of an order that passes and stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nautilus_trader.model.enums import ContingencyType, MarketStatusAction, asset_class_to_str

from tengri_fast.risk import InstrumentFacts, Violation

__all__ = ["exclusive_group", "facts", "is_tradable", "reason"]

# The text travels with the event through logs and databases; every violation that fits is told.
_REASON_LIMIT = 480
_SEPARATOR = "\x1f"

# In these states of the market an order can trade, or may wait for it. What is not named here halts an instrument.
_TRADABLE = frozenset({MarketStatusAction.TRADING, MarketStatusAction.PRE_CLOSE})
# These say nothing about whether it can.
_SILENT = frozenset({
    MarketStatusAction.NONE,
    MarketStatusAction.NEW_PRICE_INDICATION,
    MarketStatusAction.SHORT_SELL_RESTRICTION_CHANGE,
})  # fmt: skip


def facts(
    instrument: Any,
    buckets: Mapping[str, str],
    short_rules: Mapping[str, Literal["allowed", "forbidden", "uptick"]],
) -> InstrumentFacts:
    """What the rules must know about an instrument.

    Parameters
    ----------
    instrument : Instrument
        One of Nautilus'.
    buckets, short_rules : mapping
        Correlation bucket and short-sale rule by instrument id; "*" stands for those not named.

    Returns
    -------
    InstrumentFacts
        ``margin_rate`` is the instrument's own initial margin rate: the leverage of an account is not taken off it.
    """
    kind = type(instrument).__name__
    name = instrument.id.value
    lowest, highest = instrument.min_quantity, instrument.max_quantity
    return InstrumentFacts(
        instrument_id=name,
        payoff="inverse" if instrument.is_inverse else "binary" if kind == "BinaryOption" else "linear",
        multiplier=float(instrument.multiplier),
        price_increment=float(instrument.price_increment),
        size_increment=float(instrument.size_increment),
        min_quantity=0.0 if lowest is None else float(lowest),
        max_quantity=0.0 if highest is None else float(highest),
        quote_currency=instrument.quote_currency.code,
        settlement_currency=instrument.get_settlement_currency().code,
        margin_rate=max(float(instrument.margin_init or 0), 0.0),
        venue=instrument.id.venue.value,
        bucket=buckets.get(name, buckets.get("*", "")),
        asset_class=asset_class_to_str(instrument.asset_class),
        short=short_rules.get(name, short_rules.get("*", "allowed")),
    )


def exclusive_group(order: Any) -> str:
    """One text for all orders of which the venue cancels the others when one fills; empty for one that stands alone.

    Not for OUO: a sibling that can trade at the same moment is not shrunk in time, and both fill.
    """
    if order.contingency_type != ContingencyType.OCO or not order.linked_order_ids:
        return ""
    names = {name.value for name in order.linked_order_ids} | {order.client_order_id.value}
    # Nautilus allows any character in an id; one with the separator could pass for several, so it stands alone.
    if any(_SEPARATOR in name for name in names):
        return ""
    return _SEPARATOR.join(sorted(names))


def is_tradable(status: Any) -> bool | None:
    """Whether an instrument status lets orders trade; None when it does not say."""
    if status.is_trading is not None:
        return bool(status.is_trading)
    if status.action in _SILENT:
        return None
    return status.action in _TRADABLE


def reason(violations: Sequence[Violation]) -> str:
    """All violations in one line that is short enough to travel."""
    text = "; ".join(violation.text() for violation in violations)
    return text if len(text) <= _REASON_LIMIT else text[: _REASON_LIMIT - 3] + "..."
