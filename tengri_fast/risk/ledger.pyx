"""The events of a portfolio and its plain readings: what it holds and owes, before anything is valued.

The rules are stated in :mod:`tengri_fast.risk.portfolio`; the state is kept in C, csrc/risk/state.c.
"""

import math

from cpython.unicode cimport PyUnicode_Compare
from libc.math cimport NAN, fabs, isfinite, isnan
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tengri_fast.risk.capi cimport (
    TF_ERR_ARGUMENT,
    TF_ERR_ISA,
    TF_ERR_NONFINITE,
    TF_OK,
    TF_ORDER_TYPES,
    TF_PAYOFF_BINARY,
    TF_PAYOFF_INVERSE,
    TF_PAYOFF_LINEAR,
    TF_RISK_NONE,
    tf_instrument,
    tf_isa_select,
    tf_position,
    tf_risk_add_instrument,
    tf_risk_capacity,
    tf_risk_counters,
    tf_risk_counts,
    tf_risk_equity,
    tf_risk_facts,
    tf_risk_free,
    tf_risk_net,
    tf_risk_new,
    tf_risk_on_equity,
    tf_risk_on_fill,
    tf_risk_on_last,
    tf_risk_on_margin_rate,
    tf_risk_on_quote,
    tf_risk_on_rate,
    tf_risk_order,
    tf_risk_order_changed,
    tf_risk_order_closed,
    tf_risk_order_filled,
    tf_risk_order_names,
    tf_risk_order_working,
    tf_risk_rate,
    tf_risk_reach,
    tf_risk_reduces,
    tf_risk_reset,
    tf_risk_set_position,
    tf_state_instrument,
    tf_state_instruments,
    tf_state_notional,
    tf_state_position,
    tf_state_reached_by,
    tf_state_tolerance,
    tf_state_widens,
    tf_state_working,
    tf_status,
)
from tengri_fast.risk.names cimport Names, Recent

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.types import OrderView
from tengri_fast.risk.views import PositionView, Quote

__all__ = ["Ledger"]

if tf_isa_select(NULL) == TF_ERR_ISA:
    raise ConfigurationError("`TENGRI_ISA` must name an instruction set that this machine has")

cdef dict PAYOFF_CODES = {"linear": TF_PAYOFF_LINEAR, "inverse": TF_PAYOFF_INVERSE, "binary": TF_PAYOFF_BINARY}
cdef list TYPE_TEXTS = ["MARKET", "MARKET_TO_LIMIT", "LIMIT", "STOP_MARKET", "STOP_LIMIT", "MARKET_IF_TOUCHED",
                        "LIMIT_IF_TOUCHED", "TRAILING_STOP_MARKET", "TRAILING_STOP_LIMIT"]
cdef dict TYPE_CODES = {text: code for code, text in enumerate(TYPE_TEXTS)}


cdef int compare_names(void *context, uint32_t a, uint32_t b) noexcept with gil:
    cdef Names names = <Names>context
    return PyUnicode_Compare(<str>names._texts[a], <str>names._texts[b])


