"""Small Databento files, written by hand from the published layout of the encoding (version 2), for the loaders' tests.

Times are UTC nanoseconds, prices integers in units of 1e-9; a price that is not there is the largest 64-bit integer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

SYMBOL_BYTES = 71
NO_PRICE = 2**63 - 1
SCHEMAS = {"mbo": 0, "mbp-1": 1, "mbp-10": 2, "tbbo": 3, "trades": 4, "ohlcv-1s": 5, "ohlcv-1m": 6, "definition": 9}
GLBX = 1  # publisher 1 is GLBX.MDP3


def _text(value: str, width: int) -> bytes:
    return value.encode().ljust(width, b"\0")


def dbn_file(path: Path, schema: str, records: Iterable[bytes], symbols: dict[int, str], start: int) -> Path:
    """Write an uncompressed file; `symbols` maps instrument numbers to raw symbols."""
    body = _text("GLBX.MDP3", 16)
    body += struct.pack("<HQQQBBBH", SCHEMAS[schema], start, start + 86_400_000_000_000, 0, 1, 0, 0, SYMBOL_BYTES)
    body += bytes(53) + struct.pack("<I", 0)
    body += struct.pack("<I", len(symbols)) + b"".join(_text(name, SYMBOL_BYTES) for name in symbols.values())
    body += struct.pack("<II", 0, 0) + struct.pack("<I", len(symbols))
    for number, name in symbols.items():
        body += _text(name, SYMBOL_BYTES) + struct.pack("<III", 1, 20_200_101, 20_300_101)
        body += _text(str(number), SYMBOL_BYTES)
    path.write_bytes(b"DBN\x02" + struct.pack("<I", len(body)) + body + b"".join(records))
    return path


def _head(size: int, kind: int, instrument: int, ts_event: int) -> bytes:
    return struct.pack("<BBHIQ", size // 4, kind, GLBX, instrument, ts_event)


def _event(price: int, size: int, action: str, side: str, flags: int, ts_recv: int, sequence: int) -> bytes:
    return struct.pack("<qIccBBQiI", price, size, action.encode(), side.encode(), flags, 0, ts_recv, 0, sequence)


def trade_record(instrument: int, ts: int, price: int, size: int, side: str, sequence: int = 1) -> bytes:
    """A trade; side "A" is a selling, "B" a buying aggressor."""
    return _head(48, 0, instrument, ts) + _event(price, size, "T", side, 0, ts + 1000, sequence)


def book_record(
    instrument: int,
    ts: int,
    levels: list[tuple[int, int, int, int]],
    action: str = "A",
    trade: tuple[int, int, str] = (0, 0, "N"),
    sequence: int = 1,
) -> bytes:
    """Market by price with one or ten levels of (bid price, ask price, bid size, ask size)."""
    kind = {1: 1, 10: 10}[len(levels)]
    rows = b"".join(struct.pack("<qqIIII", *level, 1, 1) for level in levels)
    price, size, side = trade
    head = _head(48 + len(rows), kind, instrument, ts)
    return head + _event(price, size, action, side, 128, ts + 1000, sequence) + rows


def bar_record(instrument: int, ts: int, prices: tuple[int, int, int, int], volume: int, kind: int = 0x21) -> bytes:
    """Open, high, low, close and volume of a minute (kind 0x21) or a second (0x20) that opened at `ts`."""
    return _head(56, kind, instrument, ts) + struct.pack("<qqqqQ", *prices, volume)


def definition_record(instrument: int, ts: int, symbol: str, asset: str, tick: int, unit_quantity: int) -> bytes:
    """A future of CME: tick and contract unit in units of 1e-9."""
    none = NO_PRICE
    body = struct.pack(
        "<QqqQQqqqqqqqq",
        ts,
        tick,
        1_000_000_000,
        ts + 10**16,
        ts - 10**16,
        *(none, none, none, none, unit_quantity, none, none, none),
    )
    unset = 2**31 - 1
    body += struct.pack(
        "<iIIiiIIiiiIiii", unset, 0, instrument, unset, unset, 0, unset, *([unset] * 3), 1, *([unset] * 3)
    )
    body += struct.pack("<HhHHH", *([2**15 - 1] * 5))
    body += _text("USD", 4) + _text("USD", 4) + bytes(6) + _text(symbol, SYMBOL_BYTES)
    body += _text(asset, 21) + _text("XCME", 5) + _text(asset, 7) + _text("FFIXSX", 7) + _text("FUT", 7)
    body += _text("IPNT", 31) + _text(asset, 21) + bytes(4)
    body += b"FF" + bytes([0] * 6) + b"A" + bytes([3, 15, 0]) + b"N" + bytes(3) + bytes(10)
    return _head(16 + len(body), 0x13, instrument, ts) + body
