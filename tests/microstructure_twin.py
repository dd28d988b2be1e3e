"""The microstructure features once more, plainly: every value recomputed from the whole history with exact sums.

Written from the formulas of the sources that the rows of the table name. A value comes with the error that sums in two
doubles may have: about 1e-31 of the largest number that ever was in them, propagated to the value. Sums of nothing
but zeros must be exactly 0 whatever was in them before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise

import numpy as np
from market_history import SECOND, SUM_ERROR, History, Row, Sums, log_bps, ratio

from tengri_fast.features import FeatureSpec

NONE = 1e-12  # of the mean square: a variance below is rounding


class Twin(History):
    """One method per row of the table."""

    def value(self, spec: FeatureSpec) -> tuple[bool, float, float]:
        """Ready, value, and the error that the value may have beyond rounding of its own size."""
        clock = str(spec.clock) if spec.clock else "event"
        self.rows = self.samples[clock]
        found = getattr(self, twin_of(spec.name))(**spec.params)
        return found if len(found) == 3 else (*found, 0.0)

    # --- the book ---

    def mid_(self):
        return (True, self.mid()) if self.book else (False, 0)

    def microprice(self):
        if not self.book:
            return False, 0
        bid, ask, b, a = self.book[-1].values
        return True, (bid * (a / (a + b)) + ask * (b / (a + b))) if a + b > 0 else self.mid()

    def sides(self) -> tuple[list, list]:
        return self.depth[-1].values

    def queue_imbalance(self, level):
        if not self.depth:
            return False, 0
        b, a = (side[int(level) - 1][1] if len(side) >= level else 0.0 for side in self.sides())
        return True, (b - a) / (a + b) if a + b > 0 else 0.0

    @staticmethod
    def one_side(b: float, a: float, side: float, log: float) -> tuple[bool, float]:
        total = {1: b, -1: a, 0: a + b}[int(side)]
        return True, math.log1p(total) if log else total

    def depth_(self, levels, side, log):
        if not self.depth:
            return False, 0
        b, a = (math.fsum(s for _, s in levels_[: int(levels)]) for levels_ in self.sides())
        return self.one_side(b, a, side, log)

    def near(self, bps: float) -> tuple[float, float]:
        mid = self.mid_of_depth()
        return tuple(math.fsum(s for p, s in side if abs(p - mid) <= bps / 1e4 * mid) for side in self.sides())

    def mid_of_depth(self) -> float:
        bids, asks = self.sides()
        return 0.5 * (bids[0][0] + asks[0][0])

    def depth_within(self, bps, side, log):
        return self.one_side(*self.near(bps), side, log) if self.depth else (False, 0)

    def imbalance_within(self, bps):
        if not self.depth:
            return False, 0
        b, a = self.near(bps)
        return True, (b - a) / (a + b) if a + b > 0 else 0.0

    def book_pressure(self, scale):
        if not self.depth:
            return False, 0
        mid = self.mid_of_depth()
        b, a = (math.fsum(s * scale / (scale + 1e4 * abs(p - mid) / mid) for p, s in side) for side in self.sides())
        return True, (b - a) / (a + b) if a + b > 0 else 0.0

    def slopes(self, levels: float) -> tuple[float, float]:
        mid, out = self.mid_of_depth(), []
        for side in self.sides():
            x = [1e4 * abs(p - mid) / mid for p, _ in side[: int(levels)]]
            cumulated = np.cumsum([s for _, s in side[: int(levels)]])
            top = math.fsum(map(float.__mul__, x, cumulated.tolist()))
            bottom = math.fsum(v * v for v in x)
            out.append(top / bottom if bottom > 0 else 0.0)
        return out[0], out[1]

    def book_slope(self, levels, side, log):
        if not self.depth:
            return False, 0
        b, a = self.slopes(levels)
        slope = {1: b, -1: a, 0: 0.5 * (a + b)}[int(side)]
        return True, math.log1p(slope) if log else slope

    def book_slope_imbalance(self, levels):
        if not self.depth:
            return False, 0
        b, a = self.slopes(levels)
        return True, (b - a) / (a + b) if a + b > 0 else 0.0

    def depth_price_deviation(self, levels):
        if not self.depth:
            return False, 0
        mid, sizes, offsets = self.mid_of_depth(), [], []
        for side in self.sides():
            sizes.append(math.fsum(s for _, s in side[: int(levels)]))
            offsets.append(math.fsum((p - mid) * s for p, s in side[: int(levels)]))
        if min(sizes) == 0:
            return True, 0.0
        bid, ask = (o / s for o, s in zip(offsets, sizes, strict=True))
        return True, 1e4 * (ask * (sizes[0] / sum(sizes)) + bid * (sizes[1] / sum(sizes))) / mid

    # --- the best quotes ---

    def changes(self, fields: slice) -> list[Row]:
        return self.book[:1] + [b for a, b in pairwise(self.book) if a.values[fields] != b.values[fields]]

    def quote_age(self, sizes):
        if not self.book:
            return False, 0
        return True, math.log1p((self.clock - self.changes(slice(0, 4 if sizes else 2))[-1].time) / SECOND)

    def quote_intensity(self, half_life):
        rate = math.log(2) / half_life * SECOND
        ages = [(self.clock - row.time) / half_life for row in self.changes(slice(0, 4))]
        return bool(self.book) and self.elapsed(half_life), rate * math.fsum(2**-age for age in ages)

    def contributions(self) -> list[Row]:
        """Cont, Kukanov, Stoikov eq. 3 by side: e_n = what the bid gained less what the ask gained."""
        rows = []
        for old, new in pairwise(self.book):
            (b0, a0, q0, s0), (b1, a1, q1, s1) = old.values, new.values
            bid = q1 * (b1 >= b0) - q0 * (b1 <= b0)
            ask = s1 * (a1 <= a0) - s0 * (a1 >= a0)
            rows.append(Row(new.number, new.time, (bid, ask, abs(bid) + abs(ask), (q1 + s1) / 2)))
        return rows

    def order_flow_ratio(self, window, capacity):
        rows = self.contributions()
        s = Sums(self.within(rows, window, len(self.book)), rows, 4)
        value, error = ratio(s.value[0] - s.value[1], s.error[0] + s.error[1], s.value[2], s.error[2])
        return self.ready(window, self.book, 1), value, error

    def queue_flow(self, window, side, capacity):
        rows = self.contributions()
        s = Sums(self.within(rows, window, len(self.book)), rows, 4)
        i = 0 if side > 0 else 1
        value, error = ratio(s.value[i] * s.n, s.error[i] * s.n, s.value[3], s.error[3])
        return self.ready(window, self.book, 1), value, error

    def spread_zscore(self, window):
        """Weights of each earlier spread written out: the newest weighs w, the one before w(1 - w) ..."""
        if not self.ready(window, self.book, 1):
            return False, 0
        spreads = [row.values[1] - row.values[0] for row in self.book]
        weights, left = [], 1.0
        for k in range(len(spreads) - 2, 0, -1):
            age = self.book[k + 1].time - self.book[k].time
            w = 2 / (1 - window) if window < 0 else -math.expm1(-math.log(2) * age / window)
            weights.append(left * w)
            left *= 1 - w
        weights = [left, *weights[::-1]]
        mean = math.fsum(w * x for w, x in zip(weights, spreads, strict=False))
        variance = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, spreads, strict=False))
        deviation = math.sqrt(variance)
        # What is held in doubles of the size of the largest spread before cannot say more about a much smaller one.
        noise = 1e-13 * max(spreads[:-1])
        if abs(deviation - 1e-6 * mean) <= noise + 1e-9 * deviation:
            return True, 0.0, math.inf
        if deviation <= 1e-6 * mean:
            return True, 0.0
        value = (spreads[-1] - mean) / deviation
        return True, value, noise / deviation * (1 + abs(value))

    @staticmethod
    def spread_bin(spread: float) -> int:
        shifted = spread * (1 + 1e-6)
        if shifted < 2.0**-62:
            return -1
        mantissa, exponent = math.frexp(shifted)  # in [0.5, 1)
        return min(8 * (exponent + 61) + int((mantissa - 0.5) * 16), 8 * 124 - 1)

    def spread_rank(self, window, capacity):
        if not self.ready(window, self.book, 0):
            return False, 0
        bins = [self.spread_bin(r.values[1] - r.values[0]) for r in self.within(self.book, window, len(self.book))]
        if not bins:
            return True, 0.5
        now = self.spread_bin(self.book[-1].values[1] - self.book[-1].values[0])
        return True, np.mean([(b < now) + 0.5 * (b == now) for b in bins])

    def spread_regime(self, window, low, high, capacity):
        ready, rank = self.spread_rank(window, capacity)
        return ready, float(rank > high) - float(rank < low) if ready else 0.0

    # --- trades ---

    def trade_sign(self, infer):
        return (True, self.side_of(len(self.trades) - 1, infer)) if self.trades else (False, 0)

    def last_trade_deviation(self):
        if not self.trades or not self.book:
            return False, 0
        return True, 1e4 * (self.trades[-1].values[0] - self.mid()) / self.mid()

    def signed_rows(self, infer: float) -> list[Row]:
        rows = []
        for k, row in enumerate(self.trades):
            side, size = self.side_of(k, infer), row.values[1]
            rows.append(Row(row.number, row.time, (side, side * size, abs(side) * size)))
        return rows

    def trade_imbalance(self, window, infer, capacity):
        rows = self.within(self.signed_rows(infer), window, len(self.trades))
        return self.ready(window, self.trades, 0), np.mean([r.values[0] for r in rows]) if rows else 0.0

    def buy_ratio(self, window, infer, capacity):
        rows = self.signed_rows(infer)
        s = Sums(self.within(rows, window, len(self.trades)), rows, 3)
        if s.value[2] == 0:
            return self.ready(window, self.trades, 0), 0.5, 0.0
        bought = math.fsum(r.values[2] for r in self.within(rows, window, len(self.trades)) if r.values[0] > 0)
        value, error = ratio(bought, s.error[1], s.value[2], s.error[2])
        return self.ready(window, self.trades, 0), value, error

    def decayed(self, half_life: float, infer: float) -> tuple[float, float, float, float]:
        bought = sold = flow = size = 0.0
        if self.trades:
            rows = self.signed_rows(infer)
            parts = [(2.0 ** (-(self.clock - r.time) / half_life), *r.values) for r in rows]
            bought = math.fsum(w for w, side, *_ in parts if side > 0)
            sold = math.fsum(w for w, side, *_ in parts if side < 0)
            flow = math.fsum(w * signed for w, _, signed, _ in parts)
            size = math.fsum(w * known for w, _, _, known in parts)
        return bought, sold, flow, size

    def buy_intensity(self, half_life, infer):
        rate = math.log(2) / half_life * SECOND
        return self.elapsed(half_life), rate * self.decayed(half_life, infer)[0]

    def sell_intensity(self, half_life, infer):
        rate = math.log(2) / half_life * SECOND
        return self.elapsed(half_life), rate * self.decayed(half_life, infer)[1]

    def relative(self, half_life: float, infer: float) -> tuple[float, float, float, float]:
        """As of the last trade, before anything underflows: the shares do not age."""
        clock, self.clock = self.clock, self.trades[-1].time if self.trades else self.clock
        found = self.decayed(half_life, infer)
        self.clock = clock
        return found

    def intensity_imbalance(self, half_life, infer):
        bought, sold, *_ = self.relative(half_life, infer)
        return self.elapsed(half_life), (bought - sold) / (bought + sold) if bought + sold > 1e-90 else 0.0

    def signed_volume(self, half_life, infer, normalise):
        if not normalise:
            return self.elapsed(half_life), self.decayed(half_life, infer)[2]
        *_, flow, size = self.relative(half_life, infer)
        # A plain sum keeps the rounding of the largest volume ever until it has decayed.
        return self.elapsed(half_life), flow / size if size > 1e-90 else 0.0

    def durations(self, period: float) -> tuple[float, float]:
        times = [(b.time - a.time) / SECOND for a, b in pairwise(self.trades)]
        w, weights, left = 2 / (period + 1), [], 1.0
        for _ in times[1:]:
            weights.append(left * w)
            left *= 1 - w
        weights = [left, *weights[::-1]]
        mean = math.fsum(a * x for a, x in zip(weights, times, strict=True))
        return mean, math.fsum(a * (x - mean) ** 2 for a, x in zip(weights, times, strict=True))

    def trade_duration(self, period):
        ready = len(self.trades) > period
        return ready, math.log1p(self.durations(period)[0]) if ready else 0.0

    def trade_clustering(self, period):
        if len(self.trades) <= period:
            return False, 0
        mean, variance = self.durations(period)
        largest = max((b.time - a.time for a, b in pairwise(self.trades)), default=0) / SECOND
        if mean < 1e-10 or math.sqrt(variance) < 1e-7 * largest:
            return True, 0.0, (math.inf if mean < 1e-10 else 1e-6 * largest / mean)
        return True, math.sqrt(variance) / mean, 1e-12 * largest / mean

    def effective_spread(self, window, capacity):
        rows = [
            Row(r.number, r.time, (r.values[1] * 2e4 * abs(r.values[0] - r.values[3]) / r.values[3], r.values[1]))
            for r in self.trades
            if r.values[3] is not None
        ]
        s = Sums(self.within(rows, window, len(self.trades)), rows, 2)
        return (self.ready(window, self.trades, 0), *ratio(s.value[0], s.error[0], s.value[1], s.error[1]))

    def realized_spread(self, horizon, window, infer, capacity):
        """A trade is judged by the first later trade that comes at least `horizon` after it."""
        rows = []
        for k, row in enumerate(self.trades):
            price, size, _, mid, _ = row.values
            side = self.side_of(k, infer)
            judge = next((r for r in self.trades[k + 1 :] if r.time - row.time >= horizon), None)
            if judge is None or mid is None or not side:
                continue
            cost = side * size * 2e4 * (price - judge.values[3]) / mid
            rows.append(Row(len(rows) + 1, judge.time, (cost, size)))
        s = Sums(self.within(rows, window, len(rows)), rows, 2)
        ready = len(rows) >= -window if window < 0 else len(rows) >= 1 and self.elapsed(window + horizon)
        return (ready, *ratio(s.value[0], s.error[0], s.value[1], s.error[1]))

    def roll_spread(self, window, capacity):
        changes = [(b, log_bps(b.values[0], a.values[0])) for a, b in pairwise(self.trades)]
        pairs = [Row(b.number, b.time, (y, x, x * y, y * y + x * x)) for (_, x), (b, y) in pairwise(changes)]
        rows = self.within(pairs, window, len(self.trades))
        if not self.ready(window, self.trades, 2):
            return False, 0
        if not rows:
            return True, 0.0
        now, before = np.array([r.values[:2] for r in rows]).T
        covariance = float(np.mean((now - now.mean()) * (before - before.mean())))
        scale = max(r.values[3] for r in rows)
        if covariance >= 0:
            return True, 0.0, math.sqrt(1e-14 * scale)
        value = 2 * math.sqrt(-covariance)
        return True, value, min(math.sqrt(4e-14 * scale), 4e-14 * scale / value)

    # --- volume profile ---

    def profile(self, *params: float):
        """Volume by bin, point of control, lower and upper end of the value area, and the width of a bin."""
        asked = (len(self.trades), self.clock, params)
        if self.asked != asked:
            self.asked, self.answer = asked, self.histogram(*params)
        return self.answer

    def histogram(self, window, tick, bins, capacity):
        alive: list[tuple[Row, int]] = []
        base = width = None
        for row in self.trades:
            price = row.values[0]
            width = width or tick or price * 1e-4
            number = int(max(-(2.0**53), min(2.0**53, math.floor(price / width + 0.5))))
            alive = [
                (r, n)
                for r, n in alive
                if (row.number - r.number < -window if window < 0 else row.time - r.time < window)
            ]
            if not alive or not base <= number < base + bins:
                base = number - int(bins) // 2
                alive = [(r, n) for r, n in alive if base <= n < base + bins]
            alive.append((row, number))
        if window > 0:
            alive = [(r, n) for r, n in alive if self.clock - r.time < window]
        if not alive:
            return None
        parts = defaultdict(list)
        for r, n in alive:
            parts[n].append(r.values[1])
        volume = {n: math.fsum(v) for n, v in parts.items()}
        total = math.fsum(r.values[1] for r, _ in alive)
        most = max(volume.values())
        control = min(n for n, v in volume.items() if v == most)
        low = high = control
        inside = volume[control]
        last = base + int(bins) - 1
        while inside < 0.7 * total * (1 - 1e-12):
            below = volume.get(low - 1, 0.0) if low > base else -1.0
            above = volume.get(high + 1, 0.0) if high < last else -1.0
            if below == above == -1:
                break
            if above >= below:
                high += 1
                inside += above
            if below >= above:
                low -= 1
                inside += below
        traded = [n for n in volume if low <= n <= high]
        return volume, total, control, min(traded), max(traded), width

    def profile_value(self, what: str, window, tick, bins, capacity):
        if not self.ready(window, self.trades, 0):
            return False, 0
        found = self.profile(window, tick, bins, capacity)
        if found is None:
            return True, 0.0
        volume, total, control, low, high, width = found
        here = self.mid() if self.book else self.trades[-1].values[0]
        number = math.floor(min(here / width + 0.5, 2.0**53))
        if what == "in":
            return True, float(low <= number <= high)
        if what == "share":
            return True, volume.get(number, 0.0) / total
        return True, 1e4 * ({"control": control, "low": low, "high": high}[what] * width - here) / here

    def point_of_control(self, **params):
        return self.profile_value("control", **params)

    def value_area_high(self, **params):
        return self.profile_value("high", **params)

    def value_area_low(self, **params):
        return self.profile_value("low", **params)

    def in_value_area(self, **params):
        return self.profile_value("in", **params)

    def profile_share(self, **params):
        return self.profile_value("share", **params)

    # --- variation of the samples ---

    def returns(self) -> list[Row]:
        return [Row(b.number, b.time, (log_bps(b.values.close, a.values.close),)) for a, b in pairwise(self.rows)]

    def terms(self, window: float, factors: int) -> tuple[np.ndarray, float]:
        """Returns of the window, one row each with the `factors - 1` before it (0 where there are none)."""
        returns = self.returns()
        kept = {r.number for r in self.within(returns, window, len(self.rows))}
        r = np.array([0.0] * (factors - 1) + [row.values[0] for row in returns])
        rows = [r[k : k + factors][::-1] for k, row in enumerate(returns) if row.number in kept]
        largest = float(np.max(np.abs(r), initial=0.0))
        return np.array(rows).reshape(-1, factors), largest

    def realized_variance(self, window, capacity):
        r, largest = self.terms(window, 1)
        return self.ready(window, self.rows, 1), math.fsum((r[:, 0] ** 2).tolist()), SUM_ERROR * largest**2

    def bipower_variation(self, window, capacity):
        r, largest = self.terms(window, 2)
        bv = math.pi / 2 * math.fsum(np.abs(r[:, 0] * r[:, 1]).tolist())
        return self.ready(window, self.rows, 1), bv, SUM_ERROR * largest**2

    def realized_semivariance(self, window, side, capacity):
        r, largest = self.terms(window, 1)
        part = r[r * side > 0]
        return self.ready(window, self.rows, 1), math.fsum((part**2).tolist()), SUM_ERROR * largest**2

    def semivariance_imbalance(self, window, capacity):
        ready, up, error = self.realized_semivariance(window, 1, capacity)
        down = self.realized_semivariance(window, -1, capacity)[1]
        return (ready, *ratio(up - down, error, up + down, error))

    def jump_share(self, window, capacity):
        ready, rv, error = self.realized_variance(window, capacity)
        share, wrong = ratio(self.bipower_variation(window, capacity)[1], error, rv, error)
        return ready, max(0.0, 1 - share) if rv else 0.0, wrong

    def jump_test(self, window, capacity):
        ready, rv, error = self.realized_variance(window, capacity)
        bv = self.bipower_variation(window, capacity)[1]
        r, largest = self.terms(window, 4)
        if min(rv, bv) <= 1e6 * error:
            return ready, 0.0, (math.inf if min(rv, bv) else 0.0)
        n = len(r)
        qp = n * (math.pi / 2) ** 2 * math.fsum(np.abs(r.prod(axis=1)).tolist())
        z = (1 - bv / rv) / math.sqrt((math.pi**2 / 4 + math.pi - 5) / n * max(1, qp / bv**2))
        return ready, z, 1e3 * n * (error / bv + error / rv + SUM_ERROR * largest**4 / bv**2)

    def realized_skewness(self, window, capacity):
        ready, rv, error = self.realized_variance(window, capacity)
        r, largest = self.terms(window, 1)
        if rv <= 1e6 * error:
            return ready, 0.0, (math.inf if rv else 0.0)
        skewness = math.sqrt(len(r)) * math.fsum((r[:, 0] ** 3).tolist()) / rv**1.5
        return ready, skewness, len(r) * (SUM_ERROR * largest**3 / rv**1.5 + 10 * error / rv)

    @staticmethod
    def correlation(x: np.ndarray, y: np.ndarray, errors: tuple[float, float]) -> tuple[float, float]:
        """Pearson's, 0 without variance, and its error."""
        if len(x) < 2:
            return 0.0, 0.0
        parts, wrong = [], 1e-14
        for v, error in zip((x, y), errors, strict=True):
            square = float(np.sum(v * v))
            around = float(np.sum((v - v.mean()) ** 2))
            if square and NONE / 100 < around / square < NONE * 100 and around > 0:
                return 0.0, math.inf  # at the edge of what counts as none
            if around <= NONE * square or square == 0:
                return 0.0, (math.inf if 0 < square <= 1e6 * error else 0.0)
            parts.append(around)
            wrong += 1e-14 * square / around + 10 * error / around
        value = float(np.sum((x - x.mean()) * (y - y.mean()))) / math.sqrt(parts[0]) / math.sqrt(parts[1])
        return value, wrong

    def return_autocorrelation(self, window, capacity):
        returns = self.returns()
        pairs = [Row(b.number, b.time, (b.values[0], a.values[0])) for a, b in pairwise(returns)]
        kept = np.array([r.values for r in self.within(pairs, window, len(self.rows))]).reshape(-1, 2)
        error = SUM_ERROR * max((r.values[0] ** 2 for r in returns), default=0.0)
        return (self.ready(window, self.rows, 2), *self.correlation(kept[:, 0], kept[:, 1], (error, error)))

    def variance_ratio(self, window, q, capacity):
        if not self.ready(window, self.rows, int(q)):
            return False, 0
        r, largest = self.terms(window, int(q))
        r = r[max(0, len(r) - max(0, len(self.rows) - int(q))) :]
        if len(r) < 2:
            return True, 1.0
        one, longer = r[:, 0], np.array([math.fsum(row) for row in r.tolist()])
        mean = one.mean()
        below = float(np.sum((one - mean) ** 2))
        square, error = float(np.sum(one**2)), SUM_ERROR * largest**2 * q * q
        if square == 0 or below <= NONE * square / 100:
            return True, 1.0, (math.inf if 0 < square <= 1e6 * error else 0.0)
        if below < NONE * square * 100:
            return True, 1.0, math.inf
        value = float(np.sum((longer - q * mean) ** 2)) / (q * below)
        return True, value, (1e-14 * q * q * (square + float(np.sum(longer**2))) + 100 * error) / below * (1 + value)

    # --- impact ---

    def impact(self, window: float) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        rows = [
            Row(b.number, b.time, (b.values.bought - b.values.sold, log_bps(b.values.close, a.values.close)))
            for a, b in pairwise(self.rows)
        ]
        kept = np.array([r.values for r in self.within(rows, window, len(self.rows))]).reshape(-1, 2)
        errors = [SUM_ERROR * max((r.values[i] ** 2 for r in rows), default=0.0) for i in (0, 1)]
        return kept[:, 0], kept[:, 1], (errors[0], errors[1])

    def kyle_lambda(self, window, intercept, capacity):
        ready = self.ready(window, self.rows, 1)
        x, y, errors = self.impact(window)
        square = float(np.sum(x * x))
        if not len(x) or square == 0:
            return ready, 0.0, 0.0
        around = float(np.sum((x - x.mean()) ** 2)) if intercept else square
        if intercept and around < NONE * square * 100:
            return ready, 0.0, (math.inf if around > NONE * square / 100 else 0.0)
        scale = float(np.abs(x).max())  # lstsq drops what it takes for a null space: it must see numbers of one size
        design = np.column_stack([x / scale, np.ones_like(x)][: 1 + int(intercept)])
        slope = float(np.linalg.lstsq(design, y, rcond=1e-15)[0][0]) / scale
        size = float(np.sum(np.abs(x * y))) + abs(float(x.sum() * y.mean())) * intercept
        wrong = 1e-14 * size / around + math.sqrt(errors[0] * errors[1]) / around * 10
        wrong += abs(slope) * (1e-13 * square / around + 10 * errors[0] / around)
        return ready, slope, wrong

    def impact_correlation(self, window, capacity):
        x, y, errors = self.impact(window)
        return (self.ready(window, self.rows, 1), *self.correlation(x, y, errors))

    def amihud(self, window, capacity):
        rows = [
            Row(b.number, b.time, (abs(log_bps(b.values.close, a.values.close)) / b.values.notional * 1e6,))
            for a, b in pairwise(self.rows)
            if b.values.notional > 0
        ]
        s = Sums(self.within(rows, window, len(self.rows)), rows, 1)
        return self.ready(window, self.rows, 1), s.value[0] / s.n if s.n else 0.0, s.error[0]

    def corwin_schultz(self, window, capacity):
        rows = []
        for a, b in pairwise(self.rows):
            beta = math.log(a.values.high / a.values.low) ** 2 + math.log(b.values.high / b.values.low) ** 2
            gamma = math.log(max(a.values.high, b.values.high) / min(a.values.low, b.values.low)) ** 2
            k = 3 - 2 * math.sqrt(2)
            alpha = (math.sqrt(2 * beta) - math.sqrt(beta)) / k - math.sqrt(gamma / k)
            spread = 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha)) if alpha < 500 else 2.0
            rows.append(Row(b.number, b.time, (1e4 * max(0.0, spread),)))
        s = Sums(self.within(rows, window, len(self.rows)), rows, 1)
        return self.ready(window, self.rows, 1), s.value[0] / s.n if s.n else 0.0, 1e-10

    @staticmethod
    def buckets(parts: list[tuple[float, float]], bucket: float, count: int) -> list[float] | None:
        """|buy - sell| of the last `count` full buckets in exact arithmetic, from (volume, side) in order."""
        size, edge = Fraction(bucket), Fraction(bucket) * Fraction(1e-9)
        filled = gap = Fraction(0)
        closed: list[float] = []
        for volume, side in parts:
            left, sign = Fraction(volume), Fraction(side)
            if left > 3 * count * size:  # whole buckets of one side that nobody will remember
                left = left % size + 3 * count * size
            while left > 0:
                room = size - filled
                if left < room - edge:
                    filled += left
                    gap += sign * left
                    break
                part = min(left, room)
                closed.append(float(abs(gap + sign * part)))
                left = left - room if left - room >= edge else Fraction(0)
                filled = gap = Fraction(0)
            closed = closed[-count:]
        return closed if len(closed) == count else None

    def vpin(self, bucket, buckets, infer):
        parts = [(row.values[1], self.side_of(k, infer)) for k, row in enumerate(self.trades)]
        closed = self.buckets(parts, bucket, int(buckets))
        return closed is not None, math.fsum(closed) / buckets / bucket if closed else 0.0

    def bulk_vpin(self, bucket, buckets, period):
        parts, variance = [], None
        for k, row in enumerate(self.rows):
            side = 0.0
            if k:
                r = log_bps(row.values.close, self.rows[k - 1].values.close)
                variance = r * r if variance is None else variance + 2 / (period + 1) * (r * r - variance)
                if r:
                    side = math.erf(r / math.sqrt(2 * variance))
            if row.values.volume > 0:
                parts.append((row.values.volume, side))
        closed = self.buckets(parts, bucket, int(buckets))
        return closed is not None, math.fsum(closed) / buckets / bucket if closed else 0.0


def twin_of(name: str) -> str:
    """Name of the twin's method: two features are called like what it keeps."""
    return {"mid": "mid_", "depth": "depth_"}.get(name, name)
