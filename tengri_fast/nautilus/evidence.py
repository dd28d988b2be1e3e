"""Control evidence: bad orders sent on purpose through a backtest and a live node, and what came back.

A control that has never refused anything has not been seen to work. Every row of the script has an engine and a gate of
its own, sends what a control must let pass and what it must refuse, and compares every answer: an order that is refused
under another rule than the one on trial fails its row as much as one that gets through.

The live path is NautilusTrader's ``TradingNode`` with its sandbox execution client and a data client that hands in the
quotes of the script. Nothing is connected to anything.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nautilus_trader
from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig
from nautilus_trader.adapters.sandbox.factory import SandboxLiveExecClientFactory
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.common import Environment
from nautilus_trader.common.providers import InstrumentProvider
from nautilus_trader.config import (
    LiveDataClientConfig,
    LiveDataEngineConfig,
    LiveExecEngineConfig,
    LiveRiskEngineConfig,
    LoggingConfig,
    RiskEngineConfig,
    RoutingConfig,
    TradingNodeConfig,
)
from nautilus_trader.live.data_client import LiveMarketDataClient
from nautilus_trader.live.factories import LiveDataClientFactory
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.enums import AccountType, BookType, OmsType
from nautilus_trader.model.identifiers import ClientId, TraderId
from nautilus_trader.model.objects import Money

from tengri_fast.nautilus.backtest import _quiet_pandas
from tengri_fast.nautilus.drill import DrillSlicer
from tengri_fast.nautilus.evidence_rows import AREAS, ROWS
from tengri_fast.nautilus.evidence_scene import CUES, Scene, Seen
from tengri_fast.nautilus.evidence_steps import Row

__all__ = ["PATHS", "Answer", "Evidence", "collect", "exercised"]

PATHS = ("backtest", "sandbox")

Play = Callable[[Row, Path], Scene]

_TRADER = TraderId("EVIDENCE-001")
# A Monday at noon UTC: far from the ends of trading days.
_START = 1_767_614_400_000_000_000
_SECOND = 1_000_000_000
_MILLISECOND = 1_000_000
_RATE = "100000/00:00:01"
# Turns of the event loop without work after which nothing more is on its way: a command crosses four queues.
_QUIET_TURNS = 12
_CLIENT = "EVIDENCE"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGABRT)


@dataclass(frozen=True)
class Answer:
    """What came back for a row on one path.

    Attributes
    ----------
    path : {"backtest", "sandbox"}
    came : tuple of Seen
        Answers to what the row tries.
    problems : tuple of str
        How it differs from what must come back; empty when it does not.
    """

    path: str
    came: tuple[Seen, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every step of the row was answered as it must be."""
        return not self.problems

    def text(self) -> str:
        """What came back, in one line; what came several times is told once."""
        counts = Counter((seen.event, seen.reason) for seen in self.came)
        return "; ".join(
            (f"{number} x " if number > 1 else "") + event + (f": {reason}" if reason else "")
            for (event, reason), number in counts.items()
        )


