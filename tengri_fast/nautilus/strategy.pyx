"""A NautilusTrader strategy that runs a neural engine on every tick.

Nautilus hands each tick to ``handle_quote_tick`` and its siblings, which look up indicators and then call the user's
``on_quote_tick``. This class overrides those system handlers: the tick is read where it lies in memory, the engine is
stepped in C, and the ordinary route follows only when the subclass has something on it. Nothing is taken away:

* an overridden ``on_quote_tick``, ``on_trade_tick``, ``on_bar``, ``on_order_book_depth``, ``on_order_book_deltas`` or
  ``on_historical_data`` is called exactly as often as Nautilus calls it, and registered indicators are updated exactly
  as often, whenever they are registered;
* the order within a tick is: features and signal, then indicators and the ordinary handler, then ``on_signal`` or the
  default policy. So ``self.engine.signal`` is of this tick everywhere, and ``on_signal`` sees indicators of this tick;
* a tick that comes while the strategy is not running is dropped, as Nautilus drops it; historical ticks feed features
  and session state (also while starting, which is when Nautilus hands them out) and emit no signal;
* an exception in ``on_signal`` is logged and raised again, as for any other handler.

When an order of the default policy is denied or rejected, the strategy waits before it acts on that instrument again:
one second of event time, doubled with each further refusal up to about a minute, until a fill. A gate that says no on
every tick is not asked on every tick.
"""

from cpython.list cimport PyList_GET_ITEM
from libc.math cimport fabs, NAN
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc

import hashlib
import struct

import numpy as np

from nautilus_trader.model.enums import BookType

from tengri_fast.errors import ConfigurationError, ModelLoadingError
from tengri_fast.features.store import FeatureStore
from tengri_fast.nautilus.config import TengriNeuralConfig, duration_ns
from tengri_fast.nautilus.gate_health import HEALTH, HEALTH_WANTED, ModelHealth
from tengri_fast.nautilus.history import HistoryRequest
from tengri_fast.nautilus.sizing import Means, find_gate
from tengri_fast.nautilus.surroundings import Surroundings
from tengri_fast.runtime.model_spec import load_bundle

from nautilus_trader.common.actor cimport Actor
from nautilus_trader.common.component cimport Component
from nautilus_trader.core.data cimport Data
from nautilus_trader.core.message cimport Event
from nautilus_trader.core.rust.common cimport ComponentState
from nautilus_trader.core.rust.model cimport OrderSide
from nautilus_trader.model.data cimport Bar, OrderBookDeltas, OrderBookDepth10, QuoteTick, TradeTick
from nautilus_trader.model.events.order cimport (
    OrderCanceled,
    OrderDenied,
    OrderEvent,
    OrderExpired,
    OrderFilled,
    OrderRejected,
)
from nautilus_trader.model.events.position cimport PositionClosed, PositionEvent
from nautilus_trader.model.identifiers cimport InstrumentId
from nautilus_trader.model.orders.base cimport Order
from nautilus_trader.model.position cimport Position
from nautilus_trader.trading.strategy cimport Strategy

from tengri_fast.market.events cimport TF_SLOT_UNKNOWN, tf_bar, tf_depth10, tf_quote, tf_trade
from tengri_fast.market.reader cimport TickReader
from tengri_fast.nautilus.delta_books cimport DeltaBooks
from tengri_fast.risk.sizing cimport PositionSizer, tf_ask
from tengri_fast.runtime.engine cimport NeuralSignal, TengriNeuralEngine, tf_signal
from tengri_fast.runtime.policy cimport Action, DecisionPolicy

cdef enum:
    QUOTES = 1
    TRADES = 2
    BARS = 4
    DEPTH = 8
    DELTAS = 16
    HISTORICAL = 32
    LEGS = 64
    ODDS = 128
    SOURCES = 256

STATE_KEY = "tengri_state_v1"
SIZING_KEY = "tengri_sizing_v1"
ENTRY_TAG = "TENGRI_ENTRY"
EXIT_TAG = "TENGRI_EXIT"

cdef uint64_t SECOND_NS = 1_000_000_000

cdef bytes STATE_MAGIC = b"TGSTRAT1"
cdef size_t FIRST_ROOM = 65_536

cdef tuple ORDINARY_HANDLERS = (
    ("on_quote_tick", QUOTES),
    ("on_trade_tick", TRADES),
    ("on_bar", BARS),
    ("on_order_book_depth", DEPTH),
    ("on_order_book_deltas", DELTAS),
    ("on_historical_data", HISTORICAL),
)


