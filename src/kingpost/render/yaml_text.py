"""YAML by construction: plain Python values in, block style out. No value can break out of its place.

What is not plainly a word is written in double quotes, so that it means the same to YAML 1.1 (GitLab) and 1.2
(Kubernetes): `no`, `1e3`, `08` and `12:30` stay strings. A text of several lines becomes a literal block where
that keeps every character.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kingpost.render.comments import comment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*", re.ASCII)
_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null", "none", "inf", "nan"})
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_TO_ESCAPE: Final = re.compile(
    '["\\\\\x00-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\uffff]'
)
_LINE: Final = re.compile(
    "[^\x00-\x08\x0a-\x1f\x7f-\xa0\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff]*"
)


def yaml(comments: Sequence[str], *documents: Mapping[str, Any]) -> str:
    """Give a file: comment lines, then the documents, separated by `---`."""
    head = "".join(f"{comment(line)}\n" for line in comments)
    return head + "---\n".join("".join(f"{line}\n" for line in _mapping(one)) for one in documents)


def scalar(value: str | int | None) -> str:
    """Give a scalar on one line. There are no floats: what YAML 1.1 and 1.2 take for one differs."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return '"' + _TO_ESCAPE.sub(_escape, value) + '"'


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    return _ESCAPES.get(char) or (f"\\x{ord(char):02x}" if char < "\x80" else f"\\u{ord(char):04x}")


def _mapping(value: Mapping[str, Any]) -> Iterator[str]:
    for key, inner in value.items():
        yield from _entry(f"{scalar(key)}:", inner, nested="  ")


def _sequence(value: Sequence[Any]) -> Iterator[str]:
    for inner in value:
        if isinstance(inner, dict) and inner:
            lines = _mapping(inner)
            yield f"- {next(lines)}"
            yield from (f"  {line}" if line else "" for line in lines)
        else:
            yield from _entry("-", inner, nested="  ")


def _entry(head: str, value: Any, nested: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield head
        yield from (nested + line if line else "" for line in _mapping(value))
    elif isinstance(value, (list, tuple)) and value:
        yield head
        yield from (nested + line if line else "" for line in _sequence(value))
    elif isinstance(value, (dict, list, tuple)):
        yield f"{head} {'{}' if isinstance(value, dict) else '[]'}"
    elif isinstance(value, str) and _is_block(value):
        yield f"{head} |"
        yield from (nested + line if line else "" for line in value[:-1].split("\n"))
    else:
        yield f"{head} {scalar(value)}"


def _is_block(text: str) -> bool:
    """Tell whether a literal block keeps a text as it is."""
    if "\n" not in text[:-1] or not text.endswith("\n") or text.endswith("\n\n"):
        return False
    lines = text.split("\n")
    return not lines[0].startswith((" ", "\t")) and bool(lines[0]) and all(map(_is_line, lines))


def _is_line(line: str) -> bool:
    return _LINE.fullmatch(line) is not None and (not line or bool(line.strip()))
