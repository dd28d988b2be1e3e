"""Columns of Parquet and CSV files, plain or compressed, and what a file looks like from its first bytes.

Compression is told by content (gzip, zip), never by the name. A damaged file is a `DataConversionError` that names it.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError, MissingExtraError

__all__ = [
    "Array",
    "Progress",
    "StrPath",
    "first_lines",
    "head",
    "is_csv_name",
    "number_column",
    "open_bytes",
    "parquet_module",
    "parquet_schema",
    "read_csv",
    "read_parquet",
    "require_file",
    "time_column",
]

StrPath = str | os.PathLike[str]
Array = npt.NDArray[Any]
# Called with bytes read and bytes in all.
Progress = Callable[[int, int], None]

HEAD_BYTES = 1 << 16
GZIP, ZIP, PARQUET = b"\x1f\x8b", b"PK\x03\x04", b"PAR1"
# What the decompressors raise on damaged input.
DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)
_CSV_ENDINGS = (".csv", ".csv.gz", ".csv.zip", ".txt", ".txt.gz")
_NS_PER_UNIT = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def require_file(path: StrPath) -> Path:
    """The path, if it is a file."""
    file = Path(path)
    if not file.is_file():
        raise DataConversionError(f"`path` must be a file, was {file}")
    return file


def is_csv_name(path: Path) -> bool:
    """Whether the name says CSV."""
    return path.name.lower().endswith(_CSV_ENDINGS)


class _Counted(io.RawIOBase):
    """A file that tells how far it was read."""

    def __init__(self, file: IO[bytes], total: int, progress: Progress) -> None:
        self._file, self._total, self._progress, self._done = file, total, progress, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._done = max(self._done, self._file.tell())
        self._progress(self._done, self._total)
        return len(data)


@contextlib.contextmanager
def open_bytes(path: Path, progress: Progress | None = None) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed; a zip archive must hold one file.

    Raises
    ------
    DataConversionError
        If the file is damaged, also when that shows while it is read inside the block.
    """
    with contextlib.ExitStack() as stack:
        try:
            plain: Any = stack.enter_context(path.open("rb"))
            magic = plain.read(4)
            plain.seek(0)
            if progress is not None:
                plain = io.BufferedReader(_Counted(plain, path.stat().st_size, progress), 1 << 20)
            if magic[:2] == GZIP:
                plain = stack.enter_context(gzip.GzipFile(fileobj=plain))
            elif magic == ZIP:
                archive = stack.enter_context(zipfile.ZipFile(plain))
                members = [entry for entry in archive.infolist() if not entry.is_dir()]
                if len(members) != 1:
                    raise DataConversionError(f"`path` must be a zip archive of one file, {path.name} has "
                                              f"{len(members)}")  # fmt: skip
                plain = stack.enter_context(archive.open(members[0]))
            yield plain
        except DAMAGE as error:
            raise DataConversionError(f"`path` must be a whole file, {path.name} is damaged: {error}") from None


def head(path: Path, size: int = HEAD_BYTES) -> bytes:
    """The first bytes of a file, decompressed."""
    with open_bytes(path) as file:
        return file.read(size)


