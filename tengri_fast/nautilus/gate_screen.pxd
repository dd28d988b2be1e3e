from libc.stdint cimport uint32_t, uint64_t

from nautilus_trader.execution.messages cimport ModifyOrder
from nautilus_trader.model.identifiers cimport PositionId
from nautilus_trader.model.orders.base cimport Order

from tengri_fast.nautilus.gate_orders cimport GateOrders, is_live
from tengri_fast.risk.gate cimport RiskGate, tf_verdict
from tengri_fast.risk.portfolio cimport PortfolioState, tf_risk_order


cdef class GateScreen:
    cdef RiskGate _gate
    cdef PortfolioState _state
    cdef GateOrders _orders
    cdef tf_risk_order asked    # the order as it was last examined
    cdef str name               # its client order id
    cdef readonly bint reducing # it only takes risk off
    cdef readonly bint breached # the rules may have turned a switch on
    cdef double _units          # wanted by the modification that was last examined
    cdef tuple examine(self, Order order)
    cdef tuple modify(self, ModifyOrder command, Order order, uint32_t number)
    cdef int modified(self, ModifyOrder command, Order order, uint32_t number) except -1
    cdef tuple sent_together(self, list views)
    cdef object view(self, Order order, PositionId position_id, uint32_t number)
    cdef int load(self, object view) except -1
    cdef tuple _examine(self, Order order, double filled)
    cdef tuple _ask(self, Order order, const tf_risk_order *asked, double filled, unsigned flags)
    cdef tuple _ask_in_python(self, Order order, const tf_risk_order *asked, unsigned flags)
    cdef double _reducible(self, const tf_risk_order *asked) noexcept
    cdef bint _adds_nothing(self, const tf_risk_order *asked) noexcept


# Inline, because most orders are new and plain: one library less on their way.
cdef inline tuple submit(GateScreen screen, Order order, PositionId position_id, uint32_t number):
    """Violations of an order that is submitted by itself."""
    cdef const tf_verdict *found
    screen._orders.read(order, position_id, number, &screen.asked)
    screen.name = order.client_order_id.to_str()
    if screen.asked.reduce_only or not screen._gate.plain or is_live(screen._orders, order.client_order_id._mem._0):
        return screen.examine(order)
    found = screen._gate.ask(&screen.asked, 0.0, <uint64_t>hash(screen.name), 0)
    screen.reducing = found.reducing
    screen.breached = found.breach != 0
    return () if found.allowed else screen._gate.verdict(found, &screen.asked).violations
