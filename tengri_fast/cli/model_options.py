"""Options, progress and the end that ``tengri quantize`` and ``tengri prune`` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from tengri_fast.cli.model_files import LoadedNetwork, RowSplit
    from tengri_fast.inference.acceptance import Acceptance, Limits
    from tengri_fast.inference.network import Network

__all__ = ["acceptance_options", "finish", "limits_of", "progress_bar", "rows_for"]

EXIT_REFUSED = 1
FILES = click.Path(exists=True, dir_okay=False, path_type=Path)


def acceptance_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of rows, limits and output."""
    options = [
        click.argument("model", type=click.Path(path_type=Path)),
        click.option("--calibration", multiple=True, type=FILES,
                     help="Rows of features (.npy, .npz, .parquet) or market data (STEM.quotes.parquet, ...)."),
        click.option("--held-out", multiple=True, type=FILES, help="Rows that calibration has not seen."),
        click.option("--split", type=float, default=0.3, show_default=True,
                     help="Without --held-out: share of the calibration rows, at the end, that is held out."),
        click.option("--features", type=click.Path(exists=True, path_type=Path),
                     help="The model.toml that turns market data into rows [default: the model's own]."),
        click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path),
                     help="The artefact; the reports lie beside it."),
        click.option("--keep", multiple=True, metavar="LAYER", help="Name of a layer that stays as it is."),
        click.option("--max-flips", type=float, default=0.01, show_default=True,
                     help="Largest share of rows with another decision."),
        click.option("--max-relative-error", type=float, default=0.05, show_default=True,
                     help="Largest rms error, relative to the spread of the answers."),
        click.option("--max-calibration-shift", type=float, default=0.02, show_default=True,
                     help="Largest binned shift of the confidence."),
        click.option("--max-error", type=float, help="Largest absolute error of one output [default: not judged]."),
        click.option("--decision", type=click.Choice(["auto", "argmax", "sign", "none"]), default="auto",
                     show_default=True, help="What the answer decides."),
        click.option("--force", is_flag=True, help="Write the artefact even when it is refused."),
        click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def limits_of(flips: float, relative: float, shift: float, error: float | None) -> Limits:
    """The limits that the options say."""
    from tengri_fast.inference.acceptance import Limits

    return Limits(flips, relative, shift, error)


def rows_for(
    loaded: LoadedNetwork, calibration: Sequence[Path], held_out: Sequence[Path], split: float, features: Path | None
) -> RowSplit:
    """Rows to calibrate and to judge on."""
    from tengri_fast.cli.model_files import load_rows, split_rows
    from tengri_fast.errors import ConfigurationError

    if not calibration:
        raise ConfigurationError("`calibration` must be given at least once, was missing (--calibration ROWS)")
    features = features or loaded.spec
    width = loaded.network.input_size
    return split_rows(load_rows(calibration, features, width), load_rows(held_out, features, width), split)


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that is told what is being done, how much is done and how much there is."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    tasks: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    with bar:
        yield show


def finish(
    loaded: LoadedNetwork, made: Network, found: Acceptance, report: Mapping[str, Any], output: Path, title: str,
    facts: Mapping[str, str], tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[object]]]], force: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Write the reports, and the artefact unless it is refused; say what was done. Ends with code 1 when refused."""
    from dataclasses import replace

    from rich.console import Console

    from tengri_fast.cli.acceptance_page import acceptance_table, write_pages
    from tengri_fast.inference.canonical import write_canonical
    from tengri_fast.inference.onnx_writer import write_atomic

    console = Console(highlight=False, quiet=quiet)
    verdict = "blessed" if found.blessed else "forced: " + "; ".join(found.refusals)
    written = found.blessed or force
    data = write_canonical(
        replace(made, metadata={**made.metadata, "acceptance": verdict})
    )  # refused by name, before any file
    pages = write_pages(output.with_suffix(""), title, found, report, facts, tables, force and not found.blessed)
    if written:
        write_atomic(output, data)
    console.print(acceptance_table(found, title))
    for note in report.get("notes", ()):
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    for path in ([output] if written else []) + list(pages):
        console.print(str(path), markup=False, soft_wrap=True)
    if found.blessed:
        return
    reasons = "; ".join(found.refusals)
    if force:
        click.echo(f"Warning: {output} was written although it is refused: {reasons}", err=True)
        return
    kept = f"; {output} is left as it was" if output.exists() else ""
    click.echo(f"Refused: {reasons}. No artefact was written{kept}.", err=True)
    click.get_current_context().exit(EXIT_REFUSED)
