"""Sessions of an ensemble: all members in one call, without Python for those on the native engine."""

from libc.math cimport NAN, exp, isfinite
from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cimport numpy as cnp

from tengri_fast.inference.capi cimport (
    TF_OK,
    tf_isa_select,
    tf_session_finish,
    tf_session_prepare,
    tf_timer_ns_per_tick,
    tf_timer_ticks,
    tf_window_finish,
    tf_window_prepare,
)
from tengri_fast.inference.session cimport Session, copy_row, make_block, view
from tengri_fast.inference.window cimport WindowSession

import hashlib
import os
import struct

import numpy as np

from tengri_fast.errors import ConfigurationError, InferenceFailed
from tengri_fast.inference.facts import MemberLatency

cnp.import_array()

__all__ = ["EnsembleSession"]

MAGIC = b"TGENSEM1"

if tf_isa_select(NULL) != TF_OK:
    raise ConfigurationError(
        f"`TENGRI_ISA` must name an instruction set this machine has, was {os.environ.get('TENGRI_ISA')!r}"
    )

# Set while this module makes an object: a bare EnsembleSession.__new__ would hold no memory to work on.
cdef bint making = False


def make_session(model):
    """A session of an ensemble, every member in zero state; see :meth:`Ensemble.session`."""
    return assemble(model, [model.member_session(name) for name in model.members])


cdef EnsembleSession assemble(object model, list sessions):
    global making
    cdef EnsembleSession session
    making = True
    try:
        session = EnsembleSession.__new__(EnsembleSession)
    finally:
        making = False
    cdef int32_t count = len(sessions), inputs = model.input_size, outputs = model.output_size
    cdef int32_t i, total = sum([member.output_size for member in model.members.values()])
    # Row offsets in floats, each on a cache line of its own: input, answers, output; then the sums in double.
    cdef size_t at_answers = (inputs + 15) // 16 * 16
    cdef size_t at_output = at_answers + (total + 15) // 16 * 16
    cdef size_t at_sums = at_output + (outputs + 15) // 16 * 16
    cdef size_t size = at_sums * sizeof(float) + outputs * sizeof(double)
    session.block = make_block(size)
    memset(session.block.ptr, 0, size)
    session.input_ptr = <float *> session.block.ptr
    session.answers = session.input_ptr + at_answers
    session.output_ptr = session.input_ptr + at_output
    session.sums = <double *> (session.input_ptr + at_sums)
    session.input = view(session.block, session.input_ptr, inputs, True)
    session.row = view(session.block, session.input_ptr, inputs, False)
    session.output = view(session.block, session.output_ptr, outputs, False)
    session.members = <tf_member *> calloc(count, sizeof(tf_member))
    if session.members is NULL:
        raise MemoryError(f"no memory for {count} members")
    session.count = count
    session.total = total
    session.inputs = inputs
    session.outputs = outputs
    session.errors = [None] * count
    session.bind(model, sessions)
    for i in range(count):
        session.members[i].healthy = 1
    if model.stacker is not None:
        session.stacker = model.stacker.session()
    return session


cdef inline void note_time(tf_clock *clock, uint64_t ticks) noexcept nogil:
    clock.last = ticks
    clock.sum += ticks
    if ticks > clock.max:
        clock.max = ticks


