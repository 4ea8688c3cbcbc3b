"""Routes: what a dialer in a context must dial to reach a service, and why; or why it cannot, and what to change."""

from __future__ import annotations

from functools import cache
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from kingpost.topology.model import DOCKER
from kingpost.topology.paths import Path, Via, has_internet, machine
from kingpost.topology.places import ClusterSocket, Context, Dialer, External, Namespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kingpost.topology.listeners import Listener
    from kingpost.topology.model import Owner, Topology
    from kingpost.topology.places import Service


class Route(NamedTuple):
    """An answer.

    Attributes:
        context: Id of the context.
        dialer: Who dials there.
        service: Reference of the service.
        url: Base URL without a final slash; None when it cannot be reached.
        via: Kind of the way; `none` when there is none.
        reason: Why this address, or why there is none.
        fix: What to change when it cannot be reached.
        candidate: The URL that would be dialled if bind and firewall let it; None without any way.

    """

    context: str
    dialer: Dialer
    service: str
    url: str | None
    via: Via
    reason: str
    fix: str = ""
    candidate: str | None = None

    @property
    def reachable(self) -> bool:
        """Tell whether there is a way."""
        return self.url is not None


def route(
    topology: Topology,
    context: Context,
    dialer: Dialer,
    service: Service,
    listener: Listener | None,
    *,
    ways: Sequence[Path],
    endpoint: str | None = None,
) -> Route:
    """Give the route of one dialer to one service: the first of the `ways` there that bind and firewall admit.

    `endpoint` is the one URL that a bucket's callers share.
    """
    namespace = context.namespace(dialer)
    if isinstance(service.location, External):
        return fixed(topology, context, dialer, service.ref, service.location.url)
    for way in ways:
        if listener is None or not listener.admits(way):
            return Route(context.id, dialer, service.ref, way.url, way.via, way.reason, "", way.url)
    if service.public_url and has_internet(topology, namespace):
        url = service.public_url.rstrip("/")
        return Route(context.id, dialer, service.ref, url, "public", "its public URL", "", url)
    if not ways or listener is None:
        reason, fix = _no_way(topology, namespace, service, endpoint)
        return Route(context.id, dialer, service.ref, None, "none", reason, fix, endpoint)
    reason, fix = _kept_out(context, service, listener, ways[0])
    return Route(context.id, dialer, service.ref, None, "none", reason, fix, ways[0].url)


def _kept_out(context: Context, service: Service, listener: Listener, way: Path) -> tuple[str, str]:
    if listener.admits(way) == "bind":
        return (
            f"{service.ref} is bound to {listener.bind} on {listener.host}, and this dialer needs {way.bound}",
            f"remove `bind` from {_table(service)}: the address is then computed from its callers"
            if listener.pinned
            else f"declare that {context.id} uses {service.ref}, then it is bound for it too",
        )
    return (
        f"{listener.host}'s firewall is shut on {way.interface}: nothing declares a caller from there",
        f"declare that {context.id} uses it, as substituter or push: the port is then opened on {way.interface}",
    )


def _table(service: Service) -> str:
    return (
        f"buckets.{service.name}.listener" if service.kind == "bucket" else f"{service.kind}.{service.name}"
    )


def _no_way(
    topology: Topology, namespace: Namespace, service: Service, endpoint: str | None
) -> tuple[str, str]:
    location = service.location
    here = machine(topology, namespace) or f"a peer on {namespace.owner}"
    if endpoint:
        return (
            f"atticd redirects readers to {endpoint}, which a {namespace.kind} namespace on {here} does not reach",
            f"give the host of {service.ref} an address (and a node port) that {here} and every other reader reach",
        )
    if isinstance(location, ClusterSocket):
        cluster = topology.clusters[location.cluster]
        if location.node_port is None:
            return (
                f"{service.ref} has no address outside its cluster {location.cluster}",
                f"give {_table(service)} a `node_port`, or dial it from a pod",
            )
        target = cluster.host
    else:
        target = getattr(location, "host", service.ref)
    if here == target:
        return (
            f"a {namespace.kind} namespace on {here} has no address for its host",
            f"declare hosts.{here}.docker, or an address of {here} on a network",
        )
    return (
        f"{here} and {target} share no network, and no tunnel leads there",
        f"give both an address on one network, declare a tunnel on {here}, or give {_table(service)} a public URL",
    )


def fixed(topology: Topology, context: Context, dialer: Dialer, ref: str, url: str) -> Route:
    """Give the route to a URL that was written by hand: is what it names reachable from here?

    A loopback address is the dialer's own namespace; a declared host's address needs a shared network; a tailnet
    or local name resolves on hosts only; everything else is on the internet.
    """
    namespace = context.namespace(dialer)
    url, name = _named(url)
    via, reason, fix = _to_name(topology, namespace, name)
    reached = url if via != "none" else None
    return Route(context.id, dialer, ref, reached, via, reason, fix, url)


@cache
def _named(url: str) -> tuple[str, str]:
    """Give a URL without its final slash, and the host name in it."""
    return url.rstrip("/"), urlsplit(url).hostname or ""


def _to_name(topology: Topology, namespace: Namespace, name: str) -> tuple[Via, str, str]:
    """Give (via, reason, fix) for a host name or address in a URL."""
    if is_loopback(name):
        if namespace.kind == "host":
            return "loopback", f"{name} is {namespace.owner} itself", ""
        return (
            "none",
            f"{name} is the dialer's own {namespace.kind} namespace, where nothing listens",
            "declare what serves it (host and port) instead of a URL: an address is then derived per dialer",
        )
    here = machine(topology, namespace)
    if owner := _owner(topology, name, here):
        return _to_declared(topology, namespace, name, *owner)
    if has_internet(topology, namespace):
        return "public", "it is on the internet", ""
    return (
        "none",
        f"{here} has no internet, and {name} is no declared host",
        f"set hosts.{here}.internet, or use a cache on a shared network",
    )


def _to_declared(
    topology: Topology, namespace: Namespace, name: str, host: str, network: str
) -> tuple[Via, str, str]:
    here = machine(topology, namespace)
    if network == DOCKER:
        if here == host:
            return "gateway", f"{name} is {host}'s docker gateway", ""
        return (
            "none",
            f"{name} is the docker gateway of {host}, and of nothing elsewhere",
            f"use {host}'s address on a network that {here} is on too",
        )
    joined = here == host or (here is not None and network in topology.hosts[here].addresses)
    joined = joined or (namespace.kind == "peer" and namespace.owner == network)
    public = topology.networks[network].kind == "public" and has_internet(topology, namespace)
    if not joined and not public:
        return (
            "none",
            f"{name} is {host}'s on {network}, and {here or namespace.owner} is not on {network}",
            f"give {here or namespace.owner} an address on {network}, or use a name that it reaches",
        )
    if not name[0].isdigit() and namespace.kind not in {"host", "peer"}:
        return (
            "none",
            f"{name} is a name of {network}, and such names do not resolve in a container or pod",
            f"use the address {topology.hosts[host].addresses[network].ip}",
        )
    return "network", f"{host} at its {network} address", ""


@cache
def is_loopback(name: str) -> bool:
    """Tell whether a URL's host means the dialer's own namespace."""
    try:
        return IPv4Address(name).is_loopback
    except AddressValueError:
        return name == "localhost" or name.endswith(".localhost") or name == "::1"


def _owner(topology: Topology, name: str, here: str | None) -> Owner | None:
    """Give the (host, network) that a URL's host means on a machine: its own, where several have that address."""
    owners = topology.owners.get(name, ())
    return next((owner for owner in owners if owner[0] == here), owners[0] if owners else None)
