"""The numbers of the page: everything the HTML and the picture show, as one JSON-able dictionary.

Both are drawn from what :func:`page_data` returns and from nothing else, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tengri_fast.report._files import plain
from tengri_fast.report.record import RunRecord
from tengri_fast.report.skill import BASELINES, HitRate, block_bootstrap

__all__ = ["DISCLAIMER", "decimate", "drawdown", "headline", "page_data"]

DISCLAIMER = (
    "Simulated results on recorded data. They show what this software would have done under the assumptions "
    "printed below; they are not a record of trading and say nothing certain about the future."
)

POINTS = 4000
"""No line has more points than this; lows and highs survive the thinning."""

DRAWN_TRADES = 1500
_OCTAVE = 8
Floats = NDArray[np.float64]


def decimate(ts: NDArray[np.uint64], value: Floats, limit: int = POINTS) -> tuple[NDArray[np.uint64], Floats]:
    """Thin a line to at most `limit` points, keeping the first, the last and the extremes of every stretch.

    Parameters
    ----------
    ts, value : ndarray [n]
        In time order.
    limit : int
        At least 4.
    """
    n = len(value)
    if n <= limit:
        return ts, value
    edges = np.linspace(0, n, (limit - 2) // 2 + 1).astype(np.intp)
    kept = {0, n - 1}
    for low, high in pairwise(edges.tolist()):
        part = value[low:high]
        kept |= {int(low + part.argmin()), int(low + part.argmax())}
    rows = np.array(sorted(kept), np.intp)
    return ts[rows], value[rows]


def drawdown(value: Floats, starting: float) -> tuple[Floats, Floats]:
    """Distance below the highest equity so far, as an amount and as a fraction of that peak; both <= 0.

    The starting equity counts as the first peak. The fraction is 0 where the peak is not positive.
    """
    peak = np.maximum(np.maximum.accumulate(value), starting)
    amount = value - peak
    share = np.zeros(len(value))
    with np.errstate(over="ignore"):  # a peak next to zero: the share is then infinite, and is shown as none
        np.divide(amount, peak, out=share, where=peak > 0.0)
    return amount, share


def _longest_under_water(ts: NDArray[np.uint64], amount: Floats) -> float:
    """Seconds of the longest stretch below an earlier peak, up to the end of the run if it did not recover."""
    at_peak = amount >= 0.0
    last_peak = np.maximum.accumulate(np.where(at_peak, np.arange(len(ts)), 0))
    # The row that ends a stretch is its recovery, so that row is measured from the peak before it.
    before = np.concatenate(([0], last_peak[:-1]))
    rows = np.where(at_peak, before, last_peak)
    under = ~at_peak
    under[1:] |= ~at_peak[:-1]
    return float(((ts - ts[rows])[under]).max() / 1e9) if under.any() else 0.0


def _milliseconds(ts: NDArray[np.uint64]) -> list[float]:
    """Milliseconds since 1970 UTC, exact to a microsecond, as a browser counts."""
    return [(int(t) // 1000) / 1000 for t in ts.tolist()]


def _line(ts: NDArray[np.uint64], value: Floats) -> dict[str, list[float]]:
    ts, value = decimate(ts, value)
    return {"ms": _milliseconds(ts), "value": value.tolist()}


def headline(record: RunRecord) -> dict[str, Any]:
    """The numbers at the top of the page: result, costs, drawdown, trades."""
    value, trades = record.equity["value"], record.trades
    amount, share = drawdown(value, record.starting_equity)
    net = trades["net"]
    losses = -float(net[net < 0.0].sum())
    gains = float(net[net > 0.0].sum())
    low = high = math.nan
    if len(net) > 1:
        low, high = np.quantile(block_bootstrap(net), [0.025, 0.975]).tolist()
    return {
        "pnl": record.pnl,
        "fees": record.fees,
        "gross": record.pnl + record.fees,
        "starting_equity": record.starting_equity,
        "ending_equity": float(value[-1]),
        "return": record.pnl / record.starting_equity if record.starting_equity > 0.0 else None,
        "max_drawdown": float(amount.min()),
        "max_drawdown_share": float(share.min()),
        "under_water_seconds": _longest_under_water(record.equity["ts"], amount),
        "trades": len(net),
        "wins": int((net > 0.0).sum()),
        "win_rate": float((net > 0.0).mean()) if len(net) else None,
        "profit_factor": gains / losses if losses > 0.0 else None,
        "trades_gross": float(trades["gross"].sum()),
        "trades_fees": float(trades["fees"].sum()),
        "trades_net": float(net.sum()),
        "not_in_trades": record.pnl - float(net.sum()),
        "mean_net": float(net.mean()) if len(net) else None,
        "mean_net_low": low,
        "mean_net_high": high,
        "mean_net_shown": bool(low > 0.0 or high < 0.0),
        "median_holding_seconds": (
            float(np.median((trades["exit_ts"] - trades["entry_ts"]).astype(np.float64))) / 1e9 if len(net) else None
        ),
        "span_seconds": (record.span[1] - record.span[0]) / 1e9 if record.span else None,
    }


def _trade_rows(record: RunRecord) -> list[dict[str, Any]]:
    columns = {name: values.tolist() for name, values in record.trades.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _markers(record: RunRecord) -> dict[str, Any]:
    """Entries and exits to draw on the price."""
    t = record.trades
    rows = np.arange(len(t["net"]))
    if len(rows) > DRAWN_TRADES:
        rows = np.unique(np.linspace(0, len(rows) - 1, DRAWN_TRADES).astype(np.intp))
    return {
        "drawn": len(rows),
        "of": len(t["net"]),
        "entry_ms": _milliseconds(t["entry_ts"][rows]),
        "entry_price": t["entry_price"][rows].tolist(),
        "exit_ms": _milliseconds(t["exit_ts"][rows]),
        "exit_price": t["exit_price"][rows].tolist(),
        "side": t["side"][rows].tolist(),
        "net": t["net"][rows].tolist(),
    }


def _net_histogram(net: Floats) -> dict[str, list[float]]:
    """Trades per stretch of net PnL; zero is always an edge, so no bar mixes gains and losses (a zero goes right)."""
    if not len(net):
        return {"edges": [], "counts": []}
    low, high = min(0.0, float(net.min())), max(0.0, float(net.max()))
    bars = int(np.clip(2.0 * math.sqrt(len(net)), 8, 60))
    width = (high - low) / bars or 1.0
    first, last = min(0, math.floor(net.min() / width)), max(0, math.floor(net.max() / width) + 1)
    which = np.floor(net / width).astype(np.int64) - first
    edges = np.arange(first, last + 1) * width
    return {"edges": edges.tolist(), "counts": np.bincount(which, minlength=last - first).tolist()}


def _exit_reasons(record: RunRecord) -> list[dict[str, Any]]:
    reasons, net = record.trades["reason"], record.trades["net"]
    out = []
    for reason in sorted(set(reasons.tolist())):
        of_it = net[reasons == reason]
        out.append({"reason": reason or "not recorded", "trades": len(of_it), "net": float(of_it.sum())})
    return out


def _latency(record: RunRecord) -> dict[str, Any] | None:
    """The histogram in eight buckets per doubling: fine enough to see, coarse enough to draw."""
    latency = record.latency
    if latency is None or not latency.total:
        return None
    used = np.flatnonzero(latency.counts)
    middle = np.sqrt(np.maximum(latency.edges[:-1][used], 0.5) * latency.edges[1:][used])
    step = np.floor(np.log2(middle) * _OCTAVE).astype(np.int64)
    first = int(step.min())
    counts = np.zeros(int(step.max()) - first + 1, np.int64)
    np.add.at(counts, step - first, latency.counts[used].astype(np.int64))
    edges = 2.0 ** ((first + np.arange(len(counts) + 1)) / _OCTAVE)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "total": latency.total, **latency.percentiles()}


def _rate(name: str, label: str, found: HitRate) -> dict[str, Any]:
    block = math.isfinite(found.block_low)
    return {
        "name": name,
        "label": label,
        "rate": found.rate,
        "low": found.block_low if block else found.low,
        "high": found.block_high if block else found.high,
        "interval": "block bootstrap" if block else "Wilson",
        "moves": found.moves,
        "ties": found.ties,
    }


_LABELS = {"imbalance": "Imbalance sign", "reverse": "Reverse last move", "repeat": "Repeat last move"}


def _skill(record: RunRecord) -> dict[str, Any] | None:
    skill = record.skill
    if skill is None:
        return None
    order = [name for name in BASELINES if name in skill.baselines]
    order += sorted(set(skill.baselines) - set(order))
    data = skill.to_dict()
    rates = [_rate("model", "Model", skill.model)]
    rates += [_rate(name, _LABELS.get(name, name), skill.baselines[name]) for name in order]
    differences = []
    for name in order:
        if name in skill.differences:
            gap = skill.differences[name]
            differences.append({"label": _LABELS.get(name, name), "shown": gap.shown, **data["differences"][name]})
    return {
        "moves": skill.moves,
        "up_share": skill.up_share,
        "rates": rates,
        "differences": differences,
        "calibration": data["calibration"],
        "coverage": data["coverage"],
        "confusion": skill.confusion,
        "notes": skill.notes,
    }


def _signals(record: RunRecord) -> dict[str, Any]:
    table = record.signals
    n = len(table["ts"])
    if not n:
        return {"count": 0}
    lean = np.sign(table["p_up"] - table["p_down"])
    return {
        "count": n,
        "up_share": float((lean > 0).mean()),
        "down_share": float((lean < 0).mean()),
        "mean_confidence": float(table["confidence"].mean()),
        "value_low": float(np.quantile(table["value_bps"], 0.01)),
        "value_high": float(np.quantile(table["value_bps"], 0.99)),
        "turns_share": float((lean[1:] != lean[:-1]).mean()) if n > 1 else 0.0,
    }


def _denied_rows(record: RunRecord) -> list[dict[str, Any]]:
    by_source = record.denied_by_source()
    return [
        {
            "rule": rule,
            "total": total,
            "strategy": by_source["strategy"].get(rule, 0),
            "drill": by_source["drill"].get(rule, 0),
        }
        for rule, total in sorted(record.denied.items(), key=lambda item: (-item[1], item[0]))
    ]


def _values(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if text.strip()]


def page_data(record: RunRecord) -> dict[str, Any]:
    """Every number and text of the page.

    Parameters
    ----------
    record : RunRecord
        A run.

    Returns
    -------
    dict
        JSON-able; a number that does not exist is None. Lines hold UTC milliseconds (``ms``) and values.
    """
    amount, share = drawdown(record.equity["value"], record.starting_equity)
    assert record.span is not None  # set at construction
    data = {
        "name": record.name,
        "title": record.title,
        "instrument_id": record.instrument_id,
        "currency": record.currency,
        "span": list(record.span),
        "disclaimer": DISCLAIMER,
        "notes": _values(record.notes),
        "headline": headline(record),
        "equity": _line(record.equity["ts"], record.equity["value"]),
        "drawdown": _line(record.equity["ts"], amount),
        "drawdown_share": _line(record.equity["ts"], share),
        "price": _line(record.mid["ts"], record.mid["price"]),
        "markers": _markers(record),
        "trades": _trade_rows(record),
        "net_histogram": _net_histogram(record.trades["net"]),
        "exit_reasons": _exit_reasons(record),
        "fills": len(record.fills["ts"]),
        "signals": _signals(record),
        "skill": _skill(record),
        "latency": _latency(record),
        "orders": {"submitted": record.submitted, "filled": record.filled, "denied": sum(record.denied.values())},
        "denied": _denied_rows(record),
        "denials": [dict(vars(denial)) for denial in record.denials],
        "assumptions": record.assumptions,
        "model_card": record.model_card,
        "data_facts": record.data_facts,
        "machine": record.machine,
        "versions": record.versions,
        "seeds": record.seeds,
        "isa": record.isa,
        "commit": record.commit,
        "trials": record.trials,
        "run_seconds": record.run_seconds,
        "data_sha256": record.data_sha256,
        "config_sha256": record.config_sha256,
        "config_text": record.config_text,
        "model_sha256": record.model_sha256,
    }
    result: dict[str, Any] = plain(data)
    return result
