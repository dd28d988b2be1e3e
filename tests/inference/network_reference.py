"""A network (tengri_fast/inference/network.py) row by row in float64 NumPy, from reset: the oracle of importer and
engine.

Plain on purpose: every layer is the formula of its docstring over the rows seen so far. Weights of fp16 and bf16 nodes
are rounded first; int8 and int8a16 nodes are computed as integers, as the canonical quantised graph says (round half to
even, clamp, exact sums, one multiplication by the scales).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

Array = npt.NDArray[np.float64]
LIMITS = {"int8": (-128, 127), "int8a16": (-32767, 32767)}


def sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))


def softmax(x: Array) -> Array:
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)


def activate(layer: Any, x: Array) -> Array:
    """The layer's activation."""
    match layer.activation:
        case "none":
            return x
        case "relu":
            return np.where(x < 0, 0.0, x)
        case "tanh":
            return np.tanh(x)
        case "sigmoid":
            return sigmoid(x)
        case "softmax":
            return softmax(x.reshape(getattr(layer, "softmax_groups", 1), -1)).reshape(-1)
        case "leaky_relu":
            return np.where(x < 0, getattr(layer, "slope", 0.01) * x, x)
        case "gelu":
            return 0.5 * x * (1 + erf(x / np.sqrt(2)))
        case "gelu_tanh":
            return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        case "silu":
            return x * sigmoid(x)
    raise ValueError(layer.activation)


