"""A run that is over becomes the record that a report is drawn from.

Everything is taken from what NautilusTrader, the gate and the strategy hold in the end, and is checked where two of
them must agree: the drill against its plan, the fills against the account.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.events import OrderFilled

import tengri_fast
from tengri_fast import _native
from tengri_fast.errors import NeuralIntegrationError
from tengri_fast.market import DepthColumns, QuoteColumns, TradeColumns
from tengri_fast.nautilus.backtest_config import backtest_section, best_prices, data_file, mid_prices
from tengri_fast.nautilus.drill import ControlDrill, DrillStep
from tengri_fast.report import Denial, Latency, RunRecord
from tengri_fast.runtime.durations import format_duration
from tengri_fast.runtime.info import source_commit
from tengri_fast.runtime.model_spec import ModelBundle

if TYPE_CHECKING:
    from tengri_fast.nautilus.backtest import Assembly
    from tengri_fast.report.skill import Skill
    from tengri_fast.runtime.config import TengriConfig

__all__ = ["file_hashes", "make_record"]

_MOST_POINTS = 4_000  # of a curve in the report; a picture shows no more
_BY_SWITCH = "TENGRI_RISK:KILLED"
_QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


def file_hashes(config: TengriConfig) -> dict[str, str]:
    """SHA-256 of every data file that the configuration names, by file name."""
    section = backtest_section(config)
    found: dict[str, str] = {}
    for kind in ("quotes", "trades", "depth"):
        for i, text in enumerate(getattr(section, kind)):
            path = data_file(config, text, f"backtest.{kind}[{i}]")
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if config.risk.scenarios.path is not None:
        path = data_file(config, config.risk.scenarios.path, "risk.scenarios.path")
        found.setdefault(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def make_record(config: TengriConfig, made: Assembly, hashes: dict[str, str]) -> RunRecord:
    """The record of a run of the neural strategy.

    Parameters
    ----------
    config : TengriConfig
        What was run.
    made : Assembly
        After its run, before its engine is disposed of.
    hashes : dict
        From :func:`file_hashes`.

    Raises
    ------
    NeuralIntegrationError
        When the drill failed, or the fills do not add up to the account.
    """
    drill_id = None if made.drill is None else made.drill.id
    fills = made.fills()
    if made.drill is not None:
        _check_drill(made.drill, [event for event in fills if event.strategy_id == drill_id], bool(_kills(made)))
    table = _fill_table(made, [event for event in fills if event.strategy_id != drill_id])
    tops = best_prices(made.data)
    mids = mid_prices(tops)
    good = np.isfinite(mids)
    times, prices = tops.ts_event[good], mids[good]
    equity = _equity_curve(made, table, times, prices)
    signals = made.strategy.signals()
    shown = _thin(len(times))
    denials, denied = _denials(made, drill_id)
    bundle = made.bundle
    assert bundle is not None
    title = config.report.title or f"{config.strategy.strategy_id} on {made.instrument.id}"
    return RunRecord(
        name=config.strategy.strategy_id,
        title=title,
        instrument_id=made.instrument.id.value,
        currency=made.currency.code,
        starting_equity=made.start_balance,
        equity=equity,
        mid={"ts": times[shown], "price": prices[shown]},
        fills=table,
        trades=_round_trips(made, table),
        signals={
            "ts": signals["ts_event"],
            "mid": signals["mid"],
            "p_down": signals["p_down"],
            "p_flat": signals["p_flat"],
            "p_up": signals["p_up"],
            "value_bps": signals["value"],
            "confidence": signals["confidence"],
        },
        skill=_skill(tops, mids, signals, bundle),
        latency=_latency(signals["latency_ns"]),
        submitted=made.engine.cache.orders_total_count() if made.gate is None else int(made.gate.submitted),
        filled=sum(1 for order in made.engine.cache.orders() if order.filled_qty > 0),
        denied=denied,
        denials=denials,
        notes=_notes(config, made),
        span=(made.data.start_ns, made.data.end_ns),
        isa=_native.isa_active(),
        versions=_versions(),
        data_sha256=hashes,
        config_sha256=config.sha256,
        config_text=config.to_toml(),
        model_sha256=bundle.model_sha256,
        model_card=_model_card(bundle),
        assumptions=_assumptions(config, made),
        data_facts=_data_facts(made),
        machine=_machine(),
        seeds={"bootstrap": 0},
        run_seconds=made.run_seconds,
        commit=source_commit(),
    )


def _kills(made: Assembly) -> list[tuple[str, str, str]]:
    """What was done to the gate's kill switches while it ran, in order: "kill" or "rearm", the switch, the reason."""
    history = () if made.gate is None else made.gate.gate.history
    return [(what, name, reason) for what, name, reason, _ in history if what in ("kill", "rearm")]


