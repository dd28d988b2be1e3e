from libc.stdint cimport uint32_t, uint64_t

from tengri_fast.market.events cimport tf_delta, tf_depth10


cdef extern from "tengri/book.h" nogil:
    enum: TF_BOOK_TOP
    enum: TF_BOOK_BY_PRICE
    enum: TF_BOOK_BY_ORDER
    enum: TF_BOOK_CONTIGUOUS
    enum: TF_BOOK_KEEP_BACKWARD
    enum: TF_BOOK_MAX_LEVELS
    enum: TF_BOOK_MAX_ORDERS
    enum: TF_BOOK_WHOLE
    enum: TF_BOOK_STALE
    enum: TF_BOOK_CROSSED
    enum: TF_BOOK_TRUNCATED

    ctypedef enum tf_status:
        TF_OK

    ctypedef struct tf_book_options:
        uint32_t kind
        uint32_t rules
        uint32_t levels
        uint32_t orders

    ctypedef struct tf_book_counters:
        uint64_t applied
        uint64_t events
        uint64_t clears
        uint64_t invalid
        uint64_t backward
        uint64_t out_of_order
        uint64_t gaps
        uint64_t unknown
        uint64_t crossed
        uint64_t overflow

    ctypedef struct tf_book_level:
        double price
        double size
        uint64_t orders

    ctypedef struct tf_book:
        pass

    tf_status tf_book_size(const tf_book_options *options, size_t *bytes)
    tf_status tf_book_init(void *memory, size_t bytes, const tf_book_options *options, tf_book **out)
    void tf_book_reset(tf_book *book)
    size_t tf_book_bytes(const tf_book *book)
    tf_status tf_book_check(const void *memory, size_t bytes, const tf_book_options *options)
    int tf_book_apply(tf_book *book, const tf_delta *delta)
    uint32_t tf_book_state(const tf_book *book)
    void tf_book_counters_of(const tf_book *book, tf_book_counters *out)
    uint64_t tf_book_sequence(const tf_book *book)
    uint32_t tf_book_levels(const tf_book *book, int side)
    uint32_t tf_book_exact_levels(const tf_book *book, int side)
    int tf_book_level_at(const tf_book *book, int side, uint32_t rank, tf_book_level *out)
    int tf_book_level_of(const tf_book *book, int side, double price, tf_book_level *out)
    double tf_book_cumulative(const tf_book *book, int side, uint32_t depth)
    uint32_t tf_book_orders(const tf_book *book)
    uint32_t tf_book_depth(const tf_book *book, tf_depth10 *out)


cdef class OrderBookL2:
    cdef tf_book *ptr
    cdef tf_book_options options
    cdef readonly Py_ssize_t nbytes
    cdef object _side(self, int side)
    cdef object _best(self, int side)
