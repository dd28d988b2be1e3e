"""``tengri features`` and ``tengri check-lookahead``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support import REPOSITORY, sample_data

from tengri_fast.cli import main
from tengri_fast.features import FEATURES, STAGES, FeaturePlan
from tengri_fast.market import read_quotes, read_trades

pytest.importorskip("pyarrow", reason="`tengri features` reads and writes Parquet")
from tengri_fast.features.tables import read_features

DAY = "binance_usdm_btcusdt_20240718"
QUOTES, TRADES = (sample_data(f"{DAY}.{name}.parquet") for name in ("quotes", "trades"))
BOTH = ("--data", QUOTES, "--data", TRADES)
MODEL = REPOSITORY / "models" / "lstm_btcusdt" / "model.toml"


def call(*words, code: int = 0):
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == code, result.output
    return result


def test_a_models_features(tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    text = call("features", MODEL, *BOTH, "--out", out).stdout
    assert "7,113 rows of 12 columns from 8,087 events" in text
    assert "bytes a state" in text
    assert "events a second" in text
    line = next(line for line in text.splitlines() if line.startswith("last_move_direction"))
    assert line.split() == ["last_move_direction", "1,117", "38.844", "s"], "when it was ready"
    table = read_features(out)
    plan = FeaturePlan(table.facts["plan"])
    rows = plan.compute(read_quotes(QUOTES), read_trades(TRADES))
    assert table.values.tobytes() == rows.values.tobytes()
    assert table.ready.tobytes() == rows.ready.tobytes()
    assert table.facts["plan_hash"] == plan.hash
    call("features", MODEL.parent, *BOTH, "--out", tmp_path / "n.parquet", "--float32", "--jobs", 1)
    norm = read_features(tmp_path / "n.parquet")
    assert norm.values.dtype == np.float32
    assert np.abs(norm.values).max() == 5.0, "clipped as the model says"


def test_json_and_cache(tmp_path: Path) -> None:
    words = ("features", "--feature", "RSI(21) @ 1s", "--feature", "MACD", *BOTH, "--json", "--cache", tmp_path / "c")
    first = json.loads(call(*words, "--out", tmp_path / "a.parquet").stdout)
    second = json.loads(call(*words, "--out", tmp_path / "b.parquet").stdout)
    assert (first["cache"]["misses"], second["cache"]["hits"]) == (4, 4)
    assert first["columns"] == ["rsi(period=21) @ 1s", "macd", "macd_signal", "macd_histogram"]
    assert first["state_bytes"] > 0
    assert first["events"] == 8087
    (session,) = first["sessions"]
    assert session["counters"] == {"accepted": 8087, "crossed": 0, "backward": 0, "invalid": 0, "overflow": 0}
    assert session["ready_from"][1:] == [33, 33, 33]
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    small = call(*words, "--out", tmp_path / "b.parquet", "--cache-size", "1KB")
    assert json.loads(small.stdout)["cache"]["evicted"] == 6


def test_a_file_of_features_with_an_outside_source(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    times = read_quotes(QUOTES).ts_init[::100]
    pyarrow.parquet.write_table(pyarrow.table({"ts_ns": times, "slug": ["m"] * len(times),
                                               "bid": np.full(len(times), 0.4), "ask": np.full(len(times), 0.5)}),
                                tmp_path / "odds.parquet")  # fmt: skip
    (tmp_path / "f.toml").write_text(
        'features = ["PolymarketOdds", "premium(\'SAME\')"]\nclock = "trade"\n'
        f'[legs]\nSAME = "{QUOTES}"\n[external.PolymarketOdds]\npath = "odds.parquet"\nmarket = "m"\ndelay = "1s"\n'
    )
    call("features", tmp_path / "f.toml", *BOTH, "--out", tmp_path / "o.parquet")
    table = read_features(tmp_path / "o.parquet")
    assert len(table) == 974
    known = table.ts > times[0] + np.uint64(10**9)
    assert table.values[known, 0].tolist() == [0.45] * int(known.sum())
    assert not table.values[~known, 0].any(), "not before it was published, and a second later received"
    assert 0 < known.sum() < 974


def test_a_configuration_of_the_runtime(tmp_path: Path) -> None:
    body = f"""
