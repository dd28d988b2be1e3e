"""``tengri data``: describe, import, and what the other words list."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from click.testing import CliRunner
from support import sample_data, shared_data

from tengri_fast.cli import main
from tengri_fast.market import provenance, read_depth, read_market, read_quotes

pytest.importorskip("pyarrow", reason="`tengri data` reads and writes Parquet")
import pyarrow
import pyarrow.parquet

STEM = "binance_usdm_btcusdt_20240718"


def call(*words, code: int = 0):
    result = CliRunner().invoke(main, ["data", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def sample(name: str):
    return sample_data(f"{STEM}.{name}.parquet")


def planted(path, **changes):
    """The sample's quotes with values put in: column=(row, value)."""
    table = pyarrow.parquet.read_table(sample("quotes"))
    columns = {name: table[name].to_numpy().copy() for name in table.column_names}
    for name, (row, value) in changes.items():
        columns[name][row] = value
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_describe_as_text_and_json() -> None:
    text = call("describe", sample("quotes")).stdout
    assert "7,113" in text
    assert "tick" in text
    assert "0.1 (inferred)" in text
    assert "no defects" in text
    assert "local minus exchange -1.52 s" in text
    report = json.loads(call("describe", "--json", "--contract", "binance_usdm_btcusdt", sample("quotes")).stdout)
    assert report["format"] == "quotes"
    (stream,) = report["streams"]
    assert (stream["rows"], stream["tick"], stream["tick_given"], stream["defects"]) == (7_113, 0.1, True, [])
    assert stream["statistics"]["imbalance"]["moves"] == 50
    assert round(report["clock"]["median_ns"] / 1e6) == -1520


def test_several_files_one_by_one_or_together(tmp_path) -> None:
    reports = json.loads(call("describe", "--json", sample("quotes"), sample("trades")).stdout)
    assert [report["streams"][0]["name"] for report in reports] == ["quotes", "trades"]
    assert reports[0]["between"] == {}
    page = tmp_path / "page.html"
    both = json.loads(
        call("describe", "--json", "--together", "--html", page, sample("quotes"), sample("trades")).stdout
    )
    assert both["between"]["trades_and_quotes"]["compared"] == 974
    assert set(both["clock"]["by_stream"]) == {"quotes", "trades"}
    text = page.read_text()
    assert text.count("<svg") >= 4
    assert "http" not in text.replace("http-equiv", ""), "nothing comes from elsewhere"
    assert "974" in text


def test_a_defect_is_shown_with_its_repair(tmp_path) -> None:
    path = planted(tmp_path / "bad.parquet", bid_price_0=(17, np.nan))
    text = call("describe", path).stdout
    line = next(line for line in text.splitlines() if "nan (fatal)" in line)
    assert line.split() == ["nan", "(fatal)", "1", "bid_price", "17", "nan", "drop-nan"]
    refused = call("import", path, "--out", tmp_path / "out.parquet", code=2)
    assert "`bid_price` of quotes breaks the rule nan" in refused.stderr
    assert "row 17 was nan; the repair drop-nan removes this" in refused.stderr
    assert not (tmp_path / "out.parquet").exists()


def test_import_repairs_and_tells_how(tmp_path) -> None:
    path = planted(tmp_path / "bad.parquet", bid_price_0=(17, np.nan), ask_price_0=(30, 1.0), ts_ns=(40, 5))
    out = tmp_path / "out.parquet"
    result = call("import", path, "--out", out, "--repair", "drop-nan,drop-crossed", "--repair", "sort")
    assert "7,111 rows of 7,113" in result.stdout
    made, clean = read_quotes(out), read_quotes(sample("quotes"))
    rows = np.array([40, *np.delete(np.arange(7_113), [17, 30, 40])])
    assert made.bid_price.tolist() == clean.bid_price[rows].tolist()
    assert made.ts_event[0] == 5
    story = provenance(out)
    assert story["rows_in"] == {"quotes": 7_113}
    assert story["rows_out"] == {"quotes": 7_111}
    assert [(e["repair"], e["dropped"], e["first_row"]) for e in story["repairs"]] == [
        ("drop-nan", 1, 17), ("sort", 0, 0), ("drop-crossed", 1, 30)]  # fmt: skip
    (source,) = story["sources"]
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source["name"], source["format"]) == ("bad.parquet", "quotes")
    assert json.loads(call("provenance", out).stdout) == story
    again = tmp_path / "again.parquet"
    call("import", out, "--out", again)
    assert provenance(again)["sources"][0]["provenance"] == story
    assert read_quotes(again).bid_price.tolist() == made.bid_price.tolist()


