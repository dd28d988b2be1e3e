"""The configuration of a running system: changed as a whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tengri_fast.errors import ConfigurationError

if TYPE_CHECKING:
    from tengri_fast.runtime.config import TengriConfig

__all__ = ["TengriConfigManager"]

Subscriber = Callable[["TengriConfig", int], None]


class TengriConfigManager:
    """Holds the current configuration and changes it atomically.

    An update is checked in full, then shown to the subscribers in the order in which they came; only when none refuses
    does it become `current`. A subscriber refuses by raising. Those that had accepted are then told the old
    configuration again, and the version stays.

    Any thread may call any method; `current` and `version` never wait. Subscribers run on the thread that updates, one
    update at a time, and may not update from within.

    Parameters
    ----------
    config : TengriConfig
        The configuration to begin with, version 1.
    """

    def __init__(self, config: TengriConfig) -> None:
        # One attribute holds both, so that a reader without the lock can never see a mixed pair.
        self._state = (config, 1)
        self._lock = threading.Lock()
        self._updating: int | None = None
        self._subscribers: dict[int, Subscriber] = {}
        self._next_token = 0

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> TengriConfigManager:
        """A manager of the configuration in a file; arguments and errors as `load_config`."""
        from tengri_fast.runtime.config import load_config

        return cls(load_config(Path(path), overrides))

    @property
    def current(self) -> TengriConfig:
        """The configuration in force."""
        return self._state[0]

    @property
    def version(self) -> int:
        """1 at the start, one more with each accepted update."""
        return self._state[1]

    @property
    def snapshot(self) -> tuple[TengriConfig, int]:
        """`current` and `version`, taken together."""
        return self._state

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Tell `subscriber(config, version)` about every later update; returns a function that ends that."""
        with self._lock:
            token = self._next_token
            self._next_token += 1
            self._subscribers[token] = subscriber

        def unsubscribe() -> None:
            self._subscribers.pop(token, None)

        return unsubscribe

    def update(self, overrides: Iterable[str] | Mapping[str, object]) -> int:
        """Change some keys.

        Parameters
        ----------
        overrides : iterable of str, or mapping
            ``"section.key=value"`` each, or sections and keys as nested mappings, which are merged into the current
            ones (a list replaces a list).

        Returns
        -------
        int
            The new version.

        Raises
        ------
        ConfigurationError
            If the result breaks a rule or a subscriber refuses it; then nothing has changed.
        """
        from tengri_fast.runtime.config import TengriConfig

        def change(old: TengriConfig) -> TengriConfig:
            document = old.to_dict()
            if isinstance(overrides, Mapping):
                return TengriConfig.from_dict(_merge(document, overrides))
            return TengriConfig.from_dict(document, overrides)

        return self._change(change)

    def replace(self, config: TengriConfig) -> int:
        """Put a whole configuration in force; returns the new version. Errors as `update`."""
        return self._change(lambda _: config)

    def _change(self, change: Callable[[TengriConfig], TengriConfig]) -> int:
        import msgspec

        if self._updating == threading.get_ident():
            raise ConfigurationError("a subscriber may not update the configuration that it is being told about")
        with self._lock:
            self._updating = threading.get_ident()
            try:
                old, version = self._state
                new = change(old)
                if new is not old and new.origin.file is None:
                    # Relative paths go on meaning what they meant in the file that was loaded. Its lines do not.
                    origin = msgspec.structs.replace(new.origin, file=None, folder=old.origin.folder)
                    new = msgspec.structs.replace(new, origin=origin)
                self._tell(old, new, version)
                self._state = (new, version + 1)
                return version + 1
            finally:
                self._updating = None

    def _tell(self, old: TengriConfig, new: TengriConfig, version: int) -> None:
        told: list[Subscriber] = []
        for subscriber in list(self._subscribers.values()):
            try:
                subscriber(new, version + 1)
            except Exception as error:
                unhappy = _roll_back([*told, subscriber], old, version)
                name = getattr(subscriber, "__qualname__", type(subscriber).__name__)
                also = f"; and going back failed in {', '.join(unhappy)}" if unhappy else ""
                raise ConfigurationError(f"the update was refused by {name}: {error}{also}") from error
            told.append(subscriber)


def _roll_back(told: list[Subscriber], old: TengriConfig, version: int) -> list[str]:
    """Show the old configuration to everyone who saw the new one; returns who could not take it."""
    failed = []
    for subscriber in reversed(told):
        try:
            subscriber(old, version)
        except Exception as error:
            name = getattr(subscriber, "__qualname__", type(subscriber).__name__)
            failed.append(f"{name} ({error})")
    return failed


def _merge(document: dict[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    merged = dict(document)
    for key, value in changes.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, dict):
            merged[key] = _merge(below, value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged
