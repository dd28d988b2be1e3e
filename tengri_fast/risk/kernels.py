"""numba kernels of the order path: update columns, ask "what if", find the tail.

The scenario matrix is float32, stored per instrument, so that one instrument is one contiguous row; every sum is in
double, because results of opposite sign cancel. Importing this module only declares: nothing compiles until
:func:`warmup` walks through :data:`SIGNATURES`, which is also the list that a test checks against ``py_func``.

``pnl`` is [4][S]: row 0 holds the results of what is filled, rows 1 to 3 what working orders would add to them in the
cases "all buys", "all sells" and "the worse side of each instrument". Offsets rather than totals, because most
instruments have no working order and then touch row 0 only.

State per instrument is one row of six: quantities for the four rows of ``pnl``, the scale multiplier x rate, and the
price. With r the scenario's return, one unit is worth coefficient x factor in base currency:

====== ======================= ====================
payoff coefficient             factor
====== ======================= ====================
0      scale P                 r
1      scale / P               r / (1 + r)
2      scale                   clip(P (1 + r), 0, 1) - P
====== ======================= ====================

Rounding: one update of a column errs by at most a few times 2^-52 (|old| + |new| + |sum|) per scenario. The kernel adds
these bounds up in ``sums``, next to the gross notional that they are measured against; the caller rebuilds from zero
long before they can be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["SIGNATURES", "apply_columns", "case_pnl", "exceedances", "tail", "warmup"]


@njit(cache=True)
def _coefficient(payoff: int, scale: float, price: float) -> float:
    """What turns a price factor into base currency, per unit; 0 for an empty row."""
    if scale == 0.0:
        return 0.0
    if payoff == 0:
        return scale * price
    if payoff == 1:
        return scale / price
    return scale


@njit(cache=True)
def apply_columns(
    pnl: npt.NDArray[np.float64],
    returns: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    payoffs: npt.NDArray[np.int64],
    reach: npt.NDArray[np.float64],
    applied: npt.NDArray[np.float64],
    target: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],
    columns: npt.NDArray[np.int64],
    count: int,
) -> None:
    """Move ``pnl`` [4][S] from the state ``applied`` [N][6] to ``target`` [N][6] in the first ``count`` columns.

    ``reach`` [N] is the largest absolute factor of each instrument. ``sums`` [8] holds, for row 0 and then for the
    offset rows: gross notional, bound of the results, bound of the rounding error, number of instruments.
    """
    scenarios = pnl.shape[1]
    for n in range(count):
        i = columns[n]
        row = rows[i]
        payoff = payoffs[i]
        p0 = applied[i, 5]
        p1 = target[i, 5]
        c0 = _coefficient(payoff, applied[i, 4], p0)
        c1 = _coefficient(payoff, target[i, 4], p1)
        for part in range(2):
            if part == 0:
                q0, q1 = abs(applied[i, 0]), abs(target[i, 0])
            else:
                q0, q1 = max(applied[i, 1], -applied[i, 2]), max(target[i, 1], -target[i, 2])
            old, new = q0 * c0, q1 * c1
            at = 4 * part
            sums[at] += new * p1 - old * p0 if payoff == 2 else new - old
            sums[at + 1] += (new - old) * reach[i]
            if old != 0.0 or new != 0.0:
                sums[at + 2] += 4.0 * 2.0**-52 * ((old + new) * reach[i] + abs(sums[at + 1]))
            sums[at + 3] += (1.0 if q1 != 0.0 else 0.0) - (1.0 if q0 != 0.0 else 0.0)
        for k in range(4):
            old = applied[i, k] * c0
            new = target[i, k] * c1
            if payoff == 2:
                if old == 0.0 and new == 0.0:
                    continue
                for s in range(scenarios):
                    growth = 1.0 + np.float64(returns[row, s])
                    before = min(max(p0 * growth, 0.0), 1.0) - p0
                    after = min(max(p1 * growth, 0.0), 1.0) - p1
                    pnl[k, s] += new * after - old * before
            else:
                change = new - old
                if change == 0.0:
                    continue
                if payoff == 0:
                    for s in range(scenarios):
                        pnl[k, s] += change * np.float64(returns[row, s])
                else:
                    for s in range(scenarios):
                        r = np.float64(returns[row, s])
                        pnl[k, s] += change * (r / (1.0 + r))
        for k in range(6):
            applied[i, k] = target[i, k]


@njit(cache=True)
def _unit(
    returns: npt.NDArray[np.float32],
    row: int,
    payoff: int,
    coefficient: float,
    price: float,
    out: npt.NDArray[np.float64],
) -> None:
    """Write the results of one unit of one instrument to ``out`` [S]."""
    scenarios = out.shape[0]
    if payoff == 0:
        for s in range(scenarios):
            out[s] = coefficient * np.float64(returns[row, s])
    elif payoff == 1:
        for s in range(scenarios):
            r = np.float64(returns[row, s])
            out[s] = coefficient * (r / (1.0 + r))
    else:
        for s in range(scenarios):
            out[s] = coefficient * (min(max(price * (1.0 + np.float64(returns[row, s])), 0.0), 1.0) - price)


@njit(cache=True)
def exceedances(
    pnl: npt.NDArray[np.float64],
    returns: npt.NDArray[np.float32],
    row: int,
    payoff: int,
    coefficient: float,
    price: float,
    alone: float,
    buys: float,
    sells: float,
    worst: float,
    cases: int,
    limit: float,
    stop: int,
    scratch: npt.NDArray[np.float64],
) -> int:
    """Largest number, over the cases, of scenarios that would lose more than ``limit``; ends early at ``stop``.

    Cases 0 (what is filled) and 1 (filled and this order, ``alone`` units) are always looked at; with ``cases`` = 5
    also 2 (all buys), 3 (all sells) and 4 (worse sides), each with its change of quantity in this instrument. A result
    that is NaN counts as a loss beyond the limit, so an overflow denies.
    """
    scenarios = pnl.shape[1]
    _unit(returns, row, payoff, coefficient, price, scratch)
    floor = -limit
    most = 0
    for case in range(cases):
        n = 0
        if case == 0:
            for s in range(scenarios):
                n += 0 if pnl[0, s] >= floor else 1
        elif case == 1:
            for s in range(scenarios):
                n += 0 if pnl[0, s] + alone * scratch[s] >= floor else 1
        else:
            k = case - 1
            units = buys if case == 2 else (sells if case == 3 else worst)
            for s in range(scenarios):
                n += 0 if (pnl[0, s] + pnl[k, s]) + units * scratch[s] >= floor else 1
        most = max(most, n)
        if most >= stop:
            return most
    return most


@njit(cache=True)
def case_pnl(
    pnl: npt.NDArray[np.float64],
    returns: npt.NDArray[np.float32],
    row: int,
    payoff: int,
    coefficient: float,
    price: float,
    offset: int,
    units: float,
    out: npt.NDArray[np.float64],
) -> None:
    """Write filled results, plus row ``offset`` when it is not 0, plus ``units`` of one instrument, to ``out`` [S]."""
    _unit(returns, row, payoff, coefficient, price, out)
    for s in range(out.shape[0]):
        base = pnl[0, s]
        if offset > 0:
            base = base + pnl[offset, s]
        out[s] = base + units * out[s]


@njit(cache=True)
def tail(values: npt.NDArray[np.float64], mass: float, heap: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Value at risk and expected shortfall of ``values`` [S].

    ``heap`` [rank] is work space and its length chooses the order statistic; ``mass`` is the number of scenarios in
    the tail (:mod:`tengri_fast.risk.measures`). A heap of the ``rank`` smallest costs O(S + rank log rank log(S /
    rank)) on shuffled scenarios and O(S log rank) at worst, where a general selection has no small bound.
    """
    rank = heap.shape[0]
    for i in range(rank):
        child = i
        heap[child] = values[i]
        while child > 0:
            parent = (child - 1) // 2
            if heap[parent] >= heap[child]:
                break
            heap[parent], heap[child] = heap[child], heap[parent]
            child = parent
    for s in range(rank, values.shape[0]):
        value = values[s]
        if value < heap[0]:
            hole = 0
            while True:
                child = 2 * hole + 1
                if child >= rank:
                    break
                if child + 1 < rank and heap[child + 1] > heap[child]:
                    child += 1
                if heap[child] <= value:
                    break
                heap[hole] = heap[child]
                hole = child
            heap[hole] = value
    total = 0.0
    for i in range(1, rank):
        total += heap[i]
    return -heap[0], -(total + (mass - (rank - 1)) * heap[0]) / mass


