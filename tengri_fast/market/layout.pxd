# Where the fields of a type lie, and the reading of an object whose layout is known. All of it is inline, so that the
# reader of single events and the bulk conversions are compiled from the same lines and neither pays for a call.

from cpython.object cimport PyTypeObject
from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tengri_fast.market.events cimport (
    TF_DEPTH_LEVELS,
    tf_bar,
    tf_depth10,
    tf_fixed64,
    tf_fixed128,
    tf_quote,
    tf_trade,
)
from tengri_fast.market.slots cimport InstrumentSlots


cdef enum:
    QUOTE = 0
    TRADE = 1
    BAR = 2
    DEPTH = 3
    KINDS = 4
    HEAD = 16               # bytes of an object that belong to Python

# Where the fields of one type lie, in bytes from the start of the object.
cdef struct tf_layout:
    PyTypeObject *type      # NULL: read attributes
    int wide                # numbers are 16-byte fixed point of scale 1e16, else 8-byte of scale 1e9
    uint32_t number[40]
    uint32_t ts_event
    uint32_t ts_init
    uint32_t symbol
    uint32_t venue
    uint32_t side
    int8_t sign[256]


cdef inline double number(const char *at, const tf_layout *layout, int i) noexcept nogil:
    return tf_fixed128(at + layout.number[i]) if layout.wide else tf_fixed64(at + layout.number[i])


cdef inline uint64_t integer(const char *at, uint32_t offset) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at + offset, 8)
    return value


cdef inline uint32_t slot_of(const char *at, const tf_layout *layout, InstrumentSlots slots) noexcept nogil:
    return slots.lookup(<const char *><size_t>integer(at, layout.symbol), <const char *><size_t>integer(at, layout.venue))


cdef inline void quote_in_place(const char *at, const tf_layout *layout, tf_quote *out) noexcept nogil:
    if layout.wide:
        out.bid_price = tf_fixed128(at + layout.number[0])
        out.ask_price = tf_fixed128(at + layout.number[1])
        out.bid_size = tf_fixed128(at + layout.number[2])
        out.ask_size = tf_fixed128(at + layout.number[3])
    else:
        out.bid_price = tf_fixed64(at + layout.number[0])
        out.ask_price = tf_fixed64(at + layout.number[1])
        out.bid_size = tf_fixed64(at + layout.number[2])
        out.ask_size = tf_fixed64(at + layout.number[3])
    out.ts_event = integer(at, layout.ts_event)
    out.ts_init = integer(at, layout.ts_init)
    out.reserved = 0


cdef inline void trade_in_place(const char *at, const tf_layout *layout, tf_trade *out) noexcept nogil:
    out.price = number(at, layout, 0)
    out.size = number(at, layout, 1)
    out.ts_event = integer(at, layout.ts_event)
    out.ts_init = integer(at, layout.ts_init)
    out.aggressor = layout.sign[<uint8_t>at[layout.side]]


cdef inline void bar_in_place(const char *at, const tf_layout *layout, tf_bar *out) noexcept nogil:
    out.open = number(at, layout, 0)
    out.high = number(at, layout, 1)
    out.low = number(at, layout, 2)
    out.close = number(at, layout, 3)
    out.volume = number(at, layout, 4)
    out.ts_event = integer(at, layout.ts_event)
    out.ts_init = integer(at, layout.ts_init)
    out.reserved = 0


cdef inline void count_levels(tf_depth10 *out) noexcept nogil:
    cdef uint32_t levels = TF_DEPTH_LEVELS
    while levels > 0 and out.bid_price[levels - 1] == 0 and out.bid_size[levels - 1] == 0 \
            and out.ask_price[levels - 1] == 0 and out.ask_size[levels - 1] == 0:
        levels -= 1
    out.levels = levels


cdef inline void depth_in_place(const char *at, const tf_layout *layout, tf_depth10 *out) noexcept nogil:
    cdef int level
    for level in range(TF_DEPTH_LEVELS):
        out.bid_price[level] = number(at, layout, level)
        out.bid_size[level] = number(at, layout, TF_DEPTH_LEVELS + level)
        out.ask_price[level] = number(at, layout, 2 * TF_DEPTH_LEVELS + level)
        out.ask_size[level] = number(at, layout, 3 * TF_DEPTH_LEVELS + level)
    out.ts_event = integer(at, layout.ts_event)
    out.ts_init = integer(at, layout.ts_init)
    count_levels(out)
