"""One table from pytest-benchmark's JSON, a comparison of two, or a slim copy to keep.

    python bench/summary.py bench/results/latest.json [--markdown]
    python bench/summary.py --compare OLD NEW        (either may be a folder of JSON files)
    python bench/summary.py --keep bench/results/latest.json [--into FILE]

Times are those of single calls where a bench recorded them (``p50_ns``, ``min_ns`` and so on in ``extra_info``), else
those of pytest-benchmark's rounds; the two are never mixed in a row. Within a group the ratios compare p50, or the
median round. The ratio column of ``--markdown`` prefers what the bench itself compared with (``min_over``: minimum over
minimum of rounds that alternated).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

sys.path.insert(0, str(Path(__file__).resolve().parent))

from inference_table import context_lines, inference_markdown, inference_table

NOISE = 0.10
"""Two runs on one machine differ by this much without meaning anything."""


COMMITTED = Path(__file__).resolve().parent / "results" / "committed" / "bench.json"
"""Where ``--keep`` puts the results that ``make bench-compare`` compares with."""

ABSOLUTE_PATH = re.compile(r"(?:^|[\s'\"=(:,])(?:/|[A-Za-z]:\\)[\w.-]+[/\\]")


class ResultsError(Exception):
    """A results file is missing or is not pytest-benchmark's JSON."""


@dataclass(frozen=True)
class Row:
    """One bench, nanoseconds; NaN where a figure was not measured."""

    group: str
    name: str
    fullname: str
    p50: float
    p99: float
    p999: float
    minimum: float
    round_minimum: float
    min_over: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name without what every bench has, its parameters as they are."""
        function, bracket, parameters = self.name.partition("[")
        return re.sub(r"^(test|bench)_", "", function).replace("_", " ") + (bracket and f" [{parameters}")


def load(path: Path) -> dict[str, Any]:
    """Read one results file, or all those of a folder; of two results for one bench the later file name wins.

    In a folder, what soak, tails and accuracy left (their ``kind`` says so) is passed over.
    """
    merged: dict[str, Any] = {}
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        try:
            data = json.loads(file.read_bytes())
            if path.is_dir() and data.get("kind") in {"soak", "tails", "accuracy"}:
                continue
            found = {bench["fullname"]: bench for bench in (*merged.get("benchmarks", ()), *data["benchmarks"])}
        except OSError as error:
            raise ResultsError(f"{file} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultsError(f"{file} is not a pytest-benchmark result: {error}") from error
        merged = {**data, "benchmarks": list(found.values())}
    if not merged:
        raise ResultsError(f"no results in {path}: run `make bench` and then `make bench-commit`")
    return merged


def rows(data: dict[str, Any]) -> list[Row]:
    """The benches of a results file, in its order."""
    out = []
    for bench in data["benchmarks"]:
        extra, stats = bench.get("extra_info") or {}, bench["stats"]
        recorded = "p50_ns" in extra
        # A round may hold thousands of calls: its minimum must not pass for that of a call.
        minimum = extra.get("min_ns", math.nan) if recorded else 1e9 * stats["min"]
        out.append(
            Row(
                group=bench.get("group") or "no group",
                name=bench["name"],
                fullname=bench["fullname"],
                p50=float(extra["p50_ns"] if recorded else 1e9 * stats["median"]),
                p99=float(extra.get("p99_ns", math.nan)),
                p999=float(extra.get("p999_ns", math.nan)),
                minimum=float(minimum),
                round_minimum=1e9 * stats["min"],
                min_over=dict(extra.get("min_over") or {}),
            )
        )
    return out


def groups(found: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by group, the fastest first."""
    out: dict[str, list[Row]] = {}
    for row in found:
        out.setdefault(row.group, []).append(row)
    return {name: sorted(out[name], key=lambda row: row.p50) for name in sorted(out)}


def add_ratios(data: dict[str, Any]) -> None:
    """Put ``vs_fastest`` and ``vs_slowest`` into the ``extra_info`` of every bench.

    ``vs_fastest`` is its time over that of the fastest of its group (1 or more), ``vs_slowest`` the time of the slowest
    over its own (1 or more: how many times faster it is).
    """
    ratios = {}
    for members in groups(rows(data)).values():
        for row in members:
            ratios[row.fullname] = (_over(row.p50, members[0].p50), _over(members[-1].p50, row.p50))
    for bench in data["benchmarks"]:
        fastest, slowest = ratios[bench["fullname"]]
        extra = bench.setdefault("extra_info", {})
        extra["vs_fastest"], extra["vs_slowest"] = round(fastest, 4), round(slowest, 4)


