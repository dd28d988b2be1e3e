"""``tengri status``, ``kill`` and ``rearm``: talk to a running process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

SOCKET = click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="Control socket of the process. By default $TENGRI_CONTROL_SOCKET, then the user's runtime folder.",
)


WHY = click.option("--reason", required=True, help="Why; it is written down.")


@click.command()
@SOCKET
@click.option("as_json", "--json", is_flag=True, help="JSON instead of text.")
def status(socket: Path | None, as_json: bool) -> None:
    """Show what a running process is doing."""
    from tengri_fast.runtime.control import ControlClient

    found = ControlClient(socket).status()
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
        return
    for name, value in _flat(found):
        click.echo(f"{name:28} {value}")


@click.command()
@click.option("--name", required=True, help="Who stops it. Each name is a switch of its own.")
@WHY
@SOCKET
def kill(name: str, reason: str, socket: Path | None) -> None:
    """Stop the trading of a running process.

    Orders that reduce positions and cancels still pass.
    """
    from tengri_fast.runtime.control import ControlClient

    client = ControlClient(socket)
    client.kill(name, reason)
    click.echo(f"Trading is stopped ({client.socket_path}). It stays so until `tengri rearm --name {name!r}`.")


@click.command()
@click.option("--name", required=True, help="The name under which it was stopped; `tengri status` shows it.")
@WHY
@SOCKET
def rearm(name: str, reason: str, socket: Path | None) -> None:
    """Allow a stopped process to trade again.

    Turns off what was stopped under a name; the name of a kill file, once it is removed, is "kill file". Trading goes
    on when no other name is left.
    """
    from tengri_fast.runtime.control import ControlClient

    client = ControlClient(socket)
    others = client.rearm(name, reason).get("kills") or {}
    if others:
        text = f"The switch of {name!r} is off, but trading stays stopped by: {', '.join(others)}"
    else:
        text = "Trading is allowed again"
    click.echo(f"{text} ({client.socket_path}).")


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            rows += _flat(item, f"{prefix}{key}.")
        elif item is not None:
            rows.append((f"{prefix}{key}", str(item).lower() if isinstance(item, bool) else str(item)))
    return rows
