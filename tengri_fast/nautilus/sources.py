"""Files of data vendors to columns, by NautilusTrader's own loaders.

The vendors' formats are read by NautilusTrader; what is done here is to give its loaders the settings under which they
lose nothing, to take their objects into columns in place, and to say in notes what was decided or left out.

=============  ==============================================================  =================================
kind           file                                                            streams
=============  ==============================================================  =================================
databento      DBN: mbo, mbp-1, mbp-10, tbbo, trades, ohlcv-1s/1m/1h/1d        deltas, quotes, depth, trades, bars
tardis         CSV: quotes, trades, incremental_book_L2, book_snapshot_5 / 25  quotes, trades, deltas, depth
binance_depth  CSV of depth snapshots and updates (T_DEPTH)                    deltas
polymarket     JSON list of trades of the Data API                             trades
catalog        folder of a ParquetDataCatalog                                  all
=============  ==============================================================  =================================

Numbers come out as NautilusTrader gives them back (``Price.as_double()``), so research on a file and a strategy on its
ticks see the same bits.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from nautilus_trader.model.data import (
    Bar,
    OrderBookDelta,
    OrderBookDeltas,
    OrderBookDepth10,
    QuoteTick,
    TradeTick,
)
from nautilus_trader.model.enums import AssetClass
from nautilus_trader.model.identifiers import InstrumentId, Symbol
from nautilus_trader.model.instruments import BinaryOption, Instrument
from nautilus_trader.model.objects import PRICE_MAX, Currency, Price, Quantity

from tengri_fast.errors import ConfigurationError, DataConversionError, MissingExtraError
from tengri_fast.market import (
    DeltaColumns,
    DepthColumns,
    QuoteColumns,
    bars_from_objects,
    depth_from_objects,
    quotes_from_objects,
    reader,
    trades_from_objects,
)
from tengri_fast.market.columns import MarketColumns
from tengri_fast.market.contracts import InstrumentContract, contract
from tengri_fast.nautilus.catalog import read_catalog, write_catalog
from tengri_fast.nautilus.csv_precision import csv_header, csv_precisions
from tengri_fast.nautilus.instruments import instrument_from_contract

__all__ = ["KINDS", "columns_from_objects", "read_definitions", "read_source", "write_catalog"]

# A Databento price is a whole number of 1e-9: with nine decimals nothing is rounded, whatever the tick.
_DBN_DECIMALS = 9
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DBN_RECORD_BYTES = {"mbp-1": 80}
_NO_PRICE = float(PRICE_MAX)  # NautilusTrader's mark of a price that is not there lies above every price

_TARDIS_LOADERS = {
    "quotes": ("bid_price", "ask_price", "bid_amount", "ask_amount"),
    "trades": ("id", "side", "price", "amount"),
    "deltas": ("is_snapshot", "side", "price", "amount"),
}


def read_source(kind: str, path: Path | str, *, instrument_id: str | None = None, **options: Any) -> MarketColumns:
    """Read a file or folder of a data vendor.

    Parameters
    ----------
    kind : str
        One of `KINDS`: "databento", "tardis", "binance_depth", "polymarket", "catalog".
    path : path
        File, or the folder of a catalog.
    instrument_id : str, optional
        "SYMBOL.VENUE": which instrument to take from a file that holds several. A file that holds one is taken whatever
        it calls it; a note says so when the names differ.
    **options
        databento : ``definitions`` (path of a DBN file of definitions: facts for the notes, and a check of the tick).
        tardis : ``price_precision``, ``size_precision`` (decimals; read from the file by default), ``limit`` (rows).
        binance_depth : ``contract`` (row of the contract table, or its name; needed).
        polymarket : ``token_id`` (of the outcome; needed when the file holds several).
        catalog : ``start``, ``end`` (UTC nanoseconds or ISO text, both inclusive), ``bar_type``.

    Returns
    -------
    MarketColumns
        In the order of the source. A quote side that is not there is NaN in price and 0 in size.

    Raises
    ------
    DataConversionError
        The kind is unknown, the file is missing or is not what the kind says, it holds several instruments and none of
        them was named, or it holds no event.
    MissingExtraError
        The kind needs a package that is not installed.
    ConfigurationError
        An option is not one of the kind.
    """
    found = _READERS.get(kind)
    if found is None:
        raise DataConversionError(f"`kind` must be one of {', '.join(KINDS)}, was {kind!r}")
    read, known = found
    unknown = [name for name in options if name not in known]
    if unknown:
        listed = ", ".join(sorted(known)) or "none"
        raise ConfigurationError(f"`{unknown[0]}` is not an option of the kind {kind!r}, which has: {listed}")
    place = Path(path)
    if kind != "catalog" and not place.is_file():
        raise DataConversionError(f"`path` must be a file, was {place}")
    made = read(place, instrument_id, **options)
    if not len(made):
        raise DataConversionError(f"`path` must hold at least one event, {place.name} holds none")
    return made


def columns_from_objects(objects: list[Any], instrument_id: str | None = None, source: str = "") -> MarketColumns:
    """A list of NautilusTrader's data objects of mixed types as columns, read in place.

    Parameters
    ----------
    objects : list
        ``QuoteTick``, ``TradeTick``, ``OrderBookDepth10``, ``Bar``, ``OrderBookDelta`` and ``OrderBookDeltas``, each
        type in order of time.
    instrument_id : str, optional
        Which instrument to take when there are several.
    source : str
        Name for the result.

    Returns
    -------
    MarketColumns
        A price that is not there (NautilusTrader's undefined price, or 0 with size 0 on one side of a quote) is NaN in
        quotes and 0 elsewhere.

    Raises
    ------
    DataConversionError
        An object is of another type, several instruments are there and none was named, or bars are of several types.
    """
    lists: dict[type, list[Any]] = {}
    for item in objects:
        lists.setdefault(type(item), []).append(item)
    for kind in lists:
        if kind not in (QuoteTick, TradeTick, OrderBookDepth10, Bar, OrderBookDelta, OrderBookDeltas):
            raise DataConversionError(f"`objects` must be market data, held {kind.__name__}")
    lists, notes = _one_instrument(lists, instrument_id)
    deltas = lists.get(OrderBookDelta, []) + [
        change for batch in lists.get(OrderBookDeltas, []) for change in batch.deltas
    ]
    streams: dict[str, Any] = {}
    if quotes := lists.get(QuoteTick):
        streams["quotes"], gone = _quotes(quotes_from_objects(quotes))
        if gone:
            notes.append(f"{gone:,} quotes have one side only; the other is NaN.")
    if trades := lists.get(TradeTick):
        streams["trades"] = trades_from_objects(trades)
    if depth := lists.get(OrderBookDepth10):
        streams["depth"] = _depth(depth_from_objects(depth))
    if bars := lists.get(Bar):
        kinds = sorted({str(bar.bar_type) for bar in bars})
        if len(kinds) > 1:
            raise DataConversionError(f"`objects` must hold bars of one type, held {', '.join(kinds)}")
        streams["bars"] = bars_from_objects(bars)
        notes.append(f"Bars are {kinds[0]}.")
    if deltas:
        streams["deltas"] = _deltas(reader.read_deltas(OrderBookDeltas(deltas[0].instrument_id, deltas)))
    return MarketColumns(**streams, source=source, notes=tuple(notes))


def _one_instrument(lists: dict[type, list[Any]], instrument_id: str | None) -> tuple[dict[type, list[Any]], list[str]]:
    def name_of(item: Any) -> Any:
        return item.bar_type.instrument_id if type(item) is Bar else item.instrument_id

    names = sorted({name_of(item) for items in lists.values() for item in items}, key=str)
    if len(names) <= 1:
        found = names[0].value if names else instrument_id
        if instrument_id is None or found == instrument_id:
            return lists, []
        return lists, [f"{found} of the source is taken as {instrument_id}."]
    listed = ", ".join(name.value for name in names[:10]) + (", ..." if len(names) > 10 else "")
    wanted = next((name for name in names if name.value == instrument_id), None)
    if wanted is None:
        raise DataConversionError(
            f"`instrument_id` must be one of the {len(names)} instruments of the source ({listed}), was {instrument_id}"
        )
    kept = {kind: [item for item in items if name_of(item) == wanted] for kind, items in lists.items()}
    dropped = sum(len(items) for items in lists.values()) - sum(len(items) for items in kept.values())
    note = f"{dropped:,} events of {len(names) - 1} other instruments are left out."
    return {kind: items for kind, items in kept.items() if items}, [note]


def _quotes(columns: QuoteColumns) -> tuple[QuoteColumns, int]:
    gone = np.zeros(len(columns), np.bool_)
    fields: dict[str, npt.NDArray[np.float64]] = {}
    for side in ("bid", "ask"):
        price, size = getattr(columns, f"{side}_price"), getattr(columns, f"{side}_size")
        absent = (np.abs(price) > _NO_PRICE) | ((price == 0) & (size == 0))
        gone |= absent
        fields[f"{side}_price"] = np.where(absent, np.nan, price) if absent.any() else price
        fields[f"{side}_size"] = np.where(absent, 0.0, size) if absent.any() else size
    return QuoteColumns(columns.ts_event, columns.ts_init, **fields), int(gone.sum())


def _depth(columns: DepthColumns) -> DepthColumns:
    fields: dict[str, npt.NDArray[np.float64]] = {}
    for side in ("bid", "ask"):
        price, size = getattr(columns, f"{side}_price"), getattr(columns, f"{side}_size")
        absent = (np.abs(price) > _NO_PRICE) | (size == 0)
        fields[f"{side}_price"] = np.where(absent, 0.0, price)
        fields[f"{side}_size"] = np.where(absent, 0.0, size)
    return DepthColumns(columns.ts_event, columns.ts_init, **fields)


def _deltas(columns: DeltaColumns) -> DeltaColumns:
    absent = np.abs(columns.price) > _NO_PRICE
    if not absent.any():
        return columns
    return replace(columns, price=np.where(absent, 0.0, columns.price))


def _loaded(path: Path, load: Callable[[], Any]) -> Any:
    """What a loader gives; what it raises becomes a sentence that names the file."""
    try:
        return load()
    except (ValueError, RuntimeError, OSError, KeyError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataConversionError(f"`path` must be a file of its kind, {path.name} is not: {text}") from error


# ---- Databento -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _compressed(path: Path) -> Iterator[Path]:
    """The file itself when it is compressed, else a compressed copy: the loader takes no other."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic == _ZSTD_MAGIC:
            yield path
            return
        if magic[:3] != b"DBN":
            raise DataConversionError(f"`path` must be a DBN file, {path.name} does not begin like one")
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"{path.name}.zst"
            file.seek(0)
            with pa.output_stream(str(copy), compression="zstd") as out:
                while block := file.read(1 << 20):
                    out.write(block)
            yield copy


def _dbn_records(path: Path, schema: str) -> int | None:
    """Records of a compressed file, from its length; None when records of other lengths are among them."""
    width = _DBN_RECORD_BYTES.get(schema)
    if width is None:
        return None
    with pa.input_stream(str(path), compression="zstd") as stream:
        head = stream.read(8)
        stream.read(int.from_bytes(head[4:8], "little"))
        total = 0
        while block := stream.read(1 << 20):
            total += len(block)
    return total // width if total % width == 0 else None


def read_definitions(path: Path | str) -> list[Instrument]:
    """The instruments of a Databento file of definitions.

    Raises
    ------
    DataConversionError
        It is not a DBN file of definitions.
    """
    from nautilus_trader.adapters.databento.loaders import DatabentoDataLoader

    place = Path(path)
    if not place.is_file():
        raise DataConversionError(f"`definitions` must be a file, was {place}")
    loader = DatabentoDataLoader()
    with _compressed(place) as file:
        schema = _loaded(place, lambda: loader._pyo3_loader.schema_for_file(str(file)))
        if schema != "definition":
            raise DataConversionError(f"`definitions` must have the schema definition, {place.name} has {schema}")
        made: list[Instrument] = _loaded(place, lambda: loader.from_dbn_file(file))
    return made


def _read_databento(path: Path, instrument_id: str | None, definitions: Path | str | None = None) -> MarketColumns:
    from nautilus_trader.adapters.databento.loaders import DatabentoDataLoader

    loader = DatabentoDataLoader()
    with _compressed(path) as file:
        schema = _loaded(path, lambda: loader._pyo3_loader.schema_for_file(str(file)))
        if schema == "definition":
            raise DataConversionError(f"`path` must hold market data, {path.name} holds definitions (read_definitions)")
        # Trades stand in the files of book changes and of best prices too.
        objects = _loaded(path, lambda: loader.from_dbn_file(file, price_precision=_DBN_DECIMALS, include_trades=True))
        records = _dbn_records(file, schema)
    made = columns_from_objects(objects, instrument_id, path.name)
    notes = [f"Databento schema {schema}; both times are when Databento received the event.", *made.notes]
    if schema.startswith("ohlcv"):
        notes[0] = f"Databento schema {schema}; a bar is stamped with its close."
    quotes = sum(type(item) is QuoteTick for item in objects) if records is not None else 0
    if records is not None and records > quotes:
        notes.append(f"{records - quotes:,} records without both a bid and an ask give no quote.")
    if definitions is not None:
        notes += _definition_notes(made, objects, instrument_id, read_definitions(definitions))
    return replace(made, notes=tuple(notes))


def _definition_notes(
    made: MarketColumns, objects: list[Any], instrument_id: str | None, instruments: list[Instrument]
) -> list[str]:
    first = objects[0]
    name = first.bar_type.instrument_id if isinstance(first, Bar) else first.instrument_id
    named = {InstrumentId.from_str(instrument_id)} if instrument_id else {name}
    # The same symbol may be defined under the exchange's own code as venue.
    symbols = {item.symbol for item in named} | ({name.symbol} if not instrument_id else set())
    found = [item for item in instruments if item.id.symbol in symbols]
    if not found:
        return [f"The definitions do not hold {instrument_id or name}."]
    it = found[-1]
    tick = float(it.price_increment)
    notes = [
        f"Definition: {type(it).__name__} {it.id}, tick {it.price_increment}, multiplier {it.multiplier}, "
        f"{it.quote_currency}."
    ]
    off = 0
    for columns in made.streams().values():
        prices = getattr(columns, "price", getattr(columns, "bid_price", getattr(columns, "close", None)))
        values = np.asarray(prices)
        values = values[np.isfinite(values) & (values != 0)]
        off += int((np.abs(values / tick - np.rint(values / tick)) > 1e-6).sum())
    if off:
        notes.append(f"{off:,} prices do not lie on the defined tick.")
    return notes


# ---- Tardis ----------------------------------------------------------------------------------------------------------


def _read_tardis(
    path: Path,
    instrument_id: str | None,
    price_precision: int | None = None,
    size_precision: int | None = None,
    limit: int | None = None,
) -> MarketColumns:
    from nautilus_trader.adapters.tardis.loaders import TardisCSVDataLoader

    header = csv_header(path)
    kind, levels = _tardis_kind(path, header)
    prices = [name for name in header if name.rpartition(".")[2].rpartition("_")[2] == "price"]
    amounts = [name for name in header if name.rpartition(".")[2].rpartition("_")[2] == "amount"]
    # NautilusTrader's loader guesses decimals from some rows and rounds the others to them, so it is told.
    decimals = csv_precisions(path, {"price": prices, "amount": amounts})
    for name, given in (("price", price_precision), ("amount", size_precision)):
        if given is not None and given < decimals[name]:
            raise DataConversionError(
                f"`{'price' if name == 'price' else 'size'}_precision` must be at least {decimals[name]}, the decimals "
                f"of {path.name}, was {given}"
            )
    loader = TardisCSVDataLoader(
        price_precision=decimals["price"] if price_precision is None else price_precision,
        size_precision=decimals["amount"] if size_precision is None else size_precision,
    )
    if levels:
        objects = _loaded(path, lambda: loader.load_depth10(path, levels=levels, limit=limit))
    else:
        objects = _loaded(path, lambda: getattr(loader, f"load_{kind}")(path, limit=limit))
    made = columns_from_objects(objects, instrument_id, path.name)
    notes = [f"Tardis {kind}; ts_event is the exchange's time, ts_init the time of arrival.", *made.notes]
    if levels == 25:
        notes.append("Levels 11 to 25 are left out.")
    return replace(made, notes=tuple(notes))


def _tardis_kind(path: Path, header: list[str]) -> tuple[str, int]:
    """What the columns are, and how many levels a snapshot has (0: it is none)."""
    names = set(header)
    if {"exchange", "symbol", "timestamp", "local_timestamp"} <= names:
        for levels in (25, 5):
            if f"asks[{levels - 1}].price" in names:
                return "depth", levels
        for kind, needed in _TARDIS_LOADERS.items():
            if set(needed) <= names:
                return kind, 0
    raise DataConversionError(
        f"`path` must have the columns of a Tardis file of quotes, trades, incremental_book_L2, book_snapshot_5 or "
        f"book_snapshot_25, {path.name} has {', '.join(header[:12])}"
    )


# ---- Binance depth ---------------------------------------------------------------------------------------------------


def _read_binance_depth(
    path: Path, instrument_id: str | None, contract: InstrumentContract | str | None = None
) -> MarketColumns:
    from nautilus_trader.adapters.binance.loaders import BinanceOrderBookDeltaDataLoader
    from nautilus_trader.persistence.wranglers import OrderBookDeltaDataWrangler

    if contract is None:
        raise ConfigurationError("`contract` must be given for the kind 'binance_depth', was None")
    instrument = instrument_from_contract(_row(contract), instrument_id)
    needed = ("symbol", "timestamp", "first_update_id", "last_update_id", "side", "update_type", "price", "qty")
    header = csv_header(path)
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataConversionError(f"`path` must have the columns {', '.join(needed)}, {path.name} lacks {missing[0]}")
    decimals = csv_precisions(path, {"price": ["price"], "qty": ["qty"]})
    for name, limit in (("price", instrument.price_precision), ("qty", instrument.size_precision)):
        if decimals[name] > limit:
            raise DataConversionError(
                f"`{name}` of {path.name} must have at most {limit} decimals (those of {instrument.id}), "
                f"had {decimals[name]}"
            )
    frame = _loaded(path, lambda: BinanceOrderBookDeltaDataLoader.load(path))
    symbols = sorted(set(frame["instrument_id"]))
    if len(symbols) > 1:
        raise DataConversionError(f"`path` must hold one symbol, {path.name} holds {', '.join(symbols)}")
    objects = _loaded(path, lambda: OrderBookDeltaDataWrangler(instrument).process(frame))
    made = columns_from_objects(objects, None, path.name)
    note = "Binance depth; both times are those of the update in milliseconds; a snapshot begins with a clear."
    return replace(made, notes=(note, *made.notes))


def _row(value: InstrumentContract | str) -> InstrumentContract:
    return contract(value) if isinstance(value, str) else value


# ---- Polymarket ------------------------------------------------------------------------------------------------------


def _read_polymarket(path: Path, instrument_id: str | None, token_id: str | None = None) -> MarketColumns:
    try:
        from nautilus_trader.adapters.polymarket.loaders import PolymarketDataLoader
    except ImportError as error:
        if error.name is None or not error.name.startswith("py_clob_client"):
            raise
        raise MissingExtraError("py-clob-client-v2", "polymarket", "reading Polymarket trades") from None
    rows = _json_rows(path)
    tokens = sorted({str(row["asset"]) for row in rows})
    if token_id is None and len(tokens) != 1:
        raise DataConversionError(
            f"`token_id` must be one of the {len(tokens)} outcomes of {path.name} ({', '.join(tokens[:4])}), was None"
        )
    token = tokens[0] if token_id is None else token_id
    if token not in tokens:
        raise DataConversionError(
            f"`token_id` must be an outcome of {path.name} ({', '.join(tokens[:4])}), was {token}"
        )
    condition = str(next(row["conditionId"] for row in rows if str(row["asset"]) == token))
    instrument = _binary_option(instrument_id or f"{condition}-{token}.POLYMARKET", token)
    ordered = sorted(rows, key=lambda row: int(row["timestamp"]))  # the interface gives the newest first
    loader = PolymarketDataLoader(instrument, token_id=token, condition_id=condition)
    made = columns_from_objects(_loaded(path, lambda: loader.parse_trades(ordered)), None, path.name)
    notes = [
        "Polymarket trades; times are whole seconds, and trades of one second are set one nanosecond apart.",
        *made.notes,
    ]
    if left := len(rows) - len(made):
        notes.append(f"{left:,} trades of other outcomes are left out.")
    return replace(made, notes=tuple(notes))


def _json_rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataConversionError(f"`path` must be JSON, {path.name} is not: {error}") from None
    needed = ("asset", "conditionId", "timestamp", "side", "price", "size", "transactionHash")
    if not isinstance(rows, list) or not rows:
        raise DataConversionError(f"`path` must be a list of trades, {path.name} is not or is empty")
    for number, row in enumerate(rows):
        missing = [name for name in needed if not isinstance(row, dict) or name not in row]
        if missing:
            raise DataConversionError(f"`{missing[0]}` must be given for every trade, row {number} has none")
    return rows


def _binary_option(name: str, token: str) -> BinaryOption:
    return BinaryOption(
        instrument_id=InstrumentId.from_str(name),
        raw_symbol=Symbol(token),
        asset_class=AssetClass.ALTERNATIVE,
        currency=Currency.from_str("USDC"),
        price_precision=_POLYMARKET_DECIMALS,
        size_precision=_POLYMARKET_DECIMALS,
        price_increment=Price(10.0**-_POLYMARKET_DECIMALS, _POLYMARKET_DECIMALS),
        size_increment=Quantity(10.0**-_POLYMARKET_DECIMALS, _POLYMARKET_DECIMALS),
        activation_ns=0,
        expiration_ns=0,
        ts_event=0,
        ts_init=0,
    )


_POLYMARKET_DECIMALS = 6  # of the settlement token; the ticks of the markets are coarser


_READERS: dict[str, tuple[Callable[..., MarketColumns], frozenset[str]]] = {
    "databento": (_read_databento, frozenset({"definitions"})),
    "tardis": (_read_tardis, frozenset({"price_precision", "size_precision", "limit"})),
    "binance_depth": (_read_binance_depth, frozenset({"contract"})),
    "polymarket": (_read_polymarket, frozenset({"token_id"})),
    "catalog": (read_catalog, frozenset({"start", "end", "bar_type"})),
}
KINDS = tuple(_READERS)
