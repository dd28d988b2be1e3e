"""Rows of the control evidence about what orders add up to: positions, losses, flow, and where a strategy may trade."""

from __future__ import annotations

from typing import Any

from tengri_fast.nautilus.evidence_steps import (
    Cancel,
    Disarm,
    Health,
    Hours,
    Kill,
    Modify,
    Quote,
    Rearm,
    Reload,
    Row,
    Send,
    Status,
    denied,
    rejected_change,
)
from tengri_fast.nautilus.evidence_words import (
    CAPITAL,
    ERRONEOUS,
    GOOD,
    KILL,
    MESSAGES,
    POSITION,
    REPEATED,
    RESTRICTED,
    RULES,
    SCOPES,
    WIDE,
    bad,
    buy,
    released,
    rest,
    same,
    sell,
)

__all__ = ["FLOW", "KILLS", "MODEL", "PORTFOLIO", "SCOPED", "WHERE"]

# ---- position and portfolio ------------------------------------------------------------------------------------------


def _model(key: str, control: str, limit: str, value: float, code: str, tried: str) -> Row:
    return Row(
        key=key, control=control, serves=CAPITAL, tried=tried, limits={limit: value}, scenarios=True, stress=True,
        steps=(buy(1.0), bad(code, quantity=2.0)),
    )  # fmt: skip


PORTFOLIO = (
    Row(
        key="position", control="Position with working orders", serves=POSITION,
        tried="1 BTC held, 0.9 working; buy 0.2 more, largest position 2",
        limits={"max_position": 2.0}, steps=(buy(1.0), rest(0.9), bad("MAX_POSITION", quantity=0.2)),
    ),
    Row(
        key="position-modify", control="Position with working orders", serves=POSITION, path="modification",
        tried="1 BTC held, 0.5 working, raised to 1.5; largest position 2",
        limits={"max_position": 2.0},
        steps=(
            buy(1.0), rest(0.5), Modify(quantity=1.0, wants=("changed",)),
            Modify(quantity=1.5, wants=(rejected_change("MAX_POSITION"),)),
        ),
    ),
    Row(
        key="reducing", control="A reducing order passes beyond a limit", serves=GOOD,
        tried="4 BTC held, then the largest position is set to 2; buy 0.1, and sell 4",
        limits={"max_position": 5.0},
        steps=(
            buy(4.0), Reload(limits={"max_position": 2.0}, wants=("done",)), bad("MAX_POSITION"),
            sell(4.0, shown=True),
        ),
    ),
    Row(
        key="gross", control="Gross exposure", serves=CAPITAL,
        tried="1 BTC long, 20 ETH short, 110,000 together; sell 10 ETH more, limit 120,000",
        limits={"max_gross_exposure": 120_000.0},
        steps=(buy(1.0), sell(20.0, "ETH"),
               bad("MAX_GROSS_EXPOSURE", what="ETH", side="sell", quantity=10.0, price=3_010.0)),
    ),
    Row(
        key="net", control="Net exposure", serves=CAPITAL,
        tried="1 BTC long; buying 10 ETH makes 80,000, limit 60,000; selling them hedges and passes",
        limits={"max_net_exposure": 60_000.0},
        steps=(buy(1.0), bad("MAX_NET_EXPOSURE", what="ETH", quantity=10.0, price=2_990.0), sell(10.0, "ETH")),
    ),
    Row(
        key="concentration", control="Concentration", serves=CAPITAL,
        tried="Buy until one instrument is 12.5 % of equity, limit 10 %; another instrument still passes",
        limits={"max_concentration": 0.10},
        steps=(buy(1.0), bad("MAX_CONCENTRATION", quantity=1.5), buy(20.0, "ETH")),
    ),
    Row(
        key="leverage", control="Leverage", serves=CAPITAL,
        tried="50,000 of BTC held; buy 60,000 of ETH, limit 10 % of equity",
        limits={"max_leverage": 0.10},
        steps=(buy(1.0), bad("MAX_LEVERAGE", what="ETH", quantity=20.0, price=2_990.0)),
    ),
    Row(
        key="margin", control="Margin", serves=CAPITAL,
        tried="Buy until margin of 5 % is 0.75 % of equity, limit 0.5 %",
        limits={"max_margin_use": 0.005}, steps=(buy(1.0), bad("MAX_MARGIN_USE", quantity=2.0)),
    ),
    _model("var", "Value at risk", "max_portfolio_var", 0.005, "MAX_PORTFOLIO_VAR",
           "Buy 2 BTC more, so that value at risk of 60 s passes 0.5 % of equity"),
    _model("es", "Expected shortfall", "max_portfolio_es", 0.006, "MAX_PORTFOLIO_ES",
           "Buy 2 BTC more, so that expected shortfall of 60 s passes 0.6 % of equity"),
    _model("stress", "Stress loss", "max_stress_loss", 0.03, "MAX_STRESS_LOSS",
           "Buy 2 BTC more, so that a fall of 30 % costs 4.5 % of equity, limit 3 %"),
    Row(
        key="working", control="Working orders", serves=GOOD,
        tried="A third working order, at most two",
        limits={"max_working_orders": 2},
        steps=(rest(), rest(price=49_850.0), bad("MAX_WORKING_ORDERS")),
    ),
    Row(
        key="working-value", control="Value of working orders",
        serves=("SEC 15c3-5(c)(1)(i)", "RTS 6 Art. 15(2)", "UMIR 7.1 (Canada)"),
        tried="Working orders worth 49,900; 30,000 of ETH more, limit 60,000",
        limits={"max_working_notional": 60_000.0},
        steps=(rest(1.0), bad("MAX_WORKING_NOTIONAL", what="ETH", quantity=10.0, price=2_990.0)),
    ),
    Row(
        key="short", control="Short sale forbidden", serves=(*RULES, "Regulation SHO"),
        tried="1 BTC held; sell 1.5 where short sales are forbidden",
        limits=WIDE, config={"short_rules": {"$BTC": "forbidden"}},
        steps=(buy(1.0), bad("SHORT_SALE", side="sell", quantity=1.5, price=50_100.0), sell(1.0)),
    ),
    Row(
        key="uptick", control="Short sale above the bid only", serves=(*RULES, "Regulation SHO"),
        tried="Sell short at the bid",
        limits=WIDE, config={"short_rules": {"$BTC": "uptick"}},
        steps=(rest(1.0, 50_100.0, side="sell"), bad("SHORT_SALE", side="sell", quantity=1.0, price=50_000.0)),
    ),
)  # fmt: skip

