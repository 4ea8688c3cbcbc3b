"""Which way leads into a context: this machine, ssh, a container, a namespace or a pod."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kingpost.base.errors import KingpostError, UsageError
from kingpost.base.process import run
from kingpost.observe.executors.docker import RunningContainer, ShortLivedContainer
from kingpost.observe.executors.interface import Executor, NoWay, Over
from kingpost.observe.executors.local import Here, NetworkNamespace
from kingpost.observe.executors.pod import Pod
from kingpost.observe.executors.ssh import Ssh
from kingpost.render.kubernetes_objects import name_of
from kingpost.topology.paths import HOST_GATEWAY, machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kingpost.topology.places import Context, Namespace
    from kingpost.topology.platform import Platform


def this_host(platform: Platform) -> str | None:
    """Give the declared host that this machine is, by its host name; None when it is none of them."""
    own = socket.gethostname().partition(".")[0]
    for name, host in platform.topology.hosts.items():
        if own == (host.hostname or name).partition(".")[0]:
            return name
    return None


def parse_way(text: str) -> Executor:
    """Give the way that `--enter CONTEXT=…` names: `here`, `ssh:HOST`, `docker:CONTAINER`, `netns:NAME`, `pod:NS/POD`.

    Raises:
        UsageError: It is none of these.

    """
    kind, _, rest = text.partition(":")
    if kind == "here" and not rest:
        return Here()
    if kind == "ssh" and rest:
        user, _, host = rest.rpartition("@")
        return Ssh(host, user or None)
    if kind == "docker" and rest:
        return RunningContainer(rest)
    if kind == "netns" and rest:
        return NetworkNamespace(rest)
    if kind == "pod" and rest.count("/") == 1:
        namespace, pod = rest.split("/")
        return Pod(namespace, pod)
    raise UsageError(
        f"{text!r} is no way into a context",
        fix="write here, ssh:HOST, docker:CONTAINER, netns:NAME or pod:NAMESPACE/POD",
    )


@dataclass
class Entrance:
    """Finds ways into contexts, and remembers them.

    Attributes:
        platform: What is declared.
        here: The declared host that this machine is; None for none.
        chosen: Ways that the user named, by `CONTEXT` or `NAMESPACE` id (`host:node1`).
        docker: The docker client's argument list.
        kubectl: Likewise.

    """

    platform: Platform
    here: str | None
    chosen: Mapping[str, Executor] = field(default_factory=dict)
    docker: tuple[str, ...] = ("docker",)
    kubectl: tuple[str, ...] = ("kubectl",)
    _found: dict[tuple[Namespace, str], Executor | NoWay] = field(default_factory=dict)

    def way(self, context: Context, namespace: Namespace) -> Executor | NoWay:
        """Give the way to a dialer's namespace, as its user."""
        if context.id in self.chosen and namespace == context.client:
            return self.chosen[context.id]
        if str(namespace) in self.chosen:
            return self.chosen[str(namespace)]
        user = context.user if context.kind in {"user", "shell"} else ""
        key = (namespace, user or context.id if namespace.kind != "host" else user)
        if key not in self._found:
            self._found[key] = self._find(context, namespace, user or None)
        return self._found[key]

    def _find(self, context: Context, namespace: Namespace, user: str | None) -> Executor | NoWay:
        if namespace.kind == "peer":
            return NoWay(f"an undeclared machine on {namespace.owner}: nobody can enter it from here")
        host = machine(self.platform.topology, namespace)
        outer = self._on_host(str(host), user)
        if namespace.kind == "host" or isinstance(outer, NoWay):
            return outer
        if namespace.kind == "pod":
            return self._pod(context, outer)
        return self._container(context, namespace, outer)

    def _on_host(self, host: str, user: str | None) -> Executor | NoWay:
        if f"host:{host}" in self.chosen:
            return self.chosen[f"host:{host}"]
        if host == self.here:
            return Here(user)
        declared = self.platform.topology.hosts[host]
        addresses = [
            declared.addresses[n]
            for n in self.platform.topology.preferred_networks
            if n in declared.addresses
        ]
        target = str(addresses[0].ip) if addresses else (declared.hostname or host)
        become = user if user != declared.ssh_user else None
        return Ssh(target, declared.ssh_user, become)

    def _container(self, context: Context, namespace: Namespace, outer: Executor) -> Executor | NoWay:
        """Prefer a job's own container that runs now; else start a short-lived one like it."""
        runner = self.platform.topology.runners[str(context.runner)]
        image = runner.image or ""
        labels = ["--filter", "label=com.gitlab.gitlab-runner.type=build", "--filter", f"ancestor={image}"]
        try:
            jobs = run(outer.argv([*self.docker, "ps", "-q", *labels]), timeout=30).stdout.split()
            if jobs:
                return _inside(outer, RunningContainer(jobs[0], self.docker))
            if not run(outer.argv([*self.docker, "images", "-q", image]), timeout=30).stdout.strip():
                return NoWay(
                    f"no job of {context.runner} runs, and its image {image} is not on {context.host}",
                    "run this while a job runs, or pull the image there",
                )
        except KingpostError as error:
            return NoWay(f"docker on {context.host} cannot be asked: {error.what}", error.fix)
        if namespace.kind == "per-build":
            return NoWay(
                f"no job of {context.runner} runs, and its network exists only while one does",
                "run this while a job runs",
            )
        extra = (f"{HOST_GATEWAY}:host-gateway",)
        return _inside(outer, ShortLivedContainer(image, "bridge", extra, self.docker))

    def _pod(self, context: Context, outer: Executor) -> Executor | NoWay:
        """Prefer the context's own pods; any other of its namespace has the same ways, if not its token."""
        namespace, own = self._own_pods(context)
        command = [*self.kubectl, "get", "pods", "-n", namespace, "-o", f"jsonpath={_PODS}",
                   "--field-selector=status.phase=Running"]  # fmt: skip
        try:
            listed = run(outer.argv(command), timeout=30).stdout
        except KingpostError as error:
            return NoWay(f"the pods of {namespace} cannot be listed: {error.why or error.what}", error.fix)
        pods = [_RunningPod(*line.split("\t")) for line in listed.splitlines() if line.count("\t") == 4]
        pods = [pod for pod in pods if pod.running]
        if not pods:
            return NoWay(f"no pod runs in namespace {namespace}", "run this while a job runs")
        chosen = max(pods, key=own)
        note = "" if own(chosen) else "a neighbour: none of its own runs"
        container = "build" if "build" in chosen.running else chosen.running[0]
        return _inside(outer, Pod(namespace, chosen.name, self.kubectl, container, note))

    def _own_pods(self, context: Context) -> tuple[str, Callable[[_RunningPod], int]]:
        """Give a context's namespace, and how much a pod there is its own: 0 is not at all."""
        topology = self.platform.topology
        key = context.id.rpartition("/")[2]
        if context.runner:
            name = str(context.runner)

            def of_runner(pod: _RunningPod) -> int:
                return 2 * (pod.manager == name) if pod.manager else int(pod.is_job)

            return topology.runners[name].namespace, of_runner
        if context.kind == "service":
            attic = topology.attic[key]
            label = name_of(attic.service or key)
            return attic.namespace, lambda pod: int(pod.instance == label)
        audit = topology.audits[key.removeprefix("audit-")]
        return audit.namespace, lambda pod: int(pod.name.startswith(f"{name_of(key)}-"))


