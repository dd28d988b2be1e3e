from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tengri_fast.risk.limit_table cimport LimitTable, tf_ask, tf_health, tf_limits, tf_verdict, tf_violation, tf_warning
from tengri_fast.risk.portfolio cimport PortfolioState, tf_risk_order


# How an order is examined, see RiskGate.ask.
cpdef enum:
    ASK_MODIFY = 1      # a change of a working order: a message, not an order
    ASK_CALMER = 2      # only takes risk off: integrity rules
    ASK_EXIT_ONLY = 4   # a reduce-only exit that its entry in the same list covers
    ASK_COVERED = 8     # an exit whose value was asked with its entry
    ASK_DRY = 16        # nothing is counted


cdef class RiskGate(LimitTable):
    cdef readonly tuple extra_rules
    cdef readonly bint plain            # no extra rules: ask() is the whole examination
    cdef tf_verdict _verdict
    cdef bint _warm
    cdef dict _sources                  # strategy handle -> source of health
    cdef dict _denied
    cdef uint64_t _checked
    cdef uint64_t _allowed
    cdef str _failure                   # of the last examination that failed inside

    cdef const tf_verdict *ask(self, const tf_risk_order *order, double filled, uint64_t name, unsigned flags) noexcept
    cdef object verdict(self, const tf_verdict *verdict, const tf_risk_order *order, object view=*)
    cdef void _examine(self, const tf_risk_order *order, double filled, uint64_t name, unsigned flags) noexcept
    cdef int _prepare(self, const tf_risk_order *order, tf_ask *ask, tf_health *health) except -1
    cdef object _check_view(self, object view, unsigned flags)
    cdef object _ask_extra(self, object view, tf_risk_order *order, double filled, uint64_t name, unsigned flags)
    cdef object _examine_list(self, list orders, object calmer)
    cdef object _violation(self, const tf_violation *violation, const tf_risk_order *order, object view)
    cdef object _finish(self, object verdict, Py_ssize_t orders)
