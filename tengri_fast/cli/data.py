"""``tengri data``: what is in market data, what is wrong with it, and how it becomes files of ours."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tengri_fast.market.alignment import ClockOffset
    from tengri_fast.market.columns import MarketColumns
    from tengri_fast.market.describe import DescribeOptions
    from tengri_fast.market.read_options import ReadOptions

Show = Callable[[str, int, int], None]
PATH = click.Path(path_type=Path)


@click.group()
def data() -> None:
    """Describe, repair and import market data."""


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what a file does not say itself, and those of what counts as a defect."""
    for option in reversed((
        click.option("--format", "kind", help="Format of the files; told by their content otherwise."),
        click.option("--instrument", help="Which instrument to take from a file that holds several."),
        click.option("--date", help="Day of times that count from midnight, such as 2014-05-05 [default: file name]."),
        click.option("--timezone", help="Zone of local times, such as America/New_York."),
        click.option("--column", "columns", multiple=True, metavar="FIELD=NAME", help="Name of a column in the file."),
        click.option("--aggressor", "aggressors", multiple=True, metavar="TEXT=+1|-1|0",
                     help="What the file writes for the side of a trade."),
        click.option("--levels", type=int, help="Book levels to take."),
        click.option("--book", type=int, metavar="LEVELS",
                     help="Build book snapshots of so many levels from the changes of a book."),
        click.option("--bar-stamp", type=click.Choice(["open", "close"]), help="Whether bars carry the time at which "
                     "they opened, and are known one interval later (the default), or the time at which they closed."),
        click.option("--missing-size", type=float, default=0.0, help="Size of quotes in a file without sizes."),
        click.option("--contract", "contract_name", help="Row of the contract table; gives the tick."),
        click.option("--tick", type=float, help="Price step [default: that of the contract, or inferred]."),
        click.option("--sigmas", type=float, default=20.0, show_default=True,
                     help="Distance to the running median, in robust standard deviations, that makes an outlier."),
        click.option("--progress/--no-progress", default=None, help="Show a bar [default: on a terminal]."),
    )):  # fmt: skip
        command = option(command)
    return command


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        left, equals, right = text.rpartition("=")
        if not equals or not left:
            raise click.BadParameter(f"must look like NAME=VALUE, was {text!r}", param_hint=f"'{option}'")
        found[left] = right
    return found


def _read_options(given: dict[str, Any], progress: Callable[[int, int], None] | None) -> ReadOptions:
    from tengri_fast.market.read_options import ReadOptions

    day = None
    if given["date"] is not None:
        try:
            day = dt.date.fromisoformat(given["date"])
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="'--date'") from None
    signs = {}
    for text, value in _pairs("--aggressor", given["aggressors"]).items():
        if value not in ("+1", "1", "-1", "0"):
            raise click.BadParameter(f"must give +1, -1 or 0, was {value!r}", param_hint="'--aggressor'")
        signs[text] = int(value)
    return ReadOptions(
        instrument_id=given["instrument"], date=day, timezone=given["timezone"],
        columns=_pairs("--column", given["columns"]), aggressors=signs, levels=given["levels"],
        bar_stamp=given["bar_stamp"], missing_size=given["missing_size"], progress=progress,
    )  # fmt: skip


def _limits(given: dict[str, Any], gap: str | None = None, stale_rows: int = 1000) -> DescribeOptions:
    from tengri_fast.market import contract
    from tengri_fast.market.describe import DescribeOptions

    tick = given["tick"]
    if tick is None and given["contract_name"] is not None:
        tick = contract(given["contract_name"]).tick
    gap_ns = _duration("--gap", gap) if gap is not None else None
    return DescribeOptions(tick=tick, gap_ns=gap_ns, outlier_sigmas=given["sigmas"], stale_rows=stale_rows)


def _duration(option: str, text: str) -> int:
    from tengri_fast.errors import ConfigurationError
    from tengri_fast.runtime.durations import parse_duration

    negative = text.startswith("-")
    try:
        value = parse_duration(text.lstrip("+-") if text[:1] in "+-" else text)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint=f"'{option}'") from None
    return -value if negative else value


