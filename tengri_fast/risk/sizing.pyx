"""How much to trade: parts that each bound the size, and a sizer that takes the smallest.

A part answers in units of the instrument (an upper bound) or with a factor from 0 to 1 (a scale). The size is::

    floor((min of the bounds) * (product of the scales) / lot) * lot

A number that a part needs and that is not known makes its answer zero: what cannot be sized is not traded, and
:meth:`PositionSizer.explain` says why. Nothing is allocated between the question and the answer, so that a size can be
asked for inside a tick handler; the Cython path is ``decide``, the Python one ``size``.

The parts, per unit of exposure u = result of one unit per relative price move in base currency, with equity E and the
variance rate v of mids (per nanosecond) from :class:`EwmaVariance`:

* :class:`VolatilityTarget`: target E / (u sqrt(v H)), so that the position's standard deviation over H is the target's
  share of equity.
* :class:`FractionalKelly`: with probability p a gain G, with probability q a loss L, else nothing, the share of equity
  that maximises expected log growth is f = (p G - q L) / ((p + q) G L) (Kelly 1956, "A new interpretation of
  information rate", Bell System Technical Journal 35, for three outcomes). L is the stop, or a multiple of the
  volatility over the signal's horizon; G follows from the signal's expected return, G = (edge + q L) / p. Costs come
  off the numerator. Only a fraction of f is used: the signal's probabilities are estimates, and betting more than
  Kelly is worse than betting less by as much.
* :class:`VarBudget`: remaining budget / value at risk of one unit.
* :class:`DrawdownScale`: less the deeper the account is below its peak.
* :class:`Cap`: fixed limits.
"""

from cpython.tuple cimport PyTuple_GET_ITEM
from libc.math cimport fabs, floor, isfinite, isnan, sqrt, NAN
from libc.stdint cimport uint64_t

import hashlib
import math
import statistics
import struct
from dataclasses import dataclass, field

import numpy as np

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk._units import duration_ns

__all__ = [
    "Cap",
    "DrawdownScale",
    "EwmaVariance",
    "FractionalKelly",
    "PositionSizer",
    "SizeExplanation",
    "SizingPart",
    "VarBudget",
    "VolatilityTarget",
    "default_parts",
]

cdef bytes MAGIC = b"TGSIZER1"
STATE = struct.Struct("<8s5d2Q2d")

REASONS = (
    "",
    "the question holds a side, price, equity or unit value that is no usable number",
    "a part could not answer",
    "a part allows nothing",
    "what is left is less than the smallest order",
)


@dataclass(frozen=True)
class SizeExplanation:
    """Why a size is what it is.

    Attributes
    ----------
    size : float
        The answer, units.
    bound_by : str
        Name of the part whose bound was the smallest, "hysteresis" when the size held was kept, "" before the first
        question or when the question itself was unusable.
    reason : str
        Why the size is zero; "" when it is not.
    bounds : dict of str to float
        Units that each bounding part allows, before scaling; NaN where a part could not answer.
    scales : dict of str to float
        Factor of each scaling part.
    """

    size: float
    bound_by: str
    reason: str
    bounds: dict = field(default_factory=dict)
    scales: dict = field(default_factory=dict)

    def text(self):
        """One line for a log."""
        said = [f"{name} {value:.6g}" for name, value in self.bounds.items()]
        said += [f"{name} x {value:.3g}" for name, value in self.scales.items()]
        why = f", {self.reason}" if self.reason else ""
        return f"size {self.size:.6g} bound by {self.bound_by or 'nothing'}{why} ({', '.join(said)})"


