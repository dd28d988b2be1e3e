"""What a rule written in Python needs: the protocol, and the order under examination.

The standard rules are in C (csrc/risk/limits_check.c); :class:`~tengri_fast.risk.gate.RiskGate` asks ``extra_rules``
after them. There are three kinds, and the kind decides what happens to an order that only takes risk off and to a rule
that fails:

========= ================================= ====================== ===============================
kind      asks                              reducing order         rule raises an exception
========= ================================= ====================== ===============================
sanity    is this an order at all?          applies                denied
integrity is it what the sender meant?      applies                denied
risk      can the portfolio bear it?        does not stop it       denied; a reducing order passes,
                                                                   with an alert
========= ================================= ====================== ===============================

When a standard sanity rule objects, no other is asked: there is nothing they could compute with. Otherwise every rule
is asked and all violations are returned.

*Reference price.* The mid of the current two-sided quote, or the last trade. An order that adds risk needs a quote that
is valid and not stale; so does a reducing order with a price, when there is a collar. A reducing market order does not:
when the feed has died, closing must still be possible.

*Collar.* |price - reference| / reference in basis points, on both sides. For an order that waits for a trigger which
the market has not reached, the reference is the trigger price: that is where the market will be when it acts.

*Integrity.* Tick, lot and sizes of the venue, reference price, collar, duplicates and rates. Rates keep a part for
orders that take risk off. Everything else is a risk rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from tengri_fast.risk.portfolio import PortfolioState, Quote
    from tengri_fast.risk.types import InstrumentFacts, OrderView, Violation

__all__ = ["CheckContext", "Kind", "ModelHealth", "Rule"]

Kind = Literal["sanity", "integrity", "risk"]


class CheckContext(msgspec.Struct, eq=False):
    """One order under examination.

    Parameters
    ----------
    order : OrderView
        The order.
    portfolio : PortfolioState
        The portfolio it would join.
    facts : InstrumentFacts or None
        Facts of its instrument.
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


@runtime_checkable
class ModelHealth(Protocol):
    """What the model behind a strategy says of itself; read at every order of the strategy."""

    @property
    def rung(self) -> int:
        """Rung of the ladder of fallbacks on which it runs, 0 for the best."""
        ...

    @property
    def out_of_distribution(self) -> float:
        """How far its input is from what it was trained on; NaN is denied."""
        ...

    @property
    def confidence(self) -> float:
        """How sure it is, 0 to 1; NaN is denied."""
        ...

    @property
    def ts(self) -> int:
        """Time of its last word, UTC ns."""
        ...