[strategy]
instrument_id = "BTCUSDT-PERP.BINANCE"
[[neural.models]]
type = "LSTM"
config = "{MODEL}"
"""
    (tmp_path / "t.toml").write_text(body)
    assert "12 features" in call("features", tmp_path / "t.toml", "--explain").stdout
    (tmp_path / "u.toml").write_text(body + '[neural.features]\ntechnical_indicators = ["RSI", "BollingerBands"]\n'
                                     'market_microstructure = ["OrderBookImbalance"]\n')  # fmt: skip
    text = call("features", tmp_path / "u.toml", "--explain").stdout
    assert "4 features" in text
    assert "bollinger_percent" in text


@pytest.mark.parametrize(("words", "message"), [
    ((), "`config` must be given, or --feature"),
    ((MODEL, "--feature", "rsi"), "and not both"),
    (("no_such_model",), "`config` must be a file, or a model of the zoo, was no_such_model"),
    (("--feature", "RSY"), "did you mean `RSI`"),
    (("--feature", "rsi", "--out", "x.parquet"), "`data` must be given"),
    (("--feature", "rsi", "--data", QUOTES), "`out` must be given"),
    (("--feature", "premium('X')", "--data", QUOTES, "--out", "x.parquet"), "`legs` must have a file for 'X'"),
    (("--feature", "rsi", "--leg", "X", "--explain"), "must look like NAME=FILE"),
    (("--feature", "rsi", "--data", QUOTES, "--out", "x.parquet", "--cache-size", "big"), "must be a size such as"),
    (("--feature", "rsi", "--clock", "trade", "--data", QUOTES, "--out", "x.parquet"), "`clock` must name a stream"),
    (("--feature", "rsi", "--user", "no.py", "--explain"), "`user` must be a Python file, was no.py"),
])  # fmt: skip
def test_wrong_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in call("features", *words, code=2).output
    assert not (tmp_path / "x.parquet").exists()


def test_the_list_is_the_table() -> None:
    listed = json.loads(call("features", "--list", "--json").stdout)
    assert {row["name"] for row in listed["features"]} == set(FEATURES)
    assert [row["name"] for row in listed["stages"]] == list(STAGES)
    rsi = next(row for row in listed["features"] if row["name"] == "rsi")
    assert rsi["parameters"][0]["default"] == "14"
    text = call("features", "--list").stdout
    assert "rsi(period=14)" in text
    assert "BollingerBands(period, deviations)" in text


def test_the_documentation_has_every_row() -> None:
    """`tengri features --list --markdown` is the end of docs/features.md."""
    page = (REPOSITORY / "docs" / "features.md").read_text(encoding="utf-8")
    made = call("features", "--list", "--markdown").stdout.strip()
    assert page.strip().endswith(made), "run: tengri features --list --markdown, and paste it below `## Tables`"


# ---------------------------------------------------------------- look-ahead


def check(*words, code: int = 0):
    return call("check-lookahead", *words, *BOTH, "--rows", 1500, "--cuts", 3, code=code)


def test_a_model_does_not_look_ahead() -> None:
    text = check(MODEL).stdout
    assert "no look-ahead found: 24 columns, 1,500 rows, 3 cuts" in text
    assert "the same bits in chunks of 1, 7, 100 and all, after a copy, and after bytes" in text
    facts = json.loads(check(MODEL, "--seed", 5, "--json").stdout)
    assert facts["passed"]
    assert facts["moved"] == []
    assert facts["compared"] > 50_000
    assert len(facts["cuts"]) == 3


LEAKY = """
import numpy as np
from tengri_fast.market.columns import ExternalColumns

