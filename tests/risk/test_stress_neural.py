"""Scenarios from a volatility model's state: scale, tails, joint history, determinism, and which are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tengri_fast.errors import DataConversionError
from tengri_fast.risk import ScenarioSet
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.stress import (
    VolatilityState,
    neural_matrix,
    neural_scenarios,
    upper_multiples,
    worst_scenarios,
)
from tengri_fast.risk.stress.neural import ewma_path

HOUR = 3_600_000_000_000


@dataclass(frozen=True, eq=False)
class State:
    instrument_ids: tuple[str, ...] = ("A", "B", "C")
    sigmas: np.ndarray = None
    correlation: np.ndarray = None
    degrees_of_freedom: float = math.inf
    horizon_ns: int = HOUR
    model: str = "a model"

    def __post_init__(self):
        if self.sigmas is None:
            object.__setattr__(self, "sigmas", np.array([0.01, 0.02, 0.005]))
        if self.correlation is None:
            object.__setattr__(self, "correlation", np.array([[1.0, 0.6, -0.2], [0.6, 1.0, 0.1], [-0.2, 0.1, 1.0]]))


def test_the_state_of_the_volatility_models_conforms():
    assert isinstance(State(), VolatilityState)
    module = pytest.importorskip("tengri_fast.risk.volatility", reason="no volatility models here")
    state = module.VolatilityState(("A",), np.array([0.01]), np.eye(1))
    assert isinstance(state, VolatilityState)
    assert neural_scenarios(state, None, 10, 0).count == 30


def test_the_model_alone_gives_its_covariance_at_each_multiple():
    count = 40_000
    drawn = neural_scenarios(State(), None, count, 7, multiples=(2.0, 1.0))
    assert drawn.count == 2 * count
    assert drawn.horizon_ns == HOUR
    assert drawn.provenance["multiples"] == "1, 2"
    assert drawn.provenance["model"] == "a model"
    for block, level in ((drawn.returns[:, :count], 1.0), (drawn.returns[:, count:], 2.0)):
        block = block.astype(float)
        np.testing.assert_allclose(block.std(axis=1), level * State().sigmas, rtol=0.02)
        np.testing.assert_allclose(np.corrcoef(block), State().correlation, atol=0.02)


def test_student_tails_are_fatter_at_the_same_variance_and_joint():
    plain = neural_scenarios(State(), None, 60_000, 7, multiples=(1.0,)).returns.astype(float)
    state = State(degrees_of_freedom=5.0, correlation=np.eye(3))
    fat = neural_scenarios(state, None, 60_000, 7, multiples=(1.0,)).returns.astype(float)
    np.testing.assert_allclose(fat.std(axis=1), state.sigmas, rtol=0.05)
    kurtosis = [(x**4).mean() / (x**2).mean() ** 2 for x in (plain[0], fat[0])]
    assert kurtosis[0] == pytest.approx(3.0, abs=0.15)
    assert kurtosis[1] > 5.0
    z = fat / state.sigmas[:, None]
    both = ((np.abs(z[0]) > 3) & (np.abs(z[1]) > 3)).mean()
    alone = (np.abs(z[0]) > 3).mean() * (np.abs(z[1]) > 3).mean()
    assert both > 5 * alone


def test_filtered_history_is_rescaled_column_by_column():
    """Half of the draws are past columns over their own sigma, times the sigma of now: Hull and White."""
    rng = np.random.default_rng(2)
    path = rng.uniform(0.01, 0.05, (3, 50))
    standard = rng.normal(size=(3, 50))
    drawn = neural_scenarios(State(), standard * path, 40, 3, sigma_path=path, multiples=(1.0, 3.0)).returns
    for block, level in ((drawn[:, :20], 1.0), (drawn[:, 40:60], 3.0)):
        unit = block.astype(float) / (level * State().sigmas[:, None])
        for column in unit.T:
            assert np.abs(standard.T - column).max(axis=1).min() < 1e-5


def test_the_default_filter_uses_the_past_only():
    rng = np.random.default_rng(2)
    returns = rng.normal(0, 0.01, (2, 60))
    path = ewma_path(returns, 0.9)
    start = 0.94 ** np.arange(60)
    variance = returns**2 @ start / start.sum()
    for t in range(60):
        np.testing.assert_allclose(path[:, t], np.sqrt(variance), rtol=1e-12)
        variance = 0.9 * variance + 0.1 * returns[:, t] ** 2
    with pytest.raises(DataConversionError, match="`decay`"):
        ewma_path(returns, 1.0)


def test_history_from_a_scenario_set_is_found_by_name():
    rng = np.random.default_rng(5)
    table = rng.normal(0, 0.01, (4, 80))
    one = neural_scenarios(State(), table[[2, 0, 3]], 30, 1)
    history = ScenarioSet(("B", "Z", "A", "C"), table, HOUR)
    two = neural_scenarios(State(), history, 30, 1)
    np.testing.assert_allclose(one.returns, two.returns, rtol=1e-5)
    with pytest.raises(DataConversionError, match="'C' is missing"):
        neural_scenarios(State(), ScenarioSet(("A", "B"), table[:2], HOUR), 30, 1)
    with pytest.raises(DataConversionError, match="must have the horizon of the state"):
        neural_scenarios(State(), replace(history, horizon_ns=1), 30, 1)


def test_equal_seeds_give_equal_bits_and_others_do_not():
    one, two, other = (neural_scenarios(State(degrees_of_freedom=4.0), None, 50, seed) for seed in (3, 3, 4))
    assert one.returns.tobytes() == two.returns.tobytes()
    assert one.returns.tobytes() != other.returns.tobytes()


def test_moves_end_before_nothing():
    drawn = neural_scenarios(State(sigmas=np.full(3, 0.9)), None, 5000, 1)
    assert drawn.returns.min() == np.float32(-0.9999)


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"sigmas": np.array([0.1, 0.1, 0.0])}, {}, r"`state\.sigmas` must be finite and > 0"),
        ({"sigmas": np.array([0.1, 0.1])}, {}, r"`state\.sigmas`"),
        ({"correlation": np.eye(2)}, {}, r"`state\.correlation` must be finite with shape \(3, 3\)"),
        ({"correlation": 2 * np.eye(3)}, {}, "ones on its diagonal"),
        ({"correlation": 3 * np.eye(3) - 2.0}, {}, "positive semidefinite"),
        ({"degrees_of_freedom": 2.0}, {}, r"`state\.degrees_of_freedom` must be > 2"),
        ({"degrees_of_freedom": math.nan}, {}, r"`state\.degrees_of_freedom`"),
        ({}, {"count": 0}, "`count` must be >= 1"),
        ({}, {"seed": -1}, "`seed` must be an integer >= 0"),
        ({}, {"seed": 1.5}, "`seed`"),
        ({}, {"multiples": ()}, "`multiples`"),
        ({}, {"multiples": (1.0, math.inf)}, "`multiples`"),
        ({}, {"returns": np.zeros((2, 9))}, r"`returns` must be finite with shape \(3, T\)"),
        ({}, {"returns": np.full((3, 9), math.nan)}, "`returns` must be finite"),
        ({}, {"returns": np.zeros((3, 9))}, "`sigma_path` must be given for an instrument that never moved"),
        ({}, {"returns": np.ones((3, 9)), "sigma_path": np.zeros((3, 9))}, "`sigma_path` must be finite and > 0"),
    ],
)
def test_arguments_are_checked(changes, arguments, words):
    given = {"returns": None, "count": 10, "seed": 1, **arguments}
    with pytest.raises(DataConversionError, match=words):
        neural_scenarios(State(**changes), given.pop("returns"), given.pop("count"), given.pop("seed"), **given)


def test_upper_multiples_by_hand():
    """Four windows of two returns: realised volatility 1, 2, sqrt(8.5), sqrt(8.5) times the forecast."""
    standardised = np.array([1.0, 1.0, np.sqrt(7.0), np.sqrt(10.0), np.sqrt(7.0)])
    assert upper_multiples(standardised, (0.25, 0.5, 0.99), window=2) == pytest.approx((1.0, 2.0, math.sqrt(8.5)))
    assert upper_multiples(standardised / 100, (0.9,), window=2) == (1.0,)
    rng = np.random.default_rng(0)
    assert upper_multiples(rng.normal(size=(3, 5000)), (0.99,), window=20)[0] == pytest.approx(
        math.sqrt(37.57 / 20), rel=0.04
    )
    for bad, levels, window, words in (
        ([1.0, math.nan], (0.9,), 2, "`standardised`"),
        ([1.0, 2.0], (0.9,), 3, "`window`"),
        ([1.0, 2.0], (1.0,), 2, "`levels`"),
    ):
        with pytest.raises(DataConversionError, match=words):
            upper_multiples(bad, levels, window=window)


def test_the_worst_for_a_portfolio():
    drawn = neural_scenarios(State(), None, 300, 1)
    book = Holdings(("B", "A"), [10.0, -3.0], [100.0, 50.0])
    pnl = book.pnl(drawn.returns[[1, 0]].astype(float))
    columns = worst_scenarios(drawn, 7, book)
    assert columns.tolist() == np.argsort(pnl, kind="stable")[:7].tolist()
    matrix = neural_matrix(drawn, 7, ("A", "X", "B"), book)
    assert matrix.names[0] == "model 1"
    np.testing.assert_array_equal(matrix.returns[[0, 2]], drawn.returns[[0, 1]][:, columns])
    assert matrix.covered.tolist() == [True, False, True]
    np.testing.assert_array_equal(matrix.returns[1], np.zeros(7))
    with pytest.raises(DataConversionError, match="every position, 'Q' is missing"):
        worst_scenarios(drawn, 7, Holdings(("Q",), [1.0], [1.0]))
    with pytest.raises(DataConversionError, match="`count` must be >= 1"):
        worst_scenarios(drawn, 0)


def test_without_a_portfolio_any_direction_is_hit():
    """With 60 of 900 columns, no long or short book of one or two instruments finds a much worse one left out."""
    drawn = neural_scenarios(State(degrees_of_freedom=5.0), None, 300, 1)
    kept = worst_scenarios(drawn, 60)
    assert len(set(kept.tolist())) == 60
    table = drawn.returns.astype(float) / State().sigmas[:, None]
    rng = np.random.default_rng(0)
    for weights in (*np.eye(3), *-np.eye(3), *rng.normal(size=(100, 3))):
        pnl = weights @ table
        assert pnl[kept].min() <= 0.8 * pnl.min()
    for i in range(3):
        assert table[i].argmin() in kept
        assert table[i].argmax() in kept
    assert worst_scenarios(drawn, 10**6).size == drawn.count
