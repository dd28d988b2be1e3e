"""What a portfolio may look like: bounds, groups, exposure, turnover; as an object, as rows, and as a check in NumPy.

Weights are signed exposures as fractions of equity; what is not invested is cash: cash = 1 - sum of weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.optimise.program import STRUCTURAL, Program

__all__ = ["Constraints", "Group", "Violation"]

Floats = npt.NDArray[np.float64]
Bound = float | Mapping[str, float] | Sequence[float] | Floats

#: What a bound that is not given for one instrument of a mapping means.
_OPEN = {"lower": -math.inf, "upper": math.inf, "max_change": math.inf}


class Violation(NamedTuple):
    """A constraint that weights break: its name, the value found, and the bound."""

    name: str
    value: float
    bound: float


@dataclass(frozen=True)
class Group:
    """A bound on the sum of some weights.

    Parameters
    ----------
    name : str
        As it is reported.
    members : sequence of str
        Instruments.
    lower, upper : float
        Bounds of the sum; infinite where there is none.
    gross : bool, default False
        Sum absolute weights (then only `upper` may be set: a least gross exposure is not convex).

    Raises
    ------
    ConfigurationError
        When a value breaks its rule.
    """

    name: str
    members: tuple[str, ...]
    lower: float = -math.inf
    upper: float = math.inf
    gross: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if not self.name or not self.members:
            raise ConfigurationError(f"`groups` must have a name and members, was {self.name!r} with {self.members}")
        if math.isnan(self.lower) or math.isnan(self.upper) or self.lower > self.upper:
            raise ConfigurationError(
                f"`groups` must have lower <= upper, was {self.lower} and {self.upper} for {self.name!r}"
            )
        if self.gross and self.lower > 0.0:
            raise ConfigurationError(f"`groups` of gross exposure must have no lower bound, was {self.lower}")

    @classmethod
    def of(
        cls, holdings: Holdings, by: str, bounds: Mapping[str, tuple[float, float]], *, gross: bool = False
    ) -> tuple[Group, ...]:
        """Groups by a field of the holdings.

        Parameters
        ----------
        holdings : Holdings
            Whose instruments are grouped.
        by : {"asset_classes", "venues", "currencies"}
            Which field.
        bounds : mapping of str to (float, float)
            Lower and upper bound by value of the field.
        gross : bool
            As in the class.

        Raises
        ------
        ConfigurationError
            When the field or a value of it is unknown.
        """
        if by not in ("asset_classes", "venues", "currencies"):
            raise ConfigurationError(f"`by` must be asset_classes, venues or currencies, was {by!r}")
        values = getattr(holdings, by)
        made = []
        for value, (lower, upper) in bounds.items():
            members = tuple(n for n, v in zip(holdings.instrument_ids, values, strict=True) if v == value)
            if not members:
                raise ConfigurationError(f"`bounds` must name values of {by}, was {value!r}")
            made.append(cls(value, members, lower, upper, gross))
        return tuple(made)


@dataclass(frozen=True)
class Constraints:
    """Bounds on weights; a bound that is None is none.

    Parameters
    ----------
    lower, upper : float, sequence or mapping of str to float
        Of each weight; 0 and 1 by default (long only). A mapping leaves instruments it does not name unbounded.
    budget : float, optional
        Sum of the weights; 1 by default (fully invested).
    net : tuple of (float, float), optional
        Bounds of the sum of the weights.
    cash : tuple of (float, float), optional
        Bounds of 1 - sum of the weights.
    gross : float, optional
        Largest sum of absolute weights.
    groups : sequence of Group
        Bounds of parts.
    turnover : float, optional
        Largest sum of absolute changes from the present weights.
    max_change : float, sequence or mapping, optional
        Largest absolute change of each weight.

    Raises
    ------
    ConfigurationError
        When a value breaks its rule. Bounds that only together cannot be met are left to the optimisation, which names
        them.
    """

    lower: Bound = 0.0
    upper: Bound = 1.0
    budget: float | None = 1.0
    net: tuple[float, float] | None = None
    cash: tuple[float, float] | None = None
    gross: float | None = None
    groups: tuple[Group, ...] = field(default=())
    turnover: float | None = None
    max_change: Bound | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        if self.budget is not None and not math.isfinite(self.budget):
            raise ConfigurationError(f"`budget` must be finite, was {self.budget}")
        for name in ("net", "cash"):
            pair = getattr(self, name)
            if pair is not None and not (len(pair) == 2 and pair[0] <= pair[1]):
                raise ConfigurationError(f"`{name}` must be (lower, upper) with lower <= upper, was {pair}")
        for name in ("gross", "turnover"):
            value = getattr(self, name)
            if value is not None and not value >= 0.0:
                raise ConfigurationError(f"`{name}` must be >= 0, was {value}")
        names = [group.name for group in self.groups]
        if len(set(names)) != len(names):
            raise ConfigurationError(f"`groups` must have distinct names, was {names}")

    @classmethod
    def long_short(
        cls, gross: float = 1.0, *, net: tuple[float, float] | None = None, bound: float = 1.0
    ) -> Constraints:
        """No budget, weights from -bound to bound, and a limit on gross exposure."""
        return cls(lower=-bound, upper=bound, budget=None, net=net, gross=gross)

    def bound(self, field_name: str, names: Sequence[str]) -> Floats:
        """A bound as an array over instruments.

        Raises
        ------
        ConfigurationError
            When it does not fit the instruments, or a value breaks its rule.
        """
        value = getattr(self, field_name)
        if value is None:
            return np.full(len(names), _OPEN[field_name])
        if isinstance(value, Mapping):
            unknown = [name for name in value if name not in names]
            if unknown:
                raise ConfigurationError(f"`{field_name}` must name instruments of the portfolio, was {unknown[0]!r}")
            made = np.array([value.get(name, _OPEN[field_name]) for name in names], dtype=np.float64)
        else:
            made = np.asarray(value, dtype=np.float64)
            if made.ndim and made.shape != (len(names),):
                raise ConfigurationError(f"`{field_name}` must have {len(names)} entries, had shape {made.shape}")
            made = np.broadcast_to(made, (len(names),)).copy()
        if np.isnan(made).any() or (field_name == "max_change" and (made < 0.0).any()):
            raise ConfigurationError(f"`{field_name}` must be numbers{' >= 0' if field_name == 'max_change' else ''}")
        return made

    def check(self, names: Sequence[str]) -> tuple[Floats, Floats]:
        """Lower and upper bounds as arrays, after every rule that the instruments' names decide.

        Raises
        ------
        ConfigurationError
            When a bound or a group does not fit the instruments.
        """
        lower, upper = self.bound("lower", names), self.bound("upper", names)
        self.bound("max_change", names)
        if (lower > upper).any():
            i = int(np.argmax(lower > upper))
            raise ConfigurationError(f"`lower` must be <= `upper`, was {lower[i]:g} and {upper[i]:g} for {names[i]}")
        for group in self.groups:
            for member in group.members:
                if member not in names:
                    raise ConfigurationError(
                        f"`groups` must hold instruments of the portfolio, {group.name!r} held {member!r}"
                    )
        return lower, upper

    def needs_changes(self) -> bool:
        """Whether absolute changes of weights are bounded in sum."""
        return self.turnover is not None

    def add_to(
        self, program: Program, weights: npt.NDArray[np.int64], names: Sequence[str], current: Floats,
        changes: npt.NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        """Append the rows to a program.

        Parameters
        ----------
        program : Program
            That holds the weights.
        weights : ndarray of int
            Their variables.
        names : sequence of str
            Instruments.
        current : ndarray
            Present weights.
        changes : ndarray of int, optional
            Variables >= |w - current| when the objective has them already.
        """
        lower, upper = self.check(names)
        program.rows([f"upper {name}" for name in names], [(weights, 1.0)], upper)
        program.rows([f"lower {name}" for name in names], [(weights, -1.0)], -lower)
        if self.budget is not None:
            program.row("budget", weights, 1.0, self.budget, equal=True)
        for name, pair in (("net", self.net), ("cash", None if self.cash is None else _swap(self.cash))):
            if pair is None:
                continue
            low, high = pair
            # Little cash is much net.
            if math.isfinite(high):
                program.row(f"{name} {'upper' if name == 'net' else 'lower'}", weights, 1.0, high)
            if math.isfinite(low):
                program.row(f"{name} {'lower' if name == 'net' else 'upper'}", weights, -1.0, -low)
        if self.gross is not None or any(group.gross for group in self.groups):
            absolute = weights
            if (lower < 0.0).any():
                absolute = program.variables(len(names))
                program.rows(STRUCTURAL, [(weights, 1.0), (absolute, -1.0)], np.zeros(len(names)))
                program.rows(STRUCTURAL, [(weights, -1.0), (absolute, -1.0)], np.zeros(len(names)))
            if self.gross is not None:
                program.row("gross", absolute, 1.0, self.gross)
        else:
            absolute = weights
        index = {name: i for i, name in enumerate(names)}
        for group in self.groups:
            members = np.array([index[member] for member in group.members])
            if math.isfinite(group.upper):
                program.row(
                    f"group {group.name} upper", (absolute if group.gross else weights)[members], 1.0, group.upper
                )
            if math.isfinite(group.lower):
                program.row(f"group {group.name} lower", weights[members], -1.0, -group.lower)
        if self.turnover is not None:
            if changes is None:
                changes = add_changes(program, weights, current)
            program.row("turnover", changes, 1.0, self.turnover)
        change = self.bound("max_change", names)
        program.rows([f"max_change {name}" for name in names], [(weights, 1.0)], current + change)
        program.rows([f"max_change {name}" for name in names], [(weights, -1.0)], change - current)

    def violations(
        self, weights: npt.ArrayLike, names: Sequence[str], current: npt.ArrayLike | None = None, *,
        tolerance: float = 1e-6, budget_below: float = 0.0,
    ) -> list[Violation]:  # fmt: skip
        """What weights break.

        Parameters
        ----------
        weights : array_like, shape (N,)
            To be judged.
        names : sequence of str
            Instruments.
        current : array_like, optional
            Present weights, zero by default.
        tolerance : float
            Excess that is let pass.
        budget_below : float
            By how much the sum of weights may stay below the budget (whole lots seldom add up to it).
        """
        w = np.asarray(weights, dtype=np.float64)
        now = np.zeros(len(names)) if current is None else np.asarray(current, dtype=np.float64)
        lower, upper = self.check(names)
        total = float(w.sum())
        found: list[Violation] = []

        def most(name: str, value: float, bound: float) -> None:
            if value > bound + tolerance:
                found.append(Violation(name, value, bound))

        def least(name: str, value: float, bound: float) -> None:
            if value < bound - tolerance:
                found.append(Violation(name, value, bound))

        for i in map(int, np.flatnonzero((w > upper + tolerance) | (w < lower - tolerance))):
            most(f"upper {names[i]}", float(w[i]), float(upper[i]))
            least(f"lower {names[i]}", float(w[i]), float(lower[i]))
        if self.budget is not None:
            most("budget", total, self.budget)
            least("budget", total, self.budget - budget_below)
        if self.net is not None:
            most("net upper", total, self.net[1])
            least("net lower", total, self.net[0])
        if self.cash is not None:
            most("cash upper", 1.0 - total, self.cash[1])
            least("cash lower", 1.0 - total, self.cash[0])
        if self.gross is not None:
            most("gross", float(np.abs(w).sum()), self.gross)
        index = {name: i for i, name in enumerate(names)}
        for group in self.groups:
            part = w[[index[member] for member in group.members]]
            value = float(np.abs(part).sum() if group.gross else part.sum())
            most(f"group {group.name} upper", value, group.upper)
            least(f"group {group.name} lower", value, group.lower)
        if self.turnover is not None:
            most("turnover", float(np.abs(w - now).sum()), self.turnover)
        change = self.bound("max_change", names)
        for i in map(int, np.flatnonzero(np.abs(w - now) > change + tolerance)):
            most(f"max_change {names[i]}", float(abs(w[i] - now[i])), float(change[i]))
        return found


def _swap(cash: tuple[float, float]) -> tuple[float, float]:
    return 1.0 - cash[1], 1.0 - cash[0]


def add_changes(program: Program, weights: npt.NDArray[np.int64], current: Floats) -> npt.NDArray[np.int64]:
    """Variables >= |w - current|."""
    changes = program.variables(len(weights))
    program.rows(STRUCTURAL, [(weights, 1.0), (changes, -1.0)], current)
    program.rows(STRUCTURAL, [(weights, -1.0), (changes, -1.0)], -current)
    return changes
