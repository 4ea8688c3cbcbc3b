"""The one URL of each self-hosted bucket: atticd signs it into the redirects that it sends to every puller.

A presigned URL names the endpoint that atticd itself is configured with (attic server/src/storage/s3.rs). So
what is best for atticd alone, such as 127.0.0.1 or a cluster DNS name, is wrong as soon as somebody pulls from
elsewhere: the endpoint must be one that atticd and every puller reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.topology.paths import ANY, LOOPBACK, other_addresses, paths, pinned_address, ways_to
from kingpost.topology.places import ClusterSocket, Dialer, External, HostSocket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kingpost.topology.model import Topology
    from kingpost.topology.needs import Need
    from kingpost.topology.places import Context, Service


def bucket_endpoints(
    topology: Topology,
    contexts: Mapping[str, Context],
    services: Mapping[str, Service],
    callers: Mapping[str, Sequence[Need]],
) -> dict[str, str]:
    """Give the URL (without a final slash) of every bucket on a declared host or cluster, by reference.

    It is the first of the addresses that the bucket's server itself would choose, then of the others, that the
    most of its `callers` (the needs of each service) reach.
    """
    return {
        ref: _endpoint(topology, contexts, service, callers.get(ref, ()))
        for ref, service in services.items()
        if service.kind == "bucket" and not isinstance(service.location, External)
    }


def _endpoint(
    topology: Topology, contexts: Mapping[str, Context], service: Service, needs: Sequence[Need]
) -> str:
    pinned = pinned_address(topology, service)
    namespaces = [contexts[need.context].namespace(need.dialer) for need in needs]
    servers = [
        contexts[need.context].namespace(Dialer.CLIENT)
        for need in needs
        if contexts[need.context].kind == "service"
    ]
    candidates: dict[str, None] = {}
    for namespace in [*servers, *namespaces]:
        for address in [pinned] if pinned and pinned != ANY else [None, *other_addresses(topology, service)]:
            for way in paths(topology, namespace, service, address):
                if way.via != "tunnel" and (pinned in {None, ANY} or way.bound == pinned):
                    candidates.setdefault(way.url)
    if not candidates:
        return f"http://{LOOPBACK}:{_port(service)}"

    def reached(url: str) -> int:
        return sum(bool(ways_to(topology, namespace, service, pinned, url)) for namespace in namespaces)

    return max(candidates, key=reached)


def _port(service: Service) -> int:
    return service.location.port if isinstance(service.location, (HostSocket, ClusterSocket)) else 443
