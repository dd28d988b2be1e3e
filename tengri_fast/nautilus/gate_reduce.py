"""How reduce-only orders are put to the rules: exact about integrity, never an exposure that cannot come about.

A venue cuts such an order at its position, and refuses it where there is none. So it adds no exposure however large it
is, unless another working order of that side, which the venue would not cut, closes the same position:

- alone, it is examined as it was sent, and integrity rules only can refuse it;
- beside such an order, what it leaves of the position may be flipped by the other one, so it is examined like any
  order, with no more than the size of the position.

This relies on a venue that honors the instruction at the moment of the fill. NautilusTrader 1.231's simulated exchange
does not always: a reduce-only order that rests there while its position changes side (short 3, then bought 5: long 2)
is still filled in whole and adds to the new position, and several of them add up. In such a backtest the net position
can exceed ``max_position`` by the quantity of these orders. Cancel them when their position is closed or turned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from tengri_fast.risk import OrderView, PortfolioState, RiskGate, Verdict

__all__ = ["ReduceOnly"]


class ReduceOnly:
    """Puts orders, of which some may be reduce-only, to the rules.

    Parameters
    ----------
    gate : RiskGate
        The rules.
    state : PortfolioState
        The portfolio they read.
    reducible : callable
        Size of the position that an order closes, 0 where it closes none.
    """

    def __init__(self, gate: RiskGate, state: PortfolioState, reducible: Callable[[OrderView], float]) -> None:
        self._gate = gate
        self._state = state
        self._reducible = reducible

    def check(self, view: OrderView) -> Verdict:
        """Examine one order."""
        if not view.reduce_only or not view.quantity > 0.0:
            return self._gate.check(view)
        if self.adds_nothing(view):
            return self._integrity(view)
        size = self._reducible(view)
        if view.quantity <= size:
            return self._gate.check(view)
        verdict = self._integrity(view)
        if not verdict.allowed:
            return verdict
        cut = copy.copy(view)
        cut.quantity = size
        return self._gate.check(cut)

    def check_list(self, views: Sequence[OrderView]) -> Verdict:
        """Examine orders that are sent together: those that add nothing each by itself, the others as a list."""
        if len({view.client_order_id for view in views}) < len(views):
            return self._gate.check_list(views)  # which objects to the same order twice
        rest: list[OrderView] = []
        alerts: tuple[str, ...] = ()
        for view in views:
            if not (view.reduce_only and view.quantity > 0.0 and self.adds_nothing(view, views)):
                rest.append(view)
                continue
            verdict = self._integrity(view)
            if not verdict.allowed:
                return verdict
            alerts += verdict.alerts
        if not rest and views:
            return Verdict(True, True, (), alerts)
        verdict = self._gate.check_list(rest)
        return Verdict(verdict.allowed, verdict.reducing, verdict.violations, alerts + verdict.alerts)

    def _integrity(self, view: OrderView) -> Verdict:
        """Examine an order as one that is known to work unchanged: that asks for its integrity and nothing else."""
        if not self._state.stage(view):
            return self._gate.check(view)
        try:
            return self._gate.check_modify(view)
        finally:
            self._state.unstage((view.client_order_id,))

    def adds_nothing(self, view: OrderView, others: Sequence[OrderView] = ()) -> bool:
        """Whether a reduce-only order adds no exposure.

        Parameters
        ----------
        view : OrderView
            A reduce-only order.
        others : sequence of OrderView
            Orders that are about to work beside it.

        Returns
        -------
        bool
            True where it closes nothing, or no order that is not cut counts on the same position.
        """
        if not self._reducible(view) > 0.0:
            return True
        return not any(
            other.client_order_id != view.client_order_id
            and other.instrument_id == view.instrument_id
            and other.side == view.side
            and other.position_id == view.position_id
            and not self._state.is_capped(other)
            for other in (*self._state.working_orders(), *others)
        )
