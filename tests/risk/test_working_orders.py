"""Working orders in value at risk against enumeration of every subset of fills, and the definition of reducing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, ScenarioSet, VarSettings, value_at_risk

S = 300


def build(returns, positions, orders, prices=None):
    names = [f"I{i}" for i in range(len(returns))]
    portfolio = PortfolioState(
        [InstrumentFacts(name) for name in names],
        ScenarioSet(names, returns, 60),
        VarSettings(horizon=60),
    )
    for i, name in enumerate(names):
        price = 100.0 if prices is None else prices[i]
        portfolio.on_price(name, price, price, 1)
        portfolio.set_position(name, positions[i])
    for n, (i, signed) in enumerate(orders):
        portfolio.on_working(OrderView(f"w{n}", "S", "", names[i], side=1 if signed > 0 else -1, quantity=abs(signed)))
    return portfolio


def enumerated(returns, positions, orders, price=100.0):
    """Largest value at risk over all 2^n subsets of filled orders."""
    r = np.asarray(returns, dtype=np.float32).astype(np.float64)
    worst = -np.inf
    for chosen in itertools.product((0.0, 1.0), repeat=len(orders)):
        quantity = np.array(positions, dtype=np.float64)
        for take, (i, signed) in zip(chosen, orders, strict=True):
            quantity[i] += take * signed
        worst = max(worst, value_at_risk((quantity * price) @ r))
    return worst


def heuristic(portfolio, new):
    i, signed = new
    probe = OrderView("new", "S", "", f"I{i}", side=1 if signed > 0 else -1, quantity=abs(signed))
    return max(risk for risk, _ in portfolio.what_if(probe).values())


def case(rng, instruments, count):
    loads = rng.normal(size=(instruments, 1))
    returns = 0.01 * (loads * rng.standard_t(4, (1, S)) + rng.standard_t(4, (instruments, S)))
    positions = rng.integers(-20, 20, instruments).astype(float)
    orders = [(int(rng.integers(instruments)), float(rng.integers(1, 15) * rng.choice([-1, 1]))) for _ in range(count)]
    return np.clip(returns, -0.9, None), positions, orders


@pytest.mark.parametrize("seed", range(12))
def test_one_instrument_is_exact(seed):
    rng = np.random.default_rng(seed)
    returns, positions, orders = case(rng, 1, 12)
    portfolio = build(returns, positions, orders[:-1])
    assert heuristic(portfolio, orders[-1]) == pytest.approx(enumerated(returns, positions, orders), rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_instruments_that_move_together_are_exact(seed):
    rng = np.random.default_rng(seed)
    _, positions, orders = case(rng, 4, 10)
    row = rng.integers(-400, 400, S) / 4096.0  # exact in float32, also after the factors
    returns = np.array([row * factor for factor in (1.0, 0.5, 2.0, 0.25)])
    portfolio = build(returns, positions, orders[:-1])
    assert heuristic(portfolio, orders[-1]) == pytest.approx(enumerated(returns, positions, orders), rel=1e-9)


def test_in_general_it_never_exceeds_and_seldom_misses_enumeration():
    ratios = []
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        returns, positions, orders = case(rng, int(rng.integers(2, 6)), int(rng.integers(2, 9)))
        portfolio = build(returns, positions, orders[:-1])
        found, truth = heuristic(portfolio, orders[-1]), enumerated(returns, positions, orders)
        assert found <= truth * (1 + 1e-9)
        ratios.append(found / truth)
    # A heuristic: these are what it reaches on random books, not a promise. If they fall, it got worse.
    assert np.median(ratios) > 0.97
    assert min(ratios) > 0.70
    assert min(ratios) < 1.0 - 1e-6, "the books are too easy: enumeration never beat the heuristic"


def test_a_hedge_that_only_works_does_not_excuse_an_order():
    """Two opposite working orders look flat together; the order alone must be measured too."""
    rng = np.random.default_rng(5)
    row = rng.normal(0, 0.02, S)
    returns = np.array([row, -row])  # long both is flat
    portfolio = build(returns, [0.0, 0.0], [(1, 10.0)])
    answer = portfolio.what_if(OrderView("new", "S", "", "I0", side=1, quantity=10.0))
    assert answer["filled + working buys"][0] == pytest.approx(0.0, abs=1e-4)
    alone = value_at_risk(1000.0 * row)
    assert answer["filled + this order"][0] == pytest.approx(alone, rel=1e-4)


def test_the_order_in_question_counts_once_when_it_is_working_already():
    returns = np.random.default_rng(6).normal(0, 0.02, (1, S))
    portfolio = build(returns, [5.0], [(0, 10.0)])
    again = OrderView("w0", "S", "", "I0", side=1, quantity=10.0)
    other = OrderView("w9", "S", "", "I0", side=1, quantity=10.0)
    once = value_at_risk(15.0 * 100.0 * returns[0].astype(np.float32).astype(np.float64))
    assert portfolio.what_if(again)["filled + working buys"][0] == pytest.approx(once, rel=1e-9)
    assert portfolio.what_if(other)["filled + working buys"][0] == pytest.approx(once * 25 / 15, rel=1e-9)


def test_var_exceeds_is_the_comparison_with_the_exact_number():
    for seed in range(25):
        rng = np.random.default_rng(seed)
        returns, positions, orders = case(rng, 3, 6)
        portfolio = build(returns, positions, orders[:-1])
        i, signed = orders[-1]
        probe = OrderView("new", "S", "", f"I{i}", side=1 if signed > 0 else -1, quantity=abs(signed))
        assert portfolio.var_blocked(probe) is None
        worst = heuristic(portfolio, orders[-1])
        assert not portfolio.var_exceeds(probe, abs(signed), worst * (1 + 1e-9))
        assert portfolio.var_exceeds(probe, abs(signed), worst * (1 - 1e-9))


def test_reduce_only_orders_take_a_position_to_zero_at_most():
    returns = np.random.default_rng(8).normal(0, 0.02, (1, S))
    portfolio = build(returns, [0.0], [])
    portfolio.set_position("I0", 10.0, strategy_id="S")
    for name in ("take_profit", "stop_loss"):
        portfolio.on_working(OrderView(name, "S", "", "I0", side=-1, quantity=10.0, reduce_only=True))
    probe = OrderView("new", "S", "", "I0", side=-1, quantity=3.0)
    assert portfolio.what_if_position(probe, 3.0) == 3.0  # 10 - 10 - 3, not 10 - 20 - 3


def reach(portfolio, strategy, signed, position_id="", reduce_only=False):
    side = 1 if signed > 0 else -1
    view = OrderView("new", strategy, "", "I0", position_id, side, abs(signed), reduce_only=reduce_only)
    return portfolio.what_if_position(view, abs(signed))


def test_positions_of_the_other_side_make_no_room_unless_the_order_closes_them():
    portfolio = PortfolioState([InstrumentFacts("I0")])
    portfolio.set_position("I0", 6.0, strategy_id="A")
    assert reach(portfolio, "A", -10.0) == 4.0  # turns its own
    assert reach(portfolio, "B", -10.0) == 10.0  # A may close later
    portfolio.set_position("I0", -4.0, strategy_id="B")
    assert portfolio.position("I0") == 2.0
    assert reach(portfolio, "A", -7.0) == 5.0  # B's 4, and 1 beyond A's 6
    assert reach(portfolio, "B", -1.0) == 5.0
    assert reach(portfolio, "B", 5.0) == 7.0  # A's 6, and 1 beyond B's 4
    assert reach(portfolio, "C", 1.0) == 7.0
    # A working order of A takes A's room first.
    portfolio.on_working(OrderView("w", "A", "", "I0", side=-1, quantity=5.0))
    assert reach(portfolio, "A", -7.0) == 10.0  # 4 + (5 + 7 - 6)
    assert reach(portfolio, "B", -1.0) == 5.0


def test_reduce_only_orders_take_room_and_open_nothing():
    portfolio = PortfolioState([InstrumentFacts("I0")])
    portfolio.set_position("I0", 6.0, position_id="P", strategy_id="A")
    portfolio.on_working(OrderView("w", "A", "", "I0", "P", -1, 9.0, reduce_only=True))
    assert reach(portfolio, "A", -1.0, "P") == 1.0
    assert reach(portfolio, "A", -1.0, "Q") == 1.0
    assert reach(portfolio, "A", -9.0, "P", reduce_only=True) == 0.0


def test_of_an_exclusive_group_the_largest_opens():
    portfolio = PortfolioState([InstrumentFacts("I0")])
    portfolio.set_position("I0", 2.0, strategy_id="A")
    for name, quantity in (("a", 3.0), ("b", 7.0), ("c", 5.0)):
        portfolio.on_working(OrderView(name, "A", "", "I0", side=-1, quantity=quantity, exclusive_group="g"))
    assert reach(portfolio, "A", -1.0) == 6.0  # 7 + 1 - 2
    view = OrderView("d", "A", "", "I0", side=-1, quantity=8.0, exclusive_group="g")
    assert portfolio.what_if_position(view, 8.0) == 6.0  # 8 - 2


# -- reducing --------------------------------------------------------------------------------------------------------


def ledger():
    return PortfolioState([InstrumentFacts("A", size_increment=0.1)])


def sell(cid="x", quantity=1.0, strategy="S", account="X", position=""):
    return OrderView(cid, strategy, account, "A", position, -1, quantity)


def test_reducing_needs_the_opposite_side_and_room():
    portfolio = ledger()
    assert not portfolio.is_reducing(sell())
    portfolio.on_fill("A", 10.0, 1.0, "", "X", "S")
    assert portfolio.is_reducing(sell(quantity=10.0))
    assert not portfolio.is_reducing(sell(quantity=10.1))
    assert not portfolio.is_reducing(OrderView("b", "S", "X", "A", side=1, quantity=1.0))
    assert not portfolio.is_reducing(sell(account="Y"))
    assert not portfolio.is_reducing(sell(strategy="OTHER"))
    assert portfolio.is_reducing(sell(account=""))  # account not known yet


def test_working_reducing_orders_use_the_room_up():
    portfolio = ledger()
    portfolio.on_fill("A", 10.0, 1.0, "", "X", "S")
    portfolio.on_working(sell("w", 7.0))
    assert portfolio.is_reducing(sell(quantity=3.0))
    assert not portfolio.is_reducing(sell(quantity=3.1))
    assert portfolio.is_reducing(sell("w", quantity=10.0))  # in place of itself
    portfolio.on_fill("A", -5.0, 1.0, "", "X", "S", "w", "t")
    assert portfolio.is_reducing(sell(quantity=3.0))  # 5 held, 2 still working
    assert not portfolio.is_reducing(sell(quantity=3.1))
    portfolio.on_order_closed("w")
    assert portfolio.is_reducing(sell(quantity=5.0))


def test_a_buy_does_not_use_the_room_of_sells_up():
    portfolio = ledger()
    portfolio.on_fill("A", 10.0, 1.0, "", "X", "S")
    portfolio.on_working(OrderView("w", "S", "X", "A", side=1, quantity=50.0))
    assert portfolio.is_reducing(sell(quantity=10.0))


def test_hedged_positions_are_told_apart_by_their_id():
    portfolio = ledger()
    portfolio.on_fill("A", 10.0, 1.0, "LONG", "X", "S")
    portfolio.on_fill("A", -10.0, 1.0, "SHORT", "X", "S")
    assert portfolio.position("A") == 0.0
    assert portfolio.is_reducing(sell(quantity=10.0, position="LONG"))  # even though it unhedges
    assert not portfolio.is_reducing(sell(quantity=1.0, position="SHORT"))
    assert not portfolio.is_reducing(sell(quantity=1.0))
    portfolio.on_working(sell("w", 6.0, position="LONG"))
    assert portfolio.is_reducing(sell(quantity=4.0, position="LONG"))
    assert not portfolio.is_reducing(sell(quantity=4.1, position="LONG"))


def test_orders_with_and_without_position_id_share_the_position_of_their_strategy():
    portfolio = ledger()
    portfolio.on_fill("A", 10.0, 1.0, "A-S", "X", "S")  # a netting venue reports the id only with the fill
    assert portfolio.is_reducing(sell(quantity=10.0))
    portfolio.on_working(sell("w", 6.0))
    assert not portfolio.is_reducing(sell(quantity=5.0, position="A-S"))
    assert portfolio.is_reducing(sell(quantity=4.0, position="A-S"))


def test_decimal_dust_does_not_block_a_close():
    portfolio = ledger()
    for _ in range(3):
        portfolio.on_fill("A", 0.1, 1.0, "", "X", "S")
    assert portfolio.is_reducing(sell(quantity=0.3))
    portfolio.on_working(sell("w", 0.1))
    assert portfolio.is_reducing(sell(quantity=0.2))
