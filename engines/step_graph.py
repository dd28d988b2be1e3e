"""The single-step ONNX graph: one tick in, one answer and the new state out.

TensorRT turns an ONNX ``LSTM`` into a run-time loop; written out as one step with explicit state tensors it becomes a
handful of fused launches. The graph is strongly typed: with ``precision="fp16"`` every tensor is float16.

Inputs: ``x [batch, input]`` and, for LSTM layer ``i``, ``h{i}`` and ``c{i} [batch, hidden]``.
Outputs: ``y [batch, output]``, ``h{i}_next``, ``c{i}_next``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tengri_fast.errors import MissingExtraError, ModelLoadingError
from tengri_fast.inference.layers import DenseLayer, Layer, LstmLayer
from tengri_fast.inference.network import Network, chain

__all__ = ["step_graph"]

OPSET = 19
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid"}


def step_graph(layers: Network | Sequence[Layer], precision: str = "fp32", name: str = "step") -> bytes:
    """Serialised ONNX of one step of a stack of LSTM and dense layers.

    Parameters
    ----------
    layers : Network, or sequence of LstmLayer and DenseLayer
        As held by ``Model.network``: layers one after another, with float weights.
    precision : {"fp32", "fp16"}
        Type of every tensor.
    name : str
        Name of the graph.

    Returns
    -------
    bytes
        The same bytes for the same input.

    Raises
    ------
    ModelLoadingError
        For a layer kind, activation, number format or wiring that has no step form.
    MissingExtraError
        When ``onnx`` is not installed.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "writing the single-step graph") from None
    types = {"fp32": (TensorProto.FLOAT, np.float32), "fp16": (TensorProto.FLOAT16, np.float16)}
    if precision not in types:
        raise ModelLoadingError(f"`precision` must be one of {', '.join(types)}, was {precision!r}")
    element, dtype = types[precision]

    nodes: list[Any] = []
    initializers: list[Any] = []
    inputs: list[Any] = []
    outputs: list[Any] = []

    def constant(label: str, values: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype), label))
        return label

    def add(op: str, arguments: list[str], results: list[str], **attributes: Any) -> None:
        nodes.append(helper.make_node(op, arguments, results, name=f"{op}_{results[0]}", **attributes))

    def value(label: str, width: int) -> Any:
        return helper.make_tensor_value_info(label, element, ["batch", width])

    network = layers if isinstance(layers, Network) else chain(layers)
    stack = _stack(network)
    current = "x"
    width = network.input_size
    inputs.append(value("x", width))
    state = 0
    for index, layer in enumerate(stack):
        weights = layer.w
        bias = layer.bias
        if isinstance(layer, LstmLayer):
            hidden = weights.shape[0] // 4
            h, c = f"h{state}", f"c{state}"
            inputs += [value(h, hidden), value(c, hidden)]
            outputs += [value(f"{h}_next", hidden), value(f"{c}_next", hidden)]
            both = np.concatenate([weights, layer.r], axis=1)
            add("Concat", [current, h], [f"xh{index}"], axis=1)
            add("MatMul", [f"xh{index}", constant(f"w{index}", both.T)], [f"wx{index}"])
            add("Add", [f"wx{index}", constant(f"b{index}", bias)], [f"z{index}"])
            gates = [f"{gate}{index}" for gate in ("zi", "zf", "zg", "zo")]
            add("Split", [f"z{index}"], gates, axis=1, num_outputs=4)
            for gate, op in zip(gates, ("Sigmoid", "Sigmoid", "Tanh", "Sigmoid"), strict=True):
                add(op, [gate], [f"{gate}_a"])
            add("Mul", [f"{gates[1]}_a", c], [f"keep{index}"])
            add("Mul", [f"{gates[0]}_a", f"{gates[2]}_a"], [f"new{index}"])
            add("Add", [f"keep{index}", f"new{index}"], [f"{c}_next"])
            add("Tanh", [f"{c}_next"], [f"tc{index}"])
            add("Mul", [f"{gates[3]}_a", f"tc{index}"], [f"{h}_next"])
            current = f"{h}_next"
            width = hidden
            state += 1
        else:
            width = weights.shape[0]
            add("MatMul", [current, constant(f"w{index}", weights.T)], [f"wx{index}"])
            add("Add", [f"wx{index}", constant(f"b{index}", bias)], [f"z{index}"])
            current = f"z{index}"
            activation = layer.activation
            if activation in ACTIVATIONS:
                add(ACTIVATIONS[activation], [current], [f"a{index}"])
                current = f"a{index}"
            elif activation == "softmax":
                add("Softmax", [current], [f"a{index}"], axis=1)
                current = f"a{index}"
            elif activation != "none":
                raise ModelLoadingError(f"layer {index}: activation {activation!r} has no step form")
    add("Identity", [current], ["y"])
    outputs.insert(0, value("y", width))

    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9,
                              producer_name="tengri_fast")  # fmt: skip
    weights_hash = hashlib.sha256(b"".join(i.raw_data for i in initializers)).hexdigest()
    helper.set_model_props(model, {"gate_order": "ifgo", "precision": precision, "weights_sha256": weights_hash})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _stack(network: Network) -> list[LstmLayer | DenseLayer]:
    """The layers of a network that is a plain stack of LSTM and dense layers with float weights."""
    found: list[LstmLayer | DenseLayer] = []
    for index, node in enumerate(network.nodes):
        layer = node.layer
        if not isinstance(layer, LstmLayer | DenseLayer):
            raise ModelLoadingError(f"layer {index}: {type(layer).__name__} has no step form")
        if node.inputs != (index - 1,) or network.output != len(network.nodes) - 1:
            raise ModelLoadingError(f"layer {index}: must read the layer before it to have a step form")
        if node.format.startswith("int8"):
            raise ModelLoadingError(f"layer {index}: `format` must be a float one, was {node.format!r}")
        if isinstance(layer, LstmLayer) and layer.projection is not None:
            raise ModelLoadingError(f"layer {index}: an LSTM with a projection has no step form")
        if isinstance(layer, DenseLayer) and layer.softmax_groups != 1:
            raise ModelLoadingError(f"layer {index}: softmax over {layer.softmax_groups} groups has no step form")
        found.append(layer)
    return found
