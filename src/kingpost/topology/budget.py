"""Memory budgets: what is promised on each host and in each cluster, against what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.model import Place, Topology


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
    for name, limit in topology.limits_by_place.get(place, {}).items():
        if limit.memory_max is not None:
            what = limit.unit or limit.container or limit.pod or name
            yield BudgetItem(what, limit.memory_max, ("limits", name, "memory_max"))


def _runners(topology: Topology, place: Place) -> Iterator[BudgetItem]:
    for name, runner in topology.runners_by_place.get(place, {}).items():
        if runner.memory_per_job is not None:
            what = f"runner {name}: {runner.concurrency} jobs at once"
            size = runner.concurrency * runner.memory_per_job
            yield BudgetItem(what, size, ("runners", name, "memory_per_job"))
