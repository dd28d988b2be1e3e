"""``tengri info``: what this installation has, and what it lacks and why."""

from __future__ import annotations

import click


@click.command()
@click.option("as_json", "--json", is_flag=True, help="JSON instead of text.")
def info(as_json: bool) -> None:
    """Show versions, CPU features, backends and extras."""
    from tengri_fast.runtime.info import collect

    found = collect()
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console

    from tengri_fast.runtime.info import render

    Console(highlight=False).print(render(found))
