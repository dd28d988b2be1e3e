"""The historical scenarios that ship, recomputed from the histories by other means."""

from __future__ import annotations

import datetime as dt
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support import shared_data

import tengri_fast.risk.stress
from tengri_fast.errors import DataConversionError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.stress import StressLibrary, stress_test
from tengri_fast.risk.stress.replays import FILES, SECTORS, main

SHIPPED = Path(tengri_fast.risk.stress.__file__).with_name("data") / "replays.toml"


@pytest.fixture(scope="module")
def shipped():
    return {row["name"]: row for row in tomllib.loads(SHIPPED.read_text(encoding="utf-8"))["scenario"]}


def test_published_figures(shipped):
    """Moves that anybody can look up, to the rounding of the press."""
    for name, move in (
        ("1997-10 Asian crisis (1d)", -0.0687),
        ("2008-09/10 credit crisis (1d)", -0.0903),
        ("2011-08 downgrade (1d)", -0.0666),
        ("2015-08 China (1d)", -0.0394),
        ("2018-02 volatility funds (1d)", -0.0410),
        ("2020-03 pandemic (1d)", -0.1198),
        ("2020-03 pandemic (peak to trough)", -0.3392),
        ("2007-2009 bear market (peak to trough)", -0.5678),
        ("2000-2002 bear market (peak to trough)", -0.4915),
    ):
        assert shipped[name]["factors"]["equity_index"] == pytest.approx(move, abs=6e-5), name
    assert shipped["2018-02 volatility funds (1d)"]["dates"] == "2018-02-02 .. 2018-02-05"
    assert shipped["2018-02 volatility funds (1d)"]["factors"]["vix"] == pytest.approx(20.01)
    assert shipped["2020-03 pandemic (1d)"]["dates"] == "2020-03-13 .. 2020-03-16"


def test_sectors_are_the_means_of_their_stocks(shipped):
    for row in shipped.values():
        if "JPM" not in row.get("instruments", {}):
            continue
        for sector, members in SECTORS.items():
            mean = np.mean([row["instruments"][stock] for stock in members])
            assert row["asset_classes"][f"equity.{sector}"] == pytest.approx(mean, abs=1.1e-6)


def test_every_number_has_a_source_and_a_licence(shipped):
    known = [path for path, _ in FILES.values()]
    for row in shipped.values():
        assert any(path in row["source"] for path in known)
        assert row["licence"]
        start, end = row["dates"].removesuffix(" UTC").split(" .. ")
        assert start <= end