def test_the_clock_is_set_by_the_median_or_by_hand(tmp_path) -> None:
    call("import", sample("quotes"), sample("trades"), "--out", tmp_path, "--name", "day", "--clock-offset", "auto")
    made = read_market(tmp_path / "day.quotes.parquet")
    offset = provenance(tmp_path / "day.trades.parquet")["clock_offset"]
    assert offset["rows"] == 7_113 + 974
    assert round(offset["median_ns"] / 1e6) == -1520
    assert offset["sigma_ns"] < 2_000_000
    before = read_quotes(sample("quotes"))
    assert int(before.ts_event[0]) - int(made.quotes.ts_event[0]) == offset["median_ns"]
    assert np.array_equal(made.exchange_times["quotes"] // np.uint64(10**6),
                          pyarrow.parquet.read_table(sample("quotes"))["exch_ms"].to_numpy())  # fmt: skip
    call("import", sample("quotes"), "--out", tmp_path / "hand.parquet", "--clock-offset", "-1.5s")
    hand = read_quotes(tmp_path / "hand.parquet")
    assert int(hand.ts_event[0]) - int(before.ts_event[0]) == 1_500_000_000
    wrong = call("import", sample("quotes"), "--out", tmp_path / "x.parquet", "--clock-offset", "soon", code=2)
    assert "--clock-offset" in wrong.stderr


def test_a_book_is_built_from_a_capture(tmp_path) -> None:
    call("import", shared_data("tick", "binance", "raw", "btcusdt_usdm_20240718.gz"), "--out", tmp_path, "--book", "10",
         "--stream", "depth")  # fmt: skip
    made = read_depth(tmp_path / "btcusdt_usdm_20240718.depth10.parquet")
    wanted = read_depth(shared_data("tick", "binance", f"{STEM}.depth10.parquet"))
    rows = np.searchsorted(made.ts_init, wanted.ts_init, side="right") - 1
    assert np.array_equal(made.ask_price[rows], wanted.ask_price)
    assert np.array_equal(made.bid_size[rows], wanted.bid_size)
    assert [path.name for path in tmp_path.iterdir()] == ["btcusdt_usdm_20240718.depth10.parquet"]
    assert "has none" in call("describe", "--book", "5", sample("quotes"), code=2).stderr


def test_files_are_not_written_over(tmp_path) -> None:
    path = planted(tmp_path / "a.parquet", bid_size_0=(0, 1.0))
    out = tmp_path / "out.parquet"
    call("import", path, "--out", out)
    assert "must not exist without --force" in call("import", path, "--out", out, code=2).stderr
    call("import", path, "--out", out, "--force")
    assert "must not be a source" in call("import", path, "--out", path, "--force", code=2).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["import", "{quotes}", "--out", "x", "--repair", "drop-crosed"], "did you mean 'drop-crossed'"),
        (["import", "{quotes}"], "--out or --catalog must be given"),
        (["import", "{quotes}", "--catalog", "x"], "--catalog needs --contract"),
        (["import", "{quotes}", "--out", "x", "--stream", "bars"], "`streams` must be among quotes, named 'bars'"),
        (["import", "{quotes}", "{trades}", "--out", "x.parquet"], "`out` must be a folder for 2 streams"),
        (["describe", "{quotes}", "--format", "quote"], "did you mean 'quotes'"),
        (["describe", "{quotes}", "--timezone", "UTC"], "`timezone` must be left out for the format quotes"),
        (["describe", "{quotes}", "--column", "bid_price"], "must look like NAME=VALUE"),
        (["describe", "{quotes}", "--column", "bid_prise=x"], "did you mean 'bid_price'"),
        (["describe", "{quotes}", "--aggressor", "B=2"], "must give +1, -1 or 0"),
        (["describe", "{quotes}", "--date", "yesterday"], "--date"),
        (["describe", "{quotes}", "--gap", "long"], "--gap"),
        (["describe", "{quotes}", "--contract", "binance_usdm_btc"], "did you mean 'binance_usdm_btcusdt'"),
        (["describe", "nowhere.parquet"], "`path` must be a file, was nowhere.parquet"),
        (["provenance", "{quotes}"], "must be a file that `tengri data import` wrote"),
        (["contracts", "binance"], "`contract` must be a row of the contract table"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, words, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"quotes": sample("quotes"), "trades": sample("trades")}
    result = call(*(word.format(**names) for word in words), code=2)
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_lists() -> None:
    formats = json.loads(call("formats", "--json").stdout)
    text = call("formats").stdout
    assert all(entry["name"] in text and entry["lost"] in text for entry in formats)
    assert "drop-crossed" in call("repairs").stdout
    rows = call("contracts").stdout
    assert "binance_cm_btcusd" in rows
    assert "perpetual (inverse)" in rows
    assert "BTCUSDT-PERP.BINANCE" in call("contracts", "binance_usdm_btcusdt").stdout


def test_a_bar_is_shown_when_asked_for() -> None:
    assert "reading" in call("describe", "--progress", sample("quotes")).stderr
    assert call("describe", sample("quotes")).stderr == ""


def test_vendor_formats_go_through_the_adapter(tmp_path) -> None:
    pytest.importorskip("nautilus_trader", reason="the loaders are NautilusTrader's")
    catalog = tmp_path / "catalog"
    call("import", sample("quotes"), sample("trades"), "--catalog", catalog, "--contract", "binance_usdm_btcusdt")
    report = json.loads(call("describe", "--json", catalog).stdout)
    assert report["format"] == "catalog"
    assert {stream["name"]: stream["rows"] for stream in report["streams"]} == {"quotes": 7_113, "trades": 974}
    back = tmp_path / "back"
    call("import", catalog, "--out", back, "--name", "day")
    assert (
        read_quotes(back / "day.quotes.parquet").bid_price.tolist() == read_quotes(sample("quotes")).bid_price.tolist()
    )
