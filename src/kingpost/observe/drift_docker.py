"""Docker: the bridge's gateway, the pools of networks, containers' limits, and the mounts of running jobs."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from kingpost.observe import drift_codes as codes
from kingpost.observe.looking import Question, answer_to, words
from kingpost.render.runner_config import runner_toml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.base.verdict import Verdict
    from kingpost.observe.drift_items import Visit

JOBS: Final = ("--filter", "label=com.gitlab.gitlab-runner.type=build")
#: Only these fields: a job's environment holds its tokens.
_FIELDS: Final = (
    '{"name":{{json .Name}},"image":{{json .Config.Image}},"mounts":{{json .Mounts}},'
    '"memory":{{json .HostConfig.Memory}}}'
)
_SOCKET: Final = "/nix/var/nix/daemon-socket"
_DATABASE: Final = "/nix/var/nix/db"


def questions(visit: Visit) -> Iterator[Question]:
    """Ask the engine, where one is declared."""
    docker = words(visit.docker)
    if visit.on.host.docker:
        yield Question(
            "docker networks",
            f"ids=$({docker} network ls -q --filter driver=bridge) && {docker} network inspect $ids",
        )
        yield Question("docker pools", f"{docker} info --format '{{{{json .DefaultAddressPools}}}}'")
        inspect = f"{docker} inspect --format {words((_FIELDS,))}"
        yield Question(
            "docker jobs", f'ids=$({docker} ps -q {words(JOBS)}) && {{ [ -z "$ids" ] || {inspect} $ids; }}'
        )
    for limit in visit.on.limits.values():
        if limit.container:
            yield Question(
                f"container {limit.container}",
                f"{docker} inspect --format {words((_FIELDS, limit.container))}",
            )


def judge(visit: Visit) -> Iterator[Verdict]:
    """Compare them."""
    if visit.on.host.docker:
        yield from _networks(visit)
        yield from _jobs(visit)
    for limit in visit.on.limits.values():
        if limit.container and limit.memory_max is not None:
            item = f"container {limit.container} memory"
            found = _json_lines(visit, f"container {limit.container}")
            if not found:
                yield visit.not_asked(
                    item, f"docker: {answer_to(visit.answers, f'container {limit.container}').why}"
                )
            else:
                yield visit.compared(codes.CONTAINER_LIMIT, item, limit.memory_max, found[0]["memory"])


def _json_lines(visit: Visit, question: str) -> list[dict[str, Any]] | None:
    """Give one document per line; None when there was no answer."""
    answer = answer_to(visit.answers, question)
    if answer.code:
        return None
    try:
        return [json.loads(line) for line in answer.text.splitlines() if line.strip()]
    except ValueError:
        return None


def _networks(visit: Visit) -> Iterator[Verdict]:
    engine = visit.on.host.docker
    if engine is None:  # pragma: no cover - the caller looks
        return
    answer = answer_to(visit.answers, "docker networks")
    try:
        networks = json.loads(answer.text) if not answer.code else None
    except ValueError:
        networks = None
    if networks is None:
        yield visit.not_asked("docker networks", f"docker: {answer.why}")
        return
    default = next((one for one in networks if one["Name"] == "bridge"), None)
    subnet = ((default or {}).get("IPAM", {}).get("Config") or [{}])[0]
    declared = f"{engine.gateway} in {engine.bip.network}"
    # dockerd leaves `Gateway` out of the answer while it is the subnet's first address and nothing runs.
    gateway = subnet.get("Gateway") or _first(subnet.get("Subnet", ""))
    seen = f"{gateway} in {subnet.get('Subnet', '')}" if default else ""
    yield visit.compared(codes.GATEWAY, "docker bridge gateway", declared, seen)
    yield from _pools(visit, networks)


def _first(subnet: str) -> str:
    return str(ip_network(subnet, strict=False)[1]) if subnet else ""


def _pools(visit: Visit, networks: list[dict[str, Any]]) -> Iterator[Verdict]:
    engine = visit.on.host.docker
    answer = answer_to(visit.answers, "docker pools")
    try:
        seen = json.loads(answer.text) or []
    except ValueError:
        yield visit.not_asked("docker address pools", f"docker: {answer.why}")
        return
    pools = engine.pools if engine else ()
    yield visit.compared(
        codes.POOLS,
        "docker address pools",
        sorted(f"{pool.base} by /{pool.size}" for pool in pools),
        sorted(f"{pool['Base']} by /{pool['Size']}" for pool in seen),
    )
    bases = [ip_network(str(pool.base)) for pool in pools]
    for network in networks:
        for config in network.get("IPAM", {}).get("Config") or []:
            subnet = ip_network(config.get("Subnet", "0.0.0.0/0"), strict=False)
            inside = any(subnet.version == base.version and subnet.subnet_of(base) for base in bases)  # type: ignore[arg-type]  # of one version
            if network["Name"] != "bridge" and subnet.version == 4 and not inside:
                yield visit.differs(
                    codes.POOLS,
                    f"docker network {network['Name']}",
                    [str(base) for base in bases],
                    str(subnet),
                )


@dataclass(frozen=True, slots=True)
class _Declared:
    """What the rendered config.toml gives a runner's jobs.

    Attributes:
        image: The default image.
        mounts: Bind mounts as `source:target`, with `:ro` where read-only.
        memory: Bytes; None for no limit.

    """

    image: str
    mounts: frozenset[str]
    memory: int | None


def _jobs(visit: Visit) -> Iterator[Verdict]:
    declared = [_declared(visit, name) for name, one in visit.on.runners.items() if one.executor == "docker"]
    if not declared:
        return
    jobs = _json_lines(visit, "docker jobs")
    if jobs is None:
        why = answer_to(visit.answers, "docker jobs").why
        yield visit.not_asked("mounts of running jobs", f"docker: {why}")
        return
    for job in jobs:
        seen = {
            f"{mount['Source']}:{mount['Destination']}{'' if mount.get('RW') else ':ro'}"
            for mount in job["mounts"]
            if mount.get("Type") == "bind"
        }
        name, runner = job["name"].lstrip("/"), _likely(declared, job, seen)
        if wrong := _harm(seen):
            evidence = {"declared": sorted(runner.mounts), "operational": sorted(seen)}
            yield codes.JOB_NIX.verdict(visit.subject(f"mounts of job {name}"), "; ".join(wrong), evidence)
        yield visit.compared(codes.JOB_VOLUMES, f"mounts of job {name}", sorted(runner.mounts), sorted(seen))
        if runner.memory is not None:
            yield visit.compared(codes.CONTAINER_LIMIT, f"memory of job {name}", runner.memory, job["memory"])


def _declared(visit: Visit, name: str) -> _Declared:
    """Give what a runner's jobs should have; a volume that is a bare path is one of docker's own."""
    table = tomllib.loads(runner_toml(visit.on.platform, [name]))["runners"][0]["docker"]
    parts = [volume.split(":") for volume in table["volumes"] if ":" in volume]
    mounts = [
        f"{source}:{target}{':ro' if 'ro' in ''.join(options).split(',') else ''}"
        for source, target, *options in parts
    ]
    return _Declared(table["image"], frozenset(mounts), visit.on.runners[name].memory_per_job)


def _likely(declared: list[_Declared], job: dict[str, Any], seen: set[str]) -> _Declared:
    """Give the runner whose job this is: by its image, else by the likest mounts.

    A job may name its own image, and the label holds no more than the runner's short token.
    """
    candidates = [one for one in declared if one.image == job["image"]] or declared
    return min(candidates, key=lambda one: len(seen ^ one.mounts))


def _harm(seen: set[str]) -> list[str]:
    """Say which mounts of Nix's folders break the job or the host."""
    wrong = []
    for mount in sorted(seen):
        source, target, *options = mount.split(":")
        read_only = "ro" in options
        if target == "/nix":
            wrong.append("all of /nix is mounted, which hides the image's own programs")
        elif source == "/nix/store" and not read_only:
            wrong.append("the host's store is writable")
        elif source == _DATABASE and not read_only:
            wrong.append("the host's Nix database is writable")
        elif source == _SOCKET and read_only:
            wrong.append("the daemon's socket is read-only, so nobody can connect to it")
    return wrong
