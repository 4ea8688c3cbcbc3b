"""Memory: what is promised must be there, and whatever can grow has a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.base.units import format_size
from kingpost.topology.budget import cluster_budget
from kingpost.topology.checks.registry import Example, Finding, Path, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.budget import Budget, BudgetItem
    from kingpost.topology.checks.scene import Scene


def _is_runner(item: BudgetItem) -> bool:
    return item.path[0] == "runners"


def _sum(budget: Budget) -> str:
    """Give the whole calculation, largest first, so that a reader sees what to cut."""
    items = sorted(budget.items, key=lambda item: -item.size)
    words = [f"{item.what} {format_size(item.size)}" for item in items[:8]]
    if len(items) > 8:
        words.append(f"{len(items) - 8} more {format_size(sum(item.size for item in items[8:]))}")
    if budget.reserve:
        words.append(f"reserve {format_size(budget.reserve)}")
    return ", ".join(words)


@check(
    "KP-MEM-HOST",
    title="A host has the memory that is promised on it",
    why="when all take what they may, the kernel's OOM killer chooses: the Nix daemon, the runner, or sshd",
    fix="lower the largest limits, move something, or give the host more memory",
    example=Example(
        bad='[limits.atticd]\nhost = "node1"\nunit = "atticd.service"\nmemory_max = "12GiB"',
        good='[limits.atticd]\nhost = "node1"\nunit = "atticd.service"\nmemory_max = "1GiB"',
        at=("hosts", "node1", "memory"),
    ),
    waivable=True,
)
def host_memory(scene: Scene) -> Iterator[Finding]:
    """Find hosts whose limits, without their runners' jobs, exceed their memory."""
    for name in scene.topology.hosts:
        budget = scene.host_budgets[name]
        jobs = sum(item.size for item in budget.items if _is_runner(item))
        if budget.left + jobs < 0:
            yield Finding(
                ("hosts", name, "memory"),
                f"{name} has {format_size(budget.memory)} of memory and promises"
                f" {format_size(budget.total + budget.reserve)}: {_sum(budget)}",
            )


@check(
    "KP-MEM-RUNNER",
    title="A runner's jobs fit into what their host or cluster has left",
    why="with all jobs running, some are killed by the OOM killer, or something else is that everyone needs",
    fix="lower `concurrency` or `memory_per_job`",
    example=Example(
        bad='[runners.blog]\nconcurrency = 8\nmemory_per_job = "2GiB"',
        good='[runners.blog]\nconcurrency = 2\nmemory_per_job = "2GiB"',
        at=("runners", "blog", "concurrency"),
    ),
    waivable=True,
)
def runner_memory(scene: Scene) -> Iterator[Finding]:
    """Find runners whose jobs together exceed what the rest leaves; of several the one that wants most."""
    topology = scene.topology
    places: list[tuple[str, Budget | None]] = [
        *scene.host_budgets.items(),
        *((name, cluster_budget(topology, name)) for name in topology.clusters),
    ]
    for place, budget in places:
        if budget is None:
            continue
        jobs = [item for item in budget.items if _is_runner(item)]
        wanted = sum(item.size for item in jobs)
        if budget.left < 0 <= budget.left + wanted:
            runner = str(max(jobs, key=lambda item: item.size).path[1])
            yield Finding(
                ("runners", runner, "concurrency"),
                f"on {place}, jobs may take {format_size(wanted)} at once and {format_size(budget.left + wanted)} is"
                f" left of {format_size(budget.memory)}: {_sum(budget)}",
            )


@check(
    "KP-MEM-CLUSTER",
    title="A cluster has a limit on its host",
    why="its pods are tenants of the host that runs them: without a limit they take the memory of everything beside"
    " them, the supervisor that is to restart them included",
    fix='give `memory_max`, for example "6GiB"',
    example=Example(
        bad='[clusters.k3s]\nhost = "laptop"',
        good='[clusters.k3s]\nhost = "laptop"\nmemory_max = "6GiB"',
        at=("clusters", "k3s"),
    ),
    waivable=True,
)
def cluster_unlimited(scene: Scene) -> Iterator[Finding]:
    """Find clusters without a limit."""
    for name, cluster in scene.topology.clusters.items():
        if cluster.memory_max is None:
            yield Finding(("clusters", name), f"the cluster {name} has no limit on its host {cluster.host}")


@check(
    "KP-MEM-CLUSTER-SUM",
    title="What is promised inside a cluster fits into its limit",
    why="the cluster's own limit kills pods that are within theirs",
    fix="lower the limits inside, or raise the cluster's `memory_max`",
    example=Example(
        bad='[clusters.k3s]\nhost = "laptop"\nmemory_max = "2GiB"\n\n'
        '[limits.web]\ncluster = "k3s"\npod = "default/web"\nmemory_max = "3GiB"',
        good='[clusters.k3s]\nhost = "laptop"\nmemory_max = "4GiB"\n\n'
        '[limits.web]\ncluster = "k3s"\npod = "default/web"\nmemory_max = "3GiB"',
        at=("clusters", "k3s", "memory_max"),
    ),
    waivable=True,
)
def cluster_memory(scene: Scene) -> Iterator[Finding]:
    """Find clusters whose limits, without their runners' jobs, exceed their own."""
    for name in scene.topology.clusters:
        budget = cluster_budget(scene.topology, name)
        if budget is None:
            continue
        jobs = sum(item.size for item in budget.items if _is_runner(item))
        if budget.left + jobs < 0:
            yield Finding(
                ("clusters", name, "memory_max"),
                f"{name} may take {format_size(budget.memory)} and promises {format_size(budget.total)}:"
                f" {_sum(budget)}",
            )


