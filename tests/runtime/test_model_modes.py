"""Windowed models, precisions, families and several outputs: from ``model.toml`` through the engine."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from inference import network_reference
from inference.networks import FAMILIES, Builder, dense, family, lstm, quantised, rows
from model_on_disk import FEATURES, write_model

from tengri_fast.errors import ModelLoadingError
from tengri_fast.features import FeaturePlan
from tengri_fast.inference import Model, Network, PositionLayer
from tengri_fast.runtime.engine import TengriNeuralEngine
from tengri_fast.runtime.model_spec import load_bundle

SECOND = 1_000_000_000
START = 1_721_347_200 * SECOND
WIDTH = len(FEATURES)
TYPES = {
    "lstm": "LSTM",
    "gru": "GRU",
    "projected": "LSTM",
    "mlp": "MLP",
    "tcn": "TCN",
    "wavenet": "CNN",
    "deeplob": "DeepLOB",
    "transformer": "Transformer",
    "strided": "Custom",
    "pooled": "Conv1d",
}


def recomputed(network: Network, x: np.ndarray, window: int) -> np.ndarray:
    """Answers over the last `window` rows by the float64 oracle."""
    if window == 0:
        return network_reference.run(network, x)
    return np.array([network_reference.run(network, x[max(0, t - window + 1) : t + 1])[-1] for t in range(len(x))])


def write(folder, network, *, window=0, tolerance=1e-4, **changes):
    """A model on disk as a compiled file, its golden outputs by the oracle."""
    path = write_model(folder)
    Model.from_network(network).save(folder / "model.tgp")
    x = rows(30, WIDTH)
    np.savez(folder / "golden.npz", x=x, y=recomputed(network, x, window))
    text = path.read_text()
    digest = hashlib.sha256((folder / "model.tgp").read_bytes()).hexdigest()
    old = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    for before, after in (
        ('onnx = "model.onnx"', 'onnx = "model.tgp"'),
        (old, digest),
        ("tolerance = 1e-4", f"tolerance = {tolerance}"),
        ('id = "tiny"', f'id = "tiny"\nstate = "windowed"\nwindow = {window}' if window else 'id = "tiny"'),
        *changes.items(),
    ):
        before = {"type": 'type = "LSTM"', "outputs": 'kind = "logits"', "id": 'id = "tiny"'}.get(before, before)
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)
    return path


def head(width=3, **options):
    b = Builder(np.random.default_rng(9), WIDTH)
    b.add(lstm(b.rng, WIDTH, 7))
    b.add(dense(b.rng, 7, width))
    return b.network(**options)


def quotes(n, seed=0):
    rng = np.random.default_rng(seed)
    ts = START + np.cumsum(rng.integers(1, 50_000_000, n))
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


def feature_rows(bundle, events):
    norm = bundle.spec.normalisation
    state = FeaturePlan(bundle.plan.specs).with_normalisation(
        np.array(norm.mean), np.array(norm.scale), norm.clip).state()  # fmt: skip
    found, row = [], np.empty(bundle.plan.width, np.float32)
    for event in events:
        assert state.update_quote(*event)
        if state.ready:
            state.emit(row)
            found.append(row.copy())
    return np.array(found)


def probabilities(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("window", [1, 6, 25])
def test_windowed_engine_equals_recomputation(tmp_path, window):
    network = head()
    bundle = load_bundle(write(tmp_path, network, window=window))
    assert bundle.golden_error < 1e-5
    events = quotes(200)
    engine = TengriNeuralEngine(bundle)
    got = np.array(feed(engine, engine.add_instrument("A"), events))
    x = feature_rows(bundle, events)
    np.testing.assert_allclose(got[:, 2:5], probabilities(recomputed(network, x, window)), atol=1e-5)
    streamed = probabilities(recomputed(network, x, 0))
    if window < 25:  # this LSTM forgets within 25 steps
        assert np.abs(got[:, 2:5] - streamed).max() > 1e-3, "a window is not a stream"


def test_windowed_engine_saves_resets_and_keeps_instruments_apart(tmp_path):
    bundle = load_bundle(write(tmp_path, head(), window=9))
    events = quotes(300)
    engine = TengriNeuralEngine(bundle)
    a, b = engine.add_instrument("A"), engine.add_instrument("B")
    feed(engine, b, quotes(120, seed=4))
    feed(engine, a, events[:150])
    saved = engine.to_bytes()
    rest = feed(engine, a, events[150:])
    other = TengriNeuralEngine(bundle)
    other.from_bytes(saved)  # before any instrument was added here
    assert other.to_bytes() == saved
    assert feed(other, other.slot("A"), events[150:]) == rest
    assert other.to_bytes() == engine.to_bytes()
    alone = TengriNeuralEngine(bundle)
    slot = alone.add_instrument("A")
    first = feed(alone, slot, events)
    assert first[-len(rest) :] == rest
    alone.reset()
    assert feed(alone, slot, events) == first
    assert alone.nbytes > 9 * 64


def test_windowed_state_is_bound_to_the_window(tmp_path):
    engines = []
    for window in (4, 5, 0):
        engine = TengriNeuralEngine(load_bundle(write(tmp_path / str(window), head(), window=window)))
        feed(engine, engine.add_instrument("A"), quotes(60))
        engines.append(engine)
    kept = [engine.to_bytes() for engine in engines]
    for i, engine in enumerate(engines):
        for j, data in enumerate(kept):
            if i != j:
                with pytest.raises(ModelLoadingError, match="saved engine state"):
                    engine.from_bytes(data)
        assert engine.to_bytes() == kept[i]


@pytest.mark.parametrize("name", FAMILIES)
def test_type_is_checked_against_the_layers(tmp_path, name):
    network = family(name, inputs=WIDTH)
    bundle = load_bundle(write(tmp_path, network, type=f'type = "{TYPES[name]}"'))
    assert bundle.golden_error < 1e-5
    engine = TengriNeuralEngine(bundle)
    assert len(feed(engine, engine.add_instrument("A"), quotes(200))) > 40
    wrong = "MLP" if name != "mlp" else "GRU"
    with pytest.raises(ModelLoadingError, match=rf"`type` must be what model.tgp holds .*was '{wrong}'"):
        load_bundle(write(tmp_path, network, type=f'type = "{wrong}"'))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "int8a16"])
def test_precision_agrees_with_the_artefact(tmp_path, precision):
    x = rows(60, WIDTH)
    plain = head()
    network = plain.converted(precision) if "int" not in precision else quantised(plain, precision, x)
    line = f'id = "tiny"\nprecision = "{precision}"'
    bundle = load_bundle(write(tmp_path, network, tolerance=0.05, id=line))
    assert bundle.model.format == precision
    with pytest.raises(
        ModelLoadingError, match=rf"`precision` must be what model.tgp holds \({precision}\), was 'fp32'"
    ):
        load_bundle(write(tmp_path, network, tolerance=0.05))
    with pytest.raises(ModelLoadingError, match=rf"`precision` must be what .*\(fp32\), was '{precision}'"):
        load_bundle(write(tmp_path, plain, id=line))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_float_artefacts_become_16_bits(tmp_path, precision):
    path = write_model(tmp_path, extra=f'precision = "{precision}"')
    path.write_text(path.read_text().replace("tolerance = 1e-4", "tolerance = 0.05"))
    bundle = load_bundle(path)
    assert bundle.model.format == precision
    assert 1e-6 < bundle.golden_error < 0.05
    path.write_text(path.read_text().replace(f'"{precision}"', '"int8"'))
    with pytest.raises(ModelLoadingError, match=r"`precision` must be what model.onnx holds \(fp32\), was 'int8'"):
        load_bundle(path)


def test_one_of_several_outputs(tmp_path):
    network = head(5, outputs=(("size", 2), ("logits", 3)))
    with pytest.raises(ModelLoadingError, match=r"`outputs.name` must say which output .*\(size, logits\), was empty"):
        load_bundle(write(tmp_path, network))
    for name, text in (("volume", "must be one of size, logits"), ("size", "needs 3 outputs, output `size` of")):
        with pytest.raises(ModelLoadingError, match=text):
            load_bundle(write(tmp_path, network, outputs=f'kind = "logits"\nname = "{name}"'))
    bundle = load_bundle(write(tmp_path, network, outputs='kind = "logits"\nname = "logits"'))
    assert bundle.column == 2
    events = quotes(120)
    engine = TengriNeuralEngine(bundle)
    got = np.array(feed(engine, engine.add_instrument("A"), events))
    want = network_reference.run(network, feature_rows(bundle, events))[:, 2:]
    np.testing.assert_allclose(got[:, 2:5], probabilities(want), atol=1e-5)


def test_one_of_several_horizons(tmp_path):
    network = head(6)
    with pytest.raises(ModelLoadingError, match=r"needs 3 outputs, model\.tgp has 6"):
        load_bundle(write(tmp_path, network))
    with pytest.raises(ModelLoadingError, match=r"`outputs\.group` must be below 2 groups of 3 in 6 values, was 2"):
        load_bundle(write(tmp_path, network, outputs='kind = "logits"\ngroup = 2'))
    bundle = load_bundle(write(tmp_path, network, outputs='kind = "logits"\ngroup = 1'))
    events = quotes(120)
    engine = TengriNeuralEngine(bundle)
    got = np.array(feed(engine, engine.add_instrument("A"), events))
    want = network_reference.run(network, feature_rows(bundle, events))[:, 3:]
    np.testing.assert_allclose(got[:, 2:5], probabilities(want), atol=1e-5)


def test_absolute_positions_need_a_window(tmp_path):
    b = Builder(np.random.default_rng(2), WIDTH)
    b.add(PositionLayer(b.rng.standard_normal((8, WIDTH)).astype(np.float32)))
    b.attend(2, 1, 4, 4, 8, "none")
    b.add(dense(b.rng, WIDTH, 3))
    network = b.network()
    kind = 'type = "Transformer"'
    with pytest.raises(ModelLoadingError, match=r'`state` must be "windowed".*at most 8.*absolute positions'):
        load_bundle(write(tmp_path, network, type=kind))
    path = write(tmp_path, network, window=8, type=kind)
    assert load_bundle(path).golden_error < 1e-5
    path.write_text(path.read_text().replace("window = 8", "window = 9"))
    with pytest.raises(ModelLoadingError, match=r"`window` must be at most 8, the positions of model\.tgp, was 9"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ('state = "windowed"', '`window` must be >= 1 where `state` is "windowed", was 0'),
        ("window = 5", '`window` must be 0 unless `state` is "windowed", was 5'),
        ('precision = "int4"', "int4"),
        ("window = -1", "window"),
    ],
)
def test_modes_that_do_not_fit_are_named(tmp_path, extra, text):
    with pytest.raises(ModelLoadingError, match=text):
        load_bundle(write_model(tmp_path, extra=extra))


def test_a_damaged_compiled_file_is_refused(tmp_path):
    path = write(tmp_path, head())
    data = (tmp_path / "model.tgp").read_bytes()
    bad = data[:200] + bytes([data[200] ^ 1]) + data[201:]
    (tmp_path / "model.tgp").write_bytes(bad)
    text = path.read_text()
    with pytest.raises(ModelLoadingError, match="`sha256`"):
        load_bundle(path)
    path.write_text(text.replace(hashlib.sha256(data).hexdigest(), hashlib.sha256(bad).hexdigest()))
    with pytest.raises(ModelLoadingError, match=r"model\.toml: model\.tgp: "):
        load_bundle(path)
