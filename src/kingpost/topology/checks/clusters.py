"""What runs in a cluster: names that Kubernetes accepts, and images where it needs one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from kingpost.topology.checks.registry import Example, Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.checks.scene import Scene
    from kingpost.topology.hosts import Placement

LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
"""RFC 1123, as Kubernetes wants it of namespaces; a Service's name must begin with a letter besides (RFC 1035)."""
SERVICE: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)

_CLUSTER: Final = '[clusters.k3s]\nhost = "node1"\nmemory_max = "2GiB"\n\n'


@check(
    "KP-CLUSTER-NAME",
    title="Names in a cluster are ones that Kubernetes accepts",
    why="the API server refuses the object, and cluster DNS has no such name",
    fix="use small letters, digits and inner hyphens, at most 63; a service begins with a letter",
    example=Example(
        bad=f'{_CLUSTER}[clusters.k3s.namespaces.My_Jobs]\nmemory = "1GiB"',
        good=f'{_CLUSTER}[clusters.k3s.namespaces.my-jobs]\nmemory = "1GiB"',
        at=("clusters", "k3s", "namespaces", "My_Jobs"),
    ),
)
def cluster_names(scene: Scene) -> Iterator[Finding]:
    """Find namespaces and services whose names Kubernetes refuses."""
    topology = scene.topology
    for name, cluster in topology.clusters.items():
        for namespace in cluster.namespaces:
            yield from _refused(("clusters", name, "namespaces", namespace), "namespace", namespace, LABEL)
    listeners: list[tuple[tuple[str, ...], str, Placement]] = [
        (("attic", name), name, attic) for name, attic in topology.attic.items()
    ]
    listeners += [
        (("buckets", name, "listener"), name, bucket.listener)
        for name, bucket in topology.buckets.items()
        if bucket.listener
    ]
    for path, name, listener in listeners:
        if listener.cluster:
            yield from _refused((*path, "namespace"), "namespace", listener.namespace, LABEL)
            key = (*path, "service") if listener.service else path
            yield from _refused(key, "service", listener.service or name, SERVICE)
    for name, runner in topology.runners.items():
        if runner.cluster and runner.executor == "kubernetes":
            yield from _refused(("runners", name, "namespace"), "namespace", runner.namespace, LABEL)
    for name, audit in topology.audits.items():
        if audit.cluster:
            yield from _refused(("audits", name, "namespace"), "namespace", audit.namespace, LABEL)


def _refused(
    path: tuple[str | int, ...], kind: str, name: str, pattern: re.Pattern[str]
) -> Iterator[Finding]:
    if not pattern.fullmatch(name):
        yield Finding(path, f"Kubernetes accepts no {kind} named {name!r}")


@check(
    "KP-AUDIT-IMAGE",
    title="An audit in a cluster has an image",
    why="a pod is made of an image, and nothing says which one has kingpost",
    fix="give the audit an `image` that has kingpost",
    example=Example(
        bad=f'{_CLUSTER}[audits.nightly]\ncache = "attic:home/main"\ncluster = "k3s"',
        good=f'{_CLUSTER}[audits.nightly]\ncache = "attic:home/main"\ncluster = "k3s"\n'
        'image = "registry.example.org/kingpost:0.1.0"',
        at=("audits", "nightly"),
    ),
)
def audit_image(scene: Scene) -> Iterator[Finding]:
    """Find audits in a cluster without an image."""
    for name, audit in scene.topology.audits.items():
        if audit.cluster and not audit.image:
            yield Finding(("audits", name), f"the audit {name} runs in {audit.cluster} and has no image")
