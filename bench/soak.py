"""Minutes of use for what must not wear out: the engine on a tape that repeats, the model loader, the portfolio.

    python bench/soak.py --minutes 10 [--seed 1] [--out FILE]
    python bench/soak.py --part loader --seed 1 --case 4711      (one mutation again)

*engine* streams the shipped sample through :class:`TengriNeuralEngine`, over and over with shifted times. Resident
memory must not grow by 1 MB after the first passes, no signal may hold a number that is not finite, and the first pass
repeated at the end must give the same signals bit by bit. Each event is timed as a Python caller sees it, beside two
controls: a call that does nothing, and a plain loop that takes about as long as the median event. Whatever stalls the
machine hits that loop as often as it hits us. ("In the engine" ends at the signal; the call goes on to prepare the next
step.)

*loader* mutates the bytes of the shipped ``model.onnx``. Each case has a random generator of its own, made from seed
and case number. Nothing but :class:`ModelLoadingError` may come out; a model that is accepted must also step.

*portfolio* sends random prices, rates, fills, orders and corrections and compares what is kept incrementally with a
revaluation from scratch, with a ledger of its own, and the decision "value at risk above the limit" with the exact
figures.

Each part runs in a process of its own: a crash is a finding like any other, and memory is that of one part. Exit status
0 when nothing was found, 1 otherwise; the result is written in both cases.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _measure import REPOSITORY, machine_info
from summary import time_text, write_json

OUT = Path(__file__).resolve().parent / "results" / "committed" / "soak.json"
MODEL = REPOSITORY / "models" / "lstm_btcusdt"
SAMPLE = REPOSITORY / "data" / "binance_usdm_btcusdt" / "binance_usdm_btcusdt_20240719"
SHARES = {"engine": 0.6, "loader": 0.2, "portfolio": 0.2}
RSS_LIMIT = 1 << 20
WARM_PASSES = 5
SAY_EVERY = 5.0
KEPT_VIOLATIONS = 20

Say = Callable[..., None]


def resident_bytes() -> int:
    """Resident memory of this process (where /proc is missing: the most there ever was)."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


class Violations:
    """Counts all, keeps the first few in words."""

    def __init__(self) -> None:
        self.count = 0
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.count += 1
        if len(self.texts) < KEPT_VIOLATIONS:
            self.texts.append(text)

    def __bool__(self) -> bool:
        return self.count > 0


# -- engine ------------------------------------------------------------------------------------------------------------


def _tape() -> list[tuple[bool, float, float, float, float, int]]:
    """The sample in the order in which it is seen: (is a quote, four values, time)."""
    from tengri_fast.market import merge_order, read_quotes, read_trades

    quotes, trades = read_quotes(f"{SAMPLE}.quotes.parquet"), read_trades(f"{SAMPLE}.trades.parquet")
    columns = zip(
        quotes.bid_price.tolist(), quotes.ask_price.tolist(), quotes.bid_size.tolist(), quotes.ask_size.tolist(),
        quotes.ts_event.tolist(), strict=True,
    )  # fmt: skip
    quote_rows = [(True, *row) for row in columns]
    trade_rows = [
        (False, price, size, aggressor, 0.0, ts)
        for price, size, aggressor, ts in zip(
            trades.price.tolist(),
            trades.size.tolist(),
            trades.aggressor.tolist(),
            trades.ts_event.tolist(),
            strict=True,
        )
    ]
    order = merge_order(trades.ts_init, quotes.ts_init)
    streams = (trade_rows, quote_rows)
    return [streams[source][row] for source, row in zip(order.source.tolist(), order.row.tolist(), strict=True)]


def _nothing(slot: int, a: float, b: float, c: float, d: float, ts: int) -> None:
    """The first control: a call of the same shape."""


def _loop(turns: int) -> None:
    """The second control: work that needs no memory."""
    for _ in range(turns):
        pass


