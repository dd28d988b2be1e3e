"""The risk gate per order: 1,000 scenarios and 1, 100 or 500 held instruments, against NumPy; plain limits alone.

The question is the same in every row of a group: would this order take the 99 % value at risk of the portfolio over its
limit? *NumPy full* revalues all positions, in float32, which is its fastest way; *NumPy incremental* keeps the result
vector and adds one column; *numba incremental* does so too, and finds VaR and ES with a compiled heap. Ours is shown as
the bare decision (VaR and ES of every case that the order changes, in C, the order read from Python), as the exact
numbers in a dict (five cases of working orders), and as the whole check of an order: all rules, before anything reaches
the exchange. The last comes in three states of the market: no price moved since the last order, the order's own did,
every held price did.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _measure import record, time_calls

from tengri_fast.risk import (
    InstrumentFacts,
    OrderView,
    PortfolioState,
    RiskGate,
    RiskLimits,
    ScenarioSet,
    VarSettings,
    kernels,
)

SCENARIOS = 1_000
LEVEL = 0.99
RANK = 11  # the 11th largest of 1,000 losses
CALLS = 4_000
RIVALS = ("numpy full", "numpy incremental", "numba incremental")
BASELINE: dict[tuple[str, str], tuple[float, float]] = {}


class Book:
    """One portfolio in our form and in NumPy's."""

    def __init__(self, instruments: int) -> None:
        rng = np.random.default_rng(instruments)
        names = [f"I{i}" for i in range(instruments)]
        facts = [InstrumentFacts(name, price_increment=0.01, size_increment=1.0) for name in names]
        factor = rng.standard_t(4, SCENARIOS)
        returns = 0.005 * (factor + rng.standard_t(4, (instruments, SCENARIOS)))
        scenarios = ScenarioSet(names, np.clip(returns, -0.9, None), 60_000_000_000)
        self.portfolio = PortfolioState(facts, scenarios, VarSettings(level=LEVEL, horizon="60s"))
        limits = RiskLimits(
            max_order_notional=1e6, max_position=1e5, price_collar_bps=200.0, max_portfolio_var=0.05, stale_quote="5s"
        )
        self.gate = RiskGate(limits, self.portfolio)
        self.gate.warmup()
        self.names = names
        self.now = 1
        self.quantities = rng.integers(-500, 500, instruments).astype(np.float64)
        self.quantities[0] = 100.0
        for name, quantity in zip(names, self.quantities, strict=True):
            self.portfolio.set_position(name, float(quantity))
        self.prices = np.full(instruments, 100.0)
        self.move(names)
        self.order = OrderView("o", "S", "", names[0], quantity=10.0, price=100.0, order_type="LIMIT", ts=1)
        self.returns = scenarios.returns
        self.pnl = self.portfolio.scenario_pnl()
        self.heap = np.empty(RANK)
        kernels.warmup()
        self.limit = 2.0 * self.portfolio.value_at_risk()
        self.portfolio.on_equity(self.limit / 0.05)

    def move(self, names: list[str]) -> None:
        """Move the mid of some instruments by up to a tick."""
        self.now += 1
        for i, name in enumerate(names):
            mid = 100.0 + 0.01 * ((self.now + i) % 5)
            self.prices[i] = mid
            self.portfolio.on_price(name, mid - 0.01, mid + 0.01, self.now)

    def numpy_full(self) -> float:
        weights = self.quantities * self.prices
        weights[0] += 10.0 * self.prices[0]
        pnl = weights.astype(np.float32) @ self.returns
        return -float(np.partition(pnl, RANK - 1)[RANK - 1])

    def numpy_incremental(self) -> float:
        pnl = self.pnl + (10.0 * self.prices[0]) * self.returns[0]
        return -float(np.partition(pnl, RANK - 1)[RANK - 1])

    def numba_incremental(self) -> float:
        value, _ = kernels.tail(
            self.pnl + (10.0 * self.prices[0]) * self.returns[0], (1.0 - LEVEL) * SCENARIOS, self.heap
        )
        return float(value)

    def ours_decision(self) -> bool:
        return self.portfolio.var_exceeds(self.order, 10.0, self.limit)

    def ours_numbers(self) -> dict[str, tuple[float, float]]:
        return self.portfolio.what_if(self.order, 10.0)


@pytest.fixture(scope="module", params=[1, 100, 500], ids=lambda n: f"{n} instruments")
def book(request: pytest.FixtureRequest) -> Book:
    made = Book(request.param)
    # All answer the same question, or the comparison means nothing.
    exact = made.ours_numbers()["filled + this order"][0]
    assert made.numpy_incremental() == pytest.approx(exact, rel=1e-6)
    assert made.numba_incremental() == pytest.approx(exact, rel=1e-6)
    assert made.numpy_full() == pytest.approx(exact, rel=1e-3)
    assert made.ours_decision() == (exact > made.limit)
    return made


