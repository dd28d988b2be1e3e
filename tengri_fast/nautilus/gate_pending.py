"""Modifications that the gate has passed on and the venue has not answered.

Until the answer comes, the order may fill as it is or as any of them asks, so the gate reserves the worst of all.

Answers carry no reference to the modification they answer, so this is how they are told apart:

- ``OrderUpdated`` answers the oldest one whose every wish the order now fulfils. An update that fulfils none answers
  none: trailing stops, contingent orders and venues that trim a reduce-only order update orders by themselves. A venue
  that grants something other than was asked for therefore keeps the reserve until the order is closed.
- ``OrderModifyRejected`` of a risk gate bears the id of the command that it refuses, and concerns no other.
- Nautilus' risk engine refuses modifications before they reach a gate. Each modification is announced by an
  ``OrderPendingUpdate`` when it is made: while more were announced than came, a rejection is for one that never came.
- Any other rejection is for the oldest one: venues answer the modifications of one order in their sequence.

Whatever is uncertain keeps a reserve; an order that is closed gives all of it back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Modification", "PendingModifications"]


class Modification(NamedTuple):
    """One modification as it was sent; None leaves a field of the order as it is.

    Parameters
    ----------
    command_id : UUID4
        Of the command.
    quantity : Quantity or None
        In the unit of the order, which may be money.
    price, trigger_price : Price or None
        Wanted prices.
    units : float or None
        The quantity as the rules count it.
    """

    command_id: Any
    quantity: Any
    price: Any
    trigger_price: Any
    units: float | None

    def is_fulfilled_by(self, order: Any) -> bool:
        """Whether the order has everything that was asked for."""
        return (
            (self.quantity is None or order.quantity == self.quantity)
            and (self.price is None or (order.has_price and order.price == self.price))
            and (self.trigger_price is None or (order.has_trigger_price and order.trigger_price == self.trigger_price))
        )


class PendingModifications:
    """What is under way, by order."""

    def __init__(self) -> None:
        self._sent: dict[Any, list[Modification]] = {}
        self._announced: dict[Any, int] = {}
        self._refused: dict[Any, set[Any]] = {}

    def announced(self, order_id: Any) -> None:
        """Somebody made a modification; it has not come yet."""
        self._announced[order_id] = self._announced.get(order_id, 0) + 1

    def came(self, order_id: Any) -> None:
        """A modification reached the gate."""
        self._never_came(order_id)

    def _never_came(self, order_id: Any) -> bool:
        count = self._announced.get(order_id, 0)
        if count > 1:
            self._announced[order_id] = count - 1
        else:
            self._announced.pop(order_id, None)
        return count > 0

    def sent(self, order_id: Any, modification: Modification) -> None:
        """The gate passes a modification on."""
        self._sent.setdefault(order_id, []).append(modification)

    def refused(self, order_id: Any, command_id: Any) -> None:
        """The gate refuses a modification, and will meet its own event with this id."""
        self._refused.setdefault(order_id, set()).add(command_id)
        self._withdraw(order_id, command_id)

    def updated(self, order_id: Any, order: Any) -> None:
        """The order was updated."""
        sent = self._sent.get(order_id, [])
        for number, modification in enumerate(sent):
            if modification.is_fulfilled_by(order):
                self._drop(order_id, number)
                return

    def rejected(self, order_id: Any, event_id: Any, by_gate: bool) -> None:
        """A modification was rejected: by a risk gate, which gives its event the id of the command, or by another."""
        if by_gate:
            own = self._refused.get(order_id)
            if own is not None and event_id in own:
                own.discard(event_id)
                return
            if not self._withdraw(order_id, event_id):
                self._never_came(order_id)
        elif not self._never_came(order_id) and order_id in self._sent:
            self._drop(order_id, 0)

    def _withdraw(self, order_id: Any, command_id: Any) -> bool:
        for number, modification in enumerate(self._sent.get(order_id, ())):
            if modification.command_id == command_id:
                self._drop(order_id, number)
                return True
        return False

    def _drop(self, order_id: Any, number: int) -> None:
        sent = self._sent[order_id]
        del sent[number]
        if not sent:
            del self._sent[order_id]

    def closed(self, order_id: Any) -> None:
        """The order can no longer fill."""
        self._sent.pop(order_id, None)
        self._announced.pop(order_id, None)
        self._refused.pop(order_id, None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is under way, announced, or refused and not heard of yet."""
        return not (self._sent or self._announced or self._refused)

    def __contains__(self, order_id: Any) -> bool:
        """Whether an answer is awaited."""
        return order_id in self._sent

    def reserve(
        self, order_id: Any, quantity: float, price: float, trigger: float, worst: Callable[[float, float], float]
    ) -> tuple[float, float, float]:
        """The largest quantity and the worst prices that an order may come to have.

        Parameters
        ----------
        order_id : ClientOrderId
            The order.
        quantity, price, trigger : float
            As it is now; NaN for a price that it has not.
        worst : callable
            Picks of two prices the one at which a unit is worth more to the rules.

        Returns
        -------
        quantity, price, trigger : float
            As it may become.
        """
        for modification in self._sent.get(order_id, ()):
            if modification.units is not None and modification.units > quantity:
                quantity = modification.units
            if modification.price is not None:
                price = _worst(price, modification.price.as_double(), worst)
            if modification.trigger_price is not None:
                trigger = _worst(trigger, modification.trigger_price.as_double(), worst)
        return quantity, price, trigger


def _worst(a: float, b: float, worst: Callable[[float, float], float]) -> float:
    return b if a != a else worst(a, b)  # a is NaN: the order has no such price yet
