"""Tables, picture and card of the volatility study, from the numbers of ``volatility_study``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tengri_fast.errors import MissingExtraError
from tengri_fast.training.volatility_study import LEVEL, METHODS, VAR_WINDOW

__all__ = ["card", "picture", "replace_between", "results", "write_text"]

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
_ORDER = ("S&P 500", "S&P 500 bars", "SPY", "QQQ", "Nasdaq")


def write_text(path: Path, text: str) -> None:
    """Write a file at once: a reader sees the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def replace_between(text: str, middle: str) -> str:
    """Text with what stands between the two marks replaced."""
    head, _, rest = text.partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        raise ValueError(f"the text must hold {BEGIN} and {END}, does not")
    return f"{head}{BEGIN}\n\n{middle.strip()}\n\n{END}{tail}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _rows(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    markets = {name: entry["series"][name] for name in _ORDER if name in entry["series"]}
    return {**markets, f"{entry['stocks']['count']} stocks": entry["stocks"]} if "stocks" in entry else markets


def _best(values: Mapping[str, float]) -> str:
    return min(values, key=lambda name: values[name])


def _loss_table(rows: Mapping[str, Any], sets: bool = True) -> str:
    names = [name for name in METHODS if any(name in row["qlike"] for row in rows.values())]
    lines = ["| | days | " + " | ".join(names) + (" | in the 90 % confidence set |" if sets else " |")]
    lines.append("|---|---" + "|---" * len(names) + ("|---|" if sets else "|"))
    for label, row in rows.items():
        cells = []
        for name in names:
            if name not in row["qlike"]:
                cells.append("-")
                continue
            gap = f"{row['qlike'][name] - row['qlike']['EWMA']:+.4f}" if name != "EWMA" else "0"
            cells.append(f"**{gap}**" if name == _best(row["qlike"]) else gap)
        last = f" | {', '.join(row['confidence_set'])} |" if sets else " |"
        lines.append(f"| {label} | {row['days']:,} | " + " | ".join(cells) + last)
    return "\n".join(lines)