def mean_of_the_second(streams):
    '''The mean mid of each second, stamped with the second's beginning: known only at its end.'''
    quotes = streams.quotes
    mid = 0.5 * (quotes.bid_price + quotes.ask_price)
    second = quotes.ts_init // np.uint64(10**9)
    starts = np.flatnonzero(np.diff(second, prepend=np.uint64(0)))
    means = np.add.reduceat(mid, starts) / np.diff(np.append(starts, len(mid)))
    stamps = second[starts] * np.uint64(10**9) + np.uint64(SHIFT)
    return ExternalColumns(stamps, stamps, means[:, None] / 65_000.0)

observations = {"NAME": mean_of_the_second}
"""


@pytest.mark.parametrize(("name", "shift", "code"), [("leaky_mean", 0, 1), ("fair_mean", 10**9, 0)])
def test_a_value_that_is_stamped_too_early_is_caught(tmp_path: Path, name: str, shift: int, code: int) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(LEAKY.replace("NAME", name).replace("SHIFT", str(shift)))
    words = ("--feature", f"external_value('{name}')", "--feature", "imbalance", "--user", path)
    text = check(*words, code=code).stdout
    if code:
        assert "LOOK-AHEAD" in text
        assert f"external_value(source='{name}')" in text
        assert "imbalance: row" not in text
    else:
        assert "no look-ahead found" in text
    out = tmp_path / "o.parquet"
    call("features", *words, *BOTH, "--out", out)
    assert read_features(out).values[:, 0].any(), "research computes it, too"


FROZEN = """
import numpy as np
from tengri_fast.features import UserFeature, register_feature
from tengri_fast.features.user import CLOSE, COUNT

FUTURE = np.arange(SIZE, dtype=np.float64)  # a table that was made from the whole day

@register_feature
class NAME_(UserFeature):
    '''Looks its answer up.'''

    name, unit, state = "NAME", "1", 1

    @staticmethod
    def update(state, view, param):
        state[0] = FUTURE[int(view[COUNT]) % FUTURE.size]

    @staticmethod
    def value(state, param):
        return state[0]
"""


@pytest.mark.parametrize(("name", "size", "code"), [("frozen_day", 7113, 1), ("small_table", 5, 0)])
def test_a_table_of_the_future_is_told(tmp_path: Path, name: str, size: int, code: int) -> None:
    pytest.importorskip("numba", reason="features of the user are compiled by numba")
    path = tmp_path / f"{name}.py"
    path.write_text(FROZEN.replace("NAME", name).replace("SIZE", str(size)))
    text = check("--feature", name, "--user", path, code=code).stdout
    assert "no look-ahead found" in text, "no cut reaches what is frozen"
    assert f"{'FROZEN DATA' if code else 'note'}: {name} reads `FUTURE`, {size:,} numbers frozen" in text


def test_a_user_file_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1 / 0\n")
    text = check("--feature", "rsi", "--user", tmp_path / "bad.py", code=2).output
    assert "bad.py raised ZeroDivisionError: division by zero" in text
    (tmp_path / "worse.py").write_text("observations = 3\n")
    assert "must be a dict of names and functions" in check("--feature", "rsi", "--user", tmp_path / "worse.py",
                                                            code=2).output  # fmt: skip


def test_wrong_checks(tmp_path: Path) -> None:
    assert "`rows` must be >= 100, was 3" in call("check-lookahead", MODEL, *BOTH, "--rows", 3, code=2).output
    assert "`data` must be given" in call("check-lookahead", MODEL, code=2).output
    assert "`cuts` must be >= 1, was 0" in call("check-lookahead", MODEL, *BOTH, "--cuts", 0, code=2).output
    shutil.copy(TRADES, tmp_path / "t.trades.parquet")
    text = call("check-lookahead", MODEL, "--data", tmp_path / "t.trades.parquet", code=2).output
    assert "`clock` must name a stream of session t, which has trades, was 'quote'" in text