@dataclass(frozen=True)
class Evidence:
    """All rows and their answers.

    Attributes
    ----------
    rows : tuple of Row
    answers : tuple of tuple of Answer
        By row, one for each path.
    """

    rows: tuple[Row, ...]
    answers: tuple[tuple[Answer, ...], ...]

    @property
    def passed(self) -> bool:
        """Whether every control behaved on every path."""
        return all(answer.passed for row in self.answers for answer in row)

    @property
    def failures(self) -> list[tuple[Row, Answer]]:
        """Rows that did not pass, and where."""
        return [
            (row, answer)
            for row, answers in zip(self.rows, self.answers, strict=True)
            for answer in answers
            if not answer.passed
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        areas = {row.key: area for area, rows in AREAS.items() for row in rows}
        return {
            "nautilus_trader": nautilus_trader.__version__,
            "passed": self.passed,
            "controls": len(self.rows),
            "failed": len({row.key for row, _ in self.failures}),
            "rows": [
                {
                    "key": row.key,
                    "area": areas.get(row.key, ""),
                    "control": row.control,
                    "serves": list(row.serves),
                    "path": row.path,
                    "tried": row.tried,
                    "expected": list(row.expected),
                    **{
                        answer.path: {
                            "passed": answer.passed,
                            "came": answer.text(),
                            "answers": [seen.word for seen in answer.came],
                            "problems": list(answer.problems),
                        }
                        for answer in answers
                    },
                }
                for row, answers in zip(self.rows, self.answers, strict=True)
            ],
        }


def exercised(rows: Sequence[Row] = ROWS) -> set[str]:
    """Codes of rules under which some row must be refused."""
    wants = (want for row in rows for step in row.steps for want in step.wants)
    return {
        code
        for want in wants
        for word in ("denied ", "change refused ")
        if want.startswith(word)
        for code in want.removeprefix(word).split("+")
    }


def collect(
    rows: Sequence[Row] = ROWS,
    paths: Sequence[str] = PATHS,
    progress: Callable[[Row, Answer], None] | None = None,
) -> Evidence:
    """Play every row on every path.

    Times of the backtest are simulated, so it answers the same texts each time. The node runs on the clock of the
    machine: ages in its texts differ from run to run, verdicts do not.

    Parameters
    ----------
    rows : sequence of Row
        What is tried; all of it by default.
    paths : sequence of {"backtest", "sandbox"}
    progress : callable, optional
        Called with each row and answer.

    Returns
    -------
    Evidence
        Also when controls fail: what cannot be played is told as a problem of its row.
    """
    answers: list[list[Answer]] = [[] for _ in rows]
    for path in paths:
        with _quiet_pandas(), _PLAYERS[path]() as play:
            for row, found in zip(rows, answers, strict=True):
                answer = _answer(row, path, play)
                found.append(answer)
                if progress is not None:
                    progress(row, answer)
    return Evidence(tuple(rows), tuple(tuple(found) for found in answers))


def _answer(row: Row, path: str, play: Play) -> Answer:
    try:
        with tempfile.TemporaryDirectory() as folder:
            scene = play(row, Path(folder))
    except Exception as error:
        return Answer(path, (), (f"could not be played: {type(error).__name__}: {error}",))
    return Answer(path, tuple(_came(scene)), tuple(_problems(scene, path)))


def _came(scene: Scene) -> Iterator[Seen]:
    for step, found, heard in zip(scene.steps, scene.seen, scene.heard, strict=True):
        if step.is_shown:
            yield from _last(found)
            if step.warns:
                yield from (Seen("warning", text, "warned") for text in heard if step.warns in text)


def _last(found: Sequence[tuple[str, Seen]]) -> list[Seen]:
    """The last word about each order; what concerns no order stands by itself."""
    orders = {who: seen for who, seen in found if who}
    return [seen for who, seen in found if not who] + list(orders.values())


def _problems(scene: Scene, path: str) -> Iterator[str]:
    yield from scene.problems
    if not scene.finished:
        yield "the script did not come to its end"
    opening = len(scene.steps) - len(scene.row.steps)
    for number, (step, found, heard) in enumerate(zip(scene.steps, scene.seen, scene.heard, strict=True)):
        words = [seen.word for seen in _last(found)]
        wants = step.live if path == "sandbox" and step.live is not None else step.wants
        if sorted(words) != sorted(wants):
            who = f"step {number - opening + 1} ({type(step).__name__.lower()})"
            yield f"{who}: {_list(words)} instead of {_list(wants)}"
        if step.warns and not any(step.warns in text for text in heard):
            yield f"step {number - opening + 1}: nobody was told of {step.warns!r}; told: {_list(heard)}"
    if scene.gate.errors:
        yield f"{scene.gate.errors} errors inside the gate"


def _list(words: Sequence[str]) -> str:
    return ", ".join(words) if words else "nothing"


# ---- backtest --------------------------------------------------------------------------------------------------------


@contextmanager
def _backtests() -> Iterator[Play]:
    yield _play_backtest


def _play_backtest(row: Row, folder: Path) -> Scene:
    scene = Scene(row, _START, folder)
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id=_TRADER,
            logging=LoggingConfig(bypass_logging=True),
            risk_engine=RiskEngineConfig(max_order_submit_rate=_RATE, max_order_modify_rate=_RATE),
            run_analysis=False,
        )
    )
    try:
        for venue in dict.fromkeys(instrument.id.venue for instrument in scene.instruments.values()):
            engine.add_venue(
                venue=venue,
                oms_type=OmsType.NETTING,
                account_type=AccountType.MARGIN,
                base_currency=None,
                starting_balances=[Money.from_str(balance) for balance in row.balances],
                book_type=BookType.L1_MBP,
            )
        for instrument in scene.instruments.values():
            engine.add_instrument(instrument)
        engine.add_data(list(_script(scene)))
        engine.add_actor(scene.gate)
        for script in scene.scripts.values():
            engine.add_strategy(script)
        engine.add_exec_algorithm(DrillSlicer())
        engine.run()
    finally:
        engine.dispose()
    return scene


def _script(scene: Scene) -> Iterator[Any]:
    """All data of a backtest: a cue, what the market says, and the cues in which the answers come."""
    for number in range(len(scene.steps)):
        now = scene.now + (number + 1) * _SECOND
        yield scene.tape(now)
        yield from scene.data(number, now + _MILLISECOND)
        for later in range(1, CUES):
            yield scene.tape(now + (later + 1) * _MILLISECOND)


# ---- sandbox ---------------------------------------------------------------------------------------------------------


class _DataClient(LiveMarketDataClient):
    """Hands in what it is given; a subscription asks nobody."""

    async def _connect(self) -> None:
        """There is nobody to connect to."""

    async def _disconnect(self) -> None:
        """There is nobody to leave."""

    async def _subscribe_quote_ticks(self, command: Any) -> None:
        """Quotes come from the script."""

    async def _subscribe_trade_ticks(self, command: Any) -> None:
        """Trades come from the script."""

    async def _subscribe_instrument_status(self, command: Any) -> None:
        """Statuses come from the script."""

    async def _subscribe_instrument_close(self, command: Any) -> None:
        """No contract expires."""

    async def _unsubscribe_quote_ticks(self, command: Any) -> None:
        """Nothing to take back."""

    def hand_in(self, data: Any) -> None:
        """Data arrive."""
        self._handle_data(data)


