"""Which trades bring a portfolio to its target and are worth their cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.optimise.constraints import Constraints
from tengri_fast.risk.optimise.inputs import Costs, checked_covariance, checked_equity, unit_exposures, vector
from tengri_fast.risk.optimise.lots import round_to_lots

__all__ = ["Rebalancing", "SkippedTrade", "Trade", "suggest_rebalancing"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trade:
    """One suggested trade.

    Attributes
    ----------
    instrument_id : str
        What to trade.
    quantity : float
        Units, + buys; a multiple of the lot.
    weight_change : float
        As a fraction of equity.
    cost : float
        Estimate in base currency.
    benefit : float
        Gain in utility as money: equity x fraction. NaN when trades are not weighed (no covariance given).
    reason : str
        "target", or the constraint that the trade helps to keep.
    """

    instrument_id: str
    quantity: float
    weight_change: float
    cost: float
    benefit: float
    reason: str


@dataclass(frozen=True)
class SkippedTrade:
    """A trade that is not suggested, and why."""

    instrument_id: str
    quantity: float
    reason: str


@dataclass(frozen=True, eq=False)
class Rebalancing:
    """Suggested trades.

    Attributes
    ----------
    trades : tuple of Trade
        In the holdings' order.
    skipped : tuple of SkippedTrade
        In the same order.
    weights : ndarray, shape (N,)
        After the trades.
    turnover : float
        Sum of absolute changes of weights.
    cost : float
        Of all trades, base currency.
    broken : tuple of str
        Constraints that the weights after the trades break.
    """

    trades: tuple[Trade, ...]
    skipped: tuple[SkippedTrade, ...]
    weights: Floats
    turnover: float
    cost: float
    broken: tuple[str, ...]


def suggest_rebalancing(
    holdings: Holdings, target: npt.ArrayLike, constraints: Constraints | None = None, costs: Costs | None = None, *,
    lots: npt.ArrayLike = 1.0, band: npt.ArrayLike = 0.0, covariance: npt.ArrayLike | None = None,
    expected: npt.ArrayLike | None = None, risk_aversion: float = 1.0,
) -> Rebalancing:  # fmt: skip
    """Trades from the present holdings towards target weights.

    The target is rounded to lots. A position within the no-trade band is left alone; of the others, trades are taken
    one after the other, the one first that adds most utility beyond its cost given those already taken, until none
    does. Utility is expected'w - (risk_aversion / 2) w'S w; without expected returns it is the negative tracking error
    -(risk_aversion / 2) (w - target)'S(w - target), and without a covariance every trade outside the band is taken.
    Last, trades that a broken constraint needs are added whatever they cost.

    Parameters
    ----------
    holdings : Holdings
        With prices and equity.
    target : array_like, shape (N,)
        Weights, signed exposures as fractions of equity.
    constraints : Constraints, optional
        To be kept after the trades; none by default. The budget counts as an upper bound.
    costs : Costs, optional
        None by default.
    lots : array_like, shape (N,) or scalar
        Smallest quantity of each instrument.
    band : array_like, shape (N,) or scalar
        Distance of a weight from its target below which it is left alone, >= 0.
    covariance : array_like, shape (N, N), optional
        Of returns over the time that the trades are judged by.
    expected : array_like, shape (N,), optional
        Expected returns over the same time.
    risk_aversion : float
        > 0.

    Raises
    ------
    ConfigurationError, DataConversionError
        When an input breaks its rule.
    """
    count = len(holdings)
    names = holdings.instrument_ids
    equity = checked_equity(holdings)
    wanted = vector("target", target, count)
    units = unit_exposures(holdings) / equity
    rules = Constraints(lower=-math.inf, upper=math.inf, budget=None) if constraints is None else constraints
    rules.check(names)
    prices = Costs() if costs is None else costs
    prices.arrays(count)
    bands = np.broadcast_to(np.asarray(band, dtype=np.float64), (count,))
    if not (bands >= 0.0).all():
        raise ConfigurationError(f"`band` must be >= 0, was {bands.min()}")
    if not (math.isfinite(risk_aversion) and risk_aversion > 0.0):
        raise ConfigurationError(f"`risk_aversion` must be finite and > 0, was {risk_aversion}")
    matrix = None if covariance is None else checked_covariance(covariance, names)[0]
    returns = None if expected is None else vector("expected", expected, count)
    if returns is not None and matrix is None:
        raise ConfigurationError("`covariance` must be given with `expected`, was None")
    steps = np.broadcast_to(np.asarray(lots, dtype=np.float64), (count,))
    start = holdings.quantities * units
    rounded = round_to_lots(wanted, units, steps, rules, names, covariance=matrix, current=start)
    # A position that is no whole lot is moved by whole lots all the same.
    change = np.round((rounded.quantities - holdings.quantities) / steps) * steps
    moves = change * units
    spend = prices.of_changes(moves)
    gaps = np.abs(start - wanted)
    inside = gaps <= bands
    state = _State(start, wanted, matrix, returns, risk_aversion)
    taken = np.zeros(count, dtype=bool)
    benefits = np.full(count, math.nan)
    reasons = [""] * count
    open_ = [i for i in range(count) if change[i] != 0.0 and not inside[i]]
    if matrix is None:
        taken[open_] = True
    else:
        while open_:
            gains = [state.gain(i, float(moves[i])) for i in open_]
            k = int(np.argmax([gain - spend[i] for gain, i in zip(gains, open_, strict=True)]))
            i = open_[k]
            if gains[k] <= spend[i]:
                for j, gain in zip(open_, gains, strict=True):
                    benefits[j] = gain
                    reasons[j] = f"benefit {equity * gain:.6g} is not above cost {equity * spend[j]:.6g}"
                break
            taken[i], benefits[i] = True, gains[k]
            state.move(i, float(moves[i]))
            open_.remove(i)
    needed = _repair(rules, names, start, moves, change, taken)
    after = start + np.where(taken, moves, 0.0)
    trades, skipped = [], []
    for i in range(count):
        if change[i] == 0.0:
            if gaps[i] > 0.0 and not inside[i] and gaps[i] * equity > 0.0 and wanted[i] != start[i]:
                skipped.append(SkippedTrade(names[i], 0.0, "less than one lot"))
            continue
        if taken[i]:
            reason = needed.get(i, "target")
            benefit = equity * float(benefits[i])
            trades.append(Trade(names[i], float(change[i]), float(moves[i]), equity * float(spend[i]), benefit, reason))
        else:
            skipped.append(SkippedTrade(names[i], float(change[i]), reasons[i] or "within the no-trade band"))
    broken = rules.violations(after, names, start, tolerance=1e-9, budget_below=math.inf)
    return Rebalancing(
        trades=tuple(trades),
        skipped=tuple(skipped),
        weights=after,
        turnover=float(np.abs(after - start).sum()),
        cost=equity * float(spend[taken].sum()),
        broken=tuple(v.name for v in broken),
    )


class _State:
    """Utility along a sequence of trades."""

    def __init__(
        self, weights: Floats, target: Floats, matrix: Floats | None, expected: Floats | None, aversion: float
    ) -> None:
        self.matrix = matrix
        self.aversion = aversion
        self.drift = np.zeros(len(weights)) if expected is None else expected
        # The slope of the risk term is at w, or at the distance from the target.
        self.place = weights.copy() if expected is not None else weights - target

    def gain(self, i: int, move: float) -> float:
        """Gain in utility by moving weight i."""
        assert self.matrix is not None
        slope = self.drift[i] - self.aversion * float(self.matrix[i] @ self.place)
        return float(move * slope - 0.5 * self.aversion * self.matrix[i, i] * move * move)

    def move(self, i: int, move: float) -> None:
        """Take the trade."""
        self.place[i] += move


def _repair(
    rules: Constraints, names: Sequence[str], start: Floats, moves: Floats, change: Floats, taken: npt.NDArray[np.bool_]
) -> dict[int, str]:
    """Take trades that lower what broken constraints are broken by, the most helpful first; what each one was for.

    A trade that was taken and without which less is broken is dropped in the same way.
    """
    needed: dict[int, str] = {}

    def excess() -> tuple[float, str]:
        after = start + np.where(taken, moves, 0.0)
        found = rules.violations(after, names, start, tolerance=1e-9, budget_below=math.inf)
        return sum(abs(v.value - v.bound) for v in found), found[0].name if found else ""

    total, worst = excess()
    while total > 0.0:
        best, least = -1, total
        for i in np.flatnonzero(change != 0.0):
            taken[i] = not taken[i]
            now = excess()[0]
            taken[i] = not taken[i]
            if now < least - 1e-12:
                best, least = int(i), now
        if best < 0:
            break
        taken[best] = not taken[best]
        if taken[best]:
            needed[best] = worst
        else:
            needed.pop(best, None)
        total, worst = excess()
    return needed