cdef class EnsembleSession:
    """Streaming state of an ensemble for one instrument. Not for use by two threads at once.

    Made by :meth:`Ensemble.session`; the methods are those of :class:`Session`.

    Attributes
    ----------
    model : Ensemble
        The ensemble it belongs to.
    input : numpy.ndarray of float32, shape [input_size]
        Writable view of the row that the next :meth:`finish` reads.
    output : numpy.ndarray of float32, shape [output_size]
        Read-only view of the last answer.

    Notes
    -----
    A member whose output is not finite, or that raises InferenceFailed, is left out of a mean and counted; health is
    judged at each step. A recurrent member whose state holds NaN stays out until :meth:`reset` or :meth:`reset_member`,
    and so does one whose `prepare` raised InferenceFailed.
    With no healthy member, or any unhealthy one under a stacker, the answer is NaN.
    """

    def __cinit__(self):
        if not making:
            raise TypeError("EnsembleSession is made by Ensemble.session()")

    def __dealloc__(self):
        free(self.members)

    cdef int bind(self, object model, list sessions) except -1:
        """Points the member table at these sessions."""
        cdef int32_t i, at = 0
        cdef tf_member *member
        cdef Session stream
        cdef WindowSession windowed
        self.model = model
        self.sessions = sessions
        for i, entry in enumerate(model.members.values()):
            member = &self.members[i]
            member.size = entry.output_size
            member.weight = model.weights[i]
            member.temperature = model.temperatures[i]
            member.answer = self.answers + at
            at += member.size
            if type(sessions[i]) is Session:
                stream = <Session> sessions[i]
                member.model = stream.model.ptr
                member.session = stream.ptr
                member.input = stream.input_ptr
                member.output = stream.output_ptr
            elif type(sessions[i]) is WindowSession:
                windowed = <WindowSession> sessions[i]
                member.window = windowed.ptr
                member.input = windowed.input_ptr
                member.output = windowed.output_ptr
        return 0

    cdef int run_other(self, int32_t i) except -1:
        """Finish of a member on another backend; its answer is checked for shape, as it comes from foreign code."""
        cdef tf_member *member = &self.members[i]
        try:
            y = np.ascontiguousarray(self.sessions[i].finish(self.row), np.float32)
        except InferenceFailed as error:
            self.errors[i] = str(error)
            member.healthy = 0
            return 0
        if y.shape != (member.size,):
            raise InferenceFailed(
                f"member `{list(self.model.members)[i]}` must answer with shape [{member.size}], was {list(y.shape)}"
            )
        self.judge(member, <const float *> cnp.PyArray_DATA(<cnp.ndarray> y))
        return 0

    cdef int prepare_other(self, int32_t i) except -1:
        """Prepare of a member on another backend. One that fails has lost its place in the stream and stays out."""
        if self.members[i].broken:
            return 0
        try:
            self.sessions[i].prepare()
        except InferenceFailed as error:
            self.errors[i] = str(error)
            self.members[i].healthy = 0
            self.members[i].broken = 1
        return 0

    cdef void judge(self, tf_member *member, const float *y) noexcept nogil:
        """Takes over an output if it is finite, calibrated where that was asked for."""
        cdef int32_t j
        cdef double top, total = 0.0
        member.healthy = 1
        for j in range(member.size):
            if not isfinite(y[j]):
                member.healthy = 0
                return
        if member.temperature <= 0.0:
            memcpy(member.answer, y, member.size * sizeof(float))
            return
        top = y[0]
        for j in range(1, member.size):
            top = max(top, <double> y[j])
        for j in range(member.size):
            total += exp((<double> y[j] - top) / member.temperature)
        for j in range(member.size):
            member.answer[j] = <float> (exp((<double> y[j] - top) / member.temperature) / total)

    cdef void combine(self) noexcept nogil:
        """The weighted mean of the healthy members' answers, summed in double in the members' order."""
        cdef int32_t i, j, size = self.members[0].size
        cdef double weight = 0.0
        for j in range(size):
            self.sums[j] = 0.0
        for i in range(self.count):
            if self.members[i].healthy:
                weight += self.members[i].weight
                for j in range(size):
                    self.sums[j] += self.members[i].weight * <double> self.members[i].answer[j]
        for j in range(size):
            self.output_ptr[j] = <float> (self.sums[j] / weight) if weight > 0.0 else NAN

    cdef int run_finish(self) except -1:
        cdef tf_member *member
        cdef uint64_t start
        cdef int32_t i, j, healthy = 0
        for i in range(self.count):
            member = &self.members[i]
            start = tf_timer_ticks()
            if member.session is not NULL:
                memcpy(member.input, self.input_ptr, self.inputs * sizeof(float))
                tf_session_finish(member.model, member.session)
                self.judge(member, member.output)
            elif member.window is not NULL:
                memcpy(member.input, self.input_ptr, self.inputs * sizeof(float))
                tf_window_finish(member.window)
                self.judge(member, member.output)
            elif member.broken:
                member.healthy = 0
            else:
                self.run_other(i)
            note_time(&member.finish, tf_timer_ticks() - start)
            member.steps += 1
            member.left_out += not member.healthy
            healthy += member.healthy
        if self.stacker is None:
            self.combine()
        elif healthy == self.count:
            memcpy(self.stacker.input_ptr, self.answers, self.total * sizeof(float))
            tf_session_finish(self.stacker.model.ptr, self.stacker.ptr)
            memcpy(self.output_ptr, self.stacker.output_ptr, self.outputs * sizeof(float))
            self.stacked = True
        else:
            for j in range(self.outputs):
                self.output_ptr[j] = NAN
        return 0

    cdef int run_prepare(self) except -1:
        cdef tf_member *member
        cdef uint64_t start
        cdef int32_t i
        for i in range(self.count):
            member = &self.members[i]
            start = tf_timer_ticks()
            if member.session is not NULL:
                tf_session_prepare(member.model, member.session)
            elif member.window is not NULL:
                tf_window_prepare(member.window)
            else:
                self.prepare_other(i)
            note_time(&member.prepare, tf_timer_ticks() - start)
        if self.stacked:
            tf_session_prepare(self.stacker.model.ptr, self.stacker.ptr)
            self.stacked = False
        return 0

    def finish(self, x=None):
        """The part of a step that needs the new row, for all members; returns the view :attr:`output`.

        Raises
        ------
        InferenceFailed
            If the shape of `x` is wrong, or that of a foreign member's answer.
        """
        if x is not None:
            copy_row(x, self.input_ptr, self.inputs)
        self.run_finish()
        return self.output

    def prepare(self):
        """The part of a step that does not need the next row, for all members."""
        self.run_prepare()

    def step(self, x=None):
        """One whole step; returns a new array with the output."""
        self.finish(x)
        self.run_prepare()
        return cnp.PyArray_NewCopy(<cnp.ndarray> self.output, cnp.NPY_CORDER)

    def reset(self):
        """Every member back to zero state, and healthy. Counts and latencies stay."""
        cdef int32_t i
        for i in range(self.count):
            self.sessions[i].reset()
            self.members[i].healthy = 1
            self.members[i].broken = 0
            self.errors[i] = None
        memset(self.output_ptr, 0, self.outputs * sizeof(float))

    def reset_member(self, name):
        """One member back to zero state, so that it may rejoin."""
        i = self.index(name)
        self.sessions[i].reset()
        self.members[<int> i].healthy = 1
        self.members[<int> i].broken = 0
        self.errors[i] = None

    def index(self, name):
        """The number of a member; ConfigurationError for a name that is none."""
        names = list(self.model.members)
        if name not in names:
            raise ConfigurationError(f"`name` must be a member ({', '.join(names)}), was {name!r}")
        return names.index(name)

    @property
    def healthy(self):
        """Whether each member's last output was finite, by name."""
        return {name: bool(self.members[i].healthy) for i, name in enumerate(self.model.members)}

    @property
    def left_out(self):
        """Steps at which each member was left out, by name."""
        return {name: self.members[i].left_out for i, name in enumerate(self.model.members)}

    @property
    def last_errors(self):
        """The text of the last InferenceFailed of each member that raised one, by name."""
        return {name: text for name, text in zip(self.model.members, self.errors, strict=True) if text is not None}

    def latencies(self):
        """What each member took, by name.

        Returns
        -------
        dict of str to MemberLatency
            Nanoseconds of finish (last, mean, max) and of prepare, since the session was made or
            :meth:`clear_latencies`; the timer's own 10 to 25 ns are included.
        """
        cdef double ns = tf_timer_ns_per_tick()
        cdef tf_member *member
        cdef uint64_t steps
        cdef int32_t i
        found = {}
        for i, name in enumerate(self.model.members):
            member = &self.members[i]
            steps = member.steps if member.steps != 0 else 1
            found[name] = MemberLatency(
                member.steps, member.finish.last * ns, member.finish.sum * ns / steps, member.finish.max * ns,
                member.prepare.last * ns, member.prepare.sum * ns / steps, member.prepare.max * ns,
            )
        return found

    def clear_latencies(self):
        """Begin the latency account anew."""
        cdef int32_t i
        for i in range(self.count):
            memset(&self.members[i].finish, 0, sizeof(tf_clock))
            memset(&self.members[i].prepare, 0, sizeof(tf_clock))
            self.members[i].steps = 0

    def copy(self):
        """An independent session in exactly this state; its counts and latencies begin at zero."""
        cdef EnsembleSession other = assemble(self.model, [session.copy() for session in self.sessions])
        cdef int32_t i
        memcpy(other.block.ptr, self.block.ptr, self.block.size)
        for i in range(self.count):
            other.members[i].healthy = self.members[i].healthy
            other.members[i].broken = self.members[i].broken
        other.errors = list(self.errors)
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def to_bytes(self):
        """The state of all members as bytes, bound to the ensemble, with a SHA-256.

        Raises
        ------
        InferenceFailed
            If a member's backend cannot save its sessions.
        """
        parts = [MAGIC, bytes.fromhex(self.model.sha256), self.output.tobytes()]
        for i, name in enumerate(self.model.members):
            save = getattr(self.sessions[i], "to_bytes", None)
            if save is None:
                raise InferenceFailed(f"member `{name}`: its backend cannot save sessions")
            state = save()
            parts += [struct.pack("<?Q", self.members[i].healthy, len(state)), state]
        body = b"".join(parts)
        return body + hashlib.sha256(body).digest()

    def from_bytes(self, data):
        """Take over a state saved by :meth:`to_bytes`. On an error nothing is changed.

        Raises
        ------
        InferenceFailed
            If the bytes are damaged, or of another ensemble.
        """
        data = bytes(data)
        cdef Py_ssize_t end = max(len(data) - 32, 0)
        body = data[:end]
        head = MAGIC + bytes.fromhex(self.model.sha256)
        cdef size_t wide = self.outputs * sizeof(float)
        if hashlib.sha256(body).digest() != data[end:] or not body.startswith(head):
            raise InferenceFailed("`data` must be a session saved by this ensemble, was damaged or of another")
        at = len(head) + wide
        states, healthy = [], []
        try:
            for _ in range(self.count):
                well, size = struct.unpack_from("<?Q", body, at)
                at += 9
                healthy.append(well)
                states.append(body[at:at + size])
                at += size
        except (struct.error, OverflowError):
            at = -1
        if at != len(body):
            raise InferenceFailed("`data` must be a session saved by this ensemble, was truncated")
        fresh = [session.copy() for session in self.sessions]
        for session, state in zip(fresh, states, strict=True):
            session.from_bytes(state)
        self.bind(self.model, fresh)
        cdef bytes output = body[len(head):len(head) + wide]
        memcpy(self.output_ptr, <const char *> output, wide)
        cdef int32_t i
        for i in range(self.count):
            self.members[i].healthy = healthy[i]
            self.members[i].broken = 0

    def __reduce__(self):
        raise TypeError("an EnsembleSession cannot be pickled: use to_bytes() and from_bytes()")
