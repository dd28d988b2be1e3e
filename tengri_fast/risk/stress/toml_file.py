"""Scenarios as TOML: reading with plain errors, and writing.

::

    [betas.debt]                      # for every scenario: move per unit of a factor, by instrument, symbol or class
    rates_10y = -0.07

    [[scenario]]
    name = "tech sell-off"
    source = "risk committee of 2026-03"
    horizon = "5d"
    factors = { equity_index = -0.1, rates_10y = 0.5 }
    units = { rates_10y = "percentage points" }
    asset_classes = { "equity.technology" = -0.25, crypto = -0.3 }
    instruments = { "AAPL.XNAS" = -0.3 }
    currencies = { JPY = 0.05 }
    venues = { FTX = -0.2 }
    betas.equity = { equity_index = 1.0 }
    liquidity = { spread_multiple = 5, depth_divisor = 4, fraction = 1.0 }
    gap = { rebound = 0.5, halted = ["AAPL.XNAS"] }

    [[scenario]]
    name = "all together"
    correlation = { level = 1.0, sigmas = 3.0 }

    [[scenario]]
    name = "election"
    jump = { to = "worst", events.winner = { instruments = ["A.POLYMARKET", "B.POLYMARKET"], exhaustive = true } }
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.stress.scenario import (
    Correlation,
    Event,
    Gap,
    Jump,
    Liquidity,
    StressScenario,
    checked_betas,
)

__all__ = ["parse", "read_file", "to_toml"]

# A scenario file is written by people; one that is larger was not meant.
MAX_BYTES = 16_000_000
_PARTS = {"liquidity": Liquidity, "correlation": Correlation, "gap": Gap}
_FIELDS = tuple(field.name for field in fields(StressScenario))


def read_file(path: str | os.PathLike[str]) -> tuple[tuple[StressScenario, ...], dict[str, dict[str, float]]]:
    """Scenarios and betas of a file.

    Raises
    ------
    ConfigurationError
        When there is no such file, or something in it breaks a rule: file, scenario, key, rule and value are named.
    """
    source = Path(path)
    if not source.is_file():
        raise ConfigurationError(f"`scenarios` must name a file, was {str(source)!r}, which does not exist")
    size = source.stat().st_size
    if size > MAX_BYTES:
        raise ConfigurationError(f"{source.name} must have at most {MAX_BYTES} bytes, had {size}")
    try:
        text = source.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source.name} must be a text in UTF-8: {error}") from error
    return parse(text, source.name)


def parse(text: str, name: str) -> tuple[tuple[StressScenario, ...], dict[str, dict[str, float]]]:
    """As :func:`read_file`, of a text; ``name`` stands in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name} is not TOML: {error}") from error
    except (RecursionError, ValueError) as error:
        raise ConfigurationError(f"{name} is not TOML: {type(error).__name__}: {error}") from error
    _only(name, table, ("scenario", "betas"))
    try:
        betas = checked_betas("betas", table.get("betas", {}))
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    listed = table.get("scenario", [])
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
        raise ConfigurationError(f"{name}: `scenario` must be a list of tables ([[scenario]])")
    if not listed and not betas:
        raise ConfigurationError(f"{name} must have at least one [[scenario]], had none")
    found: list[StressScenario] = []
    seen: set[str] = set()
    for number, row in enumerate(listed, 1):
        label = f"{name}: scenario {number}" + (f" {row['name']!r}" if isinstance(row.get("name"), str) else "")
        scenario = _scenario(label, row)
        if scenario.name in seen:
            raise ConfigurationError(f"{label}: `name` must be unique, is there twice")
        seen.add(scenario.name)
        found.append(scenario)
    return tuple(found), betas


def _only(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise ConfigurationError(f"{where}: `{key}` is not known; known are {', '.join(known)}")


def _scenario(label: str, row: dict[str, Any]) -> StressScenario:
    _only(label, row, _FIELDS)
    if "name" not in row:
        raise ConfigurationError(f"{label}: `name` must be given, was missing")
    given = dict(row)
    try:
        for key, kind in _PARTS.items():
            if key in given:
                part = _table(label, key, given[key])
                known = tuple(field.name for field in fields(kind))
                _only(f"{label}: {key}", part, known)
                given[key] = kind(**{name: _tuple(key, name, value) for name, value in part.items()})
        if "jump" in given:
            part = dict(_table(label, "jump", given["jump"]))
            _only(f"{label}: jump", part, ("to", "events"))
            events = _table(label, "jump.events", part.get("events", {}))
            part["events"] = {key: _event(f"{label}: jump.events.{key}", event) for key, event in events.items()}
            given["jump"] = Jump(**part)
        return StressScenario(**given)
    except ConfigurationError as error:
        text = str(error)
        raise ConfigurationError(text if text.startswith(label) else f"{label}: {text}") from error


def _table(label: str, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{label}: `{key}` must be a table, was {value!r}")
    return value


def _tuple(part: str, name: str, value: Any) -> Any:
    """Lists of names as tuples; everything else is checked by the class."""
    if name not in ("instrument_ids", "halted"):
        return value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigurationError(f"`{part}.{name}` must be a list of names, was {value!r}")
    return tuple(value)


def _event(where: str, value: Any) -> Event:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where} must be a table with `instruments`, was {value!r}")
    _only(where, value, ("instruments", "exhaustive"))
    listed = value.get("instruments")
    if not isinstance(listed, list):
        raise ConfigurationError(f"{where}: `instruments` must be a list of names, was {listed!r}")
    try:
        return Event(tuple(listed), value.get("exhaustive", True))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def to_toml(scenarios: tuple[StressScenario, ...], betas: Mapping[str, Mapping[str, float]] | None = None) -> str:
    """Text that :func:`parse` reads back as equal scenarios."""
    lines: list[str] = []
    for key, row in (betas or {}).items():
        lines += [f"[betas.{_quoted(key)}]", *(f"{_quoted(name)} = {_value(x)}" for name, x in row.items()), ""]
    default = StressScenario("default", currencies={"-": 0.0})
    for scenario in scenarios:
        lines.append("[[scenario]]")
        tables: list[str] = []
        for key in _FIELDS:
            value = getattr(scenario, key)
            if value is None or value == {} or (key != "name" and key != "kind" and value == getattr(default, key)):
                continue
            if isinstance(value, Mapping):
                tables.append(f"[scenario.{key}]")
                tables += [f"{_quoted(name)} = {_value(_plain(item))}" for name, item in value.items()]
            else:
                lines.append(f"{key} = {_value(_plain(value))}")
        lines += [*tables, ""]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, Event):
        return {"instruments": list(value.instrument_ids), "exhaustive": value.exhaustive}
    if isinstance(value, Correlation):
        shape = {"sigmas": value.sigmas, "volatility_multiple": value.volatility_multiple}
        if value.matrix is None:
            return {"level": value.level, **shape}
        return {"matrix": value.matrix.tolist(), "instrument_ids": list(value.instrument_ids), **shape}
    if isinstance(value, Liquidity | Gap | Jump):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(float(value))
    if isinstance(value, str):
        return _quoted(value, bare=False)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return "{ " + ", ".join(f"{_quoted(key)} = {_value(item)}" for key, item in value.items()) + " }" if value else "{}"


def _quoted(text: str, *, bare: bool = True) -> str:
    if bare and text and all(c.isascii() and (c.isalnum() or c in "_-") for c in text):
        return text
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
    hidden = {chr(n): f"\\u{n:04X}" for n in (*range(32), 127)}
    return '"' + "".join(escapes.get(c) or hidden.get(c) or c for c in text) + '"'
