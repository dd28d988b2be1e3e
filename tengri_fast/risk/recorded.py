"""A portfolio as a JSON file: holdings, and how far limits were used, at one moment.

A running process hands the same document out, so that ``tengri risk report`` reads either. Keys of the file::

    {"format": 1, "ts": 1700000000000000000, "source": "...", "base_currency": "USD", "equity": 1000000.0,
     "positions": [{"instrument_id": "SPY.ARCA", "quantity": 100.0, "price": 450.0}],
     "limits": [{"rule": "MAX_GROSS_EXPOSURE", "scope": "portfolio", "value": 45000.0, "limit": 100000.0}]}

Every field of :class:`~tengri_fast.risk.holdings.Holdings` may stand in a position, in the singular; what is not known
(``null`` or absent) is the default there. ``ts`` is in UTC ns, 0 when not known. Unknown keys are errors: a misspelled
multiplier would change every number.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from tengri_fast.errors import ConfigurationError, DataConversionError
from tengri_fast.risk._files import written_whole
from tengri_fast.risk.holdings import Holdings

__all__ = [
    "LimitUse",
    "RecordedPortfolio",
    "decode_portfolio",
    "holdings_document",
    "limit_use",
    "portfolio_document",
    "read_holdings",
    "read_portfolio",
    "write_holdings",
]

FORMAT = 1

# Field of Holdings: key of a position. Numbers first, then texts.
_NUMBERS = {
    "quantities": "quantity",
    "prices": "price",
    "multipliers": "multiplier",
    "rates": "rate",
    "spreads": "spread",
    "depths": "depth",
    "volumes": "volume",
    "deltas": "delta",
    "gammas": "gamma",
}
_TEXTS = {"payoffs": "payoff", "asset_classes": "asset_class", "venues": "venue", "currencies": "currency"}
_DEFAULTS: dict[str, Any] = {"multiplier": 1.0, "rate": 1.0, "payoff": "linear"}


class LimitUse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How far one limit is used.

    Parameters
    ----------
    rule : str
        Name of the limit.
    value, limit : float or None
        What is measured and what is allowed, in ``unit``; None where there is no number.
    scope : str
        What it applies to: "portfolio", or a venue, an instrument, a strategy, a bucket by name.
    unit : str
        Of value and limit, for readers.
    hard : bool
        Whether the limit denies orders, or only warns.
    """

    rule: str
    value: float | None = None
    limit: float | None = None
    scope: str = "portfolio"
    unit: str = ""
    hard: bool = True

    @property
    def share(self) -> float | None:
        """Value over limit; None without both, infinite when nothing is allowed and something is there."""
        if self.value is None or self.limit is None:
            return None
        if self.limit == 0.0:
            return math.inf if self.value > 0.0 else 0.0
        return self.value / self.limit


