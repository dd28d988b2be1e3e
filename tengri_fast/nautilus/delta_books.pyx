"""The books of a strategy whose model takes depth from order book deltas.

Deltas go into our own books, from which the best ten levels are read without making an object. A book begins where
NautilusTrader's managed book of the instrument stands, because a strategy may start in the middle of a stream; from
then on both apply the same deltas. Historical deltas, which no managed book contains, have a book of their own, and so
have live ones where the cache holds no managed book.
"""

from libc.stdint cimport uint32_t

from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.enums import BookType

from tengri_fast.market.book cimport (
    TF_BOOK_STALE,
    TF_BOOK_TRUNCATED,
    TF_BOOK_WHOLE,
    OrderBookL2,
    tf_book_depth,
)
from tengri_fast.market.deltas cimport feed_deltas
from tengri_fast.market.events cimport TF_FLAG_LAST, TF_FLAG_SNAPSHOT, tf_delta, tf_depth10

cdef dict MODES = {"L1_MBP": "top", "L2_MBP": "price", "L3_MBO": "order"}
cdef int LEVELS = 8192
cdef int ORDERS = 131072
cdef int ADD = 1
cdef int CLEAR = 4


cdef class DeltaBooks:
    """Books by instrument slot.

    Parameters
    ----------
    count : int
        Instruments.
    book_type : str
        "L1_MBP", "L2_MBP" or "L3_MBO": what a change names where the managed book does not say it.

    Notes
    -----
    A list of deltas gives a depth event when its last change ends an event (flag 128), and also when the feed has never
    set that flag. Changes whose time runs backward are applied, as NautilusTrader applies them. A book that is stale or
    truncated goes on giving depth; the log says so once.
    """

    def __init__(self, uint32_t count, str book_type):
        self.book_type = book_type
        self._live = [None] * count
        self._own = [None] * count
        self._follows = bytearray(count)
        self._marked = bytearray(count)
        self._told = bytearray(count)

    def reset(self):
        """Forget all books."""
        DeltaBooks.__init__(self, <uint32_t>len(self._live), self.book_type)

    def begin_again(self):
        """Take up the managed books anew at the next live deltas: some may have passed by."""
        self._follows = bytearray(len(self._follows))

    def book(self, uint32_t slot, bint historical=False):
        """A copy of a book, or None when no deltas came yet."""
        book = self._live[slot] if self._follows[slot] and not historical else self._own[slot]
        return None if book is None else book.copy()

    cdef OrderBookL2 _book_of(self, uint32_t slot, bint historical):
        if self._follows[slot] and not historical:
            return self._live[slot]
        if self._own[slot] is None:
            self._own[slot] = _new_book(self.book_type)
        return self._own[slot]

    cdef OrderBookL2 _begin(self, uint32_t slot, object managed):
        """Our copy of a managed book."""
        cdef OrderBookL2 book = _new_book(BookType(managed.book_type).name)
        # An order without an id is named by its price; the id that Nautilus makes of that is told by making it again.
        named = OrderBook(managed.instrument_id, BookType.L2_MBP)
        book.apply(CLEAR, 0, 0.0, 0.0, 0, TF_FLAG_SNAPSHOT)
        for side, levels in ((1, managed.bids()), (-1, managed.asks())):
            for level in levels:
                orders = level.orders()
                named.add(orders[0], 0, 0)
                by_price = (named.bids() if side > 0 else named.asks())[0].orders()[0].order_id
                named.reset()
                for order in orders:
                    book.apply(ADD, side, order.price.as_double(), order.size.as_double(),
                               0 if order.order_id == by_price else order.order_id, TF_FLAG_SNAPSHOT)
        self._live[slot] = book
        self._follows[slot] = 1
        return book

    cdef bint read(self, object deltas, uint32_t slot, bint historical, object cache, object log,
                   tf_depth10 *out) except -1:
        """Apply the deltas and fill `out` with the best ten levels; False when their event goes on."""
        cdef OrderBookL2 book
        cdef tf_delta last
        cdef uint32_t state, told
        managed = None
        if not historical and not self._follows[slot]:
            managed = cache.order_book(deltas.instrument_id)
        if managed is None:
            book = self._book_of(slot, historical)
            if feed_deltas(deltas, slot, book.ptr, &last) & TF_FLAG_LAST:
                self._marked[slot] = 1
            state = tf_book_depth(book.ptr, out)
            out.ts_event, out.ts_init = last.ts_event, last.ts_init
            if self._marked[slot] and not state & TF_BOOK_WHOLE:
                return False
        else:  # which has these deltas already
            book = self._begin(slot, managed)
            state = tf_book_depth(book.ptr, out)
            out.ts_event, out.ts_init = deltas.ts_event, deltas.ts_init
        out.slot = slot
        told = state & (<uint32_t>TF_BOOK_STALE | <uint32_t>TF_BOOK_TRUNCATED) & ~<uint32_t>self._told[slot]
        if told:
            self._told[slot] |= told
            log.warning(f"Book of {deltas.instrument_id} is "
                        f"{'stale' if told & TF_BOOK_STALE else 'truncated'}: {book.counters}")
        return True


cdef OrderBookL2 _new_book(str book_type):
    return OrderBookL2(MODES[book_type], levels=LEVELS, orders=ORDERS, keep_backward=True)
