"""Words of a configuration ("RSI", "BollingerBands(20, 2.5) @ 1m", "PolymarketOdds") to features that a model may eat.

A word stands for one or more columns, none of them a raw price level. Behind it parameters, clocks and stages may be
written as in a spec. A text in lower case is a spec as it is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.clock import EVENT_CLOCK, parse_clock
from tengri_fast.features.parameters import nearest, show_duration
from tengri_fast.features.spec import FEATURES, STAGES, FeatureSpec, _call, _cut, parse_specs

__all__ = ["SECTIONS", "WORDS", "Word", "configured_features", "features_named", "known_words"]

#: Lists of the section ``[neural.features]``.
SECTIONS: Final = ("technical_indicators", "market_microstructure", "external_data")

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRICE_STAGE = "to_mid"


class Word(NamedTuple):
    """What a word stands for.

    Attributes
    ----------
    name : str
        As it is written; case and underscores do not matter.
    section : str
        The list of the configuration in which it is at home.
    parameters : tuple of str
        In order; a column takes those that it has.
    columns : tuple of str
        Rows of the feature table, with what is fixed, as specs.
    """

    name: str
    section: str
    parameters: tuple[str, ...]
    columns: tuple[str, ...]


_TECHNICAL, _BOOK, _OUTSIDE = SECTIONS


def _words(section: str, rows: Iterable[tuple[str, str, str]]) -> dict[str, Word]:
    made = (
        Word(name, section, tuple(parameters.split()), tuple(part.strip() for part in columns.split(";")))
        for name, parameters, columns in rows
    )
    return {_plain(word.name): word for word in made}


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


# Words that stand for several columns, or that the field spells otherwise than the table. Every row of the table is a
# word too (`KyleLambda` is kyle_lambda), so only these need a line.
_COMPOSED: Final[dict[str, Word]] = {
    **_words(_TECHNICAL, (
        ("SMA", "period", "sma"),
        ("EMA", "period", "ema"),
        ("WMA", "period", "wma"),
        ("RSI", "period", "rsi"),
        ("MACD", "fast slow signal", "macd; macd_signal; macd_histogram"),
        ("BollingerBands", "period deviations", "bollinger_percent; bollinger_bandwidth"),
        ("Bollinger", "period deviations", "bollinger_percent; bollinger_bandwidth"),
        ("ATR", "period", "natr"),
        ("AverageTrueRange", "period", "natr"),
        ("Stochastic", "period smooth_k smooth_d", "stochastic_k; stochastic_d"),
        ("CCI", "period", "cci"),
        ("ADX", "period", "adx; plus_di; minus_di"),
        ("OBV", "period", "obv_ratio"),
        ("OnBalanceVolume", "period", "obv_ratio"),
        ("VWAP", "session", "vwap_deviation"),
        ("RollingVWAP", "window", "rolling_vwap_deviation"),
        ("ROC", "period", "rate_of_change"),
        ("Momentum", "period", "rate_of_change"),
        ("Donchian", "period", "donchian_position; donchian_width"),
        ("DonchianChannels", "period", "donchian_position; donchian_width"),
        ("DonchianChannel", "period", "donchian_position; donchian_width"),
        ("Keltner", "period multiplier atr_period", "keltner_position"),
        ("KeltnerChannels", "period multiplier atr_period", "keltner_position"),
        ("KeltnerChannel", "period multiplier atr_period", "keltner_position"),
        ("Aroon", "period", "aroon_up; aroon_down"),
        ("MoneyFlowIndex", "period", "mfi"),
        ("WilliamsPercentR", "period", "williams_r"),
    )),
    **_words(_BOOK, (
        ("OrderBookImbalance", "levels decay", "imbalance"),
        ("BookImbalance", "levels decay", "imbalance"),
        ("VolumeProfile", "window tick bins", "point_of_control; value_area_high; value_area_low; profile_share"),
        ("OFI", "window levels", "order_flow_imbalance"),
        ("TradeFlowImbalance", "window", "signed_trade_flow"),
        ("FlowImbalance", "window", "signed_trade_flow"),
        ("Microprice", "", "microprice_deviation"),
        ("MidPrice", "lag", "mid_return"),
        ("Mid", "lag", "mid_return"),
        ("BidAskSpread", "tick", "spread"),
        ("RealizedVolatility", "window", "realized_volatility"),
        ("Bipower", "window", "bipower_variation"),
        ("Jumps", "window", "jump_share; jump_test"),
        ("Hawkes", "half_life", "buy_intensity; sell_intensity"),
        ("HawkesIntensity", "half_life", "buy_intensity; sell_intensity"),
        ("BookDepth", "levels", "depth"),
    )),
    **_words(_OUTSIDE, (
        ("PolymarketOdds", "source", "odds_probability; odds_spread; odds_change; external_available"),
        ("NewsNLP", "source half_life", "news_tone; news_sentiment; news_novelty; news_count; external_available"),
        ("MacroEconomic", "source", "macro_surprise; macro_regime; macro_age; external_available"),
    )),
}  # fmt: skip

#: Composed words by their own spelling.
WORDS: Final[Mapping[str, Word]] = {word.name: word for word in _COMPOSED.values()}


def _section_of(needs: str, name: str) -> str:
    if "external" in needs:
        return _OUTSIDE
    return _TECHNICAL if "bars" in needs or name == "rsi" else _BOOK


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _lookup(name: str) -> Word | None:
    found = _COMPOSED.get(_plain(name))
    if found is not None:
        return found
    for info in FEATURES.values():
        if _plain(info.name) == _plain(name):
            parameters = tuple(parameter.name for parameter in info.parameters)
            return Word(_camel(info.name), _section_of(info.needs, info.name), parameters, (info.name,))
    return None


def known_words() -> tuple[str, ...]:
    """Every word, composed ones first, then those of single rows of the feature table."""
    single = (_camel(name) for name in FEATURES if _plain(name) not in _COMPOSED)
    return (*WORDS, *single)


def _columns_of(word: Word, params: dict[str, object]) -> list[tuple[str, dict[str, object]]]:
    """Rows of the table with the parameters that go to each."""
    if word.section == _OUTSIDE and word.name in WORDS:
        from tengri_fast.features.external import SOURCES

        given = {"source": word.name, **params}
        age = show_duration(SOURCES[word.name].max_age_ns)
        made = []
        for name in word.columns:
            known = {parameter.name for parameter in FEATURES[name].parameters}
            chosen = {key: value for key, value in given.items() if key in known}
            if "max_age" in known:
                chosen.setdefault("max_age", age)
            made.append((name, chosen))
        return made
    if word.columns == ("imbalance",):
        # The best level is in quotes and depth alike; more of them are in depth only.
        if set(params) - {"levels", "decay"} or params.get("levels", 1) != 1 or "decay" in params:
            return [("depth_imbalance", params)]
        return [("imbalance", {})]
    return [
        (name, {key: value for key, value in params.items()
                if key in {parameter.name for parameter in FEATURES[name].parameters}})
        for name in word.columns
    ]  # fmt: skip


def _parsed(text: str) -> tuple[str, dict[str, object], list[str], list[str]]:
    """Name, parameters, clocks and stages of ``Word(1, key=2) @ 1s, 1m | stage``."""
    first, *stages = _cut(text, "|")
    call, *clocks = _cut(first, "@")
    if len(clocks) > 1:
        raise FeatureExtractionError(f"`feature` must have one `@`, was {text[:80]!r}")
    stripped = call.strip()
    params: dict[str, object]
    if _WORD.fullmatch(stripped):
        name, positions, params = stripped, 0, {}
    else:
        name, params = _call(stripped, {})
        positions = len(_positional(stripped))
    word = _lookup(name)
    if word is None:
        raise FeatureExtractionError(f"`feature` must be a known name or a spec, was {name!r}{_meant(name)}")
    if positions:
        if positions > len(word.parameters):
            raise FeatureExtractionError(
                f"`{word.name}` must have at most {len(word.parameters)} parameters, had {positions}"
            )
        for key, value in zip(word.parameters, _positional(stripped), strict=False):
            if key in params:
                raise FeatureExtractionError(f"`{key}` of {word.name} must be given once, was given twice")
            params[key] = value
    allowed = {*word.parameters, *(p.name for row in word.columns for p in FEATURES[row].parameters)}
    for key in params:
        if key not in allowed:
            raise FeatureExtractionError(f"`{key}` is not a parameter of {word.name}{nearest(key, sorted(allowed))}")
    return name, params, clocks[0].split(",") if clocks else [], [stage.strip() for stage in stages]


def _meant(name: str) -> str:
    close = difflib.get_close_matches(_plain(name), [_plain(word) for word in known_words()], n=1, cutoff=0.6)
    if close:
        return f"; did you mean `{next(word for word in known_words() if _plain(word) == close[0])}`?"
    return f"; known: {', '.join(WORDS)}, and the rows of the feature table"


def _positional(text: str) -> list[object]:
    import ast

    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    return [ast.literal_eval(argument) for argument in call.args]


def features_named(text: str) -> tuple[FeatureSpec, ...]:
    """Columns that a word, or a spec, of the configuration stands for.

    Parameters
    ----------
    text : str
        A word with optional parameters, clocks and stages, such as ``RSI``, ``BollingerBands(20, 2.5) @ 1m, 5m`` or
        ``MACD | zscore(500)``; or the text of a spec (`parse_specs`).

    Returns
    -------
    tuple of FeatureSpec
        For each clock the columns of the word. A word whose row is a price level gets the stage `to_mid`.

    Raises
    ------
    FeatureExtractionError
        If the name is unknown (the nearest is told), a parameter breaks its rule, or a spec gives raw price levels,
        which float32 has too few digits for.
    """
    if not isinstance(text, str) or not text.strip():
        raise FeatureExtractionError(f"`feature` must be a text such as 'RSI(21) @ 1m', was {text!r}")
    head = re.match(r"\s*([A-Za-z_][A-Za-z0-9_]*)", text)
    if head is None or head[1] in FEATURES:
        specs = parse_specs(text)
        for spec in specs:
            if spec.is_price:
                hint = f"write `{spec} | {_PRICE_STAGE}`" if spec.info.unit == "price" else spec.info.rule
                raise FeatureExtractionError(
                    f"`feature` must not be a price level as input of a model, was {spec}; {hint}"
                )
        return specs
    name, params, clocks, stages = _parsed(text)
    word = _lookup(name)
    assert word is not None
    made = []
    for clock in [parse_clock(clock) for clock in clocks] or [EVENT_CLOCK]:
        for row, chosen in _columns_of(word, dict(params)):
            before = (_PRICE_STAGE,) if FEATURES[row].unit == "price" and _PRICE_STAGE in STAGES else ()
            spec = FeatureSpec(row, clock=clock, stages=(*before, *stages), **chosen)
            if spec.is_price:
                raise FeatureExtractionError(f"`{word.name}` must not be a price difference as input of a model, "
                                             f"was {spec}; {spec.info.rule}")  # fmt: skip
            made.append(spec)
    return tuple(made)


def configured_features(
    technical_indicators: Iterable[str] = (),
    market_microstructure: Iterable[str] = (),
    external_data: Iterable[str] = (),
) -> tuple[FeatureSpec, ...]:
    """Columns of the three lists of ``[neural.features]``, in their order, each once.

    Parameters
    ----------
    technical_indicators, market_microstructure, external_data : iterable of str
        Words or specs; see `features_named`. A list takes any of them, but sources from outside the market belong in
        `external_data` and nothing else does.

    Raises
    ------
    FeatureExtractionError
        With the list and the place in it that broke a rule.
    """
    made: dict[FeatureSpec, None] = {}
    for section, texts in zip(SECTIONS, (technical_indicators, market_microstructure, external_data), strict=True):
        for place, text in enumerate(texts):
            try:
                specs = features_named(text)
            except FeatureExtractionError as error:
                raise FeatureExtractionError(f"`{section}[{place}]`: {error}") from None
            outside = all(spec.sources for spec in specs)
            if outside != (section == _OUTSIDE):
                right = "external_data" if outside else "technical_indicators or market_microstructure"
                raise FeatureExtractionError(f"`{section}[{place}]` must not be {text!r}, which belongs in {right}")
            made.update(dict.fromkeys(specs))
    return tuple(made)
