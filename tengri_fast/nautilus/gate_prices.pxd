from libc.stdint cimport int32_t, uint32_t, uint64_t

from nautilus_trader.cache.base cimport CacheFacade
from nautilus_trader.model.identifiers cimport InstrumentId
from nautilus_trader.model.instruments.base cimport Instrument
from nautilus_trader.model.objects cimport Currency

from tengri_fast.market.reader cimport TickReader
from tengri_fast.risk.rolling cimport RollingScenarios
from tengri_fast.risk.portfolio cimport PortfolioState


# The last prices of one instrument.
cdef struct tf_mark:
    double bid              # of the last usable quote, or the last price while there was no quote; NaN before
    double ask
    uint32_t settlement     # currency that it settles in
    uint32_t cost           # currency that it is paid in
    uint32_t next_dirty     # of those of which positions have not been valued since
    bint valid              # whether the last quote is usable
    bint quoted             # whether there ever was a quote
    bint dirty
    bint binary             # worth 0 to 1
    bint converts           # its price may be part of an exchange rate
    bint held               # a position of it is open


# One currency and what a unit of it is worth in base currency.
cdef struct tf_rate:
    double value            # NaN while unknown
    int32_t source          # the mark whose mid it is, -1: Nautilus is asked
    bint inverted           # the other way round


cdef inline bint is_price(double price) noexcept nogil:
    """Whether a number is a price: the bound is the feature engine's, far below what Nautilus sends for "undefined"."""
    return 0.0 < price <= 1e18


cdef class GatePrices:
    cdef tf_mark *marks     # by instrument
    cdef readonly uint32_t count
    cdef uint32_t room
    cdef uint32_t first_dirty
    cdef tf_rate *rates     # by currency; the first is the base currency
    cdef readonly uint32_t currencies
    cdef uint32_t rate_room
    cdef uint64_t rate_version # raised whenever a rate has another value
    cdef bint rates_stale
    cdef bint _look_again   # instruments were added since
    cdef bint _unseen       # a price that moves a rate is not followed: rates are asked for at each check
    cdef readonly TickReader reader
    cdef list ids           # InstrumentId by instrument
    cdef list names         # str by instrument
    cdef list instruments   # Instrument by instrument
    cdef dict index         # InstrumentId -> number
    cdef dict _currency_index # code -> number
    cdef list _currency_list
    cdef CacheFacade _cache
    cdef PortfolioState _state
    cdef Currency _base
    cdef bint _quotes       # quotes are followed
    cdef public RollingScenarios rolling # collects mids for scenarios, or None; knows the first instruments
    cdef void keep_quote(self, uint32_t number, double bid, double ask, uint64_t ts) noexcept
    cdef void keep_last(self, uint32_t number, double price, uint64_t ts) noexcept
    cdef int32_t add(self, Instrument instrument) except -1
    cdef uint32_t currency(self, Currency currency) except? 0xFFFFFFFF
    cdef double rate(self, uint32_t currency) noexcept
    cdef int refresh_rates(self) except -1
    cdef double _ask(self, Currency currency) except? -1.0
    cdef void _find_source(self, uint32_t number, double asked)
