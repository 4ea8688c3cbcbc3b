"""A declared audit as a GitLab job, or as an Indexed Job in a cluster: one part of the paths for each of them."""

from __future__ import annotations

from shlex import join
from typing import TYPE_CHECKING, Any, Final

from kingpost.base.errors import InvalidInputError
from kingpost.render import layout
from kingpost.render.gitlab_ci import CLEAN, functions, line, token_words
from kingpost.render.kubernetes_objects import (
    MIB,
    TMP,
    USER,
    Sheet,
    config_map_volume,
    container_security,
    manifest_file,
    metadata,
    name_of,
    pod_security,
    secret_comments,
)
from kingpost.render.runner_config import quantity
from kingpost.render.secret_files import ATTIC_TOKEN, token_variable
from kingpost.render.yaml_text import yaml
from kingpost.topology.ci import PushToken
from kingpost.topology.names import resolve_cache
from kingpost.topology.needs import audit_context
from kingpost.topology.places import Dialer

if TYPE_CHECKING:
    from kingpost.render.kubernetes_objects import Manifest
    from kingpost.topology.guards import Audit
    from kingpost.topology.platform import Platform

PATHS: Final = "kingpost-report/closure.txt"
"""What a pipeline's job leaves as an artifact: the closure that it pushed."""

_MEMORY: Final = 256 * MIB
_LIST: Final = "/audit/paths"
_TOKEN: Final = "/audit-token"  # noqa: S105 - a folder


def render_audits(platform: Platform) -> dict[str, str]:
    """Give the file of every declared audit."""
    files = {path: sheet.text() for path, sheet in audit_jobs(platform).items()}
    for name, audit in platform.topology.audits.items():
        if audit.cluster not in platform.topology.clusters and audit.runner in platform.topology.runners:
            files[layout.audit_file(name)] = _gitlab_job(platform, name, audit)
    return files


def audit_jobs(platform: Platform) -> dict[str, Sheet]:
    """Give the Job of every audit that runs in a cluster, by the file that it is rendered to."""
    return {
        manifest_file(str(audit.cluster), audit.namespace, f"audit-{name}"): _indexed_job(
            platform, name, audit
        )
        for name, audit in platform.topology.audits.items()
        if audit.cluster in platform.topology.clusters
    }


def _words(platform: Platform, name: str, audit: Audit) -> list[str]:
    """Give the command, without paths and token: the cache at the address that its context dials."""
    context = audit_context(platform.topology, platform.contexts, name)
    ref = resolve_cache(platform.topology, audit.cache)
    use = platform.cache_use(context.id, Dialer.CLIENT, ref) if context else None
    if use is None or use.url is None:
        raise InvalidInputError(
            f"the audit {name} does not reach {ref}", where=f"audits.{name}", fix="run `kingpost check`"
        )
    words = ["kingpost", "cache", "audit", use.url]
    if use.public_key:
        words += ["--key", use.public_key]
    if audit.sample:
        words += ["--sample", audit.sample]
    return words


def _gitlab_job(platform: Platform, name: str, audit: Audit) -> str:
    runner = platform.topology.runners[str(audit.runner)]
    command = join(_words(platform, name, audit))
    report = 'kingpost-report/audit-"${CI_NODE_INDEX:-1}"'
    command += f' --list "$KINGPOST_AUDIT_PATHS" --junit {report}.xml --json'
    script = ["kingpost_begin no-push"]
    if audit.token:
        source = token_words(platform, PushToken(secret=audit.token), ATTIC_TOKEN)
        script.append(line("kingpost_token_file", *source))
        command += ' --token-file "$KINGPOST_DIR/token"'
    job: dict[str, Any] = {"stage": "test"}
    if runner.server.tags:
        job["tags"] = list(runner.server.tags)
    if runner.executor != "shell" and (image := audit.image or runner.image):
        job["image"] = image
    if audit.shards > 1:
        job["parallel"] = audit.shards  # `--shard` follows CI_NODE_INDEX/CI_NODE_TOTAL by itself
    job |= {
        "interruptible": True,
        "rules": [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}],
        "variables": {"KINGPOST_AUDIT_PATHS": PATHS},
        "before_script": [functions()],
        "script": [*script, f"{command} >{report}.json"],
        "after_script": [CLEAN],
        "artifacts": {
            "when": "always",
            "expire_in": "30 days",
            "paths": ["kingpost-report/"],
            "reports": {"junit": "kingpost-report/audit-*.xml"},
        },
    }
    comments = [
        f"Audit {name} of {audit.cache} on runner {audit.runner}; rendered by kingpost: change the topology instead.",
        f"It reads the paths from $KINGPOST_AUDIT_PATHS: {PATHS} is an artifact of every job that pushes.",
        "`kingpost cache merge` makes the reports of all parts one.",
    ]
    return yaml(comments, {f"audit-{name}": job})


def _indexed_job(platform: Platform, name: str, audit: Audit) -> Sheet:
    if audit.image is None:
        raise InvalidInputError(
            f"the audit {name} runs in a cluster and names no image",
            where=f"audits.{name}",
            fix="give it an image that has kingpost in it",
        )
    workload, namespace = name_of(f"audit-{name}"), audit.namespace
    words = [*_words(platform, name, audit), "--list", _LIST, "--json", "--no-ledger"]
    mounts = [
        {"name": "paths", "mountPath": "/audit", "readOnly": True},
        {"name": "tmp", "mountPath": TMP},
    ]
    volumes: list[Manifest] = [
        config_map_volume("paths", workload),
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]
    secret = platform.topology.secrets.get(audit.token or "")
    if audit.token and secret:
        key = "token" if secret.format == "raw" else token_variable(secret, ATTIC_TOKEN)
        words += ["--token-file", f"{_TOKEN}/token"]
        mounts.append({"name": "token", "mountPath": _TOKEN, "readOnly": True})
        items = [{"key": key, "path": "token"}]
        volumes.append({"name": "token", "secret": {"secretName": name_of(audit.token), "items": items}})
    container = {
        "name": "audit",
        "image": audit.image,
        "command": words,
        "env": [
            {"name": "KINGPOST_SHARDS", "value": str(audit.shards)},
            {"name": "HOME", "value": TMP},
        ],
        "resources": {
            "requests": {"cpu": "500m", "memory": quantity(_MEMORY)},
            "limits": {"memory": quantity(_MEMORY)},
        },
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(workload, namespace, "audit"),
        "spec": {
            "completionMode": "Indexed",
            "completions": audit.shards,
            "parallelism": audit.shards,
            # A part that finds damage fails, at once and alone: running it again would find the same.
            "backoffLimitPerIndex": 0,
            "maxFailedIndexes": audit.shards,
            "ttlSecondsAfterFinished": 7 * 24 * 3600,
            "template": {
                "metadata": {"labels": metadata(workload, namespace, "audit")["labels"]},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": pod_security(USER),
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }
    comments = [
        f"Audit {name} of {audit.cache}, rendered by kingpost: change the topology instead.",
        f"It wants: kubectl -n {namespace} create configmap {workload} --from-file=paths={PATHS}",
        *secret_comments(platform, namespace, audit.token),
        "A Job runs once: kubectl replace --force --filename of this file runs it again.",
    ]
    return Sheet(tuple(comments), (job,))
