"""The clock of a feature: every event, or bars that the engine builds from ticks."""

from __future__ import annotations

import re
from typing import NamedTuple

from tengri_fast.errors import FeatureExtractionError
from tengri_fast.features import _table
from tengri_fast.features.parameters import parse_duration, show_duration

__all__ = ["EVENT_CLOCK", "Clock", "parse_clock"]

_LOW_NS, _HIGH_NS = 10**6, 604_800 * 10**9
_MOST_EVENTS = 1_048_576
_NUMBER = re.compile(
    r"([0-9][0-9_]*(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,2})?) +(ticks?|trades?|volume|notional|dollars?|imbalance)"
)
_RULE = (
    '`clock` must be "event", a duration of 1ms to 7d ("1s", "5m", "1m trades"), "500 ticks", "500 trades", '
    '"10 volume", "1e6 notional", "100 imbalance" or "bars"'
)


class Clock(NamedTuple):
    """When a feature steps.

    Attributes
    ----------
    kind : str
        ``event`` (every book event), ``time``, ``ticks``, ``volume``, ``notional``, ``imbalance``, or ``bars`` for
        bars given from outside.
    trades : bool
        Whether prices of trades make the bars; otherwise mids do.
    size : float
        Nanoseconds, or the count, volume or notional that fills a bar; 0 where there is none.

    Notes
    -----
    Time bars are aligned to multiples of their length since 1970 and close when the first event at or after their end
    arrives, before that event counts; an interval without an event makes no bar. A bar from outside that makes the book
    bears the time of its end: it belongs to the interval that ends then, and closes it. The others close with the event
    that fills them, which belongs to them whole. Imbalance bars are the tick imbalance bars of Lopez de Prado
    (2018, section 2.3.2.1), with bounded expectations.
    """

    kind: str
    trades: bool
    size: float

    @property
    def c_values(self) -> tuple[int, int, float]:
        """As C stores it."""
        return _table.CLOCK_KINDS[self.kind], int(self.trades), self.size

    def __str__(self) -> str:
        if self.kind in {"event", "bars"}:
            return self.kind
        if self.kind == "time":
            return show_duration(int(self.size)) + (" trades" if self.trades else "")
        size = str(int(self.size)) if self.size == int(self.size) else repr(self.size)
        return f"{size} {'trades' if self.kind == 'ticks' and self.trades else self.kind}"


EVENT_CLOCK = Clock("event", False, 0.0)


def parse_clock(text: str) -> Clock:
    """A clock from its text.

    Parameters
    ----------
    text : str
        "event", a duration of 1 ms to 7 days with or without "trades" behind it, "N ticks", "N trades", "X volume",
        "X notional" (or "dollars"), "N imbalance", or "bars".

    Raises
    ------
    FeatureExtractionError
        If it is none of these, or out of range.
    """
    wrong = FeatureExtractionError(f"{_RULE}, was {str(text)[:60]!r}")
    if not isinstance(text, str) or re.search(r"[0-9] ?M\b", text):  # 1M is a month elsewhere, never a minute
        raise wrong
    word = " ".join(text.split()).lower()
    if word in {"event", "tick", "events", "ticks"}:
        return EVENT_CLOCK
    if word in {"bars", "bar"}:
        return Clock("bars", False, 0.0)
    by_trades = word.endswith(" trades") and parse_duration(word.removesuffix(" trades")) is not None
    nanoseconds = parse_duration(word.removesuffix(" trades"))
    if nanoseconds is not None:
        if not _LOW_NS <= nanoseconds <= _HIGH_NS:
            raise wrong
        return Clock("time", by_trades, float(nanoseconds))
    match = _NUMBER.fullmatch(word)
    if match is None:
        raise wrong
    size, unit = float(match[1].replace("_", "")), match[2].rstrip("s")
    kind = {"tick": "ticks", "trade": "ticks", "dollar": "notional"}.get(unit, unit)
    if kind in {"ticks", "imbalance"}:
        if size != int(size) or not (2 if kind == "imbalance" else 1) <= size <= _MOST_EVENTS:
            raise wrong
    elif not 1e-12 <= size <= 1e18:
        raise wrong
    return Clock(kind, unit != "tick", size)
