"""Rows of the control evidence about the gate itself and about single orders: their price, their size, their sense."""

from __future__ import annotations

from typing import Any

from tengri_fast.nautilus.evidence_steps import (
    Ask,
    Disarm,
    Health,
    Hold,
    Modify,
    Quote,
    Reload,
    Row,
    Send,
    Trade,
    Verify,
    denied,
    rejected_change,
)
from tengri_fast.nautilus.evidence_words import (
    ACCEPTED,
    CAPITAL,
    COLLAR,
    ERRONEOUS,
    FILLED,
    GOOD,
    POSITION,
    RULES,
    VALUE,
    VOLUME,
    WIDE,
    bad,
    buy,
    released,
    rest,
    same,
)

__all__ = ["GATE", "KNOWN", "PRICE", "SIZE"]

# ---- the gate itself -------------------------------------------------------------------------------------------------

GATE = (
    Row(
        key="legal", control="A legal order passes", serves=GOOD,
        tried="Buy 0.1 BTC at 49,900 with limits far away",
        limits=WIDE, steps=(rest(shown=True),),
    ),
    Row(
        key="not-armed", control="Nothing passes before the gate is armed", serves=GOOD,
        tried="A legal order after the gate was stopped and reset while the node runs on",
        limits=WIDE, steps=(rest(), Disarm(), bad("NOT_ARMED")),
    ),
    Row(
        key="restarted", control="A gate that starts late knows what is held and working", serves=POSITION,
        tried="1 BTC held, 0.5 working; the gate is stopped, reset and started; buy 0.6, largest position 2",
        limits={"max_position": 2.0},
        steps=(buy(1.0), rest(0.5), Disarm(again=True), bad("MAX_POSITION", quantity=0.6), rest(0.5, 49_850.0)),
    ),
    Row(
        key="audit", control="Every decision is in a log that shows what was changed", serves=GOOD, path="audit log",
        tried="Two orders and a modification; verify the log, and a copy in which one byte is different",
        limits={"max_order_notional": 100_000.0}, audit=True,
        steps=(
            rest(), Modify(quantity=2.5, wants=(rejected_change("MAX_ORDER_NOTIONAL"),), shown=False),
            bad("MAX_ORDER_NOTIONAL", quantity=2.5, shown=False),
            Verify(wants=("sound, 3 decisions, 2 refused",), shown=True),
            Verify(changed=True, wants=("not sound, 1 decisions, 0 refused",), shown=True),
        ),
    ),
    Row(
        key="no-limits", control="A configuration without any limit is refused", serves=("RTS 6 Art. 8",),
        path="configuration", tried="Replace the limits by none at all",
        limits=WIDE, steps=(Reload(limits={}, wants=("refused",)), rest()),
    ),
    Row(
        key="reload", control="Limits are replaced whole, by a name and with a reason",
        serves=("RTS 6 Art. 5(7)", "RTS 6 Art. 15(6)"),
        path="configuration",
        tried="New limits without a reason, then limits that are wrong, then a limit of 1,000 USDT; buy 0.1 BTC",
        limits=WIDE,
        steps=(
            Reload(limits={"max_order_notional": 1_000.0}, reason="", wants=("refused",)),
            Reload(limits={"max_order_notional": -1.0}, wants=("refused",)),
            rest(),
            Reload(limits={"max_order_notional": 1_000.0}, wants=("done",), shown=True),
            bad("MAX_ORDER_NOTIONAL"),
        ),
    ),
    Row(
        key="soft", control="A soft limit warns and lets pass", serves=("RTS 6 Art. 16",),
        tried="Buy 1.5 BTC with a soft limit of 1 BTC and a hard one of 4",
        limits={"scoped": ({"scope": "instrument:$BTC", "measure": "position", "limit": 4.0, "soft": 1.0},)},
        steps=(rest(0.5), rest(1.5, shown=True, warns="MAX_POSITION")),
    ),
    Row(
        key="internal", control="A failure inside a rule refuses", serves=GOOD,
        tried="Buy while reading the model's health raises an exception",
        limits=WIDE | {"max_rung": 1},
        steps=(Health(), rest(), Health(fails=True), bad("INTERNAL_ERROR")),
    ),
)  # fmt: skip

