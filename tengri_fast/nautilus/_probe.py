"""Shows the zero-copy reader a few Nautilus objects with known values, so that it can find and verify their layouts.

Object layouts are no promise of NautilusTrader or of PyO3. The reader searches for every field, reads everything back
and compares; what does not fit is read through attributes. `install_layouts` runs when `tengri_fast.nautilus` is
imported.
"""

from __future__ import annotations

from typing import Any

import nautilus_trader
from nautilus_trader.model import data as nautilus_data
from nautilus_trader.model.data import (
    Bar,
    BarType,
    BookOrder,
    OrderBookDelta,
    OrderBookDeltas,
    OrderBookDepth10,
    QuoteTick,
    TradeTick,
)
from nautilus_trader.model.enums import AggressorSide, BookAction, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, TradeId
from nautilus_trader.model.objects import Price, Quantity

from tengri_fast.market import reader

__all__ = ["install_layouts"]

# The functions behind OrderBookDeltas are called by name, so their signatures must be known: only these were checked.
DELTAS_CHECKED = frozenset({"1.231.0"})

# Two ids that share nothing, and for the third sentinel the first again.
_IDS = ("TENGRI-PROBE-ALPHA.SENTINELA", "OMEGA.PROBEVENUE", "TENGRI-PROBE-ALPHA.SENTINELA")
_TIMES = (
    (1_690_000_000_123_456_789, 1_690_000_000_987_654_321),
    (1_700_000_001_111_111_117, 1_700_000_002_222_222_229),
    (1_710_000_003_333_333_331, 1_710_000_004_444_444_449),
)
_AGGRESSORS = ((AggressorSide.BUYER, 1), (AggressorSide.SELLER, -1), (AggressorSide.NO_AGGRESSOR, 0))


def _price(sentinel: int, field: int) -> Price:
    """Every sentinel and field has a value of its own; the second sentinel is negative and of high precision."""
    if sentinel == 1:
        return Price.from_str(f"-{3_131 + 97 * field}.{10_203_040 + 7 * field}")
    return Price.from_str(f"{67_123 + 1_009 * sentinel + 13 * field}.{41 + field}")


def _size(sentinel: int, field: int) -> Quantity:
    return Quantity.from_str(f"{17 + 101 * sentinel + 3 * field}.{500 + field + 31 * sentinel}")


def _common(sentinel: int) -> dict[str, Any]:
    ts_event, ts_init = _TIMES[sentinel]
    return {"ts_event": ts_event, "ts_init": ts_init, "instrument_id": _IDS[sentinel]}


def _quotes() -> tuple[list[object], list[dict[str, Any]]]:
    objects, expected = [], []
    for k in range(3):
        bid, ask, bid_size, ask_size = _price(k, 0), _price(k, 1), _size(k, 2), _size(k, 3)
        objects.append(QuoteTick(InstrumentId.from_str(_IDS[k]), bid, ask, bid_size, ask_size, *_TIMES[k]))
        expected.append({**_common(k), "bid_price": bid.as_double(), "ask_price": ask.as_double(),
                         "bid_size": bid_size.as_double(), "ask_size": ask_size.as_double()})  # fmt: skip
    return objects, expected


def _trades() -> tuple[list[object], list[dict[str, Any]]]:
    objects, expected = [], []
    for k, (side, sign) in enumerate(_AGGRESSORS):
        price, size = _price(k, 0), _size(k, 1)
        trade_id = TradeId(("PROBE-000000000000000000000000000001", "T2", "PROBE-3")[k])
        objects.append(TradeTick(InstrumentId.from_str(_IDS[k]), price, size, side, trade_id, *_TIMES[k]))
        expected.append({**_common(k), "price": price.as_double(), "size": size.as_double(), "aggressor": sign,
                         "aggressor_code": int(side)})  # fmt: skip
    return objects, expected