def _number(name, value, low, high, *, closed=True):
    """A float between bounds, or a ConfigurationError of the house form."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not (low <= value <= high if closed else low < value <= high):
        bracket = ">=" if closed else ">"
        upper = "" if high == math.inf else f" and <= {high:g}"
        raise ConfigurationError(f"`{name}` must be a finite number {bracket} {low:g}{upper}, was {value!r}")
    return float(value)


# ---- the parts -------------------------------------------------------------------------------------------------------


cdef class SizingPart:
    """Base of the parts; a part of one's own, written in Cython, overrides ``answer``.

    ``answer`` returns units (or, with ``scales``, a factor); NaN says that it cannot answer, which counts as zero.
    """

    def __init__(self):
        if type(self) is SizingPart:
            raise TypeError("SizingPart is a base class; use one of its kinds")

    cdef double answer(self, const tf_ask *ask) noexcept:
        return NAN

    def __reduce__(self):
        raise TypeError(f"{type(self).__name__} cannot be pickled; make it again from its settings")


cdef class VolatilityTarget(SizingPart):
    """Bounds the standard deviation of the position's result over a horizon to a share of equity.

    Parameters
    ----------
    target : float, default 0.01
        Standard deviation as a fraction of equity, > 0.
    horizon : int or str, default "1d"
        Over which time, ns or a text.
    """

    def __init__(self, target=0.01, horizon="1d"):
        self.name = "volatility_target"
        self.target = _number("target", target, 0.0, math.inf, closed=False)
        self.horizon_ns = duration_ns("horizon", horizon)

    cdef double answer(self, const tf_ask *ask) noexcept:
        # A variance of zero would allow any size: a market that has not moved yet tells nothing.
        if not ask.variance > 0.0:
            return NAN
        return self.target * ask.equity / (ask.unit_value * sqrt(ask.variance * <double>self.horizon_ns))


cdef class FractionalKelly(SizingPart):
    """Bounds the size to a fraction of what maximises expected log growth.

    Parameters
    ----------
    fraction : float, default 0.25
        Of the Kelly size, within (0, 1].
    stop_bps : float, optional
        Loss of a losing trade in basis points; without it the loss is `loss_multiple` standard deviations of the mid
        over the signal's horizon.
    loss_multiple : float, default 1.0
        See `stop_bps`.
    """

    def __init__(self, fraction=0.25, stop_bps=None, loss_multiple=1.0):
        self.name = "kelly"
        self.fraction = _number("fraction", fraction, 0.0, 1.0, closed=False)
        self.stop = NAN if stop_bps is None else 1e-4 * _number("stop_bps", stop_bps, 0.0, 1e4, closed=False)
        self.loss_multiple = _number("loss_multiple", loss_multiple, 0.0, 1e3, closed=False)

    cdef double answer(self, const tf_ask *ask) noexcept:
        cdef double loss = self.stop, gain, net = ask.value - ask.cost
        if isnan(loss):
            if not (ask.variance > 0.0 and ask.horizon_ns > 0.0):
                return NAN
            loss = self.loss_multiple * sqrt(ask.variance * ask.horizon_ns)
        if not (ask.p_win >= 0.0 and ask.p_loss >= 0.0 and ask.p_win + ask.p_loss <= 1.0 + 1e-6 and isfinite(net)):
            return NAN
        if not (net > 0.0 and ask.p_win > 0.0):
            return 0.0
        gain = (ask.value + ask.p_loss * loss) / ask.p_win
        return self.fraction * net / ((ask.p_win + ask.p_loss) * gain * loss) * ask.equity / ask.unit_value


cdef class VarBudget(SizingPart):
    """Bounds the size to what the remaining value-at-risk budget pays for. Hard: hysteresis never exceeds it.

    The budget and the value at risk of one unit are told with the question (the gate knows both). Without a budget it
    is ``limit`` times equity; without scenarios the unit's value at risk is that of a normal distribution with the
    running volatility.

    Parameters
    ----------
    limit : float, default 0.05
        Budget as a fraction of equity when none is told.
    share : float, default 1.0
        Share of the remaining budget that one entry may take, within (0, 1].
    level : float, default 0.99
        Confidence of the normal distribution, within (0.5, 1).
    horizon : int or str, default "1d"
        Holding period of the normal distribution.
    """

    def __init__(self, limit=0.05, share=1.0, level=0.99, horizon="1d"):
        self.name = "var_budget"
        self.hard = True
        self.limit = _number("limit", limit, 0.0, 1.0, closed=False)
        self.share = _number("share", share, 0.0, 1.0, closed=False)
        if not (isinstance(level, float) and 0.5 < level < 1.0):
            raise ConfigurationError(f"`level` must be between 0.5 and 1, was {level!r}")
        self.level = level
        self.quantile = statistics.NormalDist().inv_cdf(level)
        self.horizon_ns = duration_ns("horizon", horizon)

    cdef double answer(self, const tf_ask *ask) noexcept:
        cdef double unit = ask.unit_var, budget = ask.budget if ask.budgeted else self.limit * ask.equity
        if isnan(budget):
            return NAN
        if not budget > 0.0:
            return 0.0
        if isnan(unit) and ask.variance > 0.0:
            unit = self.quantile * sqrt(ask.variance * <double>self.horizon_ns)
        if not unit > 0.0:
            return NAN
        return self.share * budget / (ask.unit_value * unit)


cdef class DrawdownScale(SizingPart):
    """Scales the size down between two drawdowns.

    Parameters
    ----------
    start, stop : float, default 0.05 and 0.20
        Drawdowns from peak equity as fractions, 0 <= start < stop <= 1: full size up to `start`, none from `stop` on.
    shape : {"linear", "step"}, default "linear"
        Between them: falling in a straight line, or `middle`.
    middle : float, default 0.5
        Factor of the step, 0 to 1.
    """

    def __init__(self, start=0.05, stop=0.20, shape="linear", middle=0.5):
        self.name = "drawdown"
        self.scales = True
        self.hard = True
        self.start = _number("start", start, 0.0, 1.0)
        self.stop = _number("stop", stop, 0.0, 1.0, closed=False)
        if self.stop <= self.start:
            raise ConfigurationError(f"`stop` must be > `start` ({start:g}), was {stop:g}")
        if shape not in ("linear", "step"):
            raise ConfigurationError(f"`shape` must be 'linear' or 'step', was {shape!r}")
        self.linear = shape == "linear"
        self.middle = _number("middle", middle, 0.0, 1.0)

    cdef double answer(self, const tf_ask *ask) noexcept:
        if isnan(ask.drawdown):
            return NAN
        if ask.drawdown <= self.start:
            return 1.0
        if ask.drawdown >= self.stop:
            return 0.0
        return (self.stop - ask.drawdown) / (self.stop - self.start) if self.linear else self.middle


cdef class Cap(SizingPart):
    """Fixed limits; those that are given. Hard: hysteresis never exceeds it.

    Parameters
    ----------
    quantity : float, optional
        Units.
    notional : float, optional
        Exposure in base currency.
    leverage : float, optional
        Exposure as a multiple of equity.
    name : str, default "cap"
        What an explanation calls it.
    """

    def __init__(self, quantity=None, notional=None, leverage=None, *, str name="cap"):
        self.name = name
        self.hard = True
        given = {"quantity": quantity, "notional": notional, "leverage": leverage}
        if all(value is None for value in given.values()):
            raise ConfigurationError("`Cap` must have a quantity, a notional or a leverage, had none")
        checked = {k: math.inf if v is None else _number(k, v, 0.0, math.inf, closed=False) for k, v in given.items()}
        self.quantity, self.notional, self.leverage = checked["quantity"], checked["notional"], checked["leverage"]

    cdef double answer(self, const tf_ask *ask) noexcept:
        cdef double least = self.quantity
        if self.notional < least * ask.unit_value:
            least = self.notional / ask.unit_value
        if self.leverage * ask.equity < least * ask.unit_value:
            least = self.leverage * ask.equity / ask.unit_value
        return least


def default_parts():
    """min(volatility target, a quarter Kelly, value-at-risk budget), each with its defaults."""
    return (VolatilityTarget(), FractionalKelly(), VarBudget())


# ---- volatility ------------------------------------------------------------------------------------------------------


cdef class EwmaVariance:
    """Exponentially weighted variance of mids, in O(1) per mid.

    A sample begins at a mid and ends at the first one at least `step` later; its squared relative return and its
    length enter two decayed sums, whose ratio is the variance per nanosecond. Sampling keeps the bounce of single
    quotes out; a sample longer than `gap` (a night, a halt) is left out, so the figure is that of trading hours. A
    time that goes backwards is ignored.

    Parameters
    ----------
    half_life : int or str, default "10m"
        After which time of regular samples a sample counts half.
    step : int or str, default "1s"
        Least length of a sample.
    gap : int or str, default "1h"
        Greatest length of a sample.
    least : int, default 30
        Samples below which the variance is not known.
    """

    def __init__(self, half_life="10m", step="1s", gap="1h", least=30):
        self.half_life_ns = duration_ns("half_life", half_life)
        self.step_ns = duration_ns("step", step)
        self.gap_ns = duration_ns("gap", gap)
        if self.gap_ns < self.step_ns:
            raise ConfigurationError(f"`gap` must be >= `step` ({step}), was {gap}")
        if isinstance(least, bool) or not isinstance(least, int) or least < 1:
            raise ConfigurationError(f"`least` must be an integer >= 1, was {least!r}")
        self.least = least
        self.keep = 0.5 ** (<double>self.step_ns / <double>self.half_life_ns)
        self.reset()

    def reset(self):
        """Forget everything that was seen."""
        self.squares = self.elapsed = self.events = self.anchor = self.seen = 0.0
        self.anchor_ts = self.count = 0

    cdef void observe(self, double mid, uint64_t ts) noexcept nogil:
        cdef uint64_t length
        cdef double move
        if not (mid > 0.0 and isfinite(mid)):
            return
        if self.anchor == 0.0:
            self.anchor, self.anchor_ts, self.seen = mid, ts, 0.0
            return
        if ts < self.anchor_ts:
            return
        self.seen += 1.0
        length = ts - self.anchor_ts
        if length < self.step_ns:
            return
        if length <= self.gap_ns:
            move = mid / self.anchor - 1.0
            self.squares = self.keep * self.squares + move * move
            self.elapsed = self.keep * self.elapsed + <double>length
            self.events = self.keep * self.events + self.seen
            self.count += 1
        self.anchor, self.anchor_ts, self.seen = mid, ts, 0.0

    cdef double rate(self) noexcept nogil:
        return self.squares / self.elapsed if self.count >= self.least else NAN

    cdef double interval(self) noexcept nogil:
        """Mean time between mids, ns."""
        return self.elapsed / self.events if self.count >= self.least else NAN

    def update(self, double mid, uint64_t ts):
        """Take a mid at a time (UTC ns); one that is no usable number is ignored."""
        self.observe(mid, ts)

    @property
    def variance_rate(self):
        """Variance of relative moves per nanosecond, NaN while there are fewer than `least` samples."""
        return self.rate()

    @property
    def samples(self):
        """Samples taken so far."""
        return self.count

    def over(self, horizon):
        """Standard deviation of the relative move over a horizon (ns or a text), NaN while unknown."""
        return math.sqrt(self.rate() * duration_ns("horizon", horizon)) if self.count >= self.least else math.nan

    def __reduce__(self):
        raise TypeError("EwmaVariance cannot be pickled; use to_bytes() of its sizer")


# ---- the sizer -------------------------------------------------------------------------------------------------------


cdef class PositionSizer:
    """Sizes the entries of one instrument.

    Parameters
    ----------
    parts : sequence of SizingPart, optional
        1 to 16, at least one of them a bound; :func:`default_parts` otherwise.
    lot : float, default 0
        Sizes are rounded down to multiples of it; 0 leaves them as they are.
    min_size : float, default 0
        A smaller size becomes zero.
    hysteresis : float, default 0
        A size that differs from the one held by at most this share of it keeps what is held, as long as the hard parts
        allow it.
    multiplier : float, default 1
        Contract multiplier.
    inverse : bool, default False
        Whether one unit's exposure is multiplier / price (in the settlement currency) and not multiplier x price.
    volatility : EwmaVariance, optional
        Where the volatility comes from; one with its defaults otherwise. Feed it through :meth:`on_mid`.

    Raises
    ------
    ConfigurationError
        When a value breaks its rule.
    """

    def __init__(self, parts=None, *, lot=0.0, min_size=0.0, hysteresis=0.0, multiplier=1.0, inverse=False,
                 volatility=None):
        self.parts = default_parts() if parts is None else tuple(parts)
        if not 1 <= len(self.parts) <= MAX_PARTS or not all(isinstance(part, SizingPart) for part in self.parts):
            raise ConfigurationError(f"`parts` must be 1 to {MAX_PARTS} sizing parts, was {list(self.parts)!r}")
        if all(part.scales for part in self.parts):
            raise ConfigurationError("`parts` must hold a part that bounds the size, held only scales")
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise ConfigurationError(f"`parts` must have distinct names, was {names}")
        self.part_count = <int32_t>len(self.parts)
        self.volatility = EwmaVariance() if volatility is None else volatility
        self.lot = _number("lot", lot, 0.0, math.inf)
        self.min_size = _number("min_size", min_size, 0.0, math.inf)
        self.hysteresis = _number("hysteresis", hysteresis, 0.0, 1.0)
        self.multiplier = _number("multiplier", multiplier, 0.0, math.inf, closed=False)
        self.inverse = inverse
        self.unit_var_long = self.unit_var_short = NAN
        self.reset()

    def reset(self):
        """Forget volatility, peak equity and the last answer."""
        self.volatility.reset()
        self.peak = NAN
        self._forget_answer()

    def _forget_answer(self):
        cdef int i
        for i in range(MAX_PARTS):
            self.answers[i] = NAN
        self.bound_by = -1
        self.reason = Reason.SIZED
        self.held_back = False
        self.last = 0.0

    # ---- what it is told ---------------------------------------------------------------------------------------------

    cdef void observe(self, double mid, uint64_t ts) noexcept:
        self.volatility.observe(mid, ts)

    cdef void note_equity(self, double equity) noexcept:
        if isfinite(equity) and not self.peak >= equity:
            self.peak = equity

    def on_mid(self, double mid, uint64_t ts):
        """Take a mid at a time (UTC ns)."""
        self.observe(mid, ts)

    def on_equity(self, double equity):
        """Take the account's equity between questions, so that the peak is not missed; NaN is ignored."""
        self.note_equity(equity)

    def set_unit_var(self, double long, double short):
        """Value at risk of a unit held long and short, fractions of its exposure."""
        self.unit_var_long, self.unit_var_short = long, short

    # ---- the question ------------------------------------------------------------------------------------------------

    cdef double decide(self, tf_ask *ask, double held) noexcept:
        """Units to hold in the direction of ``ask.side``, >= 0.

        Fills ``unit_value`` (from ``price``, unless it is set), ``variance``, ``drawdown`` and ``unit_var`` itself.
        """
        cdef double answer, bound = NAN, scale = 1.0, hard = NAN, hard_scale = 1.0, size
        cdef int i
        cdef bint unknown = False
        cdef SizingPart part
        self.note_equity(ask.equity)
        self.bound_by = -1
        self.held_back = False
        self.last = 0.0
        if not (ask.unit_value > 0.0 and isfinite(ask.unit_value) and ask.equity > 0.0 and isfinite(ask.equity)
                and ask.price > 0.0 and (ask.side == 1 or ask.side == -1)):
            for i in range(self.part_count):
                self.answers[i] = NAN
            self.reason = Reason.BAD_ASK
            return 0.0
        ask.variance = self.volatility.rate()
        ask.drawdown = 1.0 - ask.equity / self.peak
        ask.unit_var = self.unit_var_long if ask.side > 0 else self.unit_var_short
        for i in range(self.part_count):
            part = <SizingPart>PyTuple_GET_ITEM(self.parts, i)
            answer = part.answer(ask)
            self.answers[i] = answer
            if not (answer >= 0.0):
                # The first that cannot answer is the one to name.
                if not unknown:
                    self.bound_by = i
                unknown = True
            elif part.scales:
                scale *= answer
                if part.hard:
                    hard_scale *= answer
                if answer == 0.0 and not unknown and not (bound == 0.0):
                    self.bound_by = i
                    bound = 0.0
            else:
                if not (bound <= answer):
                    bound = answer
                    if not unknown:
                        self.bound_by = i
                if part.hard and not (hard <= answer):
                    hard = answer
        if unknown or not isfinite(bound * scale):
            self.reason = Reason.NO_ANSWER
            return 0.0
        size = bound * scale
        hard = hard * hard_scale
        if size == 0.0:
            self.reason = Reason.NOTHING_LEFT
            return 0.0
        if held > 0.0 and size != held and fabs(size - held) <= self.hysteresis * held and not (hard < held):
            self.held_back = True
            self.reason = Reason.SIZED
            self.last = held
            return held
        if self.lot > 0.0:
            # A size that is a multiple up to rounding keeps its last lot.
            size = floor(size / self.lot + 1e-9) * self.lot
        if size < self.min_size or not size > 0.0:
            self.reason = Reason.TOO_SMALL
            return 0.0
        self.reason = Reason.SIZED
        self.last = size
        return size

    def size(self, signal, double price, double equity, *, side=None, budget=None, double rate=1.0,
             double cost_bps=0.0, double held=0.0):
        """How much to hold in the direction of a signal.

        Parameters
        ----------
        signal : object
            With ``value`` (expected return over the horizon, basis points, + is up), ``probabilities`` (down, flat,
            up), ``horizon`` and ``horizon_unit`` ("ns" or "events"): a ``NeuralSignal``, or anything like it.
        price : float
            Mid.
        equity : float
            Of the account, base currency; it also moves the peak that drawdowns are measured from.
        side : int, optional
            +1 or -1; the sign of the signal's value otherwise.
        budget : float, optional
            Value at risk that may still be added, base currency.
        rate : float, default 1
            Value of the settlement currency in base currency.
        cost_bps : float, default 0
            Of the round trip, basis points of notional: fees and spread.
        held : float, default 0
            Size held now on this side, for hysteresis.

        Returns
        -------
        float
            Units, >= 0; 0 whenever something that a part needs is not known.
        """
        cdef tf_ask ask
        cdef double value = signal.value
        down, _, up = signal.probabilities
        ask.side = ((value > 0.0) - (value < 0.0)) if side is None else side
        self._fill(&ask, value, down, up, price, equity, rate, cost_bps)
        ask.budgeted = budget is not None
        ask.budget = NAN if budget is None else budget
        ask.horizon_ns = signal.horizon
        if signal.horizon_unit == "events":
            ask.horizon_ns *= self.volatility.interval()
        return self.decide(&ask, held)

    def size_many(self, double[::1] values, double[::1] p_down, double[::1] p_up, double[::1] prices,
                  double[::1] equities, *, double horizon_ns, double rate=1.0, double cost_bps=0.0):
        """Sizes of many questions in a row, for research; the drawdown follows the equities, no mid is taken.

        Parameters
        ----------
        values, p_down, p_up, prices, equities : ndarray of float64, shape (n,)
            As in :meth:`size`.
        horizon_ns : float
            Of all signals.

        Returns
        -------
        ndarray, shape (n,)
            Units with the sign of the value.
        """
        cdef Py_ssize_t i, n = values.shape[0]
        if not (p_down.shape[0] == p_up.shape[0] == prices.shape[0] == equities.shape[0] == n):
            raise DataConversionError(f"all arrays must have {n} entries, as `values` has")
        cdef tf_ask ask
        cdef double[::1] out = np.empty(n)
        for i in range(n):
            ask.side = (values[i] > 0.0) - (values[i] < 0.0)
            self._fill(&ask, values[i], p_down[i], p_up[i], prices[i], equities[i], rate, cost_bps)
            ask.budgeted = False
            ask.budget = NAN
            ask.horizon_ns = horizon_ns
            out[i] = ask.side * self.decide(&ask, 0.0)
        return np.asarray(out)

    cdef void _fill(self, tf_ask *ask, double value_bps, double p_down, double p_up, double price, double equity,
                    double rate, double cost_bps) noexcept:
        ask.value = 1e-4 * value_bps * ask.side
        ask.p_win = p_up if ask.side > 0 else p_down
        ask.p_loss = p_down if ask.side > 0 else p_up
        ask.price = price
        ask.equity = equity
        ask.cost = 1e-4 * cost_bps
        ask.unit_value = self.multiplier * rate * (1.0 / price if self.inverse else price)

    # ---- what it answers ---------------------------------------------------------------------------------------------

    def explain(self):
        """The last answer, the part that bound it, and what each part said."""
        bounds, scales = {}, {}
        cdef int i
        for i in range(self.part_count):
            part = self.parts[i]
            (scales if part.scales else bounds)[part.name] = self.answers[i]
        name = "hysteresis" if self.held_back else self.parts[self.bound_by].name if self.bound_by >= 0 else ""
        reason = REASONS[self.reason]
        if self.reason == Reason.NO_ANSWER:
            reason = f"{name} could not answer: {self._missing(name)}"
        elif self.reason == Reason.NOTHING_LEFT:
            reason = f"{name} allows nothing"
        return SizeExplanation(self.last, name, reason, bounds, scales)

    def _missing(self, name):
        if self.volatility.samples < self.volatility.least:
            return f"the volatility has {self.volatility.samples} samples of {self.volatility.least}"
        if name == "var_budget":
            return "the remaining budget or the value at risk of a unit is not known, or is not positive"
        if name == "kelly":
            return "probabilities, expected return or horizon are no usable numbers"
        return "a number it needs is not known, or the market has not moved"

    # ---- state -------------------------------------------------------------------------------------------------------

    def to_bytes(self):
        """Volatility and peak, so that continuing from them gives the same bits."""
        v = self.volatility
        body = STATE.pack(MAGIC, v.squares, v.elapsed, v.events, v.anchor, v.seen, v.anchor_ts, v.count, self.peak,
                          v.keep)
        return body + hashlib.sha256(body).digest()

    def from_bytes(self, data):
        """Restore what :meth:`to_bytes` gave.

        Raises
        ------
        DataConversionError
            When the bytes are damaged, or are those of a sizer whose volatility decays otherwise; nothing is changed.
        """
        data = bytes(data)
        body = data[:STATE.size]
        if len(data) != STATE.size + 32 or hashlib.sha256(body).digest() != data[STATE.size:] or body[:8] != MAGIC:
            raise DataConversionError("saved sizer state must be what `to_bytes` gave, was damaged or of another kind")
        _, squares, elapsed, events, anchor, seen, anchor_ts, count, peak, keep = STATE.unpack(body)
        v = self.volatility
        if keep != v.keep:
            raise DataConversionError(f"saved sizer state must decay by {v.keep} per sample, as this one, was {keep}")
        v.squares, v.elapsed, v.events, v.anchor, v.seen = squares, elapsed, events, anchor, seen
        v.anchor_ts, v.count = anchor_ts, count
        self.peak = peak

    def __reduce__(self):
        raise TypeError("PositionSizer cannot be pickled; use to_bytes()")
