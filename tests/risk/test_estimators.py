"""Every method of VaR and ES: laws, closed forms, rivals' numbers, intervals that cover, input that is refused."""

from __future__ import annotations

import gzip
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_history import QUANTITIES, history
from scipy import integrate, optimize, stats
from support import REPOSITORY, shared_data

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import expected_shortfall, value_at_risk
from tengri_fast.risk.conditional import conditional_variances
from tengri_fast.risk.estimators import METHODS, historical, risk_estimate, risk_model
from tengri_fast.risk.functionals import CornishFisherRisk, QuadraticRisk, _actual, _match, cornish_fisher_valid
from tengri_fast.risk.greeks import quadratic_terms
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.intervals import block_indices, order_statistic_ranks, percentile_interval

#: Methods that work on results alone, with options that make them defined everywhere.
ALONE = {
    "historical": {},
    "age_weighted": {},
    "filtered": {},
    "normal": {},
    "student_t": {"degrees": 5.0},
    "cornish_fisher": {"outside": "report"},
    "peaks_over_threshold": {},
}


def results(count=500, seed=0):
    return stats.t.rvs(4, size=count, random_state=seed)


def book(quantities=QUANTITIES):
    return Holdings(list("abcde"), quantities, np.ones(5))


# -- definitions and rivals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.3, 0.9, 0.975, 0.99, 0.99999])
@pytest.mark.parametrize("count", [500, 2048, 5001])
def test_historical_is_the_definition(level, count):
    pnl = np.round(results(count), 2)  # with ties
    estimate = risk_estimate(pnl, level=level, confidence=None)
    assert estimate.var == value_at_risk(pnl, level)
    assert estimate.es == expected_shortfall(pnl, level)
    returns = history()
    assert risk_estimate(book(), returns, level=level).var == value_at_risk(book().pnl(returns), level)


def test_as_skfolio_and_quantlib_gave_it():
    """Constants from tests/oracles/risk_estimators.py: skfolio 1.12.2, QuantLib 1.44."""
    weights = QUANTITIES / QUANTITIES.sum()
    assert risk_estimate(book(weights), history(), level=0.95).es == pytest.approx(0.015075712233071319, rel=1e-12)
    pnl = QUANTITIES @ history()
    for level, expected in ((0.95, 0.06945704048571862), (0.99, 0.104808303792)):
        assert risk_estimate(pnl, level=level).var == pytest.approx(expected, rel=1e-12)
    for degrees, quantile in ((3, 4.540702858568132), (5, 3.364929998907218), (12, 2.6809979931209145)):
        found = risk_estimate(pnl, method="student_t", degrees=degrees, zero_mean=True).var
        scale = math.sqrt(np.mean(pnl**2) * (degrees - 2) / degrees)
        assert found == pytest.approx(scale * quantile, rel=1e-7)


def test_age_weights_by_hand():
    pnl = np.array([-10.0, 1.0, -3.0, 2.0, -1.0])  # ages 4, 3, 2, 1, 0
    weights = 0.5 ** np.array([4, 3, 2, 1, 0])
    weights /= weights.sum()
    # Losses from the worst: 10 (w 1/31), 3 (4/31), 1 (16/31): at 90 % the tail of 0.1 = 3.1/31 ends within the loss 3.
    model = risk_model(pnl, method="age_weighted", level=0.9, decay=0.5)
    assert model.risk()[0] == 3.0
    assert model.risk()[1] == pytest.approx((10.0 / 31 + 3.0 * (0.1 - 1.0 / 31)) / 0.1, rel=1e-12)
    assert model.details["effective_scenarios"] == pytest.approx(1.0 / (weights @ weights))


@given(seed=st.integers(0, 500), level=st.sampled_from([0.8, 0.9, 0.95, 0.975, 0.99]), count=st.integers(5, 300))
@settings(max_examples=40, deadline=None)
def test_age_weights_that_hardly_fall_are_equal_weights(seed, level, count):
    pnl = results(count, seed)
    aged = risk_model(pnl, method="age_weighted", level=level, decay=1.0 - 1e-14).risk()
    np.testing.assert_allclose(aged, historical(pnl, level=level).risk(), rtol=1e-9)


