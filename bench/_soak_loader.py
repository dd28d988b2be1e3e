"""The soak of the loader: damaged ONNX files.

The shipped model, and beside it every small fixture of the tests, so that each layer and each exporter's way of writing
it is met. A case, its file and its damage follow from seed and number alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _measure import REPOSITORY
from _soak_common import MODEL, SAY_EVERY, Say, Violations, resident_bytes

FIXTURES = REPOSITORY / "tests" / "inference" / "fixtures"
LARGEST_FIXTURE = 64_000
LARGEST_SESSION = 64 << 20  # a damaged number may ask for more; such a session is not made
CASE_SECONDS = 5.0  # no damaged file of this size may keep the loader longer
RSS_LIMIT = 256 << 20  # nor may one make it hold on to this


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _blobs(data: bytes, start: int, end: int, path: tuple[int, ...] = ()) -> Iterator[tuple[int, int]]:
    """Where the weights lie: raw_data (9) of the initializers (5) of the graph (7)."""
    at = start
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 2:
            size, at = _varint(data, at)
            here = (*path, number)
            if here == (7, 5, 9):
                yield at, at + size
            elif here in ((7,), (7, 5)):
                yield from _blobs(data, at, at + size, here)
            at += size
        elif wire == 0:
            _, at = _varint(data, at)
        else:
            at += {1: 8, 5: 4}[wire]


class Mutator:
    """Damages a file in a way that follows from seed and case number alone."""

    HOSTILE = (
        b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x80" * 10, b"\x80" * 12, b"\x00", b"\xff\xff\xff\xff\x07",
        b"\x80\x80\x80\x80\x10", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f",
    )  # fmt: skip

    def __init__(self, data: bytes, seed: int) -> None:
        self.data, self.seed = data, seed
        self.blobs = list(_blobs(data, 0, len(data)))
        inside = np.zeros(len(data), bool)
        for start, end in self.blobs:
            inside[start:end] = True
        self.structure = np.flatnonzero(~inside)

    def __call__(self, case: int) -> bytes:
        rng = np.random.default_rng([self.seed, case])
        data = bytearray(self.data)
        for _ in range(1 + int(rng.integers(0, 3))):
            self.damage(data, rng)
        return bytes(data)

    def damage(self, data: bytearray, rng: np.random.Generator) -> None:
        if not data:
            return
        # Most of the file is weights, where any bytes are valid: nine of ten go for the structure.
        places = self.structure[self.structure < len(data)]
        anywhere = rng.random() < 0.1 or not len(places)
        at = int(rng.integers(len(data))) if anywhere else int(places[rng.integers(len(places))])
        size = int(rng.integers(1, 65))
        kind = int(rng.integers(9))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at] = int(rng.integers(256))
        elif kind == 2:
            data[at : at + size] = rng.bytes(min(size, len(data) - at))
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + size]
        elif kind == 5:
            data[at:at] = rng.bytes(size)
        elif kind == 6:
            data[at:at] = data[at : at + size]
        elif kind == 7:
            hostile = self.HOSTILE[int(rng.integers(len(self.HOSTILE)))]
            data[at : at + len(hostile)] = hostile
        elif not self.blobs:
            data[at : at + 4] = b"\x00\x00\xc0\x7f"
        else:
            start, end = self.blobs[int(rng.integers(len(self.blobs)))]
            at = start + 4 * int(rng.integers((end - start) // 4))
            data[at : at + 4] = np.array(rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45]), np.float32).tobytes()


class Corpus:
    """Damaged versions of several files; half of the cases take the first."""

    def __init__(self, seed: int, paths: list[Path] | None = None) -> None:
        if paths is None:
            small = (path for path in sorted(FIXTURES.glob("*.onnx")) if path.stat().st_size <= LARGEST_FIXTURE)
            paths = [MODEL / "model.onnx", *small]
        self.seed = seed
        self.files = [(path.name, Mutator(path.read_bytes(), seed)) for path in paths]

    def __call__(self, case: int) -> tuple[str, bytes]:
        """Name of the file that was damaged, and what it became."""
        rng = np.random.default_rng([self.seed, case, 1])
        which = 0 if rng.random() < 0.5 else int(rng.integers(len(self.files)))
        name, mutate = self.files[which]
        return name, mutate(case)


def load_case(data: bytes) -> str:
    """What became of one file: a word, or the violation."""
    from tengri_fast.errors import ModelLoadingError
    from tengri_fast.inference import Model

    try:
        model = Model.from_onnx(data)
    except ModelLoadingError as error:
        return "rejected" if str(error).strip() else "a ModelLoadingError without a text"
    except Exception as error:  # anything else that comes out is the finding
        return f"{type(error).__name__} from the loader: {error}"
    if model.session_nbytes > LARGEST_SESSION:
        return "accepted"
    try:
        y = model.run_window(np.zeros((1, model.input_size), np.float32))[0]
        if model.max_steps == 0:  # others have a position for so many steps, and windowed sessions only
            y = model.session().step(np.zeros(model.input_size, np.float32))
    except Exception as error:
        return f"{type(error).__name__} from a model that was accepted: {error}"
    return "accepted" if y.shape == (model.output_size,) else f"an accepted model answered with shape {y.shape}"


def soak_loader(seconds: float, seed: int, say: Say) -> dict[str, Any]:
    """Load damaged models until the time is over."""
    corpus = Corpus(seed)
    found = Violations()
    for name, mutate in corpus.files:
        intact = load_case(mutate.data)
        if intact not in ("accepted", "rejected") or (intact == "rejected" and name == "model.onnx"):
            found.add(f"{name} as it is: {intact}")
    counts = {"accepted": 0, "rejected": 0}
    began, said, case, slowest, slowest_case = time.perf_counter(), 0.0, 0, 0.0, 0
    resident = 0
    while (elapsed := time.perf_counter() - began) < seconds or case == 0:
        say(case=case)
        name, data = corpus(case)
        start = time.perf_counter()
        outcome = load_case(data)
        took = time.perf_counter() - start
        if took > slowest:
            slowest, slowest_case = took, case
        if outcome in counts:
            counts[outcome] += 1
        else:
            found.add(f"case {case} ({name}): {outcome}")
        if took > CASE_SECONDS:
            found.add(f"case {case} ({name}) took {took:.1f} s, must take at most {CASE_SECONDS} s")
        case += 1
        if case == 1000:
            resident = resident_bytes()
        if elapsed - said >= SAY_EVERY:
            said = elapsed
            say(cases=case, **counts, rss_bytes=resident_bytes(), violations=found.count)
    growth = resident_bytes() - resident if resident else None
    if growth is not None and growth > RSS_LIMIT:
        found.add(f"resident memory grew by {growth:,} bytes, must stay below {RSS_LIMIT:,}")
    return {
        "seed": seed,
        "files": len(corpus.files),
        "cases": case,
        **counts,
        "slowest_case_ms": round(1e3 * slowest, 2),
        "slowest_case": slowest_case,
        "rss_growth_bytes": growth,
        "violations": found.count,
        "violation_texts": found.texts,
    }
