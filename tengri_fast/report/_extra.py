"""Loads the drawing packages when they are first needed, or says which extra holds them."""

from __future__ import annotations

import importlib
from typing import Any

from tengri_fast.errors import MissingExtraError

__all__ = ["load"]


def load(module: str, purpose: str) -> Any:
    """Import `module`; raises MissingExtraError naming the ``report`` extra when its package is not installed."""
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingExtraError(package, "report", purpose) from error
