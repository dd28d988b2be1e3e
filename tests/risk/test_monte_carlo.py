"""Paths of copulas: the distributions that they must have, bits that no thread changes, and fits against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_history import QUANTITIES, history
from scipy import stats

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import ScenarioSet, expected_shortfall, value_at_risk
from tengri_fast.risk.estimators import risk_estimate
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.monte_carlo import (
    PathModel,
    _average_ranks,
    _kendall,
    draw_scenarios,
    fit_paths,
    fit_student,
    scenario_risk,
    simulate_pnl,
)

NAMES = tuple("abcde")
BOOK = Holdings(NAMES, QUANTITIES, np.ones(5))
MODELS = [(copula, margins) for copula in ("gaussian", "student_t") for margins in ("empirical", "t", "normal")]


def model_of(copula, margins, degrees=4.0, correlation=None):
    return fit_paths(
        history(), copula=copula, margins=margins, correlation=correlation,
        degrees=degrees if copula == "student_t" else None,
    )  # fmt: skip


def drawn(model, paths=40_000, **options):
    names = tuple(f"i{n}" for n in range(model.correlation.shape[0]))
    return draw_scenarios(model, names, horizon_ns=1, paths=paths, **options).returns.astype(np.float64)


# -- fitting ----------------------------------------------------------------------------------------------------------


def test_kendall_and_ranks_are_scipys():
    rng = np.random.default_rng(2)
    table = np.round(rng.standard_normal((4, 150)) + rng.standard_normal(150), 1)  # with ties
    for i in range(4):
        np.testing.assert_array_equal(_average_ranks(table)[i], stats.rankdata(table[i]))
        for j in range(4):
            assert _kendall(table)[i, j] == pytest.approx(stats.kendalltau(table[i], table[j]).statistic, rel=1e-6)


def test_student_margins_are_maximum_likelihood():
    rows = np.stack([stats.t.rvs(nu, loc=0.3, scale=2.0, size=1500, random_state=int(nu)) for nu in (2.5, 4.0, 8.0)])
    location, scale, degrees = fit_student(rows)
    for row, *found in zip(rows, location, scale, degrees, strict=True):
        nu, loc, size = stats.t.fit(row)
        ours = stats.t.logpdf(row, found[2], found[0], found[1]).sum()
        assert ours >= stats.t.logpdf(row, nu, loc, size).sum() - 1e-4
        np.testing.assert_allclose(found, [loc, size, nu], rtol=5e-3, atol=2e-3)


def test_the_copula_is_recovered():
    correlation = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.1], [-0.3, 0.1, 1.0]])
    truth = PathModel("student_t", "normal", correlation, 5.0, np.zeros(3), np.full(3, 0.01), np.full(3, math.inf),
                      np.zeros((3, 10)))  # fmt: skip
    found = fit_paths(drawn(truth, 4000), copula="student_t")
    np.testing.assert_allclose(found.correlation, correlation, atol=0.05)
    assert 4.0 < found.degrees < 6.5
    gaussian = PathModel("gaussian", "normal", correlation, math.inf, *(truth.location, truth.scale),
                         truth.margin_degrees, truth.values)  # fmt: skip
    found = fit_paths(drawn(gaussian, 4000), copula="gaussian")
    np.testing.assert_allclose(found.correlation, correlation, atol=0.04)
    assert fit_paths(drawn(gaussian, 4000), copula="student_t").degrees > 30.0


def test_a_fitted_correlation_is_positive_semidefinite():
    """Kendall's sine map alone is not: three near-contradictory pairs with few observations."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        found = fit_paths(rng.standard_normal((12, 10)) * 0.01, copula="student_t", degrees=4.0)
        assert np.linalg.eigvalsh(found.correlation)[0] > -1e-9
        np.testing.assert_allclose(np.diag(found.correlation), 1.0)
        assert drawn(found, 500).shape == (12, 500)


