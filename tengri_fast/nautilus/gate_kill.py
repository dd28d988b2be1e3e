"""The gate's kill switches, as the node sees them: they outlive a reset, and any thread may turn one on.

Refusing new orders is the rules' business and is in force at once. Canceling the working ones is the node's: a switch
leaves a wish, which the node's thread carries out when it next looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus.gate_refusals import EMULATOR, cancel_command

__all__ = ["KillSwitches", "cancel_working", "covers"]


class KillSwitches:
    """Named switches, each of a scope.

    Attributes
    ----------
    on : dict of str to tuple
        Reason and scope by name. Written whole entries at a time, so any thread may.
    """

    def __init__(self) -> None:
        self.on: dict[str, tuple[str, str]] = {}
        self._wishes: deque[tuple[str, str, str]] = deque()

    def turn_on(self, name: str, reason: str, scope: str) -> bool:
        """Remember a switch and wish its orders away; False when it was on already.

        Of another scope it is widened to the whole portfolio, as :meth:`tengri_fast.risk.RiskGate.kill` does.
        """
        first, where = self.on.get(name, (reason, scope))
        if name in self.on and where in (scope, "portfolio"):
            return False
        self.on[name] = (first, scope if where == scope else "portfolio")
        self._wishes.append((name, reason, scope))
        return True

    def turn_off(self, name: str) -> None:
        """Forget a switch. A wish stays: allowing new orders revives no old one."""
        self.on.pop(name, None)

    def check_off(self, name: str, reason: str) -> None:
        """Raise ConfigurationError when that switch is not on, or no reason is given."""
        if not reason.strip():
            raise ConfigurationError(f"`reason` must say why {name!r} may trade again, was empty")
        if name not in self.on:
            on = ", ".join(sorted(self.on)) or "none"
            raise ConfigurationError(f"`name` must be a kill switch that is on ({on}), was {name!r}")

    def wishes(self) -> list[tuple[str, str, str]]:
        """Name, reason and scope of the switches that were turned on since this was last asked."""
        return [self._wishes.popleft() for _ in range(len(self._wishes))]


def covers(scopes: Iterable[str], order: Any, bucket: str) -> bool:
    """Whether an order falls under one of the scopes."""
    own = {
        "portfolio",
        f"strategy:{order.strategy_id.value}",
        f"instrument:{order.instrument_id.value}",
        f"venue:{order.instrument_id.venue.value}",
        f"bucket:{bucket}",
    }
    return not own.isdisjoint(scopes)


def cancel_working(
    scopes: set[str],
    cache: Any,
    clock: Any,
    forward: Callable[[Any], None],
    send: Callable[[str, Any], None],
    bucket: Callable[[Any], str],
) -> list[str]:
    """Cancel every working order of the scopes that is not reduce-only.

    Parameters
    ----------
    scopes : set of str
        Of the switches.
    cache, clock
        Of the node.
    forward : callable
        Takes a command that goes to the execution engine.
    send : callable
        The message bus' own.
    bucket : callable
        Correlation bucket of an instrument id.

    Returns
    -------
    list of str
        What failed, in words; the other orders are canceled nevertheless.
    """
    failures = []
    # An order may be in flight and open at once, while a modification is.
    orders = cache.orders_emulated() + cache.orders_inflight() + cache.orders_open()
    for order in {order.client_order_id: order for order in orders}.values():
        if order.is_reduce_only or order.is_closed or order.is_pending_cancel:
            continue
        if not covers(scopes, order, bucket(order.instrument_id)):
            continue
        try:
            command = cancel_command(order, cache, clock.timestamp_ns())
            if order.is_emulated:
                send(EMULATOR, command)
            else:
                forward(command)
        except Exception as error:
            failures.append(f"{order.client_order_id} could not be canceled: {type(error).__name__}: {error}")
    return failures
