"""Whether a quantised or pruned network may take the place of the one it was made from.

Both networks run over rows that calibration has not seen, from reset, and their answers are compared:

* *error*: largest and rms difference; *relative error* is the rms difference over the rms of the reference's answers
  about their means, so that a large constant does not hide a lost signal. Of several heads the worst counts, so that a
  head of large numbers does not hide a lost one of small numbers.
* *decision flips*: share of the rows whose largest output is another one (for an answer of width 1: whose sign is
  another one; for grouped softmax heads: in any group).
* *calibration shift*: confidence is the largest softmax probability. The shift is the mean difference of the two
  networks' confidences, and the *binned shift* the mean over ten bins of the reference's confidence of the absolute
  difference within the bin, weighted by rows: an expected calibration error with the reference in place of the truth.
  For answers that are probabilities, or logits; not defined for width 1.

A network that exceeds a limit is refused. Limits are part of the report. So is one that was not put to the test: the
held-out rows are those it was calibrated on, or the reference itself answers with a constant or not with numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, ModelLoadingError
from tengri_fast.inference.calibrate import FloatArray, rows_sha256, sequences
from tengri_fast.inference.canonical import write_canonical
from tengri_fast.inference.evaluate import evaluate
from tengri_fast.inference.network import WEIGHTED, Network

__all__ = ["DECISIONS", "Acceptance", "Limits", "accept", "weight_bytes"]

DECISIONS = ("auto", "argmax", "sign", "none")
MIN_HELD_OUT = 64
BINS = 10
ROUNDS = 6
TIMED = 4_000
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int8a16": 1}

Rows = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Limits:
    """Largest values that are accepted; None: not judged."""

    flips: float | None = 0.01
    """Share of rows with another decision."""
    relative_error: float | None = 0.05
    """rms difference over the rms of the reference about its mean."""
    calibration_shift: float | None = 0.02
    """Binned shift of the confidence."""
    max_error: float | None = None
    """Largest absolute difference of one output."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None and not 0.0 <= value < float("inf"):
                raise ConfigurationError(f"limit `{entry.name}` must be >= 0 and finite, was {value}")


@dataclass(frozen=True)
class Acceptance:
    """What :func:`accept` found."""

    blessed: bool
    refusals: tuple[str, ...]
    limits: Limits
    engine: str
    """"native", or "reference" (NumPy) where the native engine cannot run one of the two; then why."""
    engine_note: str
    rows: int
    rows_sha256: str
    decision: str
    max_error: float
    rms_error: float
    relative_error: float
    flips: float | None
    flipped_rows: int | None
    confidence_before: float | None
    confidence_after: float | None
    calibration_shift: float | None
    confidence_bins: tuple[tuple[float, int, float, float], ...]
    """Per bin: lower edge, rows, mean confidence before and after."""
    error_quantiles: tuple[tuple[float, float], ...]
    """Quantile and absolute error over all outputs."""
    bytes_before: int
    bytes_after: int
    """Of the ONNX artefacts."""
    weight_bytes_before: int
    weight_bytes_after: int
    parameters_before: int
    parameters_after: int
    latency_before: dict[str, float] | None
    latency_after: dict[str, float] | None
    """p50 and p99 of finish and of the whole step in nanoseconds, interleaved rounds; None without the native engine.
    """

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def weight_bytes(network: Network) -> tuple[int, int]:
    """Bytes of all weights in their formats, scales included, and the number of weights."""
    total = count = 0
    for node in network.nodes:
        matrices = WEIGHTED.get(node.layer.kind, ())
        for entry in fields(node.layer):
            value = getattr(node.layer, entry.name)
            if not isinstance(value, np.ndarray):
                continue
            count += value.size
            total += value.size * (_BYTES[node.format] if entry.name in matrices else 4)
        total += sum(4 * matrix.scale.shape[-1] for matrix in node.matrices.values()) + 4 * len(node.scales)
    return total, count


