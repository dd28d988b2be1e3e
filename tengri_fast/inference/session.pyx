"""Native models and their streaming sessions; the C side is csrc/nn."""

from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from tengri_fast.inference.capi cimport (
    TF_ISA_COUNT,
    TF_OK,
    tf_fault,
    tf_isa,
    tf_isa_active,
    tf_isa_available,
    tf_isa_name,
    tf_isa_select,
    tf_model,
    tf_model_bytes,
    tf_model_create,
    tf_model_free,
    tf_model_hash,
    tf_model_input_size,
    tf_model_isa,
    tf_model_max_steps,
    tf_model_output_size,
    tf_model_period,
    tf_model_run_window,
    tf_model_session_bytes,
    tf_model_traffic,
    tf_session_finish,
    tf_session_init,
    tf_session_input,
    tf_session_load,
    tf_session_output,
    tf_session_prepare,
    tf_session_reset,
    tf_session_save,
    tf_session_state_bytes,
    tf_session_steps,
    tf_session_time,
    tf_status,
    tf_status_text,
)
from tengri_fast.inference.describe cimport Description

import hashlib
import os
from types import MappingProxyType

import numpy as np

from tengri_fast.errors import ConfigurationError, InferenceFailed, ModelLoadingError
from tengri_fast.inference.facts import NodeTraffic
from tengri_fast.inference.network import chain

cnp.import_array()

cdef extern from *:
    """
    #include <stdlib.h>
    static void *tengri_aligned(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }
    """
    void *tengri_aligned(size_t bytes) nogil

__all__ = ["Model", "Session"]


cdef str isa_names():
    return ", ".join([(<bytes> tf_isa_name(<tf_isa> i)).decode() for i in range(<int> TF_ISA_COUNT)])


if tf_isa_select(NULL) != TF_OK:
    raise ConfigurationError(
        f"`TENGRI_ISA` must name an instruction set this machine has (of {isa_names()}), was "
        f"{os.environ.get('TENGRI_ISA')!r}"
    )


# Set while this module makes an object: a bare Model.__new__(Model) would hold no memory to work on.
cdef bint making = False


cdef str text_of(tf_status status):
    return (<bytes> tf_status_text(status)).decode()


cdef tf_isa isa_of(object name) except *:
    """The instruction set of that name, None for the active one; ConfigurationError when it cannot run here."""
    if name is None:
        return tf_isa_active()
    cdef int i
    for i in range(<int> TF_ISA_COUNT):
        if name == (<bytes> tf_isa_name(<tf_isa> i)).decode():
            if not tf_isa_available(<tf_isa> i):
                raise ConfigurationError(f"`isa` must be one this machine can run, was {name!r}")
            return <tf_isa> i
    raise ConfigurationError(f"`isa` must be one of {isa_names()}, was {name!r}")


