"""Networks: addresses that belong to them, and ranges that must not meet."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from kingpost.topology.checks.registry import Example, Finding, Path, Stage, check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network

    from kingpost.topology.checks.scene import Scene
    from kingpost.topology.hosts import Host
    from kingpost.topology.model import Topology


@check(
    "KP-NET-OVERLAP",
    title="No two networks of one host share addresses",
    why="the host has one route for an address: packets for one of the two networks end in the other",
    fix="move one of them to a range that is free on this host",
    example=Example(
        bad='[hosts.node1.docker]\npools = [{ base = "100.64.0.0/16", size = 24 }]',
        good='[hosts.node1.docker]\npools = [{ base = "172.18.0.0/16", size = 24 }]',
        at=("hosts", "node1", "docker", "pools", 0),
    ),
)
def overlaps(scene: Scene) -> Iterator[Finding]:
    """Find overlapping networks, host by host; those of a cluster are its host's."""
    clusters: dict[str, list[tuple[Path, str, IPv4Network]]] = {}
    for name, cluster in scene.topology.clusters.items():
        clusters.setdefault(cluster.host, []).extend(
            (
                (("clusters", name, "pod_network"), f"{name}'s pod network", cluster.pod_network),
                (("clusters", name, "service_network"), f"{name}'s service network", cluster.service_network),
            )
        )
    for name, host in scene.topology.hosts.items():
        ranges = [*_attached(scene.topology, host), *_docker(name, host), *clusters.get(name, ())]
        for (beside, one, first), (path, other, second) in combinations(ranges, 2):
            if beside[:3] == path[:3] == ("hosts", name, "docker"):
                continue  # KP-NET-POOL-OVERLAP
            if min(first.prefixlen, second.prefixlen) > 0 and _overlap(first, second):
                yield Finding(path, f"on {name}, {other} {second} overlaps {one} {first}")


def _overlap(one: IPv4Network, other: IPv4Network) -> bool:
    """Tell whether one range is inside the other; ipaddress's own answer takes ten times as long."""
    host_bits = 32 - min(one.prefixlen, other.prefixlen)
    return int(one.network_address) >> host_bits == int(other.network_address) >> host_bits


def _attached(topology: Topology, host: Host) -> Iterator[tuple[Path, str, IPv4Network]]:
    for name in host.addresses:
        network = topology.networks.get(name)
        if network and network.cidr:
            yield ("networks", name, "cidr"), f"the network {name}", network.cidr


def _docker(name: str, host: Host) -> Iterator[tuple[Path, str, IPv4Network]]:
    if host.docker is None:
        return
    path: Path = ("hosts", name, "docker")
    yield (*path, "bip"), f"docker's {host.docker.bridge}", host.docker.bip.network
    for index, pool in enumerate(host.docker.pools):
        yield (*path, "pools", index), "docker's address pool", pool.base


@check(
    "KP-NET-POOL-OVERLAP",
    title="Docker's address pools overlap neither each other nor its bridge",
    why="of two overlapping pools Docker ignores the smaller, and of a pool it skips what the bridge has, both in"
    " silence: there are fewer networks than the pools promise, and no rule can tell by address whether a packet"
    " comes from the bridge or from a job's own network",
    fix="take ranges apart, for example the bridge 172.17.0.1/16 and the pool 172.18.0.0/15",
    example=Example(
        bad='[hosts.node1.docker]\nbip = "172.17.0.1/16"\npools = [{ base = "172.16.0.0/12", size = 24 }]',
        good='[hosts.node1.docker]\nbip = "172.17.0.1/16"\npools = [{ base = "172.18.0.0/15", size = 24 }]',
        at=("hosts", "node1", "docker", "pools", 0),
    ),
    waivable=True,
)
def pool_overlaps(scene: Scene) -> Iterator[Finding]:
    """Find overlaps within one Docker engine (moby daemon/libnetwork/ipams/defaultipam/address_space.go)."""
    for name, host in scene.topology.hosts.items():
        for (_, one, first), (path, other, second) in combinations(_docker(name, host), 2):
            if _overlap(first, second):
                yield Finding(path, f"on {name}, {other} {second} overlaps {one} {first}")


