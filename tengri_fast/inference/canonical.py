"""The canonical artefact: one step of any network as an ONNX graph with explicit states.

ONNX Runtime runs it, TensorRT-RTX builds it, the native engine reads it back
(:func:`tengri_fast.inference.canonical_reader.read_canonical`). Everything is float32 between the nodes of the graph;
the batch axis is open and counts instruments.

Graph inputs and outputs
    First ``x [batch, input]`` and ``y [batch, output]``, then, in the order of the layers, one input ``S`` and one
    output ``S_next`` of the same shape per state, all zero after reset. ``i`` is the layer's number, from 0:

    ========== =================================================== ==============================================
    layer      states                                              meaning
    ========== =================================================== ==============================================
    lstm       ``h{i} [batch, width]``, ``c{i} [batch, H]``        as in PyTorch; width = H, or P with a projection
    gru        ``h{i} [batch, H]``                                 as in PyTorch
    conv       ``ring{i} [batch, (taps - 1) * dilation, in]``      the last input rows, oldest first; none for 1 tap
    attention  ``k{i} [batch, window - 1, kv_heads * dim]``,       the last keys (before rotary positions) and values,
               ``v{i} [batch, window - 1, kv_heads * value_dim]``, oldest first; ``seen`` counts up to window - 1;
               ``seen{i} [batch, 1]``                              none for a window of 1
    pool       ``ring{i} [batch, window - 1, width]``, and         the last rows; ``seen`` as above, only for a maximum
               ``seen{i} [batch, 1]``                              and a mean over the rows seen so far
    position   ``t{i} [batch, 1]``                                 steps since reset, at most the length of the table
    ========== =================================================== ==============================================

Names
    Everything that layer i makes is called ``{i}.{kind}/...`` and its row, after the activation, ``{i}.{kind}/y``. A
    node is named after its first output. Constants are ``{i}.{kind}/{attribute}`` (``w``, ``r``, ``p`` for the
    projection, ``bias``, ``recurrent_bias``, ``gamma``, ``beta``, ``scale``, ``shift``, ``slopes``, ``table``); those
    of small auxiliary vectors begin with ``const/`` or have further names under the layer.

Matrices
    ``y = MatMul(x, w) + bias`` with ``w`` stored [in, out], the transpose of the layer's. An LSTM is
    ``MatMul(x, w) + MatMul(h, r) + bias``, split into gates i, f, g, o; x and h keep a MatMul each, since they have
    different ranges and the engine multiplies them at different times. A GRU has the sums ``MatMul(x, w) + bias`` and
    ``MatMul(h, r) + recurrent_bias``, gates r, z, n; with ``reset_after = False`` the last third of ``r`` stands alone
    as ``r_n`` with ``recurrent_bias_n`` and takes ``r * h``. A convolution is Concat(ring, row), Transpose, Conv
    without padding; ``w`` is stored [out, in / groups, taps] with the taps in ONNX order (oldest first), over levels
    [out, channels, taps, level kernel].

Number formats
    * fp32: the constant is float32. fp16, bf16: it is float16 or bfloat16 and a Cast to float32 follows
      (``.../float``).
    * int8: symmetric, zero points 0. A matrix is int8 in [-127, 127] with one float32 scale per output channel
      (``w_scale``, DequantizeLinear ``axis`` = 1 for MatMul, 0 for Conv); the row that meets it passes QuantizeLinear
      and DequantizeLinear with one scale (``input_scale``, ``state_scale``, ``projection_scale``; for attention
      ``q_scale``, ``k_scale``, ``v_scale``). Biases are float32; no output of a MatMul or Conv is quantised. Operator
      set 19.
    * int8a16: the same with int16 activations, zero point int16 0, operator set 21.

Rotary positions
    Scores depend on distances only, so keys are kept unrotated and slot j of the window (oldest first) is rotated by j
    positions, the query by window - 1: no counter grows without bound.

Metadata (``metadata_props``)
    ``tengri.form`` ("1"), ``tengri.network`` (JSON: wiring and every number that is not a constant of the graph),
    ``tengri.gate_order``, ``tengri.formats`` (by layer), ``tengri.outputs`` (names and widths of the original outputs,
    in the order in which they lie in ``y``), ``tengri.output_mode``; and every entry of ``Network.metadata`` as
    ``tengri.{key}``, among them ``source_sha256`` and ``calibration_sha256`` of a quantised network.

A strided convolution yields no row at most steps, which a single step without control flow cannot say: it is refused by
name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.layers import (
    AttentionLayer,
    ConvLayer,
    DenseLayer,
    GruLayer,
    Layer,
    LstmLayer,
    NormLayer,
    PoolLayer,
    PositionLayer,
)
from tengri_fast.inference.network import INPUT, LARGEST, SCALES, WEIGHTED, Network, Node
from tengri_fast.inference.onnx_writer import GraphWriter

__all__ = ["FORM", "QUANTISED", "RESERVED", "rotary", "state_shapes", "write_canonical"]

FORM = "1"
"""Version of the form described above."""
RESERVED = ("form", "network", "gate_order", "formats", "outputs", "output_mode")
"""Metadata keys that the writer makes itself."""
FAR = np.float32(-1e30)
"""Added to the score of a slot that holds no row yet: its exponential is exactly 0."""
BATCH = "batch"
QUANTISED = {"int8": "int8", "int8a16": "int16"}
FloatArray = npt.NDArray[np.float32]


def state_shapes(network: Network) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes (without the batch axis) of the states of a network's single-step graph, in order."""
    states: list[tuple[str, tuple[int, ...]]] = []
    for i, node in enumerate(network.nodes):
        layer = node.layer
        if isinstance(layer, LstmLayer):
            states += [(f"h{i}", (layer.output_size,)), (f"c{i}", (layer.hidden_size,))]
        elif isinstance(layer, GruLayer):
            states.append((f"h{i}", (layer.output_size,)))
        elif isinstance(layer, ConvLayer) and layer.taps > 1:
            states.append((f"ring{i}", ((layer.taps - 1) * layer.dilation, layer.input_size)))
        elif isinstance(layer, AttentionLayer) and layer.window > 1:
            _, k, v = layer.input_sizes
            states += [(f"k{i}", (layer.window - 1, k)), (f"v{i}", (layer.window - 1, v)), (f"seen{i}", (1,))]
        elif isinstance(layer, PoolLayer) and layer.window > 1:
            states.append((f"ring{i}", (layer.window - 1, layer.width)))
            if _counts(layer):
                states.append((f"seen{i}", (1,)))
        elif isinstance(layer, PositionLayer):
            states.append((f"t{i}", (1,)))
    return states