def _over(a: float, b: float) -> float:
    return a / b if b > 0.0 else 1.0


def time_text(ns: float) -> str:
    """Nanoseconds in the unit that suits them, three digits."""
    if not math.isfinite(ns):
        return "–"
    for size, unit in ((1e9, "s "), (1e6, "ms"), (1e3, "µs")):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:,.0f} {unit}"
    return f"{ns:.3g} ns"


def ratio_text(value: float) -> str:
    """A ratio with the digits it deserves."""
    return f"{value:,.0f}x" if value >= 100 else f"{value:.3g}x" if value >= 10 else f"{value:.2f}x"


def machine_lines(data: dict[str, Any]) -> list[str]:
    """What the numbers were measured on."""
    machine = data.get("machine_info") or {}
    ours = machine.get("tengri") or {}
    cpu = ours.get("cpu") or (machine.get("cpu") or {}).get("brand_raw") or machine.get("processor") or "unknown"
    commit = (data.get("commit_info") or {}).get("short") or (data.get("commit_info") or {}).get("id") or "unknown"
    changed = " with uncommitted changes" if (data.get("commit_info") or {}).get("uncommitted_changes") else ""
    python = ours.get("python") or machine.get("python_version") or "unknown"
    return [
        f"{cpu}, {ours.get('cores', '?')} cores, ISA {ours.get('isa', 'unknown')}",
        f"{ours.get('compiler', 'compiler unknown')}; {ours.get('flags', 'flags unknown')}; Python {python}",
        f"commit {commit}{changed}, {data.get('datetime', 'time unknown')}",
    ]


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=bool(i), overflow="fold")
    return table


def table(data: dict[str, Any]) -> Table:
    """Every bench, grouped, with its percentiles and its ratios."""
    out = _table("Benches", ("bench", "p50", "p99", "p99.9", "min", "vs fastest", "vs slowest"))
    for name, members in groups(rows(data)).items():
        out.add_section()
        out.add_row(Text(name, style="bold"))
        for row in members:
            times = (time_text(value) for value in (row.p50, row.p99, row.p999, row.minimum))
            alone = len(members) == 1
            ratios = (
                "–" if alone else ratio_text(_over(row.p50, members[0].p50)),
                "–" if alone else ratio_text(_over(members[-1].p50, row.p50)),
            )
            out.add_row(Text(f"  {row.label}"), *times, *ratios)
    return out


def comparison(old: dict[str, Any], new: dict[str, Any]) -> Table:
    """Every bench that stands in either file, by the ratio of the minima (new over old)."""
    out = _table("New against old, minima", ("bench", "old", "new", "new/old", ""))
    before = {row.fullname: row for row in rows(old)}
    after = {row.fullname: row for row in rows(new)}
    for name, members in groups([*after.values(), *(r for k, r in before.items() if k not in after)]).items():
        out.add_section()
        out.add_row(Text(name, style="bold"))
        for row in members:
            was, now = before.get(row.fullname), after.get(row.fullname)
            if was is None or now is None:
                cells = (time_text(was.minimum) if was else "–", time_text(now.minimum) if now else "–")
                out.add_row(Text(f"  {row.label}"), *cells, "–", "only new" if now else "only old")
                continue
            a, b = was.minimum, now.minimum
            if not (math.isfinite(a) and math.isfinite(b)):  # a file from before minima were recorded
                a, b = was.round_minimum, now.round_minimum
            ratio = _over(b, a)
            verdict = "slower" if ratio > 1 + NOISE else "faster" if ratio < 1 / (1 + NOISE) else ""
            style = {"slower": "red", "faster": "green"}.get(verdict, "")
            out.add_row(
                Text(f"  {row.label}"), time_text(a), time_text(b), ratio_text(ratio), Text(verdict, style=style)
            )
    return out


def ratio_cell(row: Row, members: Sequence[Row]) -> str:
    """What one row is compared with, in words that do not need to be told which way round."""
    if row.min_over:
        return "; ".join(_against(name, value) for name, value in row.min_over.items())
    if len(members) == 1:
        return "–"
    if row is members[0]:
        return "fastest"
    return f"{ratio_text(_over(row.p50, members[0].p50))} the time of the fastest"


