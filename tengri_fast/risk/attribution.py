"""Who carries the risk: marginal, component and incremental VaR and ES of every position.

*Marginal* is the derivative of the risk in the quantity, base currency per unit. *Component* is quantity times
marginal; risk is homogeneous of degree one, so components add up to the total (Euler; Tasche 1999). For simulations the
ES component is the position's mean result in the tail, E[-P_i | tail], and the VaR component its result in the VaR's
own scenario, or a kernel average around it when the model has a ``bandwidth`` (a single scenario is noisy).
*Incremental* is the risk with the position minus the risk without it; it does not add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk.fitted import RiskModel

__all__ = ["Attribution", "attribute"]

Floats = npt.NDArray[np.float64]
_MEASURES = ("var", "es")


@dataclass(frozen=True, eq=False)
class Attribution:
    """Risk split over N positions.

    Attributes
    ----------
    instrument_ids : tuple of str
        N names.
    measure : str
        "var" or "es".
    total : float
        Risk of the portfolio, base currency, positive for a loss.
    marginal : ndarray, shape (N,)
        Change of the risk per unit of quantity.
    component : ndarray, shape (N,)
        Adds up to ``total``; negative where a position hedges.
    incremental : ndarray, shape (N,)
        Risk with the position minus without; NaN where there is no finite answer without it, or none was asked for.
    method : str
        Method of the model.
    notes : tuple of str
        What to know about the numbers.
    """

    instrument_ids: tuple[str, ...]
    measure: str
    total: float
    marginal: Floats
    component: Floats
    incremental: Floats
    method: str
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> Floats:
        """Component over total, shape (N,); NaN when the total is zero."""
        if self.total == 0.0:
            return np.full(self.component.size, math.nan)
        result: Floats = self.component / self.total
        return result

    def by(self, groups: Sequence[str]) -> dict[str, float]:
        """Component risk per group, in order of first appearance; the groups add up to ``total`` too.

        Parameters
        ----------
        groups : sequence of str, length N
            Such as the asset classes, venues or currencies of the holdings.

        Raises
        ------
        DataConversionError
            When there is not one group per position.
        """
        if len(groups) != self.component.size:
            raise DataConversionError(f"`groups` must have {self.component.size} entries, had {len(groups)}")
        out: dict[str, float] = {}
        for name, value in zip(groups, self.component.tolist(), strict=True):
            out[name] = out.get(name, 0.0) + value
        return out


def attribute(model: RiskModel, measure: str = "es", *, incremental: bool = True) -> Attribution:
    """Split the risk of a fitted model over its positions.

    Parameters
    ----------
    model : RiskModel
        Of any method (:mod:`tengri_fast.risk.estimators`).
    measure : str
        "var" or "es".
    incremental : bool
        Compute the incremental risks too: one more valuation per position.

    Raises
    ------
    ConfigurationError
        When ``measure`` is neither.
    DataConversionError
        When the risk is infinite, or the method cannot be differentiated there.
    """
    if measure not in _MEASURES:
        raise ConfigurationError(f"`measure` must be one of {', '.join(_MEASURES)}, was {measure!r}")
    which = _MEASURES.index(measure)
    quantities = np.asarray(model.quantities, dtype=np.float64)
    total = model.functional.risk(quantities)[which]
    if not math.isfinite(total):
        raise DataConversionError(f"`{measure}` must be finite to be split, was {total}")
    marginal = np.asarray(model.functional.gradient(quantities)[which], dtype=np.float64)
    notes = []
    bandwidth = float(getattr(model.functional, "bandwidth", 0.0))
    if measure == "var" and bandwidth > 0.0:
        notes.append(f"averaged over {bandwidth:g} ranks to both sides of the VaR and scaled to add up to it")
    if model.method == "student_t":
        notes.append("given the degrees of freedom")
    without = np.full(quantities.size, math.nan)
    if incremental:
        refused = []
        for i in range(quantities.size):
            rest = quantities.copy()
            rest[i] = 0.0
            if not rest.any():
                without[i] = 0.0
                continue
            try:
                without[i] = model.functional.risk(rest)[which]
            except DataConversionError:
                without[i] = math.nan
            if not math.isfinite(without[i]):
                refused.append(model.instrument_ids[i])
        if refused:
            notes.append(f"the method has no finite answer without {', '.join(refused)}")
    return Attribution(
        model.instrument_ids,
        measure,
        total,
        marginal,
        quantities * marginal,
        total - without,
        model.method,
        tuple(notes),
    )
