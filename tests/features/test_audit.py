"""Chunks, copies and bytes: what keeps its promise passes, what hides state outside its arguments is found."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from support import sample_data

from tengri_fast.features import FeaturePlan, register_native_feature
from tengri_fast.features.audit import CHUNKS, check_chunks, check_state, split_events
from tengri_fast.features.lookahead import EventStreams
from tengri_fast.market import merge_order, read_quotes, read_trades

DAY = "binance_usdm_btcusdt_20240718"
Doubles = ctypes.POINTER(ctypes.c_double)
calls = 0


@ctypes.CFUNCTYPE(None, Doubles, Doubles, Doubles)
def update(state, view, param):
    """Counts its calls in the state, and once more where no copy and no reset reaches."""
    global calls
    calls += 1
    state[0] += 1.0


@ctypes.CFUNCTYPE(ctypes.c_double, Doubles, Doubles)
def hidden(state, param):
    return float(calls)


@ctypes.CFUNCTYPE(ctypes.c_double, Doubles, Doubles)
def honest(state, param):
    return state[0]


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    step, *values = (ctypes.cast(f, ctypes.c_void_p).value for f in (update, hidden, honest))
    for name, value in zip(("audit_hidden", "audit_honest"), values, strict=True):
        register_native_feature(name, step, value, version="1", unit="1", state=1)


@pytest.fixture(scope="module")
def streams() -> EventStreams:
    return EventStreams(
        read_quotes(sample_data(f"{DAY}.quotes.parquet"))[:3000], read_trades(sample_data(f"{DAY}.trades.parquet"))
    )


def test_what_keeps_its_promise_passes(streams: EventStreams) -> None:
    plan = FeaturePlan(["audit_honest", "rsi(14) @ 1s", "signed_trade_flow | zscore(20)", "imbalance @ 20 trades"])
    for clock in ("quote", "trade"):
        assert check_chunks(plan, streams, clock, events=800) == []
        assert check_state(plan, streams, clock, events=800) == []


def test_hidden_state_is_found(streams: EventStreams) -> None:
    plan = FeaturePlan(["imbalance", "audit_hidden"])
    found = check_chunks(plan, streams, events=300)
    assert {(entry.column, entry.test) for entry in found} == {
        ("audit_hidden", f"in chunks of {size}") for size in CHUNKS
    }
    assert "audit_hidden: row 0 was " in str(found[0])
    after = check_state(plan, streams, events=300)
    assert {(entry.column, entry.test) for entry in after} == {
        ("audit_hidden", "after a copy"), ("audit_hidden", "after bytes")}  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_every_event_is_in_one_chunk_in_order(streams: EventStreams, size: int) -> None:
    plan = FeaturePlan(["imbalance"])
    chunks = split_events(plan, streams, size, 700)
    times = [chunk.times() for chunk in chunks]
    assert all(len(part) == min(size, 700) for part in times[:-1])
    order = merge_order(streams.trades.ts_init, streams.quotes.ts_init)
    expected = np.sort(np.concatenate([streams.trades.ts_init, streams.quotes.ts_init]))[:700]
    assert np.concatenate(times).tolist() == expected.tolist()
    trades = sum(len(chunk.trades) for chunk in chunks)
    assert trades == int((order.source[:700] == 0).sum())
