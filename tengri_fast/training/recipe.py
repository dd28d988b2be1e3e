"""From market data to a model that ships: dataset, training in a child process, proof on unseen data, card.

The features come from the same C code that runs live. Normalisation and class returns are fitted on training rows only.
The child interpreter (``python=``, else TENGRI_TRAIN_PYTHON, else this one) needs PyTorch; everything else runs here.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tengri_fast.errors import ConfigurationError, MissingExtraError, ModelLoadingError
from tengri_fast.training.labels import class_returns, forward_returns_bps, next_move_within

if TYPE_CHECKING:
    from tengri_fast.features import FeaturePlan
    from tengri_fast.report.skill import Skill
    from tengri_fast.runtime.model_spec import ModelBundle

__all__ = ["Dataset", "Recipe", "Segment", "build_segment", "evaluate_bundle", "train", "training_python"]


@dataclass(frozen=True)
class Segment:
    """One stretch of one session.

    ``span`` takes a part of the rows, as fractions. Features are computed over the whole file first, so a part begins
    warm; labels that look past the part's end are dropped (an embargo of one horizon).
    """

    name: str
    quotes: Path | None = None
    trades: Path | None = None
    depth: Path | None = None
    span: tuple[float, float] = (0.0, 1.0)

    def files(self) -> list[Path]:
        """The files that are there."""
        return [path for path in (self.quotes, self.trades, self.depth) if path is not None]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a model, in one place.

    ``train`` segments are learnt from, ``validation`` stops the training and sets the temperature, ``test`` takes no
    part in either and is scored for the card; a recipe says in ``limits`` how often it was looked at before. With
    ``refit``, a second run learns from those segments as a whole, for the number of epochs that the first run found
    best, with the temperature that it found.
    """

    id: str
    title: str
    description: str
    licence: str
    features: tuple[str, ...]
    clock: str
    horizon: str
    train: tuple[Segment, ...]
    validation: Segment
    test: Segment
    refit: tuple[Segment, ...] = ()
    reset_on: tuple[str, ...] = ()
    hidden: int = 64
    layers: int = 2
    dropout: float = 0.1
    epochs: int = 40
    patience: int = 6
    length: int = 256
    burn_in: int = 32
    batch: int = 16
    learning_rate: float = 2e-3
    decay: float = 1e-4
    smoothing: float = 0.02
    clip: float = 5.0
    fresh_weight: float = 8.0
    golden_steps: int = 256
    seed: int = 7
    limits: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """Rows of one segment on the model's clock."""

    ts: NDArray[np.uint64]
    mid: NDArray[np.float64]
    bid_size: NDArray[np.float64]
    ask_size: NDArray[np.float64]
    rows: NDArray[np.float64]
    ready: NDArray[np.bool_]
    labels: NDArray[np.int8]
    returns_bps: NDArray[np.float64]
    weights: NDArray[np.float32]


def training_python(python: str | None = None) -> str:
    """The interpreter that trains: the argument, TENGRI_TRAIN_PYTHON, or this one if it has PyTorch.

    Raises
    ------
    MissingExtraError
        When none of them has PyTorch.
    """
    candidate = python or os.environ.get("TENGRI_TRAIN_PYTHON") or sys.executable
    try:
        done = subprocess.run([candidate, "-c", "import torch"], capture_output=True, check=False)
    except OSError as error:
        raise ConfigurationError(f"`TENGRI_TRAIN_PYTHON` must be an interpreter, was {candidate!r}: {error}") from None
    if done.returncode != 0:
        raise MissingExtraError("torch", "train", f"training with {candidate}")
    return candidate