@check(
    "KP-MEM-ETCD",
    title="etcd's quota is below its memory",
    why="etcd maps its whole database into memory: it is killed long before the quota makes it refuse writes",
    fix="lower `quota`, or raise `memory_max` above it",
    example=Example(
        bad='[clusters.k3s]\nhost = "laptop"\nmemory_max = "4GiB"\netcd = { quota = "2GiB", memory_max = "1GiB" }',
        good='[clusters.k3s]\nhost = "laptop"\nmemory_max = "4GiB"\n'
        'etcd = { quota = "512MiB", memory_max = "1GiB" }',
        at=("clusters", "k3s", "etcd"),
    ),
)
def etcd_quota(scene: Scene) -> Iterator[Finding]:
    """Find etcds whose backend may outgrow their memory."""
    for name, cluster in scene.topology.clusters.items():
        limit = (cluster.etcd.memory_max or cluster.memory_max) if cluster.etcd else None
        if cluster.etcd and limit is not None and cluster.etcd.quota >= limit:
            yield Finding(
                ("clusters", name, "etcd"),
                f"etcd of {name} may grow to {format_size(cluster.etcd.quota)} and gets {format_size(limit)}",
            )


@check(
    "KP-MEM-JOBS",
    title="Container jobs beside a server have a limit each",
    why="one build takes the host's memory, and the cache or cluster that every other build needs is killed",
    fix='give the runner `memory_per_job`, for example "2GiB"',
    example=Example(
        bad='[runners.second]\nexecutor = "docker"\nhost = "node1"\nimage = "nixos/nix:2.31.2"\ntoken = "runner"',
        good='[runners.second]\nexecutor = "docker"\nhost = "node1"\nimage = "nixos/nix:2.31.2"\ntoken = "runner"\n'
        'memory_per_job = "1GiB"',
        at=("runners", "second"),
    ),
    waivable=True,
)
def jobs_unlimited(scene: Scene) -> Iterator[Finding]:
    """Find docker runners without a limit beside a declared server or cluster, and kubernetes ones in its cluster."""
    topology = scene.topology
    servers: dict[tuple[str | None, str | None], str] = {}
    for path, placement in scene.placements():
        what = f"{path[0]}.{path[1]}"
        servers.setdefault((placement.host, None), what)
        servers.setdefault((None, placement.cluster), what)
    for name, cluster in topology.clusters.items():
        servers.setdefault((cluster.host, None), f"clusters.{name}")
    for name, runner in topology.runners.items():
        if runner.executor == "shell" or runner.memory_per_job is not None:
            continue
        quota = None
        if runner.executor == "kubernetes" and runner.cluster in topology.clusters:
            quota = topology.clusters[runner.cluster].namespaces.get(runner.namespace)
        place = (None, runner.cluster) if runner.executor == "kubernetes" else (runner.host, None)
        neighbour = servers.get(place)
        if neighbour and not (quota and quota.default_memory):
            yield Finding(
                ("runners", name),
                f"jobs of {name} have no memory limit, beside {neighbour} on {place[0] or place[1]}",
            )


@check(
    "KP-MEM-QUOTA",
    title="A kubernetes runner's jobs fit into their namespace's quota",
    why="the API server refuses the pods beyond it, and their jobs fail or wait",
    fix="lower `concurrency` or `memory_per_job`, or raise the namespace's quota",
    example=Example(
        bad='[clusters.k3s]\nhost = "laptop"\nmemory_max = "8GiB"\nnamespaces = { ci = { memory = "2GiB" } }\n\n'
        '[runners.pods]\nexecutor = "kubernetes"\ncluster = "k3s"\nnamespace = "ci"\nimage = "alpine:3.22"\n'
        'token = "runner"\n'
        'concurrency = 4\nmemory_per_job = "1GiB"',
        good='[clusters.k3s]\nhost = "laptop"\nmemory_max = "8GiB"\nnamespaces = { ci = { memory = "4GiB" } }\n\n'
        '[runners.pods]\nexecutor = "kubernetes"\ncluster = "k3s"\nnamespace = "ci"\nimage = "alpine:3.22"\n'
        'token = "runner"\n'
        'concurrency = 4\nmemory_per_job = "1GiB"',
        at=("runners", "pods", "concurrency"),
    ),
)
def beyond_quota(scene: Scene) -> Iterator[Finding]:
    """Find runners whose jobs exceed the quota of their namespace, in memory or number."""
    for name, runner in scene.topology.runners.items():
        cluster = scene.topology.clusters.get(runner.cluster or "")
        quota = cluster.namespaces.get(runner.namespace) if cluster else None
        if runner.executor != "kubernetes" or quota is None:
            continue
        path: Path = ("runners", name, "concurrency")
        wanted = runner.concurrency * (runner.memory_per_job or quota.default_memory or 0)
        if quota.memory is not None and wanted > quota.memory:
            yield Finding(
                path,
                f"{runner.concurrency} jobs of {name} take {format_size(wanted)}, and the namespace {runner.namespace}"
                f" has {format_size(quota.memory)}",
            )
        elif quota.pods is not None and runner.concurrency > quota.pods:
            yield Finding(
                path,
                f"{runner.concurrency} jobs of {name} are as many pods, and the namespace {runner.namespace} has"
                f" {quota.pods}",
            )


