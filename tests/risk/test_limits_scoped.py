"""Limits of parts of the portfolio, warnings, use, scenario limits, reloads, faults, and settings that are refused."""

from __future__ import annotations

import math
import threading

import msgspec
import numpy as np
import pytest
from limits_scene import FACTS, NAN, SECOND, codes, hold, make, order

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk import InstrumentFacts, PortfolioState, RiskGate, RiskLimits, ScenarioSet, VarSettings
from tengri_fast.risk.limit_table import CODES
from tengri_fast.risk.limits import MEASURES, ScopedLimit, table

# -- scopes, soft limits, use ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [("strategy:S", {}, {"strategy": "T"}), ("instrument:A.V1", {}, {"name": "B.V1"}),
     ("venue:V1", {"name": "B.V1"}, {"name": "C.V2"}), ("bucket:tech", {"name": "B.V1"}, {"name": "C.V2"})],
)  # fmt: skip
@pytest.mark.parametrize("measure", [name for name, kind in MEASURES.items() if kind.scoped])
def test_scopes(scope, inside, outside, measure):
    limit = {"order_rate": "2/1s", "message_rate": "2/1s", "working_orders": 1, "order_quantity": 2.0, "position": 2.0,
             "concentration": 0.02, "leverage": 0.02, "margin_use": 0.02}.get(measure, 200.0)  # fmt: skip
    gate = make(scoped=(ScopedLimit(scope=scope, measure=measure, limit=limit),), rate_reserve=0)
    if measure == "working_orders":
        gate.portfolio.on_working(order(**inside, price=100.0))
        gate.portfolio.on_working(order(**outside, price=100.0))
    if measure.endswith("_rate"):
        for _ in range(2):
            assert gate.check(order(**inside)).allowed
            assert gate.check(order(**outside)).allowed
    quantity = 9.0 if measure == "margin_use" else 2.5
    (violation,) = gate.check(order(**inside, quantity=quantity)).violations
    assert violation.rule == MEASURES[measure].code
    assert scope in violation.detail
    assert gate.check(order(**outside, quantity=quantity)).allowed


def test_what_others_hold_neither_counts_nor_offsets_within_a_strategy():
    gate = make(scoped=(ScopedLimit(scope="strategy:S", measure="gross_exposure", limit=500.0),
                        ScopedLimit(scope="strategy:S", measure="position", limit=5.0)))  # fmt: skip
    hold(gate, 50.0, strategy="T")
    assert gate.check(order(quantity=5.0)).allowed
    hold(gate, -50.0, strategy="T")
    assert codes(gate.check(order(quantity=5.5))) == ["MAX_POSITION", "MAX_GROSS_EXPOSURE"]
    gate.portfolio.on_working(order(quantity=3.0, price=99.0, cid="w1"))
    assert codes(gate.check(order(quantity=2.5))) == ["MAX_POSITION", "MAX_GROSS_EXPOSURE"]
    gate.portfolio.on_working(order(quantity=30.0, side=-1, price=102.0, cid="w2", reduce_only=True))
    assert gate.check(order(quantity=2.0)).allowed


def test_a_limit_of_an_instrument_that_comes_later():
    gate = make(scoped=(ScopedLimit(scope="instrument:Z.V9", measure="position", limit=2.0),), max_position={"*": 5.0})
    gate.kill("desk", "not yet", "instrument:Z.V9")
    gate.portfolio.add_instrument(InstrumentFacts("Z.V9"))
    gate.portfolio.on_price("Z.V9", 100.0, 100.0, SECOND)
    assert codes(gate.check(order("Z.V9", quantity=3.0))) == ["MAX_POSITION", "KILLED"]
    gate.rearm("desk", "now")
    assert codes(gate.check(order("Z.V9", quantity=3.0))) == ["MAX_POSITION"]
    assert gate.check(order("Z.V9", quantity=2.0)).allowed
    assert gate.check(order(quantity=5.0)).allowed


