"""Tokens for private caches: which machine's line of a netrc file each host needs, and from which secret.

Nix sends what `netrc-file` holds for a URL's host, whatever its port, as Basic authentication; Attic takes the
password as its token (attic token/src/util.rs).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kingpost.topology.caches import Token
    from kingpost.topology.platform import CacheUse, Platform


@dataclass(frozen=True, slots=True)
class NetrcLine:
    """One `machine` of a host's netrc, and the name of the secret that holds its password."""

    machine: str
    secret: str


def netrc_lines(platform: Platform, host: str, uses: Iterable[CacheUse]) -> tuple[NetrcLine, ...]:
    """Give the lines that a host needs to read its private Attic caches, without doubles.

    For each the declared token that may pull and may do the least besides, among those whose secret this host
    may hold. A cache without such a token is left out.
    """
    lines: dict[str, NetrcLine] = {}
    for use in uses:
        if use.public or use.url is None or use.ref.kind != "attic":
            continue
        machine = urlsplit(use.url).hostname or ""
        secret = _secret_for(platform, host, use.ref.server, use.ref.cache)
        if secret:
            lines.setdefault(machine, NetrcLine(machine, secret))
    return tuple(lines.values())


def _secret_for(platform: Platform, host: str, server: str, cache: str) -> str | None:
    secrets = platform.topology.secrets
    fitting = [
        token
        for token in platform.topology.attic[server].tokens.values()
        if token.secret in secrets
        and host in (secrets[token.secret].hosts or (host,))
        and _may_pull(token, cache)
    ]
    return min(fitting, key=_power).secret if fitting else None


def _may_pull(token: Token, cache: str) -> bool:
    """Tell whether a token may pull from a cache: an entry for its exact name hides every pattern.

    Attic picks one entry and merges none (attic token/src/lib.rs).
    """
    named = any(cache in patterns for patterns in (token.pull, *_others(token)))
    return cache in token.pull if named else any(fnmatchcase(cache, pattern) for pattern in token.pull)


def _others(token: Token) -> tuple[tuple[str, ...], ...]:
    return (
        token.push,
        token.delete,
        token.create_cache,
        token.configure_cache,
        token.configure_cache_retention,
        token.destroy_cache,
    )


def _power(token: Token) -> tuple[int, int]:
    """Rank a token by what it may do beyond pulling, then by how many patterns it may pull."""
    return sum(bool(patterns) for patterns in _others(token)), len(token.pull)
