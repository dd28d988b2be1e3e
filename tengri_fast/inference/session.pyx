"""Native models and their streaming sessions; the C side is csrc/nn."""

from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from tengri_fast.inference.capi cimport (
    TF_ISA_COUNT,
    TF_LAYER_DENSE,
    TF_LAYER_LSTM,
    TF_OK,
    tf_isa,
    tf_isa_active,
    tf_isa_available,
    tf_isa_name,
    tf_isa_select,
    tf_layer_desc,
    tf_model_bytes,
    tf_model_create_for,
    tf_model_free,
    tf_model_hash,
    tf_model_run_window,
    tf_model_session_bytes,
    tf_session_finish,
    tf_session_init,
    tf_session_input,
    tf_session_load,
    tf_session_output,
    tf_session_prepare,
    tf_session_reset,
    tf_session_save,
    tf_session_state_bytes,
    tf_session_time,
    tf_status,
    tf_status_text,
)

import hashlib
import os

import numpy as np

from tengri_fast.errors import ConfigurationError, InferenceFailed, ModelLoadingError
from tengri_fast.inference.layers import ACTIVATIONS, DenseLayer, LstmLayer

cnp.import_array()

cdef extern from *:
    """
    #include <stdlib.h>
    static void *tengri_aligned(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }
    """
    void *tengri_aligned(size_t bytes) nogil

__all__ = ["Model", "Session"]


if tf_isa_select(NULL) != TF_OK:
    raise ConfigurationError(
        f"`TENGRI_ISA` must name an instruction set this machine has (scalar, avx2, avx512 or avx512vnni), was "
        f"{os.environ.get('TENGRI_ISA')!r}"
    )


# Set while this module makes an object: a bare Model.__new__(Model) would hold no memory to work on.
cdef bint making = False


cdef str text_of(tf_status status):
    return (<bytes> tf_status_text(status)).decode()


cdef tf_isa isa_of(object name) except *:
    if name is None:
        return tf_isa_active()
    cdef int i
    for i in range(<int> TF_ISA_COUNT):
        if name == (<bytes> tf_isa_name(<tf_isa> i)).decode():
            if not tf_isa_available(<tf_isa> i):
                raise ConfigurationError(f"`isa` must be one this machine can run, was {name!r}")
            return <tf_isa> i
    raise ConfigurationError(f"`isa` must be scalar, avx2, avx512 or avx512vnni, was {name!r}")


