"""The stress test: sums, correlation breaks, costs of getting out, gaps through stops, binaries that settle."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.stress import (
    Correlation,
    Event,
    Gap,
    Jump,
    Liquidity,
    StopOrder,
    StressLibrary,
    StressScenario,
    liquidation_cost,
    nearest_correlation,
    nearest_covariance,
    stress_test,
    worst_move,
)
from tengri_fast.risk.stress.parts import daily_volatilities


def _shock(**changes):
    return StressScenario("s", **changes)


def _one(book, scenario, **changes):
    return stress_test(book, [scenario], **changes).table[0]


def _mixed(equity=10_000.0):
    return Holdings(
        ("AAA.X", "BBB.X", "INV.X", "YES.P"),
        [10.0, -20.0, 5000.0, 100.0],
        [100.0, 50.0, 20_000.0, 0.4],
        multipliers=[1.0, 2.0, 1.0, 1.0],
        rates=[1.0, 1.2, 20_000.0, 1.0],
        payoffs=("linear", "linear", "inverse", "binary"),
        asset_classes=("equity", "equity.energy", "crypto", "prediction"),
        currencies=("USD", "EUR", "BTC", "USD"),
        equity=equity,
    )


# -- the table -------------------------------------------------------------------------------------------------------


def test_revaluation_by_hand():
    scenario = _shock(asset_classes={"equity": -0.1, "equity.energy": 0.2, "crypto": -0.5, "prediction": 2.0})
    row = _one(_mixed(), scenario)
    by_hand = [
        10 * 100 * -0.1,
        -20 * 2 * 1.2 * 50 * 0.2,
        5000 * 20_000 * (1 / 20_000 - 1 / 10_000),
        100 * (1.0 - 0.4),
    ]
    assert row.pnl == pytest.approx(sum(by_hand), rel=1e-12)
    assert row.loss == -row.pnl
    assert row.share_of_equity == pytest.approx(row.loss / 10_000)
    assert row.covered == 1.0
    assert [name for name, _ in row.contributors] == ["INV.X", "BBB.X", "AAA.X"]
    assert dict(row.contributors)["INV.X"] == pytest.approx(by_hand[2])
    assert row.parts == {"market": pytest.approx(row.pnl)}


def test_currencies_translate_position_or_result():
    for effect, expected in (("position", -2400 * ((1.1 * 0.9) - 1)), ("result", -2400 * 0.1 * 0.9)):
        scenario = _shock(instruments={"BBB.X": 0.1}, currencies={"EUR": -0.1}, currency_effect=effect)
        assert _one(_mixed(), scenario).pnl == pytest.approx(expected)


def test_what_no_shock_names_is_said():
    row = _one(_mixed(), _shock(asset_classes={"crypto": -0.1}))
    gross = np.abs(_mixed().exposures())
    assert row.covered == pytest.approx(gross[2] / gross.sum())
    assert row.notes == ("no shock names: AAA.X, BBB.X, YES.P",)


def test_the_worst_row_and_the_plain_rows():
    scenarios = [
        StressScenario("a", instruments={"AAA.X": -0.1}),
        StressScenario("b", instruments={"AAA.X": -0.3}, source="here", dates="2020 .. 2021", verified=False),
        StressScenario("c", instruments={"AAA.X": -0.3}),
        StressScenario("d", correlation=Correlation(level=1.0)),
    ]
    result = stress_test(_mixed(math.nan), scenarios)
    assert result.worst.scenario == "b"
    assert result.worst_loss == pytest.approx(300.0)
    assert [row.scenario for row in result.failed] == ["d"]
    assert result["d"].notes == (
        "not valued: `covariance` or `returns` must be given for a scenario with `correlation`",
    )
    assert len(result) == 4
    rows = json.loads(json.dumps(result.rows(), allow_nan=False))
    assert rows[1]["loss"] == pytest.approx(300.0)
    assert rows[1]["share_of_equity"] is None
    assert rows[1]["verified"] is False
    assert rows[1]["dates"] == "2020 .. 2021"
    assert rows[1]["contributors"] == [{"instrument": "AAA.X", "pnl": pytest.approx(-300.0)}]
    assert rows[3]["pnl"] is None
    assert rows[0]["currency"] == "USD"
    with pytest.raises(KeyError):
        result["e"]


def test_an_empty_book_and_an_empty_list():
    book = Holdings((), [], [])
    row = _one(book, _shock(asset_classes={"equity": -0.1}))
    assert (row.pnl, row.contributors) == (0.0, ())
    assert math.isnan(row.covered)
    result = stress_test(book, [])
    assert result.worst is None
    assert math.isnan(result.worst_loss)


def test_a_result_that_is_not_finite_is_a_row_that_failed():
    book = Holdings(("A",), [1e300], [1e300])
    row = _one(book, _shock(instruments={"A": -0.5}))
    assert math.isnan(row.pnl)
    assert row.notes == ("not valued: the result of A is not finite",)


def test_arguments_are_checked():
    book, scenario = _mixed(), _shock(instruments={"AAA.X": -0.1})
    with pytest.raises(ConfigurationError, match="'s' is there twice"):
        stress_test(book, [scenario, scenario])
    with pytest.raises(ConfigurationError, match="`contributors` must be >= 0"):
        stress_test(book, [scenario], contributors=-1)
    with pytest.raises(DataConversionError, match=r"`covariance` must have shape \(4, 4\)"):
        stress_test(book, [scenario], covariance=np.eye(3))
    with pytest.raises(DataConversionError, match="positive semidefinite, had the eigenvalue -1"):
        stress_test(book, [scenario], covariance=np.diag([1.0, 1, 1, -1]))
    with pytest.raises(DataConversionError, match="`returns` must be finite"):
        stress_test(book, [scenario], returns=np.full((4, 9), np.nan))
    with pytest.raises(DataConversionError, match=r"`stops`.*'ZZZ'"):
        stress_test(book, [scenario], stops=[StopOrder("ZZZ", -1.0, 5.0)])


def test_one_bad_scenario_does_not_hide_the_others():
    bad = StressScenario("bad", factors={"f": -1.0}, betas={"AAA": {"f": 2.0}})
    good = StressScenario("good", instruments={"AAA.X": -0.1})
    result = stress_test(_mixed(), [bad, good])
    assert math.isnan(result["bad"].pnl)
    assert "must not move AAA.X below -1" in result["bad"].notes[0]
    assert result["good"].pnl == pytest.approx(-100.0)


# -- correlations ----------------------------------------------------------------------------------------------------


def test_published_nearest_correlations():
    """Higham 2002, section 5: the tridiagonal example; and Higham's 3 x 3 matrix of 2013."""
    tridiagonal = 2 * np.eye(4) - np.eye(4, k=1) - np.eye(4, k=-1)
    expected = [
        [1.0000, -0.8084, 0.1916, 0.1068],
        [-0.8084, 1.0000, -0.6562, 0.1916],
        [0.1916, -0.6562, 1.0000, -0.8084],
        [0.1068, 0.1916, -0.8084, 1.0000],
    ]
    np.testing.assert_allclose(nearest_correlation(tridiagonal), expected, atol=5e-5)
    small = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    found = nearest_correlation(small)
    np.testing.assert_allclose(found, [[1, 0.7607, 0.1573], [0.7607, 1, 0.7607], [0.1573, 0.7607, 1]], atol=5e-5)
    assert np.linalg.norm(found - small) == pytest.approx(0.5278, abs=5e-5)


