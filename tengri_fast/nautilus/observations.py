"""Observations from outside the market as NautilusTrader data: odds, headlines, releases.

One observation is put into a backtest with ``engine.add_data([CustomData(DataType(Observation), observation)],
client_id=ClientId("EXTERNAL"))``, or published live with ``publish_data(DataType(Observation), observation)``; the
strategies whose model reads its source take it. :func:`observations_of` turns the columns of a source into such a list.
"""

# Without `from __future__ import annotations`: the decorator below reads types, not texts.
import math
from collections.abc import Iterator, Sequence
from typing import Self

from nautilus_trader.core.data import Data
from nautilus_trader.model.custom import customdataclass
from nautilus_trader.model.data import CustomData, DataType

from tengri_fast.errors import DataConversionError
from tengri_fast.market.columns import ExternalColumns

__all__ = ["Observation", "observations_of"]

_VALUES = 4


@customdataclass
class Observation(Data):
    """One observation: it exists from `ts_event`, its publication, and is known here from `ts_init` on.

    Attributes
    ----------
    source : str
        Name of the source in the features that read it.
    first, second, third, fourth : float
        What they mean is the source's own business. The first is finite, the others NaN where there is none; they are
        refused by the features otherwise, and counted there.
    """

    source: str = ""
    first: float = math.nan
    second: float = math.nan
    third: float = math.nan
    fourth: float = math.nan

    @classmethod
    def of(cls, source: str, values: Sequence[float], ts_event: int, ts_init: int | None = None) -> Self:
        """An observation from 1 to 4 numbers.

        Parameters
        ----------
        source : str
        values : sequence of float
        ts_event : int
            Publication, UTC nanoseconds.
        ts_init : int, optional
            Receipt; by default at once.

        Raises
        ------
        DataConversionError
            If there are no values or too many, or it was received before its publication.
        """
        if not isinstance(source, str) or not source:
            raise DataConversionError(f"`source` must be a text that is not empty, was {source!r}")
        if not 1 <= len(values) <= _VALUES:
            raise DataConversionError(f"`values` must have 1 to {_VALUES} entries, had {len(values)}")
        received = ts_event if ts_init is None else ts_init
        if received < ts_event:
            raise DataConversionError(f"`ts_init` must be >= `ts_event` ({ts_event}), was {ts_init}")
        filled = [*map(float, values), *([math.nan] * (_VALUES - len(values)))]
        return cls(ts_event, received, source, *filled)

    @property
    def values(self) -> tuple[float, float, float, float]:
        """The four numbers."""
        return self.first, self.second, self.third, self.fourth


def observations_of(source: str, columns: ExternalColumns) -> Iterator[CustomData]:
    """The rows of a source as data for a backtest, in their order.

    Parameters
    ----------
    source : str
        Name of the source in the features that read it.
    columns : ExternalColumns
        What a source of :mod:`tengri_fast.features.external` gives.
    """
    kind = DataType(Observation)
    rows = zip(columns.ts_event.tolist(), columns.ts_init.tolist(), columns.values.tolist(), strict=True)
    for ts_event, ts_init, values in rows:
        yield CustomData(kind, Observation.of(source, values, ts_event, ts_init))
