"""The inference benches as one table: shapes by rows of formats, critical path, whole step, roofline, best rival.

Figures of FPGAs and GPUs are printed below it as context: other machines, other people's measurements, never a ratio.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

__all__ = ["CONTEXT", "context_lines", "inference_markdown", "inference_table"]

COLUMNS = ("shape, format", "weights", "crit p50", "crit p99", "crit min", "whole p50", "cold", "idle 2 ms", "roofline",
           "best rival", "its p50", "faster p50 (min)")  # fmt: skip

CONTEXT = (
    (
        "FPGA, VOLLO on AMD V80, I/O included (0.9 us floor)",
        "LSTM 2x128: 1.4, 3x256: 2.0, 3x480: 3.2",
        "vollo-sdk 27.1",
    ),
    ("FPGA, the same", "causal CNN 3x128 k8: 1.5, MLP 256-384-384-128: 1.5", "vollo-sdk 27.1"),
    ("FPGA, simulated, no I/O", "sliding-window attention, dim 224, window 32, 2 layers: 3.98", "vollo-model-zoo"),
    ("GPU GH200, audited", "LSTM_A p99 4.6-4.7, LSTM_B 6.9-7.1, LSTM_C 15.8", "NVIDIA, 2026-04"),
    ("GPU RTX PRO 6000", "LSTM 2x96, T 64, input 128: 3.5 (p99 4.3)", "NVIDIA, 2026-04"),
)
"""Elsewhere, microseconds."""


def _facts(data: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [
        (bench["extra_info"]["inference"], bench["extra_info"])
        for bench in data.get("benchmarks", ())
        if isinstance((bench.get("extra_info") or {}).get("inference"), dict)
    ]


def _us(ns: Any) -> str:
    return f"{float(ns) / 1e3:.3g}" if isinstance(ns, int | float) else "–"


def _rows(data: dict[str, Any]) -> Iterable[tuple[str, tuple[str, ...]]]:
    """(shape, cells) of our rows, then of the rivals, shape by shape."""
    found = _facts(data)
    for shape in dict.fromkeys(facts["shape"] for facts, _ in found):
        rivals = {}
        for facts, extra in found:
            if facts["shape"] == shape and facts["runtime"] != "ours":
                rivals[f"{facts['runtime']} {facts['format']} ({facts['setting']})"] = extra["p50_ns"]
        for facts, extra in found:
            if facts["shape"] != shape or facts["runtime"] != "ours":
                continue
            best = facts.get("best_rival", "")
            faster = f"{facts['against_best']:.3g}x ({facts['against_best_min']:.3g}x)" if best else "–"
            yield (
                shape,
                (
                    f"{shape}, {facts['format']}",
                    f"{facts['weight_bytes'] / 1024:,.0f} KB",
                    *(_us(facts[key]) for key in ("critical_p50_ns", "critical_p99_ns", "critical_min_ns")),
                    _us(extra["p50_ns"]),
                    _us(facts.get("cold_p50_ns")),
                    _us(facts.get("idle_p50_ns")),
                    f"{100 * facts['roofline']:.0f} %",
                    best or "–",
                    _us(rivals.get(best)),
                    faster,
                ),
            )


def inference_table(data: dict[str, Any]) -> Table | None:
    """The table, or None when the results hold no inference bench."""
    rows = list(_rows(data))
    if not rows:
        return None
    out = Table(
        title="Inference, microseconds per step of one session",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for i, column in enumerate(COLUMNS):
        out.add_column(column, justify="left" if i in (0, 9) else "right", no_wrap=i != 9)
    last = ""
    for shape, cells in rows:
        if shape != last:
            out.add_section()
            last = shape
        out.add_row(*map(Text, cells))
    return out


def context_lines() -> list[str]:
    """Figures from elsewhere, one per line."""
    return [f"elsewhere, not a comparison: {where}; {what} us ({source})" for where, what, source in CONTEXT]


def inference_markdown(data: dict[str, Any]) -> list[str]:
    """The same in GitHub's markdown; no lines when there is nothing."""
    rows = [cells for _, cells in _rows(data)]
    if not rows:
        return []
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * 8 + " --- | ---: | ---: |"]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    lines += ["", "Elsewhere (other machines, other measurements: context, not a comparison), microseconds:", ""]
    return lines + [f"- {where}: {what} ({source})" for where, what, source in CONTEXT] + [""]
