"""Technical indicators against TA-Lib and NautilusTrader on real data: what is compared with what, and how.

Run as a program it prints docs/features_parity.md: `python tests/technical_parity.py > docs/features_parity.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from technical_twin import Samples, Values, error, exact

from tengri_fast.features import FeaturePlan, parse_spec
from tengri_fast.market.columns import BarColumns, QuoteColumns

Float = npt.NDArray[np.float64]

START, MINUTE = 1_700_000_000 * 10**9, 60 * 10**9
BAR_SETS = {
    "SPY daily": ("daily", "spy_daily.parquet"),
    "BTC-PERP 1 min": ("stress", "ftx_btcperp_1min_202201.parquet"),
    "SPY 1 min, 2008": ("stress", "spy_1min_2008-08_2008-12.parquet"),
}
QUOTE_SETS = {
    "BTCUSDT quotes": ("tick", "binance", "binance_usdm_btcusdt_20240719.quotes.parquet"),
    "EURUSD quotes": ("tick", "fx", "fxcm_eurusd_20140505.quotes.parquet"),
}


class Case(NamedTuple):
    spec: str
    talib: Callable[[Any, Samples], Any]
    moves: bool = False  # a difference of prices: zero has no relative error, and TA-Lib rounds prices
    flat: int = 0  # samples that one without any range disturbs: the rule differs there
    volume: bool = False


CASES = [
    Case("sma(20)", lambda t, s: t.SMA(s.close, 20)),
    Case("ema(20)", lambda t, s: t.EMA(s.close, 20)),
    Case("wma(20)", lambda t, s: t.WMA(s.close, 20)),
    Case("dema(20)", lambda t, s: t.DEMA(s.close, 20), True),
    Case("tema(20)", lambda t, s: t.TEMA(s.close, 20), True),
    Case("kama(10)", lambda t, s: t.KAMA(s.close, 10)),
    Case("momentum(10)", lambda t, s: t.MOM(s.close, 10), True),
    Case("rate_of_change(10)", lambda t, s: t.ROC(s.close, 10), True),
    Case("macd(12,26,9,relative=0)", lambda t, s: t.MACD(s.close, 12, 26, 9)[0], True),
    Case("macd_signal(12,26,9,relative=0)", lambda t, s: t.MACD(s.close, 12, 26, 9)[1], True),
    Case("macd_histogram(12,26,9,relative=0)", lambda t, s: t.MACD(s.close, 12, 26, 9)[2], True),
    Case("bollinger_upper(20)", lambda t, s: t.BBANDS(s.close, 20, 2, 2)[0]),
    Case("bollinger_middle(20)", lambda t, s: t.BBANDS(s.close, 20, 2, 2)[1]),
    Case("bollinger_lower(20)", lambda t, s: t.BBANDS(s.close, 20, 2, 2)[2]),
    Case("bollinger_bandwidth(20,1)", lambda t, s: 2e4 * t.STDDEV(s.close, 20, 1) / t.SMA(s.close, 20)),
    Case("true_range(relative=0)", lambda t, s: t.TRANGE(s.high, s.low, s.close), True),
    Case("atr(14)", lambda t, s: t.ATR(s.high, s.low, s.close, 14)),
    Case("natr(14)", lambda t, s: t.NATR(s.high, s.low, s.close, 14)),
    Case("highest(20)", lambda t, s: t.MAX(s.close, 20)),
    Case("lowest(20)", lambda t, s: t.MIN(s.close, 20)),
    Case("donchian_upper(20)", lambda t, s: t.MAX(s.high, 20)),
    Case("donchian_lower(20)", lambda t, s: t.MIN(s.low, 20)),
    Case("donchian_middle(20)", lambda t, s: t.MIDPRICE(s.high, s.low, 20)),
    Case("williams_r(14)", lambda t, s: t.WILLR(s.high, s.low, s.close, 14), True, 14),
    Case("stochastic_k(14,3,3)", lambda t, s: t.STOCH(s.high, s.low, s.close, 14, 3, 0, 3, 0)[0], True, 18),
    Case("stochastic_d(14,3,3)", lambda t, s: t.STOCH(s.high, s.low, s.close, 14, 3, 0, 3, 0)[1], True, 18),
    Case("cci(20)", lambda t, s: t.CCI(s.high, s.low, s.close, 20), True),
    Case("cci(100)", lambda t, s: t.CCI(s.high, s.low, s.close, 100), True),
    Case("adx(14)", lambda t, s: t.ADX(s.high, s.low, s.close, 14)),
    Case("plus_di(14)", lambda t, s: t.PLUS_DI(s.high, s.low, s.close, 14)),
    Case("minus_di(14)", lambda t, s: t.MINUS_DI(s.high, s.low, s.close, 14)),
    Case("aroon_up(14)", lambda t, s: t.AROON(s.high, s.low, 14)[1]),
    Case("aroon_down(14)", lambda t, s: t.AROON(s.high, s.low, 14)[0]),
    Case("aroon_oscillator(14)", lambda t, s: t.AROONOSC(s.high, s.low, 14)),
    Case("obv", lambda t, s: t.OBV(s.close, s.volume), False, 0, True),
    Case("mfi(14)", lambda t, s: t.MFI(s.high, s.low, s.close, s.volume, 14), True, 0, True),
]


def read_bars(path: Path) -> Samples:
    """Bars of a parquet file; those that the engine refuses (a high below the low, no price) are left out."""
    import pandas as pd

    frame = pd.read_parquet(path)
    columns = [frame[name].to_numpy(np.float64) for name in ("open", "high", "low", "close", "volume")]
    good = np.isfinite(np.sum(columns, axis=0)) & (columns[1] >= columns[2]) & (columns[2] > 0)
    columns = [column[good] for column in columns]
    time = np.uint64(10**18) + np.arange(len(columns[0]), dtype=np.uint64) * np.uint64(60 * 10**9)
    return Samples.of_bars(*columns, time)


def read_mids(path: Path) -> Samples:
    """Mids of quotes that the engine accepts: not crossed, in order of time."""
    import pandas as pd

    frame = pd.read_parquet(path)
    names = ("bid", "ask") if "bid" in frame else ("bid_price_0", "ask_price_0")
    if names[0] not in frame:
        names = ("bid_price", "ask_price")
    bid, ask = (frame[name].to_numpy(np.float64) for name in names)
    good = np.isfinite(bid + ask) & (bid > 0) & (ask >= bid)
    mid = 0.5 * (bid[good] + ask[good])
    return Samples.of_mids(mid, np.uint64(10**18) + np.arange(len(mid), dtype=np.uint64) * np.uint64(10**6))


def compute(specs: list[str], s: Samples, on_bars: bool) -> tuple[Float, npt.NDArray[np.bool_]]:
    """Values and, per column, whether it was ready, found from its lookback."""
    plan = FeaturePlan([f"{spec} @ bars" for spec in specs] if on_bars else specs)
    if on_bars:
        values = plan.compute(bars=columns(s), clock="bar").values
    else:
        size = np.ones(len(s.close))
        values = plan.compute(QuoteColumns(s.time, s.time, s.close, s.close, size, size)).values
    first = np.array([spec.lookback.events - 1 for spec in plan.specs])
    return values, np.arange(len(values))[:, None] >= first[None, :]


# --- made series ---

KINDS = ["flat", "65,000 +- 0.01", "walk", "gaps", "outliers", "1e-12", "1e12"]


def hostile(kind: str, count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    tick = rng.choice([-1, 0, 1], count)
    if kind == "flat":
        return np.full(count, 65_000.1)
    if kind == "65,000 +- 0.01":
        return np.round(65_000 + 0.01 * tick, 2)
    if kind == "walk":
        return np.round(65_000 + 0.01 * np.cumsum(tick), 2)
    if kind == "gaps":
        return np.round(np.where(np.arange(count) // 170 % 2 == 0, 65_000.0, 130_000.0) + 0.01 * tick, 2)
    if kind == "outliers":
        return np.where(rng.random(count) < 0.01, 1e12, 1.0) * (1 + 1e-9 * tick)
    if kind == "1e-12":
        return 1e-12 * (1 + 1e-4 * np.cumsum(tick) / 50)
    return 1e12 + 0.01 * np.cumsum(tick)


def bars_of(close: np.ndarray, wick: np.ndarray, volume: np.ndarray, step: int = MINUTE) -> Samples:
    """Bars that open where the one before closed."""
    opened = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(opened, close) * (1 + wick), np.minimum(opened, close) * (1 - wick)
    time = np.uint64(START) + np.arange(len(close), dtype=np.uint64) * np.uint64(step)
    return Samples.of_bars(opened, high, low, close, volume, time)


def columns(s: Samples) -> BarColumns:
    return BarColumns(s.time, s.time, s.open, s.high, s.low, s.close, s.volume)


def disturbed(s: Samples, period: int, samples: int) -> npt.NDArray[np.bool_]:
    """Where one of the latest windows had no range at all."""
    window = np.lib.stride_tricks.sliding_window_view
    flat = window(s.high, period).max(axis=1) == window(s.low, period).min(axis=1)
    out = np.zeros(len(s.close), dtype=bool)
    for later in range(samples - period + 1):
        out[period - 1 + later :] |= flat[: len(flat) - later]
    return out


def relative(a: Float, b: Float, floor: float) -> float:
    """Worst |a - b| over the larger of |b| and the floor."""
    scale = np.maximum(np.abs(b), floor)
    apart = np.abs(a - b)
    return float(np.max(np.divide(apart, scale, out=np.where(apart > 0, np.inf, 0.0), where=scale > 0), initial=0.0))


class Finding(NamedTuple):
    """Worst relative errors of one indicator on one set. Next to zero the floor takes the place of the value."""

    spec: str
    ours: float  # against exact decimals
    theirs: float  # TA-Lib's, against exact decimals
    between: float  # ours against TA-Lib's
    same_lookback: bool
    compared: int


def floor_of(moves: bool, want: Values) -> float:
    """What crosses zero is measured by a thousandth of its own median size on the set, zeros apart."""
    known = [abs(float(x)) for x in want if x is not None and x != 0]
    return float(np.median(known)) * 1e-3 if moves and known else 0.0


def compare(case: Case, got: Float, ready: npt.NDArray[np.bool_], s: Samples, talib: Any) -> Finding:
    theirs = np.asarray(case.talib(talib, s), dtype=np.float64)
    spec = parse_spec(case.spec)
    want = exact(spec.name, spec.params, s)
    floor = floor_of(case.moves, want)
    lookback = spec.lookback.events - 1
    same = bool(np.isnan(theirs[:lookback]).all() and np.isfinite(theirs[lookback:]).all())
    keep = ready & np.isfinite(theirs)
    if case.flat:
        keep &= ~disturbed(s, 14, case.flat)
    ours = error(got[ready], [x for x, r in zip(want, ready, strict=True) if r], floor)
    off = error(theirs[keep], [x for x, k in zip(want, keep, strict=True) if k], floor)
    between = relative(got[keep], theirs[keep], floor)
    return Finding(case.spec, ours, off, between, same, int(keep.sum()))


def findings(s: Samples, on_bars: bool, talib: Any) -> list[Finding]:
    cases = [case for case in CASES if on_bars or not case.volume]
    values, ready = compute([case.spec for case in cases], s, on_bars)
    return [compare(case, values[:, i], ready[:, i], s, talib) for i, case in enumerate(cases)]


# --- NautilusTrader: where its definition is the same ---


class Rival(NamedTuple):
    spec: str
    make: Callable[[Any], Any]
    feed: Callable[[Any, Samples, int], None]
    read: Callable[[Any], float]
    scale: float = 1.0
    forget: int = 0  # samples until a seed that differs has decayed below 1e-16
    why: str = "same definition"
    moves: bool = False


def _close(indicator: Any, s: Samples, i: int) -> None:
    indicator.update_raw(s.close[i])


def _range(indicator: Any, s: Samples, i: int) -> None:
    indicator.update_raw(s.high[i], s.low[i], s.close[i])


def _high_low(indicator: Any, s: Samples, i: int) -> None:
    indicator.update_raw(s.high[i], s.low[i])


def _value(indicator: Any) -> float:
    return float(indicator.value)


SEED = "its seed is the first value, not a mean: compared once that has decayed"
RIVALS = [
    Rival("sma(20)", lambda n: n.SimpleMovingAverage(20), _close, _value),
    Rival("ema(20)", lambda n: n.ExponentialMovingAverage(20), _close, _value, 1.0, 400, SEED),
    Rival("wma(20)", lambda n: n.WeightedMovingAverage(20, np.arange(1.0, 21.0)), _close, _value),
    Rival("macd(12,26,9,relative=0)", lambda n: n.MovingAverageConvergenceDivergence(12, 26), _close, _value, 1.0, 600,
          SEED, True),
    Rival("rate_of_change(10)", lambda n: n.RateOfChange(11), _close, _value, 100.0, 0, "its period counts both ends",
          True),
    Rival("atr(14)", lambda n: n.AverageTrueRange(14, n.MovingAverageType.WILDER), _range, _value, 1.0, 700, SEED),
    Rival("donchian_upper(20)", lambda n: n.DonchianChannel(20), _high_low, lambda x: float(x.upper)),
    Rival("donchian_lower(20)", lambda n: n.DonchianChannel(20), _high_low, lambda x: float(x.lower)),
    Rival("donchian_middle(20)", lambda n: n.DonchianChannel(20), _high_low, lambda x: float(x.middle)),
    Rival("cci(20)", lambda n: n.CommodityChannelIndex(20, 0.015), _range, _value, 1.0, 0,
          "a flat window gives what rounding leaves of 0 / 0 (left out)", True),
    Rival("aroon_up(14)", lambda n: n.AroonOscillator(14), _high_low, lambda x: float(x.aroon_up)),
    Rival("aroon_down(14)", lambda n: n.AroonOscillator(14), _high_low, lambda x: float(x.aroon_down)),
    Rival("stochastic_k(14,1,1)", lambda n: n.Stochastics(14, 3), _range, lambda x: float(x.value_k), 1.0, 0,
          "its %K without smoothing; a flat window keeps its last value (left out)", True),
]  # fmt: skip
# The bands of NautilusTrader are of typical prices: the same only where a sample is one price.
MID_RIVALS = [
    Rival("bollinger_upper(20)", lambda n: n.BollingerBands(20, 2.0), _range, lambda x: float(x.upper), 1.0, 0,
          "of typical prices: mids only"),
    Rival("bollinger_lower(20)", lambda n: n.BollingerBands(20, 2.0), _range, lambda x: float(x.lower), 1.0, 0,
          "of typical prices: mids only"),
]  # fmt: skip


def against_nautilus(s: Samples, on_bars: bool, nautilus: Any) -> list[tuple[Rival, float, float, int]]:
    """Per rival: worst relative difference, its own worst error against exact decimals, samples compared."""
    rivals = RIVALS if on_bars else [*RIVALS, *MID_RIVALS]
    values, ready = compute([rival.spec for rival in rivals], s, on_bars)
    out = []
    for k, rival in enumerate(rivals):
        indicator = rival.make(nautilus)
        theirs = np.empty(len(s.close))
        for i in range(len(s.close)):
            rival.feed(indicator, s, i)
            theirs[i] = rival.scale * rival.read(indicator)
        keep = ready[:, k].copy()
        keep[: rival.forget] = False
        period = {"stochastic_k(14,1,1)": 14, "cci(20)": 20}.get(rival.spec)
        if period is not None:
            keep &= ~disturbed(s, period, period)
        got, their = values[keep, k], theirs[keep]
        spec = parse_spec(rival.spec)
        want = [x for x, r in zip(exact(spec.name, spec.params, s), keep, strict=True) if r]
        floor = floor_of(rival.moves, want)
        out.append((rival, relative(got, their, floor), error(their, want, floor), int(keep.sum())))
    return out


def main(root: Path, limit: int) -> None:
    import nautilus_trader.indicators as nautilus
    import talib

    sets = [(name, True, read_bars(root.joinpath(*parts))) for name, parts in BAR_SETS.items()]
    sets += [(name, False, read_mids(root.joinpath(*parts))) for name, parts in QUOTE_SETS.items()]
    print(HEAD.format(talib=talib.__version__, limit=limit))
    for name, on_bars, whole in sets:
        s = whole.head(limit)
        print(f"\n### {name}: {len(s.close):,} samples\n")
        print("| feature | engine, exact | TA-Lib, exact | engine, TA-Lib | same lookback |")
        print("|---|---|---|---|---|")
        for f in findings(s, on_bars, talib):
            same = "yes" if f.same_lookback else "no"
            print(f"| `{f.spec}` | {f.ours:.1e} | {f.theirs:.1e} | {f.between:.1e} | {same} |")
    print(HOSTILE_HEAD)
    print(f"| feature | {' | '.join(KINDS)} |")
    print(f"|---{'|---' * len(KINDS)}|")
    time = np.uint64(START) + np.arange(3_000, dtype=np.uint64) * np.uint64(10**6)
    table = [findings(Samples.of_mids(hostile(kind, 3_000), time), False, talib) for kind in KINDS]
    for row in zip(*table, strict=True):
        print(f"| `{row[0].spec}` | {' | '.join(f'{f.ours:.0e} ({f.theirs:.0e})' for f in row)} |")
    print(NAUTILUS_HEAD)
    for name, on_bars, whole in sets:
        s = whole.head(min(limit, 20_000))
        print(f"\n### {name}: {len(s.close):,} samples\n")
        print("| feature | NautilusTrader, exact | engine, NautilusTrader | note |")
        print("|---|---|---|---|")
        for rival, worst, off, _ in against_nautilus(s, on_bars, nautilus):
            print(f"| `{rival.spec}` | {off:.1e} | {worst:.1e} | {rival.why} |")


HEAD = """# Technical indicators: how equal is equal

