"""The model zoo: one folder a model, with its weights, its card and the script that made it."""

from __future__ import annotations

from pathlib import Path

from tengri_fast.errors import ModelLoadingError

__all__ = ["model_path", "zoo"]

FOLDER = Path(__file__).resolve().parent


def zoo() -> list[str]:
    """Names of the models that ship, in order."""
    return sorted(path.parent.name for path in FOLDER.glob("*/model.toml"))


def model_path(name: str) -> Path:
    """The ``model.toml`` of a model of the zoo.

    Raises
    ------
    ModelLoadingError
        When there is no such model; names those there are.
    """
    path = FOLDER / name / "model.toml"
    if not path.is_file():
        raise ModelLoadingError(f"`model` must be one of {', '.join(zoo())}, was {name!r}")
    return path
