"""Thirty seconds of damaged ONNX files; `make fuzz` takes ten minutes, with another seed each time it is given one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import REPOSITORY

SCRIPT = REPOSITORY / "bench" / "soak.py"
SECONDS = 30


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.exists(), reason="bench/ is not part of this installation")
def test_damaged_onnx_files_are_refused_or_run(tmp_path: Path) -> None:
    mark = tmp_path / "case"
    mark.write_bytes(b"%20d" % -1)
    command = [sys.executable, "-X", "faulthandler", SCRIPT, "--part", "loader", "--seconds", str(SECONDS)]
    result = subprocess.run(
        [*map(str, command), "--seed", "3", "--mark", str(mark)],
        capture_output=True, text=True, check=False, timeout=SECONDS + 120,
    )  # fmt: skip
    assert result.returncode == 0, f"died in case {int(mark.read_bytes())} of seed 3:\n{result.stderr}"
    found = json.loads(result.stdout.splitlines()[-1])["result"]
    assert found["violations"] == 0, found["violation_texts"]
    assert found["cases"] > 1_000
    assert found["rejected"] > found["accepted"] > 20
    assert found["files"] > 10
