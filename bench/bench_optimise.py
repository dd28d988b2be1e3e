"""Portfolio optimisation against cvxpy with the same solver, skfolio and Riskfolio-Lib.

Every row answers the same question on the same 500 days of 50 instruments, from arrays to weights, and the answers are
compared before anything is timed. skfolio and Riskfolio-Lib fit the covariance too, which is microseconds here. They
are no dependency: their rows appear where they are installed.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from _measure import record

pytest.importorskip("clarabel", reason="the extra `risk` is not installed")
from tengri_fast.risk.optimise import (
    Constraints,
    custom_objective,
    hierarchical_risk_parity,
    maximum_sharpe,
    minimum_cvar,
    minimum_variance,
    risk_parity,
)

N, S, CAP = 50, 500, 0.1
BASELINE: dict[tuple[str, str], float] = {}


def market() -> np.ndarray:
    rng = np.random.default_rng(3)
    loads = rng.normal(0.8, 0.3, (N, 3))
    returns = rng.standard_t(4, (S, 3)) @ loads.T * 0.005 + rng.standard_normal((S, N)) * rng.uniform(0.005, 0.02, N)
    return returns + rng.normal(6e-4, 4e-4, N)


RETURNS = market()
COVARIANCE, MEANS = np.cov(RETURNS.T), RETURNS.mean(axis=0)
RULES = Constraints(upper=CAP)

OURS: dict[str, Callable[[], np.ndarray]] = {
    "minimum variance": lambda: minimum_variance(COVARIANCE, RULES).weights,
    "maximum Sharpe": lambda: maximum_sharpe(MEANS, COVARIANCE, RULES).weights,
    "risk parity": lambda: risk_parity(COVARIANCE).weights,
    "minimum CVaR": lambda: minimum_cvar(RETURNS.T, RULES, level=0.95).weights,
    "hierarchical risk parity": lambda: hierarchical_risk_parity(COVARIANCE, distance="direct").weights,
}


def with_cvxpy(task: str) -> Callable[[], np.ndarray]:
    cvxpy = importlib.import_module("cvxpy")
    if task == "minimum variance":
        return lambda: custom_objective(lambda w: cvxpy.quad_form(w, 1e4 * COVARIANCE), COVARIANCE, RULES).weights
    if task != "minimum CVaR":
        pytest.skip(f"{task} is not written in cvxpy here")

    def cvar() -> np.ndarray:
        w, a = cvxpy.Variable(N), cvxpy.Variable()
        loss = a + cvxpy.sum(cvxpy.pos(-RETURNS @ w - a)) / (0.05 * S)
        cvxpy.Problem(cvxpy.Minimize(loss), [w >= 0, w <= CAP, cvxpy.sum(w) == 1]).solve(solver=cvxpy.CLARABEL)
        return np.asarray(w.value)

    return cvar


def with_skfolio(task: str) -> Callable[[], np.ndarray]:
    pytest.importorskip("skfolio", reason="skfolio is not installed")
    from skfolio import RiskMeasure
    from skfolio.optimization import MeanRisk, ObjectiveFunction, RiskBudgeting

    models = {
        "minimum variance": lambda: MeanRisk(max_weights=CAP),
        "maximum Sharpe": lambda: MeanRisk(objective_function=ObjectiveFunction.MAXIMIZE_RATIO, max_weights=CAP),
        "risk parity": RiskBudgeting,
        "minimum CVaR": lambda: MeanRisk(risk_measure=RiskMeasure.CVAR, cvar_beta=0.95, max_weights=CAP),
    }
    if task not in models:
        pytest.skip(f"skfolio's {task} has another distance")
    return lambda: np.asarray(models[task]().fit(RETURNS).weights_)


def with_riskfolio(task: str) -> Callable[[], np.ndarray]:
    rp = pytest.importorskip("riskfolio", reason="Riskfolio-Lib is not installed")
    pandas = importlib.import_module("pandas")
    frame = pandas.DataFrame(RETURNS, columns=[f"a{i:02d}" for i in range(N)])

    def single() -> np.ndarray:
        made = rp.Portfolio(returns=frame, upperlng=1.0)
        made.assets_stats(method_mu="hist", method_cov="hist")
        if task == "risk parity":
            return np.asarray(made.rp_optimization(model="Classic", rm="MV", rf=0, b=None, hist=True)["weights"])
        made.ainequality, made.binequality = np.eye(N), np.full((N, 1), CAP)
        measure = "CVaR" if task == "minimum CVaR" else "MV"
        goal = "Sharpe" if task == "maximum Sharpe" else "MinRisk"
        return np.asarray(made.optimization(model="Classic", rm=measure, obj=goal, rf=0, l=0, hist=True)["weights"])

    def tree() -> np.ndarray:
        made = rp.HCPortfolio(returns=frame)
        found = made.optimization(
            model="HRP", codependence="pearson", rm="MV", rf=0, linkage="single", leaf_order=False
        )
        return np.asarray(found["weights"])

    return tree if task == "hierarchical risk parity" else single


MAKERS = {"cvxpy, Clarabel": with_cvxpy, "skfolio": with_skfolio, "Riskfolio-Lib": with_riskfolio}


@pytest.mark.parametrize("row", [*MAKERS, "ours"])
@pytest.mark.parametrize("task", list(OURS))
def test_optimise(benchmark: Any, task: str, row: str) -> None:
    function = OURS[task] if row == "ours" else MAKERS[row](task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(function(), OURS[task](), atol=2e-3)
        times = []
        until = time.perf_counter() + 1.0
        while len(times) < 5 or (time.perf_counter() < until and len(times) < 200):
            start = time.perf_counter_ns()
            function()
            times.append(time.perf_counter_ns() - start)
        group = f"risk: {task}, {N} instruments"
        benchmark.group = group
        if row != "ours":
            BASELINE[group, row] = float(np.min(times))
        known = {name: BASELINE[group, name] for name in MAKERS if (group, name) in BASELINE and name != row}
        record(benchmark, times, against=known, instruments=N, rival=row)
        benchmark.pedantic(function, rounds=3)
