"""An order book kept from deltas: live change by change, or from columns at a few tens of nanoseconds each.

The book lives in csrc/book/book.c; its rules are stated in csrc/include/tengri/book.h and repeated here where a user
meets them. It is the same code in research and live, so depth made from a file of deltas is what a live model sees.
"""

import hashlib
import struct
from typing import NamedTuple

import numpy as np

cimport cython
from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from tengri_fast.market.events cimport TF_DEPTH_LEVELS, TF_FLAG_LAST, tf_delta, tf_depth10

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.market.columns import DeltaColumns, DepthColumns

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef bytes STATE_MAGIC = b"TFBK"
cdef uint32_t STATE_VERSION = 1
cdef object STATE_HEADER = struct.Struct("<4sI4IQ")
cdef dict KINDS = {"top": TF_BOOK_TOP, "price": TF_BOOK_BY_PRICE, "order": TF_BOOK_BY_ORDER}
cdef dict MODES = {kind: mode for mode, kind in KINDS.items()}


class BookCounters(NamedTuple):
    """What became of the changes so far.

    Attributes
    ----------
    applied : int
        Changes accepted, those that changed nothing included.
    events : int
        Of them, ends of an event.
    clears : int
    invalid : int
        Refused: an unknown action or side, NaN, a number out of range, an addition of size 0.
    backward : int
        Time ran backward: dropped, or with `keep_backward` applied.
    out_of_order : int
        Sequence numbers below the last one. The book is stale until the next clear.
    gaps : int
        Sequence numbers that skipped, in a book that is `contiguous`. The book is stale until the next clear.
    unknown : int
        Changes of a level or order that was not there.
    crossed : int
        Events after which the best bid was above the best ask.
    overflow : int
        Levels pushed out of a full book, and new ones that stayed out.
    """

    applied: int
    events: int
    clears: int
    invalid: int
    backward: int
    out_of_order: int
    gaps: int
    unknown: int
    crossed: int
    overflow: int


class BookLevel(NamedTuple):
    """One price: the sizes of its orders together, and how many they are."""

    price: float
    size: float
    orders: int


cdef struct delta_rows:
    const uint8_t *action
    const int8_t *side
    const uint8_t *flags
    const double *price
    const double *size
    const uint64_t *order_id
    const uint64_t *sequence
    const uint64_t *ts_event
    const uint64_t *ts_init


cdef int _open(object deltas, delta_rows *out) except -1:
    """Pointers into the columns, which the caller keeps alive."""
    cdef const uint8_t[::1] action, flags
    cdef const int8_t[::1] side
    cdef const double[::1] price, size
    cdef const uint64_t[::1] order_id, sequence, ts_event, ts_init
    if not isinstance(deltas, DeltaColumns):
        raise DataConversionError(f"`deltas` must be DeltaColumns, was {type(deltas).__name__}")
    if len(deltas) == 0:
        return 0
    action, flags, side = deltas.action, deltas.flags, deltas.side
    price, size = deltas.price, deltas.size
    order_id, sequence, ts_event, ts_init = deltas.order_id, deltas.sequence, deltas.ts_event, deltas.ts_init
    out.action, out.flags, out.side = &action[0], &flags[0], &side[0]
    out.price, out.size = &price[0], &size[0]
    out.order_id, out.sequence = &order_id[0], &sequence[0]
    out.ts_event, out.ts_init = &ts_event[0], &ts_init[0]
    return 0


cdef inline void _row(const delta_rows *rows, Py_ssize_t i, tf_delta *out) noexcept nogil:
    out.price, out.size = rows.price[i], rows.size[i]
    out.order_id, out.sequence = rows.order_id[i], rows.sequence[i]
    out.ts_event, out.ts_init = rows.ts_event[i], rows.ts_init[i]
    out.action, out.side, out.flags = rows.action[i], rows.side[i], rows.flags[i]
    out.slot = 0
    out.reserved = 0


cdef int read_side(object side) except 0:
    if side == 1 or side == -1:
        return side
    raise DataConversionError(f"`side` must be +1 or -1, was {side!r}")


def _whole_number(str name, value, low, high):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ConfigurationError(f"`{name}` must be a whole number from {low} to {high}, was {value!r}")
    return int(value)


