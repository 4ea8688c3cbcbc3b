"""Machines and what connects them: hosts, networks, tunnels, Docker engines, clusters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kingpost.topology.types import (
    AbsolutePath,
    Address,
    Endpoint,
    Flag,
    HostName,
    Interface,
    Model,
    Name,
    Network,
    NixVersion,
    PlainPath,
    Port,
    Size,
    System,
    User,
)

GIB = 1024**3
MIB = 1024**2


class NetworkSegment(Model):
    """A network that several hosts are on.

    A `tailnet` address is reachable from every host on it; its *names* resolve on hosts only, never in a
    container. A `lan` is a broadcast domain. `public` addresses are reachable from everywhere.
    """

    kind: Literal["tailnet", "lan", "public"]
    cidr: Network | None = None
    interface: Name | None = Field(default=None, description="on every host that names no other")
    domain: HostName | None = Field(default=None, description="MagicDNS or local domain of host names")

    @property
    def default_interface(self) -> str:
        """Give the interface of a host that names none."""
        return self.interface or {"tailnet": "tailscale0", "lan": "eth0", "public": "eth0"}[self.kind]


class HostAddress(Model):
    """A host's address on one network; the short form is the bare IP in quotes."""

    ip: Address
    interface: Name | None = None


def _address(value: Any) -> Any:
    return {"ip": value} if isinstance(value, str) else value


class AddressPool(Model):
    """Where docker takes the subnets of user-defined and per-build networks from."""

    base: Network
    size: Annotated[int, Field(strict=True, ge=8, le=30)] = 24


class Docker(Model):
    """A Docker engine. Its gateway is pinned, because every bridge container's routes depend on it."""

    bridge: Name = "docker0"
    bip: Interface = Interface("172.17.0.1/16")
    pools: tuple[AddressPool, ...] = (AddressPool(base=Network("172.18.0.0/15"), size=24),)

    @property
    def gateway(self) -> Address:
        """Give the host's address on the default bridge."""
        return self.bip.ip


class Deploy(Model):
    """How a host gets a new system: by which tool, from where, over which network."""

    tool: Literal["nixos-rebuild", "deploy-rs", "colmena", "comin"] = "nixos-rebuild"
    source: Name | None = Field(default=None, alias="from", description="host that the deploy runs on")
    network: Name | None = Field(default=None, description="network that the ssh connection takes")


class StoreFix(Model):
    """The repair of a host's Nix store, kept where a broken store cannot take it away."""

    repair: Literal["none", "safe"] = Field(
        default="none", description="of what the look at boot finds; safe: what loses nothing"
    )


class Host(Model):
    """A NixOS machine."""

    system: System = "x86_64-linux"
    hostname: HostName | None = Field(default=None, description="when it differs from the host's key")
    memory: Size
    swap: Size = 0
    reserve: Size = Field(default=512 * MIB, description="for the kernel and all that has no limit")
    users: tuple[User, ...] = ()
    trusted_users: tuple[User, ...] = Field(default=(), description="may pass any setting to the Nix daemon")
    ssh_user: User | None = None
    addresses: dict[
        Name, Annotated[HostAddress, BeforeValidator(_address, json_schema_input_type=Address | HostAddress)]
    ] = {}
    deploy: Deploy | None = None
    nix: NixVersion = "2.31"
    ec2: Flag = Field(default=False, description="has EC2's metadata service")
    internet: Flag = Field(default=True, description="reaches public addresses")
    docker: Docker | None = None
    substituters: tuple[str, ...] | None = Field(default=None, description="in order; default: the site's")
    store_fix: StoreFix | None = Field(
        default=None, description="keep the store's repair at hand, and look at the store at every boot"
    )
    metrics: PlainPath | None = Field(
        default=None, description="folder of node_exporter's textfile collector, for what runs by itself"
    )
    state_version: Annotated[str, Field(pattern=r"^\d\d\.\d\d$")] = "26.05"


class Tunnel(Model):
    """An ssh port forward: `host` listens, the connection comes out on the service's own host."""

    host: Name
    listen: Endpoint
    service: str = Field(description="what comes out at the other end, for example attic:home")
    network: Name | None = Field(
        default=None, description="network that ssh takes; default: the preferred one"
    )
    user: User | None = Field(default=None, description="ssh user; default: the target's ssh_user")
    identity: AbsolutePath | None = Field(default=None, description="private key file on `host`")


class Etcd(Model):
    """The cluster's etcd: its backend quota and its memory limit. It grows until it meets one of them."""

    quota: Size = 2 * GIB
    memory_max: Size | None = None


class Quota(Model):
    """A namespace's ResourceQuota and the LimitRange's default for containers without limits."""

    memory: Size | None = None
    pods: Annotated[int, Field(strict=True, ge=1)] | None = None
    default_memory: Size | None = None


class Cluster(Model):
    """A Kubernetes cluster, with its node on a declared host."""

    host: Name
    distribution: Literal["k3s", "kubernetes"] = "k3s"
    memory_max: Size | None = Field(default=None, description="of the whole cluster on its host")
    pod_network: Network = Network("10.42.0.0/16")
    service_network: Network = Network("10.43.0.0/16")
    domain: HostName = "cluster.local"
    interface: Name = Field(default="cni0", description="on which pods' packets reach the node")
    namespaces: dict[Name, Quota] = {}
    etcd: Etcd | None = None


class Placement(Model):
    """Where a listener runs: on a host, or as a Service in a cluster.

    Its bind address and the firewall are computed from its callers; `bind` pins the address and is checked.
    """

    host: Name | None = None
    cluster: Name | None = None
    namespace: Name = "default"
    service: Name | None = Field(default=None, description="name of the Service; default: this entry's key")
    port: Port
    node_port: Port | None = Field(default=None, description="on the cluster's host, for callers outside it")
    bind: Address | None = Field(default=None, description="pin the address instead of computing it")
    serve: tuple[Name, ...] = Field(default=(), description="networks whose undeclared peers may connect too")
