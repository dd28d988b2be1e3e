"""The portfolio and the gate against a second, naive implementation that recomputes everything from its ledger.

The naive one shares only the input structures: it keeps lists of positions and orders, sums scenario results with NumPy
and takes value at risk from the sorted losses. Quantities are multiples of 0.5 and prices of
0.25, which binary floats hold exactly, so that limits are compared without rounding.
"""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, RiskGate, RiskLimits, ScenarioSet, VarSettings

SECOND = 10**9
LEVEL = 0.95
S = 160
RANK = 151  # of 160 sorted losses the 152nd: ceil(0.95 * 160)

FACTS = [
    InstrumentFacts("LIN", "linear", 1.0, 0.25, 0.5, 0.5, 400.0, "USD", "USD"),
    InstrumentFacts("EUR", "linear", 10.0, 0.25, 0.5, 0.0, 0.0, "EUR", "EUR"),
    InstrumentFacts("INV", "inverse", 100.0, 0.5, 0.5, 0.0, 0.0, "USD", "BTC"),
    InstrumentFacts("BIN", "binary", 1.0, 1 / 64, 0.5, 0.0, 0.0, "USD", "USD"),
    InstrumentFacts("QTO", "linear", 2.0, 0.25, 0.5, 0.0, 0.0, "JPY", "USD"),
]
BY_NAME = {fact.instrument_id: fact for fact in FACTS}
START = {"LIN": 100.0, "EUR": 50.0, "INV": 20_000.0, "BIN": 0.5, "QTO": 300.0}
LIMITS = RiskLimits(
    max_order_notional=30_000.0,
    max_position={"LIN": 300.0, "*": 500.0, "INV": 400.0},
    price_collar_bps=200.0,
    max_portfolio_var=0.05,
    stale_quote="5s",
)


def scenario_set(seed: int) -> ScenarioSet:
    rng = np.random.default_rng(seed)
    common = rng.standard_t(4, S)
    rows = [0.02 * (b * common + rng.standard_t(4, S)) for b in (1.0, 0.7, -0.5, 3.0, 0.0)]
    return ScenarioSet([fact.instrument_id for fact in FACTS], np.clip(rows, -0.6, 5.0), 60 * SECOND)


