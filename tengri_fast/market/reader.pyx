"""Zero-copy reading of market data objects whose memory layout was probed.

Nothing here knows NautilusTrader. A layout is found by showing `TickReader.install` a few objects of one type together
with the values they hold: the bytes of each object are searched for each value (:mod:`tengri_fast.market.probe`), and
the whole is then read back and compared. If any field fails, the type is read through its attributes for ever after; a
wrong guess can cost speed, never a crash or a wrong number.
"""

import os

import numpy as np

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.object cimport PyObject, PyTypeObject
from libc.string cimport memcpy, memset

from tengri_fast.market.attributes cimport (
    bar_by_attributes,
    depth_by_attributes,
    quote_by_attributes,
    trade_by_attributes,
)
from tengri_fast.market.deltas cimport (
    deltas_in_place,
    deltas_installed,
    forget_deltas,
    install_deltas,
    read_deltas,
    switch_deltas,
)
from tengri_fast.market.events cimport TF_DEPTH_LEVELS, TF_SLOT_UNKNOWN, tf_bar, tf_depth10, tf_quote, tf_trade
from tengri_fast.market.layout cimport (
    BAR,
    DEPTH,
    KINDS,
    QUOTE,
    TRADE,
    bar_in_place,
    depth_in_place,
    quote_in_place,
    slot_of,
    tf_layout,
    trade_in_place,
)
from tengri_fast.market.probe cimport NUMBER_FIELDS, probe
from tengri_fast.market.slots cimport InstrumentSlots

from tengri_fast.errors import DataConversionError
from tengri_fast.market.probe import NotFound


cdef extern from "Python.h":
    PyTypeObject *Py_TYPE(PyObject *value) nogil

cdef tf_layout layouts[4]           # in use; without a type: read attributes
cdef tf_layout found_layouts[4]     # what was found, for switching back
memset(layouts, 0, sizeof(layouts))
memset(found_layouts, 0, sizeof(found_layouts))

SWITCH = "TENGRI_ZERO_COPY"
KIND_NAMES = ("quote", "trade", "bar", "depth", "deltas")
cdef dict NOTES = {kind: {"zero_copy": False, "type": None, "reason": "no layout was installed", "offsets": {}}
                   for kind in KIND_NAMES}
cdef list TYPES = []  # keeps every installed type alive, so that its address stays its own


cdef const tf_layout *installed_layout(int kind) noexcept nogil:
    return &layouts[kind]