_PNL, _RETURNS, _VECTOR, _STATE, _INDEX = "f8[:, ::1]", "f4[:, ::1]", "f8[::1]", "f8[:, ::1]", "i8[::1]"

#: Every kernel with the one signature it is used with.
SIGNATURES: tuple[tuple[Any, str], ...] = (
    (_coefficient, "f8(i8, f8, f8)"),
    (
        apply_columns,
        f"void({_PNL}, {_RETURNS}, {_INDEX}, {_INDEX}, {_VECTOR}, {_STATE}, {_STATE}, {_VECTOR}, {_INDEX}, i8)",
    ),
    (_unit, f"void({_RETURNS}, i8, i8, f8, f8, {_VECTOR})"),
    (exceedances, f"i8({_PNL}, {_RETURNS}, i8, i8, f8, f8, f8, f8, f8, f8, i8, f8, i8, {_VECTOR})"),
    (case_pnl, f"void({_PNL}, {_RETURNS}, i8, i8, f8, f8, i8, f8, {_VECTOR})"),
    (tail, f"UniTuple(f8, 2)({_VECTOR}, f8, {_VECTOR})"),
)


def warmup() -> None:
    """Compile every kernel, or load it from numba's cache; a second call does nothing."""
    for function, signature in SIGNATURES:
        function.compile(signature)
