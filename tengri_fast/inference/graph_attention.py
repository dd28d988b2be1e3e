"""Attention in the importer: scores, masks, rotary and linear positions.

A product of two tensors is taken for scores; what is added to them is a mask, ALiBi, or both, known as numbers because
it depends on the length only. The band of the mask is read off those numbers and must be a causal window. Rotary
positions are recognised by expanding queries and keys into what they are sums of: ``cos(t f) x_i - sin(t f) x_j`` in
any spelling.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tengri_fast.inference.graph_arithmetic import FAR
from tengri_fast.inference.graph_layout import argument
from tengri_fast.inference.graph_patterns import base_of
from tengri_fast.inference.graph_values import (
    BATCH,
    LOST,
    Array,
    Builder,
    Decline,
    Scores,
    Tensor,
    Value,
    as_array,
    steps_of,
)
from tengri_fast.inference.onnx_reader import Node

if TYPE_CHECKING:
    from tengri_fast.inference.graph_walk import Walk

__all__ = ["ATTENTION", "attend", "scores_of"]

ALL = 0
"""Window of an attention or pooling over all rows of an open window."""


def scores_of(walk: Walk, a: Tensor, b: Tensor) -> Scores:
    """``a @ b`` with queries a [..., T, D] and turned keys b [..., D, S]."""
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
        raise Decline("expected queries [.., T, D] and keys [.., D, S]")
    k = Tensor(np.swapaxes(b.col, -1, -2), np.swapaxes(b.row, -1, -2))
    lead = np.broadcast_shapes(a.shape[:-2], k.shape[:-2])
    walk.builder.spend(int(np.prod((*lead, a.shape[-2] + k.shape[-2], a.shape[-1]), dtype=object)))
    q, k = (Tensor(*(np.broadcast_to(p, lead + t.shape[-2:]) for p in (t.col, t.row))) for t in (a, k))
    return Scores(q, k, 1.0, np.zeros((1, 1)))


def _parts(walk: Walk, value: Tensor, what: str, *, cached: bool = False) -> tuple[Array, Array]:
    """Columns [L, T, D] and rows [L, T] of a tensor [L, T, D] whose every vector is of one step.

    `cached`: some may be held back by states; those columns are proven equal when the states are tied.
    """
    if np.any(value.row != value.row[..., :1]) or np.any(value.col < 0):
        raise Decline(f"expected {what} of one step each")
    rows = value.row[..., 0]
    if np.any(steps_of(rows) < (-(1 << 18) if cached and walk.clocks else 0)) or np.any(steps_of(rows) >= walk.steps):
        raise Decline(f"expected {what} of rows that were seen, found empty slots without a mask")
    if not cached and np.any(value.col != value.col[:, :1]):
        raise Decline(f"expected {what} made from the same features at every step")
    if not walk.delays and np.any(value.col != value.col[:, :1]):
        raise Decline(f"expected {what} made from the same features at every step")
    return value.col, rows


def _entry(rows: Array) -> Array:
    return np.asarray((rows - steps_of(rows)) // BATCH)


def attend(walk: Walk, scores: Scores, value: Tensor) -> Tensor:
    """``softmax(scores) @ value`` with values [..., S, Dv]."""
    if not scores.shares:
        raise Decline("expected a softmax between the two products of attention")
    own = scores.q
    if own.shape[-2] > 1 and np.all(own.row == own.row[..., :1, :]) and np.any(own.col != own.col[..., :1, :]):
        # Heads of one step stand where steps usually do; they get an axis of their own.
        parted = Scores(
            Tensor(own.col[..., None, :], own.row[..., None, :]),
            Tensor(*(np.broadcast_to(p[..., None, :, :], (*own.shape[:-1], *p.shape[-2:])) for p in (scores.k.col,
            scores.k.row))),
            scores.scale, np.broadcast_to(scores.bias, scores.shape)[..., :, None, :], True,
        )  # fmt: skip
        made = attend(walk, parted, Tensor(value.col[..., None, :, :], value.row[..., None, :, :]))
        return Tensor(made.col[..., 0, :], made.row[..., 0, :])
    lead = np.broadcast_shapes(scores.q.shape[:-2], value.shape[:-2])
    t, d = scores.q.shape[-2:]
    s, dv = value.shape[-2:]
    if s != scores.k.shape[-2]:
        raise Decline(f"expected {scores.k.shape[-2]} values, have {s}")
    entries = int(np.prod(lead, dtype=object))
    walk.builder.spend(entries * (t * d + s * d + s * dv + t * s))

    def flat(tensor: Tensor) -> Tensor:
        shape = (entries, *tensor.shape[-2:])
        return Tensor(*(np.broadcast_to(p, lead + tensor.shape[-2:]).reshape(shape) for p in (tensor.col, tensor.row)))

    q_cols, q_rows = _parts(walk, flat(scores.q), "queries")
    k_slots, k_rows = _parts(walk, flat(scores.k), "keys", cached=True)
    v_slots, v_rows = _parts(walk, flat(value), "values", cached=True)
    newest = int(np.argmax(k_rows[0]))
    q_cols, k_cols, v_cols = q_cols[:, 0], k_slots[:, newest], v_slots[:, newest]
    batch = _entry(q_rows[:, 0])
    if np.any(k_rows != v_rows) or np.any(_entry(k_rows) != batch[:, None]) or np.any(_entry(q_rows) != batch[:, None]):
        raise Decline("expected keys and values of the same steps, and entries of the batch apart")
    bias = np.broadcast_to(scores.bias, (*lead, t, s)).reshape(entries, t, s)
    first = np.flatnonzero(batch == batch.min())
    for entry in np.unique(batch):
        others = np.flatnonzero(batch == entry)
        if len(others) != len(first) or not all(
            np.array_equal(a[others], a[first]) for a in (q_cols, k_cols, v_cols, bias)
        ):
            raise Decline("expected the same attention in every entry of the batch")
    window, slopes = _mask(walk, bias[first], steps_of(q_rows[first]), steps_of(k_rows[first]))
    kinds: dict[bytes, int] = {}
    kv = np.array([kinds.setdefault(k_cols[i].tobytes() + v_cols[i].tobytes(), len(kinds)) for i in first])
    order = np.argsort(kv, kind="stable")
    heads, kv_heads = len(first), len(kinds)
    if heads % kv_heads or np.any(kv[order] != np.arange(heads) // (heads // kv_heads)):
        raise Decline(f"expected as many query heads for each of the {kv_heads} key heads")
    q = q_cols[first][order]
    leaders = first[order][:: heads // kv_heads]
    held = [c[leaders, i] for c in (k_slots, v_slots) for i in range(s)] if walk.delays else []
    made = _layer(walk, q, k_cols[leaders], v_cols[leaders], held, scores.scale, window, slopes[order])
    col = np.full((entries, t, dv), LOST, np.int64)
    place = np.empty(heads, np.int64)
    place[order] = np.arange(heads)
    for entry in np.unique(batch):
        here = np.flatnonzero(batch == entry)
        col[here] = (made.base + place[:, None] * dv + np.arange(dv))[:, None, :]
    row = np.broadcast_to(q_rows[..., None], col.shape)
    return Tensor(col.reshape(*lead, t, dv), row.reshape(*lead, t, dv))


def _layer(
    walk: Walk, q: Array, k: Array, v: Array, held: list[Array], scale: float, window: int, slopes: Array
) -> Any:
    builder = walk.builder
    scales: dict[str, float] = {}
    form = "fp32"
    stripped: list[Array] = []
    for cols, key in ((q, "q"), (k, "k"), (v, "v")):
        owner = builder.owner(cols)
        if owner is not None and owner.kind == "quant":
            if owner.params["form"] != "int8":
                raise Decline("expected queries, keys and values in int8")
            if key != "q":
                half = slice(0, len(held) // 2) if key == "k" else slice(len(held) // 2, len(held))
                held[half] = [owner.cols[0][c - owner.base] for c in held[half]]
            cols, form, scales[key] = owner.cols[0][cols - owner.base], "int8", owner.params["scale"]
        stripped.append(cols)
    if scales and len(scales) != 3:
        raise Decline(f"expected queries, keys and values to be quantised together, were only {sorted(scales)}")
    q, k, v = stripped
    q, k, position, base, factor = _positions(walk, q, k)
    if form == "int8" and factor != 1.0:
        raise Decline("expected the factor of quantised scores after their product")
    if np.any(slopes):
        if position != "none":
            raise Decline("expected rotary positions or linear biases, found both")
        position = "alibi"
    period = builder.period(np.concatenate([q.reshape(-1), k.reshape(-1), v.reshape(-1)]))
    if period != 1 and window != ALL and window == walk.steps:
        window = -(-window // period)
    return builder.add(
        "attention", (q.reshape(-1), k.reshape(-1), v.reshape(-1), *held), q.shape[0] * v.shape[1], walk.name, period,
        heads=q.shape[0], kv_heads=k.shape[0], dim=q.shape[1], value_dim=v.shape[1], window=window,
        scale=scale * factor,
        position=position, rope_base=base, slopes=slopes if position == "alibi" else None, form=form, scales=scales,
    )  # fmt: skip


def _mask(walk: Walk, bias: Array, q_steps: Array, k_steps: Array) -> tuple[int, Array]:
    """The window of the band and the ALiBi slope of each head."""
    window, slopes = 0, np.zeros(len(bias))
    if np.isnan(bias).any():
        raise Decline("expected a mask of numbers, found NaN")
    for head in range(len(bias)):
        ages = q_steps[head][:, None] - k_steps[head][None, :]
        allowed = bias[head] > FAR
        if np.any(allowed & (ages < 0)):
            raise Decline(
                "expected a causal mask; without one the answer depends on later rows, so it cannot be streamed"
            )
        if not allowed.any(axis=1).all():
            raise Decline("expected every step to attend to one row at least")
        own = int(ages[allowed].max()) + 1
        if walk.clocks:  # one step: what was not seen yet must be masked
            seen = k_steps[head][None, :] >= -walk.now
            if own == walk.now + 1 and walk.known:
                own = walk.known[len(walk.masks)][0]
            if not np.array_equal(allowed, (ages >= 0) & (ages < own) & seen):
                raise Decline("expected a mask that leaves out empty slots of the cache, and only those")
        elif not np.array_equal(allowed, (ages >= 0) & (ages < own)):
            raise Decline("expected a banded causal mask: the last rows up to the newest one, no others")
        wanted = np.minimum(own, q_steps[head] + 1 + walk.now)
        if np.unique(k_steps[head]).size != k_steps.shape[1] or np.any(
            allowed.sum(axis=1) * _spacing(k_steps[head]) < wanted
        ):
            raise Decline("expected every row of the window among the keys")
        if window and own != window:
            raise Decline(f"expected the same window for all heads, were {window} and {own}")
        window = own
        with np.errstate(invalid="ignore"):
            newest = np.where(ages == 0, bias[head], -np.inf).max(axis=1, keepdims=True)
        if not np.isfinite(newest).all():
            raise Decline("expected every step to attend to its own row")
        relative = np.where(allowed, bias[head] - newest, 0.0)
        if walk.known:
            slopes[head] = walk.known[len(walk.masks)][1][head]
        if np.any(relative) or walk.known:
            at = np.unravel_index(np.argmax(np.where(allowed, ages, 0)), ages.shape)
            slopes[head] = slopes[head] if walk.known else -relative[at] / ages[at]
            if np.abs(relative + slopes[head] * np.where(allowed, ages, 0)).max() > 1e-4 * max(
                1.0, np.abs(relative).max()
            ):
                raise Decline("expected a bias that grows linearly with the distance (ALiBi), or none")
    walk.masks.append((window, slopes))
    if window >= walk.steps and walk.open:
        window = ALL
    return window, slopes.astype(np.float32).astype(np.float64)


def _spacing(steps: Array) -> int:
    return int(np.diff(np.sort(steps)).min()) if len(steps) > 1 else 1


Terms = dict[int, Array]


def _expand(builder: Builder, col: int, steps: int, depth: int = 6) -> tuple[Terms, bool]:
    """A column as a sum of other columns with factors [steps], and whether any factor depends on the step."""
    owner = builder.operations[int(builder.owners(np.array([col]))[0])]
    at = col - owner.base
    if depth and owner.kind == "table_mul":
        inner, _ = _expand(builder, int(owner.cols[0][at]), steps, depth - 1)
        return {c: f * owner.params["table"][:steps, at] for c, f in inner.items()}, True
    if depth and owner.kind == "affine" and not owner.params["shift"][at]:
        inner, timed = _expand(builder, int(owner.cols[0][at]), steps, depth - 1)
        return {c: f * owner.params["scale"][at] for c, f in inner.items()}, timed
    if depth and owner.kind == "add":
        parts = [_expand(builder, int(owner.cols[i][at]), steps, depth - 1) for i in (0, 1)]
        if any(timed for _, timed in parts):
            out = dict(parts[0][0])
            for c, f in parts[1][0].items():
                out[c] = out[c] + f if c in out else f
            return out, True
    return {col: np.ones(steps)}, False


def _positions(walk: Walk, q: Array, k: Array) -> tuple[Array, Array, str, float, float]:
    """Queries and keys [heads, dim] before rotation, the sort of positions, their base, and a factor of the scores."""
    found = []
    factor = 1.0
    for cols in (q, k):
        terms = [[_expand(walk.builder, int(c), walk.steps) for c in head] for head in cols]
        timed = any(t for head in terms for _, t in head)
        if timed:
            before, position, number, turned = _rotary([[t for t, _ in head] for head in terms], walk.steps)
            found.append((before, position, number))
            factor *= turned
            continue
        base, scale, shift = base_of(walk.builder, cols.reshape(-1))
        if not shift.any() and np.ptp(scale) == 0:
            factor *= float(scale[0])
            cols = base.reshape(cols.shape)
        found.append((cols, "none", 10_000.0))
    if found[0][1] != found[1][1] or not math.isclose(found[0][2], found[1][2], rel_tol=1e-3):
        raise Decline("expected the same rotary positions for queries and keys")
    return found[0][0], found[1][0], found[0][1], found[0][2], factor


def _rotary(heads: list[list[Terms]], steps: int) -> tuple[Array, str, float, float]:
    dim = len(heads[0])
    what = "rotary positions: cos(t f) x_i -+ sin(t f) x_j with f = base^(-2 m / dim)"
    if dim % 2 or steps < 2 or any(len(terms) != 2 for head in heads for terms in head):
        raise Decline(f"expected {what}")
    own = np.empty((len(heads), dim), np.int64)
    other = np.empty_like(own)
    straight, crossed = np.empty((2, len(heads), dim, steps))
    for h, head in enumerate(heads):
        for i, terms in enumerate(head):
            (a, fa), (b, fb) = terms.items()
            if abs(fa[0]) < abs(fb[0]):
                (a, fa), (b, fb) = (b, fb), (a, fa)
            own[h, i], other[h, i], straight[h, i], crossed[h, i] = a, b, fa, fb
    scale = float(straight[0, 0, 0])
    half = dim // 2
    m = np.arange(half)
    for position, first, second in (("rope", m, m + half), ("rope_interleaved", 2 * m, 2 * m + 1)):
        if not (np.array_equal(own[:, first], other[:, second]) and np.array_equal(own[:, second], other[:, first])):
            continue
        angle = np.arctan2(-crossed[0, first, 1], straight[0, first, 1])
        base = 10_000.0
        if half > 1:
            if not (angle > 0).all():
                raise Decline(f"expected {what}")
            base = float(np.exp(-np.log(angle[-1] / 1.0) * dim / (2 * (half - 1))))
            base = round(base) if abs(base - round(base)) < 1e-3 * base and base > 100 else base
            nice = float(f"{base:.3g}")
            base = nice if abs(base - nice) < 1e-4 * base else base
        turn = np.arange(steps) * (base ** (-2.0 * m / dim))[:, None]
        close = 1e-4 + 1e-6 * steps
        for place, sign in ((first, -1.0), (second, 1.0)):
            if np.abs(straight[:, place] / scale - np.cos(turn)).max() > close \
                    or np.abs(crossed[:, place] / scale - sign * np.sin(turn)).max() > close:  # fmt: skip
                raise Decline(f"expected {what}; the tables do not fit base {base:g}")
        return own, position, float(base), scale
    raise Decline(f"expected {what}, paired (i, i + dim / 2) or (2 i, 2 i + 1)")


def _attention(walk: Walk, node: Node, arguments: list[Value]) -> list[Value]:
    """The Attention operator of operator set 23."""
    if any(argument(arguments, i) is not None for i in (4, 5, 6)) or node.attributes.get("softcap"):
        raise Decline("expected no past keys and values, and no soft cap")
    tensors = []
    for index, name in ((0, "q_num_heads"), (1, "kv_num_heads"), (2, "kv_num_heads")):
        value = arguments[index]
        if not isinstance(value, Tensor):
            raise Decline("expected queries, keys and values computed from the input")
        if len(value.shape) == 3:
            heads = node.attributes.get(name) or 0
            if heads < 1 or value.shape[2] % heads:
                raise Decline(f"expected `{name}` to divide {value.shape[2]}, was {heads}")
            shape = (value.shape[0], value.shape[1], heads, value.shape[2] // heads)
            value = Tensor(*(p.reshape(shape).swapaxes(1, 2) for p in (value.col, value.row)))
        if len(value.shape) != 4:
            raise Decline("expected queries, keys and values of three or four axes")
        tensors.append(value)
    q, k, v = tensors
    if q.shape[1] % k.shape[1]:
        raise Decline(f"expected the key heads to divide the query heads, were {k.shape[1]} and {q.shape[1]}")
    repeat = q.shape[1] // k.shape[1]
    k, v = (Tensor(*(np.repeat(p, repeat, axis=1) for p in (t.col, t.row))) for t in (k, v))
    scores = scores_of(walk, q, Tensor(k.col.swapaxes(2, 3), k.row.swapaxes(2, 3)))
    scale = node.attributes.get("scale")
    bias = np.zeros((1, 1))
    mask = argument(arguments, 3)
    if mask is not None:
        array = as_array(mask, "the mask")
        bias = np.where(array, 0.0, -np.inf) if array.dtype == np.bool_ else array.astype(np.float64)
    if node.attributes.get("is_causal"):
        t, s = scores.shape[-2:]
        bias = np.where(np.tril(np.ones((t, s), bool)), bias, -np.inf)
    number = float(scale) if scale else 1.0 / math.sqrt(q.shape[-1])
    made = attend(walk, Scores(scores.q, scores.k, number, bias, True), v)
    if len(arguments[0].shape) == 3:  # type: ignore[union-attr]
        made = Tensor(*(p.swapaxes(1, 2).reshape(*p.shape[:1], p.shape[2], -1) for p in (made.col, made.row)))
    return [made]


ATTENTION = {"Attention": _attention}
