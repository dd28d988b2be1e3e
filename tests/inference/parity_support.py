"""What the parity tests share: a network for every layer and option, and the oracles it has to agree with.

Integer networks. A row enters an integer product as the nearest multiple of its scale. The engine's row is float32, the
oracle's float64: where the row lies almost half way between two multiples, the two may round to different sides, and
then the answers differ by what one quantum is worth. How much that is depends on the network, so it is measured on the
oracle itself: it runs again with every value moved up by :data:`MARGIN` of its range, and again with every value moved
down. Up to the first value near a tie these runs agree, and the engine has to agree with them as closely as in float;
beyond, to three times the largest difference between them so far.
"""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from inference import network_reference
from inference.networks import Builder, conv, dense, gru, lstm, rows, small

from tengri_fast.inference import evaluate as evaluation
from tengri_fast.inference import layers as L
from tengri_fast.inference.network import INPUT, Network
from tengri_fast.inference.quantize import quantize

FORMATS = ("fp32", "fp16", "bf16", "int8", "int8a16")
INTEGERS = ("int8", "int8a16")
INPUTS, STEPS, PROVEN = 9, 104, 56
MARGIN = {"int8": 1e-6, "int8a16": 4e-6}
"""A float32 row may be off by this much of its range: 1.3e-4 and 0.13 quanta."""
Array = np.ndarray[Any, np.dtype[np.float64]]

# ---------------------------------------------------------------- a network per layer and option

_Build = Callable[[Builder, np.random.Generator], Any]
_CASES: dict[str, _Build] = {}
TABLE = 0.4 * np.sin(np.arange(130)[:, None] / 1.7 ** np.arange(INPUTS))


def _case(name: str, build: _Build) -> None:
    assert name not in _CASES
    _CASES[name] = build


def _stack(*layers: Callable[[Builder, np.random.Generator], L.Layer]) -> _Build:
    def build(b: Builder, rng: np.random.Generator) -> None:
        for layer in layers:
            b.add(layer(b, rng))

    return build


def _lstm(hidden: int, projected: int = 0) -> Callable[[Builder, np.random.Generator], L.Layer]:
    return lambda b, rng: lstm(rng, b.width, hidden, projected)


def _gru(hidden: int, reset_after: bool) -> Callable[[Builder, np.random.Generator], L.Layer]:
    return lambda b, rng: gru(rng, b.width, hidden, reset_after)


