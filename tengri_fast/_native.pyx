"""Instruction sets, CPU features, and single kernels for tests and benches."""

from libc.stdint cimport int32_t, uint16_t, uintptr_t

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

import ctypes
import os
import re
from types import SimpleNamespace

import numpy as np

from tengri_fast.errors import ConfigurationError

cnp.import_array()

cdef extern from *:
    """
    /* csrc/nn/pack.h */
    void tf_pack_gru_f32(const float *w, int32_t hidden, int32_t k, float *packed);
    int tf_pack_f16(const float *packed, size_t n, uint16_t *out);
    int tf_pack_bf16(const float *packed, size_t n, uint16_t *out);
    """
    void tf_pack_gru_f32(const float *w, int32_t hidden, int32_t k, float *packed) nogil
    int tf_pack_f16(const float *packed, size_t n, uint16_t *out) nogil
    int tf_pack_bf16(const float *packed, size_t n, uint16_t *out) nogil


cdef str name_of(tf_isa isa):
    return (<bytes> tf_isa_name(isa)).decode()


cdef int isa_of(str name) except -1:
    cdef int i
    for i in range(<int> TF_ISA_COUNT):
        if name == name_of(<tf_isa> i):
            if not tf_isa_available(<tf_isa> i):
                raise ConfigurationError(f"`isa` must be one this machine can run, was {name!r}")
            return i
    raise ConfigurationError(f"`isa` must be one of {', '.join(isa_names())}, was {name!r}")


def isa_active():
    """Name of the instruction set that new models take."""
    return name_of(tf_isa_active())


def isa_available():
    """Names of the instruction sets that this machine and build can run, lowest first."""
    return [name_of(<tf_isa> i) for i in range(<int> TF_ISA_COUNT) if tf_isa_available(<tf_isa> i)]


def isa_names():
    """All names that TENGRI_ISA may have."""
    return [name_of(<tf_isa> i) for i in range(<int> TF_ISA_COUNT)]


if tf_isa_select(NULL) != TF_OK:
    raise ConfigurationError(
        f"`TENGRI_ISA` must name an instruction set this machine has ({', '.join(isa_available())}), was "
        f"{os.environ.get('TENGRI_ISA')!r}"
    )


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
    """Row-major float32 weights [rows, k] in the packed layout of csrc/nn/gemv_f32.h; alignment is not promised."""
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


