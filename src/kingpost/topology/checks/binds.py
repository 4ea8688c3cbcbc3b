"""Listeners: one per address and port, bound as wide as their callers need and no wider."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

from kingpost.topology.checks.registry import Example, Finding, Path, Stage, check
from kingpost.topology.checks.scene import dotted
from kingpost.topology.paths import ANY, LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address

    from kingpost.topology.checks.scene import Scene
    from kingpost.topology.hosts import Host

NODE_PORTS: Final = range(30000, 32768)
"""What a Kubernetes API server accepts, unless started with another --service-node-port-range."""


@dataclass(frozen=True, slots=True)
class Socket:
    """Something that listens on a host: what, where it is declared, address and port."""

    what: str
    path: Path
    host: str
    address: IPv4Address
    port: int
    server: tuple[object, ...] = ()

    def collides(self, other: Socket) -> bool:
        """Tell whether the kernel, or kube-proxy, can serve only one of the two."""
        if (
            self.host != other.host
            or self.port != other.port
            or (self.server and self.server == other.server)
        ):
            return False
        return self.address == other.address or ANY in {self.address, other.address}


def table(service: str) -> Path:
    """Give the table of a listener by its service's reference."""
    kind, _, name = service.partition(":")
    return ("buckets", name, "listener") if kind == "bucket" else (kind, name)


def _sockets(scene: Scene) -> Iterator[Socket]:
    topology = scene.topology
    for ref, listener in scene.platform.listeners.items():
        server: tuple[object, ...] = ()
        if ref.startswith("bucket:"):
            # Two buckets of one provider at one port are served by the same process.
            server = (topology.buckets[ref.removeprefix("bucket:")].provider,)
        yield Socket(ref, (*table(ref), "port"), listener.host, listener.bind, listener.port, server)
    for name, tunnel in topology.tunnels.items():
        path: Path = ("tunnels", name, "listen")
        yield Socket(f"the tunnel {name}", path, tunnel.host, tunnel.listen[0], tunnel.listen[1])
    for path, placement in scene.placements():
        host = scene.host_of(None, placement.cluster)
        if host and placement.node_port:
            what = f"the node port of {path[0]}.{path[1]}"
            server = (placement.cluster, placement.namespace, placement.service or path[1])
            yield Socket(what, (*path, "node_port"), host, ANY, placement.node_port, server)


@check(
    "KP-LISTEN-CLASH",
    title="One address and port has one listener",
    why="the second to start fails with `Address already in use`, or takes the first one's connections",
    fix="give one of them another port",
    example=Example(
        bad='[buckets.own]\nprovider = "garage"\nlistener = { host = "node1", port = 8083 }',
        good='[buckets.own]\nprovider = "garage"\nlistener = { host = "node1", port = 3900 }',
        at=("buckets", "own", "listener", "port"),
    ),
    stage=Stage.DERIVED,
)
def clashes(scene: Scene) -> Iterator[Finding]:
    """Find two listeners on one address and port of one host."""
    by_port: dict[tuple[str, int], list[Socket]] = {}
    for socket in _sockets(scene):
        by_port.setdefault((socket.host, socket.port), []).append(socket)
    for sockets in by_port.values():
        for one, other in combinations(sockets, 2):
            if one.collides(other):
                yield Finding(
                    other.path, f"{other.what} and {one.what} both listen on port {one.port} of {one.host}"
                )


@check(
    "KP-LISTEN-SERVICE",
    title="Two things in a cluster are two Services",
    why="both would be rendered as one Service of that name, and its callers reach either",
    fix="give one of them another `service` or `namespace`",
    example=Example(
        bad='[clusters.k3s]\nhost = "laptop"\nmemory_max = "4GiB"\n\n'
        '[attic.one]\ncluster = "k3s"\nservice = "attic"\nport = 8080\nsecret = "attic"\n\n'
        '[attic.two]\ncluster = "k3s"\nservice = "attic"\nport = 8080\nsecret = "attic"',
        good='[clusters.k3s]\nhost = "laptop"\nmemory_max = "4GiB"\n\n'
        '[attic.one]\ncluster = "k3s"\nservice = "attic-one"\nport = 8080\nsecret = "attic"\n\n'
        '[attic.two]\ncluster = "k3s"\nservice = "attic-two"\nport = 8080\nsecret = "attic"',
        at=("attic", "two"),
    ),
)
def same_service(scene: Scene) -> Iterator[Finding]:
    """Find two placements with one Service, but for buckets of one store."""
    seen: dict[tuple[object, ...], Path] = {}
    for path, placement in scene.placements():
        if placement.cluster is None:
            continue
        name = placement.service or path[1]
        first = seen.setdefault((placement.cluster, placement.namespace, name), path)
        one_store = (
            first[0] == path[0] == "buckets"
            and scene.topology.buckets[str(first[1])].provider
            == scene.topology.buckets[str(path[1])].provider
        )
        if first != path and not one_store:
            yield Finding(
                path,
                f"{dotted(path)} and {dotted(first)} are both the Service {name} in {placement.namespace}",
            )


