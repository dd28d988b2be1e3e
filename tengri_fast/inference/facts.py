"""Small records that models and ensembles hand out."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CompiledLayer", "MemberLatency", "NodeTraffic"]


class NodeTraffic(NamedTuple):
    """Bytes of weights that one node reads per step."""

    name: str
    kind: str
    finish_bytes: int
    """On the critical path: between the new row and the answer."""
    prepare_bytes: int
    """Between two rows."""


class CompiledLayer(NamedTuple):
    """What a compiled file says of one layer; its weights are packed and no longer apart."""

    name: str
    kind: str
    output_size: int
    format: str = "fp32"


class MemberLatency(NamedTuple):
    """Time that one member of an ensemble took, in nanoseconds, by the processor's time stamp counter."""

    steps: int
    """Steps since the counters were cleared."""
    last: float
    mean: float
    max: float
    prepare_last: float
    prepare_mean: float
    prepare_max: float
