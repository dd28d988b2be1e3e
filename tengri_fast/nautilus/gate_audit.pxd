from libc.stdint cimport uint8_t, uint64_t

from nautilus_trader.model.orders.base cimport Order

from tengri_fast.risk.audit_log cimport AuditLog
from tengri_fast.risk.portfolio cimport tf_risk_order


cdef class GateAudit:
    cdef readonly AuditLog log
    cdef object _waiting    # events of other threads: (name, facts)

    cdef int decided(
        self, Order order, const tf_risk_order *asked, bint reducing, tuple violations, uint8_t action, uint64_t now
    ) except -1