def _factory(made: list[_DataClient]) -> type[LiveDataClientFactory]:
    """A factory that tells which client it has made."""

    class Factory(LiveDataClientFactory):
        @staticmethod
        def create(loop: Any, name: str, config: Any, msgbus: Any, cache: Any, clock: Any) -> _DataClient:
            client = _DataClient(
                loop=loop, client_id=ClientId(name), venue=None, msgbus=msgbus, cache=cache, clock=clock,
                instrument_provider=InstrumentProvider(), config=config,
            )  # fmt: skip
            made.append(client)
            return client

    return Factory


@contextmanager
def _nodes() -> Iterator[Play]:
    """One event loop for all nodes, each of which lives for one row."""
    before = {each: signal.getsignal(each) for each in _SIGNALS}
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield lambda row, folder: _play_node(row, folder, loop)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        if threading.current_thread() is threading.main_thread():
            # A node takes the signals of its process, and this one goes on.
            for each, handler in before.items():
                if handler is not None:  # None: it was not set from Python
                    signal.signal(each, handler)


def _play_node(row: Row, folder: Path, loop: asyncio.AbstractEventLoop) -> Scene:
    scene = Scene(row, time.time_ns(), folder)
    venues = dict.fromkeys(instrument.id.venue.value for instrument in scene.instruments.values())
    clients: list[_DataClient] = []
    node = TradingNode(
        TradingNodeConfig(
            environment=Environment.SANDBOX,
            trader_id=_TRADER,
            logging=LoggingConfig(bypass_logging=True),
            # A failure inside an engine must be told, and not end the process.
            data_engine=LiveDataEngineConfig(graceful_shutdown_on_exception=True),
            risk_engine=LiveRiskEngineConfig(
                max_order_submit_rate=_RATE, max_order_modify_rate=_RATE, graceful_shutdown_on_exception=True
            ),
            exec_engine=LiveExecEngineConfig(
                reconciliation=False, inflight_check_interval_ms=0, graceful_shutdown_on_exception=True
            ),
            timeout_post_stop=0.0,
            data_clients={_CLIENT: LiveDataClientConfig(routing=RoutingConfig(default=True))},
            exec_clients={
                venue: SandboxExecutionClientConfig(venue=venue, starting_balances=list(row.balances))
                for venue in venues
            },
        ),
        loop=loop,
    )
    if threading.current_thread() is threading.main_thread():
        for each in _SIGNALS:
            loop.remove_signal_handler(each)  # Ctrl-C ends the command, not one of its nodes
    try:
        node.add_data_client_factory(_CLIENT, _factory(clients))
        for venue in venues:
            node.add_exec_client_factory(venue, SandboxLiveExecClientFactory)
        for instrument in scene.instruments.values():
            node.kernel.cache.add_instrument(instrument)
        node.trader.add_actor(scene.gate)
        for script in scene.scripts.values():
            node.trader.add_strategy(script)
        node.trader.add_exec_algorithm(DrillSlicer())
        node.build()
        loop.run_until_complete(_drive(node, scene, clients[0]))
    finally:
        node.kernel.dispose()
        if node.kernel.executor is not None:
            node.kernel.executor.shutdown(wait=True, cancel_futures=True)
        loop.run_until_complete(_end_tasks())
    return scene


async def _drive(node: TradingNode, scene: Scene, client: _DataClient) -> None:
    """Start the node, hand in the script's data one by one, stop it."""
    kernel = node.kernel
    await kernel.start_async()
    await _settle(kernel)
    for number in range(len(scene.steps)):
        client.hand_in(scene.tape(kernel.clock.timestamp_ns()))
        await _settle(kernel)
        for data in scene.data(number, kernel.clock.timestamp_ns()):
            client.hand_in(data)
            await _settle(kernel)
        for _ in range(1, CUES):
            client.hand_in(scene.tape(kernel.clock.timestamp_ns()))
            await _settle(kernel)
    await node.stop_async()


async def _settle(kernel: Any) -> None:
    """Let the node work until nothing is waiting any more."""
    data, risk, execution = kernel.data_engine, kernel.risk_engine, kernel.exec_engine
    quiet = 0
    while quiet < _QUIET_TURNS:
        await asyncio.sleep(0)
        waiting = (
            data.cmd_qsize() + data.data_qsize() + data.req_qsize() + data.res_qsize()
            + risk.cmd_qsize() + risk.evt_qsize() + execution.cmd_qsize() + execution.evt_qsize()
        )  # fmt: skip
        quiet = 0 if waiting else quiet + 1


async def _end_tasks() -> None:
    """End what a node has left behind on the loop."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_PLAYERS = {"backtest": _backtests, "sandbox": _nodes}
