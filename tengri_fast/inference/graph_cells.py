"""Recurrent operators of the importer: LSTM and GRU as ONNX operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tengri_fast.inference.graph_layout import argument
from tengri_fast.inference.graph_linear import groups_of, matrix_of
from tengri_fast.inference.graph_values import (
    BATCH,
    NOWHERE,
    ZERO,
    Array,
    Decline,
    Tensor,
    Value,
    Weights,
    as_array,
    steps_of,
)
from tengri_fast.inference.onnx_reader import Node

if TYPE_CHECKING:
    from tengri_fast.inference.graph_walk import Walk

__all__ = ["CELLS"]

_LSTM_GATES = (0, 2, 3, 1)  # rows of ONNX (i, o, f, c) in PyTorch's order i, f, g, o
_GRU_GATES = (1, 0, 2)  # rows of ONNX (z, r, h) in PyTorch's order r, z, n


def _reorder(rows: Array, order: tuple[int, ...]) -> Array:
    parts = np.split(rows, len(order))
    return np.concatenate([parts[gate] for gate in order])


def _check(node: Node, functions: list[str]) -> None:
    attributes = node.attributes
    if attributes.get("direction", "forward") != "forward":
        raise Decline(f"expected direction `forward`, was `{attributes['direction']}`")
    if attributes.get("input_forget"):
        raise Decline("expected input_forget = 0")
    if attributes.get("clip") is not None:
        raise Decline("expected no clip")
    found = attributes.get("activations")
    if found is not None and [str(f).lower() for f in found] != [f.lower() for f in functions]:
        raise Decline(f"expected the activations {', '.join(functions)}, were {found}")


def _input(walk: Walk, node: Node, value: Value) -> tuple[Array, Array, bool]:
    """Columns [F] of the input row, rows [T, B], and whether the batch comes first."""
    if not isinstance(value, Tensor) or len(value.shape) != 3:
        raise Decline("expected an input of three axes: time, batch, features")
    batch_first = node.attributes.get("layout", 0) == 1
    col, row = (a.swapaxes(0, 1) if batch_first else a for a in (value.col, value.row))
    t, b, f = col.shape
    groups, newest = groups_of(walk, col.reshape(-1, f), row.reshape(-1, f))
    if len(groups) != 1 or len(groups[0].places) != t * b or groups[0].ages.any() or (groups[0].cols < 0).any():
        raise Decline("expected the same features at every step, each of that step")
    rows = newest.reshape(t, b)
    cols = groups[0].cols
    period = walk.builder.period(cols)
    if np.any(steps_of(rows[0]) != 0) or np.any(rows != rows[0] + period * np.arange(t)[:, None]):
        raise Decline(
            f"expected all steps in order from the first one, found steps {steps_of(rows[:, 0])[:4].tolist()}, ..."
        )
    return cols, rows, batch_first


def _matrices(
    arguments: list[Value], gates: int, hidden: int | None, features: int
) -> tuple[Weights, Weights, Array, int]:
    w, r = matrix_of(arguments[1], "W"), matrix_of(arguments[2], "R")
    if len(w.shape) != 3 or len(r.shape) != 3 or w.shape[0] != 1 or r.shape[0] != 1:
        raise Decline(f"expected W and R of one direction, have shapes {list(w.shape)} and {list(r.shape)}")
    size = r.shape[2]
    if w.shape[1] != gates * size or r.shape[1] != gates * size or (hidden is not None and hidden != size):
        raise Decline(f"expected {gates} x {size} gate rows, have shapes {list(w.shape)} and {list(r.shape)}")
    if w.shape[2] != features:
        raise Decline(f"expected W for {features} features, has {w.shape[2]}")
    bias = argument(arguments, 3)
    both = np.zeros(2 * gates * size, np.float32) if bias is None else matrix_of(bias, "B").array
    if bias is not None and both.shape != (1, 2 * gates * size):
        raise Decline(f"expected B of shape [1, {2 * gates * size}], has {list(both.shape)}")
    if argument(arguments, 4) is not None and np.unique(as_array(arguments[4], "sequence lengths")).size != 1:
        raise Decline("expected no sequence lengths")
    if not all(np.isfinite(a).all() for a in (w.array, r.array, both)):
        raise Decline("expected weights to be finite")
    return w, r, both.reshape(-1), size


def _lengths(arguments: list[Value], steps: int) -> None:
    value = argument(arguments, 4)
    if value is not None and np.any(as_array(value, "sequence lengths") != steps):
        raise Decline("expected no sequence lengths")


def _initial(walk: Walk, value: Value, name: str, size: int) -> Array | None:
    """Columns of the state that goes in; None for zeros."""
    if value is None:
        return None
    shape = as_array(value, name).shape if not isinstance(value, Tensor) else value.shape
    if len(shape) != 3 or shape[2] != size:
        raise Decline(
            f"expected {name} of {size} units, has shape {list(shape)} (PyTorch writes `proj_size` wrongly: {NOWHERE}; "
            "export a single step with the projection written out)"
        )
    if isinstance(value, Tensor):
        if (value.col == ZERO).all():
            return None
        cols = value.col.reshape(-1)
        owner = walk.builder.owner(cols)
        if owner is None or owner.kind not in ("state", "delay") or np.any(np.unique(value.row // BATCH) != 0):
            raise Decline(f"expected {name} to be zero or a graph input")
        if owner.kind == "delay":
            raise Decline(f"expected {name} to be a state that this operator renews")
        return np.asarray(cols)
    if as_array(value, name).any():
        raise Decline(f"expected {name} to be zero or a graph input")
    return None


def _outputs(rows: Array, base: int, size: int, *, batch_first: bool) -> tuple[Tensor, Tensor]:
    """Rows [T, 1, B, H] and the last of them [1, B, H], in ONNX's layout."""
    t, b = rows.shape
    shape = (t, 1, b, size)
    col = np.broadcast_to(base + np.arange(size), shape)
    row = np.broadcast_to(rows[:, None, :, None], shape)
    every, last = Tensor(col, row), Tensor(col[-1], row[-1])
    if batch_first:  # [B, T, 1, H] and [B, 1, H]
        every = Tensor(*(a.transpose(2, 0, 1, 3) for a in (every.col, every.row)))
        last = Tensor(*(a.transpose(1, 0, 2) for a in (last.col, last.row)))
    return every, last


