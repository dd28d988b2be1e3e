"""``tengri check-lookahead``: show that features do not know the future, and that chunks and copies change no bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tengri_fast.cli.feature_options import config_of, source_options

if TYPE_CHECKING:
    from tengri_fast.features.audit import Difference
    from tengri_fast.features.lookahead import LookaheadReport
    from tengri_fast.features.user_files import Frozen

EXIT_MOVED = 1


@click.command("check-lookahead")
@source_options
@click.option("--cuts", type=int, default=6, show_default=True, help="Cut times, spread over the events.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cut times and of the poison.")
@click.option("--rows", type=int, default=20_000, show_default=True,
              help="Events of the longest stream that are looked at, from the start of the first session.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def check_lookahead(
    config: Path | None, data: tuple[Path, ...], cuts: int, seed: int, rows: int, as_json: bool, batch_rows: int,
    progress: bool | None, **given: Any,
) -> None:  # fmt: skip
    """Show that features do not know the future.

    The features of CONFIG are computed again on histories without a future and with a poisoned one; nothing may move.
    Also checks that rows are the same bits in chunks of 1, 7 and 100 events and all at once, and from a state that was
    copied, or saved and loaded, in mid-stream. Exit code 1 when something moved.
    """
    from tengri_fast.cli.features import _bar
    from tengri_fast.errors import ConfigurationError
    from tengri_fast.features.audit import check_causality, check_chunks, check_state
    from tengri_fast.features.sessions import group_files, open_session
    from tengri_fast.features.user_files import derived_observations, frozen_globals, load_user_file

    chosen = config_of(config, given)
    plan = chosen.plan()
    needed = chosen.read_by(plan)
    if not data:
        raise ConfigurationError("`data` must be given (--data PATH)")
    if rows < 100:
        raise ConfigurationError(f"`rows` must be >= 100, was {rows}")
    session = open_session(group_files(data)[0], needed.legs, needed.external, batch_rows=batch_rows)
    streams = session.whole(rows)
    stream_of = {"quote": streams.quotes, "trade": streams.trades, "depth": streams.depth, "bar": streams.bars}
    if stream_of[needed.clock] is None:
        raise ConfigurationError(f"`clock` must name a stream of session {session.name}, which has "
                                 f"{', '.join(session.streams)}, was {needed.clock!r}")  # fmt: skip
    total, done = 2 + 2 * cuts, 0
    with _bar(progress) as show:

        def say(text: str) -> None:
            nonlocal done
            done += 1
            show("looking ahead", done - 1, total)

        report = check_causality(plan, needed, streams, cuts=cuts, seed=seed, progress=say)
        show("looking ahead", total, total)
        made, _ = derived_observations(needed.derived, streams)
        full = type(streams)(streams.quotes, streams.trades, streams.depth, streams.bars, streams.legs,
                             {**streams.external, **made})  # fmt: skip
        differences = check_chunks(plan, full, needed.clock) + check_state(plan, full, needed.clock)
    used = set(plan.names) | {spec.name for spec in plan.specs}
    frozen = [
        found for path in given["user"] for found in frozen_globals(load_user_file(path)) if found.feature in used
    ]
    passed = report.passed and not differences and not any(found.suspicious for found in frozen)
    if as_json:
        click.echo(json.dumps(_facts(passed, session.name, report, differences, frozen), indent=2, allow_nan=False))
    else:
        click.echo(_text(session.name, report, differences, frozen))
    if not passed:
        click.get_current_context().exit(EXIT_MOVED)


def _facts(passed: bool, session: str, report: LookaheadReport, differences: list[Difference],
           frozen: list[Frozen]) -> dict[str, Any]:  # fmt: skip
    # Values as text: they may be infinite, which JSON has no number for.
    moved = [{**entry._asdict(), "before": repr(entry.before), "after": repr(entry.after)} for entry in report.moved]
    other = [{**entry._asdict(), "expected": repr(entry.expected), "found": repr(entry.found)} for entry in differences]
    return {
        "passed": passed, "session": session, "rows": report.rows, "columns": report.columns,
        "cuts": list(report.cuts), "compared": report.compared, "moved": moved, "differences": other,
        "frozen": [entry._asdict() for entry in frozen],
    }  # fmt: skip


def _text(session: str, report: LookaheadReport, differences: list[Difference], frozen: list[Frozen]) -> str:
    lines = [f"{session}: {report}"]
    if differences:
        lines += ["CHUNKS OR COPIES DIFFER:", *(f"  {entry}" for entry in differences)]
    else:
        lines.append("the same bits in chunks of 1, 7, 100 and all, after a copy, and after bytes")
    for entry in frozen:
        lines.append(f"{'FROZEN DATA' if entry.suspicious else 'note'}: {entry}")
    return "\n".join(lines)
