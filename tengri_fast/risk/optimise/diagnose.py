"""Which constraints contradict each other, and the smallest relaxation that reconciles them.

Every named row gets a slack, and the sum of slacks is minimised: the elastic program (Chinneck 2008, "Feasibility and
Infeasibility in Optimization", ch. 6). Rows whose price in it is not zero hold an infeasible set. From it one family of
rows after the other is dropped; it stays out when the rest is still infeasible. What remains is irreducible.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tengri_fast.risk.optimise.program import STRUCTURAL, Program, Solution, SolverSettings
from tengri_fast.risk.optimise.result import Infeasibility

__all__ = ["diagnose", "relax"]

#: Families of bounds of single instruments with more members than this are named as one.
LARGEST_FAMILY = 24
_SINGLE = ("upper ", "lower ", "max_change ")


def relax(program: Program, kept: Callable[[str], bool] = lambda name: True) -> None:
    """Replace the objective by the sum of slacks of all named rows; rows that are not `kept` become free."""
    program._quadratic.clear()
    program._linear.clear()
    for block, equal in [(b, True) for b in program._equal] + [(b, False) for b in program._at_most]:
        named = np.array([i for i, name in enumerate(block.names) if name != STRUCTURAL], dtype=np.int64)
        if not named.size:
            continue
        costs = np.array([1.0 if kept(block.names[i]) else 0.0 for i in named])
        for sign in (-1.0, 1.0) if equal else (-1.0,):
            slack = program.variables(named.size)
            block.rows = np.concatenate([block.rows, named])
            block.columns = np.concatenate([block.columns, slack])
            block.values = np.concatenate([block.values, np.full(named.size, sign)])
            program.linear(slack, costs)
            program.rows(STRUCTURAL, [(slack, -1.0)], np.zeros(named.size))


def _total(
    build: Callable[[], Program], kept: Callable[[str], bool], settings: SolverSettings
) -> tuple[float, Solution]:
    program = build()
    relax(program, kept)
    found = program.solve(settings)
    return found.objective, found


def diagnose(
    build: Callable[[], Program], settings: SolverSettings, *, tolerance: float = 1e-6
) -> Infeasibility | None:
    """Blame constraints.

    Parameters
    ----------
    build : callable
        Makes the program with its constraints; its objective is replaced.
    settings : SolverSettings
        Of the solver.
    tolerance : float
        A smaller sum of slacks counts as feasible.

    Returns
    -------
    Infeasibility or None
        None when the constraints can be satisfied.
    """
    first = build()
    base = first.size
    relax(first)
    order = _slack_names(build())
    found = first.solve(settings)
    if not found.good or found.objective <= tolerance:
        return None
    amounts: dict[str, float] = {}
    # The slack variables stand after the program's own.
    for name, amount in zip(order, found.x[base:], strict=True):
        if amount > tolerance:
            amounts[name] = amounts.get(name, 0.0) + float(amount)
    priced = {
        name for name, dual in zip(found.names, found.duals, strict=True) if name != STRUCTURAL and abs(dual) > 1e-6
    }
    families: dict[str, set[str]] = {}
    for name in sorted(priced):
        families.setdefault(_family(name), set()).add(name)
    active = set(priced)

    def infeasible(names: set[str]) -> bool:
        total, solution = _total(build, names.__contains__, settings)
        return solution.good and total > tolerance

    if not infeasible(active):
        # Prices at the edge of the tolerance: fall back on every named row.
        active = set(order)
        families = {}
        for name in sorted(active):
            families.setdefault(_family(name), set()).add(name)
    conflict: list[str] = []
    for family, members in families.items():
        if infeasible(active - members):
            active -= members
            continue
        if len(members) == 1 or len(members) > LARGEST_FAMILY:
            conflict.append(family if len(members) == 1 and family in members else _whole(family, members))
            continue
        for member in sorted(members):
            if infeasible(active - {member}):
                active.discard(member)
        conflict += sorted(active & members)
    relaxations = tuple(sorted(amounts.items(), key=lambda item: (-item[1], item[0])))
    return Infeasibility(tuple(conflict), relaxations)


def _family(name: str) -> str:
    prefix = next((prefix for prefix in _SINGLE if name.startswith(prefix)), None)
    return name if prefix is None else prefix.strip()


def _whole(family: str, members: set[str]) -> str:
    return next(iter(members)) if len(members) == 1 else f"{family} of {len(members)} instruments"


def _slack_names(program: Program) -> list[str]:
    """Names in the order in which :func:`relax` makes slack variables."""
    order: list[str] = []
    for block in program._equal:
        named = [name for name in block.names if name != STRUCTURAL]
        order += named + named
    for block in program._at_most:
        order += [name for name in block.names if name != STRUCTURAL]
    return order
