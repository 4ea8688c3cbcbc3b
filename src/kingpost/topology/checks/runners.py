"""Runners: what an executor needs, and what `config.toml` cannot set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.topology.checks.registry import Example, Finding, Path, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.checks.scene import Scene


@check(
    "KP-RUNNER-SERVER",
    title="Tags and protection are GitLab's, not config.toml's",
    why="with a glrt- token the runner's own configuration sets neither; the declaration would do nothing",
    fix='move it into `server`, for example `server = { tags = ["nix"], protected = true }`: it is compared with'
    " and set through GitLab's API",
    example=Example(
        bad='[runners.blog]\ntags = ["nix"]',
        good='[runners.blog.server]\ntags = ["nix"]',
        at=("runners", "blog", "tags"),
    ),
)
def server_side(scene: Scene) -> Iterator[Finding]:
    """Find what belongs under `server`."""
    for name, runner in scene.topology.runners.items():
        for key in ("tags", "protected", "run_untagged"):
            if getattr(runner, key) is not None:
                yield Finding(
                    ("runners", name, key),
                    f"`{key}` of the runner {name} stands where only GitLab can set it",
                )


@check(
    "KP-RUNNER-TAGS",
    title="A runner takes some job",
    why="GitLab refuses a runner that has no tags and runs no untagged jobs; a job for it would queue for ever",
    fix="give `server.tags`, or set `server.run_untagged = true`",
    example=Example(
        bad="[runners.blog.server]\nprotected = true",
        good='[runners.blog.server]\nprotected = true\ntags = ["nix"]',
        at=("runners", "blog", "server"),
    ),
)
def no_jobs(scene: Scene) -> Iterator[Finding]:
    """Find runners whose declared server side matches no job. Without `server`, GitLab decides."""
    for name, runner in scene.topology.runners.items():
        declared = "server" in runner.model_fields_set
        if declared and not runner.server.tags and not runner.server.run_untagged:
            yield Finding(
                ("runners", name, "server"), f"the runner {name} has no tags and runs no untagged jobs"
            )


@check(
    "KP-RUNNER-TOKEN",
    title="A runner has a token",
    why="GitLab gives jobs to a runner that shows its glrt- token, and to no other",
    fix='create the runner in GitLab, encrypt its token, and name the secret: `token = "NAME"`',
    example=Example(
        bad='[runners.second]\nexecutor = "shell"\nhost = "laptop"',
        good='[runners.second]\nexecutor = "shell"\nhost = "laptop"\ntoken = "runner"',
        at=("runners", "second"),
    ),
)
def no_token(scene: Scene) -> Iterator[Finding]:
    """Find runners without a token."""
    for name, runner in scene.topology.runners.items():
        if runner.token is None:
            yield Finding(("runners", name), f"the runner {name} has no token")


@check(
    "KP-RUNNER-USERS",
    title="The shell runners of a host run as one user",
    why="one gitlab-runner process serves all runners of its host, and runs shell jobs as the one user it runs as",
    fix="give them the same `user`, or move one to another host",
    example=Example(
        bad='[runners.second]\nexecutor = "shell"\nhost = "laptop"\ntoken = "runner"\nuser = "ann"',
        good='[runners.second]\nexecutor = "shell"\nhost = "laptop"\ntoken = "runner"\nuser = "gitlab-runner"',
        at=("runners", "second", "user"),
    ),
)
def several_users(scene: Scene) -> Iterator[Finding]:
    """Find shell runners of one host with different users."""
    first: dict[str | None, tuple[str, str]] = {}
    for name, runner in scene.topology.runners.items():
        if runner.executor != "shell":
            continue
        other, user = first.setdefault(runner.host, (name, runner.user))
        if user != runner.user:
            yield Finding(
                ("runners", name, "user"),
                f"on {runner.host}, the shell runner {name} runs as {runner.user} and {other} as {user}",
            )


@check(
    "KP-RUNNER-IMAGE",
    title="A container runner has an image",
    why="gitlab-runner refuses a docker runner without a default image, and fails a pod's job that names none",
    fix='give the runner an image, for example `image = "nixos/nix:2.31.2"`',
    example=Example(
        bad='[runners.second]\nexecutor = "docker"\nhost = "node1"\nmemory_per_job = "1GiB"\ntoken = "runner"',
        good='[runners.second]\nexecutor = "docker"\nhost = "node1"\nmemory_per_job = "1GiB"\ntoken = "runner"\n'
        'image = "nixos/nix:2.31.2"',
        at=("runners", "second"),
    ),
)
def no_image(scene: Scene) -> Iterator[Finding]:
    """Find docker runners without image, and pipelines on kubernetes runners where neither names one."""
    topology = scene.topology
    for name, runner in topology.runners.items():
        if runner.executor == "docker" and runner.image is None:
            yield Finding(("runners", name), f"the docker runner {name} has no image")
    for name, pipeline in topology.pipelines.items():
        found = topology.runners.get(pipeline.runner)
        if found and found.executor == "kubernetes" and found.image is None and pipeline.image is None:
            yield Finding(
                ("pipelines", name),
                f"neither the pipeline {name} nor its kubernetes runner {pipeline.runner} names an image",
            )


@check(
    "KP-RUNNER-IGNORED",
    title="A runner declares only what its executor uses",
    why="whoever reads the declaration would believe that it holds",
    fix="remove it, or choose the executor that has it",
    example=Example(
        bad='[runners.host]\nimage = "alpine:3.22"',
        good='[runners.host]\nexecutor = "docker"\nhost = "node1"\nmemory_per_job = "1GiB"\nimage = "alpine:3.22"',
        at=("runners", "host", "image"),
    ),
)
def ignored(scene: Scene) -> Iterator[Finding]:
    """Find settings that do nothing with the runner's executor."""
    unused = {
        "shell": ("image", "volumes", "network", "privileged", "nix", "cpus", "namespace"),
        "docker": ("namespace", "user"),
        "kubernetes": ("network", "user", "volumes"),
    }
    for name, runner in scene.topology.runners.items():
        for key in unused[runner.executor]:
            if key not in runner.model_fields_set:
                continue
            if key == "nix" and runner.nix == "host-daemon":
                continue  # what a shell runner does anyway
            yield Finding(
                ("runners", name, key),
                f"the {runner.executor} runner {name} declares `{key}`, which it ignores",
            )
    for name, pipeline in scene.topology.pipelines.items():
        found = scene.topology.runners.get(pipeline.runner)
        if found and found.executor == "shell" and pipeline.image is not None:
            path: Path = ("pipelines", name, "image")
            yield Finding(path, f"the pipeline {name} names an image, but its runner has no containers")
