"""Feature specs: a name and checked parameters, written as text or built from keywords."""

from __future__ import annotations

import ast
import difflib
import math
import re
from decimal import Decimal
from typing import Final, NamedTuple

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import _table

__all__ = ["ENGINE_VERSION", "FEATURES", "FeatureInfo", "FeatureSpec", "Lookback", "ParameterInfo", "parse_spec"]

ENGINE_VERSION: Final = _table.ENGINE_VERSION

_UNITS = {"d": 86_400 * 10**9, "h": 3_600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ns|us|ms|s|min|m|h|d)")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_MAX_TEXT = 1000


class ParameterInfo(NamedTuple):
    """One parameter of a feature; windows are in nanoseconds when positive, in events when negative."""

    name: str
    type: str
    default: float
    low: float
    high: float


class FeatureInfo(NamedTuple):
    """One row of the feature table."""

    kind: int
    name: str
    unit: str
    needs: str
    parameters: tuple[ParameterInfo, ...]
    lookback: str
    rule: str
    source: str
    description: str


class Lookback(NamedTuple):
    """What must pass before a feature or plan is ready: so many events and so many nanoseconds."""

    events: int
    nanoseconds: int


FEATURES: Final[dict[str, FeatureInfo]] = {
    row[0]: FeatureInfo(kind, row[0], row[1], row[2], tuple(ParameterInfo(*p) for p in row[3]), *row[4:])
    for kind, row in enumerate(_table.table())
}


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(known) or 'none'}"


def _show_duration(nanoseconds: int) -> str:
    if nanoseconds == 0:
        return "0s"
    unit = next(unit for unit, size in _UNITS.items() if nanoseconds % size == 0)
    return f"{nanoseconds // _UNITS[unit]}{unit}"


def _show_value(parameter: ParameterInfo, value: float) -> str:
    if parameter.type == "window":
        return repr(_show_duration(int(value))) if value > 0 else str(int(-value))
    if parameter.type == "duration":
        return repr(_show_duration(int(value)))
    if value == int(value):
        return str(int(value))
    return repr(value)


def _rule(parameter: ParameterInfo) -> str:
    low, high = parameter.low, parameter.high
    if parameter.type == "flag":
        return "must be 0 or 1"
    if parameter.type == "count":
        return f"must be a whole number from {low:.0f} to {high:.0f}"
    if parameter.type == "number":
        return f"must be {'0 or ' if low == 0 else ''}a number from {max(low, 1e-12):g} to {high:g}"
    bounds = f"from {_show_duration(int(max(low, 1000)))} to {_show_duration(int(high))}"
    if parameter.type == "duration":
        return f"must be {'0 or ' if low == 0 else ''}a duration {bounds}"
    return f'must be a count of events from 1 to 1048576 or a duration such as "1s", {bounds}'


def _duration(text: str) -> int | None:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    nanoseconds = Decimal(match[1]) * _UNITS["m" if match[2] == "min" else match[2]]
    return int(nanoseconds) if nanoseconds == int(nanoseconds) else None


def _value(parameter: ParameterInfo, given: object) -> float | None:
    """The number that the C table stores, or None when `given` is not of the right kind or out of range."""
    number: float | None = None
    if isinstance(given, str):
        if parameter.type in {"window", "duration"}:
            found = _duration(given)
            number = None if found is None else float(found)
            if number == 0.0 and parameter.type == "window":
                number = None
    elif isinstance(given, bool):
        number = float(given) if parameter.type == "flag" else None
    elif hasattr(given, "__index__") or isinstance(given, float):
        number = float(given)
        if not math.isfinite(number) or (parameter.type != "number" and number != int(number)):
            return None
        if parameter.type == "window":
            return -number if 1 <= number <= 1_048_576 else None
        if parameter.type == "duration":
            return 0.0 if number == 0 and parameter.low == 0 else None
    if number is None:
        return None
    if number == 0.0:
        return 0.0 if parameter.low <= 0 else None
    low = {"number": max(parameter.low, 1e-12), "duration": max(parameter.low, 1e3)}.get(parameter.type, parameter.low)
    return number if low <= number <= parameter.high else None


