"""Products that are an activation or a norm written out: SiLU, both GELUs, LayerNorm and RMSNorm.

Exporters write these as several operators, in several orders. All of them end in one product, so that is where they are
recognised, by what its two factors are made of.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tengri_fast.inference.graph_values import Array, Builder, Operation

if TYPE_CHECKING:
    from tengri_fast.inference.graph_walk import Walk

__all__ = ["base_of", "product", "unary_operand"]

TOLERANCE = 1e-5
TANH_LINEAR = math.sqrt(2.0 / math.pi)
TANH_CUBIC = 0.044715


def base_of(builder: Builder, cols: Array) -> tuple[Array, Array, Array]:
    """Columns, scale and shift with ``cols = scale * columns + shift``; scale 1 where they are no affine
    operation's."""
    owner = builder.owner(cols)
    if owner is None or owner.kind != "affine":
        return cols, np.ones(cols.size), np.zeros(cols.size)
    at = cols - owner.base
    return owner.cols[0][at], owner.params["scale"][at], owner.params["shift"][at]


def unary_operand(builder: Builder, cols: Array, function: str) -> Array | None:
    """The operand where the columns are this function of something."""
    owner = builder.owner(cols)
    if owner is None or owner.kind != "unary" or owner.params["function"] != function:
        return None
    return builder.operand(owner, 0, cols)


def product(walk: Walk, a: Array, b: Array) -> Array | None:
    """Columns of a named operation equal to ``a * b``, or None."""
    for x, gate in ((a, b), (b, a)):
        for rule in (_silu, _gelu, _norm):
            found = rule(walk, x, gate)
            if found is not None:
                return found
    return None


def _unary(walk: Walk, cols: Array, function: str) -> Array:
    unique, inverse = np.unique(cols, return_inverse=True)
    made = walk.builder.add("unary", (unique,), unique.size, walk.name, walk.builder.period(unique), function=function)
    return np.asarray(made.columns[inverse.reshape(-1)])


def _silu(walk: Walk, x: Array, gate: Array) -> Array | None:
    operand = unary_operand(walk.builder, gate, "sigmoid")
    if operand is None or not np.array_equal(operand, x):
        return None
    return _unary(walk, x, "silu")


Polynomial = dict[int, Array]


def _polynomial(builder: Builder, cols: Array, variable: Array, depth: int = 8) -> Polynomial | None:
    """Columns as a polynomial of at most the third degree in the columns of `variable`."""
    if np.array_equal(cols, variable):
        return {1: np.ones(cols.size)}
    owner = builder.owner(cols)
    if owner is None or depth == 0:
        return None
    if owner.kind == "affine":
        base, scale, shift = base_of(builder, cols)
        inner = _polynomial(builder, base, variable, depth - 1)
        if inner is None:
            return None
        scaled = {power: c * scale for power, c in inner.items()}
        scaled[0] = scaled.get(0, np.zeros(cols.size)) + shift
        return scaled
    if owner.kind not in ("add", "mul"):
        return None
    parts = [_polynomial(builder, builder.operand(owner, i, cols), variable, depth - 1) for i in (0, 1)]
    left, right = parts
    if left is None or right is None:
        return None
    out: Polynomial = {}
    if owner.kind == "add":
        for part in (left, right):
            for power, c in part.items():
                out[power] = out.get(power, np.zeros(cols.size)) + c
        return out
    for p, c in left.items():
        for q, d in right.items():
            if p + q > 3:
                return None
            out[p + q] = out.get(p + q, np.zeros(cols.size)) + c * d
    return out


def _same(found: Polynomial, wanted: Polynomial, unit: Array) -> bool:
    """Whether two polynomials in x are one; coefficients are compared as those of a polynomial in ``unit * x``, for a
    small factor would make every coefficient of a high power small.
    """
    zero = np.zeros(1)
    return all(
        np.all(
            np.abs(found.get(p, zero) - wanted.get(p, zero))
            <= TOLERANCE * (np.abs(wanted.get(p, zero)) + np.abs(unit) ** p)
        )
        for p in range(4)
    )


