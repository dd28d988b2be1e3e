"""Words of a configuration to features: every word works, none gives a price level, wrong ones are answered."""

from __future__ import annotations

import pytest

from tengri_fast.errors import ConfigurationError, FeatureExtractionError
from tengri_fast.features import FEATURES, FeaturePlan
from tengri_fast.features.names import SECTIONS, WORDS, configured_features, features_named, known_words
from tengri_fast.features.sources_config import parse_feature_config

ISSUE = {
    "technical_indicators": ["RSI", "MACD", "BollingerBands"],
    "market_microstructure": ["OrderBookImbalance", "VolumeProfile"],
    "external_data": ["PolymarketOdds", "NewsNLP", "MacroEconomic"],
}


def texts(word: str) -> list[str]:
    return [str(spec) for spec in features_named(word)]


def test_the_lists_of_a_configuration() -> None:
    specs = configured_features(**ISSUE)
    assert [spec.name for spec in specs] == [
        "rsi", "macd", "macd_signal", "macd_histogram", "bollinger_percent", "bollinger_bandwidth",
        "imbalance", "point_of_control", "value_area_high", "value_area_low", "profile_share",
        "odds_probability", "odds_spread", "odds_change", "external_available",
        "news_tone", "news_sentiment", "news_novelty", "news_count", "external_available",
        "macro_surprise", "macro_regime", "macro_age", "external_available",
    ]  # fmt: skip
    plan = FeaturePlan(specs)
    assert plan.sources == ("PolymarketOdds", "NewsNLP", "MacroEconomic")
    assert plan.legs == ()


@pytest.mark.parametrize(("word", "expected"), [
    ("RSI(21)", ["rsi(period=21)"]),
    ("rsi(21)", ["rsi(period=21)"]),
    ("RSI @ 1s, 1m, 500 ticks", ["rsi @ 1s", "rsi @ 1m", "rsi @ 500 ticks"]),
    ("BollingerBands(20, 2.5) @ 1m",
     ["bollinger_percent(deviations=2.5) @ 1m", "bollinger_bandwidth(deviations=2.5) @ 1m"]),
    ("bollinger_bands(deviations=3)", ["bollinger_percent(deviations=3)", "bollinger_bandwidth(deviations=3)"]),
    ("MACD(5, slow=20) | zscore(500) | clip(3)",
     [f"{name}(fast=5, slow=20) | zscore | clip(limit=3)" for name in ("macd", "macd_signal", "macd_histogram")]),
    ("SMA(50)", ["sma(period=50) | to_mid"]),
    ("EMA @ 1m | zscore", ["ema @ 1m | to_mid | zscore"]),
    ("DonchianUpper(10)", ["donchian_upper(period=10) | to_mid"]),
    ("ATR(10)", ["natr(period=10)"]),
    ("OBV", ["obv_ratio"]),
    ("VWAP", ["vwap_deviation"]),
    ("KyleLambda(window='1m')", ["kyle_lambda(window='1m')"]),
    ("OrderBookImbalance(levels=1)", ["imbalance"]),
    ("OrderBookImbalance(10, 0.5)", ["depth_imbalance(levels=10, decay=0.5)"]),
    ("VolumeProfile('1m', bins=64) | zscore", [f"{name}(window='1m', bins=64) | zscore" for name in
     ("point_of_control", "value_area_high", "value_area_low", "profile_share")]),
    ("PolymarketOdds('btc-up')", [f"{name}(source='btc-up', max_age='2h')" for name in
     ("odds_probability", "odds_spread", "odds_change", "external_available")]),
    ("PolymarketOdds(window=3) @ 1s", [
        "odds_probability(source='PolymarketOdds', max_age='2h') @ 1s",
        "odds_spread(source='PolymarketOdds', max_age='2h') @ 1s",
        "odds_change(source='PolymarketOdds', window=3, max_age='2h') @ 1s",
        "external_available(source='PolymarketOdds', max_age='2h') @ 1s"]),
    ("LeadLag('ETHUSDT', 2)", ["lead_lag(other='ETHUSDT', lag=2)"]),
    ("sma(20) | to_mid", ["sma | to_mid"]),
])  # fmt: skip
def test_a_word(word: str, expected: list[str]) -> None:
    assert texts(word) == expected


@pytest.mark.parametrize("word", known_words())
def test_every_word_makes_a_plan_without_prices(word: str) -> None:
    info = FEATURES.get(features_name(word), None)
    outside = () if info is None else tuple(p for p in info.parameters if p.outside)
    text = f"{word}({', '.join(repr('OTHER') for _ in outside)})" if outside and word not in WORDS else word
    specs = features_named(text)
    if any(spec.is_price for spec in specs):
        raise AssertionError(f"{word} gives a price level")
    plan = FeaturePlan(specs)
    assert plan.width == len(specs) >= 1
    assert features_named(word.upper() + text[len(word) :]) == specs, "case does not matter"


def features_name(word: str) -> str:
    return next((name for name in FEATURES if name.replace("_", "") == word.lower()), "")


def test_every_composed_word_has_a_row_and_a_list() -> None:
    assert {word.section for word in WORDS.values()} == set(SECTIONS)
    for word in WORDS.values():
        for column in word.columns:
            assert column in FEATURES, word
        known = {p.name for column in word.columns for p in FEATURES[column].parameters}
        extra = {p.name for p in FEATURES["depth_imbalance"].parameters} if "imbalance" in word.columns else set()
        assert set(word.parameters) <= known | extra, word


