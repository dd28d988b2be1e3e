"""The page of ``tengri risk backtest``: exceptions over time, cumulative counts, traffic lights, every test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tengri_fast.cli.risk_pages import Html, card, chart, escape, grid, page_text, pill, section
from tengri_fast.report import _format as show
from tengri_fast.report import _style as style
from tengri_fast.report.charts import _axis, _layout, _time_axis
from tengri_fast.report.page import decimate

if TYPE_CHECKING:
    from tengri_fast.cli.risk_backtest import Series
    from tengri_fast.risk.backtest import Judgement

__all__ = ["backtest_page", "cumulative_band"]

POINTS = 1500
BAND = 0.95
_ZONES = ("green", "yellow", "red")
_COLOURS = {"green": style.GAIN, "yellow": style.WARN, "red": style.LOSS}
_PALETTE = ("#1d4ed8", "#0f8a5f", "#b7791f", "#7c3aed", "#c2312f", "#0e7490", "#be185d", "#4d7c0f", "#7c8aa0",
            "#ea580c", "#334155", "#0d9488")  # fmt: skip
Floats = npt.NDArray[np.float64]

DISCLAIMER = (
    "A backtest shows how a method would have done on recorded data. Not rejected is not the same as right, and the "
    "next crisis need not resemble the ones in the sample."
)

_DEFINITIONS = (
    ("Exception", "A day whose loss was larger than the VaR forecast the evening before."),
    ("Zone", "Basel: green while a right model has at most that many exceptions with probability below 95 %, red from "
             "99.99 %. The rolling light looks at the last 250 days."),
    ("POF, TUFF", "Kupiec: number of exceptions, time until the first."),
    ("Independence, conditional coverage", "Christoffersen: does an exception today change the odds for tomorrow; "
                                           "and both questions together."),
    ("Durations", "Christoffersen-Pelletier (Weibull) and Haas: are the days between exceptions memoryless."),
    ("DQ", "Engle-Manganelli: could exceptions have been foreseen from lagged ones and the VaR itself."),
    ("Z1, Z2", "Acerbi-Szekely: were losses beyond the VaR as large as the expected shortfall; negative is larger."),
    ("Exact p", "At this number of days: enumerated (POF, TUFF, binomial, independence, conditional coverage) or "
                "simulated with a fixed seed (the others). Ties count as extreme."),
    ("Joint score", "Fissler-Ziegel score of VaR and ES, mean per day; lower is better, only differences count."),
)  # fmt: skip


def _ms(times: npt.NDArray[np.uint64]) -> list[float]:
    found: list[float] = (times.astype(np.float64) / 1e6).tolist()
    return found


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def cumulative_band(days: npt.NDArray[np.int64], p: float) -> tuple[list[int], list[int]]:
    """Least and largest count, after each number of days, that a right model stays within with 95 % probability.

    Central binomial interval: P(fewer than the least) <= 2.5 % and P(more than the largest) <= 2.5 %, day by day (not
    for the whole path at once).
    """
    from tengri_fast.risk.backtest._special import binomial_pmf

    low, high = [], []
    half = 0.5 * (1.0 - BAND)
    for n in days.tolist():
        below = np.cumsum(binomial_pmf(n, p))
        low.append(int(np.searchsorted(below, half, side="right")))
        high.append(min(int(np.searchsorted(below, 1.0 - half, side="left")), n))
    return low, high


def _name(judgement: Judgement) -> str:
    from tengri_fast.risk.backtest import METHODS

    method = judgement.forecasts.method
    return METHODS[method].label if method in METHODS else method


def _daily(judgement: Judgement) -> dict[str, Any]:
    """Results, VaR and ES over time, exceptions marked; below them the strip of exceptions."""
    f = judgement.forecasts
    times = f.times
    assert times is not None  # set at construction
    hits = f.hits
    data: list[dict[str, Any]] = []
    lines = (("Return", f.pnl, style.FAINT, 0.9), ("- VaR", -f.var, style.LINE, 1.4), ("- ES", -f.es, style.WARN, 1.1))
    for name, values, colour, width in lines:
        ts, kept = decimate(times, np.asarray(values), POINTS)
        data.append(
            {
                "type": "scatter", "mode": "lines", "name": name, "x": _ms(ts), "y": _rounded(kept),
                "line": {"color": colour, "width": width}, "hovertemplate": "%{x}<br>%{y:.3%}<extra>" + name
                + "</extra>",
            }
        )  # fmt: skip
    data.append(
        {
            "type": "scatter", "mode": "markers", "name": "Exception", "x": _ms(times[hits]),
            "y": _rounded(f.pnl[hits]), "marker": {"color": style.LOSS, "size": 6, "symbol": "x"},
            "customdata": _rounded(-f.pnl[hits] / f.var[hits]),
            "hovertemplate": "%{x}<br>%{y:.3%}, %{customdata:.2f} x VaR<extra>exception</extra>",
        }
    )  # fmt: skip
    data.append(
        {
            "type": "scatter", "mode": "markers", "name": "Exceptions, strip", "x": _ms(times[hits]),
            "y": [1] * int(hits.sum()), "yaxis": "y2", "showlegend": False,
            "marker": {"symbol": "line-ns", "size": 16, "line": {"color": style.LOSS, "width": 1.2}},
            "hovertemplate": "%{x}<extra>exception</extra>",
        }
    )  # fmt: skip
    return {
        "data": data,
        "layout": _layout(
            400, showlegend=True, margin={"l": 70, "r": 24, "t": 36, "b": 40},
            xaxis=_time_axis(anchor="y2"),
            yaxis=_axis("Return of the position", domain=[0.18, 1.0], tickformat=".1%"),
            yaxis2=_axis("", domain=[0.0, 0.1], showticklabels=False, fixedrange=True),
        ),
    }  # fmt: skip


def _strip(by_method: Mapping[str, Judgement]) -> dict[str, Any]:
    """One row of marks per method: where exceptions fall, and whether they fall together."""
    data = []
    names = [_name(judgement) for judgement in by_method.values()]
    for row, judgement in enumerate(by_method.values()):
        f = judgement.forecasts
        assert f.times is not None
        data.append(
            {
                "type": "scatter", "mode": "markers", "x": _ms(f.times[f.hits]), "y": [row] * int(f.hits.sum()),
                "name": names[row], "marker": {
                    "symbol": "line-ns", "size": 14, "line": {"color": _COLOURS[judgement.zone], "width": 1.1},
                },
                "hovertemplate": "%{x}<extra>" + names[row] + "</extra>",
            }
        )  # fmt: skip
    return {
        "data": data,
        "layout": _layout(
            90 + 26 * len(names), xaxis=_time_axis(),
            yaxis=_axis("", tickmode="array", tickvals=list(range(len(names))), ticktext=names, autorange="reversed"),
        ),
    }  # fmt: skip


def _zones(by_method: Mapping[str, Judgement]) -> dict[str, Any]:
    """Traffic light of the last 250 days, method by method."""
    first = next(iter(by_method.values()))
    assert first.forecasts.times is not None
    days = first.zones.size
    rows = np.unique(np.linspace(0, days - 1, min(days, 600)).astype(np.int64))
    table = []
    for judgement in by_method.values():
        # The worst light of each stretch is shown, so that no red day is thinned away.
        worst = np.maximum.reduceat(judgement.zones.astype(np.int64), rows)
        table.append([None if value < 0 else int(value) for value in worst.tolist()])
    scale = [[0.0, style.GAIN], [0.33, style.GAIN], [0.34, style.WARN], [0.66, style.WARN], [0.67, style.LOSS],
             [1.0, style.LOSS]]  # fmt: skip
    names = [_name(judgement) for judgement in by_method.values()]
    return {
        "data": [
            {
                "type": "heatmap", "x": _ms(first.forecasts.times[rows]), "y": names, "z": table, "zmin": 0, "zmax": 2,
                "colorscale": scale, "showscale": False, "ygap": 2,
                "hovertemplate": "%{x}<br>%{y}: zone %{z} (0 green, 1 yellow, 2 red)<extra></extra>",
            }
        ],
        "layout": _layout(90 + 26 * len(names), xaxis=_time_axis(), yaxis=_axis("", autorange="reversed")),
    }  # fmt: skip


def _cumulative(by_method: Mapping[str, Judgement], level: float) -> dict[str, Any]:
    """Cumulative exceptions against what a right model would have, with a 95 % band."""
    first = next(iter(by_method.values())).forecasts
    assert first.times is not None
    total = first.pnl.size
    at = np.unique(np.linspace(1, total, min(total, 200)).astype(np.int64))
    low, high = cumulative_band(at, 1.0 - level)
    x = _ms(first.times[at - 1])
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": x, "y": high, "line": {"width": 0}, "hoverinfo": "skip",
         "showlegend": False},
        {"type": "scatter", "mode": "lines", "x": x, "y": low, "line": {"width": 0}, "fill": "tonexty",
         "fillcolor": style.LINE_SOFT, "name": "95 % band of a right model", "hoverinfo": "skip"},
        {"type": "scatter", "mode": "lines", "x": x, "y": _rounded(at.astype(np.float64) * (1.0 - level)),
         "name": "expected", "line": {"color": style.INK, "width": 1, "dash": "dot"}},
    ]  # fmt: skip
    for i, judgement in enumerate(by_method.values()):
        count = np.cumsum(judgement.forecasts.hits)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": count[at - 1].tolist(),
                "name": _name(judgement),
                "line": {"color": _PALETTE[i % len(_PALETTE)], "width": 1.6},
            }
        )
    return {
        "data": data,
        "layout": _layout(
            420, showlegend=True, margin={"l": 70, "r": 24, "t": 70, "b": 48}, xaxis=_time_axis(),
            yaxis=_axis("Exceptions so far"),
        ),
    }  # fmt: skip


def _p(test: Mapping[str, Any] | None) -> object:
    if test is None:
        return show.NONE
    p = test["p_value"] if test["exact_p_value"] is None else test["exact_p_value"]
    if p is None:
        return show.NONE
    text = "&lt; 0.001" if p < 0.001 else f"{p:.3f}"
    return Html(f'<span class="bad">{text}</span>') if test["rejected"] else Html(text)


def _overview(rows: list[dict[str, Any]], labels: Mapping[str, str]) -> str:
    columns = ("Kupiec POF", "Christoffersen independence", "Conditional coverage", "Weibull durations",
               "Dynamic quantile", "Acerbi-Szekely Z1", "Acerbi-Szekely Z2")  # fmt: skip
    cells = []
    for row in rows:
        tests = {test["name"]: test for test in row["tests"]}
        shares = row["zone_shares"]
        rolling = " / ".join(show.percent(shares[zone], 0) for zone in _ZONES)
        cells.append(
            (
                labels[row["method"]], show.count(row["exceptions"]), show.number(row["expected"], 1),
                pill(row["zone"]), rolling, show.count(row["worst_year"]),
                *(_p(tests.get(name)) for name in columns),
                show.percent(row["mean_var"], 2), show.percent(row["mean_es"], 2), show.number(row["joint_score"], 4),
            )
        )  # fmt: skip
    headers = [
        ("Method", False), ("Exceptions", True), ("Expected", True), ("Zone", False), ("Green / yellow / red", True),
        ("Worst 250 days", True), ("POF", True), ("Indep.", True), ("Cond. cov.", True), ("Durations", True),
        ("DQ", True), ("Z1", True), ("Z2", True), ("Mean VaR", True), ("Mean ES", True), ("Joint score", True),
    ]  # fmt: skip
    return grid(headers, cells, "Tests: p-values at this number of days; red ones reject at 5 %.")


def _tests(row: Mapping[str, Any]) -> str:
    def number(value: float | None) -> str:
        return show.NONE if value is None else show.number(value, 4)

    def chance(value: float | None) -> str:
        return "< 0.0001" if value is not None and value < 0.0001 else number(value)

    return grid(
        [("Test", False), ("Statistic", True), ("Asymptotic p", True), ("Exact p", True), ("In words", False)],
        (
            (
                test["name"], number(test["statistic"]), chance(test["p_value"]),
                Html(f'<span class="bad">{escape(chance(test["exact_p_value"]))}</span>')
                if test["rejected"] and test["exact_p_value"] is not None else chance(test["exact_p_value"]),
                test["verdict"],
            )
            for test in row["tests"]
        ),
    )  # fmt: skip


def _crises(rows: list[dict[str, Any]], labels: Mapping[str, str]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["crises"]))
    if not names:
        return '<p class="quiet">None of the known crises lies within these days.</p>'
    cells = []
    for row in rows:
        line: list[object] = [labels[row["method"]]]
        for name in names:
            found = row["crises"].get(name)
            if found is None:
                line.append(show.NONE)
                continue
            text = f"{found['exceptions']} of {found['days']}, worst {found['worst_loss_over_var']:.2f} x VaR"
            line.append(Html(f'<span class="bad">{text}</span>') if found["chance"] < 0.05 else text)
        cells.append(line)
    return grid(
        [("Method", False), *((name, False) for name in names)], cells,
        "Red: a right model has that many or more with a probability below 5 %.",
    )  # fmt: skip


def _compare(rows: list[dict[str, Any]], labels: Mapping[str, str]) -> str:
    if not rows:
        return '<p class="quiet">One method has nothing to be compared with.</p>'
    return grid(
        [("Method", False), ("Joint score", True), ("Quantile loss", True), ("Against the best", True), ("p", True)],
        (
            (
                labels[row["method"]] + (" (best)" if row["best"] else ""), show.number(row["joint_score"], 5),
                f"{row['quantile_loss']:.4e}", show.NONE if row["statistic"] is None else show.number(row["statistic"]),
                show.NONE if row["p_value"] is None else f"{row['p_value']:.2g}",
            )
            for row in rows
        ),
        "Diebold-Mariano statistic of the joint score, positive: worse than the best. The best was chosen on the same "
        "days, so these p-values flatter it.",
    )  # fmt: skip


def backtest_page(
    series: Series, judged: Mapping[float, Mapping[str, Judgement]], record: Mapping[str, Any]
) -> str:  # fmt: skip
    """The page as one text.

    Parameters
    ----------
    series : Series
        What was judged on.
    judged : mapping of float to (mapping of str to Judgement)
        By level and method.
    record : mapping
        What :func:`tengri_fast.cli.risk_backtest.document` made of it.

    Raises
    ------
    MissingExtraError
        If plotly is not installed.
    """
    figures: dict[str, Any] = {}
    body: list[str] = []
    notes = []
    labels = {name: _name(judgement) for by_method in judged.values() for name, judgement in by_method.items()}
    for level, by_method in judged.items():
        mark = f"{100 * level:g}".replace(".", "-")
        rows = [row for row in record["results"] if row["level"] == level]
        best = min(rows, key=lambda row: row["joint_score"])
        zones = {zone: [labels[row["method"]] for row in rows if row["zone"] == zone] for zone in _ZONES}
        clean = [labels[row["method"]] for row in rows if not row["failed"]]
        parts = "; ".join(f"{zone}: {', '.join(names)}" for zone, names in zones.items() if names)
        notes.append(
            f"At {100 * level:g} %: {parts}. "
            + (f"Passed every test: {', '.join(clean)}." if clean else "No method passed every test.")
        )
        body.append(
            '<div class="cards">'
            + card(
                f"Best joint score, {100 * level:g} %",
                labels[best["method"]],
                "lowest mean joint score of VaR and ES; the sections below say what it failed",
            )
            + "".join(
                card(f"{zone.capitalize()}, {100 * level:g} %", len(names), ", ".join(names) or "none")
                for zone, names in zones.items()
            )
            + "</div>"
        )
        links = " ".join(f'<a href="#{name}-{mark}">{labels[name]}</a>' for name in by_method)
        body.append(
            section(
                f"All methods, VaR and ES at {100 * level:g} %", _overview(rows, labels) + f"<nav>{links}</nav>",
                f"{rows[0]['days']:,} days, each forecast from the {record['settings']['window']} days before it.",
            )
        )  # fmt: skip
        for name, title, lead, figure in (
            ("strip", "Exceptions over time", "One mark per exception; the colour is the zone over all days.",
             _strip(by_method)),
            ("lights", "Traffic light of the last 250 days", "The worst light of each stretch that a column covers.",
             _zones(by_method)),
            ("cumulative", "Exceptions so far, and what a right model would have", "", _cumulative(by_method, level)),
        ):  # fmt: skip
            figures[f"{name}-{mark}"] = figure
            body.append(section(f"{title}, {100 * level:g} %", chart(f"{name}-{mark}"), lead))
        body.append(section(f"In crises, {100 * level:g} %", _crises(rows, labels)))
        compared = [row for row in record["comparison"] if row["level"] == level]
        body.append(section(f"Which model is better, {100 * level:g} %", _compare(compared, labels)))
        for row in rows:
            judgement = by_method[row["method"]]
            figures[f"daily-{row['method']}-{mark}"] = _daily(judgement)
            said = "".join(f'<p class="quiet">{note}</p>' for note in row["notes"])
            body.append(
                section(
                    f"{labels[row['method']]}, {100 * level:g} %",
                    chart(f"daily-{row['method']}-{mark}") + _tests(row) + said,
                    row["verdict"], f"{row['method']}-{mark}",
                )
            )  # fmt: skip
    body.append(section("What the words mean", grid([("Word", False), ("Meaning", False)], _DEFINITIONS)))
    first = next(iter(next(iter(judged.values())).values())).forecasts
    assert first.times is not None
    dated = int(first.times[-1]) > 86_400_000_000_000 * 365
    span = (
        f"{show.utc(int(first.times[0]), decimals=0)[:10]} to {show.utc(int(first.times[-1]), decimals=0)[:10]}"
        if dated
        else ""
    )
    settings = record["settings"]
    facts = {
        **series.facts,
        "Forecast days": f"{first.pnl.size:,}",
        "Span": span,
        "Window": f"{settings['window']} days",
        "Side": settings["side"],
        "Horizon": "1 day",
        "Simulations, seed": f"{settings['simulations']}, {settings['seed']}",
    }
    notes += list(series.notes)
    return page_text(
        f"VaR backtest: {series.name}", facts, notes, body, figures, _finite(record), DISCLAIMER
    )  # fmt: skip


def _finite(value: Any) -> Any:
    """The record with None for numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
