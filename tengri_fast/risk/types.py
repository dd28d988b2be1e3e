"""The words of the risk room: facts of an instrument, an order as the gate sees it, limits, and the answer.

Nothing here knows an exchange or a trading framework. Quantities are in units of the instrument (contracts, coins,
shares), prices in quote currency, times in nanoseconds, money in the base currency of the portfolio.

*Sign.* ``side`` is +1 for a buy and -1 for a sell. A loss is a positive number.

*No price.* NaN in ``price`` or ``trigger_price`` means "this order has none"; infinity is an error.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk._units import duration_ns, positive
from tengri_fast.risk.limits import RiskLimits

__all__ = ["InstrumentFacts", "OrderView", "RiskLimits", "Utilisation", "VarSettings", "Verdict", "Violation"]

_PAYOFFS = ("linear", "inverse", "binary")
#: How value at risk can be measured on the order path.
VAR_METHODS = ("historical", "age_weighted", "filtered", "normal", "cornish_fisher", "monte_carlo")
_TAILS = ("empirical", "normal", "cornish_fisher")
_SHORT_RULES = ("allowed", "forbidden", "uptick")
_NAN = float("nan")


class InstrumentFacts(msgspec.Struct, frozen=True):
    """What the gate must know about an instrument.

    Parameters
    ----------
    instrument_id : str
        The name under which prices, orders and fills arrive.
    payoff : {"linear", "inverse", "binary"}
        How a price change becomes money, see :mod:`tengri_fast.risk.portfolio`.
    multiplier : float
        Units of the settlement currency (linear, binary) or of the quote currency (inverse) per contract.
    price_increment, size_increment : float
        Tick and lot; 0 switches the check off.
    min_quantity, max_quantity : float
        Limits of the venue on one order; 0 means none.
    quote_currency, settlement_currency : str
        A quanto is an instrument whose two currencies differ and whose payoff is linear.
    margin_rate : float
        Initial margin as a fraction of notional; 0 means none is known.
    venue : str
        Empty means the part of ``instrument_id`` after its last dot, which is what :attr:`venue_name` answers.
    bucket : str
        Correlation bucket, a scope for limits; empty means none.
    asset_class : str
        For reports and shocks by class; empty means none.
    short : {"allowed", "forbidden", "uptick"}
        Whether a position below zero may be opened: always, never, or only by an order priced above the bid.

    Raises
    ------
    ConfigurationError
        When a field breaks its rule.
    """

    instrument_id: str
    payoff: Literal["linear", "inverse", "binary"] = "linear"
    multiplier: float = 1.0
    price_increment: float = 0.0
    size_increment: float = 0.0
    min_quantity: float = 0.0
    max_quantity: float = 0.0
    quote_currency: str = "USD"
    settlement_currency: str = "USD"
    margin_rate: float = 0.0
    venue: str = ""
    bucket: str = ""
    asset_class: str = ""
    short: Literal["allowed", "forbidden", "uptick"] = "allowed"

    def __post_init__(self) -> None:
        if not self.instrument_id:
            raise ConfigurationError("`instrument_id` must not be empty")
        if self.payoff not in _PAYOFFS:
            raise ConfigurationError(f"`payoff` must be one of {', '.join(_PAYOFFS)}, was {self.payoff!r}")
        if self.short not in _SHORT_RULES:
            raise ConfigurationError(f"`short` must be one of {', '.join(_SHORT_RULES)}, was {self.short!r}")
        positive("multiplier", self.multiplier)
        for field in ("price_increment", "size_increment", "min_quantity", "max_quantity", "margin_rate"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0.0):
                raise ConfigurationError(f"`{field}` must be finite and >= 0, was {value}")
        if self.max_quantity and self.max_quantity < self.min_quantity:
            raise ConfigurationError(
                f"`max_quantity` must be >= `min_quantity` ({self.min_quantity}), was {self.max_quantity}"
            )
        for field in ("quote_currency", "settlement_currency"):
            if not getattr(self, field):
                raise ConfigurationError(f"`{field}` must not be empty")

    @property
    def venue_name(self) -> str:
        """The venue, taken from the name of the instrument where none was given; may be empty."""
        return self.venue or self.instrument_id.rpartition(".")[2] * ("." in self.instrument_id)


class OrderView(msgspec.Struct):
    """An order as the gate sees it.

    Parameters
    ----------
    client_order_id, strategy_id, account_id, instrument_id : str
        Who sends what. An empty ``account_id`` means "not known yet" and matches every account.
    position_id : str
        The position the order closes; empty means the position of this strategy in this account and instrument.
    side : int
        +1 buys, -1 sells.
    quantity : float
        Whole quantity of the order, in units, filled part included.
    price, trigger_price : float
        NaN when the order has none.
    order_type : str
        MARKET, LIMIT, STOP_MARKET, STOP_LIMIT, MARKET_IF_TOUCHED, LIMIT_IF_TOUCHED, MARKET_TO_LIMIT,
        TRAILING_STOP_MARKET or TRAILING_STOP_LIMIT.
    reduce_only : bool
        The venue is told never to let this order open or flip a position.
    ts : int
        Time of the decision, ns; the age of a quote is measured against it.
    parent_id : str
        For an exit of a bracket: the client order id of its entry. A name and no promise: it frees nothing from the
        limits on positions and value at risk, see :mod:`tengri_fast.risk.gate`.
    exclusive_group : str
        Orders of one instrument, account, strategy and side with the same non-empty text together fill at most the
        quantity of the largest of them, because the venue cancels the others (OCO). Empty, the
        default, means that this order fills on its own.

        Whoever makes views of orders with contingencies fills it so: with a contingency of OCO *and* linked orders,
        the client order ids of the linked orders **and of the order itself**, each once, sorted and joined with the
        control character U+001F; empty in every other case, also when an id contains that character. OUO is such a
        case: an order whose sibling fills at the same moment is shrunk too late. The own id belongs to it: links name
        only the others, so two orders that cancel each other would never share a text without it, and strangers that
        link to the same third order would.
    """

    client_order_id: str
    strategy_id: str
    account_id: str
    instrument_id: str
    position_id: str = ""
    side: int = 1
    quantity: float = 0.0
    price: float = _NAN
    trigger_price: float = _NAN
    order_type: str = "MARKET"
    reduce_only: bool = False
    ts: int = 0
    parent_id: str = ""
    exclusive_group: str = ""


class Violation(msgspec.Struct, frozen=True):
    """One broken rule.

    Parameters
    ----------
    rule : str
        Stable upper-case code.
    value, limit : float
        What was found and what is allowed; NaN where the rule has no number.
    detail : str
        Plain words for a person; may be empty.
    """

    rule: str
    value: float = _NAN
    limit: float = _NAN
    detail: str = ""

    def text(self) -> str:
        """One line for a denial, such as ``TENGRI_RISK:MAX_ORDER_NOTIONAL value=3355000 limit=100000``."""
        parts = [f"TENGRI_RISK:{self.rule}"]
        if not math.isnan(self.value):
            parts.append(f"value={self.value:.10g}")
        if not math.isnan(self.limit):
            parts.append(f"limit={self.limit:.10g}")
        if self.detail:
            parts.append(f"({self.detail})")
        return " ".join(parts)


class Utilisation(msgspec.Struct, frozen=True):
    """How far a limit is used.

    Parameters
    ----------
    code : str
        Of the limit, as in :class:`Violation`.
    scope : str
        "portfolio", or what the limit is of, such as "strategy:S-1" or "instrument:BTC".
    value, limit : float
        What is used and what is allowed, in the units of the limit; NaN value when it is not known, infinite limit
        where the limit only warns.
    share : float
        ``value / limit``.
    at : float
        In a warning, the share that was passed; NaN when it was the soft limit, or when this is no warning.
    """

    code: str
    scope: str
    value: float
    limit: float
    share: float
    at: float = _NAN

    def text(self) -> str:
        """One line, such as ``MAX_POSITION instrument:BTC 4 of 5 (80 %)``."""
        return f"{self.code} {self.scope} {self.value:.10g} of {self.limit:.10g} ({100.0 * self.share:.3g} %)"


class Verdict(msgspec.Struct, frozen=True):
    """The gate's answer: every violation that was found, not only the first.

    Parameters
    ----------
    allowed : bool
        Whether the order (for a list: every order of it) may go out.
    reducing : bool
        Whether the order only takes risk off, and so was let past the exposure rules.
    violations : tuple of Violation
        Empty when allowed.
    alerts : tuple of str
        Something failed that did not stop the order and that a person should see.
    warnings : tuple of Utilisation
        Limits of which this order passed a share that is to be told, or a soft limit; it goes out all the same.
    """

    allowed: bool
    reducing: bool
    violations: tuple[Violation, ...] = ()
    alerts: tuple[str, ...] = ()
    warnings: tuple[Utilisation, ...] = ()

    def text(self) -> str:
        """All violations in one line, empty when there are none."""
        return "; ".join(violation.text() for violation in self.violations)


class VarSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How value at risk is measured.

    Parameters
    ----------
    level : float
        Confidence, in (0.5, 1).
    horizon : int or str
        Holding period, ns or a text like "60s"; the scenarios must have been built for exactly it.
    method : str
        One of :data:`tengri_fast.risk.gate_scenarios.GATE_METHODS`. It says what
        :func:`~tengri_fast.risk.gate_scenarios.gate_scenarios` makes of past returns; a portfolio takes the scenarios
        that it is given as they are.
    scenarios : int
        At most this many scenarios are used, the most recent (last) ones.
    base_currency : str
        Currency of the P&L vector and of the limits in money.
    tail : {"empirical", "normal", "cornish_fisher"}
        How value at risk and expected shortfall are read off the scenario results: from the losses themselves, or from
        their first two or four moments. The methods "normal" and "cornish_fisher" bring their own.
    decay : float, optional
        Of the methods "age_weighted" and "filtered", in (0, 1).
    seed : int
        Of the method "monte_carlo".

    Raises
    ------
    ConfigurationError
        When a field breaks its rule.
    """

    level: float = 0.99
    horizon: int | str = 86_400_000_000_000
    method: Literal["historical", "age_weighted", "filtered", "normal", "cornish_fisher", "monte_carlo"] = "historical"
    scenarios: int = 1000
    base_currency: str = "USD"
    tail: Literal["empirical", "normal", "cornish_fisher"] = "empirical"
    decay: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.5 < self.level < 1.0:
            raise ConfigurationError(f"`level` must be between 0.5 and 1, was {self.level}")
        duration_ns("horizon", self.horizon)
        if self.method not in VAR_METHODS:
            raise ConfigurationError(f"`method` must be one of {', '.join(VAR_METHODS)}, was {self.method!r}")
        if self.decay is not None and not 0.0 < self.decay < 1.0:
            raise ConfigurationError(f"`decay` must be between 0 and 1, was {self.decay}")
        if self.scenarios < self.min_scenarios:
            raise ConfigurationError(
                f"`scenarios` must be >= {self.min_scenarios} for a level of {self.level}, was {self.scenarios}"
            )
        if not self.base_currency:
            raise ConfigurationError("`base_currency` must not be empty")
        if self.method in _TAILS:
            # Such a method with the tail of another would measure something else than it says.
            msgspec.structs.force_setattr(self, "tail", self.method)
        if self.tail not in _TAILS:
            raise ConfigurationError(f"`tail` must be one of {', '.join(_TAILS)}, was {self.tail!r}")

    @property
    def horizon_ns(self) -> int:
        """Holding period in ns."""
        return duration_ns("horizon", self.horizon)

    @property
    def min_scenarios(self) -> int:
        """Fewest scenarios with which the level says more than "the worst one"."""
        return math.ceil(1.0 / (1.0 - self.level) - 1e-6)
