"""Python files of the user that register features, or make observations from a session's events.

    register_feature(MyFeature)                        # numba, stepped inside the plan

    def fair_value(streams: EventStreams) -> ExternalColumns:
        ...                                            # plain NumPy over the session so far

    observations = {"fair_value": fair_value}          # read by `external_value('fair_value')`

The second kind is where look-ahead creeps in: the function is handed whole arrays and may stamp a value too early.
`tengri check-lookahead` calls it again on histories that are cut off and poisoned.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import numpy as np

from tengri_fast.errors import ConfigurationError
from tengri_fast.features.lookahead import EventStreams
from tengri_fast.features.user import UserFeature
from tengri_fast.market.columns import ExternalColumns

__all__ = ["Frozen", "derived_observations", "frozen_globals", "load_user_file", "observation_names"]

# A table of so many numbers may be the weights of a filter; a longer one may be a history.
MOST_FROZEN: Final = 1_000

_loaded: dict[Path, tuple[ModuleType, str]] = {}


def load_user_file(path: Path) -> ModuleType:
    """Run a Python file of the user; once per process.

    Parameters
    ----------
    path : Path
        Any code in it runs, with the rights of whoever calls this.

    Raises
    ------
    ConfigurationError
        If it is missing, or raises; the error is told.
    """
    file = Path(path).resolve()
    if file in _loaded:
        return _loaded[file][0]
    if not file.is_file():
        raise ConfigurationError(f"`user` must be a Python file, was {path}")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    name = f"tengri_user_{file.stem}_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"`user` must be a Python file, was {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        _hooks_of(module, file)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"`user` must run, {path} raised {type(error).__name__}: {error}") from error
    _loaded[file] = module, digest
    return module


Hook = Callable[[EventStreams], ExternalColumns]


def _hooks_of(module: ModuleType, file: Path) -> dict[str, Hook]:
    found = getattr(module, "observations", {})
    if not isinstance(found, dict) or not all(isinstance(key, str) and callable(f) for key, f in found.items()):
        raise ConfigurationError(f"`observations` of {file.name} must be a dict of names and functions, was {found!r}")
    return found


def observation_names() -> tuple[str, ...]:
    """Names of all sources that loaded files make."""
    return tuple(dict.fromkeys(name for file, (module, _) in _loaded.items() for name in _hooks_of(module, file)))


def derived_observations(names: Sequence[str], streams: EventStreams) -> tuple[dict[str, ExternalColumns], str]:
    """What loaded files make of a session's events, and a hash of the files.

    Raises
    ------
    ConfigurationError
        If a function raises or returns something else.
    """
    made: dict[str, ExternalColumns] = {}
    digests = []
    for file, (module, digest) in _loaded.items():
        for name, function in _hooks_of(module, file).items():
            if name not in names:
                continue
            try:
                columns = function(streams)
            except Exception as error:
                raise ConfigurationError(
                    f"`observations[{name!r}]` must not raise, was {type(error).__name__}: {error}"
                ) from error
            if not isinstance(columns, ExternalColumns):
                raise ConfigurationError(f"`observations[{name!r}]` must return ExternalColumns, returned "
                                         f"{type(columns).__name__}")  # fmt: skip
            made[name] = columns
            digests.append(f"{name} {digest}")
    return made, " ".join(sorted(digests))


class Frozen(NamedTuple):
    """Data outside its arguments that a feature of the user reads; numba freezes it when it compiles.

    Attributes
    ----------
    feature : str
    name : str
        Of the global or closed-over variable.
    numbers : int
        How many it holds.
    suspicious : bool
        More than a thousand: it may hold a history.
    """

    feature: str
    name: str
    numbers: int
    suspicious: bool

    def __str__(self) -> str:
        return (f"{self.feature} reads `{self.name}`, {self.numbers:,} numbers frozen when it was compiled: no cut and "
                f"no poison reaches them{', and so many may be a history' if self.suspicious else ''}")  # fmt: skip


def _features_in(module: ModuleType) -> Iterator[type[UserFeature]]:
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, UserFeature) and value is not UserFeature:
            yield value


def _held_by(function: Any, seen: set[Any]) -> Iterator[tuple[str, int]]:
    """Data that a function reaches outside its arguments, also through functions that it calls."""
    plain = getattr(function, "py_func", function)
    if plain in seen or not inspect.isfunction(plain):
        return
    seen.add(plain)
    found = inspect.getclosurevars(plain)
    for name, value in {**found.globals, **found.nonlocals}.items():
        if isinstance(value, np.ndarray):
            yield name, int(value.size)
        elif isinstance(value, list | tuple | dict | set | frozenset | bytes):
            yield name, len(value)
        elif inspect.isfunction(getattr(value, "py_func", value)):
            yield from _held_by(value, seen)


def frozen_globals(module: ModuleType) -> tuple[Frozen, ...]:
    """Data outside their arguments that the features of a file read.

    A feature is handed nothing but the latest event, so this is the one way by which it can know the future: a table
    that was filled from it. The check by cutting and poisoning cannot see that, because the table does not change.
    """
    found: dict[tuple[str, str], Frozen] = {}
    for feature in _features_in(module):
        for function in (feature.update, feature.value):
            for name, numbers in _held_by(function, set()):
                found[feature.name, name] = Frozen(feature.name, name, numbers, numbers > MOST_FROZEN)
    return tuple(found.values())
