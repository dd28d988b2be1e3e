"""Checks a document against the schema of a configuration, and says what is wrong in the words of its keys."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from typing import Any, cast

import msgspec.inspect as inspect

from tengri_fast.errors import ConfigurationError
from tengri_fast.runtime.durations import Frequency, parse_duration, parse_frequency
from tengri_fast.runtime.schema import Money
from tengri_fast.runtime.schema_types import RATE_PATTERN
from tengri_fast.runtime.toml_text import Path as KeyPath
from tengri_fast.runtime.toml_text import join_path

__all__ = ["Checker", "Override", "shortened", "shown", "unwrap"]

_SECRET = re.compile(r"key|secret|passw|passphrase|token|credential|private", re.IGNORECASE)
_SIZE = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)\s*")
_MONEY = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)(?:\s+([A-Z0-9]{2,10}))?\s*")
_PERCENT = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?%")
_RATE = re.compile(RATE_PATTERN)


class _Bad:
    """Stands for a value that broke a rule; the problem itself is in the checker's list."""


_BAD = _Bad()


class Override:
    """A value from the command line: its text, and what that text means as TOML."""

    def __init__(self, text: str, value: object) -> None:
        self.text = text
        self.value = value


def unwrap(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any], bool]:
    """The type under its annotations, the annotations' extras, and whether None is allowed."""
    extra: dict[str, Any] = {}
    optional = False
    while True:
        if isinstance(kind, inspect.Metadata):
            extra = {**extra, **(kind.extra or {})}
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            optional = optional or any(isinstance(item, inspect.NoneType) for item in kind.types)
            kind = next(item for item in kind.types if not isinstance(item, inspect.NoneType))
        else:
            return kind, extra, optional


