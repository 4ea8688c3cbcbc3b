"""From what was asked for to a plan: the cache asked whether it is one, the paths gathered, drawn and split."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import CannotLookError, InvalidInputError, UsageError
from kingpost.observe import audit_codes as codes
from kingpost.observe import audit_ledger, audit_targets
from kingpost.observe.audit import Target
from kingpost.observe.audit_run import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kingpost.base.ledger import Ledger
    from kingpost.base.verdict import Verdict
    from kingpost.cache.fetch import BinaryCache
    from kingpost.observe.audit_crew import Job

#: Nix's own http-connections: what a server has to bear from any client.
_CONNECTIONS: Final = 25
#: With fewer paths than this a second process costs more than it gives.
_FEW: Final = 64
#: Most processes for a remote and for a local cache: each has its own memory, and a container less than its host.
_PROCESSES: Final = {False: 2, True: 16}


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks to have audited.

    Attributes:
        job: The cache and how to reach it.
        paths: Store paths or hash parts; `-` reads a listing from standard input.
        closures: Store paths, each with all that it needs.
        flakes: Flake outputs, likewise.
        listings: Files with paths in them.
        everything: All paths of a cache that can be listed; also meant when nothing else is named.
        references: Check that references are in a cache.
        fresh: Decompress even what the ledger knows to be a sound body.
        verified_since: Seconds; what the ledger has as verified within them is not fetched.
        sample: `100`, `5%`, or empty.
        seed: Of the sample.
        shard: `2/8`, or empty to go by the environment.
        threads: Paths at once; 0 chooses.

    """

    job: Job
    paths: Sequence[str] = ()
    closures: Sequence[str] = ()
    flakes: Sequence[str] = ()
    listings: Sequence[Path] = ()
    everything: bool = False
    references: bool = True
    fresh: bool = False
    verified_since: float | None = None
    sample: str = ""
    seed: str = ""
    shard: str = ""
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan (None when there is nothing to be audited) and what is known before it runs.

    Attributes:
        plan: What to run.
        found: Verdicts on the cache as a whole; they belong into the ledger.
        before: Verdicts on paths that an earlier run verified; they are in the ledger already.
        facts: For the report: cache, inputs, shard, shards.
        listed: How many paths there were before a sample or shard was taken.

    """

    plan: Plan | None
    found: list[Verdict] = field(default_factory=list)
    before: list[Verdict] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    listed: int = 0


def prepare(
    request: Request, ledger: Ledger | None, environment: Mapping[str, str] | None = None
) -> Prepared:
    """Ask the cache and gather the paths.

    Raises:
        UsageError: Nothing was named, or what was named does not go together.
        CannotLookError: A listing, closure or flake cannot be had.

    """
    auditor = request.job.auditor()
    cache = auditor.cache
    try:
        named = [*request.paths, *request.closures, *request.flakes, *map(str, request.listings)]
        facts: dict[str, Any] = {"cache": cache.url, "inputs": sorted(named)}
        answer = auditor.check_cache()
        store, found = (answer, []) if isinstance(answer, str) else ("", [answer])
        if found and (cache.hashes() is None or found[0].code != codes.NO_SUCH_CACHE.name):
            return Prepared(None, found, facts=facts)
        targets, follow = _gather(request, cache)
        url = cache.url
    finally:
        cache.close()
    index, shards = (
        (1, 1)
        if follow
        else audit_targets.shard_of(os.environ if environment is None else environment, request.shard)
    )
    if follow and (request.sample or request.shard):
        raise UsageError(
            "the closure is known only as it is walked, so it cannot be sampled or split",
            fix="run this where the path is in the Nix store, or give its paths with --list",
        )
    listed = len(targets)
    if request.sample:
        targets = audit_targets.sample(targets, request.sample, request.seed or audit_targets.today())
    targets = audit_targets.take_shard(targets, index, shards)
    facts |= {"shard": index, "shards": shards}
    known = _known(request, ledger, url)
    before = [_verified(known[t.hash_part]) for t in targets if t.hash_part in known]
    targets = [t for t in targets if t.hash_part not in known]
    threads, processes = _hands(request, len(targets), follow=follow)
    bodies = {} if request.fresh or ledger is None else audit_ledger.known_bodies(ledger, url)
    job = replace(request.job, store=store)
    plan = Plan(
        job, targets, follow, request.references, frozenset(known), bodies, threads, processes
    )  # fmt: skip
    return Prepared(plan, found, before, facts, listed)


def _gather(request: Request, cache: BinaryCache) -> tuple[list[Target], bool]:
    """Give the paths, each once, and whether closures have to be walked through the cache."""
    follow = False
    roots = [audit_targets.parse_target(path) for path in request.closures]
    for flake in request.flakes:
        roots += audit_targets.flake_outputs(flake)
    found = [audit_targets.parse_target(path) for path in request.paths if path != "-"]
    for root in roots:
        closure = audit_targets.local_closure(root.path) if root.path else None
        follow = follow or closure is None
        found += closure or [root]
    if "-" in request.paths:
        found += audit_targets.from_listing(sys.stdin)
    for file in request.listings:
        found += _listed(file)
    hashes = (
        cache.hashes() if request.everything or not (found or request.listings or request.paths) else None
    )
    if hashes is not None:
        found += [Target(hash_part) for hash_part in sorted(hashes)]
    elif request.everything or not (found or request.listings or request.paths):
        raise UsageError(
            "an HTTP cache cannot list its paths",
            where=cache.url,
            fix="name paths, --closure PATH, --flake REF or --list FILE (for Attic: a listing of its database)",
        )
    unique: dict[str, Target] = {}
    for target in found:
        if target.path or target.hash_part not in unique:
            unique[target.hash_part] = target
    return list(unique.values()), follow


def _listed(file: Path) -> list[Target]:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            found = audit_targets.from_listing(lines)
    except OSError as error:
        raise CannotLookError(f"the list cannot be read: {error.strerror}", where=str(file)) from error
    if not found:
        raise InvalidInputError(
            "there is no store path in this list",
            where=str(file),
            fix="give one store path or narinfo name a line",
        )
    return found


def _known(request: Request, ledger: Ledger | None, url: str) -> dict[str, tuple[str, str]]:
    if request.verified_since is None:
        return {}
    if ledger is None:
        raise UsageError("--verified-since needs the ledger", fix="leave --no-ledger out")
    return audit_ledger.verified_since(ledger, url, request.verified_since)


def _verified(known: tuple[str, str]) -> Verdict:
    named, when = known
    return codes.VERIFIED_BEFORE.verdict(named, f"verified at {when}; not fetched again", {"verified": when})


def _hands(request: Request, paths: int, *, follow: bool) -> tuple[int, int]:
    """Choose threads and processes: a local cache is limited by the processor, a remote one by waiting."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local = request.job.url.startswith(("file:", "/", "."))
    threads = request.threads or (processors if local else _CONNECTIONS)
    many = follow or paths >= _FEW or (local and paths > 1)
    most = min(processors, _PROCESSES[local])
    processes = min(most, threads, threads if follow else paths) if many and hasattr(os, "fork") else 1
    return threads, processes
