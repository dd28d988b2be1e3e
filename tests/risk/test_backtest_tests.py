"""Tests of VaR: published numbers, SciPy, and every sequence there is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from tengri_fast.errors import DataConversionError
from tengri_fast.risk import backtest as bt
from tengri_fast.risk.backtest import _special as special
from tengri_fast.risk.backtest.coverage import pof_ratio
from tengri_fast.risk.backtest.independence import independence_ratio
from tengri_fast.risk.backtest.result import TestResult


def published() -> np.ndarray:
    """1,043 days with 57 exceptions: the first on day 58, four of them the day after another."""
    at = [57 + 16 * k for k in range(53)]
    hits = np.zeros(1043, dtype=bool)
    hits[at + [k + 1 for k in at[:4]]] = True
    return hits


def sequences(days: int) -> np.ndarray:
    return np.array(list(itertools.product((False, True), repeat=days)))


# -- distributions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 57, 58, 301])
def test_chi_square(df: int) -> None:
    for x in (0.0, 1e-8, 0.3, 1.0, 3.84, 20.0, float(df), 2.0 * df, 900.0):
        assert special.chi2_sf(x, df) == pytest.approx(stats.chi2.sf(x, df), rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("df", [1.0, 1.5, 4.0, 30.0, 8000.0])
def test_student(df: float) -> None:
    for t in (-5.0, -0.1, 0.0, 0.3, 2.0, 12.0):
        assert special.student_sf(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-10)


@pytest.mark.parametrize(("n", "p"), [(1, 0.01), (250, 0.01), (1043, 0.05), (8000, 0.025)])
def test_binomial_masses(n: int, p: float) -> None:
    found = special.binomial_pmf(n, p)
    assert found.sum() == pytest.approx(1.0, abs=1e-9)
    np.testing.assert_allclose(found, stats.binom.pmf(np.arange(n + 1), n, p), rtol=1e-8, atol=1e-300)


# -- published numbers -------------------------------------------------------------------------------------------------


def test_the_published_example() -> None:
    """MATLAB's varbacktest documentation, EquityIndex with Normal95, as printed there."""
    hits = published()
    light = bt.traffic_light(hits, 0.95)
    assert (round(light.statistic, 5), light.details["zone"]) == (0.77913, "green")
    assert round(light.exact_p_value or 0.0, 5) == 0.26396  # printed as TypeI
    pof = bt.kupiec_pof(hits, 0.95)
    assert (round(pof.statistic, 5), round(pof.p_value or 0.0, 5)) == (0.46147, 0.49694)
    tuff = bt.kupiec_tuff(hits, 0.95)
    assert (round(tuff.statistic, 4), round(tuff.p_value or 0.0, 5)) == (1.7354, 0.18773)
    binomial = bt.binomial_test(hits, 0.95)
    assert (round(binomial.statistic, 5), round(binomial.p_value or 0.0, 5)) == (0.68905, 0.49079)
    assert bt.transitions(hits) == (932, 53, 53, 4)
    independent = bt.christoffersen_independence(hits)
    assert (round(independent.statistic, 5), round(independent.p_value or 0.0, 5)) == (0.25866, 0.61104)
    both = bt.conditional_coverage(hits, 0.95)
    assert (round(both.statistic, 5), round(both.p_value or 0.0, 5)) == (0.72013, 0.69763)
    # Its data are not public; its p-values of the two tests of Haas follow from their printed statistics.
    assert special.chi2_sf(88.491, 57) == pytest.approx(0.0047475, rel=2e-4)
    assert special.chi2_sf(88.952, 58) == pytest.approx(0.0055565, rel=2e-4)


def test_basel_zones_of_250_days() -> None:
    for x in range(16):
        light = bt.traffic_light(np.arange(250) < x, 0.99)
        assert light.details["zone"] == ("green" if x <= 4 else "yellow" if x <= 9 else "red")
        assert light.statistic == pytest.approx(stats.binom.cdf(x, 250, 0.01), rel=1e-9)
        assert light.details["plus_factor"] == (0, 0, 0, 0, 0, 0.4, 0.5, 0.65, 0.75, 0.85, 1.0)[min(x, 10)]
        assert light.details["multiplier"] == ((1.5,) * 5 + (1.7, 1.76, 1.83, 1.88, 1.92, 2.0))[min(x, 10)]
    assert bt.traffic_light(np.zeros(251, bool), 0.99).details["plus_factor"] is None
    assert bt.traffic_light(np.zeros(250, bool), 0.975).details["multiplier"] is None


