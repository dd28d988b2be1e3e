"""How a strategy tells the risk gates of its node what its model thinks of itself.

A strategy with a model publishes a :class:`ModelHealth` on :data:`HEALTH` when it starts, and again whenever a gate
that started later asks on :data:`HEALTH_WANTED`. Strategies without a model publish nothing; where limits ask for a
model's health, their orders that add risk are refused.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["HEALTH", "HEALTH_WANTED", "ModelHealth"]

HEALTH = "tengri.health"
HEALTH_WANTED = "tengri.health.wanted"


class ModelHealth:
    """The latest word of a model, read when it is asked for.

    Parameters
    ----------
    strategy_id : str
        The strategy that acts on the model.
    signal : NeuralSignal
        The view that each signal of the strategy's engine overwrites.
    """

    __slots__ = ("_signal", "strategy_id")

    def __init__(self, strategy_id: str, signal: Any) -> None:
        self.strategy_id = strategy_id
        self._signal = signal

    @property
    def rung(self) -> int:
        """Which fallback answered: 0 is the model itself, 4 is flat because its answer was not finite."""
        return int(self._signal.rung)

    @property
    def out_of_distribution(self) -> float:
        """NaN: the models that this engine runs do not say how far an input is from what they were trained on."""
        return math.nan

    @property
    def confidence(self) -> float:
        """Largest class probability, 0 to 1."""
        return float(self._signal.confidence)

    @property
    def ts(self) -> int:
        """Event time of the latest signal, ns; 0 before the first."""
        return int(self._signal.ts_event)
