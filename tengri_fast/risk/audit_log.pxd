from libc.stddef cimport size_t
from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t


cdef extern from "tengri/audit.h" nogil:
    const uint32_t TF_AUDIT_RECORD_MAX
    enum:
        TF_AUDIT_OK
        TF_AUDIT_IO
        TF_AUDIT_NOT_A_LOG
        TF_AUDIT_TOO_LONG
        TF_AUDIT_MEMORY
        TF_AUDIT_LOCKED
        TF_AUDIT_DAMAGED

    ctypedef struct tf_audit:
        pass

    tf_audit *tf_audit_open(const char *path, uint64_t now, const unsigned char *previous, int *status)
    int tf_audit_close(tf_audit *log)
    unsigned char *tf_audit_begin(tf_audit *log, size_t room, int *status)
    void tf_audit_commit(tf_audit *log, uint32_t kind, uint64_t ts, size_t bytes)
    int tf_audit_append(tf_audit *log, uint32_t kind, uint64_t ts, const void *payload, size_t bytes)
    int tf_audit_sync(tf_audit *log)
    uint64_t tf_audit_count(const tf_audit *log)
    uint64_t tf_audit_bytes(const tf_audit *log)
    uint64_t tf_audit_removed(const tf_audit *log)
    const unsigned char *tf_audit_head(const tf_audit *log)


# One decision; texts end with a zero byte, NULL stands for none.
cdef struct tf_decision:
    uint64_t ts
    bint allowed
    bint reducing
    int8_t side
    uint8_t type            # TF_ORDER_*
    uint8_t action          # 0 submit, 1 list, 2 modify
    double quantity
    double price            # NaN: none
    double trigger
    const char *order
    const char *strategy
    const char *instrument
    const char *account
    const char *reason      # empty when allowed


cdef class AuditLog:
    cdef tf_audit *_log
    cdef readonly object path
    cdef readonly str sync
    cdef bint _each
    cdef object _stop
    cdef object _thread
    cdef readonly object failure    # the last error of the background writer, None when there is none

    # Whether the decision is in the log; never raises, so that whoever asks can refuse the order.
    cdef bint decided(self, const tf_decision *decision) noexcept
