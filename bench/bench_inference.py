"""One step of an LSTM: ours by instruction set, ONNX Runtime, and PyTorch where it can be imported.

`critical` is what a trader waits for (finish), `step` is finish + prepare. Ours by instruction set is timed inside C by
the time stamp counter; the rivals, and one row of ours, are timed as a Python caller reaches them, ONNX Runtime by IO
binding with its states bound in place. `ratio` is a rival's p50 over that of our step from Python, like with like,
timed in turns; `min_over` is the same of the minima. `floor` is the timer with nothing between. Same weights, same
rows, same run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from _measure import percentiles, record, time_calls

from tengri_fast import _native
from tengri_fast.inference import DenseLayer, LstmLayer, Model

SHAPES = {"lstm_1x64": (16, 64, 1, 3), "lstm_2x64": (16, 64, 2, 3), "lstm_2x128": (128, 128, 2, 32)}
STEPS = 20_000
RIVAL_STEPS = 3_000
OURS = "ours, from Python"


def network(shape: str) -> list[Any]:
    inputs, hidden, layers, outputs = SHAPES[shape]
    rng = np.random.default_rng(7)
    stack: list[Any] = []
    for i in range(layers):
        width = inputs if i == 0 else hidden
        stack.append(
            LstmLayer(
                rng.standard_normal((4 * hidden, width)) / np.sqrt(width),
                rng.standard_normal((4 * hidden, hidden)) / np.sqrt(hidden),
                rng.standard_normal(4 * hidden) * 0.1,
            )
        )
    return [*stack, DenseLayer(rng.standard_normal((outputs, hidden)) / np.sqrt(hidden), np.zeros(outputs))]


def rows(shape: str) -> np.ndarray:
    return np.random.default_rng(11).standard_normal((1024, SHAPES[shape][0])).astype(np.float32)


def our_step(shape: str) -> Callable[[], None]:
    """Our whole step as a Python caller makes it."""
    session = Model.from_layers(network(shape)).session()
    x = rows(shape)[0]

    def step() -> None:
        session.input[:] = x
        session.finish()
        session.prepare()

    return step


def compare(benchmark: Any, shape: str, step: Callable[[], None], **extra: Any) -> None:
    """Time a rival's step and ours in turns, a block of each, and record the rival's with its ratios to ours."""
    ours = our_step(shape)
    blocks: dict[str, list[np.ndarray]] = {"rival": [], "ours": []}
    for _ in range(10):
        blocks["rival"].append(time_calls(step, RIVAL_STEPS // 10))
        blocks["ours"].append(time_calls(ours, RIVAL_STEPS // 10))
    times, reference = np.concatenate(blocks["rival"]), np.concatenate(blocks["ours"])
    record(
        benchmark,
        times,
        dtype="fp32",
        # The other way round than elsewhere: how many times as long the rival takes.
        ratio=round(percentiles(times)["p50"] / percentiles(reference)["p50"], 2),
        against={OURS: float(reference.min())},
        **extra,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("isa", _native.isa_available())
@pytest.mark.parametrize("part", ["critical", "step"])
def test_native(benchmark: Any, shape: str, isa: str, part: str) -> None:
    benchmark.group = f"{shape} {part}"
    session = Model.from_layers(network(shape), isa=isa).session()
    x = rows(shape)
    session.time_steps(x, STEPS // 4)
    finish, prepare = session.time_steps(x, STEPS)
    benchmark.pedantic(session.finish if part == "critical" else session.step, args=(x[0],), rounds=50, iterations=20)
    times = finish if part == "critical" else finish + prepare
    record(benchmark, times, rival="ours", dtype="fp32", kernels=isa, timed="in C")


@pytest.mark.parametrize("shape", SHAPES)
def test_native_from_python(benchmark: Any, shape: str) -> None:
    benchmark.group = f"{shape} step"
    step = our_step(shape)
    benchmark(step)
    record(benchmark, time_calls(step, RIVAL_STEPS), rival=OURS, dtype="fp32")


def onnx_step(shape: str) -> bytes:
    """The same network as an ONNX graph of one step with states as inputs and outputs."""
    from onnx import TensorProto, helper, numpy_helper

    stack = network(shape)
    inputs, hidden, layers, outputs = SHAPES[shape]
    nodes, tensors, state_in, state_out = [], [], [], []
    value = "x"
    for i, layer in enumerate(stack[:-1]):
        order = [np.split(m, 4)[g] for m in (layer.w, layer.r, layer.bias) for g in (0, 3, 1, 2)]  # i, o, f, c
        w, r, b = (np.concatenate(order[4 * j : 4 * j + 4]) for j in range(3))
        bias = np.concatenate([b, np.zeros_like(b)])[None]
        tensors += [numpy_helper.from_array(a, f"{n}{i}") for a, n in ((w[None], "w"), (r[None], "r"), (bias, "b"))]
        nodes.append(
            helper.make_node(
                "LSTM",
                [value, f"w{i}", f"r{i}", f"b{i}", "", f"h{i}", f"c{i}"],
                [f"s{i}", f"hn{i}", f"cn{i}"],
                hidden_size=hidden,
            )
        )
        nodes.append(helper.make_node("Squeeze", [f"s{i}", "one"], [f"q{i}"]))
        value = f"q{i}"
        state_in += [f"h{i}", f"c{i}"]
        state_out += [f"hn{i}", f"cn{i}"]
    tensors += [
        numpy_helper.from_array(np.array([1]), "one"),
        numpy_helper.from_array(stack[-1].w.T.copy(), "head"),
        numpy_helper.from_array(stack[-1].bias, "head_bias"),
    ]
    nodes += [helper.make_node("MatMul", [value, "head"], ["m"]), helper.make_node("Add", ["m", "head_bias"], ["y"])]

    def info(name: str, *dims: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

    graph = helper.make_graph(
        nodes,
        shape,
        [info("x", 1, 1, inputs), *(info(n, 1, 1, hidden) for n in state_in)],
        [info("y", 1, 1, outputs), *(info(n, 1, 1, hidden) for n in state_out)],
        tensors,
    )
    assert len(state_in) == 2 * layers
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize("shape", SHAPES)
def test_onnxruntime(benchmark: Any, shape: str) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the rival is not installed")
    pytest.importorskip("onnx", reason="the rival's graph is written with onnx")
    from tengri_fast.inference.ort import session_options

    benchmark.group = f"{shape} step"
    session = runtime.InferenceSession(onnx_step(shape), session_options(), providers=["CPUExecutionProvider"])
    x = rows(shape)
    values = {
        item.name: runtime.OrtValue.ortvalue_from_numpy(np.zeros(item.shape, np.float32))
        for item in (*session.get_inputs(), *session.get_outputs())
    }
    # Two bindings that swap their states, so that no state is copied between steps.
    bindings = []
    for swapped in (False, True):
        binding = session.io_binding()
        for item in session.get_inputs():
            source = item.name if item.name == "x" or not swapped else item.name[0] + "n" + item.name[1:]
            binding.bind_ortvalue_input(item.name, values[source])
        for item in session.get_outputs():
            target = item.name if item.name == "y" or not swapped else item.name.replace("n", "")
            binding.bind_ortvalue_output(item.name, values[target])
        bindings.append(binding)
    row = values["x"].numpy()
    native = Model.from_layers(network(shape)).session()
    for t in range(50):  # the rival must compute the same thing
        values["x"].update_inplace(np.ascontiguousarray(x[t].reshape(row.shape)))
        session.run_with_iobinding(bindings[t % 2])
        assert np.abs(values["y"].numpy().ravel() - native.step(x[t])).max() < 2e-6
    turn = [0]

    def step() -> None:
        session.run_with_iobinding(bindings[turn[0]])
        turn[0] ^= 1

    benchmark(step)
    compare(benchmark, shape, step, rival="onnxruntime, 1 thread, IO binding")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["eager", "jit"])
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is in the training environment only")
def test_torch(benchmark: Any, shape: str, mode: str) -> None:
    import torch

    benchmark.group = f"{shape} step"
    torch.set_num_threads(1)
    stack = network(shape)
    inputs, hidden, layers, outputs = SHAPES[shape]

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(inputs, hidden, layers)
            self.head = torch.nn.Linear(hidden, outputs)

        def forward(
            self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            out, (h, c) = self.lstm(x, (h, c))
            return self.head(out), h, c

    module: Any = Step().eval()
    with torch.no_grad():
        for i, layer in enumerate(stack[:-1]):
            for name, array in (("weight_ih", layer.w), ("weight_hh", layer.r), ("bias_ih", layer.bias)):
                getattr(module.lstm, f"{name}_l{i}").copy_(torch.from_numpy(array))
            getattr(module.lstm, f"bias_hh_l{i}").zero_()
        module.head.weight.copy_(torch.from_numpy(stack[-1].w))
        module.head.bias.copy_(torch.from_numpy(stack[-1].bias))
    x = torch.from_numpy(rows(shape)[0]).reshape(1, 1, -1)
    state = [torch.zeros(layers, 1, hidden), torch.zeros(layers, 1, hidden)]
    if mode == "jit":
        module = torch.jit.freeze(torch.jit.trace(module, (x, *state)))

    def step() -> None:
        with torch.inference_mode():
            _, state[0], state[1] = module(x, *state)

    benchmark(step)
    compare(benchmark, shape, step, rival=f"torch {mode}")


def test_floor(benchmark: Any) -> None:
    """The timer with nothing between its two readings: contained in every row that is timed in C."""
    benchmark.group = "floor"
    benchmark.pedantic(_native.timer_floor, args=(STEPS,), rounds=5)
    record(benchmark, _native.timer_floor(STEPS), rival="no-op", timed="in C")
