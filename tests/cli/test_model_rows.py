"""Rows for the model commands: whatever the files hold, an error says so and names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from model_networks import network, rows
from support import REPOSITORY, sample_data

from tengri_fast.cli import main
from tengri_fast.cli.model_files import load_rows, split_rows
from tengri_fast.errors import ConfigurationError
from tengri_fast.inference.canonical import write_canonical
from tengri_fast.runtime.model_spec import load_model_spec

pytest.importorskip("tengri_fast.inference.session")


def call(*words: Any) -> Any:
    return CliRunner().invoke(main, [str(word) for word in words])


def npz(place: Path, change: Any) -> bytes:
    np.savez(place / "whole.npz", x=rows(100))
    return change((place / "whole.npz").read_bytes())


BROKEN = {
    "junk.npz": (lambda place: b"PK\x03\x04 no archive", "cannot be read as arrays"),
    "cut.npz": (lambda place: npz(place, lambda data: data[:-50]), "cannot be read as arrays"),
    "spoiled.npz": (lambda place: npz(place, lambda d: d[:300] + bytes([d[300] ^ 255]) + d[301:]), "Bad CRC"),
    "array.npz": (lambda place: npy(place), "it is no zip archive"),
    "archive.npy": (lambda place: npz(place, bytes), "it holds several arrays"),
    "empty.npy": (lambda place: b"", "cannot be read as arrays"),
    "none.npy": (lambda place: npy(place, 0), "must hold rows, held none"),
    "rows.txt": (lambda place: b"1 2 3", "must be .npy, .npz or .parquet"),
}


def npy(place: Path, count: int = 100) -> bytes:
    np.save(place / "whole.npy", rows(max(count, 1))[:count])
    return (place / "whole.npy").read_bytes()


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("command", ["quantize", "bench"])
def test_broken_files_are_named(tmp_path: Path, name: str, command: str) -> None:
    make, words = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(make(tmp_path))
    model = tmp_path / "lstm.onnx"
    model.write_bytes(write_canonical(network("lstm")))
    options = ["--rows", path, "--no-rivals"] if command == "bench" else ["--calibration", path, "-o", tmp_path / "o"]
    result = call(command, model, *options)
    assert result.exit_code == 2, result.output
    assert "Error: " in result.output
    assert name in result.output
    assert words in result.output
    assert not (tmp_path / "o").exists()


def test_rows_beyond_float32_are_refused_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(100).astype(np.float64) * 1e300)
    with np.errstate(all="raise"):
        found = load_rows([tmp_path / "x.npy"], None, 5)
    assert np.isinf(found[0]).any()


def test_tables_that_are_none(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({}), tmp_path / "none.parquet")
    with pytest.raises(ConfigurationError, match="must have a column for each feature, has none"):
        load_rows([tmp_path / "none.parquet"], None, 5)
    table = pa.table({str(i): rows(2_000)[:, i] for i in range(5)})
    parquet.write_table(table, tmp_path / "x.parquet")
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    data[20:2_000] = bytes(1_980)
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(ConfigurationError, match="cannot be read as Parquet"):
        load_rows([tmp_path / "x.parquet"], None, 5)


def test_held_out_rows_that_overlap_the_calibration() -> None:
    x = rows(300)
    for part in (x, x[:64], x[100:250], np.concatenate([rows(64, seed=9), x[-20:]])):
        with pytest.raises(ConfigurationError, match="16 rows in a row are in both"):
            split_rows([x], [part], 0.3)
    flat = np.concatenate([np.zeros((50, 5), np.float32), rows(50, seed=9)])
    assert len(split_rows([np.concatenate([x, np.zeros((50, 5), np.float32)])], [flat], 0.3).held_out) == 1


@pytest.mark.parametrize("options", [["--steps", 10**20], ["--rounds", 10**9]])
def test_numbers_without_end_are_refused(tmp_path: Path, options: list[Any]) -> None:
    (tmp_path / "lstm.onnx").write_bytes(write_canonical(network("lstm")))
    result = call("bench", tmp_path / "lstm.onnx", *options)
    assert result.exit_code == 2
    assert "is not in the range" in result.output


def test_what_tengri_features_writes_is_read_as_rows(tmp_path: Path) -> None:
    """The normalised file gives the rows that market data give through the same model; a raw one is refused."""
    pytest.importorskip("pyarrow", reason="the sample is Parquet")
    model = REPOSITORY / "models" / "lstm_btcusdt" / "model.toml"
    market = [sample_data(f"binance_usdm_btcusdt_20230404.{kind}.parquet") for kind in ("quotes", "trades")]
    words = ["features", model, "--data", market[0], "--data", market[1], "--out"]
    assert call(*words, tmp_path / "rows.parquet", "--float32").exit_code == 0
    assert call(*words, tmp_path / "raw.parquet").exit_code == 0
    width = len(load_model_spec(model).inputs.features)
    (found,) = load_rows([tmp_path / "rows.parquet"], None, width)
    (through,) = load_rows(market, model, width)
    assert found.tobytes() == through.tobytes()
    with pytest.raises(ConfigurationError, match="must hold rows as the model is fed"):
        load_rows([tmp_path / "raw.parquet"], None, width)
