from libc.stdint cimport int32_t, uint32_t, uint64_t

from nautilus_trader.common.actor cimport Actor
from nautilus_trader.model.identifiers cimport InstrumentId

from tengri_fast.market.reader cimport TickReader
from tengri_fast.nautilus.gate_prices cimport GatePrices
from tengri_fast.risk.gate cimport RiskGate
from tengri_fast.risk.portfolio cimport PortfolioState


cdef class GateMarket(Actor):
    cdef readonly RiskGate gate         # the rules
    cdef readonly PortfolioState state  # positions, working orders and prices as the rules see them
    cdef public object alert            # called with one text when a person should look; None: log only
    cdef TickReader _reader
    cdef object _inputs                 # return scenarios and stress scenarios
    cdef GatePrices _prices             # None before the start
    cdef bint _wants_mids               # the rules ask for every mid price
    cdef volatile int _kill_wanted      # set by any thread, cleared by the node's thread

    cdef int32_t _follow(self, InstrumentId instrument_id) except -1
    cdef void _quote(self, uint32_t number, double bid, double ask, uint64_t ts) noexcept
    cdef void _last(self, uint32_t number, double price, uint64_t ts) noexcept
    cdef void _complain(self, str text)
    cdef void _attend(self)
