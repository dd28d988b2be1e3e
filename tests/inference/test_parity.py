"""One network, five ways to run it: the engine row by row and over a window, a float64 oracle, ONNX Runtime on the
canonical step graph, and PyTorch over the whole window; for every layer and option, number format and instruction set.

What has to agree, and how closely
    * In the engine everything is bit for bit the same: stepping, run_window, a windowed session, batches, teams, split
      finish and prepare, and all of these after states were saved, loaded and copied.
    * Float formats: to :data:`FLOAT` of the answers' size, from oracle, ONNX Runtime and PyTorch alike. fp16 and bf16
      are no exception: weights are rounded once, by the same rule everywhere, and all arithmetic is float32.
    * int8 and int8a16: as closely as float, up to the first value that lies almost half way between two quanta; from
      there on one such value may be rounded differently (tests/inference/parity_support.py measures what it is worth).
    * Engine and canonical graph mean the same thing but for two details, and each has its own exact oracle. In int8
      attention the engine keeps softmax weights in 255 levels and quantises rotated keys once: :data:`ATTENTION` bounds
      what that makes. And 16-bit rows saturate at -32767 in the engine and at -32768 in the graph: :data:`CLAMP`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference import network_reference
from inference.networks import Builder, conv, dense, gru, lstm, networks
from inference.parity_support import (
    CASES,
    FORMATS,
    INPUTS,
    INTEGERS,
    STEPS,
    Ort,
    Proof,
    Torch,
    attends_in_int8,
    case,
    case_proof,
    formatted,
    history,
    native_oracle,
    proof,
    strided,
    torch_python,
)

from tengri_fast import _native
from tengri_fast.inference import Model, Network, Team
from tengri_fast.inference.canonical import write_canonical
from tengri_fast.inference.evaluate import evaluate
from tengri_fast.inference.graph import read_network
from tengri_fast.inference.layers import AttentionLayer, PoolLayer, PositionLayer, SliceLayer
from tengri_fast.inference.network import INPUT, Node
from tengri_fast.inference.quantize import quantize

pytest.importorskip("onnxruntime")

ISAS = _native.isa_available()
CHUNKS = (1, 2, 3, 5, 7, 13, 100)
FLOAT = 2e-6
ATTENTION, CLAMP = 0.06, 5e-4
SHIPPED = Path(__file__).resolve().parents[2] / "models"
GOLDEN = ("lstm_btcusdt", "lstm_rb2510")


@pytest.fixture(scope="module")
def torch_if_there() -> Iterator[Torch | None]:
    python = torch_python()
    if python is None:
        yield None
        return
    worker = Torch(python)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def torch(torch_if_there: Torch | None) -> Torch:
    if torch_if_there is None:
        pytest.skip("no interpreter with PyTorch: set TENGRI_TRAIN_PYTHON or run `make train-env`")
    return torch_if_there


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team(1, spin_us=20.0) as workers:
        yield workers


def near(got: np.ndarray, want: np.ndarray, slack: np.ndarray | float, size: float, limit: float = FLOAT) -> bool:
    """Whether no answer is off by more than `limit` of the answers' size and the slack of ties."""
    return bool((np.abs(got - want) <= limit * size + slack).all())


def stepped(model: Model, x: np.ndarray) -> np.ndarray:
    """Row by row from reset; models with positions run over a window that holds all rows."""
    session = model.windowed(len(x)) if model.max_steps else model.session()
    return np.array([session.step(row) for row in x])


# ---------------------------------------------------------------- the engine against the oracles


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_engine_is_the_oracle(name: str, number_format: str) -> None:
    p = case_proof(name, number_format)
    assert p.native.std(axis=0).max() > 1e-3, "the answers must vary"
    for isa in ISAS:
        model = Model.from_network(p.network, isa=isa)
        got = model.run_window(p.x)
        assert near(got, p.native, p.native_slack, p.size), isa
        assert np.array_equal(stepped(model, p.x), got), isa


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("name", [name for name in CASES if not strided(case(name))])
def test_onnx_runtime_is_the_oracle_and_the_engine(name: str, number_format: str) -> None:
    p = case_proof(name, number_format)
    data = write_canonical(p.network)
    theirs = Ort(data).run(p.x)
    assert near(theirs, p.artefact, p.artefact_slack, p.size)
    ours = Model.from_onnx(data).run_window(p.x)
    apart = np.abs(p.native - p.artefact)
    assert apart.max() <= p.size * (
        ATTENTION if attends_in_int8(p.network) else CLAMP if number_format == "int8a16" else 0.0
    )
    assert near(theirs, ours, p.artefact_slack + p.native_slack + apart, p.size, 2 * FLOAT)


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_torch_is_the_oracle_and_the_engine(name: str, number_format: str, torch: Torch) -> None:
    p = case_proof(name, number_format)
    double, single = torch.run(p.network, p.x)
    assert np.abs(double - network_reference.run(p.network, p.x)).max() < 1e-12 * p.size
    if number_format not in INTEGERS:
        ours = Model.from_network(p.network).run_window(p.x)
        assert near(single, ours, 0.0, p.size, 2 * FLOAT)