cdef class Model:
    """An immutable network, packed for one instruction set.

    Made by :meth:`from_onnx`, :meth:`from_network`, :meth:`from_layers` or :meth:`from_compiled`; share one model
    between any number of sessions and threads.

    Attributes
    ----------
    input_size, output_size : int
        Width of one input row and of one output row.
    network : Network or None
        What it was made of; None for a compiled model, whose weights are packed.
    layers : tuple of Layer, or of CompiledLayer for a compiled model
        The layers in the order in which they run.
    outputs : tuple of (str, int)
        Name and width of each output, in the order in which they lie in the output row; at least one.
    metadata : mapping of str to str
        What the artefact says of itself.
    format : str
        "fp32", "fp16", "bf16", "int8", "int8a16" or "mixed".
    sha256 : str
        SHA-256 of the ONNX bytes, or of wiring and weights when built by :meth:`from_network` or :meth:`from_layers`.
        A compiled file carries that of its source.
    isa : str
        Instruction set of its kernels, fixed for life.
    output_mode : str
        "every" if the ONNX graph yields an output row at each step, "last" if only at the end of a window. Sessions
        yield a row at each step either way.
    declined : None
        Always None here; a model on another backend says in this attribute why the native engine declined it.
    """

    backend = "native"

    def __cinit__(self):
        if not making:
            raise TypeError("Model is made by Model.from_onnx(...), from_network, from_layers or from_compiled")

    def __dealloc__(self):
        tf_model_free(self.ptr)

    @staticmethod
    def from_onnx(source, *, isa=None, format=None, window=None):
        """Read an ONNX file or its bytes.

        Parameters
        ----------
        source : str, os.PathLike or bytes
            Path of a file, or the file's content.
        isa : str, optional
            An instruction set of this machine; default: the active one (``TENGRI_ISA`` or the best).
        format : str, optional
            "fp16" or "bf16" stores the weights of a float model in 16 bits. Default: as the file has them; the integer
            formats are made by quantisation, which needs data.
        window : int, optional
            Rows that a layer attends to or pools over, the newest included, where the graph takes all rows of an open
            time axis; without it such a graph is declined. Each layer keeps so many rows, so the answer of a stream
            depends on more of them when several layers follow each other; :meth:`windowed` cuts exactly.

        Raises
        ------
        ModelLoadingError
            If the file is missing, damaged or truncated, or holds an operator the native engine does not run (the text
            names node, operator and what was expected), or the format cannot be had.
        """
        from tengri_fast.inference.graph import read_network
        from tengri_fast.inference.onnx_reader import read_source

        data = read_source(source)
        network = read_network(data, window=window)
        if format is not None and format != network.format:
            network = network.converted(format)
        return build(network, hashlib.sha256(data).hexdigest(), isa)

    @staticmethod
    def from_network(network, *, isa=None):
        """Build from a :class:`~tengri_fast.inference.network.Network`.

        Raises
        ------
        ModelLoadingError
            If the engine cannot run it; the text names the layer and the rule. Nothing is half built.
        """
        return build(network, None, isa)

    @staticmethod
    def from_layers(layers, *, isa=None):
        """Build from layers that follow one another.

        Raises
        ------
        ModelLoadingError
            If there is no layer, or a layer's input does not fit the output before it. Nothing is half built.
        """
        return build(chain(layers), None, isa)

    @staticmethod
    def from_compiled(source, *, isa=None):
        """Load a compiled file (.tgp); a path is mapped into memory, bytes are copied once.

        Parameters
        ----------
        source : str, os.PathLike or bytes
            Path of a file that :meth:`save` wrote, or the file's content.
        isa : str, optional
            An instruction set of this machine; the file serves all of them.

        Raises
        ------
        ModelLoadingError
            If the file is missing, damaged, of another version, or holds a plan that breaks a rule.
        """
        from tengri_fast.inference.compiled import load

        return load(source, isa)

    def save(self, path):
        """Write the plan and the packed weights as one file (.tgp) that :meth:`from_compiled` loads in under 1 ms.

        Parameters
        ----------
        path : str or os.PathLike
            Written beside and renamed, so a reader sees the old file or the whole new one.
        """
        from tengri_fast.inference.compiled import save

        save(self, path)

    @property
    def nbytes(self):
        """Bytes of packed weights and plan."""
        return tf_model_bytes(self.ptr)

    @property
    def session_nbytes(self):
        """Bytes of one session, exact."""
        return tf_model_session_bytes(self.ptr)

    @property
    def weights_hash(self):
        """Hash of shapes, formats and weights that binds saved sessions; 16 hex digits, the same on every instruction
        set.
        """
        return f"{tf_model_hash(self.ptr):016x}"

    @property
    def period(self):
        """Steps between two new answers: the product of the strides, 1 without any."""
        return tf_model_period(self.ptr)

    @property
    def max_steps(self):
        """Steps after a reset for which absolute positions exist; 0 without limit. Such a model runs windowed only."""
        return tf_model_max_steps(self.ptr)

    @property
    def finish_bytes(self):
        """Bytes of weights on the critical path of one step."""
        return self._traffic(-1)[0]

    @property
    def prepare_bytes(self):
        """Bytes of weights read between two steps."""
        return self._traffic(-1)[1]

    def _traffic(self, int32_t node):
        cdef size_t finish = 0, prepare = 0
        tf_model_traffic(self.ptr, node, &finish, &prepare)
        return finish, prepare

    def traffic(self):
        """Bytes of weights that each node reads per step.

        Returns
        -------
        tuple of NodeTraffic
            In the order of :attr:`layers`.
        """
        return tuple([
            NodeTraffic(layer.name, layer.kind, *self._traffic(i)) for i, layer in enumerate(self.layers)
        ])

    def session(self, *, window=None):
        """A new session in zero state.

        Parameters
        ----------
        window : int, optional
            Answer over the last `window` rows from zero state (a :class:`WindowSession`). Default: an endless stream.

        Raises
        ------
        ConfigurationError
            If the model has absolute positions, which end, and no window was given; or the window is out of range.
        """
        if window is not None:
            return self.windowed(window)
        if tf_model_max_steps(self.ptr) > 0:
            raise ConfigurationError(
                f"`window` must be given, at most {self.max_steps}: the model has absolute positions for so many steps "
                "and runs windowed only"
            )
        return make_session(self)

    def windowed(self, window):
        """A session that answers over the last `window` rows from zero state, at the cost of one step on the critical
        path.

        Parameters
        ----------
        window : int
            Rows, >= 1 and, with absolute positions, <= :attr:`max_steps`.

        Returns
        -------
        WindowSession
            Until `window` rows were seen it answers over those there are.
        """
        from tengri_fast.inference.window import make_window

        return make_window(self, window)

    def batch(self, capacity):
        """Steps many sessions of this model together, with the same answers as one by one.

        Parameters
        ----------
        capacity : int
            Sessions that share one reading of the weights; more are taken in turns.

        Returns
        -------
        Batch
        """
        from tengri_fast.inference.batch import make_batch

        return make_batch(self, capacity)

    def run_window(self, x):
        """Outputs over a window, from zero state.

        Parameters
        ----------
        x : array_like, shape [T, input_size]
            Rows in time order. NaN gives NaN from that row on, for as long as it stays in the state.

        Returns
        -------
        numpy.ndarray of float32, shape [T, output_size]
            The same bits as stepping a fresh session over the rows. The GIL is released meanwhile.
        """
        rows = rows_of(x, self.input_size)
        if rows.shape[0] > 2**31 - 1:
            raise InferenceFailed(f"`x` must have fewer than 2**31 rows, had {rows.shape[0]}")
        if 0 < tf_model_max_steps(self.ptr) < rows.shape[0]:
            raise InferenceFailed(
                f"`x` must have at most {self.max_steps} rows, the positions of the model, had {rows.shape[0]}"
            )
        out = np.empty((rows.shape[0], self.output_size), np.float32)
        cdef const float *x_ptr = <const float *> cnp.PyArray_DATA(<cnp.ndarray> rows)
        cdef float *y_ptr = <float *> cnp.PyArray_DATA(<cnp.ndarray> out)
        cdef int32_t steps = <int32_t> rows.shape[0]
        cdef size_t size = tf_model_session_bytes(self.ptr)
        cdef Block scratch = make_block(size)
        cdef tf_status status
        with nogil:
            status = tf_model_run_window(self.ptr, scratch.ptr, size, x_ptr, steps, y_ptr)
        if status != TF_OK:
            raise InferenceFailed(f"run_window: {text_of(status)}")
        return out

    def __reduce__(self):
        raise TypeError("a Model cannot be pickled: keep its ONNX file, or save() it")

    def __repr__(self):
        shape = " -> ".join([str(self.input_size)] + [f"{layer.kind}({layer.output_size})" for layer in self.layers])
        return f"<Model {shape}, {self.format}, {self.isa}, {self.sha256[:12]}>"


