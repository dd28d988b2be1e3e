"""From event to signal: one feature state and one model session per instrument, stepped without leaving C.

An event updates the features of its instrument. When it is an event of the model's own clock, and every feature has
seen its lookback, the feature row is written straight into the session's input, ``finish`` runs, and the answer is
turned into a signal. Whoever acts on the signal calls ``prepare`` afterwards; if nobody did, the next event does.

Quotes of other instruments that a plan names (its legs) and observations of its external sources update the features
and make no signal. With a feature store the features of an instrument are those of every engine of the process that
joined with an equal plan; sessions stay its own.
"""

from libc.math cimport erfc, exp, isfinite, sqrt
from libc.stdint cimport int32_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from tengri_fast.errors import ConfigurationError, InferenceFailed, ModelLoadingError
from tengri_fast.features._table import REGISTRY
from tengri_fast.features.spec import FEATURES

from tengri_fast.features.capi cimport (
    tf_feature_adopt,
    tf_feature_spec,
    tf_features,
    tf_features_emit,
    tf_features_init,
    tf_features_mid,
    tf_features_normalise,
    tf_features_ready,
    tf_features_reset,
    tf_features_row,
    tf_features_size,
    tf_features_spread,
)
from tengri_fast.features.plan cimport FeaturePlan
from tengri_fast.features.store cimport (
    FEED_BAR,
    FEED_DEPTH,
    FEED_EXTERNAL,
    FEED_LEG,
    FEED_QUOTE,
    FEED_TRADE,
    FeatureStore,
    feed,
    reader_join,
    reader_row,
    reader_take,
)
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
from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_external, tf_quote, tf_trade
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

tf_feature_adopt(<void *><uintptr_t>REGISTRY)

CLOCKS = {"quote": FEED_QUOTE, "trade": FEED_TRADE, "bar": FEED_BAR, "depth": FEED_DEPTH}
KINDS = {"logits": KIND_LOGITS, "probabilities": KIND_PROBABILITIES, "return": KIND_RETURN}

cdef uint64_t NANOSECONDS_PER_DAY = 86_400_000_000_000

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


cdef inline bint take(EngineCore self, int kind, uint32_t extra, const void *event, uint32_t slot,
                      uint64_t ts, bint emit) noexcept:
    """An instrument's own event, of a kind that is a constant wherever this is called."""
    cdef tf_pipeline *p
    if slot >= self.count:
        self.started = 0
        return False
    if self.stamp and self.started == 0:
        self.started = now_ns(CLOCK_MONOTONIC)
    p = &self.pipelines[slot]
    self._catch_up(p)
    if p.reader != NULL and (emit or p.joined):
        if not self._take_shared(p, kind, extra, event, ts):
            self.started = 0
            return False
    else:
        p.fed = 1
        if not feed(p.features, kind, extra, event):
            self.started = 0
            return False
        if self._begins_anew(p, ts):
            feed(p.features, kind, extra, event)
    if self.clock != kind:
        self.started = 0
        return False
    return self._step(slot, ts, emit)


cdef inline bint emit_row(EngineCore self, tf_pipeline *p) noexcept:
    """The row as the model's input; False if a number was beyond float32."""
    if self.normaliser == NULL:
        return tf_features_emit(p.features, p.input) != 0
    if p.joined:
        return tf_features_normalise(self.normaliser, reader_row(p.reader), p.input) != 0
    tf_features_row(p.features, self.row)
    return tf_features_normalise(self.normaliser, self.row, p.input) != 0