def _conv(outputs: int, taps: int, activation: str = "none", **options: Any) -> Callable[..., L.Layer]:
    return lambda b, rng: conv(rng, b.width // options.get("levels", 1), outputs, taps, activation, **options)


def _dense(outputs: int, activation: str = "none", **options: Any) -> Callable[..., L.Layer]:
    return lambda b, rng: dense(rng, b.width, outputs, activation, **options)


def _attend(heads: int, kv_heads: int, window: int, position: str) -> _Build:
    return lambda b, rng: b.attend(heads, kv_heads, 6, 7, window, position)


def _norm(kind: str, beta: bool, activation: str = "none") -> Callable[..., L.Layer]:
    return lambda b, rng: L.NormLayer(
        1 + small(rng, b.width), small(rng, b.width) if beta else None, norm=kind, activation=activation
    )


def _two(make: Callable[[int], L.Layer]) -> _Build:
    def build(b: Builder, rng: np.random.Generator) -> None:
        one = b.add(dense(rng, INPUTS, 11), INPUT)
        other = b.add(dense(rng, INPUTS, 11, "tanh"), INPUT)
        b.add(make(11), one, other)

    return build


def _join(b: Builder, rng: np.random.Generator) -> None:
    for width in (5, 16):
        before, start = b.width, b.at
        branch = b.add(dense(rng, before, width, "relu"))
        b.add(L.ConcatLayer((before, width, before)), start, branch, start)
        b.add(L.SliceLayer(3, b.width - 7))


def _wavenet(b: Builder, rng: np.random.Generator) -> None:
    """Gates with residuals, their skips summed."""
    b.add(conv(rng, INPUTS, 12, 1))
    skip = None
    for power in range(4):
        start = b.at
        b.gated(12, 2, 2**power)
        gate = b.at
        out = b.add(conv(rng, 12, 8, 1), gate)
        skip = out if skip is None else b.add(L.AddLayer(8), skip, out)
        b.add(L.AddLayer(12), b.add(conv(rng, 12, 12, 1), gate), start)
    b.at = skip
    b.add(L.ActivationLayer("relu", 8))


def _tcn(b: Builder, rng: np.random.Generator) -> None:
    for power in range(4):
        b.residual(16, 3, 2**power, "relu")


def _positions(b: Builder, rng: np.random.Generator) -> None:
    b.add(L.PositionLayer(TABLE))
    b.attend(3, 3, 6, 5, 20, "none")


for _width in (1, 17, 70):
    _case(f"lstm_{_width}", _stack(_lstm(_width)))
    _case(f"gru_{_width}", _stack(_gru(_width, True)))
    _case(f"gru_before_{_width}", _stack(_gru(_width, False)))
_case("lstm_stacked", _stack(_lstm(20), _lstm(16), _lstm(5)))
_case("lstm_projected", _stack(_lstm(20, 7)))
_case("lstm_projected_stacked", _stack(_lstm(33, 16), _lstm(18, 18), _lstm(9, 1)))
_case("gru_stacked", _stack(_gru(24, True), _gru(16, False), _gru(7, True)))
for _kind in L.ACTIVATIONS:
    _case(f"dense_{_kind}", _stack(_dense(19, _kind, slope=0.2)))
    _case(f"conv_{_kind}", _stack(_conv(13, 3, _kind, slope=0.2)))
    _case(
        f"activation_{_kind}",
        _stack(lambda b, rng, k=_kind: L.ActivationLayer(k, INPUTS, 3 if k == "softmax" else 1, 0.3)),
    )
_case("conv_pointwise", _stack(_conv(21, 1)))
_case("conv_dilated", _stack(_conv(8, 4, dilation=5), _conv(8, 2, "relu", dilation=16)))
_case("conv_grouped", _stack(_conv(6, 3, groups=3)))
_case("conv_depthwise", _stack(_conv(9, 4, "silu", groups=9)))
_case("conv_depthwise_multiplied", _stack(_conv(18, 3, groups=9, dilation=2), _conv(7, 1)))
_case("conv_strided", _stack(_conv(12, 4, "silu", stride=2), _conv(12, 3, "tanh", stride=3, groups=12), _gru(8, True)))
_case("conv_strided_dilated", _stack(_conv(10, 3, stride=2, dilation=3), _lstm(8)))
_case("conv_levels", _stack(_conv(5, 3, "leaky_relu", levels=3, level_kernel=2)))
_case("conv_levels_strided", _stack(_conv(6, 2, levels=9, level_kernel=3, level_stride=3, dilation=2)))
_case("conv_levels_time_strided", _stack(_conv(4, 2, "relu", levels=3, level_kernel=3, stride=2)))
_case(
    "deeplob",
    _stack(
        _conv(4, 1, "leaky_relu", levels=9, level_kernel=2, level_stride=1),
        _conv(5, 4, "leaky_relu", levels=8, level_kernel=2, level_stride=2),
        _conv(6, 2, "tanh", levels=4, level_kernel=4),
        _lstm(16),
    ),
)
_case("tcn", _tcn)
_case("wavenet", _wavenet)
for _position in L.POSITIONS:
    for _heads, _kv, _window in ((2, 2, 1), (4, 4, 7), (4, 2, 16), (4, 2, 33), (6, 1, 300)):
        _case(f"attention_{_position}_{_heads}x{_kv}_{_window}", _attend(_heads, _kv, _window, _position))
for _kind in L.NORMS:
    for _beta in (True, False):
        _case(f"norm_{_kind}_{'beta' if _beta else 'plain'}", _stack(_norm(_kind, _beta)))
_case("norm_gelu", _stack(_norm("layer", True, "gelu")))
for _kind in ("none", "relu", "softmax", "gelu"):
    _case(f"affine_{_kind}", _stack(lambda b, rng, k=_kind: L.AffineLayer(1 + small(rng, 9), small(rng, 9), k)))
    _case(f"add_{_kind}", _two(lambda width, k=_kind: L.AddLayer(width, k)))
    _case(f"mul_{_kind}", _two(lambda width, k=_kind: L.MulLayer(width, k)))
for _kind in L.POOLS:
    for _window in (1, 6, 200):
        _case(f"pool_{_kind}_{_window}", _stack(lambda b, rng, k=_kind, n=_window: L.PoolLayer(b.width, n, k)))
_case("pool_mean_full", _stack(lambda b, rng: L.PoolLayer(b.width, 6, "mean", partial=False)))
_case("concat_slice", _join)
_case("positions", _positions)
_case("horizons", _stack(_dense(20, "relu"), _dense(6, "softmax", softmax_groups=2)))
CASES = tuple(_CASES)


@functools.cache
def case(name: str) -> Network:
    """The float32 network of a case: the layer in question, and a head."""
    rng = np.random.default_rng(len(name) + sum(name.encode()))
    b = Builder(rng, INPUTS)
    _CASES[name](b, rng)
    if name != "horizons":
        b.add(dense(rng, b.width, 4))
    return b.network()


def history(count: int = STEPS, width: int = INPUTS, seed: int = 3) -> np.ndarray:
    """Rows that vary; they do not change."""
    x = rows(count, width, seed)
    x.flags.writeable = False
    return x


def formatted(network: Network, number_format: str, count: int = 200) -> Network:
    """The network in a number format, calibrated on rows of its own."""
    if number_format == "fp32":
        return network
    return quantize(network, number_format, history(count, network.input_size, seed=8))[0]


# ---------------------------------------------------------------- oracles


class _Int8Attention(network_reference.Evaluator):
    """The reference, with the weights of int8 attention in 255 levels, as csrc/nn/attend_i8.h says."""

    nudge = 0.0

    def _attention(self, node: Any, layer: Any, state: dict[str, Any], q: Array, k: Array, v: Array) -> Array:
        if node.format != "int8":
            return super()._attention(node, layer, state, q, k, v)

        def rounded(scores: Array) -> Array:
            powers = np.exp(scores - scores.max())
            powers = np.rint(255.0 * (powers + self.nudge * MARGIN["int8"]))
            return powers / powers.sum()

        with mock.patch.object(network_reference, "softmax", rounded):
            return super()._attention(node, layer, state, q, k, v)


def attends_in_int8(network: Network) -> bool:
    """Whether the engine and the canonical graph differ by more than float32 rounding: see artefact_oracle."""
    return any(node.format == "int8" and node.layer.kind == "attention" for node in network.nodes)


def native_oracle(network: Network, x: Any, nudge: float = 0.0) -> Array:
    """What the engine computes, in float64; every value is moved by `nudge` margins before it is rounded.

    The engine clamps 16-bit rows at -32767 (csrc/nn/gemv_i8.h), QuantizeLinear at -32768.
    """
    if not attends_in_int8(network):
        with mock.patch.dict(evaluation.LEVELS, int8a16=network_reference.LIMITS["int8a16"]):
            return artefact_oracle(network, x, nudge)
    evaluator, plain = _Int8Attention(network), network_reference.quantise
    evaluator.nudge = nudge

    def moved(row: Any, scale: float, form: str) -> Array:
        return plain(np.asarray(row) + nudge * MARGIN[form] * scale * network_reference.LIMITS[form][1], scale, form)

    with mock.patch.object(network_reference, "quantise", moved):
        return np.array([evaluator.step(row) for row in x])


def artefact_oracle(network: Network, x: Any, nudge: float = 0.0) -> Array:
    """What the canonical graph computes, in float64: int8 attention there keeps its softmax in float, and quantises
    rotated keys again at each step, where the engine keeps them as they were first quantised.
    """
    if not nudge:
        return evaluation.evaluate(network, x)
    plain = evaluation.quantise_row

    def moved(row: Any, scale: float, form: str) -> Array:
        return plain(np.asarray(row) + nudge * MARGIN[form] * scale * evaluation.LEVELS[form][1], scale, form)

    with mock.patch.object(evaluation, "quantise_row", moved):
        return evaluation.evaluate(network, x)


def slack(oracle: Callable[[Network, Any, float], Array], network: Network, x: Any, want: Array) -> Array:
    """[T, 1]: how far the answers may be off because of ties up to each step; zeros for a float network.

    Upwards and downwards: each value that lies within the margin of a tie is rounded differently in one of the two.
    With 16-bit rows nearly every row has such a value, their effects may cancel in both runs, and so the largest
    difference counts for all rows; it is that of one quantum in 65,535.
    """
    formats = {node.format for node in network.nodes}
    if formats.isdisjoint(INTEGERS):
        return np.zeros((len(want), 1))
    apart = np.max([np.abs(oracle(network, x, nudge) - want).max(axis=1) for nudge in (1.0, -1.0)], axis=0)
    most = np.full_like(apart, apart.max()) if "int8a16" in formats else np.maximum.accumulate(apart)
    return 3.0 * most[:, None]


@dataclass(frozen=True)
class Proof:
    """A network in a format, its rows, and what two oracles say about them."""

    network: Network
    x: np.ndarray
    native: Array
    native_slack: Array
    artefact: Array
    artefact_slack: Array

    @property
    def size(self) -> float:
        """Of the answers, at least 1: limits are relative to it."""
        return max(1.0, float(np.abs(self.native).max()))


def proof(network: Network, x: np.ndarray) -> Proof:
    """Runs the oracles over the rows."""
    artefact = artefact_oracle(network, x)
    artefact_slack = slack(artefact_oracle, network, x, artefact)
    if not attends_in_int8(network) and not any(node.format == "int8a16" for node in network.nodes):
        return Proof(network, x, artefact, artefact_slack, artefact, artefact_slack)
    native = native_oracle(network, x)
    return Proof(network, x, native, slack(native_oracle, network, x, native), artefact, artefact_slack)


@functools.cache
def case_proof(name: str, number_format: str) -> Proof:
    """Of a case over the first rows of the common history."""
    return proof(formatted(case(name), number_format), history()[:PROVEN])


class Ort:
    """The canonical graph on ONNX Runtime: one row at a time, states fed back."""

    def __init__(self, data: bytes) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # Else a product of float rows with int8 weights is taken with the rows rounded to 8 bits.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        self.session = ort.InferenceSession(
            data,
            options,
            providers=["CPUExecutionProvider"],
            # Else float biases are rounded to multiples of the scales' product, which the graph does not say.
            disabled_optimizers=["WeightBiasQuantization"],
        )
        self.inputs = self.session.get_inputs()

    def run(self, x: Any) -> np.ndarray:
        """[T, output] from zero state."""
        states = {info.name: np.zeros([1, *info.shape[1:]], np.float32) for info in self.inputs[1:]}
        out = []
        for row in np.asarray(x, np.float32):
            y, *after = self.session.run(None, {"x": row[None], **states})
            states = dict(zip(states, after, strict=True))
            out.append(y[0])
        return np.array(out)


