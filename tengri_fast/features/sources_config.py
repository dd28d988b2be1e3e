"""What features are computed and from which outside data: a small TOML of features, clock, legs and external sources.

features = ["rsi(14) @ 1s", "BollingerBands(20, 2.5)", "premium('ETHUSDT')", "PolymarketOdds"]
clock = "quote"

[legs]
ETHUSDT = "eth_20240719.quotes.parquet"            # or a list of files, one for each day

[external.PolymarketOdds]
path = "odds.parquet"                              # the class of that name reads it ...
market = "will-btc-be-above-70000"
delay = "2s"                                       # ... and what it gives is known so much later

[external.my_model]
source = "values"                                  # a table: ts_ns, value_0, value_1, value_2, value_3
path = "scores.parquet"
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError, FeatureExtractionError
from tengri_fast.features.names import features_named
from tengri_fast.features.parameters import parse_duration
from tengri_fast.features.plan import FeaturePlan
from tengri_fast.features.spec import FeatureSpec
from tengri_fast.market.columns import ExternalColumns
from tengri_fast.market.files import Table, load
from tengri_fast.market.tables import number_column, time_column

__all__ = ["CLOCKS", "FeatureConfig", "OutsideInput", "parse_feature_config", "read_feature_config"]

CLOCKS: Final = ("quote", "trade", "depth", "bar")
_KEYS = ("features", "clock", "legs", "external", "normalisation")
_VALUES = "values"

Scaling = tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike | None]


@dataclass(frozen=True)
class OutsideInput:
    """A file of observations from outside the market.

    Attributes
    ----------
    source : str
        A class of `tengri_fast.features.external` (`SOURCES`), or "values" for a table of ready numbers.
    path : Path
    parameters : mapping
        Of the class.
    columns : mapping of str to str
        Our field to the file's column.
    delay_ns : int
        From publication to receipt.
    """

    source: str
    path: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    delay_ns: int = 0

    def read(self) -> ExternalColumns:
        """Its observations, each stamped with the moment from which it exists.

        Raises
        ------
        DataConversionError, FeatureExtractionError
            If the file or a parameter breaks a rule.
        """
        if self.source != _VALUES:
            from tengri_fast.features.external import create

            made = create(self.source, **self.parameters)
            return made.from_file(self.path, columns=self.columns, delay_ns=self.delay_ns)
        if self.parameters:
            raise DataConversionError(f"`{next(iter(self.parameters))}` must be left out for the source 'values'")
        names = [f"value_{number}" for number in range(4)]
        fields = {"ts_event": "ts_ns", "ts_init": "ts_init_ns", **{name: name for name in names}}
        found = load(Table.open(self.path), fields, self.columns, optional=frozenset({"ts_init", *names[1:]}))
        event = time_column("ts_event", found["ts_event"])
        init = time_column("ts_init", found["ts_init"]) if "ts_init" in found else event + np.uint64(self.delay_ns)
        width = 1 + max(number for number, name in enumerate(names) if name in found)
        grid = [number_column(name, found[name]) if name in found else np.full(len(event), np.nan)
                for name in names[:width]]  # fmt: skip
        return ExternalColumns(event, init, np.column_stack(grid))

    def text(self) -> str:
        """What decides about the observations beside the file, for a hash."""
        return json.dumps([self.source, dict(self.parameters), dict(self.columns), self.delay_ns], sort_keys=True)


@dataclass(frozen=True)
class FeatureConfig:
    """What is to be computed.

    Attributes
    ----------
    features : tuple of FeatureSpec
    clock : str
        Stream that makes a row with each event: quote, trade, depth or bar.
    normalisation : (mean, scale, clip), optional
        As `FeaturePlan` takes it.
    legs : mapping of str to tuple of Path
        Files of quotes of other instruments.
    external : mapping of str to OutsideInput
    derived : tuple of str
        Sources whose observations a file of the user makes from the session's own events (`observations`).
    origin : str
        Name of the file.
    """

    features: tuple[FeatureSpec, ...]
    clock: str = "quote"
    normalisation: Scaling | None = None
    legs: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    external: Mapping[str, OutsideInput] = field(default_factory=dict)
    derived: tuple[str, ...] = ()
    origin: str = ""

    def plan(self) -> FeaturePlan:
        """The plan, with the normalisation where there is one.

        Raises
        ------
        ConfigurationError
            If it reads an instrument or a source that has no file, or clock and widths do not fit.
        """
        if self.clock not in CLOCKS:
            raise ConfigurationError(f"`clock` must be one of {', '.join(CLOCKS)}, was {self.clock!r}")
        plan = FeaturePlan(self.features, self.normalisation)
        known: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
            ("legs", plan.legs, tuple(self.legs)),
            ("external", plan.sources, (*self.external, *self.derived)),
        )
        for kind, wanted, given in known:
            for name in wanted:
                if name not in given:
                    raise ConfigurationError(f"`{kind}` must have a file for {name!r}, which the features read"
                                             f"{_near(name, list(given))}")  # fmt: skip
        return plan

    def read_by(self, plan: FeaturePlan) -> FeatureConfig:
        """The same with only those outside files that a plan reads."""
        legs = {name: self.legs[name] for name in plan.legs}
        external = {name: self.external[name] for name in plan.sources if name not in self.derived}
        derived = tuple(name for name in self.derived if name in plan.sources)
        return replace(self, legs=legs, external=external, derived=derived)


def _near(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def parse_feature_config(document: Mapping[str, Any], folder: Path, origin: str = "") -> FeatureConfig:
    """A configuration from the tables of its TOML file.

    Parameters
    ----------
    document : mapping
    folder : Path
        Where relative paths begin.
    origin : str
        Name of the file, for messages.

    Raises
    ------
    ConfigurationError
        With the key that breaks a rule.
    """
    where = f"{origin}: " if origin else ""
    for key in document:
        if key not in _KEYS:
            raise ConfigurationError(f"{where}`{key}` is not a key of a file of features{_near(key, list(_KEYS))}")
    texts = document.get("features")
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(f"{where}`features` must be a list of texts, was {texts!r}")
    specs: list[FeatureSpec] = []
    for place, text in enumerate(texts):
        try:
            specs += _specs(text)
        except FeatureExtractionError as error:
            raise ConfigurationError(f"{where}`features[{place}]`: {error}") from None
    clock = document.get("clock", "quote")
    if clock not in CLOCKS:
        raise ConfigurationError(f"{where}`clock` must be one of {', '.join(CLOCKS)}, was {clock!r}")
    legs = {name: tuple(_files(f"{where}`legs.{name}`", given, folder))
            for name, given in _table(document, "legs", where).items()}  # fmt: skip
    external = {name: _outside(f"{where}`external.{name}`", name, given, folder)
                for name, given in _table(document, "external", where).items()}  # fmt: skip
    normalisation = _normalisation(document, where, len(dict.fromkeys(specs)))
    return FeatureConfig(tuple(dict.fromkeys(specs)), clock, normalisation, legs, external, origin=origin)


def _specs(text: str) -> tuple[FeatureSpec, ...]:
    """As `features_named`, but raw price levels are allowed: research is not a model."""
    from tengri_fast.features.spec import FEATURES, parse_specs

    name = text.strip().partition("(")[0].split("@")[0].split("|")[0].strip()
    return parse_specs(text) if name in FEATURES else features_named(text)


def _normalisation(document: Mapping[str, Any], where: str, width: int) -> Scaling | None:
    given = _table(document, "normalisation", where)
    if not given:
        return None
    for key in given:
        if key not in ("mean", "scale", "clip"):
            raise ConfigurationError(
                f"{where}`normalisation.{key}` is not a key{_near(key, ['mean', 'scale', 'clip'])}"
            )
    mean, scale, clip = given.get("mean", 0.0), given.get("scale", 1.0), given.get("clip", 0.0)
    for key, value in (("mean", mean), ("scale", scale), ("clip", clip)):
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
            raise ConfigurationError(f"{where}`normalisation.{key}` must be a number or a list of them, was {value!r}")
        if isinstance(value, list) and len(value) != width:
            raise ConfigurationError(f"{where}`normalisation.{key}` must have {width} entries, had {len(value)}")
    return mean, scale, clip


def _table(document: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    found = document.get(key, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{where}`{key}` must be a table, was {found!r}")
    return found


def _files(key: str, given: Any, folder: Path) -> list[Path]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"{key} must be a path or a list of paths, was {given!r}")
    found = [folder / Path(name).expanduser() for name in names]
    for path in found:
        if not path.is_file():
            raise ConfigurationError(f"{key} must name an existing file, was {path}")
    return found


def _outside(key: str, name: str, given: Any, folder: Path) -> OutsideInput:
    from tengri_fast.features.external import SOURCES

    table = {"path": given} if isinstance(given, str) else given
    if not isinstance(table, dict) or "path" not in table:
        raise ConfigurationError(f"{key} must be a table with `path`, was {given!r}")
    rest = {field: value for field, value in table.items() if field not in ("source", "path", "columns", "delay")}
    source = table.get("source", name if name in SOURCES else _VALUES)
    if source != _VALUES and source not in SOURCES:
        raise ConfigurationError(f"{key}: `source` must be one of {', '.join(SOURCES)} or 'values', was {source!r}"
                                 f"{_near(str(source), [*SOURCES, _VALUES])}")  # fmt: skip
    columns = table.get("columns", {})
    if not isinstance(columns, dict) or not all(isinstance(value, str) for value in columns.values()):
        raise ConfigurationError(f"{key}: `columns` must be a table of names, was {columns!r}")
    delay = parse_duration(str(table.get("delay", "0s")))
    if delay is None:
        raise ConfigurationError(f'{key}: `delay` must be a duration such as "2s", was {table["delay"]!r}')
    return OutsideInput(source, _files(key, table["path"], folder)[0], rest, columns, delay)


def read_feature_config(path: Path) -> FeatureConfig:
    """A configuration from its TOML file.

    Raises
    ------
    ConfigurationError
        If the file is missing or no TOML, or a key breaks a rule.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: must be TOML: {error}") from None
    return parse_feature_config(document, path.parent, path.name)
