"""What the estimators share: checked data, a fitted method as a model of the portfolio, and its bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.functionals import CornishFisherRisk, RiskFunctional, ScenarioRisk
from tengri_fast.risk.greeks import quadratic_terms
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.intervals import (
    RiskInterval,
    block_indices,
    check_confidence,
    order_statistic_ranks,
    percentile_interval,
)

__all__ = [
    "Resampling",
    "RiskData",
    "RiskEstimate",
    "RiskModel",
    "around",
    "bootstrap",
    "moment_interval",
    "scenario_interval",
]

Floats = npt.NDArray[np.float64]
_RULES = ("overlapping", "sqrt")


@dataclass(frozen=True)
class RiskEstimate:
    """VaR and ES of a portfolio, positive for a loss.

    Attributes
    ----------
    var, es : float
        Base currency. ES is infinite where the method's tail has no mean.
    interval : RiskInterval or None
        Confidence interval; None when none was asked for.
    method : str
        Key of :data:`tengri_fast.risk.estimators.METHODS`.
    level : float
        Confidence of VaR and ES.
    horizon : int
        In steps of the data.
    details : mapping
        What the number rests on: count of scenarios, horizon rule, fitted parameters, notes.
    """

    var: float
    es: float
    interval: RiskInterval | None
    method: str
    level: float
    horizon: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resampling:
    """How an interval is to be made: its confidence, and seed, count and block length of a bootstrap."""

    confidence: float
    seed: int
    resamples: int
    block: int | None


@dataclass(frozen=True, eq=False)
class RiskModel:
    """A method fitted to data: risk as a function of the quantities.

    Attributes
    ----------
    method : str
        Key of :data:`tengri_fast.risk.estimators.METHODS`.
    level : float
        Confidence.
    horizon : int
        In steps.
    instrument_ids : tuple of str
        N names; ("portfolio",) when only results were given.
    quantities : ndarray, shape (N,)
        Of the portfolio.
    functional : RiskFunctional
        Its ``risk(q)`` and ``gradient(q)``.
    details : mapping
        As in :class:`RiskEstimate`.
    """

    method: str
    level: float
    horizon: int
    instrument_ids: tuple[str, ...]
    quantities: Floats
    functional: RiskFunctional
    details: Mapping[str, Any]
    _interval: Callable[[RiskModel, Resampling], RiskInterval] = field(repr=False)

    def risk(self) -> tuple[float, float]:
        """VaR and ES of the portfolio."""
        return self.functional.risk(self.quantities)

    def estimate(
        self, confidence: float | None = 0.95, *, seed: int = 0, resamples: int = 500, block: int | None = None
    ) -> RiskEstimate:
        """VaR and ES with their interval.

        Parameters
        ----------
        confidence : float or None
            Of the interval; None leaves it out, which is much faster where it needs a bootstrap.
        seed, resamples : int
            Of the bootstrap.
        block : int, optional
            Length of its blocks; default the larger of the horizon's windows and the cube root of the count.
        """
        var, es = self.risk()
        interval = None
        if confidence is not None:
            interval = self._interval(self, Resampling(check_confidence(confidence), seed, resamples, block))
        return RiskEstimate(var, es, interval, self.method, self.level, self.horizon, self.details)


# -- data -------------------------------------------------------------------------------------------------------------


class RiskData:
    """Checked input of a method: returns of instruments, or results alone."""

    def __init__(self, subject: Holdings | npt.ArrayLike, returns: npt.ArrayLike | None, level: float, horizon: int,
                 rule: str) -> None:  # fmt: skip
        if not 0.0 < level < 1.0:
            raise ConfigurationError(f"`level` must be between 0 and 1, was {level}")
        if isinstance(horizon, bool) or int(horizon) != horizon or horizon < 1:
            raise ConfigurationError(f"`horizon` must be an integer >= 1 (steps), was {horizon!r}")
        if rule not in _RULES:
            raise ConfigurationError(f"`rule` must be one of {', '.join(_RULES)}, was {rule!r}")
        self.level = level
        self.horizon = int(horizon)
        self.window = self.horizon if rule == "overlapping" else 1
        self.steps = float(self.horizon) if rule == "sqrt" else 1.0
        self.holdings = subject if isinstance(subject, Holdings) else None
        if isinstance(subject, Holdings):
            if returns is None:
                raise DataConversionError("`returns` must be given with holdings, was None")
            table = np.asarray(returns, dtype=np.float64)
            if table.ndim != 2 or table.shape[0] != len(subject):
                raise DataConversionError(f"`returns` must have shape ({len(subject)}, S), had {table.shape}")
            self.names, self.quantities = subject.instrument_ids, np.array(subject.quantities)
        else:
            if returns is not None:
                raise DataConversionError("`returns` must be None when results are given instead of holdings")
            table = np.asarray(subject, dtype=np.float64)
            if table.ndim != 1:
                raise DataConversionError(f"`pnl` must be one-dimensional, had shape {table.shape}")
            table = table[None, :]
            self.names, self.quantities = ("portfolio",), np.ones(1)
        what = "pnl" if self.holdings is None else "returns"
        if len(self.names) == 0:
            raise DataConversionError("`holdings` must hold at least one instrument, were empty")
        if not np.isfinite(table).all():
            i, s = (int(x) for x in np.argwhere(~np.isfinite(table))[0])
            raise DataConversionError(f"`{what}` must be finite, was {table[i, s]} for {self.names[i]} at {s}")
        if self.holdings is not None and (table < -1.0).any():
            i, s = (int(x) for x in np.argwhere(table < -1.0)[0])
            raise DataConversionError(f"`{what}` must be >= -1, was {table[i, s]} for {self.names[i]} at {s}")
        if table.shape[1] < self.window:
            plural = "" if self.window == 1 else "s"
            raise DataConversionError(
                f"`{what}` must hold at least {self.window} observation{plural} for a horizon of {self.horizon} "
                f"step{'' if self.horizon == 1 else 's'}, had {table.shape[1]}"
            )
        self.table = table

    def windows(self, table: Floats | None = None) -> Floats:
        """Returns (compounded) or results (summed) over overlapping windows, shape (N, S - window + 1)."""
        source = self.table if table is None else table
        if self.window == 1:
            return source
        views = np.lib.stride_tricks.sliding_window_view
        if self.holdings is None:
            return np.asarray(views(source, self.window, axis=1).sum(axis=-1))
        return np.asarray(views(1.0 + source, self.window, axis=1).prod(axis=-1) - 1.0)

    def unit(self, windows: Floats) -> Floats:
        """Result of one unit of each instrument, full revaluation."""
        return windows if self.holdings is None else self.holdings.unit_pnl(windows)

    def exposures(self) -> Floats:
        """Result of one unit of each instrument per unit of return, to first order."""
        return np.ones(1) if self.holdings is None else quadratic_terms(self.holdings)[0]

    def facts(self, count: int) -> dict[str, Any]:
        """Details that every method states."""
        facts: dict[str, Any] = {"observations": int(self.table.shape[1]), "scenarios": int(count)}
        if self.horizon == 1:
            facts["horizon_rule"] = "one step of the data"
        elif self.window > 1:
            facts["horizon_rule"] = (
                f"overlapping windows of {self.window} steps; they carry about "
                f"{max(self.table.shape[1] // self.window, 1)} independent ones"
            )
        else:
            facts["horizon_rule"] = f"square root of time: one-step risk scaled to {self.horizon} steps, as chosen"
        return facts

    def model(
        self,
        method: str,
        functional: RiskFunctional,
        details: dict[str, Any],
        interval: Callable[[RiskModel, Resampling], RiskInterval],
    ) -> RiskModel:
        """The fitted method with what it was fitted to."""
        return RiskModel(method, self.level, self.horizon, self.names, self.quantities, functional, details, interval)


# -- intervals --------------------------------------------------------------------------------------------------------


def bootstrap(
    count: int, window: int, how: Resampling, compute: Callable[[npt.NDArray[np.int64]], tuple[float, float]]
) -> tuple[tuple[float, float], tuple[float, float], int]:
    """Percentile intervals of VaR and ES over block resamples of ``count`` observations, and the block's length."""
    block = how.block if how.block is not None else min(max(window, round(count ** (1.0 / 3.0))), count)
    values = np.array([compute(index) for index in block_indices(count, block, how.resamples, how.seed)])
    return (
        percentile_interval(values[:, 0], how.confidence),
        percentile_interval(values[:, 1], how.confidence),
        block,
    )


