"""``tengri node``: a configuration against live data, or what it would connect to."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tengri_fast.cli.config import FILE, SET, pending_notes
from tengri_fast.errors import NeuralIntegrationError

if TYPE_CHECKING:
    from tengri_fast.nautilus.node import NodePlan


@click.command()
@FILE
@SET
@click.option("--dry-run", is_flag=True, help="Build the node, show what would connect, and connect to nothing.")
def node(file: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Run a strategy on live data, or show what would connect.

    Orders are executed by a sandbox. Keys are taken from the environment only. Ctrl-C stops the node.
    """
    from rich.console import Console

    from tengri_fast.runtime.config import load_config

    config = load_config(file, overrides)
    talk = Console(stderr=True, highlight=False)
    for line in pending_notes(config.pending):
        talk.print(line, markup=False, soft_wrap=True)
    build = _builder()
    if not dry_run:
        made, plan = build(config)
        try:
            _show(plan, Console(highlight=False), dry=False)
            made.run()
        finally:
            made.dispose()
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made, plan = build(config, partial=True, log_level=None)
    try:
        _show(plan, Console(highlight=False), dry=True)
    finally:
        made.dispose()


def _builder() -> Any:
    try:
        from tengri_fast.nautilus.node import build_node
    except NeuralIntegrationError:
        raise
    except ImportError as error:
        raise NeuralIntegrationError(
            f"the NautilusTrader adapter of tengri_fast cannot be loaded ({error}); `tengri info` says what is there"
        ) from error
    return build_node


def _show(plan: NodePlan, page: Any, *, dry: bool) -> None:
    """The plan as tables; of keys only their names and whether they are set."""
    from rich.table import Table
    from rich.text import Text

    clients = Table(title="Data clients", title_justify="left", show_lines=True)
    for name in ("client", "endpoints and instruments", "keys"):
        clients.add_column(name, overflow="fold")
    for client in plan.clients:
        what = [client.name, client.account_type]
        what += [f"venue {client.venue}"] if client.venue not in ("", client.name) else []
        what += ["not built: a key is missing"] if client.missing else []
        where = [*client.endpoints, *(client.instruments or ("no instrument",))]
        cells = ("\n".join(filter(None, what)), "\n".join(where), "\n".join(map(str, client.keys)))
        clients.add_row(*map(Text, cells))
    rest = Table(title="Node", title_justify="left", show_header=False)
    rest.add_column(overflow="fold")
    rest.add_column(overflow="fold")
    rows = [
        ("execution", f"sandbox {plan.venue}, {plan.account_type}, {plan.balance}"),
        ("risk gate", ", ".join(plan.limits) or "no limits"),
        ("strategy", f"model {plan.model} on {plan.instrument}"),
        ("subscriptions", f"{', '.join(plan.subscriptions)} from {plan.client.name}"),
        *((f"history: {what}", who) for what, who in plan.requests),
        *((f"external: {what}", who) for what, who in plan.external),
        *((client.name, note) for client in plan.clients for note in client.notes),
    ]
    for left, right in rows:
        rest.add_row(Text(left), Text(right))
    page.print(clients)
    page.print(rest)
    if dry:
        absent = f" Without {', '.join(plan.missing)} it does not start." if plan.missing else ""
        page.print(f"Dry run: nothing was connected.{absent}", markup=False, soft_wrap=True)
