"""Lengths of time and rates as people write them: "250ms", "1s", "30d", "tick", "5 ticks"."""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec

from tengri_fast.errors import ConfigurationError

__all__ = ["Frequency", "format_duration", "parse_duration", "parse_frequency"]

UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_ALIASES = {"µs": "us", "μs": "us", "min": "m"}
MAX_NS = 2**63 - 1

# ASCII digits only: `\d` would also take digits of other scripts, and then the text is not what it seems.
_DURATION = re.compile(r"\s*([0-9]{1,19}(?:\.[0-9]{1,18})?)\s*([a-zµμ]{1,3})\s*")
_TICKS = re.compile(r"\s*([0-9]{1,19})\s+ticks?\s*")
DURATION_RULE = 'must be a duration such as "250ms", "1s", "1h" or "30d"'
FREQUENCY_RULE = 'must be "tick", a number of ticks such as "5 ticks", or a duration such as "1s"'


class Frequency(msgspec.Struct, frozen=True):
    """How often something happens: every so many ticks, or every so much event time.

    Attributes
    ----------
    unit : str
        "tick" or "time".
    every : int
        Count of ticks, or nanoseconds; at least 1.
    """

    unit: str
    every: int

    def __str__(self) -> str:
        if self.unit == "time":
            return format_duration(self.every)
        return "tick" if self.every == 1 else f"{self.every} ticks"


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration.

    Parameters
    ----------
    text : str
        A number and a unit: ns, us, ms, s, m (or min), h, d, w. The number may have a fraction, as in "1.5s".

    Returns
    -------
    int
        Whole nanoseconds, from 0 to 2**63 - 1.

    Raises
    ------
    ConfigurationError
        If the text is not a duration, is not a whole number of nanoseconds, or is longer than 292 years.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    unit = _ALIASES.get(match[2], match[2]) if match else ""
    if match is None or unit not in UNITS_NS:
        raise ConfigurationError(f"{DURATION_RULE}, was {_shown(text)}")
    nanoseconds = Decimal(match[1]) * UNITS_NS[unit]
    if nanoseconds != int(nanoseconds):
        raise ConfigurationError(f"must be a whole number of nanoseconds, was {_shown(text)}")
    if nanoseconds > MAX_NS:
        raise ConfigurationError(f"must be at most 2**63 - 1 nanoseconds (292 years), was {_shown(text)}")
    return int(nanoseconds)


def format_duration(nanoseconds: int) -> str:
    """The shortest exact text of a duration, in the largest unit that divides it; the inverse of `parse_duration`."""
    if nanoseconds == 0:
        return "0s"
    unit = next(name for name in ("d", "h", "m", "s", "ms", "us", "ns") if nanoseconds % UNITS_NS[name] == 0)
    return f"{nanoseconds // UNITS_NS[unit]}{unit}"


def parse_frequency(text: str) -> Frequency:
    """A frequency from "tick", "N ticks" or a duration.

    Raises
    ------
    ConfigurationError
        If the text is none of these, or the count or duration is zero.
    """
    if isinstance(text, str):
        if text.strip() == "tick":
            return Frequency("tick", 1)
        if match := _TICKS.fullmatch(text):
            if int(match[1]) < 1:
                raise ConfigurationError(f"must be at least 1 tick, was {_shown(text)}")
            return Frequency("tick", int(match[1]))
        if (match := _DURATION.fullmatch(text)) and _ALIASES.get(match[2], match[2]) in UNITS_NS:
            nanoseconds = parse_duration(text)
            if nanoseconds < 1:
                raise ConfigurationError(f"must be longer than zero, was {_shown(text)}")
            return Frequency("time", nanoseconds)
    raise ConfigurationError(f"{FREQUENCY_RULE}, was {_shown(text)}")


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
