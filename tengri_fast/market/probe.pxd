from tengri_fast.market.layout cimport tf_layout


# Building blocks of a search through the bytes of sentinels; each raises NotFound when the answer is not one place.
cdef list places_of_number(list memories, list values, bint wide)
cdef list places_of_integer(list memories, list values, Py_ssize_t width)
cdef object only_place(list places, str field)
cdef list distinct(list values, str field)

# Offsets by field name; `layout` is filled on success.
cdef dict probe(str kind, list objects, list expected, tf_layout *layout)

cdef dict NUMBER_FIELDS
