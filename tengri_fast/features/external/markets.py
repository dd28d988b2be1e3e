"""Files of prediction markets: the markets, their quotes, their settlement and the price that settles them.

An outcome is only ever used together with the time at which it became known. The column of outcomes in a file of
markets has no time and is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError
from tengri_fast.features.external.common import LAST_NS, SECOND_NS, StrPath, number_of_text, read_table
from tengri_fast.features.external.polymarket import PolymarketOdds, Settlement, _prices, _times
from tengri_fast.market.columns import ExternalColumns
from tengri_fast.market.fixed_point import through_fixed_point

__all__ = ["Market", "PriceFeed", "UpDownMarket", "read_markets", "read_odds", "read_price_feed",
           "read_up_down_markets", "select_markets", "strikes"]  # fmt: skip

MILLISECOND_NS = 1_000_000


class Market(NamedTuple):
    """What a market is about. It has no outcome on purpose."""

    slug: str
    question: str
    category: str


def read_markets(path: StrPath, columns: Mapping[str, str] | None = None) -> list[Market]:
    """Markets of a Parquet, .csv or .csv.gz file with the columns slug, question, category."""
    found = read_table(path, {name: name for name in Market._fields}, columns)
    rows = zip(*(found[name] for name in Market._fields), strict=True)
    return [Market(*("" if cell is None else str(cell) for cell in row)) for row in rows]


def select_markets(markets: Iterable[Market], *, category: str | None = None,
                   keywords: Sequence[str] = ()) -> list[Market]:  # fmt: skip
    """Markets of a category that have one of the keywords in their question or slug.

    Parameters
    ----------
    markets : iterable of Market
    category : str, optional
        Exactly this one; any if None.
    keywords : sequence of str
        Whole words, in any case; all markets if empty.
    """
    words = {word.casefold() for word in keywords}
    return [
        market
        for market in markets
        if (category is None or market.category == category)
        and (not words or words & set(re.findall(r"\w+", f"{market.question} {market.slug}".casefold())))
    ]


def read_odds(path: StrPath, markets: Iterable[str] | None = None, *, columns: Mapping[str, str] | None = None,
              settlements: Mapping[str, Settlement] | None = None, one_sided: str = "drop", max_spread: float = 1.0,
              delay_ns: int = 0) -> dict[str, ExternalColumns]:  # fmt: skip
    """One stream of observations for each market of a file.

    Parameters
    ----------
    path : path
    markets : iterable of str, optional
        Slugs; all of the file if None.
    columns, delay_ns
        As for `PolymarketOdds.from_file`.
    settlements : mapping, optional
        Slug to the time and outcome of its settlement, where that time is known.
    one_sided, max_spread
        As for `PolymarketOdds`.

    Returns
    -------
    dict of str to ExternalColumns
        In alphabetical order; a market that was asked for and is not in the file is an error.
    """
    wanted = None if markets is None else list(markets)
    keep = None if wanted is None else ("market", wanted)
    fields = {"ts_event": "ts_ns", "market": "slug", "bid": "bid", "ask": "ask"}
    found = read_table(path, fields, columns, keep=keep)
    names, row_of = np.unique(np.asarray(found["market"], dtype=np.str_), return_inverse=True)
    absent = sorted(set(wanted or []) - set(names.tolist()))
    if absent:
        raise DataConversionError(f"`markets` must be in {path}, {absent[0]!r} is not")
    times = _times(found["ts_event"])
    bid, ask = (through_fixed_point(_prices(name, found[name])) for name in ("bid", "ask"))
    order = np.argsort(row_of, kind="stable")
    ends = np.cumsum(np.bincount(row_of, minlength=len(names)))
    streams = {}
    for name, rows in zip(names.tolist(), np.split(order, ends[:-1]), strict=True):
        source = PolymarketOdds(name, one_sided=one_sided, max_spread=max_spread)
        streams[name] = source.observations(times[rows], bid[rows], ask[rows], delay_ns=delay_ns,
                                            settlement=(settlements or {}).get(name))  # fmt: skip
    return streams


def read_price_history(path: StrPath, *, market: str = "", delay_ns: int = 0) -> ExternalColumns:
    """The price history of one outcome, as Polymarket's public endpoint ``prices-history`` answers.

    Parameters
    ----------
    path : path
        JSON: ``{"history": [{"t": unix seconds, "p": price 0 to 1}, ...]}``.
    market : str
        A name for messages.
    delay_ns : int
        From publication to receipt.

    Returns
    -------
    ExternalColumns
        The price stands as bid and as ask, for the history has no quotes: the probability is right, and a spread of 0
        means that it is not known. Each exists from its own time on. What breaks a rule of `PolymarketOdds` is dropped.

    Raises
    ------
    DataConversionError
        If the file is missing or is not of this form.
    """
    file = Path(path)
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["history"]
        stamps = np.array([row["t"] for row in rows], dtype=np.float64)
        prices = np.array([row["p"] for row in rows], dtype=np.float64)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        form = '{"history": [{"t": seconds, "p": price}, ...]}'
        raise DataConversionError(f"`path` must be JSON of the form {form}, was {file.name}: {error!r}") from None
    bad = ~(np.isfinite(stamps) & (stamps >= 0) & (stamps < LAST_NS / SECOND_NS))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataConversionError(f"`t` of {file.name} must be unix seconds, row {row} was {stamps[row]}")
    times = np.rint(stamps * 1000).astype(np.int64) * MILLISECOND_NS
    return PolymarketOdds(market).observations(times, prices, prices, delay_ns=delay_ns)


class PriceFeed(NamedTuple):
    """A reference price as it reached us.

    Attributes
    ----------
    columns : ExternalColumns
        values ``[price, age in seconds at publication, NaN, NaN]`` by time of receipt.
    measured_ns : int64 [n]
        The moment each price stands for, UTC ns. It is earlier than the publication: a price must not be used from
        then on.
    """

    columns: ExternalColumns
    measured_ns: npt.NDArray[np.int64]

    def received(self, moment_ns: int) -> int | None:
        """When the first price that stands for `moment_ns` or later was received; None if there is none."""
        late = np.flatnonzero(self.measured_ns >= moment_ns)
        return None if not len(late) else int(self.columns.ts_init[late[0]])


def read_price_feed(path: StrPath, columns: Mapping[str, str] | None = None) -> PriceFeed:
    """A file of reference prices with the times of measurement, publication and receipt.

    Parameters
    ----------
    path : path
    columns : mapping, optional
        Our field to the file's column where that differs: measured ("feed_ts_ms"), published ("server_ts_ms"), received
        ("recv_ms"), all in ms, and price ("value").

    Returns
    -------
    PriceFeed
        Sorted by receipt. A row whose times are not in the order measured, published, received, whose price is not a
        positive number, or which was overtaken by a later measurement is left out.
    """
    fields = {"measured": "feed_ts_ms", "published": "server_ts_ms", "received": "recv_ms", "price": "value"}
    found = read_table(path, fields, columns)
    price = through_fixed_point(_prices("price", found["price"]))
    times = [_times(found[name]) for name in ("measured", "published", "received")]
    with np.errstate(invalid="ignore"):
        keep = (price > 0.0) & np.isfinite(price) & (times[0] >= 0) & (times[0] <= times[1]) & (times[1] <= times[2])
    keep &= times[2] < LAST_NS // MILLISECOND_NS
    price, (measured, published, received) = price[keep], [t[keep].astype(np.int64) * MILLISECOND_NS for t in times]
    order = np.argsort(received, kind="stable")
    price, measured, published, received = price[order], measured[order], published[order], received[order]
    newest = measured >= np.maximum.accumulate(measured) if len(measured) else np.empty(0, bool)
    price, measured, published, received = price[newest], measured[newest], published[newest], received[newest]
    values = np.column_stack([price, (published - measured) / SECOND_NS])
    return PriceFeed(ExternalColumns(published.astype(np.uint64), received.astype(np.uint64), values), measured)


class UpDownMarket(NamedTuple):
    """A market on whether a price ends above its strike.

    Attributes
    ----------
    slug : str
    start_ns, end_ns : int
        The strike is the price at the start; the price at the end decides. UTC ns.
    strike : float
        NaN if unknown. Known only from when the price at the start has been received.
    up_won : float
        1, 0, or NaN. Known only from when the price at the end has been received: use `settlement`.
    """

    slug: str
    start_ns: int
    end_ns: int
    strike: float
    up_won: float

    def settlement(self, feed: PriceFeed) -> Settlement | None:
        """The outcome with the time at which the deciding price was received; None if either is not known."""
        ts = feed.received(self.end_ns)
        return None if ts is None or self.up_won not in (0.0, 1.0) else Settlement(ts, self.up_won)


def read_up_down_markets(path: StrPath, columns: Mapping[str, str] | None = None) -> list[UpDownMarket]:
    """Up/down markets of a Parquet, .csv or .csv.gz file.

    Parameters
    ----------
    path : path
    columns : mapping, optional
        Our field to the file's column where that differs: slug, start ("start_sec"), end ("end_sec"), strike, up_won.
    """
    fields = {"slug": "slug", "start": "start_sec", "end": "end_sec", "strike": "strike", "up_won": "up_won"}
    found = read_table(path, fields, columns)
    start, end = (_times(found[name]) for name in ("start", "end"))
    markets = []
    for i, slug in enumerate(found["slug"]):
        if not 0 <= start[i] < end[i] < LAST_NS // SECOND_NS:
            raise DataConversionError(f"`start` must be before `end` in row {i}, were {start[i]} and {end[i]}")
        markets.append(
            UpDownMarket(
                str(slug),
                int(start[i]) * SECOND_NS,
                int(end[i]) * SECOND_NS,
                number_of_text(found["strike"][i]),
                number_of_text(found["up_won"][i]),
            )
        )
    return markets


def strikes(markets: Iterable[UpDownMarket], feed: PriceFeed) -> ExternalColumns:
    """Strikes as observations ``[strike, seconds to the end, NaN, NaN]``, each from when it could be known.

    Parameters
    ----------
    markets : iterable of UpDownMarket
        Those without a strike, or whose first price is not in the feed, are left out.
    feed : PriceFeed
    """
    rows = []
    for market in markets:
        if not market.strike > 0.0:
            continue
        ts = feed.received(market.start_ns)
        if ts is not None:
            rows.append((ts, market.strike, (market.end_ns - ts) / SECOND_NS))
    rows.sort(key=lambda row: row[0])
    times = np.array([row[0] for row in rows], np.uint64)
    return ExternalColumns(times, times, np.array([row[1:] for row in rows], np.float64).reshape(len(rows), 2))
