"""Where secrets lie on a host, and which units read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kingpost.topology.bounds import RUNNER
from kingpost.topology.caches import BucketStorage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kingpost.render.netrc import NetrcLine
    from kingpost.topology.guards import Secret
    from kingpost.topology.platform import Platform

ATTICD: Final = "atticd.service"
NETRC: Final = "kingpost-netrc.service"
RUNNER_TOKEN: Final = "CI_SERVER_TOKEN"  # noqa: S105  a variable's name
ATTIC_TOKEN: Final = "ATTIC_TOKEN"  # noqa: S105  likewise


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A secret on a host.

    Attributes:
        name: Its key in the topology.
        secret: What is declared of it.
        units: Units that must start again when it changes; a runner only reloads.

    """

    name: str
    secret: Secret
    units: list[str] = field(default_factory=list)


def secret_path(name: str, secret: Secret) -> str:
    """Give the file that a secret is in on its hosts: as declared, or where its provider puts it."""
    if secret.path:
        return secret.path
    folder = "/run/agenix" if secret.provider == "agenix" else "/run/secrets"
    return f"{folder}/{name}"


def token_variable(secret: Secret, preferred: str) -> str:
    """Give the variable of an `env` secret that holds a token: the usual one, or the only one."""
    if preferred in secret.variables or not secret.variables:
        return preferred
    named = [name for name in secret.variables if name.endswith("TOKEN")]
    return (named or list(secret.variables))[0]


def secrets_by_host(
    platform: Platform, netrc: Mapping[str, tuple[NetrcLine, ...]]
) -> dict[str, dict[str, SecretUse]]:
    """Give every host's secrets: those that name it, and those that something on it reads.

    Args:
        platform: What is declared.
        netrc: The lines of each host's netrc.

    """
    topology = platform.topology
    found: dict[str, dict[str, SecretUse]] = {host: {} for host in topology.hosts}

    def note(host: str | None, name: str | None, *units: str) -> None:
        if host is None or host not in found or name is None or name not in topology.secrets:
            return
        use = found[host].setdefault(name, SecretUse(name, topology.secrets[name]))
        use.units.extend(unit for unit in units if unit not in use.units)

    for name, secret in topology.secrets.items():
        for host in secret.hosts:
            note(host, name)
    for place, used, units in _uses(platform, netrc):
        note(place, used, *units)
    return found


def _uses(
    platform: Platform, netrc: Mapping[str, tuple[NetrcLine, ...]]
) -> Iterator[tuple[str | None, str | None, Iterable[str]]]:
    topology = platform.topology
    yield from _servers(platform)
    for runner in topology.runners.values():
        if runner.executor != "kubernetes":
            yield runner.host, runner.token, [RUNNER]
    for pipeline in topology.pipelines.values():
        runner = topology.runners[pipeline.runner]
        for push in pipeline.push:
            yield runner.host, push.token.secret, []
    for audit in topology.audits.values():
        host = topology.runners[audit.runner].host if audit.runner else audit.host
        yield host, audit.token, []
    for host, lines in netrc.items():
        for line in lines:
            yield host, line.secret, [NETRC]


def _servers(platform: Platform) -> Iterator[tuple[str | None, str | None, Iterable[str]]]:
    topology = platform.topology
    for attic in topology.attic.values():
        yield attic.host, attic.secret, [ATTICD]
        if isinstance(attic.storage, BucketStorage):
            yield attic.host, topology.buckets[attic.storage.bucket].credentials, [ATTICD]
    for bucket in topology.buckets.values():
        if bucket.listener:
            managed = [f"{bucket.provider}.service"] if bucket.listener.managed else []
            yield bucket.listener.host, bucket.credentials, managed
        if bucket.check:
            yield bucket.check.host, bucket.credentials, []
