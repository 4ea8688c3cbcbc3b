"""Memory budgets: what is promised on each host and in each cluster, against what is there.

What is inside something that has a limit itself (a service in a limited slice, a shell job in a limited
gitlab-runner.service) is counted once, as a part of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.topology.bounds import RUNNER
from kingpost.topology.guards import CHECK_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.model import Place, Topology


_DOCKER: Final = "docker.service"


@dataclass(frozen=True, slots=True)
class BudgetItem:
    """One promise of memory: whose, how many bytes, and where the topology makes it."""

    what: str
    size: int
    path: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a host or cluster has, in bytes, and what is promised of it."""

    memory: int
    reserve: int
    items: tuple[BudgetItem, ...]

    @property
    def total(self) -> int:
        """Give the sum of all promises."""
        return sum(item.size for item in self.items)

    @property
    def left(self) -> int:
        """Give what is left; negative when too much is promised."""
        return self.memory - self.reserve - self.total


def host_budget(topology: Topology, host: str) -> Budget:
    """Give a host's budget: its units, containers, clusters, and what its runners' jobs may take at once."""
    declared = topology.hosts[host]
    items = [
        *_limits(topology, (host, None)),
        *(
            BudgetItem(f"cluster {name}", cluster.memory_max, ("clusters", name, "memory_max"))
            for name, cluster in topology.clusters_by_host.get(host, {}).items()
            if cluster.memory_max is not None
        ),
        *_runners(topology, (host, None)),
        *_timed_checks(topology, host),
    ]
    return Budget(declared.memory, declared.reserve, tuple(items))


def cluster_budget(topology: Topology, cluster: str) -> Budget | None:
    """Give a cluster's budget; None when it has no limit on its host."""
    declared = topology.clusters[cluster]
    if declared.memory_max is None:
        return None
    items = [*_limits(topology, (None, cluster)), *_runners(topology, (None, cluster))]
    if declared.etcd and declared.etcd.memory_max is not None:
        path = ("clusters", cluster, "etcd", "memory_max")
        items.append(BudgetItem("etcd", declared.etcd.memory_max, path))
    return Budget(declared.memory_max, 0, tuple(items))


def _limits(topology: Topology, place: Place) -> Iterator[BudgetItem]:
    limited = _limited_units(topology, place)
    for name, limit in topology.limits_by_place.get(place, {}).items():
        if limit.memory_max is None:
            continue
        # A container's scope is in system.slice: Docker uses systemd's control groups wherever there is systemd.
        unit = limit.unit or (_DOCKER if limit.container else "")
        if any(_is_inside(unit, outer) for outer in limited if outer != limit.unit):
            continue
        what = limit.unit or limit.container or limit.pod or name
        yield BudgetItem(what, limit.memory_max, ("limits", name, "memory_max"))


def _runners(topology: Topology, place: Place) -> Iterator[BudgetItem]:
    limited = _limited_units(topology, place)
    for name, runner in topology.runners_by_place.get(place, {}).items():
        if runner.memory_per_job is None:
            continue
        # A shell job runs in gitlab-runner's own control group, a container beside it.
        unit = RUNNER if runner.executor == "shell" else _DOCKER
        if unit == RUNNER and RUNNER in limited:
            continue
        if any(_is_inside(unit, outer) for outer in limited):
            continue
        what = f"runner {name}: {runner.concurrency} jobs at once"
        size = runner.concurrency * runner.memory_per_job
        yield BudgetItem(what, size, ("runners", name, "memory_per_job"))


def _timed_checks(topology: Topology, host: str) -> Iterator[BudgetItem]:
    """Give what audits and bucket checks by this host's timers take, which may all run at once."""
    if "system.slice" in _limited_units(topology, (host, None)):
        return
    for name, audit in topology.audits.items():
        if audit.host == host:
            yield BudgetItem(f"audit {name}", CHECK_MEMORY, ("audits", name))
    for name, bucket in topology.buckets.items():
        if bucket.check and bucket.check.host == host:
            yield BudgetItem(f"check of bucket {name}", CHECK_MEMORY, ("buckets", name, "check"))


def _limited_units(topology: Topology, place: Place) -> set[str]:
    limits = topology.limits_by_place.get(place, {}).values()
    return {limit.unit for limit in limits if limit.unit and limit.memory_max is not None}


def _is_inside(unit: str, outer: str) -> bool:
    """Tell whether a unit's control group is inside a slice's: by name for slices, else by systemd's defaults.

    `a-b.slice` is inside `a.slice`; services are in system.slice, users' services and sessions in user.slice
    (systemd.slice(5), systemd.special(7)).
    """
    if not outer.endswith(".slice") or not unit:
        return False
    if outer == "-.slice":
        return True
    if unit.endswith(".slice"):
        return unit.startswith(outer.removesuffix(".slice") + "-")
    if unit.startswith(("user@", "session-")):
        return outer == "user.slice"
    return outer == "system.slice" and not unit.endswith(".scope")
