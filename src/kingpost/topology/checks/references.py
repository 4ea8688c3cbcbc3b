"""Names that must be declared, and places that must be complete: what every derivation stands on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.topology.caches import BucketStorage
from kingpost.topology.checks.registry import Example, Finding, Path, Stage, check
from kingpost.topology.checks.scene import dotted, hint
from kingpost.topology.contexts import all_gitlab
from kingpost.topology.names import UnknownNameError, match_name
from kingpost.topology.redaction import is_key_material, secret_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kingpost.topology.checks.scene import Scene
    from kingpost.topology.hosts import Placement
    from kingpost.topology.model import Topology


_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that stands at `path` and must be one of `known`; `short` allows unambiguous short forms."""

    path: Path
    name: str
    what: str
    known: Iterable[str]
    short: bool = False


@check(
    "KP-REF-UNKNOWN",
    title="Every name refers to something declared",
    why="nothing can be derived from a name that stands for nothing",
    fix="correct the name, or declare what it means",
    example=Example(
        bad='[pipelines.blog]\nrunner = "blogs"',
        good='[pipelines.blog]\nrunner = "blog"',
        at=("pipelines", "blog", "runner"),
    ),
    stage=Stage.FOUNDATION,
)
def unknown_names(scene: Scene) -> Iterator[Finding]:
    """Find references to what is not declared."""
    for reference in _references(scene):
        known = reference.known
        if reference.name in known:
            continue
        if secret_shape(reference.name) or is_key_material(reference.name):
            # KP-SECRET-VALUE says more; the value is not repeated.
            yield Finding(reference.path, f"{dotted(reference.path)}: this is no name of a {reference.what}")
            continue
        if reference.short:
            try:
                match_name(reference.name, known, reference.what)
            except UnknownNameError as error:
                yield Finding(reference.path, f"{dotted(reference.path)}: {error.what}", fix=error.fix)
            continue
        yield Finding(
            reference.path,
            f'{dotted(reference.path)}: there is no {reference.what} "{reference.name}"',
            fix=hint(reference.name, known, reference.what),
        )


def _references(scene: Scene) -> Iterator[Reference]:
    topology = scene.topology
    yield from _site_and_hosts(scene)
    yield from _servers(topology)
    yield from _continuous_integration(scene)
    for name, secret in topology.secrets.items():
        for index, host in enumerate(secret.hosts):
            yield Reference(("secrets", name, "hosts", index), host, "host", topology.hosts)
    for name, limit in topology.limits.items():
        yield from _optional(("limits", name, "host"), limit.host, "host", topology.hosts)
        yield from _optional(("limits", name, "cluster"), limit.cluster, "cluster", topology.clusters)


def _optional(path: Path, name: str | None, what: str, known: Iterable[str]) -> Iterator[Reference]:
    if name is not None:
        yield Reference(path, name, what, known)


def _caches(scene: Scene, path: Path, names: Iterable[str] | None) -> Iterator[Reference]:
    for index, name in enumerate(names or ()):
        if scene.cache(name) is None:
            yield Reference((*path, index), name, "cache", scene.caches, short=True)


def _site_and_hosts(scene: Scene) -> Iterator[Reference]:
    topology = scene.topology
    for index, network in enumerate(topology.site.prefer):
        yield Reference(("site", "prefer", index), network, "network", topology.networks)
    yield from _caches(scene, ("site", "substituters"), topology.site.substituters)
    if topology.site.primary is not None:
        yield Reference(("site", "primary"), topology.site.primary, "cache", scene.caches, short=True)
    for name, host in topology.hosts.items():
        for network in host.addresses:
            yield Reference(("hosts", name, "addresses", network), network, "network", topology.networks)
        yield from _caches(scene, ("hosts", name, "substituters"), host.substituters)
        if host.deploy:
            path: Path = ("hosts", name, "deploy")
            yield from _optional((*path, "from"), host.deploy.source, "host", topology.hosts)
            yield from _optional((*path, "network"), host.deploy.network, "network", topology.networks)
    for name, tunnel in topology.tunnels.items():
        yield Reference(("tunnels", name, "host"), tunnel.host, "host", topology.hosts)
        own = [f"attic:{key}" for key in topology.attic]
        own += [f"bucket:{key}" for key, bucket in topology.buckets.items() if bucket.listener]
        path = ("tunnels", name, "service")
        yield Reference(path, tunnel.service, "service of our own", own, short=True)
        yield from _optional(("tunnels", name, "network"), tunnel.network, "network", topology.networks)
    for name, cluster in topology.clusters.items():
        yield Reference(("clusters", name, "host"), cluster.host, "host", topology.hosts)


