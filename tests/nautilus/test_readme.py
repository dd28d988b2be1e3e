"""The README's example is a program, not a picture of one."""

from __future__ import annotations

import re

import pytest
from support import REPOSITORY

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")

from neural_scene import INSTRUMENT, market, register

from tengri_fast.nautilus import TengriNeuralStrategy


def test_the_example_runs(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    strategy = names["strategy"]
    assert isinstance(strategy, TengriNeuralStrategy)
    sent = []
    names["Mine"].submit_intent = lambda self, instrument_id, side: sent.append((instrument_id, side))
    assert names["BTC"] == INSTRUMENT.id
    register(strategy).start()
    for event in market(2_000):
        handle = strategy.handle_quote_tick if hasattr(event, "bid_price") else strategy.handle_trade_tick
        handle(event)
    assert strategy.engine.counters(0)["signals"] > 1_000
    assert sent