def first_lines(data: bytes, count: int = 3) -> list[list[str]]:
    """The first lines of CSV text as fields, without a byte-order mark; empty when the data is not text."""
    if b"\x00" in data:
        return []
    try:
        text = data.decode("utf-8-sig", errors="strict" if len(data) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return []
    rows = csv.reader(io.StringIO(text))
    found: list[list[str]] = []
    try:
        for row in rows:
            if row:
                found.append([field.strip() for field in row])
            if len(found) == count:
                break
    except csv.Error:
        return []
    return found


def parquet_module() -> Any:
    """``pyarrow.parquet``, or a sentence that names the extra."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "reading Parquet files") from None
    return pyarrow.parquet


def _csv_module() -> Any:
    try:
        import pyarrow.csv
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "reading files of exchanges and vendors") from None
    return pyarrow.csv


def parquet_schema(path: Path) -> Any:
    """The Arrow schema of a Parquet file."""
    try:
        return parquet_module().read_schema(path)
    except (OSError, ValueError) as error:
        raise DataConversionError(f"`path` must be a Parquet or .csv file, was {path.name}: {error}") from None


def _numpy(column: Any) -> Array:
    """A column of Arrow as NumPy: text stays object, times become datetime64."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_timestamp(kind):
        if column.null_count:
            raise DataConversionError(f"a time must not be missing, {column.null_count} row(s) were")
        return np.asarray(column.cast(pyarrow.timestamp(kind.unit)).to_numpy())
    if pyarrow.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    return np.asarray(column.to_numpy())


def read_parquet(path: Path, names: Sequence[str], progress: Progress | None = None) -> dict[str, Array]:
    """Columns of a Parquet file."""
    parquet = parquet_module()
    try:
        import pyarrow

        # Checksums are checked where the file has them (ours do): a flipped bit is an error, not another price.
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            total = file.num_row_groups
            groups = []
            for group in range(total):
                groups.append(file.read_row_group(group, columns=list(names)))
                if progress is not None:
                    progress(group + 1, total)
            schema = file.schema_arrow
            table = pyarrow.concat_tables(groups) if groups else schema.empty_table()
        return {name: _numpy(table.column(name)) for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise DataConversionError(f"`path` must be a readable Parquet file, was {path.name}: {error}") from None


def read_csv(
    path: Path,
    types: Mapping[str, str],
    *,
    names: Sequence[str] | None = None,
    header: bool = True,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """Columns of a CSV file, plain, gzip or zip.

    Parameters
    ----------
    path : Path
    types : mapping of str to str
        Column to its type: "int", "float", "bool" or "text". Only these are read. An empty number is NaN, an empty
        whole number is an error.
    names : sequence of str, optional
        Names of all columns in order; by default those of the header line.
    header : bool
        Whether the first line is a header; with `names` it is skipped.
    progress : callable, optional

    Raises
    ------
    DataConversionError
        If a column is missing or a value has another type; row and value are named.
    """
    arrow_csv = _csv_module()
    import pyarrow

    kinds = {"int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_(), "text": pyarrow.string()}
    read = arrow_csv.ReadOptions(
        use_threads=False,
        block_size=1 << 22,
        column_names=list(names) if names is not None else None,
        skip_rows=1 if names is not None and header else 0,
    )
    convert = arrow_csv.ConvertOptions(
        column_types={name: kinds[kind] for name, kind in types.items()},
        include_columns=list(types),
        null_values=["", "nan", "NaN", "null", "None"],
        strings_can_be_null=False,
        true_values=["true", "True", "TRUE", "1"],
        false_values=["false", "False", "FALSE", "0"],
    )
    with open_bytes(path, progress) as file:
        try:
            table = arrow_csv.read_csv(file, read_options=read, convert_options=convert)
        except (ValueError, KeyError) as error:
            raise DataConversionError(f"`path` must hold {', '.join(types)} as CSV, {path.name}: {error}") from None
    found: dict[str, Array] = {}
    for name, kind in types.items():
        column = table.column(name)
        if kind in ("int", "bool") and column.null_count:
            row = int(np.flatnonzero(np.asarray(column.is_null()))[0])
            raise DataConversionError(f"`{name}` must be there in every row, {path.name} row {row} has none")
        found[name] = np.asarray(column.to_numpy())
    return found


def time_column(name: str, array: Array, unit: str = "ns") -> npt.NDArray[np.uint64]:
    """Times as UTC nanoseconds.

    Parameters
    ----------
    name : str
        For messages.
    array : ndarray
        Whole numbers, or datetime64.
    unit : str
        Of whole numbers: "s", "ms", "us", "ns", or "auto": told from the size of the largest (times from 1973 on).
        All rows have one unit.
    """
    if array.dtype.kind == "M":
        array, unit = array.astype("datetime64[ns]").astype(np.int64), "ns"
    if array.dtype.kind not in "iu":
        raise DataConversionError(f"`{name}` must hold whole nanoseconds without gaps, had type {array.dtype}")
    if len(array) and array.dtype.kind == "i" and int(array.min()) < 0:
        row = int(np.argmin(array))
        raise DataConversionError(f"`{name}` must be >= 0, was {array[row]} in row {row}")
    times = array.astype(np.uint64)
    if unit == "auto":
        least, largest = (int(times.min()), int(times.max())) if len(times) else (0, 0)
        unit = _unit_of(largest)
        if len(times) and least and _unit_of(least) != unit:
            row = int(np.argmin(times))
            raise DataConversionError(f"`{name}` must have one unit, was in {_unit_of(least)} in row {row} ({least}) "
                                      f"and in {unit} elsewhere ({largest})")  # fmt: skip
    factor = _NS_PER_UNIT[unit]
    if len(times) and int(times.max()) > (2**64 - 1) // factor:
        raise DataConversionError(f"`{name}` must fit into nanoseconds, was {int(times.max())} {unit}")
    return times * np.uint64(factor)


def _unit_of(value: int) -> str:
    for unit, limit in (("s", 10**11), ("ms", 10**14), ("us", 10**17)):
        if value < limit:
            return unit
    return "ns"


def number_column(name: str, array: Array) -> npt.NDArray[np.float64]:
    """Numbers as double."""
    if array.dtype.kind not in "fiu":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise DataConversionError(f"`{name}` must hold numbers, had type {array.dtype}") from None
    return array.astype(np.float64, copy=False)
