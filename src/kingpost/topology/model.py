"""The topology: one typed value that everything else is derived from."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Final

from pydantic import Field

from kingpost.topology.caches import Attic, Bucket, Cachix, Gitlab, Substituter
from kingpost.topology.ci import Pipeline, Runner
from kingpost.topology.guards import Audit, Limit, Secret, Waiver
from kingpost.topology.hosts import Cluster, Host, NetworkSegment, Tunnel
from kingpost.topology.types import Model, Name

NIXOS_CACHE: Final = Substituter(
    url="https://cache.nixos.org",
    public_key="cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=",
    priority=40,
)
"""Always there as `substituter:nixos`, as NixOS itself always adds it."""


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
