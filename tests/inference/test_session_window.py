"""Windowed sessions: the answer over the last T rows from zero state, exactly as recomputed."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference.networks import FAMILIES, family, networks, quantised, rows

from tengri_fast import _native
from tengri_fast.errors import ConfigurationError, InferenceFailed
from tengri_fast.inference import Model, Network, WindowSession

ISAS = _native.isa_available()


def recomputed(model: Model, x: np.ndarray, window: int) -> np.ndarray:
    return np.array([model.run_window(x[max(0, t - window + 1) : t + 1])[-1] for t in range(len(x))])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("window", [1, 2, 9, 24])
@pytest.mark.parametrize("name", FAMILIES)
def test_equals_recomputation(name: str, window: int, isa: str) -> None:
    model = Model.from_network(family(name), isa=isa)
    x = rows(60, 20)
    want = recomputed(model, x, window)
    session = model.windowed(window)
    assert (session.window, session.model) == (window, model)
    assert np.array_equal([session.step(row) for row in x], want)
    split = model.session(window=window)
    for row, y in zip(x, want, strict=True):
        split.input[:] = row
        assert np.array_equal(split.finish(), y)
        split.prepare()


@pytest.mark.parametrize("format_", ["fp16", "int8", "int8a16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_format(name: str, format_: str) -> None:
    x = rows(40, 20)
    network = family(name)
    model = Model.from_network(network.converted("fp16") if format_ == "fp16" else quantised(network, format_, x))
    session = model.windowed(11)
    assert np.array_equal([session.step(row) for row in x], recomputed(model, x, 11))


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 13, 100])
def test_chunks_with_save_load_and_copy(chunk: int) -> None:
    model = Model.from_network(family("lstm"))
    x = rows(90, 20)
    want = recomputed(model, x, 12)
    session, out = model.windowed(12), []
    for start in range(0, len(x), chunk):
        other = model.windowed(12) if start % 2 else copy.copy(session)
        other.from_bytes(session.to_bytes())
        assert np.array_equal(other.output, session.output)
        assert other.to_bytes() == session.to_bytes()
        out.extend(other.step(row) for row in x[start : start + chunk])
        session = copy.deepcopy(other)
    assert np.array_equal(out, want)


def test_state_between_finish_and_prepare() -> None:
    model = Model.from_network(family("gru"))
    x = rows(60, 20)
    want = recomputed(model, x, 7)
    session = model.windowed(7)
    for i, row in enumerate(x):
        assert np.array_equal(session.finish(row), want[i])
        if i % 3 == 0:
            other = model.windowed(7) if i % 2 else session.copy()
            other.from_bytes(session.to_bytes())
            session = other
        for _ in range(i % 4):
            session.prepare()


def test_nan_leaves_with_the_window_and_reset_is_exact() -> None:
    model = Model.from_network(family("lstm"))
    x = rows(40, 20)
    session = model.windowed(5)
    fresh = session.to_bytes()
    bad = x.copy()
    bad[10] = np.nan
    y = np.array([session.step(row) for row in bad])
    assert np.isnan(y[10:15]).all()
    assert np.isfinite(np.delete(y, range(10, 15), axis=0)).all()
    assert np.array_equal(y[15:], recomputed(model, x, 5)[15:])
    session.reset()
    assert session.to_bytes() == fresh
    assert np.array_equal([session.step(row) for row in x], recomputed(model, x, 5))


@settings(max_examples=30, deadline=None)
@given(networks(most=3), st.integers(1, 12), st.integers(1, 20), st.sampled_from(ISAS))
def test_random_networks(network: Network, window: int, cut: int, isa: str) -> None:
    model = Model.from_network(network, isa=isa)
    x = rows(26, network.input_size)
    session = model.windowed(window)
    out = [session.step(row) for row in x[:cut]]
    other = model.windowed(window)
    other.from_bytes(session.to_bytes())
    out += [other.step(row) for row in x[cut:]]
    assert np.array_equal(out, recomputed(model, x, window))


def test_wrong_use_is_named() -> None:
    model = Model.from_network(family("lstm"))
    for bad, text in ((0, "0"), (-3, "-3"), (2.5, "2.5"), ("9", "'9'")):
        with pytest.raises(ConfigurationError, match=rf"`window` must be .* {text}"):
            model.windowed(bad)
    session = model.windowed(4)
    session.step(rows(1, 20)[0])
    kept = session.to_bytes()
    for bad in (np.zeros(19), np.zeros((1, 20)), 1.0):
        with pytest.raises(InferenceFailed, match=r"`x` must have shape \[20\]"):
            session.step(bad)
    damaged = [b"", kept[:-1], kept + b"\0", bytes([kept[0] ^ 1]) + kept[1:], kept[:-1] + bytes([kept[-1] ^ 1])]
    for bad in (*damaged, model.windowed(5).to_bytes(), model.session().to_bytes()):
        with pytest.raises(InferenceFailed, match="`data` must be"):
            session.from_bytes(bad)
    with pytest.raises(InferenceFailed, match="another model"):
        Model.from_network(family("lstm", seed=12)).windowed(4).from_bytes(kept)
    assert session.to_bytes() == kept
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(session)
    for make in (WindowSession, lambda: WindowSession.__new__(WindowSession)):
        with pytest.raises(TypeError, match="made by"):
            make()
    with pytest.raises(ValueError, match="read-only"):
        session.output[0] = 1.0
    view = session.input
    del session, model
    view[:] = 3.0  # views outlive their session
    assert view.sum() == 60.0


def test_time_steps_moves_the_state() -> None:
    model = Model.from_network(family("tcn"))
    x = rows(10, 20)
    session, again = model.windowed(6), model.windowed(6)
    times = session.time_steps(x, 25)
    assert times.shape == (2, 25)
    assert (times >= 0).all()
    for row in (*x, *x, *x[:5]):
        again.step(row)
    assert session.to_bytes() == again.to_bytes()
    with pytest.raises(InferenceFailed, match="`n`"):
        session.time_steps(x, 0)
    assert session.nbytes > 6 * 64