def _servers(topology: Topology) -> Iterator[Reference]:
    for name, bucket in topology.buckets.items():
        path: Path = ("buckets", name)
        yield from _optional((*path, "credentials"), bucket.credentials, "secret", topology.secrets)
        if bucket.check:
            yield Reference((*path, "check", "host"), bucket.check.host, "host", topology.hosts)
        if bucket.listener:
            yield from _placement(topology, (*path, "listener"), bucket.listener)
    for name, attic in topology.attic.items():
        path = ("attic", name)
        yield from _placement(topology, path, attic)
        yield from _optional((*path, "secret"), attic.secret, "secret", topology.secrets)
        if isinstance(attic.storage, BucketStorage):
            yield Reference((*path, "storage", "bucket"), attic.storage.bucket, "bucket", topology.buckets)
        for key, token in attic.tokens.items():
            yield from _optional((*path, "tokens", key, "secret"), token.secret, "secret", topology.secrets)


def _placement(topology: Topology, path: Path, placement: Placement) -> Iterator[Reference]:
    yield from _optional((*path, "host"), placement.host, "host", topology.hosts)
    yield from _optional((*path, "cluster"), placement.cluster, "cluster", topology.clusters)
    for index, network in enumerate(placement.serve):
        yield Reference((*path, "serve", index), network, "network", topology.networks)


def _continuous_integration(scene: Scene) -> Iterator[Reference]:
    topology = scene.topology
    for name, runner in topology.runners.items():
        path: Path = ("runners", name)
        yield from _optional((*path, "gitlab"), runner.gitlab, "GitLab instance", all_gitlab(topology))
        yield from _optional((*path, "host"), runner.host, "host", topology.hosts)
        yield from _optional((*path, "cluster"), runner.cluster, "cluster", topology.clusters)
        yield from _optional((*path, "token"), runner.token, "secret", topology.secrets)
        yield from _caches(scene, (*path, "substituters"), runner.substituters)
    for name, pipeline in topology.pipelines.items():
        path = ("pipelines", name)
        yield Reference((*path, "runner"), pipeline.runner, "runner", topology.runners)
        if pipeline.primary is not None and scene.cache(pipeline.primary) is None:
            yield Reference((*path, "primary"), pipeline.primary, "cache", scene.caches, short=True)
        for index, push in enumerate(pipeline.push):
            at = (*path, "push", index)
            if scene.cache(push.cache) is None:
                yield Reference((*at, "cache"), push.cache, "cache", scene.caches, short=True)
            yield from _optional((*at, "token", "secret"), push.token.secret, "secret", topology.secrets)
        for index, host in enumerate(pipeline.deploys):
            yield Reference((*path, "deploys", index), host, "host", topology.hosts)
    for name, audit in topology.audits.items():
        path = ("audits", name)
        if scene.cache(audit.cache) is None:
            yield Reference((*path, "cache"), audit.cache, "cache", scene.caches, short=True)
        yield from _optional((*path, "host"), audit.host, "host", topology.hosts)
        yield from _optional((*path, "runner"), audit.runner, "runner", topology.runners)
        yield from _optional((*path, "cluster"), audit.cluster, "cluster", topology.clusters)
        yield from _optional((*path, "token"), audit.token, "secret", topology.secrets)