def test_rolling_zones_are_the_light_of_each_stretch() -> None:
    hits = np.random.default_rng(5).random(600) < 0.025
    zones = bt.rolling_zones(hits, 0.99, 250)
    assert (zones[:249] == -1).all()
    names = ("green", "yellow", "red")
    for end in range(249, 600, 7):
        assert names[zones[end]] == bt.traffic_light(hits[end - 249 : end + 1], 0.99).details["zone"]
    assert len(set(zones.tolist())) >= 3
    assert (bt.rolling_zones(hits[:100], 0.99, 250) == -1).all()


# -- exact p-values ----------------------------------------------------------------------------------------------------


def ratios_of(every: np.ndarray, level: float) -> dict[str, np.ndarray]:
    """Statistics of all rows at once, from the counts of each row."""
    days = every.shape[1]
    before, after = every[:, :-1], every[:, 1:]
    counts = [(left & right).sum(axis=1) for left in (~before, before) for right in (~after, after)]
    chain = independence_ratio(*counts)
    number = pof_ratio(every.sum(axis=1), days, 1.0 - level)
    return {"pof": number, "ind": chain, "cc": number + chain}


@pytest.mark.parametrize(("days", "level"), [(1, 0.99), (2, 0.9), (3, 0.55), (7, 0.99), (7, 0.7), (12, 0.9)])
def test_exact_p_values_against_every_sequence(days: int, level: float) -> None:
    """All 2^T sequences with their probability: the tail sum of the statistic is the p-value."""
    every = sequences(days)
    p = 1.0 - level
    x = every.sum(axis=1)
    chance = p**x * (1.0 - p) ** (days - x)
    statistics = ratios_of(every, level)
    statistics["tuff"] = np.array([bt.kupiec_tuff(row, level).statistic for row in every])
    tests = {"pof": bt.kupiec_pof, "tuff": bt.kupiec_tuff, "cc": bt.conditional_coverage}
    # Rows with the same counts and the same first exception have the same answers.
    first = np.where(every.any(axis=1), every.argmax(axis=1), days)
    keys = np.column_stack([x, first, every[:, 0], every[:, -1], (every[:, :-1] & every[:, 1:]).sum(axis=1)])
    rows = np.unique(keys, axis=0, return_index=True)[1].tolist()
    assert len(rows) >= days
    for row in rows:
        for name, test in tests.items():
            found, all_values = test(every[row], level), statistics[name]
            assert found.statistic == pytest.approx(all_values[row], rel=1e-12, abs=1e-12)
            extreme = all_values >= found.statistic - 1e-9 * (1.0 + found.statistic)
            assert found.exact_p_value == pytest.approx(chance[extreme].sum(), abs=1e-12), name
        found = bt.christoffersen_independence(every[row])
        extreme = (x == x[row]) & (statistics["ind"] >= found.statistic - 1e-9 * (1.0 + found.statistic))
        assert found.exact_p_value == pytest.approx(extreme.sum() / (x == x[row]).sum(), abs=1e-12)


def test_exact_binomial_is_scipys() -> None:
    for days, level in ((250, 0.99), (500, 0.975), (60, 0.9)):
        for x in (0, 1, 2, 5, 11, 30):
            found = bt.binomial_test(np.arange(days) < x, level)
            assert found.exact_p_value == pytest.approx(stats.binomtest(x, days, 1 - level).pvalue, rel=1e-9)


def test_exact_conditional_coverage_against_simulation() -> None:
    """250 days at 99 %: where the chi-square is known to be poor."""
    rng = np.random.default_rng(11)
    samples = rng.random((4000, 250)) < 0.01
    values = ratios_of(samples, 0.99)["cc"]
    for x, together in ((4, 0), (6, 1), (3, 2)):
        hits = np.zeros(250, bool)
        hits[10 : 10 + 12 * x : 12] = True
        hits[11 : 11 + 12 * together : 12] = True
        found = bt.conditional_coverage(hits, 0.99)
        assert found.exact_p_value == pytest.approx((values >= found.statistic - 1e-9).mean(), abs=0.015)


