"""Economic releases: nothing before its publication, forecasts from the past only, transforms, calendars, phases."""

from __future__ import annotations

import datetime
import gzip
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import shared_data

from tengri_fast.errors import DataConversionError, FeatureExtractionError
from tengri_fast.features.external import (
    PHASES,
    TRANSFORMS,
    MacroEconomic,
    Regime,
    fred_md_series,
    lag_days_of,
    read_fred_md,
    regimes,
)
from tengri_fast.features.external.fred_md import DEFAULT_LAG_DAYS, publication_ns

NAN = math.nan
DAY = 86_400 * 10**9
LEVELS = st.one_of(st.sampled_from([NAN, 0.0, -1.0, 5.0]), st.floats(0.5, 200.0))


def bits(values) -> bytes:
    return np.asarray(values, np.float64).tobytes()


def oracle_transform(code: int, x: np.ndarray) -> np.ndarray:
    """The codes on a whole column, as McCracken and Ng's table defines them."""
    with np.errstate(all="ignore"):
        y = np.log(np.where(x > 0, x, NAN)) if code in (4, 5, 6) else x.astype(float)
        if code in (1, 4):
            return y
        shifted = np.concatenate([[NAN], y[:-1]])
        first = y / shifted - 1.0 if code == 7 else y - shifted
        return first if code in (2, 5) else first - np.concatenate([[NAN], first[:-1]])


def oracle_columns(y: np.ndarray, forecast: str, minimum: int) -> np.ndarray:
    """Forecast, previous and spread of every value from the values before it, by refitting from scratch."""
    out = []
    surprises: list[float] = []
    for t in range(len(y)):
        previous = y[t - 1] if t else NAN
        if not np.isfinite(y[t]):
            continue
        expected = previous
        if forecast == "ar1":
            pairs = [(y[k - 1], y[k]) for k in range(1, t) if np.isfinite(y[k - 1]) and np.isfinite(y[k])]
            expected = NAN
            if len(pairs) >= minimum and np.isfinite(previous):
                a, b = np.array(pairs).T
                deviation = a - a.mean()
                slope = (deviation * b).sum() / (deviation**2).sum() if (deviation**2).sum() > 0 else 0.0
                expected = b.mean() + min(max(slope, -1.0), 1.0) * (previous - a.mean())
        spread = np.std(surprises, ddof=1) if len(surprises) >= 2 else NAN
        out.append((y[t], expected, previous, spread))
        if np.isfinite(expected):
            surprises.append(y[t] - expected)
    return np.array(out).reshape(len(out), 4)


@pytest.mark.parametrize("forecast", ["random_walk", "ar1"])
@pytest.mark.parametrize("code", sorted(TRANSFORMS))
def test_against_refitting_from_scratch(code, forecast) -> None:
    rng = np.random.default_rng(code)
    x = 100.0 * np.exp(np.cumsum(rng.normal(0.002, 0.02, 120)))
    x[[30, 31, 70]] = NAN
    source = MacroEconomic(forecast=forecast, transform=code, minimum=10)
    got = source.observations(np.arange(1, 121), x).values
    wanted = oracle_columns(oracle_transform(code, x), forecast, 10)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)
    assert source.counters.missing == 3
    assert source.counters.seen == 120
    assert np.isfinite(got[:, 3]).sum() > 60


@settings(max_examples=60, deadline=None)
@given(st.lists(LEVELS, max_size=30), st.lists(st.integers(0, 30), max_size=4), st.sampled_from(sorted(TRANSFORMS)),
       st.sampled_from(["random_walk", "ar1"]))  # fmt: skip
