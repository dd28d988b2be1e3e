"""The soak of the portfolio: random events against a ledger and a revaluation from scratch."""

from __future__ import annotations

import math
import random
import time
from typing import Any

import numpy as np
from _soak_common import SAY_EVERY, Say, Violations, resident_bytes

SCENARIOS = 500
LEVEL = 0.99
NAMES = [f"{kind}{i:02d}" for kind in ("LIN", "INV", "BIN", "EUR") for i in range(10)]
START = {"LIN": 100.0, "EUR": 50.0, "INV": 20_000.0, "BIN": 0.5}
STRATEGIES = ("S1", "S2")


class Shaker:
    """A portfolio, a ledger of the same events, and the events."""

    def __init__(self, seed: int) -> None:
        from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, ScenarioSet, VarSettings

        self.view = OrderView
        self.random = random.Random(seed)
        rng = np.random.default_rng(seed)
        payoff = {"LIN": "linear", "EUR": "linear", "INV": "inverse", "BIN": "binary"}
        coin = {"LIN": "USD", "EUR": "EUR", "INV": "BTC", "BIN": "USD"}
        facts = [
            InstrumentFacts(
                n, payoff=payoff[n[:3]], multiplier=10.0, size_increment=0.5, settlement_currency=coin[n[:3]]
            )
            for n in NAMES
        ]
        self.facts = {fact.instrument_id: fact for fact in facts}
        common = rng.standard_t(4, SCENARIOS)
        returns = 0.01 * (rng.uniform(-0.5, 1.5, (len(NAMES), 1)) * common + rng.standard_t(4, (len(NAMES), SCENARIOS)))
        scenarios = ScenarioSet(NAMES, np.clip(returns, -0.6, 5.0), 60 * 10**9)
        self.returns = dict(zip(NAMES, scenarios.returns.astype(np.float64), strict=True))
        settings = VarSettings(level=LEVEL, horizon="60s", scenarios=SCENARIOS, base_currency="USD")
        self.portfolio = PortfolioState(facts, scenarios, settings, rebuild_interval=512)
        self.held: dict[tuple[str, str], float] = {}
        self.orders: dict[str, list[Any]] = {}  # the order, what was filled
        self.marks: dict[str, float] = {}
        self.rates = {"USD": 1.0}
        self.now, self.serial = 10**15, 0
        for currency, value in (("EUR", 1.1), ("BTC", 60_000.0)):
            self.set_rate(currency, value)
        for name in NAMES:
            self.set_price(name, START[name[:3]])
        self.counts = dict.fromkeys(
            (
                "prices",
                "invalid_quotes",
                "rates",
                "fills",
                "orders",
                "amendments",
                "closings",
                "restatements",
                "rebuilds",
            ),
            0,
        )

    def set_price(self, name: str, mid: float) -> None:
        half = 1e-3 if name.startswith("BIN") else 1e-4 * mid
        bid, ask = mid - half, mid + half
        self.portfolio.on_price(name, bid, ask, self.now)
        self.marks[name] = bid + 0.5 * (ask - bid)

    def set_rate(self, currency: str, value: float) -> None:
        self.portfolio.on_rate(currency, value)
        self.rates[currency] = value

    def event(self) -> None:
        """One random event."""
        rng = self.random
        self.now += rng.randint(0, 10**8)
        name, dice = rng.choice(NAMES), rng.random()
        counts = self.counts
        if dice < 0.50:
            first = START[name[:3]]
            mid = self.marks[name] * math.exp(rng.gauss(0.0, 0.004))
            self.set_price(name, min(max(mid, 0.3 * first), 1.9 * first))
            counts["prices"] += 1
        elif dice < 0.53:
            bad = rng.choice([(2.0, 1.0), (math.nan, 1.0), (1.0, math.inf), (-1.0, 1.0), (0.0, 0.0)])
            self.portfolio.on_price(name, *bad, self.now)
            counts["invalid_quotes"] += 1
        elif dice < 0.56:
            currency = rng.choice(["EUR", "BTC"])
            self.set_rate(currency, self.rates[currency] * math.exp(rng.gauss(0.0, 0.002)))
            counts["rates"] += 1
        elif dice < 0.72:
            self.fill(name)
            counts["fills"] += 1
        elif dice < 0.86:
            self.serial += 1
            self.open(self.order(name, f"O{self.serial}"))
            counts["orders"] += 1
        elif dice < 0.91:
            self.amend()
            counts["amendments"] += 1
        elif dice < 0.98:
            self.close()
            counts["closings"] += 1
        elif dice < 0.998:
            strategy, quantity = rng.choice(STRATEGIES), 0.5 * rng.randint(-200, 200)
            self.portfolio.set_position(name, quantity, strategy_id=strategy)
            self.held[name, strategy] = quantity
            counts["restatements"] += 1
        else:
            self.portfolio.rebuild()
            counts["rebuilds"] += 1

    def order(self, name: str, identity: str) -> Any:
        rng = self.random
        return self.view(
            identity, rng.choice(STRATEGIES), "", name, side=rng.choice([-1, 1]), quantity=0.5 * rng.randint(1, 100),
            price=self.marks[name], order_type="LIMIT", reduce_only=rng.random() < 0.2, ts=self.now,
        )  # fmt: skip

    def open(self, order: Any) -> None:
        if len(self.orders) < 60:
            self.portfolio.on_working(order)
            self.orders[order.client_order_id] = [order, 0.0]

    def fill(self, name: str) -> None:
        """Of a working order where there is one, else of nobody's."""
        rng = self.random
        self.serial += 1
        trade = f"T{self.serial}"
        if self.orders and rng.random() < 0.7:
            identity = rng.choice(list(self.orders))
            order, filled = self.orders[identity]
            leaves = order.quantity - filled
            quantity = 0.5 * rng.randint(1, max(int(2 * leaves), 1))
            name, strategy, signed = order.instrument_id, order.strategy_id, order.side * quantity
            self.orders[identity][1] += quantity
            if self.orders[identity][1] >= order.quantity:
                del self.orders[identity]
        else:
            identity, strategy, signed = "", rng.choice(STRATEGIES), 0.5 * rng.choice([-1, 1]) * rng.randint(1, 60)
        for _ in range(2 if rng.random() < 0.1 else 1):  # venues repeat themselves
            self.portfolio.on_fill(
                name, signed, self.marks[name], strategy_id=strategy, client_order_id=identity, trade_id=trade
            )
        self.held[name, strategy] = self.held.get((name, strategy), 0.0) + signed

    def amend(self) -> None:
        if self.orders:
            identity = self.random.choice(list(self.orders))
            order, filled = self.orders[identity]
            order.quantity = filled + 0.5 * self.random.randint(1, 100)
            self.portfolio.on_order_update(identity, quantity=order.quantity)

    def close(self) -> None:
        if self.orders:
            identity = self.random.choice(list(self.orders))
            self.portfolio.on_order_closed(identity)
            del self.orders[identity]

    def unit(self, name: str) -> np.ndarray:
        """Result of one unit in every scenario, base currency."""
        fact, p = self.facts[name], self.marks[name]
        moved = p * (1.0 + self.returns[name])
        if fact.payoff == "linear":
            result = moved - p
        elif fact.payoff == "inverse":
            result = 1.0 / p - 1.0 / moved
        else:
            result = np.clip(moved, 0.0, 1.0) - p
        return result * fact.multiplier * self.rates[fact.settlement_currency]

    def compare(self, found: Violations, label: str) -> float:
        """Largest difference found, as a share of what is at stake."""
        units = {name: self.unit(name) for name in NAMES}
        stake = sum(abs(q) * float(np.abs(units[name]).max()) for (name, _), q in self.held.items())
        stake += sum(
            (order.quantity - filled) * float(np.abs(units[order.instrument_id]).max())
            for order, filled in self.orders.values()
        )
        slack = 1e-9 * stake + 1e-12
        oracle = sum((q * units[name] for (name, _), q in self.held.items()), np.zeros(SCENARIOS))
        worst = 0.0
        for case in ("filled", "buys", "sells", "worst"):
            ours, full = self.portfolio.scenario_pnl(case), self.portfolio.full_revaluation(case)
            off = float(np.abs(ours - full).max())
            if case == "filled":
                off = max(off, float(np.abs(ours - oracle).max()))
            rank = math.ceil(LEVEL * SCENARIOS - 1e-9)  # the loss that at least this many do not exceed
            off = max(off, abs(self.portfolio.value_at_risk(case) - float(np.sort(-full)[rank - 1])))
            if not off <= slack:
                found.add(f"{label}, case {case}: off by {off:.6g}, allowed {slack:.6g}")
            worst = max(worst, off / max(stake, 1e-12))
        order = self.order(self.random.choice(NAMES), "QUESTION")
        exact = max(value for value, _ in self.portfolio.what_if(order).values())
        margin = max(1e-6 * abs(exact), 10.0 * slack)
        for limit, expected in ((exact + margin, False), (exact - margin, True)):
            if self.portfolio.var_exceeds(order, order.quantity, limit) != expected:
                found.add(f"{label}: value at risk {exact!r} above {limit!r} was answered {not expected}")
        return worst


def soak_portfolio(seconds: float, seed: int, say: Say) -> dict[str, Any]:
    """Shake a portfolio until the time is over."""
    shaker, found = Shaker(seed), Violations()
    events = comparisons = 0
    worst, said, resident = 0.0, 0.0, 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds or not comparisons:
        for _ in range(shaker.random.randint(1, 60)):
            shaker.event()
            events += 1
        worst = max(worst, shaker.compare(found, f"after event {events}"))
        comparisons += 1
        if comparisons == 200:
            resident = resident_bytes()
        if elapsed - said >= SAY_EVERY:
            said = elapsed
            say(
                events=events, comparisons=comparisons, rss_bytes=resident_bytes(),
                worst_relative=worst, violations=found.count,
            )  # fmt: skip
    if shaker.portfolio.faults:
        found.add(f"faults: {', '.join(shaker.portfolio.faults[:5])}")
    return {
        "seed": seed,
        "instruments": len(NAMES),
        "scenarios": SCENARIOS,
        "events": events,
        "events_by_kind": shaker.counts,
        "comparisons": comparisons,
        "worst_difference_over_stake": worst,
        "rss_growth_bytes": resident_bytes() - resident if resident else None,
        "violations": found.count,
        "violation_texts": found.texts,
    }