@cython.final
cdef class OrderBookL2:
    """An order book of fixed memory, kept from its changes.

    Parameters
    ----------
    mode : {"price", "order", "top"}
        What a change names: a side and price (market by price, L2), an order (market by order, L3), or a side whose
        only level it sets (L1).
    levels : int
        Most levels per side, 1 to 65,536. A new level on a full side pushes out the worst one.
    orders : int
        Most orders of both sides, 1 to 16,777,216, for mode "order". A new order in a full book pushes out the worst
        level of the longer side.
    contiguous : bool
        Sequence numbers go up by one from event to event, so one that skips makes the book stale.
    keep_backward : bool
        Apply changes whose time runs backward (as NautilusTrader does) instead of dropping them. Clears and changes of
        a snapshot (flag 32) are never backward.

    Attributes
    ----------
    nbytes : int
        Size of the book in memory; nothing is allocated after construction.

    Raises
    ------
    ConfigurationError
        If a parameter breaks its rule.

    Notes
    -----
    For every change that NautilusTrader can express, the book is that of its ``OrderBook``: an update of an unknown
    order adds it, one with another price moves it, one of size 0 deletes it; a deletion of something unknown does
    nothing; order id 0 in a book by order makes the price the order's name.

    The size of a level by order is the exact sum of its orders, rounded once; it does not drift.
    """

    def __cinit__(self, mode="price", *, levels=4096, orders=65536, contiguous=False, keep_backward=False):
        cdef size_t size = 0
        if mode not in KINDS:
            raise ConfigurationError(f"`mode` must be one of {', '.join(KINDS)}, was {mode!r}")
        self.options.kind = KINDS[mode]
        self.options.levels = _whole_number("levels", levels, 1, TF_BOOK_MAX_LEVELS)
        self.options.orders = _whole_number("orders", orders, 1, TF_BOOK_MAX_ORDERS)
        if contiguous:
            self.options.rules |= <uint32_t>TF_BOOK_CONTIGUOUS
        if keep_backward:
            self.options.rules |= <uint32_t>TF_BOOK_KEEP_BACKWARD
        if tf_book_size(&self.options, &size) != TF_OK:
            raise ConfigurationError("`levels` and `orders` must keep the rules of the book")
        cdef void *memory = aligned_alloc(64, size)
        if memory == NULL:
            raise MemoryError(f"no memory for a book of {size} bytes")
        if tf_book_init(memory, size, &self.options, &self.ptr) != TF_OK:
            free(memory)
            self.ptr = NULL
            raise ConfigurationError("`levels` and `orders` must keep the rules of the book")
        self.nbytes = size

    def __dealloc__(self):
        free(self.ptr)

    def __reduce__(self):
        raise TypeError("an OrderBookL2 cannot be pickled: use to_bytes() and from_bytes()")

    def __repr__(self):
        return (f"OrderBookL2({self.mode!r}, bid={self.best_bid}, ask={self.best_ask}, "
                f"levels=({self.level_count(1)}, {self.level_count(-1)}), whole={self.whole}, stale={self.stale})")

    # ---- changes -------------------------------------------------------------------------------------------------

    def apply(self, int action, int side, double price, double size, uint64_t order_id=0, int flags=128,
              uint64_t sequence=0, uint64_t ts_event=0, ts_init=None):
        """Apply one change.

        Parameters
        ----------
        action : int
            1 add, 2 update, 3 delete, 4 clear.
        side : int
            +1 bid, -1 ask; 0 for a clear, or where the order's id tells the side.
        price, size : float
            Not read where the change does not need them.
        order_id : int
            0: none.
        flags : int
            Bits: 128 last change of its event, 32 part of a snapshot, 64 change of the best level, 16 of a level.
        sequence : int
            0: none.
        ts_event : int
            UTC nanoseconds.
        ts_init : int, optional
            UTC nanoseconds; `ts_event` by default.

        Returns
        -------
        bool
            False when a rule refused or dropped the change; `counters` says which.
        """
        cdef tf_delta delta
        memset(&delta, 0, sizeof(delta))
        if not 0 <= action <= 255 or not -128 <= side <= 127 or not 0 <= flags <= 255:
            raise DataConversionError(f"`action`, `side` and `flags` must fit a byte, were {action}, {side}, {flags}")
        delta.action, delta.side, delta.flags = <uint8_t>action, <int8_t>side, <uint8_t>flags
        delta.price, delta.size, delta.order_id, delta.sequence = price, size, order_id, sequence
        delta.ts_event = ts_event
        delta.ts_init = ts_event if ts_init is None else <uint64_t>ts_init
        return tf_book_apply(self.ptr, &delta) != 0

    def apply_columns(self, deltas):
        """Apply changes in the order of their rows, without the GIL.

        Parameters
        ----------
        deltas : DeltaColumns

        Returns
        -------
        int
            How many were accepted; `counters` says what became of the others.
        """
        cdef Py_ssize_t i, n
        cdef Py_ssize_t accepted = 0
        cdef delta_rows rows
        cdef tf_delta delta
        _open(deltas, &rows)
        n = len(deltas)
        with nogil:
            for i in range(n):
                _row(&rows, i, &delta)
                accepted += tf_book_apply(self.ptr, &delta)
        return accepted

    def depth_columns(self, deltas, int levels=10, str every="last"):
        """Apply changes and note the best levels after each event.

        Parameters
        ----------
        deltas : DeltaColumns
        levels : int
            Levels per side to note, 1 to 10.
        every : {"last", "change"}
            A row after each event (a change with flag 128), or only where the noted levels differ from the row before;
            the first row is always noted.

        Returns
        -------
        DepthColumns
            Best level first, absent levels 0. ``ts_event`` is the latest event time so far, ``ts_init`` that of the
            event's last change. No row is made while the book is stale, nor by an event whose last change was refused
            or dropped. Rows of a crossed book are kept: what reads them has its own rule for that.

        Notes
        -----
        The book goes on from where it is, so a long file may be given in pieces. The arrays are as long as the piece
        has events.
        """
        if not 1 <= levels <= TF_DEPTH_LEVELS:
            raise DataConversionError(f"`levels` must be from 1 to {TF_DEPTH_LEVELS}, was {levels}")
        if every not in ("last", "change"):
            raise DataConversionError(f"`every` must be 'last' or 'change', was {every!r}")
        cdef bint changes = every == "change"
        cdef delta_rows rows
        _open(deltas, &rows)
        cdef Py_ssize_t i, j, n = len(deltas), room, row = 0, width = levels
        room = int(np.count_nonzero(deltas.flags & TF_FLAG_LAST))
        times = np.empty((2, room), np.uint64)
        found = np.empty((4, room, width))
        cdef uint64_t[:, ::1] times_out = times
        cdef double[:, :, ::1] out = found
        cdef tf_delta delta
        cdef tf_depth10 depth
        cdef uint32_t state
        with nogil:
            for i in range(n):
                _row(&rows, i, &delta)
                if not tf_book_apply(self.ptr, &delta) or not delta.flags & TF_FLAG_LAST:
                    continue
                state = tf_book_depth(self.ptr, &depth)
                if state & TF_BOOK_STALE:
                    continue
                memcpy(&out[0, row, 0], depth.bid_price, width * sizeof(double))
                memcpy(&out[1, row, 0], depth.ask_price, width * sizeof(double))
                memcpy(&out[2, row, 0], depth.bid_size, width * sizeof(double))
                memcpy(&out[3, row, 0], depth.ask_size, width * sizeof(double))
                if changes and row > 0:
                    j = 0
                    while j < 4 and memcmp(&out[j, row, 0], &out[j, row - 1, 0], width * sizeof(double)) == 0:
                        j += 1
                    if j == 4:
                        continue
                times_out[0, row] = depth.ts_event
                times_out[1, row] = depth.ts_init
                row += 1
        bid_price, ask_price, bid_size, ask_size = (np.ascontiguousarray(part[:row]) for part in found)
        ts_event, ts_init = (np.ascontiguousarray(part[:row]) for part in times)
        return DepthColumns(ts_event=ts_event, ts_init=ts_init, bid_price=bid_price, ask_price=ask_price,
                            bid_size=bid_size, ask_size=ask_size)

    # ---- questions -----------------------------------------------------------------------------------------------

    @property
    def mode(self):
        """"price", "order" or "top"."""
        return MODES[self.options.kind]

    @property
    def whole(self):
        """Whether the last change ended its event (flag 128)."""
        return tf_book_state(self.ptr) & TF_BOOK_WHOLE != 0

    @property
    def stale(self):
        """Whether a change is known to be missing; until the next clear."""
        return tf_book_state(self.ptr) & TF_BOOK_STALE != 0

    @property
    def crossed(self):
        """Whether the best bid was above the best ask when the book was last whole. Nothing is removed then."""
        return tf_book_state(self.ptr) & TF_BOOK_CROSSED != 0

    @property
    def truncated(self):
        """Whether a level was pushed out since the last clear; `exact_levels` says what is still right."""
        return tf_book_state(self.ptr) & TF_BOOK_TRUNCATED != 0

    @property
    def sequence(self):
        """The last sequence number; 0: none."""
        return tf_book_sequence(self.ptr)

    @property
    def orders(self):
        """Orders in a book that knows them; 0 in mode "price"."""
        return tf_book_orders(self.ptr)

    @property
    def counters(self):
        """What became of the changes so far: BookCounters."""
        cdef tf_book_counters c
        tf_book_counters_of(self.ptr, &c)
        return BookCounters(c.applied, c.events, c.clears, c.invalid, c.backward, c.out_of_order, c.gaps, c.unknown,
                            c.crossed, c.overflow)

    cdef object _best(self, int side):
        cdef tf_book_level level
        if not tf_book_level_at(self.ptr, side, 0, &level):
            return None
        return BookLevel(level.price, level.size, level.orders)

    @property
    def best_bid(self):
        """The best BookLevel of the bids, or None."""
        return self._best(1)

    @property
    def best_ask(self):
        """The best BookLevel of the asks, or None."""
        return self._best(-1)

    def level(self, side, double price):
        """The BookLevel at a price, or None. `side` is +1 for bids, -1 for asks."""
        cdef tf_book_level level
        if not tf_book_level_of(self.ptr, read_side(side), price, &level):
            return None
        return BookLevel(level.price, level.size, level.orders)

    def level_count(self, side):
        """Levels of a side (+1 bids, -1 asks)."""
        return tf_book_levels(self.ptr, read_side(side))

    def exact_levels(self, side):
        """How many levels of a side (+1 bids, -1 asks), from the best one on, no overflow can have touched.

        All of them unless `truncated`; depth of n levels is right as long as this is at least n.
        """
        return tf_book_exact_levels(self.ptr, read_side(side))

    def cumulative_size(self, side, depth):
        """Sizes of the best `depth` levels of a side (+1 bids, -1 asks) together."""
        return tf_book_cumulative(self.ptr, read_side(side), _whole_number("depth", depth, 0, 0xFFFFFFFF))

    cdef object _side(self, int side):
        cdef uint32_t i, count = tf_book_levels(self.ptr, side)
        cdef tf_book_level level
        found = np.empty((count, 3))
        cdef double[:, ::1] out = found
        for i in range(count):
            tf_book_level_at(self.ptr, side, i, &level)
            out[i, 0], out[i, 1], out[i, 2] = level.price, level.size, <double>level.orders
        return found

    def bids(self):
        """All bids, best first: float64 [levels, 3] of price, size and number of orders."""
        return self._side(1)

    def asks(self):
        """All asks, best first: float64 [levels, 3] of price, size and number of orders."""
        return self._side(-1)

    def is_sound(self):
        """Whether levels are sorted and positive and add up their orders; for tests, O(orders)."""
        return tf_book_check(self.ptr, self.nbytes, &self.options) == TF_OK

    # ---- state ---------------------------------------------------------------------------------------------------

    def reset(self):
        """Empty as at construction, counters included."""
        tf_book_reset(self.ptr)

    def copy(self):
        """An independent book with the same bits."""
        cdef OrderBookL2 other = OrderBookL2(
            self.mode, levels=self.options.levels, orders=self.options.orders,
            contiguous=self.options.rules & TF_BOOK_CONTIGUOUS != 0,
            keep_backward=self.options.rules & TF_BOOK_KEEP_BACKWARD != 0)
        memcpy(other.ptr, self.ptr, tf_book_bytes(self.ptr))
        return other

    def to_bytes(self):
        """The book as bytes: exact, checked by a digest, for a book of the same parameters and architecture."""
        o = &self.options
        head = STATE_HEADER.pack(STATE_MAGIC, STATE_VERSION, o.kind, o.rules, o.levels, o.orders, self.nbytes)
        body = (<char *>self.ptr)[:self.nbytes]
        return b"".join((head, body, hashlib.sha256(head + body).digest()))

    def from_bytes(self, data):
        """Replace this book by one saved with `to_bytes`; all or nothing.

        Raises
        ------
        DataConversionError
            If the bytes are damaged, truncated, or belong to a book of other parameters or another version.
        """
        data = bytes(data)
        cdef Py_ssize_t start = STATE_HEADER.size, end = STATE_HEADER.size + self.nbytes
        if len(data) != end + 32:
            raise DataConversionError(f"`data` must have {end + 32} bytes, had {len(data)}")
        o = &self.options
        found = STATE_HEADER.unpack_from(data)
        expected = (STATE_MAGIC, STATE_VERSION, o.kind, o.rules, o.levels, o.orders, self.nbytes)
        names = ("magic", "version", "mode", "rules", "levels", "orders", "size")
        for name, was, wanted in zip(names, found, expected):
            if was != wanted:
                raise DataConversionError(f"`{name}` of `data` must be {wanted!r}, was {was!r}")
        if hashlib.sha256(data[:end]).digest() != data[end:]:
            raise DataConversionError("`data` must match its digest, did not")
        cdef const uint8_t[::1] body = data[start:end]
        cdef void *scratch = aligned_alloc(64, self.nbytes)
        if scratch == NULL:
            raise MemoryError
        try:
            memcpy(scratch, &body[0], self.nbytes)
            if tf_book_check(scratch, self.nbytes, &self.options) != TF_OK:
                raise DataConversionError("`data` must be a sound book of these parameters, was not")
            memcpy(self.ptr, scratch, self.nbytes)
        finally:
            free(scratch)
