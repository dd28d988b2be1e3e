"""Warm-up: a strategy asks for past ticks before it listens to live ones.

One request is made for each kind of event that the model reads, and NautilusTrader joins the answers in the order of
time (kinds of the same time in the order trades, quotes, depth, bars). Live data are subscribed to when the history has
been fed, or when it has not come within the time allowed: so features never see time run backwards, and what happens
between the end of the history and the first live tick is not seen at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.model.data import BarType
from nautilus_trader.model.identifiers import ClientId, InstrumentId

__all__ = ["HistoryRequest"]

_TIMER = "TENGRI-HISTORY"


class HistoryRequest:
    """The requests of one start of a strategy.

    Parameters
    ----------
    strategy : Strategy
        Who asks; its handlers receive the events as historical ones.
    depth_ns : int
        How far back, from now.
    timeout_ns : int
        How long to wait for the answer.
    client_id : str, optional
        Which client answers; the venue's own otherwise. A catalog of the node is asked first in either case.
    begin : callable
        Called once, without arguments, when the history is over or has not come.
    """

    def __init__(
        self, strategy: Any, depth_ns: int, timeout_ns: int, client_id: str | None, begin: Callable[[], None]
    ) -> None:
        self._strategy = strategy
        self._depth_ns = depth_ns
        self._timeout_ns = timeout_ns
        self._client_id = ClientId(client_id) if client_id else None
        self._begin = begin
        self._waiting = False

    @property
    def waiting(self) -> bool:
        """Whether the answer is still to come."""
        return self._waiting

    def ask(
        self,
        instruments: Sequence[InstrumentId],
        kinds: Sequence[str],
        bar_types: Sequence[BarType],
        quoted: Sequence[InstrumentId] = (),
    ) -> None:
        """Send the requests.

        Parameters
        ----------
        instruments : sequence of InstrumentId
        kinds : sequence of {"trades", "quotes", "depth", "deltas"}
            What to ask for, for each instrument.
        bar_types : sequence of BarType
            Bars to ask for.
        quoted : sequence of InstrumentId
            Further instruments, of which quotes are asked for.
        """
        strategy = self._strategy
        now = strategy.clock.timestamp_ns()
        start, end = _time(max(0, now - self._depth_ns)), _time(now)
        common = {"start": start, "end": end, "client_id": self._client_id, "params": {"join_request": True}}
        methods = {
            "trades": "request_trade_ticks",
            "quotes": "request_quote_ticks",
            "depth": "request_order_book_depth",
            "deltas": "request_order_book_deltas",
        }
        # Set before asking: in a backtest the answer is there before the call returns.
        self._waiting = True
        strategy.clock.set_time_alert_ns(_TIMER, now + self._timeout_ns, self._late)
        ids = [getattr(strategy, methods[kind])(name, **common) for kind in kinds for name in instruments]
        ids += [strategy.request_bars(bar_type, **common) for bar_type in bar_types]
        ids += [strategy.request_quote_ticks(name, **common) for name in quoted]
        strategy.request_join(
            tuple(ids),
            start=start,
            end=end,
            client_id=self._client_id,
            venue=instruments[0].venue,
            callback=self._done,
        )

    def stop(self) -> None:
        """Wait no longer, and begin nothing."""
        self._waiting = False
        self._cancel()

    def _done(self, _request: UUID4) -> None:
        if self._waiting:
            self._waiting = False
            self._cancel()
            self._begin()

    def _late(self, _event: Any) -> None:
        if self._waiting:
            self._waiting = False
            self._strategy.log.warning(
                f"No history within {self._timeout_ns / 1e9:g} s: going on with live data only. Features warm up live."
            )
            self._begin()

    def _cancel(self) -> None:
        if _TIMER in self._strategy.clock.timer_names:
            self._strategy.clock.cancel_timer(_TIMER)


def _time(nanoseconds: int) -> datetime:
    moment: datetime = pd.Timestamp(nanoseconds, unit="ns", tz="UTC")
    return moment
