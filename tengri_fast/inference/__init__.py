"""Models: ONNX to packed weights, streaming sessions, backends, ensembles."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tengri_fast.inference.backends import (
    Backend,
    BackendInfo,
    InferenceModel,
    InferenceSession,
    available_backends,
    get_backend,
    load_model,
    register_backend,
)
from tengri_fast.inference.ensemble import Ensemble
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
from tengri_fast.inference.network import INPUT, Matrix8, Network, Node, chain

if TYPE_CHECKING:
    from tengri_fast.inference.batch import Batch, Team
    from tengri_fast.inference.session import Model, Session
    from tengri_fast.inference.window import WindowSession

__all__ = [
    "INPUT",
    "ActivationLayer",
    "AddLayer",
    "AffineLayer",
    "AttentionLayer",
    "Backend",
    "BackendInfo",
    "Batch",
    "ConcatLayer",
    "ConvLayer",
    "DenseLayer",
    "Ensemble",
    "GruLayer",
    "InferenceModel",
    "InferenceSession",
    "LstmLayer",
    "Matrix8",
    "Model",
    "MulLayer",
    "Network",
    "Node",
    "NormLayer",
    "PoolLayer",
    "PositionLayer",
    "Session",
    "SliceLayer",
    "Team",
    "WindowSession",
    "available_backends",
    "chain",
    "get_backend",
    "load_model",
    "register_backend",
]

# The extensions are loaded on first use, so that backends can be listed where they were not built.
_EXTENSIONS = {"Model": "session", "Session": "session", "WindowSession": "window", "Batch": "batch", "Team": "batch"}


def __getattr__(name: str) -> Any:
    if name in _EXTENSIONS:
        module = importlib.import_module(f"tengri_fast.inference.{_EXTENSIONS[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
