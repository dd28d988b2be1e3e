"""The gate's prices: what each instrument trades at, and what each currency is worth.

*Reference.* The best prices of the last usable quote. Trades and bars serve while there never was a quote. A quote that
is crossed or one-sided takes the reference away until a usable one comes; positions keep their last good mark.

*Rates.* They are those of Nautilus' cache. Asking it costs microseconds, so a rate is asked for once and told from then
on from the mid of the instrument that it comes from; one that comes from several is asked for again when the price of a
pair has moved.
"""

from libc.math cimport NAN, fabs
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from tengri_fast.errors import ConfigurationError

from nautilus_trader.cache.base cimport CacheFacade
from nautilus_trader.model.identifiers cimport InstrumentId
from nautilus_trader.model.instruments.base cimport Instrument
from nautilus_trader.model.instruments.crypto_perpetual cimport CryptoPerpetual
from nautilus_trader.model.instruments.currency_pair cimport CurrencyPair
from nautilus_trader.model.objects cimport Currency

from tengri_fast.market.reader cimport TickReader
from tengri_fast.risk.portfolio cimport TF_QUOTE_BACKWARD, PortfolioState, tf_risk_on_last, tf_risk_on_rate

cdef enum:
    END = 0xFFFFFFFF


cdef class GatePrices:
    """Prices by instrument and rates by currency.

    Parameters
    ----------
    cache : CacheFacade
        Where instruments are found, and where rates come from.
    base : Currency
        What rates are told in.
    quotes : bool
        Whether the caller hands in every quote of the instruments that it adds.
    state : PortfolioState
        Told of every price and rate; knows the instruments under the same numbers.

    Attributes
    ----------
    count : int
        Instruments.
    currencies : int
        Currencies whose rate is kept, the base currency among them.
    """

    def __cinit__(self, CacheFacade cache, Currency base, bint quotes, PortfolioState state):
        self._cache = cache
        self._state = state
        self._base = base
        self._quotes = quotes
        self.reader = TickReader()
        self.first_dirty = END
        self.ids = []
        self.names = []
        self.instruments = []
        self.index = {}
        self._currency_index = {}
        self._currency_list = []
        self.currency(base)

    def __dealloc__(self):
        free(self.marks)
        free(self.rates)

    def __reduce__(self):
        raise TypeError("GatePrices cannot be pickled: they belong to one gate")

    # ---- instruments ---------------------------------------------------------------------------------------------

    cdef int32_t add(self, Instrument instrument) except -1:
        """Number of a new instrument."""
        cdef InstrumentId instrument_id = instrument.id
        cdef uint32_t room, number = self.count
        cdef tf_mark *larger
        cdef tf_mark *mark
        if number == self.room:
            room = max(<uint32_t>16, 2 * self.room)
            larger = <tf_mark *>realloc(self.marks, room * sizeof(tf_mark))
            if larger == NULL:
                raise MemoryError("no memory for the gate's instruments")
            self.marks = larger
            self.room = room
        # Reader, rules and marks count their instruments alike, so one number serves all.
        if <uint32_t>self.reader.slots.register(instrument_id.value) != number or (
            self._state.instrument(instrument_id.value) != number
        ):
            raise ConfigurationError(f"`instrument_id` must be registered once, was {instrument_id}")
        mark = &self.marks[number]
        memset(mark, 0, sizeof(tf_mark))
        mark.bid = NAN
        mark.ask = NAN
        mark.binary = type(instrument).__name__ == "BinaryOption"
        mark.converts = isinstance(instrument, (CurrencyPair, CryptoPerpetual))
        self.count = number + 1
        self.ids.append(instrument_id)
        self.names.append(instrument_id.value)
        self.instruments.append(instrument)
        self.index[instrument_id] = <int32_t>number
        mark.settlement = self.currency(instrument.get_settlement_currency())
        mark.cost = self.currency(instrument.get_cost_currency())
        self._look_again = True
        return <int32_t>number

    def _look_for_unseen(self):
        """Whether the cache has instruments that rates may come from and whose quotes nobody hands in."""
        self._look_again = False
        self._unseen = not self._quotes or any(
            isinstance(instrument, (CurrencyPair, CryptoPerpetual)) and instrument.id not in self.index
            for instrument in (<object>self._cache).instruments()
        )

    # ---- prices --------------------------------------------------------------------------------------------------

    cdef void keep_quote(self, uint32_t number, double bid, double ask, uint64_t ts) noexcept:
        """Keep the best prices of an instrument; one that is older than the last is dropped."""
        cdef tf_mark *mark = &self.marks[number]
        # Nobody bids for a binary that looks lost, and its price is 0 then.
        cdef bint valid = bid <= ask and is_price(ask) and (bid > 0.0 or (mark.binary and bid == 0.0))
        if valid:
            if self._state.put_quote(number, bid, ask, ts) == TF_QUOTE_BACKWARD:
                return
            # Kept beside what the rules know: positions keep their last good mark while the quote is unusable.
            mark.bid = bid
            mark.ask = ask
            if self.rolling is not None:
                self.rolling.feed(number, bid + 0.5 * (ask - bid), <int64_t>ts)
        elif self._state.put_quote(number, NAN, NAN, ts) == TF_QUOTE_BACKWARD:
            return
        mark.quoted = True
        mark.valid = valid
        self.rates_stale |= mark.converts
        if mark.held and not mark.dirty:
            mark.dirty = True
            mark.next_dirty = self.first_dirty
            self.first_dirty = number

    cdef void keep_last(self, uint32_t number, double price, uint64_t ts) noexcept:
        """Keep a traded price, which stands for the quote while there never was one."""
        cdef tf_mark *mark = &self.marks[number]
        cdef bint quoted = mark.quoted
        if not is_price(price):
            price = NAN
        else:
            tf_risk_on_last(self._state.core, number, price)
        if not quoted:
            self.keep_quote(number, price, price, ts)
            mark.quoted = False

    # ---- rates ---------------------------------------------------------------------------------------------------

    cdef uint32_t currency(self, Currency currency) except? 0xFFFFFFFF:
        """Number of a currency, a new one if it has none."""
        cdef str code = currency.code
        cdef uint32_t room, number
        cdef tf_rate *larger
        found = self._currency_index.get(code)
        if found is not None:
            return found
        number = self.currencies
        if number == self.rate_room:
            room = max(<uint32_t>8, 2 * self.rate_room)
            larger = <tf_rate *>realloc(self.rates, room * sizeof(tf_rate))
            if larger == NULL:
                raise MemoryError("no memory for the gate's currencies")
            self.rates = larger
            self.rate_room = room
        self.rates[number].value = 1.0 if number == 0 else NAN
        self.rates[number].source = -1
        self.rates[number].inverted = False
        self._currency_list.append(currency)
        self._currency_index[code] = number
        self.currencies = number + 1
        self.rates_stale = True
        return number

    cdef double rate(self, uint32_t currency) noexcept:
        """Value of one unit in base currency as of the last refresh, NaN while unknown."""
        return self.rates[currency].value

    cdef int refresh_rates(self) except -1:
        """Bring the rates up to date; cheap when nothing that they come from has moved."""
        cdef tf_rate *rate
        cdef tf_mark *mark
        cdef double value
        cdef uint32_t i
        if self.currencies == 1:
            return 0
        if self._look_again:
            self._look_for_unseen()
        if not (self.rates_stale or self._unseen):
            return 0
        self.rates_stale = False
        for i in range(1, self.currencies):
            rate = &self.rates[i]
            if rate.source >= 0:
                mark = &self.marks[rate.source]
                value = mark.bid + 0.5 * (mark.ask - mark.bid)
                if rate.inverted:
                    value = 1.0 / value
            else:
                value = self._ask(self._currency_list[i])
                self._find_source(i, value)
                rate = &self.rates[i]
                # A rate that is not known may become so in ways that no price announces.
                self.rates_stale |= value != value
            if not (value == rate.value or (value != value and rate.value != rate.value)):
                rate.value = value
                self.rate_version += 1
                tf_risk_on_rate(self._state.core, self._state.currency(self._currency_list[i].code), value)
        return 0

    cdef double _ask(self, Currency currency) except? -1.0:
        """What Nautilus says; NaN when it does not know. The first venue that knows is believed."""
        cdef set venues = set()
        for instrument_id in self.ids:
            venue = (<InstrumentId>instrument_id).venue
            if venue in venues:
                continue
            venues.add(venue)
            found = (<object>self._cache).get_xrate(venue, currency, self._base)
            if found:
                return float(found)
        return NAN

    cdef void _find_source(self, uint32_t number, double asked):
        """Find the instrument whose mid is this rate."""
        cdef Currency currency = self._currency_list[number]
        cdef tf_mark *mark
        cdef double mid
        cdef uint32_t i
        if asked != asked or not self._quotes:
            return
        for i in range(self.count):
            mark = &self.marks[i]
            if not mark.converts or not mark.valid or not mark.quoted:
                continue
            pair = {self.instruments[i].base_currency.code, self.instruments[i].quote_currency.code}
            if pair != {currency.code, self._base.code}:
                continue
            mid = mark.bid + 0.5 * (mark.ask - mark.bid)
            for inverted in (False, True):
                value = 1.0 / mid if inverted else mid
                if fabs(value - asked) <= 1e-9 * asked:
                    self.rates[number].source = <int32_t>i
                    self.rates[number].inverted = inverted
                    return

    # ---- questions -----------------------------------------------------------------------------------------------

    def rate_of(self, code):
        """Value of one unit of a currency in base currency, NaN while unknown."""
        found = self._currency_index.get(code)
        return NAN if found is None else self.rates[<uint32_t>found].value
