"""TensorRT engines, built from a model's single-step graph.

Importing this package needs neither a GPU nor TensorRT. Engines are a build product: they depend on the TensorRT
version and the target, and are never committed.
"""

from __future__ import annotations

from tengri_fast.engines.build import (
    EngineBuild,
    build_engine,
    cache_key,
    driver_present,
    engine_targets,
    tensorrt_module,
)
from tengri_fast.engines.step_graph import step_graph

__all__ = [
    "EngineBuild",
    "build_engine",
    "cache_key",
    "driver_present",
    "engine_targets",
    "step_graph",
    "tensorrt_module",
]
