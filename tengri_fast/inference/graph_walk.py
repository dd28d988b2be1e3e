"""One evaluation of a graph on concrete shapes, under one reading of the axes of its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tengri_fast.inference.graph_arithmetic import ARITHMETIC
from tengri_fast.inference.graph_attention import ATTENTION
from tengri_fast.inference.graph_cells import CELLS
from tengri_fast.inference.graph_layout import LAYOUT
from tengri_fast.inference.graph_linear import LINEAR
from tengri_fast.inference.graph_values import (
    BATCH,
    Array,
    Budget,
    Builder,
    Decline,
    Scores,
    Tensor,
    Unknown,
    Value,
    Weights,
)
from tengri_fast.inference.onnx_reader import Graph, Node, ValueInfo

__all__ = ["Failure", "Reading", "Walk", "readings"]

Operator = Callable[["Walk", Node, list[Value]], list[Value]]
OPERATORS: dict[str, Operator] = {**ARITHMETIC, **ATTENTION, **CELLS, **LAYOUT, **LINEAR}
INSTEAD = "runs on ONNX Runtime instead"


class Failure(Exception):
    """A graph that could not be read; `index` is the node that ended it."""

    def __init__(self, reason: str, index: int, *, short: bool = False) -> None:
        super().__init__(reason)
        self.index = index
        self.short = short or "too short" in reason or "expected at least" in reason


@dataclass(frozen=True)
class Reading:
    """What the axes of the first input mean: which is time, which the batch; the others are features, in order."""

    time: int | None
    batch: int | None
    entries: int = 2
    """Size to give an open batch axis: two, so that what mixes its entries is seen to do so."""


def readings(graph: Graph, *, step: bool) -> list[Reading]:
    """The readings of the first input to try, the usual first. `step`: the graph takes one step and states.

    Channels first is tried only where a convolution asks for it, or the last axis is open: read that way by mistake,
    steps would pass for features.
    """
    shape = graph.inputs[0].shape or []
    rank = len(shape)
    if rank == 2:
        found = [Reading(None, 0), Reading(0, None), Reading(1, None)]
    elif rank == 3:
        found = [Reading(1, 0), Reading(0, 1), Reading(2, 0)]
    elif rank == 4:
        found = [Reading(2, 0), Reading(1, 0), Reading(3, 0)]
    else:
        return []
    last_may_be_time = not isinstance(shape[-1], int) or any(node.op in _FIRST for node in graph.nodes)
    return [
        replace(r, entries=1 if step else 2)
        for r in found
        if _fits(shape, r, step=step) and (r.time != rank - 1 or last_may_be_time)
    ]


_FIRST = ("AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")
"""Operators that want channels first."""


def _fits(shape: list[int | str | None], reading: Reading, *, step: bool) -> bool:
    if (
        not step
        and reading.time is not None
        and reading.batch is not None
        and (shape[reading.time] == 1 and shape[reading.batch] != 1)
    ):  # a window of one row beside a batch: the other way round
        return False
    wide = 0
    for axis, size in enumerate(shape):
        if axis in (reading.time, reading.batch):
            if step and isinstance(size, int) and size > 1:
                return False
            continue
        if not isinstance(size, int) or size < 1:
            return False
        wide += size > 1
    return wide <= 1  # several feature axes have no order of their own


@dataclass
class Walk:
    """Values of a graph under one reading.

    Parameters
    ----------
    graph : Graph
        What the reader found.
    reading : Reading
        Of the first input.
    steps : int
        Length to give an open time axis.
    budget : Budget
        Work that is left for this file.
    delays : dict of str to (numbers, ages)
        State inputs that are known to hold earlier rows: for each element, which of their columns it holds and how many
        steps ago that was.
    """

    graph: Graph
    reading: Reading
    steps: int
    budget: Budget
    delays: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    open: bool = False
    clocks: dict[str, Array] = field(default_factory=dict)
    """Values of states that depend on the number of steps since reset only, at step `now`."""
    now: int = 0
    known: list[tuple[int, Array]] = field(default_factory=list)
    """Window and slopes of each attention in order, known from a later step."""
    masks: list[tuple[int, Array]] = field(default_factory=list)
    """The same, as found by this evaluation."""
    name: str = ""
    builder: Builder = field(init=False)
    values: dict[str, Value] = field(default_factory=dict)
    noted: str = ""
    """Where rows were first lost, to be said if the answer needs them."""
    label: str = ""
    entries: int = 1
    """Size of the batch."""

    def __post_init__(self) -> None:
        self.builder = Builder(self.budget)

    def note(self, what: str) -> None:
        """Remember a node that loses rows, which matters only if the answer needs them."""
        if not self.noted:
            self.noted = f"{self.label}: {what}; "

    def again(self, delays: dict[str, tuple[Array, Array]]) -> Walk:
        """The same evaluation, not yet run, knowing more about its states."""
        return Walk(
            self.graph, self.reading, self.steps, self.budget, delays, self.open, self.clocks, self.now, self.known
        )

    def run(self) -> None:
        """Evaluate every node; what cannot be is an Unknown that says why."""
        graph = self.graph
        self.values[""] = None
        for name, array in graph.tensors.items():
            self.values[name] = Weights(array, "bf16") if name in graph.bfloat16 else array
        for index, info in enumerate(graph.inputs):
            self.values[info.name] = self._input(info) if index == 0 else self._state(info)
        for index, node in enumerate(graph.nodes):
            self._evaluate(index, node)

    def _input(self, info: ValueInfo) -> Value:
        shape = [size if isinstance(size, int) and size > 0 else 0 for size in info.shape or []]
        time, batch = self.reading.time, self.reading.batch
        if time is not None and not shape[time]:
            shape[time] = self.steps
        elif time is not None:
            self.steps = shape[time]
        else:
            self.steps = 1
        if batch is not None and not shape[batch]:
            shape[batch] = self.reading.entries
        self.entries = 1 if batch is None else shape[batch]
        width = int(np.prod([d for i, d in enumerate(shape) if i not in (time, batch)], dtype=object))
        try:
            self.builder.spend(int(np.prod(shape, dtype=object)))
            if self.steps >= BATCH // 4:
                raise Decline(f"expected at most {BATCH // 4} steps, has {self.steps}")
            made = self.builder.add("input", (), width, info.name, 1)
        except Decline as decline:
            return Unknown(f"input `{info.name}`: {decline}", -1)
        col = np.zeros(shape, np.int64)
        row = np.zeros(shape, np.int64)
        number = np.arange(width)
        features = [i for i in range(len(shape)) if i not in (time, batch)]
        col += number.reshape([shape[i] if i in features else 1 for i in range(len(shape))])
        for axis, stride in ((time, 1), (batch, BATCH)):
            if axis is not None:
                row += stride * np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return Tensor(col + made.base, row)

    def _state(self, info: ValueInfo) -> Value:
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in info.shape or []]
        size = int(np.prod(shape, dtype=object))
        try:
            self.builder.spend(size)
            if info.name in self.clocks:
                return self.clocks[info.name].reshape(shape)
            if info.name in self.delays:
                numbers, ages = self.delays[info.name]
                made = self.builder.add("delay", (), int(numbers.max()) + 1, info.name, 1, state=info.name)
                return Tensor(made.base + numbers.reshape(shape), -ages.reshape(shape).astype(np.int64))
            made = self.builder.add("state", (), size, info.name, 1, state=info.name)
        except Decline as decline:
            return Unknown(f"input `{info.name}`: {decline}", -1)
        return Tensor(made.columns.reshape(shape), np.zeros(shape, np.int64))

    def _evaluate(self, index: int, node: Node) -> None:
        self.label = node.label(index)
        self.name = node.name or (node.outputs[0] if node.outputs else f"node {index}")
        try:
            arguments: list[Value] = []
            for name in node.inputs:
                if name not in self.values:
                    raise Decline(f"input `{name}` is made by no node before it")
                value = self.values[name]
                if isinstance(value, Unknown):
                    for output in node.outputs:
                        self.values[output] = value
                    return
                arguments.append(value)
            operator = OPERATORS.get(node.op) if node.domain in ("", "ai.onnx") else None
            if operator is None:
                raise Decline(
                    "unsupported operator, expected LSTM, GRU, Conv, attention, dense layers, norms, pools, activations"
                )
            _check_attributes(node)
            results = [np.asarray(v) if isinstance(v, np.generic) else v for v in operator(self, node, arguments)]
            for result in results:
                self._count(result)
        except Decline as decline:
            self._fail(index, node, str(decline))
            return
        except (
            ArithmeticError,
            ValueError,
            LookupError,
            TypeError,
            MemoryError,
            AttributeError,
            AssertionError,
        ) as error:
            self._fail(index, node, f"inputs do not fit the operator ({error})")
            return
        for output, value in zip(node.outputs, results, strict=False):
            if output:
                self.values[output] = value
        for output in node.outputs[len(results) :]:
            self.values[output] = Unknown(f"{node.label(index)}: output `{output}` is not supported", index)

    def _count(self, value: Value) -> None:
        if isinstance(value, np.ndarray):
            self.builder.spend(value.size)
        elif isinstance(value, Tensor):
            self.builder.spend(value.col.size)
        elif isinstance(value, Scores):
            self.builder.spend(value.q.col.size + value.k.col.size + value.bias.size)

    def _fail(self, index: int, node: Node, reason: str) -> None:
        for output in node.outputs:
            self.values[output] = Unknown(f"{node.label(index)}: {reason}", index)

    def tensor(self, name: str) -> Tensor:
        """A graph output, which must come from the input."""
        value = self.values.get(name)
        if isinstance(value, Unknown):
            raise Failure(value.reason, value.index)
        if isinstance(value, Scores):
            raise Failure(f"output `{name}`: expected rows, found attention scores", len(self.graph.nodes))
        if not isinstance(value, Tensor):
            found = "nothing" if value is None else "a constant"
            raise Failure(
                f"output `{name}`: expected something computed from the input, found {found}", len(self.graph.nodes)
            )
        return value


# What the attributes that the operators read must hold; a damaged file may say anything.
_ATTRIBUTES: dict[str, Any] = {
    **dict.fromkeys(("axis", "start", "end", "to", "allowzero", "keepdims", "transA", "transB", "hidden_size",
    "group"), int),
    **dict.fromkeys(("input_forget", "layout", "linear_before_reset", "upper", "exclusive", "reverse", "block_size"),
    int),
    **dict.fromkeys(("ceil_mode", "count_include_pad", "training_mode", "is_causal", "q_num_heads", "kv_num_heads"),
    int),
    **dict.fromkeys(("axes", "starts", "ends", "perm", "activations", "kernel_shape", "strides", "dilations", "pads"),
    list),
    "split": list,
    **dict.fromkeys(("alpha", "beta", "clip", "epsilon", "scale", "softcap", "min", "max"), float),
    **dict.fromkeys(("direction", "mode", "approximate", "auto_pad"), str),
}  # fmt: skip


def _check_attributes(node: Node) -> None:
    for name, held in node.attributes.items():
        wanted = np.ndarray if name == "value" and node.op != "Pad" else _ATTRIBUTES.get(name)
        if wanted is not None and held is not None and not isinstance(held, wanted):
            raise Decline(f"attribute `{name}` must hold {wanted.__name__}, held {type(held).__name__}")
