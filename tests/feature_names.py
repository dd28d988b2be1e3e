"""Features of the table as text, with names of instruments and sources where they need some."""

from __future__ import annotations

from tengri_fast.features import FEATURES

OUTSIDE = {"instrument": "'OTHER'", "instruments": "('OTHER', 'THIRD')", "source": "'SOURCE'"}


def written(name: str) -> str:
    """A row of the table as a spec."""
    given = [f"{p.name}={OUTSIDE[p.type]}" for p in FEATURES[name].parameters if p.outside]
    return f"{name}({', '.join(given)})" if given else name


# Rows of the table as it was imported: a test may register features of its own later.
EVERY = tuple(written(name) for name in FEATURES)
