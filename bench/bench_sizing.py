"""Position sizing: one question, in C and from Python, and a mid into the running volatility.

The C row asks `size_many` for a thousand sizes and divides; it is what the strategy's own path costs, without the
look-up of equity and budget. The rival is the same formula for the default parts in plain Python with `math`, which is
what a strategy would write by hand.
"""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from _measure import record, time_calls

from tengri_fast.risk.sizing import Cap, DrawdownScale, FractionalKelly, PositionSizer, VarBudget, VolatilityTarget

GROUP = "risk: position sizing"
CALLS, BATCH = 3_000, 1_000
SIGNAL = SimpleNamespace(value=3.0, probabilities=(0.2, 0.1, 0.7), horizon=10**10, horizon_unit="ns")
PARTS = {
    "default parts": (VolatilityTarget, FractionalKelly, VarBudget),
    "five parts": (VolatilityTarget, FractionalKelly, VarBudget, DrawdownScale, partial(Cap, leverage=2.0)),
}


def sizer(parts: str = "default parts") -> PositionSizer:
    made = PositionSizer([part() for part in PARTS[parts]], lot=0.001)
    rng = np.random.default_rng(1)
    mids = 100.0 * np.cumprod(1.0 + 1e-4 * rng.standard_normal(1000))
    for i, mid in enumerate(mids):
        made.on_mid(mid, (i + 1) * 10**9)
    return made


def by_hand(rate: float, value_bps: float, p_down: float, p_up: float, price: float, equity: float) -> float:
    """The default parts in plain Python: volatility target 1 % a day, a quarter Kelly, 5 % of normal VaR."""
    day = math.sqrt(rate * 86_400e9)
    target = 0.01 * equity / (price * day)
    value = 1e-4 * value_bps
    loss = math.sqrt(rate * 1e10)
    gain = (value + p_down * loss) / p_up
    kelly = 0.25 * value / ((p_up + p_down) * gain * loss) * equity / price
    budget = 0.05 * equity / (price * 2.3263478740408408 * day)
    return math.floor(min(target, kelly, budget) / 0.001 + 1e-9) * 0.001


@pytest.mark.parametrize("parts", list(PARTS))
def test_in_c(benchmark: Any, parts: str) -> None:
    made = sizer(parts)
    one = np.full(BATCH, 1.0)
    columns = [3.0 * one, 0.2 * one, 0.7 * one, 100.0 * one, 1e5 * one]

    def ask() -> np.ndarray:
        return made.size_many(*columns, horizon_ns=1e10)

    assert ask()[0] == made.size(SIGNAL, 100.0, 1e5) > 0.0
    benchmark.group = GROUP
    record(benchmark, time_calls(ask, 400), calls=BATCH, rival=f"size in C, {parts}")
    benchmark.pedantic(ask, rounds=20)


@pytest.mark.parametrize("row", ["ours", "by hand in Python"])
def test_from_python(benchmark: Any, row: str) -> None:
    made = sizer()
    rate = made.volatility.variance_rate
    assert by_hand(rate, 3.0, 0.2, 0.7, 100.0, 1e5) == pytest.approx(made.size(SIGNAL, 100.0, 1e5), rel=1e-12)

    def ours() -> float:
        return made.size(SIGNAL, 100.0, 1e5)

    def hand() -> float:
        return by_hand(rate, 3.0, 0.2, 0.7, 100.0, 1e5)

    function = ours if row == "ours" else hand
    benchmark.group = GROUP
    record(benchmark, time_calls(function, CALLS), rival=f"size from Python, {row}")
    benchmark.pedantic(function, rounds=20, iterations=50)


def test_a_mid(benchmark: Any) -> None:
    made = sizer()
    state = {"ts": 10**13}

    def mid() -> None:
        state["ts"] += 10**8
        made.on_mid(100.0 + (state["ts"] % 7) * 0.01, state["ts"])

    benchmark.group = GROUP
    record(benchmark, time_calls(mid, CALLS), rival="on_mid from Python")
    benchmark.pedantic(mid, rounds=20, iterations=50)
