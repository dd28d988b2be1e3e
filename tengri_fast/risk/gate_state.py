"""What of a gate survives a restart."""

from __future__ import annotations

import math

import msgspec

__all__ = ["GateState", "is_scope"]

_SCOPES = ("venue", "bucket", "instrument", "strategy")


def is_scope(text: str) -> bool:
    """Whether a text says what a switch holds for: "portfolio", or "venue:", "bucket:" ... and a name."""
    kind, _, name = text.partition(":")
    return text == "portfolio" or (kind in _SCOPES and bool(name))


class GateState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Day and peak of the account, switches, refusals in a row and halts.

    Parameters
    ----------
    version : int
        Of this form.
    equity, day_start, peak : float, optional
        Last equity, that at the begin of the trading day, and the highest since arming; None when not known.
    day : int
        Trading day, days since 1970; -1 before the first.
    ts : int
        Time of the last equity, UTC ns.
    kills : dict of str to (reason, scope)
        Switches that are on.
    rejects : dict of str to int
        Refusals by the venue in a row, by strategy.
    halts : dict of str to str
        Instruments that are halted, and why.
    """

    version: int = 1
    equity: float | None = None
    day_start: float | None = None
    peak: float | None = None
    day: int = -1
    ts: int = 0
    kills: dict[str, tuple[str, str]] = {}
    rejects: dict[str, int] = {}
    halts: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"`version` must be 1, was {self.version}")
        if not (0 <= self.ts < 2**64 and -1 <= self.day < 2**31):
            raise ValueError(f"`ts` and `day` must be times, were {self.ts}, {self.day}")
        for field in ("equity", "day_start", "peak"):
            value = getattr(self, field)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"`{field}` must be finite, was {value}")
        for name, (_, scope) in self.kills.items():
            if not is_scope(scope):
                raise ValueError(f"`kills` must be of a scope that exists, {name!r} was of {scope!r}")