# ---- losses and the kill switch --------------------------------------------------------------------------------------


def _loss(key: str, control: str, limit: str, code: str, tried: str, back: Quote, *before: Any) -> Row:
    """2 BTC lose more than the limit, and win it back; the switch has the name of the row."""
    return Row(
        key=key, control=control, serves=(*CAPITAL, *KILL), tried=tried,
        limits={limit: 0.01},
        steps=(
            buy(2.0), rest(0.1, 30_000.0), *before, Quote(bid=44_000.0, ask=44_001.0),
            Send(quantity=0.1, price=43_900.0, wants=(denied(code), "canceled")),
            back, bad("KILLED"), sell(2.0),
            Rearm(name=key, reason=" ", wants=("refused",), shown=False), Rearm(name=key, wants=("done",)), rest(),
        ),
    )  # fmt: skip


def _scope(key: str, words: str, scope: str, other: Send) -> Row:
    return Row(
        key=f"kill-{key}", control=f"Kill of {words}", serves=KILL,
        tried=f"Kill {scope.replace('$', '')}; a legal order there, and one elsewhere",
        limits=WIDE, config={"buckets": {"$BTC": "coins"}}, instruments=("SOL",),
        steps=(
            Quote(what="SOL", bid=150.0, ask=150.05), rest(), Kill(scope=scope, wants=("canceled",)),
            bad("KILLED"), other,
        ),
    )  # fmt: skip


