"""Live rows of features to Parquet, away from the tick: a ring, part files per minute, one file at the end.

`append` copies a row into a ring that was allocated once. `flush` (from a timer, or the thread of `start`) writes what
the ring holds as part files, each whole or not there at all, so whatever kills the process leaves every finished minute
readable. `close` joins the parts into one Parquet file with a row group per part.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.plan import FeaturePlan, FeatureState
from tengri_fast.features.tables import (
    FACTS,
    FeatureTable,
    arrow,
    atomic_file,
    column_names,
    plan_facts,
    read_features,
    schema_of,
)
from tengri_fast.market.tables import parquet_module

__all__ = ["FeatureRecorder", "join_parts", "read_recording"]

MINUTE_NS: Final = 60 * 10**9
_PART = re.compile(r"part-([0-9]{9})\.parquet")


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.parts")


def _parts(path: Path) -> list[Path]:
    """Finished parts in order."""
    folder = _folder(path)
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if _PART.fullmatch(file.name))


class FeatureRecorder:
    """Records rows of one instrument.

    One thread appends, one flushes (they may be the same). Prices, times and features come back bit for bit
    (`read_recording`).

    Parameters
    ----------
    path : path
        The Parquet file that `close` makes. Until then finished minutes lie in the folder `PATH.parts` beside it.
    plan : FeaturePlan
    clock : str
        Stream that makes a row with each event, for the file's metadata.
    capacity : int
        Rows of the ring. A minute with more than half as many rows becomes several row groups.

    Attributes
    ----------
    dropped : int
        Rows that found the ring full: the flush did not keep up.
    recorded : int
        Rows that were written.

    Raises
    ------
    FeatureExtractionError
        If the file, or parts of an unfinished recording, are there already (`join_parts` finishes one).
    """

    def __init__(self, path: str | os.PathLike[str], plan: FeaturePlan, *, clock: str = "quote",
                 capacity: int = 65_536) -> None:  # fmt: skip
        if capacity < 2:
            raise FeatureExtractionError(f"`capacity` must be >= 2, was {capacity}")
        self.path, self.plan, self.clock, self.capacity = Path(path), plan, clock, capacity
        if self.path.exists():
            raise FeatureExtractionError(f"`path` must be free, {self.path} is there")
        if _parts(self.path):
            raise FeatureExtractionError(f"`path` must be free, {_folder(self.path)} holds an unfinished recording: "
                                         "join_parts(path) finishes it")  # fmt: skip
        self._arrow = arrow()
        self._schema = schema_of(column_names(plan), False, False, plan_facts(plan, clock))
        _folder(self.path).mkdir(parents=True, exist_ok=True)
        self._ts = np.zeros(capacity, np.uint64)
        self._mid = np.zeros(capacity, np.float64)
        self._ready = np.zeros(capacity, np.bool_)
        self._values = np.zeros((capacity, plan.width), np.float64)
        # Counts of rows since the start; each is changed by one side only.
        self._head = 0
        self._tail = 0
        self._number = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._closed = False
        self.dropped = 0
        self.recorded = 0

    def append(self, ts: int, values: npt.ArrayLike, mid: float, ready: bool) -> bool:
        """Copy a row into the ring; False when the ring is full and the row is dropped (counted).

        Parameters
        ----------
        ts : int
            Event time, UTC ns.
        values : float64 [F]
            Raw values, as `FeatureState.row` gives them.
        mid : float
        ready : bool
        """
        head = self._head
        if head - self._tail >= self.capacity:
            self.dropped += 1
            return False
        at = head % self.capacity
        self._ts[at] = ts
        self._mid[at] = mid
        self._ready[at] = ready
        self._values[at] = values
        self._head = head + 1
        if 2 * (head + 1 - self._tail) >= self.capacity:
            self._wake.set()
        return True

    def append_state(self, ts: int, state: FeatureState) -> bool:
        """`append` of what a state gives now."""
        return self.append(ts, state.row(), state.mid, state.ready)

    @property
    def nbytes(self) -> int:
        """Bytes of the ring; it never grows."""
        return int(self._ts.nbytes + self._mid.nbytes + self._ready.nbytes + self._values.nbytes)

    def flush(self, partial: bool = False) -> int:
        """Write finished minutes as part files.

        Parameters
        ----------
        partial : bool
            Also the minute that still runs. Half a ring is written in any case, so that the ring has room.

        Returns
        -------
        int
            Rows written.
        """
        with self._lock:
            written = 0
            while True:
                head, tail = self._head, self._tail
                count = head - tail
                if not count:
                    return written
                size = self._group(tail, count)
                if size == count and not partial and 2 * count < self.capacity:
                    return written
                self._write(tail, size)
                self._tail = tail + size
                self.recorded += size
                written += size

    def _group(self, tail: int, count: int) -> int:
        """Rows from the oldest on that are of one minute."""
        rows = np.arange(tail, tail + count) % self.capacity
        minutes = self._ts[rows] // np.uint64(MINUTE_NS)
        other = np.flatnonzero(minutes != minutes[0])
        return int(other[0]) if len(other) else count

    def _write(self, tail: int, size: int) -> None:
        rows = np.arange(tail, tail + size) % self.capacity
        columns = [self._ts[rows], self._mid[rows], self._ready[rows]]
        grid = self._values[rows]
        columns += [np.ascontiguousarray(grid[:, number]) for number in range(self.plan.width)]
        table = self._arrow.Table.from_arrays([self._arrow.array(column) for column in columns], schema=self._schema)
        place = _folder(self.path) / f"part-{self._number:09d}.parquet"
        with atomic_file(place) as file, _writer(file, self._schema) as writer:
            writer.write_table(table, row_group_size=size)
        self._number += 1

    def start(self, every_s: float = 1.0) -> None:
        """Flush from a thread of its own, every so many seconds and whenever half the ring is full."""
        if not every_s > 0:
            raise FeatureExtractionError(f"`every_s` must be > 0, was {every_s}")
        if self._thread is not None or self._closed:
            raise FeatureExtractionError("`start` must be called once, before `close`")

        def run() -> None:
            try:
                while not self._stop.is_set():
                    self._wake.wait(every_s)
                    self._wake.clear()
                    self.flush()
            except BaseException as error:  # told by `close`: a full disk must not go unseen
                self._failure = error

        self._thread = threading.Thread(target=run, name="feature-recorder", daemon=True)
        self._thread.start()

    def close(self) -> Path:
        """Write what is left and join the parts into the file.

        Returns
        -------
        Path

        Raises
        ------
        FeatureExtractionError
            If a flush of the thread failed; finished minutes are in the parts.
        """
        if not self._closed:
            self._closed = True
            self._stop.set()
            self._wake.set()
            if self._thread is not None:
                self._thread.join()
            if self._failure is not None:
                raise FeatureExtractionError(f"`flush` must write, failed: {self._failure}") from self._failure
            self.flush(partial=True)
            _join(self.path, {**plan_facts(self.plan, self.clock), "dropped": self.dropped}, self._schema)
        return self.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()


def _writer(file: Any, schema: Any) -> Any:
    return parquet_module().ParquetWriter(file, schema, compression="zstd", use_dictionary=False,
                                          write_page_checksum=True)  # fmt: skip


def _groups(parts: list[Path]) -> Iterator[Any]:
    for path in parts:
        with parquet_module().ParquetFile(path, page_checksum_verification=True) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, use_threads=False)


def _join(path: Path, facts: dict[str, Any], schema: Any) -> None:
    parts = _parts(path)
    sealed = schema.with_metadata({FACTS: json.dumps(facts, allow_nan=False).encode()})
    with atomic_file(path) as file, _writer(file, sealed) as writer:
        for table in _groups(parts):
            writer.write_table(table.replace_schema_metadata(sealed.metadata), row_group_size=len(table))
    shutil.rmtree(_folder(path))


def join_parts(path: str | os.PathLike[str]) -> int:
    """Finish a recording whose process died: join its parts into the file.

    Returns
    -------
    int
        Rows of the file.

    Raises
    ------
    FeatureExtractionError
        If there are no parts, or the file is there already.
    """
    file = Path(path)
    parts = _parts(file)
    if not parts:
        raise FeatureExtractionError(f"`path` must have parts in {_folder(file)}, has none")
    if file.exists():
        raise FeatureExtractionError(f"`path` must be free, {file} is there")
    table = read_features(parts[0])
    _join(file, table.facts, parquet_module().read_schema(parts[0]))
    return int(parquet_module().read_metadata(file).num_rows)


def read_recording(path: str | os.PathLike[str]) -> FeatureTable:
    """Rows of a recording: the file, or the finished parts of one that runs or died.

    Raises
    ------
    DataConversionError, FeatureExtractionError
        If there is neither, or it is damaged.
    """
    file = Path(path)
    if file.is_file():
        return read_features(file)
    tables = []
    for part in _parts(file):
        with contextlib.suppress(FileNotFoundError):  # joined meanwhile
            tables.append(read_features(part))
    if file.is_file():
        return read_features(file)
    if not tables:
        raise FeatureExtractionError(f"`path` must be a recording, {file} and {_folder(file)} hold none")
    first = tables[0]
    return FeatureTable(
        np.concatenate([table.ts for table in tables]),
        np.concatenate([table.mid for table in tables]),
        np.concatenate([table.ready for table in tables]),
        np.concatenate([table.values for table in tables]),
        first.names,
        np.concatenate([table.session for table in tables]),
        first.facts,
    )