@cython.final
cdef class TickReader:
    """Reads market data objects into C structs, in place where the layout of their type was installed.

    Parameters
    ----------
    slots : InstrumentSlots, optional
        Where instrument ids are looked up; an empty one otherwise.

    Notes
    -----
    Layouts belong to the process and are shared by all readers. ``TENGRI_ZERO_COPY=0`` in the environment, or
    ``reader.zero_copy = False``, makes every read go through attributes.
    """

    def __cinit__(self, InstrumentSlots slots=None):
        self.slots = InstrumentSlots() if slots is None else slots

    def __reduce__(self):
        raise TypeError("a TickReader cannot be pickled: layouts belong to one process")

    cdef int read_quote(self, object tick, tf_quote *out) except -1:
        cdef const char *at = <const char *><PyObject *>tick
        if Py_TYPE(<PyObject *>tick) == layouts[QUOTE].type:
            quote_in_place(at, &layouts[QUOTE], out)
            out.slot = slot_of(at, &layouts[QUOTE], self.slots)
            return 0
        return quote_by_attributes(self.slots, tick, out)

    cdef int read_trade(self, object tick, tf_trade *out) except -1:
        cdef const char *at = <const char *><PyObject *>tick
        if Py_TYPE(<PyObject *>tick) == layouts[TRADE].type:
            trade_in_place(at, &layouts[TRADE], out)
            out.slot = slot_of(at, &layouts[TRADE], self.slots)
            return 0
        return trade_by_attributes(self.slots, tick, out)

    cdef int read_bar(self, object bar, tf_bar *out) except -1:
        cdef const char *at = <const char *><PyObject *>bar
        if Py_TYPE(<PyObject *>bar) == layouts[BAR].type:
            bar_in_place(at, &layouts[BAR], out)
            out.slot = slot_of(at, &layouts[BAR], self.slots)
            return 0
        return bar_by_attributes(self.slots, bar, out)

    cdef int read_depth(self, object depth, tf_depth10 *out) except -1:
        cdef const char *at = <const char *><PyObject *>depth
        if Py_TYPE(<PyObject *>depth) == layouts[DEPTH].type:
            depth_in_place(at, &layouts[DEPTH], out)
            out.slot = slot_of(at, &layouts[DEPTH], self.slots)
            return 0
        return depth_by_attributes(self.slots, depth, out)

    @cython.binding(False)
    def quote(self, tick, /):
        """(bid_price, ask_price, bid_size, ask_size) of a quote, the same bits as its ``as_double()`` calls."""
        cdef tf_quote out
        self.read_quote(tick, &out)
        return out.bid_price, out.ask_price, out.bid_size, out.ask_size

    @cython.binding(False)
    def trade(self, tick, /):
        """(price, size, aggressor) of a trade; aggressor +1 buyer, -1 seller, 0 unknown."""
        cdef tf_trade out
        self.read_trade(tick, &out)
        return out.price, out.size, out.aggressor

    def bar(self, bar):
        """(open, high, low, close, volume) of a bar."""
        cdef tf_bar out
        self.read_bar(bar, &out)
        return out.open, out.high, out.low, out.close, out.volume

    def depth(self, depth):
        """Bid prices, bid sizes, ask prices, ask sizes as float64 [4, levels]; levels beyond the last used are left out."""
        cdef tf_depth10 out
        self.read_depth(depth, &out)
        cdef int level
        rows = np.empty((4, out.levels), dtype=np.float64)
        cdef double[:, ::1] view = rows
        for level in range(<int>out.levels):
            view[0, level], view[1, level] = out.bid_price[level], out.bid_size[level]
            view[2, level], view[3, level] = out.ask_price[level], out.ask_size[level]
        return rows

    def event(self, kind, value):
        """Every field of an object as read into the C struct, as a dict; for looking at, not for the hot path."""
        cdef tf_quote q
        cdef tf_trade t
        cdef tf_bar b
        cdef tf_depth10 d
        if kind == "quote":
            self.read_quote(value, &q)
            return {"bid_price": q.bid_price, "ask_price": q.ask_price, "bid_size": q.bid_size, "ask_size": q.ask_size,
                    "ts_event": q.ts_event, "ts_init": q.ts_init, "slot": q.slot}
        if kind == "trade":
            self.read_trade(value, &t)
            return {"price": t.price, "size": t.size, "aggressor": t.aggressor, "ts_event": t.ts_event,
                    "ts_init": t.ts_init, "slot": t.slot}
        if kind == "bar":
            self.read_bar(value, &b)
            return {"open": b.open, "high": b.high, "low": b.low, "close": b.close, "volume": b.volume,
                    "ts_event": b.ts_event, "ts_init": b.ts_init, "slot": b.slot}
        if kind == "depth":
            self.read_depth(value, &d)
            return {"bid_price": [d.bid_price[i] for i in range(TF_DEPTH_LEVELS)],
                    "bid_size": [d.bid_size[i] for i in range(TF_DEPTH_LEVELS)],
                    "ask_price": [d.ask_price[i] for i in range(TF_DEPTH_LEVELS)],
                    "ask_size": [d.ask_size[i] for i in range(TF_DEPTH_LEVELS)],
                    "ts_event": d.ts_event, "ts_init": d.ts_init, "slot": d.slot, "levels": d.levels}
        raise DataConversionError(f"`kind` must be quote, trade, bar or depth, was {kind!r}")

    def quote_view(self):
        """A reusable view of quotes: ``view.read(tick)`` fills it, its fields and ``np.asarray(view)`` show it."""
        return QuoteView(self)

    def trade_view(self):
        """A reusable view of trades."""
        return TradeView(self)

    @property
    def layout(self):
        """For each kind of object: whether it is read in place, its type, the reason if not, and the offsets found."""
        return {kind: {**note, "offsets": dict(note["offsets"])} for kind, note in NOTES.items()}

    @property
    def zero_copy(self):
        """Whether any type is read in place; set it to False to read attributes, to True to read in place again."""
        return any(layouts[kind].type != NULL for kind in range(KINDS)) or deltas_installed()

    @zero_copy.setter
    def zero_copy(self, on):
        if on:
            memcpy(layouts, found_layouts, sizeof(layouts))
        else:
            memset(layouts, 0, sizeof(layouts))
        switch_deltas(on)

    def install(self, str kind, type cls, sentinels, expected):
        """Find and verify the layout of a type; on success its objects are read in place from now on.

        Parameters
        ----------
        kind : {"quote", "trade", "bar", "depth"}
        cls : type
            Objects of exactly this type will be read in place; subclasses keep going through attributes.
        sentinels : sequence of objects
            Two or more objects of this type whose values all differ.
        expected : sequence of dict
            What each holds: ``as_double()`` of every price and size (lists of 10 for depth), ``ts_event``, ``ts_init``,
            ``instrument_id`` as text; for trades also ``aggressor`` (+1, -1, 0) and ``aggressor_code`` (the raw enum
            value), with all three values among the sentinels.

        Returns
        -------
        bool
            False if a field was not found at one place or did not read back; `layout` has the reason.
        """
        if kind not in NUMBER_FIELDS:
            raise DataConversionError(f"`kind` must be one of {', '.join(NUMBER_FIELDS)}, was {kind!r}")
        cdef int number_of = KIND_NAMES.index(kind)
        cdef tf_layout layout
        objects, values = list(sentinels), list(expected)
        memset(&layouts[number_of], 0, sizeof(tf_layout))
        memset(&found_layouts[number_of], 0, sizeof(tf_layout))
        note = {"zero_copy": False, "type": f"{cls.__module__}.{cls.__qualname__}", "reason": "", "offsets": {}}
        NOTES[kind] = note
        if os.environ.get(SWITCH, "1") == "0":
            note["reason"] = f"switched off by {SWITCH}=0"
            return False
        if len(objects) < 2 or len(objects) != len(values) or any(type(value) is not cls for value in objects):
            note["reason"] = "two or more sentinels of exactly this type are needed, with the values of each"
            return False
        try:
            offsets = probe(kind, objects, values, &layout)
            layouts[number_of] = layout
            layouts[number_of].type = <PyTypeObject *><PyObject *>cls
            for value, row in zip(objects, values):
                self._verify(kind, value, row)
        except (NotFound, KeyError, TypeError, ValueError, OverflowError) as error:
            memset(&layouts[number_of], 0, sizeof(tf_layout))
            note["reason"] = f"{type(error).__name__}: {error}"
            return False
        found_layouts[number_of] = layouts[number_of]
        TYPES.append(cls)
        note["zero_copy"], note["offsets"] = True, offsets
        return True

    def _verify(self, kind, value, row):
        """One sentinel through the fast path, every field against what it holds."""
        slots = InstrumentSlots()
        wanted = slots.register(row["instrument_id"])
        seen = TickReader(slots).event(kind, value)
        if seen["slot"] != wanted:
            raise NotFound("`instrument_id` did not read back")
        for field in (*NUMBER_FIELDS[kind], "ts_event", "ts_init", *(("aggressor",) if kind == "trade" else ())):
            if seen[field] != (list(row[field]) if kind == "depth" and field in NUMBER_FIELDS[kind] else row[field]):
                raise NotFound(f"`{field}` did not read back")

    def install_deltas(self, str library, str vector_of, str drop, type deltas_type, type delta_type, sentinel,
                       expected):
        """Open the route to the changes inside a boxed list of order book deltas, by two functions of its library.

        Parameters
        ----------
        library : str
            Path of the loaded shared library that owns such objects; it is not loaded again.
        vector_of, drop : str
            Its functions ``(const box *) -> {pointer, length, capacity}`` (a clone) and ``({...}) -> void``.
        deltas_type, delta_type : type
            Types of the list and of one change.
        sentinel : object of deltas_type
            Two or more changes whose values all differ.
        expected : sequence of dict
            What each change holds: action, side (raw enum values), price, size, order_id, flags, sequence, ts_event,
            ts_init.

        Returns
        -------
        bool
            False if a function or a field was not found; `layout` has the reason.

        Notes
        -----
        Calling a function through its name trusts its signature: the caller must have checked that the library is of
        a version for which these signatures are known.
        """
        note = {"zero_copy": False, "type": f"{deltas_type.__module__}.{deltas_type.__qualname__}", "reason": "",
                "offsets": {}}
        NOTES["deltas"] = note
        forget_deltas()
        if os.environ.get(SWITCH, "1") == "0":
            note["reason"] = f"switched off by {SWITCH}=0"
            return False
        note["reason"] = install_deltas(library, vector_of, drop, deltas_type, delta_type, sentinel, list(expected),
                                        note["offsets"])
        note["zero_copy"] = not note["reason"]
        return note["zero_copy"]

    def in_place(self, value):
        """Whether this very object is read in place, not through attributes."""
        cdef PyTypeObject *cls = Py_TYPE(<PyObject *>value)
        return deltas_in_place(value) or any(cls == layouts[kind].type for kind in range(KINDS))

    def read_deltas(self, value):
        """The changes of an order-book-deltas object as columns.

        Parameters
        ----------
        value : object
            Of the installed type, or anything with a ``deltas`` list of changes.

        Returns
        -------
        DeltaColumns

        Raises
        ------
        DataConversionError
            If the object does not have the attributes of such a list.
        """
        return read_deltas(value)


