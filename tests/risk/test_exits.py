"""Exits: what may count less than an ordinary order, and that nothing else does.

The oracle is a small venue that fills working orders in the worst way it can. It holds to two promises only: a
reduce-only order never takes a position past zero, and what fills of an order is taken from the others of its group.
"""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from tengri_fast.risk import (
    InstrumentFacts,
    OrderView,
    PortfolioState,
    RiskGate,
    RiskLimits,
    ScenarioSet,
    VarSettings,
    Verdict,
    value_at_risk,
)

NAN = math.nan
SECOND = 10**9
RETURNS = np.random.default_rng(3).normal(0.0, 0.01, (1, 1000))


def make(**limits) -> RiskGate:
    portfolio = PortfolioState(
        [InstrumentFacts("BTC", "linear", 1.0, 0.1, 0.001)],
        ScenarioSet(["BTC"], RETURNS, 60 * SECOND),
        VarSettings(horizon="60s"),
    )
    gate = RiskGate(RiskLimits(**limits), portfolio)
    gate.warmup()
    portfolio.on_price("BTC", 9_999.9, 10_000.1, SECOND)
    portfolio.on_equity(1_000_000.0)
    return gate


def order(cid, side, quantity, price=NAN, **rest):
    rest.setdefault("order_type", "LIMIT" if price == price else "MARKET")
    return OrderView(cid, "S", "X", "BTC", side=side, quantity=quantity, price=price, ts=SECOND, **rest)


def bracket(entry, exits, **rest):
    rest = {"parent_id": "entry", "exclusive_group": "stop|target", **rest}
    return [
        order("entry", 1, entry, 10_000.0),
        order("stop", -1, exits, NAN, order_type="STOP_MARKET", trigger_price=9_800.0, **rest),
        order("target", -1, exits, 10_040.0, **rest),
    ]


def codes(verdict):
    return [violation.rule for violation in verdict.violations]


def announce(gate, orders):
    for each in orders:
        gate.portfolio.on_working(each)


def fill(gate, signed, cid):
    gate.portfolio.on_fill("BTC", signed, 10_000.0, "", "X", "S", cid, f"{cid}-{signed}-{random.random()}")


# -- what the limits must not miss -----------------------------------------------------------------------------------


def test_many_full_exits_of_one_entry_are_denied():
    gate = make(max_position=1.0)
    exits = [order(f"x{i}", -1, 1.0, 9_990.0, parent_id="entry") for i in range(5)]
    verdict = gate.check_list([order("entry", 1, 1.0, 10_010.0), *exits])
    assert codes(verdict) == ["MAX_POSITION"] * 4
    assert verdict.violations[-1].value == 2.0  # a denied exit does not count against the next
    assert gate.portfolio.working_orders() == []


def test_exits_count_without_their_entry():
    """An entry far from the market never fills; its exits do, where the venue does not hold them back."""
    gate = make(max_position=2.0)
    net, passed = 0.0, 0
    for i in range(10):
        pair = [order(f"e{i}", 1, 1.0, 9_000.0), order(f"x{i}", -1, 1.0, parent_id=f"e{i}")]
        if gate.check_list(pair).allowed:
            announce(gate, pair)
            fill(gate, -1.0, f"x{i}")
            net, passed = net - 1.0, passed + 1
    assert (net, passed) == (-2.0, 2)


def test_a_filled_entry_is_no_pass():
    gate = make(max_position=1.0)
    announce(gate, [order("entry", 1, 1.0)])
    fill(gate, 1.0, "entry")
    allowed = []
    for i in range(10):
        child = order(f"c{i}", -1, 1.0, parent_id="entry")
        if gate.check(child).allowed:
            gate.portfolio.on_working(child)
            allowed.append(child)
    assert len(allowed) == 2  # one that closes, and one that opens -1, which is within the limit
    assert codes(gate.check(order("c", -1, 0.001, parent_id="entry"))) == ["MAX_POSITION"]


def test_a_closed_entry_is_no_pass():
    gate = make(max_position=1.0)
    announce(gate, [order("entry", 1, 1.0)])
    fill(gate, 1.0, "entry")
    fill(gate, -1.0, "")
    fill(gate, -1.0, "")
    assert codes(gate.check(order("c", -1, 0.5, parent_id="entry"))) == ["MAX_POSITION"]


