"""Where processes run and where services listen: namespaces, contexts, services.

A **context** is where a process runs. Two **dialers** open sockets in it: the `client` (`attic push`, `curl`)
and the `daemon` it talks to, which may live in another network namespace: a container that mounts the host's
daemon socket substitutes from the host's namespace and pushes from its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple


class Dialer(StrEnum):
    """Who opens the socket."""

    CLIENT = "client"
    DAEMON = "daemon"

    __hash__ = str.__hash__  # as equality is the text's; an enumeration's own is ten times slower


NamespaceKind = Literal["host", "bridge", "per-build", "pod", "peer"]


class Namespace(NamedTuple):
    """A network namespace.

    Attributes:
        kind: `host` a host's own; `bridge` a container on docker0; `per-build` a container on a network made
            for one job; `pod` a pod; `peer` an undeclared machine on a network.
        owner: The host's name; for a pod the cluster's, for a peer the network's.

    """

    kind: NamespaceKind
    owner: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.owner}"


ContextKind = Literal["host", "user", "shell", "docker", "pod", "peer", "service"]


@dataclass(frozen=True, slots=True)
class Context:
    """Where a process runs.

    Attributes:
        id: `host:node1`, `user:node1/ann`, `shell:thinkpad/host-ci`, `docker:node1/blog`, `pod:k3s/builds`,
            `peer:tailnet`, `service:k3s/attic`.
        kind: The part of the id before the colon.
        client: Namespace of the client dialer.
        daemon: Namespace of the Nix daemon (or of the client itself, where the store is its own).
        host: Host that it runs on; None for a peer.
        user: Whose `~/.config/attic` and CI user it is.
        own_store: Whether its Nix store is its own, not the host's.
        runner: The runner whose job it is, if it is one.

    """

    id: str
    kind: ContextKind
    client: Namespace
    daemon: Namespace
    host: str | None
    user: str
    own_store: bool = False
    runner: str | None = None

    def namespace(self, dialer: Dialer) -> Namespace:
        """Give the namespace that a dialer's socket is in."""
        return self.client if dialer is Dialer.CLIENT else self.daemon


@dataclass(frozen=True, slots=True)
class HostSocket:
    """A TCP port on a declared host."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ClusterSocket:
    """A Service in a declared cluster; `node_port` is where its host answers for it, if it does."""

    cluster: str
    namespace: str
    service: str
    port: int
    node_port: int | None


@dataclass(frozen=True, slots=True)
class External:
    """A URL that somebody else serves."""

    url: str


Location = HostSocket | ClusterSocket | External


@dataclass(frozen=True, slots=True)
class Service:
    """Something that is dialled.

    Attributes:
        ref: `attic:home`, `bucket:attic-cache`, `cachix:xameer`, `substituter:nixos`, `gitlab:main`.
        location: Where it listens.
        public_url: Where everybody with internet reaches it, beside its location.

    """

    ref: str
    location: Location
    public_url: str | None = None

    @property
    def kind(self) -> str:
        """Give the part of `ref` before the colon."""
        return self.ref.partition(":")[0]

    @property
    def name(self) -> str:
        """Give the part of `ref` after the colon."""
        return self.ref.partition(":")[2]
