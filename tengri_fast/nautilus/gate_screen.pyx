"""The gate's examination: puts Nautilus' orders, lists and modifications to the rules.

*Reduce-only.* The venue cuts such an order at its position. So it adds no exposure however large it is, unless another
working order of that side, which the venue would not cut, closes the same position. Alone, it is examined as it was
sent, and integrity rules only can refuse it; beside such an order, what it leaves of the position may be flipped by the
other one, so it is examined like any order, with no more than the size of the position. This relies on a venue that
honors the instruction at the moment of the fill. NautilusTrader 1.231's simulated exchange does not always: a
reduce-only order that rests there while its position changes side (short 3, then bought 5: long 2) is still filled in
whole and adds to the new position, and several of them add up. In such a backtest the net position can exceed
``max_position`` by the quantity of these orders. Cancel them when their position is closed or turned.

*Modifications* are examined as the order they would make, beside what those before them may still make of it. One that
neither raises the quantity nor changes a price of an order known to be working takes risk off.
"""

from libc.math cimport NAN
from libc.stdint cimport uint32_t, uint64_t

from tengri_fast.nautilus.gate_pending import Modification

from nautilus_trader.execution.messages cimport ModifyOrder
from nautilus_trader.model.identifiers cimport ClientOrderId, PositionId
from nautilus_trader.model.orders.base cimport Order

from tengri_fast.nautilus.gate_orders cimport GateOrders, is_live
from tengri_fast.risk.gate cimport ASK_CALMER, ASK_DRY, ASK_MODIFY, RiskGate, tf_verdict
from tengri_fast.risk.portfolio cimport (
    TF_RISK_NONE,
    PortfolioState,
    tf_position,
    tf_risk_order,
    tf_state_instrument,
    tf_state_position,
    tf_state_working,
    tf_working,
)

cdef tuple NOTHING = ()


