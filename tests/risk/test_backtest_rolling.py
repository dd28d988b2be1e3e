"""The walk forward: no look-ahead, the numbers of the estimators, and what goes in."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import REPOSITORY, shared_data

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import backtest as bt
from tengri_fast.risk.backtest import methods as fast
from tengri_fast.risk.estimators import peaks_over_threshold, risk_estimate
from tengri_fast.risk.garch import filter_variance, fit_garch

COMMITTED = REPOSITORY / "bench" / "results" / "committed" / "var_backtest.json"
DAY = 86_400_000_000_000
WINDOW = 300


def clustered(days: int, seed: int = 1) -> np.ndarray:
    """Returns of a GARCH(1,1) with Student innovations: clusters and fat tails."""
    rng = np.random.default_rng(seed)
    out, variance = np.empty(days), 1e-4
    for t in range(days):
        out[t] = math.sqrt(variance) * rng.standard_t(5) * math.sqrt(0.6)
        variance = 2e-6 + 0.10 * out[t] ** 2 + 0.88 * variance
    return np.maximum(out, -0.9)


RETURNS = clustered(420)


@pytest.mark.parametrize("name", list(bt.METHODS))
def test_no_look_ahead(name: str) -> None:
    """Whatever comes from a day on, forecasts up to and including that day are the same to the last bit."""
    cut = WINDOW + 60
    whole = bt.rolling_forecasts(RETURNS, name, level=0.975, window=WINDOW)
    assert whole.var.shape == whole.es.shape == (RETURNS.size - WINDOW,)
    other = RETURNS.copy()
    other[cut:] = -0.5 * other[cut:] - 0.2
    changed = bt.rolling_forecasts(other, name, level=0.975, window=WINDOW)
    short = bt.rolling_forecasts(RETURNS[: cut + 1], name, level=0.975, window=WINDOW)
    for forecasts in (changed.var, short.var):
        np.testing.assert_array_equal(forecasts[: cut - WINDOW + 1], whole.var[: cut - WINDOW + 1])
    for forecasts in (changed.es, short.es):
        np.testing.assert_array_equal(forecasts[: cut - WINDOW + 1], whole.es[: cut - WINDOW + 1])
    # And what came does matter for the days after it.
    assert not np.array_equal(changed.var[-1:], whole.var[-1:])


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("historical", "historical", {}),
        ("age_weighted", "age_weighted", {}),
        ("filtered", "filtered", {}),
        ("normal", "normal", {"mean": "sample"}),
        ("ewma", "normal", {"covariance": "ewma"}),
        ("cornish_fisher", "cornish_fisher", {"outside": "report"}),
        ("peaks_over_threshold", "peaks_over_threshold", {}),
    ],
)
@pytest.mark.parametrize("level", [0.99, 0.975])
def test_the_numbers_of_the_estimators(name: str, method: str, options: dict[str, Any], level: float) -> None:
    """All windows at once give what one window at a time gives."""
    walk = bt.rolling_forecasts(RETURNS, name, level=level, window=WINDOW, refit=1)
    for day in (0, 1, 17, 60, RETURNS.size - WINDOW - 1):
        window = RETURNS[day : day + WINDOW]
        found = risk_estimate(window, method=method, level=level, confidence=None, **options)
        assert walk.var[day] == pytest.approx(found.var, rel=1e-9)
        assert walk.es[day] == pytest.approx(max(found.es, found.var), rel=1e-9)


def test_student_with_its_degrees_of_freedom() -> None:
    walk = bt.rolling_forecasts(RETURNS, "student_t", level=0.99, window=WINDOW, refit=1)
    assert walk.shape is not None
    for day in (0, 50):
        window = RETURNS[day : day + WINDOW]
        degrees = float(walk.shape[day])
        found = risk_estimate(
            window, method="student_t", level=0.99, confidence=None, mean="sample", degrees=degrees
        )  # fmt: skip
        assert walk.var[day] == pytest.approx(found.var, rel=1e-8)
        assert walk.es[day] == pytest.approx(found.es, rel=1e-8)


def test_garch_is_refitted_and_filtered() -> None:
    walk = bt.rolling_forecasts(RETURNS, "garch", level=0.99, window=WINDOW, refit=30)
    z, tail = fast.normal_factors(0.99)
    for day in (0, 29, 30, 71):
        fitted_on = day // 30 * 30
        params = fit_garch(RETURNS[fitted_on : fitted_on + WINDOW])
        sigma = math.sqrt(filter_variance(RETURNS[fitted_on : day + WINDOW], params)[-1])
        assert walk.var[day] == pytest.approx(z * sigma - params.mean, rel=1e-12)
        assert walk.es[day] == pytest.approx(tail * sigma - params.mean, rel=1e-12)


def test_extreme_tail_on_what_garch_leaves() -> None:
    walk = bt.rolling_forecasts(RETURNS, "garch_peaks", level=0.99, window=WINDOW, refit=30)
    params = fit_garch(RETURNS[:WINDOW])
    variances = filter_variance(RETURNS[:WINDOW], params)
    standardised = (RETURNS[:WINDOW] - params.mean) / np.sqrt(variances[:-1])
    model = peaks_over_threshold(standardised, level=0.99)
    var, es = model.risk()
    sigma = math.sqrt(variances[-1])
    assert walk.var[0] == pytest.approx(var * sigma - params.mean, rel=1e-9)
    assert walk.es[0] == pytest.approx(es * sigma - params.mean, rel=1e-9)
    assert walk.shape is not None
    assert walk.shape[0] == pytest.approx(model.details["xi"], rel=1e-6)


def test_ewma_recursion_does_not_drift() -> None:
    """After thousands of steps through a crash, the sum that is moved along is the sum of the window."""
    returns = clustered(6000, 3)
    returns[1000] = -0.6
    walk = bt.rolling_forecasts(returns, "ewma", level=0.99, window=100)
    weights = 0.94 ** np.arange(99, -1, -1.0)
    weights /= weights.sum()
    for day in (900, 901, 1000, 1001, 3000, 5899):
        sigma = math.sqrt(weights @ returns[day : day + 100] ** 2)
        assert walk.var[day] == pytest.approx(fast.normal_factors(0.99)[0] * sigma, rel=1e-9)


def test_monte_carlo_of_a_portfolio() -> None:
    rng = np.random.default_rng(4)
    panel = 0.01 * (rng.standard_t(4, (3, 400)) + rng.standard_t(4, 400))
    method = bt.monte_carlo_method(panel, paths=4096, refit=40)
    walk = bt.rolling_forecasts(panel.mean(axis=0), method, level=0.975, window=300)
    history = bt.rolling_forecasts(panel.mean(axis=0), "historical", level=0.975, window=300)
    np.testing.assert_allclose(walk.var, history.var, rtol=0.35)
    again = bt.rolling_forecasts(panel.mean(axis=0), method, level=0.975, window=300)
    np.testing.assert_array_equal(walk.var, again.var)
    with pytest.raises(DataConversionError, match="mean of the panel"):
        bt.rolling_forecasts(panel[0], method, level=0.975, window=300)


def test_own_method_sees_its_window_and_cannot_change_it() -> None:
    seen: list[np.ndarray] = []

    def mine(window: np.ndarray) -> tuple[float, float]:
        seen.append(window)
        with pytest.raises(ValueError, match="read-only"):
            window[0] = 0.0
        return float(-window.min()), float(-1.2 * window.min())

    found = bt.rolling_var_backtest(RETURNS, {"worst": mine}, 0.99, WINDOW, simulations=0)["worst"]
    assert len(seen) == RETURNS.size - WINDOW
    np.testing.assert_array_equal(seen[7], RETURNS[7 : 7 + WINDOW])
    assert found.forecasts.var[7] == -RETURNS[7 : 7 + WINDOW].min()
    np.testing.assert_array_equal(found.forecasts.pnl, RETURNS[WINDOW:])


def test_a_short_position_is_the_mirror() -> None:
    long = bt.rolling_var_backtest(RETURNS, ["historical"], 0.975, WINDOW, simulations=0)["historical"]
    short = bt.rolling_var_backtest(-RETURNS, ["historical"], 0.975, WINDOW, side="short", simulations=0)["historical"]
    np.testing.assert_array_equal(long.forecasts.var, short.forecasts.var)
    np.testing.assert_array_equal(long.forecasts.hits, short.forecasts.hits)


def test_a_short_position_can_lose_more_than_everything() -> None:
    returns = RETURNS.copy()
    returns[400] = 1.8
    found = bt.rolling_var_backtest(returns, ["historical"], 0.975, WINDOW, side="short", simulations=0)["historical"]
    assert found.forecasts.pnl[400 - WINDOW] == -1.8


def test_all_methods_together() -> None:
    times = (np.arange(RETURNS.size) * DAY).astype(np.uint64)
    found = bt.rolling_var_backtest(RETURNS, None, 0.975, WINDOW, times=times, simulations=19)
    assert list(found) == list(bt.METHODS)
    for name, judgement in found.items():
        assert judgement.forecasts.pnl.size == RETURNS.size - WINDOW
        assert judgement.forecasts.times is not None
        assert judgement.forecasts.times[0] == WINDOW * DAY, name
        json.dumps(judgement.to_dict(), allow_nan=False)
    assert found["garch_student_t"].forecasts.tail in ("student", "normal")
    assert found["peaks_over_threshold"].forecasts.tail == "pareto"
    again = bt.rolling_var_backtest(RETURNS, ["garch_student_t"], 0.975, WINDOW, times=times, simulations=19)
    assert again["garch_student_t"].to_dict() == found["garch_student_t"].to_dict()


def test_a_right_model_on_its_own_data_is_green_and_a_wrong_one_is_not() -> None:
    """2,000 days of GARCH with Student innovations: the model that knows passes, the flat normal one does not."""
    returns = clustered(2500, 8)
    found = bt.rolling_var_backtest(returns, ["garch_student_t", "normal"], 0.99, 500, simulations=199)
    assert found["garch_student_t"].zone == "green"
    assert "number" not in found["garch_student_t"].failed
    assert found["normal"].zone != "green"
    assert "number" in found["normal"].failed
    assert found["garch_student_t"].joint_score < found["normal"].joint_score


def test_the_index_through_two_crises() -> None:
    """S&P 500, 1990 to 2022: plain history fails in 2008 and filtered history does not."""
    path = shared_data("daily", "sp500_index_1990_2022.csv.gz")
    table = bt.read_table(path)
    times, returns, notes = bt.price_returns(table.times, table.column("SP500"))
    assert notes == []
    assert returns.size == 8312
    found = bt.rolling_var_backtest(returns, ["historical", "filtered"], 0.99, 500, times=times, simulations=0)
    crisis = {
        name: bt.period(judgement.forecasts, 14_123 * DAY, 14_335 * DAY) for name, judgement in found.items()
    }  # fmt: skip
    assert crisis["historical"]["exceptions"] > 10
    assert crisis["filtered"]["exceptions"] < 6
    assert found["historical"].zone == "red"
    assert found["historical"].worst_year > found["filtered"].worst_year
    committed = json.loads(COMMITTED.read_text())
    part = next(part for part in committed["sets"] if part["set"] == "sp500")
    assert part["facts"]["SHA-256"] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    for row in part["results"]:
        if row["level"] == 0.99 and row["method"] in found:
            judgement = found[row["method"]]
            assert row["exceptions"] == int(judgement.forecasts.hits.sum())
            assert row["worst_year"] == judgement.worst_year
            assert row["joint_score"] == pytest.approx(judgement.joint_score, rel=1e-9)
            for name in ("Kupiec POF", "Christoffersen independence", "Conditional coverage"):
                assert row["p"][name] == pytest.approx(judgement.test(name).exact_p_value, rel=1e-6, abs=1e-12)


def bench() -> Any:
    spec = importlib.util.spec_from_file_location("var_backtest", REPOSITORY / "bench" / "var_backtest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_shows_the_committed_results() -> None:
    record = json.loads(COMMITTED.read_text())
    text = (REPOSITORY / "docs" / "risk_backtest.md").read_text()
    assert bench().tables(record) in text
    assert list(record["refit_days"]) == list(bt.METHODS)


def test_the_reading_of_the_document_holds() -> None:
    """What docs/risk_backtest.md concludes, asked of the committed numbers."""
    sets = json.loads(COMMITTED.read_text())["sets"]
    rows = {(part["set"], row["method"], row["level"]): row for part in sets for row in part["results"]}
    names = [part["set"] for part in sets]
    assert len(names) == 5
    assert all(row["failed"] for row in rows.values())
    assert all(row["p"]["Dynamic quantile"] < 0.05 for row in rows.values())
    plain = [rows[name, "historical", 0.99] for name in names]
    assert sorted(row["zone"] for row in plain) == ["red"] * 4 + ["yellow"]
    assert all(row["p"]["Christoffersen independence"] < 0.05 for row in plain)
    for name in names:
        for method in ("filtered", "filtered_garch"):
            assert rows[name, method, 0.975]["zone"] == "green"
            assert rows[name, method, 0.975]["p"]["Kupiec POF"] >= 0.05
            assert 1.19 < rows[name, method, 0.99]["exceptions"] / rows[name, method, 0.99]["expected"] < 1.46
        for method in ("ewma", "garch"):
            assert rows[name, method, 0.99]["zone"] == "red"
        assert rows[name, "cornish_fisher", 0.99]["zone"] == "green"
        assert rows[name, "cornish_fisher", 0.99]["p"]["Weibull durations"] < 0.05
        for level in (0.99, 0.975):
            assert rows[name, "filtered", level]["p"]["Acerbi-Szekely Z1"] >= 0.05
            scores = {key[1]: row["joint_score"] for key, row in rows.items() if key[0] == name and key[2] == level}
            assert min(scores, key=lambda method: scores[method]) in ("filtered", "filtered_garch", "garch_peaks")
    for part in sets:
        for row in part["comparison"]:
            assert row["method"] != "garch_peaks" or row["best"] or row["p_value"] >= 0.05


# -- hostile -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"methods": ["histrical"]}, ConfigurationError, "`method` must be one of historical, .* was 'histrical'"),
        ({"methods": []}, ConfigurationError, "`methods` must name at least one"),
        ({"window": 10}, ConfigurationError, "`window` must be an integer >= 50, was 10"),
        ({"window": 99}, ConfigurationError, "`window` must be >= 100 for a level of 0.99, was 99"),
        ({"window": 420}, DataConversionError, "`returns` must have more than 420 entries, a window, had 420"),
        ({"window": 2.5}, ConfigurationError, "`window` must be an integer"),
        ({"level": 1.5}, DataConversionError, "`level` must be between 0.5 and 1, was 1.5"),
        ({"side": "flat"}, ConfigurationError, "`side` must be long or short, was 'flat'"),
        ({"refit": 0}, ConfigurationError, "`refit` must be an integer >= 1, was 0"),
        ({"simulations": -1}, DataConversionError, "`simulations` must be 0 or"),
        ({"times": np.arange(3)}, DataConversionError, "`times` must be as many as `returns` \\(420\\)"),
        ({"times": np.zeros(420, np.uint64)}, DataConversionError, "`times` must rise, was 0 after 0"),
        ({"returns": np.append(RETURNS[:-1], np.nan)}, DataConversionError, "`returns` must be finite, was nan at 419"),
        ({"returns": np.append(RETURNS[:-1], -1.0)}, DataConversionError, "`returns` must be > -1, was -1.0 at 419"),
        ({"returns": np.zeros(420)}, DataConversionError, "method 'historical': `es` must be > 0"),
        ({"returns": RETURNS.reshape(2, -1)}, DataConversionError, "`returns` must be one-dimensional"),
        ({"methods": {"m": lambda window: None}}, DataConversionError, "method 'm'.*must return two numbers.*was None"),
        (
            {"methods": {"m": lambda window: (1.0, 0.5)}},
            DataConversionError,
            "method 'm': `es` must be > 0 and >= `var`",
        ),
        ({"methods": {"m": lambda window: (math.nan, 1.0)}}, DataConversionError, "method 'm': `var` must be finite"),
    ],
)
def test_bad_walks(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"returns": RETURNS, "methods": ["historical"], "window": WINDOW, **change}
    with pytest.raises(error, match=message):
        bt.rolling_var_backtest(arguments.pop("returns"), **arguments)


# -- tables ------------------------------------------------------------------------------------------------------------

CSV = "Date,Close,Name\n2024-01-01,100,x\n2024-01-02,101,y\n2024-01-03,99.5,z\n"


def test_a_table(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "a.csv", tmp_path / "a.csv.gz"
    plain.write_text("\ufeff" + CSV)
    zipped.write_bytes(gzip.compress(CSV.encode()))
    for path in (plain, zipped):
        table = bt.read_table(path)
        assert table.times.tolist() == [19_723 * DAY, 19_724 * DAY, 19_725 * DAY]
        assert list(table.columns) == ["Close"]
        assert table.column("CLOSE").tolist() == [100.0, 101.0, 99.5]
    times, returns, notes = bt.price_returns(table.times, table.column("close"))
    assert times.tolist() == table.times[1:].tolist()
    np.testing.assert_allclose(returns, [0.01, 99.5 / 101 - 1])
    assert notes == []


def test_parquet_is_the_same_table(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    rows = {"ts_ns": [19_723 * DAY, 19_724 * DAY], "close": [100.0, None], "text": ["a", "b"]}
    parquet.write_table(pa.table(rows), tmp_path / "a.parquet")
    table = bt.read_table(tmp_path / "a.parquet")
    assert table.times.tolist() == rows["ts_ns"]
    assert math.isnan(table.column("close")[1])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataConversionError, match=r"b\.parquet cannot be read as Parquet"):
        bt.read_table(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("written", "day"),
    [
        ("2024-05-31", 19_874.0),
        ("2024-05-31T12:00:00+00:00", 19_874.5),
        ("2024-05-31 02:00:00+02:00", 19_874.0),
        ("20240531", 19_874.0),
        ("20240531 06:00", 19_874.25),
        ("5/31/2024", 19_874.0),
        (str(19_874 * DAY), 19_874.0),
    ],
)
def test_times(written: str, day: float, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"date,close\n{written},1\n")
    assert bt.read_table(path).times.tolist() == [int(day * DAY)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv must have a line of names and at least one row, had 0 lines"),
        ("Date,Close\n", "at least one row, had 1 lines"),
        ("Date,Close\n2024-01-01\n", "a.csv, row 1: must have 2 cells, had 1"),
        ("Date,Date\n2024-01-01,1\n", "names of columns must be distinct, 'Date' is there twice"),
        ("Day1,Close\n2024-01-01,1\n", "`time_column` must be a column of a.csv \\(Day1, Close\\), was 'not found'"),
        ("Date,Close\nyesterday,1\n", "a.csv, row 1: the time must be a date .* was 'yesterday'"),
        ("Date,Close\n2024-01-02,1\n2024-01-01,1\n", "a.csv, row 2: times must rise, '2024-01-01' follows"),
        ("Date,Close\n1950-01-02,1\n", "times must not be before 1970"),
        ('Date,Close\n"2024-01-02,1\n', "cannot be read as CSV"),
    ],
)
def test_bad_tables(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises((DataConversionError, ConfigurationError), match=message):
        bt.read_table(path)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`data` must name a file"):
        bt.read_table(tmp_path / "none.csv")
    (tmp_path / "a.txt").write_text(CSV)
    with pytest.raises(ConfigurationError, match=re.escape("`data` must end in .csv, .csv.gz or .parquet")):
        bt.read_table(tmp_path / "a.txt")
    (tmp_path / "a.csv.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(DataConversionError, match=re.escape("a.csv.gz cannot be read as CSV")):
        bt.read_table(tmp_path / "a.csv.gz")
    (tmp_path / "a.csv").write_bytes(b"Date,Close\n\xff\xfe,1\n")
    with pytest.raises(DataConversionError, match=r"a\.csv cannot be read as CSV"):
        bt.read_table(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(CSV)
    with pytest.raises(ConfigurationError, match=r"`column` must be a numeric column of b\.csv \(Close\), was 'open'"):
        bt.read_table(tmp_path / "b.csv").column("open")


def test_gaps_and_bad_prices() -> None:
    times = (np.array([1, 2, 3, 2000, 2001]) * DAY).astype(np.uint64)
    kept, returns, notes = bt.price_returns(times, [1.0, 2.0, 1.0, 50.0, 55.0])
    assert kept.tolist() == [2 * DAY, 3 * DAY, 2001 * DAY]
    np.testing.assert_allclose(returns, [1.0, -0.5, 0.1])
    assert notes == ["Returns over more than 10 days are left out, they are no one-day returns: 1."]
    for price in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(DataConversionError, match="p, row 3: must be finite and > 0"):
            bt.price_returns(times, [1.0, 2.0, price, 50.0, 55.0], name="p")
    with pytest.raises(DataConversionError, match="must have at least 2 rows"):
        bt.price_returns(times[:1], [1.0])
    with pytest.raises(DataConversionError, match="`max_gap_days` must be > 0"):
        bt.price_returns(times, [1.0] * 5, max_gap_days=math.nan)