# -- distributions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("copula", "margins"), MODELS)
@pytest.mark.parametrize("sampling", ["plain", "antithetic", "sobol"])
def test_margins_are_what_was_asked(copula, margins, sampling):
    model = model_of(copula, margins)
    paths = drawn(model, 2**15, sampling=sampling, seed=5)
    for n in range(5):
        if margins == "empirical":
            values = np.sort(history()[n]).astype(np.float32).astype(np.float64)
            counts = np.bincount(np.searchsorted(values, paths[n]), minlength=240)
            assert counts.sum() == 2**15
            assert np.isin(paths[n], values).all()
            expected = 2**15 / 240
            assert np.abs(counts - expected).max() < 6.0 * math.sqrt(expected)
        else:
            law = stats.t(model.margin_degrees[n]) if margins == "t" else stats.norm()
            score = (np.log1p(paths[n]) - model.location[n]) / model.scale[n]
            assert stats.kstest(score, law.cdf).statistic < 1.95 / math.sqrt(2**15)  # p about 0.001


@pytest.mark.parametrize("degrees", [2.2, 5.0, 30.0, math.inf])
def test_margins_are_scipys_quantiles_to_a_billionth(degrees):
    """The whole map at once: Gaussian or t draws pushed through SciPy's cdf and quantile functions."""
    copula = "gaussian" if math.isinf(degrees) else "student_t"
    location, scale, own = np.array([0.001, -0.002]), np.array([0.01, 0.03]), np.array([3.0, 12.0])
    rest = (np.eye(2), degrees, location, scale, own, np.zeros((2, 10)))
    straight = PathModel(copula, "t", rest[0], degrees, np.zeros(2), np.full(2, 1e-3), np.full(2, degrees), rest[5])
    bent = PathModel(copula, "t", *rest)
    x = np.log1p(drawn(straight, 20_000, seed=9)) / 1e-3
    law = stats.norm if math.isinf(degrees) else stats.t(degrees)
    tail = law.sf(np.abs(x))
    expected = np.expm1(location[:, None] + scale[:, None] * np.sign(x) * stats.t.isf(tail, own[:, None]))
    # Float32 returns limit both: 6e-8 of the move, and of x itself on the way back.
    np.testing.assert_allclose(drawn(bent, 20_000, seed=9), expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("degrees", [2.0, 4.5, 40.0])
def test_the_mixing_table_is_scipys_chi_square(degrees):
    from tengri_fast.risk import kernels

    table = model_of("student_t", "normal", degrees).tables()["mixing"]
    z = np.linspace(-6.0, 6.0, 4097)
    whole, place, found = np.empty(z.size), np.empty(z.size), np.empty(z.size)
    index = np.empty(z.size, np.int64)
    kernels.segments(z, table.shape[0] // 2, 46, whole, whole.view(np.int64), index, place)
    kernels.cubic(table, index, place, found)
    chi = np.where(z > 0.0, stats.chi2.isf(stats.norm.sf(z), degrees), stats.chi2.ppf(stats.norm.cdf(z), degrees))
    np.testing.assert_allclose(found, np.sqrt(degrees / chi), rtol=5e-5)
    near = np.abs(z) < 3.0
    np.testing.assert_allclose(found[near], np.sqrt(degrees / chi)[near], rtol=1e-6)


@pytest.mark.parametrize(("copula", "degrees"), [("gaussian", math.inf), ("student_t", 3.0)])
def test_joint_tails(copula, degrees):
    """Probability that both of two returns lie in their worst 1 %, against SciPy's bivariate distributions."""
    correlation = np.array([[1.0, 0.5], [0.5, 1.0]])
    model = PathModel(copula, "normal", correlation, degrees, np.zeros(2), np.full(2, 0.01), np.full(2, math.inf),
                      np.zeros((2, 10)))  # fmt: skip
    paths = drawn(model, 400_000, seed=1)
    worst = math.expm1(0.01 * stats.norm.ppf(0.01))
    found = float((paths <= worst).all(axis=0).mean())
    if copula == "gaussian":
        expected = stats.multivariate_normal([0, 0], correlation).cdf(np.full(2, stats.norm.ppf(0.01)))
    else:
        law = stats.multivariate_t([0, 0], correlation, df=degrees)
        expected = law.cdf(np.full(2, stats.t.ppf(0.01, degrees)), random_state=np.random.default_rng(0))
    assert found == pytest.approx(expected, abs=4.0 * math.sqrt(expected / 400_000) + 2e-5)


def test_normal_paths_have_the_closed_form_var():
    returns = 0.02 * history()  # so small that log and simple returns are the same
    found = risk_estimate(BOOK, returns, method="monte_carlo", copula="gaussian", margins="normal", paths=2**16,
                          sampling="sobol", level=0.99)  # fmt: skip
    model = fit_paths(returns, copula="gaussian", margins="normal")
    sigma = math.sqrt((QUANTITIES * model.scale) @ model.correlation @ (QUANTITIES * model.scale))
    law = stats.norm(-QUANTITIES @ model.location, sigma)
    assert found.var == pytest.approx(law.ppf(0.99), rel=4e-3)
    beyond = stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01
    assert found.es == pytest.approx(law.mean() + beyond * sigma, rel=4e-3)
    low, high = found.interval.var
    assert low < law.ppf(0.99) < high
    assert high - low < 0.02 * found.var


@pytest.mark.parametrize(("sampling", "at_most"), [("antithetic", 0.9), ("sobol", 0.3)])
def test_better_samplings_have_less_error(sampling, at_most):
    """Spread of the mean result over seeds, against plain draws: exactly what these samplings are for."""
    model = model_of("gaussian", "normal")

    def spread(how):
        return np.std([simulate_pnl(model, BOOK, paths=1024, seed=seed, sampling=how).mean() for seed in range(40)])

    assert spread(sampling) < at_most * spread("plain")


# -- reproducible -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("copula", "margins"), MODELS)
@pytest.mark.parametrize("sampling", ["plain", "antithetic", "sobol"])
def test_threads_change_no_bit(copula, margins, sampling):
    model = model_of(copula, margins)
    paths = 4096 if sampling == "sobol" else 5000
    one = simulate_pnl(model, BOOK, paths=paths, seed=2**64 - 1, sampling=sampling, threads=1)
    for threads in (2, 3, 7):
        assert np.array_equal(
            one, simulate_pnl(model, BOOK, paths=paths, seed=2**64 - 1, sampling=sampling, threads=threads)
        )
    again = simulate_pnl(model, BOOK, paths=paths, seed=2**64 - 1, sampling=sampling)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, simulate_pnl(model, BOOK, paths=paths, seed=1, sampling=sampling))


@given(paths=st.integers(1, 1500), more=st.integers(1, 700))
@settings(max_examples=20, deadline=None)
def test_fewer_paths_are_the_first_ones(paths, more):
    model = model_of("student_t", "empirical")
    few, many = simulate_pnl(model, BOOK, paths=paths), simulate_pnl(model, BOOK, paths=paths + more)
    assert np.array_equal(few, many[:paths])


def test_mirrored_paths_mirror():
    model = model_of("student_t", "normal")
    logs = np.log1p(drawn(model, 512, sampling="antithetic")) - model.location[:, None]
    for block in (logs[:, :256], logs[:, 256:]):
        np.testing.assert_allclose(block[:, :128], -block[:, 128:], atol=2e-6)


# -- scenario sets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("copula", "margins"), MODELS)
def test_scenarios_revalue_to_the_simulated_results(copula, margins):
    model = model_of(copula, margins)
    holdings = Holdings(
        NAMES, [3.0, -500.0, 20.0, 5.0, 0.0], [10.0, 100.0, 0.3, 50.0, 1.0],
        payoffs=["linear", "inverse", "binary", "linear", "linear"],
        deltas=[math.nan] * 3 + [0.5, math.nan], gammas=[math.nan] * 3 + [0.1, math.nan],
    )  # fmt: skip
    scenarios = draw_scenarios(model, NAMES, horizon_ns=60, paths=3000, seed=4, provenance={"window": "x"})
    pnl = simulate_pnl(model, holdings, paths=3000, seed=4)
    np.testing.assert_allclose(holdings.pnl(scenarios.returns), pnl, rtol=1e-12, atol=1e-12)
    assert isinstance(scenarios, ScenarioSet)
    assert scenarios.horizon_ns == 60
    assert scenarios.provenance["source"] == "monte carlo"
    assert scenarios.provenance["window"] == "x"
    var, es = scenario_risk(holdings, scenarios, 0.975)
    assert var == pytest.approx(value_at_risk(pnl, 0.975), rel=1e-12)
    assert es == pytest.approx(expected_shortfall(pnl, 0.975), rel=1e-12)
    order = [2, 0, 1]
    part = Holdings([NAMES[i] for i in order], holdings.quantities[order], holdings.prices[order],
                    payoffs=[holdings.payoffs[i] for i in order])  # fmt: skip
    expected = value_at_risk(part.pnl(scenarios.returns[order]), 0.975)
    assert scenario_risk(part, scenarios, 0.975)[0] == pytest.approx(expected, rel=1e-12)


def test_scenario_risk_refuses_what_it_cannot_value():
    scenarios = ScenarioSet(("a", "b"), [[0.1, -1.0], [0.1, 0.2]], 1)
    with pytest.raises(DataConversionError, match="`scenarios` must have every instrument, have none for c"):
        scenario_risk(Holdings(["c"], [1.0], [1.0]), scenarios)
    with pytest.raises(DataConversionError, match="results must be finite, was -inf in scenario 1"):
        scenario_risk(Holdings(["a"], [1.0], [1.0], payoffs=["inverse"]), scenarios)
    with pytest.raises(ConfigurationError, match="`level` must be between 0 and 1"):
        scenario_risk(Holdings(["a"], [1.0], [1.0]), scenarios, 0.0)


# -- the estimator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["plain", "antithetic", "sobol"])
def test_estimate_has_an_interval_of_sampling_error(sampling):
    options = {"method": "monte_carlo", "copula": "gaussian", "margins": "normal", "sampling": sampling, "level": 0.975}
    exact = risk_estimate(BOOK, history(), paths=2**19, seed=1, **(options | {"sampling": "sobol"}), confidence=None)
    held = 0
    for seed in range(12):
        found = risk_estimate(BOOK, history(), paths=2**12, seed=seed, confidence=0.95, **options)
        held += found.interval.var[0] <= exact.var <= found.interval.var[1]
        held += found.interval.es[0] <= exact.es <= found.interval.es[1]
        assert found.interval.method.startswith("sampling error only")
    assert held >= 18  # of 24 nominal 95 % intervals
    tiny = risk_estimate(BOOK, history(), paths=256, **options)
    if sampling != "plain":
        assert math.isnan(tiny.interval.var[0]) == (sampling == "antithetic")


def test_an_antithetic_estimate_is_that_of_its_paths():
    pnl = simulate_pnl(model_of("gaussian", "t"), BOOK, paths=3000, sampling="antithetic", seed=8)
    found = risk_estimate(BOOK, history(), method="monte_carlo", copula="gaussian", margins="t", paths=3000,
                          sampling="antithetic", seed=8, confidence=None)  # fmt: skip
    assert found.var == value_at_risk(pnl)
    assert found.es == expected_shortfall(pnl)


# -- hostile ----------------------------------------------------------------------------------------------------------


def test_singular_correlation_and_constant_instruments():
    returns = history()
    double = np.vstack((returns, returns[0], np.zeros(240)))
    for copula in ("gaussian", "student_t"):
        for margins in ("empirical", "t", "normal"):
            model = fit_paths(double, copula=copula, margins=margins)
            for sampling in ("plain", "sobol"):
                paths = drawn(model, 2048, sampling=sampling)
                np.testing.assert_allclose(paths[5], paths[0], atol=1e-4 if margins != "empirical" else 0.02)
                assert (paths[6] == 0.0).all()


def test_heavy_tails_stay_above_minus_one():
    logs = np.stack([0.5 * stats.t.rvs(1.2, size=300, random_state=seed) for seed in (1, 2)])
    returns = np.expm1(np.minimum(logs, 13.0))
    model = fit_paths(returns, margins="t", degrees=2.0)
    paths = drawn(model, 200_000)
    assert np.isfinite(paths).all()
    assert paths.min() > -1.0
    inverse = Holdings(["a", "b"], [1.0, 1.0], [1.0, 1.0], payoffs=["inverse", "inverse"])
    assert np.isfinite(simulate_pnl(model, inverse, paths=200_000)).all()


def test_a_total_loss_in_history():
    returns = history(2)
    returns[0, 5] = -1.0
    model = fit_paths(returns)
    assert drawn(model, 5000).min() == -1.0
    linear = Holdings(["a", "b"], [1.0, 1.0], [1.0, 1.0])
    assert simulate_pnl(model, linear, paths=5000).min() < -0.9
    with pytest.raises(DataConversionError, match="`returns` must be > -1 for the inverse a, held -1"):
        simulate_pnl(model, Holdings(["a", "b"], [1.0, 1.0], [1.0, 1.0], payoffs=["inverse", "linear"]), paths=10)
    with pytest.raises(DataConversionError, match=r"`returns` must be finite and > -1, was -1.0 in row 0, column 5"):
        fit_paths(returns, margins="t")


def test_bad_arguments_are_named():
    returns = history()
    for options, error, text in [
        ({"copula": "vine"}, ConfigurationError, "`copula` must be one of gaussian, student_t, was 'vine'"),
        ({"margins": "kernel"}, ConfigurationError, "`margins` must be one of empirical, t, normal"),
        ({"degrees": 0.5}, ConfigurationError, "`degrees` must be finite and >= 1"),
        ({"correlation": np.eye(4)}, DataConversionError, r"`correlation` must be finite with shape \(5, 5\)"),
        ({"correlation": np.full((5, 5), 2.0)}, DataConversionError, "ones on the diagonal"),
        ({"correlation": 1.9 * np.eye(5) - 0.9}, DataConversionError, "positive semidefinite, smallest eigenvalue"),
    ]:
        with pytest.raises(error, match=text):
            fit_paths(returns, **options)
    with pytest.raises(DataConversionError, match="with S >= 10"):
        fit_paths(returns[:, :9])
    broken = returns.copy()
    broken[1, 2] = math.nan
    with pytest.raises(DataConversionError, match="finite and >= -1, was nan in row 1, column 2"):
        fit_paths(broken)
    model = model_of("gaussian", "normal")
    for options, text in [
        ({"paths": 0}, "`paths` must be an integer >= 1, was 0"),
        ({"seed": -1}, r"`seed` must be an integer within \[0, 2\^64\), was -1"),
        ({"seed": 1.5}, "`seed` must be an integer"),
        ({"sampling": "halton"}, "`sampling` must be one of plain, antithetic, sobol"),
        ({"threads": 0}, "`threads` must be >= 1, was 0"),
        ({"paths": 1000, "sampling": "sobol"}, r"power of two with Sobol sampling, was 1000 \(1024 is the next\)"),
    ]:
        with pytest.raises(ConfigurationError, match=text):
            simulate_pnl(model, BOOK, **options)
    with pytest.raises(DataConversionError, match="`holdings` must have the 5 instruments of the model, had 1"):
        simulate_pnl(model, Holdings(["a"], [1.0], [1.0]))
    with pytest.raises(DataConversionError, match="`instrument_ids` must have 5 entries, had 1"):
        draw_scenarios(model, ("a",), horizon_ns=1)