@pytest.mark.parametrize("number_format", FORMATS)
def test_the_two_oracles_are_one(number_format: str) -> None:
    """evaluate.py, layer by layer over all rows, and network_reference.py, row by row.

    The one divides rows by their scale in float32, the other in float64: in 32,767 levels that may matter.
    """
    for name in CASES:
        p = case_proof(name, number_format)
        network, x = p.network, history()[:16]
        if attends_in_int8(network):
            if any(getattr(layer, "position", "").startswith("rope") for layer in network.layers):
                continue  # the canonical graph quantises rotated keys at every step
            error = native_oracle(network, x) - evaluate(network, x, native=True)
        else:
            error = network_reference.run(network, x) - native_oracle(network, x)
        slack = p.native_slack[:16] if number_format == "int8a16" else 0.0
        assert (np.abs(error) <= 1e-12 * p.size + slack).all(), name


def test_most_integer_rows_are_proven_as_closely_as_float() -> None:
    """The slack for ties must not swallow the proof."""
    proofs = [case_proof(name, "int8") for name in CASES]
    assert np.mean([(p.native_slack < 1e-6).mean() for p in proofs]) > 0.7
    assert max(p.native_slack.max() / p.size for p in proofs) < 0.1
    proofs = [case_proof(name, "int8a16") for name in CASES]
    assert max(p.native_slack.max() / p.size for p in proofs) < 1e-3


# ---------------------------------------------------------------- inside the engine: the same bits


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_chunks_with_save_load_and_copy(name: str, number_format: str) -> None:
    network, x = case_proof(name, number_format).network, history()
    wholes = {}
    for number, chunk in enumerate(CHUNKS):
        isa = ISAS[number % len(ISAS)]
        model = Model.from_network(network, isa=isa)
        if isa not in wholes:
            wholes[isa] = model.run_window(x)
        fresh = (lambda m=model: m.windowed(STEPS)) if model.max_steps else model.session
        session, out = fresh(), []
        for start in range(0, STEPS, chunk):
            other = session.copy() if start % 2 else fresh()
            other.from_bytes(session.to_bytes())
            assert np.array_equal(other.output, session.output)
            out.extend(other.step(row) for row in x[start : start + chunk])
            session = other
        assert np.array_equal(out, wholes[isa]), (chunk, isa)


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_window_split_batch_and_team_are_single_stepping(name: str, number_format: str, team: Team) -> None:
    network = case_proof(name, number_format).network
    rows = np.stack([history(24, seed=seed) for seed in range(5)], axis=1)
    for isa in ISAS:
        model = Model.from_network(network, isa=isa)
        want = np.stack([model.run_window(rows[:, i]) for i in range(5)], axis=1)
        windowed = model.windowed(len(rows))
        assert np.array_equal([windowed.step(row) for row in rows[:, 0]], want[:, 0]), isa
        if model.max_steps:
            continue
        split, teamed = model.session(), model.session()
        for row, y in zip(rows[:, 1], want[:, 1], strict=True):
            assert np.array_equal(split.finish(row), y), isa
            split.prepare()
            assert np.array_equal(team.step(teamed, row), y), isa
        batch = model.batch(3)
        batch.bind(model.session() for _ in range(5))
        assert np.array_equal([batch.step(row) for row in rows], want), isa


# ---------------------------------------------------------------- random architectures


