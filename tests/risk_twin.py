"""The portfolio as it was first written, in plain Python: the independent reference of tengri_fast.risk.portfolio.

Nothing is kept that could be computed: sums over orders, sides and groups are made anew for every question, and the
results of scenarios are revalued from positions and prices in NumPy. Names and rules are those of the real one.
"""

from __future__ import annotations

import copy
import math

import numpy as np

from tengri_fast.risk import InstrumentFacts, OrderView, ScenarioSet, expected_shortfall, value_at_risk

NAN = math.nan
CASES = ("filled", "buys", "sells", "worst")
COUNTERS = (
    "backward_quotes", "duplicate_fills", "early_fills", "faults", "invalid_quotes", "invalid_rates", "late_orders",
    "unknown_orders", "unknown_quotes",
)  # fmt: skip


class Position:
    def __init__(self, key, strategy):
        self.key = key
        self.account, self.position_id, _ = key
        self.strategy = strategy
        self.quantity = 0.0
        self.last_price = NAN


class Working:
    def __init__(self, view, book, filled):
        self.view, self.book, self.filled = view, book, filled

    @property
    def leaves(self):
        return max(self.view.quantity - self.filled, 0.0)

    @property
    def done(self):
        return self.leaves <= self.book.tolerance(self.view.quantity)


def group_of(order):
    return order.account_id, order.strategy_id, order.exclusive_group, order.side


def closes(order, position):
    """Whether a position is one that an order would close."""
    if order.account_id and position.account and order.account_id != position.account:
        return False
    if order.position_id:
        return position.position_id == order.position_id
    return position.strategy == order.strategy_id


class Book:
    """One instrument: its quote, its positions, its working orders."""

    def __init__(self, facts):
        self.facts = facts
        self.bid = self.ask = self.mid = NAN
        self.ts, self.valid = 0, False
        self.positions: dict = {}
        self.orders: dict = {}
        self.net = 0.0

    def snap(self, quantity):
        lot = self.facts.size_increment
        if lot > 0.0 and math.isfinite(quantity):
            whole = round(quantity / lot)
            if abs(quantity / lot - whole) < 1e-6:
                return whole * lot
        return quantity

    def tolerance(self, quantity):
        lot = self.facts.size_increment
        return 1e-6 * lot if lot > 0.0 else 1e-12 * abs(quantity)

    def notional(self, order, quantity, rate):
        scale = abs(quantity) * self.facts.multiplier * rate
        values = []
        for price in (self.mid, order.price, order.trigger_price):
            if not math.isnan(price):
                each = {"linear": price, "inverse": 1.0 / price, "binary": price if order.side > 0 else 1.0 - price}
                values.append(scale * each[self.facts.payoff])
        return max(values) if values and not math.isnan(rate) else NAN

    def position(self, position_id, account_id, strategy_id):
        key = (account_id, position_id, "" if position_id else strategy_id)
        if key not in self.positions:
            self.positions[key] = Position(key, strategy_id)
        return self.positions[key]

    def moved(self, position):
        if position.quantity == 0.0:
            self.positions.pop(position.key, None)
        self.net = self.snap(sum(item.quantity for _, item in sorted(self.positions.items())))

    def scope(self, order):
        parts = [item.quantity for _, item in sorted(self.positions.items()) if closes(order, item)]
        return sum(parts) if len(parts) < 2 else self.snap(sum(parts))

    def same_scope(self, a, b):
        """Whether two orders would close the same position."""
        if a.account_id and b.account_id and a.account_id != b.account_id:
            return False
        if bool(a.position_id) == bool(b.position_id):
            return a.position_id == b.position_id and (bool(a.position_id) or a.strategy_id == b.strategy_id)
        named, other = (a, b) if a.position_id else (b, a)
        return any(
            position.position_id == named.position_id
            and position.strategy == other.strategy_id
            and (not position.account or position.account == (a.account_id or b.account_id or position.account))
            for position in self.positions.values()
        )

    def reduces(self, order, leaves):
        position = self.scope(order)
        if position * order.side >= 0.0:
            return False
        capacity, groups = abs(position), {}
        for name, working in self.orders.items():
            view = working.view
            if view.side == order.side and name != order.client_order_id and self.same_scope(order, view):
                if view.exclusive_group:
                    groups[group_of(view)] = max(groups.get(group_of(view), 0.0), working.leaves)
                else:
                    capacity -= working.leaves
        if order.exclusive_group:
            groups.pop(group_of(order), None)
        return 0.0 < leaves <= capacity - sum(groups.values()) + self.tolerance(position)

    def extremes(self, order=None, leaves=0.0):
        """Lowest and highest net quantity, every working order of that side filled."""
        skip = None if order is None else order.client_order_id
        entries = [(item.view, item.leaves) for name, item in self.orders.items() if name != skip]
        if order is not None:
            entries.append((order, leaves))
        sides = {1: 0.0, -1: 0.0}
        groups: dict = {}
        room: dict = {}
        for view, quantity in entries:
            if view.reduce_only:
                key = (view.account_id, view.position_id, "" if view.position_id else view.strategy_id, view.side)
                entry = room.setdefault(key, [max(-view.side * self.scope(view), 0.0), 0.0])
                entry[1] += quantity
            elif view.exclusive_group:
                groups[group_of(view)] = max(groups.get(group_of(view), 0.0), quantity)
            else:
                sides[view.side] += quantity
        for key, quantity in groups.items():
            sides[key[3]] += quantity
        for key, (size, total) in room.items():
            sides[key[3]] += min(size, total)
        return self.net - sides[-1], self.net + sides[1]

    def opening(self, order, leaves):
        """Quantity open on the side of an order, positions of the other side left out, all orders of it filled."""
        side, total, room = order.side, 0.0, {}
        for key, position in sorted(self.positions.items()):
            if position.quantity * side > 0.0:
                total += abs(position.quantity)
            else:
                room[key] = abs(position.quantity)
        entries = [
            (item.view, item.leaves)
            for name, item in self.orders.items()
            if item.view.side == side and name != order.client_order_id
        ]
        entries.append((order, leaves))
        entries.sort(key=lambda entry: not entry[0].reduce_only)
        groups: dict = {}
        for view, quantity in entries:
            left = quantity
            if not view.reduce_only and view.exclusive_group:
                member = (group_of(view), view.position_id)
                left = max(quantity - groups.get(member, 0.0), 0.0)
                groups[member] = groups.get(member, 0.0) + left
            for key, size in room.items():
                if closes(view, self.positions[key]):
                    room[key] = size - min(size, left)
                    left -= min(size, left)
            if not view.reduce_only:
                total += left
        return self.snap(total)


