"""What a run leaves behind: plain arrays and dictionaries, enough to draw its report again.

Nothing here knows NautilusTrader. Whoever ran the backtest fills a :class:`RunRecord`; the report, the summary and the
terminal lines are all made from it, so a saved record gives the same report later.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tengri_fast.errors import DataConversionError
from tengri_fast.report._files import plain, to_json_text, write_atomic
from tengri_fast.report.skill import Skill

__all__ = ["TABLES", "Denial", "Latency", "RunRecord"]

Table = dict[str, NDArray[Any]]

TABLES: dict[str, dict[str, type]] = {
    "equity": {"ts": np.uint64, "value": np.float64},
    "mid": {"ts": np.uint64, "price": np.float64},
    "fills": {
        "ts": np.uint64, "side": np.int8, "quantity": np.float64, "price": np.float64, "fee": np.float64,
        "tag": np.str_,
    },
    "trades": {
        "entry_ts": np.uint64, "entry_price": np.float64, "exit_ts": np.uint64, "exit_price": np.float64,
        "side": np.int8, "quantity": np.float64, "gross": np.float64, "fees": np.float64, "net": np.float64,
        "reason": np.str_,
    },
    "signals": {
        "ts": np.uint64, "mid": np.float64, "p_down": np.float64, "p_flat": np.float64, "p_up": np.float64,
        "value_bps": np.float64, "confidence": np.float64,
    },
}  # fmt: skip
"""Columns of the five tables and their types. Times are UTC nanoseconds, sides +1 (buy, long) and -1 (sell, short)."""

_FORMAT = "tengri_fast run record"
_VERSION = 1
_SOURCES = ("strategy", "drill")
_PERCENTILES = ("p50", "p99", "p999", "max")


@dataclass(frozen=True)
class Denial:
    """One order that the gate refused.

    Attributes
    ----------
    ts : int
        UTC nanoseconds.
    order_id, rule, reason : str
        The order, the rule that fired, and the sentence the venue would have sent back.
    value, limit : float or None
        What was found and what was allowed; None where the rule has no number or the number is not finite.
    source : str
        ``strategy``, or ``drill`` for an order that was made to be refused.
    """

    ts: int
    order_id: str
    rule: str
    value: float | None = None
    limit: float | None = None
    reason: str = ""
    source: str = "strategy"

    def __post_init__(self) -> None:
        if self.source not in _SOURCES:
            raise DataConversionError(f"`denials.source` must be one of {', '.join(_SOURCES)}, was '{self.source}'")
        if not self.rule:
            raise DataConversionError(f"`denials.rule` must not be empty (order '{self.order_id}')")
        for name in ("value", "limit"):
            number = getattr(self, name)
            finite = number is not None and math.isfinite(number)
            object.__setattr__(self, name, float(number) if finite else None)
        object.__setattr__(self, "ts", _natural("denials.ts", self.ts))


@dataclass(frozen=True, eq=False)
class Latency:
    """Tick-to-signal times.

    Attributes
    ----------
    edges : ndarray of float64 [m + 1]
        Bucket edges in nanoseconds, increasing.
    counts : ndarray of uint64 [m]
        Times per bucket.
    p50, p99, p999, max : float
        Nanoseconds. Left out, they are read from the buckets: the upper edge of the bucket that holds the time of that
        rank, so never too small.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.uint64]
    p50: float = math.nan
    p99: float = math.nan
    p999: float = math.nan
    max: float = math.nan

    def __post_init__(self) -> None:
        edges = _column("latency.edges", self.edges, np.float64)
        counts = _column("latency.counts", self.counts, np.uint64)
        if len(edges) != len(counts) + 1:
            raise DataConversionError(
                f"`latency.edges` must have one entry more than `latency.counts`, had {len(edges)} and {len(counts)}"
            )
        if len(edges) and (edges[0] < 0.0 or not (np.diff(edges) > 0.0).all()):
            raise DataConversionError("`latency.edges` must increase from >= 0")
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "counts", counts)
        for name, rank in zip(_PERCENTILES, (0.5, 0.99, 0.999, 1.0), strict=True):
            given = getattr(self, name)
            value = math.nan if given is None else float(given)
            object.__setattr__(self, name, value if math.isfinite(value) else self._rank(rank))

    def _rank(self, share: float) -> float:
        running = np.cumsum(self.counts)
        if not len(running) or not running[-1]:
            return math.nan
        wanted = max(1, math.ceil(share * int(running[-1])))
        return float(self.edges[1:][int(np.searchsorted(running, wanted))])

    @property
    def total(self) -> int:
        """Times recorded."""
        return int(self.counts.sum())

    def percentiles(self) -> dict[str, float]:
        """``p50``, ``p99``, ``p999``, ``max`` in nanoseconds; NaN where nothing was recorded."""
        return {name: getattr(self, name) for name in _PERCENTILES}