def _gelu(walk: Walk, x: Array, gate: Array) -> Array | None:
    """``r x * s (1 + f(...x))`` with f = erf, or tanh of the cubic; r and s are numbers."""
    builder = walk.builder
    inner, scale, shift = base_of(builder, gate)
    for function, name in (("erf", "gelu"), ("tanh", "gelu_tanh")):
        operand = unary_operand(builder, inner, function)
        if operand is None:
            continue
        if not np.allclose(scale, shift, rtol=TOLERANCE) or np.ptp(scale) or not scale[0]:
            return None
        variable, alpha, beta = base_of(builder, x)
        found = _polynomial(builder, operand, variable)
        if found is None:
            return None
        for r in (1.0, 0.5):
            a, b = alpha / r, beta / r  # the argument of the GELU is a * variable + b
            if function == "erf":
                wanted = {0: b * math.sqrt(0.5), 1: a * math.sqrt(0.5)}
            else:
                cubic = {0: b**3, 1: 3 * a * b * b, 2: 3 * a * a * b, 3: a**3}
                wanted = {p: TANH_LINEAR * TANH_CUBIC * c for p, c in cubic.items()}
                wanted[0] = wanted[0] + TANH_LINEAR * b
                wanted[1] = wanted[1] + TANH_LINEAR * a
            if not _same(found, wanted, a):
                continue
            argument = variable
            if not ((a == 1).all() and (b == 0).all()):
                argument = x if r == 1.0 else _affine(walk, variable, a, b)
            made = _unary(walk, argument, name)
            factor = 2.0 * r * scale
            return made if np.allclose(factor, 1.0, rtol=1e-7) else _affine(walk, made, factor, np.zeros(factor.size))
    return None


def _affine(walk: Walk, cols: Array, scale: Array, shift: Array) -> Array:
    period = walk.builder.period(cols)
    return walk.builder.add("affine", (cols,), cols.size, walk.name, period, scale=scale, shift=shift).columns


def _mean_of(builder: Builder, cols: Array) -> tuple[Operation, Array] | None:
    """The operation of feature means that makes the columns, and which of its means each is."""
    owner = builder.owner(cols)
    return None if owner is None or owner.kind != "mean" else (owner, cols - owner.base)


def _members(mean: Operation, group: int) -> Array:
    size = mean.cols[0].size // mean.width
    return np.asarray(mean.cols[0][group * size : (group + 1) * size])


def _norm(walk: Walk, x: Array, gate: Array) -> Array | None:
    """``d * 1 / sqrt(mean(d^2) + epsilon)``, over one or several groups of features."""
    builder = walk.builder
    root = unary_operand(builder, gate, "reciprocal")
    variance = None if root is None else unary_operand(builder, root, "sqrt")
    if variance is None:
        return None
    base, scale, shift = base_of(builder, variance)
    found = _mean_of(builder, base)
    if found is None or not np.allclose(scale, 1.0) or np.ptp(shift) or not 0 < shift[0] < 1:
        return None
    mean, groups = found
    result = np.empty(x.size, np.int64)
    for group in np.unique(groups):
        here = groups == group
        squares = _members(mean, int(group))
        owner = builder.owner(squares)
        if owner is None or owner.kind != "mul" or here.sum() != squares.size:
            return None
        left, right = (builder.operand(owner, i, squares) for i in (0, 1))
        if not np.array_equal(left, right) or not np.array_equal(np.sort(left), np.sort(x[here])):
            return None
        centred = _centred(builder, x[here])
        kind, rows = ("rms", x[here]) if centred is None else ("layer", centred)
        made = builder.add(
            "norm",
            (rows,),
            rows.size,
            walk.name,
            builder.period(rows),
            norm=kind,
            epsilon=float(shift[0]),
            gamma=None,
            beta=None,
        )
        result[here] = made.columns
    return result


def _centred(builder: Builder, cols: Array) -> Array | None:
    """x where the columns are ``x - mean(x)``."""
    owner = builder.owner(cols)
    if owner is None or owner.kind != "add":
        return None
    for i in (0, 1):
        x, other = builder.operand(owner, i, cols), builder.operand(owner, 1 - i, cols)
        base, scale, shift = base_of(builder, other)
        found = _mean_of(builder, base)
        if found is None or not np.array_equal(scale, -np.ones(scale.size)) or shift.any():
            continue
        mean, groups = found
        if np.unique(groups).size == 1 and np.array_equal(np.sort(_members(mean, int(groups[0]))), np.sort(x)):
            return x
    return None
