"""The latency histogram against sorted values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tengri_fast.runtime.latency import LatencyHistogram


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**45), min_size=1, max_size=300), st.floats(0, 100))
def test_histogram_percentiles_are_close(values, q):
    h = LatencyHistogram()
    for value in values:
        h.add(value)
    exact = sorted(values)[max(0, math.ceil(len(values) * q / 100) - 1)]
    got = h.percentile(q)
    assert h.total == len(values)
    assert h.maximum == max(values)
    if exact < 2**40:
        assert exact <= got <= exact + max(1, exact / 64)
    edges, counts = h.buckets()
    assert counts.sum() == len(values)
    assert (np.diff(edges.astype(np.int64)) > 0).all()


def test_histogram_edges():
    h = LatencyHistogram()
    assert h.percentile(50) == 0
    with pytest.raises(ValueError, match="`q`"):
        h.percentile(101)
    h.add(5)
    h.clear()
    assert h.total == h.maximum == 0