@dataclass(frozen=True, eq=False, kw_only=True)
class RunRecord:
    """Everything a report says about one run.

    Tables may be given as mappings of column to any array-like; they are checked and converted once. Column names and
    types are in :data:`TABLES`; ``fills.tag`` and ``trades.reason`` may be left out, and so may ``trades.net``.

    Attributes
    ----------
    name, title : str
        Short name of the run (used in file titles) and its headline.
    instrument_id, currency : str
        What was traded, and the currency of every amount.
    starting_equity : float
        Account equity before the run.
    equity : table ``ts``, ``value``
        Account equity after fees; at least one row. PnL = last value - `starting_equity`.
    mid : table ``ts``, ``price``
        Mid prices, as many as should be drawn.
    fills, trades, signals : tables
        Executions; round trips (``net = gross - fees``); model outputs.
    skill : Skill, optional
        Evaluation on fresh books (:func:`tengri_fast.report.skill.evaluate`).
    latency : Latency, optional
        Tick-to-signal times.
    submitted, filled : int
        Orders submitted by the strategy (drill orders included) and orders that were filled at least in part.
    denied : dict of str to int, optional
        Denials per rule; default: counted from `denials`. May count more than are listed, never fewer.
    denials : list of Denial
        The denials to list.
    notes : list of str
        Printed prominently: what the reader must know before believing a number.
    span : (int, int), optional
        First and last event time; default: that of `mid`, else of `equity`.
    isa : str
        Instruction set that computed the run.
    versions : dict of str to str
        Package versions.
    data_sha256, config_sha256, model_sha256
        Hashes: per data file; of the configuration (default: of `config_text`); of the model, or one per model.
    config_text : str
        The configuration as it was read.
    model_card, assumptions, data_facts, machine : dict
        Facts to print as they are: the model, costs and latency of the simulation, source and licence of the data, the
        machine.
    seeds : dict of str to int
        Every seed used.
    trials : int, optional
        How many configurations were tried before this one.
    run_seconds : float, optional
        Wall-clock time of the run.
    commit : str
        Source revision.
    """

    name: str
    title: str
    instrument_id: str
    currency: str
    starting_equity: float
    equity: Table
    mid: Table = field(default_factory=dict)
    fills: Table = field(default_factory=dict)
    trades: Table = field(default_factory=dict)
    signals: Table = field(default_factory=dict)
    skill: Skill | None = None
    latency: Latency | None = None
    submitted: int = 0
    filled: int = 0
    denied: dict[str, int] = field(default_factory=dict)
    denials: list[Denial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    span: tuple[int, int] | None = None
    isa: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    data_sha256: dict[str, str] = field(default_factory=dict)
    config_sha256: str = ""
    config_text: str = ""
    model_sha256: str | dict[str, str] = ""
    model_card: dict[str, Any] = field(default_factory=dict)
    assumptions: dict[str, Any] = field(default_factory=dict)
    data_facts: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, int] = field(default_factory=dict)
    trials: int | None = None
    run_seconds: float | None = None
    commit: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("name", "title", "instrument_id", "currency"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise DataConversionError(f"`{name}` must be a text that is not empty, was {value!r}")
        for name in ("isa", "config_text", "config_sha256", "commit"):
            if not isinstance(getattr(self, name), str):
                raise DataConversionError(f"`{name}` must be a text, was {getattr(self, name)!r}")
        put(self, "starting_equity", _finite("starting_equity", self.starting_equity))
        for name in TABLES:
            put(self, name, _table(name, getattr(self, name)))
        if not len(self.equity["ts"]):
            raise DataConversionError("`equity` must have at least one row, had 0")
        self._check_trades()
        if self.skill is not None and not isinstance(self.skill, Skill):
            put(self, "skill", Skill.from_dict(self.skill))
        if self.latency is not None and not isinstance(self.latency, Latency):
            put(self, "latency", _build("latency", Latency, self.latency))
        put(self, "denials", [d if isinstance(d, Denial) else _build("denials", Denial, d) for d in self.denials])
        put(self, "denied", self._count_denials())
        for name in ("submitted", "filled"):
            put(self, name, _natural(name, getattr(self, name)))
        if self.trials is not None:
            put(self, "trials", _natural("trials", self.trials))
        if self.run_seconds is not None:
            put(self, "run_seconds", _finite("run_seconds", self.run_seconds))
        put(self, "notes", [str(note) for note in _not_a_text("notes", self.notes)])
        put(self, "span", self._find_span())
        if not self.config_sha256 and self.config_text:
            put(self, "config_sha256", hashlib.sha256(self.config_text.encode("utf-8", "surrogatepass")).hexdigest())
        for name in ("versions", "data_sha256"):
            put(self, name, {str(k): str(v) for k, v in _mapping(name, getattr(self, name)).items()})
        for name in ("model_card", "assumptions", "data_facts", "machine"):
            put(self, name, {str(k): _fact(v) for k, v in _mapping(name, getattr(self, name)).items()})
        put(self, "seeds", {str(k): int(v) for k, v in _mapping("seeds", self.seeds).items()})
        if not isinstance(self.model_sha256, str):
            put(self, "model_sha256", {str(k): str(v) for k, v in _mapping("model_sha256", self.model_sha256).items()})

    def _check_trades(self) -> None:
        t = self.trades
        late = np.flatnonzero(t["exit_ts"] < t["entry_ts"])
        if len(late):
            raise DataConversionError(f"`trades.exit_ts` must be >= `entry_ts`, row {late[0]} was before it")
        expected = t["gross"] - t["fees"]
        # Money is rounded to the currency's decimals on its way here, so equality is to a millionth.
        wrong = np.flatnonzero(np.abs(t["net"] - expected) > 1e-6 + 1e-9 * np.abs(t["gross"]))
        if len(wrong):
            row = int(wrong[0])
            raise DataConversionError(
                f"`trades.net` must be gross - fees = {expected[row]}, row {row} was {t['net'][row]}"
            )

    def _count_denials(self) -> dict[str, int]:
        listed: dict[str, int] = {}
        for denial in self.denials:
            listed[denial.rule] = listed.get(denial.rule, 0) + 1
        if not self.denied:
            return dict(sorted(listed.items()))
        given = {str(k): _natural(f"denied.{k}", v) for k, v in _mapping("denied", self.denied).items()}
        for rule, count in listed.items():
            if given.get(rule, 0) < count:
                raise DataConversionError(f"`denied.{rule}` must be >= {count} listed, was {given.get(rule, 0)}")
        return dict(sorted(given.items()))

    def _find_span(self) -> tuple[int, int]:
        if self.span is None:
            times = self.mid["ts"] if len(self.mid["ts"]) else self.equity["ts"]
            return int(times[0]), int(times[-1])
        try:
            first, last = self.span
        except (TypeError, ValueError) as error:
            raise DataConversionError(f"`span` must be two times, was {self.span!r}") from error
        first, last = _natural("span", first), _natural("span", last)
        if last < first:
            raise DataConversionError(f"`span` must not end before it begins, was {first} to {last}")
        return first, last

    # Numbers that every page needs ------------------------------------------------------------------------------------

    @property
    def pnl(self) -> float:
        """Last equity minus starting equity: after fees, open positions at their last value."""
        return float(self.equity["value"][-1]) - self.starting_equity

    @property
    def fees(self) -> float:
        """Fees of all fills; a rebate is negative."""
        return float(math.fsum(self.fills["fee"].tolist()))

    def denied_by_source(self) -> dict[str, dict[str, int]]:
        """Listed denials per source and rule; an order refused in the drill is no mistake of the strategy."""
        out: dict[str, dict[str, int]] = {source: {} for source in _SOURCES}
        for denial in self.denials:
            rules = out[denial.source]
            rules[denial.rule] = rules.get(denial.rule, 0) + 1
        return out

    # Files ------------------------------------------------------------------------------------------------------------

    def to_json(self, path: str | Path) -> Path:
        """Save the record: `path` (JSON), and beside it one ``.npz`` with the arrays.

        The array file carries the first digits of its SHA-256 in its name, is written first and is checked on reading,
        so that the JSON never names arrays of another run; the one of an older record at `path` is removed last.

        Parameters
        ----------
        path : str or Path
            Ends in ``.json``.

        Returns
        -------
        Path
            `path`.
        """
        target = _json_path(path)
        arrays = {f"{name}.{column}": data for name in TABLES for column, data in getattr(self, name).items()}
        if self.latency is not None:
            arrays |= {"latency.edges": self.latency.edges, "latency.counts": self.latency.counts}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        packed = buffer.getvalue()
        digest = hashlib.sha256(packed).hexdigest()
        before = _arrays_of(target)
        beside = target.with_name(f"{target.stem}.{digest[:16]}.npz")
        body: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, "arrays": beside.name, "arrays_sha256": digest}
        for item in fields(self):
            if item.name in TABLES:
                continue
            value = getattr(self, item.name)
            if isinstance(value, Skill):
                value = value.to_dict()
            elif isinstance(value, Latency):
                value = value.percentiles()
            elif item.name == "denials":
                value = [dict(vars(denial)) for denial in self.denials]
            body[item.name] = value
        write_atomic(beside, packed)
        write_atomic(target, to_json_text(body).encode())
        if before is not None and before != beside:
            before.unlink(missing_ok=True)
        return target

    @classmethod
    def from_json(cls, path: str | Path) -> RunRecord:
        """Read a record that :meth:`to_json` saved.

        Raises
        ------
        DataConversionError
            If a file is missing, damaged, of another kind, or the arrays are not those the JSON names.
        """
        target = _json_path(path)
        try:
            body = json.loads(target.read_bytes())
        except OSError as error:
            raise DataConversionError(f"`{target.name}` cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise DataConversionError(f"`{target.name}` is not JSON: {error}") from error
        if not isinstance(body, dict) or body.get("format") != _FORMAT:
            raise DataConversionError(f"`{target.name}` is not a {_FORMAT}")
        if body.get("version") != _VERSION:
            raise DataConversionError(f"`version` of {target.name} must be {_VERSION}, was {body.get('version')!r}")
        tables, latency = _read_arrays(target, body)
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in body.items() if key in known}
        values |= tables
        if latency:
            values["latency"] = {**(body.get("latency") or {}), **latency}
        try:
            return cls(**values)
        except TypeError as error:
            raise DataConversionError(f"`{target.name}` is not a whole record: {error}") from error


