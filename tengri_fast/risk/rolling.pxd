from libc.stdint cimport int64_t


cdef class RollingScenarios:
    cdef readonly tuple instrument_ids
    cdef readonly int64_t horizon_ns, step_ns, max_gap_ns, refresh_ns
    cdef readonly int window, max_scenarios, min_scenarios
    cdef readonly object scenarios          # the last ScenarioSet, None before the first
    cdef readonly int64_t backward, invalid
    cdef dict _rows
    cdef Py_ssize_t _count
    cdef int64_t _steps
    cdef int64_t _due
    # Arrays that own the memory, and where it is.
    cdef object _prices, _stamps, _last_ts, _last_mid, _next
    cdef double *prices                     # [instrument][grid index modulo window]
    cdef int64_t *stamps                    # grid index whose price the cell holds, -1: none
    cdef int64_t *last_ts                   # -1: no quote yet
    cdef double *last_mid
    cdef int64_t *next_ts                   # time of the first grid point that is not decided, -1: no quote yet

    cdef void advance(self, Py_ssize_t row, int64_t ts) noexcept nogil
    cdef void feed(self, Py_ssize_t row, double mid, int64_t ts) noexcept nogil
