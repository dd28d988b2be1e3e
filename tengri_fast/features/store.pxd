from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tengri_fast.features.capi cimport (
    tf_features,
    tf_features_on_bar,
    tf_features_on_depth,
    tf_features_on_external,
    tf_features_on_leg,
    tf_features_on_quote,
    tf_features_on_trade,
)
from tengri_fast.features.plan cimport FeaturePlan
from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_external, tf_quote, tf_trade

# Kinds of events. The first four are the instrument's own, in the order of a model's clocks.
cdef enum:
    FEED_QUOTE = 0
    FEED_TRADE = 1
    FEED_BAR = 2
    FEED_DEPTH = 3
    FEED_LEG = 4
    FEED_EXTERNAL = 5
    FEEDS = 6
    KEPT = 4        # latest events of each kind that a reader may be late for
    LARGEST = 336   # bytes of the largest event, without the fields behind its times

cdef struct tf_kept:
    uint32_t extra  # what tells equal bytes apart: aggressor, levels, leg or source
    int accepted
    uint8_t event[LARGEST]

cdef struct tf_shared:
    tf_features *features
    double *row
    uint64_t count[FEEDS]       # events applied so far, by kind
    uint64_t first[FEEDS]       # of them, the first that counts since the last wipe
    uint64_t version            # changes of the state
    uint64_t row_version        # the version that `row` is of
    uint64_t rows               # times that a row was computed
    uint64_t epoch              # times that the state was dropped
    uint64_t last_ts
    uint64_t gap
    size_t bytes
    uint32_t readers
    uint32_t left               # readers that asked for a fresh state
    bint by_day
    bint fresh                  # no event since the beginning or the last wipe
    tf_kept kept[FEEDS][KEPT]

cdef struct tf_reader:
    tf_shared *state
    uint64_t seen[FEEDS]
    uint64_t epoch
    bint left


cdef inline int feed(tf_features *features, int kind, uint32_t extra, const void *event) noexcept nogil:
    """One event into a state; `extra` is the number of the leg."""
    if kind == FEED_QUOTE:
        return tf_features_on_quote(features, <const tf_quote *>event)
    if kind == FEED_TRADE:
        return tf_features_on_trade(features, <const tf_trade *>event)
    if kind == FEED_BAR:
        return tf_features_on_bar(features, <const tf_bar *>event)
    if kind == FEED_DEPTH:
        return tf_features_on_depth(features, <const tf_depth10 *>event)
    if kind == FEED_LEG:
        return tf_features_on_leg(features, extra, <const tf_quote *>event)
    return tf_features_on_external(features, <const tf_external *>event)


cdef int reader_take(tf_reader *reader, int kind, uint32_t extra, const void *event, uint64_t ts) noexcept nogil
cdef const double *reader_row(tf_reader *reader) noexcept nogil
cdef void reader_join(tf_reader *reader, const tf_features *own, uint64_t last_ts) noexcept nogil
cdef void reader_leave(tf_reader *reader) noexcept nogil


cdef class SharedState:
    cdef tf_shared c
    cdef readonly FeaturePlan plan
    cdef readonly tuple key
    cdef void *block
    cdef object __weakref__


cdef class SharedFeatures:
    cdef tf_reader reader
    cdef readonly SharedState state
    cdef bint held          # an engine's: nobody else gives events to it or gives it back
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]
    cdef void detach(self) noexcept
    cdef tf_reader *attached(self) except NULL
    cdef tf_reader *giver(self) except NULL


cdef class FeatureStore:
    cdef object _states
    cdef object __weakref__
