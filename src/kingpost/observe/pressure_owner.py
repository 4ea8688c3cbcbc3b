"""Whose a control group is: a unit, a container, or a pod, and what the topology says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.units import format_size
from kingpost.topology.budget import cluster_budget, host_budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kingpost.render.nix_hosts import OnHost
    from kingpost.topology.budget import Budget

_POD: Final = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")
_CONTAINER: Final = re.compile(r"([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_UNIT: Final = re.compile(r"[^/]+\.(?:service|scope|slice|socket|mount|swap)")


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a control group belongs to.

    Attributes:
        kind: `unit`, `container`, `pod`, `job`, or `unknown`.
        name: The unit, the container's or pod's name; else the control group itself.
        declared: Where the topology bounds it: `limits.atticd.memory_max`, `runners.blog.memory_per_job`.
        limit: What it says there, in bytes; None when it says nothing.
        allowed: The most that the budget still allows there; None when nothing is declared.

    """

    kind: str
    name: str
    declared: str = ""
    limit: int | None = None
    allowed: int | None = None

    def advice(self) -> str:
        """Say how far the declared bound may be raised; empty when none is declared."""
        if self.limit is None or self.allowed is None:
            return ""
        if self.allowed <= self.limit:
            return (
                f"{self.declared} is {format_size(self.limit)}, and the budget has nothing left: "
                "lower something else, or let less run at once"
            )
        bounds = f"from {format_size(self.limit)} to at most {format_size(self.allowed)}"
        return f"raise {self.declared} {bounds}: the budget allows it"


@dataclass(frozen=True, slots=True)
class Running:
    """What the host's engines know.

    Attributes:
        containers: Documents as `pressure_kills.CONTAINERS` asks for them, by id.
        pods: `namespace/name` by uid.

    """

    containers: Mapping[str, Mapping[str, Any]]
    pods: Mapping[str, str]


def owner_of(on: OnHost, cgroup: str, running: Running, limit_bytes: int = 0, limited: str = "") -> Owner:
    """Tell whose a control group is.

    Args:
        on: What the topology puts on the host.
        cgroup: Its path, as the kernel or systemd-oomd names it.
        running: What the engines know.
        limit_bytes: The limit that was reached: tells a job's container where the engine forgot it.
        limited: Control group of that limit, when it is known: a slice above may be what is declared.

    """
    above = limited if limited and limited != cgroup and cgroup.startswith(f"{limited}/") else ""
    owner = _owner(on, cgroup, running, 0 if above else limit_bytes)
    bound = _UNIT.findall(above)
    if owner.kind in {"container", "job"} and bound:
        slice_ = unit_owner(on, bound[-1])
        if slice_.limit is not None:
            return replace(owner, declared=slice_.declared, limit=slice_.limit, allowed=slice_.allowed)
    return owner


def _owner(on: OnHost, cgroup: str, running: Running, limit_bytes: int) -> Owner:
    if pod := _POD.search(cgroup):
        uid = pod[1].replace("_", "-")
        return pod_owner(on, running.pods.get(uid, f"pod {uid}"))
    if container := _CONTAINER.search(cgroup):
        return _container(on, container[1], running, limit_bytes)
    units = _UNIT.findall(cgroup)
    services = [unit for unit in units if unit.endswith((".service", ".socket"))]
    name = (services or units or [""])[-1]
    if not name:
        return Owner("unknown", cgroup or "a process")
    return unit_owner(on, name, units)


def unit_owner(on: OnHost, name: str, above: Iterable[str] = ()) -> Owner:
    """Give a unit, with its declared limit or that of the nearest slice above it."""
    budget = host_budget(on.platform.topology, on.name)
    for unit in (name, *reversed(list(above))):
        for key, limit in on.limits.items():
            if limit.unit == unit and limit.memory_max is not None:
                return Owner(
                    "unit",
                    name,
                    f"limits.{key}.memory_max",
                    limit.memory_max,
                    _room(budget, limit.memory_max),
                )
    shell = {key: runner for key, runner in on.runners.items() if runner.executor == "shell"}
    if name == "gitlab-runner.service" and shell:
        return _job(on, next(iter(shell)), name)
    for key, cluster in on.clusters.items():
        if name == "k3s.service" and cluster.memory_max is not None:
            return Owner(
                "unit",
                name,
                f"clusters.{key}.memory_max",
                cluster.memory_max,
                _room(budget, cluster.memory_max),
            )
    return Owner("unit", name)


def pod_owner(on: OnHost, name: str) -> Owner:
    """Give a pod, with its declared limit: `namespace/workload` is what its name begins with."""
    topology = on.platform.topology
    for key, limit in topology.limits.items():
        if limit.pod and limit.cluster in on.clusters and name.startswith((f"{limit.pod}-", f"{limit.pod} ")):
            budget = cluster_budget(topology, str(limit.cluster))
            room = _room(budget, limit.memory_max) if budget and limit.memory_max else None
            return Owner("pod", name, f"limits.{key}.memory_max", limit.memory_max, room)
    for key, runner in topology.runners.items():
        if runner.cluster in on.clusters and name.startswith(f"{runner.namespace}/runner-"):
            return _job(on, key, name)
    return Owner("pod", name)


def _container(on: OnHost, container: str, running: Running, limit_bytes: int) -> Owner:
    known = running.containers.get(container)
    name = str(known["name"]).lstrip("/") if known else f"container {container[:12]}"
    for key, limit in on.limits.items():
        if limit.container == name and limit.memory_max is not None:
            budget = host_budget(on.platform.topology, on.name)
            return Owner(
                "container",
                name,
                f"limits.{key}.memory_max",
                limit.memory_max,
                _room(budget, limit.memory_max),
            )
    bound = int(known["memory"]) if known else limit_bytes
    if known is None or known.get("job"):
        for key, runner in on.runners.items():
            # A job's label holds no more than the runner's short token: its limit tells whose it is.
            if runner.executor == "docker" and runner.memory_per_job == bound:
                return _job(on, key, name)
        if known and known.get("job"):
            return Owner("job", name)
    return Owner("container", name)


def _job(on: OnHost, runner: str, name: str) -> Owner:
    topology = on.platform.topology
    declared = topology.runners[runner]
    limit = declared.memory_per_job
    place = f"runners.{runner}.memory_per_job"
    if limit is None:
        return Owner("job", name)
    budget = (
        cluster_budget(topology, str(declared.cluster))
        if declared.cluster
        else host_budget(topology, on.name)
    )
    room = limit + max(budget.left, 0) // declared.concurrency if budget else limit
    return Owner("job", name, place, limit, room)


def _room(budget: Budget, limit: int) -> int:
    return limit + max(budget.left, 0)
