"""Many instruments, sliding windows and two cores: what a batch, a windowed session and a worker team give.

Our rows are timed in turns with each other and, for the batch, with ONNX Runtime on the same number of rows at once
(one thread, its own LSTM operator, states of all instruments as one tensor, bound in place).
"""

from __future__ import annotations

import os
import time
from typing import Any

import _rivals
import _zoo
import numpy as np
import pytest
from _measure import interleaved, record
from bench_inference import formatted

from tengri_fast.inference import LstmLayer, Model, Team
from tengri_fast.inference.layers import DenseLayer
from tengri_fast.inference.network import chain

SESSIONS = 1000
ROUNDS = 15


def clock(function: Any) -> Any:
    """A measure for :func:`interleaved`: nanoseconds of one call."""

    def measure() -> float:
        start = time.perf_counter_ns()
        function()
        return float(time.perf_counter_ns() - start)

    return measure


@pytest.mark.parametrize("number_format", ["fp32", "fp16", "int8"])
def test_batch_of_1000(benchmark: Any, number_format: str) -> None:
    """1,000 sessions of LSTM 2x64, one row each."""
    benchmark.group = f"batch of {SESSIONS}, lstm_2x64 {number_format}, per session"
    network = formatted("lstm_2x64", number_format)
    model = Model.from_network(network)
    x = np.ascontiguousarray(np.resize(_zoo.rows("lstm_2x64"), (SESSIONS, network.input_size)))
    together, alone = ([model.session() for _ in range(SESSIONS)] for _ in range(2))
    batch = model.batch(SESSIONS)
    batch.bind(together)

    def one_by_one() -> None:
        for row, session in zip(x, alone, strict=True):
            session.input[:] = row
            session.finish()
            session.prepare()

    def in_c() -> float:
        finish, prepare = alone[0].time_steps(x, SESSIONS)
        return float((finish + prepare).sum())

    measures = {
        "ours, batched": clock(lambda: batch.step(x)),
        "ours, one session in C": in_c,
        "ours, one by one from Python": clock(one_by_one),
    }
    if number_format == "fp32":
        rival = _onnxruntime_batch(network, x)
        if rival is not None:
            measures["onnxruntime fp32, batched"] = clock(rival)
    for measure in measures.values():
        measure()
    times = interleaved(measures, ROUNDS)
    smallest = {name: float(values.min()) / SESSIONS for name, values in times.items()}
    ours = "ours, batched"
    benchmark.pedantic(batch.step, args=(x,), rounds=5)
    record(
        benchmark,
        times[ours],
        calls=SESSIONS,
        rival=ours,
        dtype=number_format,
        against={name: ns for name, ns in smallest.items() if name != ours},
        p50_of_others_ns={name: round(float(np.median(v)) / SESSIONS, 1) for name, v in times.items() if name != ours},
    )


def _onnxruntime_batch(network: Any, x: np.ndarray) -> Any:
    """A step of ONNX Runtime over all rows at once, states bound in place, or None where it is missing."""
    runtime = pytest.importorskip("onnxruntime", reason="the rival is not installed")
    import onnx

    model = onnx.load_from_string(_rivals.fused_lstm(network))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = len(x)  # [1, batch, width]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    values = {
        item.name: runtime.OrtValue.ortvalue_from_numpy(np.zeros(item.shape, np.float32))
        for item in (*session.get_inputs(), *session.get_outputs())
    }
    values["x"].update_inplace(np.ascontiguousarray(x.reshape(values["x"].shape())))
    bindings = []
    for swapped in (False, True):
        binding = session.io_binding()
        for item in session.get_inputs():
            is_state = swapped and item.name != "x"
            binding.bind_ortvalue_input(item.name, values[f"{item.name}_next" if is_state else item.name])
        for item in session.get_outputs():
            is_state = swapped and item.name != "y"
            binding.bind_ortvalue_output(item.name, values[item.name.removesuffix("_next") if is_state else item.name])
        bindings.append(binding)
    turn = [0]

    def step() -> None:
        session.run_with_iobinding(bindings[turn[0]])
        turn[0] ^= 1

    return step


