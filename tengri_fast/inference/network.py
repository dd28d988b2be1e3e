"""A network: layers wired into a graph without cycles, with a number format per node.

The twin of ``tf_network`` in csrc/include/tengri/nn.h. The importer makes one from ONNX, quantisation and pruning turn
one into another, the canonical writer turns one back into ONNX, and :meth:`Model.from_network` runs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import get_args

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.layers import AttentionLayer, ConcatLayer, Layer, PositionLayer, SliceLayer

__all__ = ["FORMATS", "INPUT", "Matrix8", "Network", "Node", "chain"]

FORMATS = ("fp32", "fp16", "bf16", "int8", "int8a16")
"""Number formats in the order of the C enum."""
SCALE_RANGE = (1e-37, 1e37)
"""What an activation scale, or a product of scales, may be: it and its reciprocal are normal float32 numbers, also
after a gate's factor of 2 log2(e).
"""
INPUT = -1
"""As an entry of :attr:`Node.inputs`: the network's input row."""
LARGEST = {"fp16": 65504.0, "bf16": 3.3895e38}
"""The largest finite weight of the 16-bit float formats."""
WEIGHTED = {"lstm": ("w", "r", "projection"), "gru": ("w", "r"), "dense": ("w",), "conv": ("w",)}
"""The matrices of each kind that take a number format."""
SCALES = {
    "lstm": ("input", "state", "projection"),
    "gru": ("input", "state"),
    "dense": ("input",),
    "conv": ("input",),
    "attention": ("q", "k", "v"),
}
"""The activation scales of each kind in the order of ``tf_node_desc.value``; int8 formats need them."""