@cython.final
cdef class QuoteView:
    """One quote in memory that is reused: nothing is allocated when the next one is read.

    ``np.asarray(view)`` is bid price, ask price, bid size, ask size as float64 [4]; it follows every `read`.
    """

    def __cinit__(self, TickReader reader not None):
        self.reader = reader
        self.shape[0], self.strides[0] = 4, sizeof(double)
        memset(&self.data, 0, sizeof(tf_quote))
        self.data.slot = TF_SLOT_UNKNOWN

    def __reduce__(self):
        raise TypeError("a QuoteView cannot be pickled")

    @cython.binding(False)  # a plain C method: a third of the call's cost
    def read(self, tick, /):
        """Take the values of a quote."""
        self.reader.read_quote(tick, &self.data)

    @property
    def bid_price(self):
        """Best bid."""
        return self.data.bid_price

    @property
    def ask_price(self):
        """Best ask."""
        return self.data.ask_price

    @property
    def bid_size(self):
        """Size at the best bid."""
        return self.data.bid_size

    @property
    def ask_size(self):
        """Size at the best ask."""
        return self.data.ask_size

    @property
    def ts_event(self):
        """Event time, UTC ns."""
        return self.data.ts_event

    @property
    def ts_init(self):
        """Time the object was made, UTC ns."""
        return self.data.ts_init

    @property
    def slot(self):
        """Slot of the instrument, or None if it is not registered."""
        return None if self.data.slot == TF_SLOT_UNKNOWN else self.data.slot

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        _export(self, buffer, flags, &self.data, self.shape, self.strides)


