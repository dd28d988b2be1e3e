"""From the tick to the signal, and into the gate, nothing is allocated: every call of the malloc family is counted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from model_on_disk import write_model

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")

COUNTER = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
static uint64_t calls;
uint64_t tengri_allocations(void) { return __atomic_load_n(&calls, __ATOMIC_RELAXED); }
static void count(void) { __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED); }
void *malloc(size_t n) { count(); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { count(); return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { count(); return __libc_realloc(p, n); }
void *memalign(size_t a, size_t n) { count(); return __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { count(); return __libc_memalign(a, n); }
int posix_memalign(void **out, size_t a, size_t n) {
    count();
    *out = __libc_memalign(a, n);
    return *out ? 0 : ENOMEM;
}
"""


def test_ticks_are_handled_without_allocating(tmp_path):
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("counting needs glibc and a C compiler named cc")
    (tmp_path / "counter.c").write_text(COUNTER)
    library = tmp_path / "counter.so"
    built = subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "counter.c")],
                           capture_output=True, text=True, check=False)  # fmt: skip
    if built.returncode != 0:
        pytest.skip(f"the counter does not build with this C library: {built.stderr.strip()[:200]}")
    model = write_model(tmp_path / "model", hidden=64, layers=2)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("allocation_probe.py")), str(model)],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc",
             "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["bare_signals"] > 70_000
    assert found["wasteful"] > found["wasteful_signals"] - 2_000, "the counter must see an object per signal"
    assert found["bare"] == 0
    assert found["gate_flat"] == 0
    assert found["gate_held"] == 0
