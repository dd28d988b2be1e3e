from libc.stdint cimport uint32_t

from tengri_fast.market.book cimport tf_book
from tengri_fast.market.events cimport tf_delta

# The route to the changes inside a boxed list of order book deltas; one for the whole process.

cdef bint deltas_installed() noexcept
cdef bint deltas_in_place(object value) noexcept
cdef void switch_deltas(bint on) noexcept
cdef void forget_deltas() noexcept

# The reason why not, or an empty text and the offsets of the fields in `offsets`.
cdef str install_deltas(str library, str vector_of, str drop, type deltas_type, type delta_type, object sentinel,
                        list expected, dict offsets)
cdef object read_deltas(object value)

# Apply every change of a list to a book, with no Python object in between where the layout is known. Fills `last` with
# the last change (zeros for an empty list); the answer is all their flags together.
cdef int feed_deltas(object value, uint32_t slot, tf_book *book, tf_delta *last) except -1
