"""Every connection that the declared platform makes, and which caches each context reads from."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple

from kingpost.topology.caches import BucketStorage
from kingpost.topology.contexts import all_gitlab, runner_context_id
from kingpost.topology.names import CacheRef, UnknownNameError, resolve_cache
from kingpost.topology.places import Context, Dialer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kingpost.topology.model import Topology


class Need(NamedTuple):
    """One connection that must work.

    Attributes:
        context: Id of the context.
        dialer: Who opens the socket there.
        service: Reference of what is dialled.
        why: What for, for a person.
        path: Where the topology says so.

    """

    context: str
    dialer: Dialer
    service: str
    why: str
    path: tuple[str | int, ...]


def substituters_path(topology: Topology, context: Context) -> tuple[str, ...]:
    """Give where the list of caches stands that a context substitutes from: a runner's own, its host's, the site's."""
    if context.runner and topology.runners[context.runner].substituters is not None:
        return ("runners", context.runner, "substituters")
    host = topology.hosts.get(context.host or "")
    if host and host.substituters is not None:
        return ("hosts", str(context.host), "substituters")
    return ("site", "substituters")


def substituter_refs(
    topology: Topology, path: tuple[str, ...]
) -> list[tuple[CacheRef, tuple[str | int, ...]]]:
    """Give the caches of the list at a path, in order, each with where it is declared.

    Unknown names are left out; the checks report them.
    """
    declared: tuple[str, ...] | None
    match path:
        case ("runners", name, _):
            declared = topology.runners[name].substituters
        case ("hosts", name, _):
            declared = topology.hosts[name].substituters
        case _:
            declared = topology.site.substituters
    found: list[tuple[CacheRef, tuple[str | int, ...]]] = []
    for index, text in enumerate(declared or ()):
        try:
            found.append((resolve_cache(topology, text), (*path, index)))
        except UnknownNameError:
            continue
    return found


def needs(topology: Topology, contexts: Mapping[str, Context]) -> tuple[Need, ...]:
    """Give every need, without doubles, in the topology's order."""
    found = [
        *_reads(topology, contexts),
        *_pushes(topology, contexts),
        *_gitlab(topology, contexts),
        *_storage(topology, contexts),
        *_audits(topology, contexts),
        *_bucket_checks(topology, contexts),
        *_peers(topology, contexts),
    ]
    unique = {(need.context, need.dialer, need.service): need for need in reversed(found)}
    return tuple(need for need in found if unique[need.context, need.dialer, need.service] is need)


def redirects_to(topology: Topology, ref: CacheRef) -> str | None:
    """Give the bucket that an Attic cache's readers are redirected to.

    Attic answers a NAR of one chunk with 307 to a presigned S3 URL (attic server/src/storage/s3.rs), so
    whoever pulls must reach the bucket too.
    """
    server = topology.attic.get(ref.server) if ref.kind == "attic" else None
    if server and isinstance(server.storage, BucketStorage) and server.storage.bucket in topology.buckets:
        return f"bucket:{server.storage.bucket}"
    return None


def _reads(topology: Topology, contexts: Mapping[str, Context]) -> Iterator[Need]:
    dialled = cache(partial(_dialled, topology))
    for context in contexts.values():
        if context.kind not in {"host", "shell", "docker"} and not (context.kind == "pod" and context.runner):
            continue
        for service, why, path in dialled(substituters_path(topology, context)):
            yield Need(context.id, Dialer.DAEMON, service, why, path)


def _dialled(topology: Topology, path: tuple[str, ...]) -> list[tuple[str, str, tuple[str | int, ...]]]:
    """Give what who substitutes from the list at a path dials: the service, what for, and where that is said."""
    found = []
    for ref, place in substituter_refs(topology, path):
        found.append((ref.service, f"substitutes from {ref}", place))
        if bucket := redirects_to(topology, ref):
            found.append((bucket, f"{ref} redirects readers of single-chunk NARs there", place))
    return found