def soak_engine(seconds: float, seed: int, say: Say) -> dict[str, Any]:
    """Stream the sample until the time is over; `seed` plays no part."""
    from tengri_fast.runtime.engine import TengriNeuralEngine, clock_overhead_ns
    from tengri_fast.runtime.latency import LatencyHistogram
    from tengri_fast.runtime.model_spec import load_bundle

    tape = _tape()
    span = tape[-1][-1] - tape[0][-1] + 1_000_000
    engine = TengriNeuralEngine(load_bundle(MODEL / "model.toml"))
    engine.stamp = True
    slot = engine.add_instrument("BTCUSDT-PERP.BINANCE")
    latency, nothing, loop = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
    turns = 300
    found, not_finite = Violations(), 0
    clock = time.perf_counter_ns
    finite = math.isfinite

    def one_pass(shift: int) -> tuple[int, int]:
        """Signals, and a checksum over all their numbers."""
        nonlocal not_finite
        on_quote, on_trade, add, add_nothing = engine.process_quote, engine.process_trade, latency.add, nothing.add
        signals = checksum = 0
        for is_quote, a, b, c, d, ts in tape:
            now = ts + shift
            if is_quote:
                start = clock()
                signal = on_quote(slot, a, b, c, d, now)
                took = clock() - start
            else:
                start = clock()
                signal = on_trade(slot, a, b, c, now)
                took = clock() - start
            start = clock()
            _nothing(slot, a, b, c, d, now)
            add_nothing(clock() - start)
            if signal is not None:
                add(took)
                start = clock()
                _loop(turns)
                loop.add(clock() - start)
                signals += 1
                value, chances = signal.value, signal.probabilities
                if not (finite(value) and finite(signal.confidence) and all(map(finite, chances))):
                    not_finite += 1
                checksum = hash((checksum, value, chances))
        return signals, checksum

    first = one_pass(0)
    for k in range(1, WARM_PASSES):
        # The loop is to last as long as an event: each pass corrects what the one before it showed.
        turns = max(round(turns * latency.percentile(50) / max(loop.percentile(50), 1)), 1)
        latency.clear()
        loop.clear()
        one_pass(k * span)
    gc.collect()
    gc.freeze()
    for histogram in (latency, nothing, loop, engine.latency):
        histogram.clear()
    resident = most = resident_bytes()
    began, said, passes, signals = time.perf_counter(), 0.0, 0, 0
    while (elapsed := time.perf_counter() - began) < seconds or passes == 0:
        signals += one_pass((WARM_PASSES + passes) * span)[0]
        passes += 1
        most = max(most, resident_bytes())
        if elapsed - said >= SAY_EVERY:
            said = elapsed
            say(
                ticks=passes * len(tape),
                signals=signals,
                rss_growth_bytes=most - resident,
                p50_ns=latency.percentile(50),
            )
    growth = most - resident
    measured = {"call": latency, "inside_engine": engine.latency, "nothing": nothing, "loop": loop}
    figures = {name: histogram.summary() for name, histogram in measured.items()}
    engine.reset()
    again = one_pass(0)

    if growth >= RSS_LIMIT:
        found.add(f"resident memory grew by {growth:,} bytes, must stay below {RSS_LIMIT:,}")
    if not_finite:
        found.add(f"{not_finite:,} signals held a number that is not finite")
    if again != first:
        found.add(f"the first pass gave {first} (signals, checksum) and its repetition {again}")
    if not signals:
        found.add("no signal came")
    return {
        "ticks": passes * len(tape),
        "ticks_per_pass": len(tape),
        "passes": passes,
        "warm_passes": WARM_PASSES,
        "signals": signals,
        "not_finite": not_finite,
        "repeats_bit_by_bit": again == first,
        "rss_bytes_after_warm_up": resident,
        "rss_growth_bytes": growth,
        "clock_overhead_ns": clock_overhead_ns(),
        "tick_to_signal_ns": figures,
        "violations": found.count,
        "violation_texts": found.texts,
    }


