"""The shapes that the inference benches measure, with seeded weights: networks that a tick handler can afford."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable

import numpy as np

from tengri_fast.inference.layers import (
    AddLayer,
    AttentionLayer,
    ConvLayer,
    DenseLayer,
    Layer,
    LstmLayer,
    NormLayer,
    SliceLayer,
)
from tengri_fast.inference.network import INPUT, Network, Node, chain

__all__ = ["LARGE", "SHAPES", "network", "rows"]


class _Builder:
    """Collects nodes; every method returns the index of the node it made."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []

    def add(self, layer: Layer, *inputs: int) -> int:
        self.nodes.append(Node(layer, inputs))
        return len(self.nodes) - 1

    def matrix(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape) / np.sqrt(shape[-1])

    def dense(self, source: int, inputs: int, outputs: int, activation: str = "none") -> int:
        bias = self.rng.standard_normal(outputs) * 0.05
        return self.add(DenseLayer(self.matrix(outputs, inputs), bias, activation), source)

    def norm(self, source: int, width: int) -> int:
        return self.add(NormLayer(np.ones(width), np.zeros(width)), source)


def _lstm(inputs: int, hidden: int, layers: int, outputs: int) -> Callable[[_Builder], Network]:
    def build(b: _Builder) -> Network:
        stack: list[Layer] = []
        for i in range(layers):
            width = hidden if i else inputs
            bias = b.rng.standard_normal(4 * hidden) * 0.1
            stack.append(LstmLayer(b.matrix(4 * hidden, width), b.matrix(4 * hidden, hidden), bias, f"lstm{i}"))
        return chain([*stack, DenseLayer(b.matrix(outputs, hidden), np.zeros(outputs))])

    return build


def _tcn(b: _Builder) -> Network:
    """Eight residual blocks of 64 channels, kernel 3, dilation 1 to 128: a receptive field of 511 rows."""
    source = INPUT
    for i in range(8):
        width = 64 if i else 16
        w = b.rng.standard_normal((3, 64, width)) / np.sqrt(3 * width)
        layer = ConvLayer(w, b.rng.standard_normal(64) * 0.05, dilation=1 << i, activation="relu", name=f"conv{i}")
        made = b.add(layer, source)
        source = b.add(AddLayer(64), made, source) if i else made
    b.dense(source, 64, 4)
    return Network(tuple(b.nodes), 16)


def _transformer(b: _Builder) -> Network:
    """Two pre-norm blocks, width 64, 4 heads over the last 128 rows, feed-forward 256."""
    x = b.dense(INPUT, 16, 64)
    for _ in range(2):
        qkv = b.dense(b.norm(x, 64), 64, 192)
        q, k, v = (b.add(SliceLayer(64 * part, 64), qkv) for part in range(3))
        attended = b.add(AttentionLayer(4, 4, 16, 16, 128), q, k, v)
        x = b.add(AddLayer(64), x, b.dense(attended, 64, 64))
        inner = b.dense(b.norm(x, 64), 64, 256, "relu")
        x = b.add(AddLayer(64), x, b.dense(inner, 256, 64))
    b.dense(b.norm(x, 64), 64, 4)
    return Network(tuple(b.nodes), 16)


def _mlp(b: _Builder) -> Network:
    x = INPUT
    for _ in range(3):
        x = b.dense(x, 256, 256, "relu")
    b.dense(x, 256, 32)
    return Network(tuple(b.nodes), 256)


_BUILDERS: dict[str, Callable[[_Builder], Network]] = {
    "lstm_1x64": _lstm(16, 64, 1, 4),
    "lstm_2x64": _lstm(16, 64, 2, 4),
    "lstm_2x128": _lstm(128, 128, 2, 32),
    "lstm_3x256": _lstm(256, 256, 3, 32),
    "lstm_3x480": _lstm(480, 480, 3, 32),
    "tcn_8x64": _tcn,
    "transformer_2x64": _transformer,
    "mlp_256": _mlp,
}
SHAPES = tuple(_BUILDERS)
LARGE = {"lstm_3x256", "lstm_3x480"}
"""Shapes whose steps take long: they get fewer samples."""


@functools.cache
def network(shape: str) -> Network:
    """The float32 network of a shape."""
    return _BUILDERS[shape](_Builder(zlib.crc32(shape.encode())))


@functools.cache
def rows(shape: str, count: int = 1024, seed: int = 11) -> np.ndarray:
    """Input rows [count, input], standard normal: what normalised features look like."""
    out = np.random.default_rng(seed).standard_normal((count, network(shape).input_size)).astype(np.float32)
    out.flags.writeable = False
    return out
