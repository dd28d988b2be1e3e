"""Features computed once per instrument and shared by every strategy and model of the process that asks for them.

A store holds one state for each (instrument, plan, rules of reset, kinds of events, scope). Every consumer has a handle
to it, a ``SharedFeatures``, and gives it every event that it sees; the state takes each event once:

* for each kind of event the state counts what it has taken and keeps the latest four; each handle counts too. An event
  from a handle whose count lags is looked for among the kept ones behind its count, field by field: if it is there, the
  handle catches up; if not, the event is new. An event from a handle that does not lag is always new, so that two equal
  events in a row are two;
* a handle that begins late lags by one event, in case the others were given it just before; a handle that stopped and
  missed events goes on with the next one it is given;
* the state is dropped at a gap or a new day by the rule in its key, for all at once. A consumer that asks for a reset
  leaves; the state is wiped when every handle has left since it last brought an event, and never under one that runs;
* the state starts with what the first handle brings along (history that it was fed alone); what later ones bring along
  is not used.

A row is computed at most once per change of the state, and not at all while nobody asks. Nothing is locked: the handles
of a store belong to one thread, that of NautilusTrader's event loop.
"""

import weakref
from typing import NamedTuple

import numpy as np

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from tengri_fast.features.capi cimport (
    read_counters,
    tf_feature_adopt,
    tf_feature_counters,
    tf_features,
    tf_features_init,
    tf_features_mid,
    tf_features_ready,
    tf_features_reset,
    tf_features_row,
    tf_features_spread,
)
from tengri_fast.features.plan cimport FeaturePlan
from tengri_fast.inference.capi cimport TF_OK
from tengri_fast.market.events cimport TF_EXTERNAL_VALUES, tf_external, tf_quote, tf_trade

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features._table import REGISTRY
from tengri_fast.features.plan import FeatureCounters

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

tf_feature_adopt(<void *><uintptr_t>REGISTRY)

cdef uint64_t NANOSECONDS_PER_DAY = 86_400_000_000_000
# Bytes of each kind of event up to and with its times; the slot behind them is the consumer's own.
cdef size_t[FEEDS] SIZES
SIZES[FEED_QUOTE] = SIZES[FEED_LEG] = SIZES[FEED_EXTERNAL] = 48
SIZES[FEED_TRADE], SIZES[FEED_BAR], SIZES[FEED_DEPTH] = 32, 56, 336


cdef inline void keep(tf_shared *state, int kind, uint32_t extra, const void *event, int accepted) noexcept nogil:
    cdef tf_kept *kept = &state.kept[kind][state.count[kind] % KEPT]
    kept.extra = extra
    kept.accepted = accepted
    memcpy(kept.event, event, SIZES[kind])
    state.count[kind] += 1


