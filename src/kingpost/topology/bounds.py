"""What bounds the units and containers of a host: the declared limits, and what follows from clusters and runners.

Rendering sets these and observing expects them, by other names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kingpost.topology.guards import Limit
    from kingpost.topology.model import Topology

RUNNER: Final = "gitlab-runner.service"
K3S: Final = "k3s.service"
_EXECUTING: Final = frozenset({"service", "socket", "mount", "swap"})
"""Kinds of units that start processes, and so have an OOM score (systemd.exec(5))."""
_FIELDS: Final = ("memory_high", "memory_max", "swap_max", "cpu_weight", "oomd", "oom_score")

Bounds: TypeAlias = dict[str, int | str]
"""By a limit's field; sizes in bytes."""


def bounds_of(limit: Limit) -> Bounds:
    """Give what a limit bounds, without what its unit or container cannot have."""
    found = {field: value for field in _FIELDS if (value := getattr(limit, field)) is not None}
    if limit.container:
        found.pop("oomd", None)
    elif limit.unit and limit.unit.rpartition(".")[2] not in _EXECUTING:
        found.pop("oom_score", None)
    return found


def container_bounds(limits: Mapping[str, Limit]) -> dict[str, Bounds]:
    """Give the bounds of each container that limits name; of two for one container the last wins."""
    return _merged((limit.container, limit) for limit in limits.values())


def declared_bounds(limits: Mapping[str, Limit]) -> dict[str, Bounds]:
    """Give the bounds of each unit that limits name; of two for one unit the last wins."""
    return _merged((limit.unit, limit) for limit in limits.values())


def _merged(limits: Iterator[tuple[str | None, Limit]]) -> dict[str, Bounds]:
    found: dict[str, Bounds] = {}
    for what, limit in limits:
        if what:
            found.setdefault(what, {}).update(bounds_of(limit))
    return found


def shell_memory(topology: Topology, host: str) -> int | None:
    """Give what all shell jobs of a host may take at once, in bytes: they live in the runner's own control group.

    None without a shell runner, unless every one declares it, and where a limit bounds the unit itself.
    """
    runners = topology.runners_by_place.get((host, None), {}).values()
    shell = [runner for runner in runners if runner.executor == "shell"]
    limits = topology.limits_by_place.get((host, None), {}).values()
    if any(limit.unit == RUNNER and limit.memory_max is not None for limit in limits):
        return None
    if not shell or any(runner.memory_per_job is None for runner in shell):
        return None
    return sum(runner.concurrency * (runner.memory_per_job or 0) for runner in shell)


def k3s_memory(topology: Topology, host: str) -> int | None:
    """Give what k3s's own unit may take, in bytes; None where none is declared, or without a bound."""
    clusters = topology.clusters_by_host.get(host, {}).values()
    return next((cluster.memory_max for cluster in clusters if cluster.distribution == "k3s"), None)


def unit_bounds(topology: Topology, host: str) -> dict[str, Bounds]:
    """Give the bounds of every unit of a host, implied and declared; what is declared wins."""
    implied = {K3S: k3s_memory(topology, host), RUNNER: shell_memory(topology, host)}
    found: dict[str, Bounds] = {
        unit: {"memory_max": size} for unit, size in implied.items() if size is not None
    }
    for unit, bounds in declared_bounds(topology.limits_by_place.get((host, None), {})).items():
        found.setdefault(unit, {}).update(bounds)
    return found
