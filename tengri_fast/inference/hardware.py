"""The memory of this machine: sizes of its caches and what they deliver, measured once per process."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Bandwidth", "bandwidths", "cache_sizes", "floor_ns", "processor"]

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
GUESS = {1: 1 << 15, 2: 1 << 20}
"""Sizes of L1 and L2 where the kernel does not tell them."""
MEMORY = 1 << 26


@dataclass(frozen=True)
class Bandwidth:
    """One level of the memory."""

    name: str
    """"L1", "L2", "L3" or "memory"."""
    capacity: int | None
    """Bytes; None without limit."""
    gb_per_second: float
    """Read by one core, measured."""


def cache_sizes(root: Path = CACHES) -> dict[int, int]:
    """Bytes of the first core's data caches by level, as the kernel tells them; empty where it does not."""
    found: dict[int, int] = {}
    for entry in sorted(root.glob("index*")):
        try:
            kind, level, size = ((entry / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue  # this kernel does not say
        match = re.fullmatch(r"([0-9]+)([KMG])", size)
        if kind in ("Data", "Unified") and match and level.isdigit():
            found[int(level)] = int(match[1]) << {"K": 10, "M": 20, "G": 30}[match[2]]
    return found


@functools.cache
def bandwidths() -> tuple[Bandwidth, ...]:
    """The levels of the memory from the nearest on, measured now (about 0.1 s) and then remembered.

    A cache is measured with a buffer of half its size, the memory behind the last one with 64 MiB.
    """
    from tengri_fast.inference.machine import measure_bandwidth

    levels = []
    for level, size in sorted((cache_sizes() or GUESS).items()):
        levels.append(Bandwidth(f"L{level}", size, measure_bandwidth(max(4096, min(size // 2, MEMORY // 2)))))
    return (*levels, Bandwidth("memory", None, measure_bandwidth(MEMORY)))


def floor_ns(read: int, held: int) -> tuple[float, Bandwidth]:
    """Least time to read some weights, and the level that delivers them.

    Parameters
    ----------
    read : int
        Bytes that one step reads.
    held : int
        Bytes of everything that takes its turn between two such readings; it decides where the weights are found.

    Returns
    -------
    float
        Nanoseconds.
    Bandwidth
        The nearest level that holds `held` bytes.
    """
    levels = bandwidths()
    level = next((entry for entry in levels if entry.capacity is None or held <= entry.capacity), levels[-1])
    return read / level.gb_per_second, level


def processor() -> str:
    """Name of the processor, as the kernel tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    if match:
        return match[1].strip()
    import platform

    return platform.processor() or platform.machine()
