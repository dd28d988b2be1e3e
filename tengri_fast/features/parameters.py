"""Parameters of features and stages: how a value is written, checked, stored for C and shown."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

__all__ = ["ParameterInfo", "Value", "nearest", "parse_duration", "rule_of", "show_duration", "show_value", "value_of"]

_UNITS = {"d": 86_400 * 10**9, "h": 3_600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DURATION = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?(ns|us|ms|s|min|m|h|d)")
_OUTSIDE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,99}")
_MOST_LEGS: Final = 32

# As C stores it, or names of instruments or of a source, which a plan turns into numbers.
Value = float | str | tuple[str, ...]


class ParameterInfo(NamedTuple):
    """One parameter; windows are in nanoseconds when positive, in events when negative."""

    name: str
    type: str
    default: float
    low: float
    high: float

    @property
    def outside(self) -> bool:
        """Whether it names instruments or a source; such a parameter has no default."""
        return self.type in {"instrument", "instruments", "source"}


def nearest(word: str, known: Sequence[str]) -> str:
    """End of a message: the known word that is meant, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(known) or 'none'}"


def show_duration(nanoseconds: int) -> str:
    """The shortest text of a length of time: 90 s is ``90s``, an hour ``1h``."""
    if nanoseconds == 0:
        return "0s"
    unit = next(unit for unit, size in _UNITS.items() if nanoseconds % size == 0)
    return f"{nanoseconds // _UNITS[unit]}{unit}"


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a text such as ``250ms`` or ``1.5h``; None when it is none."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    nanoseconds = Decimal(match[1]) * _UNITS["m" if match[2] == "min" else match[2]]
    return int(nanoseconds) if nanoseconds == int(nanoseconds) else None


def show_value(parameter: ParameterInfo, value: Value) -> str:
    """A value as it is written in a spec."""
    if isinstance(value, str | tuple):
        return repr(value)
    if parameter.type == "window":
        return repr(show_duration(int(value))) if value > 0 else str(int(-value))
    if parameter.type == "duration":
        return repr(show_duration(int(value)))
    if value == int(value):
        return str(int(value))
    return repr(value)


def rule_of(parameter: ParameterInfo) -> str:
    """The rule that a value of it must keep, for a message."""
    low, high = parameter.low, parameter.high
    if parameter.type == "instrument":
        return "must be the name of another instrument"
    if parameter.type == "instruments":
        return f"must be 1 to {_MOST_LEGS} names of other instruments, none twice"
    if parameter.type == "source":
        return "must be the name of an external source"
    if parameter.type == "flag":
        return "must be 0 or 1"
    if parameter.type == "any":
        return f"must be a number from {low:g} to {high:g}"
    if parameter.type == "count":
        return f"must be a whole number from {low:.0f} to {high:.0f}"
    if parameter.type == "number":
        return f"must be {'0 or ' if low == 0 else ''}a number from {max(low, 1e-12):g} to {high:g}"
    bounds = f"from {show_duration(int(max(low, 1000)))} to {show_duration(int(high))}"
    if parameter.type == "duration":
        return f"must be {'0 or ' if low == 0 else ''}a duration {bounds}"
    return f'must be a count of events from 1 to 1048576 or a duration such as "1s", {bounds}'


def _outside_value(parameter: ParameterInfo, given: object) -> Value | None:
    if parameter.type != "instruments":
        return given if isinstance(given, str) and _OUTSIDE.fullmatch(given) else None
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, Sequence):
        return None
    stripped = tuple(name.strip() for name in names if isinstance(name, str))
    good = len(stripped) == len(names) and all(_OUTSIDE.fullmatch(name) for name in stripped)
    if not good or not 1 <= len(stripped) <= _MOST_LEGS or len(set(stripped)) != len(stripped):
        return None
    return stripped


def value_of(parameter: ParameterInfo, given: object) -> Value | None:
    """What is stored of a given value, or None when it is not of the right kind or out of range."""
    if parameter.outside:
        return _outside_value(parameter, given)
    number: float | None = None
    if isinstance(given, str):
        if parameter.type in {"window", "duration"}:
            found = parse_duration(given)
            number = None if found is None else float(found)
            if number == 0.0 and parameter.type == "window":
                number = None
    elif isinstance(given, bool):
        number = float(given) if parameter.type == "flag" else None
    elif hasattr(given, "__index__") or isinstance(given, float):
        try:
            number = float(given)
        except (TypeError, ValueError, OverflowError):  # an array, or a whole number beyond float64
            return None
        if not math.isfinite(number) or (parameter.type not in {"number", "any"} and number != int(number)):
            return None
        if parameter.type == "window":
            return -number if 1 <= number <= 1_048_576 else None
        if parameter.type == "duration":
            return 0.0 if number == 0 and parameter.low == 0 else None
    if number is None:
        return None
    if parameter.type == "any":
        return number + 0.0 if parameter.low <= number <= parameter.high else None  # -0.0 is 0 like its text
    if number == 0.0:
        return 0.0 if parameter.low <= 0 else None
    low = {"number": max(parameter.low, 1e-12), "duration": max(parameter.low, 1e3)}.get(parameter.type, parameter.low)
    return number if low <= number <= parameter.high else None
