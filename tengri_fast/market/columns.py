"""Market events as columns: contiguous arrays, one row per event, and the order in which streams are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from dataclasses import field as dataclass_field
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError

__all__ = [
    "BarColumns",
    "DeltaColumns",
    "DepthColumns",
    "ExternalColumns",
    "MarketColumns",
    "MergeOrder",
    "QuoteColumns",
    "TradeColumns",
    "merge_order",
]

Float = npt.NDArray[np.float64]
Time = npt.NDArray[np.uint64]
DEPTH_LEVELS = 10
EXTERNAL_VALUES = 4


def _contiguous(kind: str, name: str, value: Any, dtype: type, dimensions: int) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.ndim != dimensions:
        raise DataConversionError(f"`{name}` of {kind} must have {dimensions} dimension(s), had {array.ndim}")
    if array.dtype != dtype:
        if array.dtype.kind not in "fiub":
            raise DataConversionError(f"`{name}` of {kind} must hold numbers, had type {array.dtype}")
        if array.size and np.dtype(dtype).kind in "iu":
            if array.dtype.kind == "f" or int(array.min()) < np.iinfo(dtype).min:
                raise DataConversionError(f"`{name}` of {kind} must hold whole numbers of at least "
                                          f"{np.iinfo(dtype).min}, had type {array.dtype} and least "
                                          f"{array.min()}")  # fmt: skip
            if int(array.max()) > np.iinfo(dtype).max:
                raise DataConversionError(
                    f"`{name}` of {kind} must be at most {np.iinfo(dtype).max}, was {array.max()}"
                )
    return np.ascontiguousarray(array, dtype=dtype)


class _Columns:
    """Checks that every column has its type and the same length; arrays that already fit are not copied."""

    _types: ClassVar[dict[str, tuple[type, int]]]
    ts_init: Time

    def __post_init__(self) -> None:
        kind = type(self).__name__
        length: int | None = None
        for field in fields(self):  # type: ignore[arg-type]
            dtype, dimensions = self._types.get(field.name, (np.float64, 1))
            array = _contiguous(kind, field.name, getattr(self, field.name), dtype, dimensions)
            if length is None:
                length = len(array)
            elif len(array) != length:
                raise DataConversionError(f"`{field.name}` of {kind} must have {length} rows, had {len(array)}")
            object.__setattr__(self, field.name, array)

    @classmethod
    def _of(cls, **columns: npt.NDArray[Any]) -> Self:
        """Columns that are known to fit, without the checks."""
        made = object.__new__(cls)
        made.__dict__.update(columns)
        return made

    def __len__(self) -> int:
        return len(self.ts_init)

    def __getitem__(self, rows: slice) -> Self:
        """A slice of rows as views."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})  # type: ignore[arg-type]


_TIMES: dict[str, tuple[type, int]] = {"ts_event": (np.uint64, 1), "ts_init": (np.uint64, 1)}


@dataclass(frozen=True, eq=False)
class QuoteColumns(_Columns):
    """Top-of-book quotes.

    Attributes
    ----------
    ts_event, ts_init : uint64 [n]
        UTC nanoseconds.
    bid_price, ask_price, bid_size, ask_size : float64 [n]
        NaN is kept; the feature engine drops such a quote and counts it.
    """

    ts_event: Time
    ts_init: Time
    bid_price: Float
    ask_price: Float
    bid_size: Float
    ask_size: Float

    _types: ClassVar[dict[str, tuple[type, int]]] = _TIMES


@dataclass(frozen=True, eq=False)
class TradeColumns(_Columns):
    """Trades.

    Attributes
    ----------
    ts_event, ts_init : uint64 [n]
        UTC nanoseconds.
    price, size : float64 [n]
    aggressor : int32 [n]
        +1 buyer, -1 seller, 0 unknown.
    """

    ts_event: Time
    ts_init: Time
    price: Float
    size: Float
    aggressor: npt.NDArray[np.int32]

    _types: ClassVar[dict[str, tuple[type, int]]] = {**_TIMES, "aggressor": (np.int32, 1)}


@dataclass(frozen=True, eq=False)
class BarColumns(_Columns):
    """Bars.

    Attributes
    ----------
    ts_event, ts_init : uint64 [n]
        UTC nanoseconds.
    open, high, low, close, volume : float64 [n]
    """

    ts_event: Time
    ts_init: Time
    open: Float
    high: Float
    low: Float
    close: Float
    volume: Float

    _types: ClassVar[dict[str, tuple[type, int]]] = _TIMES


