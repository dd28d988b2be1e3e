"""GARCH and GJR: the fit against `arch`, the filter against a loop, the gradient against differences, and bad input."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import REPOSITORY
from volatility_paths import gjr_path

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import garch_kernels
from tengri_fast.risk.garch import Garch, filter_variance, fit_degrees_of_freedom, fit_garch, warmup

RETURNS, TRUTH = gjr_path(11, 3000)

# arch 8.0.0 on 100 * RETURNS, made by tests/oracles/volatility_arch.py: mean, omega, alpha, gamma, beta; likelihood;
# sigmas of returns 0, 1, 1500, 2999; variances of the five periods after the data.
ARCH = {
    False: (
        (0.04719385607778864, 0.03529029615804656, 0.10621031356937072, 0.0, 0.8348063880648864), -3318.969763170282,
        (0.009172521161300982, 0.008588818024842881, 0.010097508773843395, 0.008976625138552135),
        (8.483382856265182e-05, 8.33590791568373e-05, 8.197131533524062e-05, 8.066540640119438e-05,
         7.943652428344349e-05),
    ),
    True: (
        (0.03529323535558347, 0.03347761659396929, 0.05338652801308924, 0.09427077449313252, 0.843981342828471),
        -3306.4641591300633,
        (0.009178917682733016, 0.008628964261607378, 0.010739317456508397, 0.008942089879996722),
        (7.803547884321003e-05, 7.705252567327587e-05, 7.612412320172502e-05, 7.524724404252815e-05,
         7.441902881971714e-05),
    ),
}  # fmt: skip


@pytest.mark.parametrize("leverage", [False, True])
def test_the_fit_is_archs(leverage):
    fit = fit_garch(RETURNS, leverage=leverage)
    params, likelihood, sigmas, ahead = ARCH[leverage]
    ours = (100.0 * fit.mean, 1e4 * fit.omega, fit.alpha, fit.gamma, fit.beta)
    assert ours == pytest.approx(params, rel=2e-3, abs=2e-5)
    # The likelihood is what was maximised: ours may not be lower.
    assert fit.log_likelihood - len(RETURNS) * math.log(100.0) >= likelihood - 1e-6
    variances = filter_variance(RETURNS, fit)
    assert np.sqrt(variances[[0, 1, 1500, 2999]]) == pytest.approx(sigmas, rel=1e-4)
    assert fit.forecast(variances[-1], 5) == pytest.approx(ahead, rel=2e-4)
    assert fit.observations == 3000


@pytest.mark.parametrize("leverage", [False, True])
def test_arch_itself_agrees_on_another_path(leverage):
    arch = pytest.importorskip("arch", reason="arch is not installed; its numbers on one path are held above")
    returns, _ = gjr_path(12, 2000)
    fit = fit_garch(returns, leverage=leverage)
    theirs = arch.arch_model(100.0 * returns, mean="Constant", vol="GARCH", p=1, o=int(leverage), q=1).fit(disp="off")
    assert fit.log_likelihood - 2000 * math.log(100.0) >= theirs.loglikelihood - 1e-5
    np.testing.assert_allclose(
        np.sqrt(filter_variance(returns, fit)[:-1]), theirs.conditional_volatility / 100.0, rtol=2e-3
    )


def test_the_filter_is_the_loop():
    params = Garch(omega=2e-6, alpha=0.03, beta=0.9, gamma=0.08, mean=3e-4, start=1.1e-4)
    h = [2e-6 + (0.03 + 0.04 + 0.9) * 1.1e-4]
    for r in RETURNS[:500]:
        e = r - 3e-4
        h.append(2e-6 + (0.03 + (0.08 if e < 0 else 0.0)) * e * e + 0.9 * h[-1])
    np.testing.assert_allclose(filter_variance(RETURNS[:500], params), h, rtol=1e-14)
    assert filter_variance([], params) == pytest.approx([h[0]])
    # A longer series never changes what was said before.
    np.testing.assert_array_equal(filter_variance(RETURNS[:200], params), filter_variance(RETURNS[:500], params)[:201])


def test_the_gradient_is_that_of_the_likelihood():
    start, gradient, scratch = 0.9, np.empty(5), np.empty(5)
    point = np.array([0.02, 0.05, 0.06, 0.07, 0.85])
    scaled = np.ascontiguousarray(RETURNS[:700] * 100.0)
    garch_kernels.likelihood(scaled, *point, start, gradient)
    for k in range(5):
        step = np.zeros(5)
        step[k] = 1e-6
        up = garch_kernels.likelihood(scaled, *(point + step), start, scratch)
        down = garch_kernels.likelihood(scaled, *(point - step), start, scratch)
        assert gradient[k] == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-9)
    # Stationary at the optimum, in units of the data's own scale.
    fit = fit_garch(RETURNS, leverage=True)
    unit = RETURNS.std()
    garch_kernels.likelihood(
        RETURNS / unit,
        fit.mean / unit,
        fit.omega / unit**2,
        fit.alpha,
        fit.gamma,
        fit.beta,
        fit.start / unit**2,
        gradient,
    )
    assert np.abs(gradient).max() < 1e-4


def test_kernels_are_their_python_selves():
    warmup()
    out, other, slope, again = np.empty(101), np.empty(101), np.empty(5), np.empty(5)
    some = np.ascontiguousarray(RETURNS[:100])
    arguments = (1e-4, 2e-6, 0.05, 0.06, 0.88, 1e-4)
    garch_kernels.variances(some, *arguments, out)
    garch_kernels.variances.py_func(some, *arguments, other)
    np.testing.assert_allclose(out, other, rtol=1e-14)
    value = garch_kernels.likelihood(some, *arguments, slope)
    assert value == pytest.approx(garch_kernels.likelihood.py_func(some, *arguments, again), rel=1e-12)
    np.testing.assert_allclose(slope, again, rtol=1e-9)


@settings(max_examples=15, deadline=None)
@given(power=st.integers(-20, 20), seed=st.integers(0, 1000))
def test_the_fit_knows_no_unit_and_stays_inside(power, seed):
    returns, _ = gjr_path(seed, 400)
    scale = 2.0**power  # exact in binary, so the whole search is the same
    one, other = fit_garch(returns, leverage=True), fit_garch(scale * returns, leverage=True)
    assert (other.alpha, other.gamma, other.beta) == (one.alpha, one.gamma, one.beta)
    assert (other.omega, other.mean, other.start) == (scale**2 * one.omega, scale * one.mean, scale**2 * one.start)
    assert other.log_likelihood == pytest.approx(one.log_likelihood - 400 * math.log(scale), abs=1e-8)
    assert one.omega > 0
    assert one.alpha >= 0
    assert one.alpha + one.gamma >= 0
    assert one.beta >= 0
    assert one.persistence < 1


def test_a_long_path_gives_its_own_parameters_back():
    returns, truth = gjr_path(5, 40_000)
    fit = fit_garch(returns, leverage=True)
    assert (fit.alpha, fit.gamma, fit.beta) == pytest.approx((0.04, 0.10, 0.88), abs=0.02)
    assert np.corrcoef(np.log(filter_variance(returns, fit)[:-1]), np.log(truth))[0, 1] > 0.99


def test_the_same_data_give_the_same_fit():
    assert fit_garch(RETURNS[:800], leverage=True) == fit_garch(RETURNS[:800].tolist(), leverage=True)
    assert fit_garch(RETURNS[:800], mean="zero").mean == 0.0


def test_a_flat_beginning_is_no_zero_variance():
    fit = fit_garch(np.concatenate([np.zeros(100), RETURNS[:500]]), mean="zero")
    assert fit.start > 0
    assert (filter_variance(RETURNS, fit) > 0).all()


@pytest.mark.parametrize(
    ("returns", "match"),
    [
        (np.full(200, 0.01), "`returns` must vary"),
        (np.zeros(200), "`returns` must vary"),
        (np.full(99, 0.01), "at least 100"),
        (np.r_[np.ones(150), np.nan], "finite, was nan at 150"),
        (np.r_[np.ones(150), np.inf], "finite, was inf at 150"),
        (np.ones((20, 20)), "one dimension"),
    ],
)
def test_hostile_returns(returns, match):
    with pytest.raises(DataConversionError, match=match):
        fit_garch(returns)


def test_hostile_parameters():
    for wrong in ({"omega": 0.0}, {"alpha": -0.1}, {"beta": math.nan}, {"gamma": -0.2}, {"start": -1.0}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            Garch(**{"omega": 1e-6, "alpha": 0.1, "beta": 0.8, **wrong})
    with pytest.raises(ConfigurationError, match="`mean`"):
        fit_garch(RETURNS, mean="median")
    with pytest.raises(ConfigurationError, match="`horizon`"):
        Garch(1e-6, 0.1, 0.8).forecast(1e-4, 0)
    with pytest.raises(DataConversionError, match="at least 1"):
        filter_variance([], Garch(1e-6, 0.1, 0.8))
    assert Garch(1e-6, 0.2, 0.8).long_run_variance == math.inf


def test_degrees_of_freedom():
    rng = np.random.default_rng(2)
    assert fit_degrees_of_freedom(rng.standard_t(5, 20_000) / math.sqrt(5 / 3)) == pytest.approx(5.0, rel=0.1)
    assert fit_degrees_of_freedom(rng.normal(0, 1, 20_000)) > 40
    assert fit_degrees_of_freedom(np.tile([-1.0, 1.0], 50)) == math.inf  # thinner than any t
    stats = pytest.importorskip("scipy.stats")
    z = rng.standard_t(4, 3000) / math.sqrt(2.0)
    grid = np.linspace(2.5, 9, 400)
    best = grid[np.argmax([stats.t.logpdf(z * math.sqrt(v / (v - 2)), v).sum() + 1500 * math.log(v / (v - 2))
                           for v in grid])]  # fmt: skip
    assert fit_degrees_of_freedom(z) == pytest.approx(best, abs=0.03)
    with pytest.raises(DataConversionError, match="at least 10"):
        fit_degrees_of_freedom([1.0])


def test_import_brings_no_numba_and_no_scipy():
    code = (
        "import sys, tengri_fast.risk.garch, tengri_fast.risk.volatility, tengri_fast.risk.neural_volatility\n"
        "sys.exit(','.join(m for m in ('numba', 'scipy', 'pandas', 'torch') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
