# All of the core is found here too: `from tengri_fast.risk.portfolio cimport PortfolioState, tf_risk_order`.
from libc.stdint cimport uint32_t, uint64_t

from tengri_fast.risk.capi cimport *
from tengri_fast.risk.ledger cimport Ledger


cdef class PortfolioState(Ledger):
    cdef object _settings
    cdef object _scenarios
    cdef tuple _stress_names
    cdef uint64_t _rebuild_interval
    cdef str stress_name(self, uint32_t scenario)
    cdef int _demand(self) except -1
    cdef int _demand_scenarios(self) except -1
    cdef double _case_quantity(self, uint32_t i, int which)
