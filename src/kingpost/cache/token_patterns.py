"""Cache names, patterns of them, and claims that mean what was asked for.

An Attic token maps patterns to permissions. To answer a request for one cache Attic looks up the exact name,
else it takes the *first* pattern that matches, in the order of the JSON object, and never merges entries
(token/src/lib.rs `get_permission_for_cache`). `{"*": pull, "main": push}` so gives `main` push alone, and
`attic push`, whose first request needs pull, fails on a private cache.

`expanded` closes the requested patterns under intersection and puts the most specific first, so that the one
entry which Attic picks always carries the union of what was asked for that name.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeVar

from kingpost.base.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

#: attic/src/cache.rs: at most this many characters, for names and for patterns.
MAX_NAME_LENGTH: Final = 50
#: More entries than this are a mistake, and would make a token too long for an HTTP header.
MAX_ENTRIES: Final = 64

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,49}")
_PATTERN: Final = re.compile(r"[A-Za-z0-9*][A-Za-z0-9_+*-]{0,49}")

P = TypeVar("P", bound="Hashable")


def is_name(text: str) -> bool:
    """Tell whether Attic accepts this as the name of a cache."""
    return _NAME.fullmatch(text) is not None


def is_pattern(text: str) -> bool:
    """Tell whether Attic accepts this as a pattern; `*` stands for any characters, or none."""
    return _PATTERN.fullmatch(text) is not None


def matches(pattern: str, name: str) -> bool:
    """Tell whether a pattern covers a name (or, with `*` in `name`, everything that `name` covers).

    A `*` in `name` is a character like any other that only a `*` of `pattern` can swallow. That is exact for
    containment, because a pattern of 50 characters never names the whole alphabet of 65.
    """
    at = there = 0
    star, swallowed = -1, 0
    while there < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, swallowed = at, there
            at += 1
        elif at < len(pattern) and pattern[at] == name[there]:
            at += 1
            there += 1
        elif star >= 0:
            # The last star swallows one character more; no earlier star need ever be revisited.
            swallowed += 1
            at, there = star + 1, swallowed
        else:
            return False
    return not pattern[at:].strip("*")


def _normal(pattern: str) -> str:
    return re.sub(r"\*+", "*", pattern)


def chosen(entries: Mapping[str, P], name: str) -> tuple[str, P] | None:
    """Give the one entry that Attic picks for a cache name: the exact one, else the first that matches."""
    if name in entries:
        return name, entries[name]
    for pattern, permissions in entries.items():
        if matches(pattern, name):
            return pattern, permissions
    return None


def expanded(requested: Mapping[str, frozenset[P]]) -> dict[str, frozenset[P]]:
    """Give the entries to write into a token, in order.

    For every cache name, the entry that Attic picks holds the union of the requested permissions of all
    patterns that match it. Entries that change nothing are left out.

    Args:
        requested: Permissions by pattern, as a person means them: overlapping patterns add up.

    Raises:
        UsageError: A pattern that Attic refuses, or so many overlaps that the token would be absurd.

    """
    for pattern in requested:
        if not is_pattern(pattern):
            raise UsageError(
                f"{pattern!r} is no cache name or pattern that Attic accepts",
                why="a name has 1 to 50 characters A-Z a-z 0-9 - _ + and starts with a letter or digit; "
                "a pattern may also have `*`",
                fix="correct the name; `attic cache info NAME` shows how the server spells it",
            )
    merged: dict[str, frozenset[P]] = {}
    for pattern, permissions in requested.items():
        merged[_normal(pattern)] = merged.get(_normal(pattern), frozenset()) | permissions
    entries: list[tuple[int, str, frozenset[P]]] = []
    for pattern in _closure(tuple(merged)):
        covering = [permissions for other, permissions in merged.items() if matches(other, pattern)]
        entries.append((len(covering), pattern, frozenset().union(*covering)))
    # Whoever is covered by the most requests comes first: for any name, the entry covered by all the requests
    # that match the name precedes every entry that is covered by fewer. Ties hold the same requests.
    entries.sort(key=lambda entry: (-entry[0], entry[1]))
    return _pruned([(pattern, permissions) for _, pattern, permissions in entries])


def _closure(patterns: Sequence[str]) -> set[str]:
    found = set(patterns)
    frontier = list(patterns)
    while frontier:
        one = frontier.pop()
        # Only with requests that do not cover it yet: each step is covered by more of them, so this ends.
        for other in [request for request in patterns if not matches(request, one)]:
            new = intersection(one, other) - found
            found |= new
            frontier += new
            if len(found) > MAX_ENTRIES:
                raise UsageError(
                    f"the patterns {', '.join(sorted(patterns))} overlap in more than {MAX_ENTRIES} ways",
                    why="Attic reads one entry per cache and merges none, so every overlap needs its own",
                    fix="name the caches, use fewer `*`, or mint one token for each purpose",
                )
    return found


def _pruned(entries: list[tuple[str, frozenset[P]]]) -> dict[str, frozenset[P]]:
    """Leave out an entry when the first later one that meets it also contains it and grants the same."""
    kept: list[tuple[str, frozenset[P]]] = []
    for pattern, permissions in reversed(entries):
        for later, granted in kept:
            if intersection(pattern, later):
                if granted == permissions and matches(later, pattern):
                    break
                kept.insert(0, (pattern, permissions))
                break
        else:
            kept.insert(0, (pattern, permissions))
    return dict(kept)


def intersection(one: str, other: str) -> frozenset[str]:
    """Give the patterns that together match exactly the names that both patterns match.

    Two patterns can meet in several ways: `a*` and `*a` meet in `a` and `a*a`.
    """
    found = _meet(_normal(one), _normal(other))
    narrowest = {p for p in found if not any(p != wider and matches(wider, p) for wider in found)}
    if too_long := [p for p in narrowest if not is_pattern(p)]:
        raise UsageError(
            f"the patterns {one} and {other} meet in {too_long[0]}, which is too long for Attic",
            why=f"a pattern has at most {MAX_NAME_LENGTH} characters",
            fix="shorten one of the two, or mint one token for each",
        )
    return frozenset(narrowest)


@lru_cache(maxsize=65536)
def _meet(one: str, other: str) -> frozenset[str]:
    if not one or not other:
        return frozenset({""}) if (one or other) in ("", "*") else frozenset()
    if one[0] == "*" == other[0]:
        # One of the two stars swallows at least as much as the other, which is then spent.
        tails = _meet(one[1:], other) | _meet(one, other[1:])
        return _limited({_normal("*" + tail) for tail in tails})
    if one[0] == "*":
        return _limited(_meet(one[1:], other) | {other[0] + tail for tail in _meet(one, other[1:])})
    if other[0] == "*":
        return _meet(other, one)
    if one[0] != other[0]:
        return frozenset()
    return frozenset(one[0] + tail for tail in _meet(one[1:], other[1:]))


def _limited(patterns: set[str] | frozenset[str]) -> frozenset[str]:
    # Names end at 50 characters: a pattern with more literals matches none.
    useful = frozenset(p for p in patterns if len(p) - p.count("*") <= MAX_NAME_LENGTH)
    if len(useful) > 16 * MAX_ENTRIES:
        raise UsageError(
            "two patterns with many `*` overlap in too many ways",
            why="Attic reads one entry per cache and merges none, so every overlap needs its own",
            fix="name the caches, or use fewer `*`",
        )
    return useful