def _check_drill(drill: ControlDrill, fills: list[OrderFilled], killed: bool) -> None:
    """A drill must end as planned; where the run was killed, whatever the kill itself made of it is no failure."""
    if fills:
        raise NeuralIntegrationError(
            f"the control drill must not trade, but {len(fills)} of its orders were filled: the risk gate let them pass"
        )
    if not drill.finished and not killed:
        raise NeuralIntegrationError(
            f"the control drill must be over before the data end, {drill.left} of its steps were left"
        )
    for step in drill.failures:
        if killed and _cut_short(step):
            continue
        raise NeuralIntegrationError(
            f"the control drill failed: {step.name}: expected {step.orders} x {step.expected}, came back "
            f"{', '.join(step.outcomes) or 'nothing'}"
        )


def _cut_short(step: DrillStep) -> bool:
    """Whether a kill explains what came back: orders refused by the switch alone or canceled, and none let through."""
    refused = any(reason.startswith(_BY_SWITCH) for reason in step.reasons)
    for outcome in step.outcomes:
        if outcome in step.expected.split(" or ") or outcome == "canceled":
            continue
        if not (refused and outcome in ("denied", "modify rejected")):
            return False
    return True


def _fill_table(made: Assembly, fills: list[OrderFilled]) -> dict[str, Any]:
    cache = made.engine.cache
    tags = []
    for event in fills:
        order = cache.order(event.client_order_id)
        tags.append(" ".join(order.tags or ()))
    return {
        "ts": np.array([event.ts_event for event in fills], np.uint64),
        "side": np.array([1 if event.order_side == OrderSide.BUY else -1 for event in fills], np.int8),
        "quantity": np.array([event.last_qty.as_double() for event in fills], np.float64),
        "price": np.array([event.last_px.as_double() for event in fills], np.float64),
        "fee": np.array([event.commission.as_double() for event in fills], np.float64),
        "tag": np.array(tags, np.str_),
    }


def _thin(count: int) -> npt.NDArray[np.intp]:
    """At most so many places of a long column, first and last included."""
    if count <= _MOST_POINTS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, _MOST_POINTS).round().astype(np.intp))


def _equity_curve(
    made: Assembly, fills: dict[str, Any], times: npt.NDArray[np.uint64], mids: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[Any]]:
    """Equity after fees at every fill and at a few thousand quotes, an open position valued at the mid.

    It is added up from the fills and must meet the account in the end.
    """
    multiplier = float(made.instrument.multiplier)
    quantity = fills["side"] * fills["quantity"]
    cash = np.concatenate([[0.0], np.cumsum(-quantity * fills["price"] * multiplier - fills["fee"])])
    # Sums of decimals are off by rounding; whole steps are not.
    step = float(made.instrument.size_increment)
    held = np.concatenate([[0.0], np.rint(np.cumsum(quantity) / step) * step])
    at = np.union1d(times[_thin(len(times))], fills["ts"]).astype(np.uint64)
    if at.size and times.size:
        at = at[at >= times[0]]
    n = np.searchsorted(fills["ts"], at, side="right")
    price = mids[np.maximum(np.searchsorted(times, at, side="right"), 1) - 1]
    value = made.start_balance + cash[n] + held[n] * price * multiplier
    if held[-1] == 0.0:
        account = made.engine.cache.account_for_venue(made.venue)
        balance = account.balance_total(made.currency).as_double()
        # The account rounds each result and each fee to the currency's decimals.
        slack = (2 * len(fills["ts"]) + 1) * 10.0**-made.currency.precision + 1e-9 * abs(balance)
        if abs(value[-1] - balance) > slack:
            raise NeuralIntegrationError(
                f"the fills must add up to the account's balance of {balance}, they make {value[-1]}"
            )
    return {"ts": at, "value": value}


