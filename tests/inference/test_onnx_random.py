"""Random networks written with the onnx package's helper, read back, and compared with ONNX Runtime on the same
file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inference import network_reference

from tengri_fast.inference.graph import read_network

onnx = pytest.importorskip("onnx", reason="the graphs are written with the onnx package")
runtime = pytest.importorskip("onnxruntime", reason="the oracle")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto


class Builder:
    """A graph over x [B, T, F]; every method adds a layer to a value of that form and returns the new one."""

    def __init__(self, rng: np.random.Generator, features: int, steps: int, *, fixed: bool) -> None:
        self.rng, self.steps, self.fixed = rng, steps, fixed
        self.nodes: list[Any] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.kinds: list[str] = []
        self.features = features
        self.count = 0

    def constant(self, values: Any) -> str:
        name = f"k{len(self.tensors)}"
        self.tensors[name] = np.asarray(values)
        return name

    def weights(self, *shape: int) -> str:
        return self.constant((self.rng.standard_normal(shape) * 0.4).astype(np.float32))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"v{self.count}_{i}" for i in range(outputs)]
        self.count += 1
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"n{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def dense(self, x: str, i: int, o: int) -> str:
        z = self.op("MatMul", x, self.weights(i, o))
        y = self.op("Add", self.weights(o), z) if self.rng.random() < 0.8 else z
        match self.rng.integers(6):
            case 0:
                return self.op("Relu", y)
            case 1:
                return self.op("Tanh", y)
            case 2:
                return self.op("Mul", self.op("Sigmoid", y), y)
            case 3:
                half = self.constant(np.float32(0.5))
                erf = self.op("Erf", self.op("Div", y, self.constant(np.float32(2.0**0.5))))
                return self.op("Mul", self.op("Mul", y, self.op("Add", erf, self.constant(np.float32(1)))), half)
            case 4:
                return self.op("LeakyRelu", y, alpha=0.25)
        return y

    def recurrent(self, x: str, i: int, o: int, kind: str) -> str:
        gates = 4 if kind == "LSTM" else 3
        moved = self.op("Transpose", x, perm=[1, 0, 2])
        extra = {} if kind == "LSTM" else {"linear_before_reset": int(self.rng.integers(2))}
        y = self.op(kind, moved, self.weights(1, gates * o, i), self.weights(1, gates * o, o), self.weights(1,
            2 * gates * o),
                    outputs=2, hidden_size=o, **extra)[0]  # fmt: skip
        y = self.op("Squeeze", y, self.constant(np.array([1])))
        return self.op("Transpose", y, perm=[1, 0, 2])

    def conv(self, x: str, i: int, o: int) -> str:
        k, d = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 4))
        groups = int(self.rng.choice([g for g in (1, 2, 3, 4) if i % g == 0 and o % g == 0]))
        w, b, reach = self.weights(o, i // groups, k), self.weights(o), (k - 1) * d
        y = self.op("Transpose", x, perm=[0, 2, 1])
        match self.rng.integers(3):
            case 0:
                y = self.op("Pad", y, self.constant(np.array([0, 0, reach, 0, 0, 0])))
                y = self.op("Conv", y, w, b, dilations=[d], group=groups)
            case 1:
                y = self.op("Conv", y, w, b, dilations=[d], group=groups, pads=[reach, 0])
            case _:
                y = self.op("Conv", y, w, b, dilations=[d], group=groups, pads=[reach, reach])
                end = self.constant(np.array([-reach if reach else np.iinfo(np.int64).max]))
                y = self.op("Slice", y, self.constant(np.array([0])), end, self.constant(np.array([2])))
        return self.op("Transpose", y, perm=[0, 2, 1])

    def norm(self, x: str, i: int) -> str:
        minus_one, epsilon = self.constant(np.array([-1])), self.constant(np.float32(1e-3))
        gain = self.weights(i)
        match self.rng.integers(3):
            case 0:
                return self.op("LayerNormalization", x, gain, self.weights(i), axis=-1, epsilon=1e-3)
            case 1:
                c = self.op("Sub", x, self.op("ReduceMean", x, minus_one))
                v = self.op("ReduceMean", self.op("Pow", c, self.constant(np.float32(2))), minus_one)
                y = self.op("Div", c, self.op("Sqrt", self.op("Add", v, epsilon)))
                return self.op("Add", self.op("Mul", y, gain), self.weights(i))
            case _:
                v = self.op("ReduceMean", self.op("Mul", x, x), minus_one)
                y = self.op("Mul", x, self.op("Reciprocal", self.op("Sqrt", self.op("Add", v, epsilon))))
                return self.op("Mul", gain, y)

    def gate(self, x: str, i: int, o: int) -> str:
        z = self.op("MatMul", x, self.weights(i, 2 * o))
        a, b = self.op("Split", z, self.constant(np.array([o, o])), outputs=2, axis=-1)
        return self.op("Mul", self.op("Tanh", a), self.op("Sigmoid", b))

    def pool(self, x: str) -> str:
        k = int(self.rng.integers(2, 5))
        y = self.op("Transpose", x, perm=[0, 2, 1])
        if self.rng.integers(2):
            y = self.op("MaxPool", y, kernel_shape=[k], pads=[k - 1, 0])
        else:
            y = self.op(
                "AveragePool", y, kernel_shape=[k], pads=[k - 1, 0], count_include_pad=int(self.rng.integers(2))
            )
        return self.op("Transpose", y, perm=[0, 2, 1])

    def attention(self, x: str, i: int) -> str:
        heads, dim = int(self.rng.integers(1, 4)), int(self.rng.integers(2, 5))
        window = int(self.rng.integers(1, self.steps if self.fixed else 6))
        shape = self.constant(np.array([0, 0, heads, dim]))
        q, k, v = (
            self.op(
                "Transpose", self.op("Reshape", self.op("MatMul", x, self.weights(i, heads * dim)), shape), perm=perm
            )
            for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = self.op("Mul", self.op("MatMul", q, k), self.constant(np.float32(0.7)))
        if self.fixed:
            age = np.arange(self.steps)[:, None] - np.arange(self.steps)
            keep = (age >= 0) & (age < window)
            scores = self.op("Add", scores, self.constant(np.where(keep, 0, -1e9).astype(np.float32)))
        else:
            t = self.op("Squeeze", self.op("Slice", self.op("Shape", x), *(self.constant(np.array([n])) for n in (1,
                2))),
                        self.constant(np.array([0])))  # fmt: skip
            i64 = lambda n: self.constant(np.array(n))  # noqa: E731
            r = self.op("Range", i64(0), t, i64(1))
            age = self.op("Sub", self.op("Unsqueeze", r, i64([1])), self.op("Unsqueeze", r, i64([0])))
            keep = self.op("And", self.op("GreaterOrEqual", age, i64(0)), self.op("Less", age, i64(window)))
            scores = self.op("Where", keep, scores, self.constant(np.float32(-np.inf)))
        y = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        return self.op(
            "Reshape", self.op("Transpose", y, perm=[0, 2, 1, 3]), self.constant(np.array([0, 0, heads * dim]))
        )

    def bytes(self, y: str, last: bool) -> bytes:
        if last:
            y = self.op("Gather", y, self.constant(np.array(-1)), axis=1)
        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        shape = ["batch", self.steps if self.fixed else "steps", self.features]
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(v, k) for k, v in self.tensors.items()],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        return model.SerializeToString()


LAYERS = ("dense", "lstm", "gru", "conv", "norm", "gate", "pool", "attention", "residual", "join", "cut")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    layers=st.lists(st.sampled_from(LAYERS), min_size=1, max_size=6),
    fixed=st.booleans(),
    last=st.booleans(),
)
def test_random_networks(seed: int, layers: list[str], fixed: bool, last: bool) -> None:
    rng = np.random.default_rng(seed)
    steps, width = int(rng.integers(8, 16)), int(rng.integers(2, 6))
    builder = Builder(rng, width, steps, fixed=fixed)
    x, size = builder.dense("x", width, 6), 6
    rows_so_far = [("x", width)]
    for layer in layers:
        rows_so_far.append((x, size))
        out = int(rng.choice([4, 6]))
        if layer == "dense":
            x, size = builder.dense(x, size, out), out
        elif layer in ("lstm", "gru"):
            x, size = builder.recurrent(x, size, out, layer.upper()), out
        elif layer == "conv":
            x, size = builder.conv(x, size, out), out
        elif layer == "norm":
            x = builder.norm(x, size)
        elif layer == "gate":
            x, size = builder.gate(x, size, out), out
        elif layer == "pool":
            x = builder.pool(x)
        elif layer == "attention":
            y = builder.attention(x, size)
            dims = builder.tensors[builder.nodes[-1].input[1]][-1]
            x, size = builder.dense(y, int(dims), 6), 6
        elif layer == "residual":
            x = builder.op("Add", x, builder.dense(x, size, size))
        elif layer == "join":
            other, more = rows_so_far[int(rng.integers(len(rows_so_far)))]
            x = builder.op("Concat", x, other, axis=2)
            x, size = builder.dense(x, size + more, 6), 6
        else:
            x = builder.op("Slice", x, *(builder.constant(np.array([n])) for n in (1, size - 1, 2)))
            size -= 2
            x, size = builder.dense(x, size, 6), 6
    data = builder.bytes(x, last)
    network = read_network(data)
    assert network.output_mode == ("last" if last else "every")
    rows = rng.standard_normal((steps, width)).astype(np.float32)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    want = session.run(None, {"x": np.stack([rows, rows[::-1]])})[0][0]
    got = network_reference.run(network, rows)
    assert np.abs((got[-1] if last else got) - want).max() < 1e-4 * max(1.0, np.abs(want).max())