# -- loader ------------------------------------------------------------------------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _blobs(data: bytes, start: int, end: int, path: tuple[int, ...] = ()) -> Iterator[tuple[int, int]]:
    """Where the weights lie: raw_data (9) of the initializers (5) of the graph (7)."""
    at = start
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 2:
            size, at = _varint(data, at)
            here = (*path, number)
            if here == (7, 5, 9):
                yield at, at + size
            elif here in ((7,), (7, 5)):
                yield from _blobs(data, at, at + size, here)
            at += size
        elif wire == 0:
            _, at = _varint(data, at)
        else:
            at += {1: 8, 5: 4}[wire]


class Mutator:
    """Damages a file in a way that follows from seed and case number alone."""

    HOSTILE = (
        b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x80" * 10, b"\x80" * 12, b"\x00", b"\xff\xff\xff\xff\x07",
        b"\x80\x80\x80\x80\x10", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f",
    )  # fmt: skip

    def __init__(self, data: bytes, seed: int) -> None:
        self.data, self.seed = data, seed
        self.blobs = list(_blobs(data, 0, len(data)))
        inside = np.zeros(len(data), bool)
        for start, end in self.blobs:
            inside[start:end] = True
        self.structure = np.flatnonzero(~inside)

    def __call__(self, case: int) -> bytes:
        rng = np.random.default_rng([self.seed, case])
        data = bytearray(self.data)
        for _ in range(1 + int(rng.integers(0, 3))):
            self.damage(data, rng)
        return bytes(data)

    def damage(self, data: bytearray, rng: np.random.Generator) -> None:
        if not data:
            return
        # Most of the file is weights, where any bytes are valid: nine of ten go for the structure.
        places = self.structure[self.structure < len(data)]
        anywhere = rng.random() < 0.1 or not len(places)
        at = int(rng.integers(len(data))) if anywhere else int(places[rng.integers(len(places))])
        size = int(rng.integers(1, 65))
        kind = int(rng.integers(9))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at] = int(rng.integers(256))
        elif kind == 2:
            data[at : at + size] = rng.bytes(min(size, len(data) - at))
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + size]
        elif kind == 5:
            data[at:at] = rng.bytes(size)
        elif kind == 6:
            data[at:at] = data[at : at + size]
        elif kind == 7:
            hostile = self.HOSTILE[int(rng.integers(len(self.HOSTILE)))]
            data[at : at + len(hostile)] = hostile
        else:
            start, end = self.blobs[int(rng.integers(len(self.blobs)))]
            at = start + 4 * int(rng.integers((end - start) // 4))
            data[at : at + 4] = np.array(rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45]), np.float32).tobytes()


def load_case(data: bytes) -> str:
    """What became of one file: a word, or the violation."""
    from tengri_fast.errors import ModelLoadingError
    from tengri_fast.inference import Model

    try:
        model = Model.from_onnx(data)
    except ModelLoadingError as error:
        return "rejected" if str(error).strip() else "a ModelLoadingError without a text"
    except Exception as error:  # anything else that comes out is the finding
        return f"{type(error).__name__} from the loader: {error}"
    try:
        y = model.session().step(np.zeros(model.input_size, np.float32))
    except Exception as error:
        return f"{type(error).__name__} from a model that was accepted: {error}"
    return "accepted" if y.shape == (model.output_size,) else f"an accepted model answered with shape {y.shape}"


def soak_loader(seconds: float, seed: int, say: Say) -> dict[str, Any]:
    """Load damaged models until the time is over."""
    mutate = Mutator((MODEL / "model.onnx").read_bytes(), seed)
    found = Violations()
    if (intact := load_case(mutate.data)) != "accepted":
        found.add(f"the model as shipped: {intact}")
    counts = {"accepted": 0, "rejected": 0}
    began, said, case, slowest, slowest_case = time.perf_counter(), 0.0, 0, 0.0, 0
    resident = 0
    while (elapsed := time.perf_counter() - began) < seconds or case == 0:
        say(case=case)
        data = mutate(case)
        start = time.perf_counter()
        outcome = load_case(data)
        took = time.perf_counter() - start
        if took > slowest:
            slowest, slowest_case = took, case
        if outcome in counts:
            counts[outcome] += 1
        else:
            found.add(f"case {case}: {outcome}")
        case += 1
        if case == 1000:
            resident = resident_bytes()
        if elapsed - said >= SAY_EVERY:
            said = elapsed
            say(cases=case, **counts, rss_bytes=resident_bytes(), violations=found.count)
    return {
        "seed": seed,
        "cases": case,
        **counts,
        "slowest_case_ms": round(1e3 * slowest, 2),
        "slowest_case": slowest_case,
        "rss_growth_bytes": resident_bytes() - resident if resident else None,
        "violations": found.count,
        "violation_texts": found.texts,
    }


