"""Features of files: sessions on all cores, in bounded memory, to a table or a Parquet file.

A session is one instrument and day (`group_files`). Each begins from reset, is read in chunks with the state carried
from one to the next, and gives the same bits whether it runs alone, in one process with others, or in a process of
its own. Rows come out in the order of the sessions.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, FeatureExtractionError
from tengri_fast.features.cache import BLOCK_ROWS, ColumnCache, Entry, column_key, rows_key
from tengri_fast.features.plan import FeatureCounters, FeaturePlan
from tengri_fast.features.sessions import (
    BATCH_ROWS,
    SessionData,
    SessionFiles,
    group_files,
    open_session,
)
from tengri_fast.features.sources_config import FeatureConfig
from tengri_fast.features.tables import (
    FeatureTable,
    arrow,
    atomic_file,
    column_names,
    plan_facts,
    schema_of,
)
from tengri_fast.features.user_files import derived_observations, load_user_file, observation_names
from tengri_fast.market.tables import parquet_module

__all__ = ["Block", "SessionResult", "compute_features", "run_session", "write_features"]

_STREAM_OF: Final = {"quote": "quotes", "trade": "trades", "depth": "depth", "bar": "bars"}
_NEVER: Final = -1
_ROWS_PER_PROCESS: Final = 1_000_000
_SESSION: Final = "session"

# Called with what is being done, how much is done, and how much there is.
Show = Callable[[str, int, int], None]


class Block(NamedTuple):
    """Some rows of a session, in order."""

    ts: npt.NDArray[np.uint64]
    mid: npt.NDArray[np.float64]
    ready: npt.NDArray[np.bool_]
    values: npt.NDArray[np.float64]


@dataclass
class SessionResult:
    """What a session gave.

    Attributes
    ----------
    name : str
    rows, events : int
        Rows made, and events of the instrument's own streams that were fed.
    first_ns, last_ns : int
        Event time of the first and last row; 0 without rows.
    ready_from : list of int
        First row at which each column is ready; -1 where it never is.
    ready_after_ns : list of int
        Event time from the first row to that one; -1 where it never comes.
    counters : dict
        Totals of the state (`FeatureCounters`). With a cache, `overflow` is the sum over the runs that made the
        columns.
    files : list of dict
        Name, SHA-256, streams and rows of each file.
    reordered : list of str
        Files whose times ran backward and that were sorted.
    seconds : float
        That were spent computing; 0 when all came from the cache.
    """

    name: str
    rows: int = 0
    events: int = 0
    first_ns: int = 0
    last_ns: int = 0
    ready_from: list[int] = field(default_factory=list)
    ready_after_ns: list[int] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    data_sha256: str = ""
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """For the metadata of a file: everything but the time it took."""
        return {key: value for key, value in vars(self).items() if key != "seconds"}


def _computed(plan: FeaturePlan, session: SessionData, clock: str, note: Callable[[int], None],
              result: SessionResult) -> Iterator[Block]:  # fmt: skip
    """Blocks of a session, chunk by chunk; what is known at the end goes into `result`."""
    if _STREAM_OF[clock] not in session.streams:
        raise ConfigurationError(f"`clock` must name a stream of session {session.name}, which has "
                                 f"{', '.join(session.streams)}, was {clock!r}")  # fmt: skip
    state = plan.state()
    ready_from = np.full(plan.width, _NEVER, np.int64)
    ready_ts = np.zeros(plan.width, np.uint64)
    counters: FeatureCounters = state.counters
    for chunk in session.chunks():
        begin = time.perf_counter()
        rows = plan.compute(chunk.quotes, chunk.trades, chunk.depth, clock, bars=chunk.bars, legs=chunk.legs,
                            external=chunk.external, state=state)  # fmt: skip
        result.seconds += time.perf_counter() - begin
        counters = rows.counters
        new = (ready_from == _NEVER) & (rows.ready_from < len(rows.ts))
        ready_ts[new] = rows.ts[rows.ready_from[new]]
        ready_from[new] = result.rows + rows.ready_from[new]
        if len(rows.ts):
            result.first_ns = result.first_ns if result.rows else int(rows.ts[0])
            result.last_ns = int(rows.ts[-1])
        result.rows += len(rows.ts)
        note(sum(len(stream) for stream in (chunk.quotes, chunk.trades, chunk.depth, chunk.bars) if stream is not None))
        yield Block(rows.ts, rows.mid, rows.ready, rows.values)
    result.ready_from = ready_from.tolist()
    result.ready_after_ns = [int(ts) - result.first_ns if row != _NEVER else _NEVER
                             for row, ts in zip(result.ready_from, ready_ts, strict=True)]  # fmt: skip
    result.counters = counters._asdict()


def run_session(
    plan: FeaturePlan,
    session: SessionData,
    clock: str,
    sink: Callable[[Block], None],
    *,
    cache: ColumnCache | None = None,
    note: Callable[[int], None] = lambda events: None,
) -> SessionResult:
    """Compute one session, or read it from the cache, and hand its blocks to `sink`.

    Parameters
    ----------
    plan : FeaturePlan
    session : SessionData
    clock : str
    sink : callable
        Called with each `Block`, in order.
    cache : ColumnCache, optional
    note : callable
        Told how many events of the instrument's own streams were fed by each chunk.
    """
    result = SessionResult(session.name, events=session.events, files=session.facts,
                           reordered=list(session.reordered), data_sha256=session.data_sha256)  # fmt: skip
    if cache is None:
        for block in _computed(plan, session, clock, note, result):
            sink(block)
        return result
    entries = _cached(plan, session, clock, cache, result, note)
    _replay(plan, entries, result, sink)
    return result


class _Columns(NamedTuple):
    ts: Entry
    mid: Entry
    columns: list[Entry]


def _cached(plan: FeaturePlan, session: SessionData, clock: str, cache: ColumnCache, result: SessionResult,
            note: Callable[[int], None]) -> _Columns:  # fmt: skip
    """Entries of every column; what is missing is computed first."""
    rows = rows_key(session.data_sha256, clock)
    ours = [(f"{rows}.{kind}", kind) for kind in ("ts", "mid")]
    keys = [column_key(session.data_sha256, clock, spec) for spec in plan.specs]
    kept = {key: cache.get(key) for key in [key for key, _ in ours] + keys}
    lengths = {entry.rows for entry in kept.values() if entry is not None}
    if len(lengths) > 1:  # entries of one key always have one length: a foreign file is among them
        kept = dict.fromkeys(kept)
    missing = [number for number, key in enumerate(keys) if kept[key] is None]
    fill = [(key, kind) for key, kind in ours if kept[key] is None]
    cache.counters.hits += len(keys) - len(missing)
    cache.counters.misses += len(missing)
    if missing or fill:
        part = FeaturePlan([plan.specs[number] for number in missing or [0]])
        targets = [*fill, *((keys[number], "column") for number in missing)]
        made = SessionResult(session.name)
        with cache.writers(targets) as writers:
            for block in _computed(part, session, clock, note, made):
                for (_, kind), writer in zip(fill, writers, strict=False):
                    writer.write(block.ts if kind == "ts" else block.mid)
                for column, writer in enumerate(writers[len(fill) :]):
                    writer.write(block.values[:, column])
            shared = {"counters": made.counters, "run": f"{time.time_ns()}.{os.getpid()}", "first_ns": made.first_ns,
                      "last_ns": made.last_ns}  # fmt: skip
            for writer in writers[: len(fill)]:
                writer.commit(shared)
            for column, writer in enumerate(writers[len(fill) :]):
                writer.commit({**shared, "ready_from": made.ready_from[column],
                               "ready_after_ns": made.ready_after_ns[column]})  # fmt: skip
        result.seconds += made.seconds
        for key, _ in targets:
            kept[key] = cache.get(key)
    else:
        note(session.events)
    whole = {key: entry for key, entry in kept.items() if entry is not None}
    if len(whole) != len(kept) or len({entry.rows for entry in whole.values()}) > 1:
        raise FeatureExtractionError(f"`{cache.folder}` must keep what is written into it, lost an entry")
    return _Columns(whole[ours[0][0]], whole[ours[1][0]], [whole[key] for key in keys])


def _replay(plan: FeaturePlan, entries: _Columns, result: SessionResult, sink: Callable[[Block], None]) -> None:
    facts = [entry.facts for entry in entries.columns]
    result.rows = entries.ts.rows
    result.ready_from = [entry["ready_from"] for entry in facts]
    result.ready_after_ns = [entry["ready_after_ns"] for entry in facts]
    result.first_ns, result.last_ns = entries.ts.facts["first_ns"], entries.ts.facts["last_ns"]
    runs = {entry["run"]: entry["counters"]["overflow"] for entry in facts}
    result.counters = {**entries.ts.facts["counters"], "overflow": sum(runs.values())}
    never = any(row == _NEVER for row in result.ready_from)
    all_ready = result.rows if never else max(result.ready_from)
    for start in range(0, result.rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, result.rows)
        values = np.empty((stop - start, plan.width), np.float64)
        for number, entry in enumerate(entries.columns):
            values[:, number] = entry.block(start, stop)
        sink(Block(entries.ts.block(start, stop), entries.mid.block(start, stop),
                   np.arange(start, stop) >= all_ready, values))  # fmt: skip


# ---------------------------------------------------------------- many sessions


class _Task(NamedTuple):
    """A session for a process of its own: plain values that need no code of ours to be read."""

    number: int
    files: SessionFiles
    specs: tuple[str, ...]
    plan_hash: str
    normalisation: tuple[list[float], list[float], list[float]]
    config: FeatureConfig
    float32: bool
    batch_rows: int
    cache: str | None
    part: str


_done: Any = None


def _enter(progress: Any, user: tuple[str, ...]) -> None:
    """Start of a process: where it tells its progress, and the features of the user."""
    global _done
    _done = progress
    for path in user:
        load_user_file(Path(path))


def _note(number: int) -> Callable[[int], None]:
    def note(events: int) -> None:
        if _done is not None:
            _done[number] += events

    return note


class _Finished(NamedTuple):
    result: SessionResult
    cache: dict[str, int]


def _run(task: _Task) -> _Finished:
    """One session into its part file."""
    plan = FeaturePlan(task.specs, task.normalisation)
    if plan.hash != task.plan_hash:
        raise FeatureExtractionError(f"`plan` must be {task.plan_hash[:12]} in every process, was {plan.hash[:12]}: "
                                     "give files that register features as `user`")  # fmt: skip
    session = _opened(task.files, task.config, task.batch_rows)
    cache = None if task.cache is None else ColumnCache(task.cache)
    parquet, pyarrow = parquet_module(), arrow()
    schema = schema_of(column_names(plan), task.float32, False)
    with open(task.part, "wb") as file, parquet.ParquetWriter(file, schema, compression="none",
                                                              use_dictionary=False) as writer:  # fmt: skip

        def sink(block: Block) -> None:
            if len(block.ts):
                writer.write_table(_table(pyarrow, plan, block, schema, task.float32), row_group_size=len(block.ts))

        result = run_session(plan, session, task.config.clock, sink, cache=cache, note=_note(task.number))
    return _Finished(result, {} if cache is None else vars(cache.counters))


def _table(pyarrow: Any, plan: FeaturePlan, block: Block, schema: Any, float32: bool) -> Any:
    values = plan.normalise(block.values) if float32 else block.values
    grid = [pyarrow.array(np.ascontiguousarray(values[:, number])) for number in range(plan.width)]
    ours = [pyarrow.array(block.ts), pyarrow.array(block.mid), pyarrow.array(np.ascontiguousarray(block.ready))]
    return pyarrow.Table.from_arrays([*ours, *grid], schema=schema)


def _opened(files: SessionFiles, config: FeatureConfig, batch_rows: int) -> SessionData:
    """A session with what files of the user make of it; such a session is held whole while they do."""
    session = open_session(files, config.legs, config.external, batch_rows=batch_rows)
    if not config.derived:
        return session
    made, origin = derived_observations(config.derived, session.whole())
    return session.with_external(made, origin)


def _prepared(config: FeatureConfig, data: Sequence[Path | str]) -> tuple[FeaturePlan, FeatureConfig,
                                                                          tuple[SessionFiles, ...]]:  # fmt: skip
    config = replace(config, derived=observation_names())
    plan = config.plan()
    return plan, config.read_by(plan), group_files(data)


def compute_features(
    config: FeatureConfig,
    data: Sequence[Path | str],
    *,
    float32: bool = False,
    batch_rows: int = BATCH_ROWS,
    cache: ColumnCache | None = None,
    show: Show | None = None,
) -> FeatureTable:
    """Features of files as a table in memory, in this process.

    Parameters
    ----------
    config : FeatureConfig
    data : sequence of path
        Files or folders; see `group_files`.
    float32 : bool
        Normalised rows as a model eats them instead of raw float64.
    batch_rows : int
    cache : ColumnCache, optional
    show : callable, optional

    Returns
    -------
    FeatureTable
        With `to_arrow` and `to_pandas`; its arrays are NumPy.
    """
    plan, needed, sessions = _prepared(config, data)
    blocks: list[Block] = []
    numbers: list[npt.NDArray[np.int32]] = []
    results = []
    for number, files in enumerate(sessions):
        session = _opened(files, needed, batch_rows)
        fed = 0

        def note(events: int, session: SessionData = session) -> None:
            nonlocal fed
            fed += events
            if show is not None:
                show(session.name, fed, session.events)

        before = len(blocks)
        results.append(run_session(plan, session, config.clock, blocks.append, cache=cache, note=note))
        numbers += [np.full(len(block.ts), number, np.int32) for block in blocks[before:]]
        if cache is not None:
            cache.trim()
    facts = {**plan_facts(plan, config.clock, float32), "sessions": [result.facts() for result in results]}
    values = np.concatenate([block.values for block in blocks]) if blocks else np.empty((0, plan.width))
    return FeatureTable(
        np.concatenate([block.ts for block in blocks]) if blocks else np.empty(0, np.uint64),
        np.concatenate([block.mid for block in blocks]) if blocks else np.empty(0),
        np.concatenate([block.ready for block in blocks]) if blocks else np.empty(0, np.bool_),
        plan.normalise(values) if float32 else values,
        column_names(plan),
        np.concatenate(numbers) if numbers else np.empty(0, np.int32),
        facts,
    )


class Written(NamedTuple):
    """What `write_features` did.

    Attributes
    ----------
    path : Path
    plan : FeaturePlan
    sessions : tuple of SessionResult
    cache : dict
        Counters of the cache; empty without one.
    seconds : float
        From the first file looked at to the last byte written.
    processes : int
    """

    path: Path
    plan: FeaturePlan
    sessions: tuple[SessionResult, ...]
    cache: dict[str, int]
    seconds: float
    processes: int


def write_features(
    config: FeatureConfig,
    data: Sequence[Path | str],
    out: Path | str,
    *,
    float32: bool = False,
    jobs: int | None = None,
    batch_rows: int = BATCH_ROWS,
    cache: Path | str | None = None,
    cache_bytes: int = 4 << 30,
    user: Sequence[Path | str] = (),
    show: Show | None = None,
) -> Written:
    """Features of files to a Parquet file.

    Parameters
    ----------
    config : FeatureConfig
    data : sequence of path
        Files or folders; see `group_files`. Several sessions run in processes of their own.
    out : path
        Written whole or not at all.
    float32 : bool
        Normalised float32, as a model eats them, instead of raw float64.
    jobs : int, optional
        Processes; by default as many as there are sessions and cores, but one for each million events. One runs here.
        Several are started afresh, so a script that asks for them needs the usual ``if __name__ == "__main__":``.
    batch_rows : int
        Rows of a stream in memory at a time, in each process.
    cache : path, optional
        Folder of computed columns (`ColumnCache`).
    cache_bytes : int
        Size that it is brought down to.
    user : sequence of path
        Python files that register features; they run in every process.
    show : callable, optional
        Told the progress: what, events fed, events in all.

    Returns
    -------
    Written

    Raises
    ------
    ConfigurationError, DataConversionError, FeatureExtractionError
        If something breaks its rule; no file is written then.
    """
    begin = time.perf_counter()
    for path in user:
        load_user_file(Path(path))
    plan, needed, sessions = _prepared(config, data)
    if jobs is not None and jobs < 1:
        raise ConfigurationError(f"`jobs` must be >= 1, was {jobs}")
    total = sum(_rows_in(files) for files in sessions)
    # A process takes about as long to start as a million events to compute.
    worth = min(len(os.sched_getaffinity(0)), 1 + total // _ROWS_PER_PROCESS)
    workers = min(jobs or worth, len(sessions))
    if not user and any(spec.info.digest for spec in plan.specs):
        workers = 1  # features registered by this process are not known to another one
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    normalisation = tuple(np.asarray(values).tolist() for values in plan.normalisation)
    say = show or (lambda what, done, total: None)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        tasks = [
            _Task(number, files, tuple(spec.canonical for spec in plan.specs), plan.hash, normalisation,
                  replace(needed, features=(), normalisation=None), float32, batch_rows,
                  None if cache is None else str(cache), str(Path(folder) / f"{number:06d}.parquet"))
            for number, files in enumerate(sessions)
        ]  # fmt: skip
        if workers == 1:
            finished = _run_here(tasks, total, say)
        else:
            finished = _run_in_processes(tasks, workers, total, say, tuple(str(path) for path in user))
        results = tuple(entry.result for entry in finished)
        facts = {**plan_facts(plan, config.clock, float32), "origin": config.origin,
                 "sessions": [result.facts() for result in results]}  # fmt: skip
        _assemble(target, plan, tasks, results, facts, float32, say)
    counters: dict[str, int] = {}
    if cache is not None:
        kept = ColumnCache(cache, cache_bytes)
        kept.trim()
        counters = {key: sum(entry.cache.get(key, 0) for entry in finished) for key in vars(kept.counters)}
        counters["evicted"] = kept.counters.evicted
    return Written(target, plan, results, counters, time.perf_counter() - begin, workers)


def _rows_in(files: SessionFiles) -> int:
    """Rows that the files of a session have, about: Parquet says it, others are told from their size."""
    rows = 0
    for path in files.paths:
        if path.suffix == ".parquet":
            try:
                rows += parquet_module().read_metadata(path).num_rows
            except (OSError, ValueError):
                continue  # the reader says what is wrong with it
        else:
            rows += path.stat().st_size // 64
    return rows


def _run_here(tasks: Sequence[_Task], total: int, say: Show) -> list[_Finished]:
    global _done
    finished = []
    counts = [0] * len(tasks)

    class _Shown(list[int]):
        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            say("features", min(sum(self), total), max(total, 1))

    before, _done = _done, _Shown(counts)
    try:
        for task in tasks:
            finished.append(_run(task))
    finally:
        _done = before
    return finished


def _run_in_processes(tasks: Sequence[_Task], workers: int, total: int, say: Show,
                      user: tuple[str, ...]) -> list[_Finished]:  # fmt: skip
    # Spawned, not forked: a fork of a process with threads (Arrow has some) may hang.
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", len(tasks), lock=False)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_enter, initargs=(counts, user)) as pool:
        waiting = [pool.submit(_run, task) for task in tasks]
        try:
            open_ones = set(waiting)
            while open_ones:
                done, open_ones = wait_for(open_ones, timeout=0.2)
                say("features", min(sum(counts), total), max(total, 1))
                for future in done:
                    future.result()
        except BrokenExecutor:
            raise FeatureExtractionError("`jobs` must be processes that live until their end, one was killed (out of "
                                         "memory?): use fewer, or a smaller batch") from None  # fmt: skip
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
        return [future.result() for future in waiting]


def _assemble(target: Path, plan: FeaturePlan, tasks: Sequence[_Task], results: Sequence[SessionResult],
              facts: dict[str, Any], float32: bool, say: Show) -> None:  # fmt: skip
    """The parts in order as one file, row group by row group."""
    pyarrow, parquet = arrow(), parquet_module()
    several = len(tasks) > 1
    schema = schema_of(column_names(plan), float32, several, facts)
    names = pyarrow.array([result.name for result in results])
    rows, written = sum(result.rows for result in results), 0
    with atomic_file(target) as file, parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=[_SESSION],
                                                            write_page_checksum=True) as writer:  # fmt: skip
        for number, task in enumerate(tasks):
            with parquet.ParquetFile(task.part) as part:
                for group in range(part.num_row_groups):
                    table = part.read_row_group(group, use_threads=False)
                    columns = table.columns
                    if several:
                        index = pyarrow.array(np.full(len(table), number, np.int32))
                        columns = [*columns[:3], pyarrow.DictionaryArray.from_arrays(index, names), *columns[3:]]
                    writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema), row_group_size=len(table))
                    written += len(table)
                    say("writing", written, max(rows, 1))
            os.unlink(task.part)


def to_json(written: Written) -> str:
    """What was done, as JSON."""
    events = sum(result.events for result in written.sessions)
    return json.dumps({
        "out": str(written.path), "plan_hash": written.plan.hash, "columns": list(written.plan.names),
        "state_bytes": written.plan.nbytes, "events": events, "seconds": round(written.seconds, 6),
        "events_per_second": events / written.seconds if written.seconds > 0 else 0.0,
        "processes": written.processes, "cache": written.cache,
        "sessions": [result.facts() for result in written.sessions],
    }, indent=2, allow_nan=False)  # fmt: skip
