"""Training end to end, in the interpreter that has PyTorch: small, seeded, and the same twice."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from support import REPOSITORY, sample_data

from tengri_fast.errors import ConfigurationError, MissingExtraError
from tengri_fast.features import FeaturePlan, parse_spec
from tengri_fast.training.recipe import Recipe, Segment, build_segment, normalise, train, training_python

SECOND = 1_000_000_000


def segment(date, span=(0.0, 1.0)):
    stem = f"binance_usdm_btcusdt_{date}"
    return Segment(date, sample_data(f"{stem}.quotes.parquet"), sample_data(f"{stem}.trades.parquet"), span=span)


def tiny() -> Recipe:
    return Recipe(
        id="tiny", title="tiny", description="for a test", licence="Apache-2.0",
        features=("imbalance()", "mid_return(lag=1)", "signed_trade_flow(window='1s')"), clock="quote", horizon="1s",
        train=(segment("20230404"),), validation=segment("20240718", (0.0, 0.5)), test=segment("20240718", (0.5, 1.0)),
        hidden=8, layers=1, epochs=2, length=64, burn_in=8, golden_steps=32,
    )  # fmt: skip


@pytest.fixture(scope="module")
def python():
    for candidate in (os.environ.get("TENGRI_TRAIN_PYTHON"), REPOSITORY / ".venv-train" / "bin" / "python"):
        if candidate and Path(candidate).exists():
            try:
                return training_python(str(candidate))
            except MissingExtraError:
                continue
    pytest.skip("no interpreter with PyTorch: set TENGRI_TRAIN_PYTHON or run `make train-env`")


@pytest.fixture(scope="module")
def first(tmp_path_factory, python):
    lines = []
    bundle = train(tiny(), tmp_path_factory.mktemp("first"), python, lines.append)
    assert sum(line.startswith("epoch") for line in lines) == 2
    return bundle


def test_trains_and_is_reproducible(tmp_path, python, first):
    second = train(tiny(), tmp_path, python, lambda _: None)
    assert (tmp_path / "model.onnx").read_bytes() == (first.path.parent / "model.onnx").read_bytes()
    assert first.model_sha256 == second.model_sha256
    assert first.golden_error < 1e-5
    assert "## Unseen data" in (tmp_path / "CARD.md").read_text()


def test_another_seed_is_another_model(tmp_path, python, first):
    second = train(dataclasses.replace(tiny(), seed=8), tmp_path, python, lambda _: None)
    assert first.model_sha256 != second.model_sha256


def test_no_torch_is_one_sentence(tmp_path, monkeypatch):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("TENGRI_TRAIN_PYTHON", str(fake))
    with pytest.raises(MissingExtraError, match=r"tengri_fast\[train\]"):
        training_python()
    monkeypatch.setenv("TENGRI_TRAIN_PYTHON", str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match="TENGRI_TRAIN_PYTHON"):
        training_python()


def test_a_part_is_the_whole_cut_and_its_labels_do_not_look_past_its_end():
    plan = FeaturePlan([parse_spec("imbalance()"), parse_spec("mid_return(lag=5)")])
    whole = build_segment(segment("20240718"), plan, "quote", SECOND, 4.0)
    part = build_segment(segment("20240718", (0.25, 0.6)), plan, "quote", SECOND, 4.0)
    first, last = round(0.25 * len(whole.ts)), round(0.6 * len(whole.ts))
    np.testing.assert_array_equal(part.rows, whole.rows[first:last])
    np.testing.assert_array_equal(part.ts, whole.ts[first:last])
    inside = part.ts + SECOND <= whole.ts[last]
    np.testing.assert_array_equal(part.labels[inside], whole.labels[first:last][inside])
    assert (part.labels[~inside] == -1).all()
    assert (part.weights[part.labels < 0] == 0).all()
    assert (~inside).any()


def test_normalisation_is_the_plans():
    plan = FeaturePlan([parse_spec("imbalance()"), parse_spec("mid_return(lag=1)")])
    rows = np.random.default_rng(0).normal(0, 3, (500, 2))
    mean, scale = np.array([0.1, -0.2]), np.array([0.7, 1.9])
    ours = normalise(rows, mean, scale, 2.0)
    np.testing.assert_array_equal(ours, plan.with_normalisation(mean, scale, 2.0).normalise(rows))


def test_a_segment_without_a_book_is_refused():
    plan = FeaturePlan([parse_spec("imbalance()")])
    with pytest.raises(ConfigurationError, match="`nothing`"):
        build_segment(Segment("nothing"), plan, "quote", SECOND, 1.0)