KILLS = (
    _loss("daily-loss", "Daily loss, with kill", "max_daily_loss", "MAX_DAILY_LOSS",
          "2 BTC held lose 1.2 % of equity, limit 1 %: the next order; another one after the loss is won back", same()),
    _loss("drawdown", "Drawdown, with kill", "max_drawdown", "MAX_DRAWDOWN",
          "2 BTC held fall 2.8 % of equity from a peak, limit 1 %: the next order; another one after it is won back",
          Quote(bid=58_000.0, ask=58_001.0),
          Quote(bid=58_000.0, ask=58_001.0), rest(0.1, 30_050.0), Cancel(wants=("canceled",))),
    Row(
        key="kill", control="Kill of everything", serves=KILL,
        tried="Kill; a legal order; what is working is canceled, but for what reduces",
        limits=WIDE,
        steps=(
            buy(1.0), rest(), rest(0.5, 50_200.0, side="sell", reduce_only=True),
            Kill(wants=("canceled",), shown=True), bad("KILLED"), bad("KILLED", what="ETH", price=2_990.0),
        ),
    ),
    Row(
        key="kill-emulated", control="Kill of everything", serves=KILL, path="emulated order, at its release",
        tried="Kill; the emulator releases an order",
        limits=WIDE,
        steps=(*released(0.1, "filled"), Kill(), bad("KILLED", price=50_001.0, kind="emulated")),
    ),
    Row(
        key="kill-modify", control="Kill of everything", serves=KILL, path="modification",
        tried="Kill that leaves working orders; make one larger, make it smaller",
        limits=WIDE, config={"cancel_on_kill": False},
        steps=(
            rest(), Kill(), Modify(quantity=0.2, wants=(rejected_change("KILLED"),)),
            Modify(quantity=0.05, wants=("changed",)),
        ),
    ),
    Row(
        key="kill-reducing", control="A reducing order passes while trading is stopped", serves=GOOD,
        tried="1 BTC held; kill; sell 1 BTC",
        limits=WIDE, steps=(buy(1.0), Kill(), bad("KILLED", shown=False), sell(1.0, shown=True)),
    ),
    Row(
        key="kill-cancel", control="A cancel passes while trading is stopped", serves=KILL, path="cancel",
        tried="1 BTC held, a reduce-only order working; kill; cancel it",
        limits=WIDE,
        steps=(
            buy(1.0), rest(0.5, 50_200.0, side="sell", reduce_only=True), Kill(),
            Cancel(wants=("canceled",), shown=True),
        ),
    ),
    _scope("instrument", "an instrument", "instrument:$BTC", rest(1.0, 2_990.0, what="ETH")),
    _scope("venue", "a venue", "venue:XTFA", rest(1.0, 149.0, what="SOL")),
    _scope("strategy", "a strategy", "strategy:$A", rest(by="B")),
    _scope("bucket", "a bucket", "bucket:coins", rest(1.0, 2_990.0, what="ETH")),
    Row(
        key="kill-restart", control="A kill outlives a restart of the gate", serves=(*KILL, *REPEATED),
        tried="Kill; the gate is stopped, reset and started; a legal order",
        limits=WIDE, steps=(rest(), Kill(wants=("canceled",)), Disarm(again=True), bad("KILLED")),
    ),
    Row(
        key="rearm", control="Rearming needs a name and a reason", path="person",
        serves=("RTS 6 Art. 15(3)", "RTS 6 Art. 15(6)"),
        tried="Two switches; rearm without a reason, one that is not on, one of two, then both",
        limits=WIDE,
        steps=(
            Kill(name="desk"), Kill(name="risk", reason="review"), Rearm(reason="", wants=("refused",)),
            Rearm(name="nobody", wants=("refused",)), Rearm(name="desk", wants=("done",)), bad("KILLED"),
            Rearm(name="risk", wants=("done",)), rest(),
        ),
    ),
)  # fmt: skip

# ---- flow ------------------------------------------------------------------------------------------------------------

FLOW = (
    Row(
        key="order-rate", control="Order rate", serves=MESSAGES,
        tried="A third order that adds risk, 3 in an hour of which one is kept for orders that reduce",
        limits={"max_order_rate": "3/1h", "rate_reserve": 1},
        steps=(buy(1.0), rest(), bad("MAX_ORDER_RATE"), sell(1.0), bad("MAX_ORDER_RATE", price=49_700.0)),
    ),
    Row(
        key="message-rate", control="Message rate", serves=MESSAGES, path="modification",
        tried="An order and two modifications, 3 messages in an hour of which one is kept; a cancel still passes",
        limits={"max_message_rate": "3/1h", "rate_reserve": 1},
        steps=(
            rest(), Modify(price=49_800.0, wants=("changed",)),
            Modify(price=49_700.0, wants=(rejected_change("MAX_MESSAGE_RATE"),)), Cancel(wants=("canceled",)),
        ),
    ),
    Row(
        key="duplicate", control="Duplicate order", serves=ERRONEOUS,
        tried="The same order twice within an hour",
        limits=WIDE | {"duplicate_window": "1h"},
        steps=(rest(), bad("DUPLICATE_ORDER", price=49_900.0), rest(price=49_850.0)),
    ),
    Row(
        key="repeats", control="Repeated execution, with kill", serves=REPEATED,
        tried="Three buys in a row are filled, at most two; a fourth; after a person has looked, another one",
        limits=WIDE | {"max_repeated_executions": 2, "repeat_window": "1h"},
        steps=(
            buy(0.1), buy(0.1), buy(0.1), bad("KILLED"), rest(by="B"),
            Rearm(name="repeated-executions:$A", reason="", wants=("refused",), shown=False),
            Rearm(name="repeated-executions:$A", wants=("done",)), rest(),
        ),
    ),
    Row(
        key="rejects", control="Rejects in a row, with kill", serves=REPEATED,
        tried="The venue rejects two orders in a row, at most one; a legal order after it",
        limits=WIDE | {"max_rejects": 2},
        steps=(
            *(Send(quantity=0.1, price=50_010.0 + i, post_only=True, wants=("rejected by the venue",))
              for i in range(2)),
            bad("KILLED"), rest(by="B"), Rearm(name="rejects:$A", wants=("done",)), rest(),
        ),
    ),
    Row(
        key="self-trade", control="Self-trade", serves=("MAR Art. 12", "FINRA rule 5210"),
        tried="Buy at 50,010 while an own sell order rests there",
        limits=WIDE | {"self_trade": "deny"},
        steps=(
            rest(0.1, 50_010.0, side="sell"), bad("SELF_TRADE", price=50_010.0, by="B"), rest(by="B"),
        ),
    ),
)  # fmt: skip