cdef class Ledger:
    """Positions, working orders, prices and rates of some instruments.

    Parameters
    ----------
    facts : iterable of InstrumentFacts
        The instruments that may be traded.
    base_currency : str, optional
        Needed only when instruments settle in different currencies.

    Raises
    ------
    ConfigurationError
        When an instrument is there twice, or the base currency is open.
    """

    def __init__(self, facts, base_currency=None):
        cdef tf_risk_capacity capacity
        listed = list(facts)
        currencies = {fact.settlement_currency for fact in listed}
        if base_currency is None:
            if len(currencies) > 1:
                raise ConfigurationError(
                    "`base_currency` must be given when instruments settle in several currencies, "
                    f"which were {', '.join(sorted(currencies))}"
                )
            base_currency = next(iter(currencies), "USD")
        if self.core is not NULL:
            raise ConfigurationError("a portfolio must be made once")
        capacity.instruments = max(len(listed), 1)
        capacity.positions = 2 * capacity.instruments + 64
        capacity.orders = 2 * capacity.instruments + 256
        self.core = tf_risk_new(&capacity)
        if self.core is NULL:
            raise MemoryError("no memory for the portfolio")
        self._names = Names()
        self._names._core = self.core
        tf_risk_order_names(self.core, compare_names, <void *>self._names)
        self._base = base_currency
        self._currencies = {base_currency: 0}
        self._venues = {"": 0}
        self._buckets = {"": 0}
        self._instruments = {}
        self._facts, self._quotes, self._ids = [], [], []
        self._orders, self._order_names, self._odd_types = {}, {}, {}
        self._closed, self._trades, self._early_fills = Recent(), Recent(), Recent()
        self._faults = []
        self._rows, self._stress_rows = {}, {}
        for fact in listed:
            self._insert(fact)

    def __dealloc__(self):
        tf_risk_free(self.core)

    # -- names and handles -------------------------------------------------------------------------------------------

    cdef uint32_t name(self, str text) except? 0xFFFFFFFF:
        """Handle of a name; it lasts while something refers to it, and until some 4,096 other names have come."""
        return self._names.code(text)

    cdef uint32_t name_kept(self, str text) except? 0xFFFFFFFF:
        """Handle of a name that lasts."""
        cdef uint32_t made = self._names.code(text)
        self._names.pin(made)
        return made

    cdef str name_text(self, uint32_t name):
        return self._names.text(name)

    cdef int64_t instrument(self, object instrument_id) except? -2:
        """Handle of an instrument, -1 when it is unknown."""
        found = self._instruments.get(instrument_id)
        return -1 if found is None else <int64_t>found

    cdef uint32_t currency(self, str text) except? 0xFFFFFFFF:
        return <uint32_t>self._currencies.setdefault(text, len(self._currencies))

    cdef uint32_t venue(self, str text) except? 0xFFFFFFFF:
        return <uint32_t>self._venues.setdefault(text, len(self._venues))

    cdef uint32_t bucket(self, str text) except? 0xFFFFFFFF:
        return <uint32_t>self._buckets.setdefault(text, len(self._buckets))

    cdef uint32_t order_handle(self, str client_order_id) except? 0xFFFFFFFE:
        found = self._orders.get(client_order_id)
        return TF_RISK_NONE if found is None else <uint32_t>found

    cdef str order_name(self, uint32_t order):
        return self._order_names.get(order)

    cdef double filled(self, str client_order_id) except? -1.0:
        """Filled quantity of an order, also of one that is not working yet."""
        found = self._orders.get(client_order_id)
        if found is not None:
            return tf_state_working(self.core, <uint32_t>found).filled
        return <double>self._early_fills.get(client_order_id, 0.0) if len(self._early_fills) else 0.0

    cdef int read_order(self, object view, tf_risk_order *out) except -1:
        """An order as the core sees it."""
        cdef int64_t at = self.instrument(view.instrument_id)
        out.order = self.order_handle(view.client_order_id)
        out.instrument = TF_RISK_NONE if at < 0 else <uint32_t>at
        out.strategy = self.name(view.strategy_id)
        out.account = self.name(view.account_id)
        out.position = self.name(view.position_id)
        out.group = self.name(view.exclusive_group)
        out.parent = self.name(view.parent_id)
        side = view.side
        out.side = 1 if side == 1 else -1 if side == -1 else 0
        out.type = <uint8_t>TYPE_CODES.get(view.order_type, TF_ORDER_TYPES)
        out.reduce_only = view.reduce_only
        out.quantity = view.quantity
        out.price = view.price
        out.trigger = view.trigger_price
        ts = view.ts
        out.ts = 0 if ts < 0 else <uint64_t>ts
        return 0

    cdef object make_view(self, uint32_t order):
        """The working order of a handle as the outside sees it."""
        cdef tf_risk_order *view = &tf_state_working(self.core, order).view
        if view.type < TF_ORDER_TYPES:
            text = TYPE_TEXTS[view.type]
        else:
            text = self._odd_types.get(order, "")
        return OrderView(
            self._order_names.get(order, ""), self.name_text(view.strategy), self.name_text(view.account),
            self._ids[view.instrument], self.name_text(view.position), view.side, view.quantity, view.price,
            view.trigger, text, bool(view.reduce_only), view.ts, self.name_text(view.parent),
            self.name_text(view.group),
        )

    cdef uint32_t _demand_instrument(self, object instrument_id) except? 0xFFFFFFFF:
        return <uint32_t>self._instruments[instrument_id]

    # -- set-up ------------------------------------------------------------------------------------------------------

    cdef int _insert(self, object fact) except -1:
        cdef tf_risk_facts facts
        cdef uint32_t made
        cdef tf_status status
        name = fact.instrument_id
        if name in self._instruments:
            raise ConfigurationError(f"`facts` must name each instrument once, {name!r} is there twice")
        facts.payoff = PAYOFF_CODES[fact.payoff]
        facts.multiplier = fact.multiplier
        facts.price_increment = fact.price_increment
        facts.size_increment = fact.size_increment
        facts.min_quantity = fact.min_quantity
        facts.max_quantity = fact.max_quantity
        facts.margin_rate = fact.margin_rate
        facts.currency = self.currency(fact.settlement_currency)
        facts.venue = self.venue(fact.venue_name)
        facts.bucket = self.bucket(fact.bucket)
        status = tf_risk_add_instrument(
            self.core, &facts, self._rows.get(name, -1), self._stress_rows.get(name, -1), &made
        )
        if status == TF_ERR_ARGUMENT:
            raise ConfigurationError(f"`scenarios` must be > -1 for the inverse instrument {name}, had -1")
        if status != TF_OK:
            raise MemoryError("no memory for an instrument")
        self._instruments[name] = made
        self._facts.append(fact)
        self._quotes.append(None)
        self._ids.append(name)
        return 0

    def add_instrument(self, fact):
        """Make one more instrument known.

        Raises
        ------
        ConfigurationError
            When it is known, or is inverse and a scenario takes its price to zero. Nothing is changed then.
        """
        self._insert(fact)

    def reset(self):
        """Forget positions, orders, quotes, rates and equity, as before a second run; facts and scenarios stay."""
        cdef uint32_t i
        tf_risk_reset(self.core)
        for i in range(<uint32_t>len(self._facts)):
            self._quotes[i] = None
            tf_risk_on_margin_rate(self.core, i, self._facts[i].margin_rate)
        for table in (self._orders, self._order_names, self._odd_types):
            table.clear()
        for memory in (self._closed, self._trades, self._early_fills):
            memory.clear()
        self._faults.clear()
        self._duplicate_fills = self._early_count = self._fault_total = 0
        self._late_orders = self._unknown_orders = self._unknown_quotes = self._early_quotes = 0

    # -- events ------------------------------------------------------------------------------------------------------

    cdef int add_fault(self, str text) except -1:
        self._fault_total += 1
        if len(self._faults) < 64:
            self._faults.append(text)
        return 0

    cdef uint32_t fault_count(self) noexcept:
        return <uint32_t>len(self._faults)

    cdef int put_quote(self, uint32_t instrument, double bid, double ask, uint64_t ts) noexcept:
        self._quotes[instrument] = None
        return tf_risk_on_quote(self.core, instrument, bid, ask, ts)

    def on_price(self, instrument_id, double bid, double ask, ts):
        """A quote: ``bid`` and ``ask`` in quote currency, ``ts`` in ns.

        A quote that is older than the last one is dropped. One that is not finite, not positive, one-sided or crossed
        (for a binary: outside 0 <= bid, ask <= 1) leaves no reference price.
        """
        cdef int64_t i = self.instrument(instrument_id)
        if i < 0:
            self._unknown_quotes += 1
        elif ts < 0:  # older than any; unsigned it would be the far future
            self._early_quotes += 1
        else:
            self.put_quote(<uint32_t>i, bid, ask, ts)

    def on_last(self, instrument_id, double price):
        """A trade's price in quote currency; one that is not finite and positive is ignored."""
        cdef int64_t i = self.instrument(instrument_id)
        if i >= 0:
            tf_risk_on_last(self.core, <uint32_t>i, price)

    def on_rate(self, str currency, double value_in_base):
        """Value of one unit of a currency in base currency; one that is not finite and positive removes the rate."""
        if tf_risk_on_rate(self.core, self.currency(currency), value_in_base) != TF_OK:
            raise MemoryError("no memory for a rate")

    def on_equity(self, double value):
        """Equity of the account in base currency; a value that is not finite means unknown."""
        tf_risk_on_equity(self.core, value)

    def on_margin_rate(self, instrument_id, double rate):
        """Initial margin of an instrument as a share of notional, in place of that of its facts.

        Raises
        ------
        DataConversionError
            When the instrument is unknown, or the rate is not finite and >= 0.
        """
        cdef int64_t i = self.instrument(instrument_id)
        if i < 0:
            raise DataConversionError(f"`instrument_id` must be known, was {instrument_id!r}")
        if not (isfinite(rate) and rate >= 0.0):
            raise DataConversionError(f"`rate` must be finite and >= 0, was {rate}")
        tf_risk_on_margin_rate(self.core, <uint32_t>i, rate)

    def on_fill(
        self, instrument_id, double signed_quantity, double price, str position_id="", str account_id="",
        str strategy_id="", str client_order_id="", str trade_id="",
    ):
        """A fill of ``signed_quantity`` units (+ bought, - sold).

        A fill seen before (same instrument, order and trade id) is ignored; an empty trade id is never a duplicate. A
        fill may come before its order is reported as working, or after the order was closed. A fill that cannot be
        booked makes the portfolio inconsistent (:attr:`faults`), and the gate closes for orders that add risk.
        """
        cdef int64_t i = self.instrument(instrument_id)
        if i < 0:
            self.add_fault(f"fill in the unknown instrument {instrument_id}")
            return
        self.put_fill(
            <uint32_t>i, signed_quantity, price, self.name(position_id), self.name(account_id), self.name(strategy_id),
            client_order_id, trade_id,
        )

    cdef int put_fill(
        self, uint32_t instrument, double signed_quantity, double price, uint32_t position, uint32_t account,
        uint32_t strategy, str client_order_id, str trade_id
    ) except -1:
        cdef tf_status status
        if trade_id:
            key = (instrument, client_order_id, trade_id)
            if key in self._trades:
                self._duplicate_fills += 1
                return 0
            self._trades.put(key)
        if not isfinite(signed_quantity):
            return self.add_fault(f"fill of {signed_quantity} in {self._ids[instrument]}")
        if signed_quantity == 0.0:
            return 0
        status = tf_risk_on_fill(self.core, instrument, account, position, strategy, signed_quantity, price)
        if status == TF_ERR_NONFINITE:
            self.add_fault(f"position in {self._ids[instrument]} is not finite")
        elif status != TF_OK:
            self.add_fault(f"no memory for a position in {self._ids[instrument]}")
        if client_order_id:
            self._count_fill(client_order_id, fabs(signed_quantity))
        return 0

    cdef int _count_fill(self, str client_order_id, double quantity) except -1:
        found = self._orders.get(client_order_id)
        if found is not None:
            if tf_risk_order_filled(self.core, <uint32_t>found, quantity):
                self.order_closed(client_order_id)
        elif client_order_id not in self._closed:
            self._early_count += 1
            self._early_fills.put(client_order_id, <double>self._early_fills.get(client_order_id, 0.0) + quantity)
        return 0

    def set_position(
        self, instrument_id, double quantity, str position_id="", str account_id="", str strategy_id="",
        double price=NAN,
    ):
        """State a position outright, as at start or after a reconciliation."""
        cdef int64_t i = self.instrument(instrument_id)
        if i < 0:
            self.add_fault(f"position of {quantity} in {instrument_id}")
            return
        self.put_position(
            <uint32_t>i, quantity, self.name(position_id), self.name(account_id), self.name(strategy_id), price
        )

    cdef int put_position(
        self, uint32_t instrument, double quantity, uint32_t position, uint32_t account, uint32_t strategy,
        double price
    ) except -1:
        cdef tf_status status = tf_risk_set_position(
            self.core, instrument, account, position, strategy, quantity, price
        )
        if status == TF_ERR_NONFINITE:
            self.add_fault(f"position of {quantity} in {self._ids[instrument]}")
        elif status != TF_OK:
            self.add_fault(f"no memory for a position in {self._ids[instrument]}")
        return 0

    def on_working(self, order):
        """An order left, or is about to leave, for the venue; it counts as exposure from now on.

        Call it before sending and :meth:`on_order_closed` on rejection, expiry or cancellation. A repeated call
        replaces what was known, but keeps the filled quantity.
        """
        cdef tf_risk_order view
        name = order.client_order_id
        if self.instrument(order.instrument_id) < 0:
            self.add_fault(f"working order {name} in the unknown instrument {order.instrument_id}")
            return
        self.read_order(order, &view)
        if view.side == 0:
            self.add_fault(f"working order {name} with side {order.side} and quantity {order.quantity}")
            return
        self.order_working(&view, name)
        if view.type >= TF_ORDER_TYPES and view.order != TF_RISK_NONE:
            self._odd_types[view.order] = order.order_type

    cdef int order_working(self, tf_risk_order *order, str client_order_id) except -1:
        cdef double filled
        cdef uint32_t handle
        if not (isfinite(order.quantity) and order.quantity > 0.0 and order.side != 0):
            return self.add_fault(
                f"working order {client_order_id} with side {order.side} and quantity {order.quantity}"
            )
        if client_order_id in self._closed:
            self._late_orders += 1
            order.order = TF_RISK_NONE
            return 0
        order.order = self.order_handle(client_order_id)
        if order.order != TF_RISK_NONE:
            filled = tf_state_working(self.core, order.order).filled
        else:
            filled = <double>self._early_fills.pop(client_order_id, 0.0) if len(self._early_fills) else 0.0
        if order.quantity - filled <= tf_state_tolerance(
            tf_state_instrument(self.core, order.instrument), order.quantity
        ):
            order.order = TF_RISK_NONE
            return self.order_closed(client_order_id)
        handle = tf_risk_order_working(self.core, order, filled)
        if handle == TF_RISK_NONE:
            return self.add_fault(f"no memory for the working order {client_order_id}")
        order.order = handle
        self._orders[client_order_id] = handle
        self._order_names[handle] = client_order_id
        if self._odd_types:
            self._odd_types.pop(handle, None)
        return 0

    def on_order_update(self, str client_order_id, quantity=None, price=None, trigger_price=None):
        """The venue changed a working order; None leaves a field as it is, ``quantity`` is the whole quantity."""
        cdef tf_risk_order *view
        found = self._orders.get(client_order_id)
        if found is None:
            self._unknown_orders += 1
            return
        view = &tf_state_working(self.core, <uint32_t>found).view
        if quantity is not None and not (math.isfinite(quantity) and quantity > 0.0):
            self.add_fault(f"order {client_order_id} changed to quantity {quantity}")
            return
        self.order_update(
            client_order_id,
            view.quantity if quantity is None else <double>quantity,
            view.price if price is None else <double>price,
            view.trigger if trigger_price is None else <double>trigger_price,
        )

    cdef int order_update(self, str client_order_id, double quantity, double price, double trigger) except -1:
        cdef uint32_t handle = self.order_handle(client_order_id)
        if handle == TF_RISK_NONE:
            self._unknown_orders += 1
            return 0
        if isnan(quantity):
            quantity = tf_state_working(self.core, handle).view.quantity
        elif not (isfinite(quantity) and quantity > 0.0):
            return self.add_fault(f"order {client_order_id} changed to quantity {quantity}")
        if tf_risk_order_changed(self.core, handle, quantity, price, trigger):
            self.order_closed(client_order_id)
        return 0

    def on_order_closed(self, str client_order_id):
        """The order can no longer fill: filled, cancelled, expired, rejected or denied."""
        self.order_closed(client_order_id)

    cdef int order_closed(self, str client_order_id) except -1:
        self._closed.put(client_order_id)
        if len(self._early_fills):
            self._early_fills.pop(client_order_id)
        return self._discount(client_order_id)

    cdef int _discount(self, str client_order_id) except -1:
        cdef uint32_t handle
        found = self._orders.pop(client_order_id, None)
        if found is not None:
            handle = found
            tf_risk_order_closed(self.core, handle)
            del self._order_names[found]
            if self._odd_types:
                self._odd_types.pop(handle, None)
        return 0

    def stage(self, order):
        """Count an order as working for the length of an examination; False when it is working already."""
        cdef tf_risk_order view
        name = order.client_order_id
        if name in self._orders:
            return False
        self._demand_instrument(order.instrument_id)
        self.read_order(order, &view)
        handle = tf_risk_order_working(self.core, &view, self.filled(name))
        if handle == TF_RISK_NONE:
            raise MemoryError("no memory for a staged order")
        self._orders[name] = handle
        self._order_names[handle] = name
        return True

    def unstage(self, client_order_ids):
        """Undo :meth:`stage`."""
        for name in client_order_ids:
            self._discount(name)

    def clear_faults(self):
        """Declare the portfolio consistent again, after positions were restated with :meth:`set_position`."""
        self._faults.clear()

    # -- plain readings ----------------------------------------------------------------------------------------------

    @property
    def counters(self):
        """What was counted since the start or the last :meth:`reset`, by name."""
        cdef tf_risk_counts counts = tf_risk_counters(self.core)
        return {
            "backward_quotes": counts.backward_quotes + self._early_quotes,
            "duplicate_fills": self._duplicate_fills,
            "early_fills": self._early_count,
            "faults": self._fault_total,
            "grown": counts.grown,
            "invalid_quotes": counts.invalid_quotes,
            "invalid_rates": counts.invalid_rates,
            "late_orders": self._late_orders,
            "missed_guesses": counts.missed,
            "rebuilds": counts.rebuilds,
            "unknown_orders": self._unknown_orders,
            "unknown_quotes": self._unknown_quotes,
        }

    @property
    def base_currency(self):
        """Currency of the P&L vector."""
        return self._base

    @property
    def equity(self):
        """Equity in base currency, NaN when unknown."""
        return tf_risk_equity(self.core)

    @property
    def faults(self):
        """Events that could not be booked; while there are any, the gate admits only reducing orders."""
        return tuple(self._faults)

    def instrument_ids(self):
        """Names of all instruments, in the order in which they became known."""
        return tuple(self._ids)

    def names_in_use(self):
        """Number of names (strategies, accounts, position ids, groups, parents) that are remembered."""
        return len(self._names._codes) - 1

    def facts(self, instrument_id):
        """Facts of an instrument, None when it is unknown."""
        cdef int64_t i = self.instrument(instrument_id)
        return None if i < 0 else self._facts[i]

    def quote(self, instrument_id):
        """Reference quote, None when the instrument is unknown or was never quoted."""
        cdef int64_t i = self.instrument(instrument_id)
        cdef tf_instrument *of
        if i < 0:
            return None
        quote = self._quotes[i]
        if quote is None:
            of = tf_state_instrument(self.core, <uint32_t>i)
            if isnan(of.mid):
                return None
            quote = self._quotes[i] = Quote(of.bid, of.ask, of.mid, of.ts, bool(of.valid))
        return quote

    def last_price(self, instrument_id):
        """Last traded price, NaN when unknown."""
        cdef int64_t i = self.instrument(instrument_id)
        return NAN if i < 0 else tf_state_instrument(self.core, <uint32_t>i).last

    def rate(self, str currency):
        """Value of one unit of a currency in base currency, NaN when unknown."""
        found = self._currencies.get(currency)
        return NAN if found is None else tf_risk_rate(self.core, <uint32_t>found)

    def position(self, instrument_id):
        """Net filled quantity of an instrument over all accounts and positions, units."""
        cdef int64_t i = self.instrument(instrument_id)
        return 0.0 if i < 0 else tf_risk_net(self.core, <uint32_t>i)

    def positions(self):
        """All open positions, by instrument and then by account and position id."""
        cdef uint32_t i, at
        cdef tf_position *position
        found = []
        for i in range(tf_state_instruments(self.core)):
            at = tf_state_instrument(self.core, i).positions
            while at != TF_RISK_NONE:
                position = tf_state_position(self.core, at)
                found.append(PositionView(
                    self._ids[i], self.name_text(position.account), self.name_text(position.position),
                    self.name_text(position.strategy), position.quantity, position.last_price,
                ))
                at = position.next
        return found

    def working_orders(self):
        """All working orders, with their whole quantity."""
        return [self.make_view(handle) for handle in self._orders.values()]

    def working_order(self, client_order_id):
        """A working order as it is known here, None when it is not working."""
        found = self._orders.get(client_order_id)
        return None if found is None else self.make_view(found)

    def filled_quantity(self, client_order_id):
        """Filled quantity of a working order, 0 when it is not known."""
        return self.filled(client_order_id)

    # -- exposure ----------------------------------------------------------------------------------------------------

    def is_capped(self, order):
        """Whether an order can only take a position down to zero: the venue cuts reduce-only orders, and no others."""
        return order.reduce_only

    def is_reducing(self, order, leaves=None):
        """Whether an order only takes risk off.

        It does when its side is opposite to its position and its open quantity is at most the size of the position
        minus the working orders of that side for the same account and position. Those of one exclusive group count
        once, and those of its own group not at all.
        """
        cdef tf_risk_order view
        if self.instrument(order.instrument_id) < 0:
            return False
        self.read_order(order, &view)
        if leaves is None:
            leaves = order.quantity - self.filled(order.client_order_id)
        return bool(tf_risk_reduces(self.core, &view, leaves))

    def what_if_position(self, order, double leaves):
        """Largest quantity in the direction of an order (+ is further), it and its side's working orders filled.

        The net quantity, or what is open on that side alone when this is more: a position of the other side, held by
        another strategy or under another id, may be closed later and then no longer offsets anything.
        """
        cdef tf_risk_order view
        self._demand_instrument(order.instrument_id)
        self.read_order(order, &view)
        return tf_state_reached_by(self.core, &view, leaves)

    def widens(self, order, double leaves):
        """Whether an order lets the net quantity get further in its direction than without it."""
        cdef tf_risk_order view
        self._demand_instrument(order.instrument_id)
        self.read_order(order, &view)
        return bool(tf_state_widens(self.core, &view, leaves))

    def order_notional(self, order, double quantity):
        """Value of an order in base currency, NaN when a price or a rate is missing.

        The largest value over its price, its trigger price and the mid. Linear: |q| m P. Inverse: |q| m / P in coin.
        Binary: what can be lost, |q| m P for a buy and |q| m (1 - P) for a sell.
        """
        cdef tf_risk_order view
        self._demand_instrument(order.instrument_id)
        self.read_order(order, &view)
        return tf_state_notional(self.core, &view, quantity)

    def reach(self, instrument_id):
        """Lowest and highest net quantity of an instrument, every working order of that side filled."""
        cdef double low, high
        tf_risk_reach(self.core, self._demand_instrument(instrument_id), NULL, 0.0, &low, &high)
        return low, high
