from tengri_fast.inference.capi cimport tf_window
from tengri_fast.inference.session cimport Block, Model


cdef class WindowSession:
    cdef tf_window *ptr
    cdef readonly Model model
    cdef readonly int window
    cdef readonly object input
    cdef readonly object output
    cdef Block block
    cdef float *input_ptr
    cdef const float *output_ptr
    cdef bint busy          # at work without the interpreter lock
    cdef int idle(self) except -1
