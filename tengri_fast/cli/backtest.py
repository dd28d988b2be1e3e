"""``tengri backtest``: a configuration in, a summary and a report out."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from tengri_fast.cli.config import FILE, SET, pending_notes
from tengri_fast.errors import ConfigurationError, MissingExtraError, NeuralIntegrationError

if TYPE_CHECKING:
    from rich.console import Console

    from tengri_fast.runtime.config import TengriConfig
    from tengri_fast.runtime.control import RunControl

Progress = Callable[[int, int, Mapping[str, Any]], None]


@click.command()
@FILE
@SET
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the report [default: out/NAME]."
)
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@click.option("open_it", "--open/--no-open", default=False, help="Open the report in a browser.")
def backtest(file: Path, overrides: tuple[str, ...], out: Path | None, quiet: bool, open_it: bool) -> None:
    """Run a backtest and write its report.

    The report (report.html, report.png, summary.json) goes to a folder. Progress is told on standard error, the summary
    on standard output. With a [control] section, `tengri status` and `tengri kill` reach the run.
    """
    from rich.console import Console

    from tengri_fast.runtime.config import load_config

    config = load_config(file, overrides)
    if config.backtest is None:
        raise config.error("backtest", "must be given for `tengri backtest`, was missing")
    run_backtest = _runner()
    folder = out if out is not None else Path("out") / file.stem
    folder.mkdir(parents=True, exist_ok=True)
    talk = Console(stderr=True, highlight=False, quiet=quiet)
    for line in pending_notes(config.pending):
        talk.print(line, markup=False, soft_wrap=True)
    display: AbstractContextManager[Progress] = nullcontext(_silent) if quiet else RunDisplay(talk, file.stem)
    control = start_control(config, file, talk)
    try:
        with display as show:

            def progress(done: int, total: int, live: Mapping[str, Any]) -> None:
                control.progress(done, total, live)
                show(done, total, live)

            record = run_backtest(config, folder, progress=progress, control=control)
    finally:
        control.stop()

    from tengri_fast.report import terminal_summary, write_report

    files = write_report(record, folder)
    if not quiet:
        page = Console(highlight=False)
        page.print(terminal_summary(record))
        for name, path in files.items():
            page.print(f"{name:10} {path}", markup=False, soft_wrap=True)
    if open_it and "html" in files:
        import webbrowser

        webbrowser.open(files["html"].absolute().as_uri())


def start_control(config: TengriConfig, file: Path, talk: Console) -> RunControl:
    """The way in that ``[control]`` asks for, started; without the section it serves nothing.

    With ``socket = "auto"``, a second run at the same time gets a socket of its own beside the usual one.
    """
    from tengri_fast.runtime.control import RunControl, default_socket_path

    section = config.control
    socket = kill_file = None
    automatic = section is not None and section.socket == "auto"
    if automatic:
        socket = default_socket_path()
    elif section is not None and section.socket is not None:
        socket = config.place(section.socket, "control.socket")
    if section is not None and section.kill_file is not None:
        kill_file = config.place(section.kill_file, "control.kill_file")
    about = {
        "config": str(file),
        "config_sha256": config.sha256,
        "strategy_id": config.strategy.strategy_id,
        "instrument_id": config.strategy.instrument_id,
    }
    control = RunControl(socket, kill_file, about)
    try:
        control.start()
    except ConfigurationError as error:
        if not automatic or socket is None:
            raise
        own = socket.with_name(f"{socket.stem}-{os.getpid()}{socket.suffix}")
        talk.print(f"Note: {error}. This run listens at {own} (--socket).", markup=False, soft_wrap=True)
        control = RunControl(own, kill_file, about)
        control.start()
    return control


def _runner() -> Callable[..., Any]:
    """`run_backtest`, or a sentence about what is missing, before any time has been spent."""
    for package in ("plotly", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "report", "the report of `tengri backtest`")
    try:
        from tengri_fast.nautilus.backtest import run_backtest
    except NeuralIntegrationError:
        raise
    except ImportError as error:
        raise NeuralIntegrationError(
            f"the NautilusTrader adapter of tengri_fast cannot be loaded ({error}); `tengri info` says what is there"
        ) from error
    return run_backtest


def _silent(done: int, total: int, live: Mapping[str, Any]) -> None:
    """Show nothing."""


def live_text(live: Mapping[str, Any]) -> str:
    """The running numbers in a few words: profit first, then counts."""
    words = []
    if live.get("pnl") is not None:
        words.append(f"PnL {float(live['pnl']):+,.2f} {live.get('currency') or ''}".rstrip())
    words += [f"{name} {live[name]:,}" for name in ("trades", "orders", "denied") if isinstance(live.get(name), int)]
    if live.get("killed"):
        words.append("KILLED")
    return ", ".join(words)


class RunDisplay:
    """Shows how far a run is: a bar in a terminal, a line every ten percent elsewhere.

    Entering it gives the function to call with events done, events in all, and the running numbers.
    """

    def __init__(self, console: Console, name: str, every: float = 0.1) -> None:
        self.console = console
        self.name = name
        self.every = every
        self.began = time.monotonic()
        self.next_share = every
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Progress:
        self.began = time.monotonic()
        if not self.console.is_terminal:
            return self.line
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[live]}", markup=False),
            console=self.console,
        )
        self.task = self.bar.add_task(self.name, total=None, live="")
        self.bar.start()
        return self.draw

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def draw(self, done: int, total: int, live: Mapping[str, Any]) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=done, total=total or None, live=live_text(live))

    def line(self, done: int, total: int, live: Mapping[str, Any]) -> None:
        """Print a line when another tenth is done."""
        share = done / total if total > 0 else 0.0
        # The small allowance keeps 0.1 + 0.1 + 0.1 from missing three tenths.
        if share + 1e-9 < self.next_share:
            return
        while self.next_share <= share + 1e-9:
            self.next_share += self.every
        seconds = time.monotonic() - self.began
        text = f"{self.name}: {share:4.0%} after {seconds:.1f} s  {live_text(live)}"
        self.console.print(text.rstrip(), markup=False, soft_wrap=True)
