"""TOML by construction: plain Python values in, a document out. No value can break out of its place."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from kingpost.render.comments import comment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_TO_ESCAPE: Final = re.compile('["\\\\\x00-\x1f\x7f]')
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def toml(comments: Sequence[str], values: Mapping[str, Any]) -> str:
    """Give a document: comment lines, a blank line, then the values.

    Within each table plain keys come before tables, so that none is swallowed by the table before it; a list of
    mappings becomes an array of tables.
    """
    head = [*(comment(line) for line in comments), ""]
    return "\n".join([*head, *_table((), values)]) + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    tables: list[tuple[str, Any]] = []
    for key, value in table.items():
        if _is_tables(value):
            tables.append((key, value))
        else:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in tables:
        inner = (*path, _key(key))
        brackets = "[{}]" if isinstance(value, dict) else "[[{}]]"
        for one in [value] if isinstance(value, dict) else value:
            yield ""
            yield brackets.format(".".join(inner))
            yield from _table(inner, one)


def _is_tables(value: Any) -> bool:
    many = isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
    return many or isinstance(value, dict)


@lru_cache(4096)  # the same keys in the files of every host
def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(_value, value)) + "]"


def _string(text: str) -> str:
    return '"' + _TO_ESCAPE.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    return _ESCAPES.get(char) or f"\\u{ord(char):04x}"
