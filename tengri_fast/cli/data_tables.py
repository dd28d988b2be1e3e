"""Tables of ``tengri data``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tengri_fast.market import InstrumentContract
    from tengri_fast.market.columns import MarketColumns
    from tengri_fast.market.describe import DataReport, Defect, StreamReport
    from tengri_fast.market.repair import RepairLog

# Prints one or more lines.
Say = Callable[[str], object]


def moment(ns: int) -> str:
    """UTC time to the millisecond."""
    stamp = dt.datetime.fromtimestamp(ns // 1_000_000_000, dt.UTC)
    return f"{stamp:%Y-%m-%d %H:%M:%S}.{ns // 1_000_000 % 1000:03d}"


def length(ns: float) -> str:
    """A length of time with three digits."""
    seconds = ns / 1e9
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{ns:.0f} ns"


def grid(rows: Sequence[Sequence[str]], left: Sequence[int], indent: int = 0) -> str:
    """Rows as aligned text, columns in `left` from the left. Lines are not cut: a terminal wraps them."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        lines.append(" " * indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value: float | None, digits: int = 6) -> str:
    """A number with so many digits; a dash for none."""
    return "-" if value is None else f"{value:,.{digits}g}"


def percent(value: float | None) -> str:
    """A percentage with one decimal; a dash for none."""
    return "-" if value is None else f"{value:.1f} %"


def render(kind: str, report: DataReport, say: Say) -> None:
    """A report as tables."""
    say(f"{report.source}  {kind}")
    rows = [("stream", "rows", "first (UTC)", "last (UTC)", "span", "rows/s", "tick")]
    for stream in report.streams:
        tick = "-" if not stream.tick else f"{stream.tick:g}" + ("" if stream.tick_given else " (inferred)")
        rows.append((stream.name, f"{stream.rows:,}", moment(stream.first_ns), moment(stream.last_ns),
                     length(stream.last_ns - stream.first_ns), number(stream.rate, 4), tick))  # fmt: skip
    say(grid(rows, left=(0, 6)))
    for stream in report.streams:
        _stream(stream, say)
    _between(report, say)
    if report.clock is not None:
        clock = report.clock
        say(
            f"clock      local minus exchange {length(clock.median_ns)} (median of {clock.rows:,} rows; spread "
            f"{length(clock.sigma_ns)}, 5 % {length(clock.low_ns)}, 95 % {length(clock.high_ns)}, drift "
            f"{length(clock.drift_ns)})"
        )
        if len(clock.by_stream) > 1:
            say("           " + ", ".join(f"{k} {length(v)}" for k, v in clock.by_stream.items()))
    for note in report.notes:
        say(f"note       {note}")


def _stream(stream: StreamReport, say: Say) -> None:
    ranges = ", ".join(f"{name} {number(low, 10)} to {number(high, 10)}"
                       for name, (low, high) in stream.ranges.items())  # fmt: skip
    say(f"{stream.name:10} {ranges}")
    gaps = stream.gaps
    longest = gaps["longest"]
    worst = f", longest {length(longest[0][1])} from {moment(longest[0][0])}" if longest else ""
    say(f"           gaps of {length(gaps['threshold_ns'])} or more: {gaps['count']:,}{worst}")
    stale = stream.stale
    if stale:
        say(
            f"           longest run without a change: {stale['longest_rows']:,} rows from row "
            f"{stale['longest_start']:,}; {stale['runs']:,} of {stale['threshold_rows']:,} rows or more"
        )
    statistics = stream.statistics
    if "spread" in statistics:
        _spread(statistics["spread"], say)
    if "imbalance" in statistics:
        _imbalance(statistics["imbalance"], say)
    if "depth" in statistics:
        depth = statistics["depth"]
        say(f"           {depth['levels']} levels, all there in {percent(depth['full_rows'])} of the rows")
    if "trades" in statistics:
        trades = statistics["trades"]
        sizes = trades["sizes"]
        say(
            f"           volume {number(trades['volume'])}, average price {number(trades['average_price'], 9)}, median "
            f"size {number(sizes.get('p50'))}, largest {number(trades['largest'])}, bought "
            f"{percent(trades['buyer_share'])}, side unknown {percent(trades['unknown_side'])}"
        )
    if "bars" in statistics:
        bars = statistics["bars"]
        interval = "-" if bars["interval_ns"] is None else length(bars["interval_ns"])
        say(f"           interval {interval}, volume {number(bars['volume'])}, median range "
                      f"{number(bars['range_bps'].get('p50'), 4)} bps")  # fmt: skip
    if "deltas" in statistics:
        deltas = statistics["deltas"]
        say("           " + ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in deltas.items()))
    _defects(stream.defects, say)


