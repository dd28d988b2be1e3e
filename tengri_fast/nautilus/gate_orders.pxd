from libc.stdint cimport uint32_t

from nautilus_trader.cache.cache cimport Cache
from nautilus_trader.common.component cimport Clock
from nautilus_trader.model.identifiers cimport AccountId, ClientOrderId, PositionId, StrategyId
from nautilus_trader.model.objects cimport Quantity
from nautilus_trader.model.orders.base cimport Order

from tengri_fast.nautilus.gate_names cimport NO_NUMBER, NameTable, PairTable, number_of
from tengri_fast.nautilus.gate_prices cimport GatePrices
from tengri_fast.risk.portfolio cimport PortfolioState, tf_risk_order


cdef class GateOrders:
    cdef PortfolioState state
    cdef GatePrices prices
    cdef Cache cache
    cdef Clock clock
    cdef dict _named        # ClientOrderId -> str, of orders that the portfolio counts as working
    cdef NameTable _live    # the same, to be found by the C text of an event
    cdef NameTable _strategies # strategy id -> name of the portfolio
    cdef NameTable _accounts
    cdef const char *_strategy_text # the latest of each, and its name: mostly it is the next one, too
    cdef const char *_account_text
    cdef uint32_t _strategy
    cdef uint32_t _account
    cdef PairTable _netting # instrument and strategy -> name of the netting position
    cdef uint32_t *_venue_accounts # by instrument: name of the account at its venue, NO_NUMBER: not known yet
    cdef uint32_t _venue_room
    cdef readonly object pending # modifications that are under way
    cdef public bint any_pending # False only when there are none
    cdef void clear(self)
    cdef void forget_accounts(self) noexcept
    cdef str live_name(self, ClientOrderId client_order_id)
    cdef uint32_t strategy(self, StrategyId strategy_id) except? 0xFFFFFFFF
    cdef uint32_t account(self, AccountId account_id) except? 0xFFFFFFFF
    cdef uint32_t _account_of(self, Order order, uint32_t number) except? 0xFFFFFFFF
    cdef uint32_t _position_of(self, Order order, PositionId position_id, uint32_t number,
                               uint32_t strategy) except? 0xFFFFFFFF
    cdef int read(self, Order order, PositionId position_id, uint32_t number, tf_risk_order *out) except -1
    cdef double base_quantity(self, Order order, Quantity quantity, double price, uint32_t number) except? -1.0
    cdef object view(self, Order order, const tf_risk_order *asked)
    cdef int count(self, Order order, str name, tf_risk_order *asked) except -1
    cdef int sync(self, Order order, uint32_t number) except -1
    cdef int sync_target(self, Order order, uint32_t number) except -1
    cdef int _retarget(self, Order order, str name, tf_risk_order *now) except -1
    cdef double _known_quantity(self, str name) except? -1.0
    cdef int close(self, ClientOrderId client_order_id) except -1
    cdef object worst_price(self, Order order, uint32_t number)


cdef inline bint is_live(GateOrders orders, const char *client_order_id) noexcept:
    """Whether the portfolio counts an order as working."""
    return number_of(orders._live, client_order_id) != NO_NUMBER
