"""The acceptance report of ``tengri quantize`` and ``tengri prune``: table, JSON and one HTML page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tengri_fast.report import _format as show
from tengri_fast.report import _style as style
from tengri_fast.report._files import to_json_text, write_atomic

if TYPE_CHECKING:
    from rich.table import Table

    from tengri_fast.inference.acceptance import Acceptance

__all__ = ["acceptance_table", "write_pages"]

WIDTH, HEIGHT, MARGIN = 520, 240, 36


def _e(text: object) -> str:
    return html.escape(str(text), quote=True)


def _limit(value: float | None, percent: bool) -> str:
    if value is None:
        return "not judged"
    return f"<= {show.percent(value, 2)}" if percent else f"<= {value:g}"


def rows_of(found: Acceptance) -> list[tuple[str, str, str, str]]:
    """Name, value, limit and verdict of everything that is judged or said."""
    limits = found.limits

    def judged(name: str, value: float | None, limit: float | None, percent: bool) -> tuple[str, str, str, str]:
        text = show.NONE if value is None else show.percent(value, 3) if percent else f"{value:.4g}"
        verdict = "" if limit is None or value is None else "ok" if value <= limit else "too large"
        return name, text, _limit(limit, percent), verdict

    rows = [
        judged("decision flips", found.flips, limits.flips, True),
        judged("relative rms error", found.relative_error, limits.relative_error, True),
        judged("calibration shift, binned", found.calibration_shift, limits.calibration_shift, True),
        judged("largest error", found.max_error, limits.max_error, False),
        ("rms error", f"{found.rms_error:.4g}", "", ""),
    ]
    if found.confidence_before is not None:
        rows.append(("mean confidence", f"{show.percent(found.confidence_before, 2)} to "
                     f"{show.percent(found.confidence_after, 2)}", "", ""))  # fmt: skip
    rows += [
        ("artefact", f"{show.count(found.bytes_before)} to {show.count(found.bytes_after)} bytes", "", ""),
        ("weights", f"{show.count(found.weight_bytes_before)} to {show.count(found.weight_bytes_after)} bytes", "", ""),
        ("parameters", f"{show.count(found.parameters_before)} to {show.count(found.parameters_after)}", "", ""),
    ]
    before, after = found.latency_before, found.latency_after
    if before and after:
        for key, name in (("finish_p50", "critical path, p50"), ("finish_p99", "critical path, p99"),
                          ("step_p50", "whole step, p50"), ("step_p99", "whole step, p99")):  # fmt: skip
            rows.append((name, f"{show.nanoseconds(before[key])} to {show.nanoseconds(after[key])}", "", ""))
    else:
        rows.append(("latency", "not measured: " + (found.engine_note or "not asked for"), "", ""))
    return rows


def acceptance_table(found: Acceptance, title: str) -> Table:
    """The report as a table for the terminal."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_edge=False)
    for name, justify in (("", "left"), ("found", "right"), ("limit", "left"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, value, limit, verdict in rows_of(found):
        colour = {"ok": "green", "too large": "red"}.get(verdict, "")
        table.add_row(name, value, limit, f"[{colour}]{verdict}[/]" if colour else verdict)
    return table


def _grid(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    top = "".join(f"<th>{_e(name)}</th>" for name in headers)
    body = "".join("<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _confidence_chart(found: Acceptance) -> str:
    """Mean confidence after against before, by bin; on the diagonal nothing has moved."""
    if not found.confidence_bins:
        return '<p class="quiet">The answer is no choice between classes, so it has no confidence.</p>'
    inner_w, inner_h = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN

    def x(value: float) -> float:
        return MARGIN + inner_w * value

    def y(value: float) -> float:
        return HEIGHT - MARGIN - inner_h * value

    most = max(count for _, count, _, _ in found.confidence_bins)
    dots = "".join(
        f'<circle cx="{x(before):.1f}" cy="{y(after):.1f}" r="{3 + 6 * (count / most) ** 0.5:.1f}" fill="{style.LINE}" '
        f'fill-opacity="0.75"><title>{count:,} rows: {before:.4f} to {after:.4f}</title></circle>'
        for _, count, before, after in found.confidence_bins
    )
    ticks = "".join(
        f'<text x="{x(v):.0f}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{v:g}</text>'
        f'<text x="{MARGIN - 6}" y="{y(v) + 4:.0f}" text-anchor="end">{v:g}</text>'
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="Confidence before and after" '
        f'font-size="11" fill="{style.MUTED}"><rect x="{MARGIN}" y="{MARGIN}" width="{inner_w}" height="{inner_h}" '
        f'fill="none" stroke="{style.BORDER}"/><line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" '
        f'stroke="{style.FAINT}" stroke-dasharray="4 4"/>{dots}{ticks}'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">mean confidence before</text>'
        f'<text x="{MARGIN}" y="{MARGIN - 10}">mean confidence after</text></svg>'
    )


def _error_chart(found: Acceptance) -> str:
    """Absolute error by quantile, as bars on a logarithmic axis of powers of ten."""
    import math

    values = [(q, error) for q, error in found.error_quantiles if error > 0]
    if not values:
        return '<p class="quiet">Every answer is the same, bit for bit.</p>'
    low = math.floor(math.log10(min(error for _, error in values))) - 0.2
    high = math.ceil(math.log10(max(error for _, error in values))) + 0.2
    step = 30
    rows = []
    for index, (q, error) in enumerate(values):
        length = (WIDTH - 220) * (math.log10(error) - low) / (high - low)
        top = 8 + index * step
        name = "largest" if q == 1.0 else f"{100 * q:g} % of the values"
        rows.append(
            f'<text x="130" y="{top + 15}" text-anchor="end">{_e(name)}</text><rect x="140" y="{top}" '
            f'width="{length:.1f}" height="20" rx="2" fill="{style.LINE}"/>'
            f'<text x="{146 + length:.1f}" y="{top + 15}">{error:.3g}</text>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {8 + step * len(values)}" width="{WIDTH}" role="img" '
        f'aria-label="Absolute error by quantile" font-size="12" fill="{style.MUTED}">{"".join(rows)}</svg>'
    )


def write_pages(
    stem: Path, title: str, found: Acceptance, made: Mapping[str, Any], facts: Mapping[str, str],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[object]]]], forced: bool,
) -> tuple[Path, Path]:  # fmt: skip
    """Write ``STEM.report.json`` and ``STEM.report.html``.

    Parameters
    ----------
    stem : Path
        Path of the artefact without its suffix.
    title : str
        Heading.
    found : Acceptance
        The verdict.
    made : mapping
        How it was made (``to_dict()`` of a QuantizationReport or PruneReport).
    facts : mapping of str to str
        Provenance, in the page's head.
    tables : sequence of (title, headers, rows)
        Further tables.
    forced : bool
        Whether the artefact was written although it was refused.

    Returns
    -------
    (Path, Path)
        The JSON file and the page.
    """
    verdict = "blessed" if found.blessed else "written although refused (--force)" if forced else "refused"
    record = {"verdict": verdict, "facts": dict(facts), "acceptance": found.to_dict(), "made": dict(made)}
    json_path = stem.with_name(stem.name + ".report.json")
    html_path = stem.with_name(stem.name + ".report.html")
    write_atomic(json_path, to_json_text(record).encode())
    provenance = "".join(f"<div><dt>{_e(key)}</dt><dd>{_e(value)}</dd></div>" for key, value in facts.items())
    reasons = "".join(f"<li>{_e(text)}</li>" for text in (*found.refusals, *made.get("notes", ())))
    notes = f'<div class="notes"><ul>{reasons}</ul></div>' if reasons else ""
    tone = "gain" if found.blessed else "loss"
    head = (
        f'<div class="cards"><div class="card"><div class="label">Verdict</div><div class="value {tone}">{_e(verdict)}'
        f'</div><div class="detail">on {found.rows:,} held-out rows, run by the {_e(found.engine)} engine</div></div>'
        "</div>"
    )
    judged = _grid(("", "found", "limit", "verdict"), rows_of(found))
    more = "".join(f"<section><h2>{_e(name)}</h2>{_grid(top, rows)}</section>" for name, top, rows in tables)
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><title>{_e(title)}</title><style>{style.CSS}</style></head><body>'
        f'<main><header><h1>{_e(title)}</h1><dl class="provenance">{provenance}</dl></header>{head}{notes}'
        f"<section><h2>Before and after</h2>{judged}</section>"
        f'<section class="two"><div><h2>Confidence</h2><p class="lead">One dot per bin of the confidence before; '
        f"larger dots hold more rows.</p>{_confidence_chart(found)}</div><div><h2>Error of the outputs</h2>"
        f'<p class="lead">Absolute difference, logarithmic.</p>{_error_chart(found)}</div></section>{more}</main>'
        "</body></html>\n"
    )
    write_atomic(html_path, page.encode())
    return json_path, html_path
