"""What every bench shares: percentiles and minima of single calls, rounds that alternate, and the machine.

A mean hides what a trader feels, so each bench times single calls itself (in C where a call takes less than a
microsecond) and hands the array of nanoseconds to :func:`record`. What is recorded is what the table prints;
pytest-benchmark times the same function beside it.

Rows whose ratio is claimed are timed by :func:`interleaved`: on a shared machine the speed drifts by more than the
difference, and only rounds that alternate see the same drift. Their ratio is that of the minima, which a neighbour can
only raise.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent

__all__ = ["interleaved", "machine_info", "percentiles", "record", "time_calls"]


def percentiles(ns_array: Any) -> dict[str, float]:
    """p50, p99, p999 and max of single-call times.

    Parameters
    ----------
    ns_array : array_like of float or int
        One entry per call, nanoseconds. Must hold at least one value, all finite.

    Returns
    -------
    dict of str to float
        Keys ``p50``, ``p99``, ``p999``, ``max``; each is a value that was observed (no interpolation).
    """
    values = np.asarray(ns_array, dtype=np.float64).ravel()
    if values.size == 0:
        raise ValueError("`ns_array` must hold at least one time, was empty")
    if not np.isfinite(values).all():
        raise ValueError("`ns_array` must be finite")
    p50, p99, p999 = np.percentile(values, [50, 99, 99.9], method="higher")
    return {"p50": float(p50), "p99": float(p99), "p999": float(p999), "max": float(values.max())}


def record(
    benchmark: Any,
    ns_array: Any,
    *,
    calls: int = 1,
    baseline_ns: float | None = None,
    against: Mapping[str, float] | None = None,
    **extra: Any,
) -> None:
    """Put percentiles and minimum of `ns_array`, the machine and `extra` into ``benchmark.extra_info``.

    Parameters
    ----------
    benchmark : pytest_benchmark fixture
        The caller runs it over the same function, so that pytest-benchmark's own figures mean the same thing.
    ns_array : array_like
        Times in nanoseconds, one per timed call.
    calls : int, default 1
        How many operations one timed call held; all figures are divided by it.
    baseline_ns : float, optional
        p50 of the reference row in the same run; ``ratio`` = baseline / ours is then stored (above 1: ours is faster).
    against : mapping of str to float, optional
        Minimum of other rows of the same run, nanoseconds per operation, by the name to print; ``min_over`` then holds
        our minimum over theirs (below 1: ours is faster).
    **extra
        Anything else a reader needs: ISA, size, dtype, rival.
    """
    if calls < 1:
        raise ValueError(f"`calls` must be >= 1, was {calls}")
    values = np.asarray(ns_array, dtype=np.float64) / calls
    found = percentiles(values)
    smallest = float(values.min())
    benchmark.extra_info.update({f"{name}_ns": round(value, 2) for name, value in found.items()})
    benchmark.extra_info["min_ns"] = round(smallest, 2)
    if baseline_ns is not None:
        benchmark.extra_info["ratio"] = round(baseline_ns / max(found["p50"], 1e-9), 3)
    if against:
        benchmark.extra_info["min_over"] = {name: round(smallest / max(ns, 1e-9), 4) for name, ns in against.items()}
    benchmark.extra_info.update(extra)
    benchmark.extra_info["machine"] = machine_info()


def interleaved(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, np.ndarray]:
    """Take one figure of every measure in each round, a round later starting with the next one.

    Parameters
    ----------
    measures : mapping of str to callable
        Each returns nanoseconds.
    rounds : int
        How often each is called; at least 1.

    Returns
    -------
    dict of str to ndarray
        The figures by name, shape (rounds,), in the order of `measures`.
    """
    if rounds < 1:
        raise ValueError(f"`rounds` must be >= 1, was {rounds}")
    names = list(measures)
    out = {name: np.empty(rounds) for name in names}
    for i in range(rounds):
        first = i % len(names)
        for name in (*names[first:], *names[:first]):
            out[name][i] = measures[name]()
    return out


def time_calls(function: Callable[[], object], count: int, warmup: int = 100) -> np.ndarray:
    """Nanoseconds of `count` single calls of a Python callable, clock reads included (about 50 ns)."""
    clock = time.perf_counter_ns
    for _ in range(warmup):
        function()
    out = np.empty(count, np.int64)
    for i in range(count):
        start = clock()
        function()
        out[i] = clock() - start
    return out


@functools.cache
def _fixed_info() -> dict[str, Any]:
    info: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        # Without the suffix by which whoever built the kernel names it.
        "system": f"{platform.system()} {re.match(r'[0-9.]*', platform.release())[0]}",
        "python": platform.python_version(),
        "compiler": _run([*_cc(), "--version"]).splitlines()[:1],
        "flags": "-O3 -ffp-contract=off, per-ISA flags of setup.py",
        "commit": _run(["git", "-C", str(REPOSITORY), "rev-parse", "--short=12", "HEAD"]) or "unknown",
        "dirty": bool(_run(["git", "-C", str(REPOSITORY), "status", "--porcelain"])),
    }
    info["compiler"] = info["compiler"][0] if info["compiler"] else "unknown"
    if os.environ.get("TENGRI_NATIVE") == "1":
        info["flags"] += ", -march=native"
    return info


def machine_info() -> dict[str, Any]:
    """CPU, compiler, flags, ISA and commit: what a number means nothing without."""
    info = dict(_fixed_info())
    try:
        from tengri_fast import _native
    except ImportError:
        info["isa"], info["cpu_features"] = "not built", []
    else:
        info["isa"], info["cpu_features"] = _native.isa_active(), list(_native.cpu_features())
    return info


def _cc() -> list[str]:
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[:1]


def _cpu_model() -> str:
    try:
        lines: Iterable[str] = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = ()
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
