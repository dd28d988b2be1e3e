"""The audit log: written in C, read and verified by plain Python with hashlib."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.audit import Decision, Event, read, verify
from tengri_fast.risk.audit_log import AuditLog

HEADER = 64


def fill(path: Path, count: int, sync: str = "none") -> str:
    with AuditLog(path, sync=sync) as log:  # type: ignore[arg-type]
        for i in range(count):
            log.decide(1_000 + i, i % 3 != 0, order=f"O-{i}", strategy="S", quantity=1.5, reason="" if i % 3 else "NO")
        return log.head


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with AuditLog(path) as log:
        log.note(5, "armed", {"limits": ["max_position"], "share": 0.5})
        log.decide(
            7, False, order="O-1", strategy="Stratégie", instrument="BTC", account="A", side=-1, quantity=2.0,
            price=3.5, order_type="STOP_LIMIT", trigger=3.25, action="modify", reducing=True,
            reason="TENGRI_RISK:X value=1",
        )  # fmt: skip
        log.decide(8, True, order="O-2", order_type="SOMETHING ELSE")
        assert log.count == 3
        head = log.head
    armed, denied, allowed = read(path)
    assert armed == Event(1, 5, "armed", {"limits": ["max_position"], "share": 0.5})
    assert denied == Decision(
        2, 7, False, True, "modify", "O-1", "Stratégie", "BTC", "A", -1, "STOP_LIMIT", 2.0, 3.5, 3.25,
        "TENGRI_RISK:X value=1",
    )  # fmt: skip
    assert isinstance(allowed, Decision)
    assert allowed.order_type == "UNKNOWN"
    assert math.isnan(allowed.price)
    report = verify(path)
    assert (report.sound, report.records, report.decisions, report.denied) == (True, 3, 2, 1)
    assert report.head == head
    assert report.previous == "00" * 32


@given(st.lists(st.tuples(st.text(max_size=300), st.floats(), st.booleans()), max_size=12))
def test_any_text_and_number(rows: list[tuple[str, float, bool]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        with AuditLog(path, sync="none") as log:
            for i, (text, number, flag) in enumerate(rows):
                log.decide(i, flag, order=text.encode("utf-8", "replace").decode(), quantity=number)
        found = list(read(path))
        assert verify(path).sound
        assert len(found) == len(rows)
        for record, (text, number, flag) in zip(found, rows, strict=True):
            assert isinstance(record, Decision)
            assert record.order == text.encode("utf-8", "replace").decode().replace("\0", " ")
            assert struct.pack("<d", record.quantity) == struct.pack("<d", number) or math.isnan(number)
            assert record.allowed == flag


def test_every_changed_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    fill(path, 3)
    data = path.read_bytes()
    for at in range(24, len(data)):  # the bytes before say what the file is, and when it was made
        if 56 <= at < HEADER:
            continue
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        assert not verify(path).sound, at


def test_removed_exchanged_and_inserted_records_are_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    fill(path, 4)
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, HEADER)
    records = [data[HEADER + i * size : HEADER + (i + 1) * size] for i in range(4)]
    for order in ([0, 1, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3], [1, 2, 3]):
        path.write_bytes(data[:HEADER] + b"".join(records[i] for i in order))
        assert not verify(path).sound, order


def test_a_cut_end_shows_against_a_hash_kept_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    head = fill(path, 4)
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, HEADER)
    path.write_bytes(data[: len(data) - size])
    assert verify(path).sound  # by itself it is a shorter log
    report = verify(path, head)
    assert not report.sound
    assert "cut off" in report.fault
    path.write_bytes(data)
    assert verify(path, head).sound
    with AuditLog(path, sync="none") as log:
        log.note(9, "more")
    assert verify(path, head).sound  # it may have grown since


@pytest.mark.parametrize("keep", [0, 3, 8, 23, 24, 60, 90, 103])
def test_an_unfinished_record_is_taken_away(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "audit.log"
    fill(path, 3)
    whole = path.read_bytes()
    (size,) = struct.unpack_from("<I", whole, HEADER)
    end = len(whole) - size
    # What a crash leaves: the first bytes of a record, then the reserved zeros.
    path.write_bytes(whole[: end + keep] + bytes(4096 - keep))
    assert verify(path).sound is (not whole[end : end + keep].rstrip(b"\0"))
    with AuditLog(path, sync="none") as log:
        expected = len(whole[end : end + keep].rstrip(b"\0"))
        assert log.removed == expected
        log.decide(9, True, order="after")
    names = [r.order if isinstance(r, Decision) else r.name for r in read(path)]
    assert names == ["O-0", "O-1", *(["recovered"] if expected else []), "after"]
    assert verify(path).sound


def test_a_record_without_its_size_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    fill(path, 3)
    whole = path.read_bytes()
    (size,) = struct.unpack_from("<I", whole, HEADER)
    end = len(whole) - size
    # The size is written last: this is what a reader sees of a log that is being written.
    path.write_bytes(whole[:end] + bytes(8) + whole[end + 8 :] + bytes(4096))
    report = verify(path)
    assert (report.sound, report.records) == (True, 2)
    assert report.unfinished > 0
    with AuditLog(path, sync="none") as log:
        assert log.removed == report.unfinished
    # One in the middle that lost its size was changed: what follows it still fits.
    path.write_bytes(whole[:HEADER] + bytes(8) + whole[HEADER + 8 :])
    assert not verify(path).sound


def test_damage_before_the_end_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    fill(path, 5)
    data = bytearray(path.read_bytes())
    data[HEADER + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="damaged before its end"):
        AuditLog(path)
    assert path.read_bytes() == data


WRITER = """
import sys, time
from tengri_fast.risk.audit_log import AuditLog
log = AuditLog(sys.argv[1], sync=sys.argv[2])
i = 0
while True:
    log.decide(i, True, order=f"O-{i}", reason="x" * (i % 97))
    i += 1
    if i % 50 == 0:
        print(i, flush=True)