def _json_path(path: str | Path) -> Path:
    target = Path(path)
    if target.suffix != ".json":
        raise DataConversionError(f"`path` must end in .json, was '{target.name}'")
    return target


def _arrays_of(target: Path) -> Path | None:
    """The array file of the record that now stands at `target`, if one does."""
    try:
        body = json.loads(target.read_bytes())
    except (OSError, ValueError):
        return None
    name = body.get("arrays") if isinstance(body, dict) and body.get("format") == _FORMAT else None
    return target.with_name(name) if isinstance(name, str) and Path(name).name == name else None


def _read_arrays(target: Path, body: Mapping[str, Any]) -> tuple[dict[str, Table], dict[str, NDArray[Any]]]:
    name = body.get("arrays")
    if not isinstance(name, str) or Path(name).name != name:
        raise DataConversionError(f"`arrays` must name a file beside {target.name}, was {name!r}")
    try:
        packed = target.with_name(name).read_bytes()
    except OSError as error:
        raise DataConversionError(f"`{name}` must stand beside {target.name}: {error.strerror}") from error
    if hashlib.sha256(packed).hexdigest() != body.get("arrays_sha256"):
        raise DataConversionError(f"`{name}` is not the file that {target.name} was saved with (SHA-256 differs)")
    tables: dict[str, Table] = {table: {} for table in TABLES}
    latency: dict[str, NDArray[Any]] = {}
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
            for key in archive.files:
                table, _, column = key.partition(".")
                (latency if table == "latency" else tables.setdefault(table, {}))[column] = archive[key]
    except (ValueError, zipfile.BadZipFile) as error:
        raise DataConversionError(f"`{name}` cannot be read: {error}") from error
    unknown = sorted(set(tables) - set(TABLES))
    if unknown:
        raise DataConversionError(f"`{name}` holds a table that is not known: {unknown[0]}")
    return tables, latency


