"""Reads a canonical artefact back into the network that was written, exactly.

``tengri.network`` says how the layers are wired and ``graph`` holds their constants, so the network can be put together
without matching patterns. That text is not trusted: the network is written out again, and only if this gives the very
graph of the file (each node, constant, input and output) is it what the file computes. A file that was edited,
optimised by other tools or written by another version is not recognised here and is left to the general importer.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference import layers as ir
from tengri_fast.inference.canonical import FORM, QUANTISED, RESERVED, write_canonical
from tengri_fast.inference.network import Matrix8, Network, Node
from tengri_fast.inference.onnx_reader import Graph, parse

__all__ = ["read_canonical"]

Array = npt.NDArray[Any]
_CLASSES: dict[str, type] = {
    "lstm": ir.LstmLayer, "gru": ir.GruLayer, "dense": ir.DenseLayer, "conv": ir.ConvLayer,
    "attention": ir.AttentionLayer, "norm": ir.NormLayer, "affine": ir.AffineLayer, "activation": ir.ActivationLayer,
    "add": ir.AddLayer, "mul": ir.MulLayer, "concat": ir.ConcatLayer, "slice": ir.SliceLayer, "pool": ir.PoolLayer,
    "position": ir.PositionLayer,
}  # fmt: skip


def read_canonical(data: bytes, graph: Graph | None = None) -> Network | None:
    """The network whose canonical form this file is; None if it is not one, or not exactly.

    Parameters
    ----------
    data : bytes
        Content of an ONNX file.
    graph : Graph, optional
        What :func:`tengri_fast.inference.onnx_reader.parse` gave for it, if that was done already.

    Raises
    ------
    ModelLoadingError
        If the file is damaged.
    """
    graph = parse(data) if graph is None else graph
    if graph.metadata.get("tengri.form") != FORM:
        return None
    try:
        network = _network(graph.metadata, graph)
        again = parse(write_canonical(network))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, MemoryError,
            ModelLoadingError):  # fmt: skip
        return None  # the text and the constants do not fit each other
    return network if _same(graph, again) else None


def _same(a: Graph, b: Graph) -> bool:
    if (a.nodes, a.inputs, a.outputs, a.opset) != (b.nodes, b.inputs, b.outputs, b.opset):
        return False
    return a.tensors.keys() == b.tensors.keys() and all(
        a.tensors[name].dtype == other.dtype and np.array_equal(a.tensors[name], other)
        for name, other in b.tensors.items()
    )


def _network(properties: dict[str, str], graph: Graph) -> Network:
    skeleton = json.loads(properties["tengri.network"])
    nodes = []
    for i, entry in enumerate(skeleton["nodes"]):
        nodes.append(_node(f"{i}.{entry['kind']}/", dict(entry), graph.tensors))
    outputs = tuple((str(name), int(width)) for name, width in json.loads(properties["tengri.outputs"]))
    metadata = {
        key.removeprefix("tengri."): value
        for key, value in properties.items()
        if key.startswith("tengri.") and key.removeprefix("tengri.") not in RESERVED
    }
    return Network(tuple(nodes), int(skeleton["input"]), int(skeleton["output"]), properties["tengri.output_mode"],
                   outputs, metadata)  # fmt: skip


def _node(prefix: str, entry: dict[str, Any], tensors: dict[str, Array]) -> Node:
    kind, inputs, number_format = entry.pop("kind"), tuple(entry.pop("inputs")), entry.pop("format")
    arrays, matrices, scales = entry.pop("arrays"), entry.pop("matrices", []), entry.pop("scales", [])
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
    held: dict[str, Matrix8] = {}
    if kind in ("attention", "pool"):
        _bounded(prefix, values, tensors)
    for name in arrays:
        if name in ("w", "r", "projection"):
            stored, scale = _matrix(prefix, name, kind, values, tensors)
            if number_format in QUANTISED:
                if name not in matrices or scale is None:
                    raise ValueError(name)
                held[name] = Matrix8(stored, scale)
                values[name] = held[name].dequantised()
            else:
                values[name] = stored.astype(np.float32)
        elif name == "recurrent_bias" and f"{prefix}recurrent_bias_n" in tensors:
            values[name] = np.concatenate([tensors[prefix + name], tensors[f"{prefix}{name}_n"]])
        else:
            values[name] = tensors[prefix + name]
    found = {key: float(tensors[f"{prefix}{key}_scale"]) for key in scales}
    return Node(_CLASSES[kind](**values), inputs, number_format, found, held)


def _bounded(prefix: str, values: dict[str, Any], tensors: dict[str, Array]) -> None:
    """Writing makes vectors as long as the window: there must be constants of that length to begin with."""
    if values["window"] > 1 and values["window"] > max(
        (tensors[prefix + name].size for name in ("slots", "ages") if prefix + name in tensors), default=1 << 16
    ):
        raise ValueError("window")
    if str(values.get("position", "")).startswith("rope"):
        if tensors[f"{prefix}k_cos"].shape != (values["window"], 1, values["dim"]):
            raise ValueError("rope")
        if tensors[f"{prefix}rope_swap"].shape != (values["dim"], values["dim"]):
            raise ValueError("rope")


def _matrix(
    prefix: str, name: str, kind: str, values: dict[str, Any], tensors: dict[str, Array]
) -> tuple[Array, Array | None]:
    """A weight matrix and its scale, arranged as in the layer."""
    label = prefix + ("p" if name == "projection" else name)
    stored, scale = tensors[label], tensors.get(f"{label}_scale")
    if kind == "conv":
        turned = stored.transpose(2, 0, 1) if stored.ndim == 3 else stored.transpose(2, 0, 3, 1)
        turned = turned[::-1].reshape(turned.shape[0], turned.shape[1], -1)
        return turned, None if scale is None else np.repeat(scale[None], turned.shape[0], axis=0)
    turned = stored.T
    rest = f"{label}_n"
    if rest in tensors:  # the candidate's rows of a GRU that resets before its product
        turned = np.concatenate([turned, tensors[rest].T])
        if scale is not None:
            scale = np.concatenate([scale, tensors[f"{rest}_scale"]])
    return turned, scale
