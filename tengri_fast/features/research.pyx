"""Rows of features from arrays, event by event through the C functions that serve live ticks."""

from collections.abc import Mapping

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset

from tengri_fast.features.capi cimport (
    tf_feature_adopt,
    tf_features,
    tf_features_mid,
    tf_features_on_bar,
    tf_features_on_depth,
    tf_features_on_external,
    tf_features_on_leg,
    tf_features_on_quote,
    tf_features_on_trade,
    tf_features_ready,
    tf_features_ready_at,
    tf_features_row,
)
from tengri_fast.features.plan cimport FeaturePlan, FeatureState
from tengri_fast.market.events cimport TF_EXTERNAL_VALUES, tf_bar, tf_depth10, tf_external, tf_quote, tf_trade

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features._table import REGISTRY
from tengri_fast.market.columns import (
    BarColumns,
    DepthColumns,
    ExternalColumns,
    QuoteColumns,
    TradeColumns,
    merge_order,
)

tf_feature_adopt(<void *><uintptr_t>REGISTRY)

# Streams in the order in which they are seen at equal times; other instruments and external sources come after them.
CLOCKS = ("trade", "quote", "depth", "bar")

cdef enum:
    TRADES = 0
    QUOTES = 1
    DEPTH = 2
    BARS = 3
    LEGS = 4
    EXTERNAL = 5


cdef list in_order(str name, tuple wanted, object given, type kind):
    """What is given for each wanted name (None where nothing is), after a check of all of it."""
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise FeatureExtractionError(f"`{name}` must map names to {kind.__name__}, was {type(given).__name__}")
    for key, value in given.items():
        if key not in wanted:
            raise FeatureExtractionError(f"`{name}` must name what the plan reads ({', '.join(wanted) or 'nothing'}), "
                                         f"named {key!r}")
        if not isinstance(value, kind):
            raise FeatureExtractionError(f"`{name}[{key!r}]` must be {kind.__name__}, was {type(value).__name__}")
    return [given.get(key) for key in wanted]


cdef tuple joined(list streams, list fields, object dtypes):
    """One array per field over all streams behind one another, and the number of the stream of each row."""
    present = [(number, stream) for number, stream in enumerate(streams) if stream is not None]
    number = np.repeat(np.array([n for n, _ in present], dtype=np.uint32), [len(s) for _, s in present])
    columns = []
    for field, dtype in zip(fields, dtypes):
        parts = [getattr(stream, field) for _, stream in present]
        empty = np.empty((0, 4), dtype) if field == "values" else np.empty(0, dtype)
        columns.append(np.ascontiguousarray(np.concatenate(parts)) if parts else empty)
    return number, columns