cdef object new(type kind):
    global making
    making = True
    try:
        return kind.__new__(kind)
    finally:
        making = False


cdef Model build(object network, object sha256, object isa):
    cdef tf_isa wanted = isa_of(isa)
    cdef Description description = Description(network)
    cdef tf_model *ptr = NULL
    cdef tf_fault fault
    fault.node = -1
    fault.rule = NULL
    cdef tf_status status = tf_model_create(&description.network, wanted, &ptr, &fault)
    if status != TF_OK:
        where = ""
        if 0 <= fault.node < len(network.nodes):
            where = f"layer {fault.node} `{network.nodes[fault.node].layer.name}`: "
        rule = text_of(status) if fault.rule is NULL else (<bytes> fault.rule).decode()
        raise ModelLoadingError(where + rule)
    return adopt(ptr, {
        "network": network,
        "layers": network.layers,
        "outputs": network.outputs,
        "metadata": network.metadata,
        "format": network.format,
        "sha256": sha256 or network.sha256(),
        "output_mode": network.output_mode,
    })


cdef Model adopt(tf_model *ptr, dict facts):
    """A Model that owns `ptr`, with what C does not know of it."""
    cdef Model model = new(Model)
    model.ptr = ptr
    model.input_size = tf_model_input_size(ptr)
    model.output_size = tf_model_output_size(ptr)
    model.network = facts.get("network")
    model.layers = tuple(facts["layers"])
    model.outputs = tuple(facts["outputs"]) or (("output", model.output_size),)
    model.metadata = MappingProxyType(dict(facts["metadata"]))
    model.format = facts["format"]
    model.sha256 = facts["sha256"]
    model.output_mode = facts["output_mode"]
    model.mapped = facts.get("mapped")
    model.isa = (<bytes> tf_isa_name(tf_model_isa(ptr))).decode()
    return model


