from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

REASONS: tuple[str, ...]

class Signal(Protocol):
    @property
    def value(self) -> float: ...
    @property
    def probabilities(self) -> tuple[float, float, float]: ...
    @property
    def horizon(self) -> int: ...
    @property
    def horizon_unit(self) -> str: ...

@dataclass(frozen=True)
class SizeExplanation:
    size: float
    bound_by: str
    reason: str
    bounds: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    def text(self) -> str: ...

class SizingPart:
    name: str
    scales: bool
    hard: bool
    def __reduce__(self) -> NoReturn: ...

class VolatilityTarget(SizingPart):
    target: float
    horizon_ns: int
    def __init__(self, target: float = 0.01, horizon: int | str = "1d") -> None: ...

class FractionalKelly(SizingPart):
    fraction: float
    stop: float
    loss_multiple: float
    def __init__(self, fraction: float = 0.25, stop_bps: float | None = None, loss_multiple: float = 1.0) -> None: ...

class VarBudget(SizingPart):
    limit: float
    share: float
    level: float
    quantile: float
    horizon_ns: int
    def __init__(
        self, limit: float = 0.05, share: float = 1.0, level: float = 0.99, horizon: int | str = "1d"
    ) -> None: ...

class DrawdownScale(SizingPart):
    start: float
    stop: float
    middle: float
    linear: bool
    def __init__(
        self, start: float = 0.05, stop: float = 0.20, shape: Literal["linear", "step"] = "linear", middle: float = 0.5
    ) -> None: ...

class Cap(SizingPart):
    quantity: float
    notional: float
    leverage: float
    def __init__(
        self,
        quantity: float | None = None,
        notional: float | None = None,
        leverage: float | None = None,
        *,
        name: str = "cap",
    ) -> None: ...

def default_parts() -> tuple[SizingPart, ...]: ...

class EwmaVariance:
    step_ns: int
    half_life_ns: int
    gap_ns: int
    least: int
    def __init__(
        self, half_life: int | str = "10m", step: int | str = "1s", gap: int | str = "1h", least: int = 30
    ) -> None: ...
    def reset(self) -> None: ...
    def update(self, mid: float, ts: int) -> None: ...
    @property
    def variance_rate(self) -> float: ...
    @property
    def samples(self) -> int: ...
    def over(self, horizon: int | str) -> float: ...
    def __reduce__(self) -> NoReturn: ...

class PositionSizer:
    parts: tuple[SizingPart, ...]
    volatility: EwmaVariance
    lot: float
    min_size: float
    hysteresis: float
    multiplier: float
    inverse: bool
    peak: float
    def __init__(
        self,
        parts: Sequence[SizingPart] | None = None,
        *,
        lot: float = 0.0,
        min_size: float = 0.0,
        hysteresis: float = 0.0,
        multiplier: float = 1.0,
        inverse: bool = False,
        volatility: EwmaVariance | None = None,
    ) -> None: ...
    def reset(self) -> None: ...
    def on_mid(self, mid: float, ts: int) -> None: ...
    def on_equity(self, equity: float) -> None: ...
    def set_unit_var(self, long: float, short: float) -> None: ...
    def size(
        self,
        signal: Signal | Any,
        price: float,
        equity: float,
        *,
        side: int | None = None,
        budget: float | None = None,
        rate: float = 1.0,
        cost_bps: float = 0.0,
        held: float = 0.0,
    ) -> float: ...
    def size_many(
        self,
        values: npt.NDArray[np.float64],
        p_down: npt.NDArray[np.float64],
        p_up: npt.NDArray[np.float64],
        prices: npt.NDArray[np.float64],
        equities: npt.NDArray[np.float64],
        *,
        horizon_ns: float,
        rate: float = 1.0,
        cost_bps: float = 0.0,
    ) -> npt.NDArray[np.float64]: ...
    def explain(self) -> SizeExplanation: ...
    def to_bytes(self) -> bytes: ...
    def from_bytes(self, data: bytes) -> None: ...
    def __reduce__(self) -> NoReturn: ...
