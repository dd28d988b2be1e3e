from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tengri_fast.cli import main
from tengri_fast.risk.audit_log import AuditLog


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.log"
    with AuditLog(path, sync="none") as writer:
        writer.note(1_721_000_000_000_000_001, "armed", {"by": "start"})
        writer.decide(
            1_721_000_000_000_000_002, True, order="O-1", strategy="S", instrument="X.Y", quantity=1.5, side=-1
        )
        writer.decide(
            1_721_000_000_000_000_003, False, order="O-2", strategy="S", instrument="X.Y", quantity=99.0, price=10.25,
            order_type="LIMIT", reason="TENGRI_RISK:MAX_POSITION value=99 limit=5",
        )  # fmt: skip
    return path


def test_verify(log: Path) -> None:
    done = CliRunner().invoke(main, ["audit", "verify", str(log)])
    assert done.exit_code == 0, done.output
    assert "2, of which 1 denied" in done.output
    assert "the chain holds" in done.output
    told = json.loads(CliRunner().invoke(main, ["audit", "verify", "--json", str(log)]).output)
    assert told["records"] == 3
    assert told["head"] in done.output
    assert CliRunner().invoke(main, ["audit", "verify", "--head", told["head"], str(log)]).exit_code == 0
    cut = CliRunner().invoke(main, ["audit", "verify", "--head", "ab" * 32, str(log)])
    assert cut.exit_code == 1
    assert "cut off or rewritten" in cut.output


def test_verify_finds_a_changed_record(log: Path) -> None:
    data = bytearray(log.read_bytes())
    data[-50] ^= 1
    log.write_bytes(data)
    done = CliRunner().invoke(main, ["audit", "verify", str(log)])
    assert done.exit_code == 1
    assert "NOT SOUND" in done.output


def test_show(log: Path) -> None:
    text = CliRunner().invoke(main, ["audit", "show", str(log)]).output.splitlines()
    assert text[0].split(maxsplit=1)[1] == "2024-07-14T23:33:20.000000001Z armed by=start"
    assert "allowed: submit O-1 of S: sell 1.5 X.Y MARKET" in text[1]
    assert "DENIED: submit O-2 of S: buy 99 X.Y LIMIT at 10.25 TENGRI_RISK:MAX_POSITION value=99 limit=5" in text[2]
    denied = CliRunner().invoke(main, ["audit", "show", "--denied", str(log)]).output.splitlines()
    assert len(denied) == 1
    assert CliRunner().invoke(main, ["audit", "show", "--last", "1", str(log)]).output.splitlines() == text[2:]
    assert CliRunner().invoke(main, ["audit", "show", "--order", "O-1", str(log)]).output.splitlines() == text[1:2]
    rows = [
        json.loads(line) for line in CliRunner().invoke(main, ["audit", "show", "--json", str(log)]).output.splitlines()
    ]
    assert rows[1]["price"] is None
    assert rows[2]["price"] == 10.25


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["audit", "verify", str(tmp_path / "none")])
    assert done.exit_code != 0
    assert "must name an audit log" in str(done.exception) + done.output
