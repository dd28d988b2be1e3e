"""The control drill: orders that must be denied, sent through the real paths of a running system.

A limit that never denied anything has not been seen to work. Early in a backtest the drill sends one order that breaks
each rule, by each way an order can take (plain, bracket, modification, emulation, execution algorithm), and notes what
came back. Its orders carry the tag ``TENGRI_DRILL``, its own strategy identifier and its own positions (there are none:
what the gate lets pass rests away from the market and is canceled), so the profit and loss of other strategies does not
contain it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any

from nautilus_trader.config import ExecAlgorithmConfig, PositiveFloat, StrategyConfig
from nautilus_trader.execution.algorithm import ExecAlgorithm
from nautilus_trader.model.enums import OrderSide, OrderStatus, TriggerType
from nautilus_trader.model.events import (
    OrderAccepted,
    OrderCanceled,
    OrderDenied,
    OrderFilled,
    OrderModifyRejected,
    OrderRejected,
    OrderUpdated,
)
from nautilus_trader.model.identifiers import ClientOrderId, ExecAlgorithmId, InstrumentId
from nautilus_trader.trading.strategy import Strategy

if TYPE_CHECKING:
    from nautilus_trader.model.objects import Price, Quantity
    from nautilus_trader.model.orders import Order

__all__ = ["DRILL_TAG", "ControlDrill", "ControlDrillConfig", "DrillSlicer", "DrillSlicerConfig", "DrillStep"]

DRILL_TAG = "TENGRI_DRILL"
DRILL_ALGORITHM = "TENGRI-DRILL-SLICER"


@dataclass
class DrillStep:
    """One order of the drill and what became of it.

    Attributes
    ----------
    name : str
        What is tried, in words.
    expected : str
        "denied", "modify rejected", "accepted", "canceled", or "denied or accepted" where only the gate can know.
    orders : int
        How many orders the step sends (a bracket sends three).
    outcomes : list of str
        What came back, one per order, in the order of arrival.
    reasons : list of str
        The reasons of denials and rejections.
    """

    name: str
    expected: str
    orders: int
    outcomes: list[str]
    reasons: list[str]

    @property
    def passed(self) -> bool:
        """Whether every order came back as expected."""
        allowed = self.expected.split(" or ")
        return len(self.outcomes) == self.orders and all(outcome in allowed for outcome in self.outcomes)

    @property
    def refused(self) -> int:
        """How many of its orders the gate refused."""
        return sum(outcome in ("denied", "modify rejected") for outcome in self.outcomes)


class DrillSlicerConfig(ExecAlgorithmConfig, kw_only=True, frozen=True):
    """Configuration of :class:`DrillSlicer`."""

    exec_algorithm_id: ExecAlgorithmId | None = ExecAlgorithmId(DRILL_ALGORITHM)


class DrillSlicer(ExecAlgorithm):
    """Splits an order in two market orders at once: a child, then the primary with the rest.

    It exists so that the drill shows a child order of an execution algorithm being checked.
    """

    def __init__(self, config: DrillSlicerConfig | None = None) -> None:
        super().__init__(config or DrillSlicerConfig())

    def on_order(self, order: Order) -> None:
        """Send half of `order` as a child, then the rest of the primary."""
        instrument = self.cache.instrument(order.instrument_id)
        half = instrument.make_qty(order.quantity.as_decimal() / 2)
        child = self.spawn_market(order, half, time_in_force=order.time_in_force, tags=[DRILL_TAG])
        self.submit_order(child)
        self.submit_order(order)


class ControlDrillConfig(StrategyConfig, kw_only=True, frozen=True):
    """Configuration of :class:`ControlDrill`; a limit that is None is not tried.

    Parameters
    ----------
    instrument_id : InstrumentId
        The instrument to send orders for.
    max_order_notional : float, optional
        The gate's limit of one order's value, in the settlement currency.
    max_position : float, optional
        The gate's limit of the position, in the instrument's units.
    price_collar_bps : float, optional
        The gate's largest distance of a price from the mid.
    try_var : bool, default False
        Send an order that is nearly as large as the other limits allow, to meet the value-at-risk limit alone.
    first_event : int, default 20
        Quotes to wait for before the first order.
    events_between : int, default 5
        Quotes between two steps.
    use_algorithm : bool, default True
        Whether :class:`DrillSlicer` is there.
    """

    instrument_id: InstrumentId
    max_order_notional: PositiveFloat | None = None
    max_position: PositiveFloat | None = None
    price_collar_bps: PositiveFloat | None = None
    try_var: bool = False
    first_event: int = 20
    events_between: int = 5
    use_algorithm: bool = True


class ControlDrill(Strategy):
    """Sends the drill's orders, one step every few quotes, and keeps what came back in :attr:`steps`.

    Parameters
    ----------
    config : ControlDrillConfig
        What to try.
    """

    def __init__(self, config: ControlDrillConfig) -> None:
        super().__init__(config)
        self.steps: list[DrillStep] = []
        self._plan: list[Any] = []
        self._events = 0
        self._step_of: dict[ClientOrderId, DrillStep] = {}
        self._resting: Order | None = None
        self._modified = False

    # -- life ---------------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Plan the steps that the configured limits allow, and wait for quotes."""
        self._begin()
        config = self.config
        if config.max_order_notional is not None:
            self._plan += [self._oversized_market, self._oversized_bracket, self._oversized_emulated]
            if config.use_algorithm:
                self._plan.append(self._oversized_algorithm)
        if config.price_collar_bps is not None:
            self._plan.append(self._outside_collar)
        if config.max_position is not None:
            self._plan.append(self._over_position)
        if config.try_var and (config.max_order_notional is not None or config.max_position is not None):
            self._plan += [self._nearly_all, self._cancel_resting]
        if config.max_order_notional is not None or config.max_position is not None:
            self._plan += [self._rest, self._modify_to_oversize, self._cancel_resting]
        self.subscribe_quote_ticks(config.instrument_id)

    def on_reset(self) -> None:
        """Forget the last run."""
        self._begin()

    def _begin(self) -> None:
        self.steps = []
        self._plan = []
        self._events = 0
        self._step_of = {}
        self._resting = None
        self._modified = False

    @property
    def finished(self) -> bool:
        """Whether every planned step was sent."""
        return not self._plan

    @property
    def left(self) -> int:
        """How many planned steps were not sent yet."""
        return len(self._plan)

    @property
    def failures(self) -> list[DrillStep]:
        """Steps that did not come back as expected."""
        return [step for step in self.steps if not step.passed]

    def on_quote_tick(self, tick: Any) -> None:
        """Take the next step when it is due."""
        if not self._plan:
            return
        self._events += 1
        late = self._events - self.config.first_event
        if late < 0 or late % max(1, self.config.events_between):
            return
        step = self._plan[0]
        if step(tick):
            self._plan.pop(0)

    # -- steps: each returns whether it is done -----------------------------------------------------------------------

    def _oversized_market(self, tick: Any) -> bool:
        order = self._market(self._oversize(tick))
        self._send(DrillStep("market order above max_order_notional", "denied", 1, [], []), order)
        return True

    def _oversized_bracket(self, tick: Any) -> bool:
        step = DrillStep("bracket whose entry is above max_order_notional", "denied", 3, [], [])
        bracket = self.order_factory.bracket(
            instrument_id=self.config.instrument_id,
            order_side=OrderSide.BUY,
            quantity=self._oversize(tick),
            tp_price=self._price(float(tick.ask_price) * 1.002),
            sl_trigger_price=self._price(float(tick.bid_price) * 0.998),
            entry_tags=[DRILL_TAG],
            tp_tags=[DRILL_TAG],
            sl_tags=[DRILL_TAG],
        )
        self.steps.append(step)
        for order in bracket.orders:
            self._step_of[order.client_order_id] = step
        self.submit_order_list(bracket)
        return True

    def _oversized_emulated(self, tick: Any) -> bool:
        # Marketable, so the emulator releases it on the spot, and the gate meets it there.
        order = self.order_factory.limit(
            instrument_id=self.config.instrument_id,
            order_side=OrderSide.BUY,
            quantity=self._oversize(tick),
            price=tick.ask_price,
            emulation_trigger=TriggerType.BID_ASK,
            tags=[DRILL_TAG],
        )
        self._send(DrillStep("emulated order above max_order_notional, at its release", "denied", 1, [], []), order)
        return True

    def _oversized_algorithm(self, tick: Any) -> bool:
        order = self.order_factory.market(
            instrument_id=self.config.instrument_id,
            order_side=OrderSide.BUY,
            quantity=self._oversize(tick, times=4),
            exec_algorithm_id=ExecAlgorithmId(DRILL_ALGORITHM),
            tags=[DRILL_TAG],
        )
        self._send(DrillStep("algorithm whose child is above max_order_notional", "denied", 2, [], []), order)
        return True

    def _outside_collar(self, tick: Any) -> bool:
        assert self.config.price_collar_bps is not None
        distance = 2.0 * self.config.price_collar_bps * 1e-4
        order = self.order_factory.limit(
            instrument_id=self.config.instrument_id,
            order_side=OrderSide.BUY,
            quantity=self._smallest(),
            price=self._price(_mid(tick) * (1.0 + distance)),
            tags=[DRILL_TAG],
        )
        self._send(DrillStep("limit order outside price_collar_bps", "denied", 1, [], []), order)
        return True

    def _over_position(self, tick: Any) -> bool:
        assert self.config.max_position is not None
        order = self._market(self._quantity(self.config.max_position * 1.5))
        self._send(DrillStep("market order above max_position that does not reduce", "denied", 1, [], []), order)
        return True

    def _nearly_all(self, tick: Any) -> bool:
        limits = []
        if self.config.max_position is not None:
            limits.append(self.config.max_position)
        if self.config.max_order_notional is not None:
            limits.append(self.config.max_order_notional / (_mid(tick) * self._multiplier()))
        # Away from the market and canceled at once, in case value at risk has room for it.
        self._resting = self._passive(tick, self._quantity(0.9 * min(limits), ROUND_FLOOR))
        step = DrillStep("order within the other limits, against max_portfolio_var", "denied or accepted", 1, [], [])
        self._send(step, self._resting)
        return True

    def _rest(self, tick: Any) -> bool:
        self._resting = self._passive(tick, self._smallest())
        self._send(DrillStep("small limit order away from the market", "accepted", 1, [], []), self._resting)
        return True

    def _passive(self, tick: Any, quantity: Quantity) -> Order:
        """A limit order that rests half a collar below the market."""
        distance = 0.5 * (self.config.price_collar_bps or 100.0) * 1e-4
        return self.order_factory.limit(
            instrument_id=self.config.instrument_id,
            order_side=OrderSide.BUY,
            quantity=quantity,
            price=self._price(_mid(tick) * (1.0 - distance)),
            post_only=True,
            tags=[DRILL_TAG],
        )

    def _modify_to_oversize(self, tick: Any) -> bool:
        order = self._resting
        if order is None or order.is_closed:
            return True
        if order.status != OrderStatus.ACCEPTED:
            return False  # the venue has not answered yet
        step = DrillStep("that order modified to a quantity above the limit", "modify rejected", 1, [], [])
        self.steps.append(step)
        self._step_of[order.client_order_id] = step
        quantity = (
            self._oversize(tick)
            if self.config.max_order_notional is not None
            else self._quantity(float(self.config.max_position or 0.0) * 1.5)
        )
        self.modify_order(order, quantity=quantity)
        return True

    def _cancel_resting(self, tick: Any) -> bool:
        order = self._resting
        if order is None or order.is_closed:
            return True
        if order.status != OrderStatus.ACCEPTED:
            return False  # the venue has not answered yet
        step = DrillStep("that order canceled", "canceled", 1, [], [])
        self.steps.append(step)
        self._step_of[order.client_order_id] = step
        self.cancel_order(order)
        return True

    # -- events -------------------------------------------------------------------------------------------------------

    def on_order_event(self, event: Any) -> None:
        """Note what came back for an order of the drill."""
        outcome = _OUTCOMES.get(type(event))
        if outcome is None:
            return
        step = self._step_of.get(event.client_order_id)
        if step is None:
            # A child of the algorithm: its identifier is the primary's with a suffix.
            primary = event.client_order_id.value.rpartition("-E")[0]
            step = self._step_of.get(ClientOrderId(primary)) if primary else None
        if step is None:
            return
        if outcome == "accepted" and step.expected == "denied" and len(step.outcomes) < step.orders:
            step.outcomes.append("ACCEPTED")
            return
        step.outcomes.append(outcome)
        reason = getattr(event, "reason", None)
        if reason:
            step.reasons.append(reason)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _send(self, step: DrillStep, order: Order) -> None:
        self.steps.append(step)
        self._step_of[order.client_order_id] = step
        self.submit_order(order)

    def _market(self, quantity: Quantity) -> Order:
        return self.order_factory.market(
            instrument_id=self.config.instrument_id,
            order_side=OrderSide.BUY,
            quantity=quantity,
            tags=[DRILL_TAG],
        )

    def _oversize(self, tick: Any, times: float = 1.5) -> Quantity:
        """A quantity worth `times` the limit of one order."""
        assert self.config.max_order_notional is not None
        return self._quantity(times * self.config.max_order_notional / (_mid(tick) * self._multiplier()))

    def _multiplier(self) -> float:
        return float(self.cache.instrument(self.config.instrument_id).multiplier)

    def _quantity(self, amount: float, rounding: str = ROUND_CEILING) -> Quantity:
        instrument = self.cache.instrument(self.config.instrument_id)
        step = instrument.size_increment.as_decimal()
        units = (Decimal(repr(amount)) / step).to_integral_value(rounding=rounding)
        return instrument.make_qty(max(units, Decimal(1)) * step)

    def _smallest(self) -> Quantity:
        instrument = self.cache.instrument(self.config.instrument_id)
        return instrument.min_quantity or instrument.make_qty(instrument.size_increment.as_decimal())

    def _price(self, value: float) -> Price:
        instrument = self.cache.instrument(self.config.instrument_id)
        tick = instrument.price_increment.as_decimal()
        units = (Decimal(repr(value)) / tick).to_integral_value(rounding=ROUND_FLOOR)
        return instrument.make_price(units * tick)


_OUTCOMES = {
    OrderDenied: "denied",
    OrderModifyRejected: "modify rejected",
    OrderAccepted: "accepted",
    OrderCanceled: "canceled",
    OrderRejected: "rejected",
    OrderFilled: "filled",
    OrderUpdated: "updated",
}


def _mid(tick: Any) -> float:
    mid: float = 0.5 * (tick.bid_price.as_double() + tick.ask_price.as_double())
    if not math.isfinite(mid):
        raise ValueError(f"`mid` must be finite, was {mid}")
    return mid
