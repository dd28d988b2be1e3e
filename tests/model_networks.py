"""Small networks of every family, with random weights."""

from __future__ import annotations

import numpy as np

from tengri_fast.inference.layers import (
    ActivationLayer,
    AddLayer,
    AffineLayer,
    AttentionLayer,
    ConcatLayer,
    ConvLayer,
    DenseLayer,
    GruLayer,
    LstmLayer,
    MulLayer,
    NormLayer,
    PoolLayer,
    PositionLayer,
    SliceLayer,
)
from tengri_fast.inference.network import Network, Node, chain

FAMILIES = (
    "lstm",
    "projected",
    "gru",
    "gru_before",
    "mlp",
    "tcn",
    "deeplob",
    "transformer",
    "rope",
    "interleaved",
    "alibi",
    "grouped",
    "pools",
    "wavenet",
    "gated",
)


def normal(rng: np.random.Generator, *shape: int, size: float = 0.3) -> np.ndarray:
    return rng.normal(0.0, size, shape).astype(np.float32)


def lstm(rng: np.random.Generator, width: int = 5, hidden: int = 8, layers: int = 2, outputs: int = 3) -> Network:
    sizes = [width] + [hidden] * layers
    made = [
        LstmLayer(
            normal(rng, 4 * hidden, sizes[i]), normal(rng, 4 * hidden, hidden), normal(rng, 4 * hidden), f"lstm{i}"
        )
        for i in range(layers)
    ]
    return chain([*made, DenseLayer(normal(rng, outputs, hidden, size=1.0), normal(rng, outputs), name="head")])


def attention_block(
    rng: np.random.Generator, source: int, width: int, position: str, heads: int, kv: int
) -> list[Node]:
    dim = width // heads
    slopes = np.abs(normal(rng, heads)) if position == "alibi" else None
    at = source + 1
    return [
        Node(NormLayer(1 + normal(rng, width), normal(rng, width), name="norm1"), (source,)),
        Node(DenseLayer(normal(rng, heads * dim, width), normal(rng, heads * dim), name="q"), (at,)),
        Node(DenseLayer(normal(rng, kv * dim, width), normal(rng, kv * dim), name="k"), (at,)),
        Node(DenseLayer(normal(rng, kv * dim, width), normal(rng, kv * dim), name="v"), (at,)),
        Node(AttentionLayer(heads, kv, dim, dim, 6, position=position, slopes=slopes), (at + 1, at + 2, at + 3)),
        Node(DenseLayer(normal(rng, width, heads * dim), normal(rng, width), name="o"), (at + 4,)),
        Node(AddLayer(width), (source, at + 5)),
        Node(NormLayer(1 + normal(rng, width), norm="rms", name="norm2"), (at + 6,)),
        Node(DenseLayer(normal(rng, 2 * width, width), normal(rng, 2 * width), "gelu", name="up"), (at + 7,)),
        Node(DenseLayer(normal(rng, width, 2 * width), normal(rng, width), name="down"), (at + 8,)),
        Node(AddLayer(width), (at + 6, at + 9)),
    ]


def transformer(
    rng: np.random.Generator, position: str = "none", heads: int = 2, kv: int = 2, width: int = 8
) -> Network:
    nodes = [Node(DenseLayer(normal(rng, width, 5), normal(rng, width), name="embed"))]
    nodes += attention_block(rng, 0, width, position, heads, kv)
    nodes.append(Node(DenseLayer(normal(rng, 3, width), normal(rng, 3), "softmax", name="head"), (11,)))
    return Network(tuple(nodes), 5)


def tcn(rng: np.random.Generator, channels: int = 6, blocks: int = 3) -> Network:
    nodes = [Node(ConvLayer(normal(rng, 1, channels, 5), normal(rng, channels), name="enter"))]
    for block in range(blocks):
        i = len(nodes) - 1
        nodes.append(
            Node(
                ConvLayer(
                    normal(rng, 3, channels, channels),
                    normal(rng, channels),
                    dilation=2**block,
                    activation="relu",
                    name=f"conv{block}",
                ),
                (i,),
            )
        )
        nodes.append(Node(AddLayer(channels, name=f"add{block}"), (i, i + 1)))
    nodes.append(Node(DenseLayer(normal(rng, 3, channels), normal(rng, 3), name="head"), (len(nodes) - 1,)))
    return Network(tuple(nodes), 5)


