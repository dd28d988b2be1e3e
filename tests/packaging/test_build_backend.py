"""The in-tree build backend: what it asks for, and when."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from support import REPOSITORY


@pytest.fixture(scope="module")
def backend() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tengri_build", REPOSITORY / "tools" / "tengri_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("version", "value", "wanted"),
    [
        ((3, 12), None, ["nautilus_trader==1.231.0"]),
        ((3, 13), "1", ["nautilus_trader==1.231.0"]),
        ((3, 12), "0", []),
        ((3, 12), "off", []),
        ((3, 11), None, []),
        ((3, 11), "1", []),
    ],
)
def test_nautilus_is_a_build_requirement(
    backend: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int],
    value: str | None,
    wanted: list[str],
) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    monkeypatch.delenv("TENGRI_NAUTILUS", raising=False)
    if value is not None:
        monkeypatch.setenv("TENGRI_NAUTILUS", value)
    assert backend.adapter_requirements() == wanted


def test_one_version_of_nautilus_everywhere(backend: ModuleType) -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{backend.NAUTILUS}; python_version' in text
    setup = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
    assert f'NAUTILUS_VERSION = "{backend.NAUTILUS.partition("==")[2]}"' in setup


def test_editable_mode_can_be_overridden(backend: ModuleType) -> None:
    assert backend.editable_settings(None) == {"editable_mode": "compat"}
    assert backend.editable_settings({"editable_mode": "strict", "x": "1"}) == {"editable_mode": "strict", "x": "1"}


def test_backend_offers_every_hook_of_the_standard(backend: ModuleType) -> None:
    for hook in ("build_sdist", "build_wheel", "build_editable"):
        assert callable(getattr(backend, hook))
        assert callable(getattr(backend, f"get_requires_for_{hook}"))