# -- portfolio ---------------------------------------------------------------------------------------------------------

SCENARIOS = 500
LEVEL = 0.99
NAMES = [f"{kind}{i:02d}" for kind in ("LIN", "INV", "BIN", "EUR") for i in range(10)]
START = {"LIN": 100.0, "EUR": 50.0, "INV": 20_000.0, "BIN": 0.5}
STRATEGIES = ("S1", "S2")


class Shaker:
    """A portfolio, a ledger of the same events, and the events."""

    def __init__(self, seed: int) -> None:
        from tengri_fast.risk import InstrumentFacts, OrderView, PortfolioState, ScenarioSet, VarSettings

        self.view = OrderView
        self.random = random.Random(seed)
        rng = np.random.default_rng(seed)
        payoff = {"LIN": "linear", "EUR": "linear", "INV": "inverse", "BIN": "binary"}
        coin = {"LIN": "USD", "EUR": "EUR", "INV": "BTC", "BIN": "USD"}
        facts = [
            InstrumentFacts(
                n, payoff=payoff[n[:3]], multiplier=10.0, size_increment=0.5, settlement_currency=coin[n[:3]]
            )
            for n in NAMES
        ]
        self.facts = {fact.instrument_id: fact for fact in facts}
        common = rng.standard_t(4, SCENARIOS)
        returns = 0.01 * (rng.uniform(-0.5, 1.5, (len(NAMES), 1)) * common + rng.standard_t(4, (len(NAMES), SCENARIOS)))
        scenarios = ScenarioSet(NAMES, np.clip(returns, -0.6, 5.0), 60 * 10**9)
        self.returns = dict(zip(NAMES, scenarios.returns.astype(np.float64), strict=True))
        settings = VarSettings(level=LEVEL, horizon="60s", scenarios=SCENARIOS, base_currency="USD")
        self.portfolio = PortfolioState(facts, scenarios, settings, rebuild_interval=512)
        self.held: dict[tuple[str, str], float] = {}
        self.orders: dict[str, list[Any]] = {}  # the order, what was filled
        self.marks: dict[str, float] = {}
        self.rates = {"USD": 1.0}
        self.now, self.serial = 10**15, 0
        for currency, value in (("EUR", 1.1), ("BTC", 60_000.0)):
            self.set_rate(currency, value)
        for name in NAMES:
            self.set_price(name, START[name[:3]])
        self.counts = dict.fromkeys(
            (
                "prices",
                "invalid_quotes",
                "rates",
                "fills",
                "orders",
                "amendments",
                "closings",
                "restatements",
                "rebuilds",
            ),
            0,
        )

    def set_price(self, name: str, mid: float) -> None:
        half = 1e-3 if name.startswith("BIN") else 1e-4 * mid
        bid, ask = mid - half, mid + half
        self.portfolio.on_price(name, bid, ask, self.now)
        self.marks[name] = bid + 0.5 * (ask - bid)

    def set_rate(self, currency: str, value: float) -> None:
        self.portfolio.on_rate(currency, value)
        self.rates[currency] = value

    def event(self) -> None:
        """One random event."""
        rng = self.random
        self.now += rng.randint(0, 10**8)
        name, dice = rng.choice(NAMES), rng.random()
        counts = self.counts
        if dice < 0.50:
            first = START[name[:3]]
            mid = self.marks[name] * math.exp(rng.gauss(0.0, 0.004))
            self.set_price(name, min(max(mid, 0.3 * first), 1.9 * first))
            counts["prices"] += 1
        elif dice < 0.53:
            bad = rng.choice([(2.0, 1.0), (math.nan, 1.0), (1.0, math.inf), (-1.0, 1.0), (0.0, 0.0)])
            self.portfolio.on_price(name, *bad, self.now)
            counts["invalid_quotes"] += 1
        elif dice < 0.56:
            currency = rng.choice(["EUR", "BTC"])
            self.set_rate(currency, self.rates[currency] * math.exp(rng.gauss(0.0, 0.002)))
            counts["rates"] += 1
        elif dice < 0.72:
            self.fill(name)
            counts["fills"] += 1
        elif dice < 0.86:
            self.serial += 1
            self.open(self.order(name, f"O{self.serial}"))
            counts["orders"] += 1
        elif dice < 0.91:
            self.amend()
            counts["amendments"] += 1
        elif dice < 0.98:
            self.close()
            counts["closings"] += 1
        elif dice < 0.998:
            strategy, quantity = rng.choice(STRATEGIES), 0.5 * rng.randint(-200, 200)
            self.portfolio.set_position(name, quantity, strategy_id=strategy)
            self.held[name, strategy] = quantity
            counts["restatements"] += 1
        else:
            self.portfolio.rebuild()
            counts["rebuilds"] += 1

    def order(self, name: str, identity: str) -> Any:
        rng = self.random
        return self.view(
            identity, rng.choice(STRATEGIES), "", name, side=rng.choice([-1, 1]), quantity=0.5 * rng.randint(1, 100),
            price=self.marks[name], order_type="LIMIT", reduce_only=rng.random() < 0.2, ts=self.now,
        )  # fmt: skip

    def open(self, order: Any) -> None:
        if len(self.orders) < 60:
            self.portfolio.on_working(order)
            self.orders[order.client_order_id] = [order, 0.0]

    def fill(self, name: str) -> None:
        """Of a working order where there is one, else of nobody's."""
        rng = self.random
        self.serial += 1
        trade = f"T{self.serial}"
        if self.orders and rng.random() < 0.7:
            identity = rng.choice(list(self.orders))
            order, filled = self.orders[identity]
            leaves = order.quantity - filled
            quantity = 0.5 * rng.randint(1, max(int(2 * leaves), 1))
            name, strategy, signed = order.instrument_id, order.strategy_id, order.side * quantity
            self.orders[identity][1] += quantity
            if self.orders[identity][1] >= order.quantity:
                del self.orders[identity]
        else:
            identity, strategy, signed = "", rng.choice(STRATEGIES), 0.5 * rng.choice([-1, 1]) * rng.randint(1, 60)
        for _ in range(2 if rng.random() < 0.1 else 1):  # venues repeat themselves
            self.portfolio.on_fill(
                name, signed, self.marks[name], strategy_id=strategy, client_order_id=identity, trade_id=trade
            )
        self.held[name, strategy] = self.held.get((name, strategy), 0.0) + signed

    def amend(self) -> None:
        if self.orders:
            identity = self.random.choice(list(self.orders))
            order, filled = self.orders[identity]
            order.quantity = filled + 0.5 * self.random.randint(1, 100)
            self.portfolio.on_order_update(identity, quantity=order.quantity)

    def close(self) -> None:
        if self.orders:
            identity = self.random.choice(list(self.orders))
            self.portfolio.on_order_closed(identity)
            del self.orders[identity]

    def unit(self, name: str) -> np.ndarray:
        """Result of one unit in every scenario, base currency."""
        fact, p = self.facts[name], self.marks[name]
        moved = p * (1.0 + self.returns[name])
        if fact.payoff == "linear":
            result = moved - p
        elif fact.payoff == "inverse":
            result = 1.0 / p - 1.0 / moved
        else:
            result = np.clip(moved, 0.0, 1.0) - p
        return result * fact.multiplier * self.rates[fact.settlement_currency]

    def compare(self, found: Violations, label: str) -> float:
        """Largest difference found, as a share of what is at stake."""
        units = {name: self.unit(name) for name in NAMES}
        stake = sum(abs(q) * float(np.abs(units[name]).max()) for (name, _), q in self.held.items())
        stake += sum(
            (order.quantity - filled) * float(np.abs(units[order.instrument_id]).max())
            for order, filled in self.orders.values()
        )
        slack = 1e-9 * stake + 1e-12
        oracle = sum((q * units[name] for (name, _), q in self.held.items()), np.zeros(SCENARIOS))
        worst = 0.0
        for case in ("filled", "buys", "sells", "worst"):
            ours, full = self.portfolio.scenario_pnl(case), self.portfolio.full_revaluation(case)
            off = float(np.abs(ours - full).max())
            if case == "filled":
                off = max(off, float(np.abs(ours - oracle).max()))
            rank = math.ceil(LEVEL * SCENARIOS - 1e-9)  # the loss that at least this many do not exceed
            off = max(off, abs(self.portfolio.value_at_risk(case) - float(np.sort(-full)[rank - 1])))
            if not off <= slack:
                found.add(f"{label}, case {case}: off by {off:.6g}, allowed {slack:.6g}")
            worst = max(worst, off / max(stake, 1e-12))
        order = self.order(self.random.choice(NAMES), "QUESTION")
        exact = max(value for value, _ in self.portfolio.what_if(order).values())
        margin = max(1e-6 * abs(exact), 10.0 * slack)
        for limit, expected in ((exact + margin, False), (exact - margin, True)):
            if self.portfolio.var_exceeds(order, order.quantity, limit) != expected:
                found.add(f"{label}: value at risk {exact!r} above {limit!r} was answered {not expected}")
        return worst