class Naive:
    """A ledger, and nothing remembered that could be recomputed."""

    def __init__(self, scenarios: ScenarioSet) -> None:
        self.r = {n: scenarios.returns[i].astype(np.float64) for i, n in enumerate(scenarios.instrument_ids)}
        self.quotes: dict[str, tuple[float, float, int, bool]] = {}  # bid, ask, ts, valid
        self.marks: dict[str, float] = {}
        self.rates = {"USD": 1.0}
        self.equity = math.nan
        self.held: dict[tuple[str, str, str, str], tuple[str, float]] = {}  # owner and quantity
        self.orders: dict[str, list] = {}
        self.killed = False

    def book(self, name, account, position_id, strategy, quantity):
        key = (name, account, position_id, "" if position_id else strategy)
        owner, held = self.held.get(key, ("", 0.0))
        self.held[key] = (owner if held else strategy, held + quantity)

    def positions(self, name):
        return [(k[1], k[2], owner, q) for k, (owner, q) in self.held.items() if k[0] == name and q]

    def net(self, name):
        return sum(q for *_, q in self.positions(name))

    def scope(self, order):
        return sum(
            q
            for account, pid, strategy, q in self.positions(order.instrument_id)
            if (not order.account_id or not account or account == order.account_id)
            and (pid == order.position_id if order.position_id else strategy == order.strategy_id)
        )

    def reducing(self, order, leaves):
        size = self.scope(order)
        if size * order.side >= 0:
            return False
        for cid, (other, filled) in self.orders.items():
            if cid == order.client_order_id or other.instrument_id != order.instrument_id:
                continue
            if other.side != order.side:
                continue
            if other.account_id and order.account_id and other.account_id != order.account_id:
                continue
            if bool(order.position_id) == bool(other.position_id):
                same = (order.position_id or order.strategy_id) == (other.position_id or other.strategy_id)
            else:  # one names the position, the other its owner
                pid = order.position_id or other.position_id
                owner = other.strategy_id if order.position_id else order.strategy_id
                account = order.account_id or other.account_id
                same = any(
                    p == pid and s == owner and account in ("", a) for a, p, s, _ in self.positions(order.instrument_id)
                )
            if same:
                size -= order.side * -1 * (other.quantity - filled)
        return 0 < leaves <= abs(size) and size * order.side < 0

    def reach(self, name, skip="", extra=None, leaves=0.0):
        entries = [(o, o.quantity - f) for c, (o, f) in self.orders.items() if o.instrument_id == name and c != skip]
        if extra is not None:
            entries.append((extra, leaves))
        ends = []
        for side in (-1, 1):
            plain = sum(q for o, q in entries if o.side == side and not o.reduce_only)
            groups: dict[tuple[str, str, str], list] = {}
            for o, q in entries:
                if o.side == side and o.reduce_only:
                    key = (o.account_id, o.position_id, "" if o.position_id else o.strategy_id)
                    groups.setdefault(key, [o, 0.0])[1] += q
            capped = sum(min(total, max(-side * self.scope(o), 0.0)) for o, total in groups.values())
            ends.append(self.net(name) + side * (plain + capped))
        return tuple(ends)

    def opening(self, order, leaves):
        """What is open on the order's side when the orders of that side have filled, one after the other."""
        rows = sorted(
            [k[1:], owner, q * order.side]
            for k, (owner, q) in self.held.items()
            if k[0] == order.instrument_id and q
        )  # fmt: skip
        total = sum(q for *_, q in rows if q > 0)
        queue = [(o, o.quantity - f) for c, (o, f) in self.orders.items() if c != order.client_order_id]
        queue = [(o, q) for o, q in queue if o.instrument_id == order.instrument_id and o.side == order.side]
        queue.append((order, leaves))
        for o, q in [e for e in queue if e[0].reduce_only] + [e for e in queue if not e[0].reduce_only]:
            for row in rows:
                account, pid, _ = row[0]
                named = pid == o.position_id if o.position_id else row[1] == o.strategy_id
                if named and (account in ("", o.account_id) or not o.account_id) and row[2] < 0:
                    closed = min(q, -row[2])
                    row[2] += closed
                    q -= closed
            total += 0 if o.reduce_only else q
        return total

    def unit(self, name):
        fact, p, r = BY_NAME[name], self.marks[name], self.r[name]
        q = p * (1 + r)
        payoff = {
            "linear": lambda: q - p,
            "inverse": lambda: 1 / p - 1 / q,
            "binary": lambda: np.minimum(np.maximum(q, 0), 1) - p,
        }[fact.payoff]()
        return payoff * fact.multiplier * self.rates[fact.settlement_currency]

    def pnl(self, quantities):
        total = np.zeros(S)
        for name, q in quantities.items():
            if q:
                total = total + q * self.unit(name)
        return total

    @staticmethod
    def var(pnl):
        return float(np.sort(-pnl)[RANK])

    def quantities(self, case, extra=None, leaves=0.0):
        out = {}
        for name in BY_NAME:
            mine = extra is not None and extra.instrument_id == name
            low, high = self.reach(name, extra.client_order_id, extra, leaves) if mine else self.reach(name)
            if case == "worst":
                out[name] = low if low == high else max((high, low), key=lambda q: self.var(q * self.unit(name)))
            else:
                out[name] = {"filled": self.net(name), "buys": high, "sells": low}[case]
        return out

    def exposed(self, name):
        return self.net(name) != 0 or any(o.instrument_id == name for o, _ in self.orders.values())

    def valuable(self, name):
        return name in self.marks and BY_NAME[name].settlement_currency in self.rates

    def worst_var(self, order, leaves):
        alone = leaves
        if order.reduce_only:
            alone = min(leaves, max(-order.side * self.scope(order), 0.0))
        with_it = self.quantities("filled")
        with_it[order.instrument_id] += order.side * alone
        cases = [self.quantities("filled"), with_it]
        cases += [self.quantities(case, order, leaves) for case in ("buys", "sells", "worst")]
        return max(self.var(self.pnl(q)) for q in cases)

    def check(self, order):
        """(codes or None when too close to call, reducing)."""
        fact = BY_NAME.get(order.instrument_id)
        sanity = set()
        if fact is None:
            sanity.add("UNKNOWN_INSTRUMENT")
        if order.side not in (-1, 1):
            sanity.add("INVALID_SIDE")
        if not math.isfinite(order.quantity):
            sanity.add("NON_FINITE_QUANTITY")
        elif order.quantity <= 0:
            sanity.add("NON_POSITIVE_QUANTITY")
        needs_price = order.order_type in ("LIMIT", "STOP_LIMIT", "LIMIT_IF_TOUCHED")
        needs_trigger = order.order_type in ("STOP_MARKET", "STOP_LIMIT", "MARKET_IF_TOUCHED", "LIMIT_IF_TOUCHED")
        for value, needed in ((order.price, needs_price), (order.trigger_price, needs_trigger)):
            if (math.isnan(value) and needed) or math.isinf(value):
                sanity.add("NON_FINITE_PRICE")
                break
            if value <= 0:
                sanity.add("NON_POSITIVE_PRICE")
                break
            if fact is not None and fact.payoff == "binary" and value > 1:
                sanity.add("PRICE_OUT_OF_RANGE")
                break
        if sanity:
            return sanity, False
        leaves = order.quantity - (self.orders[order.client_order_id][1] if order.client_order_id in self.orders else 0)
        reducing = self.reducing(order, leaves)
        found = set()
        if any(value % fact.price_increment for value in (order.price, order.trigger_price) if value == value):
            found.add("PRICE_TICK")
        if order.quantity % fact.size_increment:
            found.add("QUANTITY_LOT")
        elif fact.max_quantity and order.quantity > fact.max_quantity:
            found.add("MAX_QUANTITY")
        elif order.quantity < fact.min_quantity and not reducing:
            found.add("MIN_QUANTITY")
        bid, ask, ts, valid = self.quotes.get(order.instrument_id, (0, 0, 0, False))
        if not (reducing and math.isnan(order.price)):
            if order.instrument_id not in self.marks or not valid:
                found.add("MISSING_REFERENCE_PRICE")
            elif abs(order.ts - ts) > 5 * SECOND:
                found.add("STALE_REFERENCE_PRICE")
        if valid and not math.isnan(order.price):
            reference = 0.5 * (bid + ask)
            if not math.isnan(order.trigger_price):
                up = order.trigger_price > reference
                down = order.trigger_price < reference
                stop = order.order_type.startswith("STOP")
                if up if (order.side > 0) == stop else down:
                    reference = order.trigger_price
            if abs(order.price - reference) / reference * 1e4 > 200.0 * (1 + 1e-9):
                found.add("PRICE_COLLAR")
        if reducing:
            return found, True
        if self.killed:
            found.add("KILLED")
        rate = self.rates.get(fact.settlement_currency)
        mark = self.marks.get(order.instrument_id, math.nan)
        prices = [p for p in (mark, order.price, order.trigger_price) if not math.isnan(p)]
        if rate is None:
            found.add("MISSING_RATE")
        elif not prices:
            found.add("MISSING_REFERENCE_PRICE")
        else:
            each = {
                "linear": lambda p: p,
                "inverse": lambda p: 1 / p,
                "binary": lambda p: p if order.side > 0 else 1 - p,
            }[fact.payoff]
            value = max(order.quantity * fact.multiplier * rate * each(p) for p in prices)
            if abs(value / 30_000.0 - 1) < 1e-9:
                return None, False
            if value > 30_000.0:
                found.add("MAX_ORDER_NOTIONAL")
        low, high = self.reach(order.instrument_id, order.client_order_id, order, leaves)
        most = max(high if order.side > 0 else -low, self.opening(order, leaves))
        if most > {"LIN": 300.0, "INV": 400.0}.get(order.instrument_id, 500.0):
            found.add("MAX_POSITION")
        held = [n for n in BY_NAME if self.exposed(n) or n == order.instrument_id]
        if not self.equity > 0:
            found.add("MISSING_EQUITY")
        elif not all(self.valuable(n) for n in held):
            found.add("CANNOT_VALUE")
        else:
            risk = self.worst_var(order, leaves)
            if abs(risk / self.equity - 0.05) < 1e-9:
                return None, False
            if risk > 0.05 * self.equity:
                found.add("MAX_PORTFOLIO_VAR")
        return found, False


