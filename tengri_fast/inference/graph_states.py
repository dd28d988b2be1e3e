"""States of a single-step graph: rings of earlier rows, and cells written out in single operators.

A state input whose new value is its old one moved on by a row, with a row of the graph at its end, holds earlier rows;
the graph is then evaluated again with those in place, and its convolutions and pools are those of a window. Other
states must belong to an LSTM or a GRU, as an operator or written out. A written-out cell is recognised from its new
states: sums, products and the functions between them are followed back to products with weights, whichever way those
were joined or cut.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from tengri_fast.inference.graph_patterns import base_of, unary_operand
from tengri_fast.inference.graph_values import BATCH, Array, Budget, Builder, Decline, Operation, Tensor, Unknown
from tengri_fast.inference.graph_walk import Failure, Reading, Walk
from tengri_fast.inference.network import Matrix8
from tengri_fast.inference.onnx_reader import Graph, ValueInfo

__all__ = ["States", "clocks_of"]

CELL = "expected the states of an LSTM, a GRU, or a ring of earlier rows"


MAX_CLOCK = 1_100
"""Most steps for which a clock is followed until it stands."""


def clocks_of(graph: Graph, reading: Reading, budget: Budget) -> list[dict[str, Array]]:
    """States that depend on the number of steps since reset only, such as a count of rows seen: their values by
    step."""
    pairs = dict(zip((i.name for i in graph.inputs[1:]), (o.name for o in graph.outputs[1:]), strict=False))
    shapes = {i.name: [d if isinstance(d, int) and d > 0 else 1 for d in i.shape or []] for i in graph.inputs[1:]}
    small = {name for name in pairs if int(np.prod(shapes[name], dtype=object)) <= MAX_CLOCK}
    values = {name: np.zeros(shapes[name], np.float32) for name in small}
    needed = graph
    history: list[dict[str, Array]] = []
    while values and len(history) < MAX_CLOCK:
        walk = Walk(needed, reading, 1, budget, clocks=values)
        walk.run()
        following = {name: walk.values.get(pairs[name]) for name in values}
        held = {k: v for k, v in following.items() if isinstance(v, np.ndarray) and v.shape == values[k].shape}
        if len(held) < len(values):  # not a clock; begin again with the others
            values, history = {name: np.zeros(shapes[name], np.float32) for name in held}, []
            continue
        if not history:
            needed = _making(graph, [pairs[name] for name in values])
        history.append(values)
        if all(np.array_equal(held[name], values[name]) for name in values):
            break
        values = {name: np.asarray(v, np.float32) for name, v in held.items()}
    return history


def _making(graph: Graph, outputs: list[str]) -> Graph:
    """The part of a graph that makes these values."""
    wanted, nodes = set(outputs), []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            nodes.append(node)
            wanted |= set(node.inputs)
    return replace(graph, nodes=nodes[::-1])


class States:
    """The state inputs of an evaluated graph and what becomes of them."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.builder = walk.builder
        graph = walk.graph
        count = len(graph.inputs) - 1
        if count and len(graph.outputs) != count + 1:
            raise Failure(
                f"expected one output beside a new value for each of {count} states, has {len(graph.outputs)} outputs",
                len(graph.nodes),
            )
        self.pairs: list[tuple[ValueInfo, ValueInfo]] = (
            list(zip(graph.inputs[1:], graph.outputs[1:], strict=True)) if count else []
        )
        self.alias = np.zeros(0, np.int64)

    def answers(self) -> list[ValueInfo]:
        """The outputs that are no states."""
        return self.walk.graph.outputs[:1] if self.pairs else self.walk.graph.outputs

    def is_final_state(self, value: Tensor) -> bool:
        """Whether an output of a window graph is only the last state of a recurrent operator."""
        owners = {int(i) for i in np.unique(self.builder.owners(np.unique(value.col[value.col >= 0])))}
        kinds = {self.builder.operations[i].kind for i in owners}
        if "cell" in kinds:
            return kinds <= {"cell"}
        steps = np.unique(value.row % BATCH)
        return kinds <= {"lstm", "gru"} and len(steps) == 1 and len(value.shape) == 3 and self.walk.steps > 1

    # -- rings -----------------------------------------------------------------------------------------------------

    def delays(self) -> dict[str, tuple[Array, Array]]:
        """State inputs, not yet known to be so, that hold earlier rows: their columns' numbers and ages."""
        found = {}
        for before, after in self.pairs:
            if before.name in self.walk.delays or before.name in self.walk.clocks:
                continue
            old, new = self.walk.values.get(before.name), self.walk.values.get(after.name)
            if not isinstance(old, Tensor) or not isinstance(new, Tensor) or old.shape != new.shape:
                continue
            ages = self._ages(old, new)
            if ages is not None:
                found[before.name] = ages
        return found

    def _ages(self, old: Tensor, new: Tensor) -> tuple[Array, Array] | None:
        base, size = int(old.col.min()), old.col.size
        cols = new.col.reshape(-1)
        if np.any(cols < 0) or np.any(new.row != 0):
            return None
        held = (cols >= base) & (cols < base + size)
        if held.all():
            return None
        sources = np.unique(cols[~held])
        if self._depends(sources, base, size):
            return None
        # Each element to the row at the end of the ring, by doubling: how far, and which.
        link = np.where(held, cols - base, np.arange(size))
        distance = held.astype(np.int64)
        for _ in range(size.bit_length()):
            distance = distance + distance[link]
            link = link[link]
        if held[link].any():
            return None
        return np.searchsorted(sources, cols[link]), distance + 1

    def _depends(self, cols: Array, base: int, size: int) -> bool:
        """Whether columns are computed from those of [base, base + size)."""
        seen: set[int] = set()
        stack = [int(i) for i in np.unique(self.builder.owners(cols))]
        while stack:
            index = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            made = self.builder.operations[index]
            if made.base == base and made.width == size:
                return True
            initial = [made.params.get(k) for k in ("initial_h", "initial_c")]
            for operand in (*made.cols, *(i for i in initial if i is not None)):
                stack += [int(i) for i in np.unique(self.builder.owners(operand[operand >= 0]))]
        return False

    # -- closing ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ties every state to the operation that renews it, or declines."""
        if not self.pairs:
            self._no_states()
            return
        self.alias = np.arange(self.builder.size)
        following: dict[int, int] = {}
        for before, after in self.pairs:
            old, new = self.walk.values.get(before.name), self.walk.values.get(after.name)
            for value in (old, new):
                if isinstance(value, Unknown):
                    raise Decline(value.reason)
            if before.name in self.walk.clocks:
                continue
            if (
                not isinstance(old, Tensor)
                or not isinstance(new, Tensor)
                or old.shape != new.shape
                or np.any(new.col < 0)
            ):
                raise Decline(
                    f"output `{after.name}`: expected the new value of state `{before.name}`, of the same shape"
                )
            if before.name in self.walk.delays:
                self._tie(before.name, old, new)
                continue
            if np.any(new.row != 0):
                raise Decline(f"output `{after.name}`: {CELL}")
            following.update(zip(old.col.reshape(-1).tolist(), new.col.reshape(-1).tolist(), strict=True))
        self._rewrite()
        _Cells(self.walk, following, self).run()
        self._rewrite()

    def _no_states(self) -> None:
        for made in self.builder.operations:
            if made.params.get("initial_h") is not None or made.params.get("initial_c") is not None:
                raise Decline(f"`{made.name}`: expected a new value for every state")

    def _tie(self, name: str, old: Tensor, new: Tensor) -> None:
        """The columns of a ring become those of the row at its end."""
        old_col, new_col = old.col.reshape(-1), new.col.reshape(-1)
        old_row, new_row = old.row.reshape(-1), new.row.reshape(-1)
        newest = old_row == -1
        for column in np.unique(old_col):
            sources = np.unique(new_col[newest & (old_col == column)])
            if sources.size != 1:
                raise Decline(f"state `{name}`: {CELL}")
            self.alias[column] = sources[0]
        if np.any(new_row != old_row + 1) or np.any(self.alias[new_col] != self.alias[old_col]):
            raise Decline(f"state `{name}`: {CELL}")

    def renamed(self, cols: Array) -> Array:
        """Columns after everything was tied."""
        return self.alias[cols] if self.alias.size else cols

    def _rewrite(self) -> None:
        """Replaces columns by what they were tied to, and makes equal operations one."""
        for _ in range(8):
            following = self.alias[self.alias]
            if np.array_equal(following, self.alias):
                break
            self.alias = following
        for made in self.builder.operations:
            made.cols = tuple(self.alias[c] for c in made.cols)
        known: dict[Any, int] = {}
        for made in self.builder.operations:
            if made.kind not in ("unary", "quant", "affine", "add", "mul"):
                continue
            operands = [self.alias[c] for c in made.cols]
            fixed = tuple(sorted((k, v) for k, v in made.params.items() if not isinstance(v, np.ndarray)))
            varied = [v for _, v in sorted(made.params.items()) if isinstance(v, np.ndarray)]
            for i in range(made.width):
                key = (made.kind, fixed, *(int(c[i]) for c in operands), *(float(v[i]) for v in varied))
                column = made.base + i
                first = known.setdefault(key, int(self.alias[column]))
                if self.alias[column] == column:  # else it is tied to a cell already
                    self.alias[column] = first
        for made in self.builder.operations:
            made.cols = tuple(self.alias[c] for c in made.cols)