@contextlib.contextmanager
def _bar(wanted: bool | None) -> Iterator[Show]:
    """A progress bar on the error stream; nothing where it was not asked for and nobody watches."""
    from rich.console import Console

    from tengri_fast.cli.model_options import progress_bar

    console = Console(stderr=True)
    show_it = console.is_terminal if wanted is None else wanted
    with progress_bar(Console(stderr=True, quiet=not show_it, force_terminal=True if wanted else None)) as show:
        yield show


def read_any(path: Path, kind: str | None, options: ReadOptions) -> tuple[str, MarketColumns]:
    """A file or folder of any format, native or through the adapter; the format and the data."""
    from tengri_fast.errors import DataConversionError
    from tengri_fast.market.formats import EXTERNAL, FORMATS, detect_format, read_market

    name = kind or detect_format(path)
    if name not in EXTERNAL:
        return name, read_market(path, name, options)
    for option in options.given():
        if option not in FORMATS[name].options:
            raise DataConversionError(f"`{option}` must be left out for the format {name}, which knows: "
                                      f"{', '.join(FORMATS[name].options)}")  # fmt: skip
    if not path.exists():
        raise DataConversionError(f"`path` must exist, was {path}")
    # NautilusTrader is imported here and not before: the native formats need nothing of it.
    from tengri_fast.nautilus.sources import read_source

    return name, read_source(name, path, instrument_id=options.instrument_id)


def _read_all(paths: tuple[Path, ...], given: dict[str, Any], show: Show) -> Iterator[tuple[Path, str, MarketColumns]]:
    for path in paths:
        what = f"reading {path.name}"
        options = _read_options(given, lambda done, total, what=what: show(what, done, total))  # type: ignore[misc]
        kind, columns = read_any(path, given["kind"], options)
        show(what, 1, 1)
        yield path, kind, columns


@data.command()
@click.argument("paths", nargs=-1, required=True, type=PATH)
@click.option("--together", is_flag=True, help="Take all files as streams of one instrument and compare them.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")
@click.option("--html", type=PATH, help="Also write the report as a page with pictures.")
@click.option("--gap", help="Shortest pause that is a gap, such as 10s "
              "[default: the larger of 5s and 100 median steps].")  # fmt: skip
@click.option("--stale-rows", type=int, default=1000, show_default=True,
              help="Rows without a change of price and size that make a stale run.")  # fmt: skip
@reading_options
def describe(
    paths: tuple[Path, ...], together: bool, as_json: bool, html: Path | None, gap: str | None, stale_rows: int,
    **given: Any,
) -> None:  # fmt: skip
    """Show what is in PATHS: rows, span, gaps, defects, spread and imbalance.

    A path is a file, or the folder of a NautilusTrader catalog. Nothing is changed.
    """
    import json

    from tengri_fast.cli.data_tables import render
    from tengri_fast.market.describe import describe as run
    from tengri_fast.market.rebuild import with_depth
    from tengri_fast.market.repair import merge_columns

    limits = _limits(given, gap, stale_rows)
    found: list[tuple[str, MarketColumns]] = []
    reports = []
    with _bar(given["progress"]) as show:
        if together:
            read = list(_read_all(paths, given, show))
            found = [(" + ".join(dict.fromkeys(kind for _, kind, _ in read)), merge_columns(c for *_, c in read))]
            sources: Any = iter(found)
        else:
            sources = ((kind, columns) for _, kind, columns in _read_all(paths, given, show))
        for kind, columns in sources:
            if given["book"] is not None:
                columns = with_depth(columns, given["book"], chained=_chained(kind))
            report = run(columns, limits, lambda stream: show(f"looking at {stream}", 0, 1))
            for stream in columns.streams():
                show(f"looking at {stream}", 1, 1)
            reports.append((kind, report))
            if html is not None:
                from tengri_fast.cli.data_page import write_page

                target = html if len(paths) == 1 or together else html.with_stem(f"{html.stem}.{len(reports)}")
                write_page(target, kind, report, columns, limits.outlier_sigmas)
    if as_json:
        plain = [{"format": kind, **report.to_dict()} for kind, report in reports]
        click.echo(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2, allow_nan=False))
        return
    for number, (kind, report) in enumerate(reports):
        if number:
            click.echo()
        render(kind, report, click.echo)


