"""Small numbers for Nautilus' identifiers, found without making a Python object.

An order event holds its identifiers as C texts, and reading one as a Python attribute makes a new object whose hash is
computed anew. These tables are asked with the C text instead. Texts are compared by content, because one identifier can
come with several pointers: each of Nautilus' libraries has an interner of its own. What is stored is the pointer, which
is safe because interned texts are never freed.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strcmp

cdef enum:
    FIRST_ROOM = 256


cdef class NameTable:
    """Numbers by text: for orders, strategies, accounts and positions.

    Attributes
    ----------
    count : int
        Texts that have a number.
    """

    def __cinit__(self):
        self._kept = {}
        self._room = FIRST_ROOM
        self._places = <tf_name *>calloc(self._room, sizeof(tf_name))
        if self._places == NULL:
            raise MemoryError("no memory for the gate's names")

    def __dealloc__(self):
        free(self._places)

    def __len__(self):
        return self.count

    def __getitem__(self, bytes text):
        cdef uint32_t number = number_of(self, text)
        if number == NO_NUMBER:
            raise KeyError(text)
        return number

    def __setitem__(self, bytes text, uint32_t number):
        # A text from Python may be short-lived; what was put first is kept and used.
        self.put(<bytes>self._kept.setdefault(text, text), number)

    def __delitem__(self, bytes text):
        if self.drop(text) == NO_NUMBER:
            raise KeyError(text)

    def __reduce__(self):
        raise TypeError("NameTable cannot be pickled: it holds pointers into Nautilus")

    cdef int put(self, const char *text, uint32_t number) except -1:
        """Give a text a number, in place of the one that it had; the text must outlive the table."""
        cdef tf_name *before = self._places
        cdef size_t i, room = self._room
        if 2 * (self.count + 1) > room:
            self._places = <tf_name *>calloc(2 * room, sizeof(tf_name))
            if self._places == NULL:
                self._places = before
                raise MemoryError("no memory for the gate's names")
            self._room = 2 * room
            self.count = 0
            for i in range(room):
                if before[i].text != NULL:
                    insert(self, before[i].hash, before[i].text, before[i].number)
            free(before)
        insert(self, hash_of(text), text, number)
        return 0

    cdef uint32_t drop(self, const char *text) noexcept nogil:
        """Forget a text; its number, or NO_NUMBER when it had none."""
        cdef uint64_t hash = hash_of(text)
        cdef size_t mask = self._room - 1
        cdef size_t hole = hash & mask
        cdef size_t at, home
        cdef uint32_t number
        while True:
            if self._places[hole].text == NULL:
                return NO_NUMBER
            if self._places[hole].hash == hash and strcmp(self._places[hole].text, text) == 0:
                break
            hole = (hole + 1) & mask
        number = self._places[hole].number
        # Those behind move up into the hole when they may, so that no search ends too early.
        at = hole
        while True:
            at = (at + 1) & mask
            if self._places[at].text == NULL:
                break
            home = self._places[at].hash & mask
            if ((at - home) & mask) >= ((at - hole) & mask):
                self._places[hole] = self._places[at]
                hole = at
        self._places[hole].text = NULL
        self.count -= 1
        return number

    cdef void clear(self) noexcept nogil:
        """Forget every text."""
        memset(self._places, 0, self._room * sizeof(tf_name))
        self.count = 0


cdef void insert(NameTable table, uint64_t hash, const char *text, uint32_t number) noexcept nogil:
    cdef size_t at = hash & (table._room - 1)
    while table._places[at].text != NULL:
        if table._places[at].hash == hash and strcmp(table._places[at].text, text) == 0:
            table._places[at].number = number
            return
        at = (at + 1) & (table._room - 1)
    table._places[at].hash = hash
    table._places[at].text = text
    table._places[at].number = number
    table.count += 1


cdef class PairTable:
    """Numbers by two numbers; entries are never taken out one by one.

    Attributes
    ----------
    count : int
        Pairs that have a number.
    """

    def __cinit__(self):
        self._room = FIRST_ROOM
        self._places = <tf_pair *>calloc(self._room, sizeof(tf_pair))
        if self._places == NULL:
            raise MemoryError("no memory for the gate's pairs")
        self.clear()

    def __dealloc__(self):
        free(self._places)

    def __len__(self):
        return self.count

    def __reduce__(self):
        raise TypeError("PairTable cannot be pickled: it belongs to one gate")

    cdef int put(self, uint32_t first, uint32_t second, uint32_t number) except -1:
        """Give a pair a number other than NO_NUMBER, in place of the one that it had."""
        cdef tf_pair *before = self._places
        cdef size_t i, room = self._room
        if 2 * (self.count + 1) > room:
            self._places = <tf_pair *>calloc(2 * room, sizeof(tf_pair))
            if self._places == NULL:
                self._places = before
                raise MemoryError("no memory for the gate's pairs")
            self._room = 2 * room
            self.clear()
            for i in range(room):
                if before[i].number != NO_NUMBER:
                    insert_pair(self, before[i].key, before[i].number)
            free(before)
        insert_pair(self, (<uint64_t>first << 32) | second, number)
        return 0

    cdef void clear(self) noexcept nogil:
        """Forget every pair."""
        cdef size_t i
        for i in range(self._room):
            self._places[i].number = NO_NUMBER
        self.count = 0


cdef void insert_pair(PairTable table, uint64_t key, uint32_t number) noexcept nogil:
    cdef size_t at = mixed(key) & (table._room - 1)
    while table._places[at].number != NO_NUMBER and table._places[at].key != key:
        at = (at + 1) & (table._room - 1)
    table.count += table._places[at].number == NO_NUMBER
    table._places[at].key = key
    table._places[at].number = number
