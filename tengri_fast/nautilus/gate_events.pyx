"""The gate's events: keeps the portfolio that the rules see what Nautilus' cache holds.

An event tells which order or position to look at; what it now is, is read from the order and the position themselves.
So an event seen twice, or missed, changes nothing. Most events of an order tell nothing that was not counted when it
was sent: those are recognised by the C text of their order and cost no Python object.
"""

from libc.math cimport fabs
from libc.stdint cimport int32_t, uint32_t

from nautilus_trader.core.rust.model cimport ContingencyType, OrderSide
from nautilus_trader.model.events.order cimport (
    OrderAccepted,
    OrderCanceled,
    OrderCancelRejected,
    OrderDenied,
    OrderEmulated,
    OrderEvent,
    OrderExpired,
    OrderFilled,
    OrderInitialized,
    OrderModifyRejected,
    OrderPendingCancel,
    OrderPendingUpdate,
    OrderRejected,
    OrderReleased,
    OrderSubmitted,
    OrderUpdated,
)
from nautilus_trader.model.identifiers cimport ClientOrderId, InstrumentId, PositionId
from nautilus_trader.model.orders.base cimport Order
from nautilus_trader.model.position cimport Position

from tengri_fast.nautilus.gate_accounts cimport GateAccounts
from tengri_fast.nautilus.gate_names cimport NO_NUMBER
from tengri_fast.nautilus.gate_orders cimport GateOrders, is_live
from tengri_fast.nautilus.gate_prices cimport GatePrices
from tengri_fast.risk.gate cimport RiskGate
from tengri_fast.risk.portfolio cimport PortfolioState

# What every reason of a risk gate begins with, see Violation.text.
cdef str REASON_MARK = "TENGRI_RISK:"