def _round_trips(made: Assembly, fills: dict[str, Any]) -> dict[str, Any]:
    """From flat to flat: average entry and exit prices, results before and after fees."""
    multiplier = float(made.instrument.multiplier)
    step = float(made.instrument.size_increment)
    rows: dict[str, list[Any]] = {
        name: []
        for name in (
            "entry_ts", "entry_price", "exit_ts", "exit_price", "side", "quantity", "gross", "fees", "reason",
        )
    }  # fmt: skip
    held = 0.0
    trip: dict[str, float] = {}

    def enter(ts: int, quantity: float, price: float, fee: float) -> None:
        if not trip:
            trip.update(ts=ts, entered=0.0, paid=0.0, left=0.0, got=0.0, fees=0.0, side=1.0 if quantity > 0.0 else -1.0)
        trip["entered"] += abs(quantity)
        trip["paid"] += abs(quantity) * price
        trip["fees"] += fee

    def leave(ts: int, quantity: float, price: float, fee: float, flat: bool, reason: str) -> None:
        trip["left"] += abs(quantity)
        trip["got"] += abs(quantity) * price
        trip["fees"] += fee
        if not flat:
            return
        rows["entry_ts"].append(int(trip["ts"]))
        rows["entry_price"].append(trip["paid"] / trip["entered"])
        rows["exit_ts"].append(ts)
        rows["exit_price"].append(trip["got"] / trip["left"])
        rows["side"].append(int(trip["side"]))
        rows["quantity"].append(trip["entered"])
        rows["gross"].append(trip["side"] * (trip["got"] - trip["paid"]) * multiplier)
        rows["fees"].append(trip["fees"])
        rows["reason"].append(reason)
        trip.clear()

    columns = (fills[name].tolist() for name in ("ts", "side", "quantity", "price", "fee"))
    for ts, side, size, price, fee in zip(*columns, strict=True):
        quantity = side * size
        reason = "end of run" if ts >= made.close_ns else "signal"
        after = round((held + quantity) / step) * step
        if held * quantity >= 0.0:
            enter(ts, quantity, price, fee)
        elif abs(quantity) <= abs(held) + 0.5 * step:
            leave(ts, quantity, price, fee, after == 0.0, reason)
        else:  # through flat: one fill ends a trip and begins the next, and shares its fee
            part = abs(held) / abs(quantity)
            leave(ts, -held, price, fee * part, True, "reversal")
            enter(ts, after, price, fee * (1.0 - part))
        held = after
    if not rows["entry_ts"]:
        return {}
    return {name: np.array(values) for name, values in rows.items()}


def _denials(made: Assembly, drill_id: Any) -> tuple[list[Denial], dict[str, int]]:
    if made.gate is None:
        return [], {}
    listed = []
    for ts, order_id, strategy_id, violations, kind in made.gate.records:
        first = violations[0]
        text = "; ".join(violation.text() for violation in violations)
        listed.append(
            Denial(
                ts=ts,
                order_id=order_id,
                rule=first.rule,
                value=first.value,
                limit=first.limit,
                reason=f"modification: {text}" if kind == "modify" else text,
                source="drill" if drill_id is not None and strategy_id == drill_id.value else "strategy",
            )
        )
    # Each refused order once, under the rule that is listed with it; the gate itself counts every rule it broke.
    return listed, dict(made.gate.refused)


def _skill(
    tops: QuoteColumns, mids: npt.NDArray[np.float64], signals: dict[str, Any], bundle: ModelBundle
) -> Skill | None:
    """Signals against what the mid did next, on the books where they were made."""
    from tengri_fast.report.skill import align_signals, evaluate

    if bundle.spec.inputs.clock not in ("quote", "depth"):
        return None  # a signal on a trade or a bar belongs to no single book
    probabilities = np.full((len(mids), 3), np.nan)
    row = align_signals(tops.ts_event, signals["ts_event"])
    there = row >= 0
    for column, name in enumerate(("p_down", "p_flat", "p_up")):
        probabilities[there, column] = signals[name][row[there]]
    good = np.isfinite(mids)
    return evaluate(mids[good], tops.bid_size[good], tops.ask_size[good], probabilities[good])


def _latency(nanoseconds: npt.NDArray[np.uint64]) -> Latency | None:
    if not nanoseconds.size:
        return None
    ordered = np.sort(nanoseconds.astype(np.float64))
    # Eight buckets to each factor of two, from the fastest to the slowest.
    low, high = max(ordered[0], 1.0), max(ordered[-1], 2.0)
    edges = np.unique(np.round(2.0 ** np.arange(np.floor(8 * np.log2(low)) / 8, np.log2(high) + 0.25, 0.125), 3))
    edges[0] = min(edges[0], ordered[0])
    counts, _ = np.histogram(ordered, edges)
    last = len(ordered) - 1
    ranks = {name: ordered[min(last, int(np.ceil(q * len(ordered))) - 1)] for name, q in _QUANTILES.items()}
    return Latency(edges, counts.astype(np.uint64), **ranks, max=float(ordered[-1]))


