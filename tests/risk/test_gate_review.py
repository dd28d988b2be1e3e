"""What an adversarial reading of the gate found: each case passed, refused or forgot what it should not have."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tengri_fast.errors import DataConversionError
from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, RiskGate
from tengri_fast.risk.limits import RiskLimits, ScopedLimit
from tengri_fast.risk.rules import Rule
from tengri_fast.risk.scenarios import ScenarioSet
from tengri_fast.risk.types import Utilisation, VarSettings, Verdict, Violation

SECOND = 10**9
numbers = itertools.count()


class Scene:
    """A gate over some instruments at a mid of 100, and what it told."""

    def __init__(self, limits: RiskLimits, instruments: int = 2, var: VarSettings | None = None, **options: object):
        facts = [InstrumentFacts(f"I{i}.X", price_increment=0.01, size_increment=1.0) for i in range(instruments)]
        names = tuple(fact.instrument_id for fact in facts)
        scenarios = None
        if var is not None:
            row = np.linspace(-0.1, 0.1, 400, dtype=np.float32)
            scenarios = ScenarioSet(names, np.tile(row, (instruments, 1)), var.horizon_ns, {})
        self.portfolio = PortfolioState(facts, scenarios, var)
        self.warned: list[Utilisation] = []
        self.gate = RiskGate(limits, self.portfolio, on_warning=self.warned.append, **options)
        self.gate.warmup()
        for name in names:
            self.portfolio.on_price(name, 99.99, 100.01, SECOND)
        self.gate.on_equity(1e6, SECOND)

    def order(self, side: int = 1, quantity: float = 1.0, i: int = 0, **fields: object) -> OrderView:
        fields = {"strategy_id": "S", "account_id": "A", "ts": SECOND, **fields}
        name = f"O-{next(numbers)}"
        return OrderView(name, instrument_id=f"I{i}.X", side=side, quantity=quantity, **fields)

    def check(self, *args: object, **fields: object) -> Verdict:
        return self.gate.check(self.order(*args, **fields))


def rules(verdict: Verdict) -> list[str]:
    return [violation.rule for violation in verdict.violations]


# ---- an order that passed ----


@pytest.mark.parametrize("kind", ["LIMIT", "MARKET_TO_LIMIT"])
def test_a_trigger_on_a_plain_order_leads_around_no_collar(kind: str) -> None:
    scene = Scene(RiskLimits(price_collar_bps=100.0))
    assert rules(scene.check(price=1000.0, trigger_price=1000.0, order_type=kind)) == ["PRICE_COLLAR"]
    assert scene.check(price=1000.0, trigger_price=1000.0, order_type="STOP_LIMIT").allowed


@pytest.mark.parametrize(
    "fields", [{"price": 101.0, "order_type": "LIMIT"}, {"order_type": "MARKET"}, {"order_type": "MARKET_TO_LIMIT"}]
)
def test_a_trigger_on_a_plain_order_leads_around_no_self_trade(fields: dict[str, object]) -> None:
    scene = Scene(RiskLimits(max_position=1e6, self_trade="deny"))
    scene.portfolio.on_working(scene.order(-1, price=100.0, order_type="LIMIT"))
    assert rules(scene.check(**fields)) == ["SELF_TRADE"]
    assert rules(scene.check(trigger_price=200.0, **fields)) == ["SELF_TRADE"]
    assert scene.check(order_type="STOP_MARKET", trigger_price=200.0).allowed


def test_a_fill_under_the_name_of_a_new_order_hides_none_of_it() -> None:
    scene = Scene(RiskLimits(max_position=5.0))
    order = scene.order(quantity=10.0)
    scene.portfolio.on_fill("I1.X", 10.0, 100.0, strategy_id="S", client_order_id=order.client_order_id)
    assert rules(scene.gate.check(order)) == ["MAX_POSITION"]


@pytest.mark.parametrize("quantity", [1e-10, 5e-324])
def test_next_to_nothing_is_no_whole_number_of_lots(quantity: float) -> None:
    assert rules(Scene(RiskLimits(max_position=1e6)).check(quantity=quantity)) == ["QUANTITY_LOT"]


def test_a_rate_that_falls_and_rises_within_its_window_has_forgotten_nothing() -> None:
    scene = Scene(RiskLimits(max_order_rate="10/1s", rate_reserve=0))
    assert all(scene.check().allowed for _ in range(10))
    scene.gate.reload(RiskLimits(max_order_rate="5/1s", rate_reserve=0), "desk", "less")
    assert rules(scene.check()) == ["MAX_ORDER_RATE"]
    scene.gate.reload(RiskLimits(max_order_rate="12/1s", rate_reserve=0), "desk", "more")
    assert [scene.check().allowed for _ in range(3)] == [True, True, False]


# ---- switches ----


def test_a_switch_that_is_on_for_a_part_can_be_turned_on_for_all() -> None:
    scene = Scene(RiskLimits(max_position=1e6))
    scene.gate.kill("desk", "first", "strategy:OTHER")
    assert scene.check().allowed
    scene.gate.kill("desk", "second", "strategy:OTHER")
    assert scene.gate.kill_scopes == {"desk": "strategy:OTHER"}
    scene.gate.kill("desk", "third")
    assert rules(scene.check()) == ["KILLED"]
    scene.gate.kill("desk", "fourth", "strategy:OTHER")
    assert rules(scene.check()) == ["KILLED"]
    assert scene.gate.kills == {"desk": "first"}
    scene.gate.rearm("desk", "looked at")
    assert scene.check().allowed


def test_two_parts_under_one_name_stop_both() -> None:
    scene = Scene(RiskLimits(max_position=1e6))
    scene.gate.kill("desk", "first", "strategy:A")
    scene.gate.kill("desk", "second", "strategy:B")
    assert rules(scene.check(strategy_id="A")) == ["KILLED"]
    assert rules(scene.check(strategy_id="B")) == ["KILLED"]


def test_a_daily_loss_stops_everything_whatever_else_is_called_so() -> None:
    scene = Scene(RiskLimits(max_daily_loss=0.1))
    scene.gate.kill("daily-loss", "by hand", "strategy:OTHER")
    scene.gate.on_equity(1e5, 2 * SECOND)
    scene.gate.on_equity(1e6, 3 * SECOND)
    assert rules(scene.check()) == ["KILLED"]


class Refuses(Rule):
    code = "REFUSES"
    kind = "risk"

    def check(self, context: object) -> Violation:
        return Violation(self.code)


def test_a_scoped_daily_loss_stops_trading_also_when_an_extra_rule_refuses() -> None:
    limits = RiskLimits(max_position=1e6, scoped=(ScopedLimit(scope="portfolio", measure="daily_loss", limit=0.1),))
    scene = Scene(limits, extra_rules=(Refuses(),))
    scene.check()
    scene.portfolio.on_equity(1e5)
    scene.check()
    assert scene.gate.killed


@pytest.mark.parametrize(
    "state",
    [
        {"kills": {"x": ["why", "desk"]}},
        {"kills": {"x": ["why", "each"]}},
        {"kills": {"x": ["why", "venue:"]}},
        {"ts": 2**64},
        {"day": 2**70},
        {"equity": math.inf},
        {"peak": math.nan},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(state: dict[str, object]) -> None:
    scene = Scene(RiskLimits(max_position=1e6, max_drawdown=0.5))
    before = scene.gate.state()
    with pytest.raises(DataConversionError, match="state"):
        scene.gate.restore(state)
    assert scene.gate.state() == before
    scene.gate.kill("y", "still works")
    assert rules(scene.check()) == ["KILLED"]


# ---- an order that was refused ----


@pytest.mark.parametrize("measure", ["portfolio_var", "portfolio_es"])
def test_a_soft_limit_alone_on_a_tail_only_warns(measure: str) -> None:
    soft = ScopedLimit(scope="portfolio", measure=measure, soft=0.001)
    scene = Scene(RiskLimits(max_position=1e6, scoped=(soft,)), var=VarSettings(horizon="60s", level=0.95))
    assert scene.check(quantity=1000.0).allowed
    assert [warning.limit for warning in scene.warned] == [0.001]


def test_a_soft_limit_alone_on_stress_losses_only_warns() -> None:
    soft = ScopedLimit(scope="portfolio", measure="stress_loss", soft=0.001)
    scene = Scene(RiskLimits(max_position=1e6, scoped=(soft,)))
    scene.portfolio.set_stress(["crash"], ["I0.X", "I1.X"], [[-0.5], [-0.5]])
    assert scene.check(quantity=1000.0).allowed
    assert [warning.value for warning in scene.warned] == [0.05]


@pytest.mark.parametrize("scope", ["portfolio", "strategy:S", "instrument:I0.X", "venue:X"])
def test_a_soft_limit_alone_on_positions_warns(scope: str) -> None:
    soft = ScopedLimit(scope=scope, measure="position", soft=5.0)
    scene = Scene(RiskLimits(max_order_notional=1e9, scoped=(soft,)))
    assert scene.check(quantity=10.0).allowed
    assert [warning.value for warning in scene.warned] == [10.0]


@pytest.mark.parametrize("price", [1.5e308, 1e307])
def test_sums_that_overflowed_come_back_with_sane_prices(price: float) -> None:
    scene = Scene(RiskLimits(max_gross_exposure=1e6, max_margin_use=10.0), instruments=3)
    for i in (0, 1):
        scene.portfolio.set_position(f"I{i}.X", 1.0, strategy_id="S")
        scene.portfolio.on_price(f"I{i}.X", price, price, 2 * SECOND)
    assert not scene.check(i=2).allowed
    for i in (0, 1):
        scene.portfolio.on_price(f"I{i}.X", 100.0, 100.0, 3 * SECOND)
    assert scene.check(i=2).allowed
    assert scene.gate.utilisation()[0].value == 200.0


# ---- warnings ----


def test_warnings_go_on_after_other_shares_were_set() -> None:
    scene = Scene(RiskLimits(max_gross_exposure=1000.0))
    assert scene.check(quantity=10.0).allowed
    scene.gate.reload(RiskLimits(max_gross_exposure=1000.0, warn_at=(0.9,)), "desk", "fewer")
    assert scene.check(quantity=1.0).allowed
    scene.warned.clear()
    assert scene.check(quantity=10.0).allowed
    assert [warning.at for warning in scene.warned] == [0.9]


def test_a_warning_of_a_list_that_did_not_go_is_told_by_the_next_order() -> None:
    soft = ScopedLimit(scope="venue:X", measure="gross_exposure", soft=550.0)
    scene = Scene(RiskLimits(max_gross_exposure=1000.0, warn_at=(0.5,), scoped=(soft,)))
    assert not scene.gate.check_list([scene.order(quantity=6.0), scene.order(quantity=60.0)]).allowed
    assert scene.warned == []
    assert scene.check(quantity=6.0).allowed
    assert sorted(warning.limit for warning in scene.warned) == [550.0, 1000.0]
