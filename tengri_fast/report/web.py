"""The page: one HTML file with everything inside, readable without a network."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from tengri_fast.report import _format as show
from tengri_fast.report import _style as style
from tengri_fast.report._extra import load
from tengri_fast.report.charts import figures

__all__ = ["page_html"]

Page = Mapping[str, Any]
LISTED = 500
"""Rows of the trade and denial lists that the page shows; the CSV links hold all of them."""


def _e(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _card(label: str, value: str, detail: str = "", tone: str = "") -> str:
    return (
        f'<div class="card"><div class="label">{_e(label)}</div><div class="value {tone}">{_e(value)}</div>'
        f'<div class="detail">{_e(detail).replace(" %", "&nbsp;%")}</div></div>'
    )


def _tone(value: float | None) -> str:
    return "" if not value else ("gain" if value > 0 else "loss")


def _cards(page: Page) -> str:
    head, money, latency, skill = page["headline"], page["currency"], page["latency"] or {}, page["skill"]
    interval = ""
    if head["mean_net_low"] is not None:
        verdict = "" if head["mean_net_shown"] else ": not shown to differ from 0"
        low, high = show.money(head["mean_net_low"], signed=True), show.money(head["mean_net_high"], signed=True)
        interval = f"95 % interval {low} to {high}{verdict}"
    orders = page["orders"]
    drill = sum(row["drill"] for row in page["denied"])
    cards = [
        _card(
            "Net PnL after fees", show.money(head["pnl"], money, signed=True),
            f"{show.percent(head['return'], 3)} of {show.money(head['starting_equity'], money)}", _tone(head["pnl"]),
        ),
        _card("Fees", show.money(head["fees"], money), f"gross {show.money(head['gross'], signed=True)}"),
        _card(
            "Largest drawdown", show.money(head["max_drawdown"], money),
            f"{show.percent(head['max_drawdown_share'], 3)}, under water {show.duration(head['under_water_seconds'])}",
            _tone(head["max_drawdown"]),
        ),
        _card(
            "Round trips", show.count(head["trades"]),
            f"{show.percent(head['win_rate'])} won, profit factor {show.number(head['profit_factor'])}"
            if head["trades"] else "none completed",
        ),
        _card("PnL per trade", show.money(head["mean_net"], money, signed=True), interval, _tone(head["mean_net"])),
    ]  # fmt: skip
    if skill and skill["moves"]:
        model = skill["rates"][0]
        best = max((r for r in skill["rates"][1:] if r["rate"] is not None), key=lambda r: r["rate"], default=None)
        detail = f"95 % interval {show.percent(model['low'])} to {show.percent(model['high'])}"
        cards.append(_card("Hit rate", show.percent(model["rate"]), detail))
        if best:
            cards.append(_card("Best trivial rival", show.percent(best["rate"]), best["label"]))
    else:
        cards.append(_card("Hit rate", show.NONE, "not evaluated"))
    signals = page["signals"]
    judged = f"{show.count(skill['moves'])} judged on fresh books" if skill else "none judged"
    cards.append(_card("Signals", show.count(signals["count"]), judged))
    tail = f"p99 {show.nanoseconds(latency.get('p99'))}, p99.9 {show.nanoseconds(latency.get('p999'))}"
    cards.append(
        _card("Tick to signal, p50", show.nanoseconds(latency.get("p50")), tail if latency else "not measured")
    )
    cards.append(
        _card(
            "Orders denied", show.count(orders["denied"]),
            f"of {show.count(orders['submitted'])} submitted" + (f"; {drill} in the drill" if drill else ""),
        )
    )  # fmt: skip
    return f'<div class="cards">{"".join(cards)}</div>'


def _facts(rows: Iterable[tuple[str, Any]], empty: str = "Not recorded.") -> str:
    body = "".join(f"<tr><th>{_e(k)}</th><td>{_fact(v)}</td></tr>" for k, v in rows if v not in ("", None, {}, []))
    return f'<table class="facts">{body}</table>' if body else f'<p class="quiet">{_e(empty)}</p>'


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return "<br>".join(f"{_e(k)}: {_fact(v)}" for k, v in value.items())
    if isinstance(value, list):
        return "<br>".join(_fact(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _e(show.exact(value))
    return _e(show.NONE if value is None else value)


def _grid(headers: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """A table; each header says whether its column holds numbers. Cells are escaped here."""
    marks = [' class="n"' if numeric else "" for _, numeric in headers]
    top = "".join(f"<th{mark}>{_e(name)}</th>" for (name, _), mark in zip(headers, marks, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{_e(cell)}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>"
        for row in rows
    )
    after = f'<p class="quiet">{_e(note)}</p>' if note else ""
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>{after}'


def _csv_link(name: str, label: str, rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
        writer.writerows([_csv_cell(value) for value in row.values()] for row in rows)
    data = quote(stream.getvalue().encode("utf-8", "replace"))
    return f'<a class="download" download="{_e(name)}" href="data:text/csv;charset=utf-8,{data}">{_e(label)}</a>'


def _csv_cell(value: Any) -> Any:
    # A spreadsheet runs a text that begins like a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _chart(name: str, drawn: Mapping[str, Any], empty: str) -> str:
    return f'<div class="chart" id="{name}"></div>' if name in drawn else f'<p class="quiet">{_e(empty)}</p>'


def _section(title: str, body: str, lead: str = "") -> str:
    return f"<section><h2>{_e(title)}</h2>" + (f'<p class="lead">{_e(lead)}</p>' if lead else "") + f"{body}</section>"


def _two(left: str, right: str) -> str:
    return f'<div class="two"><div>{left}</div><div>{right}</div></div>'


def _header(page: Page) -> str:
    first, last = page["span"]
    same_day = show.utc(first, decimals=0)[:10] == show.utc(last, decimals=0)[:10]
    span = f"{show.utc(first)} to {show.utc(last, date=not same_day)} UTC"
    model = page["model_sha256"]
    hashes = model if isinstance(model, Mapping) else {"": model}
    model_text = ", ".join(f"{k} {show.bytes_hash(v)}".strip() for k, v in hashes.items() if v)
    seeds = ", ".join(f"{k} {v}" for k, v in page["seeds"].items())
    cells = [
        ("Instrument", page["instrument_id"]),
        ("Span", f"{span} ({show.duration(page['headline']['span_seconds'])})"),
        ("Run", page["name"]),
        ("Model", model_text),
        ("Configuration", show.bytes_hash(page["config_sha256"])),
        ("Instruction set", page["isa"]),
        ("Commit", page["commit"]),
        ("Seeds", seeds),
        ("Configurations tried", "" if page["trials"] is None else show.count(page["trials"])),
        ("Run time", "" if page["run_seconds"] is None else show.duration(page["run_seconds"])),
    ]
    shown = "".join(f"<div><dt>{_e(k)}</dt><dd>{_e(v)}</dd></div>" for k, v in cells if v not in ("", show.NONE))
    return f'<header><h1>{_e(page["title"])}</h1><dl class="provenance">{shown}</dl></header>'


def _notes(page: Page) -> str:
    items = "".join(f"<li>{_e(note)}</li>" for note in page["notes"])
    listed = f"<ul>{items}</ul>" if items else ""
    return f'<aside class="notes"><h2>Read this first</h2>{listed}<p>{_e(page["disclaimer"])}</p></aside>'


def _trades(page: Page) -> str:
    rows = page["trades"]
    if not rows:
        return '<p class="quiet">No round trip was completed.</p>'
    headers = [
        ("#", True), ("Entry (UTC)", False), ("Exit (UTC)", False), ("Side", False), ("Quantity", True),
        ("Entry price", True), ("Exit price", True), ("Gross", True), ("Fees", True), ("Net", True),
        ("Exit reason", False),
    ]  # fmt: skip
    cells = (
        (
            str(i), show.utc(t["entry_ts"]), show.utc(t["exit_ts"]), "long" if t["side"] > 0 else "short",
            show.exact(t["quantity"]), show.exact(t["entry_price"]), show.exact(t["exit_price"]),
            show.money(t["gross"]), show.money(t["fees"]), show.money(t["net"], signed=True), t["reason"] or show.NONE,
        )
        for i, t in enumerate(rows[:LISTED], 1)
    )  # fmt: skip
    note = f"The first {LISTED} of {len(rows):,}; the file holds all." if len(rows) > LISTED else ""
    return _grid(headers, cells, note) + _csv_link(f"{page['name']}-trades.csv", "Download all trades (CSV)", rows)


def _denials(page: Page, drawn: Mapping[str, Any]) -> str:
    if not page["denied"]:
        return '<p class="quiet">No order was denied.</p>'
    by_rule = _grid(
        [("Rule", False), ("Denied", True), ("From the strategy", True), ("From the drill", True)],
        (
            (r["rule"], show.count(r["total"]), show.count(r["strategy"]), show.count(r["drill"]))
            for r in page["denied"]
        ),
    )
    rows = page["denials"]
    listed = '<p class="quiet">The denials were counted, not listed.</p>'
    if rows:
        headers = [
            ("Time (UTC)", False), ("Order", False), ("Rule", False), ("Value", True), ("Limit", True),
            ("Source", False), ("Reason", False),
        ]  # fmt: skip
        cells = (
            (
                show.utc(d["ts"]), d["order_id"], d["rule"], show.exact(d["value"]), show.exact(d["limit"]),
                d["source"], d["reason"],
            )
            for d in rows[:LISTED]
        )  # fmt: skip
        note = f"The first {LISTED} of {len(rows):,}; the file holds all." if len(rows) > LISTED else ""
        listed = _grid(headers, cells, note) + _csv_link(
            f"{page['name']}-denials.csv", "Download all denials (CSV)", rows
        )
    return _two(by_rule, _chart("denied", drawn, "")) + listed


def _signal_section(page: Page, drawn: Mapping[str, Any]) -> str:
    skill, signals = page["skill"], page["signals"]
    said = '<p class="quiet">No signal was recorded.</p>'
    if signals["count"]:
        said = _facts(
            [
                ("Signals", show.count(signals["count"])),
                ("Leaning up / down", f"{show.percent(signals['up_share'])} / {show.percent(signals['down_share'])}"),
                ("Mean confidence", show.percent(signals["mean_confidence"])),
                (
                    "Expected move, 1 % to 99 %",
                    f"{show.number(signals['value_low'], 3)} to {show.number(signals['value_high'], 3)} bps",
                ),
                ("Changes its mind", f"{show.percent(signals['turns_share'])} of the time"),
            ]
        )
    if not skill or not skill["moves"]:
        return said + '<p class="quiet">The signals were not evaluated against moves.</p>'
    rates = _grid(
        [("Predictor", False), ("Hit rate", True), ("95 % interval", True), ("No opinion", True)],
        (
            (
                r["label"], show.percent(r["rate"], 2), f"{show.percent(r['low'])} to {show.percent(r['high'])}",
                show.count(r["ties"]),
            )
            for r in skill["rates"]
        ),
        f"Intervals: {skill['rates'][0]['interval']}. {show.percent(skill['up_share'])} of the moves went up.",
    )  # fmt: skip
    gaps = _grid(
        [("Model minus", False), ("Points", True), ("95 % interval", True), ("Verdict", False), ("p", True)],
        (
            (
                d["label"], show.number(100 * d["rate"]),
                f"{show.number(100 * d['low'])} to {show.number(100 * d['high'])}",
                ("better" if d["rate"] > 0 else "worse") if d["shown"] else "not shown",
                show.NONE if d["p_value"] is None else f"{d['p_value']:.2g}",
            )
            for d in skill["differences"]
            if d["rate"] is not None
        ),
        " ".join(skill["notes"]),
    )  # fmt: skip
    c = skill["confusion"]
    words = ("down", "none", "up")
    table = _grid(
        [("Predicted", False), ("Went down", True), ("Went up", True)],
        ((words[i], show.count(c[i][0]), show.count(c[i][2])) for i in range(3) if i != 1 or any(c[1])),
    )
    calibration = skill["calibration"]
    ece, brier = show.number(calibration["ece"], 4), show.number(calibration["brier"], 4)
    error = f"Calibration error (ECE) {ece}, Brier score {brier} (a coin earns 0.25)."
    return (
        _two("<h3>Hit rate against trivial rivals</h3>" + _chart("hit-rates", drawn, ""), rates + gaps)
        + _two(
            f'<h3>Reliability</h3>{_chart("reliability", drawn, "")}<p class="quiet">{_e(error)}</p>',
            "<h3>Accuracy against coverage</h3>" + _chart("coverage", drawn, ""),
        )
        + _two("<h3>What it said</h3>" + said, "<h3>Said and happened</h3>" + table)
    )


_DEFINITIONS = (
    ("Net PnL", "Last account equity minus starting equity, after fees; open positions at their last value."),
    ("Gross", "Net PnL plus the fees of all fills."),
    ("Drawdown", "Distance of equity below its highest value so far; the starting equity is the first peak."),
    ("PnL per trade", "Mean net PnL of round trips; interval by circular block bootstrap (2,000 resamples)."),
    ("Profit factor", "Sum of winning trades divided by the sum of losing ones, net of fees."),
    ("Fresh book", "The first quote whose mid differs from the previous quote's mid."),
    ("Hit rate", "Share of fresh books whose next change of mid was called right; no opinion counts as half a hit."),
    ("Not shown", "The 95 % interval holds zero: the sample does not show a difference."),
    ("Tick to signal", "Time from the strategy receiving the tick to its signal, features and model included."),
    ("Sharpe ratio", "Not given: ticks of a few days have no meaningful annual figure."),
)


def _data_section(page: Page) -> str:
    files = _grid(
        [("File", False), ("SHA-256", False)], ((name, digest) for name, digest in page["data_sha256"].items())
    )
    return _facts(page["data_facts"].items()) + (files if page["data_sha256"] else "")


_SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const options = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"]};
for (const [name, figure] of Object.entries(figures)) Plotly.newPlot(name, figure.data, figure.layout, options);
"""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)


