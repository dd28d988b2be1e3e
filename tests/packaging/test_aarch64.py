"""The C library on another architecture: it compiles, runs under emulation, and falls back to the scalar kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import REPOSITORY

COMPILER = "aarch64-linux-gnu-gcc"
ISA_SUFFIXES = ("_avx2", "_avxvnni", "_avx512", "_avx512vnni", "_avx512bf16", "_avx512fp16")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed"),
]

PROGRAM = """
#include <stdio.h>
#include <string.h>
#include "tengri.h"

int main(void) {
    char features[512];
    if (tf_isa_select(NULL) != TF_OK) return 1;
    if (tf_isa_active() != TF_ISA_SCALAR) return 2;
    if (tf_isa_available(TF_ISA_AVX2) || tf_isa_available(TF_ISA_AVX512)) return 3;
    if (tf_isa_select("avx2") != TF_ERR_ISA) return 4;
    if (tf_isa_active() != TF_ISA_SCALAR) return 5;
    tf_cpu_features(features, sizeof features);
    puts(tf_isa_name(tf_isa_active()));
    return 0;
}
"""


def portable_sources() -> list[Path]:
    sources = [
        path
        for path in sorted((REPOSITORY / "csrc").glob("*/*.c"))
        if path.parent.name not in {"include", "tests"} and not path.stem.endswith(ISA_SUFFIXES)
    ]
    assert len(sources) >= 4
    return sources


def test_compiles_without_a_warning_and_runs(tmp_path: Path) -> None:
    flags = ["-std=c17", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-static"]
    includes = [f"-I{REPOSITORY / 'csrc' / 'include'}", f"-I{REPOSITORY / 'csrc'}"]
    (tmp_path / "main.c").write_text(PROGRAM, encoding="utf-8")
    program = tmp_path / "program"
    command = [COMPILER, *flags, *includes, tmp_path / "main.c", *portable_sources(), "-lm", "-o", program]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("it compiles; qemu-aarch64 is not installed, so it was not run")
    result = subprocess.run([emulator, str(program)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "scalar")


@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="qemu-aarch64 is not installed")
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_c_tests_pass_under_emulation(tmp_path: Path) -> None:
    command = [
        "make",
        f"-j{os.cpu_count() or 1}",
        "-C",
        str(REPOSITORY / "csrc" / "tests"),
        "aarch64",
        f"BUILD_DIR={tmp_path}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
