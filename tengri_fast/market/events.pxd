from libc.stdint cimport int32_t, uint32_t, uint64_t


cdef extern from "tengri/events.h" nogil:
    enum: TF_DEPTH_LEVELS
    const uint32_t TF_SLOT_UNKNOWN

    ctypedef struct tf_quote:
        double bid_price
        double ask_price
        double bid_size
        double ask_size
        uint64_t ts_event
        uint64_t ts_init
        uint32_t slot
        uint32_t reserved

    ctypedef struct tf_trade:
        double price
        double size
        uint64_t ts_event
        uint64_t ts_init
        uint32_t slot
        int32_t aggressor

    ctypedef struct tf_bar:
        double open
        double high
        double low
        double close
        double volume
        uint64_t ts_event
        uint64_t ts_init
        uint32_t slot
        uint32_t reserved

    ctypedef struct tf_depth10:
        double bid_price[10]
        double bid_size[10]
        double ask_price[10]
        double ask_size[10]
        uint64_t ts_event
        uint64_t ts_init
        uint32_t slot
        uint32_t levels

    double tf_fixed128(const void *at)
    double tf_fixed64(const void *at)
