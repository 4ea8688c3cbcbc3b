"""Every way from a namespace to a service, best first, before binds and firewalls are considered.

An address is a promise relative to a network namespace: 127.0.0.1 is the dialer's own. What holds where:

- on the listener's own host: loopback;
- in a container on docker0: the bridge's gateway, whose packets reach the host's INPUT chain on that bridge;
- in a container on a network made for one job (FF_NETWORK_PER_BUILD): `host.docker.internal`, which docker
  resolves to docker0's gateway when the runner sets `host.docker.internal:host-gateway`; packets arrive on
  that network's own bridge `br-…` (https://docs.docker.com/reference/cli/docker/container/run/#add-host);
- in a pod: cluster DNS for services of the same cluster, else the node's address, arriving on the CNI bridge;
- from another machine: a declared tunnel, else the networks that both are on, in order of preference;
  containers and pods are masqueraded by their host and reach what it reaches, by address, never by a tailnet
  name;
- everywhere with internet: a public URL.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final, Literal

from kingpost.topology.places import ClusterSocket, HostSocket, Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.hosts import Tunnel
    from kingpost.topology.model import Topology
    from kingpost.topology.places import Service

LOOPBACK: Final = IPv4Address("127.0.0.1")
ANY: Final = IPv4Address("0.0.0.0")  # noqa: S104 - compared with, not bound to
HOST_GATEWAY: Final = "host.docker.internal"
PER_BUILD_INTERFACE: Final = "br-+"

Via = Literal[
    "loopback", "own-address", "gateway", "host-gateway", "cluster-dns", "node", "network", "tunnel", "public", "none"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Path:
    """One way to a service.

    Attributes:
        via: Its kind.
        host: What stands in the URL: an address or a name.
        port: What stands behind it.
        bound: Address that the service must be bound to for this way; None where that is not ours to say.
        interface: On which of the service's host's interfaces packets arrive; None for its loopback, and for
            what its INPUT chain does not see.
        reason: Why this address, for a person.
        guarded: Whether the service's host's firewall decides. tailscaled accepts all that comes in by its own
            interface, in a chain before NixOS's rules (tailscale util/linuxfw, `ts-input`): there the tailnet's
            ACLs decide, and only the bind keeps somebody out.

    """

    via: Via
    host: str
    port: int
    bound: IPv4Address | None
    interface: str | None
    reason: str
    guarded: bool = True

    @property
    def url(self) -> str:
        """Give the base URL, without a final slash."""
        return f"http://{self.host}:{self.port}"


def paths(
    topology: Topology, namespace: Namespace, service: Service, pinned: IPv4Address | None
) -> list[Path]:
    """Give every way from a namespace to a service on a declared host or cluster, best first.

    Args:
        topology: What is declared.
        namespace: Where the dialer is.
        service: What it dials; its location is a HostSocket or ClusterSocket.
        pinned: The address that the service is bound to by declaration; adds ways over just that address.

    """
    location = service.location
    if isinstance(location, HostSocket):
        return list(_to_host(topology, namespace, service, location, pinned))
    if isinstance(location, ClusterSocket):
        return list(_to_cluster(topology, namespace, service, location))
    return []


def ways_to(
    topology: Topology,
    namespace: Namespace,
    service: Service,
    pinned: IPv4Address | None,
    url: str | None,
) -> list[Path]:
    """Give the ways from a namespace to a service; with `url`, only the one that dials exactly that."""
    if url is None:
        return paths(topology, namespace, service, pinned)
    known = [None, *([pinned] if pinned and pinned != ANY else other_addresses(topology, service))]
    found = (way for address in known for way in paths(topology, namespace, service, address))
    return [way for way in found if way.url == url][:1]


def pinned_address(topology: Topology, service: Service) -> IPv4Address | None:
    """Give the address that the topology pins a service to."""
    if service.kind == "attic":
        return topology.attic[service.name].bind
    listener = topology.buckets[service.name].listener if service.kind == "bucket" else None
    return listener.bind if listener else None


def other_addresses(topology: Topology, service: Service) -> list[IPv4Address]:
    """Give the addresses of a service's host that others may know it by, the preferred first."""
    location = service.location
    if isinstance(location, HostSocket):
        host = topology.hosts[location.host]
        gateway = [host.docker.gateway] if host.docker else []
        return [*(address for _, address in own_addresses(topology, location.host)), *gateway]
    if isinstance(location, ClusterSocket):
        host_name = topology.clusters[location.cluster].host
        return (
            [address for _, address in own_addresses(topology, host_name)]
            if host_name in topology.hosts
            else []
        )
    return []


