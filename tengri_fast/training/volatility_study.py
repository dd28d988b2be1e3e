"""The proof on unseen years: losses, tests and coverage of every method on every series of a split, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.risk.backtest import (
    christoffersen_independence,
    conditional_coverage,
    diebold_mariano,
    kupiec_pof,
    quantile_loss,
)
from tengri_fast.risk.forecast_losses import model_confidence_set, mse_losses, qlike, qlike_losses
from tengri_fast.risk.measures import tail_rank
from tengri_fast.training.volatility import Split, forecasts, network_forecasts, test_rows
from tengri_fast.training.volatility_data import Series

__all__ = ["CRISES", "LEVEL", "METHODS", "VAR_WINDOW", "filtered_var", "study"]

Floats = npt.NDArray[np.float64]

METHODS = ("EWMA", "HAR", "GARCH", "GJR", "GRU, closes", "GRU")
#: Stretches that are reported on their own, by split, ends excluded.
CRISES = {"2005-2010": ("2008", "2008-07-01", "2009-07-01"), "2014-2022": ("2020", "2020-02-15", "2020-07-01")}
LEVEL = 0.99
#: Days of standardised returns behind each value at risk.
VAR_WINDOW = 750
_PLAIN = "plain history"


def filtered_var(returns: Floats, sigmas: Floats, first: int, level: float = LEVEL) -> Floats:
    """Value at risk by filtered historical simulation, day by day (Hull and White 1998; Barone-Adesi and others 1999).

    Parameters
    ----------
    returns, sigmas : ndarray, shape (T,)
        Sigma t was forecast before return t; finite from ``first`` - :data:`VAR_WINDOW` on.
    first : int
        Index of the first day that is foretold.
    level : float

    Returns
    -------
    ndarray, shape (T - first,)
        Positive for a loss, as a fraction; the definition of :mod:`tengri_fast.risk.measures`.
    """
    z = returns / sigmas
    windows = np.lib.stride_tricks.sliding_window_view(z[first - VAR_WINDOW : -1], VAR_WINDOW)
    rank, _ = tail_rank(VAR_WINDOW, level)
    result: Floats = -np.partition(windows, rank - 1, axis=1)[:, rank - 1] * sigmas[first:]
    return result


def _compare(losses: Mapping[str, Floats], ours: str = "GRU") -> dict[str, Any]:
    """Means, the difference of the network to each rival, and the p-values of no difference."""
    answer: dict[str, Any] = {"days": len(losses[ours]), "qlike": {k: float(v.mean()) for k, v in losses.items()}}
    answer["difference"] = {k: float((losses[ours] - v).mean()) for k, v in losses.items() if k != ours}
    answer["p"] = {k: diebold_mariano(losses[ours], v).p_value for k, v in losses.items() if k != ours}
    return answer


def _masked(losses: Mapping[str, Floats], chosen: npt.NDArray[np.bool_]) -> dict[str, Floats]:
    return {name: values[chosen] for name, values in losses.items()}


def _coverage(returns: Floats, var: Floats) -> dict[str, Any]:
    hits = returns < -var
    return {
        "days": len(hits),
        "exceptions": int(hits.sum()),
        "rate": float(hits.mean()),
        "unconditional": kupiec_pof(hits, LEVEL).exact_p_value,
        "independence": christoffersen_independence(hits).exact_p_value,
        "conditional": conditional_coverage(hits, LEVEL).exact_p_value,
        "quantile_loss": float(quantile_loss(returns, var, LEVEL).mean()),
    }


def _per_day(tables: Sequence[tuple[npt.NDArray[np.datetime64], Mapping[str, Floats]]]) -> tuple[
    npt.NDArray[np.datetime64], dict[str, Floats]
]:  # fmt: skip
    """Mean over the series of each day: one observation a day, since series of one day are not independent."""
    days = np.unique(np.concatenate([dates for dates, _ in tables]))
    answer = {}
    for name in tables[0][1]:
        total, count = np.zeros(len(days)), np.zeros(len(days))
        for dates, losses in tables:
            at = np.searchsorted(days, dates)
            total[at] += losses[name]
            count[at] += 1.0
        answer[name] = total / count
    return days, answer


def study(series: Sequence[Series], split: Split, network: Any, parts: Sequence[Any] = ()) -> dict[str, Any]:
    """Everything that is reported about one split.

    Parameters
    ----------
    series : sequence of Series
    split : Split
    network : Model
        Of this split; ``parts`` are the networks that it is the mean of, one a seed.

    Returns
    -------
    dict
        ``series`` and ``stocks`` (mean over stocks per day): days, mean QLIKE by method, difference of the network to
        each rival, p-values, confidence set; ``crisis``: the same over the crisis; ``intraday``: against variances
        from hourly returns; ``var``: coverage; ``seeds``: QLIKE of each part on the stocks and the S&P 500;
        ``paths``: what the picture draws. Plain numbers, ready for JSON.
    """
    crisis_name, *crisis = CRISES.get(split.name, ("", split.test[0], split.test[1]))
    begin, end = (np.datetime64(text) for text in crisis)
    answer: dict[str, Any] = {"series": {}, "crisis": {"name": crisis_name, "series": {}}, "intraday": {}, "var": {},
                              "left_out": [], "paths": {}}  # fmt: skip
    stocks, pinball, seeds = [], [], []
    for one in series:
        span = test_rows(one, split)
        if span is None:
            answer["left_out"].append(one.name)
            continue
        first, last = span
        r, dates = one.returns[:last], one.dates[first:last]
        said = forecasts(one, split, network)
        variances = {name: said[name] for name in METHODS if name in said}
        squares = r[first:] ** 2
        losses = {name: qlike_losses(squares, h) for name, h in variances.items()}
        entry = _compare(losses)
        entry["group"] = one.group
        entry["mse"] = {name: float(mse_losses(1e4 * squares, 1e4 * h).mean()) for name, h in variances.items()}
        chosen = model_confidence_set(losses)
        entry["confidence_set"] = list(chosen.included)
        answer["series"][one.name] = entry
        inside = (dates >= begin) & (dates < end)
        if inside.sum() >= 60:
            answer["crisis"]["series"][one.name] = _compare(_masked(losses, inside))
        measured = one.intraday[first:last]
        known = np.isfinite(measured)
        if known.any():
            # The level of the proxy is brought to that of squared returns, so that no method gains by its bias.
            level = float(squares[known].mean() / measured[known].mean())
            finer = {name: qlike_losses(level * measured[known], h[known]) for name, h in variances.items()}
            answer["intraday"][one.name] = {
                **_compare(finer), "confidence_set": list(model_confidence_set(finer).included)
            }  # fmt: skip
        coverage: dict[str, Any] = {}
        scores: dict[str, Floats] = {}
        for name in (_PLAIN, *variances):
            whole = np.ones(last) if name == _PLAIN else np.sqrt(np.concatenate([said[f"{name} (past)"], said[name]]))
            var = filtered_var(r, whole, first)
            coverage[name] = _coverage(r[first:], var)
            scores[name] = quantile_loss(r[first:], var, LEVEL)
            coverage[name]["crisis_exceptions"] = int((r[first:] < -var)[inside].sum())
        coverage["crisis_days"] = int(inside.sum())
        answer["var"][one.name] = coverage
        if one.group == "stocks":
            stocks.append((dates, losses))
            pinball.append((dates, scores))
        if parts and (one.group == "stocks" or one.name == "S&P 500"):
            bars = one.realised[:last] if "GRU, closes" in variances else None
            by_seed = [qlike(squares, network_forecasts(part, r, bars)[first:]) for part in parts]
            seeds.append((one.group, by_seed))
        if one.name == "S&P 500":
            answer["paths"]["S&P 500"] = {
                "dates": [str(day) for day in dates],
                "returns": r[first:].tolist(),
                **{name: np.sqrt(variances[name]).tolist() for name in ("EWMA", "GJR", "GRU")},
            }
    if stocks:
        days, pooled = _per_day(stocks)
        answer["stocks"] = {**_compare(pooled), "count": len(stocks),
                            "confidence_set": list(model_confidence_set(pooled).included)}  # fmt: skip
        inside = (days >= begin) & (days < end)
        if inside.sum() >= 60:
            answer["crisis"]["stocks"] = _compare(_masked(pooled, inside))
        answer["paths"]["stocks"] = {
            "dates": [str(day) for day in days],
            **{name: np.cumsum(pooled["EWMA"] - pooled[name]).tolist() for name in pooled if name != "EWMA"},
        }
        _, score = _per_day(pinball)
        answer["var_stocks"] = _pooled_coverage(answer["var"], [s.name for s in series if s.group == "stocks"], score)
    answer["seeds"] = {
        group: np.mean([values for kind, values in seeds if kind == group], axis=0).tolist()
        for group in dict.fromkeys(kind for kind, _ in seeds)
    }
    return answer


def _pooled_coverage(var: Mapping[str, Any], names: Sequence[str], score: Mapping[str, Floats]) -> dict[str, Any]:
    """Coverage over all stocks: rate, how many of them a test rejects at 5 %, and the quantile loss against EWMA's."""
    kept = [name for name in names if name in var]
    answer = {}
    for method in score:
        rows = [var[name][method] for name in kept]
        days = sum(row["days"] for row in rows)
        answer[method] = {
            "stocks": len(kept),
            "rate": sum(row["exceptions"] for row in rows) / days,
            "rejected_unconditional": sum(row["unconditional"] < 0.05 for row in rows),
            "rejected_independence": sum(row["independence"] < 0.05 for row in rows),
            "rejected_conditional": sum(row["conditional"] < 0.05 for row in rows),
            "quantile_loss": float(score[method].mean() / score["EWMA"].mean()),
            "p": diebold_mariano(score[method], score["EWMA"]).p_value,
        }
    return answer
