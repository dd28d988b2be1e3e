"""What the parts of the soak share: what they report, and how they measure memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from _measure import REPOSITORY

MODEL = REPOSITORY / "models" / "lstm_btcusdt"
SAMPLE = REPOSITORY / "data" / "binance_usdm_btcusdt" / "binance_usdm_btcusdt_20240719"
RSS_LIMIT = 1 << 20
SAY_EVERY = 5.0
KEPT_VIOLATIONS = 20

Say = Callable[..., None]


def resident_bytes() -> int:
    """Resident memory of this process (where /proc is missing: the most there ever was)."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


class Violations:
    """Counts all, keeps the first few in words."""

    def __init__(self) -> None:
        self.count = 0
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.texts) < KEPT_VIOLATIONS:
            self.texts.append(text)

    def __bool__(self) -> bool:
        return self.count > 0
