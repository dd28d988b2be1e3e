"""Instruction sets, CPU features, and single kernels for tests and benches."""

from libc.stdint cimport int32_t

cimport numpy as cnp

from tengri_fast.inference.capi cimport (
    TF_ISA_COUNT,
    TF_OK,
    tf_cpu_features,
    tf_isa,
    tf_isa_active,
    tf_isa_available,
    tf_isa_name,
    tf_isa_select,
    tf_kernel_count,
    tf_kernel_describe,
    tf_kernel_function,
    tf_kernel_get,
    tf_kernel_info,
    tf_pack_f32,
    tf_pack_lstm_f32,
    tf_packed_floats,
    tf_status_text,
    tf_status,
    tf_timer_ns_per_tick,
    tf_timer_ticks,
)

import os

import numpy as np

from tengri_fast.errors import ConfigurationError

cnp.import_array()

ctypedef void (*gemv_t)(const float *, const float *, const float *, float *, int32_t, int32_t) noexcept nogil
ctypedef void (*finish_t)(
    const float *, const float *, const float *, float *, float *, int32_t, int32_t
) noexcept nogil
ctypedef void (*gates_t)(const float *, float *, float *, int32_t) noexcept nogil
ctypedef void (*unary_t)(const float *, float *, int32_t) noexcept nogil


if tf_isa_select(NULL) != TF_OK:
    raise ConfigurationError(
        f"`TENGRI_ISA` must name an instruction set this machine has (scalar, avx2, avx512 or avx512vnni), was "
        f"{os.environ.get('TENGRI_ISA')!r}"
    )


cdef str name_of(tf_isa isa):
    return (<bytes> tf_isa_name(isa)).decode()


cdef int isa_of(str name) except -1:
    cdef int i
    for i in range(<int> TF_ISA_COUNT):
        if name == name_of(<tf_isa> i):
            if not tf_isa_available(<tf_isa> i):
                raise ConfigurationError(f"`isa` must be one this machine can run, was {name!r}")
            return i
    raise ConfigurationError(f"`isa` must be scalar, avx2, avx512 or avx512vnni, was {name!r}")


def isa_active():
    """Name of the instruction set that new models take."""
    return name_of(tf_isa_active())


def isa_available():
    """Names of the instruction sets that this machine and build can run, lowest first."""
    return [name_of(<tf_isa> i) for i in range(<int> TF_ISA_COUNT) if tf_isa_available(<tf_isa> i)]


def isa_names():
    """All names that TENGRI_ISA may have."""
    return [name_of(<tf_isa> i) for i in range(<int> TF_ISA_COUNT)]


def cpu_features():
    """CPU features that matter here and that the operating system supports."""
    cdef char buffer[512]
    cdef size_t length = tf_cpu_features(buffer, sizeof(buffer))
    return buffer[:length].decode().split()


def status_text(int status):
    """English text of a C status code."""
    return (<bytes> tf_status_text(<tf_status> status)).decode()


def timer_floor(int n):
    """Nanoseconds of `n` readings of the bench timer with nothing between: what every timing contains."""
    if n < 1:
        raise ValueError(f"`n` must be >= 1, was {n}")
    out = np.empty(n)
    cdef double[::1] times = out
    cdef double ns = tf_timer_ns_per_tick()
    cdef unsigned long long start
    cdef int i
    for i in range(n):
        start = tf_timer_ticks()
        times[i] = <double> (tf_timer_ticks() - start) * ns
    return out


def kernels():
    """The rows of csrc/kernels.def.

    Returns
    -------
    list of dict
        Keys op, dtype, signature, isas (instruction sets with a kernel of their own), tolerance, reference, cuda.
    """
    rows = []
    cdef const tf_kernel_info *info
    for i in range(tf_kernel_count()):
        info = tf_kernel_describe(i)
        rows.append({
            "op": info.op.decode(),
            "dtype": info.dtype.decode(),
            "signature": info.signature.decode(),
            "isas": [name_of(<tf_isa> j) for j in range(<int> TF_ISA_COUNT) if info.isas >> j & 1],
            "tolerance": info.tolerance.decode(),
            "reference": info.reference.decode(),
            "cuda": info.cuda.decode(),
        })
    return rows


