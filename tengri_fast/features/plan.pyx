"""Plans and their state: a list of specs compiled into one C block, fed event by event or from arrays.

The arithmetic lives in csrc/features/features.c. `FeatureState` passes live events to it; `FeaturePlan.compute` passes
rows of arrays to the same functions, so research and live values are the same bits.
"""

import hashlib
import struct
from typing import NamedTuple

import numpy as np

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tengri_fast.features.capi cimport (
    TF_FEATURE_PARAMS,
    read_counters,
    tf_feature_counters,
    tf_feature_spec,
    tf_features,
    tf_features_bytes,
    tf_features_check,
    tf_features_emit,
    tf_features_init,
    tf_features_mid,
    tf_features_normalise,
    tf_features_on_bar,
    tf_features_on_depth,
    tf_features_on_quote,
    tf_features_on_trade,
    tf_features_ready,
    tf_features_ready_at,
    tf_features_reset,
    tf_features_row,
    tf_features_size,
    tf_features_spread,
)
from tengri_fast.inference.capi cimport TF_OK
from tengri_fast.market.events cimport TF_DEPTH_LEVELS, tf_bar, tf_depth10, tf_quote, tf_trade

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features.spec import ENGINE_VERSION, FeatureSpec, Lookback, parse_spec
from tengri_fast.market.columns import BarColumns, DepthColumns, QuoteColumns, TradeColumns, merge_order

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef bytes STATE_MAGIC = b"TFFS"
cdef object STATE_HEADER = struct.Struct("<4sI32sQ")
cdef int MAX_WIDTH = 1024

# Streams in the order in which they are seen at equal times.
CLOCKS = ("trade", "quote", "depth", "bar")


class Normalisation(NamedTuple):
    """(value - mean) / scale, clipped to [-clip, clip]; clip 0 means none. Arrays of float64, one number per column."""

    mean: object
    scale: object
    clip: object


class FeatureCounters(NamedTuple):
    """What became of the events so far."""

    accepted: int
    crossed: int
    backward: int
    invalid: int
    overflow: int


class FeatureRows(NamedTuple):
    """Rows computed from arrays.

    Attributes
    ----------
    ts : uint64 [n]
        Event time of the event that made the row.
    values : float64 [n, F]
        Raw values, before normalisation; 0 where a feature is not ready.
    ready : bool [n]
        Whether every feature has seen its lookback.
    mid : float64 [n]
        Mid of the last accepted book; 0 before the first.
    origin : int64 [n]
        Row of the clock's stream that made this row.
    counters : FeatureCounters
        Totals of the state after the last event.
    """

    ts: object
    values: object
    ready: object
    mid: object
    origin: object
    counters: FeatureCounters


def _per_column(name, value, count, low, strict):
    array = np.array(np.broadcast_to(np.asarray(value, dtype=np.float64), (count,))) \
        if np.ndim(value) == 0 else np.array(value, dtype=np.float64)
    if array.shape != (count,):
        raise FeatureExtractionError(f"`{name}` must have {count} entries, one per feature, had shape {array.shape}")
    for i in range(count):
        if not np.isfinite(array[i]) or array[i] < low or (strict and array[i] == low):
            rule = "finite" if low == -np.inf else f"finite and {'>' if strict else '>='} {low:g}"
            raise FeatureExtractionError(f"`{name}[{i}]` must be {rule}, was {array[i]}")
    array.setflags(write=False)
    return array


