"""The words that the rows of the control evidence are written in: what they serve, and the orders they send.

BTC is quoted 50,000 at 50,001 and ETH 3,000 at 3,000.50 unless a row says otherwise; each account starts with
1,000,000 USDT.
"""

from __future__ import annotations

from typing import Any

from tengri_fast.nautilus.evidence_steps import Quote, Send, denied

__all__ = [
    "ACCEPTED", "CAPITAL", "COLLAR", "ERRONEOUS", "FILLED", "GOOD", "KILL", "MESSAGES", "POSITION", "REPEATED",
    "RESTRICTED", "RULES", "SCOPES", "VALUE", "VOLUME", "WIDE", "bad", "buy", "released", "rest", "same", "sell",
]  # fmt: skip

GOOD = ("good practice",)
# 17 CFR 240.15c3-5 and Commission Delegated Regulation (EU) 2017/589.
ERRONEOUS = ("SEC 15c3-5(c)(1)(ii)",)
COLLAR = (*ERRONEOUS, "RTS 6 Art. 15(1)(a)")
VALUE = (*ERRONEOUS, "RTS 6 Art. 15(1)(b)")
VOLUME = (*ERRONEOUS, "RTS 6 Art. 15(1)(c)")
MESSAGES = ("RTS 6 Art. 15(1)(d)",)
CAPITAL = ("SEC 15c3-5(c)(1)(i)", "RTS 6 Art. 15(4)")
POSITION = ("SEC 15c3-5(c)(1)(i)", "RTS 6 Art. 15(2)", "RTS 6 Art. 15(4)")
REPEATED = ("RTS 6 Art. 15(3)",)
RULES = ("SEC 15c3-5(c)(2)(i)",)
RESTRICTED = ("SEC 15c3-5(c)(2)(ii)", "RTS 6 Art. 15(5)")
SCOPES = ("SEC 15c3-5(c)(1)(i)", "RTS 6 Art. 15(5)")
KILL = ("RTS 6 Art. 12",)

ACCEPTED = ("accepted",)
FILLED = ("filled",)
WIDE: dict[str, Any] = {"max_order_notional": 10_000_000.0}


def same(*wants: str) -> Quote:
    """The quote that BTC opens with, again: the market moves on."""
    return Quote(bid=50_000.0, ask=50_001.0, wants=wants)


def rest(quantity: float = 0.1, price: float = 49_900.0, **more: Any) -> Send:
    """A limit order that the gate must let pass and that rests below the market."""
    return Send(quantity=quantity, price=price, wants=ACCEPTED, **more)


def bad(*codes: str, quantity: float = 0.1, price: float | None = 49_800.0, **more: Any) -> Send:
    """An order that the gate must refuse under these codes."""
    return Send(quantity=quantity, price=price, wants=(denied(*codes),), **more)


def buy(quantity: float, what: str = "BTC", **more: Any) -> Send:
    """A market order that the gate must let pass."""
    return Send(what=what, quantity=quantity, wants=FILLED, **more)


def sell(quantity: float, what: str = "BTC", **more: Any) -> Send:
    """A market order that the gate must let pass."""
    return Send(what=what, side="sell", quantity=quantity, wants=FILLED, **more)


def released(quantity: float, want: str) -> tuple[Send, Quote]:
    """An order that the emulator holds, and the quote at which it lets it go; a later one is let go at once."""
    return Send(quantity=quantity, price=50_001.0, kind="emulated"), same(want)
