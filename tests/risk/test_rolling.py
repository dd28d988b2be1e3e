"""Rolling scenarios: bit for bit those of the builder, through gaps, disorder, files and restarts."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk import ScenarioSet, scenario_builder
from tengri_fast.risk.rolling import RollingScenarios

STEP, GAP = 10, 35


def _rolling(names=("A", "B"), **changes):
    given = {"horizon_ns": 3 * STEP, "step_ns": STEP, "max_gap_ns": GAP, "max_scenarios": 400, "min_scenarios": 1}
    return RollingScenarios(names, **{**given, **changes})


def _ticks(rng, count, dense=0.9):
    """Times with repeats, exact hits on the grid, short and long silences; mids that walk."""
    steps = np.where(rng.random(count) < dense, rng.integers(0, 14, count), rng.integers(20, 120, count))
    ts = 1_000_000 + np.cumsum(steps)
    on_grid = rng.random(count) < 0.2
    ts = np.where(on_grid, ts - ts % STEP, ts)
    ts = np.maximum.accumulate(ts)
    return ts, 100.0 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))


def _feed(rolling, series):
    """All instruments merged by time, as an engine delivers them."""
    merged = [
        (int(t), k, name, float(m))
        for name, (ts, mid) in series.items()
        for k, (t, m) in enumerate(zip(ts, mid, strict=True))
    ]
    for t, _, name, m in sorted(merged, key=lambda row: (row[0], row[1])):
        rolling.on_mid(rolling.row(name), m, t)


def _same(rolling, series, most=None):
    built = rolling.build()
    try:
        expected = scenario_builder(
            series, horizon_ns=rolling.horizon_ns, step_ns=STEP, max_gap_ns=GAP, max_scenarios=most
        )
    except DataConversionError:
        assert built is None
        return 0
    assert built is not None
    assert built.instrument_ids == expected.instrument_ids
    assert built.horizon_ns == expected.horizon_ns
    np.testing.assert_array_equal(built.returns, expected.returns)
    return built.count


def test_equal_to_the_builder_on_many_histories():
    seen = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        names = ["A", "B", "C"][: rng.integers(1, 4)]
        series = {name: _ticks(rng, int(rng.integers(5, 300)), rng.uniform(0.8, 1.0)) for name in names}
        rolling = _rolling(names, horizon_ns=STEP * int(rng.integers(1, 6)), window=2000)
        _feed(rolling, series)
        seen.append(_same(rolling, series, 400))
        assert rolling.backward == rolling.invalid == 0
    assert sum(count == 0 for count in seen) < 60
    assert max(seen) > 100


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60), st.integers(50, 150)), max_size=80))
@settings(max_examples=150, deadline=None)
def test_equal_to_the_builder_by_any_events(events):
    """Times that go back are in: both drop them, per instrument."""
    series: dict[str, tuple[list[int], list[float]]] = {"A": ([], []), "B": ([], [])}
    rolling = _rolling(window=500)
    clock = 0
    for which, change, price in events:
        clock = max(clock + change - 8, 0)
        name = "AB"[which]
        series[name][0].append(clock)
        series[name][1].append(float(price))
        rolling.on_mid(which, float(price), clock)
    if all(ts for ts, _ in series.values()):
        _same(rolling, {n: (np.array(t, dtype=np.int64), np.array(m)) for n, (t, m) in series.items()}, 400)
    dropped = sum(sum(t < max(ts[:k], default=0) for k, t in enumerate(ts)) for ts, _ in series.values())
    assert rolling.backward == dropped


def test_only_the_window_is_kept():
    rng = np.random.default_rng(5)
    ts = np.arange(0, 5000, STEP // 2, dtype=np.int64)
    series = {"A": (ts, 100 + rng.random(ts.size)), "B": (ts, 50 + rng.random(ts.size))}
    rolling = _rolling(window=60)
    _feed(rolling, series)
    tail = {name: (t[t >= 5000 - 60 * STEP], m[t >= 5000 - 60 * STEP]) for name, (t, m) in series.items()}
    assert _same(rolling, tail) == 60 - 3


def test_a_silence_of_ages_costs_nothing_and_leaves_nothing_stale():
    rolling = _rolling(["A"], window=50)
    for k in range(40):
        rolling.on_mid(0, 100.0 + k, k * STEP)
    assert rolling.build().count == 37
    rolling.on_mid(0, 7.0, 10**17)
    assert rolling.build() is None
    for k in range(1, 6):
        rolling.on_mid(0, 7.0 * 2**k, 10**17 + k * STEP)
    np.testing.assert_array_equal(rolling.build().returns, [[7.0, 7.0, 7.0]])


def test_values_that_are_no_prices_are_counted_and_change_nothing():
    rolling, clean = _rolling(["A"]), _rolling(["A"])
    for k in range(20):
        for each in (rolling, clean):
            each.on_mid(0, 100.0 + k, k * STEP + 3)
        for bad in (math.nan, math.inf, -1.0, 0.0):
            rolling.on_mid(0, bad, k * STEP + 5)
        rolling.on_mid(0, 100.0, -5)
        rolling.on_mid(0, 100.0, k * STEP + 2)
        rolling.on_quote("A", 101.0, 100.0, k * STEP + 5)
        rolling.on_quote("A", math.nan, 100.0, k * STEP + 5)
        rolling.on_quote("A", 99.0, math.inf, k * STEP + 5)
    assert rolling.invalid == 20 * 8
    assert rolling.backward == 20
    np.testing.assert_array_equal(rolling.build().returns, clean.build().returns)


def test_quotes_by_name_are_mids():
    by_name, by_row = _rolling(["A"]), _rolling(["A"])
    for k in range(20):
        by_name.on_quote("A", 99.0 + k, 100.0 + k, k * STEP)
        by_row.on_mid(0, 99.5 + k, k * STEP)
    np.testing.assert_array_equal(by_name.build().returns, by_row.build().returns)
    with pytest.raises(DataConversionError, match=r"`instrument_id`.*'Z'"):
        by_name.on_quote("Z", 1.0, 1.0, 1)
    for row in (-1, 1):
        with pytest.raises(DataConversionError, match=f"`row` must be within 0 and 0, was {row}"):
            by_name.on_mid(row, 1.0, 1)


def test_poll_builds_when_due_and_gives_up_what_cannot_be_renewed():
    rolling = _rolling(["A"], min_scenarios=5, refresh_ns=100, window=30)
    assert not rolling.ready
    assert rolling.poll(0) is None
    for k in range(12):
        rolling.on_mid(0, 100.0 + k, k * STEP)
    assert rolling.poll(99) is None
    first = rolling.poll(100)
    assert isinstance(first, ScenarioSet)
    assert rolling.ready
    assert rolling.scenarios is first
    assert first.count == 9
    assert first.provenance["source"] == "rolling"
    assert (first.provenance["first_ns"], first.provenance["last_ns"]) == ("0", str(11 * STEP))
    assert rolling.poll(150) is None
    assert rolling.scenarios is first
    rolling.on_mid(0, 100.0, 10_000)
    assert rolling.poll(300) is None
    assert not rolling.ready


def test_returns_without_bound_close_the_gate():
    rolling = _rolling(["A"], refresh_ns=1)
    for k in range(10):
        rolling.on_mid(0, 100.0, k * STEP)
    assert rolling.poll(0).count == 7
    rolling.on_mid(0, 1e300, 10 * STEP)
    with pytest.raises(DataConversionError, match="too far apart"):
        rolling.poll(5)
    assert not rolling.ready


def test_too_few_scenarios_are_none():
    rolling = _rolling(["A"], min_scenarios=10)
    assert rolling.build() is None
    for k in range(13):
        rolling.on_mid(0, 100.0, k * STEP)
        assert (rolling.build() is None) == (k < 12)


def test_warm_start_is_the_same_as_having_run():
    rng = np.random.default_rng(3)
    series = {"A": _ticks(rng, 400), "B": _ticks(rng, 380)}
    run, warm = _rolling(), _rolling()
    _feed(run, series)
    warm.warm({"B": series["B"], "A": series["A"]})
    np.testing.assert_array_equal(run.build().returns, warm.build().returns)


def test_a_warm_start_is_all_or_nothing():
    rolling = _rolling()
    good = (np.arange(50) * STEP, np.full(50, 2.0))
    for bad, words in (
        ({"A": good, "Z": good}, "'Z'"),
        ({"A": good, "B": (np.arange(2), np.full(2, math.nan))}, "at least one valid quote"),
        ({"A": good, "B": (np.array([-4, 5]), np.ones(2))}, "times must be >= 0"),
        ({"A": good, "B": (np.array([0.5]), np.ones(1))}, "integers"),
    ):
        with pytest.raises(DataConversionError, match=words):
            rolling.warm(bad)
        assert rolling.head_ns == -1


def test_a_restart_in_the_middle_changes_nothing(tmp_path):
    rng = np.random.default_rng(8)
    series = {"A": _ticks(rng, 300), "B": _ticks(rng, 300)}
    path = tmp_path / "rolling.npz"
    for cut in (0, 1, 150, 299):
        whole, first, second = _rolling(), _rolling(), _rolling()
        _feed(whole, series)
        middle = series["A"][0][cut]
        _feed(first, {n: (t[t <= middle], m[t <= middle]) for n, (t, m) in series.items()})
        first.to_file(path)
        second.restore(path)
        assert second.build() is None or np.array_equal(second.build().returns, first.build().returns)
        _feed(second, {n: (t[t > middle], m[t > middle]) for n, (t, m) in series.items()})
        np.testing.assert_array_equal(second.build().returns, whole.build().returns)
    assert [item.name for item in tmp_path.iterdir()] == ["rolling.npz"]


def test_a_file_for_other_instruments_and_another_window(tmp_path):
    path = tmp_path / "rolling.npz"
    old = _rolling(["A", "B"], window=300)
    for k in range(200):
        old.on_mid(0, 100.0 + k, k * STEP)
        old.on_mid(1, 50.0 + k, k * STEP)
    old.to_file(path)
    new = _rolling(["C", "B"], window=40)
    new.restore(path)
    assert new.build() is None
    alone = _rolling(["B"], window=40)
    alone.restore(path)
    np.testing.assert_array_equal(alone.build().returns[0], old.build().returns[1, -37:])
    with pytest.raises(ConfigurationError, match="`step_ns` must be 5, was 10"):
        _rolling(["A"], step_ns=5).restore(path)
    with pytest.raises(ConfigurationError, match="`max_gap_ns` must be 36, was 35"):
        _rolling(["A"], max_gap_ns=36).restore(path)


def test_damaged_files_change_nothing(tmp_path):
    path = tmp_path / "rolling.npz"
    old = _rolling(["A"])
    for k in range(30):
        old.on_mid(0, 100.0 + k, k * STEP)
    old.to_file(path)
    whole = path.read_bytes()
    here = _rolling(["A"])
    for k in range(10):
        here.on_mid(0, 5.0 + k, k * STEP)
    before = here.build().returns
    with pytest.raises(ConfigurationError, match="does not exist"):
        here.restore(tmp_path / "none.npz")
    for length in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(DataConversionError, match=r"rolling\.npz"):
            here.restore(path)
    arrays = dict(np.load(_file(tmp_path, whole), allow_pickle=False))
    for key, value, words in (
        ("prices", np.where(arrays["prices"] == 110.0, math.nan, arrays["prices"]), "`prices` must be finite and > 0"),
        ("prices", arrays["prices"].astype(np.float32), "`prices` must be float64"),
        ("last_mid", -arrays["last_mid"], "`last_mid` must be finite and > 0"),
        ("stamps", np.roll(arrays["stamps"], 1, axis=1), "must fit together"),
        ("stamps", arrays["stamps"] + 803 * (arrays["stamps"] >= 0), "must fit together"),
        ("last_ts", np.array([-7]), "must fit together"),
        ("format", np.int64(9), "`format` must be 1, was 9"),
        ("settings", np.array("[]"), "`settings`"),
        ("instrument_ids", np.array(["A", "B"]), "one row for each of 2"),
    ):
        np.savez(path, **{**arrays, key: value})
        with pytest.raises(DataConversionError, match=words):
            here.restore(path)
    np.savez(path, **{key: value for key, value in arrays.items() if key != "stamps"})
    with pytest.raises(DataConversionError, match="stamps"):
        here.restore(path)
    np.savez(path, **{**arrays, "prices": np.array([object()], dtype=object)}, allow_pickle=True)
    with pytest.raises(DataConversionError, match="not a file of rolling scenarios"):
        here.restore(path)
    np.testing.assert_array_equal(here.build().returns, before)


def _file(folder, content):
    path = folder / "copy.npz"
    path.write_bytes(content)
    return path


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "rolling.npz"
    _rolling(["A"]).to_file(path)
    before = path.read_bytes()

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError("disk is full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk is full"):
        _rolling(["A"]).to_file(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["rolling.npz"]


def test_reset_forgets():
    rolling = _rolling(["A"])
    for k in range(30):
        rolling.on_mid(0, 100.0 + k, k * STEP)
    rolling.on_mid(0, math.nan, 0)
    rolling.poll(0)
    rolling.reset()
    assert (rolling.invalid, rolling.ready, rolling.head_ns) == (0, False, -1)
    assert rolling.build() is None
    rolling.on_mid(0, 1.0, 5)
    assert rolling.backward == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"instrument_ids": []}, "`instrument_ids`"),
        ({"instrument_ids": "A"}, "`instrument_ids`"),
        ({"instrument_ids": ["A", "A"]}, "'A' is there twice"),
        ({"step_ns": 0}, "`step_ns` must be an integer >= 1, was 0"),
        ({"horizon_ns": 15}, r"`horizon_ns` must be a multiple of `step_ns` \(10\), was 15"),
        ({"horizon_ns": True}, "`horizon_ns` must be an integer"),
        ({"max_gap_ns": 5}, "`max_gap_ns` must be >= `step_ns`"),
        ({"min_scenarios": 401}, "`min_scenarios` must be <= `max_scenarios`"),
        ({"min_scenarios": 50, "window": 52}, "`window` must be >= 53"),
        ({"refresh_ns": 0.5}, "`refresh_ns` must be an integer"),
        ({"window": 1 << 31}, "`window` times instruments"),
    ],
)
def test_settings_are_checked(changes, words):
    given = {"instrument_ids": ["A"], "horizon_ns": 30, "step_ns": 10, "max_gap_ns": 35, "max_scenarios": 400}
    with pytest.raises(ConfigurationError, match=words):
        RollingScenarios(**{**given, "min_scenarios": 1, **changes})


def test_pickling_is_refused():
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(_rolling())
