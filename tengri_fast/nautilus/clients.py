"""``[data_sources]`` as client configurations of NautilusTrader.

Planning opens nothing: it decides which client serves which instruments, where it would connect, and which keys it
needs. Keys are taken from the environment, are handed to NautilusTrader alone and are never part of a plan's text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nautilus_trader.config import InstrumentProviderConfig, RoutingConfig
from nautilus_trader.model.identifiers import InstrumentId, Venue

from tengri_fast.errors import MissingExtraError

if TYPE_CHECKING:
    from tengri_fast.runtime.config import TengriConfig

__all__ = ["ClientPlan", "Key", "plan_clients"]

_FUTURE = re.compile(r"(-PERP|_[0-9]{6})$")
_PRODUCTS = {"spot": "SPOT", "usdm": "USDT_FUTURES", "coinm": "COIN_FUTURES"}


@dataclass(frozen=True)
class Key:
    """A variable of the environment that a client reads.

    Attributes
    ----------
    name : str
        The variable's name.
    present : bool
        Whether it is set (to anything).
    required : bool
        Whether the client cannot be made without it.
    """

    name: str
    present: bool
    required: bool

    def __str__(self) -> str:
        return f"{self.name} {'set' if self.present else 'missing' if self.required else 'missing (optional)'}"


@dataclass(frozen=True)
class ClientPlan:
    """One data client: what it is, and what it would do.

    Attributes
    ----------
    name : str
        Identifier of the client.
    source : str
        Key of ``[data_sources]``.
    venue : str
        Venue of its instruments; empty for a client of several.
    account_type : str
        Market of the vendor; empty where there is none.
    endpoints : tuple of str
        Where it would connect; empty when only the vendor's library knows.
    instruments : tuple of str
        What it would load.
    keys : tuple of Key
    notes : tuple of str
        What it cannot do, one sentence each.
    """

    name: str
    source: str
    venue: str
    account_type: str
    endpoints: tuple[str, ...]
    instruments: tuple[str, ...]
    keys: tuple[Key, ...]
    notes: tuple[str, ...] = ()
    # Not shown: a configuration may hold keys.
    config: Any = field(default=None, repr=False, compare=False)
    factory: Any = field(default=None, repr=False, compare=False)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the required variables that are not set."""
        return tuple(key.name for key in self.keys if key.required and not key.present)


def plan_clients(config: TengriConfig, environ: Mapping[str, str] | None = None) -> tuple[ClientPlan, ...]:
    """The data clients that a configuration asks for.

    Parameters
    ----------
    config : TengriConfig
        Its ``[data_sources]``, and the instrument of its strategy.
    environ : mapping, optional
        Where keys are looked up; the process' environment otherwise.

    Raises
    ------
    ConfigurationError
        No source that is switched on serves the strategy's instrument, a source has nothing to serve, or an instrument
        does not belong to the source that lists it.
    MissingExtraError
        A source needs a package that is not installed.
    """
    keys = os.environ if environ is None else environ
    sources = config.data_sources
    traded = InstrumentId.from_str(config.strategy.instrument_id)
    plans: list[ClientPlan] = []
    if sources.binance is not None and sources.binance.enabled:
        plans += _binance(config, traded, keys)
    if sources.polymarket is not None and sources.polymarket.enabled:
        plans.append(_polymarket(config, traded, keys))
    if sources.databento is not None and sources.databento.enabled:
        plans.append(_databento(config, traded, keys))
    if sources.tardis is not None and sources.tardis.enabled:
        plans.append(_tardis(config, traded, keys, alone=not plans))
    if not plans:
        raise config.error("data_sources", "must switch on a live source (binance, polymarket, databento or tardis)")
    if not any(traded.value in plan.instruments for plan in plans):
        names = ", ".join(dict.fromkeys(plan.source for plan in plans))
        raise config.error("strategy.instrument_id", f"must be served by a source that is on ({names}), was {traded}")
    return tuple(plans)


def _key(name: str, keys: Mapping[str, str], *, required: bool) -> Key:
    return Key(name, bool(keys.get(name)), required)


# ---- Binance ---------------------------------------------------------------------------------------------------------


def _product(instrument: InstrumentId) -> str:
    """The market of Binance to which a symbol belongs, by its spelling."""
    symbol = instrument.symbol.value
    if not _FUTURE.search(symbol):
        return "spot"
    return "coinm" if _FUTURE.sub("", symbol).endswith("USD") else "usdm"


