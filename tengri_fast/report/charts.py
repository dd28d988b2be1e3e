"""The charts of the page, as plotly ``data`` and ``layout``: plain dictionaries, made from the page's numbers."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tengri_fast.report import _format as show
from tengri_fast.report import _style as style

__all__ = ["figures", "log_ticks"]

Page = Mapping[str, Any]


def _e(text: Any) -> str:
    # plotly.js reads &lt; &gt; &amp; in its texts, but would print &quot; as it stands.
    return html.escape(str(text), quote=False)


def _layout(height: int, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "height": height,
        "margin": {"l": 70, "r": 24, "t": 16, "b": 48},
        "paper_bgcolor": style.PAPER,
        "plot_bgcolor": style.PAPER,
        "font": {"family": style.FONT, "size": 12, "color": style.INK},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": style.PAPER, "bordercolor": style.BORDER, "font": {"color": style.INK}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11}},
        "showlegend": False,
    }
    return {**base, **more}


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "font": {"size": 12, "color": style.MUTED}, "standoff": 8},
        "gridcolor": style.GRID,
        "zeroline": False,
        "linecolor": style.BORDER,
        "tickfont": {"color": style.MUTED, "size": 11},
        "automargin": True,
        **more,
    }


def _time_axis(**more: Any) -> dict[str, Any]:
    return _axis("Time (UTC)", type="date", hoverformat="%Y-%m-%d %H:%M:%S.%L", **more)


def _equity(page: Page) -> dict[str, Any]:
    equity, down, currency = page["equity"], page["drawdown"], _e(page["currency"])
    single = len(equity["ms"]) == 1
    data = [
        {
            "type": "scatter", "mode": "markers" if single else "lines", "name": "Equity",
            "x": equity["ms"], "y": equity["value"], "line": {"color": style.LINE, "width": 1.8},
            "marker": {"color": style.LINE, "size": 8},
            "hovertemplate": "%{x}<br>%{y:,.2f} " + currency + "<extra></extra>",
        },
        {
            "type": "scatter", "mode": "lines", "name": "Drawdown", "x": down["ms"], "y": down["value"], "yaxis": "y2",
            "line": {"color": style.LOSS, "width": 1.2}, "fill": "tozeroy", "fillcolor": style.LOSS_SOFT,
            "hovertemplate": "%{x}<br>%{y:,.2f} " + currency + "<extra></extra>",
        },
    ]  # fmt: skip
    start = page["headline"]["starting_equity"]
    return {
        "data": data,
        "layout": _layout(
            430,
            xaxis=_time_axis(anchor="y2"),
            yaxis=_axis(f"Equity after fees ({currency})", domain=[0.36, 1.0], tickformat=",.6~f"),
            yaxis2=_axis(f"Drawdown ({currency})", domain=[0.0, 0.28], rangemode="tozero", tickformat=",.6~f"),
            shapes=[
                {
                    "type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": start, "y1": start,
                    "line": {"color": style.FAINT, "width": 1, "dash": "dot"},
                }
            ],
            annotations=[
                {
                    "xref": "paper", "x": 1, "xanchor": "right", "yref": "y", "y": start, "yanchor": "bottom",
                    "text": "starting equity", "showarrow": False, "font": {"size": 10, "color": style.MUTED},
                }
            ],
        ),
    }  # fmt: skip


def _connectors(marks: Page, winners: bool) -> tuple[list[Any], list[Any]]:
    x: list[Any] = []
    y: list[Any] = []
    for i, net in enumerate(marks["net"]):
        if (net > 0) == winners:
            x += [marks["entry_ms"][i], marks["exit_ms"][i], None]
            y += [marks["entry_price"][i], marks["exit_price"][i], None]
    return x, y


def _price(page: Page) -> dict[str, Any]:
    price, marks = page["price"], page["markers"]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "name": "Mid price", "x": price["ms"], "y": price["value"],
            "line": {"color": style.FAINT, "width": 1.1}, "hovertemplate": "%{x}<br>%{y:,.6~f}<extra>mid</extra>",
        }
    ]  # fmt: skip
    for winners, label, colour in ((True, "Trade that gained", style.GAIN), (False, "Trade that lost", style.LOSS)):
        x, y = _connectors(marks, winners)
        if x:
            data.append(
                {
                    "type": "scatter", "mode": "lines", "name": label, "x": x, "y": y, "hoverinfo": "skip",
                    "line": {"color": colour, "width": 1.6},
                }
            )  # fmt: skip
    for side, label, symbol, colour in (
        (1, "Long entry", "triangle-up", style.GAIN),
        (-1, "Short entry", "triangle-down", style.LOSS),
    ):
        rows = [i for i, s in enumerate(marks["side"]) if s == side]
        if rows:
            data.append(
                {
                    "type": "scatter", "mode": "markers", "name": label,
                    "x": [marks["entry_ms"][i] for i in rows], "y": [marks["entry_price"][i] for i in rows],
                    "marker": {"symbol": symbol, "size": 9, "color": colour, "line": {"color": "white", "width": 1}},
                    "hovertemplate": "%{x}<br>%{y:,.6~f}<extra>" + label.lower() + "</extra>",
                }
            )  # fmt: skip
    if marks["net"]:
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": "Exit", "x": marks["exit_ms"], "y": marks["exit_price"],
                "marker": {"symbol": "circle", "size": 6, "color": "white", "line": {"color": style.INK, "width": 1.3}},
                "customdata": marks["net"],
                "hovertemplate": "%{x}<br>%{y:,.6~f}<br>net %{customdata:,.4f}<extra>exit</extra>",
            }
        )  # fmt: skip
    return {
        "data": data,
        "layout": _layout(
            420, margin={"l": 70, "r": 24, "t": 40, "b": 48}, showlegend=True,
            xaxis=_time_axis(), yaxis=_axis(f"Price ({_e(page['instrument_id'])})", tickformat=",.6~f"),
        ),
    }  # fmt: skip


def _net(page: Page) -> dict[str, Any]:
    bars = page["net_histogram"]
    edges = bars["edges"]
    middle = [(a + b) / 2 for a, b in pairwise(edges)]
    return {
        "data": [
            {
                "type": "bar", "x": middle, "y": bars["counts"],
                "width": [b - a for a, b in pairwise(edges)],
                "marker": {
                    "color": [style.GAIN if m > 0 else style.LOSS for m in middle],
                    "line": {"color": "white", "width": 1},
                },
                "hovertemplate": "%{x:,.4f}: %{y} trades<extra></extra>",
            }
        ],
        "layout": _layout(
            300, xaxis=_axis(f"Net PnL per trade ({_e(page['currency'])})", zeroline=True, zerolinecolor=style.FAINT),
            yaxis=_axis("Trades"), bargap=0,
        ),
    }  # fmt: skip


def _costs(page: Page) -> dict[str, Any]:
    head, currency = page["headline"], page["currency"]
    rows = [("Gross", head["gross"]), ("Fees", -head["fees"]), ("Net", head["pnl"])]
    return {
        "data": [
            {
                "type": "waterfall", "orientation": "v", "x": [name for name, _ in rows],
                "y": [value for _, value in rows], "measure": ["relative", "relative", "total"],
                "text": [show.money(value, signed=True) for _, value in rows], "textposition": "auto",
                "cliponaxis": False,
                "increasing": {"marker": {"color": style.GAIN}}, "decreasing": {"marker": {"color": style.LOSS}},
                "totals": {"marker": {"color": style.LINE}}, "connector": {"line": {"color": style.FAINT, "width": 1}},
                "hovertemplate": "%{x}: %{y:,.4f}<extra></extra>",
            }
        ],
        "layout": _layout(
            300, xaxis=_axis("", type="category"),
            yaxis=_axis(f"{_e(currency)}", zeroline=True, zerolinecolor=style.FAINT, tickformat=",.6~f"),
        ),
    }  # fmt: skip


def _hit_rates(page: Page) -> dict[str, Any]:
    rates = [rate for rate in reversed(page["skill"]["rates"]) if rate["rate"] is not None]
    return {
        "data": [
            {
                "type": "scatter", "mode": "markers",
                "x": [100 * r["rate"] for r in rates], "y": [_e(r["label"]) for r in rates],
                "error_x": {
                    "type": "data", "symmetric": False, "thickness": 1.8, "width": 5, "color": style.MUTED,
                    "array": [max(0.0, 100 * (r["high"] - r["rate"])) for r in rates],
                    "arrayminus": [max(0.0, 100 * (r["rate"] - r["low"])) for r in rates],
                },
                "marker": {"size": 13, "color": [style.LINE if r["name"] == "model" else style.RIVAL for r in rates]},
                "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
            }
        ],
        "layout": _layout(
            300, margin={"l": 130, "r": 24, "t": 16, "b": 48},
            xaxis=_axis("Hit rate on fresh books (%), 95 % interval", range=[0, 100]), yaxis=_axis("", type="category"),
            shapes=[
                {
                    "type": "line", "x0": 50, "x1": 50, "yref": "paper", "y0": 0, "y1": 1,
                    "line": {"color": style.FAINT, "width": 1, "dash": "dot"},
                }
            ],
        ),
    }  # fmt: skip


def _reliability(page: Page) -> dict[str, Any]:
    c = page["skill"]["calibration"]
    rows = [i for i, n in enumerate(c["count"]) if n]
    edges = c["edges"]
    return {
        "data": [
            {
                "type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip",
                "line": {"color": style.FAINT, "dash": "dot", "width": 1},
            },
            {
                "type": "scatter", "mode": "lines+markers",
                "x": [c["predicted"][i] for i in rows], "y": [c["observed"][i] for i in rows],
                "customdata": [c["count"][i] for i in rows],
                "error_y": {
                    "type": "data", "symmetric": False, "thickness": 1.4, "width": 4, "color": style.MUTED,
                    "array": [max(0.0, c["high"][i] - c["observed"][i]) for i in rows],
                    "arrayminus": [max(0.0, c["observed"][i] - c["low"][i]) for i in rows],
                },
                "line": {"color": style.LINE, "width": 1.6}, "marker": {"size": 8, "color": style.LINE},
                "hovertemplate": "said %{x:.3f}, was %{y:.3f}<br>%{customdata} moves<extra></extra>",
            },
            {
                "type": "bar", "x": [(a + b) / 2 for a, b in pairwise(edges)],
                "y": c["count"], "width": [b - a for a, b in pairwise(edges)], "yaxis": "y2",
                "marker": {"color": style.LINE_SOFT, "line": {"color": "white", "width": 1}},
                "hovertemplate": "%{y} moves<extra></extra>",
            },
        ],
        "layout": _layout(
            340, xaxis=_axis("Predicted P(up), given a move", range=[0, 1], anchor="y2"),
            yaxis=_axis("Observed share up", range=[-0.03, 1.03], domain=[0.3, 1]),
            yaxis2=_axis("Moves", domain=[0, 0.2], nticks=3),
        ),
    }  # fmt: skip


def _coverage(page: Page) -> dict[str, Any]:
    c = page["skill"]["coverage"]
    x = [100 * v for v in c["coverage"]]
    imbalance = next((r for r in page["skill"]["rates"] if r["name"] == "imbalance" and r["rate"] is not None), None)
    shapes = []
    annotations = []
    if imbalance:
        y = 100 * imbalance["rate"]
        shapes.append(
            {
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y,
                "line": {"color": style.RIVAL, "width": 1.2, "dash": "dash"},
            }
        )  # fmt: skip
        annotations.append(
            {
                "xref": "paper", "x": 0, "xanchor": "left", "y": y, "yanchor": "top", "showarrow": False,
                "text": "imbalance sign, all moves", "font": {"size": 10, "color": style.MUTED},
            }
        )  # fmt: skip
    return {
        "data": [
            {
                "type": "scatter", "mode": "lines", "x": x + x[::-1],
                "y": [100 * v for v in c["high"]] + [100 * v for v in reversed(c["low"])], "fill": "toself",
                "fillcolor": style.LINE_SOFT, "line": {"width": 0}, "hoverinfo": "skip",
            },
            {
                "type": "scatter", "mode": "lines+markers", "x": x, "y": [100 * v for v in c["accuracy"]],
                "line": {"color": style.LINE, "width": 1.8}, "marker": {"size": 5, "color": style.LINE},
                "customdata": c["moves"],
                "hovertemplate": "surest %{x:.0f} % (%{customdata} moves): %{y:.1f} %<extra></extra>",
            },
        ],
        "layout": _layout(
            340, xaxis=_axis("Share of moves kept, surest first (%)", range=[0, 102]),
            yaxis=_axis("Hit rate (%), 95 % Wilson interval"), shapes=shapes, annotations=annotations,
        ),
    }  # fmt: skip


def _latency(page: Page) -> dict[str, Any]:
    found = page["latency"]
    shapes: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, (key, label) in enumerate((("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max"))):
        shapes.append(
            {
                "type": "line", "x0": found[key], "x1": found[key], "yref": "paper", "y0": 0, "y1": 1,
                "line": {"color": style.INK, "width": 1, "dash": "dot"},
            }
        )  # fmt: skip
        annotations.append(
            {
                "x": _log10(found[key]), "yref": "paper", "y": 1.0 - 0.11 * (i % 4), "xanchor": "left",
                "yanchor": "top", "showarrow": False, "bgcolor": "rgba(255,255,255,0.85)",
                "text": f" {label} {show.nanoseconds(found[key])}", "font": {"size": 11, "color": style.INK},
            }
        )  # fmt: skip
    return {
        "data": [
            {
                "type": "scatter", "mode": "lines", "x": found["edges"], "y": [*found["counts"], 0],
                "line": {"color": style.LINE, "width": 1.2, "shape": "hv"}, "fill": "tozeroy",
                "fillcolor": style.LINE_SOFT, "hovertemplate": "from %{x:,.0f} ns: %{y:,} ticks<extra></extra>",
            }
        ],
        "layout": _layout(
            320, xaxis=_axis("Tick to signal (logarithmic)", type="log", **log_ticks(found["edges"])),
            yaxis=_axis("Ticks", rangemode="tozero"), shapes=shapes, annotations=annotations,
        ),
    }  # fmt: skip


def _log10(value: float) -> float:
    return math.log10(max(value, 1e-3))


def log_ticks(edges: Sequence[float]) -> dict[str, Any]:
    """Tick values and labels for a logarithmic axis of nanoseconds from the first to the last of `edges`."""
    low, high = int(_log10(edges[0]) // 1), int(_log10(edges[-1]) // 1) + 1
    # One more label per decade where there are few decades.
    marks = (1, 2, 5) if high - low <= 3 else (1,)
    values = [m * 10.0**power for power in range(low, high + 1) for m in marks]
    values = [v for v in values if edges[0] <= v <= edges[-1] * 1.2]
    if len(values) < 2:
        values = [edges[0], edges[-1]]
    return {"tickvals": values, "ticktext": [show.nanoseconds(v) for v in values]}


def _denied(page: Page) -> dict[str, Any]:
    rows = list(reversed(page["denied"]))
    names = [_e(r["rule"]) for r in rows]
    other = [r["total"] - r["strategy"] - r["drill"] for r in rows]
    parts = [
        ("Strategy", [r["strategy"] for r in rows], style.LOSS),
        ("Drill", [r["drill"] for r in rows], style.RIVAL),
    ]
    step = max(1, math.ceil(max(r["total"] for r in rows) / 6))
    if any(other):
        parts.append(("Counted, not listed", other, style.BORDER))
    return {
        "data": [
            {
                "type": "bar", "orientation": "h", "name": name, "x": counts, "y": names, "marker": {"color": colour},
                "hovertemplate": "%{y}: %{x}<extra>" + name + "</extra>",
            }
            for name, counts, colour in parts
        ],
        "layout": _layout(
            max(180, 90 + 44 * len(rows)), barmode="stack", showlegend=True,
            margin={"l": 150, "r": 24, "t": 40, "b": 48}, bargap=0.35,
            xaxis=_axis("Orders denied", rangemode="tozero", tickformat=",d", tick0=0, dtick=step),
            yaxis=_axis("", type="category"),
        ),
    }  # fmt: skip


def figures(page: Page) -> dict[str, dict[str, Any]]:
    """Every chart of the page as plotly ``data`` and ``layout``; a chart with nothing to show is left out."""
    out = {"equity": _equity(page)}
    if page["price"]["ms"]:
        out["price"] = _price(page)
    if page["trades"]:
        out["net"] = _net(page)
    if page["fills"] or page["trades"]:
        out["costs"] = _costs(page)
    if page["skill"] and page["skill"]["moves"]:
        out |= {"hit-rates": _hit_rates(page), "reliability": _reliability(page), "coverage": _coverage(page)}
    if page["latency"]:
        out["latency"] = _latency(page)
    if page["denied"]:
        out["denied"] = _denied(page)
    return out