def round_bf16(w: Any) -> Array:
    """Nearest even bfloat16 of finite float32 values."""
    bits = np.ascontiguousarray(w, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def quantise(x: Array, scale: float, form: str) -> Array:
    """Integers (as float64, exact) that an int8 or int8a16 node sees; NaN stays NaN."""
    low, high = LIMITS[form]
    return np.clip(np.round(np.asarray(x, np.float64) / np.float64(np.float32(scale))), low, high)


class Evaluator:
    """Streams one network; `step` takes a row and yields the answer."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.reset()

    def reset(self) -> None:
        """Back to zero state."""
        self.t = 0
        self.state: list[dict[str, Any]] = [{} for _ in self.network.nodes]
        self.rows: list[Array] = [np.zeros(node.layer.output_size) for node in self.network.nodes]

    def step(self, x: Any) -> Array:
        """One row in, the answer out; nodes behind a stride keep their row until a new one comes."""
        fresh: list[bool] = []
        x = np.asarray(x, np.float64)
        for index, node in enumerate(self.network.nodes):
            new = all(source < 0 or fresh[source] for source in node.inputs)
            if new:
                inputs = [x if source < 0 else self.rows[source] for source in node.inputs]
                row = getattr(self, "_" + node.layer.kind)(node, node.layer, self.state[index], *inputs)
                new = row is not None
                if new:
                    self.rows[index] = activate(node.layer, row)
            fresh.append(new)
        self.t += 1
        return self.rows[self.network.output].copy()

    # One product, in the node's number format.
    @staticmethod
    def _product(node: Any, attribute: str, key: str, x: Array) -> Array:
        w = getattr(node.layer, attribute)
        if node.format in LIMITS:
            matrix = node.matrices[attribute]
            q = quantise(x, node.scales[key], node.format)
            return (
                (matrix.values.astype(np.float64) @ q)
                * matrix.scale.astype(np.float64)
                * float(np.float32(node.scales[key]))
            )
        return Evaluator._rounded(node, w) @ x

    @staticmethod
    def _rounded(node: Any, w: Any) -> Array:
        if node.format == "fp16":
            return np.asarray(w, np.float16).astype(np.float64)
        return round_bf16(w) if node.format == "bf16" else np.asarray(w, np.float64)

    def _dense(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array:
        return self._product(node, "w", "input", x) + layer.bias.astype(np.float64)

    def _lstm(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array:
        h = state.get("h", np.zeros(layer.output_size))
        c = state.get("c", np.zeros(layer.hidden_size))
        z = self._product(node, "w", "input", x) + self._product(node, "r", "state", h) + layer.bias.astype(np.float64)
        i, f, g, o = z.reshape(4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        if layer.projection is not None:
            h = self._product(node, "projection", "projection", h)
        state["h"], state["c"] = h, c
        return h

    def _gru(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array:
        h = state.get("h", np.zeros(layer.output_size))
        size = layer.output_size
        zx = self._product(node, "w", "input", x) + layer.bias.astype(np.float64)
        recurrent = layer.recurrent_bias.astype(np.float64)
        zh = self._product(node, "r", "state", h) + recurrent
        r, z = sigmoid(zx[: 2 * size] + zh[: 2 * size]).reshape(2, -1)
        if layer.reset_after:
            n = np.tanh(zx[2 * size :] + r * zh[2 * size :])
        else:
            n = np.tanh(zx[2 * size :] + (self._product(node, "r", "state", r * h) + recurrent)[2 * size :])
        state["h"] = (1 - z) * n + z * h
        return state["h"]

    def _conv(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array | None:
        quantised = node.format in LIMITS
        past = state.setdefault("past", [])
        past.insert(0, quantise(x, node.scales["input"], node.format) if quantised else x)
        del past[(layer.taps - 1) * layer.dilation + 1 :]
        count = state["count"] = state.get("count", -1) + 1
        if count % layer.stride:
            return None
        w = self._rounded(node, layer.w) if not quantised else node.matrices["w"].values.astype(np.float64)
        channels, out = layer.channels, layer.w.shape[1]
        per_group = out // layer.groups
        y = np.zeros((layer.output_levels, out))
        for tap in range(layer.taps):
            if tap * layer.dilation >= len(past):
                break
            row = past[tap * layer.dilation].reshape(layer.levels, channels)
            part = np.zeros_like(y)
            for level in range(layer.output_levels):
                start = level * layer.level_stride
                patch = row[start : start + layer.level_kernel]
                for group in range(layer.groups):
                    cut = slice(group * per_group, (group + 1) * per_group)
                    width = channels // layer.groups
                    values = patch[:, group * width : (group + 1) * width].reshape(-1)
                    part[level, cut] = w[tap, cut] @ values
            if quantised:
                part *= node.matrices["w"].scale[tap].astype(np.float64) * float(np.float32(node.scales["input"]))
            y += part
        return (y + layer.bias.astype(np.float64)).reshape(-1)

    def _attention(self, node: Any, layer: Any, state: dict[str, Any], q: Array, k: Array, v: Array) -> Array:
        t = state["t"] = state.get("t", -1) + 1
        q, k = q.reshape(layer.heads, layer.dim), k.reshape(layer.kv_heads, layer.dim)
        v = v.reshape(layer.kv_heads, layer.value_dim)
        if layer.position.startswith("rope"):
            q, k = (rotate(a, t, layer.rope_base, layer.position == "rope_interleaved") for a in (q, k))
        if node.format in LIMITS:
            q, k, v = (
                quantise(a, node.scales[key], node.format) * float(np.float32(node.scales[key]))
                for a, key in ((q, "q"), (k, "k"), (v, "v"))
            )
        keys, values = state.setdefault("k", []), state.setdefault("v", [])
        keys.append(k)
        values.append(v)
        del keys[: -layer.window], values[: -layer.window]
        group = layer.heads // layer.kv_heads
        age = np.arange(len(keys))[::-1]
        out = np.zeros((layer.heads, layer.value_dim))
        for head in range(layer.heads):
            scores = np.array([key[head // group] @ q[head] for key in keys]) * layer.scale
            if layer.slopes is not None:
                scores = scores - float(layer.slopes[head]) * age
            out[head] = softmax(scores) @ np.array([value[head // group] for value in values])
        return out.reshape(-1)

    def _norm(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array:
        if layer.norm == "layer":
            x = x - x.mean()
        y = x / np.sqrt((x * x).mean() + layer.epsilon) * layer.gamma.astype(np.float64)
        return y if layer.beta is None else y + layer.beta.astype(np.float64)

    def _affine(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array:
        return layer.scale.astype(np.float64) * x + layer.shift.astype(np.float64)

    def _activation(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array:
        return x

    def _add(self, node: Any, layer: Any, state: dict[str, Any], a: Array, b: Array) -> Array:
        return a + b

    def _mul(self, node: Any, layer: Any, state: dict[str, Any], a: Array, b: Array) -> Array:
        return a * b

    def _concat(self, node: Any, layer: Any, state: dict[str, Any], *rows: Array) -> Array:
        return np.concatenate(rows)

    def _slice(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array:
        return x[layer.offset : layer.offset + layer.width].copy()

    def _pool(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array:
        past = state.setdefault("past", [])
        past.append(x)
        del past[: -layer.window]
        if layer.pool == "max":
            return np.max(past, axis=0)
        total = np.sum(past, axis=0)
        if layer.pool == "sum":
            return total
        return total / (len(past) if layer.partial else layer.window)

    def _position(self, node: Any, layer: Any, state: dict[str, Any], x: Array) -> Array:
        t = state["t"] = state.get("t", -1) + 1
        return x + layer.table[min(t, len(layer.table) - 1)].astype(np.float64)


def rotate(x: Array, t: int, base: float, interleaved: bool) -> Array:
    """Rotary positions of the heads x [heads, dim] at step t."""
    dim = x.shape[1]
    angle = t * base ** (-2.0 * np.arange(dim // 2) / dim)
    cos, sin = np.cos(angle), np.sin(angle)
    y = np.empty_like(x)
    if interleaved:
        a, b = x[:, 0::2], x[:, 1::2]
        y[:, 0::2], y[:, 1::2] = a * cos - b * sin, a * sin + b * cos
    else:
        a, b = x[:, : dim // 2], x[:, dim // 2 :]
        y[:, : dim // 2], y[:, dim // 2 :] = a * cos - b * sin, a * sin + b * cos
    return y


def run(network: Any, x: Any) -> Array:
    """Answers [T, output] over the rows x [T, input] from reset."""
    evaluator = Evaluator(network)
    return np.array([evaluator.step(row) for row in np.asarray(x, np.float64)])
