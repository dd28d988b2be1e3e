"""Random networks for tests: a Hypothesis strategy over every kind of layer, and their quantised twins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from inference.network_reference import Evaluator

from tengri_fast.inference import layers as L
from tengri_fast.inference.network import INPUT, WEIGHTED, Matrix8, Network, Node

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid", "leaky_relu", "gelu", "gelu_tanh", "silu")
BLOCKS = (
    "dense",
    "lstm",
    "gru",
    "conv",
    "levels",
    "residual",
    "gated",
    "attention",
    "norm",
    "affine",
    "activation",
    "join",
    "pool",
)


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normal weights that keep the size of what they multiply."""
    return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def small(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) * 0.3).astype(np.float32)


def lstm(rng: np.random.Generator, inputs: int, hidden: int, projected: int = 0, name: str = "lstm") -> L.LstmLayer:
    width = projected or hidden
    return L.LstmLayer(
        weights(rng, 4 * hidden, inputs),
        weights(rng, 4 * hidden, width),
        small(rng, 4 * hidden),
        name,
        weights(rng, projected, hidden) if projected else None,
    )


def gru(rng: np.random.Generator, inputs: int, hidden: int, reset_after: bool = True, name: str = "gru") -> L.GruLayer:
    return L.GruLayer(
        weights(rng, 3 * hidden, inputs),
        weights(rng, 3 * hidden, hidden),
        small(rng, 3 * hidden),
        small(rng, 3 * hidden),
        reset_after,
        name,
    )


def dense(
    rng: np.random.Generator, inputs: int, outputs: int, activation: str = "none", **options: Any
) -> L.DenseLayer:
    return L.DenseLayer(weights(rng, outputs, inputs), small(rng, outputs), activation, **options)


def conv(
    rng: np.random.Generator, channels: int, outputs: int, taps: int, activation: str = "none", **options: Any
) -> L.ConvLayer:
    """A Conv1d over a row of `channels`, or over `levels` of that many."""
    width = options.get("level_kernel", 1) * channels // options.get("groups", 1)
    w = weights(rng, taps, outputs, width) / np.sqrt(np.float32(taps))
    return L.ConvLayer(w, small(rng, outputs), activation=activation, **options)


class Builder:
    """Adds blocks to a list of nodes; `at` is the node whose row the next block reads."""

    def __init__(self, rng: np.random.Generator, width: int) -> None:
        self.rng, self.nodes, self.input_size = rng, [], width
        self.at = INPUT

    @property
    def width(self) -> int:
        return self.input_size if self.at == INPUT else self.nodes[self.at].layer.output_size

    def add(self, layer: Any, *inputs: int) -> int:
        layer = replace(layer, name=f"{layer.kind}{len(self.nodes)}")
        self.nodes.append(Node(layer, inputs or (self.at,)))
        self.at = len(self.nodes) - 1
        return self.at

    def network(self, **options: Any) -> Network:
        return Network(tuple(self.nodes), self.input_size, **options)

    # ---- blocks of several nodes ----

    def residual(self, width: int, taps: int, dilation: int, activation: str) -> None:
        """A TCN block: convolution, pointwise convolution, and the input added (through one more if widths differ)."""
        start, before = self.at, self.width
        self.add(conv(self.rng, before, width, taps, activation, dilation=dilation))
        main = self.add(conv(self.rng, width, width, 1))
        skip = start if before == width else self.add(conv(self.rng, before, width, 1), start)
        self.add(L.AddLayer(width, activation), main, skip)

    def gated(self, width: int, taps: int, dilation: int) -> None:
        """A WaveNet gate: tanh of one convolution times sigmoid of another."""
        start, before = self.at, self.width
        a = self.add(conv(self.rng, before, width, taps, "tanh", dilation=dilation))
        b = self.add(conv(self.rng, before, width, taps, "sigmoid", dilation=dilation), start)
        self.add(L.MulLayer(width), a, b)

    def attend(self, heads: int, kv_heads: int, dim: int, value_dim: int, window: int, position: str) -> None:
        """Attention with its projections, the input added, and a norm."""
        start, width = self.at, self.width
        q = self.add(dense(self.rng, width, heads * dim), start)
        k = self.add(dense(self.rng, width, kv_heads * dim), start)
        v = self.add(dense(self.rng, width, kv_heads * value_dim), start)
        slopes = np.float32(0.5) ** np.arange(1, heads + 1) if position == "alibi" else None
        layer = L.AttentionLayer(heads, kv_heads, dim, value_dim, window, position=position, slopes=slopes)
        self.add(layer, q, k, v)
        out = self.add(dense(self.rng, heads * value_dim, width))
        self.add(L.AddLayer(width), out, start)
        self.add(L.NormLayer(1 + small(self.rng, width), small(self.rng, width), norm=conditioned("layer", width)))


