"""Trading hours against the wall clock: any zone, any day, also those on which clocks change."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from gate_twin import is_open

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.windows import TradingWindow, boundaries, clock_ns

SECOND = 10**9
HOUR = 3600 * SECOND
DAY = 24 * HOUR
ZONES = ["UTC", "America/New_York", "Europe/London", "Asia/Tokyo", "Australia/Lord_Howe", "Asia/Kathmandu"]
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def ns(*moment, zone="UTC", fold=0):
    at = datetime(*moment, tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)) * SECOND


def open_at(times, ts):
    return sum(1 for each in times if each <= ts) % 2 == 1


def test_random_windows_agree_with_the_wall_clock():
    rng = random.Random(7)
    checked = 0
    for _ in range(60):
        windows = [
            TradingWindow(
                venue="V", days=tuple(rng.sample(DAYS, rng.randint(1, 7))), time_zone=rng.choice(ZONES),
                opens=f"{rng.randint(4, 23):02}:{rng.randint(0, 59):02}", closes=f"{rng.randint(4, 23):02}:00:30",
            )
            for _ in range(rng.randint(1, 3))
        ]  # fmt: skip
        around = ns(2024, rng.randint(1, 12), rng.randint(1, 28), rng.randint(0, 23))
        known = boundaries(windows, around)
        assert known.known_from <= around - 2 * DAY
        assert known.known_to >= around + 14 * DAY
        assert list(known.times) == sorted(set(known.times))
        for _ in range(60):
            ts = rng.randint(known.known_from, known.known_to - 1)
            assert open_at(known.times, ts) == any(is_open(window, ts) for window in windows), (windows, ts)
            checked += 1
        for each in known.times:
            if known.known_from < each < known.known_to:
                before, after = (any(is_open(window, ts) for window in windows) for ts in (each - SECOND, each))
                assert before != after
    assert checked == 3600


def test_a_day_on_which_clocks_change_is_as_long_as_it_is():
    window = TradingWindow(venue="V", days=DAYS, opens="00:00", closes="00:00", time_zone="America/New_York")
    assert len([t for t in boundaries([window], ns(2024, 3, 10)).times if ns(2024, 3, 8) < t < ns(2024, 3, 14)]) == 0
    window = TradingWindow(venue="V", days=("sun",), opens="00:00", closes="00:00", time_zone="America/New_York")
    for day, hours in ((ns(2024, 3, 10, 12), 23), (ns(2024, 11, 3, 12), 25), (ns(2024, 6, 2, 12), 24)):
        times = boundaries([window], day, days=2).times
        start, end = next(pair for pair in zip(times[::2], times[1::2], strict=True) if pair[0] <= day < pair[1])
        assert end - start == hours * HOUR


def test_times_that_come_twice_or_never():
    new_york = {"time_zone": "America/New_York", "days": ("sun",), "venue": "V"}
    never = boundaries([TradingWindow(opens="02:30", closes="09:00", **new_york)], ns(2024, 3, 10)).times
    assert ns(2024, 3, 10, 7) in never  # 02:00 does not exist: it opens when the clocks jump to 03:00
    twice = boundaries([TradingWindow(opens="01:30", closes="09:00", **new_york)], ns(2024, 11, 3)).times
    assert ns(2024, 11, 3, 1, 30, zone="America/New_York", fold=1) in twice
    assert ns(2024, 11, 3, 1, 30, zone="America/New_York", fold=0) not in twice
    closing = boundaries([TradingWindow(opens="00:10", closes="01:30", **new_york)], ns(2024, 11, 3)).times
    assert ns(2024, 11, 3, 1, 30, zone="America/New_York", fold=0) in closing
    london = TradingWindow(venue="V", days=("sun",), opens="01:15", closes="01:45", time_zone="Europe/London")
    assert ns(2024, 3, 31, 1) not in boundaries([london], ns(2024, 3, 31)).times  # both lie in the gap: never open


@pytest.mark.parametrize("around", [0, 1, DAY, 2**63, 2**64 - 1])
def test_the_ends_of_time(around):
    known = boundaries([TradingWindow(venue="V", days=DAYS, opens="09:00", closes="17:00")], around)
    assert 0 <= known.known_from <= around
    assert known.known_to <= 2**64 - 1
    assert all(0 <= each < 2**64 for each in known.times)
    assert not known.times or math.isfinite(known.times[-1])


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "either a `venue` or an `instrument`"),
     ({"venue": "V", "instrument": "I"}, "either a `venue` or an `instrument`"),
     ({"venue": "V", "days": ()}, "at least one day"),
     ({"venue": "V", "days": ("monday",)}, "`window.days` must be of mon"),
     ({"venue": "V", "opens": "9:30"}, "`window.from` must be a time"),
     ({"venue": "V", "closes": "25:00"}, "`window.to` must be a time"),
     ({"venue": "V", "time_zone": "Mars/Olympus"}, "`window.time_zone` must be a name"),
     ({"venue": "V", "time_zone": "../etc/passwd"}, "`window.time_zone` must be a name")],
)  # fmt: skip
def test_windows_that_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        TradingWindow(**settings)


def test_clock():
    assert clock_ns("x", "00:00") == 0
    assert clock_ns("x", "23:59:59") == DAY - SECOND