@pytest.mark.parametrize("number_format", ["fp32", "int8"])
def test_windowed(benchmark: Any, number_format: str) -> None:
    """LSTM 2x100 on 100 features over the last 50 rows: the critical path against the stateful one."""
    from tengri_fast.inference.quantize import quantize

    benchmark.group = f"windowed lstm_2x100, T 50, F 100, {number_format}"
    rng = np.random.default_rng(3)
    layers = [
        LstmLayer(
            rng.standard_normal((400, 100)) / 10.0,
            rng.standard_normal((400, 100)) / 10.0,
            rng.standard_normal(400) * 0.1,
            f"lstm{i}",
        )
        for i in range(2)
    ]
    network = chain([*layers, DenseLayer(rng.standard_normal((3, 100)) / 10.0, np.zeros(3))])
    x = rng.standard_normal((1024, 100)).astype(np.float32)
    if number_format == "int8":
        network = quantize(network, "int8", x)[0]
    model = Model.from_network(network)
    stateful, windowed = model.session(), model.session(window=50)
    for row in x[:200]:  # the answer must be that of the last 50 rows from zero state
        answer = windowed.step(row)
    assert np.array_equal(answer, model.run_window(x[150:200])[-1])
    parts: dict[str, list[np.ndarray]] = {"stateful": [], "windowed": []}
    for _ in range(ROUNDS):
        parts["stateful"].append(stateful.time_steps(x, 200))
        parts["windowed"].append(windowed.time_steps(x, 200))
    (plain, _), (critical, prepare) = (np.concatenate(parts[k], axis=1) for k in ("stateful", "windowed"))
    benchmark.pedantic(windowed.step, args=(x[0],), rounds=10)
    record(
        benchmark,
        critical,
        rival="ours, windowed, critical path",
        dtype=number_format,
        against={"stateful critical path": float(plain.min())},
        stateful_critical_p50_ns=round(float(np.median(plain)), 1),
        back_to_back_p50_ns=round(float(np.median(critical + prepare)), 1),
        sustained_ticks_per_second=round(1e9 / float(np.mean(critical + prepare))),
    )


def from_python(finish: Any, prepare: Any, session: Any, x: np.ndarray) -> np.ndarray:
    """Nanoseconds [2, 100] of finish and prepare, as a Python caller reaches them."""
    out = np.empty((2, 100))
    for i in range(out.shape[1]):
        session.input[:] = x[i]
        start = time.perf_counter_ns()
        finish()
        middle = time.perf_counter_ns()
        prepare()
        out[:, i] = middle - start, time.perf_counter_ns() - middle
    return out


@pytest.mark.parametrize("shape", sorted(_zoo.LARGE))
@pytest.mark.parametrize("number_format", ["fp32", "int8"])
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a team needs a second core")
def test_two_cores(benchmark: Any, shape: str, number_format: str) -> None:
    """One large model on one core and on two."""
    benchmark.group = f"two cores, {shape} {number_format}"
    model = Model.from_network(formatted(shape, number_format))
    x = _zoo.rows(shape)
    one, two = model.session(), model.session()
    parts: dict[str, list[np.ndarray]] = {"one": [], "two": []}
    with Team(1, cpus=None, spin_us=5_000) as team:
        assert np.array_equal(team.step(two, x[0]), one.step(x[0]))
        for _ in range(ROUNDS):
            parts["one"].append(from_python(one.finish, one.prepare, one, x))
            parts["two"].append(from_python(lambda: team.finish(two), lambda: team.prepare(two), two, x))
        benchmark.pedantic(team.step, args=(two, x[0]), rounds=10)
    (alone, rest), (critical, prepare) = (np.concatenate(parts[k], axis=1) for k in ("one", "two"))
    record(
        benchmark,
        critical,
        rival="ours, two cores, critical path",
        dtype=number_format,
        against={"one core": float(alone.min())},
        one_core_critical_p50_ns=round(float(np.median(alone)), 1),
        one_core_whole_p50_ns=round(float(np.median(alone + rest)), 1),
        whole_p50_ns=round(float(np.median(critical + prepare)), 1),
    )