def test_warnings_come_once_and_again_after_the_value_has_clearly_left():
    told = []
    portfolio = PortfolioState(FACTS)
    gate = RiskGate(RiskLimits(max_position=10.0), portfolio, on_warning=told.append)
    gate.warmup()
    portfolio.on_price("A.V1", 100.0, 100.0, SECOND)
    portfolio.on_price("B.V1", 100.0, 100.0, SECOND)

    def at(quantity, name="A.V1"):
        return [warning.at for warning in gate.check(order(name, quantity=quantity)).warnings]

    assert at(4.5) == []
    assert at(5.0) == [0.5]
    assert at(5.0) == []
    assert at(4.5) == []  # a tenth below: not yet clearly left
    assert at(5.0) == []
    assert at(4.0) == []
    assert at(5.0, "B.V1") == [0.5]  # every instrument by itself
    assert at(9.5) == [0.95]  # passed several: the highest is told
    assert at(9.0) == []
    assert at(9.5) == []
    assert at(7.0) == []
    assert at(8.0) == [0.8]
    assert codes(gate.check(order(quantity=10.5))) == ["MAX_POSITION"]  # a denial warns of nothing
    assert told[0].text() == "MAX_POSITION instrument:A.V1 5 of 10 (50 %)"
    assert gate.diagnostics["warnings"] == len(told) == 4


def test_a_soft_limit_warns_and_does_not_deny():
    gate = make(scoped=(ScopedLimit(scope="portfolio", measure="gross_exposure", soft="10%"),), max_order_notional=1e9)
    assert gate.check(order(quantity=10.0)).warnings == ()
    (warning,) = gate.check(order(quantity=10.5)).warnings
    assert (warning.code, warning.value, warning.limit) == ("MAX_GROSS_EXPOSURE", 1050.0, 1000.0)
    assert math.isnan(warning.at)
    assert gate.check(order(quantity=10.5)).warnings == ()
    assert gate.check(order(quantity=8.5)).warnings == ()
    assert len(gate.check(order(quantity=99.0)).warnings) == 1
    (row,) = [row for row in gate.utilisation() if row.code == "MAX_GROSS_EXPOSURE"]
    assert row.limit == math.inf


def test_the_use_of_every_limit():
    gate = make(max_position=10.0, max_gross_exposure="50%", max_net_exposure=2000.0, max_leverage=2.0,
                max_margin_use=0.5, max_concentration=0.5, max_working_orders=4, max_working_notional=1000.0,
                max_order_rate="10/1s", max_daily_loss=0.1, max_drawdown=0.2, max_order_notional=1e6,
                scoped=(ScopedLimit(scope="strategy:T", measure="position", limit=8.0),))  # fmt: skip
    hold(gate, 4.0)
    hold(gate, -2.0, "C.V2", "T")
    gate.portfolio.on_working(order("C.V2", -1, 1.0, 101.0, "w", strategy="T"))
    gate.on_equity(10_000.0, SECOND)
    gate.on_equity(9_500.0, SECOND)
    used = {(row.code, row.scope): round(row.share, 12) for row in gate.utilisation()}
    assert used == {
        ("MAX_ORDER_RATE", "portfolio"): 0.0,
        ("MAX_POSITION", "instrument:A.V1"): 0.4,
        ("MAX_POSITION", "instrument:C.V2"): 0.3,
        ("MAX_POSITION", "strategy:T"): 0.375,
        ("MAX_WORKING_ORDERS", "portfolio"): 0.25,
        ("MAX_WORKING_NOTIONAL", "portfolio"): 0.101,
        ("MAX_GROSS_EXPOSURE", "portfolio"): round(700.0 / 4750.0, 12),
        ("MAX_NET_EXPOSURE", "portfolio"): 0.1,
        ("MAX_CONCENTRATION", "portfolio"): round(400.0 / 9500.0 / 0.5, 12),
        ("MAX_LEVERAGE", "portfolio"): round(700.0 / 9500.0 / 2.0, 12),
        ("MAX_MARGIN_USE", "portfolio"): round(400.0 / 9500.0 / 0.5, 12),
        ("MAX_DAILY_LOSS", "portfolio"): 0.5,
        ("MAX_DRAWDOWN", "portfolio"): 0.25,
    }


# -- scenarios -------------------------------------------------------------------------------------------------------


def scenario_gate(**limits):
    returns = np.random.default_rng(5).normal(0.0, 0.02, (3, 1000))
    names = [fact.instrument_id for fact in FACTS]
    portfolio = PortfolioState(FACTS, ScenarioSet(names, returns, 60 * SECOND), VarSettings(horizon="60s"))
    gate = RiskGate(RiskLimits(**limits), portfolio)
    gate.warmup()
    for name in names:
        portfolio.on_price(name, 100.0, 100.0, SECOND)
    portfolio.on_equity(10_000.0)
    return gate