def test_live_chunks_and_the_future(levels, cuts, code, forecast) -> None:
    times = np.arange(1, len(levels) + 1)
    source = MacroEconomic(forecast=forecast, transform=code, minimum=3)
    columns = source.observations(times, np.array(levels, float))
    one = MacroEconomic(forecast=forecast, transform=code, minimum=3)
    got = []
    for ts, level in zip(times.tolist(), levels, strict=True):
        got.append(one.push(ts, level))
        if ts in cuts:
            one = one.copy()
    assert bits([g for g in got if g is not None]) == bits(columns.values)
    assert one.to_bytes() == source.to_bytes()
    for cut in cuts:
        past = MacroEconomic(forecast=forecast, transform=code, minimum=3)
        before = past.observations(times[:cut], np.array(levels[:cut], float)).values
        assert bits(before) == bits(columns.values[: len(before)])
        poisoned = np.array([*levels[:cut], *(7.0 for _ in levels[cut:])], float)
        after = MacroEconomic(forecast=forecast, transform=code, minimum=3).observations(times, poisoned).values
        assert bits(after[: len(before)]) == bits(before)


def test_each_rule_of_a_release() -> None:
    source = MacroEconomic()
    assert bits(source.push(10, 3.0, 2.5, 2.0)) == bits((3.0, 2.5, 2.0, NAN))
    for message, count in (
        ((10, 3.0, 2.5, 2.0), "duplicate"),
        ((9, 3.0, 2.5, 2.0), "backward"),
        ((11, math.inf), "invalid"),
        ((11, 1e101), "invalid"),
        ((11, 3.0, -math.inf), "invalid"),
        ((11, "3.0"), "invalid"),
        ((11, None), "invalid"),
        ((-1, 3.0), "invalid"),
        ((11.0, 3.0), "invalid"),
        ((11, NAN, 2.0), "missing"),
        ((11, NAN, 2.0), "duplicate"),
    ):
        before = getattr(source.counters, count)
        assert source.push(*message) is None, message
        assert getattr(source.counters, count) == before + 1, message
    assert bits(source.push(12, 4.0, 3.0)) == bits((4.0, 3.0, NAN, NAN))  # the value before is not known
    assert bits(source.push(13, 5.0)) == bits((5.0, NAN, 4.0, np.std([0.5, 1.0], ddof=1)))  # no survey
    assert bits(source.push(14, 5.0, 5.0)) == bits((5.0, 5.0, 5.0, np.std([0.5, 1.0], ddof=1)))
    growth = MacroEconomic(forecast="random_walk", transform=5)
    assert growth.push(1, 100.0) is None
    assert growth.counters.warming == 1
    assert bits(growth.push(2, 110.0, 99.0, 98.0)) == bits((math.log(110.0) - math.log(100.0), NAN, NAN, NAN))


def test_numbers_stay_finite_at_the_limit_and_flat_series_have_no_slope() -> None:
    source = MacroEconomic(forecast="ar1", minimum=3)
    for ts in range(1, 40):
        source.push(ts, 1e100 * (-1) ** ts)
    assert MacroEconomic.from_bytes(source.to_bytes()).to_bytes() == source.to_bytes()
    steep = MacroEconomic(forecast="ar1", transform=7, minimum=3)
    for ts in range(1, 40):
        steep.push(ts, 1e-300 if ts % 2 else 1e5)
    assert steep.counters.warming == 39
    assert MacroEconomic.from_bytes(steep.to_bytes()).to_bytes() == steep.to_bytes()
    flat = MacroEconomic(forecast="ar1", minimum=3)
    last = [flat.push(ts, 5.0) for ts in range(1, 10)][-1]
    assert last == (5.0, 5.0, 5.0, 0.0)


def test_parameters() -> None:
    for parameters, message in (
        ({"forecast": "survey"}, "`forecast` must be one of given, random_walk, ar1, was 'survey'"),
        ({"transform": 8}, "`transform` must be a code from 1 to 7, was 8"),
        ({"transform": 5}, "`forecast` must be random_walk or ar1 with `transform` 5, was 'given'"),
        ({"minimum": 2}, "`minimum` must be from 3 to 1000000, was 2"),
        ({"series": 5}, "`series` must be text"),
    ):
        with pytest.raises(FeatureExtractionError) as caught:
            MacroEconomic(**parameters)
        assert message in str(caught.value)


CALENDAR = """release_time,name,actual,forecast,previous
2024-02-02T13:30:00Z,NFP,353,185,216
2024-03-08 08:30-05:00,NFP,275,200,353
2024-04-05,NFP,303,214,
2024-02-13T13:30:00Z,CPI,3.1,2.9,3.4
2024-05-03T12:30:00,NFP,,243,303
not a time,NFP,1,1,1
2024-05-04T12:30:00,NFP,much,243,303
"""