def _lstm(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    _check(node, ["Sigmoid", "Tanh", "Tanh"])
    if argument(arguments, 7) is not None:
        raise Decline("expected no peephole weights")
    cols, rows, batch_first = _input(walk, node, arguments[0])
    _lengths(arguments, len(rows))
    w, r, both, size = _matrices(arguments, 4, node.attributes.get("hidden_size"), cols.size)
    bias = both[: 4 * size] + both[4 * size :]
    initial = {
        name: _initial(walk, argument(arguments, i), name, size) for i, name in ((5, "initial_h"), (6, "initial_c"))
    }
    made = walk.builder.add(
        "lstm", (cols,), size, walk.name, walk.builder.period(cols), w=_reorder(w.array[0], _LSTM_GATES),
        r=_reorder(r.array[0], _LSTM_GATES), bias=_reorder(bias, _LSTM_GATES), form=_form(w, r),
        matrices={}, scales={}, projection=None, **initial,
    )  # fmt: skip
    cell = walk.builder.add("cell", (made.columns,), size, walk.name, made.period)
    every, last = _outputs(rows, made.base, size, batch_first=batch_first)
    shift = cell.base - made.base
    return [every, last, Tensor(last.col + shift, last.row)]


def _gru(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    _check(node, ["Sigmoid", "Tanh"])
    cols, rows, batch_first = _input(walk, node, arguments[0])
    _lengths(arguments, len(rows))
    w, r, both, size = _matrices(arguments, 3, node.attributes.get("hidden_size"), cols.size)
    made = walk.builder.add(
        "gru", (cols,), size, walk.name, walk.builder.period(cols), w=_reorder(w.array[0], _GRU_GATES),
        r=_reorder(r.array[0], _GRU_GATES), bias=_reorder(both[: 3 * size], _GRU_GATES),
        recurrent_bias=_reorder(both[3 * size :], _GRU_GATES), form=_form(w, r), matrices={}, scales={},
        reset_after=bool(node.attributes.get("linear_before_reset")),
        initial_h=_initial(walk, argument(arguments, 5), "initial_h", size), initial_c=None,
    )  # fmt: skip
    return list(_outputs(rows, made.base, size, batch_first=batch_first))


def _form(w: Weights, r: Weights) -> str:
    """fp16 or bf16 where both matrices are; int8 without quantised rows is float32."""
    return w.form if w.form == r.form and w.form in ("fp16", "bf16") else "fp32"


CELLS = {"GRU": _gru, "LSTM": _lstm}
