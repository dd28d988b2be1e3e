"""From an ONNX file to a :class:`~tengri_fast.inference.network.Network`.

PyTorch writes one network in many ways: transposes for ``batch_first``, padding cut off again, masks computed from the
length, cells and norms in single operators. Matching patterns would break with the next exporter, so each node is
*evaluated* on concrete shapes, with tensors that know where each of their elements comes from (:mod:`.graph_values`).
Which axis of the input is time is found by trying: a reading under which every operator is causal and renews the same
row per step is the right one. An open time axis is given several lengths, which must lead to the same network.

What cannot be evaluated is named: node, operator, what was expected. It runs on ONNX Runtime instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.graph_lower import lower
from tengri_fast.inference.graph_states import States, clocks_of
from tengri_fast.inference.graph_values import LOST, Array, Budget, Decline, Tensor, steps_of
from tengri_fast.inference.graph_walk import INSTEAD, Failure, Reading, Walk, readings
from tengri_fast.inference.network import Network
from tengri_fast.inference.onnx_reader import Graph, ValueInfo, parse

__all__ = ["Signature", "read_network", "signature"]

MIN_OPSET, MAX_OPSET = 9, 26
LENGTHS = (7, 40, 300, 1_100)
"""Lengths tried for an open time axis: longer ones only where a window or a kernel reaches over all of a shorter
one."""
MORE = 4
"""The second length with which a network is confirmed is this much longer."""


def read_network(data: bytes, *, window: int | None = None) -> Network:
    """The network in an ONNX file.

    Parameters
    ----------
    data : bytes
        Content of the file: recurrent, convolutional, attention and dense layers in any causal wiring, over a window
        or as a single step with its states as inputs and outputs; float32, float16, bfloat16 or quantised (Q/DQ).
    window : int, optional
        Rows to attend to or pool over where the graph takes all rows of an open time axis. Without it such a graph is
        declined, unless a table of positions ends its windows.

    Returns
    -------
    Network
        Metadata whose keys begin with ``tengri.`` come along without that prefix.

    Raises
    ------
    ModelLoadingError
        If the file is damaged, or holds something else; the text names node, operator and what was expected.
    """
    graph = parse(data)
    _check(graph, window)
    if "tengri.network" in graph.metadata:
        from tengri_fast.inference.canonical_reader import read_canonical

        found = read_canonical(data, graph)
        if found is not None:
            return found
    return _read(graph, window)[0]


def _check(graph: Graph, window: int | None) -> None:
    if not MIN_OPSET <= graph.opset <= MAX_OPSET:
        raise ModelLoadingError(f"ONNX operator set must be {MIN_OPSET} to {MAX_OPSET}, was {graph.opset}; {INSTEAD}")
    if window is not None and window < 1:
        raise ModelLoadingError(f"`window` must be >= 1, was {window}")
    if not graph.outputs:
        raise ModelLoadingError("ONNX file: the graph has no output; truncated?")
    if not graph.inputs:
        raise ModelLoadingError("ONNX file: the graph has no input; truncated?")


def _read(graph: Graph, window: int | None) -> tuple[Network, Reading]:
    """The network and the reading of the input's axes that made sense."""
    info = graph.inputs[0]
    if info.shape is None or not 2 <= len(info.shape) <= 4:
        raise ModelLoadingError(
            f"input `{info.name}`: expected a tensor of 2 to 4 axes with a known number of features; {INSTEAD}"
        )
    step = len(graph.inputs) > 1
    failures: list[tuple[Reading, Failure]] = []
    budget = Budget()
    for reading in readings(graph, step=step):
        try:
            with np.errstate(all="ignore"):  # constants of a damaged file may be anything; what matters is checked
                return _with(graph, reading, window, budget, step=step), reading
        except Failure as failure:
            failures.append((reading, failure))
    if not failures:
        raise ModelLoadingError(
            f"input `{info.name}`: expected one axis of features of fixed size, has {info.shape}; {INSTEAD}"
        )
    likely = _guess(graph)  # the failure under the likely reading says most, else the one that came furthest
    failures.sort(key=lambda f: ((f[0].time, f[0].batch) != (likely.time, likely.batch), -f[1].index))
    raise ModelLoadingError(f"{failures[0][1]}; {INSTEAD}") from failures[0][1]


def _with(graph: Graph, reading: Reading, window: int | None, budget: Budget, *, step: bool) -> Network:
    shape = graph.inputs[0].shape or []
    size = None if reading.time is None else shape[reading.time]
    if step or reading.time is None or (isinstance(size, int) and size > 0):
        return _once(graph, reading, 1, window, budget, open_=False)
    failure: Failure | None = None
    for length in LENGTHS:
        try:
            first = _once(graph, reading, length, window, budget, open_=True)
        except Failure as error:
            if failure is None or error.index >= failure.index:
                failure = error
            if error.short:
                continue
            raise failure from None
        second = _once(graph, reading, length + MORE, window, budget, open_=True)
        if first.sha256() != second.sha256():
            raise Failure("the network depends on the length of the window", len(graph.nodes))
        return first
    assert failure is not None
    raise failure


