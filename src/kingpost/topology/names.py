"""References by name: `attic:home/blog-cache`, `cachix:main`, `substituter:nixos`, `bucket:attic-cache`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, NamedTuple

from kingpost.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kingpost.topology.model import Topology


class UnknownNameError(UsageError):
    """A reference to something that the topology does not declare, or that it declares more than once."""


class CacheRef(NamedTuple):
    """A binary cache.

    Attributes:
        kind: What serves it.
        server: The Attic server, Cachix cache or substituter, by its key.
        cache: The logical cache of an Attic server; empty for the others.

    """

    kind: Literal["attic", "cachix", "substituter"]
    server: str
    cache: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.server}/{self.cache}" if self.cache else f"{self.kind}:{self.server}"

    @property
    def service(self) -> str:
        """Give the service that is dialled for it."""
        return f"{self.kind}:{self.server}"


def all_caches(topology: Topology) -> dict[str, CacheRef]:
    """Give every declared cache by its full name."""
    refs = [
        CacheRef("attic", server, cache) for server, attic in topology.attic.items() for cache in attic.caches
    ]
    refs += [CacheRef("cachix", name) for name in topology.cachix]
    refs += [CacheRef("substituter", name) for name in topology.all_substituters]
    return {str(ref): ref for ref in refs}


def resolve_cache(topology: Topology, text: str) -> CacheRef:
    """Give the cache that a full name, or an unambiguous short one (`blog-cache`, `home/blog-cache`), means.

    Raises:
        UnknownNameError: There is none, or more than one; it says which come close.

    """
    known = topology.all_caches
    return known.get(text) or known[match_name(text, known, "cache")]


def match_name(text: str, known: Iterable[str], what: str) -> str:
    """Give the one full name that a text means: itself, or its ending after `:` or `/`.

    Raises:
        UnknownNameError: There is none, or more than one.

    """
    names = list(known)
    if text in names:
        return text
    matches = [name for name in names if name.endswith((f":{text}", f"/{text}"))]
    matches = matches or [name for name in names if name.startswith(f"{text}:")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UnknownNameError(
            f"{text!r} could be more than one {what}: {', '.join(matches)}", fix="write one of these in full"
        )
    short = {name.rpartition(":")[2].rpartition("/")[2]: name for name in names}
    close = get_close_matches(text, [*names, *short], n=1)
    if close:
        fix = f"did you mean {short.get(close[0], close[0])!r}?"
    else:
        fix = f"there are: {', '.join(names)}" if names else f"the topology declares no {what}"
    raise UnknownNameError(f"there is no {what} {text!r}", fix=fix)
