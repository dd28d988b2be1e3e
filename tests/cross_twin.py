"""A plain twin of the features of several instruments: it keeps every sample and computes all numbers from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tengri_fast.features import FeatureSpec

LOW, HIGH = 1e-18, 1e18


def log_ratio(now: float, before: float) -> float:
    change = (now - before) / before
    return math.log1p(change) if abs(change) < 0.5 else math.log(now / before)


class Sample(NamedTuple):
    clock: int
    close: float
    legs: dict[str, tuple[float, int]]  # mid and time of each leg that was seen


class Answer(NamedTuple):
    ready: bool
    value: float
    slack: float = 0.0  # what rounding may do to it, beyond 1e-9 of it


def centred(x: Sequence[float]) -> list[float]:
    mean = math.fsum(x) / len(x)
    return [a - mean for a in x]


def products(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Sums of squares and products around the means."""
    a, b = centred(x), centred(y)
    return math.fsum(p * p for p in a), math.fsum(p * q for p, q in zip(a, b, strict=True)), math.fsum(q * q for q in b)


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    if len(set(x)) == 1 or len(set(y)) == 1:  # a mean of equal numbers may be off by a rounding
        return 0.0
    xx, xy, yy = products(x, y)
    both = math.sqrt(xx) * math.sqrt(yy)
    return max(-1.0, min(1.0, xy / both)) if both > 0 else 0.0


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    if len(set(x)) == 1:
        return 0.0
    xx, xy, _ = products(x, y)
    return xy / xx if xx > 0 else 0.0


