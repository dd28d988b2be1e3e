"""``tengri audit``: verify and read the audit log of the risk gate."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC
from pathlib import Path
from typing import Any

import click

LOG = click.argument("log", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def audit() -> None:
    """Verify and read the audit log of the risk gate."""


@audit.command()
@LOG
@click.option("--head", help="A hash that the log had before: shows whether its end was cut off since.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.pass_context
def verify(context: click.Context, log: Path, head: str | None, as_json: bool) -> None:
    """Check every record of a log against the hash of all before it.

    The exit status is 0 when the chain holds and 1 when it does not. Keep the printed hash in another place and give it
    with --head next time: a log whose end was cut off is sound by itself.
    """
    from tengri_fast.risk.audit import verify as check

    report = check(log, head)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        click.echo(f"{'records':12} {report.records}")
        click.echo(f"{'decisions':12} {report.decisions}, of which {report.denied} denied")
        click.echo(f"{'hash':12} {report.head}")
        click.echo(f"{'verdict':12} {'the chain holds' if report.sound else 'NOT SOUND: ' + report.fault}")
    context.exit(0 if report.sound else 1)


@audit.command()
@LOG
@click.option("--denied", is_flag=True, help="Only what was refused.")
@click.option("--order", help="Only decisions about this client order id.")
@click.option("--last", type=click.IntRange(min=1), help="Only the last records.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def show(log: Path, denied: bool, order: str | None, last: int | None, as_json: bool) -> None:
    """Print the records of a log."""
    from collections import deque

    from tengri_fast.risk.audit import Decision, Event, read

    def wanted(record: Decision | Event) -> bool:
        if isinstance(record, Event):
            return not denied and order is None
        return (not denied or not record.allowed) and (order is None or record.order == order)

    records = filter(wanted, read(log))
    for record in deque(records, maxlen=last) if last is not None else records:
        if as_json:
            click.echo(json.dumps({key: _plain(value) for key, value in dataclasses.asdict(record).items()}))
        elif isinstance(record, Event):
            facts = " ".join(f"{key}={value}" for key, value in record.facts.items())
            click.echo(f"{record.sequence:>8} {_time(record.ts)} {record.name} {facts}".rstrip())
        else:
            answer = "allowed" if record.allowed else "DENIED"
            if record.reducing:
                answer += " (reducing)"
            side = "buy" if record.side > 0 else "sell"
            price = "" if math.isnan(record.price) else f" at {record.price:.10g}"
            click.echo(
                f"{record.sequence:>8} {_time(record.ts)} {answer}: {record.action} {record.order} of "
                f"{record.strategy or 'nobody'}: {side} {record.quantity:.10g} {record.instrument} "
                f"{record.order_type}{price}{' ' + record.reason if record.reason else ''}"
            )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _time(ns: int) -> str:
    from datetime import datetime

    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"
