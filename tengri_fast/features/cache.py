"""Computed columns kept on disk: what was computed once for the same data is read back instead.

A column is one file of raw float64 and a small JSON beside it. Its key is a hash over the data (own files, other
instruments, external observations), the column's full spec, the clock, and the version of the feature engine; whatever
changes a number changes the key. Blocks carry checksums: a damaged or cut file is thrown away, counted, and computed
again. The folder is kept below a size by throwing out what was used longest ago. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.spec import ENGINE_VERSION, FeatureSpec

__all__ = ["CacheCounters", "ColumnCache", "ColumnWriter", "column_key", "rows_key"]

CACHE_VERSION: Final = 1
BLOCK_ROWS: Final = 131_072
_LEFT_BEHIND_S: Final = 3600
_TYPES: Final = {"column": np.dtype("<f8"), "ts": np.dtype("<u8"), "mid": np.dtype("<f8")}


def rows_key(data_sha256: str, clock: str) -> str:
    """Key of the rows of a session: their times and mids, which depend on no feature."""
    return hashlib.sha256(f"{CACHE_VERSION} {ENGINE_VERSION} rows {data_sha256} {clock}".encode()).hexdigest()


def column_key(data_sha256: str, clock: str, spec: FeatureSpec) -> str:
    """Key of one column of a session; a user's feature counts with the hash of its source."""
    text = f"{CACHE_VERSION} {ENGINE_VERSION} column {data_sha256} {clock} {spec.canonical} {spec.info.digest}"
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class CacheCounters:
    """What the cache was good for.

    Attributes
    ----------
    hits, misses : int
        Columns read back, and columns that had to be computed.
    damaged : int
        Entries that were found broken and thrown away.
    evicted : int
        Entries thrown out for their age.
    """

    hits: int = 0
    misses: int = 0
    damaged: int = 0
    evicted: int = 0


