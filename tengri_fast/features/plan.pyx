"""Plans and their state: a list of specs compiled into one C block, fed event by event or from arrays.

The arithmetic lives in csrc/features. `FeatureState` passes live events to it; `FeaturePlan.compute` passes
rows of arrays to the same functions, so research and live values are the same bits.
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tengri_fast.features.capi cimport (
    TF_FEATURE_PARAMS,
    read_counters,
    tf_feature_adopt,
    tf_feature_counters,
    tf_feature_spec,
    tf_features,
    tf_features_bytes,
    tf_features_check,
    tf_features_emit,
    tf_features_init,
    tf_features_machine,
    tf_features_machines,
    tf_features_mid,
    tf_features_normalise,
    tf_features_on_bar,
    tf_features_on_depth,
    tf_features_on_external,
    tf_features_on_leg,
    tf_features_on_quote,
    tf_features_on_trade,
    tf_features_ready,
    tf_features_ready_at,
    tf_features_reset,
    tf_features_row,
    tf_features_size,
    tf_features_spread,
    tf_machine_info,
)
from tengri_fast.inference.capi cimport TF_OK
from tengri_fast.market.events cimport (
    TF_DEPTH_LEVELS,
    TF_EXTERNAL_VALUES,
    tf_bar,
    tf_depth10,
    tf_external,
    tf_quote,
    tf_trade,
)

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features._table import CLOCK_KINDS, MAX_LEGS, MAX_SOURCES, REGISTRY
from tengri_fast.features.clock import EVENT_CLOCK, Clock
from tengri_fast.features.spec import ENGINE_VERSION, FeatureSpec, Lookback, parse_specs

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

tf_feature_adopt(<void *><uintptr_t>REGISTRY)

cdef bytes STATE_MAGIC = b"TFFS"
cdef object STATE_HEADER = struct.Struct("<4sI32sQ")
cdef int MAX_WIDTH = 1024
cdef int MAX_SERIES = 32  # TF_MAX_SERIES of csrc/features/machine.h

cdef dict CLOCK_NAMES = {number: name for name, number in CLOCK_KINDS.items()}


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
    ready_from : int64 [F]
        First row at which each column is ready; the number of rows where it never is.
    counters : FeatureCounters
        Totals of the state after the last event.
    """

    ts: object
    values: object
    ready: object
    mid: object
    origin: object
    ready_from: object
    counters: FeatureCounters


