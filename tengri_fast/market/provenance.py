"""Our Parquet files: one stream each, with the story of its making in the file itself.

Columns are those that :mod:`tengri_fast.market.files` reads: ``ts_ns``, ``ts_init_ns`` where it differs, ``exch_ns``
where the source has exchange times, then the stream's own. Doubles are kept bit for bit. The metadata key
``tengri_fast.provenance`` holds JSON: source and its SHA-256, format, rows in and out, repairs with counts, clock
offset, notes, version of the tool. No time of writing: the same source and options give the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import MarketColumns
from tengri_fast.market.files import AS_READ
from tengri_fast.market.tables import Progress, StrPath, parquet_module, parquet_schema, require_file

__all__ = ["PROVENANCE", "provenance", "sha256_of", "targets", "write_market"]

PROVENANCE = b"tengri_fast.provenance"
PROVENANCE_VERSION = 1
ROW_GROUP = 131_072
Array = npt.NDArray[Any]


def sha256_of(path: StrPath, progress: Progress | None = None) -> str:
    """SHA-256 of a file, in hex."""
    file, digest, done = require_file(path), hashlib.sha256(), 0
    total = file.stat().st_size
    with file.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    return digest.hexdigest()


def columns_of(stream: str, value: Any) -> dict[str, Array]:
    """A stream as the columns of its file, without times."""
    if stream == "quotes":
        return {f"{name}_0": getattr(value, name) for name in ("bid_price", "ask_price", "bid_size", "ask_size")}
    if stream == "trades":
        return {name: getattr(value, name) for name in ("price", "size", "aggressor")}
    if stream == "bars":
        return {name: getattr(value, name) for name in ("open", "high", "low", "close", "volume")}
    if stream == "deltas":
        names = ("action", "side", "price", "size", "order_id", "flags", "sequence")
        return {name: getattr(value, name) for name in names}
    sides = ("bid_price", "bid_size", "ask_price", "ask_size")
    return {f"{name}_{level}": np.ascontiguousarray(getattr(value, name)[:, level])
            for level in range(value.levels) for name in sides}  # fmt: skip


def _table(stream: str, columns: MarketColumns, facts: Mapping[str, Any]) -> Any:
    import pyarrow

    value = columns.streams()[stream]
    arrays: dict[str, Array] = {"ts_ns": value.ts_event}
    if not np.array_equal(value.ts_event, value.ts_init):
        arrays["ts_init_ns"] = value.ts_init
    if stream in columns.exchange_times:
        arrays["exch_ns"] = columns.exchange_times[stream]
    arrays |= columns_of(stream, value)
    table = pyarrow.table({name: pyarrow.array(array) for name, array in arrays.items()})
    try:
        text = json.dumps({"provenance": PROVENANCE_VERSION, **facts, "stream": stream}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataConversionError(f"`facts` must be plain values with finite numbers: {error}") from None
    return table.replace_schema_metadata({AS_READ: b"double", PROVENANCE: text.encode()})


def targets(
    out: StrPath, columns: MarketColumns, *, stem: str | None = None, streams: Sequence[str] | None = None
) -> dict[Path, str]:
    """The files that `write_market` would write, each with its stream."""
    place, have = Path(out), columns.streams()
    for name in streams or ():
        if name not in have:
            raise DataConversionError(f"`streams` must be among {', '.join(have) or 'none'}, named {name!r}")
    chosen = [name for name in have if not streams or name in streams]
    if not chosen:
        raise DataConversionError(f"`columns` must hold a stream to write, {columns.source or 'the source'} has none")
    if place.suffix == ".parquet":
        if len(chosen) > 1:
            raise DataConversionError(f"`out` must be a folder for {len(chosen)} streams ({', '.join(chosen)}), "
                                      f"was {place}")  # fmt: skip
        return {place: chosen[0]}
    stem = stem or columns.source.partition(".")[0] or "data"
    labels = {"depth": f"depth{columns.depth.levels}"} if columns.depth is not None else {}
    return {place / f"{stem}.{labels.get(name, name)}.parquet": name for name in chosen}


def write_market(
    out: StrPath,
    columns: MarketColumns,
    facts: Mapping[str, Any],
    *,
    stem: str | None = None,
    streams: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write streams as Parquet files of ours.

    Parameters
    ----------
    out : path
        A file ending in ".parquet" for a single stream; otherwise a folder, which gets ``STEM.quotes.parquet``,
        ``STEM.trades.parquet``, ``STEM.depthL.parquet``, ``STEM.bars.parquet``, ``STEM.deltas.parquet``.
    columns : MarketColumns
    facts : mapping
        What goes into the provenance beside the name of the stream; finite numbers, text, lists and mappings.
    stem : str, optional
        Start of the names in a folder; the source up to its first dot by default.
    streams : sequence of str, optional
        Which streams to write; all by default.
    progress : callable, optional
        Called with rows written and rows in all.

    Returns
    -------
    list of Path

    Raises
    ------
    DataConversionError
        If there is nothing to write, or several streams for one file.
    """
    parquet = parquet_module()
    files, have = targets(out, columns, stem=stem, streams=streams), columns.streams()
    total, done, written = sum(len(have[name]) for name in files.values()), 0, []
    for path, name in files.items():
        table = _table(name, columns, facts)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            # The file descriptor is ours, so a full disk is an error of the write, not a file cut short.
            with os.fdopen(handle, "wb") as file:
                with parquet.ParquetWriter(file, table.schema, compression="zstd", write_page_checksum=True) as writer:
                    for start in range(0, len(table), ROW_GROUP):
                        writer.write_table(table.slice(start, ROW_GROUP), row_group_size=ROW_GROUP)
                        if progress is not None:
                            progress(done + min(start + ROW_GROUP, len(table)), total)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        done += len(table)
        written.append(path)
    return written


def provenance(path: StrPath) -> dict[str, Any] | None:
    """The story of a Parquet file that we wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict or None
        None for a Parquet file that is not ours.

    Raises
    ------
    DataConversionError
        If the file is not Parquet, or its story is not readable or of a later version.
    """
    file = require_file(path)
    text = (parquet_schema(file).metadata or {}).get(PROVENANCE)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataConversionError(f"`provenance` of {file.name} must be JSON: {error}") from None
    version = found.get("provenance") if isinstance(found, dict) else None
    if version != PROVENANCE_VERSION:
        raise DataConversionError(f"`provenance` of {file.name} must be of version {PROVENANCE_VERSION}, "
                                  f"was {version!r}")  # fmt: skip
    return dict(found)