def _p_table(rows: Mapping[str, Any]) -> str:
    names = [name for name in METHODS if name != "GRU"]
    lines = ["| GRU against | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for label, row in rows.items():
        cells = []
        for name in names:
            if name not in row["difference"]:
                cells.append("-")
            else:
                cells.append(f"{row['difference'][name]:+.4f} ({_p(row['p'][name])})")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _var_tables(entry: Mapping[str, Any]) -> str:
    order = ("plain history", *METHODS)
    lines = [
        "| | S&P 500: exceptions | p, number | p, number and order | stocks: rate | stocks rejected, number | "
        "stocks rejected, number and order | quantile loss / EWMA's (p) |",
        "|---" * 8 + "|",
    ]
    index = entry["var"].get("S&P 500", {})
    for name in order:
        row, pooled = index.get(name), entry["var_stocks"].get(name)
        if row is None and pooled is None:
            continue
        left = "- | - | -" if row is None else (
            f"{row['exceptions']} / {row['days']:,} = {100 * row['rate']:.2f} % | {_p(row['unconditional'])} | "
            f"{_p(row['conditional'])}"
        )  # fmt: skip
        right = "- | - | - | -" if pooled is None else (
            f"{100 * pooled['rate']:.2f} % | {pooled['rejected_unconditional']} of {pooled['stocks']} | "
            f"{pooled['rejected_conditional']} of {pooled['stocks']} | "
            f"{pooled['quantile_loss']:.4f} ({_p(pooled['p'])})"
        )  # fmt: skip
        lines.append(f"| {name} | {left} | {right} |")
    return "\n".join(lines)


def results(record: Mapping[str, Any]) -> str:
    """Every table as Markdown."""
    text = []
    for name, entry in record["splits"].items():
        training = entry["training"]
        crisis = entry["crisis"]
        rows = _rows(entry)
        text += [
            f"### Test {name}: trained to {entry['dates']['train_until']}, stopped on "
            f"{entry['dates']['held_out'][0]} .. {entry['dates']['held_out'][1]}",
            "QLIKE less that of EWMA (smaller is better, best in bold):",
            _loss_table(rows),
            "Difference of the network to each rival, with two-sided Diebold-Mariano p-values:",
            _p_table(rows),
        ]
        if crisis["series"]:
            inner = {k: crisis["series"][k] for k in _ORDER if k in crisis["series"]}
            if "stocks" in crisis:
                inner["stocks"] = crisis["stocks"]
            text += [
                f"The crisis of {crisis['name']} alone (too few days for a confidence set):",
                _loss_table(inner, sets=False),
                _p_table(inner),
            ]
        if entry["intraday"]:
            text += [
                "Against variances from hourly returns, a finer yardstick than a squared return:",
                _loss_table(entry["intraday"]),
                _p_table(entry["intraday"]),
            ]
        if "stocks" in entry:
            wins = sum(
                _best({k: v for k, v in row["qlike"].items()}).startswith("GRU")
                for row in entry["series"].values()
                if row["group"] == "stocks"
            )
            text.append(f"Stock by stock, the network has the lowest QLIKE on {wins} of {entry['stocks']['count']}.")
        text += [
            f"{100 * LEVEL:.0f} % one-day value at risk by filtered historical simulation over {VAR_WINDOW} days; "
            "exact "
            "p-values of Kupiec (number) and Christoffersen (number and order):",
            _var_tables(entry),
            "Seeds on their own, QLIKE on stocks: "
            + ", ".join(f"{x:.4f}" for x in entry["seeds"].get("stocks", []))
            + f"; their mean as one network {entry['stocks']['qlike']['GRU']:.4f}. "
            + (f"Left out, too little history: {', '.join(entry['left_out'])}. " if entry["left_out"] else "")
            + f"Trained on {training['rows']:,} days of all series together.",
        ]
    return "\n\n".join(text)


def _defeats(record: Mapping[str, Any]) -> str:
    """Every comparison over whole test years that the network loses at 5 %."""
    found = [
        f"{label} {name} against {rival} ({row['difference'][rival]:+.4f}, p {_p(row['p'][rival])})"
        for name, entry in record["splits"].items()
        for label, row in _rows(entry).items()
        for rival in row["difference"]
        if row["difference"][rival] > 0.0 and row["p"][rival] < 0.05
    ]
    return "; ".join(found) or "nowhere"


def card(record: Mapping[str, Any], name: str, sha256: str, golden_error: float, trials: str) -> str:
    """The model card."""
    shipped = record["splits"][name]
    training, dates = shipped["training"], shipped["dates"]
    seeds = record["settings"]["seeds"]
    files = "\n".join(f"- {file}: `{digest}`" for file, digest in record["data_sha256"].items())
    units = record["settings"]["hidden"]
    return f"""# volatility_gru: tomorrow's variance from a series of daily returns

A small GRU that corrects an exponentially weighted variance. Inputs are ratios, so it serves any instrument; the range
of a bar is used where there is one.

## Data

Trained to {dates["train_until"]}, stopped on {dates["held_out"][0]} .. {dates["held_out"][1]},
tested on {dates["test"][0]} .. {dates["test"][1]}, on daily closes of the S&P 500, 20 of its stocks, SPY and QQQ,
and daily bars of the indices. A first split that ends in 2003 and is tested through 2008 shows the same method on
another crisis; it does not ship. No VIX, no volume, no calendar. The data are not ours and do not ship; SHA-256 of what
was read:

{files}

## Model

- {units * len(seeds)} GRU units: {len(seeds)} trainings (seeds {", ".join(map(str, seeds))}) of {units} units
  side by side, which is the mean of their answers
- {training["parameters"]:,} trained parameters; torch {training["torch"]}
- loss: QLIKE of the next squared return; answer: log of next variance over the anchor, clipped to a factor of e^4
- golden outputs, of simulated returns, met within {golden_error:.2e} by the C engine
- trials: {trials}
- ONNX SHA-256 `{sha256}`

## Unseen data

Significantly worse than a rival (p < 0.05): {_defeats(record)}.

{results(record)}

## Limits

- The test years were unseen by training, stopping and choice of settings. The author knows what happened in 2008 and
  2020, and the 20 stocks are survivors: both flatter every method alike.
- One period ahead, daily returns. For other horizons use GARCH, whose forecasts can be added up, or train again.
- The network was frozen through the test years while GARCH, GJR and HAR were fitted again each January.
- Squared returns are a noisy yardstick: a difference that is not significant is not shown, whichever its sign.
- A forecast of variance is no forecast of direction.
- Watch the ratio of squared returns to forecasts over 250 days; outside 0.7 to 1.4, fall back to EWMA and look.
"""


def _load(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError("matplotlib", "report", "the picture of the volatility study") from None


def picture(record: Mapping[str, Any], path: Path) -> None:
    """Draw the study: losses, the two crises, cumulated gains and exceptions of the value at risk.

    Raises
    ------
    MissingExtraError
        When matplotlib is not installed.
    """
    figure_module, backend = _load("matplotlib.figure"), _load("matplotlib.backends.backend_agg")
    colours = {"EWMA": "#8a8f98", "HAR": "#c58f2a", "GARCH": "#6aa3d8", "GJR": "#2d6cb5", "GRU, closes": "#e39a84",
               "GRU": "#c43d2b", "plain history": "#c9ccd1"}  # fmt: skip
    splits = record["splits"]
    figure = figure_module.Figure(figsize=(16, 5.2 * len(splits)), dpi=100, layout="constrained")
    backend.FigureCanvasAgg(figure)
    grid = figure.subplots(len(splits), 3, squeeze=False)
    for line, (name, entry) in zip(grid, splits.items(), strict=True):
        rows = _rows(entry)
        methods = [m for m in METHODS if m != "EWMA"]
        axis = line[0]
        for k, method in enumerate(methods):
            at = [
                (i, r["qlike"][method] - r["qlike"]["EWMA"])
                for i, r in enumerate(rows.values())
                if method in r["qlike"]
            ]
            axis.bar([i + 0.16 * (k - 2) for i, _ in at], [v for _, v in at], 0.15, label=method, color=colours[method])
        axis.axhline(0.0, color="#333333", linewidth=0.8)
        axis.set_xticks(range(len(rows)), list(rows), fontsize=8)
        axis.set_title(f"Test {name}: QLIKE less EWMA's (lower is better)", fontsize=10)
        axis.legend(fontsize=8, frameon=False)
        axis = line[1]
        paths = entry["paths"].get("stocks")
        if paths:
            days = [datetime.fromisoformat(day) for day in paths["dates"]]
            for method in methods:
                if method in paths:
                    axis.plot(days, paths[method], color=colours[method], linewidth=1.2, label=method)
            axis.axhline(0.0, color="#333333", linewidth=0.8)
            axis.set_title("Stocks: cumulated QLIKE gain over EWMA (higher is better)", fontsize=10)
            axis.legend(fontsize=8, frameon=False)
        axis = line[2]
        paths = entry["paths"].get("S&P 500")
        if paths:
            days = [datetime.fromisoformat(day) for day in paths["dates"]]
            turmoil = int(np.argmax(paths["EWMA"]))
            part = slice(max(0, turmoil - 90), turmoil + 90)
            axis.bar(days[part], np.abs(paths["returns"][part]), 1.0, color="#dfe2e6", label="|return|")
            for method in ("EWMA", "GJR", "GRU"):
                axis.plot(days[part], paths[method][part], color=colours[method], linewidth=1.3, label=method)
            axis.set_title("S&P 500 around its highest EWMA: sigma forecast the day before", fontsize=10)
            axis.tick_params(axis="x", labelrotation=30)
            axis.legend(fontsize=8, frameon=False)
        for one in line:
            one.spines[["top", "right"]].set_visible(False)
            one.tick_params(labelsize=8)
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, metadata={"Software": None})
    os.replace(temporary, path)