def _bars() -> tuple[list[object], list[dict[str, Any]]]:
    """The third bar is of a composite type: its instrument id must lie at the same place."""
    objects, expected = [], []
    for k, text in enumerate(
        ("{}-15-SECOND-MID-EXTERNAL", "{}-1000-TICK-LAST-INTERNAL", "{}-5-MINUTE-LAST-INTERNAL@1-MINUTE-EXTERNAL")
    ):
        prices = sorted((_price(k, field) for field in range(4)), key=float)
        low, opened, close, high = prices
        volume = _size(k, 4)
        bar_type = BarType.from_str(text.format(_IDS[k]))
        objects.append(Bar(bar_type, opened, high, low, close, volume, *_TIMES[k]))
        expected.append({**_common(k), "open": opened.as_double(), "high": high.as_double(), "low": low.as_double(),
                         "close": close.as_double(), "volume": volume.as_double()})  # fmt: skip
    return objects, expected


def _depths() -> tuple[list[object], list[dict[str, Any]]]:
    objects, expected = [], []
    for k in range(3):
        bid_prices, ask_prices = ([_price(k, first + i) for i in range(10)] for first in (0, 10))
        bid_sizes, ask_sizes = ([_size(k, first + i) for i in range(10)] for first in (20, 30))
        bids = [BookOrder(OrderSide.BUY, p, s, 1 + i)
                for i, (p, s) in enumerate(zip(bid_prices, bid_sizes, strict=True))]  # fmt: skip
        asks = [BookOrder(OrderSide.SELL, p, s, 11 + i)
                for i, (p, s) in enumerate(zip(ask_prices, ask_sizes, strict=True))]  # fmt: skip
        objects.append(OrderBookDepth10(InstrumentId.from_str(_IDS[k]), bids, asks, [3] * 10, [4] * 10, 0, 77 + k,
                                        *_TIMES[k]))  # fmt: skip
        expected.append({
            **_common(k),
            "bid_price": [value.as_double() for value in bid_prices],
            "bid_size": [value.as_double() for value in bid_sizes],
            "ask_price": [value.as_double() for value in ask_prices],
            "ask_size": [value.as_double() for value in ask_sizes],
        })  # fmt: skip
    return objects, expected


def _deltas() -> tuple[object, list[dict[str, Any]]]:
    instrument = InstrumentId.from_str(_IDS[0])
    changes, expected = [], []
    for k, (action, side) in enumerate(
        ((BookAction.ADD, OrderSide.SELL), (BookAction.UPDATE, OrderSide.BUY), (BookAction.DELETE, OrderSide.SELL))
    ):
        price, size = _price(k, 5), _size(k, 6)
        order_id, flags, sequence = 900_001 + 37 * k, (0xA0, 0x51, 0x07)[k], 7_000_000_019 + 53 * k
        changes.append(OrderBookDelta(instrument, action, BookOrder(side, price, size, order_id), flags, sequence,
                                      *_TIMES[k]))  # fmt: skip
        expected.append({"action": int(action), "side": int(side), "price": price.as_double(),
                         "size": size.as_double(), "order_id": order_id, "flags": flags, "sequence": sequence,
                         "ts_event": _TIMES[k][0], "ts_init": _TIMES[k][1]})  # fmt: skip
    return OrderBookDeltas(instrument, changes), expected


def install_layouts() -> dict[str, bool]:
    """Probe every kind of object; which are read in place from now on.

    Returns
    -------
    dict of str to bool
        Reasons for those that are not: ``tengri_fast.market.reader.layout``.
    """
    done = {}
    for kind, cls, build in (
        ("quote", QuoteTick, _quotes),
        ("trade", TradeTick, _trades),
        ("bar", Bar, _bars),
        ("depth", OrderBookDepth10, _depths),
    ):
        objects, expected = build()
        done[kind] = reader.install(kind, cls, objects, expected)
    done["deltas"] = False
    if nautilus_trader.__version__ in DELTAS_CHECKED:
        sentinel, changes = _deltas()
        done["deltas"] = reader.install_deltas(
            nautilus_data.__file__, "orderbook_deltas_vec_deltas", "orderbook_deltas_vec_drop", OrderBookDeltas,
            OrderBookDelta, sentinel, changes,
        )  # fmt: skip
    return done
