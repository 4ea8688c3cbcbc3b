"""Which contexts and services a topology implies. Nothing is written by hand that follows from something else.

Entries whose host, cluster or endpoint is missing or unknown are left out here; the checks report them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.topology.caches import BucketStorage, Gitlab
from kingpost.topology.places import ClusterSocket, Context, External, HostSocket, Namespace, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.caches import Bucket
    from kingpost.topology.ci import Runner
    from kingpost.topology.hosts import Placement
    from kingpost.topology.model import Topology
    from kingpost.topology.places import Location


def contexts(topology: Topology) -> dict[str, Context]:
    """Give every context by its id, in the topology's order."""
    found = [
        *_host_contexts(topology),
        *_runner_contexts(topology),
        *_service_contexts(topology),
        *_audit_contexts(topology),
        *_peer_contexts(topology),
    ]
    return {context.id: context for context in found}


def runner_context_id(name: str, runner: Runner) -> str | None:
    """Give the id of the context that a runner's jobs run in; None where its place is missing."""
    place = runner.cluster if runner.executor == "kubernetes" else runner.host
    kind = {"shell": "shell", "docker": "docker", "kubernetes": "pod"}[runner.executor]
    return f"{kind}:{place}/{name}" if place else None


def _host_contexts(topology: Topology) -> Iterator[Context]:
    for name, host in topology.hosts.items():
        own = Namespace("host", name)
        yield Context(f"host:{name}", "host", own, own, name, "root")
        for user in host.users:
            yield Context(f"user:{name}/{user}", "user", own, own, name, user)


def _runner_contexts(topology: Topology) -> Iterator[Context]:
    for name, runner in topology.runners.items():
        context_id = runner_context_id(name, runner)
        cluster = topology.clusters.get(runner.cluster or "")
        host = cluster.host if cluster and runner.executor == "kubernetes" else runner.host
        if context_id is None or host not in topology.hosts:
            continue
        on_host = Namespace("host", host)
        own_store = runner.executor != "shell" and runner.nix == "own"
        if runner.executor == "shell":
            yield Context(context_id, "shell", on_host, on_host, host, runner.user, runner=name)
        elif runner.executor == "docker":
            inside = on_host if runner.network == "host" else Namespace(runner.network, host)
            daemon = inside if own_store else on_host
            yield Context(context_id, "docker", inside, daemon, host, "root", own_store, name)
        elif cluster:
            inside = Namespace("pod", str(runner.cluster))
            daemon = inside if own_store else on_host
            yield Context(context_id, "pod", inside, daemon, host, "root", own_store, name)


def _service_contexts(topology: Topology) -> Iterator[Context]:
    """Give the contexts of servers that are clients themselves: Attic dials its bucket."""
    for name, attic in topology.attic.items():
        if not isinstance(attic.storage, BucketStorage):
            continue
        cluster = topology.clusters.get(attic.cluster or "")
        if cluster and cluster.host in topology.hosts:
            pod = Namespace("pod", str(attic.cluster))
            yield Context(f"service:{attic.cluster}/{name}", "service", pod, pod, cluster.host, "atticd")
        elif attic.host in topology.hosts:
            own = Namespace("host", str(attic.host))
            yield Context(f"service:{attic.host}/{name}", "service", own, own, attic.host, "atticd")


def _audit_contexts(topology: Topology) -> Iterator[Context]:
    for name, audit in topology.audits.items():
        cluster = topology.clusters.get(audit.cluster or "")
        if cluster and cluster.host in topology.hosts:
            pod = Namespace("pod", str(audit.cluster))
            context_id = f"pod:{audit.cluster}/audit-{name}"
            yield Context(context_id, "pod", pod, pod, cluster.host, "root", own_store=True)


def _peer_contexts(topology: Topology) -> Iterator[Context]:
    """Give one context per network that some listener serves beyond the declared hosts."""
    served = {name for placement in _placements(topology) for name in placement.serve}
    for name in topology.networks:
        if name in served:
            peer = Namespace("peer", name)
            yield Context(f"peer:{name}", "peer", peer, peer, None, "root", own_store=True)


def _placements(topology: Topology) -> Iterator[Placement]:
    yield from topology.attic.values()
    yield from (bucket.listener for bucket in topology.buckets.values() if bucket.listener)


def services(topology: Topology) -> dict[str, Service]:
    """Give every service by its reference."""
    found: list[Service] = []
    for name, attic in topology.attic.items():
        if location := placed(topology, name, attic):
            found.append(Service(f"attic:{name}", location, attic.public_url))
    for name, bucket in topology.buckets.items():
        if location := _bucket_location(topology, name, bucket):
            found.append(Service(f"bucket:{name}", location))
    for name, cachix in topology.cachix.items():
        found.append(
            Service(f"cachix:{name}", External(cachix.url or f"https://{cachix.name or name}.cachix.org"))
        )
    for name, substituter in topology.all_substituters.items():
        found.append(Service(f"substituter:{name}", External(substituter.url)))
    for name, gitlab in all_gitlab(topology).items():
        found.append(Service(f"gitlab:{name}", External(gitlab.url)))
    return {service.ref: service for service in found}


def all_gitlab(topology: Topology) -> dict[str, Gitlab]:
    """Give the declared GitLab instances; with runners and none declared, gitlab.com."""
    if topology.gitlab or not topology.runners:
        return topology.gitlab
    return {"gitlab.com": Gitlab()}


def placed(topology: Topology, name: str, placement: Placement) -> Location | None:
    """Give where a declared listener listens; None where its host or cluster is missing."""
    if placement.cluster in topology.clusters:
        return ClusterSocket(
            str(placement.cluster),
            placement.namespace,
            placement.service or name,
            placement.port,
            placement.node_port,
        )
    if placement.host in topology.hosts:
        return HostSocket(str(placement.host), placement.port)
    return None


def _bucket_location(topology: Topology, name: str, bucket: Bucket) -> Location | None:
    if bucket.listener:
        return placed(topology, name, bucket.listener)
    if bucket.endpoint:
        return External(bucket.endpoint)
    if bucket.provider == "aws":
        return External(f"https://s3.{bucket.signing_region}.amazonaws.com")
    return None
