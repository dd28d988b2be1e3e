"""The lines a run ends with in the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tengri_fast.report import _format as show
from tengri_fast.report.page import headline
from tengri_fast.report.record import RunRecord
from tengri_fast.report.skill import BASELINES, HitRate

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["terminal_summary"]


def _rate(found: HitRate | None) -> str:
    if found is None or not found.moves:
        return show.NONE
    low, high = (found.block_low, found.block_high) if math.isfinite(found.block_low) else (found.low, found.high)
    return f"{show.percent(found.rate)}  ({show.percent(low)} to {show.percent(high)})"


def terminal_summary(record: RunRecord) -> Group:
    """A short summary of `record` for a rich console.

    Parameters
    ----------
    record : RunRecord
        The run.

    Returns
    -------
    rich.console.Group
        Print it with ``rich.console.Console().print(...)``. Texts of the record are never read as markup.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = headline(record)
    currency = record.currency
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()

    def row(label: str, value: str, style: str = "") -> None:
        table.add_row(Text(label), Text(value, style=style))

    colour = "green" if record.pnl > 0 else ("red" if record.pnl < 0 else "")
    gross = f"gross {show.money(head['gross'], signed=True)}, fees {show.money(record.fees)}"
    row("PnL after fees", f"{show.money(record.pnl, currency, signed=True)}  ({gross})", colour)
    row("Largest drawdown", show.money(head["max_drawdown"], currency))
    won = f", {show.percent(head['win_rate'])} won" if head["trades"] else ""
    row("Round trips", f"{show.count(head['trades'])}{won}")
    if math.isfinite(head["mean_net_low"]):
        verdict = "" if head["mean_net_shown"] else ": not shown to differ from 0"
        low, high = show.money(head["mean_net_low"], signed=True), show.money(head["mean_net_high"], signed=True)
        row("PnL per trade", f"{show.money(head['mean_net'], currency, signed=True)}  ({low} to {high}{verdict})")

    skill = record.skill
    if skill is not None:
        row("Hit rate, model", f"{_rate(skill.model)}  on {show.count(skill.moves)} moves", "bold")
        for name in BASELINES:
            row(f"  {name}", _rate(skill.baselines.get(name)))
    if record.latency is not None and record.latency.total:
        found = record.latency.percentiles()
        times = "   ".join(
            f"{label} {show.nanoseconds(found[key])}"
            for label, key in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"))
        )
        row("Tick to signal", f"{times}   max {show.nanoseconds(found['max'])}")

    denied = sum(record.denied.values())
    row("Orders", f"{record.submitted:,} submitted, {record.filled:,} filled, {denied:,} denied")
    drill = record.denied_by_source()["drill"]
    for rule, total in sorted(record.denied.items(), key=lambda item: (-item[1], item[0])):
        aside = f"  ({drill[rule]:,} in the drill)" if drill.get(rule) else ""
        row(f"  {rule}", f"{total:,}{aside}")
    if record.isa:
        row("Instruction set", record.isa)
    if record.run_seconds is not None:
        row("Run time", show.duration(record.run_seconds))
    notes = [Text(f"Note: {note}", style="yellow") for note in record.notes]
    return Group(Text(record.title, style="bold"), table, *notes)
