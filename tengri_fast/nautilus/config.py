"""Configuration of the neural strategy, in Nautilus' own way: a frozen msgspec structure."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import BarType
from nautilus_trader.model.identifiers import InstrumentId

from tengri_fast.errors import ConfigurationError
from tengri_fast.risk.sizing_settings import SizingSettings
from tengri_fast.runtime.durations import MAX_NS, parse_duration

__all__ = ["TengriNeuralConfig", "duration_ns"]


def duration_ns(value: str | int, field: str = "duration") -> int:
    """Nanoseconds of a duration text such as ``"10s"``, or of a whole number of nanoseconds.

    Parameters
    ----------
    value : str or int
        A text for :func:`tengri_fast.runtime.durations.parse_duration`, or nanoseconds.
    field : str
        The name that an error message uses.

    Returns
    -------
    int
        Nanoseconds, 0 to 2**63 - 1.

    Raises
    ------
    ConfigurationError
        Names the field, its rule and its value.
    """
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except ConfigurationError as error:
            raise ConfigurationError(f"`{field}` {error}") from None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NS:
        raise ConfigurationError(f"`{field}` must be a duration such as '10s', or nanoseconds >= 0, was {value!r}")
    return value


class TengriNeuralConfig(StrategyConfig, kw_only=True, frozen=True):
    """Configuration of :class:`~tengri_fast.nautilus.strategy.TengriNeuralStrategy`.

    Strings are accepted wherever Nautilus takes an identifier, so that the same values work from Python, from TOML and
    through ``ImportableStrategyConfig``.

    Parameters
    ----------
    model : str
        Path of the model's ``model.toml``.
    instrument_id : InstrumentId or str, optional
        The instrument to trade. Give this, or `instrument_ids`, or both.
    instrument_ids : tuple of InstrumentId or str, optional
        Several instruments; each has its own features, session, policy and position.
    legs : dict of str to (InstrumentId or str), optional
        The instrument behind a name in the features that read other instruments (`correlation(other='ETH')`). A name
        that is an instrument id itself needs no entry. Its quotes are subscribed to; it is not traded.
    odds : dict of str to (InstrumentId or str), optional
        By source in the features: the binary option whose quotes are observations of it (`PolymarketOdds`).
    external_client : str, optional
        Client that is asked for observations of external sources; without it, what is published on the bus is taken.
    feature_store : str, optional
        Strategies of one node that name the same store share the features of equal plans on equal instruments.
    bar_types : tuple of BarType or str, optional
        The bars that feed the model, one per instrument at most. Needed only by a model that reads bars.
    book : str, default "depth10"
        Where a model that reads depth takes it from: "depth10" (`OrderBookDepth10`) or "deltas" (the managed book).
    book_type : str, default "L2_MBP"
        Nautilus' book type for `book` = "deltas": "L1_MBP", "L2_MBP" or "L3_MBO".
    trade_size : Decimal or str, optional
        Quantity of an entry. Without it the default policy computes signals and sends no order.
    sizing : SizingSettings or dict, optional
        Size of entries from volatility, the signal's odds and the value-at-risk budget instead of the fixed
        `trade_size`, which then is the largest entry when it is given.
    threshold_bps : float, default 0.5
        What the expected return must exceed beyond fees and half the spread, in basis points.
    exit_bps : float, default 0.0
        Hysteresis: a position is left when the expected return against it exceeds this, in basis points.
    fee_bps : float, optional
        Fees of a round trip in basis points of notional. By default twice the taker fee of the instrument.
    min_confidence : float, default 0.0
        Smallest calibrated confidence that may open a position, 0 to 1.
    max_holding : str or int, default "0s"
        Longest time in a position, as a duration or in nanoseconds; 0 means no limit.
    cooldown : str or int, default "0s"
        Time after an exit in which nothing is opened.
    warm_up : str or int, default "0s"
        Event time from the first tick in which features run and no signal is made.
    history : str or int, default "0s"
        At the start, past events of the kinds that the model reads are asked for over this time, and live data are
        subscribed to when they have been fed. 0 asks for none.
    history_client : str, optional
        Client that answers; the venue's own otherwise. A catalog of the node is asked first.
    history_timeout : str or int, default "60s"
        How long to wait for the history before going on without.
    close_on_stop : bool, default True
        On stop, close the positions of this strategy with reduce-only market orders. Its working orders are
        canceled in either case.
    record_signals : bool, default False
        Keep every signal in memory for :meth:`TengriNeuralStrategy.signals`. The arrays double when they are full, so
        the hot path then allocates now and then.
    stamp_latency : bool, default False
        Read the clock twice per tick and fill ``signal.latency``, ``signal.computed_at`` and ``engine.latency``.
        The decisions never read them.

    Raises
    ------
    ConfigurationError
        If a value breaks its rule; the message names field, rule and value.
    """

    model: str
    instrument_id: InstrumentId | None = None
    instrument_ids: tuple[InstrumentId, ...] = ()
    legs: dict[str, InstrumentId] = msgspec.field(default_factory=dict)
    odds: dict[str, InstrumentId] = msgspec.field(default_factory=dict)
    external_client: str | None = None
    feature_store: str | None = None
    bar_types: tuple[BarType, ...] = ()
    book: str = "depth10"
    book_type: str = "L2_MBP"
    trade_size: Decimal | None = None
    sizing: SizingSettings | None = None
    threshold_bps: float = 0.5
    exit_bps: float = 0.0
    fee_bps: float | None = None
    min_confidence: float = 0.0
    max_holding: str | int = "0s"
    cooldown: str | int = "0s"
    warm_up: str | int = "0s"
    history: str | int = "0s"
    history_client: str | None = None
    history_timeout: str | int = "60s"
    close_on_stop: bool = True
    record_signals: bool = False
    stamp_latency: bool = False

    def __post_init__(self) -> None:
        """Turn strings into identifiers and check every rule."""
        first = [] if self.instrument_id is None else [_instrument_id(self.instrument_id, "instrument_id")]
        others = [_instrument_id(value, "instrument_ids") for value in self.instrument_ids]
        if not first and not others:
            raise ConfigurationError("`instrument_id` must name an instrument, was None")
        if first:
            self._set("instrument_id", first[0])
        self._set("instrument_ids", tuple(dict.fromkeys(first + others)))
        for field in ("legs", "odds"):
            named = getattr(self, field)
            self._set(field, {str(name): _instrument_id(value, f"{field}[{name!r}]") for name, value in named.items()})
        for field in ("external_client", "feature_store"):
            if getattr(self, field) == "":
                raise ConfigurationError(f"`{field}` must be a name or None, was empty")
        self._set("bar_types", tuple(_bar_type(value) for value in self.bar_types))
        for bar_type in self.bar_types:
            if bar_type.instrument_id not in self.instrument_ids:
                raise ConfigurationError(f"`bar_types` must belong to `instrument_ids`, was {bar_type}")
        if len({bar_type.instrument_id for bar_type in self.bar_types}) != len(self.bar_types):
            shown = ", ".join(map(str, self.bar_types))
            raise ConfigurationError(f"`bar_types` must hold one per instrument, was {shown}")
        if self.book not in ("depth10", "deltas"):
            raise ConfigurationError(f"`book` must be 'depth10' or 'deltas', was {self.book!r}")
        if self.book_type not in ("L1_MBP", "L2_MBP", "L3_MBO"):
            raise ConfigurationError(f"`book_type` must be 'L1_MBP', 'L2_MBP' or 'L3_MBO', was {self.book_type!r}")
        if self.trade_size is not None:
            try:
                size = Decimal(str(self.trade_size))
            except InvalidOperation:
                raise ConfigurationError(f"`trade_size` must be a decimal number, was {self.trade_size!r}") from None
            if not size.is_finite() or size <= 0:
                raise ConfigurationError(f"`trade_size` must be > 0, was {self.trade_size}")
            self._set("trade_size", size)
        if isinstance(self.sizing, dict):
            self._set("sizing", _sizing(self.sizing))
        self._check_number("threshold_bps", self.threshold_bps, -1e9, 1e9)
        self._check_number("exit_bps", self.exit_bps, 0.0, 1e9)
        self._check_number("min_confidence", self.min_confidence, 0.0, 1.0)
        if self.fee_bps is not None:
            self._check_number("fee_bps", self.fee_bps, 0.0, 1e4)
        for field in ("max_holding", "cooldown", "warm_up", "history", "history_timeout"):
            duration_ns(getattr(self, field), field)

    def _set(self, field: str, value: Any) -> None:
        msgspec.structs.force_setattr(self, field, value)

    def _check_number(self, field: str, value: Any, low: float, high: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigurationError(f"`{field}` must be a number from {low:g} to {high:g}, was {value!r}")


def _sizing(values: dict[str, Any]) -> SizingSettings:
    try:
        return msgspec.convert(values, SizingSettings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"`sizing` {error}") from error


def _instrument_id(value: InstrumentId | str, field: str) -> InstrumentId:
    if isinstance(value, InstrumentId):
        return value
    try:
        return InstrumentId.from_str(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"`{field}` must look like 'BTCUSDT-PERP.BINANCE', was {value!r}") from error


def _bar_type(value: BarType | str) -> BarType:
    if isinstance(value, BarType):
        return value
    try:
        return BarType.from_str(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"`bar_types` must look like 'BTCUSDT-PERP.BINANCE-1-MINUTE-LAST-EXTERNAL', was {value!r}"
        ) from error
