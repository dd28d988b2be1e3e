from libc.stdint cimport int32_t, uint32_t, uint64_t

from tengri_fast.features.capi cimport tf_features
from tengri_fast.features.store cimport tf_reader
from tengri_fast.inference.capi cimport tf_model, tf_session, tf_status, tf_window
from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_external, tf_quote, tf_trade
from tengri_fast.runtime.latency cimport LatencyHistogram
from tengri_fast.runtime.signal cimport NeuralSignal, tf_signal


cdef struct tf_pipeline:
    tf_features *features   # its own block, or the shared state once it has joined
    tf_session *session     # one of session and window
    tf_window *window
    float *input
    const float *output
    tf_reader *reader       # of a feature store; NULL without one
    void *features_block    # NULL once it has joined
    void *session_block
    uint64_t warm_up        # ns of event time without signals after a reset
    uint64_t warm_until
    uint64_t last_ts        # last event seen, for resets on gaps and days
    uint64_t sequence
    uint64_t failures       # answers that were not finite
    uint64_t resets
    int32_t pending         # a prepare is due
    int32_t fed             # its own block has seen an event
    int32_t joined          # its features are the store's, from the first live event on


cdef struct tf_watch:
    uint32_t pipeline
    uint32_t leg


cdef class EngineCore:
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
    cdef readonly list listeners # watched instruments without a pipeline; their slots begin at `capacity`
    cdef list legs          # by pipeline: the instrument of each leg of the plan
    cdef tf_watch *watches  # ordered by the slot that is watched
    cdef uint32_t *first_watch # by slot, one more at the end
    cdef uint32_t watched   # slots that the table covers
    cdef readonly object store
    cdef list readers       # SharedFeatures by pipeline
    cdef object joins       # scope and kinds of events, once join_store was called
    cdef object plan        # what the feature blocks are made of: without normalisation when there is a store
    cdef tf_features *normaliser # NULL without a store
    cdef void *normaliser_block
    cdef size_t normaliser_bytes
    cdef double *row
    cdef void begin(self) noexcept
    cdef bint on_quote(self, const tf_quote *event, bint emit) noexcept
    cdef bint on_trade(self, const tf_trade *event, bint emit) noexcept
    cdef bint on_bar(self, const tf_bar *event, bint emit) noexcept
    cdef bint on_depth(self, const tf_depth10 *event, bint emit) noexcept
    cdef void on_leg(self, const tf_quote *event, bint emit) noexcept
    cdef uint32_t on_external(self, const tf_external *event, bint emit) noexcept
    cdef void prepare(self, uint32_t slot) noexcept
    cdef bint _take_shared(self, tf_pipeline *pipeline, int kind, uint32_t extra, const void *event,
                           uint64_t ts) noexcept
    cdef int _take_other(self, tf_pipeline *pipeline, int kind, uint32_t extra, const void *event, uint64_t ts,
                         bint emit) noexcept
    cdef void _join(self, tf_pipeline *pipeline) noexcept
    cdef int _make_normaliser(self, object plan) except -1
    cdef int _own_block(self, tf_pipeline *pipeline) except -1
    cdef void _catch_up(self, tf_pipeline *pipeline) noexcept
    cdef bint _begins_anew(self, tf_pipeline *pipeline, uint64_t ts) noexcept
    cdef bint _step(self, uint32_t slot, uint64_t ts, bint emit) noexcept
    cdef void _reset(self, tf_pipeline *pipeline) noexcept
    cdef tf_status _place(self, tf_pipeline *pipeline, void *memory) noexcept
    cdef tf_status _save(self, tf_pipeline *pipeline, void *data, size_t size) noexcept
    cdef tf_status _load(self, tf_pipeline *pipeline, const void *data, size_t size) noexcept


cdef class Block:
    cdef void *data
