"""The gate's orders: Nautilus' orders as the rules see them, and which of them the portfolio counts as working.

Reading an order makes no Python object but its name: identifiers become the portfolio's numbers through tables that are
asked with the C text.
"""

from libc.math cimport NAN, ceil, fabs, rint
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc

from tengri_fast.nautilus.gate_facts import exclusive_group
from tengri_fast.nautilus.gate_pending import PendingModifications
from tengri_fast.risk import OrderView

from nautilus_trader.cache.cache cimport Cache
from nautilus_trader.common.component cimport Clock
from nautilus_trader.core.rust.model cimport ContingencyType, OrderSide, OrderType
from nautilus_trader.model.identifiers cimport AccountId, ClientOrderId, InstrumentId, PositionId, StrategyId
from nautilus_trader.model.instruments.base cimport Instrument
from nautilus_trader.model.objects cimport Price, Quantity
from nautilus_trader.model.orders.base cimport Order
from nautilus_trader.model.orders.limit cimport LimitOrder

from tengri_fast.nautilus.gate_names cimport NO_NUMBER, NameTable, PairTable, number_of, number_of_pair
from tengri_fast.nautilus.gate_prices cimport GatePrices, is_price, tf_mark
from tengri_fast.risk.portfolio cimport (
    TF_ORDER_LIMIT,
    TF_ORDER_LIMIT_IF_TOUCHED,
    TF_ORDER_MARKET,
    TF_ORDER_MARKET_IF_TOUCHED,
    TF_ORDER_MARKET_TO_LIMIT,
    TF_ORDER_STOP_LIMIT,
    TF_ORDER_STOP_MARKET,
    TF_ORDER_TRAILING_STOP_LIMIT,
    TF_ORDER_TRAILING_STOP_MARKET,
    TF_ORDER_TYPES,
    TF_RISK_NONE,
    PortfolioState,
    tf_risk_order,
    tf_state_working,
)

# The rules' number of an order type, by Nautilus'.
cdef uint8_t[10] TYPES
TYPES[0] = TF_ORDER_TYPES
TYPES[<int>OrderType.MARKET] = TF_ORDER_MARKET
TYPES[<int>OrderType.LIMIT] = TF_ORDER_LIMIT
TYPES[<int>OrderType.STOP_MARKET] = TF_ORDER_STOP_MARKET
TYPES[<int>OrderType.STOP_LIMIT] = TF_ORDER_STOP_LIMIT
TYPES[<int>OrderType.MARKET_TO_LIMIT] = TF_ORDER_MARKET_TO_LIMIT
TYPES[<int>OrderType.MARKET_IF_TOUCHED] = TF_ORDER_MARKET_IF_TOUCHED
TYPES[<int>OrderType.LIMIT_IF_TOUCHED] = TF_ORDER_LIMIT_IF_TOUCHED
TYPES[<int>OrderType.TRAILING_STOP_MARKET] = TF_ORDER_TRAILING_STOP_MARKET
TYPES[<int>OrderType.TRAILING_STOP_LIMIT] = TF_ORDER_TRAILING_STOP_LIMIT


