"""All tests of one model's forecasts, and what they say in plain English."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.risk.backtest._special import Floats, binomial_pmf
from tengri_fast.risk.backtest.coverage import binomial_test, kupiec_pof, kupiec_tuff, rolling_zones, traffic_light
from tengri_fast.risk.backtest.durations import haas_durations, weibull_durations
from tengri_fast.risk.backtest.dynamic import dynamic_quantile
from tengri_fast.risk.backtest.independence import christoffersen_independence, conditional_coverage
from tengri_fast.risk.backtest.result import Flags, TestResult, exceptions, percent, series, tail_probability
from tengri_fast.risk.backtest.scores import check_shortfall, fissler_ziegel, quantile_loss
from tengri_fast.risk.backtest.shortfall import Tail, acerbi_szekely, check_tail

__all__ = ["Forecasts", "Judgement", "judge", "period"]

ZONES = ("green", "yellow", "red")
YEAR = 250
"""Days that the rolling traffic light looks back."""


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Results of T days and what a model had said about each of them the day before.

    Parameters
    ----------
    method : str
        Name of the model.
    level : float
        Confidence of VaR and ES, between 0.5 and 1.
    pnl : array_like, shape (T,)
        Results, negative for a loss.
    var, es : array_like, shape (T,)
        Forecasts, positive for a loss; es > 0 and es >= var.
    times : array_like of uint64, shape (T,), optional
        UTC nanoseconds of the results; 0, 1, 2 ... when not given.
    tail : {"exponential", "normal", "student", "pareto"}
        The model's tail, for the simulated p-values of ES (:mod:`tengri_fast.risk.backtest.shortfall`).
    shape : float, optional
        Degrees of freedom of a "student" tail, shape of a "pareto" one.
    notes : tuple of str
        What the model said about itself.

    Raises
    ------
    DataConversionError
        When a field breaks its rule.
    """

    method: str
    level: float
    pnl: Floats
    var: Floats
    es: Floats
    times: npt.NDArray[np.uint64] | None = None
    tail: Tail = "exponential"
    shape: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tail_probability(self.level)
        pnl = series("pnl", self.pnl)
        var, es = series("var", self.var, pnl.size), series("es", self.es, pnl.size)
        check_shortfall(var, es)
        check_tail(self.tail, self.shape)
        times = np.arange(pnl.size, dtype=np.uint64) if self.times is None else np.asarray(self.times)
        if times.dtype.kind not in "iu" or times.shape != pnl.shape:
            raise DataConversionError(
                f"`times` must be integers, as many as `pnl` ({pnl.size}), had {times.dtype} {times.shape}"
            )
        if (times[1:] <= times[:-1]).any():
            at = int(np.argmax(times[1:] <= times[:-1])) + 1
            raise DataConversionError(f"`times` must rise, was {times[at]} after {times[at - 1]} at {at}")
        for name, value in (("pnl", pnl), ("var", var), ("es", es), ("times", times.astype(np.uint64))):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    @property
    def hits(self) -> Flags:
        """Days on which the loss was larger than the VaR, shape (T,)."""
        return exceptions(self.pnl, self.var)