def _per_column(name, value, count, low, strict):
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise FeatureExtractionError(f"`{name}` must be a number or {count} numbers, was {value!r}") from None
    if array.ndim == 0:
        array = np.full(count, array)
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
        Columns in order, 1 to 1024, no two equal. A text with several clocks gives a column for each.
    normalisation : tuple (mean, scale, clip), optional
        Numbers or one number per column; without it mean 0, scale 1, no clip.

    Attributes
    ----------
    specs : tuple of FeatureSpec
    names : tuple of str
        Column names: the specs as text, without parameters that have their default.
    width : int
        Number of columns.
    legs, sources : tuple of str
        Other instruments and external sources that the columns read, in the order of their numbers.
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
        cdef int j, k
        if isinstance(specs, (str, FeatureSpec)):
            specs = (specs,)
        if not isinstance(specs, Iterable):
            raise FeatureExtractionError(f"`specs` must be a sequence of FeatureSpec or text, was {specs!r}")
        parsed = tuple(made for spec in specs for made in (parse_specs(spec) if isinstance(spec, str) else (spec,)))
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
        clocks = {spec.clock for spec in parsed} | {EVENT_CLOCK}
        if len(clocks) > MAX_SERIES:
            raise FeatureExtractionError(f"`specs` must have at most {MAX_SERIES - 1} clocks beside the event clock, "
                                         f"had {len(clocks) - 1}")
        try:
            mean, scale, clip = (0.0, 1.0, 0.0) if normalisation is None else normalisation
        except (TypeError, ValueError):
            raise FeatureExtractionError(f"`normalisation` must be (mean, scale, clip), was {normalisation!r}") from None
        self.normalisation = Normalisation(
            _per_column("mean", mean, count, -np.inf, False),
            _per_column("scale", scale, count, 0.0, True),
            _per_column("clip", 0.0 if clip is None else clip, count, 0.0, False),
        )
        self.specs = parsed
        self.names = tuple(str(spec) for spec in parsed)
        text = "\n".join([f"tengri_fast features {ENGINE_VERSION}",
                          *(spec.canonical + spec.info.digest for spec in parsed)])
        self.hash = hashlib.sha256(text.encode()).hexdigest()
        self.lookback = Lookback(
            max([spec.lookback.events for spec in parsed if spec.clock.kind != "time"], default=1),
            max(max(spec.lookback.nanoseconds, int(spec.lookback.events * spec.clock.size))
                if spec.clock.kind == "time" else spec.lookback.nanoseconds for spec in parsed),
        )
        self.legs = tuple(dict.fromkeys(leg for spec in parsed for leg in spec.legs))
        self.sources = tuple(dict.fromkeys(source for spec in parsed for source in spec.sources))
        for name, found, most in (("instruments", self.legs, MAX_LEGS), ("sources", self.sources, MAX_SOURCES)):
            if len(found) > most:
                raise FeatureExtractionError(f"`specs` must name at most {most} other {name}, named {len(found)}")
        self.c_count = count
        self.c_specs = <tf_feature_spec *>calloc(count, sizeof(tf_feature_spec))
        if self.c_specs == NULL:
            raise MemoryError
        for i in range(count):
            spec = parsed[i]
            self.c_specs[i].kind = spec.kind
            for j, (parameter, value) in enumerate(zip(spec.info.parameters, spec.values)):
                if parameter.type == "instrument":
                    value = self.legs.index(value)
                elif parameter.type == "instruments":
                    value = sum(1 << self.legs.index(leg) for leg in value)
                elif parameter.type == "source":
                    value = self.sources.index(value)
                self.c_specs[i].param[j] = value
            c_clock = spec.clock.c_values
            self.c_specs[i].clock.kind, self.c_specs[i].clock.trades = c_clock[0], c_clock[1]
            self.c_specs[i].clock.size = c_clock[2]
            self.c_specs[i].stages = len(spec.stages)
            for j, stage in enumerate(spec.stages):
                self.c_specs[i].stage[j].kind, numbers = stage.c_values
                for k in range(len(numbers)):
                    self.c_specs[i].stage[j].param[k] = numbers[k]
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
        """The plan as text: each column with unit, clock, lookback, rule and source, and what the columns share."""
        cdef FeatureState state = FeatureState(self)
        lines = [f"{self.c_count} features, {tf_features_machines(state.ptr)} machines, {self.nbytes} bytes of state, "
                 f"hash {self.hash}"]
        for name, found in (("other instruments", self.legs), ("external sources", self.sources)):
            if found:
                lines.append(f"{name}: {', '.join(found)}")
        for number, spec in enumerate(self.specs):
            info = spec.info
            events, nanoseconds = spec.lookback
            lines.append(f"[{number}] {spec.canonical}")
            lines.append(f"    {info.description}")
            clock = "" if spec.clock == EVENT_CLOCK else f" of {spec.clock}"
            lines.append(f"    unit {info.unit}; fed by {info.needs}; ready after {events} sample(s){clock}"
                         f"{f' and {nanoseconds / 1e9:g} s' if nanoseconds else ''}")
            lines.append(f"    rule: {info.rule}")
            lines.append(f"    source: {info.source}")
            for stage in spec.stages:
                lines.append(f"    then {stage.canonical}: {stage.info.description} Rule: {stage.info.rule}")
            mean, scale, clip = [float(column[number]) for column in self.normalisation]
            if (mean, scale, clip) != (0.0, 1.0, 0.0):
                lines.append(f"    normalised: (value - {mean:.6g}) / {scale:.6g}"
                             f"{f', clipped to +-{clip:g}' if clip else ''}")
        lines.append("machines, each updated once however many columns read it:")
        for number in range(tf_features_machines(state.ptr)):
            lines.append(told_machine(state, number))
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
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 2:
            raise FeatureExtractionError(f"`values` must have 2 dimensions, had {array.ndim}")
        cdef const double[:, ::1] rows = np.ascontiguousarray(array)
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

    def compute(self, quotes=None, trades=None, depth=None, clock="quote", *, bars=None, legs=None, external=None,
                FeatureState state=None):
        """Rows from arrays, by the same C code that runs live.

        Events are taken in the order of `merge_order` over `ts_init`: at equal times trades, then quotes, depth, bars,
        other instruments, external sources.

        Parameters
        ----------
        quotes : QuoteColumns, optional
        trades : TradeColumns, optional
        depth : DepthColumns, optional
        clock : {"quote", "trade", "depth", "bar"}
            A row is made at each accepted event of this stream.
        bars : BarColumns, optional
        legs : mapping of str to QuoteColumns, optional
            Quotes of the other instruments that the plan names (`legs`). One that is left out is never seen.
        external : mapping of str to ExternalColumns, optional
            Observations of the sources that the plan names (`sources`).
        state : FeatureState, optional
            Continue from here (it is changed); a fresh one otherwise.

        Returns
        -------
        FeatureRows

        Raises
        ------
        FeatureExtractionError
            If the clock's stream is missing, an argument has the wrong type, or a name is not in the plan.
        """
        from tengri_fast.features.research import compute_rows

        return compute_rows(self, quotes, trades, depth, clock, bars, legs, external, state)


