"""Which namespaces reach a service in the same way, so that a fleet's routes are derived once and not once a host.

A namespace reaches another machine's service, or one on the internet, by what its machine has joined; which machine
it is decides only where the service is that machine's own, where a tunnel begins on it, or where a URL names it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from kingpost.topology.paths import has_internet, machine
from kingpost.topology.places import ClusterSocket, HostSocket
from kingpost.topology.routes import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kingpost.topology.model import Topology
    from kingpost.topology.places import Namespace, NamespaceKind, Service


class Standing(NamedTuple):
    """What decides how a namespace reaches other machines.

    Attributes:
        kind: The namespace's; a container's packets are masqueraded, and names resolve on hosts only.
        networks: Those that its machine has an address on; of a peer the one that it is on.
        internet: Whether it reaches public addresses.

    """

    kind: NamespaceKind
    networks: frozenset[str]
    internet: bool


def alike(
    topology: Topology, services: Mapping[str, Service]
) -> Callable[[Namespace, str], Namespace | Standing]:
    """Give a function that tells, of a namespace and a service's reference, what decides the ways there.

    Two namespaces for which it gives the same have the same ways, for the same reasons. It gives the namespace
    itself where no other is sure to be like it.
    """
    homes = {ref: _home(topology, service) for ref, service in services.items()}

    @cache
    def standing(namespace: Namespace) -> tuple[str | None, Namespace | Standing]:
        here = machine(topology, namespace)
        if namespace.kind == "peer":
            return here, Standing("peer", frozenset({namespace.owner}), internet=True)
        host = topology.hosts.get(here or "")
        if host is None or here in topology.tunnels_by_host:
            return here, namespace
        return here, Standing(namespace.kind, frozenset(host.addresses), has_internet(topology, namespace))

    def decides(namespace: Namespace, ref: str) -> Namespace | Standing:
        here, found = standing(namespace)
        home = homes[ref]
        return namespace if home is _EVERYWHERE or home == here else found

    return decides


_EVERYWHERE = object()
"""The home of a service whose address means something else on every machine."""


def _home(topology: Topology, service: Service) -> object:
    """Give the declared host that a service is on; None where it is on none."""
    location = service.location
    if isinstance(location, HostSocket):
        return location.host
    if isinstance(location, ClusterSocket):
        return topology.clusters[location.cluster].host
    name = urlsplit(location.url).hostname or ""
    return _EVERYWHERE if is_loopback(name) or name in topology.owners else None
