from libc.stdint cimport int32_t, uint64_t

from tengri_fast.runtime.engine cimport tf_signal


cdef enum Action:
    HOLD = 0
    ENTER_LONG = 1
    ENTER_SHORT = -1
    EXIT = 2


cdef class DecisionPolicy:
    cdef readonly double fee_bps
    cdef readonly double threshold_bps
    cdef readonly double exit_bps
    cdef readonly double min_confidence
    cdef readonly uint64_t max_holding_ns
    cdef readonly uint64_t cooldown_ns
    cdef uint64_t entered_at
    cdef uint64_t left_at
    cdef int32_t side
    cdef int decide(self, const tf_signal *signal, int position_side, bint order_in_flight) noexcept
