"""From event to signal: one feature state and one model session per instrument, stepped without leaving C.

An event updates the features of its instrument. When it is an event of the model's own clock, and every feature has
seen its lookback, the feature row is written straight into the session's input, ``finish`` runs, and the answer is
turned into a signal. Whoever acts on the signal calls ``prepare`` afterwards; if nobody did, the next event does.
"""

from libc.math cimport erfc, exp, isfinite, sqrt
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import hashlib
import struct

import numpy as np

from tengri_fast.errors import ConfigurationError, InferenceFailed, ModelLoadingError
from tengri_fast.runtime.engine_state import read_entries

from tengri_fast.features.capi cimport (
    read_counters,
    tf_feature_counters,
    tf_features_check,
    tf_features_emit,
    tf_features_init,
    tf_features_mid,
    tf_features_on_bar,
    tf_features_on_depth,
    tf_features_on_quote,
    tf_features_on_trade,
    tf_features_ready,
    tf_features_reset,
    tf_features_row,
    tf_features_size,
    tf_features_spread,
)
from tengri_fast.features.plan cimport FeaturePlan
from tengri_fast.inference.capi cimport (
    TF_ERR_ISA,
    TF_OK,
    tf_isa_select,
    tf_model,
    tf_model_session_bytes,
    tf_session_finish,
    tf_session_init,
    tf_session_input,
    tf_session_load,
    tf_session_output,
    tf_session_prepare,
    tf_session_reset,
    tf_session_save,
    tf_session_state_bytes,
    tf_status,
    tf_status_text,
    tf_window_bytes,
    tf_window_finish,
    tf_window_init,
    tf_window_input,
    tf_window_load,
    tf_window_output,
    tf_window_prepare,
    tf_window_reset,
    tf_window_save,
    tf_window_state_bytes,
)
from tengri_fast.inference.session cimport Model
from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_quote, tf_trade
from tengri_fast.runtime.latency cimport LatencyHistogram
from tengri_fast.runtime.signal cimport NeuralSignal, tf_signal

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec *out)

cdef enum:
    KIND_LOGITS = 0
    KIND_PROBABILITIES = 1
    KIND_RETURN = 2

cdef enum:
    RUNG_MODEL = 0
    RUNG_FLAT = 4

CLOCKS = {"quote": 0, "trade": 1, "bar": 2, "depth": 3}
KINDS = {"logits": KIND_LOGITS, "probabilities": KIND_PROBABILITIES, "return": KIND_RETURN}

cdef uint64_t NANOSECONDS_PER_DAY = 86_400_000_000_000
cdef bytes STATE_MAGIC = b"TGENGIN1"

# A cimported class is no name of this module, and Python code imports NeuralSignal from here.
globals()["NeuralSignal"] = NeuralSignal

if tf_isa_select(NULL) == TF_ERR_ISA:
    raise ConfigurationError("`TENGRI_ISA` must name an instruction set that this machine has (see `tengri info`)")


cdef inline uint64_t now_ns(int clock) noexcept nogil:
    cdef timespec t
    clock_gettime(clock, &t)
    return <uint64_t>t.tv_sec * 1_000_000_000 + <uint64_t>t.tv_nsec


cdef inline void finish_session(const tf_model *model, tf_pipeline *pipeline) noexcept nogil:
    if pipeline.window != NULL:
        tf_window_finish(pipeline.window)
    else:
        tf_session_finish(model, pipeline.session)


cdef inline void prepare_session(const tf_model *model, tf_pipeline *pipeline) noexcept nogil:
    if pipeline.window != NULL:
        tf_window_prepare(pipeline.window)
    else:
        tf_session_prepare(model, pipeline.session)


cdef inline void reset_session(tf_pipeline *pipeline) noexcept nogil:
    if pipeline.window != NULL:
        tf_window_reset(pipeline.window)
    else:
        tf_session_reset(pipeline.session)


cdef inline size_t aligned_size(size_t size) noexcept nogil:
    return (size + 63) & ~<size_t>63


