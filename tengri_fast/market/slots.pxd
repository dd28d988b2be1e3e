from libc.stdint cimport uint32_t, uint64_t


cdef struct tf_slot_cache:
    const char *symbol
    const char *venue
    uint32_t slot


cdef class InstrumentSlots:
    cdef const char **texts             # symbol and venue of each slot, alternating
    cdef readonly uint32_t capacity
    cdef readonly uint32_t count
    cdef readonly uint64_t misses       # look-ups that the pointer cache could not answer
    cdef tf_slot_cache cache[256]
    cdef list _names
    cdef list _bytes
    cdef dict _by_name
    cdef uint32_t lookup(self, const char *symbol, const char *venue) noexcept nogil