def conditioned(norm: str, width: int) -> str:
    """A norm that floats can be held to: less their mean, two or three numbers that are nearly equal are noise."""
    return norm if width > 3 else "rms"


@st.composite
def networks(
    draw: st.DrawFn, *, blocks: tuple[str, ...] = BLOCKS, most: int = 4, strides: bool = True, positions: bool = False
) -> Network:
    """A network of one to `most` blocks behind each other and sometimes a head; weights come from a drawn seed.

    Nothing but a stride slows rows down, and no block reads past one, so all rows of a node belong to the same step.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    b = Builder(rng, draw(st.integers(1, 40)))
    if positions:
        b.add(L.PositionLayer(weights(rng, draw(st.integers(1, 60)), b.width)))
    for _ in range(draw(st.integers(1, most))):
        block = draw(st.sampled_from(blocks))
        size = draw(st.integers(1, 48))
        activation = draw(st.sampled_from(ACTIVATIONS))
        taps, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 5))
        match block:
            case "dense":
                b.add(dense(rng, b.width, size, activation))
            case "lstm":
                b.add(lstm(rng, b.width, size, draw(st.integers(0, size))))
            case "gru":
                b.add(gru(rng, b.width, size, draw(st.booleans())))
            case "conv":
                groups = draw(st.sampled_from([g for g in (1, 2, 3, b.width) if b.width % g == 0]))
                stride = draw(st.sampled_from([1, 1, 1, 2, 3])) if strides else 1
                per_group = draw(st.integers(1, 3))
                outputs = size if groups == 1 else groups * per_group
                b.add(
                    conv(
                        rng, b.width, outputs, taps, activation, dilation=dilation, groups=groups, stride=stride,
                    )
                )  # fmt: skip
            case "levels":
                levels = draw(st.sampled_from([n for n in (1, 2, 3, 4, 5, 10) if b.width % n == 0]))
                kernel = draw(st.integers(1, levels))
                step = draw(st.integers(1, min(2, levels)))
                b.add(
                    conv(
                        rng, b.width // levels, 1 + size % 12, taps, activation, levels=levels, level_kernel=kernel,
                        level_stride=step,
                    )
                )  # fmt: skip
            case "residual":
                b.residual(draw(st.sampled_from([b.width, size])), taps, dilation, activation)
            case "gated":
                b.gated(size, taps, dilation)
            case "attention":
                kv_heads = draw(st.integers(1, 3))
                position = draw(st.sampled_from(L.POSITIONS))
                dim = 2 * draw(st.integers(1, 9))
                b.attend(
                    kv_heads * draw(st.integers(1, 2)), kv_heads, dim, draw(st.integers(1, 17)),
                    draw(st.integers(1, 40)), position,
                )  # fmt: skip
            case "norm":
                beta = small(rng, b.width) if draw(st.booleans()) else None
                norm = conditioned(draw(st.sampled_from(L.NORMS)), b.width)
                b.add(L.NormLayer(1 + small(rng, b.width), beta, norm=norm))
            case "affine":
                b.add(L.AffineLayer(1 + small(rng, b.width), small(rng, b.width), activation))
            case "activation":
                groups = draw(st.sampled_from([g for g in (1, 2, 3) if b.width % g == 0]))
                kind = draw(st.sampled_from([*L.ACTIVATIONS]))
                b.add(L.ActivationLayer(kind, b.width, groups if kind == "softmax" else 1, 0.2))
            case "join":
                start, width = b.at, b.width
                branch = b.add(dense(rng, width, size, activation))
                b.add(L.ConcatLayer((width, size, width)), start, branch, start)
                keep = draw(st.integers(1, b.width))
                b.add(L.SliceLayer(draw(st.integers(0, b.width - keep)), keep))
            case "pool":
                b.add(
                    L.PoolLayer(b.width, draw(st.integers(1, 9)), draw(st.sampled_from(L.POOLS)), draw(st.booleans()))
                )
    if draw(st.booleans()):
        b.add(dense(rng, b.width, 6, draw(st.sampled_from(["none", "softmax"])), softmax_groups=2))
    return b.network()


def quantised(network: Network, format: str, x: np.ndarray, *, attention: bool = True) -> Network:
    """The network in int8 or int8a16: weights per row by their maximum, activations by their maximum over rows `x`."""
    top = 127.0 if format == "int8" else 32767.0
    evaluator = Evaluator(network)
    largest: list[dict[str, float]] = [{} for _ in network.nodes]
    for row in x:
        evaluator.step(row)
        for found, node in zip(largest, network.nodes, strict=True):
            names = ("q", "k", "v") if node.layer.kind == "attention" else ("input",)
            for name, source in zip(names, node.inputs, strict=False):
                value = np.abs(row if source == INPUT else evaluator.rows[source]).max()
                found[name] = max(found.get(name, 1e-3), float(value))
            if node.layer.kind in ("lstm", "gru"):
                own = evaluator.rows[network.nodes.index(node)]
                found["state"] = max(found.get("state", 1.0), float(np.abs(own).max()))
                found["projection"] = 1.0
    nodes = []
    for node, found in zip(network.nodes, largest, strict=True):
        kind = node.layer.kind
        if kind == "attention" and attention and format == "int8":
            # A rotation may move all of a pair into one of the two.
            scales = {key: 1.5 * found[key] / top for key in ("q", "k", "v")}
            nodes.append(replace(node, format="int8", scales=scales))
        elif kind in WEIGHTED:
            matrices = {}
            for attribute in WEIGHTED[kind]:
                w = getattr(node.layer, attribute)
                if w is not None:
                    scale = np.maximum(np.abs(w).max(axis=-1), 1e-6) / 127.0
                    matrices[attribute] = Matrix8(np.round(w / scale[..., None]).astype(np.int8), scale)
            scales = {key: value / top for key, value in found.items()}
            nodes.append(replace(node, format=format, scales=scales, matrices=matrices))
        else:
            nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def rows(count: int, width: int, seed: int = 3) -> np.ndarray:
    """Rows that vary and have some memory, as features have."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, width)).astype(np.float32)
    for t in range(1, count):
        x[t] += np.float32(0.5) * x[t - 1]
    assert len(np.unique(x)) > count * width // 2, "the inputs must vary"
    return x


