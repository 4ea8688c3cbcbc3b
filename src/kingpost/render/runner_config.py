"""gitlab-runner's config.toml, whole: so that a change is a diff, not a new registration.

Tags, `protected` and the like are the server's with a glrt- token (GitLab refuses a runner that sends them), so
they are not here. Keys as in gitlab-runner common/config.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kingpost.base.units import format_size
from kingpost.render import layout
from kingpost.render.pushing import job_secrets
from kingpost.render.secret_files import secret_path
from kingpost.render.toml_text import toml
from kingpost.topology.contexts import all_gitlab
from kingpost.topology.paths import HOST_GATEWAY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kingpost.topology.ci import Runner
    from kingpost.topology.platform import Platform

_CACHE: Final = "/cache"
"""Where gitlab-runner keeps what jobs cache."""
DAEMON_VOLUMES: Final = (
    "/nix/store:/nix/store:ro",
    "/nix/var/nix/db:/nix/var/nix/db:ro",
    "/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket",
)
"""What a container needs to build through its host's daemon: each alone (all of /nix would hide the image's own
programs), the store and database read-only (a writable database lets a job's GC delete the host's store)."""

JOB_OOM_SCORE: Final = 500
"""Above nix-daemon's customary 250 and everything else: when memory runs out, the job goes first."""


def render_runners(platform: Platform) -> dict[str, str]:
    """Give every host's config.toml; runners in a cluster are with its manifests."""
    topology = platform.topology
    by_host: dict[str, list[str]] = {}
    for name, runner in topology.runners.items():
        if runner.host in topology.hosts and runner.executor != "kubernetes":
            by_host.setdefault(str(runner.host), []).append(name)
    return {
        layout.runner_config(host): runner_toml(platform, names) for host, names in sorted(by_host.items())
    }


def runner_toml(platform: Platform, names: Iterable[str]) -> str:
    """Give the config.toml of one gitlab-runner with the runners named; `concurrent` is the sum of theirs."""
    runners = {name: platform.topology.runners[name] for name in names}
    comments = [
        "gitlab-runner, rendered by kingpost: change the topology instead.",
        "@TOKEN:…@ is replaced by the secret when the runner starts.",
    ]
    document: dict[str, Any] = {
        "concurrent": sum(runner.concurrency for runner in runners.values()),
        "check_interval": 0,
        "shutdown_timeout": 0,
        "runners": [_runner(platform, name, runner) for name, runner in runners.items()],
    }
    return toml(comments, document)


def _runner(platform: Platform, name: str, runner: Runner) -> dict[str, Any]:
    instances = all_gitlab(platform.topology)
    table: dict[str, Any] = {
        "name": name,
        "url": instances[runner.gitlab or next(iter(instances))].url,
        "token": layout.token_placeholder(name),
        "executor": runner.executor,
        "limit": runner.concurrency,
    }
    if runner.executor != "shell" and runner.nix == "host-daemon":
        table["environment"] = ["NIX_REMOTE=daemon"]
    if runner.executor == "shell":
        table["shell"] = "bash"
    elif runner.executor == "docker":
        if runner.network == "per-build":
            table["feature_flags"] = {"FF_NETWORK_PER_BUILD": True}
        table["docker"] = _docker(platform, name, runner)
    else:
        table["kubernetes"] = _kubernetes(runner)
    return table


def _docker(platform: Platform, name: str, runner: Runner) -> dict[str, Any]:
    table: dict[str, Any] = {"image": runner.image or "", "privileged": runner.privileged}
    if runner.network == "per-build":
        # network_mode would switch the per-build network off. docker resolves host-gateway to docker0's address.
        table["extra_hosts"] = [f"{HOST_GATEWAY}:host-gateway"]
    else:
        table["network_mode"] = runner.network
    table["volumes"] = list(_volumes(platform, name, runner))
    if runner.memory_per_job is not None:
        table["memory"] = _docker_size(runner.memory_per_job)
        table["memory_swap"] = _docker_size(runner.memory_per_job)  # memory and swap together: no swap
    if runner.cpus is not None:
        table["cpus"] = f"{runner.cpus:g}"
    table["oom_kill_disable"] = False
    table["oom_score_adjust"] = JOB_OOM_SCORE
    return table


def _volumes(platform: Platform, name: str, runner: Runner) -> Iterable[str]:
    """Give a container's volumes; what somebody mounted themselves is not mounted a second time."""
    taken = {_target(volume) for volume in runner.volumes}
    if runner.nix == "host-daemon":
        yield from DAEMON_VOLUMES
    for secret in job_secrets(platform, name):
        path = secret_path(secret, platform.topology.secrets[secret])
        if path not in taken:
            yield f"{path}:{path}:ro"
    yield from runner.volumes
    if _CACHE not in taken:
        yield _CACHE


def _target(volume: str) -> str:
    """Give where a volume `[source:]target[:options]` is in the container."""
    words = volume.split(":")
    return words[min(1, len(words) - 1)].rstrip("/")


def _docker_size(size: int) -> str:
    """Give a size as docker reads it: k, m and g are powers of 1024 (docker/go-units RAMInBytes)."""
    text = format_size(size)
    return text.removesuffix("iB").lower() if text[-3:-2] in "KMG" else f"{size}b"


def quantity(size: int) -> str:
    """Give a size as Kubernetes writes it: `8Gi`, or bytes."""
    return format_size(size).removesuffix("B")


def _kubernetes(runner: Runner) -> dict[str, Any]:
    table: dict[str, Any] = {
        "namespace": runner.namespace,
        "image": runner.image or "",
        "privileged": runner.privileged,
    }
    if runner.memory_per_job is not None:
        # Requests equal to limits: a job is scheduled only where its memory is really free.
        table["memory_request"] = quantity(runner.memory_per_job)
        table["memory_limit"] = quantity(runner.memory_per_job)
    if runner.cpus is not None:
        table["cpu_request"] = f"{runner.cpus:g}"
        table["cpu_limit"] = f"{runner.cpus:g}"
    table |= {
        "helper_memory_request": "128Mi",
        "helper_memory_limit": "256Mi",
        "service_memory_request": "128Mi",
        "service_memory_limit": "512Mi",
    }
    return table
