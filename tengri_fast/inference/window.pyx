"""Windowed sessions: the answer over the last T rows from zero state, at the cost of one step on the critical path."""

from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
cimport numpy as cnp

from tengri_fast.inference.capi cimport (
    TF_OK,
    tf_isa_select,
    tf_model_max_steps,
    tf_status,
    tf_status_text,
    tf_timer_ns_per_tick,
    tf_timer_ticks,
    tf_window,
    tf_window_bytes,
    tf_window_finish,
    tf_window_init,
    tf_window_input,
    tf_window_load,
    tf_window_output,
    tf_window_prepare,
    tf_window_reset,
    tf_window_save,
    tf_window_state_bytes,
)
from tengri_fast.inference.session cimport Model, copy_row, make_block, rows_of, view

import operator
import os

import numpy as np

from tengri_fast.errors import ConfigurationError, InferenceFailed

cnp.import_array()

__all__ = ["WindowSession"]

if tf_isa_select(NULL) != TF_OK:
    raise ConfigurationError(
        f"`TENGRI_ISA` must name an instruction set this machine has, was {os.environ.get('TENGRI_ISA')!r}"
    )

# Set while this module makes an object: a bare WindowSession.__new__ would hold no memory to work on.
cdef bint making = False


cdef str text_of(tf_status status):
    return (<bytes> tf_status_text(status)).decode()


def make_window(Model model, window):
    """A windowed session in zero state; see :meth:`Model.windowed`."""
    global making
    cdef int32_t limit = tf_model_max_steps(model.ptr)
    try:
        rows = operator.index(window)
    except TypeError:
        raise ConfigurationError(f"`window` must be a whole number of rows, was {window!r}") from None
    if rows < 1 or (limit > 0 and rows > limit) or rows >= 2**31:
        raise ConfigurationError(f"`window` must be >= 1{f' and <= {limit}' if limit else ''}, was {rows}")
    cdef size_t size = tf_window_bytes(model.ptr, rows)
    if size == 0:
        raise ConfigurationError(f"`window` must be small enough for its states to fit into memory, was {rows}")
    making = True
    cdef WindowSession session
    try:
        session = WindowSession.__new__(WindowSession)
    finally:
        making = False
    session.block = make_block(size)
    cdef tf_status status = tf_window_init(model.ptr, rows, session.block.ptr, size, &session.ptr)
    if status != TF_OK:
        raise InferenceFailed(f"windowed session: {text_of(status)}")
    session.model = model
    session.window = rows
    session.input_ptr = tf_window_input(session.ptr)
    session.output_ptr = tf_window_output(session.ptr)
    session.input = view(session.block, session.input_ptr, model.input_size, True)
    session.output = view(session.block, session.output_ptr, model.output_size, False)
    return session


cdef void time_window(tf_window *window, float *target, const float *x, int32_t rows, int32_t width, int32_t n,
                      double *finish_ns, double *prepare_ns) noexcept nogil:
    cdef double ns = tf_timer_ns_per_tick()
    cdef uint64_t start, middle, end
    cdef int32_t i
    for i in range(n):
        memcpy(target, x + <size_t> (i % rows) * width, width * sizeof(float))
        start = tf_timer_ticks()
        tf_window_finish(window)
        middle = tf_timer_ticks()
        tf_window_prepare(window)
        end = tf_timer_ticks()
        finish_ns[i] = <double> (middle - start) * ns
        prepare_ns[i] = <double> (end - middle) * ns