def _binance(config: TengriConfig, traded: InstrumentId, keys: Mapping[str, str]) -> list[ClientPlan]:
    from nautilus_trader.adapters.binance import BinanceAccountType, BinanceDataClientConfig
    from nautilus_trader.adapters.binance.common.enums import BinanceEnvironment
    from nautilus_trader.adapters.binance.common.urls import (
        get_http_base_url,
        get_ws_base_url,
        get_ws_public_base_url,
    )
    from nautilus_trader.adapters.binance.factories import BinanceLiveDataClientFactory

    section = config.data_sources.binance
    assert section is not None
    products = (["spot"] if section.spot else []) + (
        list(dict.fromkeys(section.futures_accounts)) if section.futures else []
    )
    if not products:
        raise config.error("data_sources.binance", "must have spot = true or futures = true, had neither")
    # One market has the plain venue: the one that is traded, else the first.
    main = products[0]
    if traded.venue.value == "BINANCE":
        main = _product(traded)
        if main not in products:
            needed = "spot = true" if main == "spot" else f'futures = true and "{main}" in futures_accounts'
            raise config.error("strategy.instrument_id", f"needs data_sources.binance with {needed}, was {traded}")
    venues = {product: "BINANCE" if product == main else f"BINANCE_{product.upper()}" for product in products}
    wanted: dict[str, list[str]] = {product: [] for product in products}
    if traded.venue.value == "BINANCE":
        wanted[main].append(traded.value)
    for number, text in enumerate(section.instruments):
        instrument = InstrumentId.from_str(text)
        product = next((name for name, venue in venues.items() if venue == instrument.venue.value), None)
        key = f"data_sources.binance.instruments[{number}]"
        if product is None:
            raise config.error(key, f"must have one of the venues {', '.join(venues.values())}, was {text}")
        if _product(instrument) != product:
            found = _product(instrument)
            raise config.error(key, f"must be an instrument of {product}, is one of {found}, was {text}")
        if text not in wanted[product]:
            wanted[product].append(text)
    environment = BinanceEnvironment[section.environment.upper()]
    prefix = {"live": "BINANCE", "testnet": "BINANCE_TESTNET", "demo": "BINANCE_DEMO"}[section.environment]
    plans = []
    for product in products:
        account = BinanceAccountType[_PRODUCTS[product]]
        stem = "BINANCE_FUTURES_TESTNET" if section.environment == "testnet" and product != "spot" else prefix
        both = (f"{stem}_API_KEY", f"{stem}_API_SECRET")
        # Half a pair is worse than none: the client would sign with nothing.
        paired = all(keys.get(name) for name in both)
        endpoints = dict.fromkeys(
            (
                get_http_base_url(account, environment, False),
                get_ws_base_url(account, environment, False),
                get_ws_public_base_url(account, environment, False),
            )
        )
        notes = [] if wanted[product] else ["No instrument is asked for: nothing would be subscribed."]
        plans.append(
            ClientPlan(
                name=venues[product],
                source="binance",
                venue=venues[product],
                account_type=account.value,
                endpoints=tuple(endpoints),
                instruments=tuple(wanted[product]),
                keys=tuple(_key(name, keys, required=False) for name in both),
                notes=tuple(notes),
                config=BinanceDataClientConfig(
                    venue=Venue(venues[product]),
                    api_key=keys[both[0]] if paired else None,
                    api_secret=keys[both[1]] if paired else None,
                    account_type=account,
                    environment=environment,
                    instrument_provider=_provider(wanted[product]),
                    use_agg_trade_ticks=True,
                ),
                factory=BinanceLiveDataClientFactory,
            )
        )
    return plans


def _provider(instruments: list[str]) -> InstrumentProviderConfig:
    return InstrumentProviderConfig(load_ids=frozenset(InstrumentId.from_str(text) for text in instruments))


# ---- the others ------------------------------------------------------------------------------------------------------


def _listed(config: TengriConfig, source: str, traded: InstrumentId, *, take: bool) -> list[str]:
    """The instruments of a section, with the traded one first where it belongs there."""
    found = [traded.value] if take else []
    return list(dict.fromkeys(found + list(getattr(config.data_sources, source).instruments)))


def _polymarket(config: TengriConfig, traded: InstrumentId, keys: Mapping[str, str]) -> ClientPlan:
    try:
        from nautilus_trader.adapters.polymarket import (
            PolymarketDataClientConfig,
            PolymarketLiveDataClientFactory,
        )
        from nautilus_trader.adapters.polymarket.providers import PolymarketInstrumentProviderConfig
    except ImportError as error:
        if error.name is None or not error.name.startswith("py_clob_client"):
            raise
        raise MissingExtraError("py-clob-client-v2", "polymarket", "`data_sources.polymarket`") from None
    section = config.data_sources.polymarket
    assert section is not None
    instruments = _listed(config, "polymarket", traded, take=traded.venue.value == "POLYMARKET")
    for number, text in enumerate(section.instruments):
        if InstrumentId.from_str(text).venue.value != "POLYMARKET":
            key = f"data_sources.polymarket.instruments[{number}]"
            raise config.error(key, f"must have the venue POLYMARKET, was {text}")
    tags = [text for text in section.markets if text.isdecimal()]
    names = [text for text in section.markets if not text.isdecimal()]
    if len(tags) > 1:
        raise config.error(
            "data_sources.polymarket.markets", f"must hold one tag number at most, held {', '.join(tags)}"
        )
    notes = []
    if names:
        shown = ", ".join(names)
        notes.append(f"The tags {shown} are names: their markets load by tag number or by `instruments`.")
    if not instruments and not tags:
        notes.append("No instrument is asked for: nothing would be subscribed.")
    filters = {"is_active": True, "tag_id": tags[0]} if tags else None
    provider = PolymarketInstrumentProviderConfig(
        load_all=bool(tags),
        load_ids=None if tags else frozenset(InstrumentId.from_str(text) for text in instruments),
        filters=filters,
        use_gamma_markets=True,
    )
    required = (
        "POLYMARKET_PK",
        "POLYMARKET_FUNDER",
        "POLYMARKET_API_KEY",
        "POLYMARKET_API_SECRET",
        "POLYMARKET_PASSPHRASE",
    )
    return ClientPlan(
        name="POLYMARKET",
        source="polymarket",
        venue="POLYMARKET",
        account_type="",
        endpoints=(
            "https://clob.polymarket.com",
            "https://gamma-api.polymarket.com",
            "wss://ws-subscriptions-clob.polymarket.com/ws/",
        ),
        instruments=tuple(instruments),
        keys=tuple(_key(name, keys, required=True) for name in required),
        notes=tuple(notes),
        config=PolymarketDataClientConfig(
            instrument_config=provider,
            private_key=keys.get(required[0]),
            funder=keys.get(required[1]),
            api_key=keys.get(required[2]),
            api_secret=keys.get(required[3]),
            passphrase=keys.get(required[4]),
        ),
        factory=PolymarketLiveDataClientFactory,
    )