class Pair:
    """Both implementations, fed with the same events."""

    def __init__(self, seed: int, rebuild_interval: int = 4096) -> None:
        scenarios = scenario_set(seed)
        var = VarSettings(level=LEVEL, horizon="60s", scenarios=S, base_currency="USD")
        self.portfolio = PortfolioState(FACTS, scenarios, var, rebuild_interval=rebuild_interval)
        self.gate = RiskGate(LIMITS, self.portfolio)
        self.gate.warmup()
        self.naive = Naive(scenarios)
        self.now = 10**15
        self.orders = 0

    def quote(self, name, bid, ask, age=0):
        self.portfolio.on_price(name, bid, ask, self.now - age)
        last = self.naive.quotes.get(name, (0, 0, 0, False))
        if self.now - age < last[2]:
            return
        top = 1.0 if BY_NAME[name].payoff == "binary" else math.inf
        least = bid >= 0 and ask > 0 and bid < 1 if top == 1.0 else bid > 0
        valid = bid <= ask and least and ask < math.inf and ask <= top
        self.naive.quotes[name] = (bid, ask, self.now - age, valid)
        if valid:
            self.naive.marks[name] = 0.5 * (bid + ask)

    def rate(self, currency, value):
        self.portfolio.on_rate(currency, value)
        if value > 0 and math.isfinite(value):
            self.naive.rates[currency] = value
        else:
            self.naive.rates.pop(currency, None)

    def equity(self, value):
        self.portfolio.on_equity(value)
        self.naive.equity = value

    def fill(self, name, quantity, position_id, account, strategy, cid="", trade=""):
        self.portfolio.on_fill(name, quantity, 1.0, position_id, account, strategy, cid, trade)
        self.naive.book(name, account, position_id, strategy, quantity)
        if cid in self.naive.orders:
            entry = self.naive.orders[cid]
            entry[1] += abs(quantity)
            if entry[1] >= entry[0].quantity:
                del self.naive.orders[cid]

    def working(self, order):
        self.portfolio.on_working(order)
        self.naive.orders[order.client_order_id] = [order, 0.0]

    def close(self, cid):
        self.portfolio.on_order_closed(cid)
        self.naive.orders.pop(cid, None)

    def compare_vectors(self):
        naive = self.naive
        if not all(naive.valuable(n) for n in BY_NAME if naive.exposed(n)):
            assert self.portfolio.blocked()
            return
        gross = sum(
            abs(naive.net(n)) * BY_NAME[n].multiplier * naive.rates[BY_NAME[n].settlement_currency]
            * (1 / naive.marks[n] if BY_NAME[n].payoff == "inverse" else naive.marks[n])
            for n in BY_NAME
            if naive.net(n)
        )  # fmt: skip
        assert self.portfolio.gross_notional() == pytest.approx(gross, rel=1e-12)
        for case in ("filled", "buys", "sells", "worst"):
            ours, full = self.portfolio.scenario_pnl(case), self.portfolio.full_revaluation(case)
            oracle = naive.pnl(naive.quantities(case))
            slack = 1e-9 * gross
            if case != "filled":  # working orders may dwarf what is filled
                slack += 1e-9 * sum(
                    abs(q) * float(np.abs(naive.unit(n)).max()) for n, q in naive.quantities(case).items() if q
                )
            assert float(np.abs(ours - full).max()) <= slack
            assert float(np.abs(ours - oracle).max()) <= slack
            assert self.portfolio.value_at_risk(case) == pytest.approx(naive.var(oracle), abs=max(slack, 1e-300))

    def compare_check(self, order):
        expected, reducing = self.naive.check(order)
        verdict = self.gate.check(order)
        if expected is None:
            return verdict
        found = {violation.rule for violation in verdict.violations}
        if "CANNOT_VALUE" in expected:
            expected = expected - {"CANNOT_VALUE"}
            reasons = found & {"UNPRICED_POSITION", "MISSING_RATE"}
            assert reasons
            found -= reasons - expected
        assert found == expected, (order, verdict)
        assert verdict.reducing == reducing
        assert verdict.allowed == (not expected and verdict.allowed)
        return verdict


