from tengri_fast.inference.capi cimport tf_model, tf_session


cdef class Model:
    cdef tf_model *ptr
    cdef readonly int input_size
    cdef readonly int output_size
    cdef readonly tuple layers
    cdef readonly object sha256
    cdef readonly object isa
    cdef readonly object output_mode
    cdef readonly object declined


cdef class Block:
    cdef void *ptr
    cdef readonly size_t size


cdef class Session:
    cdef tf_session *ptr
    cdef readonly Model model
    cdef readonly object input
    cdef readonly object output
    cdef Block block
    cdef float *input_ptr
    cdef const float *output_ptr
    cdef int write(self, object x) except -1
