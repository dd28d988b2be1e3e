"""Recording of live rows: bit for bit, bounded, and readable after the process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FeaturePlan

pytest.importorskip("pyarrow", reason="recordings are Parquet")
import pyarrow.parquet

from tengri_fast.features.recording import FeatureRecorder, join_parts, read_recording
from tengri_fast.features.tables import read_features

PLAN = FeaturePlan(["imbalance", "mid", "mid_return(5)", "rsi(14)"])
START = 1_700_000_000 * 10**9 // (60 * 10**9) * (60 * 10**9)


def live(recorder: FeatureRecorder, count: int, step_ns: int = 3 * 10**9, seed: int = 1):
    """Feed a state as live events do; what was recorded."""
    rng, state, kept = np.random.default_rng(seed), PLAN.state(), []
    price = 65_000.0
    for number in range(count):
        price += rng.choice([-0.1, 0.0, 0.1])
        ts = START + number * step_ns
        assert state.update_quote(price, price + 0.1, *rng.uniform(0.1, 9.0, 2), ts)
        recorder.append_state(ts, state)
        kept.append((ts, state.mid, state.ready, state.row()))
    return kept


def same(table, kept) -> None:
    assert table.ts.tolist() == [ts for ts, *_ in kept]
    assert table.mid.tolist() == [mid for _, mid, *_ in kept]
    assert table.ready.tolist() == [ready for *_, ready, _ in kept]
    assert table.values.tobytes() == np.array([row for *_, row in kept]).tobytes()


def test_round_trip_with_a_row_group_per_minute(tmp_path: Path) -> None:
    path = tmp_path / "live.parquet"
    with FeatureRecorder(path, PLAN) as recorder:
        kept = live(recorder, 205)
        assert recorder.flush() == 200, "the minute that still runs stays in the ring"
        assert not path.exists()
        same(read_recording(path), kept[:200])
    table = read_recording(path)
    same(table, kept)
    assert table.names == ("imbalance", "mid()", "mid_return(lag=5)", "rsi"), "ours is called mid"
    assert table.facts["plan_hash"] == PLAN.hash
    assert table.facts["dropped"] == 0
    file = pyarrow.parquet.ParquetFile(path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [20] * 10 + [5]
    assert list(tmp_path.iterdir()) == [path], "no parts are left"
    minutes = [np.unique(file.read_row_group(i)["ts"].to_numpy() // (60 * 10**9)) for i in range(len(sizes))]
    assert all(len(found) == 1 for found in minutes)


def test_the_ring_is_bounded_and_says_what_it_dropped(tmp_path: Path) -> None:
    recorder = FeatureRecorder(tmp_path / "a.parquet", PLAN, capacity=64)
    size = recorder.nbytes
    kept = live(recorder, 100, step_ns=10**6)
    assert recorder.dropped == 36
    assert recorder.flush() == 64, "half a ring is written although the minute runs"
    more = live(recorder, 10, step_ns=10**6, seed=2)
    recorder.close()
    same(read_features(tmp_path / "a.parquet"), kept[:64] + more)
    assert recorder.nbytes == size
    assert read_features(tmp_path / "a.parquet").facts["dropped"] == 36
    assert recorder.recorded == 74


def test_times_that_run_backward_begin_a_group(tmp_path: Path) -> None:
    with FeatureRecorder(tmp_path / "b.parquet", PLAN) as recorder:
        for minute in (5, 4, 5):
            recorder.append(START + minute * 60 * 10**9, np.zeros(4), 1.0, True)
    table = read_features(tmp_path / "b.parquet")
    assert ((table.ts - np.uint64(START)) // np.uint64(60 * 10**9)).tolist() == [5, 4, 5]
    assert pyarrow.parquet.ParquetFile(tmp_path / "b.parquet").num_row_groups == 3


def test_a_thread_flushes(tmp_path: Path) -> None:
    recorder = FeatureRecorder(tmp_path / "c.parquet", PLAN, capacity=256)
    recorder.start(every_s=0.01)
    kept = []
    for seed in range(8):
        before = recorder.dropped
        part = live(recorder, 100, step_ns=10**9, seed=seed)
        assert recorder.dropped == before
        kept += part
        end = time.monotonic() + 20
        while recorder._head - recorder._tail > 120 and time.monotonic() < end:
            time.sleep(0.005)
    recorder.close()
    same(read_recording(tmp_path / "c.parquet"), kept)
    with pytest.raises(FeatureExtractionError, match="`start` must be called once"):
        recorder.start()


def test_a_flush_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = FeatureRecorder(tmp_path / "d.parquet", PLAN)
    live(recorder, 30)

    def full(tail: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder, "_write", full)
    recorder.start(every_s=0.001)
    recorder._thread.join(20)
    with pytest.raises(FeatureExtractionError, match="No space left on device"):
        recorder.close()


CHILD = """
import sys, time, numpy as np
from tengri_fast.features import FeaturePlan
from tengri_fast.features.recording import FeatureRecorder
plan, start = FeaturePlan(["imbalance", "mid", "mid_return(5)", "rsi(14)"]), int(sys.argv[2])
recorder = FeatureRecorder(sys.argv[1], plan, capacity=4096)
recorder.start(every_s=0.002)
number = 0
while True:
    if recorder.append(start + number * 10**9, np.full(4, float(number)), 0.5 * number, number >= 15):
        number += 1
    if number % 40 == 0:
        time.sleep(0.001)
    if number == 600:
        print("going", flush=True)
"""


def test_a_kill_leaves_every_finished_minute_readable(tmp_path: Path) -> None:
    path = tmp_path / "killed.parquet"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(START)], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"going\n"
        folder = tmp_path / "killed.parquet.parts"
        end = time.monotonic() + 30
        while len(list(folder.glob("part-*.parquet"))) < 3 and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
    # What was being written when the signal came has another name and is not looked at.
    (folder / ".part-000000999.parquet.half").write_bytes(b"PAR1 half a file")
    found = read_recording(path)
    count = len(found)
    assert count >= 120
    assert found.ts.tolist() == [START + number * 10**9 for number in range(count)], "a prefix without a hole"
    assert found.values[:, 0].tolist() == [float(number) for number in range(count)]
    assert found.ready.tolist() == [number >= 15 for number in range(count)]
    with pytest.raises(FeatureExtractionError, match="unfinished recording"):
        FeatureRecorder(path, PLAN)
    assert join_parts(path) == count
    assert read_recording(path).values.tobytes() == found.values.tobytes()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FeatureExtractionError, match="is there"):
        FeatureRecorder(path, PLAN)


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(FeatureExtractionError, match="`capacity` must be >= 2, was 1"):
        FeatureRecorder(tmp_path / "x.parquet", PLAN, capacity=1)
    with pytest.raises(FeatureExtractionError, match="`path` must have parts"):
        join_parts(tmp_path / "x.parquet")
    with pytest.raises(FeatureExtractionError, match="`path` must be a recording"):
        read_recording(tmp_path / "x.parquet")
    recorder = FeatureRecorder(tmp_path / "x.parquet", PLAN)
    with pytest.raises(ValueError, match="broadcast"):
        recorder.append(1, np.zeros(3), 1.0, True)
    recorder.close()
    assert len(read_features(tmp_path / "x.parquet")) == 0
