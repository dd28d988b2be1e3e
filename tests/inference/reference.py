"""The operations of csrc/kernels.def in float64 NumPy: the oracle of the differential tests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
LOG2E = np.log2(np.e)


def gemv(w: Any, x: Any, base: Any) -> Array:
    return np.asarray(base, np.float64) + np.asarray(w, np.float64) @ np.asarray(x, np.float64)


def relu(x: Any) -> Array:
    x = np.asarray(x, np.float64)
    return np.where(x < 0, 0.0, x)


def sigmoid(x: Any) -> Array:
    x = np.asarray(x, np.float64)
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))


def tanh(x: Any) -> Array:
    return np.tanh(np.asarray(x, np.float64))


def softmax(x: Any) -> Array:
    x = np.asarray(x, np.float64)
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max())
        return e / e.sum()


def widen(bits: Any, dtype: str) -> Array:
    """float64 values of "f16" or "bf16" bits (uint16)."""
    bits = np.asarray(bits, np.uint16)
    if dtype == "f16":
        with np.errstate(invalid="ignore"):
            return bits.view(np.float16).astype(np.float64)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def leaky_relu(x: Any, slope: float) -> Array:
    x = np.asarray(x, np.float64)
    return np.where(x > 0, x, np.float64(np.float32(slope)) * x)


def silu(x: Any) -> Array:
    x = np.asarray(x, np.float64)
    return x * sigmoid(x)


def gelu(x: Any) -> Array:
    """x times the normal distribution function, by the complementary error function of the C library."""
    x = np.asarray(x, np.float64)
    return x * np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in x.ravel()]).reshape(x.shape)


def gelu_tanh(x: Any) -> Array:
    x = np.asarray(x, np.float64)
    with np.errstate(over="ignore"):
        return x * sigmoid(2.0 * np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))


def add(a: Any, b: Any) -> Array:
    return np.asarray(a, np.float64) + np.asarray(b, np.float64)


def mul(a: Any, b: Any) -> Array:
    return np.asarray(a, np.float64) * np.asarray(b, np.float64)


def maximum(a: Any, b: Any) -> Array:
    return np.maximum(np.asarray(a, np.float64), np.asarray(b, np.float64))


def tap(w: Any, x: Any, base: Any) -> Array:
    return add(base, mul(w, x))


def scale(x: Any, a: float) -> Array:
    return mul(x, np.float32(a))


def layernorm(x: Any, gamma: Any, beta: Any, eps: float) -> Array:
    x = np.asarray(x, np.float64)
    centred = x - x.mean()
    unit = centred / np.sqrt((centred**2).mean() + np.float64(np.float32(eps)))
    return unit * np.asarray(gamma, np.float64) + (0.0 if beta is None else np.asarray(beta, np.float64))


def rmsnorm(x: Any, gamma: Any, beta: Any, eps: float) -> Array:
    x = np.asarray(x, np.float64)
    unit = x / np.sqrt((x**2).mean() + np.float64(np.float32(eps)))
    return unit * np.asarray(gamma, np.float64) + (0.0 if beta is None else np.asarray(beta, np.float64))


def rope(x: Any, cos_sin: Any, interleaved: bool) -> Array:
    """`x` [heads, dim], `cos_sin` [dim / 2, 2]: every pair as a complex number times cos + i sin."""
    x = np.asarray(x, np.float64)
    turn = np.asarray(cos_sin, np.float64) @ np.array([1, 1j])
    half = x.shape[1] // 2
    a, b = (x[:, 0::2], x[:, 1::2]) if interleaved else (x[:, :half], x[:, half:])
    turned = (a + 1j * b) * turn
    if interleaved:
        return np.stack([turned.real, turned.imag], axis=2).reshape(x.shape)
    return np.concatenate([turned.real, turned.imag], axis=1)


def attend(q: Any, k: Any, v: Any, bias: Any) -> Array:
    """`q` [heads, dim] in log2 units, `k` [kv_heads, slots, dim], `v` [kv_heads, slots, value_dim] and `bias`
    [heads, slots]; y [heads, value_dim]."""
    q, k, v, bias = (np.asarray(part, np.float64) for part in (q, k, v, bias))
    group = len(q) // len(k)
    rows = []
    for head, query in enumerate(q):
        z = bias[head] + k[head // group] @ query
        p = np.exp2(z - z.max())
        rows.append(p @ v[head // group] / p.sum())
    return np.array(rows)


def gru_gates(zx: Any, zh: Any, h: Any) -> Array:
    """New h from plain (unscaled) sums `zx`, `zh` [3, units], gates r, z, n; the reset gate acts on zh_n."""
    zx, zh, h = (np.asarray(part, np.float64) for part in (zx, zh, h))
    update = sigmoid(zx[1] + zh[1])
    return (1 - update) * np.tanh(zx[2] + sigmoid(zx[0] + zh[0]) * zh[2]) + update * h


def gru_reset(zx: Any, zh: Any, h: Any) -> Array:
    return sigmoid(np.asarray(zx, np.float64)[0] + np.asarray(zh, np.float64)[0]) * np.asarray(h, np.float64)


def gru_late(zx: Any, zh: Any, h: Any) -> Array:
    zx, zh, h = (np.asarray(part, np.float64) for part in (zx, zh, h))
    update = sigmoid(zx[1] + zh[1])
    return (1 - update) * np.tanh(zx[2] + zh[2]) + update * h


def lstm_gates(z: Any, c: Any) -> tuple[Array, Array]:
    """New c and h from the four plain (unscaled) gate sums [4, units]."""
    i, f, g, o = np.asarray(z, np.float64)
    c = sigmoid(f) * np.asarray(c, np.float64) + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def lstm_finish(w: Any, x: Any, pre: Any, c: Any) -> tuple[Array, Array]:
    """`w` [4H, k] and `pre` [4H] unscaled, gates i, f, g, o."""
    return lstm_gates(gemv(w, x, pre).reshape(4, -1), c)


def network(layers: Any, x: Any) -> Array:
    """All outputs [T, O] of a chain of layers over rows x [T, F], from zero state."""
    activations = {"none": lambda v: v, "relu": relu, "tanh": tanh, "sigmoid": sigmoid, "softmax": softmax}
    state: dict[int, tuple[Array, Array]] = {}
    rows = []
    for row in np.asarray(x, np.float64):
        value = row
        for index, layer in enumerate(layers):
            if layer.kind == "lstm":
                h, c = state.get(index, (np.zeros(layer.output_size), np.zeros(layer.output_size)))
                pre = gemv(layer.r, h, layer.bias)
                c, value = lstm_finish(layer.w, value, pre, c)
                state[index] = (value, c)
            else:
                value = activations[layer.activation](gemv(layer.w, value, layer.bias))
        rows.append(value)
    return np.array(rows)
