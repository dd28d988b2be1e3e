"""Many sessions in one call, and one large session over several cores."""

from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cimport numpy as cnp

from tengri_fast.inference.capi cimport (
    TF_OK,
    tf_batch_bytes,
    tf_batch_finish,
    tf_batch_init,
    tf_batch_prepare,
    tf_isa_select,
    tf_model_traffic,
    tf_session,
    tf_status,
    tf_status_text,
    tf_team_create,
    tf_team_finish,
    tf_team_free,
    tf_team_prepare,
)
from tengri_fast.inference.session cimport Model, Session, make_block, rows_of

import operator
import os

import numpy as np

from tengri_fast.errors import ConfigurationError, InferenceFailed

cnp.import_array()

__all__ = ["Batch", "Team"]

if tf_isa_select(NULL) != TF_OK:
    raise ConfigurationError(
        f"`TENGRI_ISA` must name an instruction set this machine has, was {os.environ.get('TENGRI_ISA')!r}"
    )

# Set while this module makes a Batch: a bare Batch.__new__ would hold no memory to work on.
cdef bint making = False

# Weight bytes times sessions from which a call takes long enough (some 50 us) that other threads should run meanwhile.
cdef enum:
    LONG_CALL = 4 << 20


cdef str text_of(tf_status status):
    return (<bytes> tf_status_text(status)).decode()


cdef int whole(str name, object value, int least, int most) except? -1:
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigurationError(f"`{name}` must be a whole number, was {value!r}") from None
    if not least <= number <= most:
        raise ConfigurationError(f"`{name}` must be in [{least}, {most}], was {number}")
    return number


def make_batch(Model model, capacity):
    """A batch without sessions yet; see :meth:`Model.batch`."""
    global making
    cdef int room = whole("capacity", capacity, 1, 1 << 20)
    cdef size_t size = tf_batch_bytes(model.ptr, room)
    cdef Batch batch
    making = True
    try:
        batch = Batch.__new__(Batch)
    finally:
        making = False
    batch.block = make_block(size)
    cdef tf_status status = tf_batch_init(model.ptr, room, batch.block.ptr, size, &batch.ptr)
    if status != TF_OK:
        raise InferenceFailed(f"batch: {text_of(status)}")
    batch.model = model
    batch.capacity = room
    batch.sessions = ()
    return batch


