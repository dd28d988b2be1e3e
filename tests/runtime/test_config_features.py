"""The lists of ``[neural.features]``: words of the user, checked when the file is read."""

from __future__ import annotations

import pytest
from support import REPOSITORY

from tengri_fast.errors import ConfigurationError
from tengri_fast.runtime.config import load_config

DEMO = (REPOSITORY / "examples" / "demo_btcusdt.toml").read_text(encoding="utf-8")


def load(tmp_path, lines: str):
    path = tmp_path / "user.toml"
    path.write_text(DEMO.replace("[neural.inference]", f"[neural.features]\n{lines}\n\n[neural.inference]"), "utf-8")
    return load_config(path)


def test_the_words_of_the_specification_load(tmp_path) -> None:
    config = load(tmp_path, 'technical_indicators = ["RSI", "MACD", "BollingerBands"]\n'
                            'market_microstructure = ["OrderBookImbalance", "VolumeProfile"]\n'
                            'external_data = ["PolymarketOdds", "NewsNLP", "MacroEconomic"]')  # fmt: skip
    assert config.neural.features.technical_indicators == ("RSI", "MACD", "BollingerBands")


def test_every_wrong_word_is_named_with_its_place(tmp_path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, 'technical_indicators = ["RSI", "MACDD", "sma(20)"]\nexternal_data = ["RSI"]')
    text = str(caught.value)
    assert "3 problems" in text
    assert "neural.features.technical_indicators[1] `feature` must be a known name or a spec, was 'MACDD'" in text
    assert "did you mean `MACD`?" in text
    assert "neural.features.technical_indicators[2] `feature` must not be a price level" in text
    assert "neural.features.external_data[0] must not be 'RSI', which belongs in technical_indicators" in text