def test_value_at_risk_counts_children_too():
    unit = value_at_risk(10_000.0 * RETURNS[0].astype(np.float32).astype(np.float64))
    gate = make(max_portfolio_var=1.5 * unit / 1_000_000.0)
    announce(gate, [order("entry", 1, 1.0)])
    fill(gate, 1.0, "entry")
    children = [order(f"c{i}", -1, 1.0, parent_id="entry") for i in range(4)]
    verdicts = []
    for child in children:
        verdicts.append(gate.check(child).allowed)
        if verdicts[-1]:
            gate.portfolio.on_working(child)
    assert verdicts == [True, True, False, False]
    assert gate.portfolio.value_at_risk("sells") < 1.5 * unit


def test_value_at_risk_counts_exits_without_their_entry():
    unit = value_at_risk(-10_000.0 * RETURNS[0].astype(np.float32).astype(np.float64))
    gate = make(max_portfolio_var=2.0 * unit / 1_000_000.0)
    fill(gate, -1.5, "")
    assert codes(gate.check_list(bracket(1.0, 1.0))) == ["MAX_PORTFOLIO_VAR"] * 2  # -2.5
    assert gate.check_list(bracket(1.0, 1.0, reduce_only=True)).allowed


def test_a_reduce_only_exit_that_clears_the_way_for_other_orders_is_asked():
    gate = make(max_position=5.0)
    fill(gate, 3.0, "")
    assert gate.check(order("s", -1, 8.0)).allowed  # 3 - 8
    gate.portfolio.on_working(order("s", -1, 8.0))
    pair = [order("entry", 1, 2.0), order("exit", -1, 2.0, reduce_only=True)]
    assert codes(gate.check_list(pair)) == ["MAX_POSITION"]  # 3 - 2 - 8
    gate.portfolio.on_order_closed("s")
    assert gate.check_list(pair).allowed


def test_reduce_only_exits_of_a_list_count_against_its_later_orders():
    gate = make(max_position=9.0)
    fill(gate, 5.0, "")
    legs = [order("entry", 1, 4.0), order("exit", -1, 4.0, reduce_only=True), order("more", -1, 14.0)]
    assert codes(gate.check_list(legs)) == ["MAX_POSITION"]  # 5 - 4 - 14
    legs[2].quantity = 10.0
    assert gate.check_list(legs).allowed


def test_exits_share_no_group_by_default_and_none_with_others():
    gate = make(max_position=5.0)
    assert codes(gate.check_list(bracket(5.0, 5.0, exclusive_group=""))) == ["MAX_POSITION"]
    other = {"account_id": "Y", "strategy_id": "T", "exclusive_group": "g"}
    for field, value in other.items():
        gate = make(max_position=5.0)
        gate.portfolio.on_working(order("a", -1, 3.0, exclusive_group="stop|target"))
        same = order("b", -1, 3.0, exclusive_group="stop|target")
        assert gate.check(same).allowed
        setattr(same, field, value)
        assert codes(gate.check(same)) == ["MAX_POSITION"], field
    gate = make(max_position=5.0)
    gate.portfolio.on_working(order("a", -1, 3.0, exclusive_group="g"))
    buy = order("b", 1, 5.0, exclusive_group="g")
    assert gate.check(buy).allowed
    gate.portfolio.on_working(buy)
    assert gate.portfolio.what_if_position(order("n", 1, 1.0), 1.0) == 6.0
    assert gate.portfolio.what_if_position(order("n", -1, 1.0), 1.0) == 4.0


# -- what must stay usable -------------------------------------------------------------------------------------------


def test_a_bracket_with_exclusive_exits_passes_at_every_stage():
    gate = make(max_position=5.0, max_order_notional=50_000.0)
    legs = bracket(5.0, 5.0)
    assert gate.check_list(legs).allowed  # the target is worth more than the limit, its entry is not
    announce(gate, legs)
    assert gate.check_list(legs).allowed  # as at a second gate
    for leg in legs:
        gate.portfolio.on_working(leg)  # announced again
    fill(gate, 2.0, "entry")
    assert gate.check_list(legs).allowed
    assert gate.portfolio.what_if_position(order("n", -1, 1.0), 1.0) == 4.0  # 2 - 5 - 1
    assert codes(gate.check(order("n", 1, 0.001))) == ["MAX_POSITION"]
    fill(gate, 3.0, "entry")
    gate.kill("desk", "drill")
    assert gate.check(legs[1]) == Verdict(True, True)  # the other takes no room from it
    assert gate.check(legs[2]) == Verdict(True, True)
    assert gate.check_modify(legs[1], new_trigger=9_900.0) == Verdict(True, True)
    assert codes(gate.check(order("n", -1, 0.001))) == ["KILLED"]
    fill(gate, -5.0, "target")
    gate.portfolio.on_order_closed("stop")
    assert gate.portfolio.working_orders() == []


