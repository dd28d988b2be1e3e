from libc.stdint cimport uint32_t, uint64_t

from nautilus_trader.execution.engine cimport ExecutionEngine
from nautilus_trader.execution.messages cimport ModifyOrder, SubmitOrder, SubmitOrderList
from nautilus_trader.model.identifiers cimport InstrumentId
from nautilus_trader.model.orders.base cimport Order

from tengri_fast.nautilus.gate_accounts cimport GateAccounts
from tengri_fast.nautilus.gate_audit cimport GateAudit
from tengri_fast.nautilus.gate_events cimport GateEvents
from tengri_fast.nautilus.gate_market cimport GateMarket
from tengri_fast.nautilus.gate_orders cimport GateOrders
from tengri_fast.nautilus.gate_screen cimport GateScreen
from tengri_fast.risk.portfolio cimport tf_risk_order


cdef class NeuralRiskGate(GateMarket):
    cdef public tuple extra_rules       # of the user's own
    cdef readonly uint64_t submitted    # orders seen in submit commands
    cdef readonly uint64_t forwarded    # orders passed on
    cdef readonly uint64_t modified     # modifications seen
    cdef readonly uint64_t errors       # exceptions caught inside the gate
    cdef object _next                   # the handler behind us at the execution endpoint
    cdef ExecutionEngine _engine        # whose handler that is, where it is Nautilus' own of a backtest
    cdef object _entry                  # our own handler, one object so that the bus can compare it
    cdef object _on_event_entry
    cdef object _on_health_entry
    cdef object _limits                 # those in force after a reload; None: those of the configuration
    cdef object _state_file             # keeps switches and the account between runs, or None
    cdef readonly GateAudit audit             # or None
    cdef bint _armed
    cdef bint _retired
    cdef bint _uncertain                # an event could not be followed: read the cache again before the next check
    cdef bint _counts_messages          # the rules ask for every cancel
    cdef object _switches               # kill switches that are on
    cdef dict _health                   # strategy id -> source of its model's health
    cdef object _refusals
    cdef GateAccounts _accounts
    cdef GateOrders _orders
    cdef GateEvents _events
    cdef GateScreen _screen

    cpdef void _on_health(self, source)
    cpdef void _on_kill_timer(self, event)
    cdef void _install(self)
    cdef void _forget(self)
    cdef uint32_t _begin(self, InstrumentId instrument_id) except? 0xFFFFFFFF
    cdef int _refresh(self) except -1
    cdef int _screen_submit(self, SubmitOrder command) except -1
    cdef int _screen_list(self, SubmitOrderList command) except -1
    cdef int _screen_modify(self, ModifyOrder command) except -1
    cdef int _decided(self, Order order, const tf_risk_order *asked, tuple violations, str kind) except -1
    cdef int _refuse(self, Order order, tuple violations, str kind) except -1
    cdef int _reject(self, ModifyOrder command, Order order, tuple violations) except -1