def prove_everywhere(p: Proof, isa: str, torch: Torch | None) -> None:
    """All of the above for one network on one instruction set."""
    model = Model.from_network(p.network, isa=isa)
    got = model.run_window(p.x)
    assert near(got, p.native, p.native_slack, p.size, 5 * FLOAT)
    assert np.array_equal(stepped(model, p.x), got)
    if not strided(p.network):
        theirs = Ort(write_canonical(p.network)).run(p.x)
        assert near(theirs, p.artefact, p.artefact_slack, p.size, 5 * FLOAT)
    if torch is not None:
        double, _ = torch.run(p.network, p.x)
        assert np.abs(double - network_reference.run(p.network, p.x)).max() < 1e-10 * p.size


@settings(max_examples=40, deadline=None)
@given(networks(), st.integers(0, 99), st.sampled_from(ISAS), st.sampled_from(FORMATS[:3]))
def test_random_float_networks(
    torch_if_there: Torch | None, network: Network, seed: int, isa: str, number_format: str
) -> None:
    x = history(30, network.input_size, seed)
    network = network if number_format == "fp32" else network.converted(number_format)
    prove_everywhere(proof(network, x), isa, torch_if_there)


@settings(max_examples=25, deadline=None)
@given(networks(most=3), st.integers(0, 99), st.sampled_from(ISAS), st.sampled_from(INTEGERS))
def test_random_integer_networks(
    torch_if_there: Torch | None, network: Network, seed: int, isa: str, number_format: str
) -> None:
    layer = dense(np.random.default_rng(seed), network.output_size, 3)
    network = replace(network, nodes=(*network.nodes, Node(layer, (network.output,))), output=len(network.nodes))
    x = history(24, network.input_size, seed)
    prove_everywhere(proof(formatted(network, number_format, 64), x), isa, torch_if_there)


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(networks(most=6), st.integers(0, 99), st.sampled_from(ISAS), st.sampled_from(FORMATS[:3]))
def test_many_random_networks(
    torch_if_there: Torch | None, network: Network, seed: int, isa: str, number_format: str
) -> None:
    x = history(60, network.input_size, seed)
    network = network if number_format == "fp32" else network.converted(number_format)
    prove_everywhere(proof(network, x), isa, torch_if_there)


# ---------------------------------------------------------------- what ships


def golden(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(SHIPPED / name / "golden.npz", allow_pickle=False) as held:
        return held["x"], held["y"]


@pytest.mark.parametrize("name", GOLDEN)
def test_shipped_models_are_their_golden_rows(name: str, torch_if_there: Torch | None) -> None:
    x, y = golden(name)
    path = SHIPPED / name / "model.onnx"
    import onnxruntime

    theirs = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x[None]})[0][0]
    network = read_network(path.read_bytes())
    oracle = evaluate(network, x)
    size = float(np.abs(y).max())
    assert size > 0.5
    found = [y, theirs, Ort(write_canonical(network)).run(x)]
    for got in [*found, *(torch_if_there.run(network, x) if torch_if_there else ())]:
        assert near(got, oracle, 0.0, size)
    for isa in ISAS:
        model = Model.from_onnx(path, isa=isa)
        got = model.run_window(x)
        assert near(got, oracle, 0.0, size), isa
        assert near(got, y, 0.0, size, 2 * FLOAT), isa
        assert np.array_equal(stepped(model, x), got), isa


@pytest.mark.parametrize("number_format", FORMATS[1:])
@pytest.mark.parametrize("name", GOLDEN)
def test_artefacts_of_shipped_models(name: str, number_format: str, torch_if_there: Torch | None) -> None:
    x, y = golden(name)
    network = quantize(read_network((SHIPPED / name / "model.onnx").read_bytes()), number_format, x)[0]
    p, data = proof(network, x[:128]), write_canonical(network)
    assert near(Ort(data).run(p.x), p.artefact, p.artefact_slack, p.size)
    if torch_if_there:
        double, _ = torch_if_there.run(network, p.x)
        assert np.abs(double - network_reference.run(network, p.x)).max() < 1e-11 * p.size
    for isa in ISAS:
        model = Model.from_onnx(data, isa=isa)
        assert model.format == number_format
        got = model.run_window(p.x)
        assert near(got, p.native, p.native_slack, p.size), isa
        assert np.array_equal(stepped(model, p.x), got), isa
    spread = np.sqrt(np.mean((p.native - y[:128]) ** 2)) / y.std()
    assert spread < {"fp16": 1e-3, "bf16": 1e-2, "int8": 0.1, "int8a16": 0.05}[number_format]


