"""SciPy on demand: it belongs to the `risk` extra, and importing it costs more than most estimates."""

from __future__ import annotations

import importlib
from types import ModuleType

from tengri_fast.errors import MissingExtraError

__all__ = ["scipy_module"]


def scipy_module(name: str, purpose: str) -> ModuleType:
    """Import ``scipy.name``, or say which extra brings it.

    Raises
    ------
    MissingExtraError
        When SciPy is not installed.
    """
    try:
        return importlib.import_module(f"scipy.{name}")
    except ImportError as error:
        raise MissingExtraError("scipy", "risk", purpose) from error
