"""The market, the strategies and the gate that a row of the control evidence is played with.

The script is cued by quotes of an instrument of its own, the tape, in which nothing is traded. So the same steps happen
in the same sequence whoever brings the data: a backtest, or a live node.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from nautilus_trader.config import StrategyConfig
from nautilus_trader.model.data import InstrumentStatus, QuoteTick, TradeTick
from nautilus_trader.model.enums import (
    AggressorSide,
    AssetClass,
    MarketStatusAction,
    OrderSide,
    OrderType,
    TriggerType,
)
from nautilus_trader.model.identifiers import ExecAlgorithmId, InstrumentId, Symbol, TradeId
from nautilus_trader.model.instruments import BinaryOption, CryptoPerpetual, Instrument
from nautilus_trader.model.objects import Currency, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

from tengri_fast.errors import ConfigurationError
from tengri_fast.nautilus import evidence_steps as steps
from tengri_fast.nautilus.drill import DRILL_ALGORITHM, DRILL_TAG
from tengri_fast.nautilus.gate import NeuralRiskGate
from tengri_fast.nautilus.gate_config import RiskGateConfig
from tengri_fast.nautilus.gate_inputs import AuditSettings
from tengri_fast.risk import OrderView, RiskLimits, ScenarioSet, ScopedLimit, VarSettings
from tengri_fast.risk.audit import verify
from tengri_fast.risk.windows import Day, TradingWindow

__all__ = ["CUES", "MAIN_VENUE", "Scene", "Seen", "instruments"]

MAIN_VENUE = "XTFA"
SECOND = 1_000_000_000
#: Quotes of the tape for each step: its beginning, and two in which what it set off can come back.
CUES = 3

_ALL_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HORIZON = "60s"
_SCENARIOS = 500
_CODE = re.compile(r"TENGRI_RISK:([A-Z_]+)")
_NAME = re.compile(r"\$([A-Z]+)")
_STRATEGIES = ("A", "B")

_WORDS = {
    "OrderDenied": "denied",
    "OrderModifyRejected": "change refused",
    "OrderRejected": "rejected by the venue",
    "OrderAccepted": "accepted",
    "OrderFilled": "filled",
    "OrderCanceled": "canceled",
    "OrderUpdated": "changed",
    "OrderExpired": "expired",
    "OrderCancelRejected": "cancel rejected",
}


@dataclass(frozen=True)
class Seen:
    """Something that came back.

    Attributes
    ----------
    event : str
        Kind of the event; "Verdict", "done" or the name of an exception where there is no order.
    reason : str
        Its text, empty when it has none.
    word : str
        What a step compares with its `wants`.
    """

    event: str
    reason: str
    word: str


def instruments(extra: tuple[str, ...] = ()) -> dict[str, Instrument]:
    """The instruments of the evidence by their short names; BTC, ETH, the tape, and those asked for."""
    return {name: _INSTRUMENTS[name]() for name in ("BTC", "ETH", *extra, "TAPE")}


def _perpetual(base: str, quote: str, tick: str, lot: str, venue: str = MAIN_VENUE) -> CryptoPerpetual:
    symbol = Symbol(f"{base}{quote}-PERP")
    increment, size = Price.from_str(tick), Quantity.from_str(lot)
    return CryptoPerpetual(
        instrument_id=InstrumentId.from_str(f"{symbol}.{venue}"),
        raw_symbol=symbol,
        base_currency=Currency.from_str(base),
        quote_currency=Currency.from_str(quote),
        settlement_currency=Currency.from_str(quote),
        is_inverse=False,
        price_precision=increment.precision,
        size_precision=size.precision,
        price_increment=increment,
        size_increment=size,
        ts_event=0,
        ts_init=0,
        max_quantity=Quantity.from_str(f"{500:.{size.precision}f}"),
        min_quantity=Quantity.from_str(f"{Decimal(lot) * 2:.{size.precision}f}"),
        margin_init=Decimal("0.05"),
        margin_maint=Decimal("0.025"),
        maker_fee=Decimal(0),
        taker_fee=Decimal(0),
    )


def _binary() -> BinaryOption:
    symbol = Symbol("RAIN-YES")
    return BinaryOption(
        instrument_id=InstrumentId.from_str(f"{symbol}.{MAIN_VENUE}"),
        raw_symbol=symbol,
        asset_class=AssetClass.ALTERNATIVE,
        currency=Currency.from_str("USDT"),
        price_precision=2,
        size_precision=0,
        price_increment=Price.from_str("0.01"),
        size_increment=Quantity.from_int(1),
        activation_ns=0,
        expiration_ns=4_000_000_000 * SECOND,
        ts_event=0,
        ts_init=0,
        outcome="Yes",
    )


_INSTRUMENTS: dict[str, Callable[[], Instrument]] = {
    "BTC": lambda: _perpetual("BTC", "USDT", "0.5", "0.005"),
    "ETH": lambda: _perpetual("ETH", "USDT", "0.05", "0.05"),
    "SOL": lambda: _perpetual("SOL", "USDT", "0.05", "0.1", "XTFB"),
    "EUR": lambda: _perpetual("ADA", "EUR", "0.0005", "1"),
    "YES": _binary,
    "TAPE": lambda: _perpetual("XRP", "USDT", "0.0001", "1"),
}


class _Health:
    """What the model of a strategy says of itself; the values of the last step."""

    def __init__(self) -> None:
        self.said = steps.Health()
        self.ts = 0

    @property
    def rung(self) -> float:
        if self.said.fails:
            raise RuntimeError("the model does not answer")
        return self.said.rung

    @property
    def out_of_distribution(self) -> float:
        return self.said.out_of_distribution

    @property
    def confidence(self) -> float:
        return self.said.confidence


class _Script(Strategy):
    """Sends the orders of one strategy; the first of them also hears the cues."""

    def __init__(self, tag: str, scene: Scene) -> None:
        super().__init__(StrategyConfig(strategy_id="EVIDENCE", order_id_tag=tag))
        self._scene = scene
        self._leads = tag == _STRATEGIES[0]

    def on_start(self) -> None:
        if self._leads:
            self.subscribe_quote_ticks(self._scene.instruments["TAPE"].id)

    def on_quote_tick(self, tick: QuoteTick) -> None:
        self._scene.cue()

    def on_order_event(self, event: Any) -> None:
        self._scene.hear(event)

    def order(self, send: steps.Send, instrument: Instrument) -> Any:
        """The order, or the orders of a bracket, of a step."""
        factory = self.order_factory
        side = OrderSide.BUY if send.side == "buy" else OrderSide.SELL
        # Not rounded: what is off the grid must reach the gate as it is.
        quantity = Quantity(send.quantity, instrument.size_precision)
        price = None if send.price is None else Price(send.price, instrument.price_precision)
        more: dict[str, Any] = {"tags": [DRILL_TAG]}
        if send.kind == "bracket":
            assert price is not None
            step = Decimal("0.01") * price.as_decimal()
            away = [instrument.make_price(round(price.as_decimal() + sign * step)) for sign in (1, -1)]
            return factory.bracket(
                instrument.id, side, quantity, entry_order_type=OrderType.LIMIT, entry_price=price, tp_price=away[0],
                sl_trigger_price=away[1], entry_tags=[DRILL_TAG], tp_tags=[DRILL_TAG], sl_tags=[DRILL_TAG],
            )  # fmt: skip
        if send.kind == "algorithm":
            more["exec_algorithm_id"] = ExecAlgorithmId(DRILL_ALGORITHM)
        if send.kind.startswith("emulated"):
            more["emulation_trigger"] = TriggerType.BID_ASK
        if send.reduce_only:
            more["reduce_only"] = True
        if price is None:
            return factory.market(instrument.id, side, quantity, **more)
        if send.post_only:
            more["post_only"] = True
        if send.trigger is not None:
            trigger = Price(send.trigger, instrument.price_precision)
            return factory.stop_limit(instrument.id, side, quantity, price, trigger, **more)
        return factory.limit(instrument.id, side, quantity, price, **more)


class Scene:
    """One row on its way through one engine.

    Parameters
    ----------
    row : Row
        What is played.
    now : int
        Time at which it begins, UTC ns.
    folder : Path
        For files of the gate.

    Attributes
    ----------
    gate : NeuralRiskGate
        A gate of its own, with the limits of the row.
    scripts : dict of str to Strategy
        Strategies A and B.
    instruments : dict of str to Instrument
        By short name.
    seen : list of list
        What came back: (who, :class:`Seen`) by step, those before the first step left out.
    heard : list of list of str
        What the gate told people, by step.
    problems : list of str
        What went wrong while playing.
    """

    def __init__(self, row: steps.Row, now: int, folder: Path) -> None:
        self.row = row
        self._log = folder / "audit.log"
        self.now = now
        self.instruments = instruments(row.instruments)
        opening: tuple[steps.Step, ...] = _OPENING if row.opening else ()
        self.steps = (*opening, *row.steps)
        self.seen: list[list[tuple[str, Seen]]] = [[] for _ in self.steps]
        self.heard: list[list[str]] = [[] for _ in self.steps]
        self.problems: list[str] = []
        self.scripts = {tag: _Script(tag, self) for tag in _STRATEGIES}
        self.gate = self._make_gate()
        self.gate.alert = self._on_alert
        self._cues = 0
        self._health: _Health | None = None
        self._sent: Any = None
        self._asked = 0

    # ---- making --------------------------------------------------------------------------------------------------

    def _make_gate(self) -> NeuralRiskGate:
        followed = [instrument.id for instrument in self.instruments.values()]
        config = {key: self._named(value) for key, value in self.row.config.items()}
        gate = NeuralRiskGate(
            RiskGateConfig(
                limits=self.limits(self.row.limits),
                var=VarSettings(horizon=_HORIZON, scenarios=_SCENARIOS, base_currency="USDT"),
                instrument_ids=tuple(followed),
                kill_poll_ms=0,
                audit=AuditSettings(path=str(self._log), sync="none") if self.row.audit else None,
                **config,
            )
        )
        names = [instrument_id.value for instrument_id in followed]
        if self.row.scenarios:
            returns = np.random.default_rng(5).normal(0.0, 0.02, (len(names), _SCENARIOS))
            source = {"source": "drawn for the control evidence"}
            gate.load_scenarios(ScenarioSet(tuple(names), returns.astype(np.float32), 60 * SECOND, source))
        if self.row.stress:
            gate.load_stress(("all down 30 %", "all up 30 %"), names, np.tile([-0.3, 0.3], (len(names), 1)))
        return gate

    def limits(self, fields: Mapping[str, Any]) -> RiskLimits:
        """Limits of a row or a step; what they name, and times, are put in."""
        made = {key: self._named(value) for key, value in fields.items()}
        if "scoped" in made:
            made["scoped"] = tuple(ScopedLimit(**each) for each in made["scoped"])
        if "window" in made:
            made["window"] = tuple(self._window(each) for each in made["window"])
        if "max_daily_loss" in made:
            # Half a day away, so that no trading day begins while the row is played.
            made["day_boundary"] = self._clock(12.0)[:5]
        return RiskLimits(**made)

    def _window(self, hours: steps.Hours) -> TradingWindow:
        return TradingWindow(
            instrument=self.instruments[hours.what].id.value,
            days=_ALL_DAYS,
            opens=self._clock(hours.opens_in),
            closes=self._clock(hours.closes_in),
        )

    def _clock(self, hours: float) -> str:
        moment = datetime.datetime.fromtimestamp(self.now // SECOND, datetime.UTC) + datetime.timedelta(hours=hours)
        return f"{moment:%H:%M:%S}"

    def _named(self, value: Any) -> Any:
        """Put the names in: ``$BTC`` is an instrument, ``$A`` a strategy."""
        if isinstance(value, str):
            return _NAME.sub(lambda match: self._name(match[1]), value)
        if isinstance(value, Mapping):
            return {self._named(key): self._named(each) for key, each in value.items()}
        if isinstance(value, tuple):
            return tuple(self._named(each) for each in value)
        return value

    def _name(self, name: str) -> str:
        return str(self.scripts[name].id if name in self.scripts else self.instruments[name].id)

    # ---- market data ---------------------------------------------------------------------------------------------

    def tape(self, now: int) -> QuoteTick:
        """A cue."""
        return self._quote(steps.Quote(what="TAPE", bid=1.0, ask=1.0001), now)

    def data(self, number: int, now: int) -> Iterator[Any]:
        """What the market says in a step, nothing in most."""
        step = self.steps[number]
        if isinstance(step, steps.Quote):
            yield self._quote(step, now)
        elif isinstance(step, steps.Trade):
            instrument = self.instruments[step.what]
            yield TradeTick(
                instrument.id, instrument.make_price(step.price), instrument.make_qty(1), AggressorSide.BUYER,
                TradeId(f"T-{number}"), now, now,
            )  # fmt: skip
        elif isinstance(step, steps.Status):
            action = MarketStatusAction.TRADING if step.trading else MarketStatusAction.HALT
            reason = "" if step.trading else "drill"
            yield InstrumentStatus(self.instruments[step.what].id, action, now, now, reason, "", step.trading)

    def _quote(self, step: steps.Quote, now: int) -> QuoteTick:
        instrument = self.instruments[step.what]
        size = instrument.make_qty(1_000)
        return QuoteTick(
            instrument.id, instrument.make_price(step.bid), instrument.make_price(step.ask), size, size,
            now - int(step.age * SECOND), now,
        )  # fmt: skip

    # ---- playing -------------------------------------------------------------------------------------------------

    @property
    def _at(self) -> int:
        """The step that is being played."""
        return min((self._cues - 1) // CUES, len(self.steps) - 1)

    def cue(self) -> None:
        """The tape has moved: a step begins, or goes on."""
        self._cues += 1
        if (self._cues - 1) % CUES or self._cues > CUES * len(self.steps):
            return
        try:
            self._play(self.steps[self._at])
        except Exception as error:
            self.problems.append(f"step {self._at + 1}: {type(error).__name__}: {error}")

    @property
    def finished(self) -> bool:
        """Whether every step had all its cues."""
        return self._cues >= CUES * len(self.steps)

    def _play(self, step: steps.Step) -> None:
        lead = self.scripts[_STRATEGIES[0]]
        match step:
            case steps.Send():
                script = self.scripts[step.by]
                self._sent = script.order(step, self.instruments[step.what])
                if step.kind == "bracket":
                    script.submit_order_list(self._sent)
                else:
                    script.submit_order(self._sent)
            case steps.Modify():
                instrument = lead.cache.instrument(self._sent.instrument_id)
                lead.modify_order(
                    self._sent,
                    quantity=None if step.quantity is None else Quantity(step.quantity, instrument.size_precision),
                    price=None if step.price is None else Price(step.price, instrument.price_precision),
                )
            case steps.Cancel():
                lead.cancel_order(self._sent)
            case steps.Kill():
                self.gate.kill(step.name, step.reason, self._named(step.scope))
            case steps.Rearm():
                self._try(lambda: self.gate.rearm(self._named(step.name), step.reason))
            case steps.Reload():
                self._try(lambda: self.gate.reload_limits(self.limits(step.limits), step.name, step.reason))
            case steps.Health():
                if self._health is None:
                    self._health = _Health()
                    self.gate.register_health(lead.id.value, self._health)
                self._health.said = step
                self._health.ts = lead.clock.timestamp_ns() - int(step.age * SECOND)
            case steps.Hold():
                instrument_id = self.instruments[step.what].id
                self.gate.state.set_position(
                    instrument_id.value, step.quantity, account_id=f"{instrument_id.venue}-001",
                    strategy_id=lead.id.value,
                )  # fmt: skip
            case steps.Disarm():
                self.gate.stop()
                self.gate.reset()
                if step.again:
                    self.gate.start()
            case steps.Verify():
                self._verify(step)
            case steps.Ask():
                self._ask(step)

    def _try(self, attempt: Any) -> None:
        """Something a person does, which may be refused."""
        try:
            attempt()
        except ConfigurationError as error:
            self._note("", Seen(type(error).__name__, str(error), "refused"))
        else:
            self._note("", Seen("done", "", "done"))

    def _ask(self, step: steps.Ask) -> None:
        lead = self.scripts[_STRATEGIES[0]]
        self._asked += 1
        fields: dict[str, Any] = {
            "client_order_id": f"asked-{self._asked}",
            "strategy_id": lead.id.value,
            "account_id": f"{MAIN_VENUE}-001",
            "instrument_id": self.instruments["BTC"].id.value,
            "quantity": 0.1,
            "price": 49_900.0,
            "order_type": "LIMIT",
            "ts": lead.clock.timestamp_ns(),
        }
        if step.fault:
            self.gate.state.on_fill("NOBODY.KNOWS", 1.0, 1.0)
        verdict = self.gate.gate.check(OrderView(**(fields | dict(step.order))))
        reason = verdict.text()
        word = "accepted" if verdict.allowed else _coded("denied", reason)
        self._note("", Seen("Verdict", reason or "allowed", word))

    def _verify(self, step: steps.Verify) -> None:
        path = self._log
        if step.changed:
            path = self._log.with_suffix(".changed")
            data = bytearray(self._log.read_bytes())
            # In the middle of the first decision that was refused.
            data[data.index(b"TENGRI_RISK:") + 12] ^= 1
            path.write_bytes(data)
        found = verify(path)
        word = f"{'sound' if found.sound else 'not sound'}, {found.decisions} decisions, {found.denied} refused"
        self._note("", Seen("Audit log", word, word))

    # ---- hearing -------------------------------------------------------------------------------------------------

    def hear(self, event: Any) -> None:
        """An order of a strategy has an event."""
        kind = type(event).__name__
        word = _WORDS.get(kind)
        if word is None:
            return
        reason = getattr(event, "reason", None) or ""
        if word in ("denied", "change refused"):
            word = _coded(word, reason)
        self._note(event.client_order_id.value, Seen(kind, reason, word))

    def _note(self, who: str, seen: Seen) -> None:
        if self._cues == 0:
            self.problems.append(f"before the first step: {seen.event} {seen.reason}")
            return
        self.seen[self._at].append((who, seen))

    def _on_alert(self, text: str) -> None:
        if self._cues:
            self.heard[self._at].append(text)


def _coded(word: str, reason: str) -> str:
    codes = sorted(set(_CODE.findall(reason)))
    return f"{word} {'+'.join(codes)}" if codes else f"{word} by Nautilus: {reason}"


_OPENING = (
    steps.Quote(what="BTC", bid=50_000.0, ask=50_001.0),
    steps.Quote(what="ETH", bid=3_000.0, ask=3_000.5),
)