def _counts(layer: PoolLayer) -> bool:
    return layer.pool == "max" or (layer.pool == "mean" and layer.partial)


def rotary(layer: AttentionLayer) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], FloatArray]:
    """Cosines and sines [window, dim] of each slot and the matrix P with ``rotated = x * cos + (x @ P) * sin``."""
    half = layer.dim // 2
    angle = np.arange(layer.window)[:, None] * layer.rope_base ** (-2.0 * np.arange(half) / layer.dim)
    swap = np.zeros((layer.dim, layer.dim), np.float32)
    m = np.arange(half)
    first, second = (m, m + half) if layer.position == "rope" else (2 * m, 2 * m + 1)
    swap[second, first] = -1.0
    swap[first, second] = 1.0
    full = np.empty((layer.window, layer.dim))
    full[:, first] = full[:, second] = angle
    return np.cos(full), np.sin(full), swap


def write_canonical(network: Network, *, name: str = "step") -> bytes:
    """One step of a network as ONNX; the form is described at the top of this module.

    Parameters
    ----------
    network : Network
        In any mixture of formats. Its `metadata` goes into the file.
    name : str, default "step"
        Of the graph.

    Returns
    -------
    bytes
        The same bytes for the same network.

    Raises
    ------
    ModelLoadingError
        If a layer has no single-step form (a stride over time; int8 convolution weights whose scale differs from tap to
        tap), a weight does not fit into float16, or the file would be larger than 256 MiB.
    """
    opset = 21 if any(node.format == "int8a16" for node in network.nodes) else 19
    return _Emitter(network, GraphWriter(name, opset)).run()