cdef class TengriNeuralStrategy(Strategy):
    """A strategy with a neural engine: override ``on_signal``, or configure the default policy and override nothing.

    Parameters
    ----------
    config : TengriNeuralConfig
        What to trade, with which model and policy.
    bundle : ModelBundle, optional
        An already loaded model; by default ``config.model`` is loaded. Several strategies may share one.
    store : FeatureStore, optional
        Where features are shared with other strategies of the same node; by default that of ``config.feature_store``.

    Raises
    ------
    ConfigurationError
        If a value of the configuration breaks its rule.
    ModelLoadingError
        If the model does not load or does not answer as its golden file says.

    Notes
    -----
    ``on_signal`` is also the name of Nautilus' handler for signals subscribed with ``subscribe_signal``; those arrive
    there too and are told apart by their type.

    A subclass that overrides ``on_start``, ``on_stop``, ``on_resume``, ``on_save`` or ``on_load`` calls ``super()``.

    A model that reads depth takes it from ``OrderBookDepth10`` or, with ``book = "deltas"``, from order book deltas.
    They go into books of our own, which begin where the managed book of the cache stands; historical deltas, which no
    managed book contains, have books apart. The best ten levels become the depth event when a list of deltas ends an
    event (its last change has flag 128), and after every list of a feed that never sets that flag.
    """

    def __cinit__(self, *args, **kwargs):
        self._desks = NULL
        self._records = NULL

    def __init__(self, config, bundle=None, store=None):
        if not isinstance(config, TengriNeuralConfig):
            raise ConfigurationError(f"`config` must be a TengriNeuralConfig, was {type(config).__name__}")
        super().__init__(config)
        cdef uint32_t i
        self.bundle = load_bundle(config.model) if bundle is None else bundle
        self._instrument_ids = config.instrument_ids
        self._desk_count = <uint32_t>len(self._instrument_ids)
        self._desks = <tf_desk *>calloc(self._desk_count, sizeof(tf_desk))
        if self._desks == NULL:
            raise MemoryError("no memory for the strategy's instruments")
        if store is None and config.feature_store is not None:
            store = FeatureStore.named(config.feature_store)
        self.engine = TengriNeuralEngine(self.bundle, self._desk_count, store)
        self.engine.stamp = config.stamp_latency
        # A reader of its own, so that its slots are the engine's.
        self._reader = TickReader()
        self._from_deltas = config.book == "deltas"
        self._health_entry = self._tell_health
        self._around = Surroundings(config, self.bundle.plan)
        self._needs = _needed_events(self.bundle)
        for bit, reads in ((LEGS, self._around.reads_legs), (ODDS, self._around.reads_odds),
                           (SOURCES, self._around.reads_sources)):
            if reads:
                self._needs |= <uint32_t>bit
        self._policies = []
        self._quantities = []
        self._books = DeltaBooks(self._desk_count, config.book_type)
        self._flights = {}
        self._holdings = {}
        self._bar_types = {}
        bar_types = {bar_type.instrument_id: bar_type for bar_type in config.bar_types}
        warm_up_ns = duration_ns(config.warm_up, "warm_up")
        for i in range(self._desk_count):
            instrument_id = self._instrument_ids[i]
            self._reader.slots.register(instrument_id.value)
            self.engine.add_instrument(instrument_id.value, warm_up_ns, self._around.names)
            self._holdings[i] = {}
            if self._needs & BARS:
                if instrument_id not in bar_types:
                    raise ConfigurationError(f"`bar_types` must name the bars of {instrument_id}, which the model "
                                             f"{self.bundle.spec.id!r} reads, was {list(map(str, bar_types.values()))}")
                self._bar_types[i] = bar_types[instrument_id]
        self._around.register(self.engine, self._reader.slots)
        if config.record_signals:
            self._record_room = FIRST_ROOM
            self._records = <tf_signal *>malloc(self._record_room * sizeof(tf_signal))
            if self._records == NULL:
                raise MemoryError("no memory for the recorded signals")
        self.refresh_handlers()

    def __dealloc__(self):
        free(self._desks)
        free(self._records)

    def __reduce__(self):
        raise TypeError("TengriNeuralStrategy cannot be pickled; use on_save() and on_load()")

    # ---- what the subclass overrides -----------------------------------------------------------------------------

    cpdef void refresh_handlers(self):
        """Look again at which handlers are overridden.

        Done at construction and at each start; call it after replacing a handler on the object itself.
        """
        self._ordinary = 0
        for name, bit in ORDINARY_HANDLERS:
            if _is_overridden(self, name):
                self._ordinary |= <uint32_t>bit
        self._overrides_signal = _is_overridden(self, "on_signal")

    @property
    def ordinary_handlers(self):
        """Names of the ordinary handlers that this object's class overrides; the others take the bare path."""
        return tuple(name for name, bit in ORDINARY_HANDLERS if self._ordinary & <uint32_t>bit)

    cpdef void on_signal(self, signal):
        """Act on a signal; the default asks the policy and turns its action into orders.

        Parameters
        ----------
        signal : NeuralSignal
            A view that the next signal overwrites; ``signal.copy()`` keeps it. (Objects of other types are signals of
            Nautilus' own, from ``subscribe_signal``; the default ignores them.)
        """
        if isinstance(signal, NeuralSignal):
            self._act(&(<NeuralSignal>signal).data)

    cpdef void submit_intent(self, InstrumentId instrument_id, int side):
        """Turn a decision into orders; override it to use other order types or sizes.

        Parameters
        ----------
        instrument_id : InstrumentId
            One of the configured instruments.
        side : int
            +1 buys and -1 sells ``trade_size`` at market, or with ``sizing`` what that gives for the present signal
            (nothing when that is zero); 0 closes what this strategy holds with reduce-only market orders.

        Raises
        ------
        ConfigurationError
            If the side is none of these, the instrument is not configured, or an entry has neither `trade_size` nor
            `sizing`.

        Notes
        -----
        An override that sends an order of its own calls ``track_order`` first, so that no second decision is acted on
        while the order is open.
        """
        cdef Order order
        cdef uint32_t slot = self._slot_by_id(instrument_id)
        if side == 1 or side == -1:
            quantity = self.entry_quantity(instrument_id, side)
            if quantity is None:
                return
            order = (<object>self.order_factory).market(
                instrument_id=instrument_id,
                order_side=OrderSide.BUY if side > 0 else OrderSide.SELL,
                quantity=quantity,
                tags=[ENTRY_TAG],
            )
            self.track_order(order)
            self.submit_order(order)
        elif side == 0:
            for position in (<object>self.cache).positions_open(instrument_id=instrument_id, strategy_id=self.id):
                order = (<object>self.order_factory).market(
                    instrument_id=instrument_id,
                    order_side=(<Position>position).closing_order_side(),
                    quantity=(<Position>position).quantity,
                    reduce_only=True,
                    tags=[EXIT_TAG],
                )
                self.track_order(order)
                (<object>self).submit_order(order, position_id=(<Position>position).id)
        else:
            raise ConfigurationError(f"`side` must be -1, 0 or +1, was {side}")

    cpdef object entry_quantity(self, InstrumentId instrument_id, int side):
        """How much an entry at the present signal is: for an override of ``submit_intent`` that sends other orders.

        Parameters
        ----------
        instrument_id : InstrumentId
            One of the configured instruments.
        side : int
            +1 or -1.

        Returns
        -------
        Quantity or None
            ``trade_size``, or with ``sizing`` what the sizer gives. None when that is nothing: the reason is logged
            once, and the policy is not acted on for a second of event time.

        Raises
        ------
        ConfigurationError
            If the instrument is not configured, or there is neither `trade_size` nor `sizing`.
        """
        cdef uint32_t slot = self._slot_by_id(instrument_id)
        if self._sizers is not None:
            return self._size(slot, side)
        if not self._quantities:
            raise ConfigurationError("`trade_size` must be set to open a position, was None")
        return self._quantities[slot]

    # ---- questions -----------------------------------------------------------------------------------------------

    cpdef int position_side(self, InstrumentId instrument_id):
        """+1, 0 or -1: the side this strategy holds, kept from position events (no cache query)."""
        return self._desks[self._slot_by_id(instrument_id)].side

    cpdef bint order_in_flight(self, InstrumentId instrument_id):
        """Whether an order of a decision is not closed yet."""
        return self._desks[self._slot_by_id(instrument_id)].in_flight > 0

    cpdef void track_order(self, order):
        """Count an order as in flight from now until it is filled, denied, rejected, canceled or expired."""
        cdef uint32_t slot = self._slot_by_id(order.instrument_id)
        if order.client_order_id not in self._flights:
            self._flights[order.client_order_id] = slot
            self._desks[slot].in_flight += 1

    def policy(self, InstrumentId instrument_id):
        """The ``DecisionPolicy`` of an instrument; they are made when the strategy starts."""
        cdef uint32_t slot = self._slot_by_id(instrument_id)
        if slot >= <uint32_t>len(self._policies):
            raise ConfigurationError("`policy` exists from the start of the strategy on, which has not started")
        return self._policies[slot]

    def sizer(self, InstrumentId instrument_id):
        """The ``PositionSizer`` of an instrument; its ``explain()`` tells of the last entry. None without sizing.

        Raises
        ------
        ConfigurationError
            If the instrument is not configured, or the strategy has not started.
        """
        cdef uint32_t slot = self._slot_by_id(instrument_id)
        if self.config.sizing is not None and self._sizers is None:
            raise ConfigurationError("`sizer` exists from the start of the strategy on, which has not started")
        return None if self._sizers is None else self._sizers[slot]

    def depth_book(self, InstrumentId instrument_id):
        """A copy of the book (``OrderBookL2``) that live deltas made, with its counters; None before the first."""
        return self._books.book(self._slot_by_id(instrument_id))

    def feed_external(self, source, values, ts_event):
        """Give the model an observation from outside the market.

        Parameters
        ----------
        source : str
            One of the sources that the model reads.
        values : sequence of float
            1 to 4 numbers, whose meaning is the source's own business.
        ts_event : int
            Time of its publication, UTC nanoseconds; not after now.

        Returns
        -------
        int
            For how many instruments the features accepted it.

        Raises
        ------
        FeatureExtractionError
            If the model reads no such source, or it is not published yet.
        """
        return self._around.feed(self, source, values, ts_event)

    def signals(self):
        """What was recorded with ``record_signals``, oldest first.

        Returns
        -------
        dict of str to numpy.ndarray
            ``ts_event``, ``latency_ns`` and ``sequence`` (uint64), ``slot`` (uint32), ``rung`` (int32); ``mid``,
            ``spread``, ``p_down``, ``p_flat``, ``p_up``, ``value`` (basis points) and ``confidence`` (float64); one
            entry each per signal. Latencies are 0 unless ``stamp_latency`` is set. Copies, free to keep.
        """
        cdef size_t i, n = self._record_count
        cdef const tf_signal *s
        cdef uint64_t[::1] ts_event = np.empty(n, dtype=np.uint64)
        cdef uint64_t[::1] latency = np.empty(n, dtype=np.uint64)
        cdef uint64_t[::1] sequence = np.empty(n, dtype=np.uint64)
        cdef uint32_t[::1] slot = np.empty(n, dtype=np.uint32)
        cdef int32_t[::1] rung = np.empty(n, dtype=np.int32)
        cdef double[:, ::1] number = np.empty((7, n))
        for i in range(n):
            s = &self._records[i]
            ts_event[i] = s.ts_event
            latency[i] = s.latency
            sequence[i] = s.sequence
            slot[i] = s.slot
            rung[i] = s.rung
            number[0, i] = s.mid
            number[1, i] = s.spread
            number[2, i] = s.probability[0]
            number[3, i] = s.probability[1]
            number[4, i] = s.probability[2]
            number[5, i] = s.value
            number[6, i] = s.confidence
        names = ("mid", "spread", "p_down", "p_flat", "p_up", "value", "confidence")
        result = {"ts_event": np.asarray(ts_event), "sequence": np.asarray(sequence), "slot": np.asarray(slot),
                  "rung": np.asarray(rung), "latency_ns": np.asarray(latency)}
        result.update(zip(names, np.asarray(number)))
        return result

    # ---- life cycle ----------------------------------------------------------------------------------------------

    cpdef void _start(self):
        # Here and not in on_start, so that a subclass that forgets super().on_start() is not half set up.
        self._prepare_desks()
        self._around.prepare(self, [(name.value, self._kinds(i)) for i, name in enumerate(self._instrument_ids)])
        self._books.begin_again()
        self.refresh_handlers()
        self._msgbus.subscribe(HEALTH_WANTED, self._health_entry)
        self._tell_health()
        Strategy._start(self)

    def _tell_health(self, asked_by=None):
        """Tell the risk gates of this node where the model's health is read."""
        self._msgbus.publish(HEALTH, ModelHealth(self.id.value, self.engine.signal))

    cpdef void _resume(self):
        self._prepare_desks()
        self._books.begin_again()
        self.refresh_handlers()
        Strategy._resume(self)

    cpdef void _reset(self):
        cdef uint32_t i
        self.engine.reset()
        self._around.reset()
        for policy in self._policies:
            policy.reset()
        if self._sizers is not None:
            for sizer in self._sizers:
                sizer.reset()
            self._sizes = [0.0] * len(self._sizers)
            self._told = set()
        for i in range(self._desk_count):
            self._desks[i].side = 0
            self._desks[i].in_flight = 0
            self._desks[i].refusals = 0
            self._desks[i].quiet_until = 0
            self._holdings[i] = {}
        self._flights.clear()
        self._books.reset()
        self._record_count = 0
        Strategy._reset(self)

    cpdef void _dispose(self):
        if self._msgbus is not None and self._msgbus.is_subscribed(HEALTH_WANTED, self._health_entry):
            self._msgbus.unsubscribe(HEALTH_WANTED, self._health_entry)
        self.engine.leave_store()
        Strategy._dispose(self)

    cpdef void on_start(self):
        """Ask for history when it is configured, then subscribe to the events that the model reads."""
        depth_ns = duration_ns(self.config.history, "history")
        if depth_ns == 0:
            self._subscribe_all()
            return
        self._history = HistoryRequest(self, depth_ns, duration_ns(self.config.history_timeout, "history_timeout"),
                                       self.config.history_client, self._subscribe_all)
        depth = "deltas" if self._from_deltas else "depth"
        bits = (("trades", TRADES), ("quotes", QUOTES), (depth, DEPTH))
        kinds = [name for name, bit in bits if self._needs & <uint32_t>bit]
        self._history.ask(self._instrument_ids, kinds, list(self._bar_types.values()),
                          self._around.others(self._quoted()))

    cpdef void on_resume(self):
        """Subscribe again after a stop."""
        self._subscribe_all()

    cpdef void on_stop(self):
        """Cancel working orders, close positions when ``close_on_stop`` is set, and unsubscribe.

        An entry that fills after the stop is closed when its fill arrives.
        """
        cdef uint32_t i
        if self._history is not None:
            self._history.stop()
        for i in range(self._desk_count):
            (<object>self).cancel_all_orders(self._instrument_ids[i])
            self._settle(i)
        self._unsubscribe_all()

    cpdef void on_reset(self):
        """Nothing further: the engine, the policy and the records are reset before this is called."""

    cpdef dict[str, bytes] on_save(self):
        """State of features, sessions and policies; continuing from it gives the same bits.

        Open orders and positions are not in it: they are Nautilus' own, and are read from its cache at the start.
        """
        cdef DecisionPolicy policy
        parts = [STATE_MAGIC, struct.pack("<I", <uint32_t>len(self._policies))]
        for instrument_id, entry in zip(self._instrument_ids, self._policies):
            policy = entry
            name = instrument_id.value.encode()
            parts += [struct.pack("<I", len(name)), name,
                      struct.pack("<QQi", policy.entered_at, policy.left_at, policy.side)]
        body = b"".join(parts)
        # Nautilus 1.231 takes keys that are part of "expire_time_ns" for dates; this one is not.
        saved = {STATE_KEY: body + hashlib.sha256(body).digest() + self.engine.to_bytes()}
        if self._sizers is not None:
            saved[SIZING_KEY] = self._means.to_bytes(self._sizes)
        return saved

    cpdef void on_load(self, dict[str, bytes] state):
        """Restore what ``on_save`` gave; a state without our key changes nothing.

        Raises
        ------
        ModelLoadingError
            When the bytes are damaged or belong to another model; nothing is changed then.
        """
        if STATE_KEY not in state:
            return
        sizing = state.get(SIZING_KEY) if self.config.sizing is not None else None
        data = bytes(state[STATE_KEY])
        times, at = _read_policy_times(data)
        self.engine.from_bytes(data[at:])
        if sizing is not None:
            # The sizers need the instruments, which the cache has from the start on.
            self._sizing_state = bytes(sizing)
        if not self._policies:
            self._policies = self._make_policies(None)
        cdef DecisionPolicy policy
        for instrument_id, entry in zip(self._instrument_ids, self._policies):
            if instrument_id.value in times:
                policy = entry
                policy.entered_at, policy.left_at, policy.side = times[instrument_id.value]

    # ---- the fast path -------------------------------------------------------------------------------------------

    cpdef void handle_quote_tick(self, QuoteTick tick, bint historical=False):
        """Handle a quote (system method, not intended to be called by user code)."""
        cdef tf_quote event
        cdef uint32_t slot = TF_SLOT_UNKNOWN
        cdef bint made = False
        cdef tf_signal signal
        if tick is not None and self._needs & (QUOTES | LEGS | ODDS) and self._listens(historical):
            self.engine.begin()
            self._reader.read_quote(tick, &event)
            slot = event.slot
            if self._sizers is not None:
                self._watch(slot, event.bid_price, event.ask_price, event.ts_event)
            if self._needs & QUOTES:
                made = self.engine.on_quote(&event, not historical)
            else:
                self.engine.on_leg(&event, not historical)
            if self._needs & ODDS:
                self._take_odds(&event, not historical)
        if self._ordinary & (HISTORICAL if historical else QUOTES) or self._indicators_for_quotes or tick is None:
            if made:
                # The handler may ask for history, which steps the engine again.
                signal = self.engine.signal.data
                Actor.handle_quote_tick(self, tick, historical)
                self.engine.signal.data = signal
            else:
                Actor.handle_quote_tick(self, tick, historical)
        if slot != TF_SLOT_UNKNOWN:
            self._answer(slot, made)

    cpdef void handle_trade_tick(self, TradeTick tick, bint historical=False):
        """Handle a trade (system method, not intended to be called by user code)."""
        cdef tf_trade event
        cdef uint32_t slot = TF_SLOT_UNKNOWN
        cdef bint made = False
        cdef tf_signal signal
        if tick is not None and self._needs & TRADES and self._listens(historical):
            self.engine.begin()
            self._reader.read_trade(tick, &event)
            slot = event.slot
            made = self.engine.on_trade(&event, not historical)
        if self._ordinary & (HISTORICAL if historical else TRADES) or self._indicators_for_trades or tick is None:
            if made:
                signal = self.engine.signal.data
                Actor.handle_trade_tick(self, tick, historical)
                self.engine.signal.data = signal
            else:
                Actor.handle_trade_tick(self, tick, historical)
        if slot != TF_SLOT_UNKNOWN:
            self._answer(slot, made)

    cpdef void handle_bar(self, Bar bar, bint historical=False):
        """Handle a bar (system method, not intended to be called by user code).

        Only the configured bar type of an instrument feeds the model.
        """
        cdef tf_bar event
        cdef uint32_t slot = TF_SLOT_UNKNOWN
        cdef bint made = False
        cdef tf_signal signal
        if bar is not None and self._needs & BARS and self._listens(historical):
            self.engine.begin()
            self._reader.read_bar(bar, &event)
            if event.slot != TF_SLOT_UNKNOWN and bar.bar_type == self._bar_types[event.slot]:
                slot = event.slot
                made = self.engine.on_bar(&event, not historical)
        if self._ordinary & (HISTORICAL if historical else BARS) or self._indicators_for_bars or bar is None:
            if made:
                signal = self.engine.signal.data
                Actor.handle_bar(self, bar, historical)
                self.engine.signal.data = signal
            else:
                Actor.handle_bar(self, bar, historical)
        if slot != TF_SLOT_UNKNOWN:
            self._answer(slot, made)

    cpdef void handle_order_book_depth(self, OrderBookDepth10 depth, bint historical=False):
        """Handle a depth snapshot (system method, not intended to be called by user code).

        Feeds the model unless ``book = "deltas"`` is configured.
        """
        cdef tf_depth10 event
        cdef uint32_t slot = TF_SLOT_UNKNOWN
        cdef bint made = False
        cdef tf_signal signal
        if depth is not None and self._needs & DEPTH and not self._from_deltas and self._listens(historical):
            self.engine.begin()
            self._reader.read_depth(depth, &event)
            slot = event.slot
            if self._sizers is not None:
                self._watch(slot, event.bid_price[0], event.ask_price[0], event.ts_event)
            made = self.engine.on_depth(&event, not historical)
        if self._ordinary & (HISTORICAL if historical else DEPTH) or depth is None:
            if made:
                signal = self.engine.signal.data
                Actor.handle_order_book_depth(self, depth, historical)
                self.engine.signal.data = signal
            else:
                Actor.handle_order_book_depth(self, depth, historical)
        if slot != TF_SLOT_UNKNOWN:
            self._answer(slot, made)

    cpdef void handle_order_book_deltas(self, deltas, bint historical=False):
        """Handle order book deltas (system method, not intended to be called by user code).

        With ``book = "deltas"`` the best ten levels of the book become the depth event, see the class' notes.
        """
        cdef tf_depth10 event
        cdef uint32_t slot = TF_SLOT_UNKNOWN
        cdef bint made = False
        cdef int index
        cdef tf_signal signal
        if (deltas is not None and self._needs & DEPTH and self._from_deltas and self._listens(historical)
                and isinstance(deltas, OrderBookDeltas)):
            self.engine.begin()
            index = self._index(deltas.instrument_id)
            if index >= 0 and self._books.read(deltas, <uint32_t>index, historical, self.cache, self._log, &event):
                slot = event.slot
                if self._sizers is not None:
                    self._watch(slot, event.bid_price[0], event.ask_price[0], event.ts_event)
                made = self.engine.on_depth(&event, not historical)
        if self._ordinary & (HISTORICAL if historical else DELTAS) or deltas is None:
            if made:
                signal = self.engine.signal.data
                Actor.handle_order_book_deltas(self, deltas, historical)
                self.engine.signal.data = signal
            else:
                Actor.handle_order_book_deltas(self, deltas, historical)
        if slot != TF_SLOT_UNKNOWN:
            self._answer(slot, made)

    cpdef void handle_data(self, Data data):
        """Handle custom data (system method, not intended to be called by user code).

        Observations of the model's sources feed it; then the ordinary route follows.
        """
        if self._needs & SOURCES and data is not None and self._listens(False):
            self._around.take_data(self.engine, data, True)
        Actor.handle_data(self, data)

    cpdef void handle_historical_data(self, data):
        """Handle past custom data (system method, not intended to be called by user code); see ``handle_data``."""
        if self._needs & SOURCES and data is not None and self._listens(True):
            self._around.take_data(self.engine, data, False)
        Actor.handle_historical_data(self, data)

    cpdef void handle_event(self, Event event):
        """Handle an event (system method, not intended to be called by user code).

        Keeps the side held and the orders in flight, in every state of the strategy, then goes on as Nautilus does.
        """
        cdef int slot = self._track(event)
        Strategy.handle_event(self, event)
        if slot >= 0:
            self._settle(<uint32_t>slot)

    # ---- inside --------------------------------------------------------------------------------------------------

    cdef void _take_odds(self, const tf_quote *event, bint emit):
        # Apart, so that the handler of quotes stays small for those who have none.
        self._around.take_quote(self.engine, event.slot, event.bid_price, event.ask_price, event.ts_event,
                                event.ts_init, emit)

    cdef void _watch(self, uint32_t slot, double bid, double ask, uint64_t ts) noexcept:
        """Feed the volatility that entries are sized by."""
        if slot < self._desk_count and bid > 0.0 and ask >= bid:
            (<PositionSizer>PyList_GET_ITEM(self._sizers, slot)).observe(bid + 0.5 * (ask - bid), ts)

    cdef object _size(self, uint32_t slot, int side):
        """The quantity of an entry at the present signal, None when there is nothing to send."""
        cdef PositionSizer sizer = <PositionSizer>self._sizers[slot]
        cdef const tf_signal *signal = &self.engine.signal.data
        cdef DecisionPolicy policy = self._policies[slot]
        cdef double size = 0.0, equity, rate, budget, ratio = 0.0
        cdef bint known = signal.slot == slot and signal.rung == 0 and signal.mid > 0.0 and signal.sequence > 0
        cdef tf_ask ask
        if known:
            equity, rate, budgeted, budget = self._means.account(self, slot, signal.mid)
            ask.side = side
            if signal.spread >= 0.0:
                ratio = 0.5e4 * signal.spread / signal.mid
            sizer._fill(&ask, signal.value, signal.probability[0], signal.probability[2], signal.mid, equity, rate,
                        policy.fee_bps + ratio)
            ask.budgeted, ask.budget = budgeted, budget
            ask.horizon_ns = <double>signal.horizon
            if self.engine.signal.horizon_unit == "events":
                ask.horizon_ns *= sizer.volatility.interval()
            size = sizer.decide(&ask, self._sizes[slot])
        quantity = None
        if size > 0.0:
            quantity = self._means.quantity(slot, size)
        if quantity is None:
            # Not asked again on every tick: what is missing now is missing for a while.
            self._desks[slot].quiet_until = signal.ts_event + SECOND_NS
            why = sizer.explain().reason if known else "no model stands behind the signal of this instrument"
            kind = (slot, why.partition(":")[0])
            if kind not in self._told:
                self._told.add(kind)
                self._log.warning(f"No entry in {self._instrument_ids[slot]}: {why}")
            return None
        self._sizes[slot] = size
        return quantity

    cdef bint _listens(self, bint historical) noexcept:
        cdef int state = self._fsm.state
        return state == ComponentState.RUNNING or (historical and state == ComponentState.STARTING)

    cdef int _index(self, InstrumentId instrument_id) except -2:
        """The slot of an instrument, -1 when it is not configured."""
        cdef int i
        for i in range(<int>self._desk_count):
            if (<InstrumentId>self._instrument_ids[i]) == instrument_id:
                return i
        return -1

    cdef uint32_t _slot_by_id(self, InstrumentId instrument_id) except? 0xFFFFFFFF:
        cdef int slot = self._index(instrument_id)
        if slot >= 0:
            return <uint32_t>slot
        raise ConfigurationError(f"`instrument_id` must be one of {[str(i) for i in self._instrument_ids]}, "
                                 f"was {instrument_id}")

    cdef void _answer(self, uint32_t slot, bint made):
        cdef NeuralSignal signal = self.engine.signal
        if made and self._fsm.state == ComponentState.RUNNING:
            if self._records != NULL:
                self._record(&signal.data)
            if self._overrides_signal:
                try:
                    self.on_signal(signal)
                except Exception as e:
                    self._log.exception(f"Error on handling {signal!r}", e)
                    raise
            else:
                self._act(&signal.data)
        self.engine.prepare(slot)

    cdef void _act(self, const tf_signal *signal):
        cdef tf_desk *desk
        cdef int action
        if (not self._quantities and self._sizers is None) or signal.slot >= self._desk_count:
            return
        desk = &self._desks[signal.slot]
        action = (<DecisionPolicy>self._policies[signal.slot]).decide(signal, desk.side, desk.in_flight > 0)
        if action == Action.HOLD or signal.ts_event < desk.quiet_until:
            return
        self.submit_intent(self._instrument_ids[signal.slot], 0 if action == Action.EXIT else action)

    cdef void _record(self, const tf_signal *signal):
        cdef tf_signal *larger
        if self._record_count == self._record_room:
            larger = <tf_signal *>realloc(self._records, 2 * self._record_room * sizeof(tf_signal))
            if larger == NULL:
                raise MemoryError(f"no memory to record more than {self._record_room} signals")
            self._records = larger
            self._record_room *= 2
        self._records[self._record_count] = signal[0]
        self._record_count += 1

    cdef int _track(self, Event event) except -2:
        """Keep orders in flight and positions; the slot when a position of ours may need settling, else -1."""
        cdef Order order
        cdef PositionEvent position
        cdef int slot = -1
        if isinstance(event, PositionEvent):
            position = event
            slot = self._index(position.instrument_id)
            if slot >= 0 and self._means is not None:
                self._means.note_equity(self)
            if slot >= 0:
                self._hold(<uint32_t>slot, position.position_id,
                           0.0 if isinstance(event, PositionClosed) else position.signed_qty)
        elif isinstance(event, OrderEvent) and event.client_order_id in self._flights:
            order = self.cache.order(event.client_order_id)
            if isinstance(event, OrderFilled):
                if order is not None and not order.is_closed_c():
                    return -1
            elif not isinstance(event, (OrderDenied, OrderRejected, OrderCanceled, OrderExpired)):
                return -1
            slot = <int>self._flights.pop(event.client_order_id)
            self._desks[slot].in_flight -= 1
            if isinstance(event, OrderFilled):
                self._desks[slot].refusals = 0
                self._desks[slot].quiet_until = 0
            elif isinstance(event, (OrderDenied, OrderRejected)):
                self._desks[slot].quiet_until = event.ts_event + (SECOND_NS << min(self._desks[slot].refusals, 6))
                self._desks[slot].refusals += 1
            # An exit that ends without a fill is not repeated: it would be refused again, without end.
            if order is None or order.is_reduce_only:
                slot = -1
        return slot

    cdef void _settle(self, uint32_t slot):
        """Once stopping, leave the position, unless an order of ours is still on its way (its end comes here again)."""
        cdef int state = self._fsm.state
        if ((state == ComponentState.STOPPING or state == ComponentState.STOPPED) and self.config.close_on_stop
                and self._desks[slot].side != 0 and self._desks[slot].in_flight == 0):
            self.submit_intent(self._instrument_ids[slot], 0)

    cdef void _hold(self, uint32_t slot, object position_id, double signed_quantity):
        cdef dict held = self._holdings[slot]
        cdef double total = 0.0, gross = 0.0
        if signed_quantity == 0.0:
            held.pop(position_id, None)
        else:
            held[position_id] = signed_quantity
        for quantity in held.values():
            total += quantity
            gross += fabs(quantity)
        # Equal hedges sum to zero up to rounding.
        self._desks[slot].side = 0 if fabs(total) < 1e-12 * gross else (total > 0.0) - (total < 0.0)

    def _prepare_desks(self):
        """Instruments, policies and quantities; positions and open orders that the cache already has."""
        instruments = []
        for instrument_id in self._instrument_ids:
            instrument = (<object>self.cache).instrument(instrument_id)
            if instrument is None:
                raise ConfigurationError(f"`instrument_id` must be in the cache before the strategy starts, "
                                         f"was {instrument_id}")
            instruments.append(instrument)
        old = self._policies
        self._policies = self._make_policies(instruments)
        cdef DecisionPolicy before, after
        for was, now in zip(old, self._policies):
            before, after = was, now
            after.entered_at, after.left_at, after.side = before.entered_at, before.left_at, before.side
        size = self.config.trade_size
        self._quantities = []
        if size is not None:
            for instrument in instruments:
                try:
                    quantity = instrument.make_qty(size)
                except ValueError as error:
                    raise ConfigurationError(f"`trade_size` must fit {instrument.id}, was {size}: {error}") from None
                if quantity.as_decimal() != size:
                    raise ConfigurationError(f"`trade_size` must be a multiple of {instrument.size_increment} for "
                                             f"{instrument.id}, was {size}")
                self._quantities.append(quantity)
        if self.config.sizing is not None:
            self._prepare_sizing(instruments)
        cdef uint32_t i
        for i in range(self._desk_count):
            self._desks[i].side = 0
            self._holdings[i] = {}
            instrument_id = self._instrument_ids[i]
            for position in (<object>self.cache).positions_open(instrument_id=instrument_id, strategy_id=self.id):
                self._hold(i, position.id, position.signed_qty)
            for find in ((<object>self.cache).orders_open, (<object>self.cache).orders_inflight,
                         (<object>self.cache).orders_emulated):
                for order in find(instrument_id=instrument_id, strategy_id=self.id):
                    if order.tags and (ENTRY_TAG in order.tags or EXIT_TAG in order.tags):
                        self.track_order(order)

    def _prepare_sizing(self, instruments):
        """Sizers, once; what was saved of them; and the gate of the node, when there is one."""
        if self._sizers is None:
            self._means = Means(self.config.sizing, instruments, self.config.trade_size)
            self._sizers = self._means.sizers
            self._sizes = [0.0] * len(self._sizers)
            self._told = set()
        if self._sizing_state is not None:
            self._sizes = self._means.from_bytes(self._sizing_state)
            self._sizing_state = None
        self._means.use_gate(find_gate(self._msgbus._endpoints.values()))

    def _make_policies(self, instruments):
        config = self.config
        made = []
        for i in range(len(self._instrument_ids)):
            fee = config.fee_bps
            if fee is None:
                fee = 0.0 if instruments is None else max(0.0, 2e4 * float(instruments[i].taker_fee))
            made.append(DecisionPolicy(
                fee_bps=fee,
                threshold_bps=config.threshold_bps,
                exit_bps=config.exit_bps,
                min_confidence=config.min_confidence,
                max_holding_ns=duration_ns(config.max_holding, "max_holding"),
                cooldown_ns=duration_ns(config.cooldown, "cooldown"),
            ))
        return made

    def _kinds(self, i):
        """The kinds of events that an instrument is fed, as texts."""
        depth = f"deltas {self.config.book_type}" if self._from_deltas else "depth10"
        bits = (("trades", TRADES), ("quotes", QUOTES), (depth, DEPTH), (str(self._bar_types.get(i, "")), BARS))
        return [name for name, bit in bits if self._needs & <uint32_t>bit]

    def _quoted(self):
        """The instruments whose quotes are asked for in any case."""
        return self._instrument_ids if self._needs & QUOTES else ()

    def _subscribe_all(self):
        actor = <object>self
        cdef uint32_t i
        for i in range(self._desk_count):
            instrument_id = self._instrument_ids[i]
            # Trades first: at equal time the reader of files puts a trade before the quote that it caused.
            if self._needs & TRADES:
                actor.subscribe_trade_ticks(instrument_id)
            if self._needs & QUOTES:
                actor.subscribe_quote_ticks(instrument_id)
            if self._needs & BARS:
                actor.subscribe_bars(self._bar_types[i])
            if self._needs & DEPTH and self._from_deltas:
                actor.subscribe_order_book_deltas(instrument_id, book_type=BookType[self.config.book_type])
            elif self._needs & DEPTH:
                actor.subscribe_order_book_depth(instrument_id, managed=False)
        self._around.subscribe(actor, self._quoted())

    def _unsubscribe_all(self):
        actor = <object>self
        self._around.unsubscribe(actor)
        cdef uint32_t i
        for i in range(self._desk_count):
            instrument_id = self._instrument_ids[i]
            if self._needs & TRADES:
                actor.unsubscribe_trade_ticks(instrument_id)
            if self._needs & QUOTES:
                actor.unsubscribe_quote_ticks(instrument_id)
            if self._needs & BARS:
                actor.unsubscribe_bars(self._bar_types[i])
            if self._needs & DEPTH and self._from_deltas:
                actor.unsubscribe_order_book_deltas(instrument_id)
            elif self._needs & DEPTH:
                actor.unsubscribe_order_book_depth(instrument_id)


