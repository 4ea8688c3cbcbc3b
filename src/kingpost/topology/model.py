"""The topology: one typed value that everything else is derived from."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import Field

from kingpost.topology.caches import Attic, Bucket, Cachix, Gitlab, Substituter
from kingpost.topology.ci import Pipeline, Runner
from kingpost.topology.guards import Audit, Limit, Secret, Waiver
from kingpost.topology.hosts import Cluster, Host, NetworkSegment, Tunnel
from kingpost.topology.names import CacheRef, all_caches
from kingpost.topology.types import Model, Name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
K = TypeVar("K")

NIXOS_CACHE: Final = Substituter(
    url="https://cache.nixos.org",
    public_key="cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
    priority=40,
)
"""Always there as `substituter:nixos`, as NixOS itself always adds it."""

Owner = tuple[str, str]
"""A host, and its network that an address or name belongs to; `DOCKER` is the network of a docker gateway."""

Place = tuple[str | None, str | None]
"""A host or a cluster: (host, None) or (None, cluster)."""

DOCKER: Final = "docker"


class Site(Model):
    """What holds for the whole platform."""

    name: Name
    prefer: tuple[Name, ...] = Field(
        default=(), description="networks, best first; a declared tunnel always comes before them"
    )
    substituters: tuple[str, ...] = Field(default=("substituter:nixos",), description="in order")
    primary: str | None = Field(default=None, description="the cache that readers rely on")
    nixos: Annotated[str, Field(pattern=r"^(unstable|\d\d\.\d\d)$")] = "26.05"


class Topology(Model):
    """A whole platform. Every table is keyed by name; order is as written."""

    site: Site
    networks: dict[Name, NetworkSegment] = {}
    hosts: dict[Name, Host] = {}
    tunnels: dict[Name, Tunnel] = {}
    clusters: dict[Name, Cluster] = {}
    buckets: dict[Name, Bucket] = {}
    attic: dict[Name, Attic] = {}
    cachix: dict[Name, Cachix] = {}
    substituters: dict[Name, Substituter] = {}
    gitlab: dict[Name, Gitlab] = {}
    runners: dict[Name, Runner] = {}
    pipelines: dict[Name, Pipeline] = {}
    secrets: dict[Name, Secret] = {}
    limits: dict[Name, Limit] = {}
    audits: dict[Name, Audit] = {}
    waivers: dict[Name, Waiver] = {}

    @cached_property
    def all_substituters(self) -> dict[str, Substituter]:
        """Give the declared substituters and, unless one of that name is declared, `nixos`."""
        return {"nixos": NIXOS_CACHE, **self.substituters}

    @cached_property
    def preferred_networks(self) -> tuple[str, ...]:
        """Give every network, the preferred first, then lan, tailnet and public, each as written."""
        rank = {"lan": 0, "tailnet": 1, "public": 2}
        rest = sorted(
            (name for name in self.networks if name not in self.site.prefer),
            key=lambda name: rank[self.networks[name].kind],
        )
        return (*(name for name in self.site.prefer if name in self.networks), *rest)

    @cached_property
    def all_caches(self) -> dict[str, CacheRef]:
        """Give every declared cache by its full name."""
        return all_caches(self)

    @cached_property
    def owners(self) -> dict[str, tuple[Owner, ...]]:
        """Give what a URL's host may mean: each address, and each name that MagicDNS or a local domain resolves.

        Several hosts may have one gateway: docker's default bridge has the same address everywhere.
        """
        found: dict[str, list[Owner]] = {}
        for name, host in self.hosts.items():
            if host.docker:
                found.setdefault(str(host.docker.gateway), []).append((name, DOCKER))
            for network, address in host.addresses.items():
                for spelling in (str(address.ip), *self._names(host.hostname or name, network)):
                    found.setdefault(spelling, []).append((name, network))
        return {spelling: tuple(owners) for spelling, owners in found.items()}

    def _names(self, hostname: str, network: str) -> tuple[str, ...]:
        declared = self.networks.get(network)
        if declared is None or declared.domain is None:
            return ()
        full = f"{hostname}.{declared.domain}".lower()
        return (full, hostname.lower()) if declared.kind == "tailnet" else (full,)

    @cached_property
    def tunnels_by_host(self) -> dict[str, dict[str, Tunnel]]:
        """Give the tunnels that start on each host."""
        return grouped(self.tunnels, lambda tunnel: tunnel.host)

    @cached_property
    def clusters_by_host(self) -> dict[str, dict[str, Cluster]]:
        """Give the clusters whose node each host is."""
        return grouped(self.clusters, lambda cluster: cluster.host)

    @cached_property
    def limits_by_place(self) -> dict[Place, dict[str, Limit]]:
        """Give the limits on each host and in each cluster."""
        return grouped(self.limits, lambda limit: (limit.host, limit.cluster))

    @cached_property
    def runners_by_place(self) -> dict[Place, dict[str, Runner]]:
        """Give the runners whose jobs run on each host and in each cluster."""
        return grouped(
            self.runners,
            lambda runner: (None, runner.cluster) if runner.executor == "kubernetes" else (runner.host, None),
        )


def grouped(declared: Mapping[str, T], key: Callable[[T], K]) -> dict[K, dict[str, T]]:
    """Sort entries by what they have in common; each group is in the order of the topology."""
    found: dict[K, dict[str, T]] = {}
    for name, value in declared.items():
        found.setdefault(key(value), {})[name] = value
    return found
