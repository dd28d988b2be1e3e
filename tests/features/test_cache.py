"""Computed columns on disk: read back bit for bit, dropped when damaged, bounded in size."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import sample_data

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import cache as cache_module
from tengri_fast.features import parse_spec
from tengri_fast.features.cache import ColumnCache, column_key, rows_key
from tengri_fast.features.sources_config import FeatureConfig

pytest.importorskip("pyarrow", reason="the data is Parquet")
from tengri_fast.features.batch import compute_features

DATA = [sample_data(f"binance_usdm_btcusdt_20240718.{name}.parquet") for name in ("quotes", "trades")]
TEXTS = ("rsi(14) @ 1s", "order_flow_imbalance(window='1s')", "mid", "last_move_direction", "imbalance | zscore(50)")


def config(*texts: str, clock: str = "quote") -> FeatureConfig:
    return FeatureConfig(tuple(parse_spec(text) for text in texts or TEXTS), clock)


def equal(first, second) -> None:
    for name in ("ts", "mid", "ready", "values"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name
    for key in ("rows", "events", "ready_from", "ready_after_ns", "counters", "first_ns", "last_ns"):
        assert first.facts["sessions"][0][key] == second.facts["sessions"][0][key], key


def test_what_is_read_back_is_what_was_computed(tmp_path: Path) -> None:
    plain = compute_features(config(), DATA)
    assert plain.ready.any()
    assert not plain.ready.all()
    cache = ColumnCache(tmp_path)
    equal(compute_features(config(), DATA, cache=cache), plain)
    assert (cache.counters.hits, cache.counters.misses) == (0, 5)
    again = ColumnCache(tmp_path)
    equal(compute_features(config(), DATA, cache=again), plain)
    assert (again.counters.hits, again.counters.misses) == (5, 0)
    assert sorted({path.suffix for path in tmp_path.iterdir()}) == [".bin", ".json"]


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    cache = ColumnCache(tmp_path)
    compute_features(config(*TEXTS[:2]), DATA, cache=cache)
    more = config(TEXTS[3], TEXTS[1], TEXTS[4], TEXTS[0])
    equal(compute_features(more, DATA, cache=cache), compute_features(more, DATA))
    assert (cache.counters.hits, cache.counters.misses) == (2, 4)


def test_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "BLOCK_ROWS", 500)
    cache = ColumnCache(tmp_path)
    plain = compute_features(config(), DATA)
    for _ in range(2):
        equal(compute_features(config(), DATA, cache=cache, batch_rows=333), plain)
    assert cache.counters.hits == 5


def test_every_part_of_a_key_counts() -> None:
    spec = parse_spec("rsi(14)")
    keys = {column_key("a", "quote", spec), column_key("b", "quote", spec), column_key("a", "trade", spec),
            column_key("a", "quote", parse_spec("rsi(15)")), column_key("a", "quote", parse_spec("rsi(14) @ 1s")),
            column_key("a", "quote", parse_spec("rsi(14) | clip(3)")), rows_key("a", "quote"),
            rows_key("b", "quote"), rows_key("a", "trade")}  # fmt: skip
    assert len(keys) == 9
    assert column_key("a", "quote", parse_spec("rsi")) == column_key("a", "quote", spec)


def test_the_version_of_the_engine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = column_key("a", "quote", parse_spec("rsi"))
    monkeypatch.setattr(cache_module, "ENGINE_VERSION", cache_module.ENGINE_VERSION + 1)
    assert column_key("a", "quote", parse_spec("rsi")) != before


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 0x10
    path.write_bytes(data)


def cut(path: Path, at: int) -> None:
    path.write_bytes(path.read_bytes()[: at % path.stat().st_size])


def remove(path: Path, at: int) -> None:
    path.unlink()


@pytest.fixture(scope="module")
def plain():
    return compute_features(config(), DATA)


@pytest.mark.parametrize("harm", [flip, cut, remove])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 10**6), at=st.integers(1, 10**7))
def test_damage_is_computed_again(tmp_path: Path, plain, harm, which: int, at: int) -> None:
    compute_features(config(), DATA, cache=ColumnCache(tmp_path))
    files = sorted(tmp_path.iterdir())
    harmed = files[which % len(files)]
    harm(harmed, at)
    cache = ColumnCache(tmp_path)
    equal(compute_features(config(), DATA, cache=cache), plain)
    # Without its JSON an entry is not there at all; otherwise the damage is seen.
    assert cache.counters.damaged == (0 if harm is remove and harmed.suffix == ".json" else 1)
    sound = ColumnCache(tmp_path)
    equal(compute_features(config(), DATA, cache=sound), plain)
    assert (sound.counters.hits, sound.counters.damaged) == (5, 0)


def test_a_foreign_file_of_another_length_is_not_believed(tmp_path: Path, plain) -> None:
    cache = ColumnCache(tmp_path)
    session = plain.facts["sessions"][0]["data_sha256"]
    writer = cache.writer(column_key(session, "quote", parse_spec(TEXTS[0])))
    writer.write(np.zeros(3))
    writer.commit({"ready_from": 0, "ready_after_ns": 0, "counters": {"overflow": 0}, "run": "x"})
    compute_features(config(*TEXTS[1:]), DATA, cache=cache)
    equal(compute_features(config(), DATA, cache=cache), plain)


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = ColumnCache(tmp_path, max_bytes=3 * 9000)
    for number in range(5):
        writer = cache.writer(f"{number}")
        writer.write(np.full(1000, float(number)))
        writer.commit({"n": number})
        os.utime(tmp_path / f"{number}.json", ns=(10**18 + number, 10**18 + number))
    assert cache.get("0").block(5, 7).tolist() == [0.0, 0.0], "read: it counts as used now"
    assert cache.trim() == 2
    assert [cache.get(str(number)) is not None for number in range(5)] == [True, False, False, True, True]
    assert cache.counters.evicted == 2
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= cache.max_bytes
    none = ColumnCache(tmp_path, max_bytes=0)
    none.trim()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_without_room_still_gives_rows(tmp_path: Path, plain) -> None:
    cache = ColumnCache(tmp_path, max_bytes=0)
    equal(compute_features(config(), DATA, cache=cache), plain)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left = [tmp_path / ".abc.123.tmp", tmp_path / "orphan.bin", tmp_path / ".young.9.tmp"]
    for path in left:
        path.write_bytes(b"half")
    old = time.time() - 7200
    for path in left[:2]:
        os.utime(path, (old, old))
    ColumnCache(tmp_path).trim()
    assert list(tmp_path.iterdir()) == [left[2]], "what another process may be writing stays"


def test_a_run_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = ColumnCache(tmp_path)

    def fail() -> None:
        with cache.writers([("a", "column"), ("b", "ts")]) as writers:
            for writer in writers:
                writer.write(np.arange(200_000))
            assert len(list(tmp_path.iterdir())) == 2
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    compute_features(config(), DATA, cache=ColumnCache(tmp_path))
    for path in tmp_path.glob("*.json"):
        head = json.loads(path.read_text())["head"]
        assert head["rows"] * 8 == path.with_suffix(".bin").stat().st_size
    with pytest.raises(FeatureExtractionError, match="`max_bytes` must be >= 0, was -1"):
        ColumnCache(tmp_path, -1)
