from libc.stdint cimport int32_t, uint64_t


# What a size is asked for with. Unknown numbers are NaN, and a part that needs one of them then answers zero.
cdef struct tf_ask:
    int32_t side                # +1 buys, -1 sells
    int32_t budgeted            # whether `budget` was given at all
    double value                # expected return in the direction of `side`, as a fraction
    double p_win                # probability of a move in the direction of `side`
    double p_loss               # and against it
    double horizon_ns           # of the signal
    double price
    double equity               # base currency
    double unit_value           # result of one unit per relative price move, base currency, > 0
    double cost                 # of the round trip, as a fraction of notional
    double budget               # loss at value at risk that may still be added, base currency
    double unit_var             # value at risk of one unit held on `side`, as a fraction of `unit_value`
    double variance             # of relative price moves, per nanosecond
    double drawdown             # distance from peak equity, as a fraction of the peak


cdef enum Reason:
    SIZED = 0
    BAD_ASK = 1                 # side, price, equity or value of a unit is no usable number
    NO_ANSWER = 2               # a part could not answer
    NOTHING_LEFT = 3            # a part allows nothing
    TOO_SMALL = 4               # what is left is less than the smallest order


cdef enum:
    MAX_PARTS = 16


cdef class SizingPart:
    cdef readonly str name
    cdef readonly bint scales   # a factor from 0 to 1 on the bounds of the others, not a bound of its own
    cdef readonly bint hard     # hysteresis never holds a size above it
    cdef double answer(self, const tf_ask *ask) noexcept


cdef class VolatilityTarget(SizingPart):
    cdef readonly double target
    cdef readonly uint64_t horizon_ns


cdef class FractionalKelly(SizingPart):
    cdef readonly double fraction
    cdef readonly double stop
    cdef readonly double loss_multiple


cdef class VarBudget(SizingPart):
    cdef readonly double limit
    cdef readonly double share
    cdef readonly double level
    cdef readonly double quantile
    cdef readonly uint64_t horizon_ns


cdef class DrawdownScale(SizingPart):
    cdef readonly double start
    cdef readonly double stop
    cdef readonly double middle
    cdef readonly bint linear


cdef class Cap(SizingPart):
    cdef readonly double quantity
    cdef readonly double notional
    cdef readonly double leverage


cdef class EwmaVariance:
    cdef readonly uint64_t step_ns
    cdef readonly uint64_t half_life_ns
    cdef readonly uint64_t gap_ns
    cdef readonly uint64_t least
    cdef double keep            # weight that one sample leaves to the past
    cdef double squares         # decayed sum of squared returns
    cdef double elapsed         # decayed sum of their lengths, ns
    cdef double events          # decayed sum of mids seen
    cdef double anchor          # mid at the start of the running sample; 0 before the first
    cdef double seen            # mids since the anchor
    cdef uint64_t anchor_ts
    cdef uint64_t count
    cdef void observe(self, double mid, uint64_t ts) noexcept nogil
    cdef double rate(self) noexcept nogil
    cdef double interval(self) noexcept nogil


cdef class PositionSizer:
    cdef readonly tuple parts
    cdef readonly EwmaVariance volatility
    cdef readonly double lot
    cdef readonly double min_size
    cdef readonly double hysteresis
    cdef readonly double multiplier
    cdef readonly bint inverse
    cdef readonly double peak   # highest equity so far, NaN before the first
    cdef double unit_var_long
    cdef double unit_var_short
    cdef double answers[MAX_PARTS]
    cdef int32_t part_count
    cdef int32_t bound_by       # part that bound, -1 when none did
    cdef int32_t reason
    cdef bint held_back         # whether hysteresis kept the size
    cdef double last
    cdef void observe(self, double mid, uint64_t ts) noexcept
    cdef void note_equity(self, double equity) noexcept
    cdef double decide(self, tf_ask *ask, double held) noexcept
    cdef void _fill(self, tf_ask *ask, double value_bps, double p_down, double p_up, double price, double equity,
                    double rate, double cost_bps) noexcept