"""


@pytest.mark.parametrize("sync", ["none", "100ms", "order"])
def test_what_was_acknowledged_survives_a_killed_process(tmp_path: Path, sync: str) -> None:
    path = tmp_path / "audit.log"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), sync], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = 0
        while told < 500:
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        told = max([told, *map(int, rest)])
        child.wait()
    with AuditLog(path, sync="none") as log:
        log.note(0, "after")
    records = [record for record in read(path) if isinstance(record, Decision)]
    assert len(records) >= told
    assert [record.order for record in records] == [f"O-{i}" for i in range(len(records))]
    assert verify(path).sound


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with AuditLog(path) as log:
        log.note(1, "first")
        with pytest.raises(ConfigurationError, match="another process has it open"):
            AuditLog(path)
        assert verify(path).records == 1  # reading does not disturb
    with AuditLog(path) as log:
        assert log.count == 1


def test_a_log_continues_another(tmp_path: Path) -> None:
    head = fill(tmp_path / "first", 2)
    with AuditLog(tmp_path / "second", previous=head, sync="none") as log:
        log.note(1, "opened")
    assert verify(tmp_path / "second").previous == head


def test_it_grows_beyond_what_it_reserved(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    text = "y" * 4_000
    with AuditLog(path, sync="none") as log:
        for i in range(1_500):
            log.decide(i, False, order=text, reason=text)
    assert path.stat().st_size > 8_000_000
    report = verify(path)
    assert (report.sound, report.records) == (True, 1_500)


def test_a_disk_without_space_refuses_and_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    script = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
from tengri_fast.errors import DataConversionError
from tengri_fast.risk.audit_log import AuditLog
log = AuditLog({str(path)!r}, sync="none")
n = 0
try:
    while True:
        log.decide(n, True, order="z" * 4000)
        n += 1
except DataConversionError as error:
    print(n, error)
log.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    written, message = done.stdout.split(maxsplit=1)
    assert "could not be written" in message
    report = verify(path)
    assert (report.sound, report.records) == (True, int(written))
    assert int(written) > 900


def test_hostile_arguments(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a log, but longer than the header of one, so that it is looked at and then refused")
    for path, what in ((other, "another kind"), (tmp_path, "directory"), (tmp_path / "no" / "such", "No such file")):
        with pytest.raises(ConfigurationError, match=what):
            AuditLog(path)
    assert other.read_text().startswith("not a log")
    with pytest.raises(ConfigurationError, match="`sync` must be one of order, 100ms, none, was 'often'"):
        AuditLog(tmp_path / "a", sync="often")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
        AuditLog(tmp_path / "a", previous="abc")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError):
        AuditLog(tmp_path / "link")
    with pytest.raises(DataConversionError, match="is not an audit log"):
        verify(other)
    with pytest.raises(ConfigurationError, match="must name an audit log"):
        verify(tmp_path / "nothing")
    log = AuditLog(tmp_path / "a")
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(log)
    log.close()
    log.close()
    for use in (lambda: log.note(1, "x"), lambda: log.decide(1, True, order="x"), lambda: log.head):
        with pytest.raises(DataConversionError, match="closed"):
            use()
    assert log.count == 0


def test_a_long_note_is_cut_and_stays_readable(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "a", sync="none") as log:
        log.note(1, "reload", {"text": "ü" * 100_000})
    (event,) = read(tmp_path / "a")
    assert isinstance(event, Event)
    assert event.name == "reload"
    assert len(event.facts["truncated"]) > 1_000


def test_the_chain_is_sha256_of_what_the_format_says(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with AuditLog(path, sync="none") as log:
        for size in (0, 1, 7, 31, 32, 55, 56, 63, 64, 65, 119, 120, 1000, 4096):
            log.decide(size, True, order="q" * size)
    data, at, chain = path.read_bytes(), HEADER, bytes(32)
    for _ in range(14):
        (size,) = struct.unpack_from("<I", data, at)
        chain = hashlib.sha256(chain + data[at : at + size - 32]).digest()
        assert data[at + size - 32 : at + size] == chain
        at += size
    assert at == len(data)


def test_the_background_writer_ends_with_the_log(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "a", sync="100ms")
    log.note(1, "x")
    time.sleep(0.15)
    assert log.failure is None
    log.flush()
    log.close()
    assert os.path.getsize(tmp_path / "a") < 1_000
