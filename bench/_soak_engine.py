"""The soak of the engine: a tape that repeats, timed beside two controls."""

from __future__ import annotations

import gc
import math
import time
from typing import Any

from _soak_common import MODEL, RSS_LIMIT, SAMPLE, SAY_EVERY, Say, Violations, resident_bytes

WARM_PASSES = 5


def _tape() -> list[tuple[bool, float, float, float, float, int]]:
    """The sample in the order in which it is seen: (is a quote, four values, time)."""
    from tengri_fast.market import merge_order, read_quotes, read_trades

    quotes, trades = read_quotes(f"{SAMPLE}.quotes.parquet"), read_trades(f"{SAMPLE}.trades.parquet")
    columns = zip(
        quotes.bid_price.tolist(), quotes.ask_price.tolist(), quotes.bid_size.tolist(), quotes.ask_size.tolist(),
        quotes.ts_event.tolist(), strict=True,
    )  # fmt: skip
    quote_rows = [(True, *row) for row in columns]
    trade_rows = [
        (False, price, size, aggressor, 0.0, ts)
        for price, size, aggressor, ts in zip(
            trades.price.tolist(),
            trades.size.tolist(),
            trades.aggressor.tolist(),
            trades.ts_event.tolist(),
            strict=True,
        )
    ]
    order = merge_order(trades.ts_init, quotes.ts_init)
    streams = (trade_rows, quote_rows)
    return [streams[source][row] for source, row in zip(order.source.tolist(), order.row.tolist(), strict=True)]


def _nothing(slot: int, a: float, b: float, c: float, d: float, ts: int) -> None:
    """The first control: a call of the same shape."""


def _loop(turns: int) -> None:
    """The second control: work that needs no memory."""
    for _ in range(turns):
        pass


def soak_engine(seconds: float, seed: int, say: Say) -> dict[str, Any]:
    """Stream the sample until the time is over; `seed` plays no part."""
    from tengri_fast.runtime.engine import TengriNeuralEngine, clock_overhead_ns
    from tengri_fast.runtime.latency import LatencyHistogram
    from tengri_fast.runtime.model_spec import load_bundle

    tape = _tape()
    span = tape[-1][-1] - tape[0][-1] + 1_000_000
    engine = TengriNeuralEngine(load_bundle(MODEL / "model.toml"))
    engine.stamp = True
    slot = engine.add_instrument("BTCUSDT-PERP.BINANCE")
    latency, nothing, loop = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
    turns = 300
    found, not_finite = Violations(), 0
    clock = time.perf_counter_ns
    finite = math.isfinite

    def one_pass(shift: int) -> tuple[int, int]:
        """Signals, and a checksum over all their numbers."""
        nonlocal not_finite
        on_quote, on_trade, add, add_nothing = engine.process_quote, engine.process_trade, latency.add, nothing.add
        signals = checksum = 0
        for is_quote, a, b, c, d, ts in tape:
            now = ts + shift
            if is_quote:
                start = clock()
                signal = on_quote(slot, a, b, c, d, now)
                took = clock() - start
            else:
                start = clock()
                signal = on_trade(slot, a, b, c, now)
                took = clock() - start
            start = clock()
            _nothing(slot, a, b, c, d, now)
            add_nothing(clock() - start)
            if signal is not None:
                add(took)
                start = clock()
                _loop(turns)
                loop.add(clock() - start)
                signals += 1
                value, chances = signal.value, signal.probabilities
                if not (finite(value) and finite(signal.confidence) and all(map(finite, chances))):
                    not_finite += 1
                checksum = hash((checksum, value, chances))
        return signals, checksum

    first = one_pass(0)
    for k in range(1, WARM_PASSES):
        # The loop is to last as long as an event: each pass corrects what the one before it showed.
        turns = max(round(turns * latency.percentile(50) / max(loop.percentile(50), 1)), 1)
        latency.clear()
        loop.clear()
        one_pass(k * span)
    gc.collect()
    gc.freeze()
    for histogram in (latency, nothing, loop, engine.latency):
        histogram.clear()
    resident = most = resident_bytes()
    began, said, passes, signals = time.perf_counter(), 0.0, 0, 0
    while (elapsed := time.perf_counter() - began) < seconds or passes == 0:
        signals += one_pass((WARM_PASSES + passes) * span)[0]
        passes += 1
        most = max(most, resident_bytes())
        if elapsed - said >= SAY_EVERY:
            said = elapsed
            say(
                ticks=passes * len(tape),
                signals=signals,
                rss_growth_bytes=most - resident,
                p50_ns=latency.percentile(50),
            )
    growth = most - resident
    measured = {"call": latency, "inside_engine": engine.latency, "nothing": nothing, "loop": loop}
    figures = {name: histogram.summary() for name, histogram in measured.items()}
    engine.reset()
    again = one_pass(0)

    if growth >= RSS_LIMIT:
        found.add(f"resident memory grew by {growth:,} bytes, must stay below {RSS_LIMIT:,}")
    if not_finite:
        found.add(f"{not_finite:,} signals held a number that is not finite")
    if again != first:
        found.add(f"the first pass gave {first} (signals, checksum) and its repetition {again}")
    if not signals:
        found.add("no signal came")
    return {
        "ticks": passes * len(tape),
        "ticks_per_pass": len(tape),
        "passes": passes,
        "warm_passes": WARM_PASSES,
        "signals": signals,
        "not_finite": not_finite,
        "repeats_bit_by_bit": again == first,
        "rss_bytes_after_warm_up": resident,
        "rss_growth_bytes": growth,
        "clock_overhead_ns": clock_overhead_ns(),
        "tick_to_signal_ns": figures,
        "violations": found.count,
        "violation_texts": found.texts,
    }