#: Only these fields of a pod: a job's environment holds its tokens. Labels of a job's pod are GitLab's
#: (docs.gitlab.com/runner/executors/kubernetes, "Default labels for job pods"), `instance` is what is rendered.
_PODS: Final = (
    r'{range .items[*]}{.metadata.name}{"\t"}{.metadata.labels.job\.runner\.gitlab\.com/pod}{"\t"}'
    r'{.metadata.labels.manager\.runner\.gitlab\.com/name}{"\t"}{.metadata.labels.app\.kubernetes\.io/instance}{"\t"}'
    r'{range .status.containerStatuses[*]}{.name}={.state.running.startedAt},{end}{"\n"}{end}'
)


@dataclass(frozen=True, slots=True)
class _RunningPod:
    """A pod as `_PODS` prints it."""

    name: str
    job: str
    manager: str
    instance: str
    containers: str

    @property
    def is_job(self) -> bool:
        """Tell whether it is one of GitLab's jobs, by its label or (before GitLab 16.6) by its name."""
        return bool(self.job) or (self.name.startswith("runner-") and "-project-" in self.name)

    @property
    def running(self) -> list[str]:
        """Give its containers that run."""
        pairs = (entry.partition("=") for entry in self.containers.split(","))
        return [name for name, _, since in pairs if since]


def _inside(outer: Executor, inner: Executor) -> Executor:
    return inner if isinstance(outer, Here) and outer.user is None else Over(outer, inner)