def test_calendar(tmp_path) -> None:
    path = tmp_path / "calendar.csv"
    path.write_text(CALENDAR)
    source = MacroEconomic("NFP")
    columns = source.from_file(path, delay_ns=7)

    def ns(*when: int) -> int:
        return int(datetime.datetime(*when, tzinfo=datetime.UTC).timestamp()) * 10**9

    assert columns.ts_event.tolist() == [ns(2024, 2, 2, 13, 30), ns(2024, 3, 8, 13, 30), ns(2024, 4, 6)]
    assert (columns.ts_init - columns.ts_event).tolist() == [7, 7, 7]
    wanted = [[353, 185, 216, NAN], [275, 200, 353, NAN], [303, 214, 275, np.std([168, 75], ddof=1)]]
    np.testing.assert_allclose(columns.values, wanted)
    assert (source.counters.missing, source.counters.invalid) == (1, 2)
    with pytest.raises(DataConversionError, match="`series` must be given: the file holds 2"):
        MacroEconomic().from_file(path)
    with pytest.raises(DataConversionError, match="`series` must be in"):
        MacroEconomic("PPI").from_file(path)
    with pytest.raises(DataConversionError, match="`when` must be a column"):
        MacroEconomic("NFP").from_file(path, columns={"time": "when"})


def small_panel(tmp_path, rows: list[str], name: str = "panel.csv"):
    path = tmp_path / name
    path.write_text("\n".join(["sasdate,UNRATE,NEWSERIES", "Transform:,2.0,1", *rows]) + "\n")
    return path


def test_a_month_is_published_after_its_lag(tmp_path) -> None:
    path = small_panel(tmp_path, ["11/1/1999,4.1,", "12/1/1999,4.0,7", "1/1/2000,4.0,8"])
    _, columns = fred_md_series(path, "UNRATE", forecast="random_walk")
    day = datetime.date(1970, 1, 1) + datetime.timedelta(days=int(columns.ts_event[0]) // DAY)
    assert lag_days_of("UNRATE") == 24
    assert day == datetime.date(2000, 1, 25)  # all of 24 January has passed
    assert columns.values[0, 0] == 4.0 - 4.1
    source, columns = fred_md_series(path, "NEWSERIES", forecast="given")
    assert lag_days_of("NEWSERIES") == DEFAULT_LAG_DAYS == 75
    assert columns.values[:, 0].tolist() == [7.0, 8.0]
    assert source.counters.missing == 1
    _, columns = fred_md_series(path, "NEWSERIES", forecast="given", lag_days=1)
    assert int(columns.ts_event[0]) == publication_ns(1999, 12, 1) == 10_958 * DAY  # 2000-01-02
    for lag in (0, -5, 4000, 1.5):
        with pytest.raises(FeatureExtractionError, match="`lag_days` must be from 1"):
            fred_md_series(path, "UNRATE", lag_days=lag)
    with pytest.raises(DataConversionError, match="`series` must be a column of the panel, was 'GDP'"):
        fred_md_series(path, "GDP")


def test_months_before_1970_only_teach(tmp_path) -> None:
    rows = [f"{m}/1/{y},{5.0 if y < 1969 else 6.0},1" for y in range(1965, 1972) for m in range(1, 13)]
    source, columns = fred_md_series(small_panel(tmp_path, rows), "UNRATE")
    assert source.counters.seen == 84
    assert source.counters.duplicate == source.counters.backward == 0
    assert len(columns) == 24 + 1  # December 1969 came out in January 1970
    assert np.isfinite(columns.values[0]).all()  # earlier months were enough for a forecast


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty"),
    ("date,A\nTransform:,1\n", "first column is sasdate"),
    ("sasdate,A\n1/1/2000,1\n", "must hold the transform codes"),
    ("sasdate,A\nTransform:,9\n", "transform code of A must be from 1 to 7, was '9'"),
    ("sasdate,A\nTransform:,1\n1/1/2000,1,2\n", "line 3 of panel.csv must have 2 cells, had 3"),
    ("sasdate,A\nTransform:,1\n1/1/2000,1\n3/1/2000,1\n", "must follow one another"),
    ("sasdate,A\nTransform:,1\n2000-01-01,1\n", "must be month/day/year, was '2000-01-01'"),
])  # fmt: skip
def test_a_file_that_is_no_panel(tmp_path, text, message) -> None:
    path = tmp_path / "panel.csv"
    path.write_text(text)
    with pytest.raises(DataConversionError) as caught:
        read_fred_md(path)
    assert message in str(caught.value)


