"""Quantisation: scales, rounding, the report, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_networks import FAMILIES, lstm, network, normal, rows

from tengri_fast.errors import ConfigurationError, InferenceFailed, ModelLoadingError
from tengri_fast.inference.acceptance import Acceptance, Limits, accept, weight_bytes
from tengri_fast.inference.calibrate import Histogram, calibrate, sequences
from tengri_fast.inference.canonical import write_canonical
from tengri_fast.inference.evaluate import evaluate, half_width, quantise_row
from tengri_fast.inference.layers import AttentionLayer, ConvLayer, DenseLayer, PositionLayer, SliceLayer
from tengri_fast.inference.network import Matrix8, Network, Node, chain
from tengri_fast.inference.quantize import quantize, quantize_matrix

FORMATS = ("int8", "int8a16", "fp16", "bf16")


def spread(a: np.ndarray, b: np.ndarray) -> float:
    """rms difference over the spread of `a`."""
    return float(np.sqrt(np.mean((a - b) ** 2)) / np.sqrt(np.mean((a - a.mean(axis=0)) ** 2)))


# ---------------------------------------------------------------- the evaluator, against code written without it


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_evaluator_is_the_lstm_of_the_textbook():
    net = lstm(np.random.default_rng(3), layers=1)
    x = rows(50)
    w, head = net.nodes[0].layer, net.nodes[1].layer
    h, c, out = np.zeros(8), np.zeros(8), []
    for row in x.astype(np.float64):
        i, f, g, o = np.split(w.w @ row + w.r @ h + w.bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(head.w @ h + head.bias)
    np.testing.assert_allclose(evaluate(net, x), out, atol=1e-12)


@pytest.mark.parametrize("position", ["none", "rope", "rope_interleaved", "alibi"])
def test_the_evaluator_attends_over_the_band(position):
    rng = np.random.default_rng(4)
    slopes = np.array([0.5, 0.125, 0.25, 0.0625]) if position == "alibi" else None
    layer = AttentionLayer(4, 2, 4, 3, 5, position=position, slopes=slopes)
    x = normal(rng, 30, 4 * 4 + 2 * 4 + 2 * 3, size=1.0).astype(np.float64)
    net = Network(
        (Node(SliceLayer(0, 16)), Node(SliceLayer(16, 8)), Node(SliceLayer(24, 6)), Node(layer, (0, 1, 2))), 30
    )

    def turned(vector, t):
        z = vector.copy()
        for m in range(2):
            a, b = (m, m + 2) if position == "rope" else (2 * m, 2 * m + 1)
            angle = t * 10_000.0 ** (-2 * m / 4)
            z[a] = vector[a] * math.cos(angle) - vector[b] * math.sin(angle)
            z[b] = vector[b] * math.cos(angle) + vector[a] * math.sin(angle)
        return z

    q, k, v = x[:, :16].reshape(30, 4, 4), x[:, 16:24].reshape(30, 2, 4), x[:, 24:].reshape(30, 2, 3)
    out = np.zeros((30, 4, 3))
    for t in range(30):
        for head in range(4):
            seen = range(max(0, t - 4), t + 1)
            scores = []
            for s in seen:
                a, b = q[t, head], k[s, head // 2]
                if position.startswith("rope"):
                    a, b = turned(a, t), turned(b, s)
                scores.append(a @ b / 2 - (slopes[head] * (t - s) if slopes is not None else 0.0))
            shares = np.exp(scores) / np.exp(scores).sum()
            out[t, head] = shares @ v[list(seen), head // 2]
    np.testing.assert_allclose(evaluate(net, x), out.reshape(30, -1), atol=1e-12)


def test_the_evaluator_convolves_causally_over_time_and_levels():
    rng = np.random.default_rng(5)
    layer = ConvLayer(normal(rng, 3, 4, 2 * 3), normal(rng, 4), dilation=2, levels=5, level_kernel=2, level_stride=2)
    x = normal(rng, 20, 15, size=1.0).astype(np.float64)
    out = np.zeros((20, 2, 4))
    for t in range(20):
        for level in range(2):
            for tap in range(3):
                if t - 2 * tap >= 0:
                    patch = x[t - 2 * tap].reshape(5, 3)[2 * level : 2 * level + 2].ravel()
                    out[t, level] += layer.w[tap].astype(np.float64) @ patch
            out[t, level] += layer.bias
    np.testing.assert_allclose(evaluate(chain([layer]), x), out.reshape(20, -1), atol=1e-12)


def test_a_stride_holds_its_row():
    layer = ConvLayer(np.ones((1, 1, 1), np.float32), np.zeros(1), stride=3)
    x = np.arange(8, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(evaluate(chain([layer]), x)[:, 0], [0, 0, 0, 3, 3, 3, 6, 6])


# ---------------------------------------------------------------- weights


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 40), st.sampled_from([1e-20, 1e-3, 1.0, 1e6]))
@settings(max_examples=60, deadline=None)
def test_absmax_weights_come_back_within_half_a_quantum(seed, out, width, size):
    w = (size * np.random.default_rng(seed).standard_t(3, (out, width))).astype(np.float32)
    held = quantize_matrix(w, "absmax")
    assert np.abs(held.values.astype(int)).max() <= 127
    error = np.abs(held.values * held.scale[:, None].astype(np.float64) - w)
    assert (error <= 0.5 * held.scale[:, None] * (1 + 1e-5)).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_mse_weights_are_never_worse(seed):
    w = np.random.default_rng(seed).standard_t(2, (5, 30)).astype(np.float32)
    error = {}
    for method in ("absmax", "mse"):
        held = quantize_matrix(w, method)
        error[method] = ((held.values * held.scale[:, None].astype(np.float64) - w) ** 2).sum(axis=1)
    assert (error["mse"] <= error["absmax"] * (1 + 1e-6)).all()


def test_mse_clips_an_outlier():
    w = np.random.default_rng(1).normal(0, 1, (1, 100_000)).astype(np.float32)
    w[0, 0] = 8.0
    assert quantize_matrix(w, "mse").scale[0] < 0.9 * quantize_matrix(w, "absmax").scale[0]


def test_a_channel_of_zeros_and_a_subnormal_one():
    w = np.zeros((3, 4), np.float32)
    w[1] = 1e-40
    w[2] = [1, -1, 0.5, 0]
    held = quantize_matrix(w)
    assert (held.scale[:2] == 1.0).all()
    assert not held.values[:2].any()
    assert np.isfinite(held.dequantised()).all()


def test_taps_of_a_convolution_share_the_channels_scale():
    w = normal(np.random.default_rng(2), 3, 4, 5)
    w[0] *= 10
    held = quantize_matrix(w, "absmax")
    assert held.scale.shape == (3, 4)
    assert (held.scale == held.scale[0]).all()
    np.testing.assert_allclose(held.scale[0], np.abs(w).max(axis=(0, 2)) / 127, rtol=1e-6)


# ---------------------------------------------------------------- activation scales


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200), st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_the_histogram_counts_everything_once(values, pieces):
    histogram = Histogram()
    for part in np.array_split(np.array(values), pieces):
        histogram.add(part)
    assert histogram.counts.sum() == histogram.total == len(values)
    assert histogram.absmax == np.abs(values).max()
    assert math.isclose(histogram.rms, math.sqrt(np.mean(np.square(values))), rel_tol=1e-9, abs_tol=1e-300)
    for share in (0.5, 0.9, 1.0):
        exact = np.sort(np.abs(values))[math.ceil(share * len(values)) - 1]
        assert exact <= histogram.quantile(share) * (1 + 1e-12) <= max(exact * (1 + 1 / 64), 2.0**-63)


def test_thresholds():
    histogram = Histogram()
    values = np.random.default_rng(0).normal(0, 1, 100_000)
    for part in np.array_split(values, 7):
        histogram.add(part)
    histogram.add([100.0])
    assert histogram.threshold("absmax", 127) == 100.0
    exact = np.quantile(np.abs(values), 0.999)
    assert histogram.threshold("percentile", 127, 99.9) == pytest.approx(exact, rel=0.01)
    # One value at 100 against 100,001 rounding errors: it is worth keeping part of the way, but not all of it.
    best = histogram.threshold("mse", 127)

    def loss(t):
        scale = t / 127
        all_values = np.append(values, 100.0)
        return ((np.clip(np.rint(all_values / scale), -127, 127) * scale - all_values) ** 2).sum()

    tried = 100.0 * 2.0 ** (-np.arange(200) / 20.0)
    assert loss(best) <= 1.02 * min(loss(t) for t in tried)
    assert 4.0 < best < 100.0
    assert histogram.clipped(50.0) == pytest.approx(1 / 100_001)


def test_only_zeros_give_a_scale_that_can_be_used():
    histogram = Histogram()
    histogram.add(np.zeros(100))
    for method in ("absmax", "percentile", "mse"):
        assert histogram.scale(method, "int8") == float(np.float32(1 / 127))
    tiny = Histogram()
    tiny.add([1e-42])
    assert np.isfinite(np.float32(1) / np.float32(tiny.scale("absmax", "int8")))


def test_calibration_sees_what_meets_each_matrix():
    net = lstm(np.random.default_rng(3), layers=1)
    x = rows(200)
    found = calibrate(net, [x[:120], x[120:]])
    assert set(found) == {(0, "input"), (0, "state"), (1, "input")}
    assert found[0, "input"].absmax == np.abs(x).max()
    hidden = np.concatenate([evaluate(net, part, node=0) for part in (x[:120], x[120:])])
    assert found[1, "input"].absmax == np.abs(hidden).max()
    assert found[0, "state"].absmax <= np.abs(hidden).max()
    assert found[0, "state"].total == hidden.size


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_quantised_network_is_close(family, number_format):
    net = network(family)
    made, report = quantize(net, number_format, rows(600))
    x = rows(200, seed=9)
    # Weights of 8 bits cost 1/127 of the largest, fp16 2^-11, bf16 2^-8 of each.
    limit = {"int8": 0.08, "int8a16": 0.07, "fp16": 0.002, "bf16": 0.015}[number_format]
    error = spread(evaluate(net, x), evaluate(made, x))
    assert 0 < error < limit
    assert report.format == number_format
    assert {layer.kind for layer in report.layers} >= {
        node.layer.kind for node in net.nodes if node.layer.kind in ("lstm", "conv")
    }
    for layer in report.layers:
        assert all(share < 0.05 for share in layer.clipped.values())
        assert all(0 <= error < 0.05 for error in layer.weight_error.values())


def test_more_activation_bits_are_better():
    net, x = network("lstm"), rows(300, seed=9)
    error = {name: spread(evaluate(net, x), evaluate(quantize(net, name, rows(600))[0], x)) for name in FORMATS}
    assert error["fp16"] < error["bf16"] < error["int8"]
    assert error["int8a16"] < error["int8"]


def test_integers_are_those_of_the_formula():
    net = chain([DenseLayer(normal(np.random.default_rng(1), 4, 6), normal(np.random.default_rng(2), 4))])
    x = rows(100, 6)
    made, _ = quantize(net, "int8", x)
    node = made.nodes[0]
    scale = np.float32(node.scales["input"])
    q = np.clip(np.rint(x / scale), -128, 127).astype(np.int32)
    sums = q @ node.matrices["w"].values.astype(np.int32).T
    expected = sums * (node.matrices["w"].scale.astype(np.float64) * float(scale)) + node.layer.bias
    np.testing.assert_array_equal(evaluate(made, x), expected)
    np.testing.assert_array_equal(quantise_row(x, float(scale), "int8"), q)


def test_half_widths_are_numpys():
    values = np.array([1.0, 1 + 2**-11, 1 + 3 * 2**-11, 65_519.0, 1e-8, -0.0], np.float32)
    np.testing.assert_array_equal(half_width(values, "fp16"), values.astype(np.float16).astype(np.float32))
    assert half_width(np.float32(1 + 2**-8), "bf16") == 1.0  # a tie goes to even
    assert half_width(np.float32(1 + 3 * 2**-8), "bf16") == np.float32(1 + 2**-6)


def test_bias_correction_takes_the_shift_away():
    rng = np.random.default_rng(8)
    layers = [
        DenseLayer(normal(rng, 32, 5), normal(rng, 32), "relu", "one"),
        DenseLayer(normal(rng, 3, 32), normal(rng, 3)),
    ]
    net, x = chain(layers), np.abs(rows(2_000)) + 1
    exact = evaluate(net, x).mean(axis=0)
    plain, _ = quantize(net, "int8", x, method="percentile", percentile=95.0)
    corrected, report = quantize(net, "int8", x, method="percentile", percentile=95.0, bias_correction=True)
    before = np.abs(evaluate(plain, x).mean(axis=0) - exact).max()
    after = np.abs(evaluate(corrected, x).mean(axis=0) - exact).max()
    assert after < 0.5 * before
    assert max(layer.bias_shift for layer in report.layers) > 0


@pytest.mark.parametrize("family", ["lstm", "gru", "deeplob", "wavenet"])
def test_bias_correction_of_every_kind_does_no_harm(family):
    net, x = network(family), rows(600)
    plain, _ = quantize(net, "int8", x)
    corrected, _ = quantize(net, "int8", x, bias_correction=True)
    test = rows(300, seed=9)
    exact = evaluate(net, test)
    assert spread(exact, evaluate(corrected, test)) < 1.5 * spread(exact, evaluate(plain, test))


def test_kept_layers_stay():
    net = network("lstm")
    made, report = quantize(net, "int8", rows(200), keep=["head"])
    assert [node.format for node in made.nodes] == ["int8", "int8", "fp32"]
    assert made.nodes[2] is net.nodes[2]
    assert made.format == "mixed"
    assert [layer.kept for layer in report.layers] == [False, False, True]
    floats, _ = quantize(network("transformer"), "int8", rows(200), attention=False)
    assert {node.format for node in floats.nodes if node.layer.kind == "attention"} == {"fp32"}


def test_the_source_and_the_rows_are_named():
    net = network("mlp")
    one, report = quantize(net, "int8", rows(200))
    assert one.metadata["source_sha256"] == net.sha256() == report.source_sha256
    assert one.metadata["calibration_rows"] == "200"
    again, _ = quantize(net, "int8", rows(200))
    assert write_canonical(one) == write_canonical(again)
    other, _ = quantize(net, "int8", rows(200, seed=3))
    assert other.metadata["calibration_sha256"] != one.metadata["calibration_sha256"]


def test_several_stretches_each_start_from_reset():
    net, x = network("gru"), rows(400)
    parts = sequences(net, [x[:150], x[150:]])
    found = calibrate(net, parts)
    states = np.concatenate([np.r_[np.zeros((1, 8)), evaluate(net, part, node=0)[:-1]] for part in (x[:150], x[150:])])
    assert found[0, "state"].absmax == np.abs(states).max()


def test_absolute_positions_are_calibrated_within_their_table():
    net = Network((Node(PositionLayer(np.zeros((9, 5)))),), 5)
    assert [len(part) for part in sequences(net, rows(100))] == [9] * 11 + [1]


# ---------------------------------------------------------------- refusals and hostile rows


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x[:10], "at least 64 rows, held 10"),
        (lambda x: np.repeat(x[:1], 200, axis=0), "must vary, was the same row 200 times"),
        (lambda x: np.where(np.arange(200)[:, None] == 7, np.nan, x), "must be finite, was nan in row 7, column 0"),
        (
            lambda x: np.where((np.arange(200)[:, None] == 9) & (np.arange(5) == 3), np.inf, x),
            "was inf in row 9, column 3",
        ),
        (lambda x: x[:, :4], r"must have shape \[T, 5\], had \[200, 4\]"),
    ],
)
def test_rows_that_say_nothing_are_refused(change, text):
    with pytest.raises(ConfigurationError, match=text):
        quantize(network("lstm"), "int8", change(rows(200)))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"format": "int4"}, ConfigurationError, "`format` must be one of fp16, bf16, int8, int8a16, was 'int4'"),
        ({"rows": None}, ConfigurationError, "`rows` must be given for format int8"),
        ({"method": "entropy"}, ConfigurationError, "`method` must be one of absmax, percentile, mse, was 'entropy'"),
        ({"weights": "median"}, ConfigurationError, "`weights` must be one of"),
        (
            {"method": "percentile", "percentile": 3.0},
            ConfigurationError,
            r"`percentile` must lie in \[50, 100\], was 3.0",
        ),
        ({"keep": ["nobody"]}, ModelLoadingError, "`keep` must name layers .*head.*, was 'nobody'"),
        ({"keep": ["lstm0", "lstm1", "head"]}, ConfigurationError, "`keep` must leave at least one layer"),
    ],
)
def test_options_are_checked(options, error, text):
    given = {"format": "int8", "rows": rows(200), **options}
    with pytest.raises(error, match=text):
        quantize(network("lstm"), given.pop("format"), given.pop("rows"), **given)


@pytest.mark.parametrize("first", FORMATS)
def test_a_quantised_network_is_not_quantised_again(first):
    made, _ = quantize(network("lstm"), first, rows(200))
    with pytest.raises(ModelLoadingError, match=f"layer `lstm0`: `format` must be fp32 to be quantised, was {first}"):
        quantize(made, "int8", rows(200))


def test_weights_beyond_a_half_are_refused():
    layer = DenseLayer(np.array([[70_000.0, 1.0]], np.float32), np.zeros(1), name="wide")
    with pytest.raises(ModelLoadingError, match="layer `wide`: `w` must be at most 65504 for fp16, was 70000"):
        quantize(chain([layer]), "fp16")
    made, _ = quantize(chain([layer]), "bf16")
    assert made.nodes[0].layer.w[0, 0] == pytest.approx(70_000, rel=2**-8)
    tiny = DenseLayer(np.array([[1e-9, 1.0]], np.float32), np.zeros(1), name="tiny")
    _, report = quantize(chain([tiny]), "fp16")
    assert report.layers[0].underflow == 1
    assert "1 weights became zero in fp16" in report.notes[0]


def test_one_huge_outlier():
    net, x = network("mlp"), rows(2_000)
    x[77, 2] = 1e6
    # The one row is 12 of 24,000 values of the next layer.
    clipped, report = quantize(net, "int8", x, method="percentile", percentile=99.9)
    assert report.layers[0].absmax["input"] == 1e6
    assert any("far beyond where it saturates" in note for note in report.notes)
    spoiled, _ = quantize(net, "int8", x, method="absmax")
    test = rows(300, seed=9)
    exact = evaluate(net, test)
    assert spread(exact, evaluate(clipped, test)) < 0.25 < 1.0 < spread(exact, evaluate(spoiled, test))
    _, report = quantize(net, "int8", x)
    assert any("has an outlier of 1e+06 (99.9 % stay below" in note for note in report.notes)


def test_a_network_that_overflows_names_its_layer():
    layers = [
        DenseLayer(np.full((2, 5), 3e38, np.float32), np.zeros(2), name="boom"),
        DenseLayer(np.eye(2), np.zeros(2), name="b"),
    ]
    w = Node(layers[0])
    deep = Network((w, Node(layers[1], (0,))), 5)
    x = rows(100).astype(np.float64)
    found = calibrate(deep, [x.astype(np.float32)])
    assert found[1, "input"].absmax > 1e38  # beyond float32 it is still a number in the float64 reference
    histogram = Histogram()
    with pytest.raises(InferenceFailed, match="must be finite"):
        histogram.add([1.0, np.inf])


# ---------------------------------------------------------------- acceptance


@pytest.fixture
def reference_engine(monkeypatch):
    """Compares on the NumPy reference, whose numbers are the same on every machine."""
    from tengri_fast.inference import acceptance

    monkeypatch.setattr(
        acceptance, "_runners", lambda b, a: ([lambda x: evaluate(b, x), lambda x: evaluate(a, x)], "by this test")
    )


def test_the_report_counts_by_hand(reference_engine):
    net, test = network("transformer"), rows(400, seed=9)
    made, _ = quantize(net, "int8", rows(600))
    found = accept(net, made, test)
    y, z = evaluate(net, test), evaluate(made, test)
    assert found.engine == "reference"
    assert found.flips == np.mean(y.argmax(1) != z.argmax(1))
    assert found.flipped_rows == round(found.flips * 400)
    assert found.max_error == np.abs(y - z).max()
    assert found.relative_error == pytest.approx(spread(y, z))
    assert found.confidence_before == pytest.approx(y.max(1).mean())  # the head is a softmax: no second one
    assert sum(count for _, count, _, _ in found.confidence_bins) == 400
    shift = sum(count * abs(b - a) for _, count, a, b in found.confidence_bins) / 400
    assert found.calibration_shift == pytest.approx(shift)
    assert (found.bytes_before, found.bytes_after) == (len(write_canonical(net)), len(write_canonical(made)))
    assert found.weight_bytes_after < found.weight_bytes_before
    assert found.latency_before is None


def test_equal_networks_are_blessed_and_limits_refuse(reference_engine):
    net, test = network("lstm"), rows(200, seed=9)
    same = accept(net, net, test)
    assert (same.blessed, same.flips, same.max_error, same.calibration_shift) == (True, 0.0, 0.0, 0.0)
    made, _ = quantize(net, "int8", rows(600))
    strict = accept(net, made, test, limits=Limits(0.0, 1e-9, 1e-9, 1e-12))
    assert not strict.blessed
    assert len(strict.refusals) >= 3
    assert any(text.startswith("relative rms error must be <= 1e-09, was 0.0") for text in strict.refusals)
    assert accept(net, made, test, limits=Limits(None, None, None)).blessed


def test_a_single_answer_decides_by_its_sign(reference_engine):
    layer = DenseLayer(np.ones((1, 5), np.float32), np.zeros(1))
    other = DenseLayer(-np.ones((1, 5), np.float32), np.zeros(1))
    found = accept(chain([layer]), chain([other]), rows(100))
    assert (found.decision, found.flips, found.calibration_shift) == ("sign", 1.0, None)
    with pytest.raises(ConfigurationError, match="must be sign or none"):
        accept(chain([layer]), chain([layer]), rows(100), decision="argmax")


def test_heads_decide_one_by_one(reference_engine):
    net = network("wavenet")
    head = net.nodes[-1].layer
    for order in ([0, 1, 3, 2], [1, 0, 2, 3]):  # one of the two heads is turned round
        swapped = replace(head, w=head.w[order], bias=head.bias[order])
        other = replace(net, nodes=(*net.nodes[:-1], replace(net.nodes[-1], layer=swapped)))
        assert accept(net, other, rows(200)).flips == 1.0


def test_a_broken_result_is_refused(reference_engine):
    net = network("mlp")
    layer = replace(net.nodes[0].layer, w=np.full((12, 5), 3e38, np.float32))
    broken = replace(net, nodes=(replace(net.nodes[0], layer=layer), *net.nodes[1:]))
    with np.errstate(all="ignore"):
        found = accept(net, broken, rows(100))
    assert not found.blessed


def test_acceptance_refuses_what_it_cannot_judge():
    net = network("lstm")
    with pytest.raises(ConfigurationError, match="`held-out rows` must hold at least 64 rows, held 5"):
        accept(net, net, rows(5))
    with pytest.raises(ModelLoadingError, match="must take 5 features and give 3 values"):
        accept(net, network("wavenet"), rows(100))
    with pytest.raises(ConfigurationError, match="limit `flips` must be >= 0 and finite, was -1"):
        Limits(-1)


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("family", ["lstm", "gru", "tcn", "mlp", "transformer", "deeplob"])
def test_the_native_engine_computes_the_artefact(family, number_format):
    """Against the integer reference: one rounding that falls the other way moves a state by one quantum."""
    session = pytest.importorskip("tengri_fast.inference.session")
    made, _ = quantize(network(family), number_format, rows(600))
    x = rows(300, seed=9)
    expected = evaluate(made, x, native=True)
    found = session.Model.from_network(made).run_window(x)
    error = spread(expected, np.asarray(found, np.float64))
    recurrent = family in ("lstm", "gru", "deeplob")
    # The engine folds log2(e) into the gates' weights before it rounds them to 16 bits: a second rounding.
    limit = {"int8": 0.03, "int8a16": 1e-3, "fp16": 1e-3 if recurrent else 1e-5, "bf16": 1e-2 if recurrent else 1e-5}
    assert error < limit[number_format]


def test_int8_attention_is_what_the_native_engine_computes():
    session = pytest.importorskip("tengri_fast.inference.session")
    rng = np.random.default_rng(4)
    nodes = [Node(SliceLayer(8 * part, 8)) for part in range(3)]
    nodes.append(Node(AttentionLayer(2, 2, 4, 4, 6), (0, 1, 2)))
    nodes.append(Node(DenseLayer(normal(rng, 8, 8), normal(rng, 8), name="head"), (3,)))
    made, _ = quantize(Network(tuple(nodes), 24), "int8", rows(300, 24), keep=["head"])
    x = rows(200, 24, seed=9)
    found = np.asarray(session.Model.from_network(made).run_window(x), np.float64)
    # The engine rounds the softmax weights to 1/255 of the largest; the artefact leaves them in float.
    assert spread(evaluate(made, x, native=True), found) < 1e-6
    assert 1e-4 < spread(evaluate(made, x), found) < 1e-2


def test_the_native_engine_is_timed():
    pytest.importorskip("tengri_fast.inference.session")
    net = network("lstm")
    made, _ = quantize(net, "int8", rows(200))
    found = accept(net, made, rows(100, seed=9), timed=600, limits=Limits(None, None, None))
    assert isinstance(found, Acceptance)
    assert found.engine == "native"
    assert found.latency_after is not None
    assert 0 < found.latency_after["finish_p50"] <= found.latency_after["step_p50"]


def test_weight_bytes():
    net = chain([DenseLayer(np.ones((4, 6), np.float32), np.zeros(4))])
    assert weight_bytes(net) == (4 * 24 + 16, 28)
    made, _ = quantize(net, "int8", rows(100, 6))
    assert weight_bytes(made) == (24 + 16 + 4 * 4 + 4, 28)
    assert isinstance(made.nodes[0].matrices["w"], Matrix8)
