"""The gate a second time, plainly: everything is recomputed from ledgers at every order, nothing is kept up to date.

It shares the settings and the view of an order with the gate and no code. Where a value is so close to its limit that
rounding decides, it answers that it does not know.
"""

from __future__ import annotations

import copy
import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from tengri_fast.risk import InstrumentFacts, OrderView
from tengri_fast.risk.limits import RiskLimits, ScopedLimit

SECOND = 10**9
DAY = 86_400 * SECOND
NAN = math.nan
TYPES = {  # needs a price, needs a trigger
    "MARKET": (0, 0), "MARKET_TO_LIMIT": (0, 0), "LIMIT": (1, 0), "STOP_MARKET": (0, 1), "STOP_LIMIT": (1, 1),
    "MARKET_IF_TOUCHED": (0, 1), "LIMIT_IF_TOUCHED": (1, 1), "TRAILING_STOP_MARKET": (0, 0),
    "TRAILING_STOP_LIMIT": (0, 0),
}  # fmt: skip
CODES = {
    "order_quantity": "MAX_ORDER_QUANTITY", "order_notional": "MAX_ORDER_NOTIONAL", "position": "MAX_POSITION",
    "working_orders": "MAX_WORKING_ORDERS", "working_notional": "MAX_WORKING_NOTIONAL",
    "gross_exposure": "MAX_GROSS_EXPOSURE", "net_exposure": "MAX_NET_EXPOSURE", "concentration": "MAX_CONCENTRATION",
    "leverage": "MAX_LEVERAGE", "margin_use": "MAX_MARGIN_USE", "daily_loss": "MAX_DAILY_LOSS",
    "drawdown": "MAX_DRAWDOWN",
}  # fmt: skip
UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}


class TooClose(Exception):
    """Rounding decides: there is nothing to compare."""


def span(text):
    """A duration as the settings write it, ns."""
    if isinstance(text, int):
        return text
    digits = text.rstrip("nusmh")
    return int(float(digits) * UNITS[text[len(digits) :]])


def over(value, limit):
    """Whether a value is above a limit; raises when rounding decides."""
    if math.isnan(value):
        raise AssertionError("a value that is not known cannot be compared")
    if value != limit and math.isfinite(value) and abs(value - limit) <= 3e-9 * max(abs(value), abs(limit)):
        raise TooClose
    return value > limit