def group_of(book: Book) -> str:
    return f"risk: {SCENARIOS} scenarios x {len(book.names)} instruments"


def finish(benchmark: Any, row: str, book: Book, times: np.ndarray) -> None:
    group = group_of(book)
    if row in RIVALS:
        BASELINE[group, row] = (float(np.median(times)), float(times.min()))
    known = {name: BASELINE[group, name] for name in RIVALS if (group, name) in BASELINE}
    record(
        benchmark,
        times,
        baseline_ns=known["numpy full"][0] if "numpy full" in known else None,
        against={name: least for name, (_, least) in known.items() if name != row},
        instruments=len(book.names),
        rival=row,
    )


@pytest.mark.parametrize("row", [*RIVALS, "ours decision", "ours numbers"])
def test_what_if(benchmark: Any, book: Book, row: str) -> None:
    function = getattr(book, row.replace(" ", "_"))
    times = time_calls(function, CALLS)
    benchmark.group = group_of(book)
    benchmark.pedantic(function, rounds=20, iterations=10)
    finish(benchmark, row, book, times)


@pytest.mark.parametrize("moved", ["none", "one", "all"])
def test_whole_check(benchmark: Any, book: Book, moved: str) -> None:
    names = {"none": [], "one": book.names[:1], "all": book.names}[moved]
    gate, clock = book.gate, time.perf_counter_ns
    count = CALLS if moved != "all" else CALLS // 4
    times = np.empty(count, np.int64)
    for i in range(-50, count):
        book.move(names)
        book.order.ts = book.now
        start = clock()
        verdict = gate.check(book.order)
        if i >= 0:
            times[i] = clock() - start
        assert verdict.allowed, verdict

    def move() -> None:
        book.move(names)
        book.order.ts = book.now

    benchmark.group = group_of(book)
    benchmark.pedantic(lambda: gate.check(book.order), setup=move, rounds=200)
    finish(benchmark, f"gate check, prices moved: {moved}", book, times)


@pytest.mark.parametrize("working", [0, 8])
def test_plain_limits(benchmark: Any, working: int) -> None:
    portfolio = PortfolioState([InstrumentFacts("A", price_increment=0.01, size_increment=1.0)])
    limits = RiskLimits(max_order_notional=1e6, max_position=1e5, price_collar_bps=200.0, stale_quote="5s")
    gate = RiskGate(limits, portfolio)
    gate.warmup()
    portfolio.on_price("A", 99.99, 100.01, 1)
    portfolio.set_position("A", 100.0)
    for i in range(working):
        side = 1 if i % 2 else -1
        portfolio.on_working(
            OrderView(f"w{i}", "S", "", "A", side=side, quantity=1.0, price=100.0, order_type="LIMIT", ts=1)
        )
    order = OrderView("o", "S", "", "A", quantity=10.0, price=100.0, order_type="LIMIT", ts=1)
    times = np.empty(CALLS, np.int64)
    ups = itertools.cycle((0.0, 0.01))

    def move() -> None:
        """Every order meets a new quote, as it does in trading."""
        portfolio.on_price("A", 99.99, 100.01 + next(ups), 2)

    for i in range(-50, CALLS):
        move()
        start = time.perf_counter_ns()
        verdict = gate.check(order)
        if i >= 0:
            times[i] = time.perf_counter_ns() - start
        assert verdict.allowed, verdict
    benchmark.group = "risk: plain limits"
    record(benchmark, times, rival=f"gate check, {working} working orders")
    benchmark.pedantic(lambda: gate.check(order), setup=move, rounds=500)


def test_working_order_events(benchmark: Any) -> None:
    portfolio = PortfolioState([InstrumentFacts("A", size_increment=1.0)])
    order = OrderView("o", "S", "", "A", quantity=10.0, price=100.0, order_type="LIMIT", ts=1)
    state = {"n": 0}

    def event() -> None:
        state["n"] += 1
        order.client_order_id = f"o{state['n']}"
        portfolio.on_working(order)
        portfolio.on_order_closed(order.client_order_id)

    benchmark.group = "risk: plain limits"
    record(benchmark, time_calls(event, CALLS), rival="on_working and on_order_closed")
    benchmark.pedantic(event, rounds=20, iterations=50)


def test_quote_event(benchmark: Any) -> None:
    portfolio = PortfolioState([InstrumentFacts("A")])
    state = {"ts": 0}

    def quote() -> None:
        state["ts"] += 1
        portfolio.on_price("A", 99.99, 100.01 + 0.01 * (state["ts"] & 1), state["ts"])

    benchmark.group = "risk: plain limits"
    record(benchmark, time_calls(quote, CALLS), rival="on_price event")
    benchmark.pedantic(quote, rounds=20, iterations=50)
