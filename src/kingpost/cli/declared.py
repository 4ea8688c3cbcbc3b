"""A cache of the topology, as one context reaches it: for commands that also take a plain URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from kingpost.base.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from kingpost.topology.caches import Token
    from kingpost.topology.names import CacheRef

ContextName = Annotated[
    str,
    typer.Option("--context", metavar="NAME", help="Where this runs; gives a declared cache its address."),
]


@dataclass(frozen=True, slots=True)
class DeclaredCache:
    """A cache, from one context.

    Attributes:
        ref: Which one.
        server: URL of its server, without a final slash.
        url: URL of the cache itself.
        key: Its public key; empty when none is declared.

    """

    ref: CacheRef
    server: str
    url: str
    key: str


def cache_from(topology: Path, name: str, context: str) -> DeclaredCache:
    """Give a declared cache as a client in a context dials it.

    Args:
        topology: The topology's file.
        name: The cache, in full or short: `attic:home/main`, `main`.
        context: Id or ending of a context.

    Raises:
        UsageError: No context is named, there is no such cache or context, or it has no way there.

    """
    from kingpost.cli.topology_file import read
    from kingpost.topology.names import resolve_cache
    from kingpost.topology.places import Dialer

    platform = read(topology).platform
    ref = resolve_cache(platform.topology, name)
    if not context:
        raise UsageError(
            f"the address of {ref} depends on where this runs",
            why="an address is a promise relative to a network namespace",
            fix=f"name the context with --context, one of: {', '.join(platform.contexts)}",
        )
    dialling = platform.find_context(context).id
    use = platform.cache_use(dialling, Dialer.CLIENT, ref)
    server = platform.route(dialling, Dialer.CLIENT, ref.service).url
    if server is None or use.url is None:
        raise UsageError(f"{context} has no way to {ref}", why=use.reason, fix=use.fix)
    return DeclaredCache(ref, server, use.url, use.public_key or "")


def token_from(topology: Path, name: str) -> Token:
    """Give a declared token by `SERVER/TOKEN`, or its own name where that is unambiguous."""
    from kingpost.cli.topology_file import read
    from kingpost.topology.names import match_name

    servers = read(topology).loaded.topology.attic
    known = {
        f"{server}/{key}": token for server, attic in servers.items() for key, token in attic.tokens.items()
    }
    return known[match_name(name, known, "token")]