class CrossTwin:
    """Own quotes and quotes of legs in; samples of the event clock, and of bars of `bar` nanoseconds, out.

    Parameters
    ----------
    bar : int
        Length of a time bar; 0: samples are the own events.
    """

    def __init__(self, bar: int = 0) -> None:
        self.bar = bar
        self.clock = 0
        self.started = False
        self.mid = 0.0
        self.own_time = -1
        self.legs: dict[str, tuple[float, int]] = {}
        self.samples: list[Sample] = []
        self.end = self.made = 0
        self.close = 0.0

    def advance(self, ts: int) -> None:
        self.clock = max(self.clock, ts) if self.started else ts
        self.started = True
        if self.bar and self.made and self.clock >= self.end:
            self.samples.append(Sample(self.clock, self.close, dict(self.legs)))
            self.made = 0

    @staticmethod
    def fits(bid: float, ask: float) -> bool:
        return LOW <= bid <= HIGH and LOW <= ask <= HIGH and bid <= ask

    def quote(self, bid: float, ask: float, ts: int) -> bool:
        if not self.fits(bid, ask) or ts < self.own_time:
            return False
        self.advance(ts)
        self.own_time, self.mid = ts, 0.5 * (bid + ask)
        if not self.bar:
            self.samples.append(Sample(self.clock, self.mid, dict(self.legs)))
            return True
        if not self.made:
            self.end = (self.clock // self.bar + 1) * self.bar
        self.made += 1
        self.close = self.mid
        return True

    def leg(self, name: str, bid: float, ask: float, ts: int) -> bool:
        if not self.fits(bid, ask) or (name in self.legs and ts < self.legs[name][1]):
            return False
        self.advance(ts)
        self.legs[name] = (0.5 * (bid + ask), ts)
        return True

    # --- numbers ---

    def pairs(self, names: Sequence[str], max_age: float) -> list[tuple[float, ...]]:
        """Own price and the legs' at every paired sample."""
        rows = []
        for s in self.samples:
            if all(n in s.legs and (max_age == 0 or s.clock - s.legs[n][1] <= max_age) for n in names):
                rows.append((s.close, *(s.legs[n][0] for n in names)))
        return rows

    def returns(self, names: Sequence[str], max_age: float) -> list[list[float]]:
        rows = self.pairs(names, max_age)
        return [[log_ratio(b, a) for a, b in zip(old, new, strict=True)] for old, new in pairwise(rows)]

    def value(self, spec: FeatureSpec) -> Answer:
        params = dict(spec.params)
        name = params.pop("other", None)
        names = (name,) if name is not None else params.pop("others")
        return getattr(self, spec.name)(names, **params)

    def _change(self, names, lag, max_age):
        rows = self.pairs(names, max_age)
        if len(rows) <= lag:
            return None
        own, *legs = (log_ratio(b, a) for a, b in zip(rows[-1 - int(lag)], rows[-1], strict=True))
        return 1e4 * own, 1e4 * math.fsum(legs) / len(legs)

    def leg_return(self, names, lag, max_age):
        change = self._change(names, lag, max_age)
        return Answer(False, 0) if change is None else Answer(True, change[1])

    def relative_return(self, names, lag, max_age):
        change = self._change(names, lag, max_age)
        return Answer(False, 0) if change is None else Answer(True, change[0] - change[1], 1e-11)

    basket_return = leg_return
    basket_deviation = relative_return

    def _both(self, names, window, max_age):
        rows = self.returns(names, max_age)[-int(window) :]
        return (len(rows) == window, [math.fsum(r[1:]) / len(names) for r in rows], [r[0] for r in rows])

    def correlation(self, names, window, max_age):
        ready, x, y = self._both(names, window, max_age)
        return Answer(ready, correlation(x, y) if ready else 0)

    def beta(self, names, window, max_age):
        ready, x, y = self._both(names, window, max_age)
        if not ready:
            return Answer(False, 0)
        xx, _, yy = products(x, y)
        return Answer(True, slope(x, y), 1e-12 * math.sqrt(yy / xx) if xx > 0 else 0.0)

    basket_correlation = correlation
    basket_beta = beta

    def _lagged(self, names, lag, window, max_age):
        rows, lag = self.returns(names, max_age), int(lag)
        own, leg = [r[0] for r in rows], [r[1] for r in rows]
        n = min(int(window), max(0, len(rows) - lag))
        first = (leg[-n - lag : len(leg) - lag], own[len(own) - n :])
        second = (own[-n - lag : len(own) - lag], leg[len(leg) - n :])
        return n == window, first, second

    def lead_lag(self, names, lag, window, max_age):
        ready, first, _ = self._lagged(names, lag, window, max_age)
        return Answer(ready, correlation(*first) if ready else 0)

    def lead_lag_asymmetry(self, names, lag, window, max_age):
        ready, first, second = self._lagged(names, lag, window, max_age)
        return Answer(ready, correlation(*first) - correlation(*second) if ready else 0)

    def _line(self, names, window, hedge, max_age):
        rows = self.pairs(names, max_age)[-int(window) :]
        if len(rows) < window:
            return None
        x = [log_ratio(r[1], rows[-1][1]) for r in rows]
        y = [log_ratio(r[0], rows[-1][0]) for r in rows]
        h = hedge if hedge > 0 else slope(x, y)
        xx, _, yy = products(x, y)
        return [b - h * a for a, b in zip(x, y, strict=True)], yy, h * h * xx, hedge > 0

    def pair_spread(self, names, window, hedge, max_age):
        line = self._line(names, window, hedge, max_age)
        if line is None:
            return Answer(False, 0)
        return Answer(True, 1e4 * centred(line[0])[-1], 1e4 * 1e-13 * math.sqrt(line[1] + line[2]))

    def pair_spread_zscore(self, names, window, hedge, max_age):
        line = self._line(names, window, hedge, max_age)
        if line is None:
            return Answer(False, 0)
        residual, yy, xx, fixed = line
        rest = math.fsum(r * r for r in centred(residual))
        whole = yy + xx
        if whole == 0 or rest <= 1e-15 * whole:
            return Answer(True, 0.0, math.inf if rest > 0 or not fixed else 1e-9)
        z = centred(residual)[-1] / math.sqrt(rest / window)
        if not fixed and rest <= 1e-11 * yy:
            return Answer(True, z, math.inf)  # about where the rule about perfect fits sets in
        return Answer(True, z, 1e-13 * math.sqrt(window) * whole / rest)

    def hedge_ratio(self, names, window, max_age):
        rows = self.pairs(names, max_age)[-int(window) :]
        if len(rows) < window:
            return Answer(False, 0)
        x = [log_ratio(r[1], rows[-1][1]) for r in rows]
        y = [log_ratio(r[0], rows[-1][0]) for r in rows]
        xx, _, yy = products(x, y)
        return Answer(True, slope(x, y), 1e-12 * math.sqrt(yy / xx) if xx > 0 else 0.0)

    def premium(self, names, max_age):
        if self.mid == 0.0 or names[0] not in self.legs:
            return Answer(False, 0)
        mid, time = self.legs[names[0]]
        if max_age and self.clock - time > max_age:
            return Answer(True, 0.0)
        return Answer(True, 1e4 * (self.mid - mid) / mid)

    def leg_age(self, names):
        if names[0] not in self.legs:
            return Answer(False, 0)
        return Answer(True, math.log1p((self.clock - self.legs[names[0]][1]) / 1e9))

    # --- principal components ---

    def _covariance(self, names, half_life, max_age):
        rows = np.array(self.returns(names, max_age)).reshape(-1, 1 + len(names))
        if len(rows) < half_life:
            return None
        weights = 2.0 ** (-np.arange(len(rows))[::-1] / half_life)
        made = (rows * weights[:, None]).T @ rows / weights.sum()
        values, vectors = np.linalg.eigh(made)
        values, vectors = values[::-1], vectors[:, ::-1]
        return rows[-1], np.maximum(values, 0), vectors * np.where(vectors[0] < 0, -1, 1), made

    def _apart(self, values, factor) -> float:
        """How well a factor is told from the others: rounding over the gap between eigenvalues."""
        k = int(factor) - 1
        others = np.delete(values, k)
        gap = np.abs(others - values[k]).min() / max(values.sum(), 1e-300)
        return 1e-13 / gap if gap > 1e-10 else math.inf

    def _stands(self, values, factor) -> bool | None:
        share = values[int(factor) - 1] / values.sum() if values.sum() > 0 else 0.0
        return None if 1e-14 < share < 1e-12 else share >= 1e-12

    def pca_exposure(self, names, factor, half_life, max_age):
        made = self._covariance(names, half_life, max_age)
        if made is None:
            return Answer(False, 0)
        stands = self._stands(made[1], factor)
        if stands is None:
            return Answer(True, 0, math.inf)
        return (
            Answer(True, abs(made[2][0, int(factor) - 1]), self._apart(made[1], factor)) if stands else Answer(True, 0)
        )

    def pca_explained(self, names, factor, half_life, max_age):
        made = self._covariance(names, half_life, max_age)
        if made is None:
            return Answer(False, 0)
        stands = self._stands(made[1], factor)
        if stands is None:
            return Answer(True, 0, math.inf)
        return Answer(True, made[1][int(factor) - 1] / made[1].sum(), 1e-12) if stands else Answer(True, 0)

    def pca_return(self, names, factor, half_life, max_age):
        made = self._covariance(names, half_life, max_age)
        if made is None:
            return Answer(False, 0)
        last, values, vectors, _ = made
        stands = self._stands(values, factor)
        own = abs(vectors[0, int(factor) - 1])
        if stands is None or (stands and own < 1e-7):  # a loading of about 0 has no sign
            return Answer(True, 0, math.inf)
        slack = 1e4 * np.abs(last).sum() * self._apart(values, factor) / max(own, 1e-7) if stands else 0.0
        return Answer(True, 1e4 * float(vectors[:, int(factor) - 1] @ last), slack) if stands else Answer(True, 0)

    def pca_residual(self, names, factors, half_life, max_age):
        made = self._covariance(names, half_life, max_age)
        if made is None:
            return Answer(False, 0)
        last, values, vectors, _ = made
        rest, slack = float(last[0]), 0.0
        for k in range(int(factors)):
            stands = self._stands(values, k + 1)
            if stands is None:
                return Answer(True, 0, math.inf)
            if stands:
                rest -= vectors[0, k] * float(vectors[:, k] @ last)
        if values.sum() > 0 and self._stands(values, factors):
            k = int(factors)  # the space of the first factors matters, not each of them
            gap = (values[k - 1] - values[k]) / values.sum()
            slack = 1e4 * np.abs(last).sum() * (1e-13 / gap if gap > 1e-10 else math.inf)
        return Answer(True, 1e4 * rest, slack)
