from libc.stdint cimport uint32_t, uint64_t

from nautilus_trader.accounting.accounts.base cimport Account
from nautilus_trader.cache.cache cimport Cache
from nautilus_trader.model.events.account cimport AccountState
from nautilus_trader.model.identifiers cimport PositionId
from nautilus_trader.model.objects cimport AccountBalance, Money
from nautilus_trader.model.position cimport Position

from tengri_fast.nautilus.gate_prices cimport GatePrices


# An open position, and what it adds to the equity.
cdef struct tf_holding:
    double quantity         # signed
    double entry            # average price at which it was opened
    double multiplier
    double value            # in base currency, NaN while unknown
    uint32_t mark
    uint32_t name           # the portfolio's
    uint32_t currency
    uint32_t next           # of the same instrument
    bint inverse
    bint whole              # counts with its worth and not with its result: that of a cash account
    bint banked             # is in the balances already, and adds nothing
    bint used


cdef class GateAccounts:
    cdef GatePrices _prices
    cdef Cache _cache
    cdef tf_holding *_holdings
    cdef uint32_t _room
    cdef uint32_t _top      # places that were ever used
    cdef uint32_t *_heads   # first holding, by instrument
    cdef uint32_t _head_room
    cdef list _free
    cdef readonly dict held # PositionId -> Position, the open ones
    cdef dict _places       # PositionId -> place
    cdef list _accounts     # as last looked at
    cdef list _latest       # the latest event of each when its balances were read
    cdef list _totals       # and the totals, Money
    cdef dict _cash_accounts # AccountId -> whether coins are balances of it
    cdef list _balances     # (currency number, amount) of every account
    cdef double _cash       # of all balances, NaN while unknown
    cdef double _worth      # of all holdings whose value is known
    cdef uint32_t _unknown  # holdings whose value is not known
    cdef uint32_t _changes  # since the worth was added up anew
    cdef uint64_t _rate_version
    cdef bint _stale        # balances must be read again
    cdef bint _settled      # nothing has changed since the equity was last told
    cdef void clear(self)
    cdef void balances_changed(self) noexcept
    cdef int look(self) except -1
    cdef double quantity(self, PositionId position_id) except? -1.0
    cdef uint32_t name(self, PositionId position_id) except? 0xFFFFFFFF
    cdef int hold(self, Position position, uint32_t mark, uint32_t name) except -1
    cdef int release(self, Position position) except -1
    cdef void _price_moved(self, uint32_t mark) noexcept
    cdef void _revalue(self, tf_holding *holding) noexcept
    cdef void _add_up(self) noexcept
    cdef int _read_balances(self) except -1
    cdef double equity(self) except? -1.0


cdef inline bint says_nothing_new(GateAccounts accounts, Py_ssize_t number, AccountState event):
    """Whether an account's event tells the totals that were read last; then there is no need to read them."""
    cdef list known = accounts._totals[number]
    cdef list told
    cdef Money was, now
    cdef Py_ssize_t i
    if known is None or event is None:
        return False
    told = event.balances
    if len(told) != len(known):
        return False
    for i in range(len(told)):
        was = known[i]
        now = (<AccountBalance>told[i]).total
        if now._mem.raw != was._mem.raw or now._mem.currency.code != was._mem.currency.code:
            return False
    accounts._latest[number] = event
    return True


cdef inline bint is_settled(GateAccounts accounts):
    """Whether the equity is what it was when it was last told."""
    cdef AccountState latest
    cdef Py_ssize_t i
    if accounts._stale or not accounts._settled or accounts._prices.first_dirty != 0xFFFFFFFF or (
        accounts._rate_version != accounts._prices.rate_version
    ):
        return False
    if len(accounts._accounts) != len(accounts._cache._accounts):
        return False
    for i in range(len(accounts._accounts)):
        latest = (<Account>accounts._accounts[i]).last_event_c()
        if latest is not accounts._latest[i] and not says_nothing_new(accounts, i, latest):
            accounts._stale = True
            return False
    return True