def _pushes(topology: Topology, contexts: Mapping[str, Context]) -> Iterator[Need]:
    for name, pipeline in topology.pipelines.items():
        runner = topology.runners.get(pipeline.runner)
        context = contexts.get(runner_context_id(pipeline.runner, runner) or "") if runner else None
        if context is None:
            continue
        for index, push in enumerate(pipeline.push):
            if push.policy == "off":
                continue
            try:
                ref = resolve_cache(topology, push.cache)
            except UnknownNameError:
                continue
            path = ("pipelines", name, "push", index, "cache")
            yield Need(context.id, Dialer.CLIENT, ref.service, f"pipeline {name} pushes to {ref}", path)


def _gitlab(topology: Topology, contexts: Mapping[str, Context]) -> Iterator[Need]:
    instances = list(all_gitlab(topology))
    for name, runner in topology.runners.items():
        gitlab = runner.gitlab or (instances[0] if len(instances) == 1 else None)
        context = contexts.get(runner_context_id(name, runner) or "")
        if gitlab is None or context is None:
            continue
        path = ("runners", name)
        yield Need(
            f"host:{context.host}", Dialer.CLIENT, f"gitlab:{gitlab}", f"runner {name} asks for jobs", path
        )
        yield Need(context.id, Dialer.CLIENT, f"gitlab:{gitlab}", f"jobs of runner {name} clone", path)


def _storage(topology: Topology, contexts: Mapping[str, Context]) -> Iterator[Need]:
    for name, attic in topology.attic.items():
        place = attic.cluster or attic.host
        context = contexts.get(f"service:{place}/{name}")
        if context and isinstance(attic.storage, BucketStorage):
            why = f"atticd {name} keeps its chunks there"
            path = ("attic", name, "storage", "bucket")
            yield Need(context.id, Dialer.CLIENT, f"bucket:{attic.storage.bucket}", why, path)


def _audits(topology: Topology, contexts: Mapping[str, Context]) -> Iterator[Need]:
    for name, audit in topology.audits.items():
        context = audit_context(topology, contexts, name)
        try:
            ref = resolve_cache(topology, audit.cache)
        except UnknownNameError:
            continue
        if context is None:
            continue
        path = ("audits", name, "cache")
        yield Need(context.id, Dialer.CLIENT, ref.service, f"audit {name} reads {ref}", path)
        if bucket := redirects_to(topology, ref):
            yield Need(context.id, Dialer.CLIENT, bucket, f"{ref} redirects audit {name} there", path)


def _bucket_checks(topology: Topology, contexts: Mapping[str, Context]) -> Iterator[Need]:
    for name, bucket in topology.buckets.items():
        if bucket.check and f"host:{bucket.check.host}" in contexts:
            path = ("buckets", name, "check")
            place = f"host:{bucket.check.host}"
            yield Need(
                place, Dialer.CLIENT, f"bucket:{name}", f"the check of the bucket {name} asks it", path
            )


def audit_context(topology: Topology, contexts: Mapping[str, Context], name: str) -> Context | None:
    """Give the context that a declared audit runs in."""
    audit = topology.audits[name]
    if audit.host:
        return contexts.get(f"host:{audit.host}")
    if audit.cluster:
        return contexts.get(f"pod:{audit.cluster}/audit-{name}")
    runner = topology.runners.get(audit.runner or "")
    return contexts.get(runner_context_id(str(audit.runner), runner) or "") if runner else None


def _peers(topology: Topology, contexts: Mapping[str, Context]) -> Iterator[Need]:
    served: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
        (f"attic:{name}", attic.serve, ("attic", name, "serve")) for name, attic in topology.attic.items()
    ]
    served += [
        (f"bucket:{name}", bucket.listener.serve, ("buckets", name, "listener", "serve"))
        for name, bucket in topology.buckets.items()
        if bucket.listener
    ]
    for service, networks, path in served:
        for index, network in enumerate(networks):
            if f"peer:{network}" in contexts:
                why = f"{service} serves all of {network}"
                yield Need(f"peer:{network}", Dialer.CLIENT, service, why, (*path, index))
