"""Models and sessions: streaming equals the window, on every instruction set, mid-stream and under hostile input."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from inference import reference

from tengri_fast import _native
from tengri_fast.errors import ConfigurationError, InferenceFailed, ModelLoadingError
from tengri_fast.inference import (
    ActivationLayer,
    DenseLayer,
    LstmLayer,
    Model,
    Network,
    Node,
    PoolLayer,
    PositionLayer,
    SliceLayer,
)

ISAS = _native.isa_available()
FIXTURES = Path(__file__).resolve().parent / "fixtures"
GOLDEN = ("last_softmax", "last_nobias", "every_mlp", "time_first", "hidden_state", "step_state", "mlp")


def lstm(rng: np.random.Generator, inputs: int, hidden: int) -> LstmLayer:
    return LstmLayer(
        rng.standard_normal((4 * hidden, inputs)) / np.sqrt(inputs),
        rng.standard_normal((4 * hidden, hidden)) / np.sqrt(hidden),
        rng.standard_normal(4 * hidden) * 0.3,
    )


def dense(rng: np.random.Generator, inputs: int, outputs: int, activation: str = "none") -> DenseLayer:
    return DenseLayer(
        rng.standard_normal((outputs, inputs)) / np.sqrt(inputs), rng.standard_normal(outputs), activation
    )


def stack(inputs: int, hidden: int, layers: int, outputs: int, activation: str = "softmax", seed: int = 5) -> list:
    rng = np.random.default_rng(seed)
    out = [lstm(rng, inputs if i == 0 else hidden, hidden) for i in range(layers)]
    return [*out, dense(rng, hidden, outputs, activation)]


def rows(count: int, width: int, seed: int = 3) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32) * 1.5
    assert len(np.unique(x)) > count // 2, "the inputs must vary"
    return x


def stream(session: object, x: np.ndarray) -> np.ndarray:
    return np.array([session.step(row) for row in x])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("inputs", "hidden", "layers", "outputs"),
    [(1, 1, 1, 1), (2, 3, 1, 2), (7, 15, 2, 3), (16, 16, 1, 17), (5, 17, 3, 33), (16, 64, 2, 3), (3, 97, 2, 5)],
)
def test_stream_equals_window_equals_float64(isa: str, inputs: int, hidden: int, layers: int, outputs: int) -> None:
    network = stack(inputs, hidden, layers, outputs, "none")
    model = Model.from_layers(network, isa=isa)
    assert (model.isa, model.input_size, model.output_size) == (isa, inputs, outputs)
    x = rows(1_200, inputs)
    window = model.run_window(x)
    assert np.array_equal(stream(model.session(), x), window)
    split = model.session()
    for i, row in enumerate(x):  # finish and prepare apart, input through the bound buffer
        split.input[:] = row
        assert np.array_equal(split.finish(), window[i])
        split.prepare()
    assert np.abs(window - reference.network(network, x)).max() < 2e-6


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 13, 100])
def test_chunks_with_save_load_and_copy(isa: str, chunk: int) -> None:
    model = Model.from_layers(stack(6, 20, 2, 3), isa=isa)
    x = rows(260, 6)
    whole = model.run_window(x)
    session, out = model.session(), []
    for start in range(0, len(x), chunk):
        other = model.session() if start % 2 else session.copy()
        other.from_bytes(session.to_bytes())
        assert np.array_equal(other.output, session.output)
        out.extend(stream(other, x[start : start + chunk]))
        session = copy.copy(other)
    assert np.array_equal(out, whole)


@pytest.mark.parametrize("isa", ISAS)
def test_state_between_finish_and_prepare(isa: str) -> None:
    model = Model.from_layers(stack(4, 9, 2, 2), isa=isa)
    x = rows(40, 4)
    whole = model.run_window(x)
    session = model.session()
    for i, row in enumerate(x):
        session.finish(row)
        if i % 3 == 0:  # taken apart before prepare, in three ways
            clone = session.copy()
            restored = model.session()
            restored.from_bytes(session.to_bytes())
            assert session.to_bytes() == clone.to_bytes() == restored.to_bytes()
            session = clone if i % 2 else restored
        if i % 5 != 4:  # a forgotten prepare is made up for by the next finish
            session.prepare()
        if i % 7 == 0:  # and a second one changes nothing
            session.prepare()
        assert np.array_equal(session.output, whole[i])


@pytest.mark.parametrize("isa", ISAS)
def test_reset_mid_stream_is_exact(isa: str) -> None:
    model = Model.from_layers(stack(3, 11, 2, 2), isa=isa)
    x = rows(50, 3)
    session = model.session()
    fresh = session.to_bytes()
    stream(session, x[:17])
    session.input[:] = np.nan
    session.finish()
    session.reset()
    assert session.to_bytes() == fresh
    assert np.array_equal(stream(session, x), model.run_window(x))


def test_copies_are_independent() -> None:
    model = Model.from_layers(stack(3, 8, 1, 2))
    a = model.session()
    stream(a, rows(5, 3))
    b, kept = copy.deepcopy(a), a.to_bytes()
    stream(b, rows(5, 3, seed=9))
    assert a.to_bytes() == kept != b.to_bytes()
    view = a.output
    del a
    assert np.isfinite(view).all(), "views outlive their session"


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("exporter", ["dynamo", "script"])
@pytest.mark.parametrize("isa", ISAS)
def test_golden_files(name: str, exporter: str, isa: str) -> None:
    golden = np.load(FIXTURES / f"{name}.npz", allow_pickle=False)
    model = Model.from_onnx(FIXTURES / f"{name}.{exporter}.onnx", isa=isa)
    want = golden["y"].reshape(-1, model.output_size)
    assert np.abs(want).max() > 0.05
    assert np.abs(model.run_window(golden["x"]) - want).max() < 1e-6
    assert np.array_equal(stream(model.session(), golden["x"]), model.run_window(golden["x"]))


@pytest.mark.parametrize("isa", ISAS)
def test_equals_onnx_runtime_over_many_steps(isa: str) -> None:
    pytest.importorskip("onnxruntime", reason="the rival is ONNX Runtime, which is not installed")
    from tengri_fast.inference import load_model

    x = rows(1_500, 5)
    native = Model.from_onnx(FIXTURES / "step_state.script.onnx", isa=isa)
    other = load_model(FIXTURES / "step_state.script.onnx", backend="onnxruntime")
    assert np.abs(stream(native.session(), x) - stream(other.session(), x)).max() < 2e-6


@pytest.mark.parametrize("isa", ISAS)
def test_nan_is_never_hidden(isa: str) -> None:
    network = [*stack(4, 18, 2, 3, "relu"), dense(np.random.default_rng(1), 3, 2, "tanh")]
    model = Model.from_layers(network, isa=isa)
    x = rows(20, 4)
    for column in range(4):
        bad = x.copy()
        bad[10, column] = np.nan
        y = model.run_window(bad)
        assert np.isfinite(y[:10]).all()
        assert np.isnan(y[10:]).all(), "the state holds it until a reset"
    session = model.session()
    session.step(np.full(4, np.nan))
    session.reset()
    assert np.array_equal(stream(session, x), model.run_window(x))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1e3, 1e10, 1e30, 3e38])
def test_gates_do_not_overflow(isa: str, size: float) -> None:
    model = Model.from_layers(stack(1, 18, 2, 3, "none"), isa=isa)
    x = np.array([[size], [-size], [size], [0.5], [-size]], np.float32)
    if size < 1e38:  # the products themselves stay finite
        assert np.isfinite(model.run_window(x)).all()
    small = Model.from_layers([LstmLayer(np.full((4, 1), 1e-8), np.zeros((4, 1)), np.zeros(4))], isa=isa)
    assert np.isfinite(small.run_window(x)).all()
    infinite = small.run_window(np.array([[np.inf], [-np.inf]]))
    assert np.allclose(infinite[0], np.tanh(1.0), atol=1e-6), "i = o = 1, g = 1"


def test_wrong_inputs_are_named() -> None:
    model = Model.from_layers(stack(3, 4, 1, 2))
    session = model.session()
    before = session.to_bytes()
    for bad in (np.zeros(2), np.zeros(4), np.zeros((1, 3)), 1.0, []):
        with pytest.raises(InferenceFailed, match=r"`x` must have shape \[3\]"):
            session.step(bad)
    with pytest.raises(InferenceFailed, match=r"\[T, 3\]"):
        model.run_window(np.zeros((5, 2)))
    assert model.run_window(np.zeros((0, 3))).shape == (0, 2)
    assert session.to_bytes() == before
    with pytest.raises(ValueError, match="read-only"):
        session.output[0] = 1.0
    with pytest.raises(ConfigurationError, match="avx9000"):
        Model.from_layers(stack(3, 4, 1, 2), isa="avx9000")
    assert np.array_equal(session.step([1, 2, 3]), model.run_window([[1.0, 2.0, 3.0]])[0])
    wide = np.zeros((2, 6), np.float32)
    wide[0, ::2] = [1, 2, 3]
    other = model.session()
    assert np.array_equal(other.step(wide[0, ::2]), model.run_window([[1.0, 2.0, 3.0]])[0]), "strided rows are copied"


def test_models_are_all_or_nothing() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ModelLoadingError, match="at least one layer"):
        Model.from_layers([])
    with pytest.raises(ModelLoadingError, match=r"layer 1.*must equal the output of the layer before it \(4\), was 5"):
        Model.from_layers([lstm(rng, 3, 4), dense(rng, 5, 2)])
    with pytest.raises(ModelLoadingError, match="held int"):
        Model.from_layers([3])
    with pytest.raises(ModelLoadingError, match="finite"):
        DenseLayer(np.array([[np.nan]]), np.zeros(1))
    with pytest.raises(ModelLoadingError, match="rows"):
        LstmLayer(np.zeros((8, 3)), np.zeros((12, 3)), np.zeros(12))
    with pytest.raises(ModelLoadingError, match="activation"):
        DenseLayer(np.zeros((1, 1)), np.zeros(1), "swish")
    for make in (Model, type(Model.from_layers([dense(rng, 1, 1)]).session())):
        with pytest.raises(TypeError, match="made by"):
            make()
        with pytest.raises(TypeError, match="made by"):
            make.__new__(make)


def test_saved_state_is_bound_and_checked() -> None:
    network = stack(3, 7, 2, 2)
    model = Model.from_layers(network)
    session = model.session()
    stream(session, rows(9, 3))
    data = session.to_bytes()
    target = model.session()
    stream(target, rows(4, 3, seed=8))
    kept = target.to_bytes()
    broken = [b"", data[:-1], data + b"\0"]
    broken += [data[:i] + bytes([data[i] ^ 0x40]) + data[i + 1 :] for i in range(len(data))]
    for bad in broken:
        with pytest.raises(InferenceFailed, match="`data` must be"):
            target.from_bytes(bad)
    assert target.to_bytes() == kept, "a refused load changes nothing"
    changed = [LstmLayer(network[0].w * np.float32(1.0001), network[0].r, network[0].bias), *network[1:]]
    with pytest.raises(InferenceFailed, match="another model"):
        Model.from_layers(changed).session().from_bytes(data)
    for isa in ISAS:  # weights are the same, so a state moves between instruction sets
        moved = Model.from_layers(network, isa=isa).session()
        moved.from_bytes(data)
        assert np.array_equal(moved.output, session.output)


def test_pickling_raises() -> None:
    model = Model.from_layers(stack(2, 3, 1, 1))
    for value in (model, model.session(), model.windowed(3), model.batch(2)):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(value)


def test_networks_from_python_are_refused_by_name() -> None:
    with pytest.raises(ModelLoadingError, match="`network` must be a Network, was list"):
        Model.from_network([])
    for layer, width in ((ActivationLayer("relu", 2**40), 2**40), (PoolLayer(3, 2**33), 3), (SliceLayer(0, 3), 2**41)):
        with pytest.raises(ModelLoadingError, match=rf"layer 0 `{layer.name}`: sizes|`input_size` must be below 2"):
            Model.from_network(Network((Node(layer),), width))
    with pytest.raises(ModelLoadingError, match=r"scales and constants must be finite as float32, was 1e\+300"):
        Model.from_layers([ActivationLayer("leaky_relu", 3, slope=1e300)])


def test_properties_of_a_network() -> None:
    rng = np.random.default_rng(1)
    network = Network(
        (Node(lstm(rng, 3, 8)), Node(dense(rng, 8, 5), (0,))),
        3,
        outputs=(("logits", 3), ("size", 2)),
        metadata={"features": "a b c"},
        output_mode="last",
    )
    model = Model.from_network(network)
    assert model.network is network
    assert model.layers == network.layers
    assert (model.outputs, model.metadata["features"]) == ((("logits", 3), ("size", 2)), "a b c")
    assert (model.format, model.period, model.max_steps, model.output_mode) == ("fp32", 1, 0, "last")
    assert model.sha256 == network.sha256()
    with pytest.raises(TypeError):
        model.metadata["features"] = "x"
    rows_ = model.traffic()
    assert [(row.name, row.kind) for row in rows_] == [("lstm", "lstm"), ("dense", "dense")]
    assert sum(row.finish_bytes for row in rows_) == model.finish_bytes > 0
    assert sum(row.prepare_bytes for row in rows_) == model.prepare_bytes > 0
    half = Model.from_network(network.converted("fp16"))
    assert half.format == "fp16"
    assert half.finish_bytes < model.finish_bytes
    assert half.weights_hash != model.weights_hash
    session = model.session()
    assert session.steps == 0
    stream(session, rows(4, 3))
    assert session.steps == 4
    session.reset()
    assert session.steps == 0


def test_onnx_weights_become_16_bits_on_request() -> None:
    path = FIXTURES / "every_mlp.dynamo.onnx"
    plain = Model.from_onnx(path)
    for format_, limit in (("fp16", 2e-3), ("bf16", 2e-2)):
        model = Model.from_onnx(path, format=format_)
        assert (model.format, model.sha256) == (format_, plain.sha256)
        x = rows(50, model.input_size)
        error = np.abs(model.run_window(x) - plain.run_window(x)).max()
        assert 0 < error < limit
    assert Model.from_onnx(path, format="fp32").weights_hash == plain.weights_hash
    with pytest.raises(ModelLoadingError, match="must be fp32, fp16 or bf16 to be converted to, was 'int8'"):
        Model.from_onnx(path, format="int8")


def test_absolute_positions_run_windowed_only() -> None:
    rng = np.random.default_rng(2)
    model = Model.from_layers([PositionLayer(rng.standard_normal((6, 3))), lstm(rng, 3, 4)])
    assert model.max_steps == 6
    with pytest.raises(ConfigurationError, match=r"`window` must be given, at most 6: .* runs windowed only"):
        model.session()
    with pytest.raises(InferenceFailed, match="`x` must have at most 6 rows"):
        model.run_window(rows(7, 3))
    for bad in (0, -1, 7, 2**40):
        with pytest.raises(ConfigurationError, match=f"`window` must be >= 1 and <= 6, was {bad}"):
            model.session(window=bad)
    x = rows(20, 3)
    windowed = model.session(window=6)
    for t, row in enumerate(x):
        assert np.array_equal(windowed.step(row), model.run_window(x[max(0, t - 5) : t + 1])[-1])


def test_sizes_and_identity() -> None:
    network = stack(3, 33, 2, 5)
    model = Model.from_layers(network)
    floats = sum(layer.w.size + layer.bias.size + (layer.r.size if layer.kind == "lstm" else 0) for layer in network)
    assert 4 * floats <= model.nbytes < 4 * floats * 3
    assert model.session_nbytes % 4 == 0
    assert model.sha256 == Model.from_layers(network).sha256 != Model.from_layers(stack(3, 33, 2, 5, seed=6)).sha256
    assert len({Model.from_layers(network, isa=isa).weights_hash for isa in ISAS}) == 1
    assert "lstm(33) -> lstm(33) -> dense(5)" in repr(model)


def test_eight_sessions_on_eight_threads() -> None:
    model = Model.from_layers(stack(8, 48, 2, 3))
    x = [rows(300, 8, seed=i) for i in range(8)]
    want = [model.run_window(a) for a in x]
    results: list[list[np.ndarray]] = [[] for _ in x]
    barrier = threading.Barrier(len(x))

    def work(i: int) -> None:
        barrier.wait()
        results[i].append(stream(model.session(), x[i]))
        results[i].append(model.run_window(x[i]))  # releases the GIL

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(x))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, expected in zip(results, want, strict=True):
        assert len(got) == 2
        assert all(np.array_equal(answer, expected) for answer in got)


def test_time_steps_moves_the_state_and_measures() -> None:
    model = Model.from_layers(stack(3, 16, 1, 2))
    x = rows(10, 3)
    session = model.session()
    times = session.time_steps(x, 25)
    assert times.shape == (2, 25)
    assert (times > 0).all()
    again = model.session()
    stream(again, np.concatenate([x, x, x[:5]]))
    assert again.to_bytes() == session.to_bytes()
    with pytest.raises(InferenceFailed, match="`n`"):
        session.time_steps(x, 0)
    with pytest.raises(InferenceFailed, match="`evict` and `idle_us` must be >= 0"):
        session.time_steps(x, 1, idle_us=-1.0)
    with pytest.raises(InferenceFailed, match=r"`x` must have shape \[rows, 3\]"):
        session.time_steps(np.zeros((0, 3)), 1)
    cold, waited = model.session(), model.session()
    assert cold.time_steps(x, 5, evict=1 << 20).shape == waited.time_steps(x, 5, idle_us=20.0).shape == (2, 5)
    assert cold.to_bytes() == waited.to_bytes()
