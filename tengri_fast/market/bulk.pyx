"""Lists of market data objects to columns, read in place where the layout of their type is installed."""

import numpy as np

from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int32_t, uint32_t, uint64_t

from tengri_fast.market.attributes cimport quote_by_attributes, trade_by_attributes
from tengri_fast.market.events cimport TF_DEPTH_LEVELS, tf_bar, tf_depth10, tf_quote, tf_trade
from tengri_fast.market.layout cimport QUOTE, TRADE, quote_in_place, tf_layout, trade_in_place
from tengri_fast.market.reader cimport TickReader, installed_layout, reader

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import BarColumns, DepthColumns, QuoteColumns, TradeColumns


cdef extern from "Python.h":
    PyTypeObject *Py_TYPE(PyObject *value) nogil

cdef extern from *:
    """
    #define TF_PREFETCH(p) __builtin_prefetch((p), 0, 1)
    """
    void TF_PREFETCH(const void *place) nogil

cdef enum:
    AHEAD = 6               # objects to prefetch


cdef list _as_list(objects):
    return objects if type(objects) is list else list(objects)


cdef inline void _prefetch(list items, Py_ssize_t i, Py_ssize_t n, Py_ssize_t lines) noexcept:
    cdef const char *at
    cdef Py_ssize_t line
    if i + AHEAD < n:
        at = <const char *>PyList_GET_ITEM(items, i + AHEAD)
        for line in range(lines):
            TF_PREFETCH(at + 64 * line)


def quotes_from_objects(objects, TickReader source=None):
    """Quote objects to columns, read in place where their layout is installed.

    Parameters
    ----------
    objects : iterable
        Quotes; a list is fastest.
    source : TickReader, optional
        The process-wide `reader` otherwise.

    Returns
    -------
    QuoteColumns

    Raises
    ------
    DataConversionError
        If an object does not have the attributes of a quote.
    """
    cdef list items = _as_list(objects)
    cdef TickReader r = reader if source is None else source
    cdef Py_ssize_t n = PyList_GET_SIZE(items), i
    cdef const char *at
    cdef const tf_layout *layout = installed_layout(QUOTE)
    cdef tf_quote q
    bid, ask, bid_size, ask_size = (np.empty(n, np.float64) for _ in range(4))
    ts_event, ts_init = np.empty(n, np.uint64), np.empty(n, np.uint64)
    cdef double[::1] b = bid, a = ask, bs = bid_size, sa = ask_size
    cdef uint64_t[::1] te = ts_event, ti = ts_init
    for i in range(n):
        _prefetch(items, i, n, 3)
        at = <const char *>PyList_GET_ITEM(items, i)
        if Py_TYPE(<PyObject *>at) == layout.type:
            quote_in_place(at, layout, &q)
        else:
            quote_by_attributes(r.slots, items[i], &q)
            if PyList_GET_SIZE(items) != n:
                raise DataConversionError("`objects` must not change while it is read")
        b[i], a[i], bs[i], sa[i], te[i], ti[i] = q.bid_price, q.ask_price, q.bid_size, q.ask_size, q.ts_event, q.ts_init
    return QuoteColumns(ts_event, ts_init, bid, ask, bid_size, ask_size)


def trades_from_objects(objects, TickReader source=None):
    """Trade objects to columns; see `quotes_from_objects`.

    Returns
    -------
    TradeColumns
    """
    cdef list items = _as_list(objects)
    cdef TickReader r = reader if source is None else source
    cdef Py_ssize_t n = PyList_GET_SIZE(items), i
    cdef const char *at
    cdef const tf_layout *layout = installed_layout(TRADE)
    cdef tf_trade t
    price, size, aggressor = np.empty(n, np.float64), np.empty(n, np.float64), np.empty(n, np.int32)
    ts_event, ts_init = np.empty(n, np.uint64), np.empty(n, np.uint64)
    cdef double[::1] p = price, s = size
    cdef int32_t[::1] g = aggressor
    cdef uint64_t[::1] te = ts_event, ti = ts_init
    for i in range(n):
        _prefetch(items, i, n, 3)
        at = <const char *>PyList_GET_ITEM(items, i)
        if Py_TYPE(<PyObject *>at) == layout.type:
            trade_in_place(at, layout, &t)
        else:
            trade_by_attributes(r.slots, items[i], &t)
            if PyList_GET_SIZE(items) != n:
                raise DataConversionError("`objects` must not change while it is read")
        p[i], s[i], g[i], te[i], ti[i] = t.price, t.size, t.aggressor, t.ts_event, t.ts_init
    return TradeColumns(ts_event, ts_init, price, size, aggressor)


def bars_from_objects(objects, TickReader source=None):
    """Bar objects to columns; see `quotes_from_objects`.

    Returns
    -------
    BarColumns
    """
    cdef list items = _as_list(objects)
    cdef TickReader r = reader if source is None else source
    cdef Py_ssize_t n = PyList_GET_SIZE(items), i
    cdef tf_bar bar
    columns = np.empty((5, n), np.float64)
    ts_event, ts_init = np.empty(n, np.uint64), np.empty(n, np.uint64)
    cdef double[:, ::1] c = columns
    cdef uint64_t[::1] te = ts_event, ti = ts_init
    for i in range(n):
        if PyList_GET_SIZE(items) != n:
            raise DataConversionError("`objects` must not change while it is read")
        r.read_bar(items[i], &bar)
        c[0, i], c[1, i], c[2, i], c[3, i], c[4, i] = bar.open, bar.high, bar.low, bar.close, bar.volume
        te[i], ti[i] = bar.ts_event, bar.ts_init
    return BarColumns(ts_event, ts_init, *columns)


def depth_from_objects(objects, TickReader source=None):
    """Depth objects to columns of as many levels as the deepest has; see `quotes_from_objects`.

    Returns
    -------
    DepthColumns
    """
    cdef list items = _as_list(objects)
    cdef TickReader r = reader if source is None else source
    cdef Py_ssize_t n = PyList_GET_SIZE(items), i
    cdef uint32_t deepest = 1
    cdef int level
    cdef tf_depth10 d
    columns = np.empty((4, n, int(TF_DEPTH_LEVELS)), np.float64)
    ts_event, ts_init = np.empty(n, np.uint64), np.empty(n, np.uint64)
    cdef double[:, :, ::1] c = columns
    cdef uint64_t[::1] te = ts_event, ti = ts_init
    for i in range(n):
        if PyList_GET_SIZE(items) != n:
            raise DataConversionError("`objects` must not change while it is read")
        r.read_depth(items[i], &d)
        deepest = max(deepest, d.levels)
        for level in range(TF_DEPTH_LEVELS):
            c[0, i, level], c[1, i, level] = d.bid_price[level], d.ask_price[level]
            c[2, i, level], c[3, i, level] = d.bid_size[level], d.ask_size[level]
        te[i], ti[i] = d.ts_event, d.ts_init
    return DepthColumns(ts_event, ts_init, *(np.ascontiguousarray(column[:, :deepest]) for column in columns))
