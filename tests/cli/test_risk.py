"""`tengri risk backtest` and `tengri risk report`: what they print, what their pages hold, what they refuse."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tengri_fast.cli import main
from tengri_fast.cli.risk_backtest_page import cumulative_band
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.recorded import LimitUse, write_holdings
from tengri_fast.risk.report import portfolio_returns, risk_report
from tengri_fast.risk.scenarios import ScenarioSet
from tengri_fast.runtime.control import ControlServer, RunControl

DAY = 86_400_000_000_000
NAMES = ("AAA.X", "BBB.X", "CCC.Y")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["risk", *map(str, arguments)])


def moves(days: int = 460, parts: int = 3) -> np.ndarray:
    rng = np.random.default_rng(7)
    sigma = np.where((np.arange(days) // 60) % 2, 0.02, 0.008)
    return np.clip(sigma * (rng.standard_t(5, (parts, days)) + rng.standard_normal(days)) * 0.6, -0.5, 0.5)


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prices") / "book.csv"
    levels = 100.0 * np.cumprod(1.0 + moves(), axis=1)
    lines = ["Date,AAA,BBB.X,ccc,close,note"]
    for day, row in enumerate(levels.T):
        lines.append(f"{date(2019, 6, 1) + timedelta(day)},{row[0]},{row[1]},{row[2]},{row[0]},text <b>")
    path.write_text("\n".join(lines) + "\n")
    return path


def holdings(**changes: Any) -> Holdings:
    fields: dict[str, Any] = {
        "instrument_ids": NAMES,
        "quantities": [10.0, -4.0, 5.0],
        "prices": [100.0, 50.0, 20.0],
        "asset_classes": ("equity", "equity", "crypto"),
        "venues": ("X", "X", "Y"),
        "equity": 10_000.0,
        **changes,
    }
    return Holdings(**fields)


def scenario_set() -> ScenarioSet:
    return ScenarioSet(NAMES, moves().astype(np.float32), DAY, {"source": "made <up>"})


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("book") / "book.json"
    limits = (
        LimitUse(rule="MAX_GROSS_EXPOSURE", value=1300.0, limit=1250.0, unit="USD"),
        LimitUse(rule="MAX_POSITION", scope="instrument:AAA.X", value=10.0, limit=12.0),
        LimitUse(rule="MAX_SHORT", value=4.0, limit=0.0),
        LimitUse(rule="WARN_ONLY", value=4.0, hard=False),
    )
    write_holdings(path, holdings(), limits=limits, ts=1_700_000_000 * 10**9, source="a <script>")
    return path


def embedded(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def check_offline(page: str) -> None:
    """Everything inside: no tag that loads from elsewhere, and a policy that would not let it."""
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", own)
    assert "default-src 'none'" in page
    assert "Plotly.newPlot" in page


# -- backtest ----------------------------------------------------------------------------------------------------------


def test_help_and_list() -> None:
    assert {"backtest", "report"} <= set(re.findall(r"^  (\w+)", call("--help").output, re.MULTILINE))
    listed = call("backtest", "--method", "list")
    assert listed.exit_code == 0
    assert "garch_peaks" in listed.output


def test_backtest_prints_and_writes(prices: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    target = tmp_path / "pages" / "backtest.html"
    result = call(
        "backtest", "--data", prices, "--method", "historical", "--method", "filtered", "--method", "garch_student_t",
        "--level", "0.99", "--level", "0.975", "--window", "300", "--simulations", "19", "--output", target,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "historical" in result.output
    assert "p-values at this number of days" in result.output
    page = target.read_text()
    check_offline(page)
    record = embedded(page, "report-data")
    assert [(row["method"], row["level"]) for row in record["results"]] == [
        (method, level) for level in (0.99, 0.975) for method in ("historical", "filtered", "garch_student_t")
    ]
    figures = embedded(page, "figures")
    for mark in ("99", "97-5"):
        for name in ("strip", "lights", "cumulative", "daily-historical", "daily-filtered"):
            assert f"{name}-{mark}" in figures
            assert f'id="{name}-{mark}"' in page
    row = next(row for row in record["results"] if row["method"] == "historical" and row["level"] == 0.975)
    daily = {trace["name"]: trace for trace in figures["daily-historical-97-5"]["data"]}
    assert len(daily["Exception"]["x"]) == len(daily["Exceptions, strip"]["x"]) == row["exceptions"] > 0
    assert all(ratio > 1.0 for ratio in daily["Exception"]["customdata"])
    strip = figures["strip-97-5"]["data"][0]
    assert len(strip["x"]) == row["exceptions"]
    assert figures["cumulative-97-5"]["data"][3]["y"][-1] == row["exceptions"]
    for test in row["tests"]:
        assert test["name"] in page
    for text in ("Covid, 20 Feb - 30 Apr 2020", "95 % band of a right model", row["verdict"].split(".")[0]):
        assert text in page


def test_backtest_as_json(prices: Path) -> None:
    one = call(
        "backtest", "--data", prices, "--method", "ewma", "--window", "300", "--simulations", "0", "--json",
        "--column", "AAA",
    )  # fmt: skip
    record = json.loads(one.output)
    assert record["facts"]["Column"] == "AAA"
    assert record["results"][0]["days"] == 459 - 300
    assert record["comparison"] == []
    assert record["results"][0]["tests"][-1]["exact_p_value"] is None
    again = call(
        "backtest", "--data", prices, "--method", "ewma", "--window", "300", "--simulations", "0", "--json",
        "--column", "aaa",
    )  # fmt: skip
    assert json.loads(again.output) == record


def test_backtest_of_a_portfolio_and_of_returns(prices: Path, tmp_path: Path) -> None:
    settings = ("--method", "normal", "--window", "300", "--simulations", "0", "--json")
    together = json.loads(
        call("backtest", "--data", prices, "--column", "AAA", "--column", "BBB.X", *settings).output
    )  # fmt: skip
    assert together["facts"]["Column"] == "2 columns, equally weighted"
    returns = tmp_path / "returns.csv"
    mean = moves()[:2, 1:].mean(axis=0)
    returns.write_text(
        "date,return\n" + "".join(f"{date(2019, 6, 2) + timedelta(i)},{r!r}\n" for i, r in enumerate(mean.tolist()))
    )
    same = json.loads(call("backtest", "--returns", returns, *settings).output)
    assert same["results"][0]["exceptions"] == together["results"][0]["exceptions"]
    assert same["results"][0]["joint_score"] == pytest.approx(together["results"][0]["joint_score"], rel=1e-9)
    everything = json.loads(call("backtest", "--data", prices, "--column", "all", *settings).output)
    assert everything["facts"]["Column"] == "4 columns, equally weighted"


def test_a_split_and_a_span(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    level = 100.0 * np.cumprod(1.0 + moves(parts=1)[0])
    level[200:] /= 2.0
    start = date(2020, 1, 1)
    path.write_text("date,close\n" + "".join(f"{start + timedelta(i)},{p!r}\n" for i, p in enumerate(level.tolist())))
    settings = ("--method", "normal", "--window", "150", "--simulations", "0", "--json")
    raw = json.loads(call("backtest", "--data", path, *settings).output)
    day = str(start + timedelta(200))
    clean = json.loads(call("backtest", "--data", path, "--split", f"{day}=2", *settings).output)
    assert clean["notes"] == [f"Prices before {day} are divided by 2."]
    assert raw["results"][0]["mean_var"] > 1.3 * clean["results"][0]["mean_var"]
    part = json.loads(
        call("backtest", "--data", path, "--from", day, "--to", str(start + timedelta(400)), *settings).output
    )  # fmt: skip
    assert part["results"][0]["days"] == 200 - 1 - 150


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of `--data` and `--returns` must be given, and not both"),
        (("--data", "none.csv"), "`data` must name a file"),
        (("--data", "P", "--method", "oracle"), "`method` must be one of historical,"),
        (
            ("--data", "P", "--column", "volume"),
            "`column` must be a numeric column of book.csv (AAA, BBB.X, ccc, close)",
        ),
        (("--data", "P", "--column", "aaa", "--column", "AAA"), "`column` must name each column once"),
        (("--data", "P", "--window", "5"), "`window` must be an integer >= 50, was 5"),
        (("--data", "P", "--window", "459"), "`returns` must have more than 459 entries, a window, had 459"),
        (("--data", "P", "--level", "1"), "`level` must be between 0.5 and 1, was 1.0"),
        (("--data", "P", "--level", ".99", "--level", ".99"), "`--level` must name each level once"),
        (("--data", "P", "--from", "soon"), "`--from` must be a date such as 2008-09-01, was 'soon'"),
        (("--data", "P", "--from", "2090-01-01"), "must have at least 2 rows"),
        (("--data", "P", "--split", "2020-01-01"), "`--split` must be DATE=RATIO with a ratio > 0"),
        (("--data", "P", "--split", "2020-01-01=0"), "`--split` must be DATE=RATIO with a ratio > 0"),
        (
            ("--data", "P", "--window", "300", "--simulations", "3"),
            "`simulations` must be 0 or an integer >= 19, was 3",
        ),
        (("--data", "P", "--time-column", "note"), "row 1: the time must be a date"),
        (("--returns", "P", "--column", "none"), "`column` must be a numeric column"),
    ],
)
def test_backtest_refuses(arguments: tuple[str, ...], message: str, prices: Path) -> None:
    result = call("backtest", *(str(prices) if text == "P" else text for text in arguments))
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_band_is_the_binomials() -> None:
    from scipy import stats

    days = np.array([1, 50, 250, 3000])
    low, high = cumulative_band(days, 0.01)
    assert low == stats.binom.ppf(0.025, days, 0.01).astype(int).tolist()
    assert high == stats.binom.ppf(0.975, days, 0.01).astype(int).tolist()


# -- report ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> Any:
    return risk_report(holdings(), scenario_set(), levels=(0.99,), seed=3)


def test_parts_add_up(full: Any) -> None:
    record = full.to_dict()
    json.dumps(record, allow_nan=False)
    first = record["methods"][0]
    assert first["label"] == "Historical"
    for measure in ("es", "var"):
        assert sum(row[f"component_{measure}"] for row in record["positions"]) == pytest.approx(
            first[measure], rel=1e-9
        )
    assert sum(record["groups"]["asset class"].values()) == pytest.approx(first["es"], rel=1e-9)
    assert set(record["groups"]["venue"]) == {"X", "Y"}
    pnl = holdings().pnl(scenario_set().returns)
    assert first["var"] == pytest.approx(float(np.quantile(-pnl, 0.99, method="inverted_cdf")))
    assert record["gross"] == pytest.approx(1000.0 + 200.0 + 100.0)
    assert record["net"] == pytest.approx(900.0)
    np.testing.assert_allclose(full.correlation, np.corrcoef(scenario_set().returns.astype(float)), atol=1e-12)
    assert {row["label"] for row in record["methods"]} >= {"Student t", "Monte Carlo, t copula"}
    assert all(row["problem"] == "" for row in record["methods"])
    assert len(record["stress"]) > 20


def test_a_method_that_cannot_be_used_says_why() -> None:
    """Forty scenarios: no extreme-value tail, but a report."""
    short = ScenarioSet(NAMES, moves(40).astype(np.float32), DAY)
    found = risk_report(holdings(), short)
    rows = {row.label: row for row in found.methods if row.level == 0.99}
    assert rows["Extreme-value tail"].estimate is None
    assert "tail_share" in rows["Extreme-value tail"].problem
    assert rows["Historical"].estimate is not None
    assert any("estimates are rough" in note for note in found.notes)


def test_an_instrument_that_never_moves_has_no_correlation() -> None:
    table = moves().astype(np.float32)
    table[1] = 0.0
    found = risk_report(holdings(), ScenarioSet(NAMES, table, DAY), methods={"Historical": ("historical", {})})
    assert found.correlation is not None
    assert np.isnan(found.correlation[1]).all()
    assert found.to_dict()["correlation"][0][1] is None
    assert found.correlation[0, 0] == pytest.approx(1.0)


def test_curved_payoffs_add_delta_gamma() -> None:
    curved = holdings(payoffs=("linear", "inverse", "linear"))
    found = risk_report(curved, scenario_set(), levels=(0.975,))
    assert any(row.label == "Delta-gamma" and row.estimate for row in found.methods)


def test_without_scenarios_and_without_positions() -> None:
    bare = risk_report(holdings())
    assert bare.methods == ()
    assert bare.stress is not None
    assert any("Without scenarios" in note for note in bare.notes)
    empty = risk_report(holdings(quantities=[0.0, 0.0, 0.0]), scenario_set())
    record = empty.to_dict()
    assert (record["positions"], record["stress"], record["gross"]) == ([], [], 0.0)
    assert any("3 positions of quantity zero are left out" in note for note in record["notes"])


def test_missing_scenarios_are_named() -> None:
    some = ScenarioSet(("BBB.X",), moves(parts=1).astype(np.float32), DAY)
    with pytest.raises(Exception, match=r"has none for AAA\.X, CCC\.Y"):
        portfolio_returns(holdings(), some)
    table = portfolio_returns(holdings(quantities=[0.0, -4.0, 0.0]), some)
    assert not table[0].any()
    np.testing.assert_array_equal(table[1], some.returns[0].astype(float))


def test_report_prints_and_writes(book: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    scenarios, target = tmp_path / "s.npz", tmp_path / "risk.html"
    scenario_set().to_file(scenarios)
    own = tmp_path / "own.toml"
    own.write_text(OWN)
    result = call("report", book, "--scenarios", scenarios, "--stress", own, "--output", target, "--level", "0.975")
    assert result.exit_code == 0, result.output
    for text in ("VaR and ES, 97.5 %", "Who carries the ES", "Worst stress scenarios", "MAX_GROSS_EXPOSURE", "104 %"):
        assert text in result.output
    page = target.read_text()
    check_offline(page)
    record = embedded(page, "report-data")
    assert {"components", "correlation", "stress"} <= set(embedded(page, "figures"))
    for text in ("Use of limits", "VaR and ES by method, 97.5 %", "Correlation of returns", "everything falls",
                 "MAX_GROSS_EXPOSURE (portfolio) is exceeded", "MAX_SHORT (portfolio) is exceeded"):  # fmt: skip
        assert text in page
    assert "a &lt;script&gt;" in page
    assert "<script>;" not in page.split("</header>")[0]
    assert "made &lt;up&gt;" in page
    assert next(row for row in record["stress"] if row["scenario"] == "everything falls")["loss"] == pytest.approx(90.0)
    use = {row["rule"]: row for row in record["limits"]}
    assert (use["MAX_SHORT"]["share"], use["MAX_SHORT"]["over"]) == (None, True)
    assert use["WARN_ONLY"]["hard"] is False
    assert record["ts"] == 1_700_000_000 * 10**9


OWN = """\
[[scenario]]
name = "everything falls"
source = "this test"
[scenario.asset_classes]
equity = -0.1
crypto = -0.1
"""


def test_report_from_prices(book: Path, prices: Path) -> None:
    result = call("report", book, "--prices", prices, "--window", "300", "--level", "0.975", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.output)
    assert record["facts"]["Scenarios"] == "300"
    # 460 prices from 1 June 2019 on; the last return ends on the last day.
    assert record["facts"]["Scenarios, last"] == "2020-09-02"
    assert record["facts"]["Scenarios, first"] == "2019-11-08"
    assert {row["level"] for row in record["methods"]} == {0.975}
    pnl = holdings().pnl(np.float32(moves()[:, -300:]))
    assert record["methods"][0]["var"] == pytest.approx(
        float(np.quantile(-pnl, 0.975, method="inverted_cdf")), rel=1e-5
    )
    shown = call("report", book, "--prices", prices, "--window", "300", "--level", "0.975").output
    for text in ("2023-11-14 22:13:20 UTC", "VaR and ES, 97.5 %, 1 d, USD", "the ES: Historical, 97.5 %, USD",
                 "Worst stress scenarios, USD", "2020-09-02"):  # fmt: skip
        assert text in shown
    plain = call("report", book)
    assert plain.exit_code == 0
    assert "Without scenarios of returns there is no VaR" in plain.output


@pytest.fixture
def short() -> Iterator[Path]:
    # A socket's path must be short; pytest's own temporary paths may not be.
    with tempfile.TemporaryDirectory(prefix="tg") as name:
        yield Path(name)


def test_report_of_a_running_process(short: Path) -> None:
    row = SimpleNamespace(rule="MAX_POSITION", value=10.0, limit=12.0)
    gate = SimpleNamespace(
        portfolio=SimpleNamespace(holdings=holdings), utilisation=lambda: [row], killed=False, kills={}, counters={}
    )
    control = RunControl(short / "c.sock")
    with control:
        early = call("report", "--live", "--socket", short / "c.sock")
        assert early.exit_code == 2
        assert "there is no portfolio: the run has not begun" in early.output
        control.attach(gate)  # type: ignore[arg-type]
        control.progress(5, 10)
        result = call("report", "--live", "--socket", short / "c.sock", "--json")
        assert result.exit_code == 0, result.output
        control.detach()
        late = call("report", "--live", "--socket", short / "c.sock")
        assert late.exit_code == 2
    record = json.loads(result.output)
    assert (record["name"], record["source"]) == ("running portfolio", "run, 5 of 10")
    assert [row["instrument_id"] for row in record["positions"]] == list(NAMES)
    assert record["limits"][0]["share"] == pytest.approx(10 / 12)


def test_a_process_without_a_portfolio(short: Path) -> None:
    server = ControlServer(dict, lambda *_: None, lambda *_: None, short / "c.sock")
    server.start()
    try:
        result = call("report", "--live", "--socket", short / "c.sock")
    finally:
        server.stop()
    assert result.exit_code == 2
    assert "this process hands out no portfolio" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of PORTFOLIO and `--live` must be given, and not both"),
        (("B", "--live"), "one of PORTFOLIO and `--live` must be given, and not both"),
        (("none.json",), "`portfolio` must name a file"),
        (("B", "--scenarios", "a.npz", "--prices", "b.csv"), "at most one of `--scenarios` and `--prices`"),
        (("B", "--scenarios", "a.npz"), "`scenarios` must name a file"),
        (("B", "--window", "30"), "`--window` needs `--prices`"),
        (("B", "--prices", "P", "--window", "1"), "`--window` must be >= 2, was 1"),
        (("B", "--prices", "P", "--level", "0.2"), "`level` must be between 0.5 and 1, was 0.2"),
        (("B", "--stress", "none.toml"), "none.toml"),
        (("P",), "book.csv is not JSON"),
    ],
)
def test_report_refuses(arguments: tuple[str, ...], message: str, book: Path, prices: Path) -> None:
    names = {"B": str(book), "P": str(prices)}
    result = call("report", *(names.get(text, text) for text in arguments))
    assert result.exit_code == 2
    assert message in result.output


def test_prices_must_have_every_instrument(tmp_path: Path, prices: Path) -> None:
    path = tmp_path / "b.json"
    write_holdings(path, holdings(instrument_ids=("AAA.X", "ZZZ.X", "YYY.X")))
    result = call("report", path, "--prices", prices)
    assert result.exit_code == 2
    assert "has none for ZZZ.X, YYY.X" in result.output


def test_nothing_is_infinite_on_paper(full: Any) -> None:
    for value in full.to_dict()["methods"]:
        for key in ("var", "es"):
            assert value[key] is None or math.isfinite(value[key])
