"""Which values of a network stand or fall together: the bookkeeping of structured pruning.

Every value of every layer's row gets a number. Values that must be removed together are united: both sides of a
residual add and its result, an activation's input and output, a slice and what it is cut from, a whole attention head
with its queries, keys and values, one channel at all book levels. What is left after uniting are *units*; a unit can be
removed by cutting rows from the weights that make it and columns from the weights that read it.

Some values cannot go: the network's input, its answer, what a softmax or a normalisation runs over (taking one away
changes all others), and the channels of a convolution in groups (except a depthwise one, whose channels go with their
inputs).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.layers import AttentionLayer, ConvLayer, GruLayer, LstmLayer
from tengri_fast.inference.network import INPUT, Network, Node

__all__ = ["Channels", "Family", "cut"]

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Family:
    """Units that live in the same places of the same layers, and so may be traded against each other."""

    name: str
    kind: str
    """"units", "channels" or "heads"."""
    units: tuple[int, ...]


class Channels:
    """The units of a network.

    Attributes
    ----------
    rows : dict of int to numpy.ndarray
        Unit of every value of a node's row; of the input row under :data:`INPUT`. Unit 0 holds all that cannot go.
    inner : dict of int to numpy.ndarray
        Unit of every hidden cell of an LSTM with projection.
    families : list of Family
        What can be pruned.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._parent: list[int] = [0]
        self.rows: dict[int, Ids] = {INPUT: np.zeros(network.input_size, np.int64)}
        self.inner: dict[int, Ids] = {}
        for i, node in enumerate(network.nodes):
            self.rows[i] = self._node(i, node)
        self._unite(self.rows[network.output], np.zeros(network.output_size, np.int64))
        for table in (self.rows, self.inner):
            for key in table:
                table[key] = np.array([self._find(int(unit)) for unit in table[key]], np.int64)
        self.families = self._families()

    def _new(self, count: int) -> Ids:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def _find(self, unit: int) -> int:
        while self._parent[unit] != unit:
            self._parent[unit] = self._parent[self._parent[unit]]
            unit = self._parent[unit]
        return unit

    def _unite(self, a: Ids, b: Ids) -> None:
        for left, right in zip(a.ravel(), b.ravel(), strict=True):
            one, other = self._find(int(left)), self._find(int(right))
            self._parent[max(one, other)] = min(one, other)  # unit 0 stays the root of what cannot go

    def _fix(self, ids: Ids) -> None:
        self._unite(ids, np.zeros(ids.shape, np.int64))

    def _node(self, index: int, node: Node) -> Ids:
        layer: Any = node.layer
        inputs = [self.rows[source] for source in node.inputs]
        kind = layer.kind
        if kind == "dense" or kind == "gru":
            out = self._new(layer.output_size)
        elif kind == "lstm":
            out = self._new(layer.output_size)
            if layer.projection is not None:
                self.inner[index] = self._new(layer.hidden_size)
        elif kind == "conv":
            out = self._conv(layer, inputs[0])
        elif kind == "attention":
            out = self._attention(layer, inputs)
        elif kind in ("add", "mul"):
            self._unite(inputs[0], inputs[1])
            out = inputs[0]
        elif kind == "concat":
            out = np.concatenate(inputs)
        elif kind == "slice":
            out = inputs[0][layer.offset : layer.offset + layer.width]
        else:  # norm, affine, activation, pool, position: value j makes value j
            out = inputs[0]
            if kind == "norm":
                self._fix(out)
        if layer.activation == "softmax":
            self._fix(out)
        return out

    def _conv(self, layer: ConvLayer, x: Ids) -> Ids:
        out_channels = layer.w.shape[1]
        if layer.groups > 1:
            if layer.groups == layer.channels == out_channels:
                return x
            self._fix(x)
            made = self._new(out_channels)
            self._fix(made)
            return made
        if layer.levels > 1:
            by_level = x.reshape(layer.levels, layer.channels)
            for row in by_level[1:]:
                self._unite(by_level[0], row)
        return np.tile(self._new(out_channels), layer.output_levels)

    def _attention(self, layer: AttentionLayer, inputs: list[Ids]) -> Ids:
        heads = self._new(layer.kv_heads)
        group = layer.heads // layer.kv_heads
        self._unite(np.repeat(heads, group * layer.dim), inputs[0])
        self._unite(np.repeat(heads, layer.dim), inputs[1])
        self._unite(np.repeat(heads, layer.value_dim), inputs[2])
        return np.repeat(heads, group * layer.value_dim)

    def _families(self) -> list[Family]:
        places: dict[int, dict[tuple[int, str], int]] = defaultdict(lambda: defaultdict(int))
        for table, part in ((self.rows, "row"), (self.inner, "inner")):
            for index, ids in table.items():
                for unit in ids:
                    places[int(unit)][index, part] += 1
        places.pop(0, None)
        groups: dict[tuple[tuple[int, str], ...], list[int]] = defaultdict(list)
        for unit in sorted(places):
            groups[tuple(sorted(places[unit]))].append(unit)
        found = []
        for where, units in groups.items():
            layers = [self.network.nodes[index].layer for index, _ in where]
            if any(layer.kind == "attention" for layer in layers):
                kind = "heads"
            else:
                kind = "units" if layers[0].kind in ("lstm", "gru") else "channels"
            found.append(Family(layers[0].name, kind, tuple(units)))
        return found


