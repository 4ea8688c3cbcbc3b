"""Attic's token patterns: one entry answers for a cache, and no two are merged."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Final

from kingpost.topology.checks.registry import Example, Finding, Path, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.caches import Token
    from kingpost.topology.checks.scene import Scene

_PERMISSIONS: Final = (
    "pull",
    "push",
    "delete",
    "create_cache",
    "configure_cache",
    "configure_cache_retention",
    "destroy_cache",
)
_PATTERN: Final = re.compile(r"[A-Za-z0-9*][A-Za-z0-9_+*-]{0,49}")


def _entries(token: Token) -> dict[str, dict[str, Path]]:
    """Give the permissions of each pattern, each with where it stands."""
    found: dict[str, dict[str, Path]] = {}
    for permission in _PERMISSIONS:
        for index, pattern in enumerate(getattr(token, permission)):
            found.setdefault(pattern, {})[permission] = (permission, index)
    return found


@lru_cache(maxsize=4096)
def names_meet(one: str, other: str) -> bool:
    """Tell whether some cache name matches both patterns; `*` stands for any characters, or none."""
    if not one or not other:
        return not (one + other).strip("*")
    if one[0] == "*":
        return names_meet(one[1:], other) or names_meet(one, other[1:])
    if other[0] == "*":
        return names_meet(other, one)
    return one[0] == other[0] and names_meet(one[1:], other[1:])


@check(
    "KP-TOKEN-PATTERN",
    title="A token's patterns are ones that Attic accepts",
    why="a token with a malformed pattern does not decode, and its bearer is anonymous",
    fix="use letters, digits, `-`, `_`, `+` and `*` only, at most 50 of them",
    example=Example(
        bad='[attic.home.tokens.ci]\npull = ["ma?n"]',
        good='[attic.home.tokens.ci]\npull = ["ma*n"]',
        at=("attic", "home", "tokens", "ci", "pull", 0),
    ),
)
def malformed(scene: Scene) -> Iterator[Finding]:
    """Find patterns that Attic refuses (attic token/src/lib.rs, attic/src/cache.rs)."""
    for server, attic in scene.topology.attic.items():
        for name, token in attic.tokens.items():
            for pattern, permissions in _entries(token).items():
                if not _PATTERN.fullmatch(pattern):
                    path = next(iter(permissions.values()))
                    yield Finding(
                        ("attic", server, "tokens", name, *path),
                        f"{pattern!r} in the token {name} is no cache name or pattern",
                    )


@check(
    "KP-TOKEN-MERGE",
    title="A token's patterns do not overlap with different permissions",
    why="Attic takes the entry of the exact name, else the first pattern that matches, and never merges two: with"
    " pull on `*` and push on `main`, the token may push to main but not pull, and `attic push` begins with a pull",
    fix="give every permission with the same pattern",
    example=Example(
        bad='[attic.home.tokens.ci]\npull = ["*"]\npush = ["main"]',
        good='[attic.home.tokens.ci]\npull = ["main"]\npush = ["main"]',
        at=("attic", "home", "tokens", "ci", "push", 0),
    ),
)
def unmerged(scene: Scene) -> Iterator[Finding]:
    """Find overlapping patterns where the entry that Attic picks lacks what the other grants."""
    for server, attic in scene.topology.attic.items():
        for name, token in attic.tokens.items():
            entries = {
                pattern: permissions
                for pattern, permissions in _entries(token).items()
                if _PATTERN.fullmatch(pattern)
            }
            for pair in combinations(entries, 2):
                # An exact name is picked before every pattern: only what it lacks is lost.
                narrow, wide = pair if "*" not in pair[0] else pair[::-1]
                if not names_meet(narrow, wide):
                    continue
                lost = set(entries[wide]) - set(entries[narrow])
                if "*" in narrow:
                    lost |= set(entries[narrow]) - set(entries[wide])
                if lost:
                    path = next(iter(entries[narrow].values()))
                    words = ", ".join(sorted(word.replace("_", "-") for word in lost))
                    yield Finding(
                        ("attic", server, "tokens", name, *path),
                        f"in the token {name}, {narrow!r} and {wide!r} name a cache in common, which gets one of the"
                        f" two entries: {words} may be lost there",
                        fix="name each cache exactly, with all its permissions, or make two tokens"
                        if "*" in narrow
                        else f"list {narrow!r} with {words} too, or drop {wide!r}",
                    )


@check(
    "KP-TOKEN-PUSH-PULL",
    title="A token that may push to a private cache may also pull from it",
    why="`attic push` first reads the cache's configuration, which needs pull: it fails with 403 before any upload",
    fix="add the same pattern to `pull`",
    example=Example(
        bad='[attic.home.caches.drafts]\npublic = false\n\n[attic.home.tokens.ci]\npush = ["drafts"]',
        good="[attic.home.caches.drafts]\npublic = false\n\n"
        '[attic.home.tokens.ci]\npull = ["drafts"]\npush = ["drafts"]',
        at=("attic", "home", "tokens", "ci", "push", 0),
    ),
)
def push_without_pull(scene: Scene) -> Iterator[Finding]:
    """Find tokens that may push to a declared private cache and may not pull from it by any pattern."""
    for server, attic in scene.topology.attic.items():
        private = [name for name, cache in attic.caches.items() if not cache.public]
        for name, token in attic.tokens.items():
            for index, pattern in enumerate(token.push):
                found = [cache for cache in private if names_meet(pattern, cache)]
                blind = [
                    cache for cache in found if not any(names_meet(other, cache) for other in token.pull)
                ]
                if blind:
                    yield Finding(
                        ("attic", server, "tokens", name, "push", index),
                        f"the token {name} may push to the private cache {blind[0]} but not pull from it",
                    )