@pytest.mark.parametrize(("field", "index"), [("max_portfolio_var", 0), ("max_portfolio_es", 1)])
def test_tail_limits_at_their_number(field, index):
    gate = scenario_gate(**{field: 0.01})
    hold(gate, 10.0)
    gate.portfolio.on_working(order("C.V2", 1, 5.0, 100.0, "w"))
    view = order("B.V1", quantity=20.0)
    exact = max(case[index] for case in gate.portfolio.what_if(view).values())
    gate.portfolio.on_equity(exact / 0.01 * (1 - 1e-9))
    (violation,) = gate.check(view).violations
    assert violation.rule == field.upper()
    assert violation.value == pytest.approx(exact / (exact / 0.01 * (1 - 1e-9)))
    assert "case: " in violation.detail
    gate.portfolio.on_equity(exact / 0.01 * (1 + 1e-9))
    assert gate.check(view).allowed
    (row,) = gate.utilisation()
    held = max(tail[index] for tail in gate.portfolio.what_if(order(quantity=0.0)).values())
    assert row.value == pytest.approx(held / gate.portfolio.equity)


def test_stress_losses():
    gate = scenario_gate(max_stress_loss=0.05)
    assert codes(gate.check(order())) == ["MISSING_STRESS_SCENARIOS"]
    names = [fact.instrument_id for fact in FACTS]
    gate.portfolio.set_stress(["crash", "boom"], names, np.array([[-0.5, 0.2], [-0.5, 0.2], [0.1, 0.1]]))
    assert gate.check(order(quantity=10.0)).allowed  # 500 of 10,000
    (violation,) = gate.check(order(quantity=10.5)).violations
    assert violation.rule == "MAX_STRESS_LOSS"
    assert violation.value == pytest.approx(0.0525)
    assert "crash" in violation.detail
    gate.portfolio.on_equity(NAN)
    assert codes(gate.check(order())) == ["MISSING_EQUITY"]


def test_a_gate_that_only_stresses_needs_no_return_scenarios():
    portfolio = PortfolioState(FACTS)
    with pytest.raises(ConfigurationError, match=r"risk\.var"):
        RiskGate(RiskLimits(max_portfolio_es=0.1), portfolio)
    gate = RiskGate(RiskLimits(max_stress_loss=0.1), portfolio)
    gate.warmup()
    assert gate.armed


# -- reload ----------------------------------------------------------------------------------------------------------


def test_a_reload_is_whole_or_not_at_all_and_keeps_what_was_counted():
    gate = make(max_order_rate="3/1s", rate_reserve=0, max_position=5.0)
    gate.kill("desk", "drill", "strategy:T")
    for _ in range(3):
        assert gate.check(order()).allowed
    with pytest.raises(ConfigurationError, match=r"risk\.var"):
        gate.reload(RiskLimits(max_portfolio_var=0.1), "me", "why not")
    with pytest.raises(ConfigurationError, match="`limits` must be RiskLimits"):
        gate.reload({"max_position": 1.0}, "me", "why not")
    for name, reason in (("", "x"), ("x", " ")):
        with pytest.raises(ConfigurationError, match="who changes the limits and why"):
            gate.reload(RiskLimits(max_position=1.0), name, reason)
    assert gate.generation == 0
    assert codes(gate.check(order(quantity=6.0))) == ["MAX_ORDER_RATE", "MAX_POSITION"]
    gate.reload(RiskLimits(max_order_rate="4/1s", rate_reserve=0, max_order_quantity=9.0), "risk officer", "new desk")
    assert gate.generation == 1
    assert gate.history[-1] == ("reload", "risk officer", "new desk", 2 * SECOND)
    assert gate.check(order(quantity=6.0)).allowed  # the fourth
    assert codes(gate.check(order(quantity=9.5))) == ["MAX_ORDER_RATE", "MAX_ORDER_QUANTITY"]
    assert gate.killed


# -- faults ----------------------------------------------------------------------------------------------------------


def test_a_burst_of_ten_thousand_orders():
    gate = make(max_order_rate="1000/1s", duplicate_window="1s", max_working_orders=5000, max_gross_exposure=1e9,
                scoped=(ScopedLimit(scope="strategy:S", measure="position", limit=1e9),))  # fmt: skip
    passed = 0
    for number in range(10_000):
        view = order(quantity=0.5 * (number % 7 + 1), price=100.0 + 0.25 * (number % 1000 - 500) % 25)
        if gate.check(view).allowed:
            passed += 1
            gate.portfolio.on_working(view)
    assert 0 < passed <= 900
    assert gate.counters["checked"] == 10_000
    assert sum(1 for _ in gate.portfolio.working_orders()) == passed


