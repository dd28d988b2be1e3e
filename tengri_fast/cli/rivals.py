"""One step of a network on other runtimes, for a table that holds them beside the native engine.

All of them get the single-step graph with explicit states (:mod:`tengri_fast.inference.canonical`), so they stream as
well and nobody recomputes a window; one thread each, states fed back. They are called from Python, which costs them
what it costs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.canonical import state_shapes, write_canonical
from tengri_fast.inference.network import Network

__all__ = ["RIVALS", "Step", "missing"]

Step = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Takes a row, moves the state on, returns the answer."""


def missing(package: str) -> str | None:
    """Why a runtime cannot be measured; None if it can."""
    return None if importlib.util.find_spec(package) else f"package `{package}` is not installed"


def onnxruntime_step(network: Network) -> Step:
    """ONNX Runtime with the options of our own backend (one thread, IO binding)."""
    from tengri_fast.inference.ort import OrtModel

    session = OrtModel.from_onnx(write_canonical(network)).session()
    return session.finish


def openvino_step(network: Network) -> Step:
    """OpenVINO on one thread, latency hint, float32 arithmetic (it would take bfloat16 where the processor has it).

    Two requests take turns, each writing its states where the other reads them.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(write_canonical(network), b"")
    model.reshape({port.get_any_name(): [1, *list(port.get_partial_shape())[1:]] for port in model.inputs})
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(model, "CPU", hints)
    x = np.zeros((1, network.input_size), np.float32)
    shapes = state_shapes(network)
    held = [{name: openvino.Tensor(np.zeros((1, *shape), np.float32)) for name, shape in shapes} for _ in range(2)]
    requests = []
    for turn in range(2):
        request = compiled.create_infer_request()
        request.set_tensor("x", openvino.Tensor(x, shared_memory=True))
        for name, _ in shapes:
            request.set_tensor(name, held[turn][name])
            request.set_tensor(f"{name}_next", held[1 - turn][name])
        requests.append((request, request.get_tensor("y").data))
    turn = 0

    def step(row: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        nonlocal turn
        request, answer = requests[turn]
        turn = 1 - turn
        x[0] = row
        request.infer()
        out: npt.NDArray[np.float32] = answer[0]
        return out

    return step


def torch_step(network: Network) -> Step:
    """PyTorch, traced by TorchScript and frozen; LSTM, GRU and dense layers one after another.

    Raises
    ------
    ModelLoadingError
        For any other network, or one that is not in float.
    """
    import torch

    torch.set_num_threads(1)
    kinds = {"lstm", "gru", "dense"}
    for i, node in enumerate(network.nodes):
        if node.layer.kind not in kinds or node.inputs != (i - 1,) or node.format != "fp32":
            raise ModelLoadingError(f"layer `{node.layer.name}`: expected a float chain of LSTM, GRU and dense layers")
        if getattr(node.layer, "projection", None) is not None or not getattr(node.layer, "reset_after", True):
            raise ModelLoadingError(f"layer `{node.layer.name}`: expected no projection, and a reset after the product")
        if node.layer.activation not in ("none", "relu", "tanh", "sigmoid", "softmax", "gelu", "silu"):
            raise ModelLoadingError(
                f"layer `{node.layer.name}`: activation {node.layer.activation} is not written here"
            )
    module: Any = _torch_module(torch, network).eval()
    states = [torch.zeros(1, size) for size in module.sizes]
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(module, (torch.zeros(1, network.input_size), *states)))

    def step(row: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            answer, *states[:] = traced(torch.from_numpy(row[None]), *states)
        out: npt.NDArray[np.float32] = answer.numpy()[0]
        return out

    return step


def _torch_module(torch: Any, network: Network) -> Any:
    class Chain(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cells = torch.nn.ModuleList()
            self.sizes: list[int] = []
            for node in network.nodes:
                layer: Any = node.layer
                if layer.kind == "dense":
                    cell = torch.nn.Linear(layer.input_size, layer.output_size)
                    weights = {"weight": layer.w, "bias": layer.bias}
                else:
                    kind = torch.nn.LSTMCell if layer.kind == "lstm" else torch.nn.GRUCell
                    cell = kind(layer.input_size, layer.output_size)
                    later = getattr(layer, "recurrent_bias", np.zeros_like(layer.bias))
                    weights = {"weight_ih": layer.w, "weight_hh": layer.r, "bias_ih": layer.bias, "bias_hh": later}
                    self.sizes += [layer.output_size] * (2 if layer.kind == "lstm" else 1)
                cell.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
                self.cells.append(cell)

        def forward(self, x: Any, *states: Any) -> Any:
            held, later = list(states), []
            for cell, node in zip(self.cells, network.nodes, strict=True):
                layer: Any = node.layer
                if layer.kind == "dense":
                    x = cell(x)
                elif layer.kind == "lstm":
                    x, c = cell(x, (held.pop(0), held.pop(0)))
                    later += [x, c]
                else:
                    x = cell(x, held.pop(0))
                    later.append(x)
                if layer.activation == "softmax":
                    x = torch.softmax(x.reshape(layer.softmax_groups, -1), dim=1).reshape(1, -1)
                elif layer.activation != "none":
                    owner = torch.nn.functional if layer.activation in ("gelu", "silu") else torch
                    x = getattr(owner, layer.activation)(x)
            return (x, *later)

    return Chain()


RIVALS: dict[str, tuple[str, Callable[[Network], Step]]] = {
    "ONNX Runtime": ("onnxruntime", onnxruntime_step),
    "OpenVINO": ("openvino", openvino_step),
    "torch": ("torch", torch_step),
}
"""Name: the package that it needs, and what makes a step."""
