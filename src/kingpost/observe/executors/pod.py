"""Pods, by `kubectl exec` into one that runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kingpost.observe.executors.interface import Executor

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Pod(Executor):
    """A running pod. `kubectl` is the client's argument list, with `--context` where needed.

    Attributes:
        namespace: Of the pod.
        pod: Its name.
        kubectl: The client.
        container: Which of its containers; empty leaves it to kubectl, which takes the first.
        note: A word on why it is this pod.

    """

    namespace: str
    pod: str
    kubectl: tuple[str, ...] = ("kubectl",)
    container: str = ""
    note: str = ""

    def argv(self, command: Sequence[str]) -> list[str]:
        """Keep stdin open and take no terminal."""
        container = ["-c", self.container] if self.container else []
        return [*self.kubectl, "exec", "-i", "-n", self.namespace, self.pod, *container, "--", *command]

    def describe(self) -> str:
        """Name the pod."""
        return f"pod {self.namespace}/{self.pod}" + (f" ({self.note})" if self.note else "")
