"""The extreme-value tail against SciPy, published figures, and derivatives taken numerically."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.estimators import peaks_over_threshold, risk_estimate
from tengri_fast.risk.extreme import fit_excesses, likelihood_score, tail_estimates, tail_estimates_gradient


@pytest.mark.parametrize("xi", [-0.4, -0.2, 0.0, 0.1, 0.3, 0.8, 1.3])
@pytest.mark.parametrize("count", [40, 400])
def test_fit_is_at_least_as_likely_as_scipys(xi, count):
    y = stats.genpareto.rvs(xi, scale=2.5, size=count, random_state=11)
    found = fit_excesses(y)
    shape, _, scale = stats.genpareto.fit(y, floc=0.0)
    reference = stats.genpareto.logpdf(y, shape, 0.0, scale).sum()
    assert found.log_likelihood == pytest.approx(stats.genpareto.logpdf(y, found.xi, 0.0, found.beta).sum(), rel=1e-12)
    assert found.log_likelihood >= reference - 1e-7
    if found.regular:
        np.testing.assert_allclose([found.xi, found.beta], [shape, scale], rtol=2e-3, atol=2e-3)
        gradient, hessian = likelihood_score(y, found.xi, found.beta)
        assert np.abs(gradient * [1.0, found.beta]).max() < 1e-8
        assert np.linalg.eigvalsh(hessian)[-1] < 0.0


@pytest.mark.parametrize("xi", [-0.3, -1e-7, 0.0, 1e-7, 0.4])
def test_score_is_the_derivative_of_the_likelihood(xi):
    y, beta, h = stats.genpareto.rvs(0.2, size=30, random_state=1), 1.7, 1e-5
    y = np.minimum(y, 4.0)

    def height(a, b):
        return stats.genpareto.logpdf(y, a, 0.0, b).sum()

    gradient, hessian = likelihood_score(y, xi, beta)
    assert gradient[0] == pytest.approx((height(xi + h, beta) - height(xi - h, beta)) / (2.0 * h), rel=1e-4, abs=1e-3)
    assert gradient[1] == pytest.approx((height(xi, beta + h) - height(xi, beta - h)) / (2.0 * h), rel=1e-6, abs=1e-6)
    up, down = likelihood_score(y, xi + 1e-4, beta)[0], likelihood_score(y, xi - 1e-4, beta)[0]
    np.testing.assert_allclose(hessian[0], (up - down) / 2e-4, rtol=2e-3, atol=1e-2)


def test_danish_fire_losses():
    """McNeil 1999, "Extreme value theory for risk managers": 2,156 losses, 109 above 10, VaR 27.3 and ES 58.2 at 99 %.

    The parameters are printed as 0.50 and 7.0 there and as 0.497 and 6.975 in McNeil 1997; the formulas come within
    what that rounding leaves open.
    """
    var, es = tail_estimates(10.0, 0.497, 6.975, 2156, 109, 0.99)
    assert var == pytest.approx(27.3, abs=0.1)
    assert es == pytest.approx(58.2, abs=0.3)


@pytest.mark.parametrize("xi", [-0.3, 0.0, 1e-9, 0.25, 0.9])
def test_formulas_are_the_distributions_own(xi):
    u, beta, n, k = 2.0, 1.5, 1000, 80
    var, es = tail_estimates(u, xi, beta, n, k, 0.99)
    conditional = 1.0 - 0.01 / (k / n)
    assert var == pytest.approx(u + stats.genpareto.ppf(conditional, xi, scale=beta), rel=1e-8)
    area, _ = integrate.quad(lambda v: stats.genpareto.isf(v, xi, scale=beta), 0.0, 1.0 - conditional, limit=200)
    assert es == pytest.approx(u + area / (1.0 - conditional), rel=1e-4)
    gradient = np.array(tail_estimates_gradient(u, xi, beta, n, k, 0.99))
    for at, step in enumerate(np.eye(3) * 1e-5):
        up = np.array(tail_estimates(u + step[0], xi + step[1], beta + step[2], n, k, 0.99))
        down = np.array(tail_estimates(u - step[0], xi - step[1], beta - step[2], n, k, 0.99))
        np.testing.assert_allclose(gradient[:, at], (up - down) / 2e-5, rtol=1e-5, atol=1e-6)


def test_a_tail_without_a_mean_says_so():
    assert tail_estimates(1.0, 1.0, 1.0, 100, 10, 0.99)[1] == math.inf
    rng = np.random.default_rng(4)
    pnl = -(rng.pareto(0.6, 3000))
    estimate = risk_estimate(pnl, method="peaks_over_threshold", level=0.99)
    assert estimate.details["xi"] >= 1.0
    assert estimate.es == math.inf
    assert "infinite" in estimate.details["note"]
    assert math.isfinite(estimate.var)
    assert estimate.interval.var[0] < estimate.var < estimate.interval.var[1]


def test_estimate_states_its_threshold_and_finds_a_known_tail():
    truth = stats.t(3)
    losses = truth.rvs(size=20_000, random_state=9)
    estimate = risk_estimate(-losses, method="peaks_over_threshold", level=0.999, tail_share=0.05)
    assert estimate.details["exceeding"] == 1000
    assert estimate.details["threshold"] == np.sort(losses)[-1001]
    assert estimate.details["xi"] == pytest.approx(1.0 / 3.0, abs=0.1)
    assert estimate.interval.var[0] <= truth.ppf(0.999) <= estimate.interval.var[1]
    assert estimate.var == pytest.approx(truth.ppf(0.999), rel=0.1)


def test_a_short_tail_stops_where_it_is_regular():
    rng = np.random.default_rng(3)
    found = fit_excesses(1.0 - rng.uniform(size=300) ** 4)  # ends at 1 with all its mass there
    assert not found.regular
    assert found.xi == pytest.approx(-0.5)
    assert np.isnan(found.covariance).all()


@pytest.mark.parametrize(
    ("excesses", "text"),
    [
        (np.ones(9), "at least 10"),
        (np.append(np.ones(20), 0.0), "finite and > 0"),
        (np.append(np.ones(20), math.nan), "finite and > 0"),
        (np.ones(20), "must vary"),
    ],
)
def test_bad_excesses_are_named(excesses, text):
    with pytest.raises(DataConversionError, match=text):
        fit_excesses(excesses)


def test_bad_settings_are_named():
    rng = np.random.default_rng(3)
    pnl = rng.standard_normal(400)
    with pytest.raises(ConfigurationError, match=r"`level` must be within \[0.9, 1\): 40 of 400"):
        peaks_over_threshold(pnl, level=0.8).risk()
    with pytest.raises(ConfigurationError, match="`tail_share` must be within"):
        peaks_over_threshold(pnl, tail_share=0.6)
    with pytest.raises(DataConversionError, match=r"at least 10 losses beyond the threshold, 0\.1 of 50 leaves 5"):
        peaks_over_threshold(pnl[:50])
    with pytest.raises(DataConversionError, match="at least 10 losses beyond the threshold 0, had 0 of 400"):
        peaks_over_threshold(np.zeros(400))