class _Emitter:
    def __init__(self, network: Network, graph: GraphWriter) -> None:
        self.network = network
        self.graph = graph
        self.prefix = ""
        self.shared: dict[str, str] = {}

    def run(self) -> bytes:
        network, graph = self.network, self.graph
        graph.input("x", [BATCH, network.input_size])
        shapes = state_shapes(network)
        for state, shape in shapes:
            graph.input(state, [BATCH, *shape])
        rows: list[str] = []
        for i, node in enumerate(network.nodes):
            self.prefix = f"{i}.{node.layer.kind}"
            inputs = ["x" if source == INPUT else rows[source] for source in node.inputs]
            value = _LAYERS[node.layer.kind](self, i, node, inputs)
            value = self.activate(node.layer, value)
            rows.append(graph.node("Identity", [value], self.label("y")))
        graph.node("Identity", [rows[network.output]], "y")
        graph.output("y", [BATCH, network.output_size])
        for state, shape in shapes:
            graph.output(f"{state}_next", [BATCH, *shape])
        from tengri_fast import __version__

        return graph.to_bytes(_metadata(network), ("tengri_fast", __version__))

    # -- small helpers ---------------------------------------------------------------------------------------------

    def label(self, part: str) -> str:
        return f"{self.prefix}/{part}"

    def op(self, op: str, inputs: list[str], part: str, **attributes: Any) -> str:
        return self.graph.node(op, inputs, self.label(part), **attributes)

    def constant(self, part: str, values: npt.ArrayLike, dtype: str = "float32") -> str:
        return self.graph.tensor(self.label(part), values, dtype)

    def integers(self, *values: int) -> str:
        """A shared vector of int64."""
        key = "const/" + "_".join(str(v) for v in values)
        if key not in self.shared:
            self.shared[key] = self.graph.tensor(key, np.array(values, np.int64))
        return self.shared[key]

    def number(self, value: float) -> str:
        """A shared float32 scalar."""
        with np.errstate(over="ignore"):  # what does not fit was put there by a file that lies, and will not match it
            held = np.float32(value)
        key = f"const/f{held!s}"
        if key not in self.shared:
            self.shared[key] = self.graph.tensor(key, held)
        return self.shared[key]

    def reshape(self, value: str, part: str, *shape: int) -> str:
        return self.op("Reshape", [value, self.integers(*shape)], part)

    def tail(self, value: str, name: str) -> str:
        """Everything but the oldest row of [batch, rows, ...], as state `name`."""
        one, end, axis = self.integers(1), self.integers(np.iinfo(np.int64).max), self.integers(1)
        return self.graph.node("Slice", [value, one, end, axis], name)

    def quantised(self, value: str, node: Node, key: str, part: str = "") -> str:
        """The row through QuantizeLinear and DequantizeLinear, if the node's format asks for it."""
        kind = QUANTISED.get(node.format)
        if kind is None:
            return value
        part = part or key
        scale = self.constant(f"{part}_scale", np.float32(node.scales[key]))
        zero = self.zero(kind)
        q = self.op("QuantizeLinear", [value, scale, zero], f"{part}_q")
        return self.op("DequantizeLinear", [q, scale, zero], f"{part}_dq")

    def zero(self, kind: str) -> str:
        key = f"const/zero_{kind}"
        if key not in self.shared:
            self.shared[key] = self.graph.tensor(key, np.zeros((), kind))
        return self.shared[key]

    def weights(
        self,
        node: Node,
        attribute: str,
        arrange: Callable[[Any], Any],
        axis: int,
        rows: slice = slice(None),
        part: str = "",
    ) -> str:
        """A float32 value made from rows `rows` of a matrix in the node's format, arranged as the operator wants it."""
        part = part or attribute
        if node.format in QUANTISED:
            matrix = node.matrices[attribute]
            values, scale = matrix.values, matrix.scale
            if scale.ndim == 2:
                if not (scale == scale[0]).all():
                    raise ModelLoadingError(
                        f"layer `{node.layer.name}`: `scale` of the int8 matrix `{attribute}` must be equal over the "
                        f"taps, was {scale.min():g} to {scale.max():g}"
                    )
                scale = scale[0]
            else:
                values, scale = values[rows], scale[rows]
            stored = self.constant(part, arrange(values), "int8")
            scales = self.constant(f"{part}_scale", scale)
            zeros = self.constant(f"{part}_zero", np.zeros(scale.shape), "int8")
            return self.op("DequantizeLinear", [stored, scales, zeros], f"{part}_dq", axis=axis)
        matrix = getattr(node.layer, attribute)
        matrix = arrange(matrix if matrix.ndim == 3 else matrix[rows])
        if node.format == "fp32":
            return self.constant(part, matrix)
        largest = float(np.abs(matrix).max())
        if largest > LARGEST[node.format]:
            raise ModelLoadingError(
                f"layer `{node.layer.name}`: `{attribute}` must be at most {LARGEST[node.format]:g} for {node.format}, "
                f"was {largest:g}"
            )
        stored = self.constant(part, matrix, "float16" if node.format == "fp16" else "bfloat16")
        return self.op("Cast", [stored], f"{part}/float", to=1)

    # -- activations -----------------------------------------------------------------------------------------------

    def activate(self, layer: Layer, x: str) -> str:
        kind = layer.activation
        if kind == "none":
            return x
        simple = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
        if kind in simple:
            return self.op(simple[kind], [x], kind)
        if kind == "leaky_relu":
            return self.op("LeakyRelu", [x], kind, alpha=float(getattr(layer, "slope", 0.01)))
        if kind == "softmax":
            groups = getattr(layer, "softmax_groups", 1)
            if groups == 1:
                return self.op("Softmax", [x], kind, axis=1)
            split = self.reshape(x, "softmax_split", -1, groups, layer.output_size // groups)
            parted = self.op("Softmax", [split], kind, axis=2)
            return self.reshape(parted, "softmax_join", -1, layer.output_size)
        if kind == "silu":
            return self.op("Mul", [x, self.op("Sigmoid", [x], "silu_gate")], kind)
        if kind == "gelu":
            scaled = self.op("Div", [x, self.number(math.sqrt(2.0))], "gelu_scaled")
            erf = self.op("Erf", [scaled], "gelu_erf")
        else:
            cube = self.op("Mul", [self.op("Mul", [x, x], "gelu_square"), x], "gelu_cube")
            inner = self.op("Add", [x, self.op("Mul", [cube, self.number(0.044715)], "gelu_term")], "gelu_inner")
            erf = self.op(
                "Tanh", [self.op("Mul", [inner, self.number(math.sqrt(2.0 / math.pi))], "gelu_arg")], "gelu_t"
            )
        raised = self.op("Add", [erf, self.number(1.0)], "gelu_raised")
        return self.op("Mul", [self.op("Mul", [x, raised], "gelu_twice"), self.number(0.5)], kind)

    # -- layers ----------------------------------------------------------------------------------------------------

    def dense(self, i: int, node: Node, inputs: list[str]) -> str:
        layer = node.layer
        assert isinstance(layer, DenseLayer)
        row = self.quantised(inputs[0], node, "input")
        product = self.op("MatMul", [row, self.weights(node, "w", np.transpose, 1)], "wx")
        return self.op("Add", [product, self.constant("bias", layer.bias)], "z")

    def lstm(self, i: int, node: Node, inputs: list[str]) -> str:
        layer = node.layer
        assert isinstance(layer, LstmLayer)
        row = self.quantised(inputs[0], node, "input")
        state = self.quantised(f"h{i}", node, "state")
        wx = self.op("MatMul", [row, self.weights(node, "w", np.transpose, 1)], "wx")
        rh = self.op("MatMul", [state, self.weights(node, "r", np.transpose, 1)], "rh")
        z = self.op("Add", [self.op("Add", [wx, rh], "sum"), self.constant("bias", layer.bias)], "z")
        gates = [self.label(f"z_{gate}") for gate in "ifgo"]
        self.graph.node("Split", [z], gates, axis=1, num_outputs=4)
        kinds = ("Sigmoid", "Sigmoid", "Tanh", "Sigmoid")
        gi, gf, gg, go = (self.op(op, [z], g) for op, z, g in zip(kinds, gates, "ifgo", strict=True))
        kept = self.op("Mul", [gf, f"c{i}"], "kept")
        cell = self.graph.node("Add", [kept, self.op("Mul", [gi, gg], "new")], f"c{i}_next")
        hidden = self.op("Mul", [go, self.op("Tanh", [cell], "cell")], "hidden")
        if layer.projection is not None:
            hidden = self.quantised(hidden, node, "projection")
            hidden = self.op(
                "MatMul", [hidden, self.weights(node, "projection", np.transpose, 1, part="p")], "projected"
            )
        return self.graph.node("Identity", [hidden], f"h{i}_next")

    def gru(self, i: int, node: Node, inputs: list[str]) -> str:
        layer = node.layer
        assert isinstance(layer, GruLayer)
        h, size = f"h{i}", layer.output_size
        row = self.quantised(inputs[0], node, "input")
        state = self.quantised(h, node, "state")
        wx = self.op("MatMul", [row, self.weights(node, "w", np.transpose, 1)], "wx")
        zx = self.op("Add", [wx, self.constant("bias", layer.bias)], "zx")
        x_gates = [self.label(f"zx_{gate}") for gate in "rzn"]
        self.graph.node("Split", [zx], x_gates, axis=1, num_outputs=3)
        early = slice(None) if layer.reset_after else slice(0, 2 * size)
        rh = self.op("MatMul", [state, self.weights(node, "r", np.transpose, 1, early)], "rh")
        zh = self.op("Add", [rh, self.constant("recurrent_bias", layer.recurrent_bias[early])], "zh")
        h_gates = [self.label(f"zh_{gate}") for gate in ("rzn" if layer.reset_after else "rz")]
        self.graph.node("Split", [zh], h_gates, axis=1, num_outputs=len(h_gates))
        reset = self.op("Sigmoid", [self.op("Add", [x_gates[0], h_gates[0]], "sum_r")], "r_gate")
        update = self.op("Sigmoid", [self.op("Add", [x_gates[1], h_gates[1]], "sum_z")], "z_gate")
        if layer.reset_after:
            inner = self.op("Mul", [reset, h_gates[2]], "reset")
        else:
            held = self.quantised(self.op("Mul", [reset, h], "reset"), node, "state", "reset_state")
            weights = self.weights(node, "r", np.transpose, 1, slice(2 * size, None), "r_n")
            product = self.op("MatMul", [held, weights], "rh_n")
            inner = self.op(
                "Add", [product, self.constant("recurrent_bias_n", layer.recurrent_bias[2 * size :])], "zh_n"
            )
        new = self.op("Tanh", [self.op("Add", [x_gates[2], inner], "sum_n")], "n_gate")
        difference = self.op("Sub", [h, new], "difference")
        return self.graph.node("Add", [new, self.op("Mul", [update, difference], "kept")], f"h{i}_next")

    def window(self, state: str, row: str, part: str, width: int, rows: int) -> str:
        """[batch, rows, width] of the ring and the new row; the ring's next content becomes `state`_next."""
        newest = self.reshape(row, f"{part}_row", -1, 1, width)
        if rows == 1:
            return newest
        both = self.op("Concat", [state, newest], f"{part}_window", axis=1)
        self.tail(both, f"{state}_next")
        return both

    def conv(self, i: int, node: Node, inputs: list[str]) -> str:
        layer = node.layer
        assert isinstance(layer, ConvLayer)
        if layer.stride > 1:
            raise ModelLoadingError(
                f"layer `{layer.name}`: `stride` must be 1 in a single-step graph, was {layer.stride}: a strided "
                "convolution yields no row at most steps"
            )
        rows = (layer.taps - 1) * layer.dilation + 1
        both = self.window(f"ring{i}", inputs[0], "ring", layer.input_size, rows)
        both = self.quantised(both, node, "input")
        out = layer.w.shape[1]
        if layer.levels == 1:
            moved = self.op("Transpose", [both], "channels_first", perm=[0, 2, 1])
            weights = self.weights(node, "w", lambda w: w[::-1].transpose(1, 2, 0), 0)
            made = self.op("Conv", [moved, weights, self.constant("bias", layer.bias)], "conv",
                           kernel_shape=[layer.taps], dilations=[layer.dilation], strides=[1], pads=[0, 0],
                           group=layer.groups)  # fmt: skip
            return self.reshape(made, "z", -1, out)
        split = self.reshape(both, "levels", -1, rows, layer.levels, layer.channels)
        moved = self.op("Transpose", [split], "channels_first", perm=[0, 3, 1, 2])
        shape = (layer.taps, out, layer.level_kernel, layer.channels)
        weights = self.weights(node, "w", lambda w: w[::-1].reshape(shape).transpose(1, 3, 0, 2), 0)
        made = self.op("Conv", [moved, weights, self.constant("bias", layer.bias)], "conv",
                       kernel_shape=[layer.taps, layer.level_kernel], dilations=[layer.dilation, 1],
                       strides=[1, layer.level_stride], pads=[0, 0, 0, 0], group=1)  # fmt: skip
        back = self.op("Transpose", [made], "channels_last", perm=[0, 2, 3, 1])
        return self.reshape(back, "z", -1, layer.output_size)

    def seen(self, i: int, limit: int) -> str:
        """Declares ``seen{i}_next = min(seen{i} + 1, limit)`` and returns ``seen{i}``."""
        more = self.op("Add", [f"seen{i}", self.number(1.0)], "seen_more")
        self.graph.node("Min", [more, self.number(limit)], f"seen{i}_next")
        return f"seen{i}"

    def empty(self, i: int, window: int) -> str:
        """[batch, window]: 0 for a slot that holds a row, FAR or less for an empty one; the last is the newest."""
        seen = self.seen(i, window - 1)
        age = self.constant("slots", np.arange(1 - window, 1, dtype=np.float32)[None])
        level = self.op("Add", [seen, age], "fill")
        below = self.op("Min", [level, self.number(0.0)], "below")
        return self.op("Mul", [below, self.number(-float(FAR))], "empty")

    def attention(self, i: int, node: Node, inputs: list[str]) -> str:
        layer = node.layer
        assert isinstance(layer, AttentionLayer)
        kv, dim, group, window = layer.kv_heads, layer.dim, layer.heads // layer.kv_heads, layer.window
        q = self.reshape(inputs[0], "q_heads", -1, kv, group, dim)
        k = self.window(f"k{i}", inputs[1], "k", kv * dim, window)
        v = self.window(f"v{i}", inputs[2], "v", kv * layer.value_dim, window)
        k = self.reshape(k, "k_heads", -1, window, kv, dim)
        v = self.reshape(v, "v_heads", -1, window, kv, layer.value_dim)
        if layer.position.startswith("rope"):
            cos, sin, swap = rotary(layer)
            matrix = self.constant("rope_swap", swap)
            q = self.rotate(q, "q", cos[-1], sin[-1], matrix)
            k = self.rotate(k, "k", cos[:, None], sin[:, None], matrix)
        k = self.op("Transpose", [k], "k_turned", perm=[0, 2, 3, 1])
        v = self.op("Transpose", [v], "v_turned", perm=[0, 2, 1, 3])
        q, k, v = (self.quantised(value, node, key) for value, key in ((q, "q"), (k, "k"), (v, "v")))
        scores = self.op("MatMul", [q, k], "products")
        scores = self.op("Mul", [scores, self.number(layer.scale)], "scores")
        if layer.slopes is not None:
            slopes = layer.slopes.reshape(1, kv, group, 1)
            scores = self.op("Add", [scores, self.alibi(slopes, window)], "scores_alibi")
        if window > 1:
            empty = self.reshape(self.empty(i, window), "empty_slots", -1, 1, 1, window)
            scores = self.op("Add", [scores, empty], "scores_masked")
        shares = self.op("Softmax", [scores], "shares", axis=3)
        return self.reshape(self.op("MatMul", [shares, v], "mixed"), "heads", -1, layer.output_size)

    def alibi(self, slopes: FloatArray, window: int) -> str:
        ages = np.arange(window - 1, -1, -1, dtype=np.float32)
        self.constant("slopes", slopes.reshape(-1))
        turned = self.op("Reshape", [self.label("slopes"), self.integers(*slopes.shape)], "slopes_turned")
        return self.op("Mul", [turned, self.constant("ages", -ages)], "alibi")

    def rotate(self, x: str, part: str, cos: Any, sin: Any, swap: str) -> str:
        straight = self.op("Mul", [x, self.constant(f"{part}_cos", cos)], f"{part}_straight")
        swapped = self.op("MatMul", [x, swap], f"{part}_swapped")
        crossed = self.op("Mul", [swapped, self.constant(f"{part}_sin", sin)], f"{part}_crossed")
        return self.op("Add", [straight, crossed], f"{part}_rotated")

    def norm(self, i: int, node: Node, inputs: list[str]) -> str:
        layer, x = node.layer, inputs[0]
        assert isinstance(layer, NormLayer)
        gamma = self.constant("gamma", layer.gamma)
        beta = [] if layer.beta is None else [self.constant("beta", layer.beta)]
        if layer.norm == "layer":
            return self.op("LayerNormalization", [x, gamma, *beta], "normed", axis=1, epsilon=float(layer.epsilon))
        mean = self.op("ReduceMean", [self.op("Mul", [x, x], "square"), self.integers(1)], "mean", keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean, self.number(layer.epsilon)], "raised")], "root")
        scaled = self.op("Mul", [self.op("Div", [x, root], "unit"), gamma], "normed")
        return self.op("Add", [scaled, *beta], "shifted") if beta else scaled

    def affine(self, i: int, node: Node, inputs: list[str]) -> str:
        scaled = self.op("Mul", [inputs[0], self.constant("scale", node.layer.scale)], "scaled")  # type: ignore[union-attr]
        return self.op("Add", [scaled, self.constant("shift", node.layer.shift)], "shifted")  # type: ignore[union-attr]

    def activation(self, i: int, node: Node, inputs: list[str]) -> str:
        return inputs[0]

    def add(self, i: int, node: Node, inputs: list[str]) -> str:
        return self.op("Add", inputs, "sum")

    def mul(self, i: int, node: Node, inputs: list[str]) -> str:
        return self.op("Mul", inputs, "product")

    def concat(self, i: int, node: Node, inputs: list[str]) -> str:
        return self.op("Concat", inputs, "joined", axis=1)

    def slice(self, i: int, node: Node, inputs: list[str]) -> str:
        layer: Any = node.layer
        bounds = [self.integers(layer.offset), self.integers(layer.offset + layer.width), self.integers(1)]
        return self.op("Slice", [inputs[0], *bounds], "part")

    def pool(self, i: int, node: Node, inputs: list[str]) -> str:
        layer = node.layer
        assert isinstance(layer, PoolLayer)
        if layer.window == 1:
            return inputs[0]
        both = self.window(f"ring{i}", inputs[0], "ring", layer.width, layer.window)
        axis = self.integers(1)
        if layer.pool == "max":
            empty = self.reshape(self.empty(i, layer.window), "empty_slots", -1, layer.window, 1)
            return self.op("ReduceMax", [self.op("Add", [both, empty], "filled"), axis], "pooled", keepdims=0)
        total = self.op("ReduceSum", [both, axis], "total", keepdims=0)
        if layer.pool == "sum":
            return total
        if not layer.partial:
            return self.op("Div", [total, self.number(layer.window)], "pooled")
        count = self.op("Add", [self.seen(i, layer.window - 1), self.number(1.0)], "count")
        return self.op("Div", [total, count], "pooled")

    def position(self, i: int, node: Node, inputs: list[str]) -> str:
        layer = node.layer
        assert isinstance(layer, PositionLayer)
        last = layer.table.shape[0] - 1
        index = self.op("Cast", [f"t{i}"], "index", to=7)
        row = self.op("Gather", [self.constant("table", layer.table), index], "rows", axis=0)
        more = self.op("Add", [f"t{i}", self.number(1.0)], "later")
        self.graph.node("Min", [more, self.number(last)], f"t{i}_next")
        return self.op("Add", [inputs[0], self.reshape(row, "row", -1, layer.output_size)], "placed")


