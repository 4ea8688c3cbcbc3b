"""What the topology promises of the units on a host, in systemd's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kingpost.render.secret_files import RUNNER

if TYPE_CHECKING:
    from kingpost.render.nix_hosts import OnHost
    from kingpost.topology.guards import Limit

_PROPERTIES: Final = {
    "MemoryHigh": "memory_high",
    "MemoryMax": "memory_max",
    "MemorySwapMax": "swap_max",
    "CPUWeight": "cpu_weight",
    "ManagedOOMMemoryPressure": "oomd",
    "OOMScoreAdjust": "oom_score",
}
"""Property of systemd.resource-control(5) and systemd.exec(5), and the limit's field that decides it."""


def unit_limits(on: OnHost) -> dict[str, dict[str, str]]:
    """Give the declared bounds of each unit on a host, as `systemctl show` prints them (sizes in bytes).

    Beside the declared limits these are k3s's and, where every shell runner declares what a job may take,
    gitlab-runner's: its shell jobs live in its own control group.
    """
    found: dict[str, dict[str, str]] = {}
    for cluster in on.clusters.values():
        if cluster.distribution == "k3s" and cluster.memory_max is not None:
            found["k3s.service"] = {"MemoryMax": str(cluster.memory_max)}
    shell = [runner for runner in on.runners.values() if runner.executor == "shell"]
    jobs = [runner.concurrency * runner.memory_per_job for runner in shell if runner.memory_per_job]
    if shell and len(jobs) == len(shell):
        found[RUNNER] = {"MemoryMax": str(sum(jobs))}
    for limit in on.limits.values():
        if limit.unit:
            found.setdefault(limit.unit, {}).update(properties(limit))
    return found


def properties(limit: Limit) -> dict[str, str]:
    """Give one limit's bounds by systemd's names; a slice has no OOM score, for it starts no process."""
    given = {name: getattr(limit, field) for name, field in _PROPERTIES.items()}
    if limit.unit and limit.unit.endswith(".slice"):
        given["OOMScoreAdjust"] = None
    return {name: str(value) for name, value in given.items() if value is not None}


def limit_of(on: OnHost, unit: str) -> str:
    """Give the key of the topology's limit for a unit, as `limits.NAME`; empty when there is none."""
    for name, limit in on.limits.items():
        if unit in {limit.unit, limit.container, limit.pod}:
            return f"limits.{name}"
    return ""
