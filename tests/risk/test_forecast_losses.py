"""QLIKE and the model confidence set: what the literature says of them, and `arch`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volatility_paths import losses_of_five

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.forecast_losses import model_confidence_set, mse, mse_losses, qlike, qlike_losses

NAMES = ("a", "b", "c", "d", "e")
# arch 8.0.0, maximum statistic, stationary bootstrap, block 22, 20,000 replications (tests/oracles/volatility_arch.py).
ARCH = {"e": 0.0, "d": 0.00045, "c": 0.03235, "a": 0.0503, "b": 1.0}


@settings(deadline=None)
@given(variance=st.floats(1e-8, 1e4), factor=st.floats(0.05, 20.0))
def test_qlike_and_mse_are_least_at_the_truth_even_on_a_noisy_proxy(variance, factor):
    noise = np.array([0.0, 0.2, 0.8, 1.4, 2.6])  # an unbiased proxy: mean one
    seen = variance * noise
    for loss in (qlike, mse):
        right = loss(seen, np.full(5, variance))
        wrong = loss(seen, np.full(5, variance * factor))
        assert right <= wrong + 1e-9 * abs(right)
    # Absolute errors of sigma do not rank rightly on a proxy: the reason for these two.
    low = np.abs(np.sqrt(noise) - 0.94).mean()
    assert low < np.abs(np.sqrt(noise) - 1.0).mean()


def test_qlike_punishes_a_forecast_that_is_too_low():
    assert qlike([1.0], [0.5]) - qlike([1.0], [1.0]) > qlike([1.0], [2.0]) - qlike([1.0], [1.0])


@given(unit=st.floats(1e-6, 1e6))
def test_a_unit_shifts_every_qlike_alike(unit):
    seen, one, other = np.array([0.3, 0.0, 2.0]), np.array([0.5, 0.4, 1.0]), np.array([0.2, 0.9, 3.0])
    gap = qlike_losses(seen, one) - qlike_losses(seen, other)
    np.testing.assert_allclose(qlike_losses(unit * seen, unit * one) - qlike_losses(unit * seen, unit * other), gap,
                               rtol=1e-9, atol=1e-9)  # fmt: skip


def test_the_two_forms_of_qlike_differ_by_what_holds_no_forecast():
    seen, said = np.array([0.3, 1.1]), np.array([0.5, 0.4])
    other_form = seen / said - np.log(seen / said) - 1.0
    np.testing.assert_allclose(qlike_losses(seen, said) - other_form, np.log(seen) + 1.0)
    assert mse_losses([3.0], [1.0]).tolist() == [4.0]


@pytest.mark.parametrize(
    ("seen", "said", "match"),
    [
        ([1.0], [0.0], "`forecast` must be finite and > 0, was 0.0 at 0"),
        ([1.0, 1.0], [1.0, np.nan], "was nan at 1"),
        ([-1.0], [1.0], "`realised` must be finite and >= 0"),
        ([np.nan], [1.0], "`realised`"),
        ([1.0, 2.0], [1.0], "shape"),
        ([], [], "empty"),
    ],
)
def test_hostile_losses(seen, said, match):
    with pytest.raises(DataConversionError, match=match):
        qlike(seen, said)


def test_the_confidence_set_is_archs():
    table = losses_of_five()
    found = model_confidence_set(dict(zip(NAMES, table.T, strict=True)), replications=4000, seed=7)
    assert list(found.p_values) == list(ARCH)
    for name, value in ARCH.items():
        assert found.p_values[name] == pytest.approx(value, abs=0.015)
    assert found.included == ("b",)
    arch = pytest.importorskip("arch.bootstrap", reason="arch is not installed; its numbers on one path are held above")
    other = losses_of_five(9)
    theirs = arch.MCS(other, size=0.1, reps=4000, block_size=22, method="max", bootstrap="stationary", seed=2)
    theirs.compute()
    ours = model_confidence_set(dict(zip(NAMES, other.T, strict=True)), replications=4000)
    for k, name in enumerate(NAMES):
        assert ours.p_values[name] == pytest.approx(theirs.pvalues["Pvalue"][k], abs=0.04)


def test_equal_models_all_stay_and_the_same_seed_gives_the_same_set():
    one = np.random.default_rng(1).normal(0, 1, 200)
    assert model_confidence_set({"a": one, "b": one}).included == ("a", "b")
    table = dict(zip(NAMES, losses_of_five(4, 300).T, strict=True))
    first, second = model_confidence_set(table, seed=3), model_confidence_set(table, seed=3)
    assert first == second
    assert "a" in first.included
    assert "e" not in first.included


def test_hostile_sets():
    good = np.random.default_rng(0).normal(0, 1, 50)
    for losses, match in (({"a": good}, "at least 2"), ({"a": good, "b": good[:20]}, "'b' had shape"),
                          ({"a": good, "b": np.where(good > 1, np.nan, good)}, "finite, 'b'")):  # fmt: skip
        with pytest.raises(DataConversionError, match=match):
            model_confidence_set(losses)
    for wrong in ({"size": 0.0}, {"block": 0}, {"replications": 1}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            model_confidence_set({"a": good, "b": good}, **wrong)
