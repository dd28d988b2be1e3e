"""The ``tengri`` command.

Subcommands live in modules of their own that are imported when they are called, so that ``tengri --help`` stays quick.
A new one is a line in `COMMANDS`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from tengri_fast import __version__
from tengri_fast.errors import NeuralIntegrationError

__all__ = ["COMMANDS", "LazyGroup", "main"]

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

# Name: where the command is, and its line of help (kept here, so that listing imports nothing).
COMMANDS = {
    "audit": ("tengri_fast.cli.audit:audit", "Verify and read the audit log of the risk gate."),
    "backtest": ("tengri_fast.cli.backtest:backtest", "Run a backtest and write its report."),
    "bench": ("tengri_fast.cli.bench:bench", "Measure the latency of MODEL on this machine, beside its rivals."),
    "check-lookahead": (
        "tengri_fast.cli.check_lookahead:check_lookahead",
        "Show that features do not know the future.",
    ),
    "compile": ("tengri_fast.cli.compile:compile_", "Write MODEL as one compiled file for every instruction set."),
    "config": ("tengri_fast.cli.config:config", "Check a configuration, or show what it means."),
    "data": ("tengri_fast.cli.data:data", "Describe, repair and import market data."),
    "engine": ("tengri_fast.cli.engine:engine", "Build TensorRT engines ahead of time."),
    "features": ("tengri_fast.cli.features:features", "Compute features of market data, or list them."),
    "info": ("tengri_fast.cli.info:info", "Show versions, CPU features, backends and extras."),
    "inspect": ("tengri_fast.cli.inspect:inspect", "Show what MODEL is made of and what it costs."),
    "kill": ("tengri_fast.cli.control:kill", "Stop the trading of a running process."),
    "node": ("tengri_fast.cli.node:node", "Run a strategy on live data, or show what would connect."),
    "prune": ("tengri_fast.cli.prune:prune", "Write a smaller MODEL, with a report, if it passes."),
    "quantize": (
        "tengri_fast.cli.quantize:quantize",
        "Write MODEL in a smaller number format, with a report, if it passes.",
    ),
    "rearm": ("tengri_fast.cli.control:rearm", "Allow a stopped process to trade again."),
    "risk": ("tengri_fast.cli.risk:risk", "Measure risk, and backtest the measures."),
    "status": ("tengri_fast.cli.control:status", "Show what a running process is doing."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called.

    Parameters
    ----------
    lazy : mapping of str to (str, str)
        Name of a command to ``"module:attribute"`` and one line of help.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now if it was not before."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        rows = []
        for name in self.list_commands(ctx):
            if name in self.lazy:
                rows.append((name, self.lazy[name][1]))
            elif (command := super().get_command(ctx, name)) is not None and not command.hidden:
                rows.append((name, command.get_short_help_str()))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, and an unknown name is answered with the nearest one."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self.list_commands(ctx):
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            ctx.fail(f"there is no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; what goes wrong becomes a sentence and an exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("\nStopped by Ctrl-C.", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has gone. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except NeuralIntegrationError as error:
            _stop(error, str(error))
        except OSError as error:
            if error.strerror is None:
                raise
            _stop(error, f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        sys.exit(code if isinstance(code, int) else 0)


def _stop(error: Exception, text: str) -> NoReturn:
    if os.environ.get("TENGRI_TRACEBACK", "0") not in ("", "0"):
        raise error
    click.echo(f"Error: {text}", err=True)
    sys.exit(EXIT_ERROR)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Errors are one sentence and exit code 2; TENGRI_TRACEBACK=1 shows where they came from.",
)
@click.version_option(__version__, prog_name="tengri", message="%(prog)s %(version)s")
def main() -> None:
    """Low-latency neural signals and pre-trade risk inside NautilusTrader."""
