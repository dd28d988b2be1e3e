from libc.stdint cimport uint32_t

from tengri_fast.market.events cimport tf_bar, tf_depth10, tf_quote, tf_trade
from tengri_fast.market.layout cimport tf_layout
from tengri_fast.market.slots cimport InstrumentSlots


cdef class TickReader:
    # Fill `out` from a market data object: 0 on success, -1 with DataConversionError set. A type whose layout was probed
    # is read in place; any other object is read through its attributes. `slot` is TF_SLOT_UNKNOWN when not registered.
    cdef readonly InstrumentSlots slots
    cdef int read_quote(self, object tick, tf_quote *out) except -1
    cdef int read_trade(self, object tick, tf_trade *out) except -1
    cdef int read_bar(self, object bar, tf_bar *out) except -1
    cdef int read_depth(self, object depth, tf_depth10 *out) except -1


cdef class QuoteView:
    cdef tf_quote data
    cdef readonly TickReader reader
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]


cdef class TradeView:
    cdef tf_trade data
    cdef readonly TickReader reader
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]


cdef TickReader reader

# The layout of a kind for the rest of the process; without a type while its objects are read through attributes.
cdef const tf_layout *installed_layout(int kind) noexcept nogil
