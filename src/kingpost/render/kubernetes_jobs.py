"""What works in a cluster: GitLab runners and the jobs that they start."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from kingpost.render import layout
from kingpost.render.kubernetes_objects import (
    IMAGES,
    OTHER_IMAGE,
    TMP,
    USER,
    Sheet,
    config_map,
    config_map_volume,
    container_security,
    deployment,
    from_secret,
    manifest_file,
    metadata,
    name_of,
    resources,
    secret_comments,
)
from kingpost.render.runner_config import runner_toml
from kingpost.render.secret_files import RUNNER_TOKEN, token_variable

if TYPE_CHECKING:
    from kingpost.render.kubernetes_objects import Manifest
    from kingpost.topology.platform import Platform


def render_cluster_jobs(platform: Platform) -> dict[str, Sheet]:
    """Give the manifests of every runner in a cluster."""
    topology = platform.topology
    files = {}
    for name, runner in topology.runners.items():
        if runner.executor == "kubernetes" and runner.cluster in topology.clusters:
            path = manifest_file(str(runner.cluster), runner.namespace, f"runner-{name}")
            files[path] = _runner(platform, name)
    return files


_FILL: Final = """\
umask 077
printf %s "$SYSTEM_ID" >/etc/gitlab-runner/.runner_system_id
awk 'BEGIN { place = ENVIRON["PLACEHOLDER"]; token = ENVIRON["RUNNER_TOKEN"]; gsub(/[\\r\\n]/, "", token) }
  { while (at = index($0, place)) $0 = substr($0, 1, at - 1) token substr($0, at + length(place)); print }' \\
  /template/config.toml >/etc/gitlab-runner/config.toml
"""
"""Fills the token in when the pod starts, from its environment: it is in no argument.

The system id tells GitLab that it is the same machine as before the restart (gitlab-runner
common/system_id_state.go: r_ and twelve characters, in a file beside config.toml).
"""


def _runner(platform: Platform, key: str) -> Sheet:
    runner = platform.topology.runners[key]
    name, namespace, cluster = name_of(f"runner-{key}"), runner.namespace, str(runner.cluster)
    config = runner_toml(platform, [key])
    mounts = [{"name": "filled", "mountPath": "/etc/gitlab-runner"}]
    small = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}
    identity = sha256(f"{platform.topology.site.name}/{cluster}/{key}".encode()).hexdigest()[:12]
    environment: list[Manifest] = [
        {"name": "PLACEHOLDER", "value": layout.token_placeholder(key)},
        {"name": "SYSTEM_ID", "value": f"r_{identity}"},
    ]
    secret = platform.topology.secrets.get(runner.token or "")
    if runner.token and secret:
        entry = "token" if secret.format == "raw" else token_variable(secret, RUNNER_TOKEN)
        environment.append(from_secret("RUNNER_TOKEN", runner.token, entry))
    fill = {
        "name": "fill",
        "image": IMAGES["gitlab-runner"],
        "command": ["/bin/sh", "-euc", _FILL],
        "env": environment,
        "resources": small,
        "securityContext": container_security(),
        "volumeMounts": [*mounts, {"name": "template", "mountPath": "/template", "readOnly": True}],
    }
    manager = {
        "name": "gitlab-runner",
        "image": IMAGES["gitlab-runner"],
        "command": ["gitlab-runner", "run", "--config", "/etc/gitlab-runner/config.toml"],
        "env": [{"name": "HOME", "value": TMP}],
        "resources": resources(platform, cluster, namespace, f"runner-{key}"),
        "securityContext": container_security(),
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": TMP}],
    }
    volumes = [
        config_map_volume("template", name),
        {"name": "filled", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]
    account = {"serviceAccountName": name, "automountServiceAccountToken": True, "initContainers": [fill]}
    documents = [
        *_permissions(name, namespace),
        config_map(name, namespace, "gitlab-runner", {"config.toml": config}),
        deployment(name, namespace, "gitlab-runner", manager, volumes, user=USER, config=config, **account),
    ]
    comments = [
        f"GitLab runner {key}, rendered by kingpost: change the topology instead.",
        *secret_comments(platform, namespace, runner.token),
        OTHER_IMAGE,
    ]
    return Sheet(tuple(comments), tuple(documents))


def _permissions(name: str, namespace: str) -> list[Manifest]:
    """Give what the Kubernetes executor needs (docs.gitlab.com/runner/executors/kubernetes), here only."""
    head = metadata(name, namespace, "gitlab-runner")
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete", "get", "list", "watch"]},
        {
            "apiGroups": [""],
            "resources": ["pods/exec", "pods/attach"],
            "verbs": ["create", "get", "patch", "delete"],
        },
        {"apiGroups": [""], "resources": ["pods/log", "events"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": [""],
            "resources": ["secrets", "configmaps"],
            "verbs": ["create", "delete", "get", "update"],
        },
        {"apiGroups": [""], "resources": ["services"], "verbs": ["create", "get"]},
        {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": head},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": head, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": head,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    ]
