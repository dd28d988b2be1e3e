"""The integer operations of csrc/kernels.def in NumPy: exact integers, and float32 steps that are rounded as IEEE asks.

The layouts are written out again from csrc/nn/gemv_i8.h and attend_i8.h, so a test that uses them also tests packing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from inference import reference

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]


def up(n: int, to: int) -> int:
    return (n + to - 1) // to * to


def fma(a: Any, b: Any, c: Any) -> F32:
    """a * b + c of float32, rounded once: the product is exact in float64, whose sum is then rounded to odd."""
    product = np.asarray(a, np.float32).astype(np.float64) * np.asarray(b, np.float32)
    addend = np.asarray(c, np.float32).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.atleast_1d(product + addend)
        part = total - product
        error = (product - (total - part)) + (addend - part)
        bits = total.view(np.int64)
        step = np.where((error > 0) == (total > 0), 1, -1)
        odd = np.where((error != 0) & np.isfinite(error) & (bits % 2 == 0), bits + step, bits)
        return odd.view(np.float64).astype(np.float32)


def quantum(x: Any, inverse: float, low: int, high: int) -> npt.NDArray[np.int64]:
    with np.errstate(over="ignore", invalid="ignore"):
        v = np.rint((np.asarray(x, np.float32) * np.float32(inverse)).astype(np.float64))
    return np.nan_to_num(np.clip(v, low, high), nan=0.0).astype(np.int64)


def quantize_i8(x: Any, inverse: float) -> U8:
    """Bytes with offset 128, room round_up(n, 64) of which round_up(n, 16) are written (128 in the padding)."""
    out = np.full(up(len(x), 16), 128, np.uint8)
    out[: len(x)] = quantum(x, inverse, -128, 127) + 128
    return out


def quantize_i8a16(x: Any, inverse: float) -> tuple[U8, U8]:
    """The high and the low plane."""
    value = np.full(up(len(x), 16), 32768, np.int64)
    value[: len(x)] += quantum(x, inverse, -32767, 32767)
    return (value // 256).astype(np.uint8), (value % 256).astype(np.uint8)


def panels(groups: int) -> list[int]:
    out = []
    while groups:
        out.append(next(size for size in (8, 4, 2, 1) if size <= groups))
        groups -= out[-1]
    return out


def pack(w: Any) -> I8:
    """[rows, k] int8 -> panels of [k / 4][groups][16][4]."""
    rows, k = np.shape(w)
    padded = np.zeros((up(rows, 16), up(k, 4)), np.int8)
    padded[:rows, :k] = w
    parts, first = [], 0
    for groups in panels(len(padded) // 16):
        panel = padded[first : first + groups * 16].reshape(groups, 16, -1, 4)
        parts.append(panel.transpose(2, 0, 1, 3).reshape(-1))
        first += groups * 16
    return np.concatenate(parts)


def lstm_order(hidden: int) -> npt.NDArray[np.int64]:
    """Row of the packed matrix -> row of [4H, k], -1 for padding: blocks of 16 units, their gates side by side."""
    row = np.arange(up(hidden, 16) * 4)
    unit = row // 64 * 16 + row % 16
    return np.where(unit < hidden, row // 16 % 4 * hidden + unit, -1)


def corr(w: Any) -> I32:
    out = np.zeros(up(len(w), 16), np.int32)
    out[: len(w)] = -128 * np.asarray(w, np.int64).sum(axis=1)
    return out


def gemv_i8(w: Any, q: Any, scale: Any, base: Any) -> F32:
    """`q` with offset 128."""
    return fma(scale, np.asarray(w, np.int64) @ (np.asarray(q, np.int64) - 128), base)


def gemv_i8a16(w: Any, high: Any, low: Any, scale: Any, base: Any) -> F32:
    wide = np.asarray(w, np.int64)
    total = fma(256.0, wide @ (np.asarray(high, np.int64) - 128), wide @ np.asarray(low, np.int64))
    return fma(scale, total, base)


def dense_i8(w: Any, q: Any, scale: Any, base: Any, add: Any, relu: int) -> F32:
    y = gemv_i8(w, q, scale, base)
    if relu & 1:
        y = np.where(y < 0, np.float32(0), y)
    if add is not None:
        y = y + np.asarray(add, np.float32)
    return np.where(y < 0, np.float32(0), y) if relu & 2 else y


def lstm_finish_i8(w: Any, v: Any, scale: Any, pre: Any, c: Any) -> tuple[reference.Array, reference.Array]:
    """New c and h in float64; `w` [4H, k] int8, `v` the quanta, `scale` [4H] that of rows times that of activations."""
    sums = np.asarray(w, np.int64) @ np.asarray(v, np.int64)
    z = np.asarray(pre, np.float64) + np.asarray(scale, np.float64) * sums
    return reference.lstm_gates(z.reshape(4, -1), c)


lstm_finish_i8a16 = lstm_finish_i8


def store_kv_i8(keys: Any, values: Any, k_inverse: float, v_inverse: float, slots: int) -> tuple[I8, I32, I8]:
    """Rings after rows [T, heads, dim] went to slots 0 .. T - 1."""
    steps, heads, dim = np.shape(keys)
    value_dim = np.shape(values)[2]
    k = np.zeros((heads, slots, up(dim, 4)), np.int8)
    v = np.zeros((heads, slots, up(value_dim, 16)), np.int8)
    for step in range(steps):
        k[:, step, :dim] = quantum(keys[step], k_inverse, -128, 127)
        v[:, step, :value_dim] = quantum(values[step], v_inverse, -128, 127)
    ring = k.reshape(heads, slots // 16, 16, -1, 4).transpose(0, 1, 3, 2, 4)
    value_ring = v.reshape(heads, slots // 4, 4, -1).transpose(0, 1, 3, 2)
    return (
        np.ascontiguousarray(ring).reshape(-1),
        (-128 * k.astype(np.int32).sum(axis=2)).astype(np.int32).reshape(-1),
        np.ascontiguousarray(value_ring).reshape(-1),
    )


def attend_i8(
    q: Any, keys: Any, values: Any, bias: Any, score: float, value: float
) -> tuple[reference.Array, reference.Array]:
    """Output [heads, value_dim] in float64 with exact weights, and how far quantised weights may move it.

    `q` [heads, dim], `keys` [heads, slots, dim], `values` [heads, slots, value_dim]: quanta; `bias` [heads, slots].
    """
    sums = np.einsum("hd,hsd->hs", np.asarray(q, np.float64), np.asarray(keys, np.float64))
    z = np.float64(np.float32(score)) * sums + np.asarray(bias, np.float64)
    e = np.exp2(z - z.max(axis=1, keepdims=True))
    total = e.sum(axis=1)
    plain = np.float64(np.float32(value)) * np.asarray(values, np.float64)
    y = np.einsum("hs,hsd->hd", e, plain) / total[:, None]
    seen = (np.asarray(bias) > -1e29)[:, :, None]
    half = 0.51 / 255 / total[:, None]  # half a quantum of a weight
    slack = half * (np.abs(plain) * seen).sum(axis=1) + np.abs(y) * half * seen.sum(axis=1)
    return y, slack
