"""What the pages of ``tengri risk`` have in common: one HTML file with everything inside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tengri_fast.report import _style as style
from tengri_fast.report._extra import load
from tengri_fast.report.web import _POLICY, _SCRIPT, _script_json

__all__ = ["card", "chart", "escape", "grid", "page_text", "pill", "section"]

CSS = f"""
.pill{{display:inline-block;padding:0 8px;border-radius:9px;color:#fff;font-size:12px;white-space:nowrap}}
.green{{background:{style.GAIN}}}.yellow{{background:{style.WARN}}}.red{{background:{style.LOSS}}}
.bad{{color:{style.LOSS};font-weight:650}}
.bar{{position:relative;background:{style.GRID};border-radius:4px;height:12px;min-width:110px;overflow:hidden}}
.bar i{{position:absolute;left:0;top:0;bottom:0;background:{style.LINE}}}
.bar i.warn{{background:{style.WARN}}}.bar i.over{{background:{style.LOSS}}}
.wide .scroll{{max-height:none}}td:first-child{{min-width:170px}}
nav a{{margin-right:14px;color:{style.LINE}}}
"""


def escape(text: object) -> str:
    """Text as HTML shows it."""
    return html.escape(str(text), quote=True)


class Html(str):
    """A cell that is HTML already."""

    __slots__ = ()


def pill(zone: str) -> Html:
    """A traffic light as a coloured word."""
    return Html(f'<span class="pill {escape(zone)}">{escape(zone)}</span>')


def grid(headers: Sequence[tuple[str, bool]], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """A table; each header says whether its column holds numbers. Cells that are no :class:`Html` are escaped."""
    marks = [' class="n"' if numeric else "" for _, numeric in headers]
    top = "".join(f"<th{mark}>{escape(name)}</th>" for (name, _), mark in zip(headers, marks, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{mark}>{cell if isinstance(cell, Html) else escape(cell)}</td>"
            for cell, mark in zip(row, marks, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    after = f'<p class="quiet">{escape(note)}</p>' if note else ""
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>{after}'


def card(label: str, value: object, detail: str = "") -> str:
    """A headline number."""
    shown = value if isinstance(value, Html) else escape(value)
    return (
        f'<div class="card"><div class="label">{escape(label)}</div><div class="value">{shown}</div>'
        f'<div class="detail">{escape(detail)}</div></div>'
    )


def chart(name: str) -> str:
    """The place of a figure."""
    return f'<div class="chart" id="{escape(name)}"></div>'


def section(title: str, body: str, lead: str = "", anchor: str = "") -> str:
    """A titled part of the page."""
    mark = f' id="{escape(anchor)}"' if anchor else ""
    return (
        f'<section class="wide"{mark}><h2>{escape(title)}</h2>'
        + (f'<p class="lead">{escape(lead)}</p>' if lead else "")
        + f"{body}</section>"
    )


def page_text(
    title: str,
    facts: Mapping[str, object],
    notes: Sequence[str],
    body: Sequence[str],
    figures: Mapping[str, Any],
    data: Mapping[str, Any],
    footer: str,
) -> str:
    """The whole page.

    Parameters
    ----------
    title : str
    facts : mapping
        Provenance, in the head.
    notes : sequence of str
        What to read first.
    body : sequence of str
        Sections, as HTML.
    figures : mapping
        plotly ``data`` and ``layout`` by the name of their place; a page without any needs no plotly.
    data : mapping
        Every number of the page as JSON, embedded for machines.
    footer : str

    Raises
    ------
    MissingExtraError
        If there are figures and plotly is not installed.
    """
    drawing = ""
    if figures:
        library = load("plotly.offline", "The HTML page").get_plotlyjs()
        drawing = (
            f'<script type="application/json" id="figures">{_script_json(figures)}</script>'
            f"<script>{library}</script><script>{_SCRIPT}</script>"
        )
    shown = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items() if v != "")
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    first = f'<aside class="notes"><h2>Read this first</h2><ul>{listed}</ul></aside>' if notes else ""
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style.CSS}{CSS}</style></head><body><main>",
            f'<header><h1>{escape(title)}</h1><dl class="provenance">{shown}</dl></header>{first}',
            *body,
            "<noscript><p>The charts need JavaScript; the tables do not.</p></noscript>" if figures else "",
            f"<footer>{escape(footer)}</footer></main>",
            f'<script type="application/json" id="report-data">{_script_json(data)}</script>',
            f"{drawing}</body></html>\n",
        )
    )
