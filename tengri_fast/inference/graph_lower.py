"""From the operations that the importer found to a network: what is needed, folded, in order.

Affine operations (BatchNorm, biases, gains) go into the weights before or after them, activations into the operation
before them; what is left over becomes a layer of its own. Columns that are not simply a row are put together by slices
and concatenations, or by the order of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference import layers as ir
from tengri_fast.inference.graph_values import Array, Builder, Decline, Operation
from tengri_fast.inference.network import INPUT, Matrix8, Node

__all__ = ["Lowered", "lower"]

MAX_PIECES = 64
QUANTISED = ("int8", "int8a16")
NOWHERE = -2
"""Index of an operation that is part of the layers that read it."""


@dataclass
class Lowered:
    """Nodes of the network and the index whose row is the answer."""

    nodes: list[Node] = field(default_factory=list)
    output: int = INPUT
    assumed: int = 0
    """The longest window that the graph left open; 0: it said all of them."""


def lower(builder: Builder, answer: Array, tables: list[Array], window: int | None, *, open_: bool) -> Lowered:
    """The network that yields the columns `answer`.

    Raises
    ------
    Decline
        If an operation has no layer.
    """
    return _Lowering(builder, tables, window, open_=open_).run(answer)


class _Lowering:
    def __init__(self, builder: Builder, tables: list[Array], window: int | None, *, open_: bool) -> None:
        self.builder = builder
        self.tables = tables
        self.window = window
        self.open = open_
        self.result = Lowered()
        self.emitted: dict[int, int] = {}
        self.pieces: dict[tuple[int, ...], int] = {}
        self.names: set[str] = set()
        self.limit: int | None = None

    def run(self, answer: Array) -> Lowered:
        answer = self.fold_parts(self.reachable(answer), answer)
        self.fold(self.reachable(answer), answer)
        order = self.reachable(answer)
        for made in order:  # positions that end bound the windows behind them
            if made.kind == "table_add":
                rows = len(self.position_table(made))
                self.limit = rows if self.limit is None else min(self.limit, rows)
        for made in order:
            self.emit(made)
        output = self.row(answer)
        if output == INPUT or not self.result.nodes:
            raise Decline("the graph's output must come from a layer, and is the input")
        self.result.output = output
        return self.result

    def reachable(self, answer: Array) -> list[Operation]:
        """Operations that the answer needs, operands first; a row that is held back a step may close a loop."""
        order: list[Operation] = []
        state: dict[int, int] = {}
        stack = [(int(i), False) for i in np.unique(self.builder.owners(answer))[::-1]]
        while stack:
            index, done = stack.pop()
            if done:
                state[index] = 2
                order.append(self.builder.operations[index])
                continue
            if state.get(index) == 2:
                continue
            if state.get(index) == 1:
                raise Decline("expected a recurrence that is an LSTM or a GRU, found another one")
            state[index] = 1
            stack.append((index, True))
            made = self.builder.operations[index]
            used = [np.unique(self.builder.owners(np.unique(c))) for c in made.cols if c.size]
            for source in sorted({int(i) for u in used for i in u}, reverse=True):
                if state.get(source) == 1:
                    raise Decline(f"`{made.name}`: expected a recurrence that is an LSTM or a GRU, found another one")
                if source not in state:
                    stack.append((source, False))
        return order

    # -- folding ---------------------------------------------------------------------------------------------------

    def fold_parts(self, order: list[Operation], answer: Array) -> Array:
        """Affine operations that share out the row of one product, such as the scale of queries, go into its
        weights."""
        readers: dict[int, list[Operation]] = {}
        for made in order:
            for index in {int(i) for c in made.cols if c.size for i in np.unique(self.builder.owners(np.unique(c)))}:
                readers.setdefault(index, []).append(made)
        direct = {int(i) for i in np.unique(self.builder.owners(answer))}
        used = self.used(order, answer)
        alias = np.arange(self.builder.size)
        for index, users in readers.items():
            source = self.builder.operations[index]
            if source.kind != "linear" or index in direct or len(users) < 2 or any(u.kind != "affine" for u in users):
                continue
            parts = [used[u.columns] for u in users]
            cols = np.concatenate([u.cols[0][part] for u, part in zip(users, parts, strict=True)])
            if np.unique(cols).size != cols.size or self.builder.owner(cols) is not source:
                continue
            whole = Operation("affine", (source.columns,), source.width, source.base, source.period, source.name,
                              {"scale": np.ones(source.width), "shift": np.zeros(source.width)})  # fmt: skip
            for user, part in zip(users, parts, strict=True):
                at = user.cols[0][part] - source.base
                for key in ("scale", "shift"):
                    whole.params[key][at] = user.params[key][part]
            if self.absorb(source, whole):
                for user in users:
                    alias[user.columns] = user.cols[0]
        for made in order:
            made.cols = tuple(alias[c] for c in made.cols)
        return alias[answer]

    def used(self, order: list[Operation], answer: Array) -> npt.NDArray[np.bool_]:
        """Which columns the answer needs; an operation by element needs its operands only where it is needed itself."""
        used = np.zeros(self.builder.size, bool)
        used[answer] = True
        for made in reversed(order):
            mine = used[made.columns]
            for cols in made.cols:
                used[cols[mine] if made.kind in ("affine", "unary", "add", "mul", "quant") else cols] = True
        return used

    def fold(self, order: list[Operation], answer: Array) -> None:
        """Rewrites operations in place: affine into its neighbours, activations into what they follow."""
        users = self.users(order, answer)
        for made in order:  # affine after something with weights
            source = self.whole(made, users) if made.kind == "affine" else None
            if source is not None and self.absorb(source, made):
                self.take_place(source, made, users)
        order = self.reachable(answer)
        users = self.users(order, answer)
        for made in order:  # affine before a dense layer
            if made.kind == "linear" and not made.params["ages"].any() and made.params["values"] is None:
                self.absorb_before(made, users)
        order = self.reachable(answer)
        users = self.users(order, answer)
        for made in order:
            if made.kind not in ("unary", "softmax"):
                continue
            source = self.whole(made, users)
            if source is None or source.kind not in ("linear", "conv", "add", "mul", "affine", "norm"):
                continue
            if made.kind == "softmax":
                several = made.params["groups"] > 1 and (source.kind != "linear" or source.params["ages"].any())
                if several or source.kind == "norm" or source.params.get("levels", 1) > 1:
                    continue
                activation = {"activation": "softmax", "softmax_groups": made.params["groups"]}
            elif made.params["function"] in ir.ACTIVATIONS:
                activation = {"activation": made.params["function"]}
                if activation["activation"] == "leaky_relu":
                    if source.kind not in ("linear", "conv"):
                        continue
                    activation["slope"] = made.params["slope"]
            else:
                continue
            source.params.update(activation)
            self.take_place(source, made, users)

    def users(self, order: list[Operation], answer: Array) -> dict[int, int]:
        """How many operations read each one, by its first column; the answer counts as a reader."""
        count: dict[int, int] = {}
        for cols in [
            answer,
            *[np.unique(np.concatenate(m.cols)) for m in order if m.cols and sum(c.size for c in m.cols)],
        ]:
            for index in np.unique(self.builder.owners(cols)):
                base = self.builder.operations[int(index)].base
                count[base] = count.get(base, 0) + 1
        return count

    def whole(self, made: Operation, users: dict[int, int]) -> Operation | None:
        """The operation whose whole row this one reads, if nobody else reads it and it has no activation yet."""
        cols = made.cols[0]
        source = self.builder.owner(cols)
        if source is None or cols.size != source.width or users.get(source.base) != 1 or source.period != made.period:
            return None
        if not np.array_equal(cols, source.columns) or source.params.get("activation", "none") != "none":
            return None
        return source

    def take_place(self, source: Operation, made: Operation, users: dict[int, int]) -> None:
        """`made` becomes `source` with what was folded into it; its columns stay, so its readers need no change."""
        made.kind, made.cols, made.params = source.kind, source.cols, source.params
        made.name = source.name
        users.pop(source.base, None)

    @staticmethod
    def absorb(source: Operation, made: Operation) -> bool:
        scale, shift, p = made.params["scale"], made.params["shift"], source.params
        if source.kind == "linear" or (source.kind == "conv" and _per_channel(source, scale, shift)):
            n = p["bias"].size
            scale, shift = scale[:n], shift[:n]
            if p["values"] is not None and (scale <= 0).any():
                return False
            if (scale != 1).any():
                by_row = (n,) + (1,) * (p["w"].ndim - 1)
                if p["values"] is not None:
                    p["scale"] = (p["scale"] * scale.reshape(by_row)).astype(np.float32)
                elif p["form"] != "fp32":
                    return False
                p["w"] = (p["w"] * scale.reshape(by_row)).astype(np.float32)
            p["bias"] = (p["bias"] * scale + shift).astype(np.float32)
            return True
        if source.kind == "norm":
            gamma = np.ones(source.width) if p["gamma"] is None else p["gamma"]
            beta = np.zeros(source.width) if p["beta"] is None else p["beta"]
            p["gamma"], p["beta"] = gamma * scale, beta * scale + shift
            return True
        return False

    def absorb_before(self, made: Operation, users: dict[int, int]) -> None:
        source = self.builder.owner(made.cols[0])
        if source is None or source.kind != "affine" or users.get(source.base) != 1 or made.params["form"] != "fp32":
            return
        if source.params.get("activation", "none") != "none":
            return
        at = made.cols[0] - source.base
        scale, shift = source.params["scale"][at], source.params["shift"][at]
        w = made.params["w"].astype(np.float64)
        made.params["bias"] = (made.params["bias"] + w @ shift).astype(np.float32)
        made.params["w"] = (w * scale).astype(np.float32)
        made.cols = (source.cols[0][at],)

    # -- rows ------------------------------------------------------------------------------------------------------

    def row(self, cols: Array) -> int:
        """Index of the node that yields exactly these columns; slices and concatenations are added as needed."""
        key = tuple(int(c) for c in cols)
        if key in self.pieces:
            return self.pieces[key]
        breaks = np.flatnonzero(np.diff(cols) != 1) + 1
        owners = self.builder.owners(cols)
        breaks = np.unique(np.concatenate([breaks, np.flatnonzero(np.diff(owners)) + 1]))
        runs = np.split(cols, breaks)
        if len(runs) > MAX_PIECES:
            index = self.permuted(cols)
        else:
            parts = [self.run_of(run) for run in runs]
            index = parts[0] if len(parts) == 1 else self.joined(parts, [run.size for run in runs])
        self.pieces[key] = index
        return index

    def run_of(self, run: Array) -> int:
        made = self.builder.owner(run)
        assert made is not None
        index = self.emitted[made.base]
        if index == NOWHERE:
            raise Decline(f"`{made.name}`: expected a quantised row to meet int8 weights only, found another reader")
        if run.size == made.width:
            return index
        key = (int(run[0]), int(run[-1]), -run.size)
        if key not in self.pieces:
            layer = ir.SliceLayer(int(run[0]) - made.base, run.size, self.name(f"{made.name}.slice"))
            self.pieces[key] = self.push(Node(layer, (index,)))
        return self.pieces[key]

    def joined(self, parts: list[int], widths: list[int]) -> int:
        while len(parts) > 1:
            next_parts, next_widths = [], []
            for at in range(0, len(parts), 8):
                some, sizes = parts[at : at + 8], widths[at : at + 8]
                if len(some) == 1:
                    next_parts.append(some[0])
                else:
                    layer = ir.ConcatLayer(tuple(sizes), self.name("concat"))
                    next_parts.append(self.push(Node(layer, tuple(some))))
                next_widths.append(sum(sizes))
            parts, widths = next_parts, next_widths
        return parts[0]

    def permuted(self, cols: Array) -> int:
        """Columns in an order of their own: a product with a matrix of zeros and ones."""
        used = self.gathered(cols)
        if used.size * cols.size > 1 << 22:
            raise Decline("expected features that are put in order by slices")
        w = np.zeros((cols.size, used.size), np.float32)
        w[np.arange(cols.size), [int(np.flatnonzero(used == c)[0]) for c in cols]] = 1.0
        return self.push(
            Node(ir.DenseLayer(w, np.zeros(cols.size, np.float32), name=self.name("order")), (self.row(used),))
        )

    def gathered(self, cols: Array) -> Array:
        """Columns, in an order that is cheap to have, among which all these are."""
        out = []
        for index in dict.fromkeys(int(i) for i in self.builder.owners(cols)):
            made = self.builder.operations[index]
            mine = np.unique(cols[(cols >= made.base) & (cols < made.base + made.width)])
            low, high = int(mine[0]), int(mine[-1]) + 1
            out.append(made.columns if 2 * (high - low) >= made.width else np.arange(low, high))
        return np.concatenate(out)

    def name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.names:
            number += 1
            name = f"{wanted}.{number}"
        self.names.add(name)
        return name

    def push(self, node: Node) -> int:
        self.result.nodes.append(node)
        if len(self.result.nodes) > 1024:
            raise Decline("expected at most 1024 layers")
        return len(self.result.nodes) - 1

    # -- layers ----------------------------------------------------------------------------------------------------

    def emit(self, made: Operation) -> None:
        rule = getattr(self, f"_{made.kind}", None)
        if rule is None:
            what = {
                "integer": "a quantised row that is not dequantised",
                "state": f"a use of the state `{made.name}` that is no LSTM, GRU, ring or cache",
                "cell": "a cell state that is read",
                "mean": "a mean over features that is no norm",
                "table_mul": "factors that differ from step to step",
            }.get(made.kind, made.kind)
            raise Decline(f"`{made.name}`: expected a layer of a streaming network, found {what}")
        try:
            self.emitted[made.base] = rule(made)
        except ModelLoadingError as error:
            raise Decline(str(error)) from error

    def _input(self, made: Operation) -> int:
        return INPUT

    def source(self, made: Operation) -> tuple[Operation | None, Array]:
        """The quantisation in front of an operation, if any, and the columns behind it."""
        cols = made.cols[0]
        quant = self.builder.owner(cols)
        return (
            (quant, quant.cols[0][cols - quant.base]) if quant is not None and quant.kind == "quant" else (None, cols)
        )

    def _quant(self, made: Operation) -> int:
        return NOWHERE  # belongs to the layers that read it

    def _linear(self, made: Operation) -> int:
        p = made.params
        quant, cols = self.source(made)
        ages = p["ages"]
        operand_period = self.builder.period(cols)
        spacing = int(np.gcd.reduce(ages)) if ages.any() else operand_period
        if spacing % operand_period:
            raise Decline("expected steps that fit the stride before")
        lags = ages // spacing
        taps = int(lags.max()) + 1
        if taps > 1 << 16:
            raise Decline(f"expected at most {1 << 16} taps, has {taps}")
        used = self.gathered(cols)
        if used.size == np.unique(cols).size and not np.array_equal(used, np.unique(cols)):
            used = np.unique(cols)
        place = {int(c): i for i, c in enumerate(used)}
        at = np.array([place[int(c)] for c in cols])
        n = made.width
        int8 = quant is not None and p["values"] is not None
        if np.unique(lags * used.size + at).size != at.size and int8:
            raise Decline("expected each feature once in a quantised product")
        w = np.zeros((taps, n, used.size), np.float32)
        np.add.at(w, (lags[None, :], np.arange(n)[:, None], at[None, :]), p["w"])
        options = {
            "activation": p.get("activation", "none"),
            "name": self.name(made.name),
            "slope": p.get("slope", 0.01),
        }
        form, scales, matrices = p["form"] if p["form"] in ("fp16", "bf16") else "fp32", {}, {}
        if quant is not None and not int8:
            raise Decline(f"`{made.name}`: expected int8 weights with the quantised row")
        if int8:
            assert quant is not None
            values = np.zeros((taps, n, used.size), np.int8)
            values[lags[None, :], np.arange(n)[:, None], at[None, :]] = p["values"]
            by_row = _row_scale(p["scale"])
            form, scales = quant.params["form"], {"input": quant.params["scale"]}
            scale = np.broadcast_to(by_row, (taps, n))
            matrices = {
                "w": Matrix8(values[0], scale[0]) if taps == 1 else Matrix8(values, np.ascontiguousarray(scale))
            }
            dequantised = matrices["w"].dequantised()
            w = dequantised if taps > 1 else dequantised[None]
        source = self.row(used)
        if taps == 1 and made.period == operand_period:
            layer: ir.Layer = ir.DenseLayer(w[0], p["bias"], softmax_groups=p.get("softmax_groups", 1), **options)
        else:
            if made.period % operand_period:
                raise Decline("expected a stride that fits the one before")
            if p.get("softmax_groups", 1) > 1:
                raise Decline(
                    "expected a softmax over groups after a dense layer, found it after a strided convolution"
                )
            if taps == 1 and int8:
                matrices = {"w": Matrix8(matrices["w"].values[None], matrices["w"].scale[None])}
            layer = ir.ConvLayer(
                w, p["bias"], dilation=spacing // operand_period if taps > 1 else 1,
                stride=made.period // operand_period,
                **options,
            )  # fmt: skip
        return self.push(Node(layer, (source,), form, scales, matrices))

    def _conv(self, made: Operation) -> int:
        p = made.params
        quant, cols = self.source(made)
        behind = cols
        if any(not np.array_equal(c, made.cols[0]) for c in made.cols):
            raise Decline(f"`{made.name}`: expected the same channels at every step of the kernel")
        period = self.builder.period(behind)
        ages = p["ages"]
        lags = ages // period
        taps = lags.size
        dilation = int(lags[0]) // (taps - 1) if taps > 1 else 1
        if not np.array_equal(lags[::-1], np.arange(taps) * dilation):
            raise Decline("expected steps at equal distances")

        def arrange(w: Array) -> Array:  # [N, C / g, taps, kernel] to [taps, N, kernel * C / g], newest first
            return np.ascontiguousarray(w[:, :, ::-1].transpose(2, 0, 3, 1).reshape(taps, w.shape[0], -1))

        int8 = quant is not None and p["values"] is not None
        if quant is not None and not int8:
            raise Decline(f"`{made.name}`: expected int8 weights with the quantised row")
        form, scales, matrices = p["form"] if p["form"] in ("fp16", "bf16") else "fp32", {}, {}
        w = arrange(p["w"])
        if int8:
            assert quant is not None
            by_row = _row_scale(p["scale"].reshape(p["scale"].shape[0], -1))
            form, scales = quant.params["form"], {"input": quant.params["scale"]}
            matrices = {"w": Matrix8(arrange(p["values"]), np.ascontiguousarray(np.broadcast_to(by_row, w.shape[:2])))}
            w = matrices["w"].dequantised()
        layer = ir.ConvLayer(
            w, p["bias"], dilation=max(dilation, 1), stride=made.period // period, groups=p["groups"],
            levels=p["levels"],
            level_kernel=p["level_kernel"], level_stride=p["level_stride"], activation=p.get("activation", "none"),
            name=self.name(made.name), slope=p.get("slope", 0.01),
        )  # fmt: skip
        return self.push(Node(layer, (self.row(behind),), form, scales, matrices))

    def _lstm(self, made: Operation) -> int:
        p = made.params
        w, matrices, source = self.arranged(made)
        layer = ir.LstmLayer(w, p["r"], p["bias"], self.name(made.name), p["projection"])
        return self.push(Node(layer, (source,), p["form"], p["scales"], matrices))

    def _gru(self, made: Operation) -> int:
        p = made.params
        w, matrices, source = self.arranged(made)
        layer = ir.GruLayer(w, p["r"], p["bias"], p["recurrent_bias"], p["reset_after"], self.name(made.name))
        return self.push(Node(layer, (source,), p["form"], p["scales"], matrices))

    def arranged(self, made: Operation) -> tuple[Array, dict[str, Matrix8], int]:
        """Input weights of a recurrent layer in the order in which its input row is cheap to have, and that row."""
        cols, w, matrices = made.cols[0], made.params["w"], made.params["matrices"]
        used = np.unique(cols)
        if np.array_equal(used, cols) or used.size != cols.size:
            return w, matrices, self.row(cols)
        order = np.argsort(cols)
        if "w" in matrices:
            matrices = {**matrices, "w": Matrix8(matrices["w"].values[:, order], matrices["w"].scale)}
        return w[:, order], matrices, self.row(used)

    def resolved(self, made: Operation, window: int) -> int:
        if window:
            return window
        found = self.limit if self.window is None else self.window
        if found is not None:
            self.result.assumed = max(self.result.assumed, found)
            return found
        raise Decline(
            f"`{made.name}`: expected a window of known length, found all rows of an open time axis: export with a "
            "fixed number of steps, mask all but the last rows, or say `window`"
        )

    def _attention(self, made: Operation) -> int:
        p = made.params
        layer = ir.AttentionLayer(
            p["heads"], p["kv_heads"], p["dim"], p["value_dim"], self.resolved(made, p["window"]), p["scale"],
            p["position"],
            p["rope_base"], p["slopes"], self.name(made.name),
        )  # fmt: skip
        held = made.cols[3:]
        for i, cols in enumerate(held):
            if not np.array_equal(cols, made.cols[1 if i < len(held) // 2 else 2]):
                raise Decline(f"`{made.name}`: expected earlier keys and values of the same features as the newest")
        return self.push(Node(layer, tuple(self.row(c) for c in made.cols[:3]), p["form"], p["scales"]))

    def _norm(self, made: Operation) -> int:
        p = made.params
        gamma = np.ones(made.width, np.float32) if p["gamma"] is None else p["gamma"].astype(np.float32)
        beta = p["beta"] if p["beta"] is None or p["beta"].any() or p["norm"] == "layer" else None
        layer = ir.NormLayer(gamma, beta, p["epsilon"], p["norm"], p.get("activation", "none"), self.name(made.name))
        return self.push(Node(layer, (self.row(made.cols[0]),)))

    def _affine(self, made: Operation) -> int:
        p = made.params
        layer = ir.AffineLayer(p["scale"], p["shift"], p.get("activation", "none"), self.name(made.name))
        return self.push(Node(layer, (self.row(made.cols[0]),)))

    def _unary(self, made: Operation) -> int:
        function = made.params["function"]
        if function not in ir.ACTIVATIONS:
            raise Decline(f"`{made.name}`: expected an activation of the engine, found {function}")
        slope = made.params.get("slope", 0.01)
        layer = ir.ActivationLayer(function, made.width, slope=slope, name=self.name(made.name))
        return self.push(Node(layer, (self.row(made.cols[0]),)))

    def _softmax(self, made: Operation) -> int:
        layer = ir.ActivationLayer("softmax", made.width, made.params["groups"], name=self.name(made.name))
        return self.push(Node(layer, (self.row(made.cols[0]),)))

    def _add(self, made: Operation) -> int:
        layer = ir.AddLayer(made.width, made.params.get("activation", "none"), self.name(made.name))
        return self.push(Node(layer, tuple(self.row(c) for c in made.cols)))

    def _mul(self, made: Operation) -> int:
        layer = ir.MulLayer(made.width, made.params.get("activation", "none"), self.name(made.name))
        return self.push(Node(layer, tuple(self.row(c) for c in made.cols)))

    def _pool(self, made: Operation) -> int:
        p = made.params
        if any(not np.array_equal(c, made.cols[0]) for c in made.cols):
            raise Decline(f"`{made.name}`: expected to pool the same features at every step")
        if len(made.cols) > 1 and p["pool"] == "max":
            raise Decline(f"`{made.name}`: expected a maximum that leaves out rows before the first one, found zeros")
        layer = ir.PoolLayer(
            made.width, self.resolved(made, p["window"]), p["pool"], p["partial"], self.name(made.name)
        )
        return self.push(Node(layer, (self.row(made.cols[0]),)))

    def _table_add(self, made: Operation) -> int:
        layer = ir.PositionLayer(self.position_table(made), self.name(made.name))
        return self.push(Node(layer, (self.row(made.cols[0]),)))

    def position_table(self, made: Operation) -> Array:
        """The whole table of which the graph took the first rows; with a fixed window those rows are the table."""
        table = np.asarray(made.params["table"])
        if np.isnan(table).any():
            raise Decline(f"`{made.name}`: expected a row of positions for every step")
        if not self.open:
            return table.astype(np.float32)
        for candidate in self.tables:
            if candidate.shape[-1] != table.shape[1] or candidate.size % table.shape[1] or candidate.dtype.kind != "f":
                continue
            rows = candidate.reshape(-1, table.shape[1])
            if len(rows) >= len(table) and max(candidate.shape[:-1]) == len(rows) \
                    and np.array_equal(rows[: len(table)].astype(np.float64), table):  # fmt: skip
                return rows.astype(np.float32)
        raise Decline(f"`{made.name}`: expected positions from a table that the file holds, found computed ones")


def _per_channel(source: Operation, scale: Array, shift: Array) -> bool:
    n = source.params["bias"].size
    return all(np.array_equal(a, np.tile(a[:n], a.size // n)) for a in (scale, shift))


def _row_scale(scale: Array) -> Array:
    """One scale per row of a matrix whose scales are given for every element."""
    if np.any(scale != scale[:, :1]):
        raise Decline("expected one scale per output channel of the int8 weights")
    return np.asarray(scale[:, 0], np.float32)