def accept(
    before: Network,
    after: Network,
    rows: npt.ArrayLike | Sequence[npt.ArrayLike],
    *,
    limits: Limits | None = None,
    decision: str = "auto",
    timed: int = TIMED,
    progress: Progress | None = None,
) -> Acceptance:
    """Compare two networks on held-out rows.

    Parameters
    ----------
    before, after : Network
        The reference, and what is to take its place.
    rows : array_like of shape [T, input_size], or a sequence of such
        Held-out rows in time order, each stretch from reset.
    limits : Limits, optional
        What is accepted.
    decision : {"auto", "argmax", "sign", "none"}
        What the answer decides; auto: the largest output, or the sign of a single one.
    timed : int, default 4000
        Steps timed in all; 0: none.
    progress : callable, optional
        Told what is being done, and steps done and in all.

    Raises
    ------
    ConfigurationError
        If the rows or an option break a rule.
    ModelLoadingError
        If the networks differ in input or output width.
    """
    limits = Limits() if limits is None else limits
    if (before.input_size, before.output_size) != (after.input_size, after.output_size):
        raise ModelLoadingError(
            f"`after` must take {before.input_size} features and give {before.output_size} values, as before, was "
            f"{after.input_size} and {after.output_size}"
        )
    if decision not in DECISIONS:
        raise ConfigurationError(f"`decision` must be one of {', '.join(DECISIONS)}, was {decision!r}")
    if decision == "auto":
        decision = "sign" if before.output_size == 1 else "argmax"
    if decision == "argmax" and before.output_size == 1:
        raise ConfigurationError("`decision` must be sign or none for an answer of width 1, was 'argmax'")
    parts = sequences(before, rows, what="held-out rows", least=MIN_HELD_OUT)
    runners, note = _runners(before, after)
    answers: list[Rows] = []
    done, total = 0, 2 * len(parts)
    for runner in runners:
        made = []
        for part in parts:
            made.append(runner(part))
            done += 1
            if progress is not None:
                progress("comparing answers", done, total)
        answers.append(np.concatenate(made))
    y, z = answers
    latency = _latency(before, after, parts[0], timed, progress) if not note and timed else (None, None)
    return _judge(before, after, y, z, limits, decision, note, latency, parts)


def _runners(before: Network, after: Network) -> tuple[list[Callable[[FloatArray], Rows]], str]:
    """How to run the two, and why not natively."""
    try:
        from tengri_fast.inference.session import Model

        models = [Model.from_network(before), Model.from_network(after)]
    except (ImportError, ModelLoadingError) as error:
        return [lambda x: evaluate(before, x), lambda x: evaluate(after, x)], str(error)
    return [lambda x, m=model: np.asarray(m.run_window(x), np.float64) for model in models], ""  # type: ignore[misc]


def _heads(network: Network, y: Rows) -> list[Rows]:
    """The answer as heads that each decide."""
    layer: Any = network.nodes[network.output].layer
    if layer.activation == "softmax":
        return np.split(y, getattr(layer, "softmax_groups", 1), axis=1)
    widths = [width for _, width in network.outputs]
    if len(widths) > 1 and sum(widths) == y.shape[1]:
        return np.split(y, np.cumsum(widths)[:-1], axis=1)
    return [y]


def _relative_error(before: Sequence[Rows], after: Sequence[Rows]) -> float:
    """rms error over the spread of the head for which it is largest; a head that never moves is held to all of them."""
    whole = float(np.sqrt(np.mean(np.concatenate([(y - y.mean(axis=0)) ** 2 for y in before], axis=1))))
    found = []
    for y, z in zip(before, after, strict=True):
        rms = float(np.sqrt(np.mean((z - y) ** 2)))
        spread = float(np.sqrt(np.mean((y - y.mean(axis=0)) ** 2))) or whole
        found.append(rms / spread if spread else (0.0 if rms == 0.0 else float("inf")))
    return float(np.max(found))  # NaN stays NaN, and no limit is met


def _probable(y: Rows) -> bool:
    """Whether rows are probabilities already, wherever in the network they became so."""
    return bool((y >= 0.0).all() and (np.abs(y.sum(axis=1) - 1.0) < 1e-3).all())


def _confidence(y: Rows, probable: bool) -> npt.NDArray[np.float64]:
    """The largest probability of each row."""
    return np.asarray((y if probable else _softmax(y)).max(axis=1))


