"""Columns of market data to NautilusTrader objects.

Values are carried over exactly: a price of the file becomes the fixed-point number with the same decimal digits, and a
value that does not fit the instrument's precision is an error, never a silent rounding. Reading the objects back
gives ``Price.as_double()``; columns read by :func:`tengri_fast.market.read_quotes` and its siblings already hold those
doubles, so research on files and a live run agree to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from nautilus_trader.core.data import Data
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
from nautilus_trader.model.enums import BookAction, OrderSide
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.model.objects import Price, Quantity

from tengri_fast.errors import DataConversionError
from tengri_fast.market import BarColumns, DeltaColumns, DepthColumns, QuoteColumns, TradeColumns
from tengri_fast.nautilus.instruments import instrument_from_contract

__all__ = [
    "MarketData",
    "bars_to_objects",
    "delta_batches",
    "deltas_to_objects",
    "depth_to_objects",
    "instrument_from_contract",
    "quotes_to_objects",
    "trades_to_objects",
]

_DEPTH_LIMIT = 10  # OrderBookDepth10 holds no more
_LAST = 128  # the flag "last" of a book change
_GRID_TOLERANCE = 1e-4  # of one unit in the last digit: far above double rounding, far below a real half digit


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


def bars_to_objects(columns: BarColumns, instrument: Instrument, bar_type: BarType | str) -> list[Bar]:
    """Bar columns as a list of ``Bar``, in the order of the columns.

    Parameters
    ----------
    columns : BarColumns
        Arrays of shape [n].
    instrument : Instrument
        Gives the decimal precision of prices and volumes.
    bar_type : BarType or str
        Such as "BTCUSDT-PERP.BINANCE-1-MINUTE-LAST-EXTERNAL"; of the same instrument.

    Raises
    ------
    DataConversionError
        The bar type is another instrument's, a value is NaN, infinite, a negative volume, has more decimals than the
        instrument, a high lies below or a low above another price of its bar, or time goes backwards.
    """
    kind = bar_type if isinstance(bar_type, BarType) else _bar_type(bar_type)
    if kind.instrument_id != instrument.id:
        raise DataConversionError(f"`bar_type` must be one of {instrument.id}, was {kind}")
    _check_times("bars", columns.ts_event, columns.ts_init)
    for name in ("open", "high", "low", "close"):
        _check_grid(f"bars.{name}", getattr(columns, name), instrument.price_precision, non_negative=False)
    _check_grid("bars.volume", columns.volume, instrument.size_precision, non_negative=True)
    top = np.maximum(np.maximum(columns.open, columns.close), columns.low)
    bottom = np.minimum(np.minimum(columns.open, columns.close), columns.high)
    wrong = (columns.high < top) | (columns.low > bottom)
    if wrong.any():
        row = int(np.argmax(wrong))
        shown = ", ".join(f"{name} {float(getattr(columns, name)[row])!r}" for name in ("open", "high", "low", "close"))
        raise DataConversionError(f"`bars` must have low <= open, close <= high, row {row} was {shown}")
    result: list[Bar] = Bar.from_raw_arrays_to_list(
        kind,
        instrument.price_precision,
        instrument.size_precision,
        *(_writable(getattr(columns, name), np.float64) for name in ("open", "high", "low", "close", "volume")),
        _writable(columns.ts_event, np.uint64),
        _writable(columns.ts_init, np.uint64),
    )
    return result


def _bar_type(text: str) -> BarType:
    try:
        return BarType.from_str(text)
    except (TypeError, ValueError) as error:
        raise DataConversionError(
            f"`bar_type` must look like 'BTCUSDT-PERP.BINANCE-1-MINUTE-LAST-EXTERNAL', was {text!r}"
        ) from error


def delta_batches(columns: DeltaColumns) -> npt.NDArray[np.int64]:
    """Where each event of a stream of book changes ends: int64 [batches], one past its last row, ascending.

    A change with the flag "last" (128) ends an event. In a stream that never sets it, changes with the same two times
    are one event. What follows the last flag of a stream is an event of its own.
    """
    count = len(columns)
    if not count:
        return np.empty(0, np.int64)
    last = (columns.flags & _LAST) != 0
    if not last.any():
        last = np.zeros(count, np.bool_)
        last[:-1] = (columns.ts_event[1:] != columns.ts_event[:-1]) | (columns.ts_init[1:] != columns.ts_init[:-1])
    last[-1] = True
    return np.flatnonzero(last).astype(np.int64) + 1


def deltas_to_objects(columns: DeltaColumns, instrument: Instrument) -> list[OrderBookDelta]:
    """Book changes as a list of ``OrderBookDelta``, in the order of the columns.

    Parameters
    ----------
    columns : DeltaColumns
        Arrays of shape [n]. Price, size and side of a clear (action 4) are not looked at.
    instrument : Instrument
        Gives the identifier and the decimal precision of prices and sizes.

    Raises
    ------
    DataConversionError
        An action is none of 1 to 4, a side none of -1, 0, +1, the size of an addition or update is not positive, a
        value is NaN, infinite or off the instrument's grid, or time goes backwards.

    Notes
    -----
    Flags and sequence numbers are carried over. NautilusTrader's book type is the caller's choice: with order ids
    (market by order) it is L3, without them L2.
    """
    _check_times("deltas", columns.ts_event, columns.ts_init)
    action, side = columns.action, columns.side
    for name, values, known in (("action", action, (1, 2, 3, 4)), ("side", side, (-1, 0, 1))):
        wrong = ~np.isin(values, known)
        if wrong.any():
            row = int(np.argmax(wrong))
            listed = ", ".join(map(str, known))
            raise DataConversionError(f"`deltas.{name}` must be one of {listed}, row {row} was {int(values[row])}")
    there = action != BookAction.CLEAR
    _check_grid("deltas.price", np.where(there, columns.price, 0.0), instrument.price_precision, non_negative=False)
    _check_grid("deltas.size", np.where(there, columns.size, 0.0), instrument.size_precision, non_negative=True)
    empty = ((action == BookAction.ADD) | (action == BookAction.UPDATE)) & ~(columns.size > 0)
    if empty.any():
        row = int(np.argmax(empty))
        raise DataConversionError(
            f"`deltas.size` of an addition or update must be > 0, row {row} was {float(columns.size[row])!r}"
        )
    price_of, size_of = _makers(instrument)
    sides = {1: OrderSide.BUY, -1: OrderSide.SELL, 0: OrderSide.NO_ORDER_SIDE}
    result = []
    rows = zip(
        *(
            getattr(columns, name).tolist()
            for name in ("action", "side", "price", "size", "order_id", "flags", "sequence", "ts_event", "ts_init")
        ),
        strict=True,
    )
    clear = int(BookAction.CLEAR)
    # Of the same precision: the catalog takes no others.
    null = BookOrder(OrderSide.NO_ORDER_SIDE, price_of(0.0), size_of(0.0), 0)
    for what, sign, price, size, order_id, flags, sequence, ts_event, ts_init in rows:
        order = null if what == clear else BookOrder(sides[sign], price_of(price), size_of(size), order_id)
        result.append(OrderBookDelta(instrument.id, BookAction(what), order, flags, sequence, ts_event, ts_init))
    return result


def _makers(instrument: Instrument) -> tuple[Callable[[float], Price], Callable[[float], Quantity]]:
    """Price and quantity of a number, each made once: a book has few different ones."""
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

    return price_of, size_of


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

    price_of, size_of = _makers(instrument)
    # Of the same precision: the catalog takes no others.
    null = BookOrder(OrderSide.NO_ORDER_SIDE, price_of(0.0), size_of(0.0), 0)
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

    At equal ``ts_init`` trades come before quotes, then depth, book changes and bars: a trade is what changed the book
    that the quote shows, and a bar is known when all that it is made of is.

    Parameters
    ----------
    instrument : Instrument
        The instrument of all columns.
    quotes, trades, depth, bars, deltas : columns, optional
        At least one must be given. Book changes are handed out as one ``OrderBookDeltas`` per event, see
        :func:`delta_batches`.
    bar_type : BarType or str, optional
        What the bars are; needed when there are any.
    """

    def __init__(
        self,
        instrument: Instrument,
        quotes: QuoteColumns | None = None,
        trades: TradeColumns | None = None,
        depth: DepthColumns | None = None,
        bars: BarColumns | None = None,
        deltas: DeltaColumns | None = None,
        *,
        bar_type: BarType | str | None = None,
    ) -> None:
        # The order of this table is the order at equal times.
        streams: dict[str, Any] = {"trades": trades, "quotes": quotes, "depth": depth, "deltas": deltas, "bars": bars}
        if all(columns is None for columns in streams.values()):
            raise DataConversionError("`quotes`, `trades`, `depth`, `bars` or `deltas` must be given, all were None")
        if bars is not None and bar_type is None:
            raise DataConversionError("`bar_type` must be given when `bars` are, was None")
        self.instrument = instrument
        self.quotes = quotes
        self.trades = trades
        self.depth = depth
        self.bars = bars
        self.deltas = deltas
        self.bar_type = _bar_type(bar_type) if isinstance(bar_type, str) else bar_type
        self._sources = [(name, columns) for name, columns in streams.items() if columns is not None]
        for name, columns in self._sources:
            _check_times(name, columns.ts_event, columns.ts_init)
        # An event of book changes is several rows: where each event ends.
        self._ends = np.empty(0, np.int64) if deltas is None else delta_batches(deltas)
        times = [
            columns.ts_init if name != "deltas" else columns.ts_init[self._ends - 1] for name, columns in self._sources
        ]
        merged = np.concatenate(times)
        source = np.repeat(np.arange(len(times)), [len(t) for t in times])
        order = np.argsort(merged, kind="stable")
        if not merged.size:
            names = ", ".join(f"`{name}`" for name, _ in self._sources)
            raise DataConversionError(f"{names} must hold at least one event, held none")
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
            for number, (name, _columns) in enumerate(self._sources):
                places = np.flatnonzero(pick == number)
                if not places.size:
                    continue
                first = taken[number]
                taken[number] = first + len(places)
                for place, item in zip(places.tolist(), self._convert(name, first, taken[number]), strict=True):
                    objects[place] = item
            yield objects

    def objects(self) -> list[Data]:
        """All events in one list."""
        return [item for chunk in self.chunks(1_000_000) for item in chunk]

    def _convert(self, name: str, first: int, end: int) -> list[Data]:
        """Events `first` to `end` of one stream."""
        instrument = self.instrument
        if name == "deltas":
            return self._delta_events(first, end)
        part = getattr(self, name)[first:end]
        if name == "quotes":
            return quotes_to_objects(part, instrument)
        if name == "trades":
            return trades_to_objects(part, instrument, first_id=first + 1)
        if name == "bars":
            assert self.bar_type is not None  # asked for in the constructor
            return bars_to_objects(part, instrument, self.bar_type)
        return depth_to_objects(part, instrument)

    def _delta_events(self, first: int, end: int) -> list[Data]:
        assert self.deltas is not None
        begin = int(self._ends[first - 1]) if first else 0
        ends = (self._ends[first:end] - begin).tolist()
        changes = deltas_to_objects(self.deltas[begin : begin + ends[-1]], self.instrument)
        starts = [0, *ends[:-1]]
        return [
            OrderBookDeltas(self.instrument.id, changes[start:stop]) for start, stop in zip(starts, ends, strict=True)
        ]
