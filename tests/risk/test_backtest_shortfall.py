"""Tests of ES, scores, and the whole judgement of a model."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import integrate, stats

from tengri_fast.errors import DataConversionError
from tengri_fast.risk import backtest as bt
from tengri_fast.risk.backtest import shortfall
from tengri_fast.risk.backtest.judge import Judgement

NORMAL_VAR = float(stats.norm.ppf(0.975))
NORMAL_ES = float(stats.norm.pdf(NORMAL_VAR) / 0.025)


def normal_days(days: int, seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pnl = np.random.default_rng(seed).standard_normal(days) * scale
    return pnl, np.full(days, NORMAL_VAR), np.full(days, NORMAL_ES)


def test_acerbi_szekely_by_hand() -> None:
    pnl, var, es = np.array([-3.0, 1.0, -2.0, -5.0]), np.array([2.0, 2.0, 2.0, 4.0]), np.array([4.0, 3.0, 2.5, 8.0])
    z1, z2 = bt.acerbi_szekely(pnl, var, es, 0.75, simulations=0)
    total = 3.0 / 4.0 + 5.0 / 8.0
    assert z1.statistic == pytest.approx(1.0 - total / 2.0)
    assert z2.statistic == pytest.approx(1.0 - total / (4 * 0.25))
    assert z1.exact_p_value is None
    assert not z1.rejected()


@pytest.mark.parametrize(("tail", "df"), [("normal", None), ("student", 4.0), ("exponential", None)])
def test_tails_have_their_own_var_and_es(tail: shortfall.Tail, df: float | None) -> None:
    q, es, quantiles = shortfall._standard_tail(tail, 0.025, df or math.nan)
    shares = 0.025 * np.exp(shortfall._LOG_SHARES)
    if tail == "normal":
        np.testing.assert_allclose(quantiles, stats.norm.isf(shares), rtol=1e-8)
        assert es == pytest.approx(NORMAL_ES)
    elif tail == "student":
        np.testing.assert_allclose(quantiles, stats.t.isf(shares, 4.0), rtol=1e-8)
        mass = integrate.quad(lambda x: x * stats.t.pdf(x, 4.0), q, np.inf)[0]
        assert es == pytest.approx(mass / 0.025, rel=1e-8)
    else:
        np.testing.assert_allclose(quantiles, -np.log(shares / 0.025), atol=1e-9)
    assert quantiles[-1] == pytest.approx(q, abs=1e-9)
    # What the simulation draws has the ES: the mean of interpolated quantiles over uniform shares.
    u = (np.arange(200_000) + 0.5) / 200_000
    assert np.interp(np.log(u), shortfall._LOG_SHARES, quantiles).mean() == pytest.approx(es, rel=1e-3)


def test_simulated_p_value_of_a_normal_model() -> None:
    """Against a simulation of whole normal days, not of tails."""
    pnl, var, es = normal_days(500, 3)
    z1, z2 = bt.acerbi_szekely(pnl, var, es, 0.975, tail="normal", simulations=1999)
    days = np.random.default_rng(9).standard_normal((3000, 500))
    losses = np.where(-days > NORMAL_VAR, -days / NORMAL_ES, 0.0)
    count = (losses > 0).sum(axis=1)
    other2 = 1.0 - losses.sum(axis=1) / (500 * 0.025)
    other1 = 1.0 - losses.sum(axis=1)[count > 0] / count[count > 0]
    assert z2.exact_p_value == pytest.approx((other2 <= z2.statistic).mean(), abs=0.04)
    assert z1.exact_p_value == pytest.approx((other1 <= z1.statistic).mean(), abs=0.04)


def test_the_es_of_thin_tails_is_refused_for_fat_ones() -> None:
    """Student t with 3 degrees of freedom under a normal model with the right VaR: size is wrong, number is not."""
    rng = np.random.default_rng(2)
    pnl = rng.standard_t(3, 4000)
    var = np.full(4000, stats.t.isf(0.025, 3))
    sigma = float(var[0]) / NORMAL_VAR
    z1, z2 = bt.acerbi_szekely(pnl, var, np.full(4000, NORMAL_ES * sigma), 0.975, tail="normal")
    assert not bt.kupiec_pof(bt.exceptions(pnl, var), 0.975).rejected()
    assert z1.rejected()
    assert "too small" in z1.verdict
    assert z2.rejected()
    q = float(var[0])
    right = (3 + q * q) / 2 * stats.t.pdf(q, 3) / 0.025
    z1, z2 = bt.acerbi_szekely(pnl, var, np.full(4000, right), 0.975, tail="student", shape=3.0)
    assert not z1.rejected()
    assert not z2.rejected()


def test_size_of_acerbi_szekely() -> None:
    rejected = [0, 0]
    for seed in range(150):
        pnl, var, es = normal_days(400, 1000 + seed)
        for i, test in enumerate(bt.acerbi_szekely(pnl, var, es, 0.975, tail="normal", simulations=99, seed=seed)):
            rejected[i] += test.rejected(0.1)
    assert max(rejected) <= 150 * 0.1 + 4 * math.sqrt(150 * 0.09)


def test_no_exception_says_so() -> None:
    z1, z2 = bt.acerbi_szekely(np.ones(100), np.ones(100), np.full(100, 1.2), 0.99)
    assert math.isnan(z1.statistic)
    assert z1.exact_p_value is None
    assert "No exception" in z1.verdict
    assert z2.statistic == 1.0
    assert z2.exact_p_value == 1.0


def test_costanzino_curran() -> None:
    rng = np.random.default_rng(0)
    severity = np.maximum(1.0 - rng.random((4000, 1000)) / 0.025, 0.0).sum(axis=1)
    assert severity.mean() == pytest.approx(12.5, rel=0.02)
    assert severity.var() == pytest.approx(1000 * 0.025 * (4 - 0.075) / 12, rel=0.08)
    u = np.full(1000, 0.5)
    u[:20] = 0.005
    found = bt.costanzino_curran(u, 0.975)
    expected = (20 * 0.8 - 12.5) / math.sqrt(1000 * 0.025 * (4 - 0.075) / 12)
    assert found.statistic == pytest.approx(expected)
    assert found.p_value == pytest.approx(stats.norm.sf(expected))
    assert found.details["zone"] == "green"
    u[:60] = 0.001
    assert bt.costanzino_curran(u, 0.975).details["zone"] == "red"


# -- scores ------------------------------------------------------------------------------------------------------------


def test_scores_are_least_at_the_truth() -> None:
    """Mean scores over a fine normal sample as a function of the forecast: the minimum is at the true VaR and ES."""
    pnl = -stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    size = pnl.size
    grid = np.linspace(0.8, 1.2, 41)
    pinball = [bt.quantile_loss(pnl, np.full(size, NORMAL_VAR * g), 0.975).mean() for g in grid]
    assert grid[int(np.argmin(pinball))] == pytest.approx(1.0)
    joint = [
        bt.fissler_ziegel(pnl, np.full(size, NORMAL_VAR), np.full(size, NORMAL_ES * g), 0.975).mean()
        for g in grid[grid > 0.85]
    ]
    assert grid[grid > 0.85][int(np.argmin(joint))] == pytest.approx(1.0)
    by_var = [
        bt.fissler_ziegel(pnl, np.full(size, NORMAL_VAR * g), np.full(size, NORMAL_ES), 0.975).mean()
        for g in grid[grid < 1.15]
    ]
    assert grid[grid < 1.15][int(np.argmin(by_var))] == pytest.approx(1.0)


def test_scores_by_hand() -> None:
    assert bt.quantile_loss([-3.0, 1.0], [2.0, 2.0], 0.9).tolist() == pytest.approx([0.9, 0.3])
    joint = bt.fissler_ziegel([-3.0, 1.0], [2.0, 2.0], [2.5, 2.5], 0.9)
    base = 2.0 / 2.5 + math.log(2.5) - 1.0
    assert joint.tolist() == pytest.approx([1.0 / 0.25 + base, base])


def test_diebold_mariano_is_a_regression_on_a_constant() -> None:
    """statsmodels' HAC error of a mean, when it is installed; the plain t-test without lags."""
    rng = np.random.default_rng(5)
    a, b = rng.random(300), rng.random(300)
    plain = bt.diebold_mariano(a, b, lags=0)
    assert plain.statistic == pytest.approx(stats.ttest_1samp(a - b, 0.0).statistic, rel=1e-12)
    assert plain.p_value == pytest.approx(stats.ttest_1samp(a - b, 0.0).pvalue, rel=1e-9)
    api = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed")
    fitted = api.OLS(a - b, np.ones(300)).fit(cov_type="HAC", cov_kwds={"maxlags": 5, "use_correction": False})
    found = bt.diebold_mariano(a, b, lags=5)
    assert found.statistic == pytest.approx(float(fitted.tvalues[0]) * math.sqrt(299 / 300), rel=1e-9)


