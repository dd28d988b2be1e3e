"""A gate over three instruments at 100, for the tests of its limits."""

from __future__ import annotations

import math

from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, RiskGate, RiskLimits

NAN = math.nan
SECOND = 10**9
DAY = 86_400 * SECOND
FACTS = [
    InstrumentFacts("A.V1", "linear", 1.0, 0.25, 0.5, bucket="tech", margin_rate=0.25),
    InstrumentFacts("B.V1", "linear", 1.0, 0.25, 0.5, bucket="tech", short="forbidden"),
    InstrumentFacts("C.V2", "linear", 1.0, 0.25, 0.5, bucket="oil", short="uptick"),
]


def make(*, extra=(), facts=FACTS, equity=10_000.0, **limits):
    """A gate over three instruments at 100, armed."""
    if not any(key.startswith("max_") and key not in HEALTH for key in limits) and "scoped" not in limits:
        limits["max_order_notional"] = 1e12  # a gate without any limit is refused
    portfolio = PortfolioState(facts, base_currency="USD")
    gate = RiskGate(RiskLimits(**limits), portfolio, extra_rules=extra)
    gate.warmup()
    for fact in facts:
        portfolio.on_price(fact.instrument_id, 99.75, 100.25, SECOND)
    portfolio.on_equity(equity)
    return gate


# Settings that are no limit by themselves.
HEALTH = (
    "max_rung", "max_out_of_distribution", "max_signal_age", "max_spread_bps", "max_rejects", "max_repeated_executions",
)  # fmt: skip
NUMBER = iter(range(10**9))


def order(name="A.V1", side=1, quantity=1.0, price=NAN, cid=None, strategy="S", **rest):
    rest.setdefault("order_type", "LIMIT" if price == price else "MARKET")
    rest.setdefault("ts", 2 * SECOND)
    cid = f"o{next(NUMBER)}" if cid is None else cid
    return OrderView(cid, strategy, "X", name, side=side, quantity=quantity, price=price, **rest)


def codes(verdict):
    assert verdict.allowed == (not verdict.violations)
    return [violation.rule for violation in verdict.violations]


def hold(gate, quantity, name="A.V1", strategy="S"):
    gate.portfolio.set_position(name, quantity, account_id="X", strategy_id=strategy)
