import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

class AuditLog:
    path: str
    sync: str
    failure: str | None

    def __init__(
        self,
        path: str | os.PathLike[str],
        sync: Literal["order", "100ms", "none"] = "100ms",
        previous: str | None = None,
    ) -> None: ...
    def decide(
        self,
        ts: int,
        allowed: bool,
        *,
        order: str,
        strategy: str = "",
        instrument: str = "",
        account: str = "",
        side: int = 1,
        quantity: float = ...,
        price: float = ...,
        trigger: float = ...,
        order_type: str = "MARKET",
        action: str = "submit",
        reducing: bool = False,
        reason: str = "",
    ) -> None: ...
    def note(self, ts: int, name: str, facts: Mapping[str, Any] | None = None) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> AuditLog: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def removed(self) -> int: ...
    @property
    def head(self) -> str: ...
