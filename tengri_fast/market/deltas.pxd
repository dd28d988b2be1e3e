# The route to the changes inside a boxed list of order book deltas; one for the whole process.

cdef bint deltas_installed() noexcept
cdef bint deltas_in_place(object value) noexcept
cdef void switch_deltas(bint on) noexcept
cdef void forget_deltas() noexcept

# The reason why not, or an empty text and the offsets of the fields in `offsets`.
cdef str install_deltas(str library, str vector_of, str drop, type deltas_type, type delta_type, object sentinel,
                        list expected, dict offsets)
cdef object read_deltas(object value)
