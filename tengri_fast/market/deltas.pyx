"""The changes inside a boxed list of order book deltas, by two functions of the library that owns such lists.

The list holds its changes behind a pointer of its own, so reading it in place takes a function that gives a vector of
them and one that frees that vector. Where the fields of one change lie is found and read back as for any other type.
"""

import numpy as np

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from tengri_fast.market.attributes cimport sign_of, wrong_object
from tengri_fast.market.book cimport tf_book, tf_book_apply
from tengri_fast.market.events cimport tf_delta, tf_fixed128
from tengri_fast.market.layout cimport HEAD, integer
from tengri_fast.market.probe cimport distinct, only_place, places_of_integer, places_of_number

from tengri_fast.market.columns import DeltaColumns
from tengri_fast.market.probe import NotFound


cdef extern from "Python.h":
    PyTypeObject *Py_TYPE(PyObject *value) nogil

cdef extern from "<dlfcn.h>" nogil:
    int RTLD_LAZY
    int RTLD_NOLOAD
    void *dlopen(const char *path, int flags)
    void *dlsym(void *library, const char *name)

cdef enum:
    DELTA_BYTES = 160

cdef struct tf_vector:      # the FFI vector of Nautilus: pointer, length, capacity
    void *data
    size_t length
    size_t capacity

ctypedef tf_vector (*tf_vector_of)(const void *) noexcept
ctypedef void (*tf_vector_drop)(tf_vector) noexcept

cdef struct tf_delta_layout:
    PyTypeObject *type
    uint32_t handle         # of the boxed deltas inside the object
    uint32_t stride
    uint32_t action
    uint32_t side
    uint32_t price
    uint32_t size
    uint32_t order_id
    uint32_t flags
    uint32_t sequence
    uint32_t ts_event
    uint32_t ts_init
    tf_vector_of vector_of
    tf_vector_drop drop

cdef tf_delta_layout route          # in use; no type: read attributes
cdef tf_delta_layout found_route    # what was found, for switching back
memset(&route, 0, sizeof(route))
memset(&found_route, 0, sizeof(found_route))
cdef list TYPES = []  # keeps the installed type alive, so that its address stays its own


cdef bint deltas_installed() noexcept:
    return route.type != NULL


cdef bint deltas_in_place(object value) noexcept:
    return route.type != NULL and Py_TYPE(<PyObject *>value) == route.type


cdef void switch_deltas(bint on) noexcept:
    global route
    if on:
        route = found_route
    else:
        memset(&route, 0, sizeof(route))


cdef void forget_deltas() noexcept:
    memset(&route, 0, sizeof(route))
    memset(&found_route, 0, sizeof(found_route))


