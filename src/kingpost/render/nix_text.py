"""Nix syntax by construction: Python values in, Nix expressions out. No value can break out of its place.

Grammar facts from NixOS/nix src/libexpr/lexer.l and parser.y: a string escapes `"`, a backslash and `${`;
a raw carriage return would be read as a newline; NUL cannot be written; a negative number in a list needs
parentheses; integers are 64 bits wide; a float needs digits on both sides of its point and is not subnormal.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, Final

from kingpost.render.layout import MODULES

_WIDTH: Final = 100
_INDENT: Final = "  "
_KEYWORDS: Final = frozenset({"assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with"})
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*", re.ASCII)
_PATH: Final = re.compile(r"\.{1,2}(/[A-Za-z0-9._+-]+)+", re.ASCII)
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "${": "\\${"}
_TO_ESCAPE: Final = re.compile(r'\$\{|["\\\n\r\t]')
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Expression:
    """A Nix expression that is written as it stands; never made from a user's text.

    `atomic` tells that it needs no parentheses in a list or as an argument: a name, a selection, a literal.
    """

    text: str
    atomic: bool = False

    def __reduce__(self) -> tuple[type, tuple[str, bool]]:
        """Pickle it as a call: what a dataclass with slots does by itself takes ten times as long."""
        return Expression, (self.text, self.atomic)


@dataclass(frozen=True, slots=True)
class Call:
    """A function with one argument, for example `lib.mkDefault 5`."""

    function: str
    argument: Any

    def __reduce__(self) -> tuple[type, tuple[str, Any]]:
        """Pickle it as a call, as an expression."""
        return Call, (self.function, self.argument)


def default(value: Any) -> Call:
    """Give `lib.mkDefault value`: what a host may differ from."""
    return Call("lib.mkDefault", value)


def force(value: Any) -> Call:
    """Give `lib.mkForce value`: what replaces every other definition."""
    return Call("lib.mkForce", value)


def path(text: str) -> Expression:
    """Give a path literal, relative to the file it stands in.

    Raises:
        ValueError: It is not `./…` or `../…` of letters, digits and `._+-`.

    """
    if not _PATH.fullmatch(text):
        raise ValueError(f"{text!r} cannot be written as a Nix path literal")
    return Expression(text, atomic=True)


def own_module(name: str) -> Expression:
    """Give the path of one of kingpost's own modules, as a host's modules see it in the rendered tree."""
    return path(f"../../{MODULES}/{name}.nix")


@lru_cache(16384)  # the same strings in the files of every host
def string(text: str) -> str:
    """Give a double-quoted Nix string.

    Raises:
        ValueError: It holds NUL or half a surrogate pair, which no Nix string can.

    """
    if "\0" in text:
        raise ValueError("a Nix string cannot hold the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a Nix string is UTF-8: it cannot hold half a surrogate pair") from None
    return f'"{_TO_ESCAPE.sub(lambda match: _ESCAPES[match.group()], text)}"'


@lru_cache(4096)  # likewise
def attribute(name: str) -> str:
    """Give an attribute's name, quoted where Nix needs it."""
    return name if _IDENTIFIER.fullmatch(name) and name not in _KEYWORDS else string(name)


def option(*names: str) -> str:
    """Give an option's path, `systemd.services."a b".serviceConfig`, from its parts."""
    return ".".join(attribute(name) for name in names)


def comment(text: str) -> str:
    """Give text that is safe after `# `: one line, without control characters."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def nix(value: Any, level: int = 0) -> str:
    """Give the Nix expression of a value, laid out as nixfmt does, indented by `level` steps but for line 1.

    Takes None, bool, int, float, str, IP addresses and networks, mappings with string keys, lists, tuples,
    Expression and Call.

    Raises:
        ValueError: A number or string that Nix cannot represent.
        TypeError: A value of any other type.

    """
    if isinstance(value, str):
        return string(value)
    if isinstance(value, Mapping):
        return _attributes(value, level)
    if isinstance(value, (list, tuple)):
        return _list(value, level)
    if isinstance(value, Expression):
        return value.text
    if isinstance(value, Call):
        return f"{value.function} {_argument(value.argument, level)}"
    return _scalar(value)


_CONSTANTS: Final = {None: "null", True: "true", False: "false"}


def _scalar(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, (IPv4Address, IPv4Interface, IPv4Network)):
        return string(str(value))
    raise TypeError(f"{type(value).__name__} has no Nix form")


def _integer(value: int) -> str:
    if not _INT_MIN <= value <= _INT_MAX:
        raise ValueError(f"{value} does not fit into Nix's 64 bits")
    # The lexer reads a minus sign apart from its digits, and 2**63 alone is too large.
    return f"(-{_INT_MAX} - 1)" if value == _INT_MIN else str(value)


def _float(value: float) -> str:
    if not math.isfinite(value) or 0 < abs(value) < sys.float_info.min:
        raise ValueError(f"Nix has no literal for {value}")
    mantissa, _, exponent = repr(value).partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}e{exponent}" if exponent else mantissa


def _argument(value: Any, level: int) -> str:
    """Give a value where Nix takes only what binds tighter than a function call."""
    text = nix(value, level)
    compound = (
        isinstance(value, Call)
        or (isinstance(value, Expression) and not value.atomic)
        or (isinstance(value, (int, float)) and text.startswith("-"))
    )
    return f"({text})" if compound else text


def _attributes(value: Mapping[str, Any], level: int) -> str:
    if not value:
        return "{ }"
    inner = _INDENT * (level + 1)
    lines = [f"{inner}{attribute(key)} = {nix(item, level + 1)};" for key, item in value.items()]
    return "\n".join(("{", *lines, f"{_INDENT * level}}}"))


def _list(value: list[Any] | tuple[Any, ...], level: int) -> str:
    if not value:
        return "[ ]"
    items = [_argument(item, level + 1) for item in value]
    if len(items) == 1 and not isinstance(value[0], Mapping):
        flat = f"[ {items[0]} ]"
        if "\n" not in flat and len(flat) + len(_INDENT) * level <= _WIDTH:
            return flat
    inner = _INDENT * (level + 1)
    return "\n".join(("[", *(f"{inner}{item}" for item in items), f"{_INDENT * level}]"))
