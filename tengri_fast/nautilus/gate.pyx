"""The risk gate: an actor that stands in front of the execution engine.

NautilusTrader sends every command that can create risk to one endpoint of its message bus, ``ExecEngine.execute``:
orders that its own risk engine has passed, orders that its emulator releases (which never met the risk engine), child
orders of execution algorithms, and modifications. The gate takes that endpoint when it starts and hands on what
:class:`tengri_fast.risk.RiskGate` allows. A refusal is NautilusTrader's own ``OrderDenied`` or ``OrderModifyRejected``.

*Fail closed.* An exception while checking refuses the command; so does a command of a kind the gate does not know, and
so does everything before the gate is armed. Cancels and queries pass untouched in every state.

*Life.* The endpoint is taken in ``on_start`` (once, also after a reset) and kept when the actor stops: a Trader stops
actors before strategies, and what strategies send while they stop must meet the gate too. It is given back when the
actor is disposed.

*Where the portfolio comes from.* Orders and positions are followed through the topic ``events.order.*``, not by a
second interceptor at ``ExecEngine.process``. The engine publishes an event there after it has applied it, and only if
it applied it: duplicate fills, overfills and events of unknown orders are gone, fills found by reconciliation (which
never pass the endpoint) are there, and live, where the endpoint only queues, the cache already agrees with the event.
The gate subscribes ahead of strategies and then reads what the order and its positions now are, instead of adding up
events, so an event seen twice or missed changes nothing. Between a command and its first event the order counts as
working, and between a modification and its answer as the largest and dearest that it may become, see
:mod:`tengri_fast.nautilus.gate_pending`.

*Reduce-only.* The venue cuts such an order at the position: see :mod:`tengri_fast.nautilus.gate_reduce`.

*Quote quantity.* An order for an amount of money is examined with the units that Nautilus' own conversion gives it.
"""

from libc.math cimport NAN, ceil, fabs, rint
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

import copy
from datetime import timedelta
from pathlib import Path

from nautilus_trader.model.objects import Currency as PyCurrency

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus.gate_config import RiskGateConfig
from tengri_fast.nautilus.gate_pending import Modification, PendingModifications
from tengri_fast.nautilus.gate_reduce import ReduceOnly
from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, RiskGate, ScenarioSet, Violation

from nautilus_trader.accounting.accounts.base cimport Account
from nautilus_trader.cache.cache cimport Cache
from nautilus_trader.common.actor cimport Actor
from nautilus_trader.common.component cimport MessageBus
from nautilus_trader.core.message cimport Command
from nautilus_trader.core.rust.model cimport ContingencyType, OrderSide, OrderStatus, PriceType
from nautilus_trader.core.uuid cimport UUID4
from nautilus_trader.execution.messages cimport (
    BatchCancelOrders,
    CancelAllOrders,
    CancelOrder,
    ModifyOrder,
    QueryAccount,
    QueryOrder,
    SubmitOrder,
    SubmitOrderList,
)
from nautilus_trader.model.data cimport Bar, OrderBookDepth10, QuoteTick, TradeTick
from nautilus_trader.model.events.order cimport (
    OrderAccepted,
    OrderCancelRejected,
    OrderDenied,
    OrderEmulated,
    OrderEvent,
    OrderFilled,
    OrderInitialized,
    OrderModifyRejected,
    OrderPendingCancel,
    OrderPendingUpdate,
    OrderReleased,
    OrderSubmitted,
    OrderUpdated,
)
from nautilus_trader.model.identifiers cimport ClientOrderId, InstrumentId, PositionId
from nautilus_trader.model.instruments.base cimport Instrument
from nautilus_trader.model.objects cimport Currency, Price, Quantity
from nautilus_trader.model.orders.base cimport Order
from nautilus_trader.model.position cimport Position

from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_quote, tf_trade
from tengri_fast.market.reader cimport TickReader

__all__ = ["NeuralRiskGate", "RiskGateConfig"]

# Events of a known order that change neither quantity nor price.
cdef tuple UNCHANGING = (OrderSubmitted, OrderAccepted, OrderPendingUpdate, OrderPendingCancel, OrderCancelRejected)

cdef str EXECUTE = "ExecEngine.execute"
cdef str PROCESS = "ExecEngine.process"
cdef str EMULATOR = "OrderEmulator.execute"
cdef str KILL_TIMER = "TENGRI-GATE-KILL-POLL"

# Ahead of the portfolio (10) and of strategies (0): whoever reacts to an event must meet a gate that knows it.
cdef int PRIORITY = 100
# The text travels with the event through logs and databases; every violation that fits is told.
cdef int REASON_LIMIT = 480
# What every reason of a risk gate begins with, see Violation.text.
cdef str REASON_MARK = "TENGRI_RISK:"
# A price above this is none: the feature engine's bound, and far below what Nautilus sends for "undefined".
cdef double PRICE_MAX = 1e18


