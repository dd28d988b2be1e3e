"""A small, bounded reader of ONNX files.

ONNX is protobuf; this reads the handful of messages that a network of ours uses, and skips the rest by wire type.
Every length is checked against the bytes that are there, sizes and counts have limits, and nothing recurses on the
file's word: the nesting is that of the functions below. Tensors in external files are refused by name.

Source: onnx.proto3 of the ONNX specification (field numbers), https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ModelLoadingError

__all__ = ["Graph", "Node", "Tensor", "ValueInfo", "parse", "read_source"]

MAX_FILE = 1 << 28
MAX_ITEMS = 50_000
MAX_RANK = 8
MAX_NAME = 4_096
MAX_TEXT = 1 << 22

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Field = tuple[int, int, Any, int]
Array = npt.NDArray[Any]

_DTYPES: dict[int, tuple[str, str]] = {  # ONNX code -> name, NumPy type of raw_data
    1: ("float32", "<f4"), 2: ("uint8", "u1"), 3: ("int8", "i1"), 4: ("uint16", "<u2"), 5: ("int16", "<i2"),
    6: ("int32", "<i4"), 7: ("int64", "<i8"), 9: ("bool", "?"), 10: ("float16", "<f2"), 11: ("float64", "<f8"),
    12: ("uint32", "<u4"), 13: ("uint64", "<u8"), 16: ("bfloat16", "<u2"),
}  # fmt: skip


@dataclass
class Tensor:
    """A constant."""

    name: str
    array: Array
    bfloat16: bool = False
    """Whether the float32 numbers were stored as bfloat16."""


@dataclass
class ValueInfo:
    """A graph input or output: one entry per axis, a number, a name, or None."""

    name: str
    shape: list[int | str | None] | None
    type: int = 0
    """ONNX's number for the type of the elements; 0: not said."""


@dataclass
class Node:
    """One operator."""

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""

    def label(self, index: int) -> str:
        """How error texts call it."""
        return f"node {index} `{self.name or (self.outputs[0] if self.outputs else '')}` ({self.op})"


@dataclass
class Graph:
    """What was read."""

    nodes: list[Node]
    tensors: dict[str, Array]
    inputs: list[ValueInfo]
    outputs: list[ValueInfo]
    opset: int
    metadata: dict[str, str] = field(default_factory=dict)
    bfloat16: set[str] = field(default_factory=set)
    """Names of the tensors that were stored as bfloat16; they are given as float32."""


