from libc.stdint cimport uint8_t, uint32_t

from tengri_fast.risk.capi cimport tf_risk


cdef class Recent:
    cdef dict _slots
    cdef list _keys
    cdef list _values
    cdef Py_ssize_t _at
    cdef Py_ssize_t _size
    cpdef put(self, object key, object value=*)
    cpdef get(self, object key, object default=*)
    cpdef pop(self, object key, object default=*)
    cpdef clear(self)


cdef class Names:
    cdef tf_risk *_core
    cdef dict _codes
    cdef list _texts
    cdef list _free
    cdef uint8_t *_marks
    cdef uint32_t _room
    cdef Py_ssize_t _limit
    cdef uint32_t code(self, str text) except? 0xFFFFFFFF
    cdef str text(self, uint32_t code)
    cdef void pin(self, uint32_t code) noexcept
    cdef int _sweep(self) except -1