def soak_portfolio(seconds: float, seed: int, say: Say) -> dict[str, Any]:
    """Shake a portfolio until the time is over."""
    shaker, found = Shaker(seed), Violations()
    events = comparisons = 0
    worst, said, resident = 0.0, 0.0, 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds or not comparisons:
        for _ in range(shaker.random.randint(1, 60)):
            shaker.event()
            events += 1
        worst = max(worst, shaker.compare(found, f"after event {events}"))
        comparisons += 1
        if comparisons == 200:
            resident = resident_bytes()
        if elapsed - said >= SAY_EVERY:
            said = elapsed
            say(
                events=events, comparisons=comparisons, rss_bytes=resident_bytes(),
                worst_relative=worst, violations=found.count,
            )  # fmt: skip
    if shaker.portfolio.faults:
        found.add(f"faults: {', '.join(shaker.portfolio.faults[:5])}")
    return {
        "seed": seed,
        "instruments": len(NAMES),
        "scenarios": SCENARIOS,
        "events": events,
        "events_by_kind": shaker.counts,
        "comparisons": comparisons,
        "worst_difference_over_stake": worst,
        "rss_growth_bytes": resident_bytes() - resident if resident else None,
        "violations": found.count,
        "violation_texts": found.texts,
    }


# -- running the parts -------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[float, int, Say], dict[str, Any]]] = {
    "engine": soak_engine,
    "loader": soak_loader,
    "portfolio": soak_portfolio,
}