def _build(name: str, kind: type[Any], value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise DataConversionError(f"`{name}` must be a {kind.__name__} or a mapping, was {type(value).__name__}")
    try:
        return kind(**value)
    except TypeError as error:
        raise DataConversionError(f"`{name}` does not fit: {error}") from error


def _mapping(name: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise DataConversionError(f"`{name}` must be a mapping, was {type(value).__name__}")
    return value


def _not_a_text(name: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DataConversionError(f"`{name}` must be a list, was {type(value).__name__}")
    return value


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DataConversionError(f"`{name}` must be a number, was {value!r}") from error
    if not math.isfinite(number):
        raise DataConversionError(f"`{name}` must be finite, was {number}")
    return number


def _natural(name: str, value: Any) -> int:
    try:
        number = int(value)
        exact = number == value
    except (TypeError, ValueError, OverflowError) as error:
        raise DataConversionError(f"`{name}` must be a whole number, was {value!r}") from error
    if not exact or number < 0:
        raise DataConversionError(f"`{name}` must be a whole number >= 0, was {value!r}")
    return number


def _fact(value: Any) -> Any:
    """A fact as JSON holds it, so that a saved record and its original print the same."""
    found = plain(value)
    return found if isinstance(found, str | int | float | bool | list | dict | None) else str(found)


def _column(name: str, values: ArrayLike, kind: type) -> NDArray[Any]:
    try:
        raw = np.asarray(values)
    except ValueError as error:
        raise DataConversionError(f"`{name}` must be one column: {error}") from error
    if raw.ndim != 1:
        raise DataConversionError(f"`{name}` must have one dimension, had {raw.ndim}")
    if kind is np.str_:
        if len(raw) and raw.dtype.kind != "U":
            raise DataConversionError(f"`{name}` must hold texts, was {raw.dtype}")
        return np.ascontiguousarray(raw, dtype=np.str_)
    if len(raw) and raw.dtype.kind not in "iufb":
        raise DataConversionError(f"`{name}` must hold numbers, was {raw.dtype}")
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        row = int(np.flatnonzero(~np.isfinite(raw))[0])
        raise DataConversionError(f"`{name}` must be finite, row {row} was {raw[row]}")
    if kind is not np.float64 and len(raw):
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        smallest, largest = raw.min(), raw.max()
        if smallest < low or largest > high or (raw.dtype.kind == "f" and (raw != np.floor(raw)).any()):
            raise DataConversionError(
                f"`{name}` must hold whole numbers from {low} to {high}, was {smallest} to {largest}"
            )
    return np.ascontiguousarray(raw, dtype=kind)


def _table(name: str, given: Any) -> Table:
    schema = TABLES[name]
    columns = dict(_mapping(name, given))
    unknown = sorted(set(columns) - set(schema))
    if unknown:
        raise DataConversionError(f"`{name}` has no column `{unknown[0]}`; it has {', '.join(schema)}")
    if not columns:
        return {column: np.empty(0, kind) for column, kind in schema.items()}
    optional = {column for column, kind in schema.items() if kind is np.str_} | ({"net"} & set(schema))
    missing = [column for column in schema if column not in columns and column not in optional]
    if missing:
        raise DataConversionError(f"`{name}` must have the column `{missing[0]}`")
    table = {column: _column(f"{name}.{column}", values, schema[column]) for column, values in columns.items()}
    lengths = {len(values) for values in table.values()}
    if len(lengths) > 1:
        text = ", ".join(f"{column} {len(values)}" for column, values in table.items())
        raise DataConversionError(f"columns of `{name}` must have equal lengths, were {text}")
    size = lengths.pop()
    for column in optional - set(table):
        table[column] = table["gross"] - table["fees"] if column == "net" else np.full(size, "", np.str_)
    _check_table(name, table)
    return {column: table[column] for column in schema}


def _check_table(name: str, table: Table) -> None:
    if "ts" in table:
        back = np.flatnonzero(table["ts"][1:] < table["ts"][:-1])
        if len(back):
            raise DataConversionError(f"`{name}.ts` must not decrease, row {back[0] + 1} was before row {back[0]}")
    if "side" in table and not np.isin(table["side"], (-1, 1)).all():
        row = int(np.flatnonzero(~np.isin(table["side"], (-1, 1)))[0])
        raise DataConversionError(f"`{name}.side` must be +1 or -1, row {row} was {table['side'][row]}")
    if "quantity" in table and (table["quantity"] <= 0.0).any():
        row = int(np.flatnonzero(table["quantity"] <= 0.0)[0])
        raise DataConversionError(f"`{name}.quantity` must be > 0, row {row} was {table['quantity'][row]}")
    if name == "signals":
        chances = np.stack([table["p_down"], table["p_flat"], table["p_up"]], axis=1)
        # float32 softmax outputs sum to one within a few units in the last place; calibration may lose a little more.
        bad = (chances < -1e-6).any(axis=1) | (np.abs(chances.sum(axis=1) - 1.0) > 1e-3)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataConversionError(
                f"`signals` probabilities must be >= 0 and sum to 1, row {row} was {chances[row].tolist()}"
            )
