"""The engine as Python sees it: instruments and their legs, the feature store, events by call, state to bytes and back.

What an event does stands in :mod:`tengri_fast.runtime.engine_core`.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import hashlib
import struct

import numpy as np

from tengri_fast.errors import ConfigurationError, FeatureExtractionError, InferenceFailed, ModelLoadingError
from tengri_fast.features._table import REGISTRY
from tengri_fast.runtime.engine_state import read_entries

from tengri_fast.features.capi cimport (
    read_counters,
    tf_feature_adopt,
    tf_feature_counters,
    tf_features_check,
    tf_features_init,
    tf_features_row,
)
from tengri_fast.features.plan cimport FeaturePlan
from tengri_fast.features.store cimport SharedFeatures, reader_leave
from tengri_fast.inference.capi cimport TF_OK, tf_status
from tengri_fast.market.events cimport TF_EXTERNAL_VALUES, tf_bar, tf_depth10, tf_external, tf_quote, tf_trade
from tengri_fast.runtime.engine_core cimport Block, EngineCore, tf_pipeline, tf_watch
from tengri_fast.runtime.latency cimport LatencyHistogram
from tengri_fast.runtime.signal cimport NeuralSignal

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *out)

tf_feature_adopt(<void *><uintptr_t>REGISTRY)

cdef bytes STATE_MAGIC = b"TGENGIN1"

# A cimported class is no name of this module, and Python code imports NeuralSignal from here.
globals()["NeuralSignal"] = NeuralSignal


cdef class TengriNeuralEngine(EngineCore):
    """Runs one model for many instruments.

    Parameters
    ----------
    bundle : ModelBundle
        A loaded model with its feature plan, from ``load_bundle``.
    capacity : int
        Most instruments it will ever hold; their memory is allocated in ``add_instrument``. Instruments that are only
        listened to (legs of the plan without a pipeline) come on top.
    store : FeatureStore, optional
        Where features are shared, from ``join_store`` on. Without it every engine computes its own.

    Notes
    -----
    Nothing is allocated and nothing is raised between events. An answer that is not finite gives a signal of rung 4
    (flat, confidence 0), is counted, and resets that instrument's session, because a NaN would stay in its state.
    """

    def __reduce__(self):
        raise TypeError("TengriNeuralEngine cannot be pickled; use to_bytes()")

    def add_instrument(self, str instrument_id, uint64_t warm_up_ns=0, legs=None):
        """Makes room for an instrument and returns its slot; asking twice returns the same slot.

        Parameters
        ----------
        instrument_id : str
            Any unique name, e.g. ``"BTCUSDT-PERP.BINANCE"``.
        warm_up_ns : int
            Event time after the first event (and after each reset) during which no signal is made.
        legs : mapping of str to str, optional
            The instrument behind a name of ``plan.legs``; without an entry the name itself is one. Instruments that are
            not added themselves get slots from ``capacity`` on (``listeners``), for their quotes only.

        Raises
        ------
        ConfigurationError
            When the engine is full, or `legs` names what is no leg of the plan.
        """
        cdef tf_pipeline *p
        cdef void *session
        cdef tf_status status
        legs = {} if legs is None else dict(legs)
        for name in legs:
            if name not in self.bundle.plan.legs:
                raise ConfigurationError(f"`legs` must name what the plan reads "
                                         f"({', '.join(self.bundle.plan.legs) or 'nothing'}), named {name!r}")
        if instrument_id in self.slots:
            return self.slots[instrument_id]
        if self.count >= self.capacity:
            raise ConfigurationError(f"`capacity` must hold every instrument, was {self.capacity} "
                                     f"when {instrument_id} was added")
        p = &self.pipelines[self.count]
        memset(p, 0, sizeof(tf_pipeline))
        session = aligned_alloc(64, (self.session_bytes + 63) & ~<size_t>63)
        if session == NULL:
            raise MemoryError(f"no memory for the state of {instrument_id}")
        try:
            self._own_block(p)
            status = self._place(p, session)
            if status != TF_OK:
                raise InferenceFailed(f"{instrument_id}: a session of the model could not be made (status {status})")
        except BaseException:
            free(p.features_block)
            free(session)
            p.features_block = NULL
            raise
        p.session_block = session
        p.warm_up = warm_up_ns
        self._reset(p)
        p.resets = 0
        slot = self.count
        self.slots[instrument_id] = slot
        self.names.append(instrument_id)
        self.readers.append(None)
        self.count += 1
        self.legs.append([legs.get(name, name) for name in self.bundle.plan.legs])
        self._make_watches()
        if self.joins is not None:
            self.join_store(*self.joins)
        return slot

    def _make_watches(self):
        """The flat table from the slot of a quote to the pipelines and legs that it is for."""
        watched = [name for names in self.legs for name in names]
        self.listeners = [name for name in dict.fromkeys(watched) if name not in self.slots]
        pairs = sorted((self.slot(name), number, leg)
                       for number, names in enumerate(self.legs) for leg, name in enumerate(names))
        cdef uint32_t slots = self.capacity + <uint32_t>len(self.listeners) if pairs else 0
        cdef tf_watch *watches = <tf_watch *>calloc(len(pairs) + 1, sizeof(tf_watch))
        cdef uint32_t *first = <uint32_t *>calloc(slots + 1, sizeof(uint32_t))
        cdef uint32_t slot
        if watches == NULL or first == NULL:
            free(watches)
            free(first)
            raise MemoryError("no memory for the table of legs")
        for i, (place, number, leg) in enumerate(pairs):
            watches[i].pipeline = number
            watches[i].leg = leg
            first[<uint32_t>place + 1] += 1
        for slot in range(slots):
            first[slot + 1] += first[slot]
        free(self.watches)
        free(self.first_watch)
        self.watches, self.first_watch, self.watched = watches, first, slots

    def join_store(self, str scope="", feeds=""):
        """Shares features with engines of the store that say the same, each instrument from its first live event on.

        Until then an instrument is fed alone, so that each engine's session sees the history that it asked for. A
        shared state that is still fresh takes over the features of the first one that comes.

        Parameters
        ----------
        scope : str
            Keeps apart who does not see the same events, such as two backtests in one process.
        feeds : str or mapping of str to str
            What the engine is given, by instrument or for all; see ``FeatureStore.acquire``.

        Raises
        ------
        ConfigurationError
            Without a store, or when an instrument has joined under another `scope` or `feeds`.
        """
        cdef SharedFeatures handle
        cdef tf_pipeline *p
        if self.store is None:
            raise ConfigurationError("`store` must be given to the engine to join it, was None")
        for number, name in enumerate(self.names):
            given = feeds if isinstance(feeds, str) else feeds.get(name, "")
            if self.legs[number]:
                given = f"{given} legs {' '.join(self.legs[number])}".strip()
            p = &self.pipelines[number]
            old = self.readers[number]
            if old is not None and (<SharedFeatures>old).state.key[4:] == (given, scope):
                continue
            if p.joined:
                raise ConfigurationError(f"`scope` and `feeds` of {name} must stay what they were when it joined")
            if old is not None:
                (<SharedFeatures>old).detach()
            handle = self.store.acquire(name, self.plan, gap_ns=self.gap, reset_on_day=self.reset_on_day,
                                        feed=given, scope=scope)
            handle.held = True
            self.readers[number] = handle
            p.reader = &handle.reader
        self.joins = (scope, feeds)

    def leave_store(self):
        """Gives all handles back; instruments that had joined go on alone, from nothing."""
        cdef tf_pipeline *p
        cdef uint32_t i
        for i in range(self.count):
            p = &self.pipelines[i]
            if p.joined:
                self._own_block(p)
                self._reset(p)
            p.reader = NULL
            if self.readers[i] is not None:
                (<SharedFeatures>self.readers[i]).detach()
                self.readers[i] = None
        self.joins = None

    def shared(self, uint32_t slot):
        """The ``SharedFeatures`` behind an instrument, to look at; None before ``join_store``."""
        return self.readers[slot]

    def slot(self, str instrument_id):
        """The slot of an instrument; KeyError when it was never added and nothing watches it."""
        if instrument_id not in self.slots and instrument_id in self.listeners:
            return self.capacity + self.listeners.index(instrument_id)
        return self.slots[instrument_id]

    def instrument(self, uint32_t slot):
        """The name behind a slot."""
        return self.names[slot] if slot < self.capacity else self.listeners[slot - self.capacity]

    def reset(self):
        """Forgets all state of all instruments; they stay registered.

        Shared features are wiped when every engine that shares them was reset.
        """
        cdef uint32_t i
        for i in range(self.count):
            if self.pipelines[i].joined:
                self._own_block(&self.pipelines[i])
                reader_leave(self.pipelines[i].reader)
            self.pipelines[i].fed = 0
            self._reset(&self.pipelines[i])
            self.pipelines[i].sequence = 0
            self.pipelines[i].failures = 0
            self.pipelines[i].resets = 0
        self.latency.clear()

    # ---- the Python face: research, tests, and strategies that are not compiled -------------------------------

    def process_quote(self, uint32_t slot, double bid_price, double ask_price, double bid_size, double ask_size,
                      uint64_t ts_event, bint emit=True):
        """Feeds a quote and prepares for the next; returns the signal (a reused view) or None.

        Prices and sizes in the instrument's units, ``ts_event`` in UTC nanoseconds.
        """
        cdef tf_quote q
        memset(&q, 0, sizeof(q))
        q.bid_price = bid_price
        q.ask_price = ask_price
        q.bid_size = bid_size
        q.ask_size = ask_size
        q.ts_event = ts_event
        q.ts_init = ts_event
        q.slot = slot
        return self._answer(self.on_quote(&q, emit), slot)

    def process_trade(self, uint32_t slot, double price, double size, int32_t aggressor, uint64_t ts_event,
                      bint emit=True):
        """Feeds a trade (``aggressor`` +1 buyer, -1 seller, 0 unknown); see ``process_quote``."""
        cdef tf_trade t
        memset(&t, 0, sizeof(t))
        t.price = price
        t.size = size
        t.aggressor = aggressor
        t.ts_event = ts_event
        t.ts_init = ts_event
        t.slot = slot
        return self._answer(self.on_trade(&t, emit), slot)

    def process_bar(self, uint32_t slot, double open, double high, double low, double close, double volume,
                    uint64_t ts_event, bint emit=True):
        """Feeds a bar; see ``process_quote``."""
        cdef tf_bar b
        memset(&b, 0, sizeof(b))
        b.open = open
        b.high = high
        b.low = low
        b.close = close
        b.volume = volume
        b.ts_event = ts_event
        b.ts_init = ts_event
        b.slot = slot
        return self._answer(self.on_bar(&b, emit), slot)

    def process_depth(self, uint32_t slot, double[::1] bid_price, double[::1] bid_size, double[::1] ask_price,
                      double[::1] ask_size, uint64_t ts_event, bint emit=True):
        """Feeds a depth snapshot, best level first, at most ten levels a side; see ``process_quote``."""
        cdef tf_depth10 d
        cdef Py_ssize_t i, n = bid_price.shape[0]
        if not 1 <= n <= 10 or bid_size.shape[0] != n or ask_price.shape[0] != n or ask_size.shape[0] != n:
            raise ValueError(f"depth arrays must have one length between 1 and 10, were {bid_price.shape[0]}, "
                             f"{bid_size.shape[0]}, {ask_price.shape[0]}, {ask_size.shape[0]}")
        memset(&d, 0, sizeof(d))
        for i in range(n):
            d.bid_price[i] = bid_price[i]
            d.bid_size[i] = bid_size[i]
            d.ask_price[i] = ask_price[i]
            d.ask_size[i] = ask_size[i]
        d.levels = <uint32_t>n
        d.ts_event = ts_event
        d.ts_init = ts_event
        d.slot = slot
        return self._answer(self.on_depth(&d, emit), slot)

    def feed_external(self, str source not None, values, uint64_t ts_event, ts_init=None, bint emit=True):
        """Feeds an observation from outside the market to every instrument; it makes no signal.

        Parameters
        ----------
        source : str
            One of ``plan.sources``.
        values : sequence of float
            1 to 4 numbers, whose meaning is the source's own business.
        ts_event : int
            Time of publication, UTC nanoseconds.
        ts_init : int, optional
            Time of receipt, not before `ts_event`; by default `ts_event`.
        emit : bool
            False for past observations, which are fed before live ones.

        Returns
        -------
        int
            How many instruments accepted it; what they refuse is in their counters.

        Raises
        ------
        FeatureExtractionError
            If the plan reads no such source, or the values or times break their rule.
        """
        cdef tf_external event
        cdef int i, given = len(values)
        sources = self.bundle.plan.sources
        if source not in sources:
            raise FeatureExtractionError(f"`source` must be one of {', '.join(sources) or 'none'}, was {source!r}")
        if not 1 <= given <= TF_EXTERNAL_VALUES:
            raise FeatureExtractionError(f"`values` must have 1 to {int(TF_EXTERNAL_VALUES)} entries, had {given}")
        if ts_init is not None and ts_init < ts_event:
            raise FeatureExtractionError(f"`ts_init` must be >= `ts_event`, an observation exists from its publication "
                                         f"({ts_event}), was {ts_init}")
        for i in range(TF_EXTERNAL_VALUES):
            event.value[i] = values[i] if i < given else float("nan")
        event.ts_event = ts_event
        event.ts_init = ts_event if ts_init is None else ts_init
        event.slot = sources.index(source)
        event.reserved = 0
        return self.on_external(&event, emit)

    def _answer(self, bint made, uint32_t slot):
        self.prepare(slot)
        return self.signal if made else None

    def feature_row(self, uint32_t slot):
        """The raw feature row of an instrument as float64 ``[F]``."""
        if slot >= self.count:
            raise IndexError(f"`slot` must be below {self.count}, was {slot}")
        cdef double[::1] row = np.empty(self.bundle.plan.width)
        tf_features_row(self.pipelines[slot].features, &row[0])
        return np.asarray(row)

    def counters(self, uint32_t slot):
        """What happened to an instrument so far: events by fate, signals, failures, resets."""
        cdef tf_feature_counters c
        if slot >= self.count:
            raise IndexError(f"`slot` must be below {self.count}, was {slot}")
        read_counters(self.pipelines[slot].features, &c)
        return {"accepted": c.accepted, "crossed": c.crossed, "backward": c.backward, "invalid": c.invalid,
                "signals": self.pipelines[slot].sequence, "failures": self.pipelines[slot].failures,
                "resets": self.pipelines[slot].resets}

    @property
    def nbytes(self):
        """Bytes of state per instrument: feature block plus session block."""
        return self.features_bytes + self.session_bytes

    @property
    def nbytes_held(self):
        """Bytes that this engine holds itself, without what it shares: features, sessions, normalisation, handles."""
        cdef uint32_t i
        total = self.capacity * sizeof(tf_pipeline) + self.normaliser_bytes
        for i in range(self.count):
            total += self.session_bytes
            if self.pipelines[i].features_block != NULL:
                total += self.features_bytes
            if self.readers[i] is not None:
                total += self.readers[i].nbytes
        return total

    # ---- state to bytes and back ---------------------------------------------------------------------------------

    def to_bytes(self):
        """All instruments' state; continuing from it gives the same bits.

        The layout is private and bound to the model, the feature plan and this version; a SHA-256 closes it.
        """
        cdef uint32_t i
        cdef size_t session_state = self._state_bytes()
        cdef bytearray session = bytearray(session_state)
        cdef unsigned char[::1] view = session
        cdef tf_pipeline *p
        parts = [STATE_MAGIC, bytes.fromhex(self.signal.model_hash), bytes.fromhex(self.signal.feature_hash),
                 struct.pack("<QQI", self.features_bytes, session_state, self.count)]
        for i in range(self.count):
            p = &self.pipelines[i]
            self.prepare(i)
            if self._save(p, &view[0], session_state) != TF_OK:
                raise InferenceFailed(f"{self.names[i]}: the session could not be saved")
            name = self.names[i].encode()
            parts += [struct.pack("<I", len(name)), name,
                      struct.pack("<QQQQQ", p.warm_up, p.warm_until, p.last_ts, p.sequence, p.failures),
                      (<char *>p.features)[:self.features_bytes], bytes(session)]
        body = b"".join(parts)
        return body + hashlib.sha256(body).digest()

    def from_bytes(self, bytes data):
        """Restores what ``to_bytes`` gave, for the instruments that were saved; others are left alone.

        Raises
        ------
        ModelLoadingError
            When the bytes are damaged, truncated, or belong to another model or feature plan, or when an instrument
            has joined a feature store already: state is restored before live events. Nothing is changed then: every
            block is checked in memory of its own before the first one is put in place.
        """
        cdef tf_pipeline *p
        cdef size_t session_state = self._state_bytes()
        entries = self._read_state(data, session_state)
        for name, _, _, _ in entries:
            if name in self.slots and self.pipelines[<uint32_t>self.slots[name]].joined:
                raise ModelLoadingError(f"saved engine state: must be restored before {name} shares features, "
                                        f"was after")
        blocks = [self._checked(name, features, session) for name, _, features, session in entries]
        for (name, numbers, _, session), features_block in zip(entries, blocks):
            p = &self.pipelines[self.add_instrument(name)]
            p.warm_up, p.warm_until, p.last_ts, p.sequence, p.failures = numbers
            memcpy(p.features, (<Block>features_block).data, self.features_bytes)
            p.fed = 1
            if self._load(p, <const char *>(<bytes>session), session_state) != TF_OK:
                raise InferenceFailed(f"{name}: a session that was accepted a moment ago was refused")
            p.pending = 0

    def _state_bytes(self):
        """Bytes of one saved session; a windowed one tells them itself, so one is made when there is none yet."""
        cdef tf_pipeline scratch
        cdef Block block
        if self.state_bytes == 0:
            block = Block.__new__(Block, self.session_bytes)
            memset(&scratch, 0, sizeof(scratch))
            if self._place(&scratch, block.data) != TF_OK:
                raise InferenceFailed("a windowed session could not be made")
        return self.state_bytes

    def _read_state(self, bytes data, size_t session_state):
        """The saved instruments as (name, five numbers, feature block, session state); lengths and names checked."""
        end = max(0, len(data) - 32)
        body = data[:end]
        if hashlib.sha256(body).digest() != data[end:] or not body.startswith(STATE_MAGIC):
            raise ModelLoadingError("saved engine state: damaged, or not an engine state of this version")
        expected = (bytes.fromhex(self.signal.model_hash) + bytes.fromhex(self.signal.feature_hash)
                    + struct.pack("<QQ", self.features_bytes, session_state))
        at = len(STATE_MAGIC)
        if body[at:at + len(expected)] != expected:
            raise ModelLoadingError(f"saved engine state: made by another model or feature plan than "
                                    f"`{self.signal.model_id}`")
        entries = read_entries(body, at + len(expected), self.features_bytes, session_state)
        new = [name for name in entries if name not in self.slots]
        if self.count + len(new) > self.capacity:
            raise ModelLoadingError(f"saved engine state: holds {len(new)} further instruments, room is for "
                                    f"{self.capacity - self.count}")
        return list(entries.values())

    def _checked(self, str name, bytes features, bytes session):
        """The feature block in memory of its own, after the C side has accepted it and the session's state."""
        cdef FeaturePlan plan = self.plan
        cdef Block feature_block = Block.__new__(Block, self.features_bytes)
        cdef Block session_block = Block.__new__(Block, self.session_bytes)
        cdef tf_pipeline scratch
        cdef Block fresh = Block.__new__(Block, self.features_bytes)
        memset(&scratch, 0, sizeof(scratch))
        memcpy(feature_block.data, <const char *>features, self.features_bytes)
        if (tf_features_init(fresh.data, self.features_bytes, plan.c_specs, plan.c_count, &scratch.features) != TF_OK
                or tf_features_check(scratch.features, feature_block.data, self.features_bytes) != TF_OK):
            raise ModelLoadingError(f"saved engine state: the features of {name} were refused")
        if (self._place(&scratch, session_block.data) != TF_OK
                or self._load(&scratch, <const char *>session, len(session)) != TF_OK):
            raise ModelLoadingError(f"saved engine state: the session of {name} was refused")
        return feature_block


def clock_overhead_ns(int rounds=10_000):
    """Median cost of the two clock reads that a stamped latency contains, in nanoseconds."""
    cdef timespec first, second
    cdef LatencyHistogram h = LatencyHistogram()
    for _ in range(rounds):
        clock_gettime(CLOCK_MONOTONIC, &first)
        clock_gettime(CLOCK_MONOTONIC, &second)
        h.record(<uint64_t>(second.tv_sec - first.tv_sec) * 1_000_000_000 + <uint64_t>(second.tv_nsec - first.tv_nsec))
    return h.percentile(50)
