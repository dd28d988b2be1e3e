"""Headlines as observations: sentiment, novelty, relevance.

A headline exists from the end of the unit of its time stamp: one stamped 13:58 may have appeared at any moment of that
minute, so a history counts it from 13:59:00 (see `available_from`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self

import msgspec
import numpy as np
import numpy.typing as npt

from tengri_fast.errors import DataConversionError, FeatureExtractionError
from tengri_fast.features.external.common import (
    DAY_NS,
    LAST_NS,
    RESOLUTIONS,
    NotPickled,
    SourceCounters,
    SourceInfo,
    StrPath,
    Values,
    available_from,
    checked_delay,
    columns_from,
    decode_state,
    number,
    read_table,
    sound_counters,
    stamp_of,
    time_order,
    usable_time,
)
from tengri_fast.features.external.lexicon import score_tokens
from tengri_fast.features.external.novelty import NoveltyMemory, signature_of
from tengri_fast.features.external.text import MAX_CHARACTERS, Token, clean, tokenize
from tengri_fast.market.columns import ExternalColumns

__all__ = ["TOPICS", "NewsNLP", "TextModel"]

_VERSION = 1
_MOST_NAMES = 200

#: Names of a subject (relevance 1) and words of its surroundings (relevance 0.5). A name in capitals counts in capitals
#: only ("SOL" is not "sol"), any other in any case.
TOPICS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "BTC": (("bitcoin", "bitcoins", "btc", "xbt", "btcusd", "btcusdt", "xbtusd", "satoshi"),
            ("crypto", "cryptocurrency", "cryptocurrencies", "cryptos", "halving", "stablecoin", "tether", "USDT")),
    "ETH": (("ethereum", "ether", "ETH", "ethusd", "ethusdt", "vitalik"),
            ("crypto", "cryptocurrency", "cryptocurrencies", "cryptos", "defi", "nft", "nfts", "stablecoin")),
    "SOL": (("solana", "SOL", "solusdt"), ("crypto", "cryptocurrency", "altcoin", "altcoins", "defi", "nft")),
    "XRP": (("ripple", "xrp", "xrpusdt"), ("crypto", "cryptocurrency", "altcoin", "altcoins")),
    "GOLD": (("gold", "bullion", "xau", "xauusd"), ("silver", "precious metal", "precious metals", "comex")),
    "OIL": (("crude", "oil", "brent", "wti", "opec"), ("gasoline", "petroleum", "refinery", "energy prices")),
    "SPX": (("s&p 500", "SPX", "SPY", "wall street", "us stocks"), ("dow", "nasdaq", "stocks", "equities", "shares")),
    "USD": (("dollar", "greenback", "DXY", "USD"), ("fed", "federal reserve", "treasury", "treasuries", "yields")),
    "EURUSD": (("euro", "eurusd", "EUR"), ("ecb", "eurozone", "euro zone", "dollar")),
}  # fmt: skip


class TextModel(Protocol):
    """A model of sentiment from outside, such as an ONNX session with its tokenizer wrapped in a function."""

    def __call__(self, headline: str, /) -> float:
        """Sentiment of one headline, from -1 to 1. Equal text must give equal bits."""


class _State(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    kind: str
    version: int
    topic: str
    names: tuple[str, ...]
    related: tuple[str, ...]
    memory: int
    horizon_ns: int
    min_relevance: float
    min_novelty: float
    resolution: str
    midnight_is_date: bool
    has_model: bool
    last_ts: int
    times: bytes
    signatures: bytes
    counters: SourceCounters


class _Names:
    """Finds names of one or more words among tokens."""

    def __init__(self, field: str, names: Iterable[str]) -> None:
        self.given = tuple(names)
        if len(self.given) > _MOST_NAMES:
            raise FeatureExtractionError(f"`{field}` must be at most {_MOST_NAMES} names, were {len(self.given)}")
        self._by_first: dict[str, list[tuple[tuple[str, ...], tuple[str, ...] | None]]] = {}
        for name in self.given:
            tokens = tokenize(clean(name)) if isinstance(name, str) else []
            plain = tuple(token.lower for token in tokens)
            if not plain or "" in plain:
                raise FeatureExtractionError(f"`{field}` must hold names of words, held {name!r:.60}")
            exact = tuple(token.text for token in tokens) if name.isupper() else None
            self._by_first.setdefault(plain[0], []).append((plain, exact))

    def found(self, tokens: Sequence[Token]) -> bool:
        for i, token in enumerate(tokens):
            for plain, exact in self._by_first.get(token.lower, ()):
                part = tokens[i : i + len(plain)]
                if tuple(t.lower for t in part) == plain and (exact is None or tuple(t.text for t in part) == exact):
                    return True
        return False


class NewsNLP(NotPickled):
    """Headlines as observations ``[sentiment, novelty, relevance, NaN]``.

    Parameters
    ----------
    topic : str
        A row of `TOPICS` ("BTC"), or "" for all news.
    names, related : iterable of str
        Further names of the subject, and words of its surroundings.
    memory : int
        How many headlines are remembered for novelty, 1 to 65,536 (520 bytes each).
    horizon_ns : int
        After this time a headline is forgotten, and the same words are new again.
    min_relevance, min_novelty : float
        Headlines below are dropped (counter `filtered`). 0 keeps all.
    resolution : {"exact", "second", "minute", "hour", "day"}
        How finely the publisher stamps, for histories. A date without a time is always taken as "day".
    midnight_is_date : bool
        Take a stamp of exactly 00:00:00 for a date without a time.
    model : TextModel, optional
        Gives the sentiment in place of the lexicon. An answer that is not a number from -1 to 1 makes the headline
        invalid; an error of the model passes through and leaves the state as it was.

    Notes
    -----
    Relevance is 1 if a name is in the headline, 0.5 for a word of the surroundings, else 0; without topic and names it
    is 1. Novelty is 1 minus the greatest likeness to a remembered headline (`novelty`): the first of several equal
    headlines counts in full, the later ones carry 0. Rules in this order: no text, no word in it, or time unusable
    (`invalid`), older than the last accepted headline (`backward`), below `min_relevance` (`filtered`), equal to a
    remembered one with the same time (`duplicate`), below `min_novelty` (`filtered`), model out of range (`invalid`).
    Only accepted headlines are remembered. Of a text longer than 1,000 characters the beginning is read (`truncated`).
    """

    name = "NewsNLP"
    info = SourceInfo(
        "NewsNLP",
        "Sentiment, novelty and relevance of timestamped headlines",
        ("sentiment", "novelty", "relevance", ""),
        ("-1..1", "0..1", "0..1", ""),
        DAY_NS,
    )

    __slots__ = ("_last_ts", "_memory", "_names", "_related", "counters", "horizon_ns", "memory", "midnight_is_date",
                 "min_novelty", "min_relevance", "model", "resolution", "topic")  # fmt: skip

    def __init__(self, topic: str = "", *, names: Iterable[str] = (), related: Iterable[str] = (), memory: int = 512,
                 horizon_ns: int = 3 * DAY_NS, min_relevance: float = 0.0, min_novelty: float = 0.0,
                 resolution: str = "minute", midnight_is_date: bool = True, model: TextModel | None = None
                 ) -> None:  # fmt: skip
        if topic and topic not in TOPICS:
            raise FeatureExtractionError(f"`topic` must be one of {', '.join(TOPICS)} or empty, was {topic!r}; "
                                         f"give `names` for another subject")  # fmt: skip
        for field, value in (("min_relevance", min_relevance), ("min_novelty", min_novelty)):
            if not 0.0 <= number(value) <= 1.0:
                raise FeatureExtractionError(f"`{field}` must be from 0 to 1, was {value!r}")
        if resolution not in RESOLUTIONS:
            raise FeatureExtractionError(f"`resolution` must be one of {', '.join(RESOLUTIONS)}, was {resolution!r}")
        if model is not None and not callable(model):
            raise FeatureExtractionError(f"`model` must be callable with a headline, was {type(model).__name__}")
        self.topic = topic
        self._names = _Names("names", names)
        self._related = _Names("related", related)
        self.memory = memory
        self.horizon_ns = horizon_ns
        self.min_relevance = float(min_relevance)
        self.min_novelty = float(min_novelty)
        self.resolution = resolution
        self.midnight_is_date = bool(midnight_is_date)
        self.model = model
        self.reset()

    def reset(self) -> None:
        """Forget everything but the parameters."""
        self._memory = NoveltyMemory(self.memory, self.horizon_ns)
        self._last_ts = 0
        self.counters = SourceCounters()

    @property
    def nbytes(self) -> int:
        """Memory of the remembered headlines in bytes; it does not grow."""
        return self._memory.nbytes

    def relevance(self, headline: str) -> float:
        """1 if a name of the subject is in the headline, 0.5 for its surroundings, 0 for neither."""
        return self._relevance(tokenize(clean(headline)))

    def _relevance(self, tokens: list[Token]) -> float:
        names, related = _TOPIC_NAMES.get(self.topic, (None, None))
        if names is None and not self._names.given:
            return 1.0
        if self._names.found(tokens) or (names is not None and names.found(tokens)):
            return 1.0
        return 0.5 if self._related.found(tokens) or (related is not None and related.found(tokens)) else 0.0

    def push(self, ts_event: int, headline: str) -> Values | None:
        """Take one headline.

        Parameters
        ----------
        ts_event : int
            The moment from which it exists, UTC ns: live the time of receipt, in a history `available_from` of its
            stamp.
        headline : str

        Returns
        -------
        tuple of 4 float, or None
            The values of the observation, None if a rule dropped the headline.
        """
        count = self.counters
        text = clean(headline) if isinstance(headline, str) else ""
        tokens = tokenize(text)
        if not usable_time(ts_event) or not any(token.lower not in ("", ",") for token in tokens):
            count.invalid += 1
            return None
        if ts_event < self._last_ts:
            count.backward += 1
            return None
        relevance = self._relevance(tokens)
        if relevance < self.min_relevance:
            count.filtered += 1
            return None
        signature = signature_of(tokens)
        likeness, again = self._memory.likeness(int(ts_event), signature)
        if again:
            count.duplicate += 1
            return None
        if 1.0 - likeness < self.min_novelty:
            count.filtered += 1
            return None
        score = score_tokens(tokens).score if self.model is None else number(self.model(text))
        if not -1.0 <= score <= 1.0:
            count.invalid += 1
            return None
        self._memory.add(int(ts_event), signature)
        self._last_ts = int(ts_event)
        count.accepted += 1
        count.truncated += len(headline) > MAX_CHARACTERS
        return score + 0.0, 1.0 - likeness, relevance, math.nan

    def observations(self, ts_event: npt.ArrayLike, headlines: Sequence[Any], *, delay_ns: int = 0) -> ExternalColumns:
        """Observations of a history, which continues where the state stands.

        Parameters
        ----------
        ts_event : array_like of int [n]
            The moments from which the headlines exist, UTC ns; rows that run backward are first sorted into place
            (stable).
        headlines : sequence of str [n]
        delay_ns : int
            From publication to receipt: ``ts_init = ts_event + delay_ns``.

        Returns
        -------
        ExternalColumns
            What `push` would have returned, row by row.
        """
        checked_delay(delay_ns)
        times = np.asarray(ts_event)
        if times.ndim != 1 or (times.size and times.dtype.kind not in "iu"):
            raise DataConversionError(f"`ts_event` must be one column of whole nanoseconds, had type {times.dtype} and "
                                      f"shape {times.shape}")  # fmt: skip
        if len(times) != len(headlines):
            raise DataConversionError(f"`headlines` must have {len(times)} rows as `ts_event`, had {len(headlines)}")
        order = time_order(times, self.counters)
        rows = []
        for i in range(len(times)) if order is None else order.tolist():
            values = self.push(int(times[i]), headlines[i])
            if values is not None:
                rows.append((int(times[i]), values))
        return columns_from(rows, delay_ns)

    def from_file(
        self, path: StrPath, *, columns: Mapping[str, str] | None = None, delay_ns: int = 0
    ) -> ExternalColumns:
        """Observations of the headlines in a Parquet, .csv or .csv.gz file.

        Parameters
        ----------
        path : path
        columns : mapping, optional
            Our field to the file's column where that differs: time ("published"), headline ("title"). No other column
            is read. Times are timestamps, whole UTC ns, or ISO 8601 text (UTC without an offset).
        delay_ns : int

        Returns
        -------
        ExternalColumns
            By the moment from which each exists: the end of its minute (`resolution`), the end of the day for a date.
            A row without a usable time or text is counted as invalid.
        """
        found = read_table(path, {"time": "published", "headline": "title"}, columns)
        return self.observations(*self.stamped(found["time"], found["headline"]), delay_ns=delay_ns)

    def stamped(self, stamps: Iterable[Any], headlines: Iterable[Any]) -> tuple[npt.NDArray[np.int64], list[Any]]:
        """(moments from which the headlines exist, headlines) for a publisher's stamps, by the rules of this source.

        Rows without a usable stamp are counted as invalid and left out.
        """
        times, kept = [], []
        for value, headline in zip(stamps, headlines, strict=True):
            stamp, is_date = stamp_of(value)
            if stamp < 0:
                self.counters.invalid += 1
                continue
            resolution = "day" if is_date else self.resolution
            times.append(available_from(stamp, resolution, midnight_is_date=self.midnight_is_date))
            kept.append(headline)
        return np.array(times, np.int64), kept

    def copy(self) -> Self:
        """An independent source in the same state, with the same model."""
        return type(self).from_bytes(self.to_bytes(), model=self.model)

    def to_bytes(self) -> bytes:
        """Parameters and state, for `from_bytes`. The model does not travel."""
        return msgspec.msgpack.encode(_State(
            self.name, _VERSION, self.topic, self._names.given, self._related.given, self.memory, self.horizon_ns,
            self.min_relevance, self.min_novelty, self.resolution, self.midnight_is_date, self.model is not None,
            self._last_ts, **self._memory.state(), counters=self.counters))  # fmt: skip

    @classmethod
    def from_bytes(cls, data: bytes, *, model: TextModel | None = None) -> Self:
        """A source that continues with the same bits.

        Raises
        ------
        FeatureExtractionError
            If `data` is not such a state, or a model is missing or given where there was none.
        """
        state = decode_state(data, cls.name, _VERSION, _State)
        if state.has_model != (model is not None):
            raise FeatureExtractionError(f"`model` must be {'given again' if state.has_model else 'None'}: the state "
                                         f"was {'' if state.has_model else 'not '}made with one")  # fmt: skip
        if not (0 <= state.last_ts < LAST_NS and sound_counters(state.counters)):
            raise FeatureExtractionError("`data` must be a sound state of NewsNLP, had numbers out of range")
        source = cls(state.topic, names=state.names, related=state.related, memory=state.memory,
                     horizon_ns=state.horizon_ns, min_relevance=state.min_relevance, min_novelty=state.min_novelty,
                     resolution=state.resolution, midnight_is_date=state.midnight_is_date, model=model)  # fmt: skip
        source._memory.restore(state.times, state.signatures)
        source._last_ts = state.last_ts
        source.counters = state.counters
        return source


_TOPIC_NAMES: dict[str, tuple[_Names | None, _Names | None]] = {
    topic: (_Names("names", names), _Names("related", related)) for topic, (names, related) in TOPICS.items()
}