class FeatureSpec:
    """One feature with its parameters; immutable and hashable.

    Parameters
    ----------
    name : str
        A row of the feature table (`FEATURES`).
    **params
        Parameters of that row; what is left out takes the row's default. A window is a duration ("1s", "250ms", "5m")
        or a whole number of events.

    Attributes
    ----------
    name : str
    params : dict of str to float
        Every parameter as the C table stores it: nanoseconds for durations, minus the count for windows of events.
    canonical : str
        Full text with every parameter; what the plan hash is made of.
    lookback : Lookback

    Raises
    ------
    FeatureExtractionError
        If the name or a parameter is unknown (the nearest is named) or a value breaks its rule.
    """

    __slots__ = ("_values", "info", "lookback")

    info: FeatureInfo
    lookback: Lookback
    _values: tuple[float, ...]

    def __init__(self, name: str, **params: object) -> None:
        info = FEATURES.get(name) if isinstance(name, str) else None
        if info is None:
            raise FeatureExtractionError(f"`feature` must be in the feature table, was {name!r}"
                                         + _nearest(str(name), list(FEATURES)))  # fmt: skip
        known = [parameter.name for parameter in info.parameters]
        for key in params:
            if key not in known:
                raise FeatureExtractionError(f"`{key}` is not a parameter of {name}{_nearest(key, known)}")
        values = []
        for parameter in info.parameters:
            value = parameter.default
            if parameter.name in params:
                given = params[parameter.name]
                found = _value(parameter, given)
                if found is None:
                    raise FeatureExtractionError(f"`{parameter.name}` of {name} {_rule(parameter)}, was {given!r}")
                value = found
            values.append(value)
        lookback = _table.lookback(info.kind, tuple(values))
        if lookback is None:
            shown = ", ".join(f"{p.name}={_show_value(p, v)}" for p, v in zip(info.parameters, values, strict=True))
            raise FeatureExtractionError(f"`{name}` must keep its rule ({info.rule}), was {shown}")
        object.__setattr__(self, "info", info)
        object.__setattr__(self, "lookback", Lookback(*lookback))
        object.__setattr__(self, "_values", tuple(values))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"`{name}` cannot be set: a FeatureSpec is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"`{name}` cannot be deleted: a FeatureSpec is immutable")

    @property
    def name(self) -> str:
        """Name of the row of the feature table."""
        return self.info.name

    @property
    def kind(self) -> int:
        """Number of the row of the feature table."""
        return self.info.kind

    @property
    def values(self) -> tuple[float, ...]:
        """Parameters in the order of the table, as C stores them."""
        return self._values

    @property
    def params(self) -> dict[str, float]:
        """Parameters by name, as C stores them."""
        return {p.name: v for p, v in zip(self.info.parameters, self._values, strict=True)}

    @property
    def canonical(self) -> str:
        """Full text with every parameter."""
        pairs = zip(self.info.parameters, self._values, strict=True)
        return f"{self.name}({', '.join(f'{p.name}={_show_value(p, v)}' for p, v in pairs)})"

    def __str__(self) -> str:
        pairs = zip(self.info.parameters, self._values, strict=True)
        shown = [f"{p.name}={_show_value(p, v)}" for p, v in pairs if v != p.default]
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    def __repr__(self) -> str:
        return f"FeatureSpec({self.canonical!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureSpec) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)


def parse_spec(text: str) -> FeatureSpec:
    """A spec from text such as ``rsi(14)``, ``order_flow_imbalance(window='1s', levels=5)`` or ``imbalance``.

    Parameters without a name follow the order of the table. Only literals are accepted; nothing is evaluated.

    Raises
    ------
    FeatureExtractionError
        If the text is not of this form, or the spec breaks a rule.
    """
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise FeatureExtractionError(f"`spec` must be a text of at most {_MAX_TEXT} characters, was {str(text)[:60]!r}")
    stripped = text.strip()
    if _NAME.fullmatch(stripped):
        return FeatureSpec(stripped)
    wrong = FeatureExtractionError(f'`spec` must look like "rsi(14)" or "spread(tick=0.1)", was {text[:80]!r}')
    try:
        call = ast.parse(stripped, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise wrong from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise wrong
    name = call.func.id
    params: dict[str, object] = {}
    try:
        positional = [ast.literal_eval(argument) for argument in call.args]
        for keyword in call.keywords:
            if keyword.arg is None:
                raise wrong
            params[keyword.arg] = ast.literal_eval(keyword.value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise wrong from None
    if positional and name in FEATURES:
        known = [parameter.name for parameter in FEATURES[name].parameters]
        if len(positional) > len(known):
            raise FeatureExtractionError(f"`{name}` must have at most {len(known)} parameters, had {len(positional)}")
        for key, value in zip(known, positional, strict=False):
            if key in params:
                raise FeatureExtractionError(f"`{key}` of {name} must be given once, was given twice")
            params[key] = value
    return FeatureSpec(name, **params)
