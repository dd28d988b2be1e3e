"""From an ONNX graph to a chain of layers, by walking it with abstract values.

PyTorch writes a stacked LSTM in many ways: transposes for ``batch_first``, initial states built by Shape and Expand,
a direction axis squeezed or reshaped away, the last step by Gather. Matching patterns would break with the next
exporter, so each node is *evaluated* on abstract values instead:

* constants (NumPy arrays; anything that depends on constants alone is computed, e.g. a reordering of weights by Slice
  and Concat),
* shapes, with an axis where the size is open,
* zeros of any shape (initial states),
* sequences: a chain of layers so far and the meaning of each axis,
* stacks of final states.

The output's chain is then the model. A node that cannot be evaluated makes its outputs `Unknown`; that only matters if
the graph's output needs one, and then the node is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.layers import DenseLayer, Layer, LstmLayer
from tengri_fast.inference.onnx_reader import Graph, Node, ValueInfo, parse

__all__ = ["NetworkLayers", "Signature", "read_layers", "signature"]

Array = npt.NDArray[Any]
MAX_CONSTANT = 1 << 26
MIN_OPSET, MAX_OPSET = 9, 26


@dataclass(frozen=True)
class NetworkLayers:
    """What :func:`read_layers` found."""

    layers: tuple[Layer, ...]
    output_mode: str
    """"every": one output row per step; "last": the graph gives the last step only."""


@dataclass(frozen=True)
class Axis:
    """One axis of a sequence; `size` is None while open."""

    label: str
    size: int | None


@dataclass(frozen=True)
class Sequence:
    """A float tensor made from graph input `source` by `chain`; `time` is the label of the time axis once known."""

    source: str
    axes: tuple[Axis, ...]
    chain: tuple[Layer, ...] = ()
    pending: bool = False  # the last layer is a dense one that may still take a bias or an activation
    time: str | None = None
    last: bool = False
    state: str | None = None  # "h" or "c": a final state as the LSTM gave it


@dataclass(frozen=True)
class States:
    """Final states of several layers, stacked along axis 0."""

    parts: tuple[Sequence, ...]


@dataclass(frozen=True)
class InitialState:
    """Rows [low, high) of a state input."""

    source: str
    low: int
    high: int


@dataclass(frozen=True)
class Shape:
    """A vector of sizes; an Axis where the size is open."""

    entries: tuple[int | Axis, ...]


@dataclass(frozen=True)
class Zeros:
    """Zeros of a shape nobody needs to know."""


@dataclass(frozen=True)
class Unknown:
    """The result of a node that could not be evaluated, and why."""

    reason: str


Value = Array | Sequence | States | InitialState | Shape | Zeros | Unknown | None


class _Decline(Exception):
    """Why one node cannot be evaluated; becomes an Unknown."""


def read_layers(data: bytes) -> NetworkLayers:
    """The layers of an ONNX file.

    Parameters
    ----------
    data : bytes
        Content of the file: a network of (stacked) LSTM and dense layers with relu, tanh, sigmoid or softmax.

    Raises
    ------
    ModelLoadingError
        If the file is damaged, or holds something else; the text names node, operator and what was expected.
    """
    return _Walk(parse(data)).run()


class _Walk:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[str, Value] = {"": None}
        if not MIN_OPSET <= graph.opset <= MAX_OPSET:
            raise ModelLoadingError(
                f"ONNX operator set must be {MIN_OPSET} to {MAX_OPSET}, was {graph.opset}; runs on ONNX Runtime instead"
            )

    def run(self) -> NetworkLayers:
        graph = self.graph
        self.values.update(graph.tensors)
        for info in graph.inputs:
            self.values[info.name] = _input_value(info)
        for index, node in enumerate(graph.nodes):
            self.evaluate(index, node)
        outputs = [(info.name, self.values.get(info.name)) for info in graph.outputs]
        if not outputs:
            raise ModelLoadingError("ONNX file: the graph has no output; truncated?")
        chosen: Sequence | None = None
        states: dict[str, list[Sequence]] = {}
        for name, value in outputs:
            if isinstance(value, Unknown):
                raise ModelLoadingError(f"{value.reason}; runs on ONNX Runtime instead")
            if isinstance(value, States):
                states.setdefault(value.parts[0].state or "", []).extend(value.parts)
            elif isinstance(value, Sequence) and value.state is not None and len(outputs) > 1:
                states.setdefault(value.state, []).append(value)
            elif isinstance(value, Sequence):
                if chosen is not None:
                    raise ModelLoadingError(
                        f"output `{name}`: expected one output beside final states, found a second one; "
                        "runs on ONNX Runtime instead"
                    )
                chosen = value
            else:
                raise ModelLoadingError(
                    f"output `{name}`: expected something computed from the input by LSTM or dense layers, found "
                    f"{'nothing' if value is None else 'a constant'}; runs on ONNX Runtime instead"
                )
        if chosen is None or not chosen.chain or chosen.state == "c":
            raise ModelLoadingError(
                "the graph's output must come from an LSTM or dense layer, and does not; runs on ONNX Runtime instead"
            )
        lstms = [layer for layer in chosen.chain if layer.kind == "lstm"]
        for kind, parts in states.items():
            if [id(part.chain[-1]) for part in parts] != [id(layer) for layer in lstms]:
                raise ModelLoadingError(
                    f"outputs: expected the final state `{kind}` of each LSTM layer in order, found others; "
                    "runs on ONNX Runtime instead"
                )
        every = not chosen.last or _time_is_one(chosen)
        return NetworkLayers(chosen.chain, "every" if every else "last")

    def time_axis(self) -> int:
        """Which axis of the only input the first LSTM runs along; 1 if there is none that can be read."""
        self.values.update(self.graph.tensors)
        self.values[self.graph.inputs[0].name] = _input_value(self.graph.inputs[0])
        for index, node in enumerate(self.graph.nodes):
            self.evaluate(index, node)
        labels = {v.time.split("=")[0] for v in self.values.values() if isinstance(v, Sequence) and v.time}
        return 0 if labels == {f"{self.graph.inputs[0].name}:0"} else 1

    def evaluate(self, index: int, node: Node) -> None:
        try:
            arguments: list[Value] = []
            for name in node.inputs:
                if name not in self.values:
                    raise _Decline(f"input `{name}` is made by no node before it")
                value = self.values[name]
                if isinstance(value, Unknown):
                    for output in node.outputs:
                        self.values[output] = value
                    return
                arguments.append(value)
            operator = _OPERATORS.get(node.op) if node.domain in ("", "ai.onnx") else None
            if operator is None:
                raise _Decline("unsupported operator, expected LSTM, dense layers and activations")
            _check_attributes(node)
            results = operator(self, node, arguments)
        except _Decline as decline:
            for output in node.outputs:
                self.values[output] = Unknown(f"{node.label(index)}: {decline}")
            return
        except (ValueError, IndexError, TypeError, OverflowError, MemoryError) as error:
            for output in node.outputs:
                self.values[output] = Unknown(f"{node.label(index)}: inputs do not fit the operator ({error})")
            return
        for output, value in zip(node.outputs, results, strict=False):
            if output:
                self.values[output] = value
        for output in node.outputs[len(results) :]:
            self.values[output] = Unknown(f"{node.label(index)}: output `{output}` is not supported")


def _input_value(info: ValueInfo) -> Value:
    if info.shape is None:
        return Unknown(f"input `{info.name}`: expected a tensor with a known number of axes")
    axes = tuple(
        Axis(f"{info.name}:{i}", size if isinstance(size, int) and size > 0 else None)
        for i, size in enumerate(info.shape)
    )
    return Sequence(info.name, axes)


def _time_is_one(value: Sequence) -> bool:
    return value.time is not None and value.time.endswith("=1")


def _constant(value: Value, what: str) -> Array:
    if isinstance(value, Shape) and all(isinstance(entry, int) for entry in value.entries):
        return np.array(value.entries, np.int64)
    if not isinstance(value, np.ndarray):
        raise _Decline(f"expected {what} to be a constant")
    return value


def _integers(value: Value, what: str) -> list[int]:
    array = _constant(value, what)
    if array.dtype.kind not in "iu" or array.size > 64:
        raise _Decline(f"expected {what} to be integers")
    return [int(v) for v in array.ravel()]


def _weights(value: Value, what: str) -> Array:
    array = _constant(value, what)
    if array.dtype not in (np.float32, np.float16):
        raise _Decline(f"expected {what} to be float32, was {array.dtype}")
    return array


def _argument(arguments: list[Value], index: int) -> Value:
    return arguments[index] if index < len(arguments) else None


def _axes_of(node: Node, arguments: list[Value], index: int) -> list[int] | None:
    """Axes as the second input (from operator set 13) or as an attribute (before)."""
    value = _argument(arguments, index)
    if value is not None:
        return _integers(value, "`axes`")
    attribute = node.attributes.get("axes")
    return None if attribute is None else list(attribute)


def _position(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise _Decline(f"axis must lie in [{-rank}, {rank}), was {axis}")
    return axis % rank


def _bounded(array: Array) -> Array:
    if array.size > MAX_CONSTANT:
        raise _Decline(f"a constant must have at most {MAX_CONSTANT} elements, has {array.size}")
    return array


def _is_shape_like(value: Value) -> bool:
    return isinstance(value, Shape) or (isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.ndim <= 1)


def _entries(value: Value) -> tuple[int | Axis, ...]:
    if isinstance(value, Shape):
        return value.entries
    return tuple(_integers(value, "a shape"))


# Operators. Each takes the walk, the node and its argument values and returns the values of its outputs.


def _constant_node(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        value = node.attributes.get(name)
        if value is not None:
            if isinstance(value, np.ndarray):
                return [value]
            return [np.array(value, np.float32 if "float" in name else np.int64)]
    raise _Decline("expected a number or a tensor of numbers")


def _identity(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    return [arguments[0]]


def _cast(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value, to = arguments[0], node.attributes.get("to")
    if isinstance(value, np.ndarray):
        types = {1: np.float32, 6: np.int32, 7: np.int64, 11: np.float64}
        if to not in types:
            raise _Decline(f"expected a cast to float32, int32, int64 or float64, was ONNX type {to}")
        return [value.astype(types[to])]
    if isinstance(value, Sequence) and to != 1:
        raise _Decline(f"expected float32 throughout, was a cast to ONNX type {to}")
    return [value]


def _shape(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value = arguments[0]
    if isinstance(value, Sequence):
        entries: tuple[int | Axis, ...] = tuple(a if a.size is None else a.size for a in value.axes)
    elif isinstance(value, np.ndarray):
        entries = value.shape
    else:
        raise _Decline("expected a tensor of known rank")
    start = node.attributes.get("start") or 0
    return [Shape(entries[start : node.attributes.get("end")])]


def _constant_of_shape(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    fill = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if fill is None else fill
    if isinstance(arguments[0], Shape) and any(isinstance(e, Axis) for e in arguments[0].entries):
        if fill.any():
            raise _Decline("expected zeros where a size is open")
        return [Zeros()]
    dims = _integers(arguments[0], "the shape")
    if int(np.prod([max(d, 1) for d in dims], dtype=object)) > MAX_CONSTANT:
        raise _Decline("the constant is too large")
    return [np.full(dims, fill.ravel()[0], dtype=fill.dtype)]


def _expand(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value = arguments[0]
    if isinstance(value, Zeros) or (isinstance(value, np.ndarray) and not value.any()):
        return [Zeros()]
    dims = _integers(arguments[1], "the shape")
    array = _constant(value, "the input")
    shape = np.broadcast_shapes(array.shape, tuple(dims))
    if int(np.prod(shape, dtype=object)) > MAX_CONSTANT:
        raise _Decline("the constant is too large")
    return [np.broadcast_to(array, shape)]


def _gather(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    data, indices = arguments[0], arguments[1]
    axis = node.attributes.get("axis") or 0
    if isinstance(data, Zeros):
        return [data]
    if isinstance(data, Shape):
        picked = _constant(indices, "indices")
        chosen = [data.entries[int(i)] for i in picked.ravel()]
        if picked.ndim == 0 and isinstance(chosen[0], int):
            return [np.array(chosen[0], np.int64)]
        return [Shape(tuple(chosen))]
    if isinstance(data, np.ndarray):
        return [_bounded(np.take(data, _constant(indices, "indices").astype(np.int64), axis=axis))]
    picked = _constant(indices, "indices")
    if picked.size != 1 or picked.ndim > 1:
        raise _Decline("expected one index")
    index, keep = int(picked.ravel()[0]), picked.ndim == 1
    if isinstance(data, States):
        if axis != 0:
            raise _Decline(f"expected a layer to be picked on axis 0, was axis {axis}")
        part = data.parts[index]
        return [part if keep else _drop(part, 0)]
    if isinstance(data, InitialState):
        if axis != 0 or index < 0:
            raise _Decline("expected one layer's state to be picked by its number on axis 0")
        return [InitialState(data.source, data.low + index, data.low + index + 1)]
    if not isinstance(data, Sequence):
        raise _Decline("expected a tensor")
    axis = _position(axis, len(data.axes))
    if not data.chain and axis == 0 and data.axes[0].size != 1 and not keep and index >= 0:
        return [InitialState(data.source, index, index + 1)]
    return [_pick(data, axis, index, keep)]


def _pick(data: Sequence, axis: int, index: int, keep: bool) -> Sequence:
    """One index on an axis: the last step, or the only entry."""
    target = data.axes[axis]
    if data.time is not None and target.label == data.time:
        if index != -1 and index + 1 != target.size:
            raise _Decline(f"expected the last step of the time axis, was step {index}")
        data = replace(data, last=True, time=f"{data.time}=1" if target.size == 1 else data.time)
    elif target.size != 1 or index not in (0, -1):
        raise _Decline(f"expected the last step of the time axis or the only entry, was index {index} on axis {axis}")
    if keep:
        axes = (*data.axes[:axis], Axis("1", 1), *data.axes[axis + 1 :])
        return replace(data, axes=axes)
    return _drop(data, axis)


def _drop(data: Sequence, axis: int) -> Sequence:
    if axis == len(data.axes) - 1:
        raise _Decline("expected the feature axis to be kept")
    return replace(data, axes=data.axes[:axis] + data.axes[axis + 1 :], state=None)


def _slice(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    data = arguments[0]
    if isinstance(data, Zeros):
        return [data]
    if len(arguments) > 1:
        starts, ends = _integers(arguments[1], "`starts`"), _integers(arguments[2], "`ends`")
        axes = _argument(arguments, 3)
        steps = _argument(arguments, 4)
        axis_list = list(range(len(starts))) if axes is None else _integers(axes, "`axes`")
        step_list = [1] * len(starts) if steps is None else _integers(steps, "`steps`")
    else:
        starts, ends = list(node.attributes["starts"]), list(node.attributes["ends"])
        axis_list = list(node.attributes.get("axes") or range(len(starts)))
        step_list = [1] * len(starts)
    if not len(starts) == len(ends) == len(axis_list) == len(step_list):
        raise _Decline("`starts`, `ends`, `axes` and `steps` must be equally long")
    if isinstance(data, Shape):
        if axis_list != [0] and axis_list != [-1]:
            raise _Decline("a shape has one axis")
        return [Shape(data.entries[slice(starts[0], ends[0], step_list[0])])]
    if isinstance(data, np.ndarray):
        cuts = [slice(None)] * data.ndim
        for start, end, axis, step in zip(starts, ends, axis_list, step_list, strict=True):
            if step < 1:
                raise _Decline(f"`steps` must be >= 1, was {step}")
            cuts[_position(axis, data.ndim)] = slice(start, end, step)
        return [data[tuple(cuts)]]
    if len(starts) != 1 or step_list != [1]:
        raise _Decline("expected a cut along one axis, with step 1")
    start, end = starts[0], ends[0]
    if isinstance(data, States):
        if axis_list[0] != 0:
            raise _Decline("expected layers to be cut on axis 0")
        parts = data.parts[start:end]
        if not parts:
            raise _Decline("the cut is empty")
        return [parts[0] if len(parts) == 1 else States(parts)]
    if isinstance(data, InitialState):
        low, high, _ = slice(start, end).indices(data.high - data.low)
        return [InitialState(data.source, data.low + low, data.low + high)]
    if not isinstance(data, Sequence):
        raise _Decline("expected a tensor")
    axis = _position(axis_list[0], len(data.axes))
    size = data.axes[axis].size
    if start == 0 and (end >= 1 << 31 or (size is not None and end >= size)):
        return [data]
    if data.time is not None and data.axes[axis].label == data.time:
        reaches_end = end >= 1 << 31 or (size is not None and end >= size)
        if (start == -1 or (size is not None and start == size - 1)) and reaches_end:
            return [_pick(data, axis, -1, keep=True)]
        raise _Decline(f"expected the last step of the time axis, was [{start}:{end}]")
    if not data.chain and axis == 0 and len(data.axes) == 3 and start >= 0 and end > start:
        high = end if size is None else min(end, size)
        return [InitialState(data.source, start, high)]
    raise _Decline(f"expected a cut of the time axis or of an initial state, was axis {axis} [{start}:{end}]")


def _concat(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    axis = node.attributes.get("axis") or 0
    if all(isinstance(value, np.ndarray) for value in arguments):
        arrays = [value for value in arguments if isinstance(value, np.ndarray)]
        if sum(array.size for array in arrays) > MAX_CONSTANT:
            raise _Decline("the constant is too large")
        return [np.concatenate(arrays, axis=axis)]
    if all(_is_shape_like(value) for value in arguments):
        return [Shape(tuple(entry for value in arguments for entry in _entries(value)))]
    if axis == 0 and all(isinstance(v, States) or (isinstance(v, Sequence) and v.state) for v in arguments):
        parts: list[Sequence] = []
        for value in arguments:
            if isinstance(value, States):
                parts.extend(value.parts)
            elif isinstance(value, Sequence):
                parts.append(value)
        if len({part.state for part in parts}) != 1:
            raise _Decline("expected hidden or cell states, not both")
        return [States(tuple(parts))]
    if len(arguments) == 1:
        return [arguments[0]]
    raise _Decline("expected constants, shapes or the final states of layers")


def _squeeze(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value, axes = arguments[0], _axes_of(node, arguments, 1)
    if isinstance(value, Zeros | InitialState):
        return [value]
    if isinstance(value, Shape):
        if len(value.entries) != 1:
            raise _Decline("expected a shape of one entry")
        entry = value.entries[0]
        return [np.array(entry, np.int64) if isinstance(entry, int) else value]
    if isinstance(value, np.ndarray):
        return [np.squeeze(value, axis=None if axes is None else tuple(axes))]
    if not isinstance(value, Sequence):
        raise _Decline("expected one tensor")
    rank = len(value.axes)
    if axes is None:
        raise _Decline("expected `axes` to be given")
    for axis in sorted({_position(a, rank) for a in axes}, reverse=True):
        if value.axes[axis].size != 1:
            raise _Decline(f"expected axis {axis} to have size 1")
        value = _pick(value, axis, -1, keep=False)
    return [value]


def _unsqueeze(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value, axes = arguments[0], _axes_of(node, arguments, 1)
    if axes is None:
        raise _Decline("expected `axes` to be given")
    if isinstance(value, Zeros | InitialState | Shape):
        return [value]
    if isinstance(value, np.ndarray):
        return [np.expand_dims(value, tuple(axes))]
    if not isinstance(value, Sequence):
        raise _Decline("expected one tensor")
    rank = len(value.axes) + len(axes)
    for axis in sorted(_position(a, rank) for a in axes):
        if axis >= rank - 1:
            raise _Decline("expected the feature axis to stay the last one")
        value = replace(value, axes=(*value.axes[:axis], Axis("1", 1), *value.axes[axis:]))
    return [value]


def _transpose(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value, perm = arguments[0], node.attributes.get("perm")
    if isinstance(value, np.ndarray):
        return [np.transpose(value, perm)]
    if isinstance(value, Zeros):
        return [value]
    if not isinstance(value, Sequence):
        raise _Decline("expected one tensor")
    perm = list(range(len(value.axes)))[::-1] if perm is None else list(perm)
    if sorted(perm) != list(range(len(value.axes))):
        raise _Decline(f"`perm` must order {len(value.axes)} axes, was {perm}")
    if value.chain and perm[-1] != len(perm) - 1:
        raise _Decline("expected the feature axis to stay the last one")
    if value.state is not None and perm != list(range(len(perm))):
        value = replace(value, state=None)
    return [replace(value, axes=tuple(value.axes[i] for i in perm))]


def _reshape(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value, target = arguments[0], _entries(arguments[1])
    if isinstance(value, Zeros | InitialState):
        return [value]
    if isinstance(value, Shape):
        if target not in ((-1,), (len(value.entries),)):
            raise _Decline("expected a shape to stay a vector")
        return [value]
    if isinstance(value, np.ndarray):
        dims = _integers(arguments[1], "the shape")
        if not node.attributes.get("allowzero"):
            dims = [value.shape[i] if d == 0 else d for i, d in enumerate(dims)]
        return [value.reshape(dims)]
    if not isinstance(value, Sequence):
        raise _Decline("expected one tensor")
    axes = _match(value.axes, target, allow_zero=not node.attributes.get("allowzero"))
    if axes is None:
        raise _Decline("expected a reshape that only adds or removes axes of size 1")
    return [replace(value, axes=axes, state=None)]


def _match(axes: tuple[Axis, ...], target: tuple[int | Axis, ...], *, allow_zero: bool) -> tuple[Axis, ...] | None:
    """Axes after a reshape to `target` that only adds and removes axes of size 1; None if it does more."""
    if len(target) > 8:
        return None

    def search(i: int, j: int, wild: bool) -> tuple[Axis, ...] | None:
        if j == len(target):
            return () if all(axis.size == 1 for axis in axes[i:]) else None
        want = target[j]
        if i < len(axes):
            axis = axes[i]
            same = want == axis or (isinstance(want, int) and want > 0 and want == axis.size)
            same = same or (want == 0 and allow_zero and i == j)
            if same or (want == -1 and not wild):
                rest = search(i + 1, j + 1, wild or want == -1)
                if rest is not None:
                    return (axis, *rest)
            if axis.size == 1:
                rest = search(i + 1, j, wild)
                if rest is not None:
                    return rest
        if want == 1 or (want == -1 and not wild):
            rest = search(i, j + 1, wild or want == -1)
            if rest is not None:
                return (Axis("1", 1), *rest)
        return None

    return search(0, 0, False)


def _flatten(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value = arguments[0]
    axis = node.attributes.get("axis")
    axis = 1 if axis is None else axis
    if not isinstance(value, Sequence) or axis not in (1, len(value.axes) - 1, -1):
        raise _Decline("expected a row per batch entry, flattened on axis 1")
    if any(a.size != 1 for a in value.axes[1:-1]):
        raise _Decline("expected every axis between batch and features to have size 1")
    return [replace(value, axes=(value.axes[0], value.axes[-1]), state=None)]


def _arithmetic(function: Callable[[Any, Any], Any], symbol: str) -> Callable[..., list[Value]]:
    def operator(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
        a, b = arguments
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            if int(np.prod(np.broadcast_shapes(a.shape, b.shape), dtype=object)) > MAX_CONSTANT:
                raise _Decline("the constant is too large")
            with np.errstate(all="ignore"):
                return [np.asarray(function(a, b))]
        if _is_shape_like(a) and _is_shape_like(b):
            left, right = _integers(a, "sizes"), _integers(b, "sizes")
            return [np.asarray(function(np.array(left), np.array(right)))]
        if symbol == "+":
            sequence, other = (a, b) if isinstance(a, Sequence) else (b, a)
            if isinstance(sequence, Sequence) and isinstance(other, np.ndarray):
                return [_add_bias(sequence, other)]
        raise _Decline(f"`{symbol}` is expected between constants only, or as the bias after a MatMul")

    return operator


def _add_bias(value: Sequence, bias: Array) -> Sequence:
    bias = _weights(bias, "the bias")
    if not value.pending or value.chain[-1].activation != "none" or not isinstance(value.chain[-1], DenseLayer):
        raise _Decline("expected a bias right after a MatMul")
    layer = value.chain[-1]
    fits = bias.size in (1, layer.output_size) and (bias.ndim == 0 or bias.shape[-1] == bias.size)
    if bias.ndim > len(value.axes) or not fits:
        raise _Decline(f"expected a bias of {layer.output_size} values, has shape {list(bias.shape)}")
    full = layer.bias + np.broadcast_to(bias.reshape(-1), layer.bias.shape).astype(np.float32)
    return replace(value, chain=(*value.chain[:-1], replace_dense(layer, bias=full)))


def replace_dense(layer: DenseLayer, *, bias: Array | None = None, activation: str | None = None) -> DenseLayer:
    """A dense layer with another bias or activation."""
    return DenseLayer(
        layer.w,
        layer.bias if bias is None else bias,
        layer.activation if activation is None else activation,
        layer.name,
    )


def _dense(node: Node, value: Value, w: Array, bias: Array | None) -> Sequence:
    """`w` is [output, input]."""
    if not isinstance(value, Sequence) or len(value.axes) < 2:
        raise _Decline("expected a row of features on the left and constant weights on the right")
    features = value.axes[-1]
    if w.ndim != 2 or (features.size is not None and features.size != w.shape[1]):
        raise _Decline(f"expected weights for {features.size} features, have shape {list(w.shape)}")
    if value.chain and value.chain[-1].output_size != w.shape[1]:
        raise _Decline(f"expected weights for {value.chain[-1].output_size} features, have shape {list(w.shape)}")
    if bias is None:
        bias = np.zeros(w.shape[0], np.float32)
    try:
        layer = DenseLayer(w, bias, "none", node.name or node.outputs[0])
    except ModelLoadingError as error:
        raise _Decline(str(error)) from error
    axes = (*value.axes[:-1], Axis("features", w.shape[0]))
    return replace(value, axes=axes, chain=(*value.chain, layer), pending=True, state=None)


def _matmul(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    a, b = arguments
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] * b.shape[1] > MAX_CONSTANT:
            raise _Decline("expected constants of two dimensions")
        with np.errstate(all="ignore"):
            return [a @ b]
    return [_dense(node, a, _weights(b, "the weights").T, None)]


def _gemm(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    attributes = node.attributes
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA"):
        raise _Decline("expected alpha = beta = 1 and transA = 0")
    w = _weights(arguments[1], "the weights")
    if w.ndim != 2:
        raise _Decline(f"expected weights of two dimensions, have shape {list(w.shape)}")
    w = w if attributes.get("transB") else w.T
    bias = _argument(arguments, 2)
    if bias is not None:
        bias = _weights(bias, "the bias")
        if bias.ndim > 2 or bias.size not in (1, w.shape[0]) or (bias.ndim and bias.shape[-1] != bias.size):
            raise _Decline(f"expected a bias of {w.shape[0]} values, has shape {list(bias.shape)}")
        bias = np.broadcast_to(bias.reshape(-1), (w.shape[0],))
    return [_dense(node, arguments[0], w, bias)]


def _activation(name: str) -> Callable[..., list[Value]]:
    def operator(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
        value = arguments[0]
        if not isinstance(value, Sequence) or not value.chain or not value.pending:
            raise _Decline("expected an activation right after a dense layer")
        layer = value.chain[-1]
        if not isinstance(layer, DenseLayer):
            raise _Decline("expected an activation right after a dense layer")
        if name == "softmax":
            default = -1 if walk.graph.opset >= 13 else 1
            axis = node.attributes.get("axis")
            axis = _position(default if axis is None else axis, len(value.axes))
            if axis != len(value.axes) - 1:
                raise _Decline(f"expected softmax over the last axis, was axis {axis} of {len(value.axes)}")
        chain = (*value.chain[:-1], replace_dense(layer, activation=name))
        return [replace(value, chain=chain, pending=False)]

    return operator


_GATES = (0, 2, 3, 1)  # rows of ONNX (i, o, f, c) in our order i, f, g, o


def _reorder(rows: Array) -> Array:
    return np.concatenate([np.split(rows, 4)[gate] for gate in _GATES])


# What the attributes that the operators read must hold; a damaged file may say anything.
_ATTRIBUTES: dict[str, type] = {
    **dict.fromkeys(("axis", "start", "end", "to", "allowzero", "keepdims", "transA", "transB", "hidden_size"), int),
    **dict.fromkeys(("input_forget", "layout"), int),
    **dict.fromkeys(("axes", "starts", "ends", "perm", "activations"), list),
    **dict.fromkeys(("alpha", "beta", "clip"), float),
    "direction": str,
    "value": np.ndarray,
}


def _check_attributes(node: Node) -> None:
    for name, held in node.attributes.items():
        wanted = _ATTRIBUTES.get(name)
        if wanted is not None and held is not None and not isinstance(held, wanted):
            raise _Decline(f"attribute `{name}` must hold {wanted.__name__}, held {type(held).__name__}")


def _lstm(walk: _Walk, node: Node, arguments: list[Value]) -> list[Value]:
    attributes = node.attributes
    if attributes.get("direction", "forward") != "forward":
        raise _Decline(f"expected direction `forward`, was `{attributes['direction']}`")
    if attributes.get("input_forget"):
        raise _Decline("expected input_forget = 0")
    if attributes.get("clip") is not None:
        raise _Decline("expected no clip")
    functions = attributes.get("activations")
    if functions is not None and [str(f).lower() for f in functions] != ["sigmoid", "tanh", "tanh"]:
        raise _Decline(f"expected the activations Sigmoid, Tanh, Tanh, were {functions}")
    x = arguments[0]
    if not isinstance(x, Sequence) or len(x.axes) != 3:
        raise _Decline("expected an input of three axes: time, batch, features")
    if x.last:
        raise _Decline("expected an LSTM over all steps, found one over the last step only")
    w, r = _weights(arguments[1], "W"), _weights(arguments[2], "R")
    bias = _argument(arguments, 3)
    if _argument(arguments, 4) is not None:
        raise _Decline("expected no sequence lengths")
    if _argument(arguments, 7) is not None:
        raise _Decline("expected no peephole weights")
    if w.ndim != 3 or r.ndim != 3 or w.shape[0] != 1 or r.shape[0] != 1:
        raise _Decline(f"expected W and R of one direction, have shapes {list(w.shape)} and {list(r.shape)}")
    hidden = r.shape[2]
    if w.shape[1] != 4 * hidden or r.shape[1] != 4 * hidden or attributes.get("hidden_size", hidden) != hidden:
        raise _Decline(f"expected 4 x {hidden} gate rows, have shapes {list(w.shape)} and {list(r.shape)}")
    if x.axes[2].size is not None and x.axes[2].size != w.shape[2]:
        raise _Decline(f"expected W for {x.axes[2].size} features, has {w.shape[2]}")
    if bias is None:
        both = np.zeros(4 * hidden, np.float32)
    else:
        flat = _weights(bias, "B")
        if flat.shape != (1, 8 * hidden):
            raise _Decline(f"expected B of shape [1, {8 * hidden}], has {list(flat.shape)}")
        both = flat[0, : 4 * hidden].astype(np.float32) + flat[0, 4 * hidden :].astype(np.float32)
    number = sum(layer.kind == "lstm" for layer in x.chain)
    for index, name in ((5, "initial_h"), (6, "initial_c")):
        _check_initial(_argument(arguments, index), name, number)
    try:
        layer = LstmLayer(_reorder(w[0]), _reorder(r[0]), _reorder(both), node.name or node.outputs[0])
    except ModelLoadingError as error:
        raise _Decline(str(error)) from error
    batch_first = attributes.get("layout", 0) == 1
    time, batch = (x.axes[1], x.axes[0]) if batch_first else (x.axes[0], x.axes[1])
    if x.time is not None and x.time != time.label:
        raise _Decline("expected the same time axis as the LSTM before it")
    features, direction = Axis("features", hidden), Axis("direction", 1)
    chain = (*x.chain, layer)
    every = replace(
        x,
        chain=chain,
        time=time.label,
        pending=False,
        state=None,
        axes=(batch, time, direction, features) if batch_first else (time, direction, batch, features),
    )
    mark = f"{time.label}=1" if time.size == 1 else time.label
    final = replace(
        every, last=True, time=mark, axes=(batch, direction, features) if batch_first else (direction, batch, features)
    )
    return [every, replace(final, state="h"), replace(final, state="c")]


def _check_initial(value: Value, name: str, number: int) -> None:
    if value is None or isinstance(value, Zeros):
        return
    if isinstance(value, np.ndarray):
        if value.any():
            raise _Decline(f"expected {name} to be zero or a graph input")
        return
    if isinstance(value, InitialState):
        if (value.low, value.high) != (number, number + 1):
            raise _Decline(f"expected {name} to be entry {number} of the state input, was [{value.low}:{value.high}]")
        return
    if isinstance(value, Sequence) and not value.chain and number == 0 and value.axes[0].size in (None, 1):
        return
    raise _Decline(f"expected {name} to be zero or a graph input")


_OPERATORS: dict[str, Callable[[_Walk, Node, list[Value]], list[Value]]] = {
    "Add": _arithmetic(np.add, "+"),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant_node,
    "ConstantOfShape": _constant_of_shape,
    "Div": _arithmetic(lambda a, b: a // b if a.dtype.kind in "iu" else a / b, "/"),
    "Dropout": _identity,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": _identity,
    "LSTM": _lstm,
    "MatMul": _matmul,
    "Mul": _arithmetic(np.multiply, "*"),
    "Relu": _activation("relu"),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _activation("sigmoid"),
    "Slice": _slice,
    "Softmax": _activation("softmax"),
    "Squeeze": _squeeze,
    "Sub": _arithmetic(np.subtract, "-"),
    "Tanh": _activation("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}


@dataclass(frozen=True)
class Signature:
    """How a graph is to be driven: names and shapes of its inputs and outputs."""

    kind: str
    """"window": [batch, time, features]; "row": [batch, features]; "state": row or window of one step, plus states."""
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    time_axis: int = 1
    """Axis of a window's steps: 1, or 0 where an LSTM reads the input as [time, batch, features]."""


def signature(data: bytes) -> Signature:
    """Inputs and outputs of any ONNX file, whatever its operators.

    Raises
    ------
    ModelLoadingError
        If the file is damaged, or its inputs are neither one row, one window, nor a row with states.
    """
    graph = parse(data)
    inputs, outputs = tuple(graph.inputs), tuple(graph.outputs)
    if not inputs or not outputs:
        raise ModelLoadingError("ONNX file: the graph needs at least one input and one output")
    rank = len(inputs[0].shape or ())
    if len(inputs) > 1:
        if len(outputs) != len(inputs):
            raise ModelLoadingError(
                f"a graph with state inputs must have as many outputs, has {len(inputs)} inputs and {len(outputs)} "
                "outputs"
            )
        return Signature("state", inputs, outputs)
    if rank not in (2, 3):
        raise ModelLoadingError(f"input `{inputs[0].name}` must have 2 or 3 axes, has {rank}")
    if rank == 2:
        return Signature("row", inputs, outputs)
    return Signature("window", inputs, outputs, _Walk(graph).time_axis())
