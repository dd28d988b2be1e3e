"""What all methods share: checked inputs, the program with its constraints, the answer, and the fallbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.measures import expected_shortfall, value_at_risk
from tengri_fast.risk.optimise.constraints import Constraints
from tengri_fast.risk.optimise.diagnose import diagnose
from tengri_fast.risk.optimise.inputs import Costs, checked_covariance, checked_scenarios, vector
from tengri_fast.risk.optimise.program import STRUCTURAL, Program, Solution, SolverSettings, solver_version
from tengri_fast.risk.optimise.result import (
    Binding,
    Infeasibility,
    InfeasibleError,
    OptimisationResult,
    SolverFacts,
    named,
    risk_of,
)

__all__ = ["Problem", "prepare"]

Floats = npt.NDArray[np.float64]

#: A row counts as touched when its slack is below this, relative to the bound.
TOUCHED = 1e-6


@dataclass
class Problem:
    """Checked inputs of one optimisation."""

    method: str
    names: tuple[str, ...]
    constraints: Constraints
    current: Floats
    settings: SolverSettings
    covariance: Floats | None = None
    expected: Floats | None = None
    scenarios: Floats | None = None
    level: float = 0.95
    costs: Costs | None = None
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of instruments."""
        return len(self.names)

    def program(self) -> tuple[Program, npt.NDArray[np.int64]]:
        """A program with the weights' variables and all constraints, without an objective."""
        program = Program()
        weights = program.variables(self.count)
        self.constraints.add_to(program, weights, self.names, self.current)
        return program, weights

    def binding(self, solution: Solution, scale: float, factor: float = 1.0) -> tuple[Binding, ...]:
        """The named rows that are touched; `scale` divides slacks, `factor` multiplies prices."""
        found: dict[str, float] = {}
        for i, name in enumerate(solution.names):
            if name == STRUCTURAL or solution.slacks[i] > TOUCHED * max(scale, 1e-300):
                continue
            price = factor * float(solution.duals[i])
            if i >= solution.equalities and price < 1e-9 * factor:
                price = 0.0
            # A bound of both directions has two rows of one name: the dearer one is meant.
            if name not in found or abs(price) > abs(found[name]):
                found[name] = price
        return tuple(Binding(name, price) for name, price in sorted(found.items(), key=lambda p: (-abs(p[1]), p[0])))

    def clean(self, weights: Floats) -> Floats:
        """Weights without the solver's last digits: inside their bounds, and zero where they are next to it."""
        lower, upper = self.constraints.check(self.names)
        made = np.where(np.abs(weights) < 1e-9, 0.0, weights)
        result: Floats = np.clip(made, np.minimum(lower, upper), upper)
        return result

    def result(
        self, weights: Floats, objective: float, facts: SolverFacts, binding: tuple[Binding, ...] = (),
        status: str = "optimal", infeasibility: Infeasibility | None = None, notes: Sequence[str] = (),
    ) -> OptimisationResult:  # fmt: skip
        """The answer with every number that follows from the weights."""
        volatility, contributions = risk_of(weights, self.covariance)
        var = tail = math.nan
        if self.scenarios is not None:
            pnl = weights @ self.scenarios
            var, tail = value_at_risk(pnl, self.level), expected_shortfall(pnl, self.level)
        return OptimisationResult(
            method=self.method,
            status=status,
            names=self.names,
            weights=weights,
            current=self.current,
            objective=objective,
            expected_return=math.nan if self.expected is None else float(self.expected @ weights),
            volatility=volatility,
            risk_contributions=contributions,
            solver=facts,
            value_at_risk=var,
            expected_shortfall=tail,
            cost=0.0 if self.costs is None else float(self.costs.of_changes(weights - self.current).sum()),
            binding=binding,
            infeasibility=infeasibility,
            notes=(*self.notes, *notes),
        )

    def facts(self, solution: Solution) -> SolverFacts:
        """What the solver did."""
        return SolverFacts(
            solver_version(),
            solution.status,
            solution.iterations,
            solution.primal_residual,
            solution.dual_residual,
            solution.seconds,
        )

    def answer(
        self, program: Program, weights: npt.NDArray[np.int64], objective: Callable[[Floats], float],
        *, price_factor: float = 1.0, extra: Callable[[Program, npt.NDArray[np.int64]], None] | None = None,
    ) -> OptimisationResult:  # fmt: skip
        """Solve a program whose first variables are the weights, and fall back when there are none.

        Parameters
        ----------
        program : Program
            Complete.
        weights : ndarray of int
            Variables of the weights.
        objective : callable
            Value of the method's own objective at weights.
        price_factor : float
            From the program's prices to the objective's unit.
        extra : callable, optional
            Adds rows of the method (a least return) to a program, so that they can be blamed too.
        """
        solution = program.solve(self.settings)
        if not solution.good:
            return self.fall_back(solution, extra)
        found = self.clean(solution.x[weights])
        binding = self.binding(solution, 1.0, price_factor)
        return self.result(found, objective(found), self.facts(solution), binding, solution.status)

    def fall_back(
        self, solution: Solution | None, extra: Callable[[Program, npt.NDArray[np.int64]], None] | None = None,
        reason: str | None = None, infeasibility: Infeasibility | None = None,
    ) -> OptimisationResult:  # fmt: skip
        """What the settings say for a problem without an answer; names the constraints to blame."""
        began = time.perf_counter()

        def build() -> Program:
            made, variables = self.program()
            if extra is not None:
                extra(made, variables)
            return made

        if infeasibility is None:
            infeasibility = diagnose(build, self.settings)
        if reason is None:
            if infeasibility is not None:
                reason = infeasibility.text()
            else:
                reason = f"the solver stopped: {'failed' if solution is None else solution.status}"
        if self.settings.on_infeasible == "raise":
            raise InfeasibleError(f"{self.method} has no answer: {reason}", infeasibility)
        how = self.settings.on_infeasible
        if how == "keep":
            weights = self.current.copy()
        elif how == "equal":
            budget = 1.0 if self.constraints.budget is None else self.constraints.budget
            weights = np.full(self.count, budget / self.count)
        else:
            weights = self._least_variance(infeasibility is not None)
        iterations = 0 if solution is None else solution.iterations
        status = "infeasible" if solution is None else solution.status
        facts = SolverFacts(solver_version(), status, iterations, seconds=time.perf_counter() - began)
        broken = self.constraints.violations(weights, self.names, self.current)
        notes = [reason] + [f"{v.name} is {v.value:.6g}, bound {v.bound:.6g}" for v in broken[:20]]
        return self.result(weights, math.nan, facts, (), f"fallback: {how}", infeasibility, notes)

    def _least_variance(self, relaxed: bool) -> Floats:
        """Least variance; under relaxed constraints, with a price on slacks that outweighs any variance."""
        covariance = np.eye(self.count) if self.covariance is None else self.covariance
        program, weights = self.program()
        program.quadratic(weights, covariance)
        if relaxed:
            program = _elastic(program, price=1e3 * float(np.diag(covariance).max()))
        solution = program.solve(self.settings)
        if not solution.good:
            raise InfeasibleError(f"{self.method} has no answer, and neither has its fallback: {solution.status}")
        found: Floats = np.where(np.abs(solution.x[weights]) < 1e-9, 0.0, solution.x[weights])
        return found