def child(part: str, seconds: float, seed: int, mark: Path | None) -> int:
    """One part in this process: progress and result as lines of JSON."""
    handle = os.open(mark, os.O_WRONLY) if mark else -1

    def say(**values: Any) -> None:
        if values.keys() == {"case"}:  # before each case, where a crash finds it
            if handle >= 0:
                os.pwrite(handle, b"%20d" % values["case"], 0)
            return
        print(json.dumps({"progress": values}), flush=True)

    print(json.dumps({"result": PARTS[part](seconds, seed, say)}), flush=True)
    return 0


def run_part(part: str, seconds: float, seed: int) -> dict[str, Any]:
    """One part in a process of its own; a crash or a hang comes back as a violation."""
    print(f"{part}: {seconds:.0f} s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "case"
        mark.write_bytes(b"%20d" % -1)
        command = [
            sys.executable, "-X", "faulthandler", str(Path(__file__).resolve()), "--part", part,
            "--seconds", str(seconds), "--seed", str(seed), "--mark", str(mark),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        limit = 2.0 * seconds + 120.0
        guard = threading.Timer(limit, process.kill)
        guard.start()
        began, result = time.perf_counter(), None
        try:
            for line in process.stdout:
                message = json.loads(line)
                if "result" in message:
                    result = message["result"]
                else:
                    _print_progress(part, time.perf_counter() - began, message["progress"])
        finally:
            guard.cancel()
            with contextlib.suppress(ProcessLookupError):
                if sys.exc_info()[0] is not None:
                    process.kill()
            status = process.wait()
        case = int(mark.read_bytes())
    if result is None:
        text = f"the process ended with status {status}" + (f" in case {case}" if case >= 0 else "")
        if time.perf_counter() - began >= limit:
            text = f"no end after {limit:.0f} s" + (f", case {case}" if case >= 0 else "")
        result = {"seed": seed, "violations": 1, "violation_texts": [text]}
    result = {"seconds": round(time.perf_counter() - began, 1), **result}
    for text in result["violation_texts"]:
        print(f"  VIOLATION {text}", flush=True)
    return result


def _print_progress(part: str, seconds: float, values: dict[str, Any]) -> None:
    words = (
        f"{name.removesuffix('_ns')} {time_text(value)}" if name.endswith("_ns")
        else f"{name.replace('_', ' ')} {value:.2g}" if isinstance(value, float)
        else f"{name.replace('_', ' ')} {value:,}"
        for name, value in values.items()
    )  # fmt: skip
    print(f"  {part} {seconds:5.0f} s  {', '.join(words)}", flush=True)


def _print_latency(figures: dict[str, dict[str, int]]) -> None:
    labels = {
        "call": "tick to signal",
        "inside_engine": "  in the engine",
        "nothing": "call of nothing",
        "loop": "plain loop",
    }
    for name, label in labels.items():
        found = figures[name]
        times = (
            f"{field.replace('p999', 'p99.9')} {time_text(found[field])}" for field in ("p50", "p99", "p999", "max")
        )
        print(f"  {label:<16} {'  '.join(times)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts and write the result; 0 without violations, 1 with."""
    parser = argparse.ArgumentParser(prog="bench/soak.py", description="Minutes of use for what must not wear out.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long all parts together take (10)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations and the events (1)")
    parser.add_argument("--out", type=Path, default=OUT, help="where the result goes")
    parser.add_argument("--part", choices=PARTS, help="one part in this process, result to standard output")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long --part takes")
    parser.add_argument("--case", type=int, help="with --part loader: this mutation only")
    parser.add_argument("--mark", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not (options.minutes > 0.0 and options.seconds > 0.0 and options.seed >= 0):
        parser.error("`--minutes` and `--seconds` must be > 0, `--seed` >= 0")
    if options.case is not None:
        if options.part != "loader":
            parser.error("`--case` goes with `--part loader`")
        outcome = load_case(Mutator((MODEL / "model.onnx").read_bytes(), options.seed)(options.case))
        print(outcome)
        return 0 if outcome in ("accepted", "rejected") else 1
    if options.part:
        return child(options.part, options.seconds, options.seed, options.mark)

    started = datetime.now(UTC)
    parts = {part: run_part(part, 60.0 * options.minutes * share, options.seed) for part, share in SHARES.items()}
    violations = sum(part["violations"] for part in parts.values())
    result = {
        "kind": "soak",
        "started": started.isoformat(timespec="seconds"),
        "minutes": options.minutes,
        "seed": options.seed,
        "machine": machine_info(),
        "violations": violations,
        **parts,
    }
    write_json(options.out, result)
    if "tick_to_signal_ns" in parts["engine"]:
        _print_latency(parts["engine"]["tick_to_signal_ns"])
    print(f"{violations} violation{'s' if violations != 1 else ''}; {options.out.name} written", flush=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