Made by `python tests/technical_parity.py` from real sets and from definitions in decimals of 100 digits
(`tests/technical_twin.py`). TA-Lib {talib}; at most {limit:,} samples of a set.

A number is the worst relative error over a set. What crosses zero (differences of prices, CCI, rates, averages that
overshoot) is measured next to zero by a thousandth of its median size on the set (zeros apart), because zero has no
relative error.

- *engine, exact*: this engine against the definition. It is the number that the tests bound.
- *TA-Lib, exact*: TA-Lib against the same definition. Running sums drift, and differences of averages lose their digits
  where prices are large and moves small.
- *engine, TA-Lib*: the two against each other; not much more than the two before can add up to.

Rules that differ on purpose: a window without any range gives 50 to the stochastic and -50 to Williams %R (TA-Lib: 0),
and no money flow gives 50 (TA-Lib: less than 1 in all gives 0). Samples that such a window touches are left out of the
columns of TA-Lib.

## TA-Lib"""

HOSTILE_HEAD = """
## Hostile series

The engine's worst error against the definition and, in brackets, TA-Lib's, on 3,000 mids: one price; 65,000 with ticks
of 0.01 around it; a walk in such ticks; jumps between 65,000 and 130,000; prices of 1 with one in a hundred wrong by
twelve orders of magnitude; prices of 1e-12 and of 1e12. `inf` stands where a definition gives 0 and the library does
not.
"""

NAUTILUS_HEAD = """
## NautilusTrader

Its Cython indicators, where the definition is the same. RSI, Keltner and directional movement differ in definition
(exponential seeds, typical prices, no division by the range) and are not here."""


if __name__ == "__main__":
    from support import REPOSITORY

    found = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY.parent / "shared" / "data"
    main(found, int(sys.argv[2]) if len(sys.argv) > 2 else 20_000)
