"""Columns of market data to NautilusTrader objects, and rows of the contract table to NautilusTrader instruments.

Values are carried over exactly: a price of the file becomes the fixed-point number with the same decimal digits, and a
value that does not fit the instrument's precision is an error, never a silent rounding. Reading the objects back
gives ``Price.as_double()``; columns read by :func:`tengri_fast.market.read_quotes` and its siblings already hold those
doubles, so research on files and a live run agree to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
from nautilus_trader.core.data import Data
from nautilus_trader.model.data import BookOrder, OrderBookDepth10, QuoteTick, TradeTick
from nautilus_trader.model.enums import AssetClass, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol
from nautilus_trader.model.instruments import CryptoPerpetual, CurrencyPair, Equity, FuturesContract, Instrument
from nautilus_trader.model.objects import Currency, Price, Quantity

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.market import DepthColumns, QuoteColumns, TradeColumns
from tengri_fast.market.contracts import InstrumentContract

__all__ = [
    "MarketData",
    "depth_to_objects",
    "instrument_from_contract",
    "quotes_to_objects",
    "trades_to_objects",
]

_DEPTH_LIMIT = 10  # OrderBookDepth10 holds no more
_GRID_TOLERANCE = 1e-4  # of one unit in the last digit: far above double rounding, far below a real half digit


# The table has no expiry: a future is traded as if it lived on (2100-01-01).
_NEVER_NS = 4_102_444_800_000_000_000

_ASSET_CLASSES = {
    "commodity": AssetClass.COMMODITY,
    "cryptocurrency": AssetClass.CRYPTOCURRENCY,
    "equity": AssetClass.EQUITY,
    "fx": AssetClass.FX,
    "index": AssetClass.INDEX,
}


def instrument_from_contract(contract: InstrumentContract, instrument_id: str | None = None) -> Instrument:
    """A row of the contract table as a NautilusTrader instrument.

    Parameters
    ----------
    contract : InstrumentContract
        Tick, step, multiplier, currency and fees. A fee per contract is no property of a NautilusTrader instrument; the
        backtest's fee model charges it.
    instrument_id : str, optional
        Another name for it, "SYMBOL.VENUE"; by default that of the row.

    Returns
    -------
    Instrument
        ``CryptoPerpetual`` for the kind "perpetual", ``FuturesContract`` for "future" (without an expiry),
        ``CurrencyPair`` for "spot", ``Equity`` for "equity".

    Raises
    ------
    ConfigurationError
        When the kind is unknown, or a value of the row does not fit it.
    """
    name = InstrumentId.from_str(instrument_id or contract.instrument_id)
    currency = Currency.from_str(contract.currency)
    common: dict[str, Any] = {
        "instrument_id": name,
        "raw_symbol": Symbol(name.symbol.value),
        "price_precision": contract.price_precision,
        "price_increment": Price(contract.tick, contract.price_precision),
        "margin_init": Decimal(0),
        "margin_maint": Decimal(0),
        "maker_fee": _rate(contract.maker_bps),
        "taker_fee": _rate(contract.taker_bps),
        "ts_event": 0,
        "ts_init": 0,
    }
    step = Quantity(contract.size_step, contract.size_precision)
    pair: dict[str, Any] = {
        "base_currency": Currency.from_str(contract.base_currency),
        "quote_currency": currency,
        "size_precision": contract.size_precision,
        "size_increment": step,
    }
    multiplier = Quantity.from_str(f"{Decimal(repr(contract.multiplier)).normalize():f}")
    if contract.kind == "perpetual":
        return CryptoPerpetual(
            **common, **pair, settlement_currency=currency, is_inverse=False, multiplier=multiplier, lot_size=step
        )
    if contract.kind == "spot":
        if contract.multiplier != 1.0:
            raise ConfigurationError(f"`multiplier` of the spot instrument {name} must be 1, was {contract.multiplier}")
        return CurrencyPair(**common, **pair, lot_size=step)
    if contract.size_precision != 0:
        raise ConfigurationError(
            f"`size_precision` of {name} must be 0 for the kind {contract.kind!r}, was {contract.size_precision}"
        )
    if contract.kind == "future":
        asset_class = _ASSET_CLASSES.get(contract.asset_class)
        if asset_class is None:
            known = ", ".join(_ASSET_CLASSES)
            raise ConfigurationError(f"`asset_class` of {name} must be one of {known}, was {contract.asset_class!r}")
        return FuturesContract(
            **common,
            asset_class=asset_class,
            currency=currency,
            multiplier=multiplier,
            lot_size=step,
            underlying=name.symbol.value,
            activation_ns=0,
            expiration_ns=_NEVER_NS,
        )
    if contract.kind == "equity":
        if contract.multiplier != 1.0:
            raise ConfigurationError(f"`multiplier` of the share {name} must be 1, was {contract.multiplier}")
        return Equity(**common, currency=currency, lot_size=step)
    raise ConfigurationError(f"`kind` of {name} must be one of perpetual, future, spot, equity, was {contract.kind!r}")


def _rate(basis_points: float) -> Decimal:
    return Decimal(repr(basis_points)) / 10_000


def _check_times(name: str, ts_event: npt.NDArray[np.uint64], ts_init: npt.NDArray[np.uint64]) -> None:
    if len(ts_event) != len(ts_init):
        raise DataConversionError(
            f"`{name}.ts_event` must be as long as `ts_init` ({len(ts_init)}), was {len(ts_event)}"
        )
    if len(ts_init) > 1:
        backward = np.flatnonzero(ts_init[1:] < ts_init[:-1])
        if backward.size:
            row = int(backward[0]) + 1
            raise DataConversionError(
                f"`{name}.ts_init` must not go backwards, row {row} was {int(ts_init[row])} after "
                f"{int(ts_init[row - 1])} ({backward.size} such rows)"
            )


def _check_grid(name: str, values: npt.NDArray[np.float64], precision: int, *, non_negative: bool) -> None:
    """Every value is finite and has no more than `precision` decimals."""
    finite = np.isfinite(values)
    if not finite.all():
        where = np.argwhere(~finite)[0]
        raise DataConversionError(f"`{name}` must be finite, row {int(where[0])} was {values[tuple(where)]}")
    if non_negative and (values < 0).any():
        where = np.argwhere(values < 0)[0]
        raise DataConversionError(f"`{name}` must be >= 0, row {int(where[0])} was {values[tuple(where)]}")
    scaled = values * 10.0**precision
    # One unit in the last place of a large value is allowed for; above 2**53 there are no fractions to check.
    tolerance = np.maximum(_GRID_TOLERANCE, np.spacing(np.abs(scaled)) * 2)
    off = np.abs(scaled - np.rint(scaled)) > tolerance
    if off.any():
        where = np.argwhere(off)[0]
        raise DataConversionError(
            f"`{name}` must have at most {precision} decimals (the instrument's precision), row {int(where[0])} was "
            f"{float(values[tuple(where)])!r}"
        )


def _writable(values: npt.NDArray[Any], dtype: type) -> npt.NDArray[Any]:
    # NautilusTrader takes writable buffers only; columns read from Parquet are read-only.
    array: npt.NDArray[Any] = np.ascontiguousarray(values, dtype=dtype)
    return array if array.flags.writeable else array.copy()


def quotes_to_objects(columns: QuoteColumns, instrument: Instrument) -> list[QuoteTick]:
    """Quote columns as a list of ``QuoteTick``, in the order of the columns.

    Parameters
    ----------
    columns : QuoteColumns
        Arrays of shape [n]; prices and sizes in the instrument's units, times in UTC nanoseconds.
    instrument : Instrument
        Gives the identifier and the decimal precision of prices and sizes.

    Returns
    -------
    list of QuoteTick
        Crossed and locked quotes pass unchanged.

    Raises
    ------
    DataConversionError
        A value is NaN, infinite, a negative size, has more decimals than the instrument, or time goes backwards.
    """
    _check_times("quotes", columns.ts_event, columns.ts_init)
    for name, precision, non_negative in (
        ("bid_price", instrument.price_precision, False),
        ("ask_price", instrument.price_precision, False),
        ("bid_size", instrument.size_precision, True),
        ("ask_size", instrument.size_precision, True),
    ):
        _check_grid(f"quotes.{name}", getattr(columns, name), precision, non_negative=non_negative)
    result: list[QuoteTick] = QuoteTick.from_raw_arrays_to_list(
        instrument.id,
        instrument.price_precision,
        instrument.size_precision,
        _writable(columns.bid_price, np.float64),
        _writable(columns.ask_price, np.float64),
        _writable(columns.bid_size, np.float64),
        _writable(columns.ask_size, np.float64),
        _writable(columns.ts_event, np.uint64),
        _writable(columns.ts_init, np.uint64),
    )
    return result


def trades_to_objects(columns: TradeColumns, instrument: Instrument, first_id: int = 1) -> list[TradeTick]:
    """Trade columns as a list of ``TradeTick``, in the order of the columns.

    Parameters
    ----------
    columns : TradeColumns
        Arrays of shape [n]; `aggressor` is +1 for a buyer, -1 for a seller, 0 for unknown.
    instrument : Instrument
        Gives the identifier and the decimal precision of prices and sizes.
    first_id : int, default 1
        Trade identifiers are counted from here, so that two runs give the same ones.

    Raises
    ------
    DataConversionError
        A value is NaN, infinite, a size that is not positive, has more decimals than the instrument, an aggressor that
        is none of -1, 0, +1, or time goes backwards.
    """
    _check_times("trades", columns.ts_event, columns.ts_init)
    _check_grid("trades.price", columns.price, instrument.price_precision, non_negative=False)
    _check_grid("trades.size", columns.size, instrument.size_precision, non_negative=True)
    if (columns.size == 0).any():
        raise DataConversionError(f"`trades.size` must be > 0, row {int(np.argmax(columns.size == 0))} was 0.0")
    aggressor = np.asarray(columns.aggressor)
    unknown = ~np.isin(aggressor, (-1, 0, 1))
    if unknown.any():
        row = int(np.argmax(unknown))
        raise DataConversionError(f"`trades.aggressor` must be -1, 0 or +1, row {row} was {int(aggressor[row])}")
    sides = np.where(aggressor > 0, 1, np.where(aggressor < 0, 2, 0)).astype(np.uint8)  # BUYER, SELLER, NO_AGGRESSOR
    count = len(columns.price)
    result: list[TradeTick] = TradeTick.from_raw_arrays_to_list(
        instrument.id,
        instrument.price_precision,
        instrument.size_precision,
        _writable(columns.price, np.float64),
        _writable(columns.size, np.float64),
        sides,
        [str(number) for number in range(first_id, first_id + count)],
        _writable(columns.ts_event, np.uint64),
        _writable(columns.ts_init, np.uint64),
    )
    return result


def depth_to_objects(columns: DepthColumns, instrument: Instrument) -> list[OrderBookDepth10]:
    """Depth columns as a list of ``OrderBookDepth10``; levels that are not in the columns stay null orders.

    Parameters
    ----------
    columns : DepthColumns
        Arrays of shape [n, levels], best level first, at most ten levels. A level whose size is 0 or whose price is NaN
        is missing; it and the levels behind it are left out on that side.
    instrument : Instrument
        Gives the identifier and the decimal precision of prices and sizes.

    Raises
    ------
    DataConversionError
        More than ten levels, a present level that is not finite or off the instrument's grid, or time goes backwards.
    """
    _check_times("depth", columns.ts_event, columns.ts_init)
    count, levels = columns.bid_price.shape
    if levels > _DEPTH_LIMIT:
        raise DataConversionError(f"`depth` must have at most {_DEPTH_LIMIT} levels, was {levels}")
    present = {}
    for side in ("bid", "ask"):
        price, size = getattr(columns, f"{side}_price"), getattr(columns, f"{side}_size")
        there = np.logical_and.accumulate(np.isfinite(price) & ~(size == 0), axis=1)
        _check_grid(f"depth.{side}_price", np.where(there, price, 0.0), instrument.price_precision, non_negative=False)
        _check_grid(f"depth.{side}_size", np.where(there, size, 0.0), instrument.size_precision, non_negative=True)
        present[side] = there.sum(axis=1)

    prices: dict[float, Price] = {}
    sizes: dict[float, Quantity] = {}

    def price_of(value: float) -> Price:
        found = prices.get(value)
        if found is None:
            found = prices[value] = Price(value, instrument.price_precision)
        return found

    def size_of(value: float) -> Quantity:
        found = sizes.get(value)
        if found is None:
            found = sizes[value] = Quantity(value, instrument.size_precision)
        return found

    null = BookOrder(OrderSide.NO_ORDER_SIDE, Price(0, 0), Quantity(0, 0), 0)
    bid_price, bid_size = columns.bid_price.tolist(), columns.bid_size.tolist()
    ask_price, ask_size = columns.ask_price.tolist(), columns.ask_size.tolist()
    bid_count, ask_count = present["bid"].tolist(), present["ask"].tolist()
    ts_event, ts_init = columns.ts_event.tolist(), columns.ts_init.tolist()
    buy, sell = OrderSide.BUY, OrderSide.SELL
    result = []
    for row in range(count):
        bids_here, asks_here = bid_count[row], ask_count[row]
        bids = [BookOrder(buy, price_of(bid_price[row][k]), size_of(bid_size[row][k]), 0) for k in range(bids_here)]
        asks = [BookOrder(sell, price_of(ask_price[row][k]), size_of(ask_size[row][k]), 0) for k in range(asks_here)]
        bids += [null] * (_DEPTH_LIMIT - bids_here)
        asks += [null] * (_DEPTH_LIMIT - asks_here)
        result.append(
            OrderBookDepth10(
                instrument_id=instrument.id,
                bids=bids,
                asks=asks,
                bid_counts=[1] * bids_here + [0] * (_DEPTH_LIMIT - bids_here),
                ask_counts=[1] * asks_here + [0] * (_DEPTH_LIMIT - asks_here),
                flags=0,
                sequence=0,
                ts_event=ts_event[row],
                ts_init=ts_init[row],
            )
        )
    return result


class MarketData:
    """Columns of one instrument, merged by ``ts_init`` and handed out as objects in chunks.

    At equal ``ts_init`` trades come before quotes and depth: a trade is what changed the book that the quote shows.

    Parameters
    ----------
    instrument : Instrument
        The instrument of all columns.
    quotes, trades, depth : columns, optional
        At least one must be given.
    """

    def __init__(
        self,
        instrument: Instrument,
        quotes: QuoteColumns | None = None,
        trades: TradeColumns | None = None,
        depth: DepthColumns | None = None,
    ) -> None:
        if quotes is None and trades is None and depth is None:
            raise DataConversionError("`quotes`, `trades` or `depth` must be given, all were None")
        self.instrument = instrument
        self.quotes = quotes
        self.trades = trades
        self.depth = depth
        # The order of this tuple is the order at equal times.
        self._sources = [columns for columns in (trades, quotes, depth) if columns is not None]
        times = [np.asarray(columns.ts_init, dtype=np.uint64) for columns in self._sources]
        for name, columns in (("quotes", quotes), ("trades", trades), ("depth", depth)):
            if columns is not None:
                _check_times(name, columns.ts_event, columns.ts_init)
        merged = np.concatenate(times)
        source = np.repeat(np.arange(len(times)), [len(t) for t in times])
        order = np.argsort(merged, kind="stable")
        if not merged.size:
            raise DataConversionError("`quotes`, `trades` and `depth` must hold at least one event, held none")
        self._source = source[order].astype(np.uint8)
        self._times = merged[order]

    def __len__(self) -> int:
        """Number of events of all kinds."""
        return len(self._source)

    @property
    def start_ns(self) -> int:
        """Time of the first event, UTC nanoseconds."""
        return int(self._times[0])

    @property
    def end_ns(self) -> int:
        """Time of the last event, UTC nanoseconds."""
        return int(self._times[-1])

    def chunks(self, size: int = 20_000) -> Iterator[list[Data]]:
        """The events in order, at most `size` objects at a time.

        Only one chunk of objects is alive unless the caller keeps them. Events with the same time may fall into two
        chunks; their order is the same for every `size`.

        Raises
        ------
        DataConversionError
            `size` is below 1, or as in :func:`quotes_to_objects` and its siblings.
        """
        if size < 1:
            raise DataConversionError(f"`size` must be >= 1, was {size}")
        taken = [0] * len(self._sources)
        for start in range(0, len(self._source), size):
            pick = self._source[start : start + size]
            objects: list[Data] = [None] * len(pick)
            for number, columns in enumerate(self._sources):
                places = np.flatnonzero(pick == number)
                if not places.size:
                    continue
                first = taken[number]
                taken[number] = first + len(places)
                part = columns[first : taken[number]]
                for place, item in zip(places.tolist(), self._convert(part, first), strict=True):
                    objects[place] = item
            yield objects

    def objects(self) -> list[Data]:
        """All events in one list."""
        return [item for chunk in self.chunks(1_000_000) for item in chunk]

    def _convert(self, columns: QuoteColumns | TradeColumns | DepthColumns, first: int) -> list[Data]:
        if isinstance(columns, QuoteColumns):
            return quotes_to_objects(columns, self.instrument)
        if isinstance(columns, TradeColumns):
            return trades_to_objects(columns, self.instrument, first_id=first + 1)
        return depth_to_objects(columns, self.instrument)