def _needed_events(bundle):
    """Bits of the events that feed a model.

    The book features of a plan count changes of the best bid and ask, whatever event brings them. So they are fed from
    one source: depth for a model on the depth clock, quotes for any other.
    """
    clock = bundle.spec.inputs.clock
    needs = {"quote": QUOTES, "trade": QUOTES | TRADES, "bar": QUOTES | BARS, "depth": DEPTH}[clock]
    for spec in bundle.plan.specs:
        if spec.info.needs.startswith("trade"):
            needs |= TRADES
        elif spec.info.needs.startswith("depth") or spec.params.get("levels", 1) > 1:
            needs |= DEPTH
    return needs


def _is_overridden(strategy, str name):
    """Whether a subclass, a mixin or the object itself replaces a handler of ours or of Nautilus'."""
    if name in getattr(strategy, "__dict__", ()):
        return True
    for kind in type(strategy).__mro__:
        if name in kind.__dict__:
            return kind not in (TengriNeuralStrategy, Strategy, Actor, Component)
    return False


def _read_policy_times(bytes data):
    """``{name: (entered_at, left_at, side)}`` and where the engine's state begins."""
    damaged = ModelLoadingError("saved strategy state: damaged, or not a strategy state of this version")
    if not data.startswith(STATE_MAGIC):
        raise damaged
    times = {}
    try:
        at = len(STATE_MAGIC)
        (count,) = struct.unpack_from("<I", data, at)
        at += 4
        for _ in range(count):
            (length,) = struct.unpack_from("<I", data, at)
            name = data[at + 4:at + 4 + length].decode()
            at += 4 + length
            times[name] = struct.unpack_from("<QQi", data, at)
            at += 20
    except (struct.error, UnicodeDecodeError):
        raise damaged from None
    if hashlib.sha256(data[:at]).digest() != data[at:at + 32]:
        raise damaged
    return times, at + 32
