"""Rows of features as a table: in memory, as Arrow and pandas, and as Parquet files that tell how they were made.

Columns are ``ts`` (uint64, UTC ns), ``mid``, ``ready``, ``session`` where there are several, then the features under
their specs. The metadata key ``tengri_fast.features`` holds JSON: specs, plan hash, version of the feature engine,
clock, hashes of the data, counters, and from which row each column was ready.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError, MissingExtraError
from tengri_fast.features.plan import FeaturePlan
from tengri_fast.features.spec import ENGINE_VERSION
from tengri_fast.market.tables import parquet_module

__all__ = ["FACTS", "FILE_VERSION", "FeatureTable", "atomic_file", "column_names", "plan_facts", "read_features"]

FACTS: Final = b"tengri_fast.features"
FILE_VERSION: Final = 1
_OURS: Final = ("ts", "mid", "ready", "session")


def column_names(plan: FeaturePlan) -> tuple[str, ...]:
    """Names of the columns in a file: the specs; one that is called as one of ours gets its brackets."""
    return tuple(spec.canonical if name in _OURS else name for name, spec in zip(plan.names, plan.specs, strict=True))


def plan_facts(plan: FeaturePlan, clock: str, float32: bool = False) -> dict[str, Any]:
    """What a file says about its plan."""
    mean, scale, clip = (np.asarray(values).tolist() for values in plan.normalisation)
    return {
        "features_file": FILE_VERSION,
        "engine_version": ENGINE_VERSION,
        "plan": [spec.canonical for spec in plan.specs],
        "plan_hash": plan.hash,
        "clock": clock,
        "values": "float32, normalised" if float32 else "float64, raw",
        "normalisation": {"mean": mean, "scale": scale, "clip": clip},
        "legs": list(plan.legs),
        "external": list(plan.sources),
    }


def arrow() -> Any:
    """``pyarrow``, or a sentence that names the extra."""
    parquet_module()
    import pyarrow

    return pyarrow


def schema_of(names: Sequence[str], float32: bool, sessions: bool, facts: Mapping[str, Any] | None = None) -> Any:
    """The Arrow schema of a file."""
    pyarrow = arrow()
    ours = [("ts", pyarrow.uint64()), ("mid", pyarrow.float64()), ("ready", pyarrow.bool_())]
    if sessions:
        ours.append(("session", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())))
    kind = pyarrow.float32() if float32 else pyarrow.float64()
    metadata = None if facts is None else {FACTS: json.dumps(facts, allow_nan=False).encode()}
    return pyarrow.schema([*ours, *((name, kind) for name in names)], metadata=metadata)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Any]:
    """A binary file that takes its name when the block ends well, and leaves nothing when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
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


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Computed rows.

    Attributes
    ----------
    ts : uint64 [n]
        Event time, UTC ns.
    mid : float64 [n]
    ready : bool [n]
        Whether every column has seen its lookback.
    values : float64 [n, F], or float32 where normalised
        Raw values; 0 where a column is not ready.
    names : tuple of str
    session : int32 [n]
        Number of the session of each row, from 0.
    facts : dict
        How they were made; as in the metadata of a file.
    """

    ts: npt.NDArray[np.uint64]
    mid: npt.NDArray[np.float64]
    ready: npt.NDArray[np.bool_]
    values: npt.NDArray[Any]
    names: tuple[str, ...]
    session: npt.NDArray[np.int32]
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def sessions(self) -> tuple[str, ...]:
        """Names of the sessions."""
        return tuple(entry["name"] for entry in self.facts.get("sessions", ()))

    def to_arrow(self) -> Any:
        """A ``pyarrow.Table`` with the metadata of a file."""
        pyarrow = arrow()
        several = len(self.sessions) > 1
        schema = schema_of(self.names, self.values.dtype == np.float32, several, self.facts)
        ours = [pyarrow.array(self.ts), pyarrow.array(self.mid), pyarrow.array(self.ready)]
        if several:
            ours.append(pyarrow.DictionaryArray.from_arrays(pyarrow.array(self.session), list(self.sessions)))
        grid = [pyarrow.array(np.ascontiguousarray(self.values[:, i])) for i in range(len(self.names))]
        return pyarrow.Table.from_arrays([*ours, *grid], schema=schema)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with `ts` as UTC times in the index."""
        try:
            import pandas
        except ImportError:
            raise MissingExtraError("pandas", "data", "tables of pandas") from None
        ours: dict[str, Any] = {"mid": self.mid, "ready": self.ready}
        if len(self.sessions) > 1:
            ours["session"] = pandas.Categorical.from_codes(self.session, categories=list(self.sessions))
        grid = {name: self.values[:, number] for number, name in enumerate(self.names)}
        index = pandas.DatetimeIndex(self.ts.astype("datetime64[ns]"), name="ts").tz_localize("UTC")
        return pandas.DataFrame({**ours, **grid}, index=index)


def _facts_in(metadata: Mapping[bytes, bytes] | None, name: str) -> dict[str, Any]:
    text = (metadata or {}).get(FACTS)
    if text is None:
        raise DataConversionError(f"`path` must be a file of features, {name} has no `{FACTS.decode()}`")
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise DataConversionError(f"`{FACTS.decode()}` of {name} must be JSON: {error}") from None
    version = facts.get("features_file") if isinstance(facts, dict) else None
    if version != FILE_VERSION:
        raise DataConversionError(f"`{FACTS.decode()}` of {name} must be of version {FILE_VERSION}, was {version!r}")
    return dict(facts)


def read_features(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> FeatureTable:
    """Rows of a file that `write_features` or a recorder made, bit for bit.

    Parameters
    ----------
    path : path
    columns : sequence of str, optional
        Names of the features to read; all by default.

    Raises
    ------
    DataConversionError
        If the file is missing, damaged or not ours, or has no such column.
    MissingExtraError
        If pyarrow is not installed.
    """
    pyarrow, parquet = arrow(), parquet_module()
    file = Path(path)
    try:
        schema = parquet.read_schema(file)
        facts = _facts_in(schema.metadata, file.name)
        features = tuple(name for name in schema.names if name not in _OURS)
        chosen = features if columns is None else tuple(columns)
        for name in chosen:
            if name not in features:
                raise DataConversionError(f"`columns` must be features of {file.name}, had {name!r}")
        wanted = [name for name in _OURS if name in schema.names] + list(chosen)
        table = parquet.read_table(file, columns=wanted, page_checksum_verification=True, use_threads=False)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataConversionError(f"`path` must be a whole Parquet file, was {file.name}: {error}") from None
    count = len(table)
    float32 = bool(chosen) and table.schema.field(chosen[0]).type == pyarrow.float32()
    values = np.empty((count, len(chosen)), np.float32 if float32 else np.float64)
    for number, name in enumerate(chosen):
        values[:, number] = table.column(name).to_numpy()
    session = np.zeros(count, np.int32)
    if "session" in table.column_names:
        number_of = {entry["name"]: number for number, entry in enumerate(facts.get("sessions", ()))}
        names = table.column("session").cast(pyarrow.string()).to_pylist()
        session = np.array([number_of.get(name, -1) for name in names], np.int32)
    ours = [table.column(name).to_numpy(zero_copy_only=False) for name in ("ts", "mid", "ready")]
    return FeatureTable(ours[0], ours[1], ours[2], values, chosen, session, facts)
