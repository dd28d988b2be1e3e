"""The running system: its configuration, the engine that turns ticks into signals, and the way in from outside.

Names are imported when they are first used, so that reading a configuration does not load compiled code.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tengri_fast.runtime.config import TengriConfig, TengriConfigManager, load_config
    from tengri_fast.runtime.control import ControlClient, ControlServer, RunControl
    from tengri_fast.runtime.engine import NeuralSignal, TengriNeuralEngine
    from tengri_fast.runtime.latency import LatencyHistogram
    from tengri_fast.runtime.model_spec import ModelBundle, load_bundle
    from tengri_fast.runtime.policy import DecisionPolicy

__all__ = [
    "ControlClient",
    "ControlServer",
    "DecisionPolicy",
    "LatencyHistogram",
    "ModelBundle",
    "NeuralSignal",
    "RunControl",
    "TengriConfig",
    "TengriConfigManager",
    "TengriNeuralEngine",
    "load_bundle",
    "load_config",
]

_HOMES = {
    "ControlClient": "control",
    "ControlServer": "control",
    "DecisionPolicy": "policy",
    "LatencyHistogram": "latency",
    "ModelBundle": "model_spec",
    "NeuralSignal": "engine",
    "RunControl": "control",
    "TengriConfig": "config",
    "TengriConfigManager": "config",
    "TengriNeuralEngine": "engine",
    "load_config": "config",
    "load_bundle": "model_spec",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