@cython.final
cdef class Block:
    """64-byte aligned memory of a session; the NumPy views hold it, so they may outlive the session."""

    def __cinit__(self):
        if not making:
            raise TypeError("session memory is made by Model.session()")

    def __dealloc__(self):
        free(self.ptr)

    def __reduce__(self):
        raise TypeError("session memory cannot be pickled: use Session.to_bytes()")


cdef Block make_block(size_t size):
    cdef Block block = new(Block)
    block.ptr = tengri_aligned(size)
    if block.ptr is NULL:
        raise MemoryError(f"no memory for {size} bytes")
    block.size = size
    return block


cdef object view(Block block, const float *data, int size, bint writable):
    """A NumPy view [size] of memory inside `block`, which it keeps alive."""
    cdef cnp.npy_intp shape[1]
    shape[0] = size
    cdef cnp.ndarray array = cnp.PyArray_SimpleNewFromData(1, shape, cnp.NPY_FLOAT32, <void *> data)
    cnp.set_array_base(array, block)
    if not writable:
        array.flags.writeable = False
    return array


cdef int copy_row(object x, float *target, int size) except -1:
    """One input row into a session; InferenceFailed when its shape is wrong."""
    cdef cnp.ndarray row
    if (
        cnp.PyArray_CheckExact(x)
        and cnp.PyArray_TYPE(<cnp.ndarray> x) == cnp.NPY_FLOAT32
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> x)
    ):
        row = <cnp.ndarray> x
    else:
        row = np.ascontiguousarray(x, dtype=np.float32)
    # np.ascontiguousarray makes a scalar one-dimensional, so the rank of `x` itself is asked too.
    if cnp.PyArray_NDIM(row) != 1 or cnp.PyArray_DIM(row, 0) != size or (row is not x and np.ndim(x) != 1):
        raise InferenceFailed(f"`x` must have shape [{size}], had {list(np.shape(x))}")
    memcpy(target, cnp.PyArray_DATA(row), size * sizeof(float))
    return 0