def test_filtered_scales_by_the_ratio_of_volatilities():
    returns = history()
    variances = conditional_variances(np.log1p(returns), "ewma")
    scaled = np.expm1(np.log1p(returns) * np.sqrt(variances[:, -1:] / variances[:, :-1]))
    expected = risk_estimate(book(), scaled, confidence=None)
    assert risk_estimate(book(), returns, method="filtered", confidence=None).var == pytest.approx(
        expected.var, rel=1e-12
    )
    given_ = risk_estimate(book(), returns, method="filtered", volatility=variances, confidence=None)
    assert given_.es == pytest.approx(expected.es, rel=1e-12)
    flat = risk_estimate(book(), returns, method="filtered", volatility=np.ones((5, 241)), confidence=None)
    assert flat.var == pytest.approx(risk_estimate(book(), returns).var, rel=1e-9)


@pytest.mark.parametrize("volatility", ["ewma", "garch", "gjr"])
def test_filtered_follows_the_volatility(volatility):
    rng = np.random.default_rng(1)
    calm = 0.005 * rng.standard_normal(900)
    loud = 0.02 * rng.standard_normal(100)
    rising = risk_estimate(np.concatenate((calm, loud)), method="filtered", volatility=volatility, confidence=None)
    falling = risk_estimate(np.concatenate((loud, calm)), method="filtered", volatility=volatility, confidence=None)
    assert rising.var > 2.0 * falling.var
    assert 0.01 < falling.var < 0.02  # 2.33 x 0.005


@pytest.mark.parametrize("covariance", ["sample", "ewma", "ledoit_wolf", "ledoit_wolf_correlation", "factor"])
def test_normal_is_the_closed_form(covariance):
    from tengri_fast.risk.covariance import covariance_matrix

    returns = history()
    fitted = covariance_matrix(returns, covariance)
    mean = float(QUANTITIES @ returns.mean(axis=1))
    sigma = math.sqrt(QUANTITIES @ fitted.matrix @ QUANTITIES)
    for level in (0.9, 0.99, 0.999):
        law = stats.norm(-mean, sigma)
        estimate = risk_estimate(book(), returns, method="normal", covariance=covariance, mean="sample", level=level)
        assert estimate.var == pytest.approx(law.ppf(level), rel=1e-12)
        area, _ = integrate.quad(law.ppf, level, 1.0)
        assert estimate.es == pytest.approx(area / (1.0 - level), rel=1e-6)


def test_student_t_is_the_closed_form_and_fits_its_degrees():
    pnl = stats.t.rvs(4.5, scale=2.0, size=4000, random_state=3)
    fitted = risk_estimate(pnl, method="student_t")
    # The likelihood with the variance held at that of the sample, as it is used.
    variance = float(np.mean(pnl**2))
    likeliest = optimize.minimize_scalar(
        lambda nu: -stats.t(nu, scale=math.sqrt(variance * (nu - 2.0) / nu)).logpdf(pnl).sum(), (2.2, 5.0), (2.1, 50.0)
    )
    assert fitted.details["degrees"] == pytest.approx(float(likeliest.x), rel=2e-3)
    for degrees in (2.5, 4.0, 30.0):
        law = stats.t(degrees, scale=math.sqrt(pnl.var(ddof=1) * (degrees - 2.0) / degrees))
        estimate = risk_estimate(pnl, method="student_t", degrees=degrees, level=0.975)
        assert estimate.var == pytest.approx(law.ppf(0.975), rel=1e-10)
        area, _ = integrate.quad(law.isf, 0.0, 0.025, limit=300)
        assert estimate.es == pytest.approx(area / 0.025, rel=1e-5)


# -- Cornish-Fisher ---------------------------------------------------------------------------------------------------