cdef str told_machine(FeatureState state, int32_t number):
    """One machine of the plan as text."""
    cdef tf_machine_info machine
    cdef int k, used = 0
    if not tf_features_machine(state.ptr, number, &machine):
        return ""
    for k in range(TF_FEATURE_PARAMS):
        if machine.param[k] != 0.0:
            used = k + 1
    numbers = [f"{machine.param[k]:g}" for k in range(used)]
    kind = CLOCK_NAMES[machine.clock.kind]
    clock = "" if kind == "event" else f" @ {Clock(kind, machine.clock.trades == 1, machine.clock.size)}"
    return (f"    {machine.name.decode()}({', '.join(numbers)}){clock}: {machine.bytes} bytes, "
            f"{machine.columns} column(s)")


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

    def update_leg(self, str name, double bid_price, double ask_price, uint64_t ts_event):
        """Take a quote of another instrument of the plan; True if it was accepted."""
        if name not in self.plan.legs:
            raise FeatureExtractionError(f"`name` must be one of {', '.join(self.plan.legs) or 'none'}, was {name!r}")
        cdef tf_quote quote
        quote.bid_price, quote.ask_price = bid_price, ask_price
        quote.bid_size = quote.ask_size = 0.0
        quote.ts_event = quote.ts_init = ts_event
        quote.slot = quote.reserved = 0
        return tf_features_on_leg(self.ptr, self.plan.legs.index(name), &quote) == 1

    def update_external(self, str name, values, uint64_t ts_event):
        """Take an observation of a source of the plan, 1 to 4 numbers, at its publication; True if it was accepted."""
        if name not in self.plan.sources:
            raise FeatureExtractionError(f"`name` must be one of {', '.join(self.plan.sources) or 'none'}, was {name!r}")
        cdef tf_external event
        cdef int i, count = len(values)
        if not 1 <= count <= TF_EXTERNAL_VALUES:
            raise FeatureExtractionError(f"`values` must have 1 to {int(TF_EXTERNAL_VALUES)} entries, had {count}")
        for i in range(TF_EXTERNAL_VALUES):
            event.value[i] = values[i] if i < count else float("nan")
        event.ts_event = event.ts_init = ts_event
        event.slot, event.reserved = self.plan.sources.index(name), 0
        return tf_features_on_external(self.ptr, &event) == 1

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
            if tf_features_check(self.ptr, scratch, size) != TF_OK:
                raise FeatureExtractionError("`data` must be a state of this plan and normalisation, was not")
            memcpy(self.ptr, scratch, size)
        finally:
            free(scratch)