@pytest.mark.parametrize("size", [2, 3, 8, 25])
def test_nearest_correlation_is_one_and_no_neighbour_is_nearer(size):
    rng = np.random.default_rng(size)
    raw = rng.uniform(-1, 1, (size, size))
    raw = np.clip((raw + raw.T) / 1.2, -1, 1)
    np.fill_diagonal(raw, 1.0)
    found = nearest_correlation(raw)
    assert np.linalg.eigvalsh(found)[0] > -1e-10
    np.testing.assert_array_equal(np.diag(found), np.ones(size))
    np.testing.assert_array_equal(found, found.T)
    distance = np.linalg.norm(found - raw)
    for _ in range(200):
        factor = np.linalg.cholesky(found + 1e-9 * np.eye(size)) + rng.normal(0, 0.05, (size, size))
        other = factor @ factor.T
        other /= np.sqrt(np.outer(np.diag(other), np.diag(other)))
        assert np.linalg.norm(other - raw) >= distance - 1e-7


def test_a_good_matrix_stays():
    good = np.array([[1.0, 0.3], [0.3, 1.0]])
    np.testing.assert_array_equal(nearest_correlation(good), good)
    covariance = np.array([[4.0, 1.0, 0.0], [1.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(nearest_covariance(covariance), covariance, atol=1e-12)
    broken = np.array([[1.0, 3.0], [3.0, 4.0]])
    np.testing.assert_allclose(nearest_covariance(broken), [[1.0, 2.0], [2.0, 4.0]], atol=1e-6)
    for bad, words in (
        (np.ones((2, 3)), "must be square"),
        ([[1.0, math.nan], [math.nan, 1.0]], "must be finite"),
        ([[1.0, 0.5], [0.1, 1.0]], "must be symmetric"),
        ([[-1.0, 0.0], [0.0, 1.0]], "variances >= 0"),
    ):
        with pytest.raises(DataConversionError, match=words):
            nearest_covariance(bad)


def test_worst_move_of_a_linear_book():
    """No move of that Mahalanobis length loses more; the bound is k sqrt(w'Sw)."""
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(5, 5)) * 0.02
    covariance, w = factor @ factor.T, rng.normal(size=5) * 100
    worst = worst_move(w, covariance, 3.0)
    bound = 3.0 * math.sqrt(w @ covariance @ w)
    assert -w @ worst == pytest.approx(bound, rel=1e-12)
    assert worst @ np.linalg.solve(covariance, worst) == pytest.approx(9.0, rel=1e-9)
    directions = rng.normal(size=(2000, 5))
    directions *= 3.0 / np.linalg.norm(directions, axis=1, keepdims=True)
    assert (-(directions @ factor.T) @ w).max() <= bound * (1 + 1e-12)
    np.testing.assert_array_equal(worst_move(np.zeros(5), covariance, 3.0), np.zeros(5))


def test_correlation_scenarios():
    book = Holdings(("A.X", "B.X"), [10.0, -5.0], [100.0, 100.0], asset_classes=("equity", "crypto"))
    w, sigma = np.array([1000.0, -500.0]), np.array([0.01, 0.03])
    covariance = np.outer(sigma, sigma) * np.array([[1.0, 0.5], [0.5, 1.0]])

    def loss(correlation, **changes):
        row = _one(book, _shock(correlation=correlation), covariance=covariance, **changes)
        return row.loss, row.notes

    def expected(rho, k=3.0, times=1.0):
        s = np.outer(sigma, sigma) * times**2 * np.array([[1.0, rho], [rho, 1.0]])
        return k * math.sqrt(w @ s @ w)

    assert loss(Correlation(level=1.0))[0] == pytest.approx(3.0 * abs(w @ sigma))
    assert loss(Correlation(level=0.0, sigmas=2.0))[0] == pytest.approx(expected(0.0, 2.0))
    assert loss(Correlation(level=-1.0))[0] == pytest.approx(expected(-1.0))
    assert loss(Correlation(level=0.2, volatility_multiple=2.5))[0] == pytest.approx(expected(0.2, times=2.5))
    by_class = Correlation(matrix=[[1.0, -0.4], [-0.4, 1.0]], instrument_ids=("equity", "B"))
    assert loss(by_class)[0] == pytest.approx(expected(-0.4))
    unnamed = Correlation(matrix=[[1.0, -0.4], [-0.4, 1.0]], instrument_ids=("equity", "Z"))
    assert loss(unnamed)[0] == pytest.approx(expected(0.5))
    samples = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 500).T
    row = _one(book, _shock(correlation=Correlation(level=1.0)), returns=samples)
    assert row.loss == pytest.approx(3.0 * abs(w @ samples.std(axis=1, ddof=1)))


def test_impossible_correlations_are_repaired_and_said():
    names = ("A", "B", "C")
    book = Holdings(names, [1.0, 1.0, -1.0], [100.0] * 3)
    row = _one(book, _shock(correlation=Correlation(level=-1.0)), covariance=np.eye(3) * 1e-4)
    assert row.notes == ("correlations replaced by the nearest positive semidefinite ones",)
    s = (nearest_correlation(2 * np.eye(3) - np.ones((3, 3)))) * 1e-4
    w = np.array([100.0, 100.0, -100.0])
    assert row.loss == pytest.approx(3 * math.sqrt(w @ s @ w))


def test_moves_that_end_at_nothing_are_cut_and_said():
    book = Holdings(("A",), [1.0], [100.0])
    row = _one(book, _shock(correlation=Correlation(level=1.0, sigmas=10.0)), covariance=[[0.04]])
    assert row.loss == pytest.approx(100.0)
    assert row.notes == ("moves cut at nothing: A",)


# -- liquidity -------------------------------------------------------------------------------------------------------


def _liquid(**changes):
    given = {"spreads": [0.002, 0.001], "depths": [50.0, math.nan], "volumes": [math.nan, 1e5]}
    return Holdings(("A", "B"), [200.0, -400.0], [10.0, 20.0], **{**given, **changes})


def test_costs_by_hand():
    book = _liquid()
    cost, unknown = liquidation_cost(book, Liquidity(3.0, 4.0), volatilities=[math.nan, 0.02])
    first = 200 * 10 * (0.003 + 0.006 * math.sqrt(200 * 4 / 50))
    second = 400 * 20 * (0.0015 + 0.02 * math.sqrt(400 * 4 / 1e5))
    np.testing.assert_allclose(cost, [first, second], rtol=1e-12)
    assert not unknown.any()
    half, _ = liquidation_cost(book, Liquidity(3.0, 4.0, 0.5), volatilities=[math.nan, 0.02], impact_coefficient=2.0)
    second = 200 * 20 * (0.0015 + 2 * 0.02 * math.sqrt(200 * 4 / 1e5))
    assert half[1] == pytest.approx(second)


def test_the_larger_impact_counts():
    both = _liquid(depths=[50.0, 30.0], volumes=[1e4, 1e5])
    cost, _ = liquidation_cost(both, Liquidity(), volatilities=[0.5, 0.0001])
    np.testing.assert_allclose(
        cost, [2000 * (0.001 + 0.5 * math.sqrt(0.02)), 8000 * (0.0005 + 0.001 * math.sqrt(400 / 30))], rtol=1e-12
    )


def test_no_more_than_a_position_is_worth_is_lost_by_selling_it():
    book = Holdings(("A", "Y", "N"), [1e6, 1e6, -1e6], [10.0, 0.3, 0.3], payoffs=("linear", "binary", "binary"),
                    spreads=[0.1] * 3, depths=[1.0] * 3)  # fmt: skip
    cost, _ = liquidation_cost(book, Liquidity(10.0, 10.0))
    np.testing.assert_allclose(cost, [1e7, 0.3e6, 0.7e6])
    settled = Holdings(("Y",), [100.0], [1.0], payoffs=("binary",), spreads=[0.1])
    assert liquidation_cost(settled, Liquidity())[0][0] == 0.0


def test_costs_of_inverse_contracts_and_options():
    inverse = Holdings(("I",), [1000.0], [100.0], rates=[100.0], payoffs=("inverse",), spreads=[0.02])
    assert liquidation_cost(inverse, Liquidity())[0][0] == pytest.approx(1000 * 100 * (1 / 99 - 1 / 100))
    option = Holdings(("O",), [-5.0], [100.0], multipliers=[10.0], deltas=[0.4], gammas=[0.01], spreads=[0.02])
    assert liquidation_cost(option, Liquidity(2.0))[0][0] == pytest.approx(5 * 10 * 0.4 * 100 * 0.02)


def test_unknown_markets_cost_nothing_and_are_named():
    book = Holdings(("A", "B", "C"), [1.0, 0.0, 2.0], [10.0] * 3, spreads=[math.nan, math.nan, 0.01])
    row = _one(book, _shock(liquidity=Liquidity(2.0, 2.0)))
    assert row.parts["liquidity"] == pytest.approx(-2 * 10 * 0.01)
    assert "no spread, depth or volume: A" in row.notes
    for name, values in (("spreads", [-0.1, 0, 0]), ("depths", [0.0, 1, 1]), ("volumes", [math.inf, 1, 1])):
        with pytest.raises(DataConversionError, match=f"`{name}` must be"):
            liquidation_cost(Holdings(("A", "B", "C"), [1.0] * 3, [1.0] * 3, **{name: values}), Liquidity())
    with pytest.raises(DataConversionError, match="`impact_coefficient`"):
        liquidation_cost(book, Liquidity(), impact_coefficient=-1.0)


def test_selling_happens_at_the_stressed_price():
    book = _liquid()
    row = _one(book, _shock(instruments={"A": -0.5, "B": 0.0}, liquidity=Liquidity(2.0)))
    first = 200 * 5 * (0.002 + 0.004 * math.sqrt(200 / 50))
    second = 400 * 20 * 0.001
    assert row.parts["liquidity"] == pytest.approx(-(first + second))
    assert row.pnl == pytest.approx(-200 * 5 - first - second)


@given(st.floats(1, 20), st.floats(1, 20), st.floats(1, 20), st.floats(1, 20))
@settings(max_examples=100, deadline=None)
def test_worse_markets_cost_more(a, b, c, d):
    easy = liquidation_cost(_liquid(), Liquidity(min(a, b), min(c, d)), volatilities=[0.02, 0.02])[0]
    hard = liquidation_cost(_liquid(), Liquidity(max(a, b), max(c, d)), volatilities=[0.02, 0.02])[0]
    assert (hard >= easy - 1e-9).all()


# -- gaps ------------------------------------------------------------------------------------------------------------


def _gapped(gap, moves, stops, book=None):
    book = book or Holdings(("A.X", "H.Y"), [100.0, -100.0], [50.0, 50.0], asset_classes=("equity", "index"))
    return _one(book, _shock(instruments=moves, gap=gap), stops=stops)


def test_a_stop_fills_at_the_gap_price():
    """Sold at 40, not at 48: the loss is that of the gap, and the rebound is missed."""
    row = _gapped(Gap(0.5), {"A": -0.2}, [StopOrder("A.X", -100.0, 48.0)])
    assert row.parts["market"] == pytest.approx(100 * -5)
    assert row.parts["stops"] == pytest.approx(-100 * 5)
    assert row.pnl == pytest.approx(100 * (40 - 50))
    assert "A.X: stop at 48 filled at 40" in row.notes
    assert "stops slipped by 800 USD past their triggers" in row.notes


@pytest.mark.parametrize(
    ("move", "stop", "rebound", "result", "note"),
    [
        (-0.2, StopOrder("A.X", -100.0, 39.0), 0.5, 0.0, None),  # not reached
        (-0.2, StopOrder("A.X", -100.0, 40.0), 0.5, -500.0, "filled at 40"),  # exactly reached
        (+0.2, StopOrder("A.X", -100.0, 48.0), 0.0, 0.0, None),  # the other way
        (+0.2, StopOrder("A.X", 60.0, 55.0), 0.5, 60 * (55 - 60), "filled at 60"),  # a buy stop
        (-0.2, StopOrder("A.X", -100.0, 48.0, 47.0), 0.5, 0.0, "its limit was jumped"),
        (-0.2, StopOrder("A.X", -100.0, 48.0, 43.0), 0.5, 100 * (43 - 45), "filled at 43"),  # on the way back
        (-0.2, StopOrder("A.X", -100.0, 48.0, 39.0), 0.5, -500.0, "filled at 40"),  # better than its limit
        (+0.2, StopOrder("A.X", 60.0, 55.0, 57.0), 0.5, 60 * (55 - 57), "filled at 57"),
        (+0.2, StopOrder("A.X", 60.0, 52.0, 54.0), 0.5, 0.0, "its limit was jumped"),
    ],
)
def test_stops_by_hand(move, stop, rebound, result, note):
    row = _gapped(Gap(rebound), {"A": move}, [stop])
    assert row.parts["stops"] == pytest.approx(result)
    assert any(note in text for text in row.notes) if note else not any("stop at" in text for text in row.notes)


def test_a_halt_takes_the_hedge_away():
    """The stock stays down, its stop does not fill, and the hedge gives back what it had won."""
    stops = [StopOrder("A.X", -100.0, 48.0)]
    moves = {"A": -0.2, "H": -0.2}
    free = _gapped(Gap(1.0), moves, [])
    assert free.pnl == pytest.approx(0.0)
    for key in ("A.X", "A", "X", "equity"):
        halted = _gapped(Gap(1.0, (key,)), moves, stops)
        assert halted.pnl == pytest.approx(-100 * 10)
        assert any("trading is halted" in note for note in halted.notes)


def test_stops_of_inverse_contracts_are_revalued():
    book = Holdings(("I.X",), [1000.0], [100.0], rates=[100.0], payoffs=("inverse",))
    row = _gapped(Gap(0.5), {"I": -0.2}, [StopOrder("I.X", -1000.0, 95.0)], book)
    assert row.pnl == pytest.approx(1000 * 100 * (1 / 100 - 1 / 80))


def test_stops_count_in_gaps_only():
    book = Holdings(("A.X",), [100.0], [50.0])
    row = _one(book, _shock(instruments={"A": -0.2}), stops=[StopOrder("A.X", -100.0, 48.0)])
    assert set(row.parts) == {"market"}


@pytest.mark.parametrize(
    "bad", [{"quantity": 0.0}, {"quantity": math.nan}, {"trigger_price": 0.0}, {"limit_price": -1.0}]
)
def test_stops_check_themselves(bad):
    with pytest.raises(DataConversionError, match=f"`{next(iter(bad))}` of a stop"):
        StopOrder(**{"instrument_id": "A", "quantity": -1.0, "trigger_price": 5.0, **bad})


# -- binaries --------------------------------------------------------------------------------------------------------


def _enumerated(quantities, prices, groups):
    """Worst of all settlements that the groups allow; members of a group are (indices, exhaustive)."""
    q, p = np.array(quantities), np.array(prices)
    worst = math.inf
    for outcome in itertools.product((0.0, 1.0), repeat=q.size):
        y = np.array(outcome)
        if all((y[list(m)].sum() == 1 if exhaustive else y[list(m)].sum() <= 1) for m, exhaustive in groups):
            worst = min(worst, float(q @ (y - p)))
    return worst


@given(st.integers(0, 2**31))
@settings(max_examples=120, deadline=None)
def test_worst_settlement_is_that_of_enumeration(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    q, p = rng.normal(0, 100, count).round(1), rng.uniform(0, 1, count).round(2)
    order, groups, start = rng.permutation(count), [], 0
    while start < count and rng.random() < 0.7:
        size = int(rng.integers(1, count - start + 1))
        groups.append((tuple(int(i) for i in order[start : start + size]), bool(rng.random() < 0.5)))
        start += size
    names = tuple(f"M{i}.P" for i in range(count))
    events = {f"e{k}": Event(tuple(names[i] for i in m), exhaustive) for k, (m, exhaustive) in enumerate(groups)}
    book = Holdings(names, q, p, payoffs=("binary",) * count)
    expected = _enumerated(q, p, groups)
    for row in (
        _one(book, _shock(jump=Jump("worst", events))),
        _one(book, _shock(jump=Jump()), events=events),
    ):
        assert row.parts["jump"] == pytest.approx(expected, abs=1e-9)
        assert row.parts["market"] == 0.0
        assert row.covered == 1.0 or math.isnan(row.covered)


def test_an_event_that_is_partly_held_may_be_won_by_another():
    book = Holdings(("A.P", "B.P"), [-10.0, 20.0], [0.5, 0.5], payoffs=("binary", "binary"))
    whole = _one(book, _shock(jump=Jump("worst", {"e": Event(("A", "B"))})))
    assert whole.pnl == pytest.approx(-10 * 0.5 - 20 * 0.5)
    assert "e: A.P pays" in whole.notes
    book = Holdings(("A.P", "B.P"), [10.0, 20.0], [0.5, 0.5], payoffs=("binary", "binary"))
    open_ = _one(book, _shock(jump=Jump("worst", {"e": Event(("A", "B", "C"))})))
    assert open_.pnl == pytest.approx(-15.0)
    assert "e: nothing pays" in open_.notes


def test_all_at_one_and_other_positions_move_on():
    book = Holdings(("Y.P", "A.X"), [10.0, 1.0], [0.4, 100.0], payoffs=("binary", "linear"), rates=[1.0, 2.0])
    row = _one(book, _shock(jump=Jump("one"), instruments={"A": -0.1, "Y": -0.9}))
    assert row.parts == {"jump": pytest.approx(6.0), "market": pytest.approx(-20.0)}
    assert _one(book, _shock(jump=Jump("zero"))).parts["jump"] == pytest.approx(-4.0)


def test_events_are_checked():
    book = Holdings(("Y.P", "A.X", "Y.Q"), [1.0] * 3, [0.4, 100.0, 0.5], payoffs=("binary", "linear", "binary"))
    for events, words in (
        ({"e": Event(("A.X",))}, "must name binaries, 'A.X' is linear"),
        ({"e": Event(("Y.P",)), "f": Event(("Y.P",))}, "each binary once, 'Y.P' is in e and f"),
        ({"e": Event(("Y",))}, "'Y' with its venue: 2 trade it"),
    ):
        row = _one(book, _shock(jump=Jump("worst", events)))
        assert math.isnan(row.pnl)
        assert words in row.notes[0]


def test_the_built_in_library_values_a_mixed_book():
    """Each row adds up, and everything that could be valued was."""
    book = _mixed()
    covariance = np.diag([0.02, 0.03, 0.05, 0.1]) @ (0.5 + 0.5 * np.eye(4)) @ np.diag([0.02, 0.03, 0.05, 0.1])
    result = stress_test(book, StressLibrary.built_in(), covariance=covariance)
    assert not result.failed
    for row in result.table:
        assert row.pnl == pytest.approx(sum(row.parts.values()), rel=1e-9, abs=1e-9)
    assert result.worst_loss > 0.0
    again = stress_test(book, StressLibrary.built_in(), covariance=covariance)
    assert again.rows() == result.rows()


def test_greeks_are_called_rough_where_the_move_is_large():
    book = Holdings(
        ("A.X", "O.X"), [1.0, 1.0], [100.0, 100.0], asset_classes=("equity",) * 2, deltas=[np.nan, 0.5],
        gammas=[np.nan, 0.01],
    )  # fmt: skip
    said = "valued by Greeks, which hold for small moves only: O.X"
    small, large = (_one(book, _shock(asset_classes={"equity": move})) for move in (-0.05, -0.3))
    assert said not in small.notes
    assert said in large.notes
    assert large.parts["market"] == pytest.approx(-30.0 - 15.0 + 0.5 * 0.01 * 900.0)


def test_market_impact_is_by_daily_volatility_whatever_the_horizon():
    rng = np.random.default_rng(0)
    minutes = 0.001 * rng.standard_normal((1, 400))
    sigma = daily_volatilities(minutes, 60 * 10**9)
    assert sigma == pytest.approx(minutes.std(axis=1, ddof=1) * np.sqrt(1440.0))
    book = Holdings(("A.X",), [1000.0], [10.0], volumes=[1e5], asset_classes=("equity",))
    scenario = _shock(liquidity=Liquidity())
    cost = stress_test(book, [scenario], returns=minutes, volatilities=sigma).table[0].loss
    # Square-root law: sigma sqrt(quantity / volume) of the value.
    assert cost == pytest.approx(float(sigma[0]) * np.sqrt(1000.0 / 1e5) * 10_000.0, rel=1e-9)
