"""Scenarios drawn from the state of a volatility model: what it expects, and what it expects when it is wrong.

Two sources are mixed, in this order:

*Filtered history* (Hull and White 1998, "Incorporating volatility updating into the historical simulation method",
J. Risk 1; Barone-Adesi, Giannopoulos and Vosper 1999): a return of the past divided by its own standard deviation then,
times the one that the model says now. Joint, because a whole column is taken at a time.

*The model's distribution*: a multivariate Student t with its sigmas, correlation and degrees of freedom.

Each is drawn at the model's volatility and at its upper levels: multiples of sigma at which, by the model's own record,
its forecast is too low with a given frequency. :func:`upper_multiples` measures them as quantiles of |standardised
return| against those of the distribution assumed.

A gate cannot evaluate thousands of them per order. :func:`worst_scenarios` keeps those that lose most for the
portfolio, or, as portfolios change with every fill, those that are extreme for any direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.conditional import ewma_variances
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.scenarios import ScenarioSet
from tengri_fast.risk.stress.library import StressMatrix

__all__ = ["VolatilityState", "neural_matrix", "neural_scenarios", "upper_multiples", "worst_scenarios"]

Floats = npt.NDArray[np.float64]
# Of a price: a return of -100 % cannot be revalued for every payoff.
_FLOOR = -0.9999


@runtime_checkable
class VolatilityState(Protocol):
    """What a volatility model says now; :class:`tengri_fast.risk.volatility.VolatilityState` conforms.

    ``sigmas`` (N,) over ``horizon_ns``, ``correlation`` (N, N), ``degrees_of_freedom`` > 2 or infinite.
    """

    @property
    def instrument_ids(self) -> tuple[str, ...]:
        """N names."""
        ...

    @property
    def sigmas(self) -> Floats:
        """Conditional standard deviation of each instrument, shape (N,)."""
        ...

    @property
    def correlation(self) -> Floats:
        """Conditional correlation, shape (N, N)."""
        ...

    @property
    def degrees_of_freedom(self) -> float:
        """Of the joint Student t; infinite for a Gaussian."""
        ...

    @property
    def horizon_ns(self) -> int:
        """Over which the sigmas hold, ns."""
        ...


def _checked(state: VolatilityState) -> tuple[Floats, Floats, float]:
    count = len(state.instrument_ids)
    sigmas = np.asarray(state.sigmas, dtype=np.float64)
    correlation = np.asarray(state.correlation, dtype=np.float64)
    if sigmas.shape != (count,) or not (np.isfinite(sigmas) & (sigmas > 0.0)).all():
        raise DataConversionError(f"`state.sigmas` must be finite and > 0 with shape ({count},), was {sigmas}")
    if correlation.shape != (count, count) or not np.isfinite(correlation).all():
        raise DataConversionError(f"`state.correlation` must be finite with shape ({count}, {count})")
    if np.abs(correlation - correlation.T).max() > 1e-9 or np.abs(np.diag(correlation) - 1.0).max() > 1e-9:
        raise DataConversionError("`state.correlation` must be symmetric with ones on its diagonal")
    freedom = float(state.degrees_of_freedom)
    if not freedom > 2.0:
        raise DataConversionError(f"`state.degrees_of_freedom` must be > 2, was {freedom}")
    return sigmas, correlation, freedom


def _seed(seed: int) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise DataConversionError(f"`seed` must be an integer >= 0, was {seed!r}")
    return np.random.Generator(np.random.PCG64(seed))


def ewma_path(returns: npt.ArrayLike, decay: float = 0.94) -> Floats:
    """Standard deviations known before each return (RiskMetrics 1996, eq. 5.3).

    Parameters
    ----------
    returns : array_like, shape (N, T)
    decay : float
        Within 0 and 1, exclusive.

    Returns
    -------
    ndarray, shape (N, T)
        Column t uses returns before t only; where it starts: :func:`tengri_fast.risk.conditional.ewma_variances`.
    """
    table = np.asarray(returns, dtype=np.float64)
    if not 0.0 < decay < 1.0:
        raise DataConversionError(f"`decay` must be between 0 and 1, was {decay}")
    result: Floats = np.sqrt(ewma_variances(table, decay)[:, :-1])
    return result


def upper_multiples(
    standardised: npt.ArrayLike, levels: Sequence[float] = (0.95, 0.99), *, window: int = 20
) -> tuple[float, ...]:
    """How many times its forecast a model's volatility was, at given frequencies.

    Parameters
    ----------
    standardised : array_like, shape (T,) or (N, T)
        Returns divided by the forecast made before them, over a record that the model was not fitted to.
    levels : sequence of float
        Frequencies within 0 and 1, exclusive.
    window : int
        The realised volatility is the root mean square over so many returns, >= 2 and at most T.

    Returns
    -------
    tuple of float
        Quantiles (order statistics) of realised over forecast volatility, at least 1.
    """
    table = np.atleast_2d(np.asarray(standardised, dtype=np.float64))
    if table.ndim != 2 or not np.isfinite(table).all():
        raise DataConversionError("`standardised` must be finite with shape (T,) or (N, T)")
    if not 2 <= window <= table.shape[1]:
        raise DataConversionError(f"`window` must be within 2 and {table.shape[1]}, was {window}")
    if not levels or not all(0.0 < level < 1.0 for level in levels):
        raise DataConversionError(f"`levels` must be between 0 and 1, was {tuple(levels)}")
    sums = np.cumsum(np.concatenate((np.zeros((table.shape[0], 1)), table**2), axis=1), axis=1)
    ratios = np.sqrt(np.maximum(sums[:, window:] - sums[:, :-window], 0.0) / window).ravel()
    return tuple(max(float(np.quantile(ratios, level, method="inverted_cdf")), 1.0) for level in levels)


def neural_scenarios(
    state: VolatilityState,
    returns: npt.ArrayLike | ScenarioSet | None,
    count: int,
    seed: int,
    *,
    sigma_path: npt.ArrayLike | None = None,
    multiples: Sequence[float] = (1.0, 1.5, 2.0),
) -> ScenarioSet:
    """Joint returns at the volatility that a model says now, and at its upper levels.

    Parameters
    ----------
    state : VolatilityState
        Of N instruments.
    returns : array_like, shape (N, T), or ScenarioSet, optional
        Past returns over the horizon of the state, in the order of its instruments; those of a set are found by name.
        None: everything is drawn from the model's distribution, otherwise half of it.
    count : int
        Scenarios for each of ``multiples``, >= 1.
    seed : int
        Of the draw, >= 0. Equal arguments give equal bits.
    sigma_path : array_like, shape (N, T), optional
        Standard deviation of each return known before it, > 0; by default an exponentially weighted one, decay 0.94.
    multiples : sequence of float
        Levels of volatility as multiples of the model's, > 0.

    Returns
    -------
    ScenarioSet
        ``count * len(multiples)`` scenarios, those of the largest multiple last; returns are cut at -99.99 %.

    Raises
    ------
    DataConversionError
        When an argument breaks its rule.
    """
    sigmas, correlation, freedom = _checked(state)
    size = sigmas.size
    rng = _seed(seed)
    if isinstance(count, bool) or count < 1:
        raise DataConversionError(f"`count` must be >= 1, was {count}")
    levels = tuple(float(multiple) for multiple in multiples)
    if not levels or not all(math.isfinite(level) and level > 0.0 for level in levels):
        raise DataConversionError(f"`multiples` must be finite and > 0, was {levels}")
    filtered = None if returns is None else _filtered(state, returns, sigma_path)
    values, vectors = np.linalg.eigh(correlation)
    if values[0] < -1e-8 * values[-1]:
        raise DataConversionError(
            f"`state.correlation` must be positive semidefinite, had the eigenvalue {values[0]:.6g}"
        )
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    blocks = []
    for level in sorted(levels):
        history = count // 2 if filtered is not None else 0
        parts = []
        if filtered is not None and history:
            parts.append(filtered[:, rng.integers(0, filtered.shape[1], history)])
        normal = root @ rng.standard_normal((size, count - history))
        if math.isfinite(freedom):
            # A common divisor makes the tails joint; the factor keeps the variance at one.
            normal *= np.sqrt((freedom - 2.0) / rng.chisquare(freedom, count - history))
        parts.append(normal)
        blocks.append(level * sigmas[:, None] * np.concatenate(parts, axis=1))
    table = np.maximum(np.concatenate(blocks, axis=1), _FLOOR)
    facts = {
        "source": "volatility model",
        "model": str(getattr(state, "model", "")),
        "seed": str(seed),
        "multiples": ", ".join(f"{level:g}" for level in sorted(levels)),
        "degrees_of_freedom": f"{freedom:g}",
        "filtered_history": "no" if filtered is None else f"half, of {filtered.shape[1]} returns",
    }
    return ScenarioSet(tuple(state.instrument_ids), table, int(state.horizon_ns), facts)


def _filtered(state: VolatilityState, returns: npt.ArrayLike | ScenarioSet, sigma_path: npt.ArrayLike | None) -> Floats:
    """Standardised returns, shape (N, T)."""
    names = tuple(state.instrument_ids)
    if isinstance(returns, ScenarioSet):
        rows = [returns.row(name) for name in names]
        missing = [name for name, row in zip(names, rows, strict=True) if row is None]
        if missing:
            raise DataConversionError(f"`returns` must hold every instrument of the state, {missing[0]!r} is missing")
        if returns.horizon_ns != state.horizon_ns:
            raise DataConversionError(
                f"`returns` must have the horizon of the state ({state.horizon_ns} ns), had {returns.horizon_ns}"
            )
        table = returns.returns[[row for row in rows if row is not None]].astype(np.float64)
    else:
        table = np.asarray(returns, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != len(names) or table.shape[1] < 2 or not np.isfinite(table).all():
        raise DataConversionError(
            f"`returns` must be finite with shape ({len(names)}, T), T >= 2, had shape {table.shape}"
        )
    path = ewma_path(table) if sigma_path is None else np.asarray(sigma_path, dtype=np.float64)
    if path.shape != table.shape or not (np.isfinite(path) & (path > 0.0)).all():
        rule = "finite and > 0" if sigma_path is not None else "given for an instrument that never moved"
        raise DataConversionError(f"`sigma_path` must be {rule}, with shape {table.shape}")
    result: Floats = table / path
    return result


def worst_scenarios(scenarios: ScenarioSet, count: int, holdings: Holdings | None = None) -> npt.NDArray[np.int64]:
    """Columns of the scenarios that hurt most, at most ``count`` of them.

    Parameters
    ----------
    scenarios : ScenarioSet
    count : int
        >= 1.
    holdings : Holdings, optional
        The portfolio; its instruments must be in the set. None: the falls and rises of the equally weighted market in
        standard deviations, then of each instrument, and the columns of the largest Mahalanobis norm, in turn.

    Returns
    -------
    ndarray of int64
        Distinct columns, the worst first.
    """
    if isinstance(count, bool) or count < 1:
        raise DataConversionError(f"`count` must be >= 1, was {count}")
    table = scenarios.returns.astype(np.float64)
    if holdings is not None:
        rows = [scenarios.row(name) for name in holdings.instrument_ids]
        missing = [name for name, row in zip(holdings.instrument_ids, rows, strict=True) if row is None]
        if missing:
            raise DataConversionError(f"`scenarios` must hold every position, {missing[0]!r} is missing")
        pnl = holdings.pnl(table[[row for row in rows if row is not None]])
        return np.argsort(pnl, kind="stable")[:count].astype(np.int64)
    scale = np.sqrt(np.mean(table**2, axis=1, keepdims=True))
    unit = table / np.where(scale > 0.0, scale, 1.0)
    market = unit.mean(axis=0)
    gram = np.atleast_2d(unit @ unit.T / unit.shape[1])
    far = np.einsum("is,is->s", unit, np.linalg.pinv(gram, hermitian=True) @ unit)
    keys = [market, -market, -far]
    for row in unit:
        keys += [row, -row]
    orders = [np.argsort(key, kind="stable") for key in keys]
    chosen: dict[int, None] = {}
    for rank in range(table.shape[1]):
        for order in orders:
            chosen.setdefault(int(order[rank]))
            if len(chosen) == min(count, table.shape[1]):
                return np.fromiter(chosen, dtype=np.int64, count=len(chosen))
    return np.fromiter(chosen, dtype=np.int64, count=len(chosen))


def neural_matrix(
    scenarios: ScenarioSet, count: int, instrument_ids: Sequence[str], holdings: Holdings | None = None
) -> StressMatrix:
    """The worst model scenarios as columns of the gate's stress matrix.

    Parameters
    ----------
    scenarios : ScenarioSet
        From :func:`neural_scenarios`.
    count : int
        At most so many columns, >= 1.
    instrument_ids : sequence of str, length M
        Rows of the matrix; an instrument without scenarios does not move, and is not ``covered``.
    holdings : Holdings, optional
        As in :func:`worst_scenarios`.

    Returns
    -------
    StressMatrix
        Columns "model 1", "model 2", ... with the worst first.
    """
    columns = worst_scenarios(scenarios, count, holdings)
    table = np.zeros((len(instrument_ids), columns.size), dtype=np.float32)
    covered = np.zeros(len(instrument_ids), dtype=np.bool_)
    for i, name in enumerate(instrument_ids):
        row = scenarios.row(name)
        if row is not None:
            table[i] = scenarios.returns[row, columns]
            covered[i] = True
    return StressMatrix(tuple(f"model {k + 1}" for k in range(columns.size)), table, {}, covered)
