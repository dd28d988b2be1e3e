"""Features of external sources against a twin that recomputes each number from all observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import FEATURES, FeaturePlan, FeatureSpec, parse_spec
from tengri_fast.market.columns import ExternalColumns, QuoteColumns

NAN = math.nan
SECOND = 10**9
LIMIT = 1e18


class Seen(NamedTuple):
    clock: int  # when it reached the engine
    time: int  # of publication
    value: Sequence[float]


def given_number(x: float) -> bool:
    return abs(x) <= LIMIT


def cut(x: float, low: float, high: float) -> float:
    return min(high, max(low, x))


def probability(value: Sequence[float]) -> float:
    bid = cut(value[0], 0.0, 1.0)
    return 0.5 * (bid + cut(value[1], 0.0, 1.0)) if given_number(value[1]) else bid


class Twin:
    def __init__(self) -> None:
        self.clock = 0
        self.seen: dict[str, list[Seen]] = {"odds": [], "news": [], "macro": []}

    def observe(self, source: str, value: Sequence[float], ts: int) -> bool:
        rows = self.seen[source]
        if not given_number(value[0]) or any(abs(x) > LIMIT for x in value[1:]):
            return False
        if rows and ts < rows[-1].time:
            return False
        self.clock = max(self.clock, ts)
        rows.append(Seen(self.clock, ts, value))
        return True

    def quote(self, ts: int) -> None:
        self.clock = max(self.clock, ts)

    def fresh(self, rows: list[Seen], max_age: float) -> bool:
        return bool(rows) and (max_age == 0 or self.clock - rows[-1].time <= max_age)

    def value(self, spec: FeatureSpec) -> float:
        params = dict(spec.params)
        rows = self.seen[str(params.pop("source"))]
        if "max_age" in params and not self.fresh(rows, params.pop("max_age")):
            return 0.0
        if not rows:
            return 0.0
        return float(getattr(self, spec.name)(rows, **params))

    def external_available(self, rows):
        return 1.0

    def external_value(self, rows, index):
        x = rows[-1].value[int(index)]
        return x if given_number(x) else 0.0

    def _age(self, rows):
        return math.log1p((self.clock - rows[-1].time) / SECOND)

    odds_age = news_age = macro_age = _age

    def odds_probability(self, rows):
        return probability(rows[-1].value)

    def odds_spread(self, rows):
        bid, ask = rows[-1].value[:2]
        return max(0.0, cut(ask, 0, 1) - cut(bid, 0, 1)) if given_number(ask) else 0.0

    def odds_change(self, rows, window, capacity):
        old = rows[: int(window)] if window < 0 else [r for r in rows if self.clock - r.clock >= window]
        return probability(rows[-1].value) - probability(old[-1].value) if old else 0.0

    def _weights(self, rows, half_life):
        found = []
        for r in rows:
            novelty = cut(r.value[1], 0, 1) if given_number(r.value[1]) else 1.0
            relevance = cut(r.value[2], 0, 1) if given_number(r.value[2]) else 1.0
            found.append(
                (2.0 ** (-(self.clock - r.clock) / half_life), novelty, novelty * relevance, cut(r.value[0], -1, 1))
            )
        return found

    def news_sentiment(self, rows, half_life):
        return math.fsum(d * w * s for d, _, w, s in self._weights(rows, half_life))

    def news_count(self, rows, half_life):
        return math.fsum(d for d, *_ in self._weights(rows, half_life))

    def _latest_weights(self, rows, half_life):
        """The same, counted from the last headline: a mean does not depend on from when."""
        kept, self.clock = self.clock, rows[-1].clock
        found = self._weights(rows, half_life)
        self.clock = kept
        return found

    def news_tone(self, rows, half_life):
        found = self._latest_weights(rows, half_life)
        whole = math.fsum(d * w for d, _, w, _ in found)
        return math.fsum(d * w * s for d, _, w, s in found) / whole if whole > 1e-150 else 0.0

    def news_novelty(self, rows, half_life):
        found = self._latest_weights(rows, half_life)
        return math.fsum(d * n for d, n, *_ in found) / math.fsum(d for d, *_ in found)

    def macro_value(self, rows):
        return rows[-1].value[0]

    @staticmethod
    def _changes(rows):
        changes = []
        for k, row in enumerate(rows):
            actual, _, previous, _ = row.value
            if not given_number(previous):
                previous = rows[k - 1].value[0] if k else actual
            changes.append(actual - previous)
        return changes

    def macro_change(self, rows):
        return self._changes(rows)[-1]

    def macro_regime(self, rows, threshold):
        moves = [c for c in self._changes(rows) if abs(c) > threshold]
        return math.copysign(1.0, moves[-1]) if moves else 0.0

    def macro_surprise(self, rows):
        actual, forecast, _, spread = rows[-1].value
        if not given_number(forecast):
            return 0.0
        past = [r.value[0] - r.value[1] for r in rows[:-1] if given_number(r.value[1])]
        if not (given_number(spread) and spread > 0):
            spread = math.sqrt(math.fsum(m * m for m in past) / len(past)) if past else 0.0
        return cut((actual - forecast) / spread, -LIMIT, LIMIT) if spread > 0 else 0.0


SPECS = [
    "external_available('odds', max_age='5s')",
    "external_available('news', max_age='0s')",
    "external_value('news')",
    "external_value('macro', index=3, max_age='20s')",
    "odds_probability('odds')",
    "odds_probability('odds', max_age='2s')",
    "odds_spread('odds', max_age='5s')",
    "odds_change('odds', window='3s')",
    "odds_change('odds', window=2, max_age='6s')",
    "odds_age('odds')",
    "news_sentiment('news', half_life='2s')",
    "news_sentiment('news', half_life='30s', max_age='4s')",
    "news_tone('news', half_life='2s')",
    "news_count('news', half_life='2s')",
    "news_novelty('news', half_life='2s')",
    "news_age('news')",
    "macro_value('macro')",
    "macro_surprise('macro', max_age='9s')",
    "macro_change('macro')",
    "macro_regime('macro')",
    "macro_regime('macro', threshold=0.5, max_age='0s')",
    "macro_age('macro')",
]
EXTERNAL = {name for name, info in FEATURES.items() if any(p.type == "source" for p in info.parameters)}


def test_every_feature_of_sources_has_a_twin_and_a_spec_here() -> None:
    assert {parse_spec(text).name for text in SPECS} == EXTERNAL
    assert all(hasattr(Twin, name) for name in EXTERNAL)


def compare(plan: FeaturePlan, state, twin: Twin, where: object) -> None:
    row = state.row()
    assert state.ready, "what a source does must not hold back a model"
    assert np.isfinite(row).all(), where
    for i, spec in enumerate(plan.specs):
        wanted = twin.value(spec)
        assert math.isclose(row[i], wanted, rel_tol=1e-9, abs_tol=1e-9), (str(spec), row[i], wanted, where)


NUMBER = st.one_of(
    st.floats(-1.5, 1.5), st.floats(0, 1), st.sampled_from([NAN, NAN, math.inf, 0.0, -0.0, 1e18, -1e18, 1e300, 5e-324])
)
EVENT = st.tuples(st.sampled_from(["odds", "news", "macro", "quote"]), st.lists(NUMBER, min_size=4, max_size=4))
STEP = st.one_of(st.integers(0, 10**9), st.just(0), st.integers(-(10**9), 4 * 10**9), st.just(40 * 10**9))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.tuples(EVENT, STEP), min_size=1, max_size=40))
def test_hostile_streams(events) -> None:
    plan = FeaturePlan(SPECS)
    state, twin, ts = plan.state(), Twin(), 10**12
    for k, ((who, value), step) in enumerate(events):
        ts = max(0, ts + step)
        if who == "quote":
            if state.update_quote(1.0, 1.0, 1.0, 1.0, ts):
                twin.quote(ts)
        else:
            assert state.update_external(who, value, ts) == twin.observe(who, value, ts), (k, who, value)
        if twin.clock:
            compare(plan, state, twin, (k, who, value))


def realistic(seed: int, count: int):
    rng = np.random.default_rng(seed)
    ts = 10**12
    for _ in range(count):
        ts += int(rng.exponential(4e8))
        who = str(rng.choice(["odds", "news", "macro", "quote"], p=[0.3, 0.2, 0.1, 0.4]))
        if who == "odds":
            bid = 0.01 * int(rng.integers(10, 90))
            value = [bid, bid + float(rng.uniform(-0.01, 0.1)) if rng.random() < 0.9 else NAN, NAN, NAN]
        elif who == "news":
            value = [
                float(rng.uniform(-1, 1)),
                float(rng.random()),
                float(rng.random()) if rng.random() < 0.7 else NAN,
                NAN,
            ]
        else:
            value = [float(x) if rng.random() < 0.8 or k == 0 else NAN for k, x in enumerate(2 + rng.normal(size=4))]
        yield who, value, ts


def test_realistic_stream() -> None:
    plan = FeaturePlan(SPECS)
    state, twin = plan.state(), Twin()
    seen = [set() for _ in SPECS]
    for k, (who, value, ts) in enumerate(realistic(1, 500)):
        if who == "quote":
            state.update_quote(1.0, 1.0, 1.0, 1.0, ts)
            twin.quote(ts)
        else:
            assert state.update_external(who, value, ts)
            assert twin.observe(who, value, ts)
        compare(plan, state, twin, k)
        for values, x in zip(seen, state.row(), strict=True):
            values.add(x)
    counts = dict(zip(SPECS, map(len, seen), strict=True))
    assert all(n > (20 if "regime" not in text and "available" not in text else 1) for text, n in counts.items()), (
        counts
    )


def test_nothing_is_there_before_its_publication() -> None:
    """A column reads 0 until the release is public, in the same rows whether or not more follows."""
    plan = FeaturePlan(["macro_value('cpi')", "external_available('cpi')", "odds_probability('pm')"])
    ts = np.arange(10, dtype=np.uint64) * np.uint64(SECOND) + np.uint64(SECOND)
    one = np.ones(10)
    quotes = QuoteColumns(ts, ts, one, one, one, one)
    at = np.array([4 * SECOND + 1, 7 * SECOND], dtype=np.uint64)
    cpi = ExternalColumns(at, at, np.array([[3.5, NAN, NAN, NAN], [4.5, NAN, NAN, NAN]]))
    rows = plan.compute(quotes, external={"cpi": cpi}).values
    # At 7 s the quote comes first, as it does at any equal times; the second figure is in the row of 8 s.
    assert rows[:, 0].tolist() == [0, 0, 0, 0, 3.5, 3.5, 3.5, 4.5, 4.5, 4.5]
    assert rows[:, 1].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert not rows[:, 2].any()
    assert np.array_equal(plan.compute(quotes, external={"cpi": cpi[:1]}).values[:7], rows[:7])


def test_a_silent_source_holds_nothing_back_and_a_held_column_goes_stale() -> None:
    state = FeaturePlan(["spread", "external_value('x', max_age='2s') | clip(10)", "news_tone('never') @ 1s"]).state()
    state.update_quote(1.0, 1.5, 1, 1, SECOND)
    assert state.ready_columns.tolist()[0:2] == [True, True]
    state.update_external("x", [3.0, NAN, NAN, NAN], SECOND + 5)
    state.update_quote(1.0, 1.5, 1, 1, 2 * SECOND)
    assert state.row()[1] == 3.0
    state.update_quote(1.0, 1.5, 1, 1, 4 * SECOND)
    assert state.row()[1] == 0.0
    assert state.ready


def test_a_full_ring_of_odds_shortens_the_window_and_is_counted() -> None:
    state = FeaturePlan(["odds_change('pm', window='1h', capacity=16)"]).state()
    for k in range(40):
        state.update_external("pm", [0.01 * k, 0.01 * k, NAN, NAN], 1000 + k)
    assert state.counters.overflow == 24
    assert state.row()[0] == pytest.approx(0.16)
    counted = FeaturePlan(["odds_change('pm', window=3)"]).state()
    for k in range(40):
        counted.update_external("pm", [0.01 * k, 0.01 * k, NAN, NAN], 1000 + k)
    assert counted.counters.overflow == 0
    assert counted.row()[0] == pytest.approx(0.03)


def test_an_observation_exactly_as_old_as_max_age_still_counts() -> None:
    state = FeaturePlan(["external_available('x', max_age='2s')", "macro_change('x')"]).state()
    state.update_external("x", [3.0, NAN, NAN, NAN], SECOND)
    assert state.row().tolist() == [1.0, 0.0], "a first figure without a previous one is no change"
    state.update_quote(1.0, 1.0, 1, 1, 3 * SECOND)
    assert state.row()[0] == 1.0
    state.update_quote(1.0, 1.0, 1, 1, 3 * SECOND + 1)
    assert state.row()[0] == 0.0
    state.update_external("x", [4.5, NAN, NAN, NAN], 4 * SECOND)
    assert state.row().tolist() == [1.0, 1.5]


def test_live_equals_research_in_chunks_and_over_saved_states() -> None:
    plan = FeaturePlan([*SPECS, *(f"{text} @ 1s" for text in SPECS), "news_tone('news', half_life='2s') | zscore(20)"])
    events = list(realistic(6, 700))
    quotes = np.array([e[2] for e in events if e[0] == "quote"], dtype=np.uint64)
    one = np.ones(len(quotes))
    own = QuoteColumns(quotes, quotes, one, one, one, one)
    outside = {}
    for who in ("odds", "news", "macro"):
        at = np.array([e[2] for e in events if e[0] == who], dtype=np.uint64)
        outside[who] = ExternalColumns(at, at, np.array([e[1] for e in events if e[0] == who]))
    whole = plan.compute(own, external=outside).values
    live, rows = plan.state(), []
    for k, (who, value, ts) in enumerate(events):
        if who == "quote":
            live.update_quote(1.0, 1.0, 1.0, 1.0, ts)
            rows.append(live.row())
        else:
            live.update_external(who, value, ts)
        if k % 90 == 10:
            other = plan.state()
            other.from_bytes(live.to_bytes())
            live = other
    assert len({e[2] for e in events}) == len(events)
    assert np.array_equal(np.array(rows), whole)
    for size in (1, 7, 100):
        state, parts, last = plan.state(), [], np.uint64(0)
        for k in range(0, len(own), size):
            until = own.ts_init[min(k + size, len(own)) - 1]
            now = {
                name: c[
                    int(np.searchsorted(c.ts_init, last, "right")) : int(np.searchsorted(c.ts_init, until, "right"))
                ]
                for name, c in outside.items()
            }
            parts.append(plan.compute(own[k : k + size], external=now, state=state).values)
            last = until
        assert np.array_equal(np.concatenate(parts), whole), size


def test_damaged_states_are_refused_or_stay_finite() -> None:
    plan = FeaturePlan([text.replace("odds_change('odds'", "odds_change('odds', capacity=16") for text in SPECS])
    state = plan.state()
    events = list(realistic(2, 120))

    def play(target, rows) -> None:
        for who, value, ts in rows:
            if who == "quote":
                target.update_quote(1.0, 1.0, 1.0, 1.0, ts)
                assert np.isfinite(target.row()).all()
            else:
                target.update_external(who, value, ts)

    play(state, events[:60])
    good = state.to_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(600):
        torn = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            torn[int(rng.integers(len(torn)))] ^= 1 << int(rng.integers(8))
        other = plan.state()
        try:
            other.from_bytes(bytes(torn))
        except FeatureExtractionError:
            refused += 1
            continue
        play(other, events[60:])
    assert refused > 100
