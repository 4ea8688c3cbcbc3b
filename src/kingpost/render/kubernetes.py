"""Manifests for what runs in a cluster. `kubectl apply --recursive --filename clusters/NAME` takes them all.

A Secret is never rendered: each file says which one it wants, and how to make it from the secret's file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kingpost.render import layout
from kingpost.render.kubernetes_jobs import render_cluster_jobs
from kingpost.render.kubernetes_objects import Sheet, manifest_file, metadata
from kingpost.render.kubernetes_servers import render_servers
from kingpost.render.runner_config import quantity
from kingpost.render.yaml_text import yaml

if TYPE_CHECKING:
    from kingpost.render.kubernetes_objects import Manifest
    from kingpost.topology.ci import Runner
    from kingpost.topology.guards import Audit
    from kingpost.topology.hosts import Placement, Quota
    from kingpost.topology.platform import Platform

_MADE_BY_KUBERNETES: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})


def render_clusters(platform: Platform) -> dict[str, str]:
    """Give every cluster's manifests, and what bounds its etcd."""
    if not platform.topology.clusters:
        return {}
    return {path: sheet.text() for path, sheet in cluster_sheets(platform).items()} | render_etcd(platform)


def cluster_sheets(platform: Platform) -> dict[str, Sheet]:
    """Give what is applied to clusters, less audits, by the file that it is rendered to."""
    return {**render_namespaces(platform), **render_servers(platform), **render_cluster_jobs(platform)}


def render_namespaces(platform: Platform) -> dict[str, Sheet]:
    """Give every namespace that something is declared in, with its quota."""
    files = {}
    for cluster, declared in platform.topology.clusters.items():
        for namespace in used_namespaces(platform, cluster):
            quota = declared.namespaces.get(namespace)
            documents = _namespace(namespace, quota)
            if documents:
                comment = f"Namespace {namespace}, rendered by kingpost: change the topology instead."
                # kubectl takes a folder's files by their names, and nothing can be put where no namespace is yet.
                files[manifest_file(cluster, namespace, "00-namespace")] = Sheet((comment,), tuple(documents))
    return files


def used_namespaces(platform: Platform, cluster: str) -> list[str]:
    """Give a cluster's namespaces: those that it declares, then those that something is placed in."""
    topology = platform.topology
    listeners = [bucket.listener for bucket in topology.buckets.values() if bucket.listener]
    servers: list[Placement] = [*topology.attic.values(), *listeners]
    jobs: list[Runner | Audit] = [*topology.runners.values(), *topology.audits.values()]
    found = [
        *topology.clusters[cluster].namespaces,
        *(one.namespace for one in [*servers, *jobs] if one.cluster == cluster),
    ]
    return list(dict.fromkeys(found))


def _namespace(name: str, quota: Quota | None) -> list[Manifest]:
    documents: list[Manifest] = []
    if name not in _MADE_BY_KUBERNETES:
        documents.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    hard: Manifest = {}
    if quota and quota.memory is not None:
        hard |= {"limits.memory": quantity(quota.memory), "requests.memory": quantity(quota.memory)}
    if quota and quota.pods is not None:
        hard["pods"] = str(quota.pods)
    if hard:
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": metadata("kingpost", name, "quota"),
                "spec": {"hard": hard},
            }
        )
    if quota and quota.default_memory is not None:
        memory = {"memory": quantity(quota.default_memory)}
        limit = {"type": "Container", "default": memory, "defaultRequest": dict(memory)}
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "LimitRange",
                "metadata": metadata("kingpost", name, "quota"),
                "spec": {"limits": [limit]},
            }
        )
    return documents


def render_etcd(platform: Platform) -> dict[str, str]:
    """Give what bounds each declared etcd, for its host: a quota, and for kubeadm the pod's limit.

    k3s runs etcd inside its own process: there the unit's memory limit counts (`clusters.*.memory_max`).
    """
    files = {}
    for name, cluster in platform.topology.clusters.items():
        if cluster.etcd is None:
            continue
        argument = f"quota-backend-bytes={cluster.etcd.quota}"
        folder = layout.host_directory(cluster.host)
        if cluster.distribution == "k3s":
            comments = [
                f"Cluster {name}, rendered by kingpost: change the topology instead.",
                "On NixOS k3s.nix says the same; elsewhere this is /etc/rancher/k3s/config.yaml.",
            ]
            values = {"cluster-init": True, "etcd-arg": [argument]}
            files[f"{folder}/k3s-{name}.yaml"] = yaml(comments, values)
            continue
        files |= _kubeadm(name, folder, argument, cluster.etcd.memory_max)
    return files


def _kubeadm(cluster: str, folder: str, argument: str, memory: int | None) -> dict[str, str]:
    key, _, value = argument.partition("=")
    comment = f"For kubeadm, cluster {cluster}, rendered by kingpost: change the topology instead."
    configuration = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "etcd": {"local": {"extraArgs": [{"name": key, "value": value}]}},
    }
    files = {f"{folder}/kubeadm-{cluster}/configuration.yaml": yaml([comment], configuration)}
    if memory is not None:
        limits = {"requests": {"memory": quantity(memory)}, "limits": {"memory": quantity(memory)}}
        patch = {"spec": {"containers": [{"name": "etcd", "resources": limits}]}}
        path = f"{folder}/kubeadm-{cluster}/patches/etcd+strategic.yaml"
        files[path] = yaml([comment, "kubeadm init --patches takes the folder."], patch)
    return files