cdef int reader_take(tf_reader *reader, int kind, uint32_t extra, const void *event, uint64_t ts) noexcept nogil:
    """One event of a reader: applied if it is new. Returns what the state said to it, 1 for accepted."""
    cdef tf_shared *state = reader.state
    cdef tf_kept *kept
    cdef uint64_t at, count = state.count[kind]
    cdef int accepted
    if reader.left:
        reader.left = False
        state.left -= 1
    if reader.seen[kind] != count:
        at = max(reader.seen[kind], state.first[kind])
        if count - at > KEPT:
            at = count - KEPT
        while at < count:
            kept = &state.kept[kind][at % KEPT]
            at += 1
            if kept.extra == extra and memcmp(kept.event, event, SIZES[kind]) == 0:
                reader.seen[kind] = at
                return kept.accepted
    accepted = feed(state.features, kind, extra, event)
    if accepted and kind <= FEED_DEPTH:
        # As an engine alone: only accepted events of the instrument itself count, and the one after the gap stays.
        if state.last_ts != 0 and ts > state.last_ts and (
                (state.gap != 0 and ts - state.last_ts > state.gap)
                or (state.by_day and ts // NANOSECONDS_PER_DAY != state.last_ts // NANOSECONDS_PER_DAY)):
            tf_features_reset(state.features)
            state.epoch += 1
            feed(state.features, kind, extra, event)
        if ts > state.last_ts:
            state.last_ts = ts
    keep(state, kind, extra, event, accepted)
    reader.seen[kind] = state.count[kind]
    state.version += 1
    state.fresh = False
    return accepted


cdef const double *reader_row(tf_reader *reader) noexcept nogil:
    """The raw row of now, computed if nobody has asked since the last change."""
    cdef tf_shared *state = reader.state
    if state.row_version != state.version:
        tf_features_row(state.features, state.row)
        state.row_version = state.version
        state.rows += 1
    return state.row


cdef void reader_join(tf_reader *reader, const tf_features *own, uint64_t last_ts) noexcept nogil:
    """The reader begins. A fresh state takes over what the reader was fed alone (`own`, NULL if nothing)."""
    cdef tf_shared *state = reader.state
    cdef int kind
    if reader.left:
        reader.left = False
        state.left -= 1
    if own != NULL and state.fresh:
        memcpy(state.features, own, state.bytes)
        state.last_ts = last_ts
        state.version += 1
        state.fresh = False
    for kind in range(FEEDS):
        reader.seen[kind] = state.count[kind] - (1 if state.count[kind] > state.first[kind] else 0)
    reader.epoch = state.epoch


cdef void reader_leave(tf_reader *reader) noexcept nogil:
    """The reader asks for a fresh state; there is one when all readers have asked."""
    cdef tf_shared *state = reader.state
    if not reader.left:
        reader.left = True
        state.left += 1
    wipe_if_left(state)


cdef void wipe_if_left(tf_shared *state) noexcept nogil:
    cdef int kind
    if state.left < state.readers or state.fresh:
        return
    tf_features_reset(state.features)
    for kind in range(FEEDS):
        state.first[kind] = state.count[kind]
    state.last_ts = 0
    state.epoch += 1
    state.version += 1
    state.fresh = True


class StoreMemory(NamedTuple):
    """What a store holds, in bytes."""

    states: int
    handles: int
    state_bytes: int
    handle_bytes: int
    alone_bytes: int


@cython.no_gc_clear
cdef class SharedState:
    """The one state behind all handles of a key; made by a store, freed with the last handle."""

    def __cinit__(self, FeaturePlan plan not None, tuple key, uint64_t gap, bint by_day):
        cdef size_t rounded = (<size_t>plan.nbytes + 63) & ~<size_t>63
        self.plan = plan
        self.key = key
        self.c.bytes = plan.nbytes
        self.c.gap, self.c.by_day, self.c.fresh = gap, by_day, True
        self.c.row = <double *>calloc(plan.c_count, sizeof(double))
        self.block = aligned_alloc(64, rounded)
        if self.block == NULL or self.c.row == NULL:
            raise MemoryError(f"no memory for {plan.nbytes} bytes of shared features")
        if tf_features_init(self.block, rounded, plan.c_specs, plan.c_count, &self.c.features) != TF_OK:
            raise FeatureExtractionError("`plan` must keep the rules of the feature table")

    def __dealloc__(self):
        free(self.block)
        free(self.c.row)

    def __reduce__(self):
        raise TypeError("a SharedState cannot be pickled: it is memory of this process")


@cython.final
@cython.no_gc_clear
cdef class SharedFeatures:
    """One consumer's handle to shared features, from ``FeatureStore.acquire``.

    Notes
    -----
    The object is itself a read-only buffer of the raw row (float64 [F]); ``row`` brings it up to date. An ``update``
    returns whether the event was accepted, also when it was another handle that brought it first.
    """

    def __cinit__(self, SharedState state not None):
        self.state = state
        memset(&self.reader, 0, sizeof(self.reader))
        self.reader.state = &state.c
        state.c.readers += 1
        self.shape[0] = state.plan.c_count
        self.strides[0] = sizeof(double)
        reader_join(&self.reader, NULL, 0)

    def __dealloc__(self):
        self.detach()

    cdef void detach(self) noexcept:
        cdef tf_shared *state = self.reader.state
        if state == NULL:
            return
        self.reader.state = NULL
        state.readers -= 1
        if self.reader.left:
            state.left -= 1
        if state.readers > 0:
            wipe_if_left(state)

    cdef tf_reader *giver(self) except NULL:
        """For what changes the state or the handle: only its owner may."""
        if self.held:
            raise FeatureExtractionError(f"`{self.instrument_id}` must be changed by the engine that holds the handle")
        return self.attached()

    cdef tf_reader *attached(self) except NULL:
        if self.reader.state == NULL:
            raise FeatureExtractionError(f"`{self.instrument_id}` must not be used after its release")
        return &self.reader

    def __reduce__(self):
        raise TypeError("SharedFeatures cannot be pickled: they are memory of this process")

    def __repr__(self):
        return f"SharedFeatures({self.instrument_id!r}, {self.state.plan.c_count} features, readers={self.readers})"

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("shared features are read-only")
        buffer.buf = self.state.c.row
        buffer.obj = self
        buffer.len = self.shape[0] * <Py_ssize_t>sizeof(double)
        buffer.readonly = 1
        buffer.itemsize = sizeof(double)
        buffer.format = "d"
        buffer.ndim = 1
        buffer.shape = self.shape
        buffer.strides = self.strides
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer *buffer):
        pass

    @property
    def instrument_id(self):
        """The instrument they are of."""
        return self.state.key[0]

    @property
    def plan(self):
        """The plan, without normalisation: that belongs to a model."""
        return self.state.plan

    @property
    def readers(self):
        """Handles of this state."""
        return self.state.c.readers

    @property
    def row(self):
        """Raw values now, float64 [F], read-only and not copied: it changes when ``row`` is asked for again."""
        reader_row(self.attached())
        return np.asarray(self)

    @property
    def ready(self):
        """Whether every feature has seen its lookback."""
        return tf_features_ready(self.attached().state.features) == 1

    @property
    def mid(self):
        """Mid of the last accepted book; 0 before the first."""
        return tf_features_mid(self.attached().state.features)

    @property
    def spread(self):
        """Ask minus bid of the last accepted book; 0 before the first."""
        return tf_features_spread(self.attached().state.features)

    @property
    def counters(self):
        """What became of the events since the last reset; each counts once, however many handles brought it."""
        cdef tf_feature_counters c
        read_counters(self.attached().state.features, &c)
        return FeatureCounters(c.accepted, c.crossed, c.backward, c.invalid, c.overflow)

    @property
    def rows_computed(self):
        """How often a row was computed."""
        return self.state.c.rows

    @property
    def resets(self):
        """How often the state was dropped: gaps, days, and when all handles had left."""
        return self.state.c.epoch

    @property
    def nbytes(self):
        """Bytes of this handle alone."""
        return SharedFeatures.__basicsize__

    def update_quote(self, double bid_price, double ask_price, double bid_size, double ask_size, uint64_t ts_event):
        """Give a top-of-book quote; True if it was accepted."""
        cdef tf_quote quote
        quote.bid_price, quote.ask_price, quote.bid_size, quote.ask_size = bid_price, ask_price, bid_size, ask_size
        quote.ts_event = quote.ts_init = ts_event
        quote.slot = quote.reserved = 0
        return reader_take(self.giver(), FEED_QUOTE, 0, &quote, ts_event) == 1

    def update_trade(self, double price, double size, int32_t aggressor, uint64_t ts_event):
        """Give a trade (aggressor +1 buyer, -1 seller, 0 unknown); True if it was accepted."""
        cdef tf_trade trade
        trade.price, trade.size, trade.aggressor = price, size, aggressor
        trade.ts_event = trade.ts_init = ts_event
        trade.slot = 0
        return reader_take(self.giver(), FEED_TRADE, <uint32_t>aggressor, &trade, ts_event) == 1

    def update_leg(self, str name, double bid_price, double ask_price, uint64_t ts_event):
        """Give a quote of another instrument of the plan; True if it was accepted."""
        cdef tf_quote quote
        memset(&quote, 0, sizeof(quote))
        quote.bid_price, quote.ask_price = bid_price, ask_price
        quote.ts_event = quote.ts_init = ts_event
        number = position_of("name", name, self.state.plan.legs)
        return reader_take(self.giver(), FEED_LEG, number, &quote, ts_event) == 1

    def update_external(self, str name, values, uint64_t ts_event):
        """Give an observation of a source of the plan, 1 to 4 numbers, at its publication; True if it was accepted."""
        cdef tf_external event
        cdef int i, count = len(values)
        if not 1 <= count <= TF_EXTERNAL_VALUES:
            raise FeatureExtractionError(f"`values` must have 1 to {int(TF_EXTERNAL_VALUES)} entries, had {count}")
        for i in range(TF_EXTERNAL_VALUES):
            event.value[i] = values[i] if i < count else float("nan")
        event.ts_event = event.ts_init = ts_event
        event.slot, event.reserved = position_of("name", name, self.state.plan.sources), 0
        return reader_take(self.giver(), FEED_EXTERNAL, event.slot, &event, ts_event) == 1

    def reset(self):
        """Ask for a fresh state: it is wiped once every handle has asked and brought nothing since."""
        reader_leave(self.giver())

    def release(self):
        """Give the handle back; the state goes with the last one."""
        if self.reader.state != NULL:
            self.giver()
        self.detach()


cdef int position_of(str field, name, tuple names) except -1:
    if name not in names:
        raise FeatureExtractionError(f"`{field}` must be one of {', '.join(names) or 'none'}, was {name!r}")
    return names.index(name)


cdef class FeatureStore:
    """Shared features of a process, or of one part of it.

    Strategies that get the same store share; see the module for the rules. A state lives as long as a handle of it.
    """

    def __init__(self):
        self._states = weakref.WeakValueDictionary()

    @staticmethod
    def named(name):
        """The store of that name in this process, made when it is first asked for; it lives as long as someone uses it.

        Parameters
        ----------
        name : str

        Returns
        -------
        FeatureStore
        """
        if not isinstance(name, str) or not name:
            raise FeatureExtractionError(f"`name` must be a text that is not empty, was {name!r}")
        store = NAMED.get(name)
        if store is None:
            store = NAMED[name] = FeatureStore()
        return store

    def acquire(self, str instrument_id not None, FeaturePlan plan not None, *, gap_ns=0, reset_on_day=False,
                str feed="", str scope=""):
        """A handle to the features of an instrument.

        Parameters
        ----------
        instrument_id : str
        plan : FeaturePlan
            Its normalisation is left aside: plans of equal hash share.
        gap_ns : int
            The state is dropped after a silence longer than this; 0 for never.
        reset_on_day : bool
            The state is dropped when the UTC day changes.
        feed : str
            What the consumer gives it, such as "quotes trades"; only handles of equal `feed` share.
        scope : str
            Anything that keeps consumers apart that do not see the same events, such as two backtests.

        Returns
        -------
        SharedFeatures
        """
        if not 0 <= gap_ns < 2**63:
            raise FeatureExtractionError(f"`gap_ns` must be from 0 to 2**63 - 1, was {gap_ns}")
        cdef uint64_t gap = gap_ns
        key = (instrument_id, plan.hash, int(gap_ns), bool(reset_on_day), feed, scope)
        state = self._states.get(key)
        if state is None:
            state = SharedState(plan.with_normalisation(0.0, 1.0, 0.0), key, gap, reset_on_day)
            self._states[key] = state
        return SharedFeatures(state)

    def __len__(self):
        return len(self._states)

    def __repr__(self):
        return f"FeatureStore({', '.join(sorted({key[0] for key in self._states.keys()})) or 'empty'})"

    def __reduce__(self):
        raise TypeError("a FeatureStore cannot be pickled: it is memory of this process")

    @property
    def memory(self):
        """What is held: states, handles, bytes of each, and what the handles would take with a state each."""
        cdef SharedState state
        handles = state_bytes = alone = 0
        states = list(self._states.values())
        for state in states:
            one = sizeof(tf_shared) + ((state.c.bytes + 63) & ~<size_t>63) + state.plan.c_count * sizeof(double)
            handles += state.c.readers
            state_bytes += one
            alone += state.c.readers * state.c.bytes
        return StoreMemory(len(states), handles, state_bytes, handles * SharedFeatures.__basicsize__, alone)

    def explain(self):
        """What the store holds, as text."""
        cdef SharedState state
        memory = self.memory
        lines = [f"{memory.states} states for {memory.handles} handles: {memory.state_bytes} bytes shared, "
                 f"{memory.handle_bytes} bytes of handles; {memory.alone_bytes} bytes if each had its own"]
        for state in sorted(self._states.values(), key=lambda one: one.key):
            instrument_id, plan_hash, gap, by_day, given, _ = state.key
            rules = [f"gap {gap / 1e9:g} s"] if gap else []
            rules += ["day"] if by_day else []
            lines.append(f"{instrument_id}: {state.plan.c_count} features, plan {plan_hash[:12]}, "
                         f"{state.c.bytes} bytes, {state.c.readers} handle(s), "
                         f"reset on {' and '.join(rules) or 'nothing'}{f', fed by {given}' if given else ''}")
            lines.append(f"    events {sum([state.c.count[i] for i in range(FEEDS)])}, rows {state.c.rows}, "
                         f"resets {state.c.epoch}")
        return "\n".join(lines)


NAMED = weakref.WeakValueDictionary()
