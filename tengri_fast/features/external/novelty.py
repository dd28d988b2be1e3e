"""How new a headline is: one minus its likeness to the most similar headline remembered.

Likeness is the Jaccard index of two headlines' shingles (words and pairs of neighbouring words), estimated by MinHash
with 128 hash functions (Broder, "On the resemblance and containment of documents", 1997): equal headlines give exactly
1, headlines without a common word 0 but for chance collisions of 32-bit hashes, and the standard error between is at
most 0.045. Hashes are BLAKE2b and fixed multipliers, so the numbers do not depend on Python's hash seed, process or
machine.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.external.text import Token
from tengri_fast.features.external.words import GROUPS

__all__ = ["HASHES", "NoveltyMemory", "signature_of"]

HASHES = 128
_STOP_WORDS = GROUPS["stop_words"]
_MASK = (1 << 64) - 1


def _multipliers(count: int) -> npt.NDArray[np.uint64]:
    """Odd numbers of the splitmix64 sequence (Steele, Lea and Flood, 2014) from seed 1."""
    numbers, state = [], 1
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        numbers.append(z ^ (z >> 31))
    return np.array(numbers, np.uint64)


_NUMBERS = _multipliers(2 * HASHES)
_TIMES = _NUMBERS[:HASHES] | np.uint64(1)
_PLUS = _NUMBERS[HASHES:]


def shingles(tokens: list[Token]) -> list[str]:
    """Words and pairs of neighbours, without stop words, sorted; all words if nothing else is left."""
    said = [token.lower for token in tokens if token.lower not in ("", ",")]
    words = [word for word in said if word not in _STOP_WORDS] or said
    return sorted({*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))})


def signature_of(tokens: list[Token]) -> npt.NDArray[np.uint32]:
    """MinHash signature of a headline with at least one word, uint32 [HASHES]."""
    digests = b"".join(hashlib.blake2b(s.encode("utf-8", "replace"), digest_size=8).digest() for s in shingles(tokens))
    bases = np.frombuffer(digests, "<u8").astype(np.uint64)
    mixed = bases[:, None] * _TIMES + _PLUS  # wraps around, as it should
    least: npt.NDArray[np.uint32] = (mixed >> np.uint64(32)).min(axis=0).astype(np.uint32)
    return least


class NoveltyMemory:
    """The last `capacity` headlines as signatures with their times, in fixed memory: 520 bytes each.

    Parameters
    ----------
    capacity : int
        1 to 65,536 headlines.
    horizon_ns : int
        A headline older than this is forgotten, ns.
    """

    __slots__ = ("_next", "_signatures", "_times", "_used", "capacity", "horizon_ns")

    def __init__(self, capacity: int, horizon_ns: int) -> None:
        if not isinstance(capacity, int) or not 1 <= capacity <= 65_536:
            raise FeatureExtractionError(f"`memory` must be from 1 to 65536 headlines, was {capacity!r}")
        if not isinstance(horizon_ns, int) or not 1 <= horizon_ns < 2**63:
            raise FeatureExtractionError(f"`horizon_ns` must be >= 1, was {horizon_ns!r}")
        self.capacity = capacity
        self.horizon_ns = horizon_ns
        self._signatures = np.zeros((capacity, HASHES), np.uint32)
        self._times = np.zeros(capacity, np.int64)
        self._used = 0
        self._next = 0

    def __len__(self) -> int:
        return self._used

    @property
    def nbytes(self) -> int:
        """Memory in bytes, whatever came in."""
        return int(self._signatures.nbytes + self._times.nbytes)

    def likeness(self, ts: int, signature: npt.NDArray[np.uint32]) -> tuple[float, bool]:
        """(greatest likeness to a remembered headline, whether an equal one has the same time)."""
        if not self._used:
            return 0.0, False
        equal = np.count_nonzero(self._signatures[: self._used] == signature, axis=1)
        equal[self._times[: self._used] < ts - self.horizon_ns] = 0
        again = bool(np.any((equal == HASHES) & (self._times[: self._used] == ts)))
        return int(equal.max()) / HASHES, again

    def add(self, ts: int, signature: npt.NDArray[np.uint32]) -> None:
        """Remember a headline in place of the oldest."""
        self._signatures[self._next] = signature
        self._times[self._next] = ts
        self._next = (self._next + 1) % self.capacity
        self._used = min(self._used + 1, self.capacity)

    def state(self) -> dict[str, Any]:
        """What is remembered, oldest first."""
        order = (np.arange(self._used) + (self._next if self._used == self.capacity else 0)) % self.capacity
        return {"times": self._times[order].astype("<i8").tobytes(),
                "signatures": self._signatures[order].astype("<u4").tobytes()}  # fmt: skip

    def restore(self, times: bytes, signatures: bytes) -> None:
        """Take up what `state` gave."""
        rows, rest = divmod(len(times), 8)
        if rest or rows > self.capacity or len(signatures) != rows * HASHES * 4:
            raise FeatureExtractionError(f"`data` must hold at most {self.capacity} remembered headlines, had {rows} "
                                         f"times and {len(signatures)} bytes of signatures")  # fmt: skip
        self._times[:rows] = np.frombuffer(times, "<i8")
        self._signatures[:rows] = np.frombuffer(signatures, "<u4").reshape(rows, HASHES)
        self._used, self._next = rows, rows % self.capacity
