from typing import NoReturn

import numpy as np
import numpy.typing as npt

from tengri_fast.runtime.latency import LatencyHistogram
from tengri_fast.runtime.model_spec import ModelBundle
from tengri_fast.runtime.signal import NeuralSignal as NeuralSignal

class TengriNeuralEngine:
    capacity: int
    count: int
    signal: NeuralSignal
    latency: LatencyHistogram
    bundle: ModelBundle
    stamp: bool
    def __init__(self, bundle: ModelBundle, capacity: int = 16) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    def add_instrument(self, instrument_id: str, warm_up_ns: int = 0) -> int: ...
    def slot(self, instrument_id: str) -> int: ...
    def instrument(self, slot: int) -> str: ...
    def reset(self) -> None: ...
    def process_quote(
        self,
        slot: int,
        bid_price: float,
        ask_price: float,
        bid_size: float,
        ask_size: float,
        ts_event: int,
        emit: bool = True,
    ) -> NeuralSignal | None: ...
    def process_trade(
        self, slot: int, price: float, size: float, aggressor: int, ts_event: int, emit: bool = True
    ) -> NeuralSignal | None: ...
    def process_bar(
        self,
        slot: int,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        ts_event: int,
        emit: bool = True,
    ) -> NeuralSignal | None: ...
    def process_depth(
        self,
        slot: int,
        bid_price: npt.NDArray[np.float64],
        bid_size: npt.NDArray[np.float64],
        ask_price: npt.NDArray[np.float64],
        ask_size: npt.NDArray[np.float64],
        ts_event: int,
        emit: bool = True,
    ) -> NeuralSignal | None: ...
    def feature_row(self, slot: int) -> npt.NDArray[np.float64]: ...
    def counters(self, slot: int) -> dict[str, int]: ...
    @property
    def nbytes(self) -> int: ...
    def to_bytes(self) -> bytes: ...
    def from_bytes(self, data: bytes) -> None: ...

def clock_overhead_ns(rounds: int = 10_000) -> int: ...
