"""Files of market data as sessions, one per instrument and day, read in chunks that never hold a whole day.

Files of one name (``NAME.quotes.parquet``, ``NAME.trades.parquet``, ``NAME.depth10.parquet``) are one session. Chunks
are cut so that every stream's events before a moment are in them and none after it: a plan that is fed chunk by chunk
sees the events in the order of `merge_order`, as if all were given at once.

Our own Parquet files of quotes, trades and depth are read batch by batch. Other formats, and files whose times run
backward (which have to be sorted first), are held whole while they are read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.features.lookahead import EventStreams
from tengri_fast.features.sources_config import OutsideInput
from tengri_fast.features.tables import FACTS
from tengri_fast.market.columns import (
    DEPTH_LEVELS,
    DepthColumns,
    ExternalColumns,
    QuoteColumns,
    TradeColumns,
)
from tengri_fast.market.files import Table
from tengri_fast.market.fixed_point import through_fixed_point
from tengri_fast.market.formats import EXTERNAL, detect_format, read_market
from tengri_fast.market.provenance import sha256_of
from tengri_fast.market.read_options import ReadOptions
from tengri_fast.market.tables import is_csv_name, number_column, parquet_module, parquet_schema, time_column

__all__ = ["BATCH_ROWS", "SessionData", "SessionFiles", "group_files", "open_session"]

BATCH_ROWS = 131_072
# Quotes of another instrument are fed from this long before a session's first event.
LEG_LEAD_NS = 86_400 * 10**9
STREAMS = ("quotes", "trades", "depth", "bars")

_NAME = re.compile(r"(?P<stem>.+?)\.(quotes|trades|bars|depth[0-9]*|deltas|l1events|mbo)\.[a-z0-9.]+", re.IGNORECASE)
_LOBSTER = re.compile(r"(?P<stem>.+)_(message|orderbook)_[0-9]+\.csv(\.gz|\.zip)?", re.IGNORECASE)
_DATA = (".parquet", ".csv", ".csv.gz", ".csv.zip")
_GROUPS = frozenset({"slug", "symbol", "instrument", "instrument_id"})

Columns = Any


class SessionFiles(NamedTuple):
    """Files of one instrument and day.

    Attributes
    ----------
    name : str
        What the files' names have in common.
    paths : tuple of Path
    """

    name: str
    paths: tuple[Path, ...]


def _is_data(file: Path) -> bool:
    """Whether a file of a folder is market data by its name, and not what we made of such data."""
    name = file.name.lower()
    if not name.endswith(_DATA) or name.startswith("."):
        return False
    try:
        return not name.endswith(".parquet") or FACTS not in (parquet_schema(file).metadata or {})
    except DataConversionError:
        return True  # a damaged file is not passed over: its reader says what is wrong with it


def group_files(paths: Iterable[Path | str]) -> tuple[SessionFiles, ...]:
    """Sessions of files and folders, in the order in which their first file is given; files of a folder by name.

    Files of features (`write_features`) in a folder are passed over.

    Raises
    ------
    DataConversionError
        If a path is missing or given twice, or a folder holds no data.
    """
    found: dict[str, list[Path]] = {}
    for given in paths:
        place = Path(given)
        if place.is_dir():
            files = sorted(file for file in place.iterdir() if file.is_file() and _is_data(file))
            if not files:
                raise DataConversionError(f"`data` must hold Parquet or CSV files, {place} has none")
        elif place.is_file():
            files = [place]
        else:
            raise DataConversionError(f"`data` must be a file or folder, was {place}")
        for file in files:
            match = _NAME.fullmatch(file.name) or _LOBSTER.fullmatch(file.name)
            stem = match["stem"] if match else file.name.partition(".")[0]
            known = found.setdefault(stem, [])
            if file in known:
                raise DataConversionError(f"`data` must name a file once, named {file} twice")
            if not (_LOBSTER.fullmatch(file.name) and any(_LOBSTER.fullmatch(other.name) for other in known)):
                known.append(file)  # of a pair the reader opens the other itself
    if not found:
        raise DataConversionError("`data` must name at least one file, named none")
    return tuple(SessionFiles(stem, tuple(files)) for stem, files in found.items())


class _Times(NamedTuple):
    """What one pass over the times of a file says."""

    rows: int
    first: int
    last: int
    sorted: bool


class _Stream:
    """One stream of one file: its times, and its columns in batches in order of time."""

    def __init__(self, kind: str, path: Path, times: _Times, batches: Callable[[], Iterator[Columns]]) -> None:
        self.kind, self.path, self.times, self.batches = kind, path, times, batches


def _held(kind: str, path: Path, columns: Columns, batch: int) -> _Stream:
    """A stream that is in memory as a whole, sorted as `merge_order` would sort it."""
    times = columns.ts_init
    ordered = bool((times[1:] >= times[:-1]).all())
    if not ordered:
        columns = _take(columns, np.argsort(times, kind="stable"))
        times = columns.ts_init
    seen = _Times(len(times), int(times[0]) if len(times) else 0, int(times[-1]) if len(times) else 0, ordered)

    def batches() -> Iterator[Columns]:
        for start in range(0, len(columns), batch):
            yield columns[start : start + batch]

    return _Stream(kind, path, seen, batches)


def _take(columns: Columns, rows: npt.NDArray[Any]) -> Columns:
    return type(columns)(**{entry.name: getattr(columns, entry.name)[rows] for entry in fields(columns)})


def _joined(first: Columns, second: Columns) -> Columns:
    return type(first)(**{
        entry.name: np.concatenate([getattr(first, entry.name), getattr(second, entry.name)])
        for entry in fields(first)
    })  # fmt: skip


def _by_batch(path: Path, kind: str) -> list[str] | None:
    """Columns of a Parquet file of ours that can be read batch by batch, or None where the reader needs all of it."""
    import pyarrow

    schema = parquet_schema(path)
    names = set(schema.names)
    if "ts_ns" not in names or _GROUPS & names:
        return None
    if kind == "quotes":
        wanted = ["bid_price_0", "ask_price_0", "bid_size_0", "ask_size_0"]
    elif kind == "trades":
        wanted = ["price", "size"]
        if "aggressor" in names:
            wanted.append("aggressor")
            if not pyarrow.types.is_integer(schema.field("aggressor").type):
                return None
        elif "side" in names:
            return None
    elif kind == "depth" and not {"last", "trade_volume"} <= names:
        levels = 0
        while f"bid_price_{levels}" in names and levels < DEPTH_LEVELS:
            levels += 1
        wanted = [f"{name}_{level}" for level in range(levels)
                  for name in ("bid_price", "ask_price", "bid_size", "ask_size")]  # fmt: skip
    else:
        return None
    times = [name for name in ("ts_ns", "ts_init_ns") if name in names]
    if not set(wanted) <= names or not all(pyarrow.types.is_integer(schema.field(name).type) for name in times):
        return None
    number = (pyarrow.types.is_integer, pyarrow.types.is_floating)
    if not all(any(test(schema.field(name).type) for test in number) for name in wanted):
        return None
    return [*times, *wanted]


def _batches(path: Path, names: Sequence[str], batch: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
    try:
        with parquet_module().ParquetFile(path, page_checksum_verification=True) as file:
            for group in file.iter_batches(batch_size=batch, columns=list(names), use_threads=False):
                yield {name: np.asarray(group.column(name).to_numpy(zero_copy_only=False)) for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise DataConversionError(f"`path` must be a readable Parquet file, was {path.name}: {error}") from None


def _columns_of(kind: str, found: Mapping[str, npt.NDArray[Any]], as_read: bool) -> Columns:
    """A batch as columns, by the rules of `tengri_fast.market.files`."""
    event = time_column("ts_event", found["ts_ns"])
    init = time_column("ts_init", found["ts_init_ns"]) if "ts_init_ns" in found else event.copy()

    def values(name: str) -> npt.NDArray[np.float64]:
        numbers = number_column(name, found[name])
        return numbers if as_read else through_fixed_point(numbers)

    if kind == "quotes":
        return QuoteColumns(event, init, *(values(f"{n}_0") for n in ("bid_price", "ask_price", "bid_size",
                                                                      "ask_size")))  # fmt: skip
    if kind == "trades":
        sides = found.get("aggressor")
        signs = np.zeros(len(event), np.int32) if sides is None else sides
        if len(signs) and not np.isin(signs, (-1, 0, 1)).all():
            wrong = signs[~np.isin(signs, (-1, 0, 1))][0]
            raise DataConversionError(f"`aggressor` must be +1, -1 or 0, was {wrong}")
        return TradeColumns(event, init, values("price"), values("size"), signs)
    levels = sum(name.startswith("bid_price_") for name in found)
    grids = {name: np.column_stack([values(f"{name}_{level}") for level in range(levels)])
             for name in ("bid_price", "ask_price", "bid_size", "ask_size")}  # fmt: skip
    if not as_read:
        for side in ("bid", "ask"):
            absent = np.isnan(grids[f"{side}_price"])
            grids[f"{side}_price"][absent] = 0.0
            grids[f"{side}_size"][absent] = 0.0
    return DepthColumns(event, init, *(grids[n] for n in ("bid_price", "ask_price", "bid_size", "ask_size")))


def _scan(path: Path, name: str, batch: int) -> _Times:
    rows, first, last, ordered = 0, 0, 0, True
    for found in _batches(path, [name], batch):
        times = time_column(name, found[name])
        if not len(times):
            continue
        first = first if rows else int(times[0])
        ordered = ordered and (not rows or int(times[0]) >= last) and bool((times[1:] >= times[:-1]).all())
        rows, last = rows + len(times), int(times[-1])
    return _Times(rows, first, last, ordered)


def streams_of(path: Path, batch: int = BATCH_ROWS, options: ReadOptions | None = None) -> list[_Stream]:
    """The streams of a file."""
    kind = detect_format(path)
    if kind in EXTERNAL:
        raise DataConversionError(f"`data` must be read without NautilusTrader, {path.name} is {kind}: "
                                  "write it as Parquet with `tengri data import` first")  # fmt: skip
    plain = options is None or options == ReadOptions()
    if plain and kind in STREAMS and not is_csv_name(path):
        names = _by_batch(path, kind)
        if names is not None:
            times = _scan(path, "ts_init_ns" if "ts_init_ns" in names else "ts_ns", batch)
            as_read = Table.open(path).as_read
            if not times.rows:
                raise DataConversionError(f"`path` must hold at least one row, {path.name} holds none")
            if times.sorted:

                def batches() -> Iterator[Columns]:
                    return (_columns_of(kind, found, as_read) for found in _batches(path, names, batch))

                return [_Stream(kind, path, times, batches)]
    market = read_market(path, options=options)
    found = [_held(name, path, value, batch) for name, value in market.streams().items() if name != "deltas"]
    if not found:
        raise DataConversionError(f"`data` must hold quotes, trades, depth or bars, {path.name} holds changes of a "
                                  "book: build snapshots with `tengri data import --book 10` first")  # fmt: skip
    return found


class _Feed:
    """A stream while it is merged: what was read and not yet given out."""

    def __init__(self, kind: str, name: str, own: bool, source: Iterator[Columns]) -> None:
        self.kind, self.name, self.own, self.source = kind, name, own, source
        self.buffer: Columns | None = None
        self.empty: Columns | None = None
        self.done = False

    def pull(self) -> None:
        """Read one batch more behind what is held."""
        batch = next((part for part in self.source if len(part)), None)
        if batch is None:
            self.done = True
        else:
            self.buffer = batch if self.buffer is None or not len(self.buffer) else _joined(self.buffer, batch)

    @property
    def held(self) -> int:
        return 0 if self.buffer is None else len(self.buffer)

    def take(self, before: int | None) -> Columns | None:
        """What is held before a time (all of it for None)."""
        if self.buffer is None:
            return self.empty
        at = self.held if before is None else int(np.searchsorted(self.buffer.ts_init, np.uint64(before)))
        out, self.buffer = self.buffer[:at], self.buffer[at:]
        self.empty = out[:0]
        return out


@dataclass(frozen=True)
class SessionData:
    """A session that is ready to be read.

    Attributes
    ----------
    name : str
    facts : list of dict
        For each file: name, SHA-256, streams and rows.
    events : int
        Events of the instrument's own streams.
    first_ns, last_ns : int
        `ts_init` of the first and the last of them.
    reordered : tuple of str
        Files whose times ran backward and that were sorted.
    data_sha256 : str
        Over all files, other instruments and external sources that are fed.
    """

    name: str
    facts: list[dict[str, Any]]
    events: int
    first_ns: int
    last_ns: int
    reordered: tuple[str, ...]
    data_sha256: str
    _own: Mapping[str, _Stream] = field(repr=False)
    _legs: Mapping[str, list[_Stream]] = field(repr=False)
    _external: Mapping[str, ExternalColumns] = field(repr=False)
    _batch: int = field(repr=False)

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the instrument's own streams."""
        return tuple(self._own)

    def chunks(self) -> Iterator[EventStreams]:
        """Every event once, in chunks that end at one moment for all streams."""
        feeds = [_Feed(kind, "", True, stream.batches()) for kind, stream in self._own.items()]
        feeds += [_Feed("legs", name, False, self._leg(parts)) for name, parts in self._legs.items()]
        feeds += [_Feed("external", name, False, iter([columns])) for name, columns in self._external.items()]
        for feed in feeds:
            feed.pull()
        while True:
            for feed in feeds:
                if not feed.held and not feed.done:
                    feed.pull()
            waiting = [feed for feed in feeds if not feed.done and feed.held]
            if not waiting:
                if any(feed.held for feed in feeds):
                    yield _chunk(feeds, None)
                return
            horizon = min(int(feed.buffer.ts_init[-1]) for feed in waiting if feed.buffer is not None)
            if all(int(feed.buffer.ts_init[0]) >= horizon for feed in feeds if feed.held and feed.buffer is not None):
                for feed in waiting:
                    if feed.buffer is not None and int(feed.buffer.ts_init[-1]) == horizon:
                        feed.pull()
                continue
            yield _chunk(feeds, horizon)

    def _leg(self, parts: list[_Stream]) -> Iterator[QuoteColumns]:
        low = np.uint64(max(self.first_ns - LEG_LEAD_NS, 0))
        for part in sorted(parts, key=lambda stream: stream.times.first):
            if part.times.last < low or part.times.first > self.last_ns:
                continue
            for columns in part.batches():
                start, end = np.searchsorted(columns.ts_init, [low, np.uint64(self.last_ns + 1)])
                yield columns[int(start) : int(end)]
                if end < len(columns):
                    break

    def with_external(self, made: Mapping[str, ExternalColumns], origin: str) -> SessionData:
        """The same session with further observations, of which `origin` is a hash."""
        order = {name: _take(columns, np.argsort(columns.ts_init, kind="stable")) for name, columns in made.items()}
        cut = {name: columns[: int(np.searchsorted(columns.ts_init, np.uint64(self.last_ns), "right"))]
               for name, columns in order.items()}  # fmt: skip
        digest = hashlib.sha256(f"{self.data_sha256} {sorted(made)} {origin}".encode()).hexdigest()
        return replace(self, data_sha256=digest, _external={**self._external, **cut})

    def whole(self, rows: int | None = None) -> EventStreams:
        """All events, or those up to the one that is number `rows` of the longest own stream, at once."""
        until = self.last_ns
        if rows is not None:
            longest = max(self._own.values(), key=lambda stream: stream.times.rows)
            seen = 0
            for columns in longest.batches():
                if seen + len(columns) >= rows:
                    until = int(columns.ts_init[rows - seen - 1])
                    break
                seen += len(columns)
        parts: list[EventStreams] = []
        for chunk in self.chunks():
            cut = chunk.changed(
                lambda stream: stream[: int(np.searchsorted(stream.ts_init, np.uint64(until), "right"))]
            )
            parts.append(cut)
            times = chunk.times()
            if len(times) and int(times[-1]) > until:
                break
        return _all_of(parts)


