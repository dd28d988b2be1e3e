"""Technical indicators from their definitions, in decimals of 100 digits, from the whole history.

Nothing here is incremental except what is defined as a recursion, and nothing is rounded but what the engine is told to
round (a typical price is one double). It is an oracle for TA-Lib as much as for the engine.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

CONTEXT = decimal.Context(prec=100, Emax=10**6, Emin=-(10**6))
Float = npt.NDArray[np.float64]


class Samples(NamedTuple):
    """What one clock tells its features; `notional` is price times size of what was traded, `time` in ns."""

    open: Float
    high: Float
    low: Float
    close: Float
    volume: Float
    notional: Float
    time: npt.NDArray[np.uint64]

    @classmethod
    def of_bars(cls, open: Any, high: Any, low: Any, close: Any, volume: Any, time: Any) -> Samples:
        typical = (high + low + close) / 3.0
        return cls(open, high, low, close, volume, volume * typical, time)

    @classmethod
    def of_mids(cls, mid: Any, time: Any) -> Samples:
        nothing = np.zeros(len(mid))
        return cls(mid, mid, mid, mid, nothing, nothing, time)

    def head(self, count: int) -> Samples:
        return Samples(*(column[:count] for column in self))


Values = list[Decimal | None]


def exactly(values: Any) -> list[Decimal]:
    return [Decimal(float(x)) for x in values]


def sums(values: list[Decimal], period: int) -> Values:
    """Sum of the latest `period`; exact, so a difference of running totals will do."""
    total = [Decimal(0), *accumulate(values)]
    return [total[i + 1] - total[i + 1 - period] if i + 1 >= period else None for i in range(len(values))]


def mean(values: list[Decimal], period: int) -> Values:
    return [None if s is None else s / period for s in sums(values, period)]


def exponential(values: list[Decimal], period: int, start: int = 0) -> Values:
    """Starts at index start + period - 1 with the mean of the `period` values up to there."""
    out: Values = [None] * len(values)
    first = start + period - 1
    if first >= len(values):
        return out
    alpha = Decimal(2) / (period + 1)
    now = sum(values[start : first + 1], Decimal(0)) / period
    out[first] = now
    for i in range(first + 1, len(values)):
        now += alpha * (values[i] - now)
        out[i] = now
    return out


def extreme(values: Any, period: int, pick: Callable[..., float]) -> list[Decimal | None]:
    return [
        Decimal(float(pick(values[i + 1 - period : i + 1]))) if i + 1 >= period else None for i in range(len(values))
    ]


def combine(rule: Callable[..., Decimal], *columns: Any) -> Values:
    return [None if any(x is None for x in row) else rule(*row) for row in zip(*columns, strict=True)]


def share(part: Decimal, whole: Decimal, otherwise: int | str) -> Decimal:
    return part / whole if whole != 0 else Decimal(otherwise)


def ready_from(values: Values, first: int) -> Values:
    return [None if i < first else x for i, x in enumerate(values)]


def typical(s: Samples) -> Float:
    return (s.high + s.low + s.close) / 3.0


# --- averages ---


def sma(s: Samples, period: int) -> Values:
    return mean(exactly(s.close), period)


def ema(s: Samples, period: int) -> Values:
    return exponential(exactly(s.close), period)


def wma(s: Samples, period: int) -> Values:
    close = exactly(s.close)
    weights = period * (period + 1) // 2
    return [
        sum((k + 1) * x for k, x in enumerate(close[i + 1 - period : i + 1])) / Decimal(weights)
        if i + 1 >= period
        else None
        for i in range(len(close))
    ]


def averages(s: Samples, period: int, order: int) -> list[Values]:
    """The average, its average and so on."""
    out = [ema(s, period)]
    while len(out) < order:
        known = [x for x in out[-1] if x is not None]
        out.append([None] * (len(s.close) - len(known)) + exponential(known, period))
    return out


def dema(s: Samples, period: int) -> Values:
    return combine(lambda a, b: 2 * a - b, *averages(s, period, 2))


def tema(s: Samples, period: int) -> Values:
    return combine(lambda a, b, c: 3 * a - 3 * b + c, *averages(s, period, 3))


def kama(s: Samples, period: int) -> Values:
    close = exactly(s.close)
    out: Values = [None] * len(close)
    now = close[period - 1] if len(close) >= period else Decimal(0)
    slow, fast = Decimal(2) / 31, Decimal(2) / 3
    for i in range(period, len(close)):
        path = sum(abs(close[k] - close[k - 1]) for k in range(i + 1 - period, i + 1))
        efficiency = share(abs(close[i] - close[i - period]), Decimal(path), 1)
        now += (slow + efficiency * (fast - slow)) ** 2 * (close[i] - now)
        out[i] = now
    return out


def momentum(s: Samples, period: int) -> Values:
    close = exactly(s.close)
    return [close[i] - close[i - period] if i >= period else None for i in range(len(close))]


def rate_of_change(s: Samples, period: int) -> Values:
    close = exactly(s.close)
    return [100 * (close[i] / close[i - period] - 1) if i >= period else None for i in range(len(close))]


def macd_lines(s: Samples, fast: int, slow: int, signal: int) -> tuple[Values, Values]:
    close = exactly(s.close)
    line = combine(lambda a, b: a - b, exponential(close, fast, slow - fast), exponential(close, slow))
    known = [x for x in line if x is not None]
    average: Values = [None] * (len(line) - len(known)) + exponential(known, signal)
    return line, average


def macd_as(s: Samples, values: Values, relative: float, first: int) -> Values:
    scaled = combine(lambda x, c: 10_000 * x / c, values, exactly(s.close)) if relative else values
    return ready_from(scaled, first)


def macd(s: Samples, fast: int, slow: int, signal: int, relative: float) -> Values:
    return macd_as(s, macd_lines(s, fast, slow, signal)[0], relative, slow + signal - 2)


def macd_signal(s: Samples, fast: int, slow: int, signal: int, relative: float) -> Values:
    return macd_as(s, macd_lines(s, fast, slow, signal)[1], relative, slow + signal - 2)


def macd_histogram(s: Samples, fast: int, slow: int, signal: int, relative: float) -> Values:
    line, average = macd_lines(s, fast, slow, signal)
    return macd_as(s, combine(lambda a, b: a - b, line, average), relative, slow + signal - 2)


# --- Bollinger ---


def bollinger(s: Samples, period: int, deviations: float, rule: Callable[..., Decimal]) -> Values:
    close = exactly(s.close)
    squares = sums([x * x for x in close], period)
    middle = mean(close, period)

    def deviation(square: Decimal, middle: Decimal) -> Decimal:
        variance = square / period - middle * middle
        # What is left of a flat window lies in the 100th digit; doubles that differ leave 1e-34 of the square.
        return Decimal(deviations) * variance.sqrt() if variance > middle * middle * Decimal("1e-60") else Decimal(0)

    half = combine(deviation, squares, middle)
    return combine(rule, close, middle, half)


def bollinger_middle(s: Samples, period: int, deviations: float) -> Values:
    return bollinger(s, period, deviations, lambda c, m, h: m)


def bollinger_upper(s: Samples, period: int, deviations: float) -> Values:
    return bollinger(s, period, deviations, lambda c, m, h: m + h)


def bollinger_lower(s: Samples, period: int, deviations: float) -> Values:
    return bollinger(s, period, deviations, lambda c, m, h: m - h)


def bollinger_percent(s: Samples, period: int, deviations: float) -> Values:
    return bollinger(s, period, deviations, lambda c, m, h: share(c - m + h, 2 * h, "0.5"))


def bollinger_bandwidth(s: Samples, period: int, deviations: float) -> Values:
    return bollinger(s, period, deviations, lambda c, m, h: 10_000 * 2 * h / m)


# --- ranges ---


def ranges(s: Samples) -> list[Decimal]:
    """True range from the second sample on."""
    high, low, close = exactly(s.high), exactly(s.low), exactly(s.close)
    return [max(high[i], close[i - 1]) - min(low[i], close[i - 1]) for i in range(1, len(close))]


def wilder(values: list[Decimal], period: int) -> Values:
    out: Values = [None] * len(values)
    if len(values) < period:
        return out
    now = sum(values[:period], Decimal(0)) / period
    out[period - 1] = now
    for i in range(period, len(values)):
        now += (values[i] - now) / period
        out[i] = now
    return out


def true_range(s: Samples, relative: float) -> Values:
    values: Values = [None, *ranges(s)]
    return combine(lambda x, c: 10_000 * x / c, values, exactly(s.close)) if relative else values


def atr(s: Samples, period: int) -> Values:
    return [None, *wilder(ranges(s), period)]


def natr(s: Samples, period: int) -> Values:
    return combine(lambda x, c: 100 * x / c, atr(s, period), exactly(s.close))


def keltner(s: Samples, period: int, multiplier: float, atr_period: int, rule: Callable[..., Decimal]) -> Values:
    half = combine(lambda x: Decimal(multiplier) * x, atr(s, atr_period))
    return combine(rule, exactly(s.close), ema(s, period), half)


def keltner_middle(s: Samples, period: int, multiplier: float, atr_period: int) -> Values:
    return keltner(s, period, multiplier, atr_period, lambda c, m, h: m)


def keltner_upper(s: Samples, period: int, multiplier: float, atr_period: int) -> Values:
    return keltner(s, period, multiplier, atr_period, lambda c, m, h: m + h)


def keltner_lower(s: Samples, period: int, multiplier: float, atr_period: int) -> Values:
    return keltner(s, period, multiplier, atr_period, lambda c, m, h: m - h)


def keltner_position(s: Samples, period: int, multiplier: float, atr_period: int) -> Values:
    return keltner(s, period, multiplier, atr_period, lambda c, m, h: share(c - m, h, 0))


def highest(s: Samples, period: int) -> Values:
    return extreme(s.close, period, max)


def lowest(s: Samples, period: int) -> Values:
    return extreme(s.close, period, min)


def donchian_upper(s: Samples, period: int) -> Values:
    return extreme(s.high, period, max)


def donchian_lower(s: Samples, period: int) -> Values:
    return extreme(s.low, period, min)


def donchian(s: Samples, period: int, rule: Callable[..., Decimal]) -> Values:
    return combine(rule, exactly(s.close), donchian_upper(s, period), donchian_lower(s, period))


def donchian_middle(s: Samples, period: int) -> Values:
    return donchian(s, period, lambda c, h, w: (h + w) / 2)


def donchian_width(s: Samples, period: int) -> Values:
    return donchian(s, period, lambda c, h, w: 20_000 * (h - w) / (h + w))


def donchian_position(s: Samples, period: int) -> Values:
    return donchian(s, period, lambda c, h, w: share(c - w, h - w, "0.5"))


def williams_r(s: Samples, period: int) -> Values:
    return donchian(s, period, lambda c, h, w: -100 * share(h - c, h - w, "0.5"))


# --- oscillators ---


def stochastic_lines(s: Samples, period: int, smooth_k: int, smooth_d: int) -> tuple[Values, Values]:
    raw = [x for x in donchian(s, period, lambda c, h, w: 100 * share(c - w, h - w, "0.5")) if x is not None]
    k = [x for x in mean(raw, smooth_k) if x is not None]
    d = mean(k, smooth_d)
    gap: Values = [None] * (len(s.close) - len(k))
    return gap + list(k), gap + d


def stochastic_k(s: Samples, period: int, smooth_k: int, smooth_d: int) -> Values:
    return ready_from(stochastic_lines(s, period, smooth_k, smooth_d)[0], period + smooth_k + smooth_d - 3)


def stochastic_d(s: Samples, period: int, smooth_k: int, smooth_d: int) -> Values:
    return stochastic_lines(s, period, smooth_k, smooth_d)[1]


def deviations_of(s: Samples, period: int) -> Iterator[tuple[Decimal, Decimal] | None]:
    prices = exactly(typical(s))
    for i, middle in enumerate(mean(prices, period)):
        if middle is None:
            yield None
        else:
            yield prices[i] - middle, sum(abs(x - middle) for x in prices[i + 1 - period : i + 1]) / Decimal(period)


def cci(s: Samples, period: int) -> Values:
    # In exact numbers a flat window has no deviation at all, up to the 100th digit of the mean.
    tiny = Decimal("1e-60")
    rows = deviations_of(s, period)
    return [
        None
        if row is None
        else (row[0] / (Decimal(15) / 1000 * row[1]) if row[1] > tiny * Decimal(float(c)) else Decimal(0))
        for row, c in zip(rows, s.close, strict=True)
    ]


def mean_absolute_deviation(s: Samples, period: int, relative: float) -> Values:
    found = [None if row is None else row[1] for row in deviations_of(s, period)]
    return combine(lambda x, c: 10_000 * x / c, found, exactly(s.close)) if relative else found


# --- trend ---


def directional(s: Samples, period: int) -> tuple[Values, Values, Values]:
    """Wilder's smoothed moves up, moves down and ranges, per move (from the second sample on)."""
    high, low = exactly(s.high), exactly(s.low)
    ups, downs = [], []
    for i in range(1, len(high)):
        up, down = high[i] - high[i - 1], low[i - 1] - low[i]
        ups.append(up if up > down and up > 0 else Decimal(0))
        downs.append(down if down > up and down > 0 else Decimal(0))

    def smooth(values: list[Decimal]) -> Values:
        out: Values = [None] * len(values)
        now = sum(values[: period - 1], Decimal(0))
        for i in range(period - 1, len(values)):
            now += values[i] - now / period
            out[i] = now
        return out

    return smooth(ups), smooth(downs), smooth(ranges(s))


