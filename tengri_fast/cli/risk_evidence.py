"""``tengri risk evidence``: bad orders sent on purpose, and a table of what came back.

The command fails when a control did not behave, so that a build can ask for it.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from tengri_fast.errors import MissingExtraError

__all__ = ["evidence", "evidence_page", "evidence_record"]

PATHS = ("backtest", "sandbox")
FAILED = 1
# Characters of an answer on the page; the JSON file has all of them.
SHOWN = 260

DISCLAIMER = (
    "Shows that each control refused what it must refuse, and let pass what it must let pass, in the versions named "
    "above. It is no statement of compliance: which paragraphs apply to whom is for their own counsel to say, and the "
    "controls of a broker or venue stand beside these."
)
NOTES = (
    "Each row has an engine and a gate of its own. Almost all first send a legal order, which must pass, and then the "
    "one that is tried; a refusal under another rule than the one on trial fails the row.",
    "Backtest: NautilusTrader's BacktestEngine. Sandbox: its live TradingNode with the sandbox execution client and "
    "quotes from the script. Nothing is connected to anything.",
    "15c3-5 is 17 CFR 240.15c3-5; RTS 6 is Commission Delegated Regulation (EU) 2017/589. Good practice: no paragraph "
    "asks for it by name.",
)


def evidence_record() -> dict[str, Any]:
    """Everything that was tried and came back, as plain values.

    Raises
    ------
    MissingExtraError
        If nautilus_trader is not installed.
    """
    import platform

    from tengri_fast import __version__

    if importlib.util.find_spec("nautilus_trader") is None:
        raise MissingExtraError("nautilus_trader", "nautilus", "`tengri risk evidence`")
    from tengri_fast.nautilus.evidence import collect

    return {"tengri_fast": __version__, "python": platform.python_version(), **collect().to_dict()}


def _clauses(record: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by what they serve, regulations first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in record["rows"]:
        for clause in row["serves"]:
            found.setdefault(clause, []).append(row)
    return {name: found[name] for name in sorted(found, key=_clause_order)}


def _clause_order(clause: str) -> tuple[Any, ...]:
    """Numbers by their size, and what no regulation asks for last."""
    parts = re.split(r"(\d+)", clause)
    return clause == "good practice", [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _passed(row: Mapping[str, Any]) -> bool:
    return all(row[path]["passed"] for path in PATHS)


def _expected(row: Mapping[str, Any]) -> str:
    """What must come back, the same several times told once."""
    counts: dict[str, int] = {}
    for want in row["expected"]:
        counts[want] = counts.get(want, 0) + 1
    return "; ".join((f"{number} x " if number > 1 else "") + want for want, number in counts.items())


# ---- the page --------------------------------------------------------------------------------------------------------


def evidence_page(record: Mapping[str, Any]) -> str:
    """The page as one text.

    Parameters
    ----------
    record : mapping
        From :func:`evidence_record`.
    """
    from tengri_fast.cli.risk_pages import Html, card, escape, grid, page_text, section

    def light(passed: bool) -> Html:
        return Html(f'<span class="pill {"green" if passed else "red"}">{"passed" if passed else "FAILED"}</span>')

    def came(row: Mapping[str, Any], path: str) -> Html:
        answer, text = row[path], row[path]["came"] or "nothing"
        if path != PATHS[0] and text == (row[PATHS[0]]["came"] or "nothing"):
            text = "the same"
        elif len(text) > SHOWN:
            text = text[: SHOWN - 3] + "..."
        wrong = "".join(f'<div class="bad">{escape(problem)}</div>' for problem in answer["problems"])
        return Html(f"<div>{light(answer['passed'])}</div>{escape(text)}{wrong}")

    def lines(first: str, second: str) -> Html:
        return Html(f'{escape(first)}<div class="quiet">{escape(second)}</div>')

    heads = [("Control, and path of the order", False), ("Serves", False), ("Tried, and what must come back", False)]
    heads += [(path.capitalize(), False) for path in PATHS]
    body = [
        '<div class="cards">'
        + card("Controls tried", record["controls"], "each in a backtest and on a live node")
        + card("Passed", record["controls"] - record["failed"])
        + card("Failed", record["failed"], ", ".join(row["key"] for row in record["rows"] if not _passed(row)))
        + "</div>",
        section(
            "By paragraph",
            grid(
                [("Paragraph", False), ("", False), ("Controls that serve it", False)],
                [
                    (
                        clause,
                        light(all(map(_passed, rows))),
                        ", ".join(dict.fromkeys(row["control"] for row in rows)),
                    )
                    for clause, rows in _clauses(record).items()
                ],
            ),
        ),
    ]
    for area in dict.fromkeys(row["area"] for row in record["rows"]):
        cells = [
            (
                lines(row["control"], row["path"]),
                Html("".join(f'<div style="white-space:nowrap">{escape(clause)}</div>' for clause in row["serves"])),
                lines(row["tried"], _expected(row)),
                *(came(row, path) for path in PATHS),
            )
            for row in record["rows"]
            if row["area"] == area
        ]
        body.append(section(area, grid(heads, cells)))
    facts = {
        "tengri_fast": record["tengri_fast"],
        "NautilusTrader": record["nautilus_trader"],
        "Python": record["python"],
        "Result": "every control behaved" if record["passed"] else f"{record['failed']} controls did not behave",
    }
    return page_text("Control evidence", facts, NOTES, body, {}, record, DISCLAIMER)


# ---- the terminal ----------------------------------------------------------------------------------------------------


def _problems(record: Mapping[str, Any]) -> Iterator[str]:
    for row in record["rows"]:
        for path in PATHS:
            for problem in row[path]["problems"]:
                yield f"{row['key']}, {path}: {problem}"


def show(record: Mapping[str, Any]) -> None:
    """The table on the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    made = Table(title="Control evidence", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for head in ("control", "serves", "must come back", *PATHS):
        made.add_column(head, overflow="fold")
    for row in record["rows"]:
        lights = [
            Text("passed", style="green") if row[path]["passed"] else Text("FAILED", style="bold red") for path in PATHS
        ]
        plain = row["path"] == "plain order"
        control = row["control"] if plain else f"{row['control']} ({row['path']})"
        serves = "; ".join(row["serves"]).replace("SEC ", "").replace("Art. ", "")
        made.add_row(Text(control), Text(serves), Text(_expected(row)), *lights)
    console.print(made)
    for problem in _problems(record):
        console.print(Text(problem, style="red"))
    behaved = record["controls"] - record["failed"]
    console.print(f"{behaved} of {record['controls']} controls behaved, each in a backtest and on a live node.")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Folder for evidence.html and evidence.json.")
@click.option("as_json", "--json", is_flag=True, help="JSON instead of text.")
def evidence(out: Path | None, as_json: bool) -> None:
    """Send bad orders on purpose, and show what came back.

    Each control of the risk gate is tried in a NautilusTrader backtest and on a live node with sandbox execution,
    without any connection. Exit code 1 when one of them did not behave.
    """
    from tengri_fast.report._files import to_json_text, write_atomic

    record = evidence_record()
    if out is not None:
        write_atomic(out / "evidence.html", evidence_page(record).encode())
        write_atomic(out / "evidence.json", to_json_text(record).encode())
    if as_json:
        click.echo(to_json_text(record), nl=False)
    else:
        show(record)
        if out is not None:
            click.echo(f"Written: {out / 'evidence.html'}, {out / 'evidence.json'}")
    if not record["passed"]:
        click.get_current_context().exit(FAILED)
