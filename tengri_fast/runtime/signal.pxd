from libc.stdint cimport int32_t, uint32_t, uint64_t


cdef struct tf_signal:
    double value            # expected mid return over the horizon, bps, + is up
    double probability[3]   # down, flat, up
    double confidence       # calibrated maximum probability
    double mid
    double spread
    uint64_t ts_event
    uint64_t computed_at    # wall clock, ns; 0 unless stamping is on
    uint64_t latency        # tick to signal, ns; 0 unless stamping is on
    uint64_t horizon        # ns, or a count of events
    uint64_t sequence       # signals of this instrument so far
    uint32_t slot
    int32_t rung            # 0 model, 4 flat


cdef class NeuralSignal:
    cdef tf_signal data
    cdef readonly str model_id
    cdef readonly str model_hash
    cdef readonly str feature_hash
    cdef list names
    cdef readonly str horizon_unit
    cpdef NeuralSignal copy(self)