# ---- price -----------------------------------------------------------------------------------------------------------

PRICE = (
    Row(
        key="collar", control="Price collar, static", serves=COLLAR,
        tried="Buy at 50,600, 120 bps from the mid, collar 100 bps",
        limits={"price_collar_bps": 100.0}, steps=(rest(price=49_600.0), bad("PRICE_COLLAR", price=50_600.0)),
    ),
    Row(
        key="collar-last", control="Price collar, from the last trade", serves=COLLAR,
        tried="Buy at 49,900, 20 bps from the mid and 184 from the last trade, collar 100 bps",
        limits={"price_collar_bps": 100.0, "collar_reference": "last"}, config={"prices": ("quotes", "trades")},
        steps=(Trade(price=49_000.0), same(), rest(price=49_400.0), bad("PRICE_COLLAR", price=49_900.0)),
    ),
    Row(
        key="collar-window", control="Price collar, over a period", serves=COLLAR,
        tried="The mid was 52,000 a moment ago and is 50,000; buy at 49,500, collar 300 bps over an hour",
        limits={"price_collar_bps": 300.0, "collar_window": "1h"},
        steps=(
            Quote(bid=52_000.0, ask=52_001.0), Quote(bid=50_500.0, ask=50_501.0), Quote(bid=50_400.0, ask=50_401.0),
            Quote(what="BTC", bid=50_600.0, ask=50_601.0), rest(price=50_500.0),
            bad("PRICE_COLLAR_WINDOW", price=49_500.0),
        ),
    ),
    Row(
        key="collar-modify", control="Price collar, static", serves=COLLAR, path="modification",
        tried="Move a working order to 49,000, 200 bps from the mid, collar 100 bps",
        limits={"price_collar_bps": 100.0},
        steps=(
            rest(price=49_900.0), Modify(price=49_800.0, wants=("changed",)),
            Modify(price=49_000.0, wants=(rejected_change("PRICE_COLLAR"),)),
        ),
    ),
    Row(
        key="collar-bracket", control="Price collar, static", serves=COLLAR, path="bracket",
        tried="A bracket whose target is 80 bps from the mid, collar 50 bps: no leg may be left behind",
        limits={"price_collar_bps": 50.0},
        steps=(
            rest(price=49_900.0),
            Send(quantity=0.1, price=49_900.0, kind="bracket", wants=(denied("PRICE_COLLAR"),) * 3),
        ),
    ),
    Row(
        key="stale", control="Stale quote", serves=COLLAR,
        tried="Buy ETH, whose quote is an hour old, largest age one minute",
        limits=WIDE | {"stale_quote": "60s"}, opening=False,
        steps=(
            Quote(bid=50_000.0, ask=50_001.0), Quote(what="ETH", bid=3_000.0, ask=3_000.5, age=3_600.0), rest(),
            bad("STALE_REFERENCE_PRICE", what="ETH", price=2_990.0),
        ),
    ),
    Row(
        key="crossed", control="Crossed quote", serves=COLLAR,
        tried="Buy while the bid is above the ask",
        limits={"price_collar_bps": 100.0},
        steps=(
            rest(), Quote(bid=50_010.0, ask=50_000.0), bad("MISSING_REFERENCE_PRICE"),
            same(), rest(),
        ),
    ),
    Row(
        key="no-quote", control="Missing quote", serves=COLLAR,
        tried="Buy ETH before there was a quote of it",
        limits={"price_collar_bps": 100.0}, opening=False,
        steps=(
            Quote(bid=50_000.0, ask=50_001.0), rest(),
            bad("MISSING_REFERENCE_PRICE", what="ETH", price=2_990.0),
        ),
    ),
    Row(
        key="spread", control="Wide spread", serves=GOOD,
        tried="Buy while the spread is 40 bps, widest 10 bps",
        limits=WIDE | {"max_spread_bps": 10.0}, steps=(rest(), Quote(bid=49_900.0, ask=50_100.0), bad("MAX_SPREAD")),
    ),
    Row(
        key="tick", control="Off tick", serves=(*RULES, *ERRONEOUS),
        tried="Buy at 49,900.3 where the tick is 0.5",
        limits=WIDE, steps=(rest(price=49_900.5), bad("PRICE_TICK", price=49_900.3)),
    ),
    Row(
        key="negative-price", control="Price that is not positive", serves=ERRONEOUS, path="emulated stop-limit order",
        tried="Sell at -1 when 50,000 trades: NautilusTrader does not check what its emulator releases",
        limits=WIDE,
        steps=(
            Send(side="sell", quantity=0.1, price=-1.0, trigger=50_000.0, kind="emulated stop-limit"),
            same(denied("NON_POSITIVE_PRICE")),
        ),
    ),
    Row(
        key="binary-price", control="Price of a binary above 1", serves=ERRONEOUS,
        tried="Buy YES at 1.20",
        limits=WIDE, instruments=("YES",),
        steps=(
            Quote(what="YES", bid=0.40, ask=0.42), rest(100, 0.35, what="YES"),
            bad("PRICE_OUT_OF_RANGE", what="YES", quantity=100, price=1.20),
        ),
    ),
)  # fmt: skip

