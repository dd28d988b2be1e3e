"""Any network over any number of rows in NumPy float64: what calibration observes, and an oracle in plain sight.

A network has no cycles but the recurrences inside its layers, so it is evaluated layer by layer over the whole stretch:
a dense layer is one matrix product, a convolution one per tap, attention a band; only LSTM and GRU walk step by step.

Number formats are followed: half-width weights are rounded first, and for int8 formats the sums are taken over the
integers themselves (float64 holds them exactly), so the result is that of the canonical artefact but for float32
rounding. The native engine also rounds the softmax weights of int8 attention; here, as in the artefact, they stay in
float unless that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import InferenceFailed, ModelLoadingError
from tengri_fast.inference.canonical import rotary
from tengri_fast.inference.layers import (
    AttentionLayer,
    ConvLayer,
    GruLayer,
    Layer,
    LstmLayer,
    NormLayer,
    PoolLayer,
)
from tengri_fast.inference.network import INPUT, Network, Node
from tengri_fast.inference.onnx_writer import bfloat16_bits

__all__ = ["Observer", "activate", "evaluate", "half_width", "quantise_row"]

Rows = npt.NDArray[np.float64]
Observer = Callable[[int, str, Rows], None]
"""Called with node, key and rows [T, width]: what meets a matrix ("input", "state", "projection"; "q", "k", "v"), and
"y".
"""
LEVELS = {"int8": (-128, 127), "int8a16": (-32_768, 32_767)}
CHUNK = 1 << 22


def half_width(values: npt.ArrayLike, number_format: str) -> npt.NDArray[np.float32]:
    """float32 numbers rounded to fp16 or bf16 and back, as the engine holds them; other formats leave them alone."""
    array = np.ascontiguousarray(values, dtype=np.float32)
    if number_format == "fp16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16).astype(np.float32)
    if number_format == "bf16":
        return (bfloat16_bits(array).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array


def quantise_row(x: npt.ArrayLike, scale: float, number_format: str) -> Rows:
    """The integers that a row becomes: round half to even of x / scale in float32, saturated."""
    low, high = LEVELS[number_format]
    with np.errstate(over="ignore"):
        quanta = np.rint(np.asarray(x, np.float32) / np.float32(scale))
    return np.clip(quanta, low, high).astype(np.float64)


def _sigmoid(x: Rows) -> Rows:
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))


def _erf(x: Rows) -> Rows:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))


def activate(layer: Layer, x: Rows) -> Rows:
    """The layer's activation on rows [..., width]."""
    kind = layer.activation
    if kind == "none":
        return x
    if kind == "relu":
        return np.maximum(x, 0.0)
    if kind == "tanh":
        return np.tanh(x)
    if kind == "sigmoid":
        return _sigmoid(x)
    if kind == "leaky_relu":
        return np.where(x < 0, getattr(layer, "slope", 0.01) * x, x)
    if kind == "gelu":
        return 0.5 * x * (1.0 + _erf(x / np.sqrt(2.0)))
    if kind == "gelu_tanh":
        return np.asarray(0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))))
    if kind == "silu":
        return x * _sigmoid(x)
    groups = getattr(layer, "softmax_groups", 1)
    parts = x.reshape(*x.shape[:-1], groups, -1)
    powers = np.exp(parts - parts.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).reshape(x.shape)