class _Cells:
    """Recognises written-out cells; `following` maps each state column to the column of its new value."""

    def __init__(self, walk: Walk, following: dict[int, int], states: States) -> None:
        self.walk = walk
        self.builder: Builder = walk.builder
        self.states = states
        self.following = {old: int(states.alias[new]) for old, new in following.items()}
        self.old_of: dict[int, int] = {}
        for old, new in self.following.items():
            if new in self.old_of:
                raise Decline("expected each state to have a new value of its own")
            self.old_of[new] = old
        self.open = set(self.following)

    def run(self) -> None:
        self._operators()
        for made in list(self.builder.operations):
            if not self.open:
                break
            columns = [int(c) for c in made.columns]
            mine = [c for c in columns if self.old_of.get(c) in self.open]
            if not mine or made.kind not in ("mul", "add", "linear"):
                continue
            self._try(np.array(mine))
        if self.open:
            column = min(self.open)
            owner = self.builder.operations[int(self.builder.owners(np.array([column]))[0])]
            raise Decline(f"state `{owner.name}`: {CELL}, found a recurrence of another form")

    def _operators(self) -> None:
        """States of LSTM and GRU operators."""
        for made in self.builder.operations:
            if made.kind not in ("lstm", "gru"):
                continue
            for key, columns in (("initial_h", made.columns), ("initial_c", None)):
                old = made.params.get(key)
                if old is None:
                    if made.kind == "lstm" or key == "initial_h":
                        raise Decline(f"`{made.name}`: expected {key} to be a state of the graph")
                    continue
                if columns is None:
                    columns = next(
                        o.columns for o in self.builder.operations if o.kind == "cell" and o.cols[0][0] == made.base
                    )
                if [self.following.get(int(c)) for c in old] != [int(c) for c in columns]:
                    raise Decline(f"`{made.name}`: expected the new value of {key} to be the operator's own")
                self.open -= {int(c) for c in old}

    def _try(self, new: Array) -> None:
        old = np.array([self.old_of[int(c)] for c in new])
        order = np.argsort(old)  # units in the order of the state
        new, old = new[order], old[order]
        for rule in (self._lstm, self._gru):
            found = rule(new, old)
            if found is None:
                continue
            made, used = found
            self.states.alias = np.concatenate(
                [self.states.alias, np.arange(self.states.alias.size, self.builder.size)]
            )
            self.states.alias[new] = made.columns
            self.open -= used
            return

    # -- forms -----------------------------------------------------------------------------------------------------

    def _factors(self, cols: Array, kind: str) -> list[tuple[Array, Array]]:
        """Both orders of the two operands of a sum or product."""
        owner = self.builder.owner(cols)
        if owner is None or owner.kind != kind:
            return []
        a, b = (self.builder.operand(owner, i, cols) for i in (0, 1))
        return [(a, b), (b, a)]

    def _function(self, cols: Array, function: str) -> Array | None:
        return unary_operand(self.builder, cols, function)

    def _lstm(self, new: Array, old: Array) -> tuple[Operation, set[int]] | None:
        projection: Operation | None = None
        hidden = new
        owner = self.builder.owner(new)
        if owner is not None and owner.kind == "linear":  # h = P (o * tanh(c))
            projection, hidden = owner, self._stripped(owner.cols[0])[0]
            if owner.params["ages"].any() or owner.params["bias"].any() or new.size != owner.width:
                return None
        for gate, squashed in self._factors(hidden, "mul"):
            o, cell = self._function(gate, "sigmoid"), self._function(squashed, "tanh")
            if o is None or cell is None or not all(int(c) in self.old_of for c in cell):
                continue
            c_old = np.array([self.old_of[int(c)] for c in cell])
            for kept, fresh in self._factors(cell, "add"):
                gates = self._cell(kept, fresh, c_old)
                if gates is not None:
                    return self._make_lstm(new, old, [*gates, o], c_old, projection)
        return None

    def _cell(self, kept: Array, fresh: Array, c_old: Array) -> list[Array] | None:
        """Sums of the gates i, f, g."""
        for forget, state in self._factors(kept, "mul"):
            f = self._function(forget, "sigmoid")
            if f is None or not np.array_equal(state, c_old):
                continue
            for enter, candidate in self._factors(fresh, "mul"):
                i, g = self._function(enter, "sigmoid"), self._function(candidate, "tanh")
                if i is not None and g is not None:
                    return [i, f, g]
        return None

    def _make_lstm(
        self, new: Array, old: Array, gates: list[Array], c_old: Array, projection: Operation | None
    ) -> tuple[Operation, set[int]]:
        parts = _Sums(self.builder, np.concatenate(gates), old)
        w, r, x = parts.split()
        scales, matrices = {}, {}
        form = parts.form
        weights = None
        if form in ("int8", "int8a16"):
            scales = {"input": w.activation, "state": r.activation}
            matrices = {"w": w.matrix(), "r": r.matrix()}
        if projection is not None:
            p = _Term(self.builder, projection, np.arange(projection.width))
            weights, scale, matrix = p.projection(new)
            if form in ("int8", "int8a16"):
                if matrix is None or scale is None:
                    raise Decline(f"`{projection.name}`: expected the projection to be quantised as the gates are")
                scales["projection"], matrices["projection"] = scale, matrix
        made = self.builder.add(
            "lstm", (x,), new.size, self._name(new), self.builder.period(x), w=w.weights(), r=r.weights(),
            bias=parts.bias,
            projection=weights, form=form, scales=scales, matrices=matrices, initial_h=None, initial_c=None,
        )  # fmt: skip
        return made, {int(c) for c in (*old, *c_old)}

    def _gru(self, new: Array, old: Array) -> tuple[Operation, set[int]] | None:
        for a, b in self._factors(new, "add"):
            found = self._blend(a, b, old)
            if found is None:
                continue
            z, n = found
            inner = self._function(n, "tanh")
            if inner is None:
                continue
            for sums, recurrent, reset_after, r in self._candidate(inner, old):
                return self._make_gru(new, old, r, z, sums, recurrent, reset_after=reset_after)
        return None

    def _blend(self, a: Array, b: Array, old: Array) -> tuple[Array, Array] | None:
        """z and n of ``n + z (h - n)`` or ``(1 - z) n + z h``."""
        for gate, other in self._factors(b, "mul"):
            z = self._function(gate, "sigmoid")
            if z is None:
                continue
            for h, minus in self._factors(other, "add"):
                base, scale, shift = base_of(self.builder, minus)
                if np.array_equal(h, old) and np.array_equal(base, a) and (scale == -1).all() and not shift.any():
                    return z, a
            if np.array_equal(other, old):
                for one_less, n in self._factors(a, "mul"):
                    base, scale, shift = base_of(self.builder, one_less)
                    if np.array_equal(base, gate) and (scale == -1).all() and (shift == 1).all():
                        return z, n
        return None

    def _candidate(self, inner: Array, old: Array) -> Any:
        """What stands in the tanh: input sums, recurrent part, where the reset gate acts, and its sums."""
        for x_part, gated in self._factors(inner, "add"):
            for gate, sums in self._factors(gated, "mul"):
                r = self._function(gate, "sigmoid")
                if r is not None and not np.array_equal(sums, old):
                    yield x_part, sums, True, r
        for x_part, product in self._factors(inner, "add"):
            terms = _terms(self.builder, product)
            if terms is None or len(terms.terms) != 1:
                continue
            cols = self._stripped(terms.terms[0].made.cols[0])[0]
            for gate, state in self._factors(cols, "mul"):
                r = self._function(gate, "sigmoid")
                if r is not None and np.isin(state, old).all() and state.size == old.size:
                    yield x_part, (product, cols, state), False, r

    def _make_gru(
        self, new: Array, old: Array, r: Array, z: Array, x_part: Array, recurrent: Any, *, reset_after: bool
    ) -> tuple[Operation, set[int]]:
        size = new.size
        both = _Sums(self.builder, np.concatenate([r, z]), old)
        w1, r1, x1 = both.split()
        alone = _terms(self.builder, x_part)
        if alone is None:
            raise Decline(f"`{self._name(new)}`: expected products with weights in the candidate of a GRU")
        inputs = _Sums.of(self.builder, alone, old, x_part.size)
        w2, _none, x2 = inputs.split(both=False)
        if reset_after:
            held = _terms(self.builder, recurrent)
            hidden = old
        else:
            product, cols, state = recurrent
            held = _terms(self.builder, product)
            hidden = np.empty_like(old)
            place = {int(c): i for i, c in enumerate(old)}
            for c, s in zip(cols, state, strict=True):
                hidden[place[int(s)]] = c
        if held is None:
            raise Decline(f"`{self._name(new)}`: expected products with weights in the candidate of a GRU")
        late = _Sums.of(self.builder, held, hidden, size)
        _, r2, _ = late.split(both=False, state_only=True)
        if not np.array_equal(x1, x2):
            raise Decline(f"`{self._name(new)}`: expected the same input for all gates of a GRU")
        form = both.form
        if {both.form, inputs.form, late.form} != {form}:
            raise Decline(f"`{self._name(new)}`: expected one number format in all gates of a GRU")
        scales, matrices = {}, {}
        if form in ("int8", "int8a16"):
            if w1.activation != w2.activation or r1.activation != r2.activation:
                raise Decline(f"`{self._name(new)}`: expected one scale for all gates of a GRU")
            scales = {"input": w1.activation, "state": r1.activation}
            matrices = {"w": _stack(w1.matrix(), w2.matrix()), "r": _stack(r1.matrix(), r2.matrix())}
        made = self.builder.add(
            "gru", (x1,), size, self._name(new), self.builder.period(x1), w=np.concatenate([w1.weights(),
            w2.weights()]),
            r=np.concatenate([r1.weights(), r2.weights()]), bias=np.concatenate([both.input_bias, inputs.bias]),
            recurrent_bias=np.concatenate([both.state_bias, late.bias]), reset_after=reset_after, form=form,
            scales=scales,
            matrices=matrices, initial_h=None, initial_c=None,
        )  # fmt: skip
        return made, {int(c) for c in old}

    def _stripped(self, cols: Array) -> tuple[Array, Operation | None]:
        owner = self.builder.owner(cols)
        if owner is not None and owner.kind == "quant":
            return owner.cols[0][cols - owner.base], owner
        return cols, None

    def _name(self, new: Array) -> str:
        owner = self.builder.owner(new)
        return "cell" if owner is None else owner.name


