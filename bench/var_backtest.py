"""VaR and ES of every method on daily data through 2008 and 2020, judged by the backtests of tengri_fast.risk.backtest.

    python bench/var_backtest.py [--data ../shared/data] [--sets sp500 ...] [--simulations 999] [--out FILE]
    python bench/var_backtest.py --table     # rewrites the tables of docs/risk_backtest.md from the committed file

Not a measurement of speed: the numbers follow from the data and the seed, and come out the same everywhere. The data
may not be redistributed; docs/risk_backtest.md says where they come from.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tengri_fast.cli.risk_backtest import document, load_series
from tengri_fast.report._files import plain
from tengri_fast.risk.backtest import METHODS, monte_carlo_method, price_returns, read_table, rolling_var_backtest

REPOSITORY = Path(__file__).resolve().parent.parent
COMMITTED = Path(__file__).resolve().parent / "results" / "committed" / "var_backtest.json"
DOCUMENT = REPOSITORY / "docs" / "risk_backtest.md"
LEVELS = (0.99, 0.975)
WINDOW = 500

#: Name: file, options of `load_series`, title.
SETS: dict[str, tuple[str, dict[str, Any], str]] = {
    "sp500": ("sp500_index_1990_2022.csv.gz", {"columns": ("SP500",)}, "S&P 500 index, 1990-2022"),
    "stocks": ("sp500_20stocks_1990_2022.csv.gz", {"columns": ("all",)}, "20 US stocks, equally weighted, 1990-2022"),
    "spy": ("spy_daily.parquet", {}, "SPY, 1998-2021"),
    "qqq": ("qqq_daily.parquet", {"splits": ("2000-03-20=2",)}, "QQQ, 1999-2004 and 2011-2021"),
    "nasdaq": ("nasdaq_1999_2018.csv.gz", {"columns": ("Adj Close",)}, "Nasdaq composite, 1999-2018"),
}
KEPT = ("Kupiec POF", "Kupiec TUFF", "Christoffersen independence", "Conditional coverage", "Weibull durations",
        "Haas mixed durations", "Dynamic quantile", "Acerbi-Szekely Z1", "Acerbi-Szekely Z2")  # fmt: skip


def _methods(name: str, path: Path) -> Mapping[str, Any]:
    """Every method by name; the portfolio of stocks also by Monte Carlo on its parts."""
    if name != "stocks":
        return dict(METHODS)
    table = read_table(path)
    panel = np.array([price_returns(table.times, table.column(column))[1] for column in table.columns])
    return {**METHODS, "monte_carlo": monte_carlo_method(panel, paths=8192, refit=21)}


def run(name: str, folder: Path, simulations: int) -> dict[str, Any]:
    """One data set at both levels: its facts, and a row per method and level."""
    file, options, title = SETS[name]
    path = folder / "daily" / file
    series = load_series(path, **options)
    judged = {
        level: rolling_var_backtest(
            series.returns, _methods(name, path), level, WINDOW, times=series.times, simulations=simulations
        )
        for level in LEVELS
    }
    record = document(series, judged, {"window": WINDOW, "simulations": simulations, "seed": 1})
    rows = []
    for row in record["results"]:
        tests = {test["name"]: test for test in row.pop("tests")}
        row["p"] = {key: tests[key]["exact_p_value"] for key in KEPT}
        row["statistic"] = {key: tests[key]["statistic"] for key in KEPT}
        rows.append(row)
    return {
        "set": name, "title": title, "facts": record["facts"], "notes": record["notes"], "results": rows,
        "comparison": record["comparison"],
    }  # fmt: skip


def _p(value: float | None) -> str:
    if value is None:
        return ""
    text = "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"
    return f"**{text}**" if value < 0.05 else text


def tables(record: Mapping[str, Any]) -> str:
    """The results as Markdown: one table per data set and level, and one of the crises."""
    out = []
    for part in record["sets"]:
        for level in record["levels"]:
            rows = [row for row in part["results"] if row["level"] == level]
            days = rows[0]["days"]
            out += [
                f"### {part['title']}, {100 * level:g} %",
                "",
                f"{days:,} days, {days * (1 - level):.1f} exceptions expected.",
                "",
                "| method | exceptions | zone | 250-day light: green / yellow / red | worst 250 | POF | order | CC "
                "| durations | DQ | Z1 | Z2 | score |",
                "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
            ]
            best = min(row["joint_score"] for row in rows)
            for row in rows:
                p, light = row["p"], row["zone_shares"]
                score = f"{row['joint_score']:.4f}"
                cells = (
                    row["method"], row["exceptions"], row["zone"],
                    " / ".join(f"{100 * light[zone]:.0f} %" for zone in ("green", "yellow", "red")), row["worst_year"],
                    _p(p["Kupiec POF"]), _p(p["Christoffersen independence"]), _p(p["Conditional coverage"]),
                    _p(p["Weibull durations"]), _p(p["Dynamic quantile"]), _p(p["Acerbi-Szekely Z1"]),
                    _p(p["Acerbi-Szekely Z2"]), f"**{score}**" if row["joint_score"] == best else score,
                )  # fmt: skip
                out.append("| " + " | ".join(map(str, cells)) + " |")
            out.append("")
    out += ["### In the two crises, 99 %", ""]
    crises = [name for name in record["sets"][0]["results"][0]["crises"] if "2008" in name or "Covid" in name]
    heads = [f"{part['set']}: {'2008' if '2008' in name else '2020'}" for part in record["sets"] for name in crises
             if name in part["results"][0]["crises"]]  # fmt: skip
    out += ["| method | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(heads)]
    for method in [row["method"] for row in record["sets"][0]["results"] if row["level"] == 0.99]:
        cells = []
        for part in record["sets"]:
            row = next(row for row in part["results"] if row["method"] == method and row["level"] == 0.99)
            for name in crises:
                if name in row["crises"]:
                    found = row["crises"][name]
                    text = f"{found['exceptions']} of {found['days']}"
                    cells.append(f"**{text}**" if found["chance"] < 0.05 else text)
        out.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def write_tables(record: Mapping[str, Any], document_path: Path) -> None:
    """Replace what stands between the marks of the document."""
    text = document_path.read_text(encoding="utf-8")
    first, last = "<!-- tables -->\n", "<!-- end of tables -->"
    head, rest = text.split(first)
    document_path.write_text(head + first + "\n" + tables(record) + "\n" + last + rest.split(last)[1], encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = os.environ.get("TENGRI_SHARED_DATA", str(REPOSITORY.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--simulations", type=int, default=999)
    parser.add_argument("--out", type=Path, default=COMMITTED)
    parser.add_argument("--table", action="store_true", help="rewrite the tables of docs/risk_backtest.md and stop")
    given = parser.parse_args(arguments)
    if given.table:
        write_tables(json.loads(given.out.read_text(encoding="utf-8")), DOCUMENT)
        return
    found = []
    for name in given.sets:
        found.append(run(name, given.data, given.simulations))
        print(f"{name}: {found[-1]['facts']['Days']} days", file=sys.stderr)
    record = {
        "kind": "var_backtest", "window": WINDOW, "levels": list(LEVELS), "simulations": given.simulations, "seed": 1,
        "refit_days": {name: method.refit for name, method in METHODS.items()}, "sets": found,
    }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(plain(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