def _spread(spread: dict[str, Any], say: Say) -> None:
    for unit in ("bps", "ticks"):
        values = spread.get(unit)
        if values:
            shown = ", ".join(f"{name.replace('p', '') + ' %' if name != 'mean' else name} {value:.4g}"
                              for name, value in values.items())  # fmt: skip
            say(f"           spread in {unit}: {shown}")


def _imbalance(found: dict[str, Any], say: Say) -> None:
    say(
        f"           {found['moves']:,} moves of the mid: {percent(found['up'])} up, {percent(found['reversal'])} "
        "reverse the one before; the sign of the imbalance is right "
        f"{percent(found['accuracy_before_move'])} (last row before a move), "
        f"{percent(found['accuracy_after_move'])} (first row after one), {percent(found['accuracy_per_row'])} "
        "(all rows)",
    )


def _defects(defects: Sequence[Defect], say: Say) -> None:
    if not defects:
        say("           no defects")
        return
    from tengri_fast.market.describe import RULES

    rows = [("defect", "rows", "where", "first row", "its value", "repair")]
    for defect in defects:
        value = f"{defect.value:.12g}" if isinstance(defect.value, float) else str(defect.value)
        rows.append((defect.rule + (" (fatal)" if defect.fatal else ""), f"{defect.count:,}", defect.column,
                     f"{defect.row:,}", value, RULES[defect.rule][1] or "-"))  # fmt: skip
    say(grid(rows, left=(0, 2, 5), indent=11))


def _between(report: DataReport, say: Say) -> None:
    for name, facts in report.between.items():
        if name == "depth_and_quotes":
            say(f"between    best level differs from the last quote in {percent(facts['top_differs'])} of "
                          f"{facts['compared']:,} snapshots")  # fmt: skip
        else:
            say(
                f"between    of {facts['compared']:,} trades {percent(facts['outside'])} outside the quote before, "
                f"{percent(facts['inside'])} inside the spread, {percent(facts['against_side'])} of those at the touch "
                "against their side"
            )


def render_import(
    columns: MarketColumns, log: RepairLog, offset: dict[str, Any] | None, left: Sequence[tuple[str, Defect]],
    written: Sequence[Path], say: Say,
) -> None:  # fmt: skip
    """What an import did."""
    for name, value in columns.streams().items():
        before = log.rows_in.get(name)
        say(f"{name:10} {len(value):,} rows" + (f" of {before:,}" if before not in (None, len(value)) else ""))
    if log.entries:
        rows: list[tuple[str, ...]] = [("repair", "stream", "dropped", "changed", "first row")]
        for entry in log.entries:
            counts = (f"{count:,}" for count in (entry.dropped, entry.changed, entry.first_row))
            rows.append((entry.repair, entry.stream, *counts))
        say(grid(rows, left=(0, 1)))
    if offset is not None:
        more = f" (spread {length(offset['sigma_ns'])})" if "sigma_ns" in offset else ""
        say(f"clock      {length(offset['median_ns'])} taken off local times{more}")
    for stream, defect in left:
        say(f"left       {stream}: {defect}")
    for note in columns.notes:
        say(f"note       {note}")
    for path in written:
        say(str(path))


def render_formats(say: Say) -> None:
    """The table of formats."""
    from tengri_fast.market.formats import FORMATS

    for entry in FORMATS.values():
        through = "" if entry.reader else "  (through NautilusTrader's loaders)"
        say(f"{entry.name}  gives {', '.join(entry.streams)}{through}")
        facts = [("columns", entry.columns), ("units", entry.units), ("clock", entry.clock), ("not kept", entry.lost)]
        if entry.options:
            facts.append(("options", ", ".join(entry.options)))
        say(grid(facts, left=(0, 1), indent=2))


def render_contracts(rows: Sequence[tuple[str, InstrumentContract]], say: Say) -> None:
    """The contract table."""
    table = [("name", "instrument", "kind", "tick", "multiplier", "currency", "maker bps", "taker bps", "per contract")]
    for name, row in rows:
        kind = row.kind + (" (inverse)" if row.inverse else "")
        table.append((name, row.instrument_id, kind, f"{row.tick:g}", f"{row.multiplier:g}", row.currency,
                      f"{row.maker_bps:g}", f"{row.taker_bps:g}", f"{row.fee_per_contract:g}"))  # fmt: skip
    say(grid(table, left=(0, 1, 2, 5)))
