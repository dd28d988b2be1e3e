"""Smaller networks: whole units removed by saliency, or weights set to zero in an N:M pattern.

*Structured* pruning removes hidden units of LSTM and GRU layers, channels of dense and convolution layers and attention
heads, each with everything that belongs to it (:mod:`tengri_fast.inference.channels`), so the result is a smaller
network that any backend runs faster.

*Saliency* of a unit, after calibration rows ran through the network:

* ``activation``: what its removal takes from the sums of its readers, ``sqrt(sum over readers of var(a) * |W
  column|^2)``; first order in the unit's activation. The variance and not the mean square counts, since the mean of a
  removed unit is added to its readers' biases (``compensate``; without it the mean square is taken).
* ``magnitude``: norm of the weights that make it times norm of the weights that read it; needs no data.

Units compete only within their family, so no layer is starved.

*N:M* keeps the N most salient of every M consecutive inputs of each output channel, ``|w| * rms(input)``, and zeroes
the rest.

Sources: Molchanov et al. 2017 and 2019 (first-order saliency), Sun et al. 2024 (|w| * norm of the input), Mishra et al.
2021 (2:4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, ModelLoadingError
from tengri_fast.inference.calibrate import FloatArray, Progress, rows_sha256, sequences
from tengri_fast.inference.channels import Channels, Family, cut
from tengri_fast.inference.evaluate import evaluate
from tengri_fast.inference.network import WEIGHTED, Network, Node
from tengri_fast.inference.quantize import require_float

__all__ = ["KINDS", "SALIENCIES", "FamilyReport", "PruneReport", "prune"]

SALIENCIES = ("activation", "magnitude")
KINDS = ("units", "channels", "heads")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FamilyReport:
    """What became of one family of units, or, for N:M, of one matrix."""

    name: str
    kind: str
    before: int
    after: int
    """Units, or weights that are not zero."""
    saliency_removed: float
    """Share of the family's saliency that went."""


@dataclass(frozen=True)
class PruneReport:
    """How a network was pruned."""

    structure: str
    """"units", or the pattern "N:M"."""
    saliency: str
    target: float | None
    units: int | None
    align: int
    compensate: bool
    rows: int
    calibration_sha256: str
    source_sha256: str
    families: tuple[FamilyReport, ...]
    parameters_before: int
    parameters_after: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class _Moments:
    """Sums of every layer's rows and of the hidden cells behind a projection, and of what meets each matrix."""

    def __init__(self, network: Network, parts: Sequence[FloatArray], progress: Progress | None) -> None:
        self.sums: dict[tuple[int, str], list[Any]] = {}
        done, total = 0, sum(len(part) for part in parts)
        for part in parts:
            evaluate(network, part, self._add)
            done += len(part)
            if progress is not None:
                progress(done, total)

    def _add(self, index: int, key: str, values: npt.NDArray[np.float64]) -> None:
        rows = values.reshape(len(values), -1)
        held = self.sums.setdefault((index, key), [0, 0.0, 0.0])
        held[0] += len(rows)
        held[1] = held[1] + rows.sum(axis=0)
        held[2] = held[2] + (rows * rows).sum(axis=0)

    def mean(self, index: int, key: str) -> Array:
        count, first, _ = self.sums[index, key]
        return np.asarray(first / count)

    def square(self, index: int, key: str) -> Array:
        count, _, second = self.sums[index, key]
        return np.asarray(second / count)

    def variance(self, index: int, key: str) -> Array:
        mean = self.mean(index, key)
        return np.asarray(np.maximum(self.square(index, key) - mean * mean, 0.0))


