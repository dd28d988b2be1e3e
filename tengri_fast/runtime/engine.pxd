from libc.stdint cimport int32_t, uint32_t, uint64_t

from tengri_fast.features.capi cimport tf_features
from tengri_fast.inference.capi cimport tf_model, tf_session, tf_status, tf_window
from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_quote, tf_trade
from tengri_fast.runtime.latency cimport LatencyHistogram
from tengri_fast.runtime.signal cimport NeuralSignal, tf_signal


cdef struct tf_pipeline:
    tf_features *features
    tf_session *session     # one of session and window
    tf_window *window
    float *input
    const float *output
    void *features_block
    void *session_block
    uint64_t warm_up        # ns of event time without signals after a reset
    uint64_t warm_until
    uint64_t last_ts        # last event seen, for resets on gaps and days
    uint64_t sequence
    uint64_t failures       # answers that were not finite
    uint64_t resets
    int32_t pending         # a prepare is due


cdef class TengriNeuralEngine:
    cdef tf_pipeline *pipelines
    cdef readonly uint32_t capacity
    cdef readonly uint32_t count
    cdef readonly NeuralSignal signal
    cdef readonly LatencyHistogram latency
    cdef readonly object bundle
    cdef public bint stamp
    cdef uint64_t started
    cdef const tf_model *model
    cdef size_t features_bytes
    cdef size_t session_bytes
    cdef size_t state_bytes # of a saved session
    cdef int32_t window     # rows that an answer looks back on, 0 for a stream
    cdef int32_t column     # first value of the answer row that is read
    cdef int32_t clock      # 0 quote, 1 trade, 2 bar, 3 depth
    cdef int32_t kind       # 0 logits, 1 probabilities, 2 return
    cdef double temperature
    cdef double class_returns[3]
    cdef double sigma
    cdef uint64_t horizon
    cdef uint64_t gap
    cdef bint reset_on_day
    cdef dict slots
    cdef list names
    cdef void begin(self) noexcept
    cdef bint on_quote(self, const tf_quote *event, bint emit) noexcept
    cdef bint on_trade(self, const tf_trade *event, bint emit) noexcept
    cdef bint on_bar(self, const tf_bar *event, bint emit) noexcept
    cdef bint on_depth(self, const tf_depth10 *event, bint emit) noexcept
    cdef void prepare(self, uint32_t slot) noexcept
    cdef void _catch_up(self, tf_pipeline *pipeline) noexcept
    cdef bint _begins_anew(self, tf_pipeline *pipeline, uint64_t ts) noexcept
    cdef bint _step(self, uint32_t slot, uint64_t ts, bint emit) noexcept
    cdef void _reset(self, tf_pipeline *pipeline) noexcept
    cdef tf_status _place(self, tf_pipeline *pipeline, void *memory) noexcept
    cdef tf_status _load(self, tf_pipeline *pipeline, const void *data, size_t size) noexcept


cdef class Block:
    cdef void *data
