"""Batches and teams: the same bits as one session at a time, and no session in two hands."""

from __future__ import annotations

import pickle
import sys
import threading
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference.networks import FAMILIES, Builder, dense, family, lstm, networks, quantised, rows

from tengri_fast import _native
from tengri_fast.errors import ConfigurationError, InferenceFailed
from tengri_fast.inference import Batch, Ensemble, Model, Network, Team

ISAS = _native.isa_available()
FORMATS = ("fp32", "fp16", "bf16", "int8", "int8a16")


def formatted(network: Network, format_: str, x: np.ndarray) -> Network:
    if format_ == "fp32":
        return network
    return network.converted(format_) if format_ in ("fp16", "bf16") else quantised(network, format_, x)


def alone(model: Model, x: np.ndarray) -> np.ndarray:
    """[T, n, O] from n sessions stepped one by one over x [T, n, F]."""
    sessions = [model.session() for _ in range(x.shape[1])]
    return np.array([[session.step(row) for session, row in zip(sessions, step, strict=True)] for step in x])


def crowd(steps: int, count: int, width: int) -> np.ndarray:
    return np.stack([rows(steps, width, seed=i) for i in range(count)], axis=1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", FAMILIES)
def test_equals_one_by_one(name: str, format_: str, isa: str) -> None:
    x = crowd(12, 11, 20)
    model = Model.from_network(formatted(family(name), format_, x[:, 0]), isa=isa)
    batch = model.batch(4)  # more sessions than capacity, and a rest
    sessions = [model.session() for _ in range(11)]
    batch.bind(sessions)
    assert np.array_equal([batch.step(step) for step in x], alone(model, x))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 13, 33])
@pytest.mark.parametrize("capacity", [1, 7, 64])
def test_counts_and_capacities(count: int, capacity: int) -> None:
    model = Model.from_network(family("lstm"))
    x = crowd(6, max(count, 1), 20)[:, :count]
    batch = model.batch(capacity)
    batch.bind([model.session() for _ in range(count)])
    assert (len(batch), batch.capacity) == (count, capacity)
    got = np.array([batch.step(step) for step in x])
    assert got.shape == (6, count, 3)
    assert np.array_equal(got, alone(model, x).reshape(6, count, 3))


def test_sessions_join_and_leave_at_any_time() -> None:
    model = Model.from_network(family("gru"))
    x = crowd(40, 6, 20)
    want = alone(model, x)
    batch, sessions = model.batch(8), [model.session() for _ in range(6)]
    rng = np.random.default_rng(4)
    for t, step in enumerate(x):
        chosen = rng.permutation(6)[: rng.integers(0, 7)]
        together = tuple(sessions[i] for i in chosen)
        for i in range(6):
            sessions[i].input[:] = step[i]
            if i not in chosen:
                sessions[i].finish()
                if t % 2:
                    sessions[i].prepare()  # else the next finish, alone or in a batch, makes up for it
        batch.finish(together)
        if t % 3:
            batch.prepare(together)
        for i in range(6):
            assert np.array_equal(sessions[i].output, want[t, i])
        if t % 5 == 0:
            i = int(rng.integers(6))
            state = sessions[i].to_bytes()
            sessions[i] = model.session()
            sessions[i].from_bytes(state)


@settings(max_examples=25, deadline=None)
@given(networks(most=3), st.integers(1, 9), st.sampled_from(ISAS))
def test_random_networks(network: Network, count: int, isa: str) -> None:
    model = Model.from_network(network, isa=isa)
    x = crowd(9, count, network.input_size)
    batch = model.batch(4)
    batch.bind(model.session() for _ in range(count))
    assert np.array_equal([batch.step(step) for step in x], alone(model, x))


def test_wrong_use_is_named() -> None:
    model, other = Model.from_network(family("lstm")), Model.from_network(family("lstm"))
    batch, session = model.batch(2), model.session()
    batch.bind([session])
    kept = batch.sessions
    for bad, text in (
        ([session, other.session()], "number 1 is of another"),
        ([session, model.session(), session], "no session twice"),
        ([session, None], "held NoneType"),
        ([model.windowed(3)], "held WindowSession"),
    ):
        with pytest.raises(InferenceFailed, match=text):
            batch.bind(bad)
        with pytest.raises(InferenceFailed, match=text):
            batch.finish(bad)
    assert batch.sessions is kept
    before = session.to_bytes()
    for x in (np.zeros((2, 20)), np.zeros((1, 19)), np.zeros(20)):
        with pytest.raises(InferenceFailed, match="`x` must have shape"):
            batch.step(x)
    assert session.to_bytes() == before
    for bad in (0, -1, 1.5, None):
        with pytest.raises(ConfigurationError, match="`capacity` must be"):
            model.batch(bad)
    with pytest.raises(TypeError, match="made by"):
        Batch()
    for value in (batch,):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(value)


