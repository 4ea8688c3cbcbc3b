"""What a way into a context is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Executor(ABC):
    """A way to run a command somewhere else: an argument list that goes before it."""

    @abstractmethod
    def argv(self, command: Sequence[str]) -> list[str]:
        """Give the full argument list that runs a command there; its stdin reaches the command."""

    @abstractmethod
    def describe(self) -> str:
        """Say where that is, for a person."""


@dataclass(frozen=True, slots=True)
class Over(Executor):
    """A way that begins where another one ends: a container on a host that is reached by ssh."""

    outer: Executor
    inner: Executor

    def argv(self, command: Sequence[str]) -> list[str]:
        """Run the inner way's command through the outer one."""
        return self.outer.argv(self.inner.argv(command))

    def describe(self) -> str:
        """Name both, the inner first."""
        return f"{self.inner.describe()} on {self.outer.describe()}"


@dataclass(frozen=True, slots=True)
class NoWay:
    """Why a context cannot be entered; its routes are then skipped, with this as the reason."""

    reason: str
    fix: str = ""