@pytest.mark.parametrize("days", [1, 5, 250])
@pytest.mark.parametrize("level", [0.6, 0.99])
@pytest.mark.parametrize("all_of_them", [False, True])
def test_no_exception_and_nothing_else(days: int, level: float, all_of_them: bool) -> None:
    """0 ln 0: the closed forms of the likelihood ratios at the edges."""
    hits = np.full(days, all_of_them)
    p = 1.0 - level
    edge = -2.0 * days * math.log(p if all_of_them else 1.0 - p)
    assert bt.kupiec_pof(hits, level).statistic == pytest.approx(edge, rel=1e-12)
    expected = -2.0 * math.log(p) if all_of_them else edge
    assert bt.kupiec_tuff(hits, level).statistic == pytest.approx(expected, rel=1e-12)
    assert bt.christoffersen_independence(hits).statistic == 0.0
    assert bt.christoffersen_independence(hits).exact_p_value == pytest.approx(1.0)
    assert bt.conditional_coverage(hits, level).statistic == pytest.approx(edge, rel=1e-12)
    for test in (bt.haas_durations(hits, level, simulations=99), bt.traffic_light(hits, level)):
        assert math.isfinite(test.statistic)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.sampled_from([0.9, 0.975, 0.99]))
@settings(max_examples=60, deadline=None)
def test_laws_of_the_ratios(values: list[bool], level: float) -> None:
    hits = np.array(values)
    tests = [
        bt.kupiec_pof(hits, level),
        bt.kupiec_tuff(hits, level),
        bt.christoffersen_independence(hits),
        bt.conditional_coverage(hits, level),
        bt.binomial_test(hits, level),
    ]
    for test in tests:
        assert test.p_value is not None
        assert test.exact_p_value is not None
        assert 0.0 <= test.p_value <= 1.0
        assert 0.0 < test.exact_p_value <= 1.0 + 1e-12
        assert math.isfinite(test.statistic)
    assert tests[3].statistic == pytest.approx(tests[0].statistic + tests[2].statistic)
    # Backwards in time the number and the pairs of a chain stay what they are, apart from the direction.
    turned = bt.christoffersen_independence(hits[::-1])
    n00, n01, n10, n11 = bt.transitions(hits)
    assert bt.transitions(hits[::-1]) == (n00, n10, n01, n11)
    assert turned.details["n11"] == n11


def test_clusters_are_seen_and_named() -> None:
    hits = np.zeros(1000, dtype=bool)
    hits[[300, 301, 302, 303, 304, 700, 701, 702, 703, 704]] = True
    found = bt.christoffersen_independence(hits)
    assert found.rejected()
    assert "cluster" in found.verdict
    assert not bt.kupiec_pof(hits, 0.99).rejected()
    assert bt.conditional_coverage(hits, 0.99).rejected()
    weibull = bt.weibull_durations(hits)
    assert weibull.rejected()
    assert weibull.details["shape"] < 1.0
    assert bt.haas_durations(hits, 0.99).rejected()
    regular = bt.weibull_durations(np.arange(1000) % 100 == 50)
    assert regular.rejected()
    assert "regular" in regular.verdict


# -- durations ---------------------------------------------------------------------------------------------------------