def expansion(skew, kurtosis, level, matched=False):
    """VaR and ES of a result with mean 0 and deviation 1 and the given parameters."""
    return CornishFisherRisk(np.zeros((1, 4)), level, 1.0, True, matched).expansion.risk(0.0, 1.0, skew, kurtosis)


def test_cornish_fisher_quantiles_as_published():
    """Values of the documentation of mir.stat.distribution.cornish_fisher, whose quantiles are of gains."""
    for p, skew, kurtosis, expected in [
        (0.9, 0.1, 0.0, 1.292868), (0.9, 0.1, 1.0, 1.220374), (0.9, 0.1, -1.0, 1.365363), (0.99, 0.1, 0.0, 2.396116),
        (0.99, 0.1, 1.0, 2.629904), (0.99, 0.1, -1.0, 2.162328), (0.01, 0.1, 0.0, -2.249053),
        (0.01, 0.1, 1.0, -2.482841), (0.01, 0.1, -1.0, -2.015265), (0.5, -1.0, 0.0, 0.1666667),
    ]:  # fmt: skip
        # The p-quantile of a gain is minus the VaR at level 1 - p.
        assert -expansion(skew, kurtosis, 1.0 - p)[0] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("skew", "kurtosis", "matched"),
    [(0.0, 0.0, False), (-0.5, 1.0, False), (0.8, 3.0, False), (-1.0, 4.0, False), (-0.4, 1.0, True)],
)
def test_cornish_fisher_shortfall_is_the_integral_of_its_quantiles(skew, kurtosis, matched):
    level = 0.975
    area, _ = integrate.quad(lambda u: expansion(skew, kurtosis, u, matched)[0], level, 1.0, epsabs=1e-10)
    assert expansion(skew, kurtosis, level, matched)[1] == pytest.approx(area / (1.0 - level), rel=1e-5)


def test_the_domain_is_where_the_expansion_increases():
    """Maillard 2012: at S = 0 it is 0 <= K <= 8, and no |S| above 6 (sqrt 2 - 1) has any K."""
    assert cornish_fisher_valid(0.0, 0.0)
    assert cornish_fisher_valid(0.0, 8.0)
    assert not cornish_fisher_valid(0.0, 8.0001)
    assert not cornish_fisher_valid(0.0, -0.0001)
    edge = 6.0 * (math.sqrt(2.0) - 1.0)
    kurtoses = np.linspace(-2.0, 12.0, 20_001)
    assert any(cornish_fisher_valid(edge - 1e-3, k) for k in kurtoses)
    assert not any(cornish_fisher_valid(edge + 1e-3, k) for k in kurtoses)
    z = np.linspace(-12.0, 12.0, 4801)
    for skew in np.linspace(-2.4, 2.4, 9):
        for kurtosis in np.linspace(-1.0, 9.0, 41):
            w = z + (z**2 - 1) * skew / 6 + (z**3 - 3 * z) * kurtosis / 24 - (2 * z**3 - 5 * z) * skew**2 / 36
            if cornish_fisher_valid(skew, kurtosis):
                assert (np.diff(w) > -1e-12).all()
            elif (np.diff(w) > 1e-6).all():
                pytest.fail(f"refused an increasing expansion at {skew}, {kurtosis}")


@pytest.mark.parametrize(("skew", "kurtosis"), [(0.0, 1.0), (0.3, 2.0), (-1.0, 5.0), (-0.5, 12.0)])
def test_matched_parameters_have_the_moments(skew, kurtosis):
    s, k = _match(skew, kurtosis)

    def moment(power):
        def integrand(z):
            w = z + (z**2 - 1) * s / 6 + (z**3 - 3 * z) * k / 24 - (2 * z**3 - 5 * z) * s**2 / 36
            return w**power * stats.norm.pdf(z)

        return integrate.quad(integrand, -14.0, 14.0, limit=300)[0]

    assert moment(3) / moment(2) ** 1.5 == pytest.approx(skew, abs=1e-8)
    assert moment(4) / moment(2) ** 2 - 3.0 == pytest.approx(kurtosis, abs=1e-7)
    assert _actual(s, k)[0][0] == pytest.approx(moment(2), rel=1e-9)


