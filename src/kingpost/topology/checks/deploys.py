"""Deploys: a pipeline must survive what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.topology.checks.registry import Example, Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.checks.scene import Scene


@check(
    "KP-DEPLOY-SELF",
    title="A pipeline does not deploy the host that its own runner is on",
    why="the activation restarts the runner, or the cluster that its pod is in, and kills the job in the middle of the"
    " switch; if the new system is broken, the runner that could mend it is gone too",
    fix="run it on a runner of another host",
    example=Example(
        bad='[pipelines.blog]\ndeploys = ["node1"]\ninterruptible = false',
        good='[pipelines.host]\ndeploys = ["node1"]\ninterruptible = false',
        at=("pipelines", "blog", "deploys", 0),
    ),
    waivable=True,
)
def deploys_itself(scene: Scene) -> Iterator[Finding]:
    """Find pipelines that deploy the host of their runner, or of its cluster."""
    topology = scene.topology
    for name, pipeline in topology.pipelines.items():
        runner = topology.runners.get(pipeline.runner)
        home = scene.host_of(runner.host, runner.cluster) if runner else None
        for index, host in enumerate(pipeline.deploys):
            if runner and host == home:
                place = f"in the cluster {runner.cluster} on it" if runner.cluster else "on it"
                yield Finding(
                    ("pipelines", name, "deploys", index),
                    f"the pipeline {name} deploys {host}, and its runner {pipeline.runner} is {place}",
                )


@check(
    "KP-DEPLOY-INTERRUPTIBLE",
    title="A pipeline that deploys is not interruptible",
    why="the next commit cancels it, in the middle of a copy or a switch",
    fix="write `interruptible = false`",
    example=Example(
        bad='[pipelines.host]\ndeploys = ["node1"]',
        good='[pipelines.host]\ndeploys = ["node1"]\ninterruptible = false',
        at=("pipelines", "host", "deploys"),
    ),
)
def interruptible(scene: Scene) -> Iterator[Finding]:
    """Find pipelines that deploy and may be cancelled by a newer commit."""
    for name, pipeline in scene.topology.pipelines.items():
        if pipeline.deploys and pipeline.interruptible:
            yield Finding(
                ("pipelines", name, "deploys"),
                f"the pipeline {name} deploys, and a newer commit may cancel it",
            )
