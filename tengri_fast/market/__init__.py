"""Market data: event structs, columns, the zero-copy reader, instrument slots and instrument facts."""

from __future__ import annotations

from tengri_fast.market.columns import (
    BarColumns,
    DeltaColumns,
    DepthColumns,
    MergeOrder,
    QuoteColumns,
    TradeColumns,
    merge_order,
)
from tengri_fast.market.contracts import InstrumentContract, contract, contract_names
from tengri_fast.market.files import read_depth, read_quotes, read_trades
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
from tengri_fast.market.slots import InstrumentSlots

__all__ = [
    "BarColumns",
    "DeltaColumns",
    "DepthColumns",
    "InstrumentContract",
    "InstrumentSlots",
    "MergeOrder",
    "QuoteColumns",
    "QuoteView",
    "TickReader",
    "TradeColumns",
    "TradeView",
    "bars_from_objects",
    "contract",
    "contract_names",
    "depth_from_objects",
    "merge_order",
    "quotes_from_objects",
    "read_depth",
    "read_quotes",
    "read_trades",
    "reader",
    "trades_from_objects",
]