def evaluate(
    network: Network,
    rows: npt.ArrayLike,
    observe: Observer | None = None,
    *,
    node: int | None = None,
    native: bool = False,
) -> npt.NDArray[np.float64]:
    """All answers over rows from zero state.

    Parameters
    ----------
    network : Network
        In any formats.
    rows : array_like, shape [T, input_size]
        In time order.
    observe : callable, optional
        Told every row that meets a matrix, and every layer's own rows.
    node : int, optional
        Index of the layer whose rows are wanted; default: the answer.
    native : bool, default False
        Round the weights of int8 attention to 1/255 of the largest, as the native engine does.

    Returns
    -------
    numpy.ndarray of float64, shape [T, width]
        Where strides make the answer rarer than the rows, it holds until the next one.

    Raises
    ------
    InferenceFailed
        If the shape of `rows` is wrong.
    ModelLoadingError
        If layers of different clocks (strides) meet.
    """
    x = np.asarray(rows, np.float64)
    if x.ndim != 2 or x.shape[1] != network.input_size or not len(x):
        raise InferenceFailed(f"`rows` must have shape [T, {network.input_size}] with T >= 1, had {list(x.shape)}")
    wanted = network.output if node is None else node
    needed = {i: 0 for i in range(len(network.nodes))}
    for entry in network.nodes:
        for source in entry.inputs:
            if source != INPUT:
                needed[source] += 1
    needed[wanted] += 1
    made: dict[int, tuple[Rows, int]] = {}
    for i, entry in enumerate(network.nodes):
        sources = [(x, 1) if source == INPUT else made[source] for source in entry.inputs]
        period = sources[0][1]
        if any(other != period for _, other in sources):
            raise ModelLoadingError(f"layer `{entry.layer.name}`: `inputs` must have one clock, had several strides")
        value = _Step(entry, i, observe, native).run([source for source, _ in sources])
        value = activate(entry.layer, value)
        if observe is not None:
            observe(i, "y", value)
        stride = entry.layer.stride if isinstance(entry.layer, ConvLayer) else 1
        made[i] = (value, period * stride)
        for source in entry.inputs:  # rows that nobody reads any more go, so that memory stays small
            if source != INPUT:
                needed[source] -= 1
                if not needed[source]:
                    made.pop(source)
        if i == wanted:
            break
    value, period = made[wanted]
    return value if period == 1 else np.repeat(value, period, axis=0)[: len(x)]


def _turned(layer: AttentionLayer, rows: Rows) -> Rows:
    """Rows rotated to their own positions: what int8 queries and keys have to hold."""
    half = layer.dim // 2
    angle = np.arange(len(rows))[:, None, None] * layer.rope_base ** (-2.0 * np.arange(half) / layer.dim)
    heads = rows.reshape(len(rows), -1, layer.dim)
    if layer.position == "rope":
        first, second = heads[..., :half], heads[..., half:]
    else:
        first, second = heads[..., 0::2], heads[..., 1::2]
    turned = [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)]
    return np.concatenate(turned, axis=-1).reshape(len(rows), -1)