@check(
    "KP-PLACE-ONE",
    title="Everything that runs is on one host or in one cluster",
    why="who reaches it, and at which address, depends on where it runs",
    fix="give either `host` or `cluster`",
    example=Example(
        bad='[attic.second]\nport = 8090\nsecret = "attic"',
        good='[attic.second]\nhost = "laptop"\nport = 8090\nsecret = "attic"',
        at=("attic", "second"),
    ),
    stage=Stage.FOUNDATION,
)
def placed_once(scene: Scene) -> Iterator[Finding]:
    """Find listeners and audits with no place, or two."""
    for path, placement in scene.placements():
        if not placement.host and not placement.cluster:
            yield Finding(path, f"{dotted(path)} has no place")
        elif placement.host and placement.cluster:
            yield Finding((*path, "cluster"), f"{dotted(path)} has both a host and a cluster")
    for name, audit in scene.topology.audits.items():
        path = ("audits", name)
        places = [key for key in ("host", "runner", "cluster") if getattr(audit, key)]
        one = "give one of `host`, `runner` and `cluster`"
        if not places:
            yield Finding(path, f"{dotted(path)} has no place", fix=one)
        elif len(places) > 1:
            message = f"{dotted(path)} has both a {places[0]} and a {places[1]}"
            yield Finding((*path, places[-1]), message, fix=one)


@check(
    "KP-PLACE-RUNNER",
    title="A shell or docker runner is on a host, a kubernetes runner in a cluster",
    why="where its jobs run decides every address that they use",
    fix="give `host` to a shell or docker runner, `cluster` to a kubernetes one",
    example=Example(
        bad='[runners.second]\nexecutor = "shell"\ntoken = "runner"',
        good='[runners.second]\nexecutor = "shell"\ntoken = "runner"\nhost = "laptop"',
        at=("runners", "second"),
    ),
    stage=Stage.FOUNDATION,
)
def runner_placed(scene: Scene) -> Iterator[Finding]:
    """Find runners whose place does not fit their executor."""
    for name, runner in scene.topology.runners.items():
        path = ("runners", name)
        wanted, other = ("cluster", "host") if runner.executor == "kubernetes" else ("host", "cluster")
        if getattr(runner, wanted) is None:
            yield Finding(path, f"the {runner.executor} runner {name} has no `{wanted}`")
        if getattr(runner, other) is not None:
            yield Finding(
                (*path, other),
                f"the {runner.executor} runner {name} has a `{other}`, which its executor does not use",
                fix=f"remove `{other}`",
            )


@check(
    "KP-PLACE-DOCKER",
    title="A docker runner's host declares its Docker engine",
    why="a container reaches its host at the bridge's gateway, which is only known when it is pinned",
    fix="declare the engine: `docker = {}` pins docker0 to 172.17.0.1/16",
    example=Example(
        bad='[runners.second]\nexecutor = "docker"\nhost = "laptop"\nimage = "alpine:3.22"\ntoken = "runner"',
        good="[hosts.laptop]\ndocker = {}\n\n"
        '[runners.second]\nexecutor = "docker"\nhost = "laptop"\nimage = "alpine:3.22"\ntoken = "runner"',
        at=("runners", "second", "host"),
    ),
    stage=Stage.FOUNDATION,
)
def docker_declared(scene: Scene) -> Iterator[Finding]:
    """Find docker runners on hosts without a declared engine."""
    for name, runner in scene.topology.runners.items():
        host = scene.topology.hosts.get(runner.host or "")
        if runner.executor == "docker" and host and host.docker is None:
            yield Finding(
                ("runners", name, "host"),
                f"the docker runner {name} is on {runner.host}, which declares no Docker engine",
                fix=f"add `docker = {{}}` to [hosts.{runner.host}]",
            )


