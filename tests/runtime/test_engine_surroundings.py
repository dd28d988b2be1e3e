"""Legs, external sources and shared features in the engine, against research and against an engine of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_on_disk import write_model

from tengri_fast.errors import ConfigurationError, FeatureExtractionError, ModelLoadingError
from tengri_fast.features.store import FeatureStore
from tengri_fast.market import ExternalColumns, QuoteColumns
from tengri_fast.runtime.engine import TengriNeuralEngine
from tengri_fast.runtime.model_spec import load_bundle

SECOND = 1_000_000_000
START = 1_721_347_200 * SECOND
FEATURES = ("imbalance()", "mid_return(lag=3)", "leg_return(other='X', lag=2)", "leg_return(other='Y', lag=1)",
            "odds_probability(source='odds')")  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_bundle(write_model(tmp_path_factory.mktemp("model"), FEATURES))


@pytest.fixture(scope="module")
def resetting(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_bundle(write_model(tmp_path_factory.mktemp("model"), FEATURES, extra='reset_on = ["day", "gap:5s"]'))


def stream(count: int, seed: int = 0, start: int = START, names: tuple[str, ...] = ("A", "X", "Y")) -> list[Any]:
    """(what, when, numbers): quotes of instruments and observations."""
    rng = np.random.default_rng(seed)
    ts, out = start, []
    mids = dict.fromkeys(names, 1_000.0)
    for _ in range(count):
        ts += int(rng.integers(0, 100_000_000))
        what = str(rng.choice([*names, "odds"], p=[*[0.9 / len(names)] * len(names), 0.1]))
        if what == "odds":
            out.append((what, ts, (float(rng.random() / 2), 0.75)))
        else:
            mids[what] += 0.1 * int(rng.integers(-3, 4))
            sizes = rng.integers(1, 50, 2) / 10
            out.append((what, ts, (mids[what] - 0.05, mids[what] + 0.05, *map(float, sizes))))
    return out


def give(engine: Any, event: Any, emit: bool = True) -> Any:
    what, ts, numbers = event
    if what == "odds":
        engine.feed_external(what, numbers, ts, emit=emit)
        return None
    signal = engine.process_quote(engine.slot(what), *numbers, ts, emit)
    return None if signal is None else (signal.ts_event, signal.value, *signal.probabilities, signal.mid)


def feed(engine: Any, events: Any, emit: bool = True) -> list[Any]:
    return [signal for event in events if (signal := give(engine, event, emit)) is not None]


def research_of(bundle: Any, events: Any, own: str = "A") -> Any:
    def quotes(name: str) -> QuoteColumns:
        rows = [(ts, *numbers) for what, ts, numbers in events if what == name]
        ts, *numbers = (np.array(column) for column in zip(*rows, strict=True))
        return QuoteColumns(ts.astype(np.uint64), ts.astype(np.uint64), *numbers)

    seen = [(ts, numbers) for what, ts, numbers in events if what == "odds"]
    times = np.array([ts for ts, _ in seen], np.uint64)
    odds = ExternalColumns(times, times, np.array([numbers for _, numbers in seen]))
    return bundle.plan.compute(quotes(own), legs={name: quotes(name) for name in bundle.plan.legs},
                               external={"odds": odds})  # fmt: skip


def apart(events: Any) -> list[Any]:
    """No two at one time: research has an order of its own there."""
    return [(what, ts + i, numbers) for i, (what, ts, numbers) in enumerate(events)]


def test_legs_and_sources_equal_research_and_make_no_signal(bundle: Any) -> None:
    events = apart(stream(600))
    engine = TengriNeuralEngine(bundle, 1)
    slot = engine.add_instrument("A")
    assert (engine.slot("X"), engine.slot("Y"), engine.instrument(2)) == (1, 2, "Y")
    assert engine.listeners == ["X", "Y"]
    rows = []
    for event in events:
        if give(engine, event) is not None:
            assert event[0] == "A"
            rows.append(engine.feature_row(slot))
    research = research_of(bundle, events)
    np.testing.assert_array_equal(np.array(rows), research.values[research.ready])
    assert engine.counters(0)["accepted"] == 600
    assert len(rows) > 100


def test_every_pipeline_watches_the_legs_that_are_its_own(bundle: Any) -> None:
    """A and X are traded and watch one another under other names; Z is only listened to."""
    events = apart(stream(600, names=("A", "X", "Z")))
    engine = TengriNeuralEngine(bundle, 2)
    engine.add_instrument("A", legs={"Y": "Z"})
    engine.add_instrument("X", legs={"X": "A", "Y": "A"})
    assert engine.listeners == ["Z"]
    assert engine.slot("Z") == 2
    rows: dict[str, list[Any]] = {"A": [], "X": []}
    for event in events:
        if give(engine, event) is not None:
            rows[event[0]].append(engine.feature_row(engine.slot(event[0])))
    renamed = {"A": {"A": "A", "X": "X", "Z": "Y"}, "X": {"X": "own", "A": "X", "Z": "unused"}}
    for name, names in renamed.items():
        seen = [(names.get(what, what), ts, numbers) for what, ts, numbers in events]
        if name == "X":
            seen += [("Y", ts, numbers) for what, ts, numbers in seen if what == "X"]
            seen.sort(key=lambda event: event[1])
        research = research_of(bundle, seen, names[name])
        np.testing.assert_array_equal(np.array(rows[name]), research.values[research.ready])


def test_wrong_names_and_numbers(bundle: Any) -> None:
    engine = TengriNeuralEngine(bundle, 1)
    with pytest.raises(ConfigurationError, match=r"`legs` must name what the plan reads .X, Y., named 'Q'"):
        engine.add_instrument("A", legs={"Q": "A"})
    engine.add_instrument("A")
    with pytest.raises(KeyError):
        engine.slot("Q")
    with pytest.raises(FeatureExtractionError, match="`source` must be one of odds, was 'news'"):
        engine.feed_external("news", [1.0], START)
    with pytest.raises(FeatureExtractionError, match="1 to 4 entries, had 5"):
        engine.feed_external("odds", [1.0] * 5, START)
    with pytest.raises(FeatureExtractionError, match="`ts_init` must be >= `ts_event`"):
        engine.feed_external("odds", [1.0], START, START - 1)
    assert engine.feed_external("odds", [float("nan")], START) == 0
    assert engine.process_quote(77, 1.0, 2.0, 1.0, 1.0, START) is None
    with pytest.raises(ConfigurationError, match="`store` must be a FeatureStore"):
        TengriNeuralEngine(bundle, 1, store={})
    with pytest.raises(ConfigurationError, match="`store` must be given"):
        engine.join_store()


def engines(bundle: Any, count: int, **join: Any) -> tuple[FeatureStore, list[Any]]:
    store = FeatureStore()
    made = [TengriNeuralEngine(bundle, 1, store) for _ in range(count)]
    for engine in made:
        engine.add_instrument("A")
        engine.join_store(**join)
    return store, made


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), data=st.data())
def test_engines_of_one_store_answer_as_one_alone(resetting: Any, seed: int, data: Any) -> None:
    """With gaps and a change of day in the stream, in any order of engines at each event."""
    day = (START // (86_400 * SECOND) + 1) * 86_400 * SECOND
    events = stream(120, seed) + stream(120, seed + 1, START + 60 * SECOND) + stream(120, seed + 2, day)
    alone = TengriNeuralEngine(resetting, 1)
    alone.add_instrument("A")
    store, made = engines(resetting, 3)
    for event in events:
        expected = give(alone, event)
        for number in data.draw(st.permutations(range(3))):
            assert give(made[number], event) == expected
    counters = alone.counters(0)
    assert counters["resets"] == 2
    assert all(engine.counters(0) == counters for engine in made)
    assert store.memory.states == 1


def test_an_engine_that_joins_late_has_the_features_of_all_and_a_session_of_its_own(bundle: Any) -> None:
    events = stream(900, 7)
    store, (steady,) = engines(bundle, 1)
    feed(steady, events[:500])
    late = TengriNeuralEngine(bundle, 1, store)
    late.add_instrument("A")
    late.join_store()
    rows, signals = [], []
    for event in events[500:]:
        give(steady, event)
        signal = give(late, event)
        np.testing.assert_array_equal(late.feature_row(0), steady.feature_row(0))
        if signal is not None:
            signals.append(signal)
            rows.append(late.feature_row(0))
    z = bundle.model.run_window(bundle.plan.normalise(np.array(rows))).astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(np.array(signals)[:, 2:5], p / p.sum(axis=1, keepdims=True), atol=1e-12)


def test_a_stop_and_a_reset_of_one_leave_the_others_alone(bundle: Any) -> None:
    events = stream(600, 8)
    alone = TengriNeuralEngine(bundle, 1)
    alone.add_instrument("A")
    _, (steady, other) = engines(bundle, 2)
    for at, event in enumerate(events):
        expected = give(alone, event)
        if at == 200:
            other.reset()
        if not 100 <= at < 300:
            give(other, event)
        assert give(steady, event) == expected
    np.testing.assert_array_equal(other.feature_row(0), alone.feature_row(0))
    for engine in (alone, steady, other):
        engine.reset()
    for event in events:
        assert give(steady, event) == give(alone, event) == give(other, event)


def test_history_is_fed_alone_and_the_first_ones_is_taken_over(bundle: Any) -> None:
    events = stream(600, 9)
    alone = TengriNeuralEngine(bundle, 1)
    alone.add_instrument("A")
    assert feed(alone, events[:300], emit=False) == []
    expected = feed(alone, events[300:])
    _, (first, second, without) = engines(bundle, 3)
    feed(first, events[:300], emit=False)
    feed(second, events[:300], emit=False)
    got: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    for event in events[300:]:
        for number, engine in enumerate((first, second, without)):
            signal = give(engine, event)
            if signal is not None:
                got[number].append(signal)
    assert got[0] == got[1] == expected
    assert [s[0] for s in got[2]] == [s[0] for s in expected]  # warm features, a session without the history
    assert got[2] != expected


def test_the_saved_state_of_a_shared_engine_goes_on_in_another_process(bundle: Any) -> None:
    events = stream(600, 10)
    _, made = engines(bundle, 2)
    for event in events[:300]:
        for engine in made:
            give(engine, event)
    saved = [engine.to_bytes() for engine in made]
    expected = [give(made[0], event) for event in events[300:]]
    _, restored = engines(bundle, 2)
    for engine, data in zip(restored, saved, strict=True):
        engine.from_bytes(data)
    for event, signal in zip(events[300:], expected, strict=True):
        assert [give(engine, event) for engine in restored] == [signal, signal]
    with pytest.raises(ModelLoadingError, match="must be restored before A shares features"):
        restored[0].from_bytes(saved[0])


def test_leaving_joining_and_memory(bundle: Any) -> None:
    store, (a, b) = engines(bundle, 2, feeds={"A": "quotes"})
    own = a.nbytes_held
    feed(a, stream(50))
    feed(b, stream(50))
    assert a.nbytes_held == own - bundle.plan.nbytes
    assert "fed by quotes legs X Y" in store.explain()
    a.join_store(feeds={"A": "quotes"})  # again the same: nothing happens
    with pytest.raises(ConfigurationError, match="must stay what they were"):
        a.join_store("elsewhere")
    handle = a.shared(0)
    for call in (handle.release, handle.reset, lambda: handle.update_quote(1.0, 2.0, 1.0, 1.0, START)):
        with pytest.raises(FeatureExtractionError, match="must be changed by the engine"):
            call()
    a.leave_store()
    handle.release()  # once more: it is given back already
    assert a.nbytes_held == own - b.shared(0).nbytes
    assert a.shared(0) is None
    assert store.memory.handles == 1
    alone = TengriNeuralEngine(bundle, 1)
    alone.add_instrument("A")
    events = stream(200, 11)
    assert feed(a, events) == feed(alone, events)


def test_raw_prices_are_no_inputs(tmp_path: Any) -> None:
    for number, (feature, way) in enumerate([
        ("sma(20)", r"`sma`: write `sma \| to_mid`"),
        ("mid() @ 1m", r"`mid @ 1m`: write `mid @ 1m \| to_mid`"),
        ("atr(14)", "`atr`: natr is the relative form"),
    ]):  # fmt: skip
        path = write_model(tmp_path / str(number), ("spread()", feature))
        with pytest.raises(ModelLoadingError, match=f"must be free of raw prices.*{way}"):
            load_bundle(path)
    assert load_bundle(write_model(tmp_path / "good", ("sma(20) | to_mid", "natr(14)"))).plan.width == 2