def _once(graph: Graph, reading: Reading, steps: int, window: int | None, budget: Budget, *, open_: bool) -> Network:
    """One evaluation; for a step with a clock (a count of rows seen) one when it stands, confirmed by earlier ones."""
    try:
        clocks = clocks_of(graph, reading, budget) if len(graph.inputs) > 1 else []
    except Decline as decline:
        raise Failure(str(decline), len(graph.nodes)) from decline
    if not clocks:
        return _network(*_settled(Walk(graph, reading, steps, budget, open=open_)), window)
    last = len(clocks) - 1
    final, states = _settled(Walk(graph, reading, steps, budget, clocks=clocks[last], now=last))
    network = _network(final, states, window)
    for now in sorted({0, min(1, last), last // 2}):
        early = _settled(Walk(graph, reading, steps, budget, clocks=clocks[now], now=now, known=final.masks))
        if _network(*early, window).sha256() != network.sha256():
            raise Failure("the network depends on the number of steps since reset", len(graph.nodes))
    return network


def _settled(walk: Walk) -> tuple[Walk, States]:
    """Evaluates, and again where that shows that a state input holds earlier rows."""
    for _ in range(len(walk.graph.inputs) + 1):
        walk.run()
        states = States(walk)
        try:
            found = states.delays()
        except Decline as decline:
            raise Failure(str(decline), len(walk.graph.nodes)) from decline
        if not found:
            break
        walk = walk.again({**walk.delays, **found})
    return walk, states


@dataclass(frozen=True)
class _Answer:
    cols: Array
    mode: str


def _network(walk: Walk, states: States, window: int | None) -> Network:
    graph = walk.graph
    last = len(graph.nodes)
    answers: list[tuple[str, _Answer]] = []
    try:
        for info in states.answers():
            value = walk.tensor(info.name)
            if answers and states.is_final_state(value):
                continue
            answers.append((info.name, _answer(walk, info.name, value)))
        modes = {answer.mode for _, answer in answers}
        if len(modes) > 1:
            raise Decline("outputs: expected all for every step, or all for the last one, found both")
        states.close()
        cols = states.renamed(np.concatenate([answer.cols for _, answer in answers]))
        tables = [a for a in (*graph.tensors.values(), *(v for v in walk.values.values() if isinstance(v, np.ndarray)))
                  if a.ndim > 1]  # fmt: skip
        lowered = lower(walk.builder, cols, tables, window, open_=walk.open)
        outputs = tuple((name, int(answer.cols.size)) for name, answer in answers)
        metadata = {k[7:]: v for k, v in graph.metadata.items() if k.startswith("tengri.")}
        return Network(
            tuple(lowered.nodes), walk.builder.operations[0].width, lowered.output, modes.pop(),
            outputs if len(outputs) > 1 else (), {k: v for k, v in metadata.items() if k not in _WRITTEN},
        )  # fmt: skip
    except Decline as decline:
        raise Failure(str(decline), last, short="known length" in str(decline)) from decline
    except ModelLoadingError as error:
        raise Failure(str(error), last) from error
    except (ArithmeticError, ValueError, LookupError, TypeError, MemoryError, AssertionError) as error:
        raise Failure(f"the graph does not fit together ({error})", last) from error


_WRITTEN = frozenset(("form", "network", "gate_order", "formats", "outputs", "output_mode"))
"""Metadata that describe the file rather than the network."""


def _answer(walk: Walk, name: str, value: Tensor) -> _Answer:
    """The columns of an output's row, and whether it is there for every step."""
    col, row = value.col.reshape(-1), value.row.reshape(-1)
    steps = steps_of(row)
    if col.size == 0 or np.any(col < 0) or np.any(steps >= walk.steps) or np.any(steps < 0):
        what = (
            "rows after the last one or before the first one"
            if np.any(col == LOST) or col.size == 0
            else "constant zeros"
        )
        raise Decline(f"{walk.noted}output `{name}`: expected each row to come from rows up to its own, found {what}")
    entry = row - steps
    for what, number in (("entries of the batch", entry), ("steps", steps)):
        if not _along_one_axis(number.reshape(value.shape)):
            raise Decline(f"output `{name}`: expected {what} along one axis, found them mixed with the features")
    entries, starts = np.unique(entry, return_index=True)
    by_entry = [col[entry == e] for e in entries]
    if np.any(np.diff(starts) < 0) or any(not np.array_equal(by_entry[0], other) for other in by_entry[1:]):
        raise Decline(f"output `{name}`: expected every entry of the batch to be treated alike, in its order")
    here = entry == entries[0]
    col, steps = col[here], steps[here]
    found, first = np.unique(steps, return_index=True)
    order = np.argsort(steps, kind="stable")
    if col.size % len(found) or np.any(np.diff(first) < 0):
        raise Decline(f"output `{name}`: expected the same features at every step, in the order of the steps")
    rows = col[order].reshape(len(found), -1)
    if np.any(rows != rows[0]):
        raise Decline(f"output `{name}`: expected the same features at every step")
    period = walk.builder.period(rows[0])
    newest = (walk.steps - 1) // period * period
    if np.array_equal(found, np.arange(0, walk.steps, period)):
        return _Answer(rows[0], "every")
    if len(found) == 1 and found[0] == newest:
        return _Answer(rows[0], "last")
    raise Decline(
        f"{walk.noted}output `{name}`: expected a row for every step, or for the last one, found steps "
        f"{int(found[0])} to {int(found[-1])} of 0 to {walk.steps - 1}"
    )


def _along_one_axis(number: Array) -> bool:
    """Whether the numbers change along one axis only."""
    if number.size == 0 or number.min() == number.max():
        return True
    changing = [axis for axis in range(number.ndim) if np.any(number != np.take(number, [0], axis=axis))]
    return len(changing) == 1


@dataclass(frozen=True)
class Signature:
    """How a graph is to be driven: names and shapes of its inputs and outputs."""

    kind: str
    """"window": a window of rows; "row": [batch, features]; "state": row or window of one step, plus states."""
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    time_axis: int = 1
    """Axis of a window's steps."""
    batch_axis: int | None = 0
    """Axis of the batch; None if there is none."""

    def feed(self, rows: npt.ArrayLike, batch: int = 1) -> npt.NDArray[np.float32]:
        """Rows [T, features] in the shape of the first input, repeated for each entry of the batch."""
        x = np.asarray(rows, np.float32)
        shape = self.inputs[0].shape or []
        rest = [axis for axis in range(len(shape)) if axis not in (self.time_axis, self.batch_axis)]
        sizes = [size if isinstance(size, int) and size > 0 else 1 for size in (shape[axis] for axis in rest)]
        order: list[int] = []
        if self.kind == "row" or (self.kind == "state" and len(shape) == 2):
            return np.ascontiguousarray(np.broadcast_to(x[-1], (batch, x.shape[1])))
        wide = int(np.argmax(sizes))
        sizes[wide] = x.shape[1] // max(int(np.prod(sizes)) // max(sizes[wide], 1), 1)
        full = x.reshape(len(x), *sizes)
        source = [self.time_axis, *rest]
        if self.batch_axis is not None:
            full = np.broadcast_to(full, (batch, *full.shape))
            source = [self.batch_axis, *source]
        order = [source.index(axis) for axis in range(len(shape))]
        return np.ascontiguousarray(full.transpose(order))

    def rows(self, y: npt.NDArray[Any], steps: int) -> npt.NDArray[Any]:
        """An output as rows of the first entry of the batch: [steps, features], or [1, features] for the last one
        only."""
        shape = y.shape
        if self.kind == "window" and steps > 1:
            for axis in dict.fromkeys((min(self.time_axis, y.ndim - 1), *range(y.ndim))):
                if shape[axis] == steps and (self.batch_axis is None or axis != self.batch_axis or y.ndim == 1):
                    moved = np.moveaxis(y, axis, 0)
                    batch = None if self.batch_axis is None else self.batch_axis + (self.time_axis > self.batch_axis)
                    if batch is not None and batch < moved.ndim and moved.ndim > 1:
                        moved = np.take(moved, 0, axis=batch)
                    return moved.reshape(steps, -1)
        return (y[:1] if y.ndim > 1 else y).reshape(1, -1)


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
        time = {2: 0, 3: 1, 4: 2}.get(rank, 0)
        shape = inputs[0].shape or []
        if rank == 3 and shape[1] != 1 and shape[2] == 1:  # [batch, channels, one step]
            time = 2
        return Signature("state", inputs, outputs, time)
    if not 2 <= rank <= 4:
        raise ModelLoadingError(f"input `{inputs[0].name}` must have 2 to 4 axes, has {rank}")
    try:
        reading = _read(graph, 64)[1]
    except ModelLoadingError:
        reading = _guess(graph)
    if reading.time is None:
        return Signature("row", inputs, outputs)
    return Signature("window", inputs, outputs, reading.time, reading.batch)


def _guess(graph: Graph) -> Reading:
    """The axes of a graph that is not read: time along the operators that run over it."""
    rank = len(graph.inputs[0].shape or ())
    if rank == 2:
        return Reading(None, 0)
    if rank == 4:
        return Reading(2, 0)
    for node in graph.nodes:
        if graph.inputs[0].name not in node.inputs[:1]:
            continue
        if node.op in ("LSTM", "GRU", "RNN"):
            return Reading(1, 0) if node.attributes.get("layout") == 1 else Reading(0, 1)
        if node.op in ("Conv", "Pad", "MaxPool", "AveragePool"):
            return Reading(2, 0)
    return Reading(1, 0)
