"""Window graphs at the border of what can be streamed: what is refused, with which words, and what is not."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from inference import network_reference

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.graph import read_network

onnx = pytest.importorskip("onnx", reason="the graphs are written with the onnx package")
helper, numpy_helper, TensorProto = onnx.helper, onnx.numpy_helper, onnx.TensorProto
T = 6
RNG = np.random.default_rng(5)


def w(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * 0.5).astype(np.float32)


def n(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(",") if inputs else [], outputs.split(","), name=f"my_{op}", **attributes)


def build(nodes: list[Any], tensors: dict[str, Any], x: list[Any], opset: int = 18) -> bytes:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, x)], [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9).SerializeToString()


def attention(mask: np.ndarray | None, *, steps: Any = T, extra: list[Any] | None = None) -> bytes:
    """One head over x [1, T, 4], its scores plus `mask`."""
    nodes = [
        n("MatMul", "x,wq", "q"), n("MatMul", "x,wk", "k"), n("Transpose", "k", "kt", perm=[0, 2, 1]), n("MatMul",
        "q,kt", "s"),
        *(extra or [n("Add", "s,m", "sm") if mask is not None else n("Identity", "s", "sm")]),
        n("Softmax", "sm", "p", axis=-1), n("MatMul", "p,x"),
    ]  # fmt: skip
    tensors = {"wq": w(4, 4), "wk": w(4, 4)}
    if mask is not None:
        tensors["m"] = mask.astype(np.float32)
    return build(nodes, tensors, [1, steps, 4])


AGE = np.arange(T)[:, None] - np.arange(T)
CAUSAL = np.where(AGE >= 0, 0.0, -np.inf)
MASKS = {
    "none": (None, "expected a causal mask"),
    "a look ahead of one": (np.where(AGE >= -1, 0.0, -np.inf), "expected a causal mask"),
    "too weak a fill": (np.where(AGE >= 0, 0.0, -10.0), "expected a causal mask"),
    "every second row": (np.where((AGE >= 0) & (AGE % 2 == 0), 0.0, -np.inf), "expected a banded causal mask"),
    "a band with a sink": (
        np.where((AGE >= 0) & ((AGE < 3) | (np.arange(T) == 0)), 0.0, -np.inf),
        "banded causal mask",
    ),
    "not itself": (np.where((AGE == 0) & (np.arange(T) > 0), -np.inf, CAUSAL), "expected a banded causal mask"),
    "a bias that bends": (np.where(AGE >= 0, -0.1 * AGE**2.0, -np.inf), "grows linearly with the distance"),
    "nothing allowed": (np.full((T, T), -np.inf), "attend to one row at least"),
}


@pytest.mark.parametrize("case", MASKS)
def test_masks_that_are_no_window(case: str) -> None:
    mask, words = MASKS[case]
    with pytest.raises(ModelLoadingError) as error:
        read_network(attention(mask))
    assert words in str(error.value)
    assert str(error.value).startswith("node ")
    assert "runs on ONNX Runtime instead" in str(error.value)


@pytest.mark.parametrize("window", [1, 2, 5, T])
@pytest.mark.parametrize("fill", [-np.inf, -1e9, -1e4, np.finfo(np.float32).min])
def test_bands_are_read_off_the_mask(window: int, fill: float) -> None:
    network = read_network(attention(np.where((AGE >= 0) & (window > AGE), 0.0, fill)))
    assert [layer.window for layer in network.layers if layer.kind == "attention"] == [window]


def test_slopes_are_read_off_the_bias() -> None:
    network = read_network(attention(np.where(AGE >= 0, -0.125 * AGE, -np.inf)))
    layer = network.nodes[-1].layer
    assert layer.position == "alibi"
    assert layer.slopes.tolist() == [0.125]
    # A bias on the key's own number differs from that by one number per row only, which a softmax does not see.
    by_key = read_network(attention(np.where(AGE >= 0, 0.125 * np.arange(T), -np.inf))).nodes[-1].layer
    assert by_key.slopes.tolist() == [0.125]


def test_all_rows_of_an_open_window_need_a_length() -> None:
    def number(name: str, value: Any) -> Any:
        return n("Constant", "", name, value=numpy_helper.from_array(np.asarray(value)))

    extra = [n("Shape", "x", "shape"), number("one", 1), n("Gather", "shape,one", "t"), number("zero", 0),
             n("Range", "zero,t,one", "r"), number("a0", [0]), number("a1", [1]), n("Unsqueeze", "r,a1", "i"),
             n("Unsqueeze", "r,a0", "j"), n("GreaterOrEqual", "i,j", "keep"), number("far", np.float32(-np.inf)),
             n("Where", "keep,s,far", "sm")]  # fmt: skip
    data = attention(None, steps="steps", extra=extra)
    with pytest.raises(ModelLoadingError, match=r"`my_MatMul.*all rows of an open time axis.*say `window`"):
        read_network(data)
    network = read_network(data, window=17)
    assert network.nodes[-1].layer.window == 17
    with pytest.raises(ModelLoadingError, match="`window` must be >= 1, was 0"):
        read_network(data, window=0)
    mean = build([n("ReduceMean", "x,a", keepdims=0)], {"a": np.array([1])}, ["b", "t", 4])
    with pytest.raises(ModelLoadingError, match="all rows of an open time axis"):
        read_network(mean)
    assert read_network(mean, window=9).nodes[0].layer.window == 9


ONE = np.array([1])
KERNEL = w(4, 3, 3)
CASES: dict[str, tuple[list[Any], dict[str, Any], list[Any], str]] = {
    "same padding": ([n("Conv", "x,k", pads=[1, 1])], {"k": KERNEL}, [1, 3, T], "found 1 after the last"),
    "too little padding": ([n("Conv", "x,k", pads=[1, 0])], {"k": KERNEL}, [1, 3, T], "of step 0, is of step 1"),
    "too much padding": ([n("Conv", "x,k,b", pads=[3, 0])], {"k": KERNEL, "b": w(4)}, [1, 3, T],
    "padding that ends at step 0"),
    "a stride out of step": ([n("Conv", "x,k", strides=[2], pads=[1, 0])], {"k": KERNEL}, [1, 3, T],
                             "strided rows at steps 0, 2, 4, ..., was one at step 1"),
    "padding with ones": ([n("Pad", "x,p,v", "z"), n("Conv", "z,k")],
                          {"p": np.array([0, 0, 2, 0, 0, 0]), "v": np.float32(1), "k": KERNEL}, [1, 3, T],
                          "expected padding with zeros"),
    "reflected padding": ([n("Pad", "x,p", "z", mode="reflect"), n("Conv", "z,k")],
                          {"p": np.array([0, 0, 2, 0, 0, 0]), "k": KERNEL}, [1, 3, T], "mode `reflect`"),
    "a bias before the padding's convolution": (
        [n("Pad", "x,p", "z"), n("Add", "z,b", "u"), n("Conv", "u,k")],
        {"p": np.array([0, 0, 2, 0, 0, 0]), "b": w(3, 1), "k": KERNEL}, [1, 3, T], "of step 0, is of step 2"),
    "an LSTM after a convolution without padding": (
        [n("Conv", "x,k", "z"), n("Transpose", "z", "s", perm=[2, 0, 1]), n("LSTM", "s,W,R", "y", hidden_size=2)],
        {"k": KERNEL, "W": w(1, 8, 4), "R": w(1, 8, 2)}, [1, 3, T], "expected all steps in order from the first one"),
    "differences of rows": (
        [n("Slice", "x,a,e,a", "l"), n("Slice", "x,z,m,a", "f"), n("Sub", "l,f", "d"), n("MatMul", "d,w")],
        {"a": ONE, "e": np.array([99]), "z": np.array([0]), "m": np.array([-1]), "w": w(3, 2)}, [1, T, 3],
        "found steps 1 and 0; a look ahead or back?"),
    "a reversed window": ([n("Slice", "x,a,e,o,s", "r"), n("MatMul", "r,w")],
                          {"a": np.array([-1]), "e": np.array([-99]), "o": ONE, "s": np.array([-1]), "w": w(3, 2)},
                          [1, T, 3],
                          "in the order of the steps"),
    "factors by step": ([n("Mul", "x,f", "z"), n("MatMul", "z,w")], {"f": w(T, 3), "w": w(3, 2)}, [1, T, 3],
                        "factors that differ from step to step"),
    "a norm over time": ([n("Transpose", "x", "t", perm=[0, 2, 1]), n("LayerNormalization", "t,g", "z"),
                          n("Transpose", "z", "y", perm=[0, 2, 1])], {"g": w(T)}, [1, T, 3],
                         "a norm over the features of one step, found several steps"),
    "a pool with zeros among negative values": (
        [n("Pad", "x,p", "z"), n("MaxPool", "z", kernel_shape=[3])], {"p": np.array([0, 0, 2, 0, 0, 0])}, [1, 3, T],
        "expected the padding of a maximum to be ignored"),
    "a strided pool": ([n("MaxPool", "x", kernel_shape=[2], strides=[2])], {}, [1, 3, "t"],
    "expected pooling at every step"),
    "a scalar power": ([n("Pow", "x,p", "z"), n("MatMul", "z,w")], {"p": np.float32(1.5), "w": w(3, 2)}, [1, T, 3],
                       "an exponent of 1, 2, 3, 0.5 or -0.5, was 1.5"),
    "a clip": ([n("Clip", "x,a,b", "z"), n("MatMul", "z,w")], {"a": np.float32(0), "b": np.float32(6), "w": w(3, 2)},
               [1, T, 3], "expected to clip at 0 from below only"),
    "the input itself": ([n("Identity", "x")], {}, [1, T, 3], "must come from a layer"),
    "a mean of features": ([n("ReduceMean", "x,a")], {"a": np.array([2])}, [1, T, 3],
    "a mean over features that is no norm"),
    "features of open number": ([n("Relu", "x")], {}, [1, "t", "f"], "expected one axis of features of fixed size"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_declined(case: str) -> None:
    nodes, tensors, x, words = CASES[case]
    with pytest.raises(ModelLoadingError) as error:
        read_network(build(nodes, tensors, x))
    assert words in str(error.value)
    assert "runs on ONNX Runtime instead" in str(error.value)


def test_what_looks_alike_and_is_read() -> None:
    x = w(T, 3)
    bias, matrix = w(3), w(3, 2)
    network = read_network(
        build([n("Add", "x,b", "z"), n("Relu", "z", "r"), n("MatMul", "r,w")], {"b": bias, "w": matrix}, [1, T, 3])
    )
    assert np.abs(network_reference.run(network, x) - np.maximum(x + bias, 0) @ matrix).max() < 1e-6
    # The last rows of a convolution without padding need no padding.
    last = [n("Conv", "x,k", "z"), n("Gather", "z,i", axis=2)]
    network = read_network(build(last, {"k": KERNEL, "i": np.array(-1)}, [1, 3, "t"]))
    assert network.output_mode == "last"
    want = np.einsum("oct,tc->o", KERNEL, x[-3:])
    assert np.abs(network_reference.run(network, x)[-1] - want).max() < 1e-5
    # A mean over features is a norm's business, and one over a window of known length a pool's.
    network = read_network(build([n("ReduceMean", "x,a", keepdims=0)], {"a": ONE}, [1, T, 3]))
    assert np.abs(network_reference.run(network, x)[-1] - x.mean(axis=0)).max() < 1e-6


HUGE = 1 << 40
HOSTILE = {
    "a huge input": ([n("Relu", "x")], {}, [1, HUGE, 3]),
    "many features": ([n("Relu", "x")], {}, [1, T, HUGE]),
    "a huge constant": ([n("ConstantOfShape", "s", "c"), n("Add", "x,c")], {"s": np.array([HUGE, HUGE])}, [1, T, 3]),
    "a huge range": ([n("Range", "a,b,d", "c"), n("Gather", "x,c", axis=1)],
                     {"a": np.array(0), "b": np.array(HUGE), "d": np.array(1)}, [1, T, 3]),
    "a range of NaN": ([n("Range", "a,b,d", "c"), n("Add", "x,c")],
                       {"a": np.float32(0), "b": np.float32(np.nan), "d": np.float32(1)}, [1, T, 3]),
    "huge padding": ([n("Pad", "x,p", "z"), n("Relu", "z")], {"p": np.array([0, HUGE, 0, 0, 0, 0])}, [1, T, 3]),
    "a huge kernel": ([n("MaxPool", "x", kernel_shape=[HUGE], pads=[HUGE, 0])], {}, [1, 3, T]),
    "a huge dilation": ([n("Conv", "x,k", dilations=[HUGE], pads=[HUGE, HUGE])], {"k": KERNEL}, [1, 3, T]),
    "a huge tile": ([n("Tile", "x,r")], {"r": np.array([1, HUGE, HUGE])}, [1, T, 3]),
    "a huge expansion": ([n("Expand", "x,s")], {"s": np.array([HUGE, T, 3])}, [1, T, 3]),
    "growth without end": ([n("Concat", f"{'x' if i == 0 else f'v{i}'}," * 7 + ("x" if i == 0 else f"v{i}"),
    f"v{i + 1}", axis=1)
                            for i in range(20)] + [n("Relu", "v20")], {}, [1, T, 3]),
    "growth by addition": ([n("Add", f"{'x' if i == 0 else f'v{i}'},{'x' if i == 0 else f'v{i}'}", f"v{i + 1}")
                            for i in range(3000)] + [n("Relu", "v3000")], {}, ["b", "t", 3]),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_end_soon(case: str) -> None:
    nodes, tensors, x = HOSTILE[case]
    start = time.monotonic()
    try:
        read_network(build(nodes, tensors, x))
    except ModelLoadingError as error:
        assert "runs on ONNX Runtime instead" in str(error)  # noqa: PT017
    assert time.monotonic() - start < 20
