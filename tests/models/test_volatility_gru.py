"""The volatility network that ships: loads, equals ONNX Runtime and its golden answers, streams, is not forged."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from support import shared_data
from volatility_paths import gjr_path

from tengri_fast.errors import ModelLoadingError, NeuralIntegrationError
from tengri_fast.models import FOLDER
from tengri_fast.risk.forecast_losses import qlike
from tengri_fast.risk.neural_volatility import FEATURES, WARMUP, VolatilityFeatures, forecast_variances
from tengri_fast.risk.volatility import EwmaVolatility, NeuralRiskModel
from tengri_fast.runtime.volatility import load_volatility

ZOO = FOLDER / "volatility_gru"


@pytest.fixture(scope="module")
def model():
    return load_volatility("volatility_gru")


def feed(session, returns, realised=None):
    out = []
    for t, r in enumerate(returns):
        session.update(float(r), math.nan if realised is None else float(realised[t]))
        out.append(session.forecast())
    return np.array(out)


def test_golden_engine_and_onnx_runtime_agree(model):
    assert model.golden_error < 1e-5
    assert {layer.kind for layer in model.model.layers} == {"gru", "dense"}
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = ort.InferenceSession(str(ZOO / "model.onnx"), providers=["CPUExecutionProvider"])
    rows, _ = VolatilityFeatures().rows(gjr_path(2, 1500)[0])
    theirs = session.run(None, {"x": rows[None]})[0][0]
    assert theirs.std() > 0.05
    np.testing.assert_allclose(model.model.run_window(rows), theirs, atol=1e-5)
    with np.load(ZOO / "golden.npz", allow_pickle=False) as stored:
        np.testing.assert_allclose(session.run(None, {"x": stored["x"][None]})[0][0], stored["y"], atol=1e-5)


@pytest.mark.parametrize("bars", [False, True])
def test_the_stream_is_the_window(model, bars):
    returns, truth = gjr_path(3, 800)
    realised = truth * np.random.default_rng(1).gamma(4.0, 0.25, 800) if bars else None
    session = model.session()
    assert isinstance(session, NeuralRiskModel)
    said = feed(session, returns, realised)
    window = np.sqrt(forecast_variances(model.model, returns, realised))
    assert np.isnan(said[: WARMUP - 1]).all()
    np.testing.assert_array_equal(said[WARMUP - 1 :], window[WARMUP - 1 :])
    data = session.to_bytes()
    ahead = feed(session, returns[:50])
    other = model.session()
    other.from_bytes(data)
    np.testing.assert_array_equal(feed(other, returns[:50]), ahead)


def test_the_unit_of_a_price_is_nothing_to_it(model):
    returns, _ = gjr_path(4, 400)
    one, other = feed(model.session(), returns), feed(model.session(), 30.0 * returns)
    np.testing.assert_allclose(other[WARMUP:], 30.0 * one[WARMUP:], rtol=1e-5)


def test_it_reacts_to_a_fall_more_than_to_a_rise(model):
    returns, _ = gjr_path(6, 500)
    ratios = []
    for shock in (-0.05, 0.05):
        session = model.session()
        feed(session, np.r_[returns, shock])
        ratios.append(session.forecast())
    assert ratios[0] > ratios[1]


def test_on_a_path_with_leverage_it_beats_the_plain_average(model):
    returns, truth = gjr_path(8, 6000)
    ours = forecast_variances(model.model, returns)[WARMUP:-1]
    ewma = feed(EwmaVolatility(), returns)[WARMUP:-1] ** 2
    assert qlike(truth[WARMUP + 1 :], ours) < qlike(truth[WARMUP + 1 :], ewma)


def test_the_card_says_what_it_must():
    text = (ZOO / "CARD.md").read_text(encoding="utf-8")
    for word in ("## Data", "## Model", "## Unseen data", "## Limits", "EWMA", "HAR", "GARCH", "GJR", "configurations"):
        assert word in text


def test_the_card_can_be_reproduced(model):
    """QLIKE of the shipped weights on the S&P 500, 2014 to 2022, less EWMA's, is the number in the card."""
    shared_data("daily", "sp500_20stocks_1990_2022.csv.gz")
    root = shared_data("daily", "sp500_index_1990_2022.csv.gz").parent.parent
    from tengri_fast.training.volatility import SPLITS, forecasts, test_rows
    from tengri_fast.training.volatility_data import load_series

    one = load_series(root)[0][0]
    first, last = test_rows(one, SPLITS[-1])
    said = forecasts(one, SPLITS[-1], model.model)
    seen = one.returns[first:last] ** 2
    gap = qlike(seen, said["GRU"]) - qlike(seen, said["EWMA"])
    shipped = (ZOO / "CARD.md").read_text(encoding="utf-8").split("### Test 2014-2022")[1]
    row = next(line for line in shipped.splitlines() if line.startswith("| S&P 500 |"))
    cell = row.split("|")[8].strip(" *")
    assert gap == pytest.approx(float(cell), abs=1.1e-4)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('sha256 = "', 'sha256 = "0', "`sha256`"),
        ('"r / sqrt(a)"', '"r"', "`features`"),
        ('type = "GRU"', 'type = "LSTM"', "`type`"),
        ('path = "golden.npz"', 'path = "nothing.npz"', "golden"),
        ('onnx = "model.onnx"', 'onnx = "nothing.onnx"', "no such file"),
        ('period = "1d"', "period = 1", "period"),
        ("[golden]", "[golden", "volatility.toml"),
    ],
)
def test_a_forged_description_is_refused(tmp_path, old, new, match):
    folder = shutil.copytree(ZOO, tmp_path / "model")
    path = folder / "volatility.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ModelLoadingError, match=match):
        load_volatility(folder)


def test_other_golden_answers_are_refused(tmp_path):
    folder = shutil.copytree(ZOO, tmp_path / "model")
    with np.load(folder / "golden.npz", allow_pickle=False) as stored:
        x, y = stored["x"], stored["y"]
    for wrong, match in ((y + 1e-3, "golden answers"), (y * np.nan, "golden answers"), (y[:-1], "must hold x")):
        np.savez(folder / "golden.npz", x=x, y=wrong)
        with pytest.raises(ModelLoadingError, match=match):
            load_volatility(folder)
    with pytest.raises(ModelLoadingError, match="no such file"):
        load_volatility("no_such_model")
    assert x.shape[1] == len(FEATURES)


def test_a_damaged_network_state_changes_nothing(model):
    returns, _ = gjr_path(9, 300)
    session = model.session()
    feed(session, returns)
    data = session.to_bytes()
    for wrong in (data[:-1], data + b"\0", data[:-40] + b"\xff" * 40, data[: len(data) // 2]):
        with pytest.raises(NeuralIntegrationError):
            session.from_bytes(wrong)
    assert session.to_bytes() == data
