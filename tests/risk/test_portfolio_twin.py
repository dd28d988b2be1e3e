"""The portfolio in C against its first version in Python (tests/risk_twin.py), on random events.

A Hypothesis state machine of bursts of events: after each burst the incremental results equal full revaluation to 1e-9
of gross notional, and everything that can be asked equals the twin's answer. About 20,000 events by default;
``TENGRI_RISK_EVENTS=100000 pytest tests/risk/test_portfolio_twin.py`` runs more.
"""

from __future__ import annotations

import math
import os
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from risk_twin import CASES, COUNTERS, Twin

from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, ScenarioSet, VarSettings

EVENTS = int(os.environ.get("TENGRI_RISK_EVENTS", "20000"))
BURST, BURSTS = 25, 20
S, LEVEL, HORIZON = 120, 0.95, 60
FACTS = [
    InstrumentFacts("LIN", "linear", size_increment=0.5),
    InstrumentFacts("EUR", "linear", 10.0, settlement_currency="EUR"),  # no lots
    InstrumentFacts("INV", "inverse", 100.0, size_increment=0.5, settlement_currency="BTC"),
    InstrumentFacts("BIN", "binary", size_increment=0.5),
    InstrumentFacts("QTO", "linear", 2.0, size_increment=0.5, quote_currency="JPY"),
]
START = {"LIN": 100.0, "EUR": 50.0, "INV": 20_000.0, "BIN": 0.5, "QTO": 300.0}


class Pair:
    """Both portfolios, fed with the same events."""

    def __init__(self, seed: int, interval: int) -> None:
        rng = np.random.default_rng(seed)
        common = rng.standard_t(4, S)
        rows = np.clip([0.03 * (b * common + rng.standard_t(4, S)) for b in (1.0, 0.7, -0.5, 3.0, 0.0)], -0.6, 5.0)
        scenarios = ScenarioSet(list(START), rows, HORIZON)
        self.both = (
            PortfolioState(FACTS, scenarios, VarSettings(level=LEVEL, horizon=HORIZON), rebuild_interval=interval),
            Twin(FACTS, scenarios, LEVEL, "USD"),
        )
        self.portfolio, self.twin = self.both
        self.now = self.made = 0

    def each(self, event: str, *arguments: object, **named: object) -> None:
        for one in self.both:
            getattr(one, event)(*arguments, **named)

    def order(self, rng: random.Random, cid: str | None = None) -> OrderView:
        self.made += 1
        return OrderView(
            cid or f"O{self.made}", rng.choice(["S1", "S2"]), rng.choice(["A1", "A2", ""]),
            "NOBODY" if rng.random() < 0.01 else rng.choice(list(START)), rng.choice(["", "", "P1"]),
            rng.choice([-1, 1]) if rng.random() < 0.99 else 0,
            rng.choice([math.nan, -1.0, 0.0]) if rng.random() < 0.01 else 0.5 * rng.randint(1, 80),
            reduce_only=rng.random() < 0.2, exclusive_group=rng.choice(["", "", "g", "h"]),
        )  # fmt: skip

    def event(self, rng: random.Random) -> None:
        kind, name = rng.random(), rng.choice(list(START))
        working = sorted(self.twin.orders)
        if kind < 0.30:
            self.now += rng.choice([0, 1, 1, -1])
            mid = START[name] * math.exp(rng.gauss(0, 0.1))
            bid, ask = (mid, mid * 1.0001) if name != "BIN" else (min(mid, 0.98), min(mid, 0.98) + 0.01)
            if rng.random() < 0.05:
                bid, ask = rng.choice([(ask, bid), (math.nan, ask), (0.0, math.inf), (-1.0, ask)])
            self.each("on_price", name if rng.random() < 0.99 else "NOBODY", bid, ask, max(self.now, 0))
        elif kind < 0.35:
            value = rng.choice([1.1, 0.9, 25_000.0, 0.01]) if rng.random() < 0.95 else rng.choice([math.nan, 0.0])
            self.each("on_rate", rng.choice(["EUR", "BTC", "BTC", "USD"]), value)
        elif kind < 0.50:
            size = rng.choice([0.5 * rng.randint(-60, 60)] * 60 + [1e6, -1e6, 1e12, math.nan])
            trade = rng.choice(["", f"T{self.made}-{rng.randint(0, 3)}"])
            names = rng.choice(["", "P1"]), rng.choice(["A1", "A2"]), rng.choice(["S1", "S2"])
            cid = rng.choice(["", f"O{rng.randint(max(self.made - 8, 0), self.made + 3)}"])
            self.each("on_fill", name, size, 1.0, *names, cid, trade)
        elif kind < 0.55:
            held = self.twin.positions()
            if held:
                name, account, position_id, strategy, quantity = rng.choice(held)
                self.each("on_fill", name, -quantity, 2.0, position_id, account, strategy)
        elif kind < 0.57:
            self.each("set_position", name, 0.5 * rng.randint(-50, 50), rng.choice(["", "P1"]), "A1", "S2")
        elif kind < 0.72 and len(working) < 16:
            old = f"O{rng.randint(0, self.made)}" if rng.random() < 0.1 else None
            self.each("on_working", self.order(rng, old))
        elif working:
            cid = rng.choice(working)
            view = self.twin.orders[cid].view
            leaves = self.twin.orders[cid].leaves
            if kind < 0.82:
                part = leaves if rng.random() < 0.4 else min(0.5 * rng.randint(1, 30), leaves)
                owner = view.position_id, view.account_id or "A1", view.strategy_id
                self.each("on_fill", view.instrument_id, view.side * part, 1.0, *owner, cid, f"F{self.made}-{kind}")
            elif kind < 0.90:
                self.each("on_order_closed", cid)
            elif kind < 0.96:
                change = rng.choice([None, 0.5 * rng.randint(1, 90), math.nan])
                self.each("on_order_update", cid, quantity=change, price=rng.choice([None, 5.0]))
            else:
                self.each("on_working", self.order(rng, cid))
        else:
            self.each("on_order_update", "nobody", quantity=1.0)

    def compare(self, rng: random.Random) -> bool:
        """Ask both everything; True when it could all be valued."""
        portfolio, twin = self.portfolio, self.twin
        counters = portfolio.counters
        assert {name: counters[name] for name in COUNTERS} == twin.counters
        assert sorted(position[:5] for position in portfolio.positions()) == twin.positions()
        assert portfolio.blocked() == twin.blocked()
        ours = {view.client_order_id: view for view in portfolio.working_orders()}
        assert set(ours) == set(twin.orders)
        for cid, working in twin.orders.items():
            # NaN prices are not equal, so views are compared as text.
            assert repr(ours[cid]) == repr(working.view)
            assert portfolio.filled_quantity(cid) == twin.filled_quantity(cid)
        probes = [self.order(rng) for _ in range(3)]
        if twin.orders:
            probes.append(twin.orders[rng.choice(sorted(twin.orders))].view)
        for probe in probes:
            if probe.instrument_id == "NOBODY" or probe.side == 0 or not probe.quantity > 0.0:
                continue
            leaves = max(probe.quantity - twin.filled_quantity(probe.client_order_id), 0.0)
            for question in ("is_reducing", "what_if_position", "widens", "order_notional"):
                a, b = (getattr(one, question)(probe, leaves) for one in self.both)
                assert a == b or (a != a and b != b) or (question == "order_notional" and a == pytest.approx(b)), (
                    question
                )
            self.compare_what_if(probe, leaves)
        if twin.blocked():
            return False
        gross = portfolio.gross_notional()
        for case in CASES:
            oracle, bound = twin.pnl(case)
            # Working orders may dwarf what is filled.
            slack = 1e-9 * (gross if case == "filled" else gross + bound)
            for other in (portfolio.full_revaluation(case), oracle):
                assert float(np.abs(portfolio.scenario_pnl(case) - other).max()) <= slack
        return True

    def compare_what_if(self, probe: OrderView, leaves: float) -> None:
        if self.portfolio.var_blocked(probe) is not None:
            assert self.twin.blocked() or self.twin.reason(probe.instrument_id)
            return
        found = list(self.portfolio.what_if(probe, leaves).values())
        expected = self.twin.what_if(probe, leaves)
        for (risk, shortfall), (risk_there, shortfall_there, bound) in zip(found, expected, strict=True):
            assert risk == pytest.approx(risk_there, rel=0.0, abs=1e-9 * bound)
            assert shortfall == pytest.approx(shortfall_there, rel=0.0, abs=1e-9 * bound)
        worst = max(risk for risk, _ in found)
        assert not self.portfolio.var_exceeds(probe, leaves, worst)
        assert self.portfolio.var_exceeds(probe, leaves, math.nextafter(worst, -math.inf))


class TwinMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 9), interval=st.sampled_from([1, 7, 4096]))
    def start(self, seed: int, interval: int) -> None:
        self.pair = Pair(seed, interval)
        for name, price in START.items():
            self.pair.each("on_price", name, price, price, 0)
        for currency in ("EUR", "BTC"):
            self.pair.each("on_rate", currency, 1.5)

    @rule(seed=st.integers(0, 2**32 - 1), count=st.integers(BURST // 2, 3 * BURST // 2), flat=st.integers(0, 9))
    def burst(self, seed: int, count: int, flat: int) -> None:
        rng = random.Random(seed)
        for _ in range(count):
            self.pair.event(rng)
        self.pair.compare(rng)
        if flat == 9:
            self.flatten()

    def flatten(self) -> None:
        """Nothing held, nothing working: exactly zero, whatever there was before."""
        pair = self.pair
        for cid in sorted(pair.twin.orders):
            pair.each("on_order_closed", cid)
        for name, account, position_id, strategy, quantity in pair.twin.positions():
            pair.each("on_fill", name, -quantity, 1.0, position_id, account, strategy)
        assert pair.portfolio.positions() == pair.portfolio.working_orders() == []
        for case in CASES:
            assert not pair.portfolio.scenario_pnl(case).any()


TwinMachine.TestCase.settings = settings(
    max_examples=max(2 * EVENTS // (BURST * BURSTS), 1),
    stateful_step_count=BURSTS,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestTwin = TwinMachine.TestCase


def test_one_long_run_reaches_everything():
    rng = random.Random(20260102)
    pair = Pair(3, 4096)
    valued = 0
    for step in range(6_000):
        pair.event(rng)
        if step % 40 == 0:
            valued += pair.compare(rng)
    assert valued > 40
    counters = pair.portfolio.counters
    for name in COUNTERS:
        assert counters[name] > 3, (name, counters)
    assert counters["rebuilds"] > 3
