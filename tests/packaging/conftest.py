"""Copies of the repository, empty environments and one wheel, shared by the slow tests of this folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from installs import CHECK, run
from support import REPOSITORY

VERSION = re.search(r'__version__ = "(.+)"', (REPOSITORY / "tengri_fast" / "__init__.py").read_text(encoding="utf-8"))[
    1
]


@pytest.fixture(scope="session")
def tracked_files() -> list[str]:
    """Files that a clone of this working tree would hold; links are named, not followed."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("the list of files comes from git, and this is not a clone")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return sorted(name for name in result.stdout.split("\0") if name and os.path.lexists(REPOSITORY / name))


@pytest.fixture(scope="session")
def copy_repository(tracked_files: list[str]) -> Callable[[Path], Path]:
    """A function that puts a fresh copy of the tracked files into a folder."""

    def copy(target: Path) -> Path:
        for name in tracked_files:
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, path, follow_symlinks=False)
        return target

    return copy


@pytest.fixture(scope="session")
def make_environment() -> Callable[..., Path]:
    """A function that makes a virtual environment and returns its Python.

    With ``borrow=True`` the environment also sees the packages of the one that runs the tests (not tengri_fast itself,
    which is taken from wherever the test installs it): that saves downloads where they are not the point.
    """

    def make(folder: Path, borrow: bool = False) -> Path:
        run([sys.executable, "-m", "venv", "--without-pip", folder], cwd=folder.parent)
        python = folder / "bin" / "python"
        if borrow:
            site = run([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], cwd=folder).strip()
            mine = next(path for path in map(Path, sys.path) if path.name == "site-packages")
            # A plain path, so .pth files there (an editable tengri_fast) are not followed; but its own come first.
            Path(site, "borrowed.pth").write_text(f"{mine}\n", encoding="utf-8")
        return python

    return make


@pytest.fixture(scope="session")
def check_install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, Path], None]:
    """A function that imports an installed tengri_fast and calls its command line."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def check(python: Path, root: Path) -> None:
        assert "import ok" in run([python, "-c", CHECK, root], cwd=elsewhere)
        assert VERSION in run([python.parent / "tengri", "--version"], cwd=elsewhere)

    return check
