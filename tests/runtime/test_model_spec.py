"""``model.toml``: everything that can be wrong with a model is refused by name, and nothing is half-loaded."""

from __future__ import annotations

import numpy as np
import pytest
from model_on_disk import write_model

from tengri_fast.errors import ModelLoadingError
from tengri_fast.runtime.model_spec import load_bundle, load_model_spec


@pytest.fixture
def folder(tmp_path):
    write_model(tmp_path)
    return tmp_path


def change(folder, old, new):
    path = folder / "model.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_loads_and_passes_its_golden(folder):
    bundle = load_bundle(folder)
    assert bundle.golden_error < 1e-4
    assert bundle.plan.width == bundle.model.input_size == 4
    assert load_bundle(folder / "model.toml").model_sha256 == bundle.model_sha256


@pytest.mark.parametrize(("old", "new", "word"), [
    ('type = "LSTM"', 'type = "Perceiver"', "`type`.*Perceiver"),
    ('type = "LSTM"', 'type = "MLP"', "`type`.*LSTM"),
    ('onnx = "model.onnx"', 'onnx = "nowhere.onnx"', "`onnx`.*nowhere"),
    ("scale = [1.0,", "scale = [0.0,", "normalisation.scale"),
    ("mean = [0.0,", "mean = [nan,", "normalisation.mean"),
    ("mean = [0.0,", "mean = [0.0, 0.0,", "must have 4 values, had 5"),
    ('horizon = "10 events"', 'horizon = "soon"', "`outputs.horizon`.*soon"),
    ('clock = "quote"', 'clock = "sundial"', "sundial"),
    ('"imbalance()"', '"imbalanec()"', "imbalance"),
    ('"imbalance()", ', "", "must have 4 entries|must have 3 values"),
    ('path = "golden.npz"', 'path = "gone.npz"', "golden.path"),
    ("[golden]", "[golden]\nextra = 1", "extra"),
    ("[golden]", "[calibration]\ntemperature = inf\n\n[golden]", "calibration.temperature"),
    ('id = "tiny"', 'id = "tiny"\nstate = "windowed"', "windowed"),
    ('id = "tiny"', 'id = "tiny"\nreset_on = ["full moon"]', "full moon"),
    ('id = "tiny"', "id = 5", "id"),
    ('id = "tiny"', "id = ", "not TOML"),
])  # fmt: skip
def test_each_fault_is_named(folder, old, new, word):
    change(folder, old, new)
    with pytest.raises(ModelLoadingError, match=word) as caught:
        load_bundle(folder)
    assert "model.toml" in str(caught.value)


def test_a_changed_weight_file_is_refused(folder):
    path = folder / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelLoadingError, match="`sha256`"):
        load_bundle(folder)


def test_missed_golden_outputs_are_refused(folder):
    with np.load(folder / "golden.npz") as stored:
        x, y = stored["x"], stored["y"].copy()
    y[3, 1] += 0.01
    np.savez(folder / "golden.npz", x=x, y=y)
    with pytest.raises(ModelLoadingError, match="golden outputs"):
        load_bundle(folder)
    np.savez(folder / "golden.npz", x=x, y=y[:, :2])
    with pytest.raises(ModelLoadingError, match=r"golden\.path"):
        load_bundle(folder)
    (folder / "golden.npz").write_bytes(b"not a zip")
    with pytest.raises(ModelLoadingError, match=r"golden\.path"):
        load_bundle(folder)


@pytest.mark.parametrize("content", [b"PK\x03\x04 no archive", b"", b"\x93NUMPY\x01\x00"])
def test_damaged_golden_files_are_named(folder, content):
    (folder / "golden.npz").write_bytes(content)
    with pytest.raises(ModelLoadingError, match=r"golden\.path"):
        load_bundle(folder)


def test_an_endless_tolerance_is_none(folder):
    text = (folder / "model.toml").read_text()
    head, tail = text.split("[golden]")
    tail = "\n".join(line for line in tail.splitlines() if not line.startswith("tolerance"))
    (folder / "model.toml").write_text(f"{head}[golden]\ntolerance = inf{tail}")
    with pytest.raises(ModelLoadingError, match=r"`golden\.tolerance` must be finite, was inf"):
        load_bundle(folder)


def test_no_file_is_said_plainly(tmp_path):
    with pytest.raises(ModelLoadingError, match="no such file"):
        load_model_spec(tmp_path)
    (tmp_path / "model.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelLoadingError, match="cannot be read"):
        load_model_spec(tmp_path)