class Twin:
    """The events and readings of PortfolioState."""

    def __init__(self, facts: list[InstrumentFacts], scenarios: ScenarioSet, level: float, base: str) -> None:
        self.books = {fact.instrument_id: Book(fact) for fact in facts}
        self.r = {n: scenarios.returns[i].astype(np.float64) for i, n in enumerate(scenarios.instrument_ids)}
        self.level, self.base, self.rates = level, base, {base: 1.0}
        self.orders: dict[str, Working] = {}
        self.closed: set[str] = set()
        self.trades: set[tuple[str, str, str]] = set()
        self.early: dict[str, float] = {}
        self.counters = dict.fromkeys(COUNTERS, 0)

    # -- events ------------------------------------------------------------------------------------------------------

    def on_price(self, name, bid, ask, ts):
        book = self.books.get(name)
        if book is None:
            self.counters["unknown_quotes"] += 1
        elif ts < book.ts:
            self.counters["backward_quotes"] += 1
        else:
            book.ts = ts
            if book.facts.payoff == "binary":
                book.valid = 0.0 <= bid <= ask <= 1.0 and ask > 0.0 and bid < 1.0
            else:
                book.valid = 0.0 < bid <= ask < math.inf
            if book.valid:
                book.bid, book.ask, book.mid = bid, ask, bid + 0.5 * (ask - bid)
            self.counters["invalid_quotes"] += not book.valid

    def on_rate(self, currency, value):
        if currency == self.base:
            self.counters["invalid_rates"] += value != 1.0
        elif 0.0 < value < math.inf:
            self.rates[currency] = value
        else:
            self.counters["invalid_rates"] += 1
            self.rates.pop(currency, None)

    def on_fill(self, name, quantity, price, position_id="", account="", strategy="", cid="", trade=""):
        book = self.books.get(name)
        if book is None:
            self.counters["faults"] += 1
            return
        if trade:
            if (name, cid, trade) in self.trades:
                self.counters["duplicate_fills"] += 1
                return
            self.trades.add((name, cid, trade))
        if not math.isfinite(quantity):
            self.counters["faults"] += 1
        elif quantity:
            position = book.position(position_id, account, strategy)
            if position.quantity == 0.0:
                position.strategy = strategy
            position.quantity = book.snap(position.quantity + quantity)
            position.last_price = price
            if cid in self.orders:
                working = self.orders[cid]
                working.filled = working.book.snap(working.filled + abs(quantity))
                if working.done:
                    self.on_order_closed(cid)
            elif cid and cid not in self.closed:
                self.counters["early_fills"] += 1
                self.early[cid] = self.early.get(cid, 0.0) + abs(quantity)
            book.moved(position)

    def set_position(self, name, quantity, position_id="", account="", strategy="", price=NAN):
        book = self.books.get(name)
        if book is None or not math.isfinite(quantity):
            self.counters["faults"] += 1
            return
        position = book.position(position_id, account, strategy)
        position.strategy, position.quantity, position.last_price = strategy, book.snap(quantity), price
        book.moved(position)

    def on_working(self, order: OrderView) -> None:
        book, cid = self.books.get(order.instrument_id), order.client_order_id
        good = math.isfinite(order.quantity) and order.quantity > 0.0 and order.side in (1, -1)
        if book is None or not good:
            self.counters["faults"] += 1
        elif cid in self.closed:
            self.counters["late_orders"] += 1
        else:
            before = self.orders.get(cid)
            filled = before.filled if before is not None else self.early.pop(cid, 0.0)
            if order.quantity - filled <= book.tolerance(order.quantity):
                self.on_order_closed(cid)
                return
            if before is not None and before.book is not book:
                self.discount(cid)
            self.orders[cid] = book.orders[cid] = Working(copy.copy(order), book, filled)

    def on_order_update(self, cid, quantity=None, price=None, trigger_price=None):
        working = self.orders.get(cid)
        if working is None:
            self.counters["unknown_orders"] += 1
            return
        if quantity is not None and not (math.isfinite(quantity) and quantity > 0.0):
            self.counters["faults"] += 1
            return
        view = working.view
        view.quantity = view.quantity if quantity is None else quantity
        view.price = view.price if price is None else price
        view.trigger_price = view.trigger_price if trigger_price is None else trigger_price
        if working.done:
            self.on_order_closed(cid)

    def on_order_closed(self, cid):
        self.closed.add(cid)
        self.early.pop(cid, None)
        self.discount(cid)

    def discount(self, cid):
        working = self.orders.pop(cid, None)
        if working is not None:
            del working.book.orders[cid]

    # -- readings ----------------------------------------------------------------------------------------------------

    def filled_quantity(self, cid):
        return self.orders[cid].filled if cid in self.orders else self.early.get(cid, 0.0)

    def positions(self):
        return sorted(
            (name, item.account, item.position_id, item.strategy, item.quantity)
            for name, book in self.books.items()
            for item in book.positions.values()
        )

    def is_reducing(self, order, leaves):
        book = self.books.get(order.instrument_id)
        return book is not None and book.reduces(order, leaves)

    def what_if_position(self, order, leaves):
        book = self.books[order.instrument_id]
        low, high = book.extremes(order, leaves)
        reached = high if order.side > 0 else -low
        if any(position.quantity * order.side < 0.0 for position in book.positions.values()):
            return max(reached, book.opening(order, leaves))
        return reached

    def widens(self, order, leaves):
        book = self.books[order.instrument_id]
        low, high = book.extremes(order, leaves)
        lowest, highest = book.extremes(order, 0.0)
        return (high - highest if order.side > 0 else lowest - low) > book.tolerance(leaves)

    def order_notional(self, order, quantity):
        book = self.books[order.instrument_id]
        return book.notional(order, quantity, self.rates.get(book.facts.settlement_currency, NAN))

    def reason(self, name):
        """Why an instrument cannot be valued, empty when it can."""
        book = self.books[name]
        if name not in self.r:
            return "MISSING_SCENARIOS"
        if math.isnan(book.mid):
            return "UNPRICED_POSITION"
        return "" if book.facts.settlement_currency in self.rates else "MISSING_RATE"

    def blocked(self):
        exposed = [name for name, book in self.books.items() if book.net or book.orders]
        return {name: (self.reason(name), name) for name in exposed if self.reason(name)}

    def unit(self, name):
        """Result of one unit per scenario, base currency."""
        book = self.books[name]
        p, r, facts = book.mid, self.r[name], book.facts
        shocked = p * (1.0 + r)
        if facts.payoff == "linear":
            unit = p * r
        elif facts.payoff == "inverse":
            unit = 1.0 / p - 1.0 / shocked
        else:
            unit = np.clip(shocked, 0.0, 1.0) - p
        return facts.multiplier * self.rates[facts.settlement_currency] * unit

    def quantity(self, name, case, order=None, leaves=0.0):
        """Net quantity in a case; the case "order" is what is filled and the order alone."""
        book = self.books[name]
        mine = order if order is not None and order.instrument_id == name else None
        if case in ("filled", "order"):
            alone = leaves
            if mine is not None and mine.reduce_only:
                alone = min(leaves, max(-mine.side * book.scope(mine), 0.0))
            return book.net + (mine.side * alone if mine is not None and case == "order" else 0.0)
        low, high = book.extremes(mine, leaves)
        if case != "worst" or low == high:
            return low if case == "sells" else high
        at_low, at_high = (value_at_risk(q * self.unit(name), self.level) for q in (low, high))
        # Which of two equal sides is taken is rounding's choice.
        return high if at_high >= at_low - 1e-12 * abs(at_low) else low

    def pnl(self, case, order=None, leaves=0.0):
        """Results per scenario, and a bound of them that rounding is measured against."""
        total, bound = np.zeros(len(next(iter(self.r.values())))), 0.0
        for name in self.books:
            quantity = self.quantity(name, case, order, leaves)
            if quantity:
                column = quantity * self.unit(name)
                total += column
                bound += float(np.abs(column).max())
        return total, bound

    def what_if(self, order, leaves):
        """Value at risk, expected shortfall and the bound, of the five cases."""
        answer = []
        for case in ("filled", "order", "buys", "sells", "worst"):
            pnl, bound = self.pnl(case, order if case != "filled" else None, leaves)
            answer.append((value_at_risk(pnl, self.level), expected_shortfall(pnl, self.level), bound))
        return answer