@dataclass(frozen=True, eq=False)
class Judgement:
    """Tests and scores of one model.

    Attributes
    ----------
    forecasts : Forecasts
    tests : tuple of TestResult
    zones : ndarray of int8, shape (T,)
        Traffic light of the last 250 days: 0 green, 1 yellow, 2 red, -1 before there are 250.
    quantile_loss, joint_score : float
        Mean scores, lower is better, for comparisons on the same days.
    verdict : str
        What a risk officer should know, in a few sentences.
    """

    forecasts: Forecasts
    tests: tuple[TestResult, ...]
    zones: npt.NDArray[np.int8]
    quantile_loss: float
    joint_score: float
    verdict: str
    failed: tuple[str, ...] = field(default=())

    def test(self, name: str) -> TestResult:
        """One test by name; KeyError when there is none."""
        for test in self.tests:
            if test.name == name:
                return test
        raise KeyError(name)

    @property
    def zone(self) -> str:
        """Traffic light over all days."""
        return str(self.test("Basel traffic light").details["zone"])

    @property
    def zone_shares(self) -> Mapping[str, float]:
        """Share of days on which the rolling light was green, yellow and red; NaN with fewer than 250 days."""
        known = self.zones[self.zones >= 0]
        return {name: float((known == i).mean()) if known.size else math.nan for i, name in enumerate(ZONES)}

    @property
    def worst_year(self) -> int:
        """Most exceptions in 250 consecutive days (or in all, when there are fewer)."""
        total = np.concatenate(([0], np.cumsum(self.forecasts.hits)))
        span = min(YEAR, total.size - 1)
        return int((total[span:] - total[:-span]).max())

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the daily series, as JSON can hold them."""
        f = self.forecasts
        hits = f.hits
        p = tail_probability(f.level)
        return {
            "method": f.method,
            "level": f.level,
            "days": int(f.pnl.size),
            "first": int(f.times[0]) if f.times is not None else 0,
            "last": int(f.times[-1]) if f.times is not None else 0,
            "exceptions": int(hits.sum()),
            "expected": float(f.pnl.size * p),
            "zone": self.zone,
            "zone_shares": {key: (None if math.isnan(x) else x) for key, x in self.zone_shares.items()},
            "worst_year": self.worst_year,
            "mean_var": float(f.var.mean()),
            "mean_es": float(f.es.mean()),
            "quantile_loss": self.quantile_loss,
            "joint_score": self.joint_score,
            "failed": list(self.failed),
            "verdict": self.verdict,
            "notes": list(f.notes),
            "tests": [test.to_dict() for test in self.tests],
        }


def judge(forecasts: Forecasts, *, simulations: int = 999, seed: int = 1, lags: int = 4) -> Judgement:
    """Run every test on one model's forecasts.

    Parameters
    ----------
    forecasts : Forecasts
    simulations, seed : int
        Of the p-values that are simulated; 0 simulations leaves them out.
    lags : int
        Of the dynamic quantile test; it is left out when there are too few days for it.

    Returns
    -------
    Judgement
    """
    f, hits = forecasts, forecasts.hits
    tests = [
        traffic_light(hits, f.level),
        kupiec_pof(hits, f.level),
        binomial_test(hits, f.level),
        kupiec_tuff(hits, f.level),
        christoffersen_independence(hits),
        conditional_coverage(hits, f.level),
        weibull_durations(hits, simulations=simulations, seed=seed),
        haas_durations(hits, f.level, simulations=simulations, seed=seed),
    ]
    if hits.size > 2 * (lags + 2):
        tests.append(dynamic_quantile(hits, f.var, f.level, lags=lags, simulations=simulations, seed=seed))
    tests += acerbi_szekely(
        f.pnl, f.var, f.es, f.level, tail=f.tail, shape=f.shape, simulations=simulations, seed=seed
    )  # fmt: skip
    failed, verdict = _read(f, tests)
    return Judgement(
        f,
        tuple(tests),
        rolling_zones(hits, f.level, YEAR),
        float(quantile_loss(f.pnl, f.var, f.level).mean()),
        float(fissler_ziegel(f.pnl, f.var, f.es, f.level).mean()),
        verdict,
        failed,
    )


def _read(f: Forecasts, tests: Sequence[TestResult]) -> tuple[tuple[str, ...], str]:
    """What failed (number, order, foresight, size) and the sentences that say so."""
    by_name = {test.name: test for test in tests}
    light, number = by_name["Basel traffic light"], by_name["Kupiec POF"]
    zone = str(light.details["zone"])
    days, x = int(light.details["days"]), int(light.details["exceptions"])
    expected = number.details["expected"]
    failed, said = [], [
        f"{zone.capitalize()} over {days:,} days: {x:,} exceptions, {expected:.1f} expected at {percent(f.level)}."
    ]  # fmt: skip
    if number.rejected():
        failed.append("number")
        said.append("The VaR is too low." if x > expected else "The VaR is too high: it costs capital or limits.")
    else:
        said.append("The number of exceptions is what the level promises.")
    order = [by_name[name] for name in ("Christoffersen independence", "Weibull durations") if by_name[name].rejected()]
    if order:
        failed.append("order")
        said.append("Exceptions do not come independently: " + "; ".join(_clause(test) for test in order) + ".")
    else:
        said.append("No clusters are shown.")
    quantile = by_name.get("Dynamic quantile")
    if quantile is not None and quantile.rejected():
        failed.append("foresight")
        said.append(
            "The dynamic quantile test rejects as well, which the number alone may explain."
            if "number" in failed
            else "The dynamic quantile test rejects: what was known the day before told about exceptions."
        )
    size, both = by_name["Acerbi-Szekely Z1"], by_name["Acerbi-Szekely Z2"]
    if size.rejected():
        failed.append("size")
        said.append("Losses beyond the VaR were larger than the expected shortfall promised.")
    elif both.rejected():
        failed.append("size")
        said.append("The expected shortfall is understated, through the number of exceptions rather than their size.")
    elif x:
        said.append("The expected shortfall is not shown to be too small.")
    if days * tail_probability(f.level) < 5.0:
        said.append(
            "With so few expected exceptions the tests have little power: not rejected is not the same as good."
        )
    return tuple(failed), " ".join(said)


def _clause(test: TestResult) -> str:
    if test.name == "Christoffersen independence":
        together = test.details["n11"] * (test.details["n00"] + test.details["n01"]) > test.details["n01"] * (
            test.details["n10"] + test.details["n11"]
        )
        return "one makes another the next day likelier" if together else "one makes another the next day less likely"
    return "their spacing is clustered" if test.details["shape"] < 1.0 else "their spacing is too regular"


def period(forecasts: Forecasts, start: int, end: int) -> dict[str, Any]:
    """Exceptions of a stretch of time, start <= t < end in UTC ns.

    Returns
    -------
    dict
        ``days``, ``exceptions``, ``expected``, ``worst_loss_over_var`` (None without days) and ``chance``: the
        probability that a right model has at least as many.
    """
    assert forecasts.times is not None  # set at construction
    inside = (forecasts.times >= np.uint64(start)) & (forecasts.times < np.uint64(end))
    days, p = int(inside.sum()), tail_probability(forecasts.level)
    if not days:
        return {"days": 0, "exceptions": 0, "expected": 0.0, "worst_loss_over_var": None, "chance": None}
    x = int(forecasts.hits[inside].sum())
    ratio = -forecasts.pnl[inside] / forecasts.var[inside]
    return {
        "days": days,
        "exceptions": x,
        "expected": days * p,
        "worst_loss_over_var": float(ratio.max()),
        "chance": min(float(binomial_pmf(days, p)[x:].sum()), 1.0),
    }
