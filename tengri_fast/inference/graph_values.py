"""Abstract values of the importer: where every element of a tensor comes from.

A graph is evaluated on concrete shapes. What depends on constants alone is a NumPy array. A tensor made from the
graph's input carries no numbers but, for each element, its origin: a *column* (one value of the row that some
operation yields per step) and a *row* (the step). Transposes, reshapes, slices, splits, paddings and concatenations
then are NumPy's own, in whatever way an exporter wrote them, and an operator that computes only has to look at the
columns and rows that meet.

Rows before the first one are zero, as in the streaming engine; zero padding along time extends the rows downwards. An
element that cannot be expressed (a bias added to padding, a row after the last one) is *lost*: harmless while nothing
needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BATCH", "LOST", "MAX_CONSTANT", "NOWHERE", "ZERO", "Budget", "Builder", "Decline", "Operation", "Scores",
           "Tensor", "Unknown", "Value", "Weights", "as_array", "layout", "steps_of"]  # fmt: skip

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
ZERO, LOST = -1, -2
"""Columns that stand for the number zero, and for an element that is not known."""
BATCH = 1 << 20
"""Distance of the rows of two entries of the batch."""
MAX_CONSTANT = 1 << 24
"""Most elements of one value."""
MAX_WORK = 1 << 28
"""Most elements of all values together, over all evaluations of one file."""
MAX_OPERATIONS = 4_096
NOWHERE = "no runtime takes it"
"""Words of a reason for which there is no other runtime either."""


class Decline(Exception):
    """Why one node cannot be evaluated."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """Origins of the elements of a tensor of any shape."""

    col: Integers
    row: Integers

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.col.shape


@dataclass(frozen=True, eq=False)
class Weights:
    """Constants that were stored in a smaller format: `array` is their float32 value.

    `values` and `scale` (of the full shape) belong to int8 weights.
    """

    array: Array
    form: str
    values: Array | None = None
    scale: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the constant."""
        return self.array.shape


@dataclass(frozen=True, eq=False)
class Scores:
    """Attention scores, q [..., T, D] against k [..., S, D], before or after the softmax.

    The score is ``scale * (q . k) + bias``; `bias` broadcasts to [..., T, S].
    """

    q: Tensor
    k: Tensor
    scale: float
    bias: Array
    shares: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the score tensor."""
        return (*self.q.shape[:-1], self.k.shape[-2])


@dataclass(frozen=True)
class Unknown:
    """The result of a node that could not be evaluated, why, and how far the evaluation had come."""

    reason: str
    index: int


Value = Array | Tensor | Weights | Scores | Unknown | None


@dataclass(eq=False)
class Operation:
    """One row per step: `width` columns from `base` on, made from the columns in `cols`."""

    kind: str
    cols: tuple[Integers, ...]
    width: int
    base: int
    period: int
    name: str
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> Integers:
        """Its own columns."""
        return np.arange(self.base, self.base + self.width)


_SHARED = frozenset(("unary", "add", "mul", "affine", "quant", "mean", "softmax", "delay"))
"""Kinds of which two equal ones are made once."""


class Budget:
    """Work that the reading of one file may take, whatever the file asks for."""

    def __init__(self) -> None:
        self.left = MAX_WORK

    def spend(self, elements: int) -> None:
        """Declines when there is none left."""
        self.left -= elements
        if self.left < 0:
            raise Decline(f"the graph takes more than {MAX_WORK} elements to evaluate")


class Builder:
    """The operations found so far."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.operations: list[Operation] = []
        self._bases = np.empty(MAX_OPERATIONS, np.int64)
        self._known: dict[Any, Operation] = {}
        self.size = 0

    def spend(self, elements: int) -> None:
        """Counts work; declines when a file asks for too much of it."""
        if elements > MAX_CONSTANT:
            raise Decline(f"a value must have at most {MAX_CONSTANT} elements, has {elements}")
        self._budget.spend(int(elements))

    def add(self, kind: str, cols: Iterable[Array], width: int, name: str, period: int, **params: Any) -> Operation:
        """A new operation, or the equal one there is."""
        operands = tuple(np.ascontiguousarray(c, np.int64).reshape(-1) for c in cols)
        key: Any = None
        if kind in _SHARED:
            key = (
                kind,
                width,
                tuple(c.tobytes() for c in operands),
                tuple(sorted((k, _key(v)) for k, v in params.items())),
            )
            found = self._known.get(key)
            if found is not None:
                return found
        if len(self.operations) >= MAX_OPERATIONS or width < 1:
            raise Decline(f"expected at most {MAX_OPERATIONS} operations of one value or more")
        made = Operation(kind, operands, int(width), self.size, int(period), name, params)
        self.operations.append(made)
        self._bases[len(self.operations) - 1] = self.size
        self.size += made.width
        if key is not None:
            self._known[key] = made
        return made

    def owners(self, cols: Array) -> Integers:
        """Index of the operation that makes each column."""
        return np.searchsorted(self._bases[: len(self.operations)], cols, side="right") - 1

    def owner(self, cols: Array) -> Operation | None:
        """The one operation that makes all these columns, or None."""
        cols = np.asarray(cols)
        if cols.size == 0 or cols.min() < 0:
            return None
        found = self.operations[int(self.owners(cols.reshape(-1)[:1])[0])]
        return found if cols.min() >= found.base and cols.max() < found.base + found.width else None

    def period(self, cols: Array) -> int:
        """Steps between two rows of these columns, which must agree."""
        real = np.unique(self.owners(np.unique(cols[cols >= 0])))
        periods = {self.operations[int(index)].period for index in real}
        if len(periods) > 1:
            raise Decline(f"expected rows of equal stride over time, are {sorted(periods)}")
        return periods.pop() if periods else 1

    def operand(self, made: Operation, index: int, cols: Array) -> Integers:
        """What operand `index` of an operation by element holds for these of its columns."""
        return np.asarray(made.cols[index][np.asarray(cols) - made.base])


def _key(value: Any) -> Any:
    return (value.shape, value.dtype.str, value.tobytes()) if isinstance(value, np.ndarray) else value


def steps_of(row: Array) -> Integers:
    """The step of a row, whatever entry of the batch it belongs to."""
    half = BATCH // 2
    return np.asarray((row + half) % BATCH - half)


def as_array(value: Value, what: str) -> Array:
    """A constant's numbers."""
    if isinstance(value, Weights):
        return value.array
    if not isinstance(value, np.ndarray):
        raise Decline(f"expected {what} to be a constant")
    return value


def layout(value: Value, function: Callable[[Array], Array]) -> Value:
    """A function that only moves elements, applied to a value of any sort."""
    if isinstance(value, Tensor):
        return Tensor(np.asarray(function(value.col)), np.asarray(function(value.row)))
    if isinstance(value, Weights):
        parts = [None if part is None else function(part) for part in (value.array, value.values, value.scale)]
        return Weights(parts[0], value.form, parts[1], parts[2])  # type: ignore[arg-type]
    if isinstance(value, np.ndarray):
        return np.asarray(function(value))
    raise Decline("expected a tensor or a constant")
