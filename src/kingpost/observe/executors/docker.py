"""Containers: a running one by `docker exec`, or a short-lived one of the runner's own image and network.

A short-lived container is started with `--rm` and `--pull never`: nothing is downloaded and nothing stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kingpost.observe.executors.interface import Executor

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class RunningContainer(Executor):
    """A container that runs. `docker` is the client's argument list, with `-H` where needed."""

    container: str
    docker: tuple[str, ...] = ("docker",)

    def argv(self, command: Sequence[str]) -> list[str]:
        """Keep stdin open and take no terminal."""
        return [*self.docker, "exec", "-i", self.container, *command]

    def describe(self) -> str:
        """Name the container."""
        return f"container {self.container}"


@dataclass(frozen=True, slots=True)
class ShortLivedContainer(Executor):
    """A container for one command, as the runner would start its job."""

    image: str
    network: str
    extra_hosts: tuple[str, ...] = ()
    docker: tuple[str, ...] = ("docker",)

    def argv(self, command: Sequence[str]) -> list[str]:
        """Replace the image's entrypoint: a runner does so too, by its shell."""
        hosts = [word for entry in self.extra_hosts for word in ("--add-host", entry)]
        run = ["run", "--rm", "-i", "--pull", "never", "--network", self.network, *hosts]
        program, *rest = command
        return [*self.docker, *run, "--entrypoint", program, self.image, *rest]

    def describe(self) -> str:
        """Name the image and network."""
        return f"a short-lived container of {self.image} on network {self.network}"
