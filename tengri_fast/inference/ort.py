"""ONNX Runtime behind the same face as the native engine: the door for any graph that the native engine declines.

Three kinds of graph stream. One with states as inputs and outputs is stepped, its states fed back: two sets of state
buffers are bound in turn, so no state is copied. One that takes a single row keeps nothing. One that takes a window is
given the last `window` rows again at each step, which is exact for a window but costs T steps.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import InferenceFailed, MissingExtraError, ModelLoadingError
from tengri_fast.inference.graph import Signature, signature
from tengri_fast.inference.onnx_reader import ValueInfo, parse, read_source

__all__ = ["OrtModel", "OrtSession", "session_options"]

FloatArray = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]
MAGIC = b"TGORTSS1"
TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "running a model on ONNX Runtime") from error
    return onnxruntime


def session_options() -> Any:
    """Options that give the lowest latency at batch 1: one thread, sequential, all graph optimisations, no spinning."""
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Else a product of float rows with int8 weights (int8a16) is taken with the rows rounded to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    return options


def default_disabled(data: bytes) -> tuple[str, ...]:
    """Optimisers that are off unless the caller says otherwise.

    In a graph with QuantizeLinear, fusing MatMul and Add first makes a float Gemm of what could run on integers; on a
    quantised LSTM cell that costs four times the time. WeightBiasQuantization rounds the float biases of quantised
    layers to a multiple of the product of their scales, which moves answers by a quantum, and gains no time.
    """
    quantised = any(node.op == "QuantizeLinear" for node in parse(data).nodes)
    return ("MatMulAddFusion", "WeightBiasQuantization") if quantised else ()


def _size(info: ValueInfo, axis: int) -> int | None:
    shape = info.shape or []
    if not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) and size > 0 else None


def _shape(info: ValueInfo) -> list[int]:
    """The shape with open axes as 1."""
    return [d if isinstance(d, int) and d > 0 else 1 for d in info.shape or ()]


class OrtModel:
    """An ONNX model run by ONNX Runtime on one thread.

    Made by :meth:`from_onnx`; the attributes are those of :class:`tengri_fast.inference.Model`, with `kind` ("state",
    "window" or "row"), `window`, `disabled_optimizers` and, in `declined`, why the native engine did not take it.
    """

    backend = "onnxruntime"

    def __init__(
        self,
        runtime: Any,
        described: Signature,
        sha256: str,
        window: int | None,
        declined: str | None,
        disabled_optimizers: tuple[str, ...] = (),
    ) -> None:
        self._runtime = runtime
        self.kind = described.kind
        self.inputs = described.inputs
        self.results = described.outputs
        self.sha256 = sha256
        self.declined = declined
        self.disabled_optimizers = disabled_optimizers
        self.time_axis = described.time_axis
        batch_axis = described.batch_axis
        self._described = described
        self.input_size = self._width()
        rank = len(self.inputs[0].shape or ())
        self.batch = (_size(self.inputs[0], batch_axis) or 1) if batch_axis is not None and rank > 1 else 1
        self._types = self._input_types()
        self.window = self._window(window)
        try:
            self._probed = self._call(np.zeros((max(self.window, 1), self.input_size), np.float32), self._states())
        except InferenceFailed as error:
            hint = "" if self.window else " (on a window of one row; was `window` meant to be given?)"
            raise ModelLoadingError(f"the model cannot be run row by row{hint}: {error}") from error
        self.grows = self._grows()
        for info, result in zip(self.inputs[1:], self._probed[1:], strict=False):
            if list(result.shape) != _shape(info):
                raise ModelLoadingError(
                    f"state `{info.name}`: its next value must have shape {_shape(info)}, had {list(result.shape)}"
                )
        self.output_size: int = int(self._rows_of(self._probed[0], max(self.window, 1)).shape[-1])
        self.outputs = ((self.results[0].name, self.output_size),)
        self.binds = self.window > 0 and self._binds()

    @staticmethod
    def from_onnx(
        source: str | os.PathLike[str] | bytes,
        *,
        window: int | None = None,
        declined: str | None = None,
        disabled_optimizers: Sequence[str] | None = None,
    ) -> OrtModel:
        """Load a file or its bytes.

        Parameters
        ----------
        source : str, os.PathLike or bytes
            Path of an ONNX file, or its content.
        window : int, optional
            Rows that a session recomputes at each step; needed to stream a graph whose time axis is open.
        declined : str, optional
            Why another backend did not take the model.
        disabled_optimizers : sequence of str, optional
            Graph optimisers of ONNX Runtime to leave out. Default: ``MatMulAddFusion`` for a graph with QuantizeLinear,
            as that fusion puts int8 matrix products back into float; none for others.

        Raises
        ------
        ModelLoadingError
            If ONNX Runtime refuses the file, or its inputs cannot be driven row by row.
        MissingExtraError
            If onnxruntime is not installed.
        """
        runtime = _runtime()
        data = read_source(source)
        described = signature(data)
        if isinstance(disabled_optimizers, str):
            disabled_optimizers = (disabled_optimizers,)
        disabled = default_disabled(data) if disabled_optimizers is None else tuple(disabled_optimizers)
        try:
            loaded = runtime.InferenceSession(
                data, session_options(), providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
            )
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelLoadingError(f"ONNX Runtime refuses the model: {str(error).splitlines()[0]}") from error
        return OrtModel(loaded, described, hashlib.sha256(data).hexdigest(), window, declined, disabled)

    def _input_types(self) -> list[Any]:
        found = {entry.name: entry.type for entry in self._runtime.get_inputs()}
        for info in self.inputs:
            if found.get(info.name) not in TYPES:
                raise ModelLoadingError(
                    f"input `{info.name}` must be one of {', '.join(TYPES)}, was {found.get(info.name, 'missing')}"
                )
        return [TYPES[found[info.name]] for info in self.inputs]

    def _window(self, window: int | None) -> int:
        if self.kind != "window":
            return 1
        fixed = self.fixed_steps()
        if fixed is not None and window is not None and window != fixed:
            raise ModelLoadingError(f"`window` must be {fixed}, the time axis of the graph, was {window}")
        found = fixed if fixed is not None else window
        if found is not None and found < 1:
            raise ModelLoadingError(f"`window` must be >= 1, was {found}")
        return found or 0

    def _grows(self) -> bool:
        """Whether the graph also runs on fewer rows than the window; some promise an open axis and have baked it in."""
        if self.kind != "window" or self.fixed_steps() is not None:
            return False
        try:
            self._call(np.zeros((1, self.input_size), np.float32), [])
        except InferenceFailed:
            return False
        return True

    def _binds(self) -> bool:
        """Whether outputs can be bound; not where a graph declares another shape than it yields."""
        self.binds = True
        try:
            OrtSession(self).finish_bound()
        except InferenceFailed:
            return False
        return True

    def fixed_steps(self) -> int | None:
        """Length of the time axis where the graph fixes it."""
        return _size(self.inputs[0], self.time_axis) if self.kind == "window" else None

    def _states(self) -> list[AnyArray]:
        return [np.zeros(_shape(info), type_) for info, type_ in zip(self.inputs[1:], self._types[1:], strict=True)]

    def _width(self) -> int:
        """Number of features: the product of all axes but time and batch."""
        info, width = self.inputs[0], 1
        rank = len(info.shape or ())
        timed = self.kind == "window" or (self.kind == "state" and rank > 2)
        skipped = {self._described.batch_axis} if rank > 1 else set()
        for axis in range(rank):
            if axis in skipped or (timed and axis == self.time_axis):
                continue
            size = _size(info, axis)
            if size is None:
                raise ModelLoadingError(f"input `{info.name}`: the number of features must be fixed, was open")
            width *= size
        return width

    def _order(self, steps: int) -> npt.NDArray[np.intp]:
        """Where each element of the first input comes from in rows [steps, features], flattened."""
        if steps * self.input_size > 1 << 24:  # beyond that a float32 does not count exactly
            raise ModelLoadingError(f"`window` times features must be at most 2**24, was {steps * self.input_size}")
        count = np.arange(steps * self.input_size).reshape(steps, self.input_size)
        if len(self.inputs[0].shape or ()) < 2:
            return np.arange(self.input_size)
        try:
            order: npt.NDArray[np.intp] = self._described.feed(count, self.batch).astype(np.intp)
        except (ValueError, IndexError) as error:
            raise ModelLoadingError(f"input `{self.inputs[0].name}` cannot be fed row by row: {error}") from error
        return order

    def _rows_of(self, y: AnyArray, steps: int) -> AnyArray:
        """The answers of the first batch entry: [steps, outputs], or [1, outputs] for the last one only."""
        batched = self._described.batch_axis is not None and len(self.inputs[0].shape or ()) > 1
        if y.ndim < 2 + batched:  # no axis is left for time
            return (y[0] if batched and y.ndim else y).reshape(1, -1)
        return self._described.rows(y, steps)

    def _call(self, rows: AnyArray, states: list[AnyArray]) -> list[AnyArray]:
        x = rows.reshape(-1)[self._order(len(rows))].astype(self._types[0], copy=False)
        feed = {self.inputs[0].name: x}
        feed.update({info.name: state for info, state in zip(self.inputs[1:], states, strict=True)})
        try:
            results = self._runtime.run([info.name for info in self.results], feed)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise InferenceFailed(f"ONNX Runtime: {str(error).splitlines()[0]}") from error
        return [np.asarray(result) for result in results]

    def run(self, rows: FloatArray, states: list[AnyArray]) -> list[AnyArray]:
        """One call: rows [T, F] and states in; output rows and next states out.

        Raises
        ------
        InferenceFailed
            If ONNX Runtime fails.
        """
        y, *states = self._call(rows, states)
        return [self._rows_of(y, len(rows)).astype(np.float32), *states]

    def run_window(self, x: npt.ArrayLike) -> FloatArray:
        """Outputs over a window from zero state.

        Parameters
        ----------
        x : array_like, shape [T, input_size]
            Rows in time order.

        Returns
        -------
        numpy.ndarray of float32, shape [T, output_size] or [1, output_size]
            One row per step if the graph gives that, else the last one.
        """
        rows = np.ascontiguousarray(x, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.input_size or not len(rows):
            raise InferenceFailed(f"`x` must have shape [T, {self.input_size}] with T >= 1, had {list(rows.shape)}")
        if self.kind == "window":
            if self.fixed_steps() not in (None, len(rows)):
                raise InferenceFailed(f"`x` must have {self.window} rows, had {len(rows)}")
            return self.run(rows, [])[0]
        states = self._states()
        out = []
        for row in rows:
            y, *states = self.run(row[None], states)
            out.append(y[-1])
        return np.stack(out)

    def session(self) -> OrtSession:
        """A new session in zero state.

        Raises
        ------
        InferenceFailed
            If the graph takes a window of open length and no `window` was given.
        """
        if self.window == 0:
            raise InferenceFailed("`window` must be given to stream a graph whose time axis is open, was None")
        return OrtSession(self)

    def __repr__(self) -> str:
        return f"<OrtModel {self.input_size} -> {self.output_size}, {self.kind}, {self.sha256[:12]}>"

    def __reduce__(self) -> Any:
        raise TypeError("an OrtModel cannot be pickled: keep its ONNX file")


class OrtSession:
    """Streaming on ONNX Runtime; see :class:`tengri_fast.inference.Session` for the methods.

    All buffers are bound once; a step is one call. For a graph that runs on a full window only, the output is NaN until
    that many rows were seen; with an open time axis the first answers use the rows there are.
    """

    def __init__(self, model: OrtModel) -> None:
        self.model = model
        self.input: FloatArray = np.zeros(model.input_size, np.float32)
        self.output: FloatArray = np.zeros(model.output_size, np.float32)
        self._rows: FloatArray = np.zeros((model.window, model.input_size), np.float32)
        self._seen = 0
        self._order = model._order(model.window)
        self._x = np.zeros(self._order.shape, model._types[0])
        self._states = (model._states(), model._states())  # one is read while the other is written
        self._results: list[AnyArray] = [np.zeros_like(result) for result in model._probed]
        self._turn = 0
        self._bindings = [self._bind(turn) for turn in range(2 if len(model.inputs) > 1 else 1)] if model.binds else []
        # Where the newest answer stands in the first output, flattened.
        places = np.arange(self._results[0].size).reshape(self._results[0].shape)
        self._places: npt.NDArray[np.intp] = model._rows_of(places, model.window)[-1]
        self._answer = self._results[0].reshape(-1)

    def _bind(self, turn: int) -> Any:
        model, binding = self.model, self.model._runtime.io_binding()
        for info, array in zip(model.inputs, [self._x, *self._states[turn]], strict=True):
            binding.bind_input(info.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        states = self._states[1 - turn]
        targets = [self._results[0], *states, *self._results[1 + len(states) :]]
        for info, array in zip(model.results, targets, strict=True):
            binding.bind_output(info.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        return binding

    def finish(self, x: npt.ArrayLike | None = None) -> FloatArray:
        """One step; the state moves here, as ONNX Runtime knows no split. Returns :attr:`output`."""
        if x is not None:
            row = np.asarray(x, np.float32)
            if row.shape != self.input.shape:
                raise InferenceFailed(f"`x` must have shape [{self.input.size}], had {list(row.shape)}")
            self.input[...] = row
        model, window = self.model, self.model.window
        if model.kind == "window":
            self._rows[:-1] = self._rows[1:]
            self._rows[-1] = self.input
            self._seen = min(self._seen + 1, window)
            if self._seen < window:
                if model.grows:
                    self.output[...] = model.run(self._rows[window - self._seen :], [])[0][-1]
                else:
                    self.output[...] = np.nan
                return self.output
            rows = self._rows
        else:
            rows = self.input[None]
        if model.binds:
            self._x[...] = rows.reshape(-1)[self._order]
            self.finish_bound()
        else:
            y, *states = model.run(rows, self._states[self._turn])
            for target, state in zip(self._states[self._turn], states, strict=False):
                target[...] = state
            self.output[...] = y[-1]
        return self.output

    def finish_bound(self) -> None:
        """Runs on the bound buffers as they stand."""
        try:
            self.model._runtime.run_with_iobinding(self._bindings[self._turn])
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise InferenceFailed(f"ONNX Runtime: {str(error).splitlines()[0]}") from error
        self._turn = (self._turn + 1) % len(self._bindings)
        self.output[...] = self._answer[self._places]

    def prepare(self) -> None:
        """Nothing is left to do: the whole step is in :meth:`finish`."""

    def step(self, x: npt.ArrayLike | None = None) -> FloatArray:
        """One step; returns a copy of the output."""
        return self.finish(x).copy()

    def reset(self) -> None:
        """Back to zero state."""
        for array in self._content():
            array[...] = 0
        self._seen = 0

    def copy(self) -> OrtSession:
        """An independent session in the same state."""
        other = OrtSession(self.model)
        for target, source in zip(other._content(), self._content(), strict=True):
            target[...] = source
        other._seen = self._seen
        return other

    def __copy__(self) -> OrtSession:
        return self.copy()

    def __deepcopy__(self, memo: object) -> OrtSession:
        return self.copy()

    def _content(self) -> list[AnyArray]:
        """What makes up the state: the states that the next step reads, the rows of the window, input and output."""
        return [*self._states[self._turn], self._rows, self.input, self.output]

    def to_bytes(self) -> bytes:
        """The state as bytes, bound to the model's file, with a SHA-256."""
        head = MAGIC + bytes.fromhex(self.model.sha256) + struct.pack("<Q", self._seen)
        body = head + b"".join(array.tobytes() for array in self._content())
        return body + hashlib.sha256(body).digest()

    def from_bytes(self, data: bytes) -> None:
        """Take over a state saved by :meth:`to_bytes`. On an error the state is unchanged.

        Raises
        ------
        InferenceFailed
            If the bytes are damaged, or of another model or window.
        """
        head = MAGIC + bytes.fromhex(self.model.sha256)
        content = self._content()
        size = len(head) + 8 + sum(array.nbytes for array in content)
        if len(data) != size + 32 or not data.startswith(head) or hashlib.sha256(data[:size]).digest() != data[size:]:
            raise InferenceFailed("`data` must be a session saved by this model, was damaged or of another")
        (seen,) = struct.unpack_from("<Q", data, len(head))
        if seen > self.model.window:
            raise InferenceFailed(f"`data` must hold at most {self.model.window} rows, held {seen}")
        at = len(head) + 8
        for array in content:
            array[...] = np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape)
            at += array.nbytes
        self._seen = seen

    def __reduce__(self) -> Any:
        raise TypeError("an OrtSession cannot be pickled: use to_bytes() and from_bytes()")
