"""Reading and verifying the audit log: a second implementation of its format, in plain Python.

The format is told in ``csrc/include/tengri/audit.h``. Payloads, all little endian; a text is its length in two bytes,
then UTF-8:

- *decision* (kind 1): allowed, reducing, side, order type, action (a byte each), 3 bytes 0, quantity, price and trigger
  price (doubles, NaN is none), and the texts order, strategy, instrument, account, reason;
- *event* (kind 2): a JSON object with at least ``name``.

What verification proves: every record is as it was written, none is missing between the first and the last, and none
was put between. What it cannot prove alone: that the end was not cut off, and that the whole file was not written anew.
For that, keep the hash it prints in another place and give it as ``head`` next time.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tengri_fast.errors import ConfigurationError, DataConversionError

__all__ = ["ACTIONS", "DECISION", "EVENT", "ORDER_TYPES", "SYNCS", "AuditReport", "Decision", "Event", "read", "verify"]

#: Kinds of records.
DECISION, EVENT = 1, 2
#: When records are forced to the disk.
SYNCS = ("order", "100ms", "none")
#: Order types and actions by their number in a record.
ORDER_TYPES = (
    "MARKET",
    "MARKET_TO_LIMIT",
    "LIMIT",
    "STOP_MARKET",
    "STOP_LIMIT",
    "MARKET_IF_TOUCHED",
    "LIMIT_IF_TOUCHED",
    "TRAILING_STOP_MARKET",
    "TRAILING_STOP_LIMIT",
)
ACTIONS = ("submit", "list", "modify")

_HEADER = 64
_MAGIC = b"TFAUDIT1"
_OVERHEAD, _MOST = 56, 65536
_NUMBERS = struct.Struct("<BBbBB3x3d")


@dataclass(frozen=True)
class Decision:
    """One decision of the gate: what was asked, when (ns), and the answer with its reason."""

    sequence: int
    ts: int
    allowed: bool
    reducing: bool
    action: str
    order: str
    strategy: str
    instrument: str
    account: str
    side: int
    order_type: str
    quantity: float
    price: float
    trigger: float
    reason: str


@dataclass(frozen=True)
class Event:
    """Something that is no decision: its name, its time (ns) and its facts."""

    sequence: int
    ts: int
    name: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class AuditReport:
    """What verification found.

    Attributes
    ----------
    sound : bool
        Whether every record fits the chain, nothing follows the last one, and the expected hash was met.
    records, decisions, denied : int
        How many records there are, decisions among them, and denials among these.
    head : str
        Hash of the last sound record.
    previous : str
        Hash that the chain begins with: zeros, or the last hash of the log before.
    unfinished : int
        Bytes behind the last sound record that are not zero: a record that was being written when the process died, or
        when a running one was looked at. By itself no fault.
    fault : str
        What is wrong and where; empty when sound.
    """

    sound: bool
    records: int
    decisions: int
    denied: int
    head: str
    previous: str
    unfinished: int
    fault: str


def _load(path: str | os.PathLike[str]) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"`path` must name an audit log, was {os.fspath(path)!r}: {error.strerror}") from None
    if len(data) < _HEADER or data[:8] != _MAGIC:
        raise DataConversionError(f"{os.fspath(path)} is not an audit log: it does not begin like one")
    version, size = struct.unpack_from("<II", data, 8)
    if (version, size) != (1, _HEADER):
        raise DataConversionError(f"{os.fspath(path)} must be of version 1, was of version {version}")
    return data


def _records(data: bytes) -> Iterator[tuple[int, int, int, int, bytes, bytes]]:
    """(position, kind, sequence, ts, payload, hash) of each record whose hash is right, up to the first that is not."""
    at, chain, sequence = _HEADER, data[24:56], 0
    while at + _OVERHEAD <= len(data):
        size, kind, number, ts = struct.unpack_from("<IIQQ", data, at)
        if size < _OVERHEAD or size > _MOST or size % 8 or at + size > len(data) or number != sequence + 1:
            return
        end = at + size - 32
        chain = hashlib.sha256(chain + data[at:end]).digest()
        if chain != data[end : end + 32]:
            return
        sequence = number
        yield at, kind, number, ts, data[at + 24 : end], chain
        at += size


def _followed(data: bytes, begin: int, end: int) -> bool:
    """Whether a record after ``begin`` fits the hash in front of it: then one was changed, not unfinished."""
    for at in range(begin + _OVERHEAD, end - _OVERHEAD + 1, 8):
        (size,) = struct.unpack_from("<I", data, at)
        if size < _OVERHEAD or size > _MOST or size % 8 or at + size > len(data):
            continue
        body = at + size - 32
        if hashlib.sha256(data[at - 32 : at] + data[at:body]).digest() == data[body : body + 32]:
            return True
    return False


def _decode(kind: int, sequence: int, ts: int, payload: bytes) -> Decision | Event:
    if kind == DECISION:
        allowed, reducing, side, order_type, action, quantity, price, trigger = _NUMBERS.unpack_from(payload, 0)
        texts: list[str] = []
        at = _NUMBERS.size
        for _ in range(5):
            (size,) = struct.unpack_from("<H", payload, at)
            texts.append(payload[at + 2 : at + 2 + size].decode("utf-8", "replace"))
            at += 2 + size
        return Decision(
            sequence=sequence,
            ts=ts,
            allowed=bool(allowed),
            reducing=bool(reducing),
            action=ACTIONS[action] if action < len(ACTIONS) else str(action),
            order=texts[0],
            strategy=texts[1],
            instrument=texts[2],
            account=texts[3],
            side=side,
            order_type=ORDER_TYPES[order_type] if order_type < len(ORDER_TYPES) else "UNKNOWN",
            quantity=quantity,
            price=price,
            trigger=trigger,
            reason=texts[4],
        )
    if kind == EVENT:
        facts = json.loads(payload.rstrip(b"\0"))
        return Event(sequence, ts, str(facts.pop("name")), facts)
    raise DataConversionError(f"record {sequence} must be a decision or an event, was of kind {kind}")


def read(path: str | os.PathLike[str]) -> Iterator[Decision | Event]:
    """Records of a log in the order in which they were written, up to the first that does not fit the chain.

    Raises
    ------
    ConfigurationError, DataConversionError
        When there is no such file, it is no audit log, or a record is of an unknown kind.
    """
    for _, kind, sequence, ts, payload, _ in _records(_load(path)):
        yield _decode(kind, sequence, ts, payload)


def verify(path: str | os.PathLike[str], head: str | None = None) -> AuditReport:
    """Check the whole chain.

    Parameters
    ----------
    path : path-like
        The log; it may be open in a running process.
    head : str, optional
        A hash that the log had at some time (64 hexadecimal digits): it must be that of one of its records, or a part
        that was there then has been cut off or rewritten.

    Raises
    ------
    ConfigurationError, DataConversionError
        When there is no such file, or it is no audit log.
    """
    data = _load(path)
    end, count, decisions, denied, last = _HEADER, 0, 0, 0, data[24:56]
    fault, met = "", head is None or head.lower() == last.hex()
    for at, kind, sequence, ts, payload, chain in _records(data):
        end, count, last = at + 24 + len(payload) + 32, sequence, chain
        met = met or chain.hex() == (head or "").lower()
        try:
            record = _decode(kind, sequence, ts, payload)
        except (DataConversionError, ValueError, KeyError, struct.error) as error:
            fault = fault or f"record {sequence} at byte {at} cannot be read: {error}"
            continue
        if isinstance(record, Decision):
            decisions += 1
            denied += not record.allowed
    unfinished = len(data[end:].rstrip(b"\0"))
    # Its size is written last: without one, this is the record that the process is writing, or was when it died.
    begun = unfinished <= _MOST and data[end : end + 8] == bytes(8) and not _followed(data, end, end + unfinished)
    if unfinished and not begun and not fault:
        fault = (
            f"{unfinished} bytes behind record {count} (byte {end}) do not continue the chain: "
            "changed, or never finished"
        )
    if not met and not fault:
        fault = f"no record has the hash {head}: what was there then was cut off or rewritten"
    return AuditReport(not fault, count, decisions, denied, last.hex(), data[24:56].hex(), unfinished, fault)
