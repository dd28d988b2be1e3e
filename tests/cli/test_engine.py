"""``tengri engine build``, without a GPU."""

from __future__ import annotations

import importlib.util

import pytest
from click.testing import CliRunner

from tengri_fast.cli import main
from tengri_fast.models import model_path


def call(*words):
    return CliRunner().invoke(main, ["engine", "build", *map(str, words)])


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
@pytest.mark.parametrize("source", ["name", "folder", "onnx"])
def test_builds_from_a_name_a_folder_or_a_file(tmp_path, source):
    folder = model_path("lstm_btcusdt").parent
    model = {"name": "lstm_btcusdt", "folder": folder, "onnx": folder / "model.onnx"}[source]
    result = call(model, "--target", "SM89", "--out", tmp_path / "a.engine")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a.engine").stat().st_size > 100_000
    assert "fp16, for SM89" in result.stdout


def test_an_unknown_model_lists_the_zoo(tmp_path):
    result = call("lstm_btcusd", "--out", tmp_path / "a.engine")
    assert result.exit_code == 2
    assert "lstm_btcusdt" in result.stderr
    assert list(tmp_path.iterdir()) == []