@dataclass(frozen=True, eq=False)
class DepthColumns(_Columns):
    """Book snapshots, best level first.

    Attributes
    ----------
    ts_event, ts_init : uint64 [n]
        UTC nanoseconds.
    bid_price, ask_price, bid_size, ask_size : float64 [n, levels]
        1 to 10 levels; a level that is not there is 0 in price and size.
    """

    ts_event: Time
    ts_init: Time
    bid_price: Float
    ask_price: Float
    bid_size: Float
    ask_size: Float

    _types: ClassVar[dict[str, tuple[type, int]]] = {
        **_TIMES,
        **dict.fromkeys(("bid_price", "ask_price", "bid_size", "ask_size"), (np.float64, 2)),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bid_price.shape[1] <= DEPTH_LEVELS:
            raise DataConversionError(f"`levels` must be from 1 to {DEPTH_LEVELS}, was {self.bid_price.shape[1]}")
        for name in ("ask_price", "bid_size", "ask_size"):
            if getattr(self, name).shape != self.bid_price.shape:
                raise DataConversionError(f"`{name}` of DepthColumns must have shape {self.bid_price.shape}, "
                                          f"had {getattr(self, name).shape}")  # fmt: skip

    @property
    def levels(self) -> int:
        """Levels per side."""
        return int(self.bid_price.shape[1])


@dataclass(frozen=True, eq=False)
class DeltaColumns(_Columns):
    """Changes of an order book.

    Attributes
    ----------
    action : uint8 [n]
        1 add, 2 update, 3 delete, 4 clear.
    side : int8 [n]
        +1 buy, -1 sell, 0 none.
    price, size : float64 [n]
    order_id, sequence : uint64 [n]
    flags : uint8 [n]
    ts_event, ts_init : uint64 [n]
    """

    action: npt.NDArray[np.uint8]
    side: npt.NDArray[np.int8]
    price: Float
    size: Float
    order_id: npt.NDArray[np.uint64]
    flags: npt.NDArray[np.uint8]
    sequence: npt.NDArray[np.uint64]
    ts_event: Time
    ts_init: Time

    _types: ClassVar[dict[str, tuple[type, int]]] = {
        **_TIMES,
        "action": (np.uint8, 1),
        "side": (np.int8, 1),
        "order_id": (np.uint64, 1),
        "flags": (np.uint8, 1),
        "sequence": (np.uint64, 1),
    }


@dataclass(frozen=True, eq=False)
class ExternalColumns(_Columns):
    """Observations from outside the market: odds, headlines, releases.

    Attributes
    ----------
    ts_event, ts_init : uint64 [n]
        UTC nanoseconds of publication and of receipt. A value exists from then on and not before.
    values : float64 [n, 4]
        What the four numbers mean is the source's own business; fewer columns are filled up with NaN. The first is
        finite, the others NaN where there is none.
    """

    ts_event: Time
    ts_init: Time
    values: Float

    _types: ClassVar[dict[str, tuple[type, int]]] = {**_TIMES, "values": (np.float64, 2)}

    def __post_init__(self) -> None:
        super().__post_init__()
        width = self.values.shape[1]
        if not 1 <= width <= EXTERNAL_VALUES:
            raise DataConversionError(
                f"`values` of ExternalColumns must have 1 to {EXTERNAL_VALUES} columns, had {width}"
            )
        if width < EXTERNAL_VALUES:
            filled = np.full((len(self.values), EXTERNAL_VALUES), np.nan)
            filled[:, :width] = self.values
            object.__setattr__(self, "values", filled)


class MergeOrder(NamedTuple):
    """Order of the events of several streams: entry k is row `row[k]` of stream `source[k]`."""

    source: npt.NDArray[np.uint8]
    row: npt.NDArray[np.int64]


def merge_order(*streams: npt.ArrayLike) -> MergeOrder:
    """The order in which the events of several streams are seen: by time, and at equal times by the order given here.

    Parameters
    ----------
    *streams : array_like of uint64
        Times (`ts_init`) of each stream. Give trades first, then quotes, then depth, then bars: that is also the order
        in which they reach NautilusTrader.

    Returns
    -------
    MergeOrder
        Two arrays as long as all streams together. The sort is stable: rows of one stream with equal times keep their
        order, and a stream that runs backward is sorted, as NautilusTrader does with data added to a backtest.
    """
    times = [_contiguous("merge_order", f"streams[{i}]", stream, np.uint64, 1) for i, stream in enumerate(streams)]
    if len(times) > 255:
        raise DataConversionError(f"`streams` must be at most 255, was {len(times)}")
    if not times:
        return MergeOrder(np.empty(0, np.uint8), np.empty(0, np.int64))
    source = np.repeat(np.arange(len(times), dtype=np.uint8), [len(t) for t in times])
    row = np.concatenate([np.arange(len(t), dtype=np.int64) for t in times])
    order = np.argsort(np.concatenate(times), kind="stable")
    return MergeOrder(source[order], row[order])


@dataclass(frozen=True, eq=False)
class MarketColumns:
    """All streams of one instrument that came out of one source.

    Attributes
    ----------
    quotes, trades, depth, bars, deltas : columns, optional
        None: the source has no such stream.
    source : str
        Name of the file (no folder) or of the data set.
    notes : tuple of str
        What the reader had to decide or leave out, one sentence each.
    exchange_times : mapping of str to uint64 [n]
        The exchange's own stamps in UTC nanoseconds by stream name ("quotes", ...), where the source has them beside
        the local time in `ts_event`; 0 where a row has none.
    """

    quotes: QuoteColumns | None = None
    trades: TradeColumns | None = None
    depth: DepthColumns | None = None
    bars: BarColumns | None = None
    deltas: DeltaColumns | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    exchange_times: Mapping[str, Time] = dataclass_field(default_factory=dict)

    STREAMS: ClassVar[tuple[str, ...]] = ("quotes", "trades", "depth", "bars", "deltas")

    def __post_init__(self) -> None:
        streams = self.streams()
        times: dict[str, Time] = {}
        for name, value in self.exchange_times.items():
            if name not in streams:
                raise DataConversionError(f"`exchange_times` must name streams that are there, named {name!r}")
            times[name] = _contiguous("MarketColumns", f"exchange_times[{name!r}]", value, np.uint64, 1)
            if len(times[name]) != len(streams[name]):
                raise DataConversionError(f"`exchange_times[{name!r}]` must have {len(streams[name])} rows, "
                                          f"had {len(times[name])}")  # fmt: skip
        object.__setattr__(self, "exchange_times", times)

    def streams(self) -> dict[str, QuoteColumns | TradeColumns | DepthColumns | BarColumns | DeltaColumns]:
        """The streams that are there, by name, in the order of `STREAMS`."""
        return {name: value for name in self.STREAMS if (value := getattr(self, name)) is not None}

    def __len__(self) -> int:
        return sum(len(value) for value in self.streams().values())
