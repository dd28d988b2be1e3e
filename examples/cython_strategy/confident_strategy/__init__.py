"""A strategy that trades only confident signals, written in Cython."""

from confident_strategy.strategy import ConfidentStrategy

__all__ = ["ConfidentStrategy"]