def test_exits_sent_one_by_one_after_the_entry_filled_pass_a_kill():
    gate = make(max_position=5.0)
    legs = bracket(5.0, 5.0)
    announce(gate, legs[:1])
    fill(gate, 5.0, "entry")
    gate.kill("desk", "drill")
    for leg in legs[1:]:
        assert gate.check(leg) == Verdict(True, True)
        gate.portfolio.on_working(leg)
    assert codes(gate.check(order("n", -1, 1.0, parent_id="entry"))) == ["KILLED"]


def test_a_bracket_that_turns_a_position_needs_reduce_only_exits():
    gate = make(max_position=5.0)
    fill(gate, -2.0, "")
    verdict = gate.check_list(bracket(5.0, 5.0))
    assert codes(verdict) == ["MAX_POSITION"] * 2
    assert verdict.violations[0].value == 7.0
    assert gate.check_list(bracket(5.0, 5.0, reduce_only=True)).allowed


def test_exits_beyond_the_quantity_of_the_entry_are_asked_for_their_value():
    gate = make(max_order_notional=30_000.0)
    dear = {"price": 10_100.0, "parent_id": "entry"}  # 3 are worth more than the limit, 1 is not
    entry = order("entry", 1, 3.0, 10_000.0)
    assert gate.check_list([entry, order("a", -1, 3.0, exclusive_group="g", **dear),
                            order("b", -1, 3.0, exclusive_group="g", **dear)]).allowed  # fmt: skip
    assert codes(gate.check_list([entry, order("a", -1, 1.0, **dear), order("b", -1, 3.0, **dear)])) == [
        "MAX_ORDER_NOTIONAL"
    ]
    gate.portfolio.on_working(order("w", -1, 1.0, **dear))
    assert codes(gate.check_list([entry, order("a", -1, 3.0, **dear)])) == ["MAX_ORDER_NOTIONAL"]


def test_groups_in_value_at_risk_are_the_worst_that_can_fill():
    row = RETURNS[0].astype(np.float32).astype(np.float64)
    gate = make(max_position=100.0)
    portfolio = gate.portfolio
    fill(gate, 2.0, "")
    for cid, quantity, group in (("a", 5.0, "g"), ("b", 3.0, "g"), ("c", 4.0, "h"), ("d", 1.0, "")):
        portfolio.on_working(order(cid, -1, quantity, exclusive_group=group))

    def risk(net):
        return pytest.approx(value_at_risk(net * 10_000.0 * row), rel=1e-9)

    assert portfolio.value_at_risk("sells") == risk(2.0 - 5.0 - 4.0 - 1.0)
    assert max(v for v, _ in portfolio.what_if(order("n", -1, 7.0, exclusive_group="g")).values()) == risk(-10.0)
    assert max(v for v, _ in portfolio.what_if(order("n", -1, 7.0)).values()) == risk(-15.0)
    portfolio.on_order_update("a", quantity=1.0)  # the largest is now b
    assert portfolio.value_at_risk("sells") == risk(2.0 - 3.0 - 4.0 - 1.0)
    portfolio.on_order_closed("b")
    assert portfolio.value_at_risk("sells") == risk(2.0 - 1.0 - 4.0 - 1.0)
    assert portfolio.scenario_pnl("sells") == pytest.approx(portfolio.full_revaluation("sells"), abs=1e-6)


# -- the worst venue -------------------------------------------------------------------------------------------------