# ---- size ------------------------------------------------------------------------------------------------------------

_NOTIONAL: dict[str, Any] = {"max_order_notional": 100_000.0}


def _notional(key: str, path: str, tried: str, *steps: Any) -> Row:
    return Row(
        key=f"notional-{key}", control="Value of one order", serves=VALUE, path=path, tried=tried, limits=_NOTIONAL,
        steps=steps,
    )  # fmt: skip


SIZE = (
    Row(
        key="quantity", control="Quantity of one order", serves=VOLUME,
        tried="Buy 2.5 BTC, largest order 2",
        limits={"max_order_quantity": 2.0}, steps=(rest(2.0), bad("MAX_ORDER_QUANTITY", quantity=2.5)),
    ),
    _notional("plain", "plain order", "Buy 2.5 BTC, worth 125,000, largest order 100,000", rest(1.5),
              bad("MAX_ORDER_NOTIONAL", quantity=2.5)),
    _notional("market", "market order", "Buy 2.5 BTC at the market, largest order 100,000", buy(1.5),
              bad("MAX_ORDER_NOTIONAL", quantity=2.5, price=None)),
    _notional("bracket", "bracket", "A bracket of 2.5 BTC, largest order 100,000: no leg may be left behind",
              # The sandbox wants a position for exits at once; the venue of a backtest waits for the entry.
              Send(quantity=1.5, price=49_900.0, kind="bracket", wants=ACCEPTED,
                   live=("accepted", *("rejected by the venue",) * 2)),
              Send(quantity=2.5, price=49_800.0, kind="bracket", wants=(denied("MAX_ORDER_NOTIONAL"),) * 3)),
    _notional("modify", "modification", "Raise a working order to 2.5 BTC, largest order 100,000", rest(1.5),
              Modify(quantity=1.6, wants=("changed",)),
              Modify(quantity=2.5, wants=(rejected_change("MAX_ORDER_NOTIONAL"),))),
    _notional("emulated", "emulated order, at its release", "The emulator releases 2.5 BTC, largest order 100,000",
              *released(1.5, "filled"),
              bad("MAX_ORDER_NOTIONAL", quantity=2.5, price=50_001.0, kind="emulated")),
    _notional("algorithm", "child of an algorithm", "An algorithm splits 6 BTC in two, largest order 100,000",
              Send(quantity=2.0, kind="algorithm", wants=FILLED * 2),
              Send(quantity=6.0, kind="algorithm", wants=(denied("MAX_ORDER_NOTIONAL"),) * 2)),
    Row(
        key="lot", control="Off lot", serves=(*RULES, *ERRONEOUS),
        tried="Buy 0.103 BTC where the lot is 0.005",
        limits=WIDE, steps=(rest(0.105), bad("QUANTITY_LOT", quantity=0.103)),
    ),
    Row(
        key="instrument-maximum", control="Largest order of the venue", serves=ERRONEOUS,
        path="emulated order, at its release",
        tried="600 BTC where the venue takes 500: NautilusTrader does not check what its emulator releases",
        limits={"max_margin_use": 100.0},
        steps=released(600.0, denied("MAX_QUANTITY")),
    ),
    Row(
        key="instrument-minimum", control="Smallest order of the venue", serves=ERRONEOUS,
        path="emulated order, at its release",
        tried="0.005 BTC where the venue takes 0.01: NautilusTrader does not check what its emulator releases",
        limits=WIDE,
        steps=released(0.005, denied("MIN_QUANTITY")),
    ),
)  # fmt: skip