@check(
    "KP-PLACE-GITLAB",
    title="A runner belongs to one GitLab instance",
    why="with several instances declared, nothing says which of them the runner asks for jobs",
    fix='say which: `gitlab = "NAME"`',
    example=Example(
        bad='[gitlab.com]\n[gitlab.own]\nurl = "https://gitlab.example.org"\n\n[runners.host]\ngitlab = "com"',
        good='[gitlab.com]\n[gitlab.own]\nurl = "https://gitlab.example.org"\n\n[runners.host]\ngitlab = "com"\n\n'
        '[runners.blog]\ngitlab = "own"',
        at=("runners", "blog"),
    ),
    stage=Stage.FOUNDATION,
)
def gitlab_known(scene: Scene) -> Iterator[Finding]:
    """Find runners that could belong to several instances."""
    instances = all_gitlab(scene.topology)
    for name, runner in scene.topology.runners.items():
        if runner.gitlab is None and len(instances) > 1:
            yield Finding(
                ("runners", name),
                f"the runner {name} does not say which of {', '.join(instances)} it belongs to",
            )


@check(
    "KP-PLACE-BUCKET",
    title="A bucket has one endpoint: somebody else's, or a listener of its own",
    why="without an endpoint nobody can dial it; with two, writers and readers may use different storage",
    fix="give `endpoint` for storage that somebody else runs, or `listener` for your own",
    example=Example(
        bad='[buckets.second]\nprovider = "r2"',
        good='[buckets.second]\nprovider = "r2"\nendpoint = "https://0123abcd.r2.cloudflarestorage.com"',
        at=("buckets", "second"),
    ),
    stage=Stage.FOUNDATION,
)
def bucket_placed(scene: Scene) -> Iterator[Finding]:
    """Find buckets with no endpoint, or two."""
    for name, bucket in scene.topology.buckets.items():
        path: Path = ("buckets", name)
        if bucket.listener and bucket.endpoint:
            yield Finding((*path, "endpoint"), f"the bucket {name} has both an endpoint and a listener")
        elif bucket.listener and bucket.provider in {"r2", "aws"}:
            yield Finding(
                (*path, "listener"),
                f"the bucket {name} has a listener, but {bucket.provider} is run by somebody else",
                fix="remove `listener` and give `endpoint`, or correct `provider`",
            )
        elif not bucket.listener and not bucket.endpoint and bucket.provider != "aws":
            yield Finding(path, f"the bucket {name} has neither an endpoint nor a listener")


@check(
    "KP-PLACE-ATTIC",
    title="A host runs one Attic server",
    why="NixOS has one `services.atticd` on a host",
    fix="declare the caches under one server, which holds any number of them, or move one to another host",
    example=Example(
        bad='[attic.second]\nhost = "node1"\nport = 8090\nsecret = "attic"',
        good="[attic.home.caches.second]\npublic = true",
        at=("attic", "second", "host"),
    ),
    stage=Stage.FOUNDATION,
)
def one_attic(scene: Scene) -> Iterator[Finding]:
    """Find hosts with a second Attic server."""
    first: dict[str, str] = {}
    for name, attic in scene.topology.attic.items():
        if attic.host is not None and first.setdefault(attic.host, name) != name:
            yield Finding(
                ("attic", name, "host"), f"{attic.host} runs the Attic server {first[attic.host]} already"
            )


@check(
    "KP-TEXT",
    title="Text holds characters that every format can hold",
    why="neither Nix nor an environment nor a file's name can hold NUL, or half a surrogate pair",
    fix="remove the character",
    example=Example(
        bad='[secrets.attic]\nsource = "secrets/attic\\u0000.age"',
        good='[secrets.attic]\nsource = "secrets/attic.age"',
        at=("secrets", "attic", "source"),
    ),
)
def unwritable(scene: Scene) -> Iterator[Finding]:
    """Find texts that could not be rendered."""
    for path, text in scene.texts:
        if _UNWRITABLE.search(text):
            yield Finding(path, f"{dotted(path)} holds a character that cannot be written")
