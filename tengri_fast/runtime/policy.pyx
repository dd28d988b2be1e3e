"""The default decision: from a signal to hold, enter or leave.

Enter when the expected move clears what a round trip costs: ``|value| > fees + half spread + threshold``. Leave when
the signal points the other way by more than ``exit_bps`` (hysteresis), when the holding time is over, or when no model
stands behind the signal. One position per instrument, a pause after each exit. All in basis points of the mid and in
event time: nothing here reads a clock.
"""

from libc.math cimport fabs, isfinite
from libc.stdint cimport int32_t, uint64_t

from math import isfinite as py_isfinite

from tengri_fast.errors import ConfigurationError

from tengri_fast.runtime.engine cimport NeuralSignal, tf_signal


cdef class DecisionPolicy:
    """Decides for one instrument.

    Parameters
    ----------
    fee_bps : float
        Fees of a whole round trip (both sides), in basis points of notional.
    threshold_bps : float
        What the expected move must exceed beyond fees and half spread. Negative values trade below cost: useful to
        show machinery, never to make money.
    exit_bps : float
        An open position is closed when the signal's value against it exceeds this.
    min_confidence : float
        Calibrated maximum probability below which no position is opened, 0 to 1.
    max_holding_ns, cooldown_ns : int
        Longest time in a position (0: no limit) and pause after leaving one, in nanoseconds of event time.

    Raises
    ------
    ConfigurationError
        Names the field, its rule and its value.
    """

    def __init__(self, *, double fee_bps=0.0, double threshold_bps=0.0, double exit_bps=0.0,
                 double min_confidence=0.0, uint64_t max_holding_ns=0, uint64_t cooldown_ns=0):
        for name, value in (("fee_bps", fee_bps), ("threshold_bps", threshold_bps), ("exit_bps", exit_bps)):
            if not py_isfinite(value):
                raise ConfigurationError(f"`{name}` must be a finite number, was {value}")
        if fee_bps < 0.0 or exit_bps < 0.0:
            name, value = ("fee_bps", fee_bps) if fee_bps < 0.0 else ("exit_bps", exit_bps)
            raise ConfigurationError(f"`{name}` must be >= 0, was {value}")
        if not 0.0 <= min_confidence <= 1.0:
            raise ConfigurationError(f"`min_confidence` must be between 0 and 1, was {min_confidence}")
        self.fee_bps = fee_bps
        self.threshold_bps = threshold_bps
        self.exit_bps = exit_bps
        self.min_confidence = min_confidence
        self.max_holding_ns = max_holding_ns
        self.cooldown_ns = cooldown_ns
        self.reset()

    def reset(self):
        """Forgets entry and exit times."""
        self.entered_at = 0
        self.left_at = 0
        self.side = 0

    cdef int decide(self, const tf_signal *signal, int position_side, bint order_in_flight) noexcept:
        """The action for a signal, given the side of the position now held (+1, 0, -1)."""
        cdef double half_spread_bps
        if position_side != self.side:
            # A change of side is seen at the first signal after the fill; event time stands in for fill time.
            if position_side == 0:
                self.left_at = signal.ts_event
            else:
                self.entered_at = signal.ts_event
            self.side = position_side
        if order_in_flight:
            return Action.HOLD
        if position_side != 0:
            if signal.rung != 0:
                return Action.EXIT
            if self.max_holding_ns != 0 and signal.ts_event >= self.entered_at + self.max_holding_ns:
                return Action.EXIT
            if -signal.value * position_side > self.exit_bps:
                return Action.EXIT
            return Action.HOLD
        if signal.rung != 0 or signal.confidence < self.min_confidence:
            return Action.HOLD
        if self.left_at != 0 and signal.ts_event < self.left_at + self.cooldown_ns:
            return Action.HOLD
        if not (signal.mid > 0.0 and signal.spread >= 0.0 and isfinite(signal.value)):
            return Action.HOLD
        half_spread_bps = 0.5e4 * signal.spread / signal.mid
        if signal.value == 0.0 or not fabs(signal.value) > self.fee_bps + half_spread_bps + self.threshold_bps:
            return Action.HOLD
        return Action.ENTER_LONG if signal.value > 0.0 else Action.ENTER_SHORT

    def action(self, NeuralSignal signal, int position_side, bint order_in_flight=False):
        """The decision by name: ``"hold"``, ``"enter_long"``, ``"enter_short"`` or ``"exit"``."""
        if position_side not in (-1, 0, 1):
            raise ValueError(f"`position_side` must be -1, 0 or +1, was {position_side}")
        return {Action.HOLD: "hold", Action.ENTER_LONG: "enter_long", Action.ENTER_SHORT: "enter_short",
                Action.EXIT: "exit"}[self.decide(&signal.data, position_side, order_in_flight)]
