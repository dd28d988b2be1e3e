"""Equity and rates as the gate keeps them, against Nautilus' own figures, in every kind of account."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("nautilus_trader", reason="the adapter needs nautilus_trader==1.231.0")
pytest.importorskip("tengri_fast.nautilus.gate", reason="the adapter's extensions are not built")

from gate_play import BUY, SELL, make_gate
from gate_scene import START, STEP, Script, quotes, run
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import BTC, USD, USDT
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.test_kit.providers import TestInstrumentProvider as Provider

from tengri_fast.nautilus.gate_names import NameTable


def engine(
    gate: Any, script: Script, instruments: list[Any], balances: list[Money], data: list[Any], base: Any = None,
    kind: AccountType = AccountType.CASH, oms: OmsType = OmsType.NETTING,
) -> BacktestEngine:  # fmt: skip
    made = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
    made.add_venue(instruments[0].id.venue, oms, kind, balances, base_currency=base)
    for instrument in instruments:
        made.add_instrument(instrument)
    made.add_data(sorted(data, key=lambda tick: tick.ts_init))
    made.add_actor(gate)
    made.add_strategy(script)
    return made


def mid(tick: QuoteTick) -> float:
    return 0.5 * (tick.bid_price.as_double() + tick.ask_price.as_double())


def test_shares_in_a_cash_account_count_with_their_worth() -> None:
    shares = Provider.equity("AAPL", "NASDAQ")
    gate = make_gate(max_position=1_000.0, base_currency="USD")
    seen = []

    def compare(s: Script, t: QuoteTick) -> None:
        (money,) = s.portfolio.equity(shares.id.venue).values()
        seen.append((gate.equity(), money.as_double()))

    actions = {2: compare, 3: lambda s, t: s.market(BUY, 100), 9: compare, 12: lambda s, t: s.market(SELL, 40)}
    script = Script(actions | {19: compare}, instrument=shares)
    data = quotes(30, price=100.0, spread=0.01, drift=1.0, instrument=shares)
    run(engine(gate, script, [shares], [Money(1_000_000, USD)], data, USD))
    assert len({value for _, value in seen}) == 3
    for ours, theirs in seen:
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_coins_that_are_a_balance_count_once() -> None:
    coin = Provider.btcusdt_binance()
    gate = make_gate(max_position=10.0, base_currency="USDT")
    seen = []

    def look(s: Script, t: QuoteTick) -> None:
        (account,) = s.cache.accounts()
        totals = {currency.code: money.as_double() for currency, money in account.balances_total().items()}
        seen.append((gate.equity(), totals["USDT"] + totals.get("BTC", 0.0) * mid(t)))

    actions = {2: look, 3: lambda s, t: s.market(BUY, 1), 5: look, 12: lambda s, t: s.market(SELL, 0.5), 19: look}
    script = Script(actions, instrument=coin)
    data = quotes(30, drift=10.0, instrument=coin)
    run(engine(gate, script, [coin], [Money(1_000_000, USDT)], data))
    assert len({value for _, value in seen}) == 3
    for ours, expected in seen:
        assert ours == pytest.approx(expected, rel=1e-12)
        assert ours == pytest.approx(1_000_000, rel=2e-3)  # and not the coin on top


@pytest.mark.parametrize("follows", [True, False])
def test_rates_follow_the_prices_they_come_from(follows: bool) -> None:
    """Balances in bitcoin are worth what the pair trades at, whether or not the gate follows the pair itself."""
    coin, perpetual = Provider.btcusdt_binance(), Provider.ethusdt_perp_binance()
    gate = make_gate(max_position=10.0, base_currency="USDT", prices=("quotes",),
                     instrument_ids=(perpetual.id, coin.id) if follows else (perpetual.id,))  # fmt: skip
    seen = []

    def look(s: Script, t: QuoteTick) -> None:
        rate = s.cache.get_xrate(Venue("BINANCE"), BTC, USDT)
        seen.append((gate.equity(), 1_000.0 + 2.0 * rate))

    script = Script({5: look, 9: look, 15: look}, instrument=perpetual)
    data = quotes(20, price=3_000.0, instrument=perpetual) + quotes(20, drift=25.0, instrument=coin)
    balances = [Money(1_000, USDT), Money(2, BTC)]
    run(engine(gate, script, [perpetual, coin], balances, data, kind=AccountType.MARGIN))
    assert len({value for _, value in seen}) == 3
    for ours, theirs in seen:
        assert ours == pytest.approx(theirs, rel=1e-12)
    assert math.isfinite(seen[0][0])


def test_without_a_rate_the_equity_is_not_known() -> None:
    coin, perpetual = Provider.btcusdt_binance(), Provider.ethusdt_perp_binance()
    gate = make_gate(max_leverage=2.0, base_currency="USDT")
    script = Script({5: lambda s, t: s.market(BUY, 1), 15: lambda s, t: s.market(BUY, 1)}, instrument=perpetual)
    late = [tick for tick in quotes(20, instrument=coin) if tick.ts_init >= START + 10 * STEP]
    data = quotes(20, price=3_000.0, instrument=perpetual) + late
    run(engine(gate, script, [perpetual, coin], [Money(10_000, USDT), Money(2, BTC)], data, kind=AccountType.MARGIN))
    (denied,) = script.events("OrderDenied")
    assert "MISSING_EQUITY" in denied.reason
    assert list(script.statuses().values()) == ["DENIED", "FILLED"]


@pytest.mark.parametrize("oms", [OmsType.NETTING, OmsType.HEDGING])
def test_equity_over_several_instruments_stays_that_of_nautilus(oms: OmsType) -> None:
    """Two thousand prices and a hundred orders: what is kept up piece by piece adds up to what is added up anew."""
    first, second = Provider.btcusdt_perp_binance(), Provider.ethusdt_perp_binance()
    rng = np.random.default_rng(3)
    gate = make_gate(max_position=50.0, base_currency="USDT")
    worst = [0.0]

    def act(s: Script, t: QuoteTick) -> None:
        s.instrument = first if rng.random() < 0.5 else second
        s.market(BUY if rng.random() < 0.5 else SELL, float(rng.integers(1, 20)) / 10)

    def compare(s: Script, t: QuoteTick) -> None:
        (money,) = s.portfolio.equity(first.id.venue).values()
        worst[0] = max(worst[0], abs(gate.equity() - money.as_double()))

    actions: dict[int, Any] = dict.fromkeys(range(5, 990, 10), act) | dict.fromkeys(range(8, 990, 10), compare)
    script = Script(actions, instrument=first)
    data = []
    for instrument, price in ((first, 50_000.0), (second, 3_000.0)):
        walk = np.cumsum(rng.normal(0.0, price * 1e-4, 1_000))
        data += [
            QuoteTick(instrument.id, instrument.make_price(price + step), instrument.make_price(price + step + 1.0),
                      tick.bid_size, tick.ask_size, tick.ts_event, tick.ts_init)
            for tick, step in zip(quotes(1_000, instrument=instrument), walk, strict=True)
        ]  # fmt: skip
    run(engine(gate, script, [first, second], [Money(1_000_000, USDT)], data, kind=AccountType.MARGIN, oms=oms))
    assert len(script.events("OrderFilled")) > 50
    assert gate.errors == 0
    assert worst[0] < 1e-5


@given(st.lists(st.tuples(st.sampled_from(["put", "drop"]), st.integers(0, 40)), max_size=300))
def test_the_table_of_names_is_a_dictionary(steps: list[tuple[str, int]]) -> None:
    # Many texts of few letters share a place; deletions move others up.
    texts = [(b"O-" + b"ab"[i % 2 : i % 2 + 1] * (i % 9)) + str(i // 3).encode() for i in range(41)]
    table, model = NameTable(), {}
    for number, (what, which) in enumerate(steps):
        text = texts[which]
        if what == "put":
            table[text] = model[text] = number
        elif text in model:
            del table[text], model[text]
        else:
            with pytest.raises(KeyError):
                del table[text]
    assert len(table) == len(model)
    for text in texts:
        if text in model:
            assert table[text] == model[text]
        else:
            with pytest.raises(KeyError):
                table[text]


def test_a_table_of_names_grows() -> None:
    table = NameTable()
    for number in range(20_000):
        table[f"O-20240719-{number}".encode()] = number
    for number in range(0, 20_000, 2):
        del table[f"O-20240719-{number}".encode()]
    assert len(table) == 10_000
    assert all(table[f"O-20240719-{number}".encode()] == number for number in range(1, 20_000, 2))