def random_order(pair: Pair, rng: random.Random) -> OrderView:
    name = rng.choice([*BY_NAME] * 8 + ["NOBODY"])
    fact = BY_NAME.get(name, FACTS[0])
    mark = pair.naive.marks.get(name, START.get(name, 10.0))
    tick = fact.price_increment

    def near(spread):
        return max(round(mark * (1 + rng.uniform(-spread, spread)) / tick), 1) * tick

    kind = rng.choice(["MARKET", "LIMIT", "LIMIT", "STOP_MARKET", "STOP_LIMIT", "LIMIT_IF_TOUCHED"])
    price = near(0.03) if "LIMIT" in kind else math.nan
    trigger = near(0.05) if kind in ("STOP_MARKET", "STOP_LIMIT", "LIMIT_IF_TOUCHED") else math.nan
    if kind == "STOP_LIMIT" and rng.random() < 0.7:
        price = trigger
    scale = {"LIN": 120, "EUR": 40, "INV": 150, "BIN": 400, "QTO": 40}.get(name, 10)
    quantity = rng.randint(1, 2 * scale) * 0.5
    if rng.random() < 0.06:
        quantity = rng.choice([0.0, -1.0, math.nan, math.inf, 0.25, 1e9, 0.75])
    if rng.random() < 0.05:
        price = rng.choice([math.inf, 0.0, -5.0, mark * 1.0001, mark * 10, math.nan])
    pair.orders += 1
    return OrderView(
        f"O{pair.orders}",
        rng.choice(["S1", "S2"]),
        rng.choice(["A1", "A1", "A2", ""]),
        name,
        rng.choice(["", "", "P1"]),
        rng.choice([-1, 1]) if rng.random() < 0.99 else 0,
        quantity,
        price,
        trigger,
        kind,
        rng.random() < 0.2,
        pair.now + rng.choice([0, SECOND, SECOND]) + (6 * SECOND if rng.random() < 0.02 else 0),
    )