def _stack(a: Matrix8, b: Matrix8) -> Matrix8:
    return Matrix8(np.concatenate([a.values, b.values]), np.concatenate([a.scale, b.scale]))


class _Term:
    """Rows of a product with weights that enter a sum."""

    def __init__(self, builder: Builder, made: Operation, rows: Array) -> None:
        self.made, self.rows = made, rows
        cols = made.cols[0]
        owner = builder.owner(cols)
        self.quant = owner if owner is not None and owner.kind == "quant" else None
        self.cols = cols if self.quant is None else self.quant.cols[0][cols - self.quant.base]

    def part(self, chosen: Array, order: Array) -> _Part:
        """The columns `chosen` (positions) of the weights, in the order `order`."""
        p = self.made.params
        pick = np.ix_(self.rows, chosen[order])
        w = p["w"][pick]
        values = None if p["values"] is None or self.quant is None else p["values"][pick]
        scale = None if values is None else p["scale"][pick]
        return _Part(w, values, scale, None if self.quant is None else self.quant.params["scale"])

    @property
    def form(self) -> str:
        p = self.made.params
        if self.quant is not None:
            if p["values"] is None:
                raise Decline(f"`{self.made.name}`: expected int8 weights with the quantised row")
            return str(self.quant.params["form"])
        return p["form"] if p["form"] in ("fp16", "bf16") else "fp32"

    def projection(self, new: Array) -> tuple[Array, float | None, Matrix8 | None]:
        rows = new - self.made.base
        everything = np.arange(self.cols.size)
        self.rows = rows
        part = self.part(everything, everything)
        if part.values is None:
            return part.w, None, None
        return part.weights(), part.activation, part.matrix()