def machine(topology: Topology, namespace: Namespace) -> str | None:
    """Give the declared host that a namespace is on."""
    if namespace.kind == "peer":
        return None
    if namespace.kind == "pod":
        cluster = topology.clusters.get(namespace.owner)
        return cluster.host if cluster else None
    return namespace.owner


def entry_interface(topology: Topology, namespace: Namespace) -> str | None:
    """Give the interface by which packets from a namespace reach its own machine; None for the machine's own."""
    if namespace.kind == "bridge":
        docker = topology.hosts[namespace.owner].docker
        return docker.bridge if docker else None
    if namespace.kind == "per-build":
        return PER_BUILD_INTERFACE
    if namespace.kind == "pod":
        return topology.clusters[namespace.owner].interface
    return None


def has_internet(topology: Topology, namespace: Namespace) -> bool:
    """Tell whether a namespace reaches public addresses."""
    host = topology.hosts.get(machine(topology, namespace) or "")
    return host.internet if host else True


def own_addresses(topology: Topology, host: str) -> list[tuple[str, IPv4Address]]:
    """Give a host's (network, address) pairs, the preferred network first."""
    addresses = topology.hosts[host].addresses
    return [(name, addresses[name].ip) for name in topology.preferred_networks if name in addresses]


def _to_host(
    topology: Topology,
    namespace: Namespace,
    service: Service,
    socket: HostSocket,
    pinned: IPv4Address | None,
) -> Iterator[Path]:
    here = machine(topology, namespace)
    if here == socket.host:
        yield from _same_machine(topology, namespace, socket)
        if pinned and pinned not in {LOOPBACK, ANY}:
            yield _own_address(topology, namespace, socket, pinned)
        return
    far_end = pinned if pinned and pinned != ANY else LOOPBACK
    if here:
        yield from _tunnels(topology, namespace, service, far_end)
    yield from _networks(topology, namespace, socket.host, socket.port)


def _same_machine(topology: Topology, namespace: Namespace, socket: HostSocket) -> Iterator[Path]:
    host, port = topology.hosts[socket.host], socket.port
    if namespace.kind == "host":
        yield Path("loopback", str(LOOPBACK), port, LOOPBACK, None, f"{socket.host} is the dialer's own host")
    elif namespace.kind == "bridge" and host.docker:
        gateway = host.docker.gateway
        reason = f"from a container on {host.docker.bridge}, {socket.host} is the bridge's gateway"
        yield Path("gateway", str(gateway), port, gateway, host.docker.bridge, reason)
    elif namespace.kind == "per-build" and host.docker:
        reason = (
            "each job has a network of its own; host.docker.internal:host-gateway is its host on all of them"
        )
        yield Path("host-gateway", HOST_GATEWAY, port, host.docker.gateway, PER_BUILD_INTERFACE, reason)
    elif namespace.kind == "pod":
        cluster = topology.clusters[namespace.owner]
        for network, address in own_addresses(topology, socket.host):
            reason = f"a pod reaches its node at the node's {network} address"
            yield Path("node", str(address), port, address, cluster.interface, reason)
        bridge = cluster.pod_network.network_address + 1
        reason = f"a pod reaches its node at {cluster.interface}'s address"
        yield Path("node", str(bridge), port, bridge, cluster.interface, reason)


