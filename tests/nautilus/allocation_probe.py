"""Counts calls of malloc and its family while a strategy and a gate handle ticks. Run by test_allocations.py.

    LD_PRELOAD=counter.so PYTHONMALLOC=malloc python allocation_probe.py MODEL.toml

With PYTHONMALLOC=malloc every Python object costs a call of malloc, so the counter sees Python and C alike. Prints a
JSON object of calls per measured stretch.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gate_play import BUY, make_gate, play
from gate_scene import Script, quotes
from neural_scene import INSTRUMENT, quote, register, trade

from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.runtime.model_spec import load_bundle

TICKS = 100_000


class Wasteful(TengriNeuralStrategy):
    """The negative control: makes one small object per signal."""

    def on_signal(self, signal):
        self.last = [signal.sequence]


def run(listener, ticks, warm):
    """Calls of the malloc family while the ticks after the first ``warm`` are handled."""
    count = ctypes.CDLL(None).tengri_allocations
    count.restype = ctypes.c_uint64
    on_quote, on_trade = listener.handle_quote_tick, listener.handle_trade_tick
    calls = [(on_quote if hasattr(tick, "bid_price") else on_trade, tick) for tick in ticks]

    def stretch(work):
        start = count()
        for handle, tick in work:
            handle(tick)
        return count() - start

    gc.collect()
    gc.disable()
    stretch(calls[:warm])
    own = stretch([])  # what the counting itself costs
    made = stretch(calls[warm:]) - own
    gc.enable()
    return made


def run_gate(held):
    """The same of a gate whose limits look at everything that a quote can change, with a position or without."""
    gate = make_gate(
        max_position=10.0, price_collar_bps=100.0, collar_window="1m", max_leverage=2.0, prices=("quotes", "trades")
    )
    made = []

    def measure(script, tick):
        made.append(run(gate, quotes(10_000, drift=0.1), 100))

    script = Script(({3: lambda s, t: s.market(BUY, 1)} if held else {}) | {8: measure})
    play(script, gate, data=quotes(10))
    return made[0]


def main(model):
    bundle = load_bundle(model)
    config = TengriNeuralConfig(model=model, instrument_id=INSTRUMENT.id)
    ticks = []
    for i in range(TICKS + 2_000):
        ts = 1_721_347_200_000_000_000 + 3_000_000 * i
        step = (i * 7919) % 11 - 5
        ticks.append(
            trade(65_000 + 0.1 * step, 0.001 * (1 + i % 9), ts, i % 8 == 3)
            if i % 4 == 3
            else quote(65_000 + 0.1 * step, 65_000.1 + 0.1 * step, ts, 1 + i % 5, 1 + i % 7)
        )
    result = {"gate_flat": run_gate(False), "gate_held": run_gate(True)}
    for name, kind in (("bare", TengriNeuralStrategy), ("wasteful", Wasteful)):
        strategy = kind(config, bundle)
        register(strategy)
        strategy.start()
        result[name] = run(strategy, ticks, 2_000)
        result[f"{name}_signals"] = strategy.engine.counters(0)["signals"]
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