cdef class EngineCore:
    """Pipelines and what events do to them; see ``TengriNeuralEngine``."""

    def __cinit__(self, bundle, uint32_t capacity=16, store=None):
        if capacity < 1:
            raise ConfigurationError(f"`capacity` must be >= 1, was {capacity}")
        self.pipelines = <tf_pipeline *>calloc(capacity, sizeof(tf_pipeline))
        if self.pipelines == NULL:
            raise MemoryError("no memory for the engine's pipelines")
        self.capacity = capacity

    def __init__(self, bundle, uint32_t capacity=16, store=None):
        cdef Model model = bundle.model
        cdef FeaturePlan plan = bundle.plan
        if store is not None and not isinstance(store, FeatureStore):
            raise ConfigurationError(f"`store` must be a FeatureStore, was {type(store).__name__}")
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
        self.listeners = []
        self.legs = []
        self.readers = []
        self.store = store
        self.plan = plan
        if store is not None:
            self._make_normaliser(plan)
            self.plan = plan.with_normalisation(0.0, 1.0, 0.0)
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
        free(self.watches)
        free(self.first_watch)
        free(self.normaliser_block)
        free(self.row)

    cdef int _make_normaliser(self, object plan) except -1:
        """The normalisation of a model apart from its features, which may be others' too.

        A plan of as many of the cheapest columns as the model has, with the model's own numbers: only the arithmetic of
        ``tf_features_normalise`` is used, so that shared features enter a model by the same code as others.
        """
        cdef FeaturePlan full = plan
        cdef size_t size = 0
        cdef int32_t i
        cdef tf_feature_spec *specs = <tf_feature_spec *>calloc(full.c_count, sizeof(tf_feature_spec))
        self.row = <double *>calloc(full.c_count, sizeof(double))
        if specs == NULL or self.row == NULL:
            free(specs)
            raise MemoryError("no memory for the normalisation")
        try:
            for i in range(full.c_count):
                specs[i].kind = FEATURES["spread"].kind
                specs[i].mean = full.c_specs[i].mean
                specs[i].scale = full.c_specs[i].scale
                specs[i].clip = full.c_specs[i].clip
            if tf_features_size(specs, full.c_count, &size) == TF_OK:
                self.normaliser_block = aligned_alloc(64, aligned_size(size))
                if self.normaliser_block == NULL:
                    raise MemoryError("no memory for the normalisation")
                self.normaliser_bytes = aligned_size(size) + full.c_count * sizeof(double)
                if tf_features_init(self.normaliser_block, size, specs, full.c_count, &self.normaliser) == TF_OK:
                    return 0
        finally:
            free(specs)
        raise ModelLoadingError("the normalisation of the model was refused")

    cdef int _own_block(self, tf_pipeline *pipeline) except -1:
        """A fresh feature block for a pipeline that has none."""
        cdef FeaturePlan plan = self.plan
        cdef void *block = aligned_alloc(64, aligned_size(self.features_bytes))
        if block == NULL:
            raise MemoryError("no memory for features")
        cdef tf_status status = tf_features_init(block, self.features_bytes, plan.c_specs, plan.c_count,
                                                 &pipeline.features)
        if status != TF_OK:
            free(block)
            raise InferenceFailed(f"features: {tf_status_text(status).decode()}")
        pipeline.features_block = block
        pipeline.fed = 0
        pipeline.joined = 0
        return 0

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

    cdef tf_status _save(self, tf_pipeline *pipeline, void *data, size_t size) noexcept:
        if pipeline.window != NULL:
            return tf_window_save(pipeline.window, data, size)
        return tf_session_save(self.model, pipeline.session, data, size)

    cdef void _reset(self, tf_pipeline *pipeline) noexcept:
        if not pipeline.joined: # shared features have a rule of their own
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

        With ``emit`` false (historical data) features and session advance and no signal is made. It is the instrument's
        own event first, then a leg of others.
        """
        cdef bint made = take(self, FEED_QUOTE, 0, event, event.slot, event.ts_event, emit)
        if self.watched != 0:
            self.on_leg(event, emit)
        return made

    cdef bint on_trade(self, const tf_trade *event, bint emit) noexcept:
        """Feeds a trade; see ``on_quote``."""
        return take(self, FEED_TRADE, <uint32_t>event.aggressor, event, event.slot, event.ts_event, emit)

    cdef bint on_bar(self, const tf_bar *event, bint emit) noexcept:
        """Feeds a bar; see ``on_quote``."""
        return take(self, FEED_BAR, 0, event, event.slot, event.ts_event, emit)

    cdef bint on_depth(self, const tf_depth10 *event, bint emit) noexcept:
        """Feeds a depth snapshot; see ``on_quote``. It is no leg of others: those are quotes."""
        return take(self, FEED_DEPTH, event.levels, event, event.slot, event.ts_event, emit)

    cdef void on_leg(self, const tf_quote *event, bint emit) noexcept:
        """Feeds a quote to the pipelines that watch its instrument; it never makes a signal."""
        cdef const tf_watch *watch
        cdef uint32_t i
        if event.slot >= self.watched:
            return
        for i in range(self.first_watch[event.slot], self.first_watch[event.slot + 1]):
            watch = &self.watches[i]
            self._take_other(&self.pipelines[watch.pipeline], FEED_LEG, watch.leg, event, event.ts_event, emit)

    cdef uint32_t on_external(self, const tf_external *event, bint emit) noexcept:
        """Feeds an observation (``event.slot``: its source in the plan) to all pipelines; how many accepted it."""
        cdef uint32_t i, accepted = 0
        for i in range(self.count):
            accepted += <uint32_t>self._take_other(&self.pipelines[i], FEED_EXTERNAL, event.slot, event,
                                                   event.ts_event, emit)
        return accepted

    cdef int _take_other(self, tf_pipeline *pipeline, int kind, uint32_t extra, const void *event, uint64_t ts,
                         bint emit) noexcept:
        if pipeline.reader != NULL and (emit or pipeline.joined):
            if not pipeline.joined:
                self._join(pipeline)
            return reader_take(pipeline.reader, kind, extra, event, ts)
        pipeline.fed = 1
        return feed(pipeline.features, kind, extra, event)

    cdef bint _take_shared(self, tf_pipeline *pipeline, int kind, uint32_t extra, const void *event,
                           uint64_t ts) noexcept:
        """An own event of a pipeline with a feature store; the session follows the resets of the shared state."""
        if not pipeline.joined:
            self._join(pipeline)
        if not reader_take(pipeline.reader, kind, extra, event, ts):
            return False
        if pipeline.reader.epoch != pipeline.reader.state.epoch:
            pipeline.reader.epoch = pipeline.reader.state.epoch
            self._reset(pipeline)
        self._begins_anew(pipeline, ts)
        return True

    cdef void _join(self, tf_pipeline *pipeline) noexcept:
        """Goes over to the shared state, at the first live event."""
        reader_join(pipeline.reader, pipeline.features if pipeline.fed else NULL, pipeline.last_ts)
        free(pipeline.features_block)
        pipeline.features_block = NULL
        pipeline.features = pipeline.reader.state.features
        pipeline.joined = 1

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
        finite = emit_row(self, p)
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


cdef class Block:
    """Memory for one state block, 64-byte aligned, freed with the object."""

    def __cinit__(self, size_t size):
        self.data = aligned_alloc(64, aligned_size(size))
        if self.data == NULL:
            raise MemoryError("no memory for a state block")

    def __dealloc__(self):
        free(self.data)