class _Part:
    """A matrix cut out of a product: float32, or int8 with scales."""

    def __init__(self, w: Array, values: Array | None, scale: Array | None, activation: float | None) -> None:
        self.w, self.values, self.scale, self.activation = w, values, scale, activation or 0.0

    def matrix(self) -> Matrix8:
        if self.values is None or self.scale is None or np.any(self.scale != self.scale[:, :1]):
            raise Decline("expected one scale per output channel of the int8 weights")
        return Matrix8(np.ascontiguousarray(self.values), self.scale[:, 0])

    def weights(self) -> Array:
        return self.w if self.values is None else self.matrix().dequantised()


class _Collected:
    """A sum as terms and a bias; `biases` are those of the terms, `extra` what was added beside them."""

    def __init__(self, terms: list[_Term], extra: Array) -> None:
        self.terms, self.extra = terms, extra


def _terms(builder: Builder, cols: Array, depth: int = 6) -> _Collected | None:
    """Columns as a sum of products with weights and a bias; None if they are something else."""
    owner = builder.owner(cols)
    if owner is None:  # gates of several operations
        return None
    if owner.kind == "linear":
        if owner.params["ages"].any():
            return None
        return _Collected([_Term(builder, owner, cols - owner.base)], np.zeros(cols.size))
    if depth == 0:
        return None
    if owner.kind == "affine":
        base, scale, shift = base_of(builder, cols)
        inner = _terms(builder, base, depth - 1)
        if inner is None or np.any(scale != 1):
            return None
        return _Collected(inner.terms, inner.extra + shift)
    if owner.kind == "add":
        parts = [_terms(builder, builder.operand(owner, i, cols), depth - 1) for i in (0, 1)]
        a, b = parts
        if a is None or b is None:
            return None
        return _Collected([*a.terms, *b.terms], a.extra + b.extra)
    return None


