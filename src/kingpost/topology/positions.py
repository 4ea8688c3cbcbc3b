"""Where each key of a TOML or JSON text stands: only asked when there is something to complain about.

tomlkit keeps no positions on its items, and tomllib gives none at all, so the text is scanned once more. The
scanners assume that the text is valid: a parser has read it before.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import Location
from kingpost.topology import toml

if TYPE_CHECKING:
    from collections.abc import Sequence

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'', re.DOTALL
)
_SPACE: Final = re.compile(r"[ \t]*")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR: Final = re.compile(r"[^,\]}#\n\r]+")
_JSON_BLANK: Final = re.compile(r"[ \t\r\n]*")
_JSON_SCALAR: Final = re.compile(r"[^,\]}\s]+")
_JSON_STRING: Final = json.JSONDecoder().raw_decode


class Positions:
    """The places of the keys and array elements of one text."""

    def __init__(self, file: str, text: str, offsets: dict[tuple[str | int, ...], int]) -> None:
        self.file = file
        self._offsets = offsets
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def at(self, offset: int) -> Location:
        """Give the line and column of an offset."""
        line = bisect_right(self._lines, offset)
        return Location(self.file, line, offset - self._lines[line - 1] + 1)

    def locate(self, path: Sequence[str | int]) -> Location:
        """Give the place of a key; of the nearest one around it where the text has no such key."""
        parts = tuple(path)
        while parts:
            if parts in self._offsets:
                return self.at(self._offsets[parts])
            parts = parts[:-1]
        return Location(self.file, 1, 1)


class NoPositions:
    """For a topology that has no text: places are attribute paths."""

    def __init__(self, file: str) -> None:
        self.file = file

    def locate(self, path: Sequence[str | int]) -> Location:
        """Give the file with the attribute path behind it."""
        dotted = ".".join(str(part) for part in path)
        return Location(f"{self.file} ({dotted})" if dotted else self.file)


def toml_positions(file: str, text: str) -> Positions:
    """Scan a valid TOML text."""
    scanner = _Toml(text)
    scanner.document()
    return Positions(file, text, scanner.offsets)


def json_positions(file: str, text: str) -> Positions:
    """Scan a valid JSON text."""
    scanner = _Json(text)
    scanner.value((), scanner.blank(0))
    return Positions(file, text, scanner.offsets)


class _Toml:
    def __init__(self, text: str) -> None:
        self.text = text
        self.offsets: dict[tuple[str | int, ...], int] = {}
        self._arrays: dict[tuple[str | int, ...], int] = {}

    def document(self) -> None:
        table: tuple[str | int, ...] = ()
        at = self._blank(0)
        while at < len(self.text):
            if self.text[at] == "[":
                array = self.text.startswith("[[", at)
                start = at + (2 if array else 1)
                start = self._space(start)
                keys, at = self._key(start)
                table = self._resolve(keys, array=array)
                self._note(table, start)
                at = self.text.index("]", at) + (2 if array else 1)
            else:
                at = self._pair(table, at)
            at = self._blank(at)

    def _resolve(self, keys: list[str], *, array: bool) -> tuple[str | int, ...]:
        """Give the path of a table header, with the index of each array of tables on the way."""
        path: tuple[str | int, ...] = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            if array and number == len(keys) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
        return path

    def _note(self, path: tuple[str | int, ...], offset: int) -> None:
        for end in range(1, len(path) + 1):
            self.offsets.setdefault(path[:end], offset)

    def _pair(self, table: tuple[str | int, ...], at: int) -> int:
        keys, after = self._key(at)
        path = (*table, *keys)
        self._note(path, at)
        after = self._space(after)
        return self._value(path, self._space(after + 1))  # the `=`

    def _key(self, at: int) -> tuple[list[str], int]:
        keys = []
        while True:
            if match := _STRING.match(self.text, at):
                raw = match.group(0)
                keys.append(_unescaped(raw) if raw[0] == '"' else raw[1:-1])
            else:
                match = _BARE.match(self.text, at)
                if match is None:
                    return keys, at
                keys.append(match.group(0))
            at = self._space(match.end())
            if not self.text.startswith(".", at):
                return keys, at
            at = self._space(at + 1)

    def _value(self, path: tuple[str | int, ...], at: int) -> int:
        if self.text[at] == "[":
            return self._array(path, at)
        if self.text[at] == "{":
            return self._inline(path, at)
        match = _STRING.match(self.text, at) or _SCALAR.match(self.text, at)
        return match.end() if match else at + 1

    def _array(self, path: tuple[str | int, ...], at: int) -> int:
        at, index = self._blank(at + 1), 0
        while self.text[at] != "]":
            self._note((*path, index), at)
            at = self._blank(self._value((*path, index), at))
            if self.text[at] == ",":
                at = self._blank(at + 1)
            index += 1
        return at + 1

    def _inline(self, path: tuple[str | int, ...], at: int) -> int:
        at = self._blank(at + 1)
        while self.text[at] != "}":
            at = self._blank(self._pair(path, at))
            if self.text[at] == ",":
                at = self._blank(at + 1)
        return at + 1

    def _space(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return match.end() if match else at

    def _blank(self, at: int) -> int:
        match = _BLANK.match(self.text, at)
        return match.end() if match else at


def _unescaped(key: str) -> str:
    return next(iter(toml.loads(f"{key} = 0"))) if "\\" in key else key[1:-1]


class _Json:
    def __init__(self, text: str) -> None:
        self.text = text
        self.offsets: dict[tuple[str | int, ...], int] = {}

    def blank(self, at: int) -> int:
        match = _JSON_BLANK.match(self.text, at)
        return match.end() if match else at

    def value(self, path: tuple[str | int, ...], at: int) -> int:
        if self.text[at] == "{":
            at = self.blank(at + 1)
            while self.text[at] != "}":
                key, after = _JSON_STRING(self.text, at)
                self.offsets.setdefault((*path, key), at)
                at = self.blank(self.text.index(":", after) + 1)
                at = self._comma(self.value((*path, key), at))
            return at + 1
        if self.text[at] == "[":
            at, index = self.blank(at + 1), 0
            while self.text[at] != "]":
                self.offsets[(*path, index)] = at
                at = self._comma(self.value((*path, index), at))
                index += 1
            return at + 1
        if self.text[at] == '"':
            return _JSON_STRING(self.text, at)[1]
        match = _JSON_SCALAR.match(self.text, at)
        return match.end() if match else at + 1

    def _comma(self, at: int) -> int:
        at = self.blank(at)
        return self.blank(at + 1) if self.text[at] == "," else at
