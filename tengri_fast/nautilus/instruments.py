"""Rows of the contract table to NautilusTrader instruments."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from nautilus_trader.model.enums import AssetClass
from nautilus_trader.model.identifiers import InstrumentId, Symbol
from nautilus_trader.model.instruments import (
    BinaryOption,
    CryptoPerpetual,
    CurrencyPair,
    Equity,
    FuturesContract,
    Instrument,
)
from nautilus_trader.model.objects import Currency, Price, Quantity

from tengri_fast.errors import ConfigurationError
from tengri_fast.market.contracts import InstrumentContract

__all__ = ["instrument_from_contract"]

# The table has no expiry: a future is traded as if it lived on (2100-01-01).
_NEVER_NS = 4_102_444_800_000_000_000

_ASSET_CLASSES = {
    "commodity": AssetClass.COMMODITY,
    "cryptocurrency": AssetClass.CRYPTOCURRENCY,
    "equity": AssetClass.EQUITY,
    "fx": AssetClass.FX,
    "index": AssetClass.INDEX,
}


def instrument_from_contract(contract: InstrumentContract, instrument_id: str | None = None) -> Instrument:
    """A row of the contract table as a NautilusTrader instrument.

    Parameters
    ----------
    contract : InstrumentContract
        Tick, step, multiplier, currency and fees. A fee per contract is no property of a NautilusTrader instrument; the
        backtest's fee model charges it.
    instrument_id : str, optional
        Another name for it, "SYMBOL.VENUE"; by default that of the row.

    Returns
    -------
    Instrument
        ``CryptoPerpetual`` for the kind "perpetual" (inverse ones settle in their base currency), ``FuturesContract``
        for "future" (without an expiry), ``CurrencyPair`` for "spot", ``Equity`` for "equity", ``BinaryOption`` for
        "binary_option" (without an expiry).

    Raises
    ------
    ConfigurationError
        When the kind is unknown, or a value of the row does not fit it.
    """
    name = InstrumentId.from_str(instrument_id or contract.instrument_id)
    currency = Currency.from_str(contract.currency)
    common: dict[str, Any] = {
        "instrument_id": name,
        "raw_symbol": Symbol(name.symbol.value),
        "price_precision": contract.price_precision,
        "price_increment": Price(contract.tick, contract.price_precision),
        "margin_init": Decimal(0),
        "margin_maint": Decimal(0),
        "maker_fee": _rate(contract.maker_bps),
        "taker_fee": _rate(contract.taker_bps),
        "ts_event": 0,
        "ts_init": 0,
    }
    step = Quantity(contract.size_step, contract.size_precision)
    pair: dict[str, Any] = {
        "base_currency": Currency.from_str(contract.base_currency),
        "quote_currency": currency,
        "size_precision": contract.size_precision,
        "size_increment": step,
    }
    multiplier = Quantity.from_str(f"{Decimal(repr(contract.multiplier)).normalize():f}")
    if contract.kind == "perpetual":
        return CryptoPerpetual(
            **common,
            **pair,
            settlement_currency=Currency.from_str(contract.settlement_currency),
            is_inverse=contract.inverse,
            multiplier=multiplier,
            lot_size=step,
        )
    if contract.inverse:
        raise ConfigurationError(f"`inverse` of {name} must be false for the kind {contract.kind!r}, was true")
    if contract.kind == "binary_option":
        if contract.multiplier != 1.0:
            raise ConfigurationError(f"`multiplier` of the binary option {name} must be 1, was {contract.multiplier}")
        for margin in ("margin_init", "margin_maint"):  # it is paid for in full
            common.pop(margin)
        return BinaryOption(
            **common,
            asset_class=_ASSET_CLASSES.get(contract.asset_class, AssetClass.ALTERNATIVE),
            currency=currency,
            size_precision=contract.size_precision,
            size_increment=step,
            activation_ns=0,
            expiration_ns=_NEVER_NS,
        )
    if contract.kind == "spot":
        if contract.multiplier != 1.0:
            raise ConfigurationError(f"`multiplier` of the spot instrument {name} must be 1, was {contract.multiplier}")
        return CurrencyPair(**common, **pair, lot_size=step)
    if contract.size_precision != 0:
        raise ConfigurationError(
            f"`size_precision` of {name} must be 0 for the kind {contract.kind!r}, was {contract.size_precision}"
        )
    if contract.kind == "future":
        asset_class = _ASSET_CLASSES.get(contract.asset_class)
        if asset_class is None:
            known = ", ".join(_ASSET_CLASSES)
            raise ConfigurationError(f"`asset_class` of {name} must be one of {known}, was {contract.asset_class!r}")
        return FuturesContract(
            **common,
            asset_class=asset_class,
            currency=currency,
            multiplier=multiplier,
            lot_size=step,
            underlying=name.symbol.value,
            activation_ns=0,
            expiration_ns=_NEVER_NS,
        )
    if contract.kind == "equity":
        if contract.multiplier != 1.0:
            raise ConfigurationError(f"`multiplier` of the share {name} must be 1, was {contract.multiplier}")
        return Equity(**common, currency=currency, lot_size=step)
    raise ConfigurationError(
        f"`kind` of {name} must be one of perpetual, future, spot, equity, binary_option, was {contract.kind!r}"
    )


def _rate(basis_points: float) -> Decimal:
    return Decimal(repr(basis_points)) / 10_000