cdef class GateOrders:
    """Orders by client order id.

    Parameters
    ----------
    cache : Cache
        Where orders and accounts are found.
    clock : Clock
        Gives the time of a decision.
    state : PortfolioState
        Counts the working orders.
    prices : GatePrices
        The instruments, numbered as in `state`.

    Attributes
    ----------
    pending : PendingModifications
        Modifications that were passed on and not answered.
    any_pending : bool
        Whether there may be any, or one was announced.
    """

    def __cinit__(self, Cache cache, Clock clock, PortfolioState state, GatePrices prices):
        self.cache = cache
        self.clock = clock
        self.state = state
        self.prices = prices
        self._live = NameTable()
        self._strategies = NameTable()
        self._accounts = NameTable()
        self._netting = PairTable()
        self.clear()

    def __dealloc__(self):
        free(self._venue_accounts)

    def __len__(self):
        return self._live.count

    def __reduce__(self):
        raise TypeError("GateOrders cannot be pickled: they belong to one gate")

    cdef void clear(self):
        """Forget every order."""
        self._live.clear()
        self._named = {}
        self.pending = PendingModifications()
        self.any_pending = False
        self.forget_accounts()

    # ---- names ---------------------------------------------------------------------------------------------------

    cdef void forget_accounts(self) noexcept:
        """Look again for the account of each venue: another one has come."""
        cdef uint32_t i
        for i in range(self._venue_room):
            self._venue_accounts[i] = NO_NUMBER

    cdef uint32_t strategy(self, StrategyId strategy_id) except? 0xFFFFFFFF:
        cdef uint32_t found
        if strategy_id._mem._0 == self._strategy_text:
            return self._strategy
        found = number_of(self._strategies, strategy_id._mem._0)
        if found == NO_NUMBER:
            found = self.state.name_kept(strategy_id.to_str())
            self._strategies.put(strategy_id._mem._0, found)
        self._strategy_text, self._strategy = strategy_id._mem._0, found
        return found

    cdef uint32_t account(self, AccountId account_id) except? 0xFFFFFFFF:
        cdef uint32_t found
        if account_id is None:
            return 0
        if account_id._mem._0 == self._account_text:
            return self._account
        found = number_of(self._accounts, account_id._mem._0)
        if found == NO_NUMBER:
            found = self.state.name_kept(account_id.to_str())
            self._accounts.put(account_id._mem._0, found)
        self._account_text, self._account = account_id._mem._0, found
        return found

    cdef uint32_t _account_of(self, Order order, uint32_t number) except? 0xFFFFFFFF:
        """The account of an order: its own, or that of the venue; 0 where there is none yet."""
        cdef AccountId account_id = order.account_id
        cdef uint32_t *larger
        cdef uint32_t i, room
        if account_id is not None:
            return self.account(account_id)
        if number >= self._venue_room:
            room = max(<uint32_t>16, 2 * number)
            larger = <uint32_t *>realloc(self._venue_accounts, room * sizeof(uint32_t))
            if larger == NULL:
                raise MemoryError("no memory for the gate's accounts")
            for i in range(self._venue_room, room):
                larger[i] = NO_NUMBER
            self._venue_accounts = larger
            self._venue_room = room
        if self._venue_accounts[number] == NO_NUMBER:
            account_id = self.cache.account_id(order.instrument_id.venue)
            if account_id is None:
                return 0
            self._venue_accounts[number] = self.account(account_id)
        return self._venue_accounts[number]

    cdef uint32_t _position_of(self, Order order, PositionId position_id, uint32_t number,
                               uint32_t strategy) except? 0xFFFFFFFF:
        """The position an order would close.

        Where none is named it is the netting position of the strategy. Under hedging no position has that name, which
        is right: such an order opens a new position.
        """
        cdef uint32_t found
        if position_id is None:
            position_id = order.position_id
        if position_id is None:
            position_id = self.cache._index_order_position.get(order.client_order_id)
        if position_id is not None:
            return self.state.name(position_id.to_str())
        found = number_of_pair(self._netting, number, strategy)
        if found == NO_NUMBER:
            found = self.state.name_kept(f"{self.prices.names[number]}-{order.strategy_id.to_str()}")
            self._netting.put(number, strategy, found)
        return found

    # ---- reading -------------------------------------------------------------------------------------------------

    cdef int read(self, Order order, PositionId position_id, uint32_t number, tf_risk_order *out) except -1:
        """An order as the rules see it; NaN where it has no price."""
        cdef Price price = None
        cdef Price trigger = None
        out.order = TF_RISK_NONE
        out.instrument = number
        out.strategy = self.strategy(order.strategy_id)
        out.account = self._account_of(order, number)
        out.position = self._position_of(order, position_id, number, out.strategy)
        out.group = 0
        out.parent = 0
        if order.contingency_type != ContingencyType.NO_CONTINGENCY:
            group = exclusive_group(order)
            if group:
                out.group = self.state.name(group)
        if order.parent_order_id is not None:
            out.parent = self.state.name(order.parent_order_id.to_str())
        out.side = 1 if order.side == OrderSide.BUY else -1
        out.type = TYPES[<int>order.order_type] if 0 < <int>order.order_type < 10 else <uint8_t>TF_ORDER_TYPES
        out.reduce_only = order.is_reduce_only
        if order.order_type == OrderType.LIMIT:
            price = (<LimitOrder>order).price
        elif order.order_type != OrderType.MARKET:
            if order.has_price_c():
                price = order.price
            if order.has_trigger_price_c():
                trigger = order.trigger_price
        out.price = NAN if price is None else price.as_f64_c()
        out.trigger = NAN if trigger is None else trigger.as_f64_c()
        out.quantity = order.quantity.as_f64_c()
        if order.is_quote_quantity:
            out.quantity = self.base_quantity(
                order, order.quantity, out.price if out.price == out.price else out.trigger, number
            )
        out.ts = self.clock.timestamp_ns()
        return 0

    cdef double base_quantity(self, Order order, Quantity quantity, double price, uint32_t number) except? -1.0:
        """Units of an order whose quantity is money, as Nautilus converts it; NaN, which is refused, without price.

        A buy may be filled at the ask if that is below its own price, and then gets more units for its money.
        """
        cdef const tf_mark *mark = &self.prices.marks[number]
        cdef Instrument instrument = self.prices.instruments[number]
        cdef double units, lot, lots
        if instrument.is_inverse:
            return quantity.as_f64_c()  # contracts are amounts of quote currency: Nautilus converts nothing
        if price != price:
            price = mark.ask if order.side == OrderSide.BUY else mark.bid
        elif order.side == OrderSide.BUY and mark.ask < price:
            price = mark.ask
        if not is_price(price):
            return NAN
        units = instrument.calculate_base_quantity(quantity, instrument.make_price(price)).as_f64_c()
        # Nautilus rounds to decimals. Where a lot is coarser than the last decimal, the venue takes at most one more.
        lot = instrument.size_increment.as_f64_c()
        lots = units / lot
        if fabs(lots - rint(lots)) > 1e-6:
            units = ceil(lots) * lot
        return units

    cdef object view(self, Order order, const tf_risk_order *asked):
        """An order that was read, in the words of the rules: for lists and for rules written in Python."""
        return OrderView(
            client_order_id=order.client_order_id.to_str(),
            strategy_id=order.strategy_id.to_str(),
            account_id=self.state.name_text(asked.account),
            instrument_id=self.prices.names[asked.instrument],
            position_id=self.state.name_text(asked.position),
            side=asked.side,
            quantity=asked.quantity,
            price=asked.price,
            trigger_price=asked.trigger,
            order_type=order.type_string_c(),
            reduce_only=asked.reduce_only,
            ts=asked.ts,
            parent_id=self.state.name_text(asked.parent),
            exclusive_group=self.state.name_text(asked.group),
        )

    cdef object worst_price(self, Order order, uint32_t number):
        """Picks of two prices the one at which a unit of an order is worth more, as the rules value it."""
        cdef Instrument instrument = self.prices.instruments[number]
        cdef bint sells_binary = self.prices.marks[number].binary and order.side == OrderSide.SELL
        return min if instrument.is_inverse or sells_binary else max

    # ---- working orders ------------------------------------------------------------------------------------------

    cdef str live_name(self, ClientOrderId client_order_id):
        """Name of an order that is counted as working, None for others."""
        return self._named.get(client_order_id)

    cdef int count(self, Order order, str name, tf_risk_order *asked) except -1:
        """Count an order as working from now on."""
        self.state.order_working(asked, name)
        self._named[order.client_order_id] = name
        return self._live.put(order.client_order_id._mem._0, 0)

    cdef int close(self, ClientOrderId client_order_id) except -1:
        """An order can no longer fill."""
        cdef str name = self._named.pop(client_order_id, None)
        if name is None:
            name = client_order_id.to_str()
        else:
            self._live.drop(client_order_id._mem._0)
            if self.state.order_handle(name) == TF_RISK_NONE and not self.any_pending:
                return 0  # its last fill has closed it
        if self.any_pending:
            self.pending.closed(client_order_id)
            self.any_pending = not self.pending.is_empty
        return self.state.order_closed(name)

    cdef int sync(self, Order order, uint32_t number) except -1:
        """State a working order as it now is; one that is closed stops counting."""
        cdef tf_risk_order now
        cdef str name
        cdef double quantity, price, trigger, filled
        if order.is_closed_c():
            return self.close(order.client_order_id)
        self.read(order, None, number, &now)
        name = self.live_name(order.client_order_id)
        if name is None:
            if not (order.is_open_c() or order.is_inflight_c()):
                return 0  # not sent yet: it is checked when it is
            name = order.client_order_id.to_str()
            self.count(order, name, &now)
        else:
            self._retarget(order, name, &now)
        price, trigger = now.price, now.trigger
        filled = self.state.filled(name)
        if not order.is_quote_quantity:
            # Fills before our time are in the order's quantity but not in the portfolio's count: the open part decides.
            quantity = order.leaves_qty.as_f64_c() + filled
        elif filled == 0.0:
            quantity = now.quantity
        else:
            # Money and units cannot be taken from each other: what was counted before the first fill stays.
            quantity = self._known_quantity(name)
        if self.any_pending and order.client_order_id in self.pending:
            quantity, price, trigger = self.pending.reserve(
                order.client_order_id, quantity, price, trigger, self.worst_price(order, number)
            )
        return self.state.order_update(name, quantity, price, trigger)

    cdef int sync_target(self, Order order, uint32_t number) except -1:
        """State the position of a working order again when the cache has given it another one than at submission."""
        cdef tf_risk_order now
        cdef str name = self.live_name(order.client_order_id)
        if name is None:
            return 0
        self.read(order, None, number, &now)
        return self._retarget(order, name, &now)

    cdef int _retarget(self, Order order, str name, tf_risk_order *now) except -1:
        cdef uint32_t handle = self.state.order_handle(name)
        cdef tf_risk_order known
        if handle == TF_RISK_NONE:
            return 0
        if order.position_id is None and self.cache.position_id(order.client_order_id) is None:
            return 0
        known = tf_state_working(self.state.core, handle).view
        if known.position == now.position:
            return 0
        known.position = now.position
        return self.state.order_working(&known, name)

    cdef double _known_quantity(self, str name) except? -1.0:
        cdef uint32_t handle = self.state.order_handle(name)
        return NAN if handle == TF_RISK_NONE else tf_state_working(self.state.core, handle).view.quantity

    def names(self):
        """Client order ids that are counted as working."""
        return list(self._named)