@check(
    "KP-NET-ADDRESS",
    title="A host's address lies in its network",
    why="no other host of the network would find it there",
    fix="correct the address, or the network's `cidr`",
    example=Example(
        bad='[hosts.laptop.addresses]\ntailnet = "192.168.1.7"',
        good='[hosts.laptop.addresses]\ntailnet = "100.64.0.7"',
        at=("hosts", "laptop", "addresses", "tailnet"),
    ),
)
def foreign_addresses(scene: Scene) -> Iterator[Finding]:
    """Find addresses outside their network."""
    for name, host in scene.topology.hosts.items():
        for key, address in host.addresses.items():
            network = scene.topology.networks.get(key)
            if network and network.cidr and address.ip not in network.cidr:
                yield Finding(
                    ("hosts", name, "addresses", key),
                    f"{name}'s address {address.ip} is not in {key}, which is {network.cidr}",
                )


@check(
    "KP-NET-ADDRESS-TWICE",
    title="No two hosts share an address",
    why="whichever of them answers first gets the other's connections",
    fix="give each host its own",
    example=Example(
        bad='[hosts.laptop.addresses]\ntailnet = "100.64.0.1"',
        good='[hosts.laptop.addresses]\ntailnet = "100.64.0.2"',
        at=("hosts", "laptop", "addresses", "tailnet"),
    ),
)
def shared_addresses(scene: Scene) -> Iterator[Finding]:
    """Find addresses that two hosts have on one network."""
    seen: dict[tuple[str, object], str] = {}
    for name, host in scene.topology.hosts.items():
        for key, address in host.addresses.items():
            first = seen.setdefault((key, address.ip), name)
            if first != name:
                yield Finding(
                    ("hosts", name, "addresses", key),
                    f"{name} has the address {address.ip} on {key}, which is {first}'s already",
                )


@check(
    "KP-NET-BIP",
    title="docker's `bip` is the host's own address on the bridge",
    why="dockerd refuses to start with a network's own or broadcast address, or with no room for a container",
    fix='write the gateway with its prefix, for example "172.17.0.1/16"',
    example=Example(
        bad='[hosts.node1.docker]\nbip = "172.17.0.0/16"',
        good='[hosts.node1.docker]\nbip = "172.17.0.1/16"',
        at=("hosts", "node1", "docker", "bip"),
    ),
)
def bridge_address(scene: Scene) -> Iterator[Finding]:
    """Find bridges whose pinned address is none that a host can have."""
    for name, host in scene.topology.hosts.items():
        if host.docker is None:
            continue
        bip = host.docker.bip
        edges = {bip.network.network_address, bip.network.broadcast_address}
        if bip.network.prefixlen > 30 or bip.ip in edges:
            yield Finding(
                ("hosts", name, "docker", "bip"), f"{bip} is no address that {name} can have on its bridge"
            )


@check(
    "KP-NET-POOL",
    title="A docker address pool holds at least one network of its size",
    why="dockerd refuses to start with a pool that is smaller than the networks it is to give out",
    fix="make `size` (a prefix length) at least the base's, for example base 172.18.0.0/15 with size 24",
    example=Example(
        bad='[hosts.node1.docker]\npools = [{ base = "172.18.0.0/24", size = 16 }]',
        good='[hosts.node1.docker]\npools = [{ base = "172.18.0.0/16", size = 24 }]',
        at=("hosts", "node1", "docker", "pools", 0, "size"),
    ),
)
def small_pools(scene: Scene) -> Iterator[Finding]:
    """Find pools that are smaller than one of their networks."""
    for name, host in scene.topology.hosts.items():
        for index, pool in enumerate(host.docker.pools if host.docker else ()):
            if pool.size < pool.base.prefixlen:
                yield Finding(
                    ("hosts", name, "docker", "pools", index, "size"),
                    f"{name}'s docker pool {pool.base} is smaller than the /{pool.size} networks it gives out",
                )


