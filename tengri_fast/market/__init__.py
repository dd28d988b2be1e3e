"""Market data: event structs, columns, the zero-copy reader, instrument slots and instrument facts."""

from __future__ import annotations

from tengri_fast.market.alignment import ClockOffset, clock_offset, shift_clock
from tengri_fast.market.binance_book import binance_book_deltas
from tengri_fast.market.book import BookCounters, BookLevel, OrderBookL2
from tengri_fast.market.columns import (
    BarColumns,
    DeltaColumns,
    DepthColumns,
    ExternalColumns,
    MarketColumns,
    MergeOrder,
    QuoteColumns,
    TradeColumns,
    merge_order,
)
from tengri_fast.market.contracts import InstrumentContract, contract, contract_names
from tengri_fast.market.describe import DataReport, DescribeOptions, describe
from tengri_fast.market.files import read_bars, read_depth, read_quotes, read_trades
from tengri_fast.market.formats import FORMATS, detect_format, read_market
from tengri_fast.market.provenance import provenance, write_market
from tengri_fast.market.read_options import ReadOptions
from tengri_fast.market.reader import (
    QuoteView,
    TickReader,
    TradeView,
    bars_from_objects,
    depth_from_objects,
    quotes_from_objects,
    reader,
    trades_from_objects,
)
from tengri_fast.market.rebuild import with_depth
from tengri_fast.market.repair import RepairLog, RepairOptions, merge_columns, repair, require_usable
from tengri_fast.market.slots import InstrumentSlots

__all__ = [
    "FORMATS",
    "BarColumns",
    "BookCounters",
    "BookLevel",
    "ClockOffset",
    "DataReport",
    "DeltaColumns",
    "DepthColumns",
    "DescribeOptions",
    "ExternalColumns",
    "InstrumentContract",
    "InstrumentSlots",
    "MarketColumns",
    "MergeOrder",
    "OrderBookL2",
    "QuoteColumns",
    "QuoteView",
    "ReadOptions",
    "RepairLog",
    "RepairOptions",
    "TickReader",
    "TradeColumns",
    "TradeView",
    "bars_from_objects",
    "binance_book_deltas",
    "clock_offset",
    "contract",
    "contract_names",
    "depth_from_objects",
    "describe",
    "detect_format",
    "merge_columns",
    "merge_order",
    "provenance",
    "quotes_from_objects",
    "read_bars",
    "read_depth",
    "read_market",
    "read_quotes",
    "read_trades",
    "reader",
    "repair",
    "require_usable",
    "shift_clock",
    "trades_from_objects",
    "with_depth",
    "write_market",
]
