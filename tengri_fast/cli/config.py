"""``tengri config``: is this file right, and what does it mean?"""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.argument("file", type=click.Path(path_type=Path), metavar="CONFIG.toml")
SET = click.option(
    "overrides",
    "--set",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one key, as in policy.cooldown=5s. Repeatable.",
)


@click.group()
def config() -> None:
    """Check a configuration, or show what it means."""


@config.command()
@FILE
@SET
def check(file: Path, overrides: tuple[str, ...]) -> None:
    """Check keys, values and the files that are named; exit code 2 if anything is wrong."""
    from tengri_fast.runtime.config import load_config

    loaded = load_config(file, overrides)
    for key, path in loaded.files().items():
        click.echo(f"{key}: {path}")
    for line in pending_notes(loaded.pending):
        click.echo(line)
    click.echo(f"{file} is right. sha256 {loaded.sha256}")


@config.command()
@FILE
@SET
@click.option("as_json", "--json", is_flag=True, help="JSON instead of TOML.")
def show(file: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every key with its effective value, as a TOML that can be loaded again."""
    from tengri_fast.runtime.config import load_config

    loaded = load_config(file, overrides)
    if as_json:
        import json

        click.echo(json.dumps(loaded.to_dict(), indent=2))
    else:
        click.echo(loaded.to_toml(), nl=False)


def pending_notes(pending: tuple[tuple[str, str], ...]) -> list[str]:
    """One line for each thing that happens instead of what some keys ask for."""
    by_text: dict[str, list[str]] = {}
    for key, text in pending:
        by_text.setdefault(text, []).append(key)
    return [f"Note: {', '.join(keys)}: not acted on by this version ({text})." for text, keys in by_text.items()]
