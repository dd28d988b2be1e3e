"""What the standard TOML reader does not give: the line of each key, and a writer.

The reader (tomllib) checks the grammar; nothing here is used on a text that it has not accepted.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from decimal import Decimal

__all__ = ["Path", "join_path", "key_lines", "to_toml"]

# One step of a path is the name of a key, or the index of an element of an array.
Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
# A multi-line string may end in up to two quotes of its own before the three that close it.
_MULTI_BASIC = re.compile(r'"""(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5}')
_MULTI_LITERAL = re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}")


def join_path(path: Path) -> str:
    """A path as people write it: ``neural.models[1].config``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if _BARE.fullmatch(step) else _quote(step)
            text += f".{name}" if text else name
    return text


def key_lines(text: str) -> dict[Path, int]:
    """The line on which each key, table and array element of a valid TOML text begins, counted from 1."""
    return _Scanner(text).scan()


class _Scanner:
    """Walks a valid TOML text once and notes where each path begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.breaks = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            begin = self.at
            if self.text.startswith("[[", begin):
                self.at += 2
                keys = self.keys("]")
                self.at += 2
                array = self.inside(keys[:-1]) + keys[-1:]
                index = self.counts.get(array, 0)
                self.counts[array] = index + 1
                self.note(array, begin)
                table = (*array, index)
                self.note(table, begin)
            elif self.text[begin] == "[":
                self.at += 1
                keys = self.keys("]")
                self.at += 1
                table = self.inside(keys[:-1]) + keys[-1:]
                for count in range(1, len(table)):
                    self.note(table[:count], begin)
                # A table's own header is a better place to point at than the header of something inside it.
                self.lines[table] = self.line(begin)
            else:
                self.pair(table)
            self.skip(_BLANK)
        return self.lines

    def inside(self, keys: Path) -> Path:
        """The path of a header's table: a step into an array of tables means its latest element."""
        path: Path = ()
        for key in keys:
            path = (*path, key)
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
        return path

    def pair(self, table: Path) -> None:
        begin = self.at
        keys = self.keys("=")
        self.at += 1
        for count in range(1, len(keys) + 1):
            self.note(table + keys[:count], begin)
        self.skip(_SPACE)
        self.value(table + keys)

    def keys(self, end: str) -> Path:
        """A dotted key, up to and not including `end`."""
        found: list[str] = []
        while True:
            self.skip(_SPACE)
            if self.text[self.at] == '"':
                raw = self.take(_BASIC)
                found.append(tomllib.loads(f"k = {raw}")["k"])
            elif self.text[self.at] == "'":
                found.append(self.take(_LITERAL)[1:-1])
            else:
                found.append(self.take(_BARE))
            self.skip(_SPACE)
            if self.text[self.at] == end:
                return tuple(found)
            self.at += 1

    def value(self, path: Path) -> None:
        text, at = self.text, self.at
        if text.startswith('"""', at):
            self.take(_MULTI_BASIC)
        elif text.startswith("'''", at):
            self.take(_MULTI_LITERAL)
        elif text[at] == '"':
            self.take(_BASIC)
        elif text[at] == "'":
            self.take(_LITERAL)
        elif text[at] == "[":
            self.at += 1
            index = 0
            self.skip(_BLANK)
            while text[self.at] != "]":
                self.note((*path, index), self.at)
                self.value((*path, index))
                index += 1
                self.skip(_BLANK)
                if text[self.at] == ",":
                    self.at += 1
                    self.skip(_BLANK)
            self.at += 1
        elif text[at] == "{":
            self.at += 1
            self.skip(_BLANK)
            while text[self.at] != "}":
                self.pair(path)
                self.skip(_BLANK)
                if text[self.at] == ",":
                    self.at += 1
                    self.skip(_BLANK)
            self.at += 1
        else:
            self.take(_SCALAR)

    def note(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, self.line(at))

    def line(self, at: int) -> int:
        return bisect_right(self.breaks, at - 1) + 1

    def skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None or match.end() == self.at:
            raise ValueError(f"not TOML at character {self.at}")
        self.at = match.end()
        return match[0]


def to_toml(document: Mapping[str, object]) -> str:
    """A TOML text of nested mappings, sequences, strings, numbers and booleans; None is left out.

    Reading it back gives the same document (tuples come back as lists).
    """
    return "\n\n".join(_table((), document)) + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, object]) -> list[str]:
    lines, below = [], []
    for key, value in table.items():
        if value is None:
            continue
        if isinstance(value, Mapping):
            below += _table((*path, key), value)
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    if not lines and below:
        return below
    header = [f"[{'.'.join(map(_key, path))}]"] if path else []
    own = "\n".join(header + lines)
    return ([own] if own else []) + below


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        items = [_value(item) for item in value]
        flat = f"[{', '.join(items)}]"
        return flat if len(flat) <= 100 else "[\n" + "".join(f"    {item},\n" for item in items) + "]"
    raise TypeError(f"TOML has no form for {type(value).__name__}")


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _quote(key)


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _quote(text: str) -> str:
    escaped = [
        _ESCAPES.get(char) or (f"\\u{ord(char):04x}" if ord(char) < 0x20 or ord(char) == 0x7F else char)
        for char in text
    ]
    return '"' + "".join(escaped) + '"'