def _own_address(topology: Topology, namespace: Namespace, socket: HostSocket, address: IPv4Address) -> Path:
    """Give the way over the one address that the service is pinned to: every namespace of a host has it."""
    interface = entry_interface(topology, namespace)
    reason = f"bound to {address}, which every namespace of {socket.host} reaches"
    return Path("own-address", str(address), socket.port, address, interface, reason)


def _tunnels(
    topology: Topology, namespace: Namespace, service: Service, far_end: IPv4Address
) -> Iterator[Path]:
    here = machine(topology, namespace)
    for name, tunnel in topology.tunnels_by_host.get(here or "", {}).items():
        if not _leads_to(tunnel, service):
            continue
        address = _tunnel_address(topology, namespace, tunnel)
        if address:
            reason = f"the ssh tunnel {name} on {here} comes out on the service's own host"
            yield Path("tunnel", str(address), tunnel.listen[1], far_end, None, reason)


def _leads_to(tunnel: Tunnel, service: Service) -> bool:
    return tunnel.service in {service.ref, service.name} or service.ref.endswith(f":{tunnel.service}")


def _tunnel_address(topology: Topology, namespace: Namespace, tunnel: Tunnel) -> IPv4Address | None:
    """Give the address at which a namespace reaches a tunnel's listener on its own machine, if it does."""
    address = tunnel.listen[0]
    host = topology.hosts[tunnel.host]
    if namespace.kind == "host":
        return LOOPBACK if address == ANY else address
    if address == LOOPBACK:
        return None
    if address != ANY:
        return address
    return host.docker.gateway if host.docker and namespace.kind == "bridge" else None


def _networks(topology: Topology, namespace: Namespace, target: str, port: int) -> Iterator[Path]:
    """Give the ways to another machine over the networks that both are on."""
    here = topology.hosts.get(machine(topology, namespace) or "")
    addresses = topology.hosts[target].addresses
    for name in topology.preferred_networks:
        if name not in addresses:
            continue
        network = topology.networks[name]
        if namespace.kind == "peer":
            joined = namespace.owner == name or network.kind == "public"
        else:
            joined = here is not None and (
                name in here.addresses or (network.kind == "public" and here.internet)
            )
        if not joined:
            continue
        address = addresses[name]
        inside = "" if namespace.kind in {"host", "peer"} else ", masqueraded by its host"
        yield Path(
            "network",
            str(address.ip),
            port,
            address.ip,
            address.interface or network.default_interface,
            f"{name} is the first network in the order of preference that both are on{inside}",
            guarded=network.kind != "tailnet",
        )


def _to_cluster(
    topology: Topology, namespace: Namespace, service: Service, socket: ClusterSocket
) -> Iterator[Path]:
    cluster = topology.clusters[socket.cluster]
    if namespace.kind == "pod" and namespace.owner == socket.cluster:
        name = f"{socket.service}.{socket.namespace}.svc.{cluster.domain}"
        yield Path("cluster-dns", name, socket.port, None, None, "a pod of the same cluster uses cluster DNS")
    if cluster.host not in topology.hosts:
        return
    if machine(topology, namespace) != cluster.host and namespace.kind != "peer":
        yield from _tunnels(topology, namespace, service, LOOPBACK)
    if socket.node_port is None:
        return
    if machine(topology, namespace) == cluster.host:
        for network, address in own_addresses(topology, cluster.host):
            reason = f"its node port answers at the node's {network} address"
            yield Path("node", str(address), socket.node_port, None, None, reason)
    else:
        for path in _networks(topology, namespace, cluster.host, socket.node_port):
            # kube-proxy rewrites the packet before INPUT sees it: no bind, no firewall of the host's applies.
            yield Path(path.via, path.host, path.port, None, None, f"{path.reason}; the cluster's node port")
