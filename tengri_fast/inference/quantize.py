"""From a float network to one in a smaller number format.

int8 and int8a16: symmetric, weights with one scale per output channel, each row that meets a matrix with one scale
found by calibration (:mod:`tengri_fast.inference.calibrate`); biases, gates, norms and sums stay float32. fp16 and
bf16: the weights are rounded to nearest even. How good the result is says :mod:`tengri_fast.inference.acceptance`.

Weight scales: ``absmax`` takes the largest weight of the channel / 127; ``mse`` tries smaller thresholds too and keeps
the one with the least squared error (Banner et al. 2019 and many others: for 8 bits the gain is small, but a channel
with one outlier needs it).

Bias correction (Nagel et al. 2019): quantisation shifts the mean of a layer's sums by what can be measured on the
calibration rows; the shift is taken off the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, ModelLoadingError
from tengri_fast.inference.calibrate import (
    LARGEST,
    METHODS,
    Histogram,
    Progress,
    calibrate,
    rows_sha256,
    sequences,
)
from tengri_fast.inference.evaluate import evaluate, half_width, quantise_row
from tengri_fast.inference.network import FORMATS, SCALES, WEIGHTED, Matrix8, Network, Node
from tengri_fast.inference.network import LARGEST as LARGEST_WEIGHT

__all__ = ["WEIGHT_METHODS", "LayerReport", "QuantizationReport", "quantize", "quantize_matrix", "require_float"]

WEIGHT_METHODS = ("absmax", "mse")
SHRINK = np.arange(100, 39, -2) / 100.0
"""Thresholds tried by ``mse``, as shares of the largest weight."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer."""

    index: int
    name: str
    kind: str
    format: str
    kept: bool
    """Whether it was left in float on request."""
    scales: dict[str, float]
    absmax: dict[str, float]
    """Largest magnitude seen in calibration, by the same keys."""
    usual: dict[str, float]
    """Magnitude that 99.9 % of the calibration values do not exceed."""
    clipped: dict[str, float]
    """Share of the calibration values that saturate."""
    weight_error: dict[str, float]
    """rms error of each matrix, relative to its rms."""
    underflow: int
    """fp16 and bf16: weights that became zero."""
    bias_shift: float
    """Largest correction of a bias; 0 without bias correction."""