def test_diebold_mariano_pinned() -> None:
    """The HAC t-value of statsmodels 0.15 for this series (5 lags, no correction), times sqrt(T - 1 over T)."""
    t = np.arange(200.0)
    a, b = np.sin(t) + 0.1 * np.cos(t * t), 0.3 * np.sin(2 * t) + 0.05
    assert bt.diebold_mariano(a, b, lags=5).statistic == pytest.approx(PINNED_DM, rel=1e-9)


PINNED_DM = -3.927126792125418


def test_equal_scores_do_not_differ() -> None:
    same = bt.diebold_mariano(np.arange(20.0), np.arange(20.0))
    assert (same.statistic, same.p_value) == (0.0, 1.0)
    shifted = bt.diebold_mariano(np.arange(20.0), np.arange(20.0) + 1.0)
    assert (shifted.statistic, shifted.p_value) == (-math.inf, 0.0)
    with pytest.raises(DataConversionError, match="`first` must have at least 10 entries, had 3"):
        bt.diebold_mariano([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


# -- judgement ---------------------------------------------------------------------------------------------------------


def judged(scale: float = 1.0, days: int = 1000, level: float = 0.975) -> Judgement:
    pnl, var, es = normal_days(days, 7, scale)
    return bt.judge(bt.Forecasts("normal", level, pnl, var, es, tail="normal"), simulations=99)


def test_a_right_model_passes() -> None:
    found = judged()
    assert found.failed == ()
    assert found.zone == "green"
    assert "promises" in found.verdict
    assert [test.name for test in found.tests] == [
        "Basel traffic light", "Kupiec POF", "Binomial", "Kupiec TUFF", "Christoffersen independence",
        "Conditional coverage", "Weibull durations", "Haas mixed durations", "Dynamic quantile",
        "Acerbi-Szekely Z1", "Acerbi-Szekely Z2",
    ]  # fmt: skip
    assert found.test("Kupiec POF").rejected() is False
    with pytest.raises(KeyError):
        found.test("none")


def test_a_model_that_understates_is_told_so() -> None:
    found = judged(scale=1.6)
    assert "number" in found.failed
    assert "size" in found.failed
    assert found.zone == "red"
    assert "too low" in found.verdict
    assert found.worst_year > 20
    shares = found.zone_shares
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["red"] > 0.5


def test_a_model_that_overstates_is_told_so() -> None:
    found = judged(scale=0.5)
    assert "number" in found.failed
    assert "too high" in found.verdict
    assert found.zone == "green"


def test_few_days_are_no_proof() -> None:
    found = judged(days=60, level=0.99)
    assert "little power" in found.verdict
    assert math.isnan(found.zone_shares["green"])
    assert found.to_dict()["zone_shares"]["green"] is None


def test_a_judgement_is_json() -> None:
    record = judged().to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["exceptions"] == int(judged().forecasts.hits.sum())
    assert judged().to_dict() == record


def test_a_stretch_of_time() -> None:
    day = 86_400_000_000_000
    times = np.arange(100, dtype=np.uint64) * np.uint64(day)
    pnl = np.full(100, 0.5)
    pnl[[10, 11, 50]] = -3.0
    f = bt.Forecasts("m", 0.99, pnl, np.full(100, 2.0), np.full(100, 2.5), times)
    found = bt.period(f, 10 * day, 20 * day)
    assert (found["days"], found["exceptions"]) == (10, 2)
    assert found["worst_loss_over_var"] == pytest.approx(1.5)
    assert found["chance"] == pytest.approx(stats.binom.sf(1, 10, 0.01))
    assert bt.period(f, 200 * day, 300 * day)["chance"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"es": [1.0, 3.0]}, "`es` must be > 0 and >= `var` \\(2\\), was 1 at 0"),
        ({"var": [-2.0, -2.0], "es": [-1.0, -1.0]}, "`es` must be > 0"),
        ({"es": [math.inf, 3.0]}, "`es` must be finite, was inf at 0"),
        ({"var": [math.nan, 2.0]}, "`var` must be finite, was nan at 0"),
        ({"pnl": []}, "`pnl` must be one-dimensional and not empty"),
        ({"times": [5, 5]}, "`times` must rise, was 5 after 5 at 1"),
        ({"times": [5]}, "`times` must be integers, as many as `pnl`"),
        ({"times": [1.5, 2.5]}, "`times` must be integers"),
        ({"level": 0.3}, "`level` must be between 0.5 and 1, was 0.3"),
        ({"tail": "cauchy"}, "`tail` must be one of normal, student, pareto, exponential, was 'cauchy'"),
    ],
)
def test_bad_forecasts(change: dict[str, object], message: str) -> None:
    fields = {"method": "m", "level": 0.99, "pnl": [0.1, -0.1], "var": [2.0, 2.0], "es": [2.5, 3.0], **change}
    with pytest.raises(DataConversionError, match=message):
        bt.Forecasts(**fields)


def test_a_student_tail_needs_its_degrees_of_freedom() -> None:
    pnl, var, es = normal_days(50, 1)
    for df in (None, 1.0, math.nan, math.inf):
        with pytest.raises(DataConversionError, match="`shape` must be finite and > 1 for the student tail"):
            bt.acerbi_szekely(pnl, var, es, 0.975, tail="student", shape=df)
