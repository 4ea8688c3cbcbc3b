"""Caches as readers see them: keys to trust, and tokens to read with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.topology.checks.registry import Example, Finding, Path, check
from kingpost.topology.checks.tokens import names_meet
from kingpost.topology.model import NIXOS_CACHE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.checks.scene import Scene
    from kingpost.topology.names import CacheRef


@check(
    "KP-KEY-MISSING",
    title="A cache that is read has its public key",
    why="Nix takes nothing from a cache whose signatures it cannot check, and says so only in a warning: every path"
    " is built or fetched elsewhere",
    fix="add `public_key`: `attic cache info NAME` and cachix.org show it",
    example=Example(
        bad='[cachix.readers]\n\n[site]\nsubstituters = ["cachix:readers"]',
        good="[cachix.readers]\n"
        'public_key = "readers.cachix.org-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="\n\n'
        '[site]\nsubstituters = ["cachix:readers"]',
        at=("cachix", "readers"),
    ),
)
def no_key(scene: Scene) -> Iterator[Finding]:
    """Find caches in some list of substituters whose key is not declared."""
    for ref in scene.reads:
        path, key = scene.public_key(ref)
        if key is None:
            yield Finding(path, f"{ref} is read, and its public key is not known")


def _retired(scene: Scene) -> dict[str, Path]:
    """Give the retired keys' material, each with where it is retired."""
    topology = scene.topology
    found: dict[str, Path] = {}
    tables = [
        *(
            (("attic", server, "caches", name), cache.retired_keys)
            for server, attic in topology.attic.items()
            for name, cache in attic.caches.items()
        ),
        *((("cachix", name), cachix.retired_keys) for name, cachix in topology.cachix.items()),
        *((("substituters", name), other.retired_keys) for name, other in topology.substituters.items()),
    ]
    for path, keys in tables:
        for index, key in enumerate(keys):
            found.setdefault(key.partition(":")[2], (*path, "retired_keys", index))
    return found


@check(
    "KP-KEY-RETIRED",
    title="A retired key is not trusted",
    why="whoever has the old signing key can still sign what every reader would run",
    fix="give the cache's present key, as `attic cache info` shows it",
    example=Example(
        bad='[attic.home.caches.main]\npublic_key = "main:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="\n'
        'retired_keys = ["main:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="]',
        good='[attic.home.caches.main]\npublic_key = "main:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="\n'
        'retired_keys = ["main:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="]',
        at=("attic", "home", "caches", "main", "public_key"),
    ),
)
def retired_key(scene: Scene) -> Iterator[Finding]:
    """Find caches whose key is retired, by themselves or by another."""
    retired = _retired(scene)
    for ref in scene.caches.values():
        path, key = scene.public_key(ref)
        if key and key.partition(":")[2] in retired:
            name = key.partition(":")[0]
            yield Finding((*path, "public_key"), f"{ref} is declared with the key {name}, which is retired")


@check(
    "KP-KEY-NAME",
    title="Two caches that are read together have keys of different names",
    why="Nix keeps one trusted key for a name, the first: the other cache's paths count as unsigned and are not used"
    " (NixOS/nix, getDefaultPublicKeys)",
    fix="rename one of the caches (Attic names the key after it), or read only one of them",
    example=Example(
        bad='[attic.second]\nhost = "laptop"\nport = 8090\nsecret = "attic"\n\n'
        "[attic.second.caches.main]\npublic = true\n"
        'public_key = "main:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="\n\n'
        '[site]\nsubstituters = ["attic:home/main", "attic:second/main"]',
        good='[attic.second]\nhost = "laptop"\nport = 8090\nsecret = "attic"\n\n'
        "[attic.second.caches.other]\npublic = true\n"
        'public_key = "other:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="\n\n'
        '[site]\nsubstituters = ["attic:home/main", "attic:second/other"]',
        at=("attic", "second", "caches", "main", "public_key"),
    ),
)
def same_key_name(scene: Scene) -> Iterator[Finding]:
    """Find lists of substituters in which two different keys share a name."""
    reported: set[tuple[CacheRef | None, CacheRef]] = set()
    for lists in scene.read_lists.values():
        name, _, material = str(NIXOS_CACHE.public_key).partition(":")
        # NixOS always trusts cache.nixos.org, whether or not the list names it.
        first: dict[str, tuple[str, CacheRef | None]] = {name: (material, None)}
        for _, ref in lists:
            path, key = scene.public_key(ref)
            name, _, material = (key or "").partition(":")
            have, other = first.setdefault(name, (material, ref))
            if key and have != material and (other, ref) not in reported:
                reported.add((other, ref))
                yield Finding(
                    (*path, "public_key"),
                    f"{ref} and {other or 'cache.nixos.org'} are read together, and both keys are called {name}",
                )


