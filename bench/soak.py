"""Minutes of use for what must not wear out: the engine on a tape that repeats, sessions, the loader, the portfolio.

    python bench/soak.py --minutes 10 [--seed 1] [--out FILE]
    python bench/soak.py --only loader --minutes 10              (one part; nothing is written without --out)
    python bench/soak.py --part loader --seed 1 --case 4711      (one mutation again)

*engine* streams the shipped sample through :class:`TengriNeuralEngine`, over and over with shifted times. Resident
memory must not grow by 1 MB after the first passes, no signal may hold a number that is not finite, and the first pass
repeated at the end must give the same signals bit by bit. Each event is timed as a Python caller sees it, beside two
controls: a call that does nothing, and a plain loop that takes about as long as the median event. Whatever stalls the
machine hits that loop as often as it hits us. ("In the engine" ends at the signal; the call goes on to prepare the next
step.)

*sessions* steps one session of every layer, in float32 and int8, up to ten million times each, in C: resident memory
stays flat, nothing is allocated, the stated bytes of a session are exact.

*loader* mutates the bytes of the shipped ``model.onnx`` and of the tests' small fixtures. Each case has a random
generator of its own, made from seed and case number. Nothing but :class:`ModelLoadingError` may come out, within five
seconds; a model that is accepted must also step.

*portfolio* sends random prices, rates, fills, orders and corrections and compares what is kept incrementally with a
revaluation from scratch, with a ledger of its own, and the decision "value at risk above the limit" with the exact
figures.

Each part runs in a process of its own: a crash is a finding like any other, and memory is that of one part. Exit status
0 when nothing was found, 1 otherwise; the result is written in both cases.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _measure import machine_info
from _soak_common import MODEL, Say, Violations
from _soak_engine import soak_engine
from _soak_loader import Corpus, Mutator, load_case, soak_loader
from _soak_portfolio import Shaker, soak_portfolio
from _soak_sessions import soak_sessions
from summary import time_text, write_json

__all__ = ["MODEL", "Corpus", "Mutator", "Shaker", "Violations", "main", "run_part"]

OUT = Path(__file__).resolve().parent / "results" / "committed" / "soak.json"
SHARES = {"engine": 0.4, "sessions": 0.2, "loader": 0.2, "portfolio": 0.2}

PARTS: dict[str, Callable[[float, int, Say], dict[str, Any]]] = {
    "engine": soak_engine,
    "sessions": soak_sessions,
    "loader": soak_loader,
    "portfolio": soak_portfolio,
}


def child(part: str, seconds: float, seed: int, mark: Path | None) -> int:
    """One part in this process: progress and result as lines of JSON."""
    handle = os.open(mark, os.O_WRONLY) if mark else -1

    def say(**values: Any) -> None:
        if values.keys() == {"case"}:  # before each case, where a crash finds it
            if handle >= 0:
                os.pwrite(handle, b"%20d" % values["case"], 0)
            return
        print(json.dumps({"progress": values}), flush=True)

    print(json.dumps({"result": PARTS[part](seconds, seed, say)}), flush=True)
    return 0


def run_part(part: str, seconds: float, seed: int) -> dict[str, Any]:
    """One part in a process of its own; a crash or a hang comes back as a violation."""
    print(f"{part}: {seconds:.0f} s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "case"
        mark.write_bytes(b"%20d" % -1)
        command = [
            sys.executable, "-X", "faulthandler", str(Path(__file__).resolve()), "--part", part,
            "--seconds", str(seconds), "--seed", str(seed), "--mark", str(mark),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        limit = 2.0 * seconds + 300.0  # what it needs, a build, and a slow machine
        guard = threading.Timer(limit, process.kill)
        guard.start()
        began, result = time.perf_counter(), None
        try:
            for line in process.stdout:
                message = json.loads(line)
                if "result" in message:
                    result = message["result"]
                else:
                    _print_progress(part, time.perf_counter() - began, message["progress"])
        finally:
            guard.cancel()
            with contextlib.suppress(ProcessLookupError):
                if sys.exc_info()[0] is not None:
                    process.kill()
            status = process.wait()
        case = int(mark.read_bytes())
    if result is None:
        text = f"the process ended with status {status}" + (f" in case {case}" if case >= 0 else "")
        if time.perf_counter() - began >= limit:
            text = f"no end after {limit:.0f} s" + (f", case {case}" if case >= 0 else "")
        result = {"seed": seed, "violations": 1, "violation_texts": [text]}
    result = {"seconds": round(time.perf_counter() - began, 1), **result}
    for text in result["violation_texts"]:
        print(f"  VIOLATION {text}", flush=True)
    return result


def _print_progress(part: str, seconds: float, values: dict[str, Any]) -> None:
    words = (
        value if isinstance(value, str)
        else f"{name.removesuffix('_ns')} {time_text(value)}" if name.endswith("_ns")
        else f"{name.replace('_', ' ')} {value:.2g}" if isinstance(value, float)
        else f"{name.replace('_', ' ')} {value:,}"
        for name, value in values.items()
    )  # fmt: skip
    print(f"  {part} {seconds:5.0f} s  {', '.join(words)}", flush=True)


def _print_latency(figures: dict[str, dict[str, int]]) -> None:
    labels = {
        "call": "tick to signal",
        "inside_engine": "  in the engine",
        "nothing": "call of nothing",
        "loop": "plain loop",
    }
    for name, label in labels.items():
        found = figures[name]
        times = (
            f"{field.replace('p999', 'p99.9')} {time_text(found[field])}" for field in ("p50", "p99", "p999", "max")
        )
        print(f"  {label:<16} {'  '.join(times)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts and write the result; 0 without violations, 1 with."""
    parser = argparse.ArgumentParser(prog="bench/soak.py", description="Minutes of use for what must not wear out.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long all parts together take (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations and the events (1)")
    parser.add_argument("--out", type=Path, help="where the result goes (results/committed/soak.json)")
    parser.add_argument("--only", choices=PARTS, help="this part alone, for all of the minutes")
    parser.add_argument("--part", choices=PARTS, help="one part in this process, result to standard output")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long --part takes")
    parser.add_argument("--case", type=int, help="with --part loader: this mutation only")
    parser.add_argument("--mark", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not (options.minutes > 0.0 and options.seconds > 0.0 and options.seed >= 0):
        parser.error("`--minutes` and `--seconds` must be > 0, `--seed` >= 0")
    if options.case is not None:
        if options.part != "loader":
            parser.error("`--case` goes with `--part loader`")
        name, data = Corpus(options.seed)(options.case)
        outcome = load_case(data)
        print(f"{name}: {outcome}")
        return 0 if outcome in ("accepted", "rejected") else 1
    if options.part:
        return child(options.part, options.seconds, options.seed, options.mark)

    started = datetime.now(UTC)
    shares = {options.only: 1.0} if options.only else SHARES
    parts = {part: run_part(part, 60.0 * options.minutes * share, options.seed) for part, share in shares.items()}
    violations = sum(part["violations"] for part in parts.values())
    result = {
        "kind": "soak",
        "started": started.isoformat(timespec="seconds"),
        "minutes": options.minutes,
        "seed": options.seed,
        "machine": machine_info(),
        "violations": violations,
        **parts,
    }
    out = options.out or (None if options.only else OUT)
    if out is not None:
        write_json(out, result)
    if "tick_to_signal_ns" in parts.get("engine", {}):
        _print_latency(parts["engine"]["tick_to_signal_ns"])
    for part, found in parts.items():
        if "accepted" in found:
            slowest = found["slowest_case_ms"]
            print(f"  {part}: {found['cases']:,} cases, {found['accepted']:,} accepted, slowest {slowest} ms")
    written = f"; {out.name} written" if out is not None else ""
    print(f"{violations} violation{'s' if violations != 1 else ''}{written}", flush=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
