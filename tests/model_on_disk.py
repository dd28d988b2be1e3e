"""A small model on disk: ``model.toml``, ONNX weights and golden outputs, all made without the code under test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

FEATURES = ("spread()", "imbalance()", "mid_return(lag=3)", "signed_trade_flow(window='1s')")


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def write_model(
    folder: Path,
    features: Sequence[str] = FEATURES,
    clock: str = "quote",
    hidden: int = 4,
    layers: int = 1,
    seed: int = 7,
    gain: float = 1.0,
    returns: tuple[float, float, float] = (-20.0, 0.0, 20.0),
    extra: str = "",
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Path:
    """Write ``model.toml``, the ONNX file and golden outputs of a random LSTM; returns the path of the TOML.

    The golden outputs come from a float64 LSTM written here with NumPy, not from the code under test.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    width = len(features)
    sizes = [width] + [hidden] * layers
    weights = [
        (
            rng.normal(0, 0.6, (4 * hidden, sizes[i])).astype(np.float32),
            rng.normal(0, 0.3, (4 * hidden, hidden)).astype(np.float32),
            rng.normal(0, 0.1, 8 * hidden).astype(np.float32),
        )
        for i in range(layers)
    ]
    dense_w = (gain * rng.normal(0, 1.0, (3, hidden))).astype(np.float32)
    dense_b = np.asarray(tilt, np.float32)

    (folder / "model.onnx").write_bytes(_onnx_bytes(weights, dense_w, dense_b, width, hidden))
    x = rng.normal(0, 1, (40, width)).astype(np.float32)
    np.savez(folder / "golden.npz", x=x, y=_reference(weights, dense_w, dense_b, x))
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    listed = ", ".join(f'"{text}"' for text in features)
    (folder / "model.toml").write_text(
        f"""id = "tiny"
type = "LSTM"
onnx = "model.onnx"
sha256 = "{digest}"
{extra}
[inputs]
features = [{listed}]
clock = "{clock}"

[normalisation]
mean = {[0.0] * width}
scale = {[1.0] * width}
clip = 10.0

[outputs]
kind = "logits"
horizon = "10 events"
class_returns_bps = {list(returns)}

[golden]
path = "golden.npz"
tolerance = 1e-4
""",
        encoding="utf-8",
    )
    return folder / "model.toml"


def _reference(weights: Any, dense_w: np.ndarray, dense_b: np.ndarray, x: np.ndarray) -> np.ndarray:
    rows = x.astype(np.float64)
    for w, r, b in weights:
        hidden = r.shape[1]
        h, c, out = np.zeros(hidden), np.zeros(hidden), []
        bias = b[: 4 * hidden].astype(np.float64) + b[4 * hidden :]
        for row in rows:
            i, f, g, o = np.split(w.astype(np.float64) @ row + r.astype(np.float64) @ h + bias, 4)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
            out.append(h)
        rows = np.array(out)
    return rows @ dense_w.T.astype(np.float64) + dense_b


def _onnx_bytes(weights: Any, dense_w: np.ndarray, dense_b: np.ndarray, width: int, hidden: int) -> bytes:
    """LSTM layers, time first, then a dense layer on each step, as PyTorch's exporter arranges them."""

    def gates(a: np.ndarray) -> np.ndarray:
        i, f, g, o = np.split(a, 4)
        return np.concatenate([i, o, f, g])  # ONNX orders i, o, f, c

    helper, tensors, nodes, last = onnx.helper, [], [], "x"
    for n, (w, r, b) in enumerate(weights):
        both = np.concatenate([gates(b[: 4 * hidden]), gates(b[4 * hidden :])])
        for name, value in ((f"w{n}", gates(w)[None]), (f"r{n}", gates(r)[None]), (f"b{n}", both[None])):
            tensors.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        nodes.append(helper.make_node("LSTM", [last, f"w{n}", f"r{n}", f"b{n}"], [f"h{n}"], hidden_size=hidden))
        nodes.append(helper.make_node("Squeeze", [f"h{n}", "axis"], [f"s{n}"]))
        last = f"s{n}"
    tensors.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "axis"))
    tensors.append(onnx.numpy_helper.from_array(np.ascontiguousarray(dense_w.T), "dense_w"))
    tensors.append(onnx.numpy_helper.from_array(dense_b, "dense_b"))
    nodes.append(helper.make_node("MatMul", [last, "dense_w"], ["product"]))
    nodes.append(helper.make_node("Add", ["product", "dense_b"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["T", 1, width])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["T", 1, 3])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