def weibull_by_scipy(hits: np.ndarray) -> tuple[float, float]:
    """Ratio and shape by two-dimensional search on the likelihood as it stands in the paper."""
    at = np.flatnonzero(hits)
    length = [(float(d), True) for d in np.diff(at)]
    if at[0] > 0:
        length.append((float(at[0] + 1), False))
    if at[-1] < hits.size - 1:
        length.append((float(hits.size - 1 - at[-1]), False))

    def likelihood(log_a: float, log_b: float) -> float:
        a, b = math.exp(log_a), math.exp(log_b)
        total = 0.0
        for d, complete in length:
            total += -((a * d) ** b)
            if complete:
                total += b * log_a + log_b + (b - 1.0) * math.log(d)
        return total

    start = np.array([math.log(hits.mean()), 0.0])
    best = optimize.minimize(
        lambda z: -likelihood(z[0], z[1]), start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    single = optimize.minimize_scalar(lambda a: -likelihood(a, 0.0), bounds=(-12, 2), options={"xatol": 1e-10},
                                      method="bounded")  # fmt: skip
    return 2.0 * (single.fun - best.fun), math.exp(best.x[1])


@pytest.mark.parametrize("seed", range(4))
def test_weibull_is_the_maximum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hits = rng.random(400) < 0.05
    hits[0] = seed == 1  # starts and ends with an exception: nothing is censored there
    hits[-1] = seed == 2
    found = bt.weibull_durations(hits, simulations=0)
    ratio, shape = weibull_by_scipy(hits)
    assert found.statistic == pytest.approx(ratio, abs=1e-6)
    assert found.details["shape"] == pytest.approx(shape, rel=1e-4)
    assert found.exact_p_value is None


def test_weibull_needs_three_exceptions() -> None:
    found = bt.weibull_durations(np.arange(100) % 50 == 10)
    assert math.isnan(found.statistic)
    assert (found.p_value, found.exact_p_value, found.rejected()) == (None, None, False)
    assert found.to_dict()["statistic"] is None


def test_haas_is_a_sum_of_first_failures() -> None:
    hits = np.zeros(200, dtype=bool)
    hits[[4, 30, 31, 120]] = True
    expected = 0.0
    for v in (5, 26, 1, 89):
        expected += bt.kupiec_tuff(np.arange(v) == v - 1, 0.95).statistic
    alone = bt.haas_durations(hits, 0.95, mixed=False, simulations=0)
    assert alone.statistic == pytest.approx(expected, rel=1e-12)
    assert alone.p_value == pytest.approx(stats.chi2.sf(expected, 4), rel=1e-10)
    mixed = bt.haas_durations(hits, 0.95, simulations=0)
    assert mixed.statistic == pytest.approx(expected + bt.kupiec_pof(hits, 0.95).statistic, rel=1e-12)
    assert mixed.p_value == pytest.approx(stats.chi2.sf(mixed.statistic, 5), rel=1e-10)


# -- dynamic quantile --------------------------------------------------------------------------------------------------


def test_dynamic_quantile_is_the_explained_sum_of_squares() -> None:
    """Engle and Manganelli's form and the regression's own: DQ p (1 - p) is what the regressors explain of the hits."""
    rng = np.random.default_rng(4)
    hits, var, extra = rng.random(700) < 0.05, rng.random(700) + 1.0, rng.random((700, 2))
    found = bt.dynamic_quantile(hits, var, 0.95, lags=3, extra=extra, simulations=0)
    y = hits - 0.05
    x = np.column_stack([np.ones(697), var[3:], extra[3:], y[2:-1], y[1:-2], y[:-3]])
    beta, _, rank, _ = np.linalg.lstsq(x, y[3:], rcond=None)
    fitted = x @ beta
    assert found.statistic == pytest.approx(fitted @ fitted / (0.05 * 0.95), rel=1e-9)
    assert found.details["degrees_of_freedom"] == rank == 7
    assert found.p_value == pytest.approx(stats.chi2.sf(found.statistic, 7), rel=1e-9)


def test_dynamic_quantile_without_information() -> None:
    """A constant VaR is the constant again; a sample without exceptions has constant lags."""
    hits = np.random.default_rng(2).random(500) < 0.05
    assert bt.dynamic_quantile(hits, np.full(500, 0.02), 0.95, simulations=0).details["degrees_of_freedom"] == 5
    quiet = bt.dynamic_quantile(np.zeros(500, bool), np.full(500, 0.02), 0.95, simulations=0)
    assert quiet.details["degrees_of_freedom"] == 1
    assert quiet.statistic == pytest.approx(496 * 0.05**2 / (0.05 * 0.95), rel=1e-9)


def test_scale_of_the_var_does_not_matter() -> None:
    rng = np.random.default_rng(8)
    hits, var = rng.random(400) < 0.05, rng.random(400) + 0.5
    small = bt.dynamic_quantile(hits, var * 1e-4, 0.95, simulations=0)
    large = bt.dynamic_quantile(hits, var * 1e9, 0.95, simulations=0)
    assert small.statistic == pytest.approx(large.statistic, rel=1e-9)


def test_a_var_that_knows_too_little_is_caught() -> None:
    """Volatility that doubles for stretches, and a VaR that does not follow: order and foresight reject."""
    rng = np.random.default_rng(6)
    sigma = np.where((np.arange(2000) // 100) % 2 == 0, 0.5, 1.5)
    pnl = rng.standard_normal(2000) * sigma
    flat = np.full(2000, float(np.quantile(-pnl, 0.95)))
    hits = bt.exceptions(pnl, flat)
    assert not bt.kupiec_pof(hits, 0.95).rejected()
    assert bt.dynamic_quantile(hits, flat + 1e-3 * rng.random(2000), 0.95, simulations=199).rejected()
    right = 1.6448536 * sigma
    assert not bt.dynamic_quantile(bt.exceptions(pnl, right), right, 0.95, simulations=199).rejected(0.01)


# -- size --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "test",
    [
        lambda hits, seed: bt.weibull_durations(hits, simulations=39, seed=seed),
        lambda hits, seed: bt.haas_durations(hits, 0.95, simulations=39, seed=seed),
        lambda hits, seed: bt.dynamic_quantile(hits, np.linspace(1, 2, 250), 0.95, simulations=39, seed=seed),
        lambda hits, seed: bt.christoffersen_independence(hits),
        lambda hits, seed: bt.conditional_coverage(hits, 0.95),
        lambda hits, seed: bt.kupiec_tuff(hits, 0.95),
    ],
)
def test_a_right_model_is_rarely_rejected(test: Callable[[np.ndarray, int], TestResult]) -> None:
    """Exact p-values: at most 10 % of right models below 0.1, within four standard errors."""
    samples = np.random.default_rng(17).random((120, 250)) < 0.05
    rejected = np.mean([test(row, seed).rejected(0.1) for seed, row in enumerate(samples)])
    assert rejected <= 0.1 + 4.0 * math.sqrt(0.09 / 120)


def test_a_simulated_p_value_repeats() -> None:
    hits = np.random.default_rng(1).random(500) < 0.03
    assert bt.weibull_durations(hits, seed=3) == bt.weibull_durations(hits, seed=3)
    assert bt.haas_durations(hits, 0.97, seed=3) == bt.haas_durations(hits, 0.97, seed=3)
    assert bt.weibull_durations(hits, seed=3).exact_p_value != bt.weibull_durations(hits, seed=4).exact_p_value


# -- hostile -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "level", "message"),
    [
        ([], 0.99, "`hits` must be one-dimensional and not empty, had shape \\(0,\\)"),
        ([[True]], 0.99, "had shape \\(1, 1\\)"),
        ([0, 2], 0.99, "`hits` must be booleans, or 0 and 1"),
        ([0.0, math.nan], 0.99, "`hits` must be booleans"),
        (["a"], 0.99, "`hits` must be booleans"),
        ([True], 1.0, "`level` must be between 0.5 and 1, was 1.0"),
        ([True], 0.01, "`level` must be between 0.5 and 1, was 0.01"),
        ([True], math.nan, "`level` must be between 0.5 and 1, was nan"),
        ([True], True, "`level` must be between 0.5 and 1, was True"),
        ([True], "99", "`level` must be between 0.5 and 1, was '99'"),
    ],
)
def test_bad_arguments(hits: list[object], level: float, message: str) -> None:
    for test in (bt.kupiec_pof, bt.kupiec_tuff, bt.binomial_test, bt.traffic_light, bt.conditional_coverage):
        with pytest.raises(DataConversionError, match=message):
            test(hits, level)


def test_bad_settings() -> None:
    hits = np.zeros(100, dtype=bool)
    with pytest.raises(DataConversionError, match="`simulations` must be 0 or an integer >= 19, was 5"):
        bt.weibull_durations(hits, simulations=5)
    with pytest.raises(DataConversionError, match="`window` must be an integer >= 1, was 0"):
        bt.rolling_zones(hits, 0.99, 0)
    with pytest.raises(DataConversionError, match="`lags` must be an integer >= 0, was -1"):
        bt.dynamic_quantile(hits, np.ones(100), 0.99, lags=-1)
    with pytest.raises(DataConversionError, match="`hits` must have more than 12 entries for 4 lags, had 12"):
        bt.dynamic_quantile(hits[:12], np.ones(12), 0.99)
    with pytest.raises(DataConversionError, match="`var` must have 100 entries, had 99"):
        bt.dynamic_quantile(hits, np.ones(99), 0.99)
    with pytest.raises(DataConversionError, match="`extra` must be finite"):
        bt.dynamic_quantile(hits, np.ones(100), 0.99, extra=np.full(100, np.nan))
    with pytest.raises(DataConversionError, match="`pnl` must be finite, was nan at 1"):
        bt.exceptions([0.0, math.nan], 1.0)
    with pytest.raises(DataConversionError, match="`pnl` must be numbers, had dtype <U1"):
        bt.exceptions(["a"], 1.0)


def test_a_loss_that_equals_the_var_is_no_exception() -> None:
    assert bt.exceptions([-1.0, -1.0000001, 2.0], 1.0).tolist() == [False, True, False]