def read_source(source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> bytes:
    """The bytes of a path, or the bytes given.

    Raises
    ------
    ModelLoadingError
        If the file cannot be read, is empty, or is larger than 256 MiB.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        where = "the ONNX bytes"
    else:
        path = Path(source)
        where = f"`{path}`"
        try:
            size = path.stat().st_size
            if size > MAX_FILE:
                raise ModelLoadingError(f"{where}: an ONNX file must be at most {MAX_FILE} bytes, was {size}")
            data = path.read_bytes()
        except OSError as error:
            raise ModelLoadingError(f"{where}: cannot be read: {error.strerror}") from error
    if not data:
        raise ModelLoadingError(f"{where}: an ONNX file must not be empty")
    if len(data) > MAX_FILE:
        raise ModelLoadingError(f"{where}: must be at most {MAX_FILE} bytes, was {len(data)}")
    return data


class _Reader:
    """Walks the fields of one message inside the file's bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def varint(self, at: int, end: int, where: str) -> tuple[int, int]:
        value = shift = 0
        while True:
            if at >= end:
                raise ModelLoadingError(f"ONNX file: {where} is truncated at byte {at}")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift > 63:
                raise ModelLoadingError(f"ONNX file: {where} holds an integer of more than 10 bytes at byte {at}")

    def fields(self, span: tuple[int, int], where: str) -> Iterator[Field]:
        """Yields number, wire type, value, offset; BYTES yields (start, end)."""
        at, end = span
        while at < end:
            key, at = self.varint(at, end, where)
            number, wire = key >> 3, key & 7
            if number == 0:
                raise ModelLoadingError(f"ONNX file: {where} holds field number 0 at byte {at}")
            if wire == VARINT:
                value, at = self.varint(at, end, where)
                yield number, wire, value, at
                continue
            if wire == BYTES:
                size, at = self.varint(at, end, where)
            elif wire == FIXED64:
                size = 8
            elif wire == FIXED32:
                size = 4
            else:
                raise ModelLoadingError(f"ONNX file: {where} holds wire type {wire} at byte {at}; not an ONNX file?")
            if size > end - at:
                raise ModelLoadingError(
                    f"ONNX file: {where} is truncated at byte {at}: {size} bytes were promised, {end - at} are there"
                )
            yield number, wire, (at, at + size), at
            at += size

    def text(self, span: Any, where: str, most: int = MAX_NAME) -> str:
        start, end = span
        if end - start > most:
            raise ModelLoadingError(f"ONNX file: {where} is a text of {end - start} bytes, at most {most} may be")
        try:
            return self.data[start:end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelLoadingError(f"ONNX file: {where} is not UTF-8 at byte {start + error.start}") from error


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _expect(wire: int, wanted: tuple[int, ...], where: str, at: int) -> None:
    if wire not in wanted:
        raise ModelLoadingError(f"ONNX file: {where} has wire type {wire} at byte {at}, expected {wanted[0]}")


def _integers(reader: _Reader, wire: int, value: Any, where: str, at: int) -> list[int]:
    """A repeated integer field, packed or not."""
    _expect(wire, (VARINT, BYTES), where, at)
    if wire == VARINT:
        return [_signed(value)]
    start, end = value
    out = []
    while start < end:
        number, start = reader.varint(start, end, where)
        out.append(_signed(number))
    return out


def _floats(reader: _Reader, wire: int, value: Any, where: str, at: int, kind: str) -> list[float]:
    size = 4 if kind == "f" else 8
    _expect(wire, (BYTES, FIXED32 if size == 4 else FIXED64), where, at)
    start, end = value
    if (end - start) % size:
        raise ModelLoadingError(f"ONNX file: {where} holds {end - start} bytes, not a multiple of {size}")
    return list(struct.unpack(f"<{(end - start) // size}{kind}", reader.data[start:end]))


def _append(items: list[Any], item: Any, where: str) -> None:
    if len(items) >= MAX_ITEMS:
        raise ModelLoadingError(f"ONNX file: {where} holds more than {MAX_ITEMS} entries")
    items.append(item)


def _tensor(reader: _Reader, span: Any, where: str) -> Tensor:
    dims: list[int] = []
    code, name, raw, external = 0, "", None, False
    values: list[Any] = []
    for number, wire, value, at in reader.fields(span, where):
        if number == 1:
            dims += _integers(reader, wire, value, f"{where}.dims", at)
            if len(dims) > MAX_RANK:
                raise ModelLoadingError(f"ONNX file: {where} has more than {MAX_RANK} dimensions")
        elif number == 2:
            _expect(wire, (VARINT,), f"{where}.data_type", at)
            code = value
        elif number in (4, 10):
            values += _floats(reader, wire, value, f"{where}.data", at, "f" if number == 4 else "d")
        elif number in (5, 7, 11):
            values += _integers(reader, wire, value, f"{where}.data", at)
        elif number == 8:
            _expect(wire, (BYTES,), f"{where}.name", at)
            name = reader.text(value, f"{where}.name")
        elif number == 9:
            _expect(wire, (BYTES,), f"{where}.raw_data", at)
            raw = value
        elif number == 13:
            external = True
        elif number == 14:
            _expect(wire, (VARINT,), f"{where}.data_location", at)
            external = external or value == 1
    label = f"tensor `{name}`" if name else where
    if external:
        raise ModelLoadingError(
            f"{label} keeps its data in an external file, which is not read: export with external_data=False"
        )
    if code not in _DTYPES:
        raise ModelLoadingError(f"{label} must hold numbers of a known type, has ONNX data type {code}")
    type_name, numpy_type = _DTYPES[code]
    count = 1
    for dim in dims:
        if dim < 0:
            raise ModelLoadingError(f"{label}: a dimension must be >= 0, was {dim}")
        count *= dim
        if count > MAX_FILE:
            raise ModelLoadingError(f"{label} must have at most {MAX_FILE} elements, has shape {dims}")
    if raw is not None:
        wanted = count * np.dtype(numpy_type).itemsize
        if raw[1] - raw[0] != wanted:
            raise ModelLoadingError(
                f"{label} of shape {dims} and type {type_name} must hold {wanted} bytes, holds {raw[1] - raw[0]}"
            )
        array = np.frombuffer(reader.data[raw[0] : raw[1]], dtype=numpy_type)
    else:
        if len(values) != count:
            raise ModelLoadingError(f"{label} of shape {dims} must hold {count} values, holds {len(values)}")
        if code == 16:
            array = np.array([v & 0xFFFF for v in values], dtype="<u2")
        elif code == 10:  # float16 stands as its bits in int32_data
            array = np.array([v & 0xFFFF for v in values], dtype="<u2").view("<f2")
        elif type_name.startswith("float"):
            array = np.array(values, dtype=numpy_type)
        else:
            info = np.iinfo(np.uint8 if type_name == "bool" else type_name)
            if any(not info.min <= v <= info.max for v in values):
                raise ModelLoadingError(f"{label} holds a value outside the range of {type_name}")
            array = np.array(values, dtype=numpy_type)
    if code == 16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return Tensor(name, array.reshape(dims), code == 16)


def _attribute(reader: _Reader, span: Any, where: str) -> tuple[str, Any]:
    name, value_out = "", None
    ints: list[int] = []
    floats: list[float] = []
    strings: list[str] = []
    kind = 0
    for number, wire, value, at in reader.fields(span, where):
        if number == 1:
            _expect(wire, (BYTES,), f"{where}.name", at)
            name = reader.text(value, f"{where}.name")
        elif number == 2:
            _expect(wire, (FIXED32,), f"{where}.f", at)
            value_out = struct.unpack("<f", reader.data[value[0] : value[1]])[0]
        elif number == 3:
            _expect(wire, (VARINT,), f"{where}.i", at)
            value_out = _signed(value)
        elif number == 4:
            _expect(wire, (BYTES,), f"{where}.s", at)
            value_out = reader.text(value, f"{where}.s")
        elif number == 5:
            _expect(wire, (BYTES,), f"{where}.t", at)
            value_out = _tensor(reader, value, f"{where}.t").array
        elif number == 7:
            floats += _floats(reader, wire, value, f"{where}.floats", at, "f")
        elif number == 8:
            ints += _integers(reader, wire, value, f"{where}.ints", at)
        elif number == 9:
            _expect(wire, (BYTES,), f"{where}.strings", at)
            strings.append(reader.text(value, f"{where}.strings"))
        elif number == 20:
            _expect(wire, (VARINT,), f"{where}.type", at)
            kind = value
    if kind == 6 or floats:
        value_out = floats
    elif kind == 7 or ints:
        value_out = ints
    elif kind == 8 or strings:
        value_out = strings
    return name, value_out


def _node(reader: _Reader, span: Any, where: str) -> Node:
    node = Node("", "", [], [])
    for number, wire, value, at in reader.fields(span, where):
        if number in (1, 2, 3, 4, 7):
            _expect(wire, (BYTES,), where, at)
            text = reader.text(value, f"{where}.name")
            if number == 1:
                _append(node.inputs, text, f"{where}.input")
            elif number == 2:
                _append(node.outputs, text, f"{where}.output")
            elif number == 3:
                node.name = text
            elif number == 4:
                node.op = text
            else:
                node.domain = text
        elif number == 5:
            _expect(wire, (BYTES,), f"{where}.attribute", at)
            if len(node.attributes) >= MAX_ITEMS:
                raise ModelLoadingError(f"ONNX file: {where}.attribute holds more than {MAX_ITEMS} entries")
            name, attribute = _attribute(reader, value, f"{where}.attribute[{len(node.attributes)}]")
            node.attributes[name] = attribute
    return node


def _value_info(reader: _Reader, span: Any, where: str) -> ValueInfo:
    info = ValueInfo("", None)
    for number, wire, value, at in reader.fields(span, where):
        if number == 1:
            _expect(wire, (BYTES,), where, at)
            info.name = reader.text(value, f"{where}.name")
        elif number == 2:
            _expect(wire, (BYTES,), where, at)
            for kind, kind_wire, kind_value, kind_at in reader.fields(value, f"{where}.type"):
                if kind != 1:
                    continue
                _expect(kind_wire, (BYTES,), f"{where}.type", kind_at)
                info.shape, info.type = _shape(reader, kind_value, f"{where}.type.tensor_type")
    return info


def _shape(reader: _Reader, span: Any, where: str) -> tuple[list[int | str | None] | None, int]:
    """Shape and type of the elements."""
    shape: list[int | str | None] | None = None
    code = 0
    for number, wire, value, at in reader.fields(span, where):
        if number == 1:
            _expect(wire, (VARINT,), f"{where}.elem_type", at)
            code = value
        if number != 2:
            continue
        _expect(wire, (BYTES,), where, at)
        shape = []
        for dim_number, dim_wire, dim_value, dim_at in reader.fields(value, f"{where}.shape"):
            if dim_number != 1:
                continue
            _expect(dim_wire, (BYTES,), f"{where}.shape", dim_at)
            entry: int | str | None = None
            for part, part_wire, part_value, part_at in reader.fields(dim_value, f"{where}.shape.dim"):
                if part == 1:
                    _expect(part_wire, (VARINT,), f"{where}.shape.dim", part_at)
                    entry = _signed(part_value)
                elif part == 2:
                    _expect(part_wire, (BYTES,), f"{where}.shape.dim", part_at)
                    entry = reader.text(part_value, f"{where}.shape.dim")
            shape.append(entry)
            if len(shape) > MAX_RANK:
                raise ModelLoadingError(f"ONNX file: {where}.shape has more than {MAX_RANK} dimensions")
    return shape, code


def _property(reader: _Reader, span: Any) -> tuple[str, str]:
    """Key and value of one entry of the metadata."""
    parts = ["", ""]
    for number, wire, value, at in reader.fields(span, "model.metadata_props"):
        if number in (1, 2):
            _expect(wire, (BYTES,), "model.metadata_props", at)
            parts[number - 1] = reader.text(value, "model.metadata_props", MAX_TEXT)
    return parts[0], parts[1]


def parse(data: bytes) -> Graph:
    """Read the main graph of an ONNX file.

    Parameters
    ----------
    data : bytes
        Content of the file.

    Returns
    -------
    Graph
        Nodes in file order, constants by name, inputs without those that are constants.

    Raises
    ------
    ModelLoadingError
        If the bytes are truncated or damaged (the text says where), a tensor's data are external, or the file has no
        graph or no operator set.
    """
    reader = _Reader(data)
    graph_span, opset = None, 0
    metadata: dict[str, str] = {}
    for number, wire, value, at in reader.fields((0, len(data)), "model"):
        if number == 7:
            _expect(wire, (BYTES,), "model.graph", at)
            graph_span = value
        elif number == 8:
            _expect(wire, (BYTES,), "model.opset_import", at)
            domain, version = "", 0
            for part, part_wire, part_value, part_at in reader.fields(value, "model.opset_import"):
                if part == 1:
                    _expect(part_wire, (BYTES,), "model.opset_import.domain", part_at)
                    domain = reader.text(part_value, "model.opset_import.domain")
                elif part == 2:
                    _expect(part_wire, (VARINT,), "model.opset_import.version", part_at)
                    version = part_value
            if domain in ("", "ai.onnx"):
                opset = version
        elif number == 14:
            _expect(wire, (BYTES,), "model.metadata_props", at)
            if len(metadata) >= MAX_ITEMS:
                raise ModelLoadingError(f"ONNX file: model.metadata_props holds more than {MAX_ITEMS} entries")
            key, text = _property(reader, value)
            metadata[key] = text
    if graph_span is None:
        raise ModelLoadingError("ONNX file: holds no graph; truncated, or not an ONNX file")

    nodes: list[Node] = []
    tensors: dict[str, Array] = {}
    bfloat16: set[str] = set()
    inputs: list[ValueInfo] = []
    outputs: list[ValueInfo] = []
    for number, wire, value, at in reader.fields(graph_span, "graph"):
        if number not in (1, 5, 11, 12, 15):
            continue
        _expect(wire, (BYTES,), "graph", at)
        if number == 1:
            _append(nodes, _node(reader, value, f"graph.node[{len(nodes)}]"), "graph.node")
        elif number == 5:
            tensor = _tensor(reader, value, f"graph.initializer[{len(tensors)}]")
            if tensor.name in tensors:
                raise ModelLoadingError(f"ONNX file: two tensors are named `{tensor.name}`")
            if len(tensors) >= MAX_ITEMS:
                raise ModelLoadingError(f"ONNX file: graph.initializer holds more than {MAX_ITEMS} entries")
            tensors[tensor.name] = tensor.array
            if tensor.bfloat16:
                bfloat16.add(tensor.name)
        elif number == 11:
            _append(inputs, _value_info(reader, value, f"graph.input[{len(inputs)}]"), "graph.input")
        elif number == 12:
            _append(outputs, _value_info(reader, value, f"graph.output[{len(outputs)}]"), "graph.output")
        else:
            raise ModelLoadingError("ONNX file: sparse tensors are not read")
    if opset == 0:
        raise ModelLoadingError("ONNX file: names no operator set; truncated?")
    inputs = [info for info in inputs if info.name not in tensors]
    return Graph(nodes, tensors, inputs, outputs, opset, metadata, bfloat16)
