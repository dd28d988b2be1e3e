from libc.stdint cimport int32_t

from tengri_fast.inference.capi cimport tf_batch, tf_session, tf_team
from tengri_fast.inference.session cimport Block, Model, Session


cdef class Batch:
    cdef tf_batch *ptr
    cdef readonly Model model
    cdef readonly int capacity
    cdef readonly tuple sessions
    cdef Block block
    cdef tf_session **bound
    cdef int32_t count
    cdef bint busy
    cdef bint long_call     # so long that giving up the interpreter lock pays
    cdef int take(self) except -1
    cdef void leave(self)
    cdef int run(self, bint finish, bint prepare) except -1


cdef class Team:
    cdef tf_team *ptr
    cdef readonly int workers
    cdef readonly object cpus
    cdef readonly double spin_us
    cdef int check(self, Session session) except -1
