"""``tengri bench``: the latency of a model on this machine, in every circumstance that a trader meets, beside its
rivals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.console import Console

    from tengri_fast.inference.network import Network

    Times = npt.NDArray[np.float64]

SPACED_US = 100.0
IDLE_US = 2_000.0
SKIPPED = 3
"""First steps of every turn, which find the interpreter's code in the caches."""
QUANTILES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))


@dataclass
class Contestant:
    """One row of the table: something that is timed `steps` times in each of several rounds."""

    who: str
    how: str
    part: str
    run: Callable[[int], Sequence[Times]]
    """Takes a number of steps, gives the times of each part in nanoseconds."""
    steps: int
    parts: tuple[str, ...] = ()
    times: list[list[Times]] = field(default_factory=list)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--rows", "row_files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Rows of features or market data to run over [default: random ones].")  # fmt: skip
@click.option("--features", type=click.Path(exists=True, path_type=Path),
              help="The model.toml that turns market data into rows [default: the model's own].")  # fmt: skip
@click.option("--format", "formats", multiple=True, type=click.Choice(["fp32", "fp16", "bf16", "int8", "int8a16"]),
              help="Of ours; may be given several times [default: all that the model allows].")  # fmt: skip
@click.option("--steps", type=click.IntRange(100, 10_000_000), default=20_000, show_default=True,
              help="Steps of a back-to-back row; the slow circumstances take a share of them.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1, 1_000), default=5, show_default=True,
              help="Every row is timed once in each round, so that disturbances meet all.")  # fmt: skip
