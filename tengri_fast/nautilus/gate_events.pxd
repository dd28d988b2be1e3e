from libc.stdint cimport int32_t, uint32_t, uint64_t

from nautilus_trader.cache.cache cimport Cache
from nautilus_trader.model.events.order cimport (
    OrderAccepted,
    OrderEmulated,
    OrderEvent,
    OrderFilled,
    OrderInitialized,
    OrderReleased,
    OrderSubmitted,
)
from nautilus_trader.model.identifiers cimport InstrumentId, PositionId
from nautilus_trader.model.orders.base cimport Order
from nautilus_trader.model.position cimport Position

from tengri_fast.nautilus.gate_accounts cimport GateAccounts
from tengri_fast.nautilus.gate_orders cimport GateOrders, is_live
from tengri_fast.nautilus.gate_prices cimport GatePrices
from tengri_fast.risk.gate cimport RiskGate
from tengri_fast.risk.portfolio cimport PortfolioState


cdef class GateEvents:
    cdef PortfolioState _state
    cdef RiskGate _gate
    cdef GatePrices _prices
    cdef GateAccounts _accounts
    cdef GateOrders _orders
    cdef Cache _cache
    cdef object _add        # makes an instrument known, by id; answers its number
    cdef public bint counts_executions # the rules ask for every fill
    cdef public bint counts_rejects    # the rules ask for every answer of a venue
    cdef int32_t number(self, InstrumentId instrument_id) except -1
    cdef int follow(self, OrderEvent event) except -1
    cdef int _follow_other(self, OrderEvent event) except -1
    cdef int _on_fill(self, OrderFilled fill) except -1
    cdef int _moved(self, OrderFilled fill, uint32_t number, double quantity) except -1
    cdef uint32_t _position_name(self, PositionId position_id) except? 0xFFFFFFFF
    cdef int sync_positions(self, uint32_t number) except -1
    cdef int _state_position(self, Position position, uint32_t number, double quantity) except -1
    cdef int read_all(self) except -1


cdef inline bint tells_nothing(OrderEvent event, GateOrders orders) noexcept:
    """Whether an event changes nothing of what the rules see: most do not, and cost no more than this."""
    kind = type(event)
    if kind is OrderAccepted:
        # Counted since it was sent, and nothing about it is different.
        return is_live(orders, (<OrderAccepted>event)._mem.client_order_id._0)
    if kind is OrderSubmitted:
        return is_live(orders, (<OrderSubmitted>event)._mem.client_order_id._0)
    return kind is OrderInitialized or kind is OrderReleased or kind is OrderEmulated