@check(
    "KP-CACHE-UPSTREAM-KEY",
    title="`upstream_keys` holds names of keys, not keys",
    why="Attic compares the name before the colon alone: a whole key never matches, and all of upstream's paths are"
    " uploaded again",
    fix='write only the name, for example "cache.nixos.org-1"',
    example=Example(
        bad="[attic.home.caches.main]\n"
        'upstream_keys = ["cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]',
        good='[attic.home.caches.main]\nupstream_keys = ["cache.nixos.org-1"]',
        at=("attic", "home", "caches", "main", "upstream_keys", 0),
    ),
)
def whole_upstream_key(scene: Scene) -> Iterator[Finding]:
    """Find whole keys where their names belong."""
    for server, attic in scene.topology.attic.items():
        for name, cache in attic.caches.items():
            for index, key in enumerate(cache.upstream_keys):
                if ":" in key:
                    path: Path = ("attic", server, "caches", name, "upstream_keys", index)
                    yield Finding(path, f"an upstream key of {server}/{name} is a whole key, not its name")


@check(
    "KP-CACHE-PRIVATE",
    title="A host that reads a private cache has a token for it",
    why="Attic answers 401, Nix takes that for a cache without the path and says nothing: the cache is never used",
    fix="declare a token that may pull, with a `secret` on the reading host (it becomes Nix's netrc), or make the cache"
    " public",
    example=Example(
        bad='[attic.home.caches.main]\npublic = false\n\n[site]\nsubstituters = ["attic:home/main"]',
        good='[attic.home.caches.main]\npublic = false\n\n[site]\nsubstituters = ["attic:home/main"]\n\n'
        '[attic.home.tokens.readers]\npull = ["main"]\nsecret = "push"',
        at=("attic", "home", "caches", "main"),
    ),
)
def unreadable(scene: Scene) -> Iterator[Finding]:
    """Find private Attic caches that a host's daemon reads without any token on that host."""
    hosts: dict[CacheRef, list[str]] = {}
    site = scene.read_lists[("site", "substituters")]
    for name in scene.topology.hosts:
        for _, ref in scene.read_lists.get(("hosts", name, "substituters"), site):
            if ref.kind != "attic" or scene.topology.attic[ref.server].caches[ref.cache].public:
                continue
            if not _has_token(scene, name, ref):
                hosts.setdefault(ref, []).append(name)
    for ref, readers in hosts.items():
        yield Finding(
            ("attic", ref.server, "caches", ref.cache),
            f"{ref} is private, and {_some(readers)} {'reads' if len(readers) == 1 else 'read'} it without a token",
        )


@check(
    "KP-CACHE-AUDIT",
    title="An audit of a private cache has a token",
    why="Attic answers it with 401 and 404 for every path, as it would for a cache that is lost",
    fix="give the audit a `token`: a secret with a token that may pull",
    example=Example(
        bad="[attic.home.caches.drafts]\npublic = false\n\n"
        '[audits.nightly]\ncache = "attic:home/drafts"\nrunner = "host"',
        good="[attic.home.caches.drafts]\npublic = false\n\n"
        '[audits.nightly]\ncache = "attic:home/drafts"\nrunner = "host"\ntoken = "push"',
        at=("audits", "nightly"),
    ),
)
def blind_audit(scene: Scene) -> Iterator[Finding]:
    """Find audits of private Attic caches without a token."""
    for name, audit in scene.topology.audits.items():
        ref = scene.cache(audit.cache)
        if ref is None or ref.kind != "attic" or audit.token is not None:
            continue
        if not scene.topology.attic[ref.server].caches[ref.cache].public:
            yield Finding(("audits", name), f"{ref} is private, and the audit {name} has no token")


def _has_token(scene: Scene, host: str, ref: CacheRef) -> bool:
    for token in scene.topology.attic[ref.server].tokens.values():
        secret = scene.topology.secrets.get(token.secret or "")
        on_host = secret is not None and (not secret.hosts or host in secret.hosts)
        if on_host and any(names_meet(pattern, ref.cache) for pattern in token.pull):
            return True
    return False


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
