"""From an ONNX file to a :class:`~tengri_fast.inference.network.Network`.

PyTorch writes one network in many ways: transposes for ``batch_first``, padding cut off again, masks computed from the
length, cells and norms in single operators. Matching patterns would break with the next exporter, so each node is
*evaluated* on concrete shapes, with tensors that know where each of their elements comes from (:mod:`.graph_values`).
Which axis of the input is time is found by trying: a reading under which every operator is causal and renews the same
row per step is the right one. An open time axis is given several lengths, which must lead to the same network.

What cannot be evaluated is named: node, operator, what was expected. It runs on ONNX Runtime instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.graph_lower import lower
from tengri_fast.inference.graph_states import States, clocks_of
from tengri_fast.inference.graph_values import LOST, NOWHERE, Array, Budget, Decline, Tensor, steps_of
from tengri_fast.inference.graph_walk import INSTEAD, Failure, Reading, Walk, readings
from tengri_fast.inference.network import Network
from tengri_fast.inference.onnx_reader import Graph, ValueInfo, parse

__all__ = ["Signature", "read_network", "signature"]

MIN_OPSET, MAX_OPSET = 9, 26
LENGTHS = (7, 40, 300, 1_100)
"""Lengths tried for an open time axis: longer ones only where a window or a kernel reaches over all of a shorter
one."""
_FLOATING = (1, 10, 11, 16)
"""ONNX types float32, float16, float64 and bfloat16."""
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

        with np.errstate(all="ignore"):  # constants of a damaged file may be anything
            found = read_canonical(data, graph)
        if found is not None:
            return found
    return _read(graph, window)[0]


def _check(graph: Graph, window: int | None) -> None:
    if not MIN_OPSET <= graph.opset <= MAX_OPSET:
        raise ModelLoadingError(f"ONNX operator set must be {MIN_OPSET} to {MAX_OPSET}, was {graph.opset}; {INSTEAD}")
    if window is not None and (isinstance(window, bool) or not isinstance(window, int | np.integer)):
        raise ModelLoadingError(f"`window` must be a whole number, was {window!r}")
    if window is not None and window < 1:
        raise ModelLoadingError(f"`window` must be >= 1, was {window}")
    if not graph.outputs:
        raise ModelLoadingError("ONNX file: the graph has no output; truncated?")
    if not graph.inputs:
        raise ModelLoadingError("ONNX file: the graph has no input; truncated?")
    known = {*graph.tensors, *(info.name for info in graph.inputs)}
    if len(known) < len(graph.tensors) + len(graph.inputs):
        raise ModelLoadingError("ONNX file: two inputs have the same name")
    for index, node in enumerate(graph.nodes):
        for name in filter(None, node.outputs):
            if name in known:
                raise ModelLoadingError(
                    f"{node.label(index)}: output `{name}` must have a name of its own, has another's"
                )
            known.add(name)


def _read(graph: Graph, window: int | None) -> tuple[Network, Reading]:
    """The network and the reading of the input's axes that made sense."""
    info = graph.inputs[0]
    if info.shape is None or not 2 <= len(info.shape) <= 4:
        raise ModelLoadingError(
            f"input `{info.name}`: expected a tensor of 2 to 4 axes with a known number of features; {INSTEAD}"
        )
    if info.type not in (0, *_FLOATING):
        raise ModelLoadingError(
            f"input `{info.name}`: expected a floating point type, was ONNX type {info.type}; {INSTEAD}"
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
    reason = str(failures[0][1])
    raise ModelLoadingError(reason if NOWHERE in reason else f"{reason}; {INSTEAD}") from failures[0][1]


def _with(graph: Graph, reading: Reading, window: int | None, budget: Budget, *, step: bool) -> Network:
    shape = graph.inputs[0].shape or []
    size = None if reading.time is None else shape[reading.time]
    wider = replace(reading, entries=reading.entries + 1)  # so that a slice of the batch is not all of it by chance
    if step or reading.time is None or (isinstance(size, int) and size > 0):
        found = _once(graph, reading, 1, window, budget, open_=False).network
        if not step and reading.batch is not None and not isinstance(shape[reading.batch], int):
            other = _once(graph, wider, 1, window, budget, open_=False).network
            if found.sha256() != other.sha256():
                raise Failure("the network depends on the size of the batch", len(graph.nodes))
        return found
    failure: Failure | None = None
    refused: Failure | None = None
    for length in LENGTHS:
        try:
            first = _once(graph, reading, length, window, budget, open_=True)
        except Failure as error:
            if failure is None or error.index >= failure.index:
                failure = error
            if error.short:
                continue
            raise refused or failure from None
        second = _once(graph, wider, length + MORE, window, budget, open_=True)
        if first.network.sha256() != second.network.sha256():
            raise Failure("the network depends on the length of the window", len(graph.nodes))
        if first.assumed:
            try:
                _confirm(graph, reading, first, window, budget)
            except Failure as error:  # a longer input may show a window of the graph's own
                refused = refused or error
                continue
        return first.network
    ended = refused or failure
    assert ended is not None
    raise ended


def _confirm(graph: Graph, reading: Reading, found: _Found, window: int | None, budget: Budget) -> None:
    """Evaluates over the whole window that was assumed and, if the graph goes on, a little more.

    Where all rows of a short input were attended to or pooled over, a mask that ends or bends beyond them has not
    shown itself yet. One entry of the batch is enough: that entries stay apart is known by now.
    """
    network = found.network
    steps = found.assumed + MORE
    if network.max_steps:
        steps = min(steps, network.max_steps)
    try:
        longest = _once(graph, replace(reading, entries=1), steps, window, budget, open_=True).network
    except Failure as failure:
        reason = f"over {steps} steps, for a window of {found.assumed}: {failure}"
        if "elements" in str(failure):
            reason += "; say a shorter `window`"
        raise Failure(reason, failure.index) from failure
    if longest.sha256() != network.sha256():
        raise Failure(
            f"expected all rows of a window of {found.assumed} to be treated as those of a shorter one are, was not so "
            f"over {steps} steps",
            len(graph.nodes),
        )


@dataclass(frozen=True)
class _Found:
    network: Network
    assumed: int
    """The longest window that the graph left open and `window` or a table of positions decided; 0: none."""


def _once(graph: Graph, reading: Reading, steps: int, window: int | None, budget: Budget, *, open_: bool) -> _Found:
    """One evaluation; for a step with a clock (a count of rows seen) one when it stands, confirmed by earlier ones."""
    try:
        clocks = clocks_of(graph, reading, budget) if len(graph.inputs) > 1 else []
    except Decline as decline:
        raise Failure(str(decline), len(graph.nodes)) from decline
    if not clocks:
        return _network(*_settled(Walk(graph, reading, steps, budget, open=open_)), window)
    last = len(clocks) - 1
    final, states = _settled(Walk(graph, reading, steps, budget, clocks=clocks[last], now=last))
    found = _network(final, states, window)
    for now in sorted({0, min(1, last), last // 2}):
        early = _settled(Walk(graph, reading, steps, budget, clocks=clocks[now], now=now, known=final.masks))
        if _network(*early, window).network.sha256() != found.network.sha256():
            raise Failure("the network depends on the number of steps since reset", len(graph.nodes))
    return found


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


def _network(walk: Walk, states: States, window: int | None) -> _Found:
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
        network = Network(
            tuple(lowered.nodes), walk.builder.operations[0].width, lowered.output, modes.pop(),
            outputs if len(outputs) > 1 else (), {k: v for k, v in metadata.items() if k not in _WRITTEN},
        )  # fmt: skip
        return _Found(network, lowered.assumed)
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
    if len(entries) != walk.entries:
        raise Decline(f"output `{name}`: expected every entry of the batch, found {len(entries)} of {walk.entries}")
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
    last_only: bool = False
    """Whether a window is known to give one answer, at its end; an axis of its length is one of features then."""

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
        if self.kind == "window" and steps > 1 and not self.last_only:
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
        network, reading = _read(graph, 64)
        last_only = network.output_mode == "last"
    except ModelLoadingError:
        reading = _guess(graph)
        last_only = _ends(inputs[0], outputs[0], reading)
    if reading.time is None:
        return Signature("row", inputs, outputs)
    return Signature("window", inputs, outputs, reading.time, reading.batch, last_only)


def _ends(info: ValueInfo, result: ValueInfo, reading: Reading) -> bool:
    """Whether an output is said to have no axis of steps, where that of the input is open.

    Exporters bake lengths in and still promise open ones, so another number there is no proof, but 1 is.
    """
    if reading.time is None or info.shape is None or isinstance(info.shape[reading.time], int) or not result.shape:
        return False
    batch = None if reading.batch is None else info.shape[reading.batch]
    if any(not isinstance(size, int) and (size is None or size != batch) for size in result.shape):
        return False
    return len(result.shape) < len(info.shape) or result.shape[reading.time] == 1 or result.shape[reading.time] == batch


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