def _databento(config: TengriConfig, traded: InstrumentId, keys: Mapping[str, str]) -> ClientPlan:
    from nautilus_trader.adapters.databento import DatabentoDataClientConfig, DatabentoLiveDataClientFactory
    from nautilus_trader.adapters.databento.loaders import DatabentoDataLoader
    from nautilus_trader.core import nautilus_pyo3

    section = config.data_sources.databento
    assert section is not None
    if not section.feeds:
        raise config.error(
            "data_sources.databento.feeds", 'must name at least one feed, such as "GLBX.MDP3", named none'
        )
    loader = DatabentoDataLoader()

    def feed_of(instrument: InstrumentId) -> str | None:
        try:
            return str(loader.get_dataset_for_venue(nautilus_pyo3.Venue(instrument.venue.value)))
        except (ValueError, TypeError, KeyError):
            return None

    instruments = _listed(config, "databento", traded, take=feed_of(traded) in section.feeds)
    for number, text in enumerate(section.instruments):
        feed = feed_of(InstrumentId.from_str(text))
        if feed not in section.feeds:
            key = f"data_sources.databento.instruments[{number}]"
            belongs = f"belongs to {feed}" if feed else "has a venue that Databento does not know"
            raise config.error(key, f"must be of one of the feeds {', '.join(section.feeds)}, {belongs}, was {text}")
    notes = () if instruments else ("No instrument is asked for: nothing would be subscribed.",)
    venues = frozenset(InstrumentId.from_str(text).venue.value for text in instruments)
    return ClientPlan(
        name="DATABENTO",
        source="databento",
        venue=", ".join(sorted(venues)),
        account_type=", ".join(section.feeds),
        endpoints=("https://hist.databento.com", *(f"{_gateway(feed)}:13000" for feed in section.feeds)),
        instruments=tuple(instruments),
        keys=(_key("DATABENTO_API_KEY", keys, required=True),),
        notes=notes,
        config=DatabentoDataClientConfig(
            api_key=keys.get("DATABENTO_API_KEY"),
            instrument_ids=[InstrumentId.from_str(text) for text in instruments],
            routing=RoutingConfig(venues=venues),
        ),
        factory=DatabentoLiveDataClientFactory,
    )


def _gateway(feed: str) -> str:
    return f"{feed.replace('.', '-').lower()}.lsg.databento.com"


def _tardis(config: TengriConfig, traded: InstrumentId, keys: Mapping[str, str], *, alone: bool) -> ClientPlan:
    from nautilus_trader.adapters.tardis import TardisDataClientConfig, TardisLiveDataClientFactory

    instruments = _listed(config, "tardis", traded, take=alone)
    machine = keys.get("TARDIS_MACHINE_WS_URL")
    # Another source may own a venue; what is listed here and is not the traded instrument is routed here.
    venues = frozenset(InstrumentId.from_str(text).venue.value for text in instruments)
    if not alone:
        venues -= {traded.venue.value}
    notes = ["Tardis' client answers no requests for past quotes and trades; the catalog does."]
    if not instruments:
        notes.append("No instrument is asked for: nothing would be subscribed.")
    return ClientPlan(
        name="TARDIS",
        source="tardis",
        venue=", ".join(sorted(venues)),
        account_type="",
        endpoints=("https://api.tardis.dev/v1", *([machine] if machine else [])),
        instruments=tuple(instruments),
        keys=(
            _key("TARDIS_API_KEY", keys, required=True),
            _key("TARDIS_MACHINE_WS_URL", keys, required=True),
        ),
        notes=tuple(notes),
        config=TardisDataClientConfig(
            api_key=keys.get("TARDIS_API_KEY"),
            base_url_ws=machine,
            instrument_provider=_provider(instruments),
            routing=RoutingConfig(venues=venues),
        ),
        factory=TardisLiveDataClientFactory,
    )