def strided(network: Network) -> bool:
    """Whether answers are rarer than rows: such a network has no canonical graph."""
    return any(getattr(layer, "stride", 1) > 1 for layer in network.layers)


class Torch:
    """The worker of torch_parity_worker.py."""

    def __init__(self, python: str) -> None:
        worker = Path(__file__).with_name("torch_parity_worker.py")
        self.process = subprocess.Popen([python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, network: Network, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Answers in float64 and in float32."""
        arrays: dict[str, np.ndarray] = {"x": np.asarray(x, np.float32)}
        nodes = []
        for i, node in enumerate(network.nodes):
            entry: dict[str, Any] = {"inputs": node.inputs, "format": node.format, "scales": node.scales}
            for item in fields(node.layer):
                value = getattr(node.layer, item.name)
                if isinstance(value, np.ndarray):
                    arrays[f"{i}.{item.name}"] = value
                elif value is not None and item.name != "name":
                    entry[item.name] = value
            for key, matrix in node.matrices.items():
                arrays[f"{i}.{key}.values"], arrays[f"{i}.{key}.scale"] = matrix.values, matrix.scale
            nodes.append(entry)
        text = json.dumps({"nodes": nodes, "output": network.output})
        held = io.BytesIO()
        np.savez(held, network=np.frombuffer(text.encode(), np.uint8), **arrays)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(struct.pack("<Q", len(held.getvalue())) + held.getvalue())
        self.process.stdin.flush()
        size = self.process.stdout.read(8)
        assert len(size) == 8, "the worker ended; its error is on stderr"
        got = np.load(io.BytesIO(self.process.stdout.read(*struct.unpack("<Q", size))), allow_pickle=False)
        return got["double"], got["single"]

    def close(self) -> None:
        """Ends the worker."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait(30)


def torch_python() -> str | None:
    """TENGRI_TRAIN_PYTHON, or this interpreter, if it has torch."""
    for python in (os.environ.get("TENGRI_TRAIN_PYTHON"), sys.executable):
        if python:
            try:
                done = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
            except OSError:
                continue
            if done.returncode == 0:
                return python
    return None
