"""Pruning: which values stand together, what is cut, and that the rest still is the same network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_networks import FAMILIES, lstm, network, normal, rows, tcn, transformer

from tengri_fast.errors import ConfigurationError, ModelLoadingError
from tengri_fast.inference.acceptance import accept
from tengri_fast.inference.canonical import write_canonical
from tengri_fast.inference.canonical_reader import read_canonical
from tengri_fast.inference.channels import Channels, cut
from tengri_fast.inference.evaluate import evaluate
from tengri_fast.inference.layers import (
    AddLayer,
    ConcatLayer,
    ConvLayer,
    DenseLayer,
    GruLayer,
    LstmLayer,
    NormLayer,
    SliceLayer,
)
from tengri_fast.inference.network import Network, Node, chain
from tengri_fast.inference.prune import prune
from tengri_fast.inference.quantize import quantize

PRUNABLE = (
    "lstm",
    "projected",
    "gru",
    "gru_before",
    "mlp",
    "tcn",
    "deeplob",
    "transformer",
    "rope",
    "alibi",
    "grouped",
    "pools",
    "gated",
)


def sizes(net: Network) -> list[tuple[str, str, int]]:
    return [(family.name, family.kind, len(family.units)) for family in Channels(net).families]


def parameters(net: Network) -> int:
    return sum(v.size for node in net.nodes for v in vars(node.layer).values() if isinstance(v, np.ndarray))


# ---------------------------------------------------------------- families


def test_families_of_chains():
    assert sizes(network("lstm")) == [("lstm0", "units", 8), ("lstm1", "units", 8)]
    assert sizes(network("projected")) == [("lstm", "units", 8), ("lstm", "units", 12)]
    assert sizes(network("mlp")) == [("one", "channels", 12), ("two", "channels", 8)]


def test_a_residual_stream_is_one_family():
    # Every block adds to the stream, so channel j of each of them goes or stays together.
    assert sizes(tcn(np.random.default_rng(0))) == [("enter", "channels", 6)]


def test_heads_go_with_their_queries_keys_and_values():
    assert sizes(transformer(np.random.default_rng(0))) == [("q", "heads", 2), ("up", "channels", 16)]
    # Grouped: a head of keys takes the queries that read it along.
    assert sizes(transformer(np.random.default_rng(0), "alibi", heads=4, kv=2))[0] == ("q", "heads", 2)


def test_what_cannot_go():
    rng = np.random.default_rng(0)
    norm = chain(
        [
            DenseLayer(normal(rng, 6, 5), normal(rng, 6)),
            NormLayer(np.ones(6)),
            DenseLayer(normal(rng, 3, 6), normal(rng, 3)),
        ]
    )
    assert sizes(norm) == []
    soft = chain(
        [DenseLayer(normal(rng, 6, 5), normal(rng, 6), "softmax"), DenseLayer(normal(rng, 3, 6), normal(rng, 3))]
    )
    assert sizes(soft) == []
    # The input is added to the first layer's row, so that row has the input's width for good.
    nodes = (
        Node(DenseLayer(normal(rng, 5, 5), normal(rng, 5))),
        Node(AddLayer(5), (-1, 0)),
        Node(DenseLayer(normal(rng, 3, 5), normal(rng, 3)), (1,)),
    )
    assert sizes(Network(nodes, 5)) == []
    with pytest.raises(ConfigurationError, match=r"must remove something, did not \(families that can go: none\)"):
        prune(norm, rows(100), target=0.5)


def test_slices_and_concats_keep_their_places():
    rng = np.random.default_rng(0)
    nodes = (
        Node(DenseLayer(normal(rng, 8, 5), normal(rng, 8), name="wide")),
        Node(SliceLayer(0, 3), (0,)),
        Node(SliceLayer(3, 5), (0,)),
        Node(ConcatLayer((5, 3)), (2, 1)),
        Node(DenseLayer(normal(rng, 3, 8), normal(rng, 3), name="head"), (3,)),
    )
    net = Network(nodes, 5)
    channels = Channels(net)
    assert sorted(len(family.units) for family in channels.families) == [3, 5]
    ids = channels.rows[0]
    made = cut(net, channels, {int(ids[1]), int(ids[3]), int(ids[7])})
    assert [(n.layer.offset, n.layer.width) for n in made.nodes[1:3]] == [(0, 2), (2, 3)]
    assert made.nodes[3].layer.widths == (3, 2)
    kept_rows, kept_columns = [0, 2, 4, 5, 6], [1, 2, 3, 5, 7]
    np.testing.assert_array_equal(made.nodes[0].layer.w, nodes[0].layer.w[kept_rows])
    np.testing.assert_array_equal(made.nodes[4].layer.w, nodes[4].layer.w[:, kept_columns])


# ---------------------------------------------------------------- cutting is exact


def silence(net: Network, channels: Channels, units: set[int]) -> Network:
    """The network whose readers do not listen to these units: what they do no longer matters."""
    gone = np.array(sorted(units))
    nodes = []
    for i, node in enumerate(net.nodes):
        layer = node.layer
        deaf = [np.isin(channels.rows[s], gone) for s in node.inputs]
        own = np.isin(channels.rows[i], gone)
        changes = {}
        if layer.kind in ("dense", "lstm", "gru"):
            changes["w"] = np.where(deaf[0], np.float32(0), layer.w)
        if layer.kind in ("lstm", "gru"):
            changes["r"] = np.where(own, np.float32(0), layer.r)
        if layer.kind == "lstm" and layer.projection is not None:
            changes["projection"] = np.where(np.isin(channels.inner[i], gone), np.float32(0), layer.projection)
        if layer.kind == "conv" and layer.groups == 1:
            changes["w"] = np.where(np.tile(deaf[0][: layer.channels], layer.level_kernel), np.float32(0), layer.w)
        nodes.append(replace(node, layer=replace(layer, **changes)) if changes else node)
    return replace(net, nodes=tuple(nodes))


@pytest.mark.parametrize("family", PRUNABLE)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_cutting_what_nobody_hears_changes_nothing(family, data):
    net = network(family)
    channels = Channels(net)
    removed: set[int] = set()
    for group in channels.families:
        removed |= (
            data.draw(st.sets(st.sampled_from(group.units), max_size=len(group.units) - 1))
            if len(group.units) > 1
            else set()
        )
    silent = silence(net, channels, removed)
    made = cut(silent, channels, removed)
    x = rows(40)
    np.testing.assert_allclose(evaluate(made, x), evaluate(silent, x), rtol=0, atol=1e-12)
    assert parameters(made) <= parameters(net)
    assert read_canonical(write_canonical(made)).sha256() == made.sha256()


@pytest.mark.parametrize("family", PRUNABLE)
def test_units_of_no_saliency_go_first_and_nothing_changes(family):
    net = network(family)
    channels = Channels(net)
    groups = [group for group in channels.families if len(group.units) > 1]
    removed = {unit for group in groups for unit in group.units[: round(len(group.units) / 2)]}
    silent = silence(net, channels, removed)
    x = rows(200)
    made, report = prune(silent, x, target=0.5, align=1)
    np.testing.assert_allclose(evaluate(made, x), evaluate(silent, x), rtol=0, atol=1e-12)
    assert all(entry.saliency_removed == 0.0 for entry in report.families)
    assert report.parameters_after < report.parameters_before


def test_the_exact_network_is_left():
    net = network("lstm")
    made, _ = prune(net, rows(300), units=4, align=1, compensate=False)
    first, second, head = (node.layer for node in made.nodes)
    kept = [i for i in range(8) if net.nodes[0].layer.bias[i] in first.bias[:4]]
    assert len(kept) == 4
    four = np.concatenate([np.array(kept) + 8 * gate for gate in range(4)])
    np.testing.assert_array_equal(first.w, net.nodes[0].layer.w[four])
    np.testing.assert_array_equal(first.r, net.nodes[0].layer.r[four][:, kept])
    assert second.w.shape == (16, 4)
    assert head.w.shape == (3, 4)


# ---------------------------------------------------------------- saliency


def test_saliency_is_what_the_sums_lose():
    """One hidden layer: the removed share of variance in front of the head, by hand."""
    rng = np.random.default_rng(6)
    net = chain(
        [
            DenseLayer(normal(rng, 10, 5), normal(rng, 10), "tanh", "hidden"),
            DenseLayer(normal(rng, 2, 10), normal(rng, 2)),
        ]
    )
    x = rows(500)
    hidden = evaluate(net, x, node=0)
    energy = hidden.var(axis=0) * (net.nodes[1].layer.w.astype(np.float64) ** 2).sum(axis=0)
    left = np.sort(np.argsort(energy)[5:])
    made, report = prune(net, x, target=0.5, align=1)
    np.testing.assert_array_equal(made.nodes[0].layer.bias, net.nodes[0].layer.bias[left])
    assert report.families[0].saliency_removed == pytest.approx(1 - energy[left].sum() / energy.sum())


def test_the_mean_of_what_goes_is_kept():
    net, x = network("mlp"), rows(1_000)
    exact = evaluate(net, x)
    error = {}
    for compensate in (False, True):
        made, _ = prune(net, x, units=4, align=1, compensate=compensate, keep=["one"])
        error[compensate] = np.abs((evaluate(made, x) - exact).mean(axis=0)).max()
    assert error[True] < 1e-6 < error[False]


def test_pruning_by_data_beats_pruning_by_chance():
    net, x, test = network("lstm"), rows(1_000), rows(500, seed=5)
    exact = evaluate(net, test)
    channels = Channels(net)

    def loss(made):
        return np.sqrt(np.mean((evaluate(made, test) - exact) ** 2))

    chosen = loss(prune(net, x, units=6, align=1)[0])
    rng = np.random.default_rng(0)
    chance = [
        loss(
            cut(
                net,
                channels,
                {int(u) for group in channels.families for u in rng.choice(group.units, 2, replace=False)},
            )
        )
        for _ in range(10)
    ]
    assert chosen < np.median(chance)


def test_magnitude_needs_no_rows():
    made, report = prune(network("gru"), target=0.25, saliency="magnitude", align=1)
    assert made.nodes[0].layer.output_size == 6
    assert (report.rows, report.calibration_sha256, report.compensate) == (0, "", False)


def test_a_convolution_over_levels_and_a_projection_are_cut_on_both_sides():
    made, _ = prune(network("deeplob"), rows(200), target=0.5, align=1)
    assert made.nodes[0].layer.w.shape == (2, 2, 2)
    assert made.nodes[1].layer.channels == 2
    projected, _ = prune(network("projected"), rows(200), target=0.5, align=1)
    layer = projected.nodes[0].layer
    assert (layer.hidden_size, layer.output_size, layer.projection.shape) == (6, 4, (4, 6))


def test_heads_are_cut_whole():
    net = transformer(np.random.default_rng(1), "alibi", heads=4, kv=2)
    made, report = prune(net, rows(200), target=0.5, align=1, kinds=["heads"])
    layer = made.nodes[5].layer
    assert (layer.heads, layer.kv_heads, len(layer.slopes), layer.scale) == (2, 1, 2, net.nodes[5].layer.scale)
    assert made.nodes[6].layer.w.shape == (8, 4)
    assert [(entry.kind, entry.before, entry.after) for entry in report.families] == [("heads", 2, 1)]


def test_what_is_left_is_a_multiple_of_the_block():
    net = lstm(np.random.default_rng(0), hidden=40, layers=1)
    assert prune(net, rows(100), target=0.5)[0].nodes[0].layer.output_size == 16
    assert prune(net, rows(100), target=0.3)[0].nodes[0].layer.output_size == 32
    assert prune(net, rows(100), target=0.5, align=1)[0].nodes[0].layer.output_size == 20
    assert prune(net, rows(100), units=23)[0].nodes[0].layer.output_size == 23


def test_kept_layers_and_kinds():
    made, report = prune(network("lstm"), rows(100), target=0.5, align=1, keep=["lstm0"])
    assert [node.layer.output_size for node in made.nodes] == [8, 4, 3]
    assert len(report.families) == 1
    made, _ = prune(network("transformer"), rows(100), target=0.5, align=1, kinds=["channels"])
    assert made.nodes[5].layer.heads == 2
    assert made.nodes[9].layer.output_size == 8


# ---------------------------------------------------------------- N:M


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_hold_in_every_matrix(family, pattern):
    net = tcn(np.random.default_rng(0), 8) if family == "tcn" else network(family)
    kept, block = map(int, pattern.split(":"))
    made, report = prune(net, rows(200), pattern=pattern)
    touched = 0
    for before, after in zip(net.nodes, made.nodes, strict=True):
        for name in ("w", "r", "projection"):
            a, b = getattr(before.layer, name, None), getattr(after.layer, name, None)
            if a is None:
                continue
            assert ((b == 0) | (b == a)).all()
            whole = a.shape[-1] // block * block
            if whole:
                counts = np.count_nonzero(b[..., :whole].reshape(*b.shape[:-1], -1, block), axis=-1)
                assert (counts == kept).all()
                touched += 1
            np.testing.assert_array_equal(a[..., whole:], b[..., whole:])
    assert touched == len(report.families) > 0
    assert "neither its speed nor its size" in report.notes[0]


def test_the_pattern_keeps_what_carries_the_signal():
    layer = DenseLayer(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32), np.zeros(1))
    signs = np.sign(rows(300, 4))
    x = signs * np.array([100, 1, 1, 1], np.float32)
    made, _ = prune(chain([layer]), x, pattern="2:4")
    np.testing.assert_array_equal(made.nodes[0].layer.w, [[1, 0, 0, 4]])
    made, _ = prune(chain([layer]), pattern="2:4", saliency="magnitude")
    np.testing.assert_array_equal(made.nodes[0].layer.w, [[0, 0, 3, 4]])
    even = DenseLayer(np.ones((1, 4), np.float32), np.zeros(1))
    made, _ = prune(chain([even]), pattern="2:4", saliency="magnitude")
    np.testing.assert_array_equal(made.nodes[0].layer.w, [[1, 1, 0, 0]])


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, ConfigurationError, "one of `target`, `units` and `pattern` must be given"),
        ({"target": 0.5, "units": 3}, ConfigurationError, "one of `target`, `units` and `pattern` must be given"),
        ({"target": 1.0}, ConfigurationError, r"`target` must lie in \(0, 1\), was 1.0"),
        ({"units": 0}, ConfigurationError, "`units` must be >= 1, was 0"),
        (
            {"units": 8},
            ConfigurationError,
            r"must remove something, did not \(families that can go: lstm0 8, lstm1 8\)",
        ),
        ({"target": 0.5, "align": 0}, ConfigurationError, "`align` must be >= 1, was 0"),
        (
            {"target": 0.5, "saliency": "hope"},
            ConfigurationError,
            "`saliency` must be one of activation, magnitude, was 'hope'",
        ),
        (
            {"target": 0.5, "kinds": ["toes"]},
            ConfigurationError,
            "`kinds` must be of units, channels, heads, was 'toes'",
        ),
        ({"target": 0.5, "keep": ["nobody"]}, ModelLoadingError, "`keep` must name layers .*, was 'nobody'"),
        ({"target": 0.5, "rows": None}, ConfigurationError, "`rows` must be given for saliency `activation`"),
        ({"pattern": "4:2"}, ConfigurationError, "`pattern` must be N:M with 0 < N < M <= 64, was '4:2'"),
        ({"pattern": "half"}, ConfigurationError, "`pattern` must be N:M"),
        ({"pattern": "2:64"}, ConfigurationError, "`pattern` must fit a matrix: none has 64 inputs or more"),
    ],
)
def test_options_are_checked(options, error, text):
    given = {"rows": rows(100), **options}
    with pytest.raises(error, match=text):
        prune(network("lstm"), given.pop("rows"), **given)


def test_prune_first_then_quantise():
    made, _ = quantize(network("lstm"), "int8", rows(200))
    with pytest.raises(ModelLoadingError, match="`format` must be fp32 to be pruned, was int8"):
        prune(made, rows(200), target=0.5)
    pruned, _ = prune(network("lstm"), rows(200), target=0.5, align=1)
    both, _ = quantize(pruned, "int8", rows(200))
    assert both.metadata["source_sha256"] == network("lstm").sha256()
    assert both.metadata["pruning"] == "units"


def test_nothing_may_be_cut_away_whole():
    net = network("gru")
    channels = Channels(net)
    with pytest.raises(ModelLoadingError, match="layer `gru`: at least one unit must be left"):
        cut(net, channels, set(channels.families[0].units))
    with pytest.raises(ModelLoadingError, match="must not hold unit 0"):
        cut(net, channels, {0})


def test_depthwise_channels_go_with_their_inputs():
    rng = np.random.default_rng(0)
    net = chain(
        [
            DenseLayer(normal(rng, 6, 5), normal(rng, 6), name="enter"),
            ConvLayer(normal(rng, 3, 6, 1), normal(rng, 6), groups=6, name="depth"),
            GruLayer(normal(rng, 12, 6), normal(rng, 12, 4), normal(rng, 12), normal(rng, 12)),
            LstmLayer(normal(rng, 16, 4), normal(rng, 16, 4), normal(rng, 16)),
            DenseLayer(normal(rng, 3, 4), normal(rng, 3), name="head"),
        ]
    )
    made, _ = prune(net, rows(200), target=0.5, align=1)
    depth = made.nodes[1].layer
    assert (depth.groups, depth.w.shape, depth.output_size) == (3, (3, 3, 1), 3)


def test_the_same_report_as_for_formats(monkeypatch):
    from tengri_fast.inference import acceptance

    monkeypatch.setattr(
        acceptance, "_runners", lambda b, a: ([lambda x: evaluate(b, x), lambda x: evaluate(a, x)], "by this test")
    )
    net = network("lstm")
    made, _ = prune(net, rows(300), units=2, align=1)
    found = accept(net, made, rows(200, seed=9))
    assert not found.blessed
    assert found.parameters_after < found.parameters_before
    assert any(text.startswith("relative rms error must be <= 0.05, was") for text in found.refusals)