cdef class NeuralRiskGate(Actor):
    """Checks every order of a node before it reaches the execution engine.

    Add it like any actor; nothing else changes. It serves all strategies and algorithms of the node.

    Parameters
    ----------
    config : RiskGateConfig
        Limits, scenarios, and which prices to follow.

    Attributes
    ----------
    gate : tengri_fast.risk.RiskGate
        The rules; None before the start.
    state : tengri_fast.risk.PortfolioState
        Positions, working orders and prices as the rules see them; None before the start.
    alert : callable or None
        Called with a text when something fails inside the gate; it must not raise and must not send orders.
    denied : dict of str to int
        Denials and rejected modifications by rule; one that broke two rules counts under both.
    refused : dict of str to int
        The same, each counted once, under the first rule that it broke.
    submitted, forwarded, modified, errors : int
        Orders seen in submit commands, orders passed on, modifications seen, exceptions caught.
    records : list of tuple
        One ``(ts, client_order_id, strategy_id, violations, kind)`` per refusal; `kind` is "submit", "list" or
        "modify", `violations` a tuple of :class:`tengri_fast.risk.Violation`. The latest 10,000 are kept.
    """

    def __cinit__(self, *args, **kwargs):
        self._marks = NULL

    def __init__(self, config):
        if not isinstance(config, RiskGateConfig):
            raise ConfigurationError(f"`config` must be a RiskGateConfig, was {type(config).__name__}")
        super().__init__(config)
        self.gate = None
        self.state = None
        self.alert = None
        self._scenarios = None
        self._next = None
        self._entry = self.execute
        self._on_event_entry = self._on_order_event
        self._on_account_entry = self._on_account_event
        self._kills = {}
        self._forget()

    def __dealloc__(self):
        free(self._marks)

    # ---- life ----------------------------------------------------------------------------------------------------

    cpdef void on_start(self):
        """Take the endpoint, then learn instruments, positions and working orders from the cache, then arm."""
        self._armed = False
        self._install()
        self._forget()
        self._build()
        self._msgbus.subscribe("events.order.*", self._on_event_entry, PRIORITY)
        self._msgbus.subscribe("events.account.*", self._on_account_entry, PRIORITY)
        cache = <object>self.cache
        for instrument_id in self._wanted():
            self._follow(instrument_id)
        for bar_type in self.config.bar_types:
            (<object>self).subscribe_bars(bar_type)
        for position in cache.positions_open():
            self._sync_positions(position.instrument_id)
        for order in cache.orders_open() + cache.orders_inflight():
            self._sync_order(order)
        if self.config.kill_poll_ms:
            (<object>self.clock).set_timer(
                KILL_TIMER, timedelta(milliseconds=self.config.kill_poll_ms), callback=self._on_kill_timer
            )
        for name, reason in list(self._kills.items()):
            self.gate.kill(name, reason)
        self._armed = True

    cpdef void on_stop(self):
        """Keep the endpoint: strategies stop after actors, and what they send then is checked too."""

    cpdef void on_reset(self):
        """Forget the run; a kill stays."""
        self._armed = False
        self._forget()

    cpdef void on_dispose(self):
        """Give the endpoint back."""
        self._retired = True
        if self._next is not None and self._msgbus._endpoints.get(EXECUTE) is self._entry:
            self._msgbus.deregister(EXECUTE, self._entry)
            self._msgbus.register(EXECUTE, self._next)
        self._msgbus.unsubscribe("events.order.*", self._on_event_entry)
        self._msgbus.unsubscribe("events.account.*", self._on_account_entry)

    cdef void _install(self):
        cdef object found
        if self._next is not None:
            return  # still in place from an earlier start; whoever came later stands in front of us
        found = self._msgbus._endpoints.get(EXECUTE)
        if found is None:
            raise ConfigurationError(f"`{EXECUTE}` must be registered before the gate starts: no execution engine")
        self._msgbus.deregister(EXECUTE, found)
        self._msgbus.register(EXECUTE, self._entry)
        self._next = found

    cdef void _forget(self):
        self.denied = {}
        self.refused = {}
        self.records = []
        self.submitted = 0
        self.forwarded = 0
        self.modified = 0
        self.errors = 0
        self._reader = TickReader()
        self._mark_count = 0
        self._any_dirty = False
        self._ids = []
        self._names = []
        self._index = {}
        self._held = {}
        self._working = {}
        self._pending = PendingModifications()
        self._uncertain = False
        self._cash = NAN
        self._cash_stale = True

    # ---- prices --------------------------------------------------------------------------------------------------

    cpdef void handle_quote_tick(self, QuoteTick tick, bint historical=False):
        """Keep the best prices (system method); in every state, because the gate also stands while stopped."""
        cdef tf_quote event
        if historical or tick is None:
            return
        if self._kill_wanted:
            self._attend()
        self._reader.read_quote(tick, &event)
        self._keep_quote(event.slot, event.bid_price, event.ask_price, event.ts_event)

    cpdef void handle_order_book_depth(self, OrderBookDepth10 depth, bint historical=False):
        """Keep the best prices of a depth snapshot (system method)."""
        cdef tf_depth10 event
        if historical or depth is None:
            return
        if self._kill_wanted:
            self._attend()
        self._reader.read_depth(depth, &event)
        self._keep_quote(
            event.slot,
            event.bid_price[0] if event.bid_size[0] > 0.0 else NAN,
            event.ask_price[0] if event.ask_size[0] > 0.0 else NAN,
            event.ts_event,
        )

    cpdef void handle_trade_tick(self, TradeTick tick, bint historical=False):
        """Keep the last price, which serves while there is no quote (system method)."""
        cdef tf_trade event
        cdef tf_mark *mark
        if historical or tick is None:
            return
        if self._kill_wanted:
            self._attend()
        self._reader.read_trade(tick, &event)
        self._keep_last(event.slot, event.price, event.ts_event)

    cpdef void handle_bar(self, Bar bar, bint historical=False):
        """Keep the close, which serves while there is no quote (system method)."""
        cdef tf_bar event
        if historical or bar is None:
            return
        if self._kill_wanted:
            self._attend()
        self._reader.read_bar(bar, &event)
        self._keep_last(event.slot, event.close, event.ts_event)

    cdef void _keep_quote(self, uint32_t slot, double bid, double ask, uint64_t ts) noexcept:
        cdef tf_mark *mark
        if slot >= self._mark_count:
            return
        mark = &self._marks[slot]
        mark.quoted = True
        # Nobody bids for a binary that looks lost, and its price is 0 then.
        mark.valid = bid <= ask and ask <= PRICE_MAX and (bid > 0.0 or (mark.binary and bid == 0.0))
        mark.ts = ts
        if mark.valid:
            # Kept beside what is now: positions keep their last good mark while the quote is unusable.
            mark.bid = bid
            mark.ask = ask
            mark.good_ts = ts
        mark.dirty = True
        self._any_dirty = True

    cdef void _keep_last(self, uint32_t slot, double price, uint64_t ts) noexcept:
        cdef tf_mark *mark
        if slot >= self._mark_count:
            return
        mark = &self._marks[slot]
        if not mark.quoted:
            mark.valid = 0.0 < price <= PRICE_MAX
            mark.ts = ts
            if mark.valid:
                mark.bid = price
                mark.ask = price
                mark.good_ts = ts
            mark.dirty = True
            self._any_dirty = True

    cdef int32_t _follow(self, InstrumentId instrument_id) except -1:
        """The mark of an instrument, made and subscribed on first use."""
        cdef tf_mark *larger
        cdef uint32_t room, number
        found = self._index.get(instrument_id)
        if found is not None:
            return found
        cdef Instrument instrument = self.cache.instrument(instrument_id)
        if instrument is None:
            raise ConfigurationError(f"`instrument_id` must be in the cache, was {instrument_id}")
        if self.state.facts(instrument_id.value) is None:
            self.state.add_instrument(_facts(instrument))
        if self._mark_count == self._mark_room:
            room = max(<uint32_t>16, 2 * self._mark_room)
            larger = <tf_mark *>realloc(self._marks, room * sizeof(tf_mark))
            if larger == NULL:
                raise MemoryError("no memory for the gate's instruments")
            self._marks = larger
            self._mark_room = room
        number = self._mark_count
        memset(&self._marks[number], 0, sizeof(tf_mark))
        self._marks[number].bid = NAN
        self._marks[number].ask = NAN
        self._marks[number].binary = type(instrument).__name__ == "BinaryOption"
        # The gate's own reader counts its instruments as the marks are counted, so a slot is a mark.
        if <uint32_t>self._reader.slots.register(instrument_id.value) != number:
            raise ConfigurationError(f"`instrument_id` must be registered once, was {instrument_id}")
        self._mark_count = number + 1
        self._ids.append(instrument_id)
        self._names.append(instrument_id.value)
        self._index[instrument_id] = <int32_t>number
        self._read_cached_price(number)
        actor = <object>self
        # Subscribed on the bus first, ahead of others at the same tick; the request below then finds it there and
        # only asks the data engine for the feed.
        if "quotes" in self.config.prices:
            self._msgbus.subscribe(self._topic_cache.get_quotes_topic(instrument_id), self.handle_quote_tick, PRIORITY)
            actor.subscribe_quote_ticks(instrument_id)
        if "trades" in self.config.prices:
            self._msgbus.subscribe(self._topic_cache.get_trades_topic(instrument_id), self.handle_trade_tick, PRIORITY)
            actor.subscribe_trade_ticks(instrument_id)
        if "depth" in self.config.prices:
            self._msgbus.subscribe(
                self._topic_cache.get_depth_topic(instrument_id), self.handle_order_book_depth, PRIORITY
            )
            actor.subscribe_order_book_depth(instrument_id, managed=False)
        return <int32_t>number

    cdef void _read_cached_price(self, uint32_t number):
        """Start from what the cache already knows, so that a gate that joins late is not blind."""
        cdef QuoteTick quote = self.cache.quote_tick(self._ids[number])
        cdef TradeTick trade
        if quote is not None:
            self.handle_quote_tick(quote)
            return
        trade = self.cache.trade_tick(self._ids[number])
        if trade is not None:
            self.handle_trade_tick(trade)

    # ---- what the rules need to know -----------------------------------------------------------------------------

    cdef void _build(self):
        config = self.config
        base = config.base_currency if config.var is None else config.var.base_currency
        if base is None:
            wanted = self._wanted()
            if not wanted:
                raise ConfigurationError("`base_currency` must be given when the cache holds no instrument, was None")
            base = self.cache.instrument(wanted[0]).get_settlement_currency().code
        scenarios = self._scenarios
        if scenarios is None and config.scenarios is not None:
            scenarios = ScenarioSet.from_file(Path(config.scenarios))
        facts = [_facts(self.cache.instrument(instrument_id)) for instrument_id in self._wanted()]
        self.state = PortfolioState(facts, scenarios, config.var, base_currency=base)
        self._base = PyCurrency.from_str(base)
        self.gate = RiskGate(config.limits, self.state)
        self._ask = ReduceOnly(self.gate, self.state, self._reducible)
        self.gate.warmup()

    def _wanted(self):
        """Instruments that are followed from the start, in an order that does not change from run to run."""
        wanted = self.config.instrument_ids
        if wanted is None:
            return sorted((<object>self.cache).instrument_ids())
        for instrument_id in wanted:
            if self.cache.instrument(instrument_id) is None:
                raise ConfigurationError(f"`instrument_ids` must be in the cache, was {instrument_id}")
        return list(wanted)

    def load_scenarios(self, scenarios):
        """Use these scenarios for value at risk from now on; call it on the node's thread.

        Parameters
        ----------
        scenarios : tengri_fast.risk.ScenarioSet
            Returns of the configured horizon.

        Raises
        ------
        ConfigurationError
            When they do not fit the settings; nothing is changed then.
        """
        if self.state is not None:
            self.state.set_scenarios(scenarios)
        self._scenarios = scenarios

    cdef object _view(self, Order order, PositionId position_id, str parent=""):
        """An order as the rules see it."""
        cdef double quantity = order.quantity.as_f64_c()
        cdef object price = NAN
        cdef object trigger = NAN
        if order.has_price_c() and order.price is not None:
            price = (<Price>order.price).as_f64_c()
        if order.has_trigger_price_c() and order.trigger_price is not None:
            trigger = (<Price>order.trigger_price).as_f64_c()
        if order.is_quote_quantity:
            quantity = self._base_quantity(order, order.quantity, price if price == price else trigger)
        return OrderView(
            client_order_id=order.client_order_id.value,
            strategy_id=order.strategy_id.value,
            account_id=self._account_id(order),
            instrument_id=order.instrument_id.value,
            position_id=self._position_id(order, position_id),
            side=1 if order.side == OrderSide.BUY else -1,
            quantity=quantity,
            price=price,
            trigger_price=trigger,
            order_type=order.type_string_c(),
            reduce_only=order.is_reduce_only,
            ts=self.clock.timestamp_ns(),
            parent_id=parent,
            exclusive_group=_exclusive_group(order),
        )

    cdef double _base_quantity(self, Order order, Quantity quantity, double price):
        """Units of an order whose quantity is money, as Nautilus converts it; NaN, which is refused, without price.

        A buy may be filled at the ask if that is below its own price, and then gets more units for its money.
        """
        cdef tf_mark *mark = &self._marks[self._index[order.instrument_id]]
        cdef Instrument instrument = self.cache.instrument(order.instrument_id)
        cdef double units, lot, lots
        if instrument.is_inverse:
            return quantity.as_f64_c()  # contracts are amounts of quote currency: Nautilus converts nothing
        if price != price:
            price = mark.ask if order.side == OrderSide.BUY else mark.bid
        elif order.side == OrderSide.BUY and mark.ask < price:
            price = mark.ask
        if not 0.0 < price <= PRICE_MAX:
            return NAN
        units = instrument.calculate_base_quantity(quantity, instrument.make_price(price)).as_f64_c()
        # Nautilus rounds to decimals. Where a lot is coarser than the last decimal, the venue takes at most one more.
        lot = instrument.size_increment.as_f64_c()
        lots = units / lot
        if fabs(lots - rint(lots)) > 1e-6:
            units = ceil(lots) * lot
        return units

    cdef str _account_id(self, Order order):
        account_id = order.account_id
        if account_id is None:
            account_id = self.cache.account_id(order.instrument_id.venue)
        return "" if account_id is None else account_id.value

    cdef str _position_id(self, Order order, PositionId position_id):
        """The position an order would close.

        Where none is named it is the netting position of the strategy. Under hedging no position has that name, which
        is right: such an order opens a new position.
        """
        if position_id is None:
            position_id = order.position_id
        if position_id is None:
            position_id = self.cache.position_id(order.client_order_id)
        if position_id is not None:
            return position_id.value
        return f"{order.instrument_id.value}-{order.strategy_id.value}"

    cdef void _refresh(self, InstrumentId instrument_id):
        """Hand what market data changed to the portfolio, and tell it the rates and the equity that follow."""
        cdef uint32_t i
        cdef tf_mark *mark
        if self._uncertain or self.state.faults:
            self._resync()
        if self._any_dirty:
            self._any_dirty = False
            for i in range(self._mark_count):
                mark = &self._marks[i]
                if not mark.dirty:
                    continue
                mark.dirty = False
                if mark.bid == mark.bid:
                    self.state.on_price(self._names[i], mark.bid, mark.ask, mark.good_ts)
                if not mark.valid:
                    self.state.on_price(self._names[i], NAN, NAN, mark.ts)
        if instrument_id is not None:
            self._rate(self.cache.instrument(instrument_id).get_settlement_currency())
        self.state.on_equity(self._equity())

    cdef double _equity(self):
        """Account equity in base currency: balances plus the unrealised result of open positions; NaN when unknown."""
        cdef double total, price, rate
        cdef tf_mark *mark
        cdef Position position
        if self._cash_stale:
            self._cash = self._read_cash()
            self._cash_stale = False
        total = self._cash
        for position in self._held.values():
            if not position.is_open_c() or position.account_id in self._cash_accounts:
                continue
            mark = &self._marks[self._index[position.instrument_id]]
            price = mark.bid if position.signed_qty > 0.0 else mark.ask
            rate = self._rate(position.settlement_currency)
            if position.is_inverse:
                total += rate * position.signed_qty * position.multiplier.as_f64_c() * (
                    1.0 / position.avg_px_open - 1.0 / price
                )
            else:
                total += rate * position.signed_qty * position.multiplier.as_f64_c() * (price - position.avg_px_open)
        for account_id in self._cash_accounts:
            for currency, money in (<object>self.portfolio).equity(account_id=account_id).items():
                total += money.as_double() * self._rate(currency)
        return total

    cdef double _read_cash(self):
        """Balances of all accounts in base currency."""
        cdef double total = 0.0
        accounts = (<object>self.cache).accounts()
        if not accounts:
            return NAN
        self._cash_accounts = set()
        for account in accounts:
            if not account.is_margin_account:
                # Here positions are worth their price, not their result, and Nautilus knows which balances they are.
                self._cash_accounts.add(account.id)
                continue
            for currency, money in account.balances_total().items():
                if money.as_double() != 0.0:
                    total += money.as_double() * self._rate(currency)
        return total

    cdef double _rate(self, Currency currency) except? -1.0:
        """Value of one unit of a currency in base currency, told to the portfolio too; NaN when unknown."""
        if currency == self._base:
            return 1.0
        found = None
        for instrument_id in self._ids:
            found = (<object>self.cache).get_xrate(instrument_id.venue, currency, self._base)
            if found:
                break
        rate = float(found) if found else NAN
        self.state.on_rate(currency.code, rate)
        return rate

    # ---- commands ------------------------------------------------------------------------------------------------

    cpdef void execute(self, Command command):
        """Stand at the endpoint: pass, or refuse (system method)."""
        if self._retired:
            self._next(command)
            return
        if self._kill_wanted:
            self._attend()
        if isinstance(command, SubmitOrder):
            if not self._screen(command, self._screen_submit):
                return
        elif isinstance(command, SubmitOrderList):
            if not self._screen(command, self._screen_list):
                return
        elif isinstance(command, ModifyOrder):
            if not self._screen(command, self._screen_modify):
                return
        elif not isinstance(command, (CancelOrder, CancelAllOrders, BatchCancelOrders, QueryOrder, QueryAccount)):
            self._complain(f"a command of the unknown kind {type(command).__name__} was not passed on")
            return
        self._next(command)

    cdef bint _screen(self, object command, object check):
        """Whether the command may go on; an exception means it may not."""
        try:
            return check(command)
        except Exception as error:
            self.errors += 1
            self._complain(f"{type(command).__name__} refused, the check failed: {type(error).__name__}: {error}")
            self._refuse_after_error(command, error)
            return False

    def _refuse_after_error(self, command, error):
        violation = (Violation(rule="INTERNAL_ERROR", detail=f"{type(error).__name__}: {error}"[:200]),)
        try:
            if isinstance(command, ModifyOrder):
                self._reject_modify(command, violation)
            elif isinstance(command, SubmitOrderList):
                for order in (<SubmitOrderList>command).order_list.orders:
                    self._deny(order, violation, "list")
            else:
                self._deny((<SubmitOrder>command).order, violation, "submit")
        except Exception as second:
            # The command is not passed on in any case; only its sender does not hear of it.
            self._complain(f"the refusal could not be sent: {type(second).__name__}: {second}")

    def _screen_submit(self, SubmitOrder command):
        cdef Order order = command.order
        self.submitted += 1
        if not self._armed:
            self._deny(order, NOT_ARMED, "submit")
            return False
        self._follow(order.instrument_id)
        self._refresh(order.instrument_id)
        view = self._view(order, command.position_id, self._parent(order))
        verdict = self._ask.check(view)
        self._tell(verdict)
        if not verdict.allowed:
            self._deny(order, verdict.violations, "submit")
            return False
        self.state.on_working(view)
        self._working[order.client_order_id] = order.instrument_id
        self.forwarded += 1
        return True

    def _screen_list(self, SubmitOrderList command):
        cdef Order order
        cdef list orders = command.order_list.orders
        cdef list views = []
        self.submitted += len(orders)
        if not self._armed:
            for order in orders:
                self._deny(order, NOT_ARMED, "list")
            return False
        for order in orders:
            self._follow(order.instrument_id)
            self._refresh(order.instrument_id)
            views.append(self._view(order, command.position_id, self._parent(order)))
        verdict = self._ask.check_list(views)
        self._tell(verdict)
        if not verdict.allowed:
            # All legs or none: a bracket whose entry is refused must not leave its exits behind.
            for order in orders:
                self._deny(order, verdict.violations, "list")
            return False
        for order, view in zip(orders, views):
            self.state.on_working(view)
            self._working[order.client_order_id] = order.instrument_id
        self.forwarded += len(orders)
        return True

    def _screen_modify(self, ModifyOrder command):
        cdef ClientOrderId client_order_id = command.client_order_id
        cdef Order order = self.cache.order(client_order_id)
        cdef double early
        cdef bint adds_nothing
        self.modified += 1
        self._pending.came(client_order_id)
        if not self._armed:
            self._reject_modify(command, NOT_ARMED)
            return False
        if order is None:
            self._reject_modify(command, (Violation(rule="UNKNOWN_ORDER", detail="not in the cache"),))
            return False
        self._follow(order.instrument_id)
        self._refresh(order.instrument_id)
        if client_order_id not in self._working:
            self._sync_order(order)
        view = self._view(order, None, self._parent(order))
        price = None if command.price is None else command.price.as_f64_c()
        trigger = None if command.trigger_price is None else command.trigger_price.as_f64_c()
        quantity = None if command.quantity is None else command.quantity.as_f64_c()
        if order.is_quote_quantity:
            if quantity is not None:
                own = view.price if price is None else price
                if own != own:  # NaN: it has no price
                    own = view.trigger_price if trigger is None else trigger
                quantity = self._base_quantity(order, command.quantity, own)
        else:
            # Fills before our time are in the order's quantity but not in the portfolio's count.
            early = order.filled_qty.as_f64_c() - self.state.filled_quantity(view.client_order_id)
            view.quantity -= early
            quantity = None if quantity is None else quantity - early
        # What this one leaves as it is may still be changed by those before it.
        view.quantity, view.price, view.trigger_price = self._pending.reserve(
            client_order_id, view.quantity, view.price, view.trigger_price, self._worst_price(order)
        )
        adds_nothing = view.reduce_only and self._ask.adds_nothing(view)
        if adds_nothing:
            # An order that is known to work as it would become is asked about its integrity only.
            self.state.on_order_update(
                view.client_order_id,
                quantity=quantity if quantity is not None and quantity > view.quantity else None,
                price=price,
                trigger_price=trigger,
            )
        verdict = self.gate.check_modify(view, quantity, price, trigger)
        self._tell(verdict)
        if not verdict.allowed:
            if adds_nothing:
                self._sync_order(order)
            self._reject_modify(command, verdict.violations)
            return False
        self._pending.sent(
            client_order_id,
            Modification(command.id, command.quantity, command.price, command.trigger_price, quantity),
        )
        self._sync_order(order)
        return True

    def _reducible(self, view):
        """Size of the position that an order closes; 0 where it closes none."""
        cdef Position position = self._held.get(PositionId(view.position_id))
        return 0.0 if position is None else max(-view.side * position.signed_qty, 0.0)

    def _worst_price(self, Order order):
        """Picks of two prices the one at which a unit of an order is worth more, as the rules value it."""
        cdef Instrument instrument = self.cache.instrument(order.instrument_id)
        binary = self._marks[self._index[order.instrument_id]].binary
        return min if instrument.is_inverse or (binary and order.side == OrderSide.SELL) else max

    cdef str _parent(self, Order order):
        return "" if order.parent_order_id is None else order.parent_order_id.value

    def _tell(self, verdict):
        for text in verdict.alerts:
            self._complain(text)

    # ---- refusals ------------------------------------------------------------------------------------------------

    def _deny(self, Order order, violations, str kind):
        cdef int status = order.status_c()
        cdef uint64_t now = self.clock.timestamp_ns()
        self._note(now, order.client_order_id, order.strategy_id, violations, kind)
        if status != OrderStatus.INITIALIZED and status != OrderStatus.RELEASED:
            # Nautilus cannot deny it any more; not passing it on is all that is left, and someone must look.
            self._complain(f"{order.client_order_id} was not passed on in status {order.status_string_c()}: "
                           f"{_reason(violations)}")
            return
        cdef Cache cache = <Cache>self.cache
        if not cache.order_exists(order.client_order_id):
            cache.add_order(order)
        self._msgbus.send(PROCESS, OrderDenied(
            order.trader_id,
            order.strategy_id,
            order.instrument_id,
            order.client_order_id,
            _reason(violations),
            UUID4(),
            now,
        ))
        if kind == "submit":
            self._drop_children(order)

    cdef void _drop_children(self, Order order):
        """Deny exits that wait for an entry which was just refused alone; Nautilus would leave them behind for ever.

        This happens where a list is taken apart before it reaches the gate: by the emulator, or by an algorithm.
        """
        cdef Order child
        if not order.linked_order_ids:
            return
        for child_id in order.linked_order_ids:
            child = self.cache.order(child_id)
            if child is None or child.parent_order_id is None or child.parent_order_id != order.client_order_id:
                continue
            violations = (Violation(rule="PARENT_DENIED", detail=order.client_order_id.value),)
            if child.is_emulated_c():
                self._msgbus.send(EMULATOR, self._cancel_command(child))
            elif child.status_c() == OrderStatus.INITIALIZED or child.status_c() == OrderStatus.RELEASED:
                self._deny(child, violations, "list")

    def _reject_modify(self, ModifyOrder command, violations):
        cdef Order order = self.cache.order(command.client_order_id)
        cdef uint64_t now = self.clock.timestamp_ns()
        self._note(now, command.client_order_id, command.strategy_id, violations, "modify")
        if order is None:
            self._complain(f"modification of the unknown order {command.client_order_id} was not passed on")
            return
        self._pending.refused(command.client_order_id, command.id)
        # The event bears the id of the command, so that this gate, and one before it, know which one it answers.
        self._msgbus.send(PROCESS, OrderModifyRejected(
            order.trader_id,
            order.strategy_id,
            order.instrument_id,
            order.client_order_id,
            order.venue_order_id,
            order.account_id,
            _reason(violations),
            command.id,
            now,
            now,
        ))

    cdef void _note(self, uint64_t now, object client_order_id, object strategy_id, object violations, str kind):
        for rule in {violation.rule: None for violation in violations}:
            self.denied[rule] = self.denied.get(rule, 0) + 1
        first = violations[0].rule
        self.refused[first] = self.refused.get(first, 0) + 1
        if len(self.records) >= 10_000:
            del self.records[:1_000]
        self.records.append((now, client_order_id.value, strategy_id.value, violations, kind))

    cdef void _complain(self, str text):
        self._log.error(f"Risk gate: {text}")
        if self.alert is None:
            return
        try:
            self.alert(text)
        except Exception as error:
            self._log.error(f"Risk gate: the alert callback failed: {type(error).__name__}: {error}")

    # ---- events --------------------------------------------------------------------------------------------------

    cpdef void _on_account_event(self, event):
        self._cash_stale = True

    cpdef void _on_order_event(self, event):
        """Follow an order event that the execution engine has applied."""
        if self.state is None or isinstance(event, (OrderInitialized, OrderDenied, OrderEmulated, OrderReleased)):
            if isinstance(event, OrderDenied) and self.state is not None:
                self._close((<OrderDenied>event).client_order_id)
            return
        try:
            self._follow_event(event)
        except Exception as error:
            # What the portfolio holds is no longer certain: only what reduces passes until someone has looked.
            self.errors += 1
            self._uncertain = True
            self._complain(f"an event could not be followed: {type(error).__name__}: {error}")
        if self._kill_wanted:
            self._attend()

    def _follow_event(self, event):
        cdef Order order
        cdef OrderFilled fill
        if isinstance(event, OrderPendingUpdate):
            self._pending.announced(event.client_order_id)
        if isinstance(event, UNCHANGING) and event.client_order_id in self._working:
            return  # counted since it was sent, and nothing about it is different
        order = self.cache.order(event.client_order_id)
        if isinstance(event, OrderModifyRejected):
            self._pending.rejected(event.client_order_id, event.id, event.reason.startswith(REASON_MARK))
        elif isinstance(event, OrderUpdated) and order is not None:
            self._pending.updated(event.client_order_id, order)
        if isinstance(event, OrderFilled):
            fill = event
            self._cash_stale = True
            self._follow(fill.instrument_id)
            self.state.on_fill(
                fill.instrument_id.value,
                fill.last_qty.as_f64_c() * (1.0 if fill.order_side == OrderSide.BUY else -1.0),
                fill.last_px.as_f64_c(),
                position_id="" if fill.position_id is None else fill.position_id.value,
                account_id="" if fill.account_id is None else fill.account_id.value,
                strategy_id=fill.strategy_id.value,
                client_order_id=fill.client_order_id.value,
                trade_id=fill.trade_id.value,
            )
            self._sync_positions(fill.instrument_id)
        if order is not None:
            self._sync_order(order)
        if isinstance(event, OrderFilled):
            # The fill of an entry gives its exits a position, and they get no event of their own for it.
            for client_order_id, instrument_id in list(self._working.items()):
                order = self.cache.order(client_order_id) if instrument_id == event.instrument_id else None
                if order is not None:
                    self._sync_target(order)

    cdef void _sync_positions(self, InstrumentId instrument_id):
        """State the positions of one instrument as the cache has them: also after flips, which split a fill."""
        cdef Position position
        cdef dict found = {}
        self._follow(instrument_id)
        for position in (<object>self.cache).positions_open(instrument_id=instrument_id):
            found[position.id] = position
        for position in list(self._held.values()):
            if position.instrument_id == instrument_id and position.id not in found:
                del self._held[position.id]
                self._state_position(position, 0.0)
        for position_id, position in found.items():
            self._held[position_id] = position
            self._state_position(position, position.signed_qty)

    cdef void _state_position(self, Position position, double quantity):
        self.state.set_position(
            position.instrument_id.value,
            quantity,
            position_id=position.id.value,
            account_id="" if position.account_id is None else position.account_id.value,
            strategy_id=position.strategy_id.value,
            price=position.avg_px_open,
        )

    cdef void _sync_order(self, Order order):
        """State a working order as it now is; one that is closed stops counting."""
        cdef str name = order.client_order_id.value
        cdef double quantity
        cdef double price = NAN
        cdef double trigger = NAN
        if order.is_closed_c():
            self._close(order.client_order_id)
            return
        if order.client_order_id not in self._working:
            if not (order.is_open_c() or order.is_inflight_c()):
                return  # not sent yet: it is checked when it is
            self._follow(order.instrument_id)
            self.state.on_working(self._view(order, None, self._parent(order)))
            self._working[order.client_order_id] = order.instrument_id
        self._sync_target(order)
        if order.has_price_c() and order.price is not None:
            price = (<Price>order.price).as_f64_c()
        if order.has_trigger_price_c() and order.trigger_price is not None:
            trigger = (<Price>order.trigger_price).as_f64_c()
        if not order.is_quote_quantity:
            # Fills before our time are in the order's quantity but not in the portfolio's count: the open part decides.
            quantity = order.leaves_qty.as_f64_c() + self.state.filled_quantity(name)
        elif self.state.filled_quantity(name) == 0.0:
            quantity = self._base_quantity(order, order.quantity, price if price == price else trigger)
        else:
            # Money and units cannot be taken from each other: what was counted before the first fill stays.
            known = self.state.working_order(name)
            quantity = NAN if known is None else known.quantity
        if order.client_order_id in self._pending:
            quantity, price, trigger = self._pending.reserve(
                order.client_order_id, quantity, price, trigger, self._worst_price(order)
            )
        self.state.on_order_update(
            name, quantity=quantity if quantity == quantity else None, price=price, trigger_price=trigger
        )

    def _sync_target(self, Order order):
        """State the position of a working order again when the cache has given it another one than at submission."""
        known = self.state.working_order(order.client_order_id.value)
        if known is None or (order.position_id is None and self.cache.position_id(order.client_order_id) is None):
            return
        target = self._position_id(order, None)
        if known.position_id != target:
            known = copy.copy(known)
            known.position_id = target
            self.state.on_working(known)

    cdef void _close(self, ClientOrderId client_order_id):
        self._working.pop(client_order_id, None)
        self._pending.closed(client_order_id)
        self.state.on_order_closed(client_order_id.value)

    cdef void _resync(self):
        """State every position and working order from the cache again; raises when that fails, and so refuses."""
        cdef Order order
        cache = <object>self.cache
        for instrument_id in set(self._ids) | {position.instrument_id for position in cache.positions_open()}:
            self._sync_positions(instrument_id)
        for client_order_id in list(self._working):
            order = cache.order(client_order_id)
            if order is not None:
                self._sync_order(order)
        for order in cache.orders_open() + cache.orders_inflight():
            self._sync_order(order)
        self._cash_stale = True
        self.state.clear_faults()
        self._uncertain = False
        self._complain("positions and working orders were read from the cache again")

    # ---- kill ----------------------------------------------------------------------------------------------------

    def kill(self, name, reason):
        """Turn a named switch on: from now on only reducing orders and cancels pass. Any thread may call it.

        With ``cancel_on_kill`` the node's thread then cancels every working order that is not reduce-only: protective
        orders stay, because taking them away would add risk. A kill outlives a reset.

        Parameters
        ----------
        name : str
            Who stops trading; several may, and each must allow it again.
        reason : str
            Told in every denial from now on.
        """
        name, reason = str(name), str(reason) or "no reason given"
        self._kills.setdefault(name, reason)
        gate = self.gate
        if gate is not None:
            gate.kill(name, reason)
        self._kill_wanted = 1

    def rearm(self, name, reason):
        """Turn a named switch off; any thread may call it. Trading is allowed again when none is left.

        Raises
        ------
        ConfigurationError
            When that switch is not on, or no reason is given.
        """
        name, reason = str(name), str(reason)
        if not reason.strip():
            raise ConfigurationError(f"`reason` must say why {name!r} may trade again, was empty")
        if name not in self._kills:
            on = ", ".join(sorted(self._kills)) or "none"
            raise ConfigurationError(f"`name` must be a kill switch that is on ({on}), was {name!r}")
        gate = self.gate
        if gate is not None and name in gate.kills:
            gate.rearm(name, reason)
        # A cancel that the node's thread has not attended to yet stays wanted: allowing new orders revives no old one.
        self._kills.pop(name, None)

    @property
    def killed(self):
        """Whether a kill switch is on."""
        return bool(self._kills)

    @property
    def kills(self):
        """The kill switches that are on: name and reason."""
        return dict(self._kills)

    cpdef void _on_kill_timer(self, event):
        if self._kill_wanted:
            self._attend()

    cdef void _attend(self):
        """On the node's thread: what a kill asks for beyond refusing."""
        cdef Order order
        self._kill_wanted = 0
        reasons = "; ".join(f"{name}: {why}" for name, why in list(self._kills.items()))
        self._complain(f"trading was stopped: {reasons or 'it has been allowed again since'}")
        if not self.config.cancel_on_kill or self._next is None:
            return
        cache = <object>self.cache
        # An order may be in flight and open at once, while a modification is.
        orders = cache.orders_emulated() + cache.orders_inflight() + cache.orders_open()
        for order in {order.client_order_id: order for order in orders}.values():
            if order.is_reduce_only or order.is_closed_c() or order.is_pending_cancel_c():
                continue
            try:
                if order.is_emulated_c():
                    self._msgbus.send(EMULATOR, self._cancel_command(order))
                else:
                    self._next(self._cancel_command(order))
            except Exception as error:
                self.errors += 1
                self._complain(f"{order.client_order_id} could not be canceled: {type(error).__name__}: {error}")

    cdef object _cancel_command(self, Order order):
        return CancelOrder(
            trader_id=order.trader_id,
            strategy_id=order.strategy_id,
            instrument_id=order.instrument_id,
            client_order_id=order.client_order_id,
            venue_order_id=order.venue_order_id,
            command_id=UUID4(),
            ts_init=self.clock.timestamp_ns(),
            client_id=self.cache.client_id(order.client_order_id),
        )

    # ---- questions -----------------------------------------------------------------------------------------------

    @property
    def armed(self):
        """Whether orders are checked against the limits; before that, everything is refused."""
        return self._armed

    @property
    def installed(self):
        """Whether the execution endpoint is this gate's own handler."""
        return self._msgbus is not None and self._msgbus._endpoints.get(EXECUTE) is self._entry

    def equity(self):
        """Account equity in base currency as the rules see it, NaN when unknown."""
        if self.state is None:
            return NAN
        self._refresh(None)
        return self.state.equity

    @property
    def counters(self):
        """What the gate has counted and holds: a dict of plain values."""
        return {
            "armed": self._armed,
            "installed": self.installed,
            "killed": self.killed,
            "submitted": self.submitted,
            "forwarded": self.forwarded,
            "modified": self.modified,
            "denied": dict(self.denied),
            "errors": self.errors,
            "working": len(self._working),
            "positions": len(self._held),
        }


