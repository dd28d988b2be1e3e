from libc.stdint cimport uint64_t


cdef class LatencyHistogram:
    cdef uint64_t counts[41 * 64]
    cdef readonly uint64_t total
    cdef readonly uint64_t maximum
    cdef void record(self, uint64_t nanoseconds) noexcept nogil