def scenario_interval(
    weights: Floats | None, window: int, note: str
) -> Callable[[RiskModel, Resampling], RiskInterval]:
    """Interval of a :class:`ScenarioRisk`: exact order statistics where they hold, else the bootstrap."""

    def interval(model: RiskModel, how: Resampling) -> RiskInterval:
        functional = model.functional
        assert isinstance(functional, ScenarioRisk)
        pnl = functional.pnl(model.quantities)
        one = np.ones(1)

        def compute(index: npt.NDArray[np.int64]) -> tuple[float, float]:
            return ScenarioRisk(pnl[None, index], model.level, weights, functional.scale).risk(one)

        var, es, block = bootstrap(pnl.size, window, how, compute)
        text = f"block bootstrap, blocks of {block}, {how.resamples} resamples, seed {how.seed}"
        if weights is None and window == 1:
            low, high = order_statistic_ranks(pnl.size, model.level, how.confidence)
            losses = np.concatenate(([-math.inf], np.sort(-pnl), [math.inf])) * functional.scale
            var = (float(losses[low]), float(losses[high]))
            text = f"VaR: exact order statistics {low} and {high} of {pnl.size}; ES: {text}"
        return RiskInterval(var, es, how.confidence, text + note)

    return interval


def moment_interval(window: int) -> Callable[[RiskModel, Resampling], RiskInterval]:
    """Bootstrap interval of a :class:`CornishFisherRisk`."""

    def interval(model: RiskModel, how: Resampling) -> RiskInterval:
        functional = model.functional
        assert isinstance(functional, CornishFisherRisk)
        pnl = model.quantities @ functional.unit
        one = np.ones(1)

        def compute(index: npt.NDArray[np.int64]) -> tuple[float, float]:
            resampled = CornishFisherRisk(
                pnl[None, index], model.level, functional.steps, functional.zero_mean, functional.expansion.matched
            ).risk(one)
            # Resampled moments outside the expansion's reach bound nothing.
            return resampled if math.isfinite(resampled[0]) else (math.inf, math.inf)

        var, es, block = bootstrap(pnl.size, window, how, compute)
        return RiskInterval(
            var, es, how.confidence, f"block bootstrap, blocks of {block}, {how.resamples} resamples, seed {how.seed}"
        )

    return interval


def around(values: tuple[float, float], errors: tuple[float, float], width: float) -> list[tuple[float, float]]:
    """Symmetric intervals, ``width`` standard errors to both sides."""
    return [(value - width * error, value + width * error) for value, error in zip(values, errors, strict=True)]
