"""Random networks of every kind of layer: streams equal windows equal a float64 oracle, on every instruction set."""

from __future__ import annotations

import functools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference import network_reference
from inference.networks import FAMILIES, Builder, family, gru, lstm, networks, quantised, rows

from tengri_fast import _native
from tengri_fast.inference import GruLayer, LstmLayer, Model, Network
from tengri_fast.inference.network import INPUT, Node

ISAS = _native.isa_available()
CHUNKS = (1, 2, 3, 5, 7, 13, 100)
FORMATS = ("fp32", "fp16", "bf16", "int8", "int8a16")

# Largest absolute error of the answers (probabilities) against the float64 oracle of the same rounded or quantised
# network. The engine multiplies by the very weights that the format holds, so 16-bit networks are as near as float32
# ones. Integer networks are exact but where a float32 activation falls on the other side of a rounding boundary: one
# quantum (of 254) of one value at most moves at a time.
LIMITS = {"fp32": 2e-6, "fp16": 2e-6, "bf16": 2e-6, "int8": 2e-2, "int8a16": 2e-4}


def formatted(network: Network, format_: str, x: np.ndarray) -> Network:
    if format_ == "fp32":
        return network
    return network.converted(format_) if format_ in ("fp16", "bf16") else quantised(network, format_, x)


@functools.cache
def prepared(name: str, format_: str) -> tuple[Network, np.ndarray, np.ndarray]:
    """A family in a format, its rows, and the oracle's answers."""
    x = rows(120, 20)
    network = formatted(family(name), format_, x)
    return network, x, network_reference.run(network, x)


def stream(session: object, x: np.ndarray) -> np.ndarray:
    return np.array([session.step(row) for row in x])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format_", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["lstm", "gru", "tcn", "transformer"])
def test_float_error_stays_small_over_a_thousand_steps(name: str, format_: str, isa: str) -> None:
    network, x, want = long_run(name, format_)
    error = np.abs(Model.from_network(network, isa=isa).run_window(x) - want)
    assert error.max() < LIMITS[format_]
    assert error[500:].mean() < 4 * error[:500].mean() + 1e-7, "it does not grow"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format_", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["lstm", "projected", "gru", "gru, reset first"])