class Twin:
    """Ledgers of a portfolio and of a gate.

    Parameters
    ----------
    facts : list of InstrumentFacts
        The instruments.
    limits : RiskLimits
        What is allowed; scenario limits are not looked at.
    """

    def __init__(self, facts: list[InstrumentFacts], limits: RiskLimits) -> None:
        self.facts = {fact.instrument_id: fact for fact in facts}
        self.limits = limits
        self.quotes: dict[str, tuple[float, float, int, bool]] = {}
        self.marks: dict[str, tuple[float, float, float]] = {}  # bid, ask, mid of the last usable quote
        self.lasts: dict[str, float] = {}
        self.rates = {"USD": 1.0}
        self.equity = NAN
        self.held: dict[tuple[str, str, str, str], list] = {}  # name, account, position id, strategy -> owner, quantity
        self.orders: dict[str, list] = {}  # client id -> view, filled
        self.sent: list[tuple[int, str, OrderView | None]] = []  # time, order / modify / cancel
        self.mids: list[tuple[str, int, float]] = []
        self.equities: list[tuple[int, float]] = []  # also "restart" of what a person re-armed
        self.halted: set[str] = set()
        self.killed: dict[str, str] = {}
        self.health: dict[str, object] = {}
        self.fills: list[tuple[int, str, str, int]] = []
        self.now = 0
        self.known: dict[tuple, tuple] = {}  # reaches, within one check only

    # -- events ------------------------------------------------------------------------------------------------------

    def quote(self, name, bid, ask, ts):
        """A quote; one that is older than the last is dropped."""
        if ts < self.quotes.get(name, (0, 0, 0, False))[2]:
            return
        binary = self.facts[name].payoff == "binary"
        good = bid <= ask and (0 <= bid < 1 and 0 < ask <= 1 if binary else bid > 0 and ask < math.inf)
        self.quotes[name] = (bid, ask, ts, good)
        if good:
            self.marks[name] = (bid, ask, bid + 0.5 * (ask - bid))

    def fill(self, name, quantity, account, position_id, strategy, cid):
        """A fill, which may be of a working order."""
        key = (name, account, position_id, "" if position_id else strategy)
        row = self.held.setdefault(key, [strategy, 0.0])
        if row[1] == 0.0:
            row[0] = strategy
        row[1] += quantity
        if row[1] == 0.0:
            del self.held[key]
        if cid in self.orders:
            self.orders[cid][1] += abs(quantity)
            if self.orders[cid][1] >= self.orders[cid][0].quantity:
                del self.orders[cid]

    def tick(self, ts):
        """Time never goes back."""
        self.now = max(self.now, ts)
        return self.now

    def note_equity(self, ts):
        """What the account is worth, as the gate sees it; the switches it turns on."""
        self.equities.append((self.tick(ts), self.equity))
        for name, code, limit in (
            ("daily-loss", "daily_loss", self.limits.max_daily_loss), ("drawdown", "drawdown", self.limits.max_drawdown)
        ):  # fmt: skip
            if limit is not None:
                value = self.account(code)
                if not math.isnan(value) and over(value, limit):
                    self.killed.setdefault(name, "portfolio")

    def restart(self, what):
        """A person turned a switch off: its reference is the equity of now."""
        self.equities.append((self.now, what))

    def account(self, measure):
        """Loss of the day or drawdown, from all equities ever seen."""
        hours, minutes = (int(part) for part in self.limits.day_boundary.split(":"))
        offset = (hours * 60 + minutes) * 60 * SECOND
        start = peak = last = NAN
        day = -1
        for ts, value in self.equities:
            if value == "daily_loss":
                start = last
            elif value == "drawdown":
                peak = last
            elif math.isnan(value):
                last = NAN
            else:
                today = max(ts - offset, 0) // DAY
                if today > day or math.isnan(start):
                    start = last if day >= 0 and not math.isnan(last) else value
                    day = today
                last = value
                peak = value if math.isnan(peak) else max(peak, value)
        reference = start if measure == "daily_loss" else peak
        return (reference - last) / reference

    # -- what is held and can come about -----------------------------------------------------------------------------

    def positions(self, name):
        """Positions of an instrument, by key."""
        rows = [(k, v) for k, v in self.held.items() if k[0] == name]
        return [(k[1], k[2], owner, quantity) for k, (owner, quantity) in sorted(rows)]

    @staticmethod
    def closes(order, account, position_id, owner):
        """Whether an order would close a position."""
        if order.account_id and account and order.account_id != account:
            return False
        return position_id == order.position_id if order.position_id else owner == order.strategy_id

    def scope(self, order):
        """Quantity of the position that an order closes."""
        return sum(q for a, p, o, q in self.positions(order.instrument_id) if self.closes(order, a, p, o))

    def same_scope(self, a, b):
        """Whether two orders close the same position."""
        if a.account_id and b.account_id and a.account_id != b.account_id:
            return False
        if bool(a.position_id) == bool(b.position_id):
            return a.position_id == b.position_id if a.position_id else a.strategy_id == b.strategy_id
        named, other = (a, b) if a.position_id else (b, a)
        account = a.account_id or b.account_id
        return any(
            p == named.position_id and o == other.strategy_id and (not x or not account or x == account)
            for x, p, o, _ in self.positions(a.instrument_id)
        )

    @staticmethod
    def group(order):
        """Orders with the same one share one fill."""
        return order.account_id, order.strategy_id, order.exclusive_group, order.side

    def working(self, name, skip=""):
        """Working orders of an instrument with what is open of them."""
        return [(v, v.quantity - f) for c, (v, f) in self.orders.items() if v.instrument_id == name and c != skip]

    def reducing(self, order, leaves):
        """Whether an order only takes risk off."""
        size = self.scope(order)
        if size * order.side >= 0.0:
            return False
        room, groups = abs(size), {}
        for view, left in self.working(order.instrument_id, order.client_order_id):
            if view.side == order.side and self.same_scope(order, view):
                if not view.exclusive_group:
                    room -= left
                elif not order.exclusive_group or self.group(view) != self.group(order):
                    groups[self.group(view)] = max(groups.get(self.group(view), 0.0), left)
        return 0.0 < leaves <= room - sum(groups.values())

    def reach(self, name, extra=None, leaves=0.0):
        """Lowest and highest net quantity with all orders of that side filled."""
        net = sum(q for *_, q in self.positions(name))
        entries = self.working(name, "" if extra is None else extra.client_order_id)
        if extra is not None and extra.instrument_id == name:
            entries.append((extra, leaves))
        ends = []
        for side in (-1, 1):
            plain, groups, closers = 0.0, {}, {}
            for view, left in entries:
                if view.side != side:
                    continue
                if view.reduce_only:
                    key = (view.account_id, view.position_id, "" if view.position_id else view.strategy_id)
                    closers.setdefault(key, []).append((view, left))
                elif view.exclusive_group:
                    groups[self.group(view)] = max(groups.get(self.group(view), 0.0), left)
                else:
                    plain += left
            for rows in closers.values():
                plain += min(sum(left for _, left in rows), max(-side * self.scope(rows[0][0]), 0.0))
            ends.append(net + side * (plain + sum(groups.values())))
        return tuple(ends)

    def cell(self, name, strategy, extra=None, leaves=0.0):
        """The same of one strategy alone."""
        net = sum(q for *_, owner, q in self.positions(name) if owner == strategy)
        entries = self.working(name, "" if extra is None else extra.client_order_id)
        if extra is not None and extra.instrument_id == name:
            entries.append((extra, leaves))
        ends = []
        for side in (-1, 1):
            mine = [(v, left) for v, left in entries if v.side == side and v.strategy_id == strategy]
            total = sum(left for v, left in mine if not v.reduce_only and not v.exclusive_group)
            groups = {}
            for v, left in mine:
                if not v.reduce_only and v.exclusive_group:
                    groups[self.group(v)] = max(groups.get(self.group(v), 0.0), left)
            cut = min(sum(left for v, left in mine if v.reduce_only), max(-side * net, 0.0))
            ends.append(net + side * (total + sum(groups.values()) + cut))
        return tuple(ends)

    def opening(self, order, leaves):
        """What is open on the side of an order when all of that side have filled, each closing its position first."""
        rows = [[a, p, o, q * order.side] for a, p, o, q in self.positions(order.instrument_id)]
        total = sum(q for *_, q in rows if q > 0)
        queue = [e for e in self.working(order.instrument_id, order.client_order_id) if e[0].side == order.side]
        queue.append((order, leaves))
        largest = {}
        for view, left in [e for e in queue if e[0].reduce_only] + [e for e in queue if not e[0].reduce_only]:
            if view.exclusive_group and not view.reduce_only:
                key = (self.group(view), view.position_id)
                left = max(left - largest.get(key, 0.0), 0.0)
                largest[key] = largest.get(key, 0.0) + left
            for row in rows:
                if row[3] < 0 and self.closes(view, *row[:3]):
                    closed = min(left, -row[3])
                    row[3] += closed
                    left -= closed
            total += 0.0 if view.reduce_only else left
        return total

    def unit(self, name, side, price=None):
        """Value of one unit, NaN when it is not known."""
        fact = self.facts[name]
        price = self.marks.get(name, (NAN, NAN, NAN))[2] if price is None else price
        rate = self.rates.get(fact.settlement_currency, NAN)
        if fact.payoff == "inverse":
            return fact.multiplier * rate / price
        return fact.multiplier * rate * (1.0 - price if fact.payoff == "binary" and side < 0 else price)

    def value(self, name, quantity):
        """Signed value of a quantity."""
        return quantity * self.unit(name, 1 if quantity > 0 else -1) if quantity else 0.0

    def notional(self, order, quantity):
        """Value of an order at its dearest price."""
        prices = [self.marks.get(order.instrument_id, (NAN, NAN, NAN))[2], order.price, order.trigger_price]
        values = [abs(quantity) * self.unit(order.instrument_id, order.side, p) for p in prices if not math.isnan(p)]
        return max(values) if values and not math.isnan(values[0]) else NAN

    # -- the rules ---------------------------------------------------------------------------------------------------

    def check(self, order, modify=False, calmer=False):
        """Codes of what is violated, whether the order reduces; None for the codes when rounding decides."""
        try:
            return self._check(order, modify, calmer)
        except TooClose:
            return None, False

    def _check(self, order, modify, calmer):
        self.known.clear()
        found = self.sanity(order)
        now = self.tick(order.ts)
        if found:
            return found, False
        fact, limits = self.facts[order.instrument_id], self.limits
        if order.instrument_id in self.marks and limits.collar_window is not None:
            self.mids.append((order.instrument_id, now, self.marks[order.instrument_id][2]))
        if limits.max_daily_loss is not None or limits.max_drawdown is not None:
            switches = dict(self.killed)
            self.note_equity(now)
            fresh = set(self.killed) - set(switches)
        else:
            fresh = set()
        filled = self.orders[order.client_order_id][1] if order.client_order_id in self.orders else 0.0
        leaves = max(order.quantity - filled, 0.0)
        reducing = calmer or self.reducing(order, leaves)
        found |= self.integrity(order, fact, now, reducing, modify)
        if not reducing:
            found |= self.venue(order, fact, now, leaves)
            found |= self.numbers(order, fact, leaves, now)
            found |= self.model(order, now)
            scopes = {
                "portfolio", f"strategy:{order.strategy_id}", f"instrument:{order.instrument_id}",
                f"venue:{fact.venue_name}", f"bucket:{fact.bucket}",
            }  # fmt: skip
            if any(scope in scopes for name, scope in self.killed.items() if name not in fresh):
                found.add("KILLED")
        if not found:
            self.sent.append((now, "modify" if modify else "order", copy.copy(order)))
        return found, reducing

    def sanity(self, order):
        """Is it an order at all?"""
        fact = self.facts.get(order.instrument_id)
        found = set()
        if fact is None:
            found.add("UNKNOWN_INSTRUMENT")
        if order.side not in (-1, 1):
            found.add("INVALID_SIDE")
        if not math.isfinite(order.quantity):
            found.add("NON_FINITE_QUANTITY")
        elif order.quantity <= 0:
            found.add("NON_POSITIVE_QUANTITY")
        if order.order_type not in TYPES:
            return found | {"UNKNOWN_ORDER_TYPE"}
        for value, needed in zip((order.price, order.trigger_price), TYPES[order.order_type], strict=True):
            if math.isinf(value) or (math.isnan(value) and needed):
                return found | {"NON_FINITE_PRICE"}
            if value <= 0:
                return found | {"NON_POSITIVE_PRICE"}
            if fact is not None and fact.payoff == "binary" and value > 1:
                return found | {"PRICE_OUT_OF_RANGE"}
        return found

    def waits(self, order):
        """Whether an order waits for a trigger that the market has not reached."""
        if math.isnan(order.trigger_price):
            return False
        above = (order.trigger_price - self.marks[order.instrument_id][2]) * order.side
        return above < 0 if "TOUCHED" in order.order_type else above > 0

    def integrity(self, order, fact, now, reducing, modify):
        """Is it what the sender meant?"""
        limits, found = self.limits, set()
        if any(p % fact.price_increment for p in (order.price, order.trigger_price) if not math.isnan(p)):
            found.add("PRICE_TICK")
        if order.quantity % fact.size_increment:
            found.add("QUANTITY_LOT")
        elif fact.max_quantity and order.quantity > fact.max_quantity:
            found.add("MAX_QUANTITY")
        elif order.quantity < fact.min_quantity and not reducing:
            found.add("MIN_QUANTITY")
        bps = limits.price_collar_bps
        _, _, ts, good = self.quotes.get(order.instrument_id, (NAN, NAN, 0, False))
        if not (reducing and (math.isnan(order.price) or bps is None)):
            if order.instrument_id not in self.marks or not good:
                found.add("MISSING_REFERENCE_PRICE")
            elif limits.stale_quote is not None and abs(order.ts - ts) > span(limits.stale_quote):
                found.add("STALE_REFERENCE_PRICE")
        if bps is not None and good and order.instrument_id in self.marks and not math.isnan(order.price):
            found |= self.collar(order, bps, now)
        if limits.duplicate_window is not None and not modify:
            found |= {
                "DUPLICATE_ORDER"
                for ts, kind, old in self.sent
                if kind == "order"
                and now - ts < span(limits.duplicate_window)
                and old.client_order_id != order.client_order_id
                and all(
                    getattr(old, f) == getattr(order, f)
                    for f in ("strategy_id", "instrument_id", "side", "order_type", "quantity")
                )
                and all(
                    str(getattr(old, f)) == str(getattr(order, f)) for f in ("price", "trigger_price")
                )  # NaN like NaN
            }
        found |= self.rates_broken(order, fact, now, reducing, modify)
        return found

    def collar(self, order, bps, now):
        """How far a price is from where the market is, and has been."""
        mid = self.marks[order.instrument_id][2]
        reference = self.lasts.get(order.instrument_id, NAN) if self.limits.collar_reference == "last" else mid
        waiting = self.waits(order)
        if waiting:
            reference = order.trigger_price
        if math.isnan(reference):
            return {"MISSING_REFERENCE_PRICE"}
        found = {"PRICE_COLLAR"} if over(abs(order.price - reference) / reference * 1e4, bps) else set()
        if self.limits.collar_window is not None and not waiting:
            part = max(span(self.limits.collar_window) // 16, 1)
            seen = [
                value for name, ts, value in self.mids if name == order.instrument_id and ts // part >= now // part - 16
            ]
            low, high = min(seen), max(seen)
            if over(max((order.price - low) / low, (high - order.price) / high) * 1e4, bps):
                found.add("PRICE_COLLAR_WINDOW")
        return found

    def rates_broken(self, order, fact, now, reducing, modify):
        """Orders and messages per window."""
        found = set()
        rows = [("order_rate", self.limits.max_order_rate, "portfolio"),
                ("message_rate", self.limits.max_message_rate, "portfolio")]  # fmt: skip
        rows += [(s.measure, s.limit, s.scope) for s in self.limits.scoped if s.measure.endswith("_rate")]
        for measure, text, scope in rows:
            if text is None or (measure == "order_rate" and modify) or not self.within(order, scope):
                continue
            number, window = text.split("/")
            kinds = ("order",) if measure == "order_rate" else ("order", "modify", "cancel")
            used = 1 + sum(
                1
                for ts, kind, old in self.sent
                if kind in kinds and now - ts < span(window) and self.within(old, scope)
            )
            reserve = self.limits.rate_reserve
            reserve = max(int(number) // 10, 1) if reserve is None else reserve
            if used > int(number) - (0 if reducing else reserve):
                found.add("MAX_" + measure.upper())
        return found

    def within(self, order, scope):
        """Whether an order belongs to a scope."""
        fact = self.facts[order.instrument_id]
        kind, _, name = scope.partition(":")
        return {
            "portfolio": True, "strategy": order.strategy_id == name, "instrument": order.instrument_id == name,
            "venue": fact.venue_name == name, "bucket": fact.bucket == name,
        }[kind]  # fmt: skip

    def venue(self, order, fact, now, leaves):
        """What the venue would not take, or should not get."""
        limits, found = self.limits, set()
        name = order.instrument_id
        if name in limits.deny or (limits.allow and name not in limits.allow):
            found.add("INSTRUMENT_NOT_ALLOWED")
        if name in self.halted:
            found.add("INSTRUMENT_HALTED")
        windows = [w for w in limits.window if w.instrument == name]
        windows = windows or [w for w in limits.window if w.venue == fact.venue_name]
        if windows and not any(is_open(w, now) for w in windows):
            found.add("OUTSIDE_TRADING_WINDOW")
        bid, ask, mid = self.marks.get(name, (NAN, NAN, NAN))
        goes_short = order.side < 0 and self.reach(name, order, leaves)[0] < 0
        if goes_short and (fact.short == "forbidden" or (fact.short == "uptick" and not order.price > bid)):
            found.add("SHORT_SALE")
        if limits.self_trade == "deny" and "TRAILING" not in order.order_type and not self.waits_safely(order):
            for view, _ in self.working(name):
                rests = view.order_type in ("LIMIT", "MARKET_TO_LIMIT") and not math.isnan(view.price)
                crosses = math.isnan(order.price) or (order.price - view.price) * order.side >= 0
                if rests and view.side == -order.side and crosses:
                    found.add("SELF_TRADE")
        good = self.quotes.get(name, (0, 0, 0, False))[3]
        if limits.max_spread_bps is not None and good and over((ask - bid) / mid * 1e4, limits.max_spread_bps):
            found.add("MAX_SPREAD")
        return found

    def waits_safely(self, order):
        """As :meth:`waits`, of an instrument that may have no price."""
        return order.instrument_id in self.marks and self.waits(order)

    def all_limits(self):
        """Limits of the portfolio and of its parts alike."""
        for measure in CODES:
            limit = getattr(self.limits, f"max_{measure}")
            if limit is not None:
                given = 1.0 if isinstance(limit, dict) else limit
                yield ScopedLimit(scope="portfolio", measure=measure, limit=given), limit
        for each in self.limits.scoped:
            if each.measure in CODES and each.limit is not None:
                yield each, each.limit

    def numbers(self, order, fact, leaves, now):
        """Everything that is a value and a limit."""
        found = set()
        name = order.instrument_id
        for each, limit in self.all_limits():
            if not self.within(order, each.scope):
                continue
            if isinstance(limit, dict):
                limit = limit.get(name, limit.get("*", 0.0))
            code = CODES[each.measure]
            value, problem = self.measure(each, order, leaves)
            if problem:
                found.add(problem)
                continue
            if isinstance(limit, str):
                if not self.equity > 0:
                    found.add("MISSING_EQUITY")
                    continue
                limit = float(limit.rstrip("%")) / 100.0 * self.equity
            if over(value, limit):
                found.add(code)
        return found

    def measure(self, each, order, leaves):
        """Value of one measure with the order in place, and why it is not known."""
        name, measure = order.instrument_id, each.measure
        kind, _, which = each.scope.partition(":")
        strategy = which if kind == "strategy" else None

        def reach(instrument):
            if (instrument, strategy) not in self.known:
                of = (instrument, strategy, order, leaves) if strategy else (instrument, order, leaves)
                self.known[instrument, strategy] = self.cell(*of) if strategy else self.reach(*of)
            return self.known[instrument, strategy]

        if measure == "order_quantity":
            return order.quantity, ""
        if measure == "order_notional":
            value = self.notional(order, order.quantity)
            return value, self.no_value(name, order) if math.isnan(value) else ""
        if measure == "position":
            low, high = reach(name)
            value = high if order.side > 0 else -low
            if not strategy and any(q * order.side < 0 for *_, q in self.positions(name)):
                value = max(value, self.opening(order, leaves))
            return value, ""
        if measure in ("daily_loss", "drawdown"):
            value = self.account(measure)
            return value, "MISSING_EQUITY" if math.isnan(value) else ""
        if measure in ("working_orders", "working_notional"):
            rows = [
                (v, v.quantity - f)
                for c, (v, f) in self.orders.items()
                if c != order.client_order_id and self.facts[v.instrument_id] and self.within(v, each.scope)
            ]
            if measure == "working_orders":
                return len(rows) + 1.0, ""
            if math.isnan(self.notional(order, order.quantity)):
                return NAN, self.no_value(name, order)
            mine = [self.orders[order.client_order_id]] if order.client_order_id in self.orders else []
            mine = [(v, v.quantity - f) for v, f in mine if self.within(v, each.scope)]
            for view, left in rows + mine:
                if math.isnan(self.notional(view, left)):
                    return NAN, self.unvalued(view.instrument_id)
            return sum(self.notional(v, left) for v, left in rows) + self.notional(order, leaves), ""
        names = [name] if measure == "concentration" else [n for n in self.facts if self.place_within(n, each.scope)]
        gross = low_sum = high_sum = margin = 0.0
        for each_name in sorted(names, key=lambda n: n != name):
            low, high = (self.value(each_name, q) for q in reach(each_name))
            if math.isnan(low) or math.isnan(high):
                return NAN, self.unvalued(each_name)
            worst = max(abs(low), abs(high))
            gross += worst
            low_sum += low
            high_sum += high
            margin += worst * (self.facts[each_name].margin_rate or 1.0)
        if measure == "gross_exposure":
            return gross, ""
        if measure == "net_exposure":
            return max(high_sum if order.side > 0 else -low_sum, 0.0), ""
        if not self.equity > 0:
            return NAN, "MISSING_EQUITY"
        return (margin if measure == "margin_use" else gross) / self.equity, ""

    def place_within(self, name, scope):
        """Whether an instrument belongs to a scope; to that of a strategy all do."""
        fact = self.facts[name]
        kind, _, which = scope.partition(":")
        return kind in ("portfolio", "strategy") or which in {
            "instrument": (name,), "venue": (fact.venue_name,), "bucket": (fact.bucket,)
        }[kind]  # fmt: skip

    def unvalued(self, name):
        """Why an exposure has no value."""
        return "UNPRICED_POSITION" if self.facts[name].settlement_currency in self.rates else "MISSING_RATE"

    def no_value(self, name, order):
        """Why an order has none."""
        return "MISSING_REFERENCE_PRICE" if self.facts[name].settlement_currency in self.rates else "MISSING_RATE"

    def model(self, order, now):
        """What the model says of itself."""
        limits = self.limits
        wanted = (limits.max_rung, limits.max_out_of_distribution, limits.min_confidence, limits.max_signal_age)
        if all(limit is None for limit in wanted):
            return set()
        health = self.health.get(order.strategy_id)
        if health is None:
            return {"MISSING_MODEL_HEALTH"}
        found = set()
        if limits.max_rung is not None and not health.rung <= limits.max_rung:
            found.add("MODEL_RUNG")
        far = limits.max_out_of_distribution
        if far is not None and not health.out_of_distribution <= far:
            found.add("MODEL_OUT_OF_DISTRIBUTION")
        if limits.min_confidence is not None and not health.confidence >= limits.min_confidence:
            found.add("MODEL_CONFIDENCE")
        if limits.max_signal_age is not None and abs(now - health.ts) > span(limits.max_signal_age):
            found.add("MODEL_SIGNAL_AGE")
        return found


def is_open(window, ts):
    """Whether a window is open, from the wall clock: not on days on which clocks change within an hour of it."""
    local = datetime.fromtimestamp(ts // SECOND, UTC).astimezone(ZoneInfo(window.time_zone))
    clock = (local.hour * 60 + local.minute) * 60 + local.second

    def seconds(text):
        parts = [int(part) for part in text.split(":")]
        return (parts[0] * 60 + parts[1]) * 60 + (parts[2] if len(parts) > 2 else 0)

    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    today, yesterday = days[local.weekday()], days[local.weekday() - 1]
    opens, closes = seconds(window.opens), seconds(window.closes)
    if opens < closes:
        return today in window.days and opens <= clock < closes
    return (today in window.days and clock >= opens) or (yesterday in window.days and clock < closes)
