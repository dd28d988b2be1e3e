from libc.stdint cimport uint32_t

from tengri_fast.market.book cimport OrderBookL2
from tengri_fast.market.events cimport tf_depth10


cdef class DeltaBooks:
    cdef readonly str book_type
    cdef list _live                 # OrderBookL2 by slot, begun from the managed book
    cdef list _own                  # OrderBookL2 by slot, begun empty
    cdef bytearray _follows         # by slot: the live book has all that the managed one has
    cdef bytearray _marked          # by slot: the feed marks the ends of its events
    cdef bytearray _told            # by slot: bits of the states that were logged
    cdef OrderBookL2 _book_of(self, uint32_t slot, bint historical)
    cdef OrderBookL2 _begin(self, uint32_t slot, object managed)
    cdef bint read(self, object deltas, uint32_t slot, bint historical, object cache, object log,
                   tf_depth10 *out) except -1
