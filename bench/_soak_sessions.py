"""The soak of sessions: ten million steps of every layer in C, where nothing else can take or give memory."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from _measure import REPOSITORY
from _soak_common import Say, Violations

STEPS = 10_000_000
FOLDER = REPOSITORY / "csrc" / "tests"
BUILD = REPOSITORY / "build" / "soak"


def read_line(line: str) -> dict[str, Any] | None:
    """One ``key=value ...`` line of soak_nn as a dictionary, or None for any other line."""
    pairs = [word.split("=", 1) for word in line.split()]
    if not pairs or any(len(pair) != 2 for pair in pairs) or pairs[0][0] != "network":
        return None
    values: dict[str, Any] = {key: float(text) if key == "ns_per_step" else int(text) for key, text in pairs[1:]}
    return {"network": pairs[0][1], **values}


def soak_sessions(seconds: float, seed: int, say: Say) -> dict[str, Any]:
    """Build csrc/tests/soak_nn and run it; `seed` plays no part (its numbers are fixed)."""
    found, rows = Violations(), list[dict[str, Any]]()
    build = ["make", f"-j{os.cpu_count() or 1}", "-C", str(FOLDER), f"BUILD_DIR={BUILD}", f"{BUILD}/soak_nn"]
    made = subprocess.run(build, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        found.add(f"csrc/tests/soak_nn does not build: {made.stderr.strip()[-400:]}")
        return {"steps": 0, "networks": rows, "violations": found.count, "violation_texts": found.texts}
    with subprocess.Popen([f"{BUILD}/soak_nn", str(STEPS), str(seconds)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if (row := read_line(line)) is not None:
                rows.append(row)
                say(**{("step_ns" if key == "ns_per_step" else key): value for key, value in row.items()})
            elif "failed" in line and ", 0 failed" not in line:
                found.add(line.strip())
    if process.returncode != 0 and not found:
        found.add(f"soak_nn ended with status {process.returncode}")
    if not rows:
        found.add("no network was run")
    return {
        "steps": sum(row["steps"] for row in rows),
        "networks": rows,
        "violations": found.count,
        "violation_texts": found.texts,
    }
