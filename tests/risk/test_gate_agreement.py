"""Random orders through the gate and through its plain twin: the same codes, always.

TENGRI_GATE_ORDERS asks for more orders than the default; a million take some minutes.
"""

from __future__ import annotations

import copy
import math
import os
import random
from collections import Counter
from types import SimpleNamespace

import pytest
from gate_twin import CODES, SECOND, Twin

from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, RiskGate, RiskLimits
from tengri_fast.risk.limits import ScopedLimit
from tengri_fast.risk.windows import TradingWindow

NAN = math.nan
ORDERS = int(os.environ.get("TENGRI_GATE_ORDERS", "15000"))
FACTS = [
    InstrumentFacts("LIN.A", "linear", 1.0, 0.25, 0.5, 0.5, 400.0, margin_rate=0.25, bucket="x"),
    InstrumentFacts("EUR.A", "linear", 10.0, 0.25, 0.5, 0.0, 0.0, "EUR", "EUR", bucket="x", short="uptick"),
    InstrumentFacts("INV.B", "inverse", 100.0, 0.5, 0.5, 0.0, 0.0, "USD", "BTC", bucket="y", margin_rate=0.5),
    InstrumentFacts("BIN.B", "binary", 1.0, 1 / 64, 0.5, 0.0, 0.0, bucket="y"),
    InstrumentFacts("CSH.C", "linear", 2.0, 0.25, 0.5, 1.0, 0.0, short="forbidden"),
]
START = {"LIN.A": 100.0, "EUR.A": 50.0, "INV.B": 20_000.0, "BIN.B": 0.5, "CSH.C": 300.0}
BEGIN = 1_700_000_000 * SECOND  # a Tuesday
SETS = {
    "flow": RiskLimits(
        price_collar_bps=150.0, collar_window="4s", stale_quote="5s", max_order_rate="9/3s", max_message_rate="16/3s",
        duplicate_window="500ms", max_working_orders=5, max_working_notional="90%", self_trade="deny",
        max_spread_bps=150.0, max_order_quantity={"LIN.A": 18.0, "*": 25.0}, deny=("CSH.C",),
        scoped=(
            ScopedLimit(scope="strategy:S1", measure="order_rate", limit="6/2s"),
            ScopedLimit(scope="venue:B", measure="message_rate", limit="9/2s"),
            ScopedLimit(scope="strategy:S2", measure="working_orders", limit=3.0),
            ScopedLimit(scope="instrument:LIN.A", measure="working_notional", limit=2500.0),
        ),
        rate_reserve=2,
    ),
    "exposure": RiskLimits(
        max_order_notional=4_000.0, max_position={"LIN.A": 30.0, "*": 40.0, "INV.B": 35.0},
        max_gross_exposure=40_000.0, max_net_exposure="80%", max_concentration=0.5, max_leverage=1.5,
        max_margin_use=0.9,
        scoped=(
            ScopedLimit(scope="venue:A", measure="gross_exposure", limit=25_000.0),
            ScopedLimit(scope="bucket:y", measure="net_exposure", limit=9_000.0),
            ScopedLimit(scope="strategy:S1", measure="gross_exposure", limit="40%"),
            ScopedLimit(scope="strategy:S2", measure="net_exposure", limit=8_000.0),
            ScopedLimit(scope="strategy:S2", measure="position", limit=25.0),
            ScopedLimit(scope="instrument:EUR.A", measure="concentration", limit=0.3),
            ScopedLimit(scope="bucket:x", measure="leverage", limit=0.7),
            ScopedLimit(scope="venue:C", measure="order_quantity", limit=6.0),
            ScopedLimit(scope="venue:B", measure="margin_use", limit=0.4, soft=0.2),
            ScopedLimit(scope="portfolio", measure="working_orders", soft=3.0),
        ),
    ),
    "account": RiskLimits(
        max_order_notional=9_000.0, max_daily_loss=0.05, max_drawdown=0.1, day_boundary="22:30", max_rung=2,
        max_out_of_distribution=3.0, min_confidence=0.25, max_signal_age="20s", price_collar_bps=300.0,
        collar_reference="last",
        allow=("LIN.A", "EUR.A", "INV.B", "CSH.C"),
        window=(
            TradingWindow(venue="A", days=("mon", "tue", "wed", "fri"), opens="04:30", closes="16:00",
                          time_zone="America/New_York"),
            TradingWindow(instrument="INV.B", days=("tue", "wed", "sat"), opens="22:00", closes="05:15:30",
                          time_zone="Asia/Tokyo"),
            TradingWindow(venue="C", days=("mon", "wed", "thu")),
            TradingWindow(venue="C", days=("fri",), opens="00:00", closes="12:00"),
        ),
    ),
}  # fmt: skip
CANNOT_VALUE = {"UNPRICED_POSITION", "MISSING_RATE"}


