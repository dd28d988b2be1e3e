"""One step of eight networks: ours in every number format against ONNX Runtime, OpenVINO and PyTorch.

`critical` is what a trader waits for (finish), `whole` is finish + prepare. Everybody runs on one thread with states
kept, ours and the C interfaces of ONNX Runtime and OpenVINO timed in C, PyTorch in its own interpreter. All
contenders of a shape are measured in turns in the same ten rounds, and each rival must first compute what we compute.
ONNX Runtime runs its own LSTM operator in float (its fastest form), else the canonical step graph, and the int8
artefact with and without fusing MatMul and Add, whichever is faster; OpenVINO runs float32, bfloat16 and the int8
artefact. `against_best` is the fastest of all of these, in any precision, over our whole step; the ratios are those
of p50 and of minima. `roofline` is the time that reading the critical weights once from the measured L1 or L2
bandwidth takes, over our critical time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import _rivals
import _zoo
import numpy as np
import pytest
from _measure import percentiles, record, time_calls

from tengri_fast import _native
from tengri_fast.inference import Model
from tengri_fast.inference.canonical import write_canonical
from tengri_fast.inference.hardware import floor_ns
from tengri_fast.inference.network import FORMATS, Network
from tengri_fast.inference.quantize import quantize

ROUNDS = 10
EVICT = 8 << 20  # more than L2 holds, on any machine of today
RIVALS = ("onnxruntime fp32", "onnxruntime int8", "openvino fp32", "openvino bf16", "openvino int8", "torch fp32")
OURS = tuple(f"ours {number_format}" for number_format in FORMATS)


@dataclass
class Times:
    """Nanoseconds of single steps; `critical` is None for a rival, which has no such part."""

    whole: np.ndarray
    critical: np.ndarray | None = None
    setting: str = ""
    block: Callable[[int], Times] | None = None
    """Takes so many more steps."""


@functools.cache
def formatted(shape: str, number_format: str) -> Network:
    network = _zoo.network(shape)
    if number_format == "fp32":
        return network
    rows = _zoo.rows(shape, 2048, seed=5) if number_format.startswith("int8") else None
    return quantize(network, number_format, rows)[0]


def _ours(shape: str, number_format: str) -> Callable[[int], Times]:
    session = Model.from_network(formatted(shape, number_format)).session()
    x = _zoo.rows(shape)

    def block(count: int) -> Times:
        finish, prepare = session.time_steps(x, count)
        return Times(finish + prepare, finish)

    return block


def _check(rival: _rivals.Rival, network: Network, x: np.ndarray, tolerance: float) -> None:
    """The rival must compute the same thing: its answers differ by at most `tolerance` of our largest."""
    ours = Model.from_network(network).run_window(x)
    error = np.abs(rival.run(x).reshape(ours.shape) - ours).max()
    if not error <= tolerance * max(1.0, float(np.abs(ours).max())):
        raise _rivals.Missing(f"it computes something else here: differs by {error:.3g}")


def _rival(shape: str, name: str) -> tuple[Callable[[int], Times], str]:
    network, x = _zoo.network(shape), _zoo.rows(shape)
    if name == "torch fp32":
        candidates: dict[str, Callable[[], _rivals.Rival]] = {"traced and frozen": lambda: _rivals.TorchRival(network)}
    elif name == "onnxruntime fp32":
        candidates = {"step graph": lambda: _rivals.onnxruntime(write_canonical(network))}
        if shape.startswith("lstm"):
            candidates["LSTM operator"] = lambda: _rivals.onnxruntime(_rivals.fused_lstm(network))
    elif name == "onnxruntime int8":
        graph = write_canonical(formatted(shape, "int8"))
        candidates = {
            "all optimisers": lambda: _rivals.onnxruntime(graph),
            "without MatMulAddFusion": lambda: _rivals.onnxruntime(graph, ("MatMulAddFusion",)),
        }
    elif name == "openvino int8":
        candidates = {"Q/DQ graph": lambda: _rivals.openvino(write_canonical(formatted(shape, "int8")))}
    else:
        candidates = {"step graph": lambda: _rivals.openvino(write_canonical(network), bf16=name.endswith("bf16"))}
        if shape.startswith("lstm"):
            bf16 = name.endswith("bf16")
            candidates["LSTM operator"] = lambda: _rivals.openvino(_rivals.fused_lstm(network), bf16=bf16)
    # int8: where a row lies within an ulp of half a quantum, two runtimes may round to different sides.
    tolerance = {"fp32": 1e-5, "int8": 2e-2, "bf16": 1e-1}[name.split()[1]]
    target = formatted(shape, "int8") if name.endswith("int8") else network
    found: dict[str, tuple[float, _rivals.Rival]] = {}
    reasons = []
    for setting, make in candidates.items():
        try:
            rival = make()
            _check(rival, target, x[:64], tolerance)
        except _rivals.Missing as missing:
            reasons.append(f"{setting}: {missing}")
            continue
        rival.time(x, 200)
        found[setting] = float(np.median(rival.time(x, 300))), rival
    if not found:
        raise _rivals.Missing("; ".join(reasons))
    setting = min(found, key=lambda key: found[key][0])
    fastest = found[setting][1]
    return lambda count: Times(fastest.time(x, count)), setting


@functools.cache
def measured(shape: str) -> dict[str, Times | str]:
    """All contenders of a shape, in turns; a text says why one is missing."""
    blocks: dict[str, Callable[[int], Times]] = {name: _ours(shape, name.split()[1]) for name in OURS}
    out: dict[str, Times | str] = {}
    settings: dict[str, str] = {}
    for name in RIVALS:
        try:
            blocks[name], settings[name] = _rival(shape, name)
        except _rivals.Missing as missing:
            out[name] = str(missing)
    large = shape in _zoo.LARGE
    counts = {name: (300 if large else 3000) if name in OURS else (60 if large else 300) for name in blocks}
    for name, block in blocks.items():
        block(counts[name])  # warm
    taken: dict[str, list[Times]] = {name: [] for name in blocks}
    names = list(blocks)
    for i in range(ROUNDS):
        first = i % len(names)
        for name in (*names[first:], *names[:first]):
            taken[name].append(blocks[name](counts[name]))
    for name, parts in taken.items():
        whole = np.concatenate([part.whole for part in parts])
        critical = [part.critical for part in parts if part.critical is not None]
        out[name] = Times(whole, np.concatenate(critical) if critical else None, settings.get(name, ""), blocks[name])
    return out


def best_rival(shape: str) -> tuple[str, Times] | None:
    """The fastest rival of a shape by p50."""
    found = {n: t for n, t in measured(shape).items() if n in RIVALS and isinstance(t, Times)}
    if not found:
        return None
    name = min(found, key=lambda n: float(np.median(found[n].whole)))  # type: ignore[union-attr]
    return name, found[name]  # type: ignore[return-value]


@pytest.mark.parametrize("contender", [*OURS, *RIVALS])
@pytest.mark.parametrize("shape", _zoo.SHAPES)
def test_step(benchmark: Any, shape: str, contender: str) -> None:
    benchmark.group = f"inference {shape}"
    times = measured(shape)[contender]
    if isinstance(times, str):
        pytest.skip(times)
    runtime, number_format = contender.split()
    facts: dict[str, Any] = {"shape": shape, "format": number_format, "runtime": runtime, "setting": times.setting}
    if times.critical is not None:
        model = Model.from_network(formatted(shape, number_format))
        session = model.session()
        benchmark.pedantic(session.step, args=(_zoo.rows(shape)[0],), rounds=50, iterations=20)
        best = best_rival(shape)
        critical = percentiles(times.critical)
        facts |= {
            "critical_p50_ns": round(critical["p50"], 1),
            "critical_p99_ns": round(critical["p99"], 1),
            "critical_p999_ns": round(critical["p999"], 1),
            "critical_min_ns": round(float(times.critical.min()), 1),
            "weight_bytes": model.finish_bytes + model.prepare_bytes,
            "critical_bytes": model.finish_bytes,
            "session_bytes": model.session_nbytes,
            "roofline": round(
                floor_ns(model.finish_bytes, model.finish_bytes + model.prepare_bytes)[0] / critical["p50"], 3
            ),
        }
        if best is not None:
            name, rival = best
            facts["best_rival"] = f"{name} ({rival.setting})"
            facts["against_best"] = round(float(np.median(rival.whole) / np.median(times.whole)), 2)
            facts["against_best_min"] = round(float(rival.whole.min() / times.whole.min()), 2)
        same = measured(shape).get("onnxruntime fp32")
        if number_format == "fp32" and isinstance(same, Times):
            facts["against_onnxruntime_fp32"] = round(float(np.median(same.whole) / np.median(times.whole)), 2)
        cold, _ = session.time_steps(_zoo.rows(shape), 300, evict=EVICT)
        idle, _ = session.time_steps(_zoo.rows(shape), 300, idle_us=2000)
        facts["cold_p50_ns"], facts["idle_p50_ns"] = (round(float(np.median(t)), 1) for t in (cold, idle))
    else:
        assert times.block is not None
        benchmark.pedantic(times.block, args=(20,), rounds=5)
    record(benchmark, times.whole, rival=contender, dtype=number_format, timed="in C", inference=facts)


def test_step_from_python(benchmark: Any) -> None:
    """What a Python caller pays on top: finish and prepare of the int8 LSTM 2x64 by a bound input buffer."""
    benchmark.group = "inference from Python"
    session = Model.from_network(formatted("lstm_2x64", "int8")).session()
    x = _zoo.rows("lstm_2x64")[0]

    def step() -> None:
        session.input[:] = x
        session.finish()
        session.prepare()

    benchmark(step)
    record(benchmark, time_calls(step, 20_000), rival="ours int8 lstm_2x64", timed="from Python")


@pytest.mark.parametrize("isa", _native.isa_available())
@pytest.mark.parametrize("number_format", FORMATS)
def test_instruction_sets(benchmark: Any, isa: str, number_format: str) -> None:
    """The whole step of LSTM 2x64 by instruction set."""
    benchmark.group = f"inference by instruction set, lstm_2x64 {number_format}"
    session = Model.from_network(formatted("lstm_2x64", number_format), isa=isa).session()
    x = _zoo.rows("lstm_2x64")
    session.time_steps(x, 2_000)
    finish, prepare = session.time_steps(x, 10_000)
    benchmark.pedantic(session.step, args=(x[0],), rounds=20, iterations=20)
    record(benchmark, finish + prepare, rival="ours", dtype=number_format, kernels=isa, timed="in C")


def test_floor(benchmark: Any) -> None:
    """The timer with nothing between its two readings: contained in every row that is timed in C."""
    benchmark.group = "inference floor"
    benchmark.pedantic(_native.timer_floor, args=(20_000,), rounds=5)
    record(benchmark, _native.timer_floor(20_000), rival="no-op", timed="in C")
