"""What a portfolio would lose in each scenario of a library.

The result of a scenario is the sum of its parts, in base currency:

``market``
    Revaluation of every position at the moved prices (:meth:`Holdings.unit_pnl`) and, where a settlement currency
    moves, translation. In a scenario with ``correlation`` the move is the worst one under the stressed covariance.
``stops``
    Working stop orders that a gap ran through, from their fill to the final price.
``jump``
    Binaries that settle; they take no part in ``market`` then.
``liquidity``
    Minus what it costs to sell at the stressed prices.

A loss is positive in ``loss`` and negative in ``pnl``. Nothing is netted between scenarios: the table has one row each,
and the worst case is its largest loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.stress.correlation import checked_covariance, stressed_covariance, worst_move
from tengri_fast.risk.stress.library import StressLibrary
from tengri_fast.risk.stress.moves import INVERSE_FLOOR, Betas, Moves, Universe, has_greeks, resolve, scale_of
from tengri_fast.risk.stress.parts import StopOrder, liquidation_cost, stop_results, worst_jump
from tengri_fast.risk.stress.scenario import Event, StressScenario

__all__ = ["StressResult", "StressRow", "stress_test"]

Floats = npt.NDArray[np.float64]

#: A move of the underlying beyond which a result by Greeks is said to be a rough one.
GREEKS_REACH = 0.1


@dataclass(frozen=True)
class StressRow:
    """Result of one scenario.

    Parameters
    ----------
    scenario, kind, source, dates, horizon : str
        As in the scenario.
    verified : bool
        False where the numbers have a secondary source only.
    pnl : float
        Result, base currency; NaN when the scenario could not be valued, see ``notes``.
    parts : mapping of str to float
        ``market``, ``stops``, ``jump``, ``liquidity``: they add up to ``pnl``.
    share_of_equity : float
        Loss as a fraction of equity; NaN when equity is unknown or not positive.
    contributors : tuple of (str, float)
        The positions that lose most, with their result.
    covered : float
        Part of gross exposure that the scenario says something about, within 0 and 1; NaN for an empty portfolio.
    notes : tuple of str
        What a reader should know: uncovered positions, stops, repairs, cuts.
    """

    scenario: str
    kind: str
    source: str
    dates: str
    horizon: str
    verified: bool
    pnl: float
    parts: Mapping[str, float] = field(default_factory=dict)
    share_of_equity: float = math.nan
    contributors: tuple[tuple[str, float], ...] = ()
    covered: float = math.nan
    notes: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """Minus the result: positive when money is lost."""
        return 0.0 - self.pnl


@dataclass(frozen=True)
class StressResult:
    """One row per scenario, in the order of the library."""

    table: tuple[StressRow, ...]
    base_currency: str
    equity: float = math.nan

    @property
    def worst(self) -> StressRow | None:
        """The row with the largest loss, the first of equals; None when none could be valued."""
        valued = [row for row in self.table if not math.isnan(row.pnl)]
        return min(valued, key=lambda row: row.pnl) if valued else None

    @property
    def worst_loss(self) -> float:
        """Largest loss in base currency; NaN when none could be valued."""
        return self.worst.loss if self.worst is not None else math.nan

    @property
    def failed(self) -> tuple[StressRow, ...]:
        """Scenarios that could not be valued, each with a note that says why."""
        return tuple(row for row in self.table if math.isnan(row.pnl))

    def __getitem__(self, scenario: str) -> StressRow:
        for row in self.table:
            if row.scenario == scenario:
                return row
        raise KeyError(scenario)

    def __len__(self) -> int:
        return len(self.table)

    def rows(self) -> list[dict[str, Any]]:
        """The table as plain values (NaN as None), ready for JSON or a page."""
        return [
            {
                "scenario": row.scenario,
                "kind": row.kind,
                "source": row.source,
                "dates": row.dates,
                "horizon": row.horizon,
                "verified": row.verified,
                "pnl": _plain(row.pnl),
                "loss": _plain(row.loss),
                "share_of_equity": _plain(row.share_of_equity),
                "parts": {name: _plain(value) for name, value in row.parts.items()},
                "contributors": [{"instrument": name, "pnl": _plain(value)} for name, value in row.contributors],
                "covered": _plain(row.covered),
                "notes": list(row.notes),
                "currency": self.base_currency,
            }
            for row in self.table
        ]


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def translated(holdings: Holdings, moves: Moves) -> Floats:
    """Result per position of price moves and currency moves together, base currency, shape (N,)."""
    result: Floats = holdings.quantities * holdings.unit_pnl(moves.prices)
    c = moves.currencies
    if c.any():
        result *= 1.0 + c
        # The price of an option held by its Greeks is not known here, so that only its result translates.
        funded = moves.funded & ~has_greeks(holdings)
        result += np.where(funded, scale_of(holdings) * holdings.prices * c, 0.0)
    return result


def stress_test(
    holdings: Holdings,
    library: StressLibrary | Iterable[StressScenario],
    *,
    covariance: npt.ArrayLike | None = None,
    returns: npt.ArrayLike | None = None,
    volatilities: npt.ArrayLike | None = None,
    stops: Sequence[StopOrder] = (),
    events: Mapping[str, Event] | None = None,
    betas: Betas | None = None,
    unfunded: Sequence[str] = (),
    contributors: int = 5,
    impact_coefficient: float = 1.0,
) -> StressResult:
    """Value a portfolio in every scenario.

    Parameters
    ----------
    holdings : Holdings
        The portfolio.
    library : StressLibrary or iterable of StressScenario
        What to run; the betas of a library are used.
    covariance : array_like, shape (N, N), optional
        Of the relative moves over the horizon that scenarios with ``correlation`` mean.
    returns : array_like, shape (N, S), optional
        Returns to take the sample covariance of, where none is given; S >= 2. They are taken as daily ones for market
        impact unless ``volatilities`` say otherwise (:func:`tengri_fast.risk.stress.parts.daily_volatilities`).
    volatilities : array_like, shape (N,), optional
        Daily standard deviations for market impact; NaN where unknown.
    stops : sequence of StopOrder
        Working stop orders; they count in scenarios with ``gap``, where prices jump over them.
    events : mapping of str to Event, optional
        Which binaries exclude each other, for every scenario with ``jump``.
    betas : mapping, optional
        Further betas; those of the scenario go first, then these, then the library's.
    unfunded : sequence of str
        Names, symbols, classes or venues of instruments whose principal is not paid (futures, perpetuals): a fall of
        their settlement currency takes from their result only. By default every linear and binary position is paid.
    contributors : int
        How many of the worst positions to name.
    impact_coefficient : float
        Y of the square-root law.

    Returns
    -------
    StressResult

    Raises
    ------
    DataConversionError, ConfigurationError
        When an argument breaks its rule. A scenario that cannot be valued for this portfolio (no covariance, betas
        below -1) is a row with NaN and a note, so that one bad scenario does not hide the others.
    """
    scenarios = library.scenarios if isinstance(library, StressLibrary) else tuple(library)
    names = [scenario.name for scenario in scenarios]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"`name` of a scenario must be unique, {twice!r} is there twice")
    if contributors < 0:
        raise ConfigurationError(f"`contributors` must be >= 0, was {contributors}")
    given = {**(library.betas if isinstance(library, StressLibrary) else {}), **(betas or {})}
    count = len(holdings)
    sigma_matrix: Floats | None = None
    if covariance is not None:
        sigma_matrix = checked_covariance(covariance, count)
    elif returns is not None:
        table = np.asarray(returns, dtype=np.float64)
        if table.ndim != 2 or table.shape[0] != count or table.shape[1] < 2 or not np.isfinite(table).all():
            raise DataConversionError(
                f"`returns` must be finite with shape ({count}, S), S >= 2, had shape {table.shape}"
            )
        sigma_matrix = np.atleast_2d(np.cov(table))
    if volatilities is None and sigma_matrix is not None:
        volatilities = np.sqrt(np.maximum(np.diag(sigma_matrix), 0.0))
    known = set(holdings.instrument_ids)
    for stop in stops:
        if stop.instrument_id not in known:
            raise DataConversionError(f"`stops` must be of instruments in the portfolio, was {stop.instrument_id!r}")
    run = _Run(
        holdings,
        sigma_matrix,
        volatilities,
        tuple(stops),
        events,
        given,
        tuple(unfunded),
        contributors,
        impact_coefficient,
    )
    return StressResult(tuple(run.row(scenario) for scenario in scenarios), holdings.base_currency, holdings.equity)


@dataclass
class _Run:
    """The arguments of one stress test, and its rows."""

    holdings: Holdings
    covariance: Floats | None
    volatilities: npt.ArrayLike | None
    stops: tuple[StopOrder, ...]
    events: Mapping[str, Event] | None
    betas: Betas
    unfunded: tuple[str, ...]
    contributors: int
    impact_coefficient: float

    def __post_init__(self) -> None:
        self.universe = Universe.of_holdings(self.holdings, self.unfunded)
        # Numbers without bound end as a row that was not valued, which says more than a warning.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self.gross = np.abs(self.holdings.exposures())

    def row(self, scenario: StressScenario) -> StressRow:
        """One scenario; what makes it impossible to value is a note."""
        facts = (scenario.kind, scenario.source, scenario.dates, scenario.horizon, scenario.verified)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                results, covered, notes = self._parts(scenario)
        except DataConversionError as error:
            return StressRow(scenario.name, *facts, math.nan, notes=(f"not valued: {error}",))
        total = np.sum(list(results.values()), axis=0)
        if not np.isfinite(total).all():
            i = int(np.argmin(np.isfinite(total)))
            reason = f"not valued: the result of {self.holdings.instrument_ids[i]} is not finite"
            return StressRow(scenario.name, *facts, math.nan, notes=(reason,))
        pnl = float(total.sum()) + 0.0
        equity = self.holdings.equity
        worst = [int(i) for i in np.argsort(total, kind="stable")[: self.contributors] if total[i] < 0.0]
        gross = float(self.gross.sum())
        return StressRow(
            scenario.name,
            *facts,
            pnl,
            {name: float(values.sum()) for name, values in results.items()},
            (0.0 - pnl) / equity if math.isfinite(equity) and equity > 0.0 else math.nan,
            tuple((self.holdings.instrument_ids[i], float(total[i])) for i in worst),
            float(self.gross[covered].sum()) / gross if gross > 0.0 else math.nan,
            tuple(notes),
        )

    def _parts(self, scenario: StressScenario) -> tuple[dict[str, Floats], npt.NDArray[np.bool_], list[str]]:
        holdings, universe = self.holdings, self.universe
        notes: list[str] = []
        if not scenario.verified:
            notes.append("secondary source, not verified")
        moves = resolve(scenario, universe, self.betas)
        if scenario.correlation is not None:
            moves = self._correlated(scenario, moves, notes)
        notes += [f"{name}: the move of an inverse contract is cut at {INVERSE_FLOOR:.2%}" for name in moves.cut]
        covered = moves.named.copy()
        results: dict[str, Floats] = {}
        after = moves
        if scenario.gap is not None:
            final, stopped, slippage, said = stop_results(holdings, scenario.gap, moves.prices, self.stops)
            after = replace(moves, prices=final)
            results["stops"] = stopped * (1.0 + moves.currencies)
            notes += said
            if slippage.sum() > 0.0:
                notes.append(f"stops slipped by {slippage.sum():.6g} {holdings.base_currency} past their triggers")
        far = has_greeks(holdings) & (np.abs(after.prices) > GREEKS_REACH)
        if far.any():
            notes.append("valued by Greeks, which hold for small moves only: " + _some(holdings, far))
        if scenario.jump is not None:
            binary = holdings.codes == 2
            settled, winners = worst_jump(holdings, scenario.jump, self.events)
            results["jump"] = settled
            covered |= binary
            market = translated(holdings, after)
            results["market"] = np.where(binary, 0.0, market)
            notes += [f"{label}: {winner} pays" for label, winner in winners.items()]
        else:
            results["market"] = translated(holdings, after)
        if scenario.liquidity is not None:
            cost, unknown = liquidation_cost(
                holdings,
                scenario.liquidity,
                moves=after.prices,
                volatilities=self.volatilities,
                impact_coefficient=self.impact_coefficient,
            )
            if scenario.jump is not None:
                cost = np.where(holdings.codes == 2, 0.0, cost)
            results["liquidity"] = -cost * (1.0 + after.currencies)
            if unknown.any():
                notes.append("no spread, depth or volume: " + _some(holdings, unknown))
            covered |= ~unknown
        uncovered = ~covered & (self.gross > 0.0)
        if uncovered.any():
            notes.append("no shock names: " + _some(holdings, uncovered))
        return results, covered, notes

    def _correlated(self, scenario: StressScenario, moves: Moves, notes: list[str]) -> Moves:
        if self.covariance is None:
            raise DataConversionError("`covariance` or `returns` must be given for a scenario with `correlation`")
        assert scenario.correlation is not None  # asked by the caller
        stressed, repaired = stressed_covariance(scenario.correlation, self.covariance, self.universe)
        if repaired:
            notes.append("correlations replaced by the nearest positive semidefinite ones")
        prices = worst_move(self.holdings.exposures(), stressed, scenario.correlation.sigmas)
        low = np.where(self.holdings.codes == 1, INVERSE_FLOOR, -1.0)
        if (prices < low).any():
            notes.append("moves cut at nothing: " + _some(self.holdings, prices < low))
        moved = np.ones(prices.size, dtype=np.bool_)
        return replace(moves, prices=np.maximum(prices, low), named=moved)


def _some(holdings: Holdings, which: npt.NDArray[np.bool_], most: int = 5) -> str:
    names = [holdings.instrument_ids[int(i)] for i in np.flatnonzero(which)]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
