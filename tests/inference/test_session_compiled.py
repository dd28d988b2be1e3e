"""Compiled models from Python: what is saved is what was there, on every instruction set; damage is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from inference.networks import FAMILIES, family, quantised, rows

from tengri_fast import _native
from tengri_fast.errors import ConfigurationError, ModelLoadingError
from tengri_fast.inference import Model, Network, compiled, load_model

ISAS = _native.isa_available()


@pytest.mark.parametrize("format_", ["fp32", "fp16", "int8", "int8a16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip(name: str, format_: str, tmp_path: Path) -> None:
    x = rows(40, 20)
    network = family(name)
    if format_ != "fp32":
        network = network.converted(format_) if format_ == "fp16" else quantised(network, format_, x)
    model = Model.from_network(network)
    path = tmp_path / "model.tgp"
    model.save(path)
    assert sorted(os.listdir(tmp_path)) == ["model.tgp"], "nothing is left beside it"
    for source in (path, str(path), path.read_bytes()):
        again = Model.from_compiled(source)
        assert again.network is None
        for field in ("sha256", "weights_hash", "format", "outputs", "metadata", "output_mode", "input_size", "isa"):
            assert getattr(again, field) == getattr(model, field), field
        for field in ("output_size", "period", "max_steps", "session_nbytes", "finish_bytes", "prepare_bytes"):
            assert getattr(again, field) == getattr(model, field), field
        assert [(a.name, a.kind, a.output_size) for a in again.layers] == [
            (b.name, b.kind, b.output_size) for b in model.layers
        ]
        assert again.traffic() == model.traffic()
        assert np.array_equal(again.run_window(x), model.run_window(x))
    assert compiled.to_bytes(again) == path.read_bytes(), "a compiled model can be saved again"
    session = again.session()
    session.from_bytes(model.session().to_bytes())
    for isa in ISAS:
        there = Model.from_compiled(path, isa=isa)
        assert there.isa == isa
        assert np.array_equal(there.run_window(x), Model.from_network(network, isa=isa).run_window(x))


def test_load_model_takes_compiled_files(tmp_path: Path) -> None:
    model = Model.from_network(family("tcn"))
    model.save(tmp_path / "m.tgp")
    for source in (tmp_path / "m.tgp", (tmp_path / "m.tgp").read_bytes()):
        for backend in ("auto", "native"):
            assert load_model(source, backend=backend).sha256 == model.sha256
    with pytest.raises(ModelLoadingError, match="`format` of a compiled model must be fp32, was 'fp16'"):
        load_model(tmp_path / "m.tgp", format="fp16")
    (tmp_path / "bad.tgp").write_bytes(b"\x89TGP\r\n\x1a\n" + bytes(200))
    with pytest.raises(ModelLoadingError, match=r"bad\.tgp"):
        load_model(tmp_path / "bad.tgp")


def test_the_file_keeps_the_model_alive(tmp_path: Path) -> None:
    path = tmp_path / "m.tgp"
    Model.from_network(family("mlp")).save(path)
    mapped, held = Model.from_compiled(path), Model.from_compiled(path.read_bytes())
    path.unlink()
    x = rows(5, 20)
    session = mapped.session()
    want = held.run_window(x)
    del mapped, held
    assert np.array_equal([session.step(row) for row in x], want)


def test_damage_is_refused(tmp_path: Path) -> None:
    data = compiled.to_bytes(Model.from_network(family("lstm")))
    rng = np.random.default_rng(1)
    broken = [b"", data[:-1], data[:64], data + bytes(64)]
    for at in rng.integers(0, len(data), 200):
        broken.append(data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :])
    path = tmp_path / "broken.tgp"
    for bad in broken:
        with pytest.raises(ModelLoadingError):
            Model.from_compiled(bad)
    for bad in broken[:20]:
        path.write_bytes(bad)
        with pytest.raises(ModelLoadingError, match=r"broken\.tgp"):
            Model.from_compiled(path)
    with pytest.raises(ModelLoadingError, match="no such file"):
        Model.from_compiled(tmp_path / "nowhere.tgp")
    with pytest.raises(ModelLoadingError, match="zero bytes"):
        Model.from_compiled("a\0b.tgp")
    with pytest.raises(ConfigurationError, match="avx9000"):
        Model.from_compiled(data, isa="avx9000")


def test_saving_is_atomic(tmp_path: Path) -> None:
    model, other = Model.from_network(family("mlp")), Model.from_network(family("gru"))
    path = tmp_path / "m.tgp"
    model.save(path)
    other.save(path)
    assert Model.from_compiled(path).sha256 == other.sha256
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "gone" / "m.tgp")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        model.save(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["folder", "m.tgp"]


@pytest.mark.parametrize(
    "layers", ['[["a", "dense", Infinity, "fp32"]]', '[["a", "dense", NaN, "fp32"]]', '[["a"]]', '{"a": 1}', "7"]
)
def test_a_strange_note_is_passed_over(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note is text beside the plan: whatever it says, the model runs."""
    model = Model.from_network(family("mlp"))
    note = compiled.note_of(model).decode()
    start = note.index('"layers":') + len('"layers":')
    monkeypatch.setattr(compiled, "note_of", lambda model: f"{note[:start]}{layers}}}".encode())
    again = Model.from_compiled(compiled.to_bytes(model))
    assert again.layers == ()
    assert again.traffic() == ()
    assert np.array_equal(again.run_window(rows(5, 20)), model.run_window(rows(5, 20)))


def test_the_note_gives_way_when_it_is_too_long() -> None:
    network = family("mlp")
    big = Network(network.nodes, 20, metadata={"text": "x" * 70_000, "few": "y"})
    note = json.loads(compiled.note_of(Model.from_network(big)))
    assert (note["metadata"], note["layers"][0][1]) == ({}, "dense")
    again = Model.from_compiled(compiled.to_bytes(Model.from_network(big)))
    assert again.sha256 == big.sha256()
    assert [layer.kind for layer in again.layers] == ["dense"] * 3