def pack_gru(w):
    """GRU weights [3H, k] (gates r, z, n) in the packed, pre-scaled layout of csrc/nn/gru_f32.h; k = 1 for a bias."""
    cdef cnp.ndarray rows = np.ascontiguousarray(w, dtype=np.float32)
    if rows.ndim != 2 or rows.size == 0 or rows.shape[0] % 3:
        raise ValueError(f"`w` must have shape [3H, k], had {list((<object> rows).shape)}")
    cdef int32_t hidden = rows.shape[0] // 3, k = rows.shape[1]
    cdef cnp.ndarray out = np.empty(tf_packed_floats(48 * ((hidden + 15) // 16), k), np.float32)
    tf_pack_gru_f32(<const float *> cnp.PyArray_DATA(rows), hidden, k, <float *> cnp.PyArray_DATA(out))
    return out


def pack_halves(packed, str dtype):
    """Packed float32 weights as `dtype` "f16" or "bf16" (uint16 bits, nearest even), any shape.

    Raises
    ------
    ValueError
        A value that the format cannot hold (it would become infinite), or NaN.
    """
    cdef cnp.ndarray values = np.ascontiguousarray(packed, dtype=np.float32)
    cdef cnp.ndarray out = np.empty((<object> values).shape, np.uint16)
    cdef const float *start = <const float *> cnp.PyArray_DATA(values)
    cdef uint16_t *end = <uint16_t *> cnp.PyArray_DATA(out)
    if dtype not in ("f16", "bf16"):
        raise ValueError(f"`dtype` must be f16 or bf16, was {dtype!r}")
    if not (tf_pack_f16(start, values.size, end) if dtype == "f16" else tf_pack_bf16(start, values.size, end)):
        raise ValueError(f"`packed` must be finite in {dtype}, was not")
    return out


def half_bits(values, str dtype):
    """`values` rounded to "f16" or "bf16" as weights are, as uint16 bits; overflow becomes infinity, NaN stays NaN."""
    cdef cnp.ndarray given = np.ascontiguousarray(values, dtype=np.float32)
    cdef cnp.ndarray out = np.empty((<object> given).shape, np.uint16)
    if dtype not in ("f16", "bf16"):
        raise ValueError(f"`dtype` must be f16 or bf16, was {dtype!r}")
    if dtype == "f16":
        tf_pack_f16(<const float *> cnp.PyArray_DATA(given), given.size, <uint16_t *> cnp.PyArray_DATA(out))
    else:
        tf_pack_bf16(<const float *> cnp.PyArray_DATA(given), given.size, <uint16_t *> cnp.PyArray_DATA(out))
    return out


# What each array of a kernel must hold, from its integer arguments `a`; the headers in csrc/nn say why. Integers are
# >= 1 unless they are in FLAGS; MULTIPLES names those that must be a multiple of something.
def up(n, to):
    return (n + to - 1) // to * to


def same(*names):
    return lambda a: dict.fromkeys(names, a.n)


def gemv_lengths(a):
    rows = up(a.rows, 16)
    return {"w": rows * a.k, "x": a.k, "base": rows, "z": rows}


def gemv_i8_lengths(planes):
    def lengths(a):
        rows = up(a.rows, 16)
        return {"w": rows * up(a.k, 4), "q": (planes - 1) * up(a.k, 64) + up(a.k, 4), "scale": rows, "corr": rows,
                "base": rows, "z": rows, "add": rows, "y": rows, "yq": rows, "nan": 1}
    return lengths


def lstm_lengths(a):
    return {"w": 64 * a.blocks * a.k, "x": a.k, "pre": 64 * a.blocks, "c": 16 * a.blocks, "h": 16 * a.blocks}


def lstm_i8_lengths(planes):
    def lengths(a):
        rows, units = 64 * a.blocks, 16 * a.blocks
        return {"w": rows * up(a.k, 4), "q": (planes - 1) * up(a.k, 64) + up(a.k, 4), "scale": rows, "corr": rows,
                "pre": rows, "c": units, "h": units, "hq": units, "nan": 1}
    return lengths


def attend_lengths(a):
    kv_heads = a.heads // a.group
    return {"q": a.heads * a.dim, "k": kv_heads * a.slots * a.dim, "v": a.slots * up(kv_heads * a.value_dim, 16),
            "bias": a.heads * a.slots, "p": a.heads * a.slots, "y": a.heads * a.value_dim}


def attend_i8_lengths(a):
    kv_heads = a.heads // a.group
    return {"q": a.heads * up(a.dim, 4), "keys": kv_heads * a.slots * up(a.dim, 4), "corr": kv_heads * a.slots,
            "values": kv_heads * a.slots * up(a.value_dim, 16), "bias": a.heads * a.slots, "p": a.heads * a.slots,
            "y": a.heads * a.value_dim}


def store_kv_lengths(a):
    return {"k": a.kv_heads * a.dim, "v": a.kv_heads * a.value_dim, "keys": a.kv_heads * a.slots * up(a.dim, 4),
            "corr": a.kv_heads * a.slots, "values": a.kv_heads * a.slots * up(a.value_dim, 16), "nan": 1}


def gates_lengths(a):
    return {"z": 64 * a.blocks, "c": 16 * a.blocks, "h": 16 * a.blocks}


def gru_lengths(a):
    return {"zx": 48 * a.blocks, "zh": 48 * a.blocks, "h": 16 * a.blocks, "rh": 16 * a.blocks}


def rope_lengths(a):
    return {"x": a.heads * a.dim, "cos_sin": a.dim, "y": a.heads * a.dim}


UNARY = same("x", "y")
BINARY = same("a", "b", "y")
NORM = same("x", "gamma", "beta", "y")
I8 = gemv_i8_lengths(1)
LENGTHS = {
    **{(op, dtype): gemv_lengths for op in ("gemv", "gemm") for dtype in ("f32", "f16", "bf16")},
    **{("lstm_finish", dtype): lstm_lengths for dtype in ("f32", "f16", "bf16")},
    **{(op, "f32"): UNARY for op in ("relu", "tanh", "sigmoid", "softmax", "gelu", "gelu_tanh", "silu", "leaky_relu",
                                     "scale")},
    **{(op, "f32"): BINARY for op in ("add", "mul", "max")},
    **{(op, "f32"): NORM for op in ("layernorm", "rmsnorm")},
    **{(op, "f32"): gru_lengths for op in ("gru_gates", "gru_reset", "gru_late")},
    ("lstm_gates", "f32"): gates_lengths,
    ("lstm_gates", "i8"): gates_lengths,
    ("tap", "f32"): same("w", "x", "base", "y"),
    ("rope", "f32"): rope_lengths,
    ("attend", "f32"): attend_lengths,
    ("quantize", "i8"): lambda a: {"x": a.n, "q": up(a.n, 64), "nan": 1},
    ("quantize", "i8a16"): lambda a: {"x": a.n, "q": 2 * up(a.n, 64), "nan": 1},
    **{(op, "i8"): I8 for op in ("gemv", "gemm", "dense")},
    **{(op, "i8a16"): gemv_i8_lengths(2) for op in ("gemv", "gemm")},
    ("lstm_finish", "i8"): lstm_i8_lengths(1),
    ("lstm_fused", "i8"): lstm_i8_lengths(1),
    ("lstm_finish", "i8a16"): lstm_i8_lengths(2),
    ("store_kv", "i8"): store_kv_lengths,
    ("attend", "i8"): attend_i8_lengths,
}
NULLABLE = {("layernorm", "beta"), ("rmsnorm", "beta"), ("dense", "add"), ("dense", "y"), ("dense", "yq")}
FLAGS = {"interleaved", "relu", "slot"}
MULTIPLES = {"rope": (("dim", 2),), "attend": (("slots", 16),), "store_kv": (("slots", 16),)}
MOST = 1 << 24
TYPES = {"float": np.float32, "uint16_t": np.uint16, "int8_t": np.int8, "uint8_t": np.uint8, "int32_t": np.int32}
PARAMETER = re.compile(r"(const )?(\w+) (\*(?:const )?)?(\*)?(\w+)")


def parameters(signature):
    """The parameters of a row's signature.

    Parameters
    ----------
    signature : str
        As in :func:`kernels`, "(const float *x, float *y, int32_t n)".

    Returns
    -------
    list of tuple
        (name, C type, depth, const): depth 0 is a value, 1 a pointer to an array, 2 one to n such pointers; const says
        that the array is only read.
    """
    out = []
    for text in signature.strip().removeprefix("(").removesuffix(")").split(","):
        match = PARAMETER.fullmatch(" ".join(text.split()))
        if match is None or match[2] not in TYPES:
            raise ValueError(f"`signature` must be made of pointers, float and int32_t, had {text.strip()!r}")
        depth = (match[3] is not None) + (match[4] is not None)
        if depth == 0 and match[2] not in ("float", "int32_t"):
            raise ValueError(f"`signature` must pass {match[2]} by pointer, had {text.strip()!r}")
        out.append((match[5], match[2], depth, match[1] is not None))
    return out


cdef object address_of(object array, str name, str ctype, object need, bint only_read):
    """Where `array` starts, after its type and length were checked."""
    if not isinstance(array, np.ndarray) or array.dtype != TYPES[ctype] or not array.flags.c_contiguous:
        raise TypeError(f"`{name}` must be a contiguous {np.dtype(TYPES[ctype]).name} array")
    if array.size < need:
        raise ValueError(f"`{name}` must hold at least {need} elements, held {array.size}")
    if not only_read and not array.flags.writeable:
        raise ValueError(f"`{name}` must be writable")
    return <uintptr_t> cnp.PyArray_DATA(<cnp.ndarray> array)


def call(str op, str dtype, str isa, *args):
    """Call one kernel by row and instruction set: the door of the differential tests.

    Parameters
    ----------
    op, dtype : str
        A row of :func:`kernels`.
    isa : str
        Instruction set; a row without a kernel of its own runs the next lower one.
    *args
        The C parameters in order: contiguous arrays of the C type (any alignment, long enough: this is checked), a list
        of n such arrays for a pointer to pointers, None where the kernel takes NULL, ints and floats.

    Returns
    -------
    None
        Results are in the output arrays.

    Raises
    ------
    ValueError
        No such row, a wrong number of arguments, an integer out of range or an array too short.
    TypeError
        An array of another type, or not contiguous.
    """
    cdef int wanted = isa_of(isa), i, index = -1
    for i in range(tf_kernel_count()):
        if tf_kernel_describe(i).op.decode() == op and tf_kernel_describe(i).dtype.decode() == dtype:
            index = i
    if index < 0:
        raise ValueError(f"no kernel {op} x {dtype} in kernels.def")
    if (op, dtype) not in LENGTHS:
        raise ValueError(f"no lengths of {op} x {dtype} in LENGTHS, so its arrays cannot be checked")
    wants = parameters(tf_kernel_describe(index).signature.decode())
    if len(args) != len(wants):
        raise ValueError(f"{op} x {dtype} takes {len(wants)} arguments, was given {len(args)}")
    numbers = SimpleNamespace()
    for (name, ctype, depth, _), value in zip(wants, args, strict=True):
        if depth == 0 and ctype == "int32_t":
            if not (0 if name in FLAGS else 1) <= value <= MOST:
                raise ValueError(f"`{name}` must be between {0 if name in FLAGS else 1} and {MOST}, was {value}")
            setattr(numbers, name, int(value))
    for name, multiple in MULTIPLES.get(op, ()):
        if getattr(numbers, name) % multiple:
            raise ValueError(f"`{name}` must be a multiple of {multiple}, was {getattr(numbers, name)}")
    if op == "attend" and numbers.heads % numbers.group:
        raise ValueError(f"`group` must divide `heads`, was {numbers.group} with heads {numbers.heads}")
    if op == "store_kv" and numbers.slot >= numbers.slots:
        raise ValueError(f"`slot` must be below `slots`, was {numbers.slot}")
    lengths = LENGTHS[op, dtype](numbers)
    kinds, values = [], []
    for (name, ctype, depth, only_read), value in zip(wants, args, strict=True):
        if depth == 0:
            kinds.append(ctypes.c_int32 if ctype == "int32_t" else ctypes.c_float)
            values.append(int(value) if ctype == "int32_t" else float(value))
            continue
        kinds.append(ctypes.c_void_p)
        if value is None and (op, name) in NULLABLE:
            values.append(None)
        elif depth == 1:
            values.append(address_of(value, name, ctype, lengths[name], only_read))
        else:
            if len(value) != numbers.n:
                raise ValueError(f"`{name}` must be a list of {numbers.n} arrays, held {len(value)}")
            table = (ctypes.c_void_p * numbers.n)()
            for at in range(numbers.n):
                table[at] = address_of(value[at], name, ctype, lengths[name], only_read and name != "z")
            values.append(ctypes.cast(table, ctypes.c_void_p))
    cdef tf_kernel_function function = tf_kernel_get(index, <tf_isa> wanted)
    ctypes.CFUNCTYPE(None, *kinds)(<uintptr_t> function)(*values)
