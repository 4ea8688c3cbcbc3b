"""Sort a topology by host, so that rendering a fleet takes time in proportion to its size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from kingpost.base.errors import InvalidInputError
from kingpost.render.netrc import NetrcLine, netrc_lines
from kingpost.render.secret_files import SecretUse, secrets_by_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kingpost.topology.caches import Attic, Bucket
    from kingpost.topology.ci import Runner
    from kingpost.topology.guards import Audit, Limit
    from kingpost.topology.hosts import Cluster, Host, Tunnel
    from kingpost.topology.needs import Need
    from kingpost.topology.platform import CacheUse, Platform


@dataclass(slots=True)
class OnHost:
    """What of a topology is on one host, each by its name in the topology and in its order.

    Attributes:
        name: The host's name.
        host: The host.
        platform: The platform that it belongs to.
        reads: Caches that its daemon substitutes from, in order.
        jobs_read: Caches that jobs ask its daemon for.
        netrc: Lines of its netrc, for the private ones among both.
        needs: Connections that something on it opens.
        secrets: Secrets that it holds.
        attic: Its Attic servers; NixOS runs at most one.
        runners: Its shell and docker runners.
        tunnels: Tunnels that start here.
        clusters: Clusters whose node it is.
        limits: Limits of its units and containers.
        audits: Audits that its timers run.
        buckets: Buckets whose S3 server NixOS runs here.
        checked: Buckets that its timers look at.

    """

    name: str
    host: Host
    platform: Platform
    reads: tuple[CacheUse, ...]
    jobs_read: tuple[CacheUse, ...]
    netrc: tuple[NetrcLine, ...]
    needs: list[Need] = field(default_factory=list)
    secrets: dict[str, SecretUse] = field(default_factory=dict)
    attic: dict[str, Attic] = field(default_factory=dict)
    runners: dict[str, Runner] = field(default_factory=dict)
    tunnels: dict[str, Tunnel] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    limits: dict[str, Limit] = field(default_factory=dict)
    audits: dict[str, Audit] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)
    checked: dict[str, Bucket] = field(default_factory=dict)

    @property
    def shell_user(self) -> str | None:
        """Give the user that shell runners' jobs run as; None without a shell runner.

        Raises:
            InvalidInputError: Two shell runners want different users.

        """
        users = sorted({runner.user for runner in self.runners.values() if runner.executor == "shell"})
        if len(users) > 1:
            raise InvalidInputError(
                f"shell runners on {self.name} want different users: {', '.join(users)}",
                where=f"runners on {self.name}",
                why="one gitlab-runner process runs all of a host's runners, as one user",
                fix="give them the same `user`, or move one to another host",
            )
        return users[0] if users else None


def by_host(platform: Platform) -> dict[str, OnHost]:
    """Give what is on each host, by its name.

    Raises:
        InvalidInputError: Two Attic servers on one host: NixOS has one `services.atticd`.

    """
    topology = platform.topology
    found = {name: _host(platform, name, host) for name, host in topology.hosts.items()}
    for name, uses in secrets_by_host(platform, {name: on.netrc for name, on in found.items()}).items():
        found[name].secrets = uses
    for need in platform.needs:
        host = platform.contexts[need.context].host
        if host in found:
            found[host].needs.append(need)
    for on, name, attic in _placed(found, topology.attic):
        on.attic[name] = attic
        _refuse_second(on)
    jobs = {name: runner for name, runner in topology.runners.items() if runner.executor != "kubernetes"}
    tables: dict[str, Mapping[str, _Placed]] = {
        "runners": jobs,
        "tunnels": topology.tunnels,
        "clusters": topology.clusters,
        "limits": topology.limits,
        "audits": topology.audits,
    }
    for table, declared in tables.items():
        for on, name, value in _placed(found, declared):
            getattr(on, table)[name] = value
    for name, bucket in topology.buckets.items():
        if bucket.listener and bucket.listener.managed and bucket.listener.host in found:
            found[bucket.listener.host].buckets[name] = bucket
        if bucket.check and bucket.check.host in found:
            found[bucket.check.host].checked[name] = bucket
    return found


def _host(platform: Platform, name: str, host: Host) -> OnHost:
    reads = platform.cache_uses(f"host:{name}")
    jobs_read = tuple(
        use
        for context in platform.contexts_on(name)
        if context.runner and not context.own_store
        for use in platform.cache_uses(context.id)
        if use.url
    )
    return OnHost(name, host, platform, reads, jobs_read, netrc_lines(platform, name, (*reads, *jobs_read)))


class _Placed(Protocol):
    @property
    def host(self) -> str | None: ...


_P = TypeVar("_P", bound=_Placed)


def _placed(hosts: dict[str, OnHost], declared: Mapping[str, _P]) -> Iterator[tuple[OnHost, str, _P]]:
    """Give what is declared on a known host, with that host and its name."""
    for name, value in declared.items():
        if value.host in hosts:
            yield hosts[value.host], name, value


def _refuse_second(on: OnHost) -> None:
    if len(on.attic) > 1:
        raise InvalidInputError(
            f"there are two Attic servers on {on.name}: {' and '.join(on.attic)}",
            where=f"attic.{list(on.attic)[-1]}",
            why="NixOS runs one `services.atticd` on a host; one server holds any number of caches",
            fix="declare the caches under one server, or move one to another host",
        )