def test_outside_the_domain_is_refused_or_reported():
    pnl = np.concatenate((results(500), [-40.0]))
    with pytest.raises(DataConversionError, match="must lie in the Cornish-Fisher domain"):
        risk_estimate(pnl, method="cornish_fisher")
    reported = risk_estimate(pnl, method="cornish_fisher", outside="report")
    assert reported.details["valid"] is False
    inside = risk_estimate(np.random.default_rng(1).standard_normal(500), method="cornish_fisher")
    assert inside.details["valid"] is (cornish_fisher_valid(*inside.details["parameters"]))
    with pytest.raises(ConfigurationError, match="`outside` must be refuse or report"):
        risk_estimate(pnl, method="cornish_fisher", outside="ignore")


# -- delta-gamma ------------------------------------------------------------------------------------------------------


def test_cumulants_of_the_quadratic_form_are_those_of_its_draws():
    rng = np.random.default_rng(8)
    a = rng.standard_normal((3, 3))
    covariance = 0.01 * a @ a.T
    first, second, quantities = np.array([1.0, -2.0, 0.5]), np.array([2.0, 1.0, -3.0]), np.array([1.0, 2.0, -1.0])
    risk = QuadraticRisk(first, second, covariance, 0.99, False)
    # Exact moments: diagonalise, then a sum of independent shifted chi-squares.
    root = np.linalg.cholesky(covariance)
    values, vectors = np.linalg.eigh(root.T @ np.diag(quantities * second) @ root)
    linear = vectors.T @ root.T @ (quantities * first)
    expected = [
        values.sum(),
        (2.0 * values**2 + linear**2).sum(),
        (8.0 * values**3 + 6.0 * values * linear**2).sum(),
        (48.0 * values**4 + 48.0 * values**2 * linear**2).sum(),
    ]
    np.testing.assert_allclose(risk.cumulants(quantities), expected, rtol=1e-10)
    draws = root @ rng.standard_normal((3, 400_000))
    pnl = (quantities * first) @ draws + (quantities * second) @ draws**2
    np.testing.assert_allclose(risk.moments(quantities)[:2], [pnl.mean(), pnl.std()], rtol=0.02)


def test_terms_are_the_expansion_of_the_result():
    holdings = Holdings(
        ["stock", "perp", "event", "option"], np.ones(4), [100.0, 50.0, 0.4, 80.0], multipliers=[1.0, 10.0, 1.0, 100.0],
        rates=[1.1, 50.0, 1.0, 0.9], payoffs=["linear", "inverse", "binary", "linear"],
        deltas=[math.nan, math.nan, math.nan, -0.5], gammas=[math.nan, math.nan, math.nan, 0.03],
    )  # fmt: skip
    first, second = quadratic_terms(holdings)
    for r in (0.01, -0.01, 0.002):
        exact = holdings.unit_pnl(np.full(4, r))
        # What is left is of third order, for the inverse payoff only.
        np.testing.assert_allclose(first * r + second * r * r, exact, rtol=1.1 * r * r)
    np.testing.assert_allclose(first, holdings.exposures())


def test_delta_gamma_approaches_full_revaluation():
    rng = np.random.default_rng(2)
    returns = 0.01 * rng.standard_normal((3, 2000))
    holdings = Holdings(
        ["stock", "perp", "option"], [10.0, -20_000.0, 40.0], [100.0, 50.0, 100.0],
        payoffs=["linear", "inverse", "linear"],
        deltas=[math.nan, math.nan, 0.5], gammas=[math.nan, math.nan, 0.03],
    )  # fmt: skip
    closed = risk_estimate(holdings, returns, method="delta_gamma", matched=True)
    drawn = risk_estimate(
        holdings, returns, method="monte_carlo", copula="gaussian", margins="normal", paths=200_000, confidence=None
    )
    assert closed.var == pytest.approx(drawn.var, rel=0.02)
    assert closed.es == pytest.approx(drawn.es, rel=0.02)
    first_order = risk_estimate(holdings, returns, method="normal", confidence=None)
    assert abs(first_order.var - drawn.var) > 2.0 * abs(closed.var - drawn.var)
    assert first_order.details["note"] == "payoffs are taken to first order"


