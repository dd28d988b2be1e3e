"""Durations as people write them ("5s", "100ms", "1d") turned into nanoseconds, and checks of numbers."""

from __future__ import annotations

import math
import re

from tengri_fast.errors import ConfigurationError

__all__ = ["duration_ns", "positive"]

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h|d)\s*")


def duration_ns(field: str, value: int | str) -> int:
    """Nanoseconds of a duration; a number is already nanoseconds.

    Parameters
    ----------
    field : str
        The name used in the error.
    value : int or str
        Nanoseconds, or a number with one of the units ns, us, ms, s, m, h, d.

    Raises
    ------
    ConfigurationError
        When the text is not a duration, or the duration is not at least one nanosecond.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ConfigurationError(f'`{field}` must be nanoseconds or a text like "5s", was {value!r}')
    if isinstance(value, str):
        match = _PATTERN.fullmatch(value)
        if match is None:
            raise ConfigurationError(f'`{field}` must be a number with ns, us, ms, s, m, h or d ("5s"), was {value!r}')
        number, unit = match.groups()
        # An exact integer stays exact; only a decimal goes through a float.
        value = int(number) * _UNITS[unit] if number.isdigit() else round(float(number) * _UNITS[unit])
    if value < 1:
        raise ConfigurationError(f"`{field}` must be >= 1 ns, was {value!r}")
    return value


def positive(field: str, value: float) -> None:
    """Refuse what is not a finite number above zero.

    Raises
    ------
    ConfigurationError
        With the name of the field and the value.
    """
    if not (math.isfinite(value) and value > 0.0):
        raise ConfigurationError(f"`{field}` must be finite and > 0, was {value}")