def compute_rows(FeaturePlan plan, quotes, trades, depth, clock, bars, legs, external, FeatureState state):
    """What `FeaturePlan.compute` does; see there."""
    from tengri_fast.features.plan import FeatureRows

    if clock not in CLOCKS:
        raise FeatureExtractionError(f"`clock` must be one of {', '.join(CLOCKS)}, was {clock!r}")
    given = (trades, quotes, depth, bars)
    for value, kind, name in zip(given, (TradeColumns, QuoteColumns, DepthColumns, BarColumns),
                                 ("trades", "quotes", "depth", "bars")):
        if value is not None and not isinstance(value, kind):
            raise FeatureExtractionError(f"`{name}` must be {kind.__name__}, was {type(value).__name__}")
    cdef int beat = CLOCKS.index(clock)
    if given[beat] is None:
        raise FeatureExtractionError(f"`clock` must name a stream that is given, was {clock!r}")
    other = in_order("legs", plan.legs, legs, QuoteColumns)
    outside = in_order("external", plan.sources, external, ExternalColumns)
    for key, stream in zip(plan.sources, outside):
        if stream is not None and len(early := np.flatnonzero(stream.ts_init < stream.ts_event)):
            raise FeatureExtractionError(f"`external[{key!r}]` must not be received before its publication (ts_init >= "
                                         f"ts_event), row {early[0]} was")
    if state is None:
        state = FeatureState(plan)
    elif state.plan.hash != plan.hash:
        raise FeatureExtractionError(f"`state` must belong to plan {plan.hash[:12]}, was {state.plan.hash[:12]}")

    leg_number, leg_columns = joined(other, ["ts_event", "ts_init", "bid_price", "ask_price"],
                                     [np.uint64, np.uint64, np.float64, np.float64])
    external_number, external_columns = joined(outside, ["ts_event", "ts_init", "values"],
                                               [np.uint64, np.uint64, np.float64])
    none_time = np.empty(0, np.uint64)
    times = [none_time if value is None else value.ts_init for value in given]
    order = merge_order(*times, leg_columns[1], external_columns[1])
    cdef const uint8_t[::1] source = order.source
    cdef const int64_t[::1] index = order.row
    cdef const uint64_t[::1] t_event, t_init, q_event, q_init, d_event, d_init, b_event, b_init
    cdef const double[::1] t_price, t_size, q_bid, q_ask, q_bid_size, q_ask_size
    cdef const double[::1] b_open, b_high, b_low, b_close, b_volume
    cdef const double[:, ::1] d_bid, d_ask, d_bid_size, d_ask_size
    cdef const int32_t[::1] t_side
    cdef const uint32_t[::1] l_number = leg_number, x_number = external_number
    cdef const uint64_t[::1] l_event = leg_columns[0], l_init = leg_columns[1]
    cdef const double[::1] l_bid = leg_columns[2], l_ask = leg_columns[3]
    cdef const uint64_t[::1] x_event = external_columns[0], x_init = external_columns[1]
    cdef const double[:, ::1] x_values = external_columns[2]
    cdef tf_trade trade
    cdef tf_quote quote
    cdef tf_depth10 book
    cdef tf_bar bar
    cdef tf_external observation
    if trades is not None:
        t_event, t_init, t_price = trades.ts_event, trades.ts_init, trades.price
        t_size, t_side = trades.size, trades.aggressor
    if quotes is not None:
        q_event, q_init, q_bid, q_ask = quotes.ts_event, quotes.ts_init, quotes.bid_price, quotes.ask_price
        q_bid_size, q_ask_size = quotes.bid_size, quotes.ask_size
    memset(&book, 0, sizeof(book))
    if depth is not None:
        d_event, d_init, d_bid, d_ask = depth.ts_event, depth.ts_init, depth.bid_price, depth.ask_price
        d_bid_size, d_ask_size = depth.bid_size, depth.ask_size
        book.levels = depth.levels
    if bars is not None:
        b_event, b_init, b_open, b_high = bars.ts_event, bars.ts_init, bars.open, bars.high
        b_low, b_close, b_volume = bars.low, bars.close, bars.volume

    rows = len(given[beat])
    cdef Py_ssize_t width = plan.c_count
    values = np.empty((rows, width), dtype=np.float64)
    ts = np.empty(rows, dtype=np.uint64)
    ready = np.empty(rows, dtype=np.uint8)
    mid = np.empty(rows, dtype=np.float64)
    made_at = np.empty(rows, dtype=np.int64)
    ready_from = np.zeros(width, dtype=np.int64)
    cdef double[:, ::1] values_out = values
    cdef uint64_t[::1] ts_out = ts
    cdef uint8_t[::1] ready_out = ready
    cdef double[::1] mid_out = mid
    cdef int64_t[::1] at_out = made_at, ready_at = ready_from
    cdef tf_features *f = state.ptr
    cdef Py_ssize_t k, row = 0, total = source.shape[0], level, column, unready = width
    cdef int64_t i
    cdef int accepted
    cdef uint64_t when = 0
    trade.slot = quote.slot = quote.reserved = bar.slot = bar.reserved = observation.reserved = 0
    with nogil:
        for k in range(total):
            i = index[k]
            if source[k] == QUOTES:
                quote.bid_price, quote.ask_price = q_bid[i], q_ask[i]
                quote.bid_size, quote.ask_size = q_bid_size[i], q_ask_size[i]
                quote.ts_event, quote.ts_init = q_event[i], q_init[i]
                when = quote.ts_event
                accepted = tf_features_on_quote(f, &quote)
            elif source[k] == TRADES:
                trade.price, trade.size, trade.aggressor = t_price[i], t_size[i], t_side[i]
                trade.ts_event, trade.ts_init = t_event[i], t_init[i]
                when = trade.ts_event
                accepted = tf_features_on_trade(f, &trade)
            elif source[k] == DEPTH:
                for level in range(book.levels):
                    book.bid_price[level], book.ask_price[level] = d_bid[i, level], d_ask[i, level]
                    book.bid_size[level], book.ask_size[level] = d_bid_size[i, level], d_ask_size[i, level]
                book.ts_event, book.ts_init = d_event[i], d_init[i]
                when = book.ts_event
                accepted = tf_features_on_depth(f, &book)
            elif source[k] == BARS:
                bar.open, bar.high, bar.low, bar.close = b_open[i], b_high[i], b_low[i], b_close[i]
                bar.volume, bar.ts_event, bar.ts_init = b_volume[i], b_event[i], b_init[i]
                when = bar.ts_event
                accepted = tf_features_on_bar(f, &bar)
            elif source[k] == LEGS:
                quote.bid_price, quote.ask_price = l_bid[i], l_ask[i]
                quote.bid_size = quote.ask_size = 0.0
                quote.ts_event, quote.ts_init = l_event[i], l_init[i]
                tf_features_on_leg(f, l_number[i], &quote)
                continue
            else:
                for level in range(TF_EXTERNAL_VALUES):
                    observation.value[level] = x_values[i, level]
                observation.ts_event, observation.ts_init = x_event[i], x_init[i]
                observation.slot = x_number[i]
                tf_features_on_external(f, &observation)
                continue
            if accepted and source[k] == beat:
                tf_features_row(f, &values_out[row, 0])
                ts_out[row] = when
                ready_out[row] = tf_features_ready(f)
                mid_out[row] = tf_features_mid(f)
                at_out[row] = i
                if unready > 0:
                    unready = 0
                    for column in range(width):
                        if ready_at[column] == row and not tf_features_ready_at(f, <int32_t>column):
                            ready_at[column] = row + 1
                            unready += 1
                row += 1
    if row < rows:
        values, ts, ready, mid, made_at = (np.ascontiguousarray(array[:row])
                                           for array in (values, ts, ready, mid, made_at))
    return FeatureRows(ts, values, ready.view(np.bool_), mid, made_at, ready_from, state.counters)
