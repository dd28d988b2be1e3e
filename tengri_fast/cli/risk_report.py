"""``tengri risk report``: VaR, ES, who carries them, stress and limits of a recorded or running portfolio."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from tengri_fast.errors import ConfigurationError, DataConversionError

if TYPE_CHECKING:
    from tengri_fast.risk.recorded import RecordedPortfolio
    from tengri_fast.risk.scenarios import ScenarioSet

_DAY = 86_400_000_000_000


def scenarios_of_prices(path: Path, names: tuple[str, ...], window: int | None) -> ScenarioSet:
    """One-day scenarios out of a table of prices with a column per instrument.

    A column is called as the instrument, or as its symbol (what stands before the first dot).

    Raises
    ------
    DataConversionError
        When an instrument has no column; all of them are named.
    """
    from tengri_fast.risk.backtest import price_returns, read_table
    from tengri_fast.risk.scenarios import ScenarioSet

    table = read_table(path)
    lower = {key.lower(): key for key in table.columns}
    found = {
        name: lower.get(name.lower()) or lower.get(name.partition(".")[0].lower()) for name in names
    }  # fmt: skip
    missing = [name for name, column in found.items() if column is None]
    if missing:
        raise DataConversionError(f"{table.name} must hold a column for every instrument, has none for "
                                  f"{', '.join(missing)}")  # fmt: skip
    made = [
        price_returns(table.times, table.columns[column], name=f"{table.name}, {column}")
        for column in found.values()
        if column is not None
    ]
    # Times and notes are those of the rows of the table, the same for every column.
    times, _, left_out = made[0]
    returns = np.array([one for _, one, _ in made])
    if window is not None:
        if window < 2:
            raise ConfigurationError(f"`--window` must be >= 2, was {window}")
        returns, times = returns[:, -window:], times[-window:]
    facts = {
        "source": table.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        "first": _date(int(times[0])),
        "last": _date(int(times[-1])),
    }
    if left_out:
        facts["left out"] = " ".join(left_out)
    return ScenarioSet(names, returns.astype(np.float32), _DAY, facts)


def _date(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d}"


def running_portfolio(socket: Path | None) -> RecordedPortfolio:
    """Ask a running process for its portfolio."""
    from tengri_fast.risk.recorded import decode_portfolio
    from tengri_fast.runtime.control import ControlClient

    client = ControlClient(socket)
    return decode_portfolio(client.portfolio(), str(client.socket_path))


def _money(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _range(bounds: list[float | None] | None) -> str:
    if bounds is None:
        return ""
    return " to ".join("unbounded" if value is None else f"{value:,.0f}" for value in bounds)


def show(title: str, record: Mapping[str, Any], most: int = 15) -> None:
    """The report on the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tengri_fast.cli.risk_report_page import split_by

    console = Console(highlight=False)

    def table(name: str, heads: tuple[str, ...], left: int = 1) -> Table:
        made = Table(title=name, title_justify="left", box=None, padding=(0, 1, 0, 0))
        for i, head in enumerate(heads):
            made.add_column(head, justify="left" if i < left else "right", overflow="fold")
        return made

    currency, equity, facts = record["base_currency"], record["equity"], record["facts"]
    console.print(Text(title, style="bold"))
    moment = datetime.fromtimestamp(record["ts"] // 10**9, UTC) if record["ts"] else None
    known = {"Moment": "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC", "Source": record["source"]}
    for key, value in (known | facts).items():
        if value and key not in ("Base currency", "Horizon"):
            console.print(Text(f"{key:20} {value}"))
    share = "" if not equity else f" ({record['gross'] / equity:.2f} x equity)"
    console.print(
        Text(f"equity {_money(equity)}  gross {_money(record['gross'])}{share}  net {_money(record['net'])} {currency}")
    )
    for level in dict.fromkeys(row["level"] for row in record["methods"]):
        sure = next((row["confidence"] for row in record["methods"] if row["confidence"] is not None), 0.95)
        name = f"{100 * sure:g} % interval"
        heading = f"VaR and ES, {100 * level:g} %, {facts.get('Horizon', '-')}, {currency}"
        made = table(heading, ("method", "VaR", name, "ES", name))
        for row in record["methods"]:
            if row["level"] != level:
                continue
            if row["problem"]:
                made.add_row(Text(row["label"]), "-", "", "-", "")
            else:
                made.add_row(
                    Text(row["label"]), _money(row["var"]), _range(row["var_interval"]), _money(row["es"]),
                    _range(row["es_interval"]),
                )  # fmt: skip
        console.print(made)
    for text in dict.fromkeys(f"{row['label']}: {row['problem']}" for row in record["methods"] if row["problem"]):
        console.print(Text(f"Not computed: {text}", style="yellow"))
    positions = [row for row in record["positions"] if "component_es" in row]
    if positions:
        positions.sort(key=lambda row: -(row["component_es"] or 0.0))
        heading = f"Who carries the ES: {split_by(record)}, {currency}"
        made = table(heading, ("instrument", "exposure", "component", "share", "incremental", "marginal"))
        for row in positions[:most]:
            part = row["share_es"]
            made.add_row(
                Text(row["instrument_id"]), _money(row["exposure"]), _money(row["component_es"]),
                "-" if part is None else f"{100 * part:.1f} %", _money(row["incremental_es"]),
                "-" if row["marginal_es"] is None else f"{row['marginal_es']:.4g}",
            )  # fmt: skip
        console.print(made)
        console.print("`incremental`: with the position less without it. `marginal`: per unit of quantity.")
        if len(positions) > most:
            console.print(f"... and {len(positions) - most} more positions.")
    valued = sorted((row for row in record["stress"] if row["loss"] is not None), key=lambda row: -row["loss"])
    if valued:
        made = table(f"Worst stress scenarios, {currency}", ("scenario", "loss", "of equity", "covered"))
        for row in valued[:most]:
            part, covered = row["share_of_equity"], row["covered"]
            made.add_row(
                Text(row["scenario"]), _money(row["loss"]), "-" if part is None else f"{100 * part:.1f} %",
                "-" if covered is None else f"{100 * covered:.0f} %",
            )  # fmt: skip
        console.print(made)
        console.print(f"{len(record['stress'])} scenarios; `covered` is the part of gross exposure that is shocked.")
    if record["limits"]:
        made = table("Limits", ("limit", "scope", "value", "allowed", "unit", "used"), left=2)
        for row in record["limits"]:
            used = row["share"]
            colour = "" if used is None else "red" if row["over"] else "yellow" if used >= 0.8 else ""
            made.add_row(
                Text(row["rule"]), Text(row["scope"]), "-" if row["value"] is None else f"{row['value']:,.6g}",
                "-" if row["limit"] is None else f"{row['limit']:,.6g}", Text(row["unit"]),
                Text("over" if row["over"] and used is None else "-" if used is None else f"{100 * used:.0f} %",
                     style=colour),
            )  # fmt: skip
        console.print(made)
    for note in record["notes"]:
        console.print(Text(f"Note: {note}", style="yellow"))


@click.command()
@click.argument("portfolio", required=False, type=click.Path(path_type=Path))
@click.option("--live", is_flag=True, help="Ask a running process instead of reading a file.")
@click.option("--socket", type=click.Path(path_type=Path), help="Control socket of that process.")
@click.option("--scenarios", type=click.Path(path_type=Path), help="Scenario file (.npz) for VaR and ES.")
@click.option("--prices", type=click.Path(path_type=Path), help="Or daily prices, CSV or Parquet, a column per "
              "instrument.")  # fmt: skip
@click.option("--window", type=int, help="Days of --prices to use; by default all.")
@click.option("--level", "levels", type=float, multiple=True, default=(0.99, 0.975), show_default=True)
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of the intervals.")
@click.option("--stress", "stress_files", type=click.Path(path_type=Path), multiple=True,
              help="TOML file of own scenarios, besides those that ship; may be given again.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of bootstraps and Monte Carlo.")
@click.option("--output", type=click.Path(path_type=Path), help="HTML page to write.")
@click.option("as_json", "--json", is_flag=True, help="JSON instead of text.")
def report(
    portfolio: Path | None, live: bool, socket: Path | None, scenarios: Path | None, prices: Path | None,
    window: int | None, levels: tuple[float, ...], confidence: float, stress_files: tuple[Path, ...], seed: int,
    output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show VaR, ES, attribution, stress and limits of a portfolio.

    PORTFOLIO is a JSON file of positions (see tengri_fast.risk.recorded); with --live a running process is asked.
    """
    from tengri_fast.risk.recorded import read_portfolio
    from tengri_fast.risk.report import risk_report
    from tengri_fast.risk.scenarios import ScenarioSet
    from tengri_fast.risk.stress import StressLibrary

    if live == (portfolio is not None):
        raise ConfigurationError("one of PORTFOLIO and `--live` must be given, and not both")
    if scenarios is not None and prices is not None:
        raise ConfigurationError("at most one of `--scenarios` and `--prices` may be given")
    if prices is None and window is not None:
        raise ConfigurationError("`--window` needs `--prices`")
    if output is not None:
        # Before the work, so that a missing package costs none of it.
        from tengri_fast.report._extra import load

        load("plotly.offline", "The HTML page")
    recorded = running_portfolio(socket) if portfolio is None else read_portfolio(portfolio)
    name = portfolio.name if portfolio is not None else "running portfolio"
    known: ScenarioSet | None = None
    if scenarios is not None:
        known = ScenarioSet.from_file(scenarios)
    elif prices is not None:
        held = recorded.holdings
        names = tuple(
            text for text, quantity in zip(held.instrument_ids, held.quantities.tolist(), strict=True) if quantity
        )
        known = scenarios_of_prices(prices, names, window) if names else None
    library = StressLibrary.load(*stress_files)
    found = risk_report(
        recorded.holdings, known, levels=tuple(dict.fromkeys(levels)), confidence=confidence, stress=library,
        limits=recorded.limits, seed=seed,
    )  # fmt: skip
    record = {"name": name, "ts": recorded.ts, "source": recorded.source, **found.to_dict()}
    if output is not None:
        from tengri_fast.cli.risk_report_page import report_page
        from tengri_fast.report._files import write_atomic

        write_atomic(output, report_page(record).encode())
    if as_json:
        from tengri_fast.report._files import to_json_text

        click.echo(to_json_text(record), nl=False)
    else:
        show(f"Risk of {name}", record)
        if output is not None:
            click.echo(f"Written: {output}")