class Checker:
    """Turns a document into structures and collects every problem instead of stopping at the first.

    Parameters
    ----------
    root : type
        Structure of a whole file, whose keys are known to the advice about a wrong one.
    """

    def __init__(self, root: type) -> None:
        self.root = root
        self.problems: list[tuple[KeyPath, str]] = []

    def _bad(self, path: KeyPath, rule: str, value: object) -> _Bad:
        self.problems.append((path, f"{rule}, was {shown(value)}"))
        return _BAD

    def struct(self, kind: inspect.StructType, value: Any, path: KeyPath) -> Any:
        """The structure of a table; when a part of it is wrong, what is returned means nothing."""
        if isinstance(value, Override):
            value = value.value
        if not isinstance(value, dict):
            return self._bad(path, "must be a table", value)
        fields = {f.name: f for f in kind.fields if not unwrap(f.type)[1].get("hidden")}
        found: dict[str, Any] = {}
        for name, item in value.items():
            if name in fields:
                found[name] = self._value(fields[name].type, item, (*path, name))
            else:
                self._unknown(name, item, path, list(fields))
        for name, field in fields.items():
            if field.required and name not in value:
                self.problems.append(((*path, name), "must be given, was missing"))
                found[name] = _BAD
        if any(isinstance(item, _Bad) for item in found.values()):
            return _BAD
        return kind.cls(**found)

    def _unknown(self, name: str, value: object, path: KeyPath, known: list[str]) -> None:
        text = "is not a known key"
        secret = _SECRET.search(name) is not None
        if isinstance(value, Override):
            value = value.value
        if not secret and not isinstance(value, dict | list):
            text += f", was {shown(value)}"
        text += f"; {_advice(name, path, known, self.root)}"
        if secret:
            text += "; keys and passwords are taken from the environment only"
        self.problems.append(((*path, name), text))

    def _value(self, kind: inspect.Type, value: Any, path: KeyPath) -> Any:
        kind, extra, _ = unwrap(kind)
        text: str | None = None
        if isinstance(value, Override):
            text, value = value.text, value.value
        if text is not None and isinstance(kind, inspect.VarTupleType) and isinstance(value, str):
            value = [value]
        special = extra.get("kind")
        if isinstance(kind, inspect.StructType) and kind.cls is Frequency:
            special = "frequency"
        if special is not None:
            return self._special(special, kind, text if isinstance(value, int) and text else value, path)
        match kind:
            case inspect.StructType():
                return self.struct(kind, value, path)
            case inspect.BoolType():
                return value if isinstance(value, bool) else self._bad(path, "must be true or false", value)
            case inspect.IntType():
                if isinstance(value, bool) or not isinstance(value, int):
                    return self._bad(path, f"must be a whole number{_range(kind)}", value)
                return self._ranged(kind, value, path)
            case inspect.FloatType():
                if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
                    return self._bad(path, f"must be a number{_range(kind)}", value)
                return self._ranged(kind, value, path)
            case inspect.StrType() | inspect.LiteralType():
                return self._text(kind, extra, text if text is not None and not isinstance(value, str) else value, path)
            case inspect.VarTupleType():
                return self._sequence(kind, value, path)
        raise TypeError(f"schema of {join_path(path)}: no rule for {kind}")

    def _ranged(self, kind: inspect.IntType | inspect.FloatType, value: int | float | Decimal, path: KeyPath) -> Any:
        if isinstance(kind, inspect.FloatType):
            try:
                number = float(value)
            except (OverflowError, ValueError):  # an integer beyond the largest double; a signalling NaN
                number = math.inf
            if not math.isfinite(number):
                return self._bad(path, "must be a finite number", value)
            value = number + 0.0  # -0.0 and 0.0 are one value and must have one hash
        low = (kind.gt is None or value > kind.gt) and (kind.ge is None or value >= kind.ge)
        high = (kind.lt is None or value < kind.lt) and (kind.le is None or value <= kind.le)
        return value if low and high else self._bad(path, f"must be{_range(kind)}", value)

    def _text(self, kind: inspect.Type, extra: dict[str, Any], value: object, path: KeyPath) -> Any:
        if isinstance(kind, inspect.LiteralType):
            options = [str(option) for option in kind.values]
            wanted = value.upper() if extra.get("upper") and isinstance(value, str) else value
            if isinstance(wanted, str) and wanted in options:
                return wanted
            rule = "must be " + ("one of " if len(options) > 1 else "") + ", ".join(f'"{o}"' for o in sorted(options))
            near = _nearest(value, options) if isinstance(value, str) else None
            self.problems.append((path, f"{rule}, was {shown(value)}" + (f'; did you mean "{near}"?' if near else "")))
            return _BAD
        if not isinstance(value, str):
            return self._bad(path, "must be a text in quotes", value)
        if "pattern" in extra:
            return value if re.fullmatch(extra["pattern"], value) else self._bad(path, extra["rule"], value)
        assert isinstance(kind, inspect.StrType)
        if not value.strip():
            return self._bad(path, "must not be empty", value)
        if kind.max_length is not None and len(value) > kind.max_length:
            return self._bad(path, f"must have at most {kind.max_length} characters", value)
        if "\0" in value or any(0xD800 <= ord(char) <= 0xDFFF for char in value):
            return self._bad(path, "must be text without NUL and without broken characters", value)
        return value

    def _sequence(self, kind: inspect.VarTupleType, value: object, path: KeyPath) -> Any:
        if not isinstance(value, list):
            return self._bad(path, "must be a list", value)
        if kind.min_length is not None and len(value) < kind.min_length:
            return self._bad(path, f"must have at least {kind.min_length} entry", value)
        if kind.max_length is not None and len(value) > kind.max_length:
            self.problems.append((path, f"must have at most {kind.max_length} entries, has {len(value)}"))
            return _BAD
        items = [self._value(kind.item_type, item, (*path, i)) for i, item in enumerate(value)]
        return _BAD if any(isinstance(item, _Bad) for item in items) else tuple(items)

    def _special(self, special: str, kind: inspect.Type, value: Any, path: KeyPath) -> Any:
        if special in ("duration", "frequency"):
            try:
                parsed = parse_duration(value) if special == "duration" else parse_frequency(value)
            except ConfigurationError as error:
                self.problems.append((path, str(error)))
                return _BAD
            if isinstance(kind, inspect.IntType) and kind.gt is not None and isinstance(parsed, int) and parsed <= 0:
                return self._bad(path, "must be longer than zero", value)
            return parsed
        if special in ("amount", "limit"):
            return self._amount(special, value, path)
        rule = 'must be a number > 0, such as 0.01 or "0.01"'
        currency: str | None = None
        number: Decimal | None = None
        if special == "money":
            rule = 'must be an amount > 0 and a currency, such as "100000 USDT"'
            if isinstance(value, str) and (match := _MONEY.fullmatch(value)):
                number, currency = Decimal(match[1]), match[2]
        elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
            number = Decimal(match[1])
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            # A float's shortest text is what the user wrote; its binary value is not.
            number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if number is None or not number.is_finite() or number <= 0:
            return self._bad(path, rule, value)
        # More digits than the context holds would be rounded silently below.
        fits = len(number.as_tuple().digits) <= 28 and number < Decimal(10) ** 15
        if not fits or cast(int, number.normalize().as_tuple().exponent) < -18:
            return self._bad(path, "must be below 1e15 with at most 18 decimal places", value)
        number = Decimal(f"{number.normalize():f}")
        return Money(number, currency) if special == "money" else number

    def _amount(self, special: str, value: Any, path: KeyPath) -> Any:
        """A number > 0 as text, a share of equity ("150%"), and for a limit of any measure also a rate."""
        if isinstance(value, str) and (_PERCENT.fullmatch(value) or (special == "limit" and _RATE.fullmatch(value))):
            return value
        before = len(self.problems)
        number = self._special("size", inspect.DecimalType(), value, path)
        if len(self.problems) > before:
            del self.problems[before:]
            rule = 'must be an amount > 0 or a share of equity such as "150%"'
            return self._bad(path, rule + (', or a rate such as "100/1s"' if special == "limit" else ""), value)
        return str(number)


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f" from {kind.ge} to {kind.le}"
    bounds = ((kind.gt, ">"), (kind.ge, ">="), (kind.lt, "<"), (kind.le, "<="))
    parts = [f"{sign} {bound}" for bound, sign in bounds if bound is not None]
    return f" {' and '.join(parts)}" if parts else ""