cdef class Batch:
    """Steps many sessions of one model together: each weight is read once for several of them.

    Made by :meth:`Model.batch`. The answers are those of stepping each session alone, bit for bit. For one thread at a
    time.

    Attributes
    ----------
    model : Model
        The model of every session.
    capacity : int
        Sessions that share one reading of the weights.
    sessions : tuple of Session
        The sessions bound last; handing in the very same tuple again costs no check.

    Notes
    -----
    Calls that take long (many sessions, a large model) release the GIL; the sessions refuse other threads meanwhile.
    """

    def __cinit__(self):
        if not making:
            raise TypeError("Batch is made by Model.batch(...)")

    def __dealloc__(self):
        free(self.bound)

    def bind(self, sessions):
        """Choose the sessions of the next calls.

        Parameters
        ----------
        sessions : sequence of Session
            Of this model, no one twice; any number, also more than :attr:`capacity`.

        Raises
        ------
        InferenceFailed
            If one is of another model or stands twice. The sessions bound before stay.
        """
        if self.busy:
            raise InferenceFailed("a batch serves one thread at a time, and another is at work on it")
        cdef tuple found = tuple(sessions)
        cdef Py_ssize_t i, count = len(found)
        cdef Session session
        if count > 2**31 - 1:
            raise InferenceFailed(f"`sessions` must be fewer than 2**31, were {count}")
        for i in range(count):
            if type(found[i]) is not Session:
                raise InferenceFailed(f"`sessions` must hold Session objects, held {type(found[i]).__name__}")
            session = <Session> found[i]
            if session.model is not self.model:
                raise InferenceFailed(f"`sessions` must be of the batch's own model, number {i} is of another")
        if len({id(entry) for entry in found}) != count:
            raise InferenceFailed("`sessions` must hold no session twice")
        cdef tf_session **bound = <tf_session **> calloc(max(count, 1), sizeof(tf_session *))
        if bound is NULL:
            raise MemoryError(f"no memory for {count} sessions")
        for i in range(count):
            bound[i] = (<Session> found[i]).ptr
        free(self.bound)
        self.bound = bound
        self.count = <int32_t> count
        self.sessions = found
        cdef size_t finish = 0, prepare = 0
        tf_model_traffic(self.model.ptr, -1, &finish, &prepare)
        self.long_call = <double> (finish + prepare) * <double> count >= LONG_CALL

    cdef int take(self) except -1:
        """Marks batch and sessions as at work; nothing is marked when one of them is already."""
        cdef Py_ssize_t i
        if self.busy:
            raise InferenceFailed("a batch serves one thread at a time, and another is at work on it")
        for i in range(self.count):
            (<Session> self.sessions[i]).idle()
        self.busy = True
        for i in range(self.count):
            (<Session> self.sessions[i]).busy = True
        return 0

    cdef void leave(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            (<Session> self.sessions[i]).busy = False
        self.busy = False

    cdef int run(self, bint finish, bint prepare) except -1:
        self.take()
        if self.long_call:
            with nogil:
                if finish:
                    tf_batch_finish(self.ptr, self.bound, self.count)
                if prepare:
                    tf_batch_prepare(self.ptr, self.bound, self.count)
        else:
            if finish:
                tf_batch_finish(self.ptr, self.bound, self.count)
            if prepare:
                tf_batch_prepare(self.ptr, self.bound, self.count)
        self.leave()
        return 0

    def finish(self, sessions=None):
        """The part of a step that needs the new rows, for all sessions; each reads its ``input`` and sets its
        ``output``.

        Parameters
        ----------
        sessions : sequence of Session, optional
            Bound first (:meth:`bind`); default: those bound last.
        """
        if sessions is not None and sessions is not self.sessions:
            self.bind(sessions)
        self.run(True, False)

    def prepare(self, sessions=None):
        """The part of a step that does not need the next rows, for all sessions."""
        if sessions is not None and sessions is not self.sessions:
            self.bind(sessions)
        self.run(False, True)

    def step(self, x=None, sessions=None):
        """One whole step of all sessions.

        Parameters
        ----------
        x : array_like, shape [n, input_size], optional
            One row per session, in their order; without it each session's ``input`` is used.
        sessions : sequence of Session, optional
            Bound first; default: those bound last.

        Returns
        -------
        numpy.ndarray of float32, shape [n, output_size]
            One answer per session.

        Raises
        ------
        InferenceFailed
            If the shape is wrong; no session has moved then.
        """
        if sessions is not None and sessions is not self.sessions:
            self.bind(sessions)
        cdef size_t width = self.model.input_size * sizeof(float)
        cdef size_t wide = self.model.output_size * sizeof(float)
        cdef const char *source
        cdef Py_ssize_t i
        if x is not None:
            rows = rows_of(x, self.model.input_size)
            if rows.shape[0] != self.count:
                raise InferenceFailed(
                    f"`x` must have shape [{self.count}, {self.model.input_size}], had {list(rows.shape)}"
                )
            if self.busy:
                raise InferenceFailed("a batch serves one thread at a time, and another is at work on it")
            for i in range(self.count):
                (<Session> self.sessions[i]).idle()
            source = <const char *> cnp.PyArray_DATA(<cnp.ndarray> rows)
            for i in range(self.count):
                memcpy((<Session> self.sessions[i]).input_ptr, source + i * width, width)
        self.run(True, True)
        out = np.empty((self.count, self.model.output_size), np.float32)
        cdef char *target = <char *> cnp.PyArray_DATA(<cnp.ndarray> out)
        for i in range(self.count):
            memcpy(target + i * wide, (<Session> self.sessions[i]).output_ptr, wide)
        return out

    def __len__(self):
        return self.count

    def __reduce__(self):
        raise TypeError("a Batch cannot be pickled: make one by Model.batch()")


cdef class Team:
    """A few worker threads that share the work of one large model with the caller. Opt-in, and a context manager.

    Parameters
    ----------
    workers : int
        Threads beside the caller, >= 1.
    cpus : sequence of int, optional
        One processor per worker to be pinned to; default: not pinned.
    spin_us : float, default 50.0
        Microseconds for which an idle worker keeps looking for work before it sleeps. A longer spin answers sooner and
        burns the core.

    Notes
    -----
    Worth it from about 0.5 MB of weights. The answers are those of one thread, bit for bit. One caller at a time; calls
    keep the GIL, which the workers do not need.

    Examples
    --------
    >>> with Team(1) as team:            # doctest: +SKIP
    ...     team.finish(session)
    ...     act_on(session.output)
    ...     team.prepare(session)
    """

    def __init__(self, workers, cpus=None, *, spin_us=50.0):
        if self.ptr is not NULL:
            raise TypeError("a Team is set up once")
        self.workers = whole("workers", workers, 1, 1024)
        self.spin_us = float(spin_us)
        if not 0.0 <= self.spin_us <= 1e6:
            raise ConfigurationError(f"`spin_us` must be in [0, 1e6], was {spin_us}")
        self.cpus = None if cpus is None else tuple([whole("cpus", cpu, 0, 1 << 20) for cpu in cpus])
        cdef int32_t *pinned = NULL
        cdef tf_status status
        cdef int i
        if self.cpus is not None:
            if len(self.cpus) != self.workers:
                raise ConfigurationError(f"`cpus` must name {self.workers} processors, named {len(self.cpus)}")
            pinned = <int32_t *> calloc(self.workers, sizeof(int32_t))
            if pinned is NULL:
                raise MemoryError("no memory for the list of processors")
            for i in range(self.workers):
                pinned[i] = self.cpus[i]
        status = tf_team_create(self.workers, pinned, <uint64_t> (self.spin_us * 1e3), &self.ptr)
        free(pinned)
        if status != TF_OK:
            where = f" on processors {list(self.cpus)}" if self.cpus else ""
            raise ConfigurationError(f"`workers` could not be started{where}: {text_of(status)}")

    def __dealloc__(self):
        if self.ptr is not NULL:
            tf_team_free(self.ptr)

    cdef int check(self, Session session) except -1:
        if self.ptr is NULL:
            raise InferenceFailed("the team was closed")
        if session is None:
            raise InferenceFailed("`session` must be a Session, was None")
        return session.idle()

    def finish(self, Session session, x=None):
        """:meth:`Session.finish`, shared with the workers; returns the view ``session.output``."""
        self.check(session)
        if x is not None:
            session.write(x)
        tf_team_finish(self.ptr, session.model.ptr, session.ptr)
        return session.output

    def prepare(self, Session session):
        """:meth:`Session.prepare`, shared with the workers."""
        self.check(session)
        tf_team_prepare(self.ptr, session.model.ptr, session.ptr)

    def step(self, Session session, x=None):
        """:meth:`Session.step`, shared with the workers; returns a new array with the output."""
        self.finish(session, x)
        tf_team_prepare(self.ptr, session.model.ptr, session.ptr)
        return cnp.PyArray_NewCopy(<cnp.ndarray> session.output, cnp.NPY_CORDER)

    def close(self):
        """Stop the workers and wait for them; safe to call twice."""
        if self.ptr is not NULL:
            tf_team_free(self.ptr)
        self.ptr = NULL

    def __enter__(self):
        if self.ptr is NULL:
            raise InferenceFailed("the team was closed")
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def __reduce__(self):
        raise TypeError("a Team cannot be pickled: it holds threads")
