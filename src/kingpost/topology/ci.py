"""What builds: GitLab runners and the pipelines that run on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kingpost.topology.types import Flag, Model, Name, Size, Text, User, Variable


class RunnerServer(Model):
    """What GitLab holds of a runner. With a glrt- token `config.toml` sets none of it; the API does."""

    tags: tuple[Name, ...] = ()
    protected: Flag = False
    run_untagged: Flag = False
    locked: Flag = True
    maximum_timeout: Annotated[int, Field(strict=True, ge=600)] | None = Field(
        default=None, description="seconds"
    )


class Runner(Model):
    """A GitLab runner.

    `network` is a docker runner's: `bridge` (docker0), `per-build` (a network of its own for every job,
    feature flag FF_NETWORK_PER_BUILD), or `host`. `nix` says which store and daemon its jobs use.
    """

    gitlab: Name | None = Field(default=None, description="default: the only instance")
    executor: Literal["shell", "docker", "kubernetes"]
    host: Name | None = None
    cluster: Name | None = None
    namespace: Name = "default"
    network: Literal["bridge", "per-build", "host"] = "bridge"
    image: Annotated[str, Field(pattern=r"^[\w./:@-]+$")] | None = None
    volumes: tuple[str, ...] = Field(default=(), description="beyond those that `nix` needs")
    nix: Literal["own", "host-daemon"] = "own"
    user: User = Field(default="gitlab-runner", description="that a shell runner's jobs run as")
    concurrency: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    memory_per_job: Size | None = None
    cpus: Annotated[float, Field(strict=True, gt=0)] | None = None
    privileged: Flag = False
    token: Name | None = Field(default=None, description="secret that holds the glrt- token")
    substituters: tuple[str, ...] | None = Field(default=None, description="in order; default: the site's")
    server: RunnerServer = RunnerServer()
    tags: tuple[Name, ...] | None = Field(default=None, description="belongs under `server`; refused here")
    protected: Flag | None = Field(default=None, description="belongs under `server`; refused here")
    run_untagged: Flag | None = Field(default=None, description="belongs under `server`; refused here")


class PushToken(Model):
    """Where a push finds its token: a CI variable, a secret's file, or a user's `attic login`."""

    variable: Variable | None = None
    secret: Name | None = None
    login: User | None = Field(default=None, description="user whose ~/.config/attic holds it")


class Push(Model):
    """Where a pipeline's results go.

    `required`: the job fails with the push. `best-effort`: the job goes on, and says that it failed.
    """

    cache: str
    policy: Literal["off", "best-effort", "required"]
    token: PushToken = PushToken()
    jobs: Annotated[int, Field(strict=True, ge=1, le=64)] = 2
    because: Text = Field(default="", description="why this policy on this cache, where it is unusual")


class Pipeline(Model):
    """A .gitlab-ci.yml: what is built, on which runner, and where it is pushed."""

    runner: Name
    build: tuple[Annotated[str, Field(min_length=1, max_length=400)], ...]
    push: tuple[Push, ...] = ()
    primary: str | None = Field(
        default=None, description="the cache that readers rely on; default: the site's"
    )
    interruptible: Flag = True
    forks: Literal["no-push", "push"] = Field(default="no-push", description="what a fork's pipeline may do")
    fallback: Flag = Field(default=True, description="readers build what a broken cache cannot give")
    deploys: tuple[Name, ...] = Field(default=(), description="hosts that it deploys")
    image: Annotated[str, Field(pattern=r"^[\w./:@-]+$")] | None = None
