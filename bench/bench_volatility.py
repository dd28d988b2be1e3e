"""One update of a volatility forecast, from a return to a sigma: ours, and the same network elsewhere.

*ours, whole* is ``NeuralVolatility.update`` and ``forecast``: checks and features in Python, the network in the C
engine. *ours, network* is ``finish`` and ``prepare`` of the network alone, called from Python. *ONNX Runtime* gets the
network as a step graph with its state carried along, through its C interface. *NumPy refilter* is what is done with
libraries that have no streaming: the recursion over the last 1,000 returns again; *ours, refilter* is the same in
numba.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _rivals
from _measure import record, time_calls

from tengri_fast.inference.canonical import write_canonical
from tengri_fast.risk.garch import Garch, filter_variance, warmup
from tengri_fast.risk.volatility import EwmaVolatility, GarchVolatility, NeuralRiskModel, fit_har
from tengri_fast.runtime.volatility import load_volatility

GROUP = "volatility: one daily update of one instrument"
HISTORY = 1_000
CALLS = 5_000
PARAMS = Garch(omega=2e-6, alpha=0.03, beta=0.9, gamma=0.08, start=1e-4)
RETURNS = np.random.default_rng(0).standard_t(5, 20_000) * 0.01
RIVALS = ("NumPy refilter", "ONNX Runtime, network, from C")
BASELINE: dict[str, tuple[float, float]] = {}


def streaming(model: NeuralRiskModel) -> Callable[[], float]:
    """Update and forecast with the next return."""
    values = iter(np.tile(RETURNS, 40).tolist())
    for _ in range(HISTORY):
        model.update(next(values))

    def step() -> float:
        model.update(next(values))
        return model.forecast()

    return step


def ours_network() -> Callable[[], object]:
    session = load_volatility().model.session()
    session.input[:] = 0.1

    def step() -> object:
        answer = session.finish()
        session.prepare()
        return answer

    return step


def numpy_refilter() -> Callable[[], float]:
    """The recursion of GJR over the last 1,000 returns, shocks in NumPy and the loop in Python."""
    window = RETURNS[:HISTORY]

    def step() -> float:
        squares, below = window**2, window < 0.0
        slopes = (PARAMS.alpha + PARAMS.gamma * below) * squares + PARAMS.omega
        h = PARAMS.start
        for slope in slopes:
            h = slope + PARAMS.beta * h
        return float(np.sqrt(h))

    return step


def ours_refilter() -> Callable[[], float]:
    warmup()
    window = np.ascontiguousarray(RETURNS[:HISTORY])
    return lambda: float(np.sqrt(filter_variance(window, PARAMS)[-1]))


ROWS: dict[str, Callable[[], Callable[[], object]]] = {
    "NumPy refilter": numpy_refilter,
    "ours, refilter": ours_refilter,
    "ours, network": ours_network,
    "ours, whole": lambda: streaming(load_volatility().session()),
    "ours, EWMA": lambda: streaming(EwmaVolatility()),
    "ours, HAR": lambda: streaming(fit_har(RETURNS[:2000] ** 2)),
    "ours, GJR": lambda: streaming(GarchVolatility(PARAMS)),
}


def finish(benchmark: Any, row: str, times: np.ndarray) -> None:
    if row in RIVALS:
        BASELINE[row] = (float(np.median(times)), float(times.min()))
    record(
        benchmark,
        times,
        baseline_ns=BASELINE["NumPy refilter"][0] if "NumPy refilter" in BASELINE else None,
        against={name: least for name, (_, least) in BASELINE.items() if name != row},
        rival=row,
    )


@pytest.mark.parametrize("row", list(ROWS))
def test_update(benchmark: Any, row: str) -> None:
    function = ROWS[row]()
    times = time_calls(function, CALLS)
    benchmark.group = GROUP
    benchmark.pedantic(function, rounds=20, iterations=10)
    finish(benchmark, row, times)


@pytest.mark.parametrize("row", ["ONNX Runtime, network, from C", "ours, network, from C", "ours, network, finish"])
def test_network(benchmark: Any, row: str) -> None:
    """The network alone with no Python between two steps, in both engines; they must answer alike first.

    ``finish`` is the part of our step that stands between the return and the answer.
    """
    model = load_volatility().model
    x = np.random.default_rng(3).normal(0.0, 1.0, (256, model.input_size)).astype(np.float32)
    benchmark.group = GROUP
    if row.startswith("ours"):
        session = model.session()
        critical, rest = session.time_steps(x, CALLS)
        benchmark.pedantic(lambda: session.time_steps(x, 100), rounds=5)
        finish(benchmark, row, critical if row.endswith("finish") else critical + rest)
        return
    assert model.network is not None
    try:
        rival = _rivals.onnxruntime(write_canonical(model.network))
    except _rivals.Missing as reason:
        pytest.skip(str(reason))
    np.testing.assert_allclose(rival.run(x).reshape(256, -1), model.run_window(x), atol=1e-5)
    times = rival.time(x, CALLS)
    benchmark.pedantic(lambda: rival.time(x, 100), rounds=5)
    finish(benchmark, row, times)