_LAYERS: dict[str, Callable[[_Emitter, int, Node, list[str]], str]] = {
    kind: getattr(_Emitter, kind)
    for kind in ("lstm", "gru", "dense", "conv", "attention", "norm", "affine", "activation", "add", "mul", "concat",
                 "slice", "pool", "position")
}  # fmt: skip


def _metadata(network: Network) -> dict[str, str]:
    gates = {"lstm": "ifgo", "gru": "rzn"}
    found = sorted({node.layer.kind for node in network.nodes} & set(gates))
    own = {
        "form": FORM,
        "network": json.dumps(_skeleton(network), separators=(",", ":"), sort_keys=True),
        "gate_order": " ".join(f"{kind}={gates[kind]}" for kind in found),
        "formats": json.dumps([node.format for node in network.nodes], separators=(",", ":")),
        "outputs": json.dumps([list(entry) for entry in network.outputs], separators=(",", ":")),
        "output_mode": network.output_mode,
    }
    kept = {key: value for key, value in network.metadata.items() if key not in RESERVED}
    return {f"tengri.{key}": value for key, value in {**kept, **own}.items()}


def _skeleton(network: Network) -> dict[str, Any]:
    """Wiring and plain numbers; arrays are constants of the graph, scales too."""
    nodes = []
    for node in network.nodes:
        layer = node.layer
        entry: dict[str, Any] = {"kind": layer.kind, "inputs": list(node.inputs), "format": node.format}
        arrays = []
        for item in fields(layer):
            if item.name == "kind" or (not item.init and item.name == "activation"):
                continue
            value = getattr(layer, item.name)
            if isinstance(value, np.ndarray):
                arrays.append(item.name)
            elif value is not None:
                entry[item.name] = list(value) if isinstance(value, tuple) else value
        entry["arrays"] = arrays
        if node.format in QUANTISED:
            entry["matrices"] = [name for name in WEIGHTED.get(layer.kind, ()) if name in arrays]
            entry["scales"] = [key for key in SCALES.get(layer.kind, ()) if key in node.scales]
        nodes.append(entry)
    return {"input": network.input_size, "output": network.output, "nodes": nodes}
