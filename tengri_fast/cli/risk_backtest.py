"""``tengri risk backtest``: walk forward over a series, judge every method, and show it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError

if TYPE_CHECKING:
    from tengri_fast.risk.backtest import Judgement, Table

Floats = npt.NDArray[np.float64]
_DAY = 86_400_000_000_000

#: Stretches that everybody asks about: first day, day after the last.
CRISES = {
    "dot-com, 2000-2002": ("2000-03-24", "2002-10-10"),
    "financial crisis, Sep 2008 - Mar 2009": ("2008-09-01", "2009-04-01"),
    "Covid, 20 Feb - 30 Apr 2020": ("2020-02-20", "2020-05-01"),
    "2022": ("2022-01-01", "2023-01-01"),
}


@dataclass(frozen=True, eq=False)
class Series:
    """Returns to judge on, and where they come from."""

    name: str
    times: npt.NDArray[np.uint64]
    returns: Floats
    facts: Mapping[str, str]
    notes: tuple[str, ...] = ()


def moment(text: str, option: str) -> int:
    """UTC ns of a date given on the command line."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"`{option}` must be a date such as 2008-09-01, was {text!r}") from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return round((found - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 1_000_000_000


def _split(text: str) -> tuple[int, float]:
    day, _, ratio = text.partition("=")
    try:
        factor = float(ratio)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0.0):
        raise ConfigurationError(f"`--split` must be DATE=RATIO with a ratio > 0, such as 2000-03-20=2, was {text!r}")
    return moment(day, "--split"), factor


def load_series(
    path: Path,
    *,
    returns: bool = False,
    columns: Sequence[str] = (),
    time_column: str | None = None,
    start: str | None = None,
    end: str | None = None,
    max_gap_days: float = 10.0,
    splits: Sequence[str] = (),
) -> Series:
    """Returns of a file of prices (or of returns): one column, or several as an equally weighted portfolio.

    Parameters
    ----------
    path : Path
        CSV or Parquet.
    returns : bool
        Whether the columns hold returns and not prices.
    columns : sequence of str
        Names; "all" takes every numeric column. By default "close" (or "return"), or the only column.
    time_column : str, optional
    start, end : str, optional
        Dates; start <= t < end.
    max_gap_days : float
        Longer steps between prices are left out.
    splits : sequence of str
        ``DATE=RATIO``: prices before the date are divided by the ratio.

    Raises
    ------
    ConfigurationError, DataConversionError, MissingExtraError
        When an option or the file breaks a rule.
    """
    from tengri_fast.risk.backtest import price_returns, read_table

    table = read_table(path, time_column)
    names = _columns(table, columns, "return" if returns else "close")
    keep = np.ones(table.times.size, dtype=np.bool_)
    if start:
        keep &= table.times >= np.uint64(max(moment(start, "--from"), 0))
    if end:
        keep &= table.times < np.uint64(max(moment(end, "--to"), 0))
    times = table.times[keep]
    notes: list[str] = []
    rows = []
    moments = times
    where = ", of the span asked for" if start or end else ""
    for name in names:
        values = table.column(name)[keep]
        if returns:
            if values.size == 0 or not np.isfinite(values).all():
                row = int(np.argmin(np.isfinite(values))) if values.size else 0
                raise DataConversionError(
                    f"{table.name}, {name}: returns must be finite numbers and at least one, row {row + 1} is not"
                )
            rows.append(values)
            continue
        for text in splits:
            day, ratio = _split(text)
            values = np.where(times < np.uint64(max(day, 0)), values / ratio, values)
        moments, found, said = price_returns(
            times, values, max_gap_days=max_gap_days, name=f"{table.name}, {name}{where}"
        )  # fmt: skip
        rows.append(found)
        notes = said
    combined = np.mean(rows, axis=0)
    if len(names) > 1:
        notes.append(f"An equally weighted portfolio of {len(names)} columns, rebalanced every day without cost.")
    notes += [f"Prices before {text.partition('=')[0]} are divided by {text.partition('=')[2]}." for text in splits]
    facts = {
        "Data": table.name,
        "SHA-256": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        "Column": names[0] if len(names) == 1 else f"{len(names)} columns, equally weighted",
        "Days": f"{combined.size:,}",
    }
    title = table.name.split(".")[0] + (f" {names[0]}" if len(names) == 1 else " equally weighted")
    return Series(title, moments, combined, facts, tuple(notes))