def _elastic(program: Program, price: float) -> Program:
    """The program with slacks on its named rows, at a price; the objective stays."""
    from tengri_fast.risk.optimise.diagnose import relax

    quadratic, linear = list(program._quadratic), list(program._linear)
    relax(program)
    slack_costs = [(columns, price * np.asarray(values)) for columns, values in program._linear]
    program._quadratic[:] = quadratic
    program._linear[:] = linear + slack_costs
    return program


def prepare(
    method: str, constraints: Constraints | None, settings: SolverSettings | None, *,
    covariance: npt.ArrayLike | None = None, expected: npt.ArrayLike | None = None,
    scenarios: npt.ArrayLike | None = None, level: float = 0.95, costs: Costs | None = None,
    names: Sequence[str] | None = None, current: npt.ArrayLike | None = None,
) -> Problem:  # fmt: skip
    """Check the inputs of a method.

    Raises
    ------
    ConfigurationError, DataConversionError
        When one breaks its rule.
    """
    notes: tuple[str, ...] = ()
    matrix = table = None
    count = -1
    if covariance is not None:
        matrix, notes = checked_covariance(covariance, names)
        count = matrix.shape[0]
    if scenarios is not None:
        table = checked_scenarios(scenarios, names)
        if count not in (-1, table.shape[0]):
            raise DataConversionError(f"`returns` must have {count} rows, as the covariance has, had {table.shape[0]}")
        count = table.shape[0]
    if not 0.0 < level < 1.0:
        raise DataConversionError(f"`level` must be between 0 and 1, was {level}")
    labels = named(names, count)
    if len(set(labels)) != len(labels):
        raise DataConversionError(f"`names` must be distinct, was {labels}")
    rules = Constraints() if constraints is None else constraints
    rules.check(labels)
    if costs is not None:
        costs.arrays(count)
    return Problem(
        method=method,
        names=labels,
        constraints=rules,
        current=np.zeros(count) if current is None else vector("current", current, count),
        settings=SolverSettings() if settings is None else settings,
        covariance=matrix,
        expected=None if expected is None else vector("expected", expected, count),
        scenarios=table,
        level=level,
        costs=costs,
        notes=notes,
    )