def closing_order(pair: Pair, rng: random.Random) -> OrderView | None:
    open_positions = [(n, *p) for n in BY_NAME for p in pair.naive.positions(n)]
    if not open_positions:
        return None
    name, account, position_id, strategy, quantity = rng.choice(open_positions)
    order = random_order(pair, rng)
    order.instrument_id, order.account_id, order.position_id, order.strategy_id = name, account, position_id, strategy
    order.side = -1 if quantity > 0 else 1
    order.order_type, order.price, order.trigger_price = "MARKET", math.nan, math.nan
    order.quantity = abs(quantity) + rng.choice([0.0, 0.0, 0.5, -0.5 if abs(quantity) > 0.5 else 0.0])
    return order


def shake(pair: Pair, rng: random.Random) -> None:
    """One random event that is not an order."""
    pair.now += rng.randint(0, 10**8)
    event = rng.random()
    name = rng.choice([*BY_NAME])
    if event < 0.55:
        tick = BY_NAME[name].price_increment
        mid = pair.naive.marks.get(name, START[name]) * math.exp(rng.gauss(0, 0.003))
        mid = min(max(mid, START[name] * 0.5), START[name] * 1.6)
        bid = max(math.floor(mid / tick) * tick, tick)
        pair.quote(name, bid, bid + tick * rng.randint(0, 3))
        if rng.random() < 0.02:
            pair.quote(name, *rng.choice([(bid + 1, bid), (math.nan, bid), (0.0, bid), (bid, math.inf), (-bid, bid)]))
        if rng.random() < 0.02:
            pair.quote(name, bid, bid, age=10 * SECOND)
    elif event < 0.60:
        pair.rate("EUR", rng.choice([1.1, 1.2, 1.05]))
        pair.rate("BTC", 20_000.0 * rng.uniform(0.9, 1.1))
        if rng.random() < 0.03:
            pair.rate(rng.choice(["EUR", "BTC"]), rng.choice([math.nan, 0.0, -1.0]))
    elif event < 0.63:
        pair.equity(rng.uniform(50_000, 150_000) if rng.random() < 0.97 else rng.choice([math.nan, 0.0, -5.0]))
    elif event < 0.85 and pair.naive.orders:
        order, filled = pair.naive.orders[rng.choice([*pair.naive.orders])]
        leaves = order.quantity - filled
        part = leaves if rng.random() < 0.5 else max(0.5 * rng.randint(1, max(int(leaves), 1)), 0.5)
        pair.fill(
            order.instrument_id, order.side * min(part, leaves), order.position_id, order.account_id or "A1",
            order.strategy_id, order.client_order_id, f"T{pair.now}-{rng.random()}",
        )  # fmt: skip
    elif pair.naive.orders:
        pair.close(rng.choice([*pair.naive.orders]))


