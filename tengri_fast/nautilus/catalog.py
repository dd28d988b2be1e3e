"""NautilusTrader's ParquetDataCatalog, in and out.

A catalog is written beside its final place and moved there file by file, so that a reader never sees half a file. What
is already in a catalog is never written over: data that overlap in time are refused.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nautilus_trader.core.nautilus_pyo3 import drop_cvec_pycapsule
from nautilus_trader.model.data import (
    Bar,
    BarType,
    OrderBookDelta,
    OrderBookDeltas,
    OrderBookDepth10,
    QuoteTick,
    TradeTick,
    capsule_to_list,
)
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.market import (
    bars_from_objects,
    depth_from_objects,
    quotes_from_objects,
    reader,
    trades_from_objects,
)
from tengri_fast.market.columns import MarketColumns
from tengri_fast.market.contracts import InstrumentContract, contract
from tengri_fast.nautilus.instruments import instrument_from_contract
from tengri_fast.nautilus.loaders import (
    bars_to_objects,
    deltas_to_objects,
    depth_to_objects,
    quotes_to_objects,
    trades_to_objects,
)

__all__ = ["bar_type_of", "read_catalog", "write_catalog"]

_CLASSES: dict[str, type] = {
    "quotes": QuoteTick,
    "trades": TradeTick,
    "depth": OrderBookDepth10,
    "deltas": OrderBookDelta,
    "bars": Bar,
}
_ROWS_PER_FILE = 250_000  # objects alive at a time while writing
_STEPS = {"SECOND": 1_000_000_000, "MINUTE": 60_000_000_000, "HOUR": 3_600_000_000_000, "DAY": 86_400_000_000_000}
_MOST = {"SECOND": 60, "MINUTE": 60, "HOUR": 24, "DAY": 2}  # steps below these are whole in the next unit


def read_catalog(
    folder: Path,
    instrument_id: str | None = None,
    start: int | str | None = None,
    end: int | str | None = None,
    bar_type: str | None = None,
) -> MarketColumns:
    """All streams of one instrument of a catalog.

    Parameters
    ----------
    folder : Path
        The catalog.
    instrument_id : str, optional
        Needed when it holds several.
    start, end : int or str, optional
        UTC nanoseconds or ISO text, both inclusive.
    bar_type : str, optional
        Which bars; needed when there are several of the instrument.

    Raises
    ------
    DataConversionError
        The folder is no catalog, the instrument is not in it or was not named, or the bars were not.
    """
    if not (folder / "data").is_dir():
        raise DataConversionError(f"`path` must be the folder of a catalog, {folder} has no folder `data`")
    catalog = ParquetDataCatalog(str(folder))
    present = {name: _identifiers(catalog, kind) for name, kind in _CLASSES.items()}
    bar_types = {text: BarType.from_str(text).instrument_id.value for text in present["bars"]}
    names = sorted({name for key in present if key != "bars" for name in present[key]} | set(bar_types.values()))
    wanted = instrument_id if instrument_id is not None else (names[0] if len(names) == 1 else None)
    if wanted not in names:
        listed = ", ".join(names[:10]) or "none"
        raise DataConversionError(f"`instrument_id` must be in the catalog, which has {listed}, was {instrument_id}")
    bars = sorted(text for text, owner in bar_types.items() if owner == wanted)
    if bar_type is not None and bar_type not in bars:
        raise DataConversionError(f"`bar_type` must be one of {', '.join(bars) or 'none'}, was {bar_type!r}")
    if bar_type is None and len(bars) > 1:
        raise DataConversionError(f"`bar_type` must be given when there are several ({', '.join(bars)}), was None")
    chosen = bar_type or (bars[0] if bars else None)
    streams: dict[str, Any] = {}
    for name, kind in _CLASSES.items():
        identifier = chosen if name == "bars" else (wanted if wanted in present[name] else None)
        if identifier is not None:
            parts = [_columns(name, part) for part in _objects(catalog, kind, identifier, start, end)]
            if parts:
                streams[name] = _joined(parts)
    notes = (f"Bars are {chosen}.",) if "bars" in streams else ()
    return MarketColumns(**streams, source=folder.name, notes=notes)


def _identifiers(catalog: ParquetDataCatalog, kind: type) -> list[str]:
    """Instruments (or bar types) of which a catalog holds data of a kind."""
    root = Path(catalog._make_path(kind))
    return sorted(place.name for place in root.iterdir() if any(place.glob("*.parquet"))) if root.is_dir() else []


def _objects(
    catalog: ParquetDataCatalog, kind: type, identifier: str, start: int | str | None, end: int | str | None
) -> Iterator[list[Any]]:
    """Objects in the order of time, a part at a time."""
    session = catalog.backend_session(data_cls=kind, identifiers=[identifier], start=start, end=end)
    for capsule in session.to_query_result():
        objects = capsule_to_list(capsule)
        drop_cvec_pycapsule(capsule)  # its own destructor frees nothing
        if objects:
            yield objects


def _columns(name: str, objects: list[Any]) -> Any:
    if name == "deltas":
        return reader.read_deltas(OrderBookDeltas(objects[0].instrument_id, objects))
    read = {
        "quotes": quotes_from_objects,
        "trades": trades_from_objects,
        "depth": depth_from_objects,
        "bars": bars_from_objects,
    }
    return read[name](objects)


def _joined(parts: list[Any]) -> Any:
    kind = type(parts[0])
    columns = {}
    for field in fields(kind):
        arrays = [getattr(part, field.name) for part in parts]
        if arrays[0].ndim == 2:  # depth has as many levels as its deepest part
            widest = max(array.shape[1] for array in arrays)
            arrays = [np.pad(array, ((0, 0), (0, widest - array.shape[1]))) for array in arrays]
        columns[field.name] = np.concatenate(arrays)
    return kind(**columns)


def write_catalog(
    folder: Path, columns: MarketColumns, contract: InstrumentContract | str, *, bar_type: str | None = None
) -> None:
    """Write all streams, and the instrument, into a catalog; the catalog is made when it is not there.

    Parameters
    ----------
    folder : Path
        The catalog.
    columns : MarketColumns
        What to write. Every value must fit the decimals of the contract.
    contract : InstrumentContract or str
        The instrument, or the name of its row in the contract table.
    bar_type : str, optional
        What the bars are. By default external bars of the last price, of the smallest step between two of them.

    Raises
    ------
    DataConversionError
        A value does not fit, time goes backwards, there is nothing to write, or the catalog holds data of the same kind
        that overlap in time. Nothing is written then.
    """
    row = _row(contract)
    instrument = instrument_from_contract(row)
    streams = {name: value for name, value in columns.streams().items() if len(value)}
    if not streams:
        raise DataConversionError("`columns` must hold at least one event, held none")
    kind = bar_type
    if "bars" in streams and kind is None:
        kind = bar_type_of(streams["bars"].ts_event, instrument.id.value)
    convert: dict[str, Callable[[Any, int], list[Any]]] = {
        "quotes": lambda part, _first: quotes_to_objects(part, instrument),
        "trades": lambda part, first: trades_to_objects(part, instrument, first_id=first + 1),
        "depth": lambda part, _first: depth_to_objects(part, instrument),
        "deltas": lambda part, _first: deltas_to_objects(part, instrument),
        "bars": lambda part, _first: bars_to_objects(part, instrument, kind or ""),
    }
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    target = ParquetDataCatalog(str(folder))
    for name, value in streams.items():
        identifier = kind if name == "bars" else instrument.id.value
        for begin, end in target.get_intervals(_CLASSES[name], identifier):
            if begin <= int(value.ts_init.max()) and int(value.ts_init.min()) <= end:
                raise DataConversionError(
                    f"`folder` must not hold {name} of {identifier} of the same time, {folder.name} holds some from "
                    f"{begin} to {end}"
                )
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        made = ParquetDataCatalog(str(staging))
        made.write_data([instrument])
        for name, value in streams.items():
            for first, last in _parts(value.ts_init):
                made.write_data(convert[name](value[first:last], first))
        _move(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def bar_type_of(times: npt.NDArray[np.uint64], instrument_id: str) -> str:
    """The type of external time bars of the last price from the times of their events: the smallest step between two.

    Raises
    ------
    DataConversionError
        There are fewer than two bars, or the step is none that NautilusTrader has.
    """
    steps = np.diff(np.unique(times).astype(np.int64))
    if steps.size:
        step = int(steps.min())
        for unit in ("DAY", "HOUR", "MINUTE", "SECOND"):
            count, rest = divmod(step, _STEPS[unit])
            if rest == 0 and 1 <= count < _MOST[unit] and (unit == "DAY" or _STEPS[_NEXT[unit]] % step == 0):
                return f"{instrument_id}-{count}-{unit}-LAST-EXTERNAL"
    shown = f"{int(steps.min())} ns apart" if steps.size else "fewer than two"
    raise DataConversionError(f"`bar_type` must be given when it cannot be told from the times, which are {shown}")


_NEXT = {"SECOND": "MINUTE", "MINUTE": "HOUR", "HOUR": "DAY"}


def _parts(ts_init: npt.NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Parts of the rows for one file each; rows of one time stay together, since files may not overlap."""
    first, count = 0, len(ts_init)
    while first < count:
        last = min(first + _ROWS_PER_FILE, count)
        last = int(np.searchsorted(ts_init, ts_init[last - 1], side="right")) if last < count else count
        yield first, max(last, first + 1)
        first = max(last, first + 1)


def _move(staging: Path, folder: Path) -> None:
    for source in sorted(staging.rglob("*.parquet")):
        place = folder / source.relative_to(staging)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, place)


def _row(value: InstrumentContract | str) -> InstrumentContract:
    if isinstance(value, InstrumentContract):
        return value
    if not isinstance(value, str):
        raise ConfigurationError(f"`contract` must be a row of the contract table, was {type(value).__name__}")
    return contract(value)