@check(
    "KP-LISTEN-NODE-PORT",
    title="A node port is one that Kubernetes gives out",
    why="the API server refuses the Service unless it was started with another --service-node-port-range",
    fix="choose one from 30000 to 32767; if the cluster has another range, waive it",
    example=Example(
        bad='[clusters.k3s]\nhost = "laptop"\nmemory_max = "4GiB"\n\n'
        '[attic.pods]\ncluster = "k3s"\nport = 8080\nnode_port = 8080\nsecret = "attic"',
        good='[clusters.k3s]\nhost = "laptop"\nmemory_max = "4GiB"\n\n'
        '[attic.pods]\ncluster = "k3s"\nport = 8080\nnode_port = 30080\nsecret = "attic"',
        at=("attic", "pods", "node_port"),
    ),
    waivable=True,
)
def node_port_range(scene: Scene) -> Iterator[Finding]:
    """Find node ports out of range, and on things that are in no cluster."""
    for path, placement in scene.placements():
        at = (*path, "node_port")
        if placement.node_port is None:
            continue
        if placement.cluster is None:
            yield Finding(
                at, f"{dotted(path)} is in no cluster, so it has no node port", fix="remove `node_port`"
            )
        elif placement.node_port not in NODE_PORTS:
            yield Finding(at, f"the node port {placement.node_port} of {dotted(path)} is out of range")


@check(
    "KP-BIND-NARROW",
    title="A pinned address is one that every caller reaches",
    why="a connection to another address of the host is refused, however open the firewall is",
    fix="remove `bind`: the address is then computed from the callers",
    example=Example(
        bad='[attic.home]\nbind = "127.0.0.1"',
        good="[attic.home]\nport = 8083",
        at=("attic", "home", "bind"),
    ),
    stage=Stage.DERIVED,
)
def too_narrow(scene: Scene) -> Iterator[Finding]:
    """Find pinned addresses that shut out a declared caller."""
    for ref, listener in scene.platform.listeners.items():
        if not listener.pinned:
            continue
        shut_out = [
            need
            for need in listener.callers
            if not (found := scene.platform.route(need.context, need.dialer, ref)).reachable
            and found.candidate
        ]
        if shut_out:
            callers = ", ".join(dict.fromkeys(f"{need.context} ({need.why})" for need in shut_out[:3]))
            more = f" and {len(shut_out) - 3} more" if len(shut_out) > 3 else ""
            yield Finding(
                (*table(ref), "bind"),
                f"{ref} is bound to {listener.bind}, where it is not reached by {callers}{more}",
            )


@check(
    "KP-BIND-WIDE",
    title="A pinned address is no wider than its callers need",
    why="0.0.0.0 also listens where nobody is to call, and only the firewall is left to keep them out",
    fix="remove `bind`: the address is then computed from the callers",
    example=Example(
        bad='[attic.second]\nhost = "laptop"\nport = 8090\nbind = "0.0.0.0"\nsecret = "attic"',
        good='[attic.second]\nhost = "laptop"\nport = 8090\nsecret = "attic"',
        at=("attic", "second", "bind"),
    ),
    stage=Stage.DERIVED,
    waivable=True,
)
def too_wide(scene: Scene) -> Iterator[Finding]:
    """Find listeners pinned to all addresses whose callers use one."""
    for ref, listener in scene.platform.listeners.items():
        if listener.pinned and listener.bind == ANY != listener.narrowest:
            number = len({need.context for need in listener.callers})
            words = "nobody declared calls it" if not number else "all its callers reach it there"
            yield Finding(
                (*table(ref), "bind"), f"{ref} is bound to {ANY}, and {listener.narrowest} would do: {words}"
            )


@check(
    "KP-BIND-FOREIGN",
    title="A pinned address is one that its host has",
    why="the server fails at start with `Cannot assign requested address`",
    fix="correct the address, or remove `bind`: it is then computed from the callers",
    example=Example(
        bad='[attic.second]\nhost = "laptop"\nport = 8090\nbind = "100.64.0.7"\nsecret = "attic"',
        good='[attic.second]\nhost = "laptop"\nport = 8090\nbind = "100.64.0.2"\nsecret = "attic"',
        at=("attic", "second", "bind"),
    ),
)
def foreign_address(scene: Scene) -> Iterator[Finding]:
    """Find addresses within a network that the host is on where it has another address."""
    for path, placement in scene.placements():
        if placement.bind is None:
            continue
        if placement.cluster is not None:
            yield Finding(
                (*path, "bind"),
                f"{dotted(path)} is in a cluster, where a pod's address is not chosen",
                fix="remove `bind`",
            )
            continue
        host = scene.topology.hosts.get(placement.host or "")
        if host and placement.bind not in {ANY, LOOPBACK} and _is_foreign(scene, host, placement.bind):
            yield Finding(
                (*path, "bind"),
                f"{dotted(path)} is bound to {placement.bind}, which {placement.host} has not",
            )


def _is_foreign(scene: Scene, host: Host, address: IPv4Address) -> bool:
    own = {entry.ip for entry in host.addresses.values()}
    networks = [
        scene.topology.networks[name].cidr for name in host.addresses if name in scene.topology.networks
    ]
    if host.docker:
        own.add(host.docker.gateway)
        networks.append(host.docker.bip.network)
    return address not in own and any(network and address in network for network in networks)
