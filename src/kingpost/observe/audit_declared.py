"""A cache of the topology as one context dials it: its address, the key to trust, where else a path may be, a token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kingpost.base.errors import UsageError
from kingpost.cache.token_patterns import matches
from kingpost.render.secret_files import secret_path
from kingpost.topology.names import resolve_cache
from kingpost.topology.places import Dialer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.names import CacheRef
    from kingpost.topology.platform import Platform


@dataclass(frozen=True, slots=True)
class Declared:
    """What the topology says of auditing a cache from a context.

    Attributes:
        url: As the context dials it.
        keys: Public keys to trust.
        upstreams: Caches whose paths are not pushed here, as the context dials them.
        token_files: Where this host may hold a token that pulls; the first that is there counts.

    """

    url: str
    keys: tuple[str, ...]
    upstreams: tuple[str, ...]
    token_files: tuple[Path, ...]


def declared_cache(platform: Platform, cache: str, context: str) -> Declared:
    """Give a declared cache as a process in a context reaches it.

    Raises:
        UsageError: There is no such cache or context, or no way between them.

    """
    ref, place = resolve_cache(platform.topology, cache), platform.find_context(context)
    use = platform.cache_use(place.id, Dialer.CLIENT, ref)
    if use.url is None:
        raise UsageError(
            f"{place.id} does not reach {ref}",
            why=use.reason,
            fix=use.fix or "run `kingpost explain`",
        )
    keys = (use.public_key,) if use.public_key else ()
    upstreams = platform.upstreams(place.id, ref)
    return Declared(use.url, keys, upstreams, tuple(_token_files(platform, ref)))


def _token_files(platform: Platform, ref: CacheRef) -> Iterator[Path]:
    if ref.kind != "attic":
        return
    for token in platform.topology.attic[ref.server].tokens.values():
        secret = platform.topology.secrets.get(token.secret or "")
        if token.secret and secret and any(matches(pattern, ref.cache) for pattern in token.pull):
            yield Path(secret_path(token.secret, secret))
