"""Covariance estimators against scikit-learn, the papers written out in loops, and what a covariance must be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_history import history

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.covariance import (
    COVARIANCES,
    covariance_matrix,
    ewma_covariance,
    factor_covariance,
    ledoit_wolf_constant_correlation,
    ledoit_wolf_constant_variance,
    sample_covariance,
)


def returns_of(names, count, seed=1, common=0.005):
    rng = np.random.default_rng(seed)
    return 0.01 * rng.standard_t(5, (names, count)) + common * rng.standard_normal(count)


def test_sample_covariance_is_numpys():
    table = returns_of(7, 200)
    np.testing.assert_allclose(sample_covariance(table).matrix, np.cov(table), rtol=1e-12)
    zero = sample_covariance(table, zero_mean=True)
    np.testing.assert_allclose(zero.matrix, table @ table.T / 200, rtol=1e-12)
    assert zero.mean.tolist() == [0.0] * 7


def test_ewma_is_the_recursion_of_riskmetrics():
    table = returns_of(4, 600)
    expected = np.zeros((4, 4))
    for column in table.T:
        expected = 0.94 * expected + 0.06 * np.outer(column, column)
    found = ewma_covariance(table)
    np.testing.assert_allclose(found.matrix, expected / (1.0 - 0.94**600), rtol=1e-10)
    assert found.observations == pytest.approx(1.94 / 0.06, rel=1e-9)  # (1 + decay) / (1 - decay)


@pytest.mark.parametrize(("names", "count"), [(2, 500), (20, 60), (40, 25)])
def test_constant_variance_is_scikit_learns(names, count):
    covariance = pytest.importorskip("sklearn.covariance", reason="scikit-learn is the oracle")
    table = returns_of(names, count)
    expected, shrinkage = covariance.ledoit_wolf(table.T)
    found = ledoit_wolf_constant_variance(table)
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-9, atol=1e-15)
    assert found.details["shrinkage"] == pytest.approx(shrinkage, rel=1e-9)


def test_constant_variance_as_scikit_learn_gave_it():
    """Constants of scikit-learn 1.9.1 from tests/oracles/risk_estimators.py."""
    found = ledoit_wolf_constant_variance(history()[:, :60])
    assert found.details["shrinkage"] == pytest.approx(0.1680665891472277, rel=1e-10)
    expected = [4.769041094108177e-05, 6.020161816495665e-05, 9.770221012847569e-05, 0.00010970115784308258,
                0.0002213470001529029]  # fmt: skip
    np.testing.assert_allclose(np.diag(found.matrix), expected, rtol=1e-10)


def constant_correlation_in_loops(table):
    """Ledoit and Wolf 2003, appendices A and B, entry by entry."""
    names, count = table.shape
    y = table - table.mean(axis=1, keepdims=True)
    s = np.array([[(y[i] * y[j]).mean() for j in range(names)] for i in range(names)])
    r = np.mean([s[i, j] / math.sqrt(s[i, i] * s[j, j]) for i in range(names) for j in range(names) if i != j])
    target = np.array([[s[i, i] if i == j else r * math.sqrt(s[i, i] * s[j, j]) for j in range(names)]
                       for i in range(names)])  # fmt: skip
    pi = np.array([[((y[i] * y[j] - s[i, j]) ** 2).mean() for j in range(names)] for i in range(names)])
    rho = sum(pi[i, i] for i in range(names))
    for i in range(names):
        for j in range(names):
            if i != j:
                of_i = ((y[i] ** 2 - s[i, i]) * (y[i] * y[j] - s[i, j])).mean()
                of_j = ((y[j] ** 2 - s[j, j]) * (y[i] * y[j] - s[i, j])).mean()
                rho += 0.5 * r * (math.sqrt(s[j, j] / s[i, i]) * of_i + math.sqrt(s[i, i] / s[j, j]) * of_j)
    gamma = ((target - s) ** 2).sum()
    share = max(0.0, min(1.0, (pi.sum() - rho) / gamma / count))
    return share * target + (1.0 - share) * s, share


@pytest.mark.parametrize(("names", "count", "common"), [(2, 100, 0.01), (8, 40, 0.01), (15, 300, 0.002)])
def test_constant_correlation_is_the_papers(names, count, common):
    # Two blocks, so that the common correlation is wrong and the shrinkage is not at a bound.
    table = np.vstack((returns_of(names, count, 1, common), returns_of(names, count, 2, 3.0 * common)))
    expected, share = constant_correlation_in_loops(table)
    found = ledoit_wolf_constant_correlation(table)
    assert 0.0 < share < 1.0
    assert found.details["shrinkage"] == pytest.approx(share, rel=1e-10)
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-10)


def test_all_factors_give_the_sample_back_and_few_find_the_structure():
    table = returns_of(6, 300)
    np.testing.assert_allclose(factor_covariance(table, factors=6).matrix, np.cov(table), rtol=1e-9)
    rng = np.random.default_rng(5)
    loadings = rng.uniform(0.5, 1.5, (30, 2))
    truth = loadings @ loadings.T + np.diag(rng.uniform(0.2, 1.0, 30))
    drawn = np.linalg.cholesky(truth) @ rng.standard_normal((30, 120))
    found = factor_covariance(drawn)
    assert found.details["factors"] in (1, 2)
    two = factor_covariance(drawn, factors=2)
    # What an optimiser or a quadratic form needs is the inverse, and there the noise of a sample shows.
    wrong = [np.abs(np.linalg.inv(matrix) - np.linalg.inv(truth)).mean() for matrix in (two.matrix, np.cov(drawn))]
    assert wrong[0] < 0.5 * wrong[1]
    np.testing.assert_allclose(np.diag(two.matrix), np.diag(np.cov(drawn)), rtol=1e-12)


@pytest.mark.parametrize("method", sorted(COVARIANCES))
@given(names=st.integers(1, 12), count=st.integers(2, 40), seed=st.integers(0, 1000), scale=st.floats(1e-4, 1e4))
@settings(max_examples=25, deadline=None)
def test_laws(method, names, count, seed, scale):
    table = returns_of(names, count, seed)
    found = covariance_matrix(table, method)
    assert np.array_equal(found.matrix, found.matrix.T)
    assert np.linalg.eigvalsh(found.matrix)[0] >= -1e-12 * np.trace(found.matrix)
    np.testing.assert_allclose(covariance_matrix(scale * table, method).matrix, scale**2 * found.matrix, rtol=1e-6,
                               atol=1e-12 * scale**2)  # fmt: skip
    order = np.random.default_rng(seed).permutation(names)
    np.testing.assert_allclose(
        covariance_matrix(table[order], method).matrix, found.matrix[np.ix_(order, order)], rtol=1e-7, atol=1e-15
    )


def test_a_constant_instrument():
    table = returns_of(3, 50)
    table[1] = 0.001
    for method in ("sample", "ledoit_wolf", "factor"):
        found = covariance_matrix(table, method).matrix
        assert np.isfinite(found).all(), method
    assert abs(covariance_matrix(table, "factor").matrix[1]).max() < 1e-30
    with pytest.raises(DataConversionError, match="`returns` must vary in every row, row 1 is constant"):
        ledoit_wolf_constant_correlation(table)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ([[0.1]], "at least 2 observations"),
        ([[0.1, math.nan]], "must be finite, was nan in row 0, column 1"),
        ([[[0.1, 0.2]]], "must have shape"),
        ([[0.1, math.inf]], "must be finite"),
    ],
)
@pytest.mark.parametrize("method", sorted(COVARIANCES))
def test_bad_returns_are_named(method, table, text):
    with pytest.raises(DataConversionError, match=text):
        covariance_matrix(table, method)


def test_bad_settings_are_named():
    table = returns_of(3, 30)
    with pytest.raises(ConfigurationError, match="`covariance` must be one of sample, ewma"):
        covariance_matrix(table, "magic")
    with pytest.raises(ConfigurationError, match="`decay` must be between 0 and 1"):
        ewma_covariance(table, decay=1.0)
    with pytest.raises(ConfigurationError, match="`factors` must be between 1 and the number of instruments 3, was 4"):
        factor_covariance(table, factors=4)
    with pytest.raises(ConfigurationError, match="unexpected keyword"):
        covariance_matrix(table, "sample", decay=0.5)
