"""Pods, by `kubectl exec` into one that runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kingpost.observe.executors.interface import Executor

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Pod(Executor):
    """A running pod. `kubectl` is the client's argument list, with `--context` where needed."""

    namespace: str
    pod: str
    kubectl: tuple[str, ...] = ("kubectl",)

    def argv(self, command: Sequence[str]) -> list[str]:
        """Keep stdin open and take no terminal."""
        return [*self.kubectl, "exec", "-i", "-n", self.namespace, self.pod, "--", *command]

    def describe(self) -> str:
        """Name the pod."""
        return f"pod {self.namespace}/{self.pod}"
