"""Operators of the importer that mix features or steps: products with weights, convolutions, pooling, norms,
softmax."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tengri_fast.inference.graph_arithmetic import affine, lift
from tengri_fast.inference.graph_layout import argument, extend, integers, position
from tengri_fast.inference.graph_values import (
    BATCH,
    LOST,
    ZERO,
    Array,
    Decline,
    Scores,
    Tensor,
    Value,
    Weights,
    as_array,
    steps_of,
)
from tengri_fast.inference.onnx_reader import Node

if TYPE_CHECKING:
    from tengri_fast.inference.graph_walk import Walk

__all__ = ["LINEAR", "Group", "groups_of", "matrix_of"]

MAX_GROUPS = 256
NEVER = -(1 << 60)


@dataclass(frozen=True, eq=False)
class Group:
    """Places of a tensor where the same columns meet, at the same distances in time."""

    places: Array
    cols: Array
    ages: Array
    """Steps from each value to the newest one of its place."""


def groups_of(walk: Walk, col: Array, row: Array) -> tuple[list[Group], Array]:
    """Groups of the places [P, K], and the newest row of each place.

    Places that need a lost element, or a row after the last one, belong to no group.
    """
    walk.builder.spend(2 * col.size)
    zero = col == ZERO
    lost = (col == LOST) | (~zero & (steps_of(row) >= walk.steps))
    newest = np.where(zero, NEVER, row).max(axis=1) if col.shape[1] else np.full(len(col), NEVER)
    ages = np.where(zero, 0, newest[:, None] - row)
    codes = ages * np.int64(1 << 31) + (col + 2)
    open_ = ~lost.any(axis=1)
    if np.any(ages[open_] >= BATCH // 2):
        raise Decline("expected entries of the batch to stay apart")
    found: list[Group] = []
    while open_.any():
        if len(found) >= MAX_GROUPS:
            raise Decline(f"expected at most {MAX_GROUPS} different sets of features to be multiplied")
        first = int(np.argmax(open_))
        alike = open_ & (codes == codes[first]).all(axis=1)
        found.append(Group(np.flatnonzero(alike), col[first], ages[first]))
        open_ &= ~alike
    return found, newest


def matrix_of(value: Value, what: str) -> Weights:
    """Weights as float32 with their stored format."""
    if isinstance(value, Weights):
        return value
    array = as_array(value, what)
    if array.dtype == np.float16:
        return Weights(array.astype(np.float32), "fp16")
    if array.dtype != np.float32:
        raise Decline(f"expected {what} to be float32, was {array.dtype}")
    return Weights(array, "fp32")


def _turned(weights: Weights) -> Weights:
    parts = [None if p is None else np.swapaxes(p, -1, -2) for p in (weights.array, weights.values, weights.scale)]
    return Weights(parts[0], weights.form, parts[1], parts[2])  # type: ignore[arg-type]


def linear(walk: Walk, value: Tensor, weights: Weights, bias: Array | None) -> Tensor:
    """Products of the places [..., K] with weights [N, K]: a dense layer, or a convolution where steps meet."""
    if value.shape[-1] != weights.shape[1]:
        raise Decline(f"expected weights for {value.shape[-1]} features, have shape {list(weights.shape)}")
    if not np.isfinite(weights.array).all():
        raise Decline("expected weights to be finite")
    lead, k, n = value.shape[:-1], value.shape[-1], weights.shape[0]
    groups, newest = groups_of(walk, value.col.reshape(-1, k), value.row.reshape(-1, k))
    walk.builder.spend(len(newest) * n)
    col = np.full((len(newest), n), LOST, np.int64)
    row = np.broadcast_to(newest[:, None], col.shape)
    full = np.zeros(n, np.float32) if bias is None else np.broadcast_to(bias, (n,)).astype(np.float32)
    for group in groups:
        real = group.cols >= 0
        if not real.any():
            if not full.any():
                col[group.places] = ZERO
            continue
        period = _period(walk, group, newest)
        made = walk.builder.add(
            "linear", (group.cols[real],), n, walk.name, period, ages=group.ages[real], bias=full,
            form=weights.form, w=weights.array[:, real],
            values=None if weights.values is None else weights.values[:, real],
            scale=None if weights.scale is None else weights.scale[:, real],
        )  # fmt: skip
        col[group.places] = made.columns
    if full.any() and np.any((steps_of(row) < 0) & (row != NEVER)):
        walk.note("expected no bias on rows before the first one")
        col = np.where(steps_of(row) < 0, LOST, col)
    row = np.where(row == NEVER, 0, row)
    return Tensor(col.reshape(*lead, n), row.reshape(*lead, n))


def _period(walk: Walk, group: Group, newest: Array) -> int:
    """Steps between two rows of a product over several steps."""
    own = walk.builder.period(group.cols[group.cols >= 0])
    steps = np.unique(steps_of(newest[group.places]))
    steps = steps[steps >= 0]
    if not group.ages.any() or len(steps) < 2:
        return own
    spacing = int(np.diff(steps).min())
    if np.any(steps % spacing):
        raise Decline(
            f"expected strided rows at steps 0, {spacing}, {2 * spacing}, ..., were at {steps[:3].tolist()}, ..."
        )
    return spacing


def _matmul(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    a, b = arguments
    if isinstance(a, Scores) and isinstance(b, Tensor):
        from tengri_fast.inference.graph_attention import attend

        return [attend(walk, a, b)]
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        from tengri_fast.inference.graph_attention import scores_of

        return [scores_of(walk, a, b)]
    if isinstance(a, Tensor):
        weights = matrix_of(b, "the weights")
        if len(weights.shape) != 2:
            lead = [d for d in weights.shape[:-2] if d != 1]
            if len(weights.shape) < 2 or lead or len(weights.shape) > len(a.shape):
                raise Decline(f"expected weights of two dimensions, have shape {list(weights.shape)}")
            parts = [
                None if p is None else p.reshape(p.shape[-2:]) for p in (weights.array, weights.values, weights.scale)
            ]
            weights = Weights(parts[0], weights.form, parts[1], parts[2])  # type: ignore[arg-type]
        return [linear(walk, a, _turned(weights), None)]
    if isinstance(b, Tensor):  # weights on the left: features stand on the second to last axis
        weights = matrix_of(a, "the weights")
        if len(weights.shape) != 2 or len(b.shape) < 2:
            raise Decline("expected weights of two dimensions on the left")
        turned = Tensor(np.swapaxes(b.col, -1, -2), np.swapaxes(b.row, -1, -2))
        made = linear(walk, turned, weights, None)
        return [Tensor(np.swapaxes(made.col, -1, -2), np.swapaxes(made.row, -1, -2))]
    left, right = as_array(a, "one factor"), as_array(b, "one factor")
    walk.builder.spend(left.size * (right.shape[-1] if right.ndim > 1 else 1))
    with np.errstate(all="ignore"):
        return [left @ right]


def _gemm(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    attributes = node.attributes
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA"):
        raise Decline("expected alpha = beta = 1 and transA = 0")
    weights = matrix_of(arguments[1], "the weights")
    if len(weights.shape) != 2:
        raise Decline(f"expected weights of two dimensions, have shape {list(weights.shape)}")
    weights = weights if attributes.get("transB") else _turned(weights)
    bias = argument(arguments, 2)
    value = arguments[0]
    if not isinstance(value, Tensor):
        raise Decline("expected a row of features on the left")
    if bias is None or isinstance(bias, Tensor):
        made = linear(walk, value, weights, None)
        if bias is None:
            return [made]
        from tengri_fast.inference.graph_arithmetic import combine

        return [combine(walk, "add", made, bias)]
    numbers = _bias(bias, weights.shape[0])
    return [linear(walk, value, weights, numbers)]


def _bias(value: Value, size: int) -> Array:
    array = matrix_of(value, "the bias").array
    if array.size not in (1, size) or array.ndim > 2 or (array.ndim and array.shape[-1] != array.size):
        raise Decline(f"expected a bias of {size} values, has shape {list(array.shape)}")
    return np.broadcast_to(array.reshape(-1), (size,))


# Convolution and pooling over [batch, channels, time], or with levels beside the time in either order.


@dataclass(frozen=True)
class _Kernel:
    size: int
    stride: int
    dilation: int
    before: int
    after: int


def _kernels(node: Node, sizes: list[int], shape: tuple[int, ...]) -> list[_Kernel]:
    rank = len(sizes)
    strides = node.attributes.get("strides") or [1] * rank
    dilations = node.attributes.get("dilations") or [1] * rank
    pads = node.attributes.get("pads") or [0] * (2 * rank)
    auto = node.attributes.get("auto_pad", "NOTSET")
    if not len(strides) == len(dilations) == rank or len(pads) != 2 * rank or len(shape) != rank + 2:
        raise Decline(f"expected strides, dilations and pads for {rank} axes")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise Decline(f"expected a known `auto_pad`, was {auto!r}")
    out = []
    for i in range(rank):
        before, after = pads[i], pads[i + rank]
        if auto.startswith("SAME"):
            total = max(
                (-(-shape[i + 2] // strides[i]) - 1) * strides[i] + (sizes[i] - 1) * dilations[i] + 1 - shape[i + 2], 0
            )
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = total - before
        if min(sizes[i], strides[i], dilations[i]) < 1 or min(before, after) < 0:
            raise Decline("expected positive kernel sizes, strides and dilations")
        out.append(_Kernel(sizes[i], strides[i], dilations[i], before, after))
    return out


def _patches(walk: Walk, value: Tensor, axis: int, kernel: _Kernel) -> Tensor:
    """The axis cut into patches: [..., positions, kernel, ...], oldest entry first."""
    value = extend(walk, value, axis, kernel.before, kernel.after)
    size = value.shape[axis]
    count = (size - (kernel.size - 1) * kernel.dilation - 1) // kernel.stride + 1
    if count < 1:
        raise Decline(f"expected at least {(kernel.size - 1) * kernel.dilation + 1} entries on axis {axis}, has {size}")
    index = np.arange(count)[:, None] * kernel.stride + np.arange(kernel.size)[None] * kernel.dilation
    walk.builder.spend(value.col.size // size * index.size)
    return Tensor(np.take(value.col, index, axis=axis), np.take(value.row, index, axis=axis))


def _time_axis(value: Tensor) -> int | None:
    """Which of the spatial axes runs over steps; None if none does."""
    for axis in range(2, len(value.shape)):
        low = np.where(value.col >= 0, value.row, 1 << 60).min(axis=axis)
        if np.any(np.where(value.col >= 0, value.row, NEVER).max(axis=axis) > low):
            return axis
    return None


def _conv(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value = arguments[0]
    if not isinstance(value, Tensor) or len(value.shape) not in (3, 4):
        raise Decline("expected an input of three or four axes: batch, channels, time (and levels)")
    weights = matrix_of(arguments[1], "the weights")
    groups = node.attributes.get("group")
    groups = 1 if groups is None else groups
    if len(weights.shape) != len(value.shape) or groups < 1 or weights.shape[1] * groups != value.shape[1] \
            or weights.shape[0] % groups:  # fmt: skip
        raise Decline(
            f"expected weights for {value.shape[1]} channels in {groups} groups, have shape {list(weights.shape)}"
        )
    if not np.isfinite(weights.array).all():
        raise Decline("expected weights to be finite")
    out = weights.shape[0]
    bias = argument(arguments, 2)
    numbers = np.zeros(out, np.float32) if bias is None else np.array(_bias(bias, out))
    kernels = _kernels(node, list(weights.shape[2:]), value.shape)
    time = _time_axis(value)
    if len(value.shape) == 3:  # one more axis of size 1 beside the one there is
        at = 3 if time == 2 else 2
        value = Tensor(np.expand_dims(value.col, at), np.expand_dims(value.row, at))
        parts = (weights.array, weights.values, weights.scale)
        array, values, scale = (None if p is None else np.expand_dims(p, at) for p in parts)
        weights = Weights(array, weights.form, values, scale)  # type: ignore[arg-type]
        kernels.insert(at - 2, _Kernel(1, 1, 1, 0, 0))
        swap = False
    else:
        swap = time == 3
    if swap:  # time first, then levels
        value = Tensor(value.col.swapaxes(2, 3), value.row.swapaxes(2, 3))
        weights = _turned(weights)
        kernels = kernels[::-1]
    made = _convolve(walk, value, weights, numbers, groups, kernels[0], kernels[1])
    if swap:
        made = Tensor(made.col.swapaxes(2, 3), made.row.swapaxes(2, 3))
    if len(arguments[0].shape) == 3:  # type: ignore[union-attr]
        made = Tensor(made.col.squeeze(at), made.row.squeeze(at))
    return [made]


def _convolve(
    walk: Walk, value: Tensor, weights: Weights, bias: Array, groups: int, time: _Kernel, level: _Kernel
) -> Tensor:
    """`value` [B, C, T, L], `weights` [N, C / groups, taps, level kernel]."""
    batch, channels, _, levels = value.shape
    if (level.before or level.after) and levels > 1:
        raise Decline(f"expected no padding over levels, was {[level.before, level.after]}")
    if level.dilation != 1 and level.size > 1:
        raise Decline(f"expected no dilation over levels, was {level.dilation}")
    if levels < level.size:
        raise Decline(f"expected a kernel over at most {levels} levels, was {level.size}")
    patches = _patches(walk, value, 2, time)  # [B, C, positions, taps, L]
    positions = patches.shape[2]
    col = patches.col.transpose(0, 2, 3, 4, 1).reshape(batch * positions, -1)  # [B * positions, taps * L * C]
    row = patches.row.transpose(0, 2, 3, 4, 1).reshape(batch * positions, -1)
    found, newest = groups_of(walk, col, row)
    found = [group for group in found if (group.cols >= 0).any() and np.any(steps_of(newest[group.places]) >= 0)]
    if not found:
        raise Decline("expected at least one step with all rows of the kernel; the window is too short")
    if len(found) > 1:
        raise Decline("expected the same channels at every step, found several sets")
    group, n = found[0], weights.shape[0]
    own = walk.builder.period(group.cols[group.cols >= 0])
    period = own * time.stride
    steps = steps_of(newest[group.places])
    bad = steps[(steps >= 0) & (steps % period != 0)]
    if bad.size:
        raise Decline(f"expected strided rows at steps 0, {period}, {2 * period}, ..., was one at step {int(bad[0])}")
    if steps.min() > 0:
        walk.note(f"expected padding on the left, so that the first row is of step 0, is of step {int(steps.min())}")
    shape = (time.size, levels * channels)
    cols, ages = group.cols.reshape(shape), group.ages.reshape(shape)
    if np.any((ages != ages[:, :1]) & (cols >= 0)):
        raise Decline("expected the channels and levels of one step to meet, found several steps")
    if np.any(cols < 0):
        raise Decline("expected channels that come from the input, found constant zeros")
    out_levels = (levels - level.size) // level.stride + 1
    if levels == 1 and groups == 1:
        flat = [None if p is None else p.reshape(n, channels, time.size).transpose(0, 2, 1).reshape(n, -1)
                for p in (weights.array, weights.values, weights.scale)]  # fmt: skip
        made = walk.builder.add(
            "linear", (cols,), n, walk.name, period, ages=ages.reshape(-1), bias=bias, form=weights.form,
            w=flat[0], values=flat[1], scale=flat[2],
        )  # fmt: skip
    else:
        if groups > 1 and levels > 1:
            raise Decline(f"expected one group where there are levels, was {groups}")
        made = walk.builder.add(
            "conv", tuple(cols), out_levels * n, walk.name, period, ages=ages[:, 0], bias=bias, form=weights.form,
            w=weights.array, values=weights.values, scale=weights.scale, groups=groups, levels=levels,
            level_kernel=level.size, level_stride=level.stride,
        )  # fmt: skip
    result = np.full((batch * positions, out_levels * n), LOST, np.int64)
    result[group.places] = made.columns
    if bias.any() and np.any(steps_of(newest[group.places]) < 0):
        walk.note("expected padding that ends at step 0, found more")
        result[steps_of(newest) < 0] = LOST
    rows = np.broadcast_to(np.where(newest == NEVER, 0, newest)[:, None], result.shape)
    back = (batch, positions, out_levels, n)
    return Tensor(result.reshape(back).transpose(0, 3, 1, 2), rows.reshape(back).transpose(0, 3, 1, 2))


def _pooled(walk: Walk, value: Tensor, pool: str, *, ignore: bool) -> Tensor:
    """Pools the last axis, which holds rows of consecutive steps of the same column; oldest first.

    `ignore`: padding does not count; False: its zeros do.
    """
    lead, k = value.shape[:-1], value.shape[-1]
    col, row = value.col.reshape(-1, k), value.row.reshape(-1, k)
    walk.builder.spend(3 * col.size)
    newest = row[:, -1]
    last = col[:, -1]
    lost = (col == LOST).any(axis=1) | (steps_of(row) >= walk.steps).any(axis=1) | (last < 0)
    if lost.all():
        raise Decline("expected rows that come from the input")
    period = walk.builder.period(last[~lost])
    ages = np.where(col >= 0, newest[:, None] - row, 0)
    wanted = np.arange(k - 1, -1, -1) * period
    if walk.delays and np.all((col >= 0) & (newest[:, None] - row == wanted)):  # rows held back by a state
        made = walk.builder.add("pool", col.T, len(col), walk.name, period, window=k, pool=pool, partial=ignore)
        return Tensor(made.columns.reshape(lead), newest.reshape(lead))
    early = steps_of(newest)[:, None] - wanted < 0  # before the first row
    fits = np.where(early, (col == ZERO) | (col == last[:, None]), (col == last[:, None]) & (ages == wanted))
    if not fits[~lost].all():
        raise Decline("expected to pool one feature over consecutive steps up to the newest")
    padded = np.any(early[~lost] & (steps_of(newest)[~lost] >= 0)[:, None])
    columns, inverse = np.unique(last[~lost], return_inverse=True)
    window = 0 if walk.open and not padded and k == (walk.steps - 1) // period + 1 else k  # 0: all rows there are
    if pool == "max" and padded and not ignore and not _never_negative(walk, columns):
        raise Decline("expected the padding of a maximum to be ignored, found zeros among values that may be negative")
    made = walk.builder.add(
        "pool", (columns,), columns.size, walk.name, period, window=window, pool=pool,
        partial=ignore or not padded,
    )  # fmt: skip
    result = np.full(len(col), LOST, np.int64)
    result[~lost] = made.base + inverse.reshape(-1)
    return Tensor(result.reshape(lead), newest.reshape(lead))


def _never_negative(walk: Walk, cols: Array) -> bool:
    owner = walk.builder.owner(cols)
    return owner is not None and owner.kind == "unary" and owner.params["function"] in ("relu", "sigmoid")


def _pool(pool: str) -> Any:
    def operator(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
        value = arguments[0]
        if not isinstance(value, Tensor) or len(value.shape) not in (3, 4):
            raise Decline("expected an input of three or four axes: batch, channels, time (and levels)")
        if node.attributes.get("ceil_mode"):
            raise Decline("expected ceil_mode = 0")
        sizes = node.attributes.get("kernel_shape") or []
        kernels = _kernels(node, list(sizes), value.shape)
        time = _time_axis(value)
        for index, kernel in enumerate(kernels):
            if index + 2 != time and (kernel.size, kernel.stride, kernel.before, kernel.after) != (1, 1, 0, 0):
                raise Decline("expected pooling over time only")
        if time is None:
            return [value]
        kernel = kernels[time - 2]
        if kernel.stride != 1 or kernel.dilation != 1:
            raise Decline(f"expected pooling at every step, was stride {kernel.stride} and dilation {kernel.dilation}")
        patches = _patches(walk, value, time, kernel)
        moved = Tensor(np.moveaxis(patches.col, time + 1, -1), np.moveaxis(patches.row, time + 1, -1))
        counted = pool == "mean" and bool(node.attributes.get("count_include_pad"))
        return [_pooled(walk, moved, pool, ignore=bool(kernel.before) and not counted)]

    return operator


def _reduce(function: str) -> Any:
    def operator(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
        value = arguments[0]
        given = argument(arguments, 1)
        axes = node.attributes.get("axes") if given is None else integers(given, "`axes`")
        if not axes:  # none given: all of them, or on demand none
            if node.attributes.get("noop_with_empty_axes"):
                return [value]
            axes = None
        if not isinstance(value, Tensor):
            return [_reduced_constant(function, as_array(value, "the input"), axes, node.attributes.get("keepdims"))]
        rank = len(value.shape)
        gone = list(range(rank)) if axes is None else sorted({position(a, rank) for a in axes})
        keep = node.attributes.get("keepdims")
        result = _reduce_tensor(walk, value, gone, function)
        if keep is None or keep:
            shape = [1 if i in gone else d for i, d in enumerate(value.shape)]
            result = Tensor(result.col.reshape(shape), result.row.reshape(shape))
        return [result]

    return operator


def _reduced_constant(function: str, array: Array, axes: Any, keep: Any) -> Array:
    functions: dict[str, Any] = {"mean": np.mean, "sum": np.sum, "max": np.max}
    reduce = functions[function]
    axis = None if axes is None else tuple(axes)
    return np.asarray(reduce(array, axis=axis, keepdims=keep is None or bool(keep))).astype(array.dtype)


def _reduce_tensor(walk: Walk, value: Tensor, gone: list[int], function: str) -> Tensor:
    if any(value.shape[i] == 1 for i in gone):  # an axis of one entry changes nothing
        kept = [i for i in gone if value.shape[i] > 1]
        shape = [d for i, d in enumerate(value.shape) if not (i in gone and d == 1)]
        moved = [i - sum(1 for j in gone if j < i and value.shape[j] == 1) for i in kept]
        value, gone = Tensor(value.col.reshape(shape), value.row.reshape(shape)), moved
    if not gone:
        return value
    order = [i for i in range(len(value.shape)) if i not in gone] + gone
    lead = [value.shape[i] for i in order[: len(order) - len(gone)]]
    col, row = (a.transpose(order).reshape(*lead, -1) for a in (value.col, value.row))
    flat = Tensor(col, row)
    real = col >= 0
    if not np.any(real & (row != row[..., :1])):  # over features
        if function == "max":
            raise Decline("expected a maximum over time, found one over features")
        made = _by_group(walk, flat, "mean")
        return made if function == "mean" else affine(walk, made, np.array(float(col.shape[-1])), None)
    return _pooled(walk, flat, function, ignore=False)


def _by_group(walk: Walk, value: Tensor, kind: str, **params: Any) -> Tensor:
    """One value ("mean") or one row of equal width ("softmax") per group of features along the last axis."""
    lead, k = value.shape[:-1], value.shape[-1]
    groups, newest = groups_of(walk, value.col.reshape(-1, k), value.row.reshape(-1, k))
    if any(group.ages.any() or (group.cols < 0).any() for group in groups):
        raise Decline("expected features of one step, found several steps or padding")
    if not groups:
        raise Decline("expected features of the input")
    cols = np.concatenate([group.cols for group in groups])
    each = 1 if kind == "mean" else k
    made = walk.builder.add(
        kind, (cols,), each * len(groups), walk.name, walk.builder.period(cols), **({"groups": len(groups)} | params)
    )
    col = np.full((len(newest), each), LOST, np.int64)
    for number, group in enumerate(groups):
        col[group.places] = made.base + number * each + np.arange(each)
    row = np.broadcast_to(newest[:, None], col.shape)
    col = np.where(steps_of(row) < 0, LOST, col)
    shape = lead if kind == "mean" else (*lead, k)
    return Tensor(col.reshape(shape), row.reshape(shape))


def _softmax(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value = arguments[0]
    if value is None or isinstance(value, np.ndarray | Weights) or not hasattr(value, "shape"):
        raise Decline("expected something computed from the input")
    rank = len(value.shape)
    default = -1 if walk.graph.opset >= 13 else 1
    axis = node.attributes.get("axis")
    axis = position(default if axis is None else axis, rank)
    if isinstance(value, Scores):
        if axis != rank - 1 or value.shares:
            raise Decline("expected one softmax over the last axis of the scores")
        return [replace(value, shares=True)]
    if walk.graph.opset < 13 and axis != rank - 1 and any(d != 1 for d in value.shape[axis + 1 :]):
        raise Decline(f"expected softmax over the last axis, was axis {axis} of {rank}")
    assert isinstance(value, Tensor)
    moved = Tensor(np.moveaxis(value.col, axis, -1), np.moveaxis(value.row, axis, -1))
    if np.any((moved.row != moved.row[..., :1]) & (moved.col >= 0)):
        raise Decline("expected softmax over features, found one over steps")
    made = _by_group(walk, moved, "softmax")
    return [Tensor(np.moveaxis(made.col, -1, axis), np.moveaxis(made.row, -1, axis))]


def _norm_of(walk: Walk, value: Value, axis: int, norm: str, epsilon: float) -> Tensor:
    if not isinstance(value, Tensor):
        raise Decline("expected something computed from the input")
    first = position(axis, len(value.shape))
    lead, size = value.shape[:first], int(np.prod(value.shape[first:]))
    groups, newest = groups_of(walk, value.col.reshape(-1, size), value.row.reshape(-1, size))
    col = np.full((len(newest), size), LOST, np.int64)
    for group in groups:
        if group.ages.any() or (group.cols < 0).any():
            raise Decline("expected a norm over the features of one step, found several steps")
        made = walk.builder.add(
            "norm", (group.cols,), size, walk.name, walk.builder.period(group.cols), norm=norm, epsilon=epsilon,
            gamma=None, beta=None,
        )  # fmt: skip
        col[group.places] = made.columns
    row = np.broadcast_to(newest[:, None], col.shape)
    col = np.where(steps_of(row) < 0, LOST, col)
    return Tensor(col.reshape(lead + value.shape[first:]), row.reshape(lead + value.shape[first:]))


def _layer_norm(norm: str) -> Any:
    def operator(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
        axis, epsilon = node.attributes.get("axis"), node.attributes.get("epsilon")
        made = _norm_of(walk, arguments[0], -1 if axis is None else axis, norm, 1e-5 if epsilon is None else epsilon)
        for index in (1, 2):
            numbers = argument(arguments, index)
            if numbers is None:
                continue
            array = matrix_of(numbers, "scale and bias of the norm").array
            made = affine(walk, made, array if index == 1 else None, array if index == 2 else None)
        return [made]

    return operator


def _batch_norm(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value = arguments[0]
    if not isinstance(value, Tensor) or node.attributes.get("training_mode"):
        raise Decline("expected batch normalisation in evaluation mode, of something computed from the input")
    scale, shift, mean, variance = (matrix_of(v, "the statistics").array.astype(np.float64) for v in arguments[1:5])
    epsilon = node.attributes.get("epsilon")
    factor = scale / np.sqrt(variance + (1e-5 if epsilon is None else epsilon))
    shape = [-1 if i == 1 else 1 for i in range(len(value.shape))]
    scaled = affine(walk, value, factor.reshape(shape), None)
    return [affine(walk, scaled, None, (shift - mean * factor).reshape(shape))]


def _zero_point(arguments: list[Value]) -> np.dtype[Any]:
    zero = argument(arguments, 2)
    if zero is None:
        return np.dtype(np.uint8)
    array = as_array(zero, "the zero point")
    if array.any():
        raise Decline("expected zero points of 0")
    return array.dtype


def _quantize(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    kind = _zero_point(arguments)
    forms = {"int8": "int8", "int16": "int8a16"}
    if kind.name not in forms:
        raise Decline(f"expected symmetric int8 or int16, was {kind.name}")
    scale = as_array(arguments[1], "the scale").astype(np.float32)
    value = arguments[0]
    if not isinstance(value, Tensor) or scale.size != 1 or not scale.reshape(-1)[0] > 0 or not np.isfinite(scale).all():
        raise Decline("expected one positive scale for something computed from the input")
    number = float(scale.reshape(-1)[0])
    made = lift(walk, value, "quant", keeps_zero=True, scale=number, form=forms[kind.name])
    return [lift(walk, made, "integer", keeps_zero=True)]  # until it is dequantised, nothing else may read it


def _dequantize(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value, scale = arguments[0], as_array(arguments[1], "the scale").astype(np.float32)
    kind = _zero_point(arguments)
    if isinstance(value, Tensor):
        held = value.col >= 0
        integer = walk.builder.owner(np.unique(value.col[held]))
        if integer is None or integer.kind != "integer" or scale.size != 1:
            raise Decline("expected a value that was quantised just before, and one scale")
        col = value.col.copy()
        col[held] = integer.cols[0][col[held] - integer.base]
        quant = walk.builder.owner(col[held])
        if quant is None or float(scale.reshape(-1)[0]) != quant.params["scale"]:
            raise Decline("expected the scale with which the value was quantised")
        return [Tensor(col, value.row)]
    array = as_array(value, "the weights")
    if array.dtype != np.int8 or kind not in (np.int8, np.uint8):
        raise Decline(f"expected int8 weights, was {array.dtype}")
    if array.size and array.min() < -127:
        raise Decline("expected int8 weights in [-127, 127], found -128")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise Decline("expected scales to be finite and > 0")
    if scale.size > 1:
        axis = position(node.attributes.get("axis", 1), array.ndim)
        if scale.shape != (array.shape[axis],) or node.attributes.get("block_size"):
            raise Decline(f"expected one scale per entry of axis {axis}, has shape {list(scale.shape)}")
        scale = scale.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    full = np.broadcast_to(scale.reshape(scale.shape if scale.size > 1 else ()), array.shape)
    return [Weights((array.astype(np.float32) * full).astype(np.float32), "int8", array, full)]


LINEAR = {
    "AveragePool": _pool("mean"),
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda walk, node, arguments: [_global_pool(walk, arguments[0], "mean")],
    "GlobalMaxPool": lambda walk, node, arguments: [_global_pool(walk, arguments[0], "max")],
    "LayerNormalization": _layer_norm("layer"),
    "MatMul": _matmul,
    "MaxPool": _pool("max"),
    "QuantizeLinear": _quantize,
    "RMSNormalization": _layer_norm("rms"),
    "ReduceMax": _reduce("max"),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "SimplifiedLayerNormalization": _layer_norm("rms"),
    "Softmax": _softmax,
}


def _global_pool(walk: Walk, value: Value, pool: str) -> Value:
    if not isinstance(value, Tensor) or len(value.shape) < 3:
        raise Decline("expected an input of three axes or more")
    shape = [d if i < 2 else 1 for i, d in enumerate(value.shape)]
    made = _reduce_tensor(walk, value, list(range(2, len(value.shape))), pool)
    return Tensor(made.col.reshape(shape), made.row.reshape(shape))
