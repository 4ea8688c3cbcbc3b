"""Tokens in files: read from whatever holds them, written where only their owner reads them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from kingpost.base.errors import InvalidInputError, UsageError
from kingpost.base.files import write_atomically
from kingpost.cache.token_keys import read_secret

_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
_ENTRY: Final = re.compile(r"(?m)^[ \t]*(?:machine[ \t\n]+(\S+)|default\b|macdef\b)")


def read_token(source: str, machine: str = "") -> str:
    """Give the one token in a file: bare, or in an environment file, a netrc or Attic's config.toml.

    Args:
        source: Path; `-` for standard input.
        machine: Host whose netrc entry to take; empty for the only token of the file.

    Raises:
        InvalidInputError: There is none, or there are several.

    """
    text = sys.stdin.read() if source == "-" else read_secret(Path(source))
    where = "standard input" if source == "-" else source
    if machine:
        text = "".join(entry for host, entry in _entries(text) if host == machine)
    found: list[str] = list(dict.fromkeys(_JWT.findall(text)))
    if len(found) == 1:
        return found[0]
    of = f" for machine {machine}" if machine else ""
    if found:
        raise InvalidInputError(
            f"holds {len(found)} different tokens{of}",
            where=where,
            fix="name the netrc entry with --machine, or a file with one token",
        )
    raise InvalidInputError(
        f"holds no token{of}",
        where=where,
        why="a token of Attic is a JWT: three parts of letters and digits, joined by dots, the first from `eyJ`",
        fix="`kingpost token lint FILE` says what is wrong with a file; an encrypted secret has no token to see",
    )


def write_token(path: Path, token: str) -> None:
    """Write a bare token, mode 0600, without a final newline, replacing a file but nothing else."""
    _refuse_special(path)
    write_atomically(path, token, mode=0o600)


def write_netrc(path: Path, machine: str, token: str) -> None:
    """Put a token into a netrc, mode 0600, in place of an earlier entry of the machine; others stay.

    Nix (through curl) sends the password by Basic, from which Attic takes the token; the login is not looked at.
    """
    _refuse_special(path)
    if not re.fullmatch(r"[A-Za-z0-9._-]+", machine):
        raise UsageError(
            f"{machine!r} is no host name for a netrc",
            why="curl looks entries up by host alone",
            fix="give the host of the cache's URL, without scheme, port and path",
        )
    before = read_secret(path) if path.exists() else ""
    if re.search(r"(?m)^[ \t]*macdef\b", before):
        raise UsageError(
            "the netrc has a macro (macdef), which kingpost does not edit",
            where=str(path),
            fix="write another file",
        )
    others = [entry for host, entry in _entries(before) if host != machine]
    last = [entry for entry in others if entry.lstrip().startswith("default")]
    kept = "".join(_lined(entry) for entry in others if entry not in last)
    new = f"machine {machine} login kingpost password {token}\n"
    write_atomically(path, kept + new + "".join(_lined(entry) for entry in last), mode=0o600)


def _entries(text: str) -> list[tuple[str, str]]:
    """Split a netrc into (host, text) pieces; what stands before the first entry has the host ""."""
    starts = list(_ENTRY.finditer(text))
    edges = [match.start() for match in starts] + [len(text)]
    pieces = [("", text[: edges[0]])] if text[: edges[0]] else []
    return pieces + [
        (match.group(1) or "", text[start:end])
        for match, start, end in zip(starts, edges, edges[1:], strict=False)
    ]


def _lined(entry: str) -> str:
    return entry if entry.endswith("\n") else entry + "\n"


def _refuse_special(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise UsageError(
            "is there and no regular file",
            where=str(path),
            why="a token goes to a file that only its owner reads, never to a terminal or a log",
            fix="name a file",
        )