def pack(w):
    """Row-major float32 weights [rows, k] in the packed layout of csrc/nn/gemv_f32.h; 64-byte alignment not promised."""
    cdef cnp.ndarray rows = np.ascontiguousarray(w, dtype=np.float32)
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"`w` must have shape [rows, k], had {list((<object> rows).shape)}")
    cdef int32_t n = rows.shape[0], k = rows.shape[1]
    cdef cnp.ndarray out = np.empty(tf_packed_floats(n, k), np.float32)
    tf_pack_f32(<const float *> cnp.PyArray_DATA(rows), n, k, k, <float *> cnp.PyArray_DATA(out))
    return out


def pack_lstm(w):
    """LSTM weights [4H, k] (gates i, f, g, o) in the packed, pre-scaled layout of csrc/nn/lstm_f32.h."""
    cdef cnp.ndarray rows = np.ascontiguousarray(w, dtype=np.float32)
    if rows.ndim != 2 or rows.size == 0 or rows.shape[0] % 4:
        raise ValueError(f"`w` must have shape [4H, k], had {list((<object> rows).shape)}")
    cdef int32_t hidden = rows.shape[0] // 4, k = rows.shape[1]
    cdef cnp.ndarray out = np.empty(tf_packed_floats(64 * ((hidden + 15) // 16), k), np.float32)
    tf_pack_lstm_f32(<const float *> cnp.PyArray_DATA(rows), hidden, k, <float *> cnp.PyArray_DATA(out))
    return out


cdef float *floats(object array, size_t need, str name, bint writable) except NULL:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not array.flags.c_contiguous:
        raise TypeError(f"`{name}` must be a contiguous float32 array")
    if <size_t> array.size < need:
        raise ValueError(f"`{name}` must hold at least {need} floats, held {array.size}")
    if writable and not array.flags.writeable:
        raise ValueError(f"`{name}` must be writable")
    return <float *> cnp.PyArray_DATA(<cnp.ndarray> array)


def call(str op, str dtype, str isa, *args):
    """Call one kernel by row and instruction set: the door of the differential tests.

    Parameters
    ----------
    op, dtype : str
        A row of :func:`kernels`.
    isa : str
        Instruction set; a row without a kernel of its own runs the next lower one.
    *args
        The C parameters in order: float32 arrays (contiguous, any alignment, long enough: this is checked) and ints.

    Returns
    -------
    None
        Results are in the output arrays.
    """
    cdef int wanted = isa_of(isa), i, index = -1
    for i in range(tf_kernel_count()):
        if tf_kernel_describe(i).op.decode() == op and tf_kernel_describe(i).dtype.decode() == dtype:
            index = i
    if index < 0:
        raise ValueError(f"no kernel {op} x {dtype} in kernels.def")
    cdef tf_kernel_function function = tf_kernel_get(index, <tf_isa> wanted)
    cdef int32_t n, k
    cdef size_t padded
    if op == "gemv":
        w, x, base, z, n, k = args
        if n < 1 or k < 1:
            raise ValueError("`rows` and `k` must be >= 1")
        padded = (n + 15) // 16 * 16
        (<gemv_t> function)(
            floats(w, padded * k, "w", False), floats(x, k, "x", False), floats(base, padded, "base", False),
            floats(z, padded, "z", True), n, k,
        )
    elif op == "lstm_finish":
        w, x, pre, c, h, n, k = args
        if n < 1 or k < 1:
            raise ValueError("`blocks` and `k` must be >= 1")
        (<finish_t> function)(
            floats(w, <size_t> 64 * n * k, "w", False), floats(x, k, "x", False), floats(pre, 64 * n, "pre", False),
            floats(c, 16 * n, "c", True), floats(h, 16 * n, "h", True), n, k,
        )
    elif op == "lstm_gates":
        z, c, h, n = args
        if n < 1:
            raise ValueError("`blocks` must be >= 1")
        (<gates_t> function)(
            floats(z, 64 * n, "z", False), floats(c, 16 * n, "c", True), floats(h, 16 * n, "h", True), n
        )
    else:
        x, y, n = args
        if n < 1:
            raise ValueError("`n` must be >= 1")
        (<unary_t> function)(floats(x, n, "x", False), floats(y, n, "y", True), n)
