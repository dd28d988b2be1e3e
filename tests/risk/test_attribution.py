"""Marginal, component and incremental risk of every method: adds up, is the derivative, and agrees with skfolio."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_history import QUANTITIES, history

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.attribution import attribute
from tengri_fast.risk.estimators import METHODS, historical, risk_model
from tengri_fast.risk.functionals import EllipticalRisk, TailRisk, tail_weights
from tengri_fast.risk.holdings import Holdings

OPTIONS = {
    "student_t": {"degrees": 5.0},
    "cornish_fisher": {"outside": "report"},
    "delta_gamma": {"outside": "report"},
    "peaks_over_threshold": {"tail_share": 0.15},
    "monte_carlo": {"paths": 4000},
}
CURVED = Holdings(
    ["stock", "perp", "event", "option", "idle"],
    [30.0, -40_000.0, 500.0, 60.0, 0.0],
    [100.0, 200.0, 0.6, 80.0, 10.0],
    rates=[1.0, 200.0, 1.0, 1.2, 1.0],
    payoffs=["linear", "inverse", "binary", "linear", "linear"],
    deltas=[math.nan, math.nan, math.nan, 0.4, math.nan],
    gammas=[math.nan, math.nan, math.nan, 0.02, math.nan],
)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("measure", ["var", "es"])
@pytest.mark.parametrize("horizon", [{}, {"horizon": 3}, {"horizon": 3, "rule": "sqrt"}])
def test_components_add_up(method, measure, horizon):
    model = risk_model(CURVED, history(), method=method, level=0.95, **horizon, **OPTIONS.get(method, {}))
    found = attribute(model, measure, incremental=False)
    assert found.total == model.risk()[measure == "es"]
    assert abs(found.component.sum() - found.total) <= 1e-10 * abs(found.total)
    np.testing.assert_allclose(found.component, CURVED.quantities * found.marginal)
    assert found.component[4] == 0.0
    assert found.marginal[4] != 0.0  # an instrument that is not held has a marginal risk too
    assert found.share.sum() == pytest.approx(1.0, abs=1e-10)
    classes = found.by(["a", "b", "a", "b", "c"])
    assert list(classes) == ["a", "b", "c"]
    assert sum(classes.values()) == pytest.approx(found.total, rel=1e-10)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_marginal_is_the_derivative(method):
    """Central differences; for simulations within the stretch where the tail keeps its scenarios."""
    options = dict(OPTIONS.get(method, {}))
    if method == "cornish_fisher":
        options["matched"] = True
    model = risk_model(CURVED, history(), method=method, level=0.95, **options)
    var, es = model.functional.gradient(model.quantities)
    for i in range(5):
        h = 1e-7 * max(abs(float(CURVED.quantities[i])), 1.0)
        up, down = model.quantities.copy(), model.quantities.copy()
        up[i] += h
        down[i] -= h
        numeric = (np.array(model.functional.risk(up)) - np.array(model.functional.risk(down))) / (2.0 * h)
        np.testing.assert_allclose([var[i], es[i]], numeric, rtol=2e-4, atol=1e-5 * np.abs(numeric).max() + 1e-9)


def test_as_skfolio_gave_it():
    """Constants from tests/oracles/risk_estimators.py: skfolio 1.12.2 differentiates CVaR numerically."""
    holdings = Holdings(list("abcde"), QUANTITIES / QUANTITIES.sum(), np.ones(5))
    found = attribute(historical(holdings, history(), level=0.95), "es")
    expected = [0.004561542772413968, -0.0009049092904832531, 0.004108321398644161, 0.0009075255964832254,
                0.0064032317560226695]  # fmt: skip
    np.testing.assert_allclose(found.component, expected, rtol=1e-6)


def test_component_shortfall_is_the_mean_result_in_the_tail():
    pnl = CURVED.pnl(history())
    unit = CURVED.unit_pnl(history())
    worst = np.argsort(pnl)[:12]  # 5 % of 240
    found = attribute(historical(CURVED, history(), level=0.95), "es")
    np.testing.assert_allclose(found.component, -(CURVED.quantities[:, None] * unit)[:, worst].mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_incremental_is_with_minus_without(method):
    model = risk_model(CURVED, history(), method=method, level=0.95, **OPTIONS.get(method, {}))
    found = attribute(model, "es")
    for i in (0, 1, 4):
        without = CURVED.quantities.copy()
        without[i] = 0.0
        expected = model.risk()[1] - model.functional.risk(without)[1]
        assert found.incremental[i] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found.incremental[4] == pytest.approx(0.0, abs=1e-9)


def test_the_only_position_carries_everything():
    alone = Holdings(["a"], [2.0], [50.0])
    for method in sorted(METHODS):
        model = risk_model(alone, history(1), method=method, level=0.95, **OPTIONS.get(method, {}))
        for measure in ("var", "es"):
            found = attribute(model, measure)
            assert found.component[0] == pytest.approx(found.total, rel=1e-10)
            assert found.incremental[0] == pytest.approx(found.total, rel=1e-10)


def test_smoothing_settles_the_components_of_var():
    """Around the same VaR, single scenarios give components that jump between neighbouring levels; averages do not."""
    returns = history(count=2000)
    holdings = Holdings(list("abcde"), QUANTITIES, np.ones(5))

    def spread(bandwidth):
        rows = [
            attribute(historical(holdings, returns, level=level, bandwidth=bandwidth), "var", incremental=False).share
            for level in np.linspace(0.96, 0.97, 21)
        ]
        return np.std(rows, axis=0).mean()

    assert spread(30.0) < 0.3 * spread(0.0)
    found = attribute(historical(holdings, returns, bandwidth=10.0), "var")
    assert abs(found.component.sum() - found.total) <= 1e-10 * found.total
    assert found.notes == ("averaged over 10 ranks to both sides of the VaR and scaled to add up to it",)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), level=st.floats(0.5, 0.995))
@settings(max_examples=60, deadline=None)
def test_tail_weights_are_a_distribution(seed, count, level):
    rng = np.random.default_rng(seed)
    pnl = np.round(rng.standard_normal(count), 1)
    weights = rng.dirichlet(np.ones(count))
    for given_weights in (None, weights):
        scenarios, shares = tail_weights(pnl, level, given_weights)
        assert shares.sum() == pytest.approx(1.0, abs=1e-9)
        assert (shares >= 0.0).all()
        assert len(set(scenarios.tolist())) == scenarios.size
        assert (np.diff(pnl[scenarios]) >= 0.0).all()


@given(seed=st.integers(0, 10_000), count=st.integers(20, 200))
@settings(max_examples=40, deadline=None)
def test_weighted_var_is_the_generalised_inverse(seed, count):
    rng = np.random.default_rng(seed)
    pnl, weights = rng.standard_normal(count), rng.dirichlet(np.ones(count))
    for level in (0.8, 0.95, 0.99):
        scenarios, _ = tail_weights(pnl, level, weights)
        candidates = [x for x in -pnl if weights[-pnl <= x].sum() >= level - 1e-9]
        assert -pnl[scenarios[-1]] == pytest.approx(min(candidates), abs=1e-12)


def test_what_cannot_be_split_is_refused():
    rng = np.random.default_rng(4)
    heavy = risk_model(-rng.pareto(0.6, 3000), method="peaks_over_threshold")
    assert attribute(heavy, "var").component[0] == pytest.approx(heavy.risk()[0], rel=1e-10)
    with pytest.raises(DataConversionError, match="`es` must be finite to be split, was inf"):
        attribute(heavy, "es")
    with pytest.raises(ConfigurationError, match="`measure` must be one of var, es, was 'volatility'"):
        attribute(heavy, "volatility")
    short = TailRisk(rng.uniform(size=(1, 300)) ** 4, 0.99, 60, 1.0)
    with pytest.raises(DataConversionError, match="must have a regular maximum"):
        short.gradient(np.ones(1))
    with pytest.raises(DataConversionError, match="`groups` must have 5 entries, had 1"):
        attribute(historical(CURVED, history())).by(["a"])
    # The VaR is a small loss among large gains: the mean around it has the other sign.
    pnl = np.concatenate(([-1.0, -1.0], np.full(98, 200.0)))
    with pytest.raises(DataConversionError, match="`bandwidth` must be small enough"):
        attribute(historical(pnl, level=0.99, bandwidth=5.0), "var")


def test_a_position_that_the_tail_cannot_do_without_is_named():
    returns = np.vstack((history(1), np.zeros((1, 240))))
    model = risk_model(Holdings(["moves", "rests"], [1.0, 1.0], [1.0, 1.0]), returns, method="peaks_over_threshold")
    found = attribute(model, "var")
    assert math.isnan(found.incremental[0])
    assert found.incremental[1] == pytest.approx(0.0, abs=1e-12)
    assert found.notes == ("the method has no finite answer without moves",)


def test_no_variance_no_slope():
    risk = EllipticalRisk(np.ones(2), np.array([0.1, 0.2]), np.zeros((2, 2)), 2.0, 3.0, 1.0)
    var, es = risk.gradient(np.array([1.0, 1.0]))
    np.testing.assert_allclose(var, [-0.1, -0.2])
    np.testing.assert_allclose(es, var)
    empty = attribute(historical(Holdings(["a"], [0.0], [1.0]), history(1)))
    assert empty.total == 0.0
    assert np.isnan(empty.share).all()
