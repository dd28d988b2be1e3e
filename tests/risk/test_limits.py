"""Every limit: it fires above its number and not at it, and reducing orders pass; a missing number is closed."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import msgspec
import pytest
from limits_scene import DAY, FACTS, NAN, SECOND, codes, hold, make, order

from tengri_fast.errors import DataConversionError
from tengri_fast.risk import InstrumentFacts, PortfolioState, RiskGate, RiskLimits
from tengri_fast.risk.limit_table import CODES
from tengri_fast.risk.rules import ModelHealth
from tengri_fast.risk.windows import TradingWindow

# -- at the limit and above it ---------------------------------------------------------------------------------------

# Limits, orders that pass at the very limit, and orders just above it.
BOUNDARIES = {
    "MAX_ORDER_QUANTITY": ({"max_order_quantity": {"A.V1": 4.0, "*": 2.0}}, order(quantity=4.0), order(quantity=4.5)),
    "MAX_ORDER_NOTIONAL": ({"max_order_notional": 400.0}, order(quantity=4.0), order(quantity=4.5)),
    "MAX_POSITION": ({"max_position": 4.0}, order(quantity=4.0), order(quantity=4.5)),
    "MAX_GROSS_EXPOSURE": ({"max_gross_exposure": 400.0}, order(quantity=4.0), order(quantity=4.5)),
    "MAX_NET_EXPOSURE": ({"max_net_exposure": "4%"}, order(side=-1, quantity=4.0), order(side=-1, quantity=4.5)),
    "MAX_CONCENTRATION": ({"max_concentration": 0.04}, order(quantity=4.0), order(quantity=4.5)),
    "MAX_LEVERAGE": ({"max_leverage": 0.04}, order(quantity=4.0), order(quantity=4.5)),
    "MAX_MARGIN_USE": ({"max_margin_use": 0.01}, order(quantity=4.0), order(quantity=4.5)),
    "MAX_WORKING_NOTIONAL": ({"max_working_notional": 400.0}, order(quantity=4.0), order(quantity=4.5)),
    "PRICE_COLLAR": ({"price_collar_bps": 100.0}, order(price=101.0), order(price=101.25)),
    "MAX_SPREAD": ({"max_spread_bps": 50.0}, order(), None),
    "SHORT_SALE": ({}, order("C.V2", -1, 1.0, 100.0), order("C.V2", -1, 1.0, 99.75)),
}  # fmt: skip


@pytest.mark.parametrize("code", BOUNDARIES)
def test_a_limit_fires_above_its_number_and_not_at_it(code):
    limits, at, above = BOUNDARIES[code]
    gate = make(**limits)
    assert codes(gate.check(at)) == []
    if above is None:
        gate.portfolio.on_price("A.V1", 99.5, 100.25, 2 * SECOND)
        above = order()
    (violation,) = gate.check(above).violations
    assert violation.rule == code
    assert code in CODES
    if code != "SHORT_SALE":
        assert violation.value > violation.limit
    assert gate.counters["denied"] == {code: 1}


@pytest.mark.parametrize("code", BOUNDARIES)
def test_a_reducing_order_passes_every_limit_but_integrity(code):
    limits, _, above = BOUNDARIES[code]
    gate = make(**limits)
    above = order() if above is None else msgspec.structs.replace(above, client_order_id=f"r-{code}")
    hold(gate, -above.side * 100.0, above.instrument_id)
    gate.portfolio.on_equity(NAN)
    if code == "MAX_SPREAD":
        gate.portfolio.on_price("A.V1", 95.0, 105.0, 2 * SECOND)
    verdict = gate.check(above)
    assert verdict.reducing
    assert codes(verdict) == (["PRICE_COLLAR"] if code == "PRICE_COLLAR" else [])


@pytest.mark.parametrize(
    "limits",
    [{"max_net_exposure": "4%"}, {"max_concentration": 0.04}, {"max_leverage": 0.04}, {"max_margin_use": 0.04},
     {"max_daily_loss": 0.1}, {"max_drawdown": 0.1}, {"max_gross_exposure": "150%"}],
)  # fmt: skip
@pytest.mark.parametrize("equity", [NAN, math.inf])
def test_unknown_equity_is_closed(limits, equity):
    gate = make(**limits)
    gate.portfolio.on_equity(equity)
    assert codes(gate.check(order())) == ["MISSING_EQUITY"]
    gate.portfolio.on_equity(1e6)
    assert gate.check(order()).allowed


@pytest.mark.parametrize("field", ["max_gross_exposure", "max_net_exposure", "max_leverage", "max_margin_use"])
def test_another_exposure_without_a_price_is_closed(field):
    facts = [*FACTS, InstrumentFacts("D.V1"), InstrumentFacts("E.V1", settlement_currency="EUR")]
    portfolio = PortfolioState(facts, base_currency="USD")
    gate = RiskGate(RiskLimits(**{field: 1e6}), portfolio)
    gate.warmup()
    portfolio.on_equity(1e6)
    for name in ("A.V1", "E.V1"):
        portfolio.on_price(name, 100.0, 100.0, SECOND)
    assert gate.check(order()).allowed
    portfolio.set_position("D.V1", 1.0)
    (violation,) = gate.check(order()).violations
    assert (violation.rule, violation.detail) == ("UNPRICED_POSITION", "D.V1")
    portfolio.on_price("D.V1", 100.0, 100.0, SECOND)
    assert gate.check(order()).allowed
    portfolio.set_position("E.V1", 1.0)
    (violation,) = gate.check(order()).violations
    assert (violation.rule, violation.detail) == ("MISSING_RATE", "EUR in USD")


def test_exposures_count_the_worse_end_of_working_orders():
    gate = make(max_gross_exposure=1000.0)
    hold(gate, 3.0)
    gate.portfolio.on_working(order("B.V1", 1, 4.0, 100.0, "w1"))
    gate.portfolio.on_working(order("B.V1", -1, 4.5, 100.0, "w2"))
    assert gate.check(order(quantity=2.5)).allowed  # 550 and 450
    (violation,) = gate.check(order(quantity=3.0)).violations
    assert (violation.value, violation.limit) == (1050.0, 1000.0)
    gate.portfolio.on_order_closed("w2")
    gate.portfolio.on_price("B.V1", 199.75, 200.25, 2 * SECOND)
    (violation,) = gate.check(order(quantity=3.0)).violations
    assert violation.value == 1400.0


def test_net_exposure_holds_no_hedge_back():
    gate = make(max_net_exposure=300.0)
    hold(gate, 5.0)
    assert codes(gate.check(order("C.V2"))) == ["MAX_NET_EXPOSURE"]
    assert gate.check(order("C.V2", -1, 8.0, 100.0)).allowed


# -- order flow ------------------------------------------------------------------------------------------------------


def test_rates_keep_a_part_for_reducing_orders():
    gate = make(max_order_rate="10/1s", max_message_rate=(12, "1s"), rate_reserve=3)
    for _ in range(7):
        assert gate.check(order()).allowed
    verdict = gate.check(order())
    assert codes(verdict) == ["MAX_ORDER_RATE"]
    assert verdict.violations[0].text() == (
        "TENGRI_RISK:MAX_ORDER_RATE value=8 limit=7 (portfolio: in 1 s, 3 kept for orders that take risk off)"
    )
    hold(gate, 5.0)
    for _ in range(3):
        assert gate.check(order(side=-1)).reducing
    assert codes(gate.check(order(side=-1))) == ["MAX_ORDER_RATE"]
    assert gate.check(order(ts=3 * SECOND)).allowed
    assert gate.check(order(ts=3 * SECOND - 1)).allowed  # the clock goes back: it counts as at the latest time
    assert gate.diagnostics["clock_backwards"] == 1


def test_modifications_and_cancels_are_messages_and_cancels_are_never_refused():
    gate = make(max_order_rate="100/1s", max_message_rate="5/1s", rate_reserve=1)
    working = order(price=100.0, cid="w")
    assert gate.check(working).allowed
    gate.portfolio.on_working(working)
    assert gate.check_modify(working, 2.0).allowed
    for _ in range(2):
        gate.on_cancel("S", "A.V1", 2 * SECOND)
    assert codes(gate.check_modify(working, 2.0)) == ["MAX_MESSAGE_RATE"]
    assert gate.check_modify(working, 0.5).reducing
    for _ in range(100):
        gate.on_cancel("S", "A.V1", 2 * SECOND)
    used = {row.code: row.value for row in gate.utilisation()}
    assert used == {"MAX_ORDER_RATE": 1.0, "MAX_MESSAGE_RATE": 5.0}


def test_what_is_denied_or_only_looked_at_is_not_counted():
    gate = make(max_order_rate="3/1s", rate_reserve=0, max_order_quantity=5.0)
    for _ in range(9):
        assert gate.preview(order()).allowed
        assert codes(gate.check(order(quantity=6.0))) == ["MAX_ORDER_QUANTITY"]
        assert codes(gate.check_list([order(), order(), order(quantity=6.0)])) == ["MAX_ORDER_QUANTITY"]
    assert gate.check_list([order(), order(), order()]).allowed
    assert codes(gate.check_list([order()])) == ["MAX_ORDER_RATE"]
    assert gate.counters["checked"] == 9 * 4 + 4


def test_a_preview_does_not_move_the_clock():
    gate = make(max_order_rate="2/1s", rate_reserve=0)
    assert gate.check(order()).allowed
    assert gate.check(order()).allowed
    assert gate.preview(order(ts=99 * SECOND)).allowed
    assert codes(gate.check(order())) == ["MAX_ORDER_RATE"]
    assert gate.check(order(ts=3 * SECOND)).allowed
    assert gate.diagnostics["clock_backwards"] == 0


def test_duplicates():
    gate = make(duplicate_window="1s")
    first = order(quantity=2.0, price=100.0, cid="first")
    assert gate.check(first).allowed
    assert gate.check(first).allowed  # the same order again, as at a second gate
    same = {"quantity": 2.0, "price": 100.0}
    assert codes(gate.check(order(**same))) == ["DUPLICATE_ORDER"]
    hold(gate, -50.0)
    assert codes(gate.check(order(**same))) == ["DUPLICATE_ORDER"]  # integrity: also when it reduces
    hold(gate, 0.0)
    for change in ({"quantity": 2.5}, {"price": 100.25}, {"side": -1}, {"strategy": "T"}, {"name": "B.V1"},
                   {"price": NAN}, {"order_type": "STOP_LIMIT", "trigger_price": 100.0}):  # fmt: skip
        assert gate.check(order(**{**same, **change})).allowed, change
    assert codes(gate.check(order(**same, ts=3 * SECOND - 1))) == ["DUPLICATE_ORDER"]
    assert gate.check(order(**same, ts=3 * SECOND)).allowed


def test_repeated_executions_stop_the_strategy_until_a_person_says_otherwise():
    told = []
    portfolio = PortfolioState(FACTS)
    gate = RiskGate(RiskLimits(max_position=100.0, max_repeated_executions=3, repeat_window="10s"), portfolio,
                    on_alert=told.append)  # fmt: skip
    gate.warmup()
    portfolio.on_price("A.V1", 100.0, 100.0, SECOND)
    for n in range(3):
        gate.on_execution("S", "A.V1", 1, n)
    gate.on_execution("S", "A.V1", -1, 4)
    for n in range(3):
        gate.on_execution("S", "A.V1", 1, 5 + n)
    assert not gate.killed
    gate.on_execution("S", "A.V1", 1, 9)
    assert gate.kill_scopes == {"repeated-executions:S": "strategy:S"}
    assert len(told) == gate.counters["alerts"] == 1
    (violation,) = gate.check(order()).violations
    assert violation.text() == "TENGRI_RISK:KILLED (repeated-executions:S: more than 3 buys in A.V1 in a row)"
    assert gate.check(order(strategy="T")).allowed
    hold(gate, 1.0)
    assert gate.check(order(side=-1)).allowed
    gate.rearm("repeated-executions:S", "looked at it")
    gate.on_execution("S", "A.V1", 1, 10)
    assert not gate.killed


def test_rejects_in_a_row_stop_the_strategy():
    gate = make(max_rejects=3)
    for _ in range(2):
        gate.on_reject("S", "no margin")
    gate.on_accept("S")
    for _ in range(2):
        gate.on_reject("S", "no margin")
    gate.on_execution("S", "A.V1", 1, 1)  # a fill is an acceptance
    for _ in range(3):
        assert gate.check(order()).allowed
        gate.on_reject("S", "no margin")
    assert "KILLED (rejects:S: 3 orders refused in a row, the last: no margin)" in gate.check(order()).text()
    gate.rearm("rejects:S", "margin is there")
    gate.on_reject("S")
    assert gate.check(order()).allowed


def test_working_orders_are_counted_and_a_changed_one_once():
    gate = make(max_working_orders=2)
    for cid in ("w1", "w2"):
        view = order(cid=cid, price=100.0)
        assert gate.check(view).allowed
        gate.portfolio.on_working(view)
    (violation,) = gate.check(order()).violations
    assert (violation.rule, violation.value, violation.limit) == ("MAX_WORKING_ORDERS", 3.0, 2.0)
    assert gate.check_modify(view, 2.0).allowed
    gate.portfolio.on_order_closed("w1")
    assert gate.check(order()).allowed


@pytest.mark.parametrize(
    ("new", "meets"),
    [({"side": -1, "price": 100.0}, True), ({"side": -1, "price": 100.25}, False), ({"side": -1}, True),
     ({"side": 1}, False), ({"side": 1, "price": 100.0}, False), ({"side": -1, "strategy": "T"}, True),
     ({"side": -1, "name": "C.V2", "price": 100.0}, False),
     ({"side": -1, "order_type": "STOP_MARKET", "trigger_price": 99.0}, False),
     ({"side": -1, "order_type": "STOP_MARKET", "trigger_price": 101.0}, True)],
)  # fmt: skip
def test_self_trade(new, meets):
    for policy in ("deny", "allow"):
        gate = make(self_trade=policy)
        gate.portfolio.on_working(order(price=100.0, cid="rests"))
        gate.portfolio.on_working(order(order_type="STOP_MARKET", trigger_price=102.0, cid="waits"))
        assert codes(gate.check(order(**new))) == (["SELF_TRADE"] if meets and policy == "deny" else [])
        hold(gate, 3.0)
        assert new["side"] > 0 or "name" in new or "strategy" in new or gate.check(order(**new)).allowed
    gate.portfolio.on_order_closed("rests")
    assert gate.check(order(**new)).allowed


def test_a_bracket_does_not_meet_itself():
    gate = make(self_trade="deny", max_position=10.0)
    legs = [
        order(price=100.0, quantity=2.0, cid="entry"),
        order(side=-1, quantity=2.0, order_type="STOP_MARKET", trigger_price=98.0, parent_id="entry", cid="stop"),
        order(side=-1, quantity=2.0, price=100.0, parent_id="entry", exclusive_group="g", cid="target"),
    ]
    legs[1].exclusive_group = "g"
    assert gate.check_list(legs).allowed


def test_the_collar_follows_the_market_only_so_fast():
    gate = make(price_collar_bps=100.0, collar_window="16s")
    gate.on_mid("A.V1", 100.0, 2 * SECOND)
    for n in range(1, 4):
        gate.portfolio.on_price("A.V1", 99.75 + n, 100.25 + n, (2 + n) * SECOND)
    late = 6 * SECOND
    assert codes(gate.check(order(price=103.0, ts=late))) == ["PRICE_COLLAR_WINDOW"]  # 3 % above the lowest mid
    assert codes(gate.check(order(price=101.0, ts=late))) == ["PRICE_COLLAR", "PRICE_COLLAR_WINDOW"]
    assert gate.wants_mids
    assert not make(price_collar_bps=100.0).wants_mids
    assert gate.check(order(price=103.0, ts=20 * SECOND)).allowed  # the mid of 100 is out of the window


def test_the_collar_can_be_of_the_last_trade():
    gate = make(price_collar_bps=100.0, collar_reference="last")
    assert codes(gate.check(order(price=100.0))) == ["MISSING_REFERENCE_PRICE"]
    gate.portfolio.on_last("A.V1", 102.0)
    assert codes(gate.check(order(price=100.0))) == ["PRICE_COLLAR"]
    assert gate.check(order(price=102.0)).allowed
    assert gate.check(order()).allowed


# -- account ---------------------------------------------------------------------------------------------------------


def test_a_daily_loss_stops_trading_and_a_person_lets_it_go_on():
    told = []
    portfolio = PortfolioState(FACTS)
    gate = RiskGate(RiskLimits(max_daily_loss=0.1, day_boundary="06:00"), portfolio, on_alert=told.append)
    gate.warmup()
    portfolio.on_price("A.V1", 100.0, 100.0, SECOND)
    assert codes(gate.check(order())) == ["MISSING_EQUITY"]
    gate.on_equity(1000.0, DAY)
    gate.on_equity(900.0, DAY + 1)
    assert gate.check(order(ts=DAY + 1)).allowed
    gate.on_equity(899.0, DAY + 2)
    assert gate.kills == {"daily-loss": "equity 899 after 1000 at the begin of the day"}
    assert len(told) == 1
    verdict = gate.check(order(ts=DAY + 3))
    assert codes(verdict) == ["MAX_DAILY_LOSS", "KILLED"]
    assert verdict.violations[0].value == pytest.approx(0.101)
    hold(gate, 1.0)
    assert gate.check(order(side=-1, ts=DAY + 3)).allowed
    gate.on_equity(899.0, DAY + 6 * 3600 * SECOND)  # a new day turns no switch off
    assert codes(gate.check(order(ts=2 * DAY - 1))) == ["KILLED"]
    gate.rearm("daily-loss", "the loss is understood")
    assert gate.check(order(ts=2 * DAY - 1)).allowed
    gate.on_equity(800.0, 2 * DAY)
    assert gate.killed
    gate.rearm("daily-loss", "again")  # a new allowance from 800
    gate.on_equity(721.0, 2 * DAY + 1)
    assert not gate.killed
    gate.on_equity(719.0, 2 * DAY + 2)
    assert gate.killed


def test_the_check_itself_notices_a_drawdown():
    gate = make(max_drawdown=0.2)
    assert gate.check(order()).allowed
    gate.portfolio.on_equity(12_000.0)
    assert gate.check(order()).allowed
    gate.portfolio.on_equity(9_600.0)
    assert gate.check(order()).allowed
    gate.portfolio.on_equity(9_599.0)
    assert codes(gate.check(order())) == ["MAX_DRAWDOWN"]
    assert list(gate.kills) == ["drawdown"]
    gate.portfolio.on_equity(20_000.0)
    assert codes(gate.check(order())) == ["KILLED"]


def test_state_survives_a_restart():
    gate = make(max_daily_loss=0.1, max_drawdown=0.5, max_rejects=2)
    gate.on_equity(1000.0, DAY)
    gate.on_equity(950.0, DAY + 1)
    gate.kill("desk", "lunch", "venue:V1")
    gate.on_reject("S")
    gate.on_status("C.V2", False, "news")
    state = json.loads(msgspec.json.encode(gate.state()))
    again = make(max_daily_loss=0.1, max_drawdown=0.5, max_rejects=2)
    again.restore(state)
    assert again.state() == gate.state()
    assert again.kill_scopes == {"desk": "venue:V1"}
    assert codes(again.check(order("C.V2", ts=DAY + 2, price=100.0))) == ["INSTRUMENT_HALTED"]
    again.on_equity(899.0, DAY + 3)
    assert "daily-loss" in again.kills
    again.on_reject("S")
    assert "rejects:S" in again.kills
    again.reset()
    assert again.state()["equity"] is None
    assert again.killed  # a reset turns no switch off


@pytest.mark.parametrize(
    "bad", [None, 5, {"version": 2}, {"equity": "much"}, {"kills": {"a": "b"}}, {"more": 1}, {"ts": -1}]
)
def test_a_state_that_is_none_is_refused_whole(bad):
    gate = make(max_daily_loss=0.1)
    before = gate.state()
    with pytest.raises(DataConversionError, match="`state` must be"):
        gate.restore(bad)
    assert gate.state() == before


# -- venue -----------------------------------------------------------------------------------------------------------


def test_halts_and_lists():
    gate = make(allow=("A.V1", "B.V1"), deny=("B.V1",))
    assert gate.check(order()).allowed
    assert codes(gate.check(order("B.V1"))) == ["INSTRUMENT_NOT_ALLOWED"]
    assert codes(gate.check(order("C.V2"))) == ["INSTRUMENT_NOT_ALLOWED"]
    gate.on_status("A.V1", False, "limit up")
    (violation,) = gate.check(order()).violations
    assert violation.text() == "TENGRI_RISK:INSTRUMENT_HALTED (limit up)"
    hold(gate, 1.0)
    assert gate.check(order(side=-1)).allowed
    gate.on_status("A.V1", True)
    assert gate.check(order()).allowed


def test_short_sales():
    gate = make()
    assert codes(gate.check(order("B.V1", -1))) == ["SHORT_SALE"]
    hold(gate, 2.0, "B.V1")
    assert gate.check(order("B.V1", -1, 2.0)).allowed
    assert codes(gate.check(order("B.V1", -1, 2.5))) == ["SHORT_SALE"]
    gate.portfolio.on_working(order("B.V1", -1, 1.5, 101.0, "w"))
    assert codes(gate.check(order("B.V1", -1, 1.0))) == ["SHORT_SALE"]  # both together
    assert gate.check(order("A.V1", -1)).allowed
    assert codes(gate.check(order("C.V2", -1))) == ["SHORT_SALE"]  # at market: below the bid, or at it
    assert gate.check(order("C.V2", -1, 1.0, 100.0)).allowed


def test_trading_windows():
    midnight = 1_700_006_400 * SECOND  # 2023-11-15 00:00 UTC, a Wednesday
    gate = make(
        window=(
            TradingWindow(venue="V1", opens="09:30", closes="16:00", time_zone="America/New_York"),
            TradingWindow(instrument="B.V1", days=("sun",)),
        )
    )
    half = 30 * 60 * SECOND
    opens = midnight + 29 * half  # 14:30 UTC
    assert codes(gate.check(order(ts=opens - 1))) == ["OUTSIDE_TRADING_WINDOW"]
    assert gate.check(order(ts=opens)).allowed
    assert codes(gate.check(order("B.V1", ts=opens))) == ["OUTSIDE_TRADING_WINDOW"]
    assert gate.check(order("C.V2", ts=opens)).allowed  # its venue has no hours
    assert gate.check(order(ts=opens + 13 * half - 1)).allowed
    assert codes(gate.check(order(ts=opens + 13 * half))) == ["OUTSIDE_TRADING_WINDOW"]
    hold(gate, 1.0)
    assert gate.check(order(side=-1, ts=opens + 13 * half)).allowed
    assert codes(gate.check(order(ts=opens))) == ["OUTSIDE_TRADING_WINDOW"]  # time does not go back
    assert gate.check(order(ts=opens + 201 * DAY - 2 * half)).allowed  # in summer it opens at 13:30
    far = gate.check(order(ts=2**64 - 1))
    assert codes(far) == ["OUTSIDE_TRADING_WINDOW"]
    assert "not known" in far.text()


# -- health ----------------------------------------------------------------------------------------------------------

SOUND = {"rung": 1, "out_of_distribution": 2.0, "confidence": 0.5, "ts": SECOND}


@pytest.mark.parametrize(
    ("limits", "code", "bad"),
    [({"max_rung": 1}, "MODEL_RUNG", {"rung": 2}),
     ({"max_out_of_distribution": 2.0}, "MODEL_OUT_OF_DISTRIBUTION", {"out_of_distribution": 2.1}),
     ({"max_out_of_distribution": 2.0}, "MODEL_OUT_OF_DISTRIBUTION", {"out_of_distribution": NAN}),
     ({"min_confidence": 0.5}, "MODEL_CONFIDENCE", {"confidence": 0.4}),
     ({"min_confidence": 0.5}, "MODEL_CONFIDENCE", {"confidence": NAN}),
     ({"max_signal_age": "1s"}, "MODEL_SIGNAL_AGE", {"ts": SECOND - 1}),
     ({"max_signal_age": "1s"}, "MODEL_SIGNAL_AGE", {"ts": 4 * SECOND})],
)  # fmt: skip
def test_model_health(limits, code, bad):
    gate = make(**limits)
    assert codes(gate.check(order())) == ["MISSING_MODEL_HEALTH"]  # nobody said anything: closed
    source = SimpleNamespace(**SOUND)
    assert isinstance(source, ModelHealth)
    gate.register_health("S", source)
    assert gate.check(order()).allowed
    assert codes(gate.check(order(strategy="T"))) == ["MISSING_MODEL_HEALTH"]
    vars(source).update(bad)
    assert codes(gate.check(order())) == [code]
    hold(gate, 1.0)
    assert gate.check(order(side=-1)).allowed
    gate.register_health("S", None)
    assert codes(gate.check(order())) == ["MISSING_MODEL_HEALTH"]


def test_a_source_that_raises_is_closed_but_traps_no_position():
    gate = make(max_rung=1)
    gate.register_health("S", object())
    assert gate.check(order()).violations[0].text() == "TENGRI_RISK:INTERNAL_ERROR (AttributeError in MODEL_HEALTH)"
    hold(gate, 1.0)
    verdict = gate.check(order(side=-1))
    assert verdict.allowed
    assert verdict.alerts == ("AttributeError in MODEL_HEALTH: reducing order let pass",)
    assert gate.counters["alerts"] == 1


def test_a_preview_and_extra_rules_know_the_account_as_it_is_now():
    class Nothing:
        code = "NOTHING"
        kind = "risk"

        def check(self, context):
            return None

    gate = make(max_daily_loss=0.1, extra=[Nothing()])
    assert gate.preview(order()).allowed
    assert gate.state()["equity"] is None  # and left no trace
    assert gate.check(order()).allowed
    gate.portfolio.on_equity(8_999.0)
    assert codes(gate.preview(order())) == ["MAX_DAILY_LOSS"]
    assert not gate.killed
    assert codes(gate.check(order())) == ["MAX_DAILY_LOSS"]
    assert list(gate.kills) == ["daily-loss"]
