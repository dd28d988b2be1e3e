import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from tengri_fast.risk.scenarios import ScenarioSet

class RollingScenarios:
    instrument_ids: tuple[str, ...]
    horizon_ns: int
    step_ns: int
    max_gap_ns: int
    refresh_ns: int
    window: int
    max_scenarios: int
    min_scenarios: int
    scenarios: ScenarioSet | None
    backward: int
    invalid: int
    def __init__(
        self,
        instrument_ids: Sequence[str],
        *,
        horizon_ns: int,
        step_ns: int = ...,
        max_gap_ns: int = ...,
        max_scenarios: int = ...,
        min_scenarios: int = ...,
        window: int | None = ...,
        refresh_ns: int = ...,
    ) -> None: ...
    def __reduce__(self) -> NoReturn: ...
    def row(self, instrument_id: str) -> int: ...
    def on_mid(self, row: int, mid: float, ts: int) -> None: ...
    def on_quote(self, instrument_id: str, bid: float, ask: float, ts: int) -> None: ...
    def warm(self, series: Mapping[str, Any]) -> None: ...
    def reset(self) -> None: ...
    @property
    def ready(self) -> bool: ...
    @property
    def head_ns(self) -> int: ...
    def build(self) -> ScenarioSet | None: ...
    def poll(self, now_ns: int) -> ScenarioSet | None: ...
    def to_file(self, path: str | os.PathLike[str]) -> None: ...
    def restore(self, path: str | os.PathLike[str]) -> None: ...