FAMILIES = ("lstm", "gru", "projected", "mlp", "tcn", "wavenet", "deeplob", "transformer", "strided", "pooled")


def family(name: str, inputs: int = 20, outputs: int = 3, seed: int = 11) -> Network:
    """One fixed small network per family of models."""
    rng = np.random.default_rng(seed)
    b = Builder(rng, inputs)
    match name:
        case "lstm":
            b.add(lstm(rng, inputs, 24))
            b.add(lstm(rng, 24, 17))
        case "gru":
            b.add(gru(rng, inputs, 24))
            b.add(gru(rng, 24, 17, reset_after=False))
        case "projected":
            b.add(lstm(rng, inputs, 33, 9))
        case "mlp":
            b.add(dense(rng, inputs, 40, "gelu"))
            b.add(dense(rng, 40, 33, "relu"))
        case "tcn":
            for power in range(4):
                b.residual(20, 3, 2**power, "relu")
        case "wavenet":
            for power in range(3):
                b.gated(16, 2, 2**power)
        case "deeplob":
            b.add(conv(rng, 2, 6, 1, "leaky_relu", levels=inputs // 2, level_kernel=2, level_stride=2))
            b.add(conv(rng, 6, 8, 4, "leaky_relu", levels=inputs // 4))
            b.add(lstm(rng, b.width, 16))
        case "transformer":
            for position in ("rope", "alibi"):
                b.attend(4, 2, 6, 7, 19, position)
                width = b.width
                b.add(dense(rng, width, 2 * width, "gelu"))
                b.add(dense(rng, 2 * width, width))
        case "strided":
            b.add(conv(rng, inputs, 12, 4, "silu", stride=2))
            b.add(conv(rng, 12, 12, 3, "tanh", stride=3, groups=12))
            b.add(gru(rng, 12, 8))
        case "pooled":
            b.add(conv(rng, inputs, 12, 3, "relu"))
            b.add(L.PoolLayer(12, 7, "max"))
            b.add(L.PoolLayer(12, 5, "mean", partial=False))
        case _:
            raise ValueError(name)
    b.add(dense(rng, b.width, outputs, "softmax"))
    return b.network()
