"""Small helpers shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def shared_data(*parts: str) -> Path:
    """A file of the larger data set, or a skip that says why.

    The set is looked for in the folder named by TENGRI_SHARED_DATA, then beside the repository in ``../shared/data``.
    """
    root = Path(os.environ.get("TENGRI_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not here: it may not be redistributed (set TENGRI_SHARED_DATA)")
    return path


def sample_data(name: str) -> Path:
    """A file of the small Binance sample that ships with the repository."""
    return REPOSITORY / "data" / "binance_usdm_btcusdt" / name