class Pair:
    """The gate and its twin, fed with the same events."""

    def __init__(self, limits, seed, step):
        self.rng = random.Random(seed)
        self.portfolio = PortfolioState(FACTS, base_currency="USD")
        self.gate = RiskGate(limits, self.portfolio)
        self.gate.warmup()
        self.twin = Twin(FACTS, limits)
        self.now = BEGIN
        self.step = step
        self.number = 0
        self.seen: Counter[str] = Counter()
        self.unsure = 0
        self.equity(20_000.0)
        for name, price in START.items():
            self.quote(name, price, price + FACTS[0].price_increment if price > 1 else price + 1 / 64)
            self.last(name, price)
        for currency, value in (("EUR", 1.25), ("BTC", 20_000.0)):
            self.rate(currency, value)
        for strategy in ("S1", "S2", "S3"):
            self.source(strategy, SimpleNamespace(rung=0, out_of_distribution=0.0, confidence=1.0, ts=BEGIN))

    def last(self, name, price):
        self.portfolio.on_last(name, price)
        self.twin.lasts[name] = price

    def source(self, strategy, source):
        self.gate.register_health(strategy, source)
        self.twin.health[strategy] = source

    def quote(self, name, bid, ask, ts=None):
        ts = self.now if ts is None else ts
        self.portfolio.on_price(name, bid, ask, ts)
        self.twin.quote(name, bid, ask, ts)

    def rate(self, currency, value):
        self.portfolio.on_rate(currency, value)
        if value > 0:
            self.twin.rates[currency] = value
        else:
            self.twin.rates.pop(currency, None)

    def equity(self, value):
        self.twin.equity = value
        self.portfolio.on_equity(value)

    def market(self):
        """Something happens that is no order."""
        rng = self.rng
        name = rng.choice(list(START))
        tick = 1 / 64 if name == "BIN.B" else 0.5
        kind = rng.random()
        if kind < 0.6:
            bid = START[name] + tick * rng.randint(-4, 4)
            ask = bid + tick * rng.choice([0, 1, 1, 1, 1, 2, 2, 8])
            bid = rng.choice([bid] * 60 + [NAN, ask + tick, 0.0])
            ts = self.now - (rng.randint(0, 3) * SECOND if rng.random() < 0.1 else 0)
            self.quote(name, bid, ask, ts)
        elif kind < 0.66:
            self.last(name, START[name] + tick * rng.randint(-4, 4))
        elif kind < 0.68:
            currency = rng.choice(["EUR", "BTC"])
            good = {"EUR": (1.25, 1.0), "BTC": (20_000.0, 16_384.0)}[currency]
            self.rate(currency, rng.choice([*good, *good, *good, NAN]))
        elif kind < 0.78:
            value = 20_000.0 + 125.0 * rng.randint(-10, 9)
            value = rng.choice([value] * 40 + [NAN])
            self.equity(value)
            if rng.random() < 0.5:
                self.gate.on_equity(value, self.now)
                self.twin.tick(self.now)
                if self.gate.limits.max_daily_loss is not None:
                    self.twin.note_equity(self.now)
        elif kind < 0.82:
            strategy = rng.choice(["S1", "S2"])
            self.gate.on_cancel(strategy, name, self.now)
            cancel = OrderView("", strategy, "X", name)
            self.twin.sent.append((self.twin.tick(self.now), "cancel", cancel))
        elif kind < 0.85:
            tradable = name in self.twin.halted or rng.random() < 0.7
            self.gate.on_status(name, tradable, "news")
            (self.twin.halted.discard if tradable else self.twin.halted.add)(name)
        elif kind < 0.9:
            self.switch()
        elif kind < 0.96:
            strategy = rng.choice(["S1", "S2"])
            source = SimpleNamespace(
                rung=rng.choice([0, 0, 1, 1, 2, 2, 3]),
                out_of_distribution=rng.choice([0.5, 0.5, 2.0, 2.0, 3.0, 3.5, NAN]),
                confidence=rng.choice([0.1, 0.25, 0.9, 0.9, 0.9, NAN]),
                ts=self.now,
            )  # fmt: skip
            self.source(strategy, rng.choice([source] * 9 + [None]))
        elif self.gate.wants_mids:
            mid = START[name] * rng.choice([0.99, 1.0, 1.01])
            self.gate.on_mid(name, mid, self.now)
            self.twin.mids.append((name, self.now, mid))

    def switch(self):
        rng = self.rng
        for name in list(self.gate.kills):
            if rng.random() < 0.8:
                self.gate.rearm(name, "drill")
                del self.twin.killed[name]
                if name in ("daily-loss", "drawdown"):
                    self.twin.restart(name.replace("-", "_"))
        if rng.random() < 0.2:
            scope = rng.choice(["portfolio", "strategy:S1", "venue:B", "instrument:LIN.A", "bucket:x", "strategy:S9"])
            self.gate.kill(f"k{rng.randint(0, 3)}", "drill", scope)
            for name, where in self.gate.kill_scopes.items():
                self.twin.killed.setdefault(name, where)

    def make(self):
        """An order, mostly a sound one."""
        rng = self.rng
        self.number += 1
        if self.twin.sent and rng.random() < 0.06:  # the same once more
            *_, again = self.twin.sent[-1]
            if again.client_order_id and again.client_order_id not in self.twin.orders:
                fields = {field: getattr(again, field) for field in again.__struct_fields__}
                return OrderView(**{**fields, "client_order_id": f"o{self.number}", "ts": self.now})
        name = rng.choice(list(START))
        tick = 1 / 64 if name == "BIN.B" else 0.5
        price = START[name] + tick * rng.randint(-5, 5)
        trigger = START[name] + tick * rng.randint(-5, 5)
        kind = rng.choice(["LIMIT"] * 6 + ["MARKET"] * 4 + ["STOP_MARKET", "STOP_LIMIT", "LIMIT_IF_TOUCHED",
                          "MARKET_IF_TOUCHED", "MARKET_TO_LIMIT", "TRAILING_STOP_MARKET"])  # fmt: skip
        view = OrderView(
            f"o{self.number}", rng.choice(["S1", "S1", "S2", "S3"]), rng.choice(["X", "X", "X", "Y", ""]), name,
            position_id=rng.choice(["", "", "", "P1"]), side=rng.choice([-1, 1]),
            quantity=0.5 * rng.choice([1, 2, 3, 4, 8, 12, 20, 30, 60]),
            price=price if "LIMIT" in kind else NAN,
            trigger_price=trigger if "STOP" in kind or "TOUCHED" in kind else NAN,
            order_type=kind, reduce_only=rng.random() < 0.15, ts=self.now,
            exclusive_group=rng.choice(["", "", "", "", "g1", "g2"]),
        )  # fmt: skip
        if rng.random() < 0.05:
            field, value = rng.choice([
                ("quantity", NAN), ("quantity", 0.0), ("quantity", 0.3), ("price", math.inf), ("price", -1.0),
                ("price", START[name] + 0.1), ("side", 0), ("order_type", "ICEBERG"), ("instrument_id", "NONE"),
                ("ts", self.now - 20 * SECOND), ("quantity", 500.0), ("trigger_price", 0.0),
            ])  # fmt: skip
            setattr(view, field, value)
        return view

    def submit(self):
        view = self.make()
        source = self.twin.health.get(view.strategy_id)
        if source is not None:
            source.ts = self.now + self.rng.choice([0, 0, 0, 0, 0, 0, -19, 20, -21, 21]) * SECOND
        self.compare(view, self.gate.check(view), *self.twin.check(view))

    def modify(self):
        if not self.twin.orders:
            return
        view, _ = self.twin.orders[self.rng.choice(list(self.twin.orders))]
        quantity = 0.5 * self.rng.choice([1, 2, 4, 8, 20])
        price = None if math.isnan(view.price) else view.price + 0.5 * self.rng.choice([0, 0, 1])
        old = (view.quantity, view.price, view.ts)
        changed = OrderView(**{f: getattr(view, f) for f in view.__struct_fields__})
        changed.quantity, changed.ts = quantity, self.now
        changed.price = view.price if price is None else price
        calmer = (quantity <= old[0] and changed.price == old[1]) or (quantity <= old[0] and price is None)
        sender = OrderView(**{f: getattr(view, f) for f in view.__struct_fields__})
        sender.ts = self.now
        verdict = self.gate.check_modify(sender, quantity, price)
        if self.compare(changed, verdict, *self.twin.check(changed, modify=True, calmer=calmer), work=False):
            self.portfolio.on_order_update(view.client_order_id, quantity, price)
            view.quantity, view.price = quantity, changed.price
            if view.quantity <= self.twin.orders[view.client_order_id][1]:
                del self.twin.orders[view.client_order_id]

    def compare(self, view, verdict, codes, reducing, work=True):
        found = {violation.rule for violation in verdict.violations}
        if codes is None:
            self.unsure += 1
            self.twin.killed = dict(self.gate.kill_scopes)
            if verdict.allowed:
                self.twin.sent.append((self.twin.now, "order" if work else "modify", copy.copy(view)))
        else:
            if found & CANNOT_VALUE and codes & CANNOT_VALUE:
                found, codes = found - CANNOT_VALUE, codes - CANNOT_VALUE
            assert found == codes, (view, verdict, codes)
            assert verdict.allowed == (not verdict.violations)
            assert not codes or not verdict.allowed
            if not {"UNKNOWN_INSTRUMENT"} & found:
                assert verdict.reducing == reducing, (view, verdict)
            assert dict(self.gate.kill_scopes) == self.twin.killed
        self.seen.update(violation.rule for violation in verdict.violations)
        self.seen["allowed"] += verdict.allowed
        self.seen["reducing"] += verdict.reducing
        if verdict.allowed and work and self.rng.random() < 0.8:
            self.portfolio.on_working(view)
            self.twin.orders[view.client_order_id] = [view, 0.0]
        return verdict.allowed

    def settle(self):
        """Working orders fill and go."""
        rng = self.rng
        if not self.twin.orders:
            return
        cid = rng.choice(list(self.twin.orders))
        view, filled = self.twin.orders[cid]
        if rng.random() < 0.6:
            left = view.quantity - filled
            if view.reduce_only:
                left = min(left, max(-view.side * self.twin.scope(view), 0.0))
            quantity = min(left, 0.5 * rng.randint(1, 12))
            if quantity:
                args = (view.side * quantity, view.account_id, view.position_id, view.strategy_id, cid)
                self.twin.fill(view.instrument_id, *args)
                self.portfolio.on_fill(view.instrument_id, args[0], 1.0, args[2], args[1], args[3], cid)
                return
        self.twin.orders.pop(cid)
        self.portfolio.on_order_closed(cid)

    def play(self, orders):
        while self.number < orders:
            self.now += self.rng.randint(0, self.step)
            kind = self.rng.random()
            if kind < 0.45:
                self.submit()
            elif kind < 0.5:
                self.modify()
            elif kind < 0.66 or len(self.twin.orders) > 18:
                self.settle()
            else:
                self.market()
            if self.number % 64 == 0:
                self.forget()

    def forget(self):
        """What no window sees any more need not be looked through."""
        horizon = self.twin.now - 10 * SECOND
        self.twin.sent = [row for row in self.twin.sent if row[0] > horizon]
        self.twin.mids = [row for row in self.twin.mids if row[1] > horizon]


