"""The rivals as a careful user would run them: one thread, states kept, nothing recomputed, C interfaces if any.

ONNX Runtime and OpenVINO are driven through their C interfaces by two small programs (bench/rivals/*.c), compiled here
and loaded into this process, so that their steps and ours can be timed in turns; PyTorch lives in an interpreter of its
own (``TENGRI_TRAIN_PYTHON``) and is asked for a block of steps at a time. Each gets the input row for free and swaps
two sets of states instead of copying them.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tengri_fast.inference.network import Network

__all__ = ["Missing", "NativeRival", "Rival", "TorchRival", "fused_lstm", "onnxruntime", "openvino"]

SOURCES = Path(__file__).resolve().parent / "rivals"


class Missing(Exception):
    """A rival that cannot run here, and why."""


class Rival(Protocol):
    """What is timed."""

    def time(self, x: np.ndarray, count: int, evict: np.ndarray | None = None) -> np.ndarray:
        """Nanoseconds of `count` steps over the rows of `x` in turn; `evict` is read through before each."""

    def run(self, x: np.ndarray) -> np.ndarray:
        """Answers to rows, from where it stands: to see that it computes the same."""


@functools.cache
def _build(name: str, *flags: str) -> ctypes.CDLL:
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise Missing(f"no C compiler `{compiler}`")
    folder = tempfile.mkdtemp(prefix="tengri_rival_")
    target = Path(folder) / f"{name}.so"
    command = [compiler, "-O2", "-shared", "-fPIC", str(SOURCES / f"{name}.c"), "-o", str(target), *flags, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{name}.c does not compile here: {done.stderr.splitlines()[:1]}")
    library = ctypes.CDLL(str(target))
    library.rival_open.restype = ctypes.c_void_p
    library.rival_fault.restype = ctypes.c_char_p
    library.rival_x.restype = library.rival_y.restype = ctypes.POINTER(ctypes.c_float)
    for function in (library.rival_fault, library.rival_x, library.rival_y, library.rival_step):
        function.argtypes = [ctypes.c_void_p]
    return library


class NativeRival:
    """A step graph with explicit states, behind one of the C programs.

    Parameters
    ----------
    library : ctypes.CDLL
        From :func:`_build`.
    runtime : str
        Path of the runtime's own library, or "".
    graph : bytes
        ONNX; input i > 0 and output i are one state.
    optimise : int
        ONNX Runtime: graph optimisation level; OpenVINO: 1 allows bfloat16 arithmetic.
    """

    def __init__(self, library: ctypes.CDLL, runtime: str, graph: bytes, optimise: int) -> None:
        import onnx

        model = onnx.load_from_string(graph)
        inputs, outputs = list(model.graph.input), list(model.graph.output)
        if len(inputs) != len(outputs):
            raise Missing("the graph's states are not all returned")

        def dims(values: list[Any]) -> tuple[list[int], list[int]]:
            ranks, sizes = [], []
            for value in values:
                shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
                ranks.append(len(shape))
                sizes += shape
            return ranks, sizes

        def names(values: list[Any]) -> Any:
            return (ctypes.c_char_p * len(values))(*(value.name.encode() for value in values))

        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(graph)
            file.flush()
            (in_rank, in_dims), (out_rank, out_dims) = dims(inputs), dims(outputs)
            self.library = library
            self.handle = ctypes.c_void_p(
                library.rival_open(
                    runtime.encode(),
                    file.name.encode(),
                    len(inputs),
                    names(inputs),
                    names(outputs),
                    (ctypes.c_int32 * len(in_rank))(*in_rank),
                    (ctypes.c_int64 * len(in_dims))(*in_dims),
                    (ctypes.c_int32 * len(out_rank))(*out_rank),
                    (ctypes.c_int64 * len(out_dims))(*out_dims),
                    optimise,
                )
            )
        fault = library.rival_fault(self.handle).decode(errors="replace")
        if fault:
            raise Missing(fault)
        self.inputs = int(np.prod(in_dims[: in_rank[0]]))
        self.outputs = int(np.prod(out_dims[: out_rank[0]]))

    def time(self, x: np.ndarray, count: int, evict: np.ndarray | None = None) -> np.ndarray:
        times = np.empty(count)
        failed = self.library.rival_time(
            self.handle,
            x.ctypes.data_as(ctypes.c_void_p),
            len(x),
            x.shape[1],
            count,
            None if evict is None else evict.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_size_t(0 if evict is None else evict.nbytes),
            times.ctypes.data_as(ctypes.c_void_p),
        )
        if failed:
            raise Missing(self.library.rival_fault(self.handle).decode(errors="replace"))
        return times

    def run(self, x: np.ndarray) -> np.ndarray:
        row = np.ctypeslib.as_array(self.library.rival_x(self.handle), (self.inputs,))
        answer = np.ctypeslib.as_array(self.library.rival_y(self.handle), (self.outputs,))
        out = np.empty((len(x), self.outputs), np.float32)
        for t, values in enumerate(x):
            row[:] = values
            if self.library.rival_step(self.handle):
                raise Missing(self.library.rival_fault(self.handle).decode(errors="replace"))
            out[t] = answer
        return out


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise Missing(f"package `{name}` is not installed")
    return Path(spec.origin).parent


def onnxruntime(graph: bytes, disabled: tuple[str, ...] = ()) -> NativeRival:
    """ONNX Runtime, one thread, all graph optimisations but `disabled` (done ahead, through Python)."""
    folder = _package("onnxruntime") / "capi"
    found = sorted(folder.glob("libonnxruntime.so.*"))
    if not found:
        raise Missing("the onnxruntime wheel carries no libonnxruntime.so")
    level = 99
    if disabled:
        import onnxruntime as runtime

        with tempfile.TemporaryDirectory() as temporary:
            options = runtime.SessionOptions()
            options.optimized_model_filepath = str(Path(temporary) / "optimised.onnx")
            options.log_severity_level = 3
            runtime.InferenceSession(graph, options, ["CPUExecutionProvider"], disabled_optimizers=list(disabled))
            graph, level = Path(options.optimized_model_filepath).read_bytes(), 0
    return NativeRival(_build("ort_c"), str(found[-1]), graph, level)


def openvino(graph: bytes, *, bf16: bool = False) -> NativeRival:
    """OpenVINO on the CPU, one thread, latency hint."""
    folder = _package("openvino")
    found = sorted((folder / "libs").glob("libopenvino_c.so*"))
    if not found or not (folder / "include").is_dir():
        raise Missing("the openvino wheel carries no C interface")
    flags = (f"-I{folder / 'include'}", str(found[-1]), f"-Wl,-rpath,{folder / 'libs'}")
    return NativeRival(_build("openvino_c", *flags), "", graph, int(bf16))


def fused_lstm(network: Network) -> bytes:
    """A stack of LSTM layers and a dense head by ONNX's LSTM operator: one step with states, its fastest float form."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, states = [], [], []
    value, inputs = "x", network.input_size
    for i, layer in enumerate(network.layers[:-1]):
        hidden = layer.output_size
        order = [np.split(m, 4)[g] for m in (layer.w, layer.r, layer.bias) for g in (0, 3, 1, 2)]  # i, o, f, c
        w, r, b = (np.concatenate(order[4 * j : 4 * j + 4]) for j in range(3))
        bias = np.concatenate([b, np.zeros_like(b)])[None]
        tensors += [numpy_helper.from_array(a, f"{n}{i}") for a, n in ((w[None], "w"), (r[None], "r"), (bias, "b"))]
        made = [f"s{i}", f"h{i}_next", f"c{i}_next"]
        given = [value, f"w{i}", f"r{i}", f"b{i}", "", f"h{i}", f"c{i}"]
        nodes.append(helper.make_node("LSTM", given, made, hidden_size=hidden))
        nodes.append(helper.make_node("Squeeze", [f"s{i}", "one"], [f"q{i}"]))
        value = f"q{i}"
        states += [(f"h{i}", hidden), (f"c{i}", hidden)]
    head = network.layers[-1]
    tensors += [
        numpy_helper.from_array(np.array([1]), "one"),
        numpy_helper.from_array(head.w.T.copy(), "head"),
        numpy_helper.from_array(head.bias, "head_bias"),
    ]
    nodes += [helper.make_node("MatMul", [value, "head"], ["m"]), helper.make_node("Add", ["m", "head_bias"], ["y"])]

    def info(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, width))

    graph = helper.make_graph(
        nodes,
        "lstm",
        [info("x", inputs), *(info(name, width) for name, width in states)],
        [info("y", network.output_size), *(info(f"{name}_next", width) for name, width in states)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


class TorchRival:
    """PyTorch, traced and frozen, one thread, in the training interpreter."""

    def __init__(self, network: Network) -> None:
        python = os.environ.get("TENGRI_TRAIN_PYTHON", "")
        if not python or shutil.which(python) is None:
            raise Missing("TENGRI_TRAIN_PYTHON names no interpreter with torch")
        self.width, self.outputs = network.input_size, network.output_size
        self.process = subprocess.Popen(
            [python, "-I", str(SOURCES / "torch_worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        arrays: dict[str, np.ndarray] = {}
        nodes = []
        for i, node in enumerate(network.nodes):
            plain = {}
            for name in (entry.name for entry in fields(node.layer)):
                value = getattr(node.layer, name)
                if isinstance(value, np.ndarray):
                    arrays[f"{i}.{name}"] = value
                elif isinstance(value, int | float | str):
                    plain[name] = value
            nodes.append({"inputs": list(node.inputs), **plain})
        index = {name: (list(a.shape), int(a.size)) for name, a in arrays.items()}
        self._send({"nodes": nodes, "arrays": index, "input": self.width, "output": network.output})
        for array in arrays.values():
            self.process.stdin.write(np.ascontiguousarray(array, np.float32).tobytes())  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        if self.process.stdout.readline() != b"ready\n":  # type: ignore[union-attr]
            raise Missing("the torch worker did not start")

    def _send(self, message: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]

    def _read(self, count: int, dtype: type) -> np.ndarray:
        size = count * np.dtype(dtype).itemsize
        data = self.process.stdout.read(size)  # type: ignore[union-attr]
        if len(data) != size:
            raise Missing("the torch worker ended early")
        return np.frombuffer(data, dtype)

    def time(self, x: np.ndarray, count: int, evict: np.ndarray | None = None) -> np.ndarray:
        self._send({"time": count, "rows": len(x), "evict": 0 if evict is None else evict.nbytes})
        self.process.stdin.write(np.ascontiguousarray(x, np.float32).tobytes())  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self._read(count, np.float64)

    def run(self, x: np.ndarray) -> np.ndarray:
        self._send({"run": len(x)})
        self.process.stdin.write(np.ascontiguousarray(x, np.float32).tobytes())  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self._read(len(x) * self.outputs, np.float32).reshape(len(x), self.outputs)

    def close(self) -> None:
        """End the worker."""
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait(timeout=10)