# ---- what must be known ----------------------------------------------------------------------------------------------

_NAN, _INF = float("nan"), float("inf")


def _asked(key: str, control: str, tried: str, code: str, **order: Any) -> Row:
    return Row(
        key=key, control=control, serves=ERRONEOUS, path="rules, asked directly", tried=tried, limits=WIDE,
        steps=(Ask(wants=ACCEPTED), Ask(order=order, wants=(denied(code),))),
    )  # fmt: skip


KNOWN = (
    Row(
        key="rate", control="Missing exchange rate", serves=CAPITAL,
        tried="Buy what settles in EUR while nobody knows EUR in USDT",
        limits={"max_gross_exposure": 1_000_000.0}, instruments=("EUR",),
        steps=(
            rest(), Quote(what="EUR", bid=0.60, ask=0.601), bad("MISSING_RATE", what="EUR", quantity=10, price=0.55),
        ),
    ),
    Row(
        key="equity", control="Equity that is not known", serves=CAPITAL,
        tried="Buy with EUR in the account that nobody can value, limit on leverage",
        limits={"max_leverage": 2.0}, balances=("1000000 USDT", "1000 EUR"), steps=(bad("MISSING_EQUITY"),),
    ),
    Row(
        key="scenarios", control="Missing scenarios", serves=CAPITAL,
        tried="Buy before there are scenarios for value at risk",
        limits={"max_portfolio_var": 0.05}, steps=(bad("MISSING_SCENARIOS", "NOT_ARMED"),),
    ),
    Row(
        key="stress-scenarios", control="Missing stress scenarios", serves=CAPITAL,
        tried="Buy before there are stress scenarios",
        limits={"max_stress_loss": 0.05}, steps=(bad("MISSING_STRESS_SCENARIOS"),),
    ),
    Row(
        key="unpriced", control="A position that cannot be valued", serves=CAPITAL,
        tried="Reconciliation finds 5 ETH, of which there is no quote; buy BTC",
        limits={"max_gross_exposure": 1_000_000.0}, opening=False,
        steps=(
            Quote(bid=50_000.0, ask=50_001.0), rest(), Hold(what="ETH", quantity=5.0), bad("UNPRICED_POSITION"),
        ),
    ),
    _asked("instrument", "Unknown instrument", "An instrument that nobody knows", "UNKNOWN_INSTRUMENT",
           instrument_id="DOGE.NOWHERE"),
    _asked("side", "Side", "An order on neither side", "INVALID_SIDE", side=0),
    _asked("type", "Order type", "An order of an unknown type", "UNKNOWN_ORDER_TYPE", order_type="ICEBERG"),
    _asked("nan-quantity", "Quantity that is not a number", "Quantity NaN", "NON_FINITE_QUANTITY", quantity=_NAN),
    _asked("negative-quantity", "Quantity that is not positive", "Quantity -1", "NON_POSITIVE_QUANTITY", quantity=-1.0),
    _asked("nan-price", "Price that is not finite", "Price infinite", "NON_FINITE_PRICE", price=_INF),
    Row(
        key="fault", control="A fill that cannot be booked", serves=CAPITAL, path="rules, asked directly",
        tried="A fill of an unknown instrument; a legal order after it",
        limits=WIDE, steps=(Ask(wants=ACCEPTED), Ask(fault=True, wants=(denied("PORTFOLIO_FAULT"),))),
    ),
)  # fmt: skip
