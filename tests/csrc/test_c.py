"""Builds and runs the C tests: kernels, models, features, and the header alone as C11 and C++17."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from support import REPOSITORY

FOLDER = REPOSITORY / "csrc" / "tests"
needs_compiler = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("make", "cc", "c++")), reason="make, cc and c++ are needed"
)


def make(target: str, build: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", f"-j{os.cpu_count() or 1}", "-C", str(FOLDER), target, f"BUILD_DIR={build}"],
        capture_output=True,
        text=True,
        check=False,
    )


@needs_compiler
def test_c_programs(tmp_path: Path) -> None:
    result = make("test", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    programs = sorted(path.stem for path in FOLDER.glob("test_*.c"))
    assert {"test_file", "test_kernels", "test_nn", "test_threads"} <= set(programs)
    for program in programs:
        lines = [line for line in result.stdout.splitlines() if line.startswith(f"{program}: ") and "checks" in line]
        assert len(lines) == 1, result.stdout
        assert lines[0].endswith(" 0 failed")


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction-set files exist on x86-64 only")
def test_portable_files_hold_no_vector_intrinsics() -> None:
    for path in (FOLDER.parent / "nn").glob("*.[ch]"):
        text = path.read_text()
        # Files that end in x8 and x16 are templates for the vector files, which are what includes them.
        if not any(mark in path.stem for mark in ("_avx2", "_avxvnni", "_avx512", "_x8", "_x16")):
            assert "immintrin" not in text, path.name
            assert "_mm" not in text, path.name