# ---- where and when --------------------------------------------------------------------------------------------------

WHERE = (
    Row(
        key="halted", control="Halted instrument", serves=RULES,
        tried="Buy while the venue has halted the instrument",
        limits=WIDE,
        steps=(
            Status(trading=False), bad("INSTRUMENT_HALTED"), rest(0.1, 2_990.0, what="ETH"), Status(trading=True),
            rest(),
        ),
    ),
    Row(
        key="window", control="Outside the trading window", serves=GOOD,
        tried="Buy BTC, whose hours begin in six hours; ETH is open",
        limits=WIDE | {"window": (Hours("BTC", 6.0, 7.0), Hours("ETH", -1.0, 1.0))},
        steps=(rest(0.1, 2_990.0, what="ETH"), bad("OUTSIDE_TRADING_WINDOW")),
    ),
    Row(
        key="allow", control="Instruments that are allowed", serves=RESTRICTED,
        tried="Buy ETH where BTC alone is allowed",
        limits=WIDE | {"allow": ("$BTC",)},
        steps=(rest(), bad("INSTRUMENT_NOT_ALLOWED", what="ETH", price=2_990.0)),
    ),
    Row(
        key="deny", control="Instruments that are denied", serves=RESTRICTED,
        tried="Buy ETH, which is denied",
        limits=WIDE | {"deny": ("$ETH",)},
        steps=(rest(), bad("INSTRUMENT_NOT_ALLOWED", what="ETH", price=2_990.0)),
    ),
)  # fmt: skip


def _scoped(where: str, scope: str, other: Send) -> Row:
    return Row(
        key=f"scoped-{where.split()[1]}", control=f"Limit of {where}", serves=SCOPES,
        tried=f"1 BTC held; 1 more, gross exposure of {scope.replace('$', '')} at most 75,000; the same elsewhere",
        limits={"scoped": ({"scope": scope, "measure": "gross_exposure", "limit": 75_000.0},)},
        config={"buckets": {"$BTC": "coins"}}, instruments=("SOL",),
        steps=(
            Quote(what="SOL", bid=150.0, ask=150.05), buy(1.0), bad("MAX_GROSS_EXPOSURE", quantity=1.0), other,
        ),
    )  # fmt: skip


SCOPED = (
    _scoped("a venue", "venue:XTFA", buy(400.0, "SOL")),
    _scoped("an instrument", "instrument:$BTC", buy(20.0, "ETH")),
    _scoped("a strategy", "strategy:$A", buy(1.0, by="B")),
    _scoped("a bucket", "bucket:coins", buy(20.0, "ETH")),
)

# ---- the model -------------------------------------------------------------------------------------------------------


def _health(key: str, control: str, limits: dict[str, Any], code: str, sick: Health, tried: str) -> Row:
    return Row(
        key=f"model-{key}", control=f"Model health: {control}", serves=GOOD, tried=tried, limits=WIDE | limits,
        steps=(Health(), rest(), sick, bad(code)),
    )  # fmt: skip


MODEL = (
    _health("rung", "rung of the fallbacks", {"max_rung": 1}, "MODEL_RUNG", Health(rung=2.0),
            "Buy while the model has fallen back to rung 2, highest 1"),
    _health("ood", "out of distribution", {"max_out_of_distribution": 3.0}, "MODEL_OUT_OF_DISTRIBUTION",
            Health(out_of_distribution=5.0), "Buy while the input is 5 away from what the model knows, at most 3"),
    _health("confidence", "confidence", {"min_confidence": 0.6}, "MODEL_CONFIDENCE", Health(confidence=0.4),
            "Buy with a confidence of 0.4, at least 0.6"),
    _health("nan", "confidence that is not a number", {"min_confidence": 0.6}, "MODEL_CONFIDENCE",
            Health(confidence=float("nan")), "Buy while the model's confidence is not a number"),
    _health("age", "age of the signal", {"max_signal_age": "60s"}, "MODEL_SIGNAL_AGE", Health(age=3_600.0),
            "Buy on a signal that is an hour old, at most a minute"),
    Row(
        key="model-missing", control="Model health: none is told", serves=GOOD,
        tried="Buy by a strategy that says nothing of its model",
        limits=WIDE | {"max_rung": 1}, steps=(Health(), rest(), bad("MISSING_MODEL_HEALTH", by="B")),
    ),
)  # fmt: skip