def test_without_curvature_delta_gamma_is_normal():
    curved = risk_estimate(book(), history(), method="delta_gamma", confidence=None)
    plain = risk_estimate(book(), history(), method="normal", confidence=None)
    np.testing.assert_allclose([curved.var, curved.es], [plain.var, plain.es], rtol=1e-12)


# -- horizon ----------------------------------------------------------------------------------------------------------


def test_overlapping_windows_compound_returns_and_add_results():
    returns = history()
    days = 10
    compounded = np.array([[np.prod(1.0 + row[t : t + days]) - 1.0 for t in range(240 - days + 1)] for row in returns])
    estimate = risk_estimate(book(), returns, horizon=days)
    assert estimate.var == pytest.approx(value_at_risk(book().pnl(compounded)), rel=1e-9)
    assert estimate.details["scenarios"] == 231
    assert "overlapping windows of 10 steps" in estimate.details["horizon_rule"]
    pnl = results()
    summed = np.convolve(pnl, np.ones(days), mode="valid")
    assert risk_estimate(pnl, horizon=days).var == pytest.approx(value_at_risk(summed), rel=1e-9)


@pytest.mark.parametrize("method", ["historical", "age_weighted", "filtered", "normal", "peaks_over_threshold"])
def test_square_root_of_time_is_stated(method):
    pnl = results()
    one = risk_estimate(pnl, method=method, confidence=None)
    ten = risk_estimate(pnl, method=method, horizon=10, rule="sqrt", confidence=None)
    assert ten.var == pytest.approx(math.sqrt(10.0) * one.var, rel=1e-12)
    assert "square root of time" in ten.details["horizon_rule"]
    assert "square root" not in one.details["horizon_rule"]


def test_cornish_fisher_moments_of_independent_steps():
    pnl = np.random.default_rng(5).gamma(2.0, size=3000)
    one = risk_model(pnl, method="cornish_fisher", outside="report").functional.moments(np.ones(1))
    four = risk_model(pnl, method="cornish_fisher", outside="report", horizon=4, rule="sqrt").functional.moments(
        np.ones(1)
    )
    np.testing.assert_allclose(four, [4 * one[0], 2 * one[1], one[2] / 2, one[3] / 4], rtol=1e-12)


# -- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(ALONE))
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e6))
@settings(max_examples=12, deadline=None)
def test_positive_homogeneity(method, seed, scale):
    pnl = results(200, seed)
    one = np.array(risk_model(pnl, method=method, **ALONE[method]).risk())
    many = np.array(risk_model(scale * pnl, method=method, **ALONE[method]).risk())
    np.testing.assert_allclose(many, scale * one, rtol=1e-6)