cdef class Model:
    """An immutable network of LSTM and dense layers, packed for one instruction set.

    Made by :meth:`from_onnx` or :meth:`from_layers`; share one model between any number of sessions and threads.

    Attributes
    ----------
    input_size, output_size : int
        Width of one input row and of one output row.
    layers : tuple of LstmLayer or DenseLayer
        What the model is made of, in order.
    sha256 : str
        SHA-256 of the ONNX bytes, or of shapes and weights when built by :meth:`from_layers`.
    isa : str
        Instruction set of its kernels, fixed for life.
    output_mode : str
        "every" if the ONNX graph yields an output row at each step, "last" if only at the end of a window. Sessions yield
        a row at each step either way.
    declined : None
        Always None here; a model on another backend says in this attribute why the native engine declined it.
    """

    backend = "native"

    def __cinit__(self):
        if not making:
            raise TypeError("Model is made by Model.from_onnx(...) or Model.from_layers(...)")

    def __dealloc__(self):
        tf_model_free(self.ptr)

    @staticmethod
    def from_onnx(source, *, isa=None):
        """Read an ONNX file or its bytes.

        Parameters
        ----------
        source : str, os.PathLike or bytes
            Path of a file, or the file's content.
        isa : str, optional
            "scalar", "avx2", "avx512" or "avx512vnni"; default: the active one (``TENGRI_ISA`` or the best).

        Raises
        ------
        ModelLoadingError
            If the file is missing, damaged or truncated, or holds an operator the native engine does not run (the text
            names node, operator and what was expected).
        """
        from tengri_fast.inference.graph import read_layers
        from tengri_fast.inference.onnx_reader import read_source

        data = read_source(source)
        parsed = read_layers(data)
        return build(parsed.layers, hashlib.sha256(data).hexdigest(), parsed.output_mode, isa)

    @staticmethod
    def from_layers(layers, *, isa=None):
        """Build from :class:`~tengri_fast.inference.layers.LstmLayer` and ``DenseLayer`` objects.

        Raises
        ------
        ModelLoadingError
            If there is no layer, or a layer's input does not fit the output before it. Nothing is half built.
        """
        layers = tuple(layers)
        digest = hashlib.sha256()
        for layer in layers:
            if not isinstance(layer, (LstmLayer, DenseLayer)):
                raise ModelLoadingError(f"`layers` must hold LstmLayer and DenseLayer, held {type(layer).__name__}")
            digest.update(f"{layer.kind} {layer.activation} {layer.input_size} {layer.output_size};".encode())
            digest.update(layer.w.tobytes())
            digest.update(layer.r.tobytes() if layer.kind == "lstm" else b"")
            digest.update(layer.bias.tobytes())
        return build(layers, digest.hexdigest(), "every", isa)

    @property
    def nbytes(self):
        """Bytes of packed weights and plan."""
        return tf_model_bytes(self.ptr)

    @property
    def session_nbytes(self):
        """Bytes of one session."""
        return tf_model_session_bytes(self.ptr)

    @property
    def weights_hash(self):
        """Hash of shapes and weights that binds saved sessions; 16 hex digits, the same on every instruction set."""
        return f"{tf_model_hash(self.ptr):016x}"

    def session(self):
        """A new session in zero state."""
        return make_session(self)

    def run_window(self, x):
        """Outputs over a window, from zero state.

        Parameters
        ----------
        x : array_like, shape [T, input_size]
            Rows in time order. NaN gives NaN from that row on.

        Returns
        -------
        numpy.ndarray of float32, shape [T, output_size]
            The same bits as stepping a fresh session over the rows. The GIL is released meanwhile.
        """
        rows = np.ascontiguousarray(x, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.input_size:
            raise InferenceFailed(f"`x` must have shape [T, {self.input_size}], had {list(rows.shape)}")
        if rows.shape[0] > 2**31 - 1:
            raise InferenceFailed(f"`x` must have fewer than 2**31 rows, had {rows.shape[0]}")
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
        raise TypeError("a Model cannot be pickled: keep its ONNX file")

    def __repr__(self):
        shape = " -> ".join([str(self.input_size)] + [f"{layer.kind}({layer.output_size})" for layer in self.layers])
        return f"<Model {shape}, {self.isa}, {self.sha256[:12]}>"


cdef object new(type kind):
    global making
    making = True
    try:
        return kind.__new__(kind)
    finally:
        making = False


cdef Model build(tuple layers, str sha256, str output_mode, object isa):
    cdef tf_isa wanted = isa_of(isa)
    cdef int count = len(layers)
    if count == 0:
        raise ModelLoadingError("`layers` must hold at least one layer, was empty")
    cdef tf_layer_desc *descriptions = <tf_layer_desc *> calloc(count, sizeof(tf_layer_desc))
    if descriptions is NULL:
        raise MemoryError("no memory for the layer table")
    cdef Model model = new(Model)
    cdef int32_t bad = -1
    cdef tf_status status
    cdef int i
    try:
        for i in range(count):
            layer = layers[i]
            descriptions[i].kind = TF_LAYER_LSTM if layer.kind == "lstm" else TF_LAYER_DENSE
            descriptions[i].activation = ACTIVATIONS.index(layer.activation)
            descriptions[i].input = layer.input_size
            descriptions[i].output = layer.output_size
            descriptions[i].w = <const float *> cnp.PyArray_DATA(<cnp.ndarray> layer.w)
            descriptions[i].bias = <const float *> cnp.PyArray_DATA(<cnp.ndarray> layer.bias)
            if layer.kind == "lstm":
                descriptions[i].r = <const float *> cnp.PyArray_DATA(<cnp.ndarray> layer.r)
        status = tf_model_create_for(descriptions, count, wanted, &model.ptr, &bad)
    finally:
        free(descriptions)
    if status != TF_OK:
        where = f"layer {bad} `{layers[bad].name}`: " if 0 <= bad < count else ""
        if 0 < bad < count and layers[bad].input_size != layers[bad - 1].output_size:
            raise ModelLoadingError(
                f"{where}`input` must equal the output of the layer before it ({layers[bad - 1].output_size}), was "
                f"{layers[bad].input_size}"
            )
        raise ModelLoadingError(f"{where}{text_of(status)}")
    model.layers = layers
    model.input_size = layers[0].input_size
    model.output_size = layers[count - 1].output_size
    model.sha256 = sha256
    model.output_mode = output_mode
    model.isa = (<bytes> tf_isa_name(wanted)).decode()
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
        raise MemoryError(f"no memory for a session of {size} bytes")
    block.size = size
    return block


cdef object view(Block block, const float *data, int size, bint writable):
    cdef cnp.npy_intp shape[1]
    shape[0] = size
    cdef cnp.ndarray array = cnp.PyArray_SimpleNewFromData(1, shape, cnp.NPY_FLOAT32, <void *> data)
    cnp.set_array_base(array, block)
    if not writable:
        array.flags.writeable = False
    return array


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
        The model it belongs to.
    input : numpy.ndarray of float32, shape [input_size]
        Writable view of the row that the next :meth:`finish` reads.
    output : numpy.ndarray of float32, shape [output_size]
        Read-only view of the last answer; it changes with each step.

    Notes
    -----
    ``step(x)`` is ``finish(x)`` then ``prepare()``. A trading loop calls ``finish``, acts on ``output``, and calls
    ``prepare`` afterwards, which does the work that does not need the next row.
    """

    def __cinit__(self):
        if not making:
            raise TypeError("Session is made by Model.session()")

    cdef int write(self, object x) except -1:
        cdef cnp.ndarray row
        if (
            type(x) is np.ndarray
            and cnp.PyArray_TYPE(<cnp.ndarray> x) == cnp.NPY_FLOAT32
            and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> x)
        ):
            row = <cnp.ndarray> x
        else:
            row = np.ascontiguousarray(x, dtype=np.float32)
        if cnp.PyArray_NDIM(row) != 1 or cnp.PyArray_DIM(row, 0) != self.model.input_size:
            raise InferenceFailed(f"`x` must have shape [{self.model.input_size}], had {list((<object> row).shape)}")
        memcpy(self.input_ptr, cnp.PyArray_DATA(row), self.model.input_size * sizeof(float))
        return 0

    def step(self, x=None):
        """One whole step; returns a new array with the output.

        Parameters
        ----------
        x : array_like, shape [input_size], optional
            The row; without it the content of :attr:`input` is used. NaN gives NaN, from this step until
            :meth:`reset`.

        Raises
        ------
        InferenceFailed
            If the shape is wrong.
        """
        if x is not None:
            self.write(x)
        tf_session_finish(self.model.ptr, self.ptr)
        tf_session_prepare(self.model.ptr, self.ptr)
        return self.output.copy()

    def finish(self, x=None):
        """The part of a step that needs the new row; returns the view :attr:`output`."""
        if x is not None:
            self.write(x)
        tf_session_finish(self.model.ptr, self.ptr)
        return self.output

    def prepare(self):
        """The part of a step that does not need the next row. Called once between two finishes; if it was forgotten,
        the next :meth:`finish` does it first.
        """
        tf_session_prepare(self.model.ptr, self.ptr)

    def reset(self):
        """Back to zero state."""
        tf_session_reset(self.ptr)

    def copy(self):
        """An independent session in exactly this state."""
        cdef Session other = make_session(self.model)
        memcpy(<void *> other.ptr, <void *> self.ptr, self.block.size)
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def to_bytes(self):
        """The state as bytes, bound to the model's shapes and weights, with a checksum."""
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
        cdef const unsigned char[::1] raw = bytes(data)
        if raw.shape[0] == 0:
            raise InferenceFailed("`data` must be a saved session, was empty")
        cdef tf_status status = tf_session_load(self.model.ptr, self.ptr, &raw[0], raw.shape[0])
        if status != TF_OK:
            raise InferenceFailed(f"`data` must be a session saved by this model: {text_of(status)}")

    def time_steps(self, x, int n):
        """Time `n` steps over the rows of `x`, taken in turn. Moves the state forward.

        Parameters
        ----------
        x : array_like, shape [rows, input_size]
            Input rows.
        n : int
            Number of steps, >= 1.

        Returns
        -------
        numpy.ndarray of float64, shape [2, n]
            Nanoseconds of each ``finish`` (row 0) and of each ``prepare`` (row 1), by the processor's time stamp counter;
            the timer's own cost (10 to 25 ns) is included.
        """
        rows = np.ascontiguousarray(x, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.model.input_size or rows.shape[0] == 0:
            raise InferenceFailed(f"`x` must have shape [rows, {self.model.input_size}], had {list(rows.shape)}")
        if n < 1:
            raise InferenceFailed(f"`n` must be >= 1, was {n}")
        out = np.empty((2, n))
        cdef double[:, ::1] times = out
        cdef const float *x_ptr = <const float *> cnp.PyArray_DATA(<cnp.ndarray> rows)
        cdef tf_status status = tf_session_time(
            self.model.ptr, self.ptr, x_ptr, rows.shape[0], n, &times[0, 0], &times[1, 0]
        )
        if status != TF_OK:
            raise InferenceFailed(f"time_steps: {text_of(status)}")
        return out

    def __reduce__(self):
        raise TypeError("a Session cannot be pickled: use to_bytes() and from_bytes()")


def active_isa():
    """Instruction set that new models take: one of "scalar", "avx2", "avx512", "avx512vnni"."""
    return (<bytes> tf_isa_name(tf_isa_active())).decode()
