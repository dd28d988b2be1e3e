"""The operations of csrc/kernels.def in float64 NumPy: the oracle of the differential tests."""

from __future__ import annotations

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
