"""Finding where the fields of a type lie, from a few of its objects and the values they hold.

The bytes of each object are searched for each value; a field counts as found when exactly one place holds the right value
in every one of them. Nothing is trusted here: whoever asks must read everything back before the layout is used.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from tengri_fast.market.events cimport TF_DEPTH_LEVELS, tf_fixed64, tf_fixed128
from tengri_fast.market.layout cimport HEAD, tf_layout


cdef extern from "<unistd.h>" nogil:
    int pipe(int *ends)
    int close(int end)
    ssize_t write(int end, const void *data, size_t size)
    ssize_t read(int end, void *data, size_t size)

NUMBER_FIELDS = {
    "quote": ("bid_price", "ask_price", "bid_size", "ask_size"),
    "trade": ("price", "size"),
    "bar": ("open", "high", "low", "close", "volume"),
    "depth": ("bid_price", "bid_size", "ask_price", "ask_size"),
}


class NotFound(Exception):
    """A field could not be located; the text becomes the reason in `TickReader.layout`."""


cdef bytes memory_of(object value, Py_ssize_t size):
    return (<char *><PyObject *>value)[:size]


cdef double number_at(bytes memory, Py_ssize_t place, bint wide):
    cdef const char *data = memory
    return tf_fixed128(data + place) if wide else tf_fixed64(data + place)


cdef list places_of_number(list memories, list values, bint wide):
    cdef Py_ssize_t place, end = len(memories[0]) - (16 if wide else 8)
    return [place for place in range(HEAD, end + 1, 8)
            if all(number_at(memory, place, wide) == value for memory, value in zip(memories, values))]


cdef list places_of_integer(list memories, list values, Py_ssize_t width):
    encoded = [int(value).to_bytes(width, "little") for value in values]
    return [place for place in range(HEAD, len(memories[0]) - width + 1, width)
            if all(memory[place:place + width] == value for memory, value in zip(memories, encoded))]


cdef bint readable_text(uint64_t address, bytes text):
    """Whether `text` and its NUL stand at `address`. The kernel looks first: a bad address is an error code, no fault."""
    cdef int ends[2]
    cdef char back[256]
    cdef size_t size = <size_t>len(text) + 1
    cdef ssize_t whole = <ssize_t>size
    cdef bint same = False
    if address < 4096 or size > 256 or pipe(ends) != 0:
        return False
    if write(ends[1], <const void *><size_t>address, size) == whole and read(ends[0], back, size) == whole:
        same = back[:size] == text + b"\0"
    close(ends[0])
    close(ends[1])
    return same


def _places_of_time(memories, values):
    return places_of_integer(memories, values, 8)


def _places_of_text(list memories, list texts):
    return [place for place in range(HEAD, len(memories[0]) - 7, 8)
            if all(readable_text(int.from_bytes(memory[place:place + 8], "little"), text.encode())
                   for memory, text in zip(memories, texts))]


cdef object only_place(list places, str field):
    if len(places) != 1:
        raise NotFound(f"`{field}` must be at one place, was at {len(places)}")
    return places[0]


def _part(row, field):
    if field in ("symbol", "venue"):
        return str(row["instrument_id"]).rpartition(".")[0 if field == "symbol" else 2]
    return row[field]


def _pair(first_places, second_places, first, second):
    """One place each. Padding may hold leftovers of a value; then the two that lie side by side are the fields."""
    if len(first_places) == len(second_places) == 1:
        return first_places[0], second_places[0]
    pairs = [(place, place + 8) for place in first_places if place + 8 in second_places]
    return only_place(pairs, f"{first}` and `{second}")


cdef list distinct(list values, str field):
    if len(set(values)) < 2:
        raise NotFound(f"`{field}` must differ between sentinels")
    return values


def _expected_numbers(kind, expected):
    if kind != "depth":
        return [float(expected[field]) for field in NUMBER_FIELDS[kind]]
    return [float(value) for field in NUMBER_FIELDS[kind] for value in expected[field]]


cdef dict probe(str kind, list objects, list expected, tf_layout *layout):
    """Finds every field of `kind`; offsets by name. Raises NotFound."""
    cdef Py_ssize_t size = type(objects[0]).__basicsize__, i
    memories = [memory_of(value, size) for value in objects]
    offsets = {}
    numbers = [_expected_numbers(kind, values) for values in expected]
    names = [f"{field}[{level}]" for field in NUMBER_FIELDS[kind] for level in range(TF_DEPTH_LEVELS)] \
        if kind == "depth" else list(NUMBER_FIELDS[kind])
    taken = set()
    memset(layout, 0, sizeof(tf_layout))
    reasons = []
    for wide in (True, False):
        try:
            places = [only_place(places_of_number(memories, distinct([row[i] for row in numbers], name), wide), name)
                      for i, name in enumerate(names)]
        except NotFound as error:
            reasons.append(f"{'16' if wide else '8'}-byte numbers: {error}")
            continue
        layout.wide = wide
        break
    else:
        raise NotFound("; ".join(reasons))
    for i, (name, place) in enumerate(zip(names, places)):
        layout.number[i] = offsets[name] = place
        taken.update(range(place, place + (16 if layout.wide else 8)))
    for first, second, find in (("ts_event", "ts_init", _places_of_time), ("symbol", "venue", _places_of_text)):
        both = []
        for field in (first, second):
            values = distinct([_part(row, field) for row in expected], field)
            both.append([place for place in find(memories, values) if place not in taken])
        offsets[first], offsets[second] = _pair(*both, first, second)
        taken.update(*(range(offsets[field], offsets[field] + 8) for field in (first, second)))
    layout.ts_event, layout.ts_init = offsets["ts_event"], offsets["ts_init"]
    layout.symbol, layout.venue = offsets["symbol"], offsets["venue"]
    if kind == "trade":
        codes = [values["aggressor_code"] for values in expected]
        if len(set(codes)) < 3:
            raise NotFound("`aggressor` must take three values among the sentinels")
        for width in (4, 1):
            places = [place for place in places_of_integer(memories, codes, width) if place not in taken]
            if len(places) == 1:
                offsets["aggressor"] = layout.side = places[0]
                break
        else:
            raise NotFound("`aggressor` must be at one place, was not")
        for values in expected:
            layout.sign[<uint8_t>values["aggressor_code"]] = values["aggressor"]
    return offsets