cdef class GateEvents:
    """Follows order events.

    Parameters
    ----------
    gate : RiskGate
        Told of fills and of answers of venues, where its limits ask for them.
    prices, accounts, orders
        What is kept up.
    add : callable
        Makes an instrument known by its id and answers its number.
    """

    def __cinit__(self, RiskGate gate, GatePrices prices, GateAccounts accounts, GateOrders orders, add):
        self._gate = gate
        self._state = orders.state
        self._prices = prices
        self._accounts = accounts
        self._orders = orders
        self._cache = orders.cache
        self._add = add

    def __reduce__(self):
        raise TypeError("GateEvents cannot be pickled: they belong to one gate")

    cdef int32_t number(self, InstrumentId instrument_id) except -1:
        """Number of an instrument, which is made known when it is not."""
        found = self._prices.index.get(instrument_id)
        return self._add(instrument_id) if found is None else found

    cdef int follow(self, OrderEvent event) except -1:
        """Follow an order event that the execution engine has applied."""
        kind = type(event)
        if tells_nothing(event, self._orders) and not (self.counts_rejects and kind is OrderAccepted):
            return 0
        if kind is OrderAccepted:
            if self.counts_rejects:
                self._gate.on_accept((<object>event).strategy_id.value)
            if is_live(self._orders, (<OrderAccepted>event)._mem.client_order_id._0):
                return 0
        elif kind is OrderFilled:
            return self._on_fill(<OrderFilled>event)
        elif kind is OrderCanceled:
            return self._orders.close((<OrderCanceled>event)._client_order_id)
        elif kind is OrderExpired:
            return self._orders.close((<OrderExpired>event)._client_order_id)
        return self._follow_other(event)

    cdef int _follow_other(self, OrderEvent event) except -1:
        cdef ClientOrderId client_order_id
        cdef Order order
        if isinstance(event, (OrderInitialized, OrderEmulated, OrderReleased)):
            return 0
        client_order_id = (<object>event).client_order_id
        if isinstance(event, OrderDenied):
            return self._orders.close(client_order_id)
        if isinstance(event, OrderPendingUpdate):
            self._orders.any_pending = True
            self._orders.pending.announced(client_order_id)
        if isinstance(event, (OrderPendingUpdate, OrderPendingCancel, OrderCancelRejected, OrderSubmitted,
                              OrderAccepted)) and is_live(self._orders, client_order_id._mem._0):
            return 0
        if isinstance(event, OrderFilled):
            return self._on_fill(<OrderFilled>event)
        order = self._cache.order(client_order_id)
        if isinstance(event, OrderRejected) and self.counts_rejects:
            self._gate.on_reject((<object>event).strategy_id.value, (<object>event).reason)
        elif isinstance(event, OrderModifyRejected):
            self._orders.pending.rejected(
                client_order_id, (<object>event).id, (<OrderModifyRejected>event)._reason.startswith(REASON_MARK)
            )
        elif isinstance(event, OrderUpdated) and order is not None:
            self._orders.pending.updated(client_order_id, order)
        if order is not None:
            self._orders.sync(order, self.number(order.instrument_id))
        return 0

    # ---- fills ---------------------------------------------------------------------------------------------------

    cdef int _on_fill(self, OrderFilled fill) except -1:
        cdef uint32_t number = self.number(fill._instrument_id)
        cdef double quantity = fill.last_qty.as_f64_c()
        cdef str name = self._orders.live_name(fill._client_order_id)
        cdef Order order = self._cache.order(fill._client_order_id)
        cdef ClientOrderId child_id
        cdef Order child
        if fill.order_side != OrderSide.BUY:
            quantity = -quantity
        self._accounts.balances_changed()
        # Without a trade id: the engine lets no fill pass twice, and the position is stated outright below.
        self._state.put_fill(
            number,
            quantity,
            fill.last_px.as_f64_c(),
            0 if fill.position_id is None else self._position_name(fill.position_id),
            self._orders.account(fill._account_id),
            self._orders.strategy(fill._strategy_id),
            fill._client_order_id.to_str() if name is None else name,
            "",
        )
        self._moved(fill, number, quantity)
        if self.counts_executions:
            self._gate.on_execution(
                fill._strategy_id.to_str(), self._prices.names[number], 1 if quantity > 0.0 else -1, fill._ts_event
            )
        if self.counts_rejects:
            self._gate.on_accept(fill._strategy_id.to_str())
        if order is None:
            return 0
        self._orders.sync(order, number)
        if order.contingency_type == ContingencyType.OTO and order.linked_order_ids:
            # The fill of an entry gives its exits a position, and they get no event of their own for it.
            for child_id in order.linked_order_ids:
                if is_live(self._orders, child_id._mem._0):
                    child = self._cache.order(child_id)
                    if child is not None:
                        self._orders.sync_target(child, self.number(child.instrument_id))
        return 0

    cdef int _moved(self, OrderFilled fill, uint32_t number, double quantity) except -1:
        """State the positions that a fill has moved."""
        cdef Position position = None
        cdef double before, now
        if fill.position_id is not None:
            position = self._cache.position(fill.position_id)
        if position is not None and position.instrument_id == fill._instrument_id:
            before = self._accounts.quantity(position.id)
            now = position.signed_qty
            if fabs(now - before - quantity) <= 1e-9 * (fabs(before) + fabs(quantity)):
                # It moved by the fill and by nothing else, so no other position did.
                return self._state_position(position, number, now)
        return self.sync_positions(number)

    # ---- positions -----------------------------------------------------------------------------------------------

    cdef uint32_t _position_name(self, PositionId position_id) except? 0xFFFFFFFF:
        cdef uint32_t name = self._accounts.name(position_id)
        return self._state.name(position_id.to_str()) if name == NO_NUMBER else name

    cdef int sync_positions(self, uint32_t number) except -1:
        """State the positions of one instrument as the cache has them: also after flips, which split a fill."""
        cdef InstrumentId instrument_id = self._prices.ids[number]
        cdef Position position
        cdef dict found = {}
        for position in (<object>self._cache).positions_open(instrument_id=instrument_id):
            found[position.id] = position
        for position in list(self._accounts.held.values()):
            if position.instrument_id == instrument_id and position.id not in found:
                self._state_position(position, number, 0.0)
        for position in found.values():
            self._state_position(position, number, position.signed_qty)
        return 0

    cdef int _state_position(self, Position position, uint32_t number, double quantity) except -1:
        cdef uint32_t name = self._position_name(position.id)
        if quantity == 0.0:
            self._accounts.release(position)
        else:
            self._accounts.hold(position, number, name)
        return self._state.put_position(
            number,
            quantity,
            name,
            self._orders.account(position.account_id),
            self._orders.strategy(position.strategy_id),
            position.avg_px_open,
        )

    cdef int read_all(self) except -1:
        """State every position and working order from the cache again."""
        cdef Order order
        cdef Position position
        cache = <object>self._cache
        for position in cache.positions_open():
            self.number(position.instrument_id)
        for number in range(self._prices.count):
            self.sync_positions(number)
        for client_order_id in self._orders.names():
            order = cache.order(client_order_id)
            if order is not None:
                self._orders.sync(order, self.number(order.instrument_id))
        for order in cache.orders_open() + cache.orders_inflight():
            self._orders.sync(order, self.number(order.instrument_id))
        self._accounts.balances_changed()
        return 0
