"""Statistics of spread, imbalance and trades that tell whether a data set is what it seems."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.market.columns import TradeColumns
from tengri_fast.market.quality import Float, Time, touch

__all__ = ["imbalance_statistics", "outside_quotes", "quote_before", "spread_statistics", "trade_statistics"]

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def quantiles(values: Float) -> dict[str, float]:
    """Mean and quantiles by name; empty without values."""
    if not len(values):
        return {}
    found = {f"p{round(q * 100):02d}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}
    return {"mean": float(values.mean()), **found}


def spread_statistics(value: Any, tick: float) -> dict[str, Any]:
    """Spread of quotes or of the best level, over rows with bid < ask: in basis points of the mid and in ticks."""
    bid, ask, _, _ = touch(value)
    with np.errstate(invalid="ignore", divide="ignore"):
        good = np.isfinite(bid) & np.isfinite(ask) & (ask > bid)
        spread, mid = (ask - bid)[good], ((ask + bid) / 2)[good]
        positive = mid > 0
        found: dict[str, Any] = {"rows": int(good.sum()), "bps": quantiles(spread[positive] / mid[positive] * 1e4)}
    if tick > 0:
        found["ticks"] = quantiles(spread / tick)
    return found


def imbalance_statistics(value: Any) -> dict[str, Any]:
    """How often the sign of (bid size - ask size) is that of the next move of the mid, in percent.

    Over rows with bid < ask. A move is a change of the mid from one such row to the next. Rows with equal sizes say
    nothing and are left out.

    Returns
    -------
    dict
        moves; accuracy_per_row (all rows before the last move), accuracy_before_move (the last row before each move),
        accuracy_after_move (the first row after the previous move); reversal (moves opposite to the one before, in
        percent), up (moves upward, in percent); zero_imbalance (rows with equal sizes, in percent). None where there
        is nothing to count.
    """
    bid, ask, bid_size, ask_size = touch(value)
    with np.errstate(invalid="ignore"):
        good = np.isfinite(bid) & np.isfinite(ask) & (ask > bid)
    mid = (bid[good] + ask[good]) / 2
    sign = np.sign(bid_size[good] - ask_size[good])
    change = np.diff(mid)
    # A bid and an ask that step toward each other leave the mid where it was, up to the rounding of their sum.
    moves = np.flatnonzero(np.abs(change) > 1e-12 * np.abs(mid[1:]))
    direction = np.sign(change[moves])
    ahead = np.searchsorted(moves, np.arange(len(mid)))
    has = ahead < len(moves)

    def accuracy(given: Float, wanted: Float) -> float | None:
        counted = given != 0
        return float(100 * np.mean(given[counted] == wanted[counted])) if counted.any() else None

    after = moves[:-1] + 1
    return {
        "moves": len(moves),
        "accuracy_per_row": accuracy(sign[has], direction[ahead[has]]),
        "accuracy_before_move": accuracy(sign[moves], direction),
        "accuracy_after_move": accuracy(sign[after], direction[1:]),
        "reversal": float(100 * np.mean(direction[1:] != direction[:-1])) if len(moves) > 1 else None,
        "up": float(100 * np.mean(direction > 0)) if len(moves) else None,
        "zero_imbalance": float(100 * np.mean(sign == 0)) if len(sign) else None,
    }


def trade_statistics(trades: TradeColumns) -> dict[str, Any]:
    """Volume, turnover, average price, sizes and sides."""
    good = np.isfinite(trades.price) & np.isfinite(trades.size)
    price, size, side = trades.price[good], trades.size[good], trades.aggressor[good]
    volume, turnover = float(size.sum()), float((price * size).sum())
    bought = float(size[side > 0].sum())
    sided = float(size[side != 0].sum())
    return {
        "volume": volume,
        "turnover": turnover,
        "average_price": turnover / volume if volume else None,
        "sizes": quantiles(size),
        "largest": float(size.max()) if len(size) else None,
        "buyer_share": 100 * bought / sided if sided else None,
        "unknown_side": float(100 * np.mean(side == 0)) if len(side) else None,
    }


def quote_before(quote_times: Time, times: Time, *, strictly: bool = False) -> npt.NDArray[np.int64]:
    """Row of the last quote at or (strictly) before each time, -1 where there is none.

    A quote that runs backward counts from the latest time before it.
    """
    order = np.maximum.accumulate(quote_times) if len(quote_times) else quote_times
    return np.asarray(np.searchsorted(order, times, side="left" if strictly else "right") - 1, np.int64)


def outside_quotes(trades: TradeColumns, value: Any) -> tuple[npt.NDArray[np.bool_], dict[str, Any]]:
    """Trades above the ask or below the bid of the last quote before them (by `ts_init`), and what was counted.

    A quote of the same time comes after the trade, as in `merge_order`: it shows what the trade left.

    Returns
    -------
    rows : bool [n]
    facts : dict
        compared (trades with a good quote), outside (percent of them), inside (percent strictly between bid and ask),
        against_side (percent of the trades at the touch whose stated side is the other one).
    """
    if not len(value):
        return np.zeros(len(trades), bool), {"compared": 0, "outside": None, "inside": None, "against_side": None}
    bid, ask, _, _ = touch(value)
    at = quote_before(value.ts_init, trades.ts_init, strictly=True)
    with np.errstate(invalid="ignore"):
        good = (at >= 0) & np.isfinite(trades.price)
        there_bid, there_ask = bid[at], ask[at]
        good &= np.isfinite(there_bid) & np.isfinite(there_ask) & (there_ask > there_bid)
        slack = np.abs(there_ask) * 1e-12
        outside = good & ((trades.price > there_ask + slack) | (trades.price < there_bid - slack))
        inside = good & (trades.price < there_ask - slack) & (trades.price > there_bid + slack)
    at_touch = good & ~outside & ~inside & (trades.aggressor != 0)
    natural = np.where(np.abs(trades.price - there_ask) <= slack, 1, -1)
    compared = int(good.sum())

    def share(rows: npt.NDArray[np.bool_], of: int) -> float | None:
        return float(100 * rows.sum() / of) if of else None

    facts = {
        "compared": compared,
        "outside": share(outside, compared),
        "inside": share(inside, compared),
        "against_side": share(at_touch & (natural != trades.aggressor), int(at_touch.sum())),
    }
    return outside, facts