class ColumnWriter:
    """Writes one entry block by block; it is there when `commit` returns, and not before."""

    def __init__(self, folder: Path, key: str, kind: str) -> None:
        self.folder, self.key, self.kind = folder, key, kind
        self._path = folder / f".{key}.{os.getpid()}.tmp"
        self._path.unlink(missing_ok=True)
        self._sums: list[int] = []
        self._rows = 0
        self._rest = np.empty(0, _TYPES[kind])

    def write(self, values: npt.NDArray[Any]) -> None:
        """Take more rows."""
        data = np.concatenate([self._rest, np.asarray(values, _TYPES[self.kind])])
        whole = len(data) // BLOCK_ROWS * BLOCK_ROWS
        self._append(data[:whole])
        self._rest = data[whole:].copy()

    def _append(self, data: npt.NDArray[Any]) -> None:
        # Opened for each block: a plan may have more columns than a process may have files.
        with self._path.open("ab") as file:
            for start in range(0, len(data), BLOCK_ROWS):
                block = data[start : start + BLOCK_ROWS].tobytes()
                self._sums.append(zlib.crc32(block))
                file.write(block)
        self._rows += len(data)

    def commit(self, facts: Mapping[str, Any]) -> None:
        """Finish the entry under its key; `facts` are plain values kept beside it."""
        self._append(self._rest)
        with self._path.open("rb+") as file:
            os.fsync(file.fileno())
        head = {"cache": CACHE_VERSION, "key": self.key, "kind": self.kind, "rows": self._rows, "crc32": self._sums,
                "facts": dict(facts)}  # fmt: skip
        text = json.dumps(head, allow_nan=False, sort_keys=True)
        sealed = json.dumps({"head": head, "crc32": zlib.crc32(text.encode())}, allow_nan=False)
        os.replace(self._path, self.folder / f"{self.key}.bin")
        temporary = self._path.with_suffix(".json")
        temporary.write_text(sealed, encoding="utf-8")
        os.replace(temporary, self.folder / f"{self.key}.json")

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Entry:
    """A sound entry: its rows and what was kept beside them."""

    path: Path
    kind: str
    rows: int
    facts: dict[str, Any]

    def block(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows from `start` to `stop`."""
        item = _TYPES[self.kind].itemsize
        with self.path.open("rb") as file:
            file.seek(start * item)
            data = file.read((stop - start) * item)
        if len(data) != (stop - start) * item:
            raise FeatureExtractionError(f"`{self.path.name}` of the cache must not change while it is read, did")
        return np.frombuffer(data, _TYPES[self.kind])


class ColumnCache:
    """A folder of computed columns.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    max_bytes : int
        Size that the folder is brought down to after each session; 4 GiB by default.

    Attributes
    ----------
    counters : CacheCounters
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = 4 << 30) -> None:
        if max_bytes < 0:
            raise FeatureExtractionError(f"`max_bytes` must be >= 0, was {max_bytes}")
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.max_bytes = max_bytes
        self.counters = CacheCounters()

    def get(self, key: str) -> Entry | None:
        """A whole and sound entry, or None; a damaged one is thrown away and counted."""
        side, data = self.folder / f"{key}.json", self.folder / f"{key}.bin"
        try:
            sealed = side.read_bytes()
        except OSError:
            return None
        try:
            document = json.loads(sealed)
            head = document["head"]
            text = json.dumps(head, allow_nan=False, sort_keys=True)
            kind, rows = head["kind"], head["rows"]
            sound = (zlib.crc32(text.encode()) == document["crc32"] and head["cache"] == CACHE_VERSION
                     and head["key"] == key and data.stat().st_size == rows * _TYPES[kind].itemsize
                     and self._sums(data, _TYPES[kind].itemsize) == head["crc32"])  # fmt: skip
            facts = dict(head["facts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            sound = False
        if not sound:
            self.counters.damaged += 1
            self._remove(key)
            return None
        for path in (data, side):
            with contextlib.suppress(OSError):  # a folder that may only be read still serves
                os.utime(path)
        return Entry(data, kind, rows, facts)

    @staticmethod
    def _sums(path: Path, item: int) -> list[int]:
        found = []
        with path.open("rb") as file:
            while block := file.read(BLOCK_ROWS * item):
                found.append(zlib.crc32(block))
        return found

    def _remove(self, key: str) -> None:
        for ending in ("json", "bin"):
            with contextlib.suppress(OSError):
                (self.folder / f"{key}.{ending}").unlink()

    def writer(self, key: str, kind: str = "column") -> ColumnWriter:
        """A writer of a new entry."""
        return ColumnWriter(self.folder, key, kind)

    @contextlib.contextmanager
    def writers(self, keys: Sequence[tuple[str, str]]) -> Iterator[list[ColumnWriter]]:
        """Writers of several entries that are abandoned when the block fails."""
        made = [self.writer(key, kind) for key, kind in keys]
        try:
            yield made
        except BaseException:
            for writer in made:
                writer.abandon()
            raise

    def trim(self) -> int:
        """Throw out entries, those used longest ago first, until the folder is within its size; how many went."""
        entries = []
        for side in self.folder.glob("*.json"):
            with contextlib.suppress(OSError):
                data = side.with_suffix(".bin")
                facts = side.stat()
                entries.append((facts.st_mtime_ns, side.stem, facts.st_size + data.stat().st_size))
        total, gone = sum(size for *_, size in entries), 0
        for _, key, size in sorted(entries):
            if total <= self.max_bytes:
                break
            self._remove(key)
            total -= size
            gone += 1
        self.counters.evicted += gone
        self._sweep()
        return gone

    def _sweep(self) -> None:
        """Remove what a process that was killed has left: unfinished files, and data without its checksums."""
        for path in [*self.folder.glob(".*.tmp"), *self.folder.glob(".*.json"), *self.folder.glob("*.bin")]:
            with contextlib.suppress(OSError):
                old = time.time() - path.stat().st_mtime > _LEFT_BEHIND_S
                if old and not (path.suffix == ".bin" and path.with_suffix(".json").exists()):
                    path.unlink()