class _Position(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    instrument_id: str
    quantity: float
    price: float
    multiplier: float = 1.0
    rate: float = 1.0
    payoff: str = "linear"
    spread: float | None = None
    depth: float | None = None
    volume: float | None = None
    asset_class: str = ""
    venue: str = ""
    currency: str = ""
    delta: float | None = None
    gamma: float | None = None


class _Document(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    format: int
    positions: list[_Position]
    base_currency: str = "USD"
    equity: float | None = None
    ts: int = 0
    source: str = ""
    limits: list[LimitUse] = []


@dataclass(frozen=True, eq=False)
class RecordedPortfolio:
    """What a portfolio file holds.

    Attributes
    ----------
    holdings : Holdings
    limits : tuple of LimitUse
    ts : int
        Moment, UTC ns; 0 when not known.
    source : str
        Where it comes from, in words.
    """

    holdings: Holdings
    limits: tuple[LimitUse, ...] = ()
    ts: int = 0
    source: str = ""


class _State(Protocol):
    def holdings(self) -> Holdings: ...


class _Gate(Protocol):
    def utilisation(self) -> Iterable[Any]: ...


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def holdings_document(
    holdings: Holdings, *, limits: Sequence[LimitUse] = (), ts: int = 0, source: str = ""
) -> dict[str, Any]:
    """Holdings as the document of the module's text: plain JSON, unknown numbers and defaults left out.

    Parameters
    ----------
    holdings : Holdings
    limits : sequence of LimitUse
    ts : int
        Moment, UTC ns; 0 when not known.
    source : str
        Where it comes from, in words.
    """
    positions = []
    for i, name in enumerate(holdings.instrument_ids):
        row: dict[str, Any] = {"instrument_id": name}
        for field, key in _NUMBERS.items():
            value = _known(getattr(holdings, field)[i])
            if value is not None and value != _DEFAULTS.get(key):
                row[key] = value
        for field, key in _TEXTS.items():
            text = getattr(holdings, field)[i]
            if text != _DEFAULTS.get(key, ""):
                row[key] = text
        positions.append(row)
    return {
        "format": FORMAT,
        "ts": int(ts),
        "source": source,
        "base_currency": holdings.base_currency,
        "equity": _known(holdings.equity),
        "positions": positions,
        "limits": [msgspec.to_builtins(limit) for limit in limits],
    }


def limit_use(row: Any) -> LimitUse:
    """One row of a gate's utilisation as a LimitUse.

    Parameters
    ----------
    row : Utilisation, mapping, struct, dataclass or object
        With ``rule`` (or ``code``), ``value``, ``limit`` and, if it likes, ``scope``, ``unit``, ``hard``. A limit that
        is infinite only warns.

    Raises
    ------
    DataConversionError
        When there is no name of a rule, or a number is none.
    """
    if isinstance(row, LimitUse):
        return row
    if not isinstance(row, Mapping):
        row = {name: getattr(row, name) for name in (*LimitUse.__struct_fields__, "code") if hasattr(row, name)}
    known: dict[str, Any] = {name: row[name] for name in LimitUse.__struct_fields__ if name in row}
    known["rule"] = known.get("rule") or row.get("code")
    if not known["rule"]:
        raise DataConversionError(f"a row of utilisation must have a `rule`, was {dict(row)!r}")
    for name in ("value", "limit"):
        number = known.get(name)
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int | float | np.number):
            raise DataConversionError(f"`{name}` of {known['rule']} must be a number, was {number!r}")
        if name == "limit" and math.isinf(float(number)):
            known["hard"] = False
        known[name] = _known(float(number))
    for name in ("rule", "scope", "unit"):
        if name in known:
            known[name] = str(known[name])
    if "hard" in known:
        known["hard"] = bool(known["hard"])
    return LimitUse(**known)


def portfolio_document(
    portfolio: _State, gate: _Gate | None = None, *, ts: int = 0, source: str = ""
) -> dict[str, Any]:
    """The document of a live portfolio, with the use of its gate's limits.

    Parameters
    ----------
    portfolio : PortfolioState
        Anything whose ``holdings()`` gives Holdings.
    gate : RiskGate, optional
        Anything whose ``utilisation()`` gives rows that :func:`limit_use` reads.
    ts : int
        Moment, UTC ns.
    source : str
        Which process, in words.

    Returns
    -------
    dict
        Plain JSON, as :func:`decode_portfolio` reads it.
    """
    limits = () if gate is None else tuple(limit_use(row) for row in gate.utilisation())
    return holdings_document(portfolio.holdings(), limits=limits, ts=ts, source=source)


_EXPECTED = re.compile(r"Expected `([^`]+)`, got `([^`]+)`(?: - at `\$\.?(.*)`)?$")
_MISSING = re.compile(r"Object missing required field `([^`]+)`(?: - at `\$\.?(.*)`)?$")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]+)`(?: - at `\$\.?(.*)`)?$")


def _explained(text: str) -> str:
    """msgspec's message in this package's order: key, rule, value."""
    if match := _EXPECTED.search(text):
        kinds = match[1].replace("object", "a table").replace("array", "a list").replace(" | ", " or ")
        return f"`{match[3] or 'the document'}` must be {kinds}, was {match[2]}"
    if match := _MISSING.search(text):
        return f"`{match[2] + '.' if match[2] else ''}{match[1]}` must be there, was missing"
    if match := _UNKNOWN.search(text):
        return f"`{match[2] + '.' if match[2] else ''}{match[1]}` is not a known key"
    return text


def decode_portfolio(data: bytes | str | Mapping[str, Any], name: str = "portfolio") -> RecordedPortfolio:
    """Read a document.

    Parameters
    ----------
    data : bytes, str or mapping
        JSON, or what it decodes to.
    name : str
        For messages.

    Returns
    -------
    RecordedPortfolio

    Raises
    ------
    DataConversionError
        When it is not JSON, a key is unknown, missing or of the wrong kind, or the holdings break a rule.
    """
    try:
        if isinstance(data, bytes | str):
            document = msgspec.json.decode(data, type=_Document)
        else:
            document = msgspec.convert(data, type=_Document)
    except msgspec.ValidationError as error:
        raise DataConversionError(f"{name}: {_explained(str(error))}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataConversionError(f"{name} is not JSON: {error}") from error
    if document.format != FORMAT:
        raise DataConversionError(f"{name}: `format` must be {FORMAT}, was {document.format}")
    if document.ts < 0:
        raise DataConversionError(f"{name}: `ts` must be >= 0, was {document.ts}")
    for i, position in enumerate(document.positions):
        if not position.instrument_id:
            raise DataConversionError(f"{name}: `positions[{i}].instrument_id` must not be empty")
    for i, limit in enumerate(document.limits):
        if not limit.rule:
            raise DataConversionError(f"{name}: `limits[{i}].rule` must not be empty")
    fields: dict[str, Any] = {
        field: [math.nan if getattr(row, key) is None else getattr(row, key) for row in document.positions]
        for field, key in _NUMBERS.items()
    }
    fields |= {field: tuple(getattr(row, key) for row in document.positions) for field, key in _TEXTS.items()}
    try:
        holdings = Holdings(
            tuple(row.instrument_id for row in document.positions),
            base_currency=document.base_currency,
            equity=math.nan if document.equity is None else document.equity,
            **fields,
        )
    except DataConversionError as error:
        raise DataConversionError(f"{name}: {error}") from error
    return RecordedPortfolio(holdings, tuple(document.limits), document.ts, document.source)


def read_portfolio(path: str | os.PathLike[str]) -> RecordedPortfolio:
    """Read a portfolio file: holdings, limits, moment and source.

    Raises
    ------
    ConfigurationError
        When there is no such file.
    DataConversionError
        As :func:`decode_portfolio`; the message begins with the name of the file.
    """
    source = Path(path)
    if not source.is_file():
        raise ConfigurationError(f"`portfolio` must name a file, was {str(source)!r}, which does not exist")
    return decode_portfolio(source.read_bytes(), source.name)


def read_holdings(path: str | os.PathLike[str]) -> Holdings:
    """The holdings of a portfolio file; errors as :func:`read_portfolio`."""
    return read_portfolio(path).holdings


def write_holdings(
    path: str | os.PathLike[str],
    holdings: Holdings,
    *,
    limits: Sequence[LimitUse] = (),
    ts: int = 0,
    source: str = "",
) -> None:
    """Write a portfolio file: all of it or, when anything fails, nothing; arguments as :func:`holdings_document`."""
    text = msgspec.json.format(
        msgspec.json.encode(holdings_document(holdings, limits=limits, ts=ts, source=source)), indent=2
    )
    with written_whole(path) as stream:
        stream.write(text + b"\n")