def test_daily_moves_by_pandas(shipped):
    """Another reader, another search: every window of every length, over the whole history."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    index = pandas.read_csv(shared_data("daily", "sp500_index_1990_2022.csv.gz"), index_col=0, parse_dates=True)
    stocks = pandas.read_csv(shared_data("daily", "sp500_20stocks_1990_2022.csv.gz"), index_col=0, parse_dates=True)
    vix = pandas.read_csv(shared_data("daily", "vix.csv.gz"), index_col=0, parse_dates=True).vix
    vix = vix[vix != "."].astype(float)
    checked = 0
    for name, row in shipped.items():
        if "JPM" not in row.get("instruments", {}):
            continue
        start, end = (pandas.Timestamp(day) for day in row["dates"].split(" .. "))
        assert row["factors"]["equity_index"] == pytest.approx(index.SP500[end] / index.SP500[start] - 1, abs=6e-7)
        for stock in stocks.columns:
            assert row["instruments"][stock] == pytest.approx(stocks[stock][end] / stocks[stock][start] - 1, abs=6e-7)
        if "vix" in row["factors"]:
            assert row["factors"]["vix"] == pytest.approx(vix[end] - vix[start], abs=1e-9)
        if not name.endswith("(peak to trough)"):
            days = int(row["horizon"][:-1])
            moves = index.SP500.pct_change(days)
            near = moves[end - dt.timedelta(days=6) : end + dt.timedelta(days=6)]
            assert near.idxmin() == end or near.min() < moves[end] * 1.2
            assert index.index.get_loc(end) - index.index.get_loc(start) == days
        checked += 1
    assert checked > 50
    assert index.SP500.pct_change().idxmin() == pandas.Timestamp("2020-03-16")


def test_minutes_and_gaps_by_pandas(shipped):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    spy = pandas.read_parquet(shared_data("stress", "spy_1min_2008-08_2008-12.parquet")).set_index("timestamp")
    spy = spy.tz_convert("America/New_York").between_time("09:30", "15:59").close
    for steps in (1, 5, 30, 60):
        before = spy.reindex(spy.index - pandas.Timedelta(minutes=steps)).to_numpy()
        moves = pandas.Series(spy.to_numpy() / before - 1, spy.index)
        row = shipped[f"2008-08/12 credit crisis ({steps}m)"]
        assert row["instruments"]["SPY"] == pytest.approx(moves.min(), abs=6e-7)
        assert row["dates"].endswith(f"{moves.idxmin().tz_convert('UTC'):%Y-%m-%d %H:%M} UTC")
    btc = pandas.read_parquet(shared_data("stress", "ftx_btcperp_1min_202201.parquet")).close
    for label, steps in (("1m", 1), ("60m", 60), ("1d", 1440), ("5d", 7200), ("10d", 14_400)):
        row = shipped[f"2022-01 FTX BTC-PERP ({label})"]
        assert row["factors"]["btc"] == pytest.approx((btc / btc.shift(steps) - 1).min(), abs=6e-7)
    trough = (btc / btc.cummax() - 1).min()
    assert shipped["2022-01 FTX BTC-PERP (peak to trough)"]["factors"]["btc"] == pytest.approx(trough, abs=6e-7)
    hours = pandas.read_parquet(shared_data("stress", "spy_hour_1998_2021.parquet"))
    for name, day, before in (("2010-05-06 flash crash", "20100506", "20100505"),
                              ("2015-08-24 open", "20150824", "20150821")):  # fmt: skip
        row = shipped[f"{name} (low of the day, as a gap)"]
        now = hours[hours.datetime.str.startswith(day)]
        close = hours[hours.datetime.str.startswith(before)].close.iloc[-1]
        assert row["asset_classes"]["equity"] == pytest.approx(now.low.min() / close - 1, abs=6e-7)
        won_back = (now.close.iloc[-1] - now.low.min()) / (close - now.low.min())
        assert row["gap"]["rebound"] == pytest.approx(won_back, abs=6e-7)


def test_months_by_pandas(shipped):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.read_csv(shared_data("macro", "fred_md_to_2014.csv.gz"), index_col=0).iloc[1:]
    table.index = pandas.to_datetime(table.index).strftime("%Y-%m")
    checked = 0
    for name, row in shipped.items():
        if not name.endswith("(monthly averages)"):
            continue
        a, b = (table.loc[month] for month in row["dates"].split(" .. "))
        assert row["factors"]["rates_10y"] == pytest.approx(b["GS10"] - a["GS10"], abs=6e-7)
        spread = (b["BAA"] - b["GS10"]) - (a["BAA"] - a["GS10"])
        assert row["factors"]["corporate_spread"] == pytest.approx(spread, abs=6e-7)
        assert row["currencies"]["JPY"] == pytest.approx(a["EXJPUSx"] / b["EXJPUSx"] - 1, abs=6e-7)
        assert row["currencies"]["GBP"] == pytest.approx(b["EXUSUKx"] / a["EXUSUKx"] - 1, abs=6e-7)
        assert row["asset_classes"]["commodity.energy"] == pytest.approx(b["OILPRICEx"] / a["OILPRICEx"] - 1, abs=6e-7)
        checked += 1
    assert checked == 8


def test_the_bond_book_of_1994():
    """A scenario of factors reaches debt through the betas that ship: seven years of duration."""
    book = Holdings(("TLT.X",), [100.0], [100.0], asset_classes=("debt",))
    library = StressLibrary.built_in()
    row = stress_test(book, library)["1994 bond sell-off (monthly averages)"]
    assert row.pnl == pytest.approx(-0.07 * library[row.scenario].factors["rates_10y"] * 10_000)
    assert row.pnl < -1000


def test_drawn_again_they_are_the_same_and_files_are_whole(tmp_path):
    result = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(tmp_path / "new.toml")])
    assert isinstance(result.exception, DataConversionError)
    assert "`--data` must hold daily/sp500_index_1990_2022.csv.gz" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
    folder = shared_data("stress")
    shared_data("macro")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    result = CliRunner().invoke(main, ["--data", str(folder.parent), "--out", str(tmp_path / "new.toml")])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{SHIPPED.read_text().count('[[scenario]]')} scenarios in ")
    assert (tmp_path / "new.toml").read_bytes() == SHIPPED.read_bytes()
    assert [item.name for item in tmp_path.iterdir()] == ["new.toml"]
