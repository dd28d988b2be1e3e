"""The feature store: one state for all who ask, every event once, and nobody's reset under somebody else's feet."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FeaturePlan
from tengri_fast.features.store import FeatureStore

SECOND = 1_000_000_000
START = 1_721_347_200 * SECOND
PLAN = FeaturePlan(["mid_return(lag=3)", "imbalance", "signed_trade_flow(window='1s')", "rsi(5)"])


def events(count, seed=0, repeats=True):
    """Quotes and trades as (kind, arguments); some are equal to the one before in every field."""
    rng = np.random.default_rng(seed)
    ts, mid, out = START, 65_000.0, []
    for _ in range(count):
        ts += int(rng.integers(0, 200)) * 1_000_000
        mid += 0.1 * int(rng.integers(-3, 4))
        a, b = rng.integers(1, 50, 2) / 10
        if rng.random() < 0.3:
            out.append(("update_trade", (mid, float(a), int(rng.integers(-1, 2)), ts)))
        else:
            out.append(("update_quote", (mid - 0.05, mid + 0.05, float(a), float(b), ts)))
        if repeats and rng.random() < 0.2:
            out.append(out[-1])
    return out


def alone(stream, plan=PLAN):
    state, rows = plan.state(), []
    for name, arguments in stream:
        getattr(state, name)(*arguments)
        rows.append(state.row())
    return state, np.array(rows)


def give(handle, event):
    name, arguments = event
    return getattr(handle, name)(*arguments)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), handles=st.integers(1, 4), data=st.data())
def test_every_event_counts_once_in_any_order_of_handles(seed, handles, data):
    stream = events(60, seed)
    expected, rows = alone(stream)
    store = FeatureStore()
    shared = [store.acquire("A", PLAN) for _ in range(handles)]
    for event, row in zip(stream, rows, strict=True):
        order = data.draw(st.permutations(range(handles)))
        answers = {give(shared[number], event) for number in order}
        assert len(answers) == 1
        np.testing.assert_array_equal(shared[order[0]].row, row)
    assert shared[0].counters == expected.counters
    assert len(store) == 1


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), data=st.data())
def test_handles_that_begin_late_stop_and_miss_events(seed, data):
    """One handle sees everything; another sees stretches of it, before or after the first."""
    stream = events(80, seed)
    expected, rows = alone(stream)
    store = FeatureStore()
    steady, other = store.acquire("A", PLAN), None
    present = False
    for event, row in zip(stream, rows, strict=True):
        if data.draw(st.integers(0, 9)) == 0:
            present = not present
        if present and other is None:
            other = store.acquire("A", PLAN)
        seen = [steady, other] if present else [steady]
        for handle in data.draw(st.permutations(seen)):
            give(handle, event)
        np.testing.assert_array_equal(steady.row, row)
    assert steady.counters == expected.counters


def test_a_handle_inside_another_ones_event():
    """The second is told of an event after the first has brought two more: it is known all the same."""
    stream = events(40, 3, repeats=False)
    expected, _ = alone(stream)
    store = FeatureStore()
    first, second = store.acquire("A", PLAN), store.acquire("A", PLAN)
    for at in range(0, 40, 2):
        for event in stream[at : at + 2]:
            give(first, event)
        for event in stream[at : at + 2]:
            give(second, event)
    assert first.counters == expected.counters == second.counters


def test_refused_events_count_once_too():
    store = FeatureStore()
    first, second = store.acquire("A", PLAN), store.acquire("A", PLAN)
    for handle in (first, second):
        assert handle.update_quote(100.0, 101.0, 1.0, 1.0, START)
    for handle in (first, second):
        assert not handle.update_quote(102.0, 101.0, 1.0, 1.0, START + 1)
        assert not handle.update_quote(float("nan"), 101.0, 1.0, 1.0, START + 2)
        assert not handle.update_quote(100.0, 101.0, 1.0, 1.0, START - 1)
    counters = first.counters
    assert (counters.accepted, counters.crossed, counters.invalid, counters.backward) == (1, 1, 1, 1)


def test_who_shares_and_who_does_not():
    store = FeatureStore()
    base = store.acquire("A", PLAN)
    normalised = PLAN.with_normalisation(3.0, 2.0, 5.0)
    assert store.acquire("A", normalised).readers == 2
    others = [
        store.acquire("B", PLAN),
        store.acquire("A", FeaturePlan(["imbalance"])),
        store.acquire("A", PLAN, gap_ns=SECOND),
        store.acquire("A", PLAN, reset_on_day=True),
        store.acquire("A", PLAN, feed="depth10"),
        store.acquire("A", PLAN, scope="another backtest"),
    ]
    assert [handle.readers for handle in others] == [1] * len(others)
    assert base.readers == 1  # the handle of the second line is gone already
    assert len(store) == 1 + len(others)


def test_gap_and_day_drop_the_state_for_all_at_once():
    late = [(name, (*a[:-1], a[-1] + 7 * SECOND)) for name, a in events(50, 2)]
    shift = late[0][1][-1]
    first = events(50, 1)
    first = [e for e in first if e[1][-1] < shift - 6 * SECOND]
    _, rows = alone(late)
    store = FeatureStore()
    a, b = (store.acquire("A", PLAN, gap_ns=3 * SECOND) for _ in range(2))
    for event in first:
        for handle in (a, b):
            give(handle, event)
    for event, row in zip(late, rows, strict=True):
        for handle in (b, a):
            give(handle, event)
        np.testing.assert_array_equal(a.row, row)
    assert a.resets == 1


def test_a_reset_waits_for_all():
    stream = events(100, 5)
    store = FeatureStore()
    a, b = store.acquire("A", PLAN), store.acquire("A", PLAN)
    for event in stream[:50]:
        for handle in (a, b):
            give(handle, event)
    before = a.counters
    a.reset()
    assert a.counters == before  # b is still on it
    for event in stream[50:60]:
        give(b, event)
    a.reset()
    b.reset()
    assert a.counters.accepted == 0
    assert a.resets == 1
    expected, rows = alone(stream[:50])
    for event, row in zip(stream[:50], rows, strict=True):  # the same events again, as in a second run
        for handle in (a, b):
            give(handle, event)
        np.testing.assert_array_equal(b.row, row)
    assert b.counters == expected.counters


def test_a_released_handle_holds_up_no_reset_and_frees_the_state():
    store = FeatureStore()
    a, b = store.acquire("A", PLAN), store.acquire("A", PLAN)
    for handle in (a, b):
        give(handle, ("update_quote", (100.0, 101.0, 1.0, 1.0, START)))
    a.reset()
    assert a.counters.accepted == 1
    b.release()
    assert a.readers == 1
    assert a.counters.accepted == 0
    with pytest.raises(FeatureExtractionError, match="after its release"):
        _ = b.row
    b.release()
    del a, handle
    gc.collect()
    assert len(store) == 1  # b still names it
    del b
    assert len(store) == 0


def test_the_row_is_a_view_that_cannot_be_written_and_outlives_the_handle():
    store = FeatureStore()
    a, b = store.acquire("A", PLAN), store.acquire("A", PLAN)
    give(a, ("update_quote", (100.0, 101.0, 3.0, 1.0, START)))
    row = a.row
    assert np.shares_memory(row, b.row)
    assert row[1] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 1.0
    with pytest.raises((BufferError, ValueError)):
        np.frombuffer(a)[0] = 1.0
    give(a, ("update_quote", (100.0, 101.0, 1.0, 3.0, START + 1)))
    assert b.row[1] == row[1] == -0.5
    computed = a.rows_computed
    _ = a.row, b.row, a.row
    assert a.rows_computed == computed == 2
    del a, b
    gc.collect()
    assert row[1] == -0.5


def test_legs_and_sources_are_shared_too():
    plan = FeaturePlan(["leg_return(other='X', lag=1)", "imbalance", "odds_probability(source='odds')"])
    state = plan.state()
    store = FeatureStore()
    handles = [store.acquire("A", plan) for _ in range(2)]
    rng = np.random.default_rng(1)
    for i in range(200):
        ts = START + i * SECOND
        leg, own, odds = 100 + rng.normal(), 50 + rng.normal(), [float(rng.random() / 2), 0.6]
        for target in (state, *handles):
            target.update_leg("X", leg, leg + 0.1, ts)
            target.update_external("odds", odds, ts)
            target.update_quote(own, own + 0.1, 1.0, 2.0, ts)
        np.testing.assert_array_equal(handles[i % 2].row, state.row())
    assert handles[0].counters == state.counters
    for call in (
        lambda: handles[0].update_leg("Y", 1.0, 2.0, START),
        lambda: handles[0].update_external("odd", [1.0], 1),
    ):
        with pytest.raises(FeatureExtractionError, match="`name` must be one of"):
            call()


def test_memory_is_told_and_small_for_every_further_handle():
    plan = FeaturePlan([f"realized_volatility(window='{n}s')" for n in range(1, 11)])
    store = FeatureStore()
    handles = [store.acquire("A", plan) for _ in range(20)]
    memory = store.memory
    assert (memory.states, memory.handles) == (1, 20)
    assert memory.alone_bytes == 20 * plan.nbytes
    assert memory.handle_bytes == sum(handle.nbytes for handle in handles)
    assert handles[0].nbytes < 200
    assert memory.state_bytes + memory.handle_bytes < plan.nbytes + 20_000
    text = store.explain()
    assert "1 states for 20 handles" in text
    assert f"{plan.nbytes} bytes, 20 handle(s)" in text


def test_names_and_pickling():
    store = FeatureStore.named("desk")
    assert FeatureStore.named("desk") is store
    assert FeatureStore.named("other") is not store
    handle = store.acquire("A", PLAN)
    for thing in (store, handle):
        with pytest.raises(TypeError, match="memory of this process"):
            pickle.dumps(thing)
    with pytest.raises(FeatureExtractionError, match="must be a text"):
        FeatureStore.named("")
    with pytest.raises(FeatureExtractionError, match="`gap_ns` must be from 0"):
        store.acquire("A", PLAN, gap_ns=-1)
