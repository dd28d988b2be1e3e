"""Makes ``pytest bench`` work: collects ``bench_*.py``, lists the groups, and puts machine and ratios into the JSON."""

from __future__ import annotations

import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _measure
import summary


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # With a JSON to read, bench/summary.py prints the one table; pytest-benchmark's own would be a second.
    if getattr(config.option, "benchmark_json", None):
        config.option.benchmark_quiet = True


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    patterns = parent.config.getini("python_files")
    known = parent.session.isinitpath(file_path) or any(fnmatch(file_path.name, p) for p in patterns)
    if known or not fnmatch(file_path.name, "bench_*.py"):
        return None
    return pytest.Module.from_parent(parent, path=file_path)


def pytest_report_collectionfinish(items: list[pytest.Item]) -> list[str]:
    groups: Counter[str] = Counter()
    for item in items:
        mark = item.get_closest_marker("benchmark")
        if mark is not None or "benchmark" in getattr(item, "fixturenames", ()):
            groups[str(mark.kwargs.get("group", "no group")) if mark else "no group"] += 1
    if not groups:
        return []
    width = max(map(len, groups))
    return ["bench groups (make bench BENCH=word chooses by name):"] + [
        f"  {group:<{width}}  {count} rows" for group, count in sorted(groups.items())
    ]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["tengri"] = _measure.machine_info()


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    ours = _measure.machine_info()
    commit_info["short"] = ours["commit"]
    commit_info["uncommitted_changes"] = ours["dirty"]


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    summary.add_ratios(output_json)
