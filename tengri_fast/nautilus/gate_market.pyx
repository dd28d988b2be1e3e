"""The gate's ears: an actor that follows prices and statuses of instruments, in every state, and speaks to people.

:class:`GateMarket` is the half of the gate that needs nothing of orders. Its handlers are Nautilus' system handlers,
not ``on_quote_tick`` and its like, which are not called while an actor is stopped: the gate also stands then.
"""

from libc.math cimport NAN
from libc.stdint cimport int32_t, uint32_t, uint64_t

from nautilus_trader.model.enums import InstrumentCloseType

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus.gate_facts import facts, is_tradable
from tengri_fast.nautilus.gate_inputs import GateInputs

from nautilus_trader.common.actor cimport Actor
from nautilus_trader.model.data cimport Bar, InstrumentClose, InstrumentStatus, OrderBookDepth10, QuoteTick, TradeTick
from nautilus_trader.model.identifiers cimport InstrumentId
from nautilus_trader.model.instruments.base cimport Instrument

from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_quote, tf_trade

# Ahead of the portfolio (10) and of strategies (0): whoever reacts to an event must meet a gate that knows it.
cdef int PRIORITY = 100


cdef inline uint64_t _seen(uint64_t ts_event, uint64_t ts_init) noexcept nogil:
    """When something was, at the latest when it was received: one time stamp from the future would make all quotes after
    it too old to count."""
    return ts_event if ts_event < ts_init else ts_init