def _script_json(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_html(page: Page) -> str:
    """The whole page as one text.

    Parameters
    ----------
    page : mapping
        What :func:`tengri_fast.report.page.page_data` returned.

    Returns
    -------
    str
        HTML that loads nothing from anywhere; plotly.js stands inside it.

    Raises
    ------
    MissingExtraError
        If plotly is not installed.
    """
    library = load("plotly.offline", "The HTML report").get_plotlyjs()
    drawn = figures(page)
    head = page["headline"]
    marks = page["markers"]
    thinned = f"{marks['drawn']:,} of {marks['of']:,} round trips are drawn." if marks["drawn"] < marks["of"] else ""
    reconciliation = _facts(
        [
            ("Gross PnL of round trips", show.money(head["trades_gross"], page["currency"], signed=True)),
            ("Fees of round trips", show.money(head["trades_fees"], page["currency"])),
            ("Net PnL of round trips", show.money(head["trades_net"], page["currency"], signed=True)),
            ("Open positions and rest", show.money(head["not_in_trades"], page["currency"], signed=True)),
            ("Net PnL", show.money(head["pnl"], page["currency"], signed=True)),
            ("Fees of all fills", f"{show.money(head['fees'], page['currency'])} in {show.count(page['fills'])} fills"),
            ("Median holding time", show.duration(head["median_holding_seconds"])),
        ]
    )
    reasons = _grid(
        [("Exit reason", False), ("Trades", True), ("Net", True)],
        ((r["reason"], show.count(r["trades"]), show.money(r["net"], signed=True)) for r in page["exit_reasons"]),
    )
    latency = page["latency"]
    latency_body = _chart("latency", drawn, "Latency was not measured in this run.")
    if latency:
        latency_body += _grid(
            [("Ticks", True), ("p50", True), ("p99", True), ("p99.9", True), ("max", True)],
            [
                (
                    show.count(latency["total"]),
                    *(show.nanoseconds(latency[key]) for key in ("p50", "p99", "p999", "max")),
                )
            ],
        )
    body = [
        _header(page),
        _notes(page),
        _cards(page),
        _section(
            "Equity and drawdown", _chart("equity", drawn, ""), f"Account equity after fees, in {page['currency']}."
        ),
        _section("Price, entries and exits", _chart("price", drawn, "No price was recorded."), thinned),
        _section(
            "Where the result comes from",
            _two(
                "<h3>Gross, fees, net</h3>" + _chart("costs", drawn, "No order was filled."),
                "<h3>Net PnL per trade</h3>" + _chart("net", drawn, "No round trip was completed."),
            )
            + _two(reconciliation, reasons if page["exit_reasons"] else ""),
        ),
        _section(
            "Signal quality",
            _signal_section(page, drawn),
            "Measured on fresh books only; every predictor is judged on the same moves.",
        ),
        _section("Latency, tick to signal", latency_body),
        _section(
            "Orders and denials",
            _denials(page, drawn),
            f"{show.count(page['orders']['submitted'])} submitted, {show.count(page['orders']['filled'])} filled, "
            f"{show.count(page['orders']['denied'])} denied. "
            "Drill orders are sent on purpose to show that a rule fires.",
        ),
        _section("Round trips", _trades(page)),
        _section(
            "Assumptions and model",
            _two(
                "<h3>Costs, latency, fills</h3>" + _facts(page["assumptions"].items()),
                "<h3>Model</h3>"
                + _facts([*page["model_card"].items(), ("SHA-256", page["model_sha256"])], "No facts were recorded."),
            ),
        ),
        _section("Data and licence", _data_section(page)),
        _section(
            "Configuration",
            f"<pre>{_e(page['config_text'])}</pre>" if page["config_text"] else '<p class="quiet">Not recorded.</p>',
            f"SHA-256 {page['config_sha256']}" if page["config_sha256"] else "",
        ),
        _section(
            "Machine and versions",
            _two(
                _facts([("Instruction set", page["isa"]), *page["machine"].items(), ("Commit", page["commit"])]),
                _facts([*page["versions"].items()]),
            ),
        ),
        _section("What the words mean", _facts(_DEFINITIONS)),
    ]
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_e(page['title'])}</title><style>{style.CSS}</style></head><body><main>",
            *body,
            "<noscript><p>The charts need JavaScript; the tables do not.</p></noscript>",
            f"<footer>{_e(page['disclaimer'])}</footer></main>",
            f'<script type="application/json" id="report-data">{_script_json(page)}</script>',
            f'<script type="application/json" id="figures">{_script_json(drawn)}</script>',
            f"<script>{library}</script><script>{_SCRIPT}</script></body></html>\n",
        )
    )