def test_clock_jumps_open_no_window():
    gate = make(max_order_rate="2/1s", rate_reserve=0)
    ahead = 1000 * SECOND
    assert gate.check(order(ts=ahead)).allowed
    assert gate.check(order(ts=1)).allowed
    assert codes(gate.check(order(ts=2))) == ["MAX_ORDER_RATE"]
    assert codes(gate.check(order(ts=ahead + SECOND - 1))) == ["MAX_ORDER_RATE"]
    assert gate.check(order(ts=ahead + SECOND)).allowed
    assert gate.diagnostics["clock_backwards"] == 2


def test_switches_from_another_thread():
    gate = make(max_position=5.0)

    def flip():
        for number in range(200):
            gate.kill(f"k{number}", "drill", "strategy:T" if number % 2 else "portfolio")
            gate.rearm(f"k{number}", "drill")

    threads = [threading.Thread(target=flip)]
    for thread in threads:
        thread.start()
    seen = {tuple(codes(gate.check(order()))) for _ in range(3000)}
    for thread in threads:
        thread.join()
    assert seen <= {(), ("KILLED",)}
    assert gate.check(order()).allowed


def test_scoped_switches():
    gate = make(max_position=5.0)
    for scope, hit in (("strategy:S", True), ("strategy:T", False), ("instrument:A.V1", True), ("venue:V1", True),
                       ("venue:V2", False), ("bucket:tech", True), ("bucket:oil", False)):  # fmt: skip
        gate.kill("k", "drill", scope)
        assert codes(gate.check(order())) == (["KILLED"] if hit else []), scope
        gate.rearm("k", "drill")
    for scope in ("", "strategy", "strategy:", "planet:mars"):
        with pytest.raises(ConfigurationError, match="`scope` must be"):
            gate.kill("k", "drill", scope)
    assert not gate.killed


def test_a_gate_is_not_pickled():
    with pytest.raises(TypeError, match="cannot be pickled"):
        make(max_position=1.0).__reduce__()


def test_two_gates_may_watch_one_portfolio():
    first = make(max_gross_exposure=1000.0)
    second = RiskGate(RiskLimits(max_gross_exposure=500.0), first.portfolio)
    second.warmup()
    for quantity, wanted in ((3.0, (True, True)), (6.0, (True, False)), (11.0, (False, False)), (4.0, (True, True))):
        hold(first, quantity)
        assert (first.check(order("B.V1")).allowed, second.check(order("B.V1")).allowed) == wanted


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"max_order_rate": "many"}, "`max_order_rate` must be a number and a time"),
     ({"max_order_rate": "0/1s"}, "`max_order_rate` must allow 1 to"),
     ({"max_order_rate": "5/soon"}, "`max_order_rate` must be a number with ns"),
     ({"max_order_rate": "1/1s"}, "`rate_reserve` must be >= 0 and < 1"),
     ({"max_message_rate": "5/1s", "rate_reserve": 5}, "`rate_reserve` must be >= 0 and < 5"),
     ({"max_gross_exposure": "lots"}, "`max_gross_exposure` must be an amount or a text"),
     ({"max_net_exposure": "0%"}, "`max_net_exposure` must be > 0"),
     ({"max_working_notional": -1.0}, "`max_working_notional` must be finite and > 0"),
     ({"max_working_orders": 0}, "`max_working_orders` must be 1 to"),
     ({"max_position": 1.0, "max_rejects": 0}, "`max_rejects` must be 1 to"),
     ({"max_position": 1.0, "max_rung": -1}, "`max_rung` must be >= 0"),
     ({"max_position": 1.0, "day_boundary": "24:00"}, "`day_boundary` must be a time"),
     ({"max_position": 1.0, "collar_window": "5s"}, "`price_collar_bps` must be set when `collar_window` is"),
     ({"max_position": 1.0, "collar_reference": "open"}, "`collar_reference` must be mid or last"),
     ({"max_position": 1.0, "self_trade": "maybe"}, "`self_trade` must be allow or deny"),
     ({"max_position": 1.0, "warn_at": (0.8, 0.5)}, "`warn_at` must be at most 8 rising shares"),
     ({"max_position": 1.0, "duplicate_window": 0}, "`duplicate_window` must be >= 1 ns"),
     ({"max_order_quantity": {}}, "`max_order_quantity` must name at least one"),
     ({"max_order_quantity": {"A": NAN}}, r"`max_order_quantity\.A` must be finite"),
     ({"max_daily_loss": 0.0}, "`max_daily_loss` must be finite and > 0"),
     ({"self_trade": "deny", "deny": ("A",)}, "at least one of"),
     ({"scoped": (ScopedLimit(scope="portfolio", measure="leverage", soft=1.0),)}, "at least one of")],
)  # fmt: skip
def test_settings_that_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        RiskLimits(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"scope": "planet:X", "measure": "position", "limit": 1.0}, "`scoped.scope` must be portfolio, or venue:NAME"),
     ({"scope": "strategy:", "measure": "position", "limit": 1.0}, "`scoped.scope` must be"),
     ({"scope": "strategy:S", "measure": "daily_loss", "limit": 0.1}, "must be portfolio for daily_loss"),
     ({"scope": "strategy:S", "measure": "luck", "limit": 0.1}, "`scoped.measure` must be one of"),
     ({"scope": "strategy:S", "measure": "position"}, "must give a `limit` or a `soft`"),
     ({"scope": "strategy:S", "measure": "position", "limit": "5%"}, "`scoped.limit` must be a number for position"),
     ({"scope": "strategy:S", "measure": "order_rate", "limit": 5.0}, "`scoped.limit` must be a text like"),
     ({"scope": "strategy:S", "measure": "order_rate", "soft": "5/1s"}, "must be given for a rate"),
     ({"scope": "venue:X", "measure": "gross_exposure", "limit": 5.0, "soft": "5%"}, "`scoped.soft` must be")],
)  # fmt: skip
def test_scoped_limits_that_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        ScopedLimit(**settings)