cdef class GateScreen:
    """Examines what is sent; each examination leaves the order as it was examined, until the next one.

    Parameters
    ----------
    gate : RiskGate
        The rules.
    orders : GateOrders
        Reads orders and counts those that pass.

    Attributes
    ----------
    reducing : bool
        Whether what was last examined only takes risk off.
    breached : bool
        Whether the rules may have turned a kill switch on while they examined it.
    """

    def __cinit__(self, RiskGate gate, GateOrders orders):
        self._gate = gate
        self._orders = orders
        self._state = orders.state

    def __reduce__(self):
        raise TypeError("GateScreen cannot be pickled: it belongs to one gate")

    # ---- single orders -------------------------------------------------------------------------------------------

    cdef tuple examine(self, Order order):
        """Violations of an order that was read and is not of the plainest kind, see ``submit``."""
        cdef double filled = 0.0
        if is_live(self._orders, order.client_order_id._mem._0):
            self.asked.order = self._state.order_handle(self.name)
            filled = self._state.filled(self.name)
        return self._examine(order, filled)

    # ---- lists ---------------------------------------------------------------------------------------------------

    cdef object view(self, Order order, PositionId position_id, uint32_t number):
        """One order of a list."""
        self._orders.read(order, position_id, number, &self.asked)
        return self._orders.view(order, &self.asked)

    cdef int load(self, object view) except -1:
        """Make an order of a list the one that was last examined."""
        self.name = view.client_order_id
        return self._state.read_order(view, &self.asked)

    cdef tuple sent_together(self, list views):
        """Violations of orders that are sent together: all pass or none."""
        cdef set calmer = set()
        for view in views:
            self.load(view)
            if view.reduce_only and view.quantity > 0.0 and (
                self._adds_nothing(&self.asked) and not _is_joined(view, views)
            ):
                calmer.add(view.client_order_id)
        verdict = self._gate.check_list(views, calmer=frozenset(calmer))
        self.reducing = verdict.reducing
        self.breached = self._gate.killed
        return verdict.violations

    # ---- modifications -------------------------------------------------------------------------------------------

    cdef tuple modify(self, ModifyOrder command, Order order, uint32_t number):
        """Violations of an order as a modification would make it."""
        cdef ClientOrderId client_order_id = command.client_order_id
        cdef GateOrders orders = self._orders
        cdef tf_risk_order *asked = &self.asked
        cdef const tf_risk_order *known
        cdef unsigned flags = ASK_MODIFY
        cdef double early, own
        cdef double units = NAN
        cdef double filled
        orders.pending.came(client_order_id)
        orders.any_pending = True
        if not is_live(orders, client_order_id._mem._0):
            orders.sync(order, number)
        orders.read(order, None, number, asked)
        self.name = client_order_id.to_str()
        asked.order = self._state.order_handle(self.name)
        filled = self._state.filled(self.name)
        if order.is_quote_quantity:
            if command.quantity is not None:
                own = asked.price if command.price is None else command.price.as_f64_c()
                if own != own:  # NaN: it has no price
                    own = asked.trigger if command.trigger_price is None else command.trigger_price.as_f64_c()
                units = orders.base_quantity(order, command.quantity, own, number)
        else:
            # Fills before our time are in the order's quantity but not in the portfolio's count.
            early = order.filled_qty.as_f64_c() - filled
            asked.quantity -= early
            if command.quantity is not None:
                units = command.quantity.as_f64_c() - early
        # What this one leaves as it is may still be changed by those before it.
        if client_order_id in orders.pending:
            quantity, price, trigger = orders.pending.reserve(
                client_order_id, asked.quantity, asked.price, asked.trigger, orders.worst_price(order, number)
            )
            asked.quantity, asked.price, asked.trigger = quantity, price, trigger
        if asked.reduce_only and self._adds_nothing(asked):
            flags |= ASK_CALMER
        self._units = units
        if command.quantity is not None:
            asked.quantity = units
        if command.price is not None:
            asked.price = command.price.as_f64_c()
        if command.trigger_price is not None:
            asked.trigger = command.trigger_price.as_f64_c()
        if asked.order != TF_RISK_NONE:
            # Measured against what is known to work, not against what the order says: only that is counted already.
            known = &tf_state_working(self._state.core, asked.order).view
            if asked.quantity <= known.quantity and _same(asked.price, known.price) and (
                _same(asked.trigger, known.trigger)
            ):
                flags |= ASK_CALMER
        return self._ask(order, asked, filled, flags)

    cdef int modified(self, ModifyOrder command, Order order, uint32_t number) except -1:
        """The modification that was last examined goes on."""
        self._orders.pending.sent(
            command.client_order_id,
            Modification(command.id, command.quantity, command.price, command.trigger_price,
                         None if command.quantity is None else self._units),
        )
        return self._orders.sync(order, number)

    # ---- asking --------------------------------------------------------------------------------------------------

    cdef tuple _examine(self, Order order, double filled):
        """Ask about an order; one that is reduce-only is cut at its position as the venue will cut it."""
        cdef tf_risk_order *asked = &self.asked
        cdef tf_risk_order cut
        cdef tuple violations
        cdef double size
        if not asked.reduce_only or not asked.quantity > 0.0:
            return self._ask(order, asked, filled, 0)
        if self._adds_nothing(asked):
            return self._ask(order, asked, filled, ASK_CALMER)
        size = self._reducible(asked)
        if asked.quantity <= size:
            return self._ask(order, asked, filled, 0)
        violations = self._ask(order, asked, filled, ASK_CALMER | ASK_DRY)
        if violations:
            return violations
        cut = asked[0]
        cut.quantity = size
        return self._ask(order, &cut, filled, 0)

    cdef tuple _ask(self, Order order, const tf_risk_order *asked, double filled, unsigned flags):
        cdef const tf_verdict *found
        if not self._gate.plain:
            return self._ask_in_python(order, asked, flags)
        found = self._gate.ask(asked, filled, <uint64_t>hash(self.name), flags)
        self.reducing = found.reducing
        self.breached = found.breach != 0
        return NOTHING if found.allowed else self._gate.verdict(found, asked).violations

    cdef tuple _ask_in_python(self, Order order, const tf_risk_order *asked, unsigned flags):
        """With rules of the user's own, which are written for views."""
        view = self._orders.view(order, asked)
        calmer, dry = bool(flags & ASK_CALMER), bool(flags & ASK_DRY)
        if flags & ASK_MODIFY:
            verdict = self._gate.check_modify(view, calmer=calmer)
        else:
            verdict = self._gate.check(view, calmer=calmer, dry=dry)
        self.reducing = verdict.reducing
        self.breached = self._gate.killed
        return verdict.violations

    cdef double _reducible(self, const tf_risk_order *asked) noexcept:
        """Size of the position that an order closes; 0 where it closes none."""
        cdef const tf_position *position
        cdef uint32_t at = tf_state_instrument(self._state.core, asked.instrument).positions
        cdef double quantity = 0.0
        while at != TF_RISK_NONE:
            position = tf_state_position(self._state.core, at)
            if position.position == asked.position:
                quantity += position.quantity
            at = position.next
        quantity *= -asked.side
        return quantity if quantity > 0.0 else 0.0

    cdef bint _adds_nothing(self, const tf_risk_order *asked) noexcept:
        """Whether a reduce-only order closes nothing, or no order that is not cut closes the same."""
        cdef const tf_working *other
        cdef uint32_t at
        if not self._reducible(asked) > 0.0:
            return True
        at = tf_state_instrument(self._state.core, asked.instrument).orders
        while at != TF_RISK_NONE:
            other = tf_state_working(self._state.core, at)
            if at != asked.order and other.view.side == asked.side and other.view.position == asked.position and (
                not other.capped
            ):
                return False
            at = other.next
        return True


cdef inline bint _same(double a, double b) noexcept nogil:
    return a == b or (a != a and b != b)


def _is_joined(view, views):
    """Whether another order of a list, one that the venue does not cut, closes the same position."""
    return any(
        other.client_order_id != view.client_order_id
        and other.instrument_id == view.instrument_id
        and other.side == view.side
        and other.position_id == view.position_id
        and not other.reduce_only
        for other in views
    )
