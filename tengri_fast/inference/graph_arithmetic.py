"""Operators of the importer that compute element by element, and those on constants alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tengri_fast.inference.graph_layout import argument, integers
from tengri_fast.inference.graph_values import (
    LOST,
    MAX_CONSTANT,
    ZERO,
    Array,
    Decline,
    Operation,
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

__all__ = ["ARITHMETIC", "affine", "combine", "lift"]

FAR = -5_000.0
"""A score at or below this is masked out: its exponential is zero beside any other."""


# Functions of one value, by what the engine calls them, and whether they keep zero.
_FUNCTIONS = {
    "Relu": ("relu", True), "Tanh": ("tanh", True), "Sigmoid": ("sigmoid", False), "Erf": ("erf", True),
    "Sqrt": ("sqrt", True), "Reciprocal": ("reciprocal", False),
}  # fmt: skip


def lift(walk: Walk, value: Tensor, kind: str, *, keeps_zero: bool, **params: Any) -> Tensor:
    """One operation by element on the columns of a tensor, wherever they stand in it."""
    builder = walk.builder
    builder.spend(value.col.size)
    present = np.unique(value.col)
    real = present[present >= 0]
    if real.size == 0:
        return value if keeps_zero else Tensor(np.full_like(value.col, LOST), value.row)
    table = np.full(builder.size + 2, LOST, np.int64)
    made = builder.add(kind, (real,), real.size, walk.name, builder.period(real), **params)
    table[real + 2] = made.columns
    if keeps_zero:
        table[ZERO + 2] = ZERO
    col = table[value.col + 2]
    if not keeps_zero:
        col = np.where(steps_of(value.row) < 0, LOST, col)
    return Tensor(col, value.row)


def _unary(op: str) -> Callable[..., list[Value]]:
    function, keeps = _FUNCTIONS[op]

    def operator(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
        value = arguments[0]
        if isinstance(value, Tensor):
            return [lift(walk, value, "unary", keeps_zero=keeps, function=function)]
        array = as_array(value, "the input")
        return [_CONSTANT[op](array)]

    return operator


def _gelu(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    how = node.attributes.get("approximate", "none")
    if how not in ("none", "tanh"):
        raise Decline(f"expected `approximate` none or tanh, was {how!r}")
    return [
        lift(walk, _tensor(arguments[0]), "unary", keeps_zero=True, function="gelu" if how == "none" else "gelu_tanh")
    ]


def _leaky(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    alpha = node.attributes.get("alpha")
    slope = float(0.01 if alpha is None else alpha)
    return [lift(walk, _tensor(arguments[0]), "unary", keeps_zero=True, function="leaky_relu", slope=slope)]


def _prelu(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    slopes = as_array(arguments[1], "the slopes")
    if np.unique(slopes).size != 1:
        raise Decline("expected one slope for all channels")
    slope = float(slopes.reshape(-1)[0])
    return [lift(walk, _tensor(arguments[0]), "unary", keeps_zero=True, function="leaky_relu", slope=slope)]


def _swish(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    if node.attributes.get("alpha") not in (None, 1.0):
        raise Decline(f"expected alpha = 1, was {node.attributes['alpha']}")
    return [lift(walk, _tensor(arguments[0]), "unary", keeps_zero=True, function="silu")]


def _tensor(value: Value) -> Tensor:
    if not isinstance(value, Tensor):
        raise Decline("expected something computed from the input")
    return value


def _bounds(node: Node, arguments: list[Value]) -> tuple[float | None, float | None]:
    found = []
    for index, name in ((1, "min"), (2, "max")):
        value = argument(arguments, index)
        given = node.attributes.get(name) if value is None else float(as_array(value, f"`{name}`").reshape(-1)[0])
        found.append(given)
    return found[0], found[1]


def _clip(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    low, high = _bounds(node, arguments)
    value = arguments[0]
    if isinstance(value, Tensor):
        if low != 0 or (high is not None and not high >= 3e38):
            raise Decline(f"expected to clip at 0 from below only, as ReLU, was [{low}, {high}]")
        return [lift(walk, value, "unary", keeps_zero=True, function="relu")]
    array = as_array(value, "the input")
    return [np.clip(array, low, high).astype(array.dtype)]


def _extreme(function: Any, low: bool) -> Callable[..., list[Value]]:
    def operator(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
        tensors = [v for v in arguments if isinstance(v, Tensor)]
        if tensors:
            others = [as_array(v, "all but one input") for v in arguments if not isinstance(v, Tensor)]
            if low or len(tensors) != 1 or len(others) != 1 or others[0].any():
                raise Decline("expected Max(x, 0), as ReLU")
            made = lift(walk, tensors[0], "unary", keeps_zero=True, function="relu")
            shape = np.broadcast_shapes(made.shape, others[0].shape)
            walk.builder.spend(int(np.prod(shape, dtype=object)))
            return [layout(made, lambda a: np.broadcast_to(a, shape))]
        result = as_array(arguments[0], "every input")
        for value in arguments[1:]:
            result = function(result, as_array(value, "every input"))
        return [np.asarray(result)]

    return operator


def affine(walk: Walk, value: Tensor, scale: Array | None, shift: Array | None) -> Tensor:
    """``scale * x + shift`` by element; constants may differ by column, or by step and column."""
    builder = walk.builder
    given = scale if scale is not None else shift
    assert given is not None
    if given.dtype.kind not in "fiu" or not np.isfinite(given).all():
        raise Decline("expected finite numbers")
    shape = np.broadcast_shapes(value.shape, given.shape)
    builder.spend(int(np.prod(shape, dtype=object)))
    col, row = (np.broadcast_to(a, shape) for a in (value.col, value.row))
    numbers = np.broadcast_to(given, shape).astype(np.float64)
    zeros = col == ZERO
    if shift is not None and np.any(zeros & (numbers != 0)):
        col = np.where(zeros & (numbers != 0), LOST, col)
    live = (col >= 0) & (steps_of(row) >= 0)
    if not live.any():
        return Tensor(np.where((col >= 0) & (shift is not None) & (numbers != 0), LOST, col), row)
    columns, inverse = np.unique(col[live], return_inverse=True)
    picked = numbers[live]
    low, high = np.full(columns.size, np.inf), np.full(columns.size, -np.inf)
    np.minimum.at(low, inverse, picked)
    np.maximum.at(high, inverse, picked)
    result = np.where(col >= 0, LOST, col)
    if np.array_equal(low, high):
        base, factor, offset = columns, np.ones(columns.size), np.zeros(columns.size)
        owner = builder.owner(columns)
        if owner is not None and owner.kind == "affine":
            at = columns - owner.base
            base, factor, offset = owner.cols[0][at], owner.params["scale"][at], owner.params["shift"][at]
        factor, offset = (factor * low, offset * low) if scale is not None else (factor, offset + low)
        new = base if (factor == 1).all() and (offset == 0).all() else _affine_columns(walk, base, factor, offset)
        table = np.full(builder.size + 2, LOST, np.int64)
        table[columns + 2] = new
        mapped = table[col + 2]
        keeps = (steps_of(row) >= 0) | (_shift_free(builder.owner(new)) if scale is not None else numbers == 0)
        return Tensor(np.where((col >= 0) & keeps, mapped, result), row)
    steps = steps_of(row[live])
    if builder.period(columns) != 1:
        raise Decline("expected numbers that differ by step at full rate only, not behind a stride")
    table = np.full((walk.steps, columns.size), np.nan)
    inside = steps < walk.steps
    table[steps[inside], inverse[inside]] = picked[inside]
    if np.array_equal(table[steps[inside], inverse[inside]], picked[inside]):
        kind = "table_mul" if scale is not None else "table_add"
        made = builder.add(kind, (columns,), columns.size, walk.name, 1, table=table)
        result[live] = np.where(inside, made.base + inverse, LOST)
        if scale is not None:  # rows before the first stay zero
            early = (col >= 0) & (steps_of(row) < 0) & np.isin(col, columns)
            result[early] = made.base + np.searchsorted(columns, col[early])
        return Tensor(result, row)
    pairs, inverse = np.unique(np.stack([col[live].astype(np.float64), picked], axis=1), axis=0, return_inverse=True)
    if len(pairs) > 1 << 16:
        raise Decline("expected a constant that depends on the feature, or on the step and the feature")
    ones, zero = np.ones(len(pairs)), np.zeros(len(pairs))
    base = pairs[:, 0].astype(np.int64)
    new = (
        _affine_columns(walk, base, pairs[:, 1], zero)
        if scale is not None
        else _affine_columns(walk, base, ones, pairs[:, 1])
    )
    result[live] = new[inverse.reshape(-1)]
    return Tensor(result, row)


def _shift_free(owner: Operation | None) -> bool:
    return owner is None or owner.kind != "affine" or not owner.params["shift"].any()


def _affine_columns(walk: Walk, base: Array, scale: Array, shift: Array) -> Array:
    period = walk.builder.period(base)
    made = walk.builder.add("affine", (base,), base.size, walk.name, period, scale=scale, shift=shift)
    return made.columns


def combine(walk: Walk, kind: str, a: Tensor, b: Tensor) -> Tensor:
    """Sum or product of two tensors, which must hold rows of the same steps."""
    builder = walk.builder
    shape = np.broadcast_shapes(a.shape, b.shape)
    builder.spend(2 * int(np.prod(shape, dtype=object)))
    a_col, a_row = (np.broadcast_to(v, shape) for v in (a.col, a.row))
    b_col, b_row = (np.broadcast_to(v, shape) for v in (b.col, b.row))
    both = (a_col >= 0) & (b_col >= 0)
    if np.any(both & (a_row != b_row)):
        at = np.argmax((both & (a_row != b_row)).reshape(-1))
        early, late = (steps_of(v.reshape(-1)[at]) for v in (a_row, b_row))
        raise Decline(f"expected rows of the same step to meet, found steps {early} and {late}; a look ahead or back?")
    lost = (a_col == LOST) | (b_col == LOST)
    if kind == "add":
        col = np.where(a_col == ZERO, b_col, a_col)
        row = np.where(a_col == ZERO, b_row, a_row)
    else:
        col = np.full(shape, ZERO, np.int64)
        row = np.where(a_col == ZERO, b_row, a_row)
    if both.any():
        codes = a_col[both] * np.int64(1 << 31) + b_col[both]
        pairs, inverse = np.unique(codes, return_inverse=True)
        new = _pair(walk, kind, pairs >> 31, pairs & ((1 << 31) - 1))
        col = col.copy()
        col[both] = new[inverse.reshape(-1)]
    return Tensor(np.where(lost, LOST, col), row)


def _pair(walk: Walk, kind: str, a: Array, b: Array) -> Array:
    """Columns of the sum or product of columns; products that are an activation or a norm are named."""
    from tengri_fast.inference import graph_patterns as patterns

    builder = walk.builder
    period = builder.period(np.concatenate([a, b]))
    if kind == "mul":
        found = patterns.product(walk, a, b)
        if found is not None:
            return found
    return builder.add(kind, (a, b), a.size, walk.name, period).columns


def _add(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    return [_sum(walk, arguments[0], arguments[1])]


def _sum(walk: Walk, a: Value, b: Value) -> Value:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return combine(walk, "add", a, b)
    if isinstance(b, Scores) or (isinstance(b, Tensor) and not isinstance(a, Scores)):
        a, b = b, a
    if isinstance(a, Tensor):
        return affine(walk, a, None, as_array(b, "what is added"))
    if isinstance(a, Scores):
        if a.shares:
            raise Decline("expected nothing to be added after the softmax")
        bias = as_array(b, "what is added to the scores").astype(np.float64)
        np.broadcast_shapes(a.shape, bias.shape)
        if len(bias.shape) > len(a.shape):
            raise Decline("expected a mask of at most as many axes as the scores")
        walk.builder.spend(bias.size)
        return replace(a, bias=a.bias + bias)
    return _both(np.add, a, b)


def _both(function: Any, a: Value, b: Value) -> Array:
    left, right = as_array(a, "both inputs"), as_array(b, "both inputs")
    if int(np.prod(np.broadcast_shapes(left.shape, right.shape), dtype=object)) > MAX_CONSTANT:
        raise Decline(f"a constant must have at most {MAX_CONSTANT} elements")
    with np.errstate(all="ignore"):
        result = np.asarray(function(left, right))
    kept = result.dtype.kind == "b" or left.dtype.kind != right.dtype.kind
    return result if kept else result.astype(np.result_type(left.dtype, right.dtype))


def _sub(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    a, b = arguments
    if isinstance(b, Tensor):
        return [_sum(walk, a, affine(walk, b, np.array(-1.0), None))]
    if isinstance(a, Tensor | Scores):
        return [_sum(walk, a, np.asarray(-as_array(b, "what is subtracted").astype(np.float64)))]
    return [_both(np.subtract, a, b)]


def _mul(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    return [_product(walk, arguments[0], arguments[1])]


def _product(walk: Walk, a: Value, b: Value) -> Value:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return combine(walk, "mul", a, b)
    if isinstance(b, Scores) or (isinstance(b, Tensor) and not isinstance(a, Scores)):
        a, b = b, a
    if isinstance(a, Tensor):
        return affine(walk, a, as_array(b, "the factor"), None)
    if isinstance(a, Scores):
        factor = as_array(b, "the factor of the scores").astype(np.float64)
        if factor.size != 1 or a.shares:
            raise Decline("expected scores to be multiplied by one number, before the softmax")
        number = float(factor.reshape(-1)[0])
        return replace(a, scale=a.scale * number, bias=a.bias * number)
    return _both(np.multiply, a, b)


def _div(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    a, b = arguments
    if isinstance(b, Tensor):
        return [_product(walk, a, lift(walk, b, "unary", keeps_zero=False, function="reciprocal"))]
    if isinstance(a, Tensor | Scores):
        divisor = as_array(b, "the divisor").astype(np.float64)
        if not divisor.all():
            raise Decline("expected a divisor other than 0")
        return [_product(walk, a, np.asarray(1.0 / divisor))]

    def divide(x: Array, y: Array) -> Array:
        if x.dtype.kind in "iu" and y.dtype.kind in "iu":  # ONNX rounds towards zero
            if not np.all(y):
                raise Decline("expected a divisor other than 0")
            return np.asarray(np.trunc(x / y).astype(np.result_type(x, y)))
        return np.asarray(x / y)

    return [_both(divide, a, b)]


def _pow(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value, exponent = arguments
    if not isinstance(value, Tensor):
        return [_both(np.power, value, exponent)]
    numbers = as_array(exponent, "the exponent")
    power = float(numbers.reshape(-1)[0]) if numbers.size == 1 else math.nan
    if power == 1:
        return [value]
    if power == 2:
        return [combine(walk, "mul", value, value)]
    if power == 3:
        return [combine(walk, "mul", combine(walk, "mul", value, value), value)]
    if power == 0.5:
        return [lift(walk, value, "unary", keeps_zero=True, function="sqrt")]
    if power == -0.5:
        root = lift(walk, value, "unary", keeps_zero=True, function="sqrt")
        return [lift(walk, root, "unary", keeps_zero=False, function="reciprocal")]
    raise Decline(f"expected an exponent of 1, 2, 3, 0.5 or -0.5, was {power}")


def _neg(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value = arguments[0]
    if isinstance(value, Tensor):
        return [affine(walk, value, np.array(-1.0), None)]
    return [-as_array(value, "the input")]


def _where(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    condition, a, b = as_array(arguments[0], "the condition").astype(bool), arguments[1], arguments[2]
    scores = [v for v in (a, b) if isinstance(v, Scores)]
    if len(scores) == 1:
        value = scores[0]
        keep = condition if value is a else ~condition
        fill = as_array(b if value is a else a, "the fill of a mask").astype(np.float64)
        walk.builder.spend(keep.size)
        if np.broadcast_to(keep, np.broadcast_shapes(keep.shape, value.shape)).all():
            return [value]
        if value.shares:
            raise Decline("expected a mask before the softmax, found one after it")
        if len(np.broadcast_shapes(keep.shape, value.shape)) > len(value.shape) or not np.max(fill) <= FAR:
            raise Decline(f"expected masked scores to become {FAR:g} or less, was {np.max(fill):g}")
        return [replace(value, bias=np.where(keep, value.bias, -np.inf))]
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        parts: list[Tensor] = []
        for part in (a, b):
            if isinstance(part, Tensor):
                parts.append(part)
                continue
            array = as_array(part, "the fill")
            if array.any():
                raise Decline("expected zeros where the input is left out")
            parts.append(Tensor(np.full(array.shape, ZERO, np.int64), np.zeros(array.shape, np.int64)))
        return [
            Tensor(np.where(condition, parts[0].col, parts[1].col), np.where(condition, parts[0].row, parts[1].row))
        ]
    left, right = as_array(a, "both values"), as_array(b, "both values")
    walk.builder.spend(int(np.prod(np.broadcast_shapes(condition.shape, left.shape, right.shape), dtype=object)))
    return [np.where(condition, left, right)]


def _isnan(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    value = arguments[0]
    if isinstance(value, Scores):  # shares are numbers wherever a row may attend to itself
        walk.builder.spend(int(np.prod(value.shape, dtype=object)))
        return [np.zeros(value.shape, bool)]
    return [np.isnan(as_array(value, "the input"))]


def _constant_node(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        value = node.attributes.get(name)
        if value is not None:
            if isinstance(value, np.ndarray):
                return [value]
            return [np.array(value, np.float32 if "float" in name else np.int64)]
    raise Decline("expected a number or a tensor of numbers")


_CASTS: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16,
    11: np.float64,
}  # fmt: skip


def _cast(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    return [_casted(arguments[0], node.attributes.get("to"))]


def _cast_like(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    other = arguments[1]
    if isinstance(other, Tensor | Scores | Weights):
        return [_casted(arguments[0], 1)]
    return [as_array(arguments[0], "the input").astype(as_array(other, "the type").dtype)]


def _casted(value: Value, to: Any) -> Value:
    if isinstance(value, Tensor | Scores | Weights):  # arithmetic is float32 throughout
        if to not in (1, 10, 11, 16):
            raise Decline(f"expected a cast to a floating point type, was ONNX type {to}")
        return value
    array = as_array(value, "the input")
    if to == 16:
        return array.astype(np.float32)
    if to not in _CASTS:
        raise Decline(f"expected a cast to a number type, was ONNX type {to}")
    if array.dtype == np.float16 and to in (1, 11):
        return Weights(array.astype(np.float32), "fp16")
    with np.errstate(all="ignore"):
        return array.astype(_CASTS[to])


def _constant_of_shape(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    fill = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if fill is None else fill
    dims = integers(arguments[0], "the shape")
    walk.builder.spend(int(np.prod([max(d, 1) for d in dims], dtype=object)))
    return [np.full(dims, fill.ravel()[0], dtype=fill.dtype)]


def _range(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    start, limit, delta = (as_array(v, "every bound").reshape(-1)[0] for v in arguments)
    if delta == 0:
        raise Decline("`delta` must not be 0")
    walk.builder.spend(max(0, math.ceil((float(limit) - float(start)) / float(delta))))
    return [np.arange(start, limit, delta).astype(np.asarray(start).dtype)]


def _trilu(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    offset = argument(arguments, 1)
    k = 0 if offset is None else int(as_array(offset, "`k`").reshape(-1)[0])
    k = max(-MAX_CONSTANT, min(k, MAX_CONSTANT))
    upper = node.attributes.get("upper")
    array = as_array(arguments[0], "the mask")
    return [np.triu(array, k) if upper is None or upper else np.tril(array, k)]


def _cumsum(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    if node.attributes.get("exclusive") or node.attributes.get("reverse"):
        raise Decline("expected exclusive = reverse = 0")
    array = as_array(arguments[0], "the input")
    return [np.cumsum(array, axis=integers(arguments[1], "`axis`")[0]).astype(array.dtype)]


def _erf(x: Array) -> Array:
    return np.array([math.erf(v) for v in x.reshape(-1)], x.dtype).reshape(x.shape)


def _numpy(function: Any, inputs: int) -> Callable[..., list[Value]]:
    def operator(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
        if len(arguments) < inputs:
            raise Decline(f"expected {inputs} inputs, has {len(arguments)}")
        if inputs == 2:
            return [_both(function, arguments[0], arguments[1])]
        array = as_array(arguments[0], "the input")
        with np.errstate(all="ignore"):
            result = np.asarray(function(array))
        return [result if result.dtype.kind == "b" else result.astype(array.dtype)]

    return operator


_CONSTANT: dict[str, Callable[[Array], Array]] = {
    "Relu": lambda x: np.maximum(x, 0).astype(x.dtype),
    "Tanh": np.tanh,
    "Sigmoid": lambda x: (1 / (1 + np.exp(-x))).astype(x.dtype),
    "Erf": _erf,
    "Sqrt": np.sqrt,
    "Reciprocal": lambda x: (1 / x).astype(x.dtype),
}

ARITHMETIC: dict[str, Callable[..., list[Value]]] = {
    "Abs": _numpy(np.abs, 1),
    "Add": _add,
    "And": _numpy(np.logical_and, 2),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _numpy(np.ceil, 1),
    "Clip": _clip,
    "Constant": _constant_node,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _numpy(np.cos, 1),
    "CumSum": _cumsum,
    "Div": _div,
    "Equal": _numpy(np.equal, 2),
    "Exp": _numpy(np.exp, 1),
    "Floor": _numpy(np.floor, 1),
    "Gelu": _gelu,
    "Greater": _numpy(np.greater, 2),
    "GreaterOrEqual": _numpy(np.greater_equal, 2),
    "IsNaN": _isnan,
    "LeakyRelu": _leaky,
    "Less": _numpy(np.less, 2),
    "LessOrEqual": _numpy(np.less_equal, 2),
    "Log": _numpy(np.log, 1),
    "Max": _extreme(np.maximum, low=False),
    "Min": _extreme(np.minimum, low=True),
    "Mod": _numpy(np.mod, 2),
    "Mul": _mul,
    "Neg": _neg,
    "Not": _numpy(np.logical_not, 1),
    "Or": _numpy(np.logical_or, 2),
    "PRelu": _prelu,
    "Pow": _pow,
    "Range": _range,
    "Round": _numpy(np.round, 1),
    "Sign": _numpy(np.sign, 1),
    "Sin": _numpy(np.sin, 1),
    "Sub": _sub,
    "Swish": _swish,
    "Trilu": _trilu,
    "Where": _where,
    "Xor": _numpy(np.logical_xor, 2),
    **{op: _unary(op) for op in _FUNCTIONS},
}