# ---------------------------------------------------------------- hostile shapes and rows


def _wide(kind: str, width: int) -> Network:
    rng = np.random.default_rng(width)
    b = Builder(rng, width)
    match kind:
        case "lstm":
            b.add(lstm(rng, width, width))
        case "projected":
            b.add(lstm(rng, width, width, max(1, width - 1)))
        case "gru":
            b.add(gru(rng, width, width, width % 2 == 0))
        case "dense":
            b.add(dense(rng, width, width, "gelu"))
        case "conv":
            b.add(conv(rng, width, width, 2, "tanh"))
        case "depthwise":
            b.add(conv(rng, width, width, 3, groups=width))
        case "attention":
            b.attend(2, 1, 2 * min(width, 33), min(width, 65), 5, "rope")
        case _:
            raise ValueError(kind)
    b.add(dense(rng, b.width, 3))
    return b.network()


@pytest.mark.parametrize("width", [1, 15, 16, 17, 33, 64, 65, 127, 257])
@pytest.mark.parametrize("kind", ["lstm", "projected", "gru", "dense", "conv", "depthwise", "attention"])
def test_hostile_widths(kind: str, width: int) -> None:
    network, x = _wide(kind, width), history(7, width)
    for number_format in FORMATS:
        p = proof(formatted(network, number_format, 64), x)
        for isa in ISAS:
            model = Model.from_network(p.network, isa=isa)
            got = model.run_window(x)
            assert near(got, p.native, p.native_slack, p.size), (number_format, isa)
            assert np.array_equal(stepped(model, x), got), (number_format, isa)


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_a_single_row(name: str, number_format: str) -> None:
    p = case_proof(name, number_format)
    for isa in ISAS:
        model = Model.from_network(p.network, isa=isa)
        assert near(model.run_window(p.x[:1]), p.native[:1], p.native_slack[:1], p.size)
        assert near(model.windowed(1).step(p.x[0]), p.native[0], p.native_slack[0], p.size)


ROWS = {
    "denormal": lambda x: x * np.float32(1e-41),
    "constant": lambda x: np.full_like(x, 0.7),
    "negative zeros": lambda x: np.full_like(x, -0.0),
    "a million": lambda x: x * np.float32(1e6),
    "one outlier": lambda x: np.where(np.arange(len(x))[:, None] == 7, np.float32(-1e6), x),
    "half a quantum": lambda x: np.where(x > 0, np.float32(0.5), np.float32(-0.5)),
}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("number_format", FORMATS)
def test_hostile_rows(rows: str, number_format: str) -> None:
    """Large rows make large answers, and sums of large terms that cancel: limits are relative to the largest row."""
    x = ROWS[rows](history(14)).astype(np.float32)
    for number, name in enumerate(CASES):
        network = case_proof(name, number_format).network
        p = proof(network, x)
        size = max(p.size, float(np.abs(x).max()))
        for isa in ISAS[number % 2 :: 2]:
            model = Model.from_network(network, isa=isa)
            got = model.run_window(x)
            assert np.isfinite(got).all(), (name, isa)
            assert near(got, p.native, p.native_slack, size), (name, isa)
            assert np.array_equal(stepped(model, x), got), (name, isa)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("number_format", FORMATS)
def test_a_bad_row_then_reset(number_format: str, bad: float) -> None:
    x = history(20)
    for number, name in enumerate(CASES):
        network = case_proof(name, number_format).network
        broken = x.copy()
        broken[5, 4] = bad
        with np.errstate(invalid="ignore"):
            lost = np.isnan(network_reference.run(case(name), broken))
        for isa in ISAS[number % 2 :: 2]:
            model = Model.from_network(network, isa=isa)
            want = model.run_window(x)
            session = model.windowed(len(x)) if model.max_steps else model.session()
            fresh = session.to_bytes()
            got = np.array([session.step(row) for row in broken])
            assert np.array_equal(got[:5], want[:5]), (name, isa)
            if np.isnan(bad) and number_format in INTEGERS:  # for good, once an integer layer has seen it
                assert np.isnan(got[lost.any(axis=1).argmax() :]).all(), (name, isa)
            elif np.isnan(bad):
                assert np.array_equal(np.isnan(got), lost), (name, isa)
            elif all(node.format in INTEGERS for node in network.nodes if INPUT in node.inputs):
                assert np.isfinite(got).all(), (name, isa)
            session.reset()
            assert session.to_bytes() == fresh, (name, isa)
            assert np.array_equal([session.step(row) for row in x], want), (name, isa)


