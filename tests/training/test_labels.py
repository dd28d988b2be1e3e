"""Labels against loops that a reader can check by eye."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.errors import DataConversionError
from tengri_fast.training.labels import class_returns, forward_returns_bps, next_move_within


def slow_next_move(ts, mid, horizon):
    out = []
    for i in range(len(mid)):
        label = None
        for j in range(i + 1, len(mid)):
            if mid[j] != mid[j - 1]:
                label = 1 if ts[j] - ts[i] > horizon else (2 if mid[j] > mid[j - 1] else 0)
                break
        if label is None:
            label = 1 if ts[-1] - ts[i] >= horizon else -1
        out.append(label)
    return out


def slow_forward(ts, mid, horizon):
    out = []
    for i in range(len(mid)):
        if ts[i] + horizon > ts[-1]:
            out.append(np.nan)
            continue
        j = max(k for k in range(len(mid)) if ts[k] <= ts[i] + horizon)
        out.append(1e4 * (mid[j] / mid[i] - 1))
    return out


series = st.lists(st.tuples(st.integers(0, 5), st.integers(-2, 2)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(series, st.integers(0, 12))
def test_against_loops(steps, horizon):
    ts = np.cumsum([a for a, _ in steps])
    mid = 100 + 0.5 * np.cumsum([b for _, b in steps])
    np.testing.assert_array_equal(next_move_within(ts, mid, horizon), slow_next_move(ts, mid, horizon))
    np.testing.assert_allclose(forward_returns_bps(ts, mid, horizon), slow_forward(ts, mid, horizon), rtol=1e-12)


def test_rounding_of_the_mid_is_no_move():
    mid = np.array([0.4, np.nextafter(0.4, 1), 0.4, 0.5])
    np.testing.assert_array_equal(next_move_within(np.arange(4), mid, 10), [2, 2, 2, -1])


def test_class_returns_are_means_of_known_rows():
    labels = np.array([0, 0, 2, 1, 2], dtype=np.int8)
    returns = np.array([-1.0, -3.0, 2.0, 0.5, np.nan])
    assert class_returns(labels, returns) == (-2.0, 0.5, 2.0)
    assert class_returns(labels[:2], returns[:2]) == (-2.0, 0.0, 0.0)


@pytest.mark.parametrize(("ts", "mid", "word"), [
    ([0, 1], [1.0], "one length"), ([1, 0], [1.0, 1.0], "backwards"), ([0, 1], [1.0, np.nan], "finite"),
    ([0, 1], [1.0, 0.0], "positive"),
])  # fmt: skip
def test_bad_series_are_refused(ts, mid, word):
    with pytest.raises(DataConversionError, match=word):
        next_move_within(np.array(ts), np.array(mid), 1)
    with pytest.raises(DataConversionError, match=word):
        forward_returns_bps(np.array(ts), np.array(mid), 1)
