"""What is wrong with a file that holds a secret, told without ever showing the secret.

Verdicts name the file, the line and the kind of problem. No part of a value, not even its length, is given.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import CannotLookError
from kingpost.cache import token_codes as codes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.base.codes import Code
    from kingpost.base.verdict import Verdict

STORE: Final = Path("/nix/store")
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_LINE: Final = re.compile(
    rf"(?P<export>[ \t]*export[ \t]+)?[ \t]*(?P<name>{_NAME})(?P<gap>[ \t]*)=(?P<value>.*)"
)
#: A raw value that looks like an assignment: a name in capitals. Base64 ends in `=`, so a lone name is no sign.
_ASSIGNED: Final = re.compile(r"(?:export[ \t]+)?[A-Z][A-Z0-9_]*=[^=]")
_BOM: Final = "\ufeff"


class Kind(StrEnum):
    """What a file's reader expects in it: the bare value, or NAME=value lines."""

    RAW = "raw"
    ENV = "env"


def guess(path: Path, text: str) -> Kind:
    """Tell what a file is meant to be, by its name, else by what is in it."""
    name = path.name.lower()
    if name.endswith((".env", "-env", "_env", "environment")) or name == "env" or ".env." in name:
        return Kind.ENV
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", ";"))]
    assigned = [line for line in lines if _ASSIGNED.match(line.strip().lstrip(_BOM))]
    return Kind.ENV if assigned and (len(assigned) == len(lines) or len(lines) > 1) else Kind.RAW


def lint(path: Path, kind: Kind | None = None, store: Path = STORE) -> list[Verdict]:
    """Look at one file.

    Args:
        path: The file, already decrypted.
        kind: What its reader expects; None to guess.
        store: The Nix store's directory.

    Raises:
        CannotLookError: It cannot be read.

    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CannotLookError("is no file", where=str(path), fix="name the file itself")
        data = path.read_bytes()
    except OSError as error:
        raise CannotLookError(
            f"the file cannot be read: {error.strerror}", where=str(path), fix="run as a user who may read it"
        ) from error
    text = data.decode("utf-8", errors="replace")
    kind = kind or guess(path, text)
    found = [
        code.verdict(str(path), summary, {"line": line} if line else {})
        for code, line, summary in _content(text, kind)
    ]
    if path.resolve().is_relative_to(store):
        found.append(codes.IN_STORE.verdict(str(path), "the file lies in the Nix store"))
    elif status.st_mode & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        found.append(codes.READABLE.verdict(str(path), f"its mode is {mode}", {"mode": mode}))
    return found or [codes.FILE_OK.verdict(str(path), f"well-formed ({_WORDS[kind]})")]


_WORDS: Final = {Kind.RAW: "a bare value", Kind.ENV: "NAME=value lines"}


def _content(text: str, kind: Kind) -> Iterator[tuple[Code, int, str]]:
    if text.startswith(_BOM):
        yield codes.BLANK, 1, "the file begins with a byte order mark"
        text = text.removeprefix(_BOM)
    if "\r" in text:
        line = text[: text.index("\r")].count("\n") + 1
        yield codes.CRLF, line, f"line {line} ends in CRLF"
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        yield codes.EMPTY, 0, "the file has no value in it"
    elif kind is Kind.ENV:
        yield from _env(text)
    else:
        yield from _raw(text)


def _raw(text: str) -> Iterator[tuple[Code, int, str]]:
    value = text.strip("\n")
    if value.startswith("-----BEGIN "):
        return  # PEM has lines, and ends in one
    if "\n" in value:
        yield codes.NEWLINE, 1, f"the value has {value.count(chr(10)) + 1} lines"
    elif text.startswith("\n") or text.endswith("\n"):
        yield codes.NEWLINE, 0, "the value begins or ends in a newline"
    for number, line in enumerate(value.split("\n"), 1):
        if _ASSIGNED.match(line.strip()):
            yield codes.ASSIGNMENT, number, f"line {number} is NAME=value, where only the value belongs"
            line = line.strip().split("=", 1)[1]  # noqa: PLW2901 - the rest is about the value alone
        yield from _value(line, number)


def _env(text: str) -> Iterator[tuple[Code, int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        match = _LINE.fullmatch(line)
        # The padding of bare base64 looks like an empty assignment: `c2VjcmV0==`.
        if match is None or re.fullmatch(r"[A-Za-z0-9+/]{16,}={1,2}", line.strip()):
            yield codes.BARE, number, f"line {number} is no NAME=value"
            continue
        name, value = match["name"], match["value"]
        if match["export"] or match["gap"]:
            what = "starts with `export`" if match["export"] else "has a blank before `=`"
            yield codes.SHELL, number, f"line {number} ({name}) {what}"
        if not value.strip():
            yield codes.EMPTY, number, f"line {number}: {name} is empty"
            continue
        yield from _value(value, number, name)


def _value(value: str, number: int, name: str = "") -> Iterator[tuple[Code, int, str]]:
    of = f"line {number}: {name}" if name else f"line {number}: the value"
    if value != value.strip():
        yield codes.BLANK, number, f"{of} begins or ends with a blank"
    value = value.strip()
    if value[:1] in "'\"" or value[-1:] in "'\"":
        yield codes.QUOTES, number, f"{of} stands in quotes"
        value = value.strip("'\"")
    if not value:
        yield codes.EMPTY, number, f"{of} is empty"
    if re.match(r"(?i)(authorization:|bearer\s|basic\s)", value):
        yield codes.PREFIX, number, f"{of} starts with the name of a header or scheme"
    if _decodes_to_a_line(value):
        yield codes.ENCODED_NEWLINE, number, f"{of} is base64 of text that ends in a newline"


def _decodes_to_a_line(value: str) -> bool:
    if len(value) < 8 or len(value) % 4:
        return False
    try:
        text = base64.b64decode(value, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return False
    # Random bytes are hardly ever all printable; PEM rightly ends in a newline.
    return text.endswith("\n") and text[:-1].isprintable() and not text.startswith("-----BEGIN ")
