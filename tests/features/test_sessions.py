"""Files as sessions: chunks, processes and formats change no bit, and memory is bounded."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import sample_data, shared_data

from tengri_fast.errors import ConfigurationError, DataConversionError, FeatureExtractionError
from tengri_fast.features import FeaturePlan, register_native_feature
from tengri_fast.features.names import features_named
from tengri_fast.features.sources_config import FeatureConfig, OutsideInput
from tengri_fast.market import merge_order, read_quotes, read_trades

pytest.importorskip("pyarrow", reason="the data is Parquet")
import pyarrow
import pyarrow.parquet

from tengri_fast.features.batch import compute_features, write_features
from tengri_fast.features.sessions import group_files, open_session
from tengri_fast.features.tables import read_features

DAY = "binance_usdm_btcusdt_20240718"
DATA = [sample_data(f"{DAY}.{name}.parquet") for name in ("quotes", "trades")]
TEXTS = ["rsi(14) @ 1s", "order_flow_imbalance(window='1s')", "signed_trade_flow", "mid", "imbalance @ 20 trades",
         "mid_return(10) | zscore(100)"]  # fmt: skip


def config(*texts: str, **other) -> FeatureConfig:
    specs = FeaturePlan(list(texts or TEXTS)).specs
    return FeatureConfig(specs, **other)


@pytest.fixture(scope="module")
def whole():
    """The oracle: the plan on arrays, all at once."""
    return FeaturePlan(TEXTS).compute(read_quotes(DATA[0]), read_trades(DATA[1]))


def same_rows(table, rows) -> None:
    assert table.values.tobytes() == rows.values.tobytes()
    assert table.ts.tobytes() == rows.ts.tobytes()
    assert table.mid.tobytes() == rows.mid.tobytes()
    assert table.ready.tobytes() == rows.ready.tobytes()


@pytest.mark.parametrize("batch", [37, 1000, 7113, 10**6])
def test_batches_change_nothing(whole, batch: int) -> None:
    table = compute_features(config(), DATA, batch_rows=batch)
    same_rows(table, whole)
    (facts,) = table.facts["sessions"]
    assert facts["ready_from"] == [-1 if row == len(whole.ts) else row for row in whole.ready_from.tolist()]
    assert facts["counters"] == whole.counters._asdict()
    assert facts["events"] == 7113 + 974


@pytest.mark.parametrize("batch", [1, 2, 5, 1000])
def test_chunks_keep_the_order_of_equal_times(tmp_path: Path, batch: int) -> None:
    """Many events share a nanosecond, across streams and across the ends of batches."""
    rng = np.random.default_rng(4)
    times = {name: np.sort(rng.integers(0, 12, 60)).astype(np.uint64) + np.uint64(10**18) for name in ("q", "t", "l")}
    quotes = {"ts_ns": times["q"], **{f"{name}_0": rng.uniform(1, 2, 60) + (name == "ask_price")
                                      for name in ("bid_price", "ask_price", "bid_size", "ask_size")}}  # fmt: skip
    trades = {"ts_ns": times["t"], "price": rng.uniform(1, 2, 60), "size": rng.uniform(1, 2, 60)}
    leg = {**quotes, "ts_ns": times["l"]}
    for name, columns in (("a.quotes", quotes), ("a.trades", trades), ("b.quotes", leg)):
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / f"{name}.parquet")
    session = open_session(group_files([tmp_path / "a.quotes.parquet", tmp_path / "a.trades.parquet"])[0],
                           {"B": [tmp_path / "b.quotes.parquet"]}, batch_rows=batch)  # fmt: skip
    seen: list[tuple[str, int, float]] = []
    for chunk in session.chunks():
        streams = {"t": chunk.trades, "q": chunk.quotes, "l": chunk.legs.get("B")}
        there = {name: stream for name, stream in streams.items() if stream is not None}
        order = merge_order(*(stream.ts_init for stream in there.values()))
        for source, row in zip(order.source, order.row, strict=True):
            name, stream = list(there.items())[source]
            price = stream.price[row] if name == "t" else stream.bid_price[row]
            seen.append((name, int(stream.ts_init[row]), float(price)))
    columns = (("t", trades, "price"), ("q", quotes, "bid_price_0"), ("l", leg, "bid_price_0"))
    order = merge_order(*(made["ts_ns"] for _, made, _ in columns))
    last = max(times["q"][-1], times["t"][-1])
    expected = [(name, int(made["ts_ns"][row]), float(made[price][row])) for source, row in
                zip(order.source, order.row, strict=True) for name, made, price in [columns[source]]
                if made["ts_ns"][row] <= last]  # fmt: skip
    assert [(name, ts) for name, ts, _ in seen] == [(name, ts) for name, ts, _ in expected]
    assert np.allclose([price for *_, price in seen], [price for *_, price in expected], rtol=1e-15)


def test_a_day_that_runs_backward_is_sorted_and_told(tmp_path: Path, whole) -> None:
    table = pyarrow.parquet.read_table(DATA[0])
    rows = np.arange(len(table))
    rows[100:200] = rows[100:200][::-1]
    pyarrow.parquet.write_table(table.take(rows), tmp_path / f"{DAY}.quotes.parquet")
    shutil.copy(DATA[1], tmp_path)
    made = compute_features(config(), [tmp_path], batch_rows=64)
    assert made.facts["sessions"][0]["reordered"] == [f"{DAY}.quotes.parquet"]
    assert len(np.unique(whole.ts)) == len(whole.ts)
    same_rows(made, whole)


def test_csv_is_the_same(tmp_path: Path, whole) -> None:
    import pyarrow.csv

    pyarrow.csv.write_csv(pyarrow.parquet.read_table(DATA[0]), tmp_path / f"{DAY}.quotes.csv")
    same_rows(compute_features(config(), [tmp_path / f"{DAY}.quotes.csv", DATA[1]]), whole)


def four_days() -> list[Path]:
    return [sample_data(f"binance_usdm_btcusdt_{day}.{name}.parquet")
            for day in ("20240718", "20230404") for name in ("quotes", "trades")]  # fmt: skip


def test_processes_change_nothing(tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    one = write_features(config(), four_days(), tmp_path / "one.parquet", jobs=1)
    two = write_features(config(), four_days(), tmp_path / "two.parquet", jobs=2,
                         show=lambda *what: said.append(what))  # fmt: skip
    assert (one.processes, two.processes) == (1, 2)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.parquet", "two.parquet"]
    assert said[-1][0] == "writing"
    assert said[-1][1] == said[-1][2]
    table = read_features(tmp_path / "two.parquet")
    assert table.sessions == (DAY, "binance_usdm_btcusdt_20230404")
    same_rows(compute_features(config(), four_days()), table)
    assert np.bincount(table.session).tolist() == [7113, 6765]
    for number, day in enumerate(table.sessions):
        part = table.session == number
        alone = FeaturePlan(TEXTS).compute(read_quotes(sample_data(f"{day}.quotes.parquet")),
                                           read_trades(sample_data(f"{day}.trades.parquet")))  # fmt: skip
        assert table.values[part].tobytes() == alone.values.tobytes(), "each session begins from reset"
    assert table.facts["plan_hash"] == one.plan.hash
    files = table.facts["sessions"][0]["files"]
    assert [entry["name"] for entry in files] == [path.name for path in DATA]
    assert all(len(entry["sha256"]) == 64 for entry in files)


def test_float32_is_what_a_model_eats(tmp_path: Path) -> None:
    norm = (np.full(6, 0.5), np.full(6, 2.0), np.full(6, 1.5))
    write_features(config(normalisation=norm), DATA, tmp_path / "f.parquet", float32=True)
    table = read_features(tmp_path / "f.parquet")
    plan = FeaturePlan(TEXTS, norm)
    raw = compute_features(config(), DATA)
    assert table.values.dtype == np.float32
    assert table.values.tobytes() == plan.normalise(raw.values).tobytes()


def test_arrow_and_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="tables of pandas")
    table = compute_features(config(), four_days()[:2])
    frame = table.to_pandas()
    assert frame.index.tz is not None
    assert isinstance(frame.index, pandas.DatetimeIndex)
    assert list(frame.columns) == ["mid", "ready", *table.names]
    assert frame["rsi @ 1s"].to_numpy().tobytes() == table.values[:, 0].tobytes()
    assert frame.index.as_unit("ns").asi8.tolist() == table.ts.astype(np.int64).tolist()
    arrow = table.to_arrow()
    assert arrow.column_names == ["ts", "mid", "ready", *table.names]
    assert arrow["mid()"].to_numpy().tobytes() == table.values[:, 3].tobytes()


def test_other_instruments_and_sources_are_fed(tmp_path: Path) -> None:
    quotes = read_quotes(DATA[0])
    times = quotes.ts_init[::50]
    pyarrow.parquet.write_table(pyarrow.table({"ts_ns": times, "value_0": np.arange(len(times), dtype=float)}),
                                tmp_path / "x.parquet")  # fmt: skip
    made = config(
        "premium('OTHER')",
        "external_value('X')",
        "leg_age('OTHER')",
        legs={"OTHER": (DATA[0],)},
        external={"X": OutsideInput("values", tmp_path / "x.parquet")},
    )
    for batch in (100, 10**6):
        table = compute_features(made, DATA, batch_rows=batch)
        # At equal times the other instrument's quote is seen after our own, so the premium is that of the quote before.
        mid = 0.5 * (quotes.bid_price + quotes.ask_price)
        assert np.allclose(table.values[1:, 0], 1e4 * (mid[1:] / mid[:-1] - 1), atol=1e-7)
        number = np.searchsorted(times, quotes.ts_init, side="left") - 1
        assert table.values[:, 1].tolist() == np.maximum(number, 0).tolist()


def test_real_depth_and_two_instruments() -> None:
    day = "binance_usdm_btcusdt_20240719"
    files = [shared_data("tick", "binance", f"{day}.{name}.parquet") for name in ("depth10", "trades")]
    eth = shared_data("tick", "binance", "binance_usdm_ethusdt_20240719.quotes.parquet")
    made = config(
        "depth_imbalance(10)", "vpin(5)", "correlation('ETH', window=50)", clock="depth", legs={"ETH": (eth,)}
    )
    small, large = (compute_features(made, files, batch_rows=rows) for rows in (500, 10**6))
    assert small.values.tobytes() == large.values.tobytes()
    assert len(small) > 5000
    assert np.abs(small.values[-1]).min() > 0


@pytest.mark.parametrize(("names", "stems"), [
    (["a.quotes.parquet", "a.trades.parquet", "b.depth10.parquet"], ["a", "b"]),
    (["x_20240101.quotes.csv", "x_20240102.quotes.csv.gz"], ["x_20240101", "x_20240102"]),
    (["AMZN_2012-06-21_message_5.csv", "AMZN_2012-06-21_orderbook_5.csv"], ["AMZN_2012-06-21"]),
    (["BTC-USDT.BINANCE.quotes.parquet", "BTC-USDT.BINANCE.trades.parquet"], ["BTC-USDT.BINANCE"]),
])  # fmt: skip
def test_groups(tmp_path: Path, names: list[str], stems: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    groups = group_files([tmp_path])
    assert [group.name for group in groups] == stems
    if "AMZN" in names[0]:
        assert len(groups[0].paths) == 1, "its reader opens the other of the pair"
    assert group_files([tmp_path / name for name in names]) == groups


def test_files_of_features_in_a_folder_are_passed_over(tmp_path: Path) -> None:
    shutil.copy(DATA[0], tmp_path)
    write_features(config("imbalance"), [tmp_path], tmp_path / "features.parquet")
    write_features(config("imbalance"), [tmp_path], tmp_path / "again.parquet")
    assert (tmp_path / "features.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_files_of_a_leg_follow_each_other(tmp_path: Path) -> None:
    quotes = pyarrow.parquet.read_table(DATA[0])
    for name, rows in (("first", slice(0, 4000)), ("second", slice(4000, 7113)), ("other", slice(3000, 5000))):
        pyarrow.parquet.write_table(quotes[rows], tmp_path / f"{name}.parquet")
    first, second, other = (tmp_path / f"{name}.parquet" for name in ("first", "second", "other"))
    text = ("premium('B')", "correlation('B', window=20)")
    parts = compute_features(config(*text, legs={"B": (second, first)}), DATA, batch_rows=300)
    whole = compute_features(config(*text, legs={"B": (DATA[0],)}), DATA)
    assert parts.values.tobytes() == whole.values.tobytes()
    with pytest.raises(DataConversionError, match=r"first\.parquet and other\.parquet overlap"):
        compute_features(config(*text, legs={"B": (first, other)}), DATA)


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    (tmp_path / "die.py").write_text(
        "import multiprocessing, os, signal\n"
        "if multiprocessing.parent_process() is not None:\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with pytest.raises(FeatureExtractionError, match="one was killed"):
        write_features(config("imbalance"), four_days(), tmp_path / "o.parquet", jobs=2, user=[tmp_path / "die.py"])
    assert [path.name for path in tmp_path.iterdir()] == ["die.py"]


def test_wrong_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(DATA[0], tmp_path / "day.quotes.parquet")
    shutil.copy(DATA[0], empty / "day.quotes.parquet")
    cases = (
        ([tmp_path / "no"], "`data` must be a file or folder"),
        ([], "`data` must name at least one file"),
        ([tmp_path / "day.quotes.parquet", tmp_path / "day.quotes.parquet"], "must name a file once"),
    )
    for paths, text in cases:
        with pytest.raises(DataConversionError, match=text):
            group_files(paths)
    with pytest.raises(DataConversionError, match="must give each stream of a session once, day"):
        open_session(group_files([tmp_path / "day.quotes.parquet", empty / "day.quotes.parquet"])[0])
    damaged = tmp_path / "bad.quotes.parquet"
    damaged.write_bytes(DATA[0].read_bytes()[:-2000])
    out = tmp_path / "out.parquet"
    with pytest.raises(DataConversionError, match=r"bad\.quotes\.parquet"):
        write_features(config(), [damaged], out)
    with pytest.raises(
        ConfigurationError, match="`clock` must name a stream of session day, which has quotes, was 'trad"
    ):
        write_features(config(clock="trade"), [tmp_path / "day.quotes.parquet"], out)
    with pytest.raises(ConfigurationError, match="`jobs` must be >= 1, was 0"):
        write_features(config(), DATA, out, jobs=0)
    with pytest.raises(DataConversionError, match="`batch_rows` must be >= 1, was 0"):
        write_features(config(), DATA, out, batch_rows=0)
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_failing_session_in_a_process_is_an_error_of_the_call(tmp_path: Path) -> None:
    damaged = tmp_path / "bad.quotes.parquet"
    damaged.write_bytes(DATA[0].read_bytes()[:-2000])
    with pytest.raises(DataConversionError, match=r"bad\.quotes\.parquet"):
        write_features(config("imbalance"), [DATA[0], damaged], tmp_path / "out.parquet", jobs=2)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.quotes.parquet"]


def test_a_file_of_features_is_checked(tmp_path: Path) -> None:
    with pytest.raises(DataConversionError, match=r"has no `tengri_fast\.features`"):
        read_features(DATA[0])
    write_features(config(), DATA, tmp_path / "f.parquet")
    assert read_features(tmp_path / "f.parquet", ["rsi @ 1s"]).values.shape == (7113, 1)
    with pytest.raises(DataConversionError, match=r"must be features of f\.parquet, had 'rsi'"):
        read_features(tmp_path / "f.parquet", ["rsi"])
    data = bytearray((tmp_path / "f.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "f.parquet").write_bytes(data)
    with pytest.raises(DataConversionError, match=r"f\.parquet"):
        read_features(tmp_path / "f.parquet")


KEPT: list[object] = []


def test_a_users_feature_of_this_process_is_not_sent_to_others(tmp_path: Path) -> None:
    Doubles = ctypes.POINTER(ctypes.c_double)

    @ctypes.CFUNCTYPE(None, Doubles, Doubles, Doubles)
    def update(state, view, param):
        state[0] = view[3] / 65_000.0

    @ctypes.CFUNCTYPE(ctypes.c_double, Doubles, Doubles)
    def value(state, param):
        return state[0]

    KEPT.extend((update, value))
    addresses = [ctypes.cast(function, ctypes.c_void_p).value for function in (update, value)]
    register_native_feature("session_test_last", *addresses, version="1", unit="1", state=1)
    made = write_features(config("session_test_last"), four_days(), tmp_path / "u.parquet", jobs=2)
    assert made.processes == 1
    assert 0.9 < read_features(tmp_path / "u.parquet").values[0, 0] < 1.1
    assert features_named("session_test_last")[0].name == "session_test_last"


MEMORY = """
import resource, sys
from tengri_fast.features import FeaturePlan
from tengri_fast.features.batch import write_features
from tengri_fast.features.sources_config import FeatureConfig
config = FeatureConfig(FeaturePlan(["imbalance", "spread", "mid_return(1)", "mid_return(2)"]).specs)
for path in sys.argv[1:]:
    write_features(config, [path], path + ".out", batch_rows=16384)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_day(tmp_path: Path) -> None:
    """A day thirty times as long takes 48 MB of numbers more, and hardly more memory."""
    paths = []
    for times in (1, 30):
        count = 20_000 * times
        ts = np.arange(count, dtype=np.uint64) * np.uint64(10**6) + np.uint64(10**18)
        price = 100.0 + (np.arange(count) % 7) * 0.01
        columns = {"ts_ns": ts, "bid_price_0": price, "ask_price_0": price + 0.01, "bid_size_0": price,
                   "ask_size_0": price}  # fmt: skip
        paths.append(tmp_path / f"long{times}.quotes.parquet")
        pyarrow.parquet.write_table(pyarrow.table(columns), paths[-1], row_group_size=50_000)
    done = subprocess.run([sys.executable, "-c", MEMORY, *map(str, paths)], check=True, capture_output=True, text=True)
    short, long = (int(line) for line in done.stdout.split())  # KiB on Linux
    assert pyarrow.parquet.read_metadata(f"{paths[1]}.out").num_rows == 600_000
    assert long - short < 20_000, f"{short} and {long} KiB"
