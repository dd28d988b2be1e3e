"""What a native model is made of: LSTM and dense layers as plain arrays.

Weights are row major and named as in PyTorch, so ``LstmLayer(w=lstm.weight_ih_l0, r=lstm.weight_hh_l0,
bias=lstm.bias_ih_l0 + lstm.bias_hh_l0)`` is the first layer of a ``torch.nn.LSTM``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError

__all__ = ["ACTIVATIONS", "DenseLayer", "Layer", "LstmLayer"]

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid", "softmax")
"""Activations of a dense layer, in the order of the C enum."""

FloatArray = npt.NDArray[np.float32]


def _weights(value: npt.ArrayLike, name: str, layer: str, rank: int) -> FloatArray:
    array = np.ascontiguousarray(value, dtype=np.float32)
    if array.ndim != rank:
        raise ModelLoadingError(f"layer `{layer}`: `{name}` must have {rank} dimension(s), had {array.ndim}")
    if array.size == 0:
        raise ModelLoadingError(f"layer `{layer}`: `{name}` must not be empty, has shape {array.shape}")
    if not np.isfinite(array).all():
        raise ModelLoadingError(f"layer `{layer}`: `{name}` must be finite, holds NaN or infinity")
    return array


@dataclass(frozen=True, eq=False)
class LstmLayer:
    """One LSTM layer with zero initial state.

    Parameters
    ----------
    w : array_like, shape [4H, input]
        Input weights, gates in PyTorch's order i, f, g, o.
    r : array_like, shape [4H, H]
        Recurrent weights, the same order.
    bias : array_like, shape [4H]
        Sum of both biases.
    name : str, default "lstm"
        Used in error texts.

    Raises
    ------
    ModelLoadingError
        If shapes do not fit each other or a weight is not finite.
    """

    w: FloatArray
    r: FloatArray
    bias: FloatArray
    name: str = "lstm"
    kind: str = field(default="lstm", init=False)
    activation: str = field(default="none", init=False)

    def __post_init__(self) -> None:
        for attribute, rank in (("w", 2), ("r", 2), ("bias", 1)):
            object.__setattr__(self, attribute, _weights(getattr(self, attribute), attribute, self.name, rank))
        hidden = self.r.shape[1]
        for attribute in ("w", "r", "bias"):
            rows = getattr(self, attribute).shape[0]
            if rows != 4 * hidden:
                raise ModelLoadingError(f"layer `{self.name}`: `{attribute}` must have {4 * hidden} rows, had {rows}")

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
        One of :data:`ACTIVATIONS`; softmax runs over all outputs.
    name : str, default "dense"
        Used in error texts.

    Raises
    ------
    ModelLoadingError
        If shapes do not fit each other, a weight is not finite, or the activation is unknown.
    """

    w: FloatArray
    bias: FloatArray
    activation: str = "none"
    name: str = "dense"
    kind: str = field(default="dense", init=False)

    def __post_init__(self) -> None:
        for attribute, rank in (("w", 2), ("bias", 1)):
            object.__setattr__(self, attribute, _weights(getattr(self, attribute), attribute, self.name, rank))
        if self.bias.shape[0] != self.w.shape[0]:
            raise ModelLoadingError(
                f"layer `{self.name}`: `bias` must have {self.w.shape[0]} rows, had {self.bias.shape[0]}"
            )
        if self.activation not in ACTIVATIONS:
            raise ModelLoadingError(
                f"layer `{self.name}`: `activation` must be one of {', '.join(ACTIVATIONS)}, was {self.activation!r}"
            )

    @property
    def input_size(self) -> int:
        """Width of the input."""
        return int(self.w.shape[1])

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return int(self.w.shape[0])


Layer = LstmLayer | DenseLayer