class _Step:
    """One layer over all rows."""

    def __init__(self, node: Node, index: int, observe: Observer | None, native: bool) -> None:
        self.node = node
        self.index = index
        self.observe = observe
        self.integer = node.format in LEVELS
        self.rounded = native and self.integer

    def run(self, inputs: list[Rows]) -> Rows:
        layer: Any = self.node.layer
        kind = layer.kind
        if kind == "dense":
            return np.asarray(self.product("w", "input", inputs[0]) + layer.bias)
        if kind == "lstm":
            return self.lstm(layer, inputs[0])
        if kind == "gru":
            return self.gru(layer, inputs[0])
        if kind == "conv":
            return self.conv(layer, inputs[0])
        if kind == "attention":
            return self.attention(layer, inputs)
        if kind == "norm":
            return self.norm(layer, inputs[0])
        if kind == "pool":
            return self.pool(layer, inputs[0])
        if kind == "add":
            return inputs[0] + inputs[1]
        if kind == "mul":
            return inputs[0] * inputs[1]
        if kind == "affine":
            return np.asarray(inputs[0] * layer.scale.astype(np.float64) + layer.shift)
        if kind == "concat":
            return np.concatenate(inputs, axis=1)
        if kind == "slice":
            return inputs[0][:, layer.offset : layer.offset + layer.width]
        if kind == "position":
            at = np.minimum(np.arange(len(inputs[0])), layer.table.shape[0] - 1)
            return np.asarray(inputs[0] + layer.table[at])
        return inputs[0]

    def tell(self, key: str, rows: Rows) -> None:
        if self.observe is not None:
            self.observe(self.index, key, rows)

    def matrix(self, attribute: str) -> tuple[Rows, Rows | float]:
        """Weights as they are multiplied, and what the sums are multiplied by."""
        if self.integer:
            held = self.node.matrices[attribute]
            return held.values.astype(np.float64), held.scale.astype(np.float64)
        weights = half_width(getattr(self.node.layer, attribute), self.node.format)
        return weights.astype(np.float64), 1.0

    def enter(self, key: str, rows: Rows) -> tuple[Rows, float]:
        """Rows as they are multiplied, and what the sums are multiplied by."""
        if not self.integer:
            return rows, 1.0
        scale = float(np.float32(self.node.scales[key]))
        return quantise_row(rows, scale, self.node.format), scale

    def product(self, attribute: str, key: str, rows: Rows) -> Rows:
        self.tell(key, rows)
        weights, row_scale = self.matrix(attribute)
        values, scale = self.enter(key, rows)
        return values @ weights.T * (row_scale * scale)

    def lstm(self, layer: LstmLayer, x: Rows) -> Rows:
        zx = self.product("w", "input", x) + layer.bias
        r, r_scale = self.matrix("r")
        units = layer.hidden_size
        h, c = np.zeros(layer.output_size), np.zeros(units)
        cells, hidden, states = np.empty((len(x), units)), np.empty((len(x), units)), np.empty((len(x), len(h)))
        projected = layer.projection is not None
        if projected:
            p, p_scale = self.matrix("projection")
        for t in range(len(x)):
            states[t] = h
            value, scale = self.enter("state", h)
            z = zx[t] + r @ value * (r_scale * scale)
            gates = _sigmoid(z)
            c = gates[units : 2 * units] * c + gates[:units] * np.tanh(z[2 * units : 3 * units])
            h = gates[3 * units :] * np.tanh(c)
            cells[t], hidden[t] = c, h
            if projected:
                value, scale = self.enter("projection", h)
                h = p @ value * (p_scale * scale)
        self.tell("state", states)
        if not projected:
            return hidden
        self.tell("projection", hidden)
        values, scale = self.enter("projection", hidden)
        return values @ p.T * (p_scale * scale)

    def gru(self, layer: GruLayer, x: Rows) -> Rows:
        size = layer.output_size
        zx = self.product("w", "input", x) + layer.bias
        r, r_scale = self.matrix("r")
        scales = np.broadcast_to(r_scale, (3 * size,))
        h = np.zeros(size)
        states, out = np.empty((len(x), size)), np.empty((len(x), size))
        bias = layer.recurrent_bias.astype(np.float64)
        for t in range(len(x)):
            states[t] = h
            value, scale = self.enter("state", h)
            zh = r @ value * (scales * scale) + bias
            gates = _sigmoid(zx[t, : 2 * size] + zh[: 2 * size])
            reset, update = gates[:size], gates[size:]
            if layer.reset_after:
                inner = reset * zh[2 * size :]
            else:
                value, scale = self.enter("state", reset * h)
                inner = r[2 * size :] @ value * (scales[2 * size :] * scale) + bias[2 * size :]
            new = np.tanh(zx[t, 2 * size :] + inner)
            h = new + update * (h - new)
            out[t] = h
        self.tell("state", states)
        return out

    def conv(self, layer: ConvLayer, x: Rows) -> Rows:
        self.tell("input", x)
        w, w_scale = self.matrix("w")
        values, scale = self.enter("input", x)
        count, out = len(x), layer.w.shape[1]
        channels, made = layer.channels, layer.output_levels
        total = np.zeros((count, made, out))
        for tap in range(layer.taps):
            shift = tap * layer.dilation
            if shift >= count:
                break
            past = values[: count - shift].reshape(count - shift, layer.levels, channels)
            weights = w[tap]
            factor = scale * (w_scale[tap] if isinstance(w_scale, np.ndarray) else w_scale)
            for level in range(made):
                first = level * layer.level_stride
                patch = past[:, first : first + layer.level_kernel].reshape(len(past), -1)
                if layer.groups == 1:
                    total[shift:, level] += patch @ weights.T * factor
                else:
                    parted = patch.reshape(len(past), layer.groups, -1)
                    sums = np.einsum("tgc,goc->tgo", parted, weights.reshape(layer.groups, out // layer.groups, -1))
                    total[shift:, level] += sums.reshape(len(past), out) * factor
        return (total + layer.bias).reshape(count, -1)[:: layer.stride]

    def attention(self, layer: AttentionLayer, inputs: list[Rows]) -> Rows:
        count, window, dim = len(inputs[0]), layer.window, layer.dim
        q = inputs[0].reshape(count, layer.heads, dim)
        k = inputs[1].reshape(count, layer.kv_heads, dim)
        v = inputs[2].reshape(count, layer.kv_heads, layer.value_dim)
        rope = layer.position.startswith("rope")
        if rope:
            cos, sin, swap = rotary(layer)
            q = q * cos[-1] + (q @ swap) * sin[-1]
        q, q_scale = self.enter("q", q)
        v, v_scale = self.enter("v", v)
        # Slot j of row t holds row t - window + 1 + j; rows before the first are empty.
        out = np.empty((count, layer.heads, layer.value_dim))
        size = max(1, CHUNK // (window * layer.kv_heads * dim))
        for start in range(0, count, size):
            at = np.arange(start, min(start + size, count))
            slots = at[:, None] - window + 1 + np.arange(window)
            keys = k[np.maximum(slots, 0)]
            if rope:
                keys = keys * cos[:, None] + (keys @ swap) * sin[:, None]
            keys, k_scale = self.enter("k", keys)
            grouped = q[at].reshape(len(at), layer.kv_heads, -1, dim)
            scores = np.einsum("tkgd,tskd->tkgs", grouped, keys, optimize=True) * (q_scale * k_scale * layer.scale)
            if layer.slopes is not None:
                ages = np.arange(window - 1, -1, -1)
                scores = scores - layer.slopes.astype(np.float64).reshape(1, layer.kv_heads, -1, 1) * ages
            scores = np.where(slots[:, None, None, :] < 0, -np.inf, scores)
            powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
            if self.rounded:
                powers = np.rint(255.0 * powers)
            shares = powers / powers.sum(axis=-1, keepdims=True)
            mixed = np.einsum("tkgs,tskv->tkgv", shares, v[np.maximum(slots, 0)], optimize=True) * v_scale
            out[at] = mixed.reshape(len(at), layer.heads, layer.value_dim)
        if self.observe is not None:
            for key, row in zip(("q", "k"), inputs, strict=False):
                self.tell(key, _turned(layer, row) if rope else row)
            self.tell("v", inputs[2])
        return out.reshape(count, -1)

    def norm(self, layer: NormLayer, x: Rows) -> Rows:
        if layer.norm == "layer":
            x = x - x.mean(axis=1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + layer.epsilon) * layer.gamma
        return x if layer.beta is None else x + layer.beta

    def pool(self, layer: PoolLayer, x: Rows) -> Rows:
        fill = -np.inf if layer.pool == "max" else 0.0
        padded = np.concatenate([np.full((layer.window - 1, x.shape[1]), fill), x])
        views = np.lib.stride_tricks.sliding_window_view(padded, layer.window, axis=0)
        if layer.pool == "max":
            return views.max(axis=2)
        total = views.sum(axis=2)
        if layer.pool == "sum":
            return total
        seen = np.minimum(np.arange(1, len(x) + 1), layer.window) if layer.partial else layer.window
        return np.asarray(total / np.reshape(seen, (-1, 1)))
