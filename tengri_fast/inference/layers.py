"""What a native model is made of, as plain arrays: one class per operation of csrc/include/tengri/nn.h.

Weights are row major and named as in PyTorch, so ``LstmLayer(w=lstm.weight_ih_l0, r=lstm.weight_hh_l0,
bias=lstm.bias_ih_l0 + lstm.bias_hh_l0)`` is the first layer of a ``torch.nn.LSTM``. Every layer is causal and yields
one row per step. How layers are wired stands in :mod:`tengri_fast.inference.network`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError

__all__ = [
    "ACTIVATIONS",
    "ActivationLayer",
    "AddLayer",
    "AffineLayer",
    "AttentionLayer",
    "ConcatLayer",
    "ConvLayer",
    "DenseLayer",
    "GruLayer",
    "Layer",
    "LstmLayer",
    "MulLayer",
    "NormLayer",
    "PoolLayer",
    "PositionLayer",
    "SliceLayer",
]

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid", "softmax", "leaky_relu", "gelu", "gelu_tanh", "silu")
"""Activations in the order of the C enum."""
POSITIONS = ("none", "rope", "rope_interleaved", "alibi")
POOLS = ("mean", "max", "sum")
NORMS = ("layer", "rms")

FloatArray = npt.NDArray[np.float32]


def _refuse(layer: str, field_: str, rule: str, value: object) -> ModelLoadingError:
    return ModelLoadingError(f"layer `{layer}`: `{field_}` must {rule}, was {value}")


def _array(layer: object, attribute: str, rank: int) -> FloatArray:
    """The attribute as a finite, contiguous float32 array of that rank, put back into the (frozen) layer."""
    name = getattr(layer, "name", "?")
    array = np.ascontiguousarray(getattr(layer, attribute), dtype=np.float32)
    if array.ndim != rank:
        raise ModelLoadingError(f"layer `{name}`: `{attribute}` must have {rank} dimension(s), had {array.ndim}")
    if array.size == 0:
        raise ModelLoadingError(f"layer `{name}`: `{attribute}` must not be empty, has shape {array.shape}")
    if not np.isfinite(array).all():
        raise ModelLoadingError(f"layer `{name}`: `{attribute}` must be finite, holds NaN or infinity")
    object.__setattr__(layer, attribute, array)
    return array


def _rows(layer: object, attribute: str, rows: int) -> None:
    array = getattr(layer, attribute)
    if array.shape[0] != rows:
        name = getattr(layer, "name", "?")
        raise ModelLoadingError(f"layer `{name}`: `{attribute}` must have {rows} rows, had {array.shape[0]}")


def _activation(layer: str, value: str, groups: int, width: int) -> None:
    if value not in ACTIVATIONS:
        raise ModelLoadingError(f"layer `{layer}`: `activation` must be one of {', '.join(ACTIVATIONS)}, was {value!r}")
    if groups < 1 or width % groups:
        raise _refuse(layer, "softmax_groups", f"divide the width {width}", groups)


@dataclass(frozen=True, eq=False)
class LstmLayer:
    """One LSTM layer with zero initial state (Hochreiter & Schmidhuber 1997, with forget gate).

    Parameters
    ----------
    w : array_like, shape [4H, input]
        Input weights, gates in PyTorch's order i, f, g, o.
    r : array_like, shape [4H, H] or [4H, P] with a projection
        Recurrent weights, the same order.
    bias : array_like, shape [4H]
        Sum of both biases.
    name : str, default "lstm"
        Used in error texts.
    projection : array_like, shape [P, H], optional
        ``weight_hr`` of an LSTM with ``proj_size``; the state h and the output are then P wide.

    Raises
    ------
    ModelLoadingError
        If shapes do not fit each other or a weight is not finite.
    """

    w: FloatArray
    r: FloatArray
    bias: FloatArray
    name: str = "lstm"
    projection: FloatArray | None = None
    kind: str = field(default="lstm", init=False)
    activation: str = field(default="none", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for attribute, rank in (("w", 2), ("r", 2), ("bias", 1)):
            _array(self, attribute, rank)
        hidden = self.r.shape[1]
        if self.projection is not None:
            projection = _array(self, "projection", 2)
            _rows(self, "projection", self.r.shape[1])
            hidden = projection.shape[1]
        for attribute in ("w", "r", "bias"):
            _rows(self, attribute, 4 * hidden)

    @property
    def hidden_size(self) -> int:
        """Number of units H."""
        return int(self.bias.shape[0] // 4)

    @property
    def input_size(self) -> int:
        """Width of the input."""
        return int(self.w.shape[1])

    @property
    def output_size(self) -> int:
        """Width of the output: H, or P with a projection."""
        return int(self.r.shape[1])


@dataclass(frozen=True, eq=False)
class GruLayer:
    """One GRU layer with zero initial state (Cho et al. 2014).

    Parameters
    ----------
    w : array_like, shape [3H, input]
        Input weights, gates in PyTorch's order r, z, n.
    r : array_like, shape [3H, H]
        Recurrent weights, the same order.
    bias, recurrent_bias : array_like, shape [3H]
        ``bias_ih`` and ``bias_hh``.
    reset_after : bool, default True
        True: ``n = tanh(W_n x + b_n + r * (R_n h + c_n))`` as in PyTorch (``linear_before_reset = 1`` in ONNX); False:
        ``n = tanh(W_n x + b_n + R_n (r * h) + c_n)``, whose last product stays on the critical path.
    """

    w: FloatArray
    r: FloatArray
    bias: FloatArray
    recurrent_bias: FloatArray
    reset_after: bool = True
    name: str = "gru"
    kind: str = field(default="gru", init=False)
    activation: str = field(default="none", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for attribute, rank in (("w", 2), ("r", 2), ("bias", 1), ("recurrent_bias", 1)):
            _array(self, attribute, rank)
        for attribute in ("w", "r", "bias", "recurrent_bias"):
            _rows(self, attribute, 3 * self.r.shape[1])

    @property
    def input_size(self) -> int:
        """Width of the input."""
        return int(self.w.shape[1])

    @property
    def output_size(self) -> int:
        """Number of units H."""
        return int(self.r.shape[1])


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """``y = activation(w x + bias)``.

    Parameters
    ----------
    w : array_like, shape [output, input]
        Weights.
    bias : array_like, shape [output]
        Bias.
    activation : str, default "none"
        One of :data:`ACTIVATIONS`.
    name : str, default "dense"
        Used in error texts.
    softmax_groups : int, default 1
        Softmax runs over this many groups of equal width (a multi-horizon head).
    slope : float, default 0.01
        Of leaky_relu.

    Raises
    ------
    ModelLoadingError
        If shapes do not fit each other, a weight is not finite, or the activation is unknown.
    """

    w: FloatArray
    bias: FloatArray
    activation: str = "none"
    name: str = "dense"
    softmax_groups: int = 1
    slope: float = 0.01
    kind: str = field(default="dense", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for attribute, rank in (("w", 2), ("bias", 1)):
            _array(self, attribute, rank)
        _rows(self, "bias", self.w.shape[0])
        _activation(self.name, self.activation, self.softmax_groups, self.w.shape[0])

    @property
    def input_size(self) -> int:
        """Width of the input."""
        return int(self.w.shape[1])

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return int(self.w.shape[0])


@dataclass(frozen=True, eq=False)
class ConvLayer:
    """A convolution over time, causal: rows before the first are zero. Also over book levels (DeepLOB).

    The input row is ``[levels, channels]`` and the output row ``[output_levels, output_channels]``, channels last; a
    Conv1d has one level.

    Parameters
    ----------
    w : array_like, shape [taps, output_channels, level_kernel * channels / groups]
        Tap 0 meets the newest row. From a PyTorch Conv1d weight ``[out, in / groups, taps]``: reverse the taps and move
        them first.
    bias : array_like, shape [output_channels]
        Bias.
    dilation, stride, groups : int, default 1
        As in PyTorch, over time. With a stride the layer yields a new row at steps 0, stride, 2 stride ...
    levels, level_kernel, level_stride : int, default 1
        The axis of book levels, without padding. Groups need one level.
    activation : str, default "none"
        Applied to the output.
    """

    w: FloatArray
    bias: FloatArray
    dilation: int = 1
    stride: int = 1
    groups: int = 1
    levels: int = 1
    level_kernel: int = 1
    level_stride: int = 1
    activation: str = "none"
    name: str = "conv"
    slope: float = 0.01
    kind: str = field(default="conv", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for attribute, rank in (("w", 3), ("bias", 1)):
            _array(self, attribute, rank)
        _rows(self, "bias", self.w.shape[1])
        for attribute in ("dilation", "stride", "groups", "levels", "level_kernel", "level_stride"):
            if getattr(self, attribute) < 1:
                raise _refuse(self.name, attribute, "be >= 1", getattr(self, attribute))
        if self.level_kernel > self.levels:
            raise _refuse(self.name, "level_kernel", f"be <= the levels ({self.levels})", self.level_kernel)
        if self.level_stride > self.levels:
            raise _refuse(self.name, "level_stride", f"be <= the levels ({self.levels})", self.level_stride)
        if self.groups > 1 and self.levels > 1:
            raise _refuse(self.name, "groups", "be 1 where there are levels", self.groups)
        if self.w.shape[1] % self.groups:
            raise _refuse(self.name, "groups", f"divide the output channels ({self.w.shape[1]})", self.groups)
        if self.w.shape[2] % self.level_kernel:
            raise _refuse(
                self.name, "level_kernel", f"divide the weights' last axis ({self.w.shape[2]})", self.level_kernel
            )
        _activation(self.name, self.activation, 1, self.output_size)
        if self.activation == "softmax" and self.output_levels > 1:
            raise _refuse(self.name, "activation", "not be softmax over several levels", self.activation)

    @property
    def taps(self) -> int:
        """Kernel size over time."""
        return int(self.w.shape[0])

    @property
    def output_levels(self) -> int:
        """Levels of the output row."""
        return (self.levels - self.level_kernel) // self.level_stride + 1

    @property
    def channels(self) -> int:
        """Input channels per level."""
        return int(self.w.shape[2]) // self.level_kernel * self.groups

    @property
    def input_size(self) -> int:
        """Width of the input: levels times channels."""
        return self.levels * self.channels

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return self.output_levels * int(self.w.shape[1])


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """Causal multi-head attention over the last `window` rows (Vaswani et al. 2017); no weights of its own.

    Takes three rows: q ``[heads, dim]``, k ``[kv_heads, dim]``, v ``[kv_heads, value_dim]``; yields
    ``[heads, value_dim]``.

    Parameters
    ----------
    heads, kv_heads : int
        Query heads, and key/value heads (fewer for grouped-query attention).
    dim, value_dim : int
        Width per head.
    window : int
        Rows attended to, the newest included.
    scale : float, optional
        Factor of the scores; default ``1 / sqrt(dim)``.
    position : {"none", "rope", "rope_interleaved", "alibi"}
        Rotary positions (Su et al. 2021) on pairs (i, i + dim/2) or (2i, 2i + 1), or linear biases (Press et al. 2022).
    rope_base : float, default 10000.0
        Base of the rotary frequencies.
    slopes : array_like, shape [heads], optional
        ALiBi: ``score - slope * age``.
    """

    heads: int
    kv_heads: int
    dim: int
    value_dim: int
    window: int
    scale: float = 0.0
    position: str = "none"
    rope_base: float = 10_000.0
    slopes: FloatArray | None = None
    name: str = "attention"
    kind: str = field(default="attention", init=False)
    activation: str = field(default="none", init=False)
    arity: ClassVar[int] = 3

    def __post_init__(self) -> None:
        for attribute in ("heads", "kv_heads", "dim", "value_dim", "window"):
            if getattr(self, attribute) < 1:
                raise _refuse(self.name, attribute, "be >= 1", getattr(self, attribute))
        if self.heads % self.kv_heads:
            raise _refuse(self.name, "kv_heads", f"divide the heads ({self.heads})", self.kv_heads)
        if self.position not in POSITIONS:
            raise _refuse(self.name, "position", f"be one of {', '.join(POSITIONS)}", repr(self.position))
        if self.position.startswith("rope") and self.dim % 2:
            raise _refuse(self.name, "dim", "be even with rotary positions", self.dim)
        if (self.position == "alibi") != (self.slopes is not None):
            raise _refuse(self.name, "slopes", "be given with position `alibi`, and only then", self.slopes)
        if self.slopes is not None:
            _array(self, "slopes", 1)
            _rows(self, "slopes", self.heads)
        if not (np.isfinite(self.scale) and np.isfinite(self.rope_base)) or self.rope_base <= 0:
            raise _refuse(self.name, "rope_base", "be finite and > 0, and `scale` finite", self.rope_base)
        if self.scale == 0.0:
            object.__setattr__(self, "scale", float(1.0 / np.sqrt(self.dim)))

    @property
    def input_sizes(self) -> tuple[int, int, int]:
        """Widths of q, k and v."""
        return self.heads * self.dim, self.kv_heads * self.dim, self.kv_heads * self.value_dim

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return self.heads * self.value_dim


@dataclass(frozen=True, eq=False)
class NormLayer:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the row."""

    gamma: FloatArray
    beta: FloatArray | None = None
    epsilon: float = 1e-5
    norm: str = "layer"
    activation: str = "none"
    name: str = "norm"
    kind: str = field(default="norm", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _array(self, "gamma", 1)
        if self.beta is not None:
            _array(self, "beta", 1)
            _rows(self, "beta", self.gamma.shape[0])
        if self.norm not in NORMS:
            raise _refuse(self.name, "norm", f"be one of {', '.join(NORMS)}", repr(self.norm))
        if not 0 < self.epsilon < 1:
            raise _refuse(self.name, "epsilon", "lie in (0, 1)", self.epsilon)
        _activation(self.name, self.activation, 1, self.output_size)

    @property
    def output_size(self) -> int:
        """Width of input and output."""
        return int(self.gamma.shape[0])


@dataclass(frozen=True, eq=False)
class AffineLayer:
    """``y = activation(scale * x + shift)`` by element: a BatchNorm that could not be folded, a normalisation."""

    scale: FloatArray
    shift: FloatArray
    activation: str = "none"
    name: str = "affine"
    kind: str = field(default="affine", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _array(self, "scale", 1)
        _array(self, "shift", 1)
        _rows(self, "shift", self.scale.shape[0])
        _activation(self.name, self.activation, 1, self.output_size)

    @property
    def output_size(self) -> int:
        """Width of input and output."""
        return int(self.scale.shape[0])


@dataclass(frozen=True, eq=False)
class ActivationLayer:
    """An activation on its own, over a row of `width`."""

    activation: str
    width: int
    softmax_groups: int = 1
    slope: float = 0.01
    name: str = "activation"
    kind: str = field(default="activation", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.width < 1:
            raise _refuse(self.name, "width", "be >= 1", self.width)
        _activation(self.name, self.activation, self.softmax_groups, self.width)

    @property
    def output_size(self) -> int:
        """Width of input and output."""
        return self.width


@dataclass(frozen=True, eq=False)
class AddLayer:
    """``activation(a + b)`` of two rows."""

    width: int
    activation: str = "none"
    name: str = "add"
    kind: str = field(default="add", init=False)
    arity: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.width < 1:
            raise _refuse(self.name, "width", "be >= 1", self.width)
        _activation(self.name, self.activation, 1, self.width)

    @property
    def output_size(self) -> int:
        """Width of the inputs and the output."""
        return self.width


@dataclass(frozen=True, eq=False)
class MulLayer:
    """``activation(a * b)`` of two rows, by element: the gate of a WaveNet block."""

    width: int
    activation: str = "none"
    name: str = "mul"
    kind: str = field(default="mul", init=False)
    arity: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.width < 1:
            raise _refuse(self.name, "width", "be >= 1", self.width)
        _activation(self.name, self.activation, 1, self.width)

    @property
    def output_size(self) -> int:
        """Width of the inputs and the output."""
        return self.width


@dataclass(frozen=True, eq=False)
class ConcatLayer:
    """Rows one after another; `widths` in order, at most 8 (chain them beyond)."""

    widths: tuple[int, ...]
    name: str = "concat"
    kind: str = field(default="concat", init=False)
    activation: str = field(default="none", init=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.widths) <= 8 or min(self.widths) < 1:
            raise _refuse(self.name, "widths", "hold 1 to 8 positive numbers", self.widths)

    @property
    def arity(self) -> int:
        """Number of rows taken."""
        return len(self.widths)

    @property
    def output_size(self) -> int:
        """Sum of the widths."""
        return sum(self.widths)


@dataclass(frozen=True, eq=False)
class SliceLayer:
    """`width` values of a row from `offset` on."""

    offset: int
    width: int
    name: str = "slice"
    kind: str = field(default="slice", init=False)
    activation: str = field(default="none", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.offset < 0 or self.width < 1:
            raise _refuse(self.name, "width", "be >= 1 and `offset` >= 0", (self.offset, self.width))

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return self.width


@dataclass(frozen=True, eq=False)
class PoolLayer:
    """Mean, maximum or sum over the last `window` rows, by element.

    `partial` (mean): True divides by the rows seen so far until there are `window` of them, False always by `window`.
    """

    width: int
    window: int
    pool: str = "mean"
    partial: bool = True
    name: str = "pool"
    kind: str = field(default="pool", init=False)
    activation: str = field(default="none", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for attribute in ("width", "window"):
            if getattr(self, attribute) < 1:
                raise _refuse(self.name, attribute, "be >= 1", getattr(self, attribute))
        if self.pool not in POOLS:
            raise _refuse(self.name, "pool", f"be one of {', '.join(POOLS)}", repr(self.pool))

    @property
    def output_size(self) -> int:
        """Width of input and output."""
        return self.width


@dataclass(frozen=True, eq=False)
class PositionLayer:
    """Adds row t of `table` (learned or sinusoidal positions), t counted from reset.

    Absolute positions end with the table, so a model that has them runs windowed only.
    """

    table: FloatArray
    name: str = "position"
    kind: str = field(default="position", init=False)
    activation: str = field(default="none", init=False)
    arity: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _array(self, "table", 2)

    @property
    def output_size(self) -> int:
        """Width of input and output."""
        return int(self.table.shape[1])


Layer = (
    LstmLayer
    | GruLayer
    | DenseLayer
    | ConvLayer
    | AttentionLayer
    | NormLayer
    | AffineLayer
    | ActivationLayer
    | AddLayer
    | MulLayer
    | ConcatLayer
    | SliceLayer
    | PoolLayer
    | PositionLayer
)
