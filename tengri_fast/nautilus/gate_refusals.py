"""How the gate refuses: Nautilus' own events, told to whoever sent the order, and a record of each refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nautilus_trader.core.uuid import UUID4
from nautilus_trader.execution.messages import CancelOrder
from nautilus_trader.model.enums import OrderStatus
from nautilus_trader.model.events import OrderDenied, OrderModifyRejected

from tengri_fast.nautilus.gate_facts import reason
from tengri_fast.risk import Violation

__all__ = ["EMULATOR", "PROCESS", "Refusals", "cancel_command"]

PROCESS = "ExecEngine.process"
EMULATOR = "OrderEmulator.execute"

_RECORDS = 10_000


def cancel_command(order: Any, cache: Any, now: int) -> CancelOrder:
    """The command that cancels an order."""
    return CancelOrder(
        trader_id=order.trader_id,
        strategy_id=order.strategy_id,
        instrument_id=order.instrument_id,
        client_order_id=order.client_order_id,
        venue_order_id=order.venue_order_id,
        command_id=UUID4(),
        ts_init=now,
        client_id=cache.client_id(order.client_order_id),
    )


class Refusals:
    """Sends refusals and remembers them.

    Parameters
    ----------
    msgbus, cache, clock
        Of the node.
    complain : callable
        Told in words what a person must look at.

    Attributes
    ----------
    denied : dict of str to int
        Refusals by rule; one that broke two rules counts under both.
    refused : dict of str to int
        The same, each counted once, under the first rule that it broke.
    records : list of tuple
        One ``(ts, client_order_id, strategy_id, violations, kind)`` per refusal; the latest 10,000 are kept.
    """

    def __init__(self, msgbus: Any, cache: Any, clock: Any, complain: Callable[[str], None]) -> None:
        self._msgbus = msgbus
        self._cache = cache
        self._clock = clock
        self._complain = complain
        self.denied: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.records: list[tuple[int, str, str, tuple[Violation, ...], str]] = []

    def note(self, now: int, order_id: Any, strategy_id: Any, violations: tuple[Violation, ...], kind: str) -> None:
        """Count and remember a refusal."""
        for rule in {violation.rule: None for violation in violations}:
            self.denied[rule] = self.denied.get(rule, 0) + 1
        first = violations[0].rule
        self.refused[first] = self.refused.get(first, 0) + 1
        if len(self.records) >= _RECORDS:
            del self.records[:1_000]
        self.records.append((now, order_id.value, strategy_id.value, violations, kind))

    def deny(self, order: Any, violations: Sequence[Violation], kind: str) -> None:
        """Deny an order."""
        now = self._clock.timestamp_ns()
        if order.status not in (OrderStatus.INITIALIZED, OrderStatus.RELEASED):
            # Nautilus cannot deny it any more; not passing it on is all that is left, and someone must look.
            self._complain(
                f"{order.client_order_id} was not passed on in status {order.status_string()}: {reason(violations)}"
            )
            return
        if not self._cache.order_exists(order.client_order_id):
            self._cache.add_order(order)
        self._msgbus.send(
            PROCESS,
            OrderDenied(
                order.trader_id,
                order.strategy_id,
                order.instrument_id,
                order.client_order_id,
                reason(violations),
                UUID4(),
                now,
            ),
        )
        if kind == "submit":
            self._drop_children(order)

    def _drop_children(self, order: Any) -> None:
        """Deny exits that wait for an entry which was just refused alone; Nautilus would leave them behind for ever.

        This happens where a list is taken apart before it reaches the gate: by the emulator, or by an algorithm.
        """
        for child_id in order.linked_order_ids or ():
            child = self._cache.order(child_id)
            if child is None or child.parent_order_id is None or child.parent_order_id != order.client_order_id:
                continue
            if child.is_emulated:
                self._msgbus.send(EMULATOR, cancel_command(child, self._cache, self._clock.timestamp_ns()))
            elif child.status in (OrderStatus.INITIALIZED, OrderStatus.RELEASED):
                violations = (Violation(rule="PARENT_DENIED", detail=order.client_order_id.value),)
                self.note(self._clock.timestamp_ns(), child.client_order_id, child.strategy_id, violations, "list")
                self.deny(child, violations, "list")

    def reject_modification(self, command: Any, order: Any, violations: Sequence[Violation]) -> None:
        """Reject the modification of an order.

        The event bears the id of the command, so that this gate, and one before it, know which one it answers.
        """
        now = self._clock.timestamp_ns()
        self._msgbus.send(
            PROCESS,
            OrderModifyRejected(
                order.trader_id,
                order.strategy_id,
                order.instrument_id,
                order.client_order_id,
                order.venue_order_id,
                order.account_id,
                reason(violations),
                command.id,
                now,
                now,
            ),
        )
