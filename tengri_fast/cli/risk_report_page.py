"""The page of ``tengri risk report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tengri_fast.cli.risk_pages import Html, card, chart, escape, grid, page_text, section
from tengri_fast.report import _format as show
from tengri_fast.report import _style as style
from tengri_fast.report.charts import _axis, _layout

__all__ = ["report_page"]

DRAWN = 40
"""Most instruments in a chart; tables hold all."""

DISCLAIMER = (
    "VaR and ES are estimates from the scenarios named above, with the intervals shown; stress results are what a "
    "revaluation gives, not a forecast. Losses can be larger than any number on this page."
)

_DEFINITIONS = (
    ("VaR", "The loss that is not exceeded with the confidence given, over the horizon of the scenarios."),
    ("ES", "Mean loss in the worst 1 - confidence of cases."),
    ("Component", "A position's part of the risk; components add up to the total. Negative: it hedges."),
    ("Incremental", "Risk with the position minus risk without it; these do not add up."),
    ("Marginal", "Change of the risk per further unit of quantity."),
    ("Interval", "Of the estimate, given the method; it does not cover that another method may be right."),
    ("Covered", "Part of gross exposure that a stress scenario says something about; the rest is not moved."),
)  # fmt: skip


_MEASURES = {"var": "VaR", "es": "ES"}


def _range(bounds: Sequence[float | None] | None, currency: str) -> str:
    if bounds is None:
        return show.NONE
    return " to ".join("unbounded" if value is None else show.money(value) for value in bounds)


def _methods(record: Mapping[str, Any], level: float) -> str:
    currency = record["base_currency"]
    rows = []
    notes = []
    for row in record["methods"]:
        if row["level"] != level:
            continue
        if row["problem"]:
            rows.append((row["label"], show.NONE, show.NONE, show.NONE, show.NONE, row["problem"]))
            continue
        rows.append(
            (row["label"], show.money(row["var"]), _range(row["var_interval"], currency),
             show.money(row["es"]) if row["es"] is not None else "no finite mean", _range(row["es_interval"], currency),
             ". ".join(text for text in (row["interval_method"], row["note"]) if text))
        )  # fmt: skip
        notes.append(row["confidence"])
    confidence = next((value for value in notes if value is not None), 0.95)
    name = f"{100 * confidence:g} % interval"
    return grid(
        [("Method", False), ("VaR", True), (name, True), ("ES", True), (name, True), ("How", False)], rows,
        f"In {currency}; horizon {record['facts'].get('Horizon', 'not known')}.",
    )  # fmt: skip


def split_by(record: Mapping[str, Any]) -> str:
    """Method and level that the risk was split by: the first that could be computed."""
    return next((f"{row['label']}, {100 * row['level']:g} %" for row in record["methods"] if not row["problem"]), "")


def _positions(record: Mapping[str, Any]) -> str:
    rows = sorted(record["positions"], key=lambda row: -abs(row.get("component_es") or row["exposure"]))
    split = any("component_es" in row for row in rows)
    heads = [("Instrument", False), ("Quantity", True), ("Price", True), ("Exposure", True)]
    if split:
        heads += [("Component ES", True), ("Share", True), ("Incremental ES", True), ("Marginal ES", True),
                  ("Component VaR", True), ("Incremental VaR", True), ("Marginal VaR", True)]  # fmt: skip
    cells = []
    for row in rows:
        line = [row["instrument_id"], show.exact(row["quantity"]), show.exact(row["price"]),
                show.money(row["exposure"])]  # fmt: skip
        if split:
            line += [show.money(row["component_es"]), show.percent(row["share_es"]), show.money(row["incremental_es"]),
                     show.money(row["marginal_es"]), show.money(row["component_var"]),
                     show.money(row["incremental_var"]), show.money(row["marginal_var"])]  # fmt: skip
        cells.append(line)
    if split:
        totals = {
            key: sum(row[key] or 0.0 for row in rows) for key in ("exposure", "component_es", "component_var")
        }  # fmt: skip
        cells.append(["Total", "", "", show.money(totals["exposure"]), show.money(totals["component_es"]), "", "", "",
                      show.money(totals["component_var"]), "", ""])  # fmt: skip
    notes = [f"{split_by(record)}, in {record['base_currency']}; marginal: per unit of quantity."] if split else []
    notes += [f"{_MEASURES[key]}: {text}." for key, texts in record["attribution_notes"].items() for text in texts]
    return grid(heads, cells, " ".join(notes))


def _groups(record: Mapping[str, Any]) -> str:
    parts = []
    for name, values in record["groups"].items():
        total = sum(values.values())
        rows = [
            (group, show.money(value), show.percent(value / total if total else None))
            for group, value in sorted(values.items(), key=lambda item: -item[1])
        ]
        parts.append(grid([(name.capitalize(), False), ("Component ES", True), ("Share", True)], rows))
    return "".join(parts)


def _components(record: Mapping[str, Any]) -> dict[str, Any]:
    rows = sorted(record["positions"], key=lambda row: -abs(row["component_es"] or 0.0))[:DRAWN]
    rows.reverse()
    values = [row["component_es"] for row in rows]
    return {
        "data": [
            {
                "type": "bar", "orientation": "h", "y": [escape(row["instrument_id"]) for row in rows], "x": values,
                "marker": {"color": [style.LOSS if (value or 0.0) > 0 else style.GAIN for value in values]},
                "hovertemplate": "%{y}: %{x:,.2f}<extra></extra>",
            }
        ],
        "layout": _layout(
            120 + 20 * len(rows), yaxis=_axis("", type="category"),
            xaxis=_axis(f"Component ES ({escape(record['base_currency'])}; {escape(split_by(record))}); green hedges",
                        zeroline=True, zerolinecolor=style.FAINT),
        ),
    }  # fmt: skip


def _correlation(record: Mapping[str, Any]) -> dict[str, Any]:
    """The instruments with the largest exposures, in the order of their asset class."""
    positions = record["positions"]
    largest = sorted(range(len(positions)), key=lambda i: -abs(positions[i]["exposure"]))[:DRAWN]
    order = sorted(largest, key=lambda i: (positions[i]["asset_class"], positions[i]["instrument_id"]))
    table = [[record["correlation"][i][j] for j in order] for i in order]
    names = [escape(positions[i]["instrument_id"]) for i in order]
    scale = [[0.0, "#b2182b"], [0.25, "#ef8a62"], [0.5, "#f7f7f7"], [0.75, "#67a9cf"], [1.0, "#2166ac"]]
    return {
        "data": [
            {
                "type": "heatmap", "x": names, "y": names, "z": table, "zmin": -1, "zmax": 1, "colorscale": scale,
                "colorbar": {"thickness": 12, "outlinewidth": 0},
                "hovertemplate": "%{y} and %{x}: %{z:.3f}<extra></extra>",
            }
        ],
        "layout": _layout(
            180 + 20 * len(names), xaxis=_axis("", type="category"),
            yaxis=_axis("", type="category", autorange="reversed"),
        ),
    }  # fmt: skip


def _stress(record: Mapping[str, Any]) -> str:
    rows = sorted(record["stress"], key=lambda row: -(row["loss"] if row["loss"] is not None else -1e300))
    cells: list[Sequence[object]] = []
    for row in rows:
        worst = ", ".join(f"{item['instrument']} {show.money(item['pnl'])}" for item in row["contributors"][:3])
        kind = row["kind"] + ("" if row["verified"] else ", secondary source")
        notes = "; ".join(row["notes"])
        cells.append(
            (row["scenario"], kind, row["dates"] or row["horizon"], show.money(row["loss"]),
             show.percent(row["share_of_equity"]), show.percent(row["covered"], 0), worst, row["source"], notes)
        )  # fmt: skip
    return grid(
        [("Scenario", False), ("Kind", False), ("When", False), ("Loss", True), ("Of equity", True), ("Covered", True),
         ("Worst positions", False), ("Source", False), ("Notes", False)], cells,
        "A negative loss is a gain.",
    )  # fmt: skip


def _stress_chart(record: Mapping[str, Any]) -> dict[str, Any]:
    rows = sorted((row for row in record["stress"] if row["loss"] is not None), key=lambda row: -row["loss"])[:25]
    rows.reverse()
    return {
        "data": [
            {
                "type": "bar", "orientation": "h", "y": [escape(row["scenario"]) for row in rows],
                "x": [row["loss"] for row in rows],
                "marker": {"color": [style.LOSS if row["loss"] > 0 else style.GAIN for row in rows]},
                "hovertemplate": "%{y}: %{x:,.2f}<extra></extra>",
            }
        ],
        "layout": _layout(
            120 + 20 * len(rows), yaxis=_axis("", type="category"),
            xaxis=_axis(f"Loss ({escape(record['base_currency'])})", zeroline=True, zerolinecolor=style.FAINT),
        ),
    }  # fmt: skip


def _limits(record: Mapping[str, Any]) -> str:
    if not record["limits"]:
        return '<p class="quiet">No use of limits was recorded.</p>'
    cells = []
    for row in sorted(record["limits"], key=lambda row: -(row["share"] or 0.0)):
        share = row["share"]
        tone = "over" if row["over"] else "warn" if (share or 0.0) >= 0.8 else ""
        width = 100.0 if row["over"] and share is None else 100.0 * min(max(share or 0.0, 0.0), 1.0)
        bar = Html(f'<div class="bar"><i class="{tone}" style="width:{width:.1f}%"></i></div>')
        cells.append(
            (row["rule"], row["scope"], "hard" if row["hard"] else "soft", show.exact(row["value"]),
             show.exact(row["limit"]), row["unit"], show.percent(share, 0), bar)
        )  # fmt: skip
    return grid(
        [("Limit", False), ("Scope", False), ("", False), ("Value", True), ("Allowed", True), ("Unit", False),
         ("Used", True), ("", False)], cells, "Yellow from 80 %, red above 100 %.",
    )  # fmt: skip


def report_page(record: Mapping[str, Any]) -> str:
    """The page as one text.

    Parameters
    ----------
    record : mapping
        ``RiskReport.to_dict()`` with ``name``, ``ts`` (UTC ns, 0 when not known) and ``source``.

    Raises
    ------
    MissingExtraError
        If plotly is not installed.
    """
    currency = record["base_currency"]
    figures: dict[str, Any] = {}
    computed = [row for row in record["methods"] if not row["problem"]]
    cards = [
        card("Equity", show.money(record["equity"], currency)),
        card("Gross exposure", show.money(record["gross"], currency), f"net {show.money(record['net'], currency)}"),
    ]
    if computed:
        first = computed[0]
        level = f"{100 * first['level']:g} %"
        equity, horizon = record["equity"], record["facts"].get("Horizon", "")
        for name in ("var", "es"):
            part = f", {show.percent(first[name] / equity, 2)} of equity" if equity and first[name] is not None else ""
            cards.append(
                card(f"{_MEASURES[name]}, {level}, {horizon}", show.money(first[name], currency),
                     f"{first['label']}: {_range(first[f'{name}_interval'], currency)}{part}")
            )  # fmt: skip
    valued = [row for row in record["stress"] if row["loss"] is not None]
    if valued:
        worst = max(valued, key=lambda row: row["loss"])
        cards.append(card("Worst stress loss", show.money(worst["loss"], currency), worst["scenario"]))
    over = [row for row in record["limits"] if row["over"]]
    if record["limits"]:
        names = ", ".join(row["rule"] for row in over)
        cards.append(card("Limits exceeded", len(over), names or f"of {len(record['limits'])}"))
    body = [f'<div class="cards">{"".join(cards)}</div>', section("Use of limits", _limits(record))]
    for level in dict.fromkeys(row["level"] for row in record["methods"]):
        body.append(section(f"VaR and ES by method, {100 * level:g} %", _methods(record, level)))
    if any("component_es" in row for row in record["positions"]):
        figures["components"] = _components(record)
        body.append(section("Who carries the ES", chart("components") + _groups(record)))
    if record["positions"]:
        body.append(section("Positions", _positions(record)))
    if record["correlation"] is not None and len(record["positions"]) > 1:
        figures["correlation"] = _correlation(record)
        body.append(section("Correlation of returns", chart("correlation")))
    if record["stress"]:
        if valued:
            figures["stress"] = _stress_chart(record)
        body.append(section("Stress", (chart("stress") if valued else "") + _stress(record)))
    body.append(section("What the words mean", grid([("Word", False), ("Meaning", False)], _DEFINITIONS)))
    moment = show.utc(record["ts"], decimals=0) + " UTC" if record["ts"] else ""
    facts = {"Portfolio": record["name"], "Moment": moment, "Source": record["source"], **record["facts"]}
    notes = [f"{row['rule']} ({row['scope']}) is exceeded." for row in over] + list(record["notes"])
    return page_text(f"Risk of {record['name']}", facts, notes, body, figures, record, DISCLAIMER)