@dataclass(frozen=True, eq=False)
class Matrix8:
    """An int8 matrix: ``values * scale[:, None]`` stands for the weights.

    Parameters
    ----------
    values : numpy.ndarray of int8
        In [-127, 127]; the shape of the layer's float matrix.
    scale : numpy.ndarray of float32
        One per output row; for a convolution [taps, output_channels], equal over the taps of a channel or not.
    """

    values: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.values)
        scale = np.ascontiguousarray(self.scale, dtype=np.float32)
        if values.dtype != np.int8 or values.size == 0 or values.min() < -127:
            raise ModelLoadingError("`values` of an int8 matrix must be int8 in [-127, 127]")
        if scale.shape != values.shape[:-1]:
            raise ModelLoadingError(f"`scale` must have shape {list(values.shape[:-1])}, had {list(scale.shape)}")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ModelLoadingError("`scale` of an int8 matrix must be finite and > 0")
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "scale", scale)

    def dequantised(self) -> npt.NDArray[np.float32]:
        """The float32 matrix it stands for."""
        return (self.values.astype(np.float32) * self.scale[..., None]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Node:
    """One layer in its place.

    Parameters
    ----------
    layer : Layer
        With float32 weights, also where `matrices` holds what is run (for reference and for requantisation).
    inputs : tuple of int
        Indices of earlier nodes, or :data:`INPUT`.
    format : str, default "fp32"
        One of :data:`FORMATS`; int8 for an attention layer means int8 keys and values.
    scales : dict of str to float
        Activation scales for int8 formats, keys as in :data:`SCALES`: a row x enters as ``round(x / scale)``.
    matrices : dict of str to Matrix8
        For int8 formats, by attribute name of the layer ("w", "r", "projection").
    """

    layer: Layer
    inputs: tuple[int, ...] = (INPUT,)
    format: str = "fp32"
    scales: dict[str, float] = field(default_factory=dict)
    matrices: dict[str, Matrix8] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.layer.name
        if self.format not in FORMATS:
            raise ModelLoadingError(
                f"layer `{name}`: `format` must be one of {', '.join(FORMATS)}, was {self.format!r}"
            )
        if len(self.inputs) != self.layer.arity:
            raise ModelLoadingError(
                f"layer `{name}`: `inputs` must have {self.layer.arity} entries, had {len(self.inputs)}"
            )
        if self.format in ("int8", "int8a16"):
            self._check_integers()

    def _check_integers(self) -> None:
        name = self.layer.name
        for attribute in WEIGHTED.get(self.layer.kind, ()):
            weights = getattr(self.layer, attribute)
            if weights is None:
                continue
            matrix = self.matrices.get(attribute)
            if matrix is None or matrix.values.shape != weights.shape:
                raise ModelLoadingError(
                    f"layer `{name}`: format {self.format} needs an int8 matrix `{attribute}` of shape "
                    f"{list(weights.shape)}"
                )
        for key in SCALES.get(self.layer.kind, ()):
            if key == "projection" and getattr(self.layer, "projection", None) is None:
                continue
            scale = self.scales.get(key, 0.0)
            if not SCALE_RANGE[0] <= scale <= SCALE_RANGE[1]:
                raise ModelLoadingError(
                    f"layer `{name}`: scale `{key}` must be finite and > 0, within {SCALE_RANGE[0]:g} and "
                    f"{SCALE_RANGE[1]:g}, was {scale}"
                )
        self._check_products()

    def _check_products(self) -> None:
        """The engine multiplies scales with each other in advance; a product must be a float32 of full precision."""
        name = self.layer.name
        if isinstance(self.layer, AttentionLayer):
            product = abs(self.layer.scale) * self.scales["q"] * self.scales["k"]
            if not SCALE_RANGE[0] <= product <= SCALE_RANGE[1]:
                raise ModelLoadingError(
                    f"layer `{name}`: `scale` times the scales `q` and `k` must lie within {SCALE_RANGE[0]:g} and "
                    f"{SCALE_RANGE[1]:g}, was {product:g}"
                )
        for key, attribute in (("input", "w"), ("state", "r"), ("projection", "projection")):
            matrix = self.matrices.get(attribute)
            if matrix is not None and key in self.scales:
                product = float(matrix.scale.max()) * self.scales[key]
                if not product <= SCALE_RANGE[1]:
                    raise ModelLoadingError(
                        f"layer `{name}`: scale `{key}` times those of `{attribute}` must be at most "
                        f"{SCALE_RANGE[1]:g}, was {product:g}"
                    )


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes in topological order.

    Parameters
    ----------
    nodes : tuple of Node
        At least one.
    input_size : int
        Width of the input row.
    output : int, default -1
        Index of the node whose row is the answer; -1: the last.
    output_mode : {"every", "last"}
        What the ONNX graph yields over a window: a row at each step, or the last one only.
    outputs : tuple of (str, int)
        Name and width of each ONNX output, in the order in which they lie in the answer row; empty: one unnamed.
    metadata : dict of str to str
        Travels with the artefact: feature names, source hash, calibration hash.

    Raises
    ------
    ModelLoadingError
        If a node reads a later one, or widths do not fit.
    """

    nodes: tuple[Node, ...]
    input_size: int
    output: int = -1
    output_mode: str = "every"
    outputs: tuple[tuple[str, int], ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ModelLoadingError("a network must hold at least one layer, was empty")
        if self.input_size < 1:
            raise ModelLoadingError(f"`input_size` must be >= 1, was {self.input_size}")
        if not -1 <= self.output < len(self.nodes):
            raise ModelLoadingError(f"`output` must be a node in [0, {len(self.nodes)}), was {self.output}")
        if self.output == -1:
            object.__setattr__(self, "output", len(self.nodes) - 1)
        for index, node in enumerate(self.nodes):
            widths = []
            for source in node.inputs:
                if not INPUT <= source < index:
                    raise ModelLoadingError(
                        f"layer {index} `{node.layer.name}`: `inputs` must name earlier layers, was {source}"
                    )
                widths.append(self.width(source))
            _check_widths(index, node.layer, widths)
        if self.output_mode not in ("every", "last"):
            raise ModelLoadingError(f'`output_mode` must be "every" or "last", was {self.output_mode!r}')
        if self.outputs and sum(width for _, width in self.outputs) != self.output_size:
            raise ModelLoadingError(
                f"`outputs` must have {self.output_size} values in total, had {sum(w for _, w in self.outputs)}"
            )

    def width(self, index: int) -> int:
        """Width of a node's row; of the input row for :data:`INPUT`."""
        return self.input_size if index == INPUT else self.nodes[index].layer.output_size

    @property
    def output_size(self) -> int:
        """Width of the answer."""
        return self.width(self.output)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in order."""
        return tuple(node.layer for node in self.nodes)

    @property
    def windowed_only(self) -> bool:
        """Whether absolute positions bind the network to windowed sessions."""
        return self.max_steps > 0

    @property
    def max_steps(self) -> int:
        """Steps after reset for which positions exist; 0 without limit."""
        return min((layer.table.shape[0] for layer in self.layers if isinstance(layer, PositionLayer)), default=0)

    @property
    def format(self) -> str:
        """The format of the weights, or "mixed"."""
        found = {node.format for node in self.nodes if node.layer.kind in WEIGHTED}
        return found.pop() if len(found) == 1 else "mixed" if found else "fp32"

    def converted(self, format: str) -> Network:
        """The same network with float weights in another float format.

        Parameters
        ----------
        format : {"fp32", "fp16", "bf16"}
            For every LSTM, GRU, dense and convolution layer; the others have no weights of that kind.

        Raises
        ------
        ModelLoadingError
            If the format is another one, a layer holds integers (they are made by quantisation, which needs data), or a
            weight is beyond the format's range.
        """
        if format not in ("fp32", "fp16", "bf16"):
            raise ModelLoadingError(f"`format` must be fp32, fp16 or bf16 to be converted to, was {format!r}")
        nodes = []
        for index, node in enumerate(self.nodes):
            layer = node.layer
            if node.format in ("int8", "int8a16"):
                raise ModelLoadingError(
                    f"layer {index} `{layer.name}`: `format` must be a float one to become {format}, was {node.format}"
                )
            for attribute in WEIGHTED.get(layer.kind, ()):
                weights = getattr(layer, attribute)
                largest = 0.0 if weights is None else float(np.abs(weights).max())
                if largest > LARGEST.get(format, np.inf):
                    raise ModelLoadingError(
                        f"layer {index} `{layer.name}`: `{attribute}` must be within {LARGEST[format]:g} for {format}, "
                        f"was {largest:g}"
                    )
            nodes.append(replace(node, format=format) if layer.kind in WEIGHTED else node)
        return replace(self, nodes=tuple(nodes))

    def sha256(self) -> str:
        """Hash of wiring, formats, shapes and weights."""
        digest = hashlib.sha256(f"{self.input_size} {self.output};".encode())
        for node in self.nodes:
            scales = [(key, float(scale)) for key, scale in sorted(node.scales.items())]
            digest.update(f"{node.layer.kind} {tuple(map(int, node.inputs))} {node.format} {scales};".encode())
            for name, value in _content(node.layer):
                digest.update(_labelled(name, value))
            for name, matrix in sorted(node.matrices.items()):
                digest.update(_labelled(name, matrix.values) + _labelled(f"{name}.scale", matrix.scale))
        return digest.hexdigest()


def _labelled(name: str, value: object) -> bytes:
    """A field with its type and size, so that no two lists of fields read alike."""
    if isinstance(value, np.ndarray):
        return f"{name}={value.dtype.str}{value.shape};".encode() + value.tobytes()
    text = str(value.item() if isinstance(value, np.generic) else value)
    return f"{name}={len(text)}:{text};".encode()


def _content(layer: Layer) -> Iterator[tuple[str, object]]:
    for entry in fields(layer):
        if entry.name != "name":
            yield entry.name, getattr(layer, entry.name)


def _check_widths(index: int, layer: Layer, widths: list[int]) -> None:
    if isinstance(layer, AttentionLayer):
        wanted = list(layer.input_sizes)
    elif isinstance(layer, ConcatLayer):
        wanted = list(layer.widths)
    elif isinstance(layer, SliceLayer):
        if layer.offset + layer.width > widths[0]:
            raise ModelLoadingError(f"layer {index} `{layer.name}`: the slice must lie within {widths[0]} values")
        return
    elif hasattr(layer, "input_size"):
        wanted = [layer.input_size]
    else:
        wanted = [layer.output_size] * len(widths)
    if widths != wanted:
        before = "the output of the layer before it" if index else "the input"
        found, needed = (values[0] if len(values) == 1 else values for values in (widths, wanted))
        raise ModelLoadingError(f"layer {index} `{layer.name}`: `input` must equal {before} ({found}), was {needed}")


def chain(layers: Iterable[Layer], *, output_mode: str = "every") -> Network:
    """Layers one after another, each reading the one before.

    Raises
    ------
    ModelLoadingError
        If there is none, one takes several rows, or widths do not fit.
    """
    layers = tuple(layers)
    if not layers:
        raise ModelLoadingError("`layers` must hold at least one layer, was empty")
    for layer in layers:
        if not isinstance(layer, get_args(Layer)):
            raise ModelLoadingError(f"`layers` must hold layers, held {type(layer).__name__}")
    first = layers[0]
    size = first.input_size if hasattr(first, "input_size") else first.output_size
    return Network(tuple(Node(layer, (i - 1,)) for i, layer in enumerate(layers)), size, output_mode=output_mode)
