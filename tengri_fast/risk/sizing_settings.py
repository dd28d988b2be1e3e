"""Settings of dynamic position sizing as plain values, the sizer they describe, and what a unit risks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.measures import value_at_risk
from tengri_fast.risk.sizing import (
    Cap,
    DrawdownScale,
    EwmaVariance,
    FractionalKelly,
    PositionSizer,
    SizingPart,
    VarBudget,
    VolatilityTarget,
)

__all__ = ["DEFAULT_PARTS", "PART_NAMES", "SizingSettings", "unit_value_at_risk"]

PART_NAMES = ("volatility_target", "kelly", "var_budget", "drawdown", "leverage")
PartName = Literal["volatility_target", "kelly", "var_budget", "drawdown", "leverage"]
DEFAULT_PARTS: tuple[PartName, ...] = ("volatility_target", "kelly", "var_budget")


class SizingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How entries are sized: which parts, and their settings. Durations are ns or a text like "10m".

    Parameters
    ----------
    parts : tuple of str
        Some of "volatility_target", "kelly", "var_budget", "drawdown" and "leverage"; the smallest bound holds. The
        default is the first three.
    target_volatility, volatility_horizon
        :class:`VolatilityTarget`: standard deviation as a fraction of equity, and over which time.
    volatility_half_life, volatility_step, volatility_gap, volatility_samples
        :class:`EwmaVariance`: how the volatility of mids is measured.
    kelly_fraction, kelly_stop_bps, kelly_loss_multiple
        :class:`FractionalKelly`.
    var_limit, var_share, var_level, var_horizon
        :class:`VarBudget`; limit, level and horizon apply where no gate has a limit of value at risk.
    drawdown_start, drawdown_stop, drawdown_shape, drawdown_middle
        :class:`DrawdownScale`.
    max_leverage : float
        :class:`Cap` of the part "leverage".
    hysteresis : float
        An entry keeps the size of the last one while they differ by at most this share.

    Raises
    ------
    ConfigurationError
        When a value breaks its rule.
    """

    parts: tuple[PartName, ...] = DEFAULT_PARTS
    target_volatility: float = 0.01
    volatility_horizon: int | str = "1d"
    volatility_half_life: int | str = "10m"
    volatility_step: int | str = "1s"
    volatility_gap: int | str = "1h"
    volatility_samples: int = 30
    kelly_fraction: float = 0.25
    kelly_stop_bps: float | None = None
    kelly_loss_multiple: float = 1.0
    var_limit: float = 0.05
    var_share: float = 1.0
    var_level: float = 0.99
    var_horizon: int | str = "1d"
    drawdown_start: float = 0.05
    drawdown_stop: float = 0.20
    drawdown_shape: Literal["linear", "step"] = "linear"
    drawdown_middle: float = 0.5
    max_leverage: float = 1.0
    hysteresis: float = 0.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.parts if name not in PART_NAMES]
        if unknown or len(set(self.parts)) != len(self.parts):
            raise ConfigurationError(
                f"`parts` must be distinct names of {', '.join(PART_NAMES)}, was {list(self.parts)}"
            )
        for name in PART_NAMES:  # those that are not used too: a wrong value is wrong anyway
            self._part(name)
        self.sizer()

    def _part(self, name: str) -> SizingPart:
        makers: dict[str, Callable[[], SizingPart]] = {
            "volatility_target": lambda: VolatilityTarget(self.target_volatility, self.volatility_horizon),
            "kelly": lambda: FractionalKelly(self.kelly_fraction, self.kelly_stop_bps, self.kelly_loss_multiple),
            "var_budget": lambda: VarBudget(self.var_limit, self.var_share, self.var_level, self.var_horizon),
            "drawdown": lambda: DrawdownScale(
                self.drawdown_start, self.drawdown_stop, self.drawdown_shape, self.drawdown_middle
            ),
            "leverage": lambda: Cap(leverage=self.max_leverage, name="leverage"),
        }
        return makers[name]()

    def sizer(
        self,
        *,
        lot: float = 0.0,
        min_size: float = 0.0,
        multiplier: float = 1.0,
        inverse: bool = False,
        cap: Cap | None = None,
    ) -> PositionSizer:
        """A new sizer for one instrument.

        Parameters
        ----------
        lot, min_size, multiplier, inverse
            Facts of the instrument, as in :class:`PositionSizer`.
        cap : Cap, optional
            A further bound.

        Raises
        ------
        ConfigurationError
            When a value breaks its rule.
        """
        parts = [self._part(name) for name in self.parts]
        return PositionSizer(
            parts if cap is None else [*parts, cap],
            lot=lot,
            min_size=min_size,
            hysteresis=self.hysteresis,
            multiplier=multiplier,
            inverse=inverse,
            volatility=EwmaVariance(
                self.volatility_half_life, self.volatility_step, self.volatility_gap, self.volatility_samples
            ),
        )


def unit_value_at_risk(
    returns: npt.ArrayLike,
    level: float = 0.99,
    *,
    payoff: Literal["linear", "inverse", "binary"] = "linear",
    price: float = math.nan,
) -> tuple[float, float]:
    """Value at risk of one unit held long and of one held short, as fractions of its exposure.

    Parameters
    ----------
    returns : array_like, shape (S,)
        Relative price moves of the instrument, one per scenario.
    level : float
        Confidence in (0, 1).
    payoff : {"linear", "inverse", "binary"}
        How a move becomes a result; a binary needs its price.
    price : float
        Present price of a binary, within (0, 1).

    Returns
    -------
    tuple of (float, float)
        Long and short. Negative when even the tail gains.

    Raises
    ------
    DataConversionError
        When the returns are empty or not finite, or the price of a binary is none.
    """
    moves = np.asarray(returns, dtype=np.float64)
    if payoff == "inverse":
        if moves.size and not (moves > -1.0).all():
            raise DataConversionError(f"`returns` must be > -1 for an inverse instrument, held {moves.min()}")
        moves = moves / (1.0 + moves)
    elif payoff == "binary":
        if not 0.0 < price < 1.0:
            raise DataConversionError(f"`price` must be within 0 and 1 for a binary, was {price}")
        moves = (np.clip(price * (1.0 + moves), 0.0, 1.0) - price) / price
    elif payoff != "linear":
        raise DataConversionError(f"`payoff` must be linear, inverse or binary, was {payoff!r}")
    return value_at_risk(moves, level), value_at_risk(-moves, level)