def test_recurrent_weights_are_those_of_the_format(kind: str, format_: str, isa: str) -> None:
    """Two layers, their states as the answer, on the rounded weights; the oracle on other weights would be far off."""
    builder = Builder(np.random.default_rng(8), 7)
    for width in (33, 20):
        if kind in ("lstm", "projected"):
            builder.add(lstm(builder.rng, builder.width, width, width // 2 if kind == "projected" else 0))
        else:
            builder.add(gru(builder.rng, builder.width, width, kind == "gru"))
    network, x = builder.network(), rows(200, 7)
    rounded = network.converted(format_)
    y = Model.from_network(rounded, isa=isa).run_window(x)
    assert np.abs(y - network_reference.run(rounded, x)).max() < 1e-6
    assert np.abs(y - network_reference.run(network, x)).max() > {"fp16": 1e-4, "bf16": 5e-4}[format_]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_denormal_fp16_weights_are_rounded_before_they_are_doubled(kind: str, isa: str) -> None:
    """2^-24 is the least fp16 number. 2.4 of it is rounded to 2 of it, but twice 2.4, the tanh gate's, to 5."""
    gates = 4 if kind == "lstm" else 3
    w = np.zeros((gates, 1), np.float32)
    w[2] = 2.4 * 2.0**-24
    zeros = np.zeros(gates, np.float32)
    options = () if kind == "lstm" else (zeros,)
    layer = (LstmLayer if kind == "lstm" else GruLayer)(w, np.zeros((gates, 1), np.float32), zeros, *options)
    network = Network((Node(layer, (INPUT,)),), 1).converted("fp16")
    x = np.full((1, 1), 2.0**20, np.float32)
    want = network_reference.run(network, x)
    assert np.abs(Model.from_network(network, isa=isa).run_window(x) - want).max() < 1e-6


@functools.cache
def long_run(name: str, format_: str) -> tuple[Network, np.ndarray, np.ndarray]:
    x = rows(1_000, 6)
    network = formatted(family(name, inputs=6), format_, x)
    return network, x, network_reference.run(network, x)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", FAMILIES)
def test_families_over_many_steps(name: str, format_: str, isa: str) -> None:
    network, x, want = prepared(name, format_)
    model = Model.from_network(network, isa=isa)
    assert (model.isa, model.format) == (isa, format_)
    window = model.run_window(x)
    assert want.std(axis=0).max() > 1e-3, "the answers must vary"
    assert np.abs(window - want).max() < LIMITS[format_]
    assert np.array_equal(stream(model.session(), x), window)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", FAMILIES)
def test_families_in_chunks_with_save_load_and_copy(name: str, format_: str, chunk: int) -> None:
    network, x, _ = prepared(name, format_)
    model = Model.from_network(network)
    whole = model.run_window(x)
    session, out = model.session(), []
    for start in range(0, len(x), chunk):
        other = session.copy() if start % 2 else model.session()
        other.from_bytes(session.to_bytes())
        assert np.array_equal(other.output, session.output)
        assert other.to_bytes() == session.to_bytes()
        out.extend(stream(other, x[start : start + chunk]))
        session = other
    assert np.array_equal(out, whole)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("format_", FORMATS)
def test_states_move_between_instruction_sets(name: str, format_: str) -> None:
    network, x, _ = prepared(name, format_)
    models = [Model.from_network(network, isa=isa) for isa in ISAS]
    assert len({model.weights_hash for model in models}) == 1
    source = models[0].session()
    stream(source, x[:31])
    for model in models:
        moved = model.session()
        moved.from_bytes(source.to_bytes())
        assert moved.to_bytes() == source.to_bytes()
        assert np.array_equal(moved.output, source.output)
        assert np.abs(stream(moved, x[31:]) - models[0].run_window(x)[31:]).max() < LIMITS[format_]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", FAMILIES)
def test_prepare_may_be_forgotten_or_repeated(name: str, format_: str) -> None:
    network, x, _ = prepared(name, format_)
    x = x[:50]
    model = Model.from_network(network)
    whole, session = model.run_window(x), model.session()
    for i, row in enumerate(x):
        session.input[:] = row
        assert np.array_equal(session.finish(), whole[i])
        if i % 3 == 0:
            saved = session.to_bytes()
            session = session.copy() if i % 2 else model.session()
            session.from_bytes(saved)
        for _ in range(i % 4):  # 0: forgotten, more than 1: repeated
            session.prepare()


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", FAMILIES)
def test_nan_shows_and_a_reset_forgets_it(name: str, format_: str) -> None:
    network, x, _ = prepared(name, format_)
    x = x[:30]
    model = Model.from_network(network)
    session = model.session()
    fresh = session.to_bytes()
    stream(session, x[:12])
    bad = x[12].copy()
    bad[7] = np.nan
    steps = [session.step(bad), *stream(session, x[13 : 13 + model.period])]
    assert any(np.isnan(y).all() for y in steps), "by the next answer at the latest"
    session.reset()
    assert session.to_bytes() == fresh
    assert np.array_equal(stream(session, x), model.run_window(x))


def test_strides_hold_the_answer_between_periods() -> None:
    model = Model.from_network(family("strided"))
    assert model.period == 6
    y = model.run_window(rows(25, 20))
    fresh = [i for i in range(1, 25) if not np.array_equal(y[i], y[i - 1])]
    assert fresh == [6, 12, 18, 24]


@settings(max_examples=150, deadline=None)
@given(networks(), st.integers(1, 30), st.sampled_from(ISAS), st.sampled_from(["fp32", "fp16", "bf16"]))
def test_random_float_networks(network: Network, cut: int, isa: str, format_: str) -> None:
    x = rows(36, network.input_size, seed=cut)
    network = formatted(network, format_, x)
    model = Model.from_network(network, isa=isa)
    whole = model.run_window(x)
    want = network_reference.run(network, x)
    assert np.abs(whole - want).max() <= 1e-4 * max(1.0, np.abs(want).max())
    session = model.session()
    first = stream(session, x[:cut])
    other = model.session()
    other.from_bytes(session.to_bytes())
    assert np.array_equal(np.concatenate([first, stream(other, x[cut:])]), whole)


@settings(max_examples=100, deadline=None)
@given(networks(most=3), st.integers(1, 30), st.sampled_from(ISAS), st.sampled_from(["int8", "int8a16"]))
def test_random_integer_networks(network: Network, cut: int, isa: str, format_: str) -> None:
    x = rows(36, network.input_size, seed=cut)
    network = quantised(network, format_, x)
    model = Model.from_network(network, isa=isa)
    whole = model.run_window(x)
    assert np.isfinite(whole).all()
    # Many roundings flip in a random network, so only the typical error is small; exact sums are tested by kernel.
    want = network_reference.run(network, x)
    scale = max(1.0, np.abs(want).max())
    assert np.sqrt(np.mean((whole - want) ** 2)) <= {"int8": 0.05, "int8a16": 2e-3}[format_] * scale
    session = model.session()
    first = stream(session, x[:cut])
    assert np.array_equal(np.concatenate([first, stream(session.copy(), x[cut:])]), whole)


@settings(max_examples=25, deadline=None)
@given(networks(positions=True, strides=False), st.sampled_from(ISAS))
def test_absolute_positions_over_a_window(network: Network, isa: str) -> None:
    model = Model.from_network(network, isa=isa)
    assert model.max_steps == network.max_steps
    x = rows(network.max_steps, network.input_size)
    want = network_reference.run(network, x)
    assert np.abs(model.run_window(x) - want).max() <= 1e-4 * max(1.0, np.abs(want).max())


def test_one_model_shared_by_eight_threads() -> None:
    model = Model.from_network(family("transformer"))
    x = [rows(150, 20, seed=i) for i in range(8)]
    want = [model.run_window(a) for a in x]
    results: list[list[bool]] = [[] for _ in x]
    barrier = threading.Barrier(len(x))

    def work(i: int) -> None:
        barrier.wait()
        for _ in range(3):
            results[i].append(np.array_equal(model.run_window(x[i]), want[i]))
            results[i].append(np.array_equal(stream(model.session(), x[i]), want[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(x))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[True] * 6] * 8
