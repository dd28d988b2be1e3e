"""The reserve of modifications under way, against a venue that answers in sequence but says little."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")

from nautilus_trader.model.objects import Price, Quantity

from tengri_fast.nautilus.gate_pending import Modification, PendingModifications

NAN = math.nan


@dataclass
class Order:
    """What is looked at of an order."""

    quantity: Any
    price: Any
    has_price: bool = True
    has_trigger_price: bool = False
    trigger_price: Any = None


def reserve(pending: PendingModifications, order: Order) -> tuple[float, float, float]:
    return pending.reserve("o", float(order.quantity), float(order.price), NAN, max)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.none() | st.integers(1, 9), st.none() | st.integers(1, 9)),
        st.tuples(st.sampled_from(["accept", "reject", "early", "refuse", "inner", "spontaneous"])),
    ),
    max_size=40,
)


@given(STEPS)
def test_the_reserve_covers_whatever_the_venue_may_still_do(steps: list[Any]) -> None:
    pending = PendingModifications()
    order = Order(Quantity.from_int(1), Price.from_int(1))
    queue: list[tuple[int, Any, Any]] = []  # the truth: what is on its way
    for number, (kind, *wish) in enumerate(steps):
        if kind == "send":
            quantity = None if wish[0] is None else Quantity.from_int(wish[0])
            price = None if wish[1] is None else Price.from_int(wish[1])
            pending.announced("o")
            pending.came("o")
            units = None if quantity is None else float(quantity)
            pending.sent("o", Modification(number, quantity, price, None, units))
            queue.append((number, quantity, price))
        elif kind == "accept" and queue:
            _, quantity, price = queue.pop(0)
            order.quantity = order.quantity if quantity is None else quantity
            order.price = order.price if price is None else price
            pending.updated("o", order)
        elif kind == "reject" and queue:
            queue.pop(0)
            pending.rejected("o", number + 1_000, False)
        elif kind == "early":  # refused before it reaches the gate
            pending.announced("o")
            pending.rejected("o", number + 1_000, False)
        elif kind == "refuse":  # by this gate
            pending.announced("o")
            pending.came("o")
            pending.refused("o", number)
            pending.rejected("o", number, True)
        elif kind == "inner" and queue:  # by a gate behind this one, which refuses what came last
            pending.rejected("o", queue.pop()[0], True)
        elif kind == "spontaneous" and not queue:
            pending.updated("o", order)
        most = max([float(order.quantity), *(float(q) for _, q, _ in queue if q is not None)])
        dearest = max([float(order.price), *(float(p) for _, _, p in queue if p is not None)])
        quantity_reserved, price_reserved, trigger = reserve(pending, order)
        assert quantity_reserved == most
        assert price_reserved == dearest
        assert math.isnan(trigger)
        assert ("o" in pending) == bool(queue)


def test_an_update_that_fulfils_no_wish_answers_none() -> None:
    pending = PendingModifications()
    order = Order(Quantity.from_int(1), Price.from_int(5))
    pending.sent("o", Modification(1, Quantity.from_int(4), None, None, 4.0))
    pending.updated("o", order)
    assert reserve(pending, order)[0] == 4.0
    order.quantity = Quantity.from_str("4.000")
    pending.updated("o", order)
    assert "o" not in pending


def test_a_price_that_an_order_did_not_have_is_reserved() -> None:
    pending = PendingModifications()
    pending.sent("o", Modification(1, None, None, Price.from_int(7), None))
    assert pending.reserve("o", 2.0, 3.0, NAN, max) == (2.0, 3.0, 7.0)


def test_a_refusal_of_another_gate_that_never_came_frees_nothing() -> None:
    """The gate in front refuses: this one has only seen the announcement, and must not wait for it for ever."""
    pending = PendingModifications()
    order = Order(Quantity.from_int(1), Price.from_int(5))
    pending.sent("o", Modification(1, Quantity.from_int(4), None, None, 4.0))
    pending.announced("o")
    pending.rejected("o", 99, True)
    assert reserve(pending, order)[0] == 4.0
    pending.rejected("o", 100, False)  # the venue's
    assert reserve(pending, order)[0] == 1.0


def test_a_modification_that_failed_after_it_was_noted_is_withdrawn() -> None:
    pending = PendingModifications()
    pending.sent("o", Modification(1, Quantity.from_int(4), None, None, 4.0))
    pending.refused("o", 1)
    assert "o" not in pending


def test_a_closed_order_gives_everything_back() -> None:
    pending = PendingModifications()
    pending.announced("o")
    pending.sent("o", Modification(1, Quantity.from_int(4), None, None, 4.0))
    pending.closed("o")
    assert "o" not in pending
    pending.sent("o", Modification(2, Quantity.from_int(3), None, None, 3.0))
    pending.rejected("o", 50, False)
    assert "o" not in pending