def cut(network: Network, channels: Channels, removed: set[int]) -> Network:
    """The network without some units.

    Parameters
    ----------
    network : Network
        With float32 weights.
    channels : Channels
        Of that network.
    removed : set of int
        Units; unit 0 cannot be among them.

    Raises
    ------
    ModelLoadingError
        If nothing would be left of a layer.
    """
    if 0 in removed:
        raise ModelLoadingError("`removed` must not hold unit 0, which holds the input and the answer")
    gone = np.array(sorted(removed), np.int64)
    keep = {index: ~np.isin(ids, gone) for index, ids in channels.rows.items()}
    inner = {index: ~np.isin(ids, gone) for index, ids in channels.inner.items()}
    nodes = []
    for i, node in enumerate(network.nodes):
        layer: Any = node.layer
        if not keep[i].any() or (i in inner and not inner[i].any()):
            raise ModelLoadingError(f"layer `{layer.name}`: at least one unit must be left, all were to be removed")
        nodes.append(replace(node, layer=_cut_layer(layer, [keep[s] for s in node.inputs], keep[i], inner.get(i))))
    return replace(network, nodes=tuple(nodes))


def _cut_layer(layer: Any, inputs: list[Mask], out: Mask, inner: Mask | None) -> Any:
    kind = layer.kind
    if kind == "dense":
        return replace(layer, w=layer.w[out][:, inputs[0]], bias=layer.bias[out])
    if kind == "lstm":
        return _cut_lstm(layer, inputs[0], out, inner)
    if kind == "gru":
        assert isinstance(layer, GruLayer)
        rows = np.tile(out, 3)
        return replace(layer, w=layer.w[rows][:, inputs[0]], r=layer.r[rows][:, out], bias=layer.bias[rows],
                       recurrent_bias=layer.recurrent_bias[rows])  # fmt: skip
    if kind == "conv":
        made = out[: layer.w.shape[1]]
        if layer.groups > 1:
            groups = int(made.sum()) if layer.groups == layer.channels else layer.groups
            return replace(layer, w=layer.w[:, made], bias=layer.bias[made], groups=groups)
        columns = np.tile(inputs[0][: layer.channels], layer.level_kernel)
        return replace(layer, w=layer.w[:, made][:, :, columns], bias=layer.bias[made])
    if kind == "attention":
        assert isinstance(layer, AttentionLayer)
        q = inputs[0].reshape(layer.heads, layer.dim)[:, 0]
        changes: dict[str, Any] = {"heads": int(q.sum()), "kv_heads": int(inputs[1].sum()) // layer.dim}
        if layer.slopes is not None:
            changes["slopes"] = layer.slopes[q]
        return replace(layer, **changes)
    if kind == "norm":
        return layer  # nothing that a normalisation runs over can go
    if kind == "affine":
        return replace(layer, scale=layer.scale[out], shift=layer.shift[out])
    if kind == "position":
        return replace(layer, table=layer.table[:, out])
    if kind == "concat":
        return replace(layer, widths=tuple(int(mask.sum()) for mask in inputs))
    if kind == "slice":
        before = int(inputs[0][: layer.offset].sum())
        return replace(layer, offset=before, width=int(out.sum()))
    return replace(layer, width=int(out.sum()))  # activation, add, mul, pool


def _cut_lstm(layer: LstmLayer, x: Mask, out: Mask, inner: Mask | None) -> LstmLayer:
    cells = out if inner is None else inner
    rows = np.tile(cells, 4)
    projection = None if layer.projection is None else layer.projection[out][:, cells]
    return replace(layer, w=layer.w[rows][:, x], r=layer.r[rows][:, out], bias=layer.bias[rows], projection=projection)
