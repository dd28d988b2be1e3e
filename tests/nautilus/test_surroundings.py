"""Other instruments, external sources and the feature store around a strategy, in Nautilus' own backtest engine."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import REPOSITORY, sample_data

pytest.importorskip("nautilus_trader", reason="nautilus_trader is not installed")

from model_on_disk import write_model
from nautilus_trader.model.data import CustomData, DataType, OrderBookDepth10, QuoteTick, TradeTick
from nautilus_trader.model.identifiers import ClientId
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.persistence.catalog import ParquetDataCatalog
from neural_scene import INSTRUMENT, OTHER_INSTRUMENT, START, backtest, depth, market, quote, register, run

from tengri_fast.errors import ConfigurationError, DataConversionError, FeatureExtractionError
from tengri_fast.features.external import PolymarketOdds
from tengri_fast.features.store import FeatureStore
from tengri_fast.market import DepthColumns, ExternalColumns, QuoteColumns, read_quotes, read_trades
from tengri_fast.market.contracts import contract
from tengri_fast.nautilus import TengriNeuralConfig, TengriNeuralStrategy
from tengri_fast.nautilus.backtest_config import model_of
from tengri_fast.nautilus.loaders import MarketData, instrument_from_contract
from tengri_fast.nautilus.observations import Observation, observations_of
from tengri_fast.runtime.config import load_config
from tengri_fast.runtime.model_spec import load_bundle

LEG = str(OTHER_INSTRUMENT.id)
EXTERNAL = ClientId("EXTERNAL")
FEATURES = (
    "mid_return(lag=5)",
    "imbalance()",
    "signed_trade_flow(window='1s')",
    f"correlation(other='{LEG}', window=50)",
    f"leg_return(other='{LEG}', lag=3)",
    f"leg_age(other='{LEG}')",
    "odds_probability(source='odds')",
    "odds_change(source='odds', window='5s')",
    "external_available(source='odds')",
    "external_available(source='unseen')",
)
SIGNAL_COLUMNS = ("ts_event", "mid", "spread", "p_down", "p_flat", "p_up", "value", "confidence", "sequence", "slot")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_bundle(write_model(tmp_path_factory.mktemp("model"), FEATURES))


class Keeper(TengriNeuralStrategy):
    """Keeps the raw feature row of every signal."""

    def __init__(self, config: Any, bundle: Any, store: Any = None) -> None:
        super().__init__(config, bundle, store)
        self.rows: list[Any] = []
        self.times: list[int] = []
        self.heard: list[Any] = []

    def on_signal(self, signal: Any) -> None:
        self.rows.append(self.engine.feature_row(signal.slot))
        self.times.append(signal.ts_event)

    def on_data(self, data: Any) -> None:
        self.heard.append(data)


def config(tag: str = "001", **changes: Any) -> TengriNeuralConfig:
    values: dict[str, Any] = {"model": "unused", "instrument_id": INSTRUMENT.id, "order_id_tag": tag,
                              "record_signals": True, **changes}  # fmt: skip
    return TengriNeuralConfig(**values)


def first(columns: Any, count: int) -> Any:
    names = [name for name in type(columns).__dataclass_fields__ if not name.startswith("_")]
    return type(columns)(**{name: getattr(columns, name)[:count] for name in names})


def leg_quotes(start: int, end: int, count: int, seed: int = 1) -> tuple[list[QuoteTick], QuoteColumns]:
    """A random walk of the other instrument, as ticks and as columns; some at times of one another."""
    rng = np.random.default_rng(seed)
    ts = np.sort(rng.integers(start, end, count)).astype(np.uint64)
    mid = 3_000.0 + 0.01 * np.cumsum(rng.integers(-9, 10, count))
    ticks = [
        QuoteTick(OTHER_INSTRUMENT.id, Price(m - 0.01, 2), Price(m + 0.01, 2), Quantity(1.5, 3), Quantity(2.5, 3), t, t)
        for m, t in zip(mid, ts.tolist(), strict=True)
    ]
    bid, ask = (np.array([getattr(t, side).as_double() for t in ticks]) for side in ("bid_price", "ask_price"))
    size = np.full(count, 1.5), np.full(count, 2.5)
    return ticks, QuoteColumns(ts, ts, bid, ask, *size)


def odds_columns(start: int, end: int, count: int, delay: int, seed: int = 2) -> ExternalColumns:
    rng = np.random.default_rng(seed)
    ts = np.sort(rng.integers(start, end - delay, count)).astype(np.uint64)
    bid = 0.9 * rng.random(count)
    return ExternalColumns(ts, ts + np.uint64(delay), np.column_stack([bid, bid + 0.1 * rng.random(count)]))


def test_a_backtest_equals_research_to_the_bit(bundle: Any) -> None:
    """Two instruments, trades, and a source whose observations arrive 300 ms after their publication."""
    stem = "binance_usdm_btcusdt_20240718"
    quotes = first(read_quotes(sample_data(f"{stem}.quotes.parquet")), 6_000)
    start, end = int(quotes.ts_init[0]), int(quotes.ts_init[-1])
    trades = read_trades(sample_data(f"{stem}.trades.parquet"))
    trades = first(trades, int(np.searchsorted(trades.ts_init, end)))
    ticks, leg = leg_quotes(start - 10**9, end, 3_000)
    odds = odds_columns(start, end, 200, 300_000_000)
    instrument = instrument_from_contract(contract("binance_usdm_btcusdt"))
    strategy = Keeper(config(instrument_id=instrument.id), bundle)
    own = list(MarketData(instrument, quotes, trades).objects())
    engine = backtest(own, strategy, instruments=(instrument, OTHER_INSTRUMENT))
    engine.add_data(ticks)
    engine.add_data(list(observations_of("odds", odds)), client_id=EXTERNAL)
    run(engine)
    research = bundle.plan.compute(quotes, trades, legs={LEG: leg}, external={"odds": odds})
    np.testing.assert_array_equal(np.array(strategy.times, np.uint64), research.ts[research.ready])
    np.testing.assert_array_equal(np.array(strategy.rows), research.values[research.ready])
    moving = research.values[research.ready].std(axis=0) > 0
    assert moving.tolist() == [*[True] * 8, False, False] or moving.tolist() == [*[True] * 9, False]
    assert research.values[:, 9].max() == 0.0  # a source that is never seen: not available, and no reason to wait
    assert len(strategy.rows) > 5_000
    assert len(strategy.heard) == 200  # the ordinary handler is called as often as Nautilus calls it
    counters = strategy.engine.counters(0)
    assert counters["accepted"] == research.counters.accepted
    assert counters["signals"] == len(strategy.rows)
    engine.dispose()


def small_market(seconds: int = 60) -> tuple[list[Any], list[Any], list[Any]]:
    own = market(10 * seconds)
    ticks, _ = leg_quotes(START, START + seconds * 10**9, 3 * seconds)
    odds = odds_columns(START, START + seconds * 10**9, seconds, 0)
    return own, ticks, list(observations_of("odds", odds))


def run_all(*strategies: Any, seconds: int = 60) -> Any:
    own, ticks, odds = small_market(seconds)
    engine = backtest(own, *strategies, instruments=(INSTRUMENT, OTHER_INSTRUMENT))
    engine.add_data(ticks)
    engine.add_data(odds, client_id=EXTERNAL)
    run(engine)
    return engine


def assert_same(left: Any, right: Any) -> None:
    assert len(left["ts_event"]) > 100
    for name in SIGNAL_COLUMNS:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_strategies_of_one_store_share_and_signal_as_alone(bundle: Any, tmp_path: Any) -> None:
    other = load_bundle(write_model(tmp_path, FEATURES, seed=99))
    expected = []
    for one in (bundle, other):
        alone = Keeper(config(), one)
        engine = run_all(alone)
        expected.append(alone.signals())
        accepted = alone.engine.counters(0)["accepted"]
        own_bytes = alone.engine.nbytes_held
        engine.dispose()
    store = FeatureStore()
    models = (bundle, other, bundle)
    strategies = [Keeper(config(f"00{i}"), one, store) for i, one in enumerate(models)]
    engine = run_all(*strategies)
    for strategy, signals in zip(strategies, (*expected, expected[0]), strict=True):
        assert_same(strategy.signals(), signals)
        assert strategy.engine.counters(0)["accepted"] == accepted
    memory = store.memory
    assert (memory.states, memory.handles) == (1, 3)
    assert strategies[1].engine.nbytes_held < own_bytes - bundle.plan.nbytes + 8_000 < own_bytes / 4
    shared = strategies[0].engine.shared(0)
    assert shared.rows_computed <= len(expected[0]["ts_event"]) + 100
    assert "3 handle(s)" in store.explain()
    # A second run of the same engine begins anew, though three strategies are reset one after another.
    engine.reset()
    run(engine)
    for strategy, signals in zip(strategies, (*expected, expected[0]), strict=True):
        assert_same(strategy.signals(), signals)
    engine.dispose()
    del engine, shared
    assert store.memory.handles == 0


def test_another_backtest_with_the_same_store_does_not_mix(bundle: Any) -> None:
    store = FeatureStore()
    kept = []
    for _ in range(2):  # the first engine is neither disposed nor gone
        strategy = Keeper(config(), bundle, store)
        kept.append((run_all(strategy, seconds=30), strategy))
    assert_same(kept[0][1].signals(), kept[1][1].signals())
    assert store.memory.states == 2
    for engine, _ in kept:
        engine.dispose()


def test_named_stores_come_from_the_configuration(bundle: Any) -> None:
    strategies = [Keeper(config(tag, feature_store="desk"), bundle) for tag in ("001", "002")]
    assert strategies[0].engine.store is strategies[1].engine.store is FeatureStore.named("desk")
    engine = run_all(*strategies, seconds=20)
    assert FeatureStore.named("desk").memory.handles == 2
    assert_same(strategies[0].signals(), strategies[1].signals())
    engine.dispose()
    del strategies, engine
    gc.collect()


def by_hand(bundle: Any, store: Any = None, instruments: Any = (INSTRUMENT, OTHER_INSTRUMENT), **changes: Any) -> Any:
    strategy = Keeper(config(**changes), bundle, store)
    register(strategy, instruments=instruments)
    return strategy


def hand_over(strategy: Any, event: Any, historical: bool = False) -> None:
    handler = strategy.handle_quote_tick if isinstance(event, QuoteTick) else strategy.handle_trade_tick
    handler(event, historical)


def test_history_feeds_legs_and_makes_no_signal(bundle: Any) -> None:
    own, ticks, _ = small_market()
    events = sorted([*own, *ticks], key=lambda event: event.ts_init)
    whole, warmed = by_hand(bundle), by_hand(bundle)
    for strategy in (whole, warmed):
        strategy.start()
    half = len(events) // 2
    for at, event in enumerate(events):
        hand_over(whole, event)
        hand_over(warmed, event, historical=at < half)
    turn = events[half].ts_init
    later = [i for i, ts in enumerate(whole.times) if ts >= turn]
    assert warmed.times == [whole.times[i] for i in later]
    np.testing.assert_array_equal(np.array(warmed.rows), np.array(whole.rows)[later])
    a, b = whole.signals(), warmed.signals()
    np.testing.assert_array_equal(a["value"][-len(later) :], b["value"])


def test_history_with_a_store_warms_each_session_and_is_kept_once(bundle: Any) -> None:
    own, ticks, _ = small_market()
    events = sorted([*own, *ticks], key=lambda event: event.ts_init)
    half = len(events) // 2
    alone = by_hand(bundle)
    store = FeatureStore()
    first, second = (by_hand(bundle, store) for _ in range(2))
    for strategy in (alone, first, second):
        strategy.start()
        for event in events[:half]:
            hand_over(strategy, event, historical=True)
    for event in events[half:]:
        for strategy in (alone, first, second):
            hand_over(strategy, event)
    assert_same(alone.signals(), first.signals())
    assert_same(alone.signals(), second.signals())


@pytest.mark.parametrize("shared", [False, True])
def test_history_from_a_catalog_has_the_legs_in_it(bundle: Any, tmp_path: Path, shared: bool) -> None:
    own, ticks, _ = small_market()
    events = sorted([*own, *ticks], key=lambda event: event.ts_init)
    turn = events[len(events) // 2].ts_init
    past = [event for event in events if event.ts_init < turn]
    catalog = ParquetDataCatalog(str(tmp_path / "catalog"))
    catalog.write_data([INSTRUMENT, OTHER_INSTRUMENT])
    for instrument in (INSTRUMENT, OTHER_INSTRUMENT):
        for kind in (QuoteTick, TradeTick):
            mine = [e for e in past if isinstance(e, kind) and e.instrument_id == instrument.id]
            if mine:
                catalog.write_data(mine)
    whole = Keeper(config(), bundle)
    engine = backtest(events, whole, instruments=(INSTRUMENT, OTHER_INSTRUMENT))
    run(engine)
    engine.dispose()
    store = FeatureStore() if shared else None
    warmed = [Keeper(config(f"00{i}", history="1d"), bundle, store) for i in range(2)]
    later = [event for event in events if event.ts_init >= turn]
    engine = backtest(later, *warmed, instruments=(INSTRUMENT, OTHER_INSTRUMENT), catalog=tmp_path / "catalog")
    run(engine)
    engine.dispose()
    expected = whole.signals()
    live = expected["ts_event"] >= turn
    for strategy in warmed:
        got = strategy.signals()
        assert len(got["ts_event"]) == live.sum() > 100
        for name in ("ts_event", "mid", "p_down", "p_flat", "p_up", "value"):
            np.testing.assert_array_equal(got[name], expected[name][live], err_msg=name)


def test_a_model_gets_the_sources_that_the_configuration_allows(bundle: Any) -> None:
    folder = bundle.path.parent
    text = (REPOSITORY / "examples" / "demo_btcusdt.toml").read_text(encoding="utf-8")
    assert "neural.features" not in text
    changes = [f'neural.models[0].config="{folder}"', 'neural.models[0].type="LSTM"']
    with pytest.raises(
        ConfigurationError, match=r"neural.features.external_data.*must list the source 'odds', which the model 'tiny'"
    ):
        model_of(load_config(REPOSITORY / "examples" / "demo_btcusdt.toml", changes))
    listed = """["odds_probability(source='odds')", "external_available(source='unseen')"]"""
    changes.append(f"neural.features.external_data={listed}")
    _, found = model_of(load_config(REPOSITORY / "examples" / "demo_btcusdt.toml", changes))
    assert found.plan.sources == ("odds", "unseen")


def test_legs_may_have_short_names_and_be_traded_too(tmp_path: Any) -> None:
    bundle = load_bundle(write_model(tmp_path, ("imbalance()", "leg_return(other='ETH', lag=1)")))
    own, ticks, _ = small_market(20)
    events = sorted([*own, *ticks], key=lambda event: event.ts_init)
    ids = (INSTRUMENT.id, OTHER_INSTRUMENT.id)
    both = by_hand(bundle, instrument_id=None, instrument_ids=ids, legs={"ETH": LEG})
    one = by_hand(bundle, legs={"ETH": OTHER_INSTRUMENT.id})
    for strategy in (both, one):
        strategy.start()
        for event in events:
            hand_over(strategy, event)
    mine = both.signals()["slot"] == 0
    assert 0 < mine.sum() < len(mine)  # the other instrument has signals of its own
    np.testing.assert_array_equal(both.signals()["value"][mine], one.signals()["value"])
    assert set(one.signals()["slot"]) == {0}


def test_wrong_surroundings_are_refused_by_name(bundle: Any, tmp_path: Any) -> None:
    short = load_bundle(write_model(tmp_path, ("imbalance()", "leg_return(other='ETH', lag=1)")))
    with pytest.raises(ConfigurationError, match="which instrument 'ETH' is"):
        Keeper(config(), short)
    with pytest.raises(ConfigurationError, match=r"`legs` must name what the model reads .*named 'DOGE'"):
        Keeper(config(legs={"DOGE": LEG}), bundle)
    with pytest.raises(ConfigurationError, match=r"`odds` must name what the model reads .*named 'news'"):
        Keeper(config(odds={"news": LEG}), bundle)
    with pytest.raises(ConfigurationError, match=r"`legs\['ETH'\]` must look like"):
        config(legs={"ETH": "ETHUSDT"})
    with pytest.raises(ConfigurationError, match="`feature_store` must be a name"):
        config(feature_store="")
    strategy = by_hand(bundle, instruments=(INSTRUMENT,))
    with pytest.raises(ConfigurationError, match=f"leg '{LEG}'.*must be in the cache"):
        strategy.start()


def test_observations_exist_from_their_publication(bundle: Any) -> None:
    strategy = by_hand(bundle)
    strategy.start()
    for event in market(30):
        hand_over(strategy, event)
    now = START + 4 * 10**9
    strategy.clock.set_time(now)
    with pytest.raises(FeatureExtractionError, match="must not be after now"):
        strategy.feed_external("odds", (0.2, 0.4), now + 1)
    with pytest.raises(FeatureExtractionError, match="`source` must be one of odds, unseen"):
        strategy.feed_external("news", (0.2,), now)
    with pytest.raises(FeatureExtractionError, match="1 to 4"):
        strategy.feed_external("odds", (), now)
    assert strategy.feed_external("odds", (0.2, 0.4), now) == 1
    assert strategy.feed_external("odds", (float("nan"), 0.4), now) == 0  # refused, and counted
    assert strategy.engine.counters(0)["invalid"] == 1
    row = strategy.engine.feature_row(0)
    assert row[6] == pytest.approx(0.3)
    assert row[8] == 1.0
    strategy.handle_data(Observation.of("odds", (0.4, 0.6), now + 1))
    strategy.handle_data(Observation.of("of another model", (0.9, 0.9), now + 2))
    assert strategy.engine.feature_row(0)[6] == pytest.approx(0.5)
    strategy.handle_historical_data([CustomData(DataType(Observation), Observation.of("odds", (0.6, 0.8), now + 3))])
    assert strategy.engine.feature_row(0)[6] == pytest.approx(0.7)
    assert len(strategy.heard) == 2
    strategy.stop()
    strategy.handle_data(Observation.of("odds", (0.1, 0.1), now + 4))
    assert strategy.engine.feature_row(0)[6] == pytest.approx(0.7)
    with pytest.raises(DataConversionError, match="`ts_init` must be >="):
        Observation.of("odds", (0.1,), 10, 9)


def test_observations_on_the_bus_are_taken_once_after_every_start(bundle: Any) -> None:
    strategy = by_hand(bundle)
    topic = f"data.{DataType(Observation).topic}"
    strategy.start()
    for number in range(3):
        strategy.msgbus.publish(topic, Observation.of("odds", (0.1, 0.2), START + number))
        strategy.stop()
        strategy.msgbus.publish(topic, Observation.of("odds", (0.1, 0.2), START + number))
        strategy.resume()
    assert strategy.engine.counters(0)["accepted"] == 3
    assert len(strategy.heard) == 3


def test_a_model_of_the_book_follows_legs_by_their_quotes(tmp_path: Path) -> None:
    """On the depth clock quotes of the instrument itself are not fed; those of the leg are."""
    features = ("imbalance()", f"leg_return(other='{LEG}', lag=1)")
    bundle = load_bundle(write_model(tmp_path, features, clock="depth"))
    strategy = by_hand(bundle)
    strategy.start()
    rng = np.random.default_rng(6)
    ticks, leg = leg_quotes(START, START + 60 * 10**9, 300)
    prices = 50_000.0 + np.cumsum(rng.integers(-3, 4, 300))
    books = [depth(price, START + i * 200_000_000) for i, price in enumerate(prices)]
    for event in sorted([*books, *ticks, *market(100)], key=lambda event: event.ts_init):
        if isinstance(event, OrderBookDepth10):
            strategy.handle_order_book_depth(event)
        else:
            hand_over(strategy, event)
    size = np.tile([1.0, 2.0, 3.0], (300, 1))
    ts = np.array([book.ts_init for book in books], np.uint64)
    bid, ask = (np.array([[order.price.as_double() for order in side[:3]] for side in sides])
                for sides in ([book.bids for book in books], [book.asks for book in books]))  # fmt: skip
    columns = DepthColumns(ts, ts, bid, ask, size, size)
    research = bundle.plan.compute(depth=columns, clock="depth", legs={LEG: leg})
    np.testing.assert_array_equal(np.array(strategy.rows), research.values[research.ready])
    assert research.values[:, 1].std() > 0


def test_quotes_of_a_binary_option_are_odds(tmp_path: Any) -> None:
    bundle = load_bundle(write_model(tmp_path, ("imbalance()", "odds_probability(source='odds')")))
    strategy = by_hand(bundle, odds={"odds": LEG})
    strategy.start()
    rng = np.random.default_rng(4)
    own, columns, ticks = market(200), [], []
    for event in own:
        ts = event.ts_init + int(rng.integers(1, 50_000_000))
        bid = round(0.01 + 0.9 * rng.random(), 2)
        ask = round(bid + 0.1 * rng.random() - 0.01, 2)  # now and then crossed
        ticks.append(quote(bid, max(ask, 0.01), ts, instrument=OTHER_INSTRUMENT))
        columns.append((ts, bid, max(ask, 0.01)))
    for event in sorted([*own, *ticks], key=lambda event: event.ts_init):
        hand_over(strategy, event)
    ts, bid, ask = (np.array(column) for column in zip(*sorted(columns), strict=True))
    odds = PolymarketOdds().observations(ts, bid, ask)
    quotes = [event for event in own if isinstance(event, QuoteTick)]
    fields = ("bid_price", "ask_price", "bid_size", "ask_size")
    times = np.array([event.ts_init for event in quotes], np.uint64)
    numbers = [np.array([getattr(event, name).as_double() for event in quotes]) for name in fields]
    research = bundle.plan.compute(QuoteColumns(times, times, *numbers), external={"odds": odds})
    np.testing.assert_array_equal(np.array(strategy.rows), research.values[research.ready])
    assert research.values[:, 1].std() > 0.1