def test_a_batch_keeps_its_sessions_and_model_alive() -> None:
    batch = Model.from_network(family("mlp")).batch(3)
    batch.bind([batch.model.session() for _ in range(3)])
    x = rows(3, 20)
    want = batch.model.run_window(x[:1])[0]
    assert np.array_equal(batch.step(x)[0], want)


def test_long_batches_run_beside_each_other_and_refuse_shared_sessions() -> None:
    b = Builder(np.random.default_rng(3), 16)
    b.add(lstm(b.rng, 16, 128))
    b.add(dense(b.rng, 128, 2))
    model = Model.from_network(b.network())
    sessions = tuple(model.session() for _ in range(300))
    x = rows(300, 16)
    want = np.array([model.run_window(row[None])[0] for row in x[:3]])
    refusals: set[str] = set()
    done = threading.Event()

    def intrude() -> None:
        while not done.is_set():
            try:
                sessions[7].prepare()
            except InferenceFailed as error:
                refusals.add(str(error))

    thread = threading.Thread(target=intrude)
    thread.start()
    try:
        batch = model.batch(64)
        batch.bind(sessions)
        for turn in range(20):
            try:
                y = batch.step(x)
            except InferenceFailed as error:
                refusals.add(str(error))
                continue
            if turn == 0:
                assert np.array_equal(y[:3], want)
    finally:
        done.set()
        thread.join()
    # The GIL was free meanwhile, and nothing else than this was ever said.
    assert refusals == {"a session serves one thread at a time, and another is at work on it"}
    sessions[7].prepare()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("format_", ["fp32", "int8"])
@pytest.mark.parametrize("name", FAMILIES)
def test_team_equals_one_thread(name: str, format_: str, workers: int) -> None:
    x = rows(30, 20)
    model = Model.from_network(formatted(family(name), format_, x))
    want = model.run_window(x)
    session = model.session()
    with Team(workers, spin_us=20.0) as team:
        for i, row in enumerate(x[:20]):
            if i % 2:
                assert np.array_equal(team.finish(session, row), want[i])
                team.prepare(session)
            else:
                assert np.array_equal(team.step(session, row), want[i])
    for i in range(20, 30):  # the session goes on without the team
        assert np.array_equal(session.step(x[i]), want[i])
    with pytest.raises(InferenceFailed, match="team was closed"):
        team.step(session, x[0])


def test_team_on_a_large_model_and_after_a_sleep() -> None:
    b = Builder(np.random.default_rng(5), 32)
    for _ in range(2):
        b.add(lstm(b.rng, b.width, 192))
    b.add(dense(b.rng, 192, 3, "softmax"))
    model = Model.from_network(b.network())
    x = rows(60, 32)
    want = model.run_window(x)
    session = model.session()
    with Team(1, spin_us=1.0) as team:  # sleeps between most steps
        for i, row in enumerate(x):
            assert np.array_equal(team.step(session, row), want[i])
            if i % 20 == 0:
                threading.Event().wait(0.01)


def test_hot_calls_leave_no_python_object_behind() -> None:
    model = Model.from_network(family("transformer"))
    session, windowed, ensemble = model.session(), model.windowed(5), Ensemble([model, model]).session()
    sessions = tuple(model.session() for _ in range(5))
    batch = model.batch(4)
    batch.bind(sessions)
    with Team(1, spin_us=5.0) as team:
        calls = [
            *(call for one in (session, windowed, ensemble) for call in (one.finish, one.prepare)),
            batch.finish, batch.prepare,
            partial(team.finish, session), partial(team.prepare, session),
        ]  # fmt: skip
        before = [0] * len(calls)
        for turn in range(3):  # the first turns fill the interpreter's own caches
            for i, call in enumerate(calls):
                start = sys.getallocatedblocks()
                for _ in range(200):
                    call()
                before[i] = sys.getallocatedblocks() - start
            assert turn < 2 or max(before) <= 2, before


def test_team_wrong_use_is_named() -> None:
    for bad in (0, -1, 1.5, 2000):
        with pytest.raises(ConfigurationError, match="`workers` must be"):
            Team(bad)
    with pytest.raises(ConfigurationError, match="`cpus` must name 2 processors, named 1"):
        Team(2, [0])
    with pytest.raises(ConfigurationError, match=r"`cpus` must be in \[0"):
        Team(1, [-1])
    with pytest.raises(ConfigurationError, match="`spin_us`"):
        Team(1, spin_us=-1.0)
    with Team(1, [0]) as team:
        assert (team.workers, team.cpus, team.spin_us) == (1, (0,), 50.0)
        with pytest.raises(TypeError):
            team.finish(object())
        with pytest.raises(InferenceFailed, match="`session` must be a Session, was None"):
            team.finish(None)
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(team)
        with pytest.raises(TypeError, match="set up once"):
            team.__init__(1)  # type: ignore[misc]
    team.close()
    team.close()