def _chunk(feeds: Sequence[_Feed], horizon: int | None) -> EventStreams:
    own: dict[str, Any] = {}
    legs: dict[str, Any] = {}
    external: dict[str, Any] = {}
    for feed in feeds:
        columns = feed.take(horizon)
        if columns is not None:
            {"legs": legs, "external": external}.get(feed.kind, own)[feed.name or feed.kind] = columns
    return EventStreams(**own, legs=legs, external=external)


def _all_of(parts: Sequence[EventStreams]) -> EventStreams:
    def join(streams: list[Any]) -> Any:
        given = [stream for stream in streams if stream is not None]
        if len(given) < 2:
            return given[0] if given else None
        return type(given[0])(**{
            entry.name: np.concatenate([getattr(stream, entry.name) for stream in given]) for entry in fields(given[0])
        })  # fmt: skip

    own = {name: join([getattr(part, name) for part in parts]) for name in STREAMS}
    legs = {name: join([part.legs.get(name) for part in parts]) for part in parts for name in part.legs}
    external = {name: join([part.external.get(name) for part in parts]) for part in parts for name in part.external}
    return EventStreams(**own, legs=legs, external=external)


def open_session(
    files: SessionFiles,
    legs: Mapping[str, Sequence[Path]] | None = None,
    external: Mapping[str, OutsideInput] | None = None,
    *,
    batch_rows: int = BATCH_ROWS,
    options: ReadOptions | None = None,
) -> SessionData:
    """Look at the files of a session: streams, order of times, hashes.

    Parameters
    ----------
    files : SessionFiles
    legs : mapping of str to sequence of path, optional
        Files of quotes of other instruments. Their quotes count from a day before the session's first event to its
        last.
    external : mapping of str to OutsideInput, optional
        External sources; their observations count from the beginning to the session's last event.
    batch_rows : int
        Rows of a stream that are in memory at a time.
    options : ReadOptions, optional
        For files that do not say everything themselves.

    Raises
    ------
    DataConversionError
        If a file cannot be read, or two files give one stream.
    """
    if batch_rows < 1:
        raise DataConversionError(f"`batch_rows` must be >= 1, was {batch_rows}")
    own: dict[str, _Stream] = {}
    alone: dict[str, bool] = {}
    facts, digest, reordered = [], hashlib.sha256(), []
    for path in files.paths:
        streams = streams_of(path, batch_rows, options)
        sha, single, kept = sha256_of(path), len(streams) == 1, []
        for stream in streams:
            if stream.kind in own and single == alone[stream.kind]:
                raise DataConversionError(f"`data` must give each stream of a session once, {path.name} and "
                                          f"{own[stream.kind].path.name} both hold {stream.kind}")  # fmt: skip
            if stream.kind not in own or single:
                # A file of trades alone goes before the trades that a file of depth has between its rows.
                own[stream.kind], alone[stream.kind] = stream, single
                kept.append(stream.kind)
            if not stream.times.sorted:
                reordered.append(path.name)
        facts.append({"name": path.name, "sha256": sha, "streams": kept,
                      "rows": {stream.kind: stream.times.rows for stream in streams}})  # fmt: skip
        digest.update(f"own {sha} {kept}\n".encode())
    own = {kind: own[kind] for kind in STREAMS if kind in own}
    first = min(stream.times.first for stream in own.values())
    last = max(stream.times.last for stream in own.values())
    others: dict[str, list[_Stream]] = {}
    for name, paths in (legs or {}).items():
        others[name] = []
        for path in paths:
            quotes = [stream for stream in streams_of(path, batch_rows) if stream.kind == "quotes"]
            if not quotes:
                raise DataConversionError(f"`legs` must be files of quotes, {path.name} of {name} is none")
            others[name] += quotes
            order = sorted(others[name], key=lambda stream: stream.times.first)
            for before, after in pairwise(order):
                if before.times.last > after.times.first:
                    raise DataConversionError(f"`legs` of {name} must be files that follow each other in time, "
                                              f"{before.path.name} and {after.path.name} overlap")  # fmt: skip
            digest.update(f"leg {name} {sha256_of(path)}\n".encode())
    outside: dict[str, ExternalColumns] = {}
    for name, given in (external or {}).items():
        columns = given.read()
        columns = _take(columns, np.argsort(columns.ts_init, kind="stable"))
        outside[name] = columns[: int(np.searchsorted(columns.ts_init, np.uint64(last), "right"))]
        digest.update(f"external {name} {sha256_of(given.path)} {given.text()}\n".encode())
    events = sum(stream.times.rows for stream in own.values())
    return SessionData(files.name, facts, events, first, last, tuple(dict.fromkeys(reordered)), digest.hexdigest(),
                       own, others, outside, batch_rows)  # fmt: skip