def prune(
    network: Network,
    rows: npt.ArrayLike | Sequence[npt.ArrayLike] | None = None,
    *,
    target: float | None = None,
    units: int | None = None,
    pattern: str | None = None,
    saliency: str = "activation",
    kinds: Sequence[str] = KINDS,
    keep: Sequence[str] = (),
    align: int = 16,
    compensate: bool = True,
    progress: Progress | None = None,
) -> tuple[Network, PruneReport]:
    """A pruned network.

    Parameters
    ----------
    network : Network
        With float32 weights throughout: prune first, then quantise.
    rows : array_like of shape [T, input_size], or a sequence of such, optional
        Calibration rows in time order, each stretch from reset. Needed for the ``activation`` saliency.
    target : float, optional
        Share of each family's units to remove, in (0, 1).
    units : int, optional
        Units and channels to keep in each family; heads are left alone. Give one of `target`, `units`, `pattern`.
    pattern : str, optional
        "N:M", such as "2:4" or "4:8".
    saliency : {"activation", "magnitude"}
        What decides.
    kinds : sequence of str
        Of "units" (LSTM, GRU), "channels" (dense, convolution), "heads".
    keep : sequence of str
        Names of layers whose units all stay (for a pattern: whose weights all stay).
    align : int, default 16
        Units and channels left are a multiple of this where there are more than that many: the engine computes blocks
        of 16 rows, and 17 units cost as much as 32.
    compensate : bool, default True
        Add the mean of what is removed to the readers' biases.
    progress : callable, optional
        Told rows done and rows in all.

    Returns
    -------
    Network
    PruneReport

    Raises
    ------
    ModelLoadingError
        If the network is quantised, or a name in `keep` is unknown.
    ConfigurationError
        If an option or the rows break a rule, or nothing can be pruned.
    """
    require_float(network, "pruned")
    if sum(option is not None for option in (target, units, pattern)) != 1:
        raise ConfigurationError("one of `target`, `units` and `pattern` must be given")
    if target is not None and not 0.0 < target < 1.0:
        raise ConfigurationError(f"`target` must lie in (0, 1), was {target}")
    if units is not None and units < 1:
        raise ConfigurationError(f"`units` must be >= 1, was {units}")
    if align < 1:
        raise ConfigurationError(f"`align` must be >= 1, was {align}")
    if saliency not in SALIENCIES:
        raise ConfigurationError(f"`saliency` must be one of {', '.join(SALIENCIES)}, was {saliency!r}")
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigurationError(f"`kinds` must be of {', '.join(KINDS)}, was {kind!r}")
    known = {node.layer.name for node in network.nodes}
    for name in keep:
        if name not in known:
            raise ModelLoadingError(f"`keep` must name layers ({', '.join(sorted(known))}), was {name!r}")
    if rows is None and saliency == "activation":
        raise ConfigurationError("`rows` must be given for saliency `activation`, was None")
    parts = [] if rows is None else sequences(network, rows, what="calibration rows")
    moments = _Moments(network, parts, progress) if parts else None
    if pattern is not None:
        made, families = _masked(network, pattern, moments if saliency == "activation" else None, keep)
        notes = [f"The engine multiplies zeros too: a {pattern} pattern changes neither its speed nor its size."]
    else:
        compensate = compensate and moments is not None
        made, families = _structured(network, moments, target, units, saliency, kinds, keep, align, compensate)
        notes = []
    source = network.metadata.get("source_sha256", network.sha256())
    digest = rows_sha256(parts) if parts else ""
    made = replace(made, metadata={**network.metadata, "source_sha256": source, "pruning": pattern or "units",
                                   **({"pruning_rows_sha256": digest} if parts else {})})  # fmt: skip
    report = PruneReport(
        pattern or "units", saliency, target, units, align, compensate and pattern is None,
        sum(len(part) for part in parts), digest, source, tuple(families), _parameters(network), _parameters(made),
        tuple(notes),
    )  # fmt: skip
    return made, report


def _parameters(network: Network) -> int:
    return sum(
        int(np.count_nonzero(value)) if value.ndim > 1 else value.size
        for node in network.nodes
        for value in vars(node.layer).values()
        if isinstance(value, np.ndarray)
    )