def test_real_panel_truncated_and_poisoned(tmp_path) -> None:
    path = shared_data("macro", "fred_md_to_2014.csv.gz")
    panel = read_fred_md(path)
    assert len(panel.months) == 672
    assert len(panel.levels) == 126
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    poisoned = [",".join([row.split(",")[0], *["9.5"] * 126]) for row in lines[502:]]
    (tmp_path / "past.csv").write_text("\n".join(lines[:502]))
    (tmp_path / "poisoned.csv").write_text("\n".join([*lines[:502], *poisoned]))
    past, bad = read_fred_md(tmp_path / "past.csv"), read_fred_md(tmp_path / "poisoned.csv")
    for series in ("PAYEMS", "CPIAUCSL", "UNRATE", "INDPRO", "NONBORRES", "S&P PE ratio", "FEDFUNDS"):
        source, columns = fred_md_series(panel, series)
        for other in (past, bad):
            _, before = fred_md_series(other, series)
            rows = len(fred_md_series(past, series)[1])
            assert rows > 300
            assert bits(before.values[:rows]) == bits(columns.values[:rows])
            assert before.ts_event[:rows].tolist() == columns.ts_event[:rows].tolist()
        assert source.counters.seen == 672
        assert np.isfinite(columns.values[100:, 3]).all()
        ends = [publication_ns(y, m, 1) - DAY for y, m in panel.months][-len(columns) :]
        assert np.all(columns.ts_event.astype(np.int64) > ends)  # never within its month
        assert series != "NONBORRES" or (panel.levels[series] < 0).any()  # and still every month has its growth
    transformed = oracle_transform(5, panel.levels["PAYEMS"])
    _, columns = fred_md_series(panel, "PAYEMS")
    np.testing.assert_allclose(columns.values[:, 0], transformed[-len(columns) :], rtol=1e-12)
    wanted = oracle_columns(transformed, "ar1", 24)[-len(columns) :]
    np.testing.assert_allclose(columns.values, wanted, rtol=1e-7, atol=1e-12)


def test_phases() -> None:
    up_and_down = [*range(20), *range(20, 0, -1)]
    source = MacroEconomic()
    columns = source.observations(np.arange(1, 41), np.array(up_and_down, float))
    found = regimes(columns, lookback=3, minimum=6)
    assert len(found) == 35
    for k in range(5, 40):
        x = np.array(up_and_down[: k + 1], float)
        level, change = x[-1] - x.mean(), x[-1] - x[-4]
        code = (2.0 if change >= 0 else 1.0) if level > 0 else (-1.0 if change > 0 else -2.0)
        np.testing.assert_allclose(found.values[k - 5, :3], [code, change, level], atol=1e-12)
    assert set(found.values[:, 0]) >= {2.0, 1.0, -2.0}
    assert set(found.values[:, 0]) <= set(PHASES)
    assert bits(regimes(columns[:20], lookback=3, minimum=6).values) == bits(found.values[:15])
    phase = Regime(lookback=3, minimum=6)
    got = []
    for k, x in enumerate(up_and_down):
        got.append(phase.push(k + 1, x))
        phase = phase.copy()
    assert bits([g for g in got if g is not None]) == bits(found.values)
    assert phase.push(5, 1.0) is None
    assert phase.push(50, NAN) is None
    assert phase.counters.as_dict() | {"backward": 1, "invalid": 1, "warming": 5} == phase.counters.as_dict()
    assert len(regimes(columns[:3])) == 0
    with pytest.raises(FeatureExtractionError, match="`minimum` must be above `lookback`"):
        Regime(lookback=3, minimum=3)
