"""Sources from outside the market: odds, headlines and economic releases as point-in-time observations.

A source turns files (`from_file`, `observations`) and live messages (`push`) into the same four numbers, by the same
arithmetic. What becomes of them (decay, staleness, availability flags) is the feature engine's business.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.external.common import RESOLUTIONS, SourceCounters, SourceInfo, Values, available_from, gaps
from tengri_fast.features.external.fred_md import FredMd, fred_md_series, lag_days_of, read_fred_md
from tengri_fast.features.external.lexicon import Sentiment, analyse, sentiment
from tengri_fast.features.external.macro import FORECASTS, TRANSFORMS, MacroEconomic
from tengri_fast.features.external.markets import (
    Market,
    PriceFeed,
    UpDownMarket,
    read_markets,
    read_odds,
    read_price_feed,
    read_price_history,
    read_up_down_markets,
    select_markets,
    strikes,
)
from tengri_fast.features.external.news import TOPICS, NewsNLP, TextModel
from tengri_fast.features.external.polymarket import PolymarketOdds, Settlement
from tengri_fast.features.external.regime import PHASES, Regime, regimes

__all__ = [
    "FORECASTS",
    "PHASES",
    "RESOLUTIONS",
    "SOURCES",
    "TOPICS",
    "TRANSFORMS",
    "FredMd",
    "MacroEconomic",
    "Market",
    "NewsNLP",
    "PolymarketOdds",
    "PriceFeed",
    "Regime",
    "Sentiment",
    "Settlement",
    "SourceCounters",
    "SourceInfo",
    "TextModel",
    "UpDownMarket",
    "Values",
    "analyse",
    "available_from",
    "create",
    "fred_md_series",
    "gaps",
    "lag_days_of",
    "read_fred_md",
    "read_markets",
    "read_odds",
    "read_price_feed",
    "read_price_history",
    "read_up_down_markets",
    "regimes",
    "select_markets",
    "sentiment",
    "strikes",
]

_CLASSES: dict[str, type[PolymarketOdds] | type[NewsNLP] | type[MacroEconomic]] = {
    source.name: source for source in (PolymarketOdds, NewsNLP, MacroEconomic)
}

#: The sources by the name in the user's configuration.
SOURCES: Mapping[str, SourceInfo] = MappingProxyType({name: source.info for name, source in _CLASSES.items()})


def create(name: str, **parameters: Any) -> PolymarketOdds | NewsNLP | MacroEconomic:
    """A source by its name in the configuration.

    Parameters
    ----------
    name : str
        A key of `SOURCES`.
    **parameters
        Of the class; all are optional.

    Raises
    ------
    FeatureExtractionError
        If there is no such source or parameter, or a value breaks its rule.
    """
    source = _CLASSES.get(name)
    if source is None:
        close = difflib.get_close_matches(str(name), _CLASSES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise FeatureExtractionError(f"`source` must be one of {', '.join(_CLASSES)}, was {name!r}{hint}")
    try:
        return source(**parameters)
    except TypeError as error:
        raise FeatureExtractionError(f"`parameters` of {name} must fit: {error}") from None
