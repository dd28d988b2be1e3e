from libc.stdint cimport int8_t, int32_t, uint8_t, uint32_t, uint64_t


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

    enum: TF_EXTERNAL_VALUES
    enum: TF_DELTA_ADD
    enum: TF_DELTA_UPDATE
    enum: TF_DELTA_DELETE
    enum: TF_DELTA_CLEAR
    enum: TF_FLAG_LAST
    enum: TF_FLAG_SNAPSHOT

    ctypedef struct tf_delta:
        double price
        double size
        uint64_t order_id
        uint64_t sequence
        uint64_t ts_event
        uint64_t ts_init
        uint32_t slot
        uint8_t action
        int8_t side
        uint8_t flags
        uint8_t reserved

    ctypedef struct tf_external:
        double value[4]
        uint64_t ts_event
        uint64_t ts_init
        uint32_t slot
        uint32_t reserved

    double tf_fixed128(const void *at)
    double tf_fixed64(const void *at)