def _notes(config: TengriConfig, made: Assembly) -> list[str]:
    notes = _kill_notes(made)
    notes += [line.strip() for line in (config.report.notes or "").splitlines() if line.strip()]
    if config.policy.threshold_bps < 0:
        notes.append(
            f"policy.threshold_bps is {config.policy.threshold_bps:g}: the strategy trades below its own cost, so that "
            "orders flow and the machinery can be seen. It cannot be expected to make money."
        )
    if made.drill is not None:
        notes.append(_drill_note(made.drill, bool(_kills(made))))
    if made.scenarios is not None:
        settings = made.gate.config.var if made.gate is not None else None
        horizon = "" if settings is None else f" of {format_duration(settings.horizon_ns)}"
        used = made.scenarios.count if settings is None else min(made.scenarios.count, settings.scenarios)
        method = "" if settings is None or settings.method == "historical" else f" by the method {settings.method!r}"
        notes.append(
            f"Value at risk uses {used} overlapping return scenarios{horizon} from {_origin(config)}{method}; "
            "neighbours share most of their path, so they say less than their number."
        )
    elif made.gate is not None and made.gate.config.rolling is not None:
        notes.append(
            "Value at risk uses return scenarios that were collected during the run; until there were enough of them "
            "only orders that reduce a position passed."
        )
    if made.row.notes:
        notes.append(made.row.notes)
    if not config.execution.market_impact_modeling:
        notes.append("Market impact and slippage beyond the book are not modelled: those terms are zero.")
    return notes


def _kill_notes(made: Assembly) -> list[str]:
    """Who stopped the run and why, and who allowed it again, in the order in which it happened."""
    notes = []
    for what, name, reason in _kills(made):
        why = reason.strip() or "no reason given"
        if what == "kill":
            notes.append(
                f'This run was killed by "{name}": {why}. While it was stopped the gate refused every order that did '
                "not reduce a position, so its result is not that of the strategy alone."
            )
        else:
            notes.append(f'The kill by "{name}" was lifted: {why}.')
    return notes


def _drill_note(drill: ControlDrill, killed: bool) -> str:
    orders = sum(step.orders for step in drill.steps if step.expected != "canceled")
    refused = sum(step.refused for step in drill.steps)
    counted = f"A control drill sent {orders} orders and modifications; the gate refused {refused}"
    real = (
        "They are real orders on the real path, tagged and counted as drill; none was filled, and they are in no "
        "profit or loss."
    )
    # A reason begins with the limits that an order broke; where it begins with the switch there were none.
    cut = [step for step in drill.steps if not step.passed or any(r.startswith(_BY_SWITCH) for r in step.reasons)]
    if killed and (cut or drill.left):
        left = f", {drill.left} more were not sent" if drill.left else ""
        return (
            f"{counted}. The run was killed before the drill ended: {len(cut)} of the {len(drill.steps)} steps that "
            f"were taken met the kill instead of a limit{left}, so the drill is not complete. {real}"
        )
    return f"{counted}, among them every one that was made to break a limit. {real}"


def _origin(config: TengriConfig) -> str:
    return Path(config.risk.scenarios.path or "").name


def _assumptions(config: TengriConfig, made: Assembly) -> dict[str, Any]:
    section = backtest_section(config)
    row = made.row
    facts: dict[str, Any] = {
        "order latency": format_duration(section.order_latency),
        "taker fee": f"{row.taker_bps:g} bps",
        "maker fee": f"{row.maker_bps:g} bps",
        "book": "five or more levels, aggregated by price" if made.data.depth is not None else "best bid and ask",
        "fills": "NautilusTrader's matching against the recorded book; our orders do not move it",
        "end of run": "the strategy is stopped shortly before the data end and closes its position at market",
        "open positions": "valued at the mid",
    }
    if row.fee_per_contract:
        facts["fee per contract"] = f"{row.fee_per_contract:g} {row.currency}"
    for name in config.risk.limits:
        facts[f"limit {name}"] = str(getattr(config.risk, name))
    return facts


def _data_facts(made: Assembly) -> dict[str, Any]:
    facts: dict[str, Any] = {"instrument": made.row.description, "facts from": made.row.source}
    kinds: tuple[tuple[str, QuoteColumns | TradeColumns | DepthColumns | None], ...] = (
        ("quotes", made.data.quotes),
        ("trades", made.data.trades),
        ("depth snapshots", made.data.depth),
    )
    for name, columns in kinds:
        if columns is not None:
            facts[name] = len(columns.ts_event)
    return facts


def _model_card(bundle: ModelBundle) -> dict[str, Any]:
    spec = bundle.spec
    return {
        "id": spec.id,
        "type": spec.type,
        "description": spec.description,
        "features": list(spec.inputs.features),
        "clock": spec.inputs.clock,
        "horizon": spec.outputs.horizon,
        "licence": spec.licence,
        "golden error": bundle.golden_error,
    }


def _versions() -> dict[str, str]:
    from importlib import metadata

    names = ("nautilus_trader", "numpy", "pandas")
    found = {name: metadata.version(name) for name in names}
    return {"tengri_fast": tengri_fast.__version__, "python": platform.python_version(), **found}


def _machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu features": " ".join(_native.cpu_features()),
        "byte order": sys.byteorder,
    }
