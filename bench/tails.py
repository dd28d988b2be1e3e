"""Long tails: ten million steps per shape, what they took, and how much of the tail is the machine's.

    python bench/tails.py [--shapes lstm_2x64 ...] [--formats int8 ...] [--scale 1.0] [--out FILE]

Beside each stretch of steps a control loop does nothing but read the clock. An interruption is a reading that took 1
us longer than the median; a delayed step is one that took 1 us longer than the median step. Both are counted per
second of loop, so `machine_share` = interruptions / delayed steps (at most 1) is the part of the tail that would be
there with no work at all. Shapes whose step takes more than 3 us get 100,000 steps instead of ten million. After-idle
rows: 10,000 steps, each after 1 ms of waiting. Resident memory is read before and after.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _zoo
from _measure import machine_info
from bench_inference import formatted
from summary import time_text, write_json

from tengri_fast import _native
from tengri_fast.inference import Model

COMMITTED = Path(__file__).resolve().parent / "results" / "committed" / "tails.json"
STEPS, LONG_STEPS, IDLE_STEPS = 10_000_000, 100_000, 10_000
CHUNK = 100_000
DELAY_NS = 1_000.0


class Tail:
    """Percentiles of many chunks without keeping every time: all values above a floor, and a histogram below it."""

    def __init__(self) -> None:
        self.edges = np.geomspace(10.0, 1e9, 4001)
        self.counts = np.zeros(len(self.edges) + 1, np.int64)
        self.largest = 0.0
        self.smallest = np.inf
        self.total_ns = 0.0

    def add(self, times: np.ndarray) -> None:
        """Count a chunk of nanoseconds."""
        self.counts += np.bincount(np.searchsorted(self.edges, times), minlength=len(self.counts))
        self.largest, self.smallest = max(self.largest, float(times.max())), min(self.smallest, float(times.min()))
        self.total_ns += float(times.sum())

    def quantile(self, q: float) -> float:
        """Upper edge of the bucket (0.5 % wide) that holds the quantile."""
        at = int(np.searchsorted(np.cumsum(self.counts), q * self.counts.sum()))
        return float(min(self.largest, self.edges[min(at, len(self.edges) - 1)]))

    def above_per_second(self, ns: float) -> float:
        """How many values lie above `ns`, per second of the loop."""
        return float(self.counts[np.searchsorted(self.edges, ns) + 1 :].sum() / max(self.total_ns * 1e-9, 1e-9))

    def summary(self) -> dict[str, float]:
        """What is written."""
        names = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "p9999": 0.9999}
        out = {f"{name}_ns": round(self.quantile(q), 1) for name, q in names.items()}
        return {
            **out,
            "min_ns": round(self.smallest, 1),
            "max_ns": round(self.largest, 1),
            "steps": int(self.counts.sum()),
        }


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def run(shape: str, number_format: str, scale: float, advance: Any) -> dict[str, Any]:
    """All figures of one shape in one format; `advance` is told the share that is done."""
    session = Model.from_network(formatted(shape, number_format)).session()
    x = _zoo.rows(shape)
    finish, prepare = session.time_steps(x, 2_000)
    slow = float(np.median(finish + prepare)) > 3_000
    steps = max(1_000, int((LONG_STEPS if slow else STEPS) * scale))
    chunk = min(CHUNK // (20 if slow else 1), steps)
    critical, whole, control = Tail(), Tail(), Tail()

    def stretch(count: int) -> None:
        finish, prepare = session.time_steps(x, count)
        critical.add(finish)
        whole.add(finish + prepare)
        control.add(_native.timer_floor(max(1_000, int((finish.sum() + prepare.sum()) / 25.0))))

    for _ in range(3):  # this file's own arrays find their place before memory is read
        stretch(chunk)
    critical, whole, control = Tail(), Tail(), Tail()
    gc.collect()
    before, done = resident_bytes(), 0
    while done < steps:
        count = min(chunk, steps - done)
        stretch(count)
        done += count
        advance(0.5 * done / steps)
    after = resident_bytes()
    idle = Tail()
    count = max(100, int(IDLE_STEPS * scale))
    for start in range(0, count, 500):
        idle.add(session.time_steps(x, min(500, count - start), idle_us=1_000)[0])
        advance(0.5 + 0.5 * min(count, start + 500) / count)
    delayed = whole.above_per_second(whole.quantile(0.5) + DELAY_NS)
    interruptions = control.above_per_second(control.quantile(0.5) + DELAY_NS)
    return {
        "shape": shape,
        "format": number_format,
        "critical": critical.summary(),
        "whole": whole.summary(),
        "after_idle_critical": idle.summary(),
        "control": control.summary(),
        "delayed_steps_per_second": round(delayed, 2),
        "interruptions_per_second": round(interruptions, 2),
        "machine_share": round(min(1.0, interruptions / delayed), 3) if delayed > 0 else 1.0,
        "resident_growth_bytes": after - before,
    }


def show(results: Sequence[dict[str, Any]], console: Console) -> None:
    """The table."""
    table = Table(title="Long tails", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    columns = ("shape, format", "steps", "crit p50", "p99", "p99.9", "max", "whole p99.9", "idle p50", "idle p99",
               "no-op max", "machine's share", "RSS growth")  # fmt: skip
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for found in results:
        critical, idle = found["critical"], found["after_idle_critical"]
        table.add_row(
            f"{found['shape']}, {found['format']}",
            f"{critical['steps']:,}",
            *(time_text(critical[f"{key}_ns"]) for key in ("p50", "p99", "p999", "max")),
            time_text(found["whole"]["p999_ns"]),
            *(time_text(idle[f"{key}_ns"]) for key in ("p50", "p99")),
            time_text(found["control"]["max_ns"]),
            f"{100 * found['machine_share']:.0f} %",
            f"{found['resident_growth_bytes'] / 1024:,.0f} KB",
        )
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="bench/tails.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=_zoo.SHAPES, default=list(_zoo.SHAPES))
    parser.add_argument(
        "--formats", nargs="+", choices=("fp32", "fp16", "bf16", "int8", "int8a16"), default=["fp32", "int8"]
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps to take")
    parser.add_argument("--out", type=Path, default=COMMITTED)
    options = parser.parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    results = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for shape in options.shapes:
            for number_format in options.formats:
                task = progress.add_task(f"{shape} {number_format}", total=1.0)
                found = run(
                    shape, number_format, options.scale, lambda share, t=task: progress.update(t, completed=share)
                )
                results.append(found)
    show(results, console)
    write_json(options.out, {"kind": "tails", "machine": machine_info(), "results": results})
    console.print(f"written to {options.out.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
