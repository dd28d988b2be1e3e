"""Frozen normalisation against NumPy, and on what is hard."""

from __future__ import annotations

import tomllib
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import sample_data

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FeaturePlan
from tengri_fast.features.fit import METHODS, fit_normalisation
from tengri_fast.market import read_quotes


class Some(NamedTuple):
    values: np.ndarray
    ready: np.ndarray


def rows(*columns, ready=None) -> Some:
    values = np.column_stack(columns).astype(np.float64)
    return Some(values, np.ones(len(values), bool) if ready is None else np.asarray(ready))


X = np.random.default_rng(7).standard_t(3, 999) * 12 + 4
Y = np.random.default_rng(8).exponential(2.0, 999)


def test_zscore() -> None:
    mean, scale, clip = fit_normalisation(rows(X, Y), "zscore", 5.0).normalisation
    assert np.allclose(mean, [X.mean(), Y.mean()], rtol=1e-13)
    assert np.allclose(scale, [X.std(), Y.std()], rtol=1e-13)
    assert clip.tolist() == [5.0, 5.0]


def test_robust() -> None:
    mean, scale, _ = fit_normalisation(rows(X, Y), "robust").normalisation
    assert mean.tolist() == [np.median(X), np.median(Y)]
    iqr = [np.subtract(*np.percentile(column, [75, 25])) for column in (X, Y)]
    assert np.allclose(scale, np.array(iqr) / 1.3489795003921634, rtol=1e-14)
    wild = X.copy()
    wild[:100] *= 1e9
    assert fit_normalisation(rows(wild), "robust").normalisation.scale[0] < 2 * scale[0]


def test_minmax() -> None:
    mean, scale, _ = fit_normalisation(rows(X, Y), "minmax").normalisation
    z = (np.column_stack([X, Y]) - mean) / scale
    assert np.allclose(z.min(axis=0), -1)
    assert np.allclose(z.max(axis=0), 1)


@pytest.mark.parametrize("method", METHODS)
def test_only_ready_rows_count(method: str) -> None:
    ready = np.arange(999) >= 300
    poisoned = np.where(ready, X, 1e18)
    some = fit_normalisation(rows(poisoned, ready=ready), method)
    alone = fit_normalisation(rows(X[300:]), method)
    assert some.normalisation.mean.tobytes() == alone.normalisation.mean.tobytes()
    assert some.normalisation.scale.tobytes() == alone.normalisation.scale.tobytes()
    assert (some.rows, some.left_out) == (699, 300)


@pytest.mark.parametrize("method", METHODS)
def test_constants_have_scale_one_and_are_told(method: str) -> None:
    level = np.full(999, 65_000.0)
    nearly = level + np.where(np.arange(999) % 2, 1e-9, 0.0)
    found = fit_normalisation(rows(X, level, nearly, np.zeros(999)), method)
    assert found.constant == (1, 2, 3)
    assert found.normalisation.scale[1:].tolist() == [1.0, 1.0, 1.0]
    assert abs(found.normalisation.mean[1] - 65_000.0) < 1e-6


def test_a_price_level_keeps_its_digits() -> None:
    walk = 65_000.0 + np.cumsum(np.random.default_rng(3).choice([-0.01, 0.01], 999))
    found = fit_normalisation(rows(walk), "zscore").normalisation
    exact = np.array(walk, np.longdouble)
    assert abs(found.scale[0] / float(exact.std()) - 1) < 1e-12


def test_several_sessions_are_one_sample() -> None:
    parts = [rows(X[:400], Y[:400]), rows(X[400:], Y[400:])]
    for method in METHODS:
        assert fit_normalisation(parts, method).to_toml() == fit_normalisation(rows(X, Y), method).to_toml()


def test_it_goes_into_a_plan_and_a_model_file() -> None:
    plan = FeaturePlan(["imbalance", "spread", "rsi(14)", "mid_return(10)"])
    computed = plan.compute(read_quotes(sample_data("binance_usdm_btcusdt_20240718.quotes.parquet")))
    found = fit_normalisation(computed, "zscore", clip=4.0)
    fitted = plan.with_normalisation(*found.normalisation)
    assert fitted.hash == plan.hash, "normalisation belongs to the model"
    z = fitted.normalise(computed.values[computed.ready]).astype(np.float64)
    assert np.abs(z).max() <= 4.0
    inside = (np.abs(z) < 4.0).all(axis=1)
    expected = (computed.values[computed.ready] - found.normalisation.mean) / found.normalisation.scale
    assert np.allclose(z[inside], expected[inside], atol=1e-5)
    section = tomllib.loads(found.to_toml())["normalisation"]
    assert section["mean"] == found.normalisation.mean.tolist()
    assert section["scale"] == found.normalisation.scale.tolist()
    assert section["clip"] == 4.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=40), st.sampled_from(METHODS))
def test_the_scale_is_always_usable(numbers: list[float], method: str) -> None:
    found = fit_normalisation(rows(np.array(numbers)), method).normalisation
    assert np.isfinite(found.mean).all()
    assert (found.scale > 0).all()
    assert np.isfinite(found.scale).all()


def test_wrong_use() -> None:
    for wrong, text in (
        (lambda: fit_normalisation(rows(X), "max"), "`method` must be one of zscore, robust, minmax, was 'max'"),
        (lambda: fit_normalisation(rows(X), clip=-1.0), "`clip` must be finite and >= 0, was -1.0"),
        (lambda: fit_normalisation(rows(X, ready=np.zeros(999, bool))), "none of 999 was"),
        (lambda: fit_normalisation(rows(np.append(X, np.nan))), "column 0 was nan in ready row 999"),
        (lambda: fit_normalisation([rows(X), rows(X, Y)]), r"must be of one plan, had widths \[1, 2\]"),
        (lambda: fit_normalisation([]), "must be of one plan"),
    ):
        with pytest.raises(FeatureExtractionError, match=text):
            wrong()