@dataclass(frozen=True)
class QuantizationReport:
    """How a network was quantised."""

    format: str
    method: str
    weights: str
    percentile: float
    bias_correction: bool
    rows: int
    stretches: int
    source_sha256: str
    calibration_sha256: str
    layers: tuple[LayerReport, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def require_float(network: Network, verb: str) -> None:
    """Raises ModelLoadingError if a layer of the network is quantised already."""
    for node in network.nodes:
        if node.format != "fp32":
            raise ModelLoadingError(
                f"layer `{node.layer.name}`: `format` must be fp32 to be {verb}, was {node.format}: begin with the "
                "float model"
            )


def quantize_matrix(weights: npt.ArrayLike, method: str = "mse") -> Matrix8:
    """An int8 matrix with one scale per output channel.

    Parameters
    ----------
    weights : array_like, shape [out, in] or [taps, out, in]
        Finite float weights. The taps of a convolution share the scale of their channel.
    method : {"mse", "absmax"}
        How the scale is found.

    Returns
    -------
    Matrix8
        A channel of zeros gets scale 1.
    """
    if method not in WEIGHT_METHODS:
        raise ConfigurationError(f"`weights` must be one of {', '.join(WEIGHT_METHODS)}, was {method!r}")
    w = np.asarray(weights, np.float64)
    by_channel = (w if w.ndim == 2 else w.transpose(1, 0, 2)).reshape(w.shape[-2], -1)
    absmax = np.abs(by_channel).max(axis=1)
    # A subnormal scale would lose its reciprocal; such a channel is zero for every purpose.
    absmax = np.where(absmax / 127.0 < 1e-35, 0.0, absmax)
    scale = np.where(absmax > 0, absmax / 127.0, 1.0).astype(np.float32)
    if method == "mse":
        best = np.full(len(scale), np.inf)
        chosen = scale.copy()
        for share in SHRINK:
            candidate = np.where(absmax > 0, absmax * share / 127.0, 1.0).astype(np.float32)
            values = np.clip(np.rint(by_channel / candidate[:, None]), -127, 127)
            error = ((values * candidate[:, None] - by_channel) ** 2).sum(axis=1)
            better = error < best
            best, chosen = np.where(better, error, best), np.where(better, candidate, chosen)
        scale = chosen.astype(np.float32)
    if w.ndim == 3:
        scale = np.repeat(scale[None], w.shape[0], axis=0)
    values = np.clip(np.rint(w / scale[..., None].astype(np.float64)), -127, 127).astype(np.int8)
    return Matrix8(values, scale)


def quantize(
    network: Network,
    format: str,
    rows: npt.ArrayLike | Sequence[npt.ArrayLike] | None = None,
    *,
    method: str = "mse",
    percentile: float = 99.99,
    weights: str = "mse",
    keep: Sequence[str] = (),
    bias_correction: bool = False,
    attention: bool = True,
    progress: Progress | None = None,
) -> tuple[Network, QuantizationReport]:
    """A network in another number format.

    Parameters
    ----------
    network : Network
        With float32 weights throughout.
    format : {"int8", "int8a16", "fp16", "bf16"}
        Of the result.
    rows : array_like of shape [T, input_size], or a sequence of such, optional
        Calibration rows in time order, each stretch from reset; needed by the int8 formats.
    method : {"mse", "absmax", "percentile"}
        How activation scales are found.
    percentile : float, default 99.99
        Of the magnitudes, for that method.
    weights : {"mse", "absmax"}
        How weight scales are found.
    keep : sequence of str
        Names of layers that stay in float32.
    bias_correction : bool, default False
        Take the measured shift of each layer's mean off its bias (int8 formats).
    attention : bool, default True
        int8 only: quantise queries, keys and values too.
    progress : callable, optional
        Told rows done and rows in all.

    Returns
    -------
    Network
        Its layers hold the weights as they are now, so that it is the same network once written and read back.
    QuantizationReport

    Raises
    ------
    ModelLoadingError
        If the network is quantised already, a name in `keep` is unknown, or a weight does not fit into the format.
    ConfigurationError
        If an option or the rows break a rule.
    InferenceFailed
        If the float network overflows on the rows.
    """
    require_float(network, "quantised")
    if format not in FORMATS[1:]:
        raise ConfigurationError(f"`format` must be one of {', '.join(FORMATS[1:])}, was {format!r}")
    if method not in METHODS:
        raise ConfigurationError(f"`method` must be one of {', '.join(METHODS)}, was {method!r}")
    known = {node.layer.name for node in network.nodes}
    for name in keep:
        if name not in known:
            raise ModelLoadingError(f"`keep` must name layers ({', '.join(sorted(known))}), was {name!r}")
    integer = format in LARGEST
    parts: list[npt.NDArray[np.float32]] = []
    found: dict[tuple[int, str], Histogram] = {}
    if integer:
        if rows is None:
            raise ConfigurationError(f"`rows` must be given for format {format}, was None")
        parts = sequences(network, rows, what="calibration rows")
        found = calibrate(network, parts, progress)
    nodes, reports = [], []
    for index, node in enumerate(network.nodes):
        wanted = node.layer.kind in WEIGHTED or (attention and node.layer.kind == "attention" and format == "int8")
        if not wanted or node.layer.name in keep:
            nodes.append(node)
            if wanted:
                reports.append(_report(index, node, kept=True))
        elif integer:
            made, report = _integer_node(index, node, format, found, method, percentile, weights)
            nodes.append(made)
            reports.append(report)
        else:
            made, report = _half_node(index, node, format)
            nodes.append(made)
            reports.append(report)
    if not any(report.format == format for report in reports):
        raise ConfigurationError("`keep` must leave at least one layer to quantise, kept all of them")
    metadata = {
        **network.metadata,
        "source_sha256": network.metadata.get("source_sha256", network.sha256()),
        "quantization": f"{format} method={method} weights={weights}" if integer else format,
    }
    if integer:
        metadata["calibration_sha256"] = rows_sha256(parts)
        metadata["calibration_rows"] = str(sum(len(part) for part in parts))
    made_network = replace(network, nodes=tuple(nodes), metadata=metadata)
    if integer and bias_correction:
        made_network, reports = _corrected(network, made_network, parts, reports)
    whole = QuantizationReport(
        format, method if integer else "", weights if integer else "", percentile, bias_correction and integer,
        sum(len(part) for part in parts), len(parts), metadata["source_sha256"], metadata.get("calibration_sha256", ""),
        tuple(reports), tuple(_notes(reports, format)),
    )  # fmt: skip
    return made_network, whole


def _report(index: int, node: Node, *, kept: bool = False, **changes: Any) -> LayerReport:
    blank: dict[str, Any] = {
        "scales": {},
        "absmax": {},
        "usual": {},
        "clipped": {},
        "weight_error": {},
        "underflow": 0,
        "bias_shift": 0.0,
    }
    return LayerReport(index, node.layer.name, node.layer.kind, node.format, kept, **{**blank, **changes})


def _matrices(node: Node) -> list[str]:
    return [name for name in WEIGHTED.get(node.layer.kind, ()) if getattr(node.layer, name) is not None]


def _relative(before: Array, after: Array) -> float:
    size = float(np.sqrt(np.mean(before.astype(np.float64) ** 2)))
    error = float(np.sqrt(np.mean((after.astype(np.float64) - before) ** 2)))
    return error / size if size else 0.0


def _integer_node(
    index: int,
    node: Node,
    format: str,
    found: dict[tuple[int, str], Histogram],
    method: str,
    percentile: float,
    weights: str,
) -> tuple[Node, LayerReport]:
    scales, absmax, usual, clipped = {}, {}, {}, {}
    for key in SCALES[node.layer.kind]:
        histogram = found.get((index, key))
        if histogram is None:
            continue
        scales[key] = histogram.scale(method, format, percentile)
        absmax[key] = histogram.absmax
        usual[key] = histogram.quantile(0.999)
        clipped[key] = histogram.clipped(scales[key] * LARGEST[format])
    matrices = {name: quantize_matrix(getattr(node.layer, name), weights) for name in _matrices(node)}
    error = {name: _relative(getattr(node.layer, name), matrix.dequantised()) for name, matrix in matrices.items()}
    changed: dict[str, Any] = {name: matrix.dequantised() for name, matrix in matrices.items()}
    layer = replace(node.layer, **changed)
    made = Node(layer, node.inputs, format, scales, matrices)
    return made, _report(index, made, scales=scales, absmax=absmax, usual=usual, clipped=clipped, weight_error=error)


def _half_node(index: int, node: Node, format: str) -> tuple[Node, LayerReport]:
    changes: dict[str, Array] = {}
    error, underflow = {}, 0
    for name in _matrices(node):
        before = getattr(node.layer, name)
        largest = float(np.abs(before).max())
        after = half_width(before, format)
        if largest > LARGEST_WEIGHT[format] or not np.isfinite(after).all():
            raise ModelLoadingError(
                f"layer `{node.layer.name}`: `{name}` must be at most {LARGEST_WEIGHT[format]:g} for {format}, "
                f"was {largest:g}"
            )
        changes[name] = after
        error[name] = _relative(before, after)
        underflow += int(((after == 0) & (before != 0)).sum())
    made = Node(replace(node.layer, **changes), node.inputs, format)  # type: ignore[arg-type]
    return made, _report(index, made, weight_error=error, underflow=underflow)


def _corrected(
    before: Network, after: Network, parts: Sequence[npt.NDArray[np.float32]], reports: list[LayerReport]
) -> tuple[Network, list[LayerReport]]:
    """Biases less the mean error of each layer's sums, with the float network's rows as input."""
    shifts: dict[tuple[int, str], Array] = {}
    count = sum(len(part) for part in parts)

    def observe(index: int, key: str, values: Array) -> None:
        node = after.nodes[index]
        name = {"input": "w", "state": "r"}.get(key)
        if name is None or name not in node.matrices or node.format not in LARGEST:
            return
        original = before.nodes[index].layer
        matrix = node.matrices[name]
        mean = np.asarray(values, np.float64).sum(axis=0)
        quanta = quantise_row(values, node.scales[key], node.format).sum(axis=0) * node.scales[key]
        if node.layer.kind == "conv":
            share = _conv_shift(node, original, mean, quanta)
        else:
            weights = matrix.values.astype(np.float64) * matrix.scale[:, None]
            share = getattr(original, name).astype(np.float64) @ mean - weights @ quanta
        shifts[index, name] = shifts.get((index, name), 0.0) + share / count

    for part in parts:
        evaluate(before, part, observe)
    nodes, out = list(after.nodes), {report.index: report for report in reports}
    for (index, name), shift in shifts.items():
        node = nodes[index]
        target = "recurrent_bias" if node.layer.kind == "gru" and name == "r" else "bias"
        bias = (getattr(node.layer, target) + shift).astype(np.float32)
        nodes[index] = replace(node, layer=replace(node.layer, **{target: bias}))
        largest = max(out[index].bias_shift, float(np.abs(shift).max()))
        out[index] = replace(out[index], bias_shift=largest)
    return replace(after, nodes=tuple(nodes)), list(out.values())


def _conv_shift(node: Node, original: Any, mean: Array, quanta: Array) -> Array:
    """A convolution's mean shift: every tap meets the same mean row, apart from the first few rows."""
    layer: Any = node.layer
    out, groups = layer.w.shape[1], layer.groups
    matrix = node.matrices["w"]
    weights = matrix.values.astype(np.float64) * matrix.scale[..., None]
    total = np.zeros(out)
    for level in range(layer.output_levels):
        first = level * layer.level_stride * layer.channels
        width = layer.level_kernel * layer.channels
        real = mean[first : first + width].reshape(groups, -1)
        held = quanta[first : first + width].reshape(groups, -1)
        for tap in range(layer.taps):
            exact = original.w[tap].astype(np.float64).reshape(groups, out // groups, -1)
            rounded = weights[tap].reshape(groups, out // groups, -1)
            total += (np.einsum("goc,gc->go", exact, real) - np.einsum("goc,gc->go", rounded, held)).reshape(out)
    return np.asarray(total / layer.output_levels)


def _notes(reports: Sequence[LayerReport], format: str) -> list[str]:
    notes = []
    for report in reports:
        for key, share in report.clipped.items():
            if share > 0.001:
                notes.append(
                    f"layer `{report.name}`: {100 * share:.2f} % of the calibration values of `{key}` saturate"
                )
        for key, largest in report.absmax.items():
            if largest == 0.0:
                notes.append(f"layer `{report.name}`: `{key}` was zero on every calibration row; its scale is a guess")
                continue
            held, usual = report.scales[key] * LARGEST[format], report.usual[key]
            if held < 0.1 * largest:
                notes.append(f"layer `{report.name}`: `{key}` reached {largest:g}, far beyond where it saturates now")
            elif usual > 0 and held > 20 * usual and LARGEST[format] == 127:
                notes.append(
                    f"layer `{report.name}`: `{key}` has an outlier of {largest:g} (99.9 % stay below {usual:g}), and "
                    "most of the 255 levels are spent on it: see --method percentile"
                )
        if report.underflow:
            notes.append(f"layer `{report.name}`: {report.underflow} weights became zero in {format}")
    return notes