@check(
    "KP-LIMIT-TARGET",
    title="A limit bounds one thing: a unit or container of a host, or a pod of a cluster",
    why="it would be rendered nowhere",
    fix="give `host` with `unit` or `container`, or `cluster` with `pod`",
    example=Example(
        bad='[limits.nix]\nhost = "node1"\nmemory_max = "1GiB"',
        good='[limits.nix]\nhost = "node1"\nunit = "nix-daemon.service"\nmemory_max = "1GiB"',
        at=("limits", "nix"),
    ),
)
def limit_target(scene: Scene) -> Iterator[Finding]:
    """Find limits without target, with several, or with one that is not where they say."""
    for name, limit in scene.topology.limits.items():
        targets = [key for key in ("unit", "container", "pod") if getattr(limit, key) is not None]
        place = [key for key in ("host", "cluster") if getattr(limit, key) is not None]
        wanted = ["cluster"] if targets == ["pod"] else ["host"]
        if len(targets) != 1:
            yield Finding(
                ("limits", name), f"the limit {name} names {' and '.join(targets) or 'nothing'} to bound"
            )
        elif place != wanted:
            yield Finding(
                ("limits", name), f"the limit {name} of a {targets[0]} needs a `{wanted[0]}`, and only that"
            )


@check(
    "KP-LIMIT-EMPTY",
    title="A limit limits something",
    why="whoever reads the declaration would believe that there is one",
    fix="give a bound, for example `memory_max`",
    example=Example(
        bad='[limits.nix]\nhost = "node1"\nunit = "nix-daemon.service"',
        good='[limits.nix]\nhost = "node1"\nunit = "nix-daemon.service"\nmemory_high = "3GiB"',
        at=("limits", "nix"),
    ),
)
def limit_empty(scene: Scene) -> Iterator[Finding]:
    """Find limits without a bound."""
    bounds = ("memory_max", "memory_high", "swap_max", "oom_score", "oomd", "cpu_weight")
    for name, limit in scene.topology.limits.items():
        if all(getattr(limit, bound) is None for bound in bounds):
            yield Finding(("limits", name), f"the limit {name} bounds nothing")


@check(
    "KP-LIMIT-ORDER",
    title="`memory_high` is below `memory_max`",
    why="the unit is killed at its maximum before it is ever slowed down at the lower bound",
    fix="lower `memory_high`, for example to 90 % of `memory_max`",
    example=Example(
        bad='[limits.nix]\nhost = "node1"\nunit = "nix-daemon.service"\nmemory_high = "2GiB"\nmemory_max = "1GiB"',
        good='[limits.nix]\nhost = "node1"\nunit = "nix-daemon.service"\nmemory_high = "900MiB"\nmemory_max = "1GiB"',
        at=("limits", "nix", "memory_high"),
    ),
)
def limit_order(scene: Scene) -> Iterator[Finding]:
    """Find limits whose soft bound is above the hard one."""
    for name, limit in scene.topology.limits.items():
        if (
            limit.memory_high is not None
            and limit.memory_max is not None
            and limit.memory_high > limit.memory_max
        ):
            yield Finding(
                ("limits", name, "memory_high"),
                f"the limit {name} has memory_high {format_size(limit.memory_high)} above memory_max"
                f" {format_size(limit.memory_max)}",
            )


@check(
    "KP-LIMIT-TWICE",
    title="Nothing is limited twice",
    why="one of the two would silently win",
    fix="keep one of them",
    example=Example(
        bad='[limits.one]\nhost = "node1"\nunit = "atticd.service"\nmemory_max = "1GiB"\n\n'
        '[limits.two]\nhost = "node1"\nunit = "atticd.service"\nmemory_max = "2GiB"',
        good='[limits.one]\nhost = "node1"\nunit = "atticd.service"\nmemory_max = "1GiB"',
        at=("limits", "two"),
    ),
)
def limit_twice(scene: Scene) -> Iterator[Finding]:
    """Find two limits of one target."""
    seen: dict[tuple[str | None, ...], str] = {}
    for name, limit in scene.topology.limits.items():
        target = (limit.host, limit.cluster, limit.unit, limit.container, limit.pod)
        if any(target[2:]) and seen.setdefault(target, name) != name:
            what = limit.unit or limit.container or limit.pod
            yield Finding(("limits", name), f"{what} is limited by {seen[target]} already")