cdef class FeaturePlan:
    """A list of features compiled into one block of state and one output row; immutable.

    Parameters
    ----------
    specs : sequence of FeatureSpec or str
        Columns in order, 1 to 1024, no two equal.
    normalisation : tuple (mean, scale, clip), optional
        Numbers or one number per column; without it mean 0, scale 1, no clip.

    Attributes
    ----------
    specs : tuple of FeatureSpec
    names : tuple of str
        Column names: the specs as text, without parameters that have their default.
    width : int
        Number of columns.
    hash : str
        SHA-256 over the full text of the specs and the version of the feature engine. Normalisation is not part of it:
        it belongs to a model.
    lookback : Lookback
        The largest count of events and the longest time that any column needs before it is ready.
    nbytes : int
        Size of one state.

    Raises
    ------
    FeatureExtractionError
        If a spec is wrong or given twice, or the normalisation does not fit.
    """

    def __cinit__(self, specs, normalisation=None):
        cdef size_t size = 0
        cdef int32_t i
        cdef int j
        if isinstance(specs, (str, FeatureSpec)):
            specs = (specs,)
        parsed = tuple(parse_spec(spec) if isinstance(spec, str) else spec for spec in specs)
        for spec in parsed:
            if not isinstance(spec, FeatureSpec):
                raise FeatureExtractionError(f"`specs` must hold FeatureSpec or text, held {type(spec).__name__}")
        if not 1 <= len(parsed) <= MAX_WIDTH:
            raise FeatureExtractionError(f"`specs` must have 1 to {MAX_WIDTH} entries, had {len(parsed)}")
        seen = set()
        for spec in parsed:
            if spec.canonical in seen:
                raise FeatureExtractionError(f"`specs` must not repeat a feature, had {spec} twice")
            seen.add(spec.canonical)
        count = len(parsed)
        mean, scale, clip = (0.0, 1.0, 0.0) if normalisation is None else normalisation
        self.normalisation = Normalisation(
            _per_column("mean", mean, count, -np.inf, False),
            _per_column("scale", scale, count, 0.0, True),
            _per_column("clip", 0.0 if clip is None else clip, count, 0.0, False),
        )
        self.specs = parsed
        self.names = tuple(str(spec) for spec in parsed)
        text = "\n".join([f"tengri_fast features {ENGINE_VERSION}", *(spec.canonical for spec in parsed)])
        self.hash = hashlib.sha256(text.encode()).hexdigest()
        self.lookback = Lookback(
            max(spec.lookback.events for spec in parsed), max(spec.lookback.nanoseconds for spec in parsed)
        )
        self.c_count = count
        self.c_specs = <tf_feature_spec *>calloc(count, sizeof(tf_feature_spec))
        if self.c_specs == NULL:
            raise MemoryError
        for i in range(count):
            spec = parsed[i]
            self.c_specs[i].kind = spec.kind
            for j, value in enumerate(spec.values):
                self.c_specs[i].param[j] = value
            self.c_specs[i].mean = self.normalisation.mean[i]
            self.c_specs[i].scale = self.normalisation.scale[i]
            self.c_specs[i].clip = self.normalisation.clip[i]
        if tf_features_size(self.c_specs, self.c_count, &size) != TF_OK:
            raise FeatureExtractionError(f"`specs` must keep the rules of the feature table, were {self.names}")
        self.nbytes = size

    def __dealloc__(self):
        free(self.c_specs)

    @property
    def width(self):
        """Number of columns."""
        return self.c_count

    def __repr__(self):
        return f"FeaturePlan({list(self.names)}, hash={self.hash[:12]})"

    def __len__(self):
        return self.c_count

    def __reduce__(self):
        raise TypeError("a FeaturePlan cannot be pickled: keep its specs as text")

    def with_normalisation(self, mean, scale, clip=None):
        """The same plan with another normalisation; numbers or one number per column."""
        return FeaturePlan(self.specs, (mean, scale, clip))

    def state(self):
        """A fresh state that has seen nothing."""
        return FeatureState(self)

    def explain(self):
        """The columns as text: unit, what feeds them, lookback, rules, source."""
        lines = [f"{self.c_count} features, {self.nbytes} bytes of state, hash {self.hash}"]
        for i, spec in enumerate(self.specs):
            info = spec.info
            events, nanoseconds = spec.lookback
            lines.append(f"[{i}] {spec.canonical}")
            lines.append(f"    {info.description}")
            lines.append(f"    unit {info.unit}; fed by {info.needs}; ready after {events} event(s)"
                         f"{f' and {nanoseconds / 1e9:g} s' if nanoseconds else ''}")
            lines.append(f"    rule: {info.rule}")
            lines.append(f"    source: {info.source}")
            mean, scale, clip = (float(column[i]) for column in self.normalisation)
            if (mean, scale, clip) != (0.0, 1.0, 0.0):
                lines.append(f"    normalised: (value - {mean:.6g}) / {scale:.6g}"
                             f"{f', clipped to +-{clip:g}' if clip else ''}")
        return "\n".join(lines)

    def normalise(self, values):
        """Raw rows to what a model is fed: float32, by the same arithmetic as `FeatureState.emit`.

        Parameters
        ----------
        values : array_like of float64 [n, F]

        Returns
        -------
        float32 [n, F]
            A number beyond float32 becomes the largest one of its sign; NaN becomes 0.
        """
        cdef const double[:, ::1] rows = np.ascontiguousarray(values, dtype=np.float64)
        if rows.shape[1] != self.c_count:
            raise FeatureExtractionError(f"`values` must have {self.c_count} columns, had {rows.shape[1]}")
        out = np.empty((rows.shape[0], self.c_count), dtype=np.float32)
        cdef float[:, ::1] target = out
        cdef FeatureState state = FeatureState(self)
        cdef Py_ssize_t i
        with nogil:
            for i in range(rows.shape[0]):
                tf_features_normalise(state.ptr, &rows[i, 0], &target[i, 0])
        return out

    def compute(self, quotes=None, trades=None, depth=None, clock="quote", *, bars=None, FeatureState state=None):
        """Rows from arrays, by the same C code that runs live.

        Events are taken in the order of `merge_order` over `ts_init`: at equal times trades, then quotes, depth, bars.

        Parameters
        ----------
        quotes : QuoteColumns, optional
        trades : TradeColumns, optional
        depth : DepthColumns, optional
        clock : {"quote", "trade", "depth", "bar"}
            A row is made at each accepted event of this stream.
        bars : BarColumns, optional
        state : FeatureState, optional
            Continue from here (it is changed); a fresh one otherwise.

        Returns
        -------
        FeatureRows

        Raises
        ------
        FeatureExtractionError
            If the clock's stream is missing, or an argument has the wrong type.
        """
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
        if state is None:
            state = FeatureState(self)
        elif state.plan.hash != self.hash:
            raise FeatureExtractionError(f"`state` must belong to plan {self.hash[:12]}, was {state.plan.hash[:12]}")

        none_time, none = np.empty(0, np.uint64), np.empty(0, np.float64)
        order = merge_order(*(none_time if value is None else value.ts_init for value in given))
        cdef const uint8_t[::1] source = order.source
        cdef const int64_t[::1] index = order.row
        cdef const uint64_t[::1] t_event, t_init, q_event, q_init, d_event, d_init, b_event, b_init
        cdef const double[::1] t_price, t_size, q_bid, q_ask, q_bid_size, q_ask_size
        cdef const double[::1] b_open, b_high, b_low, b_close, b_volume
        cdef const double[:, ::1] d_bid, d_ask, d_bid_size, d_ask_size
        cdef const int32_t[::1] t_side
        cdef tf_trade trade
        cdef tf_quote quote
        cdef tf_depth10 book
        cdef tf_bar bar
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
        values = np.empty((rows, self.c_count), dtype=np.float64)
        ts = np.empty(rows, dtype=np.uint64)
        ready = np.empty(rows, dtype=np.uint8)
        mid = np.empty(rows, dtype=np.float64)
        made_at = np.empty(rows, dtype=np.int64)
        cdef double[:, ::1] values_out = values
        cdef uint64_t[::1] ts_out = ts
        cdef uint8_t[::1] ready_out = ready
        cdef double[::1] mid_out = mid
        cdef int64_t[::1] at_out = made_at
        cdef tf_features *f = state.ptr
        cdef Py_ssize_t k, row = 0, total = source.shape[0], level
        cdef int64_t i
        cdef int accepted
        cdef uint64_t when
        trade.slot = quote.slot = quote.reserved = bar.slot = bar.reserved = 0
        with nogil:
            for k in range(total):
                i = index[k]
                if source[k] == 0:
                    trade.price, trade.size, trade.aggressor = t_price[i], t_size[i], t_side[i]
                    trade.ts_event, trade.ts_init = t_event[i], t_init[i]
                    when = trade.ts_event
                    accepted = tf_features_on_trade(f, &trade)
                elif source[k] == 1:
                    quote.bid_price, quote.ask_price = q_bid[i], q_ask[i]
                    quote.bid_size, quote.ask_size = q_bid_size[i], q_ask_size[i]
                    quote.ts_event, quote.ts_init = q_event[i], q_init[i]
                    when = quote.ts_event
                    accepted = tf_features_on_quote(f, &quote)
                elif source[k] == 2:
                    for level in range(book.levels):
                        book.bid_price[level], book.ask_price[level] = d_bid[i, level], d_ask[i, level]
                        book.bid_size[level], book.ask_size[level] = d_bid_size[i, level], d_ask_size[i, level]
                    book.ts_event, book.ts_init = d_event[i], d_init[i]
                    when = book.ts_event
                    accepted = tf_features_on_depth(f, &book)
                else:
                    bar.open, bar.high, bar.low, bar.close = b_open[i], b_high[i], b_low[i], b_close[i]
                    bar.volume, bar.ts_event, bar.ts_init = b_volume[i], b_event[i], b_init[i]
                    when = bar.ts_event
                    accepted = tf_features_on_bar(f, &bar)
                if accepted and source[k] == beat:
                    tf_features_row(f, &values_out[row, 0])
                    ts_out[row] = when
                    ready_out[row] = tf_features_ready(f)
                    mid_out[row] = tf_features_mid(f)
                    at_out[row] = i
                    row += 1
        cut = slice(None) if row == rows else slice(0, row)
        return FeatureRows(*(np.ascontiguousarray(array[cut]) for array in (ts, values, ready.view(np.bool_), mid,
                                                                            made_at)), state.counters)