cdef class GateMarket(Actor):
    """Follows what instruments trade at, and whether they trade.

    Attributes
    ----------
    gate : tengri_fast.risk.RiskGate
        The rules; None before the start.
    state : tengri_fast.risk.PortfolioState
        Positions, working orders and prices as the rules see them; None before the start.
    alert : callable or None
        Called with a text when a person should look; it must not raise and must not send orders.
    """

    def __init__(self, config):
        super().__init__(config)
        self.gate = None
        self.state = None
        self.alert = None
        self._prices = None
        self._reader = None
        self._inputs = GateInputs(config.var, config.scenarios, config.stress, config.rolling)

    # ---- scenarios -----------------------------------------------------------------------------------------------

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
            self._inputs.use(self.state, scenarios)
        self._inputs.scenarios = scenarios

    def load_stress(self, names, instrument_ids, returns):
        """Use these stress scenarios for ``max_stress_loss`` from now on; call it on the node's thread.

        Parameters
        ----------
        names : sequence of str
            One per scenario.
        instrument_ids : sequence of str
            One per row.
        returns : array_like, shape (N, K)
            As :meth:`tengri_fast.risk.PortfolioState.set_stress` takes them.
        """
        if self.state is not None:
            self.state.set_stress(names, instrument_ids, returns)
        self._inputs.given_stress = (names, instrument_ids, returns)

    # ---- instruments ---------------------------------------------------------------------------------------------

    def _make_known(self, InstrumentId instrument_id):
        return self._follow(instrument_id)

    cdef int32_t _follow(self, InstrumentId instrument_id) except -1:
        """Number of an instrument, which is made known and subscribed on first use."""
        cdef Instrument instrument
        cdef int32_t number
        found = self._prices.index.get(instrument_id)
        if found is not None:
            return found
        instrument = self.cache.instrument(instrument_id)
        if instrument is None:
            raise ConfigurationError(f"`instrument_id` must be in the cache, was {instrument_id}")
        if self.state.facts(instrument_id.value) is None:
            self.state.add_instrument(self._facts(instrument))
            self._inputs.use_stress(self.state)
        number = self._prices.add(instrument)
        self._read_cached(instrument_id)
        self._subscribe(instrument_id)
        return number

    def _subscribe(self, InstrumentId instrument_id):
        """Follow the data of an instrument.

        Subscribed on the bus first, ahead of others at the same tick; the request then finds it there and only asks the
        data engine for the feed.
        """
        bus, topics, prices = self._msgbus, self._topic_cache, self.config.prices
        actor = <object>self
        if "quotes" in prices:
            bus.subscribe(topics.get_quotes_topic(instrument_id), self.handle_quote_tick, PRIORITY)
            actor.subscribe_quote_ticks(instrument_id)
        if "trades" in prices:
            bus.subscribe(topics.get_trades_topic(instrument_id), self.handle_trade_tick, PRIORITY)
            actor.subscribe_trade_ticks(instrument_id)
        if "depth" in prices:
            bus.subscribe(topics.get_depth_topic(instrument_id), self.handle_order_book_depth, PRIORITY)
            actor.subscribe_order_book_depth(instrument_id, managed=False)
        bus.subscribe(topics.get_status_topic(instrument_id), self.handle_instrument_status, PRIORITY)
        bus.subscribe(topics.get_close_prices_topic(instrument_id), self.handle_instrument_close, PRIORITY)
        if self.config.ask_status:
            actor.subscribe_instrument_status(instrument_id)
            actor.subscribe_instrument_close(instrument_id)

    def _read_cached(self, InstrumentId instrument_id):
        """Start from what the cache already knows, so that a gate that joins late is not blind."""
        quote, trade = self.cache.quote_tick(instrument_id), self.cache.trade_tick(instrument_id)
        if quote is not None:
            self.handle_quote_tick(quote)
        if trade is not None:
            self.handle_trade_tick(trade)
        status = self.cache.instrument_status(instrument_id)
        if status is not None:
            self.handle_instrument_status(status)

    def _facts(self, instrument):
        return facts(instrument, self.config.buckets, self.config.short_rules)

    def _wanted(self):
        """Instruments that are followed from the start, in an order that does not change from run to run."""
        wanted = self.config.instrument_ids
        if wanted is None:
            return sorted((<object>self.cache).instrument_ids())
        for instrument_id in wanted:
            if self.cache.instrument(instrument_id) is None:
                raise ConfigurationError(f"`instrument_ids` must be in the cache, was {instrument_id}")
        return list(wanted)

    # ---- prices and statuses -------------------------------------------------------------------------------------

    cpdef void handle_quote_tick(self, QuoteTick tick, bint historical=False):
        """Keep the best prices (system method); in every state, because the gate also stands while stopped."""
        cdef tf_quote event
        if historical or tick is None or self._prices is None:
            return
        if self._kill_wanted:
            self._attend()
        self._reader.read_quote(tick, &event)
        self._quote(event.slot, event.bid_price, event.ask_price, _seen(event.ts_event, event.ts_init))

    cpdef void handle_order_book_depth(self, OrderBookDepth10 depth, bint historical=False):
        """Keep the best prices of a depth snapshot (system method)."""
        cdef tf_depth10 event
        if historical or depth is None or self._prices is None:
            return
        if self._kill_wanted:
            self._attend()
        self._reader.read_depth(depth, &event)
        self._quote(
            event.slot,
            event.bid_price[0] if event.bid_size[0] > 0.0 else NAN,
            event.ask_price[0] if event.ask_size[0] > 0.0 else NAN,
            _seen(event.ts_event, event.ts_init),
        )

    cdef void _quote(self, uint32_t number, double bid, double ask, uint64_t ts) noexcept:
        if number >= self._prices.count:
            return
        self._prices.keep_quote(number, bid, ask, ts)
        if self._wants_mids and self._prices.marks[number].valid:
            self.gate.note_mid(number, bid + 0.5 * (ask - bid), ts)

    cdef void _last(self, uint32_t number, double price, uint64_t ts) noexcept:
        if number < self._prices.count:
            self._prices.keep_last(number, price, ts)

    cpdef void handle_trade_tick(self, TradeTick tick, bint historical=False):
        """Keep the last price, which serves while there is no quote (system method)."""
        cdef tf_trade event
        if historical or tick is None or self._prices is None:
            return
        if self._kill_wanted:
            self._attend()
        self._reader.read_trade(tick, &event)
        self._last(event.slot, event.price, _seen(event.ts_event, event.ts_init))

    cpdef void handle_bar(self, Bar bar, bint historical=False):
        """Keep the close, which serves while there is no quote (system method)."""
        cdef tf_bar event
        if historical or bar is None or self._prices is None:
            return
        if self._kill_wanted:
            self._attend()
        self._reader.read_bar(bar, &event)
        self._last(event.slot, event.close, _seen(event.ts_event, event.ts_init))

    cpdef void handle_instrument_status(self, InstrumentStatus data):
        """Note whether an instrument trades (system method)."""
        if data is None or self._prices is None or data.instrument_id not in self._prices.index:
            return
        tradable = is_tradable(data)
        if tradable is not None:
            self.gate.on_status(data.instrument_id.value, tradable, data.reason or "")

    cpdef void handle_instrument_close(self, InstrumentClose update):
        """Note that a contract has expired (system method); the close of a session comes back, and changes nothing."""
        if update is None or self._prices is None or update.instrument_id not in self._prices.index:
            return
        if (<object>update).close_type == InstrumentCloseType.CONTRACT_EXPIRED:
            self.gate.on_status(update.instrument_id.value, False, "contract expired")

    # ---- words ---------------------------------------------------------------------------------------------------

    cdef void _complain(self, str text):
        """Something that a person must look at."""
        self._log.error(f"Risk gate: {text}")
        self._call_alert(text)

    def _tell(self, text):
        self._complain(text)

    def _warn(self, what):
        """A warning level or a soft limit was passed, or something failed that stopped no order: told by the rules."""
        text = what if isinstance(what, str) else what.text()
        self._log.warning(f"Risk gate: {text}")
        self._call_alert(text)

    def _call_alert(self, text):
        if self.alert is None:
            return
        try:
            self.alert(text)
        except Exception as error:
            self._log.error(f"Risk gate: the alert callback failed: {type(error).__name__}: {error}")

    cdef void _attend(self):
        """On the node's thread: what a kill asks for beyond refusing; the gate knows."""
        self._kill_wanted = 0
