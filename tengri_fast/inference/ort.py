"""ONNX Runtime behind the same face as the native engine.

Two kinds of graph stream: one with states as inputs and outputs is stepped, its states fed back; one that takes a
window is given the last `window` rows again at each step, which is exact for a window but costs T steps.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import InferenceFailed, MissingExtraError, ModelLoadingError
from tengri_fast.inference.graph import Signature, signature
from tengri_fast.inference.onnx_reader import ValueInfo, read_source

__all__ = ["OrtModel", "OrtSession"]

FloatArray = npt.NDArray[np.float32]


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
    return options


def _size(info: ValueInfo, axis: int) -> int | None:
    size = (info.shape or [None])[axis]
    return size if isinstance(size, int) and size > 0 else None


class OrtModel:
    """An ONNX model run by ONNX Runtime on one thread.

    Made by :meth:`from_onnx`; the attributes are those of :class:`tengri_fast.inference.Model`, with `kind` ("state",
    "window" or "row"), `window` and, in `declined`, why the native engine did not take the model.
    """

    backend = "onnxruntime"

    def __init__(
        self, runtime: Any, described: Signature, sha256: str, window: int | None, declined: str | None
    ) -> None:
        self._runtime = runtime
        self.kind = described.kind
        self.inputs = described.inputs
        self.outputs = described.outputs
        self.sha256 = sha256
        self.declined = declined
        x = self.inputs[0]
        width = _size(x, -1)
        if width is None:
            raise ModelLoadingError(f"input `{x.name}`: the number of features must be fixed, was open")
        self.input_size: int = width
        self.time_axis = described.time_axis
        self.batch = _size(x, 1 - self.time_axis) or 1 if self.kind == "window" else _size(x, 0) or 1
        self.window = self._window(window)
        try:
            probe = self._probe()
        except InferenceFailed as error:
            raise ModelLoadingError(f"the model cannot be run row by row: {error}") from error
        self.output_size: int = int(probe.shape[-1])

    @staticmethod
    def from_onnx(
        source: str | os.PathLike[str] | bytes, *, window: int | None = None, declined: str | None = None
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
        try:
            loaded = runtime.InferenceSession(data, session_options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise ModelLoadingError(f"ONNX Runtime refuses the model: {str(error).splitlines()[0]}") from error
        return OrtModel(loaded, described, hashlib.sha256(data).hexdigest(), window, declined)

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

    def fixed_steps(self) -> int | None:
        """Length of the time axis where the graph fixes it."""
        return _size(self.inputs[0], self.time_axis) if self.kind == "window" else None

    def _states(self) -> list[FloatArray]:
        return [np.zeros([d if isinstance(d, int) and d > 0 else 1 for d in s.shape or ()], np.float32)
                for s in self.inputs[1:]]  # fmt: skip

    def _shaped(self, rows: FloatArray) -> FloatArray:
        """Rows [T, F] as the first input wants them; a fixed batch gets the same rows in every entry."""
        shape = self.inputs[0].shape or []
        if self.kind == "window":
            batch_axis = 1 - self.time_axis
            return np.ascontiguousarray(np.repeat(np.expand_dims(rows, batch_axis), self.batch, axis=batch_axis))
        row = np.broadcast_to(rows[-1], (self.batch, self.input_size))
        return np.ascontiguousarray(row.reshape((self.batch, 1, -1) if len(shape) == 3 else (self.batch, -1)))

    def _probe(self) -> FloatArray:
        rows = np.zeros((max(self.window, 1), self.input_size), np.float32)
        return self.run(rows, self._states())[0]

    def run(self, rows: FloatArray, states: list[FloatArray]) -> list[FloatArray]:
        """One call: rows [T, F] and states in; output rows and next states out.

        Raises
        ------
        InferenceFailed
            If ONNX Runtime fails.
        """
        feed = {self.inputs[0].name: self._shaped(rows)}
        feed.update({info.name: state for info, state in zip(self.inputs[1:], states, strict=True)})
        try:
            results = self._runtime.run(None, feed)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise InferenceFailed(f"ONNX Runtime: {str(error).splitlines()[0]}") from error
        y = np.asarray(results[0], np.float32)
        if y.ndim > 1:  # [batch, outputs], [batch, time, outputs] or [time, batch, outputs]
            y = y[:, 0] if y.ndim == 3 and self.time_axis == 0 else y[0]
        return [y.reshape(-1, y.shape[-1]), *results[1:]]

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

    For a graph with a fixed window the output is NaN until that many rows were seen; with an open time axis the first
    answers use the rows there are.
    """

    def __init__(self, model: OrtModel) -> None:
        self.model = model
        self.input: FloatArray = np.zeros(model.input_size, np.float32)
        self.output: FloatArray = np.zeros(model.output_size, np.float32)
        self._rows: deque[FloatArray] = deque(maxlen=model.window)
        self._states: list[FloatArray] = model._states()

    def finish(self, x: npt.ArrayLike | None = None) -> FloatArray:
        """One step; the state moves here, as ONNX Runtime knows no split. Returns :attr:`output`."""
        if x is not None:
            row = np.asarray(x, np.float32)
            if row.shape != self.input.shape:
                raise InferenceFailed(f"`x` must have shape [{self.input.size}], had {list(row.shape)}")
            self.input[...] = row
        self._rows.append(self.input.copy())
        if self.model.fixed_steps() is not None and len(self._rows) < self.model.window:
            self.output[...] = np.nan
            return self.output
        y, *self._states = self.model.run(np.stack(self._rows), self._states)
        self.output[...] = y[-1]
        return self.output

    def prepare(self) -> None:
        """Nothing is left to do: the whole step is in :meth:`finish`."""

    def step(self, x: npt.ArrayLike | None = None) -> FloatArray:
        """One step; returns a copy of the output."""
        return self.finish(x).copy()

    def reset(self) -> None:
        """Back to zero state."""
        self._rows.clear()
        self._states = self.model._states()
        self.input[...] = 0
        self.output[...] = 0

    def copy(self) -> OrtSession:
        """An independent session in the same state."""
        other = OrtSession(self.model)
        other.input[...] = self.input
        other.output[...] = self.output
        other._rows.extend(row.copy() for row in self._rows)
        other._states = [state.copy() for state in self._states]
        return other

    def __reduce__(self) -> Any:
        raise TypeError("an OrtSession cannot be pickled")
