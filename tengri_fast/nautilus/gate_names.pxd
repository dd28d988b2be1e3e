from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, strcmp, strlen

cdef enum:
    NO_NUMBER = 0xFFFFFFFF


cdef struct tf_name:
    uint64_t hash
    const char *text        # NULL: free
    uint32_t number


cdef struct tf_pair:
    uint64_t key
    uint32_t number         # NO_NUMBER: free


cdef inline uint64_t mixed(uint64_t value) noexcept nogil:
    value = value * <uint64_t>0x9E3779B97F4A7C15
    return value ^ (value >> 29)


cdef inline uint64_t hash_of(const char *text) noexcept nogil:
    cdef size_t left = strlen(text)
    cdef uint64_t word, value = left
    while left >= 8:
        memcpy(&word, text, 8)
        value = mixed(value ^ word)
        text += 8
        left -= 8
    if left:
        word = 0
        memcpy(&word, text, left)
        value = mixed(value ^ word)
    return mixed(value)


cdef class NameTable:
    cdef tf_name *_places
    cdef size_t _room       # a power of two
    cdef readonly size_t count
    cdef dict _kept         # texts that came from Python
    cdef int put(self, const char *text, uint32_t number) except -1
    cdef uint32_t drop(self, const char *text) noexcept nogil
    cdef void clear(self) noexcept nogil


# Inline, so that an event that tells nothing new is recognised without a call into another library: between two events
# so much else runs that each library touched costs more than the look-up.
cdef inline uint32_t number_of(NameTable table, const char *text) noexcept:
    """The number of a text, or NO_NUMBER."""
    cdef uint64_t hash = hash_of(text)
    cdef size_t at = hash & (table._room - 1)
    cdef const tf_name *place
    while True:
        place = &table._places[at]
        if place.text == NULL:
            return NO_NUMBER
        if place.hash == hash and (place.text == text or strcmp(place.text, text) == 0):
            return place.number
        at = (at + 1) & (table._room - 1)


cdef class PairTable:
    cdef tf_pair *_places
    cdef size_t _room
    cdef readonly size_t count
    cdef int put(self, uint32_t first, uint32_t second, uint32_t number) except -1
    cdef void clear(self) noexcept nogil


cdef inline uint32_t number_of_pair(PairTable table, uint32_t first, uint32_t second) noexcept:
    """The number of a pair, or NO_NUMBER."""
    cdef uint64_t key = (<uint64_t>first << 32) | second
    cdef size_t at = mixed(key) & (table._room - 1)
    while table._places[at].number != NO_NUMBER and table._places[at].key != key:
        at = (at + 1) & (table._room - 1)
    return table._places[at].number