def plus_di(s: Samples, period: int) -> Values:
    up, _, span = directional(s, period)
    return [None, *combine(lambda x, r: 100 * share(x, r, 0), up, span)]


def minus_di(s: Samples, period: int) -> Values:
    _, down, span = directional(s, period)
    return [None, *combine(lambda x, r: 100 * share(x, r, 0), down, span)]


def adx(s: Samples, period: int) -> Values:
    up, down, _ = directional(s, period)
    index = [None if a is None else (abs(a - b), a + b) for a, b in zip(up, down, strict=True)]  # type: ignore[operator]
    known = [x for x in index if x is not None]
    out: Values = [None] * len(s.close)
    if len(known) < period:
        return out
    now = sum((100 * share(a, b, 0) for a, b in known[:period]), Decimal(0)) / period
    at = len(out) - len(known) + period - 1
    out[at] = now
    for i, (a, b) in enumerate(known[period:]):
        now += (100 * a / b - now) / period if b != 0 else 0
        out[at + 1 + i] = now
    return out


def aroon_line(values: Any, period: int, pick: Callable[..., Any]) -> Values:
    out: Values = [None] * len(values)
    for i in range(period, len(values)):
        window = [float(x) for x in values[i - period : i + 1]]
        best = pick(window)
        age = window[::-1].index(best)
        out[i] = Decimal(100 * (period - age)) / period
    return out


