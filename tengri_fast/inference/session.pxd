from tengri_fast.inference.capi cimport tf_isa, tf_model, tf_session


cdef class Model:
    cdef tf_model *ptr
    cdef readonly int input_size
    cdef readonly int output_size
    cdef readonly object network
    cdef readonly tuple layers
    cdef readonly tuple outputs
    cdef readonly object metadata
    cdef readonly str format
    cdef readonly object sha256
    cdef readonly object isa
    cdef readonly object output_mode
    cdef readonly object declined
    cdef Block mapped       # the bytes of a compiled model, which it reads for life


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
    cdef bint busy          # at work without the interpreter lock
    cdef int idle(self) except -1
    cdef int write(self, object x) except -1


cdef tf_isa isa_of(object name) except *
cdef Block make_block(size_t size)
cdef object view(Block block, const float *data, int size, bint writable)
cdef int copy_row(object x, float *target, int size) except -1
cdef object rows_of(object x, int width)
cdef Model adopt(tf_model *ptr, dict facts)