@data.command(name="import")
@click.argument("sources", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, help="Folder, or a file ending in .parquet for a single stream.")
@click.option("--catalog", type=PATH, help="Folder of a NautilusTrader catalog to write (needs --contract).")
@click.option("--repair", "repairs", multiple=True, metavar="NAMES",
              help="Repairs by name, separated by commas; `tengri data repairs` lists them.")  # fmt: skip
@click.option("--clock-offset", metavar="auto|DURATION",
              help="What to subtract from local times; auto: the median of local minus exchange time.")  # fmt: skip
@click.option("--stream", "streams", multiple=True, help="Write these streams only.")
@click.option("--name", help="Start of the names of the files written [default: the source's].")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@reading_options
def import_(
    sources: tuple[Path, ...], out: Path | None, catalog: Path | None, repairs: tuple[str, ...],
    clock_offset: str | None, streams: tuple[str, ...], name: str | None, force: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Read SOURCES, repair what is asked for, and write Parquet files that tell how they were made.

    Several sources are streams of one instrument; parts of one stream are joined in the order given. With no repair
    nothing is changed, and data that would break later use is an error.
    """
    from tengri_fast import __version__
    from tengri_fast.cli.data_tables import render_import
    from tengri_fast.errors import ConfigurationError
    from tengri_fast.market.describe import find_defects, tick_of
    from tengri_fast.market.provenance import provenance, sha256_of, write_market
    from tengri_fast.market.rebuild import with_depth
    from tengri_fast.market.repair import RepairOptions, merge_columns, require_usable
    from tengri_fast.market.repair import repair as run

    if out is None and catalog is None:
        raise click.UsageError("--out or --catalog must be given")
    if catalog is not None and given["contract_name"] is None:
        raise click.UsageError("--catalog needs --contract: a catalog holds the instrument with its data")
    limits = _limits(given)
    names = tuple(part.strip() for text in repairs for part in text.split(",") if part.strip())
    options = RepairOptions(names, limits)
    with _bar(given["progress"]) as show:
        read = list(_read_all(sources, given, show))
        facts: dict[str, Any] = {"tool": "tengri_fast", "version": __version__, "sources": []}
        for path, kind, part in read:
            entry: dict[str, Any] = {"name": path.name, "format": kind, "rows": _rows(part)}
            if path.is_file():
                entry["sha256"] = sha256_of(path)
                entry["bytes"] = path.stat().st_size
                if path.suffix == ".parquet" and (story := provenance(path)) is not None:
                    entry["provenance"] = story
            facts["sources"].append(entry)
        columns = merge_columns(part for *_, part in read)
        facts["options"] = {key: value for key, value in _read_options(given, None).given().items()}
        offset = None
        if clock_offset is not None:
            columns, offset = _aligned(columns, clock_offset)
            facts["clock_offset"] = offset
        columns, log = run(columns, options, lambda what: show(what, 0, 1))
        for what in names:
            show(what, 1, 1)
        require_usable(columns)
        if given["book"] is not None:
            chained = all(_chained(kind, path) for path, kind, part in read if part.deltas is not None)
            columns = with_depth(columns, given["book"], chained=chained)
        facts |= {
            "repairs": log.to_list(), "rows_in": log.rows_in, "rows_out": _rows(columns),
            "limits": {"outlier_sigmas": limits.outlier_sigmas, "ticks": log.ticks}, "notes": list(columns.notes),
        }  # fmt: skip
        written: list[Path] = []
        if out is not None:
            _refuse_targets(out, sources, columns, name, streams, force)
            written = write_market(out, columns, facts, stem=name, streams=streams,
                                   progress=lambda done, total: show("writing", done, total))  # fmt: skip
        if catalog is not None:
            from tengri_fast.nautilus.sources import write_catalog

            if streams:
                raise ConfigurationError("`streams` must be left out with a catalog, which takes them all")
            write_catalog(catalog, columns, given["contract_name"])
            written.append(catalog)
        left = []
        ticks = tick_of(columns, limits)
        for stream, value in columns.streams().items():
            left += [(stream, defect) for defect in find_defects(stream, value, ticks[stream], limits)]
    render_import(columns, log, offset, left, written, click.echo)


def _rows(columns: MarketColumns) -> dict[str, int]:
    return {name: len(value) for name, value in columns.streams().items()}


def _chained(kind: str, path: Path | None = None) -> bool:
    """Whether holes in the sequence are gaps: a fact of the format, which a file of ours remembers."""
    from tengri_fast.market.formats import FORMATS
    from tengri_fast.market.provenance import provenance

    if kind == "deltas" and path is not None and path.suffix == ".parquet":
        story = provenance(path) or {}
        return bool(story) and all(FORMATS[source["format"]].chained for source in story["sources"])
    return all(name in FORMATS and FORMATS[name].chained for name in kind.split(" + "))


def _aligned(columns: MarketColumns, text: str) -> tuple[MarketColumns, dict[str, Any]]:
    from tengri_fast.market.alignment import clock_offset, shift_clock

    if text == "auto":
        estimate: ClockOffset = clock_offset(columns)
        return shift_clock(columns, estimate.median_ns), {"how": "auto", **estimate.to_dict()}
    value = _duration("--clock-offset", text)
    return shift_clock(columns, value), {"how": "given", "median_ns": value}


def _refuse_targets(
    out: Path, sources: tuple[Path, ...], columns: MarketColumns, name: str | None, streams: tuple[str, ...],
    force: bool,
) -> None:  # fmt: skip
    """Never write over a source; over other files only when told to."""
    from tengri_fast.errors import ConfigurationError
    from tengri_fast.market.provenance import targets

    there = {source.resolve() for source in sources}
    for path in targets(out, columns, stem=name, streams=streams):
        if path.resolve() in there:
            raise ConfigurationError(f"`out` must not be a source, was {path}")
        if path.exists() and not force:
            raise ConfigurationError(f"`out` must not exist without --force, {path} does")


@data.command()
@click.argument("path", type=PATH)
def provenance(path: Path) -> None:
    """Show how PATH, a Parquet file of ours, was made."""
    import json

    from tengri_fast.errors import DataConversionError
    from tengri_fast.market.provenance import provenance as run

    story = run(path)
    if story is None:
        raise DataConversionError(f"`path` must be a file that `tengri data import` wrote, {path.name} tells nothing")
    click.echo(json.dumps(story, indent=2))


@data.command()
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def formats(as_json: bool) -> None:
    """List the formats: columns, units, clock, what is not kept."""
    from tengri_fast.market.formats import FORMATS

    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps([asdict(entry) for entry in FORMATS.values()], indent=2))
        return
    from tengri_fast.cli.data_tables import render_formats

    render_formats(click.echo)


@data.command()
def repairs() -> None:
    """List the repairs, in the order in which they run."""
    from tengri_fast.market.repair import REPAIRS

    width = max(map(len, REPAIRS))
    for name, what in REPAIRS.items():
        click.echo(f"{name:{width}}  {what}")


@data.command()
@click.argument("name", required=False)
def contracts(name: str | None) -> None:
    """List the contract table, or show the row NAME."""
    from tengri_fast.market import contract, contract_names

    if name is not None:
        import msgspec

        row = contract(name)
        for key, value in msgspec.structs.asdict(row).items():
            click.echo(f"{key:17} {', '.join(value) if isinstance(value, tuple) else value}")
        return
    from tengri_fast.cli.data_tables import render_contracts

    render_contracts([(row, contract(row)) for row in contract_names()], click.echo)