@cython.final
cdef class FeatureState:
    """What one instrument's features remember. Events go in one by one; `row` and `emit` give the columns.

    Parameters
    ----------
    plan : FeaturePlan

    Notes
    -----
    An ``update`` returns False for an event that a rule held or dropped: prices not in [1e-18, 1e18], sizes that are
    negative or not finite (``invalid``), bid above ask (``crossed``; locked books are accepted), or time running
    backward within the book's, the trades' or the bars' own stream (``backward``). `counters` counts them.
    """

    def __cinit__(self, FeaturePlan plan not None):
        self.plan = plan
        cdef size_t size = (<size_t>plan.nbytes + 63) & ~<size_t>63
        cdef void *memory = aligned_alloc(64, size)
        if memory == NULL:
            raise MemoryError
        if tf_features_init(memory, size, plan.c_specs, plan.c_count, &self.ptr) != TF_OK:
            free(memory)
            self.ptr = NULL
            raise FeatureExtractionError("`plan` must keep the rules of the feature table")

    def __dealloc__(self):
        free(self.ptr)

    def __reduce__(self):
        raise TypeError("a FeatureState cannot be pickled: use to_bytes() and from_bytes()")

    def __repr__(self):
        return f"FeatureState({self.plan.c_count} features, ready={self.ready}, {self.counters})"

    def update_quote(self, double bid_price, double ask_price, double bid_size, double ask_size, uint64_t ts_event):
        """Take a top-of-book quote; True if it was accepted."""
        cdef tf_quote quote
        quote.bid_price, quote.ask_price, quote.bid_size, quote.ask_size = bid_price, ask_price, bid_size, ask_size
        quote.ts_event = quote.ts_init = ts_event
        quote.slot = quote.reserved = 0
        return tf_features_on_quote(self.ptr, &quote) == 1

    def update_trade(self, double price, double size, int32_t aggressor, uint64_t ts_event):
        """Take a trade (aggressor +1 buyer, -1 seller, 0 unknown); True if it was accepted."""
        cdef tf_trade trade
        trade.price, trade.size, trade.aggressor = price, size, aggressor
        trade.ts_event = trade.ts_init = ts_event
        trade.slot = 0
        return tf_features_on_trade(self.ptr, &trade) == 1

    def update_bar(self, double open, double high, double low, double close, double volume, uint64_t ts_event):
        """Take a bar; True if it was accepted. Its close is the mid as long as no quote or depth was seen."""
        cdef tf_bar bar
        bar.open, bar.high, bar.low, bar.close, bar.volume = open, high, low, close, volume
        bar.ts_event = bar.ts_init = ts_event
        bar.slot = bar.reserved = 0
        return tf_features_on_bar(self.ptr, &bar) == 1

    def update_depth(self, bid_price, bid_size, ask_price, ask_size, uint64_t ts_event):
        """Take a book snapshot, best level first, 1 to 10 levels; True if it was accepted."""
        cdef const double[::1] bids = np.ascontiguousarray(bid_price, dtype=np.float64)
        cdef const double[::1] bid_sizes = np.ascontiguousarray(bid_size, dtype=np.float64)
        cdef const double[::1] asks = np.ascontiguousarray(ask_price, dtype=np.float64)
        cdef const double[::1] ask_sizes = np.ascontiguousarray(ask_size, dtype=np.float64)
        cdef Py_ssize_t levels = bids.shape[0], i
        if not 1 <= levels <= TF_DEPTH_LEVELS:
            raise FeatureExtractionError(f"`levels` must be from 1 to {int(TF_DEPTH_LEVELS)}, was {levels}")
        if not (bid_sizes.shape[0] == asks.shape[0] == ask_sizes.shape[0] == levels):
            raise FeatureExtractionError(f"`bid_size`, `ask_price`, `ask_size` must have {levels} levels like `bid_price`")
        cdef tf_depth10 depth
        memset(&depth, 0, sizeof(depth))
        for i in range(levels):
            depth.bid_price[i], depth.bid_size[i] = bids[i], bid_sizes[i]
            depth.ask_price[i], depth.ask_size[i] = asks[i], ask_sizes[i]
        depth.ts_event = depth.ts_init = ts_event
        depth.levels = <uint32_t>levels
        return tf_features_on_depth(self.ptr, &depth) == 1

    @property
    def ready(self):
        """Whether every feature has seen its lookback."""
        return tf_features_ready(self.ptr) == 1

    @property
    def ready_columns(self):
        """Whether each feature has seen its lookback, bool [F]."""
        return np.array([tf_features_ready_at(self.ptr, i) == 1 for i in range(self.plan.c_count)], dtype=np.bool_)

    @property
    def mid(self):
        """Mid of the last accepted book; 0 before the first."""
        return tf_features_mid(self.ptr)

    @property
    def spread(self):
        """Ask minus bid of the last accepted book; 0 before the first."""
        return tf_features_spread(self.ptr)

    @property
    def counters(self):
        """Events accepted, held (crossed) and dropped (backward, invalid), and window entries that left a full ring."""
        cdef tf_feature_counters c
        read_counters(self.ptr, &c)
        return FeatureCounters(c.accepted, c.crossed, c.backward, c.invalid, c.overflow)

    def row(self):
        """Raw values now, float64 [F]; 0 where a feature is not ready."""
        out = np.empty(self.plan.c_count, dtype=np.float64)
        cdef double[::1] view = out
        tf_features_row(self.ptr, &view[0])
        return out

    def emit(self, float[::1] out not None):
        """Write the normalised row into `out` (float32 [F]).

        Returns
        -------
        bool
            False if a value was beyond float32 and became the largest number of its sign.
        """
        if out.shape[0] != self.plan.c_count:
            raise FeatureExtractionError(f"`out` must have {self.plan.c_count} entries, had {out.shape[0]}")
        return tf_features_emit(self.ptr, &out[0]) == 1

    def reset(self):
        """Forget everything, counters too."""
        tf_features_reset(self.ptr)

    def copy(self):
        """An independent state with the same bits."""
        cdef FeatureState other = FeatureState(self.plan)
        memcpy(other.ptr, self.ptr, tf_features_bytes(self.ptr))
        return other

    def to_bytes(self):
        """The state as bytes: exact, checked by a digest, for the same plan and machine architecture."""
        head = STATE_HEADER.pack(STATE_MAGIC, ENGINE_VERSION, bytes.fromhex(self.plan.hash), self.plan.nbytes)
        body = (<char *>self.ptr)[:tf_features_bytes(self.ptr)]
        return b"".join((head, body, hashlib.sha256(head + body).digest()))

    def from_bytes(self, data):
        """Replace this state by one saved with `to_bytes`; all or nothing.

        Raises
        ------
        FeatureExtractionError
            If the bytes are damaged, truncated, or belong to another plan, normalisation or version.
        """
        data = bytes(data)
        cdef Py_ssize_t size = self.plan.nbytes
        if len(data) != STATE_HEADER.size + size + 32:
            raise FeatureExtractionError(f"`data` must have {STATE_HEADER.size + size + 32} bytes, had {len(data)}")
        cdef Py_ssize_t end = STATE_HEADER.size + size
        magic, version, plan_hash, _ = STATE_HEADER.unpack_from(data)
        if magic != STATE_MAGIC:
            raise FeatureExtractionError(f"`data` must start with {STATE_MAGIC!r}, was {magic!r}")
        if version != ENGINE_VERSION:
            raise FeatureExtractionError(f"`data` must be of feature engine {ENGINE_VERSION}, was {version}")
        if plan_hash.hex() != self.plan.hash:
            raise FeatureExtractionError(f"`data` must belong to plan {self.plan.hash[:12]}, was {plan_hash.hex()[:12]}")
        if hashlib.sha256(data[:end]).digest() != data[end:]:
            raise FeatureExtractionError("`data` must match its digest, did not")
        cdef const uint8_t[::1] body = data[STATE_HEADER.size:end]
        cdef size_t rounded = (<size_t>size + 63) & ~<size_t>63
        cdef void *scratch = aligned_alloc(64, rounded)
        if scratch == NULL:
            raise MemoryError
        try:
            memcpy(scratch, &body[0], size)
            if tf_features_check(scratch, size, self.plan.c_specs, self.plan.c_count) != TF_OK:
                raise FeatureExtractionError("`data` must be a state of this plan and normalisation, was not")
            memcpy(self.ptr, scratch, size)
        finally:
            free(scratch)
