"""The gate's accounts: equity in base currency, kept up event by event.

Equity is the sum of balances and of what open positions add: in a margin account their unrealised result, in a cash
account their worth, because there the price was paid out of the balance (but nothing for coins that are a balance
themselves, which Nautilus' own ``Portfolio.equity`` counts twice). A long position is taken at the bid, a short
one at the ask. It is NaN, and orders that add risk are refused where a rule needs it, while there is no account, or a
price or rate of something held is not known.

Account events are not subscribed to: one follows every accepted order and says nothing new. Each check looks instead
whether an account has another latest event, and reads its balances when that tells other totals. Positions are valued
when they or their price have changed.
"""

from libc.math cimport NAN
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from nautilus_trader.accounting.accounts.base cimport Account
from nautilus_trader.cache.cache cimport Cache
from nautilus_trader.model.identifiers cimport PositionId
from nautilus_trader.model.objects cimport AccountBalance
from nautilus_trader.model.position cimport Position

from tengri_fast.nautilus.gate_names cimport NO_NUMBER
from tengri_fast.nautilus.gate_prices cimport GatePrices, tf_mark

cdef enum:
    END = 0xFFFFFFFF
    ADD_UP_AFTER = 1024     # changes, so that rounding does not gather


cdef class GateAccounts:
    """Balances, open positions and the equity that they make.

    Parameters
    ----------
    cache : Cache
        Where accounts are found.
    prices : GatePrices
        What positions and currencies are worth.

    Attributes
    ----------
    held : dict of PositionId to Position
        The open positions.
    """

    def __cinit__(self, Cache cache, GatePrices prices):
        self._cache = cache
        self._prices = prices
        self.clear()

    def __dealloc__(self):
        free(self._holdings)
        free(self._heads)

    def __reduce__(self):
        raise TypeError("GateAccounts cannot be pickled: they belong to one gate")

    cdef void clear(self):
        """Forget everything but the prices."""
        cdef uint32_t i
        self.held = {}
        self._places = {}
        self._accounts = []
        self._latest = []
        self._totals = []
        self._free = []
        self._cash_accounts = {}
        self._balances = []
        self._top = 0
        for i in range(self._head_room):
            self._heads[i] = END
        self._cash = NAN
        self._worth = 0.0
        self._unknown = 0
        self._changes = 0
        self._stale = True

    # ---- balances ------------------------------------------------------------------------------------------------

    cdef void balances_changed(self) noexcept:
        """Something moved money, a fill say: read the balances again when they are needed."""
        self._stale = True

    cdef int look(self) except -1:
        """See what accounts there are, and take them for changed when there is another one."""
        self._accounts = list(self._cache._accounts.values())
        self._latest = [None] * len(self._accounts)
        self._totals = [None] * len(self._accounts)
        self._stale = True
        return 0

    cdef int _read_balances(self) except -1:
        """The balances of all accounts as they now are."""
        cdef dict cash_accounts = {}
        cdef list found = []
        cdef Account account
        cdef AccountBalance balance
        cdef double amount
        cdef Py_ssize_t i
        cdef uint32_t place
        for i in range(len(self._accounts)):
            account = self._accounts[i]
            self._latest[i] = account.last_event_c()
            self._totals[i] = [(<AccountBalance>entry).total for entry in account._balances.values()]
            if not account.is_margin_account:
                cash_accounts[account.id] = account.base_currency is None
            for balance in account._balances.values():
                amount = balance.total.as_f64_c()
                if amount != 0.0:
                    found.append((self._prices.currency(balance.currency), amount))
        self._balances = found if self._accounts else None
        if cash_accounts != self._cash_accounts:
            # Positions were taken for those of another kind of account.
            self._cash_accounts = cash_accounts
            for position in list(self.held.values()):
                place = self._places[(<Position>position).id]
                self.hold(position, self._holdings[place].mark, self._holdings[place].name)
        self._stale = False
        return 0

    # ---- positions -----------------------------------------------------------------------------------------------

    cdef double quantity(self, PositionId position_id) except? -1.0:
        """Signed quantity of a position as it was last counted, 0 when it is not held."""
        found = self._places.get(position_id)
        return 0.0 if found is None else self._holdings[<uint32_t>found].quantity

    cdef uint32_t name(self, PositionId position_id) except? 0xFFFFFFFF:
        """The portfolio's name of a position, which is valid while it is held; NO_NUMBER when it is not."""
        found = self._places.get(position_id)
        return <uint32_t>NO_NUMBER if found is None else self._holdings[<uint32_t>found].name

    cdef int hold(self, Position position, uint32_t mark, uint32_t name) except -1:
        """Count a position as it now is; `name` is the portfolio's."""
        cdef tf_holding *larger
        cdef tf_holding *holding
        cdef uint32_t *heads
        cdef uint32_t i, place, room
        found = self._places.get(position.id)
        if found is not None:
            place = found
        else:
            if mark >= self._head_room:
                room = max(<uint32_t>16, 2 * mark)
                heads = <uint32_t *>realloc(self._heads, room * sizeof(uint32_t))
                if heads == NULL:
                    raise MemoryError("no memory for the gate's positions")
                for i in range(self._head_room, room):
                    heads[i] = END
                self._heads = heads
                self._head_room = room
            if self._free:
                place = self._free.pop()
            else:
                if self._top == self._room:
                    room = max(<uint32_t>16, 2 * self._room)
                    larger = <tf_holding *>realloc(self._holdings, room * sizeof(tf_holding))
                    if larger == NULL:
                        raise MemoryError("no memory for the gate's positions")
                    self._holdings = larger
                    self._room = room
                place = self._top
                self._top += 1
            self._places[position.id] = place
            holding = &self._holdings[place]
            holding.used = True
            holding.mark = mark
            holding.value = 0.0
            holding.next = self._heads[mark]
            self._heads[mark] = place
            self._prices.marks[mark].held = True
        self.held[position.id] = position
        holding = &self._holdings[place]
        holding.name = name
        holding.quantity = position.signed_qty
        holding.entry = position.avg_px_open
        holding.multiplier = position.multiplier.as_f64_c()
        holding.inverse = position.is_inverse
        holding.whole = bool(self._cash_accounts) and position.account_id in self._cash_accounts
        # An account of many currencies was credited with the coins.
        holding.banked = holding.whole and position.is_spot_currency and self._cash_accounts[position.account_id]
        holding.currency = self._prices.marks[mark].cost if holding.whole else self._prices.marks[mark].settlement
        self._revalue(holding)
        return 0

    cdef int release(self, Position position) except -1:
        """A position is closed."""
        cdef tf_holding *holding
        cdef uint32_t place
        cdef uint32_t *link
        found = self._places.pop(position.id, None)
        if found is None:
            return 0
        self.held.pop(position.id, None)
        place = found
        holding = &self._holdings[place]
        holding.quantity = 0.0
        self._revalue(holding)
        link = &self._heads[holding.mark]
        while link[0] != place:
            link = &self._holdings[link[0]].next
        link[0] = holding.next
        self._prices.marks[holding.mark].held = self._heads[holding.mark] != END
        holding.used = False
        self._free.append(place)
        return 0

    cdef void _price_moved(self, uint32_t mark) noexcept:
        """Value the positions of an instrument anew."""
        cdef uint32_t place = self._heads[mark] if mark < self._head_room else <uint32_t>END
        while place != END:
            self._revalue(&self._holdings[place])
            place = self._holdings[place].next

    cdef void _revalue(self, tf_holding *holding) noexcept:
        cdef const tf_mark *mark = &self._prices.marks[holding.mark]
        cdef double price = mark.bid if holding.quantity > 0.0 else mark.ask
        cdef double value
        if holding.quantity == 0.0 or holding.banked:
            value = 0.0
        elif holding.inverse:
            value = 1.0 / price if holding.whole else 1.0 / holding.entry - 1.0 / price
        else:
            value = price if holding.whole else price - holding.entry
        if value != 0.0:
            value *= self._prices.rate(holding.currency) * holding.quantity * holding.multiplier
        if holding.value == holding.value:
            self._worth -= holding.value
        else:
            self._unknown -= 1
        if value == value:
            self._worth += value
        else:
            self._unknown += 1
        holding.value = value
        self._settled = False
        self._changes += 1
        if self._changes >= ADD_UP_AFTER:
            self._add_up()

    cdef void _add_up(self) noexcept:
        cdef uint32_t i
        self._worth = 0.0
        self._unknown = 0
        self._changes = 0
        for i in range(self._top):
            if not self._holdings[i].used:
                continue
            if self._holdings[i].value == self._holdings[i].value:
                self._worth += self._holdings[i].value
            else:
                self._unknown += 1

    # ---- equity --------------------------------------------------------------------------------------------------

    cdef double equity(self) except? -1.0:
        """Equity in base currency, NaN while unknown; rates are those of the last refresh."""
        cdef GatePrices prices = self._prices
        cdef uint32_t i
        cdef bint moved = self._rate_version != prices.rate_version
        if len(self._accounts) != len(self._cache._accounts):
            self.look()
        if self._stale:
            self._read_balances()
            prices.refresh_rates()  # a balance may have brought a new currency
            moved = True
        while prices.first_dirty != END:
            i = prices.first_dirty
            prices.first_dirty = prices.marks[i].next_dirty
            prices.marks[i].dirty = False
            self._price_moved(i)
        if moved:
            self._rate_version = prices.rate_version
            for i in range(self._top):
                if self._holdings[i].used:
                    self._revalue(&self._holdings[i])
            self._cash = 0.0 if self._balances is not None else NAN
            for number, amount in self._balances or ():
                self._cash += <double>amount * prices.rate(number)
        self._settled = True
        return NAN if self._unknown else self._cash + self._worth
