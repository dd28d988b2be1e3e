"""The table of file formats: what each holds, how it is told from the others, and who reads it.

`detect_format` goes by content: magic numbers, the schema of a Parquet file, the header or the shape of the first line
of a text. Names of files count only where the format itself relies on them (LOBSTER's pair).
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import MarketColumns
from tengri_fast.market.read_options import ReadOptions
from tengri_fast.market.tables import PARQUET, StrPath, first_lines, head, parquet_schema

__all__ = ["EXTERNAL", "FORMATS", "Format", "detect_format", "read_market"]


@dataclass(frozen=True)
class Format:
    """One row of the table.

    Attributes
    ----------
    name : str
    streams : tuple of str
        What it gives.
    columns : str
        What the file holds.
    units, clock, lost : str
        Units of its numbers, which clock its times are of, and what is not kept.
    options : tuple of str
        Names of `ReadOptions` that mean something to it.
    reader : str
        "module:function" under ``tengri_fast.market``; empty where the Nautilus adapter reads it.
    chained : bool
        The sequence of its deltas numbers the events without a hole, so a hole is a gap.
    """

    name: str
    streams: tuple[str, ...]
    columns: str
    units: str
    clock: str
    lost: str
    options: tuple[str, ...] = ()
    reader: str = ""
    chained: bool = False


_LOCAL = "ts_ns is event and init time; exch_ms or exch_ns, where there, is kept as exchange time"
_NATIVE = "prices in the quote currency, sizes in contracts, coins or shares"
_MAPPED = ("columns", "instrument_id", "missing_size")
_FORMATS = (
    Format("quotes", ("quotes",), "ts_ns, bid_price_0 (or bid), ask_price_0 (or ask), bid_size_0, ask_size_0 "
           "[, exch_ms, slug or symbol]", _NATIVE, _LOCAL, "other columns; absent sizes become 0", _MAPPED,
           "formats_layout:read_quotes"),
    Format("trades", ("trades",), "ts_ns, price, size [, aggressor or side, exch_ms]", _NATIVE, _LOCAL,
           "other columns, such as sale conditions", ("columns", "aggressors"), "formats_layout:read_trades"),
    Format("depth", ("depth", "trades"), "ts_ns, bid_price_0, bid_size_0, ask_price_0, ask_size_0, bid_price_1, ... "
           "[, last, trade_volume, buy_volume_est, sell_volume_est, exch_ms]", _NATIVE, _LOCAL,
           "levels beyond 10; a missing level is 0; turnover and open interest", ("columns", "levels"),
           "formats_layout:read_depth"),
    Format("deltas", ("deltas",), "ts_ns, action, side, price, size, order_id, flags, sequence", _NATIVE, _LOCAL,
           "nothing", ("columns",), "formats_layout:read_deltas"),
    Format("bars", ("bars",), "a time (timestamp, datetime, date, open_time; text, date or number), open, high, low, "
           "close, volume", _NATIVE, "text without a zone is that of --timezone (UTC); a bar is known one interval "
           "after its stamp unless --bar-stamp close", "other columns, such as adjusted closes",
           ("columns", "timezone", "bar_stamp"), "formats_layout:read_bars"),
    Format("minutes", ("bars",), "day, b (minute after 09:30), open, hi, lo, close, vol", "prices in dollars",
           "New York; a bar is known at the end of its minute", "the aggregates beside the bar", ("timezone",),
           "formats_layout:read_minutes"),
    Format("fxcm", ("quotes",), "ms_since_midnight, bid, ask", "prices in the quote currency",
           "milliseconds after midnight at UTC-5 all year; the day from the file's name", "nothing; sizes are 0",
           ("date", "timezone", "missing_size"), "formats_layout:read_fxcm"),
    Format("lobster", ("quotes", "trades", "depth"), "a pair ..._message_L.csv and ..._orderbook_L.csv without header",
           "prices in 1e-4 dollars; sizes in shares", "seconds after midnight in New York; the day from the file name",
           "order ids, submissions, cancellations; levels beyond 10", ("date", "timezone", "levels"),
           "formats_orders:read_lobster"),
    Format("lobster-events", ("quotes", "trades"), "ts_ns, event, order_id, event_size, event_price, direction, "
           "bid_price_0, ...", "prices in dollars; sizes in shares", _LOCAL, "order ids, submissions, cancellations",
           (), "formats_orders:read_lobster_events"),
    Format("bitstamp-orders", ("deltas",), "id, timestamp, exchange_timestamp, price, volume, action, direction",
           "prices in dollars; volumes in coins", "timestamp (local, ms) is event and init time; exchange_timestamp is "
           "kept as exchange time", "nothing", (), "formats_orders:read_bitstamp_orders"),
    Format("bitstamp-trades", ("trades",), "trade_id, timestamp, exchange_timestamp, price, amount, buy_order_id, "
           "sell_order_id, side", "prices in dollars; amounts in coins", "as bitstamp-orders", "ids", (),
           "formats_orders:read_bitstamp_trades"),
    Format("binance-book-ticker", ("quotes",), "update_id, best_bid_price, best_bid_qty, best_ask_price, best_ask_qty, "
           "transaction_time, event_time; header or not", _NATIVE, "transaction_time is event time, event_time is init "
           "time; both are the exchange's", "update ids", (), "formats_binance:read_book_ticker"),
    Format("binance-agg-trades", ("trades",), "agg_trade_id, price, quantity, first_trade_id, last_trade_id, "
           "transact_time, is_buyer_maker [, is_best_match]; header or not", _NATIVE, "transact_time, the exchange's; "
           "ms or us", "ids; how many trades one row stands for", (), "formats_binance:read_agg_trades"),
    Format("binance-trades", ("trades",), "id, price, qty, quote_qty, time, is_buyer_maker [, is_best_match]; header "
           "or not", _NATIVE, "time, the exchange's; ms or us", "ids", (), "formats_binance:read_trades"),
    Format("binance-klines", ("bars",), "open_time, open, high, low, close, volume, close_time, ... (12 columns); "
           "header or not", _NATIVE, "a bar is known one unit after close_time", "number of trades, taker volumes", (),
           "formats_binance:read_klines"),
    Format("binance-t-depth", ("deltas",), "symbol, timestamp, first_update_id, last_update_id, side, update_type, "
           "price, qty [, pu]", _NATIVE, "timestamp, the exchange's", "update ids", ("instrument_id",),
           "formats_binance:read_t_depth", True),
    Format("binance-capture", ("quotes", "trades", "deltas"), "local_ns and a JSON message per line: bookTicker, "
           "trade, aggTrade, depthUpdate, snapshot", _NATIVE, "local_ns is event and init time; T (or E) is kept as "
           "exchange time", "ids; updates that the snapshot has already", ("instrument_id",),
           "formats_binance:read_capture", True),
    Format("databento", ("quotes", "trades", "depth", "bars", "deltas"), "DBN: mbo, mbp-1, mbp-10, trades, ohlcv",
           "as the vendor", "ts_event of the exchange, ts_init of the capture", "see the adapter", ("instrument_id",)),
    Format("tardis", ("quotes", "trades", "depth", "deltas"), "CSV of quotes, trades, book snapshots, incremental book",
           "as the vendor", "timestamp is event time, local_timestamp is init time", "see the adapter",
           ("instrument_id",)),
    Format("polymarket", ("trades",), "JSON of trades of the Data API", "prices from 0 to 1", "the exchange's",
           "see the adapter", ("instrument_id",)),
    Format("catalog", ("quotes", "trades", "depth", "bars", "deltas"), "folder of a NautilusTrader ParquetDataCatalog",
           "fixed point", "as stored", "see the adapter", ("instrument_id",)),
)  # fmt: skip
FORMATS: dict[str, Format] = {entry.name: entry for entry in _FORMATS}
# Read through ``tengri_fast.nautilus.sources``, by NautilusTrader's own loaders.
EXTERNAL = frozenset(entry.name for entry in _FORMATS if not entry.reader)

_ZSTD = b"\x28\xb5\x2f\xfd"
_CAPTURE = re.compile(rb"[0-9]{16,20} \{")
_LOBSTER = re.compile(r".*_(message|orderbook)_[0-9]+\.csv(\.gz|\.zip)?$", re.IGNORECASE)
# Names of columns (lower case) that must all be there; the first that fits wins.
_BY_NAMES: tuple[tuple[str, frozenset[str]], ...] = tuple((name, frozenset(columns.split())) for name, columns in (
    ("tardis", "exchange symbol timestamp local_timestamp"),
    ("deltas", "ts_ns action side price size order_id flags sequence"),
    ("lobster-events", "ts_ns event event_price event_size direction bid_price_0 ask_price_0"),
    ("fxcm", "ms_since_midnight bid ask"),
    ("bitstamp-orders", "id timestamp exchange_timestamp price volume action direction"),
    ("bitstamp-trades", "trade_id timestamp exchange_timestamp price amount side"),
    ("binance-book-ticker", "best_bid_price best_ask_price transaction_time event_time"),
    ("binance-agg-trades", "price quantity transact_time is_buyer_maker"),
    ("binance-trades", "price qty time is_buyer_maker"),
    ("binance-t-depth", "symbol timestamp last_update_id side update_type price qty"),
    ("binance-klines", "open_time open high low close volume close_time"),
    ("minutes", "day b open hi lo close vol"),
    ("depth", "ts_ns bid_price_0 ask_price_0 bid_price_1 ask_price_1"),
    ("quotes", "ts_ns bid_price_0 ask_price_0"),
    ("quotes", "ts_ns bid_price ask_price"),
    ("quotes", "ts_ns bid ask"),
    ("trades", "ts_ns price size"),
    ("bars", "open high low close"),
))  # fmt: skip


def detect_format(path: StrPath) -> str:
    """The format of a file or folder, by its content.

    Parameters
    ----------
    path : path

    Returns
    -------
    str
        A name of `FORMATS`.

    Raises
    ------
    DataConversionError
        If the file is missing, empty, damaged, or like none of the formats; its columns are named.
    """
    place = Path(path)
    if place.is_dir():
        if (place / "data").is_dir():
            return "catalog"
        raise DataConversionError(f"`path` must be a file, or a catalog with a folder `data`, was {place}")
    if not place.is_file():
        raise DataConversionError(f"`path` must be a file, was {place}")
    data = head(place)
    if not data.strip():
        raise DataConversionError(f"`path` must not be empty, was {place.name}")
    if data[:3] == b"DBN" or data[:4] == _ZSTD:
        return "databento"
    if data[:4] == PARQUET:
        names = list(parquet_schema(place).names)
        found = _by_names(names)
    elif _CAPTURE.match(data):
        return "binance-capture"
    elif data.lstrip()[:1] in (b"[", b"{"):
        return "polymarket"
    else:
        rows = first_lines(data)
        names = rows[0] if rows else []
        found = _by_names(names) or _by_shape(place, rows)
    if found is None:
        shown = f"it has {', '.join(names[:8])}" + (", ..." if len(names) > 8 else "") if names else "it is no table"
        raise DataConversionError(f"`format` must be given for {place.name}: {shown}, which fits no format that can "
                                  "be told by its content")  # fmt: skip
    return found


def _by_names(names: list[str]) -> str | None:
    lower = {name.strip().lower() for name in names}
    return next((name for name, needed in _BY_NAMES if needed <= lower), None)


def _by_shape(path: Path, rows: list[list[str]]) -> str | None:
    """Formats without a header line, by what stands in the first row."""
    if not rows:
        return None
    row = rows[0]
    if _LOBSTER.match(path.name):
        return "lobster"
    flags = [value.lower() in ("true", "false") for value in row]
    if len(row) in (8, 9) and row[4].lower() in ("a", "b") and row[5].lower() in ("snap", "set"):
        return "binance-t-depth"
    if len(row) in (7, 8) and flags[6] and not flags[5]:
        return "binance-agg-trades"
    if len(row) in (6, 7) and flags[5]:
        return "binance-trades"
    numeric = all(_is_number(value) for value in row)
    if numeric and len(row) == 12:
        return "binance-klines"
    if numeric and len(row) == 7 and row[5].isdigit() and row[6].isdigit() and len(row[5]) >= 13:
        return "binance-book-ticker"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def format_named(name: str) -> Format:
    """A row of the table, or an error that names the nearest."""
    found = FORMATS.get(name)
    if found is None:
        close = difflib.get_close_matches(str(name), FORMATS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(FORMATS)}"
        raise DataConversionError(f"`format` must be one of the formats, was {name!r}{hint}")
    return found


def check_options(entry: Format, options: ReadOptions) -> None:
    """Refuse options that the format would ignore."""
    for name in options.given():
        if name not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise DataConversionError(f"`{name}` must be left out for the format {entry.name}, which knows: {known}")


def read_market(path: StrPath, format: str | None = None, options: ReadOptions | None = None) -> MarketColumns:
    """Read a file of any native format.

    Parameters
    ----------
    path : path
        For LOBSTER either file of the pair.
    format : str, optional
        Name in `FORMATS`; detected otherwise.
    options : ReadOptions, optional

    Returns
    -------
    MarketColumns
        Every row of the file, in its order; notes say what the reader decided.

    Raises
    ------
    DataConversionError
        If the file is not what the format says (field, rule and value are named), holds no row, the option is none of
        the format's, or the format is one that only the Nautilus adapter reads.
    MissingExtraError
        If pyarrow is needed and not installed.
    """
    name = format or detect_format(path)
    entry, options = format_named(name), options or ReadOptions()
    if name in EXTERNAL:
        raise DataConversionError(f"`format` must be one that is read without NautilusTrader, was {name!r}: use "
                                  "tengri_fast.nautilus.sources.read_source")  # fmt: skip
    check_options(entry, options)
    place = Path(path)
    if not place.is_file():
        raise DataConversionError(f"`path` must be a file, was {place}")
    module, _, function = entry.reader.partition(":")
    read: Callable[[Path, ReadOptions], MarketColumns]
    read = getattr(importlib.import_module(f"tengri_fast.market.{module}"), function)
    made = read(place, options)
    if not len(made):
        raise DataConversionError(f"`path` must hold at least one row, {place.name} holds none")
    return replace(made, source=place.name)
