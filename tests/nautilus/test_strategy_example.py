"""The Python example runs on the sample data that ships, with any model, and stays short."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")

from model_on_disk import write_model
from support import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "python_strategy.py"


def test_it_is_under_forty_lines() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 40


@pytest.mark.slow
def test_it_trades_the_sample(tmp_path: Any) -> None:
    model = write_model(tmp_path, gain=8.0)
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(model)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    table = [line.split() for line in done.stdout.splitlines() if line.endswith(" USDT")]
    sides = [side for row in table for side in row if side in ("BUY", "SELL")]
    assert len(sides) > 2
    assert set(sides) == {"BUY", "SELL"}
