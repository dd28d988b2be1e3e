from libc.stdint cimport int32_t, uint64_t

from tengri_fast.inference.capi cimport tf_model, tf_session, tf_window
from tengri_fast.inference.session cimport Block, Session


cdef struct tf_clock:
    uint64_t last
    uint64_t sum
    uint64_t max


cdef struct tf_member:
    const tf_model *model   # of a native member
    tf_session *session     # one of session and window, both NULL for a member of another backend
    tf_window *window
    float *input
    const float *output
    float *answer           # where its (calibrated) output stands in the stacked row
    int32_t size
    int32_t healthy
    int32_t broken          # its prepare failed: out until it is reset
    double weight
    double temperature      # 0: the output as it is
    uint64_t steps
    uint64_t left_out
    tf_clock finish
    tf_clock prepare


cdef class EnsembleSession:
    cdef readonly object model
    cdef readonly object input
    cdef readonly object output
    cdef list sessions
    cdef list errors
    cdef Session stacker
    cdef Block block
    cdef tf_member *members
    cdef float *input_ptr
    cdef float *output_ptr
    cdef float *answers
    cdef double *sums
    cdef object row         # the input as other backends are shown it: read-only
    cdef int32_t inputs
    cdef int32_t outputs
    cdef int32_t count
    cdef int32_t total      # outputs of all members
    cdef bint stacked       # the stacker's prepare is due
    cdef int bind(self, object model, list sessions) except -1
    cdef int run_other(self, int32_t i) except -1
    cdef int prepare_other(self, int32_t i) except -1
    cdef void judge(self, tf_member *member, const float *y) noexcept nogil
    cdef void combine(self) noexcept nogil
    cdef int run_finish(self) except -1
    cdef int run_prepare(self) except -1
