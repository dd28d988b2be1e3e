"""What a model reads beside its own instrument: quotes of other instruments, and sources outside the market.

A leg is followed by its quotes alone, whatever book the traded instrument is fed from. Observations come as
:class:`~tengri_fast.nautilus.observations.Observation`, by a call of the strategy's ``feed_external``, or from the
quotes of a binary option (:class:`~tengri_fast.features.external.PolymarketOdds`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nautilus_trader.model.data import CustomData, DataType
from nautilus_trader.model.identifiers import ClientId, InstrumentId

from tengri_fast.errors import ConfigurationError, FeatureExtractionError

if TYPE_CHECKING:
    from tengri_fast.features.external import PolymarketOdds

__all__ = ["Surroundings"]


class Surroundings:
    """Legs and sources of one strategy.

    Parameters
    ----------
    config : TengriNeuralConfig
    plan : FeaturePlan
        What the model reads.

    Attributes
    ----------
    legs : dict of str to InstrumentId
        The instrument behind each leg of the plan.
    odds : dict of InstrumentId to (str, PolymarketOdds)
        Instruments whose quotes are observations of a source.
    reads_legs, reads_odds, reads_sources : bool

    Raises
    ------
    ConfigurationError
        If a leg is no instrument id, or `legs` or `odds` name what the model does not read.
    """

    def __init__(self, config: Any, plan: Any) -> None:
        for field, given, known in (("legs", config.legs, plan.legs), ("odds", config.odds, plan.sources)):
            for name in given:
                if name not in known:
                    raise ConfigurationError(
                        f"`{field}` must name what the model reads ({', '.join(known) or 'nothing'}), named {name!r}"
                    )
        self.sources: tuple[str, ...] = plan.sources
        self.legs = {name: config.legs.get(name) or _instrument_of(name) for name in plan.legs}
        self.odds: dict[InstrumentId, tuple[str, PolymarketOdds]] = {}
        if config.odds:
            from tengri_fast.features.external import PolymarketOdds

            for name, instrument_id in config.odds.items():
                if instrument_id in self.odds:
                    raise ConfigurationError(f"`odds` must name each instrument once, named {instrument_id} twice")
                self.odds[instrument_id] = (name, PolymarketOdds())
        self._kind = None
        if plan.sources:
            # Only then: the class needs pyarrow.
            from tengri_fast.nautilus.observations import Observation

            self._observation = Observation
            self._kind = DataType(Observation)
        self._by_slot: dict[int, tuple[str, PolymarketOdds]] = {}
        self._client = ClientId(config.external_client) if config.external_client else None
        self._subscribed: list[InstrumentId] = []
        self.reads_legs, self.reads_odds, self.reads_sources = bool(self.legs), bool(self.odds), bool(self.sources)

    @property
    def names(self) -> dict[str, str]:
        """Legs by their names in the plan, as texts."""
        return {name: str(instrument_id) for name, instrument_id in self.legs.items()}

    def register(self, engine: Any, slots: Any) -> None:
        """Give the instruments that are not traded their slots: the engine's own for legs, further ones for odds."""
        for name in engine.listeners:
            slots.register(name)
        for instrument_id, source in self.odds.items():
            self._by_slot[slots.register(instrument_id.value)] = source

    def prepare(self, strategy: Any, kinds: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Refuse unknown instruments, join the feature store if there is one, and say in the log what is read.

        Parameters
        ----------
        strategy : TengriNeuralStrategy
        kinds : iterable of (str, iterable of str)
            By instrument: the kinds of events that its features are fed.
        """
        self.check(strategy.cache)
        engine, plan = strategy.engine, strategy.bundle.plan
        if engine.store is not None:
            # A bus is one node or backtest: what comes over another is not the same events.
            odds = sorted(f"{source}={instrument_id}" for instrument_id, (source, _) in self.odds.items())
            engine.join_store(f"{id(strategy.msgbus):x}", {name: " ".join([*fed, *odds]) for name, fed in kinds})
        read = [f"{name} as {instrument_id}" for name, instrument_id in self.legs.items()] + list(self.sources)
        strategy.log.info(
            f"Features: {plan.width} columns, {plan.nbytes:,} bytes of state an instrument"
            f"{', reading ' + ', '.join(read) if read else ''}"
            f"{', shared by a store' if engine.store is not None else ''}, plan {plan.hash[:12]}"
        )

    def check(self, cache: Any) -> None:
        """Refuse to start while an instrument is unknown.

        Raises
        ------
        ConfigurationError
            Names it, and what it is for.
        """
        named = [(f"leg {name!r}", instrument_id) for name, instrument_id in self.legs.items()]
        named += [(f"source {source!r}", instrument_id) for instrument_id, (source, _) in self.odds.items()]
        for use, instrument_id in named:
            if cache.instrument(instrument_id) is None:
                raise ConfigurationError(
                    f"`instrument` of {use}, which the model reads, must be in the cache before the strategy starts, "
                    f"was {instrument_id}"
                )

    def others(self, quoted: Iterable[InstrumentId]) -> tuple[InstrumentId, ...]:
        """Instruments whose quotes are needed on top of those that have them already."""
        have = set(quoted)
        return tuple(name for name in dict.fromkeys([*self.legs.values(), *self.odds]) if name not in have)

    def subscribe(self, strategy: Any, quoted: Iterable[InstrumentId]) -> None:
        """Subscribe to the quotes of legs and odds, and to observations."""
        self._subscribed = list(self.others(quoted))
        for instrument_id in self._subscribed:
            strategy.subscribe_quote_ticks(instrument_id)
        if self._kind is not None and self._client is not None:
            strategy.subscribe_data(self._kind, client_id=self._client)
        elif self._kind is not None:
            # Without a client there is nobody to ask; what others publish on the bus comes all the same.
            strategy.msgbus.subscribe(topic=f"data.{self._kind.topic}", handler=strategy.handle_data)

    def unsubscribe(self, strategy: Any) -> None:
        """Undo what ``subscribe`` did."""
        for instrument_id in self._subscribed:
            strategy.unsubscribe_quote_ticks(instrument_id)
        self._subscribed = []
        if self._kind is not None and self._client is not None:
            strategy.unsubscribe_data(self._kind, client_id=self._client)
        elif self._kind is not None:
            strategy.msgbus.unsubscribe(topic=f"data.{self._kind.topic}", handler=strategy.handle_data)

    def reset(self) -> None:
        """Forget the last odds."""
        for _, odds in self.odds.values():
            odds.reset()

    def feed(self, strategy: Any, source: str, values: Sequence[float], ts_event: int) -> int:
        """An observation by a call; see ``TengriNeuralStrategy.feed_external``."""
        now = strategy.clock.timestamp_ns()
        if ts_event > now:
            raise FeatureExtractionError(
                f"`ts_event` must not be after now ({now}), as an observation exists from its publication, "
                f"was {ts_event}"
            )
        accepted: int = strategy.engine.feed_external(source, values, ts_event, now)
        return accepted

    def take_quote(self, engine: Any, slot: int, bid: float, ask: float, ts_event: int, ts_init: int,
                   emit: bool) -> None:  # fmt: skip
        """A quote of any instrument: odds are made of it where a source says so."""
        found = self._by_slot.get(slot)
        if found is not None:
            source, odds = found
            values = odds.push(ts_event, bid, ask)
            if values is not None:
                engine.feed_external(source, values, ts_event, ts_init, emit)

    def take_data(self, engine: Any, data: Any, emit: bool) -> None:
        """Whatever data a handler was given; observations of other sources, and other data, are left alone."""
        if isinstance(data, CustomData):
            data = data.data
        if isinstance(data, list | tuple):
            for item in data:
                self.take_data(engine, item, emit)
        elif isinstance(data, self._observation) and data.source in self.sources:
            engine.feed_external(data.source, data.values, data.ts_event, data.ts_init, emit)


def _instrument_of(name: str) -> InstrumentId:
    try:
        return InstrumentId.from_str(name)
    except ValueError:
        raise ConfigurationError(
            f"`legs` must say which instrument {name!r} is, which the model reads, had no entry of that name "
            f"(a name such as 'ETHUSDT-PERP.BINANCE' says it by itself)"
        ) from None