def test_ten_thousand_random_orders_agree():
    rng = random.Random(20260101)
    pair = Pair(seed=1, rebuild_interval=257)
    allowed = reducing = 0
    pair.equity(100_000.0)
    pair.rate("EUR", 1.1)
    pair.rate("BTC", 20_000.0)
    for step in range(10_000):
        for _ in range(rng.randint(0, 3)):
            shake(pair, rng)
        if rng.random() < 0.01:
            pair.naive.killed = not pair.naive.killed
            if pair.naive.killed:
                pair.gate.kill("desk", "drill")
            else:
                pair.gate.rearm("desk", "drill over")
        order = closing_order(pair, rng) if rng.random() < 0.2 else None
        order = order or random_order(pair, rng)
        verdict = pair.compare_check(order)
        allowed += verdict.allowed
        reducing += verdict.allowed and verdict.reducing
        if verdict.allowed and len(pair.naive.orders) < 14:
            pair.working(order)
        if step % 500 == 0:
            pair.compare_vectors()
    counters = pair.gate.counters
    assert counters["checked"] == 10_000
    assert counters["allowed"] == allowed
    # The run must have visited both answers and every rule often enough to mean something.
    assert 1_000 < allowed < 9_000
    assert reducing > 200
    for code in ("MAX_ORDER_NOTIONAL", "MAX_POSITION", "PRICE_COLLAR", "MAX_PORTFOLIO_VAR", "KILLED"):
        assert counters["denied"].get(code, 0) > 100, (code, counters)
    for code in ("MISSING_RATE", "MISSING_EQUITY", "MISSING_REFERENCE_PRICE", "STALE_REFERENCE_PRICE", "QUANTITY_LOT",
                 "PRICE_TICK", "MAX_QUANTITY", "UNKNOWN_INSTRUMENT", "NON_FINITE_QUANTITY", "NON_POSITIVE_PRICE",
                 "INVALID_SIDE", "PRICE_OUT_OF_RANGE"):  # fmt: skip
        assert counters["denied"].get(code, 0) > 5, (code, counters)
    assert "INTERNAL_ERROR" not in counters["denied"]
    assert pair.portfolio.counters["rebuilds"] > 10