cdef str install_deltas(str library, str vector_of, str drop, type deltas_type, type delta_type, object sentinel,
                        list expected, dict offsets):
    global route, found_route
    cdef tf_delta_layout layout
    cdef void *handle
    cdef tf_vector vector
    memset(&layout, 0, sizeof(layout))
    if delta_type.__basicsize__ != 32 + DELTA_BYTES or deltas_type.__basicsize__ != 32 \
            or type(sentinel) is not deltas_type or len(expected) < 2:
        return "object sizes are not those of the known layout"
    path = library.encode()
    handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD)
    if handle == NULL:
        return f"{library} is not loaded"
    layout.vector_of = <tf_vector_of>dlsym(handle, vector_of.encode())
    layout.drop = <tf_vector_drop>dlsym(handle, drop.encode())
    if layout.vector_of == NULL or layout.drop == NULL:
        return f"{vector_of} or {drop} is not exported by {library}"
    layout.handle = deltas_type.__basicsize__ - sizeof(void *)
    layout.stride = DELTA_BYTES
    vector = layout.vector_of(<const char *><PyObject *>sentinel + layout.handle)
    places, taken = {}, set()
    try:
        if vector.length != <size_t>len(expected) or vector.data == NULL:
            raise NotFound(f"the list must have {len(expected)} changes, had {vector.length}")
        memories = [bytes(HEAD) + (<char *>vector.data)[i * DELTA_BYTES:(i + 1) * DELTA_BYTES]
                    for i in range(len(expected))]
        for field in ("price", "size"):
            values = distinct([row[field] for row in expected], field)
            place = only_place(places_of_number(memories, values, True), field)
            taken.update(range(place, place + 16))
            places[field] = place - HEAD
        for field, width in (("ts_event", 8), ("ts_init", 8), ("sequence", 8), ("order_id", 8), ("action", 4),
                             ("side", 4), ("flags", 1)):
            values = distinct([row[field] for row in expected], field)
            place = only_place([p for p in places_of_integer(memories, values, width) if p not in taken], field)
            taken.update(range(place, place + width))
            places[field] = place - HEAD
    except (NotFound, KeyError, TypeError, ValueError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        layout.drop(vector)
    layout.action, layout.side, layout.flags = places["action"], places["side"], places["flags"]
    layout.price, layout.size, layout.order_id = places["price"], places["size"], places["order_id"]
    layout.sequence, layout.ts_event, layout.ts_init = places["sequence"], places["ts_event"], places["ts_init"]
    layout.type = <PyTypeObject *><PyObject *>deltas_type
    TYPES.append(deltas_type)
    route = layout
    seen = read_deltas(sentinel)
    for field in ("action", "price", "size", "order_id", "flags", "sequence", "ts_event", "ts_init"):
        if getattr(seen, field).tolist() != [row[field] for row in expected]:
            memset(&route, 0, sizeof(route))
            return f"`{field}` did not read back"
    found_route = layout
    offsets.update(places)
    return ""


cdef object read_deltas(object value):
    cdef bint in_place = deltas_in_place(value)
    cdef tf_vector vector
    cdef Py_ssize_t n, i
    cdef const char *at
    if in_place:
        vector = route.vector_of(<const char *><PyObject *>value + route.handle)
        n = vector.length
    else:
        try:
            rows = value.deltas
            n = len(rows)
        except (AttributeError, TypeError) as error:
            raise wrong_object("deltas", value, error) from None
    try:
        numbers, integers, small = np.empty((2, n)), np.empty((4, n), np.uint64), np.empty((3, n), np.uint8)
        price, size = numbers
        order_id, sequence, ts_event, ts_init = integers
        action, flags, side = small
        side = side.view(np.int8)
        if in_place:
            _fill_deltas(<const char *>vector.data, n, numbers, integers, small)
        else:
            for i, row in enumerate(rows):
                order = row.order
                action[i], flags[i], sequence[i] = int(row.action), row.flags, row.sequence
                # A change that clears the book carries no order.
                side[i] = 0 if order is None else sign_of(order.side)
                price[i] = 0.0 if order is None else order.price.as_double()
                size[i] = 0.0 if order is None else order.size.as_double()
                order_id[i] = 0 if order is None else order.order_id
                ts_event[i], ts_init[i] = row.ts_event, row.ts_init
    except (AttributeError, TypeError, OverflowError, ValueError) as error:
        raise wrong_object("deltas", value, error) from None
    finally:
        if in_place:
            route.drop(vector)
    return DeltaColumns._of(action=action, side=side, price=price, size=size, order_id=order_id, flags=flags,
                            sequence=sequence, ts_event=ts_event, ts_init=ts_init)


cdef void _fill_deltas(const char *at, Py_ssize_t n, double[:, ::1] numbers, uint64_t[:, ::1] integers,
                       uint8_t[:, ::1] small):
    cdef Py_ssize_t i
    cdef uint8_t code
    with nogil:
        for i in range(n):
            code = <uint8_t>at[route.side]
            numbers[0, i] = tf_fixed128(at + route.price)
            numbers[1, i] = tf_fixed128(at + route.size)
            integers[0, i] = integer(at, route.order_id)
            integers[1, i] = integer(at, route.sequence)
            integers[2, i] = integer(at, route.ts_event)
            integers[3, i] = integer(at, route.ts_init)
            small[0, i] = <uint8_t>at[route.action]
            small[1, i] = <uint8_t>at[route.flags]
            small[2, i] = <uint8_t>(1 if code == 1 else (255 if code == 2 else 0))  # -1 as int8
            at += route.stride


cdef inline void _delta_in_place(const char *at, tf_delta *out) noexcept nogil:
    cdef uint8_t code = <uint8_t>at[route.side]
    out.price, out.size = tf_fixed128(at + route.price), tf_fixed128(at + route.size)
    out.order_id, out.sequence = integer(at, route.order_id), integer(at, route.sequence)
    out.ts_event, out.ts_init = integer(at, route.ts_event), integer(at, route.ts_init)
    out.action, out.flags = <uint8_t>at[route.action], <uint8_t>at[route.flags]
    out.side = 1 if code == 1 else (-1 if code == 2 else 0)


cdef int _delta_by_attributes(object row, tf_delta *out) except -1:
    order = row.order
    out.action, out.flags, out.sequence = int(row.action), row.flags, row.sequence
    out.ts_event, out.ts_init = row.ts_event, row.ts_init
    out.side, out.price, out.size, out.order_id = 0, 0.0, 0.0, 0
    if order is not None:  # a change that clears the book carries no order
        out.side, out.order_id = sign_of(order.side), order.order_id
        out.price, out.size = order.price.as_double(), order.size.as_double()
    return 0


cdef int feed_deltas(object value, uint32_t slot, tf_book *book, tf_delta *last) except -1:
    cdef tf_vector vector
    cdef const char *at
    cdef size_t i
    cdef int flags = 0
    memset(last, 0, sizeof(tf_delta))
    last.slot = slot
    if deltas_in_place(value):
        # The library's own copy of its list: the only way that it offers to the inside of the box.
        vector = route.vector_of(<const char *><PyObject *>value + route.handle)
        at = <const char *>vector.data
        for i in range(vector.length):
            _delta_in_place(at, last)
            tf_book_apply(book, last)
            flags |= last.flags
            at += route.stride
        route.drop(vector)
        return flags
    try:
        for row in value.deltas:
            _delta_by_attributes(row, last)
            tf_book_apply(book, last)
            flags |= last.flags
    except (AttributeError, TypeError, OverflowError, ValueError) as error:
        raise wrong_object("deltas", value, error) from None
    return flags
