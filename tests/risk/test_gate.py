"""The gate: each rule fires, reducing orders pass, failures deny, lists and modifications, kill and rearm."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk import (
    InstrumentFacts,
    OrderView,
    PortfolioState,
    RiskGate,
    RiskLimits,
    ScenarioSet,
    VarSettings,
    Verdict,
    Violation,
)

NAN = math.nan
SECOND = 10**9
FACTS = InstrumentFacts("BTC", "linear", 1.0, 0.1, 0.001, 0.001, 1000.0, "USDT", "USDT")
ALL = {
    "max_order_notional": 100_000.0,
    "max_position": 5.0,
    "price_collar_bps": 50.0,
    "max_portfolio_var": 0.05,
    "stale_quote": "5s",
}


def make(limits=None, *, equity=1_000_000.0, warm=True, quote=True, scenarios=True, **rest):
    limits = RiskLimits(**(ALL if limits is None else limits))
    var = VarSettings(horizon="60s", base_currency="USDT")
    returns = np.random.default_rng(1).normal(0.0, 0.01, (1, 1000))
    portfolio = PortfolioState([FACTS], ScenarioSet(["BTC"], returns, 60 * SECOND) if scenarios else None, var)
    gate = RiskGate(limits, portfolio, **rest)
    if warm:
        gate.warmup()
    if quote:
        portfolio.on_price("BTC", 9_999.9, 10_000.1, SECOND)
    portfolio.on_equity(equity)
    return gate


def order(cid="o1", side=1, quantity=1.0, price=10_000.0, **rest):
    rest.setdefault("order_type", "LIMIT" if price == price else "MARKET")
    rest.setdefault("ts", 2 * SECOND)
    return OrderView(cid, "S", "X", rest.pop("instrument", "BTC"), side=side, quantity=quantity, price=price, **rest)


def codes(verdict):
    assert isinstance(verdict, Verdict)
    assert verdict.allowed == (not verdict.violations)
    return [violation.rule for violation in verdict.violations]


def hold(gate, quantity):
    gate.portfolio.set_position("BTC", quantity, account_id="X", strategy_id="S")


# -- every rule can fire, with value and limit -----------------------------------------------------------------------


def test_a_sound_order_passes():
    verdict = make().check(order())
    assert verdict == Verdict(True, False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"quantity": 10.001}, ["MAX_ORDER_NOTIONAL", "MAX_POSITION"]),
        ({"quantity": 4.0, "price": 10_050.1}, ["PRICE_COLLAR"]),
        ({"quantity": 4.0, "price": 9_949.9}, ["PRICE_COLLAR"]),
        ({"quantity": 4.0, "price": 9_950.0}, []),
        ({"quantity": NAN}, ["NON_FINITE_QUANTITY"]),
        ({"quantity": math.inf}, ["NON_FINITE_QUANTITY"]),
        ({"quantity": 0.0}, ["NON_POSITIVE_QUANTITY"]),
        ({"quantity": -1.0}, ["NON_POSITIVE_QUANTITY"]),
        ({"price": math.inf}, ["NON_FINITE_PRICE"]),
        ({"price": -math.inf}, ["NON_FINITE_PRICE"]),
        ({"price": NAN, "order_type": "LIMIT"}, ["NON_FINITE_PRICE"]),
        ({"price": 0.0}, ["NON_POSITIVE_PRICE"]),
        ({"price": -5.0}, ["NON_POSITIVE_PRICE"]),
        ({"price": NAN, "order_type": "STOP_MARKET"}, ["NON_FINITE_PRICE"]),
        ({"trigger_price": math.inf, "order_type": "STOP_LIMIT"}, ["NON_FINITE_PRICE"]),
        ({"trigger_price": -1.0, "order_type": "STOP_LIMIT"}, ["NON_POSITIVE_PRICE"]),
        ({"order_type": "ICEBERG"}, ["UNKNOWN_ORDER_TYPE"]),
        ({"side": 0}, ["INVALID_SIDE"]),
        ({"side": 2}, ["INVALID_SIDE"]),
        ({"instrument": "DOGE"}, ["UNKNOWN_INSTRUMENT"]),
        ({"instrument": "DOGE", "side": 0, "quantity": NAN, "price": 0.0},
         ["UNKNOWN_INSTRUMENT", "INVALID_SIDE", "NON_FINITE_QUANTITY", "NON_POSITIVE_PRICE"]),
        ({"price": 10_000.05}, ["PRICE_TICK"]),
        ({"price": 10_000.1}, []),  # not exact in binary, on the tick all the same
        ({"quantity": 1.0005}, ["QUANTITY_LOT"]),
        ({"quantity": 2000.0},
         ["MAX_QUANTITY", "MAX_ORDER_NOTIONAL", "MAX_POSITION", "MAX_PORTFOLIO_VAR"]),
        ({"ts": 6 * SECOND + 1}, ["STALE_REFERENCE_PRICE"]),
        ({"ts": 6 * SECOND}, []),
    ],
)  # fmt: skip
def test_each_rule(change, expected):
    gate = make()
    verdict = gate.check(order(**change))
    assert codes(verdict) == expected
    assert gate.counters["denied"] == {code: 1 for code in expected}
    assert gate.counters["checked"] == 1


def test_a_quote_from_the_future_is_as_stale():
    gate = make()
    gate.portfolio.on_price("BTC", 9_999.9, 10_000.1, 100 * SECOND)
    assert codes(gate.check(order())) == ["STALE_REFERENCE_PRICE"]


def test_violation_carries_value_and_limit():
    violations = {v.rule: v for v in make().check(order(quantity=50.0)).violations}
    assert violations["MAX_ORDER_NOTIONAL"].text() == "TENGRI_RISK:MAX_ORDER_NOTIONAL value=500000 limit=100000"
    assert violations["MAX_POSITION"].text() == "TENGRI_RISK:MAX_POSITION value=50 limit=5"


def test_value_at_risk_limit_says_what_and_why():
    gate = make({"max_portfolio_var": 0.05}, equity=1_000.0)
    (violation,) = gate.check(order()).violations
    exact = gate.portfolio.what_if(order())["filled + this order"][0]
    assert violation.rule == "MAX_PORTFOLIO_VAR"
    assert violation.value == pytest.approx(exact / 1_000.0)
    assert violation.limit == 0.05
    assert "filled + this order" in violation.detail
    gate.portfolio.on_equity(exact / 0.05 * 1.000001)
    assert gate.check(order()).allowed
    gate.portfolio.on_equity(exact / 0.05 * 0.999999)
    assert not gate.check(order()).allowed


@pytest.mark.parametrize("price", [10_000.0, NAN])
def test_without_a_usable_quote_nothing_that_adds_risk_passes(price):
    for limits in (None, {"max_order_notional": 1e9}, {"max_position": 5.0}):
        gate = make(limits, quote=False)
        assert "MISSING_REFERENCE_PRICE" in codes(gate.check(order(price=price)))
        for n, (bid, ask) in enumerate([(NAN, 1.0), (10_000.1, 9_999.9), (9_999.9, 0.0)]):
            gate.portfolio.on_price("BTC", 9_999.9, 10_000.1, 2 * n + 1)
            assert gate.check(order(price=price)).allowed
            gate.portfolio.on_price("BTC", bid, ask, 2 * n + 2)
            assert "MISSING_REFERENCE_PRICE" in codes(gate.check(order(price=price)))


@pytest.mark.parametrize("equity", [NAN, 0.0, -1.0, math.inf])
def test_unknown_equity_denies(equity):
    assert codes(make(equity=equity).check(order())) == ["MISSING_EQUITY"]


def test_a_missing_rate_denies():
    facts = InstrumentFacts("X", settlement_currency="EUR")
    var = VarSettings(horizon=60, base_currency="USD")
    portfolio = PortfolioState([facts], ScenarioSet(["X"], np.zeros((1, 100)), 60), var)
    gate = RiskGate(RiskLimits(max_order_notional=1e9, max_portfolio_var=0.5), portfolio)
    gate.warmup()
    portfolio.on_price("X", 1.0, 1.0, 1)
    portfolio.on_equity(1e6)
    mine = order(instrument="X", price=1.0)
    verdict = gate.check(mine)
    assert codes(verdict) == ["MISSING_RATE", "MISSING_RATE"]
    assert "EUR in USD" in verdict.text()
    portfolio.on_rate("EUR", 1.1)
    assert gate.check(mine).allowed
    portfolio.on_rate("EUR", NAN)
    assert not gate.check(mine).allowed


def test_another_position_that_cannot_be_valued_denies_everything_that_adds_risk():
    facts = [FACTS, InstrumentFacts("ETH", settlement_currency="USDT")]
    var = VarSettings(horizon=60, base_currency="USDT")
    portfolio = PortfolioState(facts, ScenarioSet(["BTC", "ETH"], np.zeros((2, 100)), 60), var)
    gate = RiskGate(RiskLimits(max_portfolio_var=0.5), portfolio)
    gate.warmup()
    portfolio.on_price("BTC", 9_999.9, 10_000.1, 1)
    portfolio.on_equity(1e6)
    assert gate.check(order()).allowed
    portfolio.on_fill("ETH", 1.0, 100.0)
    assert codes(gate.check(order())) == ["UNPRICED_POSITION"]
    portfolio.on_price("ETH", 100.0, 101.0, 1)
    assert gate.check(order()).allowed


def test_a_portfolio_fault_closes_the_gate_for_risk():
    gate = make()
    hold(gate, 2.0)
    gate.portfolio.on_fill("NOBODY", 1.0, 1.0)
    assert codes(gate.check(order())) == ["PORTFOLIO_FAULT"]
    assert gate.check(order(side=-1, quantity=2.0)).allowed
    gate.portfolio.clear_faults()
    assert gate.check(order()).allowed


def test_position_limit_counts_working_orders_of_that_side():
    gate = make({"max_position": 5.0})
    hold(gate, 2.0)
    gate.portfolio.on_working(order("w", quantity=2.0))
    assert codes(gate.check(order(quantity=1.001))) == ["MAX_POSITION"]
    assert gate.check(order(quantity=1.0)).allowed
    assert gate.check(order(side=-1, quantity=7.0)).allowed  # to -5, the working buy does not help nor hurt
    assert codes(gate.check(order(side=-1, quantity=7.001))) == ["MAX_POSITION"]
    gate.portfolio.on_order_closed("w")
    assert gate.check(order(quantity=3.0)).allowed


def test_collar_of_orders_that_wait_for_a_trigger():
    gate = make({"price_collar_bps": 50.0})
    far_stop = {"order_type": "STOP_LIMIT", "trigger_price": 11_000.0}
    assert gate.check(order(price=11_010.0, **far_stop)).allowed  # within 50 bps of where it will act
    assert codes(gate.check(order(price=11_100.0, **far_stop))) == ["PRICE_COLLAR"]
    # A buy stop below the market acts at once, so the market is the reference, whatever the trigger says.
    assert codes(gate.check(order(price=9_000.0, order_type="STOP_LIMIT", trigger_price=9_000.0))) == ["PRICE_COLLAR"]
    touched = {"order_type": "LIMIT_IF_TOUCHED"}
    assert gate.check(order(price=9_000.0, trigger_price=9_000.0, **touched)).allowed
    assert codes(gate.check(order(price=15_000.0, trigger_price=15_000.0, **touched))) == ["PRICE_COLLAR"]
    assert gate.check(order(side=-1, price=9_000.0, order_type="STOP_LIMIT", trigger_price=9_000.0)).allowed


# -- reducing orders -------------------------------------------------------------------------------------------------


def test_reducing_orders_pass_exposure_kill_and_arming():
    gate = make({**ALL, "max_order_notional": 1.0, "max_portfolio_var": 1e-9}, warm=False, equity=NAN)
    hold(gate, 20.0)
    gate.kill("desk", "drill")
    assert gate.check(order(side=-1, quantity=20.0)) == Verdict(True, True)
    assert set(codes(gate.check(order(side=-1, quantity=20.001)))) >= {"NOT_ARMED", "KILLED", "MAX_ORDER_NOTIONAL"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"price": 9_000.0}, ["PRICE_COLLAR"]),
        ({"price": 10_000.05}, ["PRICE_TICK"]),
        ({"quantity": 0.5005}, ["QUANTITY_LOT"]),
        ({"price": math.inf}, ["NON_FINITE_PRICE"]),
        ({"quantity": NAN}, ["NON_FINITE_QUANTITY"]),
        ({"ts": 60 * SECOND}, ["STALE_REFERENCE_PRICE"]),
    ],
)
def test_reducing_orders_stay_subject_to_integrity(change, expected):
    gate = make()
    hold(gate, 2.0)
    assert codes(gate.check(order(side=-1, **change))) == expected


def test_closing_at_market_survives_a_dead_feed():
    gate = make()
    hold(gate, 2.0)
    late = order(side=-1, quantity=2.0, price=NAN, ts=3600 * SECOND)
    assert gate.check(late) == Verdict(True, True)
    gate.portfolio.on_price("BTC", NAN, NAN, 2 * SECOND)
    assert gate.check(late) == Verdict(True, True)
    late.side = 1
    assert codes(gate.check(late)) == ["MISSING_REFERENCE_PRICE"]


def test_the_rest_of_a_position_may_be_smaller_than_the_minimum():
    facts = msgspec.structs.replace(FACTS, min_quantity=1.0)
    portfolio = PortfolioState([facts])
    gate = RiskGate(RiskLimits(max_position=5.0), portfolio)
    gate.warmup()
    portfolio.on_price("BTC", 9_999.9, 10_000.1, 1)
    hold(gate, 0.4)
    assert gate.check(order(side=-1, quantity=0.4)).allowed
    assert codes(gate.check(order(quantity=0.4))) == ["MIN_QUANTITY"]


# -- arming and killing ----------------------------------------------------------------------------------------------


def test_not_armed_before_warmup_and_scenarios():
    gate = make(warm=False, scenarios=False)
    assert not gate.armed
    assert codes(gate.check(order())) == ["MISSING_SCENARIOS", "NOT_ARMED"]
    gate.warmup()
    assert not gate.armed
    assert "scenarios are not ready" in gate.check(order()).text()
    gate.portfolio.set_scenarios(ScenarioSet(["BTC"], np.zeros((1, 100)), 60 * SECOND))
    assert gate.armed
    assert gate.check(order()).allowed


def test_plain_limits_arm_at_warmup():
    gate = RiskGate(RiskLimits(max_position=5.0), PortfolioState([FACTS]))
    gate.portfolio.on_price("BTC", 9_999.9, 10_000.1, 1)
    assert codes(gate.check(order())) == ["NOT_ARMED"]
    gate.warmup()
    assert gate.check(order()).allowed


def test_var_limit_without_settings_is_refused():
    with pytest.raises(ConfigurationError, match=r"risk\.var"):
        RiskGate(RiskLimits(max_portfolio_var=0.05), PortfolioState([FACTS]))


def test_kill_and_rearm():
    gate = make()
    hold(gate, 2.0)
    assert not gate.killed
    gate.kill("desk", "fat finger")
    gate.kill("drawdown", "limit hit")
    gate.kill("desk", "again")  # keeps the first reason
    assert gate.killed
    assert gate.kills == {"desk": "fat finger", "drawdown": "limit hit"}
    (violation,) = gate.check(order()).violations
    assert violation.rule == "KILLED"
    assert "desk: fat finger" in violation.detail
    assert gate.check(order(side=-1)).allowed
    with pytest.raises(ConfigurationError, match="`reason` must say why"):
        gate.rearm("desk", "  ")
    with pytest.raises(ConfigurationError, match="must be a kill switch that is on"):
        gate.rearm("typo", "because")
    gate.rearm("desk", "checked")
    assert gate.killed
    assert not gate.check(order()).allowed
    gate.rearm("drawdown", "new day, risk agrees")
    assert not gate.killed
    assert gate.check(order()).allowed
    assert [event[:2] for event in gate.history] == [
        ("kill", "desk"),
        ("kill", "drawdown"),
        ("rearm", "desk"),
        ("rearm", "drawdown"),
    ]


# -- failures --------------------------------------------------------------------------------------------------------


def broken(context):
    raise ZeroDivisionError("a bug")


class Broken:
    """A rule of each kind that raises."""

    def __init__(self, kind):
        self.kind = kind
        self.code = f"BROKEN_{kind.upper()}"

    check = staticmethod(broken)


@pytest.mark.parametrize("kind", ["sanity", "integrity", "risk"])
def test_a_rule_that_raises_denies(kind):
    gate = make(extra_rules=[Broken(kind)])
    assert not gate.plain
    verdict = gate.check(order())
    assert codes(verdict) == ["INTERNAL_ERROR"]
    assert verdict.violations[0].detail == f"ZeroDivisionError in BROKEN_{kind.upper()}"
    assert gate.counters["denied"] == {"INTERNAL_ERROR": 1}


def test_a_reducing_order_passes_a_broken_risk_rule_with_an_alert():
    alerts = []
    gate = make(on_alert=alerts.append, extra_rules=[Broken("risk"), Broken("risk")])
    hold(gate, 2.0)
    verdict = gate.check(order(side=-1))
    assert verdict.allowed
    assert verdict.reducing
    assert len(verdict.alerts) == len(alerts) == gate.counters["alerts"] == 2
    assert "ZeroDivisionError" in alerts[0]
    for kind in ("integrity", "sanity"):
        gate = make(extra_rules=[Broken("risk"), Broken(kind)])
        hold(gate, 2.0)
        assert codes(gate.check(order(side=-1))) == ["INTERNAL_ERROR"]


def test_a_broken_listener_does_not_decide():
    gate = make(on_alert=broken, on_warning=broken, extra_rules=[Broken("risk")])
    hold(gate, 2.0)
    assert gate.check(order(side=-1)).allowed
    assert gate.counters["alerts"] == 2  # the alert, and that nobody heard it
    gate = make({"max_position": 5.0}, on_warning=broken)
    assert gate.check(order(quantity=4.0)).allowed
    assert gate.counters["alerts"] == gate.diagnostics["warnings"] == 1


class Trap:
    """An order that can be read only so often."""

    def __init__(self, view, reads):
        self.view, self.reads = view, reads

    def __getattr__(self, name):
        self.reads -= 1
        if self.reads < 0:
            raise RuntimeError("late")
        return getattr(self.view, name)


@pytest.mark.parametrize("reads", range(0, 12, 3))
def test_an_order_that_cannot_be_read_is_denied_even_when_it_reduces(reads):
    gate = make()
    hold(gate, 2.0)
    for call in (gate.check, lambda o: gate.check_list([o])):
        assert codes(call(Trap(order(side=-1), reads))) == ["INTERNAL_ERROR"]
    assert gate.portfolio.working_orders() == []


@pytest.mark.parametrize(
    "change",
    [{"quantity": "1"}, {"quantity": None}, {"price": "x"}, {"side": None}, {"instrument_id": None}, {"ts": "now"},
     {"order_type": 7}, {"order_type": ["LIMIT"]}, {"instrument_id": ["BTC"]}],
)  # fmt: skip
def test_orders_of_the_wrong_type_are_denied_not_raised(change):
    gate = make()
    for call in (gate.check, lambda o: gate.check_list([o]), gate.check_modify):
        hostile = order()
        for field, value in change.items():
            setattr(hostile, field, value)
        verdict = call(hostile)
        assert not verdict.allowed
        assert verdict.violations


def test_things_that_are_no_orders_are_denied():
    gate = make()
    for thing in (None, object(), 5, "order"):
        assert codes(gate.check(thing)) == ["INTERNAL_ERROR"]
        assert codes(gate.check_modify(thing)) == ["INTERNAL_ERROR"]
    assert codes(gate.check_list(None)) == ["INTERNAL_ERROR"]
    assert codes(gate.check_list([None])) == ["INTERNAL_ERROR"]


numbers = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-(2**70), 2**70))


@given(
    side=st.sampled_from([-1, 0, 1, 3]),
    quantity=numbers,
    price=numbers,
    trigger=numbers,
    kind=st.sampled_from(["MARKET", "LIMIT", "STOP_LIMIT", "STOP_MARKET", "?"]),
    ts=st.integers(-(2**63), 2**64),
    bid=numbers,
    ask=numbers,
)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_the_answer_is_a_verdict(side, quantity, price, trigger, kind, ts, bid, ask):
    gate = HOSTILE
    gate.portfolio.on_price("BTC", bid, ask, 1)
    mine = order("h", side, quantity, price, trigger_price=trigger, order_type=kind, ts=ts)
    for verdict in (gate.check(mine), gate.check_list([mine]), gate.check_modify(mine, quantity, price, trigger)):
        codes(verdict)
        if verdict.allowed:
            assert 0.0 < quantity <= 5.0
            assert not math.isinf(price)
    assert gate.portfolio.working_orders() == []


HOSTILE = make({"max_position": 5.0, "price_collar_bps": 50.0})


# -- lists -----------------------------------------------------------------------------------------------------------


def bracket(entry=3.0, exits=3.0, **rest):
    return [
        order("entry", 1, entry),
        order("stop", -1, exits, NAN, order_type="STOP_MARKET", trigger_price=9_800.0, **rest),
        order("target", -1, exits, 10_040.0, **rest),
    ]


@pytest.mark.parametrize("link", [{"reduce_only": True}, {"parent_id": "entry", "exclusive_group": "stop|target"}])
def test_exits_of_a_bracket_add_no_exposure(link):
    gate = make()
    assert gate.check_list(bracket(entry=5.0, exits=5.0, **link)).allowed
    assert gate.counters == {"checked": 3, "allowed": 3, "denied": {}, "alerts": 0}
    assert gate.portfolio.working_orders() == []


def test_exits_without_a_link_are_orders_like_others():
    gate = make({"max_position": 5.0})
    verdict = gate.check_list(bracket(entry=3.0, exits=3.0))
    assert codes(verdict) == ["MAX_POSITION"]
    assert "order target" in verdict.violations[0].detail  # -6, if both sells fill and the entry does not


def test_exits_larger_than_the_entry_are_orders_like_others():
    gate = make({"max_order_notional": 100_000.0})
    assert codes(gate.check_list(bracket(entry=1.0, exits=11.0, reduce_only=True))) == ["MAX_ORDER_NOTIONAL"] * 2


def test_one_bad_leg_denies_the_list_and_every_violation_is_returned():
    gate = make()
    legs = bracket(entry=50.0, exits=50.0, reduce_only=True)
    legs[2].price = 10_040.05
    verdict = gate.check_list(legs)
    assert set(codes(verdict)) == {"MAX_ORDER_NOTIONAL", "MAX_POSITION", "PRICE_TICK"}
    assert gate.counters["allowed"] == 0
    assert gate.counters["checked"] == 3
    assert not gate.portfolio.working_orders()


def test_entries_of_a_list_count_together():
    gate = make({"max_position": 5.0})
    assert gate.check(order(quantity=3.0)).allowed
    verdict = gate.check_list([order("a", 1, 3.0), order("b", 1, 3.0)])
    assert codes(verdict) == ["MAX_POSITION"]
    assert verdict.violations[0].value == 6.0
    assert gate.check_list([order("a", 1, 3.0), order("b", 1, 2.0)]).allowed


def test_closing_orders_of_a_list_share_the_room():
    gate = make()
    hold(gate, 5.0)
    gate.kill("desk", "drill")
    assert gate.check_list([order("a", -1, 3.0), order("b", -1, 2.0)]) == Verdict(True, True)
    assert codes(gate.check_list([order("a", -1, 3.0), order("b", -1, 3.0)])) == ["KILLED"]


def test_a_list_that_is_checked_again_while_it_works():
    gate = make()
    legs = bracket(entry=5.0, exits=5.0, reduce_only=True)
    assert gate.check_list(legs).allowed
    for leg in legs:
        gate.portfolio.on_working(leg)
    assert gate.check_list(legs).allowed  # as at a second gate
    assert len(gate.portfolio.working_orders()) == 3
    assert codes(gate.check(order("more", 1, 1.0))) == ["MAX_POSITION"]


def test_empty_and_duplicate_lists_are_denied():
    gate = make()
    assert codes(gate.check_list([])) == ["EMPTY_LIST"]
    assert codes(gate.check_list([order("a"), order("a")])) == ["DUPLICATE_ORDER"]


def test_a_failure_in_a_list_leaves_nothing_behind():
    gate = make({**ALL, "max_order_rate": "3/1s", "rate_reserve": 0})
    verdict = gate.check_list([order("a"), Trap(order("b", quantity=0.5), 20)])
    assert codes(verdict) == ["INTERNAL_ERROR"]
    assert gate.portfolio.working_orders() == []
    assert [row.value for row in gate.utilisation() if row.code == "MAX_ORDER_RATE"] == [0.0]


# -- modifications ---------------------------------------------------------------------------------------------------


def test_a_modification_is_the_order_it_would_make():
    gate = make()
    working = order("w", quantity=3.0)
    gate.portfolio.on_working(working)
    assert gate.check_modify(working, new_quantity=5.0).allowed
    assert codes(gate.check_modify(working, new_quantity=5.001)) == ["MAX_POSITION"]
    assert codes(gate.check_modify(working, new_price=10_050.1)) == ["PRICE_COLLAR"]
    assert codes(gate.check_modify(working, new_price=10_000.05)) == ["PRICE_TICK"]
    assert codes(gate.check_modify(working, new_quantity=NAN)) == ["NON_FINITE_QUANTITY"]
    assert codes(gate.check_modify(working, new_price=NAN)) == ["NON_FINITE_PRICE"]
    assert codes(gate.check_modify(working, new_trigger=math.inf)) == ["NON_FINITE_PRICE"]
    assert working.quantity == 3.0
    assert gate.portfolio.working_orders()[0].quantity == 3.0


def test_a_modification_counts_only_what_is_still_open():
    gate = make({"max_position": 5.0})
    working = order("w", quantity=3.0)
    gate.portfolio.on_working(working)
    gate.portfolio.on_fill("BTC", 2.0, 10_000.0, "", "X", "S", "w", "t1")
    assert gate.check_modify(working, new_quantity=5.0).allowed  # 2 held and 3 open
    assert codes(gate.check_modify(working, new_quantity=5.001)) == ["MAX_POSITION"]


def test_a_smaller_order_passes_a_kill_and_another_price_does_not():
    gate = make()
    working = order("w", quantity=3.0)
    gate.portfolio.on_working(working)
    gate.kill("desk", "drill")
    assert gate.check_modify(working, new_quantity=1.0) == Verdict(True, True)
    assert codes(gate.check_modify(working, new_price=10_001.0)) == ["KILLED"]
    assert codes(gate.check_modify(working, new_quantity=4.0)) == ["KILLED"]


def test_only_what_is_known_to_work_can_be_made_smaller():
    gate = make({"max_position": 5.0})
    stranger = order("w", quantity=50.0)
    assert codes(gate.check_modify(stranger, new_quantity=40.0)) == ["MAX_POSITION"]
    gate.portfolio.on_working(order("w", quantity=2.0))
    assert codes(gate.check_modify(stranger, new_quantity=40.0)) == ["MAX_POSITION"]
    assert gate.check_modify(stranger, new_quantity=1.0) == Verdict(True, True)


# -- more rules ------------------------------------------------------------------------------------------------------


def test_rules_can_be_added():
    class NoMonday:
        code = "NO_MONDAY"
        kind = "risk"

        def check(self, context):
            return Violation(self.code, context.leaves, 0.0) if context.order.ts == 2 * SECOND else None

    gate = make(extra_rules=[NoMonday()])
    hold(gate, 1.0)
    assert codes(gate.check(order())) == ["NO_MONDAY"]
    assert gate.check(order(ts=3 * SECOND)).allowed
    assert gate.check(order(side=-1)).allowed