@click.option("--rivals/--no-rivals", default=True, show_default=True, help="Time other runtimes too.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def bench(
    model: Path, row_files: tuple[Path, ...], features: Path | None, formats: tuple[str, ...], steps: int, rounds: int,
    rivals: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Measure the latency of MODEL on this machine, beside its rivals.

    MODEL is an ONNX file, a model.toml, its folder, or a name of the zoo. "critical" is the time between the new row
    and the answer, "step" includes what is done before the next row. Spaced steps come 100 us apart, idle ones after 2
    ms; cold means that other data went through the caches before each step.
    """
    import numpy as np

    from tengri_fast.cli.model_files import load_network, load_rows
    from tengri_fast.cli.model_options import progress_bar

    loaded = load_network(model)
    network = loaded.network
    if row_files:
        rows = np.concatenate(load_rows(row_files, features or loaded.spec, network.input_size))
        about_rows = f"{len(rows):,} given rows"
    else:
        rows = np.random.default_rng(0).normal(size=(512, network.input_size)).astype(np.float32)
        about_rows = "512 random rows"
    from rich.console import Console

    contestants, notes = line_up(network, rows, formats, steps, rivals)
    with progress_bar(Console(stderr=True, quiet=quiet or as_json)) as show:
        measure(contestants, rounds, show)
    found = summary(contestants, notes, loaded.path, about_rows, rounds)
    if as_json:
        import json

        click.echo(json.dumps(found, indent=2))
    else:
        render(found, Console(highlight=False))


def line_up(
    network: Network, rows: npt.NDArray[np.float32], formats: Sequence[str], steps: int, rivals: bool
) -> tuple[list[Contestant], list[str]]:
    """Everything that will be timed, and why something will not be."""
    from tengri_fast.cli.rivals import RIVALS, missing
    from tengri_fast.errors import ModelLoadingError, NeuralIntegrationError
    from tengri_fast.inference import Model
    from tengri_fast.inference.machine import canary_times, noop_times

    notes: list[str] = []
    found = [
        Contestant("timer", "no-op", "nothing", lambda n: [noop_times(n)], steps),
        Contestant("canary", "fixed work", "chain", lambda n: [canary_times(n)], max(100, steps // 10)),
    ]
    window = network.max_steps or None
    made = variants(network, rows, formats, notes)
    for name, variant in made:
        try:
            native = Model.from_network(variant)
        except ModelLoadingError as error:
            notes.append(f"native {name}: {error}")
            continue
        found += _ours(name, native, rows, steps, window)
    if not rivals:
        return found, notes
    for name, variant in made:
        if name not in ("fp32", "int8") and len(made) > 1:
            continue  # other runtimes compute fp16 and bf16 weights in float32: their fp32 row says it all
        for rival, (package, make) in RIVALS.items():
            reason = missing(package)
            if reason is None:
                try:
                    step = make(variant)
                except (NeuralIntegrationError, RuntimeError, ValueError, ImportError) as error:
                    reason = str(error).strip().splitlines()[0]
            if reason is not None:
                notes.append(f"{rival} {name}: not measured: {reason}")
                continue
            found.append(
                Contestant(f"{rival} {name}", "from Python", "step", _from_python(step, rows), max(100, steps // 20))
            )
    return found, notes


def variants(
    network: Network, rows: npt.NDArray[np.float32], formats: Sequence[str], notes: list[str]
) -> list[tuple[str, Network]]:
    """The network in the formats that are wanted; a quantised one only as it is."""
    import numpy as np

    from tengri_fast.errors import NeuralIntegrationError
    from tengri_fast.inference.quantize import quantize

    if network.format in ("int8", "int8a16", "mixed") or any(n.format.startswith("int8") for n in network.nodes):
        if formats and set(formats) != {network.format}:
            notes.append(f"the model is {network.format}: other formats need the float model it was made from")
        return [(network.format, network)]
    made = []
    plain = replace(network, nodes=tuple(replace(node, format="fp32") for node in network.nodes))
    # Latency does not depend on scales; rows that do not vary cannot set any.
    seen = rows if len(np.unique(rows[:512], axis=0)) > 1 and len(rows) >= 64 else None
    for name in formats or ("fp32", "fp16", "bf16", "int8", "int8a16"):
        try:
            if name == "fp32":
                made.append((name, plain))
            elif seen is None and name.startswith("int8"):
                notes.append(f"{name}: the rows must vary and be at least 64 to set scales")
            else:
                made.append((name, quantize(plain, name, None if seen is None else seen[:2_000], weights="absmax")[0]))
        except NeuralIntegrationError as error:
            notes.append(f"{name}: {error}")
    return made


def _ours(name: str, native: Any, rows: npt.NDArray[np.float32], steps: int, window: int | None) -> list[Contestant]:
    from tengri_fast.inference.hardware import cache_sizes

    who = f"tengri {name}"
    session = native.session(window=window)
    evict = min(2 * max(cache_sizes().values(), default=1 << 24), 1 << 26)

    def timed(**options: Any) -> Callable[[int], Sequence[Times]]:
        def run(n: int) -> Sequence[Times]:
            finish, prepare = session.time_steps(rows, n, **options)
            return [finish, finish + prepare]

        return run

    slow = max(50, steps // 400)
    both = ("critical", "step")
    hot = Contestant(who, "back-to-back", "", timed(), steps, both)
    python = Contestant(who, "from Python", "", _split_from_python(session, rows), max(100, steps // 10), both)
    if window is not None:  # absolute positions run windowed, and a window is timed hot only
        return [hot, python]
    return [
        hot,
        Contestant(who, "spaced 100 us", "", timed(idle_us=SPACED_US), max(100, steps // 40), both),
        Contestant(who, "after 2 ms idle", "", timed(idle_us=IDLE_US), slow, both),
        Contestant(who, "cold caches", "", timed(evict=evict), slow, both),
        python,
    ]


def _split_from_python(session: Any, rows: npt.NDArray[np.float32]) -> Callable[[int], Sequence[Times]]:
    import numpy as np

    def run(n: int) -> Sequence[Times]:
        finish, whole = np.empty(n), np.empty(n)
        clock, count = time.perf_counter_ns, len(rows)
        for i in range(n):
            row = rows[i % count]
            start = clock()
            session.finish(row)
            middle = clock()
            session.prepare()
            whole[i] = clock() - start
            finish[i] = middle - start
        return [finish, whole]

    return run


def _from_python(step: Callable[[Any], Any], rows: npt.NDArray[np.float32]) -> Callable[[int], Sequence[Times]]:
    import numpy as np

    def run(n: int) -> Sequence[Times]:
        out = np.empty(n)
        clock, count = time.perf_counter_ns, len(rows)
        for i in range(n):
            row = rows[i % count]
            start = clock()
            step(row)
            out[i] = clock() - start
        return [out]

    return run


def measure(contestants: Sequence[Contestant], rounds: int, show: Callable[[str, int, int], None]) -> None:
    """Time everything once per round, warmed up where that is not the point."""
    total = rounds * len(contestants)
    done = 0
    for _ in range(rounds):
        for entry in contestants:
            count = max(10, entry.steps // rounds)
            if "idle" not in entry.how and "cold" not in entry.how:
                entry.run(min(count, 50))
            entry.times.append([values[SKIPPED:] for values in entry.run(count + SKIPPED)])
            done += 1
            show("timing", done, total)


def summary(
    contestants: Sequence[Contestant], notes: Sequence[str], path: Path, about_rows: str, rounds: int
) -> dict[str, Any]:
    """Quantiles of everything, as plain values."""
    import numpy as np

    from tengri_fast.inference.hardware import processor
    from tengri_fast.inference.session import active_isa

    rows = []
    for entry in contestants:
        for index, part in enumerate(entry.parts or (entry.part,)):
            all_rounds = [times[index] for times in entry.times]
            times = np.concatenate(all_rounds)
            middles = [float(np.median(values)) for values in all_rounds]
            rows.append(
                {
                    "who": entry.who,
                    "how": entry.how,
                    "part": part,
                    "steps": len(times),
                    **{name: float(np.quantile(times, q)) for name, q in QUANTILES},
                    "round_spread": max(middles) / min(middles) if min(middles) > 0 else None,
                }
            )
    return {
        "model": str(path), "rows": about_rows, "rounds": rounds, "processor": processor(), "isa": active_isa(),
        "unit": "ns", "results": rows, "notes": list(notes),
    }  # fmt: skip


def render(found: dict[str, Any], console: Console) -> None:
    """The summary as a table."""
    from rich.table import Table

    from tengri_fast.report import _format as show

    head = f"{found['model']}, {found['rows']}, {found['rounds']} interleaved rounds"
    console.print(head, markup=False, soft_wrap=True)
    console.print(f"{found['processor']}, {found['isa']}", markup=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in ("circumstance", "part", *(name for name, _ in QUANTILES), "rounds"):
        table.add_column(name, justify="left" if name in ("circumstance", "part") else "right", no_wrap=True)
    last = ""
    for row in found["results"]:
        if row["who"] != last:
            table.add_row(f"[bold]{row['who']}[/]")
        spread = "" if row["round_spread"] is None else f"{row['round_spread']:.2f}x"
        table.add_row(f"  {row['how']}", row["part"], *(show.nanoseconds(row[name]) for name, _ in QUANTILES), spread)
        last = row["who"]
    console.print(table)
    for note in found["notes"]:
        console.print(note, markup=False, soft_wrap=True)
    console.print(
        "rounds: largest median of a round over the smallest. The timer's own cost is in every row; what the canary "
        "loses from p50 to max, the machine took.",
        soft_wrap=True,
    )
