"""``tengri features``: compute features of files, and list what there is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tengri_fast.cli.feature_options import PATH, config_of, source_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from tengri_fast.features.batch import Written
    from tengri_fast.features.spec import FeatureInfo, ParameterInfo, StageInfo

    Show = Callable[[str, int, int], None]


@click.command()
@source_options
@click.option("--out", "-o", type=PATH, help="The Parquet file to write; whole or not at all.")
@click.option("--float32", is_flag=True, help="Normalised float32, as a model eats them, instead of raw float64.")
@click.option("--jobs", "-j", type=int, help="Processes [default: one for each session, core and million events].")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder of computed columns: what is "
              "there for the same data is read back.")  # fmt: skip
@click.option("--cache-size", default="4GiB", show_default=True, help="Size that the folder is brought down to.")
@click.option("--explain", is_flag=True, help="Print the plan and compute nothing.")
@click.option("--list", "listing", is_flag=True, help="List every feature, stage and name, and compute nothing.")
@click.option("--markdown", is_flag=True, help="With --list: the tables of the documentation.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
def features(
    config: Path | None, data: tuple[Path, ...], out: Path | None, float32: bool, jobs: int | None, cache: Path | None,
    cache_size: str, explain: bool, listing: bool, markdown: bool, as_json: bool, batch_rows: int,
    progress: bool | None, **given: Any,
) -> None:  # fmt: skip
    """Compute features of market data, or list them.

    The rows of CONFIG go to a Parquet file, computed on all cores. CONFIG is a model.toml, a configuration with
    [neural], or a TOML file with `features`, `clock`, [legs] and [external]. Each session (instrument and day) begins
    from reset; rows are those that a strategy would see live, bit for bit.
    """
    from tengri_fast.errors import ConfigurationError
    from tengri_fast.features.batch import to_json, write_features

    if listing:
        for path in given["user"]:
            from tengri_fast.features.user_files import load_user_file

            load_user_file(path)
        click.echo(_listed(as_json, markdown))
        return
    chosen = config_of(config, given)
    if explain:
        click.echo(chosen.plan().explain())
        return
    if not data or out is None:
        raise ConfigurationError(f"`{'out' if data else 'data'}` must be given (--{'out' if data else 'data'} PATH)")
    with _bar(progress) as show:
        written = write_features(chosen, data, out, float32=float32, jobs=jobs, batch_rows=batch_rows, cache=cache,
                                 cache_bytes=_bytes(cache_size), user=given["user"], show=show)  # fmt: skip
    if as_json:
        click.echo(to_json(written))
    else:
        _told(written)


@contextmanager
def _bar(wanted: bool | None) -> Iterator[Show]:
    """A progress bar on the error stream; nothing where it was not asked for and nobody watches."""
    from rich.console import Console

    from tengri_fast.cli.model_options import progress_bar

    console = Console(stderr=True)
    show_it = console.is_terminal if wanted is None else wanted
    with progress_bar(Console(stderr=True, quiet=not show_it, force_terminal=True if wanted else None)) as show:
        yield show


def _bytes(text: str) -> int:
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
    number = text.strip().rstrip("BbKkMmGgIi").strip()
    unit = text.strip()[len(number) :].strip().upper()
    try:
        size = float(number) * units[unit]
    except (ValueError, KeyError):
        raise click.BadParameter(f'must be a size such as "4GiB" or "500MB", was {text!r}',
                                 param_hint="'--cache-size'") from None  # fmt: skip
    if not 0 <= size < 2**63:
        raise click.BadParameter(f"must be from 0 on, was {text!r}", param_hint="'--cache-size'")
    return int(size)


def _told(written: Written) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=160)
    plan, sessions = written.plan, written.sessions
    events = sum(session.events for session in sessions)
    rows = sum(session.rows for session in sessions)
    console.print(f"{written.path}: {rows:,} rows of {plan.width} columns from {events:,} events of {len(sessions)} "
                  f"session(s)", markup=False)  # fmt: skip
    console.print(f"plan {plan.hash[:16]}, {plan.nbytes:,} bytes a state; {written.seconds:.2f} s in "
                  f"{written.processes} process(es), {events / max(written.seconds, 1e-9):,.0f} events a second",
                  markup=False)  # fmt: skip
    table = Table(box=None, pad_edge=False)
    heads = ("session", "events", "rows", "accepted", "crossed", "backward", "invalid", "overflow")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number == 0 else "right", overflow="fold")
    for session in sessions:
        numbers = (session.counters.get(name, 0) for name in heads[3:])
        table.add_row(session.name, f"{session.events:,}", f"{session.rows:,}", *(f"{number:,}" for number in numbers))
    console.print(table)
    for session in sessions:
        for name in session.reordered:
            console.print(f"Note: times of {name} run backward; it was sorted by them.", markup=False)
    _told_warm_up(console, written)
    if written.cache:
        kept = written.cache
        console.print(f"cache: {kept['hits']:,} columns read back, {kept['misses']:,} computed, {kept['damaged']:,} "
                      f"damaged, {kept['evicted']:,} thrown out", markup=False)  # fmt: skip


def _told_warm_up(console: Console, written: Written) -> None:
    """When each column was ready: in the session in which it took longest."""
    from rich.table import Table

    table = Table(
        box=None, pad_edge=False, title="warm-up: rows and time until a column is ready", title_justify="left"
    )
    for head, justify in (("column", "left"), ("rows", "right"), ("time", "right"), ("never in", "right")):
        table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
    several = len(written.sessions)
    for number, name in enumerate(written.plan.names):
        reached = [(session.ready_from[number], session.ready_after_ns[number]) for session in written.sessions
                   if session.ready_from[number] >= 0]  # fmt: skip
        never = several - len(reached)
        rows, wait = (max(pair[at] for pair in reached) for at in (0, 1)) if reached else (None, None)
        table.add_row(name, "-" if rows is None else f"{rows:,}", "-" if wait is None else f"{wait / 1e9:,.3f} s",
                      f"{never} of {several}" if never else "")  # fmt: skip
    console.print(table)


# ---------------------------------------------------------------- what there is


def _parameter(info: ParameterInfo) -> dict[str, Any]:
    from tengri_fast.features.parameters import rule_of, show_value

    default = None if info.outside else show_value(info, info.default).strip("'")
    return {"name": info.name, "type": info.type, "default": default, "rule": rule_of(info)}


def _row(info: FeatureInfo | StageInfo) -> dict[str, Any]:
    kept = {key: value for key, value in info._asdict().items() if key not in ("kind", "parameters", "digest")}
    return {**kept, "parameters": [_parameter(parameter) for parameter in info.parameters]}


def _signature(info: FeatureInfo | StageInfo) -> str:
    parts = []
    for parameter in info.parameters:
        facts = _parameter(parameter)
        parts.append(parameter.name if facts["default"] is None else f"{parameter.name}={facts['default']}")
    return f"{info.name}({', '.join(parts)})" if parts else info.name


def _listed(as_json: bool, markdown: bool) -> str:
    from tengri_fast.features import FEATURES, STAGES
    from tengri_fast.features.names import WORDS

    if as_json:
        return json.dumps({
            "features": [_row(info) for info in FEATURES.values()],
            "stages": [_row(info) for info in STAGES.values()],
            "names": [word._asdict() for word in WORDS.values()],
        }, indent=2, allow_nan=False)  # fmt: skip
    if markdown:
        return markdown_tables()
    lines = [f"{len(FEATURES)} features"]
    for feature in FEATURES.values():
        lines += [f"  {_signature(feature)}", f"      {feature.description} [{feature.unit}; {feature.needs}]"]
    lines.append(f"{len(STAGES)} stages")
    for stage in STAGES.values():
        lines += [f"  {_signature(stage)}", f"      {stage.description}"]
    lines.append(f"{len(WORDS)} names for the configuration")
    for word in WORDS.values():
        lines += [f"  {word.name}({', '.join(word.parameters)}): {', '.join(word.columns)}"]
    return "\n".join(lines)


def _cells(values: Sequence[str]) -> str:
    return "| " + " | ".join(value.replace("|", "\\|").replace("\n", " ") for value in values) + " |"


def markdown_tables() -> str:
    """The tables of docs/features.md, from the tables of the engine."""
    from tengri_fast.features import FEATURES, STAGES
    from tengri_fast.features.names import SECTIONS, WORDS

    lines = ["### Features", "", _cells(("feature", "what it is", "unit", "fed by", "ready after", "rule", "source")),
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for info in FEATURES.values():
        if not info.digest:
            lines.append(_cells((f"`{_signature(info)}`", info.description, info.unit, info.needs, info.lookback,
                                 info.rule, info.source)))  # fmt: skip
    lines += ["", "### Stages", "", _cells(("stage", "what it does", "values before it is ready", "rule", "source")),
              "|---|---|---|---|---|"]  # fmt: skip
    lines += [_cells((f"`{_signature(info)}`", info.description, info.lookback, info.rule, info.source))
              for info in STAGES.values()]  # fmt: skip
    lines += ["", "### Names of the configuration", "", _cells(("name", "list", "columns")), "|---|---|---|"]
    for section in SECTIONS:
        lines += [_cells((f"`{word.name}({', '.join(word.parameters)})`" if word.parameters else f"`{word.name}`",
                          f"`{section}`", ", ".join(f"`{column}`" for column in word.columns)))
                  for word in WORDS.values() if word.section == section]  # fmt: skip
    return "\n".join(lines)
