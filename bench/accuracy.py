"""How close each number format stays to float64, over thousands of steps of one stream.

    python bench/accuracy.py [--shapes lstm_2x64 ...] [--steps 2000] [--out FILE]

The reference is the float32 network evaluated in NumPy float64 (tengri_fast/inference/evaluate.py); the native engine
streams the same rows from reset. Integer formats are calibrated on other rows. Shapes of bench/_zoo.py see standard
normal rows; the Binance model sees its own features of the shipped sample (calibrated on a training day, scored on the
unseen one). The data of the other model does not ship: its 256 golden rows are streamed in turn, and as there are no
others the first half of them calibrates, too.

Per row: rms and largest error; rms error over the rms of the reference about its mean; decision flips (share of rows
whose largest output is another one). `beyond range` is the share of input values that an integer format clamps, and the
last column is the relative error on the same rows times ten, which nothing was calibrated for.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _zoo
from _measure import REPOSITORY, machine_info
from summary import write_json

from tengri_fast.inference import Model
from tengri_fast.inference.evaluate import evaluate
from tengri_fast.inference.layers import DenseLayer
from tengri_fast.inference.network import FORMATS, INPUT, Network, chain
from tengri_fast.inference.quantize import quantize
from tengri_fast.runtime.model_spec import load_bundle
from tengri_fast.training.recipe import Segment, build_segment, normalise

COMMITTED = Path(__file__).resolve().parent / "results" / "committed" / "accuracy.json"
SHIPPED = ("lstm_btcusdt", "lstm_rb2510")
STEPS, CALIBRATION = 2_000, 4_096
LEVELS = {"int8": 127, "int8a16": 32_767}
BEYOND = 10.0

Rows = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Subject:
    """A network, the rows it is scored on, and others to calibrate with."""

    name: str
    rows_from: str
    network: Network
    rows: Rows
    calibration: Rows


def _zoo_subject(shape: str, steps: int) -> Subject:
    rows = _zoo.rows(shape, steps)
    return Subject(shape, "standard normal", _zoo.network(shape), rows, _zoo.rows(shape, CALIBRATION, seed=5))


def _binance(date: str, bundle: Any) -> Rows:
    stem = REPOSITORY / "data" / "binance_usdm_btcusdt" / f"binance_usdm_btcusdt_{date}"
    segment = Segment(date, stem.with_suffix(".quotes.parquet"), stem.with_suffix(".trades.parquet"))
    spec = bundle.spec
    data = build_segment(segment, bundle.plan, spec.inputs.clock, spec.outputs.horizon_value, 1.0)
    scaling = spec.normalisation
    return normalise(data.rows[data.ready], np.array(scaling.mean), np.array(scaling.scale), scaling.clip)


def _shipped_subject(name: str, steps: int) -> Subject:
    folder = REPOSITORY / "models" / name
    bundle = load_bundle(folder)
    network = bundle.model.network
    assert network is not None, "the shipped models are ONNX"
    if name == "lstm_btcusdt":
        rows = _binance("20240719", bundle)[:steps]
        return Subject(name, "features of the unseen day", network, rows, _binance("20230404", bundle)[:CALIBRATION])
    with np.load(folder / "golden.npz", allow_pickle=False) as held:
        x = held["x"].astype(np.float32)
    rows = np.resize(x, (steps, x.shape[1]))
    return Subject(name, f"{len(x)} golden rows in turn", network, rows, x[: len(x) // 2])


def _subjects(names: Sequence[str], steps: int) -> Iterator[Subject]:
    for name in names:
        yield _shipped_subject(name, steps) if name in SHIPPED else _zoo_subject(name, steps)


def _relative(got: Any, want: Any) -> float:
    return float(np.sqrt(np.mean((got - want) ** 2)) / np.sqrt(np.mean((want - want.mean(axis=0)) ** 2)))


def _beyond_range(network: Network, rows: Rows) -> float | None:
    """Share of the input values that the layers reading the input clamp; None for a float format."""
    limits = [
        node.scales["input"] * LEVELS[node.format]
        for node in network.nodes
        if INPUT in node.inputs and node.format in LEVELS and "input" in node.scales
    ]
    return float((np.abs(rows) > min(limits)).mean()) if limits else None


def measure(subject: Subject) -> Iterator[dict[str, Any]]:
    """One result per number format."""
    want = evaluate(subject.network, subject.rows)
    far = (subject.rows * np.float32(BEYOND)).astype(np.float32)
    want_far = evaluate(subject.network, far)
    for number_format in FORMATS:
        network = subject.network
        if number_format != "fp32":
            rows = subject.calibration if number_format in LEVELS else None
            network = quantize(network, number_format, rows)[0]
        model = Model.from_network(network)
        error = model.run_window(subject.rows) - want
        yield {
            "model": subject.name,
            "rows": subject.rows_from,
            "steps": len(subject.rows),
            "format": number_format,
            "isa": model.isa,
            "rms": float(np.sqrt(np.mean(error**2))),
            "max": float(np.abs(error).max()),
            "relative_rms": _relative(error + want, want),
            "decision_flips": float(((error + want).argmax(axis=1) != want.argmax(axis=1)).mean()),
            "beyond_range": _beyond_range(network, subject.rows),
            "relative_rms_at_10x": _relative(model.run_window(far), want_far),
        }


def saturation() -> dict[str, bool]:
    """By format: whether rows a thousand and a million times too large give the same answer to the bit."""
    rng = np.random.default_rng(3)
    layer = DenseLayer(rng.standard_normal((4, 16)).astype(np.float32), np.zeros(4, np.float32))
    x = rng.standard_normal((CALIBRATION, 16)).astype(np.float32)
    signs = np.where(x[:64] < 0, np.float32(-1), np.float32(1))
    out = {}
    for number_format in FORMATS:
        network = chain([layer])
        if number_format != "fp32":
            network = quantize(network, number_format, x if number_format in LEVELS else None)[0]
        model = Model.from_network(network)
        thousand, million = (model.run_window(signs * np.float32(factor)) for factor in (1e3, 1e6))
        out[number_format] = bool(np.array_equal(thousand, million))
    return out


def show(results: Sequence[dict[str, Any]], saturates: dict[str, bool], console: Console) -> None:
    """The table, and which formats saturate."""
    table = Table(
        title="Accuracy against float64", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    columns = ("model", "format", "steps", "rms", "max", "relative rms", "flips", "beyond range", "relative, rows x10")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < 2 else "right", no_wrap=True)
    previous = ""
    for found in results:
        if previous and found["model"] != previous:
            table.add_section()
        beyond = found["beyond_range"]
        table.add_row(
            "" if found["model"] == previous else found["model"],
            found["format"],
            f"{found['steps']:,}",
            *(f"{found[key]:.1e}" for key in ("rms", "max", "relative_rms")),
            f"{100 * found['decision_flips']:.2f} %",
            "–" if beyond is None else f"{100 * beyond:.3f} %",
            f"{found['relative_rms_at_10x']:.1e}",
        )
        previous = found["model"]
    console.print(table)
    words = {flag: ", ".join(name for name, found in saturates.items() if found is flag) for flag in (True, False)}
    console.print(f"saturate beyond the calibrated range: {words[True] or 'none'}; do not: {words[False] or 'none'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    names = (*_zoo.SHAPES, *SHIPPED)
    parser = argparse.ArgumentParser(prog="bench/accuracy.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=names, default=list(names))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=COMMITTED)
    options = parser.parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    results: list[dict[str, Any]] = []
    for subject in _subjects(options.shapes, options.steps):
        results.extend(measure(subject))
        Console(stderr=True).print(f"{subject.name} done")
    saturates = saturation()
    show(results, saturates, console)
    write_json(
        options.out,
        {"kind": "accuracy", "machine": machine_info(), "results": results, "saturates_beyond_range": saturates},
    )
    console.print(f"written to {options.out.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