def _softmax(x: Rows) -> Rows:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _judge(
    before: Network, after: Network, y: Rows, z: Rows, limits: Limits, decision: str, note: str,
    latency: tuple[dict[str, float] | None, dict[str, float] | None], parts: Sequence[FloatArray],
) -> Acceptance:  # fmt: skip
    error = np.abs(z - y)
    finite = bool(np.isfinite(z).all())
    rms = float(np.sqrt(np.mean(error**2)))
    relative = _relative_error(_heads(before, y), _heads(before, z))
    flips = flipped = None
    shift = conf_before = conf_after = None
    bins: tuple[tuple[float, int, float, float], ...] = ()
    if decision == "sign":
        changed = (np.sign(y) != np.sign(z)).any(axis=1)
        flips, flipped = float(changed.mean()), int(changed.sum())
    elif decision == "argmax":
        pairs = list(zip(_heads(before, y), _heads(before, z), strict=True))
        wide = [(a, b) for a, b in pairs if a.shape[1] > 1]
        narrow = [(a, b) for a, b in pairs if a.shape[1] == 1]
        changed = np.zeros(len(y), bool)
        for a, b in wide:
            changed |= a.argmax(axis=1) != b.argmax(axis=1)
        for a, b in narrow:
            changed |= (np.sign(a) != np.sign(b))[:, 0]
        flips, flipped = float(changed.mean()), int(changed.sum())
        if wide and finite and np.isfinite(y).all():
            probable = [_probable(a) for a, _ in wide]
            p = np.concatenate([_confidence(a, done) for (a, _), done in zip(wide, probable, strict=True)])
            q = np.concatenate([_confidence(b, done) for (_, b), done in zip(wide, probable, strict=True)])
            conf_before, conf_after = float(p.mean()), float(q.mean())
            bins = _bins(p, q)
            shift = sum(count * abs(b - a) for _, count, a, b in bins) / len(p)
    refusals = [] if finite else ["the answers must be finite on the held-out rows, were not"]
    if not np.isfinite(y).all():
        refusals.append("the reference's answers must be finite on the held-out rows, were not")
    elif not np.ptp(y, axis=0).any():
        refusals.append("the reference's answers must vary over the held-out rows, were constant")
    digest = rows_sha256(parts)
    if digest in (after.metadata.get("calibration_sha256"), after.metadata.get("pruning_rows_sha256")):
        refusals.append("the held-out rows must not be those of the calibration, were the same")
    largest = float(error.max())
    for name, value, text in (
        ("flips", flips, "decision flips"),
        ("relative_error", relative, "relative rms error"),
        ("calibration_shift", shift, "binned calibration shift"),
        ("max_error", largest, "largest error"),
    ):
        limit = getattr(limits, name)
        if limit is not None and value is not None and not value <= limit:
            refusals.append(f"{text} must be <= {limit:g}, was {value:.4g}")
    sizes = [len(write_canonical(network)) if _writable(network) else 0 for network in (before, after)]
    (bytes_before, count_before), (bytes_after, count_after) = weight_bytes(before), weight_bytes(after)
    quantiles = (0.5, 0.9, 0.99, 0.999, 1.0)
    return Acceptance(
        not refusals, tuple(refusals), limits, "reference" if note else "native", note, len(y), digest,
        decision, largest, rms, relative, flips, flipped, conf_before, conf_after, shift, bins,
        tuple((q, float(np.quantile(error, q))) for q in quantiles), sizes[0], sizes[1], bytes_before, bytes_after,
        count_before, count_after, *latency,
    )  # fmt: skip


def _writable(network: Network) -> bool:
    return all(getattr(node.layer, "stride", 1) == 1 for node in network.nodes)


def _bins(p: Rows, q: Rows) -> tuple[tuple[float, int, float, float], ...]:
    at = np.minimum((p * BINS).astype(int), BINS - 1)
    rows = []
    for index in range(BINS):
        inside = at == index
        if inside.any():
            rows.append((index / BINS, int(inside.sum()), float(p[inside].mean()), float(q[inside].mean())))
    return tuple(rows)


def _latency(
    before: Network, after: Network, rows: FloatArray, timed: int, progress: Progress | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Both models in turn, so that a busy neighbour meets both."""
    from tengri_fast.inference.session import Model

    window = min(filter(None, (before.max_steps, after.max_steps)), default=None)
    sessions = [Model.from_network(network).session(window=window) for network in (before, after)]
    times: list[list[npt.NDArray[np.float64]]] = [[], []]
    steps = max(1, timed // ROUNDS)
    for number in range(ROUNDS):
        for which, session in enumerate(sessions):
            times[which].append(_time(session, rows, steps))
        if progress is not None:
            progress("timing", number + 1, ROUNDS)
    found = []
    for rounds in times:
        both = np.concatenate(rounds)
        whole = both.sum(axis=1)
        found.append(
            {
                "finish_p50": float(np.quantile(both[:, 0], 0.5)),
                "finish_p99": float(np.quantile(both[:, 0], 0.99)),
                "step_p50": float(np.quantile(whole, 0.5)),
                "step_p99": float(np.quantile(whole, 0.99)),
            }
        )
    return found[0], found[1]


def _time(session: Any, rows: FloatArray, steps: int) -> npt.NDArray[np.float64]:
    """Nanoseconds of finish and of prepare, shape [steps, 2]."""
    if hasattr(session, "time_steps"):
        return np.asarray(session.time_steps(rows, steps), np.float64).T
    out = np.empty((steps, 2))
    clock = time.perf_counter_ns
    for step in range(steps):
        row = rows[step % len(rows)]
        start = clock()
        session.finish(row)
        middle = clock()
        session.prepare()
        out[step] = middle - start, clock() - middle
    return out
