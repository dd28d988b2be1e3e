"""Operators of the importer that move elements: NumPy's own functions on origins and constants alike."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tengri_fast.inference.graph_values import (
    LOST,
    ZERO,
    Array,
    Decline,
    Scores,
    Tensor,
    Value,
    Weights,
    as_array,
    layout,
    steps_of,
)
from tengri_fast.inference.onnx_reader import Node

if TYPE_CHECKING:
    from tengri_fast.inference.graph_walk import Walk

__all__ = ["LAYOUT", "argument", "extend", "integers", "position"]

HUGE = 1 << 30


def integers(value: Value, what: str) -> list[int]:
    """A constant vector of integers."""
    array = as_array(value, what)
    if array.dtype.kind not in "iu" or array.size > 64:
        raise Decline(f"expected {what} to be integers")
    return [int(v) for v in array.ravel()]


def argument(arguments: list[Value], index: int) -> Value:
    """An optional input; None where it is left out."""
    return arguments[index] if index < len(arguments) else None


def position(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise Decline(f"axis must lie in [{-rank}, {rank}), was {axis}")
    return axis % rank


def _axes_of(node: Node, arguments: list[Value], index: int) -> list[int] | None:
    """Axes as an input (from operator set 13) or as an attribute (before)."""
    value = argument(arguments, index)
    if value is not None:
        return integers(value, "`axes`")
    attribute = node.attributes.get("axes")
    return None if attribute is None else list(attribute)


def _shape_of(value: Value) -> tuple[int, ...]:
    if value is None or not hasattr(value, "shape"):
        raise Decline("expected a tensor of known shape")
    return tuple(value.shape)


def _move(value: Value, function: Any) -> list[Value]:
    return [layout(value, function)]


def _shape(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    start = node.attributes.get("start") or 0
    return [np.array(_shape_of(arguments[0])[start : node.attributes.get("end")], np.int64)]


def _size(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    return [np.array(int(np.prod(_shape_of(arguments[0]), dtype=object)), np.int64)]


def _reshape(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value, target = arguments[0], integers(arguments[1], "the shape")
    shape = _shape_of(value)
    if not node.attributes.get("allowzero"):
        target = [shape[i] if d == 0 and i < len(shape) else d for i, d in enumerate(target)]
    return [_reshaped(value, target)]


def _reshaped(value: Value, target: list[int]) -> Value:
    if not isinstance(value, Scores):
        return layout(value, lambda a: a.reshape(target))
    # Leading axes (batch, heads) may be joined and parted; the two axes of the scores stay.
    full = _resolve(value.shape, target) if -1 in target else tuple(target)
    if tuple(full[-2:]) != value.shape[-2:]:
        raise Decline(f"expected scores to keep their last two axes, were to take the shape {list(full)}")
    lead = tuple(full[:-2])
    bias = np.broadcast_to(value.bias, value.shape).reshape(full)
    q, k = (Tensor(t.col.reshape(lead + t.shape[-2:]), t.row.reshape(lead + t.shape[-2:])) for t in (value.q, value.k))
    return replace(value, q=q, k=k, bias=bias)


def _resolve(shape: tuple[int, ...], target: list[int]) -> tuple[int, ...]:
    known = int(np.prod([d for d in target if d != -1], dtype=object))
    total = int(np.prod(shape, dtype=object))
    if target.count(-1) != 1 or known < 1 or total % known:
        raise Decline(f"expected {total} elements, the shape is {target}")
    return tuple(total // known if d == -1 else d for d in target)


def _flatten(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    shape = _shape_of(arguments[0])
    axis = node.attributes.get("axis")
    axis = 1 if axis is None else axis
    axis = axis + len(shape) if axis < 0 else axis
    return [
        _reshaped(arguments[0], [int(np.prod(shape[:axis], dtype=object)), int(np.prod(shape[axis:], dtype=object))])
    ]


def _squeeze(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    shape, axes = _shape_of(arguments[0]), _axes_of(node, arguments, 1)
    gone = {i for i, d in enumerate(shape) if d == 1} if axes is None else {position(a, len(shape)) for a in axes}
    if any(shape[i] != 1 for i in gone):
        raise Decline(f"expected the axes {sorted(gone)} to have size 1, the shape is {list(shape)}")
    return [_reshaped(arguments[0], [d for i, d in enumerate(shape) if i not in gone])]


def _unsqueeze(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    shape, axes = list(_shape_of(arguments[0])), _axes_of(node, arguments, 1)
    if axes is None:
        raise Decline("expected `axes` to be given")
    for axis in sorted(position(a, len(shape) + len(axes)) for a in axes):
        shape.insert(axis, 1)
    return [_reshaped(arguments[0], shape)]


def _transpose(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    rank = len(_shape_of(arguments[0]))
    perm = node.attributes.get("perm")
    perm = list(range(rank))[::-1] if perm is None else list(perm)
    if sorted(perm) != list(range(rank)):
        raise Decline(f"`perm` must order {rank} axes, was {perm}")
    return _move(arguments[0], lambda a: a.transpose(perm))


def _slice(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    shape = _shape_of(arguments[0])
    if len(arguments) > 1:
        starts, ends = integers(arguments[1], "`starts`"), integers(arguments[2], "`ends`")
        axes, steps = argument(arguments, 3), argument(arguments, 4)
        axis_list = list(range(len(starts))) if axes is None else integers(axes, "`axes`")
        step_list = [1] * len(starts) if steps is None else integers(steps, "`steps`")
    else:
        starts, ends = list(node.attributes["starts"]), list(node.attributes["ends"])
        axis_list = list(node.attributes.get("axes") or range(len(starts)))
        step_list = [1] * len(starts)
    if not len(starts) == len(ends) == len(axis_list) == len(step_list):
        raise Decline("`starts`, `ends`, `axes` and `steps` must be equally long")
    cuts: list[Any] = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axis_list, step_list, strict=True):
        axis = position(axis, len(shape))
        if step == 0:
            raise Decline("`steps` must not be 0")
        size = shape[axis]
        first = start + size if start < 0 else start
        last = end + size if end < 0 else end
        if step > 0:
            cuts[axis] = slice(min(max(first, 0), size), min(max(last, 0), size), step)
        else:
            cuts[axis] = np.arange(min(max(first, 0), size - 1), max(min(last, size - 1), -1), step)
    for axis, cut in enumerate(cuts):  # one axis at a time: several index arrays would be paired
        if isinstance(cut, np.ndarray):
            picked = cut
            arguments = [_taken(arguments[0], picked, axis), *arguments[1:]]
            cuts[axis] = slice(None)
    return _move(arguments[0], lambda a: a[tuple(cuts)])


def _taken(value: Value, picked: Array, axis: int) -> Value:
    return layout(value, lambda a: np.take(a, picked, axis=axis))


def _gather(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    shape = _shape_of(arguments[0])
    axis = position(node.attributes.get("axis") or 0, len(shape))
    picked = as_array(arguments[1], "indices")
    if picked.dtype.kind not in "iu":
        raise Decline("expected indices to be integers")
    picked = np.where(picked < 0, picked + shape[axis], picked).astype(np.int64)
    if picked.size and not (picked.min() >= 0 and picked.max() < shape[axis]):
        raise Decline(f"indices must lie in [{-shape[axis]}, {shape[axis]})")
    walk.builder.spend(int(np.prod(shape, dtype=object)) // max(shape[axis], 1) * picked.size)
    return _move(arguments[0], lambda a: np.take(a, picked, axis=axis))


def _gather_elements(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    picked = as_array(arguments[1], "indices").astype(np.int64)
    axis = position(node.attributes.get("axis") or 0, picked.ndim)
    return _move(arguments[0], lambda a: np.take_along_axis(a, picked, axis=axis))


def _split(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    shape = _shape_of(arguments[0])
    axis = position(node.attributes.get("axis") or 0, len(shape))
    sizes = argument(arguments, 1)
    given = node.attributes.get("split") if sizes is None else integers(sizes, "`split`")
    if given is None:
        count = len(node.outputs)
        each = -(-shape[axis] // count)
        given = [min(each, shape[axis] - i * each) for i in range(count)]
    if sum(given) != shape[axis] or min(given) < 0:
        raise Decline(f"`split` must add up to {shape[axis]}, was {given}")
    edges = np.cumsum([0, *given])
    return [_taken(arguments[0], np.arange(start, end), axis) for start, end in itertools.pairwise(edges)]


def _expand(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    target = np.broadcast_shapes(_shape_of(arguments[0]), tuple(integers(arguments[1], "the shape")))
    return [_broadcast(walk, arguments[0], target)]


def _broadcast(walk: Walk, value: Value, target: tuple[int, ...]) -> Value:
    walk.builder.spend(int(np.prod(target, dtype=object)))
    return layout(value, lambda a: np.broadcast_to(a, target))


def _tile(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    repeats = integers(arguments[1], "`repeats`")
    shape = _shape_of(arguments[0])
    if len(repeats) != len(shape) or min(repeats, default=0) < 0:
        raise Decline(f"`repeats` must hold {len(shape)} numbers >= 0, was {repeats}")
    walk.builder.spend(int(np.prod(shape, dtype=object)) * int(np.prod(repeats, dtype=object)))
    return _move(arguments[0], lambda a: np.tile(a, repeats))


def _identity(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    return [arguments[0]]


def extend(walk: Walk, value: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Zero padding of a tensor: more rows where the axis is time, the number zero elsewhere.

    Rows before the first are zero in the streaming engine as well. Rows after the last are not, and are lost unless a
    later slice removes them, as it does in a convolution padded on both sides and then cut.
    """
    size = value.shape[axis]
    if before < 0 or after < 0:  # a negative padding cuts
        cut = (slice(None),) * axis + (slice(max(-before, 0), size - max(-after, 0)),)
        return extend(walk, Tensor(value.col[cut], value.row[cut]), axis, max(before, 0), max(after, 0))
    if not before and not after:
        return value
    walk.builder.spend(int(np.prod(value.shape, dtype=object)) // max(size, 1) * (size + before + after))

    def edge(first: int, second: int, count: int, sign: int) -> tuple[Array, Array]:
        """`count` rows beyond the entry `first`, whose neighbour is `second`."""
        col, row = (np.take(a, [first], axis=axis) for a in (value.col, value.row))
        other_col, other_row = (np.take(a, [second], axis=axis) for a in (value.col, value.row))
        delta = (row - other_row) * sign
        distance = np.arange(1, count + 1)[::sign]
        along = np.reshape(distance, [-1 if i == axis else 1 for i in range(value.col.ndim)])
        rows = row + delta * along * sign
        time = (col == other_col) & (col >= 0) & (delta > 0)
        steps = steps_of(row)
        if sign < 0:  # only true of rows before the first one
            time &= steps - delta < 0
        rows, _ = np.broadcast_arrays(rows, col)
        time = np.broadcast_to(time, rows.shape)
        beyond = np.where(time, np.broadcast_to(col, rows.shape), ZERO)
        if sign > 0:
            if time.any():
                walk.note(f"expected padding before the first row only (causal), found {count} after the last")
            beyond = np.where(time, LOST, beyond)
        return beyond, np.where(time, rows, 0)

    second, last = min(1, size - 1), max(size - 2, 0)
    parts = [edge(0, second, before, -1), (value.col, value.row), edge(size - 1, last, after, 1)]
    return Tensor(*(np.concatenate([part[i] for part in parts], axis=axis) for i in (0, 1)))


def _pad(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value = arguments[0]
    mode = node.attributes.get("mode", "constant")
    amounts = argument(arguments, 1)
    pads = list(node.attributes["pads"]) if amounts is None else integers(amounts, "`pads`")
    rank = len(_shape_of(value))
    given = argument(arguments, 3)
    axes = list(range(rank)) if given is None else [position(a, rank) for a in integers(given, "`axes`")]
    if len(pads) != 2 * len(axes):
        raise Decline(f"`pads` must hold {2 * len(axes)} numbers, was {pads}")
    fill = argument(arguments, 2)
    number = node.attributes.get("value", 0.0) if fill is None else as_array(fill, "the padding").reshape(-1)[0]
    if isinstance(value, np.ndarray):
        widths = [(0, 0)] * rank
        for i, axis in enumerate(axes):
            widths[axis] = (pads[i], pads[i + len(axes)])
        if min(min(w) for w in widths) < 0 or mode != "constant":
            raise Decline("expected constants to be padded with constants, outwards")
        walk.builder.spend(
            int(np.prod([d + a + b for d, (a, b) in zip(value.shape, widths, strict=True)], dtype=object))
        )
        return [np.pad(value, widths, constant_values=number)]
    if mode != "constant" or number != 0:
        raise Decline(f"expected padding with zeros, was mode `{mode}` with value {number}")
    if not isinstance(value, Tensor):
        raise Decline("expected a tensor to be padded")
    for i, axis in enumerate(axes):
        value = extend(walk, value, axis, pads[i], pads[i + len(axes)])
    return [value]


def _joined(parts: list[Weights], axis: int) -> Value:
    """Constants of one stored format; of mixed formats only their numbers are kept."""
    array = np.concatenate([part.array for part in parts], axis=axis)
    if len({part.form for part in parts}) > 1:
        return array
    values = [part.values for part in parts if part.values is not None]
    scales = [part.scale for part in parts if part.scale is not None]
    if len(values) != len(parts) or len(scales) != len(parts):
        return Weights(array, parts[0].form)
    return Weights(array, parts[0].form, np.concatenate(values, axis=axis), np.concatenate(scales, axis=axis))


def _concat(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    axis = position(node.attributes.get("axis") or 0, len(_shape_of(arguments[0])))
    walk.builder.spend(sum(int(np.prod(_shape_of(v), dtype=object)) for v in arguments))
    if len(arguments) == 1:
        return [arguments[0]]
    if all(isinstance(value, Weights) for value in arguments):
        return [_joined([value for value in arguments if isinstance(value, Weights)], axis)]
    if not any(isinstance(value, Tensor) for value in arguments):
        arrays = [as_array(value, "every part") for value in arguments]
        return [np.concatenate(arrays, axis=axis)]
    tensors: list[Tensor] = []
    before = 0
    for value in arguments:  # zeros before a tensor are padding
        if isinstance(value, Tensor):
            if before:
                value, before = extend(walk, value, axis, before, 0), 0
            tensors.append(value)
            continue
        array = as_array(value, "every part that does not come from the input")
        if array.any():
            raise Decline("expected a constant that is joined to the input to be zero")
        if not tensors:
            before += array.shape[axis]
            continue
        last = tensors[-1]
        if [d for i, d in enumerate(last.shape) if i != axis] != [d for i, d in enumerate(array.shape) if i != axis]:
            raise Decline(f"expected parts of equal shape, are {list(last.shape)} and {list(array.shape)}")
        tensors[-1] = extend(walk, last, axis, 0, array.shape[axis])
    return [Tensor(*(np.concatenate([getattr(t, part) for t in tensors], axis=axis) for part in ("col", "row")))]


LAYOUT = {
    "Concat": _concat,
    "Dropout": _identity,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