@cython.final
cdef class TradeView:
    """One trade in memory that is reused; ``np.asarray(view)`` is price and size as float64 [2]."""

    def __cinit__(self, TickReader reader not None):
        self.reader = reader
        self.shape[0], self.strides[0] = 2, sizeof(double)
        memset(&self.data, 0, sizeof(tf_trade))
        self.data.slot = TF_SLOT_UNKNOWN

    def __reduce__(self):
        raise TypeError("a TradeView cannot be pickled")

    @cython.binding(False)
    def read(self, tick, /):
        """Take the values of a trade."""
        self.reader.read_trade(tick, &self.data)

    @property
    def price(self):
        """Price of the trade."""
        return self.data.price

    @property
    def size(self):
        """Size of the trade."""
        return self.data.size

    @property
    def aggressor(self):
        """+1 buyer, -1 seller, 0 unknown."""
        return self.data.aggressor

    @property
    def ts_event(self):
        """Event time, UTC ns."""
        return self.data.ts_event

    @property
    def ts_init(self):
        """Time the object was made, UTC ns."""
        return self.data.ts_init

    @property
    def slot(self):
        """Slot of the instrument, or None if it is not registered."""
        return None if self.data.slot == TF_SLOT_UNKNOWN else self.data.slot

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        _export(self, buffer, flags, &self.data, self.shape, self.strides)


cdef int _export(object owner, Py_buffer *buffer, int flags, void *data, Py_ssize_t *shape, Py_ssize_t *strides) except -1:
    if flags & PyBUF_WRITABLE:
        raise BufferError("the view is read-only: it is filled by read()")
    buffer.buf = data
    buffer.obj = owner
    buffer.len = shape[0] * sizeof(double)
    buffer.readonly = 1
    buffer.itemsize = sizeof(double)
    buffer.format = NULL
    if flags & PyBUF_FORMAT:
        buffer.format = "d"
    buffer.ndim = 1
    buffer.shape = shape if flags & PyBUF_ND else NULL
    buffer.strides = strides if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
    buffer.suboffsets = NULL
    buffer.internal = NULL
    return 0


reader = TickReader()
globals()["reader"] = reader

# The conversions belong to this face too. They need the reader themselves, so they come last.
from tengri_fast.market.bulk import (  # noqa: E402
    bars_from_objects,
    depth_from_objects,
    quotes_from_objects,
    trades_from_objects,
)