def aroon_up(s: Samples, period: int) -> Values:
    return aroon_line(s.high, period, max)


def aroon_down(s: Samples, period: int) -> Values:
    return aroon_line(s.low, period, min)


def aroon_oscillator(s: Samples, period: int) -> Values:
    return combine(lambda a, b: a - b, aroon_up(s, period), aroon_down(s, period))


# --- volume ---


def signs(prices: Any, noise: float = 0.0) -> list[int]:
    moves = [float(b) - float(a) for a, b in pairwise(prices)]
    return [
        (move > noise * price) - (move < -noise * price) for move, price in zip(moves, prices[1:].tolist(), strict=True)
    ]


def obv(s: Samples) -> Values:
    volume = exactly(s.volume)
    return list(accumulate(v * sign for v, sign in zip(volume, [1, *signs(s.close)], strict=True)))


def obv_ratio(s: Samples, period: int) -> Values:
    volume = exactly(s.volume)[1:]
    flow = sums([v * sign for v, sign in zip(volume, signs(s.close), strict=True)], period)
    return [None, *combine(lambda a, b: share(a, b, 0), flow, sums(volume, period))]


def mfi(s: Samples, period: int) -> Values:
    prices = typical(s)
    money = [p * v for p, v in zip(exactly(prices), exactly(s.volume), strict=True)][1:]
    sign = signs(prices, 1e-15)
    rising = sums([m if x > 0 else Decimal(0) for m, x in zip(money, sign, strict=True)], period)
    falling = sums([m if x < 0 else Decimal(0) for m, x in zip(money, sign, strict=True)], period)
    return [None, *combine(lambda a, b: 100 * share(a, a + b, "0.5"), rising, falling)]


