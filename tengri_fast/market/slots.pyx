"""Small numbers for instruments, so that the hot path indexes an array instead of hashing a text.

Nautilus interns the texts of an instrument id, but each of its shared libraries has an interner of its own: one instrument
can come with several pointers. So a pair of pointers is only a key into a cache; a pair not seen before is compared as
text. Interned texts are never freed, which is what makes a cached pair safe to trust.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset, strcmp

from tengri_fast.market.events cimport TF_SLOT_UNKNOWN

import difflib

from tengri_fast.errors import DataConversionError

cdef enum:
    CACHE = 256


cdef inline uint32_t place(const char *symbol, const char *venue) noexcept nogil:
    cdef uint64_t key = (<uint64_t><size_t>symbol) ^ ((<uint64_t><size_t>venue) << 17 | (<uint64_t><size_t>venue) >> 47)
    return <uint32_t>((key * <uint64_t>0x9E3779B97F4A7C15) >> 56)


cdef class InstrumentSlots:
    """Instrument ids such as "BTCUSDT-PERP.BINANCE" in order of registration.

    Attributes
    ----------
    count : int
        Instruments registered.
    misses : int
        Look-ups by pointer that had to compare texts.
    """

    def __cinit__(self):
        self._names = []
        self._bytes = []
        self._by_name = {}
        memset(self.cache, 0, sizeof(self.cache))

    def __dealloc__(self):
        free(self.texts)

    def __len__(self):
        return self.count

    def __contains__(self, instrument_id):
        return str(instrument_id) in self._by_name

    def __repr__(self):
        return f"InstrumentSlots({self._names})"

    def __reduce__(self):
        raise TypeError("InstrumentSlots cannot be pickled: register the names again")

    @property
    def names(self):
        """Instrument ids by slot."""
        return tuple(self._names)

    def register(self, instrument_id):
        """The slot of an instrument, a new one if it has none.

        Parameters
        ----------
        instrument_id : str
            "SYMBOL.VENUE"; the venue follows the last dot. An object whose ``str()`` is such a text works too.

        Raises
        ------
        DataConversionError
            If the text is not of this form.
        """
        cdef uint32_t capacity
        cdef const char **grown
        text = str(instrument_id)
        if text in self._by_name:
            return self._by_name[text]
        symbol, _, venue = text.rpartition(".")
        if not symbol or not venue or "\0" in text:
            raise DataConversionError(f"`instrument_id` must look like \"SYMBOL.VENUE\", was {text!r}")
        if self.count == self.capacity:
            capacity = 2 * self.capacity if self.capacity else 8
            grown = <const char **>realloc(self.texts, 2 * capacity * sizeof(char *))
            if grown == NULL:
                raise MemoryError
            self.texts = grown
            self.capacity = capacity
        cdef bytes symbol_bytes = symbol.encode()
        cdef bytes venue_bytes = venue.encode()
        self._bytes.append((symbol_bytes, venue_bytes))  # keeps the C texts alive
        self.texts[2 * self.count] = symbol_bytes
        self.texts[2 * self.count + 1] = venue_bytes
        self._names.append(text)
        self._by_name[text] = slot = self.count
        self.count += 1
        memset(self.cache, 0, sizeof(self.cache))  # it may hold this instrument as unknown
        return slot

    def slot(self, instrument_id):
        """The slot of a registered instrument.

        Raises
        ------
        DataConversionError
            If it is not registered; the nearest is named.
        """
        text = str(instrument_id)
        found = self._by_name.get(text)
        if found is None:
            close = difflib.get_close_matches(text, self._names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise DataConversionError(f"`instrument_id` must be registered, was {text!r}{hint}")
        return found

    def get(self, instrument_id, default=None):
        """The slot of an instrument, or `default`."""
        return self._by_name.get(str(instrument_id), default)

    def name(self, slot):
        """Instrument id of a slot.

        Raises
        ------
        DataConversionError
            If there is no such slot.
        """
        if not 0 <= slot < self.count:
            raise DataConversionError(f"`slot` must be from 0 to {<int>self.count - 1}, was {slot}")
        return self._names[slot]

    def lookup_bytes(self, const char *symbol, const char *venue):
        """The slot of two C texts, by the path that the hot loop takes; None if it is not registered."""
        cdef uint32_t slot = self.lookup(symbol, venue)
        return None if slot == TF_SLOT_UNKNOWN else slot

    cdef uint32_t lookup(self, const char *symbol, const char *venue) noexcept nogil:
        """Slot of two NUL-terminated texts with a lifetime beyond this object's, or TF_SLOT_UNKNOWN."""
        cdef tf_slot_cache *entry
        cdef uint32_t i
        if symbol == NULL or venue == NULL:
            return TF_SLOT_UNKNOWN
        entry = &self.cache[place(symbol, venue)]
        if entry.symbol == symbol and entry.venue == venue:
            return entry.slot
        self.misses += 1
        entry.symbol = symbol
        entry.venue = venue
        entry.slot = TF_SLOT_UNKNOWN
        for i in range(self.count):
            if strcmp(symbol, self.texts[2 * i]) == 0 and strcmp(venue, self.texts[2 * i + 1]) == 0:
                entry.slot = i
                break
        return entry.slot
