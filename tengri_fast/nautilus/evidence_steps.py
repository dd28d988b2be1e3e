"""What a row of the control evidence is made of: a control, what is tried, and the steps that try it.

Steps are plain data, so that one script can be played in a backtest and on a live node. A step says what must come
back; anything else, and any order event in a step that expects none, fails its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Ask", "Cancel", "Disarm", "Health", "Hold", "Hours", "Kill", "Modify", "Quote", "Rearm", "Reload", "Row", "Send",
    "Status", "Step", "Trade", "Verify", "denied", "rejected_change",
]  # fmt: skip

Side = Literal["buy", "sell"]
Kind = Literal["plain", "bracket", "emulated", "emulated stop-limit", "algorithm"]


def denied(*codes: str) -> str:
    """An order that the gate refuses, under exactly these codes."""
    return "denied " + "+".join(sorted(codes))


def rejected_change(*codes: str) -> str:
    """A modification that the gate refuses, under exactly these codes."""
    return "change refused " + "+".join(sorted(codes))


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something that happens.

    Parameters
    ----------
    wants : tuple of str
        What must come back, one per order that hears something, in any order.
    live : tuple of str, optional
        The same on the live path, where the venue of the sandbox answers differently from that of a backtest.
    warns : str
        A part of what the gate must tell a person meanwhile; empty: not looked at.
    shown : bool, optional
        Whether this is what the row tries, and its answer goes into the table; by default where something is refused.
    """

    wants: tuple[str, ...] = ()
    live: tuple[str, ...] | None = None
    warns: str = ""
    shown: bool | None = None

    @property
    def is_shown(self) -> bool:
        """Whether the answer goes into the table."""
        if self.shown is not None:
            return self.shown
        return any(want.startswith(("denied", "change refused", "refused")) for want in self.wants)


# ---- the market ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Quote(Step):
    """Best prices of an instrument, `age` seconds old when they arrive."""

    what: str = "BTC"
    bid: float
    ask: float
    age: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trade(Step):
    """A trade of the market."""

    what: str = "BTC"
    price: float


@dataclass(frozen=True, kw_only=True)
class Status(Step):
    """The venue says whether an instrument trades."""

    what: str = "BTC"
    trading: bool


# ---- a strategy ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Send(Step):
    """An order; without a price a market order.

    Parameters
    ----------
    by : {"A", "B"}
        The strategy that sends it.
    kind : str
        The way it takes to the gate.
    trigger : float, optional
        Of a stop-limit order.
    """

    what: str = "BTC"
    side: Side = "buy"
    quantity: float
    price: float | None = None
    trigger: float | None = None
    kind: Kind = "plain"
    by: Literal["A", "B"] = "A"
    reduce_only: bool = False
    post_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Modify(Step):
    """A change of the last order that was sent."""

    quantity: float | None = None
    price: float | None = None


@dataclass(frozen=True, kw_only=True)
class Cancel(Step):
    """The last order that was sent is canceled."""


# ---- people and surroundings -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Kill(Step):
    """A person stops trading. ``$A`` in a scope is the name of strategy A, ``$BTC`` that of an instrument."""

    name: str = "desk"
    reason: str = "drill"
    scope: str = "portfolio"


@dataclass(frozen=True, kw_only=True)
class Rearm(Step):
    """A person lets trading go on: "done", or "refused"."""

    name: str = "desk"
    reason: str = "checked"


@dataclass(frozen=True, kw_only=True)
class Reload(Step):
    """A person changes the limits: "done", or "refused"."""

    limits: Mapping[str, Any]
    name: str = "desk"
    reason: str = "new limits for the drill"


@dataclass(frozen=True, kw_only=True)
class Health(Step):
    """What the model of strategy A says of itself, `age` seconds ago; `fails`: reading it raises."""

    rung: float = 0.0
    out_of_distribution: float = 0.0
    confidence: float = 1.0
    age: float = 0.0
    fails: bool = False


@dataclass(frozen=True, kw_only=True)
class Hold(Step):
    """A position is found that was not opened here, as reconciliation finds them."""

    what: str
    quantity: float


@dataclass(frozen=True, kw_only=True)
class Disarm(Step):
    """The gate is stopped and reset while the node runs on, and started again if `again`."""

    again: bool = False


@dataclass(frozen=True, kw_only=True)
class Verify(Step):
    """Somebody verifies the audit log, as it is or after one byte of a copy was changed."""

    changed: bool = False


@dataclass(frozen=True, kw_only=True)
class Ask(Step):
    """An order put to the rules themselves, because Nautilus' types cannot carry it.

    Parameters
    ----------
    order : mapping
        Fields of :class:`tengri_fast.risk.OrderView` that differ from a legal limit order.
    fault : bool
        A fill that cannot be booked is reported to the portfolio first.
    """

    order: Mapping[str, Any] = field(default_factory=dict)
    fault: bool = False


@dataclass(frozen=True)
class Hours:
    """In the limits of a row: trading hours of an instrument, in hours from the beginning."""

    what: str
    opens_in: float
    closes_in: float


# ---- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Row:
    """One control, and what is tried against it.

    Parameters
    ----------
    key : str
        A name for machines; unique.
    control : str
        What is shown to work.
    serves : tuple of str
        Paragraphs and articles that ask for it, or "good practice".
    path : str
        The way of the order.
    tried : str
        In plain words.
    limits : mapping
        Fields of :class:`tengri_fast.risk.RiskLimits`.
    steps : tuple of Step
    config : mapping
        More fields of :class:`tengri_fast.nautilus.RiskGateConfig`.
    instruments : tuple of str
        What there is beside BTC and ETH.
    balances : tuple of str
        Of each account at the start.
    opening : bool
        Whether there are quotes of BTC and ETH before the first step.
    scenarios, stress : bool
        Whether the gate is given scenarios for value at risk, and for stress losses.
    audit : bool
        Whether the gate writes an audit log.
    """

    key: str
    control: str
    serves: tuple[str, ...]
    path: str = "plain order"
    tried: str
    limits: Mapping[str, Any]
    steps: tuple[Step, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    instruments: tuple[str, ...] = ()
    balances: tuple[str, ...] = ("1000000 USDT",)
    opening: bool = True
    scenarios: bool = False
    stress: bool = False
    audit: bool = False

    @property
    def expected(self) -> tuple[str, ...]:
        """What must come back for what is tried."""
        return tuple(
            want for step in self.steps if step.is_shown for want in (*step.wants, *(("warned",) if step.warns else ()))
        )