def _structured(
    network: Network, moments: _Moments | None, target: float | None, units: int | None, saliency: str,
    kinds: Sequence[str], keep: Sequence[str], align: int, compensate: bool,
) -> tuple[Network, list[FamilyReport]]:  # fmt: skip
    channels = Channels(network)
    values = _saliency(network, channels, moments, saliency, compensate)
    removed: set[int] = set()
    reports = []
    held: set[int] = set()
    for index, node in enumerate(network.nodes):
        if node.layer.name in keep:
            held.update(channels.rows[index].tolist(), channels.inner.get(index, channels.rows[index]).tolist())
    for family in channels.families:
        count = len(family.units)
        left = _left(family, count, target, units, align)
        if family.kind not in kinds or left >= count or held & set(family.units):
            continue
        order = sorted(family.units, key=lambda unit: (values[unit], unit))
        going = order[: count - left]
        removed.update(going)
        total = sum(values[unit] ** 2 for unit in family.units)
        share = sum(values[unit] ** 2 for unit in going) / total if total else 0.0
        reports.append(FamilyReport(family.name, family.kind, count, left, float(share)))
    if not removed:
        sizes = ", ".join(f"{family.name} {len(family.units)}" for family in channels.families) or "none"
        raise ConfigurationError(f"`target` or `units` must remove something, did not (families that can go: {sizes})")
    if compensate and moments is not None:
        network = _compensated(network, channels, moments, removed)
    return cut(network, channels, removed), reports


def _left(family: Family, count: int, target: float | None, units: int | None, align: int) -> int:
    if units is not None:
        return count if family.kind == "heads" else min(units, count)
    assert target is not None
    left = max(1, count - round(count * target))
    if family.kind != "heads" and align > 1 and count > align:
        left = min(count, max(align, round(left / align) * align))
    return left


def _readers(node: Node) -> list[tuple[str, int | None, Array]]:
    """Matrices of a node that read a row: key of the moments, which input (None: own state), weights [out, values]."""
    layer: Any = node.layer
    kind = layer.kind
    if kind == "dense":
        return [("input", 0, layer.w)]
    if kind == "lstm":
        return [("input", 0, layer.w), ("state", None, layer.r)]
    if kind == "gru":
        return [("input", 0, layer.w), ("state", None, layer.r)]
    if kind == "conv" and layer.groups == 1:
        return [("input", 0, _conv_columns(layer))]
    return []


def _conv_columns(layer: Any) -> Array:
    """Weights [taps * out * output levels, levels * channels]: what each input value meets."""
    taps, out = layer.w.shape[:2]
    full = np.zeros((taps * out * layer.output_levels, layer.input_size))
    flat = layer.w.reshape(taps * out, -1)
    for level in range(layer.output_levels):
        first = level * layer.level_stride * layer.channels
        full[level * taps * out : (level + 1) * taps * out, first : first + flat.shape[1]] = flat
    return full


def _saliency(network: Network, channels: Channels, moments: _Moments | None, saliency: str, compensate: bool) -> Array:
    """By unit."""
    size = 1 + max(int(ids.max()) for table in (channels.rows, channels.inner) for ids in table.values())
    read, made = np.zeros(size), np.zeros(size)
    by_data = saliency == "activation" and moments is not None
    for i, node in enumerate(network.nodes):
        layer: Any = node.layer
        for key, which, weights in _readers(node):
            ids = channels.rows[i] if which is None else channels.rows[node.inputs[which]]
            energy = (weights.astype(np.float64) ** 2).sum(axis=0)
            if by_data:
                assert moments is not None
                energy = energy * (moments.variance(i, key) if compensate else moments.square(i, key))
            np.add.at(read, ids, energy)
        if i in channels.inner:
            energy = (layer.projection.astype(np.float64) ** 2).sum(axis=0)
            if by_data:
                assert moments is not None
                energy = energy * moments.square(i, "projection")
            np.add.at(read, channels.inner[i], energy)
        makers = _makers(layer)
        if makers is not None:
            np.add.at(made, channels.inner.get(i, channels.rows[i]), makers)
    return np.sqrt(read) if by_data else np.sqrt(read * made)


def _makers(layer: Any) -> Array | None:
    """Squared norm of the weights that make each value of the row (or hidden cell)."""
    if layer.kind == "dense":
        return np.asarray((layer.w.astype(np.float64) ** 2).sum(axis=1))
    if layer.kind in ("lstm", "gru"):
        gates = 4 if layer.kind == "lstm" else 3
        both = (layer.w.astype(np.float64) ** 2).sum(axis=1) + (layer.r.astype(np.float64) ** 2).sum(axis=1)
        return np.asarray(both.reshape(gates, -1).sum(axis=0))
    if layer.kind == "conv":
        return np.tile((layer.w.astype(np.float64) ** 2).sum(axis=(0, 2)), layer.output_levels)
    return None