class Venue:
    """Fills what it likes, in the order it likes; ``room`` is what an order can still fill."""

    def __init__(self) -> None:
        self.net = 0.0
        self.live: dict[str, tuple[OrderView, float]] = {}

    def copy(self) -> Venue:
        twin = Venue()
        twin.net, twin.live = self.net, dict(self.live)
        return twin

    def fill(self, cid: str, wanted: float) -> float:
        """Fill up to ``wanted`` units; returns the signed quantity."""
        view, room = self.live[cid]
        done = min(wanted, room)
        if view.reduce_only:
            done = min(done, max(-view.side * self.net, 0.0))
        if done <= 0.0:
            return 0.0
        self.net += view.side * done
        for name, (other, left) in list(self.live.items()):
            mate = view.exclusive_group and other.exclusive_group == view.exclusive_group and other.side == view.side
            if name == cid or mate:
                self.live[name] = (other, left - done)
        return view.side * done

    def worst(self, side: int, rng: random.Random) -> float:
        """Furthest the net quantity gets when orders of one side fill: in several orders of filling."""
        furthest = side * self.net
        for attempt in range(4):
            twin = self.copy()
            names = [cid for cid, (view, _) in twin.live.items() if view.side == side]
            rng.shuffle(names)
            if attempt:  # reduce-only first is worst: later there is nothing to reduce; of a group the largest
                names.sort(key=lambda cid: (not twin.live[cid][0].reduce_only, -twin.live[cid][1]))
            for cid in names:
                twin.fill(cid, math.inf)
            furthest = max(furthest, side * twin.net)
        return furthest


def random_orders(rng: random.Random, number: int, most: int, entries: list[str], groups: list[str]) -> list[OrderView]:
    """A list with an entry and exits of every kind, or one order that may name an old entry."""
    made: list[OrderView] = []

    def one(side, lots, parents):
        made.append(
            order(
                f"o{number}-{len(made)}", side, rng.randint(1, lots) * 0.5,
                reduce_only=rng.random() < 0.25,
                parent_id=rng.choice(parents) if parents and rng.random() < 0.7 else "",
                exclusive_group=rng.choice(groups) if rng.random() < 0.4 else "",
            )
        )  # fmt: skip

    side = rng.choice([-1, 1])
    one(side, most, entries)
    if rng.random() < 0.5:
        if rng.random() < 0.8:
            made[0].reduce_only, made[0].parent_id, made[0].exclusive_group = False, "", ""
        for _ in range(rng.randint(1, 4)):
            one(-side if rng.random() < 0.85 else side, int(2 * made[0].quantity), [made[0].client_order_id])
        if rng.random() < 0.3:  # a whole bracket: exits as large as the entry, all of one group
            for exit_ in made[1:]:
                exit_.quantity, exit_.exclusive_group = made[0].quantity, f"g{number}"
    return made


def play(seed: int, counts: dict[str, int]) -> None:
    rng = random.Random(seed)
    limit = rng.choice([1.0, 3.0, 5.0])
    gate = make(max_position=limit)
    venue = Venue()
    entries: list[str] = []
    for number in range(150):
        groups = [f"g{number // 5}", f"g{number // 5 - 1}", f"h{number}"]
        orders = random_orders(rng, number, int(2 * limit), entries[-5:], groups)
        verdict = gate.check_list(orders) if len(orders) > 1 else gate.check(orders[0])
        if verdict.allowed:
            counts["lists" if len(orders) > 1 else "singles"] += 1
            counts["reducing"] += verdict.reducing
            counts["grouped"] += any(each.exclusive_group for each in orders)
            counts["linked"] += any(each.parent_id and not each.reduce_only for each in orders)
            entries.append(orders[0].client_order_id)
            for each in orders:
                gate.portfolio.on_working(each)
                venue.live[each.client_order_id] = (each, each.quantity)
        else:
            counts["denied"] += 1
        furthest = max(venue.worst(1, rng), venue.worst(-1, rng))
        assert furthest <= limit, (seed, number, orders, venue.net, venue.live)
        counts["at the limit"] += furthest == limit
        for _ in range(rng.randint(0, 4)):
            if not venue.live:
                break
            cid = rng.choice([*venue.live])
            room = venue.live[cid][1]
            if rng.random() < 0.4 or room <= 0.0:
                del venue.live[cid]
                gate.portfolio.on_order_closed(cid)
                continue
            done = venue.fill(cid, room if rng.random() < 0.5 else 0.5)
            if done:
                fill(gate, done, cid)
            if gate.portfolio.working_order(cid) is None:
                venue.live.pop(cid, None)
        assert gate.portfolio.position("BTC") == venue.net
    assert gate.portfolio.faults == ()


def test_no_way_of_filling_takes_the_position_past_its_limit():
    kinds = ("lists", "singles", "denied", "reducing", "grouped", "linked", "at the limit")
    counts = dict.fromkeys(kinds, 0)
    for seed in range(60):
        play(seed, counts)
    assert min(counts.values()) > 300, counts  # every kind was met often enough to mean something
