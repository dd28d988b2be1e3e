from libc.stdint cimport uint32_t

from nautilus_trader.execution.messages cimport ModifyOrder
from nautilus_trader.model.identifiers cimport PositionId
from nautilus_trader.model.orders.base cimport Order

from tengri_fast.nautilus.gate_orders cimport GateOrders
from tengri_fast.risk.gate cimport RiskGate
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
    cdef tuple submit(self, Order order, PositionId position_id, uint32_t number)
    cdef int passed(self, Order order) except -1
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
