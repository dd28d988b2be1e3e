"""Every fixture of both exporters: read, and compared with PyTorch's float64 answers and with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inference import network_reference

from tengri_fast.inference import Model
from tengri_fast.inference.graph import read_network, signature
from tengri_fast.inference.network import Network

FIXTURES = Path(__file__).resolve().parent / "fixtures"
# The older exporter writes the example's length into nn.MultiheadAttention's reshapes: it runs at that length only.
BAKED = {"mha.script"}
FILES = sorted(p.stem for p in FIXTURES.glob("*.onnx") if not p.name.startswith("unsupported_") and p.stem not in BAKED)
KINDS = {
    "last_softmax": "lstm lstm dense",
    "gru_last": "gru gru dense",
    "horizons": "gru gru dense dense dense dense concat",
    "tcn": "conv conv dense add conv conv add conv conv add dense",
    "separable": "conv dense pool conv pool concat dense",
    "strided": "conv lstm dense",
    "deeplob": "conv affine conv conv conv conv dense conv dense conv concat lstm dense",
    "level_flatten": "conv gru",
    "window_dense": "conv dense",
    "window_mean": "gru pool pool concat dense",
    "mha_fixed": "dense norm dense slice slice slice attention dense add norm dense dense add norm dense",
    "llama": "dense norm dense dense dense attention dense add norm dense dense mul dense add dense",
    "llama_pairs": "dense norm dense dense dense attention dense add norm dense dense mul dense add dense",
    "alibi": "dense slice slice slice attention dense",
    "last_query": "gru dense dense dense attention dense",
    "lstm_cell": "lstm dense",
    "gru_cell": "gru gru dense",
    "concat_cell": "lstm dense",
    "projected_cell": "lstm dense",
    "minimal_gru": "gru dense",
    "conv_step": "conv conv add dense",
    "odd_row": "dense slice activation slice mul dense add norm slice activation concat",
}


def content(stem: str) -> bytes:
    return (FIXTURES / f"{stem}.onnx").read_bytes()


def golden(stem: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(FIXTURES / f"{stem.split('.')[0]}.npz", allow_pickle=False) as held:
        return held["x"], held["y"].reshape(len(held["y"]), -1)


def only(network: Network, kind: str) -> Any:
    found = [layer for layer in network.layers if layer.kind == kind]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("stem", FILES)
def test_network_is_what_pytorch_computes(stem: str) -> None:
    network = read_network(content(stem))
    x, want = golden(stem)
    assert np.ptp(want) > 1e-3, "the golden answers must vary"
    got = network_reference.run(network, x)
    assert got.shape[1] == want.shape[1] == network.output_size
    # Windows of fixed length have one golden row, of the last step. Weights are float32, and positions float32 tables.
    assert np.abs(got[-len(want) :] - want).max() < 2e-6
    name = stem.split(".")[0]
    if name in KINDS:
        assert " ".join(layer.kind for layer in network.layers) == KINDS[name]


@pytest.mark.parametrize("stem", FILES)
def test_native_model_runs_it(stem: str) -> None:
    x, want = golden(stem)
    got = Model.from_onnx(content(stem)).run_window(x)
    assert np.abs(got[-len(want) :] - want[-len(got) :]).max() < 2e-5


@pytest.mark.parametrize("stem", FILES)
def test_network_is_what_onnx_runtime_computes(stem: str) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="compares with ONNX Runtime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = runtime.InferenceSession(content(stem), options, providers=["CPUExecutionProvider"])
    network, described = read_network(content(stem)), signature(content(stem))
    x, _ = golden(stem)
    want = network_reference.run(network, x)
    names = [info.name for info in described.inputs]
    if described.kind == "state":
        states = [
            np.zeros([d if isinstance(d, int) else 1 for d in s.shape or ()], np.float32) for s in described.inputs[1:]
        ]
        got = []
        for row in x:
            y, *states = session.run(None, dict(zip(names, [described.feed(row[None]), *states], strict=True)))
            got.append(y.reshape(-1))
        assert np.abs(np.array(got) - want).max() < 2e-5
        return
    if described.kind == "row":
        batch = described.inputs[0].shape[0] if described.inputs[0].shape else 1
        got = [session.run(None, {names[0]: described.feed(row[None], batch)})[0][0] for row in x]
        assert np.abs(np.array(got) - want).max() < 2e-5
        return
    size = (described.inputs[0].shape or [])[described.batch_axis] if described.batch_axis is not None else 1
    batch = size if isinstance(size, int) else 3
    results = session.run(None, {names[0]: described.feed(x, batch)})
    if network.output_mode == "every":
        got_rows = described.rows(results[0], len(x))
    else:
        got_rows = np.concatenate([y[0].reshape(1, -1) for y in results], axis=1)
    assert np.abs(got_rows - want[-len(got_rows) :]).max() < 2e-5


@pytest.mark.parametrize("name", sorted({stem.split(".")[0] for stem in FILES} - {"mha"}))
def test_both_exporters_give_the_same_network(name: str) -> None:
    dynamo, script = (read_network(content(f"{name}.{exporter}")) for exporter in ("dynamo", "script"))
    assert [layer.kind for layer in dynamo.layers] == [layer.kind for layer in script.layers]
    assert dynamo.output_mode == script.output_mode
    x, _ = golden(name)
    assert np.abs(network_reference.run(dynamo, x) - network_reference.run(script, x)).max() < 1e-6


def test_what_was_recognised() -> None:
    """Numbers that were read off tables, masks and factors."""
    llama = only(read_network(content("llama.dynamo")), "attention")
    assert (llama.heads, llama.kv_heads, llama.dim, llama.window, llama.position) == (4, 2, 6, 6, "rope")
    assert llama.rope_base == 10_000.0
    assert llama.scale == pytest.approx(6**-0.5, rel=1e-6)
    pairs = only(read_network(content("llama_pairs.script")), "attention")
    assert (pairs.window, pairs.position, pairs.rope_base) == (30, "rope_interleaved", 500.0)
    alibi = only(read_network(content("alibi.script")), "attention")
    assert (alibi.window, alibi.position) == (5, "alibi")
    assert alibi.slopes.tolist() == [0.5, 0.25, 0.125]
    assert only(read_network(content("mha.dynamo")), "attention").window == 5
    sinusoidal = read_network(content("sinusoidal.dynamo"))
    assert only(sinusoidal, "position").table.shape == (64, 8)
    assert only(sinusoidal, "attention").window == sinusoidal.max_steps == 64
    query = only(read_network(content("last_query.dynamo")), "attention")
    assert query.window == 24
    mean, largest = (n.layer for n in read_network(content("separable.dynamo")).nodes if n.layer.kind == "pool")
    assert (mean.pool, mean.window, mean.partial, largest.pool, largest.window) == ("mean", 4, False, "max", 3)
    depth = read_network(content("separable.script")).nodes[0].layer
    assert (depth.groups, depth.taps) == (6, 3)
    assert [n.layer.dilation for n in read_network(content("tcn.script")).nodes if n.layer.kind == "conv"] == [
        1,
        1,
        2,
        2,
        4,
        4,
    ]
    book = read_network(content("deeplob_open.script")).nodes[0].layer
    assert (book.levels, book.level_kernel, book.level_stride, book.activation) == (20, 2, 2, "leaky_relu")
    assert read_network(content("strided.script")).nodes[0].layer.stride == 2
    assert not only(read_network(content("minimal_gru.script")), "gru").reset_after
    projected = only(read_network(content("projected_cell.dynamo")), "lstm")
    assert projected.projection is not None
    assert (projected.hidden_size, projected.output_size) == (5, 3)


def test_several_outputs_have_names_and_widths() -> None:
    network = read_network(content("horizons.script"))
    assert network.outputs[0] == ("y", 6)
    assert [width for _, width in network.outputs] == [6, 3, 1]
    softmax = [n.layer for n in network.nodes if n.layer.activation == "softmax"]
    assert [layer.softmax_groups for layer in softmax] == [2]
    assert read_network(content("mlp.script")).outputs == ()


@pytest.mark.parametrize(
    ("stem", "axes"),
    [("last_softmax.script", (1, 0)), ("time_first.dynamo", (0, 1)), ("wavenet_chunk.script", (2, 0)),
     ("deeplob.dynamo", (2, 0)), ("encoder_relu.script", (0, 1)), ("unsupported_ahead.script", (2, 0)),
     ("unsupported_mask.dynamo", (1, 0))],
)  # fmt: skip
def test_signature_names_the_axes(stem: str, axes: tuple[int, int]) -> None:
    found = signature(content(stem))
    assert (found.time_axis, found.batch_axis) == axes


def test_a_baked_length_is_named() -> None:
    from tengri_fast.errors import ModelLoadingError

    with pytest.raises(ModelLoadingError, match=r"node \d+ .*\(Reshape\): .*runs on ONNX Runtime instead"):
        read_network(content("mha.script"))


def test_shipped_models_load() -> None:
    for path in sorted((Path(__file__).resolve().parents[2] / "models").glob("*/model.onnx")):
        network = read_network(path.read_bytes())
        expected = ["gru", "dense"] if path.parent.name == "volatility_gru" else ["lstm", "lstm", "dense"]
        assert [layer.kind for layer in network.layers] == expected
