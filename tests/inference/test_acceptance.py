"""Gates of acceptance that a broken network must not slip through, and scales whose products leave float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tengri_fast.errors import ModelLoadingError
from tengri_fast.inference.acceptance import Acceptance, Limits, accept
from tengri_fast.inference.layers import ActivationLayer, AttentionLayer, ConcatLayer, DenseLayer, SliceLayer
from tengri_fast.inference.network import Matrix8, Network, Node, chain
from tengri_fast.inference.quantize import quantize

RNG = np.random.default_rng(21)
X = RNG.standard_normal((200, 4)).astype(np.float32)
OTHER = RNG.standard_normal((200, 4)).astype(np.float32)


def dense(out: int, size: float = 1.0, name: str = "dense") -> DenseLayer:
    return DenseLayer((RNG.standard_normal((out, 4)) * size).astype(np.float32), np.zeros(out, np.float32), name=name)


def judged(before: Network, after: Network, **options: object) -> Acceptance:
    return accept(before, after, X, timed=0, **options)  # type: ignore[arg-type]


def test_a_reference_that_never_moves_proves_nothing() -> None:
    dead = chain([DenseLayer(np.zeros((3, 4), np.float32), np.arange(3, dtype=np.float32))])
    found = judged(dead, dead)
    assert not found.blessed
    assert found.refusals == ("the reference's answers must vary over the held-out rows, were constant",)


def test_a_reference_without_numbers_proves_nothing() -> None:
    huge = chain([DenseLayer(np.full((3, 4), 3e38, np.float32), np.zeros(3, np.float32))])
    with np.errstate(all="ignore"):
        found = judged(huge, chain([dense(3)]), limits=Limits(None, None, None))
    assert "the reference's answers must be finite on the held-out rows, were not" in found.refusals


def test_the_rows_of_the_calibration_are_no_held_out_rows() -> None:
    net = chain([dense(3)])
    made, _ = quantize(net, "int8", X)
    assert "the held-out rows must not be those of the calibration, were the same" in judged(net, made).refusals
    assert accept(net, made, OTHER, timed=0).blessed


def heads(first: DenseLayer, second: DenseLayer) -> Network:
    nodes = (Node(first), Node(second), Node(ConcatLayer((first.output_size, second.output_size)), (0, 1)))
    names = (("large", first.output_size), ("small", second.output_size))
    return Network(nodes, 4, outputs=names)


def test_a_lost_head_of_small_numbers_is_seen() -> None:
    """The first head is a thousand times as large; over both together the error is 0.1 %."""
    large, small = dense(2, 1_000.0), dense(2)
    lost = replace(small, w=np.zeros_like(small.w))
    found = judged(heads(large, small), heads(large, lost), decision="none")
    assert found.relative_error == pytest.approx(1.0, rel=0.05)
    assert not found.blessed
    same = judged(heads(large, small), heads(large, small), decision="none")
    assert (same.blessed, same.relative_error) == (True, 0.0)


def test_probabilities_are_known_wherever_they_were_made() -> None:
    """Two softmax heads put together by a concatenation: a second softmax would hide most of a shift."""

    def network(factor: float) -> Network:
        nodes = []
        for i in range(2):
            layer = dense(3, 0.0, f"head{i}")
            layer = replace(layer, w=WEIGHTS[i] * np.float32(factor))
            nodes += [Node(layer), Node(ActivationLayer("softmax", 3), (2 * i,))]
        nodes.append(Node(ConcatLayer((3, 3)), (1, 3)))
        return Network(tuple(nodes), 4, outputs=(("a", 3), ("b", 3)))

    found = judged(network(1.0), network(2.0))
    y = np.exp(X.astype(np.float64) @ WEIGHTS[0].T)
    first = (y / y.sum(axis=1, keepdims=True)).max(axis=1).mean()
    y = np.exp(X.astype(np.float64) @ WEIGHTS[1].T)
    second = (y / y.sum(axis=1, keepdims=True)).max(axis=1).mean()
    assert found.confidence_before == pytest.approx((first + second) / 2, rel=1e-5)
    assert found.calibration_shift is not None
    assert found.calibration_shift > 0.05


WEIGHTS = RNG.standard_normal((2, 3, 4)).astype(np.float32)


# -- products of scales ---------------------------------------------------------------------------------------------


def attention(q: float, k: float, scale: float = 0.0) -> Network:
    nodes = [Node(SliceLayer(4 * part, 4)) for part in range(3)]
    nodes.append(Node(AttentionLayer(1, 1, 4, 4, 5, scale), (0, 1, 2), "int8", {"q": q, "k": k, "v": 0.1}))
    return Network(tuple(nodes), 12)


@pytest.mark.parametrize(("q", "k", "scale"), [(1e-20, 1e-20, 0.0), (1e25, 1e25, 0.0), (1e-30, 1e-5, 1e-9)])
def test_scores_whose_factor_leaves_float32(q: float, k: float, scale: float) -> None:
    with pytest.raises(ModelLoadingError, match="`scale` times the scales `q` and `k` must lie within"):
        attention(q, k, scale)
    attention(0.01, 0.02)


def test_quantisation_refuses_such_scales_by_layer() -> None:
    nodes = [Node(SliceLayer(4 * part, 4)) for part in range(3)]
    nodes += [Node(AttentionLayer(1, 1, 4, 4, 5, name="tiny"), (0, 1, 2)), Node(dense(2, name="head"), (3,))]
    rows = RNG.standard_normal((100, 12)).astype(np.float32) * np.float32(1e-20)
    with pytest.raises(ModelLoadingError, match="layer `tiny`: `scale` times the scales `q` and `k`"):
        quantize(Network(tuple(nodes), 12), "int8", rows)


def test_products_with_weights_whose_factor_leaves_float32() -> None:
    layer = dense(3)
    values = np.ones((3, 4), np.int8)
    with pytest.raises(ModelLoadingError, match="scale `input` times those of `w` must be at most"):
        Node(layer, format="int8", scales={"input": 1e20}, matrices={"w": Matrix8(values, np.full(3, 1e20))})
    with pytest.raises(ModelLoadingError, match="scale `input` must be finite and > 0, within 1e-37 and 1e"):
        Node(layer, format="int8", scales={"input": 1e-42}, matrices={"w": Matrix8(values, np.ones(3))})


# -- hashes ---------------------------------------------------------------------------------------------------------


def test_the_hash_tells_fields_apart() -> None:
    from tengri_fast.inference.layers import ConvLayer

    w = np.arange(12, dtype=np.float32)
    two, three = (ConvLayer(w.reshape(shape), np.zeros(2)) for shape in ((2, 2, 3), (3, 2, 2)))
    assert Network((Node(two),), 3).sha256() != Network((Node(three),), 2).sha256()
    scales = ({"input": 0.5}, {"input": np.float64(0.5)}, {"input": np.float32(0.5)})
    matrices = {"w": Matrix8(np.ones((3, 4), np.int8), np.ones(3))}
    layer = dense(3)
    assert len({Network((Node(layer, (-1,), "int8", s, matrices),), 4).sha256() for s in scales}) == 1
