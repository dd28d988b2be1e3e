"""What the differential tests of kernels share: arrays between guard words, hostile inputs, the lists of rows."""

from __future__ import annotations

import numpy as np

from tengri_fast import _native

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 1000)
ISAS = _native.isa_available()
VECTOR = [isa for isa in ISAS if isa != "scalar"]
INFO = {(row["op"], row["dtype"]): row for row in _native.kernels()}
FLOATS = {"f32", "f16", "bf16"}
EPS = 2.0**-24
GUARD = np.float32(-12345.678)


def guarded(n: int, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An array of n floats, `shift` floats off alignment, between guard words: (whole, middle)."""
    whole = np.full(n + 64 + shift, GUARD, np.float32)
    return whole, whole[32 + shift : 32 + shift + n]


def unharmed(whole: np.ndarray, n: int, shift: int = 0) -> bool:
    return bool((whole[: 32 + shift] == GUARD).all() and (whole[32 + shift + n :] == GUARD).all())


def moved(values: np.ndarray, shift: int) -> np.ndarray:
    """A copy of `values`, `shift` elements off its natural alignment."""
    whole = np.zeros(values.size + 64, values.dtype)
    middle = whole[shift : shift + values.size]
    middle[:] = values.reshape(-1)
    return middle


def up16(n: int) -> int:
    return (n + 15) // 16 * 16


def inputs(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    values = {
        "normal": lambda: rng.standard_normal(n) * 3,
        "wide": lambda: rng.uniform(-100, 100, n),
        "small": lambda: rng.standard_normal(n) * 1e-6,
        "denormal": lambda: rng.standard_normal(n) * 1e-40,
        "flat": lambda: np.full(n, 0.75),
        "zero": lambda: np.where(np.arange(n) % 2, -0.0, 0.0),
        "price": lambda: 65_000 + rng.uniform(-0.01, 0.01, n),
        "huge": lambda: rng.choice([-3e38, 3e38, -500.0, 500.0], n),
    }[kind]()
    if n > 8 and kind in {"normal", "wide", "small"}:
        assert len(np.unique(values)) > n // 2, "the inputs must vary"
    return values.astype(np.float32)