cdef class WindowSession:
    """Answers over the last `window` rows from zero state, as if they were recomputed at each step.

    Made by :meth:`Model.windowed`. One partial state per row of the window is carried along, so ``finish`` costs one
    step and ``prepare`` the others. Not for use by two threads at once.

    Attributes
    ----------
    model : Model
        The model it belongs to, and keeps alive.
    window : int
        Rows that an answer looks back on, the newest included. Until that many were seen it looks at those there are.
    input : numpy.ndarray of float32, shape [input_size]
        Writable view of the row that the next :meth:`finish` reads.
    output : numpy.ndarray of float32, shape [output_size]
        Read-only view of the last answer; it changes with each step.
    """

    def __cinit__(self):
        if not making:
            raise TypeError("WindowSession is made by Model.windowed(...)")

    cdef int idle(self) except -1:
        if self.busy:
            raise InferenceFailed("a session serves one thread at a time, and another is at work on it")
        return 0

    @property
    def nbytes(self):
        """Bytes of all its states, exact."""
        return tf_window_bytes(self.model.ptr, self.window)

    def step(self, x=None):
        """One whole step; returns a new array with the output.

        Parameters
        ----------
        x : array_like, shape [input_size], optional
            The row; without it the content of :attr:`input` is used. NaN gives NaN until it has left the window.

        Raises
        ------
        InferenceFailed
            If the shape is wrong.
        """
        self.finish(x)
        tf_window_prepare(self.ptr)
        return cnp.PyArray_NewCopy(<cnp.ndarray> self.output, cnp.NPY_CORDER)

    def finish(self, x=None):
        """The part of a step that needs the new row; returns the view :attr:`output`."""
        self.idle()
        if x is not None:
            copy_row(x, self.input_ptr, self.model.input_size)
        tf_window_finish(self.ptr)
        return self.output

    def prepare(self):
        """The part of a step that does not need the next row: all other states of the window move. Called once between
        two finishes; if it was forgotten, the next :meth:`finish` does it first.
        """
        self.idle()
        tf_window_prepare(self.ptr)

    def reset(self):
        """Back to an empty window."""
        self.idle()
        tf_window_reset(self.ptr)

    def copy(self):
        """An independent session in exactly this state."""
        cdef WindowSession other = make_window(self.model, self.window)
        other.from_bytes(self.to_bytes())
        memcpy(other.input_ptr, self.input_ptr, self.model.input_size * sizeof(float))
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def to_bytes(self):
        """The state as bytes, bound to the model and the window's length, with a checksum."""
        self.idle()
        cdef size_t size = tf_window_state_bytes(self.ptr)
        cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
        cdef tf_status status = tf_window_save(self.ptr, PyBytes_AS_STRING(data), size)
        if status != TF_OK:
            raise InferenceFailed(f"to_bytes: {text_of(status)}")
        return data

    def from_bytes(self, data):
        """Take over a state saved by :meth:`to_bytes`. On an error the state is unchanged.

        Raises
        ------
        InferenceFailed
            If the bytes are damaged, of another version, of another model or of another window.
        """
        self.idle()
        cdef const unsigned char[::1] raw = bytes(data)
        if raw.shape[0] == 0:
            raise InferenceFailed("`data` must be a saved session, was empty")
        cdef tf_status status = tf_window_load(self.ptr, &raw[0], raw.shape[0])
        if status != TF_OK:
            raise InferenceFailed(f"`data` must be a windowed session saved by this model: {text_of(status)}")

    def time_steps(self, x, int n):
        """Time `n` steps over the rows of `x`, taken in turn; see :meth:`Session.time_steps`. Moves the state forward.

        Returns
        -------
        numpy.ndarray of float64, shape [2, n]
            Nanoseconds of each ``finish`` (row 0) and of each ``prepare`` (row 1). The GIL is released meanwhile.
        """
        self.idle()
        rows = rows_of(x, self.model.input_size)
        if not 1 <= rows.shape[0] < 2**31:
            raise InferenceFailed(f"`x` must have shape [rows, {self.model.input_size}], had {list(rows.shape)}")
        if n < 1:
            raise InferenceFailed(f"`n` must be >= 1, was {n}")
        out = np.empty((2, n))
        cdef double[:, ::1] times = out
        cdef const float *x_ptr = <const float *> cnp.PyArray_DATA(<cnp.ndarray> rows)
        cdef int32_t count = <int32_t> rows.shape[0]
        self.busy = True
        with nogil:
            time_window(
                self.ptr, self.input_ptr, x_ptr, count, self.model.input_size, n, &times[0, 0], &times[1, 0]
            )
        self.busy = False
        return out

    def __reduce__(self):
        raise TypeError("a WindowSession cannot be pickled: use to_bytes() and from_bytes()")
