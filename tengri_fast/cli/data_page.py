"""The page of ``tengri data describe --html``: the report, and pictures of prices, spread and pauses."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tengri_fast.cli.data_tables import length, moment, render
from tengri_fast.report import _style as style
from tengri_fast.report._files import write_atomic

if TYPE_CHECKING:
    from tengri_fast.market.columns import MarketColumns
    from tengri_fast.market.describe import DataReport

WIDTH, HEIGHT, MARGIN = 900, 220, 44
COLUMNS = 800  # of a picture: more rows than that become the range of each column
Float = npt.NDArray[np.float64]


def _line(times: npt.NDArray[np.uint64], values: Float, title: str, marks: npt.NDArray[np.bool_] | None = None) -> str:
    """Values over time as one path of least and largest per column; rows in `marks` are dots."""
    good = np.isfinite(values)
    if good.sum() < 2:
        return f'<p class="quiet">{html.escape(title)}: fewer than two values.</p>'
    first, last = int(times[good].min()), int(times[good].max())
    low, high = float(values[good].min()), float(values[good].max())
    span, rise = max(last - first, 1), (high - low) or 1.0
    x = MARGIN + (WIDTH - 2 * MARGIN) * (times - np.uint64(first)).astype(np.float64) / span
    y = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (values - low) / rise
    column = np.clip(((x - MARGIN) / (WIDTH - 2 * MARGIN) * COLUMNS).astype(np.int64), 0, COLUMNS - 1)
    top, bottom = np.full(COLUMNS, np.inf), np.full(COLUMNS, -np.inf)
    np.minimum.at(top, column[good], y[good])
    np.maximum.at(bottom, column[good], y[good])
    there = np.flatnonzero(np.isfinite(top))
    at = MARGIN + (there + 0.5) * (WIDTH - 2 * MARGIN) / COLUMNS
    path = " ".join(f"M{a:.1f} {t:.1f}V{max(b, t + 0.8):.1f}" for a, t, b in zip(at, top[there], bottom[there],
                                                                                 strict=True))  # fmt: skip
    dots = ""
    if marks is not None:
        rows = np.flatnonzero(marks & good)[:500]
        dots = "".join(f'<circle cx="{x[row]:.1f}" cy="{y[row]:.1f}" r="3" fill="{style.LOSS}"><title>row {row:,}: '
                       f"{values[row]:g}</title></circle>" for row in rows)  # fmt: skip
    return (
        f'<h3>{html.escape(title)}</h3><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" '
        f'aria-label="{html.escape(title)}" font-size="11" fill="{style.MUTED}"><path d="{path}" fill="none" '
        f'stroke="{style.LINE}" stroke-width="1.2"/>{dots}'
        f'<text x="{MARGIN}" y="{MARGIN - 8}">{high:g}</text>'
        f'<text x="{MARGIN}" y="{HEIGHT - MARGIN + 14}">{low:g}</text>'
        f'<text x="{MARGIN}" y="{HEIGHT - 6}">{moment(first)}</text><text x="{WIDTH - MARGIN}" y="{HEIGHT - 6}" '
        f'text-anchor="end">{moment(last)}</text></svg>'
    )


def _pauses(times: npt.NDArray[np.uint64], title: str) -> str:
    """Steps between rows as bars by power of ten."""
    steps = np.diff(np.sort(times)).astype(np.int64)
    steps = steps[steps > 0]
    if not len(steps):
        return f'<p class="quiet">{html.escape(title)}: no two times differ.</p>'
    powers = np.floor(np.log10(steps)).astype(int)
    kinds, counts = np.unique(powers, return_counts=True)
    rows = []
    for index, (power, count) in enumerate(zip(kinds.tolist(), counts.tolist(), strict=True)):
        wide = max((WIDTH - 320) * count / int(counts.max()), 1.0)
        top = 8 + 24 * index
        rows.append(
            f'<text x="170" y="{top + 14}" text-anchor="end">{length(10.0**power)} to '
            f"{length(10.0 ** (power + 1))}</text>"
            f'<rect x="180" y="{top}" width="{wide:.1f}" height="18" rx="2" fill="{style.LINE}"/>'
            f'<text x="{186 + wide:.1f}" y="{top + 14}">{count:,}</text>'
        )
    return (
        f'<h3>{html.escape(title)}</h3><svg viewBox="0 0 {WIDTH} {16 + 24 * len(kinds)}" width="100%" role="img" '
        f'aria-label="{html.escape(title)}" font-size="12" fill="{style.MUTED}">{"".join(rows)}</svg>'
    )


def _pictures(name: str, value: Any, report: DataReport, sigmas: float) -> str:
    from tengri_fast.market.quality import reference_price, spike_distance, touch

    tick = report.stream(name).tick
    made = []
    if name != "deltas":
        prices = reference_price(name, value)
        distance, _, _ = spike_distance(prices, tick)
        what = {"quotes": "mid", "depth": "mid", "bars": "close", "trades": "price"}[name]
        title = f"{what} of {name}; dots are more than {sigmas:g} robust deviations from their neighbours"
        made.append(_line(value.ts_init, prices, title, distance > sigmas))
    if name in ("quotes", "depth"):
        bid, ask, _, _ = touch(value)
        made.append(_line(value.ts_init, ask - bid, f"spread of {name}; dots are crossed or locked", ask - bid <= 0))
    made.append(_pauses(value.ts_init, f"time between rows of {name}"))
    return "".join(made)


def write_page(path: Path, kind: str, report: DataReport, columns: MarketColumns, sigmas: float) -> None:
    """Write the report as one HTML file without anything from elsewhere.

    Parameters
    ----------
    path : Path
    kind : str
        Format of the data.
    report : DataReport
    columns : MarketColumns
        What was described.
    sigmas : float
        Distance that makes an outlier.
    """
    lines: list[str] = []
    render(kind, report, lines.append)
    title = f"Data: {report.source}"
    sections = "".join(
        f"<section><h2>{html.escape(name)}</h2>{_pictures(name, value, report, sigmas)}</section>"
        for name, value in columns.streams().items()
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><title>{html.escape(title)}</title><style>{style.CSS}</style>'
        f"</head><body><main><header><h1>{html.escape(title)}</h1></header><section><h2>Report</h2>"
        f'<pre style="white-space:pre-wrap;max-height:none">{html.escape(chr(10).join(lines))}</pre></section>'
        f"{sections}</main></body>"
        "</html>\n"
    )
    write_atomic(path, page.encode())
