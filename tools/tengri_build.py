"""Build backend of tengri_fast: setuptools, plus two things that only code can decide.

1. The NautilusTrader adapter is compiled against Nautilus' own ``.pxd`` files, so Nautilus is a build requirement; but
   only on Python 3.12 and newer, and not for somebody who sets ``TENGRI_NAUTILUS=0``.
2. An editable install puts the project folder on ``sys.path`` (setuptools' "compat" mode). The default, an import hook,
   hides the ``.pxd`` files from other people's ``cimport tengri_fast``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "NAUTILUS",
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

NAUTILUS = "nautilus_trader==1.231.0"

Settings = dict[str, Any] | None


def adapter_requirements() -> list[str]:
    """What the adapter adds to the build requirements."""
    unwanted = os.environ.get("TENGRI_NAUTILUS", "1").strip().lower() in {"", "0", "false", "no", "off"}
    return [] if unwanted or sys.version_info < (3, 12) else [NAUTILUS]


def editable_settings(settings: Settings) -> dict[str, Any]:
    """The caller's settings, with "compat" as the default mode of an editable install."""
    return {"editable_mode": "compat", **(settings or {})}


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Requirements of a wheel besides those in pyproject.toml."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *adapter_requirements()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """Requirements of an editable install besides those in pyproject.toml."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *adapter_requirements()]


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings = None) -> str:
    """Metadata of an editable install."""
    return build_meta.prepare_metadata_for_build_editable(metadata_directory, editable_settings(config_settings))


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """An editable wheel; extensions are built in place."""
    return build_meta.build_editable(wheel_directory, editable_settings(config_settings), metadata_directory)
