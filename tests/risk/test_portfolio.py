"""Events of the portfolio one by one: fills, orders, quotes, rates, and what cannot be booked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import (
    InstrumentFacts,
    OrderView,
    PortfolioState,
    ScenarioSet,
    VarSettings,
    expected_shortfall,
    value_at_risk,
)

HORIZON = 60


def order(cid, side=1, quantity=10.0, instrument="A", **rest):
    return OrderView(
        cid, rest.pop("strategy", "S"), rest.pop("account", "X"), instrument, side=side, quantity=quantity, **rest
    )


def plain(size=0.1):
    return PortfolioState([InstrumentFacts("A", size_increment=size)])


def with_var(facts=None, returns=None, s=200, seed=0, base="USD"):
    facts = facts or [InstrumentFacts("A"), InstrumentFacts("B")]
    if returns is None:
        returns = np.random.default_rng(seed).normal(0, 0.02, (len(facts), s))
    scenarios = ScenarioSet([fact.instrument_id for fact in facts], returns, HORIZON)
    return PortfolioState(facts, scenarios, VarSettings(horizon=HORIZON, base_currency=base))


# -- positions and fills ---------------------------------------------------------------------------------------------


def test_decimal_fills_do_not_leave_dust():
    portfolio = plain()
    for quantity in (0.1, 0.2, -0.3):
        portfolio.on_fill("A", quantity, 100.0)
    assert portfolio.position("A") == 0.0
    assert portfolio.positions() == []


def test_duplicate_fills_are_ignored_by_trade_id():
    portfolio = plain()
    portfolio.on_working(order("o1"))
    for _ in range(3):
        portfolio.on_fill("A", 4.0, 100.0, "", "X", "S", "o1", "t1")
    assert portfolio.position("A") == 4.0
    assert portfolio.filled_quantity("o1") == 4.0
    assert portfolio.counters["duplicate_fills"] == 2
    portfolio.on_fill("A", -4.0, 100.0, "", "X", "S", "o2", "t1")  # the other side of one trade is another order
    assert portfolio.position("A") == 0.0
    portfolio.on_fill("A", 1.0, 100.0)
    portfolio.on_fill("A", 1.0, 100.0)  # no trade id, no duplicate
    assert portfolio.position("A") == 2.0


def test_a_fill_may_come_before_its_order_is_working():
    portfolio = plain()
    portfolio.on_fill("A", 4.0, 100.0, "", "X", "S", "o1", "t1")
    portfolio.on_working(order("o1"))
    assert portfolio.filled_quantity("o1") == 4.0
    assert portfolio.what_if_position(order("o2", quantity=1.0), 1.0) == 11.0  # 4 filled, 6 to go, 1 new
    portfolio.on_fill("A", 6.0, 100.0, "", "X", "S", "o1", "t2")
    assert portfolio.working_orders() == []


def test_an_order_that_filled_before_it_was_reported_never_works():
    portfolio = plain()
    portfolio.on_fill("A", 10.0, 100.0, "", "X", "S", "o1", "t1")
    portfolio.on_working(order("o1"))
    assert portfolio.working_orders() == []
    assert portfolio.position("A") == 10.0


def test_late_events_of_a_closed_order():
    portfolio = plain()
    portfolio.on_working(order("o1"))
    portfolio.on_order_closed("o1")
    portfolio.on_fill("A", 3.0, 100.0, "", "X", "S", "o1", "t1")  # filled while the cancel travelled
    portfolio.on_working(order("o1"))  # and the acknowledgement arrives last
    assert portfolio.position("A") == 3.0
    assert portfolio.working_orders() == []
    assert portfolio.counters["late_orders"] == 1


def test_order_updates():
    portfolio = plain()
    portfolio.on_working(order("o1", price=5.0))
    portfolio.on_order_update("o1", quantity=6.0, price=7.0, trigger_price=8.0)
    (view,) = portfolio.working_orders()
    assert (view.quantity, view.price, view.trigger_price) == (6.0, 7.0, 8.0)
    portfolio.on_fill("A", 4.0, 100.0, "", "X", "S", "o1", "t1")
    portfolio.on_order_update("o1", quantity=4.0)
    assert portfolio.working_orders() == []
    portfolio.on_order_update("nobody", quantity=1.0)
    assert portfolio.counters["unknown_orders"] == 1


def test_the_portfolio_keeps_its_own_copy_of_an_order():
    portfolio = plain()
    mine = order("o1")
    portfolio.on_working(mine)
    mine.quantity = 99.0
    assert portfolio.working_orders()[0].quantity == 10.0


def test_memories_are_bounded():
    from tengri_fast.risk.names import Recent

    memory = Recent(3)
    for key in "abcd":
        memory.put(key)
    assert len(memory) == 3
    assert "a" not in memory
    assert "d" in memory


@pytest.mark.parametrize(
    "event",
    [
        lambda p: p.on_fill("NOBODY", 1.0, 1.0),
        lambda p: p.on_fill("A", math.nan, 1.0),
        lambda p: p.on_fill("A", math.inf, 1.0),
        lambda p: p.on_working(order("o", instrument="NOBODY")),
        lambda p: p.on_working(order("o", quantity=math.nan)),
        lambda p: p.on_working(order("o", side=0)),
        lambda p: p.set_position("NOBODY", 1.0),
        lambda p: p.set_position("A", math.nan),
    ],
)
def test_what_cannot_be_booked_is_a_fault(event):
    portfolio = plain()
    event(portfolio)
    assert len(portfolio.faults) == 1
    assert portfolio.position("A") == 0.0
    portfolio.clear_faults()
    assert portfolio.faults == ()


def test_set_position_restates():
    portfolio = plain()
    portfolio.on_fill("A", 3.0, 1.0, "P", "X", "S")
    portfolio.set_position("A", -2.0, "P", "X", "S")
    assert portfolio.position("A") == -2.0
    portfolio.set_position("A", 0.0, "P", "X", "S")
    assert portfolio.positions() == []


# -- quotes, rates, equity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bid", "ask"),
    [(math.nan, 10.0), (9.0, math.nan), (0.0, 10.0), (-1.0, 10.0), (11.0, 10.0), (9.0, math.inf), (-2.0, -1.0)],
)
def test_unusable_quotes_take_the_reference_away_until_a_good_one_comes(bid, ask):
    portfolio = plain()
    portfolio.on_price("A", 9.0, 11.0, 1)
    portfolio.on_price("A", bid, ask, 2)
    assert not portfolio.quote("A").valid
    assert portfolio.quote("A").mid == 10.0
    assert portfolio.counters["invalid_quotes"] == 1
    portfolio.on_price("A", 10.0, 12.0, 3)
    assert portfolio.quote("A")[2:] == (11.0, 3, True)


def test_time_going_backwards_and_strangers():
    portfolio = plain()
    portfolio.on_price("A", 9.0, 11.0, 5)
    portfolio.on_price("A", 1.0, 2.0, 4)
    portfolio.on_price("A", 1.0, 2.0, -1)
    portfolio.on_price("NOBODY", 1.0, 2.0, 4)
    assert portfolio.quote("A").mid == 10.0
    assert portfolio.counters["backward_quotes"] == 2
    assert portfolio.counters["unknown_quotes"] == 1
    assert portfolio.quote("NOBODY") is None


def test_binary_quotes_live_between_zero_and_one():
    portfolio = PortfolioState([InstrumentFacts("A", "binary")])
    portfolio.on_price("A", 0.0, 0.02, 1)
    assert portfolio.quote("A").mid == 0.01
    for n, (bid, ask) in enumerate([(0.5, 1.5), (-0.1, 0.5), (1.0, 1.0), (0.0, 0.0)]):
        portfolio.on_price("A", bid, ask, 2 + n)
        assert not portfolio.quote("A").valid


def test_rates():
    facts = [InstrumentFacts("A", settlement_currency="EUR"), InstrumentFacts("B", settlement_currency="USD")]
    with pytest.raises(ConfigurationError, match="base_currency"):
        PortfolioState(facts)
    portfolio = PortfolioState(facts, base_currency="USD")
    assert portfolio.rate("USD") == 1.0
    assert math.isnan(portfolio.rate("EUR"))
    portfolio.on_rate("EUR", 1.1)
    assert portfolio.rate("EUR") == 1.1
    for bad in (math.nan, 0.0, -1.0, math.inf):
        portfolio.on_rate("EUR", bad)
        assert math.isnan(portfolio.rate("EUR"))
    portfolio.on_rate("USD", 2.0)
    assert portfolio.rate("USD") == 1.0
    assert portfolio.counters["invalid_rates"] == 5


def test_equity_that_is_not_finite_is_unknown():
    portfolio = plain()
    assert math.isnan(portfolio.equity)
    portfolio.on_equity(5.0)
    portfolio.on_equity(math.inf)
    assert math.isnan(portfolio.equity)


def test_notional_by_payoff():
    facts = [
        InstrumentFacts("LIN", "linear", 10.0, settlement_currency="EUR"),
        InstrumentFacts("INV", "inverse", 100.0, settlement_currency="BTC"),
        InstrumentFacts("BIN", "binary", settlement_currency="USD"),
    ]
    portfolio = PortfolioState(facts, base_currency="USD")
    lin, inv, bought, sold = (
        order("a", instrument="LIN"),
        order("b", instrument="INV"),
        order("c", instrument="BIN"),
        order("d", -1, instrument="BIN"),
    )
    assert math.isnan(portfolio.order_notional(lin, 1.0))
    portfolio.on_rate("EUR", 1.1)
    portfolio.on_rate("BTC", 25_000.0)
    portfolio.on_price("LIN", 99.0, 101.0, 1)
    portfolio.on_price("INV", 24_999.0, 25_001.0, 1)
    portfolio.on_price("BIN", 0.01, 0.03, 1)
    assert portfolio.order_notional(lin, 2.0) == pytest.approx(2 * 10 * 100 * 1.1)
    assert portfolio.order_notional(inv, 3.0) == pytest.approx(300.0)
    assert portfolio.order_notional(bought, 100.0) == pytest.approx(2.0)
    assert portfolio.order_notional(sold, 100.0) == pytest.approx(98.0)  # what the seller can lose
    lin.price = 120.0
    assert portfolio.order_notional(lin, 2.0) == pytest.approx(2 * 10 * 120 * 1.1)  # the larger of price and mid
    lin.price = 80.0
    assert portfolio.order_notional(lin, 2.0) == pytest.approx(2 * 10 * 100 * 1.1)


# -- the scenario vector ---------------------------------------------------------------------------------------------


def test_payoffs_are_revalued_by_hand():
    r = np.array([[-0.5, 0.0, 0.5, 2.0] + [0.0] * 96] * 4)
    facts = [
        InstrumentFacts("LIN", "linear", 2.0, settlement_currency="USD"),
        InstrumentFacts("INV", "inverse", 100.0, settlement_currency="BTC"),
        InstrumentFacts("BIN", "binary", settlement_currency="USD"),
        InstrumentFacts("QTO", "linear", 1.0, quote_currency="JPY", settlement_currency="EUR"),
    ]
    portfolio = with_var(facts, r)
    portfolio.on_rate("BTC", 20_000.0)
    portfolio.on_rate("EUR", 1.25)
    expected = {
        "LIN": (100.0, 3.0, [-300.0, 0.0, 300.0, 1200.0]),
        "INV": (20_000.0, 4.0, [-400.0, 0.0, 400.0 / 3, 800.0 / 3]),
        "BIN": (0.4, 10.0, [-2.0, 0.0, 2.0, 6.0]),  # 0.4 * 3 would be 1.2: it pays 1 at most
        "QTO": (8.0, -5.0, [25.0, 0.0, -25.0, -100.0]),
    }
    for name, (price, quantity, results) in expected.items():
        portfolio.on_price(name, price, price, 1)
        portfolio.set_position(name, quantity)
        np.testing.assert_allclose(portfolio.scenario_pnl()[:4], results, rtol=1e-12, atol=1e-12)
        portfolio.set_position(name, 0.0)
        assert not portfolio.scenario_pnl().any()  # exactly zero, not nearly


def test_value_at_risk_and_shortfall_read_the_vector():
    portfolio = with_var()
    portfolio.on_price("A", 10.0, 10.0, 1)
    portfolio.on_price("B", 20.0, 20.0, 1)
    portfolio.on_fill("A", 5.0, 10.0)
    portfolio.on_fill("B", -3.0, 20.0)
    full = portfolio.full_revaluation()
    assert portfolio.value_at_risk() == pytest.approx(value_at_risk(full, 0.99), rel=1e-12)
    assert portfolio.expected_shortfall() == pytest.approx(expected_shortfall(full, 0.99), rel=1e-12)


def test_what_cannot_be_valued_is_named_and_comes_back():
    facts = [InstrumentFacts("A", settlement_currency="EUR"), InstrumentFacts("B")]
    portfolio = with_var(facts)
    portfolio.on_price("B", 5.0, 5.0, 1)
    portfolio.on_fill("B", 1.0, 5.0)
    before = portfolio.scenario_pnl()
    portfolio.on_fill("A", 1.0, 10.0)
    assert portfolio.blocked() == {"A": ("UNPRICED_POSITION", "A")}
    with pytest.raises(DataConversionError, match=r"A \(UNPRICED_POSITION\)"):
        portfolio.value_at_risk()
    portfolio.on_price("A", 10.0, 10.0, 1)
    assert portfolio.blocked() == {"A": ("MISSING_RATE", "A")}
    with pytest.raises(DataConversionError, match="MISSING_RATE"):
        portfolio.gross_notional()
    portfolio.on_rate("EUR", 1.5)
    np.testing.assert_allclose(portfolio.scenario_pnl(), portfolio.full_revaluation(), rtol=1e-12, atol=1e-12)
    portfolio.on_rate("EUR", math.nan)
    assert portfolio.blocked() == {"A": ("MISSING_RATE", "A")}
    portfolio.on_fill("A", -1.0, 10.0)
    np.testing.assert_allclose(portfolio.scenario_pnl(), before, rtol=1e-12, atol=1e-15)


def test_an_instrument_without_scenarios_cannot_be_valued():
    facts = [InstrumentFacts("A"), InstrumentFacts("NEW")]
    scenarios = ScenarioSet(["A"], np.zeros((1, 100)), HORIZON)
    portfolio = PortfolioState(facts, scenarios, VarSettings(horizon=HORIZON))
    portfolio.on_price("NEW", 1.0, 1.0, 1)
    portfolio.on_fill("NEW", 1.0, 1.0)
    assert portfolio.blocked() == {"NEW": ("MISSING_SCENARIOS", "NEW")}


def test_scenarios_must_fit_the_settings():
    facts = [InstrumentFacts("A", "inverse", settlement_currency="USD")]
    var = VarSettings(horizon=HORIZON)
    with pytest.raises(ConfigurationError, match="not scaled by the square root"):
        PortfolioState(facts, ScenarioSet(["A"], np.zeros((1, 100)), 30), var)
    with pytest.raises(ConfigurationError, match="must be >= 100"):
        PortfolioState(facts, ScenarioSet(["A"], np.zeros((1, 99)), HORIZON), var)
    dead = np.zeros((1, 100))
    dead[0, 5] = -1.0
    with pytest.raises(ConfigurationError, match="inverse instrument A"):
        PortfolioState(facts, ScenarioSet(["A"], dead, HORIZON), var)
    with pytest.raises(ConfigurationError, match="var_settings"):
        PortfolioState(facts, ScenarioSet(["A"], np.zeros((1, 100)), HORIZON))
    with pytest.raises(ConfigurationError, match="there twice"):
        PortfolioState(facts * 2)
    with pytest.raises(ConfigurationError, match="base_currency"):
        PortfolioState(facts, None, var, base_currency="EUR")
    with pytest.raises(ConfigurationError, match="must be set before"):
        PortfolioState(facts, None, var).value_at_risk()


def test_only_the_most_recent_scenarios_are_used():
    returns = np.arange(300.0)[None, :] / 1000.0
    portfolio = PortfolioState(
        [InstrumentFacts("A")],
        ScenarioSet(["A"], returns, HORIZON),
        VarSettings(horizon=HORIZON, scenarios=120),
    )
    portfolio.on_price("A", 1.0, 1.0, 1)
    portfolio.on_fill("A", 1.0, 1.0)
    np.testing.assert_allclose(portfolio.scenario_pnl(), returns[0, -120:], rtol=1e-6)


def test_new_scenarios_and_new_instruments_in_flight():
    portfolio = with_var()
    portfolio.on_price("A", 10.0, 10.0, 1)
    portfolio.on_fill("A", 5.0, 10.0)
    first = portfolio.scenario_pnl()
    portfolio.add_instrument(InstrumentFacts("C"))
    np.testing.assert_allclose(portfolio.scenario_pnl(), first, rtol=1e-12)
    rng = np.random.default_rng(9)
    portfolio.set_scenarios(ScenarioSet(["C", "A", "B"], rng.normal(0, 0.1, (3, 150)), HORIZON))
    portfolio.on_price("C", 2.0, 2.0, 1)
    portfolio.on_fill("C", 7.0, 2.0)
    np.testing.assert_allclose(portfolio.scenario_pnl(), portfolio.full_revaluation(), rtol=1e-11, atol=1e-13)
    assert portfolio.scenario_pnl().shape == (150,)
    with pytest.raises(ConfigurationError, match="there twice"):
        portfolio.add_instrument(InstrumentFacts("C"))


def test_an_overflowing_position_cannot_poison_the_vector():
    portfolio = with_var()
    for name in "AB":
        portfolio.on_price(name, 10.0, 10.0, 1)
    portfolio.on_fill("B", 1.0, 10.0)
    clean = portfolio.scenario_pnl()
    portfolio.on_fill("A", 1.7e308, 10.0, trade_id="1")
    with np.errstate(all="ignore"):
        portfolio.refresh()
        portfolio.on_fill("A", -1.7e308, 10.0, trade_id="2")
        np.testing.assert_allclose(portfolio.scenario_pnl(), clean, rtol=1e-12)


def test_reset_forgets_events_and_keeps_facts():
    portfolio = with_var()
    portfolio.on_price("A", 10.0, 10.0, 100)
    portfolio.on_equity(5.0)
    portfolio.on_working(order("o1"))
    portfolio.on_fill("A", 5.0, 10.0, "", "X", "S", "o1", "t1")
    portfolio.reset()
    assert portfolio.positions() == portfolio.working_orders() == []
    assert math.isnan(portfolio.equity)
    portfolio.on_price("A", 10.0, 10.0, 1)  # time starts again
    portfolio.on_working(order("o1"))
    portfolio.on_fill("A", 5.0, 10.0, "", "X", "S", "o1", "t1")  # and so do the ids
    assert portfolio.position("A") == 5.0
    np.testing.assert_allclose(portfolio.scenario_pnl(), portfolio.full_revaluation(), rtol=1e-12)


def test_a_huge_position_that_is_closed_leaves_no_rounding_behind():
    portfolio = with_var()
    for n, name in enumerate("AB"):
        portfolio.on_price(name, 10.1 + n, 10.3 + n, 1)
    portfolio.on_fill("B", 1.0, 10.0)
    for n in range(5):
        portfolio.on_fill("A", 1e13 / 3.0, 10.0)
        portfolio.refresh()
        portfolio.on_price("A", 10.2 + n, 10.3 + n, 2 + n)
        portfolio.refresh()
        portfolio.set_position("A", 0.0)
        error = np.abs(portfolio.scenario_pnl() - portfolio.full_revaluation()).max()
        assert error <= 1e-9 * portfolio.gross_notional()


def test_the_worse_side_of_a_binary_follows_its_price():
    returns = np.tile([1.0, -0.3], 100)[None, :]
    portfolio = with_var([InstrumentFacts("BIN", "binary")], returns)
    portfolio.on_working(order("buy", 1, 5.0, "BIN"))
    portfolio.on_working(order("sell", -1, 5.0, "BIN"))
    for n, (price, worse) in enumerate([(0.3, -5.0), (0.9, 5.0), (0.3, -5.0)]):
        portfolio.on_price("BIN", price, price, 1 + n)
        moves = np.clip(price * (1.0 + returns[0].astype(np.float32)), 0.0, 1.0) - price
        np.testing.assert_allclose(portfolio.scenario_pnl("worst"), worse * moves, rtol=1e-6)
