"""Feature engine: nanoseconds per event for each feature and for a plan of twelve, row included, on the real sample.

One row is made at each quote, as live: the loop over arrays calls the same C functions. The floor row is a plan of one
column that needs no state (spread), so it holds the loop, the merge and the checks. The rival is the plainest
vectorised NumPy of what it can do (three stateless columns), for scale only: it cannot run tick by tick.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the sample is Parquet")

from _measure import interleaved, record

from tengri_fast.features import FEATURES, FeaturePlan
from tengri_fast.market import DepthColumns, QuoteColumns, TradeColumns, read_quotes, read_trades

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "binance_usdm_btcusdt" / "binance_usdm_btcusdt_20240719"
TWELVE = ("mid_return(lag=10)", "spread", "microprice_deviation", "imbalance", "order_flow_imbalance(window='1s')",
          "signed_trade_flow(window='1s')", "realized_volatility(window='10s')", "ema_difference(fast=12, slow=26)",
          "rsi(14)", "time_since_trade", "last_move_direction", "trade_intensity")  # fmt: skip
STATELESS: dict[str, np.ndarray] = {}


@pytest.fixture(scope="module")
def data() -> tuple[QuoteColumns, TradeColumns, DepthColumns]:
    quotes, trades = read_quotes(f"{SAMPLE}.quotes.parquet"), read_trades(f"{SAMPLE}.trades.parquet")
    steps, every = 0.1 * np.arange(5), slice(None, None, 8)
    # The sample has no depth: levels behind the best are made up, for the features that need them.
    depth = DepthColumns(quotes.ts_event[every], quotes.ts_init[every], quotes.bid_price[every, None] - steps,
                         quotes.ask_price[every, None] + steps, quotes.bid_size[every, None] + steps,
                         quotes.ask_size[every, None] + steps)  # fmt: skip
    return quotes, trades, depth


def pass_over(plan: FeaturePlan, data: Any, needs_depth: bool) -> tuple[Callable[[], None], int]:
    """One pass of a plan over the sample, and how many events that is."""
    quotes, trades, depth = data
    depth = depth if needs_depth else None
    events = len(quotes) + len(trades) + (len(depth) if depth is not None else 0)
    state = plan.state()

    def run() -> None:
        state.reset()
        plan.compute(quotes, trades, depth, state=state)

    return run, events


def finish(benchmark: Any, run: Callable[[], None], events: int, plan: FeaturePlan, count: int) -> None:
    run()
    times = np.array(timeit.repeat(run, number=1, repeat=count)) * 1e9
    benchmark.pedantic(run, rounds=3)
    record(benchmark, times, calls=events, events=events, columns=plan.width, state_bytes=plan.nbytes)


@pytest.mark.parametrize("name", [*FEATURES, "order_flow_imbalance(window='1s', levels=5)"])
@pytest.mark.benchmark(group="features: one column, ns per event (loop included)")
def test_one_feature(benchmark: Any, data: Any, name: str) -> None:
    plan = FeaturePlan(name)
    run, events = pass_over(plan, data, "depth" in plan.specs[0].info.needs and "levels" in plan.specs[0].params)
    finish(benchmark, run, events, plan, 15)


@pytest.mark.parametrize("way", ["floor", "twelve", "twelve, event by event from Python"])
@pytest.mark.benchmark(group="features: plan of twelve, ns per event")
def test_twelve(benchmark: Any, data: Any, way: str) -> None:
    plan = FeaturePlan(["spread"] if way == "floor" else list(TWELVE))
    if way != "twelve, event by event from Python":
        finish(benchmark, *pass_over(plan, data, False), plan, 15)
        return
    quotes = data[0]
    rows = list(zip(quotes.bid_price.tolist(), quotes.ask_price.tolist(), quotes.bid_size.tolist(),
                    quotes.ask_size.tolist(), quotes.ts_event.tolist(), strict=True))  # fmt: skip
    state, out = plan.state(), np.empty(plan.width, np.float32)
    update, emit = state.update_quote, state.emit

    def run() -> None:
        state.reset()
        for bid, ask, bid_size, ask_size, ts in rows:
            update(bid, ask, bid_size, ask_size, ts)
            emit(out)

    finish(benchmark, run, len(rows), plan, 7)


@pytest.mark.parametrize("way", ["numpy", "ours"])
@pytest.mark.benchmark(group="features: spread, imbalance, microprice of an array, ns per quote")
def test_stateless_columns(benchmark: Any, data: Any, way: str) -> None:
    quotes = data[0]
    plan = FeaturePlan(["spread", "imbalance", "microprice_deviation"])

    def numpy_columns() -> np.ndarray:
        bid, ask, bs, sa = quotes.bid_price, quotes.ask_price, quotes.bid_size, quotes.ask_size
        mid, share = 0.5 * (bid + ask), (bs - sa) / (bs + sa)
        return np.column_stack([1e4 * (ask - bid) / mid, share, 1e4 * 0.5 * (ask - bid) * share / mid])

    def ours() -> np.ndarray:
        return plan.compute(quotes).values

    assert np.allclose(numpy_columns(), ours(), rtol=1e-12)
    functions: dict[str, Callable[[], np.ndarray]] = {"numpy": numpy_columns, "ours": ours}
    if not STATELESS:
        timers = {name: timeit.Timer(function) for name, function in functions.items()}
        STATELESS.update(interleaved({k: lambda t=t: 1e9 * t.timeit(1) for k, t in timers.items()}, 50))
    rival = STATELESS["numpy"]
    benchmark.pedantic(functions[way], rounds=20)
    record(
        benchmark,
        STATELESS[way],
        calls=len(quotes),
        baseline_ns=float(np.median(rival)) / len(quotes),
        against={"numpy": float(rival.min()) / len(quotes)} if way == "ours" else None,
        quotes=len(quotes),
    )
