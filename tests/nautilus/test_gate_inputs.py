"""What the gate tells the rules beside orders: statuses, trades, buckets, answers of venues, losses, model health."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

from gate_play import BUY, NAME, SELL, make_gate, play
from gate_scene import INSTRUMENT, START, STEP, Script, make_engine, quotes, run
from nautilus_trader.model.data import InstrumentClose, InstrumentStatus, TradeTick
from nautilus_trader.model.enums import AggressorSide, InstrumentCloseType, MarketStatusAction
from nautilus_trader.model.identifiers import TradeId
from nautilus_trader.model.objects import Price

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus.gate import RiskGateConfig
from tengri_fast.nautilus.gate_health import HEALTH
from tengri_fast.risk import RiskLimits, Violation
from tengri_fast.risk.limits import ScopedLimit

OTHER = "OTHER"


def denials(script: Script) -> list[str]:
    """The first rule of each denial."""
    return [event.reason.split(":")[1].split()[0] for event in script.events("OrderDenied")]


def merged(*streams: list[Any]) -> list[Any]:
    return sorted((event for stream in streams for event in stream), key=lambda event: event.ts_init)


def status(second: float, action: MarketStatusAction, **more: Any) -> InstrumentStatus:
    ts = START + int(second * STEP)
    return InstrumentStatus(INSTRUMENT.id, action, ts, ts, **more)


def trade(second: float, price: float) -> TradeTick:
    ts = START + int(second * STEP)
    return TradeTick(INSTRUMENT.id, INSTRUMENT.make_price(price), INSTRUMENT.make_qty(1), AggressorSide.BUYER,
                     TradeId(f"T{second}"), ts, ts)  # fmt: skip


def buy_at(*seconds: int) -> dict[int, Any]:
    return {second: lambda s, t: s.market(BUY, 1) for second in seconds}


# -- statuses ---------------------------------------------------------------------------------------------------------


def test_a_halted_instrument_may_only_be_closed() -> None:
    gate = make_gate(max_position=10.0)
    script = Script(buy_at(3, 6, 12) | {7: lambda s, t: s.market(SELL, 0.5)})
    data = merged(quotes(20), [status(4.5, MarketStatusAction.HALT, reason="news"),
                               status(5.5, MarketStatusAction.NONE),
                               status(10.5, MarketStatusAction.TRADING)])  # fmt: skip
    play(script, gate, data=data)
    assert denials(script) == ["INSTRUMENT_HALTED"]
    assert gate.state.position(NAME) == 1.5


def test_what_a_status_says_outright_counts_more_than_its_name() -> None:
    gate = make_gate(max_position=10.0)
    script = Script(buy_at(6, 8))
    data = merged(quotes(20), [status(4.5, MarketStatusAction.CROSS, is_trading=True),
                               status(6.5, MarketStatusAction.TRADING, is_trading=False)])  # fmt: skip
    play(script, gate, data=data)
    assert denials(script) == ["INSTRUMENT_HALTED"]
    assert gate.state.position(NAME) == 1.0


@pytest.mark.parametrize("kind", [InstrumentCloseType.END_OF_SESSION, InstrumentCloseType.CONTRACT_EXPIRED])
def test_only_the_end_of_a_contract_halts_it(kind: InstrumentCloseType) -> None:
    gate = make_gate(max_position=10.0)
    script = Script(buy_at(6))
    ts = START + 5 * STEP - 1
    close = InstrumentClose(INSTRUMENT.id, INSTRUMENT.make_price(50_000), kind, ts, ts)
    script.actions[5] = lambda s, t: gate.handle_instrument_close(close)
    play(script, gate)
    expired = kind == InstrumentCloseType.CONTRACT_EXPIRED
    assert denials(script) == (["INSTRUMENT_HALTED"] if expired else [])


def test_a_gate_that_does_not_ask_hears_what_others_ask_for() -> None:
    gate = make_gate(max_position=10.0, ask_status=False)
    script = Script(buy_at(6))
    script.actions[2] = lambda s, t: s.subscribe_instrument_status(INSTRUMENT.id)
    play(script, gate, data=merged(quotes(20), [status(4.5, MarketStatusAction.SUSPEND)]))
    assert denials(script) == ["INSTRUMENT_HALTED"]


# -- prices -----------------------------------------------------------------------------------------------------------


def test_a_collar_around_the_last_trade() -> None:
    gate = make_gate(price_collar_bps=100.0, collar_reference="last", prices=("quotes", "trades"))
    script = Script({
        3: lambda s, t: s.limit(BUY, 1, 50_000),
        6: lambda s, t: s.limit(BUY, 1, 50_000),
        9: lambda s, t: s.limit(BUY, 1, 48_000),
    })  # fmt: skip
    data = merged(quotes(20), [trade(1.5, 50_000.0), trade(4.5, 48_000.0)])
    play(script, gate, data=data)
    assert denials(script) == ["PRICE_COLLAR"]
    assert [float(event.reason.split("value=")[1].split()[0]) for event in script.events("OrderDenied")] == [
        pytest.approx(2_000 / 48_000 * 1e4)
    ]


def test_limits_whose_prices_are_not_followed_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"`prices` must name trades when `limits\.collar"):
        make_gate(price_collar_bps=100.0, collar_reference="last")
    with pytest.raises(ConfigurationError, match=r"`var` must be given when `limits\.max_portfolio_es`"):
        make_gate(max_portfolio_es=0.1)


def test_a_collar_over_a_window_sees_prices_between_two_orders() -> None:
    gate = make_gate(price_collar_bps=100.0, collar_window="1m")
    # The market jumps by 4 % for one second; an order at the new price is far from where it was a moment ago.
    jump = [q for q in quotes(20, price=52_000.0) if q.ts_init == START + 8 * STEP]
    data = merged([q for q in quotes(20) if q.ts_init != START + 8 * STEP], jump)
    script = Script({8: lambda s, t: s.limit(BUY, 1, 52_000), 10: lambda s, t: s.limit(SELL, 1, 50_001)})
    play(script, gate, data=data)
    assert denials(script) == ["PRICE_COLLAR_WINDOW", "PRICE_COLLAR_WINDOW"]


# -- scopes -----------------------------------------------------------------------------------------------------------


def scoped(scope: str, measure: Any, limit: Any) -> tuple[ScopedLimit, ...]:
    return (ScopedLimit(scope=scope, measure=measure, limit=limit),)


@pytest.mark.parametrize("scope", ["venue:BINANCE", "bucket:coins", "strategy:Script-001-001", f"instrument:{NAME}"])
@pytest.mark.parametrize("applies", [True, False])
def test_limits_of_parts_of_the_portfolio(scope: str, applies: bool) -> None:
    if not applies:
        scope = scope.partition(":")[0] + ":" + OTHER
    limits = {"max_position": 100.0, "scoped": scoped(scope, "gross_exposure", 75_000.0)}
    gate = make_gate(buckets={"*": "coins"}, **limits)
    script = Script(buy_at(3, 6))
    play(script, gate)
    assert denials(script) == (["MAX_GROSS_EXPOSURE"] if applies else [])


def test_margin_rates_are_those_of_the_instruments() -> None:
    rate = float(INSTRUMENT.margin_init)
    assert rate == 0.05
    # 100 units at 50,000 need 250,000: a quarter of the equity.
    gate = make_gate(max_margin_use=0.26)
    script = Script({3: lambda s, t: s.market(BUY, 100), 6: lambda s, t: s.market(BUY, 5)})
    play(script, gate)
    assert denials(script) == ["MAX_MARGIN_USE"]


def test_short_sales_can_be_forbidden() -> None:
    gate = make_gate(max_position=10.0, short_rules={NAME: "forbidden"})
    script = Script({
        3: lambda s, t: s.market(SELL, 1),
        5: lambda s, t: s.market(BUY, 1),
        7: lambda s, t: s.market(SELL, 1),
    })  # fmt: skip
    play(script, gate)
    assert denials(script) == ["SHORT_SALE"]
    assert gate.state.position(NAME) == 0.0


# -- what venues answer -----------------------------------------------------------------------------------------------


def test_repeated_executions_stop_a_strategy() -> None:
    gate = make_gate(max_position=100.0, max_repeated_executions=2, repeat_window="1m")
    alerts: list[str] = []
    gate.alert = alerts.append
    script = Script(buy_at(3, 4, 5, 6) | {8: lambda s, t: s.market(SELL, 3)})
    play(script, gate)
    assert denials(script) == ["KILLED"]
    assert gate.state.position(NAME) == 0.0
    assert list(gate.kill_scopes.values()) == ["strategy:Script-001-001"]
    assert any("trading was stopped" in text for text in alerts)


def test_rejects_of_the_venue_in_a_row_stop_a_strategy() -> None:
    gate = make_gate(max_position=100.0, max_rejects=2)

    def cross(s: Script, t: Any) -> None:
        s.limit(BUY, 1, 50_010, post_only=True)  # would take: the exchange rejects it

    script = Script({3: cross, 4: lambda s, t: s.market(BUY, 1), 5: cross, 6: cross} | buy_at(8))
    play(script, gate)
    assert len(script.events("OrderRejected")) == 3
    assert denials(script) == ["KILLED"]
    assert gate.state.position(NAME) == 1.0


def test_cancels_and_modifications_are_messages() -> None:
    gate = make_gate(max_position=100.0, max_message_rate="4/1h", rate_reserve=0)

    def rest(s: Script, t: Any) -> None:
        s.keep["order"] = s.limit(BUY, 1, 49_000)

    script = Script({
        3: rest,
        5: lambda s, t: s.modify_order(s.keep["order"], quantity=s.qty(2)),
        7: lambda s, t: s.cancel_order(s.keep["order"]),
        9: lambda s, t: s.market(BUY, 1),
        11: lambda s, t: s.market(BUY, 1),
    })  # fmt: skip
    play(script, gate)
    assert len(script.events("OrderCanceled")) == 1
    assert denials(script) == ["MAX_MESSAGE_RATE"]


# -- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_daily_loss", "max_drawdown"])
def test_a_loss_stops_trading_and_cancels_without_an_order(limit: str) -> None:
    config = RiskGateConfig(limits=RiskLimits(**{limit: 0.01}), kill_poll_ms=100)
    gate = make_gate(max_position=1.0).__class__(config)
    # 10 units held, the price falls by 100 a second: 1 % of a million after ten seconds.
    script = Script({
        2: lambda s, t: s.market(BUY, 10),
        3: lambda s, t: s.limit(BUY, 1, 40_000),
        25: lambda s, t: s.market(BUY, 1),
        27: lambda s, t: s.market(SELL, 10),
    })  # fmt: skip
    play(script, gate, data=quotes(40, drift=-100.0))
    (canceled,) = script.events("OrderCanceled")
    assert START + 10 * STEP <= canceled.ts_event <= START + 16 * STEP
    (denied,) = script.events("OrderDenied")
    assert "TENGRI_RISK:KILLED" in denied.reason
    assert gate.killed
    assert gate.state.position(NAME) == 0.0


# -- health -----------------------------------------------------------------------------------------------------------


class Health:
    strategy_id = "Script-001-001"
    rung = 0
    out_of_distribution = math.nan
    confidence = 0.9
    ts = START


def test_a_model_that_fell_back_may_not_add_risk() -> None:
    gate = make_gate(max_position=10.0, max_rung=1, min_confidence=0.5)
    health = Health()

    def set_health(**values: Any) -> Any:
        return lambda s, t: [setattr(health, name, value) for name, value in values.items()]

    script = Script({
        2: lambda s, t: s.market(BUY, 1),  # nobody has said where its health is read
        3: lambda s, t: s.msgbus.publish(HEALTH, health),
        4: lambda s, t: s.market(BUY, 1),
        5: set_health(rung=4),
        6: lambda s, t: s.market(BUY, 1),
        7: set_health(rung=0, confidence=0.4),
        8: lambda s, t: s.market(BUY, 1),
        9: lambda s, t: s.market(SELL, 1),
    })  # fmt: skip
    play(script, gate)
    assert denials(script) == ["MISSING_MODEL_HEALTH", "MODEL_RUNG", "MODEL_CONFIDENCE"]
    assert gate.state.position(NAME) == 0.0


# -- changes at run time ----------------------------------------------------------------------------------------------


def test_limits_are_reloaded_whole_or_not_at_all() -> None:
    gate = make_gate(max_position=2.0)

    def refuse(s: Script, t: Any) -> None:
        with pytest.raises(ConfigurationError, match="`var` must be given"):
            gate.reload_limits(RiskLimits(max_portfolio_var=0.1), "officer", "wider")
        with pytest.raises(ConfigurationError, match="`reason` must say why"):
            gate.reload_limits(RiskLimits(max_position=1.0), "officer", " ")

    script = Script({
        3: lambda s, t: s.market(BUY, 3),
        4: refuse,
        5: lambda s, t: s.market(BUY, 3),
        6: lambda s, t: gate.reload_limits(RiskLimits(max_position=4.0), "officer", "wider"),
        7: lambda s, t: s.market(BUY, 3),
        8: lambda s, t: s.market(BUY, 3),
    })  # fmt: skip
    engine = make_engine(gate, script)
    run(engine)
    assert [event.reason for event in script.events("OrderDenied")] == [
        "TENGRI_RISK:MAX_POSITION value=3 limit=2",
        "TENGRI_RISK:MAX_POSITION value=3 limit=2",
        "TENGRI_RISK:MAX_POSITION value=6 limit=4",
    ]
    assert ("reload", "officer", "wider") in [entry[:3] for entry in gate.gate.history]
    engine.reset()
    script.actions = {3: lambda s, t: s.market(BUY, 3)}
    run(engine)
    assert denials(script) == []  # a reload outlives a reset
    assert gate.limits.max_position == 4.0


@pytest.mark.parametrize(("scope", "stops"), [("strategy:Script-A-A", "A"), (f"instrument:{NAME}", "AB"),
                                              ("venue:BINANCE", "AB"), ("bucket:coins", "AB"),
                                              ("venue:OTHER", "")])  # fmt: skip
def test_a_switch_stops_its_scope_only(scope: str, stops: str) -> None:
    gate = make_gate(max_position=100.0, buckets={NAME: "coins"})
    scripts = [Script({3: lambda s, t: s.limit(BUY, 1, 49_000), 8: lambda s, t: s.market(BUY, 1)}, tag=tag)
               for tag in "AB"]  # fmt: skip
    scripts[0].actions[5] = lambda s, t: gate.kill("operator", "drill", scope)
    play(scripts[0], gate, scripts[1])
    for script in scripts:
        stopped = script.id.value[-1] in stops
        assert denials(script) == (["KILLED"] if stopped else [])
        assert len(script.events("OrderCanceled")) == int(stopped)
    assert gate.kill_scopes == {"operator": scope}


def test_warnings_come_with_the_order_that_caused_them() -> None:
    gate = make_gate(max_position=10.0, warn_at=(0.5, 0.8))
    told: list[tuple[int, str]] = []
    script = Script(
        {3: lambda s, t: s.market(BUY, 4), 5: lambda s, t: s.market(BUY, 2), 7: lambda s, t: s.market(BUY, 3)}
    )
    gate.alert = lambda text: told.append((script.quote_count - 1, text))
    play(script, gate)
    assert denials(script) == []
    assert [second for second, text in told if "MAX_POSITION" in text] == [5, 7]


class OnlyEven:
    """Quantities must be even."""

    code = "ODD"
    kind = "risk"

    def check(self, context: Any) -> Violation | None:
        return Violation("ODD", context.order.quantity) if context.order.quantity % 2 else None


def test_rules_of_the_users_own_are_asked() -> None:
    gate = make_gate(max_position=10.0)
    gate.extra_rules = (OnlyEven(),)

    def resize(quantity: float) -> Any:
        return lambda s, t: s.modify_order(s.cache.orders_open()[0], quantity=s.qty(quantity))

    script = Script(
        {
            3: lambda s, t: s.market(BUY, 3),
            4: lambda s, t: s.market(BUY, 2),
            5: lambda s, t: s.limit(BUY, 2, 49_000),
            6: resize(5),
            7: resize(4),
            8: lambda s, t: s.market(SELL, 1, reduce_only=True),  # takes risk off
        }
    )
    play(script, gate)
    assert denials(script) == ["ODD"]
    assert len(script.events("OrderModifyRejected")) == 1
    assert [float(order.quantity) for order in script.cache.orders_open()] == [4.0]
    assert gate.state.position(NAME) == 1.0


# -- a quote of nobody ------------------------------------------------------------------------------------------------


def test_a_price_that_is_none_does_not_reach_the_rules() -> None:
    gate = make_gate(max_position=10.0, prices=("quotes", "trades"))
    undefined = Price.from_raw((1 << 127) - 1, 0)

    def feed(s: Script, t: Any) -> None:
        size = INSTRUMENT.make_qty(1)
        gate.handle_trade_tick(TradeTick(INSTRUMENT.id, undefined, size, AggressorSide.BUYER, TradeId("1"), 1, 1))

    script = Script({3: feed} | buy_at(4))
    play(script, gate)
    assert denials(script) == []


def test_a_quote_stamped_in_the_future_does_not_shut_out_those_after_it() -> None:
    gate = make_gate(max_position=10.0, stale_quote="2s")
    ticks = quotes(20)
    wrong = ticks[4]
    ticks[4] = type(wrong)(
        wrong.instrument_id, wrong.bid_price, wrong.ask_price, wrong.bid_size, wrong.ask_size,
        wrong.ts_event + 10**18, wrong.ts_init,
    )  # fmt: skip
    script = Script(buy_at(10))
    play(script, gate, data=ticks)
    assert denials(script) == []
    assert len(script.events("OrderFilled")) == 1