def _nearest(name: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    folded = {option.lower().replace("-", "_"): option for option in options}
    found = difflib.get_close_matches(name[:200].lower().replace("-", "_"), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else None


@cache
def _all_keys(root: type) -> dict[str, tuple[str, ...]]:
    """Full path of each key of the schema, by its last name; the first one wins."""
    keys: dict[str, tuple[str, ...]] = {}

    def walk(kind: inspect.StructType, path: tuple[str, ...]) -> None:
        for field in kind.fields:
            inner, extra, _ = unwrap(field.type)
            if extra.get("hidden"):
                continue
            keys.setdefault(field.name, (*path, field.name))
            if isinstance(inner, inspect.StructType) and inner.cls not in (Frequency, Money):
                walk(inner, (*path, field.name))

    top = inspect.type_info(root)
    assert isinstance(top, inspect.StructType)
    walk(top, ())
    return keys


def _advice(name: str, path: KeyPath, known: list[str], root: type) -> str:
    near = _nearest(name, known)
    if near is not None:
        return f"did you mean {join_path((*path, near))}?"
    elsewhere = _nearest(name, _all_keys(root), cutoff=0.8)
    if elsewhere is not None:
        return f"did you mean {join_path(_all_keys(root)[elsewhere])}?"
    section = f"[{join_path(path)}]" if path else "the file"
    return f"the keys of {section} are {', '.join(known)}"


def shortened(text: str) -> str:
    """A text of the user in at most 80 printable characters."""
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= 80 else text[:77] + "..."


def shown(value: object) -> str:
    """A value as the user wrote it, at most 80 characters."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{shortened(value)}"'
    try:
        return shortened(str(value))
    except ValueError:  # an integer too long to be written in decimal
        return "a number with thousands of digits"