def average_price(s: Samples, included: Callable[[int], list[int]]) -> Values:
    volume, notional, close = exactly(s.volume), exactly(s.notional), exactly(s.close)
    out: Values = []
    for i in range(len(close)):
        rows = included(i)
        traded = sum((volume[k] for k in rows), Decimal(0))
        out.append(sum((notional[k] for k in rows), Decimal(0)) / traded if traded > 0 else close[i])
    return out


def vwap(s: Samples, session: float) -> Values:
    time = [int(t) for t in s.time]
    index = [(t - 1) // int(session) if session else 0 for t in time]
    return average_price(s, lambda i: [k for k in range(i + 1) if index[k] == index[i]])


def over_close(s: Samples, values: Values) -> Values:
    return combine(lambda x, c: 10_000 * (c - x) / x, values, exactly(s.close))


def vwap_deviation(s: Samples, session: float) -> Values:
    return over_close(s, vwap(s, session))


def rolling_vwap(s: Samples, window: float, capacity: float) -> Values:
    time = [int(t) for t in s.time]
    if window < 0:
        return ready_from(average_price(s, lambda i: list(range(max(0, i + 1 + int(window)), i + 1))), int(-window) - 1)
    found = average_price(s, lambda i: [k for k in range(i + 1) if time[i] - time[k] < window])
    return [x if t - time[0] >= window else None for x, t in zip(found, time, strict=True)]


def rolling_vwap_deviation(s: Samples, window: float, capacity: float) -> Values:
    return over_close(s, rolling_vwap(s, window, capacity))


# fmt: off
NAMES = [
    "sma", "ema", "wma", "dema", "tema", "kama", "momentum", "rate_of_change", "macd", "macd_signal",
    "macd_histogram", "bollinger_middle", "bollinger_upper", "bollinger_lower", "bollinger_percent",
    "bollinger_bandwidth", "true_range", "atr", "natr", "keltner_middle", "keltner_upper", "keltner_lower",
    "keltner_position", "highest", "lowest", "donchian_upper", "donchian_lower", "donchian_middle",
    "donchian_width", "donchian_position", "williams_r", "stochastic_k", "stochastic_d", "cci",
    "mean_absolute_deviation", "adx", "plus_di", "minus_di", "aroon_up", "aroon_down", "aroon_oscillator", "obv",
    "obv_ratio", "mfi", "vwap", "vwap_deviation", "rolling_vwap", "rolling_vwap_deviation",
]
# fmt: on


def exact(name: str, params: dict[str, float], samples: Samples) -> Values:
    """The indicator of this name of the feature table; None before it is ready."""
    whole = {k: int(v) if v == int(v) else v for k, v in params.items()}
    with decimal.localcontext(CONTEXT):
        return globals()[name](samples, *whole.values())  # type: ignore[no-any-return]


def error(got: Float, want: Values, floor: float = 0.0) -> float:
    """Worst of |got - want| over the larger of |want| and `floor`, where there is something to compare."""
    worst = 0.0
    with decimal.localcontext(CONTEXT):
        least = Decimal(floor)
        for x, exact_value in zip(got, want, strict=True):
            if exact_value is None:
                continue
            off = abs(Decimal(float(x)) - exact_value)
            if off != 0:
                scale = max(abs(exact_value), least)
                worst = max(worst, float(off / scale) if scale > 0 else float("inf"))
    return worst
