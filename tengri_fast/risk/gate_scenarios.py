"""What a method of measuring risk means on the order path: a scenario matrix, weights, and how the tail is read.

The gate revalues the portfolio in S scenarios and reads value at risk and expected shortfall off the S results. Every
method comes down to which scenarios these are, what each weighs, and how the tail is read; all of it is prepared here,
ahead of orders:

=============== ====================================== ======================= ===============
method          scenarios                              weights                 tail
=============== ====================================== ======================= ===============
historical      past returns                           equal                   order statistic
age_weighted    past returns                           (1-d) d^age / (1-d^S)   order statistic
filtered        log returns x volatility now / then    equal                   order statistic
normal          past returns                           equal                   two moments
cornish_fisher  past returns                           equal                   four moments
monte_carlo     drawn: Student t copula, empirical     equal                   order statistic
                margins, fitted to past returns
=============== ====================================== ======================= ===============

*normal* on the revalued results is the variance-covariance method with the sample covariance: for linear payoffs the
variance over scenarios of the portfolio's result, divided by S - 1, is w' C w exactly, and others are revalued instead
of linearised. The mean result counts: VaR = z sigma - mean. :func:`tengri_fast.risk.estimators.normal` takes
first-order exposures and, unless told ``mean = "sample"``, a mean of zero; with it the two agree for linear payoffs,
and :meth:`~tengri_fast.risk.manager.NeuralRiskManager.calculate_var` says it. *cornish_fisher* has the same mean and
sigma; the estimator of that name divides its variance by S instead, one part in 2 S of sigma, and refuses moments
outside the expansion's domain, where the gate takes the larger of the expansion and the order statistic.

*filtered* (Hull and White 1998) takes the volatility "then" from returns that had ended when the scenario began, also
where scenarios overlap: an EWMA that had seen its own return would make large losses look small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.conditional import age_weights, ewma_variances
from tengri_fast.risk.scenarios import ScenarioSet
from tengri_fast.risk.types import VAR_METHODS, InstrumentFacts

if TYPE_CHECKING:
    from tengri_fast.risk.volatility import NeuralRiskModel, VolatilityState

__all__ = ["GATE_METHODS", "GateScenarios", "gate_scenarios", "gate_stress"]

#: Methods of ``[risk.var]``.
GATE_METHODS = VAR_METHODS
_TAILS = {"normal": "normal", "cornish_fisher": "cornish_fisher"}
_DECAYS = {"age_weighted": 0.98, "filtered": 0.94}
#: Fewest scenarios from which volatilities or a copula are taken.
_LEAST = 30


class GateScenarios(NamedTuple):
    """What the gate is given.

    Parameters
    ----------
    scenarios : ScenarioSet
        The matrix.
    weights : ndarray of float64, shape (S,), or None
        One per scenario, summing to 1; None: all equal.
    tail : str
        "empirical", "normal" or "cornish_fisher".
    """

    scenarios: ScenarioSet
    weights: npt.NDArray[np.float64] | None
    tail: str


def overlap(scenarios: ScenarioSet) -> int:
    """How many steps of the data a scenario spans, at least 1: it overlaps with so many less one after it."""
    step = scenarios.provenance.get("step_ns", "")
    return max(scenarios.horizon_ns // int(step), 1) if step.isdigit() and int(step) > 0 else 1


def _filtered(scenarios: ScenarioSet, decay: float) -> npt.NDArray[np.float32]:
    returns = scenarios.returns.astype(np.float64)
    if (returns <= -1.0).any():
        raise ConfigurationError('`scenarios` must be > -1 for the method "filtered", held -1')
    logs = np.log1p(returns)
    count, steps = logs.shape[1], overlap(scenarios)
    variance = ewma_variances(logs, decay)
    flat = ~(variance > 0.0).all(axis=1)
    # An instrument that never moved has no volatility to scale by, and keeps its returns, which are zero.
    variance[flat] = 1.0
    then = variance[:, np.maximum(np.arange(count) - steps + 1, 0)]
    scaled = np.expm1(logs * np.sqrt(variance[:, -1:] / then))
    return scaled.astype(np.float32)


def gate_scenarios(
    scenarios: ScenarioSet,
    method: str = "historical",
    *,
    count: int | None = None,
    decay: float | None = None,
    seed: int = 0,
) -> GateScenarios:
    """Prepare scenarios for a method.

    Parameters
    ----------
    scenarios : ScenarioSet
        Past returns, the most recent last.
    method : str
        One of :data:`GATE_METHODS`.
    count : int, optional
        Use only so many, the most recent; for "monte_carlo" also how many are drawn. All by default.
    decay : float, optional
        In (0, 1): 0.98 for "age_weighted", 0.94 for "filtered" by default.
    seed : int
        Of "monte_carlo".

    Raises
    ------
    ConfigurationError
        When the method is unknown, a setting breaks its rule, or there are too few scenarios.
    DataConversionError, MissingExtraError
        When nothing can be fitted to the returns, or SciPy is not installed ("monte_carlo").
    """
    if method not in GATE_METHODS:
        raise ConfigurationError(f"`method` must be one of {', '.join(GATE_METHODS)}, was {method!r}")
    if decay is not None and not 0.0 < decay < 1.0:
        raise ConfigurationError(f"`decay` must be between 0 and 1, was {decay}")
    if count is not None and count < 1:
        raise ConfigurationError(f"`count` must be >= 1, was {count}")
    factor = _DECAYS.get(method, 0.0) if decay is None else decay
    facts = {**scenarios.provenance, "method": method}
    if method in ("filtered", "monte_carlo") and scenarios.count < _LEAST:
        raise ConfigurationError(f'`scenarios` must be >= {_LEAST} for the method "{method}", were {scenarios.count}')
    if method == "monte_carlo":
        from tengri_fast.risk.monte_carlo import draw_scenarios, fit_paths

        model = fit_paths(scenarios.returns, copula="student_t", margins="empirical")
        drawn = draw_scenarios(
            model,
            scenarios.instrument_ids,
            horizon_ns=scenarios.horizon_ns,
            paths=count or 10_000,
            seed=seed,
            provenance=facts,
        )
        return GateScenarios(drawn, None, "empirical")
    returns = scenarios.returns
    if method == "filtered":
        # All of the history teaches the volatility, whichever part of it is used below.
        returns = _filtered(scenarios, factor)
        facts["decay"] = str(factor)
    used = ScenarioSet(
        scenarios.instrument_ids,
        returns if count is None else returns[:, -count:],
        scenarios.horizon_ns,
        facts,
    )
    weights = age_weights(used.count, factor) if method == "age_weighted" else None
    return GateScenarios(used, weights, _TAILS.get(method, "empirical"))


def gate_stress(
    facts: Sequence[InstrumentFacts],
    *,
    library: bool = True,
    files: Sequence[str] = (),
    scenarios: ScenarioSet | None = None,
    volatility: Callable[[], NeuralRiskModel] | None = None,
    columns: int = 16,
    base_currency: str = "USD",
    seed: int = 0,
) -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """The stress matrix that the gate revalues for its limit on stress losses.

    Parameters
    ----------
    facts : sequence of InstrumentFacts, length N
        The instruments; their asset class, venue and currency decide which shocks they feel.
    library : bool
        Whether the built-in scenarios belong to it.
    files : sequence of str
        Scenarios of the user, TOML.
    scenarios : ScenarioSet, optional
        Past returns, needed for columns of the volatility model.
    volatility : callable, optional
        Makes a volatility model (:class:`~tengri_fast.risk.volatility.NeuralRiskModel`) for one instrument; the worst
        ``columns`` scenarios drawn from their state are added. None: none are.
    columns : int
        How many.
    base_currency : str
        Of the portfolio.
    seed : int
        Of the draw.

    Returns
    -------
    names : tuple of str, length K
    returns : ndarray of float32, shape (N, K)
        Relative moves.

    Raises
    ------
    ConfigurationError
        When there is no scenario, or none moves an instrument: its positions would pass every limit on stress losses.
    DataConversionError
        When the returns of an instrument are too few for the volatility model.
    """
    from tengri_fast.risk.stress import StressLibrary

    names: list[str] = []
    ids = [fact.instrument_id for fact in facts]
    blocks: list[npt.NDArray[np.float32]] = []
    if library or files:
        matrix = StressLibrary.load(*files, built_in=library).to_matrix(ids, facts, base_currency=base_currency)
        names += matrix.names
        blocks.append(matrix.returns)
    if volatility is not None and scenarios is not None:
        from tengri_fast.risk.stress.neural import neural_matrix, neural_scenarios

        drawn = neural_scenarios(_state(scenarios, volatility), scenarios, 1_000, seed)
        matrix = neural_matrix(drawn, columns, ids)
        names += matrix.names
        blocks.append(matrix.returns)
    table = np.concatenate(blocks, axis=1) if blocks else np.zeros((len(ids), 0), np.float32)
    still = [name for name, row in zip(ids, table, strict=True) if not row.any()]
    if still:
        raise ConfigurationError(
            f"`risk.stress` must hold a scenario that moves every instrument, none moves {', '.join(still[:5])}: give "
            "it an asset class that the library knows, or scenarios of its own"
        )
    return tuple(names), np.ascontiguousarray(table)


def _state(scenarios: ScenarioSet, volatility: Callable[[], NeuralRiskModel]) -> VolatilityState:
    """Forecasts from the past returns, taken where they do not overlap."""
    from tengri_fast.risk.volatility import volatility_state

    apart = scenarios.returns[:, (scenarios.count - 1) % overlap(scenarios) :: overlap(scenarios)].astype(np.float64)
    models = {}
    for name, row in zip(scenarios.instrument_ids, apart, strict=True):
        models[name] = model = volatility()
        for value in row.tolist():
            model.update(value)
    spread = apart.std(axis=1)
    spread[spread == 0.0] = 1.0
    scaled = (apart - apart.mean(axis=1, keepdims=True)) / spread[:, None]
    correlation = np.clip(scaled @ scaled.T / apart.shape[1], -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    return volatility_state(models, correlation, period_ns=scenarios.horizon_ns)