def _against(name: str, value: float) -> str:
    return f"{ratio_text(1 / value)} faster than {name}" if 0 < value < 1 else f"{ratio_text(value)} the time of {name}"


def markdown(data: dict[str, Any]) -> str:
    """The table in GitHub's markdown, the machine below it."""
    out = inference_markdown(data)
    out += ["| group | row | p50 | p99 | p99.9 | min | ratio |", "| --- | --- | ---: | ---: | ---: | ---: | --- |"]
    for name, members in groups(rows(data)).items():
        for row in members:
            times = (time_text(value).strip() for value in (row.p50, row.p99, row.p999, row.minimum))
            cells = (name, row.label, *times, ratio_cell(row, members))
            out.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*out, "", *(f"{line}  " for line in machine_lines(data))])


def slim(data: dict[str, Any]) -> dict[str, Any]:
    """What is worth keeping of a results file: no single rounds, and nothing that names a host or a folder.

    Raises
    ------
    ResultsError
        When a host name or an absolute path is left after all.
    """
    machine = data.get("machine_info") or {}
    ours = machine.get("tengri") or {}
    benchmarks = []
    for bench in data["benchmarks"]:
        kept = {k: v for k, v in bench.items() if k in ("group", "name", "fullname", "params", "param", "options")}
        extra = dict(bench.get("extra_info") or {})
        if extra.get("machine") == ours:  # it stands once, at the top
            del extra["machine"]
        kept["extra_info"] = extra
        kept["stats"] = {k: v for k, v in bench["stats"].items() if k != "data"}
        benchmarks.append(kept)
    known = ("machine", "system", "python_implementation", "python_version", "tengri")
    cpu = {k: v for k, v in (machine.get("cpu") or {}).items() if k in ("arch", "bits", "count", "brand_raw")}
    commits = ("id", "short", "time", "uncommitted_changes")
    out = {
        "machine_info": {**{k: machine[k] for k in known if k in machine}, "cpu": cpu},
        "commit_info": {k: v for k, v in (data.get("commit_info") or {}).items() if k in commits},
        "benchmarks": benchmarks,
        "datetime": data.get("datetime"),
        "version": data.get("version"),
    }
    host = str(machine.get("node") or "")
    for text in _strings(out):
        if ABSOLUTE_PATH.search(text):
            raise ResultsError(f"an absolute path would be kept: {text!r}")
        if len(host) > 2 and re.search(rf"(?<!\w){re.escape(host)}(?!\w)", text):
            raise ResultsError(f"the host name {host!r} would be kept: {text!r}")
    return out


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def write_json(path: Path, value: Any) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table or keep a file; 0 when that could be done, 2 when a file is missing or damaged."""
    parser = argparse.ArgumentParser(prog="bench/summary.py", description="One table from pytest-benchmark's JSON.")
    parser.add_argument("results", nargs="*", type=Path, help="results file or folder")
    parser.add_argument("--markdown", action="store_true", help="print the table in GitHub's markdown")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="compare two results")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write a slim copy to the committed results")
    parser.add_argument("--into", type=Path, metavar="FILE", default=COMMITTED, help="where --keep writes it")
    options = parser.parse_args(arguments)
    if sum(map(bool, (options.results, options.compare, options.keep))) != 1:
        parser.error("name one results file, or --compare OLD NEW, or --keep FILE")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    try:
        if options.keep:
            kept = slim(load(options.keep))
            write_json(options.into, kept)
            console.print(Text(f"{len(kept['benchmarks'])} benches kept in {options.into}"), soft_wrap=True)
        if options.compare:
            old, new = map(load, options.compare)
            console.print(comparison(old, new))
            for label, data in (("old", old), ("new", new)):
                for line in machine_lines(data):
                    console.print(Text(f"{label}: {line}", style="dim"))
            if machine_lines(old)[0] != machine_lines(new)[0]:
                console.print(Text("The machines differ: these ratios compare machines, not code.", style="yellow"))
        for path in options.results:
            data = load(path)
            if options.markdown:
                print(markdown(data))
                continue
            inference = inference_table(data)
            if inference is not None:
                Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(inference)
                for line in context_lines():
                    console.print(Text(line, style="dim"))
            console.print(table(data))
            for line in machine_lines(data):
                console.print(Text(line, style="dim"))
    except ResultsError as error:
        Console(stderr=True).print(Text(str(error), style="red"))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