cdef str _exclusive_group(Order order):
    """One text for all orders of which the venue cancels the others when one fills; empty for one that stands alone.

    Not for OUO: a sibling that can trade at the same moment is not shrunk in time, and both fill.
    """
    if order.contingency_type != ContingencyType.OCO or not order.linked_order_ids:
        return ""
    names = {name.value for name in order.linked_order_ids} | {order.client_order_id.value}
    # Nautilus allows any character in an id; one with the separator could pass for several, so it stands alone.
    if any("\x1f" in name for name in names):
        return ""
    return "\x1f".join(sorted(names))


def _facts(instrument):
    """What the rules must know about an instrument."""
    kind = type(instrument).__name__
    lowest, highest = instrument.min_quantity, instrument.max_quantity
    return InstrumentFacts(
        instrument_id=instrument.id.value,
        payoff="inverse" if instrument.is_inverse else "binary" if kind == "BinaryOption" else "linear",
        multiplier=float(instrument.multiplier),
        price_increment=float(instrument.price_increment),
        size_increment=float(instrument.size_increment),
        min_quantity=0.0 if lowest is None else float(lowest),
        max_quantity=0.0 if highest is None else float(highest),
        quote_currency=instrument.quote_currency.code,
        settlement_currency=instrument.get_settlement_currency().code,
    )


def _reason(violations):
    """All violations in one line that is short enough to travel."""
    text = "; ".join(violation.text() for violation in violations)
    return text if len(text) <= REASON_LIMIT else text[: REASON_LIMIT - 3] + "..."


NOT_ARMED = (Violation(rule="NOT_ARMED", detail="the gate has not started"),)