def _compensated(network: Network, channels: Channels, moments: _Moments, removed: set[int]) -> Network:
    """Biases that hold what the removed units gave on average."""
    gone = np.array(sorted(removed), np.int64)
    nodes = list(network.nodes)
    for i, node in enumerate(network.nodes):
        layer: Any = node.layer
        changes: dict[str, Array] = {}
        for key, which, weights in _readers(node):
            ids = channels.rows[i] if which is None else channels.rows[node.inputs[which]]
            lost = np.isin(ids, gone)
            if not lost.any():
                continue
            shift = weights[:, lost].astype(np.float64) @ moments.mean(i, key)[lost]
            target = "bias"
            if layer.kind == "gru" and key == "state":
                target = "recurrent_bias"
                if not layer.reset_after:  # the candidate reads r * h, whose mean was not taken
                    shift[2 * layer.output_size :] = 0.0
            elif layer.kind == "conv":  # the mean over output levels: they share a bias
                shift = shift.reshape(layer.output_levels, layer.taps, -1).sum(axis=1).mean(axis=0)
            changes[target] = (changes.get(target, getattr(layer, target)) + shift).astype(np.float32)
        if changes:
            nodes[i] = replace(node, layer=replace(layer, **changes))
    return replace(network, nodes=tuple(nodes))


def _masked(
    network: Network, pattern: str, moments: _Moments | None, keep: Sequence[str]
) -> tuple[Network, list[FamilyReport]]:
    match = re.fullmatch(r"([0-9]{1,3}):([0-9]{1,3})", pattern)
    kept, block = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < kept < block <= 64:
        raise ConfigurationError(f"`pattern` must be N:M with 0 < N < M <= 64, was {pattern!r}")
    nodes, reports = [], []
    keys = {"w": "input", "r": "state", "projection": "projection"}
    for i, node in enumerate(network.nodes):
        layer: Any = node.layer
        changes: dict[str, Array] = {}
        for name in WEIGHTED.get(layer.kind, ()):
            weights = getattr(layer, name)
            if weights is None or layer.name in keep or weights.shape[-1] < block:
                continue
            size = np.ones(1) if moments is None else np.sqrt(_meets(layer, name, moments.square(i, keys[name])))
            score = np.abs(weights.astype(np.float64)) * size
            mask = _mask(score, kept, block)
            changes[name] = np.where(mask, weights, np.float32(0.0))
            total = float((score**2).sum())
            gone = float((score[~mask] ** 2).sum()) / total if total else 0.0
            reports.append(FamilyReport(f"{layer.name}.{name}", pattern, weights.size, int(mask.sum()), gone))
        nodes.append(replace(node, layer=replace(layer, **changes)) if changes else node)
    if not reports:
        raise ConfigurationError(f"`pattern` must fit a matrix: none has {block} inputs or more")
    return replace(network, nodes=tuple(nodes)), reports


def _mask(score: Array, kept: int, block: int) -> npt.NDArray[np.bool_]:
    """True for the `kept` largest of each whole block along the last axis; of equal ones the first stay."""
    whole = score.shape[-1] // block * block
    mask = np.ones(score.shape, bool)
    blocks = score[..., :whole].reshape(*score.shape[:-1], -1, block)
    order = np.argsort(-blocks, axis=-1, kind="stable")
    inside = np.zeros(blocks.shape, bool)
    np.put_along_axis(inside, order[..., :kept], True, axis=-1)
    mask[..., :whole] = inside.reshape(*score.shape[:-1], whole)
    return mask


def _meets(layer: Any, name: str, square: Array) -> Array:
    """Mean square of what each weight of the last axis is multiplied by; broadcasts over the matrix."""
    if layer.kind != "conv":
        return square
    by_channel = square.reshape(layer.levels, layer.channels).mean(axis=0)
    if layer.groups == 1:
        return np.tile(by_channel, layer.level_kernel)
    return np.repeat(by_channel.reshape(layer.groups, -1), layer.w.shape[1] // layer.groups, axis=0)