def build_segment(segment: Segment, plan: FeaturePlan, clock: str, horizon_ns: int, fresh_weight: float) -> Dataset:
    """Features, labels and weights of one segment.

    Events that the feature engine refuses (crossed, backward, not finite) make no row, as in live running.
    """
    from tengri_fast.market import read_depth, read_quotes, read_trades
    from tengri_fast.report.skill import fresh_books

    quotes = read_quotes(segment.quotes) if segment.quotes else None
    trades = read_trades(segment.trades) if segment.trades else None
    depth = read_depth(segment.depth) if segment.depth else None
    if clock == "quote" and quotes is not None:
        bids, asks = quotes.bid_size, quotes.ask_size
    elif clock == "depth" and depth is not None:
        bids, asks = depth.bid_size[:, 0], depth.ask_size[:, 0]
    else:
        raise ConfigurationError(f"segment `{segment.name}` must name the events of the {clock!r} clock, did not")
    out = plan.compute(quotes, trades, depth, clock=clock)
    labels = next_move_within(out.ts, out.mid, horizon_ns)
    returns = forward_returns_bps(out.ts, out.mid, horizon_ns)
    weights = np.ones(len(labels), dtype=np.float32)
    weights[fresh_books(out.mid)] = fresh_weight
    first, last = (round(share * len(labels)) for share in segment.span)
    if last < len(labels):
        labels[out.ts + np.uint64(horizon_ns) > out.ts[last]] = -1
    weights[(labels < 0) | ~out.ready] = 0.0
    part = slice(first, last)
    return Dataset(
        out.ts[part],
        out.mid[part],
        bids[out.origin][part],
        asks[out.origin][part],
        out.values[part],
        out.ready[part],
        labels[part],
        returns[part],
        weights[part],
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _numbers(values: Iterable[float]) -> str:
    return "[" + ", ".join(f"{v:.17g}" if v != int(v) else f"{v:.1f}" for v in values) + "]"


def evaluate_bundle(bundle: ModelBundle, segment: Segment) -> tuple[Skill, NDArray[np.float64], Dataset]:
    """Streams the native engine over a segment and compares it with the trivial baselines on fresh books.

    Returns
    -------
    skill : Skill
    probabilities : float64 [n, 3]
        NaN where there is no signal.
    data : Dataset
    """
    from tengri_fast.report.skill import evaluate

    spec = bundle.spec
    data = build_segment(segment, bundle.plan, spec.inputs.clock, spec.outputs.horizon_value, 1.0)
    x = normalise(data.rows, np.array(spec.normalisation.mean), np.array(spec.normalisation.scale),
                  spec.normalisation.clip)  # fmt: skip
    z = np.full((len(x), 3), np.nan)
    rows = np.flatnonzero(data.ready)
    z[rows] = bundle.model.run_window(np.ascontiguousarray(x[rows])) / spec.calibration.temperature
    z -= z.max(axis=1, keepdims=True)
    probabilities = np.exp(z)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return evaluate(data.mid, data.bid_size, data.ask_size, probabilities), probabilities, data


def normalise(
    rows: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64], clip: float
) -> NDArray[np.float32]:
    """The plan's normalisation on an array: in double, cast to float32 last."""
    z = (rows - mean) / scale
    if clip > 0:
        z = np.clip(z, -clip, clip)
    return z.astype(np.float32)