def test_a_limit_is_not_given_twice():
    twice = ScopedLimit(scope="venue:X", measure="position", limit=1.0)
    with pytest.raises(ConfigurationError, match="is there twice"):
        RiskLimits(scoped=(twice, twice))
    with pytest.raises(ConfigurationError, match="must not repeat `max_leverage`"):
        RiskLimits(max_leverage=1.0, scoped=(ScopedLimit(scope="portfolio", measure="leverage", limit=2.0),))


def test_limits_from_a_table():
    limits = msgspec.convert(
        {
            "max_order_rate": [100, "1s"], "max_gross_exposure": "150%", "max_position": {"A": 1, "*": 2},
            "window": [
                {"venue": "XNAS", "days": ["mon"], "from": "09:30", "to": "16:00", "time_zone": "America/New_York"}
            ],
            "scoped": [{"scope": "venue:BINANCE", "measure": "net_exposure", "limit": 5, "soft": 4.0}],
            "warn_at": [0.9],
        },
        RiskLimits,
    )  # fmt: skip
    assert limits.window[0].opens == "09:30"
    rows = {(row.code, row.scope): row for row in table(limits)}
    assert rows["MAX_ORDER_RATE", "portfolio"][3:] == (100.0, pytest.approx(NAN, nan_ok=True), False, SECOND, 10)
    assert rows["MAX_GROSS_EXPOSURE", "portfolio"].limit == 1.5
    assert rows["MAX_GROSS_EXPOSURE", "portfolio"].of_equity
    assert rows["MAX_NET_EXPOSURE", "venue"].name == "BINANCE"
    assert rows["MAX_NET_EXPOSURE", "venue"].soft == 4.0
    with pytest.raises(msgspec.ValidationError, match="measure"):
        msgspec.convert({"scoped": [{"scope": "portfolio", "measure": "luck", "limit": 1}]}, RiskLimits)
    with pytest.raises(msgspec.ValidationError, match="until"):
        msgspec.convert({"max_position": 1, "window": [{"venue": "X", "until": "16:00"}]}, RiskLimits)


def test_every_code_of_a_measure_is_one_of_the_check():
    assert {kind.code for kind in MEASURES.values()} <= set(CODES)
    assert len(set(CODES)) == len(CODES)
    assert {row.code for row in table(RiskLimits(max_position=1.0))} == {"MAX_POSITION"}
