"""The parts of a stressed result that a price move alone does not give: getting out, gaps, and settlement.

*Liquidity.* Selling Q units of a position at once costs, per unit at the stressed price P', with a spread of s P'::

    P' (k s / 2 + impact)
    impact = the larger of   Y sigma sqrt(d Q / V)         V: daily volume, sigma: daily standard deviation
                             k s sqrt(d Q / D)             D: quantity near the best price

with the spread k times and depth and volume 1/d times what they are. The first is the square-root law (Almgren, Thum,
Hauptmann and Li 2005, "Direct estimation of equity market impact"; Toth et al. 2011, Phys. Rev. X 1, 021006, eq. 1, Y
about one); the second says the same with what a book shows: to take all of D costs one more spread. What is not
known adds nothing and is named in the result. No more can be lost by selling than the position is worth.

*Gap.* Prices jump from P to P' without a trade between. A stop order whose trigger lies on the way becomes a market
order and fills at P', not at its trigger; a stop with a limit fills at P' where that is not worse than its limit, else
when the rebound comes back to the limit, else not at all. Then prices move back by a part of the gap, except what is
halted, whose stops did not fill either. A position and its hedge in another market come apart that way.

*Jump.* Binaries settle at 0 or 1. Those of one event exclude each other, events do not know of each other, so that the
worst of all combinations is the sum of the worst outcome of each: exact without looking at the product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.holdings import Holdings
from tengri_fast.risk.stress.moves import Universe, filled, has_greeks, scale_of
from tengri_fast.risk.stress.scenario import Event, Gap, Jump, Liquidity, symbol_of

__all__ = ["StopOrder", "daily_volatilities", "jump_outcomes", "liquidation_cost", "stop_results", "worst_jump"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StopOrder:
    """A working stop order.

    Parameters
    ----------
    instrument_id : str
    quantity : float
        Open quantity with its sign: + buys, - sells; finite, not 0.
    trigger_price : float
        Finite and > 0. A sell stop is triggered by a price at or below it, a buy stop at or above it.
    limit_price : float
        NaN: a market order once triggered.
    """

    instrument_id: str
    quantity: float
    trigger_price: float
    limit_price: float = math.nan

    def __post_init__(self) -> None:
        if not (math.isfinite(self.quantity) and self.quantity != 0.0):
            raise DataConversionError(
                f"`quantity` of a stop must be finite and not 0, was {self.quantity} for {self.instrument_id}"
            )
        for name in ("trigger_price", "limit_price"):
            price = getattr(self, name)
            if not (math.isfinite(price) and price > 0.0) and not (name == "limit_price" and math.isnan(price)):
                raise DataConversionError(
                    f"`{name}` of a stop must be finite and > 0, was {price} for {self.instrument_id}"
                )


def daily_volatilities(returns: npt.ArrayLike, horizon_ns: int) -> Floats:
    """Daily standard deviations, by the square root of time: for the size of market impact, for nothing else.

    Parameters
    ----------
    returns : array_like, shape (N, S)
        Returns over ``horizon_ns``; S >= 2.
    horizon_ns : int
        > 0.
    """
    table = np.asarray(returns, dtype=np.float64)
    result: Floats = table.std(axis=1, ddof=1) * math.sqrt(86_400_000_000_000 / horizon_ns)
    return result


def liquidation_cost(
    holdings: Holdings,
    liquidity: Liquidity,
    *,
    moves: Floats | None = None,
    volatilities: npt.ArrayLike | None = None,
    impact_coefficient: float = 1.0,
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """What it costs to sell every position, or the scenario's part of it, at once.

    Parameters
    ----------
    holdings : Holdings
        Positions with ``spreads``, ``depths`` and ``volumes``; NaN where unknown.
    liquidity : Liquidity
    moves : ndarray, shape (N,), optional
        Relative price moves that come first; none by default.
    volatilities : array_like, shape (N,), optional
        Daily standard deviations as fractions, >= 0; NaN where unknown.
    impact_coefficient : float
        Y of the square-root law, >= 0.

    Returns
    -------
    tuple of (ndarray, shape (N,), ndarray of bool, shape (N,))
        Cost in base currency, >= 0; and for which positions neither spread nor impact is known. A position of zero
        costs nothing and is known.

    Raises
    ------
    DataConversionError
        When a spread or volatility is negative, a depth or volume not positive, or a shape is wrong.
    """
    count = len(holdings)
    sigma = np.full(count, math.nan) if volatilities is None else np.array(volatilities, dtype=np.float64)
    r = np.zeros(count) if moves is None else np.asarray(moves, dtype=np.float64)
    if sigma.shape != (count,) or r.shape != (count,):
        raise DataConversionError(
            f"`volatilities` and `moves` must have shape ({count},), had {sigma.shape} and {r.shape}"
        )
    if not (math.isfinite(impact_coefficient) and impact_coefficient >= 0.0):
        raise DataConversionError(f"`impact_coefficient` must be finite and >= 0, was {impact_coefficient}")
    columns = {
        "spreads": filled(holdings.spreads),
        "depths": filled(holdings.depths),
        "volumes": filled(holdings.volumes),
        "volatilities": sigma,
    }
    for name, values in columns.items():
        market = name in ("depths", "volumes")
        good = np.isfinite(values) & ((values > 0.0) if market else (values >= 0.0))
        if not (good | np.isnan(values)).all():
            i = int(np.argmin(good | np.isnan(values)))
            rule = "> 0" if market else ">= 0"
            raise DataConversionError(
                f"`{name}` must be finite and {rule}, or NaN where unknown, was {values[i]} for "
                f"{holdings.instrument_ids[i]}"
            )
    quantity = np.abs(holdings.quantities) * liquidity.fraction
    spread = columns["spreads"] * liquidity.spread_multiple
    by_volume = impact_coefficient * sigma * np.sqrt(quantity * liquidity.depth_divisor / columns["volumes"])
    by_depth = spread * np.sqrt(quantity * liquidity.depth_divisor / columns["depths"])
    impact = np.fmax(by_volume, by_depth)
    unknown = np.isnan(spread) & np.isnan(impact) & (quantity > 0.0)
    share = np.nan_to_num(0.5 * spread) + np.nan_to_num(impact)
    return _priced(holdings, r, quantity, share), unknown


def _priced(holdings: Holdings, r: Floats, quantity: Floats, share: Floats) -> Floats:
    """Cost of trading away at ``share`` below (a short: above) the moved price, by payoff."""
    sells = holdings.quantities >= 0.0
    # As a price move on top of the first one; a sale cannot happen below nothing.
    second = np.where(sells, -np.minimum(share, 1.0), share)
    inverse = holdings.codes == 1
    second = np.where(inverse, np.maximum(second, -0.9999), second)
    both = (1.0 + r) * (1.0 + second) - 1.0
    # A binary at nothing, or at its payout, is settled: it does not trade.
    both = np.where((holdings.codes == 2) & ((r <= -1.0) | (holdings.prices * (1.0 + r) >= 1.0)), r, both)
    greeks = has_greeks(holdings)
    both = np.where(greeks, r, both)
    worth = holdings.unit_pnl(both) - holdings.unit_pnl(r)
    cost = -np.where(sells, 1.0, -1.0) * worth * quantity
    if greeks.any():
        # An expansion says nothing of the option's own price; the share is taken of what its underlying is worth.
        notional = np.abs(np.nan_to_num(filled(holdings.deltas))) * holdings.prices * (1.0 + r)
        notional *= filled(holdings.multipliers) * filled(holdings.rates)
        cost = np.where(greeks, quantity * notional * np.minimum(share, 1.0), cost)
    result: Floats = np.maximum(cost, 0.0)
    return result


def stop_results(
    holdings: Holdings, gap: Gap, moves: Floats, stops: Sequence[StopOrder]
) -> tuple[Floats, Floats, Floats, list[str]]:
    """What stop orders earn or lose in a gap, and where prices end.

    Parameters
    ----------
    holdings : Holdings
    gap : Gap
    moves : ndarray, shape (N,)
        Relative moves of the gap.
    stops : sequence of StopOrder
        Of instruments in ``holdings``; others are an error.

    Returns
    -------
    final : ndarray, shape (N,)
        Relative moves after the rebound, against the price before the gap.
    results : ndarray, shape (N,)
        Result of the fills from their price to the final one, base currency.
    slippage : ndarray, shape (N,)
        What fills at the gap price cost more than fills at the trigger would have, base currency, >= 0.
    notes : list of str
        One line per stop that was triggered.

    Raises
    ------
    DataConversionError
        When a stop names an instrument that is not held.
    """
    rows = {name: i for i, name in enumerate(holdings.instrument_ids)}
    universe = Universe.of_holdings(holdings)
    halted = np.array([universe.names(i, gap.halted) for i in range(len(rows))], dtype=np.bool_)
    final = np.where(halted, moves, moves * (1.0 - gap.rebound))
    results, slippage = np.zeros(len(rows)), np.zeros(len(rows))
    notes: list[str] = []
    for stop in stops:
        i = rows.get(stop.instrument_id)
        if i is None:
            raise DataConversionError(f"`stops` must be of instruments in the portfolio, was {stop.instrument_id!r}")
        before = float(holdings.prices[i])
        after, end = before * (1.0 + float(moves[i])), before * (1.0 + float(final[i]))
        sells = stop.quantity < 0.0
        if (after > stop.trigger_price) if sells else (after < stop.trigger_price):
            continue
        if halted[i]:
            notes.append(f"{stop.instrument_id}: stop at {stop.trigger_price:g} did not fill, trading is halted")
            continue
        fill = after
        if not math.isnan(stop.limit_price) and ((after < stop.limit_price) if sells else (after > stop.limit_price)):
            if (end < stop.limit_price) if sells else (end > stop.limit_price):
                notes.append(f"{stop.instrument_id}: stop at {stop.trigger_price:g} did not fill, its limit was jumped")
                continue
            fill = stop.limit_price
        filled = fill / before - 1.0
        # A trigger that the market was already past would have filled at the price before.
        trigger = min(stop.trigger_price, before) if sells else max(stop.trigger_price, before)
        unit = _unit(holdings, i, (float(final[i]), filled, trigger / before - 1.0))
        results[i] += stop.quantity * float(unit[0] - unit[1])
        slippage[i] += max(stop.quantity * float(unit[1] - unit[2]), 0.0)
        notes.append(f"{stop.instrument_id}: stop at {stop.trigger_price:g} filled at {fill:g}")
    return final, results, slippage, notes


def _unit(holdings: Holdings, i: int, moves: Sequence[float]) -> Floats:
    """Unit result of one instrument at several moves."""
    table = np.zeros((len(holdings), len(moves)))
    table[i] = moves
    result: Floats = holdings.unit_pnl(table)[i]
    return result


def jump_outcomes(holdings: Holdings) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Result of every position when its price goes to 0 and to 1, and which positions are binaries.

    Returns
    -------
    tuple of (ndarray, shape (N,), ndarray, shape (N,), ndarray of bool, shape (N,))
        Base currency; zero for what is not a binary.
    """
    binary = holdings.codes == 2
    scale = np.where(binary, scale_of(holdings), 0.0)
    return -scale * holdings.prices, scale * (1.0 - holdings.prices), binary


