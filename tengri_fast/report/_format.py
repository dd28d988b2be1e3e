"""How numbers read on every page: one place, so that the HTML, the picture and the terminal agree."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

__all__ = ["bytes_hash", "count", "duration", "exact", "money", "nanoseconds", "number", "percent", "utc"]

NONE = "–"
_MINUS = "\N{MINUS SIGN}"


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _sign(text: str) -> str:
    return text.replace("-", _MINUS)


def count(value: int | None) -> str:
    """A whole number with thousands separators."""
    return NONE if _missing(value) else _sign(f"{value:,}")


def number(value: float | None, digits: int = 2) -> str:
    """A number with a fixed count of decimals."""
    return NONE if value is None or _missing(value) else _sign(f"{value:,.{digits}f}")


def exact(value: float | None) -> str:
    """A number with as many digits as it has, up to ten."""
    return NONE if value is None or _missing(value) else _sign(f"{value:,.10g}")


def money(value: float | None, currency: str = "", signed: bool = False) -> str:
    """An amount: two decimals, four below one."""
    if value is None or _missing(value):
        return NONE
    if abs(value) < 0.00005:
        value = 0.0
    digits = 2 if abs(value) >= 1.0 or value == 0.0 else 4
    text = f"{value:+,.{digits}f}" if signed and value else f"{value:,.{digits}f}"
    return _sign(text) + (f" {currency}" if currency else "")


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return NONE if value is None or _missing(value) else _sign(f"{100.0 * value:.{digits}f} %")


def nanoseconds(value: float | None) -> str:
    """A time in the unit that suits it."""
    if value is None or _missing(value):
        return NONE
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value / size:,.0f} {unit}"
    return f"{value:.0f} ns"


def duration(seconds: float | None) -> str:
    """A length of time in words short enough for a cell."""
    if seconds is None or _missing(seconds):
        return NONE
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def utc(ns: int, *, date: bool = True, decimals: int = 3) -> str:
    """UTC time of a nanosecond stamp, cut (not rounded) to `decimals` digits of a second."""
    seconds, rest = divmod(int(ns), 1_000_000_000)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns"
    text = moment.strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S")
    return f"{text}.{rest:09d}"[: len(text) + 1 + decimals] if decimals else text


def bytes_hash(text: str) -> str:
    """The first digits of a hash."""
    return text[:12] if text else NONE
