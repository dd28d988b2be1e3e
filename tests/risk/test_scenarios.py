"""Scenario sets: what they refuse, files that survive, returns that match a plain loop."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from support import sample_data

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import ScenarioSet, scenario_builder

SECOND = 10**9


def _set(n=3, s=20, seed=0):
    rng = np.random.default_rng(seed)
    return ScenarioSet([f"I{i}" for i in range(n)], rng.normal(0, 0.01, (n, s)), 60 * SECOND, {"from": "a test"})


def test_layout():
    scenarios = _set()
    assert scenarios.returns.dtype == np.float32
    assert scenarios.returns.flags.c_contiguous
    assert not scenarios.returns.flags.writeable
    assert scenarios.count == 20
    assert scenarios.row("I2") == 2
    assert scenarios.row("nobody") is None


def test_the_callers_array_stays_his():
    raw = np.zeros((1, 5), dtype=np.float32)
    scenarios = ScenarioSet(["A"], raw, 1)
    raw[0, 0] = 9.0
    assert scenarios.returns[0, 0] == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.5, 1e39])
def test_bad_returns_are_named_by_instrument_and_scenario(bad):
    returns = np.zeros((2, 4))
    returns[1, 2] = bad
    with pytest.raises(DataConversionError, match="for B in scenario 2"):
        ScenarioSet(["A", "B"], returns, 1)


@pytest.mark.parametrize(
    ("names", "returns", "horizon", "words"),
    [
        ([], np.zeros((0, 3)), 1, "instrument_ids"),
        (["A", "A"], np.zeros((2, 3)), 1, "there twice"),
        ([""], np.zeros((1, 3)), 1, "instrument_ids"),
        (["A"], np.zeros(3), 1, "shape"),
        (["A"], np.zeros((2, 3)), 1, "shape"),
        (["A"], np.zeros((1, 0)), 1, "shape"),
        (["A"], np.array([["x"]]), 1, "dtype"),
        (["A"], np.array([[None]], dtype=object), 1, "dtype"),
        (["A"], np.zeros((1, 3)), 0, "horizon_ns"),
        (["A"], np.zeros((1, 3)), 1.5, "horizon_ns"),
    ],
)
def test_malformed_sets_are_refused(names, returns, horizon, words):
    with pytest.raises(DataConversionError, match=words):
        ScenarioSet(names, returns, horizon)


def test_file_round_trip(tmp_path):
    path = tmp_path / "scenarios.npz"
    scenarios = _set()
    scenarios.to_file(path)
    first = path.read_bytes()
    again = ScenarioSet.from_file(path)
    assert again.instrument_ids == scenarios.instrument_ids
    assert again.horizon_ns == scenarios.horizon_ns
    assert again.provenance == {"from": "a test"}
    np.testing.assert_array_equal(again.returns, scenarios.returns)
    again.to_file(path)
    assert path.read_bytes() == first
    assert [item.name for item in tmp_path.iterdir()] == ["scenarios.npz"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "scenarios.npz"
    _set(seed=1).to_file(path)
    before = path.read_bytes()

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError("disk is full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk is full"):
        _set(seed=2).to_file(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["scenarios.npz"]


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "scenarios.npz"
    with pytest.raises(ConfigurationError, match="does not exist"):
        ScenarioSet.from_file(path)
    _set().to_file(path)
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 3, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(DataConversionError, match=r"scenarios\.npz"):
            ScenarioSet.from_file(path)
    middle = bytearray(whole)
    at = whole.index(_set().returns.tobytes()) + 8
    middle[at] ^= 0xFF
    path.write_bytes(bytes(middle))
    with pytest.raises(DataConversionError, match=r"scenarios\.npz"):
        ScenarioSet.from_file(path)
    path.write_bytes(b"hello, this is not an archive at all")
    with pytest.raises(DataConversionError, match="not a scenario file"):
        ScenarioSet.from_file(path)


def test_python_objects_in_a_file_are_refused(tmp_path):
    path = tmp_path / "evil.npz"
    arrays = {"format": 1, "returns": np.zeros((1, 3)), "horizon_ns": 1, "provenance": "{}"}
    np.savez(path, instrument_ids=np.array(["A"], dtype=object), **arrays)
    with pytest.raises(DataConversionError, match="allow_pickle"):
        ScenarioSet.from_file(path)
    np.savez(path, instrument_ids=np.array(["A"]), **{**arrays, "format": 7})
    with pytest.raises(DataConversionError, match="format"):
        ScenarioSet.from_file(path)
    np.savez(path, instrument_ids=np.array(["A"]), **{**arrays, "provenance": "[1]"})
    with pytest.raises(DataConversionError, match="provenance"):
        ScenarioSet.from_file(path)
    arrays.pop("horizon_ns")
    np.savez(path, instrument_ids=np.array(["A"]), **arrays)
    with pytest.raises(DataConversionError, match="horizon_ns"):
        ScenarioSet.from_file(path)


def test_from_prices_is_a_plain_loop():
    rng = np.random.default_rng(4)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0, 0.01, (50, 2)), axis=0))
    scenarios = ScenarioSet.from_prices(["A", "B"], prices, step_ns=SECOND, horizon_ns=5 * SECOND)
    expected = [[prices[t + 5, i] / prices[t, i] - 1.0 for t in range(45)] for i in range(2)]
    np.testing.assert_array_equal(scenarios.returns, np.array(expected, dtype=np.float32))
    recent = ScenarioSet.from_prices(["A", "B"], prices, step_ns=SECOND, horizon_ns=5 * SECOND, max_scenarios=7)
    np.testing.assert_array_equal(recent.returns, scenarios.returns[:, -7:])
    assert scenarios.provenance["overlapping"] == "yes"


@pytest.mark.parametrize("bad", [math.nan, 0.0, -5.0, math.inf])
def test_from_prices_names_the_bad_price(bad):
    prices = np.full((10, 2), 5.0)
    prices[3, 1] = bad
    with pytest.raises(DataConversionError, match="for B in row 3"):
        ScenarioSet.from_prices(["A", "B"], prices, step_ns=1, horizon_ns=2)


def test_from_prices_checks_shape_and_times():
    with pytest.raises(DataConversionError, match="one column per instrument"):
        ScenarioSet.from_prices(["A"], np.ones((10, 2)), step_ns=1, horizon_ns=1)
    with pytest.raises(DataConversionError, match="multiple of `step_ns`"):
        ScenarioSet.from_prices(["A"], np.ones(10), step_ns=2, horizon_ns=3)
    with pytest.raises(DataConversionError, match="more than 10 rows"):
        ScenarioSet.from_prices(["A"], np.ones(10), step_ns=1, horizon_ns=10)
    with pytest.raises(DataConversionError, match="step_ns"):
        ScenarioSet.from_prices(["A"], np.ones(10), step_ns=0, horizon_ns=10)
    with pytest.raises(DataConversionError, match="dtype"):
        ScenarioSet.from_prices(["A"], ["x"], step_ns=1, horizon_ns=1)


def _naive_builder(ts, mid, horizon, step, max_gap):
    """Walk the whole grid, second by second, and look everything up anew."""
    good = [(int(t), float(m)) for t, m in zip(ts, mid, strict=True) if math.isfinite(m) and m > 0]
    kept, newest = [], -1
    for t, m in good:
        if t >= newest:
            kept.append((t, m))
            newest = t

    def at(when):
        known = [(t, m) for t, m in kept if t <= when]
        later = [t for t, _ in kept if t >= when]
        covered = known and later and (known[-1][0] == when or later[0] - known[-1][0] <= max_gap)
        return known[-1][1] if covered else None

    out = []
    when = -(-kept[0][0] // step) * step
    while when + horizon <= kept[-1][0]:
        path = [at(when + k * step) for k in range(horizon // step + 1)]
        if all(value is not None for value in path):
            out.append(path[-1] / path[0] - 1.0)
        when += step
    return np.array(out, dtype=np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_builder_equals_a_naive_walk(seed):
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(0.7 * SECOND, 120).astype(np.int64)
    gaps[40], gaps[80] = 30 * SECOND, 3 * SECOND
    ts = 1000 * SECOND + 123 + np.cumsum(gaps)
    mid = 50.0 * np.exp(np.cumsum(rng.normal(0, 1e-3, 120)))
    mid[[5, 17]] = math.nan, -1.0
    ts[60] = ts[50]  # time goes back
    built = scenario_builder({"A": (ts, mid)}, horizon_ns=4 * SECOND, max_gap_ns=2 * SECOND)
    expected = _naive_builder(ts, mid, 4 * SECOND, SECOND, 2 * SECOND)
    assert built.count == expected.size > 10
    np.testing.assert_array_equal(built.returns[0], expected)


def test_builder_aligns_instruments_and_needs_both():
    ts = np.arange(0, 30) * SECOND
    a = (ts, np.linspace(100, 130, 30))
    quiet = (ts[10:20], np.linspace(7, 8, 10))
    built = scenario_builder({"A": a, "B": quiet}, horizon_ns=2 * SECOND, max_gap_ns=SECOND)
    expected = [a[1][t + 2] / a[1][t] - 1 for t in range(10, 18)]  # B speaks from second 10 to 19
    np.testing.assert_allclose(built.returns[0], expected, rtol=1e-5)
    assert built.count == 8


def test_builder_takes_quote_columns_and_drops_crossed_quotes():
    ts = np.arange(8, dtype=np.uint64) * np.uint64(SECOND)
    bid = np.array([10, 11, 99, 13, 14, 15, 16, 17.0])
    ask = bid + 0.2
    ask[2] = 12.0
    columns = SimpleNamespace(ts_event=ts, bid_price=bid, ask_price=ask)
    built = scenario_builder({"A": columns}, horizon_ns=SECOND)
    mids = [10.1, 11.1, 11.1, 13.1, 14.1, 15.1, 16.1, 17.1]
    np.testing.assert_allclose(built.returns[0], np.array(mids[1:]) / np.array(mids[:-1]) - 1, rtol=1e-5, atol=1e-9)


def test_builder_refuses_what_it_cannot_use():
    ts = np.arange(5) * SECOND
    with pytest.raises(DataConversionError, match="at least one stretch"):
        scenario_builder({"A": (ts, np.ones(5))}, horizon_ns=60 * SECOND)
    with pytest.raises(DataConversionError, match="at least one valid quote"):
        scenario_builder({"A": (ts, np.full(5, math.nan))}, horizon_ns=SECOND)
    with pytest.raises(DataConversionError, match="as many as mids"):
        scenario_builder({"A": (ts, np.ones(4))}, horizon_ns=SECOND)
    with pytest.raises(DataConversionError, match="times must be integers"):
        scenario_builder({"A": (ts.astype(float), np.ones(5))}, horizon_ns=SECOND)
    with pytest.raises(DataConversionError, match="at least one instrument"):
        scenario_builder({}, horizon_ns=SECOND)
    with pytest.raises(DataConversionError, match="max_gap_ns"):
        scenario_builder({"A": (ts, np.ones(5))}, horizon_ns=SECOND, max_gap_ns=5)
    with pytest.raises(DataConversionError, match="multiple"):
        scenario_builder({"A": (ts, np.ones(5))}, horizon_ns=SECOND + 1)


def test_builder_on_real_quotes_spans_no_gap_between_days():
    parquet = pytest.importorskip("pyarrow.parquet", reason="the sample is Parquet")
    ts, mid = [], []
    for day in ("20230404", "20230405", "20240718"):
        path = sample_data(f"binance_usdm_btcusdt_{day}.quotes.parquet")
        if not path.exists():
            pytest.skip(f"{path.name} is not in this checkout")
        table = parquet.read_table(path, columns=["ts_ns", "bid_price_0", "ask_price_0"])
        ts.append(table["ts_ns"].to_numpy())
        mid.append(0.5 * (table["bid_price_0"].to_numpy() + table["ask_price_0"].to_numpy()))

    def count(*days):
        series = (np.concatenate([ts[d] for d in days]), np.concatenate([mid[d] for d in days]))
        return scenario_builder({"BTC": series}, horizon_ns=60 * SECOND)

    built = count(0, 1, 2)
    assert built.count == count(0, 1).count + count(2).count > 500
    assert count(0, 1).count > count(0).count + count(1).count  # these two meet at midnight without a gap
    assert float(np.abs(built.returns).max()) < 0.02  # a minute, not the year between the days
    assert built.provenance["windows"] == "2"