@pytest.mark.parametrize(("word", "message"), [
    ("RSY", "was 'RSY'; did you mean `RSI`"),
    ("Bolinger", "did you mean `Bollinger`"),
    ("OrderBokImbalance", "did you mean `OrderBookImbalance`"),
    ("Xyzzy", "known: SMA, EMA"),
    ("RSI(1, 2)", "`RSI` must have at most 1 parameters, had 2"),
    ("RSI(perod=3)", "`perod` is not a parameter of RSI; did you mean `period`"),
    ("RSI(21, period=3)", "`period` of RSI must be given once"),
    ("RSI(0)", "`period` of rsi must be a whole number from 1"),
    ("MACD(fast=30)", "fast < slow"),
    ("RSI @ 1m @ 2m", "must have one `@`"),
    ("RSI | zscor", "did you mean `zscore`"),
    ("sma(20)", "write `sma | to_mid`"),
    ("atr", "natr is the relative form"),
    ("MacdLine(relative=0)", "must be a known name"),
    ("TrueRange(0)", "must not be a price difference"),
    ("true_range(relative=0)", "must not be a price level"),
    ("", "must be a text such as"),
    ("RSI(__import__('os').getcwd())", "must look like"),
    ("RSI(*[1])", "must look like"),
    ("(RSI)", "must look like|must be"),
    ("PolymarketOdds(widow=3)", "did you mean `window`"),
    ("MACD(relative=0)", "must not be a price difference"),
])  # fmt: skip
def test_a_wrong_word_is_answered(word: str, message: str) -> None:
    with pytest.raises(FeatureExtractionError, match=message):
        features_named(word)


def test_a_wrong_list_names_its_place() -> None:
    with pytest.raises(FeatureExtractionError, match=r"`technical_indicators\[1\]`: .*did you mean `MACD`"):
        configured_features(["RSI", "MCD"])
    with pytest.raises(FeatureExtractionError, match=r"\[0\]` must not be 'NewsNLP', which belongs in external_data"):
        configured_features(["NewsNLP"])
    with pytest.raises(FeatureExtractionError, match=r"`external_data\[0\]` must not be 'RSI', which belongs in"):
        configured_features(external_data=["RSI"])


def test_what_is_named_twice_is_one_column() -> None:
    assert len(configured_features(["RSI", "rsi(14)", "RSI(14)"], ["Spread", "BidAskSpread"])) == 2


def test_the_small_file(tmp_path) -> None:
    (tmp_path / "eth.parquet").write_bytes(b"")
    (tmp_path / "odds.csv").write_text("")
    config = parse_feature_config({
        "features": ["RSI(21) @ 1m", "sma(20)", "premium('ETH')", "PolymarketOdds"], "clock": "trade",
        "legs": {"ETH": "eth.parquet"},
        "external": {"PolymarketOdds": {"path": "odds.csv", "market": "btc", "delay": "2s", "columns": {"bid": "b"}}},
        "normalisation": {"mean": 0.0, "scale": [2.0] * 7, "clip": 5},
    }, tmp_path, "f.toml")  # fmt: skip
    plan = config.plan()
    assert (plan.width, config.clock, plan.legs) == (7, "trade", ("ETH",))
    assert plan.normalisation.scale.tolist() == [2.0] * 7
    odds = config.external["PolymarketOdds"]
    assert (odds.source, odds.delay_ns, dict(odds.parameters), dict(odds.columns)) == (
        "PolymarketOdds", 2 * 10**9, {"market": "btc"}, {"bid": "b"})  # fmt: skip


@pytest.mark.parametrize(("document", "message"), [
    ({"feature": ["RSI"]}, "`feature` is not a key of a file of features; did you mean 'features'"),
    ({"features": []}, "`features` must be a list of texts"),
    ({"features": ["RSI", "RSY"]}, r"f.toml: `features\[1\]`: .*did you mean `RSI`"),
    ({"features": ["RSI"], "clock": "bars"}, "`clock` must be one of quote, trade, depth, bar, was 'bars'"),
    ({"features": ["RSI"], "legs": {"ETH": "no.parquet"}}, "`legs.ETH` must name an existing file"),
    ({"features": ["RSI"], "legs": 3}, "`legs` must be a table"),
    ({"features": ["RSI"], "external": {"a": {}}}, "`external.a` must be a table with `path`"),
    ({"features": ["RSI"], "external": {"a": {"path": "f", "source": "News"}}}, "did you mean 'NewsNLP'"),
    ({"features": ["RSI"], "external": {"NewsNLP": {"path": "f", "delay": "soon"}}}, "`delay` must be a duration"),
    ({"features": ["RSI"], "normalisation": {"mean": [1, 2]}}, "`normalisation.mean` must have 1 entries, had 2"),
    ({"features": ["RSI"], "normalisation": {"means": 1}}, "did you mean 'mean'"),
    ({"features": ["RSI"], "normalisation": {"clip": True}}, "`normalisation.clip` must be a number"),
])  # fmt: skip
def test_a_wrong_small_file(tmp_path, document, message: str) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(ConfigurationError, match=message):
        parse_feature_config(document, tmp_path, "f.toml")


def test_what_is_read_must_have_a_file(tmp_path) -> None:
    config = parse_feature_config({"features": ["premium('ETH')", "NewsNLP"]}, tmp_path)
    with pytest.raises(ConfigurationError, match="`legs` must have a file for 'ETH', which the features read"):
        config.plan()