@pytest.mark.parametrize("number_format", FORMATS)
def test_an_outlier_that_has_left_leaves_nothing(number_format: str) -> None:
    """Where layers look back a few rows only, to the bit: no running sum may keep a rest of it."""
    x = history()
    outlier = x.copy()
    outlier[3, ::2] *= np.float32(-1e6)
    forgetful = [
        name
        for name in CASES
        if not any(
            layer.kind in ("lstm", "gru", "position") or getattr(layer, "window", 0) > 40 for layer in case(name).layers
        )
    ]
    assert len(forgetful) > 60
    for name in forgetful:
        network = case_proof(name, number_format).network
        for isa in ISAS:
            model = Model.from_network(network, isa=isa)
            got, want = model.run_window(outlier), model.run_window(x)
            assert not np.array_equal(got[3 : 3 + model.period], want[3 : 3 + model.period]), (name, isa)
            assert np.array_equal(got[-12:], want[-12:]), (name, isa)


@pytest.mark.parametrize("number_format", INTEGERS)
def test_rows_beyond_the_calibrated_range_saturate(number_format: str) -> None:
    """A row far outside is the row at the edge: both artefact and engine clamp, neither wraps."""
    rng = np.random.default_rng(5)
    network = formatted(Network((Node(dense(rng, INPUTS, 7)), Node(dense(rng, 7, 3), (0,))), INPUTS), number_format)
    first = network.nodes[0]
    top = {"int8": (-128, 127), "int8a16": (-32767, 32767)}[number_format]
    sign = np.where(rng.standard_normal(INPUTS) < 0, -1, 1)
    edge = (np.where(sign < 0, top[0], top[1]) * np.float32(first.scales["input"])).astype(np.float32)
    x = np.array([edge, 3 * edge, 1e6 * edge, np.float32(3e38) * sign])
    for isa in ISAS:
        got = Model.from_network(network, isa=isa).run_window(x)
        assert (got == got[0]).all(), isa
    artefact = Ort(write_canonical(network)).run(x)
    quantum = 2 * np.abs(first.layer.w).max() * first.scales["input"]  # int16 has one more value below than the engine
    assert np.abs(artefact - got).max() < 1e-5 + (quantum * INPUTS if number_format == "int8a16" else 0.0)


def test_history_shorter_than_what_layers_look_back_at() -> None:
    nodes = (
        Node(SliceLayer(0, 4)),
        Node(AttentionLayer(2, 2, 2, 2, 1_000), (0, 0, 0)),
        Node(PoolLayer(4, 900, "mean"), (1,)),
        Node(conv(np.random.default_rng(0), 4, 5, 3, dilation=400), (2,)),
    )
    network = Network(nodes, INPUTS)
    x = history(12)
    want = evaluate(network, x)
    assert near(Ort(write_canonical(network)).run(x), want, 0.0, 1.0)
    for isa in ISAS:
        model = Model.from_network(network, isa=isa)
        assert near(model.run_window(x), want, 0.0, 1.0)
        assert np.array_equal(stepped(model, x), model.run_window(x))


def test_windows_end_with_the_table_of_positions() -> None:
    rng = np.random.default_rng(2)
    table = PositionLayer(rng.standard_normal((6, INPUTS)))
    network = Network((Node(table), Node(dense(rng, INPUTS, 3), (0,))), INPUTS)
    model = Model.from_network(network)
    assert model.max_steps == 6
    x = history(20)
    session = model.windowed(6)
    for t, row in enumerate(x):
        want = evaluate(network, x[max(0, t - 5) : t + 1])[-1]
        assert near(session.step(row), want, 0.0, 1.0)


def test_no_kind_of_layer_is_left_out() -> None:
    """Every kind of layer stands in a case."""
    kinds = {layer.kind for name in CASES for layer in case(name).layers}
    assert kinds == {
        "lstm", "gru", "dense", "conv", "attention", "norm", "affine", "activation", "add", "mul", "concat", "slice",
        "pool", "position",
    }  # fmt: skip