def worst_jump(
    holdings: Holdings, jump: Jump, events: Mapping[str, Event] | None = None
) -> tuple[Floats, dict[str, str]]:
    """The settlement that loses most, exactly.

    Parameters
    ----------
    holdings : Holdings
    jump : Jump
        With ``to = "worst"`` its events count; "zero" and "one" settle every binary the same way.
    events : mapping of str to Event, optional
        Further events, known from elsewhere.

    Returns
    -------
    tuple of (ndarray, shape (N,), dict of str to str)
        Result per position in base currency; and per event which binary pays ("nothing" when none does).

    Raises
    ------
    DataConversionError
        When an event names what is not a binary, or a binary is in two events.
    """
    zero, one, binary = jump_outcomes(holdings)
    if jump.to != "worst":
        return (zero if jump.to == "zero" else one), {}
    result = np.minimum(zero, one)
    names = {name: i for i, name in enumerate(holdings.instrument_ids)}
    symbols: dict[str, list[int]] = {}
    for name, i in names.items():
        symbols.setdefault(symbol_of(name), []).append(i)
    taken: dict[int, str] = {}
    chosen: dict[str, str] = {}
    for label, event in {**(events or {}), **jump.events}.items():
        members = []
        for name in event.instrument_ids:
            found = [names[name]] if name in names else symbols.get(name, [])
            if not found:
                continue
            if len(found) > 1:
                raise DataConversionError(f"`events.{label}` must name {name!r} with its venue: {len(found)} trade it")
            i = found[0]
            if not binary[i]:
                raise DataConversionError(f"`events.{label}` must name binaries, {name!r} is {holdings.payoffs[i]}")
            if i in taken:
                raise DataConversionError(f"`events` must name each binary once, {name!r} is in {taken[i]} and {label}")
            taken[i] = label
            members.append(i)
        if not members:
            continue
        held = np.array(members)
        totals = zero[held].sum() - zero[held] + one[held]
        # Nothing of it pays when the event allows that, or when the one that pays is not in the portfolio.
        nothing = not event.exhaustive or len(members) < len(event.instrument_ids)
        winner = int(np.argmin(totals))
        result[held] = zero[held]
        if nothing and zero[held].sum() <= totals[winner]:
            chosen[label] = "nothing"
        else:
            result[held[winner]] = one[held[winner]]
            chosen[label] = holdings.instrument_ids[int(held[winner])]
    return result, chosen
