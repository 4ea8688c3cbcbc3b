"""The errors a user can meet: what happened, where, why it matters, what to do next.

KingpostError               exit 1  something failed
├── UsageError              exit 2  wrong arguments
├── InvalidInputError       exit 2  a topology or another file that cannot be accepted
└── CannotLookError         exit 3  nothing could be checked (missing program, no permission, no network)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_CANNOT_LOOK: Final = 3


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a file that a person can jump to. Lines and columns count from 1; 0 is unknown."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


class KingpostError(Exception):
    """An error with everything that its reader needs.

    Args:
        what: What happened, in one sentence without a final full stop.
        where: A file position, host, context or command; None when there is none.
        why: Why it matters, or what is behind it.
        fix: What to do next, as an instruction.

    """

    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(
        self, what: str, *, where: Location | str | None = None, why: str = "", fix: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        """Render on up to three lines: `where: what`, then why, then fix."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class UsageError(KingpostError):
    """The command line asks for something that cannot be: wrong flag, unknown name."""

    exit_code = EXIT_USAGE


class InvalidInputError(KingpostError):
    """A file that the user wrote cannot be accepted."""

    exit_code = EXIT_USAGE


class CannotLookError(KingpostError):
    """Nothing could be checked; this says nothing about the state of what was to be checked."""

    exit_code = EXIT_CANNOT_LOOK
