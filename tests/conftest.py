"""Puts the tests folder on the path, so that test modules can share ``support``; spreads the tests over workers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

# What takes longest starts first, so that the workers finish together: these, in this order, then the rest. Seconds are
# those of two cores.
LONGEST_FIRST = (
    "packaging/test_aarch64.py",  # 110
    "packaging/test_installs.py",  # 150 in five parts
    "inference/test_parity.py",  # 80
    "csrc/test_c.py",  # 60
    "inference/test_fuzz.py",  # 30
    "inference/test_c_library.py",  # 30
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; within them, and in the rest, the order stays."""

    def rank(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((i for i, name in enumerate(LONGEST_FIRST) if path.endswith(f"/{name}")), len(LONGEST_FIRST))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One file, one worker, as ``--dist loadfile`` says; but the ways to install go to whoever is free."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            # Three tests look at the same archives.
            apart = file.endswith("packaging/test_installs.py") and not any(w in nodeid for w in ("archive", "wheel"))
            return nodeid if apart else file

    return Scheduling(config, log)