class _Sums:
    """Sums of gates split into what meets the input, what meets the state, and biases."""

    def __init__(self, builder: Builder, cols: Array, state: Array) -> None:
        collected = _blocks(builder, cols)
        self._set(builder, collected, state, cols.size)

    @classmethod
    def of(cls, builder: Builder, collected: _Collected, state: Array, size: int) -> _Sums:
        """From terms that are known."""
        made = cls.__new__(cls)
        made._set(builder, [collected], state, size)
        return made

    def _set(self, builder: Builder, collected: list[_Collected], state: Array, size: int) -> None:
        self.collected, self.state, self.size = collected, state, size
        forms = {term.form for block in collected for term in block.terms}
        if len(forms) != 1:
            raise Decline(f"expected one number format in all gates of a cell, were {sorted(forms)}")
        self.form = forms.pop()

    def split(self, *, both: bool = True, state_only: bool = False) -> tuple[_Part, _Part, Array]:
        """Input weights, recurrent weights and the input's columns."""
        ws: list[_Part] = []
        rs: list[_Part] = []
        self.input_bias = np.zeros(0, np.float32)
        self.state_bias = np.zeros(0, np.float32)
        x: Array | None = None
        for block in self.collected:
            size = block.extra.size
            input_bias, state_bias = block.extra.astype(np.float64), np.zeros(size)
            w: _Part | None = None
            r: _Part | None = None
            for term in block.terms:
                held = np.isin(term.cols, self.state)
                bias = term.made.params["bias"][term.rows].astype(np.float64)
                if held.any():
                    place = {int(c): i for i, c in enumerate(term.cols) if held[i]}
                    if (
                        sorted(place) != sorted(int(c) for c in self.state)
                        or held.sum() != self.state.size
                        or r is not None
                    ):
                        raise Decline(f"`{term.made.name}`: expected the whole state once in the gates of a cell")
                    order = np.array([place[int(c)] for c in self.state])
                    r = term.part(order, np.arange(order.size))
                if not held.all():
                    rest = np.flatnonzero(~held)
                    cols = term.cols[rest]
                    if w is not None or (x is not None and not np.array_equal(np.sort(cols), np.sort(x))):
                        raise Decline(f"`{term.made.name}`: expected one product with the input in the gates of a cell")
                    x = cols if x is None else x
                    at = {int(c): i for i, c in enumerate(cols)}
                    w = term.part(rest, np.array([at[int(c)] for c in x]))
                    input_bias += bias
                else:
                    state_bias += bias
            if (both and (w is None or r is None)) or (not both and (r if state_only else w) is None):
                raise Decline("expected products with the input and with the state in the gates of a cell")
            self.input_bias = np.concatenate([self.input_bias, input_bias.astype(np.float32)])
            self.state_bias = np.concatenate([self.state_bias, state_bias.astype(np.float32)])
            ws += [] if w is None else [w]
            rs += [] if r is None else [r]
        if not both and ((ws and state_only) or (rs and not state_only)):
            raise Decline("expected input and state apart in the candidate of a GRU")
        self.bias = (self.input_bias + self.state_bias).astype(np.float32)
        return _merge(ws), _merge(rs), np.zeros(0, np.int64) if x is None else x


def _merge(parts: list[_Part]) -> _Part:
    if not parts:
        return _Part(np.zeros((0, 0), np.float32), None, None, None)
    first = parts[0]
    if any(p.activation != first.activation or (p.values is None) != (first.values is None) for p in parts):
        raise Decline("expected one scale for all gates of a cell")
    values = [p.values for p in parts if p.values is not None]
    scales = [p.scale for p in parts if p.scale is not None]
    return _Part(
        np.concatenate([p.w for p in parts]), np.concatenate(values) if values else None,
        np.concatenate(scales) if scales else None, first.activation or None,
    )  # fmt: skip


def _blocks(builder: Builder, cols: Array) -> list[_Collected]:
    """The sum of all gates at once, or gate by gate where they were computed apart."""
    whole = _terms(builder, cols)
    if whole is not None:
        return [whole]
    starts = [0, *(np.flatnonzero(np.diff(builder.owners(cols))) + 1).tolist(), cols.size]
    out = []
    for start, end in itertools.pairwise(starts):
        part = _terms(builder, cols[start:end])
        if part is None:
            raise Decline("expected the gates of a cell to be sums of products with weights")
        out.append(part)
    return out
