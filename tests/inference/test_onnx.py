"""The ONNX reader: what PyTorch writes, what is declined by name, and files that lie."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inference import reference

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference import Model, load_model
from tengri_fast.inference.onnx_reader import parse

FIXTURES = Path(__file__).resolve().parent / "fixtures"
FILES = sorted(FIXTURES.glob("*.onnx"))
SMALL = ["mlp.script", "last_nobias.script", "time_first.dynamo"]

onnx = pytest.importorskip("onnx", reason="the hand-made graphs are written with the onnx package")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto


def content(name: str) -> bytes:
    return (FIXTURES / f"{name}.onnx").read_bytes()


def build(
    nodes: list[Any], tensors: dict[str, np.ndarray], x: list[Any], y: int = 2, opset: int = 17, outputs: Any = None
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * y)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return model.SerializeToString()


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(","), outputs.split(","), name=f"my_{op}", **attributes)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_reader_agrees_with_the_onnx_package(path: Path) -> None:
    ours, theirs = parse(path.read_bytes()), onnx.load(str(path)).graph
    assert [n.op for n in ours.nodes] == [n.op_type for n in theirs.node]
    assert [n.inputs for n in ours.nodes] == [list(n.input) for n in theirs.node]
    assert [n.outputs for n in ours.nodes] == [list(n.output) for n in theirs.node]
    assert set(ours.tensors) == {t.name for t in theirs.initializer}
    for tensor in theirs.initializer:
        want = numpy_helper.to_array(tensor)
        assert ours.tensors[tensor.name].dtype == want.dtype
        assert np.array_equal(ours.tensors[tensor.name], want)
    for mine, other in zip(ours.nodes, theirs.node, strict=True):
        for attribute in other.attribute:
            want = helper.get_attribute_value(attribute)
            got = mine.attributes[attribute.name]
            if isinstance(want, onnx.TensorProto):
                assert np.array_equal(got, numpy_helper.to_array(want))
            else:
                assert got == (want.decode() if isinstance(want, bytes) else want)


@pytest.mark.parametrize(
    ("name", "operator", "words"),
    [("ahead", "(Conv)", "expected padding before the first row only (causal), found 1 after the last"),
     ("conv", "(Conv)", "expected padding on the left, so that the first row is of step 0, is of step 2"),
     ("hard", "(HardSigmoid)", "unsupported operator, expected LSTM, GRU, Conv"),
     ("projection", "(LSTM)", "expected initial_c of 4 units, has shape [1, 1, 6]"),
     ("mask", "(MatMul)", "expected a causal mask"),
     ("bidirectional", "(LSTM)", "expected direction `forward`, was `bidirectional`")],
)  # fmt: skip
@pytest.mark.parametrize("exporter", ["dynamo", "script"])
def test_declines_by_name(name: str, operator: str, words: str, exporter: str) -> None:
    path = FIXTURES / f"unsupported_{name}.{exporter}.onnx"
    if exporter == "script" and name in ("mask", "projection"):
        assert not path.exists(), "the older exporter refuses this module itself"
        return
    with pytest.raises(ModelLoadingError) as error:
        Model.from_onnx(path.read_bytes())
    text = str(error.value)
    assert operator in text
    assert words in text
    assert text.startswith("node ")
    assert ("runs on ONNX Runtime instead" in text) == (name != "projection")  # which ONNX Runtime refuses as well


W, R, B = weights(1, 12, 2), weights(1, 12, 3, seed=1), weights(1, 24, seed=2)
LSTM = {"W": W, "R": R, "B": B}
MATRIX = {"w": weights(2, 3)}
DECLINED = {
    "gemm alpha": ([node("Gemm", "x,w", alpha=2.0)], MATRIX, ["b", 2], "alpha"),
    "gemm transA": ([node("Gemm", "x,w", transA=1)], MATRIX, [3, 2], "transA"),
    "weights that do not fit": ([node("MatMul", "x,w")], MATRIX, ["b", 7], "expected weights for 7 features"),
    "double weights": ([node("MatMul", "x,w")], {"w": np.zeros((2, 3))}, ["b", 2], "float32"),
    "nan weights": ([node("MatMul", "x,w")], {"w": np.full((2, 3), np.nan, np.float32)}, ["b", 2], "finite"),
    "unknown domain": ([helper.make_node("Gemm", ["x", "w"], ["y"], domain="com.example")], MATRIX, ["b", 2], "unsup"),
    "dangling input": ([node("MatMul", "ghost,w")], MATRIX, ["b", 2], "`ghost` is made by no node"),
    "softmax over time": (
        [node("MatMul", "x,w", "z"), node("Softmax", "z", axis=1)], MATRIX, ["b", "t", 2],
        "expected softmax over features, found one over steps"
    ),
    "constant output": ([node("Identity", "w")], MATRIX, ["b", 2], "found a constant"),
    "peepholes": ([node("LSTM", "x,W,R,B,,,,P", hidden_size=3)], {**LSTM, "P": weights(1, 9)}, [5, "b", 2], "peephole"),
    "clip": ([node("LSTM", "x,W,R,B", hidden_size=3, clip=1.0)], LSTM, [5, "b", 2], "clip"),
    "other activations": (
        [node("LSTM", "x,W,R,B", hidden_size=3, activations=["Sigmoid", "Relu", "Tanh"])], LSTM, [5, "b", 2],
        "expected the activations",
    ),
    "initial state not zero": (
        [node("LSTM", "x,W,R,B,,h", hidden_size=3)], {**LSTM, "h": weights(1, 1, 3)}, [5, 1, 2], "initial_h to be zero"
    ),
    "first step instead of last": (
        [node("LSTM", "x,W,R,B", "s", hidden_size=3), node("Squeeze", "s,one", "q"), node("Gather", "q,zero", axis=0)],
        {**LSTM, "one": np.array([1]), "zero": np.array(0)}, [5, 1, 2],
        "a row for every step, or for the last one, found steps 0 to 0 of 0 to 4",
    ),
    "cell state as output": (
        [node("LSTM", "x,W,R,B", "s,h,y", hidden_size=3)], LSTM, [5, "b", 2], "a cell state that is read"
    ),
    "real reshape": (
        [node("MatMul", "x,w", "z"), node("Reshape", "z,s")], {**MATRIX, "s": np.array([-1, 6])}, [4, 2],
        "entries of the batch along one axis, found them mixed with the features",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DECLINED)
def test_declines_what_it_would_get_wrong(case: str) -> None:
    nodes, tensors, x, words = DECLINED[case]
    with pytest.raises(ModelLoadingError) as error:
        Model.from_onnx(build(nodes, tensors, x))
    assert words in str(error.value)


@pytest.mark.parametrize("opset", [0, 8, 27, 1_000_000])
def test_operator_set(opset: int) -> None:
    with pytest.raises(ModelLoadingError, match="operator set"):
        Model.from_onnx(build([node("MatMul", "x,w")], MATRIX, ["b", 2], opset=opset))


def test_other_ways_to_write_the_same_layers() -> None:
    x = weights(9, 2, seed=4)
    want = reference.network(Model.from_onnx(build([node("MatMul", "x,w")], MATRIX, ["b", 2])).layers, x)
    bias = np.array([0.5], np.float32)
    graphs = [
        build([node("Constant", "", "w", value=numpy_helper.from_array(MATRIX["w"])), node("MatMul", "x,w")],
              {}, ["b", 2]),
        build([node("Transpose", "t", "w", perm=[1, 0]), node("MatMul", "x,w")], {"t": MATRIX["w"].T.copy()}, ["b", 2]),
        build([node("Gemm", "x,w,c")], {**MATRIX, "c": np.zeros(3, np.float32)}, ["b", 2]),
        build([node("Identity", "x", "i"), node("Dropout", "i", "d"), node("MatMul", "d,w")], MATRIX, ["b", 2]),
        build([node("Unsqueeze", "x,a", "u"), node("MatMul", "u,w", "z"), node("Squeeze", "z,a")],
              {**MATRIX, "a": np.array([1])}, ["b", 2]),
        build([node("Unsqueeze", "x", "u", axes=[1]), node("MatMul", "u,w", "z"), node("Flatten", "z")],
              MATRIX, ["b", 2], opset=11),
    ]  # fmt: skip
    for data in graphs:
        assert np.abs(Model.from_onnx(data).run_window(x) - want).max() < 1e-6
    biased = build([node("MatMul", "x,w", "z"), node("Add", "c,z")], {**MATRIX, "c": bias}, ["b", 2])
    assert np.abs(Model.from_onnx(biased).run_window(x) - want - 0.5).max() < 1e-6
    half = build([node("MatMul", "x,w")], {"w": MATRIX["w"].astype(np.float16)}, ["b", 2])
    assert np.abs(Model.from_onnx(half).run_window(x) - want).max() < 1e-2


@pytest.mark.parametrize("layout", [0, 1])
def test_batch_first_layout_and_reordered_weights(layout: int) -> None:
    """Weights cut and joined inside the graph, as some exporter versions leave them."""
    plain = build([node("LSTM", "x,W,R,B", "s", hidden_size=3), node("Squeeze", "s,one")],
                  {**LSTM, "one": np.array([1])}, [None, None, 2], y=3)  # fmt: skip
    cuts = {
        "i0": np.array([0]),
        "i6": np.array([6]),
        "i12": np.array([12]),
        "a1": np.array([1]),
        "one": np.array([1 + layout]),
    }
    shuffled = np.concatenate([W[:, 6:], W[:, :6]], axis=1)
    nodes = [
        node("Slice", "S,i6,i12,a1", "p"), node("Slice", "S,i0,i6,a1", "q"), node("Concat", "p,q", "W", axis=1),
        node("LSTM", "x,W,R,B", "s", hidden_size=3, layout=layout), node("Squeeze", "s,direction"),
    ]  # fmt: skip
    data = build(
        nodes, {"S": shuffled, "R": R, "B": B, **cuts, "direction": np.array([1 + layout])}, [None, None, 2], y=3
    )
    x = weights(20, 2, seed=8)
    assert np.array_equal(Model.from_onnx(data).run_window(x), Model.from_onnx(plain).run_window(x))


@pytest.mark.parametrize("name", SMALL)
def test_truncated_at_every_length(name: str) -> None:
    data = content(name)
    whole = Model.from_onnx(data)
    x = weights(6, whole.input_size)
    want = whole.run_window(x)
    refused = 0
    for length in range(len(data)):
        try:
            model = Model.from_onnx(data[:length])
        except ModelLoadingError as error:
            refused += bool(str(error))
        else:  # only what the graph does not need was cut off
            assert np.array_equal(model.run_window(x), want)
    assert refused > 0.98 * len(data)
    with pytest.raises(ModelLoadingError, match=r"truncated at byte \d+: \d+ bytes were promised, \d+ are there"):
        Model.from_onnx(data[: len(data) // 2])


def test_mutations_raise_our_error_or_load() -> None:
    rng = np.random.default_rng(11)
    originals = [path.read_bytes() for path in FILES if path.stat().st_size < 8_000]
    loaded = refused = 0
    end = time.monotonic() + 6.0
    for _ in range(4_000):
        if time.monotonic() > end:
            break
        data = bytearray(originals[rng.integers(len(originals))])
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(data)))
            match rng.integers(4):
                case 0:
                    data[at] = int(rng.integers(256))
                case 1:
                    data[at] ^= 1 << int(rng.integers(8))
                case 2:
                    del data[at : at + int(rng.integers(1, 9))]
                case _:
                    data[at:at] = rng.integers(0, 256, int(rng.integers(1, 9)), np.uint8).tobytes()
        try:
            model = Model.from_onnx(bytes(data))
        except ModelLoadingError as error:
            refused += bool(str(error))
        else:
            loaded += 1
            assert model.run_window(np.ones((2, model.input_size))).shape == (2, model.output_size)
    assert refused > 100
    assert loaded > 10, "some bytes are names and weights, so some mutations must still load"


def field(number: int, payload: bytes) -> bytes:
    size, head = len(payload), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(head) + bytes([size]) + payload


LIES = {
    "empty": (b"", "must not be empty"),
    "text": (b"hello, this is not an ONNX file", "ONNX file"),
    "zeros": (b"\0" * 64, "field number 0"),
    "endless varint": (b"\x08" + b"\xff" * 20, "more than 10 bytes"),
    "length beyond the end": (b"\x3a\xff\xff\xff\x7f", "truncated at byte"),
    "no graph": (field(8, b"\x10\x11"), "holds no graph"),
    "no operator set": (field(7, b""), "names no operator set"),
    "nothing in the graph": (field(7, b"") + field(8, b"\x10\x11"), "no output"),
    "huge tensor": (
        field(7, field(5, b"\x08\xff\xff\xff\xff\x07" * 3 + b"\x10\x01")) + field(8, b"\x10\x11"), "elements"
    ),
    "negative dimension": (
        field(7, field(5, b"\x08" + b"\xff" * 9 + b"\x01\x10\x01")) + field(8, b"\x10\x11"), "must be >= 0"
    ),
    "short raw data": (
        field(7, field(5, b"\x08\x04\x10\x01" + field(9, b"\0" * 12))) + field(8, b"\x10\x11"),
        "must hold 16 bytes, holds 12",
    ),
    "name is not UTF-8": (field(7, field(1, field(4, b"\xff\xfe"))) + field(8, b"\x10\x11"), "not UTF-8"),
    "group wire type": (b"\x3b\x00", "wire type 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_files_that_lie(case: str) -> None:
    data, words = LIES[case]
    tracemalloc.start()
    with pytest.raises(ModelLoadingError) as error:
        Model.from_onnx(data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20, "refused before memory is taken on the file's word"
    tracemalloc.stop()
    assert words in str(error.value)


def test_external_data_is_refused_by_name(tmp_path: Path) -> None:
    model = onnx.load(str(FIXTURES / "mlp.script.onnx"))
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, size_threshold=0)
    with pytest.raises(ModelLoadingError, match=r"`0\.weight` keeps its data in an external file"):
        load_model(tmp_path / "m.onnx", backend="native")


def test_paths(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadingError, match=r"absent\.onnx.*cannot be read"):
        Model.from_onnx(tmp_path / "absent.onnx")
    with pytest.raises(ModelLoadingError, match="cannot be read"):
        Model.from_onnx(tmp_path)
    path = tmp_path / "m.onnx"
    path.write_bytes(content("mlp.script"))
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        assert Model.from_onnx(source).input_size == 6


def test_output_mode() -> None:
    for name, mode in (("last_softmax", "last"), ("every_mlp", "every"), ("step_state", "every"), ("mlp", "every")):
        for exporter in ("dynamo", "script"):
            assert Model.from_onnx(content(f"{name}.{exporter}")).output_mode == mode


@pytest.mark.parametrize(("name", "value", "held"), [("value", "oops", "str"), ("value", [1.0, 2.0], "list")])
def test_an_attribute_of_the_wrong_kind_is_named(name, value, held):
    """Found by the soak: a damaged file may put a text where a tensor belongs."""
    helper, numbers = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["s"], ["c"], name="fill", **{name: value}),
         helper.make_node("Add", ["x", "c"], ["y"], name="sum")],
        "g",
        [helper.make_tensor_value_info("x", numbers.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", numbers.FLOAT, [1, 4])],
        [onnx.numpy_helper.from_array(np.array([1, 4], np.int64), "s")],
    )  # fmt: skip
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    with pytest.raises(ModelLoadingError, match=rf"`fill`.*`{name}` must hold ndarray, held {held}"):
        Model.from_onnx(data)