cdef object rows_of(object x, int width):
    """`x` as contiguous float32 rows [T, width]."""
    rows = np.ascontiguousarray(x, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise InferenceFailed(f"`x` must have shape [T, {width}], had {list(np.shape(x))}")
    return rows


cdef Session make_session(Model model):
    cdef Session session = new(Session)
    cdef size_t size = tf_model_session_bytes(model.ptr)
    session.block = make_block(size)
    cdef tf_status status = tf_session_init(model.ptr, session.block.ptr, size, &session.ptr)
    if status != TF_OK:
        raise InferenceFailed(f"session: {text_of(status)}")
    session.model = model
    session.input_ptr = tf_session_input(session.ptr)
    session.output_ptr = tf_session_output(session.ptr)
    session.input = view(session.block, session.input_ptr, model.input_size, True)
    session.output = view(session.block, session.output_ptr, model.output_size, False)
    return session


cdef class Session:
    """Streaming state of one model for one instrument. Not for use by two threads at once.

    Attributes
    ----------
    model : Model
        The model it belongs to, and keeps alive.
    input : numpy.ndarray of float32, shape [input_size]
        Writable view of the row that the next :meth:`finish` reads.
    output : numpy.ndarray of float32, shape [output_size]
        Read-only view of the last answer; it changes with each step.

    Notes
    -----
    ``step(x)`` is ``finish(x)`` then ``prepare()``. A trading loop writes into :attr:`input`, calls ``finish()``, acts
    on ``output``, and calls ``prepare()`` afterwards, which does the work that does not need the next row. These calls
    keep the GIL: giving it up would let another thread hold the answer back for milliseconds.
    """

    def __cinit__(self):
        if not making:
            raise TypeError("Session is made by Model.session()")

    cdef int idle(self) except -1:
        """0 unless a batch or a team works on this session in another thread at this moment."""
        if self.busy:
            raise InferenceFailed("a session serves one thread at a time, and another is at work on it")
        return 0

    cdef int write(self, object x) except -1:
        return copy_row(x, self.input_ptr, self.model.input_size)

    @property
    def steps(self):
        """Steps since the last reset."""
        return tf_session_steps(self.ptr)

    def step(self, x=None):
        """One whole step; returns a new array with the output.

        Parameters
        ----------
        x : array_like, shape [input_size], optional
            The row; without it the content of :attr:`input` is used. NaN gives NaN, from this step until
            :meth:`reset` or until it has left every window of the model.

        Raises
        ------
        InferenceFailed
            If the shape is wrong.
        """
        self.idle()
        if x is not None:
            self.write(x)
        tf_session_finish(self.model.ptr, self.ptr)
        tf_session_prepare(self.model.ptr, self.ptr)
        return cnp.PyArray_NewCopy(<cnp.ndarray> self.output, cnp.NPY_CORDER)

    def finish(self, x=None):
        """The part of a step that needs the new row; returns the view :attr:`output`."""
        self.idle()
        if x is not None:
            self.write(x)
        tf_session_finish(self.model.ptr, self.ptr)
        return self.output

    def prepare(self):
        """The part of a step that does not need the next row. Called once between two finishes; if it was forgotten,
        the next :meth:`finish` does it first.
        """
        self.idle()
        tf_session_prepare(self.model.ptr, self.ptr)

    def reset(self):
        """Back to zero state."""
        self.idle()
        tf_session_reset(self.ptr)

    def copy(self):
        """An independent session in exactly this state."""
        self.idle()
        cdef Session other = make_session(self.model)
        memcpy(other.block.ptr, self.block.ptr, self.block.size)
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def to_bytes(self):
        """The state as bytes, bound to the model's shapes and weights, with a checksum; the same on every instruction
        set.
        """
        self.idle()
        cdef size_t size = tf_session_state_bytes(self.model.ptr)
        cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
        cdef tf_status status = tf_session_save(self.model.ptr, self.ptr, PyBytes_AS_STRING(data), size)
        if status != TF_OK:
            raise InferenceFailed(f"to_bytes: {text_of(status)}")
        return data

    def from_bytes(self, data):
        """Take over a state saved by :meth:`to_bytes`. On an error the state is unchanged.

        Raises
        ------
        InferenceFailed
            If the bytes are damaged, of another version, or of another model.
        """
        self.idle()
        cdef const unsigned char[::1] raw = bytes(data)
        if raw.shape[0] == 0:
            raise InferenceFailed("`data` must be a saved session, was empty")
        cdef tf_status status = tf_session_load(self.model.ptr, self.ptr, &raw[0], raw.shape[0])
        if status != TF_OK:
            raise InferenceFailed(f"`data` must be a session saved by this model: {text_of(status)}")

    def time_steps(self, x, int n, *, evict=0, double idle_us=0.0):
        """Time `n` steps over the rows of `x`, taken in turn. Moves the state forward.

        Parameters
        ----------
        x : array_like, shape [rows, input_size]
            Input rows.
        n : int
            Number of steps, >= 1.
        evict : int, default 0
            Bytes that are read through before each finish, so that the caches are cold.
        idle_us : float, default 0.0
            Microseconds for which the thread waits before each finish.

        Returns
        -------
        numpy.ndarray of float64, shape [2, n]
            Nanoseconds of each ``finish`` (row 0) and of each ``prepare`` (row 1), by the processor's time stamp
            counter; the timer's own cost (10 to 25 ns) is included. The GIL is released meanwhile.
        """
        self.idle()
        rows = rows_of(x, self.model.input_size)
        if not 1 <= rows.shape[0] < 2**31:
            raise InferenceFailed(f"`x` must have shape [rows, {self.model.input_size}], had {list(rows.shape)}")
        if n < 1:
            raise InferenceFailed(f"`n` must be >= 1, was {n}")
        if evict < 0 or not 0.0 <= idle_us <= 1e9:
            raise InferenceFailed(f"`evict` and `idle_us` must be >= 0, were {evict} and {idle_us}")
        out = np.empty((2, n))
        waste = np.ones(evict, np.uint8)
        cdef double[:, ::1] times = out
        cdef const float *x_ptr = <const float *> cnp.PyArray_DATA(<cnp.ndarray> rows)
        cdef const void *waste_ptr = cnp.PyArray_DATA(<cnp.ndarray> waste) if evict else NULL
        cdef size_t waste_bytes = evict
        cdef int32_t count = <int32_t> rows.shape[0]
        cdef uint64_t wait = <uint64_t> (idle_us * 1e3)
        cdef tf_status status
        self.busy = True
        with nogil:
            status = tf_session_time(
                self.model.ptr, self.ptr, x_ptr, count, n, waste_ptr, waste_bytes, wait, &times[0, 0], &times[1, 0]
            )
        self.busy = False
        if status != TF_OK:
            raise InferenceFailed(f"time_steps: {text_of(status)}")
        return out

    def __reduce__(self):
        raise TypeError("a Session cannot be pickled: use to_bytes() and from_bytes()")


def active_isa():
    """Name of the instruction set that new models take."""
    return (<bytes> tf_isa_name(tf_isa_active())).decode()
