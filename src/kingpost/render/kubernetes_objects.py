"""The parts that manifests are made of: every container with requests and limits, every secret by reference."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from kingpost.render import layout
from kingpost.render.runner_config import quantity
from kingpost.render.secret_files import secret_path
from kingpost.render.yaml_text import yaml

if TYPE_CHECKING:
    from kingpost.topology.guards import Limit
    from kingpost.topology.platform import Platform

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file of manifests, before it is text.

    Attributes:
        comments: Lines above them.
        objects: The manifests.

    """

    comments: tuple[str, ...]
    objects: tuple[Manifest, ...]

    def text(self) -> str:
        """Give the file."""
        return yaml(self.comments, *self.objects)


MIB: Final = 1024**2
DEFAULT_MEMORY: Final = 512 * MIB
"""Of a container that neither `limits` nor its namespace says anything about."""

IMAGES: Final = {
    "attic": "ghcr.io/zhaofengli/attic:9eda345a743f50999de04f59a170806c3e029eea",
    "rustfs": "rustfs/rustfs:1.0.0",
    "minio": "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z",
    "garage": "dxflrs/garage:v2.1.0",
    "gitlab-runner": "gitlab/gitlab-runner:alpine-v18.11.4",
}
"""What runs in a cluster; Attic tags its images by commit. A kustomization's `images` pins others."""

OTHER_IMAGE: Final = "For another image, or one pinned by digest: `images` of a kustomization over this file."
USER: Final = 10001
"""Whom containers run as: nobody in particular, and not root."""

TMP: Final = "/tmp"  # noqa: S108 - inside a container


def name_of(text: str) -> str:
    """Give a name as Kubernetes wants it (RFC 1123 label), the same for the same text and no other."""
    label = re.sub(r"[^a-z0-9-]", "-", text.lower()).strip("-")[:52].rstrip("-") or "x"
    return label if label == text else f"{label}-{sha256(text.encode()).hexdigest()[:8]}"


def manifest_file(cluster: str, namespace: str, name: str) -> str:
    """Give where a manifest lies."""
    return f"{layout.cluster_directory(cluster)}/{namespace}/{name}.yaml"


def labels(name: str, component: str) -> dict[str, str]:
    """Give the labels of an object."""
    return {
        "app.kubernetes.io/name": component,
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "kingpost",
    }


def metadata(name: str, namespace: str, component: str) -> Manifest:
    """Give an object's metadata."""
    return {"name": name, "namespace": namespace, "labels": labels(name, component)}


def resources(
    platform: Platform, cluster: str, namespace: str, workload: str, *, cpu: str = "100m"
) -> Manifest:
    """Give a container's requests and limits: as `limits` says for its pod, else its namespace's default."""
    limit = _limit(platform, cluster, f"{namespace}/{workload}")
    quota = platform.topology.clusters[cluster].namespaces.get(namespace)
    most = (limit and limit.memory_max) or (quota and quota.default_memory) or DEFAULT_MEMORY
    least = min(most, limit.memory_high) if limit and limit.memory_high else most
    return {
        "requests": {"cpu": cpu, "memory": quantity(least)},
        "limits": {"memory": quantity(most)},
    }


def _limit(platform: Platform, cluster: str, pod: str) -> Limit | None:
    limits = platform.topology.limits.values()
    return next((limit for limit in limits if limit.cluster == cluster and limit.pod == pod), None)


def pod_security(user: int) -> Manifest:
    """Give a pod's security context: one user, no root, its volumes owned by it."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Give a container's security context: no privilege and no writable image."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def secret_comments(platform: Platform, namespace: str, *names: str | None) -> list[str]:
    """Say how the Secrets that a manifest refers to are made from their files, without a value in argv."""
    lines = []
    for name in dict.fromkeys(names):
        secret = platform.topology.secrets.get(name or "")
        if name is None or secret is None:
            continue
        path = secret_path(name, secret)
        form = quote(f"--from-env-file={path}" if secret.format == "env" else f"--from-file=token={path}")
        lines.append(f"It wants: kubectl -n {namespace} create secret generic {name_of(name)} {form}")
    return lines


def service(name: str, namespace: str, component: str, port: int, node_port: int | None) -> Manifest:
    """Give a Service; with a node port where callers outside the cluster use it."""
    entry: Manifest = {"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}
    if node_port is not None:
        entry["nodePort"] = node_port
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, namespace, component),
        "spec": {
            "type": "ClusterIP" if node_port is None else "NodePort",
            "selector": labels(name, component),
            "ports": [entry],
        },
    }


def claim(name: str, namespace: str, component: str, size: str) -> Manifest:
    """Give a volume claim of the default storage class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(name, namespace, component),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def deployment(
    name: str,
    namespace: str,
    component: str,
    container: Manifest,
    volumes: list[Manifest],
    *,
    user: int,
    config: str,
    **pod: Any,
) -> Manifest:
    """Give a Deployment of one replica, which starts anew when its configuration changes."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name, namespace, component),
        "spec": {
            "replicas": 1,  # a volume has one writer, and Attic's garbage collector must be alone
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels(name, component)},
            "template": {
                "metadata": {
                    "labels": labels(name, component),
                    "annotations": {"kingpost/config": sha256(config.encode()).hexdigest()[:16]},
                },
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": pod_security(user),
                    **pod,
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }


def config_map(name: str, namespace: str, component: str, data: dict[str, str]) -> Manifest:
    """Give a ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(name, namespace, component),
        "data": data,
    }


def literal(text: str) -> str:
    """Give a text that Kubernetes leaves alone in `env`, `command` and `args`, where it expands `$(NAME)`."""
    return text.replace("$(", "$$(")


def config_map_volume(name: str, config_map: str) -> Manifest:
    """Give a volume of a ConfigMap's entries."""
    return {"name": name, "configMap": {"name": config_map}}


def from_secret(variable: str, secret: str, key: str) -> Manifest:
    """Give a variable that is filled from one entry of a Secret."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name_of(secret), "key": key}}}
