from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from tengri_fast.features.spec import FeatureSpec, Lookback
from tengri_fast.market.columns import BarColumns, DepthColumns, ExternalColumns, QuoteColumns, TradeColumns

class Normalisation(NamedTuple):
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    clip: npt.NDArray[np.float64]

class FeatureCounters(NamedTuple):
    accepted: int
    crossed: int
    backward: int
    invalid: int
    overflow: int

class FeatureRows(NamedTuple):
    ts: npt.NDArray[np.uint64]
    values: npt.NDArray[np.float64]
    ready: npt.NDArray[np.bool_]
    mid: npt.NDArray[np.float64]
    origin: npt.NDArray[np.int64]
    ready_from: npt.NDArray[np.int64]
    counters: FeatureCounters

class FeaturePlan:
    specs: tuple[FeatureSpec, ...]
    names: tuple[str, ...]
    legs: tuple[str, ...]
    sources: tuple[str, ...]
    hash: str
    lookback: Lookback
    normalisation: Normalisation
    nbytes: int
    def __init__(
        self,
        specs: Sequence[FeatureSpec | str] | FeatureSpec | str,
        normalisation: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike | None] | None = None,
    ) -> None: ...
    @property
    def width(self) -> int: ...
    def __len__(self) -> int: ...
    def __reduce__(self) -> NoReturn: ...
    def with_normalisation(
        self, mean: npt.ArrayLike, scale: npt.ArrayLike, clip: npt.ArrayLike | None = None
    ) -> FeaturePlan: ...
    def state(self) -> FeatureState: ...
    def explain(self) -> str: ...
    def normalise(self, values: npt.ArrayLike) -> npt.NDArray[np.float32]: ...
    def compute(
        self,
        quotes: QuoteColumns | None = None,
        trades: TradeColumns | None = None,
        depth: DepthColumns | None = None,
        clock: str = "quote",
        *,
        bars: BarColumns | None = None,
        legs: Mapping[str, QuoteColumns] | None = None,
        external: Mapping[str, ExternalColumns] | None = None,
        state: FeatureState | None = None,
    ) -> FeatureRows: ...

class FeatureState:
    plan: FeaturePlan
    def __init__(self, plan: FeaturePlan) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    def update_quote(
        self, bid_price: float, ask_price: float, bid_size: float, ask_size: float, ts_event: int
    ) -> bool: ...
    def update_trade(self, price: float, size: float, aggressor: int, ts_event: int) -> bool: ...
    def update_bar(self, open: float, high: float, low: float, close: float, volume: float, ts_event: int) -> bool: ...
    def update_depth(
        self,
        bid_price: npt.ArrayLike,
        bid_size: npt.ArrayLike,
        ask_price: npt.ArrayLike,
        ask_size: npt.ArrayLike,
        ts_event: int,
    ) -> bool: ...
    def update_leg(self, name: str, bid_price: float, ask_price: float, ts_event: int) -> bool: ...
    def update_external(self, name: str, values: Sequence[float], ts_event: int) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def ready_columns(self) -> npt.NDArray[np.bool_]: ...
    @property
    def mid(self) -> float: ...
    @property
    def spread(self) -> float: ...
    @property
    def counters(self) -> FeatureCounters: ...
    def row(self) -> npt.NDArray[np.float64]: ...
    def emit(self, out: npt.NDArray[np.float32]) -> bool: ...
    def reset(self) -> None: ...
    def copy(self) -> FeatureState: ...
    def to_bytes(self) -> bytes: ...
    def from_bytes(self, data: bytes | bytearray | memoryview) -> None: ...