@pytest.mark.parametrize("method", ["historical", "age_weighted", "cornish_fisher", "peaks_over_threshold"])
@given(seed=st.integers(0, 10_000), shift=st.floats(-50.0, 50.0))
@settings(max_examples=12, deadline=None)
def test_translation(method, seed, shift):
    pnl = results(200, seed)
    one = np.array(risk_model(pnl, method=method, **ALONE[method]).risk())
    moved = np.array(risk_model(pnl + shift, method=method, **ALONE[method]).risk())
    np.testing.assert_allclose(moved, one - shift, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", sorted(set(ALONE) - {"cornish_fisher"}))
@given(seed=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_monotone_in_the_level_and_shortfall_beyond_var(method, seed):
    pnl = results(300, seed)
    rows = [
        risk_model(pnl, method=method, level=level, **ALONE[method]).risk()
        for level in (0.92, 0.95, 0.975, 0.99, 0.995)
    ]
    table = np.array(rows)
    assert (np.diff(table, axis=0) >= -1e-9).all()
    assert (table[:, 1] >= table[:, 0] - 1e-9).all()


@pytest.mark.parametrize("method", ["historical", "age_weighted", "normal", "student_t"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_shortfall_is_subadditive(method, seed):
    a, b = results(300, seed), results(300, seed + 1)
    options = ALONE[method]
    whole, left, right = (risk_model(x, method=method, **options).risk()[1] for x in (a + b, a, b))
    assert whole <= left + right + 1e-9


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"monte_carlo"}))
def test_the_order_of_instruments_does_not_matter(method):
    returns, order = history(), np.array([3, 0, 4, 1, 2])
    options = ALONE.get(method, {})
    one = risk_model(book(), returns, method=method, **options).risk()
    names = [list("abcde")[i] for i in order]
    other = risk_model(Holdings(names, QUANTITIES[order], np.ones(5)), returns[order], method=method, **options).risk()
    np.testing.assert_allclose(other, one, rtol=1e-9)


@pytest.mark.parametrize("method", ["historical", "normal", "student_t", "cornish_fisher", "peaks_over_threshold"])
def test_the_order_of_observations_does_not_matter_where_time_does_not(method):
    pnl = results(400, 7)
    shuffled = np.random.default_rng(0).permutation(pnl)
    options = ALONE[method]
    np.testing.assert_allclose(
        risk_model(shuffled, method=method, **options).risk(),
        risk_model(pnl, method=method, **options).risk(),
        rtol=1e-9,
    )


# -- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "level"), [(20, 0.9), (100, 0.95), (250, 0.99), (1000, 0.99), (1000, 0.5)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_order_statistics_cover_exactly(count, level, confidence):
    low, high = order_statistic_ranks(count, level, confidence)
    law, half = stats.binom(count, level), 0.5 * (1.0 - confidence)
    assert law.cdf(low - 1) <= half + 1e-12
    assert law.cdf(low) > half - 1e-12
    assert law.sf(high - 1) <= half + 1e-12
    assert law.sf(high - 2) > half - 1e-12


def test_a_small_sample_has_no_upper_bound():
    estimate = risk_estimate(results(100), level=0.99)
    assert estimate.interval.var[1] == math.inf
    assert estimate.interval.var[0] < estimate.var
    assert risk_estimate(results(50), level=0.99).details["note"].startswith("the tail holds less than one scenario")


@pytest.mark.parametrize("method", ["historical", "normal", "student_t", "peaks_over_threshold"])
def test_intervals_cover_the_truth(method):
    """Of 60 nominal 90 % intervals at least 43 hold the true VaR: fewer has a probability below 0.0003."""
    law = stats.norm() if method != "student_t" else stats.t(6, scale=math.sqrt(4.0 / 6.0))
    truth = law.ppf(0.975)
    options = {"degrees": 6.0} if method == "student_t" else {}
    held = 0
    for seed in range(60):
        pnl = law.rvs(size=400, random_state=seed)
        low, high = risk_estimate(pnl, method=method, level=0.975, confidence=0.9, resamples=20, **options).interval.var
        held += low <= truth <= high
    assert 43 <= held <= 60


def test_bootstrap_is_seeded_and_keeps_blocks():
    pnl = results(300)
    first = risk_estimate(pnl, horizon=5, bootstrap_seed=3)
    assert risk_estimate(pnl, horizon=5, bootstrap_seed=3).interval == first.interval
    assert risk_estimate(pnl, horizon=5, bootstrap_seed=4).interval != first.interval
    assert "block bootstrap, blocks of 7" in first.interval.method
    index = next(iter(block_indices(100, 10, 20, 1)))
    assert index.shape == (100,)
    steps = np.diff(index.reshape(10, 10), axis=1) % 100
    assert (steps == 1).all()
    assert percentile_interval([1.0, 2.0, math.inf], 0.9) == (1.0, math.inf)
    with pytest.raises(ConfigurationError, match="`block` must be between 1 and the 300"):
        risk_estimate(pnl, method="age_weighted", block=301)
    with pytest.raises(ConfigurationError, match="`resamples` must be >= 20, was 5"):
        risk_estimate(pnl, resamples=5)
    with pytest.raises(ConfigurationError, match="`confidence` must be between 0 and 1"):
        risk_estimate(pnl, confidence=1.0)
    assert risk_estimate(pnl, confidence=None).interval is None


# -- hostile input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(ALONE))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_results_that_are_not_finite_are_named(method, bad):
    pnl = results(100)
    pnl[17] = bad
    with pytest.raises(DataConversionError, match=f"`pnl` must be finite, was {bad} for portfolio at 17"):
        risk_estimate(pnl, method=method, **ALONE[method])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_returns_that_are_impossible_are_named(method):
    returns = history()
    for value, text in ((math.nan, "finite"), (-1.5, ">= -1")):
        broken = returns.copy()
        broken[2, 9] = value
        with pytest.raises(DataConversionError, match=f"`returns` must be {text}, was {value} for c at 9"):
            risk_estimate(book(), broken, method=method, **ALONE.get(method, {}))
    with pytest.raises(DataConversionError, match=r"`returns` must have shape \(5, S\)"):
        risk_estimate(book(), returns[:4], method=method, **ALONE.get(method, {}))


def test_constant_results():
    flat = np.full(100, -2.0)
    for method in ("historical", "age_weighted", "cornish_fisher"):
        estimate = risk_estimate(flat, method=method)
        assert (estimate.var, estimate.es) == (pytest.approx(2.0), pytest.approx(2.0)), method
    assert risk_estimate(flat, method="normal").var == 0.0
    assert risk_estimate(flat, method="normal", mean="sample").var == pytest.approx(2.0)
    assert risk_estimate(np.zeros(100), method="normal").es == 0.0
    with pytest.raises(DataConversionError, match="`degrees` must be given when"):
        risk_estimate(flat, method="student_t")
    with pytest.raises(DataConversionError, match="conditional variances must be finite and > 0"):
        risk_estimate(np.zeros(100), method="filtered")


def test_an_instrument_twice_and_one_that_never_moves():
    """A singular covariance is a right answer: twice the same is twice the position."""
    returns = history()
    double = np.vstack((returns, returns[:1], np.zeros((1, 240))))
    holdings = Holdings(list("abcdefg"), [*QUANTITIES, 2.0, 9.0], np.ones(7))
    same = book(QUANTITIES + 2.0 * np.eye(5)[0])
    for method in ("historical", "age_weighted", "normal", "student_t", "cornish_fisher", "delta_gamma"):
        options = ALONE.get(method, {})
        one, two = (
            risk_model(holdings, double, method=method, **options),
            risk_model(same, returns, method=method, **options),
        )
        np.testing.assert_allclose(one.risk(), two.risk(), rtol=1e-9)


def test_empty_portfolio_and_too_few_observations():
    nothing = risk_estimate(book(np.zeros(5)), history(), method="normal")
    assert (nothing.var, nothing.es) == (0.0, 0.0)
    assert risk_estimate(book(np.zeros(5)), history()).var == 0.0
    with pytest.raises(DataConversionError, match="at least one instrument"):
        risk_estimate(Holdings([], [], []), np.zeros((0, 5)))
    with pytest.raises(
        DataConversionError, match="`pnl` must hold at least 1 observation for a horizon of 1 step, had 0"
    ):
        risk_estimate([])
    with pytest.raises(DataConversionError, match="at least 5 observations for a horizon of 5 steps, had 4"):
        risk_estimate(results(4), horizon=5)
    assert risk_estimate([-3.0], level=0.9, confidence=None).var == 3.0
    with pytest.raises(DataConversionError, match="at least 2 observations"):
        risk_estimate([-3.0], method="normal")
    with pytest.raises(DataConversionError, match="four moments must have at least 4"):
        risk_estimate([1.0, 2.0, 3.0], method="cornish_fisher")


def test_bad_settings_are_named():
    pnl = results(100)
    for options, text in [
        ({"method": "guess"}, "`method` must be one of historical"),
        ({"level": 1.0}, "`level` must be between 0 and 1, was 1.0"),
        ({"horizon": 0}, "`horizon` must be an integer >= 1"),
        ({"horizon": 1.5}, "`horizon` must be an integer >= 1"),
        ({"rule": "linear"}, "`rule` must be one of overlapping, sqrt"),
        ({"window": 5}, "unexpected keyword"),
        ({"method": "age_weighted", "decay": 1.0}, "`decay` must be between 0 and 1"),
        ({"method": "filtered", "volatility": "stochastic"}, "`volatility` must be ewma, garch, gjr"),
        ({"method": "normal", "mean": "median"}, "`mean` must be zero or sample"),
        ({"method": "student_t", "degrees": 2.0}, "`degrees` must be finite and > 2"),
    ]:
        with pytest.raises(ConfigurationError, match=text):
            risk_estimate(pnl, **options)
    with pytest.raises(DataConversionError, match=r"`volatility` must have shape \(1, 101\)"):
        risk_estimate(pnl, method="filtered", volatility=np.ones(100))
    with pytest.raises(DataConversionError, match="`returns` must be given with holdings"):
        risk_estimate(book())
    with pytest.raises(DataConversionError, match="`returns` must be None when results are given"):
        risk_estimate(pnl, history())
    for method in ("delta_gamma", "monte_carlo"):
        with pytest.raises(DataConversionError, match=f"`{method}` must have holdings and returns"):
            risk_estimate(pnl, method=method)


def test_estimators_import_nothing_heavy_until_used():
    program = (
        "import importlib, pkgutil, sys\n"
        "import tengri_fast.risk, tengri_fast.risk.estimators as e\n"
        "names = [m.name for m in pkgutil.walk_packages(tengri_fast.risk.__path__, 'tengri_fast.risk.')]\n"
        "assert len(names) > 60, names\n"
        "for name in names:\n"
        "    if 'kernels' not in name:\n"
        "        importlib.import_module(name)\n"
        "e.risk_estimate([-1.0, 2.0, -3.0] * 20, level=0.9)\n"
        "e.risk_estimate([-1.0, 2.0, -3.0] * 20, level=0.9, method='normal')\n"
        "e.risk_estimate([-1.0, 2.0, -3.0] * 20, level=0.9, method='filtered')\n"
        "heavy = {'numba', 'scipy', 'pandas', 'cvxpy', 'clarabel', 'pyarrow', 'plotly', 'torch', 'nautilus_trader'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- real data --------------------------------------------------------------------------------------------------------


def test_methods_on_the_crisis_of_2008():
    """S&P 500, the 1,000 days up to 31 October 2008: filtered history knows that volatility has risen."""
    with gzip.open(shared_data("daily", "sp500_index_1990_2022.csv.gz"), "rt") as stream:
        rows = [line.strip().split(",") for line in stream][1:]
    closes = np.array([float(row[1]) for row in rows if row[0][:10] <= "2008-10-31"])[-1001:]
    returns = np.diff(closes) / closes[:-1]
    index = Holdings(["SPX"], [1.0], [1.0])

    def var(method, **options):
        return risk_estimate(index, returns[None, :], method=method, confidence=None, **options).var

    plain = var("historical")
    assert 0.03 < plain < 0.08
    for method, options in (("filtered", {"volatility": "ewma"}), ("filtered", {"volatility": "garch"}),
                            ("normal", {"covariance": "ewma"}), ("age_weighted", {})):  # fmt: skip
        assert var(method, **options) > 1.3 * plain, method
    assert var("normal") < plain < var("peaks_over_threshold", level=0.999)
    assert var("peaks_over_threshold") == pytest.approx(plain, rel=0.25)
    assert var("cornish_fisher", matched=True, outside="report") == pytest.approx(plain, rel=0.35)