def _columns(table: Table, asked: Sequence[str], usual: str) -> list[str]:
    numeric = list(table.columns)
    if [name.lower() for name in asked] == ["all"]:
        if not numeric:
            raise ConfigurationError(f"`column` must be a numeric column, {table.name} has none")
        return numeric
    if not asked:
        asked = [usual] if usual in [name.lower() for name in numeric] or len(numeric) != 1 else numeric
    lower = {name.lower(): name for name in numeric}
    for name in asked:
        table.column(name)
    found = [lower[name.lower()] for name in asked]
    if len(set(found)) != len(found):
        raise ConfigurationError(f"`column` must name each column once, was {', '.join(asked)}")
    return found


def document(
    series: Series, judged: Mapping[float, Mapping[str, Judgement]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Every number of the run except the daily ones, as JSON can hold it."""
    from tengri_fast.risk.backtest import period

    results = []
    for by_method in judged.values():
        for judgement in by_method.values():
            crises = {}
            for name, (first, last) in CRISES.items():
                found = period(judgement.forecasts, moment(first, name), moment(last, name))
                if found["days"]:
                    crises[name] = found
            results.append({**judgement.to_dict(), "crises": crises})
    return {
        "name": series.name,
        "facts": dict(series.facts),
        "notes": list(series.notes),
        "settings": dict(settings),
        "results": results,
        "comparison": [row for by_method in judged.values() for row in comparison(by_method)],
    }


def comparison(by_method: Mapping[str, Judgement]) -> list[dict[str, Any]]:
    """Every method against the one with the lowest joint score of VaR and ES, by Diebold and Mariano's test."""
    from tengri_fast.risk.backtest import diebold_mariano, fissler_ziegel

    if len(by_method) < 2:
        return []
    best = min(by_method.values(), key=lambda judgement: judgement.joint_score)
    rows = []
    for judgement in sorted(by_method.values(), key=lambda judgement: judgement.joint_score):
        row = {"level": judgement.forecasts.level, "method": judgement.forecasts.method, "best": judgement is best,
               "joint_score": judgement.joint_score, "quantile_loss": judgement.quantile_loss, "statistic": None,
               "p_value": None}  # fmt: skip
        if judgement is not best and best.forecasts.pnl.size >= 10:
            f, b = judgement.forecasts, best.forecasts
            test = diebold_mariano(
                fissler_ziegel(f.pnl, f.var, f.es, f.level), fissler_ziegel(b.pnl, b.var, b.es, b.level)
            )
            row["statistic"] = test.statistic if math.isfinite(test.statistic) else None
            row["p_value"] = test.p_value
        rows.append(row)
    return rows


def _p(value: float | None) -> str:
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def show(record: Mapping[str, Any]) -> None:
    """The results on the terminal."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(record["name"], style="bold"))
    console.print(Text("  ".join(f"{k} {v}" for k, v in record["facts"].items())))
    for level in sorted({row["level"] for row in record["results"]}, reverse=True):
        table = RichTable(
            title=f"VaR and ES, {100 * level:g} %, 1 day", title_justify="left", box=None, padding=(0, 1, 0, 0)
        )
        for name in ("method", "exc.", "exp.", "zone", "POF", "order", "DQ", "Z1", "Z2", "score"):
            table.add_column(name, justify="left" if name in ("method", "zone") else "right", no_wrap=True)
        for row in record["results"]:
            if row["level"] != level:
                continue
            tests = {test["name"]: test for test in row["tests"]}

            def cell(name: str, tests: Mapping[str, Any] = tests) -> Text:
                test = tests.get(name)
                if test is None:
                    return Text("-")
                p = test["p_value"] if test["exact_p_value"] is None else test["exact_p_value"]
                return Text(_p(p), style="red" if test["rejected"] else "")

            table.add_row(
                Text(row["method"]), f"{row['exceptions']:,}", f"{row['expected']:.1f}",
                Text(row["zone"], style=row["zone"]), cell("Kupiec POF"),
                cell("Christoffersen independence"), cell("Dynamic quantile"),
                cell("Acerbi-Szekely Z1"), cell("Acerbi-Szekely Z2"), f"{row['joint_score']:.4f}",
            )  # fmt: skip
        console.print(table)
        for row in record["results"]:
            if row["level"] == level:
                console.print(Text(f"{row['method']}: ", style="bold") + Text(row["verdict"]))
    console.print("POF to Z2 are p-values at this number of days; red ones reject at 5 %. `order` is independence.")
    for note in record["notes"]:
        console.print(Text(f"Note: {note}", style="yellow"))


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Prices: CSV (also .gz) or Parquet with a date column.")
@click.option("--returns", type=click.Path(path_type=Path), help="Simple returns per day instead of prices.")
@click.option("--column", "columns", multiple=True, help="Column of prices, by default close; several, or `all`: an "
              "equally weighted portfolio.")  # fmt: skip
@click.option("--time-column", help="By default the first one called date, datetime, timestamp, ts_ns, ...")
@click.option("--method", "methods", multiple=True, help="May be given again; by default all. `list` shows them.")
@click.option("--level", "levels", type=float, multiple=True, default=(0.99,), show_default=True,
              help="Confidence; may be given again.")  # fmt: skip
@click.option("--window", type=int, default=500, show_default=True, help="Days that a forecast sees.")
@click.option("--refit", type=int, help="Days between fits of models that are fitted; by default each its own.")
@click.option("--side", type=click.Choice(["long", "short"]), default="long", show_default=True)
@click.option("--from", "start", help="First date of prices used.")
@click.option("--to", "end", help="Date after the last.")
@click.option("--split", "splits", multiple=True, help="DATE=RATIO: divide prices before DATE by RATIO.")
@click.option(
    "--max-gap-days", type=float, default=10.0, show_default=True, help="Leave out returns over longer steps."
)
@click.option("--simulations", type=int, default=999, show_default=True, help="Samples of the simulated p-values.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulated p-values.")
@click.option("--output", type=click.Path(path_type=Path), help="HTML page to write.")
@click.option("as_json", "--json", is_flag=True, help="JSON instead of text.")
def backtest(
    data: Path | None, returns: Path | None, columns: tuple[str, ...], time_column: str | None,
    methods: tuple[str, ...], levels: tuple[float, ...], window: int, refit: int | None, side: str,
    start: str | None, end: str | None, splits: tuple[str, ...], max_gap_days: float, simulations: int, seed: int,
    output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Judge VaR and ES forecasts of a series by what happened.

    Walks forward: every day's forecast is made from the days before it alone. Then asks whether exceptions are as many
    as promised, independent, and as large as promised.
    """
    from tengri_fast.risk.backtest import METHODS, rolling_var_backtest

    if methods == ("list",):
        for name, method in METHODS.items():
            click.echo(f"{name:16} {method.label}")
        return
    if (data is None) == (returns is None):
        raise ConfigurationError("one of `--data` and `--returns` must be given, and not both")
    if len(set(levels)) != len(levels):
        raise ConfigurationError(f"`--level` must name each level once, was {', '.join(map(str, levels))}")
    if output is not None:
        # Before the work, so that a missing package costs none of it.
        from tengri_fast.report._extra import load

        load("plotly.offline", "The HTML page")
    path = data or returns
    assert path is not None
    series = load_series(
        path, returns=data is None, columns=columns, time_column=time_column, start=start, end=end,
        max_gap_days=max_gap_days, splits=splits,
    )  # fmt: skip
    judged = {
        level: rolling_var_backtest(
            series.returns, list(dict.fromkeys(methods)) or None, level, window, times=series.times,
            side="long" if side == "long" else "short", refit=refit, simulations=simulations, seed=seed,
        )
        for level in levels
    }  # fmt: skip
    settings = {"window": window, "side": side, "refit": refit, "simulations": simulations, "seed": seed,
                "levels": list(levels)}  # fmt: skip
    record = document(series, judged, settings)
    if output is not None:
        from tengri_fast.cli.risk_backtest_page import backtest_page
        from tengri_fast.report._files import write_atomic

        write_atomic(output, backtest_page(series, judged, record).encode())
    if as_json:
        from tengri_fast.report._files import to_json_text

        click.echo(to_json_text(record), nl=False)
    else:
        show(record)
        if output is not None:
            click.echo(f"Written: {output}")
