"""Models: ONNX to packed weights, streaming sessions, backends."""

from __future__ import annotations

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
from tengri_fast.inference.layers import DenseLayer, LstmLayer

if TYPE_CHECKING:
    from tengri_fast.inference.session import Model, Session

__all__ = [
    "Backend",
    "BackendInfo",
    "DenseLayer",
    "InferenceModel",
    "InferenceSession",
    "LstmLayer",
    "Model",
    "Session",
    "available_backends",
    "get_backend",
    "load_model",
    "register_backend",
]


def __getattr__(name: str) -> Any:
    # The extension is loaded on first use, so that backends can be listed where it was not built.
    if name in {"Model", "Session"}:
        from tengri_fast.inference import session

        return getattr(session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