class PortfolioMachine(RuleBasedStateMachine):
    """Any sequence of events leaves the incremental vectors equal to both full revaluations."""

    @initialize(seed=st.integers(0, 5), interval=st.sampled_from([1, 7, 4096]))
    def start(self, seed, interval):
        self.pair = Pair(seed, interval)
        self.pair.equity(1e6)

    @rule(name=st.sampled_from([*BY_NAME]), move=st.floats(0.5, 1.9), width=st.integers(0, 4))
    def quote(self, name, move, width):
        self.pair.now += 1
        tick = BY_NAME[name].price_increment
        bid = max(round(START[name] * move / tick), 1) * tick
        self.pair.quote(name, bid, bid + width * tick)

    @rule(name=st.sampled_from([*BY_NAME]), bad=st.sampled_from([math.nan, -1.0, 0.0, math.inf]))
    def bad_quote(self, name, bad):
        self.pair.quote(name, bad, START[name])

    @rule(currency=st.sampled_from(["EUR", "BTC"]), value=st.sampled_from([1.1, 25_000.0, 0.01, math.nan, 0.0]))
    def rate(self, currency, value):
        self.pair.rate(currency, value)

    @rule(
        name=st.sampled_from([*BY_NAME]),
        # Huge and tiny positions in one book are what incremental sums are worst at.
        quantity=st.sampled_from([0.5, -0.5, 3.0, -7.5, 40.0, 1e6, -1e6, 1e12, -1e12]),
        position=st.sampled_from(["", "P1"]),
        account=st.sampled_from(["A1", "A2"]),
        strategy=st.sampled_from(["S1", "S2"]),
    )
    def fill(self, name, quantity, position, account, strategy):
        self.pair.fill(name, quantity, position, account, strategy)

    @rule(name=st.sampled_from([*BY_NAME]))
    def flatten(self, name):
        for account, position, strategy, quantity in self.pair.naive.positions(name):
            self.pair.fill(name, -quantity, position, account, strategy)

    @rule(
        name=st.sampled_from([*BY_NAME]),
        side=st.sampled_from([-1, 1]),
        lots=st.integers(1, 400),
        reduce_only=st.booleans(),
        position=st.sampled_from(["", "P1"]),
        account=st.sampled_from(["A1", "A2", ""]),
    )
    def work(self, name, side, lots, reduce_only, position, account):
        pair = self.pair
        pair.orders += 1
        pair.working(
            OrderView(f"W{pair.orders}", "S1", account, name, position, side, lots * 0.5, reduce_only=reduce_only)
        )

    @rule(data=st.data(), part=st.integers(1, 40), whole=st.booleans())
    def fill_order(self, data, part, whole):
        if self.pair.naive.orders:
            cid = data.draw(st.sampled_from(sorted(self.pair.naive.orders)))
            order, filled = self.pair.naive.orders[cid]
            leaves = order.quantity - filled
            size = leaves if whole else min(part * 0.5, leaves)
            self.pair.fill(
                order.instrument_id, order.side * size, order.position_id, "A1", order.strategy_id, cid, f"T{filled}"
            )

    @rule(data=st.data())
    def close_order(self, data):
        if self.pair.naive.orders:
            self.pair.close(data.draw(st.sampled_from(sorted(self.pair.naive.orders))))

    @rule(data=st.data(), lots=st.integers(1, 300))
    def change_order(self, data, lots):
        if self.pair.naive.orders:
            cid = data.draw(st.sampled_from(sorted(self.pair.naive.orders)))
            entry = self.pair.naive.orders[cid]
            self.pair.portfolio.on_order_update(cid, quantity=lots * 0.5)
            entry[0].quantity = lots * 0.5
            if entry[0].quantity <= entry[1]:
                del self.pair.naive.orders[cid]

    @rule(data=st.data())
    def check_changes_nothing(self, data):
        name = data.draw(st.sampled_from([*BY_NAME]))
        order = OrderView("probe", "S1", "A1", name, "", data.draw(st.sampled_from([-1, 1])), 5.0, ts=self.pair.now)
        self.pair.compare_check(order)
        self.pair.gate.check_list([order, OrderView("probe2", "S1", "A1", name, side=-order.side, quantity=2.0)])

    @invariant()
    def equal(self):
        if hasattr(self, "pair"):
            self.pair.compare_vectors()


PortfolioMachine.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestPortfolioMachine = PortfolioMachine.TestCase


def test_twenty_thousand_events_stay_exact():
    rng = random.Random(7)
    pair = Pair(seed=2)
    portfolio = pair.portfolio
    for name, mid in START.items():
        tick = BY_NAME[name].price_increment
        pair.quote(name, mid - tick, mid + tick)
    pair.rate("EUR", 1.1)
    pair.rate("BTC", 20_000.0)
    marks = dict(START)
    for step in range(20_000):
        name = rng.choice([*BY_NAME])
        if rng.random() < 0.7:
            marks[name] *= math.exp(rng.gauss(0, 1e-3))
            half = 1e-4 * marks[name]
            portfolio.on_price(name, marks[name] - half, min(marks[name] + half, 1.0 if name == "BIN" else math.inf),
                               pair.now + step)  # fmt: skip
        else:
            portfolio.on_fill(name, 0.5 * rng.randint(-40, 40), marks[name], "", "A1", "S1", "", f"T{step}")
        portfolio.refresh()
        if step % 1_000 == 0 or step > 19_990:
            error = float(np.abs(portfolio.scenario_pnl() - portfolio.full_revaluation()).max())
            assert error <= 1e-9 * portfolio.gross_notional()
    assert portfolio.counters["rebuilds"] >= 20_000 // 4_096
