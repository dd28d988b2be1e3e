"""A small writer of ONNX files: the handful of protobuf messages that a graph of ours needs.

The twin of :mod:`tengri_fast.inference.onnx_reader`. Fields are written in ascending order, so the same calls always
give the same bytes, and constants go into ``raw_data``, little endian.

Source: onnx.proto3 of the ONNX specification (field numbers), https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError

__all__ = ["MAX_BYTES", "GraphWriter", "bfloat16_bits", "write_atomic"]

MAX_BYTES = 1 << 28
"""Largest file written, which is the largest that the reader takes."""

Array = npt.NDArray[Any]
Attribute = int | float | str | Sequence[int] | Sequence[float]
_VARINT, _BYTES, _FIXED32 = 0, 2, 5
_CODES = {  # NumPy type -> ONNX code
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11,
}  # fmt: skip
_BFLOAT16 = 16
_IR = ((21, 10), (19, 9), (0, 8))
"""From which operator set on which version of the file format is written."""


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode("utf-8"))


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | _FIXED32) + struct.pack("<f", value)


def bfloat16_bits(values: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """The upper half of each float32, rounded to nearest even; NaN stays NaN.

    Parameters
    ----------
    values : array_like
        Numbers; read as float32.

    Returns
    -------
    numpy.ndarray of uint16, the same shape
    """
    array = np.ascontiguousarray(values, dtype=np.float32)
    bits = array.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(array), np.uint32(0x7FC0), rounded).astype(np.uint16)


def _tensor(name: str, array: Array, code: int) -> bytes:
    raw = np.ascontiguousarray(array)
    raw = raw.astype(raw.dtype.newbyteorder("<"), copy=False)
    dims = b"".join(_integer(1, int(size)) for size in np.shape(array))
    return dims + _integer(2, code) + _text(8, name) + _bytes(9, raw.tobytes())


def _attribute(name: str, value: Attribute) -> bytes:
    head = _text(1, name)
    if isinstance(value, bool):
        raise ModelLoadingError(f"attribute `{name}` must be a number, a text or a list of numbers, was {value}")
    if isinstance(value, int):
        return head + _integer(3, value) + _integer(20, 2)
    if isinstance(value, float):
        return head + _float(2, value) + _integer(20, 1)
    if isinstance(value, str):
        return head + _text(4, value) + _integer(20, 3)
    if all(isinstance(item, int) for item in value):
        return head + b"".join(_integer(8, int(item)) for item in value) + _integer(20, 7)
    return head + b"".join(_float(7, float(item)) for item in value) + _integer(20, 6)


def _value_info(name: str, shape: Sequence[int | str], code: int) -> bytes:
    dims = b"".join(_bytes(1, _text(2, size) if isinstance(size, str) else _integer(1, size)) for size in shape)
    tensor = _integer(1, code) + _bytes(2, dims)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


class GraphWriter:
    """Collects nodes, constants, inputs and outputs, and serialises them as one ONNX model.

    Parameters
    ----------
    name : str
        Of the graph.
    opset : int
        Version of the default operator set.
    """

    def __init__(self, name: str, opset: int) -> None:
        self.name = name
        self.opset = opset
        self._nodes: list[bytes] = []
        self._tensors: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._names: set[str] = set()

    def _claim(self, name: str) -> None:
        if not name or name in self._names:
            raise ModelLoadingError(f"a name in an ONNX graph must be unique and not empty, was {name!r}")
        self._names.add(name)

    def node(self, op: str, inputs: Sequence[str], outputs: str | Sequence[str], **attributes: Attribute) -> str:
        """Append an operator, named after its first output; returns that output's name.

        Raises
        ------
        ModelLoadingError
            If an input is not made by anything before, or an output's name is taken.
        """
        made = [outputs] if isinstance(outputs, str) else list(outputs)
        for source in inputs:
            if source and source not in self._names:
                raise ModelLoadingError(f"node `{made[0]}` ({op}): input `{source}` must be made before it, was not")
        for name in made:
            self._claim(name)
        body = b"".join(_text(1, source) for source in inputs) + b"".join(_text(2, name) for name in made)
        body += _text(3, made[0]) + _text(4, op)
        body += b"".join(_bytes(5, _attribute(key, attributes[key])) for key in sorted(attributes))
        self._nodes.append(body)
        return made[0]

    def tensor(self, name: str, values: npt.ArrayLike, dtype: str | None = None) -> str:
        """Add a constant; returns its name.

        Parameters
        ----------
        name : str
            Must not be taken.
        values : array_like
            Its content.
        dtype : str, optional
            NumPy type to convert to, or "bfloat16"; default: the array's own.
        """
        self._claim(name)
        if dtype == "bfloat16":
            self._tensors[name] = _tensor(name, bfloat16_bits(values), _BFLOAT16)
            return name
        array = np.asarray(values) if dtype is None else np.asarray(values).astype(dtype)
        code = _CODES.get(array.dtype.name)
        if code is None:
            raise ModelLoadingError(f"tensor `{name}`: type must be one of {', '.join(_CODES)}, was {array.dtype.name}")
        self._tensors[name] = _tensor(name, array, code)
        return name

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """Declare a graph input; an axis is a number, or a name where it is open. Returns its name."""
        self._claim(name)
        self._inputs.append(_value_info(name, shape, _CODES[dtype]))
        return name

    def output(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> None:
        """Declare a value made by a node as a graph output."""
        if name not in self._names:
            raise ModelLoadingError(f"output `{name}` must be made by a node, was not")
        self._outputs.append(_value_info(name, shape, _CODES[dtype]))

    def to_bytes(self, metadata: Mapping[str, str] | None = None, producer: tuple[str, str] = ("", "")) -> bytes:
        """The serialised model.

        Parameters
        ----------
        metadata : mapping of str to str, optional
            ``metadata_props``, written in the order of their keys.
        producer : (str, str)
            Name and version of the program.

        Raises
        ------
        ModelLoadingError
            If the file would be larger than :data:`MAX_BYTES`.
        """
        graph = b"".join(
            [
                *(_bytes(1, node) for node in self._nodes),
                _text(2, self.name),
                *(_bytes(5, tensor) for tensor in self._tensors.values()),
                *(_bytes(11, info) for info in self._inputs),
                *(_bytes(12, info) for info in self._outputs),
            ]
        )
        ir = next(version for first, version in _IR if self.opset >= first)
        entries = sorted((metadata or {}).items())
        data = b"".join(
            [
                _integer(1, ir),
                _text(2, producer[0]),
                _text(3, producer[1]),
                _bytes(7, graph),
                _bytes(8, _text(1, "") + _integer(2, self.opset)),
                *(_bytes(14, _text(1, key) + _text(2, value)) for key, value in entries),
            ]
        )
        if len(data) > MAX_BYTES:
            raise ModelLoadingError(f"an ONNX file must be at most {MAX_BYTES} bytes, would be {len(data)}")
        return data


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write to a temporary file beside `path` and rename it, so that a reader never sees half a file."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
