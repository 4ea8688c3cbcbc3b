"""Problems of a topology: each with a stable code, its place, and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kingpost.base.errors import InvalidInputError, Location

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to change.

    Attributes:
        code: Stable, explained in docs/checks.md: `KP-…`.
        path: The keys that lead to it, for example `("runners", "blog", "volumes", 1)`. Empty is the file.
        message: What is wrong, one sentence without a final full stop.
        why: What would happen.
        fix: What to write instead.

    """

    code: str
    path: tuple[str | int, ...]
    message: str
    why: str = ""
    fix: str = ""


class Locator(Protocol):
    """Finds places in the file that a topology came from."""

    def locate(self, path: Sequence[str | int]) -> Location:
        """Give the place of a value, or of the nearest thing around it that the file holds."""


@dataclass(frozen=True, slots=True)
class Located:
    """A problem and where it is."""

    problem: Problem
    where: Location

    def __str__(self) -> str:
        """Render `file:line:col: CODE message`, then why and fix, each on its line."""
        lines = [f"{self.where}: {self.problem.code} {self.problem.message}"]
        if self.problem.why:
            lines.append(f"    why: {self.problem.why}")
        if self.problem.fix:
            lines.append(f"    fix: {self.problem.fix}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "code": self.problem.code,
            "file": self.where.file,
            "line": self.where.line,
            "column": self.where.column,
            "path": list(self.problem.path),
            "message": self.problem.message,
            "why": self.problem.why,
            "fix": self.problem.fix,
        }


def locate_all(problems: Iterable[Problem], locator: Locator) -> list[Located]:
    """Give the problems with their places, in the file's order."""
    located = [Located(problem, locator.locate(problem.path)) for problem in problems]
    return sorted(located, key=lambda item: (item.where, item.problem.code, item.problem.message))


class InvalidTopologyError(InvalidInputError):
    """A topology that cannot be accepted; `located` holds every problem."""

    def __init__(self, file: str, located: Sequence[Located]) -> None:
        number = len(located)
        super().__init__(
            f"{number} problem{'s' if number != 1 else ''} in the topology\n\n"
            + "\n\n".join(str(item) for item in located)
            + "\n",
            where=file,
        )
        self.located = tuple(located)
