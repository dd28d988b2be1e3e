"""Feature engine: nanoseconds per event for every feature, for plans of twelve and of forty, and beside its rivals.

One row is made at each quote, as live: the loop over arrays calls the same C functions. The floor row is a plan of one
column that needs no state (spread), so it holds the loop, the merge and the checks.

Rivals on bars: NautilusTrader's Cython indicators and talipp fed bar by bar from Python, TA-Lib's stream functions
(which recompute a window of 100), and as a scale TA-Lib and pandas over whole arrays, which cannot run bar by bar. Ours
stands there twice: through the C loop, and bar by bar from Python like them.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the sample is Parquet")

from _features import BARS, FORTY, TWELVE, bars, depth, external, quotes, trades, written
from _measure import interleaved, record

from tengri_fast.features import FEATURES, FeaturePlan, parse_spec
from tengri_fast.market import QuoteColumns

ROUNDS: dict[str, dict[str, np.ndarray]] = {}


def pass_over(plan: FeaturePlan, with_depth: bool = False) -> tuple[Callable[[], None], int]:
    """One pass of a plan over the sample, rows at the quotes, and how many events that is."""
    streams: dict[str, Any] = {"legs": dict.fromkeys(plan.legs, quotes()[::4]),
                               "external": dict.fromkeys(plan.sources, external())}  # fmt: skip
    book = depth() if with_depth else None
    events = len(quotes()) + len(trades()) + (len(book) if book is not None else 0)
    events += sum(map(len, streams["legs"].values())) + sum(map(len, streams["external"].values()))
    state = plan.state()

    def run() -> None:
        state.reset()
        plan.compute(quotes(), trades(), book, state=state, **streams)

    return run, events


def timed(run: Callable[[], None], count: int) -> np.ndarray:
    run()
    return np.array(timeit.repeat(run, number=1, repeat=count)) * 1e9


@pytest.mark.parametrize("name", [*FEATURES, "order_flow_imbalance(window='1s', levels=5)"])
@pytest.mark.benchmark(group="features: one column, ns per event (loop included)")
def test_one_feature(benchmark: Any, name: str) -> None:
    plan = FeaturePlan([written(name) if name in FEATURES else name])
    run, events = pass_over(plan, "depth" in plan.specs[0].info.needs)
    times = timed(run, 5)
    benchmark.pedantic(run, rounds=2)
    record(benchmark, times, calls=events, events=events, state_bytes=plan.nbytes)


@pytest.mark.parametrize("way", ["floor", "twelve", "forty", "forty, quote by quote from Python"])
@pytest.mark.benchmark(group="features: plans, ns per event")
def test_plans(benchmark: Any, way: str) -> None:
    plan = FeaturePlan({"floor": ["spread"], "twelve": list(TWELVE)}.get(way, list(FORTY)))
    if not way.endswith("Python"):
        run, events = pass_over(plan)
        times = timed(run, 15)
        benchmark.pedantic(run, rounds=3)
        record(benchmark, times, calls=events, columns=plan.width, state_bytes=plan.nbytes)
        return
    q = quotes()
    rows = list(zip(q.bid_price.tolist(), q.ask_price.tolist(), q.bid_size.tolist(), q.ask_size.tolist(),
                    q.ts_event.tolist(), strict=True))  # fmt: skip
    state, out = plan.state(), np.empty(plan.width, np.float32)
    update, emit = state.update_quote, state.emit

    def run() -> None:
        state.reset()
        for bid, ask, bid_size, ask_size, ts in rows:
            update(bid, ask, bid_size, ask_size, ts)
            emit(out)

    times = timed(run, 7)
    benchmark.pedantic(run, rounds=3)
    record(benchmark, times, calls=len(rows), columns=plan.width, state_bytes=plan.nbytes)


@pytest.mark.benchmark(group="features: research, one million quotes x 40 columns, one core, ns per quote")
def test_research(benchmark: Any) -> None:
    q, copies = quotes(), 1_000_000 // len(quotes()) + 1
    span = int(q.ts_init[-1] - q.ts_init[0]) + 10**9
    shift = np.repeat(np.arange(copies, dtype=np.uint64) * np.uint64(span), len(q))
    ts = (np.tile(q.ts_init, copies) + shift)[:1_000_000]
    fields = (
        np.tile(getattr(q, name), copies)[:1_000_000] for name in ("bid_price", "ask_price", "bid_size", "ask_size")
    )
    many = QuoteColumns(ts, ts, *fields)
    plan = FeaturePlan(list(FORTY))

    def run() -> None:
        plan.compute(many)

    times = timed(run, 3)
    benchmark.pedantic(run, rounds=1)
    record(benchmark, times, calls=len(many), columns=plan.width, seconds=round(float(times.min()) / 1e9, 3))


# ---------------------------------------------------------------- rivals, on bars


def nautilus_indicators() -> Callable[[], None]:
    pytest.importorskip("nautilus_trader")
    from nautilus_trader import indicators as ni

    b = bars()
    rows = list(zip(b.high.tolist(), b.low.tolist(), b.close.tolist(), strict=True))

    def run() -> None:
        closes = [
            ni.SimpleMovingAverage(20),
            ni.ExponentialMovingAverage(12),
            ni.WeightedMovingAverage(20),
            ni.RelativeStrengthIndex(14),
            ni.MovingAverageConvergenceDivergence(12, 26),
            ni.RateOfChange(10),
        ]
        wide = [
            ni.BollingerBands(20, 2.0),
            ni.Stochastics(14, 3),
            ni.CommodityChannelIndex(20),
            ni.AverageTrueRange(14),
            ni.KeltnerChannel(20, 2.0),
        ]
        of_close = [indicator.update_raw for indicator in closes]
        of_three = [indicator.update_raw for indicator in wide]
        of_two = ni.DonchianChannel(20).update_raw
        for high, low, close in rows:
            for update in of_close:
                update(close)
            for update in of_three:
                update(high, low, close)
            of_two(high, low)

    return run


def talipp_indicators() -> Callable[[], None]:
    ti = pytest.importorskip("talipp.indicators", reason="pip install '.[rivals]'")
    from talipp.ohlcv import OHLCV

    b = bars()
    rows = list(zip(b.open.tolist(), b.high.tolist(), b.low.tolist(), b.close.tolist(), b.volume.tolist(), strict=True))

    def run() -> None:
        of_close = [ti.SMA(20), ti.EMA(12), ti.WMA(20), ti.RSI(14), ti.MACD(12, 26, 9), ti.BB(20, 2), ti.ROC(10)]
        of_bar = [ti.ATR(14), ti.Stoch(14, 3), ti.CCI(20), ti.DonchianChannels(20), ti.KeltnerChannels(20, 10, 2, 2)]
        for opened, high, low, close, volume in rows:
            for indicator in of_close:
                indicator.add(close)
            bar = OHLCV(opened, high, low, close, volume)
            for indicator in of_bar:
                indicator.add(bar)

    return run


def talib_stream(window: int = 100) -> Callable[[], None]:
    talib = pytest.importorskip("talib")
    from talib import stream

    b, count = bars(), 2000
    assert talib.__version__

    def run() -> None:
        for i in range(window, window + count):
            high, low, close = (x[i - window : i] for x in (b.high, b.low, b.close))
            stream.SMA(close, 20)
            stream.EMA(close, 12)
            stream.WMA(close, 20)
            stream.RSI(close, 14)
            stream.MACD(close, 12, 26, 9)
            stream.BBANDS(close, 20)
            stream.ROC(close, 10)
            stream.ATR(high, low, close, 14)
            stream.STOCH(high, low, close, 14, 3, 0, 3, 0)
            stream.CCI(high, low, close, 20)
            stream.MAX(high, 20)
            stream.MIN(low, 20)
            stream.EMA(close, 20)

    run.calls = count  # type: ignore[attr-defined]
    return run


def talib_arrays() -> Callable[[], None]:
    talib = pytest.importorskip("talib")
    b = bars()

    def run() -> None:
        talib.SMA(b.close, 20)
        talib.EMA(b.close, 12)
        talib.WMA(b.close, 20)
        talib.RSI(b.close, 14)
        talib.MACD(b.close, 12, 26, 9)
        talib.BBANDS(b.close, 20)
        talib.ROC(b.close, 10)
        talib.ATR(b.high, b.low, b.close, 14)
        talib.STOCH(b.high, b.low, b.close, 14, 3, 0, 3, 0)
        talib.CCI(b.high, b.low, b.close, 20)
        talib.MAX(b.high, 20)
        talib.MIN(b.low, 20)
        talib.EMA(b.close, 20)

    return run


def pandas_arrays() -> Callable[[], None]:
    pd = pytest.importorskip("pandas")
    b = bars()
    frame = pd.DataFrame({"h": b.high, "l": b.low, "c": b.close})

    def run() -> None:
        close, high, low = frame["c"], frame["h"], frame["l"]
        mean, deviation = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
        _ = mean + 2 * deviation, mean - 2 * deviation
        fast, slow = close.ewm(span=12, adjust=False).mean(), close.ewm(span=26, adjust=False).mean()
        (fast - slow).ewm(span=9, adjust=False).mean()
        weights = np.arange(1, 21) / 210
        close.rolling(20).apply(lambda x: x @ weights, raw=True)
        change = close.diff()
        up = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
        down = -change.clip(upper=0).ewm(alpha=1 / 14, adjust=False).mean()
        _ = 100 * up / (up + down)
        close.pct_change(10)
        before = close.shift()
        spans = np.maximum(high - low, np.maximum((high - before).abs(), (low - before).abs()))
        spans.ewm(alpha=1 / 14, adjust=False).mean()
        top, bottom = high.rolling(14).max(), low.rolling(14).min()
        (100 * (close - bottom) / (top - bottom)).rolling(3).mean()
        typical = (high + low + close) / 3
        around = typical.rolling(20).mean()
        _ = (typical - around) / (0.015 * typical.rolling(20).apply(lambda x: np.abs(x - x.mean()).mean(), raw=True))
        _ = high.rolling(20).max(), low.rolling(20).min()

    return run


def ours_in_c() -> Callable[[], None]:
    plan, b = FeaturePlan([f"{text} @ bars" for text in BARS]), bars()
    state = plan.state()

    def run() -> None:
        state.reset()
        plan.compute(bars=b, clock="bar", state=state)

    return run


def ours_from_python() -> Callable[[], None]:
    plan, b = FeaturePlan([f"{text} @ bars" for text in BARS]), bars()
    rows = list(zip(b.open.tolist(), b.high.tolist(), b.low.tolist(), b.close.tolist(), b.volume.tolist(),
                    b.ts_event.tolist(), strict=True))  # fmt: skip
    state, out = plan.state(), np.empty(plan.width, np.float32)
    update, emit = state.update_bar, state.emit

    def run() -> None:
        state.reset()
        for opened, high, low, close, volume, ts in rows:
            update(opened, high, low, close, volume, ts)
            emit(out)

    return run


WAYS: dict[str, Callable[[], Callable[[], None]]] = {
    "ours, C loop": ours_in_c,
    "ours, bar by bar from Python": ours_from_python,
    "NautilusTrader indicators": nautilus_indicators,
    "talipp": talipp_indicators,
    "TA-Lib stream, window of 100": talib_stream,
    "TA-Lib, whole arrays": talib_arrays,
    "pandas, whole arrays": pandas_arrays,
}


def same_indicators() -> dict[str, np.ndarray]:
    """ns per bar of each way that is installed, in rounds that alternate."""
    if "bars" not in ROUNDS:
        measures: dict[str, Callable[[], float]] = {}
        for name, make in WAYS.items():
            try:
                run = make()
            except pytest.skip.Exception:
                continue
            calls = getattr(run, "calls", len(bars()))
            timer = timeit.Timer(run)
            measures[name] = lambda timer=timer, calls=calls: 1e9 * timer.timeit(1) / calls
        ROUNDS["bars"] = interleaved(measures, 7)
    return ROUNDS["bars"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.benchmark(group="features: the same twelve indicators, ns per bar")
def test_same_indicators(benchmark: Any, way: str) -> None:
    found = same_indicators()
    if way not in found:
        pytest.skip(f"{way} is not installed")
    benchmark.pedantic(WAYS[way](), rounds=1)
    mine = way.startswith("ours")
    against = {name: float(times.min()) for name, times in found.items() if mine and not name.startswith("ours")}
    baseline = float(np.median(found["NautilusTrader indicators"])) if "NautilusTrader indicators" in found else None
    record(benchmark, found[way], baseline_ns=baseline, against=against or None, columns=len(BARS))


@pytest.mark.parametrize("way", ["numpy", "ours"])
@pytest.mark.benchmark(group="features: spread, imbalance, microprice of an array, ns per quote")
def test_stateless_columns(benchmark: Any, way: str) -> None:
    q = quotes()
    plan = FeaturePlan(["spread", "imbalance", "microprice_deviation"])

    def numpy_columns() -> np.ndarray:
        bid, ask, bs, sa = q.bid_price, q.ask_price, q.bid_size, q.ask_size
        mid, share = 0.5 * (bid + ask), (bs - sa) / (bs + sa)
        return np.column_stack([1e4 * (ask - bid) / mid, share, 1e4 * 0.5 * (ask - bid) * share / mid])

    def ours() -> np.ndarray:
        return plan.compute(q).values

    assert np.allclose(numpy_columns(), ours(), rtol=1e-12)
    functions: dict[str, Callable[[], np.ndarray]] = {"numpy": numpy_columns, "ours": ours}
    if "stateless" not in ROUNDS:
        timers = {name: timeit.Timer(function) for name, function in functions.items()}
        ROUNDS["stateless"] = interleaved({k: lambda t=t: 1e9 * t.timeit(1) for k, t in timers.items()}, 50)
    rival = ROUNDS["stateless"]["numpy"]
    benchmark.pedantic(functions[way], rounds=20)
    record(
        benchmark,
        ROUNDS["stateless"][way],
        calls=len(q),
        baseline_ns=float(np.median(rival)) / len(q),
        against={"numpy": float(rival.min()) / len(q)} if way == "ours" else None,
        quotes=len(q),
    )


def test_the_plans_are_what_they_say() -> None:
    assert FeaturePlan(list(FORTY)).compute(quotes(), trades()).ready[-1]  # all forty columns are at work
    assert len(FORTY) == 40
    for plan in (TWELVE, FORTY, BARS):
        assert len({parse_spec(text).canonical for text in plan}) == len(plan)
