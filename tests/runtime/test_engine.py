"""The engine against its own parts run by hand, against hostile events, and against itself after a restart."""

from __future__ import annotations

import hashlib
import math
import pickle
import struct

import numpy as np
import pytest
from model_on_disk import write_model

from tengri_fast.errors import ConfigurationError, ModelLoadingError
from tengri_fast.features import FeaturePlan
from tengri_fast.inference import Model
from tengri_fast.inference.layers import DenseLayer, LstmLayer
from tengri_fast.runtime.engine import NeuralSignal, TengriNeuralEngine
from tengri_fast.runtime.model_spec import ModelBundle, load_bundle

SECOND = 1_000_000_000
START = 1_721_347_200 * SECOND


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(write_model(tmp_path_factory.mktemp("model")))


def quotes(n, seed=0, start=START):
    rng = np.random.default_rng(seed)
    ts = start + np.cumsum(rng.integers(1, 50_000_000, n))
    mid = 65_000 + 0.1 * np.cumsum(rng.integers(-1, 2, n))
    size = rng.integers(1, 5_000, (n, 2)) / 1000
    return [(float(m - 0.05), float(m + 0.05), float(a), float(b), int(t))
            for t, m, (a, b) in zip(ts, mid, size, strict=True)]  # fmt: skip


def feed(engine, slot, events):
    out = []
    for event in events:
        signal = engine.process_quote(slot, *event)
        if signal is not None:
            out.append((signal.ts_event, signal.value, *signal.probabilities, signal.confidence, signal.rung))
    return out


def test_equals_features_and_model_by_hand(bundle):
    events = quotes(500)
    engine = TengriNeuralEngine(bundle)
    got = feed(engine, engine.add_instrument("A"), events)
    state = FeaturePlan(bundle.plan.specs).with_normalisation(
        np.array(bundle.spec.normalisation.mean), np.array(bundle.spec.normalisation.scale),
        bundle.spec.normalisation.clip).state()  # fmt: skip
    rows, times = [], []
    row = np.empty(bundle.plan.width, np.float32)
    for event in events:
        assert state.update_quote(*event)
        if state.ready:
            state.emit(row)
            rows.append(row.copy())
            times.append(event[4])
    z = bundle.model.run_window(np.array(rows)).astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert [g[0] for g in got] == times
    np.testing.assert_allclose(np.array(got)[:, 2:5], p, atol=1e-12)
    np.testing.assert_allclose(np.array(got)[:, 1], p @ np.array(bundle.spec.outputs.class_returns_bps), atol=1e-10)
    np.testing.assert_allclose(np.array(got)[:, 5], p.max(axis=1), atol=1e-12)


def test_instruments_do_not_touch_each_other(bundle):
    engine = TengriNeuralEngine(bundle)
    a, b = engine.add_instrument("A"), engine.add_instrument("B")
    first, second = quotes(300, 1), quotes(300, 2)
    mixed_a, mixed_b = [], []
    for x, y in zip(first, second, strict=True):
        mixed_a += feed(engine, a, [x])
        mixed_b += feed(engine, b, [y])
    alone = TengriNeuralEngine(bundle)
    assert feed(alone, alone.add_instrument("A"), first) == mixed_a
    alone = TengriNeuralEngine(bundle)
    assert feed(alone, alone.add_instrument("B"), second) == mixed_b
    assert mixed_a != mixed_b


def test_warm_up_counts_event_time(bundle):
    events = quotes(400)
    engine = TengriNeuralEngine(bundle)
    all_signals = feed(engine, engine.add_instrument("A"), events)
    warm = 3 * SECOND
    late = TengriNeuralEngine(bundle)
    got = feed(late, late.add_instrument("A", warm), events)
    assert got == [s for s in all_signals if s[0] >= events[0][4] + warm]
    assert 0 < len(got) < len(all_signals)


def test_history_advances_state_and_says_nothing(bundle):
    events = quotes(300)
    engine = TengriNeuralEngine(bundle)
    slot = engine.add_instrument("A")
    full = feed(engine, slot, events)
    other = TengriNeuralEngine(bundle)
    slot = other.add_instrument("A")
    assert all(other.process_quote(slot, *e, False) is None for e in events[:150])
    assert feed(other, slot, events[150:]) == [s for s in full if s[0] >= events[150][4]]


