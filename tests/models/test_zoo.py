"""Every model that ships: loads, answers as it did in training, agrees with ONNX Runtime, and has an honest card."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support import sample_data, shared_data

from tengri_fast.errors import ModelLoadingError
from tengri_fast.models import model_path, zoo
from tengri_fast.runtime.model_spec import load_bundle
from tengri_fast.training.recipe import Segment, evaluate_bundle


def test_the_zoo_is_not_empty():
    assert {"lstm_btcusdt", "lstm_rb2510"} <= set(zoo())


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ModelLoadingError, match="lstm_btcusdt"):
        model_path("lstm_btcusd")


@pytest.mark.parametrize("name", zoo())
def test_parity_with_onnx_runtime(name):
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    bundle = load_bundle(model_path(name))
    x = np.random.default_rng(11).normal(0, 1.5, (1200, bundle.plan.width)).astype(np.float32)
    session = ort.InferenceSession(str(bundle.path.parent / bundle.spec.onnx), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"x": x[None]})[0][0]
    assert theirs.std() > 0.05
    ours = bundle.model.run_window(x)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    stream = bundle.model.session()
    np.testing.assert_array_equal(np.array([stream.step(row).copy() for row in x]), ours)


@pytest.mark.parametrize("name", zoo())
def test_the_card_has_its_sections(name):
    text = model_path(name).with_name("CARD.md").read_text()
    for word in ("## Data", "## Unseen data", "imbalance", "reverse", "repeat", "## Limits"):
        assert word in text


def card_rate(name: str) -> float:
    text = model_path(name).with_name("CARD.md").read_text()
    return float(re.search(r"\*\*model\*\* \| ([0-9.]+)", text).group(1))


def test_the_btcusdt_card_can_be_reproduced():
    """The number in the card is what the shipped weights score on the shipped, unseen day."""
    stem = "binance_usdm_btcusdt_20240719"
    segment = Segment("20240719", quotes=sample_data(f"{stem}.quotes.parquet"),
                      trades=sample_data(f"{stem}.trades.parquet"))  # fmt: skip
    skill, probabilities, data = evaluate_bundle(load_bundle(model_path("lstm_btcusdt")), segment)
    assert skill.model.rate == pytest.approx(card_rate("lstm_btcusdt"), abs=2e-4)
    assert skill.model.rate > skill.baselines["imbalance"].high
    assert np.isfinite(probabilities).all(axis=1).sum() == data.ready.sum() > 40_000


def test_the_rb2510_card_can_be_reproduced():
    segment = Segment("20250609", depth=shared_data("tick", "shfe_rb", "shfe_rb2510_20250609.depth5.parquet"))
    skill, _, _ = evaluate_bundle(load_bundle(model_path("lstm_rb2510")), segment)
    assert skill.model.rate == pytest.approx(card_rate("lstm_rb2510"), abs=2e-4)
    assert skill.moves > 1000