@check(
    "KP-NET-DEPLOY",
    title="A host is deployed over a network that both ends are on",
    why="the copy of the closure and the activation go over that ssh connection, which cannot be made",
    fix="name a network that both hosts have an address on, or give the missing address",
    example=Example(
        bad='[networks.lan]\nkind = "lan"\n\n'
        '[hosts.node1.deploy]\ntool = "nixos-rebuild"\nfrom = "laptop"\nnetwork = "lan"',
        good='[networks.lan]\nkind = "lan"\n\n'
        '[hosts.node1.deploy]\ntool = "nixos-rebuild"\nfrom = "laptop"\nnetwork = "tailnet"',
        at=("hosts", "node1", "deploy", "network"),
    ),
)
def deploy_networks(scene: Scene) -> Iterator[Finding]:
    """Find deploys over networks that one end is not on."""
    topology = scene.topology
    for name, host in topology.hosts.items():
        if host.deploy is None or host.deploy.network not in topology.networks:
            continue
        over = host.deploy.network
        path: Path = ("hosts", name, "deploy", "network")
        if over not in host.addresses:
            yield Finding(path, f"{name} is deployed over {over}, on which it has no address")
            continue
        source = topology.hosts.get(host.deploy.source or "")
        if source is None or over in source.addresses:
            continue
        if topology.networks[over].kind != "public" or not source.internet:
            yield Finding(path, f"{name} is deployed from {host.deploy.source}, which is not on {over}")


@check(
    "KP-NET-TUNNEL",
    title="A tunnel's ssh connection can be made",
    why="ssh would dial an address that the tunnel's host does not reach, and the tunnel never comes up",
    fix='give both hosts an address on one network, and name it: `network = "NAME"`',
    example=Example(
        bad='[networks.lan]\nkind = "lan"\n\n[hosts.laptop.addresses]\nlan = "192.168.1.20"\n\n'
        '[tunnels.attic]\nhost = "laptop"\nlisten = "127.0.0.1:8083"\nservice = "attic:home"\nnetwork = "lan"',
        good='[tunnels.attic]\nhost = "laptop"\nlisten = "127.0.0.1:8083"\nservice = "attic:home"\n'
        'network = "tailnet"',
        at=("tunnels", "attic", "network"),
    ),
    stage=Stage.DERIVED,
)
def tunnel_networks(scene: Scene) -> Iterator[Finding]:
    """Find tunnels whose ends share no network, or not the one that they name."""
    topology = scene.topology
    for name, tunnel in topology.tunnels.items():
        location = scene.platform.find_service(tunnel.service).location
        far = scene.host_of(getattr(location, "host", None), getattr(location, "cluster", None))
        here, there = topology.hosts[tunnel.host], topology.hosts.get(far or "")
        if there is None:
            continue
        if far == tunnel.host:
            yield Finding(
                ("tunnels", name, "host"),
                f"the tunnel {name} leads from {far} to {far} itself",
                why="what it leads to is on the same host, and is reached there without it",
                fix="remove the tunnel, or correct its `host`",
            )
            continue
        candidates = [tunnel.network] if tunnel.network else list(topology.networks)
        shared = [
            network
            for network in candidates
            if network in there.addresses
            and (network in here.addresses or (topology.networks[network].kind == "public" and here.internet))
        ]
        if not shared:
            over = f"over {tunnel.network}" if tunnel.network else "over any network"
            path: Path = ("tunnels", name, *(["network"] if tunnel.network else []))
            yield Finding(path, f"{tunnel.host} does not reach {far} {over}, as the tunnel {name} needs")
