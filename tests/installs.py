"""Runs commands for the install tests, away from the environment of the tests themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import REPOSITORY

# What the compilers made for one install, or for the environment of the tests, serves the next: by content, so a file
# that is missing or different in an archive is noticed all the same (tools/build_cache.py).
CACHE = REPOSITORY / "build" / "cache"

# What an install test must not inherit from the shell that runs the tests.
INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "TENGRI_NAUTILUS", "TENGRI_EXTENSIONS", "TENGRI_CYTHON_DIR")


def run(command: Sequence[str | Path], cwd: Path, **variables: str) -> str:
    """Output of a command; a failure shows it all."""
    environment = {key: value for key, value in os.environ.items() if key not in INHERITED}
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={
            **environment,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",  # Python compiles what a test imports; a package holds thousands of files more
            "TENGRI_CACHE": str(CACHE),
            **variables,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    if result.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\nexit code {result.returncode}\n{result.stdout[-6000:]}")
    return result.stdout


def pip(python: Path) -> list[str | Path]:
    """The start of a pip command that works on another environment, which needs no pip of its own."""
    return [sys.executable, "-m", "pip", "--python", python]


# What every way of installing must give. Runs in a folder that holds no `tengri_fast`.
CHECK = textwrap.dedent(
    """
    import importlib.metadata, pathlib, sys
    import tengri_fast, tengri_fast.kernels, tengri_fast.engines
    import tengri_fast.models
    from tengri_fast import _native

    root = pathlib.Path(tengri_fast.__file__).parent
    assert str(root).startswith(sys.argv[1]), f"imported from {root}, wanted {sys.argv[1]}"
    for name in ("features/plan.pxd", "features/plan.pyi", "inference/session.pxd", "inference/session.pyi", "py.typed",
                 "include/tengri.h", "include/tengri/nn.h", "kernels/common.cuh"):
        assert (root / name).is_file(), f"{name} is missing"
    zoo = [path for folder in tengri_fast.models.__path__ for path in pathlib.Path(folder).glob("*/model.toml")]
    assert zoo, "no model in the zoo"
    assert _native.isa_active() in _native.isa_available()
    from tengri_fast.features import FeaturePlan, parse_spec
    from tengri_fast.inference import Model
    print("import ok", tengri_fast.__version__)
    """
)