def _fit(recipe: Recipe, folder: Path, data: list[Dataset], validation: int, x: list[NDArray[np.float32]],
         python: str | None, log: Callable[[str], None], **changes: Any) -> dict[str, Any]:  # fmt: skip
    """Runs the child and returns what it reports; ``validation`` -1 learns from all, for a given number of epochs."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch)
        arrays: dict[str, Any] = {"segments": len(data), "validation": validation}
        for i, (item, rows) in enumerate(zip(data, x, strict=True)):
            use = item.ready
            arrays |= {f"x{i}": rows[use], f"y{i}": item.labels[use], f"w{i}": item.weights[use]}
        np.savez(store / "data.npz", **arrays)
        request = {
            "data": str(store / "data.npz"), "onnx": str(folder / "model.onnx"), "golden": str(folder / "golden.npz"),
            "result": str(store / "result.json"), "seed": recipe.seed, "hidden": recipe.hidden,
            "layers": recipe.layers, "dropout": recipe.dropout, "epochs": recipe.epochs, "patience": recipe.patience,
            "length": recipe.length, "batch": recipe.batch, "burn_in": recipe.burn_in,
            "learning_rate": recipe.learning_rate, "decay": recipe.decay, "smoothing": recipe.smoothing,
            "golden_steps": recipe.golden_steps, **changes,
        }  # fmt: skip
        (store / "request.json").write_text(json.dumps(request), encoding="utf-8")
        command = [training_python(python), str(Path(__file__).with_name("fit.py")), str(store / "request.json")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            said = []
            for line in child.stdout or ():
                said.append(line.rstrip())
                if line.startswith(("epoch", "stopped")):
                    log(line.rstrip())
        if child.returncode != 0:
            raise ModelLoadingError("training failed:\n" + "\n".join(said[-20:]))
        result: dict[str, Any] = json.loads((store / "result.json").read_text(encoding="utf-8"))
    return result


def _statistics(
    data: Sequence[Dataset],
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float, float]]:
    """Mean and scale of the features, and mean return of the classes, over the ready rows."""
    rows = np.concatenate([item.rows[item.ready] for item in data])
    scale = rows.std(axis=0)
    scale[scale < 1e-12] = 1.0
    labels = np.concatenate([item.labels[item.ready] for item in data])
    returns = np.concatenate([item.returns_bps[item.ready] for item in data])
    return rows.mean(axis=0), scale, class_returns(labels, returns)


def train(
    recipe: Recipe, folder: str | Path, python: str | None = None, log: Callable[[str], None] = print
) -> ModelBundle:
    """Trains a recipe and writes ``model.onnx``, ``golden.npz``, ``model.toml`` and ``CARD.md`` into ``folder``.

    Returns
    -------
    ModelBundle
        As loaded back from the files, so every check has passed.
    """
    from tengri_fast.features import FeaturePlan, parse_spec
    from tengri_fast.runtime.durations import parse_duration
    from tengri_fast.runtime.model_spec import load_bundle

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    horizon = parse_duration(recipe.horizon)
    plan = FeaturePlan([parse_spec(text) for text in recipe.features])
    log(f"{recipe.id}: {plan.width} features, horizon {recipe.horizon}")

    def load(segments: Sequence[Segment]) -> list[Dataset]:
        loaded = [build_segment(s, plan, recipe.clock, horizon, recipe.fresh_weight) for s in segments]
        for segment, item in zip(segments, loaded, strict=True):
            fresh = int((item.weights == recipe.fresh_weight).sum())
            log(f"  {segment.name}: {len(item.ts):,} rows, {fresh:,} fresh books")
        return loaded

    # Statistics come from training rows only; the validation segment and the test segment do not take part.
    segments = [*recipe.train, recipe.validation]
    data = load(segments)
    mean, scale, returns = _statistics(data[:-1])
    x = [normalise(item.rows, mean, scale, recipe.clip) for item in data]
    result = _fit(recipe, folder, data, len(data) - 1, x, python, log)
    if recipe.refit:
        log(f"again on all of it, for {result['best_epoch']} epochs")
        segments = list(recipe.refit)
        data = load(segments)
        mean, scale, returns = _statistics(data)
        x = [normalise(item.rows, mean, scale, recipe.clip) for item in data]
        _fit(recipe, folder, data, -1, x, python, log, epochs=result["best_epoch"], temperature=result["temperature"])

    hashes = {path.name: _sha256(path) for s in (*segments, recipe.test) for path in s.files()}
    feature_lines = "".join(f'  "{text}",\n' for text in recipe.features)
    toml = (
        f"# Written by train.py. Do not edit by hand: hashes and golden outputs belong together.\n"
        f'id = "{recipe.id}"\ntype = "LSTM"\ndescription = {json.dumps(recipe.description)}\n'
        f'onnx = "model.onnx"\nsha256 = "{_sha256(folder / "model.onnx")}"\n'
        f'state = "stateful"\nreset_on = {json.dumps(list(recipe.reset_on))}\nprecision = "fp32"\ndeadline_us = 100.0\n'
        f'licence = "{recipe.licence}"\n\n'
        f'[inputs]\nclock = "{recipe.clock}"\ndtype = "float32"\nfeatures = [\n{feature_lines}]\n\n'
        f"[normalisation]\nmean = {_numbers(mean)}\nscale = {_numbers(scale)}\nclip = {recipe.clip}\n\n"
        f'[outputs]\nkind = "logits"\nclasses = ["down", "flat", "up"]\nhorizon = "{recipe.horizon}"\n'
        f"class_returns_bps = {_numbers(returns)}\n\n"
        f'[calibration]\nmethod = "temperature"\ntemperature = {result["temperature"]:.9g}\n\n'
        f'[golden]\npath = "golden.npz"\ntolerance = 1e-5\n\n[data_sha256]\n'
        + "".join(f'"{name}" = "{digest}"\n' for name, digest in sorted(hashes.items()))
    )
    _write(folder / "model.toml", toml)
    bundle = load_bundle(folder)
    skill, _, _ = evaluate_bundle(bundle, recipe.test)
    _write(folder / "CARD.md", _card(recipe, bundle, result, skill, data, returns))
    log(f"  unseen {recipe.test.name}: hit rate {skill.model.rate:.3f} on {skill.moves:,} moves; "
        + ", ".join(f"{name} {value.rate:.3f}" for name, value in skill.baselines.items()))  # fmt: skip
    return bundle


def _p_value(p: float | None) -> str:
    if p is None:
        return "no p-value claimed"
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.4f}"


def _card(recipe: Recipe, bundle: ModelBundle, result: dict[str, Any], skill: Skill, data: list[Dataset],
          returns: tuple[float, float, float]) -> str:  # fmt: skip
    """The model card, from the numbers of this run."""

    def row(name: str, value: Any) -> str:
        block = "" if np.isnan(value.block_low) else f" | {value.block_low:.3f} .. {value.block_high:.3f}"
        return f"| {name} | {value.rate:.4f} | {value.low:.4f} .. {value.high:.4f}{block or ' | -'} |"

    roles = [("train", recipe.train), ("validation", (recipe.validation,))]
    if recipe.refit:
        roles = [("choice of epochs", recipe.train), ("choice of epochs, held out", (recipe.validation,)),
                 ("train", recipe.refit)]  # fmt: skip
    spans = [
        f"| {s.name} | {role} | {', '.join(p.name for p in s.files())} |"
        for role, group in [*roles, ("test, unseen", (recipe.test,))]
        for s in group
    ]
    compare = []
    for name, difference in skill.differences.items():
        p = _p_value(difference.p_value)
        compare.append(
            f"| model - {name} | {difference.rate:+.4f} | {difference.low:+.4f} .. {difference.high:+.4f} | {p} |"
        )
    notes = [*recipe.limits, *skill.notes]
    return "\n".join([
        f"# {recipe.title}", "", recipe.description, "",
        "## Data", "", "| segment | role | files |", "|---|---|---|", *spans, "",
        *[f"- {text}" for text in recipe.sources], "",
        "## Model", "",
        f"- LSTM {recipe.layers} x {recipe.hidden} and a linear head, {result['parameters']:,} parameters, "
        f"{bundle.model.nbytes:,} bytes packed, fp32; seed {recipe.seed}; torch {result['torch']}",
        f"- {bundle.plan.width} features on the {recipe.clock} clock; label: first mid move within {recipe.horizon} "
        "(down, flat, up)",
        "- mean forward return of the classes in training: " + ", ".join(f"{value:+.4f}" for value in returns) + " bps",
        f"- temperature {result['temperature']:.3f}; best held-out loss {result['best_validation']:.4f} at "
        f"epoch {result['best_epoch']}; one training run, no search over hyper-parameters",
        f"- golden outputs met within {bundle.golden_error:.2e}",
        f"- ONNX SHA-256 `{bundle.model_sha256}`", "",
        "## Unseen data: direction of the next mid move on fresh books", "",
        f"{skill.moves:,} moves, {100 * skill.up_share:.1f} % up.", "",
        "| | hit rate | 95 % Wilson | 95 % block bootstrap |", "|---|---|---|---|",
        row("**model**", skill.model), *[row(name, value) for name, value in skill.baselines.items()], "",
        "| paired | difference | 95 % block bootstrap | |", "|---|---|---|---|", *compare, "",
        f"Calibration of P(up | move): expected calibration error {skill.calibration.ece:.4f}, "
        f"Brier {skill.calibration.brier:.4f}.", "",
        "## Limits", "", *[f"- {text}" for text in notes], "",
    ])  # fmt: skip