@pytest.mark.parametrize(("name", "step"), [("flow", SECOND // 8), ("exposure", SECOND), ("account", 2400 * SECOND)])
def test_gate_and_twin_agree(name, step):
    seen: Counter[str] = Counter()
    unsure = 0
    share = ORDERS // 3
    for seed in range(share // 400):
        pair = Pair(SETS[name], seed, step)
        pair.play(400)
        assert pair.portfolio.faults == ()
        seen += pair.seen
        unsure += pair.unsure
    assert unsure < share // 50, unsure
    wanted = {CODES[each.measure] for each, _ in Twin(FACTS, SETS[name]).all_limits()}
    assert {"allowed", "reducing"} <= set(seen)
    assert seen["allowed"] > share // 20, seen
    assert wanted <= set(seen), (wanted - set(seen), seen)
    if name == "flow":
        wanted = {"PRICE_COLLAR", "PRICE_COLLAR_WINDOW", "DUPLICATE_ORDER", "SELF_TRADE", "MAX_SPREAD",
                  "MAX_ORDER_RATE", "MAX_MESSAGE_RATE", "STALE_REFERENCE_PRICE", "INSTRUMENT_NOT_ALLOWED"}  # fmt: skip
    elif name == "account":
        wanted = {"OUTSIDE_TRADING_WINDOW", "MODEL_RUNG", "MODEL_OUT_OF_DISTRIBUTION", "MODEL_CONFIDENCE",
                  "MODEL_SIGNAL_AGE", "MISSING_MODEL_HEALTH", "KILLED", "MISSING_EQUITY", "INSTRUMENT_HALTED",
                  "SHORT_SALE", "INSTRUMENT_NOT_ALLOWED"}  # fmt: skip
    else:
        wanted = {"MISSING_RATE", "MISSING_EQUITY", "KILLED"}
    assert wanted <= set(seen), (wanted - set(seen), seen)