def test_save_and_continue_is_exact(bundle):
    events = quotes(400)
    engine = TengriNeuralEngine(bundle)
    slot = engine.add_instrument("A", SECOND)
    feed(engine, slot, events[:200])
    saved = engine.to_bytes()
    rest = feed(engine, slot, events[200:])
    other = TengriNeuralEngine(bundle)
    other.from_bytes(saved)
    assert feed(other, other.slot("A"), events[200:]) == rest
    assert other.to_bytes() == engine.to_bytes()


def test_damaged_or_foreign_state_changes_nothing(bundle, tmp_path):
    engine = TengriNeuralEngine(bundle)
    slot = engine.add_instrument("A")
    feed(engine, slot, quotes(50))
    good = engine.to_bytes()
    for bad in (b"", good[:-1], good[:40], good[:100] + bytes([good[100] ^ 1]) + good[101:]):
        with pytest.raises(ModelLoadingError, match="damaged"):
            engine.from_bytes(bad)
    stranger = TengriNeuralEngine(load_bundle(write_model(tmp_path, seed=99)))
    stranger.add_instrument("A")
    with pytest.raises(ModelLoadingError, match="another model"):
        stranger.from_bytes(good)
    assert engine.to_bytes() == good


def reseal(body: bytes) -> bytes:
    """The digest is no key: whoever can write the state can also sign it."""
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("damage", ["short", "long", "count", "name", "twice", "features", "session"])
def test_resealed_hostile_state_is_refused_whole(bundle, damage):
    source = TengriNeuralEngine(bundle)
    feed(source, source.add_instrument("A"), quotes(80))
    body = source.to_bytes()[:-32]
    head = 8 + 32 + 32 + 16
    entry = body[head + 4 :]
    state = 4 + 1 + 40
    bad = {
        "short": body[: len(body) // 2],
        "long": body + b"\0",
        "count": body[:head] + struct.pack("<I", 2**31) + entry,
        "name": body[:head] + struct.pack("<I", 1) + struct.pack("<I", 2**32 - 1) + entry[4:],
        "twice": body[:head] + struct.pack("<I", 2) + entry + entry,
        "features": body[:head] + struct.pack("<I", 1) + entry[:state] + b"\xff" * 256 + entry[state + 256 :],
        "session": body[:-64] + b"\xff" * 64,
    }[damage]
    engine = TengriNeuralEngine(bundle)
    feed(engine, engine.add_instrument("A"), quotes(50, 9))
    before = engine.to_bytes()
    if damage == "session":
        # Weights of the state may be any numbers; what must hold is that nothing is read or written out of place.
        try:
            engine.from_bytes(reseal(bad))
        except ModelLoadingError:
            assert engine.to_bytes() == before
        feed(engine, 0, quotes(50, 10, START + 500 * SECOND))
        return
    with pytest.raises(ModelLoadingError, match="saved engine state"):
        engine.from_bytes(reseal(bad))
    assert engine.to_bytes() == before


def test_hostile_events_are_counted_and_never_poison(bundle):
    engine = TengriNeuralEngine(bundle)
    slot = engine.add_instrument("A")
    good = quotes(200)
    clean = TengriNeuralEngine(bundle)
    expected = feed(clean, clean.add_instrument("A"), good)
    got = []
    nan, inf = math.nan, math.inf
    for i, event in enumerate(good):
        b, a, bs, as_, ts = event
        for bad in ((nan, a, bs, as_, ts), (b, inf, bs, as_, ts), (0.0, a, bs, as_, ts), (-b, a, bs, as_, ts),
                    (a + 1, b, bs, as_, ts), (b, a, nan, as_, ts)):  # fmt: skip
            assert engine.process_quote(slot, *bad) is None
        if i:
            assert engine.process_quote(slot, b, a, bs, as_, good[0][4] - SECOND) is None
        got += feed(engine, slot, [event])
    assert got == expected
    counters = engine.counters(slot)
    assert counters["crossed"] == 200
    assert counters["invalid"] == 1000
    assert counters["backward"] == 199
    assert counters["failures"] == 0


def test_unknown_slots_are_ignored(bundle):
    engine = TengriNeuralEngine(bundle)
    engine.add_instrument("A")
    assert engine.process_quote(7, *quotes(1)[0]) is None
    with pytest.raises(IndexError):
        engine.counters(7)
    with pytest.raises(KeyError):
        engine.slot("B")


def test_a_nonfinite_answer_is_flat_counted_and_forgotten(bundle):
    """Weights that overflow float32 give inf and NaN; the signal says so and never carries a number."""
    rng = np.random.default_rng(5)
    broken = Model.from_layers([
        LstmLayer(rng.normal(0, 1, (16, 4)), np.zeros((16, 4)), rng.normal(0, 1, 16)),
        DenseLayer(np.full((3, 4), 3e38), np.full(3, 3e38)),
    ])  # fmt: skip
    engine = TengriNeuralEngine(ModelBundle(bundle.spec, broken, bundle.plan, bundle.model_sha256, 0.0, bundle.path))
    out = feed(engine, engine.add_instrument("A"), quotes(100))
    flat = [s for s in out if s[6] == 4]
    assert flat
    assert all(s[1:] == (0.0, 0.0, 1.0, 0.0, 0.0, 4) for s in flat)
    assert engine.counters(0)["failures"] == len(flat)
    assert np.isfinite(np.array(out)).all()


def test_gaps_and_days_reset(tmp_path):
    bundle = load_bundle(write_model(tmp_path, extra='reset_on = ["day", "gap:5s"]'))
    engine = TengriNeuralEngine(bundle)
    slot = engine.add_instrument("A")
    first = quotes(100)
    after_gap = quotes(100, 3, first[-1][4] + 6 * SECOND)
    next_day = quotes(100, 4, (START // (86_400 * SECOND) + 1) * 86_400 * SECOND)
    feed(engine, slot, first)
    got = feed(engine, slot, after_gap)
    assert engine.counters(slot)["resets"] == 1
    fresh = TengriNeuralEngine(bundle)
    assert feed(fresh, fresh.add_instrument("A"), after_gap) == got
    got = feed(engine, slot, next_day)
    fresh = TengriNeuralEngine(bundle)
    assert feed(fresh, fresh.add_instrument("A"), next_day) == got


def test_the_signal_is_a_view_and_copy_keeps_it(bundle):
    engine = TengriNeuralEngine(bundle)
    slot = engine.add_instrument("A")
    events = quotes(100)
    kept = None
    for event in events[:50]:
        kept = engine.process_quote(slot, *event) or kept
    copy = kept.copy()
    value = kept.value
    last = None
    for event in events[50:]:
        last = engine.process_quote(slot, *event)
    assert last is kept is engine.signal
    assert copy.value == value != kept.value
    assert copy.instrument_id == "A"
    assert copy.age(copy.ts_event + 5) == 5
    assert copy.age(0) == 0
    assert sum(copy.probabilities) == pytest.approx(1.0)
    for thing in (engine, kept):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    with pytest.raises(TypeError):
        NeuralSignal()


def test_stamps_only_when_asked(bundle):
    engine = TengriNeuralEngine(bundle)
    feed(engine, engine.add_instrument("A"), quotes(100))
    assert engine.latency.total == 0
    assert engine.signal.latency_ns == engine.signal.computed_at == 0
    engine.stamp = True
    n = len(feed(engine, 0, quotes(100, start=START + 100 * SECOND)))
    assert engine.latency.total == n > 50
    assert engine.signal.latency_ns > 0


def test_capacity_is_a_limit(bundle):
    engine = TengriNeuralEngine(bundle, 1)
    assert engine.add_instrument("A") == engine.add_instrument("A") == 0
    with pytest.raises(ConfigurationError, match="`capacity`"):
        engine.add_instrument("B")
    with pytest.raises(ConfigurationError, match="`capacity`"):
        TengriNeuralEngine(bundle, 0)