cdef class TengriNeuralEngine:
    """Runs one model for many instruments.

    Parameters
    ----------
    bundle : ModelBundle
        A loaded model with its feature plan, from ``load_bundle``.
    capacity : int
        Most instruments it will ever hold; their memory is allocated in ``add_instrument``.

    Notes
    -----
    Nothing is allocated and nothing is raised between events. An answer that is not finite gives a signal of rung 4
    (flat, confidence 0), is counted, and resets that instrument's session, because a NaN would stay in its state.
    """

    def __cinit__(self, bundle, uint32_t capacity=16):
        if capacity < 1:
            raise ConfigurationError(f"`capacity` must be >= 1, was {capacity}")
        self.pipelines = <tf_pipeline *>calloc(capacity, sizeof(tf_pipeline))
        if self.pipelines == NULL:
            raise MemoryError("no memory for the engine's pipelines")
        self.capacity = capacity

    def __init__(self, bundle, uint32_t capacity=16):
        cdef Model model = bundle.model
        cdef FeaturePlan plan = bundle.plan
        spec = bundle.spec
        self.bundle = bundle
        self.model = model.ptr
        self.latency = LatencyHistogram()
        self.clock = CLOCKS[spec.inputs.clock]
        self.kind = KINDS[spec.outputs.kind]
        self.temperature = spec.calibration.temperature
        self.sigma = spec.outputs.sigma_bps
        for i in range(3):
            self.class_returns[i] = spec.outputs.class_returns_bps[i] if self.kind != KIND_RETURN else 0.0
        self.horizon = spec.outputs.horizon_value
        self.gap = spec.gap_ns
        self.reset_on_day = spec.reset_on_day
        self.names = []
        self.slots = {}
        self.signal = NeuralSignal.__new__(NeuralSignal)
        self.signal.names = self.names
        self.signal.model_id = spec.id
        self.signal.model_hash = bundle.model_sha256
        self.signal.feature_hash = plan.hash
        self.signal.horizon_unit = spec.outputs.horizon_unit
        if tf_features_size(plan.c_specs, plan.c_count, &self.features_bytes) != TF_OK:
            raise ModelLoadingError(f"model `{spec.id}`: its feature plan was refused")
        self.window = spec.window if spec.state == "windowed" else 0
        self.column = bundle.column
        if self.window > 0:
            self.session_bytes = tf_window_bytes(self.model, self.window)
        else:
            self.session_bytes = tf_model_session_bytes(self.model)
            self.state_bytes = tf_session_state_bytes(self.model)

    def __dealloc__(self):
        cdef uint32_t i
        if self.pipelines != NULL:
            for i in range(self.count):
                free(self.pipelines[i].features_block)
                free(self.pipelines[i].session_block)
            free(self.pipelines)

    def __reduce__(self):
        raise TypeError("TengriNeuralEngine cannot be pickled; use to_bytes()")

    def add_instrument(self, str instrument_id, uint64_t warm_up_ns=0):
        """Makes room for an instrument and returns its slot; asking twice returns the same slot.

        Parameters
        ----------
        instrument_id : str
            Any unique name, e.g. ``"BTCUSDT-PERP.BINANCE"``.
        warm_up_ns : int
            Event time after the first event (and after each reset) during which no signal is made.

        Raises
        ------
        ConfigurationError
            When the engine is full.
        """
        cdef FeaturePlan plan = self.bundle.plan
        cdef tf_pipeline *p
        if instrument_id in self.slots:
            return self.slots[instrument_id]
        if self.count >= self.capacity:
            raise ConfigurationError(f"`capacity` must hold every instrument, was {self.capacity} "
                                     f"when {instrument_id} was added")
        p = &self.pipelines[self.count]
        cdef void *features = aligned_alloc(64, aligned_size(self.features_bytes))
        cdef void *session = aligned_alloc(64, aligned_size(self.session_bytes))
        if features == NULL or session == NULL:
            free(features)
            free(session)
            raise MemoryError(f"no memory for the state of {instrument_id}")
        cdef tf_status status = tf_features_init(features, self.features_bytes, plan.c_specs, plan.c_count,
                                                 &p.features)
        if status == TF_OK:
            status = self._place(p, session)
        if status != TF_OK:
            free(features)
            free(session)
            raise InferenceFailed(f"{instrument_id}: {tf_status_text(status).decode()}")
        p.features_block = features
        p.session_block = session
        p.warm_up = warm_up_ns
        self._reset(p)
        p.resets = 0
        slot = self.count
        self.slots[instrument_id] = slot
        self.names.append(instrument_id)
        self.count += 1
        return slot

    def slot(self, str instrument_id):
        """The slot of an instrument; KeyError when it was never added."""
        return self.slots[instrument_id]

    def instrument(self, uint32_t slot):
        """The name behind a slot."""
        return self.names[slot]

    def reset(self):
        """Forgets all state of all instruments; they stay registered."""
        cdef uint32_t i
        for i in range(self.count):
            self._reset(&self.pipelines[i])
            self.pipelines[i].sequence = 0
            self.pipelines[i].failures = 0
            self.pipelines[i].resets = 0
        self.latency.clear()

    cdef tf_status _place(self, tf_pipeline *pipeline, void *memory) noexcept:
        """A session of the model's kind in that memory, as the pipeline's own."""
        cdef tf_status status
        if self.window > 0:
            status = tf_window_init(self.model, self.window, memory, self.session_bytes, &pipeline.window)
            if status == TF_OK:
                pipeline.input = tf_window_input(pipeline.window)
                pipeline.output = tf_window_output(pipeline.window)
                self.state_bytes = tf_window_state_bytes(pipeline.window)
        else:
            status = tf_session_init(self.model, memory, self.session_bytes, &pipeline.session)
            if status == TF_OK:
                pipeline.input = tf_session_input(pipeline.session)
                pipeline.output = tf_session_output(pipeline.session)
        return status

    cdef tf_status _load(self, tf_pipeline *pipeline, const void *data, size_t size) noexcept:
        if pipeline.window != NULL:
            return tf_window_load(pipeline.window, data, size)
        return tf_session_load(self.model, pipeline.session, data, size)

    cdef void _reset(self, tf_pipeline *pipeline) noexcept:
        tf_features_reset(pipeline.features)
        reset_session(pipeline)
        prepare_session(self.model, pipeline)
        pipeline.pending = 0
        pipeline.warm_until = 0
        pipeline.last_ts = 0
        pipeline.resets += 1

    cdef void begin(self) noexcept:
        """Marks the arrival of an event, so that the time spent on reading it counts as latency."""
        if self.stamp:
            self.started = now_ns(CLOCK_MONOTONIC)

    cdef void _catch_up(self, tf_pipeline *pipeline) noexcept:
        """Runs the prepare that nobody asked for since the last signal."""
        if pipeline.pending:
            prepare_session(self.model, pipeline)
            pipeline.pending = 0

    cdef bint _begins_anew(self, tf_pipeline *pipeline, uint64_t ts) noexcept:
        """Takes note of an accepted event; True when state was dropped before it, at a gap or a day boundary.

        Only accepted events count: a refused one with a wild time must not wipe the state.
        """
        cdef bint anew = False
        if pipeline.last_ts != 0 and ts > pipeline.last_ts:
            if (self.gap != 0 and ts - pipeline.last_ts > self.gap) or (
                    self.reset_on_day and ts // NANOSECONDS_PER_DAY != pipeline.last_ts // NANOSECONDS_PER_DAY):
                self._reset(pipeline)
                anew = True
        if pipeline.last_ts == 0:
            pipeline.warm_until = ts + pipeline.warm_up
        if ts > pipeline.last_ts:
            pipeline.last_ts = ts
        return anew

    cdef bint on_quote(self, const tf_quote *event, bint emit) noexcept:
        """Feeds a quote; True when ``self.signal`` holds a new signal.

        With ``emit`` false (historical data) features and session advance and no signal is made.
        """
        if event.slot >= self.count:
            return False
        if self.stamp and self.started == 0:
            self.started = now_ns(CLOCK_MONOTONIC)
        cdef tf_pipeline *p = &self.pipelines[event.slot]
        self._catch_up(p)
        if not tf_features_on_quote(p.features, event):
            self.started = 0
            return False
        if self._begins_anew(p, event.ts_event):
            tf_features_on_quote(p.features, event)
        if self.clock != 0:
            self.started = 0
            return False
        return self._step(event.slot, event.ts_event, emit)

    cdef bint on_trade(self, const tf_trade *event, bint emit) noexcept:
        """Feeds a trade; see ``on_quote``."""
        if event.slot >= self.count:
            return False
        if self.stamp and self.started == 0:
            self.started = now_ns(CLOCK_MONOTONIC)
        cdef tf_pipeline *p = &self.pipelines[event.slot]
        self._catch_up(p)
        if not tf_features_on_trade(p.features, event):
            self.started = 0
            return False
        if self._begins_anew(p, event.ts_event):
            tf_features_on_trade(p.features, event)
        if self.clock != 1:
            self.started = 0
            return False
        return self._step(event.slot, event.ts_event, emit)

    cdef bint on_bar(self, const tf_bar *event, bint emit) noexcept:
        """Feeds a bar; see ``on_quote``."""
        if event.slot >= self.count:
            return False
        if self.stamp and self.started == 0:
            self.started = now_ns(CLOCK_MONOTONIC)
        cdef tf_pipeline *p = &self.pipelines[event.slot]
        self._catch_up(p)
        if not tf_features_on_bar(p.features, event):
            self.started = 0
            return False
        if self._begins_anew(p, event.ts_event):
            tf_features_on_bar(p.features, event)
        if self.clock != 2:
            self.started = 0
            return False
        return self._step(event.slot, event.ts_event, emit)

    cdef bint on_depth(self, const tf_depth10 *event, bint emit) noexcept:
        """Feeds a depth snapshot; see ``on_quote``."""
        if event.slot >= self.count:
            return False
        if self.stamp and self.started == 0:
            self.started = now_ns(CLOCK_MONOTONIC)
        cdef tf_pipeline *p = &self.pipelines[event.slot]
        self._catch_up(p)
        if not tf_features_on_depth(p.features, event):
            self.started = 0
            return False
        if self._begins_anew(p, event.ts_event):
            tf_features_on_depth(p.features, event)
        if self.clock != 3:
            self.started = 0
            return False
        return self._step(event.slot, event.ts_event, emit)

    cdef bint _step(self, uint32_t slot, uint64_t ts, bint emit) noexcept:
        """One model step from the features as they stand."""
        cdef tf_pipeline *p = &self.pipelines[slot]
        cdef tf_signal *s = &self.signal.data
        cdef const float *y
        cdef double a, b, c, top, total
        cdef uint64_t finished
        cdef bint finite
        if not tf_features_ready(p.features):
            self.started = 0
            return False
        finite = tf_features_emit(p.features, p.input) != 0
        if finite:
            finish_session(self.model, p)
            p.pending = 1
            y = p.output + self.column
            if self.kind == KIND_RETURN:
                a = <double>y[0]
                b = 0.5 * erfc(-a / (self.sigma * sqrt(2.0)))
                s.value = a
                s.probability[0] = 1.0 - b
                s.probability[1] = 0.0
                s.probability[2] = b
                finite = isfinite(a) != 0
            else:
                a = <double>y[0]
                b = <double>y[1]
                c = <double>y[2]
                if self.kind == KIND_LOGITS:
                    top = max(a, max(b, c))
                    a = exp((a - top) / self.temperature)
                    b = exp((b - top) / self.temperature)
                    c = exp((c - top) / self.temperature)
                total = a + b + c
                finite = isfinite(total) != 0 and total > 0.0
                s.probability[0] = a / total
                s.probability[1] = b / total
                s.probability[2] = c / total
                s.value = (s.probability[0] * self.class_returns[0] + s.probability[1] * self.class_returns[1]
                           + s.probability[2] * self.class_returns[2])
        s.rung = RUNG_MODEL
        s.confidence = max(s.probability[0], max(s.probability[1], s.probability[2]))
        if not finite:
            p.failures += 1
            reset_session(p)
            p.pending = 1
            s.rung = RUNG_FLAT
            s.value = 0.0
            s.confidence = 0.0
            s.probability[0] = 0.0
            s.probability[1] = 1.0
            s.probability[2] = 0.0
        if not emit or ts < p.warm_until:
            self.started = 0
            return False
        p.sequence += 1
        s.slot = slot
        s.sequence = p.sequence
        s.ts_event = ts
        s.horizon = self.horizon
        s.mid = tf_features_mid(p.features)
        s.spread = tf_features_spread(p.features)
        s.latency = 0
        s.computed_at = 0
        if self.stamp:
            finished = now_ns(CLOCK_MONOTONIC)
            s.latency = finished - self.started
            s.computed_at = now_ns(CLOCK_REALTIME)
            self.latency.record(s.latency)
        self.started = 0
        return True

    cdef void prepare(self, uint32_t slot) noexcept:
        """Everything that does not need the next event; call it when the signal has been acted on."""
        cdef tf_pipeline *p
        if slot < self.count:
            p = &self.pipelines[slot]
            if p.pending:
                prepare_session(self.model, p)
                p.pending = 0

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

    # ---- state to bytes and back ---------------------------------------------------------------------------------

    def to_bytes(self):
        """All instruments' state; continuing from it gives the same bits.

        The layout is private and bound to the model, the feature plan and this version; a SHA-256 closes it.
        """
        cdef uint32_t i
        cdef tf_status status
        cdef size_t session_state = self._state_bytes()
        cdef bytearray session = bytearray(session_state)
        cdef unsigned char[::1] view = session
        cdef tf_pipeline *p
        parts = [STATE_MAGIC, bytes.fromhex(self.signal.model_hash), bytes.fromhex(self.signal.feature_hash),
                 struct.pack("<QQI", self.features_bytes, session_state, self.count)]
        for i in range(self.count):
            p = &self.pipelines[i]
            if p.pending:
                prepare_session(self.model, p)
                p.pending = 0
            if p.window != NULL:
                status = tf_window_save(p.window, &view[0], session_state)
            else:
                status = tf_session_save(self.model, p.session, &view[0], session_state)
            if status != TF_OK:
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
            When the bytes are damaged, truncated, or belong to another model or feature plan. Nothing is changed then:
            every block is checked in memory of its own before the first one is put in place.
        """
        cdef tf_pipeline *p
        cdef size_t session_state = self._state_bytes()
        entries = self._read_state(data, session_state)
        blocks = [self._checked(name, features, session) for name, _, features, session in entries]
        for (name, numbers, _, session), features_block in zip(entries, blocks):
            p = &self.pipelines[self.add_instrument(name)]
            p.warm_up, p.warm_until, p.last_ts, p.sequence, p.failures = numbers
            memcpy(p.features, (<Block>features_block).data, self.features_bytes)
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
        cdef FeaturePlan plan = self.bundle.plan
        cdef Block feature_block = Block.__new__(Block, self.features_bytes)
        cdef Block session_block = Block.__new__(Block, self.session_bytes)
        cdef tf_pipeline scratch
        memset(&scratch, 0, sizeof(scratch))
        memcpy(feature_block.data, <const char *>features, self.features_bytes)
        if tf_features_check(feature_block.data, self.features_bytes, plan.c_specs, plan.c_count) != TF_OK:
            raise ModelLoadingError(f"saved engine state: the features of {name} were refused")
        if (self._place(&scratch, session_block.data) != TF_OK
                or self._load(&scratch, <const char *>session, len(session)) != TF_OK):
            raise ModelLoadingError(f"saved engine state: the session of {name} was refused")
        return feature_block


cdef class Block:
    """Memory for one state block, 64-byte aligned, freed with the object."""

    def __cinit__(self, size_t size):
        self.data = aligned_alloc(64, aligned_size(size))
        if self.data == NULL:
            raise MemoryError("no memory for a state block")

    def __dealloc__(self):
        free(self.data)


def clock_overhead_ns(int rounds=10_000):
    """Median cost of the two clock reads that a stamped latency contains, in nanoseconds."""
    cdef uint64_t a, b
    cdef LatencyHistogram h = LatencyHistogram()
    for _ in range(rounds):
        a = now_ns(CLOCK_MONOTONIC)
        b = now_ns(CLOCK_MONOTONIC)
        h.record(b - a)
    return h.percentile(50)