def wavenet(rng: np.random.Generator, channels: int = 8, groups: int = 2) -> Network:
    """Gates, a skip connection of pieces, a depthwise and a grouped convolution, a table of positions."""
    return Network(
        (
            Node(PositionLayer(normal(rng, 9, 5))),
            Node(ConvLayer(normal(rng, 2, 2 * channels, 5), normal(rng, 2 * channels), name="both"), (0,)),
            Node(SliceLayer(0, channels), (1,)),
            Node(SliceLayer(channels, channels), (1,)),
            Node(ActivationLayer("tanh", channels), (2,)),
            Node(ActivationLayer("sigmoid", channels), (3,)),
            Node(MulLayer(channels), (4, 5)),
            Node(ConvLayer(normal(rng, 3, channels, 1), normal(rng, channels), groups=channels, name="depth"), (6,)),
            Node(
                ConvLayer(
                    normal(rng, 2, channels, channels // groups),
                    normal(rng, channels),
                    groups=groups,
                    dilation=3,
                    activation="leaky_relu",
                    name="grouped",
                ),
                (7,),
            ),
            Node(ConcatLayer((channels, channels)), (6, 8)),
            Node(AffineLayer(1 + normal(rng, 2 * channels), normal(rng, 2 * channels), "silu"), (9,)),
            Node(
                DenseLayer(normal(rng, 4, 2 * channels), normal(rng, 4), "softmax", softmax_groups=groups, name="head"),
                (10,),
            ),
        ),
        5,
        outputs=(("near", 2), ("far", 2)),
    )


def network(family: str, seed: int = 7) -> Network:
    """A network of 5 features and, but for the two heads of `wavenet`, 3 answers."""
    rng = np.random.default_rng(seed)
    head = DenseLayer(normal(rng, 3, 8), normal(rng, 3), name="head")
    if family == "lstm":
        return lstm(rng)
    if family == "projected":
        return chain(
            [LstmLayer(normal(rng, 48, 5), normal(rng, 48, 8), normal(rng, 48), "lstm", normal(rng, 8, 12)), head]
        )
    if family in ("gru", "gru_before"):
        layer = GruLayer(normal(rng, 24, 5), normal(rng, 24, 8), normal(rng, 24), normal(rng, 24), family == "gru")
        return chain([layer, head])
    if family == "mlp":
        return chain(
            [
                DenseLayer(normal(rng, 12, 5), normal(rng, 12), "gelu_tanh", "one"),
                DenseLayer(normal(rng, 8, 12), normal(rng, 8), "relu", "two"),
                head,
            ]
        )
    if family == "tcn":
        return tcn(rng)
    if family == "deeplob":
        first = ConvLayer(
            normal(rng, 2, 4, 2), normal(rng, 4), levels=5, level_kernel=2, activation="relu", name="levels"
        )
        second = ConvLayer(normal(rng, 1, 3, 16), normal(rng, 3), levels=4, level_kernel=4, name="merge")
        return chain([first, second, LstmLayer(normal(rng, 32, 3), normal(rng, 32, 8), normal(rng, 32)), head])
    if family == "pools":
        return chain(
            [
                DenseLayer(normal(rng, 8, 5), normal(rng, 8), "silu", "enter"),
                PoolLayer(8, 4, "max"),
                PoolLayer(8, 3),
                PoolLayer(8, 2, "mean", False),
                PoolLayer(8, 3, "sum"),
                head,
            ]
        )
    if family in ("wavenet", "gated"):
        return wavenet(rng, groups=2 if family == "wavenet" else 1)
    kinds = {
        "transformer": "none",
        "rope": "rope",
        "interleaved": "rope_interleaved",
        "alibi": "alibi",
        "grouped": "alibi",
    }
    return transformer(rng, kinds[family], *((4, 2) if family == "grouped" else (2, 2)))


def rows(count: int, width: int = 5, seed: int = 1) -> np.ndarray:
    """Rows of a slow random walk with noise, so that states move."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 0.1, (count, width)), axis=0)
    return (np.tanh(walk) + rng.normal(0, 0.7, (count, width))).astype(np.float32)
