"""Layers and networks as plain data: what does not fit is refused by name, and conversion keeps the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference.networks import FAMILIES, conv, dense, family, gru, lstm, networks, quantised, rows

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference import layers as L
from tengri_fast.inference.describe import Description, sizes_of, values_of
from tengri_fast.inference.network import FORMATS, INPUT, WEIGHTED, Matrix8, Network, Node, chain

RNG = np.random.default_rng(3)
ONE = np.ones(3, np.float32)

REFUSED: list[tuple[Any, str]] = [
    (lambda: L.LstmLayer(np.ones((8, 3)), np.ones((12, 3)), np.ones(12)), "`w` must have 12 rows, had 8"),
    (lambda: L.LstmLayer(np.ones(8), np.ones((8, 2)), np.ones(8)), r"`w` must have 2 dimension\(s\), had 1"),
    (lambda: replace(lstm(RNG, 3, 4, 2), projection=np.ones((3, 4))), "`projection` must have 2 rows"),
    (lambda: L.GruLayer(np.ones((6, 2)), np.ones((6, 2)), np.ones(6), np.ones(5)), "`recurrent_bias` must have 6 rows"),
    (lambda: L.DenseLayer(np.full((1, 1), np.inf), np.ones(1)), "`w` must be finite"),
    (lambda: L.DenseLayer(np.ones((0, 3)), np.ones(0)), "`w` must not be empty"),
    (lambda: L.DenseLayer(np.ones((3, 1)), ONE, "swish"), "`activation` must be one of none, relu.*was 'swish'"),
    (
        lambda: L.DenseLayer(np.ones((3, 1)), ONE, "softmax", softmax_groups=2),
        "`softmax_groups` must divide the width 3",
    ),
    (lambda: conv(RNG, 3, 3, 2, dilation=0), "`dilation` must be >= 1, was 0"),
    (lambda: conv(RNG, 4, 3, 2, groups=2), r"`groups` must divide the output channels \(3\)"),
    (lambda: conv(RNG, 4, 4, 2, groups=2, levels=2), "`groups` must be 1 where there are levels"),
    (lambda: conv(RNG, 4, 3, 2, levels=2, level_kernel=3), r"`level_kernel` must be <= the levels \(2\)"),
    (lambda: conv(RNG, 4, 3, 2, level_stride=2), r"`level_stride` must be <= the levels \(1\)"),
    (lambda: conv(RNG, 4, 3, 1, "softmax", levels=2), "`activation` must not be softmax over several levels"),
    (lambda: L.AttentionLayer(3, 2, 4, 4, 5), r"`kv_heads` must divide the heads \(3\)"),
    (lambda: L.AttentionLayer(2, 2, 3, 4, 5, position="rope"), "`dim` must be even"),
    (lambda: L.AttentionLayer(2, 2, 4, 4, 0), "`window` must be >= 1"),
    (lambda: L.AttentionLayer(2, 2, 4, 4, 5, position="alibi"), "`slopes` must be given"),
    (lambda: L.AttentionLayer(2, 2, 4, 4, 5, position="sine"), "`position` must be one of none, rope"),
    (lambda: L.AttentionLayer(2, 2, 4, 4, 5, rope_base=-1.0), "`rope_base` must be finite and > 0"),
    (lambda: L.NormLayer(ONE, np.ones(2)), "`beta` must have 3 rows"),
    (lambda: L.NormLayer(ONE, norm="batch"), "`norm` must be one of layer, rms"),
    (lambda: L.NormLayer(ONE, epsilon=0.0), r"`epsilon` must lie in \(0, 1\)"),
    (lambda: L.AffineLayer(ONE, np.ones(2)), "`shift` must have 3 rows"),
    (lambda: L.ActivationLayer("relu", 0), "`width` must be >= 1"),
    (lambda: L.AddLayer(0), "`width` must be >= 1"),
    (lambda: L.MulLayer(-1), "`width` must be >= 1"),
    (lambda: L.ConcatLayer((1,) * 9), "`widths` must hold 1 to 8"),
    (lambda: L.ConcatLayer(()), "`widths` must hold 1 to 8"),
    (lambda: L.SliceLayer(-1, 2), "`width` must be >= 1 and `offset` >= 0"),
    (lambda: L.PoolLayer(3, 0), "`window` must be >= 1"),
    (lambda: L.PoolLayer(3, 2, "median"), "`pool` must be one of mean, max, sum"),
    (lambda: L.PositionLayer(np.ones(3)), r"`table` must have 2 dimension\(s\)"),
    (lambda: Node(L.AddLayer(3)), "`inputs` must have 2 entries, had 1"),
    (lambda: Node(L.AddLayer(3), (INPUT, INPUT), "fp8"), "`format` must be one of fp32.*was 'fp8'"),
    (lambda: Node(dense(RNG, 3, 2), format="int8"), "format int8 needs an int8 matrix `w`"),
    (lambda: Matrix8(np.ones((2, 2), np.int16), ONE), r"must be int8 in \[-127, 127\]"),
    (lambda: Matrix8(np.full((2, 2), -128, np.int8), ONE[:2]), r"must be int8 in \[-127, 127\]"),
    (lambda: Matrix8(np.ones((2, 2), np.int8), ONE), r"`scale` must have shape \[2\], had \[3\]"),
    (lambda: Matrix8(np.ones((2, 2), np.int8), np.zeros(2)), "must be finite and > 0"),
    (lambda: chain([]), "`layers` must hold at least one layer"),
    (lambda: chain(["lstm"]), "`layers` must hold layers, held str"),
    (lambda: chain([L.AddLayer(3)]), "`inputs` must have 2 entries"),
    (lambda: chain([dense(RNG, 3, 2), dense(RNG, 3, 2)]), r"layer 1 .*the layer before it \(2\), was 3"),
    (lambda: Network((), 3), "must hold at least one layer"),
    (lambda: Network((Node(L.AddLayer(3), (INPUT, 0)),), 3), "`inputs` must name earlier layers, was 0"),
    (lambda: Network((Node(L.AddLayer(3), (INPUT, -2)),), 3), "`inputs` must name earlier layers, was -2"),
    (lambda: Network((Node(L.SliceLayer(2, 2)),), 3), "the slice must lie within 3 values"),
    (lambda: Network((Node(dense(RNG, 3, 2)),), 0), "`input_size` must be >= 1"),
    (lambda: Network((Node(dense(RNG, 3, 2)),), 3, output=1), r"`output` must be a node in \[0, 1\), was 1"),
    (lambda: Network((Node(dense(RNG, 3, 2)),), 3, output_mode="some"), "`output_mode` must be"),
    (
        lambda: Network((Node(dense(RNG, 3, 2)),), 3, outputs=(("y", 3),)),
        "`outputs` must have 2 values in total, had 3",
    ),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_does_not_fit_is_named(case: int) -> None:
    make, text = REFUSED[case]
    with pytest.raises(ModelLoadingError, match=text):
        make()


def test_scales_of_integer_nodes_are_checked() -> None:
    network = quantised(family("projected"), "int8", rows(20, 20))
    node = network.nodes[0]
    for key in ("input", "state", "projection"):
        for bad in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ModelLoadingError, match=f"scale `{key}` must be finite and > 0"):
                replace(node, scales={**node.scales, key: bad})
        with pytest.raises(ModelLoadingError, match=f"scale `{key}`"):
            replace(node, scales={k: v for k, v in node.scales.items() if k != key})
    with pytest.raises(ModelLoadingError, match="needs an int8 matrix `r` of shape"):
        replace(node, matrices={k: v for k, v in node.matrices.items() if k != "r"})


def test_matrix8_stands_for_its_weights() -> None:
    w = RNG.standard_normal((5, 7)).astype(np.float32)
    scale = np.abs(w).max(axis=1) / 127
    matrix = Matrix8(np.round(w / scale[:, None]).astype(np.int8), scale)
    assert matrix.dequantised().dtype == np.float32
    assert np.abs(matrix.dequantised() - w).max() <= scale.max() * 0.5001


@pytest.mark.parametrize("name", FAMILIES)
def test_identity_follows_content(name: str) -> None:
    network = family(name)
    assert network.sha256() == family(name).sha256() != family(name, seed=12).sha256()
    renamed = replace(network, nodes=tuple(replace(n, layer=replace(n.layer, name="x")) for n in network.nodes))
    assert renamed.sha256() == network.sha256(), "names are no content"
    hashes = {network.converted(format_).sha256() for format_ in ("fp32", "fp16", "bf16")}
    x = rows(12, 20)
    hashes |= {quantised(network, format_, x).sha256() for format_ in ("int8", "int8a16")}
    assert len(hashes) == 5


@settings(max_examples=60, deadline=None)
@given(networks(), st.sampled_from(["fp32", "fp16", "bf16"]))
def test_conversion_changes_formats_only(network: Network, format_: str) -> None:
    other = network.converted(format_)
    assert other.layers == network.layers
    assert [node.inputs for node in other.nodes] == [node.inputs for node in network.nodes]
    for node in other.nodes:
        assert node.format == (format_ if node.layer.kind in WEIGHTED else "fp32")
    assert other.converted("fp32").sha256() == network.sha256()
    assert (other.output_size, other.max_steps, other.windowed_only) == (network.output_size, 0, False)


def test_conversion_refuses_what_it_cannot_do() -> None:
    network = family("lstm")
    for bad in ("int8", "int8a16", "fp8", ""):
        with pytest.raises(ModelLoadingError, match="`format` must be fp32, fp16 or bf16"):
            network.converted(bad)
    with pytest.raises(ModelLoadingError, match="must be a float one to become fp16, was int8"):
        quantised(network, "int8", rows(10, 20)).converted("fp16")
    big = chain([L.DenseLayer(np.full((1, 1), 7e4, np.float32), np.zeros(1))])
    with pytest.raises(ModelLoadingError, match="`w` must be within 65504 for fp16, was 70000"):
        big.converted("fp16")
    assert big.converted("bf16").format == "bf16"


def test_format_of_a_whole_network() -> None:
    assert [family("mlp").converted(f).format for f in ("fp32", "fp16", "bf16")] == ["fp32", "fp16", "bf16"]
    nodes = list(family("mlp").converted("fp16").nodes)
    nodes[-1] = replace(nodes[-1], format="fp32")
    assert Network(tuple(nodes), 20).format == "mixed"
    assert Network((Node(L.ActivationLayer("relu", 3)),), 3).format == "fp32"
    assert FORMATS == ("fp32", "fp16", "bf16", "int8", "int8a16")


def test_descriptions_hold_what_the_header_says() -> None:
    assert sizes_of(lstm(RNG, 3, 8, 5)) == (8,)
    assert sizes_of(gru(RNG, 3, 4, reset_after=False)) == (4, 0)
    layer = conv(RNG, 2, 3, 4, dilation=2, stride=3, levels=5, level_kernel=2, level_stride=1)
    assert sizes_of(layer) == (4, 2, 3, 1, 5, 2, 1)
    slopes = np.ones(4, np.float32)
    assert sizes_of(L.AttentionLayer(4, 2, 6, 7, 19, position="alibi", slopes=slopes)) == (4, 2, 19, 3)
    assert sizes_of(L.PoolLayer(3, 7, "max", False)) == (7, 1, 0)
    assert sizes_of(L.AddLayer(3)) == ()
    attention = Node(L.AttentionLayer(1, 1, 4, 4, 3, position="rope"), (INPUT,) * 3)
    assert values_of(attention) == [0, 0, 0, 0.5, 10_000.0, 0, 0, 0]
    assert values_of(Node(L.NormLayer(ONE, epsilon=1e-3)))[3] == 1e-3
    assert values_of(Node(dense(RNG, 3, 2, "leaky_relu", slope=0.3)))[7] == 0.3
    network = quantised(family("projected"), "int8", rows(10, 20))
    scales = network.nodes[0].scales
    assert values_of(network.nodes[0])[:3] == [scales["input"], scales["state"], scales["projection"]]
    with pytest.raises(TypeError):
        Description(network).__reduce__()
